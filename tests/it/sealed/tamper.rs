//! A file of sealed documents that somebody altered is refused, and says nothing to who has no password.

use std::path::Path;

use kura::apps::sealed::{Credentials, Damage, SealedError, create_file, read_document, verify_file};
use kura::crypto::sharing::Field;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::support::*;

const HEADER_LEN: usize = 96;
const FRONT_LEN: usize = 160;

fn slot_len(bytes: &[u8], slots: usize) -> usize {
    (bytes.len() - FRONT_LEN) / slots
}

/// Computes the checksum anew, as whoever alters a file on purpose does.
fn with_checksum(mut bytes: Vec<u8>, slots: usize) -> Vec<u8> {
    let slot_len = slot_len(&bytes, slots);
    let mut hash = Sha256::new();
    hash.update(b"kura/1/sealed/checksum");
    hash.update(&bytes[..HEADER_LEN]);
    for slot in bytes[FRONT_LEN..].chunks(slot_len) {
        hash.update(Sha256::digest(slot));
    }
    bytes[HEADER_LEN..HEADER_LEN + 32].copy_from_slice(&hash.finalize());
    bytes
}

#[test]
fn the_checksum_is_as_it_is_drawn() {
    let machine = machine(&disk());
    make_two(&machine, &small(Field::Gf256, 6));
    assert_eq!(with_checksum(bytes(&machine), 6), bytes(&machine));
}

/// Every operation refuses the file; nothing of it changes.
fn refused(bytes: &[u8], credentials: &Credentials, what: &str) {
    let machine = &machine_with(bytes);
    let answers = [
        read(machine, credentials).map(|_| ()).unwrap_err(),
        update(machine, credentials, "{}").unwrap_err(),
        verify_file(machine, Path::new(FILE), Some(credentials)).map(|_| ()).unwrap_err(),
    ];
    for answer in answers {
        let expected = matches!(
            answer,
            SealedError::Damaged { .. } | SealedError::NotSealed { .. } | SealedError::NewerFormat { .. }
        );
        assert!(expected, "{what}: {answer:?}");
    }
    assert_eq!(super::support::bytes(machine), bytes, "{what}");
    assert!(leftovers(machine).is_empty(), "{what}");
}

#[test]
fn every_altered_byte_is_noticed() {
    let machine = machine(&disk());
    let [one, _] = make_two(&machine, &small(Field::Gf256, 6));
    let good = bytes(&machine);
    let step = if is_long() { 7 } else { 37 };
    for at in (0..FRONT_LEN).chain((FRONT_LEN..good.len()).step_by(step)) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        refused(&bad, &one, &format!("byte {at}"));
        // Accidents show without a password; only the authentication itself needs one.
        let seen = verify_file(&machine_with(&bad), Path::new(FILE), None);
        assert_eq!(seen.is_err(), !(128..160).contains(&at), "byte {at}");
    }
    for len in (0..good.len()).step_by(step).chain([good.len() - 1]) {
        refused(&good[..len], &one, &format!("cut to {len}"));
    }
    refused(&[&good[..], &[0]].concat(), &one, "one byte more");
}

/// Whoever computes the checksum anew is noticed as well, by the owner of any document, wherever the byte lies: in
/// the document's own slots, in those of others, in unused ones.
#[test]
fn an_alteration_on_purpose_is_noticed_by_all_owners_alike() {
    for field in FIELDS {
        let machine = machine(&disk());
        let [one, two] = make_two(&machine, &small(field, 6));
        let good = bytes(&machine);
        let slot_len = slot_len(&good, 6);
        for id in 1..=6 {
            // Salt, commitment, description, share.
            for within in [0, 40, 70, 100, 115, slot_len - 1] {
                let mut bad = good.clone();
                bad[FRONT_LEN + (id - 1) * slot_len + within] ^= 0x10;
                let bad = with_checksum(bad, 6);
                refused(&bad, &one, &format!("slot {id}, byte {within}"));
                refused(&bad, &two, &format!("slot {id}, byte {within}"));
                let machine = machine_with(&bad);
                assert!(verify_file(&machine, Path::new(FILE), None).is_ok());
                let stranger = read(&machine, &credentials("wrong", &[1, 4, 5]));
                assert!(matches!(stranger, Err(SealedError::NoDocument { .. })));
            }
        }
    }
}

