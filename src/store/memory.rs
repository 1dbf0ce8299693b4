//! A store in memory, for tests and simulations.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{ETag, Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, RangeRequest, Result, StoreError};
use crate::crypto::Sealed;

/// A store in memory with exact conditional puts. Tags are hashes of the content, so equal content
/// has equal tags, as on S3.
#[derive(Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<ObjectKey, Vec<u8>>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of everything the store holds.
    pub fn snapshot(&self) -> BTreeMap<ObjectKey, Vec<u8>> {
        self.objects.lock().clone()
    }

    /// Puts the store into the state of a (perhaps altered) copy: what an attacker with write
    /// access can do.
    pub fn restore(&self, objects: BTreeMap<ObjectKey, Vec<u8>>) {
        *self.objects.lock() = objects;
    }
}

impl ObjectStore for MemoryStore {
    fn get(&self, key: &ObjectKey) -> Result<Object> {
        let objects = self.objects.lock();
        let bytes = objects.get(key).ok_or_else(|| StoreError::NotFound { key: key.clone() })?;
        Ok(Object { bytes: bytes.clone(), etag: ETag::of_content(bytes) })
    }

    fn get_if_changed(&self, key: &ObjectKey, etag: &ETag) -> Result<Option<Object>> {
        let object = self.get(key)?;
        Ok((object.etag != *etag).then_some(object))
    }

    fn get_range(&self, request: &RangeRequest) -> Result<Vec<u8>> {
        if request.len == 0 {
            return Ok(Vec::new());
        }
        let objects = self.objects.lock();
        let bytes = objects.get(&request.key).ok_or_else(|| StoreError::NotFound { key: request.key.clone() })?;
        let clamp = |position: u64| usize::try_from(position).map_or(bytes.len(), |position| position.min(bytes.len()));
        Ok(bytes[clamp(request.offset)..clamp(request.offset.saturating_add(request.len))].to_vec())
    }

    fn put(&self, key: &ObjectKey, sealed: &Sealed, condition: PutCondition) -> Result<ETag> {
        let mut objects = self.objects.lock();
        let holds = match condition {
            PutCondition::Always => true,
            PutCondition::IfAbsent => !objects.contains_key(key),
            PutCondition::IfMatch(etag) => objects.get(key).is_some_and(|bytes| ETag::of_content(bytes) == etag),
        };
        if !holds {
            return Err(StoreError::Precondition { key: key.clone() });
        }
        objects.insert(key.clone(), sealed.as_bytes().to_vec());
        Ok(ETag::of_content(sealed.as_bytes()))
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.objects.lock().remove(key);
        Ok(())
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<()> {
        let found: Vec<ObjectInfo> = self
            .objects
            .lock()
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, bytes)| ObjectInfo { key: key.clone(), len: bytes.len() as u64, modified: None })
            .collect();
        found.into_iter().for_each(each);
        Ok(())
    }

    fn concurrency(&self) -> usize {
        4
    }

    fn is_local(&self) -> bool {
        true
    }

    fn address(&self) -> &str {
        "memory"
    }
}
