//! Publishing, installing, checking, going back.

use std::fs;

use kura::apps::release::{Access, Change, ReleaseError, Reply, Request, Rollout, State};
use kura::workspace::Side;
use kura::worktree::{NewNode, Wait};
use serde_json::json;

use super::support::{CHANNEL, World, installed, run};
use crate::workspace_rig::{self as ws, letters};

#[test]
fn what_is_published_is_installed_updated_and_taken_back_as_versions() {
    let world = World::new();
    let client = &world.client;
    ws::write(client, "mine", b"mine");
    world.publish("tool", "1.0.0", json!({ "changes": ["the first"] }), &[("bin/tool", "one"), ("etc/conf", "c1")]);
    world.follow();
    assert_eq!(installed(&world.install(&["tool"]).unwrap()), ["tool - 1.0.0"]);
    let first = client.tree().base().index.id;
    assert_eq!(ws::read(client, "bin/tool"), b"one");
    world.publish("tool", "1.1.0", json!({}), &[("bin/tool", "two"), ("new/file", "n")]);
    let done = world.update().unwrap();
    assert_eq!(installed(&done), ["tool 1.0.0 1.1.0"]);
    let second = client.tree().base().index.id;
    assert_eq!(client.version(second).unwrap().parents, [first], "one version");
    let mut changed = letters(client, Side::Version(first), Side::Version(second));
    changed.retain(|line| !line.starts_with("Metadata"));
    let expected = [
        "Added new",
        "Added new/file",
        "Modified bin/tool",
        "Modified releases.lock/tool.json",
        "Removed etc",
        "Removed etc/conf",
    ];
    assert_eq!(changed, expected);
    assert_eq!(installed(&world.update().unwrap()), Vec::<String>::new(), "nothing is left to do");
    // Back again, with what came after kept.
    ws::write(client, "later", b"later");
    let done = world.done(&Request::Rollback { packages: vec!["tool".to_owned()] }).unwrap();
    assert_eq!(done.taken_back, ["tool 1.1.0"]);
    assert_eq!((ws::read(client, "bin/tool"), ws::read(client, "etc/conf")), (b"one".to_vec(), b"c1".to_vec()));
    assert_eq!((ws::read(client, "mine"), ws::read(client, "later")), (b"mine".to_vec(), b"later".to_vec()));
    // What the user took back does not come by itself, but by name.
    assert_eq!(installed(&world.update().unwrap()), Vec::<String>::new());
    assert_eq!(world.reason("1.1.0").as_deref(), Some("skipped by the user"));
    world.install(&["tool@1.1"]).unwrap();
    assert_eq!(world.reason("1.0.0").as_deref(), Some("1.1.0 is installed, which is newer"));
    let events = world.events();
    assert_eq!(
        events,
        ["installed tool 1.0.0", "installed tool 1.1.0", "rolled-back tool 1.1.0", "installed tool 1.1.0"]
    );
    let Reply::Listed(listed) = run(client, &Request::Verify {}).unwrap() else { panic!("no list") };
    assert!(listed.iter().all(|one| one.drift.is_empty()));
}

#[test]
fn an_install_whose_check_fails_is_undone_and_not_tried_again() {
    let world = World::new();
    let check = |command: serde_json::Value| json!({ "checks": [{ "name": "works", "command": command, "timeout_ms": 60_000 }] });
    world.publish("tool", "1.0.0", check(json!(["grep", "-q", "good", "tool.txt"])), &[("tool.txt", "good")]);
    world.follow();
    let done = world.install(&["tool"]).unwrap();
    assert!(done.checks[0].ok);
    let bad = [
        ("1.1.0", check(json!(["grep", "-q", "good", "tool.txt"]))),
        ("1.2.0", json!({ "checks": [{ "name": "hangs", "command": ["sleep", "600"], "timeout_ms": 50 }] })),
        ("1.3.0", check(json!(["/no/such/program"]))),
        ("1.4.0", check(json!(["sh", "-c", "kill -9 $$"]))),
        (
            "1.5.0",
            json!({ "checks": [{ "name": "slow", "command": ["sleep", "0.2"], "timeout_ms": 60_000, "time_max_ms": 10 }] }),
        ),
        (
            "1.6.0",
            json!({ "checks": [{ "name": "mostly", "command": ["false"], "timeout_ms": 60_000, "runs": 3, "failures_max": 2 }] }),
        ),
    ];
    for (version, more) in bad {
        world.publish("tool", version, more, &[("tool.txt", "broken"), ("more", "m")]);
        let error = world.update().unwrap_err();
        assert!(matches!(error, ReleaseError::Reverted { .. }), "{version}: {error}");
        assert_eq!(ws::read(&world.client, "tool.txt"), b"good", "{version}");
        assert!(!ws::live(&world.client).contains_key("more"), "{version}");
        assert!(world.reason(version).unwrap().contains("failed here before"), "{version}");
        assert_eq!(installed(&world.update().unwrap()), Vec::<String>::new(), "{version}");
    }
    // The workspace's own history going back brings no trust or denial back.
    let first = world.client.versions().unwrap().last().unwrap().id;
    world.client.restore(first, &[], false).unwrap();
    assert!(world.reason("1.1.0").unwrap().contains("failed here before"));
    // Some runs may fail.
    let flaky = "test -e seen || { touch seen; exit 1; }";
    let check = json!({ "checks": [{ "name": "flaky", "command": ["sh", "-c", flaky], "timeout_ms": 60_000, "runs": 3, "failures_max": 1 }] });
    world.publish("tool", "2.0.0", check, &[("tool.txt", "good again")]);
    world.install(&["tool"]).unwrap();
}

