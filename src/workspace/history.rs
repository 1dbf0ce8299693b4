//! Versions: listing, reading, comparing, naming.

use std::sync::Arc;

use super::opened::Workspace;
use super::select::is_reserved;
use super::{Result, Side, WorkspaceError, split_path};
use crate::base::clock::Timestamp;
use crate::base::ids::VersionId;
use crate::blob::Fault;
use crate::version::VersionError;
use crate::version::diff::{Change, diff};
use crate::version::entry::{Entry, FileBody};
use crate::version::history::History;
use crate::version::index::{IndexRecord, Origin};
use crate::version::pages::Pages;
use crate::version::refs::{self, Listed, Summary};
use crate::version::tree::{Edits, PageIo};
use crate::worktree::{Checkpoint, Reading, Reason, Recorded, WorkError};

impl Workspace {
    /// Pages, for reading.
    pub fn pages(&self) -> Box<dyn PageIo + '_> {
        Box::new(Pages(&self.parts.blobs))
    }

    /// All versions, newest first.
    pub fn versions(&self) -> Result<Vec<Listed>> {
        Ok(refs::versions(&self.tree().base().refs, &Pages(&self.parts.blobs))?)
    }

    /// Versions, newest first, read as they are asked for.
    pub fn newest_first(&self) -> Result<History<'_>> {
        let base = self.tree().base();
        Ok(History::new(&base.refs, self.pages(), base.index.id)?)
    }

    /// How many versions there are.
    pub fn count_versions(&self) -> Result<u64> {
        Ok(refs::count(&self.tree().base().refs, &*self.pages())?)
    }

    /// At most `max` versions, newest first, from `from` on or from the newest. A listing that goes on with the last
    /// version of the one before does not begin anew.
    pub fn versions_from(&self, from: Option<VersionId>, max: usize) -> Result<Vec<Listed>> {
        let base = self.tree().base();
        let place = from.and_then(|from| self.places.lock().get(&(base.refs, from)).cloned());
        let mut is_there = from.is_none() || place.is_some();
        let mut history = match &place {
            Some(place) => History::from_place(&base.refs, self.pages(), base.index.id, place)?,
            None => History::new(&base.refs, self.pages(), base.index.id)?,
        };
        let mut found = Vec::new();
        while found.len() < max {
            let place = if found.len() + 1 == max { history.place() } else { None };
            let Some(version) = history.next().transpose()? else { break };
            is_there |= from == Some(version.id);
            if !is_there {
                continue;
            }
            if let Some(place) = place {
                self.places.lock().put((base.refs, version.id), place);
            }
            found.push(version);
        }
        Ok(found)
    }

    /// The tags of a version, sorted.
    pub fn tags_of(&self, version: VersionId) -> Result<Vec<String>> {
        let tags = refs::tags(&self.tree().base().refs, &*self.pages())?;
        Ok(tags.into_iter().filter(|(_, tagged)| *tagged == version).map(|(tag, _)| tag).collect())
    }

    /// The versions of a millisecond, by id.
    pub fn versions_at(&self, time: Timestamp) -> Result<Vec<(VersionId, Summary)>> {
        // The first half of an id is the time.
        let digits = format!("{:012x}", time.unix_ns().max(0) / 1_000_000);
        Ok(refs::with_digits(&self.tree().base().refs, &*self.pages(), &digits, usize::MAX)?)
    }

    /// The record of a version.
    pub fn version(&self, id: VersionId) -> Result<Arc<IndexRecord>> {
        let base = self.tree().base();
        // What a cache still has of it is not whole any more.
        if base.index.id != id && matches!(refs::forgotten(&base.refs, &Pages(&self.parts.blobs), id), Ok(Some(_))) {
            return Err(WorkspaceError::Forgotten { version: id });
        }
        if let Some(record) = self.records.lock().get(&id) {
            return Ok(record.clone());
        }
        let record = if base.index.id == id {
            base.index
        } else {
            let open = |bytes: &[u8]| {
                IndexRecord::open(&self.parts.keys, id, bytes).map_err(|error| match error {
                    VersionError::Unopened { source, .. } => Fault::Open(source),
                    _ => Fault::Malformed("not an index record"),
                })
            };
            self.parts.blobs.read_object(&IndexRecord::key(id), open)?
        };
        let record = Arc::new(record);
        self.records.lock().put(id, record.clone());
        Ok(record)
    }

    /// The inode at a path of a version, links resolved; `None` when there is none.
    pub fn find(&self, version: &IndexRecord, path: &[&[u8]]) -> Result<Option<Entry>> {
        Ok(version.root.find(&Pages(&self.parts.blobs), path)?)
    }

    /// Reads a part of a file of some version; shorter only where the file ends.
    pub fn read_file(&self, file: &FileBody, offset: u64, len: usize) -> Result<Vec<u8>> {
        let len = usize::try_from(file.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(len);
        let mut out = Vec::with_capacity(len);
        let pages = Pages(&self.parts.blobs);
        let from = Reading::anywhere(&self.parts.blobs, &pages);
        from.read_body(file, offset, len, file.size, &mut out)?;
        Ok(out)
    }

    /// Records a version now, even when nothing changed.
    pub fn snapshot(&self, message: Option<String>, tag: Option<String>) -> Result<Recorded> {
        self.check_writable()?;
        if let Some(tag) = &tag {
            self.check_tag(tag, None)?;
        }
        self.record(Reason { origin: Origin::Snapshot, message, tag, always: true })?.ok_or_else(|| unrecorded().into())
    }

    /// Gives a version a tag.
    pub fn tag(&self, version: VersionId, tag: &str) -> Result<()> {
        self.check_writable()?;
        let _history = self.history.lock();
        if self.check_tag(tag, Some(version))? {
            return Ok(());
        }
        let mut edits = Edits::new();
        refs::set_tag(&mut edits, tag, Some(version));
        self.tree().edit_refs(&edits)?;
        self.background.publish_now();
        Ok(())
    }

    /// Refuses a tag that cannot be given to a version (or to one that is to be recorded); whether it has it already.
    pub fn check_tag(&self, tag: &str, version: Option<VersionId>) -> Result<bool> {
        if !refs::tag_ok(tag) || is_reserved(tag) {
            return Err(WorkspaceError::BadTag { tag: tag.to_owned() });
        }
        match refs::tagged(&self.tree().base().refs, &Pages(&self.parts.blobs), tag)? {
            Some(found) if Some(found) == version => Ok(true),
            Some(version) => Err(WorkspaceError::TagTaken { tag: tag.to_owned(), version }),
            None => Ok(false),
        }
    }

    /// Refuses a tag that no version has.
    pub fn check_tagged(&self, tag: &str) -> Result<()> {
        match refs::tagged(&self.tree().base().refs, &Pages(&self.parts.blobs), tag)? {
            Some(_) => Ok(()),
            None => Err(WorkspaceError::NoSuchTag { tag: tag.to_owned() }),
        }
    }

    /// Takes a tag away; the version stays.
    pub fn untag(&self, tag: &str) -> Result<()> {
        self.check_writable()?;
        let _history = self.history.lock();
        self.check_tagged(tag)?;
        let mut edits = Edits::new();
        refs::set_tag(&mut edits, tag, None);
        self.tree().edit_refs(&edits)?;
        self.background.publish_now();
        Ok(())
    }

    /// What differs between two sides, at and below `path` (empty for everything), parents before children.
    /// A path that neither side has is a mistake.
    pub fn diff(&self, before: Side, after: Side, path: &[u8]) -> Result<Vec<Change>> {
        let (before, after) = (self.side(before)?, self.side(after)?);
        let mut changes = Vec::new();
        diff(&Pages(&self.parts.blobs), &before.root, &after.root, &mut |change| {
            if is_below(&change.path, path) {
                changes.push(change);
            }
            Ok(())
        })?;
        let names = split_path(path);
        if changes.is_empty() && self.find(&before, &names)?.is_none() && self.find(&after, &names)?.is_none() {
            let path = String::from_utf8_lossy(path).into_owned();
            return Err(VersionError::NoSuchPath { version: before.id, path }.into());
        }
        Ok(changes)
    }

    fn side(&self, side: Side) -> Result<Arc<IndexRecord>> {
        match side {
            Side::Version(id) => self.version(id),
            Side::Live => self.present(),
        }
    }

    /// The id of the newest version, after recording what changed since.
    pub fn newest(&self) -> Result<VersionId> {
        Ok(self.present()?.id)
    }

    /// Has the background publish what is recorded, without waiting for more.
    pub fn publish_soon(&self) {
        self.background.publish_now();
    }

    /// The newest version, after recording what changed since.
    pub fn present(&self) -> Result<Arc<IndexRecord>> {
        if !self.is_read_only() {
            self.record(Reason::automatic())?;
        }
        Ok(Arc::new(self.tree().base().index))
    }

    /// Records a version of everything published so far.
    pub(super) fn record(&self, reason: Reason) -> Result<Option<Recorded>> {
        match self.checkpoint(&reason)? {
            Checkpoint::Unchanged => Ok(None),
            Checkpoint::Recorded(recorded) => {
                self.background.publish_now();
                Ok(Some(*recorded))
            }
        }
    }

    /// Records a version, and tells of conflicts that closes brought.
    pub(super) fn checkpoint(&self, reason: &Reason) -> std::result::Result<Checkpoint, WorkError> {
        let checkpoint = self.tree().checkpoint(reason);
        if let Ok(Checkpoint::Recorded(recorded)) = &checkpoint {
            // Asked for again while it waits, and when the store may be away.
            self.records.lock().put(recorded.record.id, Arc::new(recorded.record.clone()));
        }
        self.tell_settled();
        checkpoint
    }

    /// Tells of conflicts that closes brought.
    pub(super) fn tell_settled(&self) {
        self.parts.events.conflicts(&self.tree().take_settled());
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        if self.is_read_only() { Err(WorkspaceError::ReadOnly) } else { Ok(()) }
    }
}

fn unrecorded() -> VersionError {
    VersionError::Damaged { object: "the live tree".to_owned(), reason: "it made no version when asked to".to_owned() }
}

/// Whether `path` is `top` or lies below it; everything lies below the empty path.
pub(super) fn is_below(path: &[u8], top: &[u8]) -> bool {
    top.is_empty() || path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}
