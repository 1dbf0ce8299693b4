//! Making, opening and closing workspaces; restoring, reverting, comparing, selecting.
#![allow(clippy::disallowed_methods, reason = "what a user does to files")]

use std::sync::Arc;

use kura::base::ids::Sha256;
use kura::crypto::Sealed;
use kura::crypto::slots::{Credential, Secret, UnlockError};
use kura::store::{Fault, MemoryStore, ObjectKey, ObjectStore, PutCondition, StoreError, StoreUrl};
use kura::sync::SyncError;
use kura::version::VersionError;
use kura::version::diff::ChangeKind;
use kura::version::head::Head;
use kura::workspace::{InitOptions, Side, Workspace, WorkspaceError, is_inside};
use kura::worktree::{FileKind, NewNode, RenameMode, Wait, WorkError, XattrMode};

use super::workspace_rig::*;

fn wrong() -> Credential {
    Credential::Passphrase(Secret::from_text("battery staple".to_owned()))
}

#[test]
fn a_new_workspace_opens_empty_and_keeps_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let url = StoreUrl::Dir(dir.path().join("store"));
    let mut init = init_options();
    init.recovery_code = true;
    let report = Workspace::init(&url, init).unwrap();
    assert!(report.conditional_writes);
    let code = report.recovery_code.unwrap();
    let workspace = Workspace::open(options(&dir, "state")).unwrap();
    assert_eq!(workspace.id(), report.workspace);
    assert!(live(&workspace).is_empty());
    mkdir(&workspace, "a");
    write(&workspace, "a/b", b"hello");
    write(&workspace, "big", &vec![5; 3_000_000]);
    let before = live(&workspace);
    let closed = workspace.close(true).unwrap();
    assert_eq!((closed.unpublished_versions, closed.reason), (0, None));
    let again = Workspace::open(options(&dir, "state")).unwrap();
    assert_eq!(live(&again), before, "the same state directory");
    again.close(true).unwrap();
    let mut by_code = options(&dir, "elsewhere");
    let text = code.to_string();
    by_code.credential = Box::new(move || Ok(Credential::RecoveryCode(Secret::from_text(text.clone()))));
    let fresh = Workspace::open(by_code).unwrap();
    assert_eq!(live(&fresh), before, "a fresh state directory, and the recovery code");
    assert_eq!(fresh.versions().unwrap().len(), 2);
}

#[test]
fn init_refuses_places_that_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let url = StoreUrl::Dir(dir.path().join("store"));
    Workspace::init(&url, init_options()).unwrap();
    let again = Workspace::init(&url, init_options());
    assert!(matches!(again, Err(WorkspaceError::Exists { .. })), "{again:?}");
    let full = dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("thesis.tex"), "…").unwrap();
    let refused = Workspace::init(&StoreUrl::Dir(full.clone()), init_options());
    assert!(matches!(&refused, Err(WorkspaceError::NotEmpty { found, .. }) if found == "thesis.tex"), "{refused:?}");
    assert_eq!(std::fs::read_dir(&full).unwrap().count(), 1, "nothing was left behind");
    assert!(Workspace::open(options(&dir, "state")).is_ok());
}

