//! Which bytes to ask the store for: windows round a miss, neighbours in one request.

use crate::store::ObjectKey;

/// Objects are cached in windows of this many bytes.
pub(super) const WINDOW_BYTES: usize = 64 * 1024;
/// The same, to reckon with offsets.
pub(super) const WINDOW_LEN: u64 = WINDOW_BYTES as u64;
/// Neighbours with at most this many bytes between them are fetched together.
const GAP_LEN_MAX: u64 = 128 * 1024;
/// The longest range that is put together from neighbours.
const RANGE_LEN_MAX: u64 = 8 * 1024 * 1024;
const REACH_LEN_MIN: u64 = 256 * 1024;
const REACH_LEN_MAX: u64 = 4 * 1024 * 1024;

/// A part of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The object.
    pub key: ObjectKey,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl Span {
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }

    /// The whole windows that hold it.
    pub(super) fn aligned(&self) -> Span {
        let offset = self.offset / WINDOW_LEN * WINDOW_LEN;
        let end = self.end().div_ceil(WINDOW_LEN).saturating_mul(WINDOW_LEN);
        Span { key: self.key.clone(), offset, len: end - offset }
    }

    pub(super) fn overlaps(&self, other: &Span) -> bool {
        self.key == other.key && self.offset < other.end() && other.offset < self.end()
    }
}

/// How far to read round misses in one object: more with every miss near the one before.
#[derive(Clone, Copy, Default)]
pub(super) struct Reach {
    len: u64,
    last_miss: u64,
}

impl Reach {
    /// The length of the window for a miss at `offset`.
    pub(super) fn grow(&mut self, offset: u64) -> u64 {
        let is_near = offset.abs_diff(self.last_miss) <= 2 * REACH_LEN_MAX;
        self.len = match self.len {
            0 => REACH_LEN_MIN,
            len if is_near => (len * 2).min(REACH_LEN_MAX),
            len => (len / 2).max(REACH_LEN_MIN),
        };
        self.last_miss = offset;
        self.len
    }
}

/// The range to fetch for `need`: an aligned block of `reach_len` bytes round it, cut back on both
/// sides to where windows are wanted (not present, not on their way).
pub(super) fn extend(need: &Span, reach_len: u64, mut is_wanted: impl FnMut(u64) -> bool) -> Span {
    let aligned = need.aligned();
    let (mut start, mut end) = (aligned.offset, aligned.end());
    let block_start = need.offset / reach_len * reach_len;
    while start > block_start && is_wanted(start - WINDOW_LEN) {
        start -= WINDOW_LEN;
    }
    while end < block_start + reach_len && is_wanted(end) {
        end += WINDOW_LEN;
    }
    Span { key: aligned.key, offset: start, len: end - start }
}

/// Spans that are fetched together: their common range, and which of the given ones it serves.
pub(super) struct Group {
    pub(super) span: Span,
    pub(super) members: Vec<usize>,
}

/// Puts neighbours together. `spans` come with the caller's numbers, in any order.
pub(super) fn coalesce(mut spans: Vec<(usize, Span)>) -> Vec<Group> {
    spans.sort_by(|(_, a), (_, b)| (&a.key, a.offset).cmp(&(&b.key, b.offset)));
    let mut groups: Vec<Group> = Vec::new();
    for (number, span) in spans {
        if let Some(group) = groups.last_mut().filter(|group| group.span.key == span.key) {
            let end = group.span.end().max(span.end());
            let len = end - group.span.offset;
            let is_near = span.offset <= group.span.end().saturating_add(GAP_LEN_MAX);
            if is_near && (len <= RANGE_LEN_MAX || end == group.span.end()) {
                group.span.len = len;
                group.members.push(number);
                continue;
            }
        }
        groups.push(Group { span, members: vec![number] });
    }
    groups
}
