//! What a file of sealed documents lies in: a file on the disk, or memory.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::disk::DiskFile;

/// Bytes that can be read and written anywhere: a file on a disk, memory, a file of a workspace.
pub trait Bytes {
    /// Fills the buffer from `offset` on; `UnexpectedEof` when there are not so many bytes.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// How many bytes there are.
    fn total_len(&self) -> io::Result<u64>;
}

impl Bytes for Arc<dyn DiskFile> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let count = self.read_at(buffer, offset)?;
        if count < buffer.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.as_ref().write_at(bytes, offset)
    }

    fn total_len(&self) -> io::Result<u64> {
        self.as_ref().len()
    }
}

/// A file in memory, of fixed length.
pub struct Memory(Mutex<Vec<u8>>);

impl Memory {
    /// Takes the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(bytes))
    }

    /// Gives the bytes back.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_inner()
    }
}

impl Bytes for Memory {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.0.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = bytes.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.0.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let place = bytes.get_mut(start..).and_then(|rest| rest.get_mut(..new.len()));
        place.ok_or(io::ErrorKind::StorageFull)?.copy_from_slice(new);
        Ok(())
    }

    fn total_len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }
}
