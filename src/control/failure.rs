//! The one table of failures: exit code, stable word, and what to do.

use crate::apps::sealed::SealedError;
use crate::blob::BlobError;
use crate::crypto::slots::{SlotError, UnlockError};
use crate::store::{StoreError, UrlError};
use crate::sync::SyncError;
use crate::version::VersionError;
use crate::workspace::WorkspaceError;
use crate::worktree::{JournalError, WorkError};

/// How a command ends. The numbers are an interface: scripts test them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// Something that has no code of its own.
    Other,
    /// The arguments, environment or configuration make no sense.
    Usage,
    /// Done in part; the message says what was not.
    Partial,
    /// There is no workspace.
    NoWorkspace,
    /// Another process has it.
    Locked,
    /// The passphrase, key file or recovery code is wrong.
    WrongKey,
    /// Something stored is damaged.
    Damaged,
    /// The store or the system denies access.
    Denied,
    /// The store cannot be reached.
    Unreachable,
    /// The store shows an older state than was seen before.
    RolledBack,
    /// Two lines of versions.
    Conflict,
    /// Stopped by a signal.
    Interrupted,
}

impl Exit {
    const ALL: [Exit; 13] = [
        Exit::Ok,
        Exit::Other,
        Exit::Usage,
        Exit::Partial,
        Exit::NoWorkspace,
        Exit::Locked,
        Exit::WrongKey,
        Exit::Damaged,
        Exit::Denied,
        Exit::Unreachable,
        Exit::RolledBack,
        Exit::Conflict,
        Exit::Interrupted,
    ];

    /// The end of a command whose second part ended with `other`: what went wrong first counts.
    pub fn and(self, other: Self) -> Self {
        if self == Exit::Ok { other } else { self }
    }

    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Other => 1,
            Exit::Usage => 2,
            Exit::Partial => 3,
            Exit::NoWorkspace => 10,
            Exit::Locked => 11,
            Exit::WrongKey => 12,
            Exit::Damaged => 13,
            Exit::Denied => 14,
            Exit::Unreachable => 15,
            Exit::RolledBack => 16,
            Exit::Conflict => 17,
            Exit::Interrupted => 130,
        }
    }

    /// The kind that has an exit code; [`Exit::Other`] for codes that are not in the table.
    pub fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::Other)
    }

    /// The stable word that stands in replies.
    pub fn word(self) -> &'static str {
        match self {
            Exit::Ok => "ok",
            Exit::Other => "error",
            Exit::Usage => "usage",
            Exit::Partial => "partial",
            Exit::NoWorkspace => "no-workspace",
            Exit::Locked => "locked",
            Exit::WrongKey => "wrong-key",
            Exit::Damaged => "damaged",
            Exit::Denied => "denied",
            Exit::Unreachable => "unreachable",
            Exit::RolledBack => "rolled-back",
            Exit::Conflict => "conflict",
            Exit::Interrupted => "interrupted",
        }
    }
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which kind of failure.
    pub exit: Exit,
    /// What happened to which object.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// Adds what to do.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    fn of(exit: Exit, error: &impl std::error::Error, hint: Option<&str>) -> Self {
        Self { exit, message: error.to_string(), hint: hint.map(str::to_owned) }
    }
}

const CHECK_STORE: &str = "`kura check` lists what is damaged, `kura repair` puts back what this machine has; \
                           else restore the object from a copy of the store";
const LOCKED: &str = "wait until it is unlocked, or break the lock with `kura lock --break`";
const NOT_WRITER: &str =
    "unmount it there; if that machine is gone for good, `kura mount --take-over` here; or mount --read-only";
const TRY_AGAIN: &str =
    "check the disk, or network, endpoint and region; what was recorded is kept and published later";

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (exit, hint) = match &error {
            StoreError::NotFound { .. } => (Exit::Damaged, Some(CHECK_STORE)),
            StoreError::Precondition { .. } => (Exit::Conflict, Some("try again")),
            StoreError::OutcomeUnknown { .. } | StoreError::Unreachable { .. } => (Exit::Unreachable, Some(TRY_AGAIN)),
            StoreError::Denied { .. } => {
                (Exit::Denied, Some("check the credentials, and the permissions of the bucket or directory"))
            }
            StoreError::Full { .. } => (Exit::Other, Some("free space where the store lies, then try again")),
            StoreError::NoStore { .. } => (
                Exit::NoWorkspace,
                Some("check the address and whether its disk is mounted; `kura init` makes a new workspace"),
            ),
            StoreError::Invalid { .. } => (Exit::Other, None),
        };
        Failure::of(exit, &error, hint)
    }
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Store(error) => error.into(),
            BlobError::Missing { .. }
            | BlobError::Damaged { .. }
            | BlobError::DamagedObject { .. }
            | BlobError::MissingObject { .. } => Failure::of(Exit::Damaged, &error, Some(CHECK_STORE)),
            BlobError::Disk { .. } => Failure::of(Exit::Other, &error, None),
        }
    }
}

