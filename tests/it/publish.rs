//! Publishing: what can go wrong between the local queue and HEAD.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kura::base::ids::Sha256;
use kura::store::{Fault, ObjectKey, Operation, StoreError};
use kura::sync::{SyncError, read_head};
use kura::workspace::{Workspace, WorkspaceError};

use super::workspace_rig::*;

const SOON: Option<Duration> = Some(Duration::from_secs(20));
/// Long enough for one attempt, which fails; too short for a second one.
const ONCE: Option<Duration> = Some(Duration::from_millis(100));

fn head(rig: &Rig) -> kura::version::head::Head {
    read_head(&*rig.memory, &rig.keys()).unwrap().0
}

fn is_swing(operation: Operation, key: &str) -> bool {
    operation == Operation::PutConditional && key == "HEAD"
}

/// The first `count` requests that `choose` picks meet `fault`.
fn fail_first(
    rig: &Rig,
    count: usize,
    fault: Fault,
    choose: impl Fn(Operation, &str) -> bool + Send + Sync + 'static,
) -> Arc<AtomicUsize> {
    let met = Arc::new(AtomicUsize::new(0));
    let counted = met.clone();
    rig.set_fault(move |operation, key| {
        if choose(operation, key) && counted.fetch_add(1, Ordering::SeqCst) < count {
            return fault.clone();
        }
        Fault::Pass
    });
    met
}

#[test]
fn a_long_queue_is_published_in_order_a_part_at_a_time() {
    const VERSIONS: usize = 300;
    let rig = Rig::new();
    let w = rig.open("state");
    // What a version continues has to be here once.
    write(&w, "file", b"before");
    w.flush(SOON).unwrap();
    rig.set_fault(|_, _| Fault::Unreachable);
    for round in 0..VERSIONS {
        write(&w, "file", format!("{round}").as_bytes());
        snapshot(&w);
    }
    assert_eq!(w.status().unpublished_versions, VERSIONS);
    let swings = Arc::new(AtomicUsize::new(0));
    let counted = swings.clone();
    rig.set_fault(move |operation, key| {
        counted.fetch_add(usize::from(is_swing(operation, key)), Ordering::SeqCst);
        Fault::Pass
    });
    assert_eq!(w.flush(SOON).unwrap().unpublished_versions, 0);
    assert!((2..10).contains(&swings.load(Ordering::SeqCst)), "{swings:?} swings for {VERSIONS} versions");
    assert_eq!(head(&rig).version, w.tree().base().index.id);
    let other = rig.open("other");
    let versions = other.versions().unwrap();
    let contents: Vec<Vec<u8>> =
        versions.iter().rev().skip(2).map(|listed| recorded(&other, listed.id)["file"].2.clone()).collect();
    let expected: Vec<Vec<u8>> = (0..VERSIONS).map(|round| round.to_string().into_bytes()).collect();
    assert!(contents == expected, "every version is there, in order");
}

fn is_published(workspace: &Workspace) -> bool {
    workspace.status().unpublished_versions == 0
}

#[test]
fn head_never_names_what_is_not_there() {
    let rig = Rig::new();
    let swings = rig.check_every_swing();
    let w = rig.open("state");
    mkdir(&w, "d");
    for round in 0..4 {
        write(&w, &format!("d/{round}"), &noise(round * 700_000 + 10));
        write(&w, "small", format!("{round}").as_bytes());
        if round % 2 == 1 {
            assert_eq!(w.flush(SOON).unwrap().unpublished_versions, 0);
        } else {
            snapshot(&w);
        }
    }
    w.close(true).unwrap();
    assert_eq!(swings.load(Ordering::SeqCst), 2, "two versions at once");
    assert_eq!(head(&rig).generation, 3);
}

