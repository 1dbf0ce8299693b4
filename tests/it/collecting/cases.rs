//! One at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kura::base::clock::SystemClock;
use kura::base::disk::RealDisk;
use kura::base::ids::ClientId;
use kura::control::{Exit, Failure, Reply, Request};
use kura::crypto::Keys;
use kura::store::{Fault, Operation};
use kura::sync::{CollectOptions, CollectReport, Collector, CollectorParts, SyncError, read_head};
use kura::version::diff::ChangeKind;
use kura::version::entry::{Body, Entry, Ino};
use kura::version::head::CollectionState;
use kura::version::retention::Retention;
use kura::workspace::{Maintenance, OpenOptions, Sample, Workspace, WorkspaceError};
use kura::worktree::{GraftOp, NewNode, Wait};

use super::support::read_all;
use crate::workspace_rig::*;

const SOON: Option<Duration> = Some(Duration::from_secs(60));
pub const NOW: CollectOptions = CollectOptions { delete: true, grace_ms: 0, sparse_percent: 50 };

pub fn last(count: u32) -> Retention {
    Retention { last: count, ..Retention::default() }
}

fn publish(workspace: &Workspace) {
    assert_eq!(workspace.flush(SOON).unwrap().unpublished_versions, 0);
}

pub fn collect(workspace: &Workspace, options: CollectOptions) -> Result<CollectReport, WorkspaceError> {
    workspace.collect(options, &|| false)
}

/// Bytes that no other number has.
pub fn bytes(number: u64, len: usize) -> Vec<u8> {
    crate::space::noise(len, number)
}

/// A workspace whose earlier versions hold what the newest does not.
pub fn with_garbage(rig: &Rig) -> Arc<Workspace> {
    let w = rig.open("state");
    mkdir(&w, "dir");
    for round in 0..4 {
        write(&w, "dir/small", &bytes(round, 5000));
        write(&w, "large", &bytes(100 + round, 400_000));
        write(&w, "kept", &bytes(7, 300_000));
        snapshot(&w);
    }
    publish(&w);
    w
}

fn stored(rig: &Rig, prefix: &str) -> BTreeSet<String> {
    rig.memory.snapshot().keys().map(ToString::to_string).filter(|key| key.starts_with(prefix)).collect()
}

fn state(rig: &Rig) -> CollectionState {
    read_head(&*rig.memory, &rig.keys()).unwrap().0.collection_state
}

#[test]
fn what_was_forgotten_is_freed_and_the_rest_stays() {
    let rig = Rig::new();
    let w = with_garbage(&rig);
    let before = live(&w);
    let size = || rig.memory.snapshot().values().map(Vec::len).sum::<usize>();
    let full = size();
    let report = collect(&w, CollectOptions { delete: false, ..NOW }).unwrap();
    assert!(!report.found.has_more_than_packs, "nothing was forgotten yet: {report:?}");
    let forgotten = w.forget(&last(1), false).unwrap();
    assert_eq!((forgotten.forgotten.len(), forgotten.kept.len()), (4, 1));
    publish(&w);
    let dry = collect(&w, CollectOptions { delete: false, ..NOW }).unwrap();
    assert!(dry.found.dead_bytes > 1_200_000 && dry.sealed == 0, "{dry:?}");
    assert!(size() >= full, "looking changes nothing");
    let report = collect(&w, NOW).unwrap();
    assert!(report.deleted > 0 && report.waiting.is_none(), "{report:?}");
    assert!(size() < full - 1_200_000, "{} of {full}", size());
    assert_eq!(stored(&rig, "indexes/").len(), 1);
    assert_eq!(read_all(&rig.memory, &rig.keys()).unwrap(), 1);
    assert_eq!(live(&w), before);
    assert!(w.check(Sample::Percent(100)).unwrap().problems.is_empty());
    // This client goes on, and so does a new one.
    write(&w, "later", &bytes(50, 3000));
    snapshot(&w);
    publish(&w);
    let other = rig.open("other");
    assert_eq!(live(&other), live(&w));
    assert_eq!(collect(&w, NOW).unwrap().sealed, 0, "nothing is worth another collection");
}

