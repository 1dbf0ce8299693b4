//! A workspace without a mount: store, keys, local state and a live tree, to be closed and reopened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kura::base::clock::{ManualClock, Timestamp};
use kura::base::disk::Disk;
use kura::base::ids::{ClientId, FileId, Sha256, VersionId, WorkspaceId};
use kura::base::sim_disk::SimDisk;
use kura::blob::{BlobKind, Blobs, BlobsConfig, ChunkRef, Outbox, RunRef};
use kura::crypto::Keys;
use kura::store::{MemoryStore, ObjectStore, PutCondition, StoreError};
use kura::version::VersionError;
use kura::version::entry::{Body, Content, Entry, FileBody, Ino, Xattrs};
use kura::version::head::{CollectionState, Head, RunInForce};
use kura::version::index::{Author, Counts, IndexRecord, Origin, Root};
use kura::version::tree::{PageIo, TreeRef};
use parking_lot::Mutex;

use kura::worktree::{Base, FileKind, Limits, Queued, Result, Wait, WorkError, Worktree, WorktreeParts};

/// What outlives a process: the store, the keys, and the local disk.
pub struct Rig {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub keys: Keys,
    pub store: Arc<MemoryStore>,
    pub clock: Arc<ManualClock>,
    pub limits: Limits,
    genesis: Base,
    /// Of the tree that was opened last.
    outbox: Mutex<Option<Arc<Outbox>>>,
}

/// What a name stands for, wherever it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub ino: u64,
    pub kind: FileKind,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub rdev: u32,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub xattrs: Xattrs,
    /// Content of a file, target of a symbolic link.
    pub bytes: Vec<u8>,
}

/// Paths from the root (`a/b`) and what they stand for; the root is the empty path.
pub type Seens = BTreeMap<String, Seen>;

impl Rig {
    /// A fresh workspace on a simulated disk.
    pub fn new(seed: u64) -> (Self, SimDisk) {
        let sim = SimDisk::new(seed);
        (Self::on(Arc::new(sim.clone()), Path::new("/state")), sim)
    }

    /// A fresh workspace on any disk.
    pub fn on(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_unix_ns(1_700_000_000_000_000_000)));
        Self {
            disk,
            dir: dir.to_owned(),
            keys: Keys::ephemeral(WorkspaceId::random()),
            store: Arc::new(MemoryStore::new()),
            clock,
            limits: Limits::default(),
            genesis: genesis(),
            outbox: Mutex::new(None),
        }
    }

    /// The same workspace on what a crash left of the disk.
    pub fn after(&self, disk: SimDisk) -> Self {
        Self {
            disk: Arc::new(disk),
            dir: self.dir.clone(),
            keys: self.keys.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            limits: self.limits,
            genesis: self.genesis.clone(),
            outbox: Mutex::new(None),
        }
    }

    /// The outbox of the tree that was opened last.
    pub fn outbox(&self) -> Arc<Outbox> {
        self.outbox.lock().clone().expect("a tree was opened")
    }

    fn blobs(&self, outbox: Arc<Outbox>) -> Blobs {
        let (store, keys) = (self.store.clone(), self.keys.clone());
        Blobs::new(BlobsConfig { store, keys, outbox, cache: None, memory_limit_bytes: 16 << 20 })
    }

    pub fn open(&self) -> Result<Worktree> {
        self.recover(false)
    }

    pub fn recover(&self, accept_damage: bool) -> Result<Worktree> {
        let outbox = Arc::new(Outbox::open(self.disk.clone(), self.dir.join("outbox"))?);
        *self.outbox.lock() = Some(outbox.clone());
        let parts = WorktreeParts {
            disk: self.disk.clone(),
            dir: self.dir.clone(),
            keys: self.keys.clone(),
            blobs: Arc::new(self.blobs(outbox.clone())),
            outbox,
            clock: self.clock.clone(),
            author: Author { client: ClientId::random(), host: "host".into(), user: "user".into() },
            limits: self.limits,
            read_only: false,
        };
        Worktree::recover(parts, || Ok(self.genesis.clone()), accept_damage)
    }

    /// Uploads everything that is queued, as a publisher would, and empties queue and outbox of it.
    pub fn upload(&self, tree: &Worktree) {
        let outbox = self.outbox();
        let queue = Queued::dir(&self.dir);
        let base = tree.base();
        for sequence in Queued::list(&*self.disk, &queue).unwrap() {
            assert!(sequence <= base.queue_sequence, "nothing unfinished is queued");
            let queued = Queued::read(&*self.disk, &queue, sequence, &self.keys).unwrap();
            for key in &queued.objects {
                let Some(sealed) = outbox.read(key).unwrap() else {
                    self.store.get(key).expect("an object that a version needs is in the outbox or the store");
                    continue;
                };
                match self.store.put(key, &sealed, PutCondition::IfAbsent) {
                    Ok(_) | Err(StoreError::Precondition { .. }) => outbox.remove(key).unwrap(),
                    Err(error) => panic!("{error}"),
                }
            }
            Queued::remove(&*self.disk, &queue, sequence).unwrap();
        }
    }

    /// Everything a version holds, read without the journal.
    pub fn version(&self, base: &Base) -> Seens {
        self.pages(base).seens(&base.index.root)
    }

    /// Pages and content of recorded versions, read without the journal.
    pub fn pages(&self, base: &Base) -> Pages {
        Pages::new(self.blobs(self.outbox()), &base.runs)
    }
}

