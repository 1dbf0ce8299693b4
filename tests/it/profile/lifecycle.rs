//! Installing, upgrading, verifying, rolling back, taking away.

use kura::apps::profile::{CONFIG_PATH, Install, LOCK_PATH, Place, ProfileError, Reply, Request, counters, run};
use kura::workspace::Side;
use serde_json::json;

use super::support::{Site, actions, expect};
use crate::workspace_rig::{self as ws, letters};

#[test]
fn an_install_is_one_version_with_lock_file_and_configuration() {
    let site = Site::new();
    ws::write(&site.workspace, "mine.txt", b"mine");
    ws::snapshot(&site.workspace);
    let before = site.newest();
    site.profile("webapp", "1.0.0", &[("app.conf", "port 1"), ("bin/run", "#!/bin/sh"), ("empty", "")]);
    let outcome = site.install("webapp").unwrap();
    let expected = ["app.conf", "bin", "bin/run", "empty", CONFIG_PATH, LOCK_PATH];
    let expected: Vec<String> = expected.iter().map(|path| format!("Added {path}")).collect();
    let mut found = letters(&site.workspace, Side::Version(before), Side::Version(site.newest()));
    found.retain(|line| !line.starts_with("Metadata"));
    assert_eq!(found, expected);
    assert_eq!(outcome.version, Some(site.newest().to_string()));
    assert_eq!(site.workspace.version(site.newest()).unwrap().parents, [before], "one version");
    let lock = site.lock();
    let entry = lock.find("webapp").unwrap();
    assert_eq!(entry.base_index, before.to_string());
    assert!(entry.installed_at.ends_with('Z') && entry.installed_at.parse::<jiff::Timestamp>().is_ok());
    assert_eq!(entry.files.len(), 3);
    assert!(ws::read(&site.workspace, CONFIG_PATH).windows(6).any(|part| part == b"webapp"));
    assert_eq!(site.drift("webapp"), []);
    // The same again is nothing.
    let count = site.count();
    let again = site.install("webapp").unwrap();
    assert!(!again.changed && again.version.is_none() && again.install_id == outcome.install_id);
    assert_eq!(site.count(), count);
}

#[test]
fn modes_and_classes_come_from_the_profile_or_its_manifest() {
    let site = Site::new();
    let files = json!(["plain", { "path": "script", "mode": "0750" }, { "path": "conf", "class": "config" }]);
    site.listed(
        "p",
        json!({ "name": "p", "version": "1", "description": "three files", "files": files }),
        &[("plain", "1"), ("script", "2"), ("conf", "3"), ("unlisted", "4")],
    );
    site.install("p").unwrap();
    let live = ws::live(&site.workspace);
    assert_eq!((live["plain"].1, live["script"].1, live["conf"].1), (0o644, 0o750, 0o644));
    assert!(!live.contains_key("unlisted"));
    let lock = site.lock();
    let classes: Vec<String> = lock.profiles[0].files.iter().map(|file| format!("{:?}", file.class)).collect();
    assert_eq!(classes, ["Config", "Data", "Exec"]);
}

#[test]
fn an_empty_list_of_files_means_all_there_are() {
    let site = Site::new();
    site.listed("p", json!({ "version": "1", "files": [] }), &[("a", "1"), ("d/b", "2")]);
    site.install("p").unwrap();
    assert_eq!(site.files(), expect(&[("a", "1"), ("d/b", "2")]));
}

#[test]
fn an_upgrade_replaces_adds_removes_and_leaves_what_the_user_did() {
    let site = Site::new();
    site.profile(
        "p",
        "1",
        &[("a", "a1"), ("b", "b1"), ("kept", "k1"), ("old/deep/gone", "x"), ("old/edited", "e1"), ("z", "z")],
    );
    site.install("p").unwrap();
    ws::write(&site.workspace, "kept", b"my own");
    ws::write(&site.workspace, "old/edited", b"my edit");
    ws::remove(&site.workspace, "z");
    site.profile("p", "2", &[("a", "a2"), ("b", "b1"), ("kept", "k1"), ("new/c", "c2"), ("z", "z2")]);
    let outcome = site.upgrade("p").unwrap();
    let expected = [
        "a replace",
        "b adopt",
        "kept keep",
        "new/c install",
        "z left-removed",
        "old/deep/gone remove",
        "old/edited orphan",
    ];
    assert_eq!(actions(&outcome), expected);
    let files = [("a", "a2"), ("b", "b1"), ("kept", "my own"), ("new/c", "c2"), ("old/edited", "my edit")];
    assert_eq!(site.files(), expect(&files));
    assert!(!ws::live(&site.workspace).contains_key("old/deep"), "an empty directory goes");
    let drift = [("kept", "modified"), ("z", "missing")].map(|(path, what)| (path.to_owned(), what.to_owned()));
    assert_eq!(site.drift("p"), drift);
    // What was removed comes back only when asked for.
    let wanted = Install { restore_missing: true, ..site.want("p") };
    site.run(&Request::Upgrade(wanted)).unwrap();
    assert_eq!(site.files()["z"], "z2");
}