#[test]
fn content_that_was_collected_is_stored_again_under_another_name() {
    let rig = Rig::new();
    let w = with_garbage(&rig);
    let large = stored(&rig, "objects/");
    w.forget(&last(1), false).unwrap();
    publish(&w);
    collect(&w, NOW).unwrap();
    assert_eq!(stored(&rig, "objects/").len(), 2);
    for round in 0..4 {
        write(&w, &format!("again-{round}"), &bytes(100 + round, 400_000));
    }
    snapshot(&w);
    publish(&w);
    let now = stored(&rig, "objects/");
    assert_eq!(now.len(), 5);
    let reused: Vec<_> = now.intersection(&large).collect();
    assert_eq!(reused.len(), 2, "only what was never collected keeps its name");
    read_all(&rig.memory, &rig.keys()).unwrap();
}

#[test]
fn sealed_names_wait_for_their_time() {
    let rig = Rig::new();
    let w = with_garbage(&rig);
    w.forget(&last(1), false).unwrap();
    publish(&w);
    let before = stored(&rig, "objects/");
    let day = CollectOptions { grace_ms: 24 * 3600 * 1000, ..NOW };
    let report = collect(&w, day).unwrap();
    let waits = report.waiting.unwrap();
    assert!(report.sealed > 0 && report.deleted == 0 && waits.names == report.sealed, "{report:?}");
    assert!(matches!(state(&rig), CollectionState::Sealed(_)));
    assert_eq!(stored(&rig, "objects/"), before);
    assert_eq!(collect(&w, day).unwrap().waiting, Some(waits), "again changes nothing");
    let report = collect(&w, NOW).unwrap();
    assert_eq!(report.deleted, waits.names);
    assert_eq!(state(&rig), CollectionState::Idle);
    assert!(stored(&rig, "objects/").len() < before.len());
}

#[test]
fn what_is_absorbed_while_a_collection_is_taken_note_of_has_a_name_that_it_did_not_take() {
    let rig = Rig::new();
    let late = rig.open("late");
    publish(&late);
    let w = with_garbage(&rig);
    w.forget(&last(1), false).unwrap();
    publish(&w);
    let day = CollectOptions { grace_ms: 24 * 3600 * 1000, ..NOW };
    assert!(collect(&w, day).unwrap().waiting.is_some(), "the names are taken, and their objects still there");
    // Content that was collected, closed and in no object yet when the collection is heard of.
    write(&late, "again", &bytes(100, 400_000));
    late.pull().unwrap();
    publish(&late);
    collect(&w, NOW).unwrap();
    assert!(read_all(&rig.memory, &rig.keys()).unwrap() > 0);
    assert_eq!(live(&rig.open("third")), live(&late));
}

/// A collector without a workspace, on any machine.
fn collector(rig: &Rig, keys: &Keys) -> Collector {
    Collector::new(CollectorParts {
        store: rig.store.clone(),
        keys: keys.clone(),
        disk: Arc::new(RealDisk),
        clock: Arc::new(SystemClock),
        client: ClientId::random(),
        leases: None,
    })
}

#[test]
fn a_crash_at_any_step_is_gone_on_from() {
    let rig = Rig::new();
    let w = with_garbage(&rig);
    w.forget(&last(1), false).unwrap();
    publish(&w);
    let start = rig.memory.snapshot();
    let keys = rig.keys();
    let mut steps = 0;
    for lost in [Fault::Unreachable, Fault::CommitThenLose] {
        for step in 0..400 {
            rig.memory.restore(start.clone());
            let asked = AtomicUsize::new(0);
            let fault = lost.clone();
            rig.set_fault(move |operation, _| {
                let is_step = matches!(operation, Operation::Put | Operation::PutConditional | Operation::Delete);
                match is_step && asked.fetch_add(1, Ordering::SeqCst) >= step {
                    true => fault.clone(),
                    false => Fault::Pass,
                }
            });
            let outcome = collector(&rig, &keys).run(NOW, &|| false);
            rig.heal();
            read_all(&rig.memory, &keys).unwrap();
            collector(&rig, &keys).run(NOW, &|| false).unwrap();
            assert_eq!(state(&rig), CollectionState::Idle);
            assert_eq!(stored(&rig, "objects/").len(), 2, "all is freed in the end");
            assert_eq!(read_all(&rig.memory, &keys).unwrap(), 1);
            steps += 1;
            if outcome.is_ok() {
                break;
            }
        }
    }
    assert!(steps > 20, "{steps}");
}

