//! Undoing what one version changed.

use std::collections::HashSet;
use std::sync::Arc;

use super::history::is_below;
use super::opened::Workspace;
use super::restore::{Plan, listed, names, without_reserved};
use super::{Conflict, Restored, Result, split_path};
use crate::base::ids::{FileId, VersionId};
use crate::base::limits::NAME_LEN_MAX;
use crate::version::diff::{Change, diff, join};
use crate::version::entry::{Body, Entry};
use crate::version::index::{IndexRecord, Origin};
use crate::version::pages::Pages;
use crate::worktree::{GraftOp, Reason};

type Path = Arc<[u8]>;

impl Workspace {
    /// Undoes what a version changed. Paths that changed again since are left alone, and the reverted state is put
    /// beside them.
    pub fn revert(&self, version: VersionId) -> Result<Restored> {
        let _history = self.history.lock();
        self.check_writable()?;
        let undone = self.version(version)?;
        let present = self.present()?;
        let Some(parent) = undone.parents.first() else { return Ok(Restored::default()) };
        let parent = self.version(*parent)?;
        let mut reverting = Reverting::new(self, &present, &parent);
        diff(&Pages(self.blobs()), &undone.root, &parent.root, &mut |change| {
            reverting.inverse.push(change);
            Ok(())
        })?;
        let skipped;
        (reverting.inverse, skipped) = without_reserved(std::mem::take(&mut reverting.inverse));
        reverting.sort()?;
        let ops = reverting.ops()?;
        let (changes, conflicts) = (listed(&reverting.apply), reverting.conflicts);
        if ops.is_empty() {
            return Ok(Restored { changes, conflicts, skipped, recorded: None });
        }
        self.tree().graft(&ops)?;
        let message = Some(format!("revert {version}"));
        let recorded = self.record(Reason { origin: Origin::Revert, message, tag: None, always: false })?;
        Ok(Restored { changes, conflicts, skipped, recorded })
    }
}

struct Reverting<'a> {
    workspace: &'a Workspace,
    present: &'a IndexRecord,
    /// The state before the version that is undone.
    parent: &'a IndexRecord,
    /// From the version that is undone to its parent, parents before children.
    inverse: Vec<Change>,
    /// What can be undone as it is.
    apply: Vec<Change>,
    /// What is put beside a path that has changed since.
    beside: Vec<(Path, Entry)>,
    /// Directories that had to be put beside their path.
    moved: Vec<(Path, Path)>,
    conflicts: Vec<Conflict>,
    /// Directories that are made, and names that are given, by this revert.
    made: HashSet<Path>,
}

impl<'a> Reverting<'a> {
    fn new(workspace: &'a Workspace, present: &'a IndexRecord, parent: &'a IndexRecord) -> Self {
        Self {
            workspace,
            present,
            parent,
            inverse: Vec::new(),
            apply: Vec::new(),
            beside: Vec::new(),
            moved: Vec::new(),
            conflicts: Vec::new(),
            made: HashSet::new(),
        }
    }

    /// Tells what can be undone from what has changed since.
    fn sort(&mut self) -> Result<()> {
        for change in std::mem::take(&mut self.inverse) {
            if let Some((from, to)) = self.moved.iter().rev().find(|(from, _)| is_below(&change.path, from)) {
                let path: Path = [to, &change.path[from.len()..]].concat().into();
                self.beside.extend(change.after.map(|entry| (path, entry)));
                continue;
            }
            let now = self.workspace.find(self.present, &split_path(&change.path))?;
            let is_free = now.is_some() || change.after.is_none() || self.lead(&change.path)?;
            if same(now.as_ref(), change.after.as_ref()) {
                continue;
            }
            if is_free && same(now.as_ref(), change.before.as_ref()) {
                if change.after.as_ref().is_some_and(Entry::is_dir) {
                    self.made.insert(change.path.clone());
                }
                self.apply.push(Change { before: now, ..change });
                continue;
            }
            self.conflict(change, now.as_ref())?;
        }
        Ok(())
    }

