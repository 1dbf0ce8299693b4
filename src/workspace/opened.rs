//! The opened workspace.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use lru::LruCache;
use parking_lot::Mutex;

use super::background::Background;
use super::events::Events;
use super::near::Near;
use super::status::Offline;
use super::{InitOptions, InitReport, OpenOptions, Result, init, open};
use crate::base::clock::{Clock, Timestamp};
use crate::base::disk::{Disk, DiskFile};
use crate::base::ids::{VersionId, WorkspaceId};
use crate::blob::Blobs;
use crate::crypto::Keys;
use crate::crypto::slots::OpenSlot;
use crate::store::{ObjectStore, StoreUrl, WatchStore};
use crate::sync::{ClientMemory, Leases, Publisher};
use crate::version::history::Place;
use crate::version::index::IndexRecord;
use crate::version::tree::TreeRef;
use crate::worktree::Worktree;

/// Index records kept in memory.
const RECORDS_MAX: NonZeroUsize = match NonZeroUsize::new(256) {
    Some(count) => count,
    None => NonZeroUsize::MIN,
};

/// Ends of listings that are kept.
const PLACES_MAX: NonZeroUsize = match NonZeroUsize::new(64) {
    Some(count) => count,
    None => NonZeroUsize::MIN,
};

/// An open workspace.
pub struct Workspace {
    pub(super) parts: Parts,
    pub(super) opened_at: Timestamp,
    pub(super) records: Mutex<LruCache<VersionId, Arc<IndexRecord>>>,
    /// Where listings of versions ended, by the refs and the version they ended with.
    pub(super) places: Mutex<LruCache<(TreeRef, VersionId), Place>>,
    /// One operation on history at a time.
    pub(super) history: Mutex<()>,
    pub(super) trouble: Mutex<Trouble>,
    pub(super) background: Background,
    /// How long closing may publish, in milliseconds.
    pub(super) close_publish_ms: AtomicU64,
    pub(super) near: Near,
}

/// What an open workspace consists of.
pub(super) struct Parts {
    pub(super) id: WorkspaceId,
    pub(super) keys: Keys,
    /// What opened the keys; it opens later epochs, too.
    pub(super) slot: OpenSlot,
    pub(super) store: Arc<WatchStore>,
    pub(super) dir: PathBuf,
    pub(super) tree: Arc<Worktree>,
    pub(super) blobs: Arc<Blobs>,
    pub(super) publisher: Publisher,
    pub(super) leases: Arc<Leases>,
    pub(super) events: Arc<Events>,
    pub(super) memory: Arc<ClientMemory>,
    pub(super) conditional_writes: bool,
    pub(super) options: OpenOptions,
    /// Held for its lock until the workspace is closed.
    pub(super) lock: Mutex<Option<Arc<dyn DiskFile>>>,
    pub(super) offline: Option<Offline>,
}

/// What keeps versions from being published.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    pub(super) offline: Option<Offline>,
    pub(super) blocked: Option<Offline>,
    /// How far re-encryption is, when it was asked for.
    pub(super) reencryption: Option<String>,
    /// Why changes are in no version yet.
    pub(super) unrecorded: Option<Offline>,
}

impl Workspace {
    /// Makes a workspace in a store.
    pub fn init(url: &StoreUrl, options: InitOptions) -> Result<InitReport> {
        init::init(url, options)
    }

    /// As [`init`](Self::init), in a store that is open already.
    pub fn init_in(store: &dyn ObjectStore, options: InitOptions) -> Result<InitReport> {
        init::init_in(store, options)
    }

    /// Opens a workspace. Nothing runs in the background until [`start`](Self::start).
    pub fn open(options: OpenOptions) -> Result<Arc<Self>> {
        open::open(options)
    }

    /// As [`open`](Self::open), on a store that is open already; `options.store` is not looked at.
    pub fn open_in(store: Arc<dyn ObjectStore>, options: OpenOptions) -> Result<Arc<Self>> {
        open::open_in(store, options)
    }

    pub(super) fn assemble(parts: Parts) -> Arc<Self> {
        let trouble = Trouble { offline: parts.offline.clone(), ..Trouble::default() };
        let close_publish_ms = parts.options.intervals.close_publish_ms;
        Arc::new(Self {
            opened_at: parts.options.clock.now(),
            parts,
            records: Mutex::new(LruCache::new(RECORDS_MAX)),
            places: Mutex::new(LruCache::new(PLACES_MAX)),
            history: Mutex::new(()),
            trouble: Mutex::new(trouble),
            background: Background::default(),
            close_publish_ms: AtomicU64::new(close_publish_ms),
            near: Near::default(),
        })
    }

    /// The workspace's id.
    pub fn id(&self) -> WorkspaceId {
        self.parts.id
    }

    /// The opened key ring, which applications seal their records with.
    pub fn keys(&self) -> &Keys {
        &self.parts.keys
    }

    /// The local disk.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.parts.options.disk
    }

    /// Time.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.parts.options.clock
    }

    /// The state directory of this workspace.
    pub fn state_dir(&self) -> &Path {
        &self.parts.dir
    }

    /// Whether changes are refused by request.
    pub fn is_read_only(&self) -> bool {
        self.parts.options.read_only
    }

    /// Whether things happen in the background.
    pub fn is_in_background(&self) -> bool {
        self.background.is_started()
    }

    /// Whether the store's conditional writes work; without, only one client at a time may write.
    pub fn has_conditional_writes(&self) -> bool {
        self.parts.conditional_writes
    }

    /// The live tree.
    pub fn tree(&self) -> &Arc<Worktree> {
        &self.parts.tree
    }

    /// Adds an event of an application, and tells who wants to know at once.
    pub fn tell_event(&self, event: &str, message: &str, about: &serde_json::Value) {
        self.parts.events.told(event, message, about);
    }

    /// What happened, as lines of JSON: those from number `from` on, and the number of the next one.
    pub fn events(&self, from: u64) -> (Vec<String>, u64) {
        self.parts.events.since(from)
    }

    /// Content and pages.
    pub fn blobs(&self) -> &Arc<Blobs> {
        &self.parts.blobs
    }
}
