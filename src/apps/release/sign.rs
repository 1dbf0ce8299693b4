//! Keys, and signing what a repository offers (The Update Framework 1.0, without delegations).

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use data_encoding::BASE64;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tough::editor::signed::SignedRole;
use tough::key_source::KeySource;
use tough::schema::{
    Hashes, KeyHolder, Metafile, Role, RoleKeys, RoleType, Root, Signed, Snapshot, Target, Targets, Timestamp,
};
use tough::sign::Sign;
use tough::{TargetName, async_trait};
use zeroize::Zeroizing;

use super::anchor::Anchor;
use super::error::{ReleaseError, Result};
use super::package::check_name;
use super::repository::Repository;
use crate::base::disk::{Disk, DiskFile, OpenMode, RealDisk, create_file, read_file, replace_file};
use crate::base::ids::Sha256;
use crate::crypto::SharedKey;
use crate::version::index::sha256;

/// Keys that are shared: of content, and of a bucket.
const CONTENT_KEY: &str = "content.key";
const STORE_KEY: &str = "store.key";
const SPEC_VERSION: &str = "1.0.0";
/// Longest file of metadata, in bytes.
pub(super) const METADATA_LEN_MAX: u64 = 10 << 20;
const KEY_LEN_MAX: usize = 4096;
const ROOT_LEN_MAX: usize = 1 << 20;
/// Names of roots in a directory of keys begin so.
const ROOT_PREFIX: &str = "root-";
const ROLES: [RoleType; 4] = [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp];

/// For how many days what is signed counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The root.
    pub root_days: i64,
    /// What is offered, and the list of it.
    pub targets_days: i64,
    /// The statement that there is nothing newer.
    pub timestamp_days: i64,
}

impl Default for Expiry {
    fn default() -> Self {
        Self { root_days: 730, targets_days: 365, timestamp_days: 30 }
    }
}

/// How many keys each role has, and how many of them have to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Keys of the root, and of targets.
    pub keys: u32,
    /// How many of them have to sign.
    pub threshold: u32,
}

struct SigningKey(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey")
    }
}

type SourceError = Box<dyn std::error::Error + Send + Sync + 'static>;

#[async_trait]
impl KeySource for SigningKey {
    async fn as_sign(&self) -> std::result::Result<Box<dyn Sign>, SourceError> {
        Ok(Box::new(Ed25519KeyPair::from_pkcs8(&self.0)?))
    }

    async fn write(&self, _value: &str, _key_id_hex: &str) -> std::result::Result<(), SourceError> {
        Err("keys are written by `keygen` alone".into())
    }
}

/// Keys of a publisher: a directory with a file for each key, and the root they belong to.
pub struct Signer {
    dir: String,
    keys: Vec<Box<dyn KeySource>>,
    /// Derives the keys of content.
    pub(super) content_key: SharedKey,
    /// Seals a repository in a bucket of its own.
    pub(super) store_key: SharedKey,
    root: Root,
    /// All roots there were, oldest first, as they were signed.
    roots: Vec<(Root, Vec<u8>)>,
    expiry: Expiry,
}

fn bad(dir: &str, reason: impl ToString) -> ReleaseError {
    ReleaseError::Keys { dir: dir.to_owned(), reason: reason.to_string() }
}

fn word(role: RoleType) -> &'static str {
    match role {
        RoleType::Root => "root",
        RoleType::Snapshot => "snapshot",
        RoleType::Timestamp => "timestamp",
        _ => "targets",
    }
}

fn after(now: jiff::Timestamp, days: i64) -> jiff::Timestamp {
    now.checked_add(jiff::SignedDuration::from_hours(days.saturating_mul(24))).unwrap_or(now)
}

fn one(number: u64) -> NonZeroU64 {
    NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN)
}

