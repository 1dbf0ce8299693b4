//! Which frames a read touches, and what of them it wants.

use super::codec::{ChunkRef, small};
use crate::base::limits::FRAME_LEN;

/// Whoever reads this much of a blob at once reads in order.
const STREAM_LEN_MIN: u32 = 32 * 1024;

/// A part of a blob that is read.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) chunk: &'a ChunkRef,
    offset: u32,
    end: u32,
    /// The first frame that is still to be copied.
    pub(super) first: u32,
    pub(super) last: u32,
}

impl<'a> Part<'a> {
    /// `None` for a part without bytes.
    pub(super) fn of(chunk: &'a ChunkRef, offset: u32, len: u32) -> Option<Self> {
        let end = offset.saturating_add(len).min(chunk.len);
        let frame_len = small(FRAME_LEN);
        (offset < end).then(|| Self { chunk, offset, end, first: offset / frame_len, last: (end - 1) / frame_len })
    }

    /// The part without the frames before `first`.
    pub(super) fn starting_at(self, first: u32) -> Self {
        Self { first, ..self }
    }

    /// Appends what of frame `number` lies in this part.
    pub(super) fn copy(&self, number: u32, frame: &[u8], out: &mut Vec<u8>) {
        let start = number * small(FRAME_LEN);
        let from = (self.offset.saturating_sub(start) as usize).min(frame.len());
        let to = ((self.end - start) as usize).min(frame.len());
        out.extend_from_slice(&frame[from..to]);
    }

    /// Whether someone who reads in order is done with the frame.
    pub(super) fn spends(&self, number: u32) -> bool {
        let frame_end = (number + 1).saturating_mul(small(FRAME_LEN)).min(self.chunk.len);
        self.chunk.frame_count() > 1 && self.end >= frame_end && self.end - self.offset >= STREAM_LEN_MIN
    }
}
