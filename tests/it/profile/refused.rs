//! What is refused, and leaves everything as it was.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use kura::apps::profile::{CONFIG_PATH, Install, LOCK_PATH, Place, ProfileError, Request, check_name, run};
use kura::base::clock::{ManualClock, Timestamp};
use kura::workspace::check_path;
use serde_json::json;

use super::support::{Site, expect};
use crate::workspace_rig as ws;

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let bad =
        ["", ".", "..", "a/b", "../evil", "%2e", "a%2f", "CON", "con", "nul.txt", "a.", "a..b", "Ａ", "é", "-a", "a\0"];
    for name in bad {
        assert!(check_name(name).is_err(), "{name:?}");
    }
    assert!(check_name(&"a".repeat(65)).is_err());
    for name in ["a", "web-app_2.0", &"a".repeat(64), "console"] {
        assert!(check_name(name).is_ok(), "{name:?}");
    }
    let site = Site::new();
    site.profile("p", "1", &[("a", "1")]);
    assert!(matches!(site.install("../profiles/p"), Err(ProfileError::Name { .. })));
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let bad = [
        "",
        "/etc/passwd",
        "a//b",
        "a/",
        "./a",
        "a/../../b",
        "..",
        "a\\b",
        "a\0b",
        "a\nb",
        ".kura",
        "a/.KURA/ctl",
        "e\u{301}",
    ];
    for path in bad {
        assert!(check_path(path).is_err(), "{path:?}");
        let site = Site::new();
        site.listed("p", json!({ "version": "1", "files": ["ok", path] }), &[("ok", "1")]);
        assert!(matches!(site.install("p"), Err(ProfileError::BadManifest { .. })), "{path:?}");
        assert_eq!(site.files(), expect(&[]));
    }
    assert!(check_path(&"a/".repeat(2100)).is_err() && check_path(&"a".repeat(256)).is_err());
    assert!(check_path("a/é.txt").is_ok());
}