fn genesis() -> Base {
    let time = Timestamp::from_unix_ns(1_600_000_000_000_000_000);
    let dir = Entry {
        ino: Ino::ROOT,
        file_id: FileId::random(),
        mode: 0o755,
        uid: 0,
        gid: 0,
        atime: time,
        mtime: time,
        ctime: time,
        xattrs: Xattrs::new(),
        body: Body::Directory { names: TreeRef::default(), subdirs: 0 },
    };
    let client = ClientId::random();
    let index = IndexRecord {
        id: VersionId::at(time),
        parents: Vec::new(),
        parents_digest: IndexRecord::digest_of_parents(&[]),
        generation: 0,
        time,
        author: Author { client, host: String::new(), user: String::new() },
        origin: Origin::Init,
        message: None,
        root: Root { dir, links: TreeRef::default(), digests: TreeRef::default() },
        counts: Counts::default(),
    };
    let head = Head {
        generation: 0,
        version: index.id,
        version_digest: index.digest(),
        refs: TreeRef::default(),
        runs: Vec::new(),
        collection: 0,
        collection_state: CollectionState::Idle,
        writer: client,
        time,
        nonce: [0; 16],
    };
    Base::from_head(&head, index)
}

/// Reads recorded pages and content.
pub struct Pages(Blobs);

impl PageIo for Pages {
    fn load(&self, page: &ChunkRef) -> kura::version::Result<Arc<[u8]>> {
        Ok(self.0.read(BlobKind::Page, page)?)
    }

    fn save(&self, _: &[u8]) -> kura::version::Result<ChunkRef> {
        Err(VersionError::Damaged { object: "a test".into(), reason: "it only reads".into() })
    }
}

impl Pages {
    fn new(blobs: Blobs, runs: &[RunInForce]) -> Self {
        blobs.index().set_runs(runs.iter().map(|run| RunRef { id: run.id, count: run.count }).collect());
        Self(blobs)
    }

