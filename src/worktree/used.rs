//! What the version that is being made refers to.

use std::collections::HashSet;

use super::local_blobs::LocalBlob;
use crate::base::ids::BlobId;
use crate::blob::ChunkRef;
use crate::version::entry::{Content, FileBody, Ino};

/// Which blobs a version uses.
#[derive(Default)]
pub(super) struct Used {
    blobs: HashSet<BlobId>,
    /// Files with chunk lists in pages: their blobs are known by owner.
    owners: HashSet<Ino>,
    /// Files without a digest.
    pub(super) unhashed: Vec<(Ino, FileBody)>,
    /// Content of which the version has the digest that was computed.
    pub(super) hashed: Vec<BlobId>,
}

impl Used {
    pub(super) fn note(&mut self, ino: Ino, body: &FileBody) {
        if body.sha256.is_none() && body.size > 0 {
            self.unhashed.push((ino, body.clone()));
        }
        match &body.content {
            Content::Chunks(chunks) => self.blobs.extend(chunks.iter().map(|(_, chunk): &(u64, ChunkRef)| chunk.id)),
            Content::Tree(_) => {
                self.owners.insert(ino);
            }
            Content::Empty | Content::Inline(_) => {}
        }
    }

    pub(super) fn has(&self, id: &BlobId, blob: &LocalBlob) -> bool {
        self.blobs.contains(id) || blob.owners.iter().any(|owner| self.owners.contains(owner))
    }
}
