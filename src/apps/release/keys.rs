//! Keys of publishers: files in a directory, and the roots that name them.

use std::collections::HashMap;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
pub(super) use aws_lc_rs::signature::Ed25519KeyPair as KeyPair;
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::Key;
use tough::schema::{Error, Role, RoleKeys, RoleType, Root, Signature, Signed};
use tough::sign::Sign;
use zeroize::Zeroizing;

use super::error::{ReleaseError, Result};
use super::proposal::Proposal;
use super::sign::{Expiry, SPEC_VERSION, Signer, after, bytes_of, one};
use crate::base::disk::{Disk, RealDisk, create_file, read_file, replace_file};
use crate::crypto::SharedKey;

/// Keys that are shared: of content, and of a bucket.
pub(super) const CONTENT_KEY: &str = "content.key";
pub(super) const STORE_KEY: &str = "store.key";
/// Names of roots in a directory of keys begin so.
pub(super) const ROOT_PREFIX: &str = "root-";
/// The newest root.
pub(super) const ROOT: &str = "root.json";
const KEY_LEN_MAX: usize = 4096;
const ROOT_LEN_MAX: usize = 1 << 20;
const KEYS_MAX: usize = 20;
const FORMAT: u32 = 1;
pub(super) const ROLES: [RoleType; 4] = [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp];

/// How many keys each role has, and how many of them have to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Keys of the root, and of targets, that are made here.
    pub keys: u32,
    /// How many of all have to sign.
    pub threshold: u32,
}

/// What somebody who signs elsewhere gives away, so that a root can name their keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Person {
    format: u32,
    root: Key,
    targets: Key,
}

pub(super) fn bad(dir: &str, reason: impl ToString) -> ReleaseError {
    ReleaseError::Keys { dir: dir.to_owned(), reason: reason.to_string() }
}

pub(super) fn bad_file(dir: &str, file: &str, error: std::io::Error) -> ReleaseError {
    bad(dir, format!("{file}: {error}"))
}

pub(super) fn word(role: RoleType) -> &'static str {
    match role {
        RoleType::Root => "root",
        RoleType::Snapshot => "snapshot",
        RoleType::Timestamp => "timestamp",
        _ => "targets",
    }
}

/// A new key pair, and the text of its file.
fn pair(dir: &str) -> Result<(KeyPair, Zeroizing<String>)> {
    let document = KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|error| bad(dir, error))?;
    let pair = KeyPair::from_pkcs8(document.as_ref()).map_err(|error| bad(dir, error))?;
    Ok((pair, Zeroizing::new(BASE64.encode(document.as_ref()))))
}

fn id(dir: &str, key: &Key) -> Result<Decoded<Hex>> {
    key.key_id().map_err(|error| bad(dir, error))
}

/// Makes the keys of one person, who signs with them for publishers elsewhere, where there are none yet, and writes
/// what these have to be given.
/// The ids of the keys, for roots and for targets.
pub(super) fn person(dir: &Path, to: &Path) -> Result<(String, String)> {
    let (name, disk) = (dir.display().to_string(), &RealDisk);
    if to.exists() {
        let reason = "it is there already; name a new file".to_owned();
        return Err(ReleaseError::Disk { path: to.display().to_string(), reason });
    }
    disk.create_dir_all(dir).map_err(|error| bad(&name, error))?;
    // Keys that are there already are given away again.
    let key = |file: &str| match dir.join(file).exists() {
        true => read_pair(dir, file).map(|pair| Sign::tuf_key(&pair)),
        false => {
            let (pair, text) = pair(&name)?;
            create_file(disk, &dir.join(file), text.as_bytes()).map_err(|error| bad_file(&name, file, error))?;
            Ok(Sign::tuf_key(&pair))
        }
    };
    let person = Person { format: FORMAT, root: key("root-person.key")?, targets: key("targets-person.key")? };
    let text = serde_json::to_vec(&person).map_err(|error| bad(&name, error))?;
    create_file(disk, to, &text)
        .map_err(|error| ReleaseError::Disk { path: to.display().to_string(), reason: error.to_string() })?;
    let shown = |key| id(&name, key).map(|id| HEXLOWER.encode(&id));
    Ok((shown(&person.root)?, shown(&person.targets)?))
}

