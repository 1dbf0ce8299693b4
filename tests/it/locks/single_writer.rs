//! Stores without conditional writes: one client writes, and says so.

use kura::crypto::Sealed;
use kura::store::{
    ETag, MemoryStore, Object, ObjectInfo, ObjectKey, PutCondition, RangeRequest, Result as StoreResult,
};
use kura::sync::{CollectOptions, SyncError};
use kura::version::retention::Retention;
use kura::workspace::OpenOptions;

use super::*;
use crate::s3_server::S3Server;

/// Takes conditional puts for ordinary ones.
struct Unconditional(Arc<MemoryStore>);

impl ObjectStore for Unconditional {
    fn get(&self, key: &ObjectKey) -> StoreResult<Object> {
        self.0.get(key)
    }

    fn get_if_changed(&self, key: &ObjectKey, etag: &ETag) -> StoreResult<Option<Object>> {
        self.0.get_if_changed(key, etag)
    }

    fn get_range(&self, request: &RangeRequest) -> StoreResult<Vec<u8>> {
        self.0.get_range(request)
    }

    fn put(&self, key: &ObjectKey, sealed: &Sealed, _: PutCondition) -> StoreResult<ETag> {
        self.0.put(key, sealed, PutCondition::Always)
    }

    fn delete(&self, key: &ObjectKey) -> StoreResult<()> {
        self.0.delete(key)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> StoreResult<()> {
        self.0.list(prefix, each)
    }

    fn concurrency(&self) -> usize {
        self.0.concurrency()
    }

    fn is_local(&self) -> bool {
        false
    }

    fn address(&self) -> &str {
        self.0.address()
    }
}

struct Place {
    dir: tempfile::TempDir,
    store: Arc<dyn ObjectStore>,
}

impl Place {
    fn new(store: Arc<dyn ObjectStore>) -> Self {
        let made = Workspace::init_in(&*store, init_options()).unwrap();
        assert!(!made.conditional_writes);
        Self { dir: tempfile::tempdir().unwrap(), store }
    }

    fn options(&self, name: &str) -> OpenOptions {
        let mut options = options(&self.dir, name);
        (options.host, options.user) = (name.to_owned(), "user".to_owned());
        options
    }

    fn open(&self, name: &str) -> Result<Arc<Workspace>, WorkspaceError> {
        Workspace::open_in(self.store.clone(), self.options(name))
    }

    fn take_over(&self, name: &str) -> Arc<Workspace> {
        let options = OpenOptions { take_over: true, ..self.options(name) };
        Workspace::open_in(self.store.clone(), options).unwrap()
    }
}

fn not_writer<T>(outcome: Result<T, WorkspaceError>) -> String {
    match outcome.map(|_| ()) {
        Err(WorkspaceError::Sync(SyncError::NotWriter { holder, .. })) => holder,
        other => panic!("{other:?}"),
    }
}

fn one_writes(store: Arc<dyn ObjectStore>) {
    let place = Place::new(store);
    let a = place.open("a").unwrap();
    let status = a.status();
    assert!(!status.conditional_writes && status.writer.as_deref() == Some("user@a"));
    assert!(status.to_string().contains("WARNING") && status.to_string().contains("user@a"));
    write(&a, "f", b"by a");
    publish(&a);
    assert_eq!(not_writer(place.open("b")), "user@a");
    let reader =
        Workspace::open_in(place.store.clone(), OpenOptions { read_only: true, ..place.options("r") }).unwrap();
    assert_eq!(read(&reader, "f"), b"by a");
    assert!(a.lock(&[b"f".to_vec()], None, false).is_err(), "there is nobody to lock it from");
    a.close(true).unwrap();
    let b = place.open("b").unwrap();
    write(&b, "f", b"by b");
    publish(&b);
    assert_eq!(not_writer(place.open("a")), "user@b");
    drop(b);
    place.open("b").expect("whoever was killed is still the writer").close(true).unwrap();
    assert_eq!(read(&place.open("a").unwrap(), "f"), b"by b");
}

#[test]
fn one_client_writes_and_the_next_when_it_has_closed() {
    one_writes(Arc::new(Unconditional(Arc::new(MemoryStore::new()))));
}

#[test]
fn the_same_on_s3_that_ignores_conditions() {
    let server = S3Server::start();
    server.ignore_conditions();
    one_writes(Arc::new(server.store("")));
}

#[test]
fn whoever_is_taken_over_publishes_nothing_more_and_loses_nothing() {
    let place = Place::new(Arc::new(Unconditional(Arc::new(MemoryStore::new()))));
    let a = place.open("a").unwrap();
    write(&a, "f", b"base");
    publish(&a);
    write(&a, "f", b"by a, not published");
    let b = place.take_over("b");
    write(&b, "f", b"by b");
    publish(&b);
    let flushed = a.flush(Some(std::time::Duration::from_millis(1))).unwrap();
    assert!(flushed.unpublished_versions > 0 && flushed.reason.unwrap().contains("user@b"));
    assert!(has_event(&a, "take-over") && a.status().blocked.is_some());
    assert_eq!(read(&b, "f"), b"by b");
    publish(&b);
    b.close(true).unwrap();
    // The place is free: what waited is merged with what came meanwhile.
    publish(&a);
    let [copy] = beside(&a).try_into().unwrap();
    assert_eq!((read(&a, "f"), read(&a, &copy)), (b"by a, not published".to_vec(), b"by b".to_vec()));
}

#[test]
fn whoever_is_taken_over_collects_nothing_more() {
    let place = Place::new(Arc::new(Unconditional(Arc::new(MemoryStore::new()))));
    let a = place.open("a").unwrap();
    for round in 0..3_u8 {
        write(&a, "f", &vec![round; 300_000]);
        publish(&a);
    }
    a.forget(&Retention { last: 1, ..Retention::default() }, false).unwrap();
    publish(&a);
    let b = place.take_over("b");
    write(&b, "f", b"by b");
    publish(&b);
    let options = CollectOptions { delete: true, grace_ms: 0, sparse_percent: 50 };
    let refused = a.collect(options, &|| false).map(|report| report.sealed);
    assert_eq!(not_writer(refused), "user@b");
    b.pull().unwrap();
    assert_eq!(read(&b, "f"), b"by b");
}

#[test]
fn a_head_that_was_overwritten_is_noticed_and_merged() {
    let memory = Arc::new(MemoryStore::new());
    let place = Place::new(Arc::new(Unconditional(memory.clone())));
    let a = place.open("a").unwrap();
    write(&a, "f", b"base");
    publish(&a);
    let b = place.take_over("b");
    write(&b, "by b", b"b");
    publish(&b);
    let a2 = {
        drop(a);
        place.take_over("a")
    };
    write(&a2, "by a", b"a");
    publish(&a2);
    assert_eq!((read(&a2, "by a"), read(&a2, "by b")), (b"a".to_vec(), b"b".to_vec()));
    assert_eq!(b.status().writer.as_deref(), Some("user@b"));
    assert!(b.flush(Some(std::time::Duration::from_millis(1))).unwrap().reason.is_none(), "it has nothing to publish");
    b.pull().unwrap();
    assert_eq!(read(&b, "by a"), b"a");
}
