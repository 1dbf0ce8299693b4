//! Carrying operations out on both, and comparing.

use std::collections::BTreeMap;

use kura::base::clock::Timestamp;
use kura::base::sim_disk::{Crash, SimDisk};
use kura::version::entry::Ino;
use kura::worktree::{
    Caller, Changes, Checkpoint, FileKind, NewNode, Reason, Result, SetTime, Wait, WorkError, Worktree,
};

use super::op::{At, Op};
use super::reference::{Outcome, ROOT, Reference};
use crate::rig::{Rig, Seens, live, word};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const CALLER: Caller = Caller { uid: 0, gid: 0 };

struct Run {
    rig: Rig,
    sim: SimDisk,
    tree: Worktree,
    model: Reference,
    handles: Vec<(u64, bool)>,
    /// What the kernel holds.
    held: BTreeMap<u64, u64>,
}

/// Carries out the operations; panics where tree and model part.
pub fn run(ops: &[Op], inodes_max: usize) {
    let (mut rig, sim) = Rig::new(7);
    rig.limits.inodes_max = inodes_max;
    let tree = rig.open().unwrap();
    let mut run = Run { rig, sim, tree, model: Reference::new(), handles: Vec::new(), held: BTreeMap::new() };
    for (number, op) in ops.iter().enumerate() {
        run.step(op);
        if number % 8 == 7 {
            run.compare();
        }
    }
    run.compare();
    run.checkpoint();
    run.step(&Op::Reopen);
    run.compare();
}

fn same<T>(ours: Result<T>, model: Outcome) -> Option<T> {
    match (ours, model) {
        (Ok(value), Ok(())) => Some(value),
        (Err(error), Err(expected)) => {
            assert_eq!(word(&error), expected, "{error}");
            None
        }
        (Ok(_), Err(expected)) => panic!("succeeded, and should have failed with {expected}"),
        (Err(error), Ok(())) => panic!("failed: {error:?}"),
    }
}

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed) * 0x9e37_79b9 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

impl Run {
    fn place(&self, at: At) -> (u64, &'static str) {
        let dirs = self.model.dirs();
        (dirs[usize::from(at.0) % dirs.len()], NAMES[usize::from(at.1) % NAMES.len()])
    }

    /// What a name stands for, in the model; told to the kernel.
    fn target(&mut self, at: At) -> Option<u64> {
        let (dir, name) = self.place(at);
        let ino = self.model.child(dir, name)?;
        self.hold(ino);
        Some(ino)
    }

    fn handle(&self, number: u8) -> Option<(usize, u64, bool)> {
        let index = usize::from(number).checked_rem(self.handles.len())?;
        let (ino, write) = self.handles[index];
        Some((index, ino, write))
    }