#[test]
fn an_init_that_was_cut_off_anywhere_is_taken_over() {
    for cut in 0.. {
        let memory = Arc::new(MemoryStore::new());
        let puts = std::sync::atomic::AtomicUsize::new(0);
        let failing = kura::store::FaultStore::new(memory.clone(), move |operation, key| {
            let is_put = matches!(operation, kura::store::Operation::Put | kura::store::Operation::PutConditional);
            let is_ours = is_put && !key.starts_with("probe/");
            match is_ours && puts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= cut {
                true => Fault::Unreachable,
                false => Fault::Pass,
            }
        });
        if Workspace::init_in(&failing, init_options()).is_ok() {
            assert!(cut >= 6, "header, slot, epoch, pack, run, record, HEAD");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let opened = Workspace::open_in(memory.clone(), options(&dir, "state"));
        let expected = match cut {
            0 => matches!(opened, Err(WorkspaceError::NoWorkspace { .. })),
            _ => matches!(opened, Err(WorkspaceError::Unfinished { .. } | WorkspaceError::Unlock(_))),
        };
        assert!(expected, "cut {cut}: {:?}", opened.err());
        Workspace::init_in(&*memory, init_options()).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
        assert!(Workspace::open_in(memory, options(&dir, "state")).is_ok(), "cut {cut}");
    }
}

#[test]
fn a_used_workspace_that_lost_its_head_is_damaged_and_never_made_anew() {
    let rig = Rig::new();
    let workspace = rig.open("state");
    write(&workspace, "file", b"content");
    snapshot(&workspace);
    workspace.close(true).unwrap();
    drop(workspace);
    let head = rig.memory.get(&Head::key()).unwrap();
    rig.memory.delete(&Head::key()).unwrap();
    let lost = |outcome: Option<WorkspaceError>| matches!(outcome, Some(WorkspaceError::HeadLost { .. }));
    assert!(lost(Workspace::open_in(rig.memory.clone(), rig.options("other")).err()));
    assert!(lost(Workspace::init_in(&*rig.memory, init_options()).err()));
    let away = InitOptions { was_there: true, ..init_options() };
    assert!(lost(Workspace::init_in(&*rig.memory, away).err()));
    let bytes = Sealed::from_local(head.bytes).unwrap();
    rig.memory.put(&Head::key(), &bytes, PutCondition::IfAbsent).unwrap();
    assert!(Workspace::open_in(rig.memory.clone(), rig.options("state")).is_ok());
}

#[test]
fn a_place_where_a_workspace_was_stays_empty_until_one_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("disk");
    let was_there = || InitOptions { was_there: true, ..init_options() };
    let away = Workspace::init(&StoreUrl::Dir(place.clone()), was_there());
    assert!(matches!(away, Err(WorkspaceError::Away { .. })) && !place.exists(), "{away:?}");
    let away = Workspace::init_in(&MemoryStore::new(), was_there());
    assert!(matches!(away, Err(WorkspaceError::Away { .. })), "{away:?}");
}

#[test]
fn every_reason_not_to_open_has_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Workspace::open(options(&dir, "state")), Err(WorkspaceError::Store(StoreError::NoStore { .. }))));
    let rig = Rig::new();
    let empty = Workspace::open_in(Arc::new(MemoryStore::new()), rig.options("state"));
    assert!(matches!(empty, Err(WorkspaceError::NoWorkspace { .. })));
    let mut options = rig.options("state");
    options.credential = Box::new(|| Ok(wrong()));
    assert!(matches!(rig.try_open(options), Err(WorkspaceError::Unlock(UnlockError::WrongSecret { .. }))));
    let mut options = rig.options("state");
    options.credential = Box::new(|| Err("nobody is at the keyboard".to_owned()));
    assert!(matches!(rig.try_open(options), Err(WorkspaceError::NoCredential { .. })));
    rig.set_fault(|_, _| Fault::Unreachable);
    assert!(matches!(rig.try_open(rig.options("state")), Err(WorkspaceError::Store(StoreError::Unreachable { .. }))));
    rig.heal();
    let first = rig.open("state");
    assert!(matches!(rig.try_open(rig.options("state")), Err(WorkspaceError::Locked { .. })));
    first.close(true).unwrap();
    rig.open("state").close(true).unwrap();
    let good = rig.memory.snapshot();
    let alter = |prefix: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut objects = good.clone();
        for (key, bytes) in &mut objects {
            if key.as_str().starts_with(prefix) {
                change(bytes);
            }
        }
        rig.memory.restore(objects);
        let opened = rig.try_open(rig.options("fresh"));
        rig.memory.restore(good.clone());
        opened.err().unwrap_or_else(|| panic!("{prefix} was altered and nobody noticed"))
    };
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    assert!(matches!(
        alter("keys/", &flip),
        WorkspaceError::Unlock(UnlockError::DamagedSlot { .. } | UnlockError::WrongSecret { .. })
    ));
    assert!(matches!(alter("epochs/", &flip), WorkspaceError::Unlock(UnlockError::DamagedEpoch { .. })));
    assert!(matches!(alter("HEAD", &flip), WorkspaceError::Sync(SyncError::Version(VersionError::Unopened { .. }))));
    assert!(matches!(alter("indexes/", &flip), WorkspaceError::Work(WorkError::Version(_))));
    let newer = |bytes: &mut Vec<u8>| {
        *bytes = String::from_utf8(bytes.clone()).unwrap().replace("\"format\": 1", "\"format\": 2").into_bytes();
    };
    assert!(matches!(alter("kura.json", &newer), WorkspaceError::Unlock(UnlockError::NewerFormat { .. })));
}

