//! What goes wrong where several clients work: nothing is lost, and all end in the same state.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kura::base::clock::{ManualClock, Timestamp};
use kura::base::ids::Sha256;
use kura::base::sim_disk::SimDisk;
use kura::store::{Fault, ObjectKey, Operation, StoreError};
use kura::version::entry::{Body, Entry, Ino};
use kura::version::merge::Policy;
use kura::workspace::{KeySlots, Workspace};
use kura::worktree::{NewNode, Wait};

use super::cases::{beside, names, two};
use crate::workspace_rig::*;

fn converged(rig: &Rig, clients: &[&Arc<Workspace>]) {
    for _ in 0..2 {
        for client in clients {
            publish(client);
            client.pull().unwrap();
        }
    }
    for client in clients {
        assert_eq!(live(client), live(clients[0]));
        assert_eq!(recorded(client, client.tree().base().index.id), live(client));
        numbers_are_unique(client);
    }
    whole(&rig.memory);
}

/// No inode number occurs twice in the newest version.
fn numbers_are_unique(w: &Workspace) {
    let pages = w.pages();
    let mut seen = BTreeSet::new();
    let mut pending: Vec<Entry> = vec![w.version(w.tree().base().index.id).unwrap().root.dir.clone()];
    while let Some(entry) = pending.pop() {
        assert!(seen.insert(entry.ino), "{:?} occurs twice", entry.ino);
        if let Body::Directory { names, .. } = &entry.body {
            let mut each = |_: &[u8], value: &[u8]| {
                pending.push(Entry::decode(value).unwrap());
                true
            };
            names.scan(&*pages, std::ops::Bound::Unbounded, &mut each).unwrap();
        }
    }
}

fn contents(w: &Workspace) -> BTreeSet<Vec<u8>> {
    live(w).into_values().map(|(_, _, content)| content).collect()
}

#[test]
fn clocks_that_are_wrong_by_years_change_names_and_nothing_else() {
    let rig = Rig::new();
    let at = |state: &str, seconds| {
        let mut options = rig.options(state);
        options.clock = Arc::new(ManualClock::new(Timestamp::from_parts(seconds, 0)));
        rig.try_open(options).unwrap()
    };
    let (a, b, c) = (at("a", 0), at("b", 1_800_000_000), at("c", 9_000_000_000));
    a.set_policy(b"w", Some(Policy::LastWriteWins)).unwrap();
    for round in 0..3 {
        for (name, client) in [("a", &a), ("b", &b), ("c", &c)] {
            write(client, "f", format!("{round} by {name}").as_bytes());
            write(client, "w", format!("w {round} by {name}").as_bytes());
            write(client, &format!("only-{name}"), format!("{round}").as_bytes());
            publish(client);
        }
        converged(&rig, &[&a, &b, &c]);
    }
    let kept = contents(&a);
    for name in ["a", "b", "c"] {
        assert!(kept.contains(format!("2 by {name}").as_bytes()), "{:?}", names(&a));
        assert_eq!(read(&a, &format!("only-{name}")), b"2");
    }
    assert_eq!(read(&a, "w"), b"w 2 by c", "the clock that is ahead is believed, and what lost is there");
    assert!(names(&a).iter().any(|name| name.starts_with("backup/w.")), "{:?}", names(&a));
}

#[test]
fn a_client_that_cannot_write_down_what_it_took_in_says_why_it_is_read_only() {
    let refused = (0..).map_while(|step| {
        let (rig, sim) = (Rig::new(), SimDisk::new(step));
        let (a, b) = (rig.open("a"), rig.open_on("b", sim.clone()));
        write(&a, "f", b"by a");
        publish(&a);
        let (begin, disk) = (sim.steps(), sim.clone());
        sim.meanwhile_at(begin + step, move || disk.fail_writes_with(libc::EIO, 0));
        let pulled = b.pull();
        sim.allow_writes();
        if pulled.is_ok() && sim.steps() <= begin + step {
            return None;
        }
        let made = b.tree().make(Ino::ROOT, b"dir", &NewNode::Directory, 0o755, ME, false, Wait::Yes);
        let why = b.status().read_only;
        assert_eq!(made.is_err(), why.is_some(), "step {step}: {made:?}, {why:?}");
        Some(why.is_some_and(|why| why.contains("what others published")))
    });
    assert!(refused.filter(|is_for_that| *is_for_that).count() > 0);
}

