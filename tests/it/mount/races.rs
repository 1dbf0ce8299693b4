//! Several at once.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::guard::{Place, sh};

/// Content that says of itself whether it is whole.
fn content(round: usize) -> Vec<u8> {
    format!("{round:08}").into_bytes().repeat(1 + round * 13 % 2000)
}

fn is_whole(bytes: &[u8]) -> bool {
    let head = std::str::from_utf8(&bytes[..bytes.len().min(8)]).ok().and_then(|head| head.parse().ok());
    head.is_some_and(|round| content(round) == bytes)
}

#[test]
fn a_file_that_is_replaced_is_always_there_and_always_whole() {
    let place = Place::new();
    let mount = place.mount();
    let (path, next) = (mount.at("f"), mount.at("next"));
    fs::write(&path, content(0)).unwrap();
    let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let mut bytes = Vec::new();
                    File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
                    assert!(is_whole(&bytes), "{} bytes", bytes.len());
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 1..1500 {
            fs::write(&next, content(round)).unwrap();
            if round % 50 == 0 {
                File::open(&next).unwrap().sync_all().unwrap();
            }
            fs::rename(&next, &path).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(reads.load(Ordering::Relaxed) > 0);
    mount.end();
}

#[test]
fn a_snapshot_in_the_middle_of_saves_holds_whole_files() {
    let place = Place::new();
    let mount = place.mount();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..2 {
            let (mount, done) = (&mount, &done);
            scope.spawn(move || {
                let mut round = 1;
                while !done.load(Ordering::Relaxed) {
                    fs::write(mount.at(&format!("f{number}")), content(round)).unwrap();
                    round += 1;
                }
            });
        }
        for round in 0..12 {
            fs::create_dir(mount.at(&format!(".kura/snapshots/s{round}"))).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    for round in 0..12 {
        for name in ["f0", "f1"] {
            let path = mount.at(&format!(".kura/snapshots/s{round}/{name}"));
            // Emptied and not yet closed is no state that a version records.
            match fs::read(&path) {
                Ok(bytes) => assert!(is_whole(&bytes), "{} bytes in {}", bytes.len(), path.display()),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
            }
        }
    }
    mount.end();
}

#[test]
fn a_file_closed_before_a_snapshot_is_in_it() {
    let place = Place::new();
    let mount = place.mount();
    for round in 0..40 {
        fs::write(mount.at("f"), content(round)).unwrap();
        let snapshot = mount.at(&format!(".kura/snapshots/s{round}"));
        fs::create_dir(&snapshot).unwrap();
        assert!(fs::read(snapshot.join("f")).unwrap() == content(round), "round {round}");
    }
    mount.end();
}

#[test]
fn writers_in_many_places_do_not_disturb_each_other() {
    let place = Place::new();
    let mount = place.mount();
    let shared =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(mount.at("shared")).unwrap();
    thread::scope(|scope| {
        for number in 0..6u64 {
            let (mount, shared) = (&mount, &shared);
            scope.spawn(move || {
                let dir = mount.at(&format!("d{number}"));
                fs::create_dir(&dir).unwrap();
                for round in 0..150u64 {
                    fs::write(dir.join(format!("{round}")), vec![round as u8; round as usize * 50]).unwrap();
                    shared.write_all_at(&[number as u8 + 1; 1000], (round * 6 + number) * 1000).unwrap();
                    if round % 3 == 0 {
                        fs::rename(dir.join(format!("{round}")), mount.at(&format!("moved-{number}-{round}"))).unwrap();
                    }
                    if round % 3 != 0 && round % 5 == 1 {
                        fs::remove_file(dir.join(format!("{round}"))).unwrap();
                    }
                    if round % 40 == 0 {
                        shared.sync_all().unwrap();
                    }
                }
            });
        }
    });
    drop(shared);
    let check = |mount: &super::guard::Mount| {
        let bytes = fs::read(mount.at("shared")).unwrap();
        assert_eq!(bytes.len(), 900_000);
        assert!(
            bytes.chunks(1000).enumerate().all(|(at, part)| part.iter().all(|byte| usize::from(*byte) == at % 6 + 1))
        );
        assert_eq!(sh(mount.path(), "find . -type f | wc -l").trim(), (6 * (150 - 20) + 1).to_string());
    };
    check(&mount);
    mount.end();
    let mount = place.mount();
    check(&mount);
    mount.end();
}