#[test]
fn a_swing_that_loses_its_answer_is_read_back() {
    let rig = Rig::new();
    let w = rig.open("state");
    write(&w, "f", b"1");
    let swings = fail_first(&rig, 1, Fault::CommitThenLose, is_swing);
    let flushed = w.flush(SOON).unwrap();
    assert_eq!((flushed.unpublished_versions, flushed.reason), (0, None));
    assert_eq!(swings.load(Ordering::SeqCst), 1, "it was not repeated");
    assert_eq!(head(&rig).generation, 2);
    rig.heal();
    write(&w, "f", b"2");
    assert_eq!(w.flush(SOON).unwrap().unpublished_versions, 0);
    assert_eq!(head(&rig).generation, 3);
}

#[test]
fn a_swing_that_never_happened_or_is_refused_for_nothing_is_tried_again() {
    let key = ObjectKey::new("HEAD").unwrap();
    let lost = StoreError::OutcomeUnknown { key: key.clone(), reason: "cut".into() };
    for error in [lost, StoreError::Precondition { key }] {
        let rig = Rig::new();
        let w = rig.open("state");
        write(&w, "f", b"1");
        fail_first(&rig, 3, Fault::Fail(error.clone()), is_swing);
        assert_eq!(w.flush(SOON).unwrap().unpublished_versions, 0, "{error}");
        fail_first(&rig, usize::MAX, Fault::Fail(error), is_swing);
        write(&w, "f", b"2");
        let flushed = w.flush(ONCE).unwrap();
        assert_eq!(flushed.unpublished_versions, 1);
        assert!(flushed.reason.unwrap().contains("attempts"));
        rig.heal();
        assert_eq!(w.flush(SOON).unwrap().unpublished_versions, 0);
        whole(&rig.memory);
    }
}

#[test]
fn a_swing_whose_fate_stays_unknown_is_recognized_by_the_next_process() {
    let rig = Rig::new();
    let w = rig.open("state");
    write(&w, "f", b"1");
    let swung = Arc::new(AtomicUsize::new(0));
    rig.set_fault(move |operation, key| {
        if is_swing(operation, key) {
            swung.fetch_add(1, Ordering::SeqCst);
            return Fault::CommitThenLose;
        }
        if swung.load(Ordering::SeqCst) > 0 { Fault::Unreachable } else { Fault::Pass }
    });
    assert_eq!(w.flush(ONCE).unwrap().unpublished_versions, 1);
    write(&w, "g", b"2");
    assert_eq!(w.close(false).unwrap().unpublished_versions, 2);
    rig.heal();
    assert_eq!(head(&rig).generation, 2);
    let w = rig.open("state");
    assert_eq!(w.close(true).unwrap().unpublished_versions, 0);
    assert_eq!(head(&rig).generation, 3);
    whole(&rig.memory);
}

#[test]
fn uploads_that_fail_anywhere_leave_head_alone_and_everything_queued() {
    for failing in 0..6 {
        let rig = Rig::new();
        let w = rig.open("state");
        write(&w, "f", &noise(600_000));
        write(&w, "g", b"small");
        let uploads = fail_first(&rig, failing + 1, Fault::Unreachable, |operation, _| operation == Operation::Put);
        let flushed = w.flush(ONCE).unwrap();
        if flushed.unpublished_versions > 0 {
            assert!(uploads.load(Ordering::SeqCst) > 0);
            assert_eq!(head(&rig).generation, 1);
        }
        rig.check_every_swing();
        rig.heal();
        assert_eq!(w.flush(SOON).unwrap().unpublished_versions, 0);
        assert_eq!(read(&w, "f"), noise(600_000));
    }
}

#[test]
fn two_copies_of_one_queue_publish_it_once() {
    let rig = Rig::new();
    let w = rig.open("state");
    write(&w, "f", &noise(400_000));
    w.close(false).unwrap();
    copy_dir(&rig.dir.path().join("state"), &rig.dir.path().join("copy"));
    rig.open("state").close(true).unwrap();
    let later = rig.open("state");
    write(&later, "g", b"later");
    later.close(true).unwrap();
    let generation = head(&rig).generation;
    let mut options = rig.options("copy");
    options.machine = Some(Sha256([9; 32]));
    let copy = rig.try_open(options).unwrap();
    assert_eq!(copy.close(true).unwrap().unpublished_versions, 0, "what it had is in HEAD's history");
    assert_eq!(head(&rig).generation, generation);
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        if item.file_type().unwrap().is_dir() {
            copy_dir(&item.path(), &to.join(item.file_name()));
        } else {
            std::fs::copy(item.path(), to.join(item.file_name())).unwrap();
        }
    }
}

