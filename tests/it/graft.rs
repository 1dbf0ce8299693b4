//! Changes of many names at once: all or nothing, whatever crashes or fails on the way.

use std::collections::BTreeMap;

use kura::base::ids::FileId;
use kura::base::sim_disk::{Crash, Keep, SimDisk};
use kura::version::entry::{Body, Content, Entry, FileBody, Ino, Xattrs};
use kura::version::tree::TreeRef;
use kura::worktree::{Caller, FileKind, GraftOp, NewNode, Reason, Wait, WorkError, Worktree};

use crate::rig::{Rig, live, sha256};

const ME: Caller = Caller { uid: 0, gid: 0 };

/// What a user sees of a path: kind, mode, number of names, extended attributes, content.
type Shown = BTreeMap<String, (FileKind, u16, u32, Xattrs, Vec<u8>)>;

fn shown(tree: &Worktree) -> Shown {
    let of =
        |(path, seen): (String, crate::rig::Seen)| (path, (seen.kind, seen.mode, seen.nlink, seen.xattrs, seen.bytes));
    live(tree).into_iter().map(of).collect()
}

fn make(tree: &Worktree, dir: Ino, name: &str, content: &[u8]) {
    let ino = tree.make(dir, name.as_bytes(), &NewNode::File, 0o600, ME, true, Wait::Yes).unwrap().ino;
    tree.write(ino, 0, content, 0, Wait::Yes).unwrap();
    tree.release(ino, true);
    tree.forget(ino, 1);
}

/// A tree with old names, half of them in a version.
fn prepare(tree: &Worktree) {
    for dir in ["a", "b"] {
        let ino = tree.make(Ino::ROOT, dir.as_bytes(), &NewNode::Directory, 0o755, ME, false, Wait::Yes).unwrap().ino;
        for number in 0..200 {
            make(tree, ino, &format!("f{number}"), format!("old {dir} {number}").as_bytes());
        }
        if dir == "a" {
            tree.checkpoint(&Reason::automatic()).unwrap();
        }
    }
    tree.absorb_all().unwrap();
    tree.sync().unwrap();
}

fn path(text: &str) -> Vec<Vec<u8>> {
    text.split('/').map(|name| name.as_bytes().to_vec()).collect()
}

fn entry(ino: u64, body: Body, xattrs: Xattrs) -> Box<Entry> {
    let time = Default::default();
    let (ino, file_id) = (Ino(ino), FileId::random());
    Box::new(Entry { ino, file_id, mode: 0o640, uid: 1, gid: 2, atime: time, mtime: time, ctime: time, xattrs, body })
}

fn file(ino: u64, text: &str) -> Box<Entry> {
    let bytes = text.as_bytes().to_vec();
    let body = FileBody { size: bytes.len() as u64, sha256: Some(sha256(&bytes)), content: Content::Inline(bytes) };
    entry(ino, Body::File(body), Xattrs::from([(b"user.new".to_vec(), b"yes".to_vec())]))
}

fn directory() -> Box<Entry> {
    entry(9, Body::Directory { names: TreeRef::default(), subdirs: 0 }, Xattrs::new())
}

/// More records than fit into one frame, that rest on each other.
fn changes() -> Vec<GraftOp> {
    let mut ops: Vec<GraftOp> =
        (0..200).map(|number| GraftOp::Remove { path: path(&format!("a/f{number}")) }).collect();
    ops.push(GraftOp::Remove { path: path("a") });
    let put = |at: &str, entry, linked| GraftOp::Put { path: path(at), entry, linked };
    ops.push(put("a", file(5, "a file where a directory was"), false));
    ops.push(put("new", directory(), false));
    ops.push(put("new/deep", directory(), false));
    ops.extend((0..150).map(|number| put(&format!("new/deep/g{number}"), file(100 + number, "new"), false)));
    ops.extend((0..150).map(|number| put(&format!("b/f{number}"), file(500 + number, "replaced"), false)));
    ops.push(put("new/one", file(77, "two names"), true));
    ops.push(put("b/other", file(77, "two names"), true));
    ops.push(GraftOp::Attributes { path: path("b/f199"), entry: file(1, "only its attributes") });
    ops.push(GraftOp::Attributes { path: path("new"), entry: directory() });
    // Nothing comes of these.
    ops.push(GraftOp::Remove { path: path("b") });
    ops.push(GraftOp::Remove { path: path("nowhere/f") });
    ops.push(put("a/below-a-file", file(6, "x"), false));
    ops
}

fn expected() -> (Shown, Shown) {
    let (rig, _) = Rig::new(0);
    let tree = rig.open().unwrap();
    prepare(&tree);
    let before = shown(&tree);
    tree.graft(&changes()).unwrap();
    (before, shown(&tree))
}

