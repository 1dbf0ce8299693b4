//! What an install does to each file, decided before anything is touched.

use std::collections::{HashMap, HashSet};

use super::error::{Conflict, Result, during};
use super::lockfile::{Entry, LockFile};
use super::phases::Phase;
use super::request::FileReport;
use crate::base::ids::Sha256;
use crate::workspace::{
    Action, Change, Clash, Facts, Incoming, Now, Owned, SidecarFile, Spot, Workspace, decide, fold, sidecar_name,
};

/// Sidecars that one file may have.
const SIDECARS_MAX: u32 = 99;

/// How files are to be installed.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    /// What sidecars are named after.
    pub(super) provider: &'a str,
    pub(super) files: &'a [Incoming],
    pub(super) force: bool,
    pub(super) restore_missing: bool,
}

/// One file that is to be installed.
pub(super) struct Step<'a> {
    pub(super) file: &'a Incoming,
    pub(super) action: Action,
    /// Where it goes instead, and whether its content has to be put there.
    pub(super) sidecar: Option<(String, bool)>,
    /// Permission bits of what is there.
    pub(super) mode_now: Option<u16>,
    was_adopted: bool,
    is_owned: bool,
}

/// A file that was installed and is no longer wanted.
pub(super) struct Dropped {
    pub(super) path: String,
    pub(super) remove: bool,
    /// Whether the user changed it and it stays.
    pub(super) is_orphan: bool,
}

/// All that is to be done.
pub(super) struct Plan<'a> {
    pub(super) steps: Vec<Step<'a>>,
    pub(super) dropped: Vec<Dropped>,
    pub(super) sidecars: Vec<SidecarFile>,
    pub(super) conflicts: Vec<Conflict>,
}

struct Planner<'p, 'c, 'w> {
    workspace: &'w Workspace,
    change: &'p mut Change<'c>,
    old: Option<&'p Entry>,
    old_files: HashMap<&'p str, &'p Owned>,
    /// Paths that sidecars cannot have, in their folded form.
    taken: HashSet<String>,
    conflicts: Vec<Conflict>,
}

/// Plans an install, or (without files) an uninstall.
pub(super) fn plan<'a>(
    workspace: &Workspace,
    change: &mut Change<'_>,
    lock: &LockFile,
    wanted: &Wanted<'a>,
) -> Result<Plan<'a>> {
    let owners = lock.owners(wanted.name);
    let taken = wanted.files.iter().map(|file| fold(&file.path)).chain(owners.keys().cloned()).collect();
    let old = lock.find(wanted.name);
    let old_files = old.iter().flat_map(|entry| &entry.files).map(|file| (file.path.as_str(), file)).collect();
    let mut planner = Planner { workspace, change, old, old_files, taken, conflicts: Vec::new() };
    let dropped = planner.dropped(wanted)?;
    let (mut steps, mut sidecars) = (Vec::with_capacity(wanted.files.len()), Vec::new());
    for file in wanted.files {
        let step = planner.step(file, wanted, &owners)?;
        sidecars.extend(planner.sidecar_of(&step));
        steps.push(step);
    }
    let conflicts = planner.conflicts;
    Ok(Plan { steps, dropped, sidecars, conflicts })
}

