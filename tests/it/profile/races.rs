//! Kills at every step, full disks, edits meanwhile, two installers at once.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kura::apps::profile::{Install, Place, ProfileError, Reply, Request, Take, run};
use kura::base::sim_disk::{Crash, Keep, SimDisk};
use kura::store::{Fault, Operation};
use kura::workspace::{Spot, Workspace, WorkspaceError};
use kura::worktree::{FileKind, Wait, WorkError};

use super::support::{Site, expect, files};
use crate::workspace_rig::{self as ws, ME, Rig};

fn open_on(rig: &Rig, sim: &SimDisk) -> Arc<Workspace> {
    let mut options = rig.options("state");
    options.state_dir = "/state".into();
    options.cache_dir = "/cache".into();
    options.disk = Arc::new(sim.clone());
    rig.try_open(options).unwrap()
}

#[test]
fn a_kill_in_any_step_leaves_the_state_before_or_after() {
    let old = [("a", "old"), ("gone", "old"), ("unrelated", "u")];
    let large = "large ".repeat(60_000);
    let new = [("a", "new"), ("d/e", &*large), ("unrelated", "u")];
    let cuts = [Crash::Kill, Crash::PowerCut { keep: Keep::None }, Crash::PowerCut { keep: Keep::Seeded }];
    for (seed, crash) in cuts.into_iter().enumerate() {
        let mut seen = [0, 0];
        for step in 0.. {
            let site = Site::new();
            let sim = SimDisk::new(seed as u64);
            let workspace = open_on(&site.rig, &sim);
            ws::write(&workspace, "unrelated", b"u");
            site.profile("p", "1", &old[..2]);
            run(&workspace, &Request::Install(site.want("p"))).unwrap();
            workspace.tree().sync().unwrap();
            site.profile("p", "2", &new[..2]);
            sim.crash_at(sim.steps() + step);
            let done = run(&workspace, &Request::Upgrade(site.want("p"))).is_ok();
            let is_over = done && !sim.has_crashed();
            drop(workspace);
            let workspace = open_on(&site.rig, &sim.reopen(crash));
            let what = format!("{crash:?} in step {step}");
            let found = files(&workspace);
            let is_after = found["a"] == "new";
            let expected = if is_after { expect(&new) } else { expect(&old) };
            let short = |text: &String| text.len() <= 64;
            let same = |(path, text): (&String, &String)| !short(text) || found.get(path) == Some(text);
            assert!(found.len() == expected.len() && expected.iter().all(same), "{what}: {found:?}");
            assert!(is_after || !done, "{what}: it was told to be done");
            let lock = String::from_utf8(ws::read(&workspace, kura::apps::profile::LOCK_PATH)).unwrap();
            assert!(lock.contains(if is_after { "\"version\": \"2\"" } else { "\"version\": \"1\"" }), "{what}");
            // It can be done again, and what was left behind harms nothing.
            run(&workspace, &Request::Upgrade(site.want("p"))).unwrap();
            assert_eq!(ws::read(&workspace, "d/e"), large.as_bytes(), "{what}");
            seen[usize::from(is_after)] += 1;
            if is_over {
                break;
            }
        }
        assert!(seen[0] > 2 && seen[1] > 1, "{crash:?}: {seen:?}");
    }
}

/// Every name with its content; of the files that say what is installed, that they are there.
fn shown(workspace: &Workspace) -> BTreeMap<String, Vec<u8>> {
    let blank = |(path, (_, _, content)): (String, (FileKind, u16, Vec<u8>))| {
        let content = if path.starts_with("profiles.") { Vec::new() } else { content };
        (path, content)
    };
    ws::live(workspace).into_iter().map(blank).collect()
}

