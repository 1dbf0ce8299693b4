//! What comes back.

use serde::{Deserialize, Serialize};

use super::failure::{Exit, Failure};
use crate::base::clock::Timestamp;
use crate::version::index::{Counts, IndexRecord};
use crate::version::refs::{Listed, Summary};

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it was done, all of it.
    pub ok: bool,
    /// A stable word: `ok`, or what went wrong.
    pub code: String,
    /// The exit code a command ends with.
    pub exit: u8,
    /// For people.
    pub message: String,
    /// What to do about a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// For programs; what is in it depends on the operation.
    #[serde(default)]
    pub data: serde_json::Value,
}

impl Reply {
    /// Done.
    pub fn done(message: impl Into<String>, data: impl Serialize) -> Self {
        Self::with(Exit::Ok, message, data)
    }

    /// Done, but not all of it.
    pub fn partly(message: impl Into<String>, data: impl Serialize) -> Self {
        Self::with(Exit::Partial, message, data)
    }

    pub(super) fn with(exit: Exit, message: impl Into<String>, data: impl Serialize) -> Self {
        match serde_json::to_value(data) {
            Ok(data) => Self {
                ok: exit == Exit::Ok,
                code: exit.word().to_owned(),
                exit: exit.code(),
                message: message.into(),
                hint: None,
                data,
            },
            Err(error) => Failure::new(Exit::Other, format!("the reply cannot be written as JSON: {error}")).into(),
        }
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self {
            ok: false,
            code: failure.exit.word().to_owned(),
            exit: failure.exit.code(),
            message: failure.message,
            hint: failure.hint,
            data: serde_json::Value::Null,
        }
    }
}

/// A version as listings show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// The full id.
    pub id: String,
    /// When it was recorded: RFC 3339, UTC.
    pub time: String,
    /// Ids of the versions it was made from.
    pub parents: Vec<String>,
    /// Its first name.
    pub name: Option<String>,
    /// All its names.
    pub names: Vec<String>,
    /// What the user said of it.
    pub message: Option<String>,
    /// Why it exists: `automatic`, `snapshot`, …
    pub origin: String,
    /// Host that recorded it.
    pub host: String,
    /// User that recorded it.
    pub user: String,
    /// One more than the largest of the parents.
    pub generation: u64,
    /// Sizes.
    pub counts: CountsInfo,
}

/// The sizes of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsInfo {
    /// Names that are not directories.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes in files.
    pub bytes: u64,
    /// Names added since the parent.
    pub added: u64,
    /// Names changed since the parent.
    pub changed: u64,
    /// Names removed since the parent.
    pub removed: u64,
}

impl VersionInfo {
    /// A version of a listing.
    pub fn of(listed: &Listed) -> Self {
        let Summary { generation, time, parents, host, user, origin, message, counts } = &listed.summary;
        Self {
            id: listed.id.to_string(),
            time: rfc3339(*time),
            parents: parents.iter().map(ToString::to_string).collect(),
            name: listed.tags.first().cloned(),
            names: listed.tags.clone(),
            message: message.clone(),
            origin: origin.word().to_owned(),
            host: host.clone(),
            user: user.clone(),
            generation: *generation,
            counts: (*counts).into(),
        }
    }

    /// A record with its names.
    pub fn of_record(record: &IndexRecord, names: Vec<String>) -> Self {
        Self::of(&Listed { id: record.id, summary: Summary::of(record), tags: names })
    }
}

impl From<Counts> for CountsInfo {
    fn from(counts: Counts) -> Self {
        let Counts { files, dirs, bytes, added, changed, removed } = counts;
        Self { files, dirs, bytes, added, changed, removed }
    }
}

/// A time as programs read it.
pub(super) fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.unix_ns())).map_or_else(|_| String::new(), |time| time.to_string())
}

impl Reply {
    /// One line of JSON.
    pub fn line(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_else(|_| unreachable!("a reply always has a JSON form"));
        bytes.push(b'\n');
        bytes
    }

    /// For people: the message, what to do, and a list's items, each a line of JSON.
    pub fn text(&self) -> Vec<u8> {
        let mut text = self.message.trim_end().to_owned() + "\n";
        if let Some(hint) = &self.hint {
            text += &format!("{hint}\n");
        }
        if let serde_json::Value::Array(items) = &self.data {
            text.extend(items.iter().map(|item| format!("{item}\n")));
        }
        text.into_bytes()
    }

    /// Why `what` failed, for people.
    pub(super) fn explanation(&self, what: &str) -> String {
        let hint = self.hint.as_ref().map(|hint| format!("{hint}\n")).unwrap_or_default();
        format!("{what}: {}\n{hint}code: {} ({})\n", self.message.trim_end(), self.code, self.exit)
    }
}
