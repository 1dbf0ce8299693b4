//! Many files, huge files, full disks: what it costs, counted, and what the limits do.

mod digests;
mod limits;
mod sparse;

use std::collections::BTreeMap;

use kura::base::disk::Disk;
use kura::store::ObjectStore;
use kura::version::entry::Ino;
use kura::worktree::{Caller, NewNode, Reason, Wait, Worktree};

use crate::rig::Rig;

const CALLER: Caller = Caller { uid: 0, gid: 0 };

/// `KURA_TEST_LONG=1` makes the numbers those of the promises.
fn is_long() -> bool {
    std::env::var_os("KURA_TEST_LONG").is_some_and(|value| value == "1")
}

/// Reproducible noise.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(len);
    out
}

fn make(tree: &Worktree, parent: Ino, name: &str, node: &NewNode, open: bool) -> Ino {
    let attr = tree.make(parent, name.as_bytes(), node, 0o755, CALLER, open, Wait::Yes).unwrap();
    tree.forget(attr.ino, 1);
    attr.ino
}

/// Makes a file with content and closes it.
fn save(tree: &Worktree, parent: Ino, name: &str, bytes: &[u8]) -> Ino {
    let ino = make(tree, parent, name, &NewNode::File, true);
    tree.write(ino, 0, bytes, 0, Wait::Yes).unwrap();
    tree.release(ino, true);
    ino
}

fn record(rig: &Rig, tree: &Worktree) {
    tree.checkpoint(&Reason::automatic()).unwrap();
    rig.upload(tree);
}

/// Objects of the store by name, with their lengths.
fn stored(rig: &Rig) -> BTreeMap<String, u64> {
    let mut objects = BTreeMap::new();
    rig.store
        .list("", &mut |info| {
            objects.insert(info.key.to_string(), info.len);
        })
        .unwrap();
    objects
}

