//! Running a request.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::changes::{ChangeInfo, list_changes};
use super::conflicts;
use super::failure::{Exit, Failure};
use super::health::{checked, reencrypt, repaired, sample};
use super::jobs;
use super::locks;
use super::maintain::{forget, gc};
use super::metrics;
use super::near;
use super::patch::patch;
use super::path::PathText;
use super::reply::{Reply, VersionInfo};
use super::request::Request;
use super::space;
use super::trace;
use crate::base::ids::VersionId;
use crate::version::diff::ChangeKind;
use crate::workspace::{ExportReport, FlushReport, Progress, RESERVED, Restored, Side, Workspace, WorkspaceError};
use crate::worktree::Recorded;

/// Patches in one reply, in bytes; further files are named without theirs.
const PATCHES_LEN_MAX: usize = 32 * 1024 * 1024;

/// Runs a request on a workspace.
pub fn run(workspace: &Workspace, request: &Request) -> Reply {
    answer(workspace, request).unwrap_or_else(Reply::from)
}

fn answer(workspace: &Workspace, request: &Request) -> Result<Reply, Failure> {
    match request {
        Request::Status { files: true } => near::status_of_files(workspace),
        Request::Status { files: false } => {
            let status = workspace.status();
            Ok(Reply::done(status.to_string(), status))
        }
        Request::Snapshot { message, name } => {
            let recorded = workspace.snapshot(message.clone(), name.clone())?;
            let names = name.iter().cloned().collect();
            let info = VersionInfo::of_record(&recorded.record, names);
            Ok(Reply::done(format!("recorded version {}", info.id), info))
        }
        Request::Untag { name } => {
            workspace.untag(name)?;
            Ok(Reply::done(format!("no version is called `{name}` any more"), json!({ "name": name })))
        }
        Request::Flush { wait_ms } => {
            let report = workspace.flush((*wait_ms > 0).then(|| Duration::from_millis(*wait_ms)))?;
            flushed(workspace, &report)
        }
        Request::Tag { version, name } => tag(workspace, version, name),
        Request::Blame { path } => trace::blame(workspace, &clean(path)?),
        Request::Find { pattern, below, deleted } => trace::find(workspace, pattern, &clean(below)?, *deleted),
        Request::Undelete { paths, dry_run } => {
            let paths = paths.iter().map(clean).collect::<Result<Vec<Vec<u8>>, Failure>>()?;
            trace::undelete(workspace, &paths, *dry_run)
        }
        Request::Log { max, path, from } => {
            let from = from.as_deref().map(|from| workspace.select(from)).transpose()?;
            let max = max.unwrap_or(usize::MAX);
            match path {
                Some(path) => trace::log(workspace, &clean(path)?, from, max),
                None => log(workspace, from, max),
            }
        }
        Request::Show { version, changes } => show(workspace, version, *changes),
        Request::Diff { from, to, path, patch } => diff(workspace, from, to.as_deref(), path, *patch),
        Request::Restore { version, paths, dry_run } => restore(workspace, version, paths, *dry_run),
        Request::Revert { version } => {
            let id = workspace.select(version)?;
            Ok(reverted(&workspace.revert(id)?, &id.to_string()))
        }
        Request::Export { version, paths, to } => {
            absolute(to)?;
            export(workspace, version, paths, Path::new(OsStr::from_bytes(&to.0)), &mut |_| true)
        }
        Request::Check { read_data } => Ok(checked(&workspace.check(sample(read_data.as_deref())?)?)),
        Request::Repair { read_data, cut } => Ok(repaired(&workspace.repair(sample(read_data.as_deref())?, *cut)?)),
        Request::Reencrypt { limit } => reencrypt(workspace, *limit),
        Request::Sync {} => conflicts::sync(workspace),
        Request::Conflicts {} => conflicts::conflicts(workspace),
        Request::Resolve { path, take } => conflicts::resolve(workspace, &clean(path)?, take),
        Request::Policy { policy, pattern } => conflicts::policy(workspace, policy.as_deref(), pattern),
        Request::Forget { keep, mode } => forget(workspace, keep, *mode),
        Request::Gc { delete, grace_ms } => gc(workspace, *delete, *grace_ms),
        Request::Leave { wait_ms } => leave(workspace, *wait_ms),
        Request::Lock { paths, for_ms, by_force } => locks::lock(workspace, &clean_all(paths)?, *for_ms, *by_force),
        Request::Unlock { paths } => locks::unlock(workspace, &clean_all(paths)?),
        Request::Locks {} => locks::locks(workspace),
        Request::Prefetch { paths } => near::prefetch(workspace, &clean_all(paths)?),
        Request::Pin { paths } => near::pin(workspace, &clean_all(paths)?, true),
        Request::Unpin { paths } => near::pin(workspace, &clean_all(paths)?, false),
        Request::Metrics {} => {
            let found = metrics::collect(&workspace.status(), &jobs::kept_of(workspace)?, Vec::new());
            Ok(Reply::done(format!("{} numbers", found.len()), found))
        }
        Request::Stored {} => space::stored(workspace),
        Request::Jobs {} => Ok(jobs::listed(&jobs::kept_of(workspace)?)),
        Request::Job { job } => jobs::shown_of(workspace, job),
        Request::Cancel { .. } | Request::Config {} | Request::Stop {} => {
            Err(Failure::new(Exit::Other, "the workspace is not mounted"))
        }
    }
}

