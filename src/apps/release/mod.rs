//! Releases: packages that are signed, offered in channels, rolled out step by step, installed as one version, checked,
//! and taken back.
//!
//! What a repository says is verified as The Update Framework (1.0) asks for, by the `tough` crate: signed files
//! describe channels and packages, these name the digests of content. All of it is sealed with the key of its channel.
//! A client is a workspace. What it trusts, what failed and what happened is kept sealed outside of the tree; what is
//! installed stands in the tree, in `releases.lock/`, and goes back with it. The forms are drawn in `FORMAT.md`,
//! "Releases".
//!
//! Uses: `base`, `crypto` (keys to be shared), `store` (names, buckets), `version`, `worktree` (errors), `workspace`.
//! Tokio runs here, in `trust.rs`, only as long as one call into `tough` lasts.
//!
//! Invariants:
//! - nothing is installed that the root of trust did not lead to, and nothing older than what was seen;
//! - an install is one version or nothing; one whose checks fail is undone, and never tried again, also when a crash
//!   comes between;
//! - every version that is not installed has a reason;
//! - only installs that failed their checks count against a release, never downloads.
//!
//! Lock order: one request of a client at a time; then the workspace's operations on history.

mod alerts;
mod anchor;
mod audit;
mod carry;
mod channel;
mod checks;
mod client;
mod content;
mod error;
mod forms;
mod http;
mod install;
mod keys;
mod lock;
mod newest;
mod notify;
mod pack;
mod package;
mod proposal;
mod publish;
mod publisher;
mod repository;
mod request;
mod review;
mod rollout;
mod sign;
mod signing;
mod solve;
mod state;
mod trust;

use std::path::Path;

use parking_lot::Mutex;
use semver::Version;

pub use alerts::Limits;
pub use anchor::Anchor;
pub use channel::{Channel, Client, EVERYBODY, Offer, Step, Window, Withheld, bucket};
pub use checks::Checked;
pub use error::{ReleaseError, Result};
pub use forms::{Form, check_form};
pub use keys::{Thresholds, keygen};
pub use lock::Installed;
pub use notify::Notify;
pub use package::{Check, File, Package, UpdateType, check_name};
pub use repository::{Access, DirRepository, Repository, open as open_repository};
pub use request::{Change, Decision, Doing, Done, Listed, Plan, Reply, Request, Rollout, Signing, Standing};
pub use rollout::{Feedback, Outcome, Totals, Verdict, carry_out, judge};
pub use sign::{Expiry, Offered, SignedFile, Signer};
pub use solve::solve;
pub use state::{Event, Following, State};
pub use trust::{Seen, Trusted};

use crate::workspace::Workspace;

/// One request of a client at a time: what it remembers is read, changed and written.
static ONE: Mutex<()> = Mutex::new(());

/// Runs a request.
pub fn run(workspace: &Workspace, request: &Request, doing: &Doing<'_>) -> Result<Reply> {
    if let Some(reply) = run_apart(request, now(workspace)) {
        return reply;
    }
    match request {
        Request::Propose { to, request } => {
            signing::propose(request, to, || publisher::run(workspace, request, Some(Path::new(to))))
        }
        Request::Complete { files, keys, repository } => {
            signing::complete(workspace, files, keys, repository.as_deref())
        }
        Request::Test { dir, scratch } => {
            let (package, files) = (pack::pack(dir)?, Path::new(dir).join(pack::FILES));
            Ok(Reply::Checks(checks::run_in_copy(workspace, &package, &files, scratch.as_deref().map(Path::new))?))
        }
        Request::Publish { .. }
        | Request::Promote { .. }
        | Request::Rollout { .. }
        | Request::Channel { .. }
        | Request::Advance { .. }
        | Request::Report { .. }
        | Request::Cleanup { .. } => publisher::run(workspace, request, None),
        request => {
            let _one = ONE.lock();
            run_client(workspace, request, doing)
        }
    }
}