#[test]
fn a_release_is_tested_in_a_copy_and_promoted_between_channels() {
    let world = World::new();
    ws::write(&world.client, "data", b"the workspace's own");
    let command = json!(["sh", "-c", "grep -q own data && grep -q new prog && echo spoilt > data"]);
    let more = json!({ "checks": [{ "name": "with data", "command": command, "timeout_ms": 60_000 }] });
    let dir = world.package("tool", "1.0.0", more, &[("prog", "new")]);
    let Reply::Checks(checks) = run(&world.client, &Request::Test { dir: dir.clone(), scratch: None }).unwrap() else {
        panic!("none")
    };
    assert!(checks[0].ok, "{checks:?}");
    assert_eq!(ws::read(&world.client, "data"), b"the workspace's own");
    assert!(!ws::live(&world.client).contains_key("prog"));
    let (repository, keys) = world.at();
    let rollout = Rollout::default();
    let beta = Request::Publish { dir, repository, keys, channel: "beta".to_owned(), rollout };
    run(&world.client, &beta).unwrap();
    world.follow();
    assert!(matches!(world.install(&["tool"]), Err(ReleaseError::Missing { what: "channel", .. })));
    let promote = |version: &str| {
        let (repository, keys) = world.at();
        let (packages, from, channel) = (vec![format!("tool@{version}")], "beta".to_owned(), CHANNEL.to_owned());
        Request::Promote { packages, repository, keys, from, channel, rollout: Rollout::default() }
    };
    assert!(matches!(run(&world.client, &promote("2.0.0")), Err(ReleaseError::Missing { .. })));
    run(&world.client, &promote("1.0.0")).unwrap();
    ws::write(&world.client, "data", b"own");
    let error = world.install(&["tool"]).unwrap_err();
    assert!(matches!(error, ReleaseError::Reverted { .. }), "its check needs more than its files: {error}");
}

#[test]
fn a_repository_can_lie_sealed_in_the_workspace_s_own_store() {
    let world = World::new();
    let dir = world.package("tool", "1.0.0", json!({}), &[("secret-name.txt", "secret content")]);
    let (keys, repository, channel) = (world.at().1, "store".to_owned(), CHANNEL.to_owned());
    run(&world.client, &Request::Publish { dir, repository, keys, channel, rollout: Rollout::default() }).unwrap();
    world.follow_at("store", Access::default()).unwrap();
    world.install(&["tool"]).unwrap();
    assert_eq!(ws::read(&world.client, "secret-name.txt"), b"secret content");
    let objects = world.rig.memory.snapshot();
    let released: Vec<_> = objects.iter().filter(|(key, _)| key.as_str().starts_with("releases/")).collect();
    assert!(released.len() >= 7, "{}", released.len());
    for (key, bytes) in released {
        let found = bytes.windows(6).any(|part| part == b"secret" || part == b"sha256");
        assert!(!found, "{key} is readable");
    }
}

