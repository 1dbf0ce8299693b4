//! What a client knows when it decides: what is offered, what of it is for it and why not, and what fits together.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use semver::VersionReq;

use super::channel::{Channel, Client, Withheld};
use super::error::{ReleaseError, Result};
use super::install;
use super::lock::{self, Installed};
use super::package::{Package, target_of_channel, target_of_package};
use super::repository::{self, Repository};
use super::request::{Decision, Doing, Plan};
use super::solve::solve;
use super::state::State;
use crate::workspace::Workspace;

/// What a client knows when it decides.
pub(super) struct Desk<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) repository: Arc<dyn Repository>,
    pub(super) state: State,
    pub(super) channel: Channel,
    /// Everything the channel offers.
    packages: Vec<Package>,
    pub(super) installed: Vec<Installed>,
    pub(super) doing: &'a Doing<'a>,
}

/// What is wanted: packages by name.
pub(super) type Wanted = BTreeMap<String, VersionReq>;

/// Reads `tool` and `tool@^1.4`.
pub(super) fn wanted(packages: &[String]) -> Result<Wanted> {
    let parse = |text: &String| {
        let (name, wanted) = text.split_once('@').unwrap_or((text, "*"));
        super::package::check_name("package", name)?;
        let unfit = |_| ReleaseError::Name { what: "version", name: text.clone() };
        // `tool@1.2.0` means this version, where `^1.2.0` would mean newer ones, too.
        let exact = semver::Version::parse(wanted).is_ok();
        let wanted = if exact { format!("={wanted}") } else { wanted.to_owned() };
        Ok((name.to_owned(), wanted.parse().map_err(unfit)?))
    };
    packages.iter().map(parse).collect()
}

impl<'a> Desk<'a> {
    /// Fetches what the channel offers; what was seen of the repository is remembered, whatever comes of it. An install
    /// that was interrupted is brought to its end first.
    pub(super) fn open(workspace: &'a Workspace, doing: &'a Doing<'a>) -> Result<Self> {
        let mut state = State::read(workspace)?;
        let following = state.following()?.clone();
        let repository = repository::open(&following.repository, &following.access, &following.store_key, workspace)?;
        let refreshed = state.seen.refresh(repository.clone());
        state.checked = Some(super::now(workspace).to_string());
        state.write(workspace)?;
        let trusted = refreshed?;
        let missing = |what, name: &str| ReleaseError::Missing { what, name: name.to_owned() };
        let read = |target: &str| {
            let sealed = trusted.target(target)?;
            let open = |sealed: Vec<u8>| {
                following.channel_key.open(target, &sealed).ok_or_else(|| ReleaseError::Untrusted {
                    repository: following.repository.clone(),
                    reason: format!("{target} is signed, and was not sealed with the channel's key that is known here"),
                })
            };
            sealed.map(open).transpose()
        };
        let name = &following.channel;
        let bytes = read(&target_of_channel(name))?.ok_or_else(|| missing("channel", name))?;
        let channel = Channel::parse(&bytes, name)?;
        let mut packages = Vec::new();
        for (name, offers) in &channel.packages {
            for offer in offers {
                let target = target_of_package(&channel.name, name, &offer.version);
                let bytes = read(&target)?.ok_or_else(|| missing("package", &target))?;
                packages.push(Package::parse(&bytes, name, &offer.version)?);
            }
        }
        let installed = lock::present(workspace)?;
        let mut desk = Self { workspace, repository, state, channel, packages, installed, doing };
        desk.finish_pending()?;
        desk.send_reports()?;
        Ok(desk)
    }

    /// Looks again at what is installed.
    pub(super) fn look(&mut self) -> Result<()> {
        self.installed = lock::present(self.workspace)?;
        Ok(())
    }

    pub(super) fn installed(&self, name: &str) -> Option<&Installed> {
        self.installed.iter().find(|one| one.name == name)
    }

    /// Whether a version may be installed. What the user asks for by name is held back neither by phase nor window.
    fn allow(&self, package: &Package, asked: bool) -> std::result::Result<(), Withheld> {
        let (name, version) = (&package.name, &package.version);
        let id = self.workspace.id().to_string();
        let ring = self.state.following.as_ref().and_then(|following| following.ring.as_deref());
        let client = Client { id: &id, ring };
        match self.channel.turn(package, client, self.workspace.now()) {
            Err(Withheld::NotInPhase { .. } | Withheld::OutsideWindow) if asked => {}
            other => other?,
        }
        if let Some(why) = self.state.denied.get(name).and_then(|versions| versions.get(version)) {
            return Err(Withheld::Denylisted { why: why.clone() });
        }
        if let Some(pinned) = self.state.pinned.get(name).filter(|pinned| *pinned != version) {
            return Err(Withheld::Pinned { version: pinned.to_string() });
        }
        if !asked && self.state.skipped.get(name).is_some_and(|versions| versions.contains(version)) {
            return Err(Withheld::Skipped);
        }
        let Some(present) = self.installed(name) else { return Ok(()) };
        if let Some(from) = package.from.as_ref().filter(|from| !from.matches(&present.version)) {
            return Err(Withheld::Incompatible { from: from.to_string(), installed: present.version.to_string() });
        }
        let floor = self.packages.iter().find(|other| {
            other.name == *name
                && other.floor.is_some()
                && present.version < other.version
                && other.version < *version
                && !self.is_revoked(other)
        });
        match floor {
            Some(floor) => Err(Withheld::BelowFloor {
                version: floor.version.to_string(),
                why: floor.floor.clone().unwrap_or_default(),
            }),
            None => Ok(()),
        }
    }

