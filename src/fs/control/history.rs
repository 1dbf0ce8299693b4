//! `.kura/history/PATH/`: every version of one file, also of a deleted one; and folders as versions have them.

use std::sync::Arc;

use super::names::time_name;
use super::nodes::{Key, Way};
use super::outside::Outside;
use super::past::Past;
use crate::fs::Result;
use crate::version::diff::ChangeKind;
use crate::version::entry::{Body, Entry, Ino};
use crate::version::index::IndexRecord;
use crate::workspace::{Step, split_path};
use crate::worktree::WorkError;

/// Versions of one file that are listed; the newest.
const STEPS_MAX: usize = 10_000;

/// What a path is, or was last.
enum Found {
    /// A directory, with these names.
    Directory(Vec<Vec<u8>>),
    /// Anything else.
    File,
}

fn joined(base: &[u8], path: &[u8]) -> Vec<u8> {
    [base, path].into_iter().filter(|part| !part.is_empty()).collect::<Vec<&[u8]>>().join(&b'/')
}

impl Outside {
    /// The path of a folder of the live tree.
    pub(super) fn base(&self, folder: Ino) -> Result<Vec<u8>> {
        Ok(self.workspace.tree().path_of(folder)?)
    }

    /// A folder as a version has it.
    pub(super) fn folder_at(&self, record: Arc<IndexRecord>, folder: Ino, parent: Ino) -> Result<Past> {
        let base = self.base(folder)?;
        let entry = self.workspace.find(&record, &split_path(&base))?.ok_or(WorkError::NotFound)?;
        Ok(Past::of(record, entry, parent))
    }

    /// The first change of a path that leaves something there.
    fn last_entry(&self, path: &[u8]) -> Result<Option<Entry>> {
        let mut found = None;
        self.workspace.trace(path, &mut |step| {
            found = step.entry;
            found.is_none()
        })?;
        Ok(found)
    }

    fn found(&self, path: &[u8]) -> Result<Option<Found>> {
        let entry = match path {
            b"" => Some(self.workspace.tree().base().index.root.dir),
            path => self.last_entry(path)?,
        };
        let Some(entry) = entry else { return Ok(None) };
        let Body::Directory { names: tree, .. } = &entry.body else { return Ok(Some(Found::File)) };
        let mut names = Vec::new();
        tree.scan(&*self.workspace.pages(), std::ops::Bound::Unbounded, &mut |name, _| {
            names.push(name.to_vec());
            true
        })?;
        Ok(Some(Found::Directory(names)))
    }

    /// Every version of a file that differs from the one before, by its time.
    fn steps(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, Step)>> {
        let mut steps = Vec::new();
        self.workspace.trace(path, &mut |step| {
            if step.entry.is_some() && !matches!(step.kind, None | Some(ChangeKind::Metadata)) {
                steps.push((time_name(step.record.time).into_bytes(), step));
            }
            steps.len() < STEPS_MAX
        })?;
        steps.reverse();
        Ok(steps)
    }

    /// The names in the history of a path below a folder.
    pub(super) fn history_names(&self, folder: Ino, path: &[u8]) -> Result<Vec<(Vec<u8>, Key)>> {
        let full = joined(&self.base(folder)?, path);
        Ok(match self.found(&full)?.ok_or(WorkError::NotFound)? {
            Found::Directory(names) => {
                let below = |name: Vec<u8>| {
                    let key = Key::History(folder, joined(path, &name).into());
                    (name, key)
                };
                names.into_iter().map(below).collect()
            }
            Found::File => self.steps(&full)?.into_iter().map(|(name, step)| (name, past_key(&step))).collect(),
        })
    }

    /// What a name in the history of a path stands for.
    pub(super) fn history_name(&self, folder: Ino, path: &[u8], name: &[u8]) -> Result<Option<(Key, Option<Past>)>> {
        let base = self.base(folder)?;
        let full = joined(&base, path);
        if !full.is_empty() && matches!(self.found(&full)?, Some(Found::File)) {
            let step = self.steps(&full)?.into_iter().find(|(known, _)| known == name);
            return Ok(step.map(|(_, step)| {
                let key = past_key(&step);
                let past = step.entry.map(|entry| Past::of(step.record, entry, Ino::ROOT));
                (key, past)
            }));
        }
        let below = joined(path, name);
        let known = self.last_entry(&joined(&base, &below))?.is_some();
        Ok(known.then(|| (Key::History(folder, below.into()), None)))
    }
}

fn past_key(step: &Step) -> Key {
    let ino = step.entry.as_ref().map_or(Ino::ROOT, |entry| entry.ino);
    Key::Past(Way { folder: Ino::ROOT, tag: None }, step.record.id, ino)
}