/// Runs a request that needs no workspace; `None` for all others.
pub fn run_apart(request: &Request, now: jiff::Timestamp) -> Option<Result<Reply>> {
    Some(match request {
        Request::Keygen { .. } => signing::keygen(request, now, None),
        Request::Propose { to, request } if matches!(**request, Request::Keygen { .. }) => {
            signing::propose(request, to, || signing::keygen(request, now, Some(Path::new(to))))
        }
        Request::Key { keys, to } => signing::key(keys, to),
        Request::Sign { file, keys, trust, dry_run } => signing::sign(file, keys, trust.as_deref(), *dry_run),
        Request::Trust { keys, channel, to } => signing::trust(keys, channel, to),
        Request::Pack { dir } => pack::pack(dir).map(|package| {
            let (name, version, count) = (package.name, package.version, package.files.len());
            Reply::Said(format!("{name} {version} has {count} files and can be published"))
        }),
        _ => return None,
    })
}

fn run_client(workspace: &Workspace, request: &Request, doing: &Doing<'_>) -> Result<Reply> {
    match request {
        Request::Follow { .. } => follow(workspace, request),
        Request::Plan { packages } => {
            let desk = client::Desk::open(workspace, doing)?;
            Ok(Reply::Plan(desk.plan(&client::wanted(packages)?)?))
        }
        Request::Install { packages, force } => {
            let wanted = client::wanted(packages)?;
            let mut desk = client::Desk::open(workspace, doing)?;
            let chosen = desk.solve(&wanted)?;
            desk.install(&chosen, *force).map(Reply::Done)
        }
        Request::Update {} => {
            let mut desk = client::Desk::open(workspace, doing)?;
            let taken_back = desk.take_back_revoked()?;
            let chosen = desk.solve(&client::Wanted::new())?;
            let done = desk.install(&chosen, false)?;
            Ok(Reply::Done(Done { taken_back, ..done }))
        }
        Request::Rollback { packages } => carry::rollback(workspace, doing, &one_package(packages)?).map(Reply::Done),
        Request::Verify {} => Ok(Reply::Listed(listed(workspace)?)),
        Request::History {} => {
            Ok(Reply::History { installed: listed(workspace)?, events: State::read(workspace)?.all_events(workspace)? })
        }
        Request::Check {} => {
            let mut desk = client::Desk::open(workspace, doing)?;
            desk.note_available()?;
            Ok(Reply::Decisions(desk.decisions(&client::Wanted::new())))
        }
        request => remember(workspace, request),
    }
}

/// Looks for something new if it is time to, as a mount does at intervals, and installs it where that was asked for.
/// Returns whether anything was done; what happened is told as an event.
pub fn run_if_due(workspace: &Workspace, doing: &Doing<'_>) -> Result<bool> {
    let state = State::read(workspace)?;
    let Some(following) = state.following.as_ref().filter(|following| following.every_ms > 0) else { return Ok(false) };
    let checked = state.checked.as_ref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let age = checked.map(|checked| now(workspace).duration_since(checked).as_millis());
    if age.is_some_and(|age| (0..i128::from(following.every_ms)).contains(&age)) {
        return Ok(false);
    }
    let request = if following.install { Request::Update {} } else { Request::Check {} };
    run(workspace, &request, doing).map(|_| true)
}

