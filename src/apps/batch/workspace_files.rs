//! Files of the workspace itself. A run reads one version, puts its results away, and in the end gives names to all of
//! them in one step: others see none of them or all, and so does whoever opens the workspace after a crash.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::error::{BatchError, Code, Result};
use super::filesystem::{
    Capabilities, Each, FileInfo, FilePath, FileSystem, Filter, Finished, Modified, Replacing, check_unchanged,
};
use super::retry::Retrier;
use super::walk::{Kind, Listed, join, walk_tree};
use super::work::{TempFile, copy};
use crate::version::entry::{Body, CONTROL_NAME, Entry};
use crate::version::index::{IndexRecord, Origin};
use crate::workspace::{Workspace, WorkspaceError, split_path};
use crate::worktree::{Checkpoint, GraftOp, Reason, Seen, Sight, StageError, Staging, WorkError};

/// A directory of a workspace that is open in this process.
pub struct WorkspaceFiles {
    workspace: Arc<Workspace>,
    root: Vec<u8>,
    address: String,
    /// The version that is read; in the end the one with the results.
    version: RwLock<Arc<IndexRecord>>,
    staging: Mutex<Staging>,
    /// Files and what they become.
    results: Mutex<BTreeMap<FilePath, Entry>>,
}

impl WorkspaceFiles {
    /// The files below a directory, as they are now: what changed since the last version is recorded first.
    pub fn open(workspace: &Arc<Workspace>, root: &str) -> Result<Self> {
        let names = split_path(root.as_bytes());
        let no_dir = || BatchError::Job(format!("`{root}` is no directory of the workspace"));
        if names.contains(&CONTROL_NAME) || names.contains(&&b".."[..]) {
            return Err(no_dir());
        }
        let version = workspace.present()?;
        let is_dir = names.is_empty() || workspace.find(&version, &names)?.is_some_and(|entry| entry.is_dir());
        if !is_dir {
            return Err(no_dir());
        }
        let root = names.join(&b'/');
        Ok(Self {
            address: format!("workspace:{}/{}", workspace.id(), String::from_utf8_lossy(&root)),
            staging: Mutex::new(workspace.tree().stage_content()),
            version: RwLock::new(version),
            results: Mutex::default(),
            workspace: workspace.clone(),
            root,
        })
    }

    fn full(&self, path: &[u8]) -> Vec<u8> {
        match (path, &*self.root) {
            (b"", root) => root.to_vec(),
            (path, root) => join(root, path),
        }
    }

    fn find(&self, version: &IndexRecord, path: &FilePath) -> Result<Entry> {
        let full = self.full(path.as_bytes());
        let found = self.workspace.find(version, &split_path(&full))?;
        found.ok_or_else(|| BatchError::file(Code::Vanished, path.to_string(), "it is not there any more"))
    }

    fn list(&self, dir: &[u8]) -> Result<Vec<Listed>> {
        let version = self.version.read().clone();
        let names = self.workspace.names_in(&version, self.full(dir))?;
        let listed = |(name, entry): (Vec<u8>, Entry)| {
            let kind = match entry.body {
                Body::File(_) => Kind::File,
                Body::Directory { .. } => Kind::Directory,
                _ => Kind::Other,
            };
            Listed { name, kind, size: size(&entry), modified: Some(modified(&entry)), etag: None }
        };
        Ok(names.into_iter().filter(|(name, _)| name != CONTROL_NAME).map(listed).collect())
    }

    /// Those whose names stand for something else by now.
    fn changed(&self, results: &BTreeMap<FilePath, Entry>, now: &IndexRecord) -> Result<Vec<FilePath>> {
        let version = self.version.read().clone();
        let mut changed = Vec::new();
        for path in results.keys() {
            let found = self.workspace.find(now, &split_path(&self.full(path.as_bytes())))?;
            let read = self.find(&version, path)?;
            if found.is_none_or(|found| (found.ino, found.ctime) != (read.ino, read.ctime)) {
                changed.push(path.clone());
            }
        }
        Ok(changed)
    }

    /// Gives all results their names, as one version.
    fn commit(&self, results: &BTreeMap<FilePath, Entry>, message: &str) -> std::result::Result<String, CommitError> {
        let version = self.version.read().clone();
        let (mut ops, mut seen) = (Vec::with_capacity(results.len()), Vec::with_capacity(results.len()));
        for (path, entry) in results {
            let full = self.full(path.as_bytes());
            let names: Vec<Vec<u8>> = split_path(&full).into_iter().map(<[u8]>::to_vec).collect();
            let read = self.find(&version, path)?;
            seen.push(Seen { path: names.clone(), what: Sight::Inode(read.ino, read.ctime) });
            ops.push(GraftOp::Put { path: names, entry: Box::new(entry.clone()), linked: false });
        }
        let reason = Reason { origin: Origin::Import, message: Some(message.to_owned()), tag: None, always: false };
        let recorded = match self.workspace.tree().graft_seen(&ops, &seen, &reason) {
            Err(WorkError::Changed { path }) => return Err(CommitError::Changed(path)),
            outcome => outcome.map_err(|error| BatchError::from(WorkspaceError::from(error)))?,
        };
        match recorded {
            Ok(Checkpoint::Recorded(_)) => self.workspace.publish_soon(),
            Ok(Checkpoint::Unchanged) => {}
            Err(error) => {
                // It is there all the same, and has to be durable by itself.
                self.workspace.tree().sync().map_err(|error| BatchError::from(WorkspaceError::from(error)))?;
                tracing::warn!(component = "batch", "done, and in no version yet: {error}");
            }
        }
        let now = self.workspace.present().map_err(BatchError::from)?;
        let id = now.id.to_string();
        *self.version.write() = now;
        Ok(id)
    }
}

