//! Content: sizes, edits, holes, drafts.

use std::sync::Arc;

use kura::base::sim_disk::Crash;
use kura::version::entry::{Content, Ino};
use kura::worktree::{Changes, FileState, RenameMode, Wait, WorkError};

use super::{checkpoint, create, digest, noise, read, recorded, save, write};
use crate::rig::{Rig, live, meanwhile};

const KIB: usize = 1024;

#[test]
fn files_of_all_sizes_are_recorded_and_come_back() {
    let (mut rig, sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    let sizes = [0, 1, 256, 257, 4 * KIB, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 5 * KIB * KIB];
    for size in sizes {
        save(&tree, &format!("file{size}"), &noise(size as u64, size));
    }
    checkpoint(&tree);
    for size in sizes {
        let (name, content) = (format!("file{size}"), noise(size as u64, size));
        let body = recorded(&rig, &tree, &name);
        assert_eq!(body.sha256, digest(&content), "{name}");
        assert!(rig.version(&tree.base())[&name].bytes == content, "{name}");
        match body.content {
            Content::Empty => assert_eq!(size, 0),
            Content::Inline(_) => assert!(size <= 256),
            _ => assert!(size > 256),
        }
    }
    let before = live(&tree);
    drop(tree);
    rig = rig.after(sim.reopen(Crash::Kill));
    assert!(live(&rig.open().unwrap()) == before);
}

/// A file, and what it should hold, edited in step.
#[test]
fn edits_inside_large_files_are_exact() {
    let (rig, _sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    let mut content = noise(1, 6 << 20);
    let ino = save(&tree, "file", &content);
    checkpoint(&tree);
    let places =
        [(0, 10), (3 << 20, 100_000), ((6 << 20) - 5, 10), (1_000_000, 1), (9 << 20, 300_000), (500_000, 3 << 20)];
    for (number, (offset, len)) in places.into_iter().enumerate() {
        let data = noise(number as u64 + 50, len);
        tree.open(ino, true, false, 0, Wait::Yes).unwrap();
        write(&tree, ino, offset as u64, &data);
        content.resize(content.len().max(offset + len), 0);
        content[offset..offset + len].copy_from_slice(&data);
        if number == 3 {
            tree.fallocate(ino, 2_000_000, 1_500_000, true, true, 0, Wait::Yes).unwrap();
            content[2_000_000..3_500_000].fill(0);
        }
        tree.release(ino, true);
        assert!(read(&tree, ino) == content, "edit {number}, before it is absorbed");
        checkpoint(&tree);
        assert!(read(&tree, ino) == content, "edit {number}");
        assert_eq!(recorded(&rig, &tree, "file").sha256, digest(&content));
        assert!(rig.version(&tree.base())["file"].bytes == content, "edit {number}, recorded");
    }
    for size in [7_000_000_u64, 300_000, 9_000_000, 100, 5_000_000, 0, 700_000] {
        tree.setattr(ino, &Changes { size: Some(size), ..Changes::default() }, 0, Wait::Yes).unwrap();
        content.resize(usize::try_from(size).unwrap(), 0);
        assert!(read(&tree, ino) == content, "cut to {size}");
        checkpoint(&tree);
        assert!(rig.version(&tree.base())["file"].bytes == content, "cut to {size}, recorded");
    }
}

#[test]
fn small_edit_of_a_large_file_cuts_only_its_neighbourhood_anew() {
    let (rig, _sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    let mut content = noise(3, 64 << 20);
    let ino = save(&tree, "file", &content);
    checkpoint(&tree);
    let chunks = |name| {
        let base = tree.base();
        recorded(&rig, &tree, name).content.chunks(&rig.pages(&base), 0, u64::MAX).unwrap()
    };
    let before = chunks("file");
    assert!(before.len() > 16, "{} chunks", before.len());
    tree.open(ino, true, false, 0, Wait::Yes).unwrap();
    write(&tree, ino, 30_000_000, b"a small edit");
    content[30_000_000..30_000_012].copy_from_slice(b"a small edit");
    tree.release(ino, true);
    checkpoint(&tree);
    let after = chunks("file");
    let fresh = after.iter().filter(|chunk| !before.contains(chunk)).count();
    assert!((1..=3).contains(&fresh), "{fresh} of {} chunks are new", after.len());
    assert!(rig.version(&tree.base())["file"].bytes == content);
    assert_eq!(recorded(&rig, &tree, "file").sha256, digest(&content));
}

#[test]
fn holes_are_found_and_read_as_zeros() {
    let (rig, _sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    let ino = create(&tree, "sparse").ino;
    write(&tree, ino, 1 << 30, b"end");
    write(&tree, ino, 0, &noise(1, 300_000));
    for round in 0..2 {
        assert_eq!(tree.seek(ino, 400_000, true, Wait::Yes).unwrap(), 1 << 30, "round {round}");
        let hole = tree.seek(ino, 0, false, Wait::Yes).unwrap();
        assert!((300_000..400_000).contains(&hole), "{hole}");
        assert_eq!(tree.read(ino, 500_000_000, 10, Wait::Yes).unwrap(), [0; 10]);
        assert_eq!(tree.read(ino, (1 << 30) - 2, 100, Wait::Yes).unwrap(), b"\0\0end");
        assert!(tree.seek(ino, (1 << 30) + 3, true, Wait::Yes).is_err());
        tree.fsync(ino, Wait::Yes).unwrap();
        checkpoint(&tree);
    }
    let body = recorded(&rig, &tree, "sparse");
    let chunks = body.content.chunks(&rig.pages(&tree.base()), 0, u64::MAX).unwrap();
    assert!(chunks.len() < 5 && body.size == (1 << 30) + 3, "holes take no room");
}

#[test]
fn versions_hold_published_states_only() {
    let (rig, _sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    let ino = create(&tree, "file").ino;
    write(&tree, ino, 0, b"first");
    checkpoint(&tree);
    assert!(!rig.version(&tree.base()).contains_key("file"), "it never was published");
    assert_eq!(tree.file_state(ino, Wait::Yes).unwrap(), FileState::Draft);
    tree.fsync(ino, Wait::Yes).unwrap();
    write(&tree, ino, 5, b", second");
    checkpoint(&tree);
    assert_eq!(rig.version(&tree.base())["file"].bytes, b"first");
    assert_eq!(read(&tree, ino), b"first, second");
    tree.release(ino, true);
    assert_eq!(tree.file_state(ino, Wait::Yes).unwrap(), FileState::Published);
    checkpoint(&tree);
    assert_eq!(rig.version(&tree.base())["file"].bytes, b"first, second");
    assert_eq!(tree.file_state(ino, Wait::Yes).unwrap(), FileState::Recorded);
}

#[test]
fn recovered_draft_is_live_and_versioned_at_its_next_close() {
    let (rig, sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    let ino = create(&tree, "file").ino;
    write(&tree, ino, 0, b"never closed");
    tree.log_drafts().unwrap();
    let rig = rig.after(sim.reopen(Crash::Kill));
    let tree = rig.open().unwrap();
    checkpoint(&tree);
    assert!(!rig.version(&tree.base()).contains_key("file"));
    let ino = tree.lookup(Ino::ROOT, b"file", Wait::Yes).unwrap().ino;
    assert_eq!(read(&tree, ino), b"never closed");
    assert_eq!(tree.file_state(ino, Wait::Yes).unwrap(), FileState::Recovered);
    tree.open(ino, true, false, 0, Wait::Yes).unwrap();
    tree.release(ino, true);
    checkpoint(&tree);
    assert_eq!(rig.version(&tree.base())["file"].bytes, b"never closed");
}

#[test]
fn large_drafts_are_staged_and_keep_every_edit() {
    let (mut rig, sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    let mut content = noise(5, 20 << 20);
    let ino = create(&tree, "file").ino;
    write(&tree, ino, 0, &content);
    tree.log_drafts().unwrap();
    assert!(tree.activity().journal_bytes < 1 << 20, "what is staged is not journaled as well");
    for (offset, len) in [(100, 50), (12 << 20, 200_000), ((20 << 20) - 10, 100)] {
        let data = noise(offset as u64, len);
        write(&tree, ino, offset as u64, &data);
        content.resize(content.len().max(offset + len), 0);
        content[offset..offset + len].copy_from_slice(&data);
        tree.log_drafts().unwrap();
        checkpoint(&tree);
        assert!(read(&tree, ino) == content);
    }
    rig = rig.after(sim.reopen(Crash::Kill));
    let tree = rig.open().unwrap();
    let ino = tree.lookup(Ino::ROOT, b"file", Wait::Yes).unwrap().ino;
    assert!(read(&tree, ino) == content, "after a kill");
    tree.setattr(ino, &Changes { size: Some(15 << 20), ..Changes::default() }, 0, Wait::Yes).unwrap();
    content.truncate(15 << 20);
    checkpoint(&tree);
    assert!(rig.version(&tree.base())["file"].bytes == content);
}

#[test]
fn unlinked_file_stays_readable_while_it_is_open() {
    let (rig, _sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    let content = noise(8, 900_000);
    let ino = save(&tree, "file", &content);
    tree.open(ino, false, false, 0, Wait::Yes).unwrap();
    tree.absorb_all().unwrap();
    tree.unlink(Ino::ROOT, b"file", Wait::Yes).unwrap();
    for round in 0..3 {
        checkpoint(&tree);
        rig.upload(&tree);
        save(&tree, &format!("other{round}"), &noise(round, 400_000));
        assert!(read(&tree, ino) == content, "round {round}");
    }
    tree.release(ino, false);
    tree.forget(ino, 1);
    assert!(tree.getattr(ino, Wait::Yes).is_err());
}

#[test]
fn appends_in_small_steps_add_up() {
    let (rig, _sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    let ino = create(&tree, "log").ino;
    let mut content = Vec::new();
    for step in 0..3000_u64 {
        let line = noise(step, 1 + (step % 97) as usize);
        write(&tree, ino, content.len() as u64, &line);
        content.extend(line);
        if step % 701 == 0 {
            tree.fsync(ino, Wait::Yes).unwrap();
        }
        if step % 997 == 0 {
            checkpoint(&tree);
        }
    }
    assert!(read(&tree, ino) == content);
    tree.release(ino, true);
    checkpoint(&tree);
    assert_eq!(recorded(&rig, &tree, "log").sha256, digest(&content));
}

#[test]
fn file_renamed_over_another_takes_its_identity() {
    let (rig, _sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    save(&tree, "document", b"old");
    checkpoint(&tree);
    let id = |name: &str| {
        let base = tree.base();
        let entry = base.index.root.find(&rig.pages(&base), &[name.as_bytes()]).unwrap().unwrap();
        (entry.file_id, entry.ino)
    };
    let old = id("document");
    save(&tree, "temporary", b"new");
    tree.rename((Ino::ROOT, b"temporary"), (Ino::ROOT, b"document"), RenameMode::Replace, Wait::Yes).unwrap();
    checkpoint(&tree);
    let new = id("document");
    assert!(new.0 == old.0 && new.1 != old.1);
    assert_eq!(rig.version(&tree.base())["document"].bytes, b"new");
}

#[test]
fn what_was_read_lately_is_read_without_waiting() {
    let (rig, _sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    // A few chunks in the entry, and many in a tree of their own.
    for (name, len) in [("few", 3 << 20), ("many", 40 << 20)] {
        let content = noise(len as u64, len);
        save(&tree, name, &content);
        checkpoint(&tree);
        let ino = tree.lookup(Ino::ROOT, name.as_bytes(), Wait::Yes).unwrap().ino;
        let at = 1_500_000;
        let now = |from: usize, len: usize| tree.read(ino, from as u64, len, Wait::No);
        assert!(now(at, 4096).is_err_and(|error| matches!(error, WorkError::WouldBlock)), "{name}");
        assert!(tree.read(ino, at as u64, 4096, Wait::Yes).unwrap() == content[at..at + 4096]);
        assert!(now(at + 100, 4000).unwrap() == content[at + 100..at + 4100], "{name}");
        assert!(now(at, 1 << 20).is_err(), "{name}: the rest is not in memory");
    }
}

#[test]
fn large_drafts_are_staged_before_writers_have_to_wait() {
    let (rig, _sim) = Rig::new(1);
    let tree = rig.open().unwrap();
    let ino = create(&tree, "large").ino;
    let content = noise(7, 40 << 20);
    for (index, block) in content.chunks(1 << 20).enumerate() {
        write(&tree, ino, (index << 20) as u64, block);
    }
    let staged = || rig.outbox().total_bytes();
    assert_eq!(staged(), 0);
    tree.stage_ample().unwrap();
    let all = staged();
    assert!(all >= 40 << 20, "{all} bytes of 40 MiB are staged");
    assert!(read(&tree, ino) == content);
    write(&tree, ino, 5_000_000, b"later");
    tree.stage_ample().unwrap();
    assert_eq!(staged(), all, "what is little waits");
}

#[test]
fn what_is_closed_while_its_draft_is_staged_survives_a_kill() {
    for step in 0.. {
        let (rig, sim) = Rig::new(step);
        let tree = Arc::new(rig.open().unwrap());
        let ino = create(&tree, "file").ino;
        write(&tree, ino, 0, &noise(5, 9 << 20));
        let (writer, begin) = (tree.clone(), sim.steps());
        // Little is left of what is being staged, so that the rest is for the journal.
        let done = meanwhile(&sim, begin + step, move || {
            writer.setattr(ino, &Changes { size: Some(100), ..Changes::default() }, 0, Wait::Yes)?;
            writer.write(ino, 50, b"edited", 0, Wait::Yes)?;
            writer.log(ino, Wait::Yes)?;
            writer.write(ino, 50, b"E", 0, Wait::Yes)
        });
        let staged = tree.log_drafts();
        assert!(staged.is_ok(), "{staged:?}");
        if sim.steps() <= begin + step {
            break;
        }
        assert_eq!(done.recv(), Ok(true), "step {step}");
        let rig = rig.after(sim.reopen(Crash::Kill));
        let tree = rig.open().unwrap();
        let ino = tree.lookup(Ino::ROOT, b"file", Wait::Yes).unwrap().ino;
        assert_eq!(read(&tree, ino)[50..56].to_ascii_lowercase(), *b"edited", "step {step}");
    }
}

#[test]
fn what_is_closed_while_its_draft_makes_room_for_others_survives_a_kill() {
    for step in 0.. {
        let (mut rig, sim) = Rig::new(step);
        rig.limits.dirty_bytes_max = 8 << 20;
        let tree = Arc::new(rig.open().unwrap());
        let [first, second, other] = ["first", "second", "other"].map(|name| create(&tree, name).ino);
        tree.write(first, 0, &noise(5, 5 << 20), 0, Wait::Yes).unwrap();
        tree.write(second, 0, &noise(6, 9 << 19), 0, Wait::Yes).unwrap();
        let (writer, begin) = (tree.clone(), sim.steps());
        let done = meanwhile(&sim, begin + step, move || {
            writer.write(second, 50, b"edited", 0, Wait::Yes)?;
            writer.log(second, Wait::Yes)
        });
        tree.write(other, 0, b"other", 0, Wait::Yes).unwrap();
        if sim.steps() <= begin + step {
            break;
        }
        assert_eq!(done.recv(), Ok(true), "step {step}");
        let rig = rig.after(sim.reopen(Crash::Kill));
        let tree = rig.open().unwrap();
        let ino = tree.lookup(Ino::ROOT, b"second", Wait::Yes).unwrap().ino;
        assert_eq!(read(&tree, ino)[50..56].to_ascii_lowercase(), *b"edited", "step {step}");
    }
}
