//! Publishing: what was recorded locally gets into the store, and HEAD names it.
//!
//! Uses: `base`, `crypto`, `store`, `blob`, `version`, `worktree`. Does not merge: a HEAD that somebody else moved
//! is reported, and nothing is dropped.
//!
//! Invariants:
//! - HEAD never names what is not in the store: objects first, then index records, then the swing;
//! - HEAD moves only by a conditional write, whose unknown outcome is resolved by reading HEAD back;
//! - a queued version leaves the queue only after HEAD named it or a version made from it;
//! - a store whose HEAD goes back behind what this client has seen is refused.
//!
//! Lock order: publisher, then whatever `worktree` takes.

mod error;
mod memory;
mod publisher;

pub use error::{Rollback, SyncError};
pub use memory::{ClientMemory, Memory, Seen};
pub use publisher::{Published, Publisher, PublisherParts, Waiting, read_head};
