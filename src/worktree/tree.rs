//! Applying journal records to the table. The same code serves the first time and every replay.

use std::sync::Arc;

use super::attr::FileKind;
use super::inode::{File, Inode, Layer, Node, Published};
use super::record::{AttrSet, Node as NewInode, Record};
use super::table::{Attempt, Known, Table};
use super::{Name, WorkError};
use crate::base::clock::Timestamp;
use crate::version::entry::{Body, Entry, FileBody, Ino};

impl Table {
    /// Applies a record. What must be loaded first is asked for before anything is changed.
    pub(super) fn apply(&mut self, record: &Record) -> Attempt<()> {
        match record {
            Record::Create { parent, name, node, time } => self.apply_create(*parent, name, node, *time),
            Record::Link { ino, parent, name, time } => self.apply_link(*ino, *parent, name, *time),
            Record::Remove { parent, name, time } => self.apply_remove(*parent, name, *time),
            Record::Rename { from, to, exchange: false, time } => self.apply_rename(from, to, *time),
            Record::Rename { from, to, exchange: true, time } => self.apply_exchange(from, to, *time),
            Record::Attr { ino, set } => self.apply_attr(*ino, set),
            Record::Xattr { ino, name, value, time } => self.apply_xattr(*ino, name, value.as_deref(), *time),
            Record::Resize { ino, layer, size, time } => {
                self.with_layer(*ino, *layer, *time, |layer| layer.resize(*size))
            }
            Record::Write { ino, layer, offset, data, time } => self.with_layer(*ino, *layer, *time, |layer| {
                layer.extents.write(*offset, &data.0, true);
                layer.size = layer.size.max(offset + data.0.len() as u64);
            }),
            // A hole lies within the file, which may have been extended by what it punched out.
            Record::Zero { ino, layer, offset, len, time } => self.with_layer(*ino, *layer, *time, |layer| {
                layer.extents.zero(*offset, *len, true);
                layer.size = layer.size.max(offset.saturating_add(*len));
            }),
            Record::Complete { ino, layer } => self.apply_complete(*ino, *layer),
            Record::Publish { ino, layer, body, mtime } => self.apply_publish(*ino, *layer, body, *mtime),
            Record::Blob { .. }
            | Record::Object { .. }
            | Record::Share { .. }
            | Record::Begin
            | Record::Commit
            | Record::Rest { .. } => Ok(()),
            Record::Contest { ino, contest } => {
                match contest {
                    Some(contest) => self.contests.insert(*ino, (**contest).clone()),
                    None => self.contests.remove(ino),
                };
                Ok(())
            }
            Record::Place { ino, parent } => {
                if self.find(*ino).is_none() {
                    self.known.entry(*ino).or_insert(Known::new(*parent, 0, false));
                }
                Ok(())
            }
            Record::Graft { parent, name, inode, published } => self.apply_graft(*parent, name, inode, *published),
            Record::Draft { ino, layer, base, clip, size, mtime } => {
                let draft = Layer {
                    base: base.as_deref().cloned().map(Arc::new),
                    clip: *clip,
                    ..Layer::new(*layer, *size, *mtime)
                };
                self.apply_draft(*ino, draft)
            }
        }
    }

    fn apply_create(&mut self, parent: Ino, name: &[u8], node: &NewInode, time: Timestamp) -> Attempt<()> {
        let name: Name = name.into();
        self.children(parent)?.insert(name.clone(), node.ino);
        let entry = Entry {
            ino: node.ino,
            file_id: node.file_id,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            atime: time,
            mtime: time,
            ctime: time,
            xattrs: node.xattrs.clone(),
            body: node.body.clone(),
        };
        let mut inode = Inode::from_entry(entry, 1, false, Some((parent, name.clone())));
        if let Node::File(file) = &mut inode.node {
            file.published = None;
        }
        self.count(&inode);
        let is_dir = inode.is_dir();
        self.insert(inode);
        self.note_layers(node.ino);
        self.touch_dir(parent, time, i64::from(is_dir));
        self.mark(parent, &name);
        Ok(())
    }

    fn apply_link(&mut self, ino: Ino, parent: Ino, name: &[u8], time: Timestamp) -> Attempt<()> {
        self.get(ino)?;
        let name: Name = name.into();
        self.children(parent)?.insert(name.clone(), ino);
        let inode = self.get_mut(ino)?;
        inode.nlink += 1;
        inode.ctime = time;
        let first = inode.home.take();
        inode.linked = true;
        if let Some((dir, name)) = first {
            self.mark(dir, &name);
        }
        self.counts.files += 1;
        self.mark_inode(ino);
        self.touch_dir(parent, time, 0);
        self.mark(parent, &name);
        Ok(())
    }

