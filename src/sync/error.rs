//! What can stop publishing.

use std::fmt;

use super::Seen;
use crate::base::ids::VersionId;
use crate::blob::{BlobError, Fault};
use crate::crypto::OpenError;
use crate::crypto::slots::UnlockError;
use crate::store::StoreError;
use crate::version::VersionError;
use crate::worktree::WorkError;

/// How a store went back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollback {
    /// The newest HEAD that this client has seen.
    pub seen: Seen,
    /// What the store shows; `None` when it shows no HEAD at all.
    pub found: Option<Seen>,
    /// Objects that this client knows and the store has no more, as far as it was asked.
    pub missing: Vec<String>,
}

impl Rollback {
    /// Without having asked for objects.
    pub fn new(seen: Seen, found: Option<Seen>) -> Self {
        Self { seen, found, missing: Vec::new() }
    }
}

/// When a version was recorded, for people.
fn at(version: &VersionId) -> String {
    let (seconds, _) = version.time().parts();
    jiff::Timestamp::new(seconds, 0).map_or_else(|_| "an unknown time".to_owned(), |time| time.to_string())
}

impl fmt::Display for Rollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rollback { seen, found, missing } = self;
        let told = |seen: &Seen| {
            format!("generation {} of HEAD with version {} of {}", seen.generation, seen.version, at(&seen.version))
        };
        let verdict = match found {
            Some(found) if found.generation >= seen.generation => "the store shows another history",
            _ => "the store went back",
        };
        write!(f, "{verdict}: this client has seen {}, and the store shows ", told(seen))?;
        match found {
            Some(found) => write!(f, "{}", told(found))?,
            None => write!(f, "no HEAD at all")?,
        }
        match missing.as_slice() {
            [] => {}
            [first] => write!(f, "; {first} is missing from it")?,
            [first, rest @ ..] => write!(f, "; {first} and {} more objects are missing from it", rest.len())?,
        }
        write!(
            f,
            ". Somebody restored an old copy of the store, or tampers with it. Restore the newer copy, or accept the \
             loss with `--accept-rollback`"
        )
    }
}

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
    /// The store shows an older state than this client has seen.
    #[error("{0}")]
    RolledBack(Box<Rollback>),
    /// The version that the user trusts is not in the history that the store shows.
    #[error(
        "the store's history, up to version {found} of {}, does not hold version {trusted} of {}, which you trust: \
         it is an old copy, or another workspace's",
        at(found),
        at(trusted)
    )]
    Untrusted {
        /// The version that must be there.
        trusted: VersionId,
        /// The newest version that the store shows.
        found: VersionId,
    },
    /// An object that a queued version needs is neither here nor in the store.
    #[error("{object} is needed by a version that waits to be published, and is neither here nor in the store")]
    Lost {
        /// The object.
        object: String,
    },
    /// Something that versions lead to is in no location run: nothing may be collected.
    #[error(
        "{missing} blobs that versions need are in no location run; nothing is collected before `kura check` finds \
         nothing wrong"
    )]
    Unlocated {
        /// How many.
        missing: u64,
    },
    /// Something that waits here refers to content that was collected while this client was away.
    #[error(
        "content {blob} of what waits to be published was collected while this client was away for longer than the \
         grace, and no copy of it is left here; export what you need, then mount with a fresh state directory"
    )]
    Collected {
        /// The blob.
        blob: String,
    },
    /// Another client has locked the path, or something above or below it.
    #[error("`{path}` is locked by {holder}")]
    Locked {
        /// The locked path.
        path: String,
        /// `user@host`.
        holder: String,
    },
    /// Another client writes to a store that can have only one writer.
    #[error(
        "this store has no conditional writes, so only one client at a time may write to it, and since {since} that is \
         {holder}"
    )]
    NotWriter {
        /// `user@host`.
        holder: String,
        /// Since when, by that one's clock.
        since: String,
    },
    /// This client has not locked the path.
    #[error("`{path}` is not locked here")]
    NotLocked {
        /// The path.
        path: String,
    },
    /// More locks, or longer paths, than there may be.
    #[error("a client can lock 256 paths of at most 8 KiB at once")]
    TooManyLocks,
    /// Locks need conditional writes.
    #[error("this store has no conditional writes, so only one client writes to it, and nothing need be locked")]
    NoLocks,
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
