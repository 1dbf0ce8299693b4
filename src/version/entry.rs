//! Directory entries: the value of a name in a directory's page tree.

use serde::{Deserialize, Serialize};

use super::tree::{PageIo, TreeRef};
use super::{Result, VersionError};
use crate::base::clock::Timestamp;
use crate::base::ids::{FileId, Sha256};
use crate::base::limits::{CHUNK_LEN_MAX, FILE_SIZE_MAX, INLINE_LEN_MAX, NAME_LEN_MAX};
use crate::blob::ChunkRef;

/// An inode number; 1 is the root directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory of the live tree.
    pub const ROOT: Ino = Ino(1);
}

/// Extended attributes: names and values, sorted by name.
pub type Xattrs = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;

/// Everything a version knows of one inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Inode number.
    pub ino: Ino,
    /// Identity that survives renames.
    pub file_id: FileId,
    /// Permission bits with set-uid, set-gid and sticky (07777).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Access time as last set explicitly.
    pub atime: Timestamp,
    /// Modification time.
    pub mtime: Timestamp,
    /// Time of the last change of the inode.
    pub ctime: Timestamp,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// What kind of inode it is, and its content.
    pub body: Body,
}

/// The kind-specific part of an [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A regular file.
    File(FileBody),
    /// A directory.
    Directory {
        /// Its names: a page tree from names to entries.
        names: TreeRef,
        /// How many of them are directories.
        subdirs: u32,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A Unix socket's name.
    Socket,
    /// A character device.
    CharDevice {
        /// Device number as in `stat`.
        rdev: u32,
    },
    /// A block device.
    BlockDevice {
        /// Device number as in `stat`.
        rdev: u32,
    },
    /// One of several names of an inode; the inode itself stands in the version's link table under
    /// its number, and all other fields of this entry but `ino` mean nothing.
    Link,
}

/// A regular file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBody {
    /// Length in bytes.
    pub size: u64,
    /// Where the bytes are.
    pub content: Content,
    /// SHA-256 of the whole plaintext, when it was computed.
    pub sha256: Option<Sha256>,
}

/// Where a file's bytes are. What no chunk covers is a hole and reads as zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Nothing but holes.
    #[default]
    Empty,
    /// The bytes themselves, from offset 0.
    Inline(#[serde(with = "bytes")] Vec<u8>),
    /// A few chunks with their offsets, in order.
    Chunks(Vec<(u64, ChunkRef)>),
    /// Many chunks: a page tree from big-endian offsets to chunks.
    Tree(TreeRef),
}

/// More chunks than this go into a page tree of their own.
pub const CHUNKS_IN_ENTRY_MAX: usize = 16;

/// An inode with several names, in the link table under its big-endian number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// Number of names.
    pub names: u32,
    /// The inode; its body is not [`Body::Link`].
    pub inode: Entry,
}

impl Entry {
    /// Encodes the entry as the value of its name.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Decodes and checks the value of a name.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let entry: Entry = decode(value, "a directory entry")?;
        entry.check()?;
        Ok(entry)
    }

    fn check(&self) -> Result<()> {
        let Body::File(body) = &self.body else { return Ok(()) };
        body.fault().map_or(Ok(()), |reason| Err(VersionError::damaged(format!("inode {}", self.ino.0), reason)))
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.body, Body::Directory { .. })
    }
}

impl FileBody {
    /// What no file can be like.
    pub(super) fn fault(&self) -> Option<&'static str> {
        match &self.content {
            _ if self.size > FILE_SIZE_MAX => Some("it is longer than a file can be"),
            Content::Inline(bytes) if bytes.len() > INLINE_LEN_MAX || bytes.len() as u64 > self.size => {
                Some("its inline content is too long")
            }
            Content::Chunks(chunks) if !in_order(chunks) => Some("its chunks are out of order or out of range"),
            _ => None,
        }
    }
}

impl LinkRecord {
    /// Encodes the record.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Decodes a record.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let record: LinkRecord = decode(value, "a link record")?;
        record.inode.check()?;
        Ok(record)
    }

    /// The key of an inode in the link table.
    pub fn key(ino: Ino) -> Vec<u8> {
        ino.0.to_be_bytes().to_vec()
    }
}

impl Content {
    /// Decodes the value of an offset in a page tree of chunks.
    pub fn decode_chunk(value: &[u8]) -> Result<ChunkRef> {
        decode(value, "a chunk list")
    }

