//! Locks: a live holder is respected, a dead one is not, and what it left is removed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kura::apps::sealed::{
    LOCK_TIMEOUT_MS, Machine, Operation, ProcessMark, SealedError, cleanup_stale_temp_files, create_temp_resources,
    safe_remove_file, work_dir,
};
use kura::base::clock::{ManualClock, Timestamp};
use kura::base::disk::replace_file;
use kura::base::sim_disk::{Crash, SimDisk};
use kura::crypto::sharing::Field;
use parking_lot::Mutex;
use uuid::Uuid;

use super::support::*;

const START: i64 = 1_700_000_000;
const HOLDER: ProcessMark = ProcessMark { pid: 100, start_ticks: 5, boot: [1; 16] };

fn dir() -> PathBuf {
    work_dir(Path::new(FILE))
}

/// A machine where `alive` lives, some seconds after [`START`].
fn later(disk: &SimDisk, alive: &[ProcessMark], seconds: i64) -> Machine {
    Machine {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(ManualClock::new(Timestamp::from_parts(START + seconds, 0))),
        processes: Arc::new(Actors { me: mark(200, 7, 1), alive: Mutex::new(alive.to_vec()) }),
    }
}

/// A disk with a file, on which [`HOLDER`] died in the middle of an operation: its lock and temporary file are there,
/// and the operating system's lock went with it.
fn abandoned() -> (SimDisk, Uuid) {
    let disk = disk();
    let machine = machine_of(&disk, HOLDER);
    make_two(&machine, &small(Field::Gf256, 6));
    let uuid = kura::apps::sealed::verify_file(&machine, Path::new(FILE), None).unwrap().header.uuid;
    let resources = create_temp_resources(&machine, &dir(), uuid, Operation::Write, LOCK_TIMEOUT_MS).unwrap();
    replace_file(machine.disk.as_ref(), &resources.temporary, b"begun").unwrap();
    let after = disk.reopen(Crash::Kill);
    drop(resources);
    assert_eq!(leftovers(&machine_of(&after, HOLDER)).len(), 2);
    (after, uuid)
}

#[test]
fn one_at_a_time() {
    let disk = disk();
    let machine = machine_of(&disk, HOLDER);
    let [one, _] = make_two(&machine, &small(Field::Gf256, 6));
    let uuid = kura::apps::sealed::verify_file(&machine, Path::new(FILE), None).unwrap().header.uuid;
    let held = create_temp_resources(&machine, &dir(), uuid, Operation::Write, LOCK_TIMEOUT_MS).unwrap();
    let before = bytes(&machine);
    // Held by the operating system: neither a dead holder nor any age makes it stale.
    for (alive, seconds) in [(&[HOLDER][..], 1), (&[], 1), (&[], 1_000_000), (&[HOLDER], -1_000_000)] {
        let other = later(&disk, alive, seconds);
        let refused = update(&other, &one, "{}");
        assert!(matches!(&refused, Err(SealedError::Locked { pid: 100, .. })), "{refused:?}");
        let swept = cleanup_stale_temp_files(&other, &dir(), 0).unwrap();
        assert_eq!((swept.removed, swept.in_use), (0, 1));
    }
    assert!(text(&later(&disk, &[], 1), &one).contains("one"), "reading needs no lock");
    assert_eq!(bytes(&machine), before);
    drop(held);
    update(&machine, &one, "{}").unwrap();
    assert_eq!(leftovers(&machine), [""; 0]);
}

#[test]
fn a_lock_of_the_dead_is_taken_over_and_what_they_left_is_removed() {
    let (disk, _) = abandoned();
    let reused = ProcessMark { start_ticks: 6, ..HOLDER };
    let other_boot = ProcessMark { boot: [2; 16], ..HOLDER };
    for alive in [&[][..], &[reused], &[other_boot], &[mark(101, 5, 1)]] {
        let disk = disk.reopen(Crash::Kill);
        let machine = later(&disk, alive, 10);
        update(&machine, &credentials("one", &[1, 4, 5]), "{\"after\":1}").unwrap();
        assert_eq!(leftovers(&machine), [""; 0], "{alive:?}");
        assert_eq!(text(&machine, &credentials("one", &[1, 4, 5])), "{\"after\":1}");
    }
    // By the command, without an operation.
    let machine = later(&disk.reopen(Crash::Kill), &[], 10);
    let swept = cleanup_stale_temp_files(&machine, &dir(), LOCK_TIMEOUT_MS).unwrap();
    assert_eq!((swept.removed, swept.in_use), (1, 0));
    assert_eq!(leftovers(&machine), [""; 0]);
}

