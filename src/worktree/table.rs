//! The table of inodes: what is in memory of the tree, what is dirty, what must be loaded.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::cookies::KeptCookies;
use super::inode::{Children, Directory, Inode, Node};
use super::locks::Lock;
use super::record::{Contest, Record};
use super::{Attr, Name, Result, WorkError};
use crate::version::entry::{FileBody, Ino};
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
    /// Changes have to wait a moment.
    Held,
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

/// Where the kernel may still ask for an inode that was dropped from memory. There is one of them for each name that
/// was ever listed, until the kernel forgets: sixteen bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The directory that holds its name; 0 for inodes of the link table.
    parent: u64,
    /// Stays at the maximum once it is reached, so that the inode stays known.
    lookups: u32,
    /// A directory stays known: others may be found through it.
    is_dir: bool,
}

impl Known {
    pub(super) fn new(parent: Option<Ino>, lookups: u64, is_dir: bool) -> Self {
        let lookups = u32::try_from(lookups).unwrap_or(u32::MAX);
        Self { parent: parent.map_or(0, |parent| parent.0), lookups, is_dir }
    }

    /// The directory that holds its name; `None` for inodes of the link table.
    fn parent(self) -> Option<Ino> {
        (self.parent != 0).then_some(Ino(self.parent))
    }

    pub(super) fn move_to(&mut self, parent: Option<Ino>) {
        self.parent = parent.map_or(0, |parent| parent.0);
    }

    /// Notes that the kernel forgot it `count` times.
    fn forget(&mut self, count: u64) {
        if self.lookups < u32::MAX {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.lookups = self.lookups.saturating_sub(count);
        }
    }
}

/// So many directories that were used last stay in memory: more than there are threads that serve requests.
const DIRS_KEPT: usize = 32;

