//! Files on this machine's disk.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::cancel::Cancel;
use super::error::{BatchError, Code, Result};
use super::filesystem::{
    Capabilities, Each, FileInfo, FilePath, FileSystem, Filter, Found, Modified, Replacing, check_unchanged, is_partial,
};
use super::retry::Retrier;
use super::walk::join;
use super::work::{TempFile, changed, copy, rename};
use crate::base::clock::Timestamp;

const XATTRS_LEN_MAX: usize = 64 * 1024;

/// A directory of this machine.
pub struct LocalFiles {
    root: PathBuf,
    address: String,
}

impl LocalFiles {
    /// The files below a directory, which must exist.
    pub fn open(root: &Path) -> Result<Self> {
        let shown = root.display().to_string();
        let root = fs::canonicalize(root).map_err(|error| BatchError::of_io(&*shown, &error))?;
        if !root.is_dir() {
            return Err(BatchError::file(Code::NotAFile, shown, "not a directory"));
        }
        Ok(Self { address: format!("file://{}", root.display()), root })
    }

    fn place(&self, path: &FilePath) -> PathBuf {
        self.root.join(OsStr::from_bytes(path.as_bytes()))
    }

    /// The real place of a file; nothing outside of the root is touched, whatever links say.
    fn real(&self, path: &FilePath) -> Result<PathBuf> {
        let place = fs::canonicalize(self.place(path)).map_err(|error| BatchError::of_io(path.to_string(), &error))?;
        if !place.starts_with(&self.root) {
            let reason = "a symbolic link leads out of the batch's root";
            return Err(BatchError::file(Code::Denied, path.to_string(), reason));
        }
        Ok(place)
    }
}

fn info(path: FilePath, found: &Metadata) -> FileInfo {
    let is_dir = found.is_dir();
    let time = Timestamp::from_parts(found.mtime(), u32::try_from(found.mtime_nsec()).unwrap_or(0));
    let modified = Some(Modified { unix_ns: time.unix_ns(), step_ns: 1 });
    FileInfo { path, size: if is_dir { 0 } else { found.len() }, modified, etag: None, is_dir }
}

/// What a walk remembers.
struct Walk<'a> {
    files: &'a LocalFiles,
    filter: &'a Filter,
    cancel: &'a Cancel,
    pending: Vec<(Vec<u8>, u32)>,
    /// When links are followed: what was seen, by device and number, so that nothing is handed out twice.
    seen: HashSet<(u64, u64)>,
    /// Links, looked at when everything else was seen under its own name.
    links: Vec<(Vec<u8>, u32)>,
}

impl Walk<'_> {
    fn follows(&self) -> bool {
        self.filter.options.follow_symlinks
    }

    fn directory(&mut self, dir: &[u8], depth: u32, each: &mut Each<'_>) -> Result<()> {
        let place = self.files.root.join(OsStr::from_bytes(dir));
        let entries = match fs::read_dir(&place) {
            Ok(entries) => entries,
            Err(error) if depth > 0 => {
                let shown = String::from_utf8_lossy(dir).escape_debug().to_string();
                return each(Found::Failed(BatchError::of_io(shown, &error)));
            }
            Err(error) => return Err(BatchError::of_io(self.files.address.clone(), &error)),
        };
        for (number, entry) in entries.enumerate() {
            if number % 256 == 0 {
                self.cancel.check()?;
            }
            let shown = || String::from_utf8_lossy(dir).escape_debug().to_string();
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    each(Found::Failed(BatchError::of_io(shown(), &error)))?;
                    break;
                }
            };
            let path = join(dir, &entry.file_name().into_vec());
            match entry.metadata() {
                Ok(found) => self.name(path, &found, depth, each)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => each(Found::Failed(BatchError::of_io(shown(), &error)))?,
            }
        }
        Ok(())
    }

    fn name(&mut self, path: Vec<u8>, found: &Metadata, depth: u32, each: &mut Each<'_>) -> Result<()> {
        if found.is_symlink() {
            if self.follows() {
                self.links.push((path, depth));
            }
            return Ok(());
        }
        if found.is_file() && is_partial(&path) {
            return FilePath::new(path).map_or(Ok(()), |place| each(Found::Partial(info(place, found))));
        }
        if !found.is_dir() && !found.is_file() {
            return Ok(());
        }
        let takes = self.filter.takes(&path, found.is_dir());
        let enters = found.is_dir() && self.filter.enters(&path, depth + 1);
        if (takes || enters) && self.follows() && !self.seen.insert((found.dev(), found.ino())) {
            return Ok(());
        }
        if takes && let Some(place) = FilePath::new(&*path) {
            each(Found::File(info(place, found)))?;
        }
        if enters {
            self.pending.push((path, depth + 1));
        }
        Ok(())
    }

    fn link(&mut self, path: Vec<u8>, depth: u32, each: &mut Each<'_>) -> Result<()> {
        let Some(place) = FilePath::new(&*path) else { return Ok(()) };
        let found = self
            .files
            .real(&place)
            .and_then(|real| fs::metadata(real).map_err(|error| BatchError::of_io(place.to_string(), &error)));
        match found {
            Ok(found) => self.name(path, &found, depth, each),
            Err(error) => each(Found::Failed(error)),
        }
    }
}

