//! Updates of a file that lies in a workspace.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kura::apps::sealed::{
    Credentials, Damage, Machine, SealedError, Settings, SystemProcesses, WORK_DIR, create_file, read_document,
    read_header, update_in_workspace,
};
use kura::base::clock::{Clock, SystemClock, Timestamp};
use kura::base::disk::RealDisk;
use kura::crypto::sharing::Field;
use kura::workspace::{Workspace, WorkspaceError};
use kura::worktree::WorkError;
use serde_json::Value;

use super::support::{access, credentials, small};
use crate::workspace_rig::{Rig, chmod, live, mkdir, read, remove, snapshot, write};

const PATH: &[&[u8]] = &[b"dir", b"notes.sealed"];
const FILE: &str = "dir/notes.sealed";

fn machine() -> Machine {
    Machine { disk: Arc::new(RealDisk), clock: Arc::new(SystemClock), processes: Arc::new(SystemProcesses) }
}

fn ours() -> Credentials {
    credentials("one", &[1, 4, 5])
}

/// A workspace with a file of one document, `{"n":0}`.
fn workspace(rig: &Rig) -> Arc<Workspace> {
    let w = rig.open("state");
    mkdir(&w, "dir");
    write(&w, FILE, &sealed_file(&rig.dir.path().join("made.sealed")));
    snapshot(&w);
    w
}

fn sealed_file(path: &Path) -> Vec<u8> {
    let settings = Settings { capacity: 4096, ..small(Field::Gf256, 16) };
    create_file(&machine(), path, &settings, &access("one", &[1, 4, 5], 2), b"{\"n\":0}").unwrap();
    std::fs::read(path).unwrap()
}

fn update(w: &Workspace, n: u64) -> Result<(), SealedError> {
    update_in_workspace(&machine(), w, (PATH, true), format!("{{\"n\":{n}}}").as_bytes(), &ours()).map(|_| ())
}

fn document(rig: &Rig, bytes: &[u8]) -> Value {
    let path = rig.dir.path().join("read.sealed");
    std::fs::write(&path, bytes).unwrap();
    serde_json::from_slice(&read_document(&machine(), &path, &ours(), Damage::Refuse).unwrap().json).unwrap()
}

fn names(w: &Workspace) -> Vec<String> {
    live(w).into_keys().collect()
}

#[test]
fn an_update_is_one_version_with_its_backup() {
    let rig = Rig::new();
    let w = workspace(&rig);
    chmod(&w, FILE, 0o640);
    let before = read(&w, FILE);
    snapshot(&w);
    let versions = w.versions().unwrap().len();
    let done = update_in_workspace(&machine(), &w, (PATH, true), b"{\"n\":1}", &ours()).unwrap();
    assert_eq!(w.versions().unwrap().len(), versions + 1);
    let backup = done.backup.unwrap().to_str().unwrap().to_owned();
    assert_eq!(names(&w), ["dir", "dir/.kura-sealed", &backup, FILE]);
    assert_eq!((document(&rig, &read(&w, FILE))["n"].clone(), read(&w, &backup)), (1.into(), before));
    let modes = |path: &str| live(&w)[path].1;
    assert_eq!((modes(FILE), modes(&backup), modes("dir/.kura-sealed")), (0o640, 0o600, 0o700));
    // The tree is what the version says, and nothing is left to record.
    snapshot(&w);
    update_in_workspace(&machine(), &w, (PATH, false), b"{\"n\":2}", &ours()).unwrap();
    assert_eq!(names(&w).len(), 4, "no backup was wanted");
    let state = rig.dir.path().join("state").join(w.id().to_string());
    assert_eq!(std::fs::read_dir(state.join("scratch")).unwrap().count(), 0);
}

#[test]
fn no_version_holds_a_part_of_an_update() {
    let rig = Rig::new();
    let w = workspace(&rig);
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::SeqCst) {
                snapshot(&w);
            }
        });
        for n in 1..=12 {
            update(&w, n).unwrap();
        }
        ends.store(true, Ordering::SeqCst);
    });
    let mut updated = 0;
    for version in w.versions().unwrap() {
        let version = w.select(&version.id.to_string()).unwrap();
        let record = w.version(version).unwrap();
        let beside = w.names_in(&record, format!("dir/{WORK_DIR}").as_bytes()).unwrap();
        assert!(beside.iter().all(|(name, _)| name.ends_with(b".bak")), "{beside:?}");
        updated = updated.max(beside.len());
        let Some(entry) = w.find(&record, PATH).unwrap() else { continue };
        let kura::version::entry::Body::File(body) = &entry.body else { panic!("{entry:?}") };
        let bytes = w.read_file(body, 0, body.size as usize).unwrap();
        assert_eq!(document(&rig, &bytes)["n"], beside.len(), "as many updates as backups");
    }
    assert_eq!(updated, 12);
}

/// Does something the second time it is asked for the time, which is while the new file is made.
struct Meanwhile<F>(AtomicBool, F);

impl<F: Fn() + Send + Sync> Clock for Meanwhile<F> {
    fn now(&self) -> Timestamp {
        if !self.0.swap(true, Ordering::SeqCst) {
            (self.1)();
        }
        SystemClock.now()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }
}

