//! The live tree as its users see it: locking, loading, journaling; reading and writing of files.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::absorb::Absorber;
use super::checkpoint::CheckpointState;
use super::content::{ChunkLists, Reading, View};
use super::digests::Hashed;
use super::graft::Invalidation;
use super::inode::{File, Node};
use super::journal::{FrameRef, Journal, Position};
use super::load::load;
use super::local_blobs::LocalBlobs;
use super::open::Base;
use super::pages::{NewPages, Remembered};
use super::record::Record;
use super::room::Limits;
use super::table::{Attempt, Stop, Table};
use super::{Attr, Changes, FileState, Result, Space, WorkError};
use crate::base::clock::{Clock, Timestamp};
use crate::base::disk::Disk;
use crate::blob::{BlobError, Blobs, Outbox};
use crate::crypto::Keys;
use crate::version::VersionError;
use crate::version::entry::{Content, Ino};
use crate::version::index::Author;
use crate::version::merge::Conflict;

/// Whether an operation may wait for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Answer from memory, or with [`WorkError::WouldBlock`].
    No,
    /// Wait as long as it takes (the store has deadlines of its own).
    Yes,
}

/// What a live tree is made of.
#[derive(Clone)]
pub struct WorktreeParts {
    /// The local disk.
    pub disk: Arc<dyn Disk>,
    /// The state directory: the journal and the base lie in it.
    pub dir: PathBuf,
    /// The keys of the workspace.
    pub keys: Keys,
    /// Content and pages.
    pub blobs: Arc<Blobs>,
    /// Where new objects wait for their upload.
    pub outbox: Arc<Outbox>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who records versions.
    pub author: Author,
    /// Limits.
    pub limits: Limits,
    /// Refuse every change.
    pub read_only: bool,
}

/// What happened since a moment, for deciding when to record a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// A number that grows with every change that a version would record.
    pub changes: u64,
    /// Files whose published content is not absorbed yet.
    pub frozen: usize,
    /// Files with unpublished content.
    pub drafts: usize,
    /// Of these, files whose content was found in the journal after a kill.
    pub recovered: usize,
    /// Bytes in the journal.
    pub journal_bytes: u64,
    /// Inodes in memory.
    pub inodes: usize,
    /// Bytes of content that are only in memory, or not absorbed yet.
    pub dirty_bytes: u64,
}

/// The live tree.
pub struct Worktree {
    pub(super) parts: WorktreeParts,
    table: Mutex<Table>,
    pub(super) journal: Arc<Journal>,
    pub(super) local: Arc<LocalBlobs>,
    pub(super) absorbing: Mutex<()>,
    pub(super) checkpoint: Mutex<CheckpointState>,
    /// The base as of the last checkpoint, also while another one goes on.
    pub(super) shown: Mutex<Base>,
    work: Condvar,
    work_waiting: Mutex<bool>,
    pub(super) unheld: Condvar,
    pub(super) hashed: Mutex<Hashed>,
    pub(super) dirty_bytes: AtomicU64,
    /// Bytes written since the disk was asked how many are free.
    pub(super) unchecked_bytes: AtomicU64,
    /// Whether somebody met a limit.
    pub(super) wants_room: AtomicBool,
    /// Held while versions of others are taken in: what is prepared for that is in no queue yet.
    pub(super) joining: Mutex<()>,
    lists: ChunkLists,
    stopped: AtomicBool,
    /// Whether the tree in memory rests on a version that could not be written down.
    pub(super) ahead: AtomicBool,
    /// Conflicts that were settled at a close and that nobody has been told of.
    pub(super) settled: Mutex<Vec<Conflict>>,
    #[expect(clippy::type_complexity, reason = "one hook")]
    notify: Mutex<Option<Box<dyn Fn(Vec<Invalidation>) + Send + Sync>>>,
}

/// Bytes of layers that go ahead of other records are put into frames of about this size.
const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Why a tree is read-only that is ahead of what is written down.
const AHEAD: &str = "what others published was taken in and could not be written down here; the workspace is read-only \
                     until it is mounted again";
/// An operation loads at most this many things before it gives up: a ring of needs is damage.
pub(super) const LOADS_MAX: usize = 10_000;

