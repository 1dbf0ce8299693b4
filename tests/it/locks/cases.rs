//! Case by case.

use kura::sync::SyncError;
use kura::version::entry::Ino;
use kura::version::merge::Policy;
use kura::workspace::WorkspaceError;
use kura::worktree::{Changes, NewNode, RenameMode, Wait, WorkError, XattrMode};

use super::*;

fn refused<T>(outcome: Result<T, WorkError>) {
    match outcome {
        Err(WorkError::Locked { holder }) => assert_eq!(holder, "user@a"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was changed"),
    }
}

#[test]
fn what_is_locked_is_read_only_for_others_and_free_again_when_unlocked() {
    let (_rig, a, b) = two();
    lock(&a.w, "d").unwrap();
    assert!(is_writable(&b.w, "d/f"), "nobody looked yet");
    b.w.pull().unwrap();
    let (dir, file, tree) = (ino(&b.w, "d"), ino(&b.w, "d/f"), b.w.tree());
    let mode = Changes { mode: Some(0o600), ..Changes::default() };
    let cut = Changes { size: Some(0), ..Changes::default() };
    refused(tree.open(file, true, false, 0, Wait::Yes));
    refused(tree.open(file, false, true, 0, Wait::Yes));
    refused(tree.setattr(file, &cut, 0, Wait::Yes));
    refused(tree.setattr(file, &mode, 0, Wait::Yes));
    refused(tree.setattr(dir, &mode, 0, Wait::Yes));
    refused(tree.setxattr(file, b"user.x", b"y", XattrMode::Set, Wait::Yes));
    refused(tree.make(dir, b"new", &NewNode::File, 0o644, ME, false, Wait::Yes));
    refused(tree.link(file, Ino::ROOT, b"other name", Wait::Yes));
    refused(tree.link(ino(&b.w, "g"), dir, b"other name", Wait::Yes));
    refused(tree.unlink(dir, b"f", Wait::Yes));
    refused(tree.rename((dir, b"f"), (Ino::ROOT, b"f"), RenameMode::Replace, Wait::Yes));
    refused(tree.rename((Ino::ROOT, b"g"), (dir, b"f"), RenameMode::Replace, Wait::Yes));
    refused(tree.rename((Ino::ROOT, b"g"), (dir, b"f"), RenameMode::Exchange, Wait::Yes));
    refused(tree.rename((Ino::ROOT, b"d"), (Ino::ROOT, b"moved"), RenameMode::Replace, Wait::Yes));
    assert_eq!(tree.lock_of(file, Wait::Yes).unwrap().unwrap().holder, "user@a");
    assert_eq!(tree.lock_of(ino(&b.w, "g"), Wait::Yes).unwrap(), None);
    assert_eq!(read(&b.w, "d/f"), b"base of f");
    write(&b.w, "g", b"not locked");
    let shown = b.w.status();
    assert_eq!((shown.locks.len(), shown.locks[0].path.as_str(), shown.locks[0].ours), (1, "d", false));
    assert!(shown.to_string().contains("d by user@a") && has_event(&b.w, "locked"));
    assert!(matches!(unlock(&b.w, "d"), Err(WorkspaceError::Sync(SyncError::NotLocked { .. }))));
    write(&a.w, "d/f", b"by the holder");
    unlock(&a.w, "d").unwrap();
    b.w.pull().unwrap();
    assert_eq!(read(&b.w, "d/f"), b"by the holder", "published before it was unlocked");
    assert!(is_writable(&b.w, "d/f") && has_event(&b.w, "unlocked") && b.w.status().locks.is_empty());
}

#[test]
fn a_directory_that_leads_to_a_lock_cannot_be_moved_and_a_restore_refuses_what_is_locked() {
    let (_rig, a, b) = two();
    let before = b.w.tree().base().index.id;
    write(&b.w, "d/f", b"edited");
    publish(&b.w);
    lock(&a.w, "d/f").unwrap();
    b.w.pull().unwrap();
    let tree = b.w.tree();
    refused(tree.rename((Ino::ROOT, b"d"), (Ino::ROOT, b"moved"), RenameMode::Replace, Wait::Yes));
    write(&b.w, "d/free", b"beside what is locked");
    assert!(b.w.restore(before, &[b"d/f".to_vec()], false).is_err());
    assert_eq!(read(&b.w, "d/f"), b"edited");
    assert_eq!(read(&a.w, "d/f"), b"edited", "who locks sees the newest state");
}

#[test]
fn a_lock_is_for_a_path_that_need_not_exist_and_stays_when_the_file_is_renamed() {
    let (_rig, a, b) = two();
    lock(&a.w, "later").unwrap();
    lock(&a.w, "g").unwrap();
    b.w.pull().unwrap();
    refused(b.w.tree().make(Ino::ROOT, b"later", &NewNode::File, 0o644, ME, false, Wait::Yes));
    refused(b.w.tree().make(Ino::ROOT, b"later", &NewNode::Directory, 0o755, ME, false, Wait::Yes));
    write(&b.w, "later on", b"another name");
    a.w.tree().rename((Ino::ROOT, b"g"), (Ino::ROOT, b"renamed"), RenameMode::Replace, Wait::Yes).unwrap();
    publish(&a.w);
    b.w.pull().unwrap();
    assert!(is_writable(&b.w, "renamed"));
    refused(b.w.tree().make(Ino::ROOT, b"g", &NewNode::File, 0o644, ME, false, Wait::Yes));
}

#[test]
fn only_one_has_what_overlaps() {
    let (_rig, a, b) = two();
    lock(&a.w, "d").unwrap();
    for path in ["d", "d/f", "d/new", ""] {
        let failed = lock(&b.w, path);
        let is_locked = matches!(&failed, Err(WorkspaceError::Sync(SyncError::Locked { path, holder }))
            if path == "d" && holder == "user@a");
        assert!(is_locked, "{path}: {failed:?}");
    }
    lock(&b.w, "g").unwrap();
    lock(&a.w, "d").unwrap();
    assert_eq!(a.w.locks().unwrap().len(), 2);
    assert!(lock(&a.w, "").is_err(), "b has g");
    let broken = a.w.lock(&[b"g".to_vec(), b"x".to_vec()], Some(60_000), true).unwrap();
    assert_eq!(broken.iter().map(|lock| lock.length_ms).collect::<Vec<u64>>(), [60_000, 60_000]);
}

#[test]
fn a_holder_that_died_is_waited_for_by_the_monotonic_clock_alone() {
    let (rig, a, b) = two();
    lock(&a.w, "g").unwrap();
    drop(a);
    b.w.pull().unwrap();
    assert!(lock(&b.w, "g").is_err());
    let year_ms = 365 * 24 * 3_600_000;
    for wall_ms in [30 * year_ms, -60 * year_ms, 30 * year_ms] {
        b.clock.set_ms(wall_ms);
        b.w.pull().unwrap();
        assert!(!is_writable(&b.w, "g") && lock(&b.w, "g").is_err(), "no time has passed");
    }
    b.clock.advance_ms(TERM_MS - 1);
    b.w.pull().unwrap();
    assert!(!is_writable(&b.w, "g"));
    b.clock.advance_ms(1);
    b.w.pull().unwrap();
    assert!(is_writable(&b.w, "g") && has_event(&b.w, "unlocked"));
    assert!(b.w.locks().unwrap()[0].is_stale && b.w.status().locks.is_empty());
    let c = client(&rig, "c");
    assert!(lock(&c.w, "g").is_err(), "who has just come has not waited");
    lock(&b.w, "g").unwrap();
    c.clock.advance_ms(TERM_MS);
    assert!(lock(&c.w, "g").is_err(), "b has renewed what c had seen");
}

#[test]
fn a_lock_that_is_renewed_never_gets_stale_and_ends_with_the_mount() {
    let (rig, a, b) = two();
    a.w.start();
    lock(&a.w, "g").unwrap();
    let bytes = || rig.memory.snapshot().into_iter().find(|(key, _)| key.as_str().starts_with("leases/")).unwrap().1;
    for _ in 0..4 {
        let before = bytes();
        b.w.pull().unwrap();
        b.clock.advance_ms(200_000);
        a.clock.advance_ms(200_000);
        wait_until("the lock is renewed", || bytes() != before);
        b.w.pull().unwrap();
        assert!(!is_writable(&b.w, "g"));
    }
    a.w.close(true).unwrap();
    b.w.pull().unwrap();
    assert!(is_writable(&b.w, "g") && b.w.locks().unwrap().is_empty());
}

#[test]
fn a_lock_for_a_time_outlives_the_mount_and_ends_by_itself_in_a_mount() {
    let (rig, a, b) = two();
    a.w.start();
    a.w.lock(&[b"g".to_vec()], Some(60_000), false).unwrap();
    a.w.close(true).unwrap();
    b.w.pull().unwrap();
    assert!(!is_writable(&b.w, "g"));
    drop(a);
    let a = client(&rig, "a");
    assert_eq!(a.w.locks().unwrap().len(), 1);
    a.w.start();
    wait_until("the lock is noticed", || {
        a.clock.advance_ms(61_000);
        a.w.locks().unwrap().is_empty()
    });
    b.w.pull().unwrap();
    assert!(is_writable(&b.w, "g"));
    a.w.close(true).unwrap();
}

/// `a` loses its lock on `g` to `b`, which changes it; what comes of the change that `a` made meanwhile.
fn overtaken(policy: Policy, take: impl FnOnce(&Client)) -> (Rig, Client, Client) {
    let (rig, a, b) = two();
    a.w.set_policy(b"", Some(policy)).unwrap();
    publish(&a.w);
    b.w.pull().unwrap();
    lock(&a.w, "g").unwrap();
    b.w.pull().unwrap();
    write(&a.w, "g", b"by a, who has lost the lock");
    take(&b);
    write(&b.w, "g", b"by b, who has it now");
    publish(&b.w);
    publish(&a.w);
    b.w.pull().unwrap();
    assert_eq!(live(&a.w), live(&b.w));
    whole(&rig.memory);
    (rig, a, b)
}

#[test]
fn what_was_written_under_a_lost_lock_lies_beside_whatever_the_policy() {
    for policy in Policy::ALL {
        let (_rig, a, b) = overtaken(policy, |b| {
            b.clock.advance_ms(TERM_MS);
            lock(&b.w, "g").unwrap();
        });
        let [copy] = beside(&b.w).try_into().unwrap();
        assert_eq!(read(&b.w, "g"), b"by b, who has it now", "{policy:?}");
        assert_eq!(read(&b.w, &copy), b"by a, who has lost the lock");
        assert!(has_event(&a.w, "lock-lost") && has_event(&a.w, "conflict"));
        assert!(matches!(unlock(&a.w, "g"), Err(WorkspaceError::Sync(SyncError::NotLocked { .. }))), "it is forgotten");
    }
}

#[test]
fn the_same_although_the_new_holder_has_unlocked_again() {
    let (_rig, _a, b) = overtaken(Policy::Ours, |b| {
        b.clock.advance_ms(TERM_MS);
        lock(&b.w, "g").unwrap();
        write(&b.w, "g", b"under the lock");
        unlock(&b.w, "g").unwrap();
    });
    assert_eq!(read(&b.w, "g"), b"by b, who has it now");
    assert_eq!(beside(&b.w).len(), 1);
}

#[test]
fn a_lock_that_is_broken_while_its_holder_writes_is_told_and_loses_nothing() {
    let (_rig, a, b) = two();
    lock(&a.w, "g").unwrap();
    let file = ino(&a.w, "g");
    a.w.tree().open(file, true, false, 0, Wait::Yes).unwrap();
    a.w.tree().write(file, 0, b"half", 0, Wait::Yes).unwrap();
    assert!(lock(&b.w, "g").is_err());
    b.w.lock(&[b"g".to_vec()], None, true).unwrap();
    write(&b.w, "g", b"by b");
    publish(&b.w);
    let messages: Vec<String> =
        b.w.versions().unwrap().into_iter().filter_map(|version| version.summary.message).collect();
    assert!(messages.iter().any(|message| message == "broke the lock of user@a on `g`"), "{messages:?}");
    assert!(has_event(&b.w, "lock-broken"));
    a.w.pull().unwrap();
    assert!(has_event(&a.w, "lock-lost"));
    a.w.tree().write(file, 4, b" and half", 0, Wait::Yes).expect("who is writing goes on");
    a.w.tree().release(file, true);
    refused_by_b(&a);
    publish(&a.w);
    b.w.pull().unwrap();
    assert_eq!(live(&a.w), live(&b.w));
    let [copy] = beside(&b.w).try_into().unwrap();
    assert_eq!((read(&b.w, "g"), read(&b.w, &copy)), (b"by b".to_vec(), b"half and half".to_vec()));
}

fn refused_by_b(a: &Client) {
    match a.w.tree().open(ino(&a.w, "g"), true, false, 0, Wait::Yes) {
        Err(WorkError::Locked { holder }) => assert_eq!(holder, "user@b"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_holder_that_was_offline_keeps_what_nobody_took() {
    let (rig, a, b) = two();
    lock(&a.w, "g").unwrap();
    rig.set_fault(|_, _| kura::store::Fault::Unreachable);
    write(&a.w, "g", b"written offline");
    a.clock.advance_ms(10 * TERM_MS);
    assert!(a.w.pull().is_err() && unlock(&a.w, "g").is_err() && a.w.locks().is_err());
    rig.heal();
    publish(&a.w);
    b.w.pull().unwrap();
    assert!(!is_writable(&b.w, "g") && !has_event(&a.w, "lock-lost"));
    assert_eq!(read(&b.w, "g"), b"written offline");
    unlock(&a.w, "g").unwrap();
    b.w.pull().unwrap();
    assert!(is_writable(&b.w, "g"));
}

#[test]
fn the_holder_keeps_the_name_when_a_late_change_of_others_comes() {
    let (_rig, a, b) = two();
    b.w.set_policy(b"", Some(Policy::Theirs)).unwrap();
    publish(&b.w);
    write(&b.w, "g", b"by b, before it knew of the lock");
    lock(&a.w, "g").unwrap();
    write(&a.w, "g", b"by a, who has it locked");
    publish(&b.w);
    publish(&a.w);
    let [copy] = beside(&a.w).try_into().unwrap();
    assert_eq!(read(&a.w, "g"), b"by a, who has it locked");
    assert_eq!(read(&a.w, &copy), b"by b, before it knew of the lock");
}
