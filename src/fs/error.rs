//! What can go wrong with a file system operation.

use crate::control::Exit;
use crate::version::VersionError;
use crate::version::entry::Ino;
use crate::workspace::WorkspaceError;
use crate::worktree::WorkError;

/// An operation that failed; `fuse` maps each to one error number.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The live tree refused or failed.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The content of a file cannot be read.
    #[error("{path} (inode {}): {error}", ino.0)]
    File {
        /// Where it is, as far as that is in memory.
        path: String,
        /// Its number.
        ino: Ino,
        /// What failed.
        error: Box<FsError>,
    },
    /// The workspace refused or failed.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// Seeking found neither data nor a hole up to the end of the file.
    #[error("no data or hole at or after this offset")]
    NothingThere,
    /// A name in the live tree cannot stand for an inode of the past.
    #[error("a past version cannot be linked into the live tree; copy it")]
    CrossesVersions,
    /// The handle is not open, or not for this.
    #[error("bad file handle")]
    BadHandle,
    /// A request to a control file is longer than 1 MiB.
    #[error("the request is longer than 1 MiB")]
    RequestTooLong,
    /// A request to a control file was not done; `.kura/ctl/last_error` says why.
    #[error("the request was not done ({}); .kura/ctl/last_error says why", .0.word())]
    Refused(Exit),
    /// This kind of request is switched off for the whole mount.
    #[error("not available on this mount")]
    SwitchedOff,
    /// The answer took too long.
    #[error("no answer in time")]
    TimedOut,
    /// The mount has ended; only the kernel does not know it yet.
    #[error("the mount has ended")]
    Ended,
    /// Too much is waiting already.
    #[error("too many requests are waiting")]
    Busy,
}

impl From<VersionError> for FsError {
    fn from(error: VersionError) -> Self {
        FsError::Work(WorkError::Version(error))
    }
}

impl FsError {
    /// Whether the operation has to be asked again where waiting is fine.
    pub fn would_block(&self) -> bool {
        matches!(self, FsError::Work(WorkError::WouldBlock))
    }
}
