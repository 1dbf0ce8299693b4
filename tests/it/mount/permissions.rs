//! Who may do what. These need root, to become somebody else.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use kura::fuse::{MountOptions, Operation};

use super::guard::{Mount, Place, is_root, sh, shell};

/// Runs a command line as a user without groups; says whether it succeeded.
fn as_user(dir: &Path, uid: u32, line: &str) -> bool {
    let quoted = line.replace('\'', "'\\''");
    let output = shell(dir, &format!("exec setpriv --reuid={uid} --regid={uid} --clear-groups sh -ec '{quoted}'"));
    output.status.success()
}

fn open_to_all(place: &Place) -> Mount {
    // Others must be able to get to the mount point.
    for dir in [place.path().to_owned(), place.mountpoint()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    place.mount()
}

/// The options that the kernel shows of a mount.
fn options_of(mount: &Mount) -> String {
    let list = fs::read_to_string("/proc/self/mountinfo").unwrap();
    list.lines().find(|line| line.contains(mount.path().to_str().unwrap())).unwrap().to_owned()
}

#[test]
fn where_only_root_may_enter_the_kernel_does_not_ask_for_modes() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    for dir in [place.path().to_owned(), place.mountpoint()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mount = place.mount_with(|_| {}, MountOptions::default(), true);
    assert!(!options_of(&mount).contains("default_permissions"));
    let dir = mount.path();
    sh(
        dir,
        "printf '#!/bin/sh\necho ran\n' > tool; chmod 644 tool; ! test -x tool; ! ./tool; test -r tool; test -w tool; \
         chmod 755 tool; test -x tool; test $(./tool) = ran; mkdir closed; touch closed/f; chmod 0 closed tool; \
         chown 1000:1000 closed tool; ! test -x tool; ! ./tool; grep -q ran tool; echo more >> tool; test -x closed; \
         cd closed; rm f; touch g; ! test -e f; ! test -r f",
    );
    assert!(!as_user(dir, 1000, "ls") && !as_user(dir, 1000, "cat closed/g"), "nobody else may enter");
    let asked = mount.requests(Operation::Getattr);
    (0..50).for_each(|number| fs::write(mount.at(&format!("file{number}")), "x").unwrap());
    assert!(mount.requests(Operation::Getattr) - asked <= 2, "none for each change of the directory");
    mount.end();
}

#[test]
fn modes_count_for_root_without_rights_where_they_are_asked_for() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let options = MountOptions { default_permissions: true, ..MountOptions::default() };
    let mount = place.mount_with(|_| {}, options, true);
    assert!(options_of(&mount).contains("default_permissions"));
    sh(mount.path(), "echo secret > theirs; chmod 600 theirs; chown 1000:1000 theirs; cat theirs");
    let confined = "exec setpriv --bounding-set=-dac_override,-dac_read_search cat theirs";
    assert!(!shell(mount.path(), confined).status.success());
    mount.end();
}

#[test]
fn the_permissions_of_files_decide() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let mount = open_to_all(&place);
    let dir = mount.path();
    sh(
        dir,
        "echo secret > mine; chmod 600 mine; echo open > all; chmod 644 all; mkdir closed; chmod 700 closed; \
         touch closed/f; mkdir shared; chmod 1777 shared; echo x > shared/roots; mkdir users; chown 1000:1000 users",
    );
    assert!(!as_user(dir, 1000, "cat mine"));
    assert!(as_user(dir, 1000, "cat all"));
    assert!(!as_user(dir, 1000, "echo more >> all"));
    assert!(!as_user(dir, 1000, "stat closed/f"));
    assert!(!as_user(dir, 1000, "touch here"));
    assert!(as_user(dir, 1000, "echo y > shared/own && chmod 640 shared/own"));
    assert!(!as_user(dir, 1001, "cat shared/own"));
    assert!(!as_user(dir, 1001, "rm -f shared/own"), "the sticky bit keeps it");
    assert!(!as_user(dir, 1000, "mv shared/roots shared/stolen"));
    assert!(!as_user(dir, 1000, "chown 1001 shared/own"));
    assert!(!as_user(dir, 1000, "chmod 777 all"));
    assert!(!as_user(dir, 1000, "touch -d 2000-01-01 all"));
    assert!(as_user(dir, 1000, "mkdir -p users/a/b && mv users/a users/c && rm -r users/c"));
    let own = fs::metadata(mount.at("shared/own")).unwrap();
    assert_eq!((own.uid(), own.gid()), (1000, 1000));
    mount.end();
}

