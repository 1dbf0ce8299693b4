//! Location runs: sorted, immutable lists of where blobs are. Drawn in `FORMAT.md`, "Location runs".

use serde::{Deserialize, Serialize};

use super::Fault;
use super::codec::BlobKind;
use super::location::{Location, Place};
use crate::base::ids::{BlobId, PackId, RunId};
use crate::crypto::{Keys, Kind, SEAL_OVERHEAD, Sealed};

/// Bytes of a record.
pub const RECORD_LEN: usize = 64;
/// Records sealed together.
pub const FRAME_RECORDS: usize = 1024;
/// Runs up to this many records are read whole and kept.
pub const SMALL_RUN_RECORDS: u64 = 8192;
/// No run has more records (it would not fit comfortably in memory when it is written).
pub const RUN_RECORDS_MAX: u64 = 512 * 1024;

const SEALED_FRAME_LEN: usize = FRAME_RECORDS * RECORD_LEN + SEAL_OVERHEAD;
const TAG_PACK: u8 = 0;
const TAG_OBJECT: u8 = 1;

/// Names a stored run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RunRef {
    /// The run.
    pub id: RunId,
    /// Number of records.
    pub count: u64,
}

impl RunRef {
    /// Number of frames.
    pub fn frame_count(&self) -> u64 {
        self.count.div_ceil(FRAME_RECORDS as u64)
    }

    /// Records in frame `number`; 0 past the end.
    pub fn frame_records(&self, number: u64) -> usize {
        let left = self.count.saturating_sub(number.saturating_mul(FRAME_RECORDS as u64));
        usize::try_from(left).unwrap_or(usize::MAX).min(FRAME_RECORDS)
    }

    /// First byte and number of bytes of the `frames` frames from `first` on.
    pub fn span(&self, first: u64, frames: u64) -> (u64, u64) {
        let offset = |frame: u64| {
            let records = frame.saturating_mul(FRAME_RECORDS as u64).min(self.count);
            let overheads = frame.min(self.frame_count()).saturating_mul(SEAL_OVERHEAD as u64);
            records.saturating_mul(RECORD_LEN as u64).saturating_add(overheads)
        };
        let start = offset(first);
        (start, offset(first.saturating_add(frames)) - start)
    }

    fn identity(&self, number: u64) -> [u8; 28] {
        let mut identity = [0; 28];
        identity[..16].copy_from_slice(self.id.as_bytes());
        identity[16..20].copy_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        identity[20..].copy_from_slice(&self.count.to_le_bytes());
        identity
    }
}

/// Opened records of a run, sorted by id.
pub struct Records(Vec<u8>);

impl Records {
    /// Opens `sealed`, exactly the frames from `first` on that it holds.
    pub fn open(keys: &Keys, run: &RunRef, first: u64, sealed: &[u8]) -> Result<Self, Fault> {
        let mut plaintext = Vec::with_capacity(sealed.len());
        for (number, frame) in (first..).zip(sealed.chunks(SEALED_FRAME_LEN)) {
            let records = keys.open(Kind::Locations, &run.identity(number), frame)?;
            if records.len() != run.frame_records(number) * RECORD_LEN {
                return Err(Fault::Malformed("a frame of the wrong length"));
            }
            plaintext.extend_from_slice(&records);
        }
        Ok(Self(plaintext))
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.0.len() / RECORD_LEN
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The id of record `position`; zeros past the end.
    pub fn id(&self, position: usize) -> BlobId {
        self.raw(position).first_chunk().map_or(BlobId([0; 32]), |id| BlobId(*id))
    }

    /// The location in record `position`.
    pub fn location(&self, position: usize) -> Result<Location, Fault> {
        decode_record(self.raw(position)).map(|(_, location)| location)
    }

    /// The location of `id`, if it is here.
    pub fn find(&self, id: &BlobId) -> Result<Option<Location>, Fault> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.id(middle).cmp(id) {
                std::cmp::Ordering::Equal => return self.location(middle).map(Some),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    pub(super) fn raw(&self, position: usize) -> &[u8] {
        self.0.chunks_exact(RECORD_LEN).nth(position).unwrap_or(&[])
    }
}

/// Seals `records` (sorted by id, no id twice, at most [`RUN_RECORDS_MAX`]) as the run `id`.
pub fn build_run(keys: &Keys, id: RunId, records: &[(BlobId, Location)]) -> Sealed {
    let mut plaintext = Vec::with_capacity(records.len() * RECORD_LEN);
    for (blob, location) in records {
        plaintext.extend_from_slice(&encode_record(blob, location));
    }
    seal_records(keys, id, &plaintext)
}

/// Seals encoded records.
pub(super) fn seal_records(keys: &Keys, id: RunId, records: &[u8]) -> Sealed {
    debug_assert!(records.chunks_exact(RECORD_LEN).is_sorted_by(|a, b| a[..32] < b[..32]));
    let run = RunRef { id, count: (records.len() / RECORD_LEN) as u64 };
    let mut sealed = Sealed::empty();
    for (number, frame) in (0..).zip(records.chunks(FRAME_RECORDS * RECORD_LEN)) {
        sealed = keys.seal_after(Kind::Locations, &run.identity(number), &[frame], sealed);
    }
    sealed
}

fn encode_record(id: &BlobId, location: &Location) -> [u8; RECORD_LEN] {
    let (pack, offset, generation, tag) = match location.place {
        Place::Pack { pack, offset } => (*pack.as_bytes(), offset, 0, TAG_PACK),
        Place::Object { generation } => ([0; 16], 0, generation, TAG_OBJECT),
    };
    let mut record = [0; RECORD_LEN];
    record[..32].copy_from_slice(id.as_bytes());
    record[32..48].copy_from_slice(&pack);
    record[48..52].copy_from_slice(&offset.to_le_bytes());
    record[52..56].copy_from_slice(&location.stored_len.to_le_bytes());
    record[56..60].copy_from_slice(&location.len.to_le_bytes());
    record[60..62].copy_from_slice(&generation.to_le_bytes());
    record[62] = location.kind.to_byte();
    record[63] = tag;
    record
}

pub(super) fn decode_record(record: &[u8]) -> Result<(BlobId, Location), Fault> {
    let record: &[u8; RECORD_LEN] = record.try_into().map_err(|_| Fault::Malformed("a record cut short"))?;
    let number = |at: usize| u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    let mut id = [0; 32];
    id.copy_from_slice(&record[..32]);
    let place = match record[63] {
        TAG_PACK => {
            let mut pack = [0; 16];
            pack.copy_from_slice(&record[32..48]);
            Place::Pack { pack: PackId(uuid::Uuid::from_bytes(pack)), offset: number(48) }
        }
        TAG_OBJECT => Place::Object { generation: u16::from_le_bytes([record[60], record[61]]) },
        _ => return Err(Fault::Malformed("a record of an unknown place")),
    };
    let kind = BlobKind::from_byte(record[62]).ok_or(Fault::Malformed("a record of an unknown kind"))?;
    Ok((BlobId(id), Location { kind, stored_len: number(52), len: number(56), place }))
}
