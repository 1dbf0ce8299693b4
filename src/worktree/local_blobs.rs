//! Blobs that exist only here: in the journal, or as large objects in the outbox, until a
//! checkpoint makes them part of a version.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::journal::{FrameRef, Journal};
use super::record::{Bytes, Record};
use crate::base::ids::BlobId;
use crate::blob::{BlobError, Location, Place};
use crate::version::entry::Ino;

/// Where a blob is.
#[derive(Clone, Debug)]
pub(super) enum LocalPlace {
    /// In a journal frame, sealed.
    Journal(FrameRef),
    /// An object in the outbox.
    Outbox(Location),
}

/// A blob that no version holds yet.
#[derive(Clone, Debug)]
pub(super) struct LocalBlob {
    pub(super) place: LocalPlace,
    /// Whether it is a page (of a chunk list); else content.
    pub(super) page: bool,
    /// Plaintext bytes.
    pub(super) len: u32,
    /// Files that were absorbed into it.
    pub(super) owners: Vec<Ino>,
}

/// Whether a file is now an owner of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// There is no such blob since the last cut.
    Absent,
    /// It was one already.
    Known,
    /// It has become one, which is to be journaled.
    New,
}

pub(super) type BlobMap = HashMap<BlobId, LocalBlob>;

pub(super) struct LocalBlobs {
    journal: Arc<Journal>,
    maps: Mutex<Maps>,
}

#[derive(Default)]
struct Maps {
    /// Since the last cut of the journal.
    current: BlobMap,
    /// Of the checkpoint that is under way.
    older: Arc<BlobMap>,
}

impl LocalBlobs {
    pub(super) fn new(journal: Arc<Journal>, found: BlobMap) -> Self {
        Self { journal, maps: Mutex::new(Maps { current: found, older: Arc::default() }) }
    }

    /// Adds an owner to a blob of the present segment.
    pub(super) fn own(&self, id: &BlobId, owner: Ino) -> Own {
        match self.maps.lock().current.get_mut(id) {
            None => Own::Absent,
            Some(blob) if blob.owners.contains(&owner) => Own::Known,
            Some(blob) => {
                blob.owners.push(owner);
                Own::New
            }
        }
    }

    /// An object of the checkpoint that is under way: it may turn out that no version needs it.
    pub(super) fn object_of_checkpoint(&self, id: &BlobId) -> Option<LocalBlob> {
        let maps = self.maps.lock();
        maps.older.get(id).filter(|blob| matches!(blob.place, LocalPlace::Outbox(_))).cloned()
    }

    pub(super) fn add(&self, id: BlobId, mut blob: LocalBlob) {
        let mut maps = self.maps.lock();
        if let Some(old) = maps.current.remove(&id) {
            blob.owners.extend(old.owners);
        }
        maps.current.insert(id, blob);
    }

    /// Visits the blobs since the last cut.
    pub(super) fn each_current(&self, visit: &mut dyn FnMut(&BlobId, &LocalBlob)) {
        self.maps.lock().current.iter().for_each(|(id, blob)| visit(id, blob));
    }

    /// Visits all blobs, those of a checkpoint that failed included.
    pub(super) fn each(&self, visit: &mut dyn FnMut(&BlobId, &LocalBlob)) {
        let maps = self.maps.lock();
        maps.current.iter().chain(maps.older.iter()).for_each(|(id, blob)| visit(id, blob));
    }

    /// Lets go of blobs that are in a version by now.
    pub(super) fn release(&self, ids: &[BlobId]) {
        let mut maps = self.maps.lock();
        ids.iter().for_each(|id| drop(maps.current.remove(id)));
        if ids.iter().any(|id| maps.older.contains_key(id)) {
            // Those of a checkpoint that failed, which belong to the next.
            let older = Arc::make_mut(&mut maps.older);
            ids.iter().for_each(|id| drop(older.remove(id)));
        }
    }

    pub(super) fn holds(&self, id: &BlobId) -> bool {
        let maps = self.maps.lock();
        maps.current.contains_key(id) || maps.older.contains_key(id)
    }

    pub(super) fn holds_current(&self, id: &BlobId) -> bool {
        self.maps.lock().current.contains_key(id)
    }

    /// Begins a checkpoint: what there is now belongs to it.
    pub(super) fn cut(&self) -> Arc<BlobMap> {
        let mut maps = self.maps.lock();
        let mut older = std::mem::take(&mut maps.current);
        // A checkpoint that failed left its blobs; they belong to this one.
        for (id, blob) in maps.older.iter() {
            older.entry(*id).or_insert_with(|| blob.clone());
        }
        maps.older = Arc::new(older);
        maps.older.clone()
    }

    /// Ends a checkpoint: its blobs are in a version, or not needed.
    pub(super) fn finish_cut(&self) {
        self.maps.lock().older = Arc::default();
    }

    /// The record that brings a blob into the present segment for another owner.
    pub(super) fn carry_record(&self, owner: Ino, id: BlobId, blob: &LocalBlob) -> super::Result<Option<Record>> {
        let (page, len) = (blob.page, blob.len);
        Ok(match &blob.place {
            LocalPlace::Journal(frame) => {
                self.sealed(&id, frame)?.map(|sealed| Record::Blob { owner, id, page, len, sealed: Bytes(sealed) })
            }
            LocalPlace::Outbox(Location { stored_len, place: Place::Object { generation }, .. }) => {
                Some(Record::Object { owner, id, len, stored_len: *stored_len, generation: *generation })
            }
            LocalPlace::Outbox(_) => None,
        })
    }

    /// The sealed bytes of a blob in the journal.
    pub(super) fn sealed(&self, id: &BlobId, frame: &FrameRef) -> super::Result<Option<Arc<Vec<u8>>>> {
        let records = self.journal.read(frame)?;
        Ok(records.into_iter().find_map(|record| match record {
            Record::Blob { id: found, sealed, .. } if found == *id => Some(sealed.0),
            _ => None,
        }))
    }
}

impl crate::blob::LocalBlobs for LocalBlobs {
    fn get(&self, id: &BlobId) -> Option<Result<Vec<u8>, BlobError>> {
        let place = {
            let maps = self.maps.lock();
            maps.current.get(id).or_else(|| maps.older.get(id)).map(|blob| blob.place.clone())
        };
        let Some(LocalPlace::Journal(frame)) = place else { return None };
        match self.sealed(id, &frame) {
            Ok(Some(bytes)) => Some(Ok(bytes.to_vec())),
            // A checkpoint may just have packed the blob and removed the segment: look there.
            Ok(None) => None,
            Err(error) => {
                tracing::debug!("blob {id} is no longer in the journal: {error}");
                None
            }
        }
    }

    fn contains(&self, id: &BlobId) -> bool {
        self.holds(id)
    }
}
