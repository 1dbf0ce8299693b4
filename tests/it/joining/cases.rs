//! Two or three clients, case by case.

use std::sync::Arc;
use std::time::Duration;

use kura::base::sim_disk::{Crash, Keep, SimDisk};
use kura::store::{Fault, Operation};
use kura::version::index::Origin;
use kura::version::merge::Policy;
use kura::workspace::{Take, Workspace};
use kura::worktree::{Invalidation, RenameMode, Wait};
use parking_lot::Mutex;

use crate::rig::meanwhile;
use crate::workspace_rig::*;

const SOON: Option<Duration> = Some(Duration::from_secs(120));

pub fn names(w: &Workspace) -> Vec<String> {
    live(w).into_keys().collect()
}

pub fn beside(w: &Workspace) -> Vec<String> {
    names(w).into_iter().filter(|name| name.contains("conflict-")).collect()
}

pub fn two() -> (Rig, Arc<Workspace>, Arc<Workspace>) {
    let rig = Rig::new();
    let a = rig.open("a");
    mkdir(&a, "d");
    write(&a, "d/f", b"base of f");
    write(&a, "g", &noise(300_000));
    publish(&a);
    let b = rig.open("b");
    (rig, a, b)
}

#[test]
fn what_one_publishes_appears_at_the_other_as_the_same_version() {
    let (rig, a, b) = two();
    live(&b);
    write(&a, "d/f", b"edited");
    write(&a, "new", &noise(900_000));
    a.tree().rename((ino(&a, ""), b"g"), (ino(&a, "d"), b"moved"), RenameMode::Replace, Wait::Yes).unwrap();
    publish(&a);
    assert!(b.pull().unwrap() && !b.pull().unwrap());
    assert_eq!(live(&a), live(&b));
    assert_eq!(a.tree().base().index.id, b.tree().base().index.id);
    assert_eq!(a.tree().base().refs, b.tree().base().refs);
    assert!(!b.tree().has_unrecorded() && b.status().unpublished_versions == 0);
    b.close(true).unwrap();
    let b = rig.open("b");
    assert_eq!(live(&a), live(&b));
    whole(&rig.memory);
}

#[test]
fn changes_of_both_are_joined_by_a_version_with_two_parents() {
    let (rig, a, b) = two();
    write(&a, "d/f", b"edited by a");
    let ours = snapshot(&a);
    publish(&a);
    write(&b, "other", b"made by b");
    let theirs = snapshot(&b);
    publish(&b);
    let newest = b.version(b.tree().base().index.id).unwrap();
    assert_eq!((newest.origin, newest.parents.clone()), (Origin::Merge, vec![theirs, ours]));
    assert!(a.pull().unwrap());
    assert_eq!(live(&a), live(&b));
    assert_eq!(read(&a, "other"), b"made by b");
    assert_eq!(read(&b, "d/f"), b"edited by a");
    assert_eq!(recorded(&a, newest.id), live(&a));
    assert!(beside(&a).is_empty());
    whole(&rig.memory);
}

#[test]
fn a_conflict_keeps_both_and_is_told() {
    let (rig, a, b) = two();
    write(&a, "d/f", b"by a");
    publish(&a);
    write(&b, "d/f", b"by b");
    publish(&b);
    let [beside] = beside(&b).try_into().unwrap();
    assert!(beside.starts_with("d/conflict-2") && beside.ends_with(".f"), "{beside}");
    assert_eq!((read(&b, "d/f"), read(&b, &beside)), (b"by b".to_vec(), b"by a".to_vec()));
    assert_eq!(b.status().conflicts, 1);
    let (events, next) = b.events(0);
    assert!(events.iter().any(|line| line.contains("\"conflict\"") && line.contains(&beside)), "{events:?}");
    assert!(b.events(next).0.is_empty());
    a.pull().unwrap();
    assert_eq!(live(&a), live(&b));
    whole(&rig.memory);
}

