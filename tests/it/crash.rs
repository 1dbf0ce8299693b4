//! A crash at every step of the disk: what was promised is there, and what is there is whole.

use std::collections::BTreeMap;

use kura::base::sim_disk::{Crash, Keep, SimDisk};
use kura::version::entry::Ino;
use kura::worktree::{Attr, Caller, Changes, FileKind, Limits, NewNode, Reason, RenameMode, Result, Wait, Worktree};

use crate::rig::{Rig, Seens, live};

const CALLER: Caller = Caller { uid: 0, gid: 0 };

/// What a scenario was promised so far.
#[derive(Default)]
struct Promises {
    /// Path to the contents it may have after a kill; `None` is that there is no such name. The last
    /// is what the tree showed.
    named: BTreeMap<String, Vec<Option<Vec<u8>>>>,
    /// The same after a power cut.
    durable: BTreeMap<String, Vec<Option<Vec<u8>>>>,
    /// Contents that versions may hold.
    whole: BTreeMap<String, Vec<Vec<u8>>>,
}

/// A tree, and what it promised.
struct Work<'a> {
    tree: &'a Worktree,
    promises: &'a mut Promises,
}

type Scenario = fn(&mut Work<'_>) -> Result<()>;

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

impl Work<'_> {
    fn find(&self, path: &str) -> Result<Ino> {
        path.split('/').try_fold(Ino::ROOT, |at, name| Ok(self.tree.lookup(at, name.as_bytes(), Wait::Yes)?.ino))
    }

    fn parent<'p>(&self, path: &'p str) -> Result<(Ino, &'p [u8])> {
        match path.rsplit_once('/') {
            Some((dir, name)) => Ok((self.find(dir)?, name.as_bytes())),
            None => Ok((Ino::ROOT, path.as_bytes())),
        }
    }

    fn make(&mut self, path: &str, node: &NewNode) -> Result<Attr> {
        let open = *node == NewNode::File;
        let (dir, name) = self.parent(path)?;
        // Until it returns, it may or may not have happened.
        self.may_be(path, Some(Vec::new()));
        let attr = self.tree.make(dir, name, node, 0o644, CALLER, open, Wait::Yes)?;
        self.promises.named.insert(path.to_owned(), vec![Some(Vec::new())]);
        Ok(attr)
    }

    fn may_be(&mut self, path: &str, content: Option<Vec<u8>>) {
        for promised in [&mut self.promises.named, &mut self.promises.durable] {
            promised.entry(path.to_owned()).or_insert_with(|| vec![None]).push(content.clone());
        }
    }

    /// The content may be anything of these from now on, published or not.
    fn write(&mut self, path: &str, ino: Ino, offset: u64, data: &[u8]) -> Result<()> {
        self.tree.write(ino, offset, data, 0, Wait::Yes)?;
        // Unsynced bytes: nothing but the name is promised.
        self.promises.named.remove(path);
        self.promises.durable.remove(path);
        Ok(())
    }

    /// From now on the file holds `content`, whatever happens; versions may hold it, too.
    fn fsync(&mut self, path: &str, ino: Ino, content: &[u8]) -> Result<()> {
        self.promises.whole.entry(path.to_owned()).or_default().push(content.to_vec());
        self.tree.fsync(ino, Wait::Yes)?;
        self.promises.named.insert(path.to_owned(), vec![Some(content.to_vec())]);
        self.promises.durable.insert(path.to_owned(), vec![Some(content.to_vec())]);
        // It made everything before it durable as well.
        let named: Vec<_> = self.promises.named.iter().map(|(path, bytes)| (path.clone(), bytes.clone())).collect();
        self.promises.durable.extend(named);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let ((from_dir, from_name), (to_dir, to_name)) = (self.parent(from)?, self.parent(to)?);
        let moved = self.promises.named.get(from).and_then(|bytes| bytes.last().cloned()).flatten();
        self.promises.whole.entry(to.to_owned()).or_default().extend(moved.clone());
        self.may_be(from, None);
        self.may_be(to, moved.clone());
        self.tree.rename((from_dir, from_name), (to_dir, to_name), RenameMode::Replace, Wait::Yes)?;
        self.promises.named.insert(from.to_owned(), vec![None]);
        self.promises.named.insert(to.to_owned(), vec![moved]);
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<()> {
        self.tree.checkpoint(&Reason::automatic())?;
        Ok(())
    }
}

