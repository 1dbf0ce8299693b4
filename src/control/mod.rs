//! The command table: requests as readable JSON, replies as readable JSON, and the one function
//! that runs them. The command line and the control file of a mount are two doors to it.
//!
//! Uses: `base`, `version`, `worktree`, `sync`, `workspace`. Knows neither terminals nor FUSE, and
//! no details of stores.
//!
//! Invariants:
//! - a request with an unknown operation or field is refused, never half understood;
//! - every failure has one stable code and one exit code, from the table in `failure.rs`;
//! - what a reply says is the same through every door.
//!
//! Lock order: none; the workspace locks itself.

mod changes;
mod failure;
mod health;
mod path;
mod profile;
mod patch;
mod reply;
mod request;
mod run;

pub use changes::ChangeInfo;
pub use failure::{Exit, Failure};
pub use health::{parse_size, reencryption_text};
pub use path::PathText;
pub use reply::{CountsInfo, Reply, VersionInfo};
pub use request::{REQUEST_LEN_MAX, Request};
pub use run::{export, import, run, run_json};