#[test]
fn taking_away_leaves_the_workspace_as_before_but_for_edits() {
    let site = Site::new();
    ws::mkdir(&site.workspace, "bin");
    ws::write(&site.workspace, "same", b"same");
    ws::snapshot(&site.workspace);
    let before = ws::live(&site.workspace);
    site.profile("p", "1", &[("bin/run", "1"), ("d/e/f", "2"), ("same", "same")]);
    site.install("p").unwrap();
    site.uninstall("p").unwrap();
    assert_eq!(ws::live(&site.workspace), before, "what was adopted stays, and so does a directory that was there");
    site.install("p").unwrap();
    ws::write(&site.workspace, "d/e/f", b"edited");
    let outcome = site.uninstall("p").unwrap();
    assert_eq!(actions(&outcome), ["bin/run remove", "d/e/f orphan", "same forget"]);
    assert_eq!(site.files(), expect(&[("d/e/f", "edited"), ("same", "same")]));
    assert!(matches!(site.uninstall("p"), Err(ProfileError::NotInstalled { .. })));
}

#[test]
fn a_rollback_goes_to_the_install_before_or_a_named_one() {
    let site = Site::new();
    site.profile("p", "1", &[("a", "a1"), ("b", "b1")]);
    let first = site.install("p").unwrap().install_id.unwrap();
    site.profile("p", "2", &[("a", "a2"), ("c", "c2")]);
    site.upgrade("p").unwrap();
    ws::write(&site.workspace, "unrelated", b"u");
    site.profile("p", "3", &[("a", "a3")]);
    site.upgrade("p").unwrap();
    let outcome = site.rollback("p", None).unwrap();
    assert_eq!(outcome.profile_version.as_deref(), Some("2"));
    assert_eq!(site.files(), expect(&[("a", "a2"), ("c", "c2"), ("unrelated", "u")]));
    assert_eq!(site.drift("p"), []);
    site.rollback("p", Some(&first)).unwrap();
    assert_eq!(site.files(), expect(&[("a", "a1"), ("b", "b1"), ("unrelated", "u")]));
    // Edits of the user stand in the way, and nothing is touched.
    ws::write(&site.workspace, "a", b"edited");
    let newest = {
        ws::snapshot(&site.workspace);
        site.newest()
    };
    site.profile("p", "4", &[("a", "a4")]);
    assert!(matches!(site.upgrade("p"), Err(ProfileError::Conflicts { .. })));
    assert_eq!(site.newest(), newest);
    // Before the first install there was nothing.
    ws::write(&site.workspace, "a", b"a1");
    site.rollback("p", None).unwrap();
    assert_eq!(site.files(), expect(&[("unrelated", "u")]));
    assert!(matches!(site.rollback("p", Some(&first)), Err(ProfileError::NotInstalled { .. })));
}

