//! Profiles: named sets of files that are installed into a workspace, each install being one version.
//!
//! A profile is a directory with a `profile.json`, on the local disk or in the workspace. What is installed stands in
//! `profiles.lock.json` and `profiles.json` in the root of the workspace, which change in the same version as the
//! files, and are reverted with them. The forms are drawn in `FORMAT.md`, "Profiles".
//!
//! Uses: `base`, `version`, `worktree` (errors), `workspace`.
//!
//! Invariants:
//! - all conflicts are found before anything is touched, and told at once;
//! - an operation is one version or nothing, whatever fails, the first install included;
//! - of a profile nothing is read from outside its directory, and nothing is written outside the workspace;
//! - nothing that a user changed is overwritten without `force`, and then it is in the version before.
//!
//! Lock order: the workspace's operations on history; nothing else.

mod error;
mod files;
mod install;
mod lockfile;
mod manifest;
mod merged;
mod phases;
mod plan;
mod request;
mod rollback;
mod source;
mod uninstall;
mod verify;

pub use error::{Conflict, ProfileError, Result};
pub use lockfile::{CONFIG_PATH, Entry, LOCK_PATH, LockFile, check_config};
pub use manifest::{MANIFEST_NAME, check_manifest, check_name};
pub use phases::{Counters, Phase, counters};
pub use request::{Drift, FileReport, Install, Installed, Outcome, Place, Reply, Request, Take, Verified};

use crate::workspace::{Workspace, WorkspaceError};
use crate::worktree::WorkError;

/// How often an operation is planned anew because a path was changed meanwhile.
const ATTEMPTS_MAX: u32 = 5;

/// Runs a request.
pub fn run(workspace: &Workspace, request: &Request) -> Result<Reply> {
    let mut attempt = 1;
    loop {
        match attempt_once(workspace, request) {
            Err(error) if attempt < ATTEMPTS_MAX && was_overtaken(&error) => attempt += 1,
            outcome => return outcome,
        }
    }
}

fn attempt_once(workspace: &Workspace, request: &Request) -> Result<Reply> {
    match request {
        Request::Install(wanted) => install::install(workspace, wanted, false),
        Request::Upgrade(wanted) => install::install(workspace, wanted, true),
        Request::Uninstall { name, dry_run } => uninstall::uninstall(workspace, name, *dry_run),
        Request::Rollback { name, to, force, dry_run } => {
            rollback::rollback(workspace, name, to.as_deref(), *force, *dry_run)
        }
        Request::Resolve { path, take } => uninstall::resolve(workspace, path, *take),
        Request::List {} => verify::list(workspace),
        Request::Verify { name } => verify::verify(workspace, name.as_deref()),
    }
}

fn was_overtaken(error: &ProfileError) -> bool {
    let ProfileError::Workspace { source: WorkspaceError::Work(WorkError::Changed { .. }), .. } = error else {
        return false;
    };
    true
}
