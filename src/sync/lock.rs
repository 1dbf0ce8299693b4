//! Locks as others hear of them.

use crate::base::clock::Timestamp;

/// How long a lock is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// Renewed as long as the workspace is open.
    Kept,
    /// So many milliseconds, whether or not the workspace is open.
    For(u64),
}

/// A lock as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockInfo {
    /// The names from the root, joined by `/`; empty for everything.
    pub path: Vec<u8>,
    /// `user@host` of who has it.
    pub holder: String,
    /// Whether that is this client.
    pub is_ours: bool,
    /// When it was taken, by the holder's clock.
    pub since: Timestamp,
    /// Once it is seen unchanged for so long, it counts no more, in milliseconds.
    pub length_ms: u64,
    /// Whether it was.
    pub is_stale: bool,
}

/// What happened to a lock without this client's doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockEvent {
    /// Somebody else locked a path.
    Locked {
        /// The path.
        path: Vec<u8>,
        /// `user@host`.
        holder: String,
    },
    /// Somebody else's lock is gone, or counts no more.
    Unlocked {
        /// The path.
        path: Vec<u8>,
        /// `user@host`.
        holder: String,
    },
    /// This client's lock was broken, or taken after it could not be renewed.
    Lost {
        /// The path.
        path: Vec<u8>,
        /// `user@host` of who has it now.
        holder: Option<String>,
    },
    /// This client's lock has come to the end of its time.
    Ended {
        /// The path.
        path: Vec<u8>,
    },
}
