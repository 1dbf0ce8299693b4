//! Where inodes are in the result: names that are free, directories that have to be there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::changes::names_of;
use super::{Changes, Clash, Inputs, Key, Name, NodeChange, Place};
use crate::base::clock::Timestamp;
use crate::base::ids::FileId;
use crate::base::limits::NAME_LEN_MAX;
use crate::version::entry::{Body, Entry, Ino, LinkRecord};
use crate::version::index::sha256;
use crate::version::tree::{Edits, TreeRef};
use crate::version::{Result, VersionError};

/// Where policies put what lost by being older.
pub const BACKUP_DIR: &[u8] = b"backup";

/// Directories are not nested deeper, or their parents form a ring.
const DEPTH_MAX: usize = 100_000;

/// A merge under way: our tree, and what is to be done to it.
pub(super) struct Merger<'a> {
    pub(super) with: &'a Inputs<'a>,
    pub(super) ours: Changes,
    pub(super) root: Key,
    /// Directories whose place is not (or not only) known from our changes.
    pub(super) dir_places: HashMap<Key, Place>,
    /// Directories as the result has them, names aside.
    pub(super) dirs: HashMap<Key, Entry>,
    /// Directories of theirs that are one with a directory of ours.
    pub(super) same_dirs: HashMap<Key, Key>,
    /// New values of names.
    pub(super) edits: HashMap<Key, BTreeMap<Name, Option<Entry>>>,
    pub(super) links: Edits,
    pub(super) conflicts: Vec<(Place, Clash, Option<Place>)>,
    /// Directories that stay though they are empty, and names in them that are taken.
    pub(super) kept_dirs: HashSet<Key>,
    pub(super) reserved: HashSet<Place>,
    /// Numbers of inodes in our tree that did not have them in the ancestor's.
    pub(super) our_inos: HashMap<Ino, Key>,
    /// Numbers of inodes that theirs changed.
    their_inos: HashSet<Ino>,
    /// Directories that our tree does not have.
    pub(super) new_dirs: BTreeSet<Key>,
}

impl<'a> Merger<'a> {
    pub(super) fn new(with: &'a Inputs<'a>, ours: Changes, theirs: &Changes) -> Result<Self> {
        let root = Key::of(&with.ours.root.dir);
        let our_inos = ours
            .nodes
            .iter()
            .filter_map(|(key, node)| Some((node.after.as_ref()?.ino, *key)))
            .collect::<HashMap<_, _>>();
        let pinned = theirs.nodes.iter().filter_map(|(key, node)| Some((node.before.as_ref()?.ino, *key)));
        let is_ours = |(ino, key): &(Ino, Key)| with.pins.drafts.contains(ino) && !ours.nodes.contains_key(key);
        let our_inos = our_inos.into_iter().chain(pinned.filter(is_ours)).collect();
        let mut merger = Self {
            with,
            ours,
            root,
            dir_places: HashMap::new(),
            dirs: HashMap::from([(root, with.ours.root.dir.clone())]),
            same_dirs: HashMap::new(),
            edits: HashMap::new(),
            links: Edits::new(),
            conflicts: Vec::new(),
            kept_dirs: HashSet::new(),
            reserved: HashSet::new(),
            our_inos,
            their_inos: theirs.nodes.values().filter_map(|node| Some(node.after.as_ref()?.ino)).collect(),
            new_dirs: BTreeSet::new(),
        };
        for (key, node) in theirs.nodes.iter().filter(|(key, _)| key.is_dir) {
            if !merger.ours.nodes.contains_key(key)
                && let (Some(before), Some(place)) = (&node.before, node.gone.first().or(node.at.as_ref()))
            {
                merger.dir_places.insert(*key, place.clone());
                merger.dirs.insert(*key, before.clone());
            }
        }
        for (key, node) in merger.ours.nodes.iter().filter(|(key, _)| key.is_dir) {
            if let (Some(after), Some(place)) = (&node.after, node.came.first().or(node.at.as_ref())) {
                merger.dir_places.insert(*key, place.clone());
                merger.dirs.insert(*key, after.clone());
            }
        }
        merger.pin()?;
        Ok(merger)
    }

    /// Keeps what is being written: directories on the way stay, names are taken.
    fn pin(&mut self) -> Result<()> {
        for path in &self.with.pins.unpublished {
            let Some((name, dirs)) = path.split_last() else { continue };
            let Some(dir) = self.learn_dirs(dirs)? else { continue };
            self.kept_dirs.insert(dir);
            self.reserved.insert((dir, name.as_slice().into()));
        }
        Ok(())
    }