#[test]
fn a_file_that_is_being_written_meets_the_policy_when_it_is_closed() {
    let (rig, a, b) = two();
    let file = ino(&b, "d/f");
    b.tree().open(file, true, false, 0, Wait::Yes).unwrap();
    b.tree().write(file, 0, b"BASE", 0, Wait::Yes).unwrap();
    write(&a, "d/f", b"by a, longer than before");
    publish(&a);
    assert!(b.pull().unwrap());
    assert_eq!(read(&b, "d/f"), b"BASE of f", "the draft stands on what it was based on");
    b.tree().write(file, 5, b"OF", 0, Wait::Yes).unwrap();
    assert!(beside(&b).is_empty(), "not before it is closed");
    publish(&b);
    assert_eq!(recorded(&b, b.tree().base().index.id)["d/f"].2, b"by a, longer than before");
    b.tree().release(file, true);
    publish(&b);
    assert_eq!(read(&b, "d/f"), b"BASE OF f");
    let [copy] = beside(&b).try_into().unwrap();
    assert_eq!(read(&b, &copy), b"by a, longer than before");
    a.pull().unwrap();
    assert_eq!(live(&a), live(&b));
    whole(&rig.memory);
}

#[test]
fn a_file_that_was_only_opened_for_writing_becomes_theirs() {
    let (_rig, a, b) = two();
    let file = ino(&b, "d/f");
    b.tree().open(file, true, false, 0, Wait::Yes).unwrap();
    write(&a, "d/f", b"by a");
    publish(&a);
    b.pull().unwrap();
    b.tree().release(file, true);
    publish(&b);
    assert_eq!(read(&b, "d/f"), b"by a");
    assert!(beside(&b).is_empty());
}

#[test]
fn a_contested_draft_survives_a_restart() {
    let (rig, a, b) = two();
    let file = ino(&b, "d/f");
    b.tree().open(file, true, false, 0, Wait::Yes).unwrap();
    b.tree().write(file, 0, b"BASE", 0, Wait::Yes).unwrap();
    write(&a, "d/f", b"by a, longer than before");
    publish(&a);
    b.pull().unwrap();
    b.close(true).unwrap();
    drop(b);
    let b = rig.open("b");
    assert_eq!(read(&b, "d/f"), b"BASE of f");
    let file = ino(&b, "d/f");
    b.tree().fsync(file, Wait::Yes).unwrap();
    publish(&b);
    let [copy] = beside(&b).try_into().unwrap();
    assert_eq!(read(&b, &copy), b"by a, longer than before");
    assert_eq!(read(&b, "d/f"), b"BASE of f");
}

#[test]
fn who_reads_a_file_goes_on_reading_what_was_opened() {
    let (rig, a, b) = two();
    let (file, big) = (ino(&b, "d/f"), ino(&b, "g"));
    b.tree().lookup(ino(&b, "d"), b"f", Wait::Yes).unwrap();
    for ino in [file, big] {
        b.tree().open(ino, false, false, 0, Wait::Yes).unwrap();
    }
    write(&a, "d/f", b"by a");
    remove(&a, "g");
    publish(&a);
    b.pull().unwrap();
    assert_eq!(b.tree().read(file, 0, 100, Wait::Yes).unwrap(), b"base of f");
    assert_eq!(b.tree().read(big, 0, 300_000, Wait::Yes).unwrap(), noise(300_000));
    assert_eq!(read(&b, "d/f"), b"by a");
    assert_ne!(ino(&b, "d/f"), file);
    assert!(!b.tree().has_unrecorded(), "nobody else has to know");
    // What is written to the new inode is found again after a restart.
    let fresh = ino(&b, "d/f");
    b.tree().open(fresh, true, false, 0, Wait::Yes).unwrap();
    b.tree().write(fresh, 0, b"BY", 0, Wait::Yes).unwrap();
    b.tree().fsync(fresh, Wait::Yes).unwrap();
    b.close(false).unwrap();
    let b = rig.open("b");
    assert_eq!(read(&b, "d/f"), b"BY a");
}

