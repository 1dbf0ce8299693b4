//! A blob's sealed form. Drawn in `FORMAT.md`, "Blobs and frames".
//!
//! The id is not recomputed on reading: every frame is sealed under the workspace's key with id,
//! frame number, frame count and length as associated data, so only someone who holds the key can
//! make bytes that open as this blob; hashing again would cost more than the opening and find only
//! a writer's own mistake. `check` does it ([`BlobKind::id_of`]).

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::Digest;
use zstd::bulk::{Compressor, Decompressor};

use super::Fault;
use crate::base::ids::{BlobId, Sha256};
use crate::base::limits::{CHUNK_LEN_MAX, CHUNK_LEN_MIN, FRAME_LEN, PACKED_LEN_MAX};
use crate::crypto::{IdDomain, Keys, Kind, SEAL_OVERHEAD, Sealed};

/// Content from this length on has an identity that does not rest on its digest. Any file with shorter content has its
/// digest anyway.
const LONG_LEN_MIN: usize = CHUNK_LEN_MIN;
const COMPRESSION_LEVEL: i32 = 1;
/// How much of the first frame is compressed to find out whether the rest is worth it.
const SAMPLE_LEN: usize = 16 * 1024;
/// A frame's plaintext starts with a flag byte and the payload's length.
const FRAME_HEADER_LEN: usize = 5;
const FLAG_RAW: u8 = 0;
const FLAG_ZSTD: u8 = 1;
/// The frame table is sealed as if it were the frame of this number.
const TABLE_NUMBER: u32 = u32::MAX;
const TABLE_ENTRY_LEN: usize = 4;

/// What a blob holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BlobKind {
    /// Content of files.
    Content,
    /// A page of metadata.
    Page,
}

impl BlobKind {
    /// The identity of a plaintext as this kind of blob.
    pub fn id_of(self, keys: &Keys, plaintext: &[u8]) -> BlobId {
        match self {
            BlobKind::Content if plaintext.len() >= LONG_LEN_MIN => keys.long_id(plaintext),
            _ => self.digest_id_of(keys, plaintext),
        }
    }

    /// Whether `id` names a plaintext as this kind of blob. Long content was named by its digest once.
    pub fn is_id_of(self, keys: &Keys, plaintext: &[u8], id: &BlobId) -> bool {
        self.id_of(keys, plaintext) == *id || self.digest_id_of(keys, plaintext) == *id
    }

    fn digest_id_of(self, keys: &Keys, plaintext: &[u8]) -> BlobId {
        keys.id(self.domain(), &Sha256(sha2::Sha256::digest(plaintext).into()))
    }

    /// The domain of this kind's identities.
    fn domain(self) -> IdDomain {
        match self {
            BlobKind::Content => IdDomain::Content,
            BlobKind::Page => IdDomain::Page,
        }
    }

    fn sealed_as(self) -> Kind {
        match self {
            BlobKind::Content => Kind::Content,
            BlobKind::Page => Kind::Page,
        }
    }

    pub(super) fn to_byte(self) -> u8 {
        self.sealed_as() as u8
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [BlobKind::Content, BlobKind::Page].into_iter().find(|kind| kind.to_byte() == byte)
    }
}

/// Names a blob: its identity and the length of its plaintext in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkRef {
    /// The identity.
    pub id: BlobId,
    /// Plaintext bytes, at most [`CHUNK_LEN_MAX`].
    pub len: u32,
}

impl ChunkRef {
    /// The name of `plaintext` as a blob of `kind`.
    pub fn of(keys: &Keys, kind: BlobKind, plaintext: &[u8]) -> Self {
        Self { id: kind.id_of(keys, plaintext), len: small(plaintext.len()) }
    }

    /// The number of frames, at least one.
    pub fn frame_count(&self) -> u32 {
        self.len.div_ceil(small(FRAME_LEN)).max(1)
    }

    /// Plaintext bytes in frame `number`; 0 past the end.
    pub fn frame_len(&self, number: u32) -> usize {
        (self.len as usize).saturating_sub(number as usize * FRAME_LEN).min(FRAME_LEN)
    }

    /// Sealed bytes of the frame table at the front; 0 for a blob of one frame.
    pub fn table_len(&self) -> usize {
        match self.frame_count() {
            1 => 0,
            count => SEAL_OVERHEAD + TABLE_ENTRY_LEN * count as usize,
        }
    }

    fn checked(&self) -> Result<(), Fault> {
        if self.len as usize > CHUNK_LEN_MAX { Err(Fault::Malformed("longer than any blob")) } else { Ok(()) }
    }

    fn identity(&self, number: u32) -> [u8; 48] {
        let mut identity = [0; 48];
        identity[..32].copy_from_slice(self.id.as_bytes());
        identity[32..36].copy_from_slice(&number.to_le_bytes());
        identity[36..40].copy_from_slice(&self.frame_count().to_le_bytes());
        identity[40..].copy_from_slice(&u64::from(self.len).to_le_bytes());
        identity
    }
}