    fn apply_remove(&mut self, parent: Ino, name: &[u8], time: Timestamp) -> Attempt<()> {
        let ino = self.child(parent, name)?.ok_or(WorkError::NotFound)?;
        let key = self.children(parent)?.key(name).ok_or(WorkError::NotFound)?;
        self.children(parent)?.remove(name);
        let is_dir = self.get(ino)?.is_dir();
        self.drop_name(ino, time);
        self.touch_dir(parent, time, -i64::from(is_dir));
        self.mark(parent, &key);
        self.reap(ino);
        Ok(())
    }

    /// One name of the inode less.
    fn drop_name(&mut self, ino: Ino, time: Timestamp) {
        let Some(inode) = self.find_mut(ino) else { return };
        inode.nlink = if inode.is_dir() { 0 } else { inode.nlink.saturating_sub(1) };
        inode.ctime = time;
        inode.home = None;
        let (is_dir, gone, bytes) = (inode.is_dir(), inode.nlink == 0, inode.published_bytes());
        if is_dir {
            self.counts.dirs = self.counts.dirs.saturating_sub(1);
        } else {
            self.counts.files = self.counts.files.saturating_sub(1);
        }
        if gone {
            self.dirty_dirs.remove(&ino);
            self.frozen.remove(&ino);
            self.orphans.insert(ino);
            self.counts.bytes = self.counts.bytes.saturating_sub(bytes);
        }
        self.mark_inode(ino);
    }

    fn apply_rename(&mut self, from: &(Ino, Vec<u8>), to: &(Ino, Vec<u8>), time: Timestamp) -> Attempt<()> {
        let ino = self.child(from.0, &from.1)?.ok_or(WorkError::NotFound)?;
        let replaced = self.child(to.0, &to.1)?;
        if replaced == Some(ino) {
            return Ok(());
        }
        let old_name = self.children(from.0)?.key(&from.1).ok_or(WorkError::NotFound)?;
        let new_name: Name = to.1.as_slice().into();
        let is_dir = self.get(ino)?.is_dir();
        if let Some(replaced) = replaced {
            self.inherit_identity(ino, replaced);
            let replaced_dir = self.get(replaced)?.is_dir();
            self.drop_name(replaced, time);
            self.touch_dir(to.0, time, -i64::from(replaced_dir));
        }
        self.children(from.0)?.remove(&from.1);
        self.children(to.0)?.insert(new_name.clone(), ino);
        let inode = self.get_mut(ino)?;
        inode.ctime = time;
        if !inode.linked {
            inode.home = Some((to.0, new_name.clone()));
        }
        self.touch_dir(from.0, time, -i64::from(is_dir));
        self.touch_dir(to.0, time, i64::from(is_dir));
        self.mark(from.0, &old_name);
        self.mark(to.0, &new_name);
        self.mark_inode(ino);
        if let Some(replaced) = replaced {
            self.reap(replaced);
        }
        Ok(())
    }

    fn apply_exchange(&mut self, from: &(Ino, Vec<u8>), to: &(Ino, Vec<u8>), time: Timestamp) -> Attempt<()> {
        let a = self.child(from.0, &from.1)?.ok_or(WorkError::NotFound)?;
        let b = self.child(to.0, &to.1)?.ok_or(WorkError::NotFound)?;
        let a_name = self.children(from.0)?.key(&from.1).ok_or(WorkError::NotFound)?;
        let b_name = self.children(to.0)?.key(&to.1).ok_or(WorkError::NotFound)?;
        self.children(from.0)?.insert(a_name.clone(), b);
        self.children(to.0)?.insert(b_name.clone(), a);
        for (ino, dir, name) in [(a, to.0, &b_name), (b, from.0, &a_name)] {
            let inode = self.get_mut(ino)?;
            inode.ctime = time;
            if !inode.linked {
                inode.home = Some((dir, name.clone()));
            }
        }
        let moved = i64::from(self.get(a)?.is_dir()) - i64::from(self.get(b)?.is_dir());
        self.touch_dir(from.0, time, -moved);
        self.touch_dir(to.0, time, moved);
        for (ino, dir, name) in [(a, to.0, &b_name), (b, from.0, &a_name)] {
            self.mark(dir, name);
            self.mark_inode(ino);
        }
        Ok(())
    }

    /// A file renamed over another takes the identity of the one it replaces: so editors save. One with several
    /// names keeps its own, by which they are found.
    fn inherit_identity(&mut self, ino: Ino, replaced: Ino) {
        if self.find(ino).is_some_and(|inode| inode.linked) {
            return;
        }
        let old =
            self.find(replaced).filter(|old| old.kind() == FileKind::File && old.nlink == 1).map(|old| old.file_id);
        if let (Some(file_id), Some(inode)) = (old, self.find_mut(ino))
            && inode.kind() == FileKind::File
        {
            inode.file_id = file_id;
        }
    }

