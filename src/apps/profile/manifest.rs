//! `profile.json`: what a profile says of itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::error::{ProfileError, Result};
use super::lockfile::{CONFIG_PATH, LOCK_PATH};
use crate::workspace::{Class, check_path, fold};

/// The name of the file that makes a directory a profile.
pub const MANIFEST_NAME: &str = "profile.json";
/// Longest such file, in bytes.
pub(super) const MANIFEST_LEN_MAX: u64 = 16 << 20;
/// Most files of one profile.
const FILES_MAX: usize = 100_000;
const NAME_LEN_MAX: usize = 64;
/// Names that mean something else on other systems.
const RESERVED: [&str; 4] = ["con", "prn", "aux", "nul"];

/// A profile as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// Its name, if it says one.
    #[serde(default)]
    pub(super) name: Option<String>,
    /// Its version.
    pub(super) version: String,
    /// Who provides it.
    #[serde(default)]
    pub(super) provider: Option<String>,
    /// What it is.
    #[serde(default)]
    pub(super) description: Option<String>,
    /// Its files; all there are when empty.
    #[serde(default)]
    files: Vec<Listed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Listed {
    Path(String),
    File(File),
}

/// A file as the profile lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// From the root of the workspace, and from the profile's directory.
    pub(super) path: String,
    /// Permission bits as octal digits; those of the file when missing.
    #[serde(default, deserialize_with = "octal")]
    pub(super) mode: Option<u16>,
    /// What it is for; by its mode when missing.
    #[serde(default)]
    pub(super) class: Option<Class>,
}

fn octal<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<u16>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let mode =
        u16::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777 && text.bytes().all(|b| b.is_ascii_digit()));
    mode.map(Some).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no mode such as `644`")))
}

/// Whether these bytes are the manifest of a profile of this name.
pub fn check_manifest(bytes: &[u8], name: &str) -> Result<()> {
    Manifest::parse(bytes, name, MANIFEST_NAME).map(|_| ())
}

/// Whether a name is one that a profile or provider can have.
pub fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ok = (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'))
        && !name.contains("..")
        && !name.ends_with('.')
        && !RESERVED.contains(&name.split('.').next().unwrap_or(name));
    if ok { Ok(()) } else { Err(ProfileError::Name { name: name.to_owned() }) }
}

fn version_ok(version: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&version.len())
        && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+'))
}

impl Manifest {
    /// Reads a manifest; `at` is where it is, for messages.
    pub(super) fn parse(bytes: &[u8], name: &str, at: &str) -> Result<Self> {
        let bad = |problem: String| ProfileError::BadManifest { manifest: at.to_owned(), problems: vec![problem] };
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        let mut problems = Vec::new();
        if manifest.name.as_deref().is_some_and(|own| own != name) {
            problems.push(format!("it names itself `{}`", manifest.name.as_deref().unwrap_or_default()));
        }
        if !version_ok(&manifest.version) {
            problems.push("its version is not 1 to 64 of letters, digits, `.`, `_`, `-`, `+`".to_owned());
        }
        if let Some(Err(error)) = manifest.provider.as_deref().map(check_name) {
            problems.push(format!("its provider: {error}"));
        }
        match problems.is_empty() {
            true => Ok(manifest),
            false => Err(ProfileError::BadManifest { manifest: at.to_owned(), problems }),
        }
    }

    /// The files it lists; none when it has all that are there.
    pub(super) fn files(&self) -> Vec<File> {
        let file = |listed: &Listed| match listed {
            Listed::Path(path) => File { path: path.clone(), ..File::default() },
            Listed::File(file) => file.clone(),
        };
        self.files.iter().map(file).collect()
    }
}

/// Everything that is wrong with the paths of a profile.
pub(super) fn path_problems(files: &[File]) -> Vec<String> {
    let mut problems = Vec::new();
    if files.is_empty() {
        problems.push("it has no files".to_owned());
    }
    if files.len() > FILES_MAX {
        problems.push(format!("it has more than {FILES_MAX} files"));
    }
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    for file in files {
        let path = file.path.as_str();
        if let Err(fault) = check_path(path) {
            problems.push(format!("`{}`: {fault}", path.escape_debug()));
            continue;
        }
        if [LOCK_PATH, CONFIG_PATH].contains(&fold(path).as_str()) {
            problems.push(format!("`{path}` is where installed profiles are written down"));
        }
        if let Some(other) = known.insert(fold(path), path) {
            problems.push(match other == path {
                true => format!("`{path}` is listed twice"),
                false => format!("`{other}` and `{path}` differ in upper and lower case only"),
            });
        }
    }
    let paths: BTreeSet<&String> = known.keys().collect();
    for path in &paths {
        let above = path.match_indices('/').map(|(at, _)| path[..at].to_owned());
        problems.extend(
            above.filter(|above| paths.contains(above)).map(|above| format!("`{above}` is a file and a directory")),
        );
    }
    problems
}