#[derive(Debug)]
pub(super) struct Table {
    inodes: HashMap<Ino, Inode>,
    /// Inodes the kernel holds that are not in memory; a tree, since it grows without being copied.
    pub(super) known: BTreeMap<Ino, Known>,
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
    /// Owners of content that no name stands for yet, and that content.
    pub(super) staging: HashMap<Ino, FileBody>,
    /// Files with drafts.
    pub(super) drafts: HashSet<Ino>,
    /// Files that were closed, of which the journal may not know that yet.
    pub(super) closed: HashSet<Ino>,
    pub(super) links: TreeRef,
    pub(super) counts: Totals,
    /// High half of new inode numbers: this client's.
    ino_prefix: u64,
    pub(super) next_ino: u32,
    tick: u64,
    /// Inodes that a replay of the present segment can find.
    pub(super) placed: HashSet<Ino>,
    /// Whether a checkpoint is under way.
    pub(super) recording: bool,
    /// Whether changes have to wait, because foreign ones are being taken in.
    pub(super) held: bool,
    /// Files that others changed while they are being written here.
    pub(super) contests: HashMap<Ino, Contest>,
    /// Inodes with another number than the newest version has for them.
    pub(super) aliases: HashSet<Ino>,
    /// How many grafts need what they have loaded.
    pub(super) grafting: u32,
    /// Grows with every change of names, attributes or published content.
    pub(super) changes: u64,
    pub(super) kept_cookies: KeptCookies,
    /// Paths that clients have locked.
    pub(super) locks: Vec<Lock>,
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
            known: BTreeMap::new(),
            dirty_dirs: HashSet::new(),
            dirty_links: HashSet::new(),
            dirty_root: false,
            frozen: HashSet::new(),
            drafts: HashSet::new(),
            closed: HashSet::new(),
            staging: HashMap::new(),
            links,
            counts,
            ino_prefix: u64::from(ino_prefix) << 32,
            next_ino: 0,
            tick: 0,
            orphans: HashSet::new(),
            placed: HashSet::new(),
            recording: false,
            held: false,
            contests: HashMap::new(),
            aliases: HashSet::new(),
            grafting: 0,
            changes: 0,
            kept_cookies: KeptCookies::default(),
            locks: Vec::new(),
        }
    }

    /// Changes wait while foreign ones are being taken in.
    pub(super) fn check_unheld(&self) -> Attempt<()> {
        if self.held { Err(Stop::Held) } else { Ok(()) }
    }

    /// Whether nothing is to be recorded but what is being written.
    pub(super) fn is_clean(&self) -> bool {
        self.dirty_dirs.is_empty() && self.dirty_links.is_empty() && !self.dirty_root && self.frozen.is_empty()
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
        match self.known.get(&ino).map(|known| known.parent()) {
            Some(Some(parent)) => self.path_need(parent),
            Some(None) => Need::Link(ino).into(),
            None => WorkError::NotFound.into(),
        }
    }

    /// What to load so that the names of `dir` get into memory.
    fn path_need(&self, dir: Ino) -> Stop {
        let mut at = dir;
        for _ in 0..self.known.len() + 2 {
            match self.inodes.get(&at) {
                Some(_) => return Need::Names(at).into(),
                None => match self.known.get(&at).and_then(|known| known.parent()) {
                    Some(parent) => at = parent,
                    None => return WorkError::NotFound.into(),
                },
            }
        }
        WorkError::Inconsistent { ino: dir, reason: "its parents form a ring" }.into()
    }

    /// All inodes in memory.
    pub(super) fn all(&self) -> impl Iterator<Item = &Inode> {
        self.inodes.values()
    }

    pub(super) fn find(&self, ino: Ino) -> Option<&Inode> {
        self.inodes.get(&ino)
    }

    pub(super) fn find_mut(&mut self, ino: Ino) -> Option<&mut Inode> {
        self.inodes.get_mut(&ino)
    }

    pub(super) fn insert(&mut self, mut inode: Inode) {
        if let Some(known) = self.known.remove(&inode.ino) {
            inode.lookups += u64::from(known.lookups);
        }
        self.note_ino(inode.ino);
        self.inodes.insert(inode.ino, inode);
    }

    pub(super) fn next_tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// The directory with its names loaded.
    pub(super) fn dir(&mut self, ino: Ino) -> Attempt<(&mut Inode, u64)> {
        let tick = self.next_tick();
        let dir = self.get_mut(ino)?.dir_mut()?;
        if dir.children.is_none() {
            if dir.names.count() > 0 {
                return Err(Need::Names(ino).into());
            }
            self.install_names(ino, Vec::new());
        }
        let inode = self.get_mut(ino)?;
        inode.dir_mut()?.used = tick;
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
            self.aliases.remove(&ino);
            self.contests.remove(&ino);
        }
    }

    /// The kernel forgets an inode `count` times.
    pub(super) fn forget(&mut self, ino: Ino, count: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.lookups = inode.lookups.saturating_sub(count);
            if inode.lookups == 0 {
                self.kept_cookies.take(ino);
            }
            self.reap(ino);
        } else if let Some(known) = self.known.get_mut(&ino) {
            known.forget(count);
            if known.lookups == 0 {
                self.kept_cookies.take(ino);
                if !known.is_dir {
                    self.known.remove(&ino);
                }
            }
        }
    }

    /// Drops the names of clean directories, the longest unused first, when more than `inodes_max`
    /// inodes are in memory; so many that it is not needed again soon.
    pub(super) fn shrink(&mut self, inodes_max: usize) {
        if self.inodes.len() <= inodes_max || self.grafting > 0 {
            return;
        }
        let inodes_max = inodes_max - inodes_max / 8;
        let loaded = |inode: &Inode| match &inode.node {
            Node::Directory(dir) if dir.children.is_some() => Some((dir.used, inode.ino)),
            _ => None,
        };
        let mut candidates: Vec<(u64, Ino)> = self.inodes.values().filter_map(loaded).collect();
        candidates.sort_unstable();
        // Whoever has just had a directory loaded shall find it, however large it is.
        candidates.truncate(candidates.len().saturating_sub(DIRS_KEPT));
        for (_, ino) in candidates {
            if self.inodes.len() <= inodes_max {
                return;
            }
            self.unload(ino);
        }
        self.shrink_links(inodes_max);
    }

    /// Drops inodes of the link table that are as the table says.
    fn shrink_links(&mut self, inodes_max: usize) {
        if self.recording {
            return;
        }
        let idle = |inode: &&Inode| {
            inode.linked && inode.nlink > 0 && inode.may_leave() && !self.dirty_links.contains(&inode.ino)
        };
        let idle: Vec<(Ino, u64)> = self.inodes.values().filter(idle).map(|inode| (inode.ino, inode.lookups)).collect();
        for (ino, lookups) in idle.into_iter().take(self.inodes.len().saturating_sub(inodes_max)) {
            if lookups > 0 {
                self.known.insert(ino, Known::new(None, lookups, false));
            }
            self.inodes.remove(&ino);
        }
    }

    fn unload(&mut self, dir: Ino) {
        let Some(directory) = self.inodes.get(&dir).and_then(|inode| inode.dir().ok()) else { return };
        let Some(children) = &directory.children else { return };
        if directory.pinned
            || self.inodes.get(&dir).is_some_and(|inode| inode.opens > 0)
            || !directory.dirty.is_empty()
            || !children.iter().all(|(_, ino)| self.inodes.get(&ino).is_none_or(Inode::may_leave))
            || children.iter().any(|(_, ino)| self.aliases.contains(&ino))
        {
            return;
        }
        let inos: Vec<Ino> = children.iter().map(|(_, ino)| ino).collect();
        let cookies = children.cookies();
        for ino in inos {
            let Some(inode) = self.inodes.get(&ino).filter(|inode| !inode.linked) else { continue };
            if inode.lookups > 0 || inode.is_dir() {
                self.known.insert(ino, Known::new(Some(dir), inode.lookups, inode.is_dir()));
            }
            self.inodes.remove(&ino);
        }
        if let Some(Directory { children, .. }) = self.inodes.get_mut(&dir).and_then(|inode| inode.dir_mut().ok()) {
            *children = None;
        }
        if let Some(cookies) = cookies {
            self.kept_cookies.keep(dir, cookies);
        }
    }

    /// What a replay has to be told of, so that it finds the inodes that `records` name: each of
    /// them, and the directories above.
    pub(super) fn places<'a>(&self, records: impl IntoIterator<Item = &'a Record>) -> Vec<Record> {
        let (mut places, mut grafts) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for ino in records.into_iter().flat_map(Record::inodes) {
            let mut at = ino;
            while at != Ino::ROOT && !self.placed.contains(&at) && seen.insert(at) {
                let Some(inode) = self.inodes.get(&at) else { break };
                let parent = inode.home.as_ref().map(|(parent, _)| *parent);
                if self.aliases.contains(&at) {
                    // It came with the names of its directory, after the segment began.
                    grafts.extend(inode.alias_graft());
                } else if parent.is_some() || (inode.linked && inode.nlink > 0) {
                    places.push(Record::Place { ino: at, parent });
                }
                let Some(parent) = parent else { break };
                at = parent;
            }
        }
        places.append(&mut grafts);
        places
    }

    /// Notes what the journal's present segment tells of.
    pub(super) fn note_placed(&mut self, records: &[Record]) {
        self.placed.extend(records.iter().filter_map(|record| match record {
            Record::Place { ino, .. } => Some(*ino),
            Record::Create { node, .. } => Some(node.ino),
            Record::Graft { inode, .. } => Some(inode.ino),
            _ => None,
        }));
    }

    /// What the journal has not been told of files that were closed. Content that it does not have is told of with
    /// its bytes.
    pub(super) fn closed_records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for ino in self.closed.iter().copied() {
            let Some(inode) = self.inodes.get(&ino).filter(|inode| inode.nlink > 0) else { continue };
            let Node::File(file) = &inode.node else { continue };
            let logged = file.frozen.iter().take_while(|layer| layer.extents.unlogged_len() == 0);
            let new = logged.filter(|layer| !layer.complete);
            records.extend(new.map(|layer| Record::Complete { ino, layer: layer.id }));
        }
        records
    }

    /// Notes that the journal has [places](Self::places) and [what was closed](Self::closed_records).
    pub(super) fn note_told(&mut self, records: &[Record]) {
        self.note_placed(records);
        self.closed.clear();
        for record in records {
            let Record::Complete { ino, layer: id } = record else { continue };
            let Some(Node::File(file)) = self.inodes.get_mut(ino).map(|inode| &mut inode.node) else { continue };
            let told = file.frozen.iter_mut().filter(|layer| layer.id == *id);
            told.for_each(|layer| Arc::make_mut(layer).complete = true);
        }
    }

    /// All names of these inodes in the directories that are in memory.
    pub(super) fn names_of(&self, wanted: &HashSet<Ino>) -> HashMap<Ino, Vec<(Ino, Name)>> {
        let mut names: HashMap<Ino, Vec<(Ino, Name)>> = HashMap::new();
        if wanted.is_empty() {
            return names;
        }
        for inode in self.inodes.values() {
            let Some(children) = inode.dir().ok().and_then(|dir| dir.children.as_ref()) else { continue };
            for (name, ino) in children.iter().filter(|(_, ino)| wanted.contains(ino)) {
                names.entry(ino).or_default().push((inode.ino, name.clone()));
            }
        }
        names
    }

    /// Notes that a layer was published: the file must be written, and if no version can have it yet,
    /// all of its names.
    pub(super) fn mark_published(&mut self, ino: Ino) {
        let unrecorded = self
            .inodes
            .get(&ino)
            .is_some_and(|inode| inode.linked && inode.file().is_ok_and(|file| file.published.is_none()));
        if unrecorded {
            for (dir, name) in self.names_of(&HashSet::from([ino])).remove(&ino).unwrap_or_default() {
                self.mark(dir, &name);
            }
        }
        self.mark_inode(ino);
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
    pub(super) fn may_leave(&self) -> bool {
        let idle = match &self.node {
            Node::File(file) => !file.is_dirty() && file.is_published(),
            Node::Directory(dir) => dir.children.is_none() && dir.dirty.is_empty(),
            _ => true,
        };
        idle && self.opens == 0
    }
}
