//! A store that fails when told to, for tests and simulations.

use std::sync::Arc;
use std::time::Duration;

use super::{ETag, Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, RangeRequest, Result, StoreError};
use crate::crypto::Sealed;

/// What is asked of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A whole object is read, conditionally or not.
    Get,
    /// A part of an object is read, alone or in a batch.
    GetRange,
    /// An object is written unconditionally, or as a member of a batch.
    Put,
    /// An object is written if it is absent or matches.
    PutConditional,
    /// An object is removed.
    Delete,
    /// Objects are listed; the key is the prefix.
    List,
}

/// What happens to one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It goes through.
    Pass,
    /// It fails with this error, and nothing has happened.
    Fail(StoreError),
    /// It fails as unreachable, and nothing has happened.
    Unreachable,
    /// It takes place, but the answer is lost: a put has an unknown outcome, anything else is
    /// unreachable.
    CommitThenLose,
    /// It goes through after this time.
    Delay(Duration),
}

type Decide = dyn Fn(Operation, &str) -> Fault + Send + Sync;

/// A store around another that asks a callback what happens to each request.
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    decide: Box<Decide>,
}

impl FaultStore {
    /// `decide` is asked once per request, members of batches included, with the operation and
    /// the key (or prefix).
    pub fn new(inner: Arc<dyn ObjectStore>, decide: impl Fn(Operation, &str) -> Fault + Send + Sync + 'static) -> Self {
        Self { inner, decide: Box::new(decide) }
    }

    fn unreachable(&self) -> StoreError {
        StoreError::Unreachable { store: self.inner.address().to_owned(), reason: "injected fault".to_owned() }
    }

    fn run<T>(&self, operation: Operation, key: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        match (self.decide)(operation, key) {
            Fault::Pass => act(),
            Fault::Fail(error) => Err(error),
            Fault::Unreachable => Err(self.unreachable()),
            Fault::CommitThenLose => act().and_then(|_| Err(self.unreachable())),
            Fault::Delay(time) => {
                std::thread::sleep(time);
                act()
            }
        }
    }
}

impl ObjectStore for FaultStore {
    fn get(&self, key: &ObjectKey) -> Result<Object> {
        self.run(Operation::Get, key.as_str(), || self.inner.get(key))
    }

    fn get_if_changed(&self, key: &ObjectKey, etag: &ETag) -> Result<Option<Object>> {
        self.run(Operation::Get, key.as_str(), || self.inner.get_if_changed(key, etag))
    }

    fn get_range(&self, request: &RangeRequest) -> Result<Vec<u8>> {
        self.run(Operation::GetRange, request.key.as_str(), || self.inner.get_range(request))
    }

    fn put(&self, key: &ObjectKey, sealed: &Sealed, condition: PutCondition) -> Result<ETag> {
        let operation = if condition == PutCondition::Always { Operation::Put } else { Operation::PutConditional };
        let mut committed = false;
        let result = self.run(operation, key.as_str(), || {
            let result = self.inner.put(key, sealed, condition);
            committed = result.is_ok();
            result
        });
        match result {
            Err(StoreError::Unreachable { reason, .. }) if committed => {
                Err(StoreError::OutcomeUnknown { key: key.clone(), reason })
            }
            result => result,
        }
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.run(Operation::Delete, key.as_str(), || self.inner.delete(key))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<()> {
        self.run(Operation::List, prefix, || self.inner.list(prefix, each))
    }

    fn put_many(&self, objects: &[(ObjectKey, Sealed)]) -> Vec<Result<()>> {
        let put = |(key, sealed): &(ObjectKey, Sealed)| {
            self.run(Operation::Put, key.as_str(), || match self.inner.put(key, sealed, PutCondition::IfAbsent) {
                Ok(_) | Err(StoreError::Precondition { .. }) => Ok(()),
                Err(error) => Err(error),
            })
        };
        objects.iter().map(put).collect()
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
