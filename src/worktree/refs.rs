//! Changing the refs, and where blobs are, without recording a version.

use std::collections::HashMap;

use super::Result;
use super::checkpoint::Parcel;
use super::live::Worktree;
use super::open::Queued;
use crate::base::ids::{BlobId, RunId};
use crate::blob::{Location, PackBuilder};
use crate::crypto::Sealed;
use crate::store::ObjectKey;
use crate::version::head::RunInForce;
use crate::version::tree::Edits;

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

    /// Lets blobs be found where `records` say, in `objects`; runs that are keys of `replaced` give way to what they
    /// stand for there (nothing, or another run that is among the objects). Durable here, and queued as versions are.
    pub fn relocate(
        &self,
        records: Vec<(BlobId, Location)>,
        objects: Vec<(ObjectKey, Sealed)>,
        replaced: &HashMap<RunId, Option<RunInForce>>,
    ) -> Result<()> {
        self.writable()?;
        let mut state = self.checkpoint.lock();
        let mut parcel = Parcel::of(records, objects);
        let kept = |run: &RunInForce| replaced.get(&run.id).copied().unwrap_or(Some(*run));
        let before: Vec<RunInForce> = state.base.runs.iter().filter_map(kept).collect();
        let runs = self.add_run(&mut parcel, &before)?;
        let queued = Queued { record: state.base.index.clone(), refs: state.base.refs, runs, objects: Vec::new() };
        let base = state.base.clone();
        self.enqueue(&mut state, base, queued, parcel)
    }
}
