//! Page trees: sorted maps from byte keys to byte values, kept as content-addressed pages.
//!
//! A tree up to [`limits::PAGE_LEN_SINGLE`](crate::base::limits::PAGE_LEN_SINGLE) bytes is one page. A
//! larger one is split before every key whose hash says so, on each level by other bits of the hash (a
//! "prolly tree"; the idea is from the Noms
//! database). So the pages depend on the content alone, equal parts of two trees are equal pages,
//! and an edit reads and changes one page per level.

mod diff;
mod edit;
mod page;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::page::{LEVEL_MAX, LOAD_BATCH, parse, parse_node, too_deep};
use super::{Result, VersionError};
use crate::blob::ChunkRef;

pub use self::diff::DiffVisitor;
pub(super) use self::page::page_items;

/// Reading and writing of pages.
pub trait PageIo {
    /// The bytes of a page.
    fn load(&self, page: &ChunkRef) -> Result<Arc<[u8]>>;
    /// The bytes of several pages, fetched together.
    fn load_many(&self, pages: &[ChunkRef]) -> Result<Vec<Arc<[u8]>>> {
        pages.iter().map(|page| self.load(page)).collect()
    }
    /// Stores a page (once, however often it is saved).
    fn save(&self, bytes: &[u8]) -> Result<ChunkRef>;
}

/// Keys and new values; `None` removes the key.
pub type Edits = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A tree: its root page and the number of its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TreeRef {
    root: Option<ChunkRef>,
    count: u64,
}

/// Takes a key and its value; false ends the visit.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> bool + 'a;

impl TreeRef {
    /// The number of keys.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The root page; `None` for an empty tree.
    pub fn root(&self) -> Option<&ChunkRef> {
        self.root.as_ref()
    }

    /// The value of a key.
    pub fn get(&self, io: &dyn PageIo, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(mut at) = self.root else { return Ok(None) };
        for _ in 0..=LEVEL_MAX {
            let bytes = io.load(&at)?;
            let page = parse(&at, &bytes)?;
            let found = page.items.binary_search_by(|(item, _)| (*item).cmp(key));
            if page.level == 0 {
                return Ok(found.ok().map(|index| page.items[index].1.to_vec()));
            }
            let index = match found {
                Ok(index) => index,
                Err(0) => return Ok(None),
                Err(index) => index - 1,
            };
            at = parse_node(&at, page.items[index].1)?.page;
        }
        Err(too_deep(&at))
    }

    /// How many keys come before `key`; of each level one page is read.
    pub fn count_before(&self, io: &dyn PageIo, key: &[u8]) -> Result<u64> {
        let (Some(mut at), mut count) = (self.root, 0_u64) else { return Ok(0) };
        for _ in 0..=LEVEL_MAX {
            let bytes = io.load(&at)?;
            let page = parse(&at, &bytes)?;
            if page.level == 0 {
                return Ok(count + page.items.partition_point(|(item, _)| *item < key) as u64);
            }
            let index = page.items.partition_point(|(item, _)| *item <= key).saturating_sub(1);
            for (_, value) in &page.items[..index] {
                count = count.saturating_add(parse_node(&at, value)?.count);
            }
            at = parse_node(&at, page.items[index].1)?.page;
        }
        Err(too_deep(&at))
    }

    /// Visits keys in order, from `from` on, until the visitor returns false. Without a bound to
    /// begin at, pages are fetched many at a time; else first few, then more and more.
    pub fn scan(&self, io: &dyn PageIo, from: Bound<&[u8]>, visit: &mut Visitor<'_>) -> Result<()> {
        self.scan_to(io, from, None, visit)
    }

    /// As [`scan`](Self::scan), for keys before `to`; no page that holds none of them is read.
    pub fn scan_to(
        &self,
        io: &dyn PageIo,
        from: Bound<&[u8]>,
        to: Option<&[u8]>,
        visit: &mut Visitor<'_>,
    ) -> Result<()> {
        let Some(root) = self.root else { return Ok(()) };
        let bytes = io.load(&root)?;
        let batch = if from == Bound::Unbounded || to.is_some() { LOAD_BATCH } else { 1 };
        Scan { io, from, to, batch, visit }.page(&root, &bytes, None).map(|_| ())
    }

    /// Every page of the tree, the root first.
    pub fn pages(&self, io: &dyn PageIo, visit: &mut dyn FnMut(&ChunkRef)) -> Result<()> {
        let mut level: Vec<ChunkRef> = self.root.into_iter().collect();
        for _ in 0..=LEVEL_MAX {
            let mut below = Vec::new();
            level.iter().for_each(&mut *visit);
            for batch in level.chunks(LOAD_BATCH) {
                for (at, bytes) in batch.iter().zip(io.load_many(batch)?) {
                    let page = parse(at, &bytes)?;
                    if page.level > 0 {
                        for (_, value) in page.items {
                            below.push(parse_node(at, value)?.page);
                        }
                    }
                }
            }
            if below.is_empty() {
                return Ok(());
            }
            level = below;
        }
        Err(VersionError::damaged("a page tree", "it has too many levels"))
    }
}

/// A walk over a part of the keys.
struct Scan<'a> {
    io: &'a dyn PageIo,
    from: Bound<&'a [u8]>,
    to: Option<&'a [u8]>,
    /// How many pages are fetched together next.
    batch: usize,
    visit: &'a mut Visitor<'a>,
}

impl Scan<'_> {
    /// Visits what lies below a page, which must be of the level `expected` when that is known; false
    /// when the walk has ended.
    fn page(&mut self, at: &ChunkRef, bytes: &[u8], expected: Option<u8>) -> Result<bool> {
        let page = parse(at, bytes)?;
        if expected.is_some_and(|expected| expected != page.level) {
            return Err(page::wrong_level(at));
        }
        if page.level == 0 {
            return Ok(page.items.iter().all(|(key, value)| self.item(key, value)));
        }
        let first = match self.from {
            Bound::Included(from) | Bound::Excluded(from) => {
                page.items.partition_point(|(key, _)| *key <= from).saturating_sub(1)
            }
            Bound::Unbounded => 0,
        };
        let end = self.to.map_or(page.items.len(), |to| page.items.partition_point(|(key, _)| *key < to));
        let mut rest = page.items.get(first..end).unwrap_or_default();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.batch.min(rest.len()));
            self.batch = (self.batch * 2).min(LOAD_BATCH);
            let pages = now.iter().map(|(_, value)| Ok(parse_node(at, value)?.page)).collect::<Result<Vec<_>>>()?;
            for (at, bytes) in pages.iter().zip(self.io.load_many(&pages)?) {
                if !self.page(at, &bytes, Some(page.level - 1))? {
                    return Ok(false);
                }
            }
            rest = later;
        }
        Ok(true)
    }

    /// Visits a key if it is one of those wanted; false when the walk has ended.
    fn item(&mut self, key: &[u8], value: &[u8]) -> bool {
        let before = match self.from {
            Bound::Included(from) => key < from,
            Bound::Excluded(from) => key <= from,
            Bound::Unbounded => false,
        };
        before || (self.to.is_none_or(|to| key < to) && (self.visit)(key, value))
    }
}
