//! Huge files, most of which are holes.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use kura::version::entry::{Body, Content, Ino};
use kura::worktree::{Changes, Wait, Worktree};

use super::{added, is_long, make, noise, record, stored};
use crate::rig::Rig;
use crate::space;

const GIB: u64 = 1 << 30;
const SIZE: u64 = 20 * GIB;

fn write(tree: &Worktree, ino: Ino, offset: u64, bytes: &[u8]) {
    for (index, piece) in (0..).zip(bytes.chunks(1 << 20)) {
        tree.write(ino, offset + (index << 20), piece, 0, Wait::Yes).unwrap();
    }
}

/// Islands of data in the file: every so many bytes, so long.
fn islands() -> Vec<u64> {
    (0..if is_long() { 20 } else { 5 }).map(|island| island * (SIZE / 20) + 12_345).collect()
}

const ISLAND: usize = 12 << 20;

fn sparse_file(rig: &Rig, tree: &Worktree) -> Ino {
    let ino = make(tree, Ino::ROOT, "huge", &kura::worktree::NewNode::File, true);
    for offset in islands() {
        write(tree, ino, offset, &noise(offset, ISLAND));
    }
    tree.setattr(ino, &Changes { size: Some(SIZE), ..Changes::default() }, 0, Wait::Yes).unwrap();
    tree.release(ino, true);
    record(rig, tree);
    ino
}

fn chunks(rig: &Rig, tree: &Worktree) -> Vec<(u64, kura::blob::ChunkRef)> {
    let base = tree.base();
    let pages = rig.pages(&base);
    let entry = base.index.root.find(&pages, &[b"huge"]).unwrap().unwrap();
    let Body::File(body) = entry.body else { panic!("a file") };
    assert_eq!(body.size, SIZE);
    assert!(matches!(body.content, Content::Tree(_)), "its chunks are in pages");
    body.content.chunks(&pages, 0, u64::MAX).unwrap()
}

#[test]
fn random_edits_of_a_huge_sparse_file_cost_the_chunks_they_touch() {
    let (rig, _sim) = Rig::new(3);
    let tree = rig.open().unwrap();
    let ino = sparse_file(&rig, &tree);
    let (mut touched, mut new_bytes, mut meta_bytes, mut new_objects) = (0, 0, 0, 0);
    let islands = islands();
    for round in 0..30_u64 {
        let all = chunks(&rig, &tree);
        let before = stored(&rig);
        tree.open(ino, true, false, 0, Wait::Yes).unwrap();
        let pick = u64::from_le_bytes(noise(round + 77, 8).try_into().unwrap());
        let island = islands[(pick % islands.len() as u64) as usize];
        let at = island + (pick >> 8) % (ISLAND as u64 - 4096);
        write(&tree, ino, at, &noise(round + 5, 4096));
        tree.release(ino, true);
        record(&rig, &tree);
        let now = chunks(&rig, &tree);
        touched += all.iter().filter(|(from, chunk)| *from < at + 4096 && from + u64::from(chunk.len) > at).count();
        let fresh = now.iter().filter(|chunk| !all.contains(chunk)).map(|(_, chunk)| u64::from(chunk.len));
        let fresh: u64 = fresh.sum();
        let (objects, bytes) = added(&before, &stored(&rig));
        // Cutting goes on until it meets an old boundary, which seldom is some chunks further on.
        assert!(objects <= 20, "{objects} objects in round {round}");
        new_objects += objects;
        new_bytes += fresh;
        // Padding of large objects comes on top of their content.
        meta_bytes += bytes.saturating_sub(fresh);
    }
    let all = chunks(&rig, &tree);
    let average = all.iter().map(|(_, chunk)| u64::from(chunk.len)).sum::<u64>() / all.len() as u64;
    let share = new_bytes as f64 / (touched as u64 * average) as f64;
    assert!(share <= 1.3, "{share:.2} average chunks for each chunk that was touched");
    assert!(new_objects <= 30 * 5, "{new_objects} objects in 30 rounds");
    assert!(meta_bytes / 30 < 128 << 10, "{} bytes besides content for each version", meta_bytes / 30);
}

#[test]
fn a_huge_sparse_file_is_read_and_searched_without_its_holes() {
    let (rig, _sim) = Rig::new(4);
    let tree = rig.open().unwrap();
    let ino = sparse_file(&rig, &tree);
    let mut at = 0;
    for island in islands() {
        let data = tree.seek(ino, at, true, Wait::Yes).unwrap();
        assert_eq!(data, island, "the next data after {at}");
        at = tree.seek(ino, data, false, Wait::Yes).unwrap();
        assert_eq!(at, island + ISLAND as u64, "the hole after {data}");
        assert_eq!(tree.read(ino, island, 4096, Wait::Yes).unwrap(), noise(island, 4096));
        assert!(tree.read(ino, at, 1 << 20, Wait::Yes).unwrap().iter().all(|byte| *byte == 0));
    }
    assert!(tree.seek(ino, at, true, Wait::Yes).is_err(), "nothing but a hole up to the end");
    assert!(tree.read(ino, SIZE - 10, 100, Wait::Yes).unwrap() == [0; 10]);
}

#[test]
fn holes_stay_holes_through_import_versions_and_export() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    let source = File::create(from.join("huge")).unwrap();
    source.set_len(SIZE).unwrap();
    for number in 0..40_u64 {
        source.write_all_at(&noise(number, 8192), number * (SIZE / 40) + 4096 * number).unwrap();
    }
    let store = std::sync::Arc::new(kura::store::MemoryStore::new());
    let workspace = space::create(store, dir.path());
    workspace.import(&from, b"", &mut |_| {}).unwrap();
    let inode = space::ino(&workspace, "huge");
    workspace.tree().open(inode, true, false, 0, Wait::Yes).unwrap();
    workspace.tree().write(inode, 11 * GIB, b"an edit", 0, Wait::Yes).unwrap();
    workspace.tree().release(inode, true);
    let version = workspace.snapshot(None, None).unwrap();
    let version = version.record.id;
    workspace.export(version, &[], &to, false, &mut |_| true).unwrap();
    let target = File::open(to.join("huge")).unwrap();
    let metadata = target.metadata().unwrap();
    assert_eq!(metadata.size(), SIZE);
    assert!(metadata.blocks() * 512 < 16 << 20, "{} bytes on the disk", metadata.blocks() * 512);
    for number in 0..40_u64 {
        let mut bytes = vec![0; 8192];
        target.read_exact_at(&mut bytes, number * (SIZE / 40) + 4096 * number).unwrap();
        assert!(bytes == noise(number, 8192), "island {number}");
    }
    let mut bytes = [0; 9];
    target.read_exact_at(&mut bytes, 11 * GIB - 1).unwrap();
    assert_eq!(&bytes, b"\0an edit\0");
    workspace.close(false).unwrap();
}
