//! Moving HEAD, with the outcome known.

use super::Collector;
use crate::store::{ETag, PutCondition, StoreError};
use crate::sync::SyncError;
use crate::version::head::Head;

/// How often HEAD is tried to be moved before it is left for later.
pub(super) const ATTEMPTS_MAX: u32 = 16;

impl Collector {
    /// Lets `new` take the place of `old`; false when HEAD has moved on since `old` was read.
    pub(super) fn swing(&self, old: &Head, etag: &ETag, new: Head, attempt: u32) -> Result<bool, SyncError> {
        let parts = &self.parts;
        let (generation, writer, time) = (old.generation + 1, parts.client, parts.clock.now());
        let mut new = Head { generation, writer, time, ..new };
        let sealed = new.seal(&parts.keys);
        let condition = match parts.conditional_writes {
            true => PutCondition::IfMatch(etag.clone()),
            false => PutCondition::Always,
        };
        let is_refused = match parts.store.put(&Head::key(), &sealed, condition) {
            Ok(_) => return Ok(true),
            Err(StoreError::Precondition { .. }) => true,
            Err(StoreError::OutcomeUnknown { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        let (now, _) = self.head()?;
        if is_refused && now.nonce == old.nonce {
            // Refused though nothing changed: the server wants tags without quotes (or with, after all).
            parts.store.set_unquoted_etags(attempt.is_multiple_of(2));
        }
        Ok(now.nonce == new.nonce)
    }
}
