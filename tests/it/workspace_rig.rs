//! What the tests of workspaces and publishing build on: a place with a state, an observed store, and shorthands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kura::base::ids::{Sha256, VersionId};
use kura::base::sim_disk::SimDisk;
use kura::crypto::slots::{Credential, KdfParams, NewSlot, Secret, unlock};
use kura::crypto::{Keys, Sealed};
use kura::store::{
    ETag, Fault, FaultStore, MemoryStore, Object, ObjectInfo, ObjectKey, ObjectStore, Operation, PutCondition,
    RangeRequest, StoreUrl,
};
use kura::version::entry::{Body, Entry, Ino};
use kura::version::index::{IndexRecord, sha256};
use kura::workspace::{InitOptions, OpenOptions, Side, Workspace, WorkspaceError};
use kura::worktree::{Caller, Changes, FileKind, NewNode, Wait};
use parking_lot::Mutex;
use tempfile::TempDir;

pub const ME: Caller = Caller { uid: 0, gid: 0 };

pub fn passphrase() -> Credential {
    Credential::Passphrase(Secret::from_text("correct horse".to_owned()))
}

pub fn init_options() -> InitOptions {
    let slots = vec![NewSlot { label: "test".to_owned(), credential: passphrase() }];
    InitOptions { kdf: KdfParams::minimum(), recovery_code: false, ..InitOptions::new(slots) }
}

type Decide = dyn Fn(Operation, &str) -> Fault + Send + Sync;

/// Reads are worth caching on disk; counts what is uploaded, and tells when HEAD was swung.
struct Remote(FaultStore, Arc<Uploads>);

#[derive(Default)]
pub struct Uploads {
    pub objects: AtomicUsize,
    pub bytes: AtomicUsize,
    swung: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
}

impl Uploads {
    fn note(&self, sealed: &Sealed) {
        self.objects.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(sealed.len(), Ordering::SeqCst);
    }

    /// Objects and bytes since the last call.
    pub fn take(&self) -> (usize, usize) {
        (self.objects.swap(0, Ordering::SeqCst), self.bytes.swap(0, Ordering::SeqCst))
    }
}

impl ObjectStore for Remote {
    fn get(&self, key: &ObjectKey) -> kura::store::Result<Object> {
        self.0.get(key)
    }

    fn get_if_changed(&self, key: &ObjectKey, etag: &ETag) -> kura::store::Result<Option<Object>> {
        self.0.get_if_changed(key, etag)
    }

    fn get_range(&self, request: &RangeRequest) -> kura::store::Result<Vec<u8>> {
        self.0.get_range(request)
    }

    fn put(&self, key: &ObjectKey, sealed: &Sealed, condition: PutCondition) -> kura::store::Result<ETag> {
        self.1.note(sealed);
        let answer = self.0.put(key, sealed, condition);
        if key.as_str() == "HEAD"
            && let Some(swung) = &*self.1.swung.lock()
        {
            swung();
        }
        answer
    }

