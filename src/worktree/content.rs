//! Reading a file: layers over chunks.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::absorb::Front;
use super::extents::PieceData;
use super::inode::{File, Layer};
use super::{Result, WorkError};
use crate::blob::{BlobKind, Blobs, ChunkRef};
use crate::version::entry::{Content, FileBody};
use crate::version::tree::{PageIo, TreeRef};

/// What a file was made of at one moment; reading it needs no lock.
pub(super) struct View {
    base: FileBody,
    /// What is known of the base's digest.
    front: Option<Front>,
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
        let mut view = Self { size: base.size, base, front: None, layers: Vec::new() };
        layers.into_iter().for_each(|layer| view.push(layer));
        view
    }

    /// A layer that was staged has all older content in its own base.
    fn push(&mut self, layer: Arc<Layer>) {
        self.size = layer.size;
        if let Some(base) = &layer.base {
            self.base = (**base).clone();
            self.front = layer.front.clone();
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

    /// The digest of the base as far as it was made and no layer changes what it covers; else that of nothing.
    pub(super) fn front(&self) -> Front {
        let changed = self.layers.iter().filter_map(|layer| Some(layer.extents.iter().next()?.0)).min();
        let unchanged = changed.unwrap_or(u64::MAX).min(self.base_clip());
        self.front.clone().filter(|front| front.len <= unchanged).unwrap_or_default()
    }

    /// The offset below which the base shows, where no layer covers it.
    pub(super) fn base_clip(&self) -> u64 {
        self.layers.iter().map(|layer| layer.clip).min().unwrap_or(u64::MAX).min(self.base.size)
    }

    /// Appends `len` bytes from `offset` on to `out`; what lies beyond the end is zeros.
    pub(super) fn read(&self, from: &Reading<'_>, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<()> {
        let end = offset + len as u64;
        let before = out.len();
        // Nothing below a layer that covers everything has to be looked at.
        let covering = self.layers.iter().rposition(|layer| layer.extents.covers(offset, end));
        let above = match covering {
            Some(index) => {
                self.layers[index].extents.append_to(offset, end, out);
                index + 1
            }
            None => {
                from.read_body(&self.base, offset, len, self.base_clip(), out)?;
                0
            }
        };
        for layer in &self.layers[above..] {
            zero_from(&mut out[before..], offset, layer.clip);
            layer.extents.overlay(offset, &mut out[before..]);
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
        let from = index(clip.saturating_sub(offset)).min(out.len());
        out[from..].fill(0);
    }
}

/// Where bodies are read from.
pub struct Reading<'a> {
    blobs: &'a Blobs,
    /// Pages of long chunk lists.
    io: &'a dyn PageIo,
    lists: Option<&'a ChunkLists>,
    memory_only: bool,
}

/// Parts of long chunk lists that were looked at lately, by the root of the list.
#[derive(Default)]
pub(super) struct ChunkLists(Mutex<VecDeque<(TreeRef, Arc<ChunkList>)>>);

/// All chunks that touch a range, with their offsets.
struct ChunkList {
    range: Range<u64>,
    chunks: Vec<(u64, ChunkRef)>,
}

const CHUNK_LISTS_MAX: usize = 8;
/// How much of a file a part of its list is for.
const CHUNK_LIST_BYTES: u64 = 32 * 1024 * 1024;

impl ChunkLists {
    /// The chunks of `content` that touch `from..to`.
    fn chunks(&self, content: &Content, io: &dyn PageIo, from: u64, to: u64) -> Result<Vec<(u64, ChunkRef)>> {
        let Content::Tree(tree) = content else { return Ok(content.chunks(io, from, to)?) };
        let holds = |(root, list): &&(TreeRef, Arc<ChunkList>)| {
            root == tree && list.range.start <= from && to <= list.range.end
        };
        let known = self.0.lock().iter().find(holds).map(|(_, list)| list.clone());
        let list = match known {
            Some(list) => list,
            None => {
                let range = from..to.max(from.saturating_add(CHUNK_LIST_BYTES));
                let Ok(chunks) = content.chunks(io, range.start, range.end) else {
                    // What is wrong may lie behind what is wanted.
                    return Ok(content.chunks(io, from, to)?);
                };
                let list = Arc::new(ChunkList { range, chunks });
                let mut lists = self.0.lock();
                lists.retain(|(root, _)| root != tree);
                lists.push_back((*tree, list.clone()));
                if lists.len() > CHUNK_LISTS_MAX {
                    lists.pop_front();
                }
                list
            }
        };
        let first = list.chunks.partition_point(|(offset, chunk)| offset + u64::from(chunk.len) <= from);
        Ok(list.chunks[first..].iter().take_while(|(offset, _)| *offset < to).copied().collect())
    }
}

impl<'a> Reading<'a> {
    /// Reads content wherever it is.
    pub fn anywhere(blobs: &'a Blobs, io: &'a dyn PageIo) -> Self {
        Self { blobs, io, lists: None, memory_only: false }
    }

    /// Remembers parts of long chunk lists.
    pub(super) fn with(self, lists: &'a ChunkLists) -> Self {
        Self { lists: Some(lists), ..self }
    }

    /// Reads what is in memory; gives up with [`WorkError::WouldBlock`] where a chunk is not.
    pub(super) fn memory(blobs: &'a Blobs, io: &'a dyn PageIo) -> Self {
        Self { blobs, io, lists: None, memory_only: true }
    }

    /// Appends `len` bytes of a body from `offset` on to `out`, as far as they lie below `clip`; zeros elsewhere.
    pub fn read_body(&self, body: &FileBody, offset: u64, len: usize, clip: u64, out: &mut Vec<u8>) -> Result<()> {
        let before = out.len();
        let end = (offset + len as u64).min(clip);
        let read = match &body.content {
            _ if offset >= end => Ok(()),
            Content::Empty => Ok(()),
            Content::Inline(bytes) => {
                let to = index(end).min(bytes.len());
                out.extend_from_slice(&bytes[index(offset).min(to)..to]);
                Ok(())
            }
            content => self.read_chunks(content, offset, end, out),
        };
        // Holes behind the last chunk; or as before.
        out.resize(if read.is_ok() { before + len } else { before }, 0);
        read
    }

    fn read_chunks(&self, content: &Content, offset: u64, end: u64, out: &mut Vec<u8>) -> Result<()> {
        let before = out.len();
        let chunks = match self.lists {
            Some(lists) => lists.chunks(content, self.io, offset, end)?,
            None => content.chunks(self.io, offset, end)?,
        };
        for (start, chunk) in chunks {
            let (from, to) = (offset.max(start), end.min(start + u64::from(chunk.len)));
            // A hole.
            out.resize(before + index(from - offset), 0);
            let inside = |at: u64| u32::try_from(at - start).map_err(|_| WorkError::Invalid);
            let (from, len) = (inside(from)?, inside(to)? - inside(from)?);
            if !self.memory_only {
                self.blobs.read_range(BlobKind::Content, &chunk, from, len, out)?;
            } else if !self.blobs.read_range_remembered(&chunk, from, len, out) {
                return Err(WorkError::WouldBlock);
            }
        }
        Ok(())
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
