//! From layers to published content: absorbing what is frozen, logging and staging drafts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::absorb::{Absorbed, Purpose, register};
use super::content::View;
use super::inode::{Inode, Layer, Node};
use super::journal::FrameRef;
use super::live::{Wait, Worktree};
use super::local_blobs::Own;
use super::namespace::{mark_logged, piece_record, unlogged_records};
use super::pages::NewPages;
use super::record::{Bytes, Record};
use super::{Result, WorkError};
use crate::blob::{BlobKind, codec, location};
use crate::version::entry::{FileBody, Ino};

/// A draft with more than this unlogged is staged as chunks instead of being written to the journal
/// and then once more as chunks.
const STAGE_LEN_MIN: u64 = 8 * 1024 * 1024;
/// Bytes that are journaled without being put off.
const LOGGED_AT_ONCE: u64 = 512 * 1024;

impl Worktree {
    /// Absorbs all frozen layers; returns the first error after having tried every file.
    pub fn absorb_all(&self) -> Result<()> {
        let inos: Vec<Ino> = self.table().frozen.iter().copied().collect();
        let mut outcome = Ok(());
        for ino in inos {
            if let Err(error) = self.absorb_file(ino) {
                tracing::warn!("the content of inode {} stays in the journal for now: {error}", ino.0);
                outcome = outcome.and(Err(error));
            }
        }
        self.recount();
        outcome.inspect_err(|error| self.note_full(error))
    }

    fn absorb_file(&self, ino: Ino) -> Result<()> {
        let _absorbing = self.absorbing.lock();
        self.note_closed();
        let (base, layers) = {
            let table = self.table();
            let Some(inode) = table.find(ino).filter(|inode| inode.nlink > 0) else { return Ok(()) };
            let file = inode.file()?;
            if file.frozen.is_empty() {
                return Ok(());
            }
            (file.published.as_ref().map(|published| published.body.clone()).unwrap_or_default(), file.frozen.clone())
        };
        let Some(last) = layers.last().map(|layer| layer.id) else { return Ok(()) };
        let Absorbed { body, records, .. } = self.absorb_layers(ino, base, layers, Purpose::Publish)?;
        self.install(ino, last, body, records)
    }

    /// Tells the journal what was closed, unless it knows. Absorbing comes later and takes a while: a kill before its
    /// end shall not make drafts of what was published and is in the journal.
    pub fn note_closed(&self) {
        let mut table = self.table();
        // The records go ahead of whatever is appended.
        if !table.closed_records().is_empty()
            && let Err(error) = self.append(&mut table, &[])
        {
            tracing::debug!("a kill would make drafts of files that were closed: {error}");
        }
    }

    /// Makes content of layers; the caller appends the records and registers them.
    pub(super) fn absorb_layers(
        &self,
        ino: Ino,
        base: FileBody,
        layers: Vec<Arc<Layer>>,
        purpose: Purpose,
    ) -> Result<Absorbed> {
        let pages = self.pages();
        let append = |records: Vec<Record>| self.append_blobs(&records);
        let mut absorbed = self.absorber(&pages, &append).absorb(ino, base, layers, purpose)?;
        self.add_pages(ino, pages, &mut absorbed.records);
        Ok(absorbed)
    }

    fn add_pages(&self, owner: Ino, pages: NewPages<'_>, records: &mut Vec<Record>) {
        for (id, bytes) in pages.into_new() {
            match self.local.own(&id, owner) {
                Own::Absent => {}
                Own::Known => continue,
                Own::New => {
                    records.push(Record::Share { owner, id });
                    continue;
                }
            }
            let sealed = codec::encode(&self.parts.keys, BlobKind::Page, id, &bytes);
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            records.push(Record::Blob { owner, id, page: true, len, sealed: Bytes(Arc::new(sealed.into_bytes())) });
        }
    }

    /// Appends blob records as a frame of their own.
    pub(super) fn append_blobs(&self, records: &[Record]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let (frame, _) = self.journal.append(records).inspect_err(|error| self.note_full(error))?;
        self.register(frame, records);
        Ok(())
    }

