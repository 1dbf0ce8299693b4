//! Page trees: sorted maps from byte keys to byte values, kept as content-addressed pages.
//!
//! A tree up to [`PAGE_LEN_SINGLE`] bytes is one page. A larger one is split before every key whose
//! hash says so, on each level by other bits of the hash (a "prolly tree"; the idea is from the Noms
//! database). So the pages depend on the content alone, equal parts of two trees are equal pages,
//! and an edit changes one page per level.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::walk::PageItems;
use super::{Result, VersionError};
use crate::base::limits::{PAGE_LEN_MAX, PAGE_LEN_SINGLE};
use crate::blob::ChunkRef;

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

/// Takes a key that differs, with its values on both sides.
pub type DiffVisitor<'a> = dyn FnMut(&[u8], Option<&[u8]>, Option<&[u8]>) -> Result<()> + 'a;

/// Keys and new values; `None` removes the key.
pub type Edits = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A tree: its root page and the number of its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TreeRef {
    root: Option<ChunkRef>,
    count: u64,
}

/// No page tree is deeper; 64 keys to a page, this is far beyond any store.
const LEVEL_MAX: u8 = 7;
/// A page is split when it would pass this length, even where no key says so.
const PAGE_LEN_SPLIT: usize = PAGE_LEN_MAX / 2;
/// How many pages are fetched together.
const LOAD_BATCH: usize = 64;

type Item<'a> = (&'a [u8], &'a [u8]);

#[derive(Serialize, Deserialize)]
struct Page<'a> {
    level: u8,
    #[serde(borrow)]
    items: Vec<Item<'a>>,
}

/// What an inner page says of the page below it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Node {
    page: ChunkRef,
    /// Keys below.
    count: u64,
    /// Sum of the lengths of keys and values of all leaves below.
    len: u64,
}

#[derive(Clone, Debug)]
struct Leaf {
    first: Vec<u8>,
    node: Node,
}

