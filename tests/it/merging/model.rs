//! A small tree with identities, from which roots are made; and what is seen of a root.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kura::base::clock::Timestamp;
use kura::base::ids::{BlobId, FileId};
use kura::blob::ChunkRef;
use kura::version::entry::{Body, Content, Entry, FileBody, Ino, LinkRecord, Xattrs};
use kura::version::index::Root;
use kura::version::merge::{Inputs, Line, Merged, Pins, Policy, Texts, merge};
use kura::version::tree::{Edits, PageIo, TreeRef};
use kura::version::{Result, VersionError};

use crate::rig::sha256;

/// Pages in memory; loads are counted.
#[derive(Default)]
pub struct Pages {
    pages: RefCell<HashMap<BlobId, Arc<[u8]>>>,
    pub loaded: RefCell<HashSet<BlobId>>,
}

impl PageIo for Pages {
    fn load(&self, page: &ChunkRef) -> Result<Arc<[u8]>> {
        self.loaded.borrow_mut().insert(page.id);
        let missing = || VersionError::Damaged { object: page.id.to_string(), reason: "missing".into() };
        self.pages.borrow().get(&page.id).cloned().ok_or_else(missing)
    }

    fn save(&self, bytes: &[u8]) -> Result<ChunkRef> {
        let id = BlobId(sha256(bytes).0);
        self.pages.borrow_mut().insert(id, bytes.into());
        Ok(ChunkRef { id, len: u32::try_from(bytes.len()).unwrap() })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    pub ino: u64,
    pub file_id: u64,
    /// `None` for directories.
    pub content: Option<String>,
    pub mode: u16,
    pub mtime: i64,
    pub linked: bool,
}

/// A tree: names to inodes, by path.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub inodes: BTreeMap<u64, Inode>,
    pub names: BTreeMap<String, u64>,
    pub root_mtime: i64,
}

/// New numbers, and the time.
#[derive(Debug)]
pub struct World {
    next: Cell<u64>,
    pub now: Cell<i64>,
}

impl World {
    pub fn new() -> Self {
        Self { next: Cell::new(10), now: Cell::new(1_700_000_000) }
    }

    pub fn next(&self) -> u64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    pub fn tick(&self) -> i64 {
        self.now.set(self.now.get() + 1);
        self.now.get()
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn file_id(number: u64) -> FileId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    FileId(id)
}

impl Model {
    pub fn is_dir(&self, path: &str) -> bool {
        path.is_empty() || self.names.get(path).is_some_and(|ino| self.inodes[ino].content.is_none())
    }

    pub fn has(&self, path: &str) -> bool {
        path.is_empty() || self.names.contains_key(path)
    }

    fn touch(&mut self, path: &str, now: i64) {
        match self.names.get(parent(path)) {
            Some(ino) => self.inodes.get_mut(ino).unwrap().mtime = now,
            None => self.root_mtime = now,
        }
    }

    fn make(&mut self, world: &World, path: &str, content: Option<&str>) {
        assert!(self.is_dir(parent(path)) && !self.has(path), "{path}");
        let (ino, now) = (world.next(), world.tick());
        let content = content.map(str::to_owned);
        let inode = Inode { ino, file_id: ino, content, mode: 0o644, mtime: now, linked: false };
        self.inodes.insert(ino, inode);
        self.names.insert(path.to_owned(), ino);
        self.touch(path, now);
    }

    pub fn mkdir(&mut self, world: &World, path: &str) {
        self.make(world, path, None);
    }

    pub fn write(&mut self, world: &World, path: &str, content: &str) {
        match self.names.get(path) {
            None => self.make(world, path, Some(content)),
            Some(ino) => {
                let inode = self.inodes.get_mut(ino).unwrap();
                assert!(inode.content.is_some());
                inode.content = Some(content.to_owned());
                inode.mtime = world.tick();
            }
        }
    }

