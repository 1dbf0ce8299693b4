//! Everything that is no directory: content, names, links.

use super::attrs::{join_attributes, same_content, same_state};
use super::places::Merger;
use super::{Changes, Clash, Key, NodeChange, Place, Policy};
use crate::base::clock::Timestamp;
use crate::base::ids::FileId;
use crate::version::Result;
use crate::version::entry::{Body, Entry, LinkRecord};

/// What is to become of one inode.
pub(super) struct Leaf {
    entry: Entry,
    /// Names of ours that stay.
    stay: Vec<Place>,
    /// Names that it gets.
    add: Vec<Place>,
    /// Number of names, when it stands in the link table.
    links: Option<u32>,
    /// Whether our link table has it.
    was_linked: bool,
    /// Whether the ancestor has it.
    is_known: bool,
    clash: Option<Clash>,
    aside: Option<Aside>,
}

/// A state that lost, to be put somewhere.
struct Aside {
    entry: Entry,
    time: Timestamp,
    backup: bool,
}

/// Whether a user would notice the change.
fn is_substantive(node: &NodeChange) -> bool {
    node.is_moved()
        || match (&node.before, &node.after) {
            (Some(before), Some(after)) => !same_state(before, after),
            _ => true,
        }
}

fn link_to(entry: &Entry) -> Entry {
    Entry {
        ino: entry.ino,
        file_id: FileId([0; 16]),
        mode: 0,
        uid: 0,
        gid: 0,
        atime: Default::default(),
        mtime: Default::default(),
        ctime: Default::default(),
        xattrs: Default::default(),
        body: Body::Link,
    }
}

