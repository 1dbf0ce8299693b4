//! What names there are in `.kura`, and what they stand for.

use std::sync::Arc;

use super::nodes::{FIXED, Fixed, Key, Way};
use super::outside::Outside;
use super::past::Past;
use crate::base::clock::Timestamp;
use crate::base::ids::VersionId;
use crate::control::{COMMANDS, Command};
use crate::fs::Result;
use crate::version::entry::Ino;
use crate::version::{VersionError, refs};
use crate::workspace::WorkspaceError;
use crate::worktree::{FileKind, WorkError};

const LATEST: &str = "latest";

/// Files in `.kura/ctl` that no listing shows: a mount writes to them itself, to lie over what was secret.
pub const OWN_FILES: [&str; 2] = [".own-0", ".own-1"];

/// One name outside of the live tree.
pub(crate) struct Item {
    pub(super) name: Vec<u8>,
    pub(super) offset: u64,
    pub(super) key: Key,
    pub(super) past: Option<Arc<Past>>,
}

impl Fixed {
    /// The directory it is in; `None` for `.kura` itself.
    pub(super) fn parent(self) -> Option<Fixed> {
        match self {
            Fixed::Control => None,
            Fixed::Status
            | Fixed::StatusJson
            | Fixed::Events
            | Fixed::Conflicts
            | Fixed::Versions
            | Fixed::Snapshots
            | Fixed::Ctl
            | Fixed::History
            | Fixed::Metrics
            | Fixed::AccessLog
            | Fixed::Config
            | Fixed::Jobs => Some(Fixed::Control),
            Fixed::ById | Fixed::ByTime | Fixed::ByTag => Some(Fixed::Versions),
            Fixed::Run | Fixed::LastError => Some(Fixed::Ctl),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Fixed::Control => ".kura",
            Fixed::Status => "status",
            Fixed::StatusJson => "status.json",
            Fixed::Versions => "versions",
            Fixed::ById => "by-id",
            Fixed::ByTime => "by-time",
            Fixed::ByTag => "by-tag",
            Fixed::Snapshots => "snapshots",
            Fixed::Ctl => "ctl",
            Fixed::Run => "run",
            Fixed::Events => "events",
            Fixed::Conflicts => "conflicts",
            Fixed::LastError => "last_error",
            Fixed::Jobs => "jobs",
            Fixed::History => "history",
            Fixed::Metrics => "metrics",
            Fixed::AccessLog => "access-log",
            Fixed::Config => "config",
        }
    }

    pub(super) fn kind(self) -> FileKind {
        match self {
            Fixed::Status
            | Fixed::StatusJson
            | Fixed::Events
            | Fixed::Conflicts
            | Fixed::Metrics
            | Fixed::AccessLog
            | Fixed::Config
            | Fixed::Run
            | Fixed::LastError => FileKind::File,
            Fixed::Control
            | Fixed::Versions
            | Fixed::ById
            | Fixed::ByTime
            | Fixed::ByTag
            | Fixed::Snapshots
            | Fixed::Ctl
            | Fixed::History
            | Fixed::Jobs => FileKind::Directory,
        }
    }

    pub(super) fn mode(self) -> u16 {
        match self {
            Fixed::Status
            | Fixed::StatusJson
            | Fixed::Events
            | Fixed::Conflicts
            | Fixed::Metrics
            | Fixed::AccessLog
            | Fixed::Config
            | Fixed::LastError => 0o400,
            Fixed::Run => 0o600,
            Fixed::Control | Fixed::Snapshots => 0o700,
            Fixed::Versions
            | Fixed::ById
            | Fixed::ByTime
            | Fixed::ByTag
            | Fixed::Ctl
            | Fixed::Jobs
            | Fixed::History => 0o500,
        }
    }

    /// What a name that is always there stands for.
    pub(super) fn child(self, folder: Ino, name: &[u8]) -> Option<Key> {
        let own = OWN_FILES.into_iter().find(|own| self == Fixed::Ctl && own.as_bytes() == name);
        let own = own.map(|own| Key::Command(folder, own));
        own.or_else(|| self.children(folder).find(|(known, _)| known == name).map(|(_, key)| key))
    }