#[test]
fn a_client_that_vanishes_while_it_publishes_is_missed_by_nobody() {
    let (rig, a, b) = two();
    write(&b, "d/f", b"by b, half published");
    write(&b, "large", &noise(2_000_000));
    rig.set_fault(|operation, key| match key == "HEAD" && operation == Operation::PutConditional {
        true => Fault::Unreachable,
        false => Fault::Pass,
    });
    assert!(b.flush(Some(Duration::from_secs(1))).unwrap().unpublished_versions > 0);
    b.close(false).unwrap();
    drop(b);
    rig.heal();
    write(&a, "d/f", b"by a, meanwhile");
    publish(&a);
    write(&a, "later", b"later");
    publish(&a);
    assert_eq!(read(&a, "d/f"), b"by a, meanwhile");
    whole(&rig.memory);
    let b = rig.open("b");
    converged(&rig, &[&a, &b]);
    let kept = contents(&a);
    assert!(kept.contains(b"by b, half published".as_slice()) && kept.contains(b"by a, meanwhile".as_slice()));
    assert_eq!(beside(&a).len(), 1);
}

#[test]
fn every_answer_that_a_swing_can_get_ends_with_both_in_the_history() {
    let head = || ObjectKey::new("HEAD").unwrap();
    let answers: [fn(ObjectKey) -> Fault; 4] = [
        |key| Fault::Fail(StoreError::Precondition { key }),
        |_| Fault::Unreachable,
        |_| Fault::CommitThenLose,
        |key| Fault::Fail(StoreError::OutcomeUnknown { key, reason: "503 at HEAD".to_owned() }),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        for is_contended in [false, true] {
            let (rig, a, b) = two();
            write(&b, "d/f", b"by b");
            if is_contended {
                write(&a, "d/f", b"by a");
                publish(&a);
            }
            let left = Arc::new(AtomicUsize::new(2));
            rig.set_fault(move |operation, key| {
                let is_swing = key == "HEAD" && operation == Operation::PutConditional;
                let is_next =
                    || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
                if is_swing && is_next() { answer(head()) } else { Fault::Pass }
            });
            publish(&b);
            rig.heal();
            converged(&rig, &[&a, &b]);
            let kept = contents(&a);
            assert!(kept.contains(b"by b".as_slice()), "answer {number}");
            assert_eq!(
                (kept.contains(b"by a".as_slice()), beside(&a).len()),
                (is_contended, usize::from(is_contended))
            );
        }
    }
}

#[test]
fn access_that_is_revoked_in_the_middle_keeps_everything_here_and_says_so() {
    let (rig, a, b) = two();
    write(&a, "d/f", b"by a");
    publish(&a);
    write(&b, "d/f", b"by b");
    let (is_denied, puts) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let denied = is_denied.clone();
    rig.set_fault(move |operation, key| {
        let is_put = matches!(operation, Operation::Put | Operation::PutConditional);
        // The first objects get through.
        match is_put && denied.load(Ordering::SeqCst) && puts.fetch_add(1, Ordering::SeqCst) >= 1 {
            true => {
                Fault::Fail(StoreError::Denied { action: "put", target: key.to_owned(), reason: "revoked".to_owned() })
            }
            false => Fault::Pass,
        }
    });
    let flushed = b.flush(Some(Duration::from_secs(120))).unwrap();
    assert!(flushed.unpublished_versions > 0 && flushed.reason.unwrap().contains("revoked"));
    assert!(b.status().blocked.unwrap().reason.contains("revoked") && b.status().offline.is_none());
    write(&b, "still", b"works");
    assert_eq!(read(&b, "still"), b"works");
    is_denied.store(false, Ordering::SeqCst);
    converged(&rig, &[&a, &b]);
    assert!(b.status().blocked.is_none());
    let kept = contents(&a);
    assert!(
        kept.contains(b"by a".as_slice()) && kept.contains(b"by b".as_slice()) && kept.contains(b"works".as_slice())
    );
}

#[test]
fn names_that_differ_by_case_or_form_are_two_names() {
    let (rig, a, b) = two();
    write(&a, "Readme", b"by a");
    write(&a, "caf\u{e9}", b"composed");
    write(&b, "README", b"by b");
    write(&b, "cafe\u{301}", b"decomposed");
    converged(&rig, &[&a, &b]);
    for (name, content) in
        [("Readme", "by a"), ("README", "by b"), ("caf\u{e9}", "composed"), ("cafe\u{301}", "decomposed")]
    {
        assert_eq!(read(&a, name), content.as_bytes());
    }
    assert!(beside(&a).is_empty());
}

