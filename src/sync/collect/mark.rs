//! Marking: what the versions that HEAD keeps lead to.

use std::collections::HashSet;

use super::Collector;
use crate::base::ids::{BlobId, VersionId};
use crate::blob::ChunkRef;
use crate::store::RangeRequest;
use crate::sync::SyncError;
use crate::version::head::Head;
use crate::version::index::IndexRecord;
use crate::version::pages::Pages;
use crate::version::reach::{Reach, TreeKind, reach, trees_of};
use crate::version::{Result, VersionError};

/// Records fetched together.
const RECORDS_BATCH: usize = 128;
/// No record of a version is longer, in sealed bytes.
const RECORD_LEN_MAX: u64 = 1 << 20;

/// What was reached. Blobs are known by half of their ids, which are keyed hashes: should two ever have the same half,
/// garbage is kept.
#[derive(Default)]
pub(super) struct Marks {
    blobs: HashSet<u128>,
    /// Versions of which everything is marked.
    versions: HashSet<u128>,
}

/// What the refs of one HEAD list.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) kept: HashSet<u128>,
    pub(super) forgotten: HashSet<u128>,
}

pub(super) fn half(id: &BlobId) -> u128 {
    id.as_bytes().first_chunk().map_or(0, |half| u128::from_le_bytes(*half))
}

impl Marks {
    pub(super) fn has(&self, id: &BlobId) -> bool {
        self.blobs.contains(&half(id))
    }

    pub(super) fn count(&self) -> u64 {
        self.blobs.len() as u64
    }
}

/// Marks pages and content.
struct Marking<'a> {
    marks: &'a mut Marks,
    listing: Option<&'a mut Listing>,
}

impl Reach for Marking<'_> {
    fn page(&mut self, page: &ChunkRef) -> Result<bool> {
        let is_new = self.marks.blobs.insert(half(&page.id));
        // The refs are read whole each time, for what they list.
        Ok(is_new || self.listing.is_some())
    }

    fn content(&mut self, chunk: &ChunkRef) -> Result<()> {
        self.marks.blobs.insert(half(&chunk.id));
        Ok(())
    }

    fn reference(&mut self, key: &[u8]) -> Result<()> {
        let Some(listing) = self.listing.as_deref_mut() else { return Ok(()) };
        let (sort, id) = key.split_at_checked(1).unwrap_or_default();
        match (sort, uuid::Uuid::from_slice(id)) {
            (b"v", Ok(id)) => drop(listing.kept.insert(id.as_u128())),
            (b"f", Ok(id)) => drop(listing.forgotten.insert(id.as_u128())),
            _ => {}
        }
        Ok(())
    }
}

impl Collector {
    /// Marks everything that a HEAD leads to, passing over versions that were marked before. What is marked stays so,
    /// though a later HEAD may keep less.
    pub(super) fn mark(
        &self,
        head: &Head,
        marks: &mut Marks,
        stop: &dyn Fn() -> bool,
    ) -> std::result::Result<Listing, SyncError> {
        self.blobs.index().set_runs(runs_of(head));
        let io = Pages(&self.blobs);
        let mut listing = Listing::default();
        reach(&io, &[(head.refs, TreeKind::Refs)], &mut Marking { marks, listing: Some(&mut listing) })?;
        if !listing.kept.contains(&head.version.0.as_u128()) {
            let reason = "they do not list the version that HEAD names".to_owned();
            return Err(VersionError::Damaged { object: "the refs".to_owned(), reason }.into());
        }
        let new: Vec<VersionId> =
            listing.kept.difference(&marks.versions).map(|id| VersionId(uuid::Uuid::from_u128(*id))).collect();
        for batch in new.chunks(RECORDS_BATCH) {
            if stop() {
                return Err(SyncError::Stopped);
            }
            let request = |id: &VersionId| RangeRequest { key: IndexRecord::key(*id), offset: 0, len: RECORD_LEN_MAX };
            let answers = self.parts.store.get_many(&batch.iter().map(request).collect::<Vec<_>>());
            let mut trees = Vec::new();
            for (id, sealed) in batch.iter().zip(answers) {
                trees.extend(trees_of(&IndexRecord::open(&self.parts.keys, *id, &sealed?)?));
            }
            reach(&io, &trees, &mut Marking { marks, listing: None })?;
            marks.versions.extend(batch.iter().map(|version| version.0.as_u128()));
        }
        Ok(listing)
    }
}

pub(super) fn runs_of(head: &Head) -> Vec<crate::blob::RunRef> {
    head.runs.iter().map(|run| crate::blob::RunRef { id: run.id, count: run.count }).collect()
}
