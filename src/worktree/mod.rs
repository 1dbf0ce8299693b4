//! The live tree: inodes, drafts, the journal, checkpoints and recovery.
//!
//! Uses: `base`, `crypto`, `blob`, `version`. Does not publish: a checkpoint leaves a version in the
//! outbox, `sync` takes it from there.
//!
//! Words. A *draft* is the dirty content of a file. Closing the last writer, an fsync, or renaming
//! over another name *freezes* it: a frozen layer is published content that is not chunked yet.
//! *Absorbing* turns frozen layers into chunks. A *checkpoint* makes a version of the published
//! state and cuts the journal.
//!
//! Invariants:
//! - a change of names or attributes is in the journal (in the system's hands) before it is applied
//!   and acknowledged; replaying the journal applies the same records by the same code;
//! - a journal record never refers to bytes outside the journal that are not durable, so the journal
//!   alone has to be synced;
//! - what changes many names at once counts whole or not at all, after a crash, too;
//! - versions hold only published states; what is not published is carried over into the next
//!   journal segment;
//! - after a failed journal write or sync the tree is read-only until it is opened again.
//!
//! Lock order: checkpoint, absorb, tree, journal. Nothing that may wait for the store is done under
//! the tree lock.

mod absorb;
mod adopt;
mod attr;
mod capture;
mod checkpoint;
mod content;
mod contest;
mod cookies;
mod describe;
mod digests;
mod edit;
mod error;
mod extents;
mod graft;
mod inode;
mod join;
mod journal;
mod load;
mod local_blobs;
mod locks;
mod namespace;
mod open;
mod pages;
mod publication;
mod record;
mod refs;
mod room;
mod stage;
mod table;
mod tree;
mod used;
mod live;

pub use attr::{Attr, Caller, Changes, FileKind, FileState, NewNode, SetTime, Space};
pub use checkpoint::{Checkpoint, Reason, Recorded};
pub use content::Reading;
pub use error::{JournalError, WorkError};
pub use graft::{GraftOp, Invalidation};
pub use join::{Incoming, Joined};
pub use live::{Activity, Wait, Worktree, WorktreeParts};
pub use locks::{Lock, Owner, is_within};
pub use namespace::{RenameMode, XattrMode};
pub use open::{Base, Queued};
pub use room::Limits;
pub use stage::{Seen, Sight, StageError, Staging};
pub use table::DirItem;

/// The result of an operation of this room.
pub type Result<T> = std::result::Result<T, WorkError>;

/// A file name: any bytes but `/` and NUL.
pub type Name = std::sync::Arc<[u8]>;
