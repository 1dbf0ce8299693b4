//! Taking in what others published.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::publisher::{ANCESTORS_MAX, BATCH_VERSIONS, Relation};
use super::{Published, Publisher, Seen, SyncError, read_head};
use crate::base::ids::VersionId;
use crate::blob::RunRef;
use crate::store::{ObjectKey, StoreError};
use crate::version::VersionError;
use crate::version::head::Head;
use crate::version::index::IndexRecord;
use crate::version::merge::Conflict;
use crate::version::pages::Pages;
use crate::version::refs::{self, Forgotten, Summary};
use crate::version::tree::TreeRef;
use crate::worktree::Incoming;

/// What taking in others' versions did.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The version that the live tree rests on now.
    pub version: VersionId,
    /// What was taken in: their newest version.
    pub theirs: VersionId,
    /// Their user and host.
    pub author: String,
    /// How many inodes changed here.
    pub changed: usize,
    /// What both sides changed.
    pub conflicts: Vec<Conflict>,
}

impl Publisher {
    /// Takes in what others published since; false when there is nothing.
    pub fn pull_once(&self) -> Result<bool, SyncError> {
        let _busy = self.busy.lock();
        loop {
            let base = self.parts.tree.base();
            let (head, _, seen) = read_head(&*self.parts.store, &self.parts.keys)?;
            self.parts.memory.check(&seen)?;
            if self.is_behind(&head) {
                return self.settle(&head, seen).map(|()| true);
            }
            let (queue, _) = self.queue(&base, BATCH_VERSIONS)?;
            if queue.is_empty() {
                if head.generation == base.head_generation {
                    return Ok(false);
                }
                return self.join(&head, seen, None).map(|()| true);
            }
            match self.relation(&head, &queue, base.head_generation)? {
                Relation::Diverged => return self.join(&head, seen, None).map(|()| true),
                Relation::Continued => return Ok(false),
                Relation::Published { same } => {
                    self.finish(&queue, (seen, head.refs, same), &mut Published::default())?;
                }
            }
        }
    }

    /// Lets the live tree rest on what HEAD names, merged with what is ours.
    pub(super) fn join(&self, head: &Head, seen: Seen, taken: Option<HashSet<ObjectKey>>) -> Result<(), SyncError> {
        let parts = &self.parts;
        parts.leases.refresh()?;
        let base = parts.tree.base();
        let theirs = self.record(head.version)?;
        if theirs.digest() != head.version_digest {
            let (object, reason) = (IndexRecord::key(head.version).to_string(), "HEAD names another".to_owned());
            return Err(VersionError::Damaged { object, reason }.into());
        }
        let index = parts.blobs.index();
        index.set_foreign(head.runs.iter().map(|run| RunRef { id: run.id, count: run.count }).collect());
        let ancestor = self.ancestor(&base.index, &base.refs, &theirs, &head.refs);
        let ancestor = ancestor.inspect_err(|_| index.set_foreign(Vec::new()))?;
        let joined = parts.tree.join(&Incoming {
            record: theirs.clone(),
            refs: head.refs,
            runs: head.runs.clone(),
            generation: head.generation,
            ancestor,
            base_refs: parts.memory.refs_at(base.head_generation),
            taken,
        })?;
        parts.memory.remember(seen, Some(head.refs))?;
        (self.joined)(&Pulled {
            version: joined.record.id,
            theirs: theirs.id,
            author: format!("{}@{}", theirs.author.user, theirs.author.host),
            changed: joined.changed,
            conflicts: joined.conflicts,
        });
        Ok(())
    }

    /// The record of a version: ours that waits, or from the store.
    fn record(&self, id: VersionId) -> Result<IndexRecord, SyncError> {
        let key = IndexRecord::key(id);
        let sealed = match self.parts.outbox.read(&key)? {
            Some(sealed) => sealed.as_bytes().to_vec(),
            None => self.parts.store.get(&key)?.bytes,
        };
        Ok(IndexRecord::open(&self.parts.keys, id, &sealed)?)
    }

    /// The newest version that two versions of our history were made from; `None` when there is none any more.
    pub fn common_ancestor(&self, a: &IndexRecord, b: &IndexRecord) -> Result<Option<IndexRecord>, SyncError> {
        let refs = self.parts.tree.base().refs;
        self.ancestor(a, &refs, b, &refs)
    }

    /// The newest version that both were made from; `None` when there is none any more.
    fn ancestor(
        &self,
        ours: &IndexRecord,
        our_refs: &TreeRef,
        theirs: &IndexRecord,
        their_refs: &TreeRef,
    ) -> Result<Option<IndexRecord>, SyncError> {
        let io = Pages(&self.parts.blobs);
        // Generation and parents of a version that one of the lines lists or has forgotten.
        let known = |id| -> Result<Option<(u64, Vec<VersionId>)>, SyncError> {
            for refs in [their_refs, our_refs] {
                if let Some(Summary { generation, parents, .. }) = refs::summary(refs, &io, id)? {
                    return Ok(Some((generation, parents)));
                }
                if let Some(Forgotten { generation, parents }) = refs::forgotten(refs, &io, id)? {
                    return Ok(Some((generation, parents)));
                }
            }
            Ok(None)
        };
        let mut sides: HashMap<VersionId, u8> = HashMap::from([(ours.id, 1)]);
        *sides.entry(theirs.id).or_default() |= 2;
        let mut pending: BTreeSet<(u64, VersionId)> =
            [(ours.generation, ours.id), (theirs.generation, theirs.id)].into();
        while let Some((_, id)) = pending.pop_last() {
            let side = sides.get(&id).copied().unwrap_or_default();
            if side == 3 {
                if id == ours.id {
                    return Ok(Some(ours.clone()));
                }
                if refs::forgotten(their_refs, &io, id)?.is_some() {
                    // What it held may have been collected.
                    return Ok(None);
                }
                return match self.record(id) {
                    Ok(record) => Ok(Some(record)),
                    Err(SyncError::Store(StoreError::NotFound { .. })) => Ok(None),
                    Err(error) => Err(error),
                };
            }
            if sides.len() > ANCESTORS_MAX {
                return Ok(None);
            }
            for parent in known(id)?.into_iter().flat_map(|(_, parents)| parents) {
                *sides.entry(parent).or_default() |= side;
                pending.extend(known(parent)?.map(|(generation, _)| (generation, parent)));
            }
        }
        Ok(None)
    }
}
