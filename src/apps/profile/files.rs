//! Where the content of files comes from.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Dir, FileType, Mode, OFlags, fstat, openat};

use super::lockfile::Entry as Installed;
use crate::base::ids::Sha256;
use crate::version::entry::{Body, FileBody};
use crate::version::index::IndexRecord;
use crate::workspace::Workspace;

/// Content by paths of a profile.
pub(super) trait Contents {
    /// Opens a regular file.
    fn open<'a>(&'a self, workspace: &'a Workspace, path: &str) -> std::io::Result<Box<dyn Read + 'a>>;
    /// The permission bits of a regular file.
    fn mode(&self, workspace: &Workspace, path: &str) -> std::io::Result<u16>;
    /// All regular files, by path.
    fn list(&self, workspace: &Workspace) -> std::io::Result<Vec<String>>;
}

/// A directory of the local disk. Nothing outside of it is ever opened: no symbolic link is followed.
pub(super) struct LocalDir(OwnedFd);

/// A directory of a version.
pub(super) struct VersionDir {
    pub(super) record: Arc<IndexRecord>,
    /// From the root; empty for it.
    pub(super) top: String,
}

/// What an earlier install put into the workspace, as it was in the version which holds that install.
pub(super) struct Earlier {
    pub(super) record: Arc<IndexRecord>,
    pub(super) entry: Installed,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A pipe that took a file's place is not waited for.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl LocalDir {
    /// Opens the directory `name` in the directory `dir`.
    pub(super) fn open(dir: &str, name: &str) -> std::io::Result<Self> {
        let top = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self(openat(&top, name, DIRECTORY, Mode::empty())?))
    }

    fn find(&self, path: &str, flags: OFlags) -> std::io::Result<OwnedFd> {
        let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut at: Option<OwnedFd> = None;
        for part in dirs.split('/').filter(|part| !part.is_empty()) {
            at = Some(openat(at.as_ref().unwrap_or(&self.0).as_fd(), part, DIRECTORY, Mode::empty())?);
        }
        Ok(openat(at.as_ref().unwrap_or(&self.0).as_fd(), name, flags, Mode::empty())?)
    }

    fn file(&self, path: &str) -> std::io::Result<(OwnedFd, u16)> {
        let file = self.find(path, FILE)?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(std::io::Error::other("it is no regular file"));
        }
        Ok((file, u16::try_from(stat.st_mode & 0o777).unwrap_or(0o644)))
    }
}

/// An open file of the local disk.
struct OpenFile(OwnedFd);

impl Read for OpenFile {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        Ok(rustix::io::read(&self.0, buffer)?)
    }
}

impl Contents for LocalDir {
    fn open<'a>(&'a self, _: &'a Workspace, path: &str) -> std::io::Result<Box<dyn Read + 'a>> {
        Ok(Box::new(OpenFile(self.file(path)?.0)))
    }

    fn mode(&self, _: &Workspace, path: &str) -> std::io::Result<u16> {
        Ok(self.file(path)?.1)
    }

    fn list(&self, _: &Workspace) -> std::io::Result<Vec<String>> {
        let (mut found, mut waiting) = (Vec::new(), vec![String::new()]);
        while let Some(dir) = waiting.pop() {
            let open = if dir.is_empty() { self.find(".", DIRECTORY)? } else { self.find(&dir, DIRECTORY)? };
            for entry in Dir::read_from(&open)? {
                let entry = entry?;
                let name = entry.file_name().to_str().map_err(|_| odd_name(&dir))?;
                if matches!(name, "." | "..") {
                    continue;
                }
                let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
                let stat = rustix::fs::statat(&open, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => waiting.push(path),
                    FileType::RegularFile => found.push(path),
                    _ => return Err(no_file(&path)),
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

impl VersionDir {
    fn path(&self, path: &str) -> String {
        if self.top.is_empty() { path.to_owned() } else { format!("{}/{path}", self.top) }
    }

    fn find(&self, workspace: &Workspace, path: &str) -> std::io::Result<(FileBody, u16)> {
        find(workspace, &self.record, &self.path(path))
    }
}

impl Contents for VersionDir {
    fn open<'a>(&'a self, workspace: &'a Workspace, path: &str) -> std::io::Result<Box<dyn Read + 'a>> {
        Ok(Box::new(workspace.content(self.find(workspace, path)?.0)))
    }

    fn mode(&self, workspace: &Workspace, path: &str) -> std::io::Result<u16> {
        Ok(self.find(workspace, path)?.1)
    }

    fn list(&self, workspace: &Workspace) -> std::io::Result<Vec<String>> {
        let (mut found, mut waiting) = (Vec::new(), vec![String::new()]);
        while let Some(dir) = waiting.pop() {
            let names = workspace.names_in(&self.record, self.path(&dir)).map_err(std::io::Error::other)?;
            for (name, entry) in names {
                let name = String::from_utf8(name).map_err(|_| odd_name(&dir))?;
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                match entry.body {
                    Body::Directory { .. } => waiting.push(path),
                    Body::File(_) => found.push(path),
                    _ => return Err(no_file(&path)),
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

impl Earlier {
    fn find(&self, workspace: &Workspace, path: &str) -> std::io::Result<(FileBody, u16)> {
        let file = self.entry.files.iter().find(|file| file.path == path).ok_or(std::io::ErrorKind::NotFound)?;
        let sidecars = self.entry.sidecars.iter().filter(|sidecar| sidecar.meant_for == path);
        let places = [path].into_iter().chain(sidecars.map(|sidecar| sidecar.path.as_str()));
        for place in places {
            if let Ok((body, _)) = find(workspace, &self.record, place)
                && digest(workspace, &body)? == file.sha256
            {
                return Ok((body, file.mode));
            }
        }
        Err(std::io::Error::other("the version of that install does not have it as it was installed"))
    }
}

impl Contents for Earlier {
    fn open<'a>(&'a self, workspace: &'a Workspace, path: &str) -> std::io::Result<Box<dyn Read + 'a>> {
        Ok(Box::new(workspace.content(self.find(workspace, path)?.0)))
    }

    fn mode(&self, workspace: &Workspace, path: &str) -> std::io::Result<u16> {
        Ok(self.find(workspace, path)?.1)
    }

    fn list(&self, _: &Workspace) -> std::io::Result<Vec<String>> {
        Ok(self.entry.files.iter().map(|file| file.path.clone()).collect())
    }
}

fn digest(workspace: &Workspace, body: &FileBody) -> std::io::Result<Sha256> {
    workspace.digest(body).map_err(std::io::Error::other)
}

fn find(workspace: &Workspace, record: &IndexRecord, path: &str) -> std::io::Result<(FileBody, u16)> {
    let names: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
    let entry = workspace.find(record, &names).map_err(std::io::Error::other)?;
    let entry = entry.ok_or(std::io::ErrorKind::NotFound)?;
    match entry.body {
        Body::File(body) => Ok((body, entry.mode & 0o777)),
        _ => Err(std::io::Error::other("it is no regular file")),
    }
}

fn odd_name(dir: &str) -> std::io::Error {
    std::io::Error::other(format!("a name in `{dir}` is not UTF-8"))
}

fn no_file(path: &str) -> std::io::Error {
    std::io::Error::other(format!("`{path}` is neither a file nor a directory"))
}
