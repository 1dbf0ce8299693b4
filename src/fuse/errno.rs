//! Which error number the kernel gets. The only such table; it names every error there is, so that a
//! new one has to be thought about here.

use fuser::Errno;

use crate::blob::BlobError;
use crate::control::Exit;
use crate::fs::FsError;
use crate::store::StoreError;
use crate::sync::SyncError;
use crate::version::VersionError;
use crate::workspace::WorkspaceError;
use crate::worktree::{JournalError, WorkError};

/// The error number of a failed operation.
pub(super) fn errno(error: &FsError) -> Errno {
    match error {
        FsError::Work(error) => of_work(error),
        FsError::Workspace(error) => of_workspace(error),
        FsError::File { error, .. } => errno(error),
        FsError::NothingThere => Errno::ENXIO,
        FsError::CrossesVersions => Errno::EXDEV,
        FsError::BadHandle => Errno::EBADF,
        FsError::RequestTooLong => Errno::EMSGSIZE,
        FsError::Refused(exit) => of_exit(*exit),
        FsError::SwitchedOff => Errno::ENOSYS,
        FsError::TimedOut => Errno::ETIMEDOUT,
        FsError::Ended => Errno::ENOTCONN,
        FsError::Busy => Errno::EAGAIN,
    }
}

/// Whether the error is trouble of ours, to be logged, and not the answer to a question.
pub(super) fn is_trouble(error: &FsError) -> bool {
    // The daemon answered such a request, and said why.
    !matches!(error, FsError::Refused(_))
        && matches!(errno(error), errno if [Errno::EIO, Errno::ETIMEDOUT, Errno::EAGAIN].contains(&errno))
}

/// What writing to a control file says of a request that was not done.
fn of_exit(exit: Exit) -> Errno {
    match exit {
        Exit::Usage => Errno::EINVAL,
        Exit::NoWorkspace => Errno::ENOENT,
        Exit::Locked => Errno::EBUSY,
        Exit::WrongKey | Exit::Denied => Errno::EACCES,
        Exit::Unreachable => Errno::EHOSTUNREACH,
        Exit::RolledBack | Exit::Conflict => Errno::ESTALE,
        Exit::Interrupted => Errno::ECANCELED,
        Exit::Ok | Exit::Partial | Exit::Other | Exit::Damaged => Errno::EIO,
    }
}

fn of_work(error: &WorkError) -> Errno {
    match error {
        WorkError::NotFound => Errno::ENOENT,
        WorkError::Exists => Errno::EEXIST,
        WorkError::NotADirectory => Errno::ENOTDIR,
        WorkError::IsADirectory => Errno::EISDIR,
        WorkError::NotEmpty => Errno::ENOTEMPTY,
        WorkError::NameTooLong => Errno::ENAMETOOLONG,
        WorkError::Invalid => Errno::EINVAL,
        WorkError::TooLarge => Errno::EFBIG,
        WorkError::NotPermitted => Errno::EPERM,
        WorkError::Denied => Errno::EACCES,
        WorkError::NoData => Errno::NO_XATTR,
        WorkError::Range => Errno::ERANGE,
        WorkError::TooManyLinks => Errno::EMLINK,
        WorkError::NotSupported => Errno::EOPNOTSUPP,
        // After a failed journal the tree is read-only, too.
        WorkError::ReadOnly | WorkError::Locked { .. } => Errno::EROFS,
        WorkError::NoSpace | WorkError::Journal(JournalError::Full { .. }) => Errno::ENOSPC,
        // Never reaches the kernel: the request is asked again where it may wait.
        WorkError::WouldBlock | WorkError::Changed { .. } | WorkError::Collected => Errno::EAGAIN,
        WorkError::Version(error) => of_version(error),
        WorkError::Journal(_) | WorkError::Disk { .. } | WorkError::Inconsistent { .. } => Errno::EIO,
    }
}

