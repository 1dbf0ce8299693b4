//! A directory store on a disk that fails at each of its steps.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kura::base::disk::{DirItem, Disk, DiskFile, OpenMode, RealDisk};
use kura::store::{DirStore, ObjectStore, PutCondition, StoreError};

use crate::store_suite::{key, names, sealed};

/// Lets `steps_left` calls through that change the disk, then fails one with the error number, and
/// lets the rest through again.
struct FailingDisk {
    disk: RealDisk,
    steps_left: Arc<AtomicUsize>,
    errno: i32,
}

struct FailingFile {
    file: Arc<dyn DiskFile>,
    steps_left: Arc<AtomicUsize>,
    errno: i32,
}

fn step(steps_left: &AtomicUsize, errno: i32) -> io::Result<()> {
    match steps_left.fetch_sub(1, Ordering::SeqCst) {
        0 => Err(io::Error::from_raw_os_error(errno)),
        _ => Ok(()),
    }
}

impl Disk for FailingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode != OpenMode::Read {
            step(&self.steps_left, self.errno)?;
        }
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(FailingFile { file, steps_left: self.steps_left.clone(), errno: self.errno }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        step(&self.steps_left, self.errno).and_then(|()| self.disk.rename(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        step(&self.steps_left, self.errno).and_then(|()| self.disk.link(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        step(&self.steps_left, self.errno).and_then(|()| self.disk.remove(path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        step(&self.steps_left, self.errno).and_then(|()| self.disk.create_dir_all(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirItem>> {
        self.disk.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        step(&self.steps_left, self.errno).and_then(|()| self.disk.sync_dir(path))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
}

impl DiskFile for FailingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        step(&self.steps_left, self.errno)?;
        self.file.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync(&self) -> io::Result<()> {
        step(&self.steps_left, self.errno).and_then(|()| self.file.sync())
    }

    fn is_written(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.file.is_written(offset, len)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }

    fn lock(&self) -> io::Result<()> {
        self.file.lock()
    }
}

/// Runs a case with every step failing in turn, until it needs fewer steps than are let through.
fn at_every_step(errno: i32, case: impl Fn(&DirStore)) {
    for steps in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let plain = DirStore::create(Arc::new(RealDisk), dir.path()).unwrap();
        plain.put(&key("HEAD"), &sealed(1), PutCondition::Always).unwrap();
        let steps_left = Arc::new(AtomicUsize::new(steps));
        let disk = FailingDisk { disk: RealDisk, steps_left: steps_left.clone(), errno };
        let store = DirStore::open(Arc::new(disk), dir.path()).unwrap();
        case(&store);
        drop(store);
        let last = DirStore::open(Arc::new(RealDisk), dir.path()).unwrap();
        last.put(&key("last"), &sealed(1), PutCondition::IfAbsent).unwrap();
        let temporaries = std::fs::read_dir(dir.path().join(".tmp")).unwrap();
        assert_eq!(temporaries.count(), 2, "temporary files stay after a failure at step {steps}");
        if (1..usize::MAX / 2).contains(&steps_left.load(Ordering::SeqCst)) {
            assert!(steps > 10, "the case took {steps} steps only");
            return;
        }
    }
}

/// Whether this is the error that a disk's failure should become.
type Expected = fn(&StoreError) -> bool;

/// Repeats a put until it succeeds; what failed on the way must say why.
fn insist(store: &DirStore, expected: Expected, name: &str, condition: &PutCondition) {
    let body = sealed(1000);
    for _ in 0..3 {
        match store.put(&key(name), &body, condition.clone()) {
            Ok(_) => break,
            // The step that failed came after the object was in place.
            Err(StoreError::OutcomeUnknown { .. }) => {
                assert!(store.get(&key(name)).unwrap().bytes == body.as_bytes());
                return;
            }
            Err(error) => assert!(expected(&error), "{error}"),
        }
        assert!(!store.get(&key(name)).is_ok_and(|object| object.bytes == body.as_bytes()), "a failed put took place");
    }
    assert!(store.get(&key(name)).unwrap().bytes == body.as_bytes());
}

#[test]
fn a_put_that_fails_at_any_step_says_why_and_can_be_repeated() {
    let cases: [(i32, Expected); 4] = [
        (libc::ENOSPC, |error| matches!(error, StoreError::Full { .. })),
        (libc::EDQUOT, |error| matches!(error, StoreError::Full { .. })),
        (libc::EACCES, |error| matches!(error, StoreError::Denied { action: "write", .. })),
        (libc::EIO, |error| matches!(error, StoreError::Unreachable { .. })),
    ];
    for (errno, expected) in cases {
        at_every_step(errno, |store| {
            let etag = store.get(&key("HEAD")).unwrap().etag;
            insist(store, expected, "objects/ab/new", &PutCondition::IfAbsent);
            insist(store, expected, "HEAD", &PutCondition::IfMatch(etag));
            insist(store, expected, "leases/x", &PutCondition::Always);
        });
    }
}

#[test]
fn a_batch_that_fails_at_any_step_can_be_repeated() {
    at_every_step(libc::EIO, |store| {
        let batch: Vec<_> = (0..6).map(|i| (key(&format!("objects/{}/{i}", i % 2)), sealed(i))).collect();
        let first = store.put_many(&batch);
        for (result, (key, body)) in first.iter().zip(&batch) {
            if result.is_ok() {
                assert!(store.get(key).unwrap().bytes == body.as_bytes());
            }
        }
        if first.iter().any(Result::is_err) {
            assert!(store.put_many(&batch).iter().all(Result::is_ok));
        }
        assert_eq!(names(store, "objects/").len(), 6);
    });
}