#[test]
fn a_kill_of_a_first_install_a_rollback_or_an_uninstall_leaves_the_state_before_or_after() {
    let one = |site: &Site| site.profile("p", "1", &[("a", "one"), ("d/b", "one")]);
    let two = |site: &Site| site.profile("p", "2", &[("a", "two"), ("c", "two")]);
    let name = || "p".to_owned();
    let rollback = || Request::Rollback { name: name(), to: None, force: false, dry_run: false };
    // How many installs come before, and what is killed.
    for (before, operation) in [(0, "install"), (2, "rollback"), (1, "uninstall")] {
        let request = |site: &Site| match operation {
            "install" => Request::Install(site.want("p")),
            "rollback" => rollback(),
            _ => Request::Uninstall { name: name(), dry_run: false },
        };
        let (mut seen, mut ends): ([u32; 2], Option<_>) = ([0, 0], None);
        for step in (0..).map(|step: u64| step.checked_sub(1)) {
            let site = Site::new();
            let sim = SimDisk::new(7);
            let workspace = open_on(&site.rig, &sim);
            ws::write(&workspace, "unrelated", b"u");
            one(&site);
            if before > 0 {
                run(&workspace, &Request::Install(site.want("p"))).unwrap();
            }
            if before > 1 {
                two(&site);
                run(&workspace, &Request::Upgrade(site.want("p"))).unwrap();
            }
            // What was only written may be lost by a kill.
            ws::snapshot(&workspace);
            let old = shown(&workspace);
            // The first time round nothing is killed, to see what it comes to.
            let Some(step) = step else {
                run(&workspace, &request(&site)).unwrap();
                ends = Some((old, shown(&workspace)));
                continue;
            };
            sim.crash_at(sim.steps() + step);
            let done = run(&workspace, &request(&site)).is_ok();
            let is_over = done && !sim.has_crashed();
            drop(workspace);
            let found = shown(&open_on(&site.rig, &sim.reopen(Crash::Kill)));
            let (old, new) = ends.as_ref().unwrap();
            assert!(found == *new || found == *old && !done, "{operation}, step {step}: {:?}", found.keys());
            seen[usize::from(found == *new)] += 1;
            if is_over {
                break;
            }
        }
        assert!(seen[0] > 1 && seen[1] > 1, "{operation}: {seen:?}");
    }
}

#[test]
fn a_full_disk_leaves_the_state_before_and_the_install_can_be_repeated() {
    let mut refused = 0;
    for room in (0..400_000).step_by(40_009) {
        let site = Site::new();
        let sim = SimDisk::new(1);
        let workspace = open_on(&site.rig, &sim);
        site.profile("p", "1", &[("a", &"x1".repeat(30_000)), ("b", &"y2".repeat(30_000)), ("c", "z")]);
        sim.fail_writes_with(libc::ENOSPC, room);
        let outcome = run(&workspace, &Request::Install(site.want("p")));
        sim.allow_writes();
        let names = ws::live(&workspace).len();
        assert_eq!(names, if outcome.is_ok() { 5 } else { 0 }, "{room}: {outcome:?}");
        refused += usize::from(outcome.is_err());
        run(&workspace, &Request::Install(site.want("p"))).unwrap();
        assert_eq!(ws::live(&workspace).len(), 5);
    }
    assert!(refused > 1, "{refused}");
}

#[test]
fn what_changes_meanwhile_is_never_overwritten() {
    let site = Site::new();
    let workspace = &site.workspace;
    ws::write(workspace, "a", b"1");
    ws::write(workspace, "b", b"1");
    let put = |meanwhile: &dyn Fn()| {
        let mut change = workspace.begin_change().unwrap();
        assert!(matches!(change.look("a").unwrap(), Spot::Taken(_)));
        change.put("a", &mut Cursor::new(b"new"), 0o644, None).unwrap();
        change.put("d/new", &mut Cursor::new(b"new"), 0o644, None).unwrap();
        meanwhile();
        change.commit("test")
    };
    let overtaken = |outcome| matches!(outcome, Err(WorkspaceError::Work(WorkError::Changed { .. })));
    assert!(overtaken(put(&|| ws::write(workspace, "a", b"edited"))));
    assert!(overtaken(put(&|| ws::remove(workspace, "a"))));
    ws::write(workspace, "a", b"1");
    assert!(overtaken(put(&|| ws::mkdir(workspace, "d"))), "it was to be made");
    workspace.tree().rmdir(ws::ino(workspace, ""), b"d", Wait::Yes).unwrap();
    assert!(overtaken(put(&|| ws::write(workspace, "d", b"a file where a directory was to be"))));
    ws::remove(workspace, "d");
    // A program that has begun to write, and has not closed the file.
    let ino = ws::ino(workspace, "a");
    workspace.tree().open(ino, true, false, ME.uid, Wait::Yes).unwrap();
    workspace.tree().write(ino, 0, b"half", ME.uid, Wait::Yes).unwrap();
    assert!(overtaken(put(&|| ())), "what is being written is not in the version before");
    workspace.tree().release(ino, true);
    // What nothing rests on may change.
    put(&|| ws::write(workspace, "b", b"2")).unwrap();
    assert_eq!(files(workspace), expect(&[("a", "new"), ("b", "2"), ("d/new", "new")]));
}

