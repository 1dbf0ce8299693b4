//! What is installed, and whether it is still as it was installed.

use super::error::{ProfileError, Result, during};
use super::lockfile::{Entry, LockFile};
use super::phases::{Phase, phase};
use super::request::{Drift, Installed, Reply, Verified};
use crate::workspace::{Change, Now, Spot, Workspace, integrity_of_files};

/// What is installed.
pub(super) fn list(workspace: &Workspace) -> Result<Reply> {
    let mut change = workspace.begin_change().map_err(during(Phase::Lock))?;
    let lock = phase(Phase::Lock, || LockFile::read(workspace, &mut change))?;
    let installed = |entry: &Entry| Installed {
        name: entry.name.clone(),
        version: entry.version.clone(),
        installed_at: entry.installed_at.clone(),
        provider: entry.provider_id.clone(),
        files: entry.files.len(),
        sidecars: entry.sidecars.iter().map(|sidecar| sidecar.path.clone()).collect(),
        integrity: entry.integrity.clone(),
    };
    Ok(Reply::List(lock.profiles.iter().map(installed).collect()))
}

/// Compares what is there with what was installed.
pub(super) fn verify(workspace: &Workspace, name: Option<&str>) -> Result<Reply> {
    let mut change = workspace.begin_change().map_err(during(Phase::Lock))?;
    let lock = phase(Phase::Lock, || LockFile::read(workspace, &mut change))?;
    if let Some(name) = name.filter(|name| lock.find(name).is_none()) {
        return Err(ProfileError::NotInstalled { name: name.to_owned() });
    }
    let chosen = lock.profiles.iter().filter(|entry| name.is_none_or(|name| name == entry.name));
    let verified = chosen.map(|entry| verify_one(workspace, &mut change, entry)).collect::<Result<_>>()?;
    Ok(Reply::Verified(verified))
}

fn verify_one(workspace: &Workspace, change: &mut Change<'_>, entry: &Entry) -> Result<Verified> {
    let mut drift = Vec::new();
    let mut note = |path: &str, what: &str| drift.push(Drift { path: path.to_owned(), what: what.to_owned() });
    if integrity_of_files(entry.files.iter()) != entry.integrity {
        note(super::LOCK_PATH, "lock");
    }
    for file in &entry.files {
        let spot = change.look(&file.path).map_err(during(Phase::Plan))?;
        match spot.now(workspace).map_err(during(Phase::Plan))? {
            Now::Absent => note(&file.path, "missing"),
            Now::Other(_) => note(&file.path, "in-the-way"),
            Now::File(digest) if digest != file.sha256 => note(&file.path, "modified"),
            Now::File(_) => {
                if let Spot::Taken(found) = &spot
                    && found.mode & 0o777 != file.mode
                {
                    note(&file.path, "mode");
                }
            }
        }
    }
    for sidecar in &entry.sidecars {
        note(&sidecar.path, "sidecar");
    }
    Ok(Verified { name: entry.name.clone(), version: entry.version.clone(), drift })
}
