//! What operations on a workspace take and answer.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::ids::VersionId;
use crate::version::diff::ChangeKind;
use crate::worktree::Recorded;

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
    /// Paths that end in the reserved name `.kura`: they, and what is below them, were passed over.
    pub skipped: Vec<Arc<[u8]>>,
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
    pub skipped: Vec<(PathBuf, String)>,
    /// The version that holds the result; `None` when nothing changed.
    pub recorded: Option<Recorded>,
}

/// What an export did.
#[derive(Clone, Debug, Default)]
pub struct ExportReport {
    /// Names and bytes written.
    pub exported: Progress,
    /// What could not be written, and why: damaged files, and owners, device nodes or times that this system refuses.
    pub skipped: Vec<(PathBuf, String)>,
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
