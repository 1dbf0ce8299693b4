//! Uninstalling, and deciding about sidecars.

use super::error::{Conflict, ProfileError, Result, during};
use super::lockfile::LockFile;
use super::phases::{Phase, count, phase};
use super::plan::{Dropped, Wanted, plan};
use super::request::{FileReport, Outcome, Reply, Take};
use crate::version::entry::Body;
use crate::workspace::{Change, Clash, Now, Owned, PutError, Spot, Workspace, integrity_of_files};

/// Takes a profile's files away, unless somebody changed them.
pub(super) fn uninstall(workspace: &Workspace, name: &str, dry_run: bool) -> Result<Reply> {
    super::check_name(name)?;
    let _span = tracing::info_span!("profile uninstall", profile = %name).entered();
    let outcome = try_uninstall(workspace, name, dry_run);
    count(&outcome);
    outcome.map(Reply::Outcome)
}

fn try_uninstall(workspace: &Workspace, name: &str, dry_run: bool) -> Result<Outcome> {
    let mut change = workspace.begin_change().map_err(during(Phase::Lock))?;
    let lock = phase(Phase::Lock, || LockFile::read(workspace, &mut change))?;
    take_away(workspace, change, &lock, name, dry_run)
}

/// Takes what is installed away.
pub(super) fn take_away(
    workspace: &Workspace,
    mut change: Change<'_>,
    lock: &LockFile,
    name: &str,
    dry_run: bool,
) -> Result<Outcome> {
    let Some(old) = lock.find(name) else { return Err(ProfileError::NotInstalled { name: name.to_owned() }) };
    let wanted = Wanted { name, provider: name, files: &[], force: false, restore_missing: false };
    let plan = phase(Phase::Plan, || plan(workspace, &mut change, lock, &wanted))?;
    let gone = plan.drop_sidecars(workspace, &mut change, Some(old))?;
    let files = plan.dropped.iter().chain(&gone).map(Dropped::report).collect();
    let mut outcome = Outcome { name: name.to_owned(), changed: true, files, ..Outcome::default() };
    if dry_run {
        return Ok(outcome);
    }
    old.dirs.iter().for_each(|dir| change.remove_empty_dir(dir));
    let mut rest = lock.clone();
    rest.set(name, None);
    phase(Phase::Copy, || rest.write(&mut change))?;
    let message = format!("uninstall profile {name} {}", old.version);
    let version = phase(Phase::Commit, || change.commit(&message)).map_err(during(Phase::Commit))?;
    outcome.version = version.map(|version| version.to_string());
    Ok(outcome)
}

/// Decides about a file with a sidecar beside it.
pub(super) fn resolve(workspace: &Workspace, path: &str, take: Take) -> Result<Reply> {
    let _span = tracing::info_span!("profile resolve", path = %path).entered();
    let outcome = try_resolve(workspace, path, take);
    count(&outcome);
    outcome.map(Reply::Outcome)
}

fn try_resolve(workspace: &Workspace, path: &str, take: Take) -> Result<Outcome> {
    let mut change = workspace.begin_change().map_err(during(Phase::Lock))?;
    let mut lock = phase(Phase::Lock, || LockFile::read(workspace, &mut change))?;
    let nothing = || ProfileError::NothingToResolve { path: path.to_owned() };
    let waits = lock.profiles.iter().find(|entry| entry.sidecars.iter().any(|sidecar| sidecar.meant_for == path));
    let mut entry = waits.ok_or_else(nothing)?.clone();
    let owner = lock.owners(&entry.name).remove(&crate::workspace::fold(path));
    let place = entry.sidecars.iter().position(|sidecar| sidecar.meant_for == path).ok_or_else(nothing)?;
    let sidecar = entry.sidecars.remove(place);
    let spot = change.look(&sidecar.path).map_err(during(Phase::Plan))?;
    let is_untouched = spot.now(workspace).map_err(during(Phase::Plan))? == Now::File(sidecar.sha256);
    if take == Take::Theirs {
        if let Some(owner) = owner {
            let conflict = Conflict { path: path.to_owned(), clash: Clash::Owned { owner } };
            return Err(ProfileError::Conflicts { conflicts: vec![conflict] });
        }
        let Spot::Taken(found) = &spot else { return Err(nothing()) };
        let Body::File(body) = &found.body else { return Err(nothing()) };
        // What the user made of the sidecar counts.
        let put = change.put(path, &mut workspace.content(body.clone()), found.mode, None);
        put.map_err(|error| put_failed(path, error))?;
        let (mode, size, sha256) = (found.mode & 0o777, body.size, sidecar.sha256);
        if !entry.files.iter().any(|file| file.path == path) {
            entry.files.push(Owned {
                path: path.to_owned(),
                mode,
                size,
                sha256,
                class: Default::default(),
                adopted: false,
            });
            entry.files.sort_by(|a, b| a.path.cmp(&b.path));
        }
        entry.integrity = integrity_of_files(entry.files.iter());
    }
    let is_gone = take == Take::Theirs || take == Take::Mine && is_untouched;
    if is_gone {
        change.remove(&sidecar.path);
    }
    let action = if is_gone { "remove" } else { "orphan" };
    let files = vec![FileReport { path: sidecar.path, action: action.to_owned(), sidecar: None }];
    let name = entry.name.clone();
    lock.set(&name, Some(entry));
    phase(Phase::Copy, || lock.write(&mut change))?;
    let message = format!("resolve {path} of profile {name}");
    let version = phase(Phase::Commit, || change.commit(&message)).map_err(during(Phase::Commit))?;
    let version = version.map(|version| version.to_string());
    Ok(Outcome { name, version, changed: true, files, ..Outcome::default() })
}

fn put_failed(path: &str, error: PutError) -> ProfileError {
    match error {
        PutError::Workspace(error) => during(Phase::Copy)(error),
        error => ProfileError::Source { phase: Phase::Copy, path: path.to_owned(), reason: error.to_string() },
    }
}
