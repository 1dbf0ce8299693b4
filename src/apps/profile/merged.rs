//! Lock files that lie beside each other, after two machines changed what is installed without knowing of each other.
//!
//! What is there decides: a profile that only one of them has and whose files are all gone was uninstalled, of two
//! states of one profile the one counts that fits better, and a path that both have belongs to the one whose content it
//! has. The next change writes that down, and the file beside goes.

use std::collections::{HashMap, HashSet};

use super::error::{Result, during};
use super::lockfile::{CONFIG_PATH, Entry, LEN_MAX, LOCK_PATH, LockFile, check_config};
use super::phases::Phase;
use crate::workspace::{Change, Now, SidecarFile, Workspace, WorkspaceError, fold, integrity_of_files, is_beside};

/// Takes what lies beside into a lock file. What cannot be read there stays as it is.
pub(super) fn merged(workspace: &Workspace, change: &mut Change<'_>, mut lock: LockFile) -> Result<LockFile> {
    let mut everywhere: HashSet<String> = lock.profiles.iter().map(|entry| entry.name.clone()).collect();
    for name in beside_in(workspace, change, "")? {
        if is_beside(name.as_bytes(), LOCK_PATH.as_bytes()) {
            let read = |bytes: &[u8]| LockFile::parse(bytes).ok();
            let Some(other) = beside(change, &name)?.and_then(|bytes| read(&bytes)) else { continue };
            everywhere.retain(|name| other.find(name).is_some());
            for entry in other.profiles {
                take(workspace, change, &mut lock, entry)?;
            }
            lock.beside.push(name);
        } else if is_beside(name.as_bytes(), CONFIG_PATH.as_bytes())
            && beside(change, &name)?.is_some_and(|bytes| check_config(&bytes).is_ok())
        {
            lock.beside.push(name);
        }
    }
    if lock.is_merged() {
        drop_gone(workspace, change, &mut lock, &everywhere)?;
        part(workspace, change, &mut lock)?;
    }
    Ok(lock)
}

/// Names of files that were put beside others.
fn beside_in(workspace: &Workspace, change: &Change<'_>, dir: &str) -> Result<Vec<String>> {
    let names = workspace.names_that_begin(change.record(), dir, b"conflict-").map_err(during(Phase::Lock))?;
    Ok(names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect())
}

/// A file beside, unless it is something else.
fn beside(change: &mut Change<'_>, name: &str) -> Result<Option<Vec<u8>>> {
    match change.read_small(name, LEN_MAX) {
        Err(WorkspaceError::Unfit { .. }) => Ok(None),
        read => read.map_err(during(Phase::Lock)),
    }
}

/// Puts an entry in, unless the one that is there fits as well.
fn take(workspace: &Workspace, change: &mut Change<'_>, lock: &mut LockFile, entry: Entry) -> Result<()> {
    let better = match lock.find(&entry.name) {
        Some(known) => fitting(workspace, change, &entry)? > fitting(workspace, change, known)?,
        None => true,
    };
    if better {
        lock.set(&entry.name.clone(), Some(entry));
    }
    Ok(())
}

fn now(workspace: &Workspace, change: &mut Change<'_>, path: &str) -> Result<Now> {
    let spot = change.look(path).map_err(during(Phase::Lock))?;
    spot.now(workspace).map_err(during(Phase::Lock))
}

/// How many files are there as an entry says, less those that are not.
fn fitting(workspace: &Workspace, change: &mut Change<'_>, entry: &Entry) -> Result<i64> {
    let mut count = 0;
    for file in &entry.files {
        count += if now(workspace, change, &file.path)? == Now::File(file.sha256) { 1 } else { -1 };
    }
    Ok(count)
}

/// Takes profiles out of which nothing is there, unless all lock files have them `everywhere`.
fn drop_gone(
    workspace: &Workspace,
    change: &mut Change<'_>,
    lock: &mut LockFile,
    everywhere: &HashSet<String>,
) -> Result<()> {
    for entry in std::mem::take(&mut lock.profiles) {
        let mut is_there = entry.files.is_empty() || everywhere.contains(&entry.name);
        for file in &entry.files {
            is_there = is_there || now(workspace, change, &file.path)? != Now::Absent;
        }
        lock.profiles.extend(is_there.then_some(entry));
    }
    Ok(())
}

/// Leaves each path to one profile. What the other has there lies beside it, as that one's.
fn part(workspace: &Workspace, change: &mut Change<'_>, lock: &mut LockFile) -> Result<()> {
    let mut owners: HashMap<String, (usize, bool)> = HashMap::new();
    for (number, entry) in lock.profiles.iter().enumerate() {
        for file in &entry.files {
            let is_it = now(workspace, change, &file.path)? == Now::File(file.sha256);
            let owner = owners.entry(fold(&file.path)).or_insert((number, is_it));
            if is_it && !owner.1 {
                *owner = (number, true);
            }
        }
    }
    for (number, entry) in lock.profiles.iter_mut().enumerate() {
        let is_own = |path: &str| owners.get(&fold(path)).is_some_and(|(owner, _)| *owner == number);
        let (own, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut entry.files).into_iter().partition(|file| is_own(&file.path));
        entry.files = own;
        for file in &others {
            if let Some(path) = copy_of(workspace, change, &file.path, Now::File(file.sha256))? {
                entry.sidecars.push(SidecarFile { path, meant_for: file.path.clone(), sha256: file.sha256 });
            }
        }
        if !others.is_empty() {
            entry.integrity = integrity_of_files(entry.files.iter());
        }
    }
    Ok(())
}

/// The file beside a path that has this content.
fn copy_of(workspace: &Workspace, change: &mut Change<'_>, path: &str, content: Now) -> Result<Option<String>> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let names = beside_in(workspace, change, dir)?;
    for other in names.into_iter().filter(|other| is_beside(other.as_bytes(), name.as_bytes())) {
        let path = if dir.is_empty() { other } else { format!("{dir}/{other}") };
        if now(workspace, change, &path)? == content {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
