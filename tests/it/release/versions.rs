//! Which versions fit together, and what holds one back.

use std::collections::BTreeMap;
use std::time::Duration;

use kura::apps::release::{Change, Package, ReleaseError, Reply, Request, Rollout, solve};
use kura::version::retention::Retention;
use semver::{Version, VersionReq};
use serde_json::json;

use super::support::{CHANNEL, World, installed, run};
use crate::workspace_rig as ws;

fn package(name: &str, version: &str, dependencies: &[(&str, &str)], conflicts: &[(&str, &str)]) -> Package {
    let map = |list: &[(&str, &str)]| {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let value = json!({
        "name": name, "version": version, "type": "feature", "files": [],
        "dependencies": map(dependencies), "conflicts": map(conflicts),
    });
    serde_json::from_value(value).unwrap()
}

fn wanted(list: &[(&str, &str)]) -> BTreeMap<String, VersionReq> {
    list.iter().map(|(name, range)| ((*name).to_owned(), range.parse().unwrap())).collect()
}

fn chosen(list: &[(&str, &str)], known: &[Package]) -> String {
    let found = solve(&wanted(list), known).unwrap();
    found.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_newest_versions_that_fit_are_chosen() {
    let known = [
        package("app", "1.0.0", &[("lib", "^1")], &[]),
        package("app", "2.0.0", &[("lib", "^2")], &[]),
        package("lib", "1.0.0", &[], &[]),
        package("lib", "1.5.0", &[], &[]),
        package("lib", "2.0.0", &[], &[]),
        package("lib", "3.0.0-beta.1", &[], &[]),
        package("ring", "1.0.0", &[("app", "*")], &[]),
        package("cycle", "1.0.0", &[("elcyc", "1")], &[]),
        package("elcyc", "1.0.0", &[("cycle", "1")], &[]),
    ];
    assert_eq!(chosen(&[("app", "*")], &known), "app 2.0.0, lib 2.0.0");
    assert_eq!(chosen(&[("app", "*"), ("lib", "~1.0")], &known), "app 1.0.0, lib 1.0.0");
    assert_eq!(chosen(&[("lib", "=3.0.0-beta.1")], &known), "lib 3.0.0-beta.1");
    assert_eq!(chosen(&[("lib", ">=1, <2")], &known), "lib 1.5.0");
    assert_eq!(chosen(&[("lib", "1.*")], &known), "lib 1.5.0");
    assert_eq!(chosen(&[("cycle", "*")], &known), "cycle 1.0.0, elcyc 1.0.0");
}

#[test]
fn a_package_that_needs_itself_is_no_way_round_what_is_wanted() {
    let known = [
        package("tool", "1.0.0", &[("tool", "^1"), ("lib", "^1")], &[]),
        package("tool", "1.1.0", &[("tool", "<1.1")], &[]),
        package("lib", "1.0.0", &[], &[]),
    ];
    assert_eq!(chosen(&[("tool", "*")], &known), "lib 1.0.0, tool 1.0.0");
    assert!(solve(&wanted(&[("tool", "^1.1")]), &known).is_err());
}

#[test]
fn requirements_mean_what_the_crate_semver_means() {
    let versions = ["0.0.3", "0.0.4", "0.2.3", "0.2.9", "0.3.0", "1.0.0", "1.2.3", "1.2.9", "1.3.0", "2.0.0"];
    let known: Vec<Package> = versions.iter().map(|version| package("p", version, &[], &[])).collect();
    let ranges = [
        "*",
        "^0.0.3",
        "^0.0",
        "^0",
        "^0.2.3",
        "^1.2.3",
        "^1",
        "~0.2",
        "~1",
        "~1.2.3",
        "=1.2",
        "=1",
        "=1.2.3",
        ">1",
        ">1.2",
        ">1.2.3",
        ">=1.2",
        "<1",
        "<=1",
        "<=1.2",
        "<1.2.9",
        "<=1.2.9",
        "1.2.*",
        ">=0.2.9, <1.3",
    ];
    for range in ranges {
        let wanted: VersionReq = range.parse().unwrap();
        let expected =
            versions.iter().map(|version| version.parse::<Version>().unwrap()).filter(|v| wanted.matches(v)).max();
        let found = solve(&BTreeMap::from([("p".to_owned(), wanted)]), &known).ok().and_then(|mut all| all.remove("p"));
        assert_eq!(found, expected, "{range}");
    }
}

#[test]
fn what_does_not_fit_is_told_in_sentences() {
    let known = [
        package("app", "1.0.0", &[("lib", "^2")], &[]),
        package("lib", "1.0.0", &[], &[]),
        package("lib", "2.0.0", &[], &[]),
        package("foe", "1.0.0", &[], &[("lib", ">=2")]),
    ];
    let text = |list: &[(&str, &str)]| match solve(&wanted(list), &known) {
        Err(ReleaseError::Unsolvable { reason }) => reason,
        other => panic!("{other:?}"),
    };
    let reason = text(&[("app", "*"), ("lib", "^1")]);
    assert!(reason.contains("Because") && reason.contains("app") && reason.contains("depends on lib"), "{reason}");
    assert!(text(&[("absent", "*")]).contains("absent"));
    let reason = text(&[("app", "*"), ("foe", "*")]);
    assert!(reason.contains("foe 1.0.0 conflicts with lib >=2"), "{reason}");
}

#[test]
fn dependencies_come_along_in_one_version() {
    let world = World::new();
    world.publish("lib", "1.0.0", json!({}), &[("lib", "l1")]);
    world.publish("app", "1.0.0", json!({ "dependencies": { "lib": "^1" } }), &[("app", "a1")]);
    world.follow();
    let count = world.client.versions().unwrap().len();
    assert_eq!(installed(&world.install(&["app"]).unwrap()), ["app - 1.0.0", "lib - 1.0.0"]);
    assert_eq!(world.client.versions().unwrap().len(), count + 1);
    world.publish("lib", "2.0.0", json!({}), &[("lib", "l2")]);
    assert!(world.update().unwrap().installed.is_empty(), "app does not fit lib 2");
    world.publish("app", "2.0.0", json!({ "dependencies": { "lib": "^2" } }), &[("app", "a2")]);
    assert_eq!(installed(&world.update().unwrap()), ["app 1.0.0 2.0.0", "lib 1.0.0 2.0.0"]);
    let error = world.install(&["app", "lib@^1"]).unwrap_err();
    assert!(matches!(error, ReleaseError::Unsolvable { .. }), "{error}");
}

#[test]
fn compatibility_floors_epochs_pins_and_skips_hold_versions_back() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.follow();
    world.install(&["tool"]).unwrap();
    world.publish("tool", "2.0.0", json!({ "floor": "it converts the data" }), &[("t", "2")]);
    world.publish("tool", "3.0.0", json!({ "from": "^2" }), &[("t", "3")]);
    world.publish("tool", "4.0.0", json!({}), &[("t", "4")]);
    assert!(world.reason("3.0.0").unwrap().contains("it is for ^2, and 1.0.0 is installed"));
    assert!(world.reason("4.0.0").unwrap().contains("2.0.0 has to be installed first: it converts the data"));
    let pin = |release: &str| drop(run(&world.client, &Request::Pin { packages: vec![release.to_owned()] }).unwrap());
    pin("tool@1.0.0");
    assert!(world.update().unwrap().installed.is_empty());
    assert_eq!(world.reason("2.0.0").as_deref(), Some("pinned to 1.0.0"));
    pin("tool");
    assert_eq!(installed(&world.update().unwrap()), ["tool 1.0.0 2.0.0"]);
    let skip = Request::Skip { packages: vec!["tool@4.0.0".to_owned()] };
    run(&world.client, &skip).unwrap();
    assert_eq!(installed(&world.update().unwrap()), ["tool 2.0.0 3.0.0"]);
    // The epoch is apart from the version: an older version may be newer in what counts.
    world.publish("tool", "3.0.1", json!({ "security_epoch": 2 }), &[("t", "5")]);
    let min_epoch = BTreeMap::from([("tool".to_owned(), 2)]);
    let ((repository, keys), channel) = (world.at(), CHANNEL.to_owned());
    run(&world.client, &Request::Channel { repository, keys, channel, windows: None, min_epoch }).unwrap();
    assert!(world.reason("4.0.0").unwrap().contains("epoch 0 is below 2"));
    assert!(world.install(&["tool@4"]).is_err());
    assert_eq!(installed(&world.update().unwrap()), ["tool 3.0.0 3.0.1"]);
    world.change("tool@3.0.1", Change::Pause);
    assert_eq!(ws::read(&world.client, "t"), b"5", "a pause takes nothing back");
}

#[test]
fn a_package_can_say_that_there_is_no_way_back() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({ "rollback": false }), &[("t", "1")]);
    world.follow();
    world.install(&["tool"]).unwrap();
    let error = world.done(&Request::Rollback { packages: vec!["tool".to_owned()] }).unwrap_err();
    assert!(matches!(error, ReleaseError::Withheld { .. }), "{error}");
    let error = world.done(&Request::Rollback { packages: vec!["other".to_owned()] }).unwrap_err();
    assert!(matches!(error, ReleaseError::NotInstalled { .. }), "{error}");
}

