//! Words for an inode.

use super::live::{Wait, Worktree};
use super::{Result, WorkError};
use crate::version::entry::Ino;

/// Names of a path in a message, at most.
const NAMES_MAX: usize = 100;

impl Worktree {
    /// The path of an inode from the root, names joined by `/`; of one with several names there is none.
    pub fn path_of(&self, ino: Ino) -> Result<Vec<u8>> {
        let (mut at, mut names) = (ino, Vec::new());
        while at != Ino::ROOT {
            let home = self.run(Wait::Yes, |table| {
                let inode = table.get(at)?;
                Ok(inode.home.clone().filter(|_| inode.nlink > 0))
            })?;
            let (parent, name) = home.ok_or(WorkError::NotFound)?;
            names.push(name);
            at = parent;
        }
        names.reverse();
        Ok(names.iter().map(|name| &**name).collect::<Vec<&[u8]>>().join(&b'/'))
    }

    /// The path of an inode for a message; `…` stands for what is not in memory.
    pub fn describe(&self, ino: Ino) -> String {
        let table = self.table();
        let (mut at, mut path) = (ino, String::new());
        for _ in 0..NAMES_MAX {
            if at == Ino::ROOT {
                return if path.is_empty() { "/".to_owned() } else { path };
            }
            let Some((parent, name)) = table.find(at).and_then(|inode| inode.home.clone()) else { break };
            path = format!("/{}{path}", String::from_utf8_lossy(&name));
            at = parent;
        }
        format!("…{path}")
    }
}
