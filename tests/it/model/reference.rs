//! What a tree must look like: plain maps, no journal, no layers.

use std::collections::BTreeMap;

use kura::worktree::{FileKind, RenameMode, XattrMode};

pub const ROOT: u64 = 1;

/// An error by the name of the tree's.
pub type Outcome<T = ()> = Result<T, &'static str>;

#[derive(Clone, Debug)]
pub struct Node {
    pub kind: FileKind,
    pub mode: u16,
    pub uid: u32,
    pub names: u32,
    /// As set explicitly and not overwritten by a change since.
    pub mtime: Option<i64>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Content of a file, target of a symbolic link.
    pub bytes: Vec<u8>,
    /// Content that versions may hold. More than one when a kill may bring back an earlier one; the
    /// last is that of the present process. `None` is a file that never was published.
    pub published: Vec<Option<Vec<u8>>>,
    /// A kill came while there was more than one: it is open which of them stands.
    pub open_which: bool,
    /// Whether a kill keeps the bytes as they are.
    pub safe: bool,
    pub writers: u32,
    pub opens: u32,
    pub children: BTreeMap<String, u64>,
}

pub struct Reference {
    pub nodes: BTreeMap<u64, Node>,
}

impl Node {
    fn new(kind: FileKind, mode: u16) -> Self {
        Self {
            kind,
            mode,
            uid: 0,
            names: 1,
            mtime: None,
            xattrs: BTreeMap::new(),
            bytes: Vec::new(),
            published: vec![None],
            open_which: false,
            safe: true,
            writers: 0,
            opens: 0,
            children: BTreeMap::new(),
        }
    }

    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Published, and the journal says so.
    fn publish_durably(&mut self) {
        if self.kind == FileKind::File && self.names > 0 {
            self.published = vec![Some(self.bytes.clone())];
            (self.safe, self.open_which) = (true, false);
        }
    }

    /// Published in memory.
    fn publish(&mut self) {
        if self.kind == FileKind::File && self.names > 0 {
            let bytes = Some(self.bytes.clone());
            self.published.retain(|published| *published != bytes);
            self.published.push(bytes);
            self.open_which = false;
        }
    }
}

