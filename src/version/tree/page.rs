//! Pages: their form, and where one ends and the next begins.

use serde::{Deserialize, Serialize};

use super::{PageIo, TreeRef};
use crate::base::limits::{PAGE_LEN_MAX, PAGE_LEN_SINGLE};
use crate::blob::ChunkRef;
use crate::version::walk::PageItems;
use crate::version::{Result, VersionError};

/// No page tree is deeper; 64 keys to a page, this is far beyond any store.
pub(super) const LEVEL_MAX: u8 = 7;
/// A page is split when it would pass this length, even where no key says so.
const PAGE_LEN_SPLIT: usize = PAGE_LEN_MAX / 2;
/// How many pages are fetched together.
pub(super) const LOAD_BATCH: usize = 64;

/// A key and its value; on levels above 0 the first key of the page below, and what to know of that page.
pub(super) type Item = (Vec<u8>, Vec<u8>);

#[derive(Serialize, Deserialize)]
pub(super) struct Page<'a> {
    pub(super) level: u8,
    #[serde(borrow)]
    pub(super) items: Vec<(&'a [u8], &'a [u8])>,
}

/// What an inner page says of the page below it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) page: ChunkRef,
    /// Keys below.
    pub(super) count: u64,
    /// Sum of the lengths of keys and values of all leaves below.
    pub(super) len: u64,
}

pub(super) fn parse<'a>(at: &ChunkRef, bytes: &'a [u8]) -> Result<Page<'a>> {
    let page: Page<'a> =
        postcard::from_bytes(bytes).map_err(|error| VersionError::damaged(format!("page {}", at.id), error))?;
    if page.level > LEVEL_MAX {
        return Err(too_deep(at));
    }
    if !page.items.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(VersionError::damaged(format!("page {}", at.id), "its keys are out of order"));
    }
    if page.level > 0 && page.items.is_empty() {
        return Err(VersionError::damaged(format!("page {}", at.id), "it leads nowhere"));
    }
    Ok(page)
}

pub(super) fn parse_node(at: &ChunkRef, value: &[u8]) -> Result<Node> {
    postcard::from_bytes(value).map_err(|error| VersionError::damaged(format!("page {}", at.id), error))
}

/// What a page holds, for walking.
pub(in crate::version) fn page_items<'a>(at: &ChunkRef, bytes: &'a [u8]) -> Result<PageItems<'a>> {
    let page = parse(at, bytes)?;
    match page.level {
        0 => Ok(PageItems::Leaf(page.items)),
        _ => Ok(PageItems::Inner(
            page.items.iter().map(|(_, value)| Ok(parse_node(at, value)?.page)).collect::<Result<_>>()?,
        )),
    }
}

pub(super) fn too_deep(at: &ChunkRef) -> VersionError {
    VersionError::damaged(format!("page {}", at.id), "the tree has too many levels")
}

pub(super) fn wrong_level(at: &ChunkRef) -> VersionError {
    VersionError::damaged(format!("page {}", at.id), "it is on the wrong level")
}

/// FNV-1a over the key, then the 64-bit finalizer of MurmurHash3, so that every bit is usable.
fn hash(key: &[u8]) -> u64 {
    let mut hash = key
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

/// Whether a key starts a page of this level, wherever it stands.
pub(super) fn starts_page(key: &[u8], level: u8) -> bool {
    (hash(key) >> (6 * u32::from(level))) & 0x3f == 0
}

/// Sum of the lengths of keys and values.
pub(super) fn items_len(items: &[Item]) -> u64 {
    items.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
}

/// Cuts a run of items into pages.
pub(super) fn split(items: Vec<Item>, level: u8) -> Vec<Vec<Item>> {
    let mut pages: Vec<Vec<Item>> = Vec::new();
    let mut len = 0;
    for (key, value) in items {
        let item_len = key.len() + value.len();
        match pages.last_mut() {
            Some(page) if len + item_len <= PAGE_LEN_SPLIT && !starts_page(&key, level) => {
                len += item_len;
                page.push((key, value));
            }
            _ => {
                len = item_len;
                pages.push(vec![(key, value)]);
            }
        }
    }
    pages
}

/// Saves a page; returns the item that stands for it on the level above.
pub(super) fn save(io: &dyn PageIo, level: u8, items: &[Item]) -> Result<Item> {
    let damaged = |error| VersionError::damaged("a page", error);
    let first = items.first().map(|(key, _)| key.clone()).unwrap_or_default();
    let page = Page { level, items: items.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect() };
    let page = io.save(&postcard::to_stdvec(&page).map_err(damaged)?)?;
    let mut node = Node { page, count: items.len() as u64, len: items_len(items) };
    if level > 0 {
        (node.count, node.len) = (0, 0);
        for (_, value) in items {
            let below = parse_node(&page, value)?;
            node.count = node.count.saturating_add(below.count);
            node.len = node.len.saturating_add(below.len);
        }
    }
    Ok((first, postcard::to_stdvec(&node).map_err(damaged)?))
}

/// Makes a tree of all items of its level `level`.
pub(super) fn build(io: &dyn PageIo, mut level: u8, mut items: Vec<Item>) -> Result<TreeRef> {
    if items.is_empty() {
        return Ok(TreeRef::default());
    }
    loop {
        if let (1.., [(_, only)]) = (level, items.as_slice()) {
            let root: Node = postcard::from_bytes(only).map_err(|error| VersionError::damaged("a page", error))?;
            return Ok(TreeRef { root: Some(root.page), count: root.count });
        }
        if level > LEVEL_MAX {
            return Err(VersionError::damaged("a page tree", "it would have too many levels"));
        }
        let is_single = items_len(&items) <= PAGE_LEN_SINGLE as u64 || level == LEVEL_MAX;
        let pages = if is_single { vec![items] } else { split(items, level) };
        items = pages.iter().map(|page| save(io, level, page)).collect::<Result<_>>()?;
        level += 1;
    }
}
