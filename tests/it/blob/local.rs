//! Outbox and disk cache.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io};

use kura::base::disk::{DirItem, Disk, DiskFile, OpenMode, RealDisk};
use kura::blob::codec::{BlobKind, encode};
use kura::blob::{BlobError, Cache, Outbox};
use kura::crypto::Sealed;
use kura::store::{DirStore, ObjectKey, ObjectStore};

use super::support::{keys, noise};

const WINDOW_LEN: usize = 64 * 1024;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).expect("a good name")
}

fn sealed(len: usize) -> Sealed {
    let keys = keys();
    encode(&keys, BlobKind::Content, BlobKind::Content.id_of(&keys, b""), &noise(3, len))
}

fn outbox(dir: &tempfile::TempDir) -> Outbox {
    Outbox::open(Arc::new(RealDisk), dir.path().join("outbox")).expect("opens")
}

fn cache(dir: &tempfile::TempDir, bytes_max: usize) -> Cache {
    Cache::open(Arc::new(RealDisk), dir.path().join("cache"), bytes_max as u64).expect("opens")
}

#[test]
fn what_waits_survives_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (a, b) = (key("packs/one"), key("objects/ab/two.0"));
    let (one, two) = (sealed(1000), sealed(300_000));
    {
        let outbox = outbox(&dir);
        outbox.add(&a, &one).expect("writes");
        outbox.add(&b, &two).expect("writes");
        outbox.add(&b, &two).expect("is idempotent");
        outbox.sync(&[a.clone(), b.clone(), key("packs/other")]).expect("syncs");
        outbox.add(&b, &one).expect("leaves what is synced");
    }
    fs::File::create(dir.path().join("outbox/.tmp-0123")).expect("made");
    fs::File::create(dir.path().join("outbox/odd name")).expect("made");
    let outbox = outbox(&dir);
    assert!(!dir.path().join("outbox/.tmp-0123").exists(), "temporaries are cleaned");
    assert_eq!(outbox.keys(), [b.clone(), a.clone()]);
    assert_eq!(outbox.total_bytes(), (one.len() + two.len()) as u64);
    assert!(outbox.read(&b).expect("reads") == Some(two.clone()));
    assert_eq!(outbox.read_range(&b, 10, 20).expect("reads").as_deref(), Some(&two.as_bytes()[10..30]));
    assert_eq!(outbox.read_range(&b, two.len() as u64 - 1, 20).expect("reads").map(|bytes| bytes.len()), Some(1));
    assert_eq!(outbox.read_range(&b, u64::MAX, u64::MAX).expect("reads").as_deref(), Some(&[][..]));
    outbox.remove(&b).expect("removes");
    outbox.remove(&b).expect("is idempotent");
    outbox.sync(std::slice::from_ref(&b)).expect("passes over what is gone");
    assert!(!outbox.contains(&b) && outbox.contains(&a));
    assert_eq!(outbox.read(&b).expect("reads"), None);
    assert_eq!(outbox.read_range(&b, 0, 1).expect("reads"), None);
}

#[test]
fn a_torn_object_is_told_and_can_be_written_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (a, one) = (key("packs/one"), sealed(1000));
    outbox(&dir).add(&a, &one).expect("writes");
    let path = dir.path().join("outbox/packs+one");
    fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0)).expect("cut");
    let outbox = outbox(&dir);
    assert!(matches!(outbox.read(&a), Err(BlobError::DamagedObject { .. })));
    outbox.add(&a, &one).expect("writes");
    assert!(outbox.read(&a).expect("reads") == Some(one));
    fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(99)).expect("cut");
    assert!(matches!(outbox.read(&a), Err(BlobError::DamagedObject { .. })));
    fs::remove_file(&path).expect("removed");
    assert!(matches!(outbox.read(&a), Err(BlobError::Disk { .. })), "gone without our doing is no absence");
}

#[test]
fn windows_are_kept_over_restarts() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (a, bytes) = (key("packs/one"), noise(1, 5 * WINDOW_LEN + 100));
    {
        let cache = cache(&dir, 1 << 20);
        assert!(cache.write(&a, WINDOW_LEN as u64, &bytes[WINDOW_LEN..3 * WINDOW_LEN]));
        assert!(cache.write(&a, 5 * WINDOW_LEN as u64, &bytes[5 * WINDOW_LEN..]));
        assert_eq!(cache.read(&a, 0, 10), None);
    }
    let cache = cache(&dir, 1 << 20);
    assert_eq!(cache.used_bytes(), 2 * WINDOW_LEN as u64 + 100);
    let read = cache.read(&a, 70_000, 100_000).expect("is there");
    assert!(read == bytes[70_000..170_000]);
    assert_eq!(cache.read(&a, 3 * WINDOW_LEN as u64 - 1, 2), None);
    assert_eq!(cache.read(&a, 5 * WINDOW_LEN as u64 + 90, 50).expect("is there"), &bytes[5 * WINDOW_LEN + 90..]);
    cache.invalidate(&a);
    assert_eq!(cache.read(&a, 70_000, 10), None);
    assert_eq!(cache.used_bytes(), 0);
    assert_eq!(fs::read_dir(dir.path().join("cache")).expect("lists").count(), 0);
}

