//! What happened to one path, and what is gone.

use std::collections::HashMap;
use std::sync::Arc;

use super::history::is_below;
use super::{Result, Workspace, WorkspaceError, split_path};
use crate::base::ids::VersionId;
use crate::version::diff::{Change, ChangeKind, diff};
use crate::version::entry::{Body, Entry};
use crate::version::index::IndexRecord;
use crate::version::pages::Pages;
use crate::version::tree::TreeRef;

/// A version, a path in it, and what is there.
type Found = (Arc<IndexRecord>, Arc<[u8]>, Entry);

/// A path, and the size of a file in bytes; `None` for what is no regular file.
pub type PathSize = (Arc<[u8]>, Option<u64>);

/// One version that changed a path.
#[derive(Clone, Debug)]
pub struct Step {
    /// The version.
    pub record: Arc<IndexRecord>,
    /// The path in that version; of a removal, the one that went.
    pub path: Arc<[u8]>,
    /// The path before, where it was another.
    pub from: Option<Arc<[u8]>>,
    /// How the inode changed; `None` when it only got another name.
    pub kind: Option<ChangeKind>,
    /// The inode in that version; `None` when it was removed.
    pub entry: Option<Entry>,
}

/// A path that the newest version does not have.
#[derive(Clone, Debug)]
pub struct Gone {
    /// The path.
    pub path: Arc<[u8]>,
    /// The newest version that has it.
    pub version: VersionId,
    /// What it is there.
    pub entry: Entry,
}

impl Workspace {
    /// What happened to a path, newest first, following it through renames and, in merges, the side that it came from.
    /// `each` says whether to go on. A path that is gone begins with its removal; one that never was gives nothing.
    pub fn trace(&self, path: &[u8], each: &mut dyn FnMut(Step) -> bool) -> Result<()> {
        let mut path: Arc<[u8]> = split_path(path).join(&b'/').into();
        let mut record = self.present()?;
        let mut found = self.entry_at(&record, &path)?;
        while found.is_none() {
            let Some(parent) = self.first_parent(&record)? else { return Ok(()) };
            found = self.entry_at(&parent, &path)?;
            if found.is_some() {
                let (path, kind) = (path.clone(), Some(ChangeKind::Removed));
                if !each(Step { record, path, from: None, kind, entry: None }) {
                    return Ok(());
                }
            }
            record = parent;
        }
        while let Some(entry) = found {
            let Some((parent, from, before)) = self.origin(&record, &path, &entry)? else {
                each(Step { record, path, from: None, kind: Some(ChangeKind::Added), entry: Some(entry) });
                return Ok(());
            };
            let change = Change { path: path.clone(), before: Some(before), after: Some(entry) };
            let Change { before, after, .. } = change.clone();
            let is_dir = after.as_ref().is_some_and(Entry::is_dir);
            let below = is_dir && names_of(before.as_ref()) != names_of(after.as_ref());
            let kind = change.kind().or(below.then_some(ChangeKind::Modified));
            let moved = (from != path).then(|| from.clone());
            if kind.is_some() || moved.is_some() {
                let step = Step { record, path: path.clone(), from: moved, kind, entry: after };
                if !each(step) {
                    return Ok(());
                }
            }
            (record, path, found) = (parent, from, before);
        }
        Ok(())
    }

    fn entry_at(&self, record: &IndexRecord, path: &[u8]) -> Result<Option<Entry>> {
        self.find(record, &split_path(path))
    }

    fn first_parent(&self, record: &IndexRecord) -> Result<Option<Arc<IndexRecord>>> {
        record.parents.first().map_or(Ok(None), |parent| self.kept(*parent))
    }

