//! The one door to the local disk.
//!
//! Everything that kura keeps locally (the directory store, journal, outbox, cache) goes through
//! [`Disk`], so that one simulated disk ([`super::sim_disk`]) can stand under all of it in crash
//! tests. Files are made for the owner alone (0600, directories 0700).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::clock::Timestamp;
use super::random;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; reading only.
    Read,
    /// Made when missing; reading and writing.
    ReadWrite,
    /// Must not exist; reading and writing.
    CreateNew,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirItem {
    /// File name, without the directory.
    pub name: String,
    /// Length in bytes (0 for directories).
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// When it was last modified, where that is known.
    pub modified: Option<Timestamp>,
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Reads at most `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Reads at most `len` bytes at `offset` into a vector of its own; fewer only at the end of the file.
    fn read_vec(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let count = self.read_at(&mut bytes, offset)?;
        bytes.truncate(count);
        Ok(bytes)
    }
    /// Writes all of `bytes` at `offset`; a gap before it reads as zeros.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Makes content and length durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// Whether `offset..offset + len` holds no hole (a file system without hole reports says yes).
    fn is_written(&self, offset: u64, len: u64) -> io::Result<bool>;
    /// Takes the exclusive lock of the file; false when someone else has it, and keeps it.
    /// The lock goes with the file handle.
    fn try_lock(&self) -> io::Result<bool>;
    /// Takes the exclusive lock of the file, waiting for it.
    fn lock(&self) -> io::Result<()>;
}

/// A program that a process starts has copies of all its descriptors until it begins, and a killed process cannot give
/// their locks back before. So who finds a file locked looks again for a moment.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(10);

/// A disk. Paths are absolute.
pub trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames within one file system, replacing what `to` names.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives `from` a second name; fails with `AlreadyExists` when `to` exists.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory and its parents, durably; existing ones are fine.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, in no particular order.
    fn list(&self, path: &Path) -> io::Result<Vec<DirItem>>;
    /// Makes the names of a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Free bytes for this user on the file system that holds `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// Reads a whole file, refusing one that is longer than `len_max`.
pub fn read_file(disk: &dyn Disk, path: &Path, len_max: usize) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let len = usize::try_from(file.len()?).ok().filter(|len| *len <= len_max);
    let Some(len) = len else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is longer than {len_max} bytes", path.display()),
        ));
    };
    let bytes = file.read_vec(0, len)?;
    if bytes.len() < len {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{} shrank while it was read", path.display()),
        ));
    }
    Ok(bytes)
}

/// Writes a file so that after a crash it is whole or as before: temporary file, sync, rename,
/// sync of the directory.
pub fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    through_temporary(disk, path, bytes, |temporary| disk.rename(temporary, path))
}

/// As [`replace_file`], but fails with `AlreadyExists` when the name is taken.
pub fn create_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    through_temporary(disk, path, bytes, |temporary| {
        disk.link(temporary, path)?;
        // The file is there now; a second name left behind is cleaned at start.
        disk.remove(temporary).ok();
        Ok(())
    })
}

fn through_temporary(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
    publish: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let dir = parent(path)?;
    let temporary = temporary_beside(path)?;
    let written = disk.open(&temporary, OpenMode::CreateNew).and_then(|file| {
        file.write_at(bytes, 0)?;
        file.sync()
    });
    if let Err(error) = written.and_then(|()| publish(&temporary)) {
        // The first error is the one to report; a temporary file left behind is cleaned at start.
        disk.remove(&temporary).ok();
        return Err(error);
    }
    disk.sync_dir(dir)
}

/// Names of temporary files start so; whoever owns the directory removes leftovers at start.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    Ok(parent(path)?.join(format!("{TEMPORARY_PREFIX}{:016x}", random::number())))
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no parent", path.display())))
}

/// The machine's disk.
#[derive(Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600).custom_flags(libc::O_CLOEXEC);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true).create(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(LocalFile { file: options.open(path)?, may_be_locked: AtomicBool::new(false) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[expect(clippy::disallowed_methods, reason = "the one door to the local disk")]
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.is_dir()).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        for dir in missing.iter().rev() {
            match self.sync_dir(parent(dir)?) {
                // A parent that may be entered but not read cannot be synced.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirItem>> {
        let mut items = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_dir = metadata.is_dir();
            let modified = metadata.modified().ok().map(Timestamp::from_system);
            items.push(DirItem { name, len: if is_dir { 0 } else { metadata.len() }, is_dir, modified });
        }
        Ok(items)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stats = nix::sys::statvfs::statvfs(path)?;
        Ok(stats.blocks_available() * stats.fragment_size())
    }
}

/// A file on the machine's disk.
struct LocalFile {
    file: File,
    /// Whether its lock was asked for.
    may_be_locked: AtomicBool,
}

/// A lock would otherwise last as long as the copy of the descriptor that a program has which another thread is
/// starting, and that program may be waiting for this process.
impl Drop for LocalFile {
    fn drop(&mut self) {
        if *self.may_be_locked.get_mut() {
            // The descriptor is closed next, which is all that is left to try.
            self.file.unlock().ok();
        }
    }
}

impl DiskFile for LocalFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Without clearing the memory first.
    fn read_vec(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            match rustix::io::pread(&self.file, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The vector may have got more room than was asked for.
        bytes.truncate(len);
        Ok(bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn is_written(&self, offset: u64, len: u64) -> io::Result<bool> {
        let Ok(start) = i64::try_from(offset) else { return Ok(false) };
        match nix::unistd::lseek(&self.file, start, nix::unistd::Whence::SeekData) {
            Ok(data) if data > start => return Ok(false),
            Err(nix::errno::Errno::ENXIO) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let hole = nix::unistd::lseek(&self.file, start, nix::unistd::Whence::SeekHole)?;
        Ok(u64::try_from(hole).is_ok_and(|hole| hole >= offset.saturating_add(len)))
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.may_be_locked.store(true, Ordering::Relaxed);
        for attempt in 1.. {
            match self.file.try_lock() {
                Ok(()) => return Ok(true),
                Err(fs::TryLockError::WouldBlock) if attempt >= LOCK_ATTEMPTS => break,
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY_DELAY),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(false)
    }

    fn lock(&self) -> io::Result<()> {
        self.may_be_locked.store(true, Ordering::Relaxed);
        loop {
            match self.file.lock() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_file_though_a_program_that_is_being_started_has_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let own = LocalFile { file: File::create(&path).unwrap(), may_be_locked: AtomicBool::new(false) };
        assert!(own.try_lock().unwrap());
        let copy = own.file.try_clone().unwrap();
        let other = RealDisk.open(&path, OpenMode::ReadWrite).unwrap();
        assert!(!other.try_lock().unwrap());
        drop(own);
        assert!(other.try_lock().unwrap());
        drop(copy);
        let third = RealDisk.open(&path, OpenMode::ReadWrite).unwrap();
        assert!(!third.try_lock().unwrap());
        drop(third);
        assert!(!RealDisk.open(&path, OpenMode::ReadWrite).unwrap().try_lock().unwrap(), "only its owner ends it");
    }
}