    fn children(self, folder: Ino) -> impl Iterator<Item = (Vec<u8>, Key)> {
        let inside = FIXED.into_iter().filter(move |fixed| fixed.parent() == Some(self));
        let inside = inside.map(move |fixed| (fixed.name().as_bytes().to_vec(), Key::Fixed(folder, fixed)));
        let commands = COMMANDS.iter().filter(move |_| self == Fixed::Ctl);
        let file = move |command: &Command| (command.name.as_bytes().to_vec(), Key::Command(folder, command.name));
        inside.chain(commands.map(file))
    }
}

/// Where the symbolic link to a version points that stands in this directory.
pub(super) fn link_target(dir: Fixed, version: VersionId) -> Vec<u8> {
    match dir {
        Fixed::Versions => format!("by-id/{version}"),
        _ => format!("../by-id/{version}"),
    }
    .into_bytes()
}

/// A moment as by-time shows it: RFC 3339 in UTC to the microsecond.
pub(crate) fn time_name(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(time.unix_ns())).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

impl Outside {
    fn newest(&self) -> VersionId {
        self.workspace.tree().base().index.id
    }

    fn tags(&self) -> Result<Vec<(String, VersionId)>> {
        Ok(refs::tags(&self.workspace.tree().base().refs, &*self.workspace.pages())?)
    }

    fn tagged(&self, tag: &str) -> Result<Option<VersionId>> {
        Ok(refs::tagged(&self.workspace.tree().base().refs, &*self.workspace.pages(), tag)?)
    }

    /// All names in a directory, in an order that new versions do not disturb.
    pub(super) fn names(&self, folder: Ino, dir: Fixed) -> Result<Vec<(Vec<u8>, Key)>> {
        let mut names: Vec<(Vec<u8>, Key)> = dir.children(folder).collect();
        match dir {
            Fixed::Versions => names.push((LATEST.into(), Key::Link(dir, self.newest()))),
            Fixed::ById => {
                let ids = self.workspace.versions()?.into_iter().rev().map(|version| version.id);
                names.extend(ids.map(|id| (id.to_string().into_bytes(), Key::Root(Way { folder, tag: None }, id))));
            }
            Fixed::ByTime => {
                let versions = self.workspace.versions()?.into_iter().rev();
                let timed = versions.map(|version| (time_name(version.summary.time), Key::Link(dir, version.id)));
                names.extend(timed.map(|(name, key)| (name.into_bytes(), key)));
                names.dedup_by(|later, earlier| later.0 == earlier.0);
            }
            Fixed::ByTag => {
                names.extend(self.tags()?.into_iter().map(|(tag, id)| (tag.into_bytes(), Key::Link(dir, id))));
            }
            Fixed::Snapshots => {
                let root = |(tag, id): (String, VersionId)| {
                    let key = Key::Root(Way { folder, tag: Some(tag.as_str().into()) }, id);
                    (tag.into_bytes(), key)
                };
                names.extend(self.tags()?.into_iter().map(root));
            }
            Fixed::Jobs => {
                let jobs = self.control.jobs().all().into_iter();
                names.extend(jobs.map(|job| (job.id.to_string().into_bytes(), Key::Job(folder, job.id))));
            }
            Fixed::History => return self.history_names(folder, b""),
            Fixed::Control
            | Fixed::Ctl
            | Fixed::Status
            | Fixed::StatusJson
            | Fixed::Events
            | Fixed::Conflicts
            | Fixed::Metrics
            | Fixed::AccessLog
            | Fixed::Config
            | Fixed::Run
            | Fixed::LastError => {}
        }
        Ok(names)
    }