    fn register(&self, frame: FrameRef, records: &[Record]) {
        register(&self.local, &self.parts.blobs, frame, records);
    }

    /// Makes absorbed content the published content, unless the file is gone.
    fn install(&self, ino: Ino, layer: u32, body: FileBody, mut records: Vec<Record>) -> Result<()> {
        let mut table = self.table();
        let frozen = table.find(ino).filter(|inode| inode.nlink > 0).and_then(|inode| inode.file().ok());
        let Some(mtime) =
            frozen.and_then(|file| file.frozen.iter().find(|frozen| frozen.id == layer).map(|frozen| frozen.mtime))
        else {
            drop(table);
            return self.discard(&records);
        };
        let publish = Record::Publish { ino, layer, body, mtime };
        records.push(publish);
        let (frame, _) = self.append(&mut table, &records)?;
        self.register(frame, &records);
        match records.last().map(|publish| table.apply(publish)) {
            Some(Err(_)) | None => {
                Err(WorkError::Inconsistent { ino, reason: "its content was absorbed and cannot be installed" })
            }
            Some(Ok(())) => Ok(()),
        }
    }

    /// Drops objects that nothing came to refer to.
    fn discard(&self, records: &[Record]) -> Result<()> {
        for record in records {
            if let Record::Object { id, generation, .. } = record
                && !self.local.holds(id)
                && matches!(self.parts.blobs.index().lookup(id), Ok(None))
            {
                self.parts.outbox.remove(&location::object_key(id, *generation))?;
            }
        }
        Ok(())
    }

    /// Puts dirty bytes that are only in memory where a kill does not reach them: large drafts as
    /// staged chunks, everything else into the journal. Called every second.
    pub fn log_drafts(&self) -> Result<()> {
        let dirty: Vec<Ino> = {
            let table = self.table();
            table.drafts.iter().chain(&table.frozen).copied().collect()
        };
        // What takes long comes last.
        let (large, small): (Vec<Ino>, Vec<Ino>) =
            dirty.into_iter().partition(|ino| self.unlogged(*ino).0 >= STAGE_LEN_MIN);
        small.into_iter().try_for_each(|ino| self.log_file(ino, Wait::Yes))?;
        for ino in large {
            let (_, draft) = self.unlogged(ino);
            if draft >= STAGE_LEN_MIN {
                self.stage(ino)?;
                continue;
            }
            if let Err(error) = self.absorb_file(ino) {
                tracing::debug!("inode {} is written to the journal, since it is not absorbed: {error}", ino.0);
            }
            self.log_file(ino, Wait::Yes)?;
        }
        self.recount();
        Ok(())
    }

    /// Puts what was written to a file where a kill does not reach it, for whoever closes it. What is too
    /// large for the journal is left to the absorber, which the last close wakes.
    pub fn log(&self, ino: Ino, wait: Wait) -> Result<()> {
        let (unlogged, _) = self.unlogged(ino);
        match unlogged {
            STAGE_LEN_MIN.. => Ok(()),
            _ if unlogged > LOGGED_AT_ONCE && wait == Wait::No => Err(WorkError::WouldBlock),
            _ => self.log_file(ino, wait),
        }
    }

    /// Bytes of a file that the journal does not have: of all layers, and of the draft.
    fn unlogged(&self, ino: Ino) -> (u64, u64) {
        match self.table().find(ino).map(|inode| &inode.node) {
            Some(Node::File(file)) => {
                (file.unlogged_len(), file.draft.as_ref().map_or(0, |draft| draft.extents.unlogged_len()))
            }
            _ => (0, 0),
        }
    }

    fn log_file(&self, ino: Ino, wait: Wait) -> Result<()> {
        self.run(wait, |table| {
            let mut records = Vec::new();
            match table.find(ino).filter(|inode| inode.nlink > 0).map(Inode::file).transpose()? {
                Some(file) if file.is_dirty() => unlogged_records(ino, file, &mut records),
                _ => return Ok(()),
            }
            // Until the tree rests on what others published, a recovery would pass this by, and what was carried over.
            table.check_unheld()?;
            self.check_resting()?;
            if !records.is_empty() {
                self.append(table, &records)?;
                mark_logged(table, ino);
            }
            Ok(())
        })
    }

