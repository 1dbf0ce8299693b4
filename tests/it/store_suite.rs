//! What every store must do, run against each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Barrier};

use kura::base::disk::RealDisk;
use kura::base::ids::WorkspaceId;
use kura::crypto::{Keys, Kind, Sealed};
use kura::store::{DirStore, ETag, MemoryStore, ObjectKey, ObjectStore, PutCondition, RangeRequest, StoreError, probe};

use crate::s3_server::{Fault, S3Server};

pub fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).unwrap()
}

/// A body of `len` plaintext bytes, unlike every other.
pub fn sealed(len: usize) -> Sealed {
    Keys::ephemeral(WorkspaceId::random()).seal(Kind::Content, b"test", &vec![7; len])
}

pub fn range(name: &str, offset: u64, len: u64) -> RangeRequest {
    RangeRequest { key: key(name), offset, len }
}

pub fn names(store: &dyn ObjectStore, prefix: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    store
        .list(prefix, &mut |info| {
            assert!(found.insert(info.key.to_string(), info.len).is_none(), "{} listed twice", info.key)
        })
        .unwrap();
    found
}

fn dir_store(root: &Path) -> DirStore {
    DirStore::create(Arc::new(RealDisk), root).unwrap()
}

/// Runs a case on every kind of store.
fn on_each(case: impl Fn(&dyn ObjectStore)) {
    case(&MemoryStore::new());
    let dir = tempfile::tempdir().unwrap();
    case(&dir_store(&dir.path().join("store")));
    let server = S3Server::start();
    case(&server.store(""));
    case(&server.store("some where/inside"));
}

#[test]
fn what_was_put_is_read_back() {
    on_each(|store| {
        for (name, len) in [("HEAD", 0), ("objects/ab/abcd.0", 1), ("packs/x", 300_000)] {
            let body = sealed(len);
            let etag = store.put(&key(name), &body, PutCondition::Always).unwrap();
            let object = store.get(&key(name)).unwrap();
            assert!(object.bytes == body.as_bytes() && object.etag == etag, "{name} on {}", store.address());
            let body = sealed(len + 1);
            let newer = store.put(&key(name), &body, PutCondition::Always).unwrap();
            assert_ne!(newer, etag);
            assert!(store.get(&key(name)).unwrap().bytes == body.as_bytes());
        }
    });
}

#[test]
fn an_absent_object_is_not_found() {
    on_each(|store| {
        store.put(&key("a/b"), &sealed(1), PutCondition::Always).unwrap();
        for name in ["missing", "missing/deep/er", "a", "a/b/c"] {
            let missing = |error: StoreError| matches!(error, StoreError::NotFound { key } if key.as_str() == name);
            assert!(store.get(&key(name)).map(|_| ()).is_err_and(missing), "{name} on {}", store.address());
            assert!(store.get_range(&range(name, 0, 1)).is_err_and(missing), "{name} on {}", store.address());
            assert!(store.get_if_changed(&key(name), &ETag("\"x\"".into())).map(|_| ()).is_err_and(missing));
            store.delete(&key("missing")).unwrap();
        }
    });
}

#[test]
fn a_part_ends_where_the_object_ends() {
    on_each(|store| {
        let body = sealed(10_000);
        let bytes = body.as_bytes();
        let end = bytes.len() as u64;
        store.put(&key("o"), &body, PutCondition::IfAbsent).unwrap();
        for (offset, len) in [(0, 1), (0, end), (5, 100), (end - 1, 1), (end - 1, 50), (end, 1), (end + 5, 3), (7, 0)] {
            let expected = &bytes[offset.min(end) as usize..(offset + len).min(end) as usize];
            let part = store.get_range(&range("o", offset, len)).unwrap();
            assert!(part == expected, "{offset}+{len} on {}", store.address());
        }
        let requests = [range("o", 3, 4), range("missing", 0, 4), range("o", end - 2, 9), range("o", 0, 2)];
        let answers = store.get_many(&requests);
        assert_eq!(answers.len(), 4);
        assert_eq!(answers[0].as_deref().unwrap(), &bytes[3..7]);
        assert!(matches!(&answers[1], Err(StoreError::NotFound { key }) if key.as_str() == "missing"));
        assert_eq!(answers[2].as_deref().unwrap(), &bytes[bytes.len() - 2..]);
        assert_eq!(answers[3].as_deref().unwrap(), &bytes[..2]);
    });
}

