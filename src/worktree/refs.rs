//! Changing the refs without recording a version.

use super::Result;
use super::checkpoint::Parcel;
use super::live::Worktree;
use super::open::Queued;
use crate::blob::PackBuilder;
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
}
