//! Reading a file: layers over chunks.

use std::ops::Range;
use std::sync::Arc;

use super::extents::PieceData;
use super::inode::{File, Layer};
use super::{Result, WorkError};
use crate::blob::{BlobKind, Blobs};
use crate::version::entry::{Content, FileBody};
use crate::version::tree::PageIo;

/// What a file was made of at one moment; reading it needs no lock.
pub(super) struct View {
    base: FileBody,
    layers: Vec<Arc<Layer>>,
    size: u64,
}

impl View {
    /// The published body and the frozen layers.
    pub(super) fn frozen(file: &File) -> Self {
        let base = file.published.as_ref().map(|published| published.body.clone()).unwrap_or_default();
        Self::new(base, file.frozen.clone())
    }

    /// All that the mount shows of a file in `from..to`.
    pub(super) fn live(file: &File, from: u64, to: u64) -> Self {
        let mut view = Self::frozen(file);
        if let Some(draft) = &file.draft {
            view.push(Arc::new(draft.part(from, to)));
        }
        view
    }

    /// A body with these layers on top, oldest first.
    pub(super) fn new(base: FileBody, layers: Vec<Arc<Layer>>) -> Self {
        let mut view = Self { size: base.size, base, layers: Vec::new() };
        layers.into_iter().for_each(|layer| view.push(layer));
        view
    }

    /// A layer that was staged has all older content in its own base.
    fn push(&mut self, layer: Arc<Layer>) {
        self.size = layer.size;
        if let Some(base) = &layer.base {
            self.base = (**base).clone();
            self.layers.clear();
        }
        self.layers.push(layer);
    }

    pub(super) fn base(&self) -> &FileBody {
        &self.base
    }

    pub(super) fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The offset below which the base shows, where no layer covers it.
    pub(super) fn base_clip(&self) -> u64 {
        self.layers.iter().map(|layer| layer.clip).min().unwrap_or(u64::MAX).min(self.base.size)
    }

    /// Fills `out` with the bytes from `offset` on; what lies beyond the end is zeros.
    pub(super) fn read(&self, blobs: &Blobs, io: &dyn PageIo, offset: u64, out: &mut [u8]) -> Result<()> {
        let end = offset + out.len() as u64;
        if self.layers.iter().any(|layer| layer.extents.covers(offset, end)) {
            out.fill(0);
        } else {
            read_body(&self.base, blobs, io, offset, self.base_clip(), out)?;
        }
        for layer in &self.layers {
            zero_from(out, offset, layer.clip);
            layer.extents.overlay(offset, out);
        }
        Ok(())
    }

    /// The ranges that hold data; between them are holes.
    pub(super) fn data_ranges(&self, io: &dyn PageIo) -> Result<Vec<Range<u64>>> {
        let clip = self.base_clip();
        let mut data: Vec<Range<u64>> = match &self.base.content {
            Content::Inline(bytes) => std::iter::once(0..(bytes.len() as u64).min(clip)).collect(),
            content => content
                .chunks(io, 0, clip)?
                .iter()
                .map(|(at, chunk)| *at..(at + u64::from(chunk.len)).min(clip))
                .collect(),
        };
        for layer in &self.layers {
            subtract(&mut data, layer.clip..u64::MAX);
            for (start, piece) in layer.extents.iter() {
                let range = start..start + piece.data.len();
                match piece.data {
                    PieceData::Bytes(_) => data.push(range),
                    PieceData::Zeros(_) => subtract(&mut data, range),
                }
            }
        }
        Ok(merge(data))
    }

    /// Whether the bytes are in memory, so that reading them does not wait.
    pub(super) fn in_memory(&self, offset: u64, end: u64) -> bool {
        let inline = matches!(self.base.content, Content::Empty | Content::Inline(_));
        inline || offset >= self.base_clip() || self.layers.iter().any(|layer| layer.extents.covers(offset, end))
    }
}

fn subtract(ranges: &mut Vec<Range<u64>>, hole: Range<u64>) {
    let cut = |range: &Range<u64>| [range.start..range.end.min(hole.start), range.start.max(hole.end)..range.end];
    *ranges = ranges.iter().flat_map(cut).filter(|range| !range.is_empty()).collect();
}

/// Sorts ranges and joins those that touch.
pub(super) fn merge(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn zero_from(out: &mut [u8], offset: u64, clip: u64) {
    if clip < offset + out.len() as u64 {
        let from = usize::try_from(clip.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        out[from..].fill(0);
    }
}

/// Fills `out` with a body's bytes from `offset` on, as far as they lie below `clip`; zeros elsewhere.
pub fn read_body(
    body: &FileBody,
    blobs: &Blobs,
    io: &dyn PageIo,
    offset: u64,
    clip: u64,
    out: &mut [u8],
) -> Result<()> {
    out.fill(0);
    let end = (offset + out.len() as u64).min(clip);
    if offset >= end {
        return Ok(());
    }
    if let Content::Inline(bytes) = &body.content {
        copy(bytes, 0, offset, end, out);
        return Ok(());
    }
    for (start, chunk) in body.content.chunks(io, offset, end)? {
        let from = offset.max(start);
        let to = end.min(start + u64::from(chunk.len));
        let mut bytes = Vec::new();
        let inside = |at: u64| u32::try_from(at - start).map_err(|_| WorkError::Invalid);
        blobs.read_range(BlobKind::Content, &chunk, inside(from)?, inside(to)? - inside(from)?, &mut bytes)?;
        copy(&bytes, from, offset, to, out);
    }
    Ok(())
}

/// Copies what of `bytes` (which begin at file offset `start`) lies in `offset..end`.
fn copy(bytes: &[u8], start: u64, offset: u64, end: u64, out: &mut [u8]) {
    let (from, to) = (start.max(offset), (start + bytes.len() as u64).min(end));
    if from < to {
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        out[index(from - offset)..index(to - offset)].copy_from_slice(&bytes[index(from - start)..index(to - start)]);
    }
}