#[test]
fn the_least_recently_used_object_goes_first() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let cache_of_three = cache(&dir, 3 * WINDOW_LEN);
    let window = noise(2, WINDOW_LEN);
    let keys: Vec<ObjectKey> = (0..4).map(|number| key(&format!("packs/{number}"))).collect();
    for key in &keys[..3] {
        cache_of_three.write(key, 0, &window);
    }
    assert!(cache_of_three.read(&keys[0], 0, 1).is_some());
    cache_of_three.write(&keys[3], 0, &window);
    let present: Vec<bool> = keys.iter().map(|key| cache_of_three.has(key, 0, 1)).collect();
    assert_eq!(present, [true, false, true, true]);
    drop(cache_of_three);
    let smaller = cache(&dir, WINDOW_LEN);
    assert_eq!(smaller.used_bytes(), WINDOW_LEN as u64);
    assert_eq!(fs::read_dir(dir.path().join("cache")).expect("lists").count(), 1);
}

/// A disk whose files cannot be written, or which does not know holes.
pub struct PoorDisk {
    pub is_full: Arc<AtomicBool>,
    pub knows_holes: bool,
}

struct PoorFile(Arc<dyn DiskFile>, Arc<AtomicBool>, bool);

impl Disk for PoorDisk {
    fn open(&self, path: &std::path::Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(PoorFile(RealDisk.open(path, mode)?, Arc::clone(&self.is_full), self.knows_holes)))
    }
    fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn link(&self, from: &std::path::Path, to: &std::path::Path) -> io::Result<()> {
        RealDisk.link(from, to)
    }
    fn remove(&self, path: &std::path::Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn create_dir_all(&self, path: &std::path::Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }
    fn list(&self, path: &std::path::Path) -> io::Result<Vec<DirItem>> {
        RealDisk.list(path)
    }
    fn sync_dir(&self, path: &std::path::Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn free_bytes(&self, path: &std::path::Path) -> io::Result<u64> {
        RealDisk.free_bytes(path)
    }
}

impl DiskFile for PoorFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write_at(bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn is_written(&self, offset: u64, len: u64) -> io::Result<bool> {
        Ok(!self.2 || self.0.is_written(offset, len)?)
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }
    fn lock(&self) -> io::Result<()> {
        self.0.lock()
    }
}

#[test]
fn a_full_disk_halves_the_cache_and_stops_caching_for_a_while() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let is_full = Arc::new(AtomicBool::new(false));
    let disk = PoorDisk { is_full: Arc::clone(&is_full), knows_holes: true };
    let cache = Cache::open(Arc::new(disk), dir.path().join("cache"), 1 << 20).expect("opens");
    let window = noise(2, WINDOW_LEN);
    assert!(cache.write(&key("packs/old"), 0, &window));
    assert!(cache.write(&key("packs/a"), 0, &window));
    is_full.store(true, Ordering::SeqCst);
    assert!(!cache.write(&key("packs/b"), 0, &window));
    assert_eq!(cache.read(&key("packs/b"), 0, 1), None);
    assert_eq!(cache.read(&key("packs/old"), 0, 1), None, "the oldest half gives way to what has to be written");
    assert_eq!(cache.read(&key("packs/a"), 0, WINDOW_LEN as u64).expect("still there"), window);
    is_full.store(false, Ordering::SeqCst);
    let passed_over = (0..1000).take_while(|_| !cache.write(&key("packs/b"), 0, &window)).count();
    assert!((1..1000).contains(&passed_over), "{passed_over} writes until it caches again");
}

#[test]
fn without_hole_reports_nothing_old_is_trusted() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path: PathBuf = dir.path().join("cache");
    fs::create_dir(&path).expect("made");
    let file = fs::File::create(path.join("packs+a")).expect("made");
    file.write_all_at(&[1; 100], 10 * WINDOW_LEN as u64).expect("written");
    let disk = PoorDisk { is_full: Arc::default(), knows_holes: false };
    let cache = Cache::open(Arc::new(disk), path.clone(), 1 << 20).expect("opens");
    assert!(!cache.has(&key("packs/a"), 0, 1));
    assert_eq!(fs::read_dir(path).expect("lists").count(), 0);
    assert!(cache.write(&key("packs/a"), 0, &noise(2, WINDOW_LEN)));
    assert!(cache.read(&key("packs/a"), 0, 1).is_some());
    assert!(cache.read(&key("packs/a"), WINDOW_LEN as u64, 1).is_none());
}

#[test]
fn a_store_takes_over_only_what_looks_like_an_object() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (outbox, sealed) = (outbox(&dir), sealed(5000));
    for name in ["objects/aa/whole", "objects/aa/cut", "objects/aa/overwritten"] {
        outbox.add(&key(name), &sealed).expect("writes");
    }
    let path = |name: &str| dir.path().join("outbox").join(name.replace('/', "+"));
    std::fs::write(path("objects/aa/cut"), &sealed.as_bytes()[..4000]).expect("written");
    std::fs::write(path("objects/aa/overwritten"), vec![0; sealed.len()]).expect("written");
    for name in ["objects/aa/cut", "objects/aa/overwritten", "objects/aa/missing"] {
        assert!(outbox.file(&key(name)).expect("looks").is_none(), "{name}");
    }
    let file = outbox.file(&key("objects/aa/whole")).expect("looks").expect("is there");
    assert_eq!(file.len, sealed.len() as u64);
    let store = DirStore::create(Arc::new(RealDisk), &dir.path().join("store")).expect("opens");
    let objects = [(key("objects/aa/whole"), file)];
    for _ in 0..2 {
        let answers = store.adopt_many(&objects).expect("is on the same disk");
        assert!(answers.iter().all(Result::is_ok), "also what is there already: {answers:?}");
    }
    outbox.remove(&objects[0].0).expect("removes");
    assert!(store.get(&objects[0].0).expect("reads").bytes == sealed.as_bytes());
}
