//! One lease: an object that says which client has a path. It is never removed, only overwritten, so that its fencing
//! number never goes back.

use serde::{Deserialize, Serialize};

use super::SyncError;
use crate::base::clock::Timestamp;
use crate::base::ids::{BlobId, ClientId};
use crate::crypto::{IdDomain, Keys, Kind, SEAL_OVERHEAD, Sealed};
use crate::store::{ETag, ObjectKey, ObjectStore, PutCondition, StoreError};
use crate::version::VersionError;
use crate::version::index::sha256;

/// Where leases lie.
pub(super) const PREFIX: &str = "leases/";
/// Longest lease object in bytes.
pub(super) const LEN_MAX: u64 = 16 * 1024;
/// Longest path that can be locked, in bytes.
pub(super) const PATH_LEN_MAX: usize = 8 * 1024;
/// A lease that somebody has is padded to a multiple of this many bytes.
const STEP: usize = 512;
/// The lease of whoever may write to a store without conditional writes; no path begins so.
pub(super) const WRITER: &[u8] = b"/";

/// What a lease object says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    /// One more with every holder that is not the one before, and with every lock that is broken.
    pub(super) fencing: u64,
    /// Who has it; nobody when it is free.
    pub(super) holder: Option<Holder>,
}

/// Who has a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    pub(super) client: ClientId,
    pub(super) host: String,
    pub(super) user: String,
    pub(super) path: Vec<u8>,
    /// Whoever sees the object unchanged for so long may take it.
    pub(super) length_ms: u64,
    /// When it was taken, by the holder's clock; for people alone.
    pub(super) since: Timestamp,
}

impl Holder {
    pub(super) fn name(&self) -> String {
        format!("{}@{}", self.user, self.host)
    }
}

/// Whether an object of this length can be a lease that somebody has; those that are free are shorter.
pub(super) fn may_be_held(len: u64) -> bool {
    len >= (STEP + SEAL_OVERHEAD) as u64
}

fn id(keys: &Keys, path: &[u8]) -> BlobId {
    keys.id(IdDomain::Lease, &sha256(path))
}

/// The name of a path's lease.
pub(super) fn key(keys: &Keys, path: &[u8]) -> ObjectKey {
    ObjectKey::new(format!("{PREFIX}{}", id(keys, path)))
        .unwrap_or_else(|| unreachable!("a fixed word and digits make a name"))
}

impl Lease {
    /// Seals it as the object of this name.
    fn seal(&self, keys: &Keys, key: &ObjectKey) -> Sealed {
        let mut plain = postcard::to_stdvec(self).unwrap_or_else(|_| unreachable!("our own plain types always encode"));
        if self.holder.is_some() {
            plain.resize(plain.len().next_multiple_of(STEP), 0);
        }
        keys.seal(Kind::Lease, key.as_str().as_bytes(), &plain)
    }

    fn open(keys: &Keys, key: &ObjectKey, sealed: &[u8]) -> Result<Self, VersionError> {
        let object = key.to_string();
        let damaged = |reason: &str| VersionError::Damaged { object: object.clone(), reason: reason.to_owned() };
        if sealed.len() as u64 > LEN_MAX {
            return Err(damaged("it is longer than any lease"));
        }
        let plain = keys
            .open(Kind::Lease, key.as_str().as_bytes(), sealed)
            .map_err(|source| VersionError::Unopened { object: object.clone(), source })?;
        let (lease, rest) = postcard::take_from_bytes::<Self>(&plain).map_err(|error| damaged(&error.to_string()))?;
        if rest.len() >= STEP || rest.iter().any(|byte| *byte != 0) {
            return Err(damaged("something follows it"));
        }
        if lease.holder.as_ref().is_some_and(|holder| self::key(keys, &holder.path) != *key) {
            return Err(damaged("it is about another path"));
        }
        Ok(lease)
    }

    /// Reads a lease; `None` when there is none.
    pub(super) fn read(
        store: &dyn ObjectStore,
        keys: &Keys,
        key: &ObjectKey,
    ) -> Result<Option<(Self, ETag)>, SyncError> {
        match store.get(key) {
            Ok(object) => Ok(Some((Self::open(keys, key, &object.bytes)?, object.etag))),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a lease unless it is still as it was; `None` then, or when it is gone.
    pub(super) fn read_if_changed(
        store: &dyn ObjectStore,
        keys: &Keys,
        key: &ObjectKey,
        etag: &ETag,
    ) -> Result<Option<(Self, ETag)>, SyncError> {
        match store.get_if_changed(key, etag) {
            Ok(Some(object)) => Ok(Some((Self::open(keys, key, &object.bytes)?, object.etag))),
            Ok(None) | Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a lease if the object is still what `before` says (`None`: absent); `None` when somebody else was
    /// faster. Where conditions do not count, what was written is read back.
    pub(super) fn write(
        &self,
        store: &dyn ObjectStore,
        keys: &Keys,
        key: &ObjectKey,
        before: Option<ETag>,
        conditional: bool,
    ) -> Result<Option<ETag>, SyncError> {
        let sealed = self.seal(keys, key);
        let condition = match (conditional, before) {
            (false, _) => PutCondition::Always,
            (true, Some(etag)) => PutCondition::IfMatch(etag),
            (true, None) => PutCondition::IfAbsent,
        };
        match store.put(key, &sealed, condition) {
            Ok(etag) if conditional => return Ok(Some(etag)),
            Ok(_) | Err(StoreError::Precondition { .. } | StoreError::OutcomeUnknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match store.get(key) {
            Ok(object) => Ok((object.bytes == sealed.as_bytes()).then_some(object.etag)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
