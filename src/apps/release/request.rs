//! What is asked and answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::alerts::Limits;
use super::channel::{EVERYBODY, Step, Window};
use super::checks::Checked;
use super::notify::Notify;
use super::repository::Access;
use super::rollout::{Totals, Verdict};
use super::state::Event;

/// One request. Paths outside of the workspace are absolute. A release is named as `tool@1.2.0`, a wish as `tool` or
/// `tool@^1.2`. A repository is `store` (the workspace's own), `s3://…`, `https://…`, or a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Makes the keys of a publisher, or the next ones.
    Keygen {
        /// Where they are, or shall be.
        keys: String,
        /// How many keys are made that sign the root and targets; as many as before when missing, and one at first.
        #[serde(default)]
        count: Option<u32>,
        /// How many have to sign; as before when missing, and one at first.
        #[serde(default)]
        threshold: Option<u32>,
        /// Files with the public keys of others, who sign elsewhere.
        #[serde(default)]
        with: Vec<String>,
    },
    /// Makes the keys of one person, who signs for publishers elsewhere.
    Key {
        /// Where they are kept.
        keys: String,
        /// The file with what is public of them.
        to: String,
    },
    /// Does not do what is asked, and writes what others have to sign for it.
    Propose {
        /// The file.
        to: String,
        /// What is asked.
        request: Box<Request>,
    },
    /// Signs what a publisher elsewhere wrote to be signed.
    Sign {
        /// The file, which is written anew.
        file: String,
        /// The directory of the keys.
        keys: String,
        /// A channel's file of trust, to be shown what the channel's files say.
        #[serde(default)]
        trust: Option<String>,
        /// Only says what would be signed.
        #[serde(default)]
        dry_run: bool,
    },
    /// Does what was written to be signed, once enough people have.
    Complete {
        /// The file, or copies of it that were signed in different places.
        files: Vec<String>,
        /// The directory of the publisher's keys.
        keys: String,
        /// Which repository; none for a root.
        #[serde(default)]
        repository: Option<String>,
    },
    /// Writes what clients of a channel have to be given, by a way that they trust.
    Trust {
        /// The directory of the keys.
        keys: String,
        /// The channel.
        channel: String,
        /// The file.
        to: String,
    },
    /// Checks a package directory and says what would be signed.
    Pack {
        /// The directory, with a `package.json`.
        dir: String,
    },
    /// Runs a package's checks in a scratch copy of this workspace, which is not changed.
    Test {
        /// The directory, with a `package.json`.
        dir: String,
        /// Where the copy is made; in memory when missing.
        #[serde(default)]
        scratch: Option<String>,
    },
    /// Signs a package and offers it in a channel.
    Publish {
        /// The directory, with a `package.json`.
        dir: String,
        /// Which repository.
        repository: String,
        /// The directory of the keys.
        keys: String,
        /// The channel.
        channel: String,
        /// How it is rolled out.
        #[serde(default)]
        rollout: Rollout,
    },
    /// Offers a release of one channel in another.
    Promote {
        /// The release.
        packages: Vec<String>,
        /// Which repository.
        repository: String,
        /// The directory of the keys.
        keys: String,
        /// From this channel.
        from: String,
        /// To this one.
        channel: String,
        /// How it is rolled out there.
        #[serde(default)]
        rollout: Rollout,
    },
    /// Changes the rollout of a release.
    Rollout {
        /// The release.
        packages: Vec<String>,
        /// Which repository.
        repository: String,
        /// The directory of the keys.
        keys: String,
        /// The channel.
        channel: String,
        /// What changes.
        change: Change,
    },
    /// Sets a channel's windows and least security epochs, or (with nothing to set) renews the signatures before they
    /// expire.
    Channel {
        /// Which repository.
        repository: String,
        /// The directory of the keys.
        keys: String,
        /// The channel.
        channel: String,
        /// When installs may begin.
        #[serde(default)]
        windows: Option<Vec<Window>>,
        /// The least security epoch of packages.
        #[serde(default)]
        min_epoch: BTreeMap<String, u32>,
    },
    /// Judges all rollouts of a channel by feedback, and carries the verdicts out.
    Advance {
        /// Which repository.
        repository: String,
        /// The directory of the keys.
        keys: String,
        /// The channel.
        channel: String,
    },
    /// Sets how rollouts of a channel may go before somebody is told, or says what is set.
    Alert {
        /// The channel.
        channel: String,
        /// The limits; none of them any more when empty.
        #[serde(default)]
        limits: Option<Limits>,
    },
    /// How the rollouts of a channel go.
    Report {
        /// Which repository.
        repository: String,
        /// The directory of the keys.
        keys: String,
        /// The channel.
        channel: String,
    },
    /// Removes old versions that nobody needs, and what is left over of others, from a repository.
    Cleanup {
        /// Which repository.
        repository: String,
        /// The directory of the keys.
        keys: String,
        /// The channel.
        channel: String,
        /// How many versions of each package stay.
        #[serde(default = "keep")]
        keep: usize,
        /// Only says what would be removed.
        #[serde(default)]
        dry_run: bool,
    },
    /// Follows the channel of a file of trust.
    Follow {
        /// Which repository.
        repository: String,
        /// The file of trust.
        trust: String,
        /// How the repository is reached.
        #[serde(default)]
        access: Access,
        /// The ring this client is in.
        #[serde(default)]
        ring: Option<String>,
        /// How often a mount looks for something new, in milliseconds; never when 0.
        #[serde(default)]
        every_ms: u64,
        /// Whether a mount installs what is new for this client, or only tells of it.
        #[serde(default)]
        install: bool,
    },
    /// Who is told what happens; changes nothing when it is missing.
    Notify {
        /// Who, and how.
        #[serde(default)]
        notify: Option<Notify>,
    },
    /// What is there for this client, and why not.
    Check {},
    /// Says what `install` or `update` would do.
    Plan {
        /// What is wanted; what is installed when empty.
        #[serde(default)]
        packages: Vec<String>,
    },
    /// Installs packages, whatever phase and window say.
    Install {
        /// What is wanted.
        packages: Vec<String>,
        /// Whether conflicts are resolved by sidecars, and for data by replacing.
        #[serde(default)]
        force: bool,
    },
    /// Brings what is installed up to date, as far as it is this client's turn.
    Update {},
    /// Takes the last install of a package back.
    Rollback {
        /// The package.
        packages: Vec<String>,
    },
    /// Compares what is there with what was installed.
    Verify {},
    /// Keeps a package at a version, or (without one) no longer.
    Pin {
        /// The release, or the package.
        packages: Vec<String>,
    },
    /// Never installs a release by itself.
    Skip {
        /// The release.
        packages: Vec<String>,
    },
    /// Says something of a release to its publisher.
    Feedback {
        /// The release.
        packages: Vec<String>,
        /// What.
        note: String,
    },
    /// Marks what happened as seen.
    Ack {
        /// Up to this event; all when missing.
        #[serde(default)]
        number: Option<u64>,
    },
    /// What is installed, and everything that happened.
    History {},
}

