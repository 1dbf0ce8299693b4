//! A workspace as pages and screens look at it: requests, and the names and bytes of its versions, through the mount
//! or in this process.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use serde::Serialize;

use super::Context;
use super::door::{Target, ask_mount, mount_failure, workspace_options};
use super::output::{outcome, size};
use crate::control::{Dispatcher, Exit, Failure, PathText, Reply, Request, kind_word};
use crate::version::VersionError;
use crate::version::entry::{Body, Entry, FileBody};
use crate::version::index::IndexRecord;
use crate::workspace::Workspace;

/// Names of one directory that are listed; further ones are counted.
const NAMES_MAX: usize = 10_000;
/// Longest part of a file that is read at once, in bytes.
pub const READ_LEN: usize = 1 << 20;

/// A workspace that is looked at.
pub enum View {
    /// Mounted here.
    Mounted(PathBuf),
    /// Opened in this process, with who answers requests.
    Opened(Arc<Workspace>, Arc<Dispatcher>),
}

/// One name of a directory.
#[derive(Debug, Serialize)]
pub struct Item {
    /// The name.
    pub name: PathText,
    /// `file`, `directory`, `symlink`, …
    pub kind: &'static str,
    /// Size of a file, in bytes.
    pub size: Option<u64>,
    /// When it was last modified, in nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// The names of a directory.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// Directories first, then by name.
    pub items: Vec<Item>,
    /// So many more are there.
    pub more: usize,
}

/// A file of a version.
#[derive(Clone)]
pub struct Content {
    /// Its length in bytes.
    pub size: u64,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Mount(Arc<File>),
    Store(Arc<Workspace>, FileBody),
}

impl View {
    /// Looks at the workspace that was asked for; opens it in this process where it is not mounted.
    pub fn open(context: &Context, target: Target, read_only: bool) -> Result<Self, Failure> {
        let store = match target {
            Target::Mount(mount) => return Ok(View::Mounted(mount)),
            Target::Store(store) => store,
        };
        let mut options = workspace_options(context, &store)?;
        options.read_only = read_only;
        let workspace = Workspace::open(options)?;
        let control = Dispatcher::new(workspace.clone(), || {})?;
        workspace.start();
        control.jobs().start();
        Ok(View::Opened(workspace, control))
    }

    /// What is looked at, for people.
    pub fn name(&self) -> String {
        match self {
            View::Mounted(mount) => mount.display().to_string(),
            View::Opened(workspace, _) => workspace.status().store,
        }
    }

    /// Runs a request; a reply that tells of a failure is still a reply.
    pub fn ask(&self, request: &Request) -> Result<Reply, Failure> {
        match self {
            View::Mounted(mount) => ask_mount(mount, request),
            View::Opened(_, control) => {
                let bytes = serde_json::to_vec(request).map_err(|error| not_json(&error))?;
                serde_json::from_slice(&control.answer(None, b"", &bytes).bytes).map_err(|error| not_json(&error))
            }
        }
    }

    /// Runs a request; what it tells, where it was done.
    pub fn data(&self, request: &Request) -> Result<serde_json::Value, Failure> {
        let reply = self.ask(request)?;
        outcome(&reply)?;
        Ok(reply.data)
    }

    /// The names of a directory of a version, given by its full id.
    pub fn list(&self, version: &str, path: &PathText) -> Result<Listing, Failure> {
        let (version, names) = (full_id(version)?, names_of(path)?);
        let mut items = match self {
            View::Mounted(mount) => {
                let dir = self.open_past(mount, &version, &names, OFlags::DIRECTORY)?;
                // The descriptor stands for the directory however its path may lead elsewhere by now.
                let failed = |error| past_failure(mount, &version, path, &error);
                let place = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
                let entries = std::fs::read_dir(place).map_err(failed)?;
                entries.map(|entry| mounted_item(&entry?)).collect::<io::Result<Vec<Item>>>().map_err(failed)?
            }
            View::Opened(workspace, _) => {
                let (record, dir) = find(workspace, &version, path, &names)?;
                opened_items(workspace, &record, &dir).ok_or_else(|| {
                    Failure::new(Exit::Other, format!("`{path}` of version {version} is no directory"))
                })??
            }
        };
        items.sort_by(|a, b| (a.kind != "directory", &a.name).cmp(&(b.kind != "directory", &b.name)));
        let more = items.len().saturating_sub(NAMES_MAX);
        items.truncate(NAMES_MAX);
        Ok(Listing { items, more })
    }

    /// A file of a version, given by its full id.
    pub fn file(&self, version: &str, path: &PathText) -> Result<Content, Failure> {
        let (version, names) = (full_id(version)?, names_of(path)?);
        let no_file = || Failure::new(Exit::Other, format!("`{path}` of version {version} is no regular file"));
        match self {
            View::Mounted(mount) => {
                let file = self.open_past(mount, &version, &names, OFlags::NONBLOCK)?;
                let meta = file.metadata().map_err(|error| past_failure(mount, &version, path, &error))?;
                if !meta.is_file() {
                    return Err(no_file());
                }
                Ok(Content { size: meta.len(), place: Place::Mount(Arc::new(file)) })
            }
            View::Opened(workspace, _) => {
                let (_, entry) = find(workspace, &version, path, &names)?;
                let Body::File(body) = entry.body else { return Err(no_file()) };
                Ok(Content { size: body.size, place: Place::Store(workspace.clone(), body) })
            }
        }
    }