    fn apply_attr(&mut self, ino: Ino, set: &AttrSet) -> Attempt<()> {
        let inode = self.get_mut(ino)?;
        inode.mode = set.mode.unwrap_or(inode.mode);
        inode.uid = set.uid.unwrap_or(inode.uid);
        inode.gid = set.gid.unwrap_or(inode.gid);
        inode.atime = set.atime.unwrap_or(inode.atime);
        inode.mtime = set.mtime.unwrap_or(inode.mtime);
        inode.ctime = set.ctime;
        if let (Node::File(file), Some(mtime)) = (&mut inode.node, set.mtime) {
            file.set_mtime(mtime);
        }
        self.mark_inode(ino);
        Ok(())
    }

    fn apply_xattr(&mut self, ino: Ino, name: &[u8], value: Option<&[u8]>, time: Timestamp) -> Attempt<()> {
        let inode = self.get_mut(ino)?;
        inode.ctime = time;
        let xattrs = inode.xattrs.get_or_insert_default();
        match value {
            Some(value) => xattrs.insert(name.to_vec(), value.to_vec()),
            None => xattrs.remove(name),
        };
        if xattrs.is_empty() {
            inode.xattrs = None;
        }
        self.mark_inode(ino);
        Ok(())
    }

    /// Changes a layer of a replayed file; layers newer than any known begin a new draft.
    fn with_layer(&mut self, ino: Ino, layer: u32, time: Timestamp, change: impl FnOnce(&mut Layer)) -> Attempt<()> {
        let inode = self.get_mut(ino)?;
        let file = inode.file_mut()?;
        if layer < file.next_layer && file.draft.as_ref().is_none_or(|draft| draft.id != layer) {
            if let Some(frozen) = file.frozen.iter_mut().find(|frozen| frozen.id == layer) {
                change(Arc::make_mut(frozen));
            }
            return Ok(());
        }
        if file.draft.as_ref().is_some_and(|draft| draft.id < layer) {
            file.freeze();
        }
        file.next_layer = file.next_layer.max(layer);
        let draft = file.draft_mut(time);
        change(draft);
        draft.mtime = time;
        file.size = draft.size;
        inode.mtime = time;
        inode.ctime = inode.ctime.max(time);
        self.note_layers(ino);
        Ok(())
    }

    /// Keeps the sets of files with drafts and frozen layers true.
    pub(super) fn note_layers(&mut self, ino: Ino) {
        let Some(Node::File(file)) = self.find(ino).map(|inode| &inode.node) else { return };
        let draft = file.draft.is_some() || !file.is_published();
        let frozen = !file.frozen.is_empty() && !self.orphans.contains(&ino);
        if draft {
            self.drafts.insert(ino)
        } else {
            self.drafts.remove(&ino)
        };
        if frozen {
            self.frozen.insert(ino)
        } else {
            self.frozen.remove(&ino)
        };
    }

    fn apply_complete(&mut self, ino: Ino, layer: u32) -> Attempt<()> {
        let inode = self.get_mut(ino)?;
        let mtime = inode.mtime;
        let file = inode.file_mut()?;
        // An empty first layer leaves no other trace in the journal.
        if layer >= file.next_layer && file.draft.is_none() && !file.is_published() {
            file.next_layer = layer;
            file.draft_mut(mtime);
        }
        if let Some(draft) = file.draft.as_mut().filter(|draft| draft.id == layer) {
            draft.complete = true;
            file.freeze();
        }
        self.note_layers(ino);
        self.mark_published(ino);
        Ok(())
    }

    pub(super) fn apply_publish(&mut self, ino: Ino, layer: u32, body: &FileBody, mtime: Timestamp) -> Attempt<()> {
        let inode = self.get_mut(ino)?;
        let file = inode.file_mut()?;
        file.frozen.retain(|frozen| frozen.id > layer);
        if file.draft.as_ref().is_some_and(|draft| draft.id <= layer) {
            file.draft = None;
            file.recovered = false;
        }
        file.next_layer = file.next_layer.max(layer + 1);
        let old = file.published.replace(Published { body: body.clone(), mtime });
        if !file.is_dirty() {
            file.size = body.size;
            inode.mtime = mtime;
        }
        if inode.nlink > 0 {
            let old = old.map_or(0, |old| old.body.size);
            self.counts.bytes = (self.counts.bytes + body.size).saturating_sub(old);
        }
        self.note_layers(ino);
        self.mark_inode(ino);
        Ok(())
    }

