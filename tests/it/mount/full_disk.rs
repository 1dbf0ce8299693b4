//! The real local disk is full: a small file system of its own holds state and cache.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;

use kura::fuse::MountOptions;

use super::guard::{Place, is_root, sh};
use crate::workspace_rig::wait_until;

/// A mounted tmpfs; unmounted whatever happens.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(path: &'a Path, mib: u32) -> Self {
        fs::create_dir(path).unwrap();
        let size = format!("size={mib}m");
        assert!(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(path).status().unwrap().success());
        Self(path)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0).status().ok();
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(step).collect()
}

/// Fills the file system to its last byte.
fn fill(dir: &Path) {
    let mut file = File::create(dir.join("ballast")).unwrap();
    for len in [1 << 20, 4096] {
        while file.write_all(&vec![1; len]).is_ok() {}
    }
}

/// Writes and syncs a file; whether there was room.
fn save(path: &Path, bytes: &[u8]) -> bool {
    let saved = File::create(path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    match saved {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::StorageFull => false,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

#[test]
fn a_full_disk_refuses_writers_keeps_the_tree_and_goes_on_once_there_is_room() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let (state, cache) = (place.path().join("state"), place.path().join("cache"));
    let small = Small::mount(&state, 64);
    let mount_it = || {
        let options = MountOptions { allow_other: true, ..MountOptions::default() };
        place.mount_with(|open| open.cache_dir = cache.clone(), options, true)
    };
    let mount = mount_it();
    let mut kept = Vec::new();
    for seed in 0..8_u64 {
        assert!(save(&mount.at(&format!("before {seed}")), &noise(seed, 300_000)));
        kept.push((format!("before {seed}"), seed));
    }
    fill(&state);
    let mut refused = 0;
    for seed in 100..140_u64 {
        let name = format!("during {seed}");
        match save(&mount.at(&name), &noise(seed, 300_000)) {
            true => kept.push((name, seed)),
            false => refused += 1,
        }
    }
    assert!(refused > 30, "{refused} of 40 writers were refused");
    let check = |mount: &super::guard::Mount, kept: &[(String, u64)]| {
        for (name, seed) in kept {
            assert!(fs::read(mount.at(name)).unwrap() == noise(*seed, 300_000), "{name}");
        }
    };
    check(&mount, &kept);
    // Names can be removed and read; nothing hangs.
    sh(mount.path(), "ls -l > /dev/null");
    fs::remove_file(state.join("ballast")).unwrap();
    wait_until("there is room", || save(&mount.at("after"), b"there is room again"));
    assert!(mount.workspace.tree().failure().is_none(), "a full disk is not the end");
    check(&mount, &kept);
    mount.end();
    let mount = mount_it();
    check(&mount, &kept);
    assert_eq!(fs::read(mount.at("after")).unwrap(), b"there is room again");
    mount.end();
    drop(small);
}

#[test]
fn a_full_disk_at_the_moment_of_mounting_and_unmounting_loses_nothing() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let state = place.path().join("state");
    let small = Small::mount(&state, 48);
    let mount = place.mount();
    for seed in 0..6_u64 {
        assert!(save(&mount.at(&format!("file {seed}")), &noise(seed, 200_000)));
    }
    fill(&state);
    // The last version cannot be recorded now: its content stays in the journal.
    drop(mount);
    fs::remove_file(state.join("ballast")).unwrap();
    let mount = place.mount();
    for seed in 0..6_u64 {
        assert!(fs::read(mount.at(&format!("file {seed}"))).unwrap() == noise(seed, 200_000));
    }
    mount.end();
    drop(small);
}

#[test]
fn a_copy_that_is_larger_than_the_disk_is_refused_and_what_was_taken_outlives_the_unmount() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let state = place.path().join("state");
    let small = Small::mount(&state, 24);
    let mount = place.mount();
    let bytes = noise(7, 40 << 20);
    let mut file = File::create(mount.at("large")).unwrap();
    let mut taken = 0;
    let refused = bytes.chunks(1 << 20).find_map(|chunk| match file.write(chunk) {
        Ok(len) => {
            taken += len;
            (len < chunk.len()).then_some(ErrorKind::StorageFull)
        }
        Err(error) => Some(error.kind()),
    });
    assert_eq!(refused, Some(ErrorKind::StorageFull));
    drop(file);
    mount.end();
    let mount = place.mount();
    assert!(fs::read(mount.at("large")).unwrap() == bytes[..taken], "of {taken} bytes something is lost");
    fs::remove_file(mount.at("large")).unwrap();
    wait_until("there is room", || save(&mount.at("after"), &bytes[..1 << 20]));
    mount.end();
    drop(small);
}

