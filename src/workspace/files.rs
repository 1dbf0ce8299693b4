//! The live tree as a disk, for applications that work on files: no way round through the mount.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Workspace;
use crate::base::disk::{DirItem, Disk, DiskFile, OpenMode};
use crate::version::entry::Ino;
use crate::worktree::{Caller, Changes, FileKind, Invalidation, NewNode, RenameMode, Wait, WorkError, Worktree};

const FILE_MODE: u16 = 0o600;
const DIR_MODE: u16 = 0o700;
const READ_BYTES_MAX: usize = 1024 * 1024;

/// The live tree as a [`Disk`]: paths are absolute from the root of the workspace. What is made belongs to the owner
/// given. Programs that use the mount see every change at once. A file's lock is known among users of the same value
/// and its clones, not by programs that use the mount.
#[derive(Clone)]
pub struct WorkspaceFiles {
    workspace: Arc<Workspace>,
    owner: Caller,
    locks: Arc<Mutex<HashSet<Ino>>>,
}

/// An open file of the live tree.
struct OpenFile {
    files: WorkspaceFiles,
    ino: Ino,
    path: PathBuf,
    write: bool,
    locked: Mutex<bool>,
}

fn failed(path: &Path) -> impl Fn(WorkError) -> io::Error + '_ {
    move |error| {
        let kind = match &error {
            WorkError::NotFound => ErrorKind::NotFound,
            WorkError::Exists => ErrorKind::AlreadyExists,
            WorkError::NotADirectory => ErrorKind::NotADirectory,
            WorkError::IsADirectory => ErrorKind::IsADirectory,
            WorkError::NotEmpty => ErrorKind::DirectoryNotEmpty,
            WorkError::NameTooLong | WorkError::Invalid => ErrorKind::InvalidInput,
            WorkError::NotPermitted | WorkError::Denied => ErrorKind::PermissionDenied,
            WorkError::ReadOnly => ErrorKind::ReadOnlyFilesystem,
            WorkError::NoSpace => ErrorKind::StorageFull,
            _ => ErrorKind::Other,
        };
        io::Error::new(kind, format!("{}: {error}", path.display()))
    }
}

/// The directory and the last name of a path.
fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    path.parent()
        .zip(path.file_name())
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, format!("{} names no file", path.display())))
}

impl WorkspaceFiles {
    /// The files of `workspace`; new ones belong to `owner`.
    pub fn new(workspace: Arc<Workspace>, owner: Caller) -> Self {
        Self { workspace, owner, locks: Arc::default() }
    }

    fn tree(&self) -> &Worktree {
        self.workspace.tree()
    }

    /// What a name stands for; no reference is kept, so it may leave memory again.
    fn look(&self, dir: Ino, name: &[u8], path: &Path) -> io::Result<(Ino, FileKind)> {
        let attr = self.tree().lookup(dir, name, Wait::Yes).map_err(failed(path))?;
        self.tree().forget(attr.ino, 1);
        Ok((attr.ino, attr.kind))
    }

    fn dir(&self, path: &Path) -> io::Result<Ino> {
        let mut at = Ino::ROOT;
        for name in path.iter().filter(|name| !name.as_bytes().starts_with(b"/")) {
            let (ino, kind) = self.look(at, name.as_bytes(), path)?;
            if kind != FileKind::Directory {
                return Err(failed(path)(WorkError::NotADirectory));
            }
            at = ino;
        }
        Ok(at)
    }

    fn parent<'a>(&self, path: &'a Path) -> io::Result<(Ino, &'a [u8])> {
        let (dir, name) = split(path)?;
        Ok((self.dir(dir)?, name.as_bytes()))
    }

    fn tell(&self, names: &[(Ino, &[u8])], inodes: &[Ino]) {
        let names = names.iter().map(|(parent, name)| Invalidation::Name { parent: *parent, name: (*name).into() });
        let dirs_and_files = inodes.iter().copied().map(Invalidation::Inode);
        self.tree().tell(names.chain(dirs_and_files).collect());
    }

    fn make(&self, (dir, name): (Ino, &[u8]), node: &NewNode, path: &Path) -> io::Result<Ino> {
        let (mode, open) = if *node == NewNode::Directory { (DIR_MODE, false) } else { (FILE_MODE, true) };
        let attr = self.tree().make(dir, name, node, mode, self.owner, open, Wait::Yes).map_err(failed(path))?;
        self.tree().forget(attr.ino, 1);
        self.tell(&[(dir, name)], &[dir]);
        Ok(attr.ino)
    }

    fn opened(&self, ino: Ino, path: &Path, write: bool) -> Arc<dyn DiskFile> {
        Arc::new(OpenFile { files: self.clone(), ino, path: path.to_owned(), write, locked: Mutex::new(false) })
    }
}

