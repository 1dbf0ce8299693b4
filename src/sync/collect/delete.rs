//! Deleting sealed names, and telling that they are gone.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Collector;
use super::swing::ATTEMPTS_MAX;
use crate::store::StoreError;
use crate::sync::condemned::{Condemned, list_key};
use crate::sync::{Name, SyncError};
use crate::version::head::{CollectionState, Head};

/// Objects deleted between two looks at HEAD.
const BATCH: usize = 512;

impl Collector {
    /// Deletes what a final list names, as long as HEAD names the list; then lets HEAD say that it is done.
    pub(super) fn delete(&self, id: uuid::Uuid, list: &Condemned, stop: &dyn Fn() -> bool) -> Result<u64, SyncError> {
        let mut deleted = 0;
        let names: Vec<Name> = list.names().collect();
        for batch in names.chunks(BATCH) {
            if stop() {
                return Err(SyncError::Stopped);
            }
            if self.head()?.0.collection_state != CollectionState::Sealed(id) {
                return Ok(deleted);
            }
            self.check_writer()?;
            self.delete_batch(batch)?;
            deleted += batch.len() as u64;
        }
        for attempt in 0..ATTEMPTS_MAX {
            let (head, etag) = self.head()?;
            if head.collection_state != CollectionState::Sealed(id) {
                return Ok(deleted);
            }
            let done = Head { collection_state: CollectionState::Idle, ..head.clone() };
            if self.swing(&head, &etag, done, attempt)? {
                // Nobody needs the candidates any more, but nothing rests on their absence.
                if let Some(candidates) = list.candidates {
                    self.parts.store.delete(&list_key(candidates))?;
                }
                return Ok(deleted);
            }
        }
        Err(SyncError::Contended { attempts: ATTEMPTS_MAX })
    }

    fn delete_batch(&self, names: &[Name]) -> Result<(), SyncError> {
        let store = &*self.parts.store;
        if store.is_local() {
            return Ok(names.iter().try_for_each(|name| store.delete(&name.key()))?);
        }
        let (next, failed): (_, Mutex<Option<StoreError>>) = (AtomicUsize::new(0), Mutex::new(None));
        std::thread::scope(|scope| {
            for _ in 0..store.concurrency().clamp(1, 64).min(names.len()) {
                scope.spawn(|| {
                    while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if failed.lock().is_some() {
                            return;
                        }
                        if let Err(error) = store.delete(&name.key()) {
                            *failed.lock() = Some(error);
                        }
                    }
                });
            }
        });
        Ok(failed.into_inner().map_or(Ok(()), Err)?)
    }
}
