//! How many requests the kernel sends for what programs do, and why each is needed.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use kura::control::Dispatcher;
use kura::fs::{Fs, FsOptions};
use kura::fuse::{MountOptions, Mounted, mount};

use super::engine::{publish, workspace};
use super::report::Report;
use super::target::noise;

const FILES: usize = 100;

struct Row {
    name: &'static str,
    /// Requests for each operation beyond which something has become worse.
    limit: f64,
    why: &'static str,
    work: fn(&Path),
}

const ROWS: &[Row] = &[
    Row {
        name: "create, write 4 KiB, close",
        limit: 7.0,
        why: "LOOKUP: the name is free; CREATE; GETXATTR: the kernel asks for security.capability; WRITE; FLUSH: what \
              is closed is kept before the close returns; RELEASE: the close publishes; GETATTR of the directory, \
              whose times changed, unless only root may enter",
        work: |dir| each(|name| fs::write(dir.join(name), [7; 4096]).unwrap()),
    },
    Row {
        name: "stat, the first after a write",
        limit: 1.1,
        why: "GETATTR: after a write the kernel does not know how many blocks the file has",
        work: |dir| each(|name| assert!(fs::metadata(dir.join(name)).is_ok())),
    },
    Row {
        name: "stat, again",
        limit: 0.1,
        why: "nothing: attributes do not expire",
        work: |dir| each(|name| assert!(fs::metadata(dir.join(name)).is_ok())),
    },
    Row {
        name: "open, read 4 KiB, close",
        limit: 3.0,
        why: "OPEN and RELEASE: drafts and deleted files need to know who has a file open; READ",
        work: |dir| each(|name| drop(fs::read(dir.join(name)).unwrap())),
    },
    Row {
        name: "open, read 4 KiB, close, again",
        limit: 2.0,
        why: "OPEN and RELEASE; the bytes are in the kernel",
        work: |dir| each(|name| drop(fs::read(dir.join(name)).unwrap())),
    },
    Row {
        name: "append 128 bytes, fsync",
        limit: 3.0,
        why: "WRITE and FSYNC; the first write asks for security.capability",
        work: |dir| {
            let mut file = OpenOptions::new().append(true).open(dir.join("file0")).unwrap();
            each(|_| {
                file.write_all(&[1; 128]).unwrap();
                file.sync_all().unwrap();
            });
        },
    },
    Row {
        name: "unpack as root: create, write, utimes, chown, chmod, close",
        limit: 11.0,
        why: "as for a new file, and three SETATTRs, before one of which the kernel asks for security.capability again",
        work: |dir| {
            each(|name| {
                let mut file = File::create(dir.join(format!("{name}.unpacked"))).unwrap();
                file.write_all(&[7; 4096]).unwrap();
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
                let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
                std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).unwrap();
                file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
            })
        },
    },
    Row {
        name: "ls -l, per file",
        limit: 1.5,
        why: "GETATTR of each file that was written lately, READDIRPLUS now and then; extended attributes of the \
              system are asked for once",
        work: |dir| list(dir),
    },
    Row { name: "ls -l, again", limit: 0.1, why: "nothing: names and attributes do not expire", work: |dir| list(dir) },
    Row {
        name: "mkdir, rmdir",
        limit: 5.0,
        why: "LOOKUP: the name is free; MKDIR; RMDIR; unless only root may enter, GETATTR of the directory, twice",
        work: |dir| {
            each(|name| {
                fs::create_dir(dir.join(format!("{name}.dir"))).unwrap();
                fs::remove_dir(dir.join(format!("{name}.dir"))).unwrap();
            })
        },
    },
    Row {
        name: "rename",
        limit: 3.0,
        why: "LOOKUP: whether the new name is taken; RENAME; GETATTR of the directory, unless only root may enter",
        work: |dir| each(|name| fs::rename(dir.join(name), dir.join(format!("{name}.new"))).unwrap()),
    },
    Row {
        name: "unlink",
        limit: 2.0,
        why: "UNLINK; GETATTR of the directory, unless only root may enter",
        work: |dir| each(|name| fs::remove_file(dir.join(format!("{name}.new"))).unwrap()),
    },
    Row {
        name: "write, per MiB",
        limit: 1.1,
        why: "WRITE; the kernel sends no more than 1 MiB at once",
        work: |dir| {
            let mut file = File::create(dir.join("large")).unwrap();
            let block = vec![3; 1 << 20];
            each(|_| file.write_all(&block).unwrap());
        },
    },
    Row {
        name: "cold read, per MiB",
        limit: 9.0,
        why: "eight READs: the kernel reads ahead 128 KiB, which only root could raise (measured: nothing gained)",
        work: |dir| {
            let mut file = File::open(dir.join("large")).unwrap();
            nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
            assert_eq!(file.read_to_end(&mut Vec::new()).unwrap(), FILES << 20);
        },
    },
    Row {
        name: "warm read, per MiB",
        limit: 0.1,
        why: "nothing but OPEN and RELEASE: the bytes are in the kernel",
        work: |dir| drop(fs::read(dir.join("large")).unwrap()),
    },
    Row {
        name: "overwrite 4 KiB here and there",
        limit: 1.2,
        why: "WRITE",
        work: |dir| {
            let file = OpenOptions::new().write(true).open(dir.join("large")).unwrap();
            let mut at = 0;
            each(|_| {
                at = (at + 7919 * 4096) % (FILES as u64 * 256 * 4096);
                file.write_all_at(&noise(4096, at + 1), at).unwrap();
            });
        },
    },
];

fn list(dir: &Path) {
    let listed = Command::new("ls").arg("-l").arg(dir).stdout(Stdio::null()).status().unwrap();
    assert!(listed.success());
}

fn each(mut work: impl FnMut(&str)) {
    (0..FILES).for_each(|index| work(&format!("file{index}")));
}

/// The rows, counted on a mount in this process.
pub fn counts(report: &mut Report) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("mount");
    fs::create_dir(&dir).unwrap();
    let workspace = workspace(root.path());
    let (owner_uid, owner_gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let options = FsOptions { owner_uid, owner_gid, xattrs: true };
    let fs = Fs::new(workspace.clone(), options, Dispatcher::new(workspace.clone(), || {}).unwrap());
    let mounted = mount(Arc::new(fs), &dir, &MountOptions::default()).unwrap();
    for row in ROWS {
        let before = total(&mounted);
        (row.work)(&dir);
        let after = total(&mounted);
        let name = format!("requests: {}", row.name);
        report.at_most(&name, (after - before) as f64 / FILES as f64, "", row.limit);
        println!("    {}", row.why);
        publish(&workspace);
    }
    report.at_most("a small control request, median", control_ms(&dir), "ms", 5.0);
    drop(mounted);
    workspace.close(true).unwrap();
}

/// Milliseconds from opening a control file to having read its answer, in the middle.
fn control_ms(dir: &Path) -> f64 {
    let mut taken: Vec<f64> = (0..FILES)
        .map(|_| {
            let begun = Instant::now();
            let mut run = OpenOptions::new().read(true).write(true).open(dir.join(".kura/ctl/run")).unwrap();
            run.write_all(b"{\"op\": \"status\"}").unwrap();
            run.read_to_end(&mut Vec::new()).unwrap();
            drop(run);
            begun.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    taken.sort_by(f64::total_cmp);
    taken[FILES / 2]
}

/// Requests so far; forgetting costs nobody anything.
fn total(mounted: &Mounted) -> u64 {
    let counted = mounted.requests().into_iter().filter(|(operation, _)| format!("{operation:?}") != "Forget");
    counted.map(|(_, count)| count).sum()
}