    /// The directory of ours at a path; it and those above it are known from now on.
    pub(super) fn learn_dirs(&mut self, path: &[Vec<u8>]) -> Result<Option<Key>> {
        let (mut at, mut entry) = (self.root, self.with.ours.root.dir.clone());
        for name in path {
            let Some(value) = names_of(Some(&entry)).get(self.with.io, name)? else { return Ok(None) };
            entry = Entry::decode(&value)?;
            if !entry.is_dir() {
                return Ok(None);
            }
            let key = Key::of(&entry);
            self.dir_places.entry(key).or_insert_with(|| (at, name.as_slice().into()));
            self.dirs.entry(key).or_insert_with(|| entry.clone());
            at = key;
        }
        Ok(Some(at))
    }

    /// The directory that stands for one of theirs.
    pub(super) fn dir(&self, key: Key) -> Key {
        self.same_dirs.get(&key).copied().unwrap_or(key)
    }

    /// The path of a place in the result.
    pub(super) fn path(&self, place: &Place) -> Result<Vec<u8>> {
        let mut names = vec![place.1.clone()];
        let mut at = self.dir(place.0);
        while at != self.root {
            let (dir, name) = self.dir_places.get(&at).ok_or_else(|| unknown(at))?;
            names.push(name.clone());
            at = self.dir(*dir);
            if names.len() > DEPTH_MAX {
                return Err(VersionError::damaged("a merge", "directories contain each other"));
            }
        }
        names.reverse();
        Ok(names.join(&b'/'))
    }

    /// The names that a directory of the result has in our tree.
    pub(super) fn our_names(&self, dir: Key) -> TreeRef {
        match self.new_dirs.contains(&dir) {
            true => TreeRef::default(),
            false => names_of(self.dirs.get(&dir)),
        }
    }

