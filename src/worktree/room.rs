//! How much may be kept: dirty bytes in memory, and bytes on the local disk that wait for the store.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::inode::File;
use super::live::{Wait, Worktree};
use super::{JournalError, Result, WorkError};
use crate::version::entry::Ino;

/// The disk is asked for its free bytes after so many more were written.
const UNCHECKED_BYTES_MAX: u64 = 1024 * 1024;
/// What a name costs in the journal, about.
const NAME_COST_BYTES: u64 = 256;
/// Below this nothing is begun that needs new files.
const CHECKPOINT_BYTES_MIN: u64 = 256 * 1024;
/// How often a writer that waits for room looks again, in milliseconds.
const LOOK_MS: u64 = 50;

/// Limits of the live tree.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Inodes kept in memory.
    pub inodes_max: usize,
    /// Dirty bytes kept in memory before large drafts are staged.
    pub dirty_bytes_max: u64,
    /// Bytes in the outbox and journal before writers get `NoSpace`.
    pub unpublished_bytes_max: u64,
    /// How long a write waits for room before it gets `NoSpace`.
    pub full_wait_ms: u64,
    /// Bytes besides a copy of the journal that writers leave free on the local disk; 0 to leave none.
    pub disk_reserve_bytes: u64,
    /// The journal is cut when it is longer.
    pub journal_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inodes_max: 64_000,
            dirty_bytes_max: 128 << 20,
            unpublished_bytes_max: 64 << 30,
            full_wait_ms: 0,
            disk_reserve_bytes: 16 << 20,
            journal_bytes_max: 256 << 20,
        }
    }
}

impl Worktree {
    /// Makes sure that `len` more bytes can be kept, in memory and on the disk. Absorbs, and waits,
    /// only where the caller may wait; other operations go on meanwhile.
    pub(super) fn make_room(&self, len: u64, wait: Wait) -> Result<()> {
        if self.dirty_bytes.load(Ordering::Relaxed) > self.parts.limits.dirty_bytes_max {
            if wait == Wait::No {
                return Err(WorkError::WouldBlock);
            }
            self.relieve()?;
        }
        if !self.is_full(len, self.unwritten_cost())? {
            return Ok(());
        }
        if wait == Wait::No {
            return Err(WorkError::WouldBlock);
        }
        // Once it is on the disk, what is dirty may have cost less; and what nothing needs any more costs nothing.
        if let Err(error) = self.relieve_to(0).and_then(|()| self.free_room()) {
            tracing::debug!("no room is made: {error}");
        }
        if !self.is_full(len, self.unwritten_cost())? {
            return Ok(());
        }
        match self.parts.limits.full_wait_ms {
            0 => Err(WorkError::NoSpace),
            wait_ms => self.wait_for_room(len, Duration::from_millis(wait_ms)),
        }
    }

    /// How many inodes are in memory, wholly or just by their numbers because the kernel refers to them.
    pub fn known_inodes(&self) -> usize {
        let table = self.table();
        table.len() + table.known.len()
    }

    /// What the dirty bytes in memory will cost on the disk at most: once in the journal, at their close, and once as
    /// the objects that they become.
    fn unwritten_cost(&self) -> u64 {
        self.dirty_bytes.load(Ordering::Relaxed).saturating_mul(2)
    }

