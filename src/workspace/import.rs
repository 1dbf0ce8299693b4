//! Taking a local directory in.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use super::opened::Workspace;
use super::{ImportReport, Progress, RESERVED, Result, WorkspaceError, split_path, xattr};
use crate::base::clock::Timestamp;
use crate::version::entry::{CONTROL_NAME, Ino};
use crate::version::index::Origin;
use crate::worktree::{
    Attr, Caller, Changes, FileKind, NewNode, Reason, SetTime, Wait, WorkError, Worktree, XattrMode,
};

/// Content is absorbed after so many bytes,
const BATCH_BYTES: u64 = 32 << 20;
/// or so many files.
const BATCH_FILES: u64 = 4_000;
/// Bytes read and written at once.
const PIECE_LEN: usize = 1 << 20;

impl Workspace {
    /// Takes a local directory's content into the directory `into` of the live tree (made when missing). Files that
    /// are there already with the same size, modification time and mode are left alone. Never follows symbolic links.
    pub fn import(&self, dir: &Path, into: &[u8], progress: &mut dyn FnMut(Progress)) -> Result<ImportReport> {
        let _history = self.history.lock();
        self.check_writable()?;
        let metadata = std::fs::metadata(dir).map_err(|error| WorkspaceError::disk(dir, &error))?;
        if !metadata.is_dir() {
            return Err(WorkspaceError::Unfit { path: dir.to_owned(), reason: "not a directory".to_owned() });
        }
        self.present()?;
        let mut import = Import {
            workspace: self,
            tree: self.tree(),
            is_root: nix::unistd::Uid::effective().is_root(),
            report: ImportReport::default(),
            linked: HashMap::new(),
            batch: (0, 0),
            progress,
        };
        let top = import.top(into)?;
        import.directory(dir, top)?;
        self.tree().absorb_all()?;
        let mut report = import.report;
        let message = Some(format!("import {}", dir.display()));
        report.recorded = self.record(Reason { origin: Origin::Import, message, tag: None, always: false })?;
        Ok(report)
    }
}

struct Import<'a> {
    workspace: &'a Workspace,
    tree: &'a Worktree,
    is_root: bool,
    report: ImportReport,
    /// Files with several names: device and inode number here to inode there.
    linked: HashMap<(u64, u64), Ino>,
    /// Bytes and files that were not absorbed yet.
    batch: (u64, u64),
    progress: &'a mut dyn FnMut(Progress),
}

