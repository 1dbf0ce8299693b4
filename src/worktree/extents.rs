//! Dirty ranges of a file, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Adjacent writes grow one piece up to this length.
const PIECE_LEN_MAX: usize = 1024 * 1024;
/// A piece of this length that grows will be a large one; it is moved once.
const LARGE_LEN_MIN: usize = 128 * 1024;

/// A run of dirty bytes.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) data: PieceData,
    /// Whether the journal has it.
    pub(super) logged: bool,
}

/// The bytes of a piece.
#[derive(Clone, Debug)]
pub(super) enum PieceData {
    Bytes(Arc<Vec<u8>>),
    /// A hole that was punched.
    Zeros(u64),
}

impl PieceData {
    pub(super) fn len(&self) -> u64 {
        match self {
            PieceData::Bytes(bytes) => bytes.len() as u64,
            PieceData::Zeros(len) => *len,
        }
    }

    fn slice(&self, from: u64, to: u64) -> PieceData {
        match self {
            PieceData::Bytes(bytes) => PieceData::Bytes(Arc::new(bytes[index(from)..index(to)].to_vec())),
            PieceData::Zeros(_) => PieceData::Zeros(to - from),
        }
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// Disjoint pieces by offset.
#[derive(Clone, Debug, Default)]
pub(super) struct Extents {
    pieces: BTreeMap<u64, Piece>,
    /// Bytes held in memory.
    bytes: u64,
    /// Of these, bytes the journal does not have.
    unlogged: u64,
}

impl Extents {
    /// Bytes held in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The pieces in order of their offsets.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Piece)> {
        self.pieces.iter().map(|(offset, piece)| (*offset, piece))
    }

    /// Overwrites a range.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], logged: bool) {
        if data.is_empty() {
            return;
        }
        if !logged && self.grow_last(offset, data) {
            return;
        }
        self.cut_out(offset, offset + data.len() as u64);
        self.insert(offset, Piece { data: PieceData::Bytes(Arc::new(data.to_vec())), logged });
    }

    /// Appends to the piece that ends at `offset` when nothing lies behind it.
    fn grow_last(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some((start, piece)) = self.pieces.iter_mut().next_back() else { return false };
        let PieceData::Bytes(bytes) = &mut piece.data else { return false };
        if piece.logged || *start + bytes.len() as u64 != offset || bytes.len() + data.len() > PIECE_LEN_MAX {
            return false;
        }
        let Some(bytes) = Arc::get_mut(bytes) else { return false };
        if bytes.len() >= LARGE_LEN_MIN && bytes.capacity() < bytes.len() + data.len() {
            bytes.reserve_exact(PIECE_LEN_MAX - bytes.len());
        }
        bytes.extend_from_slice(data);
        self.bytes += data.len() as u64;
        self.unlogged += data.len() as u64;
        true
    }

    /// Turns a range into a hole.
    pub(super) fn zero(&mut self, offset: u64, len: u64, logged: bool) {
        if len > 0 {
            self.cut_out(offset, offset + len);
            self.insert(offset, Piece { data: PieceData::Zeros(len), logged });
        }
    }

    /// Forgets everything at and after `size`.
    pub(super) fn truncate(&mut self, size: u64) {
        self.cut_out(size, u64::MAX);
    }

    /// Forgets the range, splitting pieces at its ends.
    fn cut_out(&mut self, from: u64, to: u64) {
        let before = self.pieces.range(..from).next_back().filter(|(start, piece)| *start + piece.data.len() > from);
        let first = before.map_or(from, |(start, _)| *start);
        let touched: Vec<u64> = self.pieces.range(first..to).map(|(start, _)| *start).collect();
        for start in touched {
            let Some(piece) = self.remove(start) else { continue };
            let len = piece.data.len();
            if start < from {
                self.insert(start, Piece { data: piece.data.slice(0, from - start), logged: piece.logged });
            }
            if start + len > to {
                self.insert(to, Piece { data: piece.data.slice(to - start, len), logged: piece.logged });
            }
        }
    }

