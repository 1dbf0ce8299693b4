//! Channels: which versions are offered to whom, when, and how far a rollout is.

use std::collections::BTreeMap;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use semver::Version;
use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::error::{ReleaseError, Result};
use super::package::{Package, UpdateType};
use crate::base::clock::Timestamp;

/// Everybody, in parts of ten thousand.
pub const EVERYBODY: u32 = 10_000;

/// A channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// What it offers, by package, oldest first.
    #[serde(default)]
    pub packages: BTreeMap<String, Vec<Offer>>,
    /// The least security epoch of each package.
    #[serde(default)]
    pub min_epoch: BTreeMap<String, u32>,
    /// When installs may begin; at any time when empty.
    #[serde(default)]
    pub windows: Vec<Window>,
}

/// A version that a channel offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The version.
    pub version: Version,
    /// How many clients get it by themselves, in parts of ten thousand.
    pub bps: u32,
    /// Rings of which every client gets it.
    #[serde(default)]
    pub rings: Vec<String>,
    /// Whether nobody gets it for now.
    #[serde(default)]
    pub paused: bool,
    /// Whether phase and window do not hold it back.
    #[serde(default)]
    pub emergency: bool,
    /// Why it was taken back, if it was; who has it goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
    /// How it goes on.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Since when it is at this step: RFC 3339.
    pub since: String,
}

/// A step of a rollout, and what leads out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// How many clients get it, in parts of ten thousand.
    pub bps: u32,
    /// Fewer reports decide nothing.
    pub min_samples: u32,
    /// Shorter than this decides nothing but an abort.
    pub min_soak_s: u64,
    /// With at least so many successes in ten thousand reports it goes on.
    pub success_bps_min: u32,
    /// With more failures and rollbacks than this it is taken back.
    pub failures_max: u32,
}

/// A time of the week in which installs may begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// A time zone, as `Europe/Berlin`.
    pub tz: String,
    /// `mon` to `sun`; every day when empty.
    #[serde(default)]
    pub days: Vec<String>,
    /// From, as `22:00`. In the gap of a change to summer time, it is shifted forward.
    pub start: String,
    /// To; earlier than `start`, it is on the next day.
    pub end: String,
}

/// Why a version is not installed by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum Withheld {
    /// The client's turn has not come.
    #[error("not in phase: bucket {bucket} of {EVERYBODY}, and {bps} have it")]
    NotInPhase {
        /// The client's.
        bucket: u32,
        /// The rollout's.
        bps: u32,
    },
    /// It is not the time.
    #[error("outside of the release window")]
    OutsideWindow,
    /// The rollout is paused.
    #[error("the rollout is paused")]
    Paused,
    /// It was taken back.
    #[error("revoked: {why}")]
    Revoked {
        /// Why.
        why: String,
    },
    /// It failed here before.
    #[error("it failed here before: {why}")]
    Denylisted {
        /// Why.
        why: String,
    },
    /// Its security epoch is too low.
    #[error("its security epoch {epoch} is below {least}")]
    EpochTooLow {
        /// Its own.
        epoch: u32,
        /// What the channel asks for.
        least: u32,
    },
    /// It cannot be installed over what is there.
    #[error("it is for {from}, and {installed} is installed")]
    Incompatible {
        /// What it is for.
        from: String,
        /// What is there.
        installed: String,
    },
    /// Another version has to be installed first.
    #[error("{version} has to be installed first: {why}")]
    BelowFloor {
        /// Which.
        version: String,
        /// Why.
        why: String,
    },
    /// The user wants another version.
    #[error("pinned to {version}")]
    Pinned {
        /// Which.
        version: String,
    },
    /// The user does not want it.
    #[error("skipped by the user")]
    Skipped,
}

/// The client's place in the rollout of one version: 0 to 9,999. Another version puts others first.
pub fn bucket(package: &str, version: &Version, client: &str) -> u32 {
    let digest = sha2::Sha256::digest(format!("phase|{package}|{version}|{client}"));
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u32::try_from(u64::from_be_bytes(first) % u64::from(EVERYBODY)).unwrap_or(0)
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// What its buckets are drawn from.
    pub id: &'a str,
    /// Its ring.
    pub ring: Option<&'a str>,
}

