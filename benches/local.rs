//! Real mounts on a local store, beside native and gocryptfs.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::cpu::{client_us, resident_bytes};
use super::report::{Report, median};
use super::target::{Cost, Target, noise, source_text, source_tree};

const ROUNDS: usize = 5;

struct Sides {
    kura: Target,
    native: Target,
    gocryptfs: Option<Target>,
    ceiling: Target,
}

fn sides(root: &Path) -> Sides {
    let store = root.join("store");
    Sides {
        kura: Target::kura(root, store.to_str().unwrap(), true, &[]),
        native: Target::native(root),
        gocryptfs: Target::gocryptfs(root),
        ceiling: Target::ceiling(root),
    }
}

/// How much a workload may cost beside the same on the others; `None` where nothing is promised.
#[derive(Clone, Copy, Default)]
struct Bounds {
    gocryptfs: Option<f64>,
    gocryptfs_wall: Option<f64>,
    native: Option<f64>,
    ceiling: Option<f64>,
    background_us: Option<f64>,
}

/// So many times as fast as gocryptfs, and within 1.5 times of the ceiling.
fn faster(times: f64) -> Bounds {
    Bounds { gocryptfs: Some(1.0 / times), ceiling: Some(1.5), ..Bounds::default() }
}

/// At least 0.8 times as fast as native.
const AS_NATIVE: Bounds =
    Bounds { gocryptfs: None, gocryptfs_wall: None, native: Some(1.25), ceiling: None, background_us: None };

/// What of a cost is compared.
type Measure = fn(&Cost) -> f64;

/// Runs a workload on every side, `ROUNDS` times in turn, and reports medians per operation. Each round begins with
/// another side, and a ratio is the median of those within each round, so that it holds while the machine grows slower
/// or faster.
fn compare(
    report: &mut Report,
    sides: &mut Sides,
    name: &str,
    operations: usize,
    bounds: Bounds,
    work: &dyn Fn(&mut Target, usize) -> Cost,
) {
    let mut figures: [Vec<Cost>; 4] = Default::default();
    for round in 0..ROUNDS {
        let Sides { kura, native, gocryptfs, ceiling } = sides;
        let mut targets = [Some(kura), Some(native), gocryptfs.as_mut(), Some(ceiling)];
        for turn in 0..targets.len() {
            let index = (round + turn) % targets.len();
            figures[index].extend(targets[index].as_mut().map(|target| work(target, round).per(operations)));
        }
    }
    let (cpu, wall): (Measure, Measure) = (|cost| cost.request_us, |cost| cost.wall_us);
    let [kura, native, gocryptfs, ceiling] = &figures;
    let background_us = median(kura.iter().map(|cost| cost.background_us).collect());
    let background = format!("{name}: background until published");
    match bounds.background_us {
        Some(limit) => report.at_most(&background, background_us, "us CPU", limit),
        None => report.note(&background, background_us, "us CPU"),
    }
    let mut beside = |what: &str, other: &[Cost], measure: Measure, unit: &str, limit| {
        let pairs: Vec<_> = kura.iter().zip(other).map(|(ours, theirs)| (measure(ours), measure(theirs))).collect();
        report.ratio_of_pairs(&format!("{name}: {what}"), &pairs, unit, limit);
    };
    beside("kura / native", native, cpu, "us CPU", bounds.native);
    beside("kura / ceiling", ceiling, cpu, "us CPU", bounds.ceiling);
    if !gocryptfs.is_empty() {
        beside("kura / gocryptfs", gocryptfs, cpu, "us CPU", bounds.gocryptfs);
        beside("wall, kura / gocryptfs", gocryptfs, wall, "us", bounds.gocryptfs_wall);
    }
}

