//! What one line of versions did to each inode: found by identity, so that a moved directory is one change.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::base::ids::FileId;
use crate::version::Result;
use crate::version::entry::{Body, Entry, LinkRecord};
use crate::version::index::{Counts, Root};
use crate::version::tree::{PageIo, TreeRef};

/// What tells inodes from each other: their identity, and whether they are directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Its identity.
    pub id: FileId,
}

/// A name in a directory.
pub type Place = (Key, Arc<[u8]>);

/// What happened to one inode between two roots.
#[derive(Clone, Debug, Default)]
pub struct NodeChange {
    /// The inode before; `None` when it is new.
    pub before: Option<Entry>,
    /// The inode after; `None` when it is gone.
    pub after: Option<Entry>,
    /// Names that it lost.
    pub gone: Vec<Place>,
    /// Names that it got.
    pub came: Vec<Place>,
    /// A name that it kept, when one was met.
    pub at: Option<Place>,
    /// Number of names before, when it was in the link table.
    pub links_before: Option<u32>,
    /// Number of names after, when it is in the link table.
    pub links_after: Option<u32>,
    /// Which of a directory's trees of names were walked: before, after.
    walked: (bool, bool),
}

/// Everything that differs between two roots.
#[derive(Debug)]
pub struct Changes {
    /// Inodes that differ, or that lie on the way to one; without the root directory.
    pub nodes: BTreeMap<Key, NodeChange>,
    /// The root directory before and after.
    pub root: (Entry, Entry),
}

impl Key {
    /// The key of an inode.
    pub fn of(entry: &Entry) -> Self {
        Self { is_dir: entry.is_dir(), id: entry.file_id }
    }
}

/// The names of a directory.
pub(super) fn names_of(entry: Option<&Entry>) -> TreeRef {
    match entry.map(|entry| &entry.body) {
        Some(Body::Directory { names, .. }) => *names,
        _ => TreeRef::default(),
    }
}

impl Changes {
    /// Finds what differs, at the cost of the differences.
    pub fn find(io: &dyn PageIo, before: &Root, after: &Root) -> Result<Self> {
        let mut walk = Walk { io, before, after, nodes: BTreeMap::new(), pending: Vec::new(), queue: Vec::new() };
        let root = Key::of(&after.dir);
        walk.queue.push((root, names_of(Some(&before.dir)), names_of(Some(&after.dir))));
        walk.run()?;
        walk.links()?;
        let mut nodes = walk.nodes;
        for node in nodes.values_mut() {
            let kept: HashSet<Place> = node.gone.iter().filter(|place| node.came.contains(place)).cloned().collect();
            node.gone.retain(|place| !kept.contains(place));
            node.came.retain(|place| !kept.contains(place));
            node.at = node.at.take().or_else(|| kept.into_iter().min());
        }
        Ok(Self { nodes, root: (before.dir.clone(), after.dir.clone()) })
    }

    /// The totals of `before`, brought up to date by these changes.
    pub fn counts(&self, before: &Counts) -> Counts {
        let mut counts = Counts { added: 0, changed: 0, removed: 0, ..*before };
        let shift = |total: u64, gone: usize, came: usize| (total + came as u64).saturating_sub(gone as u64);
        for (key, node) in &self.nodes {
            let total = if key.is_dir { &mut counts.dirs } else { &mut counts.files };
            *total = shift(*total, node.gone.len(), node.came.len());
            let size = |entry: &Option<Entry>| match entry.as_ref().map(|entry| &entry.body) {
                Some(Body::File(file)) => file.size,
                _ => 0,
            };
            counts.bytes = (counts.bytes + size(&node.after)).saturating_sub(size(&node.before));
            match (&node.before, &node.after) {
                (None, Some(_)) => counts.added += node.came.len() as u64,
                (Some(_), None) => counts.removed += node.gone.len() as u64,
                (Some(_), Some(_)) if !key.is_dir || !node.came.is_empty() => counts.changed += 1,
                _ => {}
            }
        }
        counts
    }
}

impl NodeChange {
    /// Whether a name came or went.
    pub fn is_moved(&self) -> bool {
        !self.gone.is_empty() || !self.came.is_empty()
    }
}

struct Walk<'a> {
    io: &'a dyn PageIo,
    before: &'a Root,
    after: &'a Root,
    nodes: BTreeMap<Key, NodeChange>,
    /// Directories that came or went and may still have to be walked.
    pending: Vec<Key>,
    /// Trees of names to compare.
    queue: Vec<(Key, TreeRef, TreeRef)>,
}

