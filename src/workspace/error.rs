//! What can go wrong with a workspace as a whole.

use std::path::PathBuf;

use crate::blob::BlobError;
use crate::crypto::slots::{SlotError, UnlockError};
use crate::store::StoreError;
use crate::sync::SyncError;
use crate::version::VersionError;
use crate::worktree::WorkError;

/// Why an operation on a workspace failed.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The store is there, and no workspace in it.
    #[error("there is no workspace in {store}; make one with `kura init`")]
    NoWorkspace {
        /// The store.
        store: String,
    },
    /// An `init` was cut off.
    #[error("the workspace in {store} was never finished (it has no HEAD); run `kura init` again")]
    Unfinished {
        /// The store.
        store: String,
    },
    /// HEAD is gone from a workspace that was used.
    #[error(
        "the workspace in {store} has lost its HEAD, and is damaged; bring the object `HEAD` back from a copy of the \
         store or its own object versions. Nothing else is lost by it"
    )]
    HeadLost {
        /// The store.
        store: String,
    },
    /// The store was there when it was last opened from here.
    #[error("the workspace that was last seen in {store} is away; a new one in its place would hide it")]
    Away {
        /// The store.
        store: String,
    },
    /// The store went back, and local changes rest on what it has lost.
    #[error(
        "the store went back behind versions that local changes rest on; open {} read-only to save them, \
         or use another state directory to go on with what the store has", state_dir.display()
    )]
    RolledBackUnderChanges {
        /// The state directory that holds the changes.
        state_dir: PathBuf,
    },
    /// A workspace is there already.
    #[error("{store} holds a workspace already; mount it, or choose another place")]
    Exists {
        /// The store.
        store: String,
    },
    /// The directory holds other things.
    #[error("{store} is not empty and holds no workspace (it holds `{found}`); choose an empty or a new directory")]
    NotEmpty {
        /// The store.
        store: String,
        /// One of the things.
        found: String,
    },
    /// Another process has the state directory.
    #[error("{} is in use by {holder}", state_dir.display())]
    Locked {
        /// The state directory.
        state_dir: PathBuf,
        /// Who has it.
        holder: String,
    },
    /// The user gave no credential.
    #[error("no key was given: {reason}")]
    NoCredential {
        /// What went wrong.
        reason: String,
    },
    /// The key ring does not open.
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    /// A key slot cannot be made.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// Somebody else changed the same keys at the same time, and was faster.
    #[error("{object} was changed by somebody else at the same time; this command changed nothing")]
    KeysChanged {
        /// The object.
        object: String,
    },
    /// No key slot is called so.
    #[error("no key slot is called `{selector}`; `kura key list` shows them")]
    NoSuchSlot {
        /// The label or the first digits of the id.
        selector: String,
    },
    /// Several key slots are called so.
    #[error("several key slots are called `{selector}`; give the first digits of the id, as `kura key list` shows it")]
    AmbiguousSlot {
        /// The label or the first digits of the id.
        selector: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Content cannot be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A version cannot be used.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The live tree failed.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// Publishing failed, or the store went back.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The local disk failed.
    #[error("{}: {reason}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The workspace is open for reading only.
    #[error("the workspace is open read-only")]
    ReadOnly,
    /// An fsync that shall wait for the store has waited long enough.
    #[error("what was synced is durable here, and not in the store yet: {reason}")]
    NotInStore {
        /// What keeps it from being published.
        reason: String,
    },
    /// Two texts that cannot be merged.
    #[error("`{path}` cannot be merged: {reason}")]
    Unmerged {
        /// The file that kept its name.
        path: String,
        /// Why.
        reason: String,
    },
    /// A tag that cannot be one.
    #[error(
        "`{tag}` cannot name a version: at most {} bytes, no `/`, `:`, spaces at the ends or control characters, \
         and nothing that reads as `latest`, a time or an id",
        crate::version::refs::TAG_LEN_MAX
    )]
    BadTag {
        /// The tag.
        tag: String,
    },
    /// Another version has the tag.
    #[error("version {version} is called `{tag}` already; `kura untag` frees the name, or choose another")]
    TagTaken {
        /// The tag.
        tag: String,
        /// The version that has it.
        version: crate::base::ids::VersionId,
    },
    /// No version has the tag.
    #[error("no version is called `{tag}`; `kura log` lists them")]
    NoSuchTag {
        /// The tag.
        tag: String,
    },
    /// A version that was taken from the list.
    #[error("version {version} was forgotten, and is kept no more")]
    Forgotten {
        /// The version.
        version: crate::base::ids::VersionId,
    },
    /// A file that export would have to overwrite.
    #[error("{} is there already; export into an empty directory", path.display())]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// Something outside of the workspace that a command was asked to work on is not fit for it.
    #[error("{}: {reason}", path.display())]
    Unfit {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl WorkspaceError {
    /// Whether something stored is damaged or missing, and everything else may be fine.
    pub fn is_damage(&self) -> bool {
        let of_blob = |error: &BlobError| {
            matches!(
                error,
                BlobError::Missing { .. }
                    | BlobError::Damaged { .. }
                    | BlobError::DamagedObject { .. }
                    | BlobError::MissingObject { .. }
                    | BlobError::Store(StoreError::NotFound { .. })
            )
        };
        match self {
            WorkspaceError::Blob(error) => of_blob(error),
            WorkspaceError::Version(error) | WorkspaceError::Work(WorkError::Version(error)) => match error {
                VersionError::Unopened { .. } | VersionError::Damaged { .. } => true,
                VersionError::Blob(error) => of_blob(error),
                _ => false,
            },
            _ => false,
        }
    }

    pub(super) fn disk(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        WorkspaceError::Disk { path: path.into(), reason: error.to_string() }
    }
}
