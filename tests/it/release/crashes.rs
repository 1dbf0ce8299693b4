//! Kills at every step of an install, and what a client does about them when it comes back.

use std::sync::Arc;

use kura::apps::release::{ReleaseError, Request, State};
use kura::base::sim_disk::{Crash, SimDisk};
use kura::workspace::Workspace;
use serde_json::{Value, json};

use super::support::{World, run};
use crate::workspace_rig::{self as ws, Rig};

pub fn open_on(rig: &Rig, sim: &SimDisk) -> Arc<Workspace> {
    let mut options = rig.options("state");
    options.state_dir = "/state".into();
    options.cache_dir = "/cache".into();
    options.disk = Arc::new(sim.clone());
    rig.try_open(options).unwrap()
}

/// The content of `a`, how many files of the package there are, and the version that the lock file names.
fn shown(workspace: &Workspace) -> (String, usize, String) {
    let text = |path: &str| String::from_utf8(ws::read(workspace, path)).unwrap();
    let count = ws::live(workspace).keys().filter(|path| path.starts_with("many/")).count();
    let lock: Value = serde_json::from_str(&text("releases.lock/tool.json")).unwrap();
    (text("a"), count, lock["version"].as_str().unwrap().to_owned())
}

/// Kills an update to 2.0.0 at every step, and lets the client come back each time; `good` says whether 2.0.0 passes
/// its check.
fn killed_at_every_step(good: bool) {
    let world = World::new();
    let many: Vec<String> = (0..12).map(|number| format!("many/{number}")).collect();
    let mut files: Vec<(&str, &str)> = many.iter().map(|path| (path.as_str(), "content")).collect();
    world.publish("tool", "1.0.0", json!({}), &[("a", "one"), ("old", "old")]);
    files.push(("a", "two"));
    let command = if good { "true" } else { "false" };
    let check = json!({ "checks": [{ "name": "check", "command": [command], "timeout_ms": 60_000 }] });
    world.publish("tool", "2.0.0", check, &files);
    let trust = world.trust(super::support::CHANNEL);
    let repository = world.at().0;
    let old = ("one".to_owned(), 0, "1.0.0".to_owned());
    let new = ("two".to_owned(), 12, "2.0.0".to_owned());
    let stride = if std::env::var_os("KURA_TEST_LONG").is_some() { 1 } else { 5 };
    let (mut seen, mut denied) = ([0, 0], 0);
    for step in (0..).step_by(stride) {
        let (rig, sim) = (Rig::new(), SimDisk::new(7));
        let workspace = open_on(&rig, &sim);
        let (access, ring, every_ms, install) = Default::default();
        let (repository, trust) = (repository.clone(), trust.clone());
        run(&workspace, &Request::Follow { repository, trust, access, ring, every_ms, install }).unwrap();
        run(&workspace, &Request::Install { packages: vec!["tool@1.0.0".to_owned()], force: false }).unwrap();
        assert_eq!(shown(&workspace), old);
        sim.crash_at(sim.steps() + step);
        let done = run(&workspace, &Request::Update {});
        let is_over = !sim.has_crashed();
        drop(workspace);
        let workspace = open_on(&rig, &sim.reopen(Crash::Kill));
        let found = shown(&workspace);
        assert!(found == old || found == new, "step {step}: {found:?}");
        seen[usize::from(found == new)] += 1;
        // It comes back: what was not checked is checked, and what failed before is not tried again.
        let was_denied = !State::read(&workspace).unwrap().denied.is_empty();
        let after = run(&workspace, &Request::Update {});
        denied += usize::from(was_denied && found == new);
        match (good, was_denied) {
            (true, _) => assert_eq!((after.is_ok(), shown(&workspace)), (true, new.clone()), "step {step}: {after:?}"),
            (false, true) => {
                assert_eq!((after.is_ok(), shown(&workspace)), (true, old.clone()), "step {step}: {after:?}")
            }
            (false, false) => assert_eq!(shown(&workspace), old, "step {step}: {after:?}"),
        }
        let state = State::read(&workspace).unwrap();
        assert_eq!(state.pending, None, "step {step}");
        assert_eq!(state.denied.contains_key("tool"), !good, "step {step}");
        if is_over {
            let failed = matches!(done, Err(ReleaseError::Reverted { .. }));
            assert_eq!(failed, !good);
            break;
        }
    }
    assert!(seen[0] > 2 && seen[1] > 1, "{seen:?}");
    assert!(good || stride > 1 || denied > 0, "no kill came between the verdict and the way back");
}

#[test]
fn a_kill_in_any_step_of_an_install_leaves_one_version_or_the_other_and_the_checks_are_made_up_for() {
    killed_at_every_step(true);
}

#[test]
fn a_kill_in_any_step_of_an_install_that_fails_its_check_leaves_it_undone_in_the_end() {
    killed_at_every_step(false);
}

#[test]
fn very_many_files_are_one_version_and_go_again() {
    // Putting each content into a repository durably takes its time.
    let (count, contents) = if std::env::var_os("KURA_TEST_LONG").is_some() { (10_000, 10_000) } else { (3_000, 97) };
    let world = World::new();
    let paths: Vec<String> = (0..count).map(|number| format!("d{}/{number}", number % 50)).collect();
    let texts: Vec<String> = (0..count).map(|number| format!("content {}", number % contents)).collect();
    let files: Vec<(&str, &str)> = paths.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
    world.publish("tool", "1.0.0", json!({}), &files);
    world.follow();
    let before = world.client.versions().unwrap().len();
    world.install(&["tool"]).unwrap();
    assert_eq!(world.client.versions().unwrap().len(), before + 1);
    assert_eq!(ws::read(&world.client, &paths[count - 1]), texts[count - 1].as_bytes());
    world.done(&Request::Rollback { packages: vec!["tool".to_owned()] }).unwrap();
    assert!(ws::live(&world.client).keys().all(|path| !path.starts_with('d')));
}
