//! Limits of how rollouts may go, and who is told when one is crossed.

use std::fs;
use std::sync::Arc;

use kura::apps::release::{Limits, Notify, ReleaseError, Reply, Request, Standing};
use kura::workspace::Workspace;
use serde_json::json;

use super::support::{CHANNEL, World, run};
use crate::workspace_rig::Rig;

/// A client of its own workspace that installs, and what came of it.
fn installs(world: &World) -> (Rig, Arc<Workspace>, Result<Reply, ReleaseError>) {
    let rig = Rig::new();
    let client = rig.open("client");
    let (repository, trust) = (world.at().0, world.trust(CHANNEL));
    let (access, ring, every_ms, install) = Default::default();
    run(&client, &Request::Follow { repository, trust, access, ring, every_ms, install }).unwrap();
    let done = run(&client, &Request::Install { packages: vec!["tool".to_owned()], force: false });
    (rig, client, done)
}

fn watch(world: &World, limits: Option<Limits>) -> String {
    match run(&world.client, &Request::Alert { channel: CHANNEL.to_owned(), limits }).unwrap() {
        Reply::Said(text) => text,
        reply => panic!("{reply:?}"),
    }
}

#[test]
fn an_alert_is_told_once_each_time_a_limit_is_crossed() {
    let world = World::new();
    let (flag, out) = (world.path("flag"), world.path("told").to_str().unwrap().to_owned());
    let script = format!("printf '%s\\n' \"$1\" >> {out}");
    let command = ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    let notify = Notify {
        command,
        template: Some("{what} {detail}".to_owned()),
        only: vec!["alert".to_owned()],
        ..Notify::default()
    };
    run(&world.client, &Request::Notify { notify: Some(notify) }).unwrap();
    let told = || fs::read_to_string(&out).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let check = json!({ "checks": [
        { "name": "flag", "command": ["test", "!", "-e", flag.to_str().unwrap()], "timeout_ms": 60_000 },
    ] });
    world.publish("tool", "1.0.0", check, &[("t", "1")]);
    assert_eq!(watch(&world, None), "nothing is watched in stable");
    let limits = Limits { failure_bps: Some(4000), rollback_bps: Some(2000), install_ms: None, min_samples: 2 };
    let said = watch(&world, Some(limits.clone()));
    assert_eq!(said, "limits in stable: failures 40 %, rollbacks 20 %; from 2 reports on");
    let alerts = || world.standings().remove(0).alerts;
    let fails = |fails: bool| {
        if fails { fs::write(&flag, "") } else { fs::remove_file(&flag).or(Ok(())) }.unwrap();
        let (rig, client, done) = installs(&world);
        assert_eq!(done.is_err(), fails, "{done:?}");
        (rig, client)
    };
    fails(true);
    assert!(alerts().is_empty(), "one report says nothing");
    let (_rig, client) = fails(false);
    let sentence = "1 of 2 installs failed, and the limit is 40 %";
    assert_eq!(alerts(), [sentence]);
    assert_eq!(alerts(), [sentence], "it lasts");
    assert_eq!(told(), [format!("alert in stable: {sentence}")]);
    // Within the limit again, and beyond it once more.
    fails(false);
    assert!(alerts().is_empty());
    fails(true);
    assert_eq!(alerts(), ["2 of 4 installs failed, and the limit is 40 %"]);
    assert_eq!(told().len(), 2);
    run(&client, &Request::Rollback { packages: vec!["tool".to_owned()] }).unwrap();
    assert_eq!(alerts()[1], "1 of 4 installs were taken back, and the limit is 20 %");
    assert_eq!(told().len(), 3);
    // Another limit; and none at all.
    watch(&world, Some(Limits { install_ms: Some(0), ..Limits::default() }));
    assert!(alerts()[0].contains("ms in the mean, and the limit is 0 ms"));
    assert_eq!(told().len(), 4);
    assert_eq!(watch(&world, Some(Limits::default())), "nothing is watched in stable");
    assert!(alerts().is_empty());
    assert_eq!(world.events().iter().filter(|event| *event == "alert tool 1.0.0").count(), 4);
    let (events, _) = world.client.events(0);
    assert_eq!(events.iter().filter(|line| line.contains("\"what\":\"alert\"")).count(), 4, "{events:?}");
}

#[test]
fn what_advance_takes_back_is_told_with_the_alert_that_led_to_it() {
    let world = World::new();
    let bad = json!({ "checks": [{ "name": "no", "command": ["false"], "timeout_ms": 60_000 }] });
    let step =
        kura::apps::release::Step { bps: 10_000, min_samples: 1, min_soak_s: 0, success_bps_min: 0, failures_max: 0 };
    let rollout = kura::apps::release::Rollout { steps: vec![step], ..Default::default() };
    world.publish_as(("tool", "1.0.0"), bad, &[("t", "1")], rollout).unwrap();
    watch(&world, Some(Limits { failure_bps: Some(100), ..Limits::default() }));
    assert!(installs(&world).2.is_err());
    let ((repository, keys), channel) = (world.at(), CHANNEL.to_owned());
    let advance = Request::Advance { repository, keys, channel };
    let advanced = || -> Vec<Standing> {
        match run(&world.client, &advance).unwrap() {
            Reply::Standings(standings) => standings,
            reply => panic!("{reply:?}"),
        }
    };
    assert_eq!(advanced()[0].alerts.len(), 1);
    assert_eq!(world.events(), ["alert tool 1.0.0", "aborted tool 1.0.0"]);
    advanced();
    assert_eq!(world.events().len(), 2);
}
