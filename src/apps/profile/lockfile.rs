//! `profiles.lock.json` and `profiles.json`: what is installed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{ProfileError, Result, during};
use super::phases::Phase;
use super::request::Place;
use crate::base::clock::Timestamp;
use crate::workspace::{Change, Owned, SidecarFile, Workspace, WorkspaceError, check_path, fold};

/// What is installed, file by file.
pub const LOCK_PATH: &str = "profiles.lock.json";
/// Which profiles the workspace has.
pub const CONFIG_PATH: &str = "profiles.json";
/// Longest of these files, in bytes.
pub(super) const LEN_MAX: u64 = 64 << 20;
const LOCK_VERSION: u64 = 1;
const CONFIG_VERSION: u64 = 1;
/// How deep arrays and objects have a line for each part.
const OPEN_DEPTH: usize = 4;

/// `profiles.lock.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LockFile {
    lockfile_version: u64,
    /// By name.
    pub profiles: Vec<Entry>,
    /// Other files of this kind whose entries are among these; they go when this one is written.
    #[serde(skip)]
    pub(super) beside: Vec<String>,
}

/// One installed profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When it was installed: RFC 3339, UTC.
    pub installed_at: String,
    /// A UUID.
    pub install_id: String,
    /// The integrity of all its files together.
    pub integrity: String,
    /// The commit it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Who provides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// Where the provider has it from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Where it was installed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The version of the workspace before it.
    pub base_index: String,
    /// Its files, by path.
    pub files: Vec<Owned>,
    /// Files of its that lie beside others.
    #[serde(default)]
    pub sidecars: Vec<SidecarFile>,
    /// Directories that were made for it.
    #[serde(default)]
    pub dirs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LockVersion {
    lockfile_version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Config {
    profiles_version: u64,
    profiles: Vec<Configured>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configured {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider_id: Option<String>,
}

impl Default for LockFile {
    fn default() -> Self {
        Self { lockfile_version: LOCK_VERSION, profiles: Vec::new(), beside: Vec::new() }
    }
}

impl LockFile {
    /// Reads the lock file of the version that a change starts from, with what lies beside it.
    pub(super) fn read(workspace: &Workspace, change: &mut Change<'_>) -> Result<Self> {
        let bytes = change.read_small(LOCK_PATH, LEN_MAX).map_err(unfit(LOCK_PATH))?;
        let lock = bytes.map_or_else(|| Ok(Self::default()), |bytes| Self::parse(&bytes))?;
        // Looked at, so that nobody writes it meanwhile; and what is there must be ours.
        if let Some(bytes) = change.read_small(CONFIG_PATH, LEN_MAX).map_err(unfit(CONFIG_PATH))? {
            check_config(&bytes)?;
        }
        super::merged::merged(workspace, change, lock)
    }

    /// Whether there is more in it than in the file of its name.
    pub(super) fn is_merged(&self) -> bool {
        !self.beside.is_empty()
    }

    /// Reads and checks a lock file.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |reason: String| ProfileError::BadLock { path: LOCK_PATH, reason };
        let version: LockVersion = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        if version.lockfile_version > LOCK_VERSION {
            return Err(ProfileError::NewerLock { path: LOCK_PATH, found: version.lockfile_version });
        }
        let lock: LockFile = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        let mut names = std::collections::HashSet::new();
        for entry in &lock.profiles {
            super::check_name(&entry.name).map_err(|error| bad(error.to_string()))?;
            if !names.insert(&entry.name) {
                return Err(bad(format!("profile `{}` is in it twice", entry.name)));
            }
            let sidecars = entry.sidecars.iter().flat_map(|sidecar| [&sidecar.path, &sidecar.meant_for]);
            for path in entry.files.iter().map(|file| &file.path).chain(sidecars).chain(&entry.dirs) {
                check_path(path).map_err(|fault| bad(format!("`{}`: {fault}", path.escape_debug())))?;
            }
        }
        Ok(lock)
    }

    /// A profile's entry.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.profiles.iter().find(|entry| entry.name == name)
    }

    /// The profile other than `name` that a path belongs to.
    pub(super) fn owners(&self, name: &str) -> std::collections::HashMap<String, String> {
        let others = self.profiles.iter().filter(|entry| entry.name != name);
        others
            .flat_map(|entry| {
                let paths = entry.files.iter().map(|file| &file.path);
                let paths = paths.chain(entry.sidecars.iter().map(|sidecar| &sidecar.path));
                paths.map(|path| (fold(path), entry.name.clone()))
            })
            .collect()
    }

    /// Puts an entry in, or takes it out.
    pub(super) fn set(&mut self, name: &str, entry: Option<Entry>) {
        self.profiles.retain(|old| old.name != name);
        self.profiles.extend(entry);
        self.profiles.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Writes lock file and configuration; takes both away when nothing is installed.
    pub(super) fn write(&self, change: &mut Change<'_>) -> Result<()> {
        self.beside.iter().for_each(|path| change.remove(path));
        if self.profiles.is_empty() {
            change.remove(LOCK_PATH);
            change.remove(CONFIG_PATH);
            return Ok(());
        }
        let configured =
            |entry: &Entry| Configured { name: entry.name.clone(), provider_id: entry.provider_id.clone() };
        let config =
            Config { profiles_version: CONFIG_VERSION, profiles: self.profiles.iter().map(configured).collect() };
        put(change, LOCK_PATH, &canonical(self))?;
        put(change, CONFIG_PATH, &canonical(&config))
    }
}

fn put(change: &mut Change<'_>, path: &str, text: &str) -> Result<()> {
    change.put(path, &mut text.as_bytes(), 0o644, None).map(|_| ()).map_err(|error| {
        let reason = error.to_string();
        match error {
            crate::workspace::PutError::Workspace(error) => during(Phase::Copy)(error),
            _ => ProfileError::Source { phase: Phase::Copy, path: path.to_owned(), reason },
        }
    })
}

fn unfit(path: &'static str) -> impl Fn(WorkspaceError) -> ProfileError {
    move |error| match error {
        WorkspaceError::Unfit { reason, .. } => ProfileError::BadLock { path, reason },
        error => during(Phase::Lock)(error),
    }
}

/// Whether bytes are a list of profiles and their settings that this program understands.
pub fn check_config(bytes: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        profiles_version: u64,
    }
    let bad = |error: serde_json::Error| ProfileError::BadLock { path: CONFIG_PATH, reason: error.to_string() };
    let version: Version = serde_json::from_slice(bytes).map_err(bad)?;
    if version.profiles_version > CONFIG_VERSION {
        return Err(ProfileError::NewerLock { path: CONFIG_PATH, found: version.profiles_version });
    }
    serde_json::from_slice::<Config>(bytes).map(|_| ()).map_err(bad)
}

