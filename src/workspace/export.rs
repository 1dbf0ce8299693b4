//! Writing a version into a local directory: the one place outside of `base::disk` and the command line that writes
//! files, because these are the user's own, with modes, owners and times.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, mkfifo};

use super::opened::Workspace;
use super::restore::entries;
use super::{ExportReport, Progress, Result, WorkspaceError, split_path, xattr};
use crate::base::clock::Timestamp;
use crate::base::disk::TEMPORARY_PREFIX;
use crate::base::ids::VersionId;
use crate::base::random;
use crate::sync::SyncError;
use crate::version::VersionError;
use crate::version::entry::{Body, Content, Entry, FileBody, Ino, name_ok};
use crate::version::index::IndexRecord;
use crate::version::pages::Pages;

/// Bytes read and written at once.
const PIECE_LEN: u64 = 4 << 20;

impl Workspace {
    /// Writes a version, or only `paths` of it, into a local directory (made when missing). Files that are there are
    /// replaced only with `overwrite`. Ends early, as [`SyncError::Stopped`], when `progress` says false.
    pub fn export(
        &self,
        version: VersionId,
        paths: &[Vec<u8>],
        to_dir: &Path,
        overwrite: bool,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<ExportReport> {
        let record = self.version(version)?;
        fs::create_dir_all(to_dir).map_err(|error| WorkspaceError::disk(to_dir, &error))?;
        let mut export = Export {
            workspace: self,
            to_dir,
            record: &record,
            overwrite,
            is_root: Uid::effective().is_root(),
            report: ExportReport::default(),
            linked: HashMap::new(),
            progress,
        };
        if paths.is_empty() {
            export.tree(&record.root.dir, to_dir.to_owned())?;
        }
        for path in paths {
            export.path(&split_path(path))?;
        }
        Ok(export.report)
    }
}

impl Workspace {
    /// The bytes of content below `paths` in a version.
    pub fn bytes_below(&self, version: VersionId, paths: &[Vec<u8>]) -> Result<u64> {
        let record = self.version(version)?;
        if paths.is_empty() {
            return Ok(record.counts.bytes);
        }
        let mut pending = Vec::new();
        for path in paths {
            pending.extend(self.find(&record, &split_path(path))?);
        }
        let mut bytes = 0;
        while let Some(entry) = pending.pop() {
            if entry.is_dir() {
                pending.extend(entries(&Pages(self.blobs()), &entry)?.into_iter().map(|(_, entry)| entry));
            } else if let Body::File(body) = entry.body {
                bytes += body.size;
            }
        }
        Ok(bytes)
    }
}

struct Export<'a> {
    workspace: &'a Workspace,
    to_dir: &'a Path,
    record: &'a IndexRecord,
    overwrite: bool,
    is_root: bool,
    report: ExportReport,
    /// Where inodes with several names were written first.
    linked: HashMap<Ino, PathBuf>,
    progress: &'a mut dyn FnMut(Progress) -> bool,
}

