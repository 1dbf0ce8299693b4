//! Directories: moved, made and removed ones.

use std::collections::HashSet;

use super::attrs::join_attributes;
use super::places::Merger;
use super::{Changes, Clash, Key, NodeChange, Place, Policy};
use crate::version::entry::Entry;
use crate::version::{Result, VersionError};

impl Merger<'_> {
    /// Does to our directories what theirs did to them.
    pub(super) fn decide_directories(&mut self, theirs: &Changes) -> Result<()> {
        let dirs = || theirs.nodes.iter().filter(|(key, _)| key.is_dir);
        let mut stay = HashSet::new();
        for (key, _) in dirs().filter(|(_, node)| node.is_moved()) {
            let place = self.dir_places.get(key).cloned();
            if let (Some(place), true) = (place, self.ours.nodes.get(key).is_some_and(NodeChange::is_moved))
                && !matches!((self.with.policy)(&self.path(&place)?), Policy::Theirs | Policy::Yield)
            {
                stay.insert(*key);
            }
        }
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
                moved.extend(self.move_away(*key, node, &stay, theirs)?.map(|(here, wanted)| (*key, here, wanted)));
            }
        }
        let moved = self.stop_rings(moved);
        let leaving = dirs().filter(|(_, node)| node.after.is_none()).map(|(key, _)| *key);
        self.remove_empty(leaving.collect())?;
        for (key, place) in moved {
            self.ensure_dir(place.0, theirs)?;
            self.settle(key, &place)?;
        }
        for (key, _) in dirs().filter(|(_, node)| node.before.is_none() && node.after.is_some()) {
            self.ensure_dir(*key, theirs)?;
        }
        Ok(())
    }

    /// Takes a directory that theirs moved from its place, unless we moved it, too, and ours shall stay; says where it
    /// was and where it goes.
    fn move_away(
        &mut self,
        key: Key,
        node: &NodeChange,
        stay: &HashSet<Key>,
        theirs: &Changes,
    ) -> Result<Option<(Place, Place)>> {
        let (Some(wanted), Some(here)) = (node.came.first(), self.dir_places.get(&key).cloned()) else {
            return Ok(None);
        };
        if here == *wanted {
            return Ok(None);
        }
        if stay.contains(&key) {
            self.conflict(&here, Clash::Moved, None);
            return Ok(None);
        }
        self.learn_places(wanted.0, theirs)?;
        self.set(&here, None);
        self.dir_places.insert(key, wanted.clone());
        Ok(Some((here, wanted.clone())))
    }

    /// Directories that would come to lie in themselves, because we moved others, stay where they are.
    fn stop_rings(&mut self, moved: Vec<(Key, Place, Place)>) -> Vec<(Key, Place)> {
        let mut going = Vec::new();
        for (key, here, wanted) in moved {
            match self.dirs.get(&key).filter(|_| self.is_in_itself(key)).cloned() {
                Some(entry) => {
                    self.set(&here, Some(entry));
                    self.conflict(&here, Clash::Moved, None);
                    self.dir_places.insert(key, here);
                }
                None => going.push((key, wanted)),
            }
        }
        going
    }

    fn is_in_itself(&self, key: Key) -> bool {
        let (mut at, mut seen) = (key, HashSet::new());
        while let Some((dir, _)) = self.dir_places.get(&at).filter(|_| seen.insert(at)) {
            at = self.dir(*dir);
            if at == key {
                return true;
            }
        }
        false
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
        let mut missing: Vec<(Key, Place, Entry)> = Vec::new();
        let mut at = self.dir(key);
        while at != self.root && !self.dirs.contains_key(&at) {
            let (place, entry) = self.lost_dir(at, theirs).ok_or_else(|| lost(at))?;
            if missing.iter().any(|(key, ..)| *key == at) {
                return Err(lost(at));
            }
            at = self.dir(place.0);
            missing.push((Key::of(&entry), place, entry));
        }
        while let Some((key, place, entry)) = missing.pop() {
            self.new_dirs.insert(key);
            let ino = self.ino_for(key, entry.ino);
            self.dirs.insert(key, Entry { ino, ..entry });
            self.settle(key, &place)?;
        }
        Ok(())
    }

    /// Learns where the directories are, up from one of theirs, that our tree does not have.
    fn learn_places(&mut self, key: Key, theirs: &Changes) -> Result<()> {
        let mut at = self.dir(key);
        for _ in 0..=theirs.nodes.len() {
            if at == self.root || self.dirs.contains_key(&at) {
                return Ok(());
            }
            let (place, _) = self.lost_dir(at, theirs).ok_or_else(|| lost(at))?;
            self.dir_places.entry(at).or_insert_with(|| place.clone());
            at = self.dir(place.0);
        }
        Err(lost(key))
    }

    /// A directory that our tree does not have, as theirs has it: changed, or as in the ancestor.
    fn lost_dir(&self, key: Key, theirs: &Changes) -> Option<(Place, Entry)> {
        let (place, entry) = match theirs.nodes.get(&key) {
            Some(node) => (node.came.first().or(node.at.as_ref()), &node.after),
            None => {
                let node = self.ours.nodes.get(&key)?;
                (node.gone.first().or(node.at.as_ref()), &node.before)
            }
        };
        Some((place?.clone(), entry.clone()?))
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
