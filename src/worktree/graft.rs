//! Setting names to ready inodes: restoring, reverting, and later merging.

use std::collections::HashMap;

use super::live::{Wait, Worktree};
use super::record::{AttrSet, Record};
use super::table::{Attempt, Stop, Table};
use super::{Name, Result, WorkError};
use crate::version::entry::{Body, Entry, Ino};
use crate::version::tree::TreeRef;

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
}

impl Worktree {
    /// Applies all changes in one step: other operations see none of them or all.
    pub fn graft(&self, ops: &[GraftOp]) -> Result<()> {
        self.writable()?;
        let invalidations = self.run(Wait::Yes, |table| {
            for op in ops {
                load_path(table, op.path())?;
            }
            let mut work = Graft { tree: self, linked: HashMap::new(), invalidations: Vec::new() };
            for op in ops {
                work.apply(table, op)?;
            }
            Ok(work.invalidations)
        })?;
        self.tell(invalidations);
        self.wake();
        Ok(())
    }
}

impl GraftOp {
    fn path(&self) -> &[Vec<u8>] {
        match self {
            GraftOp::Remove { path } | GraftOp::Put { path, .. } | GraftOp::Attributes { path, .. } => path,
        }
    }
}

/// Makes sure that all of a path that exists is in memory, the names of its last part included.
fn load_path(table: &mut Table, path: &[Vec<u8>]) -> Attempt<()> {
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

struct Graft<'a> {
    tree: &'a Worktree,
    /// New numbers of inodes with several names.
    linked: HashMap<Ino, Ino>,
    invalidations: Vec<Invalidation>,
}

impl Graft<'_> {
    fn apply(&mut self, table: &mut Table, op: &GraftOp) -> Attempt<()> {
        let Some((name, dirs)) = op.path().split_last() else { return self.apply_root(table, op) };
        let Some(parent) = find_dir(table, dirs)? else { return Ok(()) };
        let old = table.child(parent, name)?;
        let time = self.tree.now();
        let records = match op {
            GraftOp::Remove { .. } => match old {
                Some(ino) if table.get(ino)?.is_dir() && !table.children(ino)?.is_empty() => return Ok(()),
                Some(_) => vec![Record::Remove { parent, name: name.clone(), time }],
                None => return Ok(()),
            },
            GraftOp::Put { entry, linked, .. } => self.put(table, (parent, name), old, entry, *linked)?,
            GraftOp::Attributes { entry, .. } => match old {
                Some(ino) => attributes(table, ino, entry, time)?,
                None => return Ok(()),
            },
        };
        self.tree.commit(table, &records)?;
        self.invalidations.extend(old.map(Invalidation::Inode));
        self.invalidations.push(Invalidation::Inode(parent));
        if !matches!(op, GraftOp::Attributes { .. }) {
            self.invalidations.push(Invalidation::Name { parent, name: name.as_slice().into() });
        }
        Ok(())
    }

    fn apply_root(&mut self, table: &mut Table, op: &GraftOp) -> Attempt<()> {
        if let GraftOp::Attributes { entry, .. } = op {
            let records = attributes(table, Ino::ROOT, entry, self.tree.now())?;
            self.tree.commit(table, &records)?;
            self.invalidations.push(Invalidation::Inode(Ino::ROOT));
        }
        Ok(())
    }

    fn put(
        &mut self,
        table: &mut Table,
        at: (Ino, &[u8]),
        old: Option<Ino>,
        entry: &Entry,
        linked: bool,
    ) -> Attempt<Vec<Record>> {
        let (parent, name) = at;
        let time = self.tree.now();
        if let Some(old) = old.filter(|_| entry.is_dir())
            && table.get(old)?.is_dir()
        {
            return attributes(table, old, entry, time);
        }
        let mut records = Vec::new();
        if let Some(old) = old {
            if table.get(old)?.is_dir() && !table.children(old)?.is_empty() {
                return Err(WorkError::NotEmpty.into());
            }
            records.push(Record::Remove { parent, name: name.to_vec(), time });
        }
        if let Some(ino) = self.linked.get(&entry.ino) {
            records.push(Record::Link { ino: *ino, parent, name: name.to_vec(), time });
            return Ok(records);
        }
        let mut inode = Box::new(entry.clone());
        inode.ino = table.allocate_ino();
        inode.ctime = time;
        if let Body::Directory { names, subdirs } = &mut inode.body {
            (*names, *subdirs) = (TreeRef::default(), 0);
        }
        if linked {
            self.linked.insert(entry.ino, inode.ino);
        }
        records.push(Record::Graft { parent, name: name.to_vec(), inode, published: true });
        Ok(records)
    }
}

fn find_dir(table: &mut Table, names: &[Vec<u8>]) -> Attempt<Option<Ino>> {
    let mut at = Ino::ROOT;
    for name in names {
        match table.child(at, name) {
            Ok(Some(ino)) => at = ino,
            Ok(None) | Err(Stop::Failed(WorkError::NotADirectory)) => return Ok(None),
            Err(stop) => return Err(stop),
        }
    }
    Ok(table.get(at)?.is_dir().then_some(at))
}

fn attributes(table: &Table, ino: Ino, entry: &Entry, time: crate::base::clock::Timestamp) -> Attempt<Vec<Record>> {
    let inode = table.get(ino)?;
    let set = AttrSet {
        mode: Some(entry.mode),
        uid: Some(entry.uid),
        gid: Some(entry.gid),
        atime: Some(entry.atime),
        mtime: Some(entry.mtime),
        ctime: time,
    };
    let mut records = vec![Record::Attr { ino, set }];
    let old = inode.xattrs.as_deref().cloned().unwrap_or_default();
    for name in old.keys().filter(|name| !entry.xattrs.contains_key(*name)) {
        records.push(Record::Xattr { ino, name: name.clone(), value: None, time });
    }
    for (name, value) in entry.xattrs.iter().filter(|(name, value)| old.get(*name) != Some(value)) {
        records.push(Record::Xattr { ino, name: name.clone(), value: Some(value.clone()), time });
    }
    Ok(records)
}