type Action = dyn Fn(&Workspace) + Send + Sync;

#[test]
fn what_others_do_to_the_file_meanwhile_is_not_lost() {
    let rig = Rig::new();
    let w = workspace(&rig);
    let other = sealed_file(&rig.dir.path().join("other.sealed"));
    let lock = format!("dir/{WORK_DIR}/{}.lock", uuid_of(&rig));
    let actions: [(&str, Box<Action>); 3] = [
        (
            "written",
            Box::new({
                let other = other.clone();
                move |w| write(w, FILE, &other)
            }),
        ),
        (
            "locked",
            Box::new({
                let lock = lock.clone();
                move |w| {
                    mkdir(w, &format!("dir/{WORK_DIR}"));
                    chmod(w, &format!("dir/{WORK_DIR}"), 0o700);
                    write(w, &lock, b"");
                }
            }),
        ),
        ("removed", Box::new(|w| remove(w, FILE))),
    ];
    for (what, action) in actions {
        let acting = w.clone();
        let clock = Meanwhile(AtomicBool::new(false), move || action(&acting));
        let machine = Machine { clock: Arc::new(clock), ..machine() };
        let failed = update_in_workspace(&machine, &w, (PATH, true), b"{\"n\":7}", &ours()).unwrap_err();
        match failed {
            SealedError::Locked { pid: 0, .. } if what == "locked" => {}
            SealedError::Workspace(WorkspaceError::Work(WorkError::Changed { path })) if what != "locked" => {
                assert_eq!(path, FILE);
            }
            failed => panic!("{what}: {failed}"),
        }
        assert!(!names(&w).iter().any(|name| name.ends_with(".bak")), "{what}");
        match what {
            "written" => assert_eq!(read(&w, FILE), other),
            "locked" => remove(&w, &lock),
            _ => assert!(!names(&w).contains(&FILE.to_owned())),
        }
    }
}

fn uuid_of(rig: &Rig) -> uuid::Uuid {
    read_header(&machine(), &rig.dir.path().join("made.sealed")).unwrap().uuid
}

#[test]
fn a_lock_counts_while_its_holder_lives_and_leftovers_of_the_dead_go() {
    let rig = Rig::new();
    let w = workspace(&rig);
    update(&w, 1).unwrap();
    let uuid = uuid_of(&rig);
    let lock = format!("dir/{WORK_DIR}/{uuid}.lock");
    let left = format!("dir/{WORK_DIR}/{uuid}.{}.tmp", uuid::Uuid::nil());
    // Somebody has made it and not yet said who.
    write(&w, &lock, b"");
    assert!(matches!(update(&w, 2), Err(SealedError::Locked { pid: 0, .. })));
    write(&w, &left, b"half a file");
    write(&w, &format!("dir/{WORK_DIR}/foreign.tmp"), b"");
    // A record of a process that is gone, as it was left.
    write(&w, &lock, &record_of_the_dead(&rig, uuid));
    update(&w, 3).unwrap();
    let names = names(&w);
    assert!(!names.contains(&lock) && !names.contains(&left), "{names:?}");
    assert!(names.iter().any(|name| name.ends_with("foreign.tmp")), "what is not ours stays: {names:?}");
    assert_eq!(document(&rig, &read(&w, FILE))["n"], 3);
}

/// The lock file of this process, as another would find it after this one's death.
fn record_of_the_dead(rig: &Rig, uuid: uuid::Uuid) -> Vec<u8> {
    let dir = rig.dir.path().join("work");
    let processes = super::support::Actors { me: super::support::mark(999_999, 5, 9), alive: Default::default() };
    let machine = Machine { processes: Arc::new(processes), ..machine() };
    let operation = kura::apps::sealed::Operation::Write;
    let held = kura::apps::sealed::create_temp_resources(&machine, &dir, uuid, operation, 1000).unwrap();
    let record = std::fs::read(dir.join(format!("{uuid}.lock"))).unwrap();
    drop(held);
    record
}

#[test]
fn what_is_no_such_file_is_told_apart_and_left_alone() {
    let rig = Rig::new();
    let w = workspace(&rig);
    write(&w, "dir/plain", b"no sealed documents");
    let try_at =
        |path: &[&[u8]]| update_in_workspace(&machine(), &w, (path, true), b"{}", &ours()).unwrap_err().to_string();
    assert!(try_at(&[b"dir", b"plain"]).contains("dir/plain holds no sealed documents"));
    assert!(try_at(&[b"dir", b"nothing"]).contains("there is no such file"));
    assert!(try_at(&[b"dir"]).contains("it is a directory"));
    assert!(try_at(&[b"dir", b"plain", b"x"]).contains("dir/plain is a file"));
    let wrong = update_in_workspace(&machine(), &w, (PATH, true), b"{}", &credentials("two", &[1, 4, 5]));
    assert!(matches!(wrong, Err(SealedError::NoDocument { .. })));
    mkdir(&w, &format!("dir/{WORK_DIR}"));
    let refused = update(&w, 1).unwrap_err().to_string();
    assert!(refused.contains("mode 0700"), "others could write there: {refused}");
    assert_eq!(document(&rig, &read(&w, FILE))["n"], 0);
}
