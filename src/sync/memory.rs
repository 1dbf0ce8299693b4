//! What a client remembers of the store, sealed in its state directory.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Rollback, SyncError};
use crate::base::disk::{Disk, read_file, replace_file};
use crate::base::ids::{ClientId, Sha256, VersionId};
use crate::blob::RunRef;
use crate::crypto::{Keys, Kind};
use crate::version::VersionError;
use crate::version::head::Head;
use crate::version::tree::TreeRef;
use crate::worktree::WorkError;

const IDENTITY: &[u8] = b"client";
const REFS_IDENTITY: &[u8] = b"refs";
const UNSETTLED_IDENTITY: &[u8] = b"unsettled";
/// Longest memory file in bytes.
const LEN_MAX: usize = 4096;
/// Longest list of location runs in bytes.
const RUNS_LEN_MAX: usize = 1 << 20;

/// A state of HEAD that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its generation.
    pub generation: u64,
    /// SHA-256 of the object's bytes.
    pub digest: Sha256,
    /// The version it names.
    pub version: VersionId,
}

impl Seen {
    /// HEAD as it was read or written.
    pub fn of(head: &Head, object: &[u8]) -> Self {
        Self { generation: head.generation, digest: crate::version::index::sha256(object), version: head.version }
    }
}

/// What the live tree rests on, as far as the store is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rest {
    /// Generation of the HEAD that was published or taken in last,
    generation: u64,
    /// and its refs.
    refs: TreeRef,
    /// The collection that everything which waits was checked against.
    collection: Option<u64>,
}

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// This client.
    pub client: ClientId,
    /// SHA-256 of the machine's id, when it has one: tells a copied state directory.
    pub machine: Option<Sha256>,
    /// The newest HEAD seen.
    pub seen: Option<Seen>,
}

/// The file `client` in a state directory.
pub struct ClientMemory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    keys: Keys,
    memory: Mutex<Memory>,
}

