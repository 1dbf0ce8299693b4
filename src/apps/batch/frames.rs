//! Sealed frames one after another in a file of the local disk. Drawn in `FORMAT.md`, "Batches".

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{BatchError, Result};
use crate::base::disk::{Disk, DiskFile, OpenMode};
use crate::base::random;
use crate::crypto::{Keys, Kind, SEAL_OVERHEAD};

const ID_LEN: usize = 16;
/// Plaintext of one frame, in bytes.
pub const FRAME_LEN: usize = 64 * 1024;

/// A file of frames that grows.
pub struct FrameWriter {
    keys: Keys,
    what: &'static str,
    id: [u8; ID_LEN],
    file: Arc<dyn DiskFile>,
    len: u64,
    frames: u64,
    waiting: Vec<u8>,
}

fn identity(what: &str, id: &[u8; ID_LEN], number: u64) -> Vec<u8> {
    [what.as_bytes(), b"\0", id, &number.to_le_bytes()].concat()
}

impl FrameWriter {
    /// Makes the file, which must not exist.
    pub fn create(disk: &dyn Disk, path: &Path, keys: Keys, what: &'static str) -> io::Result<Self> {
        let file = disk.open(path, OpenMode::CreateNew)?;
        let id: [u8; ID_LEN] = random::bytes();
        file.write_at(&id, 0)?;
        Ok(Self { keys, what, id, file, len: ID_LEN as u64, frames: 0, waiting: Vec::new() })
    }

    /// Seals the bytes as a frame of their own behind what is there.
    pub fn frame(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sealed = self.keys.seal(Kind::App, &identity(self.what, &self.id, self.frames), bytes);
        let len = u32::try_from(sealed.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let framed = [&len.to_le_bytes(), sealed.as_bytes()].concat();
        self.file.write_at(&framed, self.len)?;
        self.len += framed.len() as u64;
        self.frames += 1;
        Ok(())
    }

    /// The open file, to make it durable.
    pub fn file(&self) -> Arc<dyn DiskFile> {
        self.file.clone()
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }
}

impl Write for FrameWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(FRAME_LEN - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..count]);
        if self.waiting.len() == FRAME_LEN {
            self.flush()?;
        }
        Ok(count)
    }

    /// Ends the frame that was begun.
    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.frame(&waiting)
    }
}

/// Reads frames in order.
pub struct FrameReader {
    keys: Keys,
    what: &'static str,
    id: [u8; ID_LEN],
    file: Arc<dyn DiskFile>,
    at: u64,
    end: u64,
    frames: u64,
    path: PathBuf,
    ready: Vec<u8>,
    taken: usize,
}

impl FrameReader {
    /// Opens a file; `None` when there is none.
    pub fn open(disk: &dyn Disk, path: &Path, keys: Keys, what: &'static str) -> Result<Option<Self>> {
        let file = match disk.open(path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BatchError::disk(format!("opening {}", path.display()))(error)),
        };
        let failed = |error| BatchError::disk(format!("reading {}", path.display()))(error);
        let mut id = [0; ID_LEN];
        file.read_at(&mut id, 0).map_err(failed)?;
        let end = file.len().map_err(failed)?;
        let (ready, path) = (Vec::new(), path.to_owned());
        Ok(Some(Self { keys, what, id, file, at: ID_LEN as u64, end, frames: 0, path, ready, taken: 0 }))
    }

    /// The length of the next frame, if it is whole.
    fn next_len(&self) -> io::Result<Option<usize>> {
        let mut len = [0; 4];
        if self.file.read_at(&mut len, self.at)? < 4 {
            return Ok(None);
        }
        let len = u32::from_le_bytes(len) as usize;
        let fits = (SEAL_OVERHEAD..=FRAME_LEN + SEAL_OVERHEAD).contains(&len);
        Ok((fits && self.at + 4 + len as u64 <= self.end).then_some(len))
    }

    /// The next frame; `None` at the end, or where the last one is cut or was never finished.
    pub fn frame(&mut self) -> Result<Option<Vec<u8>>> {
        let failed = |error| BatchError::disk(format!("reading {}", self.path.display()))(error);
        let Some(len) = self.next_len().map_err(failed)? else { return Ok(None) };
        let sealed = self.file.read_vec(self.at + 4, len).map_err(failed)?;
        let after = self.at + 4 + len as u64;
        match self.keys.open(Kind::App, &identity(self.what, &self.id, self.frames), &sealed) {
            Ok(plain) => {
                (self.at, self.frames) = (after, self.frames + 1);
                Ok(Some(plain))
            }
            Err(_) if after == self.end => Ok(None),
            Err(error) => Err(BatchError::BacklogDamaged(format!("{}: {error}", self.path.display()))),
        }
    }

    /// Skips to the last whole frame and reads it.
    pub fn last(mut self) -> Result<Option<Vec<u8>>> {
        let failed = |error| BatchError::disk(format!("reading {}", self.path.display()))(error);
        while let Some(len) = self.next_len().map_err(failed)? {
            let after = self.at + 4 + len as u64;
            if after == self.end {
                return self.frame();
            }
            (self.at, self.frames) = (after, self.frames + 1);
        }
        Ok(None)
    }
}

impl Read for FrameReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.ready.len() {
            match self.frame().map_err(io::Error::other)? {
                Some(frame) => (self.ready, self.taken) = (frame, 0),
                None => return Ok(0),
            }
        }
        let count = out.len().min(self.ready.len() - self.taken);
        out[..count].copy_from_slice(&self.ready[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}