#[test]
fn a_store_that_goes_back_while_it_is_used_is_noticed_before_anything_is_written() {
    let rig = Rig::new();
    let w = rig.open("state");
    let old = rig.memory.snapshot();
    write(&w, "f", b"1");
    w.flush(SOON).unwrap();
    rig.memory.restore(old.clone());
    write(&w, "f", b"2");
    let reason = w.flush(SOON).unwrap().reason.unwrap();
    assert!(reason.contains("went back"), "{reason}");
    assert_eq!(rig.memory.snapshot(), old);
    w.close(true).unwrap();
    let refused = rig.try_open(rig.options("state"));
    assert!(matches!(refused, Err(WorkspaceError::Sync(SyncError::RolledBack { .. }))));
    let mut options = rig.options("state");
    options.accept_rollback = true;
    let refused = rig.try_open(options);
    assert!(matches!(refused, Err(WorkspaceError::RolledBackUnderChanges { .. })));
    let mut options = rig.options("state");
    (options.accept_rollback, options.read_only) = (true, true);
    assert_eq!(read(&rig.try_open(options).unwrap(), "f"), b"2", "the changes can be saved");
}

#[test]
fn the_queue_survives_a_restart_and_goes_in_one_swing() {
    let rig = Rig::new();
    for round in 0..3 {
        let w = rig.open("state");
        write(&w, &format!("f{round}"), b"x");
        assert_eq!(w.close(false).unwrap().unpublished_versions, round + 1);
    }
    assert_eq!(head(&rig).generation, 1);
    let w = rig.open("state");
    assert_eq!(w.versions().unwrap().len(), 4);
    w.close(true).unwrap();
    assert_eq!(head(&rig).generation, 2);
    assert_eq!(rig.open("other").versions().unwrap().len(), 4);
}

#[test]
fn the_background_records_and_publishes_and_gets_over_a_store_that_was_away() {
    let rig = Rig::new();
    let mut options = rig.options("state");
    options.intervals.version_quiet_ms = 20;
    options.intervals.log_ms = 10;
    options.intervals.sync_ms = 10;
    options.intervals.retry_first_ms = 20;
    options.intervals.retry_max_ms = 50;
    let w = rig.try_open(options).unwrap();
    w.start();
    write(&w, "one", b"1");
    wait_until("a version is published", || head(&rig).generation == 2 && is_published(&w));
    rig.set_fault(|_, _| Fault::Unreachable);
    write(&w, "two", b"2");
    wait_until("the store is seen to be away", || w.status().offline.is_some());
    assert!(!is_published(&w));
    assert!(w.status().to_string().contains("OFFLINE"));
    rig.heal();
    wait_until("the store is back", || w.status().offline.is_none() && is_published(&w));
    rig.set_fault(|operation, key| match operation {
        Operation::Put => {
            let (action, target) = ("s3:PutObject", key.to_owned());
            Fault::Fail(StoreError::Denied { action, target, reason: "403".into() })
        }
        _ => Fault::Pass,
    });
    write(&w, "three", b"3");
    wait_until("the denial is shown", || w.status().blocked.is_some());
    assert!(w.status().offline.is_none());
    rig.heal();
    wait_until("rights are back", || w.status().blocked.is_none() && is_published(&w));
    w.close(true).unwrap();
    assert_eq!(live(&rig.open("other")).len(), 3);
}