#[test]
fn what_needs_a_release_that_was_revoked_goes_back_with_it() {
    let world = World::new();
    world.publish("lib", "1.0.0", json!({}), &[("lib", "1.0")]);
    world.publish("app", "1.0.0", json!({ "dependencies": { "lib": "1" } }), &[("app", "1")]);
    world.follow();
    world.install(&["app"]).unwrap();
    world.publish("lib", "1.1.0", json!({}), &[("lib", "1.1")]);
    world.update().unwrap();
    world.publish("app", "2.0.0", json!({ "dependencies": { "lib": "^1.1" } }), &[("app", "2")]);
    world.update().unwrap();
    // A user may not: the other would be left without what it needs.
    let error = world.done(&Request::Rollback { packages: vec!["lib".to_owned()] }).unwrap_err();
    assert!(
        matches!(error, ReleaseError::Needed { .. }) && error.to_string().contains("app 2.0.0 needs lib"),
        "{error}"
    );
    assert_eq!(ws::read(&world.client, "lib"), b"1.1");
    // What is revoked has to go, and what cannot do without it goes first.
    world.change("lib@1.1.0", Change::Revoke("it is bad".to_owned()));
    let done = world.update().unwrap();
    assert_eq!(done.taken_back, ["app 2.0.0", "lib 1.1.0"]);
    assert_eq!((ws::read(&world.client, "app"), ws::read(&world.client, "lib")), (b"1".to_vec(), b"1.0".to_vec()));
    assert!(world.update().unwrap().installed.is_empty());
    assert!(world.reason("2.0.0").is_none(), "it is not bad itself");
}