#[test]
fn writers_that_wait_for_room_keep_nobody_else_waiting() {
    let place = Place::new();
    let options = MountOptions { allow_other: true, ..MountOptions::default() };
    let change = |open: &mut kura::workspace::OpenOptions| {
        // Nothing is recorded by itself, so nothing makes room until somebody asks for it.
        (open.intervals.version_quiet_ms, open.intervals.version_max_ms) = (3_600_000, 3_600_000);
        (open.limits.unpublished_bytes_max, open.limits.full_wait_ms) = (2 << 20, 600_000);
    };
    let mount = place.mount_with(change, options, true);
    fs::write(mount.at("small"), "content").unwrap();
    let path = |seed: u64| mount.at(&format!("large {seed}"));
    (0..12).for_each(|seed| fs::write(path(seed), "").unwrap());
    fs::write(mount.at("first"), noise(99, 3 << 20)).unwrap();
    let kept = || mount.workspace.status().unpublished_bytes + mount.workspace.status().journal_bytes;
    wait_until("the limit is reached", || kept() > 2 << 20);
    let writers: Vec<_> = (0..12)
        .map(|seed| {
            let mut file = File::options().write(true).open(path(seed)).unwrap();
            std::thread::spawn(move || file.write_all(&noise(seed, 512 << 10)))
        })
        .collect();
    // More writers than threads of any kind wait now, and all else is answered.
    for round in 0..50 {
        assert_eq!(fs::read_to_string(mount.at("small")).unwrap(), "content", "round {round}");
        fs::metadata(mount.at(".kura/status")).unwrap();
        assert!(fs::read_to_string(mount.at(".kura/status")).unwrap().contains("workspace"));
    }
    assert!(writers.iter().all(|writer| !writer.is_finished()), "nothing made room");
    wait_until("everybody has written", || {
        mount.workspace.flush(Some(std::time::Duration::from_secs(60))).unwrap();
        writers.iter().all(std::thread::JoinHandle::is_finished)
    });
    for (seed, writer) in (0..).zip(writers) {
        writer.join().unwrap().unwrap();
        assert!(fs::read(path(seed)).unwrap() == noise(seed, 512 << 10));
    }
    mount.end();
}

#[test]
fn room_comes_back_with_what_is_removed_while_the_store_is_away() {
    let place = Place::new();
    let limit = |open: &mut kura::workspace::OpenOptions| open.limits.unpublished_bytes_max = 4 << 20;
    let mount = place.mount_with(limit, MountOptions::default(), true);
    fs::write(mount.at("kept"), "kept").unwrap();
    fs::rename(place.store_dir(), place.path().join("away")).unwrap();
    for seed in 0..6_u64 {
        let path = mount.at("passing");
        wait_until("there is room again", || save(&path, &noise(seed, 1_500_000)));
        assert!(fs::read(&path).unwrap() == noise(seed, 1_500_000));
        fs::remove_file(&path).unwrap();
    }
    wait_until("a small file has room", || save(&mount.at("small"), b"small"));
    fs::rename(place.path().join("away"), place.store_dir()).unwrap();
    assert_eq!(fs::read(mount.at("kept")).unwrap(), b"kept");
    mount.end();
}

#[test]
fn work_goes_on_at_the_top_of_a_directory_store_that_goes_away_at_once() {
    let place = Place::new();
    let mount = place.mount();
    fs::create_dir(mount.at("dir")).unwrap();
    mount.end();
    let mount = place.mount();
    fs::rename(place.store_dir(), place.path().join("away")).unwrap();
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 1);
    fs::write(mount.at("new"), "new").unwrap();
    fs::create_dir(mount.at("more")).unwrap();
    assert_eq!(fs::read(mount.at("new")).unwrap(), b"new");
    fs::rename(place.path().join("away"), place.store_dir()).unwrap();
    mount.end();
}
