//! The phases of an operation: spans, times, counters.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

/// A step of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Reading the lock file.
    Lock,
    /// Reading the profile.
    Manifest,
    /// Finding out what to do, and every conflict.
    Plan,
    /// Storing content, and comparing its digests.
    Copy,
    /// Making the version.
    Commit,
}

const PHASES: [Phase; 5] = [Phase::Lock, Phase::Manifest, Phase::Plan, Phase::Copy, Phase::Commit];

impl Phase {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Lock => "reading the lock file",
            Phase::Manifest => "reading the profile",
            Phase::Plan => "planning",
            Phase::Copy => "storing files",
            Phase::Commit => "recording the version",
        }
    }

    fn index(self) -> usize {
        PHASES.iter().position(|phase| *phase == self).unwrap_or(0)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

static DONE: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);
static FILES: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static SIDECARS: AtomicU64 = AtomicU64::new(0);
static RUNS: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];
static TIMES_NS: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

/// What this process has done to profiles since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Operations that were done.
    pub done: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Files stored.
    pub files: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Sidecars made.
    pub sidecars: u64,
    /// Of each phase: its word, how often it ran, and how long in all, in nanoseconds.
    pub phases: Vec<(&'static str, u64, u64)>,
}

/// What this process has done to profiles since it began.
pub fn counters() -> Counters {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let phases = PHASES.iter().map(|phase| {
        let index = phase.index();
        (phase.word(), get(&RUNS[index]), get(&TIMES_NS[index]))
    });
    Counters {
        done: get(&DONE),
        failed: get(&FAILED),
        files: get(&FILES),
        bytes: get(&BYTES),
        sidecars: get(&SIDECARS),
        phases: phases.collect(),
    }
}

/// Runs a phase inside a span of its own.
pub fn phase<T>(phase: Phase, run: impl FnOnce() -> T) -> T {
    let _span = tracing::info_span!("phase", phase = phase.word()).entered();
    let start = Instant::now();
    let outcome = run();
    let index = phase.index();
    RUNS[index].fetch_add(1, Ordering::Relaxed);
    TIMES_NS[index].fetch_add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    outcome
}

/// Counts how an operation ended.
pub fn count<T, E: fmt::Display>(outcome: &Result<T, E>) {
    match outcome {
        Ok(_) => {
            DONE.fetch_add(1, Ordering::Relaxed);
            tracing::info!("done");
        }
        Err(error) => {
            FAILED.fetch_add(1, Ordering::Relaxed);
            tracing::info!("failed: {error}");
        }
    }
}

/// Counts files that were stored.
pub fn count_stored(files: u64, bytes: u64, sidecars: u64) {
    FILES.fetch_add(files, Ordering::Relaxed);
    BYTES.fetch_add(bytes, Ordering::Relaxed);
    SIDECARS.fetch_add(sidecars, Ordering::Relaxed);
}
