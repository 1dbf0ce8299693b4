//! What is kept in memory: opened frames, and a least-recently-used map bounded by bytes.

use std::collections::VecDeque;
use std::hash::Hash;
use std::ops::{Deref, Range};
use std::sync::Arc;

use lru::LruCache;

use crate::base::ids::BlobId;
use crate::base::limits::FRAME_LEN;

/// Something of a known size that is shared.
pub(super) trait Block: Clone {
    /// Bytes of memory.
    fn cost(&self) -> usize;
}

impl Block for Arc<[u8]> {
    fn cost(&self) -> usize {
        self.len()
    }
}

/// The plaintext of one frame.
#[derive(Clone)]
pub(super) enum Frame {
    /// All of a blob.
    Whole(Arc<[u8]>),
    /// A part of one, in the buffer that it was opened into.
    Part(Arc<Opened>),
}

/// Where in a buffer a plaintext lies.
pub(super) struct Opened {
    /// The buffer.
    pub(super) buffer: Vec<u8>,
    /// Lies within it.
    pub(super) inside: Range<usize>,
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Frame::Whole(bytes) => bytes,
            Frame::Part(opened) => &opened.buffer[opened.inside.clone()],
        }
    }
}

impl Block for Frame {
    fn cost(&self) -> usize {
        match self {
            Frame::Whole(bytes) => bytes.len(),
            Frame::Part(opened) => opened.buffer.capacity(),
        }
    }
}

type FrameKey = (BlobId, u32);

/// Opened frames by blob and number, and the buffers of those that are gone, which are used again while the
/// processor still has them near.
pub(super) struct Frames {
    kept: ByteLru<FrameKey, Frame>,
    /// Read to their end by someone who reads in order, oldest first. Nobody is likely to want them again: the
    /// kernel has them now.
    spent: VecDeque<FrameKey>,
    buffers: Vec<Vec<u8>>,
}

/// Requests that are answered side by side may come out of order by a few frames.
const SPENT_MAX: usize = 4;
const BUFFERS_MAX: usize = 4;
/// A frame with its header. Padding may make the last frame of a blob longer; that buffer is not used again.
const BUFFER_LEN_MAX: usize = FRAME_LEN + 4096;

impl Frames {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { kept: ByteLru::new(bytes_max), spent: VecDeque::new(), buffers: Vec::new() }
    }

    /// Keeps at most so many bytes from now on.
    pub(super) fn limit(&mut self, bytes_max: usize) {
        self.kept.bytes_max = bytes_max;
        self.kept.shrink(drop);
    }

    pub(super) fn get(&mut self, key: &FrameKey) -> Option<Frame> {
        self.kept.get(key)
    }

    pub(super) fn contains(&self, key: &FrameKey) -> bool {
        self.kept.contains(key)
    }

    pub(super) fn put(&mut self, key: FrameKey, frame: Frame) {
        let Self { kept, buffers, .. } = self;
        kept.put_with(key, frame, |gone| reuse(buffers, gone));
    }

    /// Notes that a reader in order is done with a frame.
    pub(super) fn spend(&mut self, key: FrameKey) {
        self.spent.push_back(key);
        if self.spent.len() > SPENT_MAX
            && let Some(gone) = self.spent.pop_front().and_then(|key| self.kept.take(&key))
        {
            reuse(&mut self.buffers, gone);
        }
    }

    /// A buffer with anything in it.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }
}

/// Keeps the buffer of a frame that is gone, when nobody else has it.
fn reuse(buffers: &mut Vec<Vec<u8>>, gone: Frame) {
    if let Frame::Part(opened) = gone
        && let Some(Opened { buffer, .. }) = Arc::into_inner(opened)
        && buffer.capacity() <= BUFFER_LEN_MAX
        && buffers.len() < BUFFERS_MAX
    {
        buffers.push(buffer);
    }
}

/// A map of blocks, bounded by the sum of their bytes.
pub(super) struct ByteLru<K: Hash + Eq, B> {
    blocks: LruCache<K, B>,
    bytes: usize,
    bytes_max: usize,
}

/// What an entry costs beside its bytes (key, links, counters), roughly.
const ENTRY_COST: usize = 160;

impl<K: Hash + Eq, B: Block> ByteLru<K, B> {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { blocks: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<B> {
        self.blocks.get(key).cloned()
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.blocks.contains(key)
    }

    /// Takes a block out.
    pub(super) fn take(&mut self, key: &K) -> Option<B> {
        let block = self.blocks.pop(key)?;
        self.bytes -= block.cost() + ENTRY_COST;
        Some(block)
    }

    pub(super) fn put(&mut self, key: K, block: B) {
        self.put_with(key, block, drop);
    }

    /// As [`put`](Self::put); hands `gone` what has to leave.
    pub(super) fn put_with(&mut self, key: K, block: B, mut gone: impl FnMut(B)) {
        let cost = block.cost() + ENTRY_COST;
        if cost > self.bytes_max {
            return;
        }
        self.bytes += cost;
        if let Some(replaced) = self.blocks.put(key, block) {
            self.bytes -= replaced.cost() + ENTRY_COST;
            gone(replaced);
        }
        self.shrink(gone);
    }

    fn shrink(&mut self, mut gone: impl FnMut(B)) {
        while self.bytes > self.bytes_max {
            let Some((_, least_used)) = self.blocks.pop_lru() else { break };
            self.bytes -= least_used.cost() + ENTRY_COST;
            gone(least_used);
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        let bytes = &mut self.bytes;
        self.blocks.retain(|key, block| {
            let kept = keep(key);
            if !kept {
                *bytes -= block.cost() + ENTRY_COST;
            }
            kept
        });
    }
}
