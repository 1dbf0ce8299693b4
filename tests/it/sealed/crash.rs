//! A crash at every step of every operation: the file is the old one or the new one, whole.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use kura::apps::sealed::{
    LOCK_TIMEOUT_MS, Machine, Operation, Result, SealedError, add_document, change_password, cleanup_stale_temp_files,
    create_file, create_temp_resources, refresh_file, update_file, verify_file, work_dir,
};
use kura::base::disk::Disk;
use kura::base::sim_disk::{Crash, Keep, SimDisk};
use kura::crypto::sharing::Field;
use kura::crypto::slots::Secret;

use super::support::*;

const CRASHES: [Crash; 3] = [Crash::Kill, Crash::PowerCut { keep: Keep::None }, Crash::PowerCut { keep: Keep::Seeded }];

/// An operation, and the password of document one after it with what it holds then.
struct Case {
    run: fn(&Machine) -> Result<()>,
    after: (&'static str, &'static str),
}

fn one() -> kura::apps::sealed::Credentials {
    credentials("one", &[1, 4, 5])
}

const CASES: [Case; 4] = [
    Case {
        run: |machine| update_file(machine, &place(), b"{\"name\":\"new\"}", &one()).map(|_| ()),
        after: ("one", "{\"name\":\"new\"}"),
    },
    Case {
        run: |machine| change_password(machine, &place(), &one(), Secret::from_text("new".to_owned())).map(|_| ()),
        after: ("new", "{\"name\":\"one\"}"),
    },
    Case {
        run: |machine| {
            let known = [one(), credentials("two", &[2, 6])];
            add_document(machine, &place(), (&known, true), &access("three", &[3, 7], 2), b"{}").map(|_| ())
        },
        after: ("one", "{\"name\":\"one\"}"),
    },
    Case {
        run: |machine| refresh_file(machine, &place(), &[one(), credentials("two", &[2, 6])], true).map(|_| ()),
        after: ("one", "{\"name\":\"one\"}"),
    },
];

/// The disk after a file with two documents was made on it and all of it is durable.
fn prepared() -> SimDisk {
    let disk = disk();
    make_two(&machine(&disk), &small(Field::Gf256, 7));
    disk.sync_dir(Path::new("/dir")).unwrap();
    disk.reopen(Crash::PowerCut { keep: Keep::None })
}

