//! Syncing files: on this machine or, by option, up to the store.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::opened::Workspace;
use super::options::Fsync;
use super::{Result, WorkspaceError};
use crate::version::entry::Ino;
use crate::worktree::{Reason, Wait};

/// Publishing for those who wait for it: all who ask while a round is under way share the next.
#[derive(Default)]
pub(super) struct Rounds {
    state: Mutex<State>,
    asked: Condvar,
    ended: Condvar,
}

/// Rounds are numbered from 1.
#[derive(Default)]
struct State {
    asked: u64,
    started: u64,
    ended: u64,
    succeeded: u64,
    /// Why the last round that failed did.
    reason: Option<String>,
    is_stopping: bool,
}

impl Rounds {
    /// Waits for a round that begins from now on.
    fn wait(&self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        let mut state = self.state.lock();
        let round = state.started + 1;
        state.asked = state.asked.max(round);
        self.asked.notify_one();
        while state.succeeded < round {
            let is_late = state.ended < round && self.ended.wait_until(&mut state, end).timed_out();
            if state.succeeded < round && (is_late || state.ended >= round || state.is_stopping) {
                let reason = state.reason.clone().unwrap_or_else(|| "the store did not answer in time".to_owned());
                return Err(WorkspaceError::NotInStore { reason });
            }
        }
        Ok(())
    }

    /// Works off rounds until it is time to end.
    fn run(&self, work: impl Fn() -> std::result::Result<(), String>) {
        let mut state = self.state.lock();
        while !state.is_stopping {
            if state.asked <= state.started {
                self.asked.wait(&mut state);
                continue;
            }
            state.started = state.asked;
            drop(state);
            let outcome = work();
            state = self.state.lock();
            state.ended = state.started;
            match outcome {
                Ok(()) => state.succeeded = state.ended,
                Err(reason) => state.reason = Some(reason),
            }
            self.ended.notify_all();
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().is_stopping = true;
        self.asked.notify_all();
        self.ended.notify_all();
    }
}

impl Workspace {
    /// Whether an fsync waits for the store.
    pub fn fsync_waits_for_store(&self) -> bool {
        self.parts.options.fsync == Fsync::Store && !self.is_read_only()
    }

    /// Publishes a file's content in the live tree and makes it durable: here or, where the workspace was opened so,
    /// in the store, for which [`start`](Self::start) must have been called.
    pub fn fsync(&self, ino: Ino) -> Result<()> {
        self.tree().fsync(ino, Wait::Yes)?;
        self.wait_for_store()
    }

    /// Makes all names durable, as [`fsync`](Self::fsync) does content.
    pub fn fsync_dir(&self) -> Result<()> {
        self.tree().sync()?;
        self.wait_for_store()
    }

    fn wait_for_store(&self) -> Result<()> {
        if !self.fsync_waits_for_store() {
            return Ok(());
        }
        self.background.fsyncs.wait(Duration::from_millis(self.parts.options.intervals.fsync_publish_ms))
    }

    pub(super) fn keep_publishing_fsyncs(&self) {
        let limit = Duration::from_millis(self.parts.options.intervals.fsync_publish_ms);
        self.background.fsyncs.run(|| {
            self.checkpoint(&Reason::automatic()).map_err(|error| error.to_string())?;
            self.publish_within(limit).map_or(Ok(()), |error| Err(error.to_string()))
        });
    }
}
