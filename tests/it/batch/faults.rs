//! What goes wrong on the way, and what is left then: retries, lost answers, changes by others, cancelling.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kura::apps::batch::{Code, RetryPolicy};

use super::rig::{Faulty, Rig, Step, balanced, fail, marking};

/// Fails the first `count` times it is asked at `step`.
fn first_fail(files: &Arc<Faulty>, step: Step, code: Code, count: u32) {
    let asked = AtomicU32::new(0);
    files.on(move |at, _| if at == step && asked.fetch_add(1, Ordering::SeqCst) < count { fail(code) } else { Ok(()) });
}

#[test]
fn a_panic_fails_its_file_and_nobody_waits_for_ever() {
    let rig = Rig::new();
    let names: Vec<String> = (0..600).map(|number| format!("f{number}")).collect();
    let files = Faulty::new(&names.iter().map(|name| (name.as_str(), "x")).collect::<Vec<_>>());
    files.on(|step, path| {
        assert!(step != Step::Download || path.as_bytes().ends_with(b"0"), "told to panic");
        Ok(())
    });
    let report = balanced(rig.run(&marking(), files.clone()));
    assert_eq!((report.done, report.failed, &*report.failures[0].code), (60, 540, "local"), "{report:?}");
    files.heal();
    assert_eq!(rig.run(&marking(), files).done, 540);
}

#[test]
fn what_may_be_tried_again_is_tried_again() {
    for step in [Step::Download, Step::Replace, Step::Replaced] {
        let rig = Rig::new();
        let files = Faulty::new(&[("a", "x")]);
        first_fail(&files, step, Code::Network, 2);
        let report = balanced(rig.run(&marking(), files.clone()));
        assert_eq!((report.done, report.failed), (1, 0), "{step:?} {report:?}");
        assert_eq!(files.text("a"), "mark:x", "{step:?}");
    }
}

#[test]
fn what_cannot_help_is_not_tried_again() {
    for code in [Code::Denied, Code::Vanished, Code::Full, Code::BadName, Code::Protocol, Code::NotAFile] {
        let rig = Rig::new();
        let files = Faulty::new(&[("a", "x"), ("b", "y")]);
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        files.on(move |_, path| {
            if path.as_bytes() == b"a" {
                count.fetch_add(1, Ordering::SeqCst);
                return fail(code);
            }
            Ok(())
        });
        let report = rig.run(&marking(), files.clone());
        assert_eq!((report.done, report.failed), (1, 1));
        assert_eq!(report.failures[0].code, code.word());
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{code:?}");
        assert_eq!(files.text("b"), "mark:y", "one file's failure does not stop the others");
    }
}

#[test]
fn an_upload_whose_answer_is_lost_for_good_is_never_processed_again() {
    let rig = Rig::new();
    let files = Faulty::new(&[("a", "x")]);
    files.on(|step, _| if step == Step::Download { Ok(()) } else { fail(Code::Network) });
    // The first try arrives and its answer is lost; every later one is refused.
    let asked = AtomicU32::new(0);
    files.on(move |step, _| match step {
        Step::Download if asked.load(Ordering::SeqCst) > 0 => fail(Code::Network),
        Step::Replaced => {
            asked.fetch_add(1, Ordering::SeqCst);
            fail(Code::Network)
        }
        _ => Ok(()),
    });
    let report = rig.run(&marking(), files.clone());
    assert_eq!((report.done, report.failed), (0, 1), "{report:?}");
    assert_eq!(files.text("a"), "mark:x");
    files.heal();
    let again = rig.run(&marking(), files.clone());
    assert_eq!((again.done, again.unchanged, again.failed), (0, 1, 0));
    assert_eq!(files.text("a"), "mark:x", "it knows its own result");
    assert_eq!(rig.run(&marking(), files.clone()).scan.backlogged, 0);
}