    /// A version, unless it was forgotten: history ends there.
    fn kept(&self, id: VersionId) -> Result<Option<Arc<IndexRecord>>> {
        match self.version(id) {
            Err(WorkspaceError::Forgotten { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Where an inode of a version was in the version before: a parent that has the very same, else the first that has
    /// it, at this path or another.
    fn origin(&self, record: &IndexRecord, path: &Arc<[u8]>, entry: &Entry) -> Result<Option<Found>> {
        let mut known = None;
        for parent in &record.parents {
            let Some(parent) = self.kept(*parent)? else { continue };
            let before = match self.entry_at(&parent, path)? {
                Some(before) if before.file_id == entry.file_id => Some((path.clone(), before)),
                replaced => match self.moved_from(&parent, record, entry)? {
                    Some(moved) => Some(moved),
                    None => replaced.map(|before| (path.clone(), before)),
                },
            };
            let Some((from, before)) = before else { continue };
            let is_same = before.body == entry.body && from == *path;
            if known.is_none() || is_same {
                known = Some((parent, from, before));
            }
            if is_same {
                break;
            }
        }
        Ok(known)
    }

    /// The path in `parent` of an inode that `record` has elsewhere.
    fn moved_from(
        &self,
        parent: &IndexRecord,
        record: &IndexRecord,
        entry: &Entry,
    ) -> Result<Option<(Arc<[u8]>, Entry)>> {
        let mut found = None;
        diff(&Pages(&self.parts.blobs), &parent.root, &record.root, &mut |change| {
            if let (Some(before), None, None) = (&change.before, &change.after, &found)
                && before.file_id == entry.file_id
            {
                found = Some((change.path.clone(), before.clone()));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Paths at and below `path` that some version has and the newest does not, each with the newest version that
    /// does, in no order; at most `max`, those gone last first.
    pub fn gone(&self, path: &[u8], max: usize) -> Result<Vec<Gone>> {
        let newest = self.present()?;
        let path = split_path(path).join(&b'/');
        let mut found: HashMap<Arc<[u8]>, Gone> = HashMap::new();
        let mut after = newest.clone();
        for version in self.newest_first()? {
            let version = version?;
            if version.id == newest.id {
                continue;
            }
            let before = self.version(version.id)?;
            let mut removed = Vec::new();
            diff(&Pages(&self.parts.blobs), &before.root, &after.root, &mut |change| {
                if let (Some(entry), None) = (change.before, &change.after)
                    && is_below(&change.path, &path)
                    && !entry.is_dir()
                {
                    removed.push((change.path, entry));
                }
                Ok(())
            })?;
            for (path, entry) in removed {
                if found.len() < max && !found.contains_key(&path) && self.entry_at(&newest, &path)?.is_none() {
                    found.insert(path.clone(), Gone { path, version: version.id, entry });
                }
            }
            if found.len() >= max {
                break;
            }
            after = before;
        }
        Ok(found.into_values().collect())
    }

    /// The newest version that has a path which the newest of all does not; `None` when there is none, or nothing to
    /// bring back.
    pub fn last_with(&self, path: &[u8]) -> Result<Option<VersionId>> {
        let mut last = None;
        let mut is_gone = false;
        self.trace(path, &mut |step| {
            if step.kind == Some(ChangeKind::Removed) {
                is_gone = true;
                last = step.record.parents.first().copied();
            }
            false
        })?;
        Ok(last.filter(|_| is_gone))
    }
}

fn names_of(entry: Option<&Entry>) -> Option<&TreeRef> {
    match entry.map(|entry| &entry.body) {
        Some(Body::Directory { names, .. }) => Some(names),
        _ => None,
    }
}

impl Workspace {
    /// All paths at and below `path` in the newest version that are no directories, with the sizes of files.
    pub fn paths(&self, path: &[u8]) -> Result<Vec<PathSize>> {
        let newest = self.present()?;
        let path = split_path(path).join(&b'/');
        let mut empty = newest.root.clone();
        (empty.links, empty.digests) = (TreeRef::default(), TreeRef::default());
        empty.dir.body = Body::Directory { names: TreeRef::default(), subdirs: 0 };
        let mut found = Vec::new();
        diff(&Pages(&self.parts.blobs), &empty, &newest.root, &mut |change| {
            if let Some(entry) = &change.after
                && !entry.is_dir()
                && is_below(&change.path, &path)
            {
                let size = if let Body::File(file) = &entry.body { Some(file.size) } else { None };
                found.push((change.path, size));
            }
            Ok(())
        })?;
        Ok(found)
    }
}