    /// What has a name in the result so far, links not resolved.
    pub(super) fn occupant(&self, place: &Place) -> Result<Option<Entry>> {
        let (dir, name) = (self.dir(place.0), &place.1);
        if let Some(edited) = self.edits.get(&dir).and_then(|edits| edits.get(name)) {
            return Ok(edited.clone());
        }
        match self.our_names(dir).get(self.with.io, name)? {
            Some(value) => Entry::decode(&value).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn is_free(&self, place: &Place) -> Result<bool> {
        let here = (self.dir(place.0), place.1.clone());
        Ok(!self.reserved.contains(&here) && self.occupant(&here)?.is_none())
    }

    /// The inode behind an entry of our tree or of the result.
    pub(super) fn resolve(&self, entry: Entry) -> Result<Entry> {
        if !matches!(entry.body, Body::Link) {
            return Ok(entry);
        }
        match self.links.get(&LinkRecord::key(entry.ino)) {
            Some(Some(record)) => Ok(LinkRecord::decode(record)?.inode),
            _ => self.with.ours.root.resolve(self.with.io, entry),
        }
    }

    pub(super) fn set(&mut self, place: &Place, entry: Option<Entry>) {
        let dir = self.dir(place.0);
        self.edits.entry(dir).or_default().insert(place.1.clone(), entry);
    }

    pub(super) fn conflict(&mut self, place: &Place, clash: Clash, beside: Option<Place>) {
        self.conflicts.push((place.clone(), clash, beside));
    }

    /// A free name `conflict-YYYYMMDD.HHmmss.NAME` beside a place, or one that already has just this content.
    pub(super) fn name_beside(&self, place: &Place, time: Timestamp, wanted: &Entry) -> Result<Place> {
        for number in 0_u32.. {
            let name = conflict_name(time, &place.1, number);
            let candidate = (self.dir(place.0), Name::from(name));
            if self.is_free(&candidate)? || self.holds(&candidate, wanted)? {
                return Ok(candidate);
            }
        }
        Ok(place.clone())
    }

    /// Whether a name stands for a file with the content of `wanted`.
    pub(super) fn holds(&self, place: &Place, wanted: &Entry) -> Result<bool> {
        let Some(there) = self.occupant(place)? else { return Ok(false) };
        let there = self.resolve(there)?;
        Ok(!there.is_dir() && super::attrs::same_state(&there, wanted))
    }

    /// An inode of its own with the state of another.
    pub(super) fn copy_of(&self, entry: &Entry) -> Entry {
        let fresh = Entry { ino: self.fresh_ino(), ..entry.clone() };
        Entry { file_id: derived_id(&fresh.encode()), ..fresh }
    }

    /// Puts a copy of what lost beside a place.
    pub(super) fn put_beside(&mut self, place: &Place, time: Timestamp, loser: &Entry) -> Result<Place> {
        let beside = self.name_beside(place, time, loser)?;
        if self.is_free(&beside)? {
            let copy = self.copy_of(loser);
            self.set(&beside, Some(copy));
        }
        Ok(beside)
    }

    /// Puts a copy of what lost into `backup/`, under its path; beside the place when `backup` is no directory.
    pub(super) fn put_backup(&mut self, place: &Place, time: Timestamp, loser: &Entry) -> Result<Place> {
        let path = self.path(place)?;
        let mut at = self.root;
        let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let Some(name) = names.pop() else { return self.put_beside(place, time, loser) };
        for dir_name in [BACKUP_DIR].into_iter().chain(names) {
            let here = (at, Name::from(dir_name));
            match self.occupant(&here)? {
                Some(entry) if entry.is_dir() => {
                    at = Key::of(&entry);
                    self.dir_places.entry(at).or_insert(here);
                    self.dirs.entry(at).or_insert(entry);
                }
                None if self.is_free(&here)? => at = self.make_dir(here, loser),
                _ => return self.put_beside(place, time, loser),
            }
        }
        for number in 0_u32.. {
            let candidate = (at, Name::from(backup_name(time, name, number)));
            if self.is_free(&candidate)? {
                let copy = self.copy_of(loser);
                self.set(&candidate, Some(copy));
                return Ok(candidate);
            }
            if self.holds(&candidate, loser)? {
                return Ok(candidate);
            }
        }
        Ok(place.clone())
    }

    /// A new directory, owned as what is put into it.
    fn make_dir(&mut self, place: Place, like: &Entry) -> Key {
        let body = Body::Directory { names: TreeRef::default(), subdirs: 0 };
        let entry = self.copy_of(&Entry { body, mode: 0o755, xattrs: Default::default(), ..like.clone() });
        let key = Key::of(&entry);
        self.set(&place, Some(entry.clone()));
        self.new_dirs.insert(key);
        self.dir_places.insert(key, place);
        self.dirs.insert(key, entry);
        key
    }

    /// Our state of an inode that theirs changed.
    pub(super) fn our_entry(&self, key: Key, theirs: &NodeChange) -> Option<Entry> {
        match self.ours.nodes.get(&key) {
            Some(node) => node.after.clone(),
            None => theirs.before.clone(),
        }
    }

    /// A number for a new inode, which theirs have not given out: a client whose state comes from a backup gives out
    /// its numbers a second time.
    fn fresh_ino(&self) -> Ino {
        loop {
            let ino = (self.with.next_ino)();
            if !self.their_inos.contains(&ino) {
                return ino;
            }
        }
    }

    /// The number that an inode of theirs gets: its own, unless our tree has given that to another.
    pub(super) fn ino_for(&self, key: Key, wanted: Ino) -> Ino {
        match self.our_inos.get(&wanted) {
            Some(other) if *other != key => self.fresh_ino(),
            _ => wanted,
        }
    }
}

/// An identity that follows from what it is for.
fn derived_id(seed: &[u8]) -> FileId {
    let mut id = [0; 16];
    id.copy_from_slice(&sha256(seed).0[..16]);
    FileId(id)
}

fn unknown(dir: Key) -> VersionError {
    VersionError::damaged("a merge", format!("the place of directory {} is not known", dir.id))
}

/// A moment as it stands in names: UTC, to the second.
fn stamp(time: Timestamp) -> String {
    let (seconds, _) = time.parts();
    jiff::Timestamp::from_second(seconds).unwrap_or_default().strftime("%Y%m%d.%H%M%S").to_string()
}

/// `head`, as much of `name` as fits, `tail`.
fn fit(head: &str, name: &[u8], tail: &str) -> Vec<u8> {
    let room = NAME_LEN_MAX.saturating_sub(head.len() + tail.len());
    let mut end = name.len().min(room);
    // No character is cut in two.
    while end > 0 && end < name.len() && name[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    [head.as_bytes(), &name[..end], tail.as_bytes()].concat()
}

fn tail(number: u32) -> String {
    if number == 0 { String::new() } else { format!("-{number}") }
}

/// `conflict-YYYYMMDD.HHmmss.NAME`, with `-n` from the second on; shortened where it would be too long.
pub fn conflict_name(time: Timestamp, name: &[u8], number: u32) -> Vec<u8> {
    fit(&format!("conflict-{}.", stamp(time)), name, &tail(number))
}

/// `NAME.YYYYMMDD.HHmmss`, with `-n` from the second on; shortened where it would be too long.
pub fn backup_name(time: Timestamp, name: &[u8], number: u32) -> Vec<u8> {
    fit("", name, &format!(".{}{}", stamp(time), tail(number)))
}