    /// Absorbs a draft without publishing it: its bytes become chunks that only the draft refers to.
    /// Of a file without a name, which nothing publishes any more, all layers are.
    pub(super) fn stage(&self, ino: Ino) -> Result<()> {
        let _absorbing = self.absorbing.lock();
        self.note_closed();
        let (base, layers, draft) = {
            let mut table = self.table();
            let Some(inode) = table.find_mut(ino) else { return Ok(()) };
            let (is_orphan, mtime) = (inode.nlink == 0, inode.mtime);
            let file = inode.file_mut()?;
            if file.dirty_bytes() == 0 {
                return Ok(());
            }
            if is_orphan {
                file.draft_mut(mtime);
            }
            let base = file.published.as_ref().map(|published| published.body.clone()).unwrap_or_default();
            let mut layers = file.frozen.clone();
            let Some(draft) = &mut file.draft else { return Ok(()) };
            draft.low_water = u64::MAX;
            let copy = Arc::new(draft.clone());
            layers.push(copy.clone());
            (base, layers, copy)
        };
        let view = View::new(base, layers);
        let absorbed = self.absorb_layers(ino, view.base().clone(), view.layers().to_vec(), Purpose::Stage)?;
        self.install_staged(ino, &draft, absorbed)
    }

    fn install_staged(&self, ino: Ino, staged: &Layer, absorbed: Absorbed) -> Result<()> {
        let Absorbed { body, mut records, front } = absorbed;
        let mut table = self.table();
        let file = table.find_mut(ino).and_then(|inode| inode.file_mut().ok());
        let Some(draft) = file.and_then(|file| file.draft.as_mut()).filter(|draft| draft.id == staged.id) else {
            drop(table);
            return self.discard(&records);
        };
        let clip = staged.size.min(draft.low_water);
        let (layer, size, mtime) = (draft.id, draft.size, draft.mtime);
        records.push(Record::Draft { ino, layer, base: Some(Box::new(body.clone())), clip, size, mtime });
        let mut left = draft.extents.clone();
        left.drop_staged(&staged.extents);
        // This record takes the place of all that the journal has of the layer: of what was logged meanwhile, too, also
        // where something else was written over it since.
        let takes_all = left.unlogged_len() < STAGE_LEN_MIN;
        let taken = left.iter().filter(|(_, piece)| takes_all || piece.logged);
        records.extend(taken.map(|(offset, piece)| piece_record(ino, draft, offset, piece.data.clone())));
        if takes_all {
            left.set_logged(true);
        }
        let (frame, _) = self.append(&mut table, &records)?;
        self.register(frame, &records);
        let is_orphan = table.orphans.contains(&ino);
        let Some(file) = table.find_mut(ino).and_then(|inode| inode.file_mut().ok()) else { return Ok(()) };
        if is_orphan {
            // The staged draft holds all of it.
            file.frozen.clear();
        }
        let Some(draft) = &mut file.draft else { return Ok(()) };
        (draft.base, draft.front, draft.clip) = (Some(Arc::new(body)), front, clip);
        draft.extents = left;
        Ok(())
    }

    /// Whether absorbing may wait a little: the bytes of all that was closed are in the journal, and little is dirty.
    pub fn is_calm(&self) -> bool {
        self.dirty_bytes.load(Ordering::Relaxed) < STAGE_LEN_MIN
    }

    /// Where staging begins, so that writers who go on need not wait.
    pub(super) fn dirty_bytes_ample(&self) -> u64 {
        self.parts.limits.dirty_bytes_max / 4
    }

    /// Stages large drafts when much is dirty. Called by whoever absorbs in the background.
    pub fn stage_ample(&self) -> Result<()> {
        if self.dirty_bytes.load(Ordering::Relaxed) <= self.dirty_bytes_ample() {
            return Ok(());
        }
        let drafts: Vec<Ino> = self.table().drafts.iter().copied().collect();
        for ino in drafts.into_iter().filter(|ino| self.unlogged(*ino).1 >= STAGE_LEN_MIN) {
            self.stage(ino)?;
        }
        self.recount();
        Ok(())
    }
}