impl Person {
    /// Reads what somebody gave away.
    pub(super) fn read(path: &str) -> Result<Self> {
        let bytes = read_file(&RealDisk, Path::new(path), KEY_LEN_MAX)
            .map_err(|error| ReleaseError::unread("file with public keys", path, &error))?;
        Self::parse(&bytes, path)
    }

    pub(super) fn parse(bytes: &[u8], path: &str) -> Result<Self> {
        let damaged = |reason: String| ReleaseError::Damaged { object: format!("the public keys in {path}"), reason };
        let person: Self = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        match person.format {
            FORMAT => Ok(person),
            other => Err(damaged(format!("it has form {other}, and this program knows {FORMAT}"))),
        }
    }
}

/// How many keys sign: as is asked for, or else as the present root in a directory says, or else one.
pub(super) fn thresholds(dir: &Path, count: Option<u32>, threshold: Option<u32>) -> Result<Thresholds> {
    let old = match has_root(dir) {
        true => read_roots(dir)?.pop().and_then(|(mut root, _)| root.signed.roles.remove(&RoleType::Root)),
        false => None,
    };
    let (mut keys, mut least) = (1, 1);
    if let Some(old) = old {
        let here = ids(&dir.display().to_string(), &read_pairs(dir)?)?;
        let count = old.keyids.iter().filter(|id| here.contains(id)).count();
        keys = u32::try_from(count).unwrap_or(u32::MAX);
        least = u32::try_from(old.threshold.get()).unwrap_or(u32::MAX);
    }
    Ok(Thresholds { keys: count.unwrap_or(keys), threshold: threshold.unwrap_or(least) })
}

/// Makes keys in a directory, and the root that names them. With a root there already, makes the next one, which the
/// keys before sign, too; the new keys take the place of the old ones.
pub fn keygen(dir: &Path, thresholds: Thresholds, expiry: Expiry, now: jiff::Timestamp) -> Result<()> {
    make_root(dir, thresholds, &[], (expiry, now), None)
}

/// As [`keygen`], with the keys of other people, too. With `to_sign` the root is written there, and counts once enough
/// of them have signed it.
pub(super) fn make_root(
    dir: &Path,
    thresholds: Thresholds,
    people: &[Person],
    times: (Expiry, jiff::Timestamp),
    to_sign: Option<&Path>,
) -> Result<()> {
    let (proposal, files) = new_root(dir, thresholds, people, times)?;
    if to_sign.is_none() {
        proposal.check_complete()?;
    }
    write_keys(dir, &files)?;
    match to_sign {
        Some(path) => proposal.create(path),
        None => proposal.adopt(dir),
    }
}

type KeyFiles = Vec<(String, Zeroizing<String>)>;

/// New keys, and a root that names them and other people's, signed with all that is here; nothing is written yet.
fn new_root(
    dir: &Path,
    thresholds: Thresholds,
    people: &[Person],
    (expiry, now): (Expiry, jiff::Timestamp),
) -> Result<(Proposal, KeyFiles)> {
    let name = dir.display().to_string();
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let all = count(thresholds.keys).saturating_add(people.len());
    if thresholds.threshold == 0 || count(thresholds.threshold) > all || all > KEYS_MAX {
        let reason = format!(
            "{} of {all} keys would have to sign; the threshold is from 1 to the number of keys, and they are \
             {KEYS_MAX} at most; name the people again (--with), or give --count and --threshold",
            thresholds.threshold
        );
        return Err(bad(&name, reason));
    }
    let old = match has_root(dir) {
        true => Some(Signer::open(dir, expiry)?),
        false => None,
    };
    let before = old.as_ref().map_or(0, |old| old.root().signed.version.get());
    let version = before.checked_add(1).ok_or_else(|| bad(&name, "its root has the last number that there is"))?;
    let mut root = Root {
        spec_version: SPEC_VERSION.to_owned(),
        consistent_snapshot: true,
        version: one(version),
        expires: after(now, expiry.root_days),
        keys: HashMap::new(),
        roles: HashMap::new(),
        _extra: HashMap::new(),
    };
    let (pairs, files) = fill(&mut root, dir, thresholds, people)?;
    let mut proposal = Proposal::of_root(old.as_ref().map(|old| old.root().clone()), root);
    proposal.sign_with(&name, &pairs)?;
    if let Some(old) = &old {
        proposal.sign_with(&name, old.pairs())?;
    }
    Ok((proposal, files))
}