#[test]
fn an_error_of_reading_or_listing_ends_it() {
    let rig = Rig::new();
    let w = with_garbage(&rig);
    w.forget(&last(1), false).unwrap();
    publish(&w);
    let before = rig.memory.snapshot();
    for (operation, prefix) in [
        (Operation::List, "objects/"),
        (Operation::List, "packs/"),
        (Operation::Get, "HEAD"),
        (Operation::GetRange, "indexes/"),
        (Operation::GetRange, "locations/"),
        (Operation::GetRange, "packs/"),
    ] {
        rig.set_fault(move |asked, key| match asked == operation && key.starts_with(prefix) {
            true => Fault::Unreachable,
            false => Fault::Pass,
        });
        let error = collect(&w, NOW).unwrap_err();
        assert_eq!(Failure::from(error).exit, Exit::Unreachable, "{prefix}");
        rig.heal();
        assert!(rig.memory.snapshot().keys().eq(before.keys()), "{prefix}: nothing was deleted");
    }
    // Pages that are gone are no reason to take what hangs on them for garbage.
    let mut damaged = before.clone();
    damaged.retain(|key, _| !key.as_str().starts_with("packs/"));
    rig.memory.restore(damaged.clone());
    assert!(collect(&w, NOW).is_err());
    assert!(rig.memory.snapshot().keys().eq(damaged.keys()));
}

#[test]
fn a_denied_deletion_names_the_action() {
    let rig = Rig::new();
    let w = with_garbage(&rig);
    w.forget(&last(1), false).unwrap();
    publish(&w);
    rig.set_fault(|operation, key| match operation {
        Operation::Delete => Fault::Fail(kura::store::StoreError::Denied {
            action: "s3:DeleteObject",
            target: key.to_owned(),
            reason: "by the test".to_owned(),
        }),
        _ => Fault::Pass,
    });
    let reply: Reply = kura::control::run(&w, &Request::Gc { delete: true, grace_ms: Some(0) });
    assert_eq!(reply.exit, Exit::Denied.code());
    assert!(reply.message.contains("s3:DeleteObject"), "{}", reply.message);
    rig.heal();
    assert!(collect(&w, NOW).unwrap().deleted > 0);
}

#[test]
fn an_upload_that_was_collected_before_its_version_is_made_anew() {
    let rig = Rig::new();
    let collector = with_garbage(&rig);
    let writer = rig.open("writer");
    write(&writer, "slow", &bytes(200, 400_000));
    write(&writer, "slow-small", &bytes(201, 9000));
    snapshot(&writer);
    // Everything is uploaded, and then HEAD cannot be swung.
    rig.set_fault(|operation, key| match operation == Operation::PutConditional && key == "HEAD" {
        true => Fault::Unreachable,
        false => Fault::Pass,
    });
    assert_eq!(writer.flush(Some(Duration::from_millis(100))).unwrap().unpublished_versions, 1);
    rig.heal();
    let uploaded = stored(&rig, "objects/");
    collector.forget(&last(1), false).unwrap();
    publish(&collector);
    let report = collect(&collector, NOW).unwrap();
    assert!(report.deleted > 0);
    assert!(stored(&rig, "objects/").len() < uploaded.len());
    publish(&writer);
    read_all(&rig.memory, &rig.keys()).unwrap();
    let other = rig.open("other");
    assert_eq!(read(&other, "slow"), bytes(200, 400_000));
    assert_eq!(read(&other, "slow-small"), bytes(201, 9000));
}

#[test]
fn what_a_writer_took_for_stored_is_stored_anew() {
    let rig = Rig::new();
    let collector = with_garbage(&rig);
    let writer = rig.open("writer");
    // Content of an earlier version: the writer sees that the store has it, and uploads nothing.
    write(&writer, "old", &bytes(101, 400_000));
    write(&writer, "old-small", &bytes(1, 5000));
    snapshot(&writer);
    collector.forget(&last(1), false).unwrap();
    publish(&collector);
    let day = CollectOptions { grace_ms: 24 * 3600 * 1000, ..NOW };
    assert!(collect(&collector, day).unwrap().sealed > 0);
    publish(&writer);
    assert!(collect(&collector, NOW).unwrap().deleted > 0);
    read_all(&rig.memory, &rig.keys()).unwrap();
    let other = rig.open("other");
    assert_eq!(read(&other, "old"), bytes(101, 400_000));
    assert_eq!(read(&other, "old-small"), bytes(1, 5000));
}

