//! Which version a text means.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Zoned};

use super::Result;
use super::opened::Workspace;
use crate::base::clock::Timestamp;
use crate::base::ids::VersionId;
use crate::version::VersionError;
use crate::version::refs::Listed;

/// Fewer digits of an id select nothing.
const DIGITS_MIN: usize = 4;

impl Workspace {
    /// The version a text selects: `latest`, `latest~N`, a tag, an id or its first digits (at least 4), a time
    /// (`2026-11-21T10:00[:00][Z|±hh:mm]`, local without a zone; the newest version not after it), `10m ago`,
    /// `2h ago`, `3d ago`, `yesterday`.
    pub fn select(&self, selector: &str) -> Result<VersionId> {
        let versions = self.versions()?;
        Ok(select(&versions, selector.trim(), self.parts.options.clock.now(), &TimeZone::system())?)
    }
}

/// Whether a text selects by time.
pub fn is_time(text: &str) -> bool {
    time(text, Timestamp::from_unix_ns(0), &TimeZone::UTC).is_some()
}

/// Whether a text would, or could, select something else than the version that has it for its name.
pub(super) fn is_reserved(name: &str) -> bool {
    let is_id = name.len() >= DIGITS_MIN && name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    name.starts_with("latest") || is_id || is_time(name)
}

/// Selects from `versions` (newest first).
fn select(
    versions: &[Listed],
    selector: &str,
    now: Timestamp,
    zone: &TimeZone,
) -> std::result::Result<VersionId, VersionError> {
    let none = || VersionError::NoSuchVersion { selector: selector.to_owned() };
    if let Some(back) = selector.strip_prefix("latest") {
        let back = match back {
            "" => 0,
            back => back.strip_prefix('~').and_then(|count| count.parse().ok()).ok_or_else(none)?,
        };
        return versions.get(back).map(|version: &Listed| version.id).ok_or_else(none);
    }
    if let Some(tagged) = versions.iter().find(|version| version.tags.iter().any(|tag| tag == selector)) {
        return Ok(tagged.id);
    }
    if let Some(time) = time(selector, now, zone) {
        let not_after = versions.iter().find(|version| version.summary.time <= time);
        return not_after.map(|version| version.id).ok_or_else(none);
    }
    by_digits(versions, selector)?.ok_or_else(none)
}

fn by_digits(versions: &[Listed], selector: &str) -> std::result::Result<Option<VersionId>, VersionError> {
    let plain = |text: &str| text.replace('-', "").to_ascii_lowercase();
    let wanted = plain(selector);
    if wanted.len() < DIGITS_MIN || !wanted.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let mut matching =
        versions.iter().map(|version| version.id).filter(|id| plain(&id.to_string()).starts_with(&wanted));
    match (matching.next(), matching.next()) {
        (Some(first), Some(second)) => Err(VersionError::Ambiguous { selector: selector.to_owned(), first, second }),
        (first, _) => Ok(first),
    }
}

/// The moment a text means, if it is a time.
fn time(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    // As `log` prints it, a space stands before the offset.
    let joined = text.rsplit_once(' ').filter(|(_, zone)| zone.starts_with(['+', '-']));
    let joined = joined.map(|(time, zone)| format!("{time}{zone}"));
    let text = joined.as_deref().unwrap_or(text);
    let now = jiff::Timestamp::from_nanosecond(i128::from(now.unix_ns())).ok()?.to_zoned(zone.clone());
    let zoned = if text == "yesterday" {
        now.checked_sub(Span::new().days(1)).ok()?
    } else if let Some(age) = text.strip_suffix("ago") {
        ago(age.trim(), &now)?
    } else if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        moment.to_zoned(zone.clone())
    } else {
        // A date alone is four digits and more, too, but no id has hyphens there.
        text.contains('-').then(|| text.parse::<DateTime>().ok())??.to_zoned(zone.clone()).ok()?
    };
    // A time means all of its last digit's unit: a version knows nanoseconds, and few write them.
    let digits = text.split_once('.').map_or("", |(_, rest)| rest);
    let digits = digits.bytes().take(9).take_while(u8::is_ascii_digit).count();
    let is_relative = text.ends_with("ago") || text == "yesterday";
    let whole = if is_relative { 0 } else { (digits..9).fold(1, |unit, _| unit * 10) - 1 };
    let time = zoned.timestamp().as_nanosecond();
    let time = i64::try_from(time).unwrap_or(if time < 0 { i64::MIN } else { i64::MAX });
    Some(Timestamp::from_unix_ns(time.saturating_add(whole)))
}

/// `10m`, `2h`, `3d`, `45s`, `1w` before now.
fn ago(age: &str, now: &Zoned) -> Option<Zoned> {
    let split = age.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = age.split_at(split);
    let count: i64 = count.parse().ok().filter(|count| *count <= 1_000_000)?;
    let span = match unit.trim() {
        "s" | "sec" | "second" | "seconds" => Span::new().try_seconds(count),
        "m" | "min" | "minute" | "minutes" => Span::new().try_minutes(count),
        "h" | "hour" | "hours" => Span::new().try_hours(count),
        "d" | "day" | "days" => Span::new().try_days(count),
        "w" | "week" | "weeks" => Span::new().try_weeks(count),
        _ => return None,
    };
    now.checked_sub(span.ok()?).ok()
}
