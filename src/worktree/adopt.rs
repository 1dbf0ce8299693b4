//! Letting the live tree go over to another version, under the lock: names, inodes, and what is open.

use std::collections::HashMap;

use super::Name;
use super::graft::Invalidation;
use super::inode::{Inode, Node, Published};
use super::record::{Contest, Record};
use super::table::Table;
use crate::base::clock::Timestamp;
use crate::version::entry::{Body, Entry, FileBody, Ino};
use crate::version::index::{Counts, Root};
use crate::version::merge::{Changes, Key, NodeChange, Place};

/// What is gone over to.
pub(super) struct Adoption<'a> {
    /// From the newest version to the other one.
    pub(super) changes: &'a Changes,
    pub(super) root: &'a Root,
    /// When the other side's changes were recorded.
    pub(super) time: Timestamp,
    /// Totals before and after.
    pub(super) counts: (Counts, Counts),
    /// Directories on the way to what was moved, from the top down, with all their names.
    pub(super) listings: &'a [Listing],
}

/// A directory of the other version.
pub(super) struct Listing {
    pub(super) place: Option<Place>,
    pub(super) entry: Entry,
    pub(super) names: Vec<(Name, Entry)>,
}

struct Adopting<'a> {
    table: &'a mut Table,
    with: &'a Adoption<'a>,
    invalidations: Vec<Invalidation>,
}

impl Table {
    /// Goes over. Nothing may be to be recorded, and what is being written must be where the other version expects
    /// it. Says what the kernel must forget.
    pub(super) fn adopt(&mut self, with: &Adoption<'_>) -> Vec<Invalidation> {
        let mut adopting = Adopting { table: self, with, invalidations: Vec::new() };
        adopting.run();
        adopting.invalidations
    }

    /// Records of what earlier joining left: inodes with other numbers, and contests.
    pub(super) fn joined_records(&self) -> Vec<Record> {
        let mut aliases: Vec<&Inode> = self.aliases.iter().filter_map(|ino| self.find(*ino)).collect();
        aliases.sort_by_key(|inode| inode.ino);
        let mut records: Vec<Record> = aliases.into_iter().filter_map(Inode::alias_graft).collect();
        let mut contests: Vec<(&Ino, &Contest)> = self.contests.iter().collect();
        contests.sort_by_key(|(ino, _)| **ino);
        let contest =
            |(ino, contest): (&Ino, &Contest)| Record::Contest { ino: *ino, contest: Some(Box::new(contest.clone())) };
        records.extend(contests.into_iter().map(contest));
        records
    }
}

impl Inode {
    /// The record that gives an inode with another number than the newest version has for it its name.
    pub(super) fn alias_graft(&self) -> Option<Record> {
        let (parent, name) = self.home.clone()?;
        let published = self.file().ok().and_then(|file| file.published.as_ref());
        let inode = Box::new(self.to_entry(published));
        Some(Record::Graft { parent, name: name.to_vec(), inode, published: true })
    }
}

