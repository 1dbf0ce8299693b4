//! The first step of a checkpoint: what changed, taken under the lock; and its undoing.

use std::collections::HashMap;
use std::sync::Arc;

use super::checkpoint::{CheckpointState, carry_blob};
use super::inode::{Inode, Layer, Node};
use super::local_blobs::BlobMap;
use super::namespace::piece_record;
use super::record::Record;
use super::table::{Table, Totals};
use super::worktree::Worktree;
use super::{Name, Result};
use crate::version::entry::{Entry, FileBody, Ino};
use crate::version::tree::TreeRef;

/// What a checkpoint has to write.
pub(super) struct Captured {
    /// Changed directories, deepest first.
    pub(super) dirs: Vec<CapturedDir>,
    pub(super) root: Entry,
    /// Changed inodes of the link table: number of names and inode, or gone.
    pub(super) links: Vec<(Ino, Option<(u32, Entry, Option<FileContent>)>)>,
    pub(super) links_tree: TreeRef,
    pub(super) digests: TreeRef,
    pub(super) counts: Totals,
    /// The segment that begins with this checkpoint.
    pub(super) segment: u64,
    pub(super) next_ino: u32,
    pub(super) blobs: Arc<BlobMap>,
    pub(super) changes: u64,
    /// Content of files without a name that are still open: no version has it, but it must stay readable.
    pub(super) orphans: Vec<(Ino, FileBody)>,
}

pub(super) struct CapturedDir {
    pub(super) ino: Ino,
    /// The names as of the checkpoint before.
    pub(super) names: TreeRef,
    pub(super) entries: Vec<(Name, CapturedEntry)>,
}

pub(super) enum CapturedEntry {
    /// The name is gone, or its file is not published.
    Gone,
    Here(Entry, Option<FileContent>),
}

/// Published content that was not absorbed yet.
pub(super) struct FileContent {
    pub(super) base: FileBody,
    pub(super) layers: Vec<Arc<Layer>>,
}

impl Worktree {
    /// Takes what changed and cuts the journal; `None` when nothing did.
    pub(super) fn capture(&self, state: &CheckpointState, always: bool) -> Result<Option<Captured>> {
        let _absorbing = self.absorbing.lock();
        let mut table = self.table();
        let unchanged = table.dirty_dirs.is_empty() && table.dirty_links.is_empty() && !table.dirty_root;
        if unchanged && !always {
            return Ok(None);
        }
        self.publish_unnamed(&mut table);
        let segment = self.journal.cut()?;
        let blobs = self.local.cut();
        let carried = self.carry_over(&mut table, &blobs);
        let mut captured = Captured {
            dirs: Vec::new(),
            root: root_entry(&table),
            links: Vec::new(),
            links_tree: table.links,
            digests: state.base.index.root.digests,
            counts: Totals::default(),
            segment,
            next_ino: table.next_ino,
            blobs,
            changes: table.changes,
            orphans: orphans(&table),
        };
        captured.take(&mut table);
        if let Err(error) = carried {
            captured.give_back(&mut table);
            return Err(error);
        }
        Ok(Some(captured))
    }

    /// After a checkpoint failed: everything is to be written by the next one.
    pub(super) fn uncapture(&self, captured: &Captured) {
        captured.give_back(&mut self.table());
    }

    /// A file that has several names and was never published cannot be carried over by name.
    fn publish_unnamed(&self, table: &mut Table) {
        let unnamed =
            |inode: &&Inode| inode.linked && inode.nlink > 0 && inode.file().is_ok_and(|file| !file.is_published());
        let inos: Vec<Ino> =
            table.drafts.iter().filter_map(|ino| table.find(*ino)).filter(unnamed).map(|inode| inode.ino).collect();
        for ino in inos {
            let Some(inode) = table.find_mut(ino) else { continue };
            let mtime = inode.mtime;
            if let Node::File(file) = &mut inode.node {
                file.publish(mtime);
            }
            table.note_layers(ino);
            table.mark_inode(ino);
        }
    }

    /// Writes what no version holds into the new segment: unpublished files and drafts.
    fn carry_over(&self, table: &mut Table, blobs: &BlobMap) -> Result<()> {
        let inos: Vec<Ino> = table.drafts.iter().copied().collect();
        for ino in inos {
            let mut records = Vec::new();
            let Some(inode) = table.find(ino).filter(|inode| inode.nlink > 0) else { continue };
            let Ok(file) = inode.file() else { continue };
            if let (false, Some((parent, name))) = (file.is_published(), &inode.home) {
                let inode = Box::new(inode.to_entry(None));
                records.push(Record::Graft { parent: *parent, name: name.to_vec(), inode, published: false });
            }
            if let Some(draft) = &file.draft {
                if draft.base.is_some() {
                    self.carry_blobs(ino, blobs)?;
                }
                let base = draft.base.as_deref().cloned().map(Box::new);
                records.push(Record::Draft {
                    ino,
                    layer: draft.id,
                    base,
                    clip: draft.clip,
                    size: draft.size,
                    mtime: draft.mtime,
                });
                records.extend(
                    draft.extents.iter().map(|(offset, piece)| piece_record(ino, draft, offset, piece.data.clone())),
                );
            }
            if !records.is_empty() {
                self.journal.append(&records)?;
                if let Some(Node::File(file)) = table.find_mut(ino).map(|inode| &mut inode.node)
                    && let Some(draft) = &mut file.draft
                {
                    draft.extents.set_logged(true);
                }
            }
        }
        Ok(())
    }