#[test]
fn an_upload_that_never_arrived_is_done_by_the_next_run() {
    let rig = Rig::new();
    let files = Faulty::new(&[("a", "x")]);
    files.on(|step, _| if step == Step::Replace { fail(Code::Network) } else { Ok(()) });
    assert_eq!(rig.run(&marking(), files.clone()).failed, 1);
    files.heal();
    let flow = rig.open(&marking(), files.clone()).unwrap();
    let report = balanced(flow.retry_failed().unwrap());
    assert_eq!((report.scan.backlogged, report.done), (1, 1));
    assert_eq!(files.text("a"), "mark:x");
    assert_eq!(balanced(flow.retry_failed().unwrap()).scan.backlogged, 0);
}

#[test]
fn what_others_change_meanwhile_is_left_as_it_is() {
    let rig = Rig::new();
    let files = Faulty::new(&[("a", "x")]);
    let other = files.clone();
    files.on(move |step, path| {
        if step == Step::Replace {
            other.files.put(path.as_bytes(), b"theirs");
        }
        Ok(())
    });
    let report = rig.run(&marking(), files.clone());
    assert_eq!(report.failures[0].code, "source_changed");
    assert_eq!(files.text("a"), "theirs");
    files.heal();
    assert_eq!(rig.run(&marking(), files.clone()).done, 1);
    assert_eq!(files.text("a"), "mark:theirs");
}

#[test]
fn files_that_change_between_the_phases_are_taken_as_they_are_then() {
    let rig = Rig::new();
    for name in ["gone", "grown", "shrunk", "turned", "stays"] {
        rig.put(name, b"content");
    }
    let flow = rig.open(&marking(), rig.files()).unwrap();
    flow.scan_and_filter().unwrap();
    let files = rig.dir.path().join("files");
    std::fs::remove_file(files.join("gone")).unwrap();
    std::fs::write(files.join("grown"), b"content and more").unwrap();
    std::fs::write(files.join("shrunk"), b"c").unwrap();
    std::fs::remove_file(files.join("turned")).unwrap();
    std::fs::create_dir(files.join("turned")).unwrap();
    let report = balanced(flow.process_files().unwrap());
    assert_eq!((report.done, report.failed), (3, 2), "{report:?}");
    let mut codes: Vec<&str> = report.failures.iter().map(|failure| failure.code.as_str()).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["not_a_file", "vanished"]);
    assert_eq!(rig.get("grown"), b"mark:content and more");
    assert_eq!(rig.get("shrunk"), b"mark:c");
}

