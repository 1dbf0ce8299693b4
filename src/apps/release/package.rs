//! What a package says of itself: the file that is signed.

use std::collections::BTreeMap;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use super::error::{ReleaseError, Result};
use crate::crypto::SharedKey;
use crate::workspace::{Class, Incoming, check_path, fold, parse_integrity};

/// Longest description of a package, in bytes.
pub(super) const PACKAGE_LEN_MAX: u64 = 32 << 20;
/// Longest name, and longest version, in bytes: with a digest, both are part of the names of objects.
const NAME_LEN_MAX: usize = 32;
const VERSION_LEN_MAX: usize = 40;
const FILES_MAX: usize = 50_000;
/// Longest time that the checks of a package may take altogether, in milliseconds.
const CHECKS_TIME_MAX_MS: u64 = 3_600_000;

/// What an update is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpdateType {
    /// Goes to everybody at once: phase and window do not hold it back.
    Security,
    /// Something new.
    Feature,
    /// Something mended.
    Bugfix,
    /// Something faster.
    Performance,
    /// Anything else.
    Maintenance,
}

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// What it is for.
    #[serde(rename = "type")]
    pub update_type: UpdateType,
    /// What is new, a sentence each.
    #[serde(default)]
    pub changes: Vec<String>,
    /// Grows when older versions must not come back; apart from the version.
    #[serde(default)]
    pub security_epoch: u32,
    /// The installed versions that it can be installed over; any when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<VersionReq>,
    /// Why nobody may step over this version, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<String>,
    /// Whether one can go back from it.
    #[serde(default = "yes")]
    pub rollback: bool,
    /// Packages that it needs.
    #[serde(default)]
    pub dependencies: BTreeMap<String, VersionReq>,
    /// Packages that must not be there with it.
    #[serde(default)]
    pub conflicts: BTreeMap<String, VersionReq>,
    /// Its files.
    pub files: Vec<File>,
    /// What must hold after it was installed.
    #[serde(default)]
    pub checks: Vec<Check>,
}

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// From the root of the workspace.
    pub path: String,
    /// Permission bits.
    pub mode: u16,
    /// Length in bytes.
    pub size: u64,
    /// `sha256-<base64>` of its content.
    pub integrity: String,
    /// What it is for.
    #[serde(default)]
    pub class: Class,
    /// The keys of its content's chunks in a repository, in their order; set when it is published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<SharedKey>,
}

/// Something that must hold after an install. It runs in a private copy of the package's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its name, for reports.
    pub name: String,
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// It is ended, and failed, after so long.
    pub timeout_ms: u64,
    /// How often it is run.
    #[serde(default = "one")]
    pub runs: u32,
    /// How many of the runs may fail.
    #[serde(default)]
    pub failures_max: u32,
    /// The slowest run may take so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_max_ms: Option<u64>,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

/// Whether packages, channels and rings can be called so.
pub fn check_name(what: &'static str, name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ok = (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || matches!(byte, b'_' | b'-'));
    if ok { Ok(()) } else { Err(ReleaseError::Name { what, name: name.to_owned() }) }
}

impl Package {
    /// Reads a signed description, which must be that of this package and version.
    pub fn parse(bytes: &[u8], name: &str, version: &Version) -> Result<Self> {
        let bad = |problem: String| ReleaseError::BadPackage {
            package: format!("{name} {version}"),
            problems: vec![problem],
        };
        let package: Package = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        if (package.name.as_str(), &package.version) != (name, version) {
            return Err(bad(format!("it says that it is {} {}", package.name, package.version)));
        }
        package.check()?;
        Ok(package)
    }

    /// Everything that is wrong with it.
    pub(super) fn check(&self) -> Result<()> {
        check_name("package", &self.name)?;
        let mut problems = Vec::new();
        if !self.version.build.is_empty() {
            problems.push("its version has build metadata, which does not order".to_owned());
        }
        if self.version.to_string().len() > VERSION_LEN_MAX {
            problems.push(format!("its version is longer than {VERSION_LEN_MAX} characters"));
        }
        if self.files.len() > FILES_MAX {
            problems.push(format!("it has more than {FILES_MAX} files"));
        }
        for name in self.dependencies.keys().chain(self.conflicts.keys()) {
            check_name("package", name)?;
            if *name == self.name {
                problems.push("it names itself".to_owned());
            }
        }
        let mut known: BTreeMap<String, &str> = BTreeMap::new();
        for File { path, integrity, mode, .. } in &self.files {
            let package = format!("{} {}", self.name, self.version);
            check_path(path).map_err(|fault| ReleaseError::Path { package, path: path.clone(), fault })?;
            if fold(path).split('/').next() == Some(super::lock::LOCK_DIR) {
                problems.push(format!("`{path}` is where installed packages are written down"));
            }
            if let Some(other) = known.insert(fold(path), path) {
                problems.push(format!("`{other}` and `{path}` are the same, or differ in case only"));
            }
            if parse_integrity(integrity).is_none() || *mode > 0o777 {
                problems.push(format!("`{path}` has no usable integrity or mode"));
            }
        }
        for path in known.keys() {
            let above = path.match_indices('/').map(|(at, _)| &path[..at]);
            problems.extend(
                above
                    .filter(|above| known.contains_key(*above))
                    .map(|above| format!("`{above}` is a file and a directory")),
            );
        }
        for check in &self.checks {
            if check.command.is_empty() || check.runs == 0 || check.timeout_ms == 0 {
                problems.push(format!("check `{}` runs nothing", check.name));
            }
        }
        let time = |check: &Check| check.timeout_ms.saturating_mul(u64::from(check.runs));
        if self.checks.iter().map(time).fold(0, u64::saturating_add) > CHECKS_TIME_MAX_MS {
            problems.push("its checks may take more than an hour".to_owned());
        }
        let package = format!("{} {}", self.name, self.version);
        if problems.is_empty() { Ok(()) } else { Err(ReleaseError::BadPackage { package, problems }) }
    }

    /// Its files, as they are to be installed.
    pub(super) fn incoming(&self) -> Vec<Incoming> {
        let incoming = |file: &File| {
            let File { path, mode, size, integrity, class, .. } = file.clone();
            parse_integrity(&integrity).map(|sha256| Incoming { path, mode, size, sha256, class })
        };
        self.files.iter().filter_map(incoming).collect()
    }
}

/// The name of the signed file of a package, as a channel offers it.
pub(super) fn target_of_package(channel: &str, name: &str, version: &Version) -> String {
    format!("package.{channel}.{name}.{version}")
}

/// The name of the signed file of a channel.
pub(super) fn target_of_channel(name: &str) -> String {
    format!("channel.{name}")
}

/// Where a client reports how a version went.
pub(super) fn feedback_name(channel: &str, name: &str, version: &Version, client: &str) -> String {
    format!("{}{client}", feedback_prefix(channel, name, version))
}

/// Where all clients do.
pub(super) fn feedback_prefix(channel: &str, name: &str, version: &Version) -> String {
    format!("feedback/{channel}.{name}.{version}.")
}
