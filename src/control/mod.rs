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

mod batch;
mod changes;
mod conflicts;
mod failure;
mod health;
mod maintain;
mod locks;
mod near;
mod path;
mod dispatch;
mod envelope;
mod extent;
mod guard;
mod ids;
mod jobs;
mod metrics;
mod profile;
mod patch;
mod reference;
mod release;
pub mod release_values;
mod reply;
mod request;
mod run;
mod space;
mod strict;
mod table;
mod text;
mod trace;
mod trial;
mod words;

pub use batch::batch_done;
pub use changes::{ChangeInfo, kind_word};
pub use conflicts::conflicts_text;
pub use dispatch::{Answer, Dispatcher, Setting};
pub use envelope::understands;
pub use extent::{Extent, is_complete, is_hopeless};
pub use failure::{Exit, Failure};
pub use guard::{Carried, run_carrying};
pub use health::{parse_size, reencryption_text};
pub use jobs::{
    BatchHost, JOBS_KEPT_MAX, Job, JobContext, JobProgress, JobRecord, JobState, JobWork, Jobs, Prepare, Prepared,
};
pub use maintain::{ForgetMode, KeepRules};
pub use metrics::Metric;
pub use near::fetched;
pub use path::PathText;
pub use profile::profile_done;
pub use reference::reference;
pub use release::{answer as release_done, release_metrics};
pub use reply::{CountsInfo, Reply, VersionInfo};
pub use request::{REQUEST_LEN_MAX, Request};
pub use run::{check_outside, export, import, run};
pub use table::{Arg, ArgKind, COMMANDS, Command, Run, find as find_command};
pub use text::parse_duration_ms;