/// A length known to be far below 4 GiB.
pub(super) fn small(len: usize) -> u32 {
    debug_assert!(u32::try_from(len).is_ok());
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// The Padmé length: `len` rounded up so that only the top log2(log2(len)) bits of it remain; at
/// most 12 % longer (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and
/// Communication with PURBs", PoPETs 2019(4), algorithm 1).
pub fn padme_len(len: u64) -> u64 {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let kept_bits = exponent.ilog2() + 1;
    let mask = (1_u64 << (exponent - kept_bits)) - 1;
    len.saturating_add(mask) & !mask
}

/// Seals the blob `id`: compressed where that helps, in frames of [`FRAME_LEN`] bytes.
///
/// `plaintext` is at most [`CHUNK_LEN_MAX`] bytes. A result of [`PACKED_LEN_MAX`] bytes or more is
/// meant to be an object of its own and has a Padmé length.
pub fn encode(keys: &Keys, kind: BlobKind, id: BlobId, plaintext: &[u8]) -> Sealed {
    debug_assert!(plaintext.len() <= CHUNK_LEN_MAX);
    let chunk = ChunkRef { id, len: small(plaintext.len()) };
    let payloads = compress_frames(plaintext);
    let mut lens: Vec<usize> =
        payloads.iter().map(|(_, payload)| FRAME_HEADER_LEN + payload.len() + SEAL_OVERHEAD).collect();
    let len: usize = chunk.table_len() + lens.iter().sum::<usize>();
    let mut padding = Vec::new();
    if len >= PACKED_LEN_MAX {
        padding.resize(usize::try_from(padme_len(len as u64)).unwrap_or(len).saturating_sub(len), 0);
        lens.last_mut().into_iter().for_each(|last| *last += padding.len());
    }
    let mut sealed = Sealed::with_capacity(len + padding.len());
    if lens.len() > 1 {
        let table: Vec<u8> = lens.iter().flat_map(|len| small(*len).to_le_bytes()).collect();
        sealed = keys.seal_after(kind.sealed_as(), &chunk.identity(TABLE_NUMBER), &[&table], sealed);
    }
    for (number, (flag, payload)) in (0..).zip(&payloads) {
        let len = small(payload.len()).to_le_bytes();
        let padding = if number + 1 == chunk.frame_count() { &padding[..] } else { &[] };
        let parts: [&[u8]; 4] = [&[*flag], &len, &payload[..], padding];
        sealed = keys.seal_after(kind.sealed_as(), &chunk.identity(number), &parts, sealed);
    }
    sealed
}

/// Sealed bytes of the shortest [`padding`].
pub(super) const PADDING_LEN_MIN: usize = FRAME_HEADER_LEN + SEAL_OVERHEAD;

/// A blob of nothing whose stored form has so many bytes, at least [`PADDING_LEN_MIN`].
pub(super) fn padding(keys: &Keys, chunk: &ChunkRef, stored_len: usize) -> Sealed {
    let zeros = vec![0; stored_len.saturating_sub(PADDING_LEN_MIN)];
    let parts: [&[u8]; 3] = [&[FLAG_RAW], &[0; 4], &zeros];
    keys.seal_after(BlobKind::Content.sealed_as(), &chunk.identity(0), &parts, Sealed::empty())
}

thread_local! {
    // Making these costs more than using them on a small blob. Without memory for them, blobs are
    // stored plain.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = RefCell::new(Compressor::new(COMPRESSION_LEVEL).ok());
    static DECOMPRESSOR: RefCell<Decompressor<'static>> = RefCell::default();
    /// What is being decompressed.
    static PACKED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The frames' flags and payloads.
fn compress_frames(plaintext: &[u8]) -> Vec<(u8, Cow<'_, [u8]>)> {
    let is_worth_it = plaintext.len() <= SAMPLE_LEN
        || compress(&plaintext[..SAMPLE_LEN]).is_some_and(|packed| packed.len() * 100 <= SAMPLE_LEN * 97);
    let parts = if plaintext.is_empty() { vec![plaintext] } else { plaintext.chunks(FRAME_LEN).collect() };
    parts
        .into_iter()
        .map(|part| match is_worth_it.then(|| compress(part)).flatten().filter(|packed| packed.len() < part.len()) {
            Some(packed) => (FLAG_ZSTD, Cow::Owned(packed)),
            None => (FLAG_RAW, Cow::Borrowed(part)),
        })
        .collect()
}

fn compress(part: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|compressor| compressor.as_mut()?.compress(part).ok())
}

/// Where the frames of a blob lie in its sealed form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameLayout {
    /// Frame `k` is at `ends[k]..ends[k + 1]`; the first entry is the length of the table.
    ends: Vec<u32>,
}