/// What must hold after a crash: one of two contents, the other document, and nothing left once it was cleaned.
fn check(disk: &SimDisk, before: &[u8], case: &Case, what: &str) {
    // The process that crashed had number 100.
    let machine = machine_of(disk, mark(101, 9, 1));
    let (password, json) = case.after;
    let is_old = bytes(&machine) == before;
    if is_old {
        assert_eq!(text(&machine, &one()), "{\"name\":\"one\"}", "{what}");
    } else {
        assert_eq!(text(&machine, &credentials(password, &[1, 4, 5])), json, "{what}");
    }
    assert_eq!(text(&machine, &credentials("two", &[2, 6])), "{\"name\":\"two\"}", "{what}");
    let dir = work_dir(Path::new(FILE));
    cleanup_stale_temp_files(&machine, &dir, LOCK_TIMEOUT_MS).unwrap();
    for name in leftovers(&machine) {
        assert!(name.ends_with(".bak"), "{what}: {name} was left");
        let backup = kura::base::disk::read_file(machine.disk.as_ref(), &dir.join(&name), usize::MAX).unwrap();
        assert_eq!(backup, before, "{what}");
    }
    if is_old {
        // It can be done again, whatever the crash left.
        (case.run)(&machine).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    assert!(verify_file(&machine, Path::new(FILE), Some(&credentials("two", &[2, 6]))).unwrap().authentic);
}

#[test]
fn a_crash_at_any_step_leaves_the_old_file_or_the_new_one() {
    let base = prepared();
    let fresh = || base.reopen(Crash::Kill);
    for (number, case) in CASES.iter().enumerate() {
        let whole = fresh();
        let before = bytes(&machine(&whole));
        (case.run)(&machine(&whole)).unwrap();
        let steps = whole.steps();
        assert!(steps > 20);
        let stride = if is_long() { 1 } else { (steps / 25).max(1) };
        // Near the end, where it all happens, every step.
        for step in (0..steps).filter(|step| step % stride == 0 || step + 14 >= steps) {
            for crash in CRASHES {
                let what = format!("case {number}, step {step} of {steps}, {crash:?}");
                let disk = fresh();
                disk.crash_at(step);
                let result = (case.run)(&machine(&disk));
                assert!(disk.has_crashed(), "{what}");
                let after = disk.reopen(crash);
                if result.is_ok() {
                    assert_ne!(bytes(&machine(&after)), before, "{what}: it was said to be done");
                }
                check(&after, &before, case, &what);
            }
        }
        let done = whole.reopen(Crash::PowerCut { keep: Keep::None });
        assert_ne!(bytes(&machine(&done)), before, "what was done survives a power cut");
    }
}

#[test]
fn a_crash_while_a_file_is_made_leaves_no_part_of_it() {
    let make = |disk: &SimDisk| {
        create_file(&machine(disk), &file(), &small(Field::Gf256, 4), &access("p", &[1, 3], 2), b"{\"a\":1}")
    };
    let whole = disk();
    make(&whole).unwrap();
    for step in 0..whole.steps() {
        for crash in CRASHES {
            let disk = disk();
            disk.crash_at(step);
            let made = make(&disk).is_ok();
            let after = disk.reopen(crash);
            let machine = machine_of(&after, mark(101, 9, 1));
            let there = machine.disk.list(Path::new("/dir")).is_ok_and(|items| items.iter().any(|i| !i.is_dir));
            assert!(there || !made, "step {step}, {crash:?}");
            if there {
                assert_eq!(text(&machine, &credentials("p", &[1, 3])), "{\"a\":1}", "step {step}, {crash:?}");
            }
            cleanup_stale_temp_files(&machine, &work_dir(Path::new(FILE)), LOCK_TIMEOUT_MS).unwrap();
            assert_eq!(leftovers(&machine), [""; 0], "step {step}, {crash:?}");
        }
    }
}

/// A full disk, or a failing one, at every byte.
#[test]
fn a_disk_that_fails_changes_nothing() {
    let base = prepared();
    for errno in [libc::ENOSPC, libc::EIO] {
        let len = bytes(&machine(&base.reopen(Crash::Kill))).len() as u64;
        for after_bytes in [61].into_iter().chain((0..len + len / 2).step_by(if is_long() { 61 } else { 397 })) {
            let disk = base.reopen(Crash::Kill);
            let machine = machine(&disk);
            let before = bytes(&machine);
            disk.fail_writes_with(errno, after_bytes);
            let result = update_file(&machine, &place(), b"{\"name\":\"new\"}", &one());
            disk.allow_writes();
            if result.is_ok() {
                assert_eq!(text(&machine, &one()), "{\"name\":\"new\"}");
            } else {
                assert_eq!(bytes(&machine), before);
                // A lock that could not be written down whole is no lock, and is swept.
                assert!(!leftovers(&machine).iter().any(|name| name.ends_with(".tmp")));
                cleanup_stale_temp_files(&machine, &work_dir(Path::new(FILE)), LOCK_TIMEOUT_MS).unwrap();
                assert!(leftovers(&machine).iter().all(|name| name.ends_with(".bak")), "{:?}", leftovers(&machine));
            }
            assert_eq!(text(&machine, &credentials("two", &[2, 6])), "{\"name\":\"two\"}");
        }
    }
}

/// What reads back differently was not written, and the file stays as it was: any write may be the one that is lost.
#[test]
fn a_disk_that_forgets_is_noticed_before_anything_is_replaced() {
    let base = prepared();
    let mut forgotten = 0;
    for write in 0.. {
        let disk = base.reopen(Crash::Kill);
        let writes_left = Arc::new(AtomicI64::new(write));
        let forgetful =
            Arc::new(Forgetful { disk: disk.clone(), is_read_only: false, writes_left: writes_left.clone() });
        let machine = Machine { disk: forgetful, ..machine(&disk) };
        let before = bytes(&machine);
        let result = update_file(&machine, &place(), b"{\"name\":\"new\"}", &one());
        if writes_left.load(Ordering::SeqCst) >= 0 {
            result.unwrap();
            break;
        }
        assert!(leftovers(&machine).iter().all(|name| name.ends_with(".bak")));
        if result.is_ok() {
            // It was a copy of a slot that was written once more.
            assert_eq!(text(&machine, &one()), "{\"name\":\"new\"}", "write {write}");
            assert!(verify_file(&machine, Path::new(FILE), Some(&one())).is_ok(), "write {write}");
        } else {
            assert_eq!(bytes(&machine), before);
            forgotten += 1;
        }
    }
    assert!(forgotten > 10);
}

/// What can only be read is read and checked; writing says why not.
#[test]
fn a_file_on_a_disk_that_is_read_only_can_be_read() {
    let disk = prepared();
    let writes_left = Arc::new(AtomicI64::new(i64::MAX));
    let read_only = Arc::new(Forgetful { disk: disk.clone(), is_read_only: true, writes_left });
    let machine = Machine { disk: read_only, ..machine(&disk) };
    let before = bytes(&machine);
    assert_eq!(text(&machine, &one()), "{\"name\":\"one\"}");
    assert!(verify_file(&machine, Path::new(FILE), Some(&one())).unwrap().authentic);
    for case in &CASES {
        let refused = (case.run)(&machine).unwrap_err();
        assert!(matches!(&refused, SealedError::Disk { source, .. } if source.raw_os_error() == Some(libc::EROFS)));
        assert!(refused.to_string().contains("/dir/.kura-sealed"), "{refused}");
    }
    assert_eq!(bytes(&machine), before);
}

/// An operation that ended has left nothing; one that runs keeps its temporary file.
#[test]
fn cleaning_leaves_alone_what_is_in_use() {
    let disk = disk();
    let machine = machine(&disk);
    let dir = work_dir(Path::new(FILE));
    let file = uuid::Uuid::from_u128(0x1234_5678_1234_4234_8234_1234_5678_1234);
    let resources = create_temp_resources(&machine, &dir, file, Operation::Write, LOCK_TIMEOUT_MS).unwrap();
    kura::base::disk::replace_file(machine.disk.as_ref(), &resources.temporary, b"begun").unwrap();
    let swept = cleanup_stale_temp_files(&machine, &dir, LOCK_TIMEOUT_MS).unwrap();
    assert_eq!((swept.removed, swept.in_use), (0, 1));
    assert_eq!(leftovers(&machine).len(), 2);
    drop(resources);
    assert_eq!(leftovers(&machine), [""; 0]);
}
