//! Inodes in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::absorb::Front;
use super::attr::{Attr, FileKind};
use super::cookies::DirCookies;
use super::extents::Extents;
use super::{Name, Result, WorkError};
use crate::base::clock::Timestamp;
use crate::base::ids::FileId;
use crate::version::entry::{Body, Content, Entry, FileBody, Ino, Xattrs};
use crate::version::tree::TreeRef;

/// An inode of the live tree.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) ino: Ino,
    pub(super) file_id: FileId,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) atime: Timestamp,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
    pub(super) xattrs: Option<Box<Xattrs>>,
    /// Names of a non-directory; 0 for a directory that was removed.
    pub(super) nlink: u32,
    /// Directory and name; `None` for the root, for orphans, and for inodes in the link table.
    pub(super) home: Option<(Ino, Name)>,
    /// Whether the inode stands in the link table instead of in its directory entry.
    pub(super) linked: bool,
    /// How often the kernel was given this inode, less what it has forgotten.
    pub(super) lookups: u64,
    /// Open handles.
    pub(super) opens: u32,
    pub(super) node: Node,
}

#[derive(Debug)]
pub(super) enum Node {
    File(Box<File>),
    Directory(Box<Directory>),
    Symlink(Box<[u8]>),
    Fifo,
    Socket,
    CharDevice(u32),
    BlockDevice(u32),
}

/// A regular file.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Length as the mount shows it.
    pub(super) size: u64,
    /// The newest state that a version may record; `None` for a file that never was published.
    pub(super) published: Option<Published>,
    /// Published layers that are not absorbed yet, oldest first.
    pub(super) frozen: Vec<Arc<Layer>>,
    /// What was written since.
    pub(super) draft: Option<Layer>,
    /// The number the next layer gets.
    pub(super) next_layer: u32,
    /// Open handles that may write.
    pub(super) writers: u32,
    /// Whether the draft was found in the journal after a kill.
    pub(super) recovered: bool,
}

/// A file as a version may record it.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) body: FileBody,
    pub(super) mtime: Timestamp,
}

/// Dirty content above older content.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) id: u32,
    pub(super) extents: Extents,
    /// All older content, when it was absorbed without being published (a large draft).
    pub(super) base: Option<Arc<FileBody>>,
    /// The digest of that content as far as it was made.
    pub(super) front: Option<Front>,
    /// Older content shows only below this offset.
    pub(super) clip: u64,
    /// The file's length with this layer on top.
    pub(super) size: u64,
    pub(super) mtime: Timestamp,
    /// The smallest size the layer was cut to since this was last set to the maximum.
    pub(super) low_water: u64,
    /// Whether the journal says that the layer is all there, and published.
    pub(super) complete: bool,
}

/// A directory.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// The names as of the last checkpoint.
    pub(super) names: TreeRef,
    /// The present names; `None` until they are loaded.
    pub(super) children: Option<Children>,
    /// Names to write at the next checkpoint.
    pub(super) dirty: HashSet<Name>,
    /// How many names are directories.
    pub(super) subdirs: u32,
    /// Whether a checkpoint that is under way still needs the names in memory.
    pub(super) pinned: bool,
    /// When the directory was last used (ticks of the table).
    pub(super) used: u64,
}

/// The present names of a directory, by name and in the order `readdir` gives them.
#[derive(Debug, Default)]
pub(super) struct Children {
    by_name: HashMap<Name, Child>,
    by_cookie: BTreeMap<u64, Name>,
    /// The last cookie given out.
    last_cookie: u64,
    /// Whether anybody was given cookies.
    pub(super) listed: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Child {
    pub(super) ino: Ino,
    pub(super) cookie: u64,
}

impl Children {
    pub(super) fn get(&self, name: &[u8]) -> Option<Child> {
        self.by_name.get(name).copied()
    }

    /// The name as it is kept, so that it is shared.
    pub(super) fn key(&self, name: &[u8]) -> Option<Name> {
        self.by_name.get_key_value(name).map(|(name, _)| name.clone())
    }

    /// Adds a name that is not there, or gives a name another inode under its old cookie.
    pub(super) fn insert(&mut self, name: Name, ino: Ino) {
        if let Some(child) = self.by_name.get_mut(&name) {
            child.ino = ino;
            return;
        }
        self.last_cookie += 1;
        self.place(name, ino, self.last_cookie);
    }

    fn place(&mut self, name: Name, ino: Ino, cookie: u64) {
        self.by_cookie.insert(cookie, name.clone());
        self.by_name.insert(name, Child { ino, cookie });
    }

