//! The first step of a checkpoint: what changed, taken under the lock; and its undoing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::checkpoint::CheckpointState;
use super::inode::{Inode, Layer, Node};
use super::journal::Tag;
use super::live::Worktree;
use super::local_blobs::{BlobMap, Own};
use super::namespace::{frozen_records, mark_logged, piece_record};
use super::open::Base;
use super::record::Record;
use super::table::{Table, Totals};
use super::{Name, Result};
use crate::version::entry::{Entry, FileBody, Ino};
use crate::version::tree::TreeRef;

/// What a checkpoint has to write.
pub(super) struct Captured {
    /// Changed directories, deepest first.
    pub(super) dirs: Vec<CapturedDir>,
    pub(super) root: Entry,
    /// Changed inodes of the link table: number of names and inode, or gone.
    pub(super) links: Vec<(Ino, Option<CapturedLink>)>,
    pub(super) links_tree: TreeRef,
    pub(super) digests: TreeRef,
    pub(super) counts: Totals,
    /// The segment that begins with this checkpoint.
    pub(super) segment: u64,
    /// What its first frame is bound to.
    pub(super) chain: Tag,
    pub(super) next_ino: u32,
    pub(super) blobs: Arc<BlobMap>,
    pub(super) changes: u64,
    pub(super) dirty_root: bool,
}

pub(super) struct CapturedDir {
    pub(super) ino: Ino,
    /// The names as of the checkpoint before.
    pub(super) names: TreeRef,
    pub(super) entries: Vec<(Name, CapturedEntry)>,
}

/// Number of names, inode, content that is not absorbed yet.
type CapturedLink = (u32, Entry, Option<FileContent>);

pub(super) enum CapturedEntry {
    /// The name is gone, or its file is not published.
    Gone,
    Here(Box<Entry>, Option<FileContent>),
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
        let (segment, chain) = self.journal.cut()?;
        table.placed.clear();
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
            chain,
            next_ino: table.next_ino,
            blobs,
            changes: table.changes,
            dirty_root: table.dirty_root,
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

    /// Writes what no version will hold into the new segment: unpublished files and drafts, and the
    /// blobs that they and other unsettled files need.
    pub(super) fn carry_over(&self, table: &mut Table, blobs: &BlobMap) -> Result<()> {
        self.carry_blobs(table, blobs)?;
        let joined = table.joined_records();
        if !joined.is_empty() {
            self.append(table, &joined)?;
        }
        let inos: Vec<Ino> = table.drafts.iter().copied().collect();
        let unpublished = |ino: &&Ino| table.find(**ino).is_some_and(|inode| inode.nlink > 0 && inode.is_unpublished());
        let names = table.names_of(&inos.iter().filter(unpublished).copied().collect());
        for ino in inos {
            let Some(inode) = table.find(ino).filter(|inode| inode.nlink > 0) else { continue };
            let Ok(file) = inode.file() else { continue };
            let mut records = Vec::new();
            for (parent, name) in names.get(&ino).into_iter().flatten() {
                let (parent, name, inode) = (*parent, name.to_vec(), Box::new(inode.to_entry(None)));
                records.push(Record::Graft { parent, name, inode, published: false });
            }
            // Should the checkpoint fail, the draft lies over what was frozen before it.
            frozen_records(ino, file, &mut records);
            if let Some(draft) = &file.draft {
                let base = draft.base.as_deref().cloned().map(Box::new);
                let (layer, clip, size, mtime) = (draft.id, draft.clip, draft.size, draft.mtime);
                records.push(Record::Draft { ino, layer, base, clip, size, mtime });
                records.extend(
                    draft.extents.iter().map(|(offset, piece)| piece_record(ino, draft, offset, piece.data.clone())),
                );
            }
            if !records.is_empty() {
                self.append(table, &records)?;
                mark_logged(table, ino);
            }
        }
        Ok(())
    }

    /// Carries the blobs over that are needed whatever the version uses: of staged drafts, of files
    /// whose published content is still being made, and of files that are open without a name.
    fn carry_blobs(&self, table: &Table, blobs: &BlobMap) -> Result<()> {
        let staged = |ino: &&Ino| {
            let file = table.find(**ino).and_then(|inode| inode.file().ok());
            file.and_then(|file| file.draft.as_ref()).is_some_and(|draft| draft.base.is_some())
        };
        let drafts = table.drafts.iter().filter(staged);
        let wanted: HashSet<Ino> =
            drafts.chain(&table.frozen).chain(&table.orphans).chain(table.staging.keys()).copied().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        for (id, blob) in blobs {
            for owner in blob.owners.iter().copied().filter(|owner| wanted.contains(owner)) {
                let record = match self.local.own(id, owner) {
                    Own::Known => None,
                    Own::New => Some(Record::Share { owner, id: *id }),
                    Own::Absent => self.local.carry_record(owner, *id, blob)?,
                };
                self.append_blobs(record.as_slice())?;
            }
        }
        Ok(())
    }
}

fn root_entry(table: &Table) -> Entry {
    match table.find(Ino::ROOT) {
        Some(root) => root.to_entry(None),
        None => unreachable!("the root directory is never dropped"),
    }
}

impl Captured {
    /// The base that goes on where this was taken.
    pub(super) fn base(&self, before: &Base) -> Base {
        Base { first_segment: self.segment, journal_chain: self.chain, next_ino: self.next_ino, ..before.clone() }
    }

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
            let link = table.find(ino).filter(|inode| inode.nlink > 0 && !inode.is_unpublished()).map(|inode| {
                let (entry, content) = capture_inode(inode);
                (inode.nlink, entry, content)
            });
            self.links.push((ino, link));
        }
        table.dirty_root = false;
        table.recording = true;
        self.counts = recorded_totals(table);
    }

    fn give_back(&self, table: &mut Table) {
        for dir in &self.dirs {
            let Some(live) = table.find_mut(dir.ino).and_then(|inode| inode.dir_mut().ok()) else { continue };
            live.dirty.extend(dir.entries.iter().map(|(name, _)| name.clone()));
            live.pinned = false;
            table.dirty_dirs.insert(dir.ino);
        }
        table.dirty_links.extend(self.links.iter().map(|(ino, _)| *ino));
        table.dirty_root |= self.dirty_root;
        table.recording = false;
    }
}

/// The totals of what a version taken now holds: nothing unpublished, and all that is published.
fn recorded_totals(table: &Table) -> Totals {
    let mut totals = table.counts;
    for inode in table.drafts.iter().filter_map(|ino| table.find(*ino)).filter(|inode| inode.is_unpublished()) {
        totals.files = totals.files.saturating_sub(u64::from(inode.nlink));
    }
    for inode in table.frozen.iter().filter_map(|ino| table.find(*ino)) {
        let Some(last) = inode.file().ok().and_then(|file| file.frozen.last()) else { continue };
        totals.bytes = (totals.bytes + last.size).saturating_sub(inode.published_bytes());
    }
    totals
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
        Some(inode) if inode.is_unpublished() => CapturedEntry::Gone,
        Some(inode) if inode.linked => CapturedEntry::Here(Box::new(link_entry(inode.ino)), None),
        Some(inode) => {
            let (entry, content) = capture_inode(inode);
            CapturedEntry::Here(Box::new(entry), content)
        }
        None => match ino {
            // An inode of the link table that is not in memory did not change, nor did its name.
            Some(ino) => CapturedEntry::Here(Box::new(link_entry(ino)), None),
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
