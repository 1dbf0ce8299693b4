//! Pages of the version that is being made.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::ids::BlobId;
use crate::blob::{BlobError, BlobKind, Blobs, ChunkRef, LocationIndex};
use crate::crypto::{IdDomain, Keys};
use crate::version::index::sha256;
use crate::version::tree::PageIo;
use crate::version::{Result, VersionError};

/// Reads pages through the blob layer; collects the new ones in memory until they are packed.
pub(super) struct NewPages<'a> {
    blobs: &'a Blobs,
    keys: &'a Keys,
    new: Mutex<HashMap<BlobId, Arc<[u8]>>>,
    /// Whether pages of a foreign version count as stored.
    joining: bool,
    /// The only place whose pages count as stored, when there is one.
    strict: Option<LocationIndex>,
}

impl<'a> NewPages<'a> {
    pub(super) fn new(blobs: &'a Blobs, keys: &'a Keys) -> Self {
        Self { blobs, keys, new: Mutex::new(HashMap::new()), joining: false, strict: None }
    }

    /// Pages of a version that will rest on a foreign one besides ours.
    pub(super) fn joining(blobs: &'a Blobs, keys: &'a Keys) -> Self {
        Self { joining: true, ..Self::new(blobs, keys) }
    }

    /// Pages of a version that will rest on a foreign one, where nothing counts that ours believed to be stored.
    pub(super) fn settling(blobs: &'a Blobs, keys: &'a Keys, there: LocationIndex) -> Self {
        Self { strict: Some(there), ..Self::new(blobs, keys) }
    }

    /// Whether a blob counts as stored.
    pub(super) fn is_stored(&self, id: &BlobId) -> Result<bool> {
        Ok(match (&self.strict, self.joining) {
            (Some(there), _) => there.lookup(id)?.is_some(),
            (None, true) => self.blobs.index().lookup(id)?.is_some(),
            (None, false) => self.blobs.is_stored(id)?,
        })
    }

    /// The pages that were saved and were not stored before.
    pub(super) fn into_new(self) -> HashMap<BlobId, Arc<[u8]>> {
        self.new.into_inner()
    }
}

/// Pages that are in memory; others are refused.
pub(super) struct Remembered<'a>(pub(super) &'a Blobs);

impl PageIo for Remembered<'_> {
    fn load(&self, page: &ChunkRef) -> Result<Arc<[u8]>> {
        let missing = || BlobError::Missing { id: page.id, looked: "memory".into() };
        Ok(self.0.remembered(page).ok_or_else(missing)?)
    }

    fn save(&self, _: &[u8]) -> Result<ChunkRef> {
        Err(VersionError::Damaged { object: "a page".into(), reason: "it was to be saved while reading".into() })
    }
}

impl PageIo for NewPages<'_> {
    fn load(&self, page: &ChunkRef) -> Result<Arc<[u8]>> {
        let new = self.new.lock().get(&page.id).cloned();
        match new {
            Some(bytes) => Ok(bytes),
            None => Ok(self.blobs.read(BlobKind::Page, page)?),
        }
    }

    fn load_many(&self, pages: &[ChunkRef]) -> Result<Vec<Arc<[u8]>>> {
        if self.new.lock().is_empty() {
            return self.blobs.read_many(BlobKind::Page, pages).into_iter().map(|page| Ok(page?)).collect();
        }
        pages.iter().map(|page| self.load(page)).collect()
    }

    fn save(&self, bytes: &[u8]) -> Result<ChunkRef> {
        let id = self.keys.id(IdDomain::Page, &sha256(bytes));
        let len = u32::try_from(bytes.len())
            .map_err(|_| VersionError::Damaged { object: "a page".into(), reason: "it is too long".into() })?;
        // A page that only the journal has is new: whoever saves it takes part in owning it.
        if !self.is_stored(&id)? {
            self.new.lock().insert(id, bytes.into());
        }
        Ok(ChunkRef { id, len })
    }
}
