//! Installing and upgrading.

use std::collections::{BTreeSet, HashMap};

use super::error::{ProfileError, Result, during};
use super::files::Contents;
use super::lockfile::{Entry, LockFile, rfc3339};
use super::phases::{Phase, count, count_stored, phase};
use super::plan::{Plan, Wanted, plan};
use super::request::{Install, Outcome, Place, Reply};
use super::source::Profile;
use crate::workspace::{Action, Change, Incoming, Owned, PutError, Workspace, integrity_of_files};

/// Installs, or upgrades, a profile.
pub(super) fn install(workspace: &Workspace, wanted: &Install, upgrade: bool) -> Result<Reply> {
    super::check_name(&wanted.name)?;
    let id = uuid::Builder::from_random_bytes(crate::base::random::bytes()).into_uuid().to_string();
    let _span = tracing::info_span!("profile", profile = %wanted.name, install_id = %id).entered();
    let outcome = install_as(workspace, wanted, upgrade, &id);
    count(&outcome);
    outcome.map(Reply::Outcome)
}

fn install_as(workspace: &Workspace, wanted: &Install, upgrade: bool, id: &str) -> Result<Outcome> {
    let mut change = workspace.begin_change().map_err(during(Phase::Lock))?;
    let lock = phase(Phase::Lock, || LockFile::read(workspace, &mut change))?;
    let old = lock.find(&wanted.name);
    if old.is_none() && upgrade {
        return Err(ProfileError::NotInstalled { name: wanted.name.clone() });
    }
    let place = place(wanted, old)?;
    let profile = phase(Phase::Manifest, || Profile::read(workspace, &wanted.name, &place, change.base()))?;
    if wanted.frozen {
        check_frozen(&wanted.name, old, &profile)?;
    }
    let provider = match (&wanted.provider, &profile.provider) {
        (Some(provider), _) => Some(provider.clone()),
        (None, provider) => provider.clone(),
    };
    if let Some(provider) = &provider {
        super::check_name(provider)?;
    }
    let entry = Entry {
        name: wanted.name.clone(),
        version: profile.version.clone(),
        installed_at: rfc3339(workspace.now()).ok_or(ProfileError::Clock)?,
        install_id: id.to_owned(),
        integrity: String::new(),
        commit: wanted.commit.clone(),
        provider_id: provider,
        source: wanted.source.clone(),
        place: Some(place),
        base_index: change.base().to_string(),
        files: Vec::new(),
        sidecars: Vec::new(),
        dirs: Vec::new(),
    };
    let job = Job {
        workspace,
        lock: &lock,
        contents: &*profile.contents,
        may_replace: upgrade || wanted.force,
        dry_run: wanted.dry_run,
        verb: if upgrade { "upgrade" } else { "install" },
    };
    let files = profile.files.as_slice();
    let provider = entry.provider_id.clone().unwrap_or_else(|| entry.name.clone());
    let wanted = Wanted {
        name: &wanted.name,
        provider: &provider,
        files,
        force: wanted.force,
        restore_missing: wanted.restore_missing,
    };
    job.run(change, &wanted, entry)
}

fn place(wanted: &Install, old: Option<&Entry>) -> Result<Place> {
    let place = wanted.from.clone().or_else(|| old.and_then(|entry| entry.place.clone()));
    place.ok_or_else(|| ProfileError::NoManifest { manifest: "place named where the profile is".to_owned() })
}

fn check_frozen(name: &str, old: Option<&Entry>, profile: &Profile) -> Result<()> {
    let frozen = |reason: String| Err(ProfileError::Frozen { name: name.to_owned(), reason });
    let Some(old) = old else { return frozen("the lock file does not have it".to_owned()) };
    if old.version != profile.version {
        return frozen(format!("the lock file has version {}, not {}", old.version, profile.version));
    }
    let known: HashMap<&str, &Owned> = old.files.iter().map(|file| (file.path.as_str(), file)).collect();
    let is_same = |file: &Incoming| {
        known.get(file.path.as_str()).is_some_and(|known| (known.sha256, known.mode) == (file.sha256, file.mode))
    };
    let differing = profile.files.iter().find(|file| !is_same(file));
    match differing {
        None if old.files.len() == profile.files.len() => Ok(()),
        None => frozen("the lock file has more files".to_owned()),
        Some(file) => frozen(format!("{} is not as in the lock file", file.path)),
    }
}

/// An install with everything it needs.
pub(super) struct Job<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) lock: &'a LockFile,
    pub(super) contents: &'a dyn Contents,
    /// Whether another version of the profile may be there.
    pub(super) may_replace: bool,
    pub(super) dry_run: bool,
    /// For the message of the version.
    pub(super) verb: &'static str,
}

