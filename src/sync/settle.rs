//! What a writer does once a collection was sealed since what it has was prepared: nothing that it believes of the
//! store counts any more before it was looked up again.
//!
//! The live tree goes over to HEAD, whose location runs hold no name that was collected; of its own runs only records
//! of objects that wait here count, and were not collected before they were published. Whatever waiting versions and
//! drafts refer to and is found nowhere then is stored anew, from wherever a copy is left. Only after that the number
//! of the collection is remembered, and HEAD may be swung.

use std::collections::{HashMap, HashSet};

use super::collect::read_list;
use super::{Name, Publisher, Seen, SyncError};
use crate::blob::{BlobError, BlobKind, ChunkRef, LocationIndex, PackBuilder, RunRef, codec, location};
use crate::store::ObjectKey;
use crate::version::VersionError;
use crate::version::head::{Head, RunInForce};
use crate::version::pages::Pages;
use crate::version::reach::{Reach, TreeKind, reach, trees_of};
use crate::version::refs;

/// How often it is looked again after something was stored anew.
const ROUNDS_MAX: u32 = 8;

impl Publisher {
    /// Whether a collection was sealed that what waits here was not checked against.
    pub(super) fn is_behind(&self, head: &Head) -> bool {
        self.parts.memory.collection() != Some(head.collection)
    }

    /// Checks all that waits here against the collections since, and lets it rest on HEAD.
    pub(super) fn settle(&self, head: &Head, seen: Seen) -> Result<(), SyncError> {
        let parts = &self.parts;
        let index = parts.blobs.index();
        let before = parts.tree.base();
        // What cannot be stored anew now is so at the next attempt, which may be that of another process.
        let mut runs = parts.memory.unsettled_runs()?;
        runs.extend(runs_of(&before.runs));
        runs.sort_unstable_by_key(|run| run.id);
        runs.dedup();
        parts.memory.keep_unsettled_runs(&runs)?;
        index.set_newer(runs_of(&head.runs));
        // Whatever is stored from here on has a name that is in no list, or was waiting here before the lists are read.
        parts.tree.begin_collection(head.collection);
        let settled = (|| {
            let taken = self.taken(head)?;
            if before.head_generation != head.generation {
                self.join(head, seen, Some(taken.clone()))?;
            }
            // What is about to be stored anew is read from where it was.
            index.set_foreign(runs);
            self.verify(head, &taken)
        })();
        index.set_foreign(Vec::new());
        index.set_newer(Vec::new());
        settled?;
        parts.memory.settle_collection(head.collection)?;
        parts.memory.drop_unsettled_runs()
    }

    /// Objects of our own that were collected before a version that needs them was published.
    fn taken(&self, head: &Head) -> Result<HashSet<ObjectKey>, SyncError> {
        let parts = &self.parts;
        let queue = self.queue(&parts.tree.base(), usize::MAX)?.0;
        let mut own: HashSet<ObjectKey> = queue.into_iter().flat_map(|(_, queued)| queued.objects).collect();
        own.extend(parts.outbox.keys());
        let mut taken = HashSet::new();
        if own.is_empty() {
            return Ok(taken);
        }
        let first = parts.memory.collection().unwrap_or(0) + 1;
        let lists = refs::final_lists(&head.refs, &Pages(&parts.blobs), first)?;
        if (first..=head.collection).any(|number| !lists.contains_key(&number)) {
            // We were away for longer than lists are kept: no name is known to be good.
            own.retain(|key| !matches!(Name::of(key), None | Some(Name::Index(_))));
            return Ok(own);
        }
        for list in lists.values() {
            let list = read_list(&*parts.store, &parts.keys, list.id)?;
            taken.extend(own.iter().filter(|key| Name::of(key).is_some_and(|name| list.contains(&name))).cloned());
        }
        Ok(taken)
    }

