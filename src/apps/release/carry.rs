//! What a client carries out: installs as one version with checks, the way back, and reports of how it went.

use std::time::Instant;

use semver::Version;

use super::checks::{self, Checked};
use super::client::Desk;
use super::error::{ReleaseError, Result};
use super::install::{self, Batch};
use super::lock::{self, Installed};
use super::package::{Package, feedback_name};
use super::repository;
use super::request::{Doing, Done};
use super::rollout::{Feedback, Outcome};
use super::state::{Pending, Report, State};
use crate::base::ids::VersionId;
use crate::base::random;
use crate::workspace::Workspace;

/// Reports that are kept to be sent, or to be added to.
const REPORTS_KEPT: usize = 200;

impl Desk<'_> {
    /// Installs packages as one version, checks them, and goes back when a check fails.
    pub(super) fn install(&mut self, packages: &[Package], force: bool) -> Result<Done> {
        let start = Instant::now();
        if packages.is_empty() {
            return Ok(Done::default());
        }
        let installs: Vec<String> = packages
            .iter()
            .map(|_| uuid::Builder::from_random_bytes(random::bytes()).into_uuid().to_string())
            .collect();
        let before: Vec<Option<Version>> =
            packages.iter().map(|package| self.installed(&package.name).map(|one| one.version.clone())).collect();
        let pending = Pending { installs: installs.clone(), packages: packages.to_vec() };
        self.state.pending = Some(pending.clone());
        self.state.write(self.workspace)?;
        let channel = self.channel.name.clone();
        let doing = self.doing;
        let repository = self.repository.clone();
        let batch = Batch { repository: &*repository, channel: &channel, packages, installs: &installs, force, doing };
        let mut done = match install::run(self.workspace, &batch) {
            Ok(done) => done,
            Err(error) => {
                self.look()?;
                if !self.is_there(&pending) {
                    self.state.pending = None;
                    self.state.write(self.workspace)?;
                }
                return Err(error);
            }
        };
        for (package, before) in packages.iter().zip(before) {
            let now = package.version.to_string();
            done.installed.push((package.name.clone(), before.map(|before| before.to_string()), now));
        }
        done.checks = self.conclude(&pending, Some(start))?;
        self.look()?;
        Ok(done)
    }

    fn is_there(&self, pending: &Pending) -> bool {
        self.installed.iter().any(|one| pending.installs.contains(&one.install_id))
    }

    /// Brings an install to its end that a crash interrupted: checked, or taken back.
    pub(super) fn finish_pending(&mut self) -> Result<()> {
        let Some(pending) = self.state.pending.clone() else { return Ok(()) };
        if !self.is_there(&pending) {
            self.state.pending = None;
            return self.state.write(self.workspace);
        }
        match self.conclude(&pending, None) {
            // It is written down as an event.
            Ok(_) | Err(ReleaseError::Reverted { .. } | ReleaseError::Stays { .. }) => self.look(),
            Err(error) => Err(error),
        }
    }

    /// Runs the checks of what was installed; when one fails, goes back. What failed is never tried again, also when a
    /// crash comes between.
    fn conclude(&mut self, pending: &Pending, start: Option<Instant>) -> Result<Vec<Checked>> {
        let first = pending.installs.first().map(String::as_str).unwrap_or_default();
        let found = install::version_of(self.workspace, first)?.map(|(version, _)| version);
        // What could not be recorded at once is in a later version, together with other changes.
        let version = match found {
            Some(version) => version,
            None => self.workspace.begin_change()?.base(),
        };
        let mut all = Vec::new();
        let failed = match self.denied_of(pending) {
            Some(failed) => Some(failed),
            None => self.check(&pending.packages, version, &mut all)?,
        };
        let time_ms = start.map_or(0, |start| u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
        let time = super::now(self.workspace).to_string();
        if let Some((index, reason)) = failed {
            let failed = &pending.packages[index];
            self.state.deny(&failed.name, &failed.version, &reason);
            self.state.write(self.workspace)?;
            if found.is_some() {
                self.workspace.revert(version)?;
            }
            self.state.pending = None;
            self.state.note(&time, "failed", &failed.name, &failed.version.to_string(), &reason);
            self.report(&failed.name, &failed.version, Outcome::Failed, time_ms)?;
            let (package, version) = (failed.name.clone(), failed.version.to_string());
            return Err(match found {
                Some(_) => ReleaseError::Reverted { package, version, reason },
                None => ReleaseError::Stays { package, version, reason },
            });
        }
        self.state.pending = None;
        for package in &pending.packages {
            self.state.note(&time, "installed", &package.name, &package.version.to_string(), &version.to_string());
            self.report(&package.name, &package.version, Outcome::Installed, time_ms)?;
        }
        Ok(all)
    }

    /// A package that failed before its install could be taken back.
    fn denied_of(&self, pending: &Pending) -> Option<(usize, String)> {
        let why = |package: &Package| self.state.denied.get(&package.name)?.get(&package.version).cloned();
        pending.packages.iter().enumerate().find_map(|(index, package)| Some((index, why(package)?)))
    }

    /// The first package of which a check failed, and why.
    fn check(
        &self,
        packages: &[Package],
        version: VersionId,
        all: &mut Vec<Checked>,
    ) -> Result<Option<(usize, String)>> {
        for (index, package) in packages.iter().enumerate() {
            let checked = checks::run(self.workspace, version, package)?;
            let failed = checked
                .iter()
                .find(|check| !check.ok)
                .map(|check| format!("check `{}`: {}", check.name, check.reason.as_deref().unwrap_or_default()));
            all.extend(checked);
            if let Some(reason) = failed {
                return Ok(Some((index, reason)));
            }
        }
        Ok(None)
    }

    fn report(&mut self, name: &str, version: &Version, result: Outcome, time_ms: u64) -> Result<()> {
        self.state.add_report(self.workspace, (name, version), result, time_ms);
        self.send_reports()
    }

    /// Tells the publisher what it has not been told; that it cannot be told now is no reason to fail.
    pub(super) fn send_reports(&mut self) -> Result<()> {
        self.state.send_reports(&*self.repository);
        self.state.write(self.workspace)?;
        self.state.tell(self.workspace)
    }

    /// Goes back from everything whose release was taken back, and before from what cannot do without it; their names.
    pub(super) fn take_back_revoked(&mut self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for one in self.installed.clone() {
            let offer = self.channel.offer(&one.name, &one.version);
            let Some(why) = offer.and_then(|offer| offer.revoked.clone()) else { continue };
            // It may have gone with another that was installed together with it.
            if self.installed(&one.name).is_none_or(|now| now.install_id != one.install_id) {
                continue;
            }
            self.state.deny(&one.name, &one.version, &format!("revoked: {why}"));
            self.state.write(self.workspace)?;
            self.take_back_needing(&one, &mut names)?;
            let undone = match install::go_back(self.workspace, &one) {
                Ok((undone, _)) => undone,
                Err(error @ ReleaseError::Missing { .. }) => {
                    self.note_stays(&one, &format!("it is revoked ({why}), and cannot be taken back: {error}"))?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let time = super::now(self.workspace).to_string();
            for undone in &undone {
                self.state.note(&time, "revoked", &undone.name, &undone.version.to_string(), &why);
                names.push(format!("{} {}", undone.name, undone.version));
            }
            self.report(&one.name, &one.version, Outcome::RolledBack, 0)?;
            self.look()?;
        }
        Ok(names)
    }

    /// Goes back from what would be left without what it needs. It is not bad itself, and may come again.
    fn take_back_needing(&mut self, one: &Installed, names: &mut Vec<String>) -> Result<()> {
        while let Some((other, reason)) = needing(self.workspace, one, &self.installed)? {
            self.take_back_needing(&other, names)?;
            let undone = match install::go_back(self.workspace, &other) {
                Ok((undone, _)) => undone,
                Err(error @ ReleaseError::Missing { .. }) => {
                    let text = format!("{reason}, which is revoked, and cannot be taken back with it: {error}");
                    return self.note_stays(&other, &text);
                }
                Err(error) => return Err(error),
            };
            let time = super::now(self.workspace).to_string();
            for undone in &undone {
                self.state.note(&time, "taken-back", &undone.name, &undone.version.to_string(), &reason);
                names.push(format!("{} {}", undone.name, undone.version));
            }
            self.state.write(self.workspace)?;
            self.look()?;
        }
        Ok(())
    }

    /// Writes down, once, what should go and cannot.
    fn note_stays(&mut self, one: &Installed, why: &str) -> Result<()> {
        let version = one.version.to_string();
        let is_it = |event: &super::state::Event| {
            event.what == "stays" && event.package == one.name && event.version == version && event.detail == why
        };
        if !self.state.events.iter().any(is_it) {
            self.state.note(&super::now(self.workspace).to_string(), "stays", &one.name, &version, why);
            self.state.write(self.workspace)?;
            self.state.tell(self.workspace)?;
        }
        Ok(())
    }

    /// Writes down what can be installed and was not told of before.
    pub(super) fn note_available(&mut self) -> Result<()> {
        let decisions = self.decisions(&super::client::Wanted::new());
        let time = super::now(self.workspace).to_string();
        for decision in decisions.iter().filter(|decision| decision.install && decision.installed.is_some()) {
            let is_it = |event: &super::state::Event| {
                event.what == "available" && event.package == decision.package && event.version == decision.version
            };
            if !self.state.events.iter().any(is_it) {
                self.state.note(&time, "available", &decision.package, &decision.version, "");
            }
        }
        self.state.write(self.workspace)?;
        self.state.tell(self.workspace)
    }
}

impl State {
    /// Adds a report, to be sent.
    pub(super) fn add_report(
        &mut self,
        workspace: &Workspace,
        (name, version): (&str, &Version),
        result: Outcome,
        time_ms: u64,
    ) {
        self.counter = self.counter.saturating_add(1);
        let client = workspace.id().to_string();
        let feedback = Feedback { client, counter: self.counter, result, time_ms, note: None };
        self.reports.retain(|report| report.package != name || report.version != *version);
        self.reports.push(Report { package: name.to_owned(), version: version.clone(), feedback, sent: false });
        let more = self.reports.len().saturating_sub(REPORTS_KEPT);
        self.reports.drain(..more);
    }

    /// Sends what was not sent.
    pub(super) fn send_reports(&mut self, repository: &dyn repository::Repository) {
        let Some(following) = &self.following else { return };
        for report in self.reports.iter_mut().filter(|report| !report.sent) {
            let Report { package, version, feedback, .. } = report;
            let name = feedback_name(&following.channel, package, version, &feedback.client);
            let Ok(bytes) = serde_json::to_vec(feedback) else { continue };
            let sealed = following.channel_key.seal(&name, &bytes);
            match repository.put(&name, sealed.as_bytes()) {
                Ok(()) => report.sent = true,
                Err(error) => tracing::warn!("how {package} {version} went cannot be reported yet: {error}"),
            }
        }
    }
}

/// Takes the last install of a package back, at the user's wish. No repository is needed for that.
pub(super) fn rollback(workspace: &Workspace, doing: &Doing<'_>, name: &str) -> Result<Done> {
    let mut state = State::read(workspace)?;
    let present = lock::present(workspace)?;
    let missing = || ReleaseError::NotInstalled { name: name.to_owned() };
    let one = present.iter().find(|one| one.name == name).ok_or_else(missing)?;
    if !one.rollback {
        let (package, version) = (one.name.clone(), one.version.to_string());
        let reason = "it says that one cannot go back from it".to_owned();
        return Err(ReleaseError::Withheld { package, version, reason });
    }
    if let Some((_, reason)) = needing(workspace, one, &present)? {
        return Err(ReleaseError::Needed { package: one.name.clone(), reason });
    }
    doing.progress(0, 0, name);
    let (undone, version) = install::go_back(workspace, one)?;
    let time = super::now(workspace).to_string();
    // What the user took back does not come again by itself.
    state.skipped.entry(one.name.clone()).or_default().insert(one.version.clone());
    for undone in &undone {
        state.note(&time, "rolled-back", &undone.name, &undone.version.to_string(), "by the user");
    }
    state.add_report(workspace, (&one.name, &one.version), Outcome::RolledBack, 0);
    state.write(workspace)?;
    if let Some(following) = &state.following {
        let opened = repository::open(&following.repository, &following.access, &following.store_key, workspace);
        match opened {
            Ok(repository) => state.send_reports(&*repository),
            Err(error) => tracing::warn!("the rollback cannot be reported yet: {error}"),
        }
        state.write(workspace)?;
    }
    state.tell(workspace)?;
    let taken_back = undone.iter().map(|one| format!("{} {}", one.name, one.version)).collect();
    Ok(Done { taken_back, version: version.map(|version| version.to_string()), ..Done::default() })
}

/// Something that needs what would go with an install, and in which words.
fn needing(workspace: &Workspace, one: &Installed, present: &[Installed]) -> Result<Option<(Installed, String)>> {
    let Some((version, message)) = install::version_of(workspace, &one.install_id)? else { return Ok(None) };
    let record = workspace.version(version)?;
    let Some(parent) = record.parents.first() else { return Ok(None) };
    let before = lock::installed(workspace, &*workspace.version(*parent)?)?;
    let goes = |other: &&Installed| message.contains(&other.install_id);
    for gone in present.iter().filter(goes) {
        let then = before.iter().find(|other| other.name == gone.name).map(|other| &other.version);
        for other in present.iter().filter(|other| !goes(other)) {
            let Some(wanted) = other.dependencies.get(&gone.name) else { continue };
            if !then.is_some_and(|then| wanted.matches(then)) {
                let reason = format!("{} {} needs {} {wanted}", other.name, other.version, gone.name);
                return Ok(Some((other.clone(), reason)));
            }
        }
    }
    Ok(None)
}