impl Request {
    /// What says what this request would do, or is itself, as it only looks; `None` when nothing does.
    pub fn trial(self) -> Option<Self> {
        Some(match self {
            Request::Install { packages, .. } => Request::Plan { packages },
            Request::Update {} => Request::Plan { packages: Vec::new() },
            Request::Advance { repository, keys, channel } => Request::Report { repository, keys, channel },
            Request::Cleanup { repository, keys, channel, keep, .. } => {
                Request::Cleanup { repository, keys, channel, keep, dry_run: true }
            }
            Request::Sign { file, keys, trust, .. } => Request::Sign { file, keys, trust, dry_run: true },
            Request::Propose { request, .. } => return request.trial(),
            looks @ (Request::Pack { .. }
            | Request::Test { .. }
            | Request::Report { .. }
            | Request::Plan { .. }
            | Request::Verify {}
            | Request::History {}) => looks,
            _ => return None,
        })
    }

    /// Whether it can be begun anew after an interruption, to the same end.
    pub fn repeats(&self) -> bool {
        matches!(self, Request::Install { .. } | Request::Update {} | Request::Check {})
    }
}

fn keep() -> usize {
    5
}

/// How work goes on, for who waits for it.
pub struct Doing<'a> {
    /// Told of bytes done, bytes altogether (0 when not known) and what is at hand; says whether to go on.
    pub told: &'a (dyn Fn(u64, u64, &str) -> bool + Sync),
}

impl Doing<'_> {
    pub(super) fn progress(&self, done: u64, total: u64, what: &str) -> bool {
        (self.told)(done, total, what)
    }
}