#[test]
fn content_that_waits_for_its_name_outlives_versions_and_goes_without_one() {
    let site = Site::new();
    let workspace = &site.workspace;
    // Enough chunks for a list in pages.
    let large = ws::noise(24 << 20);
    let (small, inline) = (ws::noise(5000), b"inline".to_vec());
    {
        let mut change = workspace.begin_change().unwrap();
        for (path, content) in [("large", &large), ("small", &small), ("inline", &inline)] {
            change.put(path, &mut Cursor::new(content), 0o600, None).unwrap();
            ws::write(workspace, "other", path.as_bytes());
            ws::snapshot(workspace);
        }
        change.commit("all").unwrap().unwrap();
    }
    workspace.close(true).unwrap();
    let fresh = site.rig.open("fresh");
    for (path, content) in [("large", &large), ("small", &small), ("inline", &inline)] {
        assert!(ws::read(&fresh, path) == *content, "{path}");
    }
    // Given up, it is in no version and takes no room in the store.
    fresh.close(true).unwrap();
    let workspace = site.rig.open("third");
    let mut change = workspace.begin_change().unwrap();
    change.put("never", &mut Cursor::new(ws::noise(900_001)), 0o600, None).unwrap();
    drop(change);
    site.rig.uploads.take();
    ws::write(&workspace, "other", b"later");
    ws::snapshot(&workspace);
    workspace.close(true).unwrap();
    assert!(site.rig.uploads.take().1 < 100_000);
}

#[test]
fn a_store_that_fails_keeps_nothing_from_being_installed_whole() {
    let site = Site::new();
    site.profile("p", "1", &[("a", &"large ".repeat(100_000)), ("b", "2")]);
    site.workspace.flush(Some(Duration::from_secs(60))).unwrap();
    let puts = Arc::new(AtomicUsize::new(0));
    let counted = puts.clone();
    // The second object and all after it do not arrive.
    site.rig.set_fault(move |operation, _| match operation {
        Operation::Put | Operation::PutConditional if counted.fetch_add(1, Ordering::SeqCst) > 0 => Fault::Unreachable,
        _ => Fault::Pass,
    });
    site.install("p").unwrap();
    assert!(site.workspace.flush(Some(Duration::ZERO)).unwrap().unpublished_versions > 0);
    assert_eq!(site.drift("p"), []);
    site.rig.heal();
    assert_eq!(site.workspace.flush(Some(Duration::from_secs(60))).unwrap().unpublished_versions, 0);
    site.workspace.close(true).unwrap();
    let fresh = site.rig.open("elsewhere");
    assert_eq!(fresh.tree().base().index.counts.files, 4);
    assert_eq!(ws::read(&fresh, "b"), b"2");
}

