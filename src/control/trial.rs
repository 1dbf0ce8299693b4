//! Trials: a request fails as it would in earnest, as far as that can be told, or says what it would do. Nothing is
//! done.

use std::path::Path;

use serde_json::{Value, json};

use super::conflicts::{check_conflict, check_policy};
use super::failure::{Exit, Failure};
use super::health::sample;
use super::jobs::Prepared;
use super::maintain::{ForgetMode, forget, gc};
use super::path::PathText;
use super::reply::Reply;
use super::request::Request;
use super::run::clean_all;
use crate::workspace::{Workspace, WorkspaceError};

/// Tries a request that changes something.
pub(super) fn request(workspace: &Workspace, request: &Request) -> Result<Reply, Failure> {
    if workspace.is_read_only() && !matches!(request, Request::Gc { delete: false, .. }) {
        return Err(WorkspaceError::ReadOnly.into());
    }
    match request {
        Request::Forget { keep, mode: ForgetMode::Apply | ForgetMode::DryRun } => {
            return forget(workspace, keep, ForgetMode::DryRun);
        }
        Request::Gc { grace_ms, .. } => return gc(workspace, false, *grace_ms),
        Request::Tag { version, name } => {
            let id = workspace.select(version)?;
            workspace.check_tag(name, Some(id))?;
            return Ok(would(format!("version {id} would be called `{name}`")));
        }
        Request::Snapshot { name: Some(name), .. } => {
            workspace.check_tag(name, None)?;
            return Ok(would(format!("a version would be recorded and called `{name}`")));
        }
        Request::Untag { name } => workspace.check_tagged(name)?,
        Request::Revert { version } => drop(workspace.version(workspace.select(version)?)?),
        Request::Resolve { path, take } => check_conflict(workspace, path, take)?,
        Request::Policy { policy, .. } => drop(check_policy(policy.as_deref())?),
        Request::Lock { paths, by_force, .. } => workspace.check_free(&clean_all(paths)?, *by_force)?,
        Request::Prefetch { paths } | Request::Pin { paths } => {
            workspace.check_present(workspace.tree().base().index.id, &clean_all(paths)?)?;
        }
        Request::Unlock { paths } => workspace.check_held(&clean_all(paths)?)?,
        Request::Unpin { paths } => drop(clean_all(paths)?),
        Request::Repair { read_data, .. } => drop(sample(read_data.as_deref())?),
        _ => {}
    }
    Ok(would("the request can be run; nothing was done".to_owned()))
}

/// Tries what would be a job; its arguments were found to be right.
pub(super) fn job(
    workspace: &Workspace,
    mountpoint: Option<&Path>,
    op: &str,
    prepared: Prepared,
) -> Result<Reply, Failure> {
    prepared.check_place(mountpoint)?;
    let Prepared { shown, check, .. } = prepared;
    if let Some(check) = check {
        check(workspace)?;
    }
    if let Some(version) = shown["version"].as_str() {
        let id = workspace.select(version)?;
        let paths: Vec<PathText> = match &shown["paths"] {
            Value::Null => Vec::new(),
            paths => serde_json::from_value(paths.clone())
                .map_err(|error| Failure::new(Exit::Usage, format!("the paths are not understood: {error}")))?,
        };
        let paths = clean_all(&paths)?;
        workspace.check_present(id, &paths)?;
        let bytes = workspace.bytes_below(id, &paths)?;
        return Ok(would(format!("`{op}` would write {bytes} bytes of version {id}")));
    }
    Ok(would("the job can be run; nothing was done".to_owned()))
}

fn would(message: String) -> Reply {
    Reply::done(message, json!({ "dry_run": true }))
}
