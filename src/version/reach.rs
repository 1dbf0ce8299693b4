//! Everything that versions lead to: pages and content, many trees at once and many pages fetched together. What
//! cannot be read ends the walk: here nothing may be passed over.

use super::Result;
use super::entry::{Body, Content, Entry, LinkRecord};
use super::index::IndexRecord;
use super::tree::{PageIo, TreeRef, page_items};
use super::walk::PageItems;
use crate::blob::ChunkRef;

/// Pages fetched together.
const BATCH: usize = 64;

/// What a page tree holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeKind {
    /// The refs.
    Refs,
    /// The names of a directory.
    Names,
    /// A link table.
    Links,
    /// The chunks of a file.
    Chunks,
    /// Digests; what they name is not needed for their sake.
    Digests,
}

/// What is told on the way.
pub trait Reach {
    /// A page; whether to read it and go on below it.
    fn page(&mut self, page: &ChunkRef) -> Result<bool>;
    /// Content of a file.
    fn content(&mut self, chunk: &ChunkRef) -> Result<()>;
    /// A key of the refs.
    fn reference(&mut self, _key: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// The trees of a version.
pub fn trees_of(record: &IndexRecord) -> Vec<(TreeRef, TreeKind)> {
    let mut trees = vec![(record.root.links, TreeKind::Links), (record.root.digests, TreeKind::Digests)];
    if let Body::Directory { names, .. } = &record.root.dir.body {
        trees.push((*names, TreeKind::Names));
    }
    trees
}

/// Walks through trees and all that hangs on them, depth first.
pub fn reach(io: &dyn PageIo, trees: &[(TreeRef, TreeKind)], visit: &mut dyn Reach) -> Result<()> {
    let root = |(tree, kind): &(TreeRef, TreeKind)| tree.root().map(|page| (*page, *kind));
    let mut walk = Walk { pending: trees.iter().filter_map(root).collect(), visit };
    loop {
        let mut batch = Vec::new();
        while let Some((page, kind)) = walk.pending.pop() {
            if walk.visit.page(&page)? {
                batch.push((page, kind));
            }
            if batch.len() == BATCH {
                break;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let pages: Vec<ChunkRef> = batch.iter().map(|(page, _)| *page).collect();
        for ((page, kind), bytes) in batch.iter().zip(io.load_many(&pages)?) {
            match page_items(page, &bytes)? {
                PageItems::Inner(below) => walk.pending.extend(below.into_iter().rev().map(|page| (page, *kind))),
                PageItems::Leaf(items) => {
                    items.iter().try_for_each(|(key, value)| walk.item(*kind, key, value))?;
                }
            }
        }
    }
}

struct Walk<'a> {
    pending: Vec<(ChunkRef, TreeKind)>,
    visit: &'a mut dyn Reach,
}

impl Walk<'_> {
    fn item(&mut self, kind: TreeKind, key: &[u8], value: &[u8]) -> Result<()> {
        match kind {
            TreeKind::Refs => self.visit.reference(key),
            TreeKind::Digests => Ok(()),
            TreeKind::Names => self.entry(&Entry::decode(value)?),
            TreeKind::Links => self.entry(&LinkRecord::decode(value)?.inode),
            TreeKind::Chunks => self.visit.content(&Content::decode_chunk(value)?),
        }
    }

    fn tree(&mut self, tree: &TreeRef, kind: TreeKind) {
        self.pending.extend(tree.root().map(|page| (*page, kind)));
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        match &entry.body {
            Body::Directory { names, .. } => self.tree(names, TreeKind::Names),
            Body::File(file) => match &file.content {
                Content::Chunks(chunks) => chunks.iter().try_for_each(|(_, chunk)| self.visit.content(chunk))?,
                Content::Tree(tree) => self.tree(tree, TreeKind::Chunks),
                Content::Empty | Content::Inline(_) => {}
            },
            _ => {}
        }
        Ok(())
    }
}