fn create_and_fsync(work: &mut Work<'_>) -> Result<()> {
    for (number, len) in [0, 1, 256, 257, 5000].into_iter().enumerate() {
        let path = format!("file{number}");
        let ino = work.make(&path, &NewNode::File)?.ino;
        let content = bytes(number as u8, len);
        work.write(&path, ino, 0, &content)?;
        work.fsync(&path, ino, &content)?;
        work.tree.release(ino, true);
    }
    work.checkpoint()
}

/// As most programs save: what was closed is promised after a kill.
fn close_without_fsync(work: &mut Work<'_>) -> Result<()> {
    for (number, len) in [0, 1, 300, 5000, 700_000].into_iter().enumerate() {
        let path = format!("file{number}");
        let ino = work.make(&path, &NewNode::File)?.ino;
        let content = bytes(number as u8, len);
        work.write(&path, ino, 0, &content)?;
        work.promises.whole.entry(path.clone()).or_default().push(content.clone());
        work.tree.log(ino, Wait::Yes)?;
        work.promises.named.insert(path, vec![Some(content)]);
        work.tree.release(ino, true);
        match number {
            1 => work.tree.absorb_all()?,
            2 => work.checkpoint()?,
            _ => {}
        }
    }
    work.tree.absorb_all()
}

fn save_by_rename(work: &mut Work<'_>) -> Result<()> {
    for round in 0..4 {
        let content = bytes(round, 700);
        let ino = work.make("temporary", &NewNode::File)?.ino;
        work.write("temporary", ino, 0, &content)?;
        work.fsync("temporary", ino, &content)?;
        work.tree.release(ino, true);
        work.rename("temporary", "document")?;
        if round == 2 {
            work.checkpoint()?;
        }
    }
    Ok(())
}

/// As editors that do not sync.
fn save_by_rename_without_fsync(work: &mut Work<'_>) -> Result<()> {
    let ino = work.make("document", &NewNode::File)?.ino;
    work.fsync("document", ino, b"")?;
    for round in 0..4 {
        let content = bytes(round, 900);
        let ino = work.make("temporary", &NewNode::File)?.ino;
        work.write("temporary", ino, 0, &content)?;
        work.tree.release(ino, true);
        work.promises.whole.entry("temporary".into()).or_default().push(content.clone());
        work.promises.whole.entry("document".into()).or_default().push(content.clone());
        // Old or new, never empty or torn.
        let old = work.promises.named["document"].clone();
        work.promises.named.remove("temporary");
        work.may_be("document", Some(content.clone()));
        work.tree.rename((Ino::ROOT, b"temporary"), (Ino::ROOT, b"document"), RenameMode::Replace, Wait::Yes)?;
        work.promises.named.insert("document".into(), vec![Some(content)]);
        assert!(!old.is_empty());
        if round == 1 {
            work.checkpoint()?;
        }
    }
    Ok(())
}

fn append_and_fsync(work: &mut Work<'_>) -> Result<()> {
    let ino = work.make("log", &NewNode::File)?.ino;
    let mut content = Vec::new();
    for round in 0..8 {
        let line = bytes(round, 90);
        work.write("log", ino, content.len() as u64, &line)?;
        content.extend(line);
        // A half-done fsync may have published what is in the journal already.
        work.fsync("log", ino, &content)?;
        match round {
            2 => work.checkpoint()?,
            4 => work.tree.absorb_all()?,
            5 => {
                work.write("log", ino, 0, b"draft")?;
                content[..5].copy_from_slice(b"draft");
                work.checkpoint()?;
            }
            _ => {}
        }
    }
    work.tree.release(ino, true);
    Ok(())
}

