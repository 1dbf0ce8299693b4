//! What can be asked of a workspace.

use serde::{Deserialize, Serialize};

use super::maintain::{ForgetMode, KeepRules};
use super::path::PathText;

/// Longest request, in bytes.
pub const REQUEST_LEN_MAX: usize = 1024 * 1024;

/// One request. In JSON: `{"op": "snapshot", "message": "before the move"}`. Versions are selected
/// by the same texts everywhere: `latest`, `latest~2`, an id or its first digits, a name, a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The state of the workspace.
    Status {
        /// Whether to name the files that wait to be published.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        files: bool,
    },
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
        /// Only those that changed this path, through its renames.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<PathText>,
        /// Begins with this version instead of the newest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
    },
    /// Which version each line of a text file comes from.
    Blame {
        /// The file.
        path: PathText,
    },
    /// Paths by name.
    Find {
        /// What the last name must match, with `*` and `?`; any when empty.
        #[serde(default)]
        pattern: String,
        /// Only at and below this path.
        #[serde(default)]
        below: PathText,
        /// What earlier versions have and the newest does not, instead of what it has.
        #[serde(default)]
        deleted: bool,
    },
    /// Brings back what was deleted, from the newest version that has it.
    Undelete {
        /// The paths.
        paths: Vec<PathText>,
        /// Only says what would come back.
        #[serde(default)]
        dry_run: bool,
    },
    /// Gives a version a name.
    Tag {
        /// The version.
        version: String,
        /// The name.
        name: String,
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
    /// Takes in what others published, and publishes.
    Sync {},
    /// The files that lie beside others after conflicts.
    Conflicts {},
    /// Settles the conflict of a path.
    Resolve {
        /// The file, or the one beside it.
        path: PathText,
        /// What stays: `ours`, `theirs`, `both` or `merge`.
        take: String,
    },
    /// Shows the policies, after setting one.
    Policy {
        /// The policy to set, or `default` to remove it; only shows what is set when missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<String>,
        /// For which paths; all when empty.
        #[serde(default)]
        pattern: String,
    },
    /// Takes versions from the list that no rule keeps.
    Forget {
        /// What to keep; when empty, what the policy of the workspace says.
        #[serde(default)]
        keep: KeepRules,
        /// What to do with the rules.
        #[serde(default)]
        mode: ForgetMode,
    },
    /// Says what nobody needs, or frees it.
    Gc {
        /// Whether to free it.
        #[serde(default)]
        delete: bool,
        /// How long objects stay after nobody needs them any more, in milliseconds; a day when missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grace_ms: Option<u64>,
    },
    /// Makes ready for unmounting: refused while something written exists in memory alone.
    Leave {
        /// How long the store may be waited for from now on, in milliseconds.
        #[serde(default)]
        wait_ms: u64,
    },
    /// Locks paths, so that only this client can change them and what is below them.
    Lock {
        /// The paths.
        paths: Vec<PathText>,
        /// For how many milliseconds; while the workspace is mounted when missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_ms: Option<u64>,
        /// Whether locks of others are taken away.
        #[serde(default, rename = "break")]
        by_force: bool,
    },
    /// Gives up locks of this client.
    Unlock {
        /// The paths.
        paths: Vec<PathText>,
    },
    /// The locks of all clients.
    Locks {},
    /// Fetches the content of paths; a mount does it in the background.
    Prefetch {
        /// The paths.
        paths: Vec<PathText>,
    },
    /// Keeps the content of paths here; only lists what is kept without any.
    Pin {
        /// The paths.
        #[serde(default)]
        paths: Vec<PathText>,
    },
    /// Keeps the content of paths no longer.
    Unpin {
        /// The paths.
        paths: Vec<PathText>,
    },
    /// What the workspace and its mount count.
    Metrics {},
    /// What the store holds, by when it was stored.
    Stored {},
    /// The settings that the mount began with. Only a mounted workspace understands it.
    Config {},
    /// The jobs, newest first.
    Jobs {},
    /// One job, with its request and log.
    Job {
        /// Its id, or the first digits of it.
        job: String,
    },
    /// Asks a job to end.
    Cancel {
        /// Its id, or the first digits of it.
        job: String,
    },
    /// Publishes, then unmounts. Only a mounted workspace understands it.
    Stop {},
}
