//! Limits of memory and of the local disk, and what happens at them.

use std::sync::Arc;
use std::time::Duration;

use kura::base::sim_disk::{Crash, Keep, SimDisk};
use kura::version::entry::Ino;
use kura::worktree::{NewNode, Reason, Wait, WorkError, Worktree};

use super::{CALLER, make, noise, record, save};
use crate::rig::{Rig, live, word};

const MIB: usize = 1 << 20;

/// Saves files until one is refused; the names and seeds of those that were taken.
fn fill(tree: &Worktree, from: u64, len: usize) -> Vec<(String, u64)> {
    let mut taken = Vec::new();
    for number in from..from + 1000 {
        let name = format!("file {number:04}");
        let made = tree.make(Ino::ROOT, name.as_bytes(), &NewNode::File, 0o600, CALLER, true, Wait::Yes);
        let ino = match made {
            Ok(attr) => attr.ino,
            Err(error) => {
                assert_eq!(word(&error), "NoSpace");
                return taken;
            }
        };
        let written = tree.write(ino, 0, &noise(number, len), 0, Wait::Yes);
        tree.release(ino, true);
        match written {
            Ok(()) => taken.push((name, number)),
            Err(error) => {
                assert_eq!(word(&error), "NoSpace");
                return taken;
            }
        }
        tree.absorb_all().unwrap();
        if number % 5 == 0 {
            tree.checkpoint(&Reason::automatic()).unwrap();
        }
    }
    panic!("nothing was ever refused");
}

fn check(tree: &Worktree, files: &[(String, u64)], len: usize) {
    let shown = live(tree);
    for (name, seed) in files {
        assert!(shown[name].bytes == noise(*seed, len), "{name}");
    }
}

#[test]
fn a_full_queue_refuses_writers_and_takes_them_again_when_the_store_is_back() {
    let (mut rig, sim) = Rig::new(1);
    rig.limits.unpublished_bytes_max = 24 << 20;
    let tree = rig.open().unwrap();
    let mut files = fill(&tree, 0, MIB);
    assert!((10..40).contains(&files.len()), "{} files were taken", files.len());
    let used = rig.outbox().total_bytes() + tree.activity().journal_bytes;
    assert!(used < (24 << 20) + 4 * MIB as u64, "{used} bytes are kept");
    // What makes room is allowed all the time.
    tree.unlink(Ino::ROOT, files[0].0.as_bytes(), Wait::Yes).unwrap();
    files.remove(0);
    check(&tree, &files, MIB);
    record(&rig, &tree);
    files.extend(fill(&tree, 2000, MIB));
    check(&tree, &files, MIB);
    record(&rig, &tree);
    assert_eq!(rig.outbox().total_bytes(), 0, "everything is published");
    let version = rig.version(&tree.base());
    assert!(files.iter().all(|(name, seed)| version[name].bytes == noise(*seed, MIB)));
    drop(tree);
    let rig = rig.after(sim.reopen(Crash::PowerCut { keep: Keep::None }));
    check(&rig.open().unwrap(), &files, MIB);
}

#[test]
fn a_writer_may_wait_for_room_and_never_where_it_must_not() {
    let (mut rig, _sim) = Rig::new(2);
    rig.limits.unpublished_bytes_max = 4 << 20;
    rig.limits.full_wait_ms = 600_000;
    let tree = Arc::new(rig.open().unwrap());
    let ino = make(&tree, Ino::ROOT, "file", &NewNode::File, true);
    let mut at = 0;
    while !matches!(tree.write(ino, at, &noise(at, MIB), 0, Wait::No), Err(WorkError::WouldBlock)) {
        at += MIB as u64;
        tree.fsync(ino, Wait::Yes).unwrap();
        tree.absorb_all().unwrap();
        assert!(at < 64 << 20, "it is never full");
    }
    let waits = tree.clone();
    let writer = std::thread::spawn(move || waits.write(ino, at, &noise(at, MIB), 0, Wait::Yes));
    std::thread::sleep(Duration::from_millis(200));
    // Others are answered meanwhile.
    assert_eq!(tree.getattr(ino, Wait::No).unwrap().size, at);
    assert!(!writer.is_finished());
    record(&rig, &tree);
    writer.join().unwrap().unwrap();
    assert_eq!(tree.read(ino, at, MIB, Wait::Yes).unwrap(), noise(at, MIB));
}