    /// What a name in a directory stands for.
    pub(super) fn find_name(&self, folder: Ino, dir: Fixed, name: &[u8]) -> Result<Option<Key>> {
        if let Some(key) = dir.child(folder, name) {
            return Ok(Some(key));
        }
        if dir == Fixed::History {
            return Ok(self.history_name(folder, b"", name)?.map(|(key, _)| key));
        }
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        let by_id = |id| Key::Root(Way { folder, tag: None }, id);
        Ok(match dir {
            Fixed::Versions if name == LATEST => Some(Key::Link(dir, self.newest())),
            Fixed::ById => self.select(name)?.filter(|id| id.to_string() == name).map(by_id),
            Fixed::ByTime => self.at_time(name)?.map(|id| Key::Link(dir, id)),
            Fixed::ByTag => self.tagged(name)?.map(|id| Key::Link(dir, id)),
            Fixed::Snapshots => self.tagged(name)?.map(|id| Key::Root(Way { folder, tag: Some(name.into()) }, id)),
            Fixed::Jobs => self.job(name).map(|job| Key::Job(folder, job)),
            Fixed::Control
            | Fixed::Versions
            | Fixed::Ctl
            | Fixed::Status
            | Fixed::StatusJson
            | Fixed::Events
            | Fixed::Conflicts
            | Fixed::Run
            | Fixed::History
            | Fixed::Metrics
            | Fixed::AccessLog
            | Fixed::Config
            | Fixed::LastError => None,
        })
    }

    fn select(&self, text: &str) -> Result<Option<VersionId>> {
        match self.workspace.select(text) {
            Ok(id) => Ok(Some(id)),
            Err(WorkspaceError::Version(VersionError::NoSuchVersion { .. } | VersionError::Ambiguous { .. })) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The version of a moment: one with just this name, or else the newest that is not later.
    fn at_time(&self, name: &str) -> Result<Option<VersionId>> {
        let is_date =
            name.len() >= 10 && name.as_bytes()[..4].iter().all(u8::is_ascii_digit) && name[4..].starts_with('-');
        if !is_date {
            return Ok(None);
        }
        let Ok(time) = name.parse::<jiff::Timestamp>() else { return self.select(name) };
        let time = Timestamp::from_unix_ns(i64::try_from(time.as_nanosecond()).unwrap_or(0));
        let versions = self.workspace.versions_at(time)?.into_iter();
        let named = versions.filter(|(_, summary)| time_name(summary.time) == name);
        match named.max_by_key(|(id, summary)| (summary.generation, *id)) {
            Some((id, _)) => Ok(Some(id)),
            None => self.select(name),
        }
    }

    /// Records a version with a tag.
    pub(super) fn record(&self, folder: Ino, name: &[u8]) -> Result<Key> {
        let tag = std::str::from_utf8(name).map_err(|_| WorkError::Invalid)?;
        if self.tagged(tag)?.is_some() {
            return Err(WorkError::Exists.into());
        }
        let recorded = self.workspace.snapshot(None, Some(tag.to_owned()))?;
        Ok(Key::Root(Way { folder, tag: Some(tag.into()) }, recorded.record.id))
    }

    /// Takes a tag away.
    pub(super) fn unrecord(&self, name: &[u8]) -> Result<()> {
        let tag = std::str::from_utf8(name).map_err(|_| WorkError::NotFound)?;
        match self.workspace.untag(tag) {
            Err(WorkspaceError::NoSuchTag { .. }) => Err(WorkError::NotFound.into()),
            result => Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc_and_sort_as_they_are() {
        let at = |ns| time_name(Timestamp::from_unix_ns(ns));
        assert_eq!(at(1_795_600_800_123_456_789), "2026-11-25T10:00:00.123456Z");
        assert_eq!(at(0), "1970-01-01T00:00:00.000000Z");
        assert!(at(1_000) < at(2_000));
    }

    #[test]
    fn links_lead_to_the_version() {
        let id = VersionId(uuid::Uuid::from_bytes([7; 16]));
        assert_eq!(link_target(Fixed::Versions, id), format!("by-id/{id}").into_bytes());
        assert_eq!(link_target(Fixed::ByTag, id), format!("../by-id/{id}").into_bytes());
    }
}
