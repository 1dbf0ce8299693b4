//! Garbage collection. HEAD is its only gate: no clock, no listing and no other machine is trusted.
//!
//! *Condemn*: what no kept version leads to is listed, and HEAD names the list. *Seal*: what has become reachable since
//! leaves the list, location runs without the dead take the place of those with them, and HEAD names all that with the
//! next collection number; from then on the names in the list do not exist. *Delete* them, and *done*. Each step can be
//! repeated by anybody after a crash, and every error of reading or listing ends it.
//!
//! Memory: 17 bytes, in tables that are at most half empty, for each blob that versions lead to and once more for each
//! that stands alone; 35 bytes, twice while they are sealed, for each condemned name, at most a million of these at a
//! time; and at most 64 MiB of location records and packs.

mod delete;
mod mark;
mod seal;
mod survey;
mod swing;

use std::sync::Arc;

use super::condemned::{Condemned, list_key};
use super::{Leases, Name, SyncError, read_head};
use crate::base::clock::{Clock, Timestamp};
use crate::base::disk::Disk;
use crate::base::ids::ClientId;
use crate::blob::{Blobs, BlobsConfig, Outbox};
use crate::crypto::Keys;
use crate::store::{ETag, ObjectStore, PutCondition};
use crate::version::head::{CollectionState, Head};
use mark::Marks;
pub use survey::Garbage;

/// Opened frames kept in memory while marking, in bytes.
const MEMORY_BYTES: usize = 32 << 20;
/// Less garbage than this, in packs alone, is left: refs that changed leave some behind each time.
const WORTH_BYTES: u64 = 256 * 1024;

/// What a collector works with.
pub struct CollectorParts {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The keys of the workspace.
    pub keys: Keys,
    /// The local disk; nothing is written to it.
    pub disk: Arc<dyn Disk>,
    /// Time, for how long sealed names stay before they are deleted.
    pub clock: Arc<dyn Clock>,
    /// This client.
    pub client: ClientId,
    /// Who may write, where the store's conditional writes do not work; `None` where they do.
    pub leases: Option<Arc<Leases>>,
}

/// How to collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectOptions {
    /// Whether to act; else it is only reported what there is.
    pub delete: bool,
    /// How long sealed names stay in the store, in milliseconds: so long may clients read an older state.
    pub grace_ms: u64,
    /// Packs with fewer percent of living bytes are stored anew.
    pub sparse_percent: u8,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self { delete: false, grace_ms: 24 * 3600 * 1000, sparse_percent: 50 }
    }
}

/// What a collection found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Versions that are kept; 0 when it was not needed to look.
    pub versions: u64,
    /// What was found.
    pub found: Garbage,
    /// Names that were sealed: they exist no more, and are deleted when their time has come.
    pub sealed: u64,
    /// Packs of which the living part was stored anew.
    pub rewritten_packs: u64,
    /// Objects that were deleted.
    pub deleted: u64,
    /// Names that are sealed and wait, and when they may go.
    pub waiting: Option<Waits>,
}

/// Sealed names that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// How many.
    pub names: u64,
    /// When they may be deleted.
    pub until: Timestamp,
}

/// Collects garbage.
pub struct Collector {
    parts: CollectorParts,
    /// Reads the store alone.
    blobs: Blobs,
}

impl Collector {
    /// A collector. Nothing is read yet.
    pub fn new(parts: CollectorParts) -> Self {
        let blobs = Blobs::new(BlobsConfig {
            store: parts.store.clone(),
            keys: parts.keys.clone(),
            outbox: Arc::new(Outbox::none(parts.disk.clone())),
            cache: None,
            memory_limit_bytes: MEMORY_BYTES,
        });
        Self { parts, blobs }
    }