#[test]
fn a_waiting_writer_ends_with_the_tree() {
    let (mut rig, _sim) = Rig::new(2);
    (rig.limits.unpublished_bytes_max, rig.limits.full_wait_ms) = (0, 600_000);
    let tree = Arc::new(rig.open().unwrap());
    let file = {
        // The journal is empty at first.
        let attr = tree.make(Ino::ROOT, b"file", &NewNode::File, 0o600, CALLER, true, Wait::Yes).unwrap();
        attr.ino
    };
    let waits = tree.clone();
    let writer = std::thread::spawn(move || waits.write(file, 0, b"content", 0, Wait::Yes));
    tree.stop();
    assert_eq!(word(&writer.join().unwrap().unwrap_err()), "ReadOnly");
}

#[test]
fn dirty_bytes_stay_within_their_limit_with_many_open_files() {
    let (mut rig, _sim) = Rig::new(3);
    rig.limits.dirty_bytes_max = 4 << 20;
    let tree = rig.open().unwrap();
    let inos: Vec<Ino> =
        (0..20).map(|number| make(&tree, Ino::ROOT, &format!("file {number}"), &NewNode::File, true)).collect();
    let mut put_off = 0;
    for step in 0..80_u64 {
        let ino = inos[step as usize % inos.len()];
        let (offset, data) = (step / 20 * MIB as u64, noise(step, MIB));
        match tree.write(ino, offset, &data, 0, Wait::No) {
            Ok(()) => {}
            Err(WorkError::WouldBlock) => {
                put_off += 1;
                tree.write(ino, offset, &data, 0, Wait::Yes).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        let dirty = tree.activity().dirty_bytes;
        assert!(dirty <= (5 << 20), "{dirty} dirty bytes after step {step}");
    }
    assert!(put_off > 3, "a write that has to make room is put off: {put_off}");
    for (number, ino) in inos.iter().enumerate() {
        for part in 0..4 {
            let expected = noise((number + part * 20) as u64, MIB);
            assert!(tree.read(*ino, (part * MIB) as u64, MIB, Wait::Yes).unwrap() == expected);
        }
        tree.release(*ino, true);
    }
    record(&rig, &tree);
    assert_eq!(rig.version(&tree.base()).len(), 21);
}

#[test]
fn a_huge_file_without_a_name_does_not_stay_in_memory() {
    let (mut rig, _sim) = Rig::new(4);
    rig.limits.dirty_bytes_max = 4 << 20;
    let tree = rig.open().unwrap();
    let content = noise(9, 32 * MIB);
    let ino = tree.make(Ino::ROOT, b"scratch", &NewNode::File, 0o600, CALLER, true, Wait::Yes).unwrap().ino;
    tree.write(ino, 0, &content[..MIB], 0, Wait::Yes).unwrap();
    tree.unlink(Ino::ROOT, b"scratch", Wait::Yes).unwrap();
    for number in 1..32 {
        tree.write(ino, (number * MIB) as u64, &content[number * MIB..][..MIB], 0, Wait::Yes).unwrap();
        assert!(tree.activity().dirty_bytes <= (5 << 20));
        if number % 7 == 0 {
            tree.log_drafts().unwrap();
            record(&rig, &tree);
        }
    }
    assert!(tree.read(ino, 0, 32 * MIB, Wait::Yes).unwrap() == content);
    save(&tree, Ino::ROOT, "other", b"content");
    record(&rig, &tree);
    assert!(tree.read(ino, 0, 32 * MIB, Wait::Yes).unwrap() == content, "after a checkpoint");
    tree.release(ino, true);
    tree.forget(ino, 1);
    save(&tree, Ino::ROOT, "another", b"content");
    record(&rig, &tree);
    assert_eq!(rig.outbox().total_bytes(), 0, "nothing of it is left");
}

#[test]
fn a_nameless_file_that_was_published_before_is_moved_out_of_memory_too() {
    let (mut rig, _sim) = Rig::new(5);
    rig.limits.dirty_bytes_max = 1 << 20;
    let tree = rig.open().unwrap();
    let content = noise(10, 3 * MIB);
    let ino = tree.make(Ino::ROOT, b"file", &NewNode::File, 0o600, CALLER, true, Wait::Yes).unwrap().ino;
    tree.write(ino, 0, &content[..MIB], 0, Wait::Yes).unwrap();
    tree.fsync(ino, Wait::Yes).unwrap();
    tree.unlink(Ino::ROOT, b"file", Wait::Yes).unwrap();
    for number in 1..3 {
        tree.write(ino, (number * MIB) as u64, &content[number * MIB..][..MIB], 0, Wait::Yes).unwrap();
    }
    tree.write(ino, 10, b"last", 0, Wait::Yes).unwrap();
    assert!(tree.activity().dirty_bytes <= 2 << 20);
    let mut expected = content;
    expected[10..14].copy_from_slice(b"last");
    assert!(tree.read(ino, 0, 3 * MIB, Wait::Yes).unwrap() == expected);
}

/// Attempts to record on a disk with too little room leave nothing behind that grows.
#[test]
fn attempts_to_record_on_a_full_disk_leave_nothing_that_grows() {
    let (mut rig, sim) = Rig::new(6);
    rig.limits.disk_reserve_bytes = 0;
    let tree = rig.open().unwrap();
    for number in 0..40 {
        save(&tree, Ino::ROOT, &format!("file {number}"), &noise(number, 20_000));
    }
    tree.absorb_all().unwrap();
    let before = live(&tree);
    let mut refused = 0;
    // More than what is certainly too little, less than what it takes.
    for attempt in 0..12 {
        sim.fail_writes_with(libc::ENOSPC, 300_000 + attempt * 31_000);
        refused += usize::from(tree.checkpoint(&Reason::automatic()).is_err());
        assert_eq!(rig.outbox().total_bytes(), 0, "a failed attempt takes back what it left in the outbox");
    }
    sim.fail_writes_with(libc::ENOSPC, 1000);
    assert_eq!(word(&tree.checkpoint(&Reason::automatic()).unwrap_err()), "NoSpace");
    assert_eq!(refused, 12);
    sim.allow_writes();
    assert!(before == live(&tree));
    record(&rig, &tree);
    assert_eq!(rig.version(&tree.base()).len(), 41);
}

fn writer_until_full(sim: &SimDisk, tree: &Worktree, ino: Ino) -> u64 {
    sim.fail_writes_with(libc::ENOSPC, 6 << 20);
    let mut at = 0;
    loop {
        match tree.write(ino, at, &noise(at, MIB / 4), 0, Wait::Yes) {
            Ok(()) => at += MIB as u64 / 4,
            Err(error) => {
                assert_eq!(word(&error), "NoSpace");
                return at;
            }
        }
        tree.log_drafts().ok();
        assert!(at < 64 << 20, "the disk is never full");
    }
}

#[test]
fn a_writer_is_refused_before_the_disk_is_too_full_for_a_checkpoint() {
    let (mut rig, sim) = Rig::new(7);
    rig.limits.disk_reserve_bytes = 1 << 20;
    let tree = rig.open().unwrap();
    let ino = make(&tree, Ino::ROOT, "file", &NewNode::File, true);
    let written = writer_until_full(&sim, &tree, ino);
    assert!(written >= 1 << 20, "{written} bytes were taken");
    assert_eq!(
        word(&tree.make(Ino::ROOT, b"x", &NewNode::Fifo, 0o600, CALLER, false, Wait::Yes).unwrap_err()),
        "NoSpace"
    );
    tree.fsync(ino, Wait::Yes).unwrap();
    tree.checkpoint(&Reason::automatic()).unwrap();
    rig.upload(&tree);
    sim.allow_writes();
    tree.write(ino, written, b"goes on", 0, Wait::Yes).unwrap();
    tree.release(ino, true);
    record(&rig, &tree);
    assert_eq!(rig.version(&tree.base())["file"].bytes.len() as u64, written + 7);
}