#[test]
fn what_could_not_be_stored_anew_is_so_after_a_restart() {
    let rig = Rig::new();
    let collector = with_garbage(&rig);
    let cache_dir = rig.dir.path().join("a cache of its own");
    let open = || rig.try_open(OpenOptions { cache_dir: cache_dir.clone(), ..rig.options("writer") }).unwrap();
    let writer = open();
    write(&writer, "old", &bytes(101, 400_000));
    snapshot(&writer);
    drop(writer.close(false));
    drop(writer);
    collector.forget(&last(1), false).unwrap();
    publish(&collector);
    let day = CollectOptions { grace_ms: 24 * 3600 * 1000, ..NOW };
    assert!(collect(&collector, day).unwrap().sealed > 0);
    // Versions of others are taken in, and then the content that is to be stored anew cannot be read.
    let writer = open();
    rig.set_fault(|operation, key| match operation == Operation::GetRange && key.starts_with("objects/") {
        true => Fault::Unreachable,
        false => Fault::Pass,
    });
    assert!(writer.pull().is_err());
    drop(writer.close(false));
    drop(writer);
    rig.heal();
    let writer = open();
    publish(&writer);
    assert!(collect(&collector, NOW).unwrap().deleted > 0);
    read_all(&rig.memory, &rig.keys()).unwrap();
    assert_eq!(read(&rig.open("other"), "old"), bytes(101, 400_000));
}

#[test]
fn what_was_written_before_a_collection_and_closed_before_it_is_stored_anew_is_not_passed_over() {
    let rig = Rig::new();
    let collector = with_garbage(&rig);
    let content = bytes(300, 9 << 20);
    write(&collector, "huge", &content);
    snapshot(&collector);
    remove(&collector, "huge");
    snapshot(&collector);
    publish(&collector);
    let cache_dir = rig.dir.path().join("a cache of its own");
    let writer = rig.try_open(OpenOptions { cache_dir, ..rig.options("writer") }).unwrap();
    let file = writer.tree().make(Ino::ROOT, b"copy", &NewNode::File, 0o644, ME, true, Wait::Yes).unwrap().ino;
    writer.tree().write(file, 0, &content, 0, Wait::Yes).unwrap();
    // The draft goes to where the store has it already.
    writer.tree().log_drafts().unwrap();
    collector.forget(&last(1), false).unwrap();
    publish(&collector);
    let day = CollectOptions { grace_ms: 24 * 3600 * 1000, ..NOW };
    assert!(collect(&collector, day).unwrap().sealed > 0);
    rig.set_fault(|operation, key| match operation == Operation::GetRange && key.starts_with("objects/") {
        true => Fault::Unreachable,
        false => Fault::Pass,
    });
    assert!(writer.pull().is_err());
    rig.heal();
    writer.tree().release(file, true);
    assert!(writer.pull().unwrap());
    publish(&writer);
    assert!(collect(&collector, NOW).unwrap().deleted > 0);
    read_all(&rig.memory, &rig.keys()).unwrap();
    assert!(read(&rig.open("other"), "copy") == content);
}

#[test]
fn what_was_put_away_before_a_collection_and_named_after_it_is_stored_anew() {
    let rig = Rig::new();
    let collector = with_garbage(&rig);
    let writer = rig.open("writer");
    let content = bytes(101, 400_000);
    let mut staging = writer.tree().stage_content();
    let (ino, body) = staging.add(&mut &content[..]).unwrap();
    collector.forget(&last(1), false).unwrap();
    publish(&collector);
    let day = CollectOptions { grace_ms: 24 * 3600 * 1000, ..NOW };
    assert!(collect(&collector, day).unwrap().sealed > 0);
    assert!(writer.pull().unwrap());
    let root = writer.tree().base().index.root.dir;
    let entry = Box::new(Entry { ino, body: Body::File(body), mode: 0o644, ..root });
    writer.tree().graft(&[GraftOp::Put { path: vec![b"old".to_vec()], entry, linked: false }]).unwrap();
    drop(staging);
    publish(&writer);
    assert!(collect(&collector, NOW).unwrap().deleted > 0);
    read_all(&rig.memory, &rig.keys()).unwrap();
    assert!(read(&rig.open("other"), "old") == content);
}

