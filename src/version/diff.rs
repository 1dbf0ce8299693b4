//! What differs between two versions, at the cost of the differences.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use super::Result;
use super::entry::{Body, Entry, FileBody, Ino, LinkRecord};
use super::index::Root;
use super::tree::{PageIo, TreeRef};

/// One path that differs.
#[derive(Clone, Debug)]
pub struct Change {
    /// The path from the root, names joined by `/`.
    pub path: Arc<[u8]>,
    /// The entry before, links resolved.
    pub before: Option<Entry>,
    /// The entry after, links resolved.
    pub after: Option<Entry>,
}

/// How a path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// `+`
    Added,
    /// `-`
    Removed,
    /// `M`: content
    Modified,
    /// `T`: another kind of inode
    TypeChanged,
    /// `m`: mode, owner, times or extended attributes only
    Metadata,
}

impl Change {
    /// How the path differs; `None` when only a directory's names below it do.
    pub fn kind(&self) -> Option<ChangeKind> {
        let (before, after) = match (&self.before, &self.after) {
            (None, None) => return None,
            (None, Some(_)) => return Some(ChangeKind::Added),
            (Some(_), None) => return Some(ChangeKind::Removed),
            (Some(before), Some(after)) => (before, after),
        };
        if std::mem::discriminant(&before.body) != std::mem::discriminant(&after.body) {
            return Some(ChangeKind::TypeChanged);
        }
        let content_differs = match (&before.body, &after.body) {
            (Body::Directory { .. }, Body::Directory { .. }) => false,
            (Body::File(before), Body::File(after)) => !same_bytes(before, after),
            (before, after) => before != after,
        };
        if content_differs {
            return Some(ChangeKind::Modified);
        }
        let metadata = |entry: &Entry| (entry.mode, entry.uid, entry.gid, entry.xattrs.clone());
        let times = |entry: &Entry| (!entry.is_dir()).then_some(entry.mtime);
        (metadata(before) != metadata(after) || times(before) != times(after)).then_some(ChangeKind::Metadata)
    }
}

/// Visits every differing path below two roots, parents before children. A removed or added
/// directory is visited with everything below it.
pub fn diff(io: &dyn PageIo, before: &Root, after: &Root, visit: &mut dyn FnMut(Change) -> Result<()>) -> Result<()> {
    let sides = Sides { io, before, after };
    let root = Change { path: Arc::from(&b""[..]), before: Some(before.dir.clone()), after: Some(after.dir.clone()) };
    let mut pending = sides.below(&root)?;
    pending.reverse();
    while let Some(change) = pending.pop() {
        let mut below = sides.below(&change)?;
        visit(change)?;
        below.reverse();
        pending.append(&mut below);
    }
    let links = sides.changed_links()?;
    if links.is_empty() { Ok(()) } else { sides.visit_links(&links, visit) }
}

struct Sides<'a> {
    io: &'a dyn PageIo,
    before: &'a Root,
    after: &'a Root,
}

impl Sides<'_> {
    fn below(&self, change: &Change) -> Result<Vec<Change>> {
        let before = names(change.before.as_ref());
        let after = names(change.after.as_ref());
        let mut changes = Vec::new();
        before.diff(&after, self.io, &mut |name, old, new| {
            let before = old.map(|value| self.before.resolve(self.io, Entry::decode(value)?)).transpose()?;
            let after = new.map(|value| self.after.resolve(self.io, Entry::decode(value)?)).transpose()?;
            changes.push(Change { path: join(&change.path, name), before, after });
            Ok(())
        })?;
        Ok(changes)
    }

    /// Inodes with several names whose record differs: their names' entries are equal.
    fn changed_links(&self) -> Result<HashSet<Ino>> {
        let mut changed = HashSet::new();
        self.before.links.diff(&self.after.links, self.io, &mut |_, before, after| {
            if let (Some(before), Some(after)) = (before, after) {
                let (before, after) = (LinkRecord::decode(before)?, LinkRecord::decode(after)?);
                if before.inode != after.inode {
                    changed.insert(after.inode.ino);
                }
            }
            Ok(())
        })?;
        Ok(changed)
    }

    /// Visits the names of `links` whose entries are equal on both sides. A version does not record
    /// where an inode's names are, so this walks the tree; it happens only when such an inode changed.
    fn visit_links(&self, links: &HashSet<Ino>, visit: &mut dyn FnMut(Change) -> Result<()>) -> Result<()> {
        let mut dirs = vec![(Arc::from(&b""[..]), names(Some(&self.before.dir)), names(Some(&self.after.dir)))];
        while let Some((dir, before, after)) = dirs.pop() {
            let mut values = Vec::new();
            after.scan(self.io, Bound::Unbounded, &mut |name, value| {
                values.push((name.to_vec(), value.to_vec()));
                true
            })?;
            for (name, value) in values {
                let entry = Entry::decode(&value)?;
                let path = join(&dir, &name);
                if entry.is_dir() {
                    let old = before.get(self.io, &name)?.map(|value| Entry::decode(&value)).transpose()?;
                    dirs.push((path, names(old.as_ref()), names(Some(&entry))));
                } else if matches!(entry.body, Body::Link)
                    && links.contains(&entry.ino)
                    && before.get(self.io, &name)?.as_ref() == Some(&value)
                {
                    let before = self.before.resolve(self.io, entry.clone())?;
                    let after = self.after.resolve(self.io, entry)?;
                    visit(Change { path, before: Some(before), after: Some(after) })?;
                }
            }
        }
        Ok(())
    }
}

/// Whether two files certainly have the same bytes: the same digest, or the same chunks.
pub(super) fn same_bytes(a: &FileBody, b: &FileBody) -> bool {
    a.size == b.size && (a.content == b.content || a.sha256.is_some() && a.sha256 == b.sha256)
}

fn names(entry: Option<&Entry>) -> TreeRef {
    match entry.map(|entry| &entry.body) {
        Some(Body::Directory { names, .. }) => *names,
        _ => TreeRef::default(),
    }
}

/// `dir/name`, or `name` at the root.
pub fn join(dir: &[u8], name: &[u8]) -> Arc<[u8]> {
    if dir.is_empty() { Arc::from(name) } else { [dir, b"/", name].concat().into() }
}