    /// These names, under the cookies they had; names that had none come last.
    pub(super) fn load(names: impl Iterator<Item = (Name, Ino)>, had: Option<&DirCookies>) -> Self {
        let mut children = Self::default();
        let Some(had) = had else {
            names.for_each(|(name, ino)| children.insert(name, ino));
            return children;
        };
        (children.last_cookie, children.listed) = (had.last, true);
        for (name, ino) in names {
            match had.find(&name).filter(|cookie| !children.by_cookie.contains_key(cookie)) {
                Some(cookie) => children.place(name, ino, cookie),
                None => children.insert(name, ino),
            }
        }
        children
    }

    /// What to keep of the names when they leave memory, so that a listing can go on.
    pub(super) fn cookies(&self) -> Option<DirCookies> {
        let names = self.by_cookie.iter().map(|(cookie, name)| (*cookie, name));
        self.listed.then(|| DirCookies::of(names, self.last_cookie))
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Ino> {
        let child = self.by_name.remove(name)?;
        self.by_cookie.remove(&child.cookie);
        Some(child.ino)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Names after a cookie, in cookie order.
    pub(super) fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &Name, Ino)> {
        let later = self.by_cookie.range((std::ops::Bound::Excluded(cookie), std::ops::Bound::Unbounded));
        later.filter_map(|(cookie, name)| self.by_name.get(name).map(|child| (*cookie, name, child.ino)))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, Ino)> {
        self.by_name.iter().map(|(name, child)| (name, child.ino))
    }
}

impl Layer {
    pub(super) fn new(id: u32, size: u64, mtime: Timestamp) -> Self {
        Self {
            id,
            extents: Extents::default(),
            base: None,
            front: None,
            clip: size,
            size,
            mtime,
            low_water: u64::MAX,
            complete: false,
        }
    }

    /// The layer with only the pieces that touch `from..to`.
    pub(super) fn part(&self, from: u64, to: u64) -> Self {
        Self {
            extents: self.extents.part(from, to),
            base: self.base.clone(),
            ..Self::new(self.id, self.size, self.mtime)
        }
        .clipped(self.clip)
    }

    fn clipped(mut self, clip: u64) -> Self {
        self.clip = clip;
        self
    }

    pub(super) fn resize(&mut self, size: u64) {
        self.extents.truncate(size);
        self.clip = self.clip.min(size);
        self.low_water = self.low_water.min(size);
        self.size = size;
    }
}

impl File {
    /// The draft, begun when there is none.
    pub(super) fn draft_mut(&mut self, mtime: Timestamp) -> &mut Layer {
        let (id, size) = (self.next_layer, self.size);
        if self.draft.is_none() {
            self.next_layer += 1;
        }
        self.draft.get_or_insert_with(|| Layer::new(id, size, mtime))
    }

    /// Turns the draft into published content; false when there is none.
    pub(super) fn freeze(&mut self) -> bool {
        self.recovered = false;
        match self.draft.take() {
            Some(draft) => {
                self.frozen.push(Arc::new(draft));
                true
            }
            None => false,
        }
    }

    /// Whether it holds content that is not absorbed.
    pub(super) fn is_dirty(&self) -> bool {
        self.draft.is_some() || !self.frozen.is_empty()
    }

    /// Bytes of all layers that the journal does not have.
    pub(super) fn unlogged_len(&self) -> u64 {
        self.frozen.iter().map(|layer| &**layer).chain(&self.draft).map(|layer| layer.extents.unlogged_len()).sum()
    }

    /// Whether a version may record it, now or when its layers are absorbed.
    pub(super) fn is_published(&self) -> bool {
        self.published.is_some() || !self.frozen.is_empty()
    }
}

impl Inode {
    /// An inode as a version records it. `nlink` counts the names of an inode in the link table.
    pub(super) fn from_entry(entry: Entry, nlink: u32, linked: bool, home: Option<(Ino, Name)>) -> Self {
        let node = match entry.body {
            Body::File(body) => {
                let size = body.size;
                Node::File(Box::new(File {
                    size,
                    published: Some(Published { body, mtime: entry.mtime }),
                    ..File::default()
                }))
            }
            Body::Directory { names, subdirs } => {
                Node::Directory(Box::new(Directory { names, subdirs, ..Directory::default() }))
            }
            Body::Symlink { target } => Node::Symlink(target.into()),
            Body::Fifo => Node::Fifo,
            Body::Socket | Body::Link => Node::Socket,
            Body::CharDevice { rdev } => Node::CharDevice(rdev),
            Body::BlockDevice { rdev } => Node::BlockDevice(rdev),
        };
        Self {
            ino: entry.ino,
            file_id: entry.file_id,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            atime: entry.atime,
            mtime: entry.mtime,
            ctime: entry.ctime,
            xattrs: (!entry.xattrs.is_empty()).then(|| Box::new(entry.xattrs)),
            nlink,
            home,
            linked,
            lookups: 0,
            opens: 0,
            node,
        }
    }

