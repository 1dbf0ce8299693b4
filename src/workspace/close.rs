//! Flushing, closing, and the state that is shown.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::background::is_away;
use super::opened::Workspace;
use super::status::{LockStatus, Offline, rfc3339};
use super::{CloseReport, FlushReport, Result, Status};
use crate::base::clock::Timestamp;
use crate::store::ObjectStore;
use crate::sync::SyncError;
use crate::worktree::{Checkpoint, Reason};

/// How long a failed publishing rests while somebody waits for it.
const RETRY_MS: u64 = 200;

/// What closing may take beyond the time for publishing before requests are given up.
const GRACE: Duration = Duration::from_secs(1);

impl Workspace {
    /// Records what changed and makes it durable here; with `wait`, waits so long for it to be published.
    pub fn flush(&self, wait: Option<Duration>) -> Result<FlushReport> {
        if self.is_read_only() {
            return Ok(FlushReport::default());
        }
        let recorded = match self.checkpoint(&Reason::automatic())? {
            Checkpoint::Recorded(recorded) => Some(*recorded),
            Checkpoint::Unchanged => None,
        };
        self.tree().sync()?;
        let reason = match wait {
            Some(wait) => self.publish_within(wait),
            None => {
                self.background.publish_now();
                None
            }
        };
        let waiting = self.parts.publisher.waiting()?;
        Ok(FlushReport {
            recorded,
            unpublished_versions: waiting.versions,
            unpublished_bytes: waiting.bytes,
            reason: reason.map(|error| error.to_string()),
        })
    }

    /// Publishes, trying again what may pass; the last error when the time is up.
    pub(super) fn publish_within(&self, time: Duration) -> Option<SyncError> {
        let end = Instant::now() + time;
        loop {
            match self.publish(&|| Instant::now() >= end) {
                Ok(_) => return None,
                Err(error) if !is_away(&error) => return Some(error),
                Err(error) if Instant::now() + Duration::from_millis(RETRY_MS) >= end => return Some(error),
                Err(_) => std::thread::sleep(Duration::from_millis(RETRY_MS)),
            }
        }
    }

    /// Ends what runs in the background, records a last version and, with `publish`, publishes what is possible in
    /// bounded time. Then the state directory is free for others. A second call does nothing.
    pub fn close(&self, publish: bool) -> Result<CloseReport> {
        let limit = Duration::from_millis(self.close_publish_ms.load(Ordering::Relaxed));
        let (done, is_done) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let store = &self.parts.store;
            let give_up = move || {
                let mut wait = limit.saturating_add(GRACE);
                while is_done.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                    store.cancel();
                    wait = GRACE;
                }
            };
            if let Err(error) = std::thread::Builder::new().name("kura-close".into()).spawn_scoped(scope, give_up) {
                tracing::warn!("closing may wait for the store: {error}");
            }
            let closed = self.close_within(publish, limit);
            drop(done);
            closed
        })
    }

    fn close_within(&self, publish: bool, time: Duration) -> Result<CloseReport> {
        self.background.stop(self.tree());
        self.tree().stop();
        // Held until the end of this function, and free for others then.
        let Some(_lock) = self.parts.lock.lock().take().filter(|_| !self.is_read_only()) else {
            return Ok(CloseReport::default());
        };
        let recorded = self.checkpoint(&Reason::automatic());
        // What is in no version (drafts) is in the journal.
        let logged = self.tree().log_drafts().and_then(|()| self.tree().sync());
        let mut reason = recorded.as_ref().err().map(ToString::to_string);
        if publish {
            let unpublished = self.publish_within(time);
            if unpublished.is_none() {
                self.release_kept();
            }
            reason = reason.or(unpublished.map(|error| error.to_string()));
        }
        logged?;
        let waiting = self.parts.publisher.waiting()?;
        Ok(CloseReport { unpublished_versions: waiting.versions, unpublished_bytes: waiting.bytes, reason })
    }

    /// What the store is silent about, as far as it is known without asking it.
    pub(super) fn silence(&self) -> Option<Offline> {
        let silence = self.parts.store.silence()?;
        let age_ns = i64::try_from(silence.age.as_nanos()).unwrap_or(0);
        let since = Timestamp::from_unix_ns(self.parts.options.clock.now().unix_ns().saturating_sub(age_ns));
        Some(Offline { since: rfc3339(since), reason: silence.reason })
    }

    /// Makes ready for being unmounted: what was written is on the local disk when this returns, and from now on the
    /// store is waited for at most so long.
    pub fn leave(&self, wait: Duration) -> Result<()> {
        self.close_publish_ms.store(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let store = Arc::downgrade(&self.parts.store);
        let give_up = move || {
            std::thread::sleep(wait);
            // A store that answers is left alone: the mount may have to stay, being busy.
            if let Some(store) = store.upgrade().filter(|store| store.silence().is_some()) {
                store.cancel();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("kura-leave".into()).spawn(give_up) {
            tracing::warn!("unmounting may wait for the store: {error}");
        }
        self.tree().log_drafts()?;
        Ok(self.tree().sync()?)
    }

    /// The state of the workspace. Never waits for the store.
    pub fn status(&self) -> Status {
        let parts = &self.parts;
        let base = self.tree().base();
        let activity = self.tree().activity();
        // A queue that cannot be read is shown by what publishing says of it.
        let waiting = parts.publisher.waiting().unwrap_or_default();
        let trouble = self.trouble.lock().clone();
        let maintained = self.background.maintained.lock().clone();
        let trouble_is_none = trouble.offline.is_none() && trouble.blocked.is_none();
        let failure = self.tree().failure();
        Status {
            workspace: parts.id.to_string(),
            store: parts.store.address().to_owned(),
            mounted_since: rfc3339(self.opened_at),
            newest_version: base.index.id.to_string(),
            newest_version_time: rfc3339(base.index.time),
            published_version: parts.memory.get().seen.map(|seen| seen.version.to_string()),
            unrecorded_changes: self.tree().has_unrecorded(),
            unpublished_versions: waiting.versions,
            unpublished_objects: waiting.objects,
            unpublished_bytes: waiting.bytes,
            drafts: activity.drafts,
            recovered: activity.recovered,
            offline: trouble.offline.or_else(|| self.silence()),
            unrecorded: trouble.unrecorded,
            blocked: trouble.blocked,
            reencryption: trouble.reencryption,
            collected: maintained.collected,
            scrubbed: maintained.scrubbed,
            publishing_s: parts.publisher.time_left_s(&waiting).filter(|_| trouble_is_none),
            fetching: self.fetching(),
            pinned: self.pins().len(),
            pinning: self.pinning(),
            conflicts: parts.events.open_conflicts(),
            locks: parts.leases.list().iter().filter(|lock| !lock.is_stale).map(LockStatus::of).collect(),
            read_only: failure.or_else(|| self.is_read_only().then(|| "opened so".to_owned())),
            conditional_writes: parts.conditional_writes,
            writer: parts.leases.writer().filter(|_| !parts.conditional_writes),
            cache_bytes: parts.blobs.cache_bytes(),
            journal_bytes: activity.journal_bytes,
            files: base.index.counts.files,
            dirs: base.index.counts.dirs,
            bytes: base.index.counts.bytes,
        }
    }
}
