//! Setting names to ready inodes: restoring, reverting, and later merging. All of it, or nothing.
//!
//! The records of all changes are made first, against the table and what the records before them will have
//! done. Then they are journaled between `Begin` and `Commit`, and applied when the journal has them all.

use std::collections::HashMap;

use super::live::{Wait, Worktree};
use super::load::load;
use super::record::{AttrSet, Record};
use super::stage::{Seen, check_seen};
use super::table::{Attempt, Stop, Table};
use super::{Name, Result, WorkError};
use crate::base::clock::Timestamp;
use crate::version::entry::{Body, CONTROL_NAME, Entry, Ino, Xattrs};
use crate::version::tree::TreeRef;

/// Records in one frame of the journal.
const FRAME_RECORDS: usize = 256;

/// One change of a name. Paths are names from the root.
#[derive(Clone, Debug)]
pub enum GraftOp {
    /// The name goes. A directory that holds names which the caller did not remove stays.
    Remove {
        /// Where.
        path: Vec<Vec<u8>>,
    },
    /// The name stands for this inode (which gets a fresh number). A directory comes empty, or keeps
    /// the names that a directory of this name has.
    Put {
        /// Where.
        path: Vec<Vec<u8>>,
        /// The inode; of a directory, without its names.
        entry: Box<Entry>,
        /// Whether other `Put`s with the same inode number are further names of the same inode.
        linked: bool,
    },
    /// The inode's attributes become those of `entry`; its content stays.
    Attributes {
        /// Where.
        path: Vec<Vec<u8>>,
        /// The attributes.
        entry: Box<Entry>,
    },
}

/// What the kernel must forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// What a name stands for.
    Name {
        /// The directory.
        parent: Ino,
        /// The name in it.
        name: Name,
    },
    /// Attributes and content of an inode.
    Inode(Ino),
    /// Attributes of an inode whose content a request that is under way changes; to be told before it is answered.
    Attributes(Ino),
}

/// While it lives, what is loaded stays, or a long graft would load its directories again and again.
struct KeepLoaded<'a>(&'a Worktree);

impl<'a> KeepLoaded<'a> {
    fn new(tree: &'a Worktree) -> Self {
        tree.table().grafting += 1;
        Self(tree)
    }
}

impl Drop for KeepLoaded<'_> {
    fn drop(&mut self) {
        self.0.table().grafting -= 1;
    }
}

impl Worktree {
    /// Applies all changes in one step: other operations see none of them or all, and so does whoever opens the
    /// tree after a crash. When it fails, nothing has changed. Nothing is put at or below the reserved name `.kura`.
    pub fn graft(&self, ops: &[GraftOp]) -> Result<()> {
        self.graft_if(ops, &[])
    }

    /// The same, unless a path is no longer as it was seen.
    pub(super) fn graft_if(&self, ops: &[GraftOp], seen: &[Seen]) -> Result<()> {
        self.writable()?;
        let _kept = KeepLoaded::new(self);
        for path in ops.iter().map(GraftOp::path).chain(seen.iter().map(|seen| &*seen.path)) {
            self.load_ahead(path)?;
        }
        let invalidations = self.run(Wait::Yes, |table| {
            for op in ops {
                load_path(table, op.path())?;
                table.check_path_unlocked(&op.path().join(&b'/'), matches!(op, GraftOp::Remove { .. }))?;
            }
            check_seen(table, seen)?;
            let mut plan = Plan::new(self.now());
            for op in ops.iter().filter(|op| !op.puts_reserved()) {
                plan.add(table, op)?;
            }
            self.commit_together(table, plan.records)?;
            Ok(plan.invalidations)
        })?;
        self.tell(invalidations);
        self.wake();
        Ok(())
    }

    /// Loads one path, so that planning finds everything in memory and is not begun anew for each of them.
    fn load_ahead(&self, path: &[Vec<u8>]) -> Result<()> {
        // Each round loads one of its directories, or an inode with several names.
        for _ in 0..2 * path.len() + 2 {
            let order = {
                let mut table = self.table();
                match load_path(&mut table, path) {
                    Ok(()) => return Ok(()),
                    Err(Stop::Failed(error)) => return Err(error),
                    // Loading changes nothing.
                    Err(Stop::Held) => return Ok(()),
                    Err(Stop::Need(need)) => table.order(need),
                }
            };
            let loaded = load(&self.pages(), order)?;
            self.table().install(loaded);
        }
        Ok(())
    }

