//! `.kura`: status, past versions, snapshots, requests.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::guard::{Place, python, sh};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_control_directory_is_hidden_and_its_name_is_taken() {
    let place = Place::new();
    let mount = place.mount();
    fs::write(mount.at("f"), "").unwrap();
    assert_eq!(names(mount.path()), ["f"]);
    assert_eq!(
        names(&mount.at(".kura")),
        [
            "access-log",
            "config",
            "conflicts",
            "ctl",
            "events",
            "history",
            "jobs",
            "metrics",
            "snapshots",
            "status",
            "status.json",
            "versions"
        ]
    );
    assert_eq!(names(&mount.at(".kura/versions")), ["by-id", "by-tag", "by-time", "latest"]);
    let status = fs::read_to_string(mount.at(".kura/status")).unwrap();
    assert!(status.contains(&mount.workspace.id().to_string()), "{status}");
    let json: serde_json::Value = serde_json::from_slice(&fs::read(mount.at(".kura/status.json")).unwrap()).unwrap();
    assert_eq!(json["workspace"], mount.workspace.id().to_string());
    fs::create_dir(mount.at("d")).unwrap();
    for refused in [
        fs::rename(mount.at("d"), mount.at(".kura")),
        fs::rename(mount.at(".kura"), mount.at("elsewhere")),
        fs::remove_dir(mount.at(".kura")),
        fs::rename(mount.at("d/.kura"), mount.at("elsewhere")),
        fs::remove_dir(mount.at("d/.kura")),
        fs::create_dir(mount.at(".kura/new")),
        fs::remove_file(mount.at(".kura/status")),
        fs::create_dir(mount.at(".kura/versions/new")),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
    for (taken, kind) in [
        (fs::create_dir(mount.at("d/.kura")), ErrorKind::AlreadyExists),
        (fs::hard_link(mount.at("f"), mount.at("d/.kura")), ErrorKind::AlreadyExists),
        (fs::write(mount.at("d/.kura"), "x"), ErrorKind::IsADirectory),
        (fs::rename(mount.at("f"), mount.at("d/.kura")), ErrorKind::IsADirectory),
    ] {
        assert_eq!(taken.unwrap_err().kind(), kind);
    }
    assert_eq!(fs::create_dir(mount.at(".kura")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::metadata(mount.at(".kura/nothing")).unwrap_err().kind(), ErrorKind::NotFound);
    mount.end();
}

#[test]
fn conflicts_are_listed_in_a_file() {
    let place = Place::new();
    let mount = place.mount();
    assert_eq!(fs::read_to_string(mount.at(".kura/conflicts")).unwrap(), "");
    fs::create_dir(mount.at("d")).unwrap();
    for name in ["d/f", "d/conflict-20270101.000000.f", "d/conflict-20270102.000000.f", "d/other"] {
        fs::write(mount.at(name), name).unwrap();
    }
    let listed = fs::read_to_string(mount.at(".kura/conflicts")).unwrap();
    assert_eq!(listed, "d/f -> d/conflict-20270101.000000.f\nd/f -> d/conflict-20270102.000000.f\n");
    fs::remove_file(mount.at("d/conflict-20270101.000000.f")).unwrap();
    assert_eq!(fs::read_to_string(mount.at(".kura/conflicts")).unwrap().lines().count(), 1);
    assert!(fs::write(mount.at(".kura/conflicts"), "x").is_err());
    mount.end();
}

#[test]
fn past_versions_are_ordinary_files_that_never_change() {
    let place = Place::new();
    let mount = place.mount();
    sh(
        mount.path(),
        "mkdir -p a/b; echo one > a/f; ln a/f a/b/g; ln -s ../f a/b/l; mkfifo a/p; chmod 640 a/f; \
         head -c 1000000 /dev/urandom > big; truncate -s 2M holes; printf end >> holes",
    );
    let sum = sh(mount.path(), "sha256sum < big");
    fs::create_dir(mount.at(".kura/snapshots/first")).unwrap();
    sh(mount.path(), "echo two > a/f; rm a/b/g big; mkdir later");
    let first = mount.at(".kura/snapshots/first");
    assert_eq!(fs::read_to_string(first.join("a/f")).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(first.join("a/b/g")).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(first.join("a/b/l")).unwrap(), "one\n");
    assert_eq!(sh(&first, "sha256sum < big"), sum);
    assert_eq!(names(&first), ["a", "big", "holes"]);
    let (f, g) = (fs::metadata(first.join("a/f")).unwrap(), fs::metadata(first.join("a/b/g")).unwrap());
    assert_eq!((f.ino(), f.nlink(), f.mode() & 0o7777), (g.ino(), 2, 0o640));
    assert_ne!(f.ino(), fs::metadata(mount.at("a/f")).unwrap().ino());
    sh(&first, "test -p a/p; cmp -n 2097152 holes /dev/zero; tail -c 3 holes | grep -q end");
    python(
        &first,
        "import os; f = os.open('holes', 0); assert os.lseek(f, 5, os.SEEK_HOLE) == 5; \
                    assert 0 < os.lseek(f, 0, os.SEEK_DATA) <= 2097152",
    );
    for refused in [
        fs::write(first.join("a/f"), "x"),
        fs::remove_file(first.join("a/f")),
        fs::create_dir(first.join("new")),
        fs::rename(first.join("big"), first.join("other")),
        fs::rename(first.join("big"), mount.at("stolen")),
        fs::remove_dir(first.join("a")),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    }
    assert_eq!(fs::hard_link(first.join("big"), mount.at("big")).unwrap_err().kind(), ErrorKind::CrossesDevices);
    sh(mount.path(), "cp -a .kura/snapshots/first/big back; cmp back .kura/snapshots/first/big");
    mount.end();
}

#[test]
fn versions_are_found_by_id_time_and_tag() {
    let place = Place::new();
    let mount = place.mount_with(|options| options.intervals.version_quiet_ms = 3_600_000, Default::default(), true);
    let versions = mount.at(".kura/versions");
    let latest = || fs::read_link(mount.at(".kura/versions/latest")).unwrap();
    for (text, tag) in [("one", "v1"), ("two", "v2")] {
        let before = latest();
        fs::write(mount.at("f"), text).unwrap();
        fs::create_dir(mount.at(".kura/snapshots").join(tag)).unwrap();
        assert_ne!(latest(), before, "the link leads to the new version at once");
        assert_eq!(fs::read_to_string(versions.join("latest/f")).unwrap(), text);
        assert_eq!(fs::read_to_string(versions.join("by-tag").join(tag).join("f")).unwrap(), text);
    }
    assert_eq!(names(&mount.at(".kura/snapshots")), ["v1", "v2"]);
    assert_eq!(names(&versions.join("by-tag")), ["v1", "v2"]);
    assert_eq!(names(&versions.join("by-id")).len(), 3);
    let times = names(&versions.join("by-time"));
    assert_eq!(times.len(), 3);
    assert_eq!(fs::read_to_string(versions.join("by-time").join(&times[1]).join("f")).unwrap(), "one");
    assert_eq!(fs::read_to_string(versions.join("by-time/2199-01-01T00:00:00Z/f")).unwrap(), "two");
    assert!(fs::metadata(versions.join("by-time/1999-01-01T00:00:00Z")).is_err());
    for wrong in ["by-id/nonsense", "by-id/00000000-0000-0000-0000-000000000000", "by-tag/v3", "by-time/x"] {
        assert_eq!(fs::symlink_metadata(versions.join(wrong)).unwrap_err().kind(), ErrorKind::NotFound, "{wrong}");
    }
    fs::create_dir(mount.at(".kura/snapshots/v1")).unwrap_err();
    for bad in ["latest", "a:b", " x"] {
        assert!(fs::create_dir(mount.at(".kura/snapshots").join(bad)).is_err(), "{bad}");
    }
    fs::remove_dir(mount.at(".kura/snapshots/v1")).unwrap();
    assert_eq!(names(&mount.at(".kura/snapshots")), ["v2"]);
    assert_eq!(fs::metadata(mount.at(".kura/snapshots/v1")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::read_to_string(versions.join("by-time").join(&times[1]).join("f")).unwrap(), "one");
    fs::remove_dir(mount.at(".kura/snapshots/v1")).unwrap_err();
    mount.end();
}

#[test]
fn a_big_directory_of_a_past_version_is_listed_whole() {
    let place = Place::new();
    // No version but the one that is asked for.
    let mount = place.mount_with(|options| options.intervals.version_quiet_ms = 3_600_000, Default::default(), true);
    let expected: HashSet<String> = (0..2500).map(|number| format!("a name of some length, {number}")).collect();
    fs::create_dir(mount.at("d")).unwrap();
    for name in &expected {
        fs::write(mount.at("d").join(name), name).unwrap();
    }
    fs::create_dir(mount.at(".kura/snapshots/many")).unwrap();
    fs::remove_dir_all(mount.at("d")).unwrap();
    for line in ["ls -U", "ls -lU | awk 'NR > 1'", "find . -mindepth 1"] {
        let listed = sh(&mount.at(".kura/snapshots/many/d"), &format!("{line} | sort -u | wc -l"));
        assert_eq!(listed.trim(), "2500", "{line}");
    }
    let listed = names(&mount.at(".kura/versions/latest/d"));
    assert_eq!(listed.into_iter().collect::<HashSet<_>>(), expected);
    mount.end();
}

#[test]
fn no_program_meets_the_control_directory_by_chance() {
    let place = Place::new();
    let mount = place.mount();
    sh(mount.path(), "mkdir d e && echo words > d/f && git init -q e && echo x > e/x");
    // Also when the kernel knows the names already.
    sh(mount.path(), "ls .kura d/.kura e/.kura > /dev/null");
    for line in [
        "find . d",
        "du -a .",
        "ls -aR",
        "echo * .[!.]* d/.*",
        "tar -cf - . | tar -tf -",
        "rsync -an --out-format=%n ./ ../nowhere/",
        "cd e && git status --porcelain --ignored -uall && git add -An .",
        "grep -rl words .",
        "cp -rT . ../copied && find ../copied",
        "python3 -c 'import os; print(list(os.walk(b\".\")), os.listdir(\"d\"))'",
    ] {
        let said = sh(mount.path(), line);
        assert!(!said.is_empty() && !said.contains(".kura"), "{line}: {said}");
    }
    mount.end();
}