#[test]
fn a_file_that_came_back_while_it_was_open_is_another_one_and_survives_a_kill() {
    let rig = Rig::new();
    let a = rig.open("a");
    mkdir(&a, "d");
    write(&a, "d/f", b"base of f");
    for number in 0..50 {
        mkdir(&a, &format!("other{number}"));
        write(&a, &format!("other{number}/file"), b"content");
    }
    publish(&a);
    let mut options = rig.options("b");
    options.limits.inodes_max = 1;
    let b = rig.try_open(options).unwrap();
    let file = ino(&b, "d/f");
    b.tree().open(file, false, false, 0, Wait::Yes).unwrap();
    remove(&b, "d/f");
    publish(&b);
    // An edit outweighs a removal.
    write(&a, "d/f", b"edit of f");
    publish(&a);
    // What was used longest ago leaves memory.
    live(&b);
    assert!(b.pull().unwrap());
    let back = ino(&b, "d/f");
    assert_ne!(back, file);
    assert_eq!(b.tree().read(file, 0, 100, Wait::Yes).unwrap(), b"base of f");
    b.tree().open(back, true, false, 0, Wait::Yes).unwrap();
    b.tree().write(back, 0, b"EDIT", 0, Wait::Yes).unwrap();
    b.tree().fsync(back, Wait::Yes).unwrap();
    drop(b);
    let b = rig.open("b");
    assert_eq!(read(&b, "d/f"), b"EDIT of f");
    publish(&b);
    a.pull().unwrap();
    assert_eq!(read(&a, "d/f"), b"EDIT of f");
    assert_eq!(live(&a), live(&b));
}

#[test]
fn a_name_that_is_being_made_here_keeps_its_file() {
    let (rig, a, b) = two();
    let tree = b.tree();
    let dir = ino(&b, "d");
    let file = tree.make(dir, b"new", &kura::worktree::NewNode::File, 0o644, ME, true, Wait::Yes).unwrap().ino;
    tree.write(file, 0, b"ours", 0, Wait::Yes).unwrap();
    write(&a, "d/new", b"theirs");
    publish(&a);
    assert!(b.pull().unwrap());
    tree.release(file, true);
    publish(&b);
    assert_eq!(read(&b, "d/new"), b"ours");
    let [copy] = beside(&b).try_into().unwrap();
    assert_eq!(read(&b, &copy), b"theirs");
    a.pull().unwrap();
    assert_eq!(live(&a), live(&b));
    whole(&rig.memory);
}

#[test]
fn a_directory_that_others_moved_takes_what_is_open_along() {
    let (rig, a, b) = two();
    let file = ino(&b, "d/f");
    b.tree().open(file, true, false, 0, Wait::Yes).unwrap();
    b.tree().write(file, 0, b"BASE", 0, Wait::Yes).unwrap();
    mkdir(&a, "x");
    mkdir(&a, "x/y");
    a.tree().rename((ino(&a, ""), b"d"), (ino(&a, "x/y"), b"moved"), RenameMode::Replace, Wait::Yes).unwrap();
    publish(&a);
    b.pull().unwrap();
    b.tree().release(file, true);
    publish(&b);
    assert_eq!(read(&b, "x/y/moved/f"), b"BASE of f");
    a.pull().unwrap();
    assert_eq!(live(&a), live(&b));
    b.close(true).unwrap();
    assert_eq!(live(&rig.open("b")), live(&a));
}

#[test]
fn the_kernel_is_told_what_to_forget() {
    let (_rig, a, b) = two();
    let told: Arc<Mutex<Vec<Invalidation>>> = Arc::default();
    let sink = told.clone();
    live(&b);
    let (root, dir, file) = (ino(&b, ""), ino(&b, "d"), ino(&b, "d/f"));
    b.tree().on_invalidation(move |list| sink.lock().extend(list));
    write(&a, "d/f", b"by a");
    remove(&a, "g");
    publish(&a);
    b.pull().unwrap();
    let told = told.lock();
    assert!(told.contains(&Invalidation::Inode(file)) && told.contains(&Invalidation::Inode(dir)));
    assert!(told.contains(&Invalidation::Name { parent: root, name: b"g".as_slice().into() }));
}

