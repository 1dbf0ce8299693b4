//! Batches inside of a workspace: one version, undone by one revert, or taken back.

use std::collections::BTreeMap;
use std::sync::Arc;

use kura::apps::batch::{Commit, Job, RunReport, Setup, open};
use kura::workspace::Workspace;
use kura::worktree::FileKind;

use super::rig::balanced;
use crate::workspace_rig::{Rig, chmod, live, mkdir, read, remove, snapshot, write};

fn job(commit: Commit) -> Job {
    let text = r#"{"name": "inside", "source": {"url": "workspace:/in"},
        "process": {"kind": "json-patch", "patch": [{"op": "add", "path": "/n/0", "value": 1}]},
        "run": {"workers": 4}}"#;
    let mut job = Job::parse(text).unwrap();
    job.run.commit = commit;
    job
}

fn filled(rig: &Rig) -> Arc<Workspace> {
    let workspace = rig.open("state");
    mkdir(&workspace, "in");
    mkdir(&workspace, "in/d");
    for number in 0..30 {
        write(&workspace, &format!("in/d/f{number}"), format!("{{\"n\":[{number}]}}").as_bytes());
    }
    write(&workspace, "outside", b"{\"n\":[]}");
    chmod(&workspace, "in/d/f3", 0o640);
    workspace
}

fn run(workspace: &Arc<Workspace>, job: &Job) -> RunReport {
    let setup = Setup {
        keys: workspace.keys().clone(),
        disk: workspace.disk().clone(),
        clock: workspace.clock().clone(),
        dir: workspace.state_dir().join("batch"),
    };
    balanced(open(&setup, job.clone(), Some(workspace), None).unwrap().run().unwrap())
}

type Tree = BTreeMap<String, (FileKind, u16, Vec<u8>)>;

fn shown(workspace: &Workspace) -> Tree {
    live(workspace)
}

#[test]
fn a_run_is_one_version_and_one_revert_undoes_it() {
    let rig = Rig::new();
    let workspace = filled(&rig);
    let before = shown(&workspace);
    snapshot(&workspace);
    let count = workspace.versions().unwrap().len();
    let report = run(&workspace, &job(Commit::All));
    assert_eq!((report.done, report.failed), (30, 0), "{report:?}");
    assert_eq!(workspace.versions().unwrap().len(), count + 1);
    assert_eq!(read(&workspace, "in/d/f3"), b"{\"n\":[1,3]}");
    assert_eq!(read(&workspace, "outside"), b"{\"n\":[]}");
    assert_eq!(shown(&workspace)["in/d/f3"].1, 0o640);
    let again = run(&workspace, &job(Commit::All));
    assert_eq!((again.scan.backlogged, again.version), (0, None));
    assert_eq!(workspace.versions().unwrap().len(), count + 1, "a run that does nothing is no version");
    let version = workspace.select(&report.version.unwrap()).unwrap();
    assert!(workspace.revert(version).unwrap().conflicts.is_empty());
    assert_eq!(shown(&workspace), before);
    // Undone, they are as others wrote them, and processed once more when that is asked for.
    let once_more = run(&workspace, &job(Commit::All));
    assert_eq!(once_more.done, 30, "{once_more:?}");
    assert_eq!(read(&workspace, "in/d/f3"), b"{\"n\":[1,3]}");
    workspace.close(false).unwrap();
}

#[test]
fn all_or_nothing_takes_back_what_was_done_when_a_file_fails() {
    let rig = Rig::new();
    let workspace = filled(&rig);
    write(&workspace, "in/bad", b"no json");
    let before = shown(&workspace);
    let report = run(&workspace, &job(Commit::All));
    assert_eq!((report.done, report.failed, report.pending), (0, 1, 30), "{report:?}");
    assert_eq!(shown(&workspace), before);
    let partial = run(&workspace, &job(Commit::Partial));
    assert_eq!((partial.done, partial.failed), (30, 1), "{partial:?}");
    assert_eq!(read(&workspace, "in/d/f7"), b"{\"n\":[1,7]}");
    assert_eq!(read(&workspace, "in/bad"), b"no json");
    remove(&workspace, "in/bad");
    assert_eq!(run(&workspace, &job(Commit::All)).scan.backlogged, 0);
    workspace.close(false).unwrap();
}

