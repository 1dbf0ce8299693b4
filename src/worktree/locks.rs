//! Paths that clients have locked.

use super::live::{Wait, Worktree};
use super::table::{Attempt, Table};
use super::{Result, WorkError};
use crate::version::entry::Ino;
use crate::version::merge::Policy;
use crate::version::refs::Policies;

/// Whose lock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This client's.
    Ours,
    /// Another client's: the path cannot be changed here.
    Theirs,
    /// This client's until it lost it: what was changed here meanwhile gives way to what others changed.
    Lost,
}

/// A locked path. A lock holds for everything below, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The names from the root, joined by `/`; empty for everything.
    pub path: Vec<u8>,
    /// `user@host` of who has it.
    pub holder: String,
    /// Whose it is.
    pub owner: Owner,
}

/// Whether `path` is `dir` or below it.
pub fn is_within(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
}

fn refusal(lock: &Lock) -> WorkError {
    WorkError::Locked { holder: lock.holder.clone() }
}

impl Table {
    fn path_to(&self, dir: Ino, name: &[u8]) -> Vec<u8> {
        let mut path = self.path_of(dir);
        path.push(name.to_vec());
        path.join(&b'/')
    }

    /// The paths that lead to an inode, as far as its directories are in memory.
    fn paths_to(&self, ino: Ino) -> Vec<Vec<u8>> {
        match self.find(ino) {
            Some(inode) if inode.linked => {
                let names = self.names_of(&[ino].into()).remove(&ino).unwrap_or_default();
                names.iter().map(|(dir, name)| self.path_to(*dir, name)).collect()
            }
            _ => vec![self.path_of(ino).join(&b'/')],
        }
    }

    fn theirs(&self) -> impl Iterator<Item = &Lock> {
        self.locks.iter().filter(|lock| lock.owner == Owner::Theirs)
    }

    /// Refuses to make a name that somebody else has locked.
    pub(super) fn check_name_unlocked(&self, dir: Ino, name: &[u8]) -> Attempt<()> {
        if self.locks.is_empty() {
            return Ok(());
        }
        self.check_path_unlocked(&self.path_to(dir, name), false)
    }

    /// Refuses to take away a name that somebody else has locked, or that leads to what is locked.
    pub(super) fn check_name_movable(&self, dir: Ino, name: &[u8]) -> Attempt<()> {
        if self.locks.is_empty() {
            return Ok(());
        }
        self.check_path_unlocked(&self.path_to(dir, name), true)
    }

    /// Refuses to change what is at a path; with `whole`, also what is below it.
    pub(super) fn check_path_unlocked(&self, path: &[u8], whole: bool) -> Attempt<()> {
        let mut theirs = self.theirs();
        match theirs.find(|lock| is_within(path, &lock.path) || whole && is_within(&lock.path, path)) {
            Some(lock) => Err(refusal(lock).into()),
            None => Ok(()),
        }
    }

    /// Refuses to change an inode that somebody else has locked. Who has it open for writing already goes on.
    pub(super) fn check_inode_unlocked(&self, ino: Ino) -> Attempt<()> {
        if self.locks.is_empty() || self.find(ino).and_then(|inode| inode.file().ok()).is_some_and(|f| f.writers > 0) {
            return Ok(());
        }
        self.paths_to(ino).iter().try_for_each(|path| self.check_path_unlocked(path, false))
    }

    /// What is decided about a path that both sides changed, locks considered.
    pub(super) fn policy_of(locks: &[Lock], policies: &Policies, path: &[u8]) -> Policy {
        let over = |owner| locks.iter().any(|lock| lock.owner == owner && is_within(path, &lock.path));
        if over(Owner::Ours) {
            Policy::KeepBoth
        } else if over(Owner::Theirs) || over(Owner::Lost) {
            Policy::Yield
        } else {
            policies.of(path)
        }
    }
}

impl Worktree {
    /// Says which paths are locked from now on.
    pub fn set_locks(&self, locks: Vec<Lock>) {
        self.table().locks = locks;
    }

    /// The lock that holds for an inode.
    pub fn lock_of(&self, ino: Ino, wait: Wait) -> Result<Option<Lock>> {
        self.run(wait, |table| {
            table.get(ino)?;
            if table.locks.is_empty() {
                return Ok(None);
            }
            let paths = table.paths_to(ino);
            let mut held = table.locks.iter().filter(|lock| lock.owner != Owner::Lost);
            Ok(held.find(|lock| paths.iter().any(|path| is_within(path, &lock.path))).cloned())
        })
    }

    /// Files with content or attributes that no version has, at most `max`: path, length in bytes, and whether the
    /// content is a draft.
    pub fn unrecorded_files(&self, max: usize) -> Vec<(Vec<u8>, u64, bool)> {
        let table = self.table();
        let inos = table.unrecorded();
        let named = |ino: Ino| {
            let inode = table.find(ino).filter(|inode| inode.nlink > 0)?;
            let file = inode.file().ok()?;
            let path = table.paths_to(ino).into_iter().next()?;
            Some((path, file.size, file.draft.is_some() || !file.is_published()))
        };
        inos.into_iter().filter_map(named).take(max).collect()
    }
}

impl Table {
    /// Inodes with content or attributes that no version has.
    pub(super) fn unrecorded(&self) -> Vec<Ino> {
        let mut inos: Vec<Ino> = self.drafts.iter().chain(&self.frozen).chain(&self.dirty_links).copied().collect();
        for dir in &self.dirty_dirs {
            let Some(dir) = self.find(*dir).and_then(|inode| inode.dir().ok()) else { continue };
            let Some(children) = &dir.children else { continue };
            inos.extend(dir.dirty.iter().filter_map(|name| Some(children.get(name)?.ino)));
        }
        inos.sort_unstable();
        inos.dedup();
        inos
    }
}