fn log(workspace: &Workspace, from: Option<VersionId>, max: usize) -> Result<Reply, Failure> {
    let versions = match (from, max) {
        (None, usize::MAX) => workspace.versions()?,
        _ => workspace.versions_from(from, max)?,
    };
    let infos: Vec<VersionInfo> = versions.iter().map(VersionInfo::of).collect();
    Ok(Reply::done(format!("{} versions", workspace.count_versions()?), infos))
}

fn tag(workspace: &Workspace, version: &str, name: &str) -> Result<Reply, Failure> {
    let id = workspace.select(version)?;
    workspace.tag(id, name)?;
    Ok(Reply::done(format!("version {id} is called `{name}`"), json!({ "version": id.to_string(), "name": name })))
}

fn leave(workspace: &Workspace, wait_ms: u64) -> Result<Reply, Failure> {
    workspace.leave(Duration::from_millis(wait_ms)).map_err(|error| {
        let message = format!("what was written last is in memory alone: {error}");
        let hint = "free space on the disk that holds the local state; `kura unmount --force` gives it up";
        Failure::new(Exit::Partial, message).hint(hint)
    })?;
    Ok(Reply::done("ready to be unmounted", json!({})))
}

fn show(workspace: &Workspace, version: &str, changes: bool) -> Result<Reply, Failure> {
    let id = workspace.select(version)?;
    let record = workspace.version(id)?;
    let info = VersionInfo::of_record(&record, workspace.tags_of(id)?);
    let lines = match record.parents.first() {
        Some(parent) if changes => {
            match workspace.diff(Side::Version(*parent), Side::Version(id), b"") {
                Ok(raw) => Some(list_changes(raw).into_iter().map(|line| line.info).collect::<Vec<ChangeInfo>>()),
                // What it changed is not known any more.
                Err(WorkspaceError::Forgotten { .. }) => None,
                Err(error) => return Err(error.into()),
            }
        }
        _ => changes.then(Vec::new),
    };
    let message = info.id.clone();
    Ok(Reply::done(message, json!({ "version": info, "changes": lines })))
}

fn diff(
    workspace: &Workspace,
    from: &str,
    to: Option<&str>,
    path: &PathText,
    with_patch: bool,
) -> Result<Reply, Failure> {
    let before = Side::Version(workspace.select(from)?);
    let after = match to {
        Some(to) => Side::Version(workspace.select(to)?),
        None => Side::Live,
    };
    let path = clean(path)?;
    let mut lines = list_changes(workspace.diff(before, after, &path)?);
    if with_patch {
        let mut len = 0;
        for line in lines.iter_mut().filter(|line| matches!(line.info.letter, '+' | '-' | 'M' | 'T')) {
            if len > PATCHES_LEN_MAX {
                line.info.patch = Some(format!("{} differs; too much to show\n", line.info.path));
                continue;
            }
            let to = line.info.path.to_string();
            let text = patch(workspace, &to, &to, &line.change)?;
            len += text.len();
            line.info.patch = (!text.is_empty()).then_some(text);
        }
    }
    let infos: Vec<ChangeInfo> = lines.into_iter().map(|line| line.info).collect();
    Ok(Reply::done(format!("{} differences", infos.len()), infos))
}

