//! What can be asked of a workspace.

use serde::{Deserialize, Serialize};

use super::path::PathText;
use crate::apps::profile;

/// Longest request, in bytes.
pub const REQUEST_LEN_MAX: usize = 1024 * 1024;

/// One request. In JSON: `{"op": "snapshot", "message": "before the move"}`. Versions are selected
/// by the same texts everywhere: `latest`, `latest~2`, an id or its first digits, a name, a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The state of the workspace.
    Status {},
    /// Records a version now.
    Snapshot {
        /// What the user says of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// A name for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Takes a name away; the version stays.
    Untag {
        /// The name.
        name: String,
    },
    /// Records what changed and publishes everything.
    Flush {
        /// How long to wait for the store, in milliseconds; 0 tries once.
        #[serde(default)]
        wait_ms: u64,
    },
    /// The versions, newest first.
    Log {
        /// At most so many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<usize>,
    },
    /// One version.
    Show {
        /// Which.
        version: String,
        /// Whether to list what it changed against its first parent.
        #[serde(default)]
        changes: bool,
    },
    /// What differs between two versions, or a version and the live tree.
    Diff {
        /// The version before.
        from: String,
        /// The version after; the live tree when missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        /// Only this path and what is below it.
        #[serde(default)]
        path: PathText,
        /// Whether to say which lines of text files differ.
        #[serde(default)]
        patch: bool,
    },
    /// Makes the live tree, or paths in it, equal to a version.
    Restore {
        /// The version.
        version: String,
        /// The paths; everything when empty.
        #[serde(default)]
        paths: Vec<PathText>,
        /// Only says what would change.
        #[serde(default)]
        dry_run: bool,
    },
    /// Undoes what a version changed, keeping what came after.
    Revert {
        /// The version.
        version: String,
    },
    /// Writes a version's files into an ordinary directory.
    Export {
        /// The version.
        version: String,
        /// The paths; everything when empty.
        #[serde(default)]
        paths: Vec<PathText>,
        /// The directory, absolute.
        to: PathText,
    },
    /// Checks what is stored.
    Check {
        /// How much content is read: `5%`, `10GiB`, `100%`; none when missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        read_data: Option<String>,
    },
    /// Checks, and repairs what can be repaired.
    Repair {
        /// How much content is read, as for `check`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        read_data: Option<String>,
        /// Whether to take out what is lost.
        #[serde(default)]
        cut: bool,
    },
    /// Stores everything anew that is sealed under an earlier key epoch. A mount does it in the background.
    Reencrypt {
        /// At most so many bytes a second; as fast as possible when missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
    /// Installs sets of files.
    Profile {
        /// What to do.
        args: profile::Request,
    },
    /// Makes ready for unmounting: refused while something written exists in memory alone.
    Leave {
        /// How long the store may be waited for from now on, in milliseconds.
        wait_ms: u64,
    },
    /// Publishes, then unmounts. Only a mounted workspace understands it.
    Stop {},
}