#[test]
fn what_was_processed_is_remembered_beyond_the_process() {
    let rig = Rig::new();
    let workspace = filled(&rig);
    snapshot(&workspace);
    let report = run(&workspace, &job(Commit::Partial));
    assert_eq!(report.done, 30);
    workspace.close(false).unwrap();
    let workspace = rig.open("state");
    assert_eq!(run(&workspace, &job(Commit::Partial)).scan.backlogged, 0, "remembered beyond the process");
    assert_eq!(read(&workspace, "in/d/f9"), b"{\"n\":[1,9]}");
    workspace.close(false).unwrap();
}

#[test]
fn only_directories_of_the_workspace_are_sources() {
    let rig = Rig::new();
    let workspace = filled(&rig);
    for url in ["workspace:/missing", "workspace:/.kura/versions", "workspace:/in/../..", "workspace:/in/.kura"] {
        let mut elsewhere = job(Commit::All);
        elsewhere.source.url = url.to_owned();
        let setup = Setup {
            keys: workspace.keys().clone(),
            disk: workspace.disk().clone(),
            clock: workspace.clock().clone(),
            dir: workspace.state_dir().join("batch"),
        };
        assert!(open(&setup, elsewhere, Some(&workspace), None).is_err(), "{url}");
    }
    workspace.close(false).unwrap();
}

#[test]
fn what_others_write_during_a_run_is_theirs_and_stays() {
    for (commit, done) in [(Commit::Partial, 29), (Commit::All, 0)] {
        let rig = Rig::new();
        let workspace = filled(&rig);
        let setup = Setup {
            keys: workspace.keys().clone(),
            disk: workspace.disk().clone(),
            clock: workspace.clock().clone(),
            dir: workspace.state_dir().join("batch"),
        };
        let flow = open(&setup, job(commit), Some(&workspace), None).unwrap();
        flow.scan_and_filter().unwrap();
        write(&workspace, "in/d/f5", b"{\"n\":[\"theirs\"]}");
        write(&workspace, "outside", b"theirs, too");
        let report = balanced(flow.process_files().unwrap());
        assert_eq!((report.done, report.failed, &*report.failures[0].code), (done, 1, "source_changed"), "{report:?}");
        assert_eq!(read(&workspace, "in/d/f5"), b"{\"n\":[\"theirs\"]}");
        assert_eq!(read(&workspace, "outside"), b"theirs, too");
        let expected: &[u8] = if done > 0 { b"{\"n\":[1,7]}" } else { b"{\"n\":[7]}" };
        assert_eq!(read(&workspace, "in/d/f7"), expected);
        drop(flow);
        let again = run(&workspace, &job(commit));
        assert_eq!(again.done + done, 30, "{again:?}");
        assert_eq!(read(&workspace, "in/d/f5"), b"{\"n\":[1,\"theirs\"]}");
        assert_eq!(read(&workspace, "in/d/f7"), b"{\"n\":[1,7]}");
        workspace.close(false).unwrap();
    }
}

#[test]
fn nobody_sees_a_part_of_a_run() {
    let rig = Rig::new();
    let workspace = filled(&rig);
    let setup = Setup {
        keys: workspace.keys().clone(),
        disk: workspace.disk().clone(),
        clock: workspace.clock().clone(),
        dir: workspace.state_dir().join("batch"),
    };
    let mut flow = open(&setup, job(Commit::All), Some(&workspace), None).unwrap();
    let (seen, other) = (Arc::new(parking_lot::Mutex::new(0)), workspace.clone());
    let count = seen.clone();
    flow.set_progress(Arc::new(move |_| {
        assert_eq!(read(&other, "in/d/f7"), b"{\"n\":[7]}");
        *count.lock() += 1;
    }));
    assert_eq!(flow.run().unwrap().done, 30);
    assert!(*seen.lock() > 30);
    assert_eq!(read(&workspace, "in/d/f7"), b"{\"n\":[1,7]}");
    workspace.close(false).unwrap();
}