impl Worktree {
    pub(super) fn assemble(
        parts: WorktreeParts,
        table: Table,
        journal: Arc<Journal>,
        local: Arc<LocalBlobs>,
        checkpoint: CheckpointState,
    ) -> Self {
        parts.blobs.set_local(local.clone());
        Self {
            parts,
            table: Mutex::new(table),
            journal,
            local,
            absorbing: Mutex::new(()),
            shown: Mutex::new(checkpoint.base.clone()),
            checkpoint: Mutex::new(checkpoint),
            work: Condvar::new(),
            work_waiting: Mutex::new(false),
            unheld: Condvar::new(),
            hashed: Mutex::default(),
            dirty_bytes: AtomicU64::new(0),
            unchecked_bytes: AtomicU64::new(0),
            wants_room: AtomicBool::new(false),
            joining: Mutex::new(()),
            lists: ChunkLists::default(),
            stopped: AtomicBool::new(false),
            ahead: AtomicBool::new(false),
            settled: Mutex::default(),
            notify: Mutex::new(None),
        }
    }

    /// Who is told when names or inodes change other than by an operation of the caller's own.
    pub fn on_invalidation(&self, notify: impl Fn(Vec<Invalidation>) + Send + Sync + 'static) {
        *self.notify.lock() = Some(Box::new(notify));
    }