/// Makes keys in a directory, and the root that names them. With a root there already, makes the next one, which the
/// keys before sign, too; the new keys take the place of the old ones. The new root, signed.
pub fn keygen(dir: &Path, thresholds: Thresholds, expiry: Expiry, now: jiff::Timestamp) -> Result<Vec<u8>> {
    let name = dir.display().to_string();
    if thresholds.threshold == 0 || thresholds.threshold > thresholds.keys || thresholds.keys > 20 {
        return Err(bad(&name, "the threshold is from 1 to the number of keys, and they are 20 at most"));
    }
    let old = match dir.join("root.json").exists() {
        true => Some(Signer::open(dir, expiry)?),
        false => None,
    };
    let version = old.as_ref().map_or(1, |old| old.root.version.get() + 1);
    let mut root = Root {
        spec_version: SPEC_VERSION.to_owned(),
        consistent_snapshot: true,
        version: one(version),
        expires: after(now, expiry.root_days),
        keys: HashMap::new(),
        roles: HashMap::new(),
        _extra: HashMap::new(),
    };
    let (keys, files) = fill(&mut root, &name, thresholds)?;
    let mut signed = sign(&name, root.clone(), &KeyHolder::Root(root.clone()), &keys)?;
    if let Some(old) = &old {
        let before = sign(&name, root.clone(), &KeyHolder::Root(old.root.clone()), &old.keys)?;
        signed = signed.add_old_signatures(before.signed().signatures.clone()).map_err(|error| bad(&name, error))?;
        // Otherwise no client would follow.
        old.root.verify_role(signed.signed()).map_err(|_| bad(&name, "too few keys of the present root are here"))?;
    }
    let disk = &RealDisk;
    let written = disk.create_dir_all(dir).and_then(|()| {
        files.iter().try_for_each(|(file, text)| create_file(disk, &dir.join(file), text.as_bytes()))?;
        if old.is_none() {
            create_file(disk, &dir.join(CONTENT_KEY), SharedKey::random().to_text().as_bytes())?;
            create_file(disk, &dir.join(STORE_KEY), SharedKey::random().to_text().as_bytes())?;
        }
        create_file(disk, &dir.join(format!("{ROOT_PREFIX}{version}.json")), signed.buffer())?;
        replace_file(disk, &dir.join("root.json"), signed.buffer())
    });
    written.map_err(|error| bad(&name, error))?;
    Ok(signed.buffer().clone())
}

type KeyFiles = Vec<(String, Zeroizing<String>)>;

/// New keys for all roles of a root, and the files they go to.
fn fill(root: &mut Root, name: &str, thresholds: Thresholds) -> Result<(Vec<Box<dyn KeySource>>, KeyFiles)> {
    let (mut keys, mut files): (Vec<Box<dyn KeySource>>, KeyFiles) = (Vec::new(), Vec::new());
    for role in ROLES {
        let many = matches!(role, RoleType::Root | RoleType::Targets);
        let (count, threshold) = if many { (thresholds.keys, thresholds.threshold) } else { (1, 1) };
        let mut keyids = Vec::new();
        for number in 1..=count {
            let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|error| bad(name, error))?;
            let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|error| bad(name, error))?;
            let key = Sign::tuf_key(&pair);
            let id = key.key_id().map_err(|error| bad(name, error))?;
            keyids.push(id.clone());
            root.keys.insert(id, key);
            files.push((
                format!("{}-{}-{number}.key", word(role), root.version),
                Zeroizing::new(BASE64.encode(document.as_ref())),
            ));
            keys.push(Box::new(SigningKey(Zeroizing::new(document.as_ref().to_vec()))));
        }
        let role_keys = RoleKeys { keyids, threshold: one(u64::from(threshold)), _extra: HashMap::new() };
        root.roles.insert(role, role_keys);
    }
    Ok((keys, files))
}

/// A key that is shared, from its file.
fn shared_key(dir: &str, file: &str) -> Result<SharedKey> {
    let bytes = read_file(&RealDisk, &Path::new(dir).join(file), KEY_LEN_MAX)
        .map_err(|error| bad(dir, format!("{file}: {error}")))?;
    let text = Zeroizing::new(String::from_utf8(bytes).unwrap_or_default());
    SharedKey::from_text(&text).ok_or_else(|| bad(dir, format!("{file} is no key")))
}

fn sign<T: Role + Serialize>(
    dir: &str,
    role: T,
    holder: &KeyHolder,
    keys: &[Box<dyn KeySource>],
) -> Result<SignedRole<T>> {
    let random = SystemRandom::new();
    let signing = SignedRole::new(role, holder, keys, &random);
    super::trust::block_on(signing)?.map_err(|error| bad(dir, error))
}