    /// The content of a file; checks its digest.
    pub fn content(&self, body: &FileBody) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(body.size).unwrap()];
        if let Content::Inline(bytes) = &body.content {
            out[..bytes.len()].copy_from_slice(bytes);
        }
        for (offset, chunk) in body.content.chunks(self, 0, u64::MAX).unwrap() {
            let bytes = self.0.read(BlobKind::Content, &chunk).unwrap();
            let at = usize::try_from(offset).unwrap();
            out[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        if let Some(digest) = body.sha256 {
            assert_eq!(digest, sha256(&out), "the recorded digest is that of the content");
        }
        out
    }

    fn seens(&self, root: &Root) -> Seens {
        let mut seens = Seens::new();
        let mut dirs = vec![(String::new(), root.dir.clone())];
        while let Some((path, entry)) = dirs.pop() {
            let Body::Directory { names, .. } = &entry.body else { panic!("{path} is no directory") };
            let mut children = Vec::new();
            let mut keep = |name: &[u8], value: &[u8]| {
                children.push((String::from_utf8(name.to_vec()).unwrap(), Entry::decode(value).unwrap()));
                true
            };
            names.scan(self, std::ops::Bound::Unbounded, &mut keep).unwrap();
            assert_eq!(children.len() as u64, names.count());
            seens.insert(path.clone(), self.seen(&entry, 1));
            for (name, entry) in children {
                let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                let (entry, names) = match entry.body {
                    Body::Link => {
                        let link = root.link(self, entry.ino).unwrap();
                        (link.inode, link.names)
                    }
                    _ => (entry, 1),
                };
                if entry.is_dir() {
                    dirs.push((path, entry));
                } else {
                    seens.insert(path, self.seen(&entry, names));
                }
            }
        }
        seens
    }

    fn seen(&self, entry: &Entry, names: u32) -> Seen {
        let (kind, rdev, bytes) = match &entry.body {
            Body::File(body) => (FileKind::File, 0, self.content(body)),
            Body::Directory { .. } => (FileKind::Directory, 0, Vec::new()),
            Body::Symlink { target } => (FileKind::Symlink, 0, target.clone()),
            Body::Fifo => (FileKind::Fifo, 0, Vec::new()),
            Body::Socket => (FileKind::Socket, 0, Vec::new()),
            Body::CharDevice { rdev } => (FileKind::CharDevice, *rdev, Vec::new()),
            Body::BlockDevice { rdev } => (FileKind::BlockDevice, *rdev, Vec::new()),
            Body::Link => panic!("a link to a link"),
        };
        let nlink = if let Body::Directory { subdirs, .. } = &entry.body { 2 + subdirs } else { names };
        Seen {
            ino: entry.ino.0,
            kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            nlink,
            rdev,
            mtime: entry.mtime,
            ctime: entry.ctime,
            xattrs: entry.xattrs.clone(),
            bytes,
        }
    }
}

/// Everything the live tree shows.
pub fn live(tree: &Worktree) -> Seens {
    let mut seens = Seens::new();
    let mut held = Vec::new();
    let mut dirs = vec![(String::new(), Ino::ROOT)];
    seens.insert(String::new(), look(tree, Ino::ROOT));
    while let Some((path, dir)) = dirs.pop() {
        let mut items = Vec::new();
        tree.readdir(dir, 0, true, Wait::Yes, &mut |item| {
            items.push((String::from_utf8(item.name.to_vec()).unwrap(), item.attr));
            true
        })
        .unwrap();
        for (name, attr) in items {
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            held.push(attr.ino);
            if attr.kind == FileKind::Directory {
                dirs.push((path.clone(), attr.ino));
            }
            seens.insert(path, look(tree, attr.ino));
        }
    }
    held.into_iter().for_each(|ino| tree.forget(ino, 1));
    seens
}

fn look(tree: &Worktree, ino: Ino) -> Seen {
    let attr = tree.getattr(ino, Wait::Yes).unwrap();
    let bytes = match attr.kind {
        FileKind::File => {
            let bytes = tree.read(ino, 0, usize::try_from(attr.size).unwrap() + 1, Wait::Yes).unwrap();
            assert_eq!(bytes.len() as u64, attr.size);
            bytes
        }
        FileKind::Symlink => tree.readlink(ino, Wait::Yes).unwrap(),
        _ => Vec::new(),
    };
    let names = tree.listxattr(ino, Wait::Yes).unwrap();
    let xattrs = names.into_iter().map(|name| (name.clone(), tree.getxattr(ino, &name, Wait::Yes).unwrap())).collect();
    Seen {
        ino: ino.0,
        kind: attr.kind,
        mode: attr.mode,
        uid: attr.uid,
        gid: attr.gid,
        nlink: attr.nlink,
        rdev: attr.rdev,
        mtime: attr.mtime,
        ctime: attr.ctime,
        xattrs,
        bytes,
    }
}

pub fn sha256(bytes: &[u8]) -> Sha256 {
    kura::version::index::sha256(bytes)
}

/// The name of an error without what it carries.
pub fn word(error: &WorkError) -> String {
    format!("{error:?}").split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}

/// Lets `act` run once `disk` has done so many steps, beside whoever is in the middle of something then, who goes on when
/// it is done or waits for them. Tells whether it went well.
pub fn meanwhile(
    disk: &SimDisk,
    step: u64,
    act: impl FnOnce() -> Result<()> + Send + 'static,
) -> std::sync::mpsc::Receiver<bool> {
    let (told, result) = std::sync::mpsc::channel();
    disk.meanwhile_at(step, move || {
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            told.send(act().is_ok()).ok();
            done.send(()).ok();
        });
        is_done.recv_timeout(std::time::Duration::from_millis(50)).ok();
    });
    result
}