    /// Tells what changed by an operation that the kernel did not ask for.
    pub fn tell(&self, invalidations: Vec<Invalidation>) {
        if let (Some(notify), false) = (&*self.notify.lock(), invalidations.is_empty()) {
            notify(invalidations);
        }
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// Waits until changes need not wait any more.
    fn wait_unheld(&self, table: &mut MutexGuard<'_, Table>) {
        while table.held {
            self.unheld.wait(table);
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    pub(super) fn pages(&self) -> NewPages<'_> {
        NewPages::new(&self.parts.blobs, &self.parts.keys)
    }

    /// Runs `attempt` under the lock, loading what it misses, until it ends.
    pub(super) fn run<T>(&self, wait: Wait, mut attempt: impl FnMut(&mut Table) -> Attempt<T>) -> Result<T> {
        for loads in 0..LOADS_MAX {
            let order = {
                let mut table = self.table.lock();
                let mut outcome = attempt(&mut table);
                while matches!(outcome, Err(Stop::Held)) && wait == Wait::Yes {
                    self.wait_unheld(&mut table);
                    outcome = attempt(&mut table);
                }
                match outcome {
                    Ok(value) => {
                        if loads > 0 {
                            table.shrink(self.parts.limits.inodes_max);
                        }
                        return Ok(value);
                    }
                    Err(Stop::Held) => return Err(WorkError::WouldBlock),
                    Err(Stop::Failed(error)) => return Err(error),
                    Err(Stop::Need(need)) => table.order(need),
                }
            };
            if wait == Wait::No {
                return Err(WorkError::WouldBlock);
            }
            let loaded = load(&self.pages(), order)?;
            self.table.lock().install(loaded);
        }
        Err(WorkError::Inconsistent { ino: Ino::ROOT, reason: "what an operation needs cannot be loaded" })
    }

    /// Journals records and applies them. Whatever applying needs must be loaded already; the bytes
    /// of layers are in memory and only journaled.
    pub(super) fn commit(&self, table: &mut Table, records: &[Record]) -> Attempt<Position> {
        table.check_unheld()?;
        let (_, end) = self.append(table, records)?;
        for record in records.iter().filter(|record| !matches!(record, Record::Write { .. } | Record::Zero { .. })) {
            table.apply(record)?;
        }
        Ok(end)
    }

    /// Journals records that somebody else applies, after what closes left to be journaled and what a replay needs to
    /// find their inodes. Bytes of layers may go ahead in frames of their own; from the first other record on, they
    /// are in one frame.
    pub(super) fn append(&self, table: &mut Table, records: &[Record]) -> Result<(FrameRef, Position)> {
        self.append_all(table, records).inspect_err(|error| self.note_full(error))
    }

    fn append_all(&self, table: &mut Table, records: &[Record]) -> Result<(FrameRef, Position)> {
        self.check_resting()?;
        let closed = table.closed_records();
        let mut before = table.places(closed.iter().chain(records));
        before.extend_from_slice(&closed);
        let (mut from, mut len) = (0, 0);
        for (index, record) in records.iter().enumerate().take_while(|(_, record)| record.is_bytes()) {
            if let Record::Write { data, .. } = record {
                if len > FRAME_BYTES_MAX {
                    self.journal.append_after(&before, &records[from..index])?;
                    table.note_told(&std::mem::take(&mut before));
                    (from, len) = (index, 0);
                }
                len += data.0.len();
            }
        }
        let appended = self.journal.append_after(&before, &records[from..])?;
        table.note_told(&before);
        table.note_placed(records);
        Ok(appended)
    }

    pub(super) fn writable(&self) -> Result<()> {
        if self.parts.read_only || self.is_broken() || self.stopped.load(Ordering::Relaxed) {
            return Err(WorkError::ReadOnly);
        }
        Ok(())
    }

    /// Fails when the tree in memory rests on a version that could not be written down: a recovery would pass by what
    /// the journal is told from then on.
    pub(super) fn check_resting(&self) -> Result<()> {
        if self.ahead.load(Ordering::Relaxed) { Err(WorkError::ReadOnly) } else { Ok(()) }
    }

    /// Whether what is in memory can no longer be written down.
    pub(super) fn is_broken(&self) -> bool {
        self.journal.failure().is_some() || self.ahead.load(Ordering::Relaxed)
    }

    /// Refuses every further change (before unmounting).
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Why the tree is read-only, when a failure made it so.
    pub fn failure(&self) -> Option<String> {
        let ahead = || self.ahead.load(Ordering::Relaxed).then(|| AHEAD.to_owned());
        self.journal.failure().map(|failure| failure.to_string()).or_else(ahead)
    }

    /// What has happened lately.
    pub fn activity(&self) -> Activity {
        let table = self.table();
        let is_recovered =
            |ino: &&Ino| matches!(table.find(**ino).map(|inode| &inode.node), Some(Node::File(file)) if file.recovered);
        Activity {
            recovered: table.drafts.iter().filter(is_recovered).count(),
            changes: table.changes,
            frozen: table.frozen.len(),
            drafts: table.drafts.len(),
            journal_bytes: self.journal.len_bytes(),
            inodes: table.len(),
            dirty_bytes: self.dirty_bytes.load(Ordering::Relaxed),
        }
    }

    /// Whether a version of the present state would differ from the newest.
    pub fn has_unrecorded(&self) -> bool {
        let table = self.table();
        !table.dirty_dirs.is_empty() || !table.dirty_links.is_empty() || table.dirty_root
    }

    /// How large the tree is, and how much more fits.
    pub fn space(&self) -> Result<Space> {
        let (disk, dir) = (&self.parts.disk, &self.parts.dir);
        let free_bytes = disk.free_bytes(dir).map_err(|error| WorkError::disk(dir, &error))?;
        let counts = self.table().counts;
        Ok(Space { used_bytes: counts.bytes, free_bytes, names: counts.files + counts.dirs })
    }

    /// Waits until there is content to absorb, at most so long.
    pub fn wait_for_work(&self, timeout: std::time::Duration) {
        let mut waiting = self.work_waiting.lock();
        if !*waiting {
            self.work.wait_for(&mut waiting, timeout);
        }
        *waiting = false;
    }

    /// Ends the waiting in [`wait_for_work`](Self::wait_for_work).
    pub fn wake(&self) {
        *self.work_waiting.lock() = true;
        self.work.notify_all();
    }

    /// The attributes of an inode.
    pub fn getattr(&self, ino: Ino, wait: Wait) -> Result<Attr> {
        self.run(wait, |table| Ok(table.get(ino)?.attr()))
    }

    /// Opens a file; `truncate` cuts it to nothing.
    pub fn open(&self, ino: Ino, write: bool, truncate: bool, uid: u32, wait: Wait) -> Result<()> {
        if write || truncate {
            self.writable()?;
        }
        self.run(wait, |table| {
            table.get(ino)?;
            if write || truncate {
                table.check_inode_unlocked(ino)?;
            }
            if write {
                table.check_unheld()?;
            }
            if truncate {
                self.resize(table, ino, 0, uid, false, &Changes::default())?;
            }
            let inode = table.get_mut(ino)?;
            inode.opens += 1;
            if let (Node::File(file), true) = (&mut inode.node, write) {
                file.writers += 1;
            }
            Ok(())
        })
    }

    /// Closes a handle. The last writer's close publishes the file; the journal learns of it with the next change, or
    /// from whoever absorbs.
    pub fn release(&self, ino: Ino, write: bool) {
        let frozen = {
            let mut table = self.table();
            self.wait_unheld(&mut table);
            let Some(inode) = table.find_mut(ino) else { return };
            inode.opens = inode.opens.saturating_sub(1);
            let mtime = inode.mtime;
            let nlink = inode.nlink;
            let mut frozen = false;
            if let (Node::File(file), true) = (&mut inode.node, write) {
                file.writers = file.writers.saturating_sub(1);
                if file.writers == 0 && nlink > 0 {
                    frozen = file.publish(mtime);
                }
            }
            if frozen {
                table.note_layers(ino);
                table.mark_published(ino);
                table.closed.insert(ino);
            }
            table.reap(ino);
            frozen
        };
        if frozen {
            // Who absorbs a large file has no time for it.
            if self.absorbing.is_locked() {
                self.note_closed();
            }
            self.wake();
        }
    }

    /// The kernel drops `count` references to an inode.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.table().forget(ino, count);
    }

    /// Reads at most `len` bytes; fewer only at the end of the file.
    pub fn read(&self, ino: Ino, offset: u64, len: usize, wait: Wait) -> Result<Vec<u8>> {
        let mut tries = 0;
        loop {
            let (view, len) = self.run(wait, |table| {
                let file = table.get(ino)?.file()?;
                let len = usize::try_from(file.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(len);
                Ok((View::live(file, offset, offset + len as u64), len))
            })?;
            let blobs = &*self.parts.blobs;
            let mut out = Vec::with_capacity(len);
            let read = match wait {
                Wait::No => {
                    view.read(&Reading::memory(blobs, &Remembered(blobs)).with(&self.lists), offset, len, &mut out)
                }
                Wait::Yes => {
                    view.read(&Reading::anywhere(blobs, &self.pages()).with(&self.lists), offset, len, &mut out)
                }
            };
            match read {
                Ok(()) => return Ok(out),
                Err(_) if wait == Wait::No => return Err(WorkError::WouldBlock),
                // Content that was replaced after the view was taken may have left the journal.
                Err(WorkError::Version(VersionError::Blob(BlobError::Missing { .. }))) if tries < 3 => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The published chunks that a sequential reader at `offset` will want next.
    pub fn chunks_ahead(&self, ino: Ino, offset: u64, len: u64) -> Vec<crate::blob::ChunkRef> {
        let content = {
            let table = self.table();
            match table.find(ino).map(|inode| &inode.node) {
                Some(Node::File(file)) => file.published.as_ref().map(|published| published.body.content.clone()),
                _ => None,
            }
        };
        let Some(content @ (Content::Chunks(_) | Content::Tree(_))) = content else { return Vec::new() };
        let chunks = content.chunks(&self.pages(), offset, offset.saturating_add(len));
        chunks.map(|chunks| chunks.into_iter().map(|(_, chunk)| chunk).collect()).unwrap_or_default()
    }

    /// The next data (`data`) or hole at or after `offset`.
    pub fn seek(&self, ino: Ino, offset: u64, data: bool, wait: Wait) -> Result<u64> {
        let (view, size) = self.run(wait, |table| {
            let file = table.get(ino)?.file()?;
            Ok((View::live(file, 0, u64::MAX), file.size))
        })?;
        if offset >= size {
            return Err(WorkError::NoData);
        }
        if wait == Wait::No && matches!(view.base().content, Content::Tree(_)) {
            return Err(WorkError::WouldBlock);
        }
        let ranges = view.data_ranges(&self.pages())?;
        let inside = ranges.iter().find(|range| range.end > offset);
        match (data, inside) {
            (true, Some(range)) => Ok(range.start.max(offset)),
            (true, None) => Err(WorkError::NoData),
            (false, Some(range)) if range.start <= offset => Ok(range.end.min(size)),
            (false, _) => Ok(offset),
        }
    }

    /// Where a file's content stands.
    pub fn file_state(&self, ino: Ino, wait: Wait) -> Result<FileState> {
        self.run(wait, |table| {
            let inode = table.get(ino)?;
            let is_dirty = |(dir, name): &(Ino, super::Name)| {
                table.find(*dir).and_then(|dir| dir.dir().ok()).is_some_and(|dir| dir.dirty.contains(name))
            };
            let unrecorded = table.dirty_links.contains(&ino) || inode.home.as_ref().is_some_and(is_dirty);
            Ok(match &inode.node {
                Node::File(file) if file.recovered => FileState::Recovered,
                Node::File(file) if file.draft.is_some() || !file.is_published() => FileState::Draft,
                Node::File(file) if !file.frozen.is_empty() => FileState::Published,
                _ if unrecorded => FileState::Published,
                _ => FileState::Recorded,
            })
        })
    }

    /// The absorber over this tree's parts.
    pub(super) fn absorber<'a>(
        &'a self,
        io: &'a NewPages<'a>,
        append: &'a dyn Fn(Vec<Record>) -> Result<()>,
    ) -> Absorber<'a> {
        Absorber {
            keys: &self.parts.keys,
            blobs: &self.parts.blobs,
            outbox: &self.parts.outbox,
            local: &self.local,
            io,
            append,
        }
    }
}

impl File {
    /// Publishes what was written; false when nothing was.
    pub(super) fn publish(&mut self, mtime: Timestamp) -> bool {
        if self.draft.is_none() && !self.is_published() {
            self.draft_mut(mtime);
        }
        self.freeze()
    }

    pub(super) fn dirty_bytes(&self) -> u64 {
        let frozen: u64 = self.frozen.iter().map(|layer| layer.extents.bytes()).sum();
        frozen + self.draft.as_ref().map_or(0, |draft| draft.extents.bytes())
    }
}
