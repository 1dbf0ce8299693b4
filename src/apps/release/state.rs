//! What a client remembers: trust, what it refuses, what happened. Sealed, outside of the tree, so that no restore of
//! the workspace brings earlier trust back.

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;
use serde::{Deserialize, Serialize};

use super::alerts::Limits;
use super::error::{ReleaseError, Result};
use super::notify::Notify;
use super::repository::Access;
use super::trust::Seen;
use crate::crypto::SharedKey;
use crate::version::index::sha256;
use crate::workspace::{Records, Workspace};

/// Where it is among what belongs to this machine.
const AREA: &str = "releases";
const STATE: &str = "state";
const LEN_MAX: usize = 256 << 20;
/// So many events are kept at hand; when they are twice as many, the older half goes to an archive.
const EVENTS_KEPT: usize = 1000;

/// What a client remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// What it follows.
    pub following: Option<Following>,
    /// What it has seen of the repository.
    pub seen: Seen,
    /// Versions that failed here, by package, and why.
    pub denied: BTreeMap<String, BTreeMap<Version, String>>,
    /// Versions that the user wants and no others.
    pub pinned: BTreeMap<String, Version>,
    /// Versions that the user does not want.
    pub skipped: BTreeMap<String, BTreeSet<Version>>,
    /// An install whose checks have not ended yet.
    pub pending: Option<Pending>,
    /// What happened, oldest first.
    pub events: Vec<Event>,
    /// How installs went, oldest first: what the publisher is told.
    pub reports: Vec<Report>,
    /// Grows with each report.
    pub counter: u64,
    /// Who is told what happens.
    pub notify: Notify,
    /// When it was last looked for something new: RFC 3339, UTC.
    pub checked: Option<String>,
    /// How rollouts of a channel may go before somebody is told: of publishers.
    #[serde(default)]
    pub limits: BTreeMap<String, Limits>,
    /// What is beyond these limits, and was told: channel, package, version and which limit.
    #[serde(default)]
    pub alerts: BTreeSet<String>,
}

/// What a client follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Following {
    /// The repository.
    pub repository: String,
    /// How it is reached.
    pub access: Access,
    /// The channel.
    pub channel: String,
    /// Opens what the channel offers.
    pub channel_key: SharedKey,
    /// Opens a repository that lies in a bucket of its own.
    pub store_key: SharedKey,
    /// The ring of this client.
    pub ring: Option<String>,
    /// How often a mount looks for something new, in milliseconds; never when 0.
    pub every_ms: u64,
    /// Whether a mount installs what is new, or only tells of it.
    pub install: bool,
}

/// What the publisher is told of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The package.
    pub package: String,
    /// Its version.
    pub version: Version,
    /// What it is told.
    pub feedback: super::rollout::Feedback,
    /// Whether it was.
    pub sent: bool,
}

/// An install that was begun. What the tree says of it tells whether it was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// The ids of the installs, one for each package.
    pub installs: Vec<String>,
    /// The descriptions of the packages, for their checks.
    pub packages: Vec<super::package::Package>,
}

/// Something that happened. Each carries the digest of the one before, so that none can be taken out unnoticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The first is 1.
    pub number: u64,
    /// When: RFC 3339, UTC.
    pub time: String,
    /// `installed`, `failed`, `rolled-back`, `revoked`, `stays`, `pinned`, `skipped`, …; of publishers `alert`,
    /// `aborted`, ….
    pub what: String,
    /// The package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// More about it.
    pub detail: String,
    /// Whether the user has seen it.
    pub acknowledged: bool,
    /// SHA-256 of the event before, in hexadecimal digits; empty for the first.
    pub before: String,
}

impl Event {
    fn digest(&self) -> String {
        // Whether it was seen is not part of what happened.
        let Event { number, time, what, package, version, detail, before, .. } = self;
        let parts = [&number.to_string(), time, what, package, version, detail, before];
        sha256(parts.map(|part| format!("{}:{part}", part.len())).concat().as_bytes()).to_string()
    }
}

fn damaged(reason: impl ToString) -> ReleaseError {
    ReleaseError::Damaged { object: "what this machine remembers of releases".to_owned(), reason: reason.to_string() }
}

fn check_chain(events: &[Event]) -> Result<()> {
    let follows =
        |pair: &[Event]| pair[0].number.checked_add(1) == Some(pair[1].number) && pair[1].before == pair[0].digest();
    let begins = events.first().is_none_or(|first| first.number != 1 || first.before.is_empty());
    if !begins || !events.windows(2).all(follows) {
        return Err(damaged("what happened does not follow from what happened before"));
    }
    Ok(())
}

fn archive_name(last: u64) -> String {
    format!("events-{last:012}")
}

fn records(workspace: &Workspace) -> Records {
    workspace.records(AREA)
}

impl State {
    /// Reads what this client remembers.
    pub fn read(workspace: &Workspace) -> Result<Self> {
        let Some(bytes) = records(workspace).read(STATE, LEN_MAX)? else { return Ok(Self::default()) };
        let state: State = serde_json::from_slice(&bytes).map_err(damaged)?;
        check_chain(&state.events)?;
        Ok(state)
    }

    /// Remembers, durably.
    pub fn write(&mut self, workspace: &Workspace) -> Result<()> {
        let records = records(workspace);
        if self.events.len() >= 2 * EVENTS_KEPT {
            let old = &self.events[..EVENTS_KEPT];
            let last = old.last().map_or(0, |event| event.number);
            records.write(&archive_name(last), &serde_json::to_vec(old).map_err(damaged)?)?;
            self.events.drain(..EVENTS_KEPT);
        }
        Ok(records.write(STATE, &serde_json::to_vec(self).map_err(damaged)?)?)
    }

    /// Everything that happened, oldest first, also what went to the archive; the chain is checked as a whole.
    pub fn all_events(&self, workspace: &Workspace) -> Result<Vec<Event>> {
        let (records, mut all) = (records(workspace), Vec::<Event>::new());
        for name in records.names()?.iter().filter(|name| name.starts_with("events-")) {
            let bytes = records.read(name, LEN_MAX)?.unwrap_or_default();
            all.extend(serde_json::from_slice::<Vec<Event>>(&bytes).map_err(damaged)?);
        }
        // After a crash between the two writes, the state still has what the archive got.
        let first = self.events.first().map_or(u64::MAX, |event| event.number);
        all.retain(|event| event.number < first);
        all.extend(self.events.iter().cloned());
        if all.first().is_some_and(|event| event.number != 1) {
            return Err(damaged("the beginning of what happened is missing"));
        }
        check_chain(&all)?;
        Ok(all)
    }

    /// What is followed.
    pub fn following(&self) -> Result<&Following> {
        self.following.as_ref().ok_or(ReleaseError::NoRepository)
    }

    /// Writes down what happened, for [`write`](Self::write).
    pub fn note(&mut self, time: &str, what: &str, package: &str, version: &str, detail: &str) {
        let (number, before) = match self.events.last() {
            Some(last) => (last.number.saturating_add(1), last.digest()),
            None => (1, String::new()),
        };
        self.events.push(Event {
            number,
            time: time.to_owned(),
            what: what.to_owned(),
            package: package.to_owned(),
            version: version.to_owned(),
            detail: detail.to_owned(),
            acknowledged: false,
            before,
        });
        tracing::info!(package, version, detail, "release {what}");
    }

    /// Never installs a version again.
    pub fn deny(&mut self, package: &str, version: &Version, why: &str) {
        self.denied.entry(package.to_owned()).or_default().insert(version.clone(), why.to_owned());
    }
}
