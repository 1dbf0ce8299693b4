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
