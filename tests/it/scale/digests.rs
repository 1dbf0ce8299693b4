//! SHA-256 of huge files that were edited inside, computed in the background.

use kura::base::ids::Sha256;
use kura::base::sim_disk::Crash;
use kura::version::entry::{Body, FileBody, Ino};
use kura::worktree::{Changes, NewNode, Wait, Worktree};

use super::{make, noise, record, save};
use crate::rig::{Rig, sha256};

const SIZE: usize = 70 << 20;

fn body(rig: &Rig, tree: &Worktree) -> FileBody {
    let base = tree.base();
    match base.index.root.find(&rig.pages(&base), &[b"huge"]).unwrap().unwrap().body {
        Body::File(body) => body,
        other => panic!("{other:?}"),
    }
}

/// A file that is too large to be hashed again at every edit, and its content.
fn huge(rig: &Rig, tree: &Worktree) -> (Ino, Vec<u8>) {
    let mut content = vec![0; SIZE];
    let ino = make(tree, Ino::ROOT, "huge", &NewNode::File, true);
    for at in [0, 33 << 20, SIZE - 1000] {
        let data = noise(at as u64, 900);
        tree.write(ino, at as u64, &data, 0, Wait::Yes).unwrap();
        content[at..at + 900].copy_from_slice(&data);
    }
    tree.setattr(ino, &Changes { size: Some(SIZE as u64), ..Changes::default() }, 0, Wait::Yes).unwrap();
    tree.release(ino, true);
    record(rig, tree);
    (ino, content)
}

fn hash_all(tree: &Worktree) -> usize {
    (0..100).take_while(|_| tree.hash_next(&|_| true).unwrap()).count()
}

fn shown(tree: &Worktree, ino: Ino) -> Option<Sha256> {
    tree.sha256(ino, Wait::Yes).unwrap()
}

