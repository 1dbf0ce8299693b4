//! Walking through page trees that may be damaged: every page once, and on past what cannot be read.

use super::tree::{PageIo, TreeRef, page_items};
use super::{Result, VersionError};
use crate::blob::ChunkRef;

/// What is asked and told on the way through a tree.
pub trait Walker {
    /// Whether to read this page and what is below it.
    fn enter(&mut self, page: &ChunkRef) -> bool;
    /// A key of a leaf and its value.
    fn item(&mut self, key: &[u8], value: &[u8]) -> Result<()>;
    /// A page that cannot be used; an error ends the walk.
    fn failed(&mut self, page: &ChunkRef, error: VersionError) -> Result<()>;
}

/// What a page holds.
pub(super) enum PageItems<'a> {
    /// A leaf: keys and values.
    Leaf(Vec<(&'a [u8], &'a [u8])>),
    /// The pages below.
    Inner(Vec<ChunkRef>),
}

impl TreeRef {
    /// Walks through all pages from the root down.
    pub fn walk(&self, io: &dyn PageIo, walker: &mut dyn Walker) -> Result<()> {
        let mut pending: Vec<ChunkRef> = self.root().copied().into_iter().collect();
        while let Some(page) = pending.pop() {
            if !walker.enter(&page) {
                continue;
            }
            let bytes = match io.load(&page) {
                Ok(bytes) => bytes,
                Err(error) => {
                    walker.failed(&page, error)?;
                    continue;
                }
            };
            match page_items(&page, &bytes) {
                Ok(PageItems::Inner(below)) => pending.extend(below.into_iter().rev()),
                Ok(PageItems::Leaf(items)) => {
                    for (key, value) in items {
                        walker.item(key, value).or_else(|error| walker.failed(&page, error))?;
                    }
                }
                Err(error) => walker.failed(&page, error)?,
            }
        }
        Ok(())
    }
}
