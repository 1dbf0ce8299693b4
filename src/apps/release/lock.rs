//! What is installed: `releases.lock/NAME.json`, a file for each package, in the same version as its files.

use std::collections::BTreeMap;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use super::error::{ReleaseError, Result};
use crate::version::entry::Body;
use crate::version::index::IndexRecord;
use crate::workspace::{Change, Owned, PutError, SidecarFile, Workspace, check_path};

/// Where the files are that say what is installed.
pub(super) const LOCK_DIR: &str = "releases.lock";
const LEN_MAX: u64 = 32 << 20;

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// The channel it came from.
    pub channel: String,
    /// When: RFC 3339, UTC.
    pub installed_at: String,
    /// A UUID; the version that holds the install names it.
    pub install_id: String,
    /// Whether one can go back from it.
    pub rollback: bool,
    /// Packages that it needs.
    #[serde(default)]
    pub dependencies: BTreeMap<String, VersionReq>,
    /// Packages that must not be there with it.
    #[serde(default)]
    pub conflicts: BTreeMap<String, VersionReq>,
    /// Its files.
    pub files: Vec<Owned>,
    /// Files that lie beside others.
    pub sidecars: Vec<SidecarFile>,
    /// Directories that were made for it.
    pub dirs: Vec<String>,
}

impl Installed {
    /// Reads what is said of the package `name`.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self> {
        let one: Self = serde_json::from_slice(bytes).map_err(|error| damaged(name, error.to_string()))?;
        if one.name != name {
            return Err(damaged(name, format!("it is about `{}`", one.name)));
        }
        let sidecars = one.sidecars.iter().map(|sidecar| &sidecar.path);
        for path in one.files.iter().map(|file| &file.path).chain(sidecars).chain(&one.dirs) {
            check_path(path).map_err(|fault| damaged(name, format!("`{}`: {fault}", path.escape_debug())))?;
        }
        Ok(one)
    }
}

fn path(name: &str) -> String {
    format!("{LOCK_DIR}/{name}.json")
}

fn damaged(name: &str, reason: String) -> ReleaseError {
    ReleaseError::Damaged { object: path(name), reason }
}

/// Everything that is installed in a version, by name.
pub(super) fn installed(workspace: &Workspace, record: &IndexRecord) -> Result<Vec<Installed>> {
    let mut found = Vec::new();
    for (file, entry) in workspace.names_in(record, LOCK_DIR)? {
        let Some(name) = std::str::from_utf8(&file).ok().and_then(|file| file.strip_suffix(".json")) else { continue };
        // What lies beside after two machines installed the same package says nothing of what is installed.
        if super::package::check_name("package", name).is_err() {
            continue;
        }
        let Body::File(body) = entry.body else { continue };
        if body.size > LEN_MAX {
            return Err(damaged(name, "it is too long".to_owned()));
        }
        let bytes = workspace.read_file(&body, 0, usize::try_from(body.size).unwrap_or(usize::MAX))?;
        found.push(Installed::parse(&bytes, name)?);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Everything that is installed now.
pub(super) fn present(workspace: &Workspace) -> Result<Vec<Installed>> {
    let base = workspace.begin_change()?.base();
    installed(workspace, &*workspace.version(base)?)
}

/// Writes down what is installed now.
pub(super) fn write(change: &mut Change<'_>, installed: &Installed) -> Result<()> {
    let text = serde_json::to_string_pretty(installed).map_err(|error| damaged(&installed.name, error.to_string()))?;
    let name = path(&installed.name);
    change.look(&name)?;
    let put = change.put(&name, &mut format!("{text}\n").as_bytes(), 0o644, None);
    put.map(|_| ()).map_err(|error| match error {
        PutError::Workspace(error) => error.into(),
        error => damaged(&installed.name, error.to_string()),
    })
}
