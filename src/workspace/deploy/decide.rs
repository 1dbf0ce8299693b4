//! What becomes of one file, by three digests.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::integrity::{integrity_of_file, parse_integrity};
use crate::base::ids::Sha256;

/// What a file is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Replaced when asked to, the earlier state being in history.
    #[default]
    Data,
    /// The user's own: what was changed stays, and the new file goes beside it.
    Config,
    /// As data, and executable.
    Exec,
}

/// A file that was installed, as a lock file records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owned {
    /// From the root.
    pub path: String,
    /// Permission bits.
    pub mode: u16,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of what was installed.
    #[serde(rename = "integrity", serialize_with = "write_digest", deserialize_with = "read_digest")]
    pub sha256: Sha256,
    /// What it is for.
    #[serde(default)]
    pub class: Class,
    /// Whether the file was there already, and therefore stays when the rest is uninstalled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
}

/// A file that was put beside another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SidecarFile {
    /// Where it is.
    pub path: String,
    /// The path that it was meant for.
    #[serde(rename = "for")]
    pub meant_for: String,
    /// SHA-256 of what was put there.
    #[serde(rename = "integrity", serialize_with = "write_digest", deserialize_with = "read_digest")]
    pub sha256: Sha256,
}

fn write_digest<S: Serializer>(digest: &Sha256, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&integrity_of_file(digest))
}

fn read_digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sha256, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_integrity(&text).ok_or_else(|| de::Error::custom(format!("`{text}` is no `sha256-<base64>`")))
}

/// A file that is to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// From the root.
    pub path: String,
    /// Permission bits.
    pub mode: u16,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: Sha256,
    /// What it is for.
    pub class: Class,
}

/// What is there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Now {
    /// Nothing.
    Absent,
    /// A regular file with this content.
    File(Sha256),
    /// Something that is never replaced, in words: `a directory`, `a symbolic link`, ….
    Other(&'static str),
}

/// All that decides about one file.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What was installed last by the same owner.
    pub old: Option<&'a Owned>,
    /// What is there now.
    pub now: Now,
    /// What is new.
    pub new: &'a Incoming,
    /// Another owner of the path.
    pub other_owner: Option<&'a str>,
    /// Whether conflicts are resolved: by sidecars, and for data by replacing.
    pub force: bool,
    /// Whether files that the user removed come back.
    pub restore_missing: bool,
}

/// Why a file cannot be installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Clash {
    /// Somebody changed it since it was installed.
    Modified,
    /// It is there and nobody installed it.
    Unowned,
    /// It belongs to another profile or package.
    Owned {
        /// Which.
        owner: String,
    },
    /// What is there is no regular file.
    InTheWay {
        /// What it is.
        what: String,
    },
}

/// What to do with one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing is there: put it.
    Install,
    /// It is there already, as it shall be.
    Adopt,
    /// What is there is what was installed, or may be replaced: put it.
    Replace,
    /// The user changed it and there is nothing new: leave it.
    Keep,
    /// The user removed it: leave it so.
    LeaveRemoved,
    /// Leave what is there, and put the new file beside it.
    Sidecar,
    /// Nothing may be done at all.
    Conflict(Clash),
}

/// The table.
pub fn decide(facts: &Facts<'_>) -> Action {
    let now = match facts.now {
        Now::Other(what) => return Action::Conflict(Clash::InTheWay { what: what.to_owned() }),
        Now::Absent if facts.other_owner.is_some() => None,
        Now::Absent => {
            return match facts.old {
                Some(_) if !facts.restore_missing => Action::LeaveRemoved,
                _ => Action::Install,
            };
        }
        Now::File(digest) => Some(digest),
    };
    let forced = |clash, action| if facts.force { action } else { Action::Conflict(clash) };
    if let Some(owner) = facts.other_owner {
        return forced(Clash::Owned { owner: owner.to_owned() }, Action::Sidecar);
    }
    if now == Some(facts.new.sha256) {
        return Action::Adopt;
    }
    match facts.old {
        None => forced(Clash::Unowned, Action::Sidecar),
        Some(old) if now == Some(old.sha256) => Action::Replace,
        Some(old) if old.sha256 == facts.new.sha256 => Action::Keep,
        Some(_) if facts.new.class == Class::Config => forced(Clash::Modified, Action::Sidecar),
        Some(_) => forced(Clash::Modified, Action::Replace),
    }
}
