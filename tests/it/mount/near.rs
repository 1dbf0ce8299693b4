//! Readers of what lies on the local disk, programs that sync, and everybody else, side by side.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{major, minor};

use super::guard::{Place, is_root};
use crate::space::noise;

const LEN: usize = 12 << 20;
const LINES: usize = 60;

/// Reads the file cold in pieces, in order or from its end, and compares all of it.
fn read_cold(path: &Path, content: &[u8], piece: usize, backwards: bool) {
    let file = File::open(path).unwrap();
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    let mut offsets: Vec<usize> = (0..LEN).step_by(piece).collect();
    if backwards {
        offsets.reverse();
    }
    for offset in offsets {
        let mut bytes = vec![0; piece.min(LEN - offset)];
        file.read_exact_at(&mut bytes, offset as u64).unwrap();
        assert!(bytes == content[offset..offset + bytes.len()], "at {offset}");
    }
}

fn append_and_sync(dir: &Path, number: usize) {
    let path = dir.join(format!("log{number}"));
    let mut log = OpenOptions::new().append(true).create(true).open(path).unwrap();
    for line in 0..LINES {
        writeln!(log, "line {line}").unwrap();
        log.sync_all().unwrap();
        if line % 10 == 0 {
            File::open(dir).unwrap().sync_all().unwrap();
        }
    }
}

#[test]
fn cold_readers_and_programs_that_sync_do_not_stand_in_each_others_way() {
    let place = Place::new();
    let content = noise(LEN, 77);
    let mount = place.mount();
    fs::write(mount.at("large"), &content).unwrap();
    mount.end();
    let mount = place.mount();
    let (is_over, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        let work: Vec<_> = (0..6)
            .map(|number| {
                let (mount, content) = (&mount, &content);
                threads.spawn(move || match number {
                    0..4 => (0..4).for_each(|round| {
                        let piece = [4096, 100_000, 128 * 1024, 1 << 20][(number + round) % 4];
                        read_cold(&mount.at("large"), content, piece, number % 2 == 1);
                    }),
                    _ => append_and_sync(mount.path(), number),
                })
            })
            .collect();
        threads.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let name = format!("missing{}", looks.fetch_add(1, Ordering::SeqCst));
                assert!(fs::metadata(mount.at(&name)).is_err());
            }
        });
        let outcomes: Vec<_> = work.into_iter().map(|work| work.join()).collect();
        is_over.store(true, Ordering::SeqCst);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    assert!(looks.load(Ordering::SeqCst) > 100, "who needs no disk is served meanwhile");
    mount.end();
    let mount = place.mount();
    for number in 4..6 {
        let log = fs::read_to_string(mount.at(&format!("log{number}"))).unwrap();
        assert_eq!(log.lines().count(), LINES);
    }
    mount.end();
}

#[test]
fn the_kernel_reads_ahead_as_far_as_it_can_be_told_to() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let mount = place.mount();
    let device = fs::metadata(mount.path()).unwrap().dev();
    let told = fs::read_to_string(format!("/sys/class/bdi/{}:{}/read_ahead_kb", major(device), minor(device)));
    assert_eq!(told.unwrap().trim(), "512");
    mount.end();
}
