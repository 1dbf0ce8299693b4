//! Going back to an earlier install.

use super::error::{ProfileError, Result, during};
use super::files::Earlier;
use super::install::Job;
use super::lockfile::{Entry, LEN_MAX, LOCK_PATH, LockFile, rfc3339};
use super::phases::{Phase, count, phase};
use super::plan::Wanted;
use super::request::{Outcome, Reply};
use crate::base::ids::VersionId;
use crate::version::entry::Body;
use crate::version::index::IndexRecord;
use crate::workspace::{Incoming, Owned, Workspace, is_beside, split_path};

/// Goes back to the install before, or to the one with the id `to`.
pub(super) fn rollback(
    workspace: &Workspace,
    name: &str,
    to: Option<&str>,
    force: bool,
    dry_run: bool,
) -> Result<Reply> {
    super::check_name(name)?;
    let _span = tracing::info_span!("profile rollback", profile = %name).entered();
    let outcome = roll(workspace, name, to, force, dry_run);
    count(&outcome);
    outcome.map(Reply::Outcome)
}

fn roll(workspace: &Workspace, name: &str, to: Option<&str>, force: bool, dry_run: bool) -> Result<Outcome> {
    let mut change = workspace.begin_change().map_err(during(Phase::Lock))?;
    let lock = phase(Phase::Lock, || LockFile::read(workspace, &mut change))?;
    let Some(present) = lock.find(name) else {
        return Err(ProfileError::NotInstalled { name: name.to_owned() });
    };
    let Some(entry) = earlier(workspace, present, to)? else {
        return super::uninstall::take_away(workspace, change, &lock, name, dry_run);
    };
    let none = |reason: &str| ProfileError::NoEarlier { name: name.to_owned(), reason: reason.to_owned() };
    let holder = version_of(workspace, &entry.install_id)?;
    let holder = holder.ok_or_else(|| none("the version that holds it is not in history any more"))?;
    let record = workspace.version(holder).map_err(during(Phase::Plan))?;
    let incoming = |owned: &Owned| {
        let Owned { path, mode, size, sha256, class, .. } = owned.clone();
        Incoming { path, mode, size, sha256, class }
    };
    let files: Vec<Incoming> = entry.files.iter().map(incoming).collect();
    let contents = Earlier { record, entry: entry.clone() };
    let provider = entry.provider_id.clone().unwrap_or_else(|| name.to_owned());
    let wanted = Wanted { name, provider: &provider, files: &files, force, restore_missing: true };
    let job = Job { workspace, lock: &lock, contents: &contents, may_replace: true, dry_run, verb: "roll back" };
    let entry = Entry {
        installed_at: rfc3339(workspace.now()).ok_or(ProfileError::Clock)?,
        install_id: uuid::Builder::from_random_bytes(crate::base::random::bytes()).into_uuid().to_string(),
        base_index: entry.base_index.clone(),
        ..entry
    };
    job.run(change, &wanted, entry)
}

/// The entry to go back to; `None` when the profile was not installed before.
fn earlier(workspace: &Workspace, present: &Entry, to: Option<&str>) -> Result<Option<Entry>> {
    let none = |reason: String| ProfileError::NoEarlier { name: present.name.clone(), reason };
    match to {
        None => {
            let base: VersionId = present.base_index.parse().map_err(|_| none("its base is no version".to_owned()))?;
            installed_at(workspace, base, &present.name)
        }
        Some(id) => {
            let missing = || none(format!("no version holds install `{id}`"));
            let version = version_of(workspace, id)?.ok_or_else(missing)?;
            let is_it = |entry: &Entry| entry.name == present.name && entry.install_id == id;
            let entries = locks_at(workspace, version)?.into_iter().flat_map(|lock| lock.profiles);
            entries.into_iter().find(is_it).map(Some).ok_or_else(missing)
        }
    }
}

/// The version that an install made.
fn version_of(workspace: &Workspace, install_id: &str) -> Result<Option<VersionId>> {
    let versions = workspace.versions().map_err(during(Phase::Plan))?;
    let ends = format!("(install {install_id})");
    let is_it = |message: &Option<String>| message.as_ref().is_some_and(|message| message.ends_with(&ends));
    let named = versions.iter().find(|version| is_it(&version.summary.message)).map(|version| version.id);
    if named.is_some() {
        return Ok(named);
    }
    // Its version may have been recorded under another message: the first that has it in its lock file.
    let holds = |version: &VersionId| {
        let locks = locks_at(workspace, *version).unwrap_or_default();
        locks.iter().flat_map(|lock| &lock.profiles).any(|entry| entry.install_id == install_id)
    };
    Ok(versions.iter().rev().map(|version| version.id).find(holds))
}

/// How a profile was installed in a version. Of lock files that lie beside each other, the one counts that fits best,
/// as when they are taken together.
fn installed_at(workspace: &Workspace, version: VersionId, name: &str) -> Result<Option<Entry>> {
    let locks = locks_at(workspace, version)?;
    let entries: Vec<&Entry> = locks.iter().filter_map(|lock| lock.find(name)).collect();
    if locks.len() == 1 {
        return Ok(entries.first().copied().cloned());
    }
    let record = workspace.version(version).map_err(during(Phase::Plan))?;
    let mut best: Option<(usize, &Entry)> = None;
    for entry in &entries {
        let (fits, there) = fitting(workspace, &record, entry)?;
        // What only one of them has, and of which nothing is there, was uninstalled.
        let is_there = there > 0 || entry.files.is_empty() || entries.len() == locks.len();
        if is_there && best.is_none_or(|(most, _)| fits > most) {
            best = Some((fits, entry));
        }
    }
    Ok(best.map(|(_, entry)| entry.clone()))
}

/// How many files of an entry a version has with their content, and how many with any.
fn fitting(workspace: &Workspace, record: &IndexRecord, entry: &Entry) -> Result<(usize, usize)> {
    let (mut fits, mut there) = (0, 0);
    for file in &entry.files {
        let found = workspace.find(record, &split_path(file.path.as_bytes())).map_err(during(Phase::Plan))?;
        let Some(found) = found else { continue };
        there += 1;
        if let Body::File(body) = found.body {
            fits += usize::from(workspace.digest(&body).map_err(during(Phase::Plan))? == file.sha256);
        }
    }
    Ok((fits, there))
}

/// The lock file of a version, and those that lie beside it and can be read.
fn locks_at(workspace: &Workspace, version: VersionId) -> Result<Vec<LockFile>> {
    let record = workspace.version(version).map_err(during(Phase::Plan))?;
    let mut locks = vec![read_lock(workspace, &record, LOCK_PATH.as_bytes())?.unwrap_or_default()];
    let names = workspace.names_that_begin(&record, "", b"conflict-").map_err(during(Phase::Plan))?;
    for name in names.iter().filter(|name| is_beside(name, LOCK_PATH.as_bytes())) {
        locks.extend(read_lock(workspace, &record, name).ok().flatten());
    }
    Ok(locks)
}

fn read_lock(workspace: &Workspace, record: &IndexRecord, name: &[u8]) -> Result<Option<LockFile>> {
    let entry = workspace.find(record, &[name]).map_err(during(Phase::Plan))?;
    let Some(Body::File(body)) = entry.map(|entry| entry.body) else { return Ok(None) };
    if body.size > LEN_MAX {
        return Err(ProfileError::BadLock { path: LOCK_PATH, reason: "it is too long".to_owned() });
    }
    let len = usize::try_from(body.size).unwrap_or(usize::MAX);
    LockFile::parse(&workspace.read_file(&body, 0, len).map_err(during(Phase::Plan))?).map(Some)
}
