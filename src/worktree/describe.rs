//! Words for an inode.

use super::live::Worktree;
use crate::version::entry::Ino;

/// Names of a path in a message, at most.
const NAMES_MAX: usize = 100;

impl Worktree {
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
