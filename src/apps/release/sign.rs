//! Signing what a repository offers (The Update Framework 1.0, without delegations).

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tough::TargetName;
use tough::schema::{Hashes, Metafile, Role, Root, Signed, Snapshot, Target, Targets, Timestamp};

use super::anchor::Anchor;
use super::error::{ReleaseError, Result};
use super::keys::{self, KeyPair, bad, count_signatures, sign_with, word};
use super::newest::{self, Versions};
use super::package::check_name;
use super::proposal::{Files, Proposal};
use super::repository::Repository;
use crate::base::disk::{Disk, DiskFile, OpenMode, RealDisk, create_file};
use crate::base::ids::Sha256;
use crate::crypto::SharedKey;
use crate::version::index::sha256;

pub(super) const SPEC_VERSION: &str = "1.0.0";
/// Longest file of metadata, in bytes.
pub(super) const METADATA_LEN_MAX: u64 = 10 << 20;

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

/// Keys of a publisher: a directory with a file for each key, and the root they belong to.
pub struct Signer {
    dir: String,
    keys: Vec<KeyPair>,
    /// Seals a repository in a bucket of its own.
    pub(super) store_key: SharedKey,
    root: Signed<Root>,
    /// All roots there were, oldest first, as they were signed.
    roots: Vec<(Root, Vec<u8>)>,
    expiry: Expiry,
}

pub(super) fn after(now: jiff::Timestamp, days: i64) -> jiff::Timestamp {
    now.checked_add(jiff::SignedDuration::from_hours(days.saturating_mul(24))).unwrap_or(now)
}

pub(super) fn one(number: u64) -> NonZeroU64 {
    NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN)
}

/// The version after this one; somebody with a stolen key may have made it the last there is.
fn next(number: u64) -> NonZeroU64 {
    one(number.saturating_add(1))
}

/// The bytes of metadata as they are published.
pub(super) fn bytes_of<T: Serialize>(dir: &str, signed: &Signed<T>) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(signed).map_err(|error| bad(dir, error))?;
    bytes.push(b'\n');
    Ok(bytes)
}

impl Signer {
    /// Opens the keys in a directory that has a root.
    pub fn open(dir: &Path, expiry: Expiry) -> Result<Self> {
        let name = dir.display().to_string();
        let roots = keys::read_roots(dir)?;
        let (root, _) = roots.last().cloned().ok_or_else(|| bad(&name, "there is no root; `keygen` makes one"))?;
        let roots = roots.into_iter().map(|(root, bytes)| (root.signed, bytes)).collect();
        let keys = keys::read_pairs(dir)?;
        let store_key = keys::shared_key(&name, keys::STORE_KEY)?;
        Ok(Self { dir: name, keys, store_key, root, roots, expiry })
    }

    /// What the keys of content are derived from; who only renews signatures does without.
    pub(super) fn content_key(&self) -> Result<SharedKey> {
        keys::shared_key(&self.dir, keys::CONTENT_KEY)
    }

    /// The newest root.
    pub(super) fn root(&self) -> &Signed<Root> {
        &self.root
    }

    /// The keys that are here.
    pub(super) fn pairs(&self) -> &[KeyPair] {
        &self.keys
    }

    /// Keeps other publishers with these keys out for as long as it lives.
    pub(super) fn lock(&self) -> Result<std::sync::Arc<dyn DiskFile>> {
        let path = Path::new(&self.dir).join("lock");
        let locked = RealDisk.open(&path, OpenMode::ReadWrite).and_then(|file| Ok((file.try_lock()?, file)));
        match locked.map_err(|error| keys::bad_file(&self.dir, "lock", error))? {
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
                .map_err(|error| keys::bad_file(&self.dir, &file, error))?;
        }
        keys::shared_key(&self.dir, &file)
    }

    /// What clients of a channel have to be given.
    pub fn anchor(&self, channel: &str) -> Result<Anchor> {
        let newest = self.roots.last().ok_or_else(|| bad(&self.dir, "there is no root"))?;
        let root = serde_json::from_slice(&newest.1).map_err(|error| bad(&self.dir, error))?;
        Ok(Anchor::new(channel, self.channel_key(channel)?, self.store_key.clone(), root))
    }