    /// The chunks that touch `from..to`, in order, with their offsets.
    pub fn chunks(&self, io: &dyn PageIo, from: u64, to: u64) -> Result<Vec<(u64, ChunkRef)>> {
        match self {
            Content::Empty | Content::Inline(_) => Ok(Vec::new()),
            Content::Chunks(chunks) => {
                let touches = |(offset, chunk): &&(u64, ChunkRef)| *offset < to && offset + u64::from(chunk.len) > from;
                Ok(chunks.iter().filter(touches).copied().collect())
            }
            Content::Tree(tree) => tree_chunks(tree, io, from, to),
        }
    }

    /// Makes content of chunks in order.
    pub fn from_chunks(io: &dyn PageIo, chunks: Vec<(u64, ChunkRef)>) -> Result<Self> {
        if chunks.is_empty() {
            return Ok(Content::Empty);
        }
        if chunks.len() <= CHUNKS_IN_ENTRY_MAX {
            return Ok(Content::Chunks(chunks));
        }
        let edits = chunks.iter().map(|(offset, chunk)| (offset.to_be_bytes().to_vec(), Some(encode(chunk)))).collect();
        Ok(Content::Tree(TreeRef::default().edit(io, &edits)?))
    }

    /// Replaces the chunks `removed` (by offset) with `added`.
    pub fn splice(&self, io: &dyn PageIo, removed: &[u64], added: &[(u64, ChunkRef)]) -> Result<Self> {
        if let Content::Tree(tree) = self {
            let mut edits: super::tree::Edits =
                removed.iter().map(|offset| (offset.to_be_bytes().to_vec(), None)).collect();
            edits.extend(added.iter().map(|(offset, chunk)| (offset.to_be_bytes().to_vec(), Some(encode(chunk)))));
            let tree = tree.edit(io, &edits)?;
            if tree.count() > CHUNKS_IN_ENTRY_MAX as u64 {
                return Ok(Content::Tree(tree));
            }
            return Self::from_chunks(io, tree_chunks(&tree, io, 0, u64::MAX)?);
        }
        let mut chunks = self.chunks(io, 0, u64::MAX)?;
        chunks.retain(|(offset, _)| !removed.contains(offset));
        chunks.extend_from_slice(added);
        chunks.sort_unstable_by_key(|(offset, _)| *offset);
        Self::from_chunks(io, chunks)
    }
}

fn tree_chunks(tree: &TreeRef, io: &dyn PageIo, from: u64, to: u64) -> Result<Vec<(u64, ChunkRef)>> {
    let start = from.saturating_sub(CHUNK_LEN_MAX as u64).to_be_bytes();
    let mut chunks = Vec::new();
    let mut failed = None;
    let end = to.to_be_bytes();
    tree.scan_to(io, std::ops::Bound::Included(&start), Some(&end), &mut |key, value| {
        match parse_chunk(key, value) {
            Ok((offset, chunk)) if offset + u64::from(chunk.len) > from => chunks.push((offset, chunk)),
            Ok(_) => {}
            Err(error) => {
                failed = Some(error);
                return false;
            }
        }
        true
    })?;
    failed.map_or(Ok(chunks), Err)
}

fn parse_chunk(key: &[u8], value: &[u8]) -> Result<(u64, ChunkRef)> {
    let offset = key.try_into().map_err(|_| VersionError::damaged("a chunk list", "a key is not an offset"))?;
    let offset = u64::from_be_bytes(offset);
    let chunk: ChunkRef = decode(value, "a chunk list")?;
    if !in_order(&[(offset, chunk)]) {
        return Err(VersionError::damaged("a chunk list", "a chunk is out of range"));
    }
    Ok((offset, chunk))
}

/// Whether chunks have lengths that chunks can have, lie within the largest file, and do not overlap.
fn in_order(chunks: &[(u64, ChunkRef)]) -> bool {
    let mut end = 0;
    chunks.iter().all(|(offset, chunk)| {
        let len_ok = (1..=CHUNK_LEN_MAX).contains(&(chunk.len as usize));
        let next = offset.checked_add(u64::from(chunk.len)).filter(|next| *next <= FILE_SIZE_MAX);
        let ok = len_ok && *offset >= end && next.is_some();
        end = next.unwrap_or(end);
        ok
    })
}

/// The name by which a mount's root directory shows what is outside of the live tree: reserved at every level.
pub const CONTROL_NAME: &[u8] = b".kura";

/// Whether a name can stand in a directory: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`.
pub fn name_ok(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_LEN_MAX
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_else(|_| unreachable!("our own plain types always encode"))
}

pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|error| VersionError::damaged(what, error))
}

/// Byte strings as one length-prefixed run instead of element by element.
mod bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        <&[u8]>::deserialize(deserializer).map(<[u8]>::to_vec)
    }
}