impl FileSystem for LocalFiles {
    fn walk(&self, filter: &Filter, retrier: &Retrier<'_>, each: &mut Each<'_>) -> Result<()> {
        if filter.options.max_depth == Some(0) {
            return Ok(());
        }
        let pending = vec![(Vec::new(), 0)];
        let root = fs::metadata(&self.root).map_err(|error| BatchError::of_io(self.address.clone(), &error))?;
        let seen = HashSet::from([(root.dev(), root.ino())]);
        let mut walk = Walk { files: self, filter, cancel: retrier.cancel, pending, seen, links: Vec::new() };
        loop {
            while let Some((dir, depth)) = walk.pending.pop() {
                walk.directory(&dir, depth, each)?;
            }
            let Some((path, depth)) = walk.links.pop() else { return Ok(()) };
            walk.link(path, depth, each)?;
        }
    }

    fn stat(&self, path: &FilePath) -> Result<FileInfo> {
        let found = fs::metadata(self.real(path)?).map_err(|error| BatchError::of_io(path.to_string(), &error))?;
        Ok(info(path.clone(), &found))
    }

    fn download(&self, path: &FilePath, to: &mut dyn Write) -> Result<FileInfo> {
        let failed = |error: io::Error| BatchError::of_io(path.to_string(), &error);
        let place = self.real(path)?;
        let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(place).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() {
            return Err(BatchError::file(Code::NotAFile, path.to_string(), "not a file any more"));
        }
        let len = copy(&mut (&mut file).take(found.len().saturating_add(1)), to).map_err(failed)?;
        let after = info(path.clone(), &file.metadata().map_err(failed)?);
        if len != after.size || after != info(path.clone(), &found) {
            return Err(changed(&path.to_string()));
        }
        Ok(after)
    }

    fn replace(&self, expected: &FileInfo, from: &TempFile) -> Result<FileInfo> {
        let path = &expected.path;
        let failed = |error: io::Error| BatchError::of_io(path.to_string(), &error);
        let target = self.real(path)?;
        let found = fs::symlink_metadata(&target).map_err(failed)?;
        check_unchanged(expected, &info(path.clone(), &found))?;
        let partial = target.with_file_name(OsStr::from_bytes(path.partial().split().1));
        let written = (|| {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
            copy(&mut from.reader()?, &mut file)?;
            take_over(&target, &found, &file)?;
            file.sync_data()
        })();
        let replaced = written.map_err(failed).and_then(|()| {
            let now = fs::symlink_metadata(&target).map_err(failed)?;
            check_unchanged(expected, &info(path.clone(), &now))?;
            rename(&partial, &target).map_err(failed)
        });
        if let Err(error) = replaced {
            fs::remove_file(&partial).ok();
            return Err(error);
        }
        Ok(info(path.clone(), &fs::symlink_metadata(&target).map_err(failed)?))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { replacing: Replacing::Atomic, whole_run: false, connections_max: usize::MAX }
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn remove(&self, path: &FilePath) -> Result<()> {
        fs::remove_file(self.place(path)).map_err(|error| BatchError::of_io(path.to_string(), &error))
    }
}

/// Gives the new file the owner, mode and extended attributes of the one it replaces.
fn take_over(target: &Path, found: &Metadata, file: &File) -> io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (found.uid(), found.gid()) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(found.uid()), rustix::fs::Gid::from_raw(found.gid()));
        rustix::fs::fchown(file, Some(uid), Some(gid))?;
    }
    file.set_permissions(fs::Permissions::from_mode(found.mode() & 0o7777))?;
    let mut names = vec![0; XATTRS_LEN_MAX];
    let Ok(len) = rustix::fs::llistxattr(target, &mut names) else { return Ok(()) };
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; XATTRS_LEN_MAX];
        let len = rustix::fs::lgetxattr(target, name, &mut value)?;
        // Labels that only the system may set come about by themselves.
        match rustix::fs::fsetxattr(file, name, &value[..len], rustix::fs::XattrFlags::empty()) {
            Err(error) if name.starts_with(b"user.") => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