fn of_version(error: &VersionError) -> Errno {
    match error {
        VersionError::Blob(error) => of_blob(error),
        VersionError::Store(error) => of_store(error),
        VersionError::Unopened { .. } | VersionError::Damaged { .. } => Errno::EIO,
        VersionError::NoSuchVersion { .. } | VersionError::NoSuchPath { .. } => Errno::ENOENT,
        VersionError::Ambiguous { .. } => Errno::EINVAL,
    }
}

fn of_blob(error: &BlobError) -> Errno {
    match error {
        BlobError::Store(error) => of_store(error),
        // Content that should be there and is not, is damage; "no such file" would be a lie.
        BlobError::Missing { .. }
        | BlobError::Damaged { .. }
        | BlobError::DamagedObject { .. }
        | BlobError::MissingObject { .. }
        | BlobError::Disk { .. } => Errno::EIO,
    }
}

fn of_store(error: &StoreError) -> Errno {
    match error {
        StoreError::Unreachable { .. } => Errno::ETIMEDOUT,
        StoreError::Full { .. } => Errno::ENOSPC,
        // The store's refusal is not a refusal of this file's permissions.
        StoreError::Denied { .. }
        | StoreError::NotFound { .. }
        | StoreError::Precondition { .. }
        | StoreError::OutcomeUnknown { .. }
        | StoreError::NoStore { .. }
        | StoreError::Invalid { .. } => Errno::EIO,
    }
}

fn of_workspace(error: &WorkspaceError) -> Errno {
    match error {
        WorkspaceError::Work(error) => of_work(error),
        WorkspaceError::Version(error) => of_version(error),
        WorkspaceError::Blob(error) => of_blob(error),
        WorkspaceError::Store(error) => of_store(error),
        WorkspaceError::Sync(error) => of_sync(error),
        WorkspaceError::ReadOnly => Errno::EROFS,
        WorkspaceError::BadTag { .. }
        | WorkspaceError::Unfit { .. }
        | WorkspaceError::AmbiguousSlot { .. }
        | WorkspaceError::Unmerged { .. } => Errno::EINVAL,
        WorkspaceError::NoSuchTag { .. }
        | WorkspaceError::Forgotten { .. }
        | WorkspaceError::NoWorkspace { .. }
        | WorkspaceError::NoSuchSlot { .. } => Errno::ENOENT,
        WorkspaceError::Exists { .. } | WorkspaceError::InTheWay { .. } | WorkspaceError::TagTaken { .. } => {
            Errno::EEXIST
        }
        WorkspaceError::NotEmpty { .. } => Errno::ENOTEMPTY,
        WorkspaceError::Locked { .. } => Errno::EBUSY,
        WorkspaceError::NoCredential { .. } | WorkspaceError::Unlock(_) => Errno::EACCES,
        WorkspaceError::KeysChanged { .. } => Errno::EAGAIN,
        WorkspaceError::Slot(_)
        | WorkspaceError::Disk { .. }
        | WorkspaceError::Unfinished { .. }
        | WorkspaceError::HeadLost { .. }
        | WorkspaceError::Away { .. }
        | WorkspaceError::NotInStore { .. }
        | WorkspaceError::RolledBackUnderChanges { .. } => Errno::EIO,
    }
}

fn of_sync(error: &SyncError) -> Errno {
    match error {
        SyncError::Store(error) => of_store(error),
        SyncError::Version(error) => of_version(error),
        SyncError::Work(error) => of_work(error),
        SyncError::Blob(error) => of_blob(error),
        SyncError::Keys(_) => Errno::EACCES,
        SyncError::Locked { .. } | SyncError::NotWriter { .. } => Errno::EROFS,
        SyncError::NotLocked { .. } | SyncError::TooManyLocks | SyncError::NoLocks => Errno::EINVAL,
        SyncError::RolledBack { .. }
        | SyncError::Untrusted { .. }
        | SyncError::Lost { .. }
        | SyncError::Unlocated { .. }
        | SyncError::Collected { .. }
        | SyncError::Stopped
        | SyncError::Contended { .. } => Errno::EIO,
    }
}
