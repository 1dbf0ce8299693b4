//! Setting the live tree back to a recorded state.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::history::is_below;
use super::opened::Workspace;
use super::{PathChange, Restored, Result, split_path};
use crate::base::ids::{FileId, VersionId};
use crate::version::VersionError;
use crate::version::diff::{Change, ChangeKind, diff, join};
use crate::version::entry::{Body, CONTROL_NAME, Entry, Ino, LinkRecord};
use crate::version::index::{IndexRecord, Origin, Root};
use crate::version::pages::Pages;
use crate::version::tree::PageIo;
use crate::worktree::{GraftOp, Reason};

impl Workspace {
    /// Sets the live tree, or only `paths` of it, back to what they are in a version. Names that the version does
    /// not have go away. What was there before is in the version recorded first.
    pub fn restore(&self, version: VersionId, paths: &[Vec<u8>], dry_run: bool) -> Result<Restored> {
        let _history = self.history.lock();
        let wanted = self.version(version)?;
        if !dry_run {
            self.check_writable()?;
        }
        let present = self.present()?;
        let paths: Vec<Vec<u8>> = paths.iter().map(|path| split_path(path).join(&b'/')).collect();
        let io = Pages(&self.parts.blobs);
        let mut all = Vec::new();
        diff(&io, &present.root, &wanted.root, &mut |change| {
            all.push(change);
            Ok(())
        })?;
        self.check_paths(&paths, &all, &wanted)?;
        let (chosen, left) = choose(all, &paths);
        let (chosen, skipped) = without_reserved(chosen);
        let changes = listed(&chosen);
        let root = root_change(&present.root, &wanted.root, &paths);
        if dry_run || changes.is_empty() && root.is_none() {
            return Ok(Restored { changes, skipped, ..Restored::default() });
        }
        let alive = left.iter().filter_map(|change| change.before.as_ref()).map(|entry| entry.file_id).collect();
        let mut ops = Plan { io: &io, root: &wanted.root, alive }.ops(&chosen, &paths)?;
        ops.extend(root);
        self.tree().graft(&ops)?;
        let message = Some(format!("restore {version}"));
        let recorded = self.record(Reason { origin: Origin::Restore, message, tag: None, always: false })?;
        Ok(Restored { changes, conflicts: Vec::new(), skipped, recorded })
    }

    /// A path that neither the version nor the present has is a mistake.
    fn check_paths(&self, paths: &[Vec<u8>], changes: &[Change], wanted: &IndexRecord) -> Result<()> {
        for path in paths {
            let is_changed = changes.iter().any(|change| is_below(&change.path, path));
            if !is_changed && self.find(wanted, &split_path(path))?.is_none() {
                let path = String::from_utf8_lossy(path).into_owned();
                return Err(VersionError::NoSuchPath { version: wanted.id, path }.into());
            }
        }
        Ok(())
    }
}

/// Splits changes into those to apply and those to leave. Missing directories above a chosen path belong to it.
fn choose(changes: Vec<Change>, paths: &[Vec<u8>]) -> (Vec<Change>, Vec<Change>) {
    let leads = |change: &Change, path: &[u8]| {
        let is_missing = !change.before.as_ref().is_some_and(Entry::is_dir);
        is_missing && change.after.as_ref().is_some_and(Entry::is_dir) && is_below(path, &change.path)
    };
    let is_chosen = |change: &Change| {
        paths.is_empty() || paths.iter().any(|path| is_below(&change.path, path) || leads(change, path))
    };
    changes.into_iter().partition(is_chosen)
}

/// Takes out what is put at or below the reserved name, with the paths of that name.
pub(super) fn without_reserved(changes: Vec<Change>) -> (Vec<Change>, Vec<Arc<[u8]>>) {
    let is_reserved = |path: &[u8]| split_path(path).contains(&CONTROL_NAME);
    let (reserved, kept): (Vec<Change>, Vec<Change>) =
        changes.into_iter().partition(|change| is_reserved(&change.path));
    let tops = reserved.iter().filter(|change| change.path.ends_with(CONTROL_NAME) && change.after.is_some());
    let skipped = tops.map(|change| change.path.clone()).filter(|path| {
        let names = split_path(path);
        names.iter().position(|name| *name == CONTROL_NAME) == Some(names.len() - 1)
    });
    let skipped = skipped.collect();
    (kept, skipped)
}

pub(super) fn listed(changes: &[Change]) -> Vec<PathChange> {
    let mut seen = HashSet::new();
    let listed = changes.iter().filter_map(|change| Some((change.path.clone(), change.kind()?)));
    listed.filter(|(path, _)| seen.insert(path.clone())).map(|(path, kind)| PathChange { path, kind }).collect()
}