fn write_keys(dir: &Path, files: &KeyFiles) -> Result<()> {
    let disk = &RealDisk;
    let name = dir.display().to_string();
    disk.create_dir_all(dir).map_err(|error| bad(&name, error))?;
    let create = |file: &str, text: &str| {
        create_file(disk, &dir.join(file), text.as_bytes()).map_err(|error| bad_file(&name, file, error))
    };
    files.iter().try_for_each(|(file, text)| create(file, text))?;
    let mut shared = [CONTENT_KEY, STORE_KEY].into_iter().filter(|file| !dir.join(file).exists());
    shared.try_for_each(|file| create(file, &SharedKey::random().to_text()))
}

/// New keys for all roles of a root, besides those of others, and the files they go to.
fn fill(root: &mut Root, dir: &Path, thresholds: Thresholds, people: &[Person]) -> Result<(Vec<KeyPair>, KeyFiles)> {
    let (name, mut pairs, mut files) = (dir.display().to_string(), Vec::new(), KeyFiles::new());
    for role in ROLES {
        let many = matches!(role, RoleType::Root | RoleType::Targets);
        let (count, threshold) = if many { (thresholds.keys, thresholds.threshold) } else { (1, 1) };
        let (mut keys, mut number) = (Vec::new(), 0);
        for _ in 0..count {
            let (pair, text) = pair(&name)?;
            keys.push(Sign::tuf_key(&pair));
            pairs.push(pair);
            // Keys of a root that was never adopted may lie there.
            let file = loop {
                number += 1;
                let file = format!("{}-{}-{number}.key", word(role), root.version);
                if !dir.join(&file).exists() {
                    break file;
                }
            };
            files.push((file, text));
        }
        let of_person = |person: &Person| if role == RoleType::Root { &person.root } else { &person.targets }.clone();
        keys.extend(people.iter().filter(|_| many).map(of_person));
        let mut keyids = Vec::new();
        for key in keys {
            let id = id(&name, &key)?;
            if root.keys.insert(id.clone(), key).is_some() {
                return Err(bad(&name, "the same key would count twice; each person gives away keys of their own"));
            }
            keyids.push(id);
        }
        let role_keys = RoleKeys { keyids, threshold: one(u64::from(threshold)), _extra: HashMap::new() };
        root.roles.insert(role, role_keys);
    }
    Ok((pairs, files))
}

/// The ids of keys.
pub(super) fn ids(dir: &str, pairs: &[KeyPair]) -> Result<Vec<Decoded<Hex>>> {
    pairs.iter().map(|pair| id(dir, &Sign::tuf_key(pair))).collect()
}

/// All keys in a directory that sign something.
pub(super) fn read_pairs(dir: &Path) -> Result<Vec<KeyPair>> {
    let (name, mut pairs) = (dir.display().to_string(), Vec::new());
    for item in RealDisk.list(dir).map_err(|error| bad(&name, error))? {
        let signs = ROLES.iter().any(|role| item.name.starts_with(&format!("{}-", word(*role))));
        if !signs || !item.name.ends_with(".key") {
            continue;
        }
        pairs.push(read_pair(dir, &item.name)?);
    }
    Ok(pairs)
}

fn read_pair(dir: &Path, file: &str) -> Result<KeyPair> {
    let name = dir.display().to_string();
    let bytes = read_file(&RealDisk, &dir.join(file), KEY_LEN_MAX).map_err(|error| bad_file(&name, file, error))?;
    let text = Zeroizing::new(bytes);
    let no_key = || bad(&name, format!("{file} is no key"));
    let der = Zeroizing::new(BASE64.decode(text.trim_ascii()).map_err(|_| no_key())?);
    KeyPair::from_pkcs8(&der).map_err(|_| no_key())
}

/// A key that is shared, from its file.
pub(super) fn shared_key(dir: &str, file: &str) -> Result<SharedKey> {
    let bytes = read_file(&RealDisk, &Path::new(dir).join(file), KEY_LEN_MAX)
        .map_err(|error| bad(dir, format!("{file}: {error}")))?;
    let text = Zeroizing::new(String::from_utf8(bytes).unwrap_or_default());
    SharedKey::from_text(&text).ok_or_else(|| bad(dir, format!("{file} is no key")))
}

/// Whether a directory of keys has a root.
pub(super) fn has_root(dir: &Path) -> bool {
    dir.join(ROOT).exists() || dir.join(format!("{ROOT_PREFIX}1.json")).exists()
}