#[test]
fn groups_are_inherited_where_the_directory_says_so() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let mount = open_to_all(&place);
    sh(mount.path(), "mkdir g; chown 1000:2000 g; chmod 2775 g");
    assert!(as_user(mount.path(), 1000, "touch g/f; mkdir g/d; touch g/d/e"));
    for (name, mode) in [("g/f", 0o644), ("g/d", 0o2755), ("g/d/e", 0o644)] {
        let found = fs::metadata(mount.at(name)).unwrap();
        assert_eq!((found.gid(), found.mode() & 0o7777), (2000, mode), "{name}");
    }
    mount.end();
}

#[test]
fn bits_that_lend_rights_go_when_somebody_writes() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let mount = open_to_all(&place);
    let dir = mount.path();
    // The mode alone: whoever asks for more has the kernel ask us again.
    let mode = |name: &str| u32::from_str_radix(sh(dir, &format!("stat -c %a {name}")).trim(), 8).unwrap();
    let prepare = |name: &str| sh(dir, &format!("echo x > {name}; chown 1000:1000 {name}; chmod 6777 {name}"));
    for (name, line) in [
        ("written", "echo more >> written"),
        ("cut", "truncate -s 1 cut"),
        ("emptied", ": > emptied"),
        ("allocated", "fallocate -l 100 allocated"),
    ] {
        prepare(name);
        assert_eq!(mode(name), 0o6777);
        assert!(as_user(dir, 1001, line), "{line}");
        assert_eq!(mode(name), 0o777, "{name}");
    }
    prepare("given");
    sh(dir, "chown 1001 given");
    assert_eq!(mode("given"), 0o777, "a new owner takes them away, too");
    prepare("roots");
    sh(dir, "echo more >> roots");
    assert_eq!(mode("roots"), 0o6777, "root may keep them");
    mount.end();
}

#[test]
fn control_files_are_their_owners_alone() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let mount = open_to_all(&place);
    fs::write(mount.at("f"), "x").unwrap();
    fs::create_dir(mount.at(".kura/snapshots/one")).unwrap();
    assert!(mount.at(".kura/status").exists());
    for line in [
        "ls .kura",
        "cat .kura/status",
        "cat .kura/snapshots/one/f",
        "mkdir .kura/snapshots/two",
        "stat .kura/versions/latest/",
        "echo {} > .kura/ctl/run",
    ] {
        assert!(!as_user(mount.path(), 1000, line), "{line}");
    }
    assert_eq!(sh(mount.path(), "cat .kura/snapshots/one/f"), "x");
    mount.end();
}

#[test]
fn an_ordinary_user_mounts_through_the_helper() {
    if !is_root() {
        return;
    }
    // The test binary itself is run again as somebody else; see `mount_as_whoever_i_am`.
    let place = Place::new();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = std::env::current_exe().unwrap();
    // In a view of its own, /dev/fuse is everybody's, as it is on most machines.
    let line = format!(
        "exec unshare -m sh -ec 'mknod -m 666 fuse c 10 229; chmod 666 fuse; mount --bind fuse /dev/fuse; cp {} \
            it; chmod 755 it; \
         exec setpriv --reuid=65534 --regid=65534 --clear-groups ./it --exact --ignored --nocapture \
         mount::permissions::mount_as_whoever_i_am'",
        binary.display()
    );
    let output = shell(place.path(), &line);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("mounted and unmounted"), "{text}");
}

#[test]
#[ignore = "run by `an_ordinary_user_mounts_through_the_helper`"]
fn mount_as_whoever_i_am() {
    let place = Place::new();
    let mount = place.mount_with(|_| {}, Default::default(), true);
    fs::write(mount.at("f"), "mine").unwrap();
    assert_eq!(fs::metadata(mount.at("f")).unwrap().uid(), nix::unistd::geteuid().as_raw());
    assert!(mount.at(".kura/status").exists());
    mount.end();
    println!("mounted and unmounted");
}
