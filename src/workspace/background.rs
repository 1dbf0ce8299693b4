//! What runs by itself: absorbing, journaling, recording versions, publishing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::fsync::Rounds;
use super::maintain::Maintained;
use super::opened::{Trouble, Workspace};
use super::status::{Offline, rfc3339};
use crate::base::random;
use crate::store::{ObjectStore, StoreError};
use crate::sync::{Published, SyncError, read_head};
use crate::version::entry::Ino;
use crate::version::pages::Pages;
use crate::version::refs;
use crate::worktree::{Checkpoint, Reason, Wait};

/// How often the version timer looks, at most.
const TICK_MS: u64 = 250;
/// Files are closed in bursts. Absorbed together they cost less, and their bytes are in the journal.
const ABSORB_PACE_MS: u64 = 25;
/// Wait after content could not be absorbed, and at first after no version could be recorded.
const ABSORB_RETRY_MS: u64 = 2_000;
/// How often that wait doubles: every attempt to record leaves something behind until one succeeds.
const RECORD_DOUBLINGS_MAX: u32 = 4;

/// What an inode that is looked up costs in memory, about, all that belongs to it counted.
const INODE_COST_BYTES: usize = 256;
/// How often it is looked for files to hash.
const HASH_IDLE_MS: u64 = 10_000;

/// How often it is looked whether re-encryption was asked for.
const REENCRYPT_TICK_MS: u64 = 250;

/// Longest wait before a store in a directory is tried again.
const LOCAL_RETRY_MAX_MS: u64 = 2_000;

/// How long the publisher sleeps when nobody wakes it.
const IDLE_MS: u64 = 3_600_000;

/// What a thread does until it is time to end.
type Work = fn(&Workspace);

/// The threads of a workspace, and how they are woken and ended.
#[derive(Default)]
pub(super) struct Background {
    threads: Mutex<Vec<JoinHandle<()>>>,
    stopping: AtomicBool,
    /// Whether re-encryption was asked for, and at most how many bytes a second.
    reencrypt: Mutex<Option<Option<u64>>>,
    is_started: AtomicBool,
    /// Whether there is something to publish; waited for by the publisher.
    publish: Mutex<bool>,
    wake: Condvar,
    sleep: Mutex<()>,
    slept: Condvar,
    pub(super) fsyncs: Rounds,
    pub(super) maintained: Mutex<Maintained>,
}

impl Background {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Ends all threads and waits for them.
    pub(super) fn stop(&self, tree: &crate::worktree::Worktree) {
        self.stopping.store(true, Ordering::Release);
        drop(self.sleep.lock());
        self.slept.notify_all();
        self.fsyncs.stop();
        drop(self.publish.lock());
        self.wake.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            tree.wake();
            if thread.join().is_err() {
                tracing::error!("a background thread ended by a panic");
            }
        }
    }

    /// Wakes the publisher.
    pub(super) fn publish_now(&self) {
        *self.publish.lock() = true;
        self.wake.notify_all();
    }

    /// Whether anything runs.
    pub(super) fn is_started(&self) -> bool {
        self.is_started.load(Ordering::Acquire)
    }

    /// Sleeps unless it is time to end; false when it is.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let mut sleep = self.sleep.lock();
        if !self.is_stopping() {
            self.slept.wait_for(&mut sleep, time);
        }
        !self.is_stopping()
    }

    /// Waits until something shall be published, at most so long.
    fn wait_for_publish(&self, time: Duration) {
        let mut publish = self.publish.lock();
        if !*publish && !self.is_stopping() {
            self.wake.wait_for(&mut publish, time);
        }
        *publish = false;
    }
}

impl Workspace {
    /// Starts what runs in the background: absorbing, journaling, recording versions, publishing. They end with
    /// [`close`](Self::close).
    pub fn start(self: &Arc<Self>) {
        if self.is_read_only() {
            return self.spawn("kura-near", Self::keep_near);
        }
        if self.trouble.lock().offline.is_some() {
            self.parts.events.note("offline", "the store cannot be reached", &[]);
        } else if self.parts.store.is_local() {
            self.fetch_ahead();
        }
        let work: [(&str, Work); 11] = [
            ("kura-absorb", Self::keep_absorbing),
            ("kura-journal", Self::keep_journaling),
            ("kura-versions", Self::keep_recording),
            ("kura-publish", Self::keep_publishing),
            ("kura-reencrypt", Self::keep_reencrypting),
            ("kura-digests", Self::keep_hashing),
            ("kura-pull", Self::keep_pulling),
            ("kura-collect", Self::keep_collecting),
            ("kura-scrub", Self::keep_scrubbing),
            ("kura-leases", Self::keep_leases),
            ("kura-near", Self::keep_near),
        ];
        let fsyncs: Option<(&str, Work)> =
            self.fsync_waits_for_store().then_some(("kura-fsync", Self::keep_publishing_fsyncs));
        for (name, run) in work.into_iter().chain(fsyncs) {
            self.spawn(name, run);
        }
        self.background.is_started.store(true, Ordering::Release);
        self.background.publish_now();
    }