/// A leaf of the tree that is being made.
enum NewLeaf {
    Kept(Leaf),
    Fresh(Vec<(Vec<u8>, Vec<u8>)>),
}

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

    /// Visits keys in order, from `from` on, until the visitor returns false.
    pub fn scan(&self, io: &dyn PageIo, from: Bound<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let leaves = self.leaves(io)?;
        let start = match from {
            Bound::Included(key) | Bound::Excluded(key) => {
                leaves.partition_point(|leaf| leaf.first.as_slice() <= key).saturating_sub(1)
            }
            Bound::Unbounded => 0,
        };
        for batch in leaves[start.min(leaves.len())..].chunks(LOAD_BATCH) {
            let pages: Vec<ChunkRef> = batch.iter().map(|leaf| leaf.node.page).collect();
            for (at, bytes) in pages.iter().zip(io.load_many(&pages)?) {
                for (key, value) in parse(at, &bytes)?.items {
                    let before = match from {
                        Bound::Included(from) => key < from,
                        Bound::Excluded(from) => key <= from,
                        Bound::Unbounded => false,
                    };
                    if !before && !visit(key, value) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The tree after `edits`.
    pub fn edit(&self, io: &dyn PageIo, edits: &Edits) -> Result<TreeRef> {
        if edits.is_empty() {
            return Ok(*self);
        }
        let leaves = self.leaves(io)?;
        let new = if leaves.len() <= 1 { rewrite(io, &leaves, edits, None)? } else { edit_leaves(io, &leaves, edits)? };
        build(io, new)
    }

    /// Visits every key whose value differs: `(key, value here, value in other)`.
    pub fn diff(&self, other: &TreeRef, io: &dyn PageIo, visit: &mut DiffVisitor<'_>) -> Result<()> {
        if self.root == other.root {
            return Ok(());
        }
        let (ours, theirs) = (self.leaves(io)?, other.leaves(io)?);
        let in_ours: HashSet<ChunkRef> = ours.iter().map(|leaf| leaf.node.page).collect();
        let in_theirs: HashSet<ChunkRef> = theirs.iter().map(|leaf| leaf.node.page).collect();
        let mut left = Items::new(io, ours.into_iter().filter(|leaf| !in_theirs.contains(&leaf.node.page)).collect());
        let mut right = Items::new(io, theirs.into_iter().filter(|leaf| !in_ours.contains(&leaf.node.page)).collect());
        let (mut a, mut b) = (left.next()?, right.next()?);
        loop {
            let order = match (&a, &b) {
                (None, None) => return Ok(()),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            if let (std::cmp::Ordering::Equal, Some((key, ours)), Some((_, theirs))) = (order, &a, &b)
                && ours != theirs
            {
                visit(key, Some(ours), Some(theirs))?;
            }
            if let (std::cmp::Ordering::Less, Some((key, value))) = (order, &a) {
                visit(key, Some(value), None)?;
            }
            if let (std::cmp::Ordering::Greater, Some((key, value))) = (order, &b) {
                visit(key, None, Some(value))?;
            }
            if order.is_le() {
                a = left.next()?;
            }
            if order.is_ge() {
                b = right.next()?;
            }
        }
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

    fn leaves(&self, io: &dyn PageIo) -> Result<Vec<Leaf>> {
        let Some(root) = self.root else { return Ok(Vec::new()) };
        let bytes = io.load(&root)?;
        let page = parse(&root, &bytes)?;
        if page.level == 0 {
            let first = page.items.first().map(|(key, _)| key.to_vec()).unwrap_or_default();
            let len = page.items.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
            return Ok(vec![Leaf { first, node: Node { page: root, count: page.items.len() as u64, len } }]);
        }
        let mut level = inner_items(&root, &page)?;
        for expected in (1..page.level).rev() {
            let mut below = Vec::new();
            for batch in level.chunks(LOAD_BATCH) {
                let pages: Vec<ChunkRef> = batch.iter().map(|leaf| leaf.node.page).collect();
                for (at, bytes) in pages.iter().zip(io.load_many(&pages)?) {
                    let page = parse(at, &bytes)?;
                    if page.level != expected {
                        return Err(VersionError::damaged(format!("page {}", at.id), "it is on the wrong level"));
                    }
                    below.append(&mut inner_items(at, &page)?);
                }
            }
            level = below;
        }
        Ok(level)
    }
}

fn inner_items(at: &ChunkRef, page: &Page<'_>) -> Result<Vec<Leaf>> {
    page.items.iter().map(|(key, value)| Ok(Leaf { first: key.to_vec(), node: parse_node(at, value)? })).collect()
}

fn parse<'a>(at: &ChunkRef, bytes: &'a [u8]) -> Result<Page<'a>> {
    let page: Page<'a> =
        postcard::from_bytes(bytes).map_err(|error| VersionError::damaged(format!("page {}", at.id), error))?;
    if page.level > LEVEL_MAX {
        return Err(too_deep(at));
    }
    if !page.items.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(VersionError::damaged(format!("page {}", at.id), "its keys are out of order"));
    }
    Ok(page)
}

/// What a page holds, for walking.
pub(super) fn page_items<'a>(at: &ChunkRef, bytes: &'a [u8]) -> Result<PageItems<'a>> {
    let page = parse(at, bytes)?;
    match page.level {
        0 => Ok(PageItems::Leaf(page.items)),
        _ => Ok(PageItems::Inner(
            page.items.iter().map(|(_, value)| Ok(parse_node(at, value)?.page)).collect::<Result<_>>()?,
        )),
    }
}

fn parse_node(at: &ChunkRef, value: &[u8]) -> Result<Node> {
    postcard::from_bytes(value).map_err(|error| VersionError::damaged(format!("page {}", at.id), error))
}

