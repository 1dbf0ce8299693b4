//! The state of a simulated disk, and the changes to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

/// Unit in which holes are known, in bytes.
pub(super) const BLOCK_LEN: u64 = 4096;
/// The node of `/`.
pub(super) const ROOT: u64 = 0;

#[derive(Clone, Debug)]
pub(super) enum Change {
    /// `name` in `dir` now means `node`.
    Link {
        dir: u64,
        name: String,
        node: u64,
    },
    /// `name` in `dir` no longer means `node`.
    Unlink {
        dir: u64,
        name: String,
        node: u64,
    },
    Rename {
        from: (u64, String),
        to: (u64, String),
        node: u64,
    },
    Write {
        node: u64,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLen {
        node: u64,
        len: u64,
    },
    Sync {
        node: u64,
    },
    SyncDir {
        dir: u64,
    },
    /// Directories and their names, durable at once.
    MakeDirs {
        made: Vec<(u64, String, u64)>,
    },
}

#[derive(Clone, Default)]
pub(super) struct Image {
    pub(super) files: BTreeMap<u64, Content>,
    pub(super) dirs: BTreeMap<u64, BTreeMap<String, u64>>,
}

#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// Blocks that are no holes.
    pub(super) blocks: BTreeSet<u64>,
}

impl Change {
    /// The file whose content it changes.
    pub(super) fn content_of(&self) -> Option<u64> {
        match self {
            Change::Write { node, .. } | Change::SetLen { node, .. } => Some(*node),
            _ => None,
        }
    }

    /// The directory whose sync makes it durable; for a rename, the one that gets the name.
    pub(super) fn names_in(&self) -> Option<u64> {
        match self {
            Change::Link { dir, .. } | Change::Unlink { dir, .. } | Change::Rename { to: (dir, _), .. } => Some(*dir),
            _ => None,
        }
    }
}

impl Image {
    pub(super) fn with_root() -> Self {
        Self { files: BTreeMap::new(), dirs: BTreeMap::from([(ROOT, BTreeMap::new())]) }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Link { dir, name, node } => self.link(*dir, name, *node),
            Change::Unlink { dir, name, node } => self.unlink(*dir, name, *node),
            Change::Rename { from, to, node } => {
                self.unlink(from.0, &from.1, *node);
                self.link(to.0, &to.1, *node);
            }
            Change::Write { node, offset, bytes } => self.files.entry(*node).or_default().write(*offset, bytes),
            Change::SetLen { node, len } => self.files.entry(*node).or_default().set_len(*len),
            Change::MakeDirs { made } => {
                for (dir, name, node) in made {
                    self.dirs.entry(*node).or_default();
                    self.link(*dir, name, *node);
                }
            }
            Change::Sync { .. } | Change::SyncDir { .. } => {}
        }
    }

    pub(super) fn link(&mut self, dir: u64, name: &str, node: u64) {
        if !self.dirs.contains_key(&node) {
            self.files.entry(node).or_default();
        }
        self.dirs.entry(dir).or_default().insert(name.to_owned(), node);
    }

    pub(super) fn unlink(&mut self, dir: u64, name: &str, node: u64) {
        if let Some(names) = self.dirs.get_mut(&dir)
            && names.get(name) == Some(&node)
        {
            names.remove(name);
        }
    }

    /// The node of a path.
    pub(super) fn find(&self, path: &Path) -> io::Result<u64> {
        let mut node = ROOT;
        for name in names(path)? {
            let dir = self.dirs.get(&node).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTDIR))?;
            node = *dir.get(name).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        }
        Ok(node)
    }

    /// The directory that holds, or will hold, the last name of a path; and that name.
    pub(super) fn find_parent<'a>(&self, path: &'a Path) -> io::Result<(u64, &'a str)> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let name = names(path)?.pop().ok_or_else(invalid)?;
        let dir = self.find(path.parent().ok_or_else(invalid)?)?;
        if !self.dirs.contains_key(&dir) {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        }
        Ok((dir, name))
    }

    pub(super) fn child(&self, dir: u64, name: &str) -> Option<u64> {
        self.dirs.get(&dir)?.get(name).copied()
    }

    /// The file of a path, its directory and name.
    pub(super) fn find_file<'a>(&self, path: &'a Path) -> io::Result<(u64, &'a str, u64)> {
        let (dir, name) = self.find_parent(path)?;
        let node = self.child(dir, name).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        if self.dirs.contains_key(&node) {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
        Ok((dir, name, node))
    }
}

impl Content {
    /// Whether a range lies within the file and holds no hole.
    pub(super) fn is_written(&self, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len);
        let file_len = self.bytes.len() as u64;
        offset < file_len
            && end <= file_len
            && (offset / BLOCK_LEN..end.div_ceil(BLOCK_LEN)).all(|block| self.blocks.contains(&block))
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(bytes.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        self.blocks.extend(offset / BLOCK_LEN..=(end as u64 - 1) / BLOCK_LEN);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.bytes.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        self.blocks.split_off(&len.div_ceil(BLOCK_LEN));
    }
}

/// The names of an absolute path.
pub(super) fn names(path: &Path) -> io::Result<Vec<&str>> {
    let invalid =
        || io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not absolute and plain", path.display()));
    let mut components = path.components();
    if components.next() != Some(Component::RootDir) {
        return Err(invalid());
    }
    components
        .map(|component| match component {
            Component::Normal(name) => name.to_str().ok_or_else(invalid),
            _ => Err(invalid()),
        })
        .collect()
}
