//! The engine without a mount: primitives, the cost of a version, the cost of a small edit.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kura::base::ids::WorkspaceId;
use kura::base::limits::CHUNK_LEN_AVG;
use kura::blob::{BlobKind, ChunkRef, Chunker, codec};
use kura::crypto::slots::{Credential, KdfParams, NewSlot, Secret};
use kura::crypto::{Keys, Kind};
use kura::store::StoreUrl;
use kura::version::entry::Ino;
use kura::version::index::sha256;
use kura::workspace::{InitOptions, OpenOptions, Workspace};
use kura::worktree::{Caller, NewNode, Wait};

use super::cpu::client_us;
use super::report::{Report, median};
use super::target::{noise, source_text};

/// GiB per CPU second of the steps that content goes through.
pub fn primitives(report: &mut Report) {
    const MIB: usize = 64;
    let keys = Keys::ephemeral(WorkspaceId::random());
    let bytes = noise(MIB << 20, 11);
    let text = source_text(MIB << 20);
    let blocks = || bytes.chunks(CHUNK_LEN_AVG);
    rate(report, "chunking", MIB, || {
        let chunker = Chunker::new(keys.chunk_seed());
        let mut rest = &bytes[..];
        while let Some(cut) = chunker.next_cut(rest, true).filter(|cut| *cut > 0) {
            rest = &rest[cut..];
        }
    });
    rate(report, "SHA-256", MIB, || blocks().for_each(|block| _ = black_box(sha256(block))));
    rate(report, "naming chunks", MIB, || {
        blocks().for_each(|block| _ = black_box(BlobKind::Content.id_of(&keys, block)))
    });
    rate(report, "sealing", MIB, || blocks().for_each(|block| drop(black_box(keys.seal(Kind::Content, b"id", block)))));
    let compress = |block: &[u8]| black_box(zstd::bulk::compress(block, 1).unwrap());
    rate(report, "compressing text", MIB, || text.chunks(CHUNK_LEN_AVG).for_each(|block| drop(compress(block))));
    rate(report, "encoding a chunk of noise", MIB, || encode(&keys, blocks()));
    rate(report, "encoding a chunk of text", MIB, || encode(&keys, text.chunks(CHUNK_LEN_AVG)));
    let chunks: Vec<_> = blocks().map(|block| ChunkRef::of(&keys, BlobKind::Content, block)).collect();
    let sealed: Vec<_> =
        blocks().zip(&chunks).map(|(block, chunk)| codec::encode(&keys, BlobKind::Content, chunk.id, block)).collect();
    rate(report, "opening a chunk", MIB, || {
        chunks.iter().zip(&sealed).for_each(|(chunk, sealed)| {
            codec::decode(&keys, BlobKind::Content, chunk, sealed.as_bytes()).unwrap();
        });
    });
}

fn encode<'a>(keys: &Keys, blocks: impl Iterator<Item = &'a [u8]>) {
    blocks.for_each(|block| {
        let chunk = ChunkRef::of(keys, BlobKind::Content, block);
        black_box(codec::encode(keys, BlobKind::Content, chunk.id, block));
    });
}

fn rate(report: &mut Report, name: &str, mib: usize, mut work: impl FnMut()) {
    let figures = (0..5).map(|_| {
        let before = client_us();
        work();
        (mib as f64 / 1024.0) / ((client_us() - before) / 1e6)
    });
    report.note(name, median(figures.collect()), "GiB/s CPU");
}

/// A version after one changed file among 1,000 and among 100,000.
pub fn commit_cost(report: &mut Report) {
    let small = version_cost(report, 1_000);
    let large = version_cost(report, 100_000);
    report.ratio("CPU of a version: 100,000 / 1,000 files", large.cpu_us, small.cpu_us, "us", Some(2.0));
    report.ratio("bytes of a version: 100,000 / 1,000 files", large.bytes, small.bytes, "bytes", Some(2.0));
    report.at_most("objects of a version (HEAD included)", large.objects, "objects", 4.0);
}

struct VersionCost {
    cpu_us: f64,
    bytes: f64,
    objects: f64,
}

