//! Moving HEAD, with the outcome known.

use super::Collector;
use crate::store::{ETag, PutCondition, StoreError};
use crate::sync::SyncError;
use crate::version::head::Head;

/// How often HEAD is tried to be moved before it is left for later.
pub(super) const ATTEMPTS_MAX: u32 = 16;

impl Collector {
    /// Refuses when another client has become the one that may write.
    pub(super) fn check_writer(&self) -> Result<(), SyncError> {
        self.parts.leases.as_ref().map_or(Ok(()), |leases| leases.be_writer(false))
    }

    /// Lets `new` take the place of `old`; false when HEAD has moved on since `old` was read.
    pub(super) fn swing(&self, old: &Head, etag: &ETag, new: Head, attempt: u32) -> Result<bool, SyncError> {
        let parts = &self.parts;
        let (generation, writer, time) = (old.generation + 1, parts.client, parts.clock.now());
        let mut new = Head { generation, writer, time, ..new };
        let sealed = new.seal(&parts.keys);
        self.check_writer()?;
        let condition = match parts.leases {
            None => PutCondition::IfMatch(etag.clone()),
            Some(_) => PutCondition::Always,
        };
        let is_refused = match parts.store.put(&Head::key(), &sealed, condition) {
            Ok(_) if parts.leases.is_none() => return Ok(true),
            Err(StoreError::Precondition { .. }) => true,
            // Without conditions, somebody may have written at the same time.
            Ok(_) | Err(StoreError::OutcomeUnknown { .. }) => false,
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