    fn carry_blobs(&self, owner: Ino, blobs: &BlobMap) -> Result<()> {
        for (id, blob) in blobs.iter().filter(|(_, blob)| blob.owners.contains(&owner)) {
            let sealed = match &blob.place {
                super::local_blobs::LocalPlace::Journal(frame) => self.local.sealed(id, frame)?,
                super::local_blobs::LocalPlace::Outbox(_) => None,
            };
            if let Some(record) = carry_blob(owner, *id, blob, sealed) {
                self.append_blobs(&[record])?;
            }
        }
        Ok(())
    }
}

fn orphans(table: &Table) -> Vec<(Ino, FileBody)> {
    let files = table
        .orphans
        .iter()
        .filter_map(|ino| Some((*ino, table.find(*ino)?.file().ok()?.published.as_ref()?.body.clone())));
    files.collect()
}

fn root_entry(table: &Table) -> Entry {
    match table.find(Ino::ROOT) {
        Some(root) => root.to_entry(None),
        None => unreachable!("the root directory is never dropped"),
    }
}

impl Captured {
    fn take(&mut self, table: &mut Table) {
        let mut dirs: Vec<Ino> = std::mem::take(&mut table.dirty_dirs).into_iter().collect();
        let mut depths = HashMap::new();
        dirs.retain(|ino| table.find(*ino).is_some_and(|inode| inode.nlink > 0));
        dirs.sort_by_key(|ino| std::cmp::Reverse(depth(table, *ino, &mut depths)));
        for ino in dirs {
            let Some(directory) = table.find_mut(ino).and_then(|inode| inode.dir_mut().ok()) else { continue };
            let dirty = std::mem::take(&mut directory.dirty);
            directory.pinned = true;
            let names = directory.names;
            let entries = dirty.into_iter().map(|name| capture_name(table, ino, name)).collect();
            self.dirs.push(CapturedDir { ino, names, entries });
        }
        for ino in std::mem::take(&mut table.dirty_links) {
            let link = table.find(ino).filter(|inode| inode.nlink > 0).map(|inode| {
                let (entry, content) = capture_inode(inode);
                (inode.nlink, entry, content)
            });
            self.links.push((ino, link));
        }
        table.dirty_root = false;
        self.counts = table.counts;
    }

    fn give_back(&self, table: &mut Table) {
        for dir in &self.dirs {
            let Some(live) = table.find_mut(dir.ino).and_then(|inode| inode.dir_mut().ok()) else { continue };
            live.dirty.extend(dir.entries.iter().map(|(name, _)| name.clone()));
            live.pinned = false;
            table.dirty_dirs.insert(dir.ino);
        }
        table.dirty_links.extend(self.links.iter().map(|(ino, _)| *ino));
        table.dirty_root = true;
    }
}

fn depth(table: &Table, ino: Ino, known: &mut HashMap<Ino, usize>) -> usize {
    let (mut at, mut path) = (ino, Vec::new());
    let mut depth = loop {
        if let Some(depth) = known.get(&at) {
            break *depth;
        }
        path.push(at);
        match table.find(at).and_then(|inode| inode.home.as_ref()) {
            Some((parent, _)) if path.len() <= table.len() => at = *parent,
            _ => break 0,
        }
    };
    while let Some(ino) = path.pop() {
        depth += 1;
        known.insert(ino, depth);
    }
    depth
}

fn capture_name(table: &Table, dir: Ino, name: Name) -> (Name, CapturedEntry) {
    let children = table.find(dir).and_then(|inode| inode.dir().ok()).and_then(|dir| dir.children.as_ref());
    let ino = children.and_then(|children| children.get(&name)).map(|child| child.ino);
    let entry = match ino.and_then(|ino| table.find(ino)) {
        Some(inode) if inode.linked => CapturedEntry::Here(link_entry(inode.ino), None),
        Some(inode) if inode.file().is_ok_and(|file| !file.is_published()) => CapturedEntry::Gone,
        Some(inode) => {
            let (entry, content) = capture_inode(inode);
            CapturedEntry::Here(entry, content)
        }
        None => match ino {
            // An inode of the link table that is not in memory did not change, nor did its name.
            Some(ino) => CapturedEntry::Here(link_entry(ino), None),
            None => CapturedEntry::Gone,
        },
    };
    (name, entry)
}

/// The entry of one of several names: the inode's number, and nothing else that could change.
fn link_entry(ino: Ino) -> Entry {
    Entry {
        ino,
        file_id: crate::base::ids::FileId([0; 16]),
        mode: 0,
        uid: 0,
        gid: 0,
        atime: Default::default(),
        mtime: Default::default(),
        ctime: Default::default(),
        xattrs: Default::default(),
        body: crate::version::entry::Body::Link,
    }
}

fn capture_inode(inode: &Inode) -> (Entry, Option<FileContent>) {
    let Node::File(file) = &inode.node else { return (inode.to_entry(None), None) };
    let mut entry = inode.to_entry(file.published.as_ref());
    if let Some(last) = file.frozen.last() {
        entry.mtime = last.mtime;
        let base = file.published.as_ref().map(|published| published.body.clone()).unwrap_or_default();
        return (entry, Some(FileContent { base, layers: file.frozen.clone() }));
    }
    (entry, None)
}
