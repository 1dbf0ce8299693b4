//! Environment variables, the configuration file and the directories that follow from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use crate::control::parse_duration_ms;
use crate::control::{Exit, Failure, parse_size};
use crate::store::StoreUrl;

/// The passphrase itself.
pub const PASSPHRASE_VAR: &str = "KURA_PASSPHRASE";
/// A file whose first line is the passphrase.
pub const PASSPHRASE_FILE_VAR: &str = "KURA_PASSPHRASE_FILE";
/// A command that prints the passphrase.
pub const PASSPHRASE_COMMAND_VAR: &str = "KURA_PASSPHRASE_COMMAND";
/// A file whose first line is the new passphrase of a key slot.
pub const NEW_PASSPHRASE_FILE_VAR: &str = "KURA_NEW_PASSPHRASE_FILE";
/// A command that prints the new passphrase of a key slot.
pub const NEW_PASSPHRASE_COMMAND_VAR: &str = "KURA_NEW_PASSPHRASE_COMMAND";
/// Set by kura for itself: the descriptor of the pipe that holds what was in [`PASSPHRASE_VAR`].
pub const PASSPHRASE_FD_VAR: &str = "KURA_PASSPHRASE_FD";

/// The password of a sealed document.
pub const SEALED_PASSWORD_VAR: &str = "KURA_SEALED_PASSWORD";
/// The new password of a sealed document.
pub const SEALED_NEW_PASSWORD_VAR: &str = "KURA_SEALED_NEW_PASSWORD";

const KEYS: [&str; 13] = [
    "store",
    "state_dir",
    "cache_dir",
    "cache_size",
    "unpublished_size",
    "full_wait",
    "version_quiet",
    "version_max",
    "maintain",
    "gc_grace",
    "scrub",
    "scrub_size",
    "poll",
];

const DATA_VAR: &str = "XDG_DATA_HOME";
const DATA_BELOW_HOME: &str = ".local/share";

/// Longest configuration file, in bytes.
const CONFIG_LEN_MAX: u64 = 64 * 1024;

/// The configuration in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// The store named by `KURA_STORE` or the file.
    pub store: Option<String>,
    /// Root of the local state; one directory in it for each workspace.
    pub state_dir: PathBuf,
    /// Root of the caches.
    pub cache_dir: PathBuf,
    /// Largest disk cache of a workspace, in bytes.
    pub cache_bytes_max: Option<u64>,
    /// Most bytes that wait on the local disk for the store.
    pub unpublished_bytes_max: Option<u64>,
    /// How long a write waits for room before it fails, in milliseconds.
    pub full_wait_ms: Option<u64>,
    /// Quiet time after which a version is recorded, in milliseconds.
    pub version_quiet_ms: Option<u64>,
    /// Longest time from a change to its version, in milliseconds.
    pub version_max_ms: Option<u64>,
    /// How often a mount applies the retention policy and collects garbage, in milliseconds.
    pub maintain_ms: Option<u64>,
    /// How long collected objects stay, in milliseconds.
    pub gc_grace_ms: Option<u64>,
    /// How often a mount reads stored content to find damage, in milliseconds.
    pub scrub_ms: Option<u64>,
    /// How much of it, in bytes.
    pub scrub_bytes: Option<u64>,
    /// How often HEAD is looked at.
    pub poll_ms: Option<u64>,
    /// Each key with its value and where that comes from.
    shown: Vec<Shown>,
    /// The user's directory of data; a user without a home has none.
    data_dir: Option<PathBuf>,
}

impl Config {
    /// Reads environment and file.
    pub fn load() -> Result<Self, Failure> {
        let file = read_config_file()?;
        let chosen = |var: &str, key: &str| std::env::var_os(var).map(PathBuf::from).or(file.path(key));
        let state_dir = chosen("KURA_STATE_DIR", "state_dir")
            .map_or_else(|| Ok(xdg("XDG_STATE_HOME", ".local/state")?.join("kura")), |path| absolute(&path))?;
        let cache_dir = chosen("KURA_CACHE_DIR", "cache_dir")
            .map_or_else(|| Ok(xdg("XDG_CACHE_HOME", ".cache")?.join("kura")), |path| absolute(&path))?;
        let store = std::env::var("KURA_STORE").ok().filter(|store| !store.is_empty());
        let shown = file.shown(&[("state_dir", &state_dir), ("cache_dir", &cache_dir)]);
        Ok(Self {
            shown,
            store: store.or_else(|| file.0.get("store").cloned()),
            state_dir,
            cache_dir,
            cache_bytes_max: file.parsed("cache_size", parse_size)?,
            unpublished_bytes_max: file.parsed("unpublished_size", parse_size)?,
            full_wait_ms: file.parsed("full_wait", parse_duration_ms)?,
            version_quiet_ms: file.parsed("version_quiet", parse_duration_ms)?,
            version_max_ms: file.parsed("version_max", parse_duration_ms)?,
            maintain_ms: file.parsed("maintain", parse_duration_ms)?,
            gc_grace_ms: file.parsed("gc_grace", parse_duration_ms)?,
            scrub_ms: file.parsed("scrub", parse_duration_ms)?,
            scrub_bytes: file.parsed("scrub_size", parse_size)?,
            poll_ms: file.parsed("poll", parse_duration_ms)?,
            data_dir: xdg(DATA_VAR, DATA_BELOW_HOME).ok(),
        })
    }

