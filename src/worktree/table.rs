//! The table of inodes: what is in memory of the tree, what is dirty, what must be loaded.

use std::collections::{HashMap, HashSet};

use super::inode::{Children, Directory, Inode, Node};
use super::{Attr, Name, Result, WorkError};
use crate::version::entry::Ino;
use crate::version::tree::TreeRef;

/// What an operation found missing in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The names of this directory.
    Names(Ino),
    /// An inode of the link table.
    Link(Ino),
}

/// An operation's end when something must be loaded first, or when it failed.
#[derive(Debug)]
pub(super) enum Stop {
    Need(Need),
    Failed(WorkError),
}

impl From<WorkError> for Stop {
    fn from(error: WorkError) -> Self {
        Stop::Failed(error)
    }
}

impl From<Need> for Stop {
    fn from(need: Need) -> Self {
        Stop::Need(need)
    }
}

pub(super) type Attempt<T> = std::result::Result<T, Stop>;

/// One name of a directory, for listings.
#[derive(Clone, Debug)]
pub struct DirItem {
    /// The name.
    pub name: Name,
    /// Continue after it with this cookie.
    pub cookie: u64,
    /// Its inode.
    pub attr: Attr,
}

/// Where the kernel may still ask for an inode that was dropped from memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The directory that holds its name; `None` for inodes of the link table.
    pub(super) parent: Option<Ino>,
    pub(super) lookups: u64,
}

#[derive(Debug)]
pub(super) struct Table {
    inodes: HashMap<Ino, Inode>,
    /// Inodes the kernel holds that are not in memory.
    pub(super) known: HashMap<Ino, Known>,
    /// Directories with names to write.
    pub(super) dirty_dirs: HashSet<Ino>,
    /// Inodes of the link table to write or (when gone) to remove.
    pub(super) dirty_links: HashSet<Ino>,
    /// Whether the root directory's own attributes or names changed.
    pub(super) dirty_root: bool,
    /// Files with layers to absorb.
    pub(super) frozen: HashSet<Ino>,
    /// Inodes without a name that are still open or known to the kernel.
    pub(super) orphans: HashSet<Ino>,
    /// Files with drafts.
    pub(super) drafts: HashSet<Ino>,
    pub(super) links: TreeRef,
    pub(super) counts: Totals,
    /// High half of new inode numbers: this client's.
    ino_prefix: u64,
    pub(super) next_ino: u32,
    tick: u64,
    /// Grows with every change of names, attributes or published content.
    pub(super) changes: u64,
}

/// Running totals of the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) files: u64,
    pub(super) dirs: u64,
    pub(super) bytes: u64,
}

impl Table {
    pub(super) fn new(root: Inode, links: TreeRef, counts: Totals, ino_prefix: u32) -> Self {
        Self {
            inodes: HashMap::from([(root.ino, root)]),
            known: HashMap::new(),
            dirty_dirs: HashSet::new(),
            dirty_links: HashSet::new(),
            dirty_root: false,
            frozen: HashSet::new(),
            orphans: HashSet::new(),
            drafts: HashSet::new(),
            links,
            counts,
            ino_prefix: u64::from(ino_prefix) << 32,
            next_ino: 0,
            tick: 0,
            changes: 0,
        }
    }

    /// How many inodes are in memory.
    pub(super) fn len(&self) -> usize {
        self.inodes.len()
    }

    /// A number for a new inode.
    pub(super) fn allocate_ino(&mut self) -> Ino {
        self.next_ino = self.next_ino.wrapping_add(1);
        Ino(self.ino_prefix | u64::from(self.next_ino))
    }

    /// Remembers that a number of ours is taken (replay).
    pub(super) fn note_ino(&mut self, ino: Ino) {
        if ino.0 & !u64::from(u32::MAX) == self.ino_prefix {
            let low = u32::try_from(ino.0 & u64::from(u32::MAX)).unwrap_or(0);
            self.next_ino = self.next_ino.max(low);
        }
    }

