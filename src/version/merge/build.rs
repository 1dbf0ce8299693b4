//! Writing the pages of the result, from the leaves up.

use std::collections::{BTreeMap, BTreeSet};

use super::attrs::join_attributes;
use super::places::Merger;
use super::{Changes, Conflict, Key, Merged, Name};
use crate::version::Result;
use crate::version::entry::{Body, Entry};
use crate::version::index::Root;
use crate::version::tree::{Edits, TreeRef};

impl Merger<'_> {
    /// Writes the result.
    pub(super) fn build(mut self, theirs: &Changes) -> Result<Merged> {
        let io = self.with.io;
        let mut conflicts = Vec::with_capacity(self.conflicts.len());
        for (place, clash, beside) in std::mem::take(&mut self.conflicts) {
            let beside = beside.map(|beside| self.path(&beside)).transpose()?;
            conflicts.push(Conflict { path: self.path(&place)?, clash, beside });
        }
        conflicts.sort_by(|a, b| (&a.path, &a.beside).cmp(&(&b.path, &b.beside)));
        let mut depths = self.touched_by_depth()?;
        let mut root_names = None;
        while let Some((_, dirs)) = depths.pop_last() {
            for dir in dirs {
                let edits = self.edits.remove(&dir).unwrap_or_default();
                let mut entry = self.dirs.get(&dir).cloned().unwrap_or_else(|| self.with.ours.root.dir.clone());
                let body = self.edit_names(dir, edits, &entry)?;
                if dir == self.root {
                    root_names = Some(body);
                    continue;
                }
                entry.body = body;
                if let Some(place) = self.dir_places.get(&dir).cloned() {
                    self.set(&place, Some(entry));
                }
            }
        }
        let (base, after) = &theirs.root;
        let ours = &self.with.ours.root.dir;
        let mut dir = join_attributes(Some(base), ours, after);
        dir.body = root_names.unwrap_or_else(|| ours.body.clone());
        let links = self.with.ours.root.links.edit(io, &self.links)?;
        let digests = self.digests()?;
        Ok(Merged { root: Root { dir, links, digests }, conflicts })
    }

    /// The table of digests: ours with what they changed, and we did not.
    fn digests(&self) -> Result<TreeRef> {
        let (io, ours) = (self.with.io, &self.with.ours.root.digests);
        let mut edits = Edits::new();
        self.with.base.digests.diff(&self.with.theirs.root.digests, io, &mut |key, before, after| {
            if ours.get(io, key)?.as_deref() == before {
                edits.insert(key.to_vec(), after.map(<[u8]>::to_vec));
            }
            Ok(())
        })?;
        ours.edit(io, &edits)
    }

    /// The directories to write, by how deep they lie: those with edits and all above them.
    fn touched_by_depth(&self) -> Result<BTreeMap<usize, BTreeSet<Key>>> {
        let mut depths: BTreeMap<usize, BTreeSet<Key>> = BTreeMap::new();
        for dir in self.edits.keys() {
            let mut chain = vec![*dir];
            let mut at = *dir;
            while at != self.root {
                // A directory that was removed with all that was in it.
                let Some((parent, _)) = self.dir_places.get(&at).filter(|_| self.dirs.contains_key(&at)) else { break };
                at = self.dir(*parent);
                chain.push(at);
            }
            if at == self.root {
                for (depth, dir) in chain.iter().rev().enumerate() {
                    depths.entry(depth).or_default().insert(*dir);
                }
            }
        }
        Ok(depths)
    }

    fn edit_names(&self, dir: Key, edits: BTreeMap<Name, Option<Entry>>, entry: &Entry) -> Result<Body> {
        let io = self.with.io;
        let (old, mut subdirs) = match (&entry.body, self.new_dirs.contains(&dir)) {
            (Body::Directory { names, subdirs }, false) => (*names, i64::from(*subdirs)),
            _ => (TreeRef::default(), 0),
        };
        let edits: Edits =
            edits.into_iter().map(|(name, entry)| (name.to_vec(), entry.map(|entry| entry.encode()))).collect();
        let names = old.edit(io, &edits)?;
        old.diff(&names, io, &mut |_, before, after| {
            let is_dir = |value: Option<&[u8]>| Ok(value.map(Entry::decode).transpose()?.is_some_and(|e| e.is_dir()));
            let was: Result<bool> = is_dir(before);
            let is: Result<bool> = is_dir(after);
            subdirs += i64::from(is?) - i64::from(was?);
            Ok(())
        })?;
        Ok(Body::Directory { names, subdirs: u32::try_from(subdirs.max(0)).unwrap_or(u32::MAX) })
    }
}
