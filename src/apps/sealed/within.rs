//! A file of sealed documents that lies in a workspace: its update is one version, with its backup, or nothing.
//!
//! No lock is taken, since the change rests on what was seen: the file as it was read, and that nobody else had its
//! lock. So programs that update the file through a mount, under the lock, and this keep out of each other's way.
//! The new file is made outside of the workspace and only then put into it, so no version holds a temporary file.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::bytes::Bytes;
use super::error::{Result, SealedError, disk};
use super::file::{Outcome, backup_name};
use super::ids::Credentials;
use super::image::Image;
use super::lock::{LOCK_TIMEOUT_MS, Machine, WORK_DIR, is_lock_held, lock_name, owner_of_temporary};
use super::rewrite::{self, Written};
use crate::base::disk::DiskFile;
use crate::base::random;
use crate::version::entry::{Body, Entry, FileBody};
use crate::workspace::{Change, PutError, Spot, Workspace, WorkspaceError};
use crate::worktree::WorkError;

/// Longest content of a lock file that is looked at, in bytes.
const LOCK_LEN_MAX: usize = 4096;
const BACKUP_MODE: u16 = 0o600;
const WORK_DIR_MODE: u16 = 0o700;

type Names = Vec<Vec<u8>>;

/// Replaces one document of a file of a workspace, given by its names from the root: in one version with the backup, if
/// that is wanted.
///
/// Fails as [`update_file`](super::update_file) does, and as `Workspace` when the file or its lock changed meanwhile.
/// Then nothing has changed.
pub fn update_in_workspace(
    machine: &Machine,
    workspace: &Workspace,
    (path, backup): (&[&[u8]], bool),
    json: &[u8],
    credentials: &Credentials,
) -> Result<Outcome<Written>> {
    let path: Names = path.iter().map(|name| name.to_vec()).collect();
    let shown = shown(&path);
    let mut change = workspace.begin_change()?;
    let (old, body) = find(&mut change, &path)?;
    let source = Stored { workspace, body };
    let name = shown.display().to_string();
    let image = Image::open(&source, &name)?;
    let mut beside = Beside { machine, workspace, dir: work_dir(&path), old: &old, uuid: image.header.uuid };
    beside.look(&mut change)?;
    let target = workspace.scratch_file(image.header.file_len())?;
    let result = rewrite::update_into(&image, &target, credentials, json, machine.clock.now())?;
    let uuid = image.header.uuid;
    let backup = if backup { Some(beside.keep(&mut change)?) } else { None };
    change.replace(path, &old, &mut Sequence { file: target, offset: 0 }).map_err(|error| match error {
        PutError::Workspace(error) => error.into(),
        PutError::Source(error) => disk("reading what was made of", &shown)(error),
        PutError::Digest { .. } => SealedError::NotWritten { file: name.clone(), what: "its digest" },
    })?;
    let lock = beside.path(lock_name(uuid));
    change.commit(&format!("a sealed document of {name} updated")).map_err(|error| locked(error, uuid, &lock))?;
    Ok(Outcome { uuid, backup, result })
}

/// Who made the lock file meanwhile, or the directory for it, works on the file.
fn locked(error: WorkspaceError, uuid: uuid::Uuid, lock: &[Vec<u8>]) -> SealedError {
    let dir = &lock[..lock.len() - 1];
    match error {
        WorkspaceError::Work(WorkError::Changed { path }) if [lock, dir].map(shown).contains(&PathBuf::from(&path)) => {
            SealedError::Locked { file: uuid.to_string(), pid: 0 }
        }
        error => error.into(),
    }
}

/// Checks that there is a file of sealed documents, given by its names from the root; not what it takes to open one.
pub fn check_in_workspace(workspace: &Workspace, path: &[&[u8]]) -> Result<()> {
    let path: Names = path.iter().map(|name| name.to_vec()).collect();
    let (_, body) = find(&mut workspace.begin_change()?, &path)?;
    Image::open(&Stored { workspace, body }, &shown(&path).display().to_string())?;
    Ok(())
}

fn shown(path: &[Vec<u8>]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&path.join(&b'/')))
}