impl Adopting<'_> {
    fn run(&mut self) {
        let nodes = &self.with.changes.nodes;
        self.table.links = self.with.root.links;
        self.enter_dir(Ino::ROOT, &self.with.root.dir);
        // Numbers of ours can come from others: from a copy of this client, or from what it forgot.
        nodes.values().filter_map(|node| node.after.as_ref()).for_each(|after| self.table.note_ino(after.ino));
        for (_, node) in nodes.iter().filter(|(key, _)| key.is_dir) {
            if let (Some(_), Some(after)) = (&node.before, &node.after) {
                self.enter_dir(after.ino, after);
            }
        }
        let live: HashMap<Key, Ino> =
            nodes.iter().filter_map(|(key, node)| Some((*key, self.live_ino(node)?))).collect();
        for node in nodes.values() {
            for place in &node.gone {
                self.take_name(place);
            }
        }
        for (key, _) in nodes.iter().filter(|(_, node)| leaves(node)) {
            if let Some(ino) = live.get(key) {
                self.leave(*ino);
            }
        }
        self.load_listings(&live);
        for (key, node) in nodes {
            let Some(after) = &node.after else { continue };
            match live.get(key).filter(|_| !leaves(node)) {
                Some(ino) => self.update(*ino, node, after),
                None => self.arrive(node, after),
            }
        }
        let (before, after) = self.with.counts;
        let counts = &mut self.table.counts;
        counts.files = (counts.files + after.files).saturating_sub(before.files);
        counts.dirs = (counts.dirs + after.dirs).saturating_sub(before.dirs);
        counts.bytes = (counts.bytes + after.bytes).saturating_sub(before.bytes);
        self.table.changes += 1;
    }

    fn dir_ino(&self, key: Key) -> Ino {
        let node = self.with.changes.nodes.get(&key);
        let entry = node.and_then(|node| node.after.as_ref().or(node.before.as_ref()));
        entry.map_or(Ino::ROOT, |entry| entry.ino)
    }

    /// The number under which the live tree has an inode of the newest version.
    fn live_ino(&self, node: &NodeChange) -> Option<Ino> {
        let before = node.before.as_ref()?;
        let place = node.gone.first().or(node.at.as_ref());
        let child = place.and_then(|(dir, name)| {
            let dir = self.table.find(self.dir_ino(*dir))?.dir().ok()?;
            Some(dir.children.as_ref()?.get(name)?.ino)
        });
        Some(child.filter(|ino| self.table.aliases.contains(ino)).unwrap_or(before.ino))
    }

    /// A directory that both versions have: its names are read anew, unless they are in memory.
    fn enter_dir(&mut self, ino: Ino, after: &Entry) {
        let Some(inode) = self.table.find_mut(ino) else { return };
        set_attributes(inode, after);
        if let (Node::Directory(dir), Body::Directory { names, subdirs }) = (&mut inode.node, &after.body) {
            (dir.names, dir.subdirs) = (*names, *subdirs);
        }
        self.invalidations.push(Invalidation::Inode(ino));
    }

    fn tell_name(&mut self, place: &Place) {
        let is_new = self.with.changes.nodes.get(&place.0).is_some_and(|dir| dir.before.is_none());
        if !is_new {
            let parent = self.dir_ino(place.0);
            self.invalidations.push(Invalidation::Name { parent, name: place.1.clone() });
        }
    }

    fn take_name(&mut self, place: &Place) {
        self.tell_name(place);
        let ino = self.dir_ino(place.0);
        let dir = self.table.find_mut(ino).and_then(|inode| inode.dir_mut().ok());
        if let Some(children) = dir.and_then(|dir| dir.children.as_mut()) {
            children.remove(&place.1);
        }
    }

    /// Gives an inode a name, where the names of the directory are in memory.
    fn give_name(&mut self, place: &Place, ino: Ino) -> bool {
        let parent = self.dir_ino(place.0);
        let dir = self.table.find_mut(parent).and_then(|inode| inode.dir_mut().ok());
        let Some(children) = dir.and_then(|dir| dir.children.as_mut()) else { return false };
        children.insert(place.1.clone(), ino);
        true
    }

    /// An inode is in the tree no more; who has it open keeps it.
    fn leave(&mut self, ino: Ino) {
        self.table.known.remove(&ino);
        self.table.contests.remove(&ino);
        self.table.aliases.remove(&ino);
        self.table.drafts.remove(&ino);
        self.table.dirty_dirs.remove(&ino);
        let Some(inode) = self.table.find_mut(ino) else { return };
        (inode.nlink, inode.home, inode.linked) = (0, None, false);
        if let Node::Directory(dir) = &mut inode.node {
            dir.children = Some(Default::default());
        }
        self.invalidations.push(Invalidation::Inode(ino));
        self.table.orphans.insert(ino);
        self.table.reap(ino);
    }

    /// Loads the directories that something in memory is moved into.
    fn load_listings(&mut self, live: &HashMap<Key, Ino>) {
        let is_needed = |(key, ino): (&Key, &Ino)| {
            let node = &self.with.changes.nodes[key];
            !node.came.is_empty() && node.links_after.is_none() && self.table.find(*ino).is_some()
        };
        if !live.iter().any(is_needed) {
            return;
        }
        for listing in self.with.listings {
            let ino = listing.entry.ino;
            if self.table.find(ino).is_none() {
                let home = listing.place.as_ref().map(|place| (self.dir_ino(place.0), place.1.clone()));
                self.table.insert(Inode::from_entry(listing.entry.clone(), 1, false, home));
            }
            self.table.install_names(ino, listing.names.clone());
        }
    }

    /// An inode that the newest version did not have, or not under this number.
    fn arrive(&mut self, node: &NodeChange, after: &Entry) {
        let places: Vec<Place> = node.came.iter().chain(&node.at).cloned().collect();
        places.iter().for_each(|place| self.tell_name(place));
        if let Some(names) = node.links_after {
            places.iter().for_each(|place| {
                self.give_name(place, after.ino);
            });
            if self.table.find(after.ino).is_some() {
                self.table.orphans.remove(&after.ino);
                self.replace(Inode::from_entry(after.clone(), names, true, None));
            }
            return;
        }
        let Some(place) = places.first() else { return };
        let parent = self.dir_ino(place.0);
        let home = Some((parent, place.1.clone()));
        let there = self.table.find(after.ino).map(|inode| inode.home == home);
        let ino = match there {
            // Made a moment ago, for what is moved into it.
            Some(true) => after.ino,
            Some(false) if after.is_dir() => {
                self.give_name(place, after.ino);
                self.table.orphans.remove(&after.ino);
                return self.replace(Inode::from_entry(after.clone(), 1, false, home));
            }
            Some(false) => self.table.allocate_ino(),
            None => after.ino,
        };
        if self.give_name(place, ino) && there != Some(true) {
            self.table.insert(Inode::from_entry(Entry { ino, ..after.clone() }, 1, false, home));
            if ino != after.ino {
                self.table.aliases.insert(ino);
            }
        }
    }

    /// Puts an inode in the place of one of the same number that the kernel may hold.
    fn replace(&mut self, mut inode: Inode) {
        if let Some(old) = self.table.find(inode.ino) {
            (inode.lookups, inode.opens) = (old.lookups, old.opens);
        }
        self.invalidations.push(Invalidation::Inode(inode.ino));
        self.table.insert(inode);
    }

    /// An inode that both versions have.
    fn update(&mut self, ino: Ino, node: &NodeChange, after: &Entry) {
        for place in &node.came {
            self.tell_name(place);
            self.give_name(place, ino);
        }
        let place = node.came.first().or(node.at.as_ref()).map(|(dir, name)| (self.dir_ino(*dir), name.clone()));
        if let (Some(known), Some((parent, _)), None) = (self.table.known.get_mut(&ino), &place, node.links_after) {
            known.move_to(Some(*parent));
        }
        if let (Some(known), Some(_)) = (self.table.known.get_mut(&ino), node.links_after) {
            known.move_to(None);
        }
        self.invalidations.push(Invalidation::Inode(ino));
        let Some(inode) = self.table.find_mut(ino) else { return };
        match node.links_after {
            Some(names) => (inode.nlink, inode.linked, inode.home) = (names, true, None),
            None if place.is_some() => (inode.linked, inode.home) = (false, place.clone()),
            None => {}
        }
        if !inode.is_dir() {
            self.update_content(ino, place, after);
        }
    }

    fn update_content(&mut self, ino: Ino, place: Option<(Ino, Name)>, after: &Entry) {
        let Some(inode) = self.table.find_mut(ino) else { return };
        let (is_open, linked, nlink) = (inode.opens > 0, inode.linked, inode.nlink);
        let (Node::File(file), Body::File(body)) = (&mut inode.node, &after.body) else {
            let entry = Entry { ino, ..after.clone() };
            return self.replace(Inode::from_entry(entry, nlink, linked, place.filter(|_| !linked)));
        };
        let old = file.published.as_ref().map(|published| published.body.clone()).unwrap_or_default();
        let is_other = old.content != body.content || old.size != body.size;
        let is_written = file.draft.is_some() || file.writers > 0;
        if is_other && is_written {
            return self.contest(ino, old, after);
        }
        if let (true, true, false, Some((parent, name))) = (is_other, is_open, linked, &place) {
            // Who reads the old content goes on to do so.
            let fresh = self.table.allocate_ino();
            self.leave(ino);
            let home = (*parent, name.clone());
            let dir = self.table.find_mut(*parent).and_then(|inode| inode.dir_mut().ok());
            if let Some(children) = dir.and_then(|dir| dir.children.as_mut()) {
                children.insert(name.clone(), fresh);
                self.table.insert(Inode::from_entry(Entry { ino: fresh, ..after.clone() }, 1, false, Some(home)));
                self.table.aliases.insert(fresh);
            }
            self.invalidations.push(Invalidation::Name { parent: *parent, name: name.clone() });
            return;
        }
        file.published = Some(Published { body: body.clone(), mtime: after.mtime });
        let mtime = inode.mtime;
        if !is_written {
            file.size = body.size;
        }
        set_attributes(inode, after);
        if is_written {
            inode.mtime = mtime;
        }
    }

    /// What is being written here stands on its own base from now on; who publishes it later settles this.
    fn contest(&mut self, ino: Ino, old: FileBody, after: &Entry) {
        let time = self.with.time;
        let Some(inode) = self.table.find_mut(ino) else { return };
        let mtime = inode.mtime;
        let (Node::File(file), Body::File(body)) = (&mut inode.node, &after.body) else { return };
        let draft = file.draft_mut(mtime);
        if draft.base.is_none() {
            draft.base = Some(std::sync::Arc::new(old.clone()));
        }
        draft.extents.set_logged(false);
        file.published = Some(Published { body: body.clone(), mtime: after.mtime });
        inode.file_id = after.file_id;
        self.table.drafts.insert(ino);
        let base = self.table.contests.remove(&ino).map_or(old, |contest| contest.base);
        self.table.contests.insert(ino, Contest { base, theirs: after.clone(), time });
    }
}