fn restore(workspace: &Workspace, version: &str, paths: &[PathText], dry_run: bool) -> Result<Reply, Failure> {
    let id = workspace.select(version)?;
    let paths = clean_all(paths)?;
    let restored = workspace.restore(id, &paths, dry_run)?;
    let count = restored.changes.len();
    let message = match (dry_run, count, &restored.recorded) {
        (_, 0, _) => format!("nothing differs from version {id}"),
        (true, count, _) => format!("{count} paths would change"),
        (false, count, Some(recorded)) => {
            format!("{count} paths are as in version {id} again; recorded as version {}", recorded.record.id)
        }
        (false, count, None) => format!("{count} paths are as in version {id} again"),
    };
    Ok(match restored.skipped.len() {
        0 => Reply::done(message, restored_data(&restored)),
        count => Reply::partly(format!("{message}; {count} were passed over"), restored_data(&restored)),
    })
}

fn reverted(restored: &Restored, id: &str) -> Reply {
    let count = restored.changes.len();
    let recorded = restored.recorded.as_ref().map(|recorded| format!("; recorded as version {}", recorded.record.id));
    let recorded = recorded.unwrap_or_default();
    let data = restored_data(restored);
    match restored.conflicts.len() + restored.skipped.len() {
        0 if count == 0 => Reply::done(format!("nothing of version {id} is left to undo"), data),
        0 => Reply::done(format!("undid {count} changes of version {id}{recorded}"), data),
        conflicts => Reply::partly(
            format!(
                "undid {count} changes of version {id}{recorded}; {conflicts} paths had changed since and were kept \
                 with the earlier state beside them, or are reserved"
            ),
            data,
        ),
    }
}

fn restored_data(restored: &Restored) -> serde_json::Value {
    let letter = |kind: ChangeKind| match kind {
        ChangeKind::Added => '+',
        ChangeKind::Removed => '-',
        ChangeKind::Modified => 'M',
        ChangeKind::TypeChanged => 'T',
        ChangeKind::Metadata => 'm',
    };
    let changes: Vec<_> = restored
        .changes
        .iter()
        .map(|change| json!({ "letter": letter(change.kind), "path": PathText::from(&*change.path) }))
        .collect();
    let conflicts: Vec<_> = restored
        .conflicts
        .iter()
        .map(|conflict| {
            let beside = conflict.beside.as_deref().map(PathText::from);
            json!({ "path": PathText::from(&*conflict.path), "beside": beside })
        })
        .collect();
    let skipped: Vec<_> =
        restored.skipped.iter().map(|path| json!({ "path": PathText::from(&**path), "reason": RESERVED })).collect();
    let version = recorded_id(restored.recorded.as_ref());
    json!({ "changes": changes, "conflicts": conflicts, "skipped": skipped, "version": version })
}

fn recorded_id(recorded: Option<&Recorded>) -> Option<String> {
    recorded.map(|recorded| recorded.record.id.to_string())
}

fn flushed(workspace: &Workspace, report: &FlushReport) -> Result<Reply, Failure> {
    let status = workspace.status();
    let waiting = report.unpublished_versions;
    let trouble = status.blocked.or(status.offline).map(|trouble| trouble.reason);
    let reason = report.reason.clone().or(trouble).filter(|_| waiting > 0);
    let data = json!({
        "version": recorded_id(report.recorded.as_ref()),
        "unpublished_versions": waiting,
        "unpublished_bytes": report.unpublished_bytes,
        "reason": reason,
    });
    if waiting == 0 {
        return Ok(Reply::done("everything is published", data));
    }
    let reason = reason.as_deref().unwrap_or("publishing goes on");
    let bytes = report.unpublished_bytes;
    let message =
        format!("{waiting} versions ({bytes} bytes) are safe on this machine and not published yet: {reason}");
    Ok(Reply::partly(message, data))
}