#[test]
fn a_lost_race_is_won_by_joining() {
    let (rig, a, b) = two();
    a.close(true).unwrap();
    let a = Workspace::open_in(rig.memory.clone(), rig.options("a")).unwrap();
    write(&a, "by a", b"1");
    snapshot(&a);
    write(&b, "by b", b"2");
    let racing = Arc::new(Mutex::new(Some(a.clone())));
    rig.set_fault(move |operation, key| {
        let is_swing = operation == Operation::PutConditional && key == "HEAD";
        let first = if is_swing { racing.lock().take() } else { None };
        if let Some(a) = first {
            a.flush(SOON).unwrap();
        }
        Fault::Pass
    });
    publish(&b);
    rig.heal();
    a.pull().unwrap();
    assert_eq!(live(&a), live(&b));
    assert_eq!((read(&a, "by a"), read(&a, "by b")), (b"1".to_vec(), b"2".to_vec()));
    whole(&rig.memory);
}

#[test]
fn names_of_versions_survive_from_both_sides() {
    let (_rig, a, b) = two();
    a.snapshot(None, Some("by a".into())).unwrap();
    let ours = a.snapshot(None, Some("both".into())).unwrap().record.id;
    publish(&a);
    b.snapshot(None, Some("by b".into())).unwrap();
    let theirs = b.snapshot(None, Some("both".into())).unwrap().record.id;
    publish(&b);
    a.pull().unwrap();
    let tags = |w: &Workspace| -> Vec<(String, _)> {
        let mut tags: Vec<_> =
            w.versions().unwrap().into_iter().flat_map(|v| v.tags.into_iter().map(move |tag| (tag, v.id))).collect();
        tags.sort();
        tags
    };
    assert_eq!(tags(&a), tags(&b));
    let named = |name: &str| tags(&a).into_iter().find(|(tag, _)| tag == name).map(|(_, id)| id);
    assert!(named("by a").is_some() && named("by b").is_some());
    assert_eq!((named("both"), named("both-2")), (Some(ours), Some(theirs)));
    a.untag("by b").unwrap();
    publish(&a);
    write(&b, "more", b"x");
    publish(&b);
    assert!(!tags(&b).iter().any(|(tag, _)| tag == "by b"), "what was taken away stays away");
}

#[test]
fn work_goes_on_while_versions_come_in() {
    let (rig, a, b) = two();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (b, stop) = (b.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut round = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) && round < 2_000 {
                write(&b, &format!("d/b{}", round % 50), format!("{round}").as_bytes());
                round += 1;
            }
            round
        })
    };
    for round in 0..15 {
        write(&a, &format!("d/a{round}"), format!("{round}").as_bytes());
        publish(&a);
        b.pull().unwrap();
        publish(&b);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(writer.join().unwrap() > 0);
    publish(&b);
    a.pull().unwrap();
    assert_eq!(live(&a), live(&b));
    assert!((0..15).all(|round| read(&b, &format!("d/a{round}")) == round.to_string().as_bytes()));
    whole(&rig.memory);
}

#[test]
fn joining_that_fails_on_the_way_changes_nothing() {
    for fails in 0..12 {
        let (rig, a, b) = two();
        for file in 0..30 {
            write(&a, &format!("d/{file}"), &noise(1_000 + file));
        }
        publish(&a);
        write(&b, "mine", b"mine");
        snapshot(&b);
        let before = live(&b);
        let count = std::sync::atomic::AtomicUsize::new(0);
        rig.set_fault(move |_, _| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            number if number < fails => Fault::Pass,
            _ => Fault::Unreachable,
        });
        let joined = b.pull();
        rig.heal();
        if joined.is_err() {
            assert_eq!(live(&b), before);
        }
        publish(&b);
        a.pull().unwrap();
        assert_eq!(live(&a), live(&b));
        whole(&rig.memory);
    }
}

