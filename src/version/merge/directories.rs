//! Directories: moved, made and removed ones.

use super::attrs::join_attributes;
use super::places::Merger;
use super::{Changes, Clash, Key, NodeChange, Place, Policy};
use crate::version::entry::Entry;
use crate::version::{Result, VersionError};

impl Merger<'_> {
    /// Does to our directories what theirs did to them.
    pub(super) fn decide_directories(&mut self, theirs: &Changes) -> Result<()> {
        let dirs = || theirs.nodes.iter().filter(|(key, _)| key.is_dir);
        let mut moved = Vec::new();
        for (key, node) in dirs() {
            let (Some(ours), Some(after)) = (self.dirs.get(key).cloned(), &node.after) else { continue };
            let base = node.before.as_ref();
            let joined = match self.ours.nodes.contains_key(key) {
                true => join_attributes(base, &ours, after),
                false => Entry { body: ours.body.clone(), ..after.clone() },
            };
            self.dirs.insert(*key, joined);
            // Its entry is written anew.
            self.edits.entry(*key).or_default();
            if node.is_moved() {
                moved.extend(self.move_away(*key, node, theirs)?.map(|place| (*key, place)));
            }
        }
        let leaving = dirs().filter(|(_, node)| node.after.is_none()).map(|(key, _)| *key);
        self.remove_empty(leaving.collect())?;
        for (key, place) in moved {
            self.settle(key, &place)?;
        }
        for (key, _) in dirs().filter(|(_, node)| node.before.is_none() && node.after.is_some()) {
            self.ensure_dir(*key, theirs)?;
        }
        Ok(())
    }

    /// Takes a directory that theirs moved from its place; says where it goes.
    fn move_away(&mut self, key: Key, node: &NodeChange, theirs: &Changes) -> Result<Option<Place>> {
        let (Some(wanted), Some(here)) = (node.came.first(), self.dir_places.get(&key).cloned()) else {
            return Ok(None);
        };
        if here == *wanted {
            return Ok(None);
        }
        let we_moved = self.ours.nodes.get(&key).is_some_and(NodeChange::is_moved);
        if we_moved && (self.with.policy)(&self.path(&here)?) != Policy::Theirs {
            self.conflict(&here, Clash::Moved, None);
            return Ok(None);
        }
        self.ensure_dir(wanted.0, theirs)?;
        if self.is_inside(wanted.0, key)? {
            self.conflict(&here, Clash::Moved, None);
            return Ok(None);
        }
        self.set(&here, None);
        self.dir_places.insert(key, wanted.clone());
        Ok(Some(wanted.clone()))
    }

    /// Removes directories that theirs removed and that hold nothing more, the innermost first.
    fn remove_empty(&mut self, keys: Vec<Key>) -> Result<()> {
        let mut leaving = Vec::new();
        for key in keys {
            let Some(place) = self.dir_places.get(&key).filter(|_| self.dirs.contains_key(&key)).cloned() else {
                continue;
            };
            leaving.push((self.path(&place)?, key, place));
        }
        leaving.sort_by(|a, b| b.cmp(a));
        for (_, key, place) in leaving {
            let removed = self.edits.get(&key).map_or(0, |edits| edits.values().filter(|edit| edit.is_none()).count());
            let is_empty = self.our_names(key).count() <= removed as u64;
            let we_moved = self.ours.nodes.get(&key).is_some_and(NodeChange::is_moved);
            if is_empty && !we_moved && !self.kept_dirs.contains(&key) {
                self.set(&place, None);
                self.edits.remove(&key);
                self.dirs.remove(&key);
            }
        }
        Ok(())
    }

    /// Makes sure that a directory of theirs is in the result.
    pub(super) fn ensure_dir(&mut self, key: Key, theirs: &Changes) -> Result<()> {
        let mut missing: Vec<(Key, Place, Option<Entry>)> = Vec::new();
        let mut at = self.dir(key);
        while at != self.root && !self.dirs.contains_key(&at) {
            let node = theirs.nodes.get(&at);
            let place = node.and_then(|node| node.came.first().or(node.at.as_ref()));
            let (Some(node), Some(place)) = (node, place) else { return Err(lost(at)) };
            if missing.iter().any(|(key, ..)| *key == at) {
                return Err(lost(at));
            }
            missing.push((at, place.clone(), node.after.clone()));
            at = self.dir(place.0);
        }
        while let Some((key, place, entry)) = missing.pop() {
            let entry = entry.ok_or_else(|| lost(key))?;
            self.new_dirs.insert(key);
            let ino = self.ino_for(key, entry.ino);
            self.dirs.insert(key, Entry { ino, ..entry });
            self.settle(key, &place)?;
        }
        Ok(())
    }

    /// Gives a directory its name, or another where that is taken. A new one joins a directory of that name.
    fn settle(&mut self, key: Key, place: &Place) -> Result<()> {
        let Some(entry) = self.dirs.get(&key).cloned() else { return Err(lost(key)) };
        let mut place = (self.dir(place.0), place.1.clone());
        if !self.is_free(&place)? {
            let is_new = self.new_dirs.contains(&key);
            match self.occupant(&place)? {
                Some(there) if there.is_dir() && is_new && !self.reserved.contains(&place) => {
                    let there_key = Key::of(&there);
                    self.dir_places.entry(there_key).or_insert(place);
                    self.dirs.entry(there_key).or_insert(there);
                    self.dirs.remove(&key);
                    self.new_dirs.remove(&key);
                    self.same_dirs.insert(key, there_key);
                    return Ok(());
                }
                _ => {
                    let beside = self.name_beside(&place, self.with.theirs.time, &entry)?;
                    self.conflict(&place, Clash::Added, Some(beside.clone()));
                    place = beside;
                }
            }
        }
        self.dir_places.insert(key, place.clone());
        self.edits.entry(key).or_default();
        self.set(&place, Some(entry));
        Ok(())
    }
}

fn lost(dir: Key) -> VersionError {
    VersionError::damaged("a merge", format!("directory {} is in no tree", dir.id))
}