#[test]
fn what_needs_a_revoked_release_and_cannot_go_with_it_is_told_once() {
    let world = World::new();
    world.publish("lib", "1.0.0", json!({}), &[("lib", "1")]);
    world.publish("app", "2.0.0", json!({ "dependencies": { "lib": "1" } }), &[("app", "2")]);
    world.follow();
    let client = &world.client;
    client.snapshot(None, Some("before".to_owned())).unwrap();
    world.install(&["lib"]).unwrap();
    client.tag(client.tree().base().index.id, "lib").unwrap();
    world.install(&["app"]).unwrap();
    assert_eq!(world.reason("2.0.0").as_deref(), Some("it is installed"));
    for content in ["1", "2", "3"] {
        ws::write(client, "mine", content.as_bytes());
        ws::snapshot(client);
    }
    client.flush(Some(Duration::from_secs(60))).unwrap();
    // The version that holds the install of the one, and nothing else, is forgotten.
    let forgotten = client.forget(&Retention { last: 2, ..Retention::default() }, false).unwrap().forgotten;
    assert!(!forgotten.is_empty());
    world.change("lib@1.0.0", Change::Revoke("it is bad".to_owned()));
    for _ in 0..2 {
        let error = world.update().unwrap_err();
        assert!(matches!(error, ReleaseError::Unsolvable { .. }), "{error}");
    }
    assert!(!ws::live(client).contains_key("lib"), "what is revoked goes all the same");
    assert_eq!((ws::read(client, "app"), ws::read(client, "mine")), (b"2".to_vec(), b"3".to_vec()));
    assert_eq!(world.reason("2.0.0").as_deref(), Some("it is installed, and what it needs is not: lib ^1"));
    let stays = world.events().iter().filter(|event| *event == "stays app 2.0.0").count();
    assert_eq!(stays, 1, "{:?}", world.events());
    let detail = &world.state().events.into_iter().find(|event| event.what == "stays").unwrap().detail;
    assert!(detail.contains("app 2.0.0 needs lib ^1, which is revoked, and cannot be taken back"), "{detail}");
}

