//! Where files lie in plaintext while they are processed: a private directory in memory, removed at the end.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use sha2::Digest;

use super::error::{BatchError, Code, Result};
use crate::base::ids::Sha256;
use crate::base::random;

const DIR_PREFIX: &str = "kura-batch-";
const LOCK_NAME: &str = "lock";
/// Bytes copied at once.
pub const PIECE_LEN: usize = 256 * 1024;

/// A private directory for the files of one run.
pub struct WorkDir {
    path: PathBuf,
    /// Says to others that the directory is in use.
    _lock: File,
    count: AtomicU64,
}

impl WorkDir {
    /// A directory in memory. `on_disk`, which has to be asked for in words, is a directory on a disk instead.
    pub fn make(on_disk: Option<&Path>) -> Result<Self> {
        let base = match on_disk {
            Some(path) => path.to_owned(),
            None => in_memory().ok_or_else(|| {
                let reason = "there is no private directory in memory (tmpfs) to process files in; make one and name \
                              it in XDG_RUNTIME_DIR, or allow plaintext on the disk with `plaintext_dir`";
                BatchError::Job(reason.to_owned())
            })?,
        };
        sweep(&base);
        let path = base.join(format!("{DIR_PREFIX}{:016x}", random::number()));
        let failed = || BatchError::disk(format!("making {}", path.display()));
        DirBuilder::new().mode(0o700).create(&path).map_err(failed())?;
        let lock = (|| {
            let fresh = path.join(".lock");
            let lock = File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
            lock.lock()?;
            rename(&fresh, &path.join(LOCK_NAME))?;
            Ok(lock)
        })();
        Ok(Self { _lock: lock.map_err(failed())?, path, count: AtomicU64::new(0) })
    }

    /// A fresh, empty file.
    pub fn file(&self) -> Result<TempFile> {
        let path = self.path.join(self.count.fetch_add(1, Ordering::Relaxed).to_string());
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(BatchError::disk(format!("making {}", path.display())))?;
        Ok(TempFile { path, file, digest: None, len: 0 })
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!("{} is left behind: {error}", self.path.display());
        }
    }
}

fn in_memory() -> Option<PathBuf> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let is_tmpfs = |path: &PathBuf| statfs(path.as_path()).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
    own.into_iter().chain([PathBuf::from("/dev/shm")]).find(is_tmpfs)
}

/// Removes what runs left behind that were killed.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(DIR_PREFIX));
        if !is_ours {
            continue;
        }
        let Ok(lock) = File::options().write(true).open(path.join(LOCK_NAME)) else { continue };
        if lock.try_lock().is_ok() {
            fs::remove_dir_all(&path).ok();
        }
    }
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    rustix::fs::rename(from, to).map_err(io::Error::from)
}

/// A file in the work directory; removed when dropped.
pub struct TempFile {
    path: PathBuf,
    file: File,
    digest: Option<Sha256>,
    len: u64,
}

impl TempFile {
    /// Where it is, for programs.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The SHA-256 of its content; known once it was filled.
    pub fn digest(&self) -> Sha256 {
        self.digest.unwrap_or(Sha256([0; 32]))
    }

    /// Replaces its content by what `fill` writes.
    pub fn fill<T>(&mut self, fill: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<T> {
        let failed = |error| BatchError::of_io("the work directory", &error);
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(failed)?;
        let mut sink = Hashing { file: &self.file, hasher: sha2::Sha256::new(), len: 0 };
        let filled = fill(&mut sink)?;
        (self.len, self.digest) = (sink.len, Some(Sha256(sink.hasher.finalize().into())));
        Ok(filled)
    }

    /// Takes note of what a program wrote into it; by its name, since programs replace files.
    pub fn refresh(&mut self) -> Result<()> {
        let failed = |error| BatchError::of_io("what the command wrote", &error);
        if !fs::symlink_metadata(&self.path).map_err(failed)?.is_file() {
            let error = io::Error::from(io::ErrorKind::IsADirectory);
            return Err(BatchError::of_io("what the command wrote", &error));
        }
        self.file = File::options().read(true).write(true).open(&self.path).map_err(failed)?;
        let mut hasher = sha2::Sha256::new();
        self.len = copy(&mut &self.file, &mut hasher_sink(&mut hasher)).map_err(failed)?;
        self.digest = Some(Sha256(hasher.finalize().into()));
        Ok(())
    }

    /// Its content from the start.
    pub fn reader(&self) -> io::Result<impl Read + Seek + Send + use<>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }

    /// All of its content, when that is at most `len_max` bytes.
    pub fn bytes(&self, len_max: u64) -> Result<Vec<u8>> {
        if self.len > len_max {
            let reason = format!("it has {} bytes, and this processing takes {len_max} at most", self.len);
            return Err(BatchError::file(Code::Processing, "the file", reason));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.len).unwrap_or(0));
        let mut reader = self.reader().map_err(|error| BatchError::of_io("the work directory", &error))?;
        reader.read_to_end(&mut bytes).map_err(|error| BatchError::of_io("the work directory", &error))?;
        Ok(bytes)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

struct Hashing<'a> {
    file: &'a File,
    hasher: sha2::Sha256,
    len: u64,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.len += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hasher_sink(hasher: &mut sha2::Sha256) -> impl Write + '_ {
    struct Sink<'a>(&'a mut sha2::Sha256);
    impl Write for Sink<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    Sink(hasher)
}

/// Copies everything; returns the number of bytes.
pub fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
    let mut buffer = vec![0; PIECE_LEN];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                total += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Copies a file of which the server said that it has `len` bytes, when it said so; more than that is not taken.
pub fn copy_file(from: &mut dyn Read, to: &mut dyn Write, len: Option<u64>, target: &str) -> Result<()> {
    let len = len.unwrap_or(u64::MAX);
    let copied = copy(&mut from.take(len.saturating_add(1)), to);
    if copied.map_err(|error| BatchError::of_io(target, &error))? > len {
        return Err(changed(target));
    }
    Ok(())
}

/// A file is not what the server said of it before.
pub fn changed(target: &str) -> BatchError {
    BatchError::file(Code::Short, target, "it changed while it was read")
}

/// One end of a connection: whatever is wrong with it is the connection's fault, and not that of the other side of a
/// copy.
pub struct Remote<T>(pub T);

fn broken(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::Interrupted => error,
        _ => io::Error::new(io::ErrorKind::ConnectionAborted, error.to_string()),
    }
}

impl<T: Read> Read for Remote<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes).map_err(broken)
    }
}

impl<T: Write> Write for Remote<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(broken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(broken)
    }
}
