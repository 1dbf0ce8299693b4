//! What a workspace says of itself.

use std::fmt;

use serde::Serialize;

use super::near::Fetching;
use crate::base::clock::Timestamp;
use crate::sync::LockInfo;

/// Since when, and why, the store does not take what waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Offline {
    /// When it began (RFC 3339).
    pub since: String,
    /// What the last attempt met.
    pub reason: String,
}

/// A locked path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockStatus {
    /// The path; what is not UTF-8 in it is replaced.
    pub path: String,
    /// `user@host` of who has it.
    pub holder: String,
    /// Whether that is this client.
    pub ours: bool,
}

impl LockStatus {
    pub(super) fn of(lock: &LockInfo) -> Self {
        let path = if lock.path.is_empty() { b".".as_slice() } else { &lock.path };
        let path = String::from_utf8_lossy(path).into_owned();
        Self { path, holder: lock.holder.clone(), ours: lock.is_ours }
    }
}

/// The state of an open workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Workspace id.
    pub workspace: String,
    /// Address of the store.
    pub store: String,
    /// When it was opened (RFC 3339).
    pub mounted_since: String,
    /// Newest version.
    pub newest_version: String,
    /// When that was recorded (RFC 3339).
    pub newest_version_time: String,
    /// The newest version that HEAD is known to name; `null` before HEAD was seen.
    pub published_version: Option<String>,
    /// Changes that no version holds yet.
    pub unrecorded_changes: bool,
    /// Versions that wait to be published.
    pub unpublished_versions: usize,
    /// Objects that wait.
    pub unpublished_objects: usize,
    /// Sealed bytes that wait.
    pub unpublished_bytes: u64,
    /// How long publishing all that takes at the pace so far, in seconds; unknown while nothing can be published.
    pub publishing_s: Option<u64>,
    /// Files with unpublished content.
    pub drafts: usize,
    /// Of these, files whose writer was killed.
    pub recovered: usize,
    /// Since when the store cannot be reached.
    pub offline: Option<Offline>,
    /// Since when, and why, changes cannot be recorded as a version.
    pub unrecorded: Option<Offline>,
    /// Why publishing stopped though the store can be reached (denied, rolled back).
    pub blocked: Option<Offline>,
    /// How far re-encryption is, when it was asked for since the workspace was opened.
    pub reencryption: Option<String>,
    /// How far fetching is that was asked for since the workspace was opened.
    pub fetching: Option<Fetching>,
    /// Paths whose content is kept on this machine.
    pub pinned: usize,
    /// How far fetching that content is.
    pub pinning: Option<Fetching>,
    /// Paths that several clients changed at once: those that were found when they were last listed, and what came
    /// since. What is older than this mount counts once they are listed, which reads the whole tree.
    pub conflicts: usize,
    /// When the retention policy was last applied and garbage collected here, and what came of it.
    pub collected: Option<String>,
    /// When stored content was last read here to find damage, and what was found.
    pub scrubbed: Option<String>,
    /// Paths that are locked.
    pub locks: Vec<LockStatus>,
    /// Why changes are refused.
    pub read_only: Option<String>,
    /// Whether the store's conditional writes work.
    pub conditional_writes: bool,
    /// `user@host` of the only client that may write, where conditional writes do not work and it is known.
    pub writer: Option<String>,
    /// Bytes in the disk cache.
    pub cache_bytes: u64,
    /// Bytes in the journal.
    pub journal_bytes: u64,
    /// Files, directories and bytes of the newest version.
    pub files: u64,
    /// Directories without the root.
    pub dirs: u64,
    /// Sum of file sizes.
    pub bytes: u64,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "workspace    {}", self.workspace)?;
        writeln!(f, "store        {}", self.store)?;
        writeln!(f, "since        {}", self.mounted_since)?;
        writeln!(f, "version      {} of {}", self.newest_version, self.newest_version_time)?;
        writeln!(f, "holds        {} files, {} directories, {} bytes", self.files, self.dirs, self.bytes)?;
        let unrecorded = if self.unrecorded_changes { "yes, in the next version" } else { "none" };
        writeln!(f, "unrecorded   {unrecorded}")?;
        match self.unpublished_versions {
            0 => writeln!(f, "unpublished  nothing")?,
            versions => writeln!(
                f,
                "unpublished  {versions} versions, {} objects, {} bytes",
                self.unpublished_objects, self.unpublished_bytes
            )?,
        }
        if let Some(seconds) = self.publishing_s {
            writeln!(f, "done in      {seconds} s, at the pace so far")?;
        }
        writeln!(f, "drafts       {} ({} recovered)", self.drafts, self.recovered)?;
        if let Some(offline) = &self.offline {
            writeln!(f, "OFFLINE      since {}: {}", offline.since, offline.reason)?;
        }
        if let Some(unrecorded) = &self.unrecorded {
            writeln!(f, "UNRECORDED   since {}: {}", unrecorded.since, unrecorded.reason)?;
        }
        if let Some(blocked) = &self.blocked {
            writeln!(f, "BLOCKED      since {}: {}", blocked.since, blocked.reason)?;
        }
        if let Some(text) = &self.reencryption {
            writeln!(f, "re-encrypt   {text}")?;
        }
        if let Some(state) = &self.fetching {
            writeln!(f, "fetching     {state}")?;
        }
        if self.pinned > 0 {
            let here = self.pinning.as_ref().map(|state| format!(": {state}")).unwrap_or_default();
            writeln!(f, "pinned       {} paths{here}", self.pinned)?;
        }
        if self.conflicts > 0 {
            writeln!(f, "CONFLICTS    {} paths; `kura conflicts` lists them", self.conflicts)?;
        }
        if let Some(text) = &self.collected {
            writeln!(f, "collected    {text}")?;
        }
        if let Some(text) = &self.scrubbed {
            writeln!(f, "scrubbed     {text}")?;
        }
        for lock in &self.locks {
            let who = if lock.ours { "here" } else { &lock.holder };
            writeln!(f, "locked       {} by {}", lock.path.escape_debug(), who.escape_debug())?;
        }
        if let Some(reason) = &self.read_only {
            writeln!(f, "READ-ONLY    {reason}")?;
        }
        if !self.conditional_writes {
            let writer = self.writer.as_deref().unwrap_or("nobody");
            writeln!(f, "WARNING      this store has no conditional writes, so only one client may write: {writer}")?;
        }
        writeln!(f, "cache        {} bytes", self.cache_bytes)?;
        writeln!(f, "journal      {} bytes", self.journal_bytes)
    }
}

/// A time as text, in UTC.
pub(super) fn rfc3339(time: Timestamp) -> String {
    let (seconds, nanoseconds) = time.parts();
    let time = jiff::Timestamp::new(seconds, 0).unwrap_or_default();
    format!("{}.{:03}Z", time.strftime("%Y-%m-%dT%H:%M:%S"), nanoseconds / 1_000_000)
}
