//! Real mounts on a local store, beside native and gocryptfs.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::cpu::resident_bytes;
use super::report::{Report, median};
use super::target::{Cost, Target, noise, source_tree};

const ROUNDS: usize = 3;

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

/// Runs a workload on every side, `ROUNDS` times in turn, and reports medians per operation.
fn compare(
    report: &mut Report,
    sides: &mut Sides,
    name: &str,
    operations: usize,
    limit: Option<f64>,
    work: &dyn Fn(&mut Target, usize) -> Cost,
) {
    let mut figures: [Vec<Cost>; 4] = Default::default();
    for round in 0..ROUNDS {
        let Sides { kura, native, gocryptfs, ceiling } = sides;
        let targets = [Some(kura), Some(native), gocryptfs.as_mut(), Some(ceiling)];
        for (index, target) in targets.into_iter().enumerate() {
            figures[index].extend(target.map(|target| work(target, round).per(operations)));
        }
    }
    let middle = |costs: &[Cost], what: fn(&Cost) -> f64| median(costs.iter().map(what).collect());
    let ours = middle(&figures[0], |cost| cost.request_us);
    let unit = "us CPU";
    report.note(&format!("{name}: background until published"), middle(&figures[0], |cost| cost.background_us), unit);
    report.ratio(&format!("{name}: kura / native"), ours, middle(&figures[1], |cost| cost.request_us), unit, None);
    let least = middle(&figures[3], |cost| cost.request_us);
    report.ratio(&format!("{name}: kura / ceiling"), ours, least, unit, None);
    report.note(&format!("{name}: wall, kura"), middle(&figures[0], |cost| cost.wall_us), "us");
    if !figures[2].is_empty() {
        report.note(&format!("{name}: wall, gocryptfs"), middle(&figures[2], |cost| cost.wall_us), "us");
        report.ratio(
            &format!("{name}: kura / gocryptfs"),
            ours,
            middle(&figures[2], |cost| cost.request_us),
            unit,
            limit,
        );
    }
}

pub fn small_files(report: &mut Report) {
    let root = tempfile::tempdir().unwrap();
    let mut sides = sides(root.path());
    let bytes = noise(4096, 7);
    const FILES: usize = 2000;
    compare(report, &mut sides, "create 4 KiB file", FILES, Some(1.0), &|target, round| {
        target.measure(|dir| {
            let dir = dir.join(format!("create{round}"));
            fs::create_dir(&dir).unwrap();
            for index in 0..FILES {
                File::create(dir.join(format!("file{index}"))).unwrap().write_all(&bytes).unwrap();
            }
        })
    });
    warm_stat(report, &sides, FILES);
    warm_read(report, &mut sides, FILES);
    untar(report, root.path(), &mut sides);
    compare(report, &mut sides, "rename", FILES, None, &|target, round| {
        target.measure(|dir| {
            let dir = dir.join(format!("create{round}"));
            (0..FILES).for_each(|index| {
                fs::rename(dir.join(format!("file{index}")), dir.join(format!("renamed{index}"))).unwrap()
            });
        })
    });
    compare(report, &mut sides, "unlink", FILES, None, &|target, round| {
        target.measure(|dir| {
            let dir = dir.join(format!("create{round}"));
            (0..FILES).for_each(|index| fs::remove_file(dir.join(format!("renamed{index}"))).unwrap());
        })
    });
    fsync_append(report, &mut sides);
}

fn warm_stat(report: &mut Report, sides: &Sides, files: usize) {
    const TIMES: usize = 5;
    let stat = |dir: &Path| {
        for index in 0..files {
            fs::metadata(dir.join(format!("create0/file{index}"))).unwrap();
        }
    };
    let mut figures: [Vec<f64>; 2] = Default::default();
    for (index, target) in [&sides.kura, &sides.native].into_iter().enumerate() {
        stat(&target.dir);
        for _ in 0..TIMES {
            let cost = target.measure(|dir| (0..5).for_each(|_| stat(dir)));
            figures[index].push(cost.per(files * 5).request_us);
        }
    }
    let [ours, native] = figures.map(median);
    report.ratio("warm stat: kura / native", ours, native, "us CPU", Some(1.3));
}

fn warm_read(report: &mut Report, sides: &mut Sides, files: usize) {
    compare(report, sides, "warm open+read+close", files, None, &|target, round| {
        let read = |dir: &Path| {
            (0..files).for_each(|index| drop(fs::read(dir.join(format!("create{round}/file{index}"))).unwrap()))
        };
        read(&target.dir);
        target.measure(read)
    });
}