impl ClientMemory {
    /// Opens the memory of a state directory on the machine `machine`, making one when there is none. A state
    /// directory that was copied from another machine becomes a new client: then the second value is true, and
    /// nothing is written before [`settle`](Self::settle).
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        keys: Keys,
        machine: Option<Sha256>,
    ) -> Result<(Self, bool), SyncError> {
        let path = dir.join("client");
        let old = match read_file(&*disk, &path, LEN_MAX) {
            Ok(sealed) => Some(decode(&keys, &sealed, &path)?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(disk_error(&path, &error)),
        };
        let memory = match old.clone() {
            Some(old) if old.machine == machine || machine.is_none() => old,
            Some(copied) => Memory { client: ClientId::random(), machine, ..copied },
            None => Memory { client: ClientId::random(), machine, seen: None },
        };
        let is_copy = old.as_ref().is_some_and(|old| old.client != memory.client);
        let opened = Self { disk, path, keys, memory: Mutex::new(memory.clone()) };
        if !is_copy {
            opened.settle()?;
        }
        Ok((opened, is_copy))
    }

    /// Writes the memory.
    pub fn settle(&self) -> Result<(), SyncError> {
        self.write(&self.memory.lock())
    }

    /// What is remembered.
    pub fn get(&self) -> Memory {
        self.memory.lock().clone()
    }

    /// Refuses a HEAD older than the newest seen, or another one of the same generation.
    pub fn check(&self, now: &Seen) -> Result<(), SyncError> {
        match self.memory.lock().seen {
            Some(seen)
                if now.generation < seen.generation
                    || now.generation == seen.generation && now.digest != seen.digest =>
            {
                Err(SyncError::RolledBack(Box::new(Rollback::new(seen, Some(*now)))))
            }
            _ => Ok(()),
        }
    }

    /// The refs of the HEAD of this generation, when that is the one seen last.
    pub fn refs_at(&self, generation: u64) -> Option<TreeRef> {
        self.rest().filter(|rest| rest.generation == generation).map(|rest| rest.refs)
    }

    fn rest(&self) -> Option<Rest> {
        let sealed = read_file(&*self.disk, &self.path.with_file_name("refs"), LEN_MAX).ok()?;
        let plain = self.keys.open(Kind::Local, REFS_IDENTITY, &sealed).ok()?;
        let rest: Rest = postcard::from_bytes(&plain).ok()?;
        Some(rest)
    }

    /// The number of the collection that everything which waits here was checked against; `None` when that is not
    /// known.
    pub fn collection(&self) -> Option<u64> {
        self.rest()?.collection
    }

    /// Remembers that everything which waits here was checked against the collections up to this one.
    pub fn settle_collection(&self, collection: u64) -> Result<(), SyncError> {
        let rest = self.rest().unwrap_or_default();
        self.write_rest(&Rest { collection: Some(collection), ..rest })
    }

    /// Location runs that were in force before a collection was begun to be taken in, and may still be needed to
    /// store anew what it took.
    pub fn unsettled_runs(&self) -> Result<Vec<RunRef>, SyncError> {
        let path = self.path.with_file_name("unsettled");
        let sealed = match read_file(&*self.disk, &path, RUNS_LEN_MAX) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(disk_error(&path, &error)),
        };
        let object = path.display().to_string();
        let plain = self
            .keys
            .open(Kind::Local, UNSETTLED_IDENTITY, &sealed)
            .map_err(|source| VersionError::Unopened { object: object.clone(), source })?;
        Ok(postcard::from_bytes(&plain).map_err(|error| VersionError::Damaged { object, reason: error.to_string() })?)
    }

    /// Remembers these runs, before the tree rests on others.
    pub fn keep_unsettled_runs(&self, runs: &[RunRef]) -> Result<(), SyncError> {
        let plain = postcard::to_stdvec(runs).unwrap_or_else(|_| unreachable!("our own plain types always encode"));
        let sealed = self.keys.seal(Kind::Local, UNSETTLED_IDENTITY, &plain);
        let path = self.path.with_file_name("unsettled");
        replace_file(&*self.disk, &path, sealed.as_bytes()).map_err(|error| disk_error(&path, &error))
    }

    /// Forgets them, once everything that waits here was checked.
    pub fn drop_unsettled_runs(&self) -> Result<(), SyncError> {
        let path = self.path.with_file_name("unsettled");
        match self.disk.remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(disk_error(&path, &error)),
            _ => Ok(()),
        }
    }

    /// Remembers a HEAD durably, and its refs, when the tree rests on it.
    pub fn remember(&self, now: Seen, refs: Option<TreeRef>) -> Result<(), SyncError> {
        refs.map_or(Ok(()), |refs| self.write_refs(now.generation, refs))?;
        let mut memory = self.memory.lock();
        if memory.seen == Some(now) {
            return Ok(());
        }
        let new = Memory { seen: Some(now), ..memory.clone() };
        self.write(&new)?;
        *memory = new;
        Ok(())
    }

    fn write_refs(&self, generation: u64, refs: TreeRef) -> Result<(), SyncError> {
        let collection = self.collection();
        self.write_rest(&Rest { generation, refs, collection })
    }

    fn write_rest(&self, rest: &Rest) -> Result<(), SyncError> {
        if self.rest().as_ref() == Some(rest) {
            return Ok(());
        }
        let plain = postcard::to_stdvec(rest).unwrap_or_else(|_| unreachable!("our own plain types always encode"));
        let sealed = self.keys.seal(Kind::Local, REFS_IDENTITY, &plain);
        let path = self.path.with_file_name("refs");
        replace_file(&*self.disk, &path, sealed.as_bytes()).map_err(|error| disk_error(&path, &error))
    }

    fn write(&self, memory: &Memory) -> Result<(), SyncError> {
        let plain = postcard::to_stdvec(memory).unwrap_or_else(|_| unreachable!("our own plain types always encode"));
        let sealed = self.keys.seal(Kind::Local, IDENTITY, &plain);
        replace_file(&*self.disk, &self.path, sealed.as_bytes()).map_err(|error| disk_error(&self.path, &error))
    }
}

fn decode(keys: &Keys, sealed: &[u8], path: &Path) -> Result<Memory, SyncError> {
    let object = path.display().to_string();
    let plain = keys
        .open(Kind::Local, IDENTITY, sealed)
        .map_err(|source| VersionError::Unopened { object: object.clone(), source })?;
    Ok(postcard::from_bytes(&plain).map_err(|error| VersionError::Damaged { object, reason: error.to_string() })?)
}

fn disk_error(path: &Path, error: &std::io::Error) -> SyncError {
    WorkError::Disk { path: path.to_owned(), reason: error.to_string() }.into()
}
