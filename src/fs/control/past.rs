//! Inodes of past versions.

use std::collections::HashMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::blob::ChunkRef;
use crate::fs::Result;
use crate::version::entry::{Body, Content, Entry, FileBody, Ino};
use crate::version::index::IndexRecord;
use crate::version::tree::PageIo;
use crate::worktree::{Attr, FileKind, WorkError};

/// One inode of a version.
pub(super) struct Past {
    pub(super) record: Arc<IndexRecord>,
    pub(super) entry: Entry,
    nlink: u32,
    /// The number of the directory it was found in.
    pub(super) parent: Ino,
    /// Names of a directory as listed last, by the offset after each, to go on from there.
    listed: Mutex<HashMap<u64, Vec<u8>>>,
}

/// Names listed in one go.
const LIST_MAX: usize = 256;
/// The offset after `..`.
const DOTS: u64 = 2;

impl Past {
    /// An inode of a version, found elsewhere.
    pub(super) fn of(record: Arc<IndexRecord>, entry: Entry, parent: Ino) -> Self {
        Self { nlink: links_of(&entry), record, entry, parent, listed: Mutex::default() }
    }

    fn inside(&self, io: &dyn PageIo, entry: Entry, dir: Ino) -> Result<Self> {
        let (entry, nlink) = match entry.body {
            Body::Link => {
                let link = self.record.root.link(io, entry.ino)?;
                (link.inode, link.names)
            }
            _ => {
                let nlink = links_of(&entry);
                (entry, nlink)
            }
        };
        Ok(Self { record: self.record.clone(), entry, nlink, parent: dir, listed: Mutex::default() })
    }

    pub(super) fn attr(&self, ino: Ino) -> Attr {
        let (kind, size, rdev) = match &self.entry.body {
            Body::File(file) => (FileKind::File, file.size, 0),
            Body::Directory { names, .. } => (FileKind::Directory, names.count(), 0),
            Body::Symlink { target } => (FileKind::Symlink, target.len() as u64, 0),
            Body::Fifo => (FileKind::Fifo, 0, 0),
            // Links are resolved when an inode is found.
            Body::Socket | Body::Link => (FileKind::Socket, 0, 0),
            Body::CharDevice { rdev } => (FileKind::CharDevice, 0, *rdev),
            Body::BlockDevice { rdev } => (FileKind::BlockDevice, 0, *rdev),
        };
        Attr {
            ino,
            kind,
            mode: self.entry.mode,
            nlink: self.nlink,
            uid: self.entry.uid,
            gid: self.entry.gid,
            rdev,
            size,
            blocks: if kind == FileKind::File { size.div_ceil(512) } else { 0 },
            atime: self.entry.atime,
            mtime: self.entry.mtime,
            ctime: self.entry.ctime,
        }
    }

    pub(super) fn file(&self) -> Result<&FileBody> {
        match &self.entry.body {
            Body::File(file) => Ok(file),
            Body::Directory { .. } => Err(WorkError::IsADirectory.into()),
            _ => Err(WorkError::Invalid.into()),
        }
    }

    pub(super) fn target(&self) -> Result<Vec<u8>> {
        match &self.entry.body {
            Body::Symlink { target } => Ok(target.clone()),
            _ => Err(WorkError::Invalid.into()),
        }
    }

    fn names(&self) -> Result<&crate::version::tree::TreeRef> {
        match &self.entry.body {
            Body::Directory { names, .. } => Ok(names),
            _ => Err(WorkError::NotADirectory.into()),
        }
    }

    /// What a name in this directory (number `dir`) stands for.
    pub(super) fn find(&self, io: &dyn PageIo, dir: Ino, name: &[u8]) -> Result<Option<Self>> {
        let Some(value) = self.names()?.get(io, name)? else { return Ok(None) };
        self.inside(io, Entry::decode(&value)?, dir).map(Some)
    }

    /// The next names after `offset`, each with the offset after it.
    pub(super) fn list(&self, io: &dyn PageIo, dir: Ino, offset: u64) -> Result<Vec<(Vec<u8>, u64, Self)>> {
        let offset = offset.max(DOTS);
        let after = self.listed.lock().get(&offset).cloned();
        let (from, mut skip) = match &after {
            Some(name) => (Bound::Excluded(name.as_slice()), 0),
            None => (Bound::Unbounded, offset - DOTS),
        };
        let mut raw = Vec::new();
        self.names()?.scan(io, from, &mut |name, value| {
            if skip > 0 {
                skip -= 1;
            } else {
                raw.push((name.to_vec(), value.to_vec()));
            }
            raw.len() < LIST_MAX
        })?;
        let mut items = Vec::with_capacity(raw.len());
        for ((name, value), offset) in raw.into_iter().zip(offset + 1..) {
            items.push((name, offset, self.inside(io, Entry::decode(&value)?, dir)?));
        }
        *self.listed.lock() = items.iter().map(|(name, offset, _)| (*offset, name.clone())).collect();
        Ok(items)
    }

    /// The chunks in a range of the file.
    pub(super) fn chunks(&self, io: &dyn PageIo, range: &Range<u64>) -> Result<Vec<ChunkRef>> {
        let chunks = self.file()?.content.chunks(io, range.start, range.end)?;
        Ok(chunks.into_iter().map(|(_, chunk)| chunk).collect())
    }

    /// The next data (`data`) or hole at or after `offset`; `None` when there is none.
    pub(super) fn seek(&self, io: &dyn PageIo, offset: u64, data: bool) -> Result<Option<u64>> {
        let file = self.file()?;
        if offset >= file.size {
            return Ok(None);
        }
        let ranges: Vec<Range<u64>> = match &file.content {
            Content::Inline(bytes) => std::iter::once(0..bytes.len() as u64).collect(),
            content => {
                let chunks = content.chunks(io, offset, file.size)?;
                chunks.into_iter().map(|(at, chunk)| at..at + u64::from(chunk.len)).collect()
            }
        };
        let mut at = offset;
        for range in ranges.into_iter().filter(|range| range.end > offset) {
            if data {
                return Ok(Some(range.start.max(offset)));
            }
            if range.start > at {
                break;
            }
            at = range.end;
        }
        Ok(if data { None } else { Some(at.min(file.size)) })
    }
}

fn links_of(entry: &Entry) -> u32 {
    match entry.body {
        Body::Directory { subdirs, .. } => subdirs.saturating_add(2),
        _ => 1,
    }
}
