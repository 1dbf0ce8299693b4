//! A store that lists what it was not asked for, and more than there can be.

use std::sync::Arc;

use kura::crypto::Sealed;
use kura::store::{
    ETag, MemoryStore, Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, RangeRequest, Result, StoreError,
};
use kura::workspace::{Workspace, WorkspaceError};

use super::space;

/// Lists more names than its objects have; each of them can be read.
struct Liar {
    inner: Arc<MemoryStore>,
    names: Vec<String>,
    object: Vec<u8>,
}

impl ObjectStore for Liar {
    fn get(&self, key: &ObjectKey) -> Result<Object> {
        match self.inner.get(key) {
            Err(StoreError::NotFound { .. }) if self.names.iter().any(|name| name == key.as_str()) => {
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
        let key = |name: &String| ObjectKey::new(name.clone()).unwrap();
        self.names.iter().for_each(|name| each(ObjectInfo { key: key(name), len: u64::MAX, modified: None }));
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

/// Opens a workspace whose store lists these names as well.
fn opened(
    names: impl IntoIterator<Item = String>,
    object: Vec<u8>,
) -> std::result::Result<Arc<Workspace>, WorkspaceError> {
    let root = tempfile::tempdir().unwrap();
    let inner = Arc::new(MemoryStore::new());
    drop(space::create(inner.clone(), root.path()));
    let store = Arc::new(Liar { inner, names: names.into_iter().collect(), object });
    space::open(store, &root.path().join("elsewhere"))
}

#[test]
fn names_that_were_not_asked_for_do_not_keep_a_workspace_from_opening() {
    let names =
        ["a", "key", "keys", "epoch", "keys/x", "keys/", "epochs/00", "epochs/-1", "HEAD2", "epochs/4294967296"];
    let names = names.into_iter().filter(|name| ObjectKey::new(*name).is_some()).map(str::to_owned);
    opened(names, b"anything".to_vec()).unwrap();
}

#[test]
fn more_keys_than_a_workspace_has_are_refused_before_they_fill_memory() {
    let many = (0..5000).map(|number| format!("epochs/{number}"));
    match opened(many, vec![0; 10]).map(drop) {
        Err(WorkspaceError::Store(StoreError::Invalid { target, reason })) => {
            assert_eq!(
                format!("{target}: {reason}"),
                "epochs/ in liar: it holds more objects than a workspace has keys"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_that_is_too_long_does_not_keep_the_others_from_opening() {
    let long = (1..4_u8).map(|number| format!("keys/{}", uuid::Uuid::from_bytes([number; 16])));
    opened(long, vec![0; 600_000]).unwrap();
}
