//! What waits to be published, file by file.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::opened::Workspace;
use super::{Result, Side, split_path};
use crate::version::diff::Change;
use crate::version::entry::{Body, Entry};

/// A file that the store does not have as it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingFile {
    /// From the root, joined by `/`.
    pub path: Arc<[u8]>,
    /// Its length in bytes.
    pub bytes: u64,
    /// `draft` while it is written, `unrecorded` until the next version, `queued` until that is published, or
    /// `removed`.
    pub state: &'static str,
}

fn size(entry: Option<&Entry>) -> u64 {
    match entry.map(|entry| &entry.body) {
        Some(Body::File(file)) => file.size,
        _ => 0,
    }
}

impl Workspace {
    /// Whether what the newest version has at a path is in the version that HEAD was last seen to name. Without a path
    /// (of several names, none is known), whether all of the newest version is.
    pub fn is_in_store(&self, path: Option<&[u8]>) -> Result<bool> {
        let newest = self.tree().base().index;
        let Some(seen) = self.parts.memory.get().seen else { return Ok(false) };
        if seen.version == newest.id {
            return Ok(true);
        }
        let Some(names) = path.map(split_path) else { return Ok(false) };
        let found = self.find(&newest, &names)?;
        Ok(found.is_some() && found == self.find(&*self.version(seen.version)?, &names)?)
    }

    /// The files that wait, by path, at most `max`. Those in versions are found by comparing the newest version with
    /// the one that is published.
    pub fn unpublished_files(&self, max: usize) -> Result<Vec<WaitingFile>> {
        let mut found: BTreeMap<Arc<[u8]>, WaitingFile> = BTreeMap::new();
        let newest = self.tree().base().index.id;
        if let Some(seen) = self.parts.memory.get().seen.filter(|seen| seen.version != newest) {
            let changes = self.diff(Side::Version(seen.version), Side::Version(newest), b"")?;
            let counts = |change: &Change| {
                let side = change.after.as_ref().or(change.before.as_ref());
                change.kind().is_some() && side.is_some_and(|entry| !entry.is_dir())
            };
            for Change { path, after, .. } in changes.into_iter().filter(counts).take(max) {
                let state = if after.is_some() { "queued" } else { "removed" };
                let bytes = size(after.as_ref());
                found.insert(path.clone(), WaitingFile { path, bytes, state });
            }
        }
        for (path, bytes, is_draft) in self.tree().unrecorded_files(max) {
            let (path, state) = (Arc::<[u8]>::from(path), if is_draft { "draft" } else { "unrecorded" });
            found.insert(path.clone(), WaitingFile { path, bytes, state });
        }
        Ok(found.into_values().take(max).collect())
    }
}