pub fn small_files(report: &mut Report) {
    let root = tempfile::tempdir().unwrap();
    let mut sides = sides(root.path());
    let bytes = noise(4096, 7);
    const FILES: usize = 2000;
    compare(report, &mut sides, "create 4 KiB file", FILES, faster(2.0), &|target, round| {
        target.measure(|dir| {
            let dir = dir.join(format!("create{round}"));
            fs::create_dir(&dir).unwrap();
            for index in 0..FILES {
                File::create(dir.join(format!("file{index}"))).unwrap().write_all(&bytes).unwrap();
            }
        })
    });
    warm_stat(report, &mut sides, FILES);
    warm_read(report, &mut sides, FILES);
    untar(report, root.path(), &mut sides);
    trees(report, &mut sides);
    compare(report, &mut sides, "rename", FILES, faster(2.0), &|target, round| {
        target.measure(|dir| {
            let dir = dir.join(format!("create{round}"));
            (0..FILES).for_each(|index| {
                fs::rename(dir.join(format!("file{index}")), dir.join(format!("renamed{index}"))).unwrap()
            });
        })
    });
    compare(report, &mut sides, "unlink", FILES, faster(1.3), &|target, round| {
        target.measure(|dir| {
            let dir = dir.join(format!("create{round}"));
            (0..FILES).for_each(|index| fs::remove_file(dir.join(format!("renamed{index}"))).unwrap());
        })
    });
    fsync_append(report, &mut sides);
}

fn warm_stat(report: &mut Report, sides: &mut Sides, files: usize) {
    const TIMES: usize = 25;
    compare(report, sides, "warm stat", files * TIMES, AS_NATIVE, &|target, round| {
        let stat = |dir: &Path| {
            for index in 0..files {
                fs::metadata(dir.join(format!("create{round}/file{index}"))).unwrap();
            }
        };
        stat(&target.dir);
        target.measure(|dir| (0..TIMES).for_each(|_| stat(dir)))
    });
}

fn warm_read(report: &mut Report, sides: &mut Sides, files: usize) {
    compare(report, sides, "warm open+read+close", files, faster(2.5), &|target, round| {
        let read = |dir: &Path| {
            (0..files).for_each(|index| drop(fs::read(dir.join(format!("create{round}/file{index}"))).unwrap()))
        };
        read(&target.dir);
        target.measure(read)
    });
}

/// Files of the tree.
const TREE_FILES: usize = 1500;

fn untar(report: &mut Report, root: &Path, sides: &mut Sides) {
    let tree = root.join("tree");
    source_tree(&tree, TREE_FILES);
    let archive = root.join("tree.tar");
    assert!(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&tree).arg(".").status().unwrap().success());
    compare(report, sides, "untar, per file", TREE_FILES, faster(2.0), &|target, round| {
        target.measure(|dir| {
            let to = dir.join(format!("untar{round}"));
            fs::create_dir(&to).unwrap();
            assert!(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&to).status().unwrap().success());
        })
    });
}

/// What is done with the trees that were unpacked.
fn trees(report: &mut Report, sides: &mut Sides) {
    const TIMES: usize = 5;
    compare(report, sides, "ls -lR, per file", TREE_FILES, faster(2.5), &|target, round| {
        let list = |dir: &Path| run("ls", &["-lR", &format!("untar{round}")], dir);
        list(&target.dir);
        target.measure(list)
    });
    compare(report, sides, "find -size warm, per file", TREE_FILES * TIMES, AS_NATIVE, &|target, round| {
        let tree = format!("untar{round}");
        let find = |dir: &Path| run("find", &[tree.as_str(), "-size", "+9999k"], dir);
        find(&target.dir);
        target.measure(|dir| (0..TIMES).for_each(|_| find(dir)))
    });
    compare(report, sides, "grep -r warm, per file", TREE_FILES, faster(2.5), &|target, round| {
        let search = |dir: &Path| run("grep", &["-rc", "static", &format!("untar{round}")], dir);
        search(&target.dir);
        target.measure(search)
    });
    compare(report, sides, "git init+add+commit, per file", TREE_FILES, faster(1.7), &|target, round| {
        target.measure(|dir| {
            let tree = dir.join(format!("untar{round}"));
            run("git", &["init", "-q"], &tree);
            run("git", &["add", "."], &tree);
            let who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0"];
            run("git", &[&who[..], &["commit", "-qm", "all"]].concat(), &tree);
        })
    });
    compare(report, sides, "git status warm, per file", TREE_FILES * TIMES, AS_NATIVE, &|target, round| {
        let status = |dir: &Path| run("git", &["status", "--short"], &dir.join(format!("untar{round}")));
        status(&target.dir);
        target.measure(|dir| (0..TIMES).for_each(|_| status(dir)))
    });
    compare(report, sides, "rm -rf, per file", TREE_FILES, faster(2.5), &|target, round| {
        target.measure(|dir| fs::remove_dir_all(dir.join(format!("untar{round}"))).unwrap())
    });
}