#[test]
fn a_conflict_of_a_conflict_keeps_all_of_them() {
    let (rig, a, b) = two();
    write(&a, "d/f", b"1 by a");
    write(&b, "d/f", b"1 by b");
    converged(&rig, &[&a, &b]);
    let [first] = beside(&a).try_into().unwrap();
    write(&a, &first, b"2 by a");
    write(&b, &first, b"2 by b");
    converged(&rig, &[&a, &b]);
    let kept = contents(&a);
    for content in ["1 by a", "1 by b", "2 by a", "2 by b"] {
        assert!(kept.contains(content.as_bytes()) || content == "1 by a", "{content} of {:?}", names(&a));
    }
    let found = a.conflicts().unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().any(|conflict| conflict.path == first.as_bytes()), "{found:?}");
    a.resolve(first.as_bytes(), kura::workspace::Take::Ours).unwrap();
    converged(&rig, &[&a, &b]);
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        match item.file_type().unwrap().is_dir() {
            true => copy_dir(&item.path(), &to.join(item.file_name())),
            false => drop(std::fs::copy(item.path(), to.join(item.file_name())).unwrap()),
        }
    }
}

#[test]
fn a_state_directory_from_a_backup_goes_on_without_losing_or_doubling_anything() {
    for is_dirty in [false, true] {
        let (rig, a, b) = two();
        write(&b, "early", b"early");
        publish(&b);
        if is_dirty {
            write(&b, "waiting", b"recorded when the backup was made");
        }
        b.close(false).unwrap();
        drop(b);
        let (state, backup) = (rig.dir.path().join("b"), rig.dir.path().join("backup"));
        copy_dir(&state, &backup);
        let b = rig.open("b");
        for number in 0..20 {
            write(&b, &format!("after-{number}"), format!("after {number}").as_bytes());
        }
        publish(&b);
        b.close(true).unwrap();
        drop(b);
        std::fs::remove_dir_all(&state).unwrap();
        copy_dir(&backup, &state);
        let b = rig.open("b");
        for number in 0..5 {
            write(&b, &format!("new-{number}"), format!("new {number}").as_bytes());
        }
        write(&b, "after-3", b"after 3 once more");
        converged(&rig, &[&a, &b]);
        for number in 0..5 {
            write(&b, &format!("last-{number}"), b"last");
        }
        converged(&rig, &[&a, &b]);
        let kept = contents(&a);
        for number in 0..20 {
            assert!(kept.contains(format!("after {number}").as_bytes()) || number == 3, "{:?}", names(&a));
            assert!(kept.contains(format!("new {number}").as_bytes()) || number >= 5);
        }
        assert!(kept.contains(b"after 3 once more".as_slice()));
        assert_eq!(names(&a).contains(&"waiting".to_owned()), is_dirty);
    }
}

#[test]
fn two_machines_with_one_state_are_two_clients_even_when_they_look_like_one() {
    for machine in [Some(Sha256([9; 32])), Some(Sha256([7; 32]))] {
        let (rig, a, b) = two();
        write(&b, "before", b"before");
        b.close(false).unwrap();
        drop(b);
        copy_dir(&rig.dir.path().join("b"), &rig.dir.path().join("copy"));
        let b = rig.open("b");
        let mut options = rig.options("copy");
        options.machine = machine;
        let copy = rig.try_open(options).unwrap();
        for number in 0..5 {
            write(&b, &format!("b-{number}"), format!("by b {number}").as_bytes());
            write(&copy, &format!("copy-{number}"), format!("by the copy {number}").as_bytes());
            write(&b, &format!("both-{number}"), format!("both, by b {number}").as_bytes());
            write(&copy, &format!("both-{number}"), format!("both, by the copy {number}").as_bytes());
        }
        converged(&rig, &[&a, &b, &copy]);
        for number in 5..8 {
            write(&b, &format!("b-{number}"), b"by b");
            write(&copy, &format!("copy-{number}"), b"by the copy");
        }
        converged(&rig, &[&a, &b, &copy]);
        let kept = contents(&a);
        for number in 0..5 {
            for text in ["by b", "by the copy", "both, by b", "both, by the copy"] {
                assert!(kept.contains(format!("{text} {number}").as_bytes()), "{text} {number} of {:?}", names(&a));
            }
        }
    }
}

#[test]
fn what_comes_in_after_a_new_key_epoch_and_re_encryption_is_read() {
    let (rig, a, b) = two();
    KeySlots::open_in(rig.memory.clone(), &rig.options("key-command")).unwrap().rotate().unwrap();
    write(&a, "d/f", b"under the new epoch");
    publish(&a);
    write(&b, "mine", b"recorded before b knew of the epoch");
    snapshot(&b);
    converged(&rig, &[&a, &b]);
    assert_eq!(read(&b, "d/f"), b"under the new epoch");
    a.reencrypt(None, &|| false, &mut |_| {}).unwrap();
    write(&b, "g", &noise(400_000));
    snapshot(&b);
    converged(&rig, &[&a, &b]);
    assert_eq!(read(&a, "g"), noise(400_000));
    assert_eq!(read(&a, "mine"), b"recorded before b knew of the epoch");
}