fn too_deep(at: &ChunkRef) -> VersionError {
    VersionError::damaged(format!("page {}", at.id), "the tree has too many levels")
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

fn starts_page(key: &[u8], level: u8) -> bool {
    (hash(key) >> (6 * u32::from(level))) & 0x3f == 0
}

/// Rewrites the touched runs of leaves. A run begins at a leaf whose first key starts a page;
/// leaves after it that exist only because the run was too long belong to it.
fn edit_leaves(io: &dyn PageIo, leaves: &[Leaf], edits: &Edits) -> Result<Vec<NewLeaf>> {
    let starts: Vec<usize> =
        (0..leaves.len()).filter(|index| *index == 0 || starts_page(&leaves[*index].first, 0)).collect();
    let mut touched = vec![false; starts.len()];
    for (key, value) in edits {
        let run = starts.partition_point(|start| leaves[*start].first <= *key).saturating_sub(1);
        touched[run] = true;
        if value.is_none() && run > 0 && leaves[starts[run]].first == *key {
            touched[run - 1] = true;
        }
    }
    let mut new = Vec::new();
    let mut run = 0;
    while run < starts.len() {
        let first = run;
        while run < starts.len() && touched[run] {
            run += 1;
        }
        let leaf_at = |run: usize| starts.get(run).copied().unwrap_or(leaves.len());
        if run > first {
            let end = leaves.get(leaf_at(run)).map(|leaf| leaf.first.as_slice());
            let start = (first > 0).then(|| leaves[leaf_at(first)].first.as_slice());
            let range = edits.range::<[u8], _>((
                start.map_or(Bound::Unbounded, Bound::Included),
                end.map_or(Bound::Unbounded, Bound::Excluded),
            ));
            let part: Edits = range.map(|(key, value)| (key.clone(), value.clone())).collect();
            new.append(&mut rewrite(io, &leaves[leaf_at(first)..leaf_at(run)], &part, end)?);
        } else {
            new.extend(leaves[leaf_at(run)..leaf_at(run + 1)].iter().cloned().map(NewLeaf::Kept));
            run += 1;
        }
    }
    Ok(new)
}

/// Loads `leaves`, applies `edits` and splits the result anew.
fn rewrite(io: &dyn PageIo, leaves: &[Leaf], edits: &Edits, end: Option<&[u8]>) -> Result<Vec<NewLeaf>> {
    debug_assert!(end.is_none_or(|end| edits.keys().all(|key| key.as_slice() < end)));
    let mut old = Items::new(io, leaves.to_vec());
    let mut items = Vec::new();
    let mut edits = edits.iter().peekable();
    while let Some((key, value)) = old.next()? {
        while let Some((new_key, new_value)) = edits.next_if(|(edit, _)| **edit < key) {
            items.extend(new_value.as_ref().map(|value| (new_key.clone(), value.clone())));
        }
        match edits.next_if(|(edit, _)| **edit == key) {
            Some((_, new_value)) => items.extend(new_value.as_ref().map(|value| (key, value.clone()))),
            None => items.push((key, value)),
        }
    }
    items.extend(edits.filter_map(|(key, value)| value.as_ref().map(|value| (key.clone(), value.clone()))));
    Ok(split(items, 0).into_iter().map(NewLeaf::Fresh).collect())
}

fn split(items: Vec<(Vec<u8>, Vec<u8>)>, level: u8) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut pages: Vec<Vec<(Vec<u8>, Vec<u8>)>> = Vec::new();
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

fn build(io: &dyn PageIo, leaves: Vec<NewLeaf>) -> Result<TreeRef> {
    let len: u64 = leaves.iter().map(NewLeaf::len).sum();
    if leaves.is_empty() {
        return Ok(TreeRef::default());
    }
    let leaves = if len <= PAGE_LEN_SINGLE as u64 { vec![join(io, leaves)?] } else { leaves };
    let mut nodes = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        nodes.push(match leaf {
            NewLeaf::Kept(leaf) => leaf,
            NewLeaf::Fresh(items) => save_page(io, 0, &items, items.len() as u64, items_len(&items))?,
        });
    }
    for level in 1..=LEVEL_MAX {
        if let [root] = nodes.as_slice() {
            return Ok(TreeRef { root: Some(root.node.page), count: root.node.count });
        }
        nodes = build_level(io, level, &nodes)?;
    }
    Err(VersionError::damaged("a page tree", "it would have too many levels"))
}