#[test]
fn many_changes_rest_on_each_other() {
    let (before, after) = expected();
    assert_eq!(before.len(), 403);
    assert_eq!(after["a"].4, b"a file where a directory was");
    assert_eq!(after["new/deep/g149"].4, b"new");
    assert_eq!(after["b/f149"].4, b"replaced");
    assert_eq!((after["new/one"].2, &after["b/other"].4[..]), (2, &b"two names"[..]));
    assert_eq!((after["b/f199"].1, &after["b/f199"].4[..]), (0o640, &b"old b 199"[..]));
    assert_eq!(after["b/f199"].3.len(), 1);
    assert_eq!(after.len(), 1 + 1 + 2 + 150 + 1 + 200 + 1 + 1);
}

#[test]
fn a_crash_in_any_step_leaves_all_or_nothing() {
    let (before, after) = expected();
    let cuts = (1..4).map(|seed| (seed, Crash::PowerCut { keep: Keep::Seeded }));
    let crashes = [(0, Crash::Kill), (0, Crash::PowerCut { keep: Keep::None })].into_iter().chain(cuts);
    for (seed, crash) in crashes {
        let mut seen = [0, 0];
        for step in 0.. {
            let (rig, sim) = Rig::new(seed);
            let tree = rig.open().unwrap();
            prepare(&tree);
            sim.crash_at(sim.steps() + step);
            let done = tree.graft(&changes()).is_ok();
            let synced = done && tree.sync().is_ok();
            let recorded = synced && tree.checkpoint(&Reason::automatic()).is_ok();
            let what = format!("{crash:?} (seed {seed}) in step {step}");
            let sim = sim.reopen(crash);
            let is_after = check(&rig, &sim, &before, &after, &what);
            assert!(is_after || !(synced || done && crash == Crash::Kill), "{what}: it was acknowledged");
            seen[usize::from(is_after)] += 1;
            if recorded {
                break;
            }
        }
        assert!(seen[0] > 2 && seen[1] > 2, "{crash:?}: {seen:?}");
    }
}

/// Whether the tree is as after the changes; else it must be as before.
fn check(rig: &Rig, sim: &SimDisk, before: &Shown, after: &Shown, what: &str) -> bool {
    let rig = rig.after(sim.clone());
    let tree = rig.open().unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut found = shown(&tree);
    let is_after = found == *after;
    assert!(is_after || found == *before, "{what}: {} names", found.len());
    // Work goes on, and what was not finished does not come back.
    make(&tree, Ino::ROOT, "later", b"later");
    tree.log_drafts().unwrap();
    found = shown(&tree);
    drop(tree);
    let rig = rig.after(sim.reopen(Crash::Kill));
    let tree = rig.open().unwrap_or_else(|error| panic!("{what}, again: {error}"));
    assert!(shown(&tree) == found, "{what}: the second recovery differs");
    tree.checkpoint(&Reason::automatic()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(rig.version(&tree.base()).contains_key("new"), is_after, "{what}");
    is_after
}

#[test]
fn a_full_disk_leaves_the_tree_as_it_was_and_goes_on() {
    let (before, after) = expected();
    let mut refused = 0;
    for room in (0..160_000).step_by(9_001) {
        let (rig, sim) = Rig::new(1);
        let tree = rig.open().unwrap();
        prepare(&tree);
        sim.fail_writes_with(libc::ENOSPC, room);
        let outcome = tree.graft(&changes());
        sim.allow_writes();
        assert!(tree.failure().is_none(), "{room}: a full disk is not the end");
        assert!(shown(&tree) == if outcome.is_ok() { after.clone() } else { before.clone() }, "{room}");
        refused += usize::from(outcome.is_err());
        // Content that comes after a change that was given up counts.
        make(&tree, Ino::ROOT, "meanwhile", &[7; 5000]);
        tree.absorb_all().unwrap();
        if outcome.is_err() && room % 2 == 0 {
            tree.graft(&changes()).unwrap();
        }
        tree.sync().unwrap();
        let found = shown(&tree);
        drop(tree);
        let rig = rig.after(sim.reopen(Crash::PowerCut { keep: Keep::None }));
        assert!(shown(&rig.open().unwrap()) == found, "{room}: after a power cut");
    }
    assert!(refused > 3, "the disk was full in the middle of it {refused} times");
}

#[test]
fn a_change_that_cannot_be_made_keeps_all_others_from_being_made() {
    let (rig, _) = Rig::new(1);
    let tree = rig.open().unwrap();
    prepare(&tree);
    let before = shown(&tree);
    let mut ops = changes();
    ops.push(GraftOp::Put { path: path("b"), entry: file(1, "b is not empty"), linked: false });
    assert!(matches!(tree.graft(&ops), Err(WorkError::NotEmpty)));
    assert!(shown(&tree) == before);
    drop(tree);
    assert!(shown(&rig.open().unwrap()) == before);
}
