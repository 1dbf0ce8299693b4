//! A store that lists what it was not asked for, and more than there can be.

use std::sync::Arc;

use kura::crypto::Sealed;
use kura::store::{
    ETag, MemoryStore, Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, RangeRequest, Result, StoreError,
};

/// Lists more names than its objects have, whatever was asked for; each of them can be read.
pub struct Liar {
    /// What is there.
    pub inner: Arc<MemoryStore>,
    /// The names that every listing has, and the lengths that it tells.
    pub listed: Vec<(ObjectKey, u64)>,
    /// What is read at these names.
    pub object: Vec<u8>,
}

impl ObjectStore for Liar {
    fn get(&self, key: &ObjectKey) -> Result<Object> {
        match self.inner.get(key) {
            Err(StoreError::NotFound { .. }) if self.listed.iter().any(|(name, _)| name == key) => {
                Ok(Object { bytes: self.object.clone(), etag: ETag("liar".to_owned()) })
            }
            found => found,
        }
    }

    fn get_if_changed(&self, key: &ObjectKey, etag: &ETag) -> Result<Option<Object>> {
        self.inner.get_if_changed(key, etag)
    }

    fn get_range(&self, request: &RangeRequest) -> Result<Vec<u8>> {
        self.inner.get_range(request)
    }

    fn put(&self, key: &ObjectKey, sealed: &Sealed, condition: PutCondition) -> Result<ETag> {
        self.inner.put(key, sealed, condition)
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.inner.delete(key)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<()> {
        for (key, len) in &self.listed {
            each(ObjectInfo { key: key.clone(), len: *len, modified: None });
        }
        self.inner.list(prefix, each)
    }

    fn concurrency(&self) -> usize {
        1
    }

    fn is_local(&self) -> bool {
        true
    }

    fn address(&self) -> &str {
        "liar"
    }
}