/// The roots in a directory of keys with their bytes, oldest first, up to the newest one that counts: that of
/// `root.json`, or one that follows it, when its adoption was interrupted.
pub(super) fn read_roots(dir: &Path) -> Result<Vec<(Signed<Root>, Vec<u8>)>> {
    let name = dir.display().to_string();
    let read = |file: &str| -> Result<(Signed<Root>, Vec<u8>)> {
        let failed = |error: String| bad(&name, format!("{file}: {error}"));
        let bytes = read_file(&RealDisk, &dir.join(file), ROOT_LEN_MAX).map_err(|error| failed(error.to_string()))?;
        let root = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
        Ok((root, bytes))
    };
    let mut roots = Vec::new();
    for item in RealDisk.list(dir).map_err(|error| bad(&name, error))? {
        if item.name.starts_with(ROOT_PREFIX) && item.name.ends_with(".json") {
            roots.push(read(&item.name)?);
        }
    }
    roots.sort_by_key(|(root, _)| root.signed.version);
    let mut newest = match dir.join(ROOT).exists() {
        true => Some(read(ROOT)?.0),
        false => roots.first().map(|(root, _)| root.clone()),
    };
    for (next, _) in &roots {
        let follows = |newest: &Signed<Root>| {
            newest.signed.version.get().checked_add(1) == Some(next.signed.version.get())
                && newest.signed.verify_role(next).is_ok()
                && next.signed.verify_role(next).is_ok()
        };
        if newest.as_ref().is_some_and(follows) {
            newest = Some(next.clone());
        }
    }
    let newest = newest.map_or(0, |newest| newest.signed.version.get());
    roots.retain(|(root, _)| root.signed.version.get() <= newest);
    Ok(roots)
}

/// Whether `root.json` holds this root.
pub(super) fn is_current(dir: &Path, root: &Signed<Root>) -> bool {
    let bytes = read_file(&RealDisk, &dir.join(ROOT), ROOT_LEN_MAX).ok();
    let current = bytes.and_then(|bytes| serde_json::from_slice::<Signed<Root>>(&bytes).ok());
    current.is_some_and(|current| current.signed == root.signed)
}

/// Keeps a root that is signed as it has to be, or goes on with it after an interruption.
pub(super) fn keep_root(dir: &Path, root: &Signed<Root>) -> Result<()> {
    let name = dir.display().to_string();
    let file = format!("{ROOT_PREFIX}{}.json", root.signed.version);
    let path = dir.join(&file);
    let mut bytes = bytes_of(&name, root)?;
    match create_file(&RealDisk, &path, &bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bytes = read_file(&RealDisk, &path, ROOT_LEN_MAX).map_err(|error| bad_file(&name, &file, error))?;
            let known = serde_json::from_slice::<Signed<Root>>(&bytes).ok();
            if known.is_none_or(|known| known.signed != root.signed) {
                return Err(bad(&name, format!("{file} is another root; move it away")));
            }
        }
        done => done.map_err(|error| bad_file(&name, &file, error))?,
    }
    replace_file(&RealDisk, &dir.join(ROOT), &bytes).map_err(|error| bad_file(&name, ROOT, error))
}

/// Adds the signatures of those keys that a root lets sign this; how many they are.
pub(super) fn sign_with<T: Role>(dir: &str, document: &mut Signed<T>, root: &Root, pairs: &[KeyPair]) -> Result<usize> {
    let data = document.signed.canonical_form().map_err(|error| bad(dir, error))?;
    let Some(role) = root.roles.get(&T::TYPE) else { return Ok(0) };
    let mut count = 0;
    for pair in pairs {
        let keyid = id(dir, &Sign::tuf_key(pair))?;
        if role.keyids.contains(&keyid) {
            let sig = pair.sign(&data).as_ref().to_vec().into();
            document.signatures.retain(|signature| signature.keyid != keyid);
            document.signatures.push(Signature { keyid, sig });
            count += 1;
        }
    }
    Ok(count)
}

/// How many of a role's keys have signed, and how many have to.
pub(super) fn count_signatures<T: Role>(root: &Root, document: &Signed<T>) -> (u64, u64) {
    let needed = root.roles.get(&T::TYPE).map_or(1, |role| role.threshold.get());
    match root.verify_role(document) {
        Ok(()) => (needed, needed),
        Err(Error::SignatureThreshold { valid, .. }) => (valid, needed),
        Err(_) => (0, needed),
    }
}