#[test]
fn a_known_workspace_opens_while_its_store_is_away_and_publishes_later() {
    let rig = Rig::new();
    let workspace = rig.open("state");
    write(&workspace, "one", b"1");
    workspace.close(true).unwrap();
    rig.set_fault(|_, _| Fault::Unreachable);
    let mut options = rig.options("state");
    options.intervals.close_publish_ms = 1;
    let workspace = rig.try_open(options).unwrap();
    assert!(workspace.status().offline.is_some());
    assert_eq!(read(&workspace, "one"), b"1", "what was written here is in memory or cache");
    write(&workspace, "two", b"2");
    let closed = workspace.close(true).unwrap();
    assert_eq!(closed.unpublished_versions, 1);
    assert!(closed.reason.unwrap().contains("cannot be reached"));
    rig.heal();
    let workspace = rig.open("state");
    assert!(workspace.status().offline.is_none());
    assert_eq!(workspace.close(true).unwrap().unpublished_versions, 0);
    let other = rig.open("other");
    assert_eq!(read(&other, "two"), b"2");
}

#[test]
fn a_directory_store_that_is_not_mounted_is_away_too() {
    let dir = tempfile::tempdir().unwrap();
    let url = StoreUrl::Dir(dir.path().join("store"));
    Workspace::init(&url, init_options()).unwrap();
    let workspace = Workspace::open(options(&dir, "state")).unwrap();
    write(&workspace, "one", b"1");
    // Nothing that a local store holds is kept twice, so only what waits can be read without it.
    assert_eq!(workspace.close(false).unwrap().unpublished_versions, 1);
    std::fs::rename(dir.path().join("store"), dir.path().join("away")).unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    let mut waiting = options(&dir, "state");
    waiting.intervals.close_publish_ms = 1;
    let workspace = Workspace::open(waiting).unwrap();
    assert!(workspace.status().offline.is_some());
    mkdir(&workspace, "made-offline");
    assert_eq!(workspace.close(true).unwrap().unpublished_versions, 2);
    let left: Vec<_> = std::fs::read_dir(dir.path().join("store")).unwrap().map(|name| name.unwrap().path()).collect();
    assert!(left.is_empty(), "the empty mount point stays empty: {left:?}");
    std::fs::remove_dir(dir.path().join("store")).unwrap();
    std::fs::rename(dir.path().join("away"), dir.path().join("store")).unwrap();
    let workspace = Workspace::open(options(&dir, "state")).unwrap();
    assert_eq!(workspace.close(true).unwrap().unpublished_versions, 0);
}

#[test]
fn a_store_that_goes_back_is_refused_until_it_is_accepted() {
    let rig = Rig::new();
    let workspace = rig.open("state");
    write(&workspace, "one", b"1");
    workspace.close(true).unwrap();
    let old = rig.memory.snapshot();
    let workspace = rig.open("state");
    write(&workspace, "two", b"2");
    workspace.close(true).unwrap();
    let newest = workspace.tree().base().index.id;
    rig.memory.restore(old);
    let refused = rig.try_open(rig.options("state"));
    let error = refused.map(|_| ()).unwrap_err();
    assert!(matches!(error, WorkspaceError::Sync(SyncError::RolledBack { .. })));
    let (text, newest) = (error.to_string(), newest.to_string());
    for words in ["went back", &newest, " of 20", "missing from it", "indexes/", "--accept-rollback"] {
        assert!(text.contains(words), "`{words}` is missing: {text}");
    }
    let mut options = rig.options("state");
    options.accept_rollback = true;
    let workspace = rig.try_open(options).unwrap();
    let told = workspace.versions().unwrap().into_iter().find_map(|version| version.summary.message);
    assert!(told.unwrap().contains(&newest), "the history says what was accepted");
    assert_eq!(live(&workspace).keys().collect::<Vec<_>>(), ["one"]);
    write(&workspace, "three", b"3");
    assert_eq!(workspace.close(true).unwrap().unpublished_versions, 0);
    rig.open("state").close(true).unwrap();
}

