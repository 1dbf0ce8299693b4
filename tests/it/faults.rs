//! Faults met inside of a workspace: foreign names, waiting stores, objects that nothing needs.
#![allow(clippy::disallowed_methods, reason = "what a user does to files")]

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use kura::store::{Fault, Operation};
use kura::version::entry::{CONTROL_NAME, Ino};
use kura::worktree::{NewNode, Wait, WorkError};
use parking_lot::{Condvar, Mutex};

use super::workspace_rig::*;

#[test]
fn a_reserved_name_that_somebody_else_recorded_is_neither_shown_nor_restored() {
    let rig = Rig::new();
    // Another program could write this: ours refuses the name at its doors.
    let theirs = rig.open("theirs");
    theirs.tree().make(Ino::ROOT, CONTROL_NAME, &NewNode::Directory, 0o755, ME, false, Wait::Yes).unwrap();
    write(&theirs, ".kura/inside", b"x");
    write(&theirs, "beside", b"y");
    let version = snapshot(&theirs);
    theirs.close(true).unwrap();

    let ours = rig.open("ours");
    assert_eq!(live(&ours).into_keys().collect::<Vec<_>>(), ["beside"]);
    let found = ours.tree().lookup(Ino::ROOT, CONTROL_NAME, Wait::Yes);
    assert!(matches!(found, Err(WorkError::NotFound)), "{found:?}");
    // Changing names beside it does no harm to the version.
    write(&ours, "beside", b"z");
    remove(&ours, "beside");
    snapshot(&ours);
    let restored = ours.restore(version, &[], false).unwrap();
    assert_eq!(restored.changes.len(), 1);
    assert_eq!(read(&ours, "beside"), b"y");
    assert_eq!(live(&ours).len(), 1);
    ours.close(true).unwrap();
}

#[test]
fn a_restore_passes_over_the_reserved_name_and_says_so() {
    let rig = Rig::new();
    let theirs = rig.open("theirs");
    write(&theirs, "beside", b"y");
    mkdir(&theirs, "dir");
    let before = snapshot(&theirs);
    let dir = ino(&theirs, "dir");
    theirs.tree().make(dir, CONTROL_NAME, &NewNode::Directory, 0o755, ME, false, Wait::Yes).unwrap();
    write(&theirs, "dir/.kura/inside", b"x");
    let with = snapshot(&theirs);
    theirs.restore(before, &[], false).unwrap();
    theirs.tree().unlink(ino(&theirs, "dir/.kura"), b"inside", Wait::Yes).ok();
    theirs.tree().rmdir(ino(&theirs, "dir"), CONTROL_NAME, Wait::Yes).unwrap();
    snapshot(&theirs);
    let restored = theirs.restore(with, &[], false).unwrap();
    assert_eq!(restored.skipped, [Arc::<[u8]>::from(&b"dir/.kura"[..])]);
    assert_eq!(live(&theirs).into_keys().collect::<Vec<_>>(), ["beside", "dir"]);
    theirs.close(true).unwrap();
}

/// Requests wait at it until it is opened.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn pass(&self) {
        let mut open = self.0.lock();
        while !*open {
            self.1.wait(&mut open);
        }
    }

    fn open(&self) {
        *self.0.lock() = true;
        self.1.notify_all();
    }
}

#[test]
fn status_does_not_wait_for_a_checkpoint_that_waits_for_the_store() {
    let rig = Rig::new();
    let workspace = rig.open("state");
    write(&workspace, "file", b"content");
    let (gate, (asked, is_asked)) = (Arc::new(Gate::default()), mpsc::channel());
    let closed = gate.clone();
    rig.set_fault(move |operation, _| {
        if operation != Operation::Put {
            asked.send(()).ok();
            closed.pass();
        }
        Fault::Pass
    });
    let recording = workspace.clone();
    let recorded = std::thread::spawn(move || recording.snapshot(None, None).is_ok());
    is_asked.recv_timeout(Duration::from_secs(30)).unwrap();
    let (answer, is_answered) = mpsc::channel();
    let shown = workspace.clone();
    let asking = std::thread::spawn(move || answer.send(shown.status().unrecorded_changes).ok());
    let status = is_answered.recv_timeout(Duration::from_secs(30));
    gate.open();
    assert!(status.is_ok(), "status waits for the store");
    asking.join().unwrap();
    assert!(recorded.join().unwrap());
    rig.heal();
    workspace.close(true).unwrap();
}

#[test]
fn a_store_that_is_away_does_not_keep_versions_from_being_recorded() {
    let rig = Rig::new();
    let workspace = rig.open("state");
    write(&workspace, "a", b"first");
    workspace.flush(Some(Duration::from_secs(30))).unwrap();
    rig.set_fault(|_, _| Fault::Unreachable);
    for round in 0..3u8 {
        write(&workspace, "a", &[round; 10]);
        snapshot(&workspace);
        workspace.flush(Some(Duration::ZERO)).unwrap();
    }
    let status = workspace.status();
    assert!(status.offline.is_some() && status.unpublished_versions >= 3, "{status}");
    rig.heal();
    workspace.flush(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(workspace.status().offline, None);
    workspace.close(true).unwrap();
}

#[test]
fn objects_of_files_that_are_gone_leave_the_outbox_with_the_last_publishing() {
    let rig = Rig::new();
    let workspace = rig.open("state");
    let outbox = workspace.state_dir().join("outbox");
    let waiting = || std::fs::read_dir(&outbox).unwrap().count();
    write(&workspace, "big", &noise(5_000_000));
    workspace.tree().absorb_all().unwrap();
    assert!(waiting() > 0);
    snapshot(&workspace);
    write(&workspace, "other", &noise(3_000_000));
    workspace.tree().absorb_all().unwrap();
    remove(&workspace, "other");
    remove(&workspace, "big");
    workspace.flush(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(waiting(), 0);
    // What was dropped is stored anew when it comes again.
    write(&workspace, "again", &noise(3_000_000));
    workspace.flush(Some(Duration::from_secs(30))).unwrap();
    whole(&rig.memory);
    workspace.close(true).unwrap();
}