    /// Journals records that count together, then applies them.
    fn commit_together(&self, table: &mut Table, records: Vec<Record>) -> Attempt<()> {
        if records.is_empty() {
            return Ok(());
        }
        table.check_unheld()?;
        self.commit_group(table, records)
    }

    /// As [`commit_together`](Self::commit_together), also while other changes have to wait.
    pub(super) fn commit_group(&self, table: &mut Table, mut records: Vec<Record>) -> Attempt<()> {
        self.check_resting()?;
        // What finding the inodes takes counts in any case: records of others may rest on it.
        let places = table.places(&records);
        if !places.is_empty() {
            self.journal.append(&places)?;
            table.note_placed(&places);
        }
        records.insert(0, Record::Begin);
        records.push(Record::Commit);
        if records.len() <= FRAME_RECORDS {
            self.journal.append(&records)?;
        } else {
            // What has a beginning and no end does not reach beyond its segment.
            let next = self.journal.spare()?;
            let appended = records.chunks(FRAME_RECORDS).try_for_each(|frame| self.journal.append(frame).map(|_| ()));
            self.journal.go_on_in(next);
            appended?;
        }
        for record in &records {
            table.apply(record).map_err(|stop| match stop {
                Stop::Failed(error) => error,
                Stop::Need(_) | Stop::Held => {
                    WorkError::Inconsistent { ino: Ino::ROOT, reason: "a change was planned without it" }
                }
            })?;
        }
        table.note_placed(&records);
        Ok(())
    }
}

impl GraftOp {
    fn puts_reserved(&self) -> bool {
        matches!(self, GraftOp::Put { path, .. } if path.iter().any(|name| name == CONTROL_NAME))
    }

    fn path(&self) -> &[Vec<u8>] {
        match self {
            GraftOp::Remove { path } | GraftOp::Put { path, .. } | GraftOp::Attributes { path, .. } => path,
        }
    }
}

/// Makes sure that all of a path that exists is in memory, the names of its last part included.
pub(super) fn load_path(table: &mut Table, path: &[Vec<u8>]) -> Attempt<()> {
    let mut at = Ino::ROOT;
    for name in path {
        if !table.get(at)?.is_dir() {
            return Ok(());
        }
        match table.child(at, name)? {
            Some(ino) => at = ino,
            None => return Ok(()),
        }
    }
    if table.get(at)?.is_dir() {
        table.children(at)?;
    }
    Ok(())
}

/// Records that are being made, and the tree as it will be after them.
pub(super) struct Plan {
    pub(super) time: Timestamp,
    pub(super) records: Vec<Record>,
    pub(super) invalidations: Vec<Invalidation>,
    /// What changed names will stand for, by directory.
    names: HashMap<Ino, HashMap<Vec<u8>, Option<Ino>>>,
    /// How many names more each directory will have.
    growth: HashMap<Ino, isize>,
    made: HashMap<Ino, Made>,
    /// New numbers of inodes with several names.
    linked: HashMap<Ino, Ino>,
}

/// An inode that there will be.
struct Made {
    is_dir: bool,
    xattrs: Xattrs,
}

impl Plan {
    pub(super) fn new(time: Timestamp) -> Self {
        Self {
            time,
            records: Vec::new(),
            invalidations: Vec::new(),
            names: HashMap::new(),
            growth: HashMap::new(),
            made: HashMap::new(),
            linked: HashMap::new(),
        }
    }

    pub(super) fn add(&mut self, table: &mut Table, op: &GraftOp) -> Attempt<()> {
        let Some((name, dirs)) = op.path().split_last() else { return self.add_root(table, op) };
        let Some(parent) = self.find_dir(table, dirs)? else { return Ok(()) };
        let old = self.child(table, parent, name)?;
        match (op, old) {
            (GraftOp::Put { entry, linked, .. }, _) => self.put(table, (parent, name), old, entry, *linked)?,
            (_, None) => return Ok(()),
            (GraftOp::Remove { .. }, Some(ino)) => {
                if self.is_dir(table, ino)? && !self.is_empty(table, ino)? {
                    return Ok(());
                }
                self.remove(parent, name);
            }
            (GraftOp::Attributes { entry, .. }, Some(ino)) => self.attributes(table, ino, entry)?,
        }
        self.invalidations.extend(old.map(Invalidation::Inode));
        self.invalidations.push(Invalidation::Inode(parent));
        if !matches!(op, GraftOp::Attributes { .. }) {
            self.invalidations.push(Invalidation::Name { parent, name: name.as_slice().into() });
        }
        Ok(())
    }