    fn apply_graft(&mut self, parent: Ino, name: &[u8], entry: &Entry, published: bool) -> Attempt<()> {
        if let Some(old) = self.child(parent, name)? {
            if old == entry.ino {
                return Ok(());
            }
            self.apply_remove(parent, name, entry.ctime)?;
        }
        let name: Name = name.into();
        if !published && self.find(entry.ino).is_some() {
            return self.carry_name(parent, name, entry.ino);
        }
        self.children(parent)?.insert(name.clone(), entry.ino);
        let mut inode = Inode::from_entry(entry.clone(), 1, false, Some((parent, name.clone())));
        if let Node::File(file) = &mut inode.node
            && !published
        {
            file.published = None;
        }
        self.count(&inode);
        let is_dir = inode.is_dir();
        self.insert(inode);
        self.note_layers(entry.ino);
        if published {
            self.touch_dir(parent, entry.ctime, i64::from(is_dir));
        }
        self.mark(parent, &name);
        Ok(())
    }

    /// One more name of an unpublished file that is carried over; nothing else changes by it.
    fn carry_name(&mut self, parent: Ino, name: Name, ino: Ino) -> Attempt<()> {
        self.children(parent)?.insert(name.clone(), ino);
        if let Some(inode) = self.find_mut(ino) {
            inode.nlink += 1;
            inode.linked = true;
            inode.home = None;
        }
        self.counts.files += 1;
        self.mark(parent, &name);
        self.mark_inode(ino);
        Ok(())
    }

    /// Puts a draft in the place of what the file has of this layer.
    pub(super) fn apply_draft(&mut self, ino: Ino, draft: Layer) -> Attempt<()> {
        let inode = self.get_mut(ino)?;
        let file = inode.file_mut()?;
        file.frozen.retain(|frozen| frozen.id != draft.id);
        if file.draft.as_ref().is_some_and(|old| old.id < draft.id) {
            file.freeze();
        }
        file.next_layer = draft.id + 1;
        file.size = draft.size;
        let mtime = draft.mtime;
        file.draft = Some(draft);
        inode.mtime = mtime;
        self.note_layers(ino);
        Ok(())
    }

    /// A name of a directory came or went: its times and number of subdirectories change.
    fn touch_dir(&mut self, dir: Ino, time: Timestamp, subdirs: i64) {
        let Some(inode) = self.find_mut(dir) else { return };
        (inode.mtime, inode.ctime) = (time, time);
        if let Node::Directory(directory) = &mut inode.node {
            directory.subdirs = u32::try_from((i64::from(directory.subdirs) + subdirs).max(0)).unwrap_or(u32::MAX);
        }
        self.mark_inode(dir);
    }

    fn count(&mut self, inode: &Inode) {
        match inode.kind() {
            FileKind::Directory => self.counts.dirs += 1,
            _ => self.counts.files += 1,
        }
        self.counts.bytes += inode.published_bytes();
    }

    /// Adds what a load brought: the names of a directory, with the inodes that are not in memory.
    pub(super) fn install_names(&mut self, dir: Ino, entries: Vec<(Name, Entry)>) {
        let unloaded =
            self.find(dir).and_then(|inode| inode.dir().ok()).is_some_and(|directory| directory.children.is_none());
        if !unloaded {
            return;
        }
        let mut entries = entries;
        for (_, entry) in &mut entries {
            // Somebody still has an inode open that went and came back.
            if self.find(entry.ino).is_some_and(|inode| inode.nlink == 0 && !inode.is_dir()) {
                entry.ino = self.allocate_ino();
                self.aliases.insert(entry.ino);
            }
        }
        let cookies = self.kept_cookies.take(dir);
        let names = entries.iter().map(|(name, entry)| (name.clone(), entry.ino));
        let children = super::inode::Children::load(names, cookies.as_ref());
        for (name, entry) in entries {
            let ino = entry.ino;
            if !matches!(entry.body, Body::Link) && self.find(ino).is_none() {
                self.insert(Inode::from_entry(entry, 1, false, Some((dir, name))));
            }
        }
        let used = self.next_tick();
        if let Some(directory) = self.find_mut(dir).and_then(|inode| inode.dir_mut().ok()) {
            directory.used = used;
            directory.children = Some(children);
        }
    }

    /// Adds an inode of the link table.
    pub(super) fn install_link(&mut self, ino: Ino, inode: Entry, names: u32) {
        if self.find(ino).is_none() {
            self.insert(Inode::from_entry(inode, names, true, None));
        }
    }
}

impl File {
    /// An explicit modification time: of the draft when there is one, else of what is published.
    fn set_mtime(&mut self, mtime: Timestamp) {
        if let Some(draft) = &mut self.draft {
            draft.mtime = mtime;
        } else if let Some(last) = self.frozen.last_mut() {
            Arc::make_mut(last).mtime = mtime;
        } else if let Some(published) = &mut self.published {
            published.mtime = mtime;
        }
    }
}
