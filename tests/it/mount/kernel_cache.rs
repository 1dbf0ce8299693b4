//! What the kernel keeps, and that it forgets when it must.

use std::fs;
use std::time::{Duration, Instant};

use kura::fuse::Operation;

use super::guard::{Place, sh};

#[test]
fn what_is_warm_costs_no_request() {
    let place = Place::new();
    let mount = place.mount_with(|_| {}, Default::default(), false);
    sh(mount.path(), "mkdir d; for i in $(seq 200); do echo $i > d/$i; done; head -c 3000000 /dev/urandom > big");
    let walk = || {
        for entry in fs::read_dir(mount.at("d")).unwrap() {
            assert!(entry.unwrap().metadata().unwrap().is_file());
        }
        assert!(fs::metadata(mount.at("missing")).is_err());
    };
    walk();
    let before = mount.requests_waited_for();
    walk();
    assert!(mount.requests_waited_for() - before <= 2, "{:?}", mount.mounted().requests());
    fs::read(mount.at("big")).unwrap();
    let (reads, waited) = (mount.requests(Operation::Read), mount.requests_waited_for());
    fs::read(mount.at("big")).unwrap();
    assert_eq!(mount.requests(Operation::Read), reads, "warm data is not read again");
    assert!(mount.requests_waited_for() - waited <= 2, "only the opening is asked for");
    mount.end();
}

#[test]
fn listing_a_directory_tells_all_about_its_files() {
    let place = Place::new();
    let mount = place.mount();
    sh(mount.path(), "mkdir d; for i in $(seq 1000); do : > d/$i; done");
    mount.end();
    let mount = place.mount_with(|_| {}, Default::default(), false);
    sh(mount.path(), "find d -size 0 | wc -l | grep -qx 1000");
    let asked = mount.requests(Operation::Lookup) + mount.requests(Operation::Getattr);
    assert!(asked < 20, "{:?}", mount.mounted().requests());
    // `ls` is told once that there are neither labels nor access lists, and asks for no other file's.
    sh(mount.path(), "ls -l d | wc -l | grep -qx 1001");
    assert!(mount.requests(Operation::Getxattr) < 20, "{:?}", mount.mounted().requests());
    mount.end();
}

/// Invalidations are sent behind the operation's back, so they are waited for.
fn soon(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_a_restore_changes_is_seen_though_it_was_cached() {
    let place = Place::new();
    let mount = place.mount();
    sh(mount.path(), "mkdir d; echo old > d/f; echo gone > d/g; ln -s old d/l");
    let version = mount.workspace.snapshot(None, None).unwrap().record.id;
    sh(mount.path(), "echo new, and longer > d/f; rm d/g d/l; ln -s new d/l; echo x > d/h; mkdir e; echo y > e/y");
    // All of it gets into the kernel's caches, the missing name included.
    sh(mount.path(), "ls -lR . > /dev/null; cat d/f d/h e/y; readlink d/l; ! cat d/g");
    mount.workspace.restore(version, &[], false).unwrap();
    let read = |name: &str| fs::read_to_string(mount.at(name)).ok();
    soon("content", || read("d/f").as_deref() == Some("old\n"));
    soon("size", || fs::metadata(mount.at("d/f")).unwrap().len() == 4);
    soon("a name that was missing", || read("d/g").as_deref() == Some("gone\n"));
    soon("a name that went", || read("d/h").is_none() && !mount.at("e").exists());
    soon("a link", || fs::read_link(mount.at("d/l")).unwrap() == std::path::Path::new("old"));
    soon("a listing", || sh(mount.path(), "ls -R").lines().filter(|line| !line.is_empty()).count() == 6);
    mount.end();
}

#[test]
fn reading_in_order_reads_ahead() {
    let place = Place::new();
    let mount = place.mount();
    sh(
        mount.path(),
        "head -c 40000000 /dev/urandom > big; sha256sum < big > sum; mkdir d; for i in $(seq 100); do head -c \
            3000 /dev/urandom > d/$i; done; cat d/* | sha256sum > sums",
    );
    mount.end();
    let mount = place.mount();
    sh(mount.path(), "sha256sum < big | cmp - sum; for i in d/*; do cat $i; done | sha256sum | cmp - sums");
    mount.end();
}