    /// The newest offer of a repository, as these keys signed it; `None` when it holds none yet. One that is older than
    /// what was there before is refused.
    pub fn offered(&self, repository: &dyn Repository) -> Result<Option<Offered>> {
        let Some(timestamp) = self.read::<Timestamp>(repository, "timestamp.json")? else {
            newest::check(&self.dir, repository, Versions::default())?;
            return Ok(None);
        };
        let missing = |name: &str| ReleaseError::Missing { what: "file", name: name.to_owned() };
        let number = |meta: &HashMap<String, Metafile>, name: &str| {
            meta.get(name).map(|meta| meta.version.get()).ok_or_else(|| missing(name))
        };
        let name = format!("{}.snapshot.json", number(&timestamp.meta, "snapshot.json")?);
        let snapshot = self.read::<Snapshot>(repository, &name)?.ok_or_else(|| missing(&name))?;
        let name = format!("{}.targets.json", number(&snapshot.meta, "targets.json")?);
        let (signed, bytes) = self.read_signed::<Targets>(repository, &name)?.ok_or_else(|| missing(&name))?;
        let is_present = self.check(&signed).is_ok();
        let (snapshot, timestamp) = (snapshot.version.get(), timestamp.version.get());
        let targets = signed.signed.version.get();
        newest::check(&self.dir, repository, Versions { targets, snapshot, timestamp })?;
        Ok(Some(Offered { targets: signed.signed, bytes, is_present, snapshot, timestamp }))
    }

    fn read<T: Role + Serialize + DeserializeOwned>(
        &self,
        repository: &dyn Repository,
        name: &str,
    ) -> Result<Option<T>> {
        Ok(self.read_signed(repository, name)?.map(|(signed, _)| signed.signed))
    }

    fn read_signed<T: Role + Serialize + DeserializeOwned>(
        &self,
        repository: &dyn Repository,
        name: &str,
    ) -> Result<Option<(Signed<T>, Vec<u8>)>> {
        let Some(bytes) = repository.get(&format!("metadata/{name}"), METADATA_LEN_MAX)? else { return Ok(None) };
        let untrusted = |reason: String| ReleaseError::Untrusted { repository: repository.address(), reason };
        let signed: Signed<T> =
            serde_json::from_slice(&bytes).map_err(|error| untrusted(format!("{name}: {error}")))?;
        // What an earlier root's keys signed is signed anew by the next publication.
        if !self.roots.iter().any(|(root, _)| root.verify_role(&signed).is_ok()) {
            self.root.signed.verify_role(&signed).map_err(|error| untrusted(format!("{name}: {error}")))?;
        }
        Ok(Some((signed, bytes)))
    }

    /// Reads a signed file of the newest offer.
    pub fn target(&self, repository: &dyn Repository, offered: &Offered, name: &str) -> Result<Option<Vec<u8>>> {
        let wanted = TargetName::new(name).map_err(|error| bad(&self.dir, error))?;
        let Some(target) = offered.targets.targets.get(&wanted) else { return Ok(None) };
        let digest = data_encoding::HEXLOWER.encode(&target.hashes.sha256);
        let bytes = repository.get(&format!("targets/{digest}.{name}"), target.length)?;
        let is_right = |bytes: &Vec<u8>| is_target(bytes, target);
        let reason = format!("{name} is not what was signed");
        let untrusted = || ReleaseError::Untrusted { repository: repository.address(), reason };
        bytes.filter(is_right).map(Some).ok_or_else(untrusted)
    }

    /// That every signed file of an offer is among the files that come with it, or lies in the repository.
    pub(super) fn check_files(
        &self,
        repository: &dyn Repository,
        targets: &Signed<Targets>,
        files: &Files,
    ) -> Result<()> {
        for (name, target) in &targets.signed.targets {
            let name = name.raw();
            if files.get(name).is_some_and(|bytes| is_target(bytes, target)) {
                continue;
            }
            let digest = data_encoding::HEXLOWER.encode(&target.hashes.sha256);
            let bytes = repository.get(&format!("targets/{digest}.{name}"), target.length)?;
            if !bytes.is_some_and(|bytes| is_target(&bytes, target)) {
                let what = "signed file, nor does it come with the offer,";
                return Err(ReleaseError::Missing { what, name: name.to_owned() });
            }
        }
        Ok(())
    }

