//! Pages of versions as they are stored.

use std::sync::Arc;

use super::tree::PageIo;
use super::{Result, VersionError, index};
use crate::blob::{BlobKind, Blobs, ChunkRef};

/// Pages as they are stored; nothing is written.
pub struct Pages<'a>(pub &'a Blobs);

impl PageIo for Pages<'_> {
    fn load(&self, page: &ChunkRef) -> Result<Arc<[u8]>> {
        Ok(self.0.read(BlobKind::Page, page)?)
    }

    fn load_many(&self, pages: &[ChunkRef]) -> Result<Vec<Arc<[u8]>>> {
        self.0.read_many(BlobKind::Page, pages).into_iter().map(|page| Ok(page?)).collect()
    }

    fn save(&self, bytes: &[u8]) -> Result<ChunkRef> {
        let object = format!("page with SHA-256 {}", index::sha256(bytes));
        Err(VersionError::Damaged { object, reason: "past versions are only read".to_owned() })
    }
}
