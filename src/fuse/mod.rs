//! The thin adapter to the kernel: unpack a request, call `fs`, reply.
//!
//! Uses: `fs`, and the words of the rooms below in `errno`. The only room that names the FUSE
//! library. Decides nothing about files.
//!
//! Invariants:
//! - a session thread answers from memory, but for one at a time that reads from the local disk or flushes it; what
//!   else may wait for the disk or the store goes to a bounded pool and is answered by a deadline, whatever happens to
//!   it;
//! - a handler that panics answers EIO and is logged, and the mount lives on;
//! - invalidations are sent by a thread of their own, which holds no lock and answers no request;
//! - only a mount of ours is ever unmounted: it is told by its device number;
//! - a secret request is answered when nothing of it is left in what session threads received (or has a thread busy).
//!
//! Lock order: pool, deadlines and counters lock only themselves, and no other room is called meanwhile.

mod adapter;
mod asked;
mod convert;
mod counters;
mod deadlines;
mod errno;
mod mount;
mod mountpoint;
mod near;
mod permission;
mod pool;
mod serve;
mod wipe;

pub use counters::Operation;
pub use mount::{MountOptions, Mounted, mount};
pub use mountpoint::{MountError, Unmounted, mountpoints, mountpoints_in};
pub use wipe::{LIE_OVER, TOKEN_LEN, lie_over};