#[test]
fn the_log_of_a_path_ends_where_versions_were_forgotten() {
    let rig = Rig::new();
    let w = rig.open("state");
    for round in 0..6 {
        write(&w, "file", &bytes(round, 2000));
        snapshot(&w);
    }
    write(&w, "other", b"later");
    snapshot(&w);
    w.forget(&last(3), false).unwrap();
    let mut kinds = Vec::new();
    w.trace(b"file", &mut |step| {
        kinds.push(step.kind);
        true
    })
    .unwrap();
    assert_eq!(kinds, [Some(ChangeKind::Modified), Some(ChangeKind::Added)]);
}

#[test]
fn what_is_gone_for_good_is_never_published() {
    let rig = Rig::new();
    let collector = with_garbage(&rig);
    let cache_dir = rig.dir.path().join("a cache of its own");
    let writer = rig.try_open(OpenOptions { cache_dir, ..rig.options("writer") }).unwrap();
    write(&writer, "old", &bytes(101, 400_000));
    snapshot(&writer);
    collector.forget(&last(1), false).unwrap();
    publish(&collector);
    assert!(collect(&collector, NOW).unwrap().deleted > 0);
    for _ in 0..2 {
        let error = writer.pull().unwrap_err();
        assert!(matches!(error, SyncError::Collected { .. }), "{error}");
        read_all(&rig.memory, &rig.keys()).unwrap();
    }
    assert!(writer.flush(Some(Duration::from_millis(100))).unwrap().unpublished_versions > 0);
    read_all(&rig.memory, &rig.keys()).unwrap();
}

#[test]
fn two_collectors_do_not_harm_each_other() {
    let rig = Rig::new();
    let w = with_garbage(&rig);
    w.forget(&last(1), false).unwrap();
    publish(&w);
    let collectors: Vec<_> = (0..3).map(|number| rig.open(&format!("collector{number}"))).collect();
    std::thread::scope(|scope| {
        for collector in &collectors {
            scope.spawn(move || match collect(collector, NOW) {
                Ok(_) => {}
                // Another one was faster, and what it deleted cannot be read.
                Err(WorkspaceError::Sync(
                    SyncError::Contended { .. } | SyncError::Store(_) | SyncError::Version(_) | SyncError::Blob(_),
                )) => {}
                Err(error) => panic!("{error}"),
            });
        }
    });
    collect(&w, NOW).unwrap();
    assert_eq!(read_all(&rig.memory, &rig.keys()).unwrap(), 1);
    assert_eq!(stored(&rig, "objects/").len(), 2);
}

#[test]
fn a_forgotten_past_is_no_damage_and_no_rollback() {
    let rig = Rig::new();
    let w = with_garbage(&rig);
    let away = rig.open("away");
    let seen = away.select("latest").unwrap();
    away.close(true).unwrap();
    drop(away);
    write(&w, "later", b"later");
    let parent = snapshot(&w);
    publish(&w);
    write(&w, "later", b"latest");
    let newest = snapshot(&w);
    publish(&w);
    w.forget(&last(1), false).unwrap();
    publish(&w);
    collect(&w, NOW).unwrap();
    assert_eq!(w.versions().unwrap().len(), 1);
    assert!(matches!(w.version(parent), Err(WorkspaceError::Forgotten { .. })));
    let shown = kura::control::run(&w, &Request::Show { version: newest.to_string(), changes: true });
    assert!(shown.ok, "{}", shown.message);
    assert!(w.check(Sample::Percent(100)).unwrap().problems.is_empty());
    // Who has seen a version that is forgotten now does not take that for a rollback, nor who trusts it.
    let away = rig.open("away");
    assert_eq!(live(&away), live(&w));
    let mut options = rig.options("trusting");
    options.trust = Some(seen);
    assert_eq!(live(&rig.try_open(options).unwrap()), live(&w));
}