fn build_level(io: &dyn PageIo, level: u8, nodes: &[Leaf]) -> Result<Vec<Leaf>> {
    let mut items = Vec::with_capacity(nodes.len());
    for leaf in nodes {
        let value = postcard::to_stdvec(&leaf.node).map_err(|error| VersionError::damaged("a page", error))?;
        items.push((leaf.first.clone(), value));
    }
    let pages = if items_len(&items) <= PAGE_LEN_SINGLE as u64 || level == LEVEL_MAX {
        vec![items]
    } else {
        split(items, level)
    };
    let mut above = Vec::with_capacity(pages.len());
    let mut below = nodes.iter();
    for page in pages {
        let (mut count, mut len) = (0, 0);
        for leaf in below.by_ref().take(page.len()) {
            count += leaf.node.count;
            len += leaf.node.len;
        }
        above.push(save_page(io, level, &page, count, len)?);
    }
    Ok(above)
}

fn save_page(io: &dyn PageIo, level: u8, items: &[(Vec<u8>, Vec<u8>)], count: u64, len: u64) -> Result<Leaf> {
    let first = items.first().map(|(key, _)| key.clone()).unwrap_or_default();
    let page = Page { level, items: items.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect() };
    let bytes = postcard::to_stdvec(&page).map_err(|error| VersionError::damaged("a page", error))?;
    Ok(Leaf { first, node: Node { page: io.save(&bytes)?, count, len } })
}

fn join(io: &dyn PageIo, leaves: Vec<NewLeaf>) -> Result<NewLeaf> {
    let mut all = Vec::new();
    for leaf in leaves {
        match leaf {
            NewLeaf::Fresh(mut items) => all.append(&mut items),
            NewLeaf::Kept(leaf) => {
                let mut items = Items::new(io, vec![leaf]);
                while let Some(item) = items.next()? {
                    all.push(item);
                }
            }
        }
    }
    Ok(NewLeaf::Fresh(all))
}

fn items_len(items: &[(Vec<u8>, Vec<u8>)]) -> u64 {
    items.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
}

impl NewLeaf {
    fn len(&self) -> u64 {
        match self {
            NewLeaf::Kept(leaf) => leaf.node.len,
            NewLeaf::Fresh(items) => items_len(items),
        }
    }
}

/// The items of a list of leaves, loaded batch by batch.
struct Items<'a> {
    io: &'a dyn PageIo,
    leaves: std::vec::IntoIter<Leaf>,
    loaded: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Items<'a> {
    fn new(io: &'a dyn PageIo, leaves: Vec<Leaf>) -> Self {
        Self { io, leaves: leaves.into_iter(), loaded: Vec::new().into_iter() }
    }

    fn next(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        loop {
            if let Some(item) = self.loaded.next() {
                return Ok(Some(item));
            }
            let pages: Vec<ChunkRef> = self.leaves.by_ref().take(LOAD_BATCH).map(|leaf| leaf.node.page).collect();
            if pages.is_empty() {
                return Ok(None);
            }
            let mut items = Vec::new();
            for (at, bytes) in pages.iter().zip(self.io.load_many(&pages)?) {
                let page = parse(at, &bytes)?;
                if page.level != 0 {
                    return Err(VersionError::damaged(format!("page {}", at.id), "it is on the wrong level"));
                }
                items.extend(page.items.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
            }
            self.loaded = items.into_iter();
        }
    }
}