#[test]
fn conditions_are_kept() {
    on_each(|store| {
        let name = key("leases/x");
        let first = store.put(&name, &sealed(1), PutCondition::IfAbsent).unwrap();
        let lost = |result: Result<ETag, StoreError>| matches!(result, Err(StoreError::Precondition { .. }));
        assert!(lost(store.put(&name, &sealed(2), PutCondition::IfAbsent)));
        let second = store.put(&name, &sealed(3), PutCondition::IfMatch(first.clone())).unwrap();
        assert!(lost(store.put(&name, &sealed(4), PutCondition::IfMatch(first))));
        assert_eq!(store.get(&name).unwrap().etag, second);
        assert!(lost(store.put(&key("missing"), &sealed(5), PutCondition::IfMatch(second.clone()))));
        assert!(names(store, "missing").is_empty());
        store.delete(&name).unwrap();
        assert!(lost(store.put(&name, &sealed(6), PutCondition::IfMatch(second))));
        store.put(&name, &sealed(7), PutCondition::IfAbsent).unwrap();
    });
}

#[test]
fn an_unchanged_object_is_not_read_again() {
    on_each(|store| {
        let etag = store.put(&key("HEAD"), &sealed(1), PutCondition::Always).unwrap();
        assert!(store.get_if_changed(&key("HEAD"), &etag).unwrap().is_none());
        let body = sealed(2);
        store.put(&key("HEAD"), &body, PutCondition::Always).unwrap();
        assert!(store.get_if_changed(&key("HEAD"), &etag).unwrap().unwrap().bytes == body.as_bytes());
    });
}

#[test]
fn a_batch_leaves_what_is_there() {
    on_each(|store| {
        let old = sealed(1);
        store.put(&key("objects/a0/1"), &old, PutCondition::Always).unwrap();
        let batch: Vec<_> = (0..150).map(|i| (key(&format!("objects/a{}/{i}", i % 3)), sealed(i))).collect();
        store.put_many(&batch).into_iter().for_each(|result| result.unwrap());
        let mut batch: Vec<_> = (0..3).map(|i| (key(&format!("objects/a0/{i}")), sealed(i))).collect();
        batch.push((key("new/name"), sealed(9)));
        let results = store.put_many(&batch);
        assert_eq!(results.len(), 4);
        assert!(results.iter().all(Result::is_ok));
        assert!(store.get(&key("objects/a0/1")).unwrap().bytes == old.as_bytes());
        assert!(store.get(&key("new/name")).unwrap().bytes == batch[3].1.as_bytes());
        assert_eq!(names(store, "").len(), 153);
        assert!(store.put_many(&[]).is_empty() && store.get_many(&[]).is_empty());
    });
}

#[test]
fn a_listing_knows_prefixes() {
    on_each(|store| {
        for (i, name) in ["a/b/1", "a/b/2", "a/bc/3", "ab", "HEAD", "a/c"].iter().enumerate() {
            store.put(&key(name), &sealed(i), PutCondition::Always).unwrap();
        }
        let listed = |prefix: &str| names(store, prefix).into_keys().collect::<Vec<_>>().join(" ");
        assert_eq!(listed(""), "HEAD a/b/1 a/b/2 a/bc/3 a/c ab");
        assert_eq!(listed("a"), "a/b/1 a/b/2 a/bc/3 a/c ab");
        assert_eq!(listed("a/"), "a/b/1 a/b/2 a/bc/3 a/c");
        assert_eq!(listed("a/b"), "a/b/1 a/b/2 a/bc/3");
        assert_eq!(listed("a/b/"), "a/b/1 a/b/2");
        assert_eq!(listed("a/b/2"), "a/b/2");
        assert_eq!(listed("a/b/2/"), "");
        assert_eq!(listed("nothing/"), "");
        assert_eq!(listed("a//"), "");
        assert_eq!(names(store, "HEAD")["HEAD"], sealed(4).len() as u64);
        store.delete(&key("a/b/1")).unwrap();
        assert_eq!(listed("a/b/"), "a/b/2");
        // The callback may use the store.
        store.list("a/", &mut |info| assert_eq!(store.get(&info.key).unwrap().bytes.len() as u64, info.len)).unwrap();
    });
}