#[test]
fn a_file_that_cannot_be_read_leaves_everything_as_it_was() {
    let site = Site::new();
    for dir in ["store", "store/p"] {
        ws::mkdir(&site.workspace, dir);
    }
    let large = ws::noise(900_001);
    ws::write(&site.workspace, "store/p/profile.json", br#"{"version": "1", "files": ["a", "b", "c"]}"#);
    ws::write(&site.workspace, "store/p/a", b"1");
    ws::write(&site.workspace, "store/p/b", &large);
    ws::write(&site.workspace, "store/p/c", b"3");
    site.workspace.close(true).unwrap();
    // Another machine has nothing of it in its cache.
    let mut options = site.rig.options("other");
    options.cache_dir = site.rig.dir.path().join("other-cache");
    let other = site.rig.try_open(options).unwrap();
    let request = Request::Install(Install {
        name: "p".to_owned(),
        from: Some(Place::Workspace("store".to_owned())),
        ..Install::default()
    });
    let before = other.versions().unwrap().len();
    assert_eq!(ws::read(&other, "store/p/a"), b"1");
    site.rig.set_fault(|operation, _| match operation {
        Operation::Get | Operation::GetRange => Fault::Unreachable,
        _ => Fault::Pass,
    });
    let error = run(&other, &request).unwrap_err();
    assert!(error.to_string().contains("`b`") || error.to_string().contains("b:"), "{error}");
    site.rig.heal();
    assert_eq!((other.versions().unwrap().len(), ws::live(&other).len()), (before, 6));
    run(&other, &request).unwrap();
    assert!(ws::read(&other, "b") == large);
}

#[test]
fn content_that_was_changed_meanwhile_is_not_installed() {
    let site = Site::new();
    let mut change = site.workspace.begin_change().unwrap();
    let wanted = crate::rig::sha256(b"expected");
    let put = change.put("a", &mut Cursor::new(b"something else"), 0o644, Some(wanted));
    assert!(matches!(put, Err(kura::workspace::PutError::Digest { .. })));
    assert!(change.is_empty());
}

#[test]
fn installers_at_the_same_time_follow_each_other() {
    let site = Site::new();
    let names: Vec<String> = (0..6).map(|number| format!("p{number}")).collect();
    for name in &names {
        site.profile(name, "1", &[(&format!("{name}.txt"), "own"), ("shared", name)]);
    }
    let outcomes: Vec<Result<_, ProfileError>> = std::thread::scope(|scope| {
        let start = |name: &String| {
            let wanted = site.want(name);
            let workspace = &site.workspace;
            scope.spawn(move || run(workspace, &Request::Install(wanted)))
        };
        let running: Vec<_> = names.iter().map(start).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // They want the same path: one gets it, and the others leave nothing behind.
    let winners: Vec<usize> = (0..6).filter(|number| outcomes[*number].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    let name = &names[winners[0]];
    assert_eq!(site.files(), expect(&[(&format!("{name}.txt"), "own"), ("shared", name)]));
    assert_eq!(site.lock().profiles.len(), 1);
}

/// Two machines do something without knowing of each other, and then have the same; the first has `a.txt` and `b.txt`
/// installed at first.
struct Two {
    site: Site,
    other: Arc<Workspace>,
}

const SOON: Option<Duration> = Some(Duration::from_secs(60));

impl Two {
    fn new(before: &[&str]) -> Self {
        let site = Site::new();
        ws::write(&site.workspace, "base", b"base");
        for name in before {
            site.profile(name, "1", &[(&format!("{name}.txt"), "1"), (&format!("{name}.more"), "1")]);
            site.install(name).unwrap();
        }
        site.workspace.flush(SOON).unwrap();
        let other = site.rig.open("other");
        Self { site, other }
    }

    fn join(&self) {
        self.site.workspace.flush(SOON).unwrap();
        self.other.sync().unwrap();
        self.other.flush(SOON).unwrap();
        self.site.workspace.sync().unwrap();
        assert_eq!(ws::live(&self.site.workspace), ws::live(&self.other));
    }

    /// Lock files and configurations that lie beside.
    fn beside(&self) -> usize {
        let is_it = |path: &&String| path.starts_with("conflict-") && path.contains("profiles");
        ws::live(&self.site.workspace).keys().filter(is_it).count()
    }

    fn list(&self) -> Vec<String> {
        match run(&self.site.workspace, &Request::List {}).unwrap() {
            Reply::List(list) => list.into_iter().map(|one| format!("{} {}", one.name, one.version)).collect(),
            reply => panic!("{reply:?}"),
        }
    }
}

#[test]
fn two_machines_that_install_at_once_lose_nothing_and_the_next_change_makes_one_lock_file() {
    for healed_by in ["install", "upgrade", "uninstall", "rollback", "resolve"] {
        let two = Two::new(&[]);
        let site = &two.site;
        site.profile("p0", "1", &[("x", "0"), ("shared", "0")]);
        site.profile("p1", "1", &[("y", "1"), ("shared", "1")]);
        site.install("p0").unwrap();
        run(&two.other, &Request::Install(site.want("p1"))).unwrap();
        two.join();
        assert_eq!(two.beside(), 2, "a lock file and a configuration");
        // Who only looks is told what is so, and writes nothing.
        let count = site.count();
        assert_eq!(two.list(), ["p0 1", "p1 1"]);
        let found = site.files();
        let aside = found.iter().find(|(path, text)| path.ends_with(".shared") && **text == "0").unwrap().0;
        assert_eq!((&found["x"][..], &found["y"][..], &found["shared"][..]), ("0", "1", "1"));
        assert_eq!(site.drift("p0"), [(aside.clone(), "sidecar".to_owned())]);
        assert_eq!(site.drift("p1"), []);
        assert_eq!((site.count(), two.beside()), (count, 2));
        let mut rest = vec!["p0 1", "p1 1"];
        match healed_by {
            // Nothing is new in it.
            "install" => drop(site.install("p1").unwrap()),
            "upgrade" => {
                site.profile("p0", "2", &[("x", "00")]);
                site.upgrade("p0").unwrap();
                rest[0] = "p0 2";
            }
            "uninstall" => {
                site.uninstall("p0").unwrap();
                rest.remove(0);
                assert_eq!(site.files().len(), 3, "also what lay beside is gone: {:?}", site.files());
            }
            "rollback" => {
                site.rollback("p1", None).unwrap();
                rest.remove(1);
            }
            _ => {
                site.run(&Request::Resolve { path: "shared".to_owned(), take: Take::Mine }).unwrap();
                assert_eq!(site.drift("p0"), []);
            }
        }
        assert_eq!(
            (two.beside(), two.list()),
            (0, rest.iter().map(|name| (*name).to_owned()).collect()),
            "{healed_by}"
        );
        let names: Vec<String> =
            site.lock().profiles.iter().map(|one| format!("{} {}", one.name, one.version)).collect();
        assert_eq!(names, rest, "{healed_by}");
        two.join();
        assert_eq!(two.beside(), 0);
    }
}

#[test]
fn what_one_machine_upgraded_or_uninstalled_stays_so_when_another_installed_meanwhile() {
    // Which of the two comes second must not matter.
    for swapped in [false, true] {
        let two = Two::new(&["old", "gone"]);
        let (site, other) = (&two.site, &two.other);
        let (one, another) = if swapped { (&**other, &*site.workspace) } else { (&*site.workspace, &**other) };
        site.profile("old", "2", &[("old.txt", "2"), ("old.more", "2")]);
        run(one, &Request::Upgrade(site.want("old"))).unwrap();
        run(one, &Request::Uninstall { name: "gone".to_owned(), dry_run: false }).unwrap();
        site.profile("new", "1", &[("new.txt", "1")]);
        run(another, &Request::Install(site.want("new"))).unwrap();
        two.join();
        assert_eq!(two.list(), ["new 1", "old 2"], "{swapped}");
        for name in ["new", "old"] {
            assert_eq!(site.drift(name), [], "{swapped}");
        }
        let files = [("base", "base"), ("new.txt", "1"), ("old.more", "2"), ("old.txt", "2")];
        let mut found = site.files();
        found.retain(|path, _| !path.starts_with("conflict-"));
        assert_eq!(found, expect(&files), "{swapped}");
        site.install("new").unwrap();
        assert_eq!((two.beside(), two.list().len()), (0, 2), "{swapped}");
    }
}

#[test]
fn a_profile_whose_files_a_user_removed_stays_installed_when_machines_join() {
    let two = Two::new(&["old", "other"]);
    for name in ["old.txt", "old.more"] {
        ws::remove(&two.site.workspace, name);
    }
    two.site.workspace.flush(SOON).unwrap();
    two.other.sync().unwrap();
    for (name, workspace) in [("a", &*two.site.workspace), ("b", &*two.other)] {
        two.site.profile(name, "1", &[(&format!("{name}.txt"), "1")]);
        run(workspace, &Request::Install(two.site.want(name))).unwrap();
    }
    two.join();
    assert_eq!((two.beside(), two.list()), (2, ["a 1", "b 1", "old 1", "other 1"].map(str::to_owned).to_vec()));
    two.site.uninstall("b").unwrap();
    assert_eq!((two.beside(), two.site.lock().profiles.len()), (0, 3));
}

#[test]
fn what_lies_beside_and_is_no_lock_file_stays() {
    let two = Two::new(&["p"]);
    let name = "conflict-20260102.030405.profiles.lock.json";
    for text in ["{", "{\"lockfileVersion\": 7, \"profiles\": []}", "mine"] {
        ws::write(&two.site.workspace, name, text.as_bytes());
        two.site.install("p").unwrap();
        assert_eq!((two.list(), &two.site.lock().profiles[0].name[..]), (vec!["p 1".to_owned()], "p"));
        assert_eq!(ws::read(&two.site.workspace, name), text.as_bytes());
    }
}

#[test]
fn a_profile_that_lay_in_a_lock_file_beside_is_rolled_back_and_not_taken_away() {
    // One of the two lies beside when it is upgraded.
    for name in ["p", "q"] {
        let two = Two::new(&[]);
        let site = &two.site;
        for (name, workspace) in [("p", &*site.workspace), ("q", &*two.other)] {
            site.profile(name, "1", &[(&format!("{name}.txt"), "1")]);
            run(workspace, &Request::Install(site.want(name))).unwrap();
        }
        two.join();
        assert!(two.beside() > 0 && site.lock().profiles.len() == 1, "{name}");
        let before = two.list();
        assert_eq!(before, ["p 1", "q 1"]);
        site.profile(name, "2", &[(&format!("{name}.txt"), "2")]);
        site.upgrade(name).unwrap();
        assert_eq!(two.beside(), 0);
        site.rollback(name, None).unwrap();
        assert_eq!(two.list(), before, "{name}");
        assert_eq!(ws::read(&site.workspace, &format!("{name}.txt")), b"1");
        assert_eq!(site.drift(name), []);
    }
}
