//! Taking queued versions to the store.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{ClientMemory, Seen, SyncError};
use crate::base::clock::Clock;
use crate::base::disk::Disk;
use crate::base::ids::{ClientId, VersionId};
use crate::blob::{Blobs, Outbox};
use crate::crypto::{Keys, Sealed};
use crate::store::{ETag, ObjectKey, ObjectStore, PutCondition, RangeRequest, StoreError};
use crate::version::head::Head;
use crate::version::index::IndexRecord;
use crate::worktree::{Queued, Worktree};

/// Sealed bytes that are in memory at once for uploading.
const BATCH_BYTES: u64 = 32 * 1024 * 1024;
/// Objects uploaded in one batch.
const BATCH_OBJECTS: usize = 256;
/// How often a swing is tried before it is left for later.
const SWINGS_MAX: u32 = 8;
/// How many versions of others are walked back in search of ours.
const ANCESTORS_MAX: usize = 10_000;

/// What a publisher works with.
pub struct PublisherParts {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The keys of the workspace.
    pub keys: Keys,
    /// The live tree whose queue is published.
    pub tree: Arc<Worktree>,
    /// Takes what was uploaded into the cache.
    pub blobs: Arc<Blobs>,
    /// Objects that wait.
    pub outbox: Arc<Outbox>,
    /// The local disk.
    pub disk: Arc<dyn Disk>,
    /// The state directory.
    pub dir: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What this client has seen of HEAD.
    pub memory: Arc<ClientMemory>,
    /// Whether the store's conditional writes work; without, this client must be the only writer.
    pub conditional_writes: bool,
}

/// Publishes the queue of one live tree.
pub struct Publisher {
    parts: PublisherParts,
    /// One publishing at a time.
    busy: Mutex<()>,
}

/// What one round of publishing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Versions that left the queue.
    pub versions: usize,
    /// Objects that were uploaded.
    pub objects: usize,
    /// Their sealed bytes.
    pub bytes: u64,
    /// The version HEAD names now, if there was anything to do.
    pub version: Option<VersionId>,
}

/// What waits in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Queued versions.
    pub versions: usize,
    /// Objects that they need.
    pub objects: usize,
    /// Sealed bytes of these objects.
    pub bytes: u64,
}

impl Publisher {
    /// A publisher for a live tree.
    pub fn new(parts: PublisherParts) -> Self {
        Self { parts, busy: Mutex::new(()) }
    }
}

/// Reads and opens HEAD, with its tag and what is remembered of it.
pub fn read_head(store: &dyn ObjectStore, keys: &Keys) -> Result<(Head, ETag, Seen), SyncError> {
    let object = store.get(&Head::key())?;
    let head = Head::open(keys, &object.bytes)?;
    let seen = Seen::of(&head, &object.bytes);
    Ok((head, object.etag, seen))
}