    fn wait_for_room(&self, len: u64, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(LOOK_MS));
            self.writable()?;
            if !self.is_full(len, self.unwritten_cost())? {
                return Ok(());
            }
        }
        Err(WorkError::NoSpace)
    }

    /// Removes what nothing needs any more, when somebody met a limit since this was last done. For callers that may
    /// wait.
    pub fn free_room(&self) -> Result<()> {
        match self.wants_room.swap(false, Ordering::AcqRel) {
            true => self.compact().and_then(|_| self.clean_outbox()),
            false => Ok(()),
        }
    }

    /// Whether one more name or attribute can be kept. Nobody waits for that: the kernel locks a directory
    /// while a name is made in it.
    pub(super) fn room_for_name(&self) -> Result<()> {
        if self.is_full(NAME_COST_BYTES, 0)? { Err(WorkError::NoSpace) } else { Ok(()) }
    }

    fn is_full(&self, len: u64, pending: u64) -> Result<bool> {
        let is_full = self.is_over(len, pending)?;
        self.wants_room.fetch_or(is_full, Ordering::AcqRel);
        Ok(is_full)
    }

    /// Whether the limit of unpublished bytes is reached, or the local disk (nearly) full once `pending` bytes are on
    /// it.
    fn is_over(&self, len: u64, pending: u64) -> Result<bool> {
        let limits = &self.parts.limits;
        let journal_bytes = self.journal.len_bytes();
        if self.parts.outbox.total_bytes() + journal_bytes > limits.unpublished_bytes_max {
            return Ok(true);
        }
        let unchecked = self.unchecked_bytes.fetch_add(len, Ordering::Relaxed) + len;
        if limits.disk_reserve_bytes == 0 || unchecked < UNCHECKED_BYTES_MAX {
            return Ok(false);
        }
        let (disk, dir) = (&self.parts.disk, &self.parts.dir);
        let free = disk.free_bytes(dir).map_err(|error| WorkError::disk(dir, &error))?;
        // A checkpoint writes what is in the journal once more.
        let is_low = free < limits.disk_reserve_bytes.saturating_add(journal_bytes).saturating_add(pending);
        // A disk that is low is asked every time.
        self.unchecked_bytes.store(if is_low { UNCHECKED_BYTES_MAX } else { 0 }, Ordering::Relaxed);
        Ok(is_low)
    }

    /// Notes that the local disk refused something, so that the next writer asks it.
    pub(super) fn note_full(&self, error: &WorkError) {
        if matches!(error, WorkError::NoSpace | WorkError::Journal(JournalError::Full { .. })) {
            self.unchecked_bytes.fetch_max(UNCHECKED_BYTES_MAX, Ordering::Relaxed);
        }
    }

    /// Refuses a checkpoint for which there is certainly no room: every attempt would leave more behind.
    pub(super) fn room_for_checkpoint(&self) -> Result<()> {
        let (disk, dir) = (&self.parts.disk, &self.parts.dir);
        let free = disk.free_bytes(dir).map_err(|error| WorkError::disk(dir, &error))?;
        if free < CHECKPOINT_BYTES_MIN { Err(WorkError::NoSpace) } else { Ok(()) }
    }

    /// Moves dirty bytes out of memory, in the caller's own time: published content first, then
    /// drafts, the largest first, until half of what may be dirty is left.
    fn relieve(&self) -> Result<()> {
        let max = self.parts.limits.dirty_bytes_max;
        // Someone who absorbs already may make enough of it.
        drop(self.absorbing.lock());
        if self.recount() <= max {
            return Ok(());
        }
        let outcome = self.relieve_to(max / 2);
        // What others have written meanwhile is theirs to relieve, and no reason to refuse this one.
        if self.recount() <= max { Ok(()) } else { outcome }
    }

    fn relieve_to(&self, goal: u64) -> Result<()> {
        let mut outcome = self.absorb_all();
        for ino in self.drafts_by_size() {
            if self.recount() <= goal {
                break;
            }
            outcome = self.stage(ino).and(outcome);
        }
        outcome
    }

    fn drafts_by_size(&self) -> Vec<Ino> {
        let table = self.table();
        let dirty = table.drafts.iter().chain(&table.orphans);
        let mut sizes: Vec<(u64, Ino)> = dirty
            .filter_map(|ino| Some((table.find(*ino)?.file().ok()?.dirty_bytes(), *ino)))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.dedup();
        sizes.into_iter().map(|(_, ino)| ino).collect()
    }

    /// Sets the count of dirty bytes anew after content was absorbed or logged away.
    pub(super) fn recount(&self) -> u64 {
        let table = self.table();
        let files: std::collections::HashSet<Ino> =
            table.drafts.iter().chain(&table.frozen).chain(&table.orphans).copied().collect();
        let bytes = files.into_iter().filter_map(|ino| table.find(ino)?.file().ok().map(File::dirty_bytes)).sum();
        self.dirty_bytes.store(bytes, Ordering::Relaxed);
        bytes
    }
}