    fn delete(&self, key: &ObjectKey) -> kura::store::Result<()> {
        self.0.delete(key)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> kura::store::Result<()> {
        self.0.list(prefix, each)
    }

    fn put_many(&self, objects: &[(ObjectKey, Sealed)]) -> Vec<kura::store::Result<()>> {
        objects.iter().for_each(|(_, sealed)| self.1.note(sealed));
        self.0.put_many(objects)
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

/// A workspace in memory behind a store that fails when told to, and a directory for states.
pub struct Rig {
    pub dir: TempDir,
    pub memory: Arc<MemoryStore>,
    pub store: Arc<dyn ObjectStore>,
    fault: Arc<Mutex<Option<Box<Decide>>>>,
    pub uploads: Arc<Uploads>,
}

impl Rig {
    pub fn new() -> Self {
        let memory = Arc::new(MemoryStore::new());
        Workspace::init_in(&*memory, init_options()).unwrap();
        let fault: Arc<Mutex<Option<Box<Decide>>>> = Arc::default();
        let uploads = Arc::<Uploads>::default();
        let asked = fault.clone();
        let store = FaultStore::new(memory.clone(), move |operation, key| {
            asked.lock().as_ref().map_or(Fault::Pass, |decide| decide(operation, key))
        });
        let store = Arc::new(Remote(store, uploads.clone()));
        Self { dir: tempfile::tempdir().unwrap(), memory, store, fault, uploads }
    }

    pub fn set_fault(&self, decide: impl Fn(Operation, &str) -> Fault + Send + Sync + 'static) {
        *self.fault.lock() = Some(Box::new(decide));
    }

    pub fn heal(&self) {
        *self.fault.lock() = None;
    }

    pub fn options(&self, state: &str) -> OpenOptions {
        options(&self.dir, state)
    }

    pub fn open(&self, state: &str) -> Arc<Workspace> {
        self.try_open(self.options(state)).unwrap()
    }

    /// With its local state on a simulated disk.
    pub fn open_on(&self, state: &str, disk: SimDisk) -> Arc<Workspace> {
        let mut options = self.options(state);
        options.disk = Arc::new(disk);
        self.try_open(options).unwrap()
    }

    pub fn try_open(&self, options: OpenOptions) -> Result<Arc<Workspace>, WorkspaceError> {
        Workspace::open_in(self.store.clone(), options)
    }

    /// From now on, whenever HEAD is written, everything it names must be in the store.
    pub fn check_every_swing(&self) -> Arc<AtomicUsize> {
        let (memory, count) = (self.memory.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = count.clone();
        *self.uploads.swung.lock() = Some(Box::new(move || {
            whole(&memory);
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        count
    }

    /// The keys of the workspace, to look into the store with.
    pub fn keys(&self) -> Keys {
        let objects = self.memory.snapshot();
        let part = |prefix: &str| -> Vec<(String, Vec<u8>)> {
            let of = |(key, bytes): (&ObjectKey, &Vec<u8>)| {
                key.as_str().strip_prefix(prefix).map(|name| (name.to_owned(), bytes.clone()))
            };
            objects.iter().filter_map(of).collect()
        };
        let header = part("kura.json").remove(0).1;
        let slots: Vec<_> = part("keys/").into_iter().map(|(id, bytes)| (id.parse().unwrap(), bytes)).collect();
        let epochs: Vec<_> = part("epochs/").into_iter().map(|(n, bytes)| (n.parse().unwrap(), bytes)).collect();
        unlock(&header, &slots, &epochs, &passphrase()).unwrap()
    }
}

pub fn options(dir: &TempDir, state: &str) -> OpenOptions {
    let store = StoreUrl::Dir(dir.path().join("store"));
    let credential = Box::new(|| Ok(passphrase()));
    let mut options = OpenOptions::new(store, dir.path().join(state), dir.path().join("cache"), credential);
    options.machine = Some(Sha256([7; 32]));
    options
}

/// The inode at a path of the live tree.
pub fn ino(workspace: &Workspace, path: &str) -> Ino {
    let mut at = Ino::ROOT;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        at = workspace.tree().lookup(at, name.as_bytes(), Wait::Yes).unwrap().ino;
        workspace.tree().forget(at, 1);
    }
    at
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

pub fn mkdir(workspace: &Workspace, path: &str) {
    let (dir, name) = split(path);
    let parent = ino(workspace, dir);
    workspace.tree().make(parent, name.as_bytes(), &NewNode::Directory, 0o755, ME, false, Wait::Yes).unwrap();
}

/// Makes or replaces a file's content, as a program that opens with `O_TRUNC` does.
pub fn write(workspace: &Workspace, path: &str, content: &[u8]) {
    let (dir, name) = split(path);
    let tree = workspace.tree();
    let parent = ino(workspace, dir);
    let file = match tree.lookup(parent, name.as_bytes(), Wait::Yes) {
        Ok(attr) => {
            tree.open(attr.ino, true, true, 0, Wait::Yes).unwrap();
            attr.ino
        }
        Err(_) => tree.make(parent, name.as_bytes(), &NewNode::File, 0o644, ME, true, Wait::Yes).unwrap().ino,
    };
    tree.write(file, 0, content, 0, Wait::Yes).unwrap();
    tree.release(file, true);
    tree.forget(file, 1);
}

pub fn remove(workspace: &Workspace, path: &str) {
    let (dir, name) = split(path);
    workspace.tree().unlink(ino(workspace, dir), name.as_bytes(), Wait::Yes).unwrap();
}

pub fn chmod(workspace: &Workspace, path: &str, mode: u16) {
    let changes = Changes { mode: Some(mode), ..Changes::default() };
    workspace.tree().setattr(ino(workspace, path), &changes, 0, Wait::Yes).unwrap();
}

pub fn read(workspace: &Workspace, path: &str) -> Vec<u8> {
    let ino = ino(workspace, path);
    let size = workspace.tree().getattr(ino, Wait::Yes).unwrap().size;
    workspace.tree().read(ino, 0, size as usize, Wait::Yes).unwrap()
}

/// Publishes all there is.
pub fn publish(workspace: &Workspace) {
    let flushed = workspace.flush(Some(Duration::from_secs(120))).unwrap();
    assert_eq!((flushed.unpublished_versions, flushed.reason), (0, None));
}

pub fn snapshot(workspace: &Workspace) -> VersionId {
    workspace.snapshot(None, None).unwrap().record.id
}

/// What the live tree shows: path to kind, mode and content.
pub fn live(workspace: &Workspace) -> BTreeMap<String, (FileKind, u16, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![(String::new(), Ino::ROOT)];
    let tree = workspace.tree();
    while let Some((dir, at)) = dirs.pop() {
        let mut items = Vec::new();
        tree.readdir(at, 0, false, Wait::Yes, &mut |item| {
            items.push((String::from_utf8_lossy(&item.name).into_owned(), item.attr));
            true
        })
        .unwrap();
        for (name, attr) in items {
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let content = match attr.kind {
                FileKind::File => short(tree.read(attr.ino, 0, attr.size as usize, Wait::Yes).unwrap()),
                FileKind::Symlink => tree.readlink(attr.ino, Wait::Yes).unwrap(),
                _ => Vec::new(),
            };
            if attr.kind == FileKind::Directory {
                dirs.push((path.clone(), attr.ino));
            }
            found.insert(path, (attr.kind, attr.mode, content));
        }
    }
    found
}

/// The same of a version.
pub fn recorded(workspace: &Workspace, version: VersionId) -> BTreeMap<String, (FileKind, u16, Vec<u8>)> {
    let record = workspace.version(version).unwrap();
    let mut found = BTreeMap::new();
    let mut dirs = vec![(String::new(), record.root.dir.clone())];
    while let Some((dir, entry)) = dirs.pop() {
        for (name, entry) in entries(workspace, &record, &entry) {
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let (kind, content) = match &entry.body {
                Body::File(file) => (FileKind::File, short(workspace.read_file(file, 0, file.size as usize).unwrap())),
                Body::Symlink { target } => (FileKind::Symlink, target.clone()),
                Body::Directory { .. } => (FileKind::Directory, Vec::new()),
                Body::Fifo => (FileKind::Fifo, Vec::new()),
                _ => (FileKind::Socket, Vec::new()),
            };
            let mode = entry.mode;
            if entry.is_dir() {
                dirs.push((path.clone(), entry));
            }
            found.insert(path, (kind, mode, content));
        }
    }
    found
}

fn entries(workspace: &Workspace, record: &IndexRecord, dir: &Entry) -> Vec<(String, Entry)> {
    let Body::Directory { names, .. } = &dir.body else { return Vec::new() };
    let pages = workspace.pages();
    let mut found = Vec::new();
    names
        .scan(&*pages, std::ops::Bound::Unbounded, &mut |name, value| {
            found.push((String::from_utf8_lossy(name).into_owned(), Entry::decode(value).unwrap()));
            true
        })
        .unwrap();
    let resolve = |(name, entry)| (name, record.root.resolve(&*pages, entry).unwrap());
    found.into_iter().map(resolve).collect()
}

/// Paths and letters of a comparison, as a user sees them.
pub fn letters(workspace: &Workspace, before: Side, after: Side) -> Vec<String> {
    let changes = workspace.diff(before, after, b"").unwrap();
    let mut shown: Vec<String> = changes
        .iter()
        .filter_map(|change| Some(format!("{:?} {}", change.kind()?, String::from_utf8_lossy(&change.path))))
        .collect();
    shown.sort();
    shown
}

/// Reproducible bytes that do not compress.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(len.div_ceil(8)).flatten().collect();
    bytes.truncate(len);
    bytes
}

/// Long content by its digest, so that a failed comparison can be read.
fn short(content: Vec<u8>) -> Vec<u8> {
    if content.len() <= 64 { content } else { sha256(&content).to_string().into_bytes() }
}

/// Reads everything that a store's HEAD names, with nothing but the store.
pub fn whole(memory: &Arc<MemoryStore>) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(&dir, "state");
    options.read_only = true;
    let workspace = Workspace::open_in(memory.clone(), options).unwrap();
    for version in workspace.versions().unwrap() {
        recorded(&workspace, version.id);
    }
    live(&workspace);
}

/// Waits for something that happens in the background.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("never: {what}");
}
