//! Syncing up to the store: shared, bounded, and nothing is claimed that is not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use kura::store::{Fault, Operation};
use kura::version::entry::Ino;
use kura::workspace::{Fsync, OpenOptions, Workspace, WorkspaceError};

use crate::workspace_rig::{Rig, ino, recorded, remove, write};

/// Only what is asked for is published.
fn options(rig: &Rig, state: &str) -> OpenOptions {
    let mut options = rig.options(state);
    options.fsync = Fsync::Store;
    options.intervals.version_quiet_ms = 3_600_000;
    options.intervals.version_max_ms = 3_600_000;
    options
}

fn open(rig: &Rig, state: &str) -> Arc<Workspace> {
    let workspace = rig.try_open(options(rig, state)).unwrap();
    workspace.start();
    workspace
}

/// What a machine without any local state finds.
fn elsewhere(rig: &Rig, state: &str) -> Vec<String> {
    let workspace = rig.open(state);
    let newest = workspace.select("latest").unwrap();
    let paths = recorded(&workspace, newest).into_keys().collect();
    workspace.close(false).unwrap();
    paths
}

#[test]
fn what_was_synced_is_in_head_when_it_returns() {
    let rig = Rig::new();
    let workspace = open(&rig, "state");
    for round in 0..5 {
        let name = format!("file{round}");
        write(&workspace, &name, b"content");
        workspace.fsync(ino(&workspace, &name)).unwrap();
        assert!(elsewhere(&rig, &format!("other{round}")).contains(&name));
    }
    remove(&workspace, "file0");
    workspace.fsync_dir().unwrap();
    assert!(!elsewhere(&rig, "last").contains(&"file0".to_owned()));
    workspace.close(true).unwrap();
}

#[test]
fn syncs_at_the_same_time_share_publications() {
    let rig = Rig::new();
    let swings = Arc::new(AtomicUsize::new(0));
    let counted = swings.clone();
    rig.set_fault(move |operation, key| {
        if operation != Operation::PutConditional || key != "HEAD" {
            return Fault::Pass;
        }
        counted.fetch_add(1, Ordering::SeqCst);
        Fault::Delay(Duration::from_millis(50))
    });
    let workspace = open(&rig, "state");
    let files: Vec<Ino> = (0..16)
        .map(|number| {
            let name = format!("file{number}");
            write(&workspace, &name, name.as_bytes());
            ino(&workspace, &name)
        })
        .collect();
    thread::scope(|scope| {
        for file in &files {
            scope.spawn(|| workspace.fsync(*file).unwrap());
        }
    });
    let count = swings.load(Ordering::SeqCst);
    assert!((1..=4).contains(&count), "{count} publications for 16 syncs");
    assert_eq!(elsewhere(&rig, "other").len(), 16);
    workspace.close(true).unwrap();
}

#[test]
fn a_store_that_is_away_fails_the_sync_and_not_the_file() {
    let rig = Rig::new();
    let mut options = options(&rig, "state");
    options.intervals.fsync_publish_ms = 300;
    let workspace = rig.try_open(options).unwrap();
    workspace.start();
    let away = Arc::new(AtomicBool::new(true));
    let is_away = away.clone();
    rig.set_fault(move |_, _| if is_away.load(Ordering::SeqCst) { Fault::Unreachable } else { Fault::Pass });
    write(&workspace, "file", b"content");
    let file = ino(&workspace, "file");
    for _ in 0..3 {
        let error = workspace.fsync(file).unwrap_err();
        assert!(matches!(error, WorkspaceError::NotInStore { .. }), "{error}");
    }
    away.store(false, Ordering::SeqCst);
    workspace.fsync(file).unwrap();
    assert_eq!(elsewhere(&rig, "other"), ["file"]);
    away.store(true, Ordering::SeqCst);
    write(&workspace, "later", b"content");
    workspace.fsync(ino(&workspace, "later")).unwrap_err();
    workspace.close(false).unwrap();
    drop(workspace);
    // It is kept here, and published when the store is back.
    away.store(false, Ordering::SeqCst);
    let workspace = open(&rig, "state");
    workspace.fsync_dir().unwrap();
    assert_eq!(elsewhere(&rig, "last").len(), 2);
    workspace.close(true).unwrap();
}
