//! Counts what is asked of a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    ETag, Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, RangeRequest, Result, SealedFile, StoreError,
};
use crate::crypto::Sealed;

/// What was asked of one operation so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationMetrics {
    /// Calls; a batch counts each of its members.
    pub requests: u64,
    /// Calls that failed. An absent object and a lost race are answers, not failures.
    pub errors: u64,
    /// Bytes of objects read or written by calls that succeeded.
    pub bytes: u64,
}

/// What was asked of a store so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreMetrics {
    /// Whole objects read, conditionally or not.
    pub get: OperationMetrics,
    /// Parts of objects read.
    pub get_range: OperationMetrics,
    /// Objects written.
    pub put: OperationMetrics,
    /// Objects removed.
    pub delete: OperationMetrics,
    /// Listings (however many pages each took).
    pub list: OperationMetrics,
}

#[derive(Default)]
struct Counter {
    requests: AtomicU64,
    errors: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    fn count<T>(&self, result: &Result<T>, len: impl FnOnce(&T) -> usize) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(value) => {
                self.bytes.fetch_add(len(value) as u64, Ordering::Relaxed);
            }
            Err(StoreError::NotFound { .. } | StoreError::Precondition { .. }) => {}
            Err(_) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn read(&self) -> OperationMetrics {
        OperationMetrics {
            requests: self.requests.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// A store that counts.
pub struct MetricsStore {
    inner: Arc<dyn ObjectStore>,
    get: Counter,
    get_range: Counter,
    put: Counter,
    delete: Counter,
    list: Counter,
}

impl MetricsStore {
    /// Counts what is asked of `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            inner,
            get: Counter::default(),
            get_range: Counter::default(),
            put: Counter::default(),
            delete: Counter::default(),
            list: Counter::default(),
        }
    }

    /// The counts so far.
    pub fn snapshot(&self) -> StoreMetrics {
        StoreMetrics {
            get: self.get.read(),
            get_range: self.get_range.read(),
            put: self.put.read(),
            delete: self.delete.read(),
            list: self.list.read(),
        }
    }
}

impl ObjectStore for MetricsStore {
    fn get(&self, key: &ObjectKey) -> Result<Object> {
        let result = self.inner.get(key);
        self.get.count(&result, |object| object.bytes.len());
        result
    }

    fn get_if_changed(&self, key: &ObjectKey, etag: &ETag) -> Result<Option<Object>> {
        let result = self.inner.get_if_changed(key, etag);
        self.get.count(&result, |object| object.as_ref().map_or(0, |object| object.bytes.len()));
        result
    }

    fn get_range(&self, request: &RangeRequest) -> Result<Vec<u8>> {
        let result = self.inner.get_range(request);
        self.get_range.count(&result, Vec::len);
        result
    }

    fn put(&self, key: &ObjectKey, sealed: &Sealed, condition: PutCondition) -> Result<ETag> {
        let result = self.inner.put(key, sealed, condition);
        self.put.count(&result, |_| sealed.len());
        result
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        let result = self.inner.delete(key);
        self.delete.count(&result, |()| 0);
        result
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<()> {
        let result = self.inner.list(prefix, each);
        self.list.count(&result, |()| 0);
        result
    }

    fn get_many(&self, requests: &[RangeRequest]) -> Vec<Result<Vec<u8>>> {
        let results = self.inner.get_many(requests);
        results.iter().for_each(|result| self.get_range.count(result, Vec::len));
        results
    }

    fn put_many(&self, objects: &[(ObjectKey, Sealed)]) -> Vec<Result<()>> {
        let results = self.inner.put_many(objects);
        results.iter().zip(objects).for_each(|(result, (_, sealed))| self.put.count(result, |()| sealed.len()));
        results
    }

    fn adopt_many(&self, objects: &[(ObjectKey, SealedFile)]) -> Option<Vec<Result<()>>> {
        let results = self.inner.adopt_many(objects)?;
        let len = |file: &SealedFile| usize::try_from(file.len).unwrap_or(usize::MAX);
        results.iter().zip(objects).for_each(|(result, (_, file))| self.put.count(result, |()| len(file)));
        Some(results)
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }

    fn is_local(&self) -> bool {
        self.inner.is_local()
    }

    fn address(&self) -> &str {
        self.inner.address()
    }

    fn set_unquoted_etags(&self, unquoted: bool) {
        self.inner.set_unquoted_etags(unquoted);
    }

    fn cancel(&self) {
        self.inner.cancel();
    }
}
