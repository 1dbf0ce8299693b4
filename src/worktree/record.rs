//! Journal records. Replaying a record applies it by the same code that applied it first.

use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::ids::{BlobId, FileId, VersionId};
use crate::version::entry::{Body, Entry, FileBody, Ino, Xattrs};

/// One change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Record {
    /// A new inode and its first name. The body of a regular file is empty and unpublished.
    Create { parent: Ino, name: Vec<u8>, node: Node, time: Timestamp },
    /// Another name for an inode.
    Link { ino: Ino, parent: Ino, name: Vec<u8>, time: Timestamp },
    /// A name is removed (a file's, or an empty directory's).
    Remove { parent: Ino, name: Vec<u8>, time: Timestamp },
    /// A name is moved, replacing what has the new name; or two names change places.
    Rename { from: (Ino, Vec<u8>), to: (Ino, Vec<u8>), exchange: bool, time: Timestamp },
    /// Attributes are set.
    Attr { ino: Ino, set: AttrSet },
    /// An extended attribute is set, or removed (`None`).
    Xattr { ino: Ino, name: Vec<u8>, value: Option<Vec<u8>>, time: Timestamp },
    /// The length of a file's draft is set.
    Resize { ino: Ino, layer: u32, size: u64, time: Timestamp },
    /// Bytes of a layer.
    Write { ino: Ino, layer: u32, offset: u64, data: Bytes, time: Timestamp },
    /// A hole of a layer.
    Zero { ino: Ino, layer: u32, offset: u64, len: u64, time: Timestamp },
    /// All of the layer is in the journal, and it is published.
    Complete { ino: Ino, layer: u32 },
    /// The layers up to this one are absorbed: the file's published content is `body`.
    Publish { ino: Ino, layer: u32, body: FileBody, mtime: Timestamp },
    /// A small sealed blob, kept here until the next checkpoint packs it.
    Blob { owner: Ino, id: BlobId, page: bool, len: u32, sealed: Bytes },
    /// A large sealed blob that lies in the outbox.
    Object { owner: Ino, id: BlobId, len: u32, stored_len: u32, generation: u16 },
    /// A name is given a ready inode (restore, carried-over state), replacing what has the name.
    Graft { parent: Ino, name: Vec<u8>, inode: Box<Entry>, published: bool },
    /// The state of a draft without its bytes, which follow as `Write` (carried over from an earlier
    /// segment), or which are in `base` (staged).
    Draft { ino: Ino, layer: u32, base: Option<Box<FileBody>>, clip: u64, size: u64, mtime: Timestamp },
    /// Where an inode is found that records after this one name: in this directory, or (`None`) in
    /// the link table. Each segment has it before the first of them.
    Place { ino: Ino, parent: Option<Ino> },
    /// One more file needs a blob that is recorded already.
    Share { owner: Ino, id: BlobId },
    /// The records from here on count together, up to `Commit`, or not at all.
    Begin,
    /// The end of what counts together. Without it, nothing but blobs counts from `Begin` to the end of the segment.
    Commit,
    /// What follows, up to the next of these, is about a tree that rests on this version.
    Rest { version: VersionId },
    /// While a file was being written, others published another state of it (none: that is settled).
    Contest { ino: Ino, contest: Option<Box<Contest>> },
}

/// Two states of a file that are to be joined when what is being written here is published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Contest {
    /// What is being written is based on this.
    pub(super) base: FileBody,
    /// What others published.
    pub(super) theirs: Entry,
    /// When they recorded it.
    pub(super) time: Timestamp,
}

impl Record {
    /// The inodes that replaying the record has to find.
    pub(super) fn inodes(&self) -> impl Iterator<Item = Ino> {
        let (first, second) = match self {
            Record::Create { parent, .. } | Record::Remove { parent, .. } | Record::Graft { parent, .. } => {
                (Some(*parent), None)
            }
            Record::Link { ino, parent, .. } => (Some(*ino), Some(*parent)),
            Record::Rename { from, to, .. } => (Some(from.0), Some(to.0)),
            Record::Attr { ino, .. }
            | Record::Xattr { ino, .. }
            | Record::Resize { ino, .. }
            | Record::Write { ino, .. }
            | Record::Zero { ino, .. }
            | Record::Complete { ino, .. }
            | Record::Publish { ino, .. }
            | Record::Draft { ino, .. } => (Some(*ino), None),
            Record::Blob { .. }
            | Record::Object { .. }
            | Record::Place { .. }
            | Record::Share { .. }
            | Record::Begin
            | Record::Commit
            | Record::Rest { .. }
            | Record::Contest { .. } => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// Whether the record tells of a blob, which is content only where other records refer to it.
    pub(super) fn is_blob(&self) -> bool {
        matches!(self, Record::Blob { .. } | Record::Object { .. } | Record::Share { .. })
    }

    /// About how long it is when it is encoded; never much longer.
    fn bytes_len(&self) -> usize {
        const REST_LEN: usize = 128;
        match self {
            Record::Write { data, .. } => REST_LEN + data.0.len(),
            Record::Blob { sealed, .. } => REST_LEN + sealed.0.len(),
            _ => REST_LEN,
        }
    }

    /// Whether the record holds nothing but bytes of a layer, which may be journaled ahead of others.
    pub(super) fn is_bytes(&self) -> bool {
        matches!(self, Record::Write { .. } | Record::Zero { .. })
    }
}

/// A new inode.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) ino: Ino,
    pub(super) file_id: FileId,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) body: Body,
    pub(super) xattrs: Xattrs,
}

/// Attributes as they shall be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AttrSet {
    pub(super) mode: Option<u16>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) atime: Option<Timestamp>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) ctime: Timestamp,
}

/// Appends the encoded records to a buffer: those of `before`, and then `records`, as one list.
pub(super) fn encode_onto(before: &[Record], records: &[Record], out: &mut Vec<u8>) {
    out.reserve(before.iter().chain(records).map(Record::bytes_len).sum());
    postcard::serialize_with_flavor(&List(before, records), Onto(out))
        .unwrap_or_else(|_| unreachable!("our own plain types always encode"));
}

/// Two slices that are encoded as one list.
struct List<'a>(&'a [Record], &'a [Record]);

impl Serialize for List<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len() + self.1.len()))?;
        self.0.iter().chain(self.1).try_for_each(|record| list.serialize_element(record))?;
        list.end()
    }
}

/// Appends what is encoded to a buffer.
struct Onto<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Onto<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Shared bytes, written as one length-prefixed run.
#[derive(Clone, Debug)]
pub(super) struct Bytes(pub(super) std::sync::Arc<Vec<u8>>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(|bytes| Bytes(std::sync::Arc::new(bytes.to_vec())))
    }
}
