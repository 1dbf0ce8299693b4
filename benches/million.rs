//! A workspace of a million files: mounting, listing, memory, the cost of one change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use kura::version::entry::Ino;
use kura::workspace::Workspace;
use kura::worktree::{NewNode, Reason, Wait};

use super::cpu::{client_us, resident_bytes};
use super::engine::{make, publish, stored, workspace};
use super::report::{Report, median};
use super::target::Target;

/// Names in the one large directory.
const LARGE: usize = 100_000;
/// Names in each other directory.
const SMALL: usize = 300;
/// Directories that hold those, in each directory above.
const GROUP: usize = 100;

/// Files in all; fewer for a quick look.
fn files() -> usize {
    std::env::var("KURA_BENCH_FILES").ok().and_then(|files| files.parse().ok()).unwrap_or(1_000_000)
}

/// Figures for a million files.
pub fn million(report: &mut Report) {
    let root = tempfile::tempdir().unwrap();
    let files = files();
    generate(report, root.path(), files);
    one_change(report, root.path(), files);
    let store = root.path().join("store");
    let mut kura = Target::kura(root.path(), store.to_str().unwrap(), false, &[]);
    kura.unmount();
    let start = Instant::now();
    kura.mount();
    assert!(fs::read_dir(&kura.dir).unwrap().count() > 1);
    report.at_most("mount of a million files to the first ls", start.elapsed().as_secs_f64(), "s", 1.0);
    report.note("resident then", resident_bytes(kura.pid().unwrap()) / (1 << 20) as f64, "MiB");
    let start = Instant::now();
    assert!(fs::read_dir(kura.dir.join("large")).unwrap().count() >= LARGE.min(files));
    report.note("ls of a directory of 100,000 names, cold", start.elapsed().as_secs_f64(), "s");
    let start = Instant::now();
    let (seen, peak) = walk(&kura);
    assert!(seen >= files, "{seen} of {files} names");
    report.note("ls -lR of a million files, cold", start.elapsed().as_secs_f64(), "s");
    report.at_most("largest resident size during ls -lR", peak / (1 << 20) as f64, "MiB", 300.0);
    let state = bytes_below(&root.path().join("state"));
    report.at_most("local state", state / (1 << 20) as f64, "MiB", 16.0);
    kura.unmount();
}

fn generate(report: &mut Report, root: &Path, files: usize) {
    let workspace = workspace(root);
    let start = Instant::now();
    let mut parent = make(&workspace, Ino::ROOT, "large", &NewNode::Directory, false);
    let mut group = Ino::ROOT;
    for index in 0..files {
        if let Some(small) = index.checked_sub(LARGE)
            && small.is_multiple_of(SMALL)
        {
            if (small / SMALL).is_multiple_of(GROUP) {
                group =
                    make(&workspace, Ino::ROOT, &format!("group{}", small / SMALL / GROUP), &NewNode::Directory, false);
            }
            parent = make(&workspace, group, &format!("dir{}", small / SMALL), &NewNode::Directory, false);
        }
        save(&workspace, parent, &format!("file{index}"), &index.to_le_bytes());
        if index % 50_000 == 49_999 {
            workspace.tree().absorb_all().unwrap();
            workspace.tree().checkpoint(&Reason::automatic()).unwrap();
        }
    }
    publish(&workspace);
    report.note("making a million files, each", start.elapsed().as_secs_f64() * 1e6 / files as f64, "us");
    workspace.close(true).unwrap();
}

fn save(workspace: &Workspace, parent: Ino, name: &str, bytes: &[u8]) {
    let ino = make(workspace, parent, name, &NewNode::File, true);
    workspace.tree().write(ino, 0, bytes, 0, Wait::Yes).unwrap();
    workspace.tree().release(ino, true);
    workspace.tree().forget(ino, 1);
}

/// One file changed, recorded and published; in small directories and in the large one.
fn one_change(report: &mut Report, root: &Path, files: usize) {
    let workspace = workspace(root);
    let tree = workspace.tree();
    let mut small = tree.lookup(Ino::ROOT, b"group0", Wait::Yes).map_or(Ino::ROOT, |attr| attr.ino);
    small = tree.lookup(small, b"dir0", Wait::Yes).map_or(Ino::ROOT, |attr| attr.ino);
    let large = tree.lookup(Ino::ROOT, b"large", Wait::Yes).unwrap().ino;
    for (what, dir) in [("in a directory of 300", small), ("in one of 100,000", large)] {
        let (mut cpu, mut objects, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..9 {
            save(&workspace, dir, &format!("{what} {round}"), b"one more");
            tree.absorb_all().unwrap();
            let (before, start) = (stored(root), client_us());
            tree.checkpoint(&Reason::automatic()).unwrap();
            cpu.push((client_us() - start) / 1000.0);
            publish(&workspace);
            let after = stored(root);
            // Two versions: `publish` takes a snapshot of its own. HEAD is replaced, not added.
            objects.push(after.0 - before.0);
            bytes.push(after.1 - before.1);
        }
        report.at_most(&format!("a version after one change {what}, CPU"), median(cpu), "ms", 20.0);
        report.at_most(&format!("objects of two versions {what}, and HEAD"), median(objects) + 1.0, "objects", 7.0);
        report.note(&format!("their bytes, among {files}"), median(bytes), "bytes");
    }
    workspace.close(true).unwrap();
}

/// Looks at every name; counts them, and the largest resident size on the way.
fn walk(kura: &Target) -> (usize, f64) {
    let pid = kura.pid().unwrap();
    let (mut seen, mut peak) = (0, resident_bytes(pid));
    let mut dirs = vec![kura.dir.clone()];
    while let Some(dir) = dirs.pop() {
        for item in fs::read_dir(dir).unwrap() {
            let item = item.unwrap();
            let metadata = item.metadata().unwrap();
            if metadata.is_dir() {
                dirs.push(item.path());
            } else {
                seen += usize::from(metadata.size() == 8);
            }
        }
        peak = peak.max(resident_bytes(pid));
    }
    (seen, peak)
}

fn bytes_below(dir: &Path) -> f64 {
    let items = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let bytes = |item: fs::DirEntry| match item.metadata().unwrap() {
        metadata if metadata.is_dir() => bytes_below(&item.path()),
        metadata => metadata.len() as f64,
    };
    items.map(bytes).sum()
}