/// Names and bytes of what is in `after` and not in `before`.
fn added(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> (usize, u64) {
    let new = after.iter().filter(|(name, _)| !before.contains_key(*name));
    new.fold((0, 0), |(count, bytes), (_, len)| (count + 1, bytes + len))
}

/// A tree of `files` small files, 200 to a directory, recorded and uploaded; its directories.
fn populate(rig: &Rig, tree: &Worktree, files: usize) -> Vec<Ino> {
    let mut dirs = Vec::new();
    for number in 0..files {
        if number % 200 == 0 {
            dirs.push(make(tree, Ino::ROOT, &format!("dir {:05}", number / 200), &NewNode::Directory, false));
        }
        save(tree, dirs[number / 200], &format!("file {number}"), &number.to_le_bytes());
        if number % 5000 == 4999 {
            tree.absorb_all().unwrap();
            record(rig, tree);
        }
    }
    record(rig, tree);
    dirs
}

/// Names below the root, each looked up once and kept referred to, as a kernel does for `ls -lR`.
fn refer_to_all(tree: &Worktree) -> (Vec<Ino>, usize) {
    let (mut dirs, mut inos, mut most) = (vec![Ino::ROOT], Vec::new(), 0);
    while let Some(dir) = dirs.pop() {
        tree.readdir(dir, 0, true, Wait::Yes, &mut |item| {
            inos.push(item.attr.ino);
            if item.attr.kind == kura::worktree::FileKind::Directory {
                dirs.push(item.attr.ino);
            }
            true
        })
        .unwrap();
        most = most.max(tree.activity().inodes);
    }
    (inos, most)
}

#[test]
fn a_version_after_one_change_costs_the_change_however_many_files_there_are() {
    let mut costs = Vec::new();
    for files in [2_000, if is_long() { 1_000_000 } else { 20_000 }] {
        let (rig, sim) = Rig::new(7);
        let tree = rig.open().unwrap();
        let dirs = populate(&rig, &tree, files);
        let mut rounds = Vec::new();
        for round in 0..3 {
            let before = stored(&rig);
            save(&tree, dirs[dirs.len() / 2], &format!("one more {round}"), b"content of one more file");
            record(&rig, &tree);
            rounds.push(added(&before, &stored(&rig)));
        }
        rounds.sort_unstable();
        let (objects, bytes) = rounds[1];
        // HEAD, which is swung besides, is the fourth. Now and then location runs are merged, into one more.
        assert!(objects <= 3 && rounds[2].0 <= 4, "{rounds:?} objects and bytes among {files} files");
        costs.push(bytes);
        assert!(tree.activity().journal_bytes < 64 << 10, "the journal was cut");
        let state: u64 = state_bytes(&sim, &rig);
        assert!(state < 256 << 10, "{state} bytes of local state among {files} files");
    }
    assert!(costs[1] < 2 * costs[0] + 8_192, "{costs:?} bytes of a version");
}

fn state_bytes(disk: &impl Disk, rig: &Rig) -> u64 {
    let mut dirs = vec![rig.dir.clone()];
    let mut bytes = 0;
    while let Some(dir) = dirs.pop() {
        for item in disk.list(&dir).unwrap() {
            bytes += item.len;
            if item.is_dir {
                dirs.push(dir.join(&item.name));
            }
        }
    }
    bytes
}

#[test]
fn looking_at_everything_keeps_few_inodes_in_memory() {
    let (mut rig, _sim) = Rig::new(8);
    rig.limits.inodes_max = 2_000;
    let files = if is_long() { 200_000 } else { 20_000 };
    let tree = rig.open().unwrap();
    populate(&rig, &tree, files);
    drop(tree);
    let tree = rig.open().unwrap();
    assert_eq!(tree.activity().inodes, 1, "nothing is read before it is asked for");
    for round in 0..2 {
        let (inos, most) = refer_to_all(&tree);
        assert_eq!(inos.len(), files + files / 200);
        // What the limit allows, the directories that were used last, and the root's own names.
        assert!(most <= 2_000 + 34 * 200 + files / 200, "{most} inodes in memory in round {round}");
        for ino in inos.iter().step_by(997) {
            assert_eq!(tree.getattr(*ino, Wait::Yes).unwrap().ino, *ino, "the kernel may ask for what was dropped");
        }
        inos.iter().for_each(|ino| tree.forget(*ino, 1));
    }
}

#[test]
fn a_directory_of_more_names_than_fit_into_memory_is_listed_without_waiting() {
    let (mut rig, _sim) = Rig::new(10);
    rig.limits.inodes_max = 500;
    let tree = rig.open().unwrap();
    for dir in ["one", "two", "three"] {
        let dir = make(&tree, Ino::ROOT, dir, &NewNode::Directory, false);
        for number in 0..1_000 {
            make(&tree, dir, &format!("name {number}"), &NewNode::Symlink(b"to".to_vec()), false);
        }
    }
    record(&rig, &tree);
    drop(tree);
    let tree = rig.open().unwrap();
    let dirs = ["one", "two", "three"].map(|name| tree.lookup(Ino::ROOT, name.as_bytes(), Wait::Yes).unwrap().ino);
    // As a request is served: loaded first, by several at a time, then answered from memory.
    dirs.iter().for_each(|dir| tree.readdir(*dir, 0, false, Wait::Yes, &mut |_| false).unwrap());
    for dir in dirs {
        let mut count = 0;
        tree.readdir(dir, 0, false, Wait::No, &mut |_| {
            count += 1;
            true
        })
        .unwrap();
        assert_eq!(count, 1_000);
    }
}

#[test]
fn a_directory_of_very_many_names_is_listed_and_changed() {
    let names = if is_long() { 100_000 } else { 20_000 };
    let (rig, _sim) = Rig::new(9);
    let tree = rig.open().unwrap();
    let dir = make(&tree, Ino::ROOT, "large", &NewNode::Directory, false);
    for number in 0..names {
        make(&tree, dir, &format!("name {number:06}"), &NewNode::Symlink(b"to".to_vec()), false);
    }
    record(&rig, &tree);
    drop(tree);
    let tree = rig.open().unwrap();
    let list = |tree: &Worktree| {
        let mut seen = std::collections::HashSet::new();
        let mut cookie = 0;
        loop {
            let mut count = 0;
            tree.readdir(dir, cookie, false, Wait::Yes, &mut |item| {
                assert!(seen.insert(item.name.clone()), "a name is listed once");
                cookie = item.cookie;
                count += 1;
                count < 100
            })
            .unwrap();
            if count == 0 {
                return seen.len();
            }
        }
    };
    tree.lookup(Ino::ROOT, b"large", Wait::Yes).unwrap();
    assert_eq!(list(&tree), names);
    let before = stored(&rig);
    tree.unlink(dir, b"name 010000", Wait::Yes).unwrap();
    record(&rig, &tree);
    let (objects, bytes) = added(&before, &stored(&rig));
    assert!(objects <= 3 && bytes < 64 << 10, "{objects} objects, {bytes} bytes for one name of {names}");
    assert_eq!(list(&tree), names - 1);
}
