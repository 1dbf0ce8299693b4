//! A file that others changed while it was being written meets its policy when it is closed.

use std::sync::Arc;

use kura::base::clock::{Clock, ManualClock, Timestamp};
use kura::version::entry::Ino;
use kura::version::merge::Policy;
use kura::workspace::Workspace;
use kura::worktree::Wait;

use super::cases::{beside, names};
use crate::workspace_rig::*;

const LINES: &[u8] = b"1\n2\n3\n4\n5\n";

/// Two clients with a file at `path`; the second one's clock is ahead by so many seconds.
fn two(path: &str, policy: Policy, ahead_s: i64) -> (Rig, Arc<Workspace>, Arc<Workspace>) {
    let rig = Rig::new();
    let at = |state: &str, ahead_s| {
        let mut options = rig.options(state);
        let clock = ManualClock::new(Timestamp::from_parts(1_800_000_000 + ahead_s, 0));
        options.clock = Arc::new(clock) as Arc<dyn Clock>;
        rig.try_open(options).unwrap()
    };
    let a = at("a", 0);
    a.set_policy(b"", Some(policy)).unwrap();
    if let Some((dir, _)) = path.rsplit_once('/') {
        mkdir(&a, dir);
    }
    write(&a, path, LINES);
    publish(&a);
    let b = at("b", ahead_s);
    (rig, a, b)
}

fn begin(w: &Workspace, path: &str, offset: u64, bytes: &[u8]) -> Ino {
    let file = ino(w, path);
    w.tree().open(file, true, false, 0, Wait::Yes).unwrap();
    w.tree().write(file, offset, bytes, 0, Wait::Yes).unwrap();
    file
}

/// What becomes of `path` when `b` wrote `ours` at an offset before it took in `theirs` by `a`, and closed it then.
fn contested(
    path: &str,
    policy: Policy,
    ahead_s: i64,
    (offset, ours, theirs): (u64, &[u8], &[u8]),
) -> (Rig, Arc<Workspace>) {
    let (rig, a, b) = two(path, policy, ahead_s);
    let file = begin(&b, path, offset, ours);
    write(&a, path, theirs);
    publish(&a);
    assert!(b.pull().unwrap());
    b.tree().release(file, true);
    publish(&b);
    a.pull().unwrap();
    assert_eq!(live(&a), live(&b), "both see the same");
    whole(&rig.memory);
    (rig, b)
}

fn backups(w: &Workspace) -> Vec<String> {
    names(w).into_iter().filter(|name| name.starts_with("backup/") && name.contains(".2027")).collect()
}

#[test]
fn texts_are_merged_at_the_close() {
    for path in ["f.md", "d/f.md"] {
        let (_rig, b) = contested(path, Policy::Merge, 0, (8, b"V\n", b"one\n2\n3\n4\n5\n"));
        assert_eq!(read(&b, path), b"one\n2\n3\n4\nV\n");
        assert!(beside(&b).is_empty() && backups(&b).is_empty());
        assert_eq!(b.status().conflicts, 0);
    }
}

#[test]
fn long_texts_are_merged_at_the_close() {
    let (rig, a, b) = two("f", Policy::Merge, 0);
    let lines: Vec<String> = (0..4000).map(|line| format!("line {line}\n")).collect();
    write(&a, "f", lines.concat().as_bytes());
    publish(&a);
    b.pull().unwrap();
    let file = begin(&b, "f", 0, b"LINE");
    write(&a, "f", [lines.concat(), "the end\n".to_owned()].concat().as_bytes());
    publish(&a);
    b.pull().unwrap();
    b.tree().release(file, true);
    publish(&b);
    let merged = ["LINE".to_owned(), lines.concat()[4..].to_owned(), "the end\n".to_owned()].concat();
    assert!(read(&b, "f") == merged.as_bytes() && beside(&b).is_empty());
    a.pull().unwrap();
    assert_eq!(live(&a), live(&b));
    whole(&rig.memory);
    b.close(true).unwrap();
    assert!(read(&rig.open("b"), "f") == merged.as_bytes());
}

#[test]
fn texts_that_overlap_are_both_kept_at_the_close() {
    let (_rig, b) = contested("f.md", Policy::Merge, 0, (0, b"I\n", b"one\n2\n3\n4\n5\n"));
    assert_eq!(read(&b, "f.md"), b"I\n2\n3\n4\n5\n");
    let [copy] = beside(&b).try_into().unwrap();
    assert_eq!(read(&b, &copy), b"one\n2\n3\n4\n5\n");
    assert_eq!(b.status().conflicts, 1);
    let (events, _) = b.events(0);
    assert_eq!(events.iter().filter(|line| line.contains("\"conflict\"")).count(), 1, "{events:?}");
}

#[test]
fn the_newer_one_stays_at_the_close_and_the_other_goes_to_backup() {
    for (ahead_s, stays, goes) in
        [(3600, b"1\n2\n3\n4\nV\n".as_slice(), b"by a".as_slice()), (-3600, b"by a", b"1\n2\n3\n4\nV\n")]
    {
        let (_rig, b) = contested("d/f", Policy::LastWriteWins, ahead_s, (8, b"V\n", b"by a"));
        assert_eq!(read(&b, "d/f"), stays, "{ahead_s}");
        let [copy] = backups(&b).try_into().unwrap();
        assert!(copy.starts_with("backup/d/f.2027"), "{copy}");
        assert_eq!(read(&b, &copy), goes, "{ahead_s}");
        assert!(beside(&b).is_empty());
    }
}

#[test]
fn a_file_called_backup_does_not_keep_a_loser_from_its_place() {
    let (_rig, a, b) = two("f", Policy::LastWriteWins, 3600);
    write(&b, "backup", b"a file");
    let file = begin(&b, "f", 0, b"ONE");
    write(&a, "f", b"by a");
    publish(&a);
    b.pull().unwrap();
    b.tree().release(file, true);
    publish(&b);
    assert_eq!(read(&b, "backup"), b"a file");
    let [copy] = beside(&b).try_into().unwrap();
    assert_eq!(read(&b, &copy), b"by a");
}

#[test]
fn ours_and_theirs_are_as_they_say_at_the_close() {
    let (_rig, b) = contested("f", Policy::Ours, 0, (0, b"I", b"by a"));
    assert_eq!(read(&b, "f"), b"I\n2\n3\n4\n5\n");
    assert!(beside(&b).is_empty() && backups(&b).is_empty(), "theirs is in the history");
    let (_rig, b) = contested("f", Policy::Theirs, 0, (0, b"I", b"by a"));
    assert_eq!(read(&b, "f"), b"by a");
    let [copy] = backups(&b).try_into().unwrap();
    assert_eq!(read(&b, &copy), b"I\n2\n3\n4\n5\n", "no version has it");
}

#[test]
fn a_large_loser_keeps_its_content() {
    let (rig, a, b) = two("d/f", Policy::Theirs, 0);
    let large = noise(40_000_000);
    let file = begin(&b, "d/f", 0, &large);
    write(&a, "d/f", b"by a");
    publish(&a);
    b.pull().unwrap();
    b.tree().release(file, true);
    publish(&b);
    assert_eq!(read(&b, "d/f"), b"by a");
    let [copy] = backups(&b).try_into().unwrap();
    assert!(read(&b, &copy) == large);
    a.pull().unwrap();
    assert!(read(&a, &copy) == large, "all of it is in the store");
    whole(&rig.memory);
}