/// Syncs so often that zeros stand ahead of the journal's end, also when a checkpoint begins the next segment.
fn log_that_is_synced_all_the_time(work: &mut Work<'_>) -> Result<()> {
    let ino = work.make("log", &NewNode::File)?.ino;
    let mut content = Vec::new();
    for round in 0..32 {
        let line = bytes(round, 30);
        work.write("log", ino, content.len() as u64, &line)?;
        content.extend(line);
        work.fsync("log", ino, &content)?;
        if round % 12 == 11 {
            work.make(&format!("dir{round}"), &NewNode::Directory)?;
            work.checkpoint()?;
        }
    }
    work.tree.release(ino, true);
    Ok(())
}

fn truncate(work: &mut Work<'_>) -> Result<()> {
    let ino = work.make("file", &NewNode::File)?.ino;
    let mut content = bytes(1, 3000);
    work.write("file", ino, 0, &content)?;
    work.fsync("file", ino, &content)?;
    work.tree.release(ino, true);
    work.checkpoint()?;
    for size in [1000_usize, 2000, 10] {
        content.resize(size, 0);
        work.promises.whole.entry("file".into()).or_default().push(content.clone());
        work.may_be("file", Some(content.clone()));
        let changes = Changes { size: Some(size as u64), ..Changes::default() };
        work.tree.setattr(ino, &changes, 0, Wait::Yes)?;
        work.promises.named.insert("file".into(), vec![Some(content.clone())]);
    }
    work.fsync("file", ino, &content)?;
    work.checkpoint()
}

fn links_and_directories(work: &mut Work<'_>) -> Result<()> {
    work.make("dir", &NewNode::Directory)?;
    work.make("dir/sub", &NewNode::Directory)?;
    let ino = work.make("dir/sub/file", &NewNode::File)?.ino;
    let content = bytes(3, 400);
    work.write("dir/sub/file", ino, 0, &content)?;
    work.fsync("dir/sub/file", ino, &content)?;
    work.tree.release(ino, true);
    work.promises.whole.entry("link".into()).or_default().push(content.clone());
    work.may_be("link", Some(content.clone()));
    work.tree.link(ino, Ino::ROOT, b"link", Wait::Yes)?;
    work.promises.named.insert("link".into(), vec![Some(content.clone())]);
    work.checkpoint()?;
    for path in ["dir/sub/file", "moved/file"] {
        work.promises.whole.entry(path.into()).or_default().push(content.clone());
    }
    for path in ["dir/sub/file", "dir/sub"] {
        work.promises.named.remove(path);
        work.promises.durable.remove(path);
    }
    let dir = work.find("dir")?;
    work.tree.rename((dir, b"sub"), (Ino::ROOT, b"moved"), RenameMode::Replace, Wait::Yes)?;
    work.promises.named.insert("moved/file".into(), vec![Some(content.clone())]);
    work.may_be("link", None);
    work.tree.unlink(Ino::ROOT, b"link", Wait::Yes)?;
    work.promises.named.insert("link".into(), vec![None]);
    work.checkpoint()?;
    work.fsync("moved/file", ino, &content)
}

fn staged_draft(work: &mut Work<'_>) -> Result<()> {
    let ino = work.make("large", &NewNode::File)?.ino;
    let mut content = bytes(9, 9 << 20);
    work.write("large", ino, 0, &content)?;
    work.tree.log_drafts()?;
    work.write("large", ino, 5_000_000, b"after staging")?;
    content[5_000_000..5_000_013].copy_from_slice(b"after staging");
    work.checkpoint()?;
    work.fsync("large", ino, &content)?;
    work.tree.release(ino, true);
    work.checkpoint()
}

/// For a scenario that takes long: fewer ways to go down, and every third step of each.
fn at_every_third_step(scenario: Scenario) {
    for (seed, crash) in crashes().into_iter().take(3) {
        let mut step = seed;
        while crash_once(scenario, seed, crash, step) {
            step += 3;
        }
    }
}

fn crashes() -> Vec<(u64, Crash)> {
    let mut crashes = vec![(0, Crash::Kill), (0, Crash::PowerCut { keep: Keep::None })];
    crashes.extend((1..5).map(|seed| (seed, Crash::PowerCut { keep: Keep::Seeded })));
    crashes
}

fn at_every_step(scenario: Scenario) {
    for (seed, crash) in crashes() {
        let mut step = 0;
        // Each round crashes one step later, until the scenario ends before the crash comes.
        while crash_once(scenario, seed, crash, step) {
            step += 1;
        }
        assert!(step > 5, "the scenario has steps");
    }
}