    /// Each key with its value, if it has one, and where that comes from.
    pub fn shown(&self) -> Vec<Shown> {
        self.shown.clone()
    }

    /// The directory store that is used when no other is named.
    pub fn default_store(&self) -> Result<PathBuf, Failure> {
        let data = self.data_dir.clone().map_or_else(|| xdg(DATA_VAR, DATA_BELOW_HOME), Ok)?;
        Ok(data.join("kura").join("default"))
    }
}

/// A path made absolute against the current directory.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("`{}` is no usable path: {error}", path.display())))
}

/// A store's address with its path made absolute, as records of mounts hold it.
pub fn store_url(text: &str) -> Result<StoreUrl, Failure> {
    let url: StoreUrl = text.parse().map_err(|error| Failure::new(Exit::Usage, format!("{error}")))?;
    Ok(match url {
        StoreUrl::Dir(path) => {
            let path = absolute(&path)?;
            StoreUrl::Dir(std::fs::canonicalize(&path).unwrap_or(path))
        }
        s3 @ StoreUrl::S3(_) => s3,
    })
}

fn xdg(var: &str, below_home: &str) -> Result<PathBuf, Failure> {
    if let Some(dir) = std::env::var_os(var).map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        return Ok(dir);
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    home.map(|home| home.join(below_home)).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("neither {var} nor HOME is set"))
            .hint("set HOME, or KURA_STATE_DIR, KURA_CACHE_DIR and XDG_DATA_HOME")
    })
}

/// A key, its value, and where that comes from.
pub type Shown = (&'static str, Option<String>, String);

/// Values of the file by key, and its path.
#[derive(Default)]
struct ConfigFile(BTreeMap<String, String>, PathBuf);

/// Keys that variables go before.
const VARIABLES: [(&str, &str); 3] =
    [("store", "KURA_STORE"), ("state_dir", "KURA_STATE_DIR"), ("cache_dir", "KURA_CACHE_DIR")];

impl ConfigFile {
    fn shown(&self, paths: &[(&str, &PathBuf)]) -> Vec<Shown> {
        let variable = |key: &str| VARIABLES.iter().find(|(known, _)| *known == key).map(|(_, variable)| *variable);
        let shown = |key: &'static str| {
            let path = paths.iter().find(|(known, _)| *known == key).map(|(_, path)| path.display().to_string());
            let set =
                variable(key).and_then(|name| Some((name, std::env::var(name).ok().filter(|set| !set.is_empty())?)));
            match (set, self.0.get(key)) {
                (Some((name, value)), _) => (key, path.or(Some(value)), format!("the variable {name}")),
                (None, Some(value)) => (key, path.or(Some(value.clone())), self.1.display().to_string()),
                (None, None) => (key, path, "built in".to_owned()),
            }
        };
        KEYS.into_iter().map(shown).collect()
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.0.get(key).map(PathBuf::from)
    }

    fn parsed(&self, key: &str, parse: fn(&str) -> Result<u64, String>) -> Result<Option<u64>, Failure> {
        let parse = |value: &String| {
            parse(value).map_err(|error| Failure::new(Exit::Usage, format!("the configuration's {key}: {error}")))
        };
        self.0.get(key).map(parse).transpose()
    }
}

/// The file named by `KURA_CONFIG`, which must exist, or else `kura/config` in the user's
/// configuration directory, which need not.
fn read_config_file() -> Result<ConfigFile, Failure> {
    let named = std::env::var_os("KURA_CONFIG").map(PathBuf::from);
    let path = match &named {
        Some(path) => path.clone(),
        None => match xdg("XDG_CONFIG_HOME", ".config") {
            Ok(dir) => dir.join("kura").join("config"),
            Err(_) => return Ok(ConfigFile::default()),
        },
    };
    let failed = |reason: &dyn std::fmt::Display| {
        Failure::new(Exit::Usage, format!("the configuration {} cannot be used: {reason}", path.display()))
            .hint(format!("lines are `key = value`; the keys are {}", KEYS.join(", ")))
    };
    match std::fs::metadata(&path) {
        Ok(meta) if meta.len() > CONFIG_LEN_MAX => return Err(failed(&"it is too long")),
        Ok(_) => {}
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(ConfigFile::default());
        }
        Err(error) => return Err(failed(&error)),
    }
    let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
    parse_config(&text).map(|values| ConfigFile(values, path.clone())).map_err(|reason| failed(&reason))
}

fn parse_config(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut values = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = number + 1;
        let (key, value) = line.split_once('=').ok_or_else(|| format!("line {number} is not `key = value`"))?;
        let (key, value) = (key.trim(), value.trim());
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        if !KEYS.contains(&key) {
            return Err(format!("line {number}: `{key}` is not known"));
        }
        if values.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("line {number}: `{key}` is given twice"));
        }
    }
    Ok(values)
}