#[test]
fn a_start_without_the_store_ends_when_it_is_back() {
    let rig = Rig::new();
    rig.open("state").close(true).unwrap();
    rig.set_fault(|_, _| Fault::Unreachable);
    let mut options = rig.options("state");
    options.intervals.retry_first_ms = 5;
    options.intervals.retry_max_ms = 20;
    let w = rig.try_open(options).unwrap();
    w.start();
    assert!(w.status().offline.is_some());
    rig.heal();
    wait_until("it is back, with nothing to publish", || w.status().offline.is_none());
    w.close(true).unwrap();
}

#[test]
fn an_object_that_waits_nowhere_and_is_not_stored_is_named() {
    let rig = Rig::new();
    let w = rig.open("state");
    write(&w, "f", b"1");
    snapshot(&w);
    let outbox = w.state_dir().join("outbox");
    w.close(false).unwrap();
    let pack = std::fs::read_dir(outbox).unwrap().map(|item| item.unwrap().path());
    let pack = pack.into_iter().find(|path| path.to_string_lossy().contains("packs")).unwrap();
    std::fs::remove_file(pack).unwrap();
    let w = rig.open("state");
    let closed = w.close(true).unwrap();
    assert_eq!(closed.unpublished_versions, 1);
    assert!(closed.reason.unwrap().starts_with("packs/"), "HEAD was not swung to what cannot be read");
    assert_eq!(head(&rig).generation, 1);
}

#[test]
fn one_changed_file_costs_the_same_among_many_as_among_few() {
    let cost = |count: usize| {
        let rig = Rig::new();
        let w = rig.open("state");
        for dir in 0..count / 100 {
            mkdir(&w, &format!("d{dir}"));
            for file in 0..100 {
                write(&w, &format!("d{dir}/f{file}"), format!("content of {dir} {file}").as_bytes());
            }
        }
        w.flush(SOON).unwrap();
        rig.uploads.take();
        write(&w, "d0/f0", b"changed");
        w.flush(SOON).unwrap();
        assert!(is_published(&w));
        rig.uploads.take()
    };
    let ((few, few_bytes), (many, many_bytes)) = (cost(100), cost(10_000));
    assert!(few <= 4 && many <= 4, "pack, run, record, HEAD: {few}, {many}");
    assert!(many_bytes < few_bytes + 20_000, "{many_bytes} against {few_bytes}");
}

#[test]
fn a_workspace_in_s3_is_made_used_and_opened_again() {
    let server = super::s3_server::S3Server::start();
    let store = Arc::new(server.store("some/where"));
    Workspace::init_in(&*store, init_options()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let w = Workspace::open_in(store.clone(), options(&dir, "state")).unwrap();
    write(&w, "f", &noise(2_000_000));
    server.set_fault(|method, path| match (method, path.ends_with("HEAD")) {
        ("PUT", true) => super::s3_server::Fault::CommitThenCut,
        _ => super::s3_server::Fault::Pass,
    });
    assert_eq!(w.flush(SOON).unwrap().unpublished_versions, 0, "a lost answer on S3");
    server.set_fault(|_, _| super::s3_server::Fault::Deny);
    write(&w, "g", b"2");
    let denied = w.flush(SOON).unwrap();
    assert_eq!(denied.unpublished_versions, 1);
    assert!(w.status().blocked.unwrap().reason.contains("denied"));
    server.set_fault(|_, _| super::s3_server::Fault::Pass);
    assert_eq!(w.close(true).unwrap().unpublished_versions, 0);
    let other = Workspace::open_in(store, options(&dir, "other")).unwrap();
    assert_eq!(read(&other, "f"), noise(2_000_000));
    assert_eq!(read(&other, "g"), b"2");
}

#[test]
fn a_server_that_wants_tags_without_quotes_is_published_to() {
    let server = super::s3_server::S3Server::start();
    server.compare_unquoted();
    let store = Arc::new(server.store("w"));
    Workspace::init_in(&*store, init_options()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // A new process has not probed the server.
    let w = Workspace::open_in(Arc::new(server.store("w")), options(&dir, "state")).unwrap();
    write(&w, "f", b"1");
    assert_eq!(w.flush(SOON).unwrap().unpublished_versions, 0);
}