    /// The inode; asks for its loading when only its number is known.
    pub(super) fn get(&self, ino: Ino) -> Attempt<&Inode> {
        self.inodes.get(&ino).ok_or_else(|| self.absent(ino))
    }

    /// As [`get`](Self::get), to change it.
    pub(super) fn get_mut(&mut self, ino: Ino) -> Attempt<&mut Inode> {
        let absent = if self.inodes.contains_key(&ino) { None } else { Some(self.absent(ino)) };
        match absent {
            Some(stop) => Err(stop),
            None => self.inodes.get_mut(&ino).ok_or(Stop::Failed(WorkError::NotFound)),
        }
    }

    fn absent(&self, ino: Ino) -> Stop {
        match self.known.get(&ino) {
            Some(Known { parent: Some(parent), .. }) => self.path_need(*parent),
            Some(Known { parent: None, .. }) => Need::Link(ino).into(),
            None => WorkError::NotFound.into(),
        }
    }

    /// What to load so that the names of `dir` get into memory.
    fn path_need(&self, dir: Ino) -> Stop {
        let mut at = dir;
        for _ in 0..self.known.len() + 2 {
            match self.inodes.get(&at) {
                Some(_) => return Need::Names(at).into(),
                None => match self.known.get(&at) {
                    Some(Known { parent: Some(parent), .. }) => at = *parent,
                    _ => return WorkError::NotFound.into(),
                },
            }
        }
        WorkError::Inconsistent { ino: dir, reason: "its parents form a ring" }.into()
    }

    pub(super) fn find(&self, ino: Ino) -> Option<&Inode> {
        self.inodes.get(&ino)
    }

    pub(super) fn find_mut(&mut self, ino: Ino) -> Option<&mut Inode> {
        self.inodes.get_mut(&ino)
    }

    pub(super) fn insert(&mut self, mut inode: Inode) {
        if let Some(known) = self.known.remove(&inode.ino) {
            inode.lookups += known.lookups;
        }
        self.note_ino(inode.ino);
        self.inodes.insert(inode.ino, inode);
    }

    /// The directory with its names loaded.
    pub(super) fn dir(&mut self, ino: Ino) -> Attempt<(&mut Inode, u64)> {
        self.tick += 1;
        let tick = self.tick;
        let inode = self.get_mut(ino)?;
        let dir = inode.dir_mut()?;
        if dir.children.is_none() {
            if dir.names.count() > 0 {
                return Err(Need::Names(ino).into());
            }
            dir.children = Some(Children::default());
        }
        dir.used = tick;
        Ok((inode, tick))
    }

    pub(super) fn children(&mut self, ino: Ino) -> Attempt<&mut Children> {
        let (inode, _) = self.dir(ino)?;
        Ok(inode.dir_mut()?.children.get_or_insert_with(Children::default))
    }

    /// The inode a name stands for.
    pub(super) fn child(&mut self, dir: Ino, name: &[u8]) -> Attempt<Option<Ino>> {
        let found = self.children(dir)?.get(name).map(|child| child.ino);
        match found {
            Some(ino) if !self.inodes.contains_key(&ino) => Err(Need::Link(ino).into()),
            found => Ok(found),
        }
    }

    /// Notes that the entry of a name must be written, and with it every directory above.
    pub(super) fn mark(&mut self, dir: Ino, name: &Name) {
        self.changes += 1;
        let (mut at, mut name) = (dir, name.clone());
        loop {
            let Some(inode) = self.inodes.get_mut(&at) else { return };
            let home = inode.home.clone();
            let Node::Directory(directory) = &mut inode.node else { return };
            if !directory.dirty.insert(name) {
                return;
            }
            self.dirty_dirs.insert(at);
            match home {
                Some((parent, own)) => (at, name) = (parent, own),
                None => {
                    self.dirty_root |= at == Ino::ROOT;
                    return;
                }
            }
        }
    }