    /// Signs and publishes an offer with these files added or replaced, or (without bytes) gone.
    pub fn publish(&self, repository: &dyn Repository, files: &[SignedFile], now: jiff::Timestamp) -> Result<()> {
        let (targets, files) = self.next_targets(repository, files, now)?;
        self.finish(repository, &targets, &files, now)
    }

    /// What [`publish`](Self::publish) would publish, for others to sign.
    pub(super) fn propose(
        &self,
        repository: &dyn Repository,
        files: &[SignedFile],
        now: jiff::Timestamp,
    ) -> Result<Proposal> {
        let (targets, files) = self.next_targets(repository, files, now)?;
        Ok(Proposal::of_targets(self.root.clone(), targets, files))
    }

    /// The next offer, signed with the keys that are here, and the files that are new in it.
    fn next_targets(
        &self,
        repository: &dyn Repository,
        files: &[SignedFile],
        now: jiff::Timestamp,
    ) -> Result<(Signed<Targets>, Files)> {
        let expires = self.offer_until(now);
        let mut targets = match self.offered(repository)? {
            Some(Offered { mut targets, .. }) => {
                targets.version = next(targets.version.get());
                targets
            }
            None => Targets::new(SPEC_VERSION.to_owned(), one(1), expires),
        };
        targets.expires = expires;
        let mut new = Files::new();
        for (name, bytes) in files {
            let target = TargetName::new(name.as_str()).map_err(|error| bad(&self.dir, error))?;
            let Some(bytes) = bytes else {
                targets.targets.remove(&target);
                continue;
            };
            let (length, hashes) = (bytes.len() as u64, hashes(&sha256(bytes)));
            targets.targets.insert(target, Target { length, hashes, custom: HashMap::new(), _extra: HashMap::new() });
            new.insert(name.clone(), bytes.clone());
        }
        Ok((self.signed(targets)?, new))
    }

    /// Publishes an offer that is signed as it has to be, with the files that are new in it. The statement that it is
    /// the newest comes last.
    pub(super) fn finish(
        &self,
        repository: &dyn Repository,
        targets: &Signed<Targets>,
        files: &Files,
        now: jiff::Timestamp,
    ) -> Result<()> {
        self.check(targets)?;
        let before = self.offered(repository)?;
        let newest = before.as_ref().map_or(0, |before| before.targets.version.get());
        if targets.signed.version != next(newest) {
            let reason =
                format!("it would follow offer {}, and the newest is {newest}", targets.signed.version.get() - 1);
            return Err(ReleaseError::Stale { what: format!("targets {}", targets.signed.version), reason });
        }
        self.put_roots(repository)?;
        for (name, bytes) in files {
            repository.put(&format!("targets/{}.{name}", sha256(bytes)), bytes)?;
        }
        let before = before.map_or((0, 0), |before| (before.snapshot, before.timestamp));
        let (version, bytes) = (targets.signed.version, bytes_of(&self.dir, targets)?);
        self.say_newest(repository, (version, &bytes), before, now)
    }

    /// Says anew that the newest offer is the newest, with the keys of these two roles alone, if the offer has a file
    /// of this name, is signed as the present root asks for, and counts for as long as what is said now. Whether that
    /// was so, and until when the offer counts.
    pub(super) fn renew(
        &self,
        repository: &dyn Repository,
        name: &str,
        now: jiff::Timestamp,
    ) -> Result<Option<jiff::Timestamp>> {
        let Some(offered) = self.offered(repository)? else { return Ok(None) };
        let expires = offered.targets.expires;
        let lasts = expires >= after(now, self.expiry.timestamp_days);
        if !lasts || !offered.is_present || !offered.names().contains(&name) {
            return Ok(None);
        }
        self.put_roots(repository)?;
        let newest = (offered.targets.version, &offered.bytes[..]);
        self.say_newest(repository, newest, (offered.snapshot, offered.timestamp), now)?;
        Ok(Some(expires))
    }