impl Disk for WorkspaceFiles {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let (dir, name) = self.parent(path)?;
        let write = mode != OpenMode::Read;
        if write {
            let made = self.make((dir, name), &NewNode::File, path);
            match made {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && mode == OpenMode::ReadWrite => {}
                made => return Ok(self.opened(made?, path, true)),
            }
        }
        let (ino, kind) = self.look(dir, name, path)?;
        match kind {
            FileKind::File => {}
            FileKind::Directory => return Err(failed(path)(WorkError::IsADirectory)),
            _ => return Err(failed(path)(WorkError::Invalid)),
        }
        self.tree().open(ino, write, false, self.owner.uid, Wait::Yes).map_err(failed(path))?;
        Ok(self.opened(ino, path, write))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (old, new) = (self.parent(from)?, self.parent(to)?);
        let (moved, _) = self.look(old.0, old.1, from)?;
        let replaced = self.look(new.0, new.1, to).ok().map(|(ino, _)| ino);
        self.tree().rename(old, new, RenameMode::Replace, Wait::Yes).map_err(failed(to))?;
        let mut inodes = vec![old.0, new.0, moved];
        inodes.extend(replaced);
        self.tell(&[old, new], &inodes);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (old, new) = (self.parent(from)?, self.parent(to)?);
        let (ino, _) = self.look(old.0, old.1, from)?;
        self.tree().link(ino, new.0, new.1, Wait::Yes).map_err(failed(to))?;
        self.tree().forget(ino, 1);
        self.tell(&[new], &[new.0, ino]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let at = self.parent(path)?;
        let gone = self.look(at.0, at.1, path)?.0;
        self.tree().unlink(at.0, at.1, Wait::Yes).map_err(failed(path))?;
        self.tell(&[at], &[at.0, gone]);
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut at = PathBuf::from("/");
        for name in path.iter().filter(|name| !name.as_bytes().starts_with(b"/")) {
            at.push(name);
            match self.make(self.parent(&at)?, &NewNode::Directory, &at) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        self.dir(path).map(|_| ())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirItem>> {
        let (dir, mut items, mut cookie) = (self.dir(path)?, Vec::new(), 0);
        loop {
            let before = cookie;
            self.tree()
                .readdir(dir, cookie, false, Wait::Yes, &mut |item| {
                    cookie = item.cookie;
                    if let Ok(name) = String::from_utf8(item.name.to_vec()) {
                        let is_dir = item.attr.kind == FileKind::Directory;
                        items.push(DirItem { name, len: if is_dir { 0 } else { item.attr.size }, is_dir });
                    }
                    true
                })
                .map_err(failed(path))?;
            if cookie == before {
                return Ok(items);
            }
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.workspace.fsync_dir().map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.tree().space().map(|space| space.free_bytes).map_err(failed(path))
    }
}

impl OpenFile {
    fn tree(&self) -> &Worktree {
        self.files.tree()
    }

    fn failed(&self) -> impl Fn(WorkError) -> io::Error + '_ {
        failed(&self.path)
    }
}

impl DiskFile for OpenFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let len = (buffer.len() - filled).min(READ_BYTES_MAX);
            let bytes = self.tree().read(self.ino, offset + filled as u64, len, Wait::Yes).map_err(self.failed())?;
            if bytes.is_empty() {
                break;
            }
            buffer[filled..filled + bytes.len()].copy_from_slice(&bytes);
            filled += bytes.len();
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let owner = self.files.owner.uid;
        self.tree().write(self.ino, offset, bytes, owner, Wait::Yes).map_err(self.failed())?;
        self.files.tell(&[], &[self.ino]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let changes = Changes { size: Some(len), ..Changes::default() };
        self.tree().setattr(self.ino, &changes, self.files.owner.uid, Wait::Yes).map_err(self.failed())?;
        self.files.tell(&[], &[self.ino]);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.tree().getattr(self.ino, Wait::Yes).map(|attr| attr.size).map_err(self.failed())
    }

    fn sync(&self) -> io::Result<()> {
        let synced = self.files.workspace.fsync(self.ino);
        synced.map_err(|error| io::Error::other(format!("{}: {error}", self.path.display())))
    }

    fn is_written(&self, offset: u64, len: u64) -> io::Result<bool> {
        match self.tree().seek(self.ino, offset, false, Wait::Yes) {
            Ok(hole) => Ok(hole >= offset.saturating_add(len)),
            Err(WorkError::NoData) => Ok(true),
            Err(error) => Err(self.failed()(error)),
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut locked = self.locked.lock();
        *locked = *locked || self.files.locks.lock().insert(self.ino);
        Ok(*locked)
    }

    fn lock(&self) -> io::Result<()> {
        Err(io::Error::new(ErrorKind::Unsupported, "files of the workspace are locked without waiting only"))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if *self.locked.lock() {
            self.files.locks.lock().remove(&self.ino);
        }
        self.tree().release(self.ino, self.write);
    }
}
