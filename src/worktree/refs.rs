//! Changing the refs, and where blobs are, without recording a version.

use std::collections::{HashMap, HashSet};

use super::checkpoint::Parcel;
use super::live::Worktree;
use super::open::Queued;
use super::{Result, WorkError};
use crate::base::ids::{BlobId, RunId};
use crate::blob::{ChunkRef, Location, PackBuilder, Place};
use crate::crypto::Sealed;
use crate::store::ObjectKey;
use crate::version::entry::Content;
use crate::version::head::RunInForce;
use crate::version::tree::{Edits, TreeRef};

impl Worktree {
    /// Edits the refs; the result is durable here and waits in the queue as versions do. False when nothing changes.
    pub fn edit_refs(&self, edits: &Edits) -> Result<bool> {
        self.writable()?;
        let mut state = self.checkpoint.lock();
        let pages = self.pages();
        let refs = state.base.refs.edit(&pages, edits)?;
        if refs == state.base.refs {
            return Ok(false);
        }
        let mut parcel = Parcel::default();
        self.pack_pages(pages, PackBuilder::new(self.parts.keys.clone()), &mut parcel);
        let runs = self.add_run(&mut parcel, &state.base.runs)?;
        let queued = Queued { record: state.base.index.clone(), refs, runs, objects: Vec::new() };
        let base = state.base.clone();
        self.enqueue(&mut state, base, queued, parcel)?;
        Ok(true)
    }

    /// Takes blobs out of what waits here in objects of its own, because such an object was collected: they are about
    /// to be stored elsewhere.
    pub fn displace(&self, ids: &[BlobId]) {
        let _absorbing = self.absorbing.lock();
        self.local.release(ids);
        ids.iter().for_each(|id| self.parts.blobs.index().forget(id));
    }

    /// What drafts, closed files and content without a name refer to that no version holds: chunks, and their lists.
    pub fn unrecorded_content(&self) -> (Vec<ChunkRef>, Vec<TreeRef>) {
        // What is being recorded is in the queue when this goes on, what is being absorbed in the tree.
        let _state = self.checkpoint.lock();
        let _absorbing = self.absorbing.lock();
        let (mut chunks, mut lists) = (Vec::new(), Vec::new());
        let table = self.table();
        let files = table.unrecorded().into_iter().filter_map(|ino| table.find(ino)?.file().ok());
        let bodies = files.flat_map(|file| {
            let layers = file.frozen.iter().map(|layer| &**layer).chain(&file.draft);
            let bases = layers.filter_map(|layer| layer.base.as_deref());
            bases.chain(file.published.as_ref().map(|published| &published.body))
        });
        for body in bodies.chain(table.staging.values()) {
            match &body.content {
                Content::Chunks(list) => chunks.extend(list.iter().map(|(_, chunk)| *chunk)),
                Content::Tree(tree) => lists.push(*tree),
                Content::Empty | Content::Inline(_) => {}
            }
        }
        (chunks, lists)
    }

    /// Lets all that is stored from now on have names that no collection up to this one took. What is being stored
    /// under earlier names is in the outbox then.
    pub fn begin_collection(&self, number: u64) {
        let _state = self.checkpoint.lock();
        let _absorbing = self.absorbing.lock();
        self.parts.blobs.index().set_collection(number);
    }

    /// Lets blobs be found where `records` say, in `objects`; runs that are keys of `replaced` give way to what they
    /// stand for there (nothing, or another run that is among the objects). Durable here, and queued as versions are.
    /// Refused when a collection came between that may have taken the names of these objects.
    pub fn relocate(
        &self,
        records: Vec<(BlobId, Location)>,
        objects: Vec<(ObjectKey, Sealed)>,
        replaced: &HashMap<RunId, Option<RunInForce>>,
    ) -> Result<()> {
        self.writable()?;
        let mut state = self.checkpoint.lock();
        let index = self.parts.blobs.index();
        let new: HashSet<&ObjectKey> = objects.iter().map(|(key, _)| key).collect();
        let is_late = |(id, at): &(BlobId, Location)| match at.place {
            Place::Object { generation } => !index.is_fresh(generation) && new.contains(&at.object(id).0),
            Place::Pack { .. } => false,
        };
        if records.iter().any(is_late) {
            return Err(WorkError::Collected);
        }
        let mut parcel = Parcel::of(records, objects);
        let kept = |run: &RunInForce| replaced.get(&run.id).copied().unwrap_or(Some(*run));
        let before: Vec<RunInForce> = state.base.runs.iter().filter_map(kept).collect();
        let runs = self.add_run(&mut parcel, &before)?;
        let queued = Queued { record: state.base.index.clone(), refs: state.base.refs, runs, objects: Vec::new() };
        let base = state.base.clone();
        self.enqueue(&mut state, base, queued, parcel)
    }
}
