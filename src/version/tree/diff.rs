//! What differs between two trees, at the cost of the pages that differ.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::page::{Item, LOAD_BATCH, parse, parse_node, wrong_level};
use super::{PageIo, TreeRef};
use crate::blob::ChunkRef;
use crate::version::Result;

/// Takes a key that differs, with its values on both sides.
pub type DiffVisitor<'a> = dyn FnMut(&[u8], Option<&[u8]>, Option<&[u8]>) -> Result<()> + 'a;

impl TreeRef {
    /// Visits every key whose value differs: `(key, value here, value in other)`.
    pub fn diff(&self, other: &TreeRef, io: &dyn PageIo, visit: &mut DiffVisitor<'_>) -> Result<()> {
        if self.root == other.root {
            return Ok(());
        }
        let (mut ours, mut theirs) = (Side::new(io, self)?, Side::new(io, other)?);
        while ours.level > 0 || theirs.level > 0 {
            match ours.level.cmp(&theirs.level) {
                Ordering::Greater => ours.descend(io)?,
                Ordering::Less => theirs.descend(io)?,
                Ordering::Equal => {
                    ours.descend(io)?;
                    theirs.descend(io)?;
                }
            }
            if ours.level == theirs.level {
                ours.drop_common(&mut theirs);
            }
        }
        diff_items(Items::new(io, ours.pages), Items::new(io, theirs.pages), visit)
    }
}

/// Pages of one level of a tree, in order, without those that the other tree has as well.
struct Side {
    level: u8,
    pages: Vec<ChunkRef>,
}

impl Side {
    fn new(io: &dyn PageIo, tree: &TreeRef) -> Result<Self> {
        let Some(root) = tree.root else { return Ok(Self { level: 0, pages: Vec::new() }) };
        Ok(Self { level: parse(&root, &io.load(&root)?)?.level, pages: vec![root] })
    }

    fn descend(&mut self, io: &dyn PageIo) -> Result<()> {
        let mut below = Vec::new();
        for batch in self.pages.chunks(LOAD_BATCH) {
            for (at, bytes) in batch.iter().zip(io.load_many(batch)?) {
                let page = parse(at, &bytes)?;
                if page.level != self.level {
                    return Err(wrong_level(at));
                }
                for (_, value) in page.items {
                    below.push(parse_node(at, value)?.page);
                }
            }
        }
        (self.pages, self.level) = (below, self.level - 1);
        Ok(())
    }

    /// A page that is in both trees holds the same keys with the same values, and no other page has them.
    fn drop_common(&mut self, other: &mut Side) {
        let ours: HashSet<ChunkRef> = self.pages.iter().copied().collect();
        let theirs: HashSet<ChunkRef> = other.pages.iter().copied().collect();
        self.pages.retain(|page| !theirs.contains(page));
        other.pages.retain(|page| !ours.contains(page));
    }
}

fn diff_items(mut left: Items<'_>, mut right: Items<'_>, visit: &mut DiffVisitor<'_>) -> Result<()> {
    let (mut a, mut b) = (left.next()?, right.next()?);
    loop {
        let order = match (&a, &b) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        if let (Ordering::Equal, Some((key, ours)), Some((_, theirs))) = (order, &a, &b)
            && ours != theirs
        {
            visit(key, Some(ours), Some(theirs))?;
        }
        if let (Ordering::Less, Some((key, value))) = (order, &a) {
            visit(key, Some(value), None)?;
        }
        if let (Ordering::Greater, Some((key, value))) = (order, &b) {
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

/// The items of a list of leaves, loaded batch by batch.
pub(super) struct Items<'a> {
    io: &'a dyn PageIo,
    leaves: std::vec::IntoIter<ChunkRef>,
    loaded: std::vec::IntoIter<Item>,
}

impl<'a> Items<'a> {
    pub(super) fn new(io: &'a dyn PageIo, leaves: Vec<ChunkRef>) -> Self {
        Self { io, leaves: leaves.into_iter(), loaded: Vec::new().into_iter() }
    }

    pub(super) fn next(&mut self) -> Result<Option<Item>> {
        loop {
            if let Some(item) = self.loaded.next() {
                return Ok(Some(item));
            }
            let pages: Vec<ChunkRef> = self.leaves.by_ref().take(LOAD_BATCH).collect();
            if pages.is_empty() {
                return Ok(None);
            }
            let mut items = Vec::new();
            for (at, bytes) in pages.iter().zip(self.io.load_many(&pages)?) {
                let page = parse(at, &bytes)?;
                if page.level != 0 {
                    return Err(wrong_level(at));
                }
                items.extend(page.items.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
            }
            self.loaded = items.into_iter();
        }
    }
}