#[test]
fn a_new_client_can_be_told_what_the_history_must_hold() {
    let rig = Rig::new();
    let writer = rig.open("writer");
    write(&writer, "one", b"1");
    writer.close(true).unwrap();
    let old = rig.memory.snapshot();
    let writer = rig.open("writer");
    write(&writer, "two", b"2");
    writer.close(true).unwrap();
    let trusted = writer.tree().base().index.id;
    let open = |state: &str| rig.try_open(kura::workspace::OpenOptions { trust: Some(trusted), ..rig.options(state) });
    open("new").unwrap().close(true).unwrap();
    rig.memory.restore(old);
    let error = open("newer").map(|_| ()).unwrap_err();
    assert!(matches!(error, WorkspaceError::Sync(SyncError::Untrusted { .. })), "{error}");
    assert!(error.to_string().contains(&trusted.to_string()));
    assert_eq!(kura::control::Failure::from(error).exit, kura::control::Exit::RolledBack);
}

#[test]
fn a_store_that_goes_back_and_on_another_way_is_refused() {
    let rig = Rig::new();
    let victim = rig.open("victim");
    write(&victim, "one", b"1");
    let old = rig.memory.snapshot();
    victim.close(true).unwrap();
    rig.memory.restore(old);
    let other = rig.open("other");
    for name in ["a", "b", "c"] {
        write(&other, name, b"x");
        other.flush(Some(std::time::Duration::from_secs(5))).unwrap();
    }
    other.close(true).unwrap();
    let refused = rig.try_open(rig.options("victim"));
    assert!(
        matches!(refused, Err(WorkspaceError::Sync(SyncError::RolledBack { .. }))),
        "generation alone is not enough"
    );
}

#[test]
fn a_clean_state_directory_moves_forward_to_what_others_published() {
    let rig = Rig::new();
    let mine = rig.open("mine");
    write(&mine, "one", b"1");
    mine.close(true).unwrap();
    let theirs = rig.open("theirs");
    write(&theirs, "two", b"2");
    theirs.close(true).unwrap();
    let mine = rig.open("mine");
    assert_eq!(read(&mine, "two"), b"2");
    write(&mine, "three", b"3");
    assert_eq!(mine.close(true).unwrap().unpublished_versions, 0);
}

#[test]
fn a_copied_state_directory_becomes_another_client_with_other_inode_numbers() {
    let rig = Rig::new();
    let first = rig.open("state");
    write(&first, "one", b"1");
    first.close(true).unwrap();
    let client = |workspace: &Workspace| workspace.versions().unwrap()[0].id;
    let before = client(&first);
    let mut options = rig.options("state");
    options.machine = Some(Sha256([8; 32]));
    let copy = rig.try_open(options).unwrap();
    write(&copy, "two", b"2");
    let record = copy.snapshot(None, None).unwrap().record;
    assert_ne!(record.author.client, first.version(before).unwrap().author.client);
    assert_ne!(ino(&copy, "one").0 >> 32, ino(&copy, "two").0 >> 32);
    copy.close(true).unwrap();
}

#[test]
fn a_read_only_workspace_changes_nothing_anywhere() {
    let rig = Rig::new();
    let workspace = rig.open("state");
    write(&workspace, "one", b"1");
    let version = snapshot(&workspace);
    workspace.close(true).unwrap();
    let before = rig.memory.snapshot();
    let mut options = rig.options("state");
    options.read_only = true;
    let workspace = rig.try_open(options).unwrap();
    workspace.start();
    assert_eq!(read(&workspace, "one"), b"1");
    assert!(matches!(workspace.snapshot(None, None), Err(WorkspaceError::ReadOnly)));
    assert!(matches!(workspace.restore(version, &[], false), Err(WorkspaceError::ReadOnly)));
    assert!(matches!(workspace.untag("x"), Err(WorkspaceError::ReadOnly)));
    assert!(workspace.restore(version, &[], true).unwrap().changes.is_empty());
    workspace.close(true).unwrap();
    assert_eq!(rig.memory.snapshot(), before);
}

