//! A workspace for tests: made with cheap keys, opened without background threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kura::base::ids::FileId;
use kura::crypto::slots::{Credential, KdfParams, NewSlot, Secret};
use kura::store::{ObjectStore, StoreUrl};
use kura::version::entry::{Entry, Ino};
use kura::workspace::{InitOptions, OpenOptions, Workspace, WorkspaceError};
use kura::worktree::{Caller, Changes, NewNode, SetTime, Wait, XattrMode};

pub const PASSPHRASE: &str = "correct horse battery staple";
const ROOT: Caller = Caller { uid: 0, gid: 0 };

pub fn passphrase() -> Credential {
    Credential::Passphrase(Secret::from_text(PASSPHRASE.to_owned()))
}

pub fn init_options() -> InitOptions {
    let mut options = InitOptions::new(vec![NewSlot { label: "test".to_owned(), credential: passphrase() }]);
    options.kdf = KdfParams::minimum();
    options
}

/// Options for a client whose local state lies in `local`.
pub fn open_options(store: StoreUrl, local: &Path) -> OpenOptions {
    OpenOptions::new(store, local.join("state"), local.join("cache"), Box::new(|| Ok(passphrase())))
}

/// Makes a workspace in `store` and opens it with local state in `local`.
pub fn create(store: Arc<dyn ObjectStore>, local: &Path) -> Arc<Workspace> {
    Workspace::init_in(&*store, init_options()).unwrap();
    open(store, local).unwrap()
}

/// Opens the workspace in `store`.
pub fn open(store: Arc<dyn ObjectStore>, local: &Path) -> Result<Arc<Workspace>, WorkspaceError> {
    let url = StoreUrl::Dir(PathBuf::from("/nowhere").join(store.address().replace('/', "_")));
    Workspace::open_in(store, open_options(url, local))
}

/// Finds the inode of a path of live names.
pub fn ino(workspace: &Workspace, path: &str) -> Ino {
    path.split('/')
        .filter(|name| !name.is_empty())
        .fold(Ino::ROOT, |dir, name| workspace.tree().lookup(dir, name.as_bytes(), Wait::Yes).unwrap().ino)
}

fn parent_and_name(workspace: &Workspace, path: &str) -> (Ino, String) {
    match path.rsplit_once('/') {
        Some((dir, name)) => (ino(workspace, dir), name.to_owned()),
        None => (Ino::ROOT, path.to_owned()),
    }
}

/// Makes a directory.
pub fn mkdir(workspace: &Workspace, path: &str) -> Ino {
    make(workspace, path, &NewNode::Directory, false)
}

fn make(workspace: &Workspace, path: &str, node: &NewNode, open: bool) -> Ino {
    let (dir, name) = parent_and_name(workspace, path);
    workspace.tree().make(dir, name.as_bytes(), node, 0o755, ROOT, open, Wait::Yes).unwrap().ino
}

/// Makes a symbolic link.
pub fn symlink(workspace: &Workspace, path: &str, target: &str) -> Ino {
    make(workspace, path, &NewNode::Symlink(target.as_bytes().to_vec()), false)
}

/// Writes a whole file, new or old, and closes it.
pub fn write(workspace: &Workspace, path: &str, bytes: &[u8]) -> Ino {
    let (dir, name) = parent_and_name(workspace, path);
    let tree = workspace.tree();
    let ino = match tree.lookup(dir, name.as_bytes(), Wait::Yes) {
        Ok(attr) => {
            tree.open(attr.ino, true, true, 0, Wait::Yes).unwrap();
            attr.ino
        }
        Err(_) => make(workspace, path, &NewNode::File, true),
    };
    for (index, block) in bytes.chunks(1 << 20).enumerate() {
        tree.write(ino, (index << 20) as u64, block, 0, Wait::Yes).unwrap();
    }
    tree.release(ino, true);
    ino
}

/// Gives a file another name.
pub fn link(workspace: &Workspace, path: &str, new: &str) {
    let inode = ino(workspace, path);
    let (dir, name) = parent_and_name(workspace, new);
    workspace.tree().link(inode, dir, name.as_bytes(), Wait::Yes).unwrap();
}

/// Sets an extended attribute.
pub fn setxattr(workspace: &Workspace, path: &str, name: &str, value: &str) {
    let inode = ino(workspace, path);
    workspace.tree().setxattr(inode, name.as_bytes(), value.as_bytes(), XattrMode::Set, Wait::Yes).unwrap();
}

/// Sets a modification time.
pub fn touch(workspace: &Workspace, path: &str, time: kura::base::clock::Timestamp) {
    let changes = Changes { mtime: Some(SetTime::At(time)), ..Changes::default() };
    workspace.tree().setattr(ino(workspace, path), &changes, 0, Wait::Yes).unwrap();
}

/// Removes a file's name.
pub fn unlink(workspace: &Workspace, path: &str) {
    let (dir, name) = parent_and_name(workspace, path);
    workspace.tree().unlink(dir, name.as_bytes(), Wait::Yes).unwrap();
}

/// One line for every name of a version, sorted: what it is, and a digest of what is in it.
pub fn manifest(workspace: &Workspace, version: kura::base::ids::VersionId) -> Result<Vec<String>, WorkspaceError> {
    let record = workspace.version(version)?;
    let mut lines = Vec::new();
    let mut dirs = vec![(String::new(), record.root.dir.clone())];
    let pages = workspace.pages();
    while let Some((path, dir)) = dirs.pop() {
        let kura::version::entry::Body::Directory { names, .. } = &dir.body else { continue };
        let mut items = Vec::new();
        names.scan(&*pages, std::ops::Bound::Unbounded, &mut |name, value| {
            items.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
            true
        })?;
        for (name, value) in items {
            let entry = record.root.resolve(&*pages, Entry::decode(&value)?)?;
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            lines.push(format!("{path} {}", describe(workspace, &entry)?));
            if entry.is_dir() {
                dirs.push((path, entry));
            }
        }
    }
    lines.sort();
    Ok(lines)
}

fn describe(workspace: &Workspace, entry: &Entry) -> Result<String, WorkspaceError> {
    use kura::version::entry::Body;
    let what = match &entry.body {
        Body::File(file) => {
            let bytes = workspace.read_file(file, 0, usize::try_from(file.size).unwrap())?;
            format!("file {} {}", bytes.len(), kura::version::index::sha256(&bytes))
        }
        Body::Directory { .. } => "dir".to_owned(),
        Body::Symlink { target } => format!("symlink {}", String::from_utf8_lossy(target)),
        other => format!("{other:?}"),
    };
    let xattrs: Vec<String> = entry
        .xattrs
        .iter()
        .map(|(name, value)| format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)))
        .collect();
    assert_ne!(entry.file_id, FileId([0; 16]));
    Ok(format!("{:o} {} {what} {}", entry.mode, entry.mtime.unix_ns(), xattrs.join(",")))
}

/// Bytes that do not compress and repeat nowhere.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
