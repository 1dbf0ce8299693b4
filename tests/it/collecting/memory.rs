//! Collecting takes memory by the number of names and blobs, and little of it: 100,000 versions and a million objects
//! with `KURA_TEST_LONG=1`, a hundredth of that otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kura::base::clock::SystemClock;
use kura::base::disk::RealDisk;
use kura::base::ids::{BlobId, ClientId};
use kura::blob::location;
use kura::crypto::Sealed;
use kura::store::{ETag, MemoryStore, Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, RangeRequest, Result};
use kura::sync::{CollectOptions, Collector, CollectorParts};
use kura::version::retention::Retention;

use super::support::read_all;
use crate::workspace_rig::*;

/// A store with so many dead objects besides what it holds.
struct Littered {
    inner: Arc<MemoryStore>,
    litter: u64,
    deleted: AtomicU64,
}

/// The name of a dead object; in the order of names, as a store lists them.
fn litter(number: u64, of: u64) -> ObjectKey {
    let mut id = [0x11; 32];
    id[..8].copy_from_slice(&(u64::MAX / of * number).to_be_bytes());
    location::object_key(&BlobId(id), 0)
}

impl ObjectStore for Littered {
    fn get(&self, key: &ObjectKey) -> Result<Object> {
        self.inner.get(key)
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
        self.deleted.fetch_add(1, Ordering::Relaxed);
        self.inner.delete(key)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<()> {
        self.inner.list(prefix, each)?;
        if prefix == "objects/" {
            let left = self.litter.saturating_sub(self.deleted.load(Ordering::Relaxed));
            (0..left)
                .for_each(|number| each(ObjectInfo { key: litter(number, self.litter), len: 300_000, modified: None }));
        }
        Ok(())
    }

    fn concurrency(&self) -> usize {
        1
    }

    fn is_local(&self) -> bool {
        true
    }

    fn address(&self) -> &str {
        "littered"
    }
}

/// A field of this process's status, in KiB.
fn status_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn memory_is_bounded_however_much_there_is_to_collect() {
    // Memory is that of a process, so it has one of its own.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "collecting::memory::in_a_process_of_its_own", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "run by the test before it, in a process of its own"]
fn in_a_process_of_its_own() {
    let (versions, objects, most_kib) = match std::env::var_os("KURA_TEST_LONG").is_some() {
        true => (100_000, 1_000_000, 512 << 10),
        false => (1_000, 10_000, 32 << 10),
    };
    let rig = Rig::new();
    let w = rig.open("state");
    for version in 0..versions {
        if version % 100 == 0 {
            mkdir(&w, &format!("d{}", version / 100));
        }
        write(&w, &format!("d{}/f{}", version / 100, version % 100), &crate::space::noise(300, version));
        snapshot(&w);
        if version % 1000 == 999 {
            assert_eq!(w.flush(Some(std::time::Duration::from_secs(600))).unwrap().unpublished_versions, 0);
        }
    }
    w.forget(&Retention { last: versions as u32 / 2, ..Retention::default() }, false).unwrap();
    assert_eq!(w.flush(Some(std::time::Duration::from_secs(600))).unwrap().unpublished_versions, 0);
    w.close(true).unwrap();
    drop(w);
    let there = rig.memory.snapshot().len() as u64;
    let store = Arc::new(Littered {
        inner: rig.memory.clone(),
        litter: objects - there.min(objects / 2),
        deleted: AtomicU64::new(0),
    });
    let collector = Collector::new(CollectorParts {
        store: store.clone(),
        keys: rig.keys(),
        disk: Arc::new(RealDisk),
        clock: Arc::new(SystemClock),
        client: ClientId::random(),
        leases: None,
    });
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status_kib("VmRSS");
    let report = collector.run(CollectOptions { delete: true, grace_ms: 0, sparse_percent: 50 }, &|| false).unwrap();
    let taken = status_kib("VmHWM").saturating_sub(before);
    println!(
        "{versions} versions, {} objects, {} blobs kept: {} deleted, {taken} KiB taken",
        report.found.objects, report.found.blobs, report.deleted
    );
    assert!(report.found.objects + 100 > objects, "{report:?}");
    assert!(report.deleted >= store.litter, "{report:?}");
    assert!(taken < most_kib, "{taken} KiB");
    assert!(read_all(&rig.memory, &rig.keys()).unwrap() >= versions as usize / 2);
}