/// Where the operating system's locks do not reach, the record is respected as long as its holder may be at work.
#[test]
fn a_lock_of_the_living_is_respected_until_its_time_is_over() {
    let (disk, _) = abandoned();
    for (seconds, is_stale) in [(0, false), (3_500, false), (3_700, true), (-3_500, false), (-3_700, true)] {
        let disk = disk.reopen(Crash::Kill);
        let machine = later(&disk, &[HOLDER], seconds);
        let result = update(&machine, &credentials("one", &[1, 4, 5]), "{}");
        if is_stale {
            result.unwrap();
            assert_eq!(leftovers(&machine), [""; 0], "{seconds}");
        } else {
            assert!(matches!(&result, Err(SealedError::Locked { pid: 100, .. })), "{seconds}: {result:?}");
            assert_eq!(leftovers(&machine).len(), 2, "{seconds}");
        }
    }
    // The very process itself knows that it does not hold it.
    let machine = machine_of(&disk.reopen(Crash::Kill), HOLDER);
    update(&machine, &credentials("one", &[1, 4, 5]), "{}").unwrap();
    assert_eq!(leftovers(&machine), [""; 0]);
}

#[test]
fn records_that_are_none_do_not_lock_for_ever() {
    let (disk, uuid) = abandoned();
    let lock = dir().join(format!("{uuid}.lock"));
    let good = kura::base::disk::read_file(&disk, &lock, 1000).unwrap();
    assert_eq!(good.len(), 88);
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        bad
    };
    let bad = (0..88).map(flipped).chain([vec![], good[..87].to_vec(), vec![0; 88], vec![0xff; 5000]]);
    for bad in bad {
        let disk = disk.reopen(Crash::Kill);
        replace_file(&disk, &lock, &bad).unwrap();
        let machine = later(&disk, &[HOLDER], 1);
        let resources = create_temp_resources(&machine, &dir(), uuid, Operation::Write, LOCK_TIMEOUT_MS);
        assert!(resources.is_ok(), "{bad:?}");
        drop(resources);
        assert_eq!(leftovers(&machine), [""; 0]);
    }
}

#[test]
fn cleaning_removes_only_what_it_knows() {
    let (disk, uuid) = abandoned();
    let machine = later(&disk, &[], 1);
    let orphan = format!("{}.{}.tmp", Uuid::from_u128(1), Uuid::from_u128(2));
    let kept = [
        format!("{uuid}.20260101T000000000Z.bak"),
        "notes.tmp".to_owned(),
        format!("{uuid}.tmp"),
        format!("{}.{uuid}.tmp", uuid.to_string().to_uppercase()),
        format!("{uuid}.x.tmp"),
        "x.lock".to_owned(),
    ];
    for name in kept.iter().chain([&orphan]) {
        replace_file(machine.disk.as_ref(), &dir().join(name), b"x").unwrap();
    }
    let swept = cleanup_stale_temp_files(&machine, &dir(), LOCK_TIMEOUT_MS).unwrap();
    assert_eq!((swept.removed, swept.in_use), (2, 0));
    let mut left = leftovers(&machine);
    let mut kept = kept.to_vec();
    left.sort();
    kept.sort();
    assert_eq!(left, kept);
    let nowhere = cleanup_stale_temp_files(&machine, Path::new("/nowhere"), LOCK_TIMEOUT_MS).unwrap();
    assert_eq!((nowhere.removed, nowhere.in_use), (0, 0));
    safe_remove_file(machine.disk.as_ref(), Path::new("/nowhere/at/all"));
}

/// Many at once on a real disk: those who get the lock do their work one after another, the others are refused, and
/// none is lost.
#[test]
fn a_race_loses_no_update() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("race.sealed");
    let machine = Machine {
        disk: Arc::new(kura::base::disk::RealDisk),
        clock: Arc::new(kura::base::clock::SystemClock),
        processes: Arc::new(kura::apps::sealed::SystemProcesses),
    };
    let settings = small(Field::Gf256, 4);
    kura::apps::sealed::create_file(&machine, &path, &settings, &access("p", &[1, 2], 2), b"{}").unwrap();
    let place = kura::apps::sealed::Place { backup: false, ..kura::apps::sealed::Place::of(&path) };
    let done: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let attempt = |_: &u32| match kura::apps::sealed::update_file(
                        &machine,
                        &place,
                        b"{\"x\":1}",
                        &credentials("p", &[1, 2]),
                    ) {
                        Ok(_) => true,
                        Err(SealedError::Locked { .. }) => false,
                        Err(error) => panic!("{error}"),
                    };
                    (0..25).filter(attempt).count() as u64
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    let found = kura::apps::sealed::read_document(
        &machine,
        &path,
        &credentials("p", &[1, 2]),
        kura::apps::sealed::Damage::Refuse,
    );
    assert_eq!(found.unwrap().revision, done + 1);
    assert!(done >= 1);
    assert_eq!(std::fs::read_dir(work_dir(&path)).unwrap().count(), 0);
}

/// This process lives, one that has ended does not, and a number alone is not enough.
#[test]
fn processes_of_the_machine_are_told_apart() {
    use kura::apps::sealed::{Processes, SystemProcesses};
    let me = SystemProcesses.me();
    assert_eq!(me.pid, std::process::id());
    assert_ne!(me.boot, [0; 16]);
    assert!(SystemProcesses.is_alive(&me));
    assert!(!SystemProcesses.is_alive(&ProcessMark { start_ticks: me.start_ticks + 1, ..me }));
    assert!(!SystemProcesses.is_alive(&ProcessMark { boot: [0; 16], ..me }));
    assert!(!SystemProcesses.is_alive(&ProcessMark { pid: u32::MAX, ..me }));
}
