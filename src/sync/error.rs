//! What can stop publishing.

use crate::base::ids::VersionId;
use crate::blob::{BlobError, Fault};
use crate::crypto::OpenError;
use crate::crypto::slots::UnlockError;
use crate::store::StoreError;
use crate::version::VersionError;
use crate::worktree::WorkError;

/// Why versions are not published. What was recorded stays in the local queue in every case.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SyncError {
    /// The store failed, refused, or cannot be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// HEAD or an index record cannot be used.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The local queue or base cannot be read or written.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// A new key epoch has begun that does not open here.
    #[error("the keys of the workspace were changed: {0}")]
    Keys(#[from] UnlockError),
    /// A waiting object cannot be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Somebody else moved HEAD to a version that was not made from ours, nor ours from it.
    #[error(
        "the workspace moved on to version {theirs} while this client recorded {ours}; both are kept, \
         and joining them is not possible yet. Export what you need, then mount with a fresh state directory"
    )]
    Diverged {
        /// The version HEAD names.
        theirs: VersionId,
        /// Our newest version.
        ours: VersionId,
    },
    /// The store shows an older state than this client has seen.
    #[error(
        "the store went back: this client has seen generation {seen} of HEAD, and the store shows generation {found}. \
         Somebody restored an old copy of the store, or tampers with it. Restore the newer copy, or accept the loss \
         with `--accept-rollback`"
    )]
    RolledBack {
        /// The newest generation of HEAD that this client has seen.
        seen: u64,
        /// What the store shows.
        found: u64,
    },
    /// An object that a queued version needs is neither here nor in the store.
    #[error("{object} is needed by a version that waits to be published, and is neither here nor in the store")]
    Lost {
        /// The object.
        object: String,
    },
    /// It was asked to stop before it was done.
    #[error("stopped before everything was published")]
    Stopped,
    /// HEAD kept changing, or the store kept losing answers.
    #[error("HEAD could not be moved in {attempts} attempts; it is tried again later")]
    Contended {
        /// Number of attempts.
        attempts: u32,
    },
}

impl SyncError {
    /// Whether something is sealed under an epoch that began after the keys were opened.
    pub fn is_unknown_epoch(&self) -> bool {
        let blob = |error: &BlobError| match error {
            BlobError::Damaged { fault, .. } | BlobError::DamagedObject { fault, .. } => {
                matches!(fault, Fault::Open(OpenError::UnknownEpoch { .. }))
            }
            _ => false,
        };
        match self {
            SyncError::Version(VersionError::Unopened { source, .. }) => {
                matches!(source, OpenError::UnknownEpoch { .. })
            }
            SyncError::Version(VersionError::Blob(error)) | SyncError::Blob(error) => blob(error),
            SyncError::Work(WorkError::Version(VersionError::Blob(error))) => blob(error),
            _ => false,
        }
    }
}
