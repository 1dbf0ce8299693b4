//! Whose turn it is: buckets, rings, windows, pauses.

use kura::apps::release::{
    Change, Channel, Client, EVERYBODY, Feedback, Offer, Outcome, Package, Reply, Request, Rollout, Step, Totals,
    Verdict, Window, Withheld, bucket, judge,
};
use kura::base::clock::Timestamp;
use semver::Version;
use serde_json::json;

use super::support::{CHANNEL, World, installed, run};

fn at(text: &str) -> Timestamp {
    let time: jiff::Timestamp = text.parse().unwrap();
    Timestamp::from_parts(time.as_second(), 0)
}

fn window(tz: &str, days: &[&str], start: &str, end: &str) -> Window {
    let days = days.iter().map(|day| (*day).to_owned()).collect();
    Window { tz: tz.to_owned(), days, start: start.to_owned(), end: end.to_owned() }
}

#[test]
fn windows_cross_midnight_and_changes_of_summer_time() {
    let night = window("Europe/Berlin", &["fri"], "22:00", "05:00");
    // Friday, 20 November 2026, in Berlin: UTC+1.
    let cases = [
        ("2026-11-20T20:59:59Z", false),
        ("2026-11-20T21:00:00Z", true),
        ("2026-11-21T03:59:59Z", true),
        ("2026-11-21T04:00:00Z", false),
        ("2026-11-21T22:00:00Z", false),
        ("2026-11-20T02:00:00Z", false),
    ];
    for (time, open) in cases {
        assert_eq!(night.is_open(at(time)), open, "{time}");
    }
    // 29 March 2026: 02:00 to 03:00 does not exist; a window from 02:30 begins at 03:30 (01:30 UTC).
    let gap = window("Europe/Berlin", &[], "02:30", "04:00");
    for (time, open) in
        [("2026-03-29T01:29:59Z", false), ("2026-03-29T01:30:00Z", true), ("2026-03-29T02:00:00Z", false)]
    {
        assert_eq!(gap.is_open(at(time)), open, "{time}");
    }
    // 25 October 2026: 02:00 to 03:00 comes twice; the first counts (00:30 UTC), to the only 04:00 (03:00 UTC).
    let fold = window("Europe/Berlin", &[], "02:30", "04:00");
    for (time, open) in
        [("2026-10-25T00:29:59Z", false), ("2026-10-25T00:30:00Z", true), ("2026-10-25T02:59:59Z", true)]
    {
        assert_eq!(fold.is_open(at(time)), open, "{time}");
    }
    let all_day = window("UTC", &["sun"], "00:00", "00:00");
    assert!(all_day.is_open(at("2026-11-22T23:59:59Z")) && !all_day.is_open(at("2026-11-23T00:00:00Z")));
    assert!(!window("No/Where", &[], "00:00", "23:59").is_open(at("2026-11-22T12:00:00Z")));
}

#[test]
fn buckets_are_even_and_change_with_the_version() {
    let (one, two) = (Version::new(1, 0, 0), Version::new(2, 0, 0));
    let mut tenths = [0_u32; 10];
    let mut same = 0;
    for number in 0..10_000 {
        let client = format!("client-{number}");
        let first = bucket("tool", &one, &client);
        assert!(first < EVERYBODY);
        assert_eq!(first, bucket("tool", &one, &client));
        tenths[first as usize / 1000] += 1;
        same += u32::from(first / 1000 == bucket("tool", &two, &client) / 1000);
    }
    assert!(tenths.iter().all(|count| (850..1150).contains(count)), "{tenths:?}");
    assert!(same < 1300, "{same}");
}

fn offer(bps: u32) -> Offer {
    let (version, since) = (Version::new(1, 0, 0), "2026-01-01T00:00:00Z".to_owned());
    Offer { version, bps, rings: Vec::new(), paused: false, emergency: false, revoked: None, steps: Vec::new(), since }
}

fn package(update_type: &str) -> Package {
    serde_json::from_value(json!({ "name": "tool", "version": "1.0.0", "type": update_type, "files": [] })).unwrap()
}