/// Requests that only change what the client remembers.
fn remember(workspace: &Workspace, request: &Request) -> Result<Reply> {
    let mut state = State::read(workspace)?;
    let time = now(workspace).to_string();
    let text = match request {
        Request::Pin { packages } => match one_release(packages) {
            Ok((name, version)) => {
                state.pinned.insert(name.clone(), version.clone());
                state.note(&time, "pinned", &name, &version.to_string(), "");
                format!("{name} stays at {version}")
            }
            Err(_) => {
                let name = one_package(packages)?;
                state.pinned.remove(&name);
                state.note(&time, "unpinned", &name, "", "");
                format!("{name} is not pinned")
            }
        },
        Request::Skip { packages } => {
            let (name, version) = one_release(packages)?;
            state.skipped.entry(name.clone()).or_default().insert(version.clone());
            state.note(&time, "skipped", &name, &version.to_string(), "");
            format!("{name} {version} is not installed by itself")
        }
        Request::Feedback { packages, note } => {
            let (name, version) = one_release(packages)?;
            let is_it = |report: &&mut state::Report| report.package == name && report.version == version;
            let report = state.reports.iter_mut().find(is_it).ok_or(ReleaseError::NotInstalled { name })?;
            state.counter = state.counter.saturating_add(1);
            (report.feedback.counter, report.feedback.note, report.sent) = (state.counter, Some(cut(note)), false);
            let following = state.following()?.clone();
            let Following { repository, access, store_key, .. } = &following;
            state.send_reports(&*repository::open(repository, access, store_key, workspace)?);
            "the publisher is told".to_owned()
        }
        Request::Notify { notify } => {
            if let Some(notify) = notify {
                let told = state.events.last().map_or(0, |event| event.number);
                state.notify = Notify { told, ..notify.clone() };
            }
            let Notify { webhook, command, .. } = &state.notify;
            let program = command.first().map(String::as_str).unwrap_or("none");
            format!("program: {program}; webhook: {}", if webhook.is_some() { "set" } else { "none" })
        }
        Request::Alert { channel, limits } => alerts::set(&mut state, channel, limits.as_ref())?,
        Request::Ack { number } => {
            let up_to = number.unwrap_or(u64::MAX);
            let seen = state.events.iter_mut().filter(|event| event.number <= up_to && !event.acknowledged);
            format!("{} events are marked as seen", seen.map(|event| event.acknowledged = true).count())
        }
        _ => unreachable!("every other request is run elsewhere"),
    };
    state.write(workspace)?;
    state.tell(workspace)?;
    Ok(Reply::Said(text))
}

/// What users say is kept short.
fn cut(note: &str) -> String {
    note.chars().take(1000).collect()
}

fn follow(workspace: &Workspace, request: &Request) -> Result<Reply> {
    let Request::Follow { repository, trust, access, ring, every_ms, install } = request else {
        unreachable!("called for this request alone");
    };
    let anchor = Anchor::read(Path::new(trust))?;
    if let Some(ring) = ring {
        check_name("ring", ring)?;
    }
    let mut state = State::read(workspace)?;
    let root = Seen::from_root(&anchor.root)?;
    // What was seen of a repository counts for it as long as it is followed, also from another root.
    let same = state.following.as_ref().is_some_and(|known| known.repository == *repository);
    state.seen = if same { state.seen.rooted(root) } else { root };
    let opened = repository::open(repository, access, &anchor.store_key, workspace)?;
    let refreshed = state.seen.refresh(opened).map(|_| ());
    refreshed?;
    state.following = Some(Following {
        repository: repository.clone(),
        access: access.clone(),
        channel: anchor.channel.clone(),
        channel_key: anchor.channel_key,
        store_key: anchor.store_key,
        ring: ring.clone(),
        every_ms: *every_ms,
        install: *install,
    });
    state.write(workspace)?;
    Ok(Reply::Said(format!("this workspace follows channel {}", anchor.channel)))
}

fn listed(workspace: &Workspace) -> Result<Vec<Listed>> {
    let mut change = workspace.begin_change()?;
    let installed = lock::installed(workspace, change.record())?;
    let list = |one: Installed| {
        Ok(Listed {
            drift: install::drift(workspace, &mut change, &one)?,
            name: one.name,
            version: one.version.to_string(),
            channel: one.channel,
            installed_at: one.installed_at,
        })
    };
    installed.into_iter().map(list).collect()
}

fn one_package(packages: &[String]) -> Result<String> {
    let unfit = || ReleaseError::Name { what: "package", name: packages.join(" ") };
    let [name] = packages else { return Err(unfit()) };
    check_name("package", name)?;
    Ok(name.clone())
}

/// Reads `tool@1.2.0`.
fn one_release(packages: &[String]) -> Result<(String, Version)> {
    let unfit = || ReleaseError::Name { what: "release, as `tool@1.2.0`", name: packages.join(" ") };
    let [text] = packages else { return Err(unfit()) };
    let (name, version) = text.split_once('@').ok_or_else(unfit)?;
    check_name("package", name)?;
    Ok((name.to_owned(), version.parse().map_err(|_| unfit())?))
}

/// The present moment by the workspace's clock.
fn now(workspace: &Workspace) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(workspace.now().unix_ns())).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}