impl Walk<'_> {
    /// Walks what is known to belong together first, then what is new, then what is gone: an inode that was moved
    /// is found with both of its places wherever possible, and then only what differs below it is walked.
    fn run(&mut self) -> Result<()> {
        loop {
            while let Some((dir, before, after)) = self.queue.pop() {
                self.compare(dir, before, after)?;
            }
            let pending = std::mem::take(&mut self.pending);
            let both = |node: &NodeChange| !node.gone.is_empty() && !node.came.is_empty();
            let choices: [&dyn Fn(&NodeChange) -> bool; 3] = [
                &|node| both(node) && node.walked == (false, false),
                &|node| !node.came.is_empty() && !node.walked.1,
                &|node| !node.gone.is_empty() && !node.walked.0,
            ];
            for is_chosen in choices {
                for key in &pending {
                    let Some(node) = self.nodes.get_mut(key).filter(|node| is_chosen(node)) else { continue };
                    let walk_before = !node.gone.is_empty() && !node.walked.0 && (both(node) || node.came.is_empty());
                    let walk_after = !node.came.is_empty() && !node.walked.1;
                    let side = |walk: bool, entry: &Option<Entry>| match walk {
                        true => names_of(entry.as_ref()),
                        false => TreeRef::default(),
                    };
                    self.queue.push((*key, side(walk_before, &node.before), side(walk_after, &node.after)));
                    node.walked = (node.walked.0 || walk_before, node.walked.1 || walk_after);
                }
                if !self.queue.is_empty() {
                    break;
                }
            }
            if self.queue.is_empty() {
                return Ok(());
            }
            self.pending = pending;
        }
    }

    fn compare(&mut self, dir: Key, before: TreeRef, after: TreeRef) -> Result<()> {
        let mut found = Vec::new();
        before.diff(&after, self.io, &mut |name, old, new| {
            found.push((Arc::from(name), old.map(Entry::decode).transpose()?, new.map(Entry::decode).transpose()?));
            Ok(())
        })?;
        for (name, old, new) in found {
            let old = old.map(|entry| resolve(self.io, self.before, entry)).transpose()?;
            let new = new.map(|entry| resolve(self.io, self.after, entry)).transpose()?;
            let place = (dir, name);
            match (old, new) {
                (Some(old), Some(new)) if Key::of(&old.0) == Key::of(&new.0) => self.stayed(place, old, new),
                (old, new) => {
                    if let Some((entry, links)) = old {
                        let node = self.note(Key::of(&entry));
                        (node.before, node.links_before) = (Some(entry), links);
                        node.gone.push(place.clone());
                    }
                    if let Some((entry, links)) = new {
                        let node = self.note(Key::of(&entry));
                        (node.after, node.links_after) = (Some(entry), links);
                        node.came.push(place);
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, key: Key) -> &mut NodeChange {
        if key.is_dir {
            self.pending.push(key);
        }
        self.nodes.entry(key).or_default()
    }

    fn stayed(&mut self, place: Place, old: (Entry, Option<u32>), new: (Entry, Option<u32>)) {
        let key = Key::of(&old.0);
        if key.is_dir {
            self.queue.push((key, names_of(Some(&old.0)), names_of(Some(&new.0))));
        }
        let node = self.nodes.entry(key).or_default();
        node.walked = (true, true);
        (node.before, node.links_before) = (Some(old.0), old.1);
        (node.after, node.links_after) = (Some(new.0), new.1);
        node.at = Some(place);
    }

    /// Inodes with several names: their record changes while their entries stay as they are.
    fn links(&mut self) -> Result<()> {
        let nodes = &mut self.nodes;
        self.before.links.diff(&self.after.links, self.io, &mut |_, before, after| {
            if let Some(record) = before.map(LinkRecord::decode).transpose()? {
                let node = nodes.entry(Key::of(&record.inode)).or_default();
                node.links_before = Some(record.names);
                node.before.get_or_insert(record.inode);
            }
            if let Some(record) = after.map(LinkRecord::decode).transpose()? {
                let node = nodes.entry(Key::of(&record.inode)).or_default();
                node.links_after = Some(record.names);
                node.after.get_or_insert(record.inode);
            }
            Ok(())
        })
    }
}

/// The inode of an entry, with its number of names when it stands in the link table.
fn resolve(io: &dyn PageIo, root: &Root, entry: Entry) -> Result<(Entry, Option<u32>)> {
    if !matches!(entry.body, Body::Link) {
        return Ok((entry, None));
    }
    let record = root.link(io, entry.ino)?;
    Ok((record.inode, Some(record.names)))
}