impl From<VersionError> for Failure {
    fn from(error: VersionError) -> Self {
        match error {
            VersionError::Blob(error) => error.into(),
            VersionError::Store(error) => error.into(),
            VersionError::Unopened { .. } | VersionError::Damaged { .. } => {
                Failure::of(Exit::Damaged, &error, Some(CHECK_STORE))
            }
            VersionError::NoSuchVersion { .. } | VersionError::NoSuchPath { .. } => {
                Failure::of(Exit::Other, &error, None)
            }
            VersionError::Ambiguous { .. } => Failure::of(Exit::Usage, &error, Some("give more of its digits")),
        }
    }
}

impl From<WorkError> for Failure {
    fn from(error: WorkError) -> Self {
        let (exit, hint) = match error {
            WorkError::Version(error) => return error.into(),
            WorkError::Journal(error) => return error.into(),
            WorkError::Denied => (Exit::Denied, None),
            WorkError::ReadOnly => (Exit::Denied, Some("it was opened read-only; mount it without --read-only")),
            WorkError::Locked { .. } => (Exit::Locked, Some(LOCKED)),
            WorkError::NoSpace => (Exit::Other, Some("free space on the disk that holds the local state")),
            WorkError::Inconsistent { .. } => (Exit::Damaged, Some("report this, with the log")),
            WorkError::Changed { .. } | WorkError::Collected => {
                (Exit::Conflict, Some("nothing was changed; try again"))
            }
            WorkError::NotFound
            | WorkError::Exists
            | WorkError::NotADirectory
            | WorkError::IsADirectory
            | WorkError::NotEmpty
            | WorkError::NameTooLong
            | WorkError::Invalid
            | WorkError::TooLarge
            | WorkError::NotPermitted
            | WorkError::NoData
            | WorkError::Range
            | WorkError::TooManyLinks
            | WorkError::NotSupported
            | WorkError::WouldBlock
            | WorkError::Disk { .. } => (Exit::Other, None),
        };
        Failure::of(exit, &error, hint)
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let (exit, hint) = match &error {
            JournalError::Failed { .. } => (Exit::Other, Some("check the disk that holds the local state")),
            JournalError::Full { .. } => (Exit::Other, Some("free space on the disk that holds the local state")),
            JournalError::Altered { .. } | JournalError::Missing { .. } => {
                (Exit::Damaged, Some("`kura mount --accept-damage` goes on with what is intact"))
            }
            JournalError::Misfit { .. } => (Exit::Damaged, Some("restore the local state from a backup")),
        };
        Failure::of(exit, &error, hint)
    }
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        let (exit, hint) = match error {
            SyncError::Store(error) => return error.into(),
            SyncError::Version(error) => return error.into(),
            SyncError::Work(error) => return error.into(),
            SyncError::Blob(error) => return error.into(),
            SyncError::Keys(error) => return error.into(),
            SyncError::RolledBack { .. } => {
                (Exit::RolledBack, Some("`kura mount --accept-rollback` goes on with the older state"))
            }
            SyncError::Untrusted { .. } => (Exit::RolledBack, Some("check the address, and where the id comes from")),
            SyncError::Lost { .. } | SyncError::Unlocated { .. } | SyncError::Collected { .. } => {
                (Exit::Damaged, Some(CHECK_STORE))
            }
            SyncError::Locked { .. } => (Exit::Locked, Some(LOCKED)),
            SyncError::NotWriter { .. } => (Exit::Locked, Some(NOT_WRITER)),
            SyncError::NotLocked { .. } => (Exit::Other, Some("`kura locks` shows all locks")),
            SyncError::TooManyLocks | SyncError::NoLocks => (Exit::Usage, None),
            SyncError::Contended { .. } => (Exit::Conflict, Some("try again")),
            SyncError::Stopped => (Exit::Partial, Some("what is left is published later")),
        };
        Failure::of(exit, &error, hint)
    }
}

impl From<UnlockError> for Failure {
    fn from(error: UnlockError) -> Self {
        let (exit, hint) = match &error {
            UnlockError::WrongSecret { .. } => {
                (Exit::WrongKey, Some("try again; `--recovery` takes the recovery code that `kura init` printed"))
            }
            UnlockError::NoSlotOfThatKind { .. } | UnlockError::BadRecoveryCode(_) | UnlockError::Removed { .. } => {
                (Exit::WrongKey, None)
            }
            UnlockError::DamagedSlot { .. }
            | UnlockError::DamagedEpoch { .. }
            | UnlockError::DamagedHeader { .. }
            | UnlockError::NoSlots
            | UnlockError::TooManySlots { .. } => (Exit::Damaged, Some(CHECK_STORE)),
            UnlockError::EpochGone { .. } => {
                (Exit::RolledBack, Some("`kura mount --accept-rollback` goes on with the older state"))
            }
            UnlockError::Memory { .. } | UnlockError::NewerFormat { .. } => (Exit::Other, None),
        };
        Failure::of(exit, &error, hint)
    }
}