#[test]
fn of_sixteen_writers_exactly_one_wins() {
    on_each(|store| {
        let mut etag = None;
        for round in 0..12 {
            let name = if round % 2 == 0 { key(&format!("once/{round}")) } else { key("HEAD") };
            let condition = match (round % 2, etag.take()) {
                (1, Some(etag)) => PutCondition::IfMatch(etag),
                _ => PutCondition::IfAbsent,
            };
            let barrier = Barrier::new(16);
            let bodies: Vec<_> = (0..16).map(|_| sealed(100)).collect();
            let won: Vec<_> = std::thread::scope(|scope| {
                let put = |body| {
                    barrier.wait();
                    match store.put(&name, body, condition.clone()) {
                        Ok(_) => Some(body),
                        Err(StoreError::Precondition { .. }) => None,
                        Err(error) => panic!("{error}"),
                    }
                };
                let threads: Vec<_> = bodies.iter().map(|body| scope.spawn(move || put(body))).collect();
                threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(won.len(), 1, "round {round} on {}", store.address());
            let object = store.get(&name).unwrap();
            assert!(object.bytes == won[0].as_bytes());
            etag = store.get(&key("HEAD")).ok().map(|head| head.etag);
        }
    });
}

#[test]
fn counting_with_conditions_loses_no_step() {
    on_each(|store| {
        let name = key("HEAD");
        let keys = Keys::ephemeral(WorkspaceId::random());
        let body = |count: u64| keys.seal(Kind::Head, b"", &count.to_le_bytes());
        store.put(&name, &body(0), PutCondition::IfAbsent).unwrap();
        let read = || {
            let object = store.get(&name).unwrap();
            let plain = keys.open(Kind::Head, b"", &object.bytes).unwrap();
            (u64::from_le_bytes(plain.try_into().unwrap()), object.etag)
        };
        let step = || loop {
            let (count, etag) = read();
            match store.put(&name, &body(count + 1), PutCondition::IfMatch(etag)) {
                Ok(_) => return,
                Err(StoreError::Precondition { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| step()));
            }
        });
        assert_eq!(read().0, 40);
    });
}

#[test]
fn a_probe_finds_conditions_and_leaves_nothing() {
    on_each(|store| {
        let found = probe(store).unwrap();
        assert!(found.conditional && found.delete && !found.unquoted_etags, "{found:?} on {}", store.address());
        assert!(names(store, "").is_empty());
    });
}

#[test]
fn readers_never_see_a_part_of_an_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir_store(dir.path());
    let bodies = [sealed(200_000), sealed(50_000)];
    store.put(&key("HEAD"), &bodies[0], PutCondition::Always).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            (0..50).for_each(|i| drop(store.put(&key("HEAD"), &bodies[i % 2], PutCondition::Always).unwrap()))
        });
        while !writer.is_finished() {
            let seen = store.get(&key("HEAD")).unwrap().bytes;
            assert!(bodies.iter().any(|body| body.as_bytes() == seen));
        }
    });
}

#[test]
fn a_missing_or_empty_directory_is_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let no_store = |result: Result<DirStore, StoreError>| matches!(result.err(), Some(StoreError::NoStore { .. }));
    assert!(no_store(DirStore::open(Arc::new(RealDisk), &dir.path().join("missing"))));
    assert!(!dir.path().join("missing").exists());
    assert!(no_store(DirStore::open(Arc::new(RealDisk), dir.path())));
    // A store whose disk goes away while it is in use is not an empty one.
    let root = dir.path().join("deep/root");
    let store = dir_store(&root);
    store.put(&key("a/b"), &sealed(1), PutCondition::Always).unwrap();
    std::fs::remove_dir_all(&root).unwrap();
    let gone = |error: Option<StoreError>| matches!(error, Some(StoreError::NoStore { .. }));
    assert!(gone(store.get(&key("a/b")).err()));
    assert!(gone(store.get_range(&range("a/b", 0, 1)).err()));
    assert!(gone(store.list("", &mut |_| ()).err()));
    assert!(gone(store.list("a/", &mut |_| ()).err()));
    assert!(gone(store.delete(&key("a/b")).err()));
    assert!(store.put(&key("a/b"), &sealed(1), PutCondition::IfAbsent).is_err());
    assert!(!root.exists());
    std::fs::create_dir(&root).unwrap();
    assert!(gone(store.get(&key("a/b")).err()));
}