    /// Looks an inode up, from the nearest directory that the kernel holds.
    fn hold(&mut self, ino: u64) {
        if ino == ROOT || self.held.contains_key(&ino) {
            return;
        }
        let Some((dir, name)) = self.model.name_of(ino) else { return };
        self.hold(dir);
        let attr = self.tree.lookup(Ino(dir), name.as_bytes(), Wait::Yes).unwrap();
        assert_eq!(attr.ino.0, ino, "{name}");
        *self.held.entry(ino).or_default() += 1;
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Make { .. } | Op::Link { .. } | Op::Unlink(_) | Op::Rmdir(_) | Op::Rename { .. } => self.names(op),
            Op::Open { .. } | Op::Close(_) | Op::Write { .. } | Op::Fallocate { .. } => self.content(op),
            Op::Truncate { at, size } => {
                if let Some(ino) = self.target(*at) {
                    let changes = Changes { size: Some(u64::from(*size)), ..Changes::default() };
                    let ours = self.tree.setattr(Ino(ino), &changes, 0, Wait::Yes);
                    same(ours, self.model.truncate(ino, *size as usize));
                }
            }
            Op::Fsync(at) => {
                if let Some(ino) = self.target(*at) {
                    self.tree.fsync(Ino(ino), Wait::Yes).unwrap();
                    self.model.fsync(ino);
                }
            }
            Op::Checkpoint => self.checkpoint(),
            Op::LogDrafts => {
                self.tree.log_drafts().unwrap();
                self.model.log_drafts();
            }
            Op::Absorb => {
                self.tree.absorb_all().unwrap();
                self.model.absorb();
            }
            Op::Sync => self.tree.sync().unwrap(),
            Op::Reopen => {
                self.tree.absorb_all().unwrap();
                self.tree.log_drafts().unwrap();
                self.model.absorb();
                self.model.log_drafts();
                self.reopen();
            }
            Op::Kill => self.kill(),
            Op::Upload => self.upload(),
            Op::Forget => self.forget(),
            _ => self.attributes(op),
        }
    }

    fn names(&mut self, op: &Op) {
        match op {
            Op::Make { at, kind, open } => self.make(*at, *kind, *open && *kind == FileKind::File),
            Op::Link { from, to } => {
                let (from, to) = (self.place(*from), self.place(*to));
                self.hold(to.0);
                let Some(ino) = self.model.child(from.0, from.1) else { return };
                self.hold(ino);
                let ours = self.tree.link(Ino(ino), Ino(to.0), to.1.as_bytes(), Wait::Yes);
                if same(ours, self.model.link(from, to)).is_some() {
                    *self.held.entry(ino).or_default() += 1;
                }
            }
            Op::Unlink(at) => {
                let (dir, name) = self.place(*at);
                self.hold(dir);
                let ours = self.tree.unlink(Ino(dir), name.as_bytes(), Wait::Yes);
                same(ours, self.model.unlink(dir, name));
            }
            Op::Rmdir(at) => {
                let (dir, name) = self.place(*at);
                self.hold(dir);
                let ours = self.tree.rmdir(Ino(dir), name.as_bytes(), Wait::Yes);
                same(ours, self.model.rmdir(dir, name));
            }
            Op::Rename { from, to, mode } => {
                let (from, to) = (self.place(*from), self.place(*to));
                self.hold(from.0);
                self.hold(to.0);
                let bytes = |(dir, name): (u64, &'static str)| (Ino(dir), name.as_bytes());
                let ours = self.tree.rename(bytes(from), bytes(to), *mode, Wait::Yes);
                same(ours, self.model.rename(from, to, *mode));
            }
            _ => {}
        }
        self.drop_dead();
    }

    fn make(&mut self, at: At, kind: FileKind, open: bool) {
        let (dir, name) = self.place(at);
        self.hold(dir);
        let node = match kind {
            FileKind::File => NewNode::File,
            FileKind::Directory => NewNode::Directory,
            FileKind::Symlink => NewNode::Symlink(b"target".to_vec()),
            FileKind::Fifo => NewNode::Fifo,
            FileKind::Socket => NewNode::Socket,
            FileKind::CharDevice => NewNode::CharDevice(5),
            FileKind::BlockDevice => NewNode::BlockDevice(6),
        };
        let ours = self.tree.make(Ino(dir), name.as_bytes(), &node, 0o640, CALLER, open, Wait::Yes);
        let Some(attr) = same(ours, self.model.check_make(dir, name)) else { return };
        self.model.make(dir, name, attr.ino.0, kind, 0o640, open);
        *self.held.entry(attr.ino.0).or_default() += 1;
        if open {
            self.handles.push((attr.ino.0, true));
        }
    }

    fn content(&mut self, op: &Op) {
        match op {
            Op::Open { at, write, truncate } => {
                let Some(ino) = self.target(*at).filter(|ino| self.model.nodes[ino].kind == FileKind::File) else {
                    return;
                };
                self.tree.open(Ino(ino), *write, *truncate, 0, Wait::Yes).unwrap();
                self.model.open(ino, *write, *truncate);
                self.handles.push((ino, *write));
            }
            Op::Close(number) => {
                let Some((index, ino, write)) = self.handle(*number) else { return };
                self.handles.remove(index);
                self.tree.release(Ino(ino), write);
                self.model.close(ino, write);
                self.drop_dead();
            }
            Op::Write { handle, offset, len, seed } => {
                let Some((_, ino, true)) = self.handle(*handle) else { return };
                let data = noise(*seed, *len as usize);
                self.tree.write(Ino(ino), u64::from(*offset), &data, 0, Wait::Yes).unwrap();
                self.model.write(ino, *offset as usize, &data);
            }
            Op::Fallocate { handle, offset, len, zero, keep_size } => {
                let Some((_, ino, true)) = self.handle(*handle) else { return };
                let (from, count) = (u64::from(*offset), u64::from(*len));
                self.tree.fallocate(Ino(ino), from, count, *zero, *keep_size, 0, Wait::Yes).unwrap();
                self.model.fallocate(ino, *offset as usize, *len as usize, *zero, *keep_size);
            }
            _ => {}
        }
    }

    fn attributes(&mut self, op: &Op) {
        match op {
            Op::Chmod { at, mode } => {
                let Some(ino) = self.target(*at) else { return };
                let changes = Changes { mode: Some(*mode), ..Changes::default() };
                self.tree.setattr(Ino(ino), &changes, 0, Wait::Yes).unwrap();
                self.model.node(ino).mode = *mode;
            }
            Op::Chown { at, uid } => {
                let Some(ino) = self.target(*at) else { return };
                let changes = Changes { uid: Some(*uid), ..Changes::default() };
                self.tree.setattr(Ino(ino), &changes, 0, Wait::Yes).unwrap();
                self.model.chown(ino, *uid);
            }
            Op::Utimes { at, mtime } => {
                let Some(ino) = self.target(*at) else { return };
                let time = i64::from(*mtime) * 1_000_000_007;
                let set = Some(SetTime::At(Timestamp::from_unix_ns(time)));
                self.tree.setattr(Ino(ino), &Changes { mtime: set, ..Changes::default() }, 0, Wait::Yes).unwrap();
                self.model.node(ino).mtime = Some(time);
            }
            Op::SetXattr { at, name, len, mode } => {
                let Some(ino) = self.target(*at) else { return };
                let (name, value) = (format!("user.{name}").into_bytes(), vec![*len; usize::from(*len)]);
                let ours = self.tree.setxattr(Ino(ino), &name, &value, *mode, Wait::Yes);
                same(ours, self.model.set_xattr(ino, name, value, *mode));
            }
            Op::RemoveXattr { at, name } => {
                let Some(ino) = self.target(*at) else { return };
                let name = format!("user.{name}").into_bytes();
                same(self.tree.removexattr(Ino(ino), &name, Wait::Yes), self.model.remove_xattr(ino, &name));
            }
            other => panic!("{other:?} is no change of attributes"),
        }
    }

    /// The kernel forgets inodes that are gone.
    fn drop_dead(&mut self) {
        let dead: Vec<u64> = self.held.keys().copied().filter(|ino| !self.model.nodes.contains_key(ino)).collect();
        for ino in dead {
            let count = self.held.remove(&ino).unwrap_or(0);
            self.tree.forget(Ino(ino), count);
            let gone = self.tree.getattr(Ino(ino), Wait::Yes);
            assert!(matches!(gone, Err(WorkError::NotFound)), "{gone:?}");
        }
    }

    fn forget(&mut self) {
        let open = |ino: &u64| self.handles.iter().any(|(open, _)| open == ino);
        let idle: Vec<u64> = self.held.keys().copied().filter(|ino| !open(ino)).collect();
        for ino in idle {
            let count = self.held.remove(&ino).unwrap_or(0);
            self.tree.forget(Ino(ino), count);
        }
    }

    fn checkpoint(&mut self) {
        let recorded = self.tree.checkpoint(&Reason::automatic()).unwrap();
        self.model.absorb();
        if matches!(recorded, Checkpoint::Recorded(_)) {
            self.model.log_drafts();
        }
        self.check_version();
    }

    fn check_version(&mut self) {
        let base = self.tree.base();
        let seens = self.rig.version(&base);
        self.compare_names(&seens, true);
        let unique: BTreeMap<u64, u64> = seens
            .values()
            .filter(|seen| seen.kind == FileKind::File)
            .map(|seen| (seen.ino, seen.bytes.len() as u64))
            .collect();
        let dirs = seens.values().filter(|seen| seen.kind == FileKind::Directory).count() as u64 - 1;
        let counts = base.index.counts;
        assert_eq!((counts.files, counts.dirs), (seens.len() as u64 - 1 - dirs, dirs), "names are counted");
        assert_eq!(counts.bytes, unique.values().sum::<u64>(), "bytes are counted");
    }

    /// A fresh process; what the tree shows is the same to the last bit.
    fn reopen(&mut self) {
        let before = live(&self.tree);
        self.end_process();
        self.tree = self.rig.open().unwrap();
        let after = live(&self.tree);
        for (path, seen) in &before {
            let mut found = after.get(path).unwrap_or_else(|| panic!("{path} is gone")).clone();
            // Bytes that go to the journal late take the change time with them.
            found.ctime = seen.ctime;
            let bytes = std::mem::replace(&mut found.bytes, seen.bytes.clone());
            assert!(bytes == seen.bytes, "{path}: content differs");
            assert!(*seen == found, "{path}: {seen:?} became {found:?}");
        }
        assert_eq!(before.len(), after.len());
    }

    fn end_process(&mut self) {
        self.handles.clear();
        self.held.clear();
        self.model.end_process();
    }

    fn kill(&mut self) {
        self.sim = self.sim.reopen(Crash::Kill);
        self.rig = self.rig.after(self.sim.clone());
        self.end_process();
        self.tree = self.rig.open().unwrap();
        // What was not safe is anything now.
        let seens = live(&self.tree);
        for (path, ino) in self.model.paths() {
            let node = self.model.node(ino);
            node.open_which |= node.published.len() > 1;
            let seen = seens.get(&path).unwrap_or_else(|| panic!("{path} is gone"));
            if node.kind == FileKind::File && !node.safe {
                node.bytes = seen.bytes.clone();
                node.mtime = None;
                node.safe = true;
            }
        }
    }

    fn upload(&mut self) {
        self.rig.upload(&self.tree);
    }

    fn compare(&mut self) {
        let seens = live(&self.tree);
        self.compare_names(&seens, false);
    }

    /// Compares with what the model says is there (`recorded`: in a version).
    fn compare_names(&mut self, seens: &Seens, recorded: bool) {
        let paths = self.model.paths();
        for (path, seen) in seens {
            let ino = *paths.get(path).unwrap_or_else(|| panic!("{path} should not be there"));
            assert_eq!(seen.ino, ino, "{path}");
            let node = self.model.node(ino);
            let subdirs = node.children.values().copied().collect::<Vec<_>>();
            assert_eq!(seen.kind, node.kind, "{path}");
            assert_eq!((seen.mode, seen.uid), (node.mode, node.uid), "{path}");
            assert_eq!(seen.xattrs, node.xattrs, "{path}");
            match node.kind {
                FileKind::File if recorded => {
                    let found = Some(seen.bytes.clone());
                    assert!(node.published.contains(&found), "{path}: {} bytes never published", seen.bytes.len());
                    (node.published, node.open_which) = (vec![found], false);
                }
                FileKind::File | FileKind::Symlink => assert!(seen.bytes == node.bytes, "{path}: content differs"),
                _ => {}
            }
            let (names, mtime, is_dir) = (node.names, node.mtime, node.is_dir());
            if !is_dir {
                assert_eq!(seen.nlink, names, "{path}");
            } else {
                let subdirs = subdirs.iter().filter(|ino| self.model.nodes[ino].is_dir()).count();
                assert_eq!(seen.nlink as usize, 2 + subdirs, "{path}");
            }
            let file_in_version = recorded && seen.kind == FileKind::File;
            if let Some(mtime) = mtime.filter(|_| !file_in_version) {
                assert_eq!(seen.mtime.unix_ns(), mtime, "{path}");
            }
        }
        for (path, ino) in paths {
            if !seens.contains_key(&path) {
                let node = self.model.node(ino);
                assert!(recorded && node.published.contains(&None), "{path} is missing");
                (node.published, node.open_which) = (vec![None], false);
            }
        }
    }
}