impl From<SlotError> for Failure {
    fn from(error: SlotError) -> Self {
        match error {
            SlotError::Record(error) => error.into(),
            SlotError::Memory { .. } | SlotError::PublicKey { .. } | SlotError::EpochCount => {
                Failure::of(Exit::Other, &error, None)
            }
            SlotError::LastSlot { .. } => Failure::of(Exit::Other, &error, Some("`kura key add` adds one")),
            SlotError::SlotCount
            | SlotError::EmptyPassphrase
            | SlotError::KeyFileLen { .. }
            | SlotError::LabelTooLong
            | SlotError::RecoveryCode(_) => Failure::of(Exit::Usage, &error, None),
        }
    }
}

impl From<UrlError> for Failure {
    fn from(error: UrlError) -> Self {
        Failure::of(Exit::Usage, &error, None)
    }
}

impl From<WorkspaceError> for Failure {
    fn from(error: WorkspaceError) -> Self {
        let (exit, hint) = match error {
            WorkspaceError::Unlock(error) => return error.into(),
            WorkspaceError::Slot(error) => return error.into(),
            WorkspaceError::Store(error) => return error.into(),
            WorkspaceError::Blob(error) => return error.into(),
            WorkspaceError::Version(error) => return error.into(),
            WorkspaceError::Work(error) => return error.into(),
            WorkspaceError::Sync(error) => return error.into(),
            WorkspaceError::NoWorkspace { .. } => (Exit::NoWorkspace, Some("check the address, or make one there")),
            WorkspaceError::Exists { .. } | WorkspaceError::NotEmpty { .. } => (Exit::Other, None),
            WorkspaceError::Unfinished { .. } => (Exit::NoWorkspace, None),
            WorkspaceError::HeadLost { .. } => (Exit::Damaged, None),
            WorkspaceError::Away { .. } => (
                Exit::Unreachable,
                Some("bring it back, or make another workspace in its place with `kura init --anew`"),
            ),
            WorkspaceError::RolledBackUnderChanges { .. } => (Exit::RolledBack, None),
            WorkspaceError::KeysChanged { .. } => {
                (Exit::Conflict, Some("look at `kura key list`, then try again if that is still needed"))
            }
            WorkspaceError::NoSuchSlot { .. } | WorkspaceError::AmbiguousSlot { .. } => (Exit::Usage, None),
            WorkspaceError::Locked { .. } => {
                (Exit::Locked, Some("wait until it ends, or go through its mount; `kura unmount` ends a mount"))
            }
            WorkspaceError::NoCredential { .. } | WorkspaceError::BadTag { .. } | WorkspaceError::TagTaken { .. } => {
                (Exit::Usage, None)
            }
            WorkspaceError::Unmerged { .. } => (Exit::Conflict, Some("take ours, theirs or both")),
            WorkspaceError::ReadOnly => (Exit::Denied, Some("it was opened read-only; mount it without --read-only")),
            WorkspaceError::NotInStore { .. } => (Exit::Unreachable, Some(TRY_AGAIN)),
            WorkspaceError::NoSuchTag { .. }
            | WorkspaceError::Forgotten { .. }
            | WorkspaceError::InTheWay { .. }
            | WorkspaceError::Unfit { .. }
            | WorkspaceError::Disk { .. } => (Exit::Other, None),
        };
        Failure::of(exit, &error, hint)
    }
}

impl From<SealedError> for Failure {
    fn from(error: SealedError) -> Self {
        let error = match error {
            SealedError::Workspace(error) => return error.into(),
            error => error,
        };
        let (exit, hint) = match &error {
            SealedError::NotSealed { .. } | SealedError::NewerFormat { .. } | SealedError::Memory(_) => {
                (Exit::Other, None)
            }
            SealedError::Damaged { .. } => (
                Exit::Damaged,
                Some("backups lie in .kura-sealed beside it; `kura sealed read --accept-damage` reads what is left"),
            ),
            SealedError::NoDocument { .. } => (Exit::WrongKey, Some("check both; nobody can say which is wrong")),
            SealedError::Ids(_)
            | SealedError::Settings(_)
            | SealedError::EmptyPassword
            | SealedError::Document(_)
            | SealedError::Request(_)
            | SealedError::TooLarge { .. } => (Exit::Usage, None),
            SealedError::RestNotDeclared { .. } => {
                (Exit::Usage, Some("name all documents with --known, then say --rest-is-unused"))
            }
            SealedError::Full { .. } => (Exit::Other, Some("make another file, with more slots")),
            SealedError::Occupied(_) => (Exit::Usage, Some("choose another name")),
            SealedError::Locked { .. } => (Exit::Locked, Some("wait until it is done")),
            SealedError::NotWritten { .. } => (Exit::Other, Some("check the disk, then try again")),
            SealedError::Disk { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                (Exit::Denied, None)
            }
            SealedError::Disk { .. } | SealedError::Workspace(_) => (Exit::Other, None),
        };
        Failure::of(exit, &error, hint)
    }
}