impl Import<'_> {
    /// The directory to import into.
    fn top(&mut self, into: &[u8]) -> Result<Ino> {
        let mut at = Ino::ROOT;
        for name in split_path(into) {
            if name == CONTROL_NAME {
                let path = Path::new(OsStr::from_bytes(into)).to_owned();
                return Err(WorkspaceError::Unfit { path, reason: RESERVED.to_owned() });
            }
            let caller = self.caller(None);
            at = match self.lookup(at, name)? {
                Some(attr) if attr.kind == FileKind::Directory => attr.ino,
                Some(_) => return Err(WorkError::NotADirectory.into()),
                None => self.make(at, name, &NewNode::Directory, 0o755, caller)?.ino,
            };
        }
        Ok(at)
    }

    fn caller(&self, metadata: Option<&Metadata>) -> Caller {
        match metadata {
            Some(metadata) if self.is_root => Caller { uid: metadata.uid(), gid: metadata.gid() },
            _ => Caller { uid: nix::unistd::Uid::effective().as_raw(), gid: nix::unistd::Gid::effective().as_raw() },
        }
    }

    fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Option<Attr>> {
        match self.tree.lookup(dir, name, Wait::Yes) {
            Ok(attr) => {
                self.tree.forget(attr.ino, 1);
                Ok(Some(attr))
            }
            Err(WorkError::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn make(&self, dir: Ino, name: &[u8], node: &NewNode, mode: u16, caller: Caller) -> Result<Attr> {
        let attr = self.tree.make(dir, name, node, mode, caller, false, Wait::Yes)?;
        self.tree.forget(attr.ino, 1);
        Ok(attr)
    }

    /// The content of a directory, without recursion: deep trees must not use up the stack.
    fn directory(&mut self, dir: &Path, ino: Ino) -> Result<()> {
        let mut pending = vec![(dir.to_owned(), ino)];
        // Directories get their attributes last: writing into them changes their times.
        let mut finished = Vec::new();
        while let Some((dir, ino)) = pending.pop() {
            let names = std::fs::read_dir(&dir).map_err(|error| WorkspaceError::disk(&dir, &error))?;
            let mut names: Vec<_> = names
                .map(|name| name.map(|name| name.file_name()))
                .collect::<std::io::Result<_>>()
                .map_err(|error| WorkspaceError::disk(&dir, &error))?;
            names.sort_unstable();
            for name in names {
                let path = dir.join(&name);
                if name.as_bytes() == CONTROL_NAME {
                    self.skip(&path, &RESERVED);
                    continue;
                }
                let metadata = match std::fs::symlink_metadata(&path) {
                    Ok(metadata) => metadata,
                    Err(error) => {
                        self.skip(&path, &error);
                        continue;
                    }
                };
                if metadata.is_dir() {
                    let below = self.make_directory(ino, &name, &metadata)?;
                    finished.push((path.clone(), below, metadata));
                    pending.push((path, below));
                } else {
                    self.file(ino, &name, &path, &metadata)?;
                }
            }
        }
        for (path, ino, metadata) in finished.into_iter().rev() {
            self.attributes(ino, &path, &metadata)?;
        }
        Ok(())
    }

    fn skip(&mut self, path: &Path, reason: &dyn std::fmt::Display) {
        self.report.skipped.push((path.to_owned(), reason.to_string()));
    }

    fn make_directory(&mut self, parent: Ino, name: &OsStr, metadata: &Metadata) -> Result<Ino> {
        let name = name.as_bytes();
        match self.lookup(parent, name)? {
            Some(attr) if attr.kind == FileKind::Directory => Ok(attr.ino),
            Some(_) => {
                self.tree.unlink(parent, name, Wait::Yes)?;
                Ok(self.make(parent, name, &NewNode::Directory, 0o700, self.caller(Some(metadata)))?.ino)
            }
            None => {
                self.report.imported.files += 1;
                Ok(self.make(parent, name, &NewNode::Directory, 0o700, self.caller(Some(metadata)))?.ino)
            }
        }
    }

    /// Anything but a directory.
    fn file(&mut self, parent: Ino, name: &OsStr, path: &Path, metadata: &Metadata) -> Result<()> {
        let name = name.as_bytes();
        let identity = (metadata.dev(), metadata.ino());
        let old = self.lookup(parent, name)?;
        if metadata.nlink() > 1
            && let Some(ino) = self.linked.get(&identity).copied()
        {
            return self.further_name(parent, name, ino, old);
        }
        let Some(node) = self.node(path, metadata) else { return Ok(()) };
        if let Some(old) = old.filter(|old| self.is_same(old, path, metadata)) {
            self.linked.insert(identity, old.ino);
            self.report.unchanged += 1;
            return Ok(());
        }
        // Opened before anything is replaced: a file that cannot be read leaves the old one in its place.
        let source = match metadata.is_file().then(|| open(path)).transpose() {
            Ok(source) => source,
            Err(error) => {
                self.skip(path, &error);
                return Ok(());
            }
        };
        let ino = match old {
            Some(old) if old.kind == FileKind::File && metadata.is_file() => old.ino,
            old => {
                if let Some(old) = old {
                    match old.kind {
                        FileKind::Directory => self.tree.rmdir(parent, name, Wait::Yes)?,
                        _ => self.tree.unlink(parent, name, Wait::Yes)?,
                    }
                }
                self.new_node(parent, name, &node, metadata)?
            }
        };
        if let Some(source) = source {
            self.content(ino, &source, path, metadata, old.is_some_and(|old| old.ino == ino))?;
        }
        self.attributes(ino, path, metadata)?;
        if metadata.nlink() > 1 {
            self.linked.insert(identity, ino);
        }
        self.step(metadata)
    }

    /// A regular file is left open for writing.
    fn new_node(&self, parent: Ino, name: &[u8], node: &NewNode, metadata: &Metadata) -> Result<Ino> {
        let is_file = matches!(node, NewNode::File);
        let caller = self.caller(Some(metadata));
        let attr = self.tree.make(parent, name, node, 0o600, caller, is_file, Wait::Yes)?;
        self.tree.forget(attr.ino, 1);
        Ok(attr.ino)
    }

    fn further_name(&mut self, parent: Ino, name: &[u8], ino: Ino, old: Option<Attr>) -> Result<()> {
        match old {
            Some(old) if old.ino == ino => {
                self.report.unchanged += 1;
                return Ok(());
            }
            Some(old) if old.kind == FileKind::Directory => self.tree.rmdir(parent, name, Wait::Yes)?,
            Some(_) => self.tree.unlink(parent, name, Wait::Yes)?,
            None => {}
        }
        let attr = self.tree.link(ino, parent, name, Wait::Yes)?;
        self.tree.forget(attr.ino, 1);
        self.report.imported.files += 1;
        Ok(())
    }

    /// What to make of a name; `None` (and reported) for what cannot be imported.
    fn node(&mut self, path: &Path, metadata: &Metadata) -> Option<NewNode> {
        let kind = metadata.file_type();
        let rdev = u32::try_from(metadata.rdev()).ok();
        if kind.is_file() {
            return Some(NewNode::File);
        }
        if kind.is_symlink() {
            return match std::fs::read_link(path) {
                Ok(target) => Some(NewNode::Symlink(target.as_os_str().as_bytes().to_vec())),
                Err(error) => {
                    self.skip(path, &error);
                    None
                }
            };
        }
        if kind.is_fifo() {
            return Some(NewNode::Fifo);
        }
        match rdev {
            Some(rdev) if self.is_root && kind.is_char_device() => Some(NewNode::CharDevice(rdev)),
            Some(rdev) if self.is_root && kind.is_block_device() => Some(NewNode::BlockDevice(rdev)),
            _ => {
                self.skip(path, &"sockets and (without root) devices are not imported");
                None
            }
        }
    }

    fn is_same(&self, old: &Attr, path: &Path, metadata: &Metadata) -> bool {
        let kind = metadata.file_type();
        let owner = !self.is_root || (old.uid, old.gid) == (metadata.uid(), metadata.gid());
        let mode = u32::from(old.mode) == metadata.mode() & 0o7777;
        let mtime = old.mtime == time(metadata.mtime(), metadata.mtime_nsec());
        owner
            && mtime
            && match old.kind {
                FileKind::File => kind.is_file() && mode && old.size == metadata.len(),
                FileKind::Fifo => kind.is_fifo() && mode,
                FileKind::Symlink => {
                    kind.is_symlink()
                        && self.tree.readlink(old.ino, Wait::Yes).ok()
                            == std::fs::read_link(path).ok().map(|target| target.as_os_str().as_bytes().to_vec())
                }
                _ => false,
            }
    }

    /// Copies data, not holes; closes the file, which publishes it.
    fn content(&mut self, ino: Ino, source: &File, path: &Path, metadata: &Metadata, is_old: bool) -> Result<()> {
        let uid = self.caller(None).uid;
        if is_old {
            self.tree.open(ino, true, true, uid, Wait::Yes)?;
        }
        let copied = self.copy(ino, source, metadata, uid);
        self.tree.release(ino, true);
        match copied {
            Ok(()) => Ok(()),
            Err(Copying::Source(error)) => {
                self.skip(path, &error);
                Ok(())
            }
            Err(Copying::Target(error)) => Err(error.into()),
        }
    }

    fn copy(&mut self, ino: Ino, source: &File, metadata: &Metadata, uid: u32) -> std::result::Result<(), Copying> {
        let mut buffer = vec![0; PIECE_LEN.min(usize::try_from(metadata.len()).unwrap_or(PIECE_LEN))];
        let mut at = 0;
        let mut end = 0;
        while let Some((start, stop)) = next_data(source, at).map_err(Copying::Source)? {
            at = start;
            while at < stop {
                let len = usize::try_from(stop - at).unwrap_or(PIECE_LEN).min(buffer.len());
                let count = source.read_at(&mut buffer[..len], at).map_err(Copying::Source)?;
                if count == 0 {
                    break;
                }
                self.tree.write(ino, at, &buffer[..count], uid, Wait::Yes).map_err(Copying::Target)?;
                at += count as u64;
                self.report.imported.bytes += count as u64;
                self.batch.0 += count as u64;
                (self.progress)(self.report.imported);
            }
            end = at;
            if at < stop {
                break;
            }
        }
        if end < metadata.len() {
            let changes = Changes { size: Some(metadata.len()), ..Changes::default() };
            self.tree.setattr(ino, &changes, uid, Wait::Yes).map_err(Copying::Target)?;
        }
        Ok(())
    }

    fn attributes(&mut self, ino: Ino, path: &Path, metadata: &Metadata) -> Result<()> {
        let mode = if metadata.is_symlink() { 0o777 } else { u16::try_from(metadata.mode() & 0o7777).unwrap_or(0) };
        if !metadata.is_symlink() {
            self.xattrs(ino, path)?;
        }
        let (uid, gid) = (metadata.uid(), metadata.gid());
        let changes = Changes {
            mode: Some(mode),
            uid: self.is_root.then_some(uid),
            gid: self.is_root.then_some(gid),
            size: None,
            atime: Some(SetTime::At(time(metadata.atime(), metadata.atime_nsec()))),
            mtime: Some(SetTime::At(time(metadata.mtime(), metadata.mtime_nsec()))),
        };
        let attr = self.tree.getattr(ino, Wait::Yes)?;
        let is_set = attr.mode == mode
            && Some(SetTime::At(attr.mtime)) == changes.mtime
            && (!self.is_root || (attr.uid, attr.gid) == (uid, gid));
        if !is_set {
            self.tree.setattr(ino, &changes, 0, Wait::Yes)?;
        }
        Ok(())
    }

    fn xattrs(&mut self, ino: Ino, path: &Path) -> Result<()> {
        let here = xattr::read(path);
        let there = self.tree.listxattr(ino, Wait::Yes)?;
        for name in there.iter().filter(|name| name.starts_with(b"user.") && !here.contains_key(*name)) {
            self.tree.removexattr(ino, name, Wait::Yes)?;
        }
        for (name, value) in here {
            if self.tree.getxattr(ino, &name, Wait::Yes).ok().as_ref() != Some(&value) {
                self.tree.setxattr(ino, &name, &value, XattrMode::Set, Wait::Yes)?;
            }
        }
        Ok(())
    }

    /// After each file: absorbs, and records, when enough has come together.
    fn step(&mut self, metadata: &Metadata) -> Result<()> {
        if metadata.is_file() {
            self.batch.1 += 1;
        }
        self.report.imported.files += 1;
        (self.progress)(self.report.imported);
        if self.batch.0 < BATCH_BYTES && self.batch.1 < BATCH_FILES {
            return Ok(());
        }
        self.batch = (0, 0);
        self.tree.absorb_all()?;
        if self.tree.activity().journal_bytes > self.workspace.parts.options.limits.journal_bytes_max {
            let message = Some("import, in progress".to_owned());
            self.workspace.record(Reason { origin: Origin::Import, message, tag: None, always: false })?;
        }
        Ok(())
    }
}

enum Copying {
    Source(std::io::Error),
    Target(WorkError),
}

fn time(seconds: i64, nanoseconds: i64) -> Timestamp {
    Timestamp::from_parts(seconds, u32::try_from(nanoseconds).unwrap_or(0))
}

/// Opens a regular file that was just seen; a link or pipe that took its place since is not followed or waited for.
fn open(path: &Path) -> std::io::Result<File> {
    use nix::fcntl::{OFlag, open};
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    Ok(File::from(open(path, flags, nix::sys::stat::Mode::empty())?))
}

/// The next range of data at or after `offset`; a file system that knows no holes says all of it.
fn next_data(file: &File, offset: u64) -> std::io::Result<Option<(u64, u64)>> {
    use nix::unistd::{Whence, lseek};
    let at = i64::try_from(offset).map_err(std::io::Error::other)?;
    let start = match lseek(file, at, Whence::SeekData) {
        Ok(start) => start,
        Err(nix::errno::Errno::ENXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stop = lseek(file, start, Whence::SeekHole)?;
    Ok(Some((u64::try_from(start).unwrap_or(offset), u64::try_from(stop).unwrap_or(offset))))
}