#[test]
fn a_crash_at_any_step_of_joining_loses_nothing() {
    for step in 0.. {
        let rig = Rig::new();
        let a = rig.open("a");
        mkdir(&a, "d");
        write(&a, "d/f", b"base of f");
        publish(&a);
        let open = |disk: SimDisk| rig.open_on("b", disk);
        let sim = SimDisk::new(step);
        let b = open(sim.clone());
        write(&b, "mine", b"mine");
        let file = ino(&b, "d/f");
        b.tree().open(file, true, false, 0, Wait::Yes).unwrap();
        b.tree().write(file, 0, b"BASE", 0, Wait::Yes).unwrap();
        b.tree().log_drafts().unwrap();
        b.tree().sync().unwrap();
        mkdir(&a, "to");
        write(&a, "d/f", b"by a, longer than before");
        a.tree().rename((ino(&a, ""), b"d"), (ino(&a, "to"), b"moved"), RenameMode::Replace, Wait::Yes).unwrap();
        publish(&a);
        sim.crash_at(sim.steps() + step);
        let joined = b.pull();
        let has_crashed = sim.has_crashed();
        assert!(joined.is_ok() || has_crashed, "{joined:?}");
        drop(b);
        let b = open(sim.reopen(Crash::PowerCut { keep: Keep::Seeded }));
        assert_eq!(read(&b, "mine"), b"mine");
        let draft = if live(&b).contains_key("to") { "to/moved/f" } else { "d/f" };
        assert_eq!(read(&b, draft), b"BASE of f", "step {step}");
        b.tree().fsync(ino(&b, draft), Wait::Yes).unwrap();
        publish(&b);
        let [copy] = beside(&b).try_into().unwrap();
        assert_eq!(read(&b, &copy), b"by a, longer than before");
        assert_eq!(read(&b, "to/moved/f"), b"BASE of f");
        a.pull().unwrap();
        assert_eq!(live(&a), live(&b));
        if !has_crashed {
            break;
        }
    }
}

#[test]
fn what_is_acknowledged_in_the_middle_of_joining_survives_a_crash() {
    for (step, is_synced) in (0..).flat_map(|step| [(step, false), (step, true)]) {
        let rig = Rig::new();
        let a = rig.open("a");
        write(&a, "f", b"base of f");
        publish(&a);
        let open = |disk: SimDisk| rig.open_on("b", disk);
        let sim = SimDisk::new(step);
        let b = open(sim.clone());
        let file = ino(&b, "f");
        b.tree().open(file, true, false, 0, Wait::Yes).unwrap();
        b.tree().write(file, 0, b"B", 0, Wait::Yes).unwrap();
        write(&a, "g", b"by a");
        publish(&a);
        let (writer, dying, begin) = (b.clone(), sim.clone(), sim.steps());
        let done = meanwhile(&sim, begin + step, move || {
            writer.tree().write(file, 1, b"ASE", 0, Wait::Yes)?;
            if is_synced {
                writer.tree().fsync(file, Wait::Yes)?
            } else {
                writer.tree().log(file, Wait::Yes)?
            }
            dying.crash_at(0);
            Ok(())
        });
        let joined = b.pull();
        assert!(joined.is_ok() || sim.has_crashed(), "{joined:?}");
        if sim.steps() <= begin + step && !sim.has_crashed() {
            break;
        }
        assert_eq!(done.recv(), Ok(true), "step {step}, synced: {is_synced}");
        drop(b);
        let crash = if is_synced { Crash::PowerCut { keep: Keep::None } } else { Crash::Kill };
        let b = open(sim.reopen(crash));
        assert_eq!(read(&b, "f"), b"BASE of f", "step {step}, synced: {is_synced}");
    }
}