#[test]
fn files_in_the_way_are_told_at_once_and_force_puts_new_ones_beside() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("a.txt", "1"), ("b.txt", "2"), ("dir", "3")]);
    world.follow();
    ws::write(&world.client, "a.txt", b"mine");
    ws::mkdir(&world.client, "dir");
    ws::snapshot(&world.client);
    let before = ws::live(&world.client);
    let Err(ReleaseError::Conflicts { paths }) = world.install(&["tool"]) else { panic!("it was installed") };
    assert_eq!(paths.len(), 2);
    assert_eq!(ws::live(&world.client), before);
    world.client.tree().rmdir(ws::ino(&world.client, ""), b"dir", kura::worktree::Wait::Yes).unwrap();
    let done = world.done(&Request::Install { packages: vec!["tool".to_owned()], force: true }).unwrap();
    assert_eq!(done.sidecars, ["a.tool.txt"]);
    assert_eq!(ws::read(&world.client, "a.txt"), b"mine");
    assert_eq!(ws::read(&world.client, "a.tool.txt"), b"1");
}

#[test]
fn nothing_is_installed_through_a_link_of_the_workspace() {
    let world = World::new();
    ws::mkdir(&world.client, "real");
    let link = NewNode::Symlink(b"real".to_vec());
    world.client.tree().make(ws::ino(&world.client, ""), b"dir", &link, 0o777, ws::ME, false, Wait::Yes).unwrap();
    world.publish("tool", "1.0.0", json!({}), &[("dir/t", "1")]);
    world.follow();
    for force in [false, true] {
        let install = Request::Install { packages: vec!["tool".to_owned()], force };
        let error = world.done(&install).unwrap_err();
        assert!(error.to_string().contains("a symbolic link is in the way"), "{error}");
    }
    assert!(!ws::live(&world.client).contains_key("real/t"));
}

#[test]
fn what_is_revoked_goes_back_at_the_next_update() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.follow();
    world.install(&["tool"]).unwrap();
    world.publish("tool", "1.1.0", json!({}), &[("t", "2")]);
    world.update().unwrap();
    world.change("tool@1.1.0", Change::Revoke("it eats data".to_owned()));
    let done = world.update().unwrap();
    assert_eq!(done.taken_back, ["tool 1.1.0"]);
    assert_eq!(ws::read(&world.client, "t"), b"1");
    assert!(world.reason("1.1.0").unwrap().contains("it eats data"));
    assert!(world.install(&["tool@1.1"]).is_err(), "not even by name");
    assert!(world.events().contains(&"revoked tool 1.1.0".to_owned()));
}

#[test]
fn a_rollback_keeps_what_the_user_made_of_an_installed_file() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("a", "a1"), ("b", "b1")]);
    world.follow();
    world.install(&["tool"]).unwrap();
    world.publish("tool", "1.1.0", json!({}), &[("a", "a2"), ("b", "b2")]);
    world.update().unwrap();
    ws::write(&world.client, "a", b"mine");
    world.done(&Request::Rollback { packages: vec!["tool".to_owned()] }).unwrap();
    let live = ws::live(&world.client);
    let kept = live.keys().filter(|name| name.ends_with('a')).any(|name| ws::read(&world.client, name) == b"mine");
    assert!(kept, "{:?}", live.keys());
    assert_eq!(ws::read(&world.client, "b"), b"b1");
    let Reply::Listed(listed) = run(&world.client, &Request::Verify {}).unwrap() else { panic!("no list") };
    assert_eq!(listed[0].version, "1.0.0");
}

#[test]
fn a_client_that_lost_what_it_trusted_trusts_nobody() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.follow();
    world.install(&["tool"]).unwrap();
    world.client.records("releases").remove("state").unwrap();
    for request in [Request::Update {}, Request::Check {}, Request::Plan { packages: vec!["tool".to_owned()] }] {
        let error = run(&world.client, &request).unwrap_err();
        assert!(matches!(error, ReleaseError::NoRepository), "{error}");
    }
    assert_eq!(ws::read(&world.client, "t"), b"1");
}

