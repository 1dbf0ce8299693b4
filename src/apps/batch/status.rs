//! What was processed, and how it ended.
//!
//! Two records as a name says them: `completed:` and `error:`, each followed by the keyed hash of the path. Values are
//! sealed and name the path inside. What is remembered of a done file is its state after our own upload, as the server
//! told it, so that a second run finds nothing to do.

use serde::{Deserialize, Serialize};

use super::error::{BatchError, Code, Result};
use super::filesystem::{FileInfo, FilePath, Sameness};
use super::key_value::KeyValue;
use crate::base::clock::Timestamp;
use crate::base::ids::Sha256;
use crate::crypto::{IdDomain, Keys, Kind};
use crate::version::index::sha256;

const COMPLETED: &[u8] = b"completed:";
const ERROR: &[u8] = b"error:";
/// Bytes of a name after its prefix: the directory's hash, then the path's, so that neighbours are kept together.
const DIR_HASH_LEN: usize = 8;
const PATH_HASH_LEN: usize = 16;

/// A file that was processed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// What the server said of it afterwards.
    pub file: FileInfo,
    /// SHA-256 of its content afterwards.
    #[serde(with = "hex")]
    pub sha256: Sha256,
    /// When it was done.
    pub processed_at: Timestamp,
    /// The run that did it.
    pub run: u64,
}

/// A file that could not be processed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// What it was like.
    pub file: FileInfo,
    /// The stable word of the failure.
    pub code: String,
    /// What happened.
    pub error: String,
    /// When.
    pub timestamp: Timestamp,
    /// In how many runs it failed so far.
    pub retry_count: u32,
    /// The run it failed in last; 0 when that run was killed.
    pub run: u64,
    /// When an upload may or may not have happened: what the content was before, and what it is if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
}

/// An upload that may or may not have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// SHA-256 before.
    #[serde(with = "hex")]
    pub before: Sha256,
    /// SHA-256 after.
    #[serde(with = "hex")]
    pub after: Sha256,
}

/// What is remembered of a file.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// How it was done.
    pub completed: Option<Completed>,
    /// How it failed since.
    pub failed: Option<Failed>,
}

/// SHA-256 as hexadecimal text.
pub(super) mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::base::ids::Sha256;

    pub fn serialize<S: Serializer>(digest: &Sha256, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sha256, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The memory of one job.
pub struct StatusMemory {
    keys: Keys,
    /// What separates this job's names from those of others.
    domain: Vec<u8>,
    store: Box<dyn KeyValue>,
}

impl StatusMemory {
    /// The memory of the job that `domain` stands for, kept in `store`.
    pub fn new(keys: Keys, domain: Vec<u8>, store: Box<dyn KeyValue>) -> Self {
        Self { keys, domain, store }
    }

    fn hash(&self, what: &[u8], path: &[u8]) -> [u8; 32] {
        let text = [what, b"\0", &self.domain, b"\0", path].concat();
        self.keys.id(IdDomain::App, &sha256(&text)).0
    }

    fn name(&self, prefix: &[u8], path: &FilePath) -> Vec<u8> {
        self.name_in(prefix, &self.dir_hash(path.split().0), path)
    }

    fn dir_hash(&self, dir: &[u8]) -> [u8; 32] {
        self.hash(b"batch directory", dir)
    }

    fn name_in(&self, prefix: &[u8], dir: &[u8; 32], path: &FilePath) -> Vec<u8> {
        let whole = self.hash(b"batch path", path.as_bytes());
        [prefix, &dir[..DIR_HASH_LEN], &whole[..PATH_HASH_LEN]].concat()
    }

    fn seal<T: Serialize>(&self, name: &[u8], value: &T) -> Result<Vec<u8>> {
        let plain = serde_json::to_vec(value).map_err(|error| BatchError::Memory(error.to_string()))?;
        Ok(self.keys.seal(Kind::App, name, &plain).into_bytes())
    }

    fn open<T: serde::de::DeserializeOwned>(&self, name: &[u8], sealed: &[u8]) -> Result<T> {
        let plain = self.keys.open(Kind::App, name, sealed).map_err(|error| BatchError::Memory(error.to_string()))?;
        serde_json::from_slice(&plain).map_err(|error| BatchError::Memory(error.to_string()))
    }

    /// Of several files, those that have to be processed: not done, or changed since, or failed before.
    pub fn needs_processing(&self, files: Vec<FileInfo>) -> Result<Vec<FileInfo>> {
        let mut names = Vec::with_capacity(files.len());
        // Files of one directory come one after another.
        let mut last: (&[u8], [u8; 32]) = (b"", self.dir_hash(b""));
        for file in &files {
            let dir = file.path.split().0;
            if last.0 != dir {
                last = (dir, self.dir_hash(dir));
            }
            names.push(self.name_in(COMPLETED, &last.1, &file.path));
        }
        let found = self.store.get(&names)?;
        let mut needed = Vec::new();
        for ((file, name), sealed) in files.into_iter().zip(&names).zip(found) {
            let completed: Option<Completed> = sealed.map(|sealed| self.open(name, &sealed)).transpose()?;
            // What only its content could tell is looked at again.
            if !completed.is_some_and(|done| done.file.compare(&file) == Sameness::Same) {
                needed.push(file);
            }
        }
        Ok(needed)
    }

    /// What is remembered of a file.
    pub fn recall(&self, path: &FilePath) -> Result<Remembered> {
        let names = [self.name(COMPLETED, path), self.name(ERROR, path)];
        let found = self.store.get(&names)?;
        let completed = found[0].as_ref().map(|sealed| self.open(&names[0], sealed)).transpose()?;
        let failed = found[1].as_ref().map(|sealed| self.open(&names[1], sealed)).transpose()?;
        Ok(Remembered { completed, failed })
    }

    /// Remembers that a file was done, and forgets that it failed.
    pub fn report_done(&self, done: &Completed) -> Result<()> {
        let name = self.name(COMPLETED, &done.file.path);
        let sealed = self.seal(&name, done)?;
        self.store.write(&[(name, Some(sealed)), (self.name(ERROR, &done.file.path), None)])
    }

    /// Remembers that a file failed, once more than before. What is not known of an earlier attempt to upload it stays
    /// remembered, unless the file was found to have changed since.
    pub fn report_error(&self, failed: Failed) -> Result<()> {
        let before = self.recall(&failed.file.path)?.failed;
        let is_settled = failed.code == Code::SourceChanged.word();
        let attempt = failed.attempt.or(before.as_ref().and_then(|before| before.attempt));
        let failed = Failed {
            retry_count: before.map_or(0, |before| before.retry_count).saturating_add(1),
            attempt: attempt.filter(|_| !is_settled),
            ..failed
        };
        let name = self.name(ERROR, &failed.file.path);
        self.store.write(&[(name.clone(), Some(self.seal(&name, &failed)?))])
    }

    /// Hands out what failed and was not done since; ends when `each` says false.
    pub fn failures(&self, each: &mut dyn FnMut(Failed) -> Result<bool>) -> Result<()> {
        self.store.scan(ERROR, &mut |name, sealed| {
            let failed: Failed = self.open(name, &sealed)?;
            // A store may hold several jobs.
            if self.name(ERROR, &failed.file.path) == name { each(failed) } else { Ok(true) }
        })
    }

    /// Makes everything that was reported durable.
    pub fn flush(&self) -> Result<()> {
        self.store.flush()
    }
}
