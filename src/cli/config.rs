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

/// Each key, and what counts without it; `-` when nothing does.
const KEYS: [(&str, &str); 13] = [
    ("store", "-"),
    ("state_dir", "-"),
    ("cache_dir", "-"),
    ("cache_size", "10GiB"),
    ("unpublished_size", "64GiB"),
    ("full_wait", "0s"),
    ("version_quiet", "2s"),
    ("version_max", "30s"),
    ("maintain", "never"),
    ("gc_grace", "24h"),
    ("scrub", "never"),
    ("scrub_size", "1GiB"),
    ("poll", "30s"),
];
/// How alike a key must be to be what was meant, from 0 to 1.
const ALIKE: f32 = 0.6;

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
            store: store.or_else(|| file.values.get("store").cloned()),
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

/// The user's directory of configuration.
pub fn config_home() -> Result<PathBuf, Failure> {
    xdg("XDG_CONFIG_HOME", ".config")
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
struct ConfigFile {
    values: BTreeMap<String, String>,
    path: PathBuf,
}

/// Keys that variables go before.
const VARIABLES: [(&str, &str); 3] =
    [("store", "KURA_STORE"), ("state_dir", "KURA_STATE_DIR"), ("cache_dir", "KURA_CACHE_DIR")];

impl ConfigFile {
    fn shown(&self, paths: &[(&str, &PathBuf)]) -> Vec<Shown> {
        let variable = |key: &str| VARIABLES.iter().find(|(known, _)| *known == key).map(|(_, variable)| *variable);
        let shown = |(key, built_in): (&'static str, &str)| {
            let path = paths.iter().find(|(known, _)| *known == key).map(|(_, path)| path.display().to_string());
            let set =
                variable(key).and_then(|name| Some((name, std::env::var(name).ok().filter(|set| !set.is_empty())?)));
            match (set, self.values.get(key)) {
                (Some((name, value)), _) => (key, path.or(Some(value)), format!("the variable {name}")),
                (None, Some(value)) => (key, path.or(Some(value.clone())), self.path.display().to_string()),
                (None, None) => {
                    let built_in = Some(built_in.to_owned()).filter(|value| value != "-");
                    (key, path.or(built_in), "built in".to_owned())
                }
            }
        };
        KEYS.into_iter().map(shown).collect()
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.values.get(key).map(PathBuf::from)
    }

    fn parsed(&self, key: &str, parse: fn(&str) -> Result<u64, String>) -> Result<Option<u64>, Failure> {
        let parse = |value: &String| {
            parse(value).map_err(|error| {
                let message = format!("the configuration {}: `{key}`: {error}", self.path.display());
                Failure::new(Exit::Usage, message)
            })
        };
        self.values.get(key).map(parse).transpose()
    }
}

/// The file named by `KURA_CONFIG`, which must exist, or else `kura/config.toml` in the user's
/// configuration directory, which need not.
/// The file of connections for batches: beside the configuration file.
pub fn connections_file() -> Result<PathBuf, Failure> {
    if let Some(config) = std::env::var_os("KURA_CONFIG") {
        return absolute(&PathBuf::from(config).with_file_name("connections.toml"));
    }
    Ok(xdg("XDG_CONFIG_HOME", ".config")?.join("kura").join("connections.toml"))
}

fn read_config_file() -> Result<ConfigFile, Failure> {
    let named = std::env::var_os("KURA_CONFIG").map(PathBuf::from);
    let path = match &named {
        Some(path) => path.clone(),
        None => match config_home() {
            Ok(dir) => dir.join("kura").join("config.toml"),
            Err(_) => return Ok(ConfigFile::default()),
        },
    };
    let failed = |reason: &dyn std::fmt::Display| {
        let keys = KEYS.map(|(key, _)| key).join(", ");
        Failure::new(Exit::Usage, format!("the configuration {} cannot be used: {reason}", path.display()))
            .hint(format!("it is TOML, e.g. cache_size = \"10GiB\"; the keys are {keys}"))
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
    parse_config(&text).map(|values| ConfigFile { values, path: path.clone() }).map_err(|reason| failed(&reason))
}

/// The values of a configuration file; else what is wrong with it, with its line where there is one.
pub fn parse_config(text: &str) -> Result<BTreeMap<String, String>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
        format!("line {line}: {}", error.message())
    })?;
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let Some((known, _)) = KEYS.iter().find(|(known, _)| *known == key) else {
            return Err(format!("`{key}` is not known{}", meant(&key)));
        };
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            other => return Err(format!("`{known}` takes a text or a number, and not a {}", other.type_str())),
        };
        values.insert(key, value);
    }
    Ok(values)
}

/// A word about the key that may have been meant.
fn meant(key: &str) -> String {
    let alike = similar::get_close_matches(key, &KEYS.map(|(known, _)| known), 1, ALIKE);
    alike.first().map(|known| format!("; did you mean `{known}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::OpenOptions;

    #[test]
    fn what_is_shown_as_built_in_is_what_counts() {
        let store = StoreUrl::Dir("/s".into());
        let options = OpenOptions::new(store, "/t".into(), "/c".into(), Box::new(|| Err(String::new())));
        let of = |key: &str| KEYS.iter().find(|(known, _)| *known == key).unwrap().1;
        for (key, bytes) in [
            ("cache_size", options.cache_bytes_max),
            ("unpublished_size", options.limits.unpublished_bytes_max),
            ("scrub_size", super::super::door::SCRUB_BYTES),
        ] {
            assert_eq!(parse_size(of(key)), Ok(bytes), "{key}");
        }
        for (key, ms) in [
            ("full_wait", options.limits.full_wait_ms),
            ("version_quiet", options.intervals.version_quiet_ms),
            ("version_max", options.intervals.version_max_ms),
            ("poll", options.intervals.poll_ms),
        ] {
            assert_eq!(parse_duration_ms(of(key)), Ok(ms), "{key}");
        }
    }

    #[test]
    fn what_is_not_known_or_not_toml_is_refused_with_words() {
        assert_eq!(parse_config("# x\ncache_size = \"5GiB\"\nfull_wait = 3\n").unwrap()["cache_size"], "5GiB");
        for (text, wanted) in [
            ("cache_sise = \"1\"", "did you mean `cache_size`?"),
            ("quite_another = 1", "`quite_another` is not known"),
            ("store = \"/a\"\nmaintain = 1h", "line 2"),
            ("store = \"a\"\nstore = \"b\"", "duplicate"),
            ("[cache]\nsize = 1", "`cache` is not known"),
            ("poll = true", "a text or a number, and not a boolean"),
            ("poll", "line 1"),
        ] {
            let error = parse_config(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
