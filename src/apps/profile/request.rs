//! What is asked and answered.

use serde::{Deserialize, Serialize};

use super::error::Conflict;

/// Where profiles are: the directory that holds one directory for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// On the local disk; an absolute path.
    Directory(String),
    /// In the workspace; a path from its root.
    Workspace(String),
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Installs a profile that is not installed.
    Install(Install),
    /// Brings an installed profile up to what is there now.
    Upgrade(Install),
    /// Takes a profile's files away, unless somebody changed them.
    Uninstall {
        /// The profile.
        name: String,
        /// Only says what would be done.
        #[serde(default)]
        dry_run: bool,
    },
    /// Goes back to what was installed before.
    Rollback {
        /// The profile.
        name: String,
        /// The id of the install to go back to; the one before when missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        /// Whether conflicts are resolved by sidecars, and for data by replacing.
        #[serde(default)]
        force: bool,
        /// Only says what would be done.
        #[serde(default)]
        dry_run: bool,
    },
    /// Decides about a file with a sidecar beside it.
    Resolve {
        /// The path the sidecar was meant for.
        path: String,
        /// What becomes of the two.
        take: Take,
    },
    /// What is installed.
    List {},
    /// Compares what is there with what was installed.
    Verify {
        /// The profile; all of them when missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
}

/// How a profile is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// The profile.
    pub name: String,
    /// Where it is; where it came from last, for an upgrade, when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Place>,
    /// Whether conflicts are resolved by sidecars, and for data by replacing; implies an upgrade.
    #[serde(default)]
    pub force: bool,
    /// Whether files that the user removed come back.
    #[serde(default)]
    pub restore_missing: bool,
    /// Whether to refuse anything that is not what the lock file says.
    #[serde(default)]
    pub frozen: bool,
    /// Only says what would be done, conflicts included.
    #[serde(default)]
    pub dry_run: bool,
    /// The commit it is made from, kept in the lock file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Who provides it; sidecars are named so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Where the provider has it from, kept in the lock file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// What becomes of a file and the sidecar beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Take {
    /// The file stays, the sidecar goes.
    Mine,
    /// The sidecar's content takes the file's place.
    Theirs,
    /// Both stay, and belong to the user.
    Both,
}

/// What became, or would become, of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    /// The path, from the root.
    pub path: String,
    /// `install`, `adopt`, `replace`, `keep`, `left-removed`, `sidecar`, `remove`, `orphan`.
    pub action: String,
    /// Where the new file is, when it lies beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<String>,
}

/// What an operation did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The profile.
    pub name: String,
    /// Its version, when it is installed now.
    pub profile_version: Option<String>,
    /// The id of the install.
    pub install_id: Option<String>,
    /// The integrity of all its files together.
    pub integrity: Option<String>,
    /// The version of the workspace that holds it; `None` when nothing changed, or only a plan was asked for.
    pub version: Option<String>,
    /// Whether anything was, or would be, changed.
    pub changed: bool,
    /// Each file.
    pub files: Vec<FileReport>,
    /// What would stand in the way (plans only: others fail).
    pub conflicts: Vec<Conflict>,
}

/// An installed profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When: RFC 3339, UTC.
    pub installed_at: String,
    /// Who provides it.
    pub provider: Option<String>,
    /// How many files it has.
    pub files: usize,
    /// Sidecars that wait for a decision.
    pub sidecars: Vec<String>,
    /// The integrity of all its files together.
    pub integrity: String,
}

/// A difference between what was installed and what is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// The path, from the root.
    pub path: String,
    /// `missing`, `modified`, `mode`, `in-the-way`, `sidecar`, `lock`.
    pub what: String,
}

/// What verifying a profile found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The profile.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Every difference; none when it is as it was installed.
    pub drift: Vec<Drift>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// Of an operation that changes something.
    Outcome(Outcome),
    /// Of `list`.
    List(Vec<Installed>),
    /// Of `verify`.
    Verified(Vec<Verified>),
}