/// Refuses a path that depends on a current directory.
pub(super) fn absolute(path: &PathText) -> Result<(), Failure> {
    if Path::new(OsStr::from_bytes(&path.0)).is_absolute() {
        return Ok(());
    }
    let message = format!("`{path}` is not absolute, and the mount knows no current directory");
    Err(Failure::new(Exit::Usage, message))
}

/// Refuses a directory in the mount of the workspace that is to be written into it.
pub fn check_outside(mountpoint: &Path, to: &Path) -> Result<(), Failure> {
    // Of a path that does not exist yet, what exists may lead through symbolic links.
    let real = to.ancestors().find_map(|known| {
        let rest = to.strip_prefix(known).ok()?;
        Some(std::fs::canonicalize(known).ok()?.join(rest))
    });
    if real.unwrap_or_else(|| to.to_owned()).starts_with(mountpoint) {
        let message = format!("{} lies in the workspace that is to be written into it", to.display());
        return Err(Failure::new(Exit::Usage, message).hint(
            "choose a directory outside of the mount; `kura restore` and `cp` from `.kura/versions` work inside",
        ));
    }
    Ok(())
}

/// Writes a version's files into a directory, telling how far it is; ends when `progress` says false.
pub fn export(
    workspace: &Workspace,
    version: &str,
    paths: &[PathText],
    to: &Path,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Reply, Failure> {
    let id = workspace.select(version)?;
    let paths = clean_all(paths)?;
    let ExportReport { exported, skipped } = workspace.export(id, &paths, to, false, progress)?;
    let skipped: Vec<_> = skipped
        .iter()
        .map(|(path, reason)| json!({ "path": PathText::from(path.as_path()), "reason": reason }))
        .collect();
    let message =
        format!("wrote {} names, {} bytes of version {id} to {}", exported.files, exported.bytes, to.display());
    let data =
        json!({ "version": id.to_string(), "files": exported.files, "bytes": exported.bytes, "skipped": skipped });
    Ok(match skipped.len() {
        0 => Reply::done(message, data),
        count => Reply::partly(format!("{message}; {count} could not be restored in full"), data),
    })
}

/// Takes a local directory into the live tree, telling how far it is.
pub fn import(
    workspace: &Workspace,
    from: &Path,
    into: &PathText,
    progress: &mut dyn FnMut(Progress),
) -> Result<Reply, Failure> {
    let report = workspace.import(from, &clean(into)?, progress)?;
    let skipped: Vec<_> = report
        .skipped
        .iter()
        .map(|(path, reason)| json!({ "path": PathText::from(path.as_path()), "reason": reason }))
        .collect();
    let version = recorded_id(report.recorded.as_ref());
    let recorded = version.as_ref().map(|version| format!("; recorded as version {version}")).unwrap_or_default();
    let message = format!(
        "imported {} names, {} bytes, {} were the same already{recorded}",
        report.imported.files, report.imported.bytes, report.unchanged
    );
    let data = json!({
        "version": version, "files": report.imported.files, "bytes": report.imported.bytes,
        "unchanged": report.unchanged, "skipped": skipped,
    });
    Ok(match skipped.len() {
        0 => Reply::done(message, data),
        count => Reply::partly(format!("{message}; {count} could not be imported"), data),
    })
}

pub(super) fn clean_all(paths: &[PathText]) -> Result<Vec<Vec<u8>>, Failure> {
    paths.iter().map(clean).collect()
}

/// A path as the workspace takes it: names joined by `/`.
pub(super) fn clean(path: &PathText) -> Result<Vec<u8>, Failure> {
    let names = path.names().ok_or_else(|| {
        Failure::new(Exit::Usage, format!("`{path}` leaves the workspace")).hint("give the path from its root")
    })?;
    Ok(names.join(&b'/'))
}