    fn add_root(&mut self, table: &Table, op: &GraftOp) -> Attempt<()> {
        if let GraftOp::Attributes { entry, .. } = op {
            self.attributes(table, Ino::ROOT, entry)?;
            self.invalidations.push(Invalidation::Inode(Ino::ROOT));
        }
        Ok(())
    }

    fn put(
        &mut self,
        table: &mut Table,
        (parent, name): (Ino, &[u8]),
        old: Option<Ino>,
        entry: &Entry,
        linked: bool,
    ) -> Attempt<()> {
        if let Some(old) = old {
            if self.is_dir(table, old)? {
                if entry.is_dir() {
                    return self.attributes(table, old, entry);
                }
                if !self.is_empty(table, old)? {
                    return Err(WorkError::NotEmpty.into());
                }
            }
            self.remove(parent, name);
        }
        let (name, time) = (name.to_vec(), self.time);
        if let Some(ino) = self.linked.get(&entry.ino).copied() {
            self.set(parent, &name, Some(ino));
            self.records.push(Record::Link { ino, parent, name, time });
            return Ok(());
        }
        let mut inode = Box::new(entry.clone());
        let is_staged = table.staging.contains_key(&entry.ino) && !self.made.contains_key(&entry.ino);
        (inode.ino, inode.ctime) = (if is_staged { entry.ino } else { table.allocate_ino() }, time);
        if let Body::Directory { names, subdirs } = &mut inode.body {
            (*names, *subdirs) = (TreeRef::default(), 0);
        }
        if linked {
            self.linked.insert(entry.ino, inode.ino);
        }
        self.made.insert(inode.ino, Made { is_dir: entry.is_dir(), xattrs: entry.xattrs.clone() });
        self.set(parent, &name, Some(inode.ino));
        self.records.push(Record::Graft { parent, name, inode, published: true });
        Ok(())
    }

    fn remove(&mut self, parent: Ino, name: &[u8]) {
        self.set(parent, name, None);
        self.records.push(Record::Remove { parent, name: name.to_vec(), time: self.time });
    }

    /// A name comes or goes.
    fn set(&mut self, dir: Ino, name: &[u8], ino: Option<Ino>) {
        *self.growth.entry(dir).or_default() += if ino.is_some() { 1 } else { -1 };
        self.names.entry(dir).or_default().insert(name.to_vec(), ino);
    }

    fn attributes(&mut self, table: &Table, ino: Ino, entry: &Entry) -> Attempt<()> {
        let time = self.time;
        let set = AttrSet {
            mode: Some(entry.mode),
            uid: Some(entry.uid),
            gid: Some(entry.gid),
            atime: Some(entry.atime),
            mtime: Some(entry.mtime),
            ctime: time,
        };
        self.records.push(Record::Attr { ino, set });
        let old = match self.made.get(&ino) {
            Some(made) => made.xattrs.clone(),
            None => table.get(ino)?.xattrs.as_deref().cloned().unwrap_or_default(),
        };
        for name in old.keys().filter(|name| !entry.xattrs.contains_key(*name)) {
            self.records.push(Record::Xattr { ino, name: name.clone(), value: None, time });
        }
        for (name, value) in entry.xattrs.iter().filter(|(name, value)| old.get(*name) != Some(value)) {
            self.records.push(Record::Xattr { ino, name: name.clone(), value: Some(value.clone()), time });
        }
        Ok(())
    }

    fn child(&self, table: &mut Table, dir: Ino, name: &[u8]) -> Attempt<Option<Ino>> {
        match self.names.get(&dir).and_then(|names| names.get(name)) {
            Some(planned) => Ok(*planned),
            None if self.made.contains_key(&dir) => Ok(None),
            None => table.child(dir, name),
        }
    }

    fn is_dir(&self, table: &Table, ino: Ino) -> Attempt<bool> {
        self.made.get(&ino).map_or_else(|| Ok(table.get(ino)?.is_dir()), |made| Ok(made.is_dir))
    }

    fn is_empty(&self, table: &mut Table, dir: Ino) -> Attempt<bool> {
        let now = if self.made.contains_key(&dir) { 0 } else { table.children(dir)?.len() };
        let growth = self.growth.get(&dir).copied().unwrap_or(0);
        Ok(now.saturating_add_signed(growth) == 0)
    }

    fn find_dir(&self, table: &mut Table, names: &[Vec<u8>]) -> Attempt<Option<Ino>> {
        let mut at = Ino::ROOT;
        for name in names {
            match self.child(table, at, name)? {
                Some(ino) if self.is_dir(table, ino)? => at = ino,
                _ => return Ok(None),
            }
        }
        Ok(Some(at))
    }
}