impl Signer {
    /// Opens the keys in a directory that the newest root names.
    pub fn open(dir: &Path, expiry: Expiry) -> Result<Self> {
        let name = dir.display().to_string();
        let read =
            |file: &str, len_max| read_file(&RealDisk, &dir.join(file), len_max).map_err(|error| bad(&name, error));
        let parse = |bytes: &[u8]| -> Result<Root> {
            let signed: Signed<Root> = serde_json::from_slice(bytes).map_err(|error| bad(&name, error))?;
            Ok(signed.signed)
        };
        let root = parse(&read("root.json", ROOT_LEN_MAX)?)?;
        let mut keys: Vec<Box<dyn KeySource>> = Vec::new();
        let mut roots: Vec<(Root, Vec<u8>)> = Vec::new();
        for item in RealDisk.list(dir).map_err(|error| bad(&name, error))? {
            if item.name.starts_with(ROOT_PREFIX) && item.name.ends_with(".json") {
                let bytes = read(&item.name, ROOT_LEN_MAX)?;
                roots.push((parse(&bytes)?, bytes));
            }
            let signs = ROLES.iter().any(|role| item.name.starts_with(&format!("{}-", word(*role))));
            if !signs || !item.name.ends_with(".key") {
                continue;
            }
            let text = Zeroizing::new(read(&item.name, KEY_LEN_MAX)?);
            let no_key = || bad(&name, format!("{} is no key", item.name));
            let der = Zeroizing::new(BASE64.decode(text.trim_ascii()).map_err(|_| no_key())?);
            let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| no_key())?;
            if root.key_id(&pair).is_some() {
                keys.push(Box::new(SigningKey(der)));
            }
        }
        roots.sort_by_key(|(root, _)| root.version);
        let (content_key, store_key) = (shared_key(&name, CONTENT_KEY)?, shared_key(&name, STORE_KEY)?);
        Ok(Self { dir: name, keys, content_key, store_key, root, roots, expiry })
    }

    /// Keeps other publishers with these keys out for as long as it lives.
    pub(super) fn lock(&self) -> Result<std::sync::Arc<dyn DiskFile>> {
        let path = Path::new(&self.dir).join("lock");
        let locked = RealDisk.open(&path, OpenMode::ReadWrite).and_then(|file| Ok((file.try_lock()?, file)));
        match locked.map_err(|error| bad(&self.dir, error))? {
            (true, file) => Ok(file),
            (false, _) => Err(bad(&self.dir, "somebody else is publishing with them; try again when that is done")),
        }
    }

    /// The key of a channel, made when there is none.
    pub fn channel_key(&self, channel: &str) -> Result<SharedKey> {
        check_name("channel", channel)?;
        let file = format!("channel-{channel}.key");
        let path = Path::new(&self.dir).join(&file);
        if !path.exists() {
            create_file(&RealDisk, &path, SharedKey::random().to_text().as_bytes())
                .map_err(|error| bad(&self.dir, format!("{file}: {error}")))?;
        }
        shared_key(&self.dir, &file)
    }

    /// What clients of a channel have to be given.
    pub fn anchor(&self, channel: &str) -> Result<Anchor> {
        let newest = self.roots.last().ok_or_else(|| bad(&self.dir, "there is no root"))?;
        let root = serde_json::from_slice(&newest.1).map_err(|error| bad(&self.dir, error))?;
        Ok(Anchor::new(channel, self.channel_key(channel)?, self.store_key.clone(), root))
    }

    /// The newest offer of a repository, as these keys signed it; `None` when it holds none yet.
    pub fn offered(&self, repository: &dyn Repository) -> Result<Option<Offered>> {
        let Some(timestamp) = self.read::<Timestamp>(repository, "timestamp.json")? else { return Ok(None) };
        let missing = |name: &str| ReleaseError::Missing { what: "file", name: name.to_owned() };
        let number = |meta: &HashMap<String, Metafile>, name: &str| {
            meta.get(name).map(|meta| meta.version.get()).ok_or_else(|| missing(name))
        };
        let name = format!("{}.snapshot.json", number(&timestamp.meta, "snapshot.json")?);
        let snapshot = self.read::<Snapshot>(repository, &name)?.ok_or_else(|| missing(&name))?;
        let name = format!("{}.targets.json", number(&snapshot.meta, "targets.json")?);
        let targets = self.read::<Targets>(repository, &name)?.ok_or_else(|| missing(&name))?;
        Ok(Some(Offered { targets, snapshot: snapshot.version.get(), timestamp: timestamp.version.get() }))
    }

    fn read<T: Role + Serialize + DeserializeOwned>(
        &self,
        repository: &dyn Repository,
        name: &str,
    ) -> Result<Option<T>> {
        let Some(bytes) = repository.get(&format!("metadata/{name}"), METADATA_LEN_MAX)? else { return Ok(None) };
        let untrusted = |reason: String| ReleaseError::Untrusted { repository: repository.address(), reason };
        let signed: Signed<T> =
            serde_json::from_slice(&bytes).map_err(|error| untrusted(format!("{name}: {error}")))?;
        // What an earlier root's keys signed is signed anew by the next publication.
        if !self.roots.iter().any(|(root, _)| root.verify_role(&signed).is_ok()) {
            self.root.verify_role(&signed).map_err(|error| untrusted(format!("{name}: {error}")))?;
        }
        Ok(Some(signed.signed))
    }

    /// Reads a signed file of the newest offer.
    pub fn target(&self, repository: &dyn Repository, offered: &Offered, name: &str) -> Result<Option<Vec<u8>>> {
        let wanted = TargetName::new(name).map_err(|error| bad(&self.dir, error))?;
        let Some(target) = offered.targets.targets.get(&wanted) else { return Ok(None) };
        let digest = data_encoding::HEXLOWER.encode(&target.hashes.sha256);
        let bytes = repository.get(&format!("targets/{digest}.{name}"), target.length)?;
        let is_right = |bytes: &Vec<u8>| sha256(bytes).0[..] == target.hashes.sha256[..];
        let reason = format!("{name} is not what was signed");
        let untrusted = || ReleaseError::Untrusted { repository: repository.address(), reason };
        bytes.filter(is_right).map(Some).ok_or_else(untrusted)
    }

    /// Signs and publishes an offer with these files added or replaced, or (without bytes) gone. The statement that it
    /// is the newest comes last.
    pub fn publish(&self, repository: &dyn Repository, files: &[SignedFile], now: jiff::Timestamp) -> Result<()> {
        let expires = after(now, self.expiry.targets_days);
        let (mut targets, snapshot, timestamp) = match self.offered(repository)? {
            Some(Offered { targets, snapshot, timestamp }) => (targets, snapshot, timestamp),
            None => (Targets::new(SPEC_VERSION.to_owned(), one(1), expires), 0, 0),
        };
        targets.version = one(if snapshot == 0 { 1 } else { targets.version.get() + 1 });
        targets.expires = expires;
        for (root, bytes) in &self.roots {
            repository.put(&format!("metadata/{}.root.json", root.version), bytes)?;
        }
        for (name, bytes) in files {
            let target = TargetName::new(name.as_str()).map_err(|error| bad(&self.dir, error))?;
            let Some(bytes) = bytes else {
                targets.targets.remove(&target);
                continue;
            };
            let digest = sha256(bytes);
            repository.put(&format!("targets/{digest}.{name}"), bytes)?;
            let name = target;
            let target = Target {
                length: bytes.len() as u64,
                hashes: hashes(&digest),
                custom: HashMap::new(),
                _extra: HashMap::new(),
            };
            targets.targets.insert(name, target);
        }
        let holder = KeyHolder::Root(self.root.clone());
        let targets = sign(&self.dir, targets, &holder, &self.keys)?;
        repository.put(&format!("metadata/{}.targets.json", targets.signed().signed.version), targets.buffer())?;
        let mut list = Snapshot::new(SPEC_VERSION.to_owned(), one(snapshot + 1), expires);
        list.meta.insert("targets.json".to_owned(), meta(&targets, targets.signed().signed.version));
        let list = sign(&self.dir, list, &holder, &self.keys)?;
        repository.put(&format!("metadata/{}.snapshot.json", list.signed().signed.version), list.buffer())?;
        let expires = after(now, self.expiry.timestamp_days);
        let mut newest = Timestamp::new(SPEC_VERSION.to_owned(), one(timestamp + 1), expires);
        newest.meta.insert("snapshot.json".to_owned(), meta(&list, list.signed().signed.version));
        let newest = sign(&self.dir, newest, &holder, &self.keys)?;
        repository.put("metadata/timestamp.json", newest.buffer())
    }
}