/// Runs the scenario up to the crash and checks what is left; false when it ended first.
fn crash_once(scenario: Scenario, seed: u64, crash: Crash, step: u64) -> bool {
    let (rig, sim) = Rig::new(seed);
    let tree = rig.open().unwrap();
    let mut promises = Promises::default();
    sim.crash_at(sim.steps() + step);
    let outcome = scenario(&mut Work { tree: &tree, promises: &mut promises });
    let crashed = sim.has_crashed();
    if !crashed {
        outcome.unwrap();
    }
    let what = format!("{crash:?} (seed {seed}) in step {step}");
    check(&rig, sim.reopen(crash), &promises, crash, &what);
    crashed
}

fn check(rig: &Rig, sim: SimDisk, promises: &Promises, crash: Crash, what: &str) {
    let rig = rig.after(sim.clone());
    let tree = rig.open().unwrap_or_else(|error| panic!("{what}: {error}"));
    let first = live(&tree);
    let promised = if crash == Crash::Kill { &promises.named } else { &promises.durable };
    for (path, contents) in promised {
        let found = first.get(path).map(|seen| seen.bytes.clone());
        assert!(
            contents.contains(&found),
            "{what}: {path} is {:?}, should be one of {:?}",
            found.map(|bytes| bytes.len()),
            contents.iter().map(|bytes| bytes.as_ref().map(Vec::len)).collect::<Vec<_>>()
        );
    }
    whole(&rig.version(&tree.base()), promises, what);
    drop(tree);
    // A second recovery finds the same.
    let rig = rig.after(sim.reopen(Crash::Kill));
    let tree = rig.open().unwrap_or_else(|error| panic!("{what}, again: {error}"));
    let second = live(&tree);
    assert!(first == second, "{what}: the second recovery differs");
    // The tree can be worked with, and a version of it holds no torn file.
    tree.checkpoint(&Reason::automatic()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut versioned = rig.version(&tree.base());
    whole(&versioned, promises, what);
    let attr = tree.make(Ino::ROOT, b"new", &NewNode::File, 0o600, CALLER, true, Wait::Yes).unwrap();
    tree.write(attr.ino, 0, b"more work", 0, Wait::Yes).unwrap();
    tree.fsync(attr.ino, Wait::Yes).unwrap();
    tree.release(attr.ino, true);
    tree.checkpoint(&Reason::automatic()).unwrap();
    versioned = rig.version(&tree.base());
    assert_eq!(versioned["new"].bytes, b"more work", "{what}");
}

fn whole(version: &Seens, promises: &Promises, what: &str) {
    for (path, seen) in version.iter().filter(|(_, seen)| seen.kind == FileKind::File) {
        let whole = promises.whole.get(path).is_some_and(|contents| contents.contains(&seen.bytes));
        assert!(whole, "{what}: a version holds {} bytes of {path}, which never were its content", seen.bytes.len());
    }
}

#[test]
fn created_and_fsynced_files_survive() {
    at_every_step(create_and_fsync);
}

#[test]
fn closed_files_survive_a_kill() {
    at_every_step(close_without_fsync);
}

/// What the next version holds of a file that was written, and of which so many of `opened` openings were closed when
/// a kill came, `then` something.
fn versioned_after(opened: u32, closed: u32, then: impl Fn(&Worktree)) -> Option<Vec<u8>> {
    let (rig, sim) = Rig::new(3);
    let tree = rig.open().unwrap();
    let ino = tree.make(Ino::ROOT, b"file", &NewNode::File, 0o600, CALLER, true, Wait::Yes).unwrap().ino;
    for _ in 1..opened {
        tree.open(ino, true, false, 0, Wait::Yes).unwrap();
    }
    tree.write(ino, 0, b"written", 0, Wait::Yes).unwrap();
    // The kernel tells of a close when any copy of a descriptor goes, and once more when the last has gone.
    tree.log(ino, Wait::Yes).unwrap();
    (0..closed).for_each(|_| tree.release(ino, true));
    then(&tree);
    let rig = rig.after(sim.reopen(Crash::Kill));
    let tree = rig.open().unwrap();
    assert!(live(&tree)["file"].bytes.starts_with(b"written"));
    tree.checkpoint(&Reason::automatic()).unwrap();
    rig.version(&tree.base()).get("file").map(|seen| seen.bytes.clone())
}

#[test]
fn what_was_closed_before_a_kill_is_in_the_next_version() {
    // Whoever absorbs does this as soon as there is something.
    assert_eq!(versioned_after(1, 1, Worktree::note_closed).unwrap(), b"written");
    assert_eq!(versioned_after(2, 2, Worktree::note_closed).unwrap(), b"written");
}

#[test]
fn what_was_closed_before_another_change_and_a_kill_is_in_the_next_version() {
    let ino = |tree: &Worktree| tree.lookup(Ino::ROOT, b"file", Wait::Yes).unwrap().ino;
    let changes: [&dyn Fn(&Worktree); 4] = [
        &|tree| {
            tree.make(Ino::ROOT, b"new", &NewNode::File, 0o600, CALLER, true, Wait::Yes).unwrap();
        },
        &|tree| {
            tree.link(ino(tree), Ino::ROOT, b"new", Wait::Yes).unwrap();
        },
        &|tree| {
            let ino = ino(tree);
            tree.open(ino, true, false, 0, Wait::Yes).unwrap();
            tree.write(ino, 7, b" and half of", 0, Wait::Yes).unwrap();
            tree.log(ino, Wait::Yes).unwrap();
        },
        &|tree| tree.sync().unwrap(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert_eq!(versioned_after(1, 1, change).as_deref(), Some(&b"written"[..]), "change {number}");
    }
}

#[test]
fn what_was_closed_is_in_the_next_version_though_more_was_written_to_it_than_is_journaled_before_a_kill() {
    let then = |tree: &Worktree| {
        let ino = tree.lookup(Ino::ROOT, b"file", Wait::Yes).unwrap().ino;
        tree.open(ino, true, false, 0, Wait::Yes).unwrap();
        tree.write(ino, 7, &vec![1; 9 << 20], 0, Wait::Yes).unwrap();
        tree.log(ino, Wait::Yes).unwrap();
        tree.release(ino, true);
        tree.make(Ino::ROOT, b"new", &NewNode::Directory, 0o700, CALLER, false, Wait::Yes).unwrap();
    };
    assert_eq!(versioned_after(1, 1, then).as_deref(), Some(&b"written"[..]));
}

/// A checkpoint may come between a close and its record, and fail.
#[test]
fn what_was_closed_and_met_a_checkpoint_is_in_the_next_version_after_a_kill() {
    for fails in [false, true] {
        let (rig, sim) = Rig::new(3);
        let tree = rig.open().unwrap();
        let make = |name: &[u8]| {
            let ino = tree.make(Ino::ROOT, name, &NewNode::File, 0o600, CALLER, true, Wait::Yes).unwrap().ino;
            tree.write(ino, 0, name, 0, Wait::Yes).unwrap();
            tree.log(ino, Wait::Yes).unwrap();
            tree.release(ino, true);
        };
        make(b"one");
        make(b"two");
        if fails {
            sim.fail_writes_with(libc::ENOSPC, 100);
        }
        assert_eq!(tree.checkpoint(&Reason::automatic()).is_err(), fails);
        sim.allow_writes();
        make(b"three");
        tree.note_closed();
        let rig = rig.after(sim.reopen(Crash::Kill));
        let tree = rig.open().unwrap();
        tree.checkpoint(&Reason::automatic()).unwrap();
        let versioned = rig.version(&tree.base());
        for name in ["one", "two", "three"] {
            assert_eq!(versioned[name].bytes, name.as_bytes(), "the checkpoint failed: {fails}");
        }
    }
}

/// The record of a close is written by the next change or, soon, by whoever absorbs.
#[test]
fn what_was_closed_in_the_instant_before_a_kill_is_a_draft_with_all_its_bytes() {
    assert_eq!(versioned_after(1, 1, |_| {}), None);
}

#[test]
fn what_was_open_when_a_kill_came_is_in_no_version() {
    assert_eq!(versioned_after(1, 0, |_| {}), None, "a child of the writer has closed its copy");
    assert_eq!(versioned_after(2, 1, Worktree::note_closed), None);
}

#[test]
fn files_saved_by_rename_are_old_or_new() {
    at_every_step(save_by_rename);
}

#[test]
fn files_saved_by_rename_without_fsync_are_old_or_new() {
    at_every_step(save_by_rename_without_fsync);
}

#[test]
fn appended_lines_survive_once_fsynced() {
    at_every_step(append_and_fsync);
    at_every_step(log_that_is_synced_all_the_time);
}

#[test]
fn truncated_files_are_as_before_or_after() {
    at_every_step(truncate);
}

#[test]
fn links_and_moved_directories_survive() {
    at_every_step(links_and_directories);
}

#[test]
fn large_staged_draft_survives() {
    at_every_third_step(staged_draft);
}

#[test]
fn full_disk_refuses_and_leaves_the_tree_as_it_was() {
    let (mut rig, sim) = Rig::new(1);
    rig.limits = Limits { disk_reserve_bytes: 0, ..Limits::default() };
    let tree = rig.open().unwrap();
    let mut promises = Promises::default();
    create_and_fsync(&mut Work { tree: &tree, promises: &mut promises }).unwrap();
    for after_bytes in (0..3000).step_by(37) {
        sim.fail_writes_with(libc::ENOSPC, after_bytes);
        let name = format!("full{after_bytes}");
        let before = live(&tree);
        let made = tree.make(Ino::ROOT, name.as_bytes(), &NewNode::Directory, 0o700, CALLER, false, Wait::Yes);
        if made.is_err() {
            assert!(before == live(&tree), "a refused change changes nothing");
        }
        let file = tree.lookup(Ino::ROOT, b"file1", Wait::Yes).unwrap().ino;
        tree.open(file, true, false, 0, Wait::Yes).unwrap();
        tree.write(file, 0, &bytes(4, 400), 0, Wait::Yes).unwrap();
        let synced = tree.fsync(file, Wait::Yes);
        tree.release(file, true);
        // Whether it succeeds depends on the room that is left; nothing may be lost in either case.
        let recorded = tree.checkpoint(&Reason::automatic());
        sim.allow_writes();
        assert!(tree.failure().is_none(), "a full disk is not the end");
        assert!(after_bytes > 200 || synced.is_err() || recorded.is_err(), "the disk was full");
        tree.fsync(file, Wait::Yes).unwrap();
    }
    tree.checkpoint(&Reason::automatic()).unwrap();
    let before = live(&tree);
    drop(tree);
    let rig = rig.after(sim.reopen(Crash::PowerCut { keep: Keep::None }));
    let after = live(&rig.open().unwrap());
    assert!(before == after, "what was recorded is there");
}

#[test]
fn failed_journal_makes_the_tree_read_only_until_reopened() {
    let (rig, sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    let attr = tree.make(Ino::ROOT, b"file", &NewNode::File, 0o600, CALLER, true, Wait::Yes).unwrap();
    tree.write(attr.ino, 0, b"content", 0, Wait::Yes).unwrap();
    tree.fsync(attr.ino, Wait::Yes).unwrap();
    sim.fail_writes_with(libc::EIO, 0);
    tree.make(Ino::ROOT, b"other", &NewNode::Directory, 0o700, CALLER, false, Wait::Yes).unwrap_err();
    sim.allow_writes();
    assert!(tree.failure().is_some());
    let refused = tree.make(Ino::ROOT, b"other", &NewNode::Directory, 0o700, CALLER, false, Wait::Yes);
    assert_eq!(crate::rig::word(&refused.unwrap_err()), "ReadOnly");
    assert_eq!(tree.read(attr.ino, 0, 100, Wait::Yes).unwrap(), b"content");
    drop(tree);
    let rig = rig.after(sim.reopen(Crash::Kill));
    let tree = rig.open().unwrap();
    assert_eq!(live(&tree)["file"].bytes, b"content");
    tree.make(Ino::ROOT, b"other", &NewNode::Directory, 0o700, CALLER, false, Wait::Yes).unwrap();
}
