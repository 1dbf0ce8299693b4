//! Content-addressed blobs: between plaintext bytes and sealed objects in a store.
//!
//! Uses: `base`, `crypto`, `store` (the trait). Knows no file names and no versions.
//!
//! A blob is at most [`CHUNK_LEN_MAX`](crate::base::limits::CHUNK_LEN_MAX) bytes, named by a keyed
//! hash of them. It is sealed in frames ([`codec`]) and lies either in a pack with others
//! ([`pack`]) or in an object of its own. Location runs ([`run`], [`index`]) say where. Objects
//! wait for their upload in the [`outbox`]; what was fetched stays, sealed, in the [`cache`].
//! [`Blobs`] stands in front of all of it.
//!
//! Invariants:
//! - nothing readable is written anywhere: disk files hold the store's bytes, plaintext is only in
//!   memory, within a byte limit;
//! - every byte handed out was authenticated for exactly this blob, frame and length;
//! - objects are immutable: bytes that were read under a name stay right, so caches never expire;
//! - damage found in a cache or in the outbox is healed from the store; damage in the store is
//!   reported with the object's name and never served;
//! - absent ([`BlobError::Missing`]) and unreachable ([`BlobError::Store`]) are never confused.
//!
//! Lock order: a blob's turn before `index` before `source`'s flights before `cache`/`outbox` state; no lock is
//! held while the store is asked (but the turn while a store on the local disk is), and none while a caller's
//! [`LocalBlobs`] is (but the turn).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::ids::BlobId;
use crate::crypto::OpenError;
use crate::store::{ObjectKey, StoreError};

pub mod cache;
pub mod chunker;
pub mod codec;
pub mod index;
mod local_name;
pub mod location;
mod memory;
mod merge;
pub mod outbox;
pub mod pack;
mod part;
mod plan;
mod prefetch;
pub mod reader;
pub mod run;
pub mod source;

pub use cache::Cache;
pub use chunker::Chunker;
pub use codec::{BlobKind, ChunkRef};
pub use index::LocationIndex;
pub use location::{Location, Place};
pub use merge::{OrderedRecord, plan_merge};
pub use outbox::Outbox;
pub use pack::PackBuilder;
pub use reader::{Blobs, BlobsConfig, LocalBlobs};
pub use run::RunRef;

/// What is wrong with sealed bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An envelope does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There are not as many bytes as there must be.
    #[error("{expected} bytes long by its own account, {found} bytes in fact")]
    Length {
        /// Bytes there must be.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The envelope opens, but what is inside makes no sense: a writer's mistake.
    #[error("malformed inside: {0}")]
    Malformed(&'static str),
}

/// What reading and writing blobs can fail with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BlobError {
    /// The blob is nowhere, and every place could be asked.
    #[error("blob {id} is missing (looked in {looked}); run `kura check` to see what needs it")]
    Missing {
        /// The blob.
        id: BlobId,
        /// The places that were asked.
        looked: String,
    },
    /// A blob's bytes are damaged wherever they lie.
    #[error("{object}: blob {id} is damaged: {fault}; run `kura check`, then `kura repair`")]
    Damaged {
        /// The object (or local place) that holds the bytes.
        object: String,
        /// The blob.
        id: BlobId,
        /// What is wrong.
        #[source]
        fault: Fault,
    },
    /// A pack directory, a location run or a waiting object is damaged.
    #[error("{object} is damaged: {fault}; run `kura check`, then `kura repair`")]
    DamagedObject {
        /// The object.
        object: String,
        /// What is wrong.
        #[source]
        fault: Fault,
    },
    /// A location run that is in force is not in the store.
    #[error("{object} is missing from the store; run `kura check`, then `kura repair`")]
    MissingObject {
        /// The object.
        object: String,
    },
    /// The store cannot be asked, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The local disk failed.
    #[error("{path}: {source}", path = path.display())]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl BlobError {
    fn disk(path: &Path, source: io::Error) -> Self {
        BlobError::Disk { path: path.to_owned(), source: Arc::new(source) }
    }

    fn damaged_object(key: &ObjectKey, fault: Fault) -> Self {
        BlobError::DamagedObject { object: key.to_string(), fault }
    }
}

/// The result of a blob operation.
pub type Result<T> = std::result::Result<T, BlobError>;