impl Reference {
    pub fn new() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::new(FileKind::Directory, 0o755))]) }
    }

    pub fn node(&mut self, ino: u64) -> &mut Node {
        self.nodes.get_mut(&ino).unwrap()
    }

    /// Directories that have a name, in the order of their numbers.
    pub fn dirs(&self) -> Vec<u64> {
        let named = |(ino, node): (&u64, &Node)| (node.is_dir() && node.names > 0).then_some(*ino);
        self.nodes.iter().filter_map(named).collect()
    }

    pub fn child(&self, dir: u64, name: &str) -> Option<u64> {
        self.nodes[&dir].children.get(name).copied()
    }

    /// The directory and name of an inode, any of them.
    pub fn name_of(&self, ino: u64) -> Option<(u64, String)> {
        self.nodes.iter().find_map(|(dir, node)| {
            node.children.iter().find(|(_, child)| **child == ino).map(|(name, _)| (*dir, name.clone()))
        })
    }

    fn find(&self, dir: u64, name: &str) -> Outcome<u64> {
        self.child(dir, name).ok_or("NotFound")
    }

    pub fn check_make(&self, dir: u64, name: &str) -> Outcome {
        if self.child(dir, name).is_some() { Err("Exists") } else { Ok(()) }
    }

    pub fn make(&mut self, dir: u64, name: &str, ino: u64, kind: FileKind, mode: u16, open: bool) {
        let setgid = self.nodes[&dir].mode & 0o2000;
        let mut node = Node::new(kind, if kind == FileKind::Directory { mode | setgid } else { mode });
        if kind == FileKind::Symlink {
            node.bytes = b"target".to_vec();
        }
        if open {
            (node.opens, node.writers) = (1, 1);
        } else {
            node.publish_durably();
        }
        assert!(self.nodes.insert(ino, node).is_none(), "inode numbers are not given out twice");
        self.node(dir).children.insert(name.to_owned(), ino);
        self.node(dir).mtime = None;
    }

    pub fn link(&mut self, from: (u64, &str), to: (u64, &str)) -> Outcome {
        let ino = self.find(from.0, from.1)?;
        if self.nodes[&ino].is_dir() {
            return Err("NotPermitted");
        }
        self.check_make(to.0, to.1)?;
        self.node(ino).names += 1;
        self.node(to.0).children.insert(to.1.to_owned(), ino);
        self.node(to.0).mtime = None;
        Ok(())
    }

    fn drop_name(&mut self, dir: u64, name: &str) {
        let ino = self.node(dir).children.remove(name).unwrap();
        self.node(dir).mtime = None;
        let node = self.node(ino);
        node.names -= 1;
        self.reap(ino);
    }

    pub fn reap(&mut self, ino: u64) {
        if self.nodes[&ino].names == 0 && self.nodes[&ino].opens == 0 {
            self.nodes.remove(&ino);
        }
    }

    pub fn unlink(&mut self, dir: u64, name: &str) -> Outcome {
        let ino = self.find(dir, name)?;
        if self.nodes[&ino].is_dir() {
            return Err("IsADirectory");
        }
        self.drop_name(dir, name);
        Ok(())
    }

    pub fn rmdir(&mut self, dir: u64, name: &str) -> Outcome {
        let ino = self.find(dir, name)?;
        if !self.nodes[&ino].is_dir() {
            return Err("NotADirectory");
        }
        if !self.nodes[&ino].children.is_empty() {
            return Err("NotEmpty");
        }
        self.drop_name(dir, name);
        Ok(())
    }

    fn is_below(&self, ino: u64, above: u64) -> bool {
        let mut at = ino;
        while at != above {
            match self.name_of(at) {
                Some((dir, _)) => at = dir,
                None => return false,
            }
        }
        true
    }

    pub fn rename(&mut self, from: (u64, &str), to: (u64, &str), mode: RenameMode) -> Outcome {
        let ino = self.find(from.0, from.1)?;
        let target = self.child(to.0, to.1);
        let is_dir = self.nodes[&ino].is_dir();
        if is_dir && self.is_below(to.0, ino) {
            return Err("Invalid");
        }
        match (mode, target) {
            (RenameMode::Exchange, None) => return Err("NotFound"),
            (RenameMode::NoReplace, Some(_)) => return Err("Exists"),
            (RenameMode::Exchange, Some(target)) => {
                if self.nodes[&target].is_dir() && self.is_below(from.0, target) {
                    return Err("Invalid");
                }
                self.node(from.0).children.insert(from.1.to_owned(), target);
                self.node(to.0).children.insert(to.1.to_owned(), ino);
            }
            (RenameMode::Replace, Some(target)) => {
                let target_is_dir = self.nodes[&target].is_dir();
                match (is_dir, target_is_dir) {
                    (true, false) => return Err("NotADirectory"),
                    (false, true) => return Err("IsADirectory"),
                    _ => {}
                }
                if target != ino && !self.nodes[&target].children.is_empty() {
                    return Err("NotEmpty");
                }
                if target == ino {
                    return Ok(());
                }
                self.node(ino).publish_durably();
                self.drop_name(to.0, to.1);
                self.shift(from, to, ino);
            }
            (_, None) => self.shift(from, to, ino),
        }
        if target != Some(ino) {
            self.node(from.0).mtime = None;
            self.node(to.0).mtime = None;
        }
        Ok(())
    }

    fn shift(&mut self, from: (u64, &str), to: (u64, &str), ino: u64) {
        self.node(from.0).children.remove(from.1);
        self.node(to.0).children.insert(to.1.to_owned(), ino);
    }

    pub fn open(&mut self, ino: u64, write: bool, truncate: bool) {
        if truncate {
            self.node(ino).bytes.clear();
            self.node(ino).mtime = None;
        }
        let node = self.node(ino);
        node.opens += 1;
        node.writers += u32::from(write);
    }

    pub fn close(&mut self, ino: u64, write: bool) {
        let node = self.node(ino);
        node.opens -= 1;
        if write {
            node.writers -= 1;
            if node.writers == 0 {
                node.publish();
            }
        }
        self.reap(ino);
    }

    pub fn write(&mut self, ino: u64, offset: usize, data: &[u8]) {
        let node = self.node(ino);
        let end = offset + data.len();
        if node.bytes.len() < end {
            node.bytes.resize(end, 0);
        }
        node.bytes[offset..end].copy_from_slice(data);
        (node.safe, node.mtime) = (false, None);
    }

    pub fn fallocate(&mut self, ino: u64, offset: usize, len: usize, zero: bool, keep_size: bool) {
        let node = self.node(ino);
        let size = node.bytes.len();
        if zero && offset < size {
            node.bytes[offset..(offset + len).min(size)].fill(0);
            (node.safe, node.mtime) = (false, None);
        }
        if !keep_size && offset + len > size {
            node.bytes.resize(offset + len, 0);
            node.mtime = None;
        }
    }

    pub fn truncate(&mut self, ino: u64, size: usize) -> Outcome {
        let node = self.node(ino);
        match node.kind {
            FileKind::File => {}
            FileKind::Directory => return Err("IsADirectory"),
            _ => return Err("Invalid"),
        }
        node.bytes.resize(size, 0);
        node.mtime = None;
        if node.writers == 0 {
            node.publish_durably();
        }
        Ok(())
    }

    pub fn fsync(&mut self, ino: u64) {
        self.node(ino).publish_durably();
    }

    pub fn chown(&mut self, ino: u64, uid: u32) {
        let node = self.node(ino);
        node.uid = uid;
        if !node.is_dir() {
            node.mode &= !0o4000;
            if node.mode & 0o010 != 0 {
                node.mode &= !0o2000;
            }
        }
    }

    pub fn set_xattr(&mut self, ino: u64, name: Vec<u8>, value: Vec<u8>, mode: XattrMode) -> Outcome {
        let xattrs = &mut self.node(ino).xattrs;
        match (mode, xattrs.contains_key(&name)) {
            (XattrMode::Create, true) => Err("Exists"),
            (XattrMode::Replace, false) => Err("NoData"),
            _ => {
                xattrs.insert(name, value);
                Ok(())
            }
        }
    }

    pub fn remove_xattr(&mut self, ino: u64, name: &[u8]) -> Outcome {
        self.node(ino).xattrs.remove(name).map(|_| ()).ok_or("NoData")
    }

    /// All bytes of open files are in the journal.
    pub fn log_drafts(&mut self) {
        self.nodes.values_mut().for_each(|node| node.safe = true);
    }

    /// What is published is so for a later process, too.
    pub fn absorb(&mut self) {
        for node in self.nodes.values_mut().filter(|node| node.names > 0 && !node.open_which) {
            let last = node.published.pop().unwrap();
            if node.writers == 0 && last.as_ref() == Some(&node.bytes) {
                node.safe = true;
            }
            node.published = vec![last];
        }
    }

    /// The process ends: handles are gone, and files without a name.
    pub fn end_process(&mut self) {
        for node in self.nodes.values_mut() {
            (node.opens, node.writers) = (0, 0);
        }
        self.nodes.retain(|_, node| node.names > 0);
    }

    /// Paths and inodes, the root as the empty path.
    pub fn paths(&self) -> BTreeMap<String, u64> {
        let mut paths = BTreeMap::from([(String::new(), ROOT)]);
        let mut dirs = vec![(String::new(), ROOT)];
        while let Some((path, dir)) = dirs.pop() {
            for (name, ino) in &self.nodes[&dir].children {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                if self.nodes[ino].is_dir() {
                    dirs.push((path.clone(), *ino));
                }
                paths.insert(path, *ino);
            }
        }
        paths
    }
}
