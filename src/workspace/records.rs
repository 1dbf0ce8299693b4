//! Small sealed records in the state directory, for what belongs to this machine and must not go back with the tree.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Result, Workspace, WorkspaceError};
use crate::base::disk::{Disk, TEMPORARY_PREFIX, read_file, replace_file};
use crate::crypto::{Keys, Kind};
use crate::version::VersionError;

/// The records of one area, each a file of its own.
#[derive(Clone)]
pub struct Records {
    disk: Arc<dyn Disk>,
    keys: Keys,
    area: &'static str,
    dir: PathBuf,
}

impl Workspace {
    /// The records of `area`, a directory of that name in the state directory.
    pub fn records(&self, area: &'static str) -> Records {
        let Self { parts, .. } = self;
        let (disk, keys) = (parts.options.disk.clone(), parts.keys.clone());
        Records { disk, keys, area, dir: parts.dir.join(area) }
    }
}

impl Records {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn identity(&self, name: &str) -> Vec<u8> {
        format!("{}/{name}", self.area).into_bytes()
    }

    /// All names; none when nothing was ever written.
    pub fn names(&self) -> Result<Vec<String>> {
        let items = match self.disk.list(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            items => items.map_err(|error| WorkspaceError::disk(&self.dir, &error))?,
        };
        let mut names: Vec<String> = items.into_iter().filter(|item| !item.is_dir).map(|item| item.name).collect();
        names.retain(|name| !name.starts_with(TEMPORARY_PREFIX));
        names.sort();
        Ok(names)
    }

    /// A record of at most `len_max` bytes; `None` when there is none of that name.
    pub fn read(&self, name: &str, len_max: usize) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        let sealed = match read_file(&*self.disk, &path, len_max.saturating_add(SEAL_LEN_MAX)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            sealed => sealed.map_err(|error| WorkspaceError::disk(&path, &error))?,
        };
        let opened = self.keys.open(Kind::Local, &self.identity(name), &sealed);
        let object = path.display().to_string();
        Ok(Some(opened.map_err(|source| VersionError::Unopened { object, source })?))
    }

    /// Writes a record durably; after a crash it is whole or as before.
    pub fn write(&self, name: &str, plain: &[u8]) -> Result<()> {
        let path = self.path(name);
        let sealed = self.keys.seal(Kind::Local, &self.identity(name), plain);
        let made = self.disk.create_dir_all(&self.dir);
        made.and_then(|()| replace_file(&*self.disk, &path, sealed.as_bytes()))
            .map_err(|error| WorkspaceError::disk(&path, &error))
    }

    /// Removes a record that may not be there.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(WorkspaceError::disk(&path, &error)),
            _ => Ok(()),
        }
    }
}

/// An envelope is longer than what is in it, by less than this.
const SEAL_LEN_MAX: usize = 256;