/// Runs a program in `dir`; what it prints is dropped.
fn run(program: &str, arguments: &[&str], dir: &Path) {
    let status = Command::new(program).args(arguments).current_dir(dir).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

fn fsync_append(report: &mut Report, sides: &mut Sides) {
    const APPENDS: usize = 200;
    let bounds = Bounds { gocryptfs_wall: Some(1.0 / 1.5), ..Bounds::default() };
    compare(report, sides, "append 128 B + fsync", APPENDS, bounds, &|target, round| {
        target.measure(|dir| {
            let mut file = OpenOptions::new().append(true).create(true).open(dir.join(format!("log{round}"))).unwrap();
            for _ in 0..APPENDS {
                file.write_all(&[b'x'; 128]).unwrap();
                file.sync_all().unwrap();
            }
        })
    });
}

/// Megabytes of a large file.
const MIB: usize = 256;
/// Megabytes of source text, of which there is only so much.
const TEXT_MIB: usize = 32;

pub fn large_files(report: &mut Report) {
    first_touch(report);
    large_files_of(report);
    first_touch(report);
}

/// What the machine takes for memory that nobody had lately: on a virtual one that gives free memory back to its host
/// it can be most of what any workload costs, and rise from one minute to the next.
fn first_touch(report: &mut Report) {
    const TOUCHED_MIB: usize = 512;
    let before = client_us();
    let bytes = std::hint::black_box(vec![1_u8; TOUCHED_MIB << 20]);
    let us = (client_us() - before) / TOUCHED_MIB as f64;
    drop(bytes);
    report.note("the machine: fresh memory, per MiB", us, "us CPU");
}

fn large_files_of(report: &mut Report) {
    let root = tempfile::tempdir().unwrap();
    let mut sides = sides(root.path());
    let (noisy, wordy) = (Some(3_500.0), Some(5_500.0));
    let bounds = Bounds { background_us: noisy, ..faster(1.5) };
    compare(report, &mut sides, "sequential write, per MiB", MIB, bounds, &|target, round| {
        let bytes = noise(MIB << 20, round as u64 + 1);
        target.measure(|dir| write_all(&mut File::create(dir.join(format!("large{round}"))).unwrap(), &bytes))
    });
    const PASSES: usize = 3;
    compare(report, &mut sides, "cold sequential read, per MiB", MIB * PASSES, faster(1.3), &|target, round| {
        // The ceiling forgets its files with the mount.
        if target.name != "ceiling" {
            target.remount();
        }
        target.warm_backing();
        let path = target.dir.join(format!("large{round}"));
        target.measure(|_| {
            for _ in 0..PASSES {
                drop_cached(&path);
                read_all(&path, MIB);
            }
        })
    });
    const READS: usize = 8000;
    compare(report, &mut sides, "random 4 KiB read in 256 MiB", READS, Bounds::default(), &|target, round| {
        let path = target.dir.join(format!("large{round}"));
        drop_cached(&path);
        target.measure(|_| read_at_random(&path, MIB as u64 * 256, READS))
    });
    compare(report, &mut sides, "random 4 KiB read in 32 MiB", READS, faster(1.3), &|target, round| {
        let path = target.dir.join(format!("large{round}"));
        drop_cached(&path);
        target.measure(|_| read_at_random(&path, 32 * 256, READS))
    });
    let bounds = Bounds { background_us: noisy, ..faster(1.5) };
    compare(report, &mut sides, "overwrite, per MiB", MIB, bounds, &|target, round| {
        let bytes = noise(MIB << 20, (round + ROUNDS) as u64 + 1);
        let open = |dir: &Path| OpenOptions::new().write(true).open(dir.join(format!("large{round}"))).unwrap();
        target.measure(|dir| write_all(&mut open(dir), &bytes))
    });
    compare(report, &mut sides, "warm sequential read, per MiB", MIB, faster(2.5), &|target, round| {
        let path = target.dir.join(format!("large{round}"));
        read_all(&path, MIB);
        target.measure(|_| read_all(&path, MIB))
    });
    let bounds = Bounds { background_us: wordy, ..faster(1.5) };
    let text = source_text((ROUNDS * TEXT_MIB) << 20);
    compare(report, &mut sides, "sequential write of text, per MiB", TEXT_MIB, bounds, &|target, round| {
        let bytes = &text[round * (TEXT_MIB << 20)..][..TEXT_MIB << 20];
        target.measure(|dir| write_all(&mut File::create(dir.join(format!("text{round}"))).unwrap(), bytes))
    });
}

/// Writes as programs do that write much.
fn write_all(file: &mut File, bytes: &[u8]) {
    bytes.chunks(1 << 20).for_each(|block| file.write_all(block).unwrap());
}

fn read_all(path: &Path, mib: usize) {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 1024 * 1024];
    let mut total = 0;
    while let Ok(count @ 1..) = file.read(&mut buffer) {
        total += count;
    }
    assert_eq!(total, mib * 1024 * 1024);
}

