//! What is outside of the live tree: `.kura`, the control files in it, and past versions.
//!
//! Everything here but attributes waits for the store or for the workspace, so with
//! [`Wait::No`](crate::worktree::Wait) it is put off at once.

mod handles;
mod history;
mod jobs;
mod names;
mod nodes;
mod outside;
mod past;
mod process;

pub use handles::Unfinished;
pub use names::OWN_FILES;
pub(super) use names::{Item, time_name};
pub(super) use nodes::is_outside;
pub(super) use outside::{Outside, SHA256_XATTR, VERSION_XATTR};
