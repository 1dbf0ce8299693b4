//! Files of the workspace itself. What a run replaces is recorded as one version in the end, or taken back.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{BatchError, Code, Result};
use super::filesystem::{
    Capabilities, Each, FileInfo, FilePath, FileSystem, Filter, Modified, Replacing, check_unchanged,
};
use super::retry::Retrier;
use super::walk::{Kind, Listed, join, walk_tree};
use super::work::TempFile;
use crate::base::ids::VersionId;
use crate::version::entry::{CONTROL_NAME, Ino};
use crate::workspace::{Workspace, WorkspaceError, split_path};
use crate::worktree::{Attr, Caller, Changes, FileKind, NewNode, RenameMode, Wait, WorkError, XattrMode};

const PIECE_LEN: usize = 1 << 20;
/// Content is absorbed after so many bytes.
const ABSORBED_AFTER: u64 = 32 << 20;

/// A directory of a workspace that is open in this process, and that nobody else changes meanwhile.
pub struct WorkspaceFiles {
    workspace: Arc<Workspace>,
    root: Vec<u8>,
    address: String,
    /// The state before the run: recorded, so that the run is a version of its own.
    before: VersionId,
    written: AtomicU64,
    replaced: AtomicU64,
}

impl WorkspaceFiles {
    /// The files below a directory. What changed since the last version is recorded first.
    pub fn open(workspace: &Arc<Workspace>, root: &str) -> Result<Self> {
        let names = split_path(root.as_bytes());
        if names.contains(&CONTROL_NAME) || names.contains(&&b".."[..]) {
            return Err(BatchError::Job(format!("`{root}` is no directory of the workspace")));
        }
        let (before, root) = (workspace.newest()?, names.join(&b'/'));
        let address = format!("workspace:{}/{}", workspace.id(), String::from_utf8_lossy(&root));
        let (written, replaced) = (AtomicU64::new(0), AtomicU64::new(0));
        let this = Self { workspace: workspace.clone(), root, address, before, written, replaced };
        this.find(&this.root).map_err(|error| failed(&this.address, error))?;
        Ok(this)
    }

    fn full(&self, path: &[u8]) -> Vec<u8> {
        join(&self.root, path)
    }

    fn find(&self, full: &[u8]) -> std::result::Result<Attr, WorkError> {
        let tree = self.workspace.tree();
        let mut at = tree.getattr(Ino::ROOT, Wait::Yes)?;
        for name in split_path(full) {
            at = tree.lookup(at.ino, name, Wait::Yes)?;
            tree.forget(at.ino, 1);
        }
        Ok(at)
    }

    fn list(&self, dir: &[u8]) -> Result<Vec<Listed>> {
        let full = if dir.is_empty() { self.root.clone() } else { self.full(dir) };
        let shown = String::from_utf8_lossy(dir).into_owned();
        let mut found = Vec::new();
        let listed = self.find(&full).and_then(|attr| {
            self.workspace.tree().readdir(attr.ino, 0, false, Wait::Yes, &mut |item| {
                found.push((item.name.to_vec(), item.attr));
                true
            })
        });
        listed.map_err(|error| failed(&shown, error))?;
        let listed = |(name, attr): (Vec<u8>, Attr)| {
            let kind = match attr.kind {
                FileKind::File => Kind::File,
                FileKind::Directory => Kind::Directory,
                _ => Kind::Other,
            };
            Listed { name, kind, size: attr.size, modified: Some(modified(&attr)), etag: None }
        };
        Ok(found.into_iter().map(listed).collect())
    }

    fn info(&self, path: &FilePath) -> Result<(FileInfo, Attr)> {
        let target = path.to_string();
        let attr = self.find(&self.full(path.as_bytes())).map_err(|error| failed(&target, error))?;
        let is_dir = attr.kind == FileKind::Directory;
        if !is_dir && attr.kind != FileKind::File {
            return Err(BatchError::file(Code::NotAFile, target, "not a file"));
        }
        let size = if is_dir { 0 } else { attr.size };
        Ok((FileInfo { path: path.clone(), size, modified: Some(modified(&attr)), etag: None, is_dir }, attr))
    }

    /// Writes a file of its own into the directory.
    fn put_beside(&self, dir: Ino, name: &[u8], old: &Attr, from: &TempFile) -> std::result::Result<(), WorkError> {
        let tree = self.workspace.tree();
        let caller = Caller { uid: old.uid, gid: old.gid };
        let unreadable =
            |error: std::io::Error| WorkError::Disk { path: from.path().to_owned(), reason: error.to_string() };
        let ino = tree.make(dir, name, &NewNode::File, 0o600, caller, true, Wait::Yes)?.ino;
        tree.forget(ino, 1);
        let written: std::result::Result<(), WorkError> = (|| {
            let mut reader = from.reader().map_err(unreadable)?;
            let (mut piece, mut offset) = (vec![0; PIECE_LEN], 0u64);
            loop {
                let read = reader.read(&mut piece).map_err(unreadable)?;
                if read == 0 {
                    break;
                }
                tree.write(ino, offset, &piece[..read], old.uid, Wait::Yes)?;
                offset += read as u64;
            }
            for name in tree.listxattr(old.ino, Wait::Yes)? {
                let value = tree.getxattr(old.ino, &name, Wait::Yes)?;
                tree.setxattr(ino, &name, &value, XattrMode::Set, Wait::Yes)?;
            }
            Ok(())
        })();
        tree.release(ino, true);
        written?;
        tree.setattr(ino, &Changes { mode: Some(old.mode), ..Changes::default() }, old.uid, Wait::Yes)?;
        Ok(())
    }
}

