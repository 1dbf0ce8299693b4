//! Trying again: how often and how patiently, and when to leave a host alone.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::cancel::Cancel;
use super::error::{BatchError, Code, Result};
use crate::base::random;

/// Failures of a host in a row after which it is left alone for a while.
const TRIPS_AFTER: u32 = 5;
/// So often it may be left alone without a success in between; then the run stops.
const TRIPS_MAX: u32 = 3;

/// How often and how patiently one request is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Tries in all, the first included.
    pub max: u32,
    /// The wait before the second try, in milliseconds; it doubles from try to try.
    pub base_ms: u64,
    /// Longest wait, in milliseconds.
    pub cap_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max: 5, base_ms: 1000, cap_ms: 60_000 }
    }
}

impl RetryPolicy {
    /// The wait after `attempt` tries failed: between half and all of 1, 2, 4, 8 … times the base.
    pub fn delay(&self, attempt: u32) -> Duration {
        let factor = 1u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX);
        let step_ms = self.base_ms.saturating_mul(factor).min(self.cap_ms);
        Duration::from_millis(step_ms / 2 + random::number() % (step_ms / 2 + 1))
    }
}

/// Watches over one host, so that a dead server does not fail every file of a backlog.
#[derive(Default)]
pub struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    failures: u32,
    trips: u32,
    closed_until: Option<Instant>,
}

impl Breaker {
    /// Waits as long as the host is left alone; an error when it was given up, or the run cancelled.
    pub fn admit(&self, cancel: &Cancel) -> Result<()> {
        loop {
            cancel.check()?;
            let until = {
                let state = self.0.lock();
                if state.trips > TRIPS_MAX {
                    return Err(BatchError::file(Code::Network, "the host", "it was given up; resume when it is back"));
                }
                state.closed_until
            };
            let Some(wait) = until.and_then(|until| until.checked_duration_since(Instant::now())) else {
                return Ok(());
            };
            if !cancel.wait(wait) {
                return Err(BatchError::cancelled());
            }
        }
    }

    /// Whether the host was given up.
    pub fn is_given_up(&self) -> bool {
        self.0.lock().trips > TRIPS_MAX
    }

    /// Takes note of how a request ended.
    pub fn note(&self, outcome: std::result::Result<(), &BatchError>, policy: &RetryPolicy) {
        let mut state = self.0.lock();
        match outcome {
            Err(error) if error.code().is_of_host() => {
                state.failures += 1;
                if state.failures >= TRIPS_AFTER {
                    state.failures = 0;
                    state.trips += 1;
                    state.closed_until = Some(Instant::now() + policy.delay(state.trips + 2));
                    tracing::warn!(component = "breaker", trips = state.trips, "the host is left alone: {error}");
                }
            }
            Err(error) if error.code() == Code::Cancelled => {}
            _ => *state = State::default(),
        }
    }
}

/// What repeats requests to one host.
pub struct Retrier<'a> {
    /// How often and how patiently.
    pub policy: RetryPolicy,
    /// The watch over the host.
    pub breaker: &'a Breaker,
    /// Ends waits.
    pub cancel: &'a Cancel,
}

impl Retrier<'_> {
    /// Runs `act` until it succeeds, fails for good, or has failed often enough. `act` gets the number of the try.
    pub fn run<T>(&self, mut act: impl FnMut(u32) -> Result<T>) -> Result<T> {
        let mut attempt = 1;
        loop {
            self.breaker.admit(self.cancel)?;
            let outcome = act(attempt);
            self.breaker.note(outcome.as_ref().map(|_| ()), &self.policy);
            let error = match outcome {
                Ok(done) => return Ok(done),
                Err(_) if self.cancel.is_cancelled() => return Err(BatchError::cancelled()),
                Err(error) if error.code().is_retryable() && attempt < self.policy.max => error,
                Err(error) => return Err(error),
            };
            let asked = Duration::from_millis(error.wait_ms().unwrap_or(0).min(self.policy.cap_ms));
            let delay = self.policy.delay(attempt).max(asked);
            tracing::info!(component = "retry", attempt, ?delay, "trying again: {error}");
            if !self.cancel.wait(delay) {
                return Err(BatchError::cancelled());
            }
            attempt += 1;
        }
    }
}
