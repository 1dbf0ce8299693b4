//! Publishing and pulling: what was recorded locally gets into the store, and HEAD names it; what others published
//! gets into the live tree.
//!
//! Uses: `base`, `crypto`, `store`, `blob`, `version`, `worktree`. The merge itself is a function in `version`, and
//! `worktree` goes over to its result.
//!
//! Invariants:
//! - HEAD never names what is not in the store: objects first, then index records, then the swing;
//! - HEAD moves only by a conditional write, whose unknown outcome is resolved by reading HEAD back;
//! - a queued version leaves the queue only after HEAD named it or a version made from it;
//! - a HEAD that others moved is taken in, merged with what is ours, before ours is published;
//! - a store whose HEAD goes back behind what this client has seen is refused;
//! - locks are advice: what was changed under a lock that is lost meets the new holder's change as a conflict.
//!
//! Lock order: publisher, leases, then whatever `worktree` takes.

mod collect;
mod condemned;
mod error;
mod lease;
mod leases;
mod lock;
mod memory;
mod publisher;
mod pull;
mod settle;

pub use collect::{CollectOptions, CollectReport, Collector, CollectorParts, Garbage, Waits};
pub use condemned::{Condemned, Name};
pub use error::{Rollback, SyncError};
pub use leases::{LeaseParts, Leases};
pub use lock::{LockEvent, LockInfo, Term};
pub use memory::{ClientMemory, Memory, Seen};
pub use publisher::{Published, Publisher, PublisherParts, Waiting, read_head};
pub use pull::Pulled;
