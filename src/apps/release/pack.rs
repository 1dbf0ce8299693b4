//! From a directory to the description of a package.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags};
use semver::{Version, VersionReq};
use serde::Deserialize;

use super::error::{ReleaseError, Result};
use super::package::{Check, File, PACKAGE_LEN_MAX, Package, UpdateType};
use crate::base::disk::{Disk, OpenMode, RealDisk, read_file};
use crate::base::ids::Sha256;
use crate::workspace::{Class, integrity_of_file};

/// Below it are the files that are installed.
pub(super) const FILES: &str = "files";
const PIECE_LEN: usize = 1 << 20;

/// `package.json` as its author writes it: without digests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Draft {
    name: String,
    version: Version,
    #[serde(rename = "type")]
    update_type: UpdateType,
    #[serde(default)]
    changes: Vec<String>,
    #[serde(default)]
    security_epoch: u32,
    #[serde(default)]
    from: Option<VersionReq>,
    #[serde(default)]
    floor: Option<String>,
    #[serde(default)]
    rollback: Option<bool>,
    #[serde(default)]
    dependencies: BTreeMap<String, VersionReq>,
    #[serde(default)]
    conflicts: BTreeMap<String, VersionReq>,
    #[serde(default)]
    classes: BTreeMap<String, Class>,
    #[serde(default)]
    checks: Vec<Check>,
}

impl Draft {
    pub(super) fn parse(bytes: &[u8], dir: &str) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| bad(dir, format!("package.json: {error}")))
    }
}

fn bad(dir: &str, problem: String) -> ReleaseError {
    ReleaseError::BadPackage { package: dir.to_owned(), problems: vec![problem] }
}

/// Reads a package directory: `package.json`, and below `files` what is installed.
pub(super) fn pack(dir: &str) -> Result<Package> {
    let bad = |problem: String| bad(dir, problem);
    let len_max = usize::try_from(PACKAGE_LEN_MAX).unwrap_or(usize::MAX);
    let bytes = read_file(&RealDisk, &Path::new(dir).join("package.json"), len_max)
        .map_err(|error| bad(format!("package.json: {error}")))?;
    let draft = Draft::parse(&bytes, dir)?;
    let top = Path::new(dir).join(FILES);
    let mut files = Vec::new();
    for (path, mode) in list(&top).map_err(|error| bad(error.to_string()))? {
        let (size, digest) = digest(&top.join(&path)).map_err(|error| bad(format!("{path}: {error}")))?;
        let class = draft.classes.get(&path).copied();
        let class = class.unwrap_or(if mode & 0o100 != 0 { Class::Exec } else { Class::Data });
        files.push(File { path, mode, size, integrity: integrity_of_file(&digest), class, chunks: Vec::new() });
    }
    if let Some(path) = draft.classes.keys().find(|path| !files.iter().any(|file| file.path == **path)) {
        return Err(bad(format!("`classes` names `{path}`, which is not below `{FILES}`")));
    }
    let package = Package {
        name: draft.name,
        version: draft.version,
        update_type: draft.update_type,
        changes: draft.changes,
        security_epoch: draft.security_epoch,
        from: draft.from,
        floor: draft.floor,
        rollback: draft.rollback.unwrap_or(true),
        dependencies: draft.dependencies,
        conflicts: draft.conflicts,
        files,
        checks: draft.checks,
    };
    package.check()?;
    Ok(package)
}

fn digest(path: &Path) -> io::Result<(u64, Sha256)> {
    let file = RealDisk.open(path, OpenMode::Read)?;
    let (mut hasher, mut size, mut piece) = (<sha2::Sha256 as sha2::Digest>::new(), 0, vec![0; PIECE_LEN]);
    loop {
        let count = file.read_at(&mut piece, size)?;
        if count == 0 {
            return Ok((size, Sha256(sha2::Digest::finalize(hasher).into())));
        }
        sha2::Digest::update(&mut hasher, &piece[..count]);
        size += count as u64;
    }
}

/// Paths and modes of all regular files; symbolic links are refused.
fn list(top: &Path) -> io::Result<Vec<(String, u16)>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (mut found, mut waiting) = (Vec::new(), vec![String::new()]);
    while let Some(dir) = waiting.pop() {
        let open = rustix::fs::open(top.join(&dir), flags, Mode::empty())
            .map_err(|error| io::Error::other(format!("{FILES}/{dir}: {error}")))?;
        for entry in Dir::read_from(&open)? {
            let entry = entry?;
            let name = entry.file_name().to_str().map_err(|_| io::Error::other("a name is not UTF-8"))?;
            if matches!(name, "." | "..") {
                continue;
            }
            let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
            let stat = rustix::fs::statat(&open, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => waiting.push(path),
                FileType::RegularFile => {
                    found.push((path, if stat.st_mode & 0o100 != 0 { 0o755 } else { 0o644 }));
                }
                _ => return Err(io::Error::other(format!("{path} is neither a file nor a directory"))),
            }
        }
    }
    found.sort();
    Ok(found)
}