    /// Goes on with the collection that is under way, or begins one. Ends with [`SyncError::Stopped`] between two steps
    /// once `stop` says so; whoever calls it again goes on.
    pub fn run(&self, options: CollectOptions, stop: &dyn Fn() -> bool) -> Result<CollectReport, SyncError> {
        let mut report = CollectReport::default();
        let mut marks = Marks::default();
        loop {
            if stop() {
                return Err(SyncError::Stopped);
            }
            let (head, etag) = self.head()?;
            match head.collection_state {
                CollectionState::Sealed(id) => {
                    let list = self.list(id)?;
                    let grace_ns = i64::try_from(options.grace_ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
                    let until = Timestamp::from_unix_ns(list.time.unix_ns().saturating_add(grace_ns));
                    if !options.delete || self.parts.clock.now() < until {
                        report.waiting = Some(Waits { names: list.len() as u64, until });
                        return Ok(report);
                    }
                    report.deleted += self.delete(id, &list, stop)?;
                }
                CollectionState::Condemned(id) if options.delete => {
                    let candidates = self.candidates(id)?;
                    self.seal(id, &candidates, &mut marks, &mut report, stop)?;
                }
                CollectionState::Condemned(_) | CollectionState::Idle => {
                    // A second round only when the first could not name everything.
                    if report.sealed > 0 && !report.found.is_partial {
                        return Ok(report);
                    }
                    let survey = self.survey(&head, &mut marks, options.sparse_percent, stop)?;
                    (report.versions, report.found) = (survey.versions, survey.garbage);
                    if !options.delete || !survey.garbage.is_worth(WORTH_BYTES) {
                        return Ok(report);
                    }
                    self.condemn(survey.names, (head, etag))?;
                }
            }
        }
    }

    fn head(&self) -> Result<(Head, ETag), SyncError> {
        let (head, etag, _) = read_head(&*self.parts.store, &self.parts.keys)?;
        Ok((head, etag))
    }

    fn list(&self, id: uuid::Uuid) -> Result<Condemned, SyncError> {
        read_list(&*self.parts.store, &self.parts.keys, id)
    }

    /// The candidates that HEAD names; none when the list is gone, since nothing rests on it.
    fn candidates(&self, id: uuid::Uuid) -> Result<Condemned, SyncError> {
        match self.list(id) {
            Err(SyncError::Store(crate::store::StoreError::NotFound { .. })) => {
                Ok(Condemned::new(0, self.parts.clock.now(), None, Vec::new()))
            }
            list => list,
        }
    }

    /// Lets HEAD name a list of candidates. Nothing is bound by it, so HEAD may have moved meanwhile.
    fn condemn(&self, names: Vec<Name>, (mut head, mut etag): (Head, ETag)) -> Result<(), SyncError> {
        let id = crate::base::random::uuid();
        let list = Condemned::new(head.collection, self.parts.clock.now(), None, names);
        self.put_list(id, &list)?;
        for attempt in 0..swing::ATTEMPTS_MAX {
            let condemned = Head { collection_state: CollectionState::Condemned(id), ..head.clone() };
            if head.collection_state != CollectionState::Idle || head.collection != list.number {
                // Somebody else collects.
                return Ok(());
            }
            if self.swing(&head, &etag, condemned, attempt)? {
                return Ok(());
            }
            (head, etag) = self.head()?;
        }
        Err(SyncError::Contended { attempts: swing::ATTEMPTS_MAX })
    }

    fn put_list(&self, id: uuid::Uuid, list: &Condemned) -> Result<(), SyncError> {
        let condition = self.if_absent();
        self.parts.store.put(&list_key(id), &list.seal(&self.parts.keys, id), condition)?;
        Ok(())
    }

    fn if_absent(&self) -> PutCondition {
        if self.parts.leases.is_none() { PutCondition::IfAbsent } else { PutCondition::Always }
    }
}

/// Reads and opens a list of names.
pub(super) fn read_list(store: &dyn ObjectStore, keys: &Keys, id: uuid::Uuid) -> Result<Condemned, SyncError> {
    let object = store.get(&list_key(id))?;
    Ok(Condemned::open(keys, id, &object.bytes)?)
}
