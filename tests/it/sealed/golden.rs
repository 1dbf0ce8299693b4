//! Promise: a file of sealed documents that was written in format 1 opens for ever.
//!
//! The files were made by `makes_files_like_the_golden_ones` with `KURA_GOLDEN_DIR` naming the directory; they are
//! never made anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kura::apps::sealed::{
    Credentials, Damage, Machine, Place, Settings, SystemProcesses, add_document, create_file, read_document,
    update_file, verify_file,
};
use kura::base::clock::{ManualClock, Timestamp};
use kura::base::disk::RealDisk;
use kura::crypto::sharing::Field;

use super::support::*;

fn machine() -> Machine {
    Machine {
        disk: Arc::new(RealDisk),
        clock: Arc::new(ManualClock::new(Timestamp::from_parts(1_700_000_000, 0))),
        processes: Arc::new(SystemProcesses),
    }
}

const FILES: [(&str, Field, u16, usize); 3] = [
    ("gf256.sealed", Field::Gf256, 8, 300),
    ("prime.sealed", Field::Prime, 300, 200),
    ("frames.sealed", Field::Prime, 3, 70_000),
];

fn two_ids(slots: u16) -> [Vec<u16>; 2] {
    if slots == 3 { [vec![1, 3], Vec::new()] } else { [vec![2, 5, slots], vec![1, 4]] }
}

fn json(capacity: usize) -> String {
    format!("{{\"golden\":\"{}\",\"é\":[1,2.5,null,true]}}", "x".repeat(capacity - 200))
}

fn credentials_of(slots: u16) -> Vec<Credentials> {
    let [first, second] = two_ids(slots);
    let mut all = vec![credentials("correct horse", &first)];
    if !second.is_empty() {
        all.push(credentials("battery staple", &second));
    }
    all
}

fn make(dir: &Path) {
    for (name, field, slots, capacity) in FILES {
        let (machine, path) = (machine(), dir.join(name));
        let settings = Settings { capacity, ..small(field, slots) };
        let [first, second] = two_ids(slots);
        create_file(&machine, &path, &settings, &access("correct horse", &first, 2), b"{}").unwrap();
        let place = Place { backup: false, ..Place::of(&path) };
        let known = credentials_of(slots);
        if !second.is_empty() {
            let access = access("battery staple", &second, 2);
            add_document(&machine, &place, (&known[..1], true), &access, b"{\"second\":2}").unwrap();
        }
        update_file(&machine, &place, json(capacity).as_bytes(), &known[0]).unwrap();
    }
}

fn check(dir: &Path) {
    for (name, _, slots, capacity) in FILES {
        let (machine, path) = (machine(), dir.join(name));
        let known = credentials_of(slots);
        let first = read_document(&machine, &path, &known[0], Damage::Refuse).unwrap();
        assert_eq!((&first.json[..], first.revision), (json(capacity).as_bytes(), 2));
        assert_eq!(first.changed.parts().0, 1_700_000_000);
        if let Some(second) = known.get(1) {
            let second = read_document(&machine, &path, second, Damage::Refuse).unwrap();
            assert_eq!((&second.json[..], second.revision), (&b"{\"second\":2}"[..], 1));
        }
        for known in &known {
            assert!(verify_file(&machine, &path, Some(known)).unwrap().authentic);
        }
    }
}

#[test]
fn sealed_documents_of_format_1_open() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/sealed1");
    check(&golden);
    // And they can be changed.
    let copy = tempfile::tempdir().unwrap();
    for (name, _, slots, _) in FILES {
        let path = copy.path().join(name);
        std::fs::copy(golden.join(name), &path).unwrap();
        let known = credentials_of(slots);
        update_file(&machine(), &Place::of(&path), b"{\"new\":1}", &known[0]).unwrap();
        let found = read_document(&machine(), &path, &known[0], Damage::Refuse).unwrap();
        assert_eq!((&found.json[..], found.revision), (&b"{\"new\":1}"[..], 3));
    }
}

#[test]
fn makes_files_like_the_golden_ones() {
    let own = tempfile::tempdir().unwrap();
    let dir = std::env::var_os("KURA_GOLDEN_DIR").map_or_else(|| own.path().to_owned(), PathBuf::from);
    let dir = if std::env::var_os("KURA_GOLDEN_DIR").is_some() { dir.join("sealed1") } else { dir };
    std::fs::create_dir_all(&dir).unwrap();
    make(&dir);
    check(&dir);
}
