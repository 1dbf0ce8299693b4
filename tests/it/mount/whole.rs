//! Readers, versions and closes beside writers: always one whole state.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::guard::{Mount, Place, python};

/// Content that says of itself whether it is whole; some fit into one page, some into many requests.
fn content(round: usize) -> Vec<u8> {
    let repeated = if round % 11 == 10 { 40_000 } else { 1 + round * 13 % 2000 };
    format!("{round:08}").into_bytes().repeat(repeated)
}

fn round_of(bytes: &[u8]) -> Option<usize> {
    let round = std::str::from_utf8(bytes.get(..8)?).ok()?.parse().ok()?;
    (content(round) == bytes).then_some(round)
}

/// A reader that maps files; it ends when its standard input does.
const MAPPING: &str = "
import mmap, os, select, sys
count = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for number in range(3):
        fd = os.open(f'f{number}', os.O_RDONLY)
        size = os.fstat(fd).st_size
        memory = mmap.mmap(fd, size, prot=mmap.PROT_READ)
        data = memory[:]
        assert data == data[:8] * (len(data) // 8), (number, len(data))
        again = os.pread(fd, 1 << 20, 0)
        assert again == data, (number, len(data), len(again))
        round = int(data[:8])
        repeated = 40000 if round % 11 == 10 else 1 + round * 13 % 2000
        assert len(data) == 8 * repeated, (number, round, len(data))
        memory.close(); os.close(fd)
        count += 1
assert count > 0
";

#[test]
fn readers_of_files_that_are_replaced_see_one_whole_state() {
    let place = Place::new();
    let mount = place.mount();
    let path = |number: usize| mount.at(&format!("f{number}"));
    (0..3).for_each(|number| fs::write(path(number), content(0)).unwrap());
    let (done, reads, held) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut mapping = Command::new("python3");
    mapping.args(["-c", MAPPING]).current_dir(mount.path()).stdin(Stdio::piped());
    let mut mapping = mapping.spawn().unwrap();
    thread::scope(|scope| {
        for reader in 0..3 {
            let (done, reads) = (&done, &reads);
            scope.spawn(move || {
                for number in (reader..).take_while(|_| !done.load(Ordering::Relaxed)) {
                    // The size that is told belongs to what is read.
                    let mut file = File::open(path(number % 3)).unwrap();
                    let size = file.metadata().unwrap().len();
                    let mut bytes = Vec::new();
                    file.read_to_end(&mut bytes).unwrap();
                    assert!(round_of(&bytes).is_some() && bytes.len() as u64 == size, "{} bytes", bytes.len());
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            // An open file stays what it was opened as, however often its name is replaced.
            while !done.load(Ordering::Relaxed) {
                let mut file = File::open(path(0)).unwrap();
                let mut first = None;
                for _ in 0..5 {
                    let mut bytes = Vec::new();
                    file.rewind().unwrap();
                    file.read_to_end(&mut bytes).unwrap();
                    let round = round_of(&bytes).unwrap();
                    assert_eq!(*first.get_or_insert(round), round);
                    thread::yield_now();
                }
                held.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 1..1200 {
            let next = mount.at("next");
            fs::write(&next, content(round)).unwrap();
            if round % 50 == 0 {
                File::open(&next).unwrap().sync_all().unwrap();
            }
            fs::rename(&next, path(round % 3)).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    drop(mapping.stdin.take());
    assert!(mapping.wait().unwrap().success());
    assert!(reads.load(Ordering::Relaxed) > 0 && held.load(Ordering::Relaxed) > 0);
    mount.end();
}

/// Saves as editors do, until it is done: cut and written anew, a temporary file renamed, a backup kept.
fn edit(mount: &Mount, style: usize, done: &AtomicBool) {
    let path = mount.at(&format!("doc{style}"));
    for round in (1..).take_while(|_| !done.load(Ordering::Relaxed)) {
        match style {
            0 => {
                let mut file = File::create(&path).unwrap();
                content(round).chunks(3000).for_each(|part| file.write_all(part).unwrap());
            }
            1 => {
                let next = mount.at("doc1.new");
                fs::write(&next, content(round)).unwrap();
                fs::rename(&next, &path).unwrap();
            }
            _ => {
                fs::rename(&path, mount.at("doc2~")).unwrap();
                let mut file = File::create(&path).unwrap();
                file.write_all(&content(round)).unwrap();
                file.sync_all().unwrap();
            }
        }
    }
}

#[test]
fn every_version_taken_while_editors_save_holds_whole_files() {
    const VERSIONS: usize = 60;
    let place = Place::new();
    let mount = place.mount();
    (0..3).for_each(|style| fs::write(mount.at(&format!("doc{style}")), content(0)).unwrap());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for style in 0..3 {
            let (mount, done) = (&mount, &done);
            scope.spawn(move || edit(mount, style, done));
        }
        for number in 0..VERSIONS {
            fs::create_dir(mount.at(&format!(".kura/snapshots/s{number}"))).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut rounds = HashSet::new();
    for id in fs::read_dir(mount.at(".kura/versions/by-id")).unwrap() {
        for file in fs::read_dir(id.unwrap().path()).unwrap() {
            let file = file.unwrap();
            let bytes = fs::read(file.path()).unwrap();
            let round = round_of(&bytes);
            assert!(round.is_some(), "{} bytes in {}", bytes.len(), file.path().display());
            rounds.insert((file.file_name(), round));
        }
    }
    assert!(rounds.len() > VERSIONS, "versions differ: {}", rounds.len());
    mount.end();
}

#[test]
fn what_was_closed_before_is_in_the_version_whoever_closed_it() {
    let place = Place::new();
    let mount = place.mount();
    for round in 0..100 {
        let snapshot = mount.at(&format!(".kura/snapshots/s{round}"));
        if round % 2 == 0 {
            fs::write(mount.at("f"), content(round)).unwrap();
        } else {
            // Another process, which ends without closing.
            let line =
                format!("import os; f = os.open('f', 577); os.write(f, b'{round:08}' * {})", content(round).len() / 8);
            python(mount.path(), &line);
        }
        fs::create_dir(&snapshot).unwrap();
        assert!(fs::read(snapshot.join("f")).unwrap() == content(round), "round {round}");
    }
    // A child that has a copy of the descriptor does not publish what its parent is writing.
    python(
        mount.path(),
        "import os, subprocess
with open('shared', 'wb', buffering=0) as f:
    f.write(b'half')
    subprocess.run(['true'], stdout=f)
    os.mkdir('.kura/snapshots/half')
    assert not os.path.exists('.kura/snapshots/half/shared')
    f.write(b' and half')
os.mkdir('.kura/snapshots/whole')
assert open('.kura/snapshots/whole/shared', 'rb').read() == b'half and half'",
    );
    mount.end();
}