    /// Makes the directories above a path that are gone; false when something else stands there.
    fn lead(&mut self, path: &Path) -> Result<bool> {
        let names = split_path(path);
        let mut missing = Vec::new();
        for depth in 1..names.len() {
            let above: Path = names[..depth].join(&b'/').into();
            if self.made.contains(&above) {
                continue;
            }
            match self.workspace.find(self.present, &names[..depth])? {
                Some(entry) if entry.is_dir() => {}
                Some(_) => return Ok(false),
                None => match self.workspace.find(self.parent, &names[..depth])? {
                    Some(after) if after.is_dir() => {
                        missing.push(Change { path: above, before: None, after: Some(after) });
                    }
                    _ => return Ok(false),
                },
            }
        }
        self.made.extend(missing.iter().map(|change| change.path.clone()));
        self.apply.append(&mut missing);
        Ok(true)
    }

    fn conflict(&mut self, change: Change, now: Option<&Entry>) -> Result<()> {
        let are_dirs = now.is_some_and(Entry::is_dir) && change.after.as_ref().is_some_and(Entry::is_dir);
        let beside = match change.after {
            Some(entry) if !are_dirs => {
                let path = self.free_name(&change.path)?;
                if entry.is_dir() {
                    self.moved.push((change.path.clone(), path.clone()));
                }
                self.beside.push((path.clone(), entry));
                Some(path)
            }
            _ => None,
        };
        self.conflicts.push(Conflict { path: change.path, beside });
        Ok(())
    }

    /// `conflict-YYYYMMDD.HHmmss.NAME` in the nearest directory that is there.
    fn free_name(&mut self, path: &[u8]) -> Result<Path> {
        let names = split_path(path);
        let Some((name, above)) = names.split_last() else { return Ok(Path::from(path)) };
        let mut depth = above.len();
        while depth > 0 && !self.workspace.find(self.present, &above[..depth])?.is_some_and(|entry| entry.is_dir()) {
            depth -= 1;
        }
        let dir = above[..depth].join(&b'/');
        let (seconds, _) = self.workspace.parts.options.clock.now().parts();
        let time = jiff::Timestamp::from_second(seconds).unwrap_or_default().strftime("%Y%m%d.%H%M%S").to_string();
        for number in 0_u32.. {
            let tail = if number == 0 { String::new() } else { format!("-{number}") };
            let mut new = format!("conflict-{time}.").into_bytes();
            new.extend_from_slice(&name[..name.len().min(NAME_LEN_MAX - new.len() - tail.len())]);
            new.extend_from_slice(tail.as_bytes());
            let candidate = join(&dir, &new);
            if self.workspace.find(self.present, &split_path(&candidate))?.is_none()
                && self.made.insert(candidate.clone())
            {
                return Ok(candidate);
            }
        }
        Ok(Path::from(path))
    }

    fn ops(&self) -> Result<Vec<GraftOp>> {
        let io = Pages(self.workspace.blobs());
        let plan = Plan { io: &io, root: &self.parent.root, alive: self.alive()? };
        let mut ops = plan.ops(&self.apply, &[])?;
        for (path, entry) in &self.beside {
            let entry = Box::new(Entry { file_id: FileId::random(), ..entry.clone() });
            ops.push(GraftOp::Put { path: names(path), entry, linked: false });
        }
        Ok(ops)
    }

    /// Identities that paths keep which the revert does not touch.
    fn alive(&self) -> Result<HashSet<FileId>> {
        let touched: HashSet<&[u8]> = self.apply.iter().map(|change| &*change.path).collect();
        let mut alive = HashSet::new();
        diff(&Pages(self.workspace.blobs()), &self.parent.root, &self.present.root, &mut |change| {
            if !touched.contains(&*change.path) {
                alive.extend(change.after.map(|entry| entry.file_id));
            }
            Ok(())
        })?;
        Ok(alive)
    }
}

/// Whether two entries are the same to a user: kind, content, attributes; of directories, not their names.
fn same(a: Option<&Entry>, b: Option<&Entry>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return a.is_none() && b.is_none() };
    let attributes = |entry: &Entry| (entry.mode, entry.uid, entry.gid, entry.xattrs.clone());
    let bodies = match (&a.body, &b.body) {
        (Body::Directory { .. }, Body::Directory { .. }) => true,
        (Body::File(a), Body::File(b)) => {
            a.size == b.size && (a.content == b.content || a.sha256.is_some() && a.sha256 == b.sha256)
        }
        (a, b) => a == b,
    };
    bodies && attributes(a) == attributes(b)
}
