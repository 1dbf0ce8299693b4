//! Promise: a retention policy keeps what its rules say, and always the newest version and those with names.

use jiff::tz::TimeZone;
use kura::base::clock::Timestamp;
use kura::base::ids::VersionId;
use kura::version::index::{Counts, Origin};
use kura::version::refs::{Listed, Summary};
use kura::version::retention::{Keep, Retention};
use proptest::prelude::*;

/// Versions of these times (RFC 3339), newest first; a time and a name are joined by `#`.
fn versions(times: &[&str]) -> Vec<Listed> {
    let version = |(number, text): (usize, &&str)| {
        let (time, tag) = text.split_once('#').map_or((*text, None), |(time, tag)| (time, Some(tag)));
        let time: jiff::Timestamp = time.parse().unwrap();
        listed((times.len() - number) as u64, time.as_second(), tag)
    };
    times.iter().enumerate().map(version).collect()
}

fn listed(generation: u64, seconds: i64, tag: Option<&str>) -> Listed {
    let time = Timestamp::from_parts(seconds, 0);
    Listed {
        id: VersionId::at(time),
        summary: Summary {
            generation,
            time,
            parents: Vec::new(),
            host: String::new(),
            user: String::new(),
            origin: Origin::Automatic,
            message: None,
            counts: Counts::default(),
        },
        tags: tag.map(str::to_owned).into_iter().collect(),
    }
}

/// The positions of those that are kept.
fn kept(policy: &Retention, versions: &[Listed]) -> Vec<usize> {
    let verdicts = policy.judge(versions, &TimeZone::UTC);
    verdicts.iter().enumerate().filter(|(_, verdict)| !verdict.reasons.is_empty()).map(|(at, _)| at).collect()
}

const YEAR: [&str; 12] = [
    "2026-03-02T10:30:00Z",      // 0: a Monday
    "2026-03-02T10:05:00Z",      // 1: the same hour
    "2026-03-02T09:59:00Z",      // 2: the hour before
    "2026-03-01T23:00:00Z",      // 3: the Sunday before, in the week before
    "2026-03-01T01:00:00Z",      // 4: the same day
    "2026-02-28T12:00:00Z",      // 5
    "2026-02-20T12:00:00Z",      // 6: a week before that
    "2026-01-31T12:00:00Z#gold", // 7
    "2026-01-01T00:30:00Z",      // 8: in the first week of 2026
    "2025-12-30T12:00:00Z",      // 9: in the same week, another year
    "2025-12-28T12:00:00Z",      // 10
    "2024-07-01T12:00:00Z",      // 11
];

#[test]
fn each_rule_keeps_what_it_says() {
    let versions = versions(&YEAR);
    let none = Retention::default();
    // What has a name, and the newest, is kept in any case.
    let table: [(&str, Retention, &[usize]); 15] = [
        ("nothing", none.clone(), &[0, 7]),
        ("last 3", Retention { last: 3, ..none.clone() }, &[0, 1, 2, 7]),
        ("last 1", Retention { last: 1, ..none.clone() }, &[0, 7]),
        ("hourly 2", Retention { hourly: 2, ..none.clone() }, &[0, 2, 7]),
        ("hourly 4", Retention { hourly: 4, ..none.clone() }, &[0, 2, 3, 4, 7]),
        ("daily 3", Retention { daily: 3, ..none.clone() }, &[0, 3, 5, 7]),
        ("daily 5", Retention { daily: 5, ..none.clone() }, &[0, 3, 5, 6, 7]),
        ("weekly 2", Retention { weekly: 2, ..none.clone() }, &[0, 3, 7]),
        ("weekly 5", Retention { weekly: 5, ..none.clone() }, &[0, 3, 6, 7, 8]),
        ("weekly 6: one week of two years", Retention { weekly: 6, ..none.clone() }, &[0, 3, 6, 7, 8, 10]),
        ("monthly 3", Retention { monthly: 3, ..none.clone() }, &[0, 5, 7]),
        ("yearly 9", Retention { yearly: 9, ..none.clone() }, &[0, 7, 9, 11]),
        ("within 36 hours", Retention { within_s: 36 * 3600, ..none.clone() }, &[0, 1, 2, 3, 4, 7]),
        ("tag", Retention { tags: vec!["gold".into()], ..none.clone() }, &[0, 7]),
        ("all together", Retention { last: 2, daily: 2, yearly: 2, ..none.clone() }, &[0, 1, 3, 7, 9]),
    ];
    for (what, policy, expected) in table {
        assert_eq!(kept(&policy, &versions), expected, "{what}");
    }
}

#[test]
fn periods_follow_the_calendar_of_the_zone() {
    // Midnight in Berlin lies between the two, though both are of one day by UTC.
    let versions = versions(&["2026-03-02T23:30:00Z", "2026-03-02T22:30:00Z"]);
    let daily = Retention { daily: 5, ..Retention::default() };
    let kept = |zone: &TimeZone| daily.judge(&versions, zone).iter().filter(|found| !found.reasons.is_empty()).count();
    assert_eq!(kept(&TimeZone::UTC), 1);
    assert_eq!(kept(&TimeZone::fixed(jiff::tz::offset(1))), 2);
}

#[test]
fn reasons_are_told() {
    let versions = versions(&["2026-03-02T10:30:00Z#a", "2026-03-02T10:05:00Z"]);
    let policy = Retention { last: 1, hourly: 1, tags: vec!["a".into()], ..Retention::default() };
    let verdicts = policy.judge(&versions, &TimeZone::UTC);
    assert_eq!(verdicts[0].reasons, [Keep::Newest, Keep::Named, Keep::Last, Keep::Hourly, Keep::Tag]);
    assert!(verdicts[1].reasons.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// No rule keeps more periods than it says, the newest stays, and more rules never keep less.
    #[test]
    fn rules_keep_no_more_than_they_say(
        mut seconds in prop::collection::vec(0_i64..2_000_000_000, 1..60),
        daily in 0_u32..9,
        last in 0_u32..9,
    ) {
        seconds.sort_unstable_by(|a, b| b.cmp(a));
        let versions: Vec<Listed> = seconds.iter().map(|seconds| listed(1, *seconds, None)).collect();
        let by_day = kept(&Retention { daily, ..Retention::default() }, &versions);
        prop_assert!(by_day.len() <= daily.max(1) as usize && by_day[0] == 0);
        let both = kept(&Retention { daily, last, ..Retention::default() }, &versions);
        prop_assert!(by_day.iter().all(|at| both.contains(at)));
        prop_assert!(both.len() >= (last as usize).min(versions.len()));
    }
}