fn version_cost(report: &mut Report, files: usize) -> VersionCost {
    let root = tempfile::tempdir().unwrap();
    let workspace = workspace(root.path());
    let mut inos = Vec::new();
    for index in 0..files {
        let dir = match index % 200 {
            0 => {
                inos.push(make(&workspace, Ino::ROOT, &format!("d{}", index / 200), &NewNode::Directory, false));
                inos[inos.len() - 1]
            }
            _ => inos[inos.len() - 1],
        };
        let ino = make(&workspace, dir, &format!("file{index}"), &NewNode::File, true);
        workspace.tree().write(ino, 0, &noise(300, index as u64 + 1), 0, Wait::Yes).unwrap();
        workspace.tree().release(ino, true);
    }
    publish(&workspace);
    let (mut cpu, mut bytes, mut objects) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..7_u64 {
        let before = stored(root.path());
        let start = client_us();
        let dir = inos[(round as usize * 31) % inos.len()];
        let ino = make(&workspace, dir, &format!("new{round}"), &NewNode::File, true);
        workspace.tree().write(ino, 0, &noise(300, round + 1_000_000), 0, Wait::Yes).unwrap();
        workspace.tree().release(ino, true);
        publish(&workspace);
        cpu.push(client_us() - start);
        let after = stored(root.path());
        bytes.push(after.1 - before.1);
        // HEAD is replaced, not added.
        objects.push(after.0 - before.0 + 1.0);
    }
    let cost = VersionCost { cpu_us: median(cpu), bytes: median(bytes), objects: median(objects) };
    report.note(&format!("a version after one change among {files}"), cost.cpu_us, "us CPU");
    workspace.close(true).unwrap();
    cost
}

/// One byte inserted in the middle of a 256 MiB file, written anew as editors do.
pub fn insert_one_byte(report: &mut Report) {
    const LEN: usize = 256 << 20;
    let root = tempfile::tempdir().unwrap();
    let workspace = workspace(root.path());
    let mut bytes = noise(LEN, 5);
    let ino = make(&workspace, Ino::ROOT, "large", &NewNode::File, true);
    write_all(&workspace, ino, &bytes);
    publish(&workspace);
    let before = stored(root.path());
    bytes.insert(LEN / 2, b'!');
    workspace.tree().open(ino, true, true, 0, Wait::Yes).unwrap();
    write_all(&workspace, ino, &bytes);
    publish(&workspace);
    let after = stored(root.path());
    report.at_most("stored after one byte inserted in 256 MiB", (after.1 - before.1) / (1 << 20) as f64, "MiB", 8.0);
    workspace.close(true).unwrap();
}

fn write_all(workspace: &Workspace, ino: Ino, bytes: &[u8]) {
    for (index, block) in bytes.chunks(1 << 20).enumerate() {
        workspace.tree().write(ino, (index << 20) as u64, block, 0, Wait::Yes).unwrap();
    }
    workspace.tree().release(ino, true);
}

pub fn make(workspace: &Workspace, parent: Ino, name: &str, node: &NewNode, open: bool) -> Ino {
    let caller = Caller { uid: 0, gid: 0 };
    workspace.tree().make(parent, name.as_bytes(), node, 0o755, caller, open, Wait::Yes).unwrap().ino
}

pub fn publish(workspace: &Arc<Workspace>) {
    workspace.snapshot(None, None).unwrap();
    workspace.flush(Some(Duration::from_secs(60))).unwrap();
}

/// The workspace below `root`, made when it is not there, without background threads: nothing happens
/// that was not asked for.
pub fn workspace(root: &Path) -> Arc<Workspace> {
    let passphrase = || Credential::Passphrase(Secret::from_text("benchmark".to_owned()));
    let store = StoreUrl::Dir(root.join("store"));
    let mut options = InitOptions::new(vec![NewSlot { label: "benchmark".to_owned(), credential: passphrase() }]);
    (options.kdf, options.recovery_code) = (KdfParams::minimum(), false);
    if !root.join("store").exists() {
        Workspace::init(&store, options).unwrap();
    }
    let credential = Box::new(move || Ok(passphrase()));
    Workspace::open(OpenOptions::new(store, root.join("state"), root.join("cache"), credential)).unwrap()
}

/// Objects in the store below `root`, and their bytes.
pub fn stored(root: &Path) -> (f64, f64) {
    let (mut count, mut bytes) = (0.0, 0.0);
    let mut dirs = vec![root.join("store")];
    while let Some(dir) = dirs.pop() {
        for item in std::fs::read_dir(dir).unwrap() {
            let item = item.unwrap();
            if item.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let metadata = item.metadata().unwrap();
            if metadata.is_dir() {
                dirs.push(item.path());
            } else {
                count += 1.0;
                bytes += metadata.len() as f64;
            }
        }
    }
    (count, bytes)
}