#[test]
fn conflicts_are_settled_afterwards() {
    let (_rig, a, b) = two();
    for path in ["keep", "swap", "both.txt", "merge"] {
        write(&a, path, b"1\n2\n3\n4\n5\n");
    }
    publish(&a);
    b.pull().unwrap();
    for path in ["keep", "swap", "both.txt", "merge"] {
        write(&a, path, b"one\n2\n3\n4\n5\n");
        write(&b, path, b"1\n2\n3\n4\nfive\n");
    }
    publish(&a);
    publish(&b);
    assert_eq!(b.conflicts().unwrap().len(), 4);
    assert_eq!(b.status().conflicts, 4);
    for (path, take) in [("keep", Take::Ours), ("swap", Take::Theirs), ("both.txt", Take::Both), ("merge", Take::Merge)]
    {
        assert_eq!(b.resolve(path.as_bytes(), take).unwrap().len(), 1, "{path}");
    }
    assert!(b.conflicts().unwrap().is_empty() && b.resolve(b"keep", Take::Ours).unwrap().is_empty());
    assert_eq!(b.status().conflicts, 0);
    assert_eq!(read(&b, "keep"), b"1\n2\n3\n4\nfive\n");
    assert_eq!(read(&b, "swap"), b"one\n2\n3\n4\n5\n");
    assert_eq!(read(&b, "both.txt"), b"1\n2\n3\n4\nfive\n");
    assert_eq!(read(&b, "both.theirs.txt"), b"one\n2\n3\n4\n5\n");
    assert_eq!(read(&b, "merge"), b"one\n2\n3\n4\nfive\n");
    publish(&b);
    a.pull().unwrap();
    assert_eq!(live(&a), live(&b));
}

#[test]
fn policies_are_for_everybody_and_for_patterns() {
    let (rig, a, b) = two();
    a.set_policy(b"*.md", Some(Policy::Merge)).unwrap();
    a.set_policy(b"d/**", Some(Policy::LastWriteWins)).unwrap();
    for path in ["x.md", "d/y"] {
        write(&a, path, b"1\n2\n3\n4\n5\n");
    }
    publish(&a);
    b.pull().unwrap();
    assert_eq!(a.policies().unwrap(), b.policies().unwrap());
    write(&b, "x.md", b"1\n2\n3\n4\nfive\n");
    write(&b, "d/y", b"by b");
    write(&a, "x.md", b"one\n2\n3\n4\n5\n");
    write(&a, "d/y", b"by a, later");
    publish(&a);
    publish(&b);
    assert_eq!(read(&b, "x.md"), b"one\n2\n3\n4\nfive\n");
    assert_eq!(read(&b, "d/y"), b"by a, later");
    assert!(names(&b).iter().any(|name| name.starts_with("backup/d/y.2")));
    assert!(beside(&b).is_empty());
    a.set_policy(b"*.md", None).unwrap();
    assert_eq!(a.policies().unwrap().len(), 1);
    publish(&a);
    whole(&rig.memory);
}

#[test]
fn joining_reads_what_differs_and_not_what_exists() {
    let rig = Rig::new();
    let a = rig.open("a");
    let is_long = std::env::var_os("KURA_TEST_LONG").is_some();
    let (dirs, files) = if is_long { (1000, 100) } else { (100, 60) };
    for dir in 0..dirs {
        mkdir(&a, &format!("d{dir}"));
        for file in 0..files {
            write(&a, &format!("d{dir}/f{file}"), format!("content of {dir} {file}").as_bytes());
        }
    }
    publish(&a);
    let b = rig.open("b");
    for file in 0..10 {
        write(&a, &format!("d{}/f7", file * 9), b"changed by a");
    }
    publish(&a);
    write(&b, "d3/f3", b"changed by b");
    snapshot(&b);
    let reads = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
    let seen = reads.clone();
    rig.set_fault(move |operation, key| {
        if matches!(operation, Operation::Get | Operation::GetRange) {
            seen.lock().insert(key.to_owned());
        }
        Fault::Pass
    });
    publish(&b);
    rig.heal();
    let reads = reads.lock().len();
    assert!(reads < 60, "{reads} objects");
    assert_eq!(read(&b, "d9/f7"), b"changed by a");
    whole(&rig.memory);
}