    fn spawn(self: &Arc<Self>, name: &str, run: Work) {
        let workspace = self.clone();
        match std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&workspace)) {
            Ok(thread) => self.background.threads.lock().push(thread),
            Err(error) => tracing::error!("{name} cannot be started: {error}"),
        }
    }

    fn keep_absorbing(&self) {
        while !self.background.is_stopping() {
            self.tree().wait_for_work(Duration::from_secs(1));
            self.tree().note_closed();
            if self.tree().is_calm() && !self.pause_absorbing(ABSORB_PACE_MS) {
                return;
            }
            let absorbed = self.tree().stage_ample().and(self.tree().absorb_all());
            if absorbed.is_err() && !self.pause_absorbing(ABSORB_RETRY_MS) {
                return;
            }
        }
    }

    /// Pauses, and tells the journal meanwhile what was closed; false when it is time to end.
    fn pause_absorbing(&self, time_ms: u64) -> bool {
        (0..time_ms / ABSORB_PACE_MS).all(|_| {
            let goes_on = self.background.pause(Duration::from_millis(ABSORB_PACE_MS));
            self.tree().note_closed();
            goes_on
        })
    }

    /// Hashes large files that were edited. Where that would fetch all of a file from far away, it is left.
    fn keep_hashing(&self) {
        let pause = |time: Duration| self.background.pause(time);
        while self.parts.store.is_local() && pause(Duration::from_millis(HASH_IDLE_MS)) {
            loop {
                match self.tree().hash_next(&pause) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::info!("a file is not hashed for now: {error}");
                        break;
                    }
                }
            }
        }
    }

    fn keep_journaling(&self) {
        let intervals = self.parts.options.intervals;
        let mut synced = Instant::now();
        while self.background.pause(Duration::from_millis(intervals.log_ms)) {
            if let Err(error) = self.tree().log_drafts() {
                tracing::warn!("unsaved content is only in memory for now: {error}");
            }
            self.note_silence();
            self.share_memory();
            if synced.elapsed() >= Duration::from_millis(intervals.sync_ms) {
                synced = Instant::now();
                if let Err(error) = self.tree().sync() {
                    tracing::warn!("the journal is not durable: {error}");
                }
            }
        }
    }

    /// Opened content gets the memory that inodes do not need.
    fn share_memory(&self) {
        let most = self.parts.options.memory_bytes_max;
        let inodes_cost = self.tree().known_inodes().saturating_mul(INODE_COST_BYTES);
        self.parts.blobs.limit_memory(most.saturating_sub(inodes_cost).max(most / 3));
    }

    /// A store that was found silent by anybody is asked by the publisher until it answers.
    fn note_silence(&self) {
        let Some(silence) = self.silence() else { return };
        let mut trouble = self.trouble.lock();
        if trouble.offline.is_none() && trouble.blocked.is_none() {
            tracing::warn!("{}; versions wait on this machine", silence.reason);
            self.parts.events.note("offline", &silence.reason, &[]);
            trouble.offline = Some(silence);
            drop(trouble);
            self.background.publish_now();
        }
    }

    fn keep_recording(&self) {
        let intervals = self.parts.options.intervals;
        let tick = Duration::from_millis((intervals.version_quiet_ms / 4).clamp(1, TICK_MS));
        // What was found in the journal at the start is a change, too.
        let mut recorded = None;
        let mut seen = (self.tree().activity().changes, Instant::now());
        let mut first: Option<Instant> = None;
        let mut pause = tick;
        let mut failures = 0;
        while self.background.pause(pause) {
            pause = tick;
            let activity = self.tree().activity();
            if activity.changes != seen.0 {
                seen = (activity.changes, Instant::now());
            }
            if recorded == Some(activity.changes) {
                self.bound_journal();
                if let Err(error) = self.tree().free_room() {
                    tracing::warn!("what nothing needs stays on the disk: {error}");
                }
                first = None;
                continue;
            }
            let first_at = *first.get_or_insert_with(Instant::now);
            let is_due = seen.1.elapsed() >= Duration::from_millis(intervals.version_quiet_ms)
                || first_at.elapsed() >= Duration::from_millis(intervals.version_max_ms)
                || activity.journal_bytes > self.parts.options.limits.journal_bytes_max
                // What is not in a version cannot leave memory.
                || activity.inodes > self.parts.options.limits.inodes_max.saturating_mul(2);
            if !is_due {
                continue;
            }
            match self.checkpoint(&Reason::automatic()) {
                Ok(outcome) => {
                    self.trouble.lock().unrecorded = None;
                    (recorded, first, failures) = (Some(activity.changes), None, 0);
                    match outcome {
                        Checkpoint::Recorded(_) => self.background.publish_now(),
                        Checkpoint::Unchanged => self.bound_journal(),
                    }
                }
                Err(error) => {
                    let note = Offline { since: rfc3339(self.parts.options.clock.now()), reason: error.to_string() };
                    let mut trouble = self.trouble.lock();
                    match &mut trouble.unrecorded {
                        Some(unrecorded) => unrecorded.reason = note.reason,
                        unrecorded => {
                            tracing::warn!("no version can be recorded for now: {error}");
                            *unrecorded = Some(note);
                        }
                    }
                    drop(trouble);
                    pause = Duration::from_millis(ABSORB_RETRY_MS << failures);
                    failures = RECORD_DOUBLINGS_MAX.min(failures + 1);
                }
            }
        }
    }

    /// Reads the names at the top and the refs pages that the next version changes: pages of a local store are not kept
    /// on disk a second time, and with these in memory work goes on also when the store goes away before the first
    /// version.
    fn fetch_ahead(&self) {
        let base = self.tree().base();
        if let Err(error) = refs::lists(&base.refs, &Pages(&self.parts.blobs), base.index.id) {
            tracing::info!("the list of versions cannot be read for now: {error}");
        }
        if let Err(error) = self.tree().is_empty_dir(Ino::ROOT, Wait::Yes) {
            tracing::info!("the names at the top cannot be read for now: {error}");
        }
    }

    /// Cuts a journal that only drafts have made long.
    fn bound_journal(&self) {
        if self.tree().activity().journal_bytes > self.parts.options.limits.journal_bytes_max
            && let Err(error) = self.tree().compact()
        {
            tracing::warn!("the journal stays longer than it should be: {error}");
        }
    }

    fn keep_publishing(&self) {
        let intervals = self.parts.options.intervals;
        let mut failures = u32::from(self.trouble.lock().offline.is_some());
        let mut wait = Duration::from_millis(if failures > 0 { intervals.retry_first_ms } else { IDLE_MS });
        while !self.background.is_stopping() {
            match failures {
                0 => self.background.wait_for_publish(wait),
                // Not woken by new versions: the store is left in peace.
                _ if !self.background.pause(wait) => return,
                _ => {}
            }
            if self.background.is_stopping() {
                return;
            }
            match self.publish(&|| self.background.is_stopping()) {
                Ok(_) => (failures, wait) = (0, Duration::from_millis(IDLE_MS)),
                Err(error) => {
                    if failures == 0 && !matches!(error, SyncError::Stopped) {
                        tracing::warn!("nothing is published for now: {error}");
                    }
                    failures = failures.saturating_add(1);
                    let step_ms = match is_away(&error) {
                        true => intervals.retry_first_ms.saturating_mul(1 << failures.min(20).saturating_sub(1)),
                        false => intervals.retry_max_ms,
                    };
                    // A directory is asked often: that costs nothing.
                    let max_ms = if self.parts.store.is_local() { LOCAL_RETRY_MAX_MS } else { u64::MAX };
                    let step_ms = step_ms.min(intervals.retry_max_ms).min(max_ms).max(1);
                    wait = Duration::from_millis(step_ms / 2 + random::number() % (step_ms / 2 + 1));
                }
            }
        }
    }

    /// Re-encrypts in the background, at most so many bytes a second; `status` tells how far it is. False when nothing
    /// runs in the background.
    pub fn reencrypt_in_background(&self, bytes_per_second: Option<u64>) -> bool {
        let is_started = self.background.is_started();
        if is_started {
            *self.background.reencrypt.lock() = Some(bytes_per_second);
        }
        is_started
    }

    fn keep_reencrypting(&self) {
        while self.background.pause(Duration::from_millis(REENCRYPT_TICK_MS)) {
            let Some(limit) = self.background.reencrypt.lock().take() else { continue };
            let tell = |text: String| self.trouble.lock().reencryption = Some(text);
            tell("it begins".to_owned());
            let outcome = self.reencrypt(limit, &|| self.background.is_stopping(), &mut |done| {
                tell(format!(
                    "{} of {} objects looked at, {} bytes written",
                    done.objects, done.objects_total, done.bytes
                ));
            });
            match outcome {
                Ok(done) => tell(format!(
                    "done: {} bytes written, {} objects are not referred to any more",
                    done.bytes,
                    done.unreferred.len()
                )),
                Err(error) => {
                    tracing::warn!("re-encryption stopped and can be asked for again: {error}");
                    tell(format!("stopped, ask again: {error}"));
                }
            }
        }
    }

    /// Looks at the start and every now and then whether others have published something.
    fn keep_pulling(&self) {
        let poll_ms = self.parts.options.intervals.poll_ms.max(1);
        loop {
            if let Err(error) = self.pull() {
                tracing::debug!("what others published is not known: {error}");
            }
            // Not all clients at the same moment.
            let wait_ms = poll_ms - poll_ms / 8 + random::number() % (poll_ms / 4 + 1);
            if !self.background.pause(Duration::from_millis(wait_ms)) {
                return;
            }
        }
    }

    /// Takes in what others published; false when there is nothing.
    pub fn pull(&self) -> Result<bool, SyncError> {
        if self.is_read_only() {
            return Ok(false);
        }
        let attempt = || {
            self.parts.leases.refresh()?;
            self.parts.publisher.pull_once()
        };
        let outcome = match attempt() {
            Err(error) if error.is_unknown_epoch() => self.follow_epochs().and_then(|()| attempt()),
            outcome => outcome,
        };
        self.tell_settled();
        match &outcome {
            Ok(has_joined) => {
                self.trouble.lock().offline = None;
                if *has_joined {
                    self.background.publish_now();
                }
            }
            Err(error) => self.note_trouble(error),
        }
        outcome
    }

    fn note_trouble(&self, error: &SyncError) {
        let note = Offline { since: rfc3339(self.parts.options.clock.now()), reason: error.to_string() };
        if self.trouble.lock().note(error, note) {
            self.parts.events.trouble(error);
        }
    }

    /// Publishes once, and keeps what `status` shows true.
    pub(super) fn publish(&self, stop: &dyn Fn() -> bool) -> Result<Published, SyncError> {
        if self.is_read_only() {
            return Ok(Published::default());
        }
        let is_troubled = { self.trouble.lock().offline.is_some() };
        let attempt = || -> Result<Published, SyncError> {
            let published = self.parts.publisher.publish_once(stop)?;
            self.settle_lost_locks()?;
            // Without anything to publish the store was not asked whether it is back.
            if published.version.is_none() && is_troubled {
                read_head(&*self.parts.store, &self.parts.keys)?;
            }
            Ok(published)
        };
        let outcome = match attempt() {
            Err(error) if error.is_unknown_epoch() => self.follow_epochs().and_then(|()| attempt()),
            outcome => outcome,
        };
        if outcome.as_ref().is_ok_and(|published| published.versions > 0)
            && let Err(error) = self.parts.publisher.drop_unneeded()
        {
            tracing::warn!("objects that nothing needs stay in the outbox: {error}");
        }
        match &outcome {
            Ok(_) => {
                let mut trouble = self.trouble.lock();
                let (unrecorded, reencryption) = (trouble.unrecorded.take(), trouble.reencryption.take());
                *trouble = Trouble { unrecorded, reencryption, ..Trouble::default() };
            }
            Err(SyncError::Stopped) => {}
            Err(error) => self.note_trouble(error),
        }
        outcome
    }
}

/// Whether the store may come back by itself.
pub(super) fn is_away(error: &SyncError) -> bool {
    match error {
        SyncError::Store(error) => error.is_transient() || matches!(error, StoreError::NoStore { .. }),
        SyncError::Contended { .. } => true,
        _ => false,
    }
}

impl Trouble {
    /// Notes what an attempt met; true when it is another kind of trouble than before.
    fn note(&mut self, error: &SyncError, note: Offline) -> bool {
        let (now, other) = match is_away(error) {
            true => (&mut self.offline, &mut self.blocked),
            false => (&mut self.blocked, &mut self.offline),
        };
        *other = None;
        match now {
            Some(now) => {
                now.reason = note.reason;
                false
            }
            None => now.replace(note).is_none(),
        }
    }
}