impl Job<'_> {
    /// Plans and, unless only that was asked for, does it.
    pub(super) fn run(&self, mut change: Change<'_>, wanted: &Wanted<'_>, mut entry: Entry) -> Result<Outcome> {
        let old = self.lock.find(wanted.name);
        let mut plan = phase(Phase::Plan, || plan(self.workspace, &mut change, self.lock, wanted))?;
        plan.conflicts.sort_by(|a, b| a.path.cmp(&b.path));
        let gone = plan.drop_sidecars(self.workspace, &mut change, old)?;
        entry.files = plan.owned();
        entry.sidecars = plan.sidecars.clone();
        entry.integrity = integrity_of_files(entry.files.iter());
        let mut outcome = Outcome {
            name: entry.name.clone(),
            profile_version: Some(entry.version.clone()),
            install_id: Some(entry.install_id.clone()),
            integrity: Some(entry.integrity.clone()),
            ..Outcome::default()
        };
        outcome.files = plan.steps.iter().map(super::plan::Step::report).collect();
        outcome.files.extend(plan.dropped.iter().chain(&gone).map(super::plan::Dropped::report));
        outcome.conflicts = plan.conflicts.clone();
        outcome.changed = old.is_none_or(|old| differs(old, &entry)) || !change.is_empty() || stores(&plan);
        if self.dry_run {
            outcome.install_id = None;
            return Ok(outcome);
        }
        if let Some(old) = old
            && !outcome.changed
            && plan.conflicts.is_empty()
        {
            outcome.install_id = Some(old.install_id.clone());
            return if self.lock.is_merged() { self.write_lock(change, outcome) } else { Ok(outcome) };
        }
        if let Some(old) = old.filter(|_| !self.may_replace) {
            return Err(ProfileError::AlreadyInstalled { name: old.name.clone(), version: old.version.clone() });
        }
        if !plan.conflicts.is_empty() {
            return Err(ProfileError::Conflicts { conflicts: plan.conflicts });
        }
        phase(Phase::Copy, || self.store(&mut change, &plan))?;
        entry.dirs = dirs(&mut change, old, &plan);
        let mut lock = self.lock.clone();
        let message = format!("{} profile {} {} (install {})", self.verb, entry.name, entry.version, entry.install_id);
        lock.set(wanted.name, Some(entry));
        phase(Phase::Copy, || lock.write(&mut change))?;
        let version = phase(Phase::Commit, || change.commit(&message)).map_err(during(Phase::Commit))?;
        outcome.version = version.map(|version| version.to_string());
        Ok(outcome)
    }

    /// Only writes down what lay beside.
    fn write_lock(&self, mut change: Change<'_>, outcome: Outcome) -> Result<Outcome> {
        phase(Phase::Copy, || self.lock.write(&mut change))?;
        let message = "merge what two machines installed";
        let version = phase(Phase::Commit, || change.commit(message)).map_err(during(Phase::Commit))?;
        Ok(Outcome { changed: true, version: version.map(|version| version.to_string()), ..outcome })
    }

    /// Stores what is new, comparing what is stored with what was planned.
    fn store(&self, change: &mut Change<'_>, plan: &Plan<'_>) -> Result<()> {
        let (mut files, mut bytes, mut sidecars) = (0, 0, 0);
        for step in &plan.steps {
            let file = step.file;
            let target = match (&step.action, &step.sidecar) {
                (Action::Install | Action::Replace, _) => &file.path,
                (Action::Sidecar, Some((path, true))) => path,
                (Action::Adopt, _) if step.mode_now != Some(file.mode) => {
                    change.set_mode(&file.path, file.mode).map_err(during(Phase::Copy))?;
                    continue;
                }
                _ => continue,
            };
            let failed = |reason: String| ProfileError::Source { phase: Phase::Copy, path: file.path.clone(), reason };
            let source = self.contents.open(self.workspace, &file.path);
            let mut source = source.map_err(|error| failed(error.to_string()))?;
            change.put(target, &mut source, file.mode, Some(file.sha256)).map_err(|error| match error {
                PutError::Workspace(error) => during(Phase::Copy)(error),
                PutError::Source(error) => failed(error.to_string()),
                PutError::Digest { .. } => failed("it was changed while it was being installed".to_owned()),
            })?;
            files += 1;
            bytes += file.size;
            sidecars += u64::from(step.action == Action::Sidecar);
        }
        count_stored(files, bytes, sidecars);
        Ok(())
    }
}

/// Whether a plan stores anything.
fn stores(plan: &Plan<'_>) -> bool {
    plan.steps.iter().any(|step| match &step.action {
        Action::Install | Action::Replace => true,
        Action::Sidecar => step.sidecar.as_ref().is_some_and(|(_, put)| *put),
        Action::Adopt => step.mode_now != Some(step.file.mode),
        Action::Keep | Action::LeaveRemoved | Action::Conflict(_) => false,
    })
}

/// Whether an entry says anything new, times and ids aside.
fn differs(old: &Entry, new: &Entry) -> bool {
    (&old.version, &old.integrity, &old.commit, &old.provider_id, &old.source)
        != (&new.version, &new.integrity, &new.commit, &new.provider_id, &new.source)
        || (&old.files, &old.sidecars) != (&new.files, &new.sidecars)
}

/// The directories that are there because of the profile; those it does not need any more go when they are empty.
fn dirs(change: &mut Change<'_>, old: Option<&Entry>, plan: &Plan<'_>) -> Vec<String> {
    let made = change.made_dirs();
    let all: BTreeSet<String> = old.iter().flat_map(|entry| &entry.dirs).chain(&made).cloned().collect();
    let is_needed = |dir: &String| {
        plan.steps
            .iter()
            .any(|step| step.file.path.strip_prefix(dir.as_str()).is_some_and(|rest| rest.starts_with('/')))
    };
    let (needed, emptied): (Vec<String>, Vec<String>) = all.into_iter().partition(is_needed);
    emptied.iter().for_each(|dir| change.remove_empty_dir(dir));
    needed
}