#[test]
fn packages_that_lead_elsewhere_or_are_incomplete_are_refused() {
    let world = World::new();
    let link = world.package("tool", "1.0.0", json!({}), &[("a", "1")]);
    std::os::unix::fs::symlink("/etc/passwd", format!("{link}/files/link")).unwrap();
    assert!(run(&world.client, &Request::Pack { dir: link }).is_err());
    let bad = [
        (json!({ "name": "../x" }), "a"),
        (json!({ "version": "1" }), "a"),
        (json!({ "version": "1.0.0+build" }), "a"),
        (json!({ "type": "other" }), "a"),
        (json!({ "typo": 1 }), "a"),
        (json!({ "dependencies": { "tool": "*" } }), "a"),
        (json!({ "dependencies": { "other": "not a range" } }), "a"),
        (json!({ "checks": [{ "name": "x", "command": [], "timeout_ms": 1 }] }), "a"),
        (json!({}), ".kura/ctl/run"),
        (json!({}), "releases.lock/x.json"),
        (json!({}), "e\u{301}"),
    ];
    for (more, path) in bad {
        let dir = world.package("tool", "1.0.0", more.clone(), &[(path, "1")]);
        assert!(run(&world.client, &Request::Pack { dir }).is_err(), "{more} {path}");
    }
    // A version is published once.
    world.publish("tool", "1.0.0", json!({}), &[("a", "1")]);
    world.publish("tool", "1.0.0", json!({}), &[("a", "1")]);
    let again = world.publish_as(("tool", "1.0.0"), json!({}), &[("a", "2")], Rollout::default());
    assert!(matches!(again, Err(ReleaseError::BadPackage { .. })), "{again:?}");
}

#[test]
fn keys_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    for entry in fs::read_dir(world.keys()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
}

#[test]
fn what_publishers_do_is_written_down_too() {
    let world = World::new();
    let dir = world.package("tool", "1.0.0", json!({}), &[("t", "1")]);
    let ((repository, keys), beta) = (world.at(), "beta".to_owned());
    run(&world.client, &Request::Publish { dir, repository, keys, channel: beta.clone(), rollout: Rollout::default() })
        .unwrap();
    let ((repository, keys), packages) = (world.at(), vec!["tool@1.0.0".to_owned()]);
    let (channel, rollout) = ("stable".to_owned(), Rollout::default());
    run(&world.client, &Request::Promote { packages, repository, keys, from: beta, channel, rollout }).unwrap();
    world.change("tool@1.0.0", Change::Pause);
    let (windows, min_epoch, channel) = (None, Default::default(), "stable".to_owned());
    let (repository, keys) = world.at();
    run(&world.client, &Request::Channel { repository, keys, channel, windows, min_epoch }).unwrap();
    let done = world.all_events();
    assert_eq!(done, ["published tool 1.0.0", "promoted tool 1.0.0", "rollout tool 1.0.0", "signed  "]);
    let Reply::History { events, .. } = run(&world.client, &Request::History {}).unwrap() else { panic!("none") };
    assert_eq!(events[2].detail, "tool 1.0.0 in stable is paused");
}

#[test]
fn what_happened_cannot_be_taken_out_unnoticed() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.follow();
    world.install(&["tool"]).unwrap();
    for version in ["2.0.0", "3.0.0"] {
        run(&world.client, &Request::Skip { packages: vec![format!("tool@{version}")] }).unwrap();
    }
    run(&world.client, &Request::Ack { number: Some(2) }).unwrap();
    let records = world.client.records("releases");
    let bytes = records.read("state", 1 << 20).unwrap().unwrap();
    let mut state: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(state["events"][1]["acknowledged"], true);
    assert_eq!(state["events"][2]["acknowledged"], false);
    state["events"].as_array_mut().unwrap().remove(1);
    records.write("state", state.to_string().as_bytes()).unwrap();
    assert!(matches!(run(&world.client, &Request::History {}), Err(ReleaseError::Damaged { .. })));
}

#[test]
fn what_happened_long_ago_goes_to_an_archive_and_stays_in_the_chain() {
    let world = World::new();
    let mut state = State::default();
    for number in 0..5_000 {
        state.note("2026-01-01T00:00:00Z", "skipped", "tool", &format!("{number}.0.0"), "");
        if number % 700 == 0 {
            state.write(&world.client).unwrap();
        }
    }
    state.write(&world.client).unwrap();
    assert!(State::read(&world.client).unwrap().events.len() < 2_500);
    let Reply::History { events, .. } = run(&world.client, &Request::History {}).unwrap() else { panic!("none") };
    assert_eq!(events.len(), 5_000);
    let records = world.client.records("releases");
    let archive = records.names().unwrap().into_iter().find(|name| name.starts_with("events-")).unwrap();
    records.remove(&archive).unwrap();
    assert!(matches!(run(&world.client, &Request::History {}), Err(ReleaseError::Damaged { .. })));
}