fn channel(offer: Offer) -> Channel {
    Channel { name: "stable".to_owned(), packages: [("tool".to_owned(), vec![offer])].into(), ..Channel::default() }
}

#[test]
fn everybody_once_let_in_stays_in_as_the_share_grows() {
    let now = at("2026-11-22T12:00:00Z");
    let allowed = |bps: u32| -> Vec<u32> {
        let channel = channel(offer(bps));
        let is_in = |number: &u32| {
            let id = format!("client-{number}");
            channel.turn(&package("feature"), Client { id: &id, ring: None }, now).is_ok()
        };
        (0..1000).filter(is_in).collect()
    };
    assert!(allowed(0).is_empty());
    assert_eq!(allowed(EVERYBODY).len(), 1000);
    let mut before = Vec::new();
    for bps in [1, 100, 1000, 5000, 9999, EVERYBODY] {
        let now = allowed(bps);
        assert!(before.iter().all(|client| now.contains(client)), "{bps}");
        before = now;
    }
}

#[test]
fn rings_emergencies_security_pauses_and_windows_decide_in_order() {
    let now = at("2026-11-22T12:00:00Z");
    let client = Client { id: "somebody", ring: Some("canary") };
    let turn = |offer: Offer, kind: &str| channel(offer).turn(&package(kind), client, now);
    assert!(matches!(turn(offer(0), "feature"), Err(Withheld::NotInPhase { bps: 0, .. })));
    assert_eq!(turn(Offer { rings: vec!["canary".to_owned()], ..offer(0) }, "feature"), Ok(()));
    assert_eq!(turn(Offer { emergency: true, ..offer(0) }, "feature"), Ok(()));
    assert_eq!(turn(offer(0), "security"), Ok(()));
    assert_eq!(turn(Offer { paused: true, emergency: true, ..offer(EVERYBODY) }, "security"), Err(Withheld::Paused));
    let revoked = Offer { revoked: Some("bad".to_owned()), emergency: true, ..offer(EVERYBODY) };
    assert_eq!(turn(revoked, "security"), Err(Withheld::Revoked { why: "bad".to_owned() }));
    let mut shut = channel(offer(EVERYBODY));
    shut.windows = vec![window("UTC", &[], "01:00", "02:00")];
    assert_eq!(shut.turn(&package("feature"), client, now), Err(Withheld::OutsideWindow));
    assert_eq!(shut.turn(&package("security"), client, now), Ok(()));
    shut.min_epoch.insert("tool".to_owned(), 1);
    assert_eq!(shut.turn(&package("security"), client, now), Err(Withheld::EpochTooLow { epoch: 0, least: 1 }));
}

#[test]
fn feedback_advances_holds_or_aborts() {
    let step = |bps| Step { bps, min_samples: 10, min_soak_s: 3600, success_bps_min: 9000, failures_max: 2 };
    let offer = Offer { steps: vec![step(100), step(EVERYBODY)], ..offer(100) };
    let (early, late) = (at("2026-01-01T00:59:59Z"), at("2026-01-01T01:00:00Z"));
    let totals = |installed, failed| Totals { installed, failed, rolled_back: 0, time_ms: 1 };
    assert_eq!(judge(&offer, &totals(10, 0), early), Verdict::Hold, "it has not soaked");
    assert_eq!(judge(&offer, &totals(9, 0), late), Verdict::Hold, "too few samples");
    assert_eq!(judge(&offer, &totals(10, 2), late), Verdict::Hold, "neither good nor bad");
    assert_eq!(judge(&offer, &totals(18, 2), late), Verdict::Advance);
    assert_eq!(judge(&offer, &totals(0, 3), early), Verdict::Abort, "failures do not wait");
    assert_eq!(judge(&offer, &Totals { rolled_back: 3, ..totals(100, 0) }, late), Verdict::Abort);
    let paused = Offer { paused: true, ..offer.clone() };
    assert_eq!(judge(&paused, &totals(18, 2), late), Verdict::Hold, "it waits for somebody");
    assert_eq!(judge(&paused, &totals(18, 3), late), Verdict::Abort);
    let last = Offer { bps: EVERYBODY, ..offer.clone() };
    assert_eq!(judge(&last, &totals(10, 0), late), Verdict::Complete);
    // Of one client the last report counts, in whatever order they come.
    let report = |counter, result| Feedback { client: "one".to_owned(), counter, result, time_ms: 10, note: None };
    let totals = Totals::of(&[report(2, Outcome::RolledBack), report(1, Outcome::Installed)]);
    assert_eq!((totals.samples(), totals.rolled_back), (1, 1));
}