/// Reads blocks of 4 KiB here and there among the first `blocks` of a file.
fn read_at_random(path: &Path, blocks: u64, times: usize) {
    let file = File::open(path).unwrap();
    nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
    let mut buffer = [0; 4096];
    let mut state = 1_u64;
    for _ in 0..times {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        file.read_exact_at(&mut buffer, (state >> 33) % blocks * 4096).unwrap();
    }
}

fn drop_cached(path: &Path) {
    let file = File::open(path).unwrap();
    nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
}

/// A workspace of 100,000 files: mounting, listing, memory.
pub fn scale(report: &mut Report) {
    const FILES: usize = 100_000;
    let root = tempfile::tempdir().unwrap();
    let store = root.path().join("store");
    let mut kura = Target::kura(root.path(), store.to_str().unwrap(), true, &[]);
    for index in 0..FILES {
        let folder = kura.dir.join(format!("d{}", index / 200));
        if index % 200 == 0 {
            fs::create_dir(&folder).unwrap();
        }
        fs::write(folder.join(format!("file{index}")), index.to_le_bytes()).unwrap();
    }
    kura.unmount();
    let start = Instant::now();
    kura.mount();
    assert_eq!(fs::read_dir(&kura.dir).unwrap().count(), FILES / 200);
    report.at_most("mount of 100,000 files to the first ls", start.elapsed().as_secs_f64(), "s", 1.0);
    let start = Instant::now();
    let mut seen = 0;
    for folder in fs::read_dir(&kura.dir).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            seen += usize::from(file.unwrap().metadata().unwrap().size() == 8);
        }
    }
    assert_eq!(seen, FILES);
    report.note("ls -lR of 100,000 files", start.elapsed().as_secs_f64(), "s");
    report.at_most("resident after ls -lR", resident_bytes(kura.pid().unwrap()) / (1 << 20) as f64, "MiB", 300.0);
}
