//! Content that is here though the store is away: fetched ahead, or pinned; what waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kura::base::clock::{ManualClock, Timestamp};
use kura::blob::BlobError;
use kura::store::{Fault, StoreError};
use kura::version::VersionError;
use kura::workspace::{OpenOptions, Workspace, WorkspaceError};
use kura::worktree::{Wait, WorkError};

use crate::workspace_rig::*;

const CACHE_BYTES_MAX: u64 = 128 * 1024;

/// A machine with a small cache and next to no memory.
fn small(rig: &Rig, name: &str) -> OpenOptions {
    let mut options = rig.options(name);
    options.cache_dir = rig.dir.path().join(format!("cache-{name}"));
    options.cache_bytes_max = CACHE_BYTES_MAX;
    options.memory_bytes_max = 1;
    options
}

fn noise_from(seed: u8, len: usize) -> Vec<u8> {
    noise(len).into_iter().map(|byte| byte ^ seed).collect()
}

/// `a` has published `d/…` and `other`; both are too large for a small cache.
fn published() -> (Rig, Arc<Workspace>) {
    let rig = Rig::new();
    let a = rig.open("a");
    mkdir(&a, "d");
    mkdir(&a, "d/e");
    write(&a, "d/large", &noise_from(1, 700_000));
    write(&a, "d/e/small", &noise_from(2, 40_000));
    write(&a, "other", &noise_from(3, 900_000));
    publish(&a);
    (rig, a)
}

fn cut(rig: &Rig) {
    rig.set_fault(|_, _| Fault::Unreachable);
}