#[test]
fn slots_of_other_places_times_and_files_are_noticed() {
    let machine = machine(&disk());
    let [one, two] = make_two(&machine, &small(Field::Gf256, 6));
    let old = bytes(&machine);
    let slot_len = slot_len(&old, 6);
    let slot = |id: usize| FRONT_LEN + (id - 1) * slot_len..FRONT_LEN + id * slot_len;
    update(&machine, &one, "{\"name\":\"newer\"}").unwrap();
    let good = bytes(&machine);
    for (a, b) in [(1, 4), (1, 2), (2, 3), (3, 5)] {
        let mut bad = good.clone();
        bad[slot(a)].copy_from_slice(&good[slot(b)]);
        bad[slot(b)].copy_from_slice(&good[slot(a)]);
        refused(&with_checksum(bad, 6), &one, &format!("slots {a} and {b} exchanged"));
    }
    for ids in [&[1][..], &[1, 4], &[1, 4, 5]] {
        let mut bad = good.clone();
        for id in ids {
            bad[slot(*id)].copy_from_slice(&old[slot(*id)]);
        }
        refused(&with_checksum(bad.clone(), 6), &one, &format!("slots {ids:?} of an earlier time"));
        refused(&with_checksum(bad, 6), &two, &format!("slots {ids:?} of an earlier time"));
    }
    // The same documents under the same passwords in another file.
    let foreign = Path::new("/dir/foreign.sealed");
    create_file(&machine, foreign, &small(Field::Gf256, 6), &access("one", &[1, 4, 5], 2), b"{}").unwrap();
    let foreign = kura::base::disk::read_file(machine.disk.as_ref(), foreign, usize::MAX).unwrap();
    let mut bad = good.clone();
    bad[slot(1)].copy_from_slice(&foreign[slot(1)]);
    refused(&with_checksum(bad, 6), &one, "a slot of another file");
    // The UUID of another file: ids and password give other keys there, so nothing opens.
    let mut bad = good.clone();
    bad[12..28].copy_from_slice(&foreign[12..28]);
    assert_ne!(bad, good);
    replace(&machine, &bad);
    assert!(matches!(verify_file(&machine, Path::new(FILE), None), Err(SealedError::Damaged { .. })));
    replace(&machine, &with_checksum(bad, 6));
    assert!(matches!(read(&machine, &one), Err(SealedError::NoDocument { .. })));
    assert!(matches!(update(&machine, &one, "{}"), Err(SealedError::NoDocument { .. })));
    // A whole earlier file is one that was right; nothing in it can tell.
    replace(&machine, &old);
    assert_eq!((text(&machine, &one), read(&machine, &one).unwrap().revision), ("{\"name\":\"one\"}".to_owned(), 1));
}

/// Two of the three shares are enough when damage is accepted; one is not.
#[test]
fn what_is_left_of_a_document_can_be_read_when_it_is_asked_for() {
    for field in FIELDS {
        let machine = machine(&disk());
        let [one, two] = make_two(&machine, &small(field, 6));
        let good = bytes(&machine);
        let slot_len = slot_len(&good, 6);
        let damage = |bytes: &mut Vec<u8>, id: usize, within: usize| {
            bytes[FRONT_LEN + (id - 1) * slot_len + within] ^= 1;
        };
        let accepted =
            |credentials: &Credentials| read_document(&machine, Path::new(FILE), credentials, Damage::Accept);
        for within in [0, 40, 70, 120] {
            let mut bad = good.clone();
            damage(&mut bad, 4, within);
            replace(&machine, &bad);
            assert!(matches!(read(&machine, &one), Err(SealedError::Damaged { .. })));
            assert_eq!(&accepted(&one).unwrap().json[..], b"{\"name\":\"one\"}");
            assert_eq!(&accepted(&two).unwrap().json[..], b"{\"name\":\"two\"}");
            damage(&mut bad, 1, within);
            replace(&machine, &bad);
            assert!(matches!(accepted(&one), Err(SealedError::Damaged { .. })));
            assert!(accepted(&two).is_ok());
        }
    }
}

/// A header is refused by its bounds before anything is allocated or stretched by it.
#[test]
fn a_hostile_header_costs_nothing() {
    let machine = machine(&disk());
    let [one, _] = make_two(&machine, &small(Field::Gf256, 6));
    let good = bytes(&machine);
    for (at, value) in [
        (28, u32::MAX),
        (28, 0),
        (28, 4 << 20),
        (32, 0),
        (32, 17),
        (32, u32::MAX),
        (36, 0),
        (36, 9),
        (40, 0),
        (40, 1),
        (40, 256),
        (40, 65_537),
        (40, u32::MAX),
        (44, 0),
        (44, 31),
        (44, 33),
        (44, u32::MAX),
        (44, (8 << 20) + 32),
        (80, 1),
        (92, 1),
    ] {
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
        replace(&machine, &bad);
        assert!(matches!(read(&machine, &one), Err(SealedError::Damaged { .. })), "{value} at {at}");
    }
    let mut newer = good.clone();
    newer[8] = 2;
    replace(&machine, &newer);
    assert!(matches!(read(&machine, &one), Err(SealedError::NewerFormat { found: 2, .. })));
    // Version 7 in place of 4, and another variant.
    for (at, value) in [(18, 0x70), (20, 0x00)] {
        let mut bad = good.clone();
        bad[at] = value;
        replace(&machine, &bad);
        assert!(matches!(read(&machine, &one), Err(SealedError::Damaged { .. })));
    }
    for other in [&b""[..], b"kusealed", &[0; 4096], b"{\"a\":1}"] {
        replace(&machine, other);
        assert!(matches!(read(&machine, &one), Err(SealedError::NotSealed { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Random bytes, with as much of a true beginning as may be, never open and never panic.
    #[test]
    fn random_bytes_are_refused(
        kept in 0..HEADER_LEN,
        tail in prop::collection::vec(any::<u8>(), 0..4000),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let machine = machine(&disk());
        make_two(&machine, &small(Field::Gf256, 6));
        let good = bytes(&machine);
        let mut bad = good[..kept].to_vec();
        bad.extend(&tail);
        replace(&machine, &bad);
        prop_assert!(verify_file(&machine, Path::new(FILE), None).is_err());
        let mut changed = good.clone();
        changes.iter().for_each(|(at, value)| changed[at.index(FRONT_LEN)] = *value);
        replace(&machine, &changed);
        let same_but_authentication = changed[..128] == good[..128];
        prop_assert_eq!(verify_file(&machine, Path::new(FILE), None).is_ok(), same_but_authentication);
    }
}