    /// As editors save: a new inode takes the identity.
    pub fn save(&mut self, world: &World, path: &str, content: &str) {
        let old = self.inodes[&self.names[path]].clone();
        if old.linked {
            return self.write(world, path, content);
        }
        let ino = world.next();
        let content = Some(content.to_owned());
        self.inodes.remove(&old.ino);
        self.inodes.insert(ino, Inode { ino, content, mtime: world.tick(), ..old });
        self.names.insert(path.to_owned(), ino);
        self.touch(path, world.now.get());
    }

    pub fn chmod(&mut self, world: &World, path: &str, mode: u16) {
        world.tick();
        let ino = self.names[path];
        self.inodes.get_mut(&ino).unwrap().mode = mode;
    }

    pub fn link(&mut self, world: &World, from: &str, to: &str) {
        assert!(!self.is_dir(from) && !self.has(to) && self.is_dir(parent(to)));
        let ino = self.names[from];
        self.inodes.get_mut(&ino).unwrap().linked = true;
        self.names.insert(to.to_owned(), ino);
        self.touch(to, world.tick());
    }

    pub fn remove(&mut self, world: &World, path: &str) {
        let below: Vec<String> =
            self.names.keys().filter(|name| name.starts_with(&format!("{path}/"))).cloned().collect();
        for name in below.iter().chain([&path.to_owned()]) {
            let ino = self.names.remove(name).unwrap();
            if !self.names.values().any(|other| *other == ino) {
                self.inodes.remove(&ino);
            }
        }
        self.touch(path, world.tick());
    }

    /// Moves a name to a free one.
    pub fn rename(&mut self, world: &World, from: &str, to: &str) {
        assert!(self.has(from) && !self.has(to) && self.is_dir(parent(to)) && !to.starts_with(&format!("{from}/")));
        let moved: Vec<(String, u64)> = self
            .names
            .iter()
            .filter(|(name, _)| *name == from || name.starts_with(&format!("{from}/")))
            .map(|(name, ino)| (name.clone(), *ino))
            .collect();
        for (name, ino) in moved {
            self.names.remove(&name);
            self.names.insert(format!("{to}{}", &name[from.len()..]), ino);
        }
        let now = world.tick();
        self.touch(from, now);
        self.touch(to, now);
    }

    fn entry(inode: &Inode, body: Body) -> Entry {
        let time = Timestamp::from_parts(inode.mtime, 0);
        Entry {
            ino: Ino(inode.ino),
            file_id: file_id(inode.file_id),
            mode: inode.mode,
            uid: 0,
            gid: 0,
            atime: Timestamp::default(),
            mtime: time,
            ctime: time,
            xattrs: Xattrs::new(),
            body,
        }
    }

    fn dir(&self, io: &Pages, path: &str, links: &mut Edits) -> (TreeRef, u32) {
        let (mut edits, mut subdirs) = (Edits::new(), 0);
        for (name, ino) in self.names.iter().filter(|(name, _)| parent(name) == path) {
            let inode = &self.inodes[ino];
            let mut entry = match &inode.content {
                None => {
                    let (names, below) = self.dir(io, name, links);
                    subdirs += 1;
                    Self::entry(inode, Body::Directory { names, subdirs: below })
                }
                Some(content) => Self::entry(inode, Body::File(body(content))),
            };
            if inode.linked {
                let names = self.names.values().filter(|other| *other == ino).count() as u32;
                let record = LinkRecord { names, inode: entry.clone() };
                links.insert(LinkRecord::key(Ino(*ino)), Some(record.encode()));
                let zero = Timestamp::default();
                let id = FileId([0; 16]);
                entry = Entry { file_id: id, mode: 0, mtime: zero, ctime: zero, body: Body::Link, ..entry };
            }
            let own = name.rsplit('/').next().unwrap();
            edits.insert(own.as_bytes().to_vec(), Some(entry.encode()));
        }
        (TreeRef::default().edit(io, &edits).unwrap(), subdirs)
    }