    /// The inode as a version records it, with this file content; `names` of directories as of the
    /// last checkpoint.
    pub(super) fn to_entry(&self, file: Option<&Published>) -> Entry {
        let mut mtime = self.mtime;
        let body = match &self.node {
            Node::File(_) => {
                let published = file.cloned().unwrap_or(Published { body: FileBody::default(), mtime });
                mtime = published.mtime;
                Body::File(published.body)
            }
            Node::Directory(dir) => Body::Directory { names: dir.names, subdirs: dir.subdirs },
            Node::Symlink(target) => Body::Symlink { target: target.to_vec() },
            Node::Fifo => Body::Fifo,
            Node::Socket => Body::Socket,
            Node::CharDevice(rdev) => Body::CharDevice { rdev: *rdev },
            Node::BlockDevice(rdev) => Body::BlockDevice { rdev: *rdev },
        };
        Entry {
            ino: self.ino,
            file_id: self.file_id,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            atime: self.atime,
            mtime,
            ctime: self.ctime,
            xattrs: self.xattrs.as_deref().cloned().unwrap_or_default(),
            body,
        }
    }

    pub(super) fn kind(&self) -> FileKind {
        match &self.node {
            Node::File(_) => FileKind::File,
            Node::Directory(_) => FileKind::Directory,
            Node::Symlink(_) => FileKind::Symlink,
            Node::Fifo => FileKind::Fifo,
            Node::Socket => FileKind::Socket,
            Node::CharDevice(_) => FileKind::CharDevice,
            Node::BlockDevice(_) => FileKind::BlockDevice,
        }
    }

    /// Whether it is a file that no version may hold yet.
    pub(super) fn is_unpublished(&self) -> bool {
        matches!(&self.node, Node::File(file) if !file.is_published())
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self.node, Node::Directory(_))
    }

    pub(super) fn attr(&self) -> Attr {
        let (size, blocks) = match &self.node {
            Node::File(file) => (file.size, file.blocks()),
            Node::Directory(dir) => {
                (dir.names.count().max(dir.children.as_ref().map_or(0, |children| children.len() as u64)) * 32, 0)
            }
            Node::Symlink(target) => (target.len() as u64, 0),
            _ => (0, 0),
        };
        let nlink = match &self.node {
            Node::Directory(dir) if self.nlink > 0 => 2 + dir.subdirs,
            _ => self.nlink,
        };
        let rdev = match self.node {
            Node::CharDevice(rdev) | Node::BlockDevice(rdev) => rdev,
            _ => 0,
        };
        Attr {
            ino: self.ino,
            kind: self.kind(),
            mode: self.mode,
            nlink,
            uid: self.uid,
            gid: self.gid,
            rdev,
            size,
            blocks,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
        }
    }

    pub(super) fn file(&self) -> Result<&File> {
        match &self.node {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(WorkError::IsADirectory),
            _ => Err(WorkError::Invalid),
        }
    }

    pub(super) fn file_mut(&mut self) -> Result<&mut File> {
        match &mut self.node {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(WorkError::IsADirectory),
            _ => Err(WorkError::Invalid),
        }
    }

    pub(super) fn dir(&self) -> Result<&Directory> {
        match &self.node {
            Node::Directory(dir) => Ok(dir),
            _ => Err(WorkError::NotADirectory),
        }
    }

    pub(super) fn dir_mut(&mut self) -> Result<&mut Directory> {
        match &mut self.node {
            Node::Directory(dir) => Ok(dir),
            _ => Err(WorkError::NotADirectory),
        }
    }
}

impl File {
    /// Blocks of 512 bytes: what chunks and dirty pieces cover, holes left out.
    fn blocks(&self) -> u64 {
        let published = self.published.as_ref().map_or(0, |published| match &published.body.content {
            Content::Empty => 0,
            Content::Inline(bytes) => bytes.len() as u64,
            Content::Chunks(chunks) => chunks.iter().map(|(_, chunk)| u64::from(chunk.len)).sum(),
            Content::Tree(_) => published.body.size,
        });
        let dirty: u64 = self
            .frozen
            .iter()
            .map(|layer| layer.extents.bytes())
            .chain(self.draft.as_ref().map(|draft| draft.extents.bytes()))
            .sum();
        published.saturating_add(dirty).min(self.size).div_ceil(512)
    }
}