#[test]
fn selectors_name_versions() {
    let rig = Rig::new();
    let workspace = rig.open("state");
    write(&workspace, "f", b"1");
    let one = workspace.snapshot(Some("first".into()), Some("v1".into())).unwrap().record;
    std::thread::sleep(std::time::Duration::from_millis(5));
    write(&workspace, "f", b"2");
    let two = snapshot(&workspace);
    let select = |text: &str| workspace.select(text);
    assert_eq!(select("latest").unwrap(), two);
    assert_eq!(select("latest~1").unwrap(), one.id);
    assert_eq!(select("v1").unwrap(), one.id);
    assert_eq!(select(&two.to_string()).unwrap(), two);
    assert_eq!(select(&one.id.to_string()[..35]).is_ok(), one.id.to_string()[..35] != two.to_string()[..35]);
    assert!(matches!(select("latest~9"), Err(WorkspaceError::Version(VersionError::NoSuchVersion { .. }))));
    for text in ["", "v2", "018", "latest~", "latest~x", "zzzz", "5 ago", "9999999999999d ago", "2026-13-01T00:00"] {
        assert!(matches!(select(text), Err(WorkspaceError::Version(VersionError::NoSuchVersion { .. }))), "{text}");
    }
    let prefix: String = two.to_string().chars().take(6).collect();
    assert!(matches!(select(&prefix), Err(WorkspaceError::Version(VersionError::Ambiguous { .. }))));
    assert_eq!(select("0s ago").unwrap(), two);
    assert!(select("1h ago").is_err(), "nothing is that old");
    assert!(select("yesterday").is_err());
    assert_eq!(select("2999-01-01T00:00").unwrap(), two);
    assert_eq!(select("2999-01-01T00:00:00Z").unwrap(), two);
    assert_eq!(select("2999-01-01T00:00+02:00").unwrap(), two);
    workspace.untag("v1").unwrap();
    assert!(select("v1").is_err());
    assert!(matches!(workspace.untag("v1"), Err(WorkspaceError::NoSuchTag { .. })));
    assert!(matches!(workspace.snapshot(None, Some("a:b".into())), Err(WorkspaceError::BadTag { .. })));
    workspace.close(true).unwrap();
    let other = rig.open("other");
    assert!(other.select("v1").is_err(), "the tag is gone for everybody");
    assert_eq!(other.select("latest").unwrap(), two);
}

/// Every kind of change between two versions.
fn changed() -> (Rig, Arc<Workspace>, kura::base::ids::VersionId, kura::base::ids::VersionId) {
    let rig = Rig::new();
    let w = rig.open("state");
    for dir in ["d", "d/deep", "gone", "stays"] {
        mkdir(&w, dir);
    }
    for (path, content) in [("d/deep/a", "a"), ("gone/x", "x"), ("stays/s", "s"), ("t", "file"), ("m", "m"), ("c", "1")]
    {
        write(&w, path, content.as_bytes());
    }
    let tree = w.tree();
    tree.make(ino(&w, ""), b"link", &NewNode::Symlink(b"t".to_vec()), 0o777, ME, false, Wait::Yes).unwrap();
    tree.make(ino(&w, ""), b"pipe", &NewNode::Fifo, 0o600, ME, false, Wait::Yes).unwrap();
    tree.link(ino(&w, "c"), ino(&w, "stays"), b"c2", Wait::Yes).unwrap();
    tree.setxattr(ino(&w, "m"), b"user.k", b"v", XattrMode::Set, Wait::Yes).unwrap();
    write(&w, "big", &noise(1_500_000));
    let before = snapshot(&w);
    write(&w, "new", b"new");
    write(&w, "c", b"22");
    remove(&w, "gone/x");
    tree.rmdir(ino(&w, ""), b"gone", Wait::Yes).unwrap();
    remove(&w, "t");
    mkdir(&w, "t");
    write(&w, "t/inside", b"!");
    chmod(&w, "m", 0o600);
    tree.removexattr(ino(&w, "m"), b"user.k", Wait::Yes).unwrap();
    remove(&w, "link");
    remove(&w, "pipe");
    tree.rename((ino(&w, "d"), b"deep"), (ino(&w, ""), b"moved"), RenameMode::NoReplace, Wait::Yes).unwrap();
    tree.write(open(&w, "big"), 700_000, b"edited", 0, Wait::Yes).unwrap();
    tree.release(ino(&w, "big"), true);
    let after = snapshot(&w);
    (rig, w, before, after)
}