fn modified(attr: &Attr) -> Modified {
    Modified { unix_ns: attr.mtime.unix_ns(), step_ns: 1 }
}

fn failed(target: &str, error: WorkError) -> BatchError {
    let code = match &error {
        WorkError::NotFound | WorkError::NotADirectory => Code::Vanished,
        WorkError::IsADirectory => Code::NotAFile,
        WorkError::Denied | WorkError::ReadOnly | WorkError::NotPermitted => Code::Denied,
        WorkError::NoSpace => Code::Full,
        WorkError::NameTooLong => Code::BadName,
        _ => Code::Local,
    };
    BatchError::file(code, target, error.to_string())
}

impl FileSystem for WorkspaceFiles {
    fn walk(&self, filter: &Filter, retrier: &Retrier<'_>, each: &mut Each<'_>) -> Result<()> {
        walk_tree(filter, retrier, &mut |dir| self.list(dir), each)
    }

    fn stat(&self, path: &FilePath) -> Result<FileInfo> {
        Ok(self.info(path)?.0)
    }

    fn download(&self, path: &FilePath, to: &mut dyn Write) -> Result<FileInfo> {
        let (info, attr) = self.info(path)?;
        if info.is_dir {
            return Err(BatchError::file(Code::NotAFile, path.to_string(), "it is a directory now"));
        }
        let mut offset = 0;
        while offset < attr.size {
            let piece = self.workspace.tree().read(attr.ino, offset, PIECE_LEN, Wait::Yes);
            let piece = piece.map_err(|error| failed(&path.to_string(), error))?;
            if piece.is_empty() {
                break;
            }
            to.write_all(&piece).map_err(|error| BatchError::of_io("the work directory", &error))?;
            offset += piece.len() as u64;
        }
        Ok(info)
    }

    fn replace(&self, expected: &FileInfo, from: &TempFile) -> Result<FileInfo> {
        let path = &expected.path;
        let target = path.to_string();
        let (now, old) = self.info(path)?;
        check_unchanged(expected, &now)?;
        let full = self.full(path.as_bytes());
        let names = split_path(&full);
        let Some((name, above)) = names.split_last() else {
            return Err(BatchError::file(Code::NotAFile, target, "not a file"));
        };
        let dir = self.find(&above.join(&b'/')).map_err(|error| failed(&target, error))?.ino;
        let partial = path.partial();
        let partial = partial.split().1;
        let tree = self.workspace.tree();
        let put = self.put_beside(dir, partial, &old, from);
        let put = put.and_then(|()| tree.rename((dir, partial), (dir, name), RenameMode::Replace, Wait::Yes));
        if let Err(error) = put {
            tree.unlink(dir, partial, Wait::Yes).ok();
            return Err(failed(&target, error));
        }
        self.replaced.fetch_add(1, Ordering::SeqCst);
        if self.written.fetch_add(from.len(), Ordering::SeqCst) + from.len() > ABSORBED_AFTER {
            self.written.store(0, Ordering::SeqCst);
            tree.absorb_all().map_err(|error| failed(&target, error))?;
        }
        self.stat(path)
    }

    fn remove(&self, path: &FilePath) -> Result<()> {
        let target = path.to_string();
        let full = self.full(path.as_bytes());
        let names = split_path(&full);
        let Some((name, above)) = names.split_last() else { return Ok(()) };
        let dir = self.find(&above.join(&b'/')).map_err(|error| failed(&target, error))?.ino;
        self.workspace.tree().unlink(dir, name, Wait::Yes).map_err(|error| failed(&target, error))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { replacing: Replacing::Conditional, whole_run: true, connections_max: usize::MAX }
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn finish(&self, keep: bool, message: &str) -> Result<Option<String>> {
        if self.replaced.load(Ordering::SeqCst) == 0 {
            return Ok(None);
        }
        if keep {
            let recorded = self.workspace.snapshot(Some(message.to_owned()), None)?;
            return Ok(Some(recorded.record.id.to_string()));
        }
        // What the run did goes, as if it had not been; it stays in the history, as everything does.
        let paths = if self.root.is_empty() { Vec::new() } else { vec![self.root.clone()] };
        self.workspace.restore(self.before, &paths, false).map(|_| None).map_err(|error: WorkspaceError| error.into())
    }
}
