//! Time as a parameter, so that tests can hold it still.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point in time: nanoseconds since the Unix epoch, negative before it.
///
/// The range is the years 1677 to 2262; file times outside of it are clamped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From nanoseconds since the Unix epoch.
    pub const fn from_unix_ns(unix_ns: i64) -> Self {
        Self(unix_ns)
    }

    /// From whole seconds and the nanoseconds after them, clamped to the range.
    pub fn from_parts(seconds: i64, nanoseconds: u32) -> Self {
        let unix_ns = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Self(i64::try_from(unix_ns).unwrap_or(if unix_ns < 0 { i64::MIN } else { i64::MAX }))
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn unix_ns(self) -> i64 {
        self.0
    }

    /// Whole seconds (rounded down) and the nanoseconds after them.
    pub fn parts(self) -> (i64, u32) {
        let nanoseconds = u32::try_from(self.0.rem_euclid(1_000_000_000)).unwrap_or(0);
        (self.0.div_euclid(1_000_000_000), nanoseconds)
    }

    /// From the standard library's clock type.
    pub fn from_system(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(i64::try_from(after.as_nanos()).unwrap_or(i64::MAX)),
            Err(before) => Self(i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns)),
        }
    }

    /// To the standard library's clock type.
    pub fn to_system(self) -> SystemTime {
        let distance = std::time::Duration::from_nanos(self.0.unsigned_abs());
        if self.0 >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
    }
}

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// The present moment, as far as the machine knows it.
    fn now(&self) -> Timestamp;

    /// Time since some moment in the past, whatever the wall clock is set to.
    fn elapsed(&self) -> Duration;
}

/// The moment from which this process counts.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The machine's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        Timestamp::from_system(SystemTime::now())
    }

    fn elapsed(&self) -> Duration {
        START.elapsed()
    }
}

/// A clock that moves only when told to; every reading of the wall time is one nanosecond after the one before.
#[derive(Debug)]
pub struct ManualClock {
    unix_ns: AtomicI64,
    elapsed_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self { unix_ns: AtomicI64::new(start.0), elapsed_ms: AtomicU64::new(0) }
    }

    /// Lets time pass.
    pub fn advance_ms(&self, milliseconds: i64) {
        self.set_ms(milliseconds);
        self.elapsed_ms.fetch_add(u64::try_from(milliseconds).unwrap_or(0), Ordering::SeqCst);
    }

    /// Puts the wall time forward or back, without any time passing.
    pub fn set_ms(&self, milliseconds: i64) {
        self.unix_ns.fetch_add(milliseconds * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.unix_ns.fetch_add(1, Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms.load(Ordering::SeqCst))
    }
}
