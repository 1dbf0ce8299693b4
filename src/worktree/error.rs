//! What can go wrong in the live tree.

use std::path::PathBuf;

use crate::blob::BlobError;
use crate::version::VersionError;
use crate::version::entry::Ino;

/// An operation that failed. The names follow `errno(3)`; `fuse` maps them one to one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WorkError {
    /// No such name or inode.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("file exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotADirectory,
    /// A directory will not do.
    #[error("is a directory")]
    IsADirectory,
    /// The directory has names in it.
    #[error("directory not empty")]
    NotEmpty,
    /// The name is longer than 255 bytes.
    #[error("file name too long")]
    NameTooLong,
    /// The arguments make no sense.
    #[error("invalid argument")]
    Invalid,
    /// Larger than a file can be.
    #[error("file too large")]
    TooLarge,
    /// Not allowed, whatever the permissions.
    #[error("operation not permitted")]
    NotPermitted,
    /// Not allowed by permissions.
    #[error("permission denied")]
    Denied,
    /// No such extended attribute, or nothing more to seek to.
    #[error("no data available")]
    NoData,
    /// The caller's buffer is too small.
    #[error("result does not fit")]
    Range,
    /// Too many names for one inode.
    #[error("too many links")]
    TooManyLinks,
    /// This file system cannot do that.
    #[error("operation not supported")]
    NotSupported,
    /// Mounted read-only.
    #[error("read-only")]
    ReadOnly,
    /// Another client has locked it.
    #[error("locked by {holder}; `kura locks` shows all locks")]
    Locked {
        /// `user@host` of who has it.
        holder: String,
    },
    /// The local disk is full, or the limit of unpublished data is reached.
    #[error("no space left on device")]
    NoSpace,
    /// The answer would have to wait for the store; ask again where waiting is fine.
    #[error("would block")]
    WouldBlock,
    /// A change rested on what is no longer so.
    #[error("{path} was changed, or is being written, at the same time")]
    Changed {
        /// Where, from the root.
        path: String,
    },
    /// Garbage was collected since something was prepared, and may have taken what it needs.
    #[error("garbage was collected at the same time")]
    Collected,
    /// Content or a page cannot be read.
    #[error("{0}")]
    Version(#[from] VersionError),
    /// The journal cannot be used.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// Local state cannot be read or written.
    #[error("{path}: {reason}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The tree contradicts itself; a bug or damage that went unnoticed.
    #[error("inode {}: {reason}", ino.0)]
    Inconsistent {
        /// The inode.
        ino: Ino,
        /// What was found.
        reason: &'static str,
    },
}

/// A journal that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// A write or sync failed; nothing more is accepted until the tree is opened again.
    #[error("the journal {path} failed ({reason}); the workspace is read-only until it is mounted again")]
    Failed {
        /// The segment.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The local disk is full.
    #[error("no space left for the journal {path}")]
    Full {
        /// The segment.
        path: PathBuf,
    },
    /// Bytes that were known to be durable have changed.
    #[error(
        "the journal {path} was altered at byte {offset}: frames that had been synced no longer open, or are gone. \
         Restore the file from a backup, or mount with `--accept-damage` to go on with what stands before that byte"
    )]
    Altered {
        /// The segment.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
    /// A segment in the middle is gone.
    #[error(
        "the journal {path} is missing. Restore it from a backup, or mount with `--accept-damage` to go on without it"
    )]
    Missing {
        /// The segment.
        path: PathBuf,
    },
    /// The records do not fit the tree.
    #[error("the journal {path} does not fit the recorded state ({reason})")]
    Misfit {
        /// The segment or directory.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
}

/// Whether the local disk has no room.
pub(super) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

impl From<BlobError> for WorkError {
    fn from(error: BlobError) -> Self {
        if let BlobError::Disk { source, .. } = &error
            && is_full(source)
        {
            return WorkError::NoSpace;
        }
        WorkError::Version(error.into())
    }
}

impl WorkError {
    pub(super) fn disk(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        if is_full(error) {
            return WorkError::NoSpace;
        }
        WorkError::Disk { path: path.into(), reason: error.to_string() }
    }
}