impl FrameLayout {
    /// First byte and number of bytes of the frames `first..=last`, if there are such frames.
    pub fn span(&self, first: u32, last: u32) -> Option<(u32, u32)> {
        let start = *self.ends.get(first as usize)?;
        let end = *self.ends.get(last as usize + 1)?;
        Some((start, end.checked_sub(start)?))
    }

    /// The length of the whole sealed form in bytes.
    pub fn total_len(&self) -> u32 {
        self.ends.last().copied().unwrap_or(0)
    }
}

/// Reads the layout from the first [`ChunkRef::table_len`] bytes of the sealed form (more are
/// fine). A blob of one frame has no table: its frame is all of `stored_len` bytes.
pub fn frame_layout(
    keys: &Keys,
    kind: BlobKind,
    chunk: &ChunkRef,
    front: &[u8],
    stored_len: u32,
) -> Result<FrameLayout, Fault> {
    chunk.checked()?;
    let table_len = chunk.table_len();
    if table_len == 0 {
        return Ok(FrameLayout { ends: vec![0, stored_len] });
    }
    let Some(table) = front.get(..table_len) else {
        return Err(Fault::Length { expected: table_len as u64, found: front.len() as u64 });
    };
    let table = keys.open(kind.sealed_as(), &chunk.identity(TABLE_NUMBER), table)?;
    let mut end = small(table_len);
    let mut ends = vec![end];
    for entry in table.chunks_exact(TABLE_ENTRY_LEN) {
        let len = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
        end = end.checked_add(len).ok_or(Fault::Malformed("frame lengths that overflow"))?;
        ends.push(end);
    }
    Ok(FrameLayout { ends })
}

/// Opens frame `number` from exactly its sealed bytes.
///
/// `buffer` may hold anything; it is written over, and grows when it is too short. The result says where in it the
/// plaintext lies.
pub fn decode_frame(
    keys: &Keys,
    kind: BlobKind,
    chunk: &ChunkRef,
    number: u32,
    sealed: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<Range<usize>, Fault> {
    chunk.checked()?;
    let opened = keys.open_into(kind.sealed_as(), &chunk.identity(number), sealed, buffer)?;
    let &[flag, a, b, c, d, ref rest @ ..] = &buffer[..opened] else {
        return Err(Fault::Malformed("a frame without header"));
    };
    let payload = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok().and_then(|len| rest.get(..len));
    let payload = payload.ok_or(Fault::Malformed("a frame shorter than its payload"))?;
    let len = chunk.frame_len(number);
    match flag {
        FLAG_RAW if payload.len() == len => Ok(FRAME_HEADER_LEN..FRAME_HEADER_LEN + len),
        FLAG_ZSTD => decompress(payload.len(), buffer, len),
        FLAG_RAW => Err(Fault::Malformed("a frame of the wrong length")),
        _ => Err(Fault::Malformed("a frame compressed in an unknown way")),
    }
}

/// Decompresses the payload behind a frame's header over it.
fn decompress(payload_len: usize, buffer: &mut Vec<u8>, len: usize) -> Result<Range<usize>, Fault> {
    let written = PACKED.with_borrow_mut(|packed| {
        packed.clear();
        packed.extend_from_slice(&buffer[FRAME_HEADER_LEN..FRAME_HEADER_LEN + payload_len]);
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        DECOMPRESSOR.with_borrow_mut(|zstd| zstd.decompress_to_buffer(packed.as_slice(), &mut buffer[..len]))
    });
    match written {
        Ok(written) if written == len => Ok(0..len),
        _ => Err(Fault::Malformed("a frame that does not decompress to its length")),
    }
}

/// Opens a whole blob from exactly its sealed form.
pub fn decode(keys: &Keys, kind: BlobKind, chunk: &ChunkRef, sealed: &[u8]) -> Result<Vec<u8>, Fault> {
    chunk.checked()?;
    let layout = frame_layout(keys, kind, chunk, sealed, small(sealed.len().min(u32::MAX as usize)))?;
    if layout.total_len() as usize != sealed.len() {
        return Err(Fault::Length { expected: layout.total_len().into(), found: sealed.len() as u64 });
    }
    let mut plaintext = Vec::with_capacity(chunk.len as usize);
    let mut buffer = Vec::new();
    for number in 0..chunk.frame_count() {
        let (start, len) = layout.span(number, number).ok_or(Fault::Malformed("a frame table cut short"))?;
        let frame = &sealed[start as usize..(start + len) as usize];
        let inside = decode_frame(keys, kind, chunk, number, frame, &mut buffer)?;
        plaintext.extend_from_slice(&buffer[inside]);
    }
    Ok(plaintext)
}