impl Channel {
    /// Reads a signed channel.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self> {
        let bad = |reason: String| ReleaseError::Damaged { object: format!("channel `{name}`"), reason };
        let channel: Channel = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        if channel.name != name {
            return Err(bad(format!("it says that it is `{}`", channel.name)));
        }
        channel.windows.iter().try_for_each(|window| window.parse().map(|_| ()).map_err(bad))?;
        Ok(channel)
    }

    /// The offer of a version.
    pub fn offer(&self, package: &str, version: &Version) -> Option<&Offer> {
        self.packages.get(package)?.iter().find(|offer| offer.version == *version)
    }

    /// Whether the rollout leaves a version to a client now; signature, compatibility and epoch are other matters.
    pub fn turn(&self, package: &Package, client: Client<'_>, now: Timestamp) -> std::result::Result<(), Withheld> {
        let Some(offer) = self.offer(&package.name, &package.version) else {
            return Err(Withheld::Revoked { why: "the channel does not offer it".to_owned() });
        };
        if let Some(why) = &offer.revoked {
            return Err(Withheld::Revoked { why: why.clone() });
        }
        let least = self.min_epoch.get(&package.name).copied().unwrap_or(0);
        if package.security_epoch < least {
            return Err(Withheld::EpochTooLow { epoch: package.security_epoch, least });
        }
        if offer.paused {
            return Err(Withheld::Paused);
        }
        if offer.emergency || package.update_type == UpdateType::Security {
            return Ok(());
        }
        let bucket = bucket(&package.name, &package.version, client.id);
        let in_ring = client.ring.is_some_and(|ring| offer.rings.iter().any(|known| known == ring));
        if !in_ring && bucket >= offer.bps {
            return Err(Withheld::NotInPhase { bucket, bps: offer.bps });
        }
        if !self.windows.is_empty() && !self.windows.iter().any(|window| window.is_open(now)) {
            return Err(Withheld::OutsideWindow);
        }
        Ok(())
    }
}

impl Window {
    fn parse(&self) -> std::result::Result<(TimeZone, Vec<Weekday>, Time, Time), String> {
        let zone = TimeZone::get(&self.tz).map_err(|_| format!("there is no time zone `{}`", self.tz))?;
        let day = |day: &String| match day.as_str() {
            "mon" => Ok(Weekday::Monday),
            "tue" => Ok(Weekday::Tuesday),
            "wed" => Ok(Weekday::Wednesday),
            "thu" => Ok(Weekday::Thursday),
            "fri" => Ok(Weekday::Friday),
            "sat" => Ok(Weekday::Saturday),
            "sun" => Ok(Weekday::Sunday),
            _ => Err(format!("`{day}` is no day from `mon` to `sun`")),
        };
        let days = self.days.iter().map(day).collect::<std::result::Result<_, _>>()?;
        let time = |text: &str| text.parse::<Time>().map_err(|_| format!("`{text}` is no time of the day"));
        Ok((zone, days, time(&self.start)?, time(&self.end)?))
    }

    /// Whether installs may begin now. A window that begins in the gap of a change to summer time begins after it; of
    /// a time that comes twice, the first counts.
    pub fn is_open(&self, now: Timestamp) -> bool {
        let Ok((zone, days, start, end)) = self.parse() else { return false };
        let Ok(now) = jiff::Timestamp::from_nanosecond(i128::from(now.unix_ns())) else { return false };
        let today = now.to_zoned(zone.clone()).date();
        // One that began yesterday may reach into today.
        [Some(today), today.yesterday().ok()].into_iter().flatten().any(|date| {
            if !days.is_empty() && !days.contains(&date.weekday()) {
                return false;
            }
            let last = if end > start { Some(date) } else { date.tomorrow().ok() };
            let at = |date: jiff::civil::Date, time: Time| zone.to_zoned(date.to_datetime(time)).ok();
            let (from, to) = (at(date, start), last.and_then(|last| at(last, end)));
            matches!((from, to), (Some(from), Some(to)) if from.timestamp() <= now && now < to.timestamp())
        })
    }
}
