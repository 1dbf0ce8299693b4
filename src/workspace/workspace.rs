//! The opened workspace.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{InitOptions, InitReport, OpenOptions, Result, Status};
use crate::base::ids::{VersionId, WorkspaceId};
use crate::blob::Blobs;
use crate::store::{ObjectStore, StoreUrl};
use crate::version::diff::{Change, ChangeKind};
use crate::version::entry::{Entry, FileBody};
use crate::version::index::IndexRecord;
use crate::version::refs::Listed;
use crate::version::tree::PageIo;
use crate::worktree::{Recorded, Worktree};

/// One side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A recorded version.
    Version(VersionId),
    /// The published state of the live tree; recorded as a version when it differs from the newest.
    Live,
}

/// A path that an operation changed, or would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathChange {
    /// From the root, joined by `/`.
    pub path: Arc<[u8]>,
    /// How.
    pub kind: ChangeKind,
}

/// A path that a revert left as it is, because it had changed since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The path.
    pub path: Arc<[u8]>,
    /// Where the reverted state was put; `None` when that is "not there".
    pub beside: Option<Arc<[u8]>>,
}

/// What a restore or revert did, or (dry run) would do.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Paths changed.
    pub changes: Vec<PathChange>,
    /// Paths left alone (revert only).
    pub conflicts: Vec<Conflict>,
    /// The version that holds the result; `None` for a dry run or when nothing changed.
    pub recorded: Option<Recorded>,
}

/// How far a long operation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Names done.
    pub files: u64,
    /// Bytes of content done.
    pub bytes: u64,
}

/// What an import did.
#[derive(Clone, Debug, Default)]
pub struct ImportReport {
    /// Names made or changed, and bytes written.
    pub imported: Progress,
    /// Files that were the same already.
    pub unchanged: u64,
    /// What could not be imported, and why.
    pub skipped: Vec<(std::path::PathBuf, String)>,
    /// The version that holds the result; `None` when nothing changed.
    pub recorded: Option<Recorded>,
}

/// What an export did.
#[derive(Clone, Debug, Default)]
pub struct ExportReport {
    /// Names and bytes written.
    pub exported: Progress,
    /// What could not be restored of a file, and why (owners, device nodes).
    pub skipped: Vec<(std::path::PathBuf, String)>,
}

/// What a flush reached.
#[derive(Clone, Debug, Default)]
pub struct FlushReport {
    /// The version that was recorded for it, if anything had changed.
    pub recorded: Option<Recorded>,
    /// Versions that still wait.
    pub unpublished_versions: usize,
    /// Bytes that still wait.
    pub unpublished_bytes: u64,
    /// Why they wait.
    pub reason: Option<String>,
}

/// What closing left behind.
#[derive(Clone, Debug, Default)]
pub struct CloseReport {
    /// Versions that wait for the next mount.
    pub unpublished_versions: usize,
    /// Bytes that wait for the next mount.
    pub unpublished_bytes: u64,
    /// Why they wait.
    pub reason: Option<String>,
}

/// An open workspace.
pub struct Workspace {
    tree: Arc<Worktree>,
}

impl Workspace {
    /// Makes a workspace in a store.
    pub fn init(url: &StoreUrl, options: InitOptions) -> Result<InitReport> {
        let _ = (url, options);
        unreachable!()
    }

    /// As [`init`](Self::init), in a store that is open already.
    pub fn init_in(store: &dyn ObjectStore, options: InitOptions) -> Result<InitReport> {
        let _ = (store, options);
        unreachable!()
    }

    /// Opens a workspace. Nothing runs in the background until [`start`](Self::start).
    pub fn open(options: OpenOptions) -> Result<Arc<Self>> {
        let _ = options;
        unreachable!()
    }

    /// As [`open`](Self::open), on a store that is open already (`options.store` serves as its name).
    pub fn open_in(store: Arc<dyn ObjectStore>, options: OpenOptions) -> Result<Arc<Self>> {
        let _ = (store, options);
        unreachable!()
    }

    /// The workspace's id.
    pub fn id(&self) -> WorkspaceId {
        unreachable!()
    }

    /// The state directory of this workspace.
    pub fn state_dir(&self) -> &Path {
        unreachable!()
    }