    /// Notes that an inode's record must be written.
    pub(super) fn mark_inode(&mut self, ino: Ino) {
        self.changes += 1;
        let Some(inode) = self.inodes.get(&ino) else { return };
        if inode.linked {
            self.dirty_links.insert(ino);
        } else if ino == Ino::ROOT {
            self.dirty_root = true;
        } else if let Some((dir, name)) = inode.home.clone() {
            self.mark(dir, &name);
        }
    }

    /// Drops an inode that has no name, no handle and is not known to the kernel.
    pub(super) fn reap(&mut self, ino: Ino) {
        let gone =
            self.inodes.get(&ino).is_some_and(|inode| inode.nlink == 0 && inode.opens == 0 && inode.lookups == 0);
        if gone {
            self.inodes.remove(&ino);
            self.frozen.remove(&ino);
            self.drafts.remove(&ino);
            self.orphans.remove(&ino);
        }
    }

    /// The kernel forgets an inode `count` times.
    pub(super) fn forget(&mut self, ino: Ino, count: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.lookups = inode.lookups.saturating_sub(count);
            self.reap(ino);
        } else if let Some(known) = self.known.get_mut(&ino) {
            known.lookups = known.lookups.saturating_sub(count);
            if known.lookups == 0 {
                self.known.remove(&ino);
            }
        }
    }

    /// Drops the names of clean directories, the longest unused first, until at most `inodes_max`
    /// inodes are in memory.
    pub(super) fn shrink(&mut self, inodes_max: usize) {
        if self.inodes.len() <= inodes_max {
            return;
        }
        let loaded = |inode: &Inode| match &inode.node {
            Node::Directory(dir) if dir.children.is_some() => Some((dir.used, inode.ino)),
            _ => None,
        };
        let mut candidates: Vec<(u64, Ino)> = self.inodes.values().filter_map(loaded).collect();
        candidates.sort_unstable();
        for (_, ino) in candidates {
            if self.inodes.len() <= inodes_max {
                return;
            }
            self.unload(ino);
        }
    }

    fn unload(&mut self, dir: Ino) {
        let Some(directory) = self.inodes.get(&dir).and_then(|inode| inode.dir().ok()) else { return };
        let Some(children) = &directory.children else { return };
        if directory.pinned
            || !directory.dirty.is_empty()
            || !children.iter().all(|(_, ino)| self.inodes.get(&ino).is_none_or(Inode::may_leave))
        {
            return;
        }
        let inos: Vec<Ino> = children.iter().map(|(_, ino)| ino).collect();
        for ino in inos {
            let Some(inode) = self.inodes.get(&ino).filter(|inode| !inode.linked) else { continue };
            if inode.lookups > 0 || inode.is_dir() {
                self.known.insert(ino, Known { parent: Some(dir), lookups: inode.lookups });
            }
            self.inodes.remove(&ino);
        }
        if let Some(Directory { children, .. }) = self.inodes.get_mut(&dir).and_then(|inode| inode.dir_mut().ok()) {
            *children = None;
        }
    }

    /// A directory that contains, or is, `ino`'s ancestor `of`?
    pub(super) fn is_below(&self, ino: Ino, ancestor: Ino) -> Result<bool> {
        let mut at = ino;
        for _ in 0..=self.inodes.len() {
            if at == ancestor {
                return Ok(true);
            }
            match self.inodes.get(&at).and_then(|inode| inode.home.as_ref()) {
                Some((parent, _)) => at = *parent,
                None => return Ok(false),
            }
        }
        Err(WorkError::Inconsistent { ino, reason: "its parents form a ring" })
    }
}

impl Inode {
    /// The length of a file's published content.
    pub(super) fn published_bytes(&self) -> u64 {
        match &self.node {
            Node::File(file) => file.published.as_ref().map_or(0, |published| published.body.size),
            _ => 0,
        }
    }

    /// Whether the inode can be dropped from memory and read again later.
    fn may_leave(&self) -> bool {
        let idle = match &self.node {
            Node::File(file) => !file.is_dirty(),
            Node::Directory(dir) => dir.children.is_none() && dir.dirty.is_empty(),
            _ => true,
        };
        idle && self.opens == 0
    }
}