#[test]
fn a_client_that_tells_an_absurd_time_counts_as_a_day() {
    let report = |client: &str, time_ms| {
        let (client, note) = (client.to_owned(), None);
        Feedback { client, counter: 1, result: Outcome::Installed, time_ms, note }
    };
    let day = 86_400_000;
    assert_eq!(Totals::of(&[report("a", u64::MAX), report("b", u64::MAX), report("c", u64::MAX)]).time_ms, day);
    assert_eq!(Totals::of(&[report("a", u64::MAX), report("b", 1000)]).time_ms, (day + 1000) / 2);
}

#[test]
fn a_paused_rollout_goes_on_where_it_was() {
    let world = World::new();
    let rollout = Rollout { bps: 0, ..Rollout::default() };
    world.publish_as(("tool", "1.0.0"), json!({}), &[("t", "1")], rollout).unwrap();
    world.follow();
    world.change("tool@1.0.0", Change::Bps(EVERYBODY));
    world.change("tool@1.0.0", Change::Pause);
    assert_eq!(world.reason("1.0.0").unwrap(), "the rollout is paused");
    assert!(world.install(&["tool"]).is_err(), "by name, too");
    let standing = world.standings().remove(0);
    assert_eq!((standing.paused, standing.bps), (true, EVERYBODY));
    world.change("tool@1.0.0", Change::Resume);
    assert_eq!((world.reason("1.0.0"), world.standings()[0].paused), (None, false));
    world.install(&["tool"]).unwrap();
}

#[test]
fn a_rollout_goes_on_and_back_by_what_clients_report() {
    let world = World::new();
    let step = |bps| Step { bps, min_samples: 1, min_soak_s: 0, success_bps_min: 5000, failures_max: 0 };
    let rollout = Rollout { bps: EVERYBODY, steps: vec![step(EVERYBODY)], ..Rollout::default() };
    world.publish_as(("tool", "1.0.0"), json!({}), &[("t", "1")], rollout.clone()).unwrap();
    world.follow();
    world.install(&["tool"]).unwrap();
    let judged = |dry_run| {
        let ((repository, keys), channel) = (world.at(), CHANNEL.to_owned());
        let request = match dry_run {
            true => Request::Report { repository, keys, channel },
            false => Request::Advance { repository, keys, channel },
        };
        match run(&world.client, &request).unwrap() {
            Reply::Standings(standings) => standings,
            reply => panic!("{reply:?}"),
        }
    };
    let progress = judged(false);
    assert_eq!((progress[0].verdict, progress[0].totals.installed), (Verdict::Complete, 1));
    let bad = json!({ "checks": [{ "name": "no", "command": ["false"], "timeout_ms": 60_000 }] });
    world.publish_as(("tool", "2.0.0"), bad, &[("t", "2")], rollout).unwrap();
    world.update().unwrap_err();
    assert_eq!(judged(true)[1].verdict, Verdict::Abort);
    assert!(world.reason("2.0.0").unwrap().contains("failed here before"), "only judged");
    judged(false);
    assert!(world.reason("2.0.0").unwrap().contains("too many installs failed"));
    world.publish_as(("tool", "3.0.0"), json!({}), &[("t", "3")], Rollout { bps: 0, ..Rollout::default() }).unwrap();
    assert!(world.reason("3.0.0").unwrap().contains("not in phase"));
    assert!(world.update().unwrap().installed.is_empty());
    world.change("tool@3.0.0", Change::Emergency);
    assert_eq!(installed(&world.update().unwrap()), ["tool 1.0.0 3.0.0"]);
}
