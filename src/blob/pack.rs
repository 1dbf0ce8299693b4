//! Packs: many small blobs in one object. Drawn in `FORMAT.md`, "Packs".

use super::Fault;
use super::codec::{BlobKind, ChunkRef, PADDING_LEN_MIN, padding, padme_len, small};
use super::location::{Location, Place};
use crate::base::ids::{BlobId, PackId};
use crate::base::limits::PACK_LEN_TARGET;
use crate::crypto::{Keys, Kind, SEAL_OVERHEAD, Sealed};

/// Bytes of a directory record: id 32, stored length 4, plaintext length 4, kind 1.
const RECORD_LEN: usize = 41;
const TRAILER_PLAIN_LEN: usize = 8;
/// Sealed bytes of the trailer at the very end of a pack.
pub const TRAILER_LEN: usize = TRAILER_PLAIN_LEN + SEAL_OVERHEAD;

/// The blob of nothing at the end of a pack, by which its length tells little about what is in it. No blob has this
/// identity: those are keyed hashes.
const PADDING: ChunkRef = ChunkRef { id: BlobId([0; 32]), len: 0 };

/// Collects blobs for one pack.
pub struct PackBuilder {
    keys: Keys,
    pack: PackId,
    sealed: Sealed,
    directory: Vec<u8>,
}

impl PackBuilder {
    /// An empty pack with a fresh id.
    pub fn new(keys: Keys) -> Self {
        Self { keys, pack: PackId::random(), sealed: Sealed::empty(), directory: Vec::new() }
    }

    /// Appends the sealed form of a blob of `len` plaintext bytes and says where it will be.
    pub fn add(&mut self, id: BlobId, kind: BlobKind, len: u32, sealed: &Sealed) -> Location {
        let (offset, stored_len) = (small(self.sealed.len()), small(sealed.len()));
        self.sealed.append(sealed);
        self.directory.extend_from_slice(id.as_bytes());
        self.directory.extend_from_slice(&stored_len.to_le_bytes());
        self.directory.extend_from_slice(&len.to_le_bytes());
        self.directory.push(kind.to_byte());
        Location { kind, stored_len, len, place: Place::Pack { pack: self.pack, offset } }
    }

    /// The id the pack will have.
    pub fn pack(&self) -> PackId {
        self.pack
    }

    /// Sealed bytes so far, without the directory.
    pub fn len(&self) -> usize {
        self.sealed.len()
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.directory.is_empty()
    }

    /// Whether it is time to finish this pack and begin another.
    pub fn is_full(&self) -> bool {
        self.len() >= PACK_LEN_TARGET
    }

    /// Closes the pack with padding, its directory and a trailer.
    pub fn finish(mut self) -> (PackId, Sealed) {
        let behind = self.directory.len() + RECORD_LEN + SEAL_OVERHEAD + TRAILER_LEN;
        let len_min = self.sealed.len() + PADDING_LEN_MIN + behind;
        let len = usize::try_from(padme_len(len_min as u64)).unwrap_or(len_min);
        let padding = padding(&self.keys, &PADDING, PADDING_LEN_MIN + len - len_min);
        self.add(PADDING.id, BlobKind::Content, PADDING.len, &padding);
        let blobs_len = small(self.sealed.len());
        let sealed = self.keys.seal_after(Kind::PackDirectory, self.pack.as_bytes(), &[&self.directory], self.sealed);
        let directory_len = small(sealed.len()) - blobs_len;
        let trailer = [blobs_len.to_le_bytes(), directory_len.to_le_bytes()].concat();
        let sealed = self.keys.seal_after(Kind::PackDirectory, &trailer_identity(self.pack), &[&trailer], sealed);
        (self.pack, sealed)
    }
}

fn trailer_identity(pack: PackId) -> Vec<u8> {
    [pack.as_bytes().as_slice(), b"end"].concat()
}

/// The lengths that the last [`TRAILER_LEN`] bytes of a pack tell: of all blobs, and of the
/// directory behind them.
fn read_trailer(keys: &Keys, pack: PackId, tail: &[u8]) -> Result<(u32, u32), Fault> {
    let Some(start) = tail.len().checked_sub(TRAILER_LEN) else {
        return Err(Fault::Length { expected: TRAILER_LEN as u64, found: tail.len() as u64 });
    };
    let trailer = keys.open(Kind::PackDirectory, &trailer_identity(pack), &tail[start..])?;
    let &[a, b, c, d, e, f, g, h] = trailer.as_slice() else {
        return Err(Fault::Malformed("a trailer of the wrong length"));
    };
    Ok((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
}

/// How many bytes at the end of the pack [`read_directory`] needs; `tail` is at least its last
/// [`TRAILER_LEN`] bytes.
pub fn directory_tail_len(keys: &Keys, pack: PackId, tail: &[u8]) -> Result<u64, Fault> {
    let (_, directory_len) = read_trailer(keys, pack, tail)?;
    Ok(u64::from(directory_len) + TRAILER_LEN as u64)
}

/// What is in a pack and where, in the order of the bytes, from the pack's last
/// [`directory_tail_len`] bytes (or more, up to the whole pack).
pub fn read_directory(keys: &Keys, pack: PackId, tail: &[u8]) -> Result<Vec<(BlobId, Location)>, Fault> {
    let (blobs_len, directory_len) = read_trailer(keys, pack, tail)?;
    let end = tail.len() - TRAILER_LEN;
    let Some(start) = end.checked_sub(directory_len as usize) else {
        let expected = u64::from(directory_len) + TRAILER_LEN as u64;
        return Err(Fault::Length { expected, found: tail.len() as u64 });
    };
    let directory = keys.open(Kind::PackDirectory, pack.as_bytes(), &tail[start..end])?;
    if !directory.len().is_multiple_of(RECORD_LEN) {
        return Err(Fault::Malformed("a directory of the wrong length"));
    }
    let mut offset = 0_u32;
    let mut blobs = Vec::with_capacity(directory.len() / RECORD_LEN);
    for record in directory.chunks_exact(RECORD_LEN) {
        let mut id = [0; 32];
        id.copy_from_slice(&record[..32]);
        let number = |at: usize| u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
        let (stored_len, len) = (number(32), number(36));
        let kind = BlobKind::from_byte(record[40]).ok_or(Fault::Malformed("a record of an unknown kind"))?;
        if id != PADDING.id.0 {
            blobs.push((BlobId(id), Location { kind, stored_len, len, place: Place::Pack { pack, offset } }));
        }
        offset = offset.checked_add(stored_len).ok_or(Fault::Malformed("stored lengths that overflow"))?;
    }
    if offset != blobs_len {
        return Err(Fault::Malformed("stored lengths that do not fill the pack"));
    }
    Ok(blobs)
}