#[test]
fn denied_and_missing_are_told_apart() {
    if nix::unistd::Uid::effective().is_root() {
        // Root may read everything; the codes are told apart below all the same.
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_eq!(kura::apps::batch::BatchError::of_io("a", &denied).code(), Code::Denied);
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(kura::apps::batch::BatchError::of_io("a", &missing).code(), Code::Vanished);
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new();
    rig.put("a", b"x");
    std::fs::set_permissions(rig.dir.path().join("files/a"), std::fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(rig.run(&marking(), rig.files()).failures[0].code, "denied");
}

#[test]
fn a_dead_host_fails_no_file_and_is_gone_on_with_later() {
    let rig = Rig::new();
    let names: Vec<String> = (0..300).map(|number| format!("f{number}")).collect();
    let files = Faulty::new(&names.iter().map(|name| (name.as_str(), "x")).collect::<Vec<_>>());
    let served = Arc::new(AtomicU32::new(0));
    files.on(move |step, _| {
        if step == Step::Replace && served.fetch_add(1, Ordering::SeqCst) >= 100 {
            return fail(Code::Network);
        }
        if served.load(Ordering::SeqCst) >= 100 { fail(Code::Network) } else { Ok(()) }
    });
    let flow = rig.open(&marking(), files.clone()).unwrap();
    let report = balanced(flow.run().unwrap());
    assert!(report.pending > 150 && report.failed < 30, "{report:?}");
    drop(flow);
    files.heal();
    let flow = rig.open(&marking(), files.clone()).unwrap();
    let resumed = balanced(flow.resume().unwrap());
    assert_eq!(resumed.pending, 0);
    balanced(flow.retry_failed().unwrap());
    drop(flow);
    assert_eq!(rig.run(&marking(), files.clone()).failed, 0);
    for name in &names {
        assert_eq!(files.text(name), "mark:x", "{name}");
    }
}

#[test]
fn cancelling_ends_waits_at_once_and_nothing_is_lost() {
    let rig = Rig::new();
    let names: Vec<String> = (0..40).map(|number| format!("f{number}")).collect();
    let files = Faulty::new(&names.iter().map(|name| (name.as_str(), "x")).collect::<Vec<_>>());
    let refused = Arc::new(AtomicU32::new(0));
    let count = refused.clone();
    files.on(move |step, _| {
        if step == Step::Replaced {
            count.fetch_add(1, Ordering::SeqCst);
            return fail(Code::Busy);
        }
        Ok(())
    });
    let mut slow = marking();
    slow.run.retry = RetryPolicy { max: 5, base_ms: 3_600_000, cap_ms: 3_600_000 };
    let flow = rig.open(&slow, files.clone()).unwrap();
    // Without an end to the waits this would take an hour.
    let report = std::thread::scope(|threads| {
        let running = threads.spawn(|| flow.run().unwrap());
        crate::workspace_rig::wait_until("some file waits", || refused.load(Ordering::SeqCst) > 0);
        flow.cancel().cancel();
        running.join().unwrap()
    });
    assert_eq!(balanced(report.clone()).pending, 40, "{report:?}");
    drop(flow);
    files.heal();
    let report = balanced(rig.open(&slow, files.clone()).unwrap().resume().unwrap());
    assert_eq!((report.pending, report.failed), (0, 0));
    for name in &names {
        assert_eq!(files.text(name), "mark:x", "{name}: processed once, though its answer was lost");
    }
}

#[test]
fn a_clock_that_goes_back_changes_no_decision() {
    use kura::base::clock::{ManualClock, Timestamp};
    let mut rig = Rig::new();
    rig.put("a", b"x");
    rig.run(&marking(), rig.files());
    rig.setup.clock = Arc::new(ManualClock::new(Timestamp::from_unix_ns(0)));
    assert_eq!(rig.run(&marking(), rig.files()).scan.backlogged, 0);
    rig.put("a", b"new");
    assert_eq!(rig.run(&marking(), rig.files()).done, 1);
    assert_eq!(rig.run(&marking(), rig.files()).scan.backlogged, 0);
}

#[test]
fn waits_double_and_are_bounded() {
    let policy = RetryPolicy::default();
    for (attempt, full_ms) in [(1, 1000), (2, 2000), (3, 4000), (4, 8000), (7, 60_000), (200, 60_000)] {
        for _ in 0..50 {
            let delay = policy.delay(attempt).as_millis();
            assert!((full_ms / 2..=full_ms).contains(&delay), "{attempt}: {delay}");
        }
    }
}

#[test]
fn a_file_that_fails_again_and_again_is_counted_and_named() {
    let rig = Rig::new();
    let files = Faulty::new(&[("a", "x")]);
    files.on(|_, _| fail(Code::Denied));
    for expected in 1..4 {
        let flow = rig.open(&marking(), files.clone()).unwrap();
        flow.run().unwrap();
        drop(flow);
        let mut counts = Vec::new();
        let setup = &rig.setup;
        let store =
            kura::apps::batch::DiskKeyValue::open(&*setup.disk, &kura::apps::batch::memory_path(setup, &marking()));
        let memory = kura::apps::batch::StatusMemory::new(
            setup.keys.clone(),
            marking().identity().into_bytes(),
            Box::new(store.unwrap()),
        );
        memory
            .failures(&mut |failed| {
                counts.push((failed.file.path.to_string(), failed.retry_count, failed.code));
                Ok(true)
            })
            .unwrap();
        assert_eq!(counts, [("a".to_owned(), expected, "denied".to_owned())]);
    }
}