/// The root directory's own attributes, when everything is restored.
fn root_change(present: &Root, wanted: &Root, paths: &[Vec<u8>]) -> Option<GraftOp> {
    let attributes = |root: &Root| (root.dir.mode, root.dir.uid, root.dir.gid, root.dir.xattrs.clone());
    let differs = paths.is_empty() && attributes(present) != attributes(wanted);
    differs.then(|| GraftOp::Attributes { path: Vec::new(), entry: Box::new(wanted.dir.clone()) })
}

pub(super) fn names(path: &[u8]) -> Vec<Vec<u8>> {
    split_path(path).into_iter().map(<[u8]>::to_vec).collect()
}

/// Makes operations of changes: what is there now becomes what is wanted.
pub(super) struct Plan<'a> {
    pub(super) io: &'a dyn PageIo,
    /// The tree that the wanted entries come from.
    pub(super) root: &'a Root,
    /// Identities that other paths of the live tree keep.
    pub(super) alive: HashSet<FileId>,
}

impl Plan<'_> {
    /// Removals deepest first, then everything else parents first, directories' attributes last.
    pub(super) fn ops(&self, changes: &[Change], selected: &[Vec<u8>]) -> Result<Vec<GraftOp>> {
        let mut removals = Vec::new();
        let mut puts = Vec::new();
        let mut attributes = Vec::new();
        let mut linked: HashMap<Ino, HashSet<Arc<[u8]>>> = HashMap::new();
        for change in changes {
            let path = names(&change.path);
            let Some(after) = &change.after else {
                removals.push(GraftOp::Remove { path });
                continue;
            };
            match change.kind() {
                None => {}
                Some(ChangeKind::Metadata) => {
                    attributes.push(GraftOp::Attributes { path, entry: Box::new(after.clone()) });
                }
                Some(_) => {
                    let is_linked = self.is_linked(after)?;
                    if is_linked {
                        linked.entry(after.ino).or_default().insert(change.path.clone());
                    }
                    puts.push(self.put(path.clone(), after, is_linked));
                    // Its times, after its names were put.
                    if after.is_dir() {
                        attributes.push(GraftOp::Attributes { path, entry: Box::new(after.clone()) });
                    }
                }
            }
        }
        removals.reverse();
        puts.extend(self.other_names(&linked, selected)?);
        attributes.reverse();
        Ok([removals, puts, attributes].concat())
    }

    fn put(&self, path: Vec<Vec<u8>>, entry: &Entry, linked: bool) -> GraftOp {
        let mut entry = Box::new(entry.clone());
        if self.alive.contains(&entry.file_id) {
            entry.file_id = FileId::random();
        }
        GraftOp::Put { path, entry, linked }
    }

    fn is_linked(&self, entry: &Entry) -> Result<bool> {
        let has_links = self.root.links.count() > 0 && !entry.is_dir();
        Ok(has_links && self.root.links.get(self.io, &LinkRecord::key(entry.ino))?.is_some())
    }

    /// Names of inodes in `linked` that did not differ by themselves: they have to join the new inode.
    fn other_names(&self, linked: &HashMap<Ino, HashSet<Arc<[u8]>>>, selected: &[Vec<u8>]) -> Result<Vec<GraftOp>> {
        let mut missing = HashSet::new();
        for (ino, paths) in linked {
            if self.root.link(self.io, *ino)?.names as usize > paths.len() {
                missing.insert(*ino);
            }
        }
        let mut puts = Vec::new();
        let mut dirs: Vec<(Arc<[u8]>, Entry)> = Vec::new();
        if !missing.is_empty() {
            dirs.push((Arc::from(&b""[..]), self.root.dir.clone()));
        }
        while let Some((dir, entry)) = dirs.pop() {
            for (name, entry) in entries(self.io, &entry)? {
                let path = join(&dir, &name);
                if entry.is_dir() {
                    dirs.push((path, entry));
                } else if matches!(entry.body, Body::Link)
                    && missing.contains(&entry.ino)
                    && !linked[&entry.ino].contains(&path)
                    && (selected.is_empty() || selected.iter().any(|top| is_below(&path, top)))
                {
                    puts.push(self.put(names(&path), &self.root.resolve(self.io, entry)?, true));
                }
            }
        }
        Ok(puts)
    }
}

/// The names of a directory with their entries, links not resolved.
pub(super) fn entries(io: &dyn PageIo, dir: &Entry) -> Result<Vec<(Vec<u8>, Entry)>> {
    let Body::Directory { names, .. } = &dir.body else { return Ok(Vec::new()) };
    let mut values = Vec::new();
    names.scan(io, std::ops::Bound::Unbounded, &mut |name, value| {
        values.push((name.to_vec(), value.to_vec()));
        true
    })?;
    values.into_iter().map(|(name, value)| Ok((name, Entry::decode(&value)?))).collect()
}
