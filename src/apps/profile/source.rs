//! A profile, read and checked: what it would install.

use std::io::Read;

use sha2::Digest;

use super::error::{ProfileError, Result};
use super::files::{Contents, LocalDir, VersionDir};
use super::manifest::{self, File, MANIFEST_LEN_MAX, MANIFEST_NAME, Manifest};
use super::phases::Phase;
use super::request::Place;
use crate::base::ids::{Sha256, VersionId};
use crate::workspace::{Class, Incoming, Workspace, check_path};

/// Bytes hashed at once.
const PIECE_LEN: usize = 256 * 1024;

/// A profile, read and checked.
pub(super) struct Profile {
    pub(super) version: String,
    pub(super) provider: Option<String>,
    /// By path.
    pub(super) files: Vec<Incoming>,
    pub(super) contents: Box<dyn Contents>,
}

impl Profile {
    /// Reads a profile and the digests of its files; `base` is the version that paths of the workspace mean.
    pub(super) fn read(workspace: &Workspace, name: &str, place: &Place, base: VersionId) -> Result<Self> {
        let (contents, at) = open(workspace, name, place, base)?;
        let bytes = read_manifest(workspace, &*contents, &at)?;
        let manifest = Manifest::parse(&bytes, name, &at)?;
        let bad = |problems| ProfileError::BadManifest { manifest: at.clone(), problems };
        let mut listed = manifest.files();
        if listed.is_empty() {
            let all = contents.list(workspace).map_err(|error| bad(vec![error.to_string()]))?;
            let others = all.into_iter().filter(|path| path != MANIFEST_NAME);
            listed = others.map(|path| File { path, ..File::default() }).collect();
        }
        let problems = manifest::path_problems(&listed);
        if !problems.is_empty() {
            return Err(bad(problems));
        }
        let (mut files, mut problems) = (Vec::with_capacity(listed.len()), Vec::new());
        for file in &listed {
            match incoming(workspace, &*contents, file) {
                Ok(file) => files.push(file),
                Err(error) => problems.push(format!("`{}`: {error}", file.path)),
            }
        }
        if !problems.is_empty() {
            return Err(bad(problems));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { version: manifest.version, provider: manifest.provider, files, contents })
    }
}

fn open(workspace: &Workspace, name: &str, place: &Place, base: VersionId) -> Result<(Box<dyn Contents>, String)> {
    match place {
        Place::Directory(dir) => {
            let at = format!("{dir}/{name}/{MANIFEST_NAME}");
            match LocalDir::open(dir, name) {
                Ok(dir) => Ok((Box::new(dir), at)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Err(ProfileError::NoManifest { manifest: at })
                }
                Err(error) => Err(unreadable(at, &error)),
            }
        }
        Place::Workspace(dir) => {
            let dir = dir.trim_matches('/');
            if !dir.is_empty() {
                check_path(dir).map_err(|fault| ProfileError::Path { path: dir.to_owned(), fault })?;
            }
            let top = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
            let record = workspace.version(base).map_err(super::error::during(Phase::Manifest))?;
            let at = format!("{top}/{MANIFEST_NAME} in the workspace");
            Ok((Box::new(VersionDir { record, top }), at))
        }
    }
}

fn unreadable(path: String, error: &std::io::Error) -> ProfileError {
    ProfileError::Source { phase: Phase::Manifest, path, reason: error.to_string() }
}

fn read_manifest(workspace: &Workspace, contents: &dyn Contents, at: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = match contents.open(workspace, MANIFEST_NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ProfileError::NoManifest { manifest: at.to_owned() });
        }
        Err(error) => return Err(unreadable(at.to_owned(), &error)),
    };
    file.take(MANIFEST_LEN_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(at.to_owned(), &error))?;
    if bytes.len() as u64 > MANIFEST_LEN_MAX {
        let problems = vec![format!("it is longer than {MANIFEST_LEN_MAX} bytes")];
        return Err(ProfileError::BadManifest { manifest: at.to_owned(), problems });
    }
    Ok(bytes)
}

fn incoming(workspace: &Workspace, contents: &dyn Contents, file: &File) -> std::io::Result<Incoming> {
    let found = contents.mode(workspace, &file.path)?;
    let plain = if found & 0o100 != 0 { 0o755 } else { 0o644 };
    let mode = file.mode.unwrap_or(plain);
    let class = file.class.unwrap_or(if mode & 0o100 != 0 { Class::Exec } else { Class::Data });
    let mut source = contents.open(workspace, &file.path)?;
    let (mut hasher, mut size, mut buffer) = (sha2::Sha256::new(), 0, vec![0; PIECE_LEN]);
    loop {
        match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Incoming { path: file.path.clone(), mode, size, sha256: Sha256(hasher.finalize().into()), class })
}