fn work_dir(path: &[Vec<u8>]) -> Names {
    let dirs = path.split_last().map_or(&[][..], |(_, dirs)| dirs);
    [dirs, &[WORK_DIR.as_bytes().to_vec()]].concat()
}

/// The file, and where its content is.
fn find(change: &mut Change<'_>, path: &Names) -> Result<(Box<Entry>, FileBody)> {
    let failed = |kind: io::ErrorKind, what: &str| Err(disk("opening", &shown(path))(io::Error::new(kind, what)));
    match change.look_at(path.clone())? {
        Spot::Taken(entry) => match entry.body.clone() {
            Body::File(body) => Ok((entry, body)),
            Body::Directory { .. } => failed(io::ErrorKind::IsADirectory, "it is a directory"),
            Body::Symlink { .. } => failed(io::ErrorKind::InvalidInput, "it is a symbolic link; name the file itself"),
            _ => failed(io::ErrorKind::InvalidInput, "it is no regular file"),
        },
        Spot::Free => failed(io::ErrorKind::NotFound, "there is no such file"),
        Spot::Blocked(above, what) => failed(io::ErrorKind::NotADirectory, &format!("{above} is {what}")),
    }
}

/// What lies in the work directory beside the file.
struct Beside<'a> {
    machine: &'a Machine,
    workspace: &'a Workspace,
    dir: Names,
    old: &'a Entry,
    uuid: uuid::Uuid,
}

impl Beside<'_> {
    fn path(&self, name: String) -> Names {
        [&*self.dir, &[name.into_bytes()]].concat()
    }

    /// Fails when somebody works on the file; what those left who are gone is removed.
    fn look(&mut self, change: &mut Change<'_>) -> Result<()> {
        match change.look_at(self.dir.clone())? {
            Spot::Free => {}
            Spot::Taken(dir) if dir.is_dir() && dir.mode & 0o077 == 0 => {}
            _ => {
                let reason = io::Error::new(io::ErrorKind::PermissionDenied, "it is no directory of mode 0700");
                return Err(disk("using", &shown(&self.dir))(reason));
            }
        }
        let lock = self.path(lock_name(self.uuid));
        if let Spot::Taken(entry) = change.look_at(lock.clone())? {
            self.check_unlocked(&entry)?;
            change.remove_at(lock);
        }
        for (name, _) in self.workspace.names_in(change.record(), self.dir.join(&b'/'))? {
            if owner_of_temporary(&name) == Some(self.uuid) {
                let left = [&*self.dir, &[name]].concat();
                change.look_at(left.clone())?;
                change.remove_at(left);
            }
        }
        Ok(())
    }

    fn check_unlocked(&self, lock: &Entry) -> Result<()> {
        let Body::File(body) = &lock.body else { return Ok(()) };
        let record = self.workspace.read_file(body, 0, LOCK_LEN_MAX)?;
        match is_lock_held(self.machine, &record, lock.ctime, LOCK_TIMEOUT_MS) {
            Some(pid) => Err(SealedError::Locked { file: self.uuid.to_string(), pid }),
            None => Ok(()),
        }
    }

    /// Lets the file as it is be the content of a backup, too.
    fn keep(&self, change: &mut Change<'_>) -> Result<PathBuf> {
        if let Spot::Free = change.look_at(self.dir.clone())? {
            change.make_dir(self.dir.clone(), self.old, WORK_DIR_MODE);
        }
        let now = self.machine.clock.now();
        let mut backup = self.path(backup_name(self.uuid, now, None));
        if !matches!(change.look_at(backup.clone())?, Spot::Free) {
            let another = uuid::Builder::from_random_bytes(random::bytes()).into_uuid();
            backup = self.path(backup_name(self.uuid, now, Some(another)));
        }
        change.copy(self.old, backup.clone(), BACKUP_MODE);
        Ok(shown(&backup))
    }
}

/// A file of the version that the change rests on.
struct Stored<'a> {
    workspace: &'a Workspace,
    body: FileBody,
}

impl Bytes for Stored<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.workspace.read_file(&self.body, offset, buffer.len()).map_err(io::Error::other)?;
        if bytes.len() < buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn total_len(&self) -> io::Result<u64> {
        Ok(self.body.size)
    }
}

/// A file from its beginning to its end.
struct Sequence {
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl Read for Sequence {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
