//! Requests of publishers, and what is written down of them.

use std::path::Path;

use super::error::{ReleaseError, Result};
use super::publish::Desk;
use super::request::{Reply, Request};
use super::state::State;
use super::{ONE, alerts, one_release};
use crate::workspace::Workspace;

/// Runs a request. With `to_sign`, what would be published is written there, for others to sign.
pub(super) fn run(workspace: &Workspace, request: &Request, to_sign: Option<&Path>) -> Result<Reply> {
    let open = |repository: &str, keys: &str| Desk::open(workspace, repository, keys, to_sign);
    let done = |what: &str, (name, version): (&str, &str), text: String| {
        if to_sign.is_none() {
            note(workspace, what, (name, version), &text)?;
        }
        Ok(Reply::Said(text))
    };
    match request {
        Request::Publish { dir, repository, keys, channel, rollout } => {
            let package = open(repository, keys)?.add(dir, channel, rollout)?;
            let (name, version) = (&package.name, package.version.to_string());
            done("published", (name, &version), format!("{name} {version} is offered in {channel}"))
        }
        Request::Promote { packages, repository, keys, from, channel, rollout } => {
            let (name, version) = one_release(packages)?;
            open(repository, keys)?.promote(&name, &version, from, channel, rollout)?;
            done("promoted", (&name, &version.to_string()), format!("{name} {version} is offered in {channel}"))
        }
        Request::Rollout { packages, repository, keys, channel, change } => {
            let (name, version) = one_release(packages)?;
            open(repository, keys)?.change(&name, &version, channel, change)?;
            done("rollout", (&name, &version.to_string()), format!("{name} {version} in {channel} {change}"))
        }
        Request::Channel { repository, keys, channel, windows, min_epoch } => {
            let until = open(repository, keys)?.set(channel, windows.as_deref(), min_epoch)?;
            let until = until.strftime("%Y-%m-%d");
            done("signed", ("", ""), format!("channel {channel} is signed anew; what it offers counts until {until}"))
        }
        Request::Advance { repository, keys, channel } => {
            let mut standings = open(repository, keys)?.judge(channel, true)?;
            alerts::watch(workspace, channel, &mut standings, to_sign.is_none())?;
            Ok(Reply::Standings(standings))
        }
        Request::Cleanup { repository, keys, channel, keep, dry_run } => {
            let removed = open(repository, keys)?.clean_up(channel, *keep, *dry_run)?;
            if !dry_run && to_sign.is_none() && !removed.is_empty() {
                note(workspace, "cleaned-up", ("", ""), &format!("{} removed from {channel}", removed.len()))?;
            }
            Ok(Reply::Removed(removed))
        }
        Request::Report { repository, keys, channel } => {
            let mut standings = open(repository, keys)?.judge(channel, false)?;
            alerts::watch(workspace, channel, &mut standings, false)?;
            Ok(Reply::Standings(standings))
        }
        _ => Err(ReleaseError::NotNamed {
            what: "others sign nothing for this".to_owned(),
            missing: "something that a publisher does",
        }),
    }
}

/// Writes down what a publisher did, among what happened in this workspace.
pub(super) fn note(workspace: &Workspace, what: &str, (name, version): (&str, &str), text: &str) -> Result<()> {
    let _one = ONE.lock();
    let mut state = State::read(workspace)?;
    state.note(&super::now(workspace).to_string(), what, name, version, text);
    state.write(workspace)?;
    state.tell(workspace)
}
