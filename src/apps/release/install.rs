//! Packages into the tree, and out of it again: one version each time.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::content::Content;
use super::error::{ReleaseError, Result};
use super::lock::{self, Installed};
use super::package::{File, Package, UpdateType};
use super::repository::Repository;
use super::request::{Doing, Done};
use crate::base::ids::VersionId;
use crate::workspace::{
    Action, Change, Clash, Facts, Now, Owned, PutError, SidecarFile, Spot, Stage, Staged, Workspace, WorkspaceError,
    decide, fold, integrity_of_file, parse_integrity, sidecar_name,
};
use crate::worktree::WorkError;

/// How often an install is planned anew because a path was changed meanwhile.
const ATTEMPTS_MAX: u32 = 5;
const SIDECARS_MAX: u32 = 99;
/// Messages of versions that hold an install begin so.
const MESSAGE: &str = "install release ";

/// Packages that are installed together.
pub(super) struct Batch<'a> {
    pub(super) repository: &'a dyn Repository,
    pub(super) channel: &'a str,
    pub(super) packages: &'a [Package],
    /// The ids of the installs, one for each package.
    pub(super) installs: &'a [String],
    pub(super) force: bool,
    pub(super) doing: &'a Doing<'a>,
}

/// Installs packages as one version. What a plan needs is fetched while nobody waits for the history of the workspace,
/// and then it is planned anew; so only the change itself keeps others waiting.
pub(super) fn run(workspace: &Workspace, batch: &Batch<'_>) -> Result<Done> {
    let mut fetched = Fetched::new(workspace, batch);
    let mut attempt = 1;
    loop {
        match try_run(workspace, batch, &fetched) {
            Ok(Tried::Done(done)) => return Ok(done),
            Ok(Tried::Needs(needed)) => needed.into_iter().try_for_each(|place| fetched.fetch(place))?,
            Err(ReleaseError::Workspace(WorkspaceError::Work(WorkError::Changed { .. }))) if attempt < ATTEMPTS_MAX => {
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A file of a batch: which package, and which of its files.
type FilePlace = (usize, usize);

enum Tried {
    Done(Done),
    /// Nothing was done, since this has to be fetched first.
    Needs(Vec<FilePlace>),
}

/// Content that was fetched and is what was signed; it waits to be named.
struct Fetched<'a> {
    batch: &'a Batch<'a>,
    stage: Stage,
    files: HashMap<FilePlace, Staged>,
    /// Bytes, so far and altogether.
    bytes: u64,
    total: u64,
}

impl<'a> Fetched<'a> {
    fn new(workspace: &Workspace, batch: &'a Batch<'a>) -> Self {
        let total = batch.packages.iter().flat_map(|package| &package.files).map(|file| file.size).sum();
        Self { batch, stage: workspace.stage(), files: HashMap::new(), bytes: 0, total }
    }

    fn fetch(&mut self, place: FilePlace) -> Result<()> {
        let package = &self.batch.packages[place.0];
        let file = &package.files[place.1];
        let unfit = |reason: String| ReleaseError::Payload {
            package: format!("{} {}", package.name, package.version),
            path: file.path.clone(),
            reason,
        };
        let wanted = parse_integrity(&file.integrity).ok_or_else(|| unfit("it has no digest".to_owned()))?;
        let (doing, total, mut so_far) = (self.batch.doing, self.total, self.bytes);
        let mut told = |len: u64| {
            so_far += len;
            doing.progress(so_far, total, &file.path)
        };
        let mut content = Content::new(self.batch.repository, &file.chunks, file.size, &mut told);
        let staged = self.stage.add(&mut content, Some(wanted));
        if let Some(failure) = content.failure.take() {
            return Err(failure);
        }
        self.bytes += file.size;
        match staged {
            Ok(staged) => drop(self.files.insert(place, staged)),
            Err(PutError::Workspace(error)) => return Err(error.into()),
            Err(error) => return Err(unfit(error.to_string())),
        }
        Ok(())
    }
}

fn try_run(workspace: &Workspace, batch: &Batch<'_>, fetched: &Fetched<'_>) -> Result<Tried> {
    let mut change = workspace.begin_change()?;
    let installed = lock::installed(workspace, change.record())?;
    let (done, conflicts, needed) = (Done::default(), Vec::new(), Vec::new());
    let mut work = Work { workspace, batch, installed: &installed, done, conflicts, fetched, needed };
    let mut entries = Vec::new();
    for (number, install_id) in batch.installs.iter().enumerate() {
        entries.push(work.package(&mut change, number, install_id)?);
    }
    if !work.conflicts.is_empty() {
        work.conflicts.sort();
        return Err(ReleaseError::Conflicts { paths: work.conflicts });
    }
    if !work.needed.is_empty() {
        return Ok(Tried::Needs(work.needed));
    }
    let made = change.made_dirs();
    let mut names = Vec::new();
    for mut entry in entries {
        let is_its = |dir: &&String| {
            entry
                .files
                .iter()
                .any(|file| file.path.strip_prefix(dir.as_str()).is_some_and(|rest| rest.starts_with('/')))
        };
        entry.dirs.extend(made.iter().filter(is_its).cloned());
        entry.dirs.sort();
        entry.dirs.dedup();
        names.push(format!("{} {} {}", entry.name, entry.version, mark(&entry.install_id)));
        lock::write(&mut change, &entry)?;
    }
    let version = change.commit(&format!("{MESSAGE}{}", names.join(", ")))?;
    Ok(Tried::Done(Done { version: version.map(|version| version.to_string()), ..work.done }))
}

struct Work<'a> {
    workspace: &'a Workspace,
    batch: &'a Batch<'a>,
    installed: &'a [Installed],
    done: Done,
    conflicts: Vec<String>,
    fetched: &'a Fetched<'a>,
    needed: Vec<FilePlace>,
}

impl Work<'_> {
    fn package(&mut self, change: &mut Change<'_>, number: usize, install_id: &str) -> Result<Installed> {
        let package = &self.batch.packages[number];
        let old = self.installed.iter().find(|one| one.name == package.name);
        let old_files: HashMap<&str, &Owned> =
            old.iter().flat_map(|one| &one.files).map(|file| (file.path.as_str(), file)).collect();
        self.drop_old(change, package, old)?;
        let owners = self.owners(package);
        let (mut files, mut sidecars) = (Vec::new(), Vec::new());
        for (place, file) in package.incoming().into_iter().enumerate() {
            let spot = change.look(&file.path)?;
            let facts = Facts {
                old: old_files.get(file.path.as_str()).copied(),
                now: spot.now(self.workspace)?,
                new: &file,
                other_owner: owners.get(&fold(&file.path)).map(String::as_str),
                force: self.batch.force,
                restore_missing: false,
            };
            let action = decide(&facts);
            let adopted = facts.old.map_or(action == Action::Adopt, |old| old.adopted);
            let target = match action {
                Action::Conflict(clash) => {
                    self.conflicts.push(format!("{}: {}", file.path, words(&clash)));
                    continue;
                }
                Action::Install | Action::Replace => Some(file.path.clone()),
                Action::Sidecar => match self.free_sidecar(change, &file.path, &package.name)? {
                    Some(path) => {
                        sidecars.push(SidecarFile {
                            path: path.clone(),
                            meant_for: file.path.clone(),
                            sha256: file.sha256,
                        });
                        self.done.sidecars.push(path.clone());
                        Some(path)
                    }
                    None => None,
                },
                Action::Adopt | Action::Keep | Action::LeaveRemoved => None,
            };
            if let Some(target) = target.filter(|_| self.conflicts.is_empty()) {
                match self.fetched.files.get(&(number, place)) {
                    Some(staged) => change.put_staged(&target, staged.clone(), file.mode)?,
                    None => self.needed.push((number, place)),
                }
            }
            let (path, mode, size, sha256, class) = (file.path, file.mode, file.size, file.sha256, file.class);
            files.push(Owned { path, mode, size, sha256, class, adopted });
        }
        Ok(Installed {
            name: package.name.clone(),
            version: package.version.clone(),
            channel: self.batch.channel.to_owned(),
            installed_at: super::now(self.workspace).to_string(),
            install_id: install_id.to_owned(),
            rollback: package.rollback,
            dependencies: package.dependencies.clone(),
            conflicts: package.conflicts.clone(),
            files,
            sidecars,
            dirs: old.map(|one| one.dirs.clone()).unwrap_or_default(),
        })
    }

    /// What other packages own, by path: one that is replaced by this batch what its new version has.
    fn owners(&self, package: &Package) -> BTreeMap<String, String> {
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        let mut own = |path: &str, name: &str| drop(owners.insert(fold(path), name.to_owned()));
        for other in self.installed.iter().filter(|one| one.name != package.name) {
            match self.batch.packages.iter().find(|package| package.name == other.name) {
                Some(new) => new.files.iter().for_each(|file| own(&file.path, &new.name)),
                None => other.files.iter().for_each(|file| own(&file.path, &other.name)),
            }
        }
        for other in self.batch.packages.iter().filter(|other| other.name < package.name) {
            other.files.iter().for_each(|file| own(&file.path, &other.name));
        }
        owners
    }

    /// Files that the new version does not have go, unless somebody changed them.
    fn drop_old(&self, change: &mut Change<'_>, package: &Package, old: Option<&Installed>) -> Result<()> {
        let Some(old) = old else { return Ok(()) };
        let kept: HashSet<&str> = package.files.iter().map(|file| file.path.as_str()).collect();
        for file in old.files.iter().filter(|file| !file.adopted && !kept.contains(file.path.as_str())) {
            if change.look(&file.path)?.now(self.workspace)? == Now::File(file.sha256) {
                change.remove(&file.path);
            }
        }
        for sidecar in &old.sidecars {
            if change.look(&sidecar.path)?.now(self.workspace)? == Now::File(sidecar.sha256) {
                change.remove(&sidecar.path);
            }
        }
        old.dirs.iter().for_each(|dir| change.remove_empty_dir(dir));
        Ok(())
    }

    fn free_sidecar(&self, change: &mut Change<'_>, path: &str, package: &str) -> Result<Option<String>> {
        for number in 1..=SIDECARS_MAX {
            let name = sidecar_name(path, package, number);
            if matches!(change.look(&name)?, Spot::Free) && !self.done.sidecars.contains(&name) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

fn words(clash: &Clash) -> String {
    match clash {
        Clash::Modified => "it was changed since it was installed".to_owned(),
        Clash::Unowned => "it is there and belongs to no package".to_owned(),
        Clash::Owned { owner } => format!("it belongs to package `{owner}`"),
        Clash::InTheWay { what } => format!("{what} is in the way"),
    }
}

/// What the message of the version that holds an install says of it.
fn mark(install_id: &str) -> String {
    format!("(install {install_id})")
}

/// The version that holds an install, and its message.
pub(super) fn version_of(workspace: &Workspace, install_id: &str) -> Result<Option<(VersionId, String)>> {
    let mark = mark(install_id);
    for version in workspace.newest_first()? {
        let version = version.map_err(WorkspaceError::from)?;
        if let Some(message) = version.summary.message
            && message.contains(&mark)
            && message.starts_with(MESSAGE)
        {
            return Ok(Some((version.id, message)));
        }
    }
    unnamed_version_of(workspace, install_id)
}

/// After a crash before its version was recorded, an install is in the next one that was, without a word of it.
fn unnamed_version_of(workspace: &Workspace, install_id: &str) -> Result<Option<(VersionId, String)>> {
    let present = workspace.begin_change()?.base();
    let (mut at, mut found) = (workspace.version(present)?, None);
    let mut there = lock::installed(workspace, &at)?;
    while there.iter().any(|one| one.install_id == install_id) {
        // Without the version before, it cannot be undone.
        let Some(parent) = at.parents.first().copied() else { return Ok(None) };
        let Ok(before) = workspace.version(parent) else { return Ok(None) };
        let then = lock::installed(workspace, &before)?;
        let is_new = |one: &&Installed| !then.iter().any(|other| other.install_id == one.install_id);
        let marks: Vec<String> = there.iter().filter(is_new).map(|one| mark(&one.install_id)).collect();
        found = Some((at.id, marks.join(", ")));
        (at, there) = (before, then);
    }
    Ok(found)
}

/// Undoes the version that an install made, keeping what came after it: what it undid, and as which version.
pub(super) fn go_back(workspace: &Workspace, one: &Installed) -> Result<(Vec<Installed>, Option<VersionId>)> {
    let (found, message) = version_of(workspace, &one.install_id)?.ok_or_else(|| ReleaseError::Missing {
        what: "version of the workspace that holds the install of",
        name: format!("{} {}", one.name, one.version),
    })?;
    let present = lock::present(workspace)?;
    let undone: Vec<Installed> =
        present.into_iter().filter(|other| message.contains(&mark(&other.install_id))).collect();
    let recorded = workspace.revert(found)?.recorded;
    Ok((undone, recorded.map(|recorded| recorded.record.id)))
}

/// A package of which only what is installed is known.
pub(super) fn placeholder(one: &Installed) -> Package {
    let file = |owned: &Owned| File {
        path: owned.path.clone(),
        mode: owned.mode,
        size: owned.size,
        integrity: integrity_of_file(&owned.sha256),
        class: owned.class,
        chunks: Vec::new(),
    };
    Package {
        name: one.name.clone(),
        version: one.version.clone(),
        update_type: UpdateType::Maintenance,
        changes: Vec::new(),
        security_epoch: 0,
        from: None,
        floor: None,
        rollback: one.rollback,
        dependencies: one.dependencies.clone(),
        conflicts: one.conflicts.clone(),
        files: one.files.iter().map(file).collect(),
        checks: Vec::new(),
    }
}

/// Paths of a package that are not as they were installed.
pub(super) fn drift(workspace: &Workspace, change: &mut Change<'_>, one: &Installed) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for file in &one.files {
        if change.look(&file.path)?.now(workspace)? != Now::File(file.sha256) {
            found.push(file.path.clone());
        }
    }
    Ok(found)
}
