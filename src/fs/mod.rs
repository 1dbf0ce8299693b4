//! File system operations on our own types. A name leads to the live tree, to a past version, or to
//! a control file; this room decides which, and answers in the same words for all three.
//!
//! Uses: everything down to `workspace`. Names no type of the FUSE library; that is `fuse`'s.
//!
//! `.kura` in every directory is not listed but can be entered by its owner. It is that directory's: versions show the
//! directory as it was, paths are from there. Everything else is of the whole workspace.
//!
//! ```text
//! .kura/status  .kura/status.json          one open, one consistent answer
//! .kura/metrics                            numbers in the text format of Prometheus
//! .kura/config                             the settings that the mount began with
//! .kura/access-log                         every request as it is answered, a line of JSON each
//! .kura/history/<path>/<RFC 3339, UTC>     every version of one file, also of a deleted one
//! .kura/versions/by-id/<uuid>/             a past version, read-only
//! .kura/versions/latest                    a symbolic link into by-id, as are
//! .kura/versions/by-time/<RFC 3339, UTC>   (any time that can be read selects the version of then)
//! .kura/versions/by-tag/<tag>
//! .kura/snapshots/<tag>/                   mkdir records a version with this tag, rmdir takes the tag away
//! .kura/ctl/run                            write one JSON object, read the reply from the same handle; a handle that
//!                                          only reads gets the last reply
//! .kura/ctl/<command>                      write a line of arguments or a JSON object; what fails fails the write
//! .kura/ctl/last_error                     why the last request failed that did
//! .kura/jobs/<uuid>/{request,status,progress,log,result,cancel}
//! ```
//!
//! The name `.kura` is taken everywhere: making it, or renaming to it, is not permitted.
//!
//! Invariants:
//! - inodes of the live tree are below 2^63, all others are not; no number stands for two things;
//! - with [`Wait::No`](crate::worktree::Wait) nothing here waits for the store or the disk (telling the status lists a
//!   directory of the local disk, so that it answers also while everything else waits for the store);
//! - an answer marked `lasting` stays right until an invalidation says otherwise.
//!
//! Lock order: nodes, handles, open files and read-ahead each lock only themselves; none is held while
//! another room is called.

mod access;
mod ahead;
mod control;
mod error;
mod file_system;
mod files;
mod open_files;
mod types;

pub use access::{Access, AccessLog};
pub use control::{OWN_FILES, Unfinished};
pub use error::FsError;
pub use file_system::Fs;
pub use types::{Caching, FallocateMode, FsOptions, Handle, Line, Listing, Named, OpenHow, Opened, Shown, Space};

/// The result of an operation of this room.
pub type Result<T> = std::result::Result<T, FsError>;
