//! Which paths of a version damage touches.

use std::collections::HashMap;
use std::sync::Arc;

use super::Result;
use super::check::is_unknown;
use crate::base::ids::BlobId;
use crate::blob::{BlobKind, Blobs, ChunkRef};
use crate::version::VersionError;
use crate::version::entry::{Body, Content, Entry};
use crate::version::index::IndexRecord;
use crate::version::pages::Pages;
use crate::version::tree::TreeRef;
use crate::version::walk::Walker;

/// So many paths of a version are named.
pub(super) const PATHS_MAX: usize = 100;

/// The paths of a version that need one of the damaged blobs, `max` of them and a few more at most. A directory whose
/// names cannot be read stands for all below it. What cannot be asked for is an error, not damage.
pub(super) fn paths(
    blobs: &Blobs,
    record: &IndexRecord,
    damaged: &HashMap<BlobId, (BlobKind, u32)>,
    max: usize,
) -> Result<Vec<Arc<[u8]>>> {
    let pages = Pages(blobs);
    let mut found: Vec<Arc<[u8]>> = Vec::new();
    let mut pending = vec![(Vec::new(), record.root.dir.clone())];
    while let Some((path, entry)) = pending.pop() {
        if found.len() >= max {
            break;
        }
        let mut look = Look { damaged, is_touched: false, items: Vec::new(), chunks: false };
        let tree: Option<TreeRef> = match &entry.body {
            Body::Directory { names, .. } => Some(*names),
            Body::File(file) => match &file.content {
                Content::Chunks(chunks) => {
                    look.is_touched = chunks.iter().any(|(_, chunk)| damaged.contains_key(&chunk.id));
                    None
                }
                Content::Tree(tree) => {
                    look.chunks = true;
                    Some(*tree)
                }
                Content::Empty | Content::Inline(_) => None,
            },
            _ => None,
        };
        if let Some(tree) = tree {
            tree.walk(&pages, &mut look)?;
        }
        for (name, value) in std::mem::take(&mut look.items) {
            let below = if path.is_empty() { name } else { [&path[..], b"/", &name].concat() };
            match Entry::decode(&value).and_then(|entry| record.root.resolve(&pages, entry)) {
                Ok(entry) => pending.push((below, entry)),
                Err(error) if is_unknown(&error) => return Err(error.into()),
                Err(_) => found.push(below.into()),
            }
        }
        if look.is_touched {
            found.push(path.into());
        }
    }
    found.sort();
    Ok(found)
}

/// What hangs on one tree.
struct Look<'a> {
    damaged: &'a HashMap<BlobId, (BlobKind, u32)>,
    is_touched: bool,
    items: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the tree is one of chunks.
    chunks: bool,
}

impl Walker for Look<'_> {
    fn enter(&mut self, page: &ChunkRef) -> bool {
        let is_damaged = self.damaged.contains_key(&page.id);
        self.is_touched |= is_damaged;
        !is_damaged
    }

    fn item(&mut self, key: &[u8], value: &[u8]) -> crate::version::Result<()> {
        if self.chunks {
            self.is_touched |= self.damaged.contains_key(&Content::decode_chunk(value)?.id);
        } else {
            self.items.push((key.to_vec(), value.to_vec()));
        }
        Ok(())
    }

    fn failed(&mut self, _: &ChunkRef, error: VersionError) -> crate::version::Result<()> {
        if is_unknown(&error) {
            return Err(error);
        }
        self.is_touched = true;
        Ok(())
    }
}