    /// Opens what a version has at a path, and nothing that a symbolic link may lead to.
    fn open_past(&self, mount: &Path, version: &str, names: &[&[u8]], flags: OFlags) -> Result<File, Failure> {
        let path = PathText(names.join(&b'/'));
        let failed = |error: io::Error| past_failure(mount, version, &path, &error);
        let root = File::open(mount.join(".kura/versions/by-id").join(version)).map_err(failed)?;
        let below = if names.is_empty() { b".".as_slice() } else { &path.0 };
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let found = openat2(&root, OsStr::from_bytes(below), flags, Mode::empty(), resolve);
        Ok(File::from(found.map_err(|error| failed(error.into()))?))
    }

    /// Ends what was opened here. What was changed is published as far as the store can be reached; the rest waits.
    pub fn close(&self) -> Result<Exit, Failure> {
        let View::Opened(workspace, control) = self else { return Ok(Exit::Ok) };
        control.jobs().close();
        let report = workspace.close(!workspace.is_read_only())?;
        if report.unpublished_versions == 0 {
            return Ok(Exit::Ok);
        }
        super::output::warn(&format!(
            "recorded on this machine and not published: {} versions ({}) wait",
            report.unpublished_versions,
            size(report.unpublished_bytes)
        ));
        Ok(Exit::Partial)
    }
}

impl Content {
    /// Reads a part; shorter where the file ends, and never longer than [`READ_LEN`].
    pub fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, Failure> {
        let len = len.min(READ_LEN);
        match &self.place {
            Place::Store(workspace, body) => Ok(workspace.read_file(body, offset, len)?),
            Place::Mount(file) => {
                let mut bytes = vec![0; len];
                let count = file.read_at(&mut bytes, offset).map_err(|error| {
                    Failure::new(Exit::Other, format!("the file cannot be read: {error}")).hint(
                        "`kura status` says whether the store is away; the log of the mount names what is damaged",
                    )
                })?;
                bytes.truncate(count);
                Ok(bytes)
            }
        }
    }

    /// Reads its first bytes, at most so many.
    pub fn read_first(&self, max: u64) -> Result<Vec<u8>, Failure> {
        let wanted = self.size.min(max);
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < wanted {
            let left = usize::try_from(wanted - bytes.len() as u64).unwrap_or(READ_LEN);
            let part = self.read_at(bytes.len() as u64, left)?;
            if part.is_empty() {
                break;
            }
            bytes.extend(part);
        }
        Ok(bytes)
    }
}

fn not_json(error: &serde_json::Error) -> Failure {
    Failure::new(Exit::Other, format!("the request cannot be written as JSON: {error}"))
}

/// The id of a version as paths hold it; nothing else can get into a path this way.
fn full_id(version: &str) -> Result<String, Failure> {
    let id = version.parse::<uuid::Uuid>().map_err(|_| {
        Failure::new(Exit::Usage, "the full id of a version is needed").hint("`kura log --json` shows them")
    })?;
    Ok(id.hyphenated().to_string())
}

fn names_of(path: &PathText) -> Result<Vec<&[u8]>, Failure> {
    let names = path.names().filter(|names| !names.iter().any(|name| name.contains(&0)));
    names.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("`{path}` leaves the workspace")).hint("give the path from its root")
    })
}

fn past_failure(mount: &Path, version: &str, path: &PathText, error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => Failure::new(Exit::Other, format!("version {version} has no `{path}`")),
        Some(libc::ELOOP | libc::EXDEV) => {
            Failure::new(Exit::Usage, format!("`{path}` of version {version} leads through a symbolic link"))
        }
        Some(libc::EIO | libc::ETIMEDOUT) => {
            Failure::new(Exit::Unreachable, format!("`{path}` of version {version} cannot be read now: {error}"))
        }
        _ => mount_failure(mount, error),
    }
}

fn mounted_item(entry: &std::fs::DirEntry) -> io::Result<Item> {
    let meta = entry.metadata()?;
    let kind = match meta.mode() & libc::S_IFMT {
        libc::S_IFREG => "file",
        libc::S_IFDIR => "directory",
        libc::S_IFLNK => "symlink",
        libc::S_IFIFO => "fifo",
        libc::S_IFSOCK => "socket",
        libc::S_IFCHR => "character device",
        _ => "block device",
    };
    Ok(Item {
        name: PathText(entry.file_name().as_bytes().to_vec()),
        kind,
        size: meta.is_file().then_some(meta.len()),
        mtime_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
    })
}

fn find(
    workspace: &Workspace,
    version: &str,
    path: &PathText,
    names: &[&[u8]],
) -> Result<(Arc<IndexRecord>, Entry), Failure> {
    let id = workspace.select(version)?;
    let record = workspace.version(id)?;
    let entry = workspace.find(&record, names)?;
    let entry = entry.ok_or_else(|| VersionError::NoSuchPath { version: id, path: path.to_string() })?;
    Ok((record, entry))
}

/// The names in a directory; `None` for anything else.
fn opened_items(workspace: &Workspace, record: &IndexRecord, dir: &Entry) -> Option<Result<Vec<Item>, Failure>> {
    let Body::Directory { names, .. } = &dir.body else { return None };
    let pages = workspace.pages();
    let mut raw = Vec::new();
    let scanned = names.scan(&*pages, std::ops::Bound::Unbounded, &mut |name, value| {
        raw.push((name.to_vec(), value.to_vec()));
        true
    });
    let item = |(name, value): (Vec<u8>, Vec<u8>)| {
        let entry = record.root.resolve(&*pages, Entry::decode(&value)?)?;
        let size = if let Body::File(file) = &entry.body { Some(file.size) } else { None };
        let mtime_ns = entry.mtime.unix_ns();
        Ok(Item { name: PathText(name), kind: kind_word(&entry), size, mtime_ns })
    };
    Some(scanned.and_then(|()| raw.into_iter().map(item).collect()).map_err(Failure::from))
}