    pub fn root(&self, io: &Pages) -> Root {
        let mut links = Edits::new();
        let (names, subdirs) = self.dir(io, "", &mut links);
        let inode = Inode { ino: 1, file_id: 1, content: None, mode: 0o755, mtime: self.root_mtime, linked: false };
        let links = TreeRef::default().edit(io, &links).unwrap();
        Root { dir: Self::entry(&inode, Body::Directory { names, subdirs }), links, digests: TreeRef::default() }
    }
}

pub fn body(content: &str) -> FileBody {
    FileBody {
        size: content.len() as u64,
        content: Content::Inline(content.as_bytes().to_vec()),
        sha256: Some(sha256(content.as_bytes())),
    }
}

/// What a root shows: path to content (`/` for directories). Checks that the tree is whole.
pub fn seen(io: &Pages, root: &Root) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let (mut ids, mut inos, mut names) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::<Ino, u32>::new());
    let mut dirs = vec![(String::new(), root.dir.clone())];
    while let Some((path, dir)) = dirs.pop() {
        assert!(ids.insert(dir.file_id) && inos.insert(dir.ino), "{path}: an identity or number occurs twice");
        let Body::Directory { names: tree, subdirs } = &dir.body else { panic!("{path} is no directory") };
        let mut count = 0;
        let mut items = Vec::new();
        tree.scan(io, std::ops::Bound::Unbounded, &mut |name, value| {
            items.push((String::from_utf8(name.to_vec()).unwrap(), Entry::decode(value).unwrap()));
            true
        })
        .unwrap();
        for (name, entry) in items {
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            if entry.is_dir() {
                count += 1;
                found.insert(path.clone(), "/".to_owned());
                dirs.push((path, entry));
                continue;
            }
            let is_link = matches!(entry.body, Body::Link);
            let ino = entry.ino;
            let entry = root.resolve(io, entry).unwrap();
            if is_link {
                *names.entry(ino).or_default() += 1;
            } else {
                assert!(ids.insert(entry.file_id) && inos.insert(ino), "{path}: an identity or number occurs twice");
            }
            let Body::File(FileBody { content: Content::Inline(bytes), .. }) = &entry.body else {
                panic!("{path} is no file: {entry:?}")
            };
            found.insert(path, String::from_utf8(bytes.clone()).unwrap());
        }
        assert_eq!(*subdirs, count, "{path}: number of directories");
    }
    let mut records = BTreeMap::new();
    root.links
        .scan(io, std::ops::Bound::Unbounded, &mut |_, value| {
            let record = LinkRecord::decode(value).unwrap();
            assert!(ids.insert(record.inode.file_id), "an identity occurs twice");
            assert!(inos.insert(record.inode.ino), "a number occurs twice");
            records.insert(record.inode.ino, record.names);
            true
        })
        .unwrap();
    assert_eq!(names, records, "the link table counts names");
    found
}

/// Text merge of words: additions at the end of both, else none.
pub struct Words;

impl Texts for Words {
    fn merge(&self, base: &FileBody, ours: &FileBody, theirs: &FileBody) -> Result<Option<FileBody>> {
        let text = |body: &FileBody| match &body.content {
            Content::Inline(bytes) => String::from_utf8(bytes.clone()).unwrap(),
            _ => String::new(),
        };
        let merged = diffy::merge(&text(base), &text(ours), &text(theirs));
        Ok(merged.ok().map(|text| body(&text)))
    }
}

pub struct Setting {
    pub policy: Policy,
    pub pins: Pins,
}

impl Default for Setting {
    fn default() -> Self {
        Self { policy: Policy::KeepBoth, pins: Pins::default() }
    }
}

/// 2023-11-14 22:13:20 UTC.
pub const OUR_TIME: Timestamp = Timestamp::from_unix_ns(1_700_000_000_000_000_000);
/// An hour later.
pub const THEIR_TIME: Timestamp = Timestamp::from_unix_ns(1_700_003_600_000_000_000);

pub fn merged(io: &Pages, setting: &Setting, base: &Root, ours: &Root, theirs: &Root) -> Merged {
    let next = Cell::new(1 << 40);
    merge(&Inputs {
        io,
        base,
        ours: Line { root: ours, time: OUR_TIME },
        theirs: Line { root: theirs, time: THEIR_TIME },
        pins: &setting.pins,
        policy: &|_| setting.policy,
        texts: &Words,
        next_ino: &|| {
            next.set(next.get() + 1);
            Ino(next.get())
        },
    })
    .unwrap()
}
