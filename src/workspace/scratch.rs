//! Files for work in progress, which have no name and so go with the process.

use std::sync::Arc;

use super::{Result, Workspace, WorkspaceError};
use crate::base::disk::{DiskFile, OpenMode, TEMPORARY_PREFIX};
use crate::base::random;

/// The directory, in the state directory.
const DIR: &str = "scratch";

impl Workspace {
    /// A file of `len` zeros on the local disk, only for what is sealed already: nothing seals it here. It has no name,
    /// so nothing is left of it when it is closed, or after a crash.
    pub fn scratch_file(&self, len: u64) -> Result<Arc<dyn DiskFile>> {
        let (disk, dir) = (&self.parts.options.disk, self.parts.dir.join(DIR));
        let failed = |error: std::io::Error| WorkspaceError::disk(&dir, &error);
        disk.create_dir_all(&dir).map_err(failed)?;
        // A crash may have come between the making of a file and the removal of its name.
        for left in disk.list(&dir).map_err(failed)? {
            disk.remove(&dir.join(left.name)).ok();
        }
        let path = dir.join(format!("{TEMPORARY_PREFIX}{:016x}", random::number()));
        let file = disk.open(&path, OpenMode::CreateNew).map_err(failed)?;
        disk.remove(&path).map_err(failed)?;
        file.set_len(len).map_err(failed)?;
        Ok(file)
    }
}