fn is_unreachable(w: &Workspace, path: &str) -> bool {
    let file = ino(w, path);
    match w.tree().read(file, 0, 4096, Wait::Yes) {
        Err(WorkError::Version(VersionError::Blob(BlobError::Store(StoreError::Unreachable { .. })))) => true,
        Ok(_) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_was_fetched_ahead_is_read_without_the_store_and_the_rest_fails_clearly() {
    let (rig, _a) = published();
    let b = rig.try_open(OpenOptions { cache_bytes_max: 1 << 30, ..small(&rig, "b") }).unwrap();
    let told = AtomicUsize::new(0);
    let state = b
        .prefetch(&[b"d".to_vec()], &|state| {
            assert!(state.bytes <= state.bytes_total && state.files == 2);
            told.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
    assert_eq!((state.bytes, state.bytes_total, state.is_done, state.failure), (740_000, 740_000, true, None));
    assert!(told.into_inner() >= 2);
    assert!(matches!(
        b.prefetch(&[b"d".to_vec(), b"none".to_vec()], &|_| ()),
        Err(WorkspaceError::Version(VersionError::NoSuchPath { .. }))
    ));
    ino(&b, "other");
    cut(&rig);
    assert!(read(&b, "d/large") == noise_from(1, 700_000) && read(&b, "d/e/small") == noise_from(2, 40_000));
    assert!(is_unreachable(&b, "other"));
    let failed = b.prefetch(&[b"other".to_vec()], &|_| ()).unwrap();
    assert!(
        failed.is_done && failed.bytes < failed.bytes_total && failed.failure.unwrap().contains("cannot be reached")
    );
    drop(b);
    let b = rig.try_open(OpenOptions { cache_bytes_max: 1 << 30, ..small(&rig, "b") }).unwrap();
    assert!(b.status().offline.is_some());
    assert!(read(&b, "d/large") == noise_from(1, 700_000), "also after mounting anew without the store");
}

#[test]
fn what_is_pinned_stays_whatever_else_is_read_and_whoever_opens_anew() {
    let (rig, _a) = published();
    let b = rig.try_open(small(&rig, "b")).unwrap();
    b.set_pins(&[b"d".to_vec()], true).unwrap();
    assert_eq!(b.fetch_pinned(&|_| ()).unwrap().failure, None);
    for _ in 0..2 {
        assert!(read(&b, "other") == noise_from(3, 900_000));
    }
    assert!(b.status().cache_bytes >= 740_000);
    drop(b);
    cut(&rig);
    let b = rig.try_open(small(&rig, "b")).unwrap();
    assert_eq!((b.pins(), b.status().pinned), (vec![b"d".to_vec()], 1));
    assert!(read(&b, "d/large") == noise_from(1, 700_000) && read(&b, "d/e/small") == noise_from(2, 40_000));
    assert!(b.set_pins(&[b"none".to_vec()], true).is_err());
    rig.heal();
    b.set_pins(&[b"d".to_vec()], false).unwrap();
    b.fetch_pinned(&|_| ()).unwrap();
    assert!(b.status().cache_bytes <= CACHE_BYTES_MAX && b.pins().is_empty());
}

#[test]
fn what_is_pinned_is_fetched_as_it_changes_elsewhere() {
    let (rig, a) = published();
    let b = rig.try_open(small(&rig, "b")).unwrap();
    b.start();
    b.set_pins(&[b"d".to_vec(), b"not there any more".to_vec()], true).unwrap_err();
    b.set_pins(&[b"d".to_vec()], true).unwrap();
    let is_here = |bytes| {
        b.status().pinning.is_some_and(|state| state.is_done && state.failure.is_none() && state.bytes == bytes)
    };
    wait_until("what is pinned is here", || is_here(740_000));
    write(&a, "d/large", &noise_from(9, 800_000));
    write(&a, "d/new", &noise_from(8, 50_000));
    publish(&a);
    b.pull().unwrap();
    wait_until("what changed is here", || is_here(890_000));
    cut(&rig);
    assert!(read(&b, "d/large") == noise_from(9, 800_000) && read(&b, "d/new") == noise_from(8, 50_000));
    rig.heal();
    b.close(true).unwrap();
}

#[test]
fn fetching_in_the_background_is_told_by_the_status() {
    let (rig, _a) = published();
    let b = rig.try_open(OpenOptions { cache_bytes_max: 1 << 30, ..small(&rig, "b") }).unwrap();
    assert!(!b.prefetch_in_background(&[b"d".to_vec()]).unwrap(), "nothing runs there");
    b.start();
    assert!(b.prefetch_in_background(&[b"none".to_vec()]).is_err());
    assert!(b.prefetch_in_background(&[b"d".to_vec()]).unwrap());
    wait_until("it is fetched", || b.status().fetching.is_some_and(|state| state.is_done));
    let state = b.status().fetching.unwrap();
    assert_eq!((state.bytes, state.failure), (740_000, None));
    assert!(b.status().to_string().contains("fetching     740000 of 740000 bytes, done"));
    b.close(true).unwrap();
}

#[test]
fn files_that_wait_are_named_and_a_pace_tells_how_long() {
    let rig = Rig::new();
    let clock = Arc::new(ManualClock::new(Timestamp::from_parts(1_800_000_000, 0)));
    let mut options = rig.options("a");
    options.clock = clock.clone();
    let w = rig.try_open(options).unwrap();
    write(&w, "published", &noise(300_000));
    write(&w, "goes", b"away");
    assert_eq!(w.status().publishing_s, None, "no pace is known");
    let ticking = clock.clone();
    rig.set_fault(move |_, _| {
        ticking.advance_ms(1_000);
        Fault::Pass
    });
    publish(&w);
    rig.heal();
    assert!(w.unpublished_files(10).unwrap().is_empty() && w.status().publishing_s.is_none());
    write(&w, "queued", &noise(400_000));
    remove(&w, "goes");
    snapshot(&w);
    write(&w, "unrecorded", b"closed");
    let file = ino(&w, "published");
    w.tree().open(file, true, false, 0, Wait::Yes).unwrap();
    w.tree().write(file, 0, b"draft", 0, Wait::Yes).unwrap();
    let found: Vec<(String, u64, &str)> = w
        .unpublished_files(10)
        .unwrap()
        .into_iter()
        .map(|file| (String::from_utf8_lossy(&file.path).into_owned(), file.bytes, file.state))
        .collect();
    let expected = [
        ("goes", 0, "removed"),
        ("published", 300_000, "draft"),
        ("queued", 400_000, "queued"),
        ("unrecorded", 6, "unrecorded"),
    ];
    assert_eq!(found, expected.map(|(path, bytes, state)| (path.to_owned(), bytes, state)));
    assert_eq!(w.unpublished_files(2).unwrap().len(), 2);
    let status = w.status();
    assert!(
        status.publishing_s.is_some_and(|seconds| seconds >= 1) && status.to_string().contains("at the pace so far")
    );
    w.tree().release(file, true);
}

#[test]
fn a_flush_waits_for_the_store_to_come_back_but_not_for_ever() {
    let rig = Rig::new();
    let w = rig.open("a");
    write(&w, "before", b"written before");
    w.flush(Some(Duration::from_secs(60))).unwrap();
    cut(&rig);
    write(&w, "f", b"written offline");
    let failed = w.flush(Some(Duration::from_millis(1))).unwrap();
    assert!(failed.unpublished_versions > 0 && failed.reason.unwrap().contains("cannot be reached"));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| w.flush(Some(Duration::from_secs(60))).unwrap());
        wait_until("it is tried", || w.status().offline.is_some());
        rig.heal();
        assert_eq!(waiting.join().unwrap().unpublished_versions, 0);
    });
    assert!(w.status().offline.is_none());
}