/// Whether the inode of the newest version goes: it is gone, or another number has its identity.
fn leaves(node: &NodeChange) -> bool {
    match (&node.before, &node.after) {
        (Some(before), Some(after)) => before.ino != after.ino,
        (before, _) => before.is_some(),
    }
}

fn set_attributes(inode: &mut Inode, entry: &Entry) {
    inode.file_id = entry.file_id;
    inode.mode = entry.mode;
    (inode.uid, inode.gid) = (entry.uid, entry.gid);
    (inode.atime, inode.mtime, inode.ctime) = (entry.atime, entry.mtime, entry.ctime);
    inode.xattrs = (!entry.xattrs.is_empty()).then(|| Box::new(entry.xattrs.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::FileId;
    use crate::version::entry::Xattrs;
    use crate::version::tree::TreeRef;
    use crate::worktree::table::Totals;

    fn entry(ino: u64, body: Body) -> Entry {
        let time = Timestamp::default();
        Entry {
            ino: Ino(ino),
            file_id: FileId([0; 16]),
            mode: 0,
            uid: 0,
            gid: 0,
            atime: time,
            mtime: time,
            ctime: time,
            xattrs: Xattrs::default(),
            body,
        }
    }

    #[test]
    fn an_inode_that_gets_another_number_while_names_are_loaded_is_told_to_the_journal_before_what_is_done_to_it() {
        let root = entry(Ino::ROOT.0, Body::Directory { names: TreeRef::default(), subdirs: 0 });
        let root = Inode::from_entry(root, 1, false, None);
        let mut table = Table::new(root, TreeRef::default(), Totals::default(), 1);
        let file = entry(77, Body::File(FileBody::default()));
        // It lost its name while it was open, and others gave it back.
        table.insert(Inode::from_entry(file.clone(), 0, false, None));
        table.install_names(Ino::ROOT, vec![(b"file"[..].into(), file)]);
        let Ok(Some(ino)) = table.child(Ino::ROOT, b"file") else { panic!("the name is there") };
        assert_ne!(ino, Ino(77));
        let change = Record::Complete { ino, layer: 0 };
        let told = table.places([&change]);
        let [Record::Graft { parent: Ino::ROOT, name, inode, published: true }] = &told[..] else { panic!("{told:?}") };
        assert_eq!((&name[..], inode.ino), (&b"file"[..], ino));
        table.note_told(&told);
        assert!(table.places([&change]).is_empty(), "it is told once");
    }
}