/// A signed file: its name, and its bytes when it shall be there.
pub type SignedFile = (String, Option<Vec<u8>>);

/// The newest offer of a repository.
pub struct Offered {
    targets: Targets,
    snapshot: u64,
    timestamp: u64,
}

impl Offered {
    /// The names that all files have in the repository that this offer needs, but for roots and the newest statement.
    pub(super) fn files(&self) -> Vec<String> {
        let target = |(name, target): (&TargetName, &Target)| {
            format!("targets/{}.{}", data_encoding::HEXLOWER.encode(&target.hashes.sha256), name.raw())
        };
        let mut files: Vec<String> = self.targets.targets.iter().map(target).collect();
        files.push(format!("metadata/{}.targets.json", self.targets.version));
        files.push(format!("metadata/{}.snapshot.json", self.snapshot));
        files
    }

    /// The names of the signed files.
    pub(super) fn names(&self) -> Vec<&str> {
        self.targets.targets.keys().map(TargetName::raw).collect()
    }
}

fn hashes(digest: &Sha256) -> Hashes {
    Hashes { sha256: digest.0.to_vec().into(), _extra: HashMap::new() }
}

fn meta<T>(signed: &SignedRole<T>, version: NonZeroU64) -> Metafile
where
    T: Role + Serialize,
{
    let digest = sha256(signed.buffer());
    let length = signed.buffer().len() as u64;
    Metafile { length: Some(length), hashes: Some(hashes(&digest)), version, _extra: HashMap::new() }
}