impl Planner<'_, '_, '_> {
    fn look(&mut self, path: &str) -> Result<(Spot, Now)> {
        let spot = self.change.look(path).map_err(during(Phase::Plan))?;
        let now = spot.now(self.workspace).map_err(during(Phase::Plan))?;
        Ok((spot, now))
    }

    fn step<'a>(
        &mut self,
        file: &'a Incoming,
        wanted: &Wanted<'_>,
        owners: &HashMap<String, String>,
    ) -> Result<Step<'a>> {
        let (spot, now) = self.look(&file.path)?;
        let old = self.old_files.get(file.path.as_str()).copied();
        let facts = Facts {
            old,
            now,
            new: file,
            other_owner: owners.get(&fold(&file.path)).map(String::as_str),
            force: wanted.force,
            restore_missing: wanted.restore_missing,
        };
        let mut action = decide(&facts);
        let mut sidecar = None;
        if action == Action::Sidecar {
            sidecar = self.free_sidecar(&file.path, wanted.provider, &file.sha256)?;
            if sidecar.is_none() {
                action = Action::Conflict(Clash::InTheWay { what: format!("{SIDECARS_MAX} sidecars") });
            }
        }
        if let Action::Conflict(clash) = &action {
            let (path, clash) = match (&spot, clash) {
                (Spot::Blocked(above, _), _) => (above.clone(), clash.clone()),
                _ => (file.path.clone(), clash.clone()),
            };
            let conflict = Conflict { path, clash };
            if !self.conflicts.contains(&conflict) {
                self.conflicts.push(conflict);
            }
        }
        let mode_now = match &spot {
            Spot::Taken(entry) => Some(entry.mode & 0o777),
            _ => None,
        };
        let was_adopted = old.map_or(action == Action::Adopt, |old| old.adopted);
        let is_owned = action != Action::Sidecar || old.is_some() && facts.other_owner.is_none();
        Ok(Step { file, action, sidecar, mode_now, was_adopted, is_owned })
    }

    /// The sidecar that stands for a step afterwards: the new one, or one that still waits for a decision.
    fn sidecar_of(&self, step: &Step<'_>) -> Option<SidecarFile> {
        let sha256 = step.file.sha256;
        if let Some((path, _)) = &step.sidecar {
            return Some(SidecarFile { path: path.clone(), meant_for: step.file.path.clone(), sha256 });
        }
        let old = self.old?.sidecars.iter().find(|old| old.meant_for == step.file.path && old.sha256 == sha256);
        old.filter(|_| step.action == Action::Keep).cloned()
    }

    /// A name for a sidecar, and whether its content is still to be put there.
    fn free_sidecar(&mut self, path: &str, provider: &str, sha256: &Sha256) -> Result<Option<(String, bool)>> {
        for number in 1..=SIDECARS_MAX {
            let name = sidecar_name(path, provider, number);
            if self.taken.contains(&fold(&name)) {
                continue;
            }
            let own = self.old.and_then(|entry| entry.sidecars.iter().find(|sidecar| sidecar.path == name));
            let own = own.filter(|own| own.meant_for == path).map(|own| own.sha256);
            let put = match self.look(&name)?.1 {
                Now::Absent => (!self.has_twin(&name)?).then_some(true),
                Now::File(digest) if digest == *sha256 => Some(false),
                Now::File(digest) if own == Some(digest) => Some(true),
                Now::File(_) | Now::Other(_) => None,
            };
            if let Some(put) = put {
                self.taken.insert(fold(&name));
                return Ok(Some((name, put)));
            }
        }
        Ok(None)
    }

    /// Whether a name differs from one that is there in upper and lower case only.
    fn has_twin(&self, path: &str) -> Result<bool> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let names = self.workspace.names_in(self.change.record(), dir).map_err(during(Phase::Plan))?;
        let name = fold(name);
        Ok(names.iter().any(|(other, _)| std::str::from_utf8(other).is_ok_and(|other| fold(other) == name)))
    }

    /// What is installed and no longer wanted; it is as good as gone when the rest is planned.
    fn dropped(&mut self, wanted: &Wanted<'_>) -> Result<Vec<Dropped>> {
        let Some(old) = self.old else { return Ok(Vec::new()) };
        let new: HashSet<&str> = wanted.files.iter().map(|file| file.path.as_str()).collect();
        let mut dropped = Vec::new();
        for file in old.files.iter().filter(|file| !new.contains(file.path.as_str())) {
            let (remove, is_orphan) = match self.look(&file.path)?.1 {
                _ if file.adopted => (false, false),
                Now::Absent => (false, false),
                Now::File(digest) if digest == file.sha256 => (true, false),
                Now::File(_) | Now::Other(_) => (false, true),
            };
            if remove {
                self.change.remove(&file.path);
            }
            dropped.push(Dropped { path: file.path.clone(), remove, is_orphan });
        }
        Ok(dropped)
    }
}

impl Plan<'_> {
    /// Sidecars that are not wanted any more go, unless the user changed them.
    pub(super) fn drop_sidecars(
        &self,
        workspace: &Workspace,
        change: &mut Change<'_>,
        old: Option<&Entry>,
    ) -> Result<Vec<Dropped>> {
        let mut dropped = Vec::new();
        let is_kept = |path: &str| self.sidecars.iter().any(|sidecar| sidecar.path == path);
        for sidecar in old.iter().flat_map(|entry| &entry.sidecars).filter(|sidecar| !is_kept(&sidecar.path)) {
            let spot = change.look(&sidecar.path).map_err(during(Phase::Plan))?;
            let now = spot.now(workspace).map_err(during(Phase::Plan))?;
            let remove = now == Now::File(sidecar.sha256);
            if remove {
                change.remove(&sidecar.path);
            }
            let is_orphan = !remove && now != Now::Absent;
            dropped.push(Dropped { path: sidecar.path.clone(), remove, is_orphan });
        }
        Ok(dropped)
    }

    /// What the lock file says of the files afterwards.
    pub(super) fn owned(&self) -> Vec<Owned> {
        let owned = |step: &Step<'_>| {
            let Incoming { path, mode, size, sha256, class } = step.file.clone();
            Owned { path, mode, size, sha256, class, adopted: step.was_adopted }
        };
        self.steps.iter().filter(|step| step.is_owned).map(owned).collect()
    }
}

impl Step<'_> {
    pub(super) fn report(&self) -> FileReport {
        let action = match &self.action {
            Action::Install => "install",
            Action::Adopt => "adopt",
            Action::Replace => "replace",
            Action::Keep => "keep",
            Action::LeaveRemoved => "left-removed",
            Action::Sidecar => "sidecar",
            Action::Conflict(_) => "conflict",
        };
        let sidecar = self.sidecar.as_ref().map(|(path, _)| path.clone());
        FileReport { path: self.file.path.clone(), action: action.to_owned(), sidecar }
    }
}

impl Dropped {
    pub(super) fn report(&self) -> FileReport {
        let action = match (self.remove, self.is_orphan) {
            (true, _) => "remove",
            (false, true) => "orphan",
            (false, false) => "forget",
        };
        FileReport { path: self.path.clone(), action: action.to_owned(), sidecar: None }
    }
}