impl Merger<'_> {
    /// Decides on every inode that theirs changed, and takes away the names that go.
    pub(super) fn decide_leaves(&mut self, theirs: &Changes) -> Result<Vec<(Leaf, Vec<Key>)>> {
        let mut leaves = Vec::new();
        for (key, node) in theirs.nodes.iter().filter(|(key, _)| !key.is_dir) {
            let ours = self.ours.nodes.get(key).cloned();
            let leaf = match (self.our_entry(*key, node), &node.after) {
                (Some(entry), None) => {
                    self.remove_leaf(&entry, ours.as_ref(), node);
                    None
                }
                (None, Some(after)) => self.add_leaf(*key, ours.as_ref(), node, after),
                (Some(entry), Some(after)) => Some(self.join_leaf(*key, &entry, ours.as_ref(), node, after)?),
                (None, None) => None,
            };
            leaves.extend(leaf.map(|leaf| {
                let dirs = leaf.add.iter().map(|place| place.0).collect();
                (leaf, dirs)
            }));
        }
        Ok(leaves)
    }

    /// Theirs removed it: gone, unless we changed it or are writing to it.
    fn remove_leaf(&mut self, entry: &Entry, ours: Option<&NodeChange>, theirs: &NodeChange) {
        if let Some(ours) = ours.filter(|ours| is_substantive(ours)) {
            let left = || theirs.gone.iter().find(|place| !ours.gone.contains(place));
            if let Some(place) = ours.came.first().or(ours.at.as_ref()).or_else(left) {
                self.conflict(place, Clash::Removed, None);
            }
            return;
        }
        if self.with.pins.drafts.contains(&entry.ino) {
            return;
        }
        theirs.gone.iter().for_each(|place| self.set(place, None));
        if ours.map_or(theirs.links_before, |ours| ours.links_after).is_some() {
            self.links.insert(LinkRecord::key(entry.ino), None);
        }
    }

    /// We do not have it: new, or removed by us and changed by theirs.
    fn add_leaf(&mut self, key: Key, ours: Option<&NodeChange>, theirs: &NodeChange, after: &Entry) -> Option<Leaf> {
        let is_known = theirs.before.is_some();
        if is_known && !is_substantive(theirs) {
            return None;
        }
        let mut add: Vec<Place> = theirs.came.iter().chain(&theirs.at).cloned().collect();
        let lost = ours.into_iter().flat_map(|ours| &ours.gone);
        add.extend(lost.filter(|place| !theirs.gone.contains(place)).cloned());
        add.sort();
        add.dedup();
        let links = theirs.links_after.map(|_| u32::try_from(add.len()).unwrap_or(u32::MAX));
        let entry = Entry { ino: self.ino_for(key, after.ino), ..after.clone() };
        let clash = is_known.then_some(Clash::Removed);
        Some(Leaf { entry, stay: Vec::new(), add, links, was_linked: false, is_known, clash, aside: None })
    }

    fn join_leaf(
        &mut self,
        key: Key,
        our: &Entry,
        ours: Option<&NodeChange>,
        theirs: &NodeChange,
        after: &Entry,
    ) -> Result<Leaf> {
        let our_links = ours.map_or(theirs.links_before, |ours| ours.links_after);
        let is_linked = our_links.is_some() || theirs.links_after.is_some();
        let here = known_places(ours, theirs);
        let (stay, add, moved) = match is_linked {
            true => linked_places(&here, theirs, our_links),
            false => self.single_place(&here, ours, theirs)?,
        };
        for place in here.iter().filter(|place| !stay.contains(place)) {
            self.set(place, None);
        }
        let path_place = match stay.first().or(add.first()).cloned() {
            Some(place) => Some(place),
            None => self.find_link(our, &here)?,
        };
        let mut leaf = Leaf {
            entry: our.clone(),
            links: None,
            was_linked: our_links.is_some(),
            is_known: true,
            clash: moved.then_some(Clash::Moved),
            aside: None,
            stay,
            add,
        };
        let is_pinned = self.with.pins.drafts.contains(&our.ino);
        leaf.entry = match ours {
            None => after.clone(),
            Some(ours) => {
                let base = theirs.before.as_ref().or(ours.before.as_ref());
                self.join_content(base, our, after, here.first().or(path_place.as_ref()), &mut leaf)?
            }
        };
        let base_ino = theirs.before.as_ref().map(|before| before.ino);
        leaf.entry.ino = match (our_links, theirs.links_after) {
            _ if is_pinned => our.ino,
            (Some(_), _) => our.ino,
            (None, None) if ours.is_some() && (base_ino == Some(after.ino) || base_ino != Some(our.ino)) => our.ino,
            _ => self.ino_for(key, after.ino),
        };
        if is_linked {
            let gone = here.len() - leaf.stay.len();
            let names = our_links.map_or(here.len(), |names| names as usize);
            leaf.links = Some(u32::try_from((names + leaf.add.len()).saturating_sub(gone)).unwrap_or(u32::MAX));
        }
        if leaf.stay.is_empty() && leaf.add.is_empty() {
            leaf.stay.extend(path_place.filter(|_| leaf.aside.is_some() || leaf.clash.is_some()));
        }
        Ok(leaf)
    }

    /// The place of an inode with one name; whether both moved it to different ones.
    fn single_place(
        &self,
        here: &[Place],
        ours: Option<&NodeChange>,
        theirs: &NodeChange,
    ) -> Result<(Vec<Place>, Vec<Place>, bool)> {
        let wanted = theirs.came.first();
        let stays = || (here.to_vec(), Vec::new());
        let Some(wanted) = wanted.filter(|wanted| !here.contains(wanted)) else {
            let (stay, add) = stays();
            return Ok((stay, add, false));
        };
        let we_moved = ours.is_some_and(NodeChange::is_moved);
        if we_moved && let Some(place) = here.first() {
            if !matches!((self.with.policy)(&self.path(place)?), Policy::Theirs | Policy::Yield) {
                let (stay, add) = stays();
                return Ok((stay, add, true));
            }
            return Ok((Vec::new(), vec![wanted.clone()], true));
        }
        Ok((Vec::new(), vec![wanted.clone()], false))
    }

    /// Attributes and content of an inode that both changed.
    fn join_content(
        &self,
        base: Option<&Entry>,
        our: &Entry,
        after: &Entry,
        place: Option<&Place>,
        leaf: &mut Leaf,
    ) -> Result<Entry> {
        let mut entry = join_attributes(base, our, after);
        let has_changed = |side: &Entry| !base.is_some_and(|base| same_content(base, side));
        if same_content(our, after) || !has_changed(after) {
            return Ok(entry);
        }
        if !has_changed(our) {
            entry.body = after.body.clone();
            return Ok(entry);
        }
        // A name in a directory that we removed counts by itself.
        let path = place.map(|place| self.path(place).unwrap_or_else(|_| place.1.to_vec()));
        let policy = path.map_or(Policy::KeepBoth, |path| (self.with.policy)(&path));
        leaf.clash = Some(Clash::Edited);
        let merged = match (policy, base.map(|base| &base.body), &our.body, &after.body) {
            (Policy::Merge, Some(Body::File(base)), Body::File(ours), Body::File(theirs)) => {
                self.with.texts.merge(base, ours, theirs)?
            }
            _ => None,
        };
        if let Some(merged) = merged {
            leaf.clash = None;
            return Ok(Entry { body: Body::File(merged), ..entry });
        }
        let newer = |entry: &Entry| (entry.mtime, entry.ctime);
        let ours_stays = match policy {
            Policy::KeepBoth | Policy::Merge | Policy::Ours => true,
            Policy::Theirs | Policy::Yield => false,
            Policy::LastWriteWins => newer(our) > newer(after),
        };
        let (winner, loser, time) = match ours_stays {
            true => (our, after, self.with.theirs.time),
            false => (after, our, self.with.ours.time),
        };
        (entry.body, entry.mtime) = (winner.body.clone(), winner.mtime);
        let backup = policy == Policy::LastWriteWins;
        if backup || matches!(policy, Policy::KeepBoth | Policy::Merge | Policy::Yield) {
            leaf.aside = Some(Aside { entry: loser.clone(), time, backup });
        }
        Ok(entry)
    }

    /// Some name of an inode with several that stays, found by walking our tree: a version does not say where they are.
    fn find_link(&mut self, entry: &Entry, gone: &[Place]) -> Result<Option<Place>> {
        let mut dirs = vec![(self.root, Vec::new(), self.our_names(self.root))];
        while let Some((dir, path, names)) = dirs.pop() {
            let mut values = Vec::new();
            names.scan(self.with.io, std::ops::Bound::Unbounded, &mut |name, value| {
                values.push((name.to_vec(), value.to_vec()));
                true
            })?;
            for (name, value) in values {
                let found = Entry::decode(&value)?;
                let place = (dir, name.as_slice().into());
                if matches!(found.body, Body::Link) && found.ino == entry.ino && !gone.contains(&place) {
                    self.learn_dirs(&path)?;
                    return Ok(Some(place));
                }
                if found.is_dir() {
                    let below = [path.as_slice(), &[name]].concat();
                    dirs.push((Key::of(&found), below, super::changes::names_of(Some(&found))));
                }
            }
        }
        Ok(None)
    }

    /// Gives every decided inode its names.
    pub(super) fn place_leaves(&mut self, leaves: Vec<(Leaf, Vec<Key>)>, theirs: &Changes) -> Result<()> {
        for (leaf, dirs) in leaves {
            for dir in dirs {
                self.ensure_dir(dir, theirs)?;
            }
            self.place_leaf(leaf)?;
        }
        Ok(())
    }

    fn place_leaf(&mut self, mut leaf: Leaf) -> Result<()> {
        let shown = if leaf.links.is_some() { link_to(&leaf.entry) } else { leaf.entry.clone() };
        if !leaf.was_linked {
            for place in leaf.stay.clone() {
                self.set(&place, Some(shown.clone()));
            }
        }
        let mut placed = leaf.stay.first().cloned();
        for place in std::mem::take(&mut leaf.add) {
            match self.claim(&place, &leaf)? {
                Some((at, entry)) => {
                    // A copy stands alone.
                    let entry = if leaf.links.is_some() { shown.clone() } else { entry };
                    self.set(&at, Some(entry));
                    placed.get_or_insert(at);
                }
                None => leaf.links = leaf.links.map(|names| names.saturating_sub(1)),
            }
        }
        if let Some(names) = leaf.links {
            let record = (names > 0).then(|| LinkRecord { names, inode: leaf.entry.clone() }.encode());
            self.links.insert(LinkRecord::key(leaf.entry.ino), record);
        }
        let Some(placed) = placed else { return Ok(()) };
        let beside = match leaf.aside {
            Some(Aside { entry, time, backup: true }) => Some(self.put_backup(&placed, time, &entry)?),
            Some(Aside { entry, time, backup: false }) => Some(self.put_beside(&placed, time, &entry)?),
            None => None,
        };
        if let Some(clash) = leaf.clash {
            self.conflict(&placed, clash, beside);
        }
        Ok(())
    }

    /// Where an inode of theirs goes that shall get a name, and as what; `None` when it need not go anywhere.
    fn claim(&mut self, place: &Place, leaf: &Leaf) -> Result<Option<(Place, Entry)>> {
        let place = (self.dir(place.0), place.1.clone());
        if self.is_free(&place)? {
            return Ok(Some((place, leaf.entry.clone())));
        }
        let theirs = &leaf.entry;
        let there = match self.occupant(&place)? {
            Some(there) if !self.reserved.contains(&place) => {
                let is_plain = !matches!(there.body, Body::Link);
                Some((self.resolve(there)?, is_plain))
            }
            _ => None,
        };
        let is_single = leaf.links.is_none() && !leaf.is_known;
        if let Some((ours, is_plain)) = &there
            && *is_plain
            && is_single
            && !ours.is_dir()
        {
            if same_content(ours, theirs) {
                let newer = if theirs.ctime > ours.ctime { theirs } else { ours };
                let joined = Entry { ino: ours.ino, file_id: ours.file_id, ..newer.clone() };
                self.set(&place, Some(joined));
                return Ok(None);
            }
            return self.settle_added(place, ours, theirs);
        }
        let beside = self.name_beside(&place, self.with.theirs.time, theirs)?;
        self.conflict(&place, Clash::Added, Some(beside.clone()));
        let entry = if is_single { self.copy_of(theirs) } else { theirs.clone() };
        Ok(self.is_free(&beside)?.then_some((beside, entry)))
    }

    /// Both sides gave a name to different files.
    fn settle_added(&mut self, place: Place, ours: &Entry, theirs: &Entry) -> Result<Option<(Place, Entry)>> {
        let (our_time, their_time) = (self.with.ours.time, self.with.theirs.time);
        let policy = (self.with.policy)(&self.path(&place)?);
        let ours_is_newer = (ours.mtime, ours.ctime) > (theirs.mtime, theirs.ctime);
        match policy {
            Policy::KeepBoth | Policy::Merge => {
                let beside = self.put_beside(&place, their_time, theirs)?;
                self.conflict(&place, Clash::Added, Some(beside));
                Ok(None)
            }
            Policy::LastWriteWins if ours_is_newer => {
                let backup = self.put_backup(&place, their_time, theirs)?;
                self.conflict(&place, Clash::Added, Some(backup));
                Ok(None)
            }
            Policy::LastWriteWins => {
                let backup = self.put_backup(&place, our_time, ours)?;
                self.conflict(&place, Clash::Added, Some(backup));
                Ok(Some((place, theirs.clone())))
            }
            Policy::Yield => {
                let beside = self.put_beside(&place, our_time, ours)?;
                self.conflict(&place, Clash::Added, Some(beside));
                Ok(Some((place, theirs.clone())))
            }
            Policy::Ours => {
                self.conflict(&place, Clash::Added, None);
                Ok(None)
            }
            Policy::Theirs => {
                self.conflict(&place, Clash::Added, None);
                Ok(Some((place, theirs.clone())))
            }
        }
    }
}

/// The names in our tree that are known, sorted.
fn known_places(ours: Option<&NodeChange>, theirs: &NodeChange) -> Vec<Place> {
    let mut places: Vec<Place> = theirs.gone.iter().chain(&theirs.at).cloned().collect();
    if let Some(ours) = ours {
        places.retain(|place| !ours.gone.contains(place));
        places.extend(ours.came.iter().chain(&ours.at).cloned());
    }
    places.sort();
    places.dedup();
    places
}

/// Names are added and removed on both sides. Not all go: where either side kept some, ours do.
fn linked_places(here: &[Place], theirs: &NodeChange, our_links: Option<u32>) -> (Vec<Place>, Vec<Place>, bool) {
    let stay: Vec<Place> = here.iter().filter(|place| !theirs.gone.contains(place)).cloned().collect();
    let add: Vec<Place> = theirs.came.iter().filter(|place| !here.contains(place)).cloned().collect();
    let names = our_links.map_or(here.len(), |names| names as usize);
    if names + add.len() <= here.len() - stay.len() {
        return (here.to_vec(), add, false);
    }
    (stay, add, false)
}