    fn is_revoked(&self, package: &Package) -> bool {
        self.channel.offer(&package.name, &package.version).is_none_or(|offer| offer.revoked.is_some())
    }

    /// Each version that is offered of what is wanted or installed (of everything, when nothing is wanted), and why it
    /// is not installed.
    pub(super) fn decisions(&self, wanted: &Wanted) -> Vec<Decision> {
        let of = |package: &Package| wanted.contains_key(&package.name) || self.installed(&package.name).is_some();
        let shown = self.packages.iter().filter(|package| of(package) || wanted.is_empty());
        let decision = |package: &Package| {
            let present = self.installed(&package.name).map(|one| one.version.clone());
            let mut withheld = self.allow(package, wanted.contains_key(&package.name)).err().map(|why| why.to_string());
            if let Some(present) = present.as_ref().filter(|_| withheld.is_none()) {
                withheld = match present.cmp(&package.version) {
                    Ordering::Equal => Some(self.as_installed(&package.name)),
                    Ordering::Greater if !wanted.contains_key(&package.name) => {
                        Some(format!("{present} is installed, which is newer"))
                    }
                    _ => None,
                };
            }
            Decision {
                package: package.name.clone(),
                version: package.version.to_string(),
                installed: present.map(|version| version.to_string()),
                install: withheld.is_none(),
                reason: withheld,
            }
        };
        shown.map(decision).collect()
    }

    /// What is to be said of a package that is installed: also what it needs and is not there.
    fn as_installed(&self, name: &str) -> String {
        let needs = self.installed(name).map(|one| &one.dependencies);
        let is_there = |(name, wanted): &(&String, &VersionReq)| {
            self.installed(name).is_some_and(|one| wanted.matches(&one.version))
        };
        let missing: Vec<String> = needs
            .into_iter()
            .flatten()
            .filter(|needed| !is_there(needed))
            .map(|(name, wanted)| format!("{name} {wanted}"))
            .collect();
        if missing.is_empty() {
            return "it is installed".to_owned();
        }
        format!("it is installed, and what it needs is not: {}", missing.join(", "))
    }

    /// The packages that would be installed; none when everything is as it should be.
    pub(super) fn solve(&self, asked: &Wanted) -> Result<Vec<Package>> {
        let mut wanted = asked.clone();
        for one in &self.installed {
            // Nothing goes back unless an older version is asked for.
            let at_least = VersionReq::parse(&format!(">={}", one.version));
            let at_least = at_least.unwrap_or(VersionReq::STAR);
            let wish = wanted.entry(one.name.clone()).or_insert(VersionReq::STAR);
            if *wish == VersionReq::STAR {
                *wish = at_least;
            }
        }
        let names: BTreeSet<&String> = wanted.keys().collect();
        let (mut known, mut reasons) = (Vec::new(), Vec::new());
        for package in &self.packages {
            let is_there = self.installed(&package.name).is_some_and(|one| one.version == package.version);
            // What is needed comes with what needs it.
            let by_hand = asked.contains_key(&package.name) || !names.contains(&package.name);
            match self.allow(package, by_hand) {
                Ok(()) => known.push(package.clone()),
                Err(_) if is_there && !self.is_revoked(package) => known.push(package.clone()),
                Err(why) => reasons.push(format!("{} {}: {why}", package.name, package.version)),
            }
        }
        for one in &self.installed {
            // No longer offered, it may stay.
            if !self.packages.iter().any(|package| package.name == one.name && package.version == one.version) {
                known.push(install::placeholder(one));
            }
        }
        let chosen = solve(&wanted, &known).map_err(|error| match error {
            ReleaseError::Unsolvable { reason } if !reasons.is_empty() => {
                ReleaseError::Unsolvable { reason: format!("{reason} (held back: {})", reasons.join("; ")) }
            }
            error => error,
        })?;
        let is_new = |package: &&Package| {
            chosen.get(&package.name) == Some(&package.version)
                && self.installed(&package.name).is_none_or(|one| one.version != package.version)
        };
        Ok(known.iter().filter(is_new).cloned().collect())
    }

    /// What installing would do.
    pub(super) fn plan(&self, asked: &Wanted) -> Result<Plan> {
        let chosen = self.solve(asked)?;
        let install = |package: &Package| {
            let before = self.installed(&package.name).map(|one| one.version.to_string());
            (package.name.clone(), before, package.version.to_string())
        };
        Ok(Plan {
            install: chosen.iter().map(install).collect(),
            bytes: chosen.iter().flat_map(|package| &package.files).map(|file| file.size).sum(),
            decisions: self.decisions(asked),
        })
    }
}