fn untar(report: &mut Report, root: &Path, sides: &mut Sides) {
    const FILES: usize = 1500;
    let tree = root.join("tree");
    source_tree(&tree, FILES);
    let archive = root.join("tree.tar");
    assert!(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&tree).arg(".").status().unwrap().success());
    compare(report, sides, "untar, per file", FILES, Some(1.0), &|target, round| {
        target.measure(|dir| {
            let to = dir.join(format!("untar{round}"));
            fs::create_dir(&to).unwrap();
            assert!(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&to).status().unwrap().success());
        })
    });
    compare(report, sides, "ls -lR, per file", FILES, Some(1.0 / 2.5), &|target, round| {
        let list = |dir: &Path| run("ls", &["-lR", &format!("untar{round}")], dir);
        list(&target.dir);
        target.measure(list)
    });
    compare(report, sides, "grep -r warm, per file", FILES, Some(1.0 / 2.5), &|target, round| {
        let search = |dir: &Path| run("grep", &["-rc", "static", &format!("untar{round}")], dir);
        search(&target.dir);
        target.measure(search)
    });
    compare(report, sides, "git init+add+commit, per file", FILES, Some(1.0 / 1.7), &|target, round| {
        target.measure(|dir| {
            let tree = dir.join(format!("untar{round}"));
            run("git", &["init", "-q"], &tree);
            run("git", &["add", "."], &tree);
            let who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0"];
            run("git", &[&who[..], &["commit", "-qm", "all"]].concat(), &tree);
        })
    });
    compare(report, sides, "rm -rf, per file", FILES, None, &|target, round| {
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
    compare(report, sides, "append 128 B + fsync", APPENDS, None, &|target, round| {
        target.measure(|dir| {
            let mut file = OpenOptions::new().append(true).create(true).open(dir.join(format!("log{round}"))).unwrap();
            for _ in 0..APPENDS {
                file.write_all(&[b'x'; 128]).unwrap();
                file.sync_all().unwrap();
            }
        })
    });
}

pub fn large_files(report: &mut Report) {
    const MIB: usize = 256;
    let root = tempfile::tempdir().unwrap();
    let mut sides = sides(root.path());
    let bytes = noise(1024 * 1024, 3);
    compare(report, &mut sides, "sequential write, per MiB", MIB, Some(1.0 / 1.5), &|target, round| {
        target.measure(|dir| {
            let mut file = File::create(dir.join(format!("large{round}"))).unwrap();
            for index in 0..MIB {
                let mut block = bytes.clone();
                block[..8].copy_from_slice(&(index + round * MIB).to_le_bytes());
                file.write_all(&block).unwrap();
            }
        })
    });
    compare(report, &mut sides, "cold sequential read, per MiB", MIB, Some(1.0 / 1.3), &|target, round| {
        // The ceiling forgets its files with the mount.
        if target.name != "ceiling" {
            target.remount();
        }
        drop_cached(&target.dir.join(format!("large{round}")));
        target.measure(|dir| read_all(&dir.join(format!("large{round}")), MIB))
    });
    const READS: usize = 8000;
    compare(report, &mut sides, "random 4 KiB read", READS, None, &|target, round| {
        let path = target.dir.join(format!("large{round}"));
        drop_cached(&path);
        target.measure(|_| read_at_random(&path, MIB as u64 * 256, READS))
    });
    compare(report, &mut sides, "random 4 KiB read in 32 MiB", READS, Some(1.0 / 1.3), &|target, round| {
        let path = target.dir.join(format!("large{round}"));
        drop_cached(&path);
        target.measure(|_| read_at_random(&path, 32 * 256, READS))
    });
    compare(report, &mut sides, "overwrite, per MiB", MIB, Some(1.0 / 1.5), &|target, round| {
        target.measure(|dir| {
            let mut file = OpenOptions::new().write(true).open(dir.join(format!("large{round}"))).unwrap();
            for index in 0..MIB {
                let mut block = bytes.clone();
                block[..8].copy_from_slice(&(index + (round + ROUNDS) * MIB).to_le_bytes());
                file.write_all(&block).unwrap();
            }
        })
    });
    compare(report, &mut sides, "warm sequential read, per MiB", MIB, None, &|target, round| {
        let path = target.dir.join(format!("large{round}"));
        read_all(&path, MIB);
        target.measure(|_| read_all(&path, MIB))
    });
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
