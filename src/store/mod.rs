//! Where sealed objects lie: a directory, S3, memory; and decorators around any of them.
//!
//! Uses: `base`, `crypto` (only [`Sealed`]). Sees no plaintext. Blocking; async lives in `s3`
//! alone.
//!
//! Invariants: a put is all or nothing; objects other than HEAD and leases are never overwritten;
//! *unreachable* is never reported as *absent*; a conditional put whose outcome is not known says
//! so and is not retried here.
//!
//! Lock order: none; implementations lock only themselves.

mod dir;
mod faults;
mod memory;
mod metrics;
mod policy;
mod probe;
mod retry;
mod s3;
mod url;
mod watch;

use std::fmt;
use std::path::PathBuf;

use sha2::Digest;

use crate::base::clock::Timestamp;
use crate::crypto::Sealed;

pub use dir::DirStore;
pub use faults::{Fault, FaultStore, Operation};
pub use memory::MemoryStore;
pub use metrics::{MetricsStore, OperationMetrics, StoreMetrics};
pub use policy::{Role, policy};
pub use probe::{Capabilities, probe};
pub use retry::{RetryPolicy, RetryStore};
pub use s3::{Bucket, BucketError, BucketFault, BucketFile, Credentials, S3Config, S3Store};
pub use url::{S3Address, StoreUrl, UrlError, create, expect, open};
pub use watch::{Silence, WatchStore};

/// The name of an object: segments of `[a-z0-9.-]` (and `HEAD`), joined by `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Takes a well-formed name; `None` for anything else (empty, absolute, `..`, odd bytes, over 200 bytes).
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let segment_ok = |segment: &str| {
            !segment.is_empty()
                && !segment.starts_with('.')
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        };
        (name.len() <= 200 && name.split('/').all(segment_ok)).then_some(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Opaque tag of an object's present content; equal content may have equal tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(pub String);

impl ETag {
    /// The tag of stores that have none of their own: the first half of the SHA-256 of the content.
    fn of_content(bytes: &[u8]) -> Self {
        Self(data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(bytes)[..16]))
    }
}

/// An object as read.
#[derive(Clone, PartialEq, Eq)]
pub struct Object {
    /// The whole object.
    pub bytes: Vec<u8>,
    /// Its tag at the time of reading.
    pub etag: ETag,
}

/// A file on the local disk that holds exactly one sealed object and is durable and never changed.
#[derive(Clone, Debug)]
pub struct SealedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes.
    pub len: u64,
}

/// An object as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub key: ObjectKey,
    /// Its length in bytes.
    pub len: u64,
    /// When it was stored, by the store's clock, where the store knows it.
    pub modified: Option<Timestamp>,
}

/// What must hold for a put to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutCondition {
    /// Nothing.
    Always,
    /// No object has the name.
    IfAbsent,
    /// The object's tag is this one.
    IfMatch(ETag),
}

/// A part of an object to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// The object.
    pub key: ObjectKey,
    /// First byte.
    pub offset: u64,
    /// Number of bytes; the answer is shorter only where the object ends.
    pub len: u64,
}

/// What an object store can fail with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("{key}: no such object in the store")]
    NotFound {
        /// The object.
        key: ObjectKey,
    },
    /// The condition of a put did not hold (or another writer was faster).
    #[error("{key}: changed by someone else in the meantime")]
    Precondition {
        /// The object.
        key: ObjectKey,
    },
    /// The outcome of a put is not known: it may or may not have happened. Read back to find out.
    #[error("{key}: the answer was lost; the write may or may not have happened ({reason})")]
    OutcomeUnknown {
        /// The object.
        key: ObjectKey,
        /// What went wrong.
        reason: String,
    },
    /// Access is denied.
    #[error("{action} on {target} is denied: {reason}")]
    Denied {
        /// The permission that is missing, e.g. `s3:PutObject`.
        action: &'static str,
        /// The object or prefix.
        target: String,
        /// What the store said.
        reason: String,
    },
    /// The store cannot be reached (network, timeout, server errors after all retries).
    #[error("the store {store} cannot be reached: {reason}")]
    Unreachable {
        /// The store.
        store: String,
        /// What went wrong.
        reason: String,
    },
    /// The store's disk is full (`dir` only).
    #[error("no space left in the store {store}")]
    Full {
        /// The store.
        store: String,
    },
    /// There is no such bucket; or no such directory, or nothing in it.
    #[error("{store}: there is no store (no such bucket or directory, or an empty one)")]
    NoStore {
        /// The store.
        store: String,
    },
    /// The store answered something that makes no sense.
    #[error("{target}: unexpected answer from the store: {reason}")]
    Invalid {
        /// The object or store.
        target: String,
        /// What was wrong.
        reason: String,
    },
}

impl StoreError {
    /// Whether waiting and trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Unreachable { .. } | StoreError::Full { .. })
    }
}

/// The result of a store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A flat store of named, sealed objects.
pub trait ObjectStore: Send + Sync {
    /// Reads a whole object.
    fn get(&self, key: &ObjectKey) -> Result<Object>;
    /// Reads a whole object unless its tag is still `etag`.
    fn get_if_changed(&self, key: &ObjectKey, etag: &ETag) -> Result<Option<Object>>;
    /// Reads a part of an object. A part that begins behind the end is empty, and so is a part of
    /// length 0 (for which the store is not asked at all).
    fn get_range(&self, request: &RangeRequest) -> Result<Vec<u8>>;
    /// Writes an object. `IfAbsent` and `IfMatch` are atomic among all clients, and the object is
    /// durable when this returns.
    fn put(&self, key: &ObjectKey, sealed: &Sealed, condition: PutCondition) -> Result<ETag>;
    /// Removes an object; a missing one is fine.
    fn delete(&self, key: &ObjectKey) -> Result<()>;
    /// Hands every object whose name starts with `prefix` to `each`, in no particular order. After
    /// an error, `each` may have seen some of them.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<()>;
    /// Reads several parts, in parallel where that helps; answers in the order of the requests.
    fn get_many(&self, requests: &[RangeRequest]) -> Vec<Result<Vec<u8>>> {
        requests.iter().map(|request| self.get_range(request)).collect()
    }
    /// Puts several immutable objects, in parallel where that helps; answers in order. An object
    /// that is already there is left as it is.
    fn put_many(&self, objects: &[(ObjectKey, Sealed)]) -> Vec<Result<()>> {
        objects
            .iter()
            .map(|(key, sealed)| match self.put(key, sealed, PutCondition::IfAbsent) {
                Ok(_) | Err(StoreError::Precondition { .. }) => Ok(()),
                Err(error) => Err(error),
            })
            .collect()
    }
    /// As [`put_many`](Self::put_many) for objects that lie in files on the same disk, without copying them; `None`
    /// from a store that cannot do that. The files keep their names.
    fn adopt_many(&self, _objects: &[(ObjectKey, SealedFile)]) -> Option<Vec<Result<()>>> {
        None
    }
    /// How many requests are worth having under way at once.
    fn concurrency(&self) -> usize;
    /// Whether reads are as cheap as the local disk's (then nothing is cached on disk).
    fn is_local(&self) -> bool;
    /// The store's address, without secrets.
    fn address(&self) -> &str;
    /// Whether tags are sent without their quotes from now on, which some S3 servers need (see
    /// [`probe`]). Other stores have no such quirk.
    fn set_unquoted_etags(&self, _unquoted: bool) {}
    /// Gives up the requests that are under way, where that is possible: they fail as unreachable (a conditional put:
    /// as unknown). Later ones are not concerned.
    fn cancel(&self) {}
}
