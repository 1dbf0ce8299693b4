//! What happens beside an install: other requests, other machines, a disk that is full.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use kura::apps::release::{self, Doing, ReleaseError, Reply, Request};
use kura::base::sim_disk::SimDisk;
use kura::workspace::Workspace;
use serde_json::json;

use super::crashes::open_on;
use super::support::{CHANNEL, World, run};
use crate::workspace_rig::{self as ws, Rig, publish};

fn follow(world: &World, client: &Workspace) {
    let (repository, trust) = (world.at().0, world.trust(CHANNEL));
    let (access, ring, every_ms, install) = Default::default();
    run(client, &Request::Follow { repository, trust, access, ring, every_ms, install }).unwrap();
}

fn install(what: &str) -> Request {
    Request::Install { packages: vec![what.to_owned()], force: false }
}

#[test]
fn others_change_history_while_an_install_downloads() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("a", "one"), ("b", "two")]);
    world.follow();
    let waited = parking_lot::Mutex::new(Vec::new());
    let told = |_: u64, _: u64, _: &str| {
        let (sender, receiver) = mpsc::channel();
        let client = world.client.clone();
        std::thread::spawn(move || {
            ws::write(&client, "meanwhile", b"edited");
            client.begin_change().map(drop).unwrap();
            sender.send(()).ok();
        });
        // Were it kept waiting, that would be until the end of the install.
        let done = receiver.recv_timeout(Duration::from_secs(30)).is_ok();
        waited.lock().push(done);
        done
    };
    release::run(&world.client, &install("tool"), &Doing { told: &told }).unwrap();
    assert_eq!(*waited.lock(), [true, true]);
    assert_eq!(ws::read(&world.client, "a"), b"one");
    assert_eq!(ws::read(&world.client, "meanwhile"), b"edited");
}

#[test]
fn what_gets_in_the_way_during_a_download_is_found_and_stays() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("a", "one"), ("b", "two")]);
    world.follow();
    let told = |_: u64, _: u64, _: &str| {
        ws::write(&world.client, "b", b"mine");
        true
    };
    let error = release::run(&world.client, &install("tool"), &Doing { told: &told }).unwrap_err();
    assert!(matches!(error, ReleaseError::Conflicts { .. }), "{error}");
    assert_eq!(ws::live(&world.client).into_keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(ws::read(&world.client, "b"), b"mine");
    assert_eq!(world.state().pending, None);
    // By force the new file goes beside it, and is not fetched twice.
    let fetched = parking_lot::Mutex::new(0);
    let told = |_: u64, _: u64, _: &str| {
        *fetched.lock() += 1;
        ws::write(&world.client, "a", b"mine, too");
        true
    };
    let request = Request::Install { packages: vec!["tool".to_owned()], force: true };
    let Reply::Done(done) = release::run(&world.client, &request, &Doing { told: &told }).unwrap() else { panic!() };
    assert_eq!((done.sidecars, *fetched.lock()), (vec!["a.tool".to_owned(), "b.tool".to_owned()], 2));
    assert_eq!(ws::read(&world.client, "a"), b"mine, too");
    assert_eq!(ws::read(&world.client, "a.tool"), b"one");
}

#[test]
fn a_full_disk_leaves_the_state_before_and_counts_against_nobody() {
    let world = World::new();
    let (a, b) = ("x1".repeat(30_000), "y2".repeat(30_000));
    world.publish("tool", "1.0.0", json!({}), &[("a", &a), ("b", &b), ("c", "z")]);
    let (mut refused, mut done) = (0, 0);
    for room in (0..400_000).step_by(40_009) {
        let (rig, sim) = (Rig::new(), SimDisk::new(1));
        let client = open_on(&rig, &sim);
        follow(&world, &client);
        sim.fail_writes_with(libc::ENOSPC, room);
        let outcome = run(&client, &install("tool"));
        sim.allow_writes();
        let names = ws::live(&client).into_keys().filter(|name| !name.starts_with("releases.lock")).count();
        // What was done when the room ended, and could not be written down, is found by the next request.
        assert!(names == 0 || names == 3, "{room}: {outcome:?}");
        assert!(outcome.is_err() || names == 3, "{room}");
        (refused, done) = (refused + usize::from(outcome.is_err()), done + usize::from(outcome.is_ok()));
        run(&client, &install("tool")).unwrap();
        assert_eq!(ws::read(&client, "b"), b.as_bytes(), "{room}");
        let state = release::State::read(&client).unwrap();
        assert!(state.denied.is_empty() && state.pending.is_none(), "{room}");
    }
    assert!(refused > 1 && done > 1, "{refused} {done}");
    assert_eq!(world.standings()[0].totals.failed, 0);
}

#[test]
fn of_installers_at_the_same_time_one_installs_and_the_others_are_told() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.follow();
    let before = world.client.versions().unwrap().len();
    let done: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..4).map(|_| scope.spawn(|| world.install(&["tool"]).unwrap())).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(done.iter().filter(|done| done.installed.len() == 1).count(), 1, "{done:?}");
    assert_eq!(done.iter().filter(|done| done.installed.is_empty() && done.version.is_none()).count(), 3, "{done:?}");
    assert_eq!(world.client.versions().unwrap().len(), before + 1);
}

/// Two machines of one workspace, the second of which does not know yet what the first does.
fn two(world: &World) -> (Arc<Workspace>, Arc<Workspace>) {
    ws::write(&world.client, "base", b"base");
    publish(&world.client);
    let other = world.rig.open("other");
    follow(world, &other);
    (world.client.clone(), other)
}

#[test]
fn two_machines_that_install_at_once_end_with_one_install_and_lose_nothing() {
    for (at_a, at_b, files) in [("1.0.0", "1.0.0", 1), ("1.0.0", "1.1.0", 2)] {
        let world = World::new();
        world.publish("tool", "1.0.0", json!({}), &[("t", "1.0.0")]);
        world.publish("tool", "1.1.0", json!({}), &[("t", "1.1.0")]);
        world.follow();
        let (a, b) = two(&world);
        run(&a, &install(&format!("tool@{at_a}"))).unwrap();
        run(&b, &install(&format!("tool@{at_b}"))).unwrap();
        publish(&a);
        b.sync().unwrap();
        publish(&b);
        a.sync().unwrap();
        assert_eq!(ws::live(&a), ws::live(&b));
        for client in [&a, &b] {
            // The one that came second stays; the other lies beside.
            assert_eq!(ws::read(client, "t"), at_b.as_bytes());
            let names: Vec<String> = ws::live(client).into_keys().filter(|name| name.ends_with('t')).collect();
            assert_eq!(names.len(), files, "{names:?}");
            let Reply::Listed(listed) = run(client, &Request::Verify {}).unwrap() else { panic!() };
            let found: Vec<_> = listed.iter().map(|one| (&one.version[..], one.drift.len())).collect();
            assert_eq!(found, [(at_b, 0)]);
            let done = run(client, &install(&format!("tool@{at_b}"))).unwrap();
            assert!(matches!(&done, Reply::Done(done) if done.installed.is_empty()), "{done:?}");
        }
        let back = Request::Rollback { packages: vec!["tool".to_owned()] };
        run(&a, &back).unwrap();
        assert!(!ws::live(&a).contains_key("t"));
    }
}