#[test]
fn a_digest_that_was_not_recorded_is_computed_later_and_kept_with_the_next_version() {
    let (rig, sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    let (ino, content) = huge(&rig, &tree);
    let digest = Some(sha256(&content));
    assert_eq!((body(&rig, &tree).sha256, shown(&tree, ino)), (None, None));
    assert!(!tree.hash_next(&|_| false).unwrap(), "it ends when it is told to");
    assert_eq!(shown(&tree, ino), None);
    assert_eq!(hash_all(&tree), 1);
    assert_eq!(shown(&tree, ino), digest);
    // What was not recorded is computed again.
    drop(tree);
    let rig = rig.after(sim.reopen(Crash::Kill));
    let tree = rig.open().unwrap();
    assert_eq!(tree.digest_of(&body(&rig, &tree)).unwrap(), None);
    assert_eq!(hash_all(&tree), 1);
    save(&tree, Ino::ROOT, "other", b"a reason for a version");
    record(&rig, &tree);
    drop(tree);
    let tree = rig.open().unwrap();
    assert_eq!(tree.digest_of(&body(&rig, &tree)).unwrap(), digest);
    assert_eq!(hash_all(&tree), 0, "nothing is left to do");
    // The same content is known when only attributes change.
    let ino = tree.lookup(Ino::ROOT, b"huge", Wait::Yes).unwrap().ino;
    tree.setattr(ino, &Changes { mode: Some(0o600), ..Changes::default() }, 0, Wait::Yes).unwrap();
    record(&rig, &tree);
    assert_eq!((hash_all(&tree), shown(&tree, ino)), (0, digest));
}

#[test]
fn of_content_that_was_replaced_only_the_newest_is_hashed() {
    let (rig, _sim) = Rig::new(2);
    let tree = rig.open().unwrap();
    let (ino, mut content) = huge(&rig, &tree);
    let before = body(&rig, &tree);
    for round in 0..3_usize {
        tree.open(ino, true, false, 0, Wait::Yes).unwrap();
        tree.write(ino, 5_000_000, &noise(round as u64, 100), 0, Wait::Yes).unwrap();
        content[5_000_000..5_000_100].copy_from_slice(&noise(round as u64, 100));
        assert_eq!(shown(&tree, ino), None, "not while more was written");
        tree.release(ino, true);
        record(&rig, &tree);
    }
    assert_eq!(hash_all(&tree), 1);
    assert_eq!(shown(&tree, ino), Some(sha256(&content)));
    assert_eq!(tree.digest_of(&before).unwrap(), None);
    // An edit while the digest waits for its version: the new content is wanted, the old is known.
    let hashed = body(&rig, &tree);
    tree.open(ino, true, false, 0, Wait::Yes).unwrap();
    tree.write(ino, 1, b"once more", 0, Wait::Yes).unwrap();
    content[1..10].copy_from_slice(b"once more");
    tree.release(ino, true);
    record(&rig, &tree);
    assert!(tree.digest_of(&hashed).unwrap().is_some());
    assert_eq!(shown(&tree, ino), None);
    assert_eq!(hash_all(&tree), 1);
    assert_eq!(shown(&tree, ino), Some(sha256(&content)));
}

/// Large drafts are staged in several goes; what is written in order is hashed on the way.
#[test]
fn a_huge_file_that_is_written_in_order_has_its_digest_at_once() {
    const STEP: usize = 9 << 20;
    let (rig, _sim) = Rig::new(3);
    let tree = rig.open().unwrap();
    let ino = make(&tree, Ino::ROOT, "huge", &NewNode::File, true);
    let step = noise(7, STEP);
    let mut content = Vec::new();
    for number in 0..8_u8 {
        let mut step = step.clone();
        step[0] = number;
        tree.write(ino, content.len() as u64, &step, 0, Wait::Yes).unwrap();
        content.extend_from_slice(&step);
        tree.log_drafts().unwrap();
    }
    assert_eq!(tree.activity().dirty_bytes, 0, "it is staged");
    tree.release(ino, true);
    record(&rig, &tree);
    assert_eq!(body(&rig, &tree).sha256, Some(sha256(&content)));
    assert_eq!(hash_all(&tree), 0, "nothing is left to do");
}

/// Whatever is done to a file between one staging and the next, its digest is that of its content.
#[test]
fn a_digest_that_was_begun_is_not_gone_on_with_when_its_front_changed() {
    let rounds = if std::env::var_os("KURA_TEST_LONG").is_some() { 200 } else { 3 };
    for seed in 0..rounds {
        let (mut rig, _sim) = Rig::new(seed);
        rig.limits.dirty_bytes_max = 400 << 10;
        let tree = rig.open().unwrap();
        let ino = make(&tree, Ino::ROOT, "huge", &NewNode::File, true);
        let draws = noise(seed + 1, 40);
        let mut content: Vec<u8> = Vec::new();
        for (number, draw) in (0..).zip(draws) {
            let data = noise(seed * 1000 + number, 300 << 10);
            let end = content.len();
            let from = match draw % 8 {
                0..=4 => end,
                5 => end.saturating_sub(1000),
                _ => usize::from(draw) * 4000 % (end + 1),
            };
            if draw % 11 == 0 {
                let size = if draw % 2 == 0 { from } else { end + 70_000 };
                tree.setattr(ino, &Changes { size: Some(size as u64), ..Changes::default() }, 0, Wait::Yes).unwrap();
                content.resize(size, 0);
                continue;
            }
            tree.write(ino, from as u64, &data, 0, Wait::Yes).unwrap();
            content.resize(end.max(from + data.len()), 0);
            content[from..from + data.len()].copy_from_slice(&data);
            if draw % 13 == 0 {
                tree.release(ino, true);
                tree.absorb_all().unwrap();
                assert_eq!(shown(&tree, ino), Some(sha256(&content)), "seed {seed}, step {number}");
                tree.open(ino, true, false, 0, Wait::Yes).unwrap();
            }
        }
        tree.release(ino, true);
        record(&rig, &tree);
        assert_eq!(body(&rig, &tree).sha256, Some(sha256(&content)), "seed {seed}");
    }
}
