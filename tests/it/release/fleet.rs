//! A thousand clients by seed: bad releases are stopped early and taken back, good ones reach everybody.

use kura::apps::release::{
    Channel, Client, EVERYBODY, Feedback, Offer, Outcome, Package, Step, Totals, Verdict, Withheld, carry_out, judge,
};
use kura::base::clock::Timestamp;
use semver::Version;
use serde_json::json;

const CLIENTS: u32 = 1000;
const HOUR_S: i64 = 3600;

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// After so long without going on, somebody looks, and decides.
const PATIENCE_H: i64 = 48;

/// What came of a rollout: how many were ever touched, how many have it in the end, and whether it was taken back.
struct End {
    touched: u32,
    have_it: u32,
    taken_back: bool,
    complete: bool,
}

/// Every client looks once an hour; `failing` percent of installs fail, and so do a third of all downloads.
fn roll_out(seed: u64, failing: u64, failures_max: u32) -> End {
    let mut dice = Dice(seed * 2 + 1);
    let steps = [100, 1000, 5000, EVERYBODY].map(|bps| Step {
        bps,
        min_samples: 5,
        min_soak_s: 7200,
        success_bps_min: 9000,
        failures_max,
    });
    let package: Package =
        serde_json::from_value(json!({ "name": "tool", "version": "2.0.0", "type": "feature", "files": [] })).unwrap();
    let offer = Offer {
        version: Version::new(2, 0, 0),
        bps: 100,
        rings: Vec::new(),
        paused: false,
        emergency: false,
        revoked: None,
        steps: steps.to_vec(),
        since: "2026-01-01T00:00:00Z".to_owned(),
    };
    let mut channel = Channel {
        name: "stable".to_owned(),
        packages: [("tool".to_owned(), vec![offer])].into(),
        ..Channel::default()
    };
    let ids: Vec<String> = (0..CLIENTS).map(|number| format!("{seed}-{number}")).collect();
    let (mut has_it, mut refuses) = (vec![false; ids.len()], vec![false; ids.len()]);
    let (mut touched, mut reports, mut complete, mut went_on) = (0, Vec::new(), false, 0);
    let start = 1_767_225_600;
    for hour in 0..200 {
        let now = Timestamp::from_parts(start + hour * HOUR_S, 0);
        for (index, id) in ids.iter().enumerate() {
            let turn = channel.turn(&package, Client { id, ring: None }, now);
            if has_it[index] && matches!(turn, Err(Withheld::Revoked { .. })) {
                has_it[index] = false;
                let result = Outcome::RolledBack;
                reports.push(Feedback { client: id.clone(), counter: 2, result, time_ms: 1, note: None });
            }
            // Downloads that fail are tried again, and nobody is told.
            if has_it[index] || refuses[index] || turn.is_err() || dice.below(3) == 0 {
                continue;
            }
            touched += 1;
            let failed = dice.below(100) < failing;
            (has_it[index], refuses[index]) = (!failed, failed);
            let result = if failed { Outcome::Failed } else { Outcome::Installed };
            reports.push(Feedback { client: id.clone(), counter: 1, result, time_ms: 1, note: None });
        }
        let count = has_it.iter().filter(|has| **has).count();
        let offer = &mut channel.packages.get_mut("tool").unwrap()[0];
        match offer.revoked {
            Some(_) if count == 0 => break,
            Some(_) => continue,
            None if complete && count == ids.len() => break,
            None => {}
        }
        let totals = Totals::of(&reports);
        let mut verdict = judge(offer, &totals, now);
        match verdict {
            Verdict::Advance => went_on = hour,
            Verdict::Complete => complete = true,
            // A first share so small that too few report is let go on, where none of them failed.
            Verdict::Hold if hour - went_on > PATIENCE_H => {
                verdict = if totals.failed == 0 { Verdict::Advance } else { Verdict::Abort };
                went_on = hour;
            }
            _ => {}
        }
        let time = jiff::Timestamp::from_second(start + hour * HOUR_S).unwrap().to_string();
        carry_out(offer, verdict, &time, "too many failed");
    }
    let have_it = has_it.iter().filter(|has| **has).count().try_into().unwrap();
    let taken_back = channel.packages["tool"][0].revoked.is_some();
    End { touched, have_it, taken_back, complete }
}

fn seeds() -> std::ops::RangeInclusive<u64> {
    if std::env::var_os("KURA_TEST_LONG").is_some() { 1..=200 } else { 1..=10 }
}

#[test]
fn bad_releases_are_stopped_before_much_of_the_fleet_is_touched_and_all_go_back() {
    for seed in seeds() {
        // How many of a hundred installs fail, how many failures are borne, and how many clients may be touched.
        for (failing, failures_max, touched_max) in [(1, 0, 900), (10, 1, 250), (50, 1, 150), (100, 1, 150)] {
            let End { touched, have_it, taken_back, complete } = roll_out(seed, failing, failures_max);
            let what = format!("seed {seed}, {failing} % fail: {touched} touched, {have_it} have it");
            assert!(taken_back && !complete && touched <= touched_max && have_it == 0, "{what}");
        }
    }
}

#[test]
fn good_releases_reach_everybody_whatever_downloads_do() {
    for seed in seeds() {
        let End { touched, have_it, taken_back, complete } = roll_out(seed, 0, 0);
        assert!(!taken_back && complete, "seed {seed}: {touched} touched, {have_it} have it");
        assert_eq!((touched, have_it), (CLIENTS, CLIENTS), "seed {seed}");
    }
}