/// How a version is rolled out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// How many clients get it at first, in parts of ten thousand.
    #[serde(default = "everybody")]
    pub bps: u32,
    /// Rings of which every client gets it.
    #[serde(default)]
    pub rings: Vec<String>,
    /// Whether it is an emergency, which neither phase nor window holds back.
    #[serde(default)]
    pub emergency: bool,
    /// How it goes on.
    #[serde(default)]
    pub steps: Vec<Step>,
}

fn everybody() -> u32 {
    EVERYBODY
}

impl Default for Rollout {
    fn default() -> Self {
        Self { bps: EVERYBODY, rings: Vec::new(), emergency: false, steps: Vec::new() }
    }
}

/// What changes about a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// How many clients get it, in parts of ten thousand.
    Bps(u32),
    /// Nobody gets it for now.
    Pause,
    /// It goes on.
    Resume,
    /// Neither phase nor window holds it back.
    Emergency,
    /// It is taken back, everywhere, for this reason.
    Revoke(String),
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Change::Bps(bps) => write!(f, "goes to {} % of clients", f64::from(*bps) / 100.0),
            Change::Pause => f.write_str("is paused"),
            Change::Resume => f.write_str("goes on"),
            Change::Emergency => f.write_str("is an emergency"),
            Change::Revoke(why) => write!(f, "is taken back: {why}"),
        }
    }
}

/// What is, or is not, to be installed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The package.
    pub package: String,
    /// The version.
    pub version: String,
    /// What is installed.
    pub installed: Option<String>,
    /// Whether it can be installed.
    pub install: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Package, version before, version now.
    pub installed: Vec<(String, Option<String>, String)>,
    /// Releases that were taken back.
    pub taken_back: Vec<String>,
    /// Files that lie beside others.
    pub sidecars: Vec<String>,
    /// How the checks went.
    pub checks: Vec<Checked>,
    /// The version of the workspace that holds it.
    pub version: Option<String>,
}

/// What would be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What would be installed: package, version now, version then.
    pub install: Vec<(String, Option<String>, String)>,
    /// Bytes of it.
    pub bytes: u64,
    /// All versions that were looked at.
    pub decisions: Vec<Decision>,
}

/// How the rollout of one version goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The channel.
    pub channel: String,
    /// The package.
    pub package: String,
    /// The version.
    pub version: String,
    /// How many clients get it, in parts of ten thousand.
    pub bps: u32,
    /// Whether it is paused.
    pub paused: bool,
    /// Why it was taken back, if so.
    pub revoked: Option<String>,
    /// What clients reported.
    pub totals: Totals,
    /// The share of installs that went well.
    pub success_rate: f64,
    /// The share of installs that were taken back.
    pub rollback_rate: f64,
    /// By how much the share of successes differs from the version before.
    pub trend: Option<f64>,
    /// Which limits it exceeds, in sentences.
    pub alerts: Vec<String>,
    /// What users say of it.
    pub notes: Vec<String>,
    /// What becomes, or became, of it.
    pub verdict: Verdict,
}

/// How far something is that several people sign.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signing {
    /// What it is.
    pub what: String,
    /// Whether all who have to have signed.
    pub complete: bool,
    /// By whom it is signed so far, in words.
    pub signatures: Vec<String>,
    /// What was signed, a line each: what differs from what the same keys signed last.
    pub shows: Vec<String>,
}

/// What is installed, as listings show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The channel it came from.
    pub channel: String,
    /// When: RFC 3339, UTC.
    pub installed_at: String,
    /// Paths that are not as they were installed.
    pub drift: Vec<String>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// Something was done; what, in words.
    Said(String),
    /// Of what others have to sign.
    Signing(Signing),
    /// Of `check`.
    Decisions(Vec<Decision>),
    /// Of `plan`.
    Plan(Plan),
    /// Of `install`, `update`, `rollback`.
    Done(Done),
    /// Of `test`.
    Checks(Vec<Checked>),
    /// Of `advance` and `report`.
    Standings(Vec<Standing>),
    /// Of `verify`.
    Listed(Vec<Listed>),
    /// Of `cleanup`: what was removed, or would be.
    Removed(Vec<String>),
    /// Of `history`.
    History {
        /// What is installed.
        installed: Vec<Listed>,
        /// What happened.
        events: Vec<Event>,
    },
}
