//! Blobs that several files share, and objects that nothing needs any more.

use kura::base::sim_disk::Crash;
use kura::version::entry::Ino;
use kura::worktree::{Reason, Wait};

use super::{checkpoint, create, noise, read, save, write};
use crate::rig::{Rig, live};

/// More chunks than an entry holds: their list is a tree of its own.
const LARGE: usize = 26 << 20;

#[test]
fn copy_outlives_the_file_it_was_made_of() {
    let (mut rig, sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    for (number, len) in [3000, 700_000, LARGE].into_iter().enumerate() {
        let content = noise(number as u64, len);
        save(&tree, &format!("original{number}"), &content);
        tree.absorb_all().unwrap();
        save(&tree, &format!("copy{number}"), &content);
        tree.absorb_all().unwrap();
    }
    // Who owns which blob is known to the next process, too.
    rig = rig.after(sim.reopen(Crash::Kill));
    let tree = rig.open().unwrap();
    for number in 0..3 {
        tree.unlink(Ino::ROOT, format!("original{number}").as_bytes(), Wait::Yes).unwrap();
    }
    checkpoint(&tree);
    rig.upload(&tree);
    let version = rig.version(&tree.base());
    for (number, len) in [3000, 700_000, LARGE].into_iter().enumerate() {
        assert!(version[&format!("copy{number}")].bytes == noise(number as u64, len), "copy{number}");
    }
}

#[test]
fn objects_of_files_that_are_gone_leave_the_outbox() {
    let (rig, _sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    save(&tree, "kept", &noise(1, 900_000));
    checkpoint(&tree);
    let before = rig.outbox().total_bytes();
    let ino = save(&tree, "short-lived", &noise(2, 3 << 20));
    tree.absorb_all().unwrap();
    assert!(rig.outbox().total_bytes() > before + (2 << 20));
    tree.unlink(Ino::ROOT, b"short-lived", Wait::Yes).unwrap();
    checkpoint(&tree);
    // The kernel still holds it, and may read it.
    assert!(rig.outbox().total_bytes() > before + (2 << 20));
    tree.forget(ino, 1);
    tree.checkpoint(&Reason { always: true, ..Reason::automatic() }).unwrap();
    let left = rig.outbox().total_bytes();
    assert!(left < before + 100_000, "{left} bytes are left of {before}");
    assert!(rig.version(&tree.base())["kept"].bytes == noise(1, 900_000));
}

#[test]
fn queued_objects_stay_until_they_are_uploaded() {
    let (rig, _sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    for round in 0..6_u64 {
        // Content that comes, goes, and comes back while earlier versions still wait.
        save(&tree, "file", &noise(round % 2, 800_000));
        let open = create(&tree, "staged").ino;
        write(&tree, open, 0, &noise(round % 3 + 10, 9 << 20));
        tree.log_drafts().unwrap();
        checkpoint(&tree);
        tree.release(open, true);
        tree.forget(open, 1);
        if round % 2 == 0 {
            checkpoint(&tree);
        }
        for name in [b"file".as_slice(), b"staged"] {
            let ino = tree.lookup(Ino::ROOT, name, Wait::Yes).unwrap().ino;
            tree.unlink(Ino::ROOT, name, Wait::Yes).unwrap();
            tree.forget(ino, u64::MAX);
        }
        checkpoint(&tree);
    }
    // Panics when an object that a queued version needs is nowhere.
    rig.upload(&tree);
}

#[test]
fn versions_stay_whole_while_content_is_made_and_changed_beside_them() {
    let (rig, sim) = Rig::new(1);
    let tree = std::sync::Arc::new(rig.open().unwrap());
    let writer = {
        let tree = tree.clone();
        std::thread::spawn(move || {
            for round in 0..40_u64 {
                let name = format!("file{}", round % 5);
                let content = noise(round % 7, 200_000 + 100_000 * (round % 4) as usize);
                match tree.lookup(Ino::ROOT, name.as_bytes(), Wait::Yes) {
                    Ok(attr) => {
                        tree.open(attr.ino, true, true, 0, Wait::Yes).unwrap();
                        write(&tree, attr.ino, 0, &content);
                        tree.release(attr.ino, true);
                    }
                    Err(_) => {
                        save(&tree, &name, &content);
                    }
                }
                if round % 3 == 0 {
                    tree.absorb_all().unwrap();
                }
                if round % 11 == 10 {
                    tree.unlink(Ino::ROOT, name.as_bytes(), Wait::Yes).unwrap();
                }
            }
        })
    };
    while !writer.is_finished() {
        checkpoint(&tree);
        let version = rig.version(&tree.base());
        for (name, seen) in version.iter().filter(|(name, _)| !name.is_empty()) {
            let whole = seen.bytes.is_empty()
                || (0..7).any(|seed| seen.bytes == noise(seed, seen.bytes.len()) && seen.bytes.len() % 100_000 == 0);
            assert!(whole, "{name} is torn: {} bytes", seen.bytes.len());
        }
    }
    writer.join().unwrap();
    checkpoint(&tree);
    let before = live(&tree);
    let root = before.values().map(|seen| seen.ino).next().unwrap();
    assert_eq!(read(&tree, Ino(before["file1"].ino)), before["file1"].bytes);
    assert_eq!(root, 1);
    drop(tree);
    let rig = rig.after(sim.reopen(Crash::Kill));
    let tree = rig.open().unwrap();
    assert!(live(&tree) == before);
    rig.upload(&tree);
}