#[test]
fn a_revoked_release_that_cannot_be_taken_back_is_told_and_nothing_else_goes() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.follow();
    world.install(&["tool"]).unwrap();
    for content in ["1", "2", "3"] {
        ws::write(&world.client, "mine", content.as_bytes());
        ws::snapshot(&world.client);
    }
    world.client.flush(Some(Duration::from_secs(60))).unwrap();
    world.client.forget(&Retention { last: 2, ..Retention::default() }, false).unwrap();
    world.change("tool@1.0.0", Change::Revoke("it is bad".to_owned()));
    world.update().ok();
    world.update().ok();
    assert_eq!((ws::read(&world.client, "t"), ws::read(&world.client, "mine")), (b"1".to_vec(), b"3".to_vec()));
    assert_eq!(world.events().iter().filter(|event| *event == "stays tool 1.0.0").count(), 1, "{:?}", world.events());
    assert_eq!(world.reason("1.0.0").as_deref(), Some("revoked: it is bad"));
}

#[test]
fn a_version_that_was_revoked_is_never_offered_again_in_its_channel() {
    let world = World::new();
    let (repository, keys) = world.at();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.change("tool@1.0.0", Change::Revoke("it is bad".to_owned()));
    let promote = |from: &str, to: &str| Request::Promote {
        packages: vec!["tool@1.0.0".to_owned()],
        repository: repository.clone(),
        keys: keys.clone(),
        from: from.to_owned(),
        channel: to.to_owned(),
        rollout: Rollout::default(),
    };
    let refused = |reply: Result<Reply, ReleaseError>| {
        let error = reply.unwrap_err();
        assert!(matches!(error, ReleaseError::Revoked { .. }), "{error}");
        assert_eq!(error.to_string(), "tool 1.0.0 was revoked in stable (it is bad) and is not offered again");
    };
    let again = || world.publish_as(("tool", "1.0.0"), json!({}), &[("t", "1")], Rollout::default());
    refused(again());
    refused(run(&world.client, &promote(CHANNEL, "beta")));
    let dir = world.package("tool", "1.0.0", json!({}), &[("t", "1")]);
    let (channel, rollout) = ("beta".to_owned(), Rollout::default());
    let (repository, keys) = world.at();
    run(&world.client, &Request::Publish { dir, repository, keys, channel, rollout }).unwrap();
    refused(run(&world.client, &promote("beta", CHANNEL)));
    // Nor when it was cleaned up since.
    world.publish("tool", "1.1.0", json!({}), &[("t", "2")]);
    let ((repository, keys), channel) = (world.at(), CHANNEL.to_owned());
    run(&world.client, &Request::Cleanup { repository, keys, channel, keep: 1, dry_run: false }).unwrap();
    assert!(world.standings().iter().all(|standing| standing.version != "1.0.0"));
    refused(again());
    refused(run(&world.client, &promote("beta", CHANNEL)));
}