#[test]
fn manifests_that_are_not_right_are_refused_with_all_their_faults() {
    let site = Site::new();
    let files = &[("a", "1"), ("A", "2"), ("d/x", "3")];
    let bad = [
        (json!({}), "version"),
        (json!({ "version": "1", "typo": 1 }), "typo"),
        (json!({ "version": "" }), "version"),
        (json!({ "version": "1 2" }), "version"),
        (json!({ "version": "1", "name": "other" }), "other"),
        (json!({ "version": "1", "provider": "../x" }), "provider"),
        (json!({ "version": "1", "files": ["missing"] }), "missing"),
        (json!({ "version": "1", "files": ["a", "a"] }), "twice"),
        (json!({ "version": "1", "files": ["a", "A"] }), "upper and lower"),
        (json!({ "version": "1", "files": ["d"] }), "no regular file"),
        (json!({ "version": "1", "files": ["d", "d/x"] }), "a file and a directory"),
        (json!({ "version": "1", "files": [LOCK_PATH] }), "written down"),
        (json!({ "version": "1", "files": ["Profiles.JSON"] }), "written down"),
        (json!({ "version": "1", "files": [{ "path": "a", "mode": "4755" }] }), ""),
        (json!({ "version": "1", "files": [{ "path": "a", "mode": "8" }] }), ""),
        (json!([]), ""),
    ];
    for (manifest, word) in bad {
        site.listed("p", manifest.clone(), files);
        let Err(error @ ProfileError::BadManifest { .. }) = site.install("p") else { panic!("{manifest} was taken") };
        assert!(error.to_string().contains(word), "{manifest}: {error}");
        assert!(error.to_string().starts_with("reading the profile: "), "{error}");
    }
    site.listed("p", json!({ "version": "1" }), &[]);
    assert!(matches!(site.install("p"), Err(ProfileError::BadManifest { .. })), "no files");
    let manifest = site.profiles().join("p/profile.json");
    fs::write(&manifest, r#"{"version": "1", "version": "2"}"#).unwrap();
    assert!(matches!(site.install("p"), Err(ProfileError::BadManifest { .. })), "a key twice");
    fs::write(&manifest, vec![b' '; (16 << 20) + 1]).unwrap();
    assert!(site.install("p").unwrap_err().to_string().contains("longer"));
    fs::remove_file(&manifest).unwrap();
    assert!(matches!(site.install("p"), Err(ProfileError::NoManifest { .. })));
    assert!(matches!(site.install("absent"), Err(ProfileError::NoManifest { .. })));
    let nowhere = Install { name: "p".to_owned(), ..Install::default() };
    assert!(site.run(&Request::Install(nowhere)).is_err());
    assert_eq!(ws::live(&site.workspace).len(), 0);
}

#[test]
fn nothing_outside_of_the_profile_is_read() {
    let site = Site::new();
    let secret = site.rig.dir.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "secret").unwrap();
    fs::write(secret.join("profile.json"), r#"{"version": "1"}"#).unwrap();
    site.listed("p", json!({ "version": "1", "files": ["link", "dir/key"] }), &[]);
    symlink(secret.join("key"), site.profiles().join("p/link")).unwrap();
    symlink(&secret, site.profiles().join("p/dir")).unwrap();
    let error = site.install("p").unwrap_err().to_string();
    assert!(error.contains("`link`") && error.contains("`dir/key`"), "{error}");
    site.listed("q", json!({ "version": "1" }), &[("a", "1")]);
    symlink(&secret, site.profiles().join("q/dir")).unwrap();
    assert!(site.install("q").is_err(), "walking finds it, too");
    symlink(&secret, site.profiles().join("r")).unwrap();
    assert!(site.install("r").is_err(), "a profile is no link");
    let status = std::process::Command::new("mkfifo").arg(site.profiles().join("q/pipe")).status().unwrap();
    assert!(status.success());
    site.listed("s", json!({ "version": "1", "files": ["pipe"] }), &[]);
    fs::rename(site.profiles().join("q/pipe"), site.profiles().join("s/pipe")).unwrap();
    assert!(site.install("s").is_err(), "a pipe is not waited for");
    let from = Some(Place::Workspace("../up".to_owned()));
    assert!(site.run(&Request::Install(Install { name: "p".to_owned(), from, ..Install::default() })).is_err());
    assert_eq!(ws::live(&site.workspace).len(), 0);
}

#[test]
fn lock_files_that_are_not_ours_are_left_alone() {
    let site = Site::new();
    site.profile("p", "1", &[("a", "1")]);
    site.install("p").unwrap();
    let good = ws::read(&site.workspace, LOCK_PATH);
    let text = String::from_utf8(good.clone()).unwrap();
    let bad = [
        "{".to_owned(),
        "{}".to_owned(),
        text.replace("sha256-", "sha1-"),
        text.replace("\"a\"", "\"../a\""),
        text.replace("\"lockfileVersion\": 1", "\"lockfileVersion\": 1, \"more\": 1"),
        text.replace("\"name\": \"p\"", "\"name\": \"../p\""),
    ];
    for lock in bad {
        assert_ne!(lock, text);
        ws::write(&site.workspace, LOCK_PATH, lock.as_bytes());
        for request in [Request::List {}, Request::Uninstall { name: "p".to_owned(), dry_run: false }] {
            let error = run(&site.workspace, &request).unwrap_err();
            assert!(matches!(error, ProfileError::BadLock { .. }), "{error}: {lock}");
        }
        assert_eq!(ws::read(&site.workspace, LOCK_PATH), lock.as_bytes());
    }
    let newer = text.replace("\"lockfileVersion\": 1", "\"lockfileVersion\": 2");
    ws::write(&site.workspace, LOCK_PATH, newer.as_bytes());
    assert!(matches!(site.upgrade("p"), Err(ProfileError::NewerLock { found: 2, .. })));
    ws::write(&site.workspace, LOCK_PATH, &good);
    ws::write(&site.workspace, CONFIG_PATH, br#"{"profilesVersion": 9, "profiles": []}"#);
    assert!(matches!(site.upgrade("p"), Err(ProfileError::NewerLock { found: 9, .. })));
    // Edited by hand where only the digest of all notices, and lost while the files are there.
    ws::write(&site.workspace, CONFIG_PATH, br#"{"profilesVersion": 1, "profiles": []}"#);
    ws::write(&site.workspace, LOCK_PATH, text.replace("420", "493").as_bytes());
    assert!(site.drift("p").contains(&(LOCK_PATH.to_owned(), "lock".to_owned())));
    ws::remove(&site.workspace, LOCK_PATH);
    assert_eq!(site.install("p").unwrap().files[0].action, "adopt");
}

#[test]
fn a_clock_before_1970_is_an_error_and_one_that_goes_back_is_none() {
    let site = Site::new();
    site.profile("p", "1", &[("a", "1")]);
    let mut options = site.rig.options("other");
    options.clock = Arc::new(ManualClock::new(Timestamp::from_unix_ns(-5_000_000_000)));
    let early = site.rig.try_open(options).unwrap();
    let error = run(&early, &Request::Install(site.want("p"))).unwrap_err();
    assert!(matches!(error, ProfileError::Clock), "{error}");
    assert_eq!(super::support::files(&early), expect(&[]));
    early.close(false).unwrap();
    let mut options = site.rig.options("third");
    options.clock = Arc::new(ManualClock::new(Timestamp::from_unix_ns(951_782_400_000_000_000)));
    let leap = site.rig.try_open(options).unwrap();
    run(&leap, &Request::Install(site.want("p"))).unwrap();
    let lock = String::from_utf8(ws::read(&leap, LOCK_PATH)).unwrap();
    assert!(lock.contains("2000-02-29T00:00:00"), "{lock}");
    leap.close(true).unwrap();
    let mut options = site.rig.options("third");
    options.clock = Arc::new(ManualClock::new(Timestamp::from_unix_ns(915_148_800_000_000_000)));
    let back = site.rig.try_open(options).unwrap();
    site.profile("p", "2", &[("a", "2")]);
    run(&back, &Request::Upgrade(site.want("p"))).unwrap();
    let lock = String::from_utf8(ws::read(&back, LOCK_PATH)).unwrap();
    assert!(lock.contains("1999-01-01T00:00:00"), "{lock}");
    run(&back, &Request::Rollback { name: "p".to_owned(), to: None, force: false, dry_run: false }).unwrap();
    assert_eq!(super::support::files(&back), expect(&[("a", "1")]));
}
