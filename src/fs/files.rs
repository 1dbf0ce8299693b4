//! Open files: opening, reading, writing, and what moves or punches ranges.

use super::control::{Unfinished, is_outside};
use super::types::{Caching, FallocateMode, OpenHow, Opened};
use super::{Fs, FsError, Handle, Result};
use crate::version::entry::Ino;
use crate::worktree::{Caller, Changes, Wait, WorkError};

/// One request copies at most this much, so that it ends in time; the caller asks again.
const COPY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The buffer it goes through.
const COPY_STEP_BYTES: usize = 8 * 1024 * 1024;

impl Fs {
    /// Opens a file.
    pub fn open(&self, caller: Caller, ino: Ino, how: OpenHow, wait: Wait) -> Result<Opened> {
        if is_outside(ino) {
            return self.outside.open(caller, ino, how, wait);
        }
        let tree = self.tree();
        if how.truncate && !how.write {
            // No close of a writer will publish this cut.
            tree.setattr(ino, &Changes { size: Some(0), ..Changes::default() }, caller.uid, wait)?;
        }
        tree.open(ino, how.write, how.truncate && how.write, caller.uid, wait)?;
        Ok(self.note_open(ino, how.write))
    }

    pub(super) fn note_open(&self, ino: Ino, write: bool) -> Opened {
        self.files.opened(ino, write);
        Opened { ino, handle: Handle(0), write, caching: Caching::Kept }
    }

    /// A descriptor of a file that was opened for writing is closed by a thread: a kill loses nothing of what was
    /// written to it (but the end of something large, which is being absorbed).
    pub fn flush(&self, ino: Ino, handle: Handle, thread: u32, wait: Wait) -> Result<()> {
        if is_outside(ino) {
            return self.outside.flush(ino, handle, thread, wait);
        }
        let logged = self.tree().log(ino, wait);
        if !matches!(logged, Err(WorkError::WouldBlock)) {
            self.files.closing(ino);
        }
        Ok(logged?)
    }

    /// Closes a file. The last writer's close publishes it. What it gives is to be [finished](Self::finish) where
    /// waiting is fine.
    pub fn release(&self, opened: &Opened) -> Option<Unfinished> {
        if is_outside(opened.ino) {
            return self.outside.release(opened.handle);
        }
        self.files.close(opened.ino, opened.write, || self.tree().release(opened.ino, opened.write));
        None
    }

    /// Runs a request that its last close ended.
    pub fn finish(&self, unfinished: Unfinished) {
        self.outside.finish(unfinished);
    }

    /// Closes every file of the live tree that is still open. For when the kernel is gone: it may not
    /// have said of all files that they were closed.
    pub fn release_all(&self) {
        for ((ino, write), count) in self.files.take() {
            (0..count).for_each(|_| self.tree().release(ino, write));
        }
    }

    /// Reads at most `len` bytes; fewer only at the end of the file.
    pub fn read(&self, ino: Ino, handle: Handle, offset: u64, len: usize, wait: Wait) -> Result<Vec<u8>> {
        let read = match is_outside(ino) {
            true => self.outside.read(ino, handle, offset, len, wait),
            false => self.tree().read(ino, offset, len, wait).map_err(FsError::from),
        };
        read.map_err(|error| match error {
            error @ (FsError::Work(WorkError::Version(_)) | FsError::Workspace(_)) => {
                FsError::File { path: self.describe(ino), ino, error: Box::new(error) }
            }
            error => error,
        })
    }

    /// Writes all of `data`. A `uid` other than root's takes set-uid and set-gid bits away.
    pub fn write(&self, uid: u32, ino: Ino, handle: Handle, offset: u64, data: &[u8], wait: Wait) -> Result<()> {
        if is_outside(ino) {
            return self.outside.write(ino, handle, data, wait);
        }
        Ok(self.tree().write(ino, offset, data, uid, wait)?)
    }

    /// Makes a file durable and publishes its content; waits for the disk, and for the store where the workspace
    /// was opened so.
    pub fn fsync(&self, ino: Ino, wait: Wait) -> Result<()> {
        if is_outside(ino) {
            return Ok(());
        }
        match wait {
            Wait::No => Err(WorkError::WouldBlock.into()),
            Wait::Yes => Ok(self.workspace.fsync(ino)?),
        }
    }

    /// Does of an fsync of a file, or of all names, what needs no waiting; true when no more than a short
    /// [`flush`](Self::flush_disk) is left to do.
    pub fn begin_fsync(&self, file: Option<Ino>) -> Result<bool> {
        if file.is_some_and(is_outside) || self.fsync_waits_for_store() {
            return Ok(false);
        }
        Ok(self.tree().begin_fsync(file)?)
    }

    /// Makes durable here what was acknowledged so far.
    pub fn flush_disk(&self) -> Result<()> {
        Ok(self.tree().sync()?)
    }

    /// Makes the names of a directory durable; waits as [`fsync`](Self::fsync) does.
    pub fn fsync_dir(&self, ino: Ino, wait: Wait) -> Result<()> {
        match (is_outside(ino), wait) {
            (true, _) => Ok(()),
            (false, Wait::No) => Err(WorkError::WouldBlock.into()),
            (false, Wait::Yes) => Ok(self.workspace.fsync_dir()?),
        }
    }

    /// Punches a hole, zeroes a range, or extends the file.
    pub fn fallocate(
        &self,
        uid: u32,
        ino: Ino,
        (offset, len): (u64, u64),
        mode: FallocateMode,
        wait: Wait,
    ) -> Result<()> {
        if is_outside(ino) {
            return Err(self.outside.refusal(ino));
        }
        Ok(self.tree().fallocate(ino, offset, len, mode.zero, mode.keep_size, uid, wait)?)
    }

    /// The next data (`data`) or hole at or after `offset`.
    pub fn seek(&self, ino: Ino, offset: u64, data: bool, wait: Wait) -> Result<u64> {
        if is_outside(ino) {
            return self.outside.seek(ino, offset, data, wait);
        }
        self.tree().seek(ino, offset, data, wait).map_err(|error| match error {
            WorkError::NoData => FsError::NothingThere,
            error => error.into(),
        })
    }

    /// Copies up to `len` bytes between files; says how many. Waits for the store.
    pub fn copy_range(&self, uid: u32, from: (Ino, u64), to: (Ino, u64), len: u64, wait: Wait) -> Result<u64> {
        if is_outside(to.0) {
            return Err(self.outside.refusal(to.0));
        }
        if wait == Wait::No {
            return Err(WorkError::WouldBlock.into());
        }
        let len = len.min(COPY_BYTES_MAX);
        let mut copied = 0;
        while copied < len {
            let step = usize::try_from(len - copied).unwrap_or(COPY_STEP_BYTES).min(COPY_STEP_BYTES);
            let bytes = self.read(from.0, Handle(0), from.1 + copied, step, wait).and_then(|bytes| {
                self.tree().write(to.0, to.1 + copied, &bytes, uid, wait)?;
                Ok(bytes.len())
            });
            match bytes {
                Ok(0) => break,
                Ok(count) => copied += count as u64,
                // What was copied is told; the caller meets the error when asking for the rest.
                Err(_) if copied > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(copied)
    }
}