/// Sorted keys, and a line for each file: so that two people's installs merge line by line.
fn canonical(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_else(|_| unreachable!("our own plain types have a JSON form"));
    let mut text = String::new();
    write_open(&value, 0, &mut text);
    text.push('\n');
    text
}

fn write_open(value: &Value, depth: usize, text: &mut String) {
    let parts: Vec<(Option<&String>, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (Some(name), value)).collect(),
        Value::Array(values) => values.iter().map(|value| (None, value)).collect(),
        _ => Vec::new(),
    };
    if parts.is_empty() || depth >= OPEN_DEPTH {
        text.push_str(&value.to_string());
        return;
    }
    let (open, close) = if value.is_object() { ('{', '}') } else { ('[', ']') };
    text.push(open);
    for (number, (name, value)) in parts.into_iter().enumerate() {
        text.push_str(if number == 0 { "\n" } else { ",\n" });
        text.push_str(&"  ".repeat(depth + 1));
        if let Some(name) = name {
            text.push_str(&format!("{}: ", Value::String(name.clone())));
        }
        write_open(value, depth + 1, text);
    }
    text.push('\n');
    text.push_str(&"  ".repeat(depth));
    text.push(close);
}

/// A time as lock files have it: RFC 3339, UTC; `None` before 1970, which no right clock shows.
pub(super) fn rfc3339(time: Timestamp) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(i128::from(time.unix_ns())).ok()?;
    (time.as_nanosecond() >= 0).then(|| time.to_string())
}