#[test]
fn a_profile_inside_the_workspace_is_installed_from_the_version_before() {
    let site = Site::new();
    for dir in ["store", "store/p", "store/p/d"] {
        ws::mkdir(&site.workspace, dir);
    }
    ws::write(&site.workspace, "store/p/profile.json", br#"{"version": "1"}"#);
    ws::write(&site.workspace, "store/p/d/file", b"content");
    let from = Some(Place::Workspace("/store/".to_owned()));
    let wanted = Install { name: "p".to_owned(), from, ..Install::default() };
    site.run(&Request::Install(wanted)).unwrap();
    assert_eq!(ws::read(&site.workspace, "d/file"), b"content");
    // An upgrade knows where it came from.
    ws::write(&site.workspace, "store/p/profile.json", br#"{"version": "2"}"#);
    ws::write(&site.workspace, "store/p/d/file", b"newer");
    site.run(&Request::Upgrade(Install { name: "p".to_owned(), ..Install::default() })).unwrap();
    assert_eq!(ws::read(&site.workspace, "d/file"), b"newer");
}

#[test]
fn a_plan_changes_nothing_and_tells_everything() {
    let site = Site::new();
    ws::write(&site.workspace, "b", b"in the way");
    site.profile("p", "1", &[("a", "1"), ("b", "2")]);
    let count = {
        ws::snapshot(&site.workspace);
        site.count()
    };
    let plan = site.run(&Request::Install(Install { dry_run: true, ..site.want("p") })).unwrap();
    assert_eq!((plan.conflicts.len(), plan.conflicts[0].path.as_str()), (1, "b"));
    assert_eq!(actions(&plan), ["a install", "b conflict"]);
    assert!(plan.changed && plan.version.is_none());
    assert_eq!((site.files(), site.count()), (expect(&[("b", "in the way")]), count));
    let Reply::List(listed) = run(&site.workspace, &Request::List {}).unwrap() else { panic!("no list") };
    assert!(listed.is_empty());
}

#[test]
fn frozen_takes_only_what_the_lock_file_says() {
    let site = Site::new();
    site.profile("p", "1", &[("a", "1")]);
    let frozen = || Request::Upgrade(Install { frozen: true, restore_missing: true, ..site.want("p") });
    let install = Request::Install(Install { frozen: true, ..site.want("p") });
    assert!(matches!(site.run(&install), Err(ProfileError::Frozen { .. })));
    site.install("p").unwrap();
    ws::remove(&site.workspace, "a");
    site.run(&frozen()).unwrap();
    assert_eq!(site.files(), expect(&[("a", "1")]));
    for (version, files) in [("2", vec![("a", "1")]), ("1", vec![("a", "2")]), ("1", vec![("a", "1"), ("b", "1")])] {
        site.profile("p", version, &files);
        assert!(matches!(site.run(&frozen()), Err(ProfileError::Frozen { .. })), "{version} {files:?}");
    }
    site.profile("p", "1", &[("a", "1")]);
    assert!(!site.run(&frozen()).unwrap().changed);
    // What the user made of a file is no matter of the lock file, and stays.
    ws::write(&site.workspace, "a", b"mine");
    assert!(!site.run(&frozen()).unwrap().changed);
    assert_eq!(site.files(), expect(&[("a", "mine")]));
}

#[test]
fn operations_and_their_phases_are_counted() {
    // Other tests count, too.
    let before = counters();
    let site = Site::new();
    ws::write(&site.workspace, "b", b"mine");
    site.profile("p", "1", &[("a", "12345"), ("b", "678")]);
    site.install("p").unwrap_err();
    site.run(&Request::Install(Install { force: true, ..site.want("p") })).unwrap();
    let after = counters();
    assert!(after.done > before.done && after.failed > before.failed);
    assert!(after.files >= before.files + 2 && after.bytes >= before.bytes + 8 && after.sidecars > before.sidecars);
    for ((word, runs, time_ns), (_, runs_before, _)) in after.phases.iter().zip(&before.phases) {
        assert!(runs > runs_before && *time_ns > 0, "{word}");
    }
}

#[test]
fn ten_thousand_files_are_one_version_and_go_again() {
    let site = Site::new();
    let dir = site.profiles().join("big");
    for number in 0..100 {
        std::fs::create_dir_all(dir.join(format!("d{number}"))).unwrap();
    }
    std::fs::write(dir.join("profile.json"), r#"{"version": "1"}"#).unwrap();
    for number in 0..10_000 {
        std::fs::write(dir.join(format!("d{}/f{number}", number % 100)), format!("content {number}").repeat(30))
            .unwrap();
    }
    let count = site.count();
    site.install("big").unwrap();
    assert_eq!(site.count(), count + 1);
    let record = site.workspace.version(site.newest()).unwrap();
    assert_eq!((record.counts.files, record.counts.dirs), (10_002, 100));
    assert_eq!(ws::read(&site.workspace, "d7/f107"), "content 107".repeat(30).as_bytes());
    assert_eq!(site.drift("big"), []);
    site.uninstall("big").unwrap();
    assert_eq!(ws::live(&site.workspace).len(), 0);
}
