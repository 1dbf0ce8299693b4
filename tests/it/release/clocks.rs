//! Clients whose clock is wrong.

use std::sync::Arc;

use kura::apps::release::{
    DirRepository, Expiry, Offer, ReleaseError, Seen, Signer, Step, Thresholds, Totals, Verdict, judge, keygen,
};
use kura::base::clock::{ManualClock, Timestamp};
use kura::workspace::OpenOptions;
use serde_json::{Value, json};

use super::attacks::{followed, refused};
use super::support::World;
use crate::workspace_rig::Rig;

#[test]
fn a_clock_that_went_back_is_told_until_the_repository_is_followed_again() {
    let (world, _) = followed();
    let records = world.client.records("releases");
    let mut state: Value = serde_json::from_slice(&records.read("state", 1 << 20).unwrap().unwrap()).unwrap();
    state["seen"]["metadata"]["latest_known_time.json"] = json!("\"2200-01-01T00:00:00Z\"");
    records.write("state", state.to_string().as_bytes()).unwrap();
    let text = refused(&world);
    assert!(text.contains("this machine's clock shows 20") && text.contains("showed 2200-01-01"), "{text}");
    assert!(text.contains("follow the repository again"), "{text}");
    // That gives no older state a chance.
    let seen = |world: &World| serde_json::to_value(world.state().seen).unwrap()["metadata"]["timestamp.json"].clone();
    let before = seen(&world);
    world.follow();
    assert!(before.is_string() && seen(&world) == before);
    world.update().unwrap();
}

/// A publisher whose clock is so many days ahead of the client's, or behind it.
fn apart(days: i64) -> World {
    let rig = Rig::new();
    let now = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
    let clock = Timestamp::from_parts(now.as_second(), 0);
    let options = OpenOptions { clock: Arc::new(ManualClock::new(clock)), ..rig.options("publisher") };
    let world = World { client: rig.try_open(options).unwrap(), rig };
    keygen(&world.keys(), Thresholds { keys: 1, threshold: 1 }, Expiry::default(), now).unwrap();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    World { client: world.rig.open("client"), rig: world.rig }
}

const TEN_YEARS: i64 = 3653;

#[test]
fn a_client_whose_clock_is_ten_years_ahead_is_told_so_and_goes_on_when_it_is_right() {
    let world = apart(-TEN_YEARS);
    let error = world.try_follow().unwrap_err();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let text = error.to_string();
    assert!(matches!(error, ReleaseError::Untrusted { .. }), "{text}");
    assert!(text.contains("root metadata is expired by this machine's clock, which shows") && text.contains(&now));
    // It followed before, and then the clock went ahead: all that is offered ended long ago.
    let (world, _) = followed();
    let long_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * TEN_YEARS);
    let publish = |now| {
        let signer = Signer::open(&world.keys(), Expiry::default()).unwrap();
        signer.publish(&DirRepository(world.repository()), &[], now).unwrap();
    };
    publish(long_ago);
    let before = world.state().seen;
    let text = refused(&world);
    assert!(text.contains("is expired by this machine's clock") && text.contains(&now), "{text}");
    let time = |seen: &Seen| serde_json::to_value(seen).unwrap()["metadata"]["latest_known_time.json"].clone();
    assert_eq!(time(&world.state().seen), time(&before), "a time that may be wrong is not remembered");
    publish(jiff::Timestamp::now());
    world.update().unwrap();
}

#[test]
fn a_client_whose_clock_is_ten_years_behind_installs_and_judges_nothing_too_early() {
    let world = apart(TEN_YEARS);
    world.follow();
    world.install(&["tool"]).unwrap();
    world.update().unwrap();
    let step = Step { bps: 10_000, min_samples: 1, min_soak_s: 60, success_bps_min: 1, failures_max: 0 };
    let offer = |since: String| Offer {
        version: "1.0.0".parse().unwrap(),
        bps: 1,
        rings: Vec::new(),
        paused: false,
        emergency: false,
        revoked: None,
        steps: vec![Step { bps: 1, ..step }, step],
        since,
    };
    let totals = Totals { installed: 1, ..Totals::default() };
    let future = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * TEN_YEARS);
    let verdict = |since: jiff::Timestamp| judge(&offer(since.to_string()), &totals, world.client.now());
    assert_eq!(verdict(future), Verdict::Hold, "it has not soaked");
    assert_eq!(verdict(jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1)), Verdict::Advance);
}