#[test]
fn lines_whose_common_past_was_collected_are_joined_and_lose_nothing() {
    let rig = Rig::new();
    let w = with_garbage(&rig);
    let other = rig.open("other");
    write(&other, "theirs", b"made while away");
    snapshot(&other);
    write(&w, "ours", b"made here");
    snapshot(&w);
    publish(&w);
    w.forget(&last(1), false).unwrap();
    publish(&w);
    collect(&w, CollectOptions { grace_ms: u64::MAX, ..NOW }).unwrap();
    publish(&other);
    w.pull().unwrap();
    for workspace in [&w, &other] {
        assert_eq!(read(workspace, "theirs"), b"made while away");
        assert_eq!(read(workspace, "ours"), b"made here");
    }
    assert!(!other.versions().unwrap().iter().any(|version| version.summary.generation < 4), "stays forgotten");
    read_all(&rig.memory, &rig.keys()).unwrap();
}

#[test]
fn a_policy_is_kept_and_named_versions_stay() {
    let rig = Rig::new();
    let w = rig.open("state");
    for round in 0..6 {
        write(&w, "file", &bytes(round, 2000));
        w.snapshot(None, (round == 2).then(|| "release".to_owned())).unwrap();
    }
    publish(&w);
    let ask = |json: &str| -> Reply { kura::control::run(&w, &serde_json::from_str(json).unwrap()) };
    assert_eq!(ask(r#"{"op": "forget"}"#).exit, Exit::Usage.code(), "there is no policy");
    assert!(ask(r#"{"op": "forget", "keep": {"last": 2}, "mode": "set-policy"}"#).ok);
    assert_eq!(w.versions().unwrap().len(), 7);
    let dry = ask(r#"{"op": "forget", "mode": "dry-run"}"#);
    assert_eq!(dry.data["forgotten"].as_array().unwrap().len(), 4, "{dry:?}");
    assert_eq!(w.versions().unwrap().len(), 7);
    assert!(ask(r#"{"op": "forget"}"#).ok);
    let left = w.versions().unwrap();
    assert_eq!(left.len(), 3);
    assert!(left.iter().any(|version| version.tags == ["release"]));
    assert!(ask(r#"{"op": "forget", "mode": "set-policy"}"#).ok);
    assert_eq!(w.retention().unwrap(), None);
}

#[test]
fn re_encryption_leaves_what_collection_frees() {
    let rig = Rig::new();
    let w = with_garbage(&rig);
    kura::workspace::KeySlots::open_in(rig.memory.clone(), &rig.options("key-command")).unwrap().rotate().unwrap();
    let done = w.reencrypt(None, &|| false, &mut |_| {}).unwrap();
    assert!(!done.unreferred.is_empty());
    publish(&w);
    collect(&w, NOW).unwrap();
    let left = stored(&rig, "");
    assert!(done.unreferred.iter().all(|key| !left.contains(key.as_str())), "{left:?}");
    assert_eq!(read_all(&rig.memory, &rig.keys()).unwrap(), 5);
}

#[test]
fn a_maintaining_mount_forgets_collects_and_reads_by_itself() {
    let rig = Rig::new();
    with_garbage(&rig).close(true).unwrap();
    let mut options = rig.options("maintainer");
    options.maintenance =
        Maintenance { collect_every_ms: 20, grace_ms: Some(0), scrub_every_ms: 20, scrub_bytes: 1 << 20 };
    let w = rig.try_open(options).unwrap();
    w.set_retention(Some(&last(1))).unwrap();
    w.start();
    wait_until("all but the newest version is freed", || {
        w.versions().unwrap().len() == 1 && stored(&rig, "objects/").len() == 2
    });
    wait_until("it is told", || {
        let status = w.status();
        status.collected.is_some() && status.scrubbed.is_some_and(|text| text.contains("nothing wrong"))
    });
    // What is damaged is told, too.
    let mut objects = rig.memory.snapshot();
    objects.retain(|key, _| !key.as_str().starts_with("objects/"));
    rig.memory.restore(objects);
    wait_until("damage is told", || w.status().scrubbed.is_some_and(|text| text.contains("DAMAGED")));
    w.close(true).unwrap();
}