    fn insert(&mut self, offset: u64, piece: Piece) {
        if let PieceData::Bytes(bytes) = &piece.data {
            self.bytes += bytes.len() as u64;
        }
        if !piece.logged {
            self.unlogged += piece.data.len();
        }
        self.pieces.insert(offset, piece);
    }

    fn remove(&mut self, offset: u64) -> Option<Piece> {
        let piece = self.pieces.remove(&offset)?;
        if let PieceData::Bytes(bytes) = &piece.data {
            self.bytes -= bytes.len() as u64;
        }
        if !piece.logged {
            self.unlogged -= piece.data.len();
        }
        Some(piece)
    }

    /// The pieces the journal does not have.
    pub(super) fn unlogged(&self) -> Vec<(u64, PieceData)> {
        let unlogged = self.pieces.iter().filter(|(_, piece)| !piece.logged);
        unlogged.map(|(offset, piece)| (*offset, piece.data.clone())).collect()
    }

    /// Bytes (holes included) the journal does not have.
    pub(super) fn unlogged_len(&self) -> u64 {
        self.unlogged
    }

    /// Notes whether the journal has the pieces, all of them.
    pub(super) fn set_logged(&mut self, logged: bool) {
        self.pieces.values_mut().for_each(|piece| piece.logged = logged);
        self.unlogged = if logged { 0 } else { self.pieces.values().map(|piece| piece.data.len()).sum() };
    }

    /// Drops the pieces that are still just those of `staged`.
    pub(super) fn drop_staged(&mut self, staged: &Extents) {
        let same = |offset: &u64, piece: &Piece| match (&piece.data, staged.pieces.get(offset).map(|piece| &piece.data))
        {
            (PieceData::Bytes(a), Some(PieceData::Bytes(b))) => Arc::ptr_eq(a, b),
            (PieceData::Zeros(a), Some(PieceData::Zeros(b))) => a == b,
            _ => false,
        };
        let gone: Vec<u64> =
            self.pieces.iter().filter(|(offset, piece)| same(offset, piece)).map(|(offset, _)| *offset).collect();
        for offset in gone {
            self.remove(offset);
        }
    }

    /// Lays the pieces over `out`, which holds the bytes from `offset` on.
    pub(super) fn overlay(&self, offset: u64, out: &mut [u8]) {
        let end = offset + out.len() as u64;
        for (start, piece) in self.touching(offset, end) {
            let (from, to) = (start.max(offset), (start + piece.data.len()).min(end));
            let target = &mut out[index(from - offset)..index(to - offset)];
            match &piece.data {
                PieceData::Bytes(bytes) => target.copy_from_slice(&bytes[index(from - start)..index(to - start)]),
                PieceData::Zeros(_) => target.fill(0),
            }
        }
    }

    /// Appends the bytes of `from..to`, which the pieces cover, to `out`.
    pub(super) fn append_to(&self, from: u64, to: u64, out: &mut Vec<u8>) {
        for (start, piece) in self.touching(from, to) {
            let (first, last) = (index(from.max(start) - start), index(to.min(start + piece.data.len()) - start));
            match &piece.data {
                PieceData::Bytes(bytes) => out.extend_from_slice(&bytes[first..last]),
                PieceData::Zeros(_) => out.resize(out.len() + last - first, 0),
            }
        }
    }

    /// The pieces that touch `from..to`.
    pub(super) fn touching(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, &Piece)> {
        let first = self
            .pieces
            .range(..from)
            .next_back()
            .filter(|(start, piece)| *start + piece.data.len() > from)
            .map_or(from, |(start, _)| *start);
        self.pieces.range(first..to.max(first)).map(|(start, piece)| (*start, piece))
    }

    /// Only the pieces that touch `from..to`.
    pub(super) fn part(&self, from: u64, to: u64) -> Extents {
        let mut part = Extents::default();
        for (start, piece) in self.touching(from, to) {
            part.insert(start, piece.clone());
        }
        part
    }

    /// Whether the pieces cover all of `from..to`.
    pub(super) fn covers(&self, from: u64, to: u64) -> bool {
        let mut at = from;
        for (start, piece) in self.touching(from, to) {
            if start > at {
                return false;
            }
            at = start + piece.data.len();
        }
        at >= to
    }
}