enum CommitError {
    /// Somebody changed this path.
    Changed(String),
    Failed(BatchError),
}

impl From<BatchError> for CommitError {
    fn from(error: BatchError) -> Self {
        CommitError::Failed(error)
    }
}

fn size(entry: &Entry) -> u64 {
    if let Body::File(body) = &entry.body { body.size } else { 0 }
}

fn modified(entry: &Entry) -> Modified {
    Modified { unix_ns: entry.mtime.unix_ns(), step_ns: 1 }
}

fn info(path: &FilePath, entry: &Entry) -> Result<FileInfo> {
    if !matches!(entry.body, Body::File(_) | Body::Directory { .. }) {
        return Err(BatchError::file(Code::NotAFile, path.to_string(), "not a file"));
    }
    let (size, modified) = (size(entry), Some(modified(entry)));
    Ok(FileInfo { path: path.clone(), size, modified, etag: None, is_dir: entry.is_dir() })
}

impl FileSystem for WorkspaceFiles {
    fn walk(&self, filter: &Filter, retrier: &Retrier<'_>, each: &mut Each<'_>) -> Result<()> {
        walk_tree(filter, retrier, &mut |dir| self.list(dir), each)
    }

    fn stat(&self, path: &FilePath) -> Result<FileInfo> {
        let version = self.version.read().clone();
        info(path, &self.find(&version, path)?)
    }

    fn download(&self, path: &FilePath, to: &mut dyn Write) -> Result<FileInfo> {
        let version = self.version.read().clone();
        let entry = self.find(&version, path)?;
        let info = info(path, &entry)?;
        let Body::File(body) = entry.body else {
            return Err(BatchError::file(Code::NotAFile, path.to_string(), "it is a directory now"));
        };
        let copied = copy(&mut self.workspace.content(body), to);
        copied.map_err(|error| BatchError::of_io(path.to_string(), &error))?;
        Ok(info)
    }

    fn replace(&self, expected: &FileInfo, from: &TempFile) -> Result<FileInfo> {
        let (path, target) = (&expected.path, expected.path.to_string());
        let version = self.version.read().clone();
        let read = self.find(&version, path)?;
        check_unchanged(expected, &info(path, &read)?)?;
        let mut reader = from.reader().map_err(|error| BatchError::of_io("the work directory", &error))?;
        let (ino, body) = self.staging.lock().add(&mut reader).map_err(|error| match error {
            StageError::Source(error) => BatchError::of_io("the work directory", &error),
            StageError::Tree(WorkError::NoSpace) => BatchError::file(Code::Full, &target, "no room for it"),
            StageError::Tree(error) => BatchError::file(Code::Local, &target, error.to_string()),
        })?;
        let time = self.workspace.now();
        let entry = Entry { ino, mtime: time, ctime: time, body: Body::File(body), ..read };
        let now = info(path, &entry)?;
        self.results.lock().insert(path.clone(), entry);
        Ok(now)
    }

    fn remove(&self, path: &FilePath) -> Result<()> {
        Err(BatchError::file(Code::Denied, path.to_string(), "a batch removes nothing from a workspace"))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { replacing: Replacing::Conditional, whole_run: true, connections_max: usize::MAX }
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn finish(&self, keep: bool, is_all: bool, message: &str) -> Result<Finished> {
        let mut results = std::mem::take(&mut *self.results.lock());
        let mut finished = Finished::default();
        if !keep || results.is_empty() {
            return Ok(finished);
        }
        // What others changed meanwhile is a version of its own, and is left as it is.
        let now = self.workspace.present()?;
        finished.changed = self.changed(&results, &now)?;
        loop {
            for path in &finished.changed {
                results.remove(path);
            }
            if results.is_empty() || is_all && !finished.changed.is_empty() {
                return Ok(finished);
            }
            match self.commit(&results, message) {
                Ok(version) => {
                    finished.version = Some(version);
                    return Ok(finished);
                }
                Err(CommitError::Failed(error)) => return Err(error),
                Err(CommitError::Changed(shown)) => {
                    let named = |path: &&FilePath| String::from_utf8_lossy(&self.full(path.as_bytes())) == shown;
                    let found: Vec<FilePath> = results.keys().filter(named).cloned().collect();
                    if found.is_empty() {
                        return Err(BatchError::file(Code::SourceChanged, shown, "somebody changed it meanwhile"));
                    }
                    finished.changed.extend(found);
                }
            }
        }
    }
}
