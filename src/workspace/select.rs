//! Which version a text means.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Zoned};

use super::Result;
use super::opened::Workspace;
use crate::base::clock::Timestamp;
use crate::base::ids::VersionId;
use crate::version::VersionError;
use crate::version::refs;
use crate::version::tree::{PageIo, TreeRef};

/// Fewer digits of an id select nothing.
const DIGITS_MIN: usize = 4;

impl Workspace {
    /// The version a text selects: `latest`, `latest~N`, a tag, an id or its first digits (at least 4), a time
    /// (`2026-11-21T10:00[:00][Z|±hh:mm]`, local without a zone; the newest version not after it), `10m ago`,
    /// `2h ago`, `3d ago`, `yesterday`.
    pub fn select(&self, selector: &str) -> Result<VersionId> {
        let selector = selector.trim();
        let none = || VersionError::NoSuchVersion { selector: selector.to_owned() };
        if let Some(back) = selector.strip_prefix("latest") {
            let back = match back {
                "" => 0,
                back => back.strip_prefix('~').and_then(|count| count.parse().ok()).ok_or_else(none)?,
            };
            let version = self.newest_first()?.nth(back).ok_or_else(none)?;
            return Ok(version?.id);
        }
        let (refs, pages) = (self.tree().base().refs, self.pages());
        if let Some(tagged) = refs::tagged(&refs, &*pages, selector)?
            && refs::lists(&refs, &*pages, tagged)?
        {
            return Ok(tagged);
        }
        if let Some(time) = time(selector, self.parts.options.clock.now(), &TimeZone::system()) {
            let is_after = |version: &refs::Listed| version.summary.time > time;
            let mut history = self.newest_first()?;
            let found = history.find(|version| !version.as_ref().is_ok_and(is_after)).ok_or_else(none)?;
            return Ok(found?.id);
        }
        by_digits(&refs, &*pages, selector)?.ok_or_else(|| none().into())
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

fn by_digits(refs: &TreeRef, io: &dyn PageIo, selector: &str) -> Result<Option<VersionId>> {
    let wanted = selector.replace('-', "").to_ascii_lowercase();
    if wanted.len() < DIGITS_MIN || !wanted.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(None);
    }
    match refs::with_digits(refs, io, &wanted, 2)?[..] {
        [(first, _), (second, _), ..] => {
            Err(VersionError::Ambiguous { selector: selector.to_owned(), first, second }.into())
        }
        [(first, _)] => Ok(Some(first)),
        [] => Ok(None),
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