    /// Until when an offer counts that is signed now.
    pub(super) fn offer_until(&self, now: jiff::Timestamp) -> jiff::Timestamp {
        after(now, self.expiry.targets_days)
    }

    fn put_roots(&self, repository: &dyn Repository) -> Result<()> {
        let put =
            |(root, bytes): &(Root, Vec<u8>)| repository.put(&format!("metadata/{}.root.json", root.version), bytes);
        self.roots.iter().try_for_each(put)
    }

    /// Signs the list of what is offered, and the statement that there is nothing newer, and publishes both and what is
    /// offered. The list comes first: one of two publishers at once goes on from there.
    fn say_newest(
        &self,
        repository: &dyn Repository,
        (targets, offer): (NonZeroU64, &[u8]),
        (snapshot, timestamp): (u64, u64),
        now: jiff::Timestamp,
    ) -> Result<()> {
        let expires = self.offer_until(now);
        let mut list = Snapshot::new(SPEC_VERSION.to_owned(), next(snapshot), expires);
        list.meta.insert("targets.json".to_owned(), meta(offer, targets));
        let (version, bytes) = (list.version, self.signed_bytes(list)?);
        let expires = after(now, self.expiry.timestamp_days);
        let mut newest = Timestamp::new(SPEC_VERSION.to_owned(), next(timestamp), expires);
        newest.meta.insert("snapshot.json".to_owned(), meta(&bytes, version));
        let number = |version: NonZeroU64| version.get();
        let (targets, snapshot, timestamp) = (number(targets), number(version), number(newest.version));
        let statement = self.signed_bytes(newest)?;
        newest::claim(&self.dir, repository, &format!("{version}.snapshot.json"), &bytes)?;
        repository.put(&format!("metadata/{targets}.targets.json"), offer)?;
        newest::replace(&self.dir, repository, Versions { targets, snapshot, timestamp }, || {
            repository.put("metadata/timestamp.json", &statement)
        })
    }

    /// A role with the signatures of the keys that are here.
    fn signed<T: Role>(&self, role: T) -> Result<Signed<T>> {
        let mut signed = Signed { signed: role, signatures: Vec::new() };
        sign_with(&self.dir, &mut signed, &self.root.signed, &self.keys)?;
        Ok(signed)
    }

    /// The same as it is published, if the keys that are here suffice.
    fn signed_bytes<T: Role>(&self, role: T) -> Result<Vec<u8>> {
        let signed = self.signed(role)?;
        self.check(&signed)?;
        bytes_of(&self.dir, &signed)
    }

    fn check<T: Role>(&self, signed: &Signed<T>) -> Result<()> {
        let (have, need) = count_signatures(&self.root.signed, signed);
        let what = || format!("{} {}", word(T::TYPE), signed.signed.version());
        if have < need { Err(ReleaseError::TooFew { what: what(), have, need }) } else { Ok(()) }
    }
}

/// A signed file: its name, and its bytes when it shall be there.
pub type SignedFile = (String, Option<Vec<u8>>);

/// The newest offer of a repository.
pub struct Offered {
    targets: Targets,
    /// The same, as it is published.
    bytes: Vec<u8>,
    /// Whether enough keys of the present root have signed it.
    is_present: bool,
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

/// Whether bytes are those of a signed file.
fn is_target(bytes: &[u8], target: &Target) -> bool {
    bytes.len() as u64 == target.length && sha256(bytes).0[..] == target.hashes.sha256[..]
}

fn hashes(digest: &Sha256) -> Hashes {
    Hashes { sha256: digest.0.to_vec().into(), _extra: HashMap::new() }
}

fn meta(bytes: &[u8], version: NonZeroU64) -> Metafile {
    let (length, hashes) = (bytes.len() as u64, hashes(&sha256(bytes)));
    Metafile { length: Some(length), hashes: Some(hashes), version, _extra: HashMap::new() }
}
