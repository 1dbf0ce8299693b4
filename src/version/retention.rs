//! Which versions a retention policy keeps.
//!
//! The rules are those that restic made known. Versions are looked at from the newest to the oldest. `last` keeps so
//! many. `hourly` keeps, of each of the last so many hours that have versions, the newest one; `daily`, `weekly` (ISO
//! 8601), `monthly` and `yearly` likewise, by the calendar of the local time zone. `within_s` keeps what is at most so
//! much older than the newest version. `tags` keeps what is named so. A version that any rule keeps is kept. The newest
//! version and every named one are kept whatever the rules say.

use jiff::Zoned;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::refs::Listed;
use crate::base::ids::VersionId;

/// How many versions of which sort are kept; 0 for a rule that is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// The newest.
    pub last: u32,
    /// The newest of each of so many hours.
    pub hourly: u32,
    /// The newest of each of so many days.
    pub daily: u32,
    /// The newest of each of so many weeks.
    pub weekly: u32,
    /// The newest of each of so many months.
    pub monthly: u32,
    /// The newest of each of so many years.
    pub yearly: u32,
    /// All that are at most so many seconds older than the newest.
    pub within_s: u64,
    /// All with one of these names.
    pub tags: Vec<String>,
}

/// Why a version is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// It is the newest.
    Newest,
    /// It has a name.
    Named,
    /// By `last`.
    Last,
    /// By `hourly`.
    Hourly,
    /// By `daily`.
    Daily,
    /// By `weekly`.
    Weekly,
    /// By `monthly`.
    Monthly,
    /// By `yearly`.
    Yearly,
    /// By `within_s`.
    Within,
    /// By `tags`.
    Tag,
}

impl Keep {
    /// The word that stands in listings.
    pub fn word(self) -> &'static str {
        match self {
            Keep::Newest => "newest",
            Keep::Named => "named",
            Keep::Last => "last",
            Keep::Hourly => "hourly",
            Keep::Daily => "daily",
            Keep::Weekly => "weekly",
            Keep::Monthly => "monthly",
            Keep::Yearly => "yearly",
            Keep::Within => "within",
            Keep::Tag => "tag",
        }
    }
}

/// A version, and why it is kept; for no reason, when it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The version.
    pub version: VersionId,
    /// The reasons.
    pub reasons: Vec<Keep>,
}

impl Retention {
    /// Whether there is no rule at all. Such a policy would forget everything that has no name, and is refused.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What becomes of `versions` (newest first), by the calendar of a time zone.
    pub fn judge(&self, versions: &[Listed], zone: &TimeZone) -> Vec<Verdict> {
        let mut periods = [
            Period::new(Keep::Hourly, self.hourly),
            Period::new(Keep::Daily, self.daily),
            Period::new(Keep::Weekly, self.weekly),
            Period::new(Keep::Monthly, self.monthly),
            Period::new(Keep::Yearly, self.yearly),
        ];
        let newest_ns = versions.first().map_or(0, |version| version.summary.time.unix_ns());
        let within_ns = i64::try_from(u128::from(self.within_s) * 1_000_000_000).unwrap_or(i64::MAX);
        let judge = |(number, version): (usize, &Listed)| {
            let time = version.summary.time;
            let mut reasons = Vec::new();
            reasons.extend((number == 0).then_some(Keep::Newest));
            reasons.extend((!version.tags.is_empty()).then_some(Keep::Named));
            reasons.extend((number < self.last as usize).then_some(Keep::Last));
            let zoned = jiff::Timestamp::from_nanosecond(i128::from(time.unix_ns())).unwrap_or_default();
            let zoned = zoned.to_zoned(zone.clone());
            reasons.extend(periods.iter_mut().filter_map(|period| period.keeps(&zoned).then_some(period.keep)));
            let is_within = self.within_s > 0 && newest_ns.saturating_sub(time.unix_ns()) <= within_ns;
            reasons.extend(is_within.then_some(Keep::Within));
            reasons.extend(version.tags.iter().any(|tag| self.tags.contains(tag)).then_some(Keep::Tag));
            Verdict { version: version.id, reasons }
        };
        versions.iter().enumerate().map(judge).collect()
    }
}

/// A rule for periods of the calendar.
struct Period {
    keep: Keep,
    left: u32,
    last: Option<(i16, i16)>,
}

impl Period {
    fn new(keep: Keep, count: u32) -> Self {
        Self { keep, left: count, last: None }
    }

    fn keeps(&mut self, time: &Zoned) -> bool {
        let hours = time.day_of_year() * 24 + i16::from(time.hour());
        let period = match self.keep {
            Keep::Hourly => (time.year(), hours),
            Keep::Daily => (time.year(), time.day_of_year()),
            Keep::Weekly => {
                let week = time.date().iso_week_date();
                (week.year(), i16::from(week.week()))
            }
            Keep::Monthly => (time.year(), i16::from(time.month())),
            _ => (time.year(), 0),
        };
        if self.left == 0 || self.last == Some(period) {
            return false;
        }
        (self.left, self.last) = (self.left - 1, Some(period));
        true
    }
}