    /// Stores anew what waiting versions and drafts refer to and neither HEAD's runs nor what waits here have.
    fn verify(&self, head: &Head, taken: &HashSet<ObjectKey>) -> Result<(), SyncError> {
        let parts = &self.parts;
        for _ in 0..ROUNDS_MAX {
            let missing = self.missing(head, taken)?;
            if missing.is_empty() {
                return match taken.is_empty() {
                    true => Ok(()),
                    // The journal must not bring back where they were.
                    false => Ok(parts.tree.cut_journal()?),
                };
            }
            let mut builder = PackBuilder::new(parts.keys.clone());
            let (mut records, mut objects) = (Vec::new(), Vec::new());
            for (kind, chunk) in &missing {
                let bytes = parts.blobs.read(*kind, chunk).map_err(|error| gone(error.into()))?;
                let sealed = codec::encode(&parts.keys, *kind, chunk.id, &bytes);
                records.push((chunk.id, builder.add(chunk.id, *kind, chunk.len, &sealed)));
                if builder.is_full() {
                    let full = std::mem::replace(&mut builder, PackBuilder::new(parts.keys.clone()));
                    let (pack, sealed) = full.finish();
                    objects.push((location::pack_key(pack), sealed));
                }
            }
            if !builder.is_empty() {
                let (pack, sealed) = builder.finish();
                objects.push((location::pack_key(pack), sealed));
            }
            let ids: Vec<_> = missing.iter().map(|(_, chunk)| chunk.id).collect();
            parts.tree.displace(&ids);
            parts.tree.relocate(records, objects, &HashMap::new())?;
        }
        Err(SyncError::Contended { attempts: ROUNDS_MAX })
    }

    fn missing(&self, head: &Head, taken: &HashSet<ObjectKey>) -> Result<Vec<(BlobKind, ChunkRef)>, SyncError> {
        let parts = &self.parts;
        // What is recorded from here on is in the queue, too.
        let (chunks, lists) = parts.tree.unrecorded_content();
        let queue = self.queue(&parts.tree.base(), usize::MAX)?.0;
        let mut trees: Vec<_> = queue.iter().flat_map(|(_, queued)| trees_of(&queued.record)).collect();
        trees.extend(queue.last().map(|(_, queued)| (queued.refs, TreeKind::Refs)));
        let mut check = Check {
            publisher: self,
            there: parts.blobs.index().of_runs(runs_of(&head.runs)),
            taken,
            seen: HashSet::new(),
            missing: Vec::new(),
        };
        let io = Pages(&parts.blobs);
        reach(&io, &trees, &mut check).map_err(gone)?;
        chunks.iter().try_for_each(|chunk| check.content(chunk))?;
        let lists: Vec<_> = lists.into_iter().map(|list| (list, TreeKind::Chunks)).collect();
        reach(&io, &lists, &mut check).map_err(gone)?;
        Ok(check.missing)
    }
}

/// What cannot be read any more was collected.
fn gone(error: VersionError) -> SyncError {
    match error {
        VersionError::Blob(BlobError::Missing { id, .. } | BlobError::Damaged { id, .. }) => {
            SyncError::Collected { blob: id.to_string() }
        }
        error => error.into(),
    }
}

pub(super) fn runs_of(runs: &[RunInForce]) -> Vec<RunRef> {
    runs.iter().map(|run| RunRef { id: run.id, count: run.count }).collect()
}

/// Looks for blobs in what counts.
struct Check<'a> {
    publisher: &'a Publisher,
    /// HEAD's runs: a page that is in these has everything below it in these, too.
    there: LocationIndex,
    taken: &'a HashSet<ObjectKey>,
    seen: HashSet<crate::base::ids::BlobId>,
    missing: Vec<(BlobKind, ChunkRef)>,
}

impl Check<'_> {
    /// Whether HEAD has the blob, so that nothing below it has to be looked at.
    fn look(&mut self, kind: BlobKind, chunk: &ChunkRef) -> Result<bool, VersionError> {
        if !self.seen.insert(chunk.id) || self.there.lookup(&chunk.id)?.is_some() {
            return Ok(true);
        }
        let blobs = &self.publisher.parts.blobs;
        let is_good = match blobs.index().lookup_own(&chunk.id)? {
            Some(at) => !self.taken.contains(&at.object(&chunk.id).0),
            None => blobs.waits_here(&chunk.id),
        };
        if !is_good {
            self.missing.push((kind, *chunk));
        }
        Ok(false)
    }
}

impl Reach for Check<'_> {
    fn page(&mut self, page: &ChunkRef) -> crate::version::Result<bool> {
        Ok(!self.look(BlobKind::Page, page)?)
    }

    fn content(&mut self, chunk: &ChunkRef) -> crate::version::Result<()> {
        self.look(BlobKind::Content, chunk).map(|_| ())
    }
}