impl Export<'_> {
    /// One selected path, below plain directories for what is above it.
    fn path(&mut self, names: &[&[u8]]) -> Result<()> {
        let found = self.workspace.find(self.record, names)?;
        let entry = found.ok_or_else(|| VersionError::NoSuchPath {
            version: self.record.id,
            path: String::from_utf8_lossy(&names.join(&b'/')).into_owned(),
        })?;
        let mut target = self.to_dir.to_owned();
        for name in names {
            self.make_dir(&target)?;
            target = below(&target, name)?;
        }
        self.tree(&entry, target)
    }

    fn tree(&mut self, entry: &Entry, target: PathBuf) -> Result<()> {
        let mut pending = vec![(entry.clone(), target)];
        let mut dirs = Vec::new();
        while let Some((entry, target)) = pending.pop() {
            if !entry.is_dir() {
                if let Err(error) = self.node(&entry, &target) {
                    self.pass_over_damage(&target, error)?;
                }
                continue;
            }
            self.make_dir(&target)?;
            match entries(&Pages(self.workspace.blobs()), &entry) {
                Ok(names) => {
                    for (name, below_entry) in names.into_iter().rev() {
                        pending.push((below_entry, below(&target, &name)?));
                    }
                }
                Err(error) => self.pass_over_damage(&target, error)?,
            }
            dirs.push((entry, target));
        }
        // Their times and modes last: making names in them would change or forbid it.
        for (entry, target) in dirs.into_iter().rev() {
            self.attributes(&entry, &target)?;
            self.done(0)?;
        }
        Ok(())
    }

    /// What is damaged is listed, and the rest goes on; any other error ends the export.
    fn pass_over_damage(&mut self, target: &Path, error: WorkspaceError) -> Result<()> {
        if !error.is_damage() {
            return Err(error);
        }
        self.report.skipped.push((target.to_owned(), error.to_string()));
        Ok(())
    }

    fn done(&mut self, bytes: u64) -> Result<()> {
        self.report.exported.files += 1;
        self.report.exported.bytes += bytes;
        self.tell(0)
    }

    /// Tells how far it is, with so many bytes of a file that is not whole yet.
    fn tell(&mut self, more: u64) -> Result<()> {
        let Progress { files, bytes } = self.report.exported;
        if (self.progress)(Progress { files, bytes: bytes + more }) { Ok(()) } else { Err(SyncError::Stopped.into()) }
    }

    /// A directory; one that is there will do, but below the top never a link to one.
    fn make_dir(&self, path: &Path) -> Result<()> {
        if path == self.to_dir {
            return Ok(());
        }
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let is_dir = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
                if is_dir { Ok(()) } else { Err(WorkspaceError::InTheWay { path: path.to_owned() }) }
            }
            Err(error) => Err(WorkspaceError::disk(path, &error)),
        }
    }

    /// Anything but a directory. A file has its name only when it is whole.
    fn node(&mut self, entry: &Entry, target: &Path) -> Result<()> {
        let several = matches!(entry.body, Body::Link);
        let entry = self.record.root.resolve(&Pages(self.workspace.blobs()), entry.clone())?;
        self.clear(target)?;
        if let Some(first) = self.linked.get(&entry.ino).filter(|_| several) {
            fs::hard_link(first, target).map_err(|error| WorkspaceError::disk(target, &error))?;
            return self.done(0);
        }
        let bytes = match &entry.body {
            Body::File(body) => {
                let temporary = target.with_file_name(format!("{TEMPORARY_PREFIX}{:016x}", random::number()));
                let written = self.file(body, &temporary).and_then(|()| place(&temporary, target, self.overwrite));
                if let Err(error) = written {
                    // The first error is the one to report.
                    fs::remove_file(&temporary).ok();
                    return Err(error);
                }
                body.size
            }
            _ => {
                if let Err(error) = self.special(&entry, target) {
                    self.report.skipped.push((target.to_owned(), error.to_string()));
                    return Ok(());
                }
                0
            }
        };
        self.attributes(&entry, target)?;
        if several {
            self.linked.insert(entry.ino, target.to_owned());
        }
        self.done(bytes)
    }

    /// Removes what has the name, if that is allowed.
    fn clear(&self, target: &Path) -> Result<()> {
        match fs::symlink_metadata(target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(WorkspaceError::disk(target, &error)),
            Ok(metadata) if metadata.is_dir() || !self.overwrite => {
                Err(WorkspaceError::InTheWay { path: target.to_owned() })
            }
            Ok(_) => fs::remove_file(target).map_err(|error| WorkspaceError::disk(target, &error)),
        }
    }

    fn special(&self, entry: &Entry, target: &Path) -> io::Result<()> {
        let owner_only = Mode::S_IRUSR | Mode::S_IWUSR;
        match &entry.body {
            Body::Symlink { target: to } => std::os::unix::fs::symlink(OsStr::from_bytes(to), target),
            Body::Fifo => Ok(mkfifo(target, owner_only)?),
            Body::Socket => Ok(mknod(target, SFlag::S_IFSOCK, owner_only, 0)?),
            Body::CharDevice { rdev } => Ok(mknod(target, SFlag::S_IFCHR, owner_only, u64::from(*rdev))?),
            Body::BlockDevice { rdev } => Ok(mknod(target, SFlag::S_IFBLK, owner_only, u64::from(*rdev))?),
            Body::File(_) | Body::Directory { .. } | Body::Link => Ok(()),
        }
    }

    /// Content where there is some; holes stay holes.
    fn file(&mut self, body: &FileBody, target: &Path) -> Result<()> {
        let failed = |error: io::Error| WorkspaceError::disk(target, &error);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(target).map_err(failed)?;
        let ranges = match &body.content {
            Content::Empty => Vec::new(),
            Content::Inline(bytes) => vec![(0, bytes.len() as u64)],
            content => {
                let chunks = content.chunks(&Pages(self.workspace.blobs()), 0, body.size)?;
                chunks.into_iter().map(|(offset, chunk)| (offset, u64::from(chunk.len))).collect()
            }
        };
        for (start, len) in ranges {
            let end = start.saturating_add(len).min(body.size);
            let mut at = start;
            while at < end {
                let len = usize::try_from((end - at).min(PIECE_LEN)).unwrap_or(0);
                let bytes = self.workspace.read_file(body, at, len)?;
                file.write_all_at(&bytes, at).map_err(failed)?;
                at += bytes.len().max(1) as u64;
                self.tell(at)?;
            }
        }
        file.set_len(body.size).map_err(failed)
    }

    fn attributes(&mut self, entry: &Entry, target: &Path) -> Result<()> {
        let is_symlink = matches!(entry.body, Body::Symlink { .. });
        if self.is_root {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
            self.note(target, nix::unistd::fchownat(AT_FDCWD, target, Some(uid), Some(gid), flags).map_err(Into::into));
        }
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| name.starts_with(b"user.") && !is_symlink) {
            self.note(target, xattr::set(target, name, value));
        }
        if !is_symlink {
            let mode = fs::Permissions::from_mode(u32::from(entry.mode));
            fs::set_permissions(target, mode).map_err(|error| WorkspaceError::disk(target, &error))?;
        }
        let (atime, mtime) = (spec(entry.atime), spec(entry.mtime));
        let set = utimensat(AT_FDCWD, target, &atime, &mtime, UtimensatFlags::NoFollowSymlink);
        self.note(target, set.map_err(Into::into));
        Ok(())
    }

    /// An attribute that cannot be set is reported, and the rest goes on.
    fn note(&mut self, target: &Path, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            self.report.skipped.push((target.to_owned(), error.to_string()));
        }
    }
}