    /// Whether changes are refused by request.
    pub fn is_read_only(&self) -> bool {
        unreachable!()
    }

    /// The live tree.
    pub fn tree(&self) -> &Arc<Worktree> {
        &self.tree
    }

    /// Content and pages.
    pub fn blobs(&self) -> &Arc<Blobs> {
        unreachable!()
    }

    /// Pages, for reading.
    pub fn pages(&self) -> Box<dyn PageIo + '_> {
        unreachable!()
    }

    /// Starts what runs in the background: absorbing, journaling, recording versions, publishing. They end with
    /// [`close`](Self::close).
    pub fn start(self: &Arc<Self>) {
        unreachable!()
    }

    /// Ends what runs in the background, records a last version and, with `publish`, publishes what is possible in
    /// bounded time. Frees the state directory. A second call does nothing.
    pub fn close(&self, publish: bool) -> Result<CloseReport> {
        let _ = publish;
        unreachable!()
    }

    /// All versions, newest first.
    pub fn versions(&self) -> Result<Vec<Listed>> {
        unreachable!()
    }

    /// The version a text selects: `latest`, `latest~N`, an id or its first digits (at least 4), a tag, a time
    /// (`2026-11-21T10:00[:00][Z|±hh:mm]`, local without a zone; the newest version not after it), `10m ago`,
    /// `2h ago`, `yesterday`.
    pub fn select(&self, selector: &str) -> Result<VersionId> {
        let _ = selector;
        unreachable!()
    }

    /// The record of a version.
    pub fn version(&self, id: VersionId) -> Result<Arc<IndexRecord>> {
        let _ = id;
        unreachable!()
    }

    /// The inode at a path of a version, links resolved; `None` when there is none.
    pub fn find(&self, version: &IndexRecord, path: &[&[u8]]) -> Result<Option<Entry>> {
        let _ = (version, path);
        unreachable!()
    }

    /// Reads a part of a file of some version; shorter only where the file ends.
    pub fn read_file(&self, file: &FileBody, offset: u64, len: usize) -> Result<Vec<u8>> {
        let _ = (file, offset, len);
        unreachable!()
    }

    /// Records a version now, even when nothing changed.
    pub fn snapshot(&self, message: Option<String>, tag: Option<String>) -> Result<Recorded> {
        let _ = (message, tag);
        unreachable!()
    }

    /// Takes a tag away; the version stays.
    pub fn untag(&self, tag: &str) -> Result<()> {
        let _ = tag;
        unreachable!()
    }

    /// Records what changed and makes it durable here; with `wait`, waits so long for it to be published.
    pub fn flush(&self, wait: Option<Duration>) -> Result<FlushReport> {
        let _ = wait;
        unreachable!()
    }

    /// What differs between two sides, at and below `path` (empty for everything), parents before children.
    pub fn diff(&self, before: Side, after: Side, path: &[u8]) -> Result<Vec<Change>> {
        let _ = (before, after, path);
        unreachable!()
    }

    /// Sets the live tree, or only `paths` of it, back to what they are in a version. Names that the version does
    /// not have go away. What was there before is in the version recorded first.
    pub fn restore(&self, version: VersionId, paths: &[Vec<u8>], dry_run: bool) -> Result<Restored> {
        let _ = (version, paths, dry_run);
        unreachable!()
    }

    /// Undoes what a version changed. Paths that changed again since are left alone, and the reverted state is put
    /// beside them.
    pub fn revert(&self, version: VersionId) -> Result<Restored> {
        let _ = version;
        unreachable!()
    }

    /// Writes a version, or only `paths` of it, into a local directory.
    pub fn export(
        &self,
        version: VersionId,
        paths: &[Vec<u8>],
        to_dir: &Path,
        overwrite: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ExportReport> {
        let _ = (version, paths, to_dir, overwrite, progress);
        unreachable!()
    }

    /// Takes a local directory's content into the directory `into` of the live tree (made when missing).
    pub fn import(&self, dir: &Path, into: &[u8], progress: &mut dyn FnMut(Progress)) -> Result<ImportReport> {
        let _ = (dir, into, progress);
        unreachable!()
    }

    /// The state of the workspace.
    pub fn status(&self) -> Status {
        unreachable!()
    }
}
