//! Locking paths.

use std::time::Duration;

use serde_json::json;

use super::background::is_away;
use super::events::Events;
use super::opened::Workspace;
use super::{Result, WorkspaceError};
use crate::sync::{LockEvent, LockInfo, SyncError, Term};
use crate::version::index::Origin;
use crate::worktree::Reason;

/// How often it is looked whether a lease has to be renewed.
const TICK_MS: u64 = 1_000;
/// How long a lock lasts that nobody renews, when nothing else is said, in milliseconds.
const UNMOUNTED_MS: u64 = 30 * 60 * 1000;
/// Locks are for at least so long, in milliseconds.
const TERM_MS_MIN: u64 = 1_000;
/// Locks are for at most so long, in milliseconds.
const TERM_MS_MAX: u64 = 30 * 24 * 3600 * 1000;

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

impl Workspace {
    /// Locks paths for this client: for so many milliseconds, or (`None`) while what runs in the background renews
    /// them, or half an hour when nothing does. With `by_force`, locks of others are broken, which the history tells.
    pub fn lock(&self, paths: &[Vec<u8>], for_ms: Option<u64>, by_force: bool) -> Result<Vec<LockInfo>> {
        self.check_writable()?;
        let term = match for_ms {
            Some(ms) => Term::For(ms.clamp(TERM_MS_MIN, TERM_MS_MAX)),
            None if self.background.is_started() => Term::Kept,
            None => Term::For(UNMOUNTED_MS),
        };
        for path in paths {
            let acquire = || self.parts.leases.acquire(path, term, by_force);
            let taken_from = match acquire() {
                Err(error) if error.is_unknown_epoch() => self.follow_epochs().and_then(|()| acquire()),
                outcome => outcome,
            }?;
            self.parts.events.note("lock", &format!("`{}` is locked here", text(path)), &[("path", json!(text(path)))]);
            let Some(holder) = taken_from.filter(|_| by_force) else { continue };
            let message = format!("broke the lock of {holder} on `{}`", text(path));
            self.parts.events.note("lock-broken", &message, &[("path", json!(text(path))), ("holder", json!(holder))]);
            self.record(Reason { origin: Origin::Snapshot, message: Some(message), tag: None, always: true })?;
            self.background.publish_now();
        }
        // Whoever locks something wants to change its newest state.
        self.pull()?;
        let locks = self.parts.leases.list();
        Ok(locks.into_iter().filter(|lock| lock.is_ours && paths.contains(&lock.path)).collect())
    }

    /// Publishes what was changed, then gives up locks of this client; says which of them had been lost before.
    pub fn unlock(&self, paths: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
        self.check_writable()?;
        let time = Duration::from_millis(self.parts.options.intervals.close_publish_ms);
        let flushed = self.flush(Some(time))?;
        if let Some(reason) = flushed.reason.filter(|_| flushed.unpublished_versions > 0) {
            return Err(WorkspaceError::NotInStore { reason });
        }
        let mut lost = Vec::new();
        for path in paths {
            if !self.parts.leases.release(path)? {
                lost.push(path.clone());
            }
        }
        Ok(lost)
    }

    /// Refuses what [`lock`](Self::lock) would refuse.
    pub fn check_free(&self, paths: &[Vec<u8>], by_force: bool) -> Result<()> {
        self.locks()?;
        Ok(paths.iter().try_for_each(|path| self.parts.leases.check_free(path, by_force))?)
    }

    /// Refuses what [`unlock`](Self::unlock) would refuse.
    pub fn check_held(&self, paths: &[Vec<u8>]) -> Result<()> {
        self.locks()?;
        Ok(paths.iter().try_for_each(|path| self.parts.leases.check_held(path))?)
    }

    /// The locks of all clients.
    pub fn locks(&self) -> Result<Vec<LockInfo>> {
        let refresh = || self.parts.leases.refresh();
        match refresh() {
            Err(error) if error.is_unknown_epoch() => self.follow_epochs().and_then(|()| refresh()),
            outcome => outcome,
        }?;
        Ok(self.parts.leases.list())
    }

    /// Where only one client may write, this one is it from now on, or nothing is opened.
    pub(super) fn become_writer(&self) -> Result<()> {
        if self.parts.conditional_writes || self.is_read_only() {
            return Ok(());
        }
        match self.parts.leases.be_writer(self.parts.options.take_over) {
            // Asked again before anything is published.
            Err(error) if is_away(&error) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    /// Gives up what was locked for as long as this is open.
    pub(super) fn release_kept(&self) {
        for path in self.parts.leases.kept() {
            if let Err(error) = self.parts.leases.release(&path) {
                tracing::warn!("the lock on `{}` lasts until it counts no more: {error}", text(&path));
            }
        }
    }

    pub(super) fn keep_leases(&self) {
        while self.background.pause(Duration::from_millis(TICK_MS)) {
            if self.parts.leases.is_idle() {
                continue;
            }
            if let Err(error) = self.parts.leases.keep_up() {
                tracing::debug!("locks cannot be renewed: {error}");
            }
        }
    }

    /// All that was changed here is published, so that locks which were lost matter no more.
    pub(super) fn settle_lost_locks(&self) -> std::result::Result<(), SyncError> {
        if !self.parts.leases.has_lost() {
            return Ok(());
        }
        let is_settled = !self.tree().has_unrecorded() && self.tree().activity().drafts == 0;
        if is_settled && self.parts.publisher.waiting()?.versions == 0 {
            self.parts.leases.forget_lost()?;
        }
        Ok(())
    }
}

impl Events {
    /// Something happened to a lock without this client's doing.
    pub(super) fn locks(&self, event: &LockEvent) {
        let (word, path, holder, message) = match event {
            LockEvent::Locked { path, holder } => {
                ("locked", path, Some(holder.clone()), format!("`{}` was locked by {holder}", text(path)))
            }
            LockEvent::Unlocked { path, holder } => {
                ("unlocked", path, Some(holder.clone()), format!("`{}` is locked by {holder} no more", text(path)))
            }
            LockEvent::Lost { path, holder } if path == b"/" => {
                let now = holder.clone().unwrap_or_default();
                ("take-over", path, holder.clone(), format!("{now} has taken over; nothing is published from here"))
            }
            LockEvent::Lost { path, holder } => {
                let now = holder.as_ref().map(|holder| format!(", and {holder} has it now")).unwrap_or_default();
                ("lock-lost", path, holder.clone(), format!("the lock on `{}` was lost{now}", text(path)))
            }
            LockEvent::Ended { path } => {
                ("unlocked", path, None, format!("the time of the lock on `{}` is over", text(path)))
            }
        };
        self.note(word, &message, &[("path", json!(text(path))), ("holder", json!(holder))]);
    }
}