/// Gives a whole file its name; one that has appeared there since is replaced only with `overwrite`.
#[expect(clippy::disallowed_methods, reason = "a file of the user's own")]
fn place(temporary: &Path, target: &Path, overwrite: bool) -> Result<()> {
    let flags = if overwrite { RenameFlags::empty() } else { RenameFlags::RENAME_NOREPLACE };
    match renameat2(AT_FDCWD, temporary, AT_FDCWD, target, flags) {
        Ok(()) => Ok(()),
        Err(Errno::EEXIST) => Err(WorkspaceError::InTheWay { path: target.to_owned() }),
        // Not every file system knows the flags.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            fs::rename(temporary, target).map_err(|error| WorkspaceError::disk(target, &error))
        }
        Err(error) => Err(WorkspaceError::disk(target, &error.into())),
    }
}

fn spec(time: Timestamp) -> TimeSpec {
    let (seconds, nanoseconds) = time.parts();
    TimeSpec::new(seconds, i64::from(nanoseconds))
}

/// A name below a directory, refusing what would lead elsewhere.
fn below(dir: &Path, name: &[u8]) -> Result<PathBuf> {
    if !name_ok(name) {
        let reason = "a name in it would lead out of the directory".to_owned();
        return Err(WorkspaceError::Unfit { path: dir.to_owned(), reason });
    }
    Ok(dir.join(OsStr::from_bytes(name)))
}