fn open(workspace: &Workspace, path: &str) -> kura::version::entry::Ino {
    let ino = ino(workspace, path);
    workspace.tree().open(ino, true, false, 0, Wait::Yes).unwrap();
    ino
}

#[test]
fn a_comparison_names_every_kind_of_change() {
    let (_rig, w, before, after) = changed();
    assert_eq!(
        letters(&w, Side::Version(before), Side::Version(after)),
        [
            "Added moved",
            "Added moved/a",
            "Added new",
            "Added t/inside",
            "Metadata m",
            "Modified big",
            "Modified c",
            "Modified stays/c2",
            "Removed d/deep",
            "Removed d/deep/a",
            "Removed gone",
            "Removed gone/x",
            "Removed link",
            "Removed pipe",
            "TypeChanged t",
        ]
    );
    assert!(letters(&w, Side::Version(after), Side::Live).is_empty());
    let below = w.diff(Side::Version(before), Side::Version(after), b"gone").unwrap();
    assert_eq!(below.len(), 2);
    write(&w, "live", b"!");
    assert_eq!(letters(&w, Side::Version(after), Side::Live), ["Added live"]);
}

#[test]
fn restoring_a_version_brings_everything_back_and_can_be_undone() {
    let (rig, w, before, after) = changed();
    let (then, now) = (recorded(&w, before), recorded(&w, after));
    let dry = w.restore(before, &[], true).unwrap();
    assert_eq!(live(&w), now, "a dry run changes nothing");
    let done = w.restore(before, &[], false).unwrap();
    assert_eq!(done.changes, dry.changes);
    assert!(done.changes.iter().any(|change| &*change.path == b"t" && change.kind == ChangeKind::TypeChanged));
    assert_eq!(live(&w), then);
    assert_eq!(recorded(&w, done.recorded.unwrap().record.id), then);
    assert_eq!(ino(&w, "c"), ino(&w, "stays/c2"), "hard links are links again");
    assert_eq!(w.tree().getxattr(ino(&w, "m"), b"user.k", Wait::Yes).unwrap(), b"v");
    assert!(w.restore(before, &[], false).unwrap().recorded.is_none(), "there is nothing left to restore");
    w.restore(after, &[], false).unwrap();
    assert_eq!(live(&w), now);
    w.close(true).unwrap();
    assert_eq!(live(&rig.open("fresh")), now, "and the store has all of it");
}

#[test]
fn restoring_paths_leaves_the_rest_alone() {
    let (_rig, w, before, _) = changed();
    let mut expected = live(&w);
    let then = recorded(&w, before);
    for path in ["d/deep", "d/deep/a", "gone", "gone/x"] {
        expected.insert(path.to_owned(), then[path].clone());
    }
    w.restore(before, &[b"d/deep/a".to_vec(), b"/gone/".to_vec()], false).unwrap();
    assert_eq!(live(&w), expected);
    let present = w.version(w.select("latest").unwrap()).unwrap();
    let id = |path: &[&[u8]]| w.find(&present, path).unwrap().unwrap().file_id;
    assert_ne!(id(&[b"d", b"deep", b"a"]), id(&[b"moved", b"a"]), "two living files are two files");
    let missing = w.restore(before, &[b"never/was".to_vec()], false);
    assert!(matches!(missing, Err(WorkspaceError::Version(VersionError::NoSuchPath { .. }))));
}

#[test]
fn a_hard_link_that_was_removed_joins_its_siblings_again() {
    let rig = Rig::new();
    let w = rig.open("state");
    write(&w, "a", b"shared");
    for name in [b"b", b"c"] {
        w.tree().link(ino(&w, "a"), ino(&w, ""), name, Wait::Yes).unwrap();
    }
    let version = snapshot(&w);
    remove(&w, "b");
    w.restore(version, &[], false).unwrap();
    assert_eq!((ino(&w, "a"), ino(&w, "b")), (ino(&w, "c"), ino(&w, "c")));
    assert_eq!(w.tree().getattr(ino(&w, "a"), Wait::Yes).unwrap().nlink, 3);
}