#[test]
fn a_directory_holds_objects_under_their_names_and_nothing_else_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir_store(dir.path());
    store.put(&key("objects/ab/x"), &sealed(5), PutCondition::Always).unwrap();
    assert_eq!(std::fs::read(dir.path().join("objects/ab/x")).unwrap().len(), sealed(5).len());
    std::fs::create_dir(dir.path().join(".hidden")).unwrap();
    std::fs::File::create(dir.path().join(".hidden/x")).unwrap();
    std::fs::File::create(dir.path().join("odd name")).unwrap();
    assert_eq!(names(&store, "").into_keys().collect::<Vec<_>>(), ["objects/ab/x"]);
    // A store that was copied without its hidden files opens, and can be written.
    std::fs::remove_file(dir.path().join(".lock")).unwrap();
    std::fs::remove_dir_all(dir.path().join(".tmp")).unwrap();
    let copy = DirStore::open(Arc::new(RealDisk), dir.path()).unwrap();
    copy.put(&key("HEAD"), &sealed(5), PutCondition::IfAbsent).unwrap();
    // So can one whose temporary directory is removed under it, after one error.
    assert!(store.put(&key("two"), &sealed(5), PutCondition::Always).is_ok());
    std::fs::remove_dir_all(dir.path().join(".tmp")).unwrap();
    assert!(store.put(&key("three"), &sealed(5), PutCondition::Always).is_err());
    store.put(&key("three"), &sealed(5), PutCondition::Always).unwrap();
}

#[test]
fn temporary_files_of_the_dead_are_removed_and_of_the_living_kept() {
    let dir = tempfile::tempdir().unwrap();
    let temporary = dir.path().join(".tmp");
    let living = dir_store(dir.path());
    living.put(&key("a"), &sealed(1), PutCondition::Always).unwrap();
    let entries = || -> BTreeSet<String> {
        std::fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let owner = entries().into_iter().next().unwrap();
    let in_use = owner.replace(".owner", "-77");
    std::fs::File::create(temporary.join(&in_use)).unwrap();
    for dead in ["00000000000000aa.owner", "00000000000000aa-0", "00000000000000aa-1"] {
        std::fs::File::create(temporary.join(dead)).unwrap();
    }
    let newcomer = DirStore::open(Arc::new(RealDisk), dir.path()).unwrap();
    assert_eq!(entries().len(), 5, "reading removes nothing");
    newcomer.put(&key("b"), &sealed(1), PutCondition::Always).unwrap();
    assert!(entries().contains(&owner) && entries().contains(&in_use));
    assert!(!entries().iter().any(|name| name.starts_with("00000000000000aa")));
    drop(newcomer);
    drop(living);
    let last = dir_store(dir.path());
    last.put(&key("c"), &sealed(1), PutCondition::IfAbsent).unwrap();
    assert_eq!(entries().len(), 1, "its owner is gone now");
}

#[test]
fn a_listing_goes_over_pages() {
    let server = S3Server::start();
    server.set_page_len(7);
    let store = server.store("p");
    let batch: Vec<_> = (0..40).map(|i| (key(&format!("objects/{i}")), sealed(1))).collect();
    assert!(store.put_many(&batch).iter().all(Result::is_ok));
    server.store("p2").put(&key("objects/other"), &sealed(1), PutCondition::Always).unwrap();
    assert_eq!(names(&store, "objects/").len(), 40);
    assert!(server.count("ListObjectsV2") >= 6);
    server.set_fault(|operation, _| if operation == "ListObjectsV2" { Fault::Deny } else { Fault::Pass });
    let error = store.list("", &mut |_| ()).unwrap_err();
    assert!(matches!(&error, StoreError::Denied { action: "s3:ListBucket", .. }), "{error}");
}