#[test]
fn reverting_undoes_one_version_only() {
    let rig = Rig::new();
    let w = rig.open("state");
    mkdir(&w, "d");
    for path in ["keep", "d/edit", "gone"] {
        write(&w, path, path.as_bytes());
    }
    snapshot(&w);
    write(&w, "d/edit", b"edited");
    write(&w, "d/added", b"added");
    remove(&w, "gone");
    chmod(&w, "keep", 0o600);
    let undone = snapshot(&w);
    write(&w, "later", b"later");
    snapshot(&w);
    let done = w.revert(undone).unwrap();
    assert!(done.conflicts.is_empty());
    let now = live(&w);
    assert_eq!(now.keys().map(String::as_str).collect::<Vec<_>>(), ["d", "d/edit", "gone", "keep", "later"]);
    assert_eq!(now["d/edit"].2, b"d/edit");
    assert_eq!(now["keep"].1, 0o644);
    assert!(done.recorded.is_some());
    assert!(w.revert(undone).unwrap().recorded.is_none(), "done already");
    let first = w.versions().unwrap().last().unwrap().id;
    assert!(w.revert(first).unwrap().changes.is_empty(), "the first version changed nothing");
}

#[test]
fn what_changed_again_is_kept_and_the_reverted_state_is_put_beside_it() {
    let rig = Rig::new();
    let w = rig.open("state");
    mkdir(&w, "d");
    mkdir(&w, "e");
    for path in ["d/edit", "d/gone", "e/x"] {
        write(&w, path, b"old");
    }
    snapshot(&w);
    write(&w, "d/edit", b"undo me");
    write(&w, "d/gone", b"undo me");
    write(&w, "d/added", b"undo me");
    remove(&w, "e/x");
    w.tree().rmdir(ino(&w, ""), b"e", Wait::Yes).unwrap();
    let undone = snapshot(&w);
    write(&w, "d/edit", b"mine");
    write(&w, "d/added", b"mine");
    remove(&w, "d/gone");
    write(&w, "e", b"a file now");
    let done = w.revert(undone).unwrap();
    let mut conflicts: Vec<(String, bool)> = done
        .conflicts
        .iter()
        .map(|conflict| (String::from_utf8_lossy(&conflict.path).into_owned(), conflict.beside.is_some()))
        .collect();
    conflicts.sort();
    let expected = [("d/added", false), ("d/edit", true), ("d/gone", true), ("e", true)];
    assert_eq!(conflicts, expected.map(|(path, beside)| (path.to_owned(), beside)));
    let now = live(&w);
    assert_eq!(
        (&now["d/edit"].2[..], &now["d/added"].2[..], &now["e"].2[..]),
        (&b"mine"[..], &b"mine"[..], &b"a file now"[..])
    );
    for conflict in done.conflicts.iter().filter_map(|conflict| conflict.beside.as_ref()) {
        let path = String::from_utf8_lossy(conflict).into_owned();
        let name = path.rsplit('/').next().unwrap();
        assert!(name.starts_with("conflict-20") && name.len() > 24, "{name}");
        match now[&path].0 {
            FileKind::Directory => assert_eq!(now[&format!("{path}/x")].2, b"old"),
            _ => assert_eq!(now[&path].2, b"old"),
        }
    }
}

#[test]
fn places_inside_one_another_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    std::os::unix::fs::symlink(&store, dir.path().join("alias")).unwrap();
    assert!(is_inside(&store, &store));
    assert!(is_inside(&dir.path().join("alias/state/new"), &store));
    assert!(is_inside(&store.join("a/b"), &dir.path().join("alias")));
    assert!(!is_inside(&dir.path().join("storeroom"), &store));
    assert!(!is_inside(dir.path(), &store));
}

#[test]
fn an_unknown_object_in_the_store_disturbs_nobody() {
    let rig = Rig::new();
    let sealed = rig.keys().seal(kura::crypto::Kind::App, b"x", b"x");
    for name in ["keys/not-a-slot", "epochs/00", "indexes/strange"] {
        rig.memory.put(&ObjectKey::new(name).unwrap(), &sealed, PutCondition::Always).unwrap();
    }
    rig.open("state").close(true).unwrap();
}
