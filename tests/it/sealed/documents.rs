//! Documents are made, read, changed, and leave each other alone.

use std::path::Path;

use kura::apps::sealed::{
    Credentials, Damage, NewAccess, NewIds, Place, SealedError, Settings, ShareIds, add_document, change_password,
    create_file, init_file, read_document, read_header, refresh_file, update_file, verify_file,
};
use kura::base::clock::Timestamp;
use kura::crypto::sharing::Field;
use kura::crypto::slots::{KdfParams, Secret};

use super::support::*;

const FRONT_LEN: usize = 160;

/// The ids of slots that differ.
fn changed_slots(before: &[u8], after: &[u8], slot_len: usize) -> Vec<u16> {
    assert_eq!(before.len(), after.len());
    assert_eq!(before[..96], after[..96], "the header never changes");
    let slots = before[FRONT_LEN..].chunks(slot_len).zip(after[FRONT_LEN..].chunks(slot_len));
    slots.enumerate().filter(|(_, (before, after))| before != after).map(|(i, _)| i as u16 + 1).collect()
}

fn slot_len(machine: &kura::apps::sealed::Machine) -> usize {
    verify_file(machine, Path::new(FILE), None).unwrap().header.slot_len() as usize
}

#[test]
fn a_document_is_read_as_it_was_given() {
    for field in FIELDS {
        let machine = machine(&disk());
        let [one, two] = make_two(&machine, &small(field, 6));
        let found = read(&machine, &one).unwrap();
        assert_eq!((&found.json[..], found.revision), (&b"{\"name\":\"one\"}"[..], 1));
        assert_eq!(found.changed.parts().0, 1_700_000_000);
        assert_eq!(text(&machine, &two), "{\"name\":\"two\"}");
        let odd = " {\"é\": \"\\u00e9\",\n\t\"n\": 1.50}\n";
        update(&machine, &two, odd).unwrap();
        assert_eq!(text(&machine, &two), odd);
        assert_eq!(read(&machine, &two).unwrap().revision, 2);
        assert_eq!(text(&machine, &one), "{\"name\":\"one\"}");
        assert!(!verify_file(&machine, Path::new(FILE), None).unwrap().authentic);
        assert!(verify_file(&machine, Path::new(FILE), Some(&one)).unwrap().authentic);
        assert_eq!(leftovers(&machine), [""; 0]);
    }
}

/// A fixed sequence that looks random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Files of 1 to 20 documents; updates of any of them; all others stay byte for byte and readable.
#[test]
fn updates_leave_all_other_slots_and_the_header_as_they_were() {
    let (rounds, updates) = if is_long() { (20, 50) } else { (5, 20) };
    for round in 0..rounds {
        let mut dice = Dice(round);
        let mut machine = machine(&disk());
        let field = FIELDS[round as usize % 2];
        let count = 1 + (round * 19 / (rounds - 1)) as usize;
        let settings = small(field, 80);
        let mut documents: Vec<(Credentials, String)> = Vec::new();
        for number in 0..count {
            let password = format!("password {number}");
            let shares = 2 + dice.below(3) as usize;
            let access = NewAccess {
                password: Secret::from_text(password.clone()),
                ids: NewIds::Draw(shares),
                threshold: 2 + dice.below(shares as u64 - 1) as u16,
            };
            let json = format!("{{\"number\":{number}}}");
            let ids = if number == 0 {
                create_file(&machine, &file(), &settings, &access, json.as_bytes()).unwrap().result
            } else {
                let known: Vec<Credentials> = documents.iter().map(|(known, _)| credentials_of(known)).collect();
                let place = Place { backup: false, ..place() };
                add_document(&machine, &place, (&known, true), &access, json.as_bytes()).unwrap().result
            };
            documents.push((Credentials { password: Secret::from_text(password), ids }, json));
        }
        let slot_len = slot_len(&machine);
        for _ in 0..updates {
            let chosen = dice.below(count as u64) as usize;
            let json = format!("{{\"x\":\"{}\"}}", "y".repeat(dice.below(290) as usize));
            let before = bytes(&machine);
            machine = machine_with(&before);
            update(&machine, &documents[chosen].0, &json).unwrap();
            documents[chosen].1 = json;
            let after = bytes(&machine);
            assert_eq!(changed_slots(&before, &after, slot_len), documents[chosen].0.ids.as_slice());
            let other = dice.below(count as u64) as usize;
            for (at, (credentials, json)) in documents.iter().enumerate() {
                if is_long() || at == chosen || at == other {
                    assert_eq!(text(&machine, credentials), *json);
                }
            }
        }
        for (credentials, json) in &documents {
            assert_eq!(text(&machine, credentials), *json);
        }
    }
}

fn credentials_of(other: &Credentials) -> Credentials {
    Credentials { password: Secret::new(other.password.as_bytes().to_vec()), ids: other.ids.clone() }
}

#[test]
fn bytes_in_memory_are_updated_like_a_file() {
    let machine = machine(&disk());
    let [one, two] = make_two(&machine, &small(Field::Gf256, 6));
    let before = bytes(&machine);
    let now = Timestamp::from_parts(1_800_000_000, 0);
    let after = kura::apps::sealed::update(&before, b"{\"new\":1}", &one, now).unwrap();
    assert_eq!(changed_slots(&before, &after, slot_len(&machine)), [1, 4, 5]);
    assert_eq!(bytes(&machine), before);
    replace(&machine, &after);
    assert_eq!(
        (text(&machine, &one), text(&machine, &two)),
        ("{\"new\":1}".to_owned(), "{\"name\":\"two\"}".to_owned())
    );
    assert_eq!(read(&machine, &one).unwrap().changed, now);
    let wrong = kura::apps::sealed::update(&before, b"{}", &credentials("wrong", &[1, 4, 5]), now);
    assert!(matches!(wrong, Err(SealedError::NoDocument { .. })));
}

/// Wrong password, wrong ids, more or fewer of them, another document's, unused slots: one answer, word for word.
#[test]
fn whatever_does_not_open_gets_the_same_answer() {
    for field in FIELDS {
        let machine = machine(&disk());
        make_two(&machine, &small(field, 8));
        let before = bytes(&machine);
        let wrong = [
            credentials("wrong", &[1, 4, 5]),
            credentials("One", &[1, 4, 5]),
            credentials("one ", &[1, 4, 5]),
            credentials("one\0", &[1, 4, 5]),
            credentials("two", &[1, 4, 5]),
            credentials("one", &[1, 4]),
            credentials("one", &[1, 4, 5, 6]),
            credentials("one", &[1, 4, 6]),
            credentials("one", &[2, 6]),
            credentials("one", &[3, 7]),
            credentials("one", &[3, 7, 8]),
            credentials(&"x".repeat(1 << 20), &[7, 8]),
        ];
        let mut answers: Vec<String> = Vec::new();
        for wrong in &wrong {
            answers.push(format!("{:?}", read(&machine, wrong).unwrap_err()));
            answers.push(format!("{:?}", update(&machine, wrong, "{}").unwrap_err()));
            answers.push(format!("{:?}", verify_file(&machine, Path::new(FILE), Some(wrong)).unwrap_err()));
            let new = Secret::from_text("new".to_owned());
            answers.push(format!("{:?}", change_password(&machine, &place(), wrong, new).unwrap_err()));
            let known = [credentials_of(wrong)];
            answers.push(format!("{:?}", refresh_file(&machine, &place(), &known, true).unwrap_err()));
            let shared = read_document(&machine, Path::new(FILE), wrong, Damage::Accept);
            answers.push(format!("{:?}", shared.unwrap_err()));
        }
        answers.dedup();
        assert_eq!(answers, [format!("NoDocument {{ file: \"{FILE}\" }}")]);
        assert_eq!(bytes(&machine), before);
        assert_eq!(leftovers(&machine), [""; 0]);
    }
}

/// Equal letters in another Unicode form are another password: its bytes count.
#[test]
fn passwords_are_bytes() {
    let machine = machine(&disk());
    create_file(&machine, &file(), &small(Field::Gf256, 4), &access("\u{e9}", &[1, 2], 2), b"{}").unwrap();
    assert!(read(&machine, &credentials("\u{e9}", &[1, 2])).is_ok());
    assert!(matches!(read(&machine, &credentials("e\u{301}", &[1, 2])), Err(SealedError::NoDocument { .. })));
    // Zeros count, and so does every byte of a long one.
    let long = "x".repeat(1 << 20);
    for (old, new) in [("\u{e9}", "a\0b\0"), ("a\0b\0", &long)] {
        let new_secret = Secret::from_text(new.to_owned());
        change_password(&machine, &place(), &credentials(old, &[1, 2]), new_secret).unwrap();
        assert_eq!(text(&machine, &credentials(new, &[1, 2])), "{}");
        let shorter = credentials(&new[..new.len() - 1], &[1, 2]);
        assert!(matches!(read(&machine, &shorter), Err(SealedError::NoDocument { .. })));
    }
}

#[test]
fn ids_are_refused_that_no_document_can_have() {
    for bad in [&[][..], &[1], &[1, 1], &[0, 1], &[3, 2, 3], &(1..=65).collect::<Vec<u16>>()] {
        assert!(matches!(ShareIds::new(bad), Err(SealedError::Ids(_))), "{bad:?}");
    }
    for bad in ["", "1", "1,", "a,b", "1 2", "-1,2", "1,65536", "1;2"] {
        assert!(matches!(ShareIds::parse(bad), Err(SealedError::Ids(_))), "{bad}");
    }
    assert_eq!(ShareIds::parse("40, 3,17").unwrap().as_slice(), [3, 17, 40]);
    let machine = machine(&disk());
    make_two(&machine, &small(Field::Gf256, 6));
    assert!(matches!(read(&machine, &credentials("one", &[1, 7])), Err(SealedError::Ids(_))));
    assert!(matches!(read(&machine, &credentials("", &[1, 4, 5])), Err(SealedError::EmptyPassword)));
}

#[test]
fn a_document_fits_exactly_or_not_at_all() {
    for field in FIELDS {
        let machine = machine(&disk());
        let [one, _] = make_two(&machine, &small(field, 6));
        let capacity = verify_file(&machine, Path::new(FILE), None).unwrap().header.capacity();
        assert!(capacity >= 300);
        let exact = |len: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(len - 8));
        update(&machine, &one, &exact(capacity)).unwrap();
        assert_eq!(text(&machine, &one), exact(capacity));
        let before = bytes(&machine);
        let refused = update(&machine, &one, &exact(capacity + 1));
        assert!(matches!(refused, Err(SealedError::TooLarge { len, .. }) if len == capacity + 1));
        for bad in ["", "[]", "1", "{\"a\":1,\"a\":2}", "{\"a\":\"\\ud800\"}"] {
            assert!(matches!(update(&machine, &one, bad), Err(SealedError::Document(_))), "{bad}");
        }
        assert_eq!(bytes(&machine), before);
        update(&machine, &one, "{}").unwrap();
        assert_eq!(text(&machine, &one), "{}");
    }
}

#[test]
fn documents_larger_than_a_frame_are_whole() {
    for field in FIELDS {
        let machine = machine(&disk());
        let settings = Settings { capacity: 200_000, ..small(field, 5) };
        let json = |seed: u64| {
            let mut dice = Dice(seed);
            let text: String = (0..199_900).map(|_| char::from(b'a' + dice.below(26) as u8)).collect();
            format!("{{\"t\":\"{text}\"}}")
        };
        create_file(&machine, &file(), &settings, &access("p", &[1, 2, 4, 5], 2), json(1).as_bytes()).unwrap();
        let credentials = credentials("p", &[1, 2, 4, 5]);
        assert_eq!(text(&machine, &credentials), json(1));
        update(&machine, &credentials, &json(2)).unwrap();
        assert_eq!(text(&machine, &credentials), json(2));
        // Around the ends of frames.
        for len in [65_536 - 96 - 1, 65_536 - 96, 65_536 - 96 + 1, 63_488 - 96, 63_488 - 96 + 1] {
            let json = format!("{{\"a\":\"{}\"}}", "x".repeat(len - 8));
            update(&machine, &credentials, &json).unwrap();
            assert_eq!(text(&machine, &credentials), json);
        }
    }
}

#[test]
fn a_changed_password_opens_and_the_old_one_does_not() {
    let machine = machine(&disk());
    let [one, two] = make_two(&machine, &small(Field::Gf256, 6));
    let before = bytes(&machine);
    let outcome = change_password(&machine, &place(), &one, Secret::from_text("new".to_owned())).unwrap();
    assert_eq!(changed_slots(&before, &bytes(&machine), slot_len(&machine)), [1, 4, 5]);
    assert!(matches!(read(&machine, &one), Err(SealedError::NoDocument { .. })));
    assert_eq!(text(&machine, &credentials("new", &[1, 4, 5])), "{\"name\":\"one\"}");
    assert_eq!(text(&machine, &two), "{\"name\":\"two\"}");
    let backup = outcome.backup.unwrap();
    let old = read_document(&machine, &backup, &one, Damage::Refuse).unwrap();
    assert_eq!(&old.json[..], b"{\"name\":\"one\"}");
    let empty = change_password(&machine, &place(), &two, Secret::new(Vec::new()));
    assert!(matches!(empty, Err(SealedError::EmptyPassword)));
}

#[test]
fn a_document_is_added_only_beside_those_that_are_named() {
    let machine = machine(&disk());
    let [one, two] = make_two(&machine, &small(Field::Gf256, 8));
    let known = [one, two];
    let before = bytes(&machine);
    let add = |known: &[Credentials], rest_is_unused, access: &NewAccess| {
        add_document(&machine, &place(), (known, rest_is_unused), access, b"{\"name\":\"three\"}")
    };
    let undeclared = add(&known, false, &access("three", &[3, 7], 2));
    assert!(matches!(undeclared, Err(SealedError::RestNotDeclared { .. })));
    assert!(matches!(add(&known, true, &access("three", &[3, 6], 2)), Err(SealedError::Ids(_))));
    assert!(matches!(add(&known, true, &access("three", &[3, 9], 2)), Err(SealedError::Ids(_))));
    for threshold in [0, 1, 3] {
        assert!(matches!(add(&known, true, &access("three", &[3, 7], threshold)), Err(SealedError::Settings(_))));
    }
    let draw =
        |count| NewAccess { password: Secret::from_text("three".to_owned()), ids: NewIds::Draw(count), threshold: 2 };
    assert!(matches!(add(&known, true, &draw(4)), Err(SealedError::Full { free: 3, wanted: 4, .. })));
    assert_eq!(bytes(&machine), before);
    let drawn = add(&known, true, &draw(3)).unwrap().result;
    assert_eq!(drawn.as_slice(), [3, 7, 8]);
    assert_eq!(text(&machine, &known[0]), "{\"name\":\"one\"}");
    assert_eq!(text(&machine, &known[1]), "{\"name\":\"two\"}");
    assert_eq!(text(&machine, &credentials("three", &[3, 7, 8])), "{\"name\":\"three\"}");
}

/// A file without documents is like any other; its first document takes the place of all that is there, in every slot.
#[test]
fn a_file_may_begin_empty() {
    for field in FIELDS {
        let machine = machine(&disk());
        let uuid = init_file(&machine, &file(), &small(field, 6)).unwrap().uuid;
        let empty = bytes(&machine);
        assert_eq!(read_header(&machine, Path::new(FILE)).unwrap().uuid, uuid);
        assert!(!verify_file(&machine, Path::new(FILE), None).unwrap().authentic);
        let one = credentials("one", &[1, 4, 5]);
        assert!(matches!(read(&machine, &one), Err(SealedError::NoDocument { .. })));
        assert!(matches!(init_file(&machine, &file(), &small(field, 6)), Err(SealedError::Occupied(_))));
        let first = |rest_is_unused| {
            let access = access("one", &[1, 4, 5], 2);
            add_document(&machine, &place(), (&[], rest_is_unused), &access, b"{\"name\":\"one\"}")
        };
        assert!(matches!(first(false), Err(SealedError::RestNotDeclared { .. })));
        assert_eq!(bytes(&machine), empty);
        let backup = first(true).unwrap().backup.unwrap();
        let with_one = bytes(&machine);
        assert_eq!(changed_slots(&empty, &with_one, slot_len(&machine)), [1, 2, 3, 4, 5, 6], "which are its own?");
        assert!(verify_file(&machine, Path::new(FILE), Some(&one)).unwrap().authentic);
        assert_eq!(kura::base::disk::read_file(machine.disk.as_ref(), &backup, usize::MAX).unwrap(), empty);
        // As it says: what was not named is gone.
        let two = access("two", &[2, 6], 2);
        add_document(&machine, &place(), (&[], true), &two, b"{}").unwrap();
        assert!(matches!(read(&machine, &one), Err(SealedError::NoDocument { .. })));
        assert_eq!(text(&machine, &credentials("two", &[2, 6])), "{}");
        // Not on top of what an accident left.
        let mut broken = bytes(&machine);
        broken[400] ^= 1;
        replace(&machine, &broken);
        assert!(matches!(first(true), Err(SealedError::Damaged { .. })));
        assert_eq!(bytes(&machine), broken);
    }
}

/// A refresh with everything named changes every slot, and no document.
#[test]
fn a_refresh_changes_all_slots_that_it_may() {
    let machine = machine(&disk());
    let [one, two] = make_two(&machine, &small(Field::Prime, 8));
    let known = [one, two];
    let before = bytes(&machine);
    refresh_file(&machine, &place(), &known, false).unwrap();
    let after = bytes(&machine);
    assert_eq!(changed_slots(&before, &after, slot_len(&machine)), [1, 2, 4, 5, 6]);
    refresh_file(&machine, &place(), &known, true).unwrap();
    assert_eq!(changed_slots(&after, &bytes(&machine), slot_len(&machine)), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!((read(&machine, &known[0]).unwrap().revision, read(&machine, &known[1]).unwrap().revision), (1, 1));
    refresh_file(&machine, &place(), &known[1..], true).unwrap();
    assert!(matches!(read(&machine, &known[0]), Err(SealedError::NoDocument { .. })));
    assert_eq!(text(&machine, &known[1]), "{\"name\":\"two\"}");
    let twice = [credentials("two", &[2, 6]), credentials("x", &[6, 7])];
    assert!(matches!(refresh_file(&machine, &place(), &twice, false), Err(SealedError::Ids(_))));
    assert!(matches!(refresh_file(&machine, &place(), &[], false), Err(SealedError::Ids(_))));
}

#[test]
fn an_output_beside_leaves_the_input_and_replaces_only_the_same_file() {
    let machine = machine(&disk());
    let [one, _] = make_two(&machine, &small(Field::Gf256, 6));
    let before = bytes(&machine);
    let output = Path::new("/dir/copy.sealed");
    let beside = Place { output: output.to_owned(), ..place() };
    let first = update_file(&machine, &beside, b"{\"x\":1}", &one).unwrap();
    assert_eq!(first.backup, None);
    let second = update_file(&machine, &beside, b"{\"x\":2}", &one).unwrap();
    assert_eq!(bytes(&machine), before);
    let at = |path: &Path| read_document(&machine, path, &one, Damage::Refuse).unwrap().json.to_vec();
    assert_eq!((at(output), at(&second.backup.unwrap())), (b"{\"x\":2}".to_vec(), b"{\"x\":1}".to_vec()));
    let other = Path::new("/dir/other.sealed");
    create_file(&machine, other, &small(Field::Gf256, 6), &access("one", &[1, 4, 5], 2), b"{}").unwrap();
    let onto = Place { output: other.to_owned(), ..place() };
    assert!(matches!(update_file(&machine, &onto, b"{}", &one), Err(SealedError::Occupied(_))));
    kura::base::disk::replace_file(machine.disk.as_ref(), Path::new("/dir/text"), b"text").unwrap();
    let onto = Place { output: "/dir/text".into(), ..place() };
    assert!(matches!(update_file(&machine, &onto, b"{}", &one), Err(SealedError::Occupied(_))));
    let again = create_file(&machine, &file(), &small(Field::Gf256, 6), &access("x", &[1, 2], 2), b"{}");
    assert!(matches!(again, Err(SealedError::Occupied(_))));
    assert_eq!((bytes(&machine), at(other)), (before, b"{}".to_vec()));
}

#[test]
fn backups_bear_uuid_and_time_and_never_replace_each_other() {
    let machine = machine(&disk());
    let [one, _] = make_two(&machine, &small(Field::Gf256, 6));
    let mut kept = Vec::new();
    for number in 0..3 {
        let before = bytes(&machine);
        let json = format!("{{\"n\":{number}}}");
        let outcome = update_file(&machine, &place(), json.as_bytes(), &one).unwrap();
        kept.push((outcome.backup.unwrap(), before));
        let name = kept[number].0.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with(&format!("{}.20231114T2213", outcome.uuid)) && name.ends_with(".bak"), "{name}");
    }
    // The clock stands still for all of them, so the names clash.
    assert_eq!(leftovers(&machine).len(), 3);
    for (backup, bytes) in kept {
        assert_eq!(kura::base::disk::read_file(machine.disk.as_ref(), &backup, usize::MAX).unwrap(), bytes);
    }
}

#[test]
fn settings_that_no_file_can_have_are_refused() {
    let machine = machine(&disk());
    let kdf = KdfParams::minimum();
    for settings in [
        Settings { slots: 1, ..small(Field::Gf256, 6) },
        Settings { slots: 256, ..small(Field::Gf256, 6) },
        Settings { slots: 4097, ..small(Field::Prime, 6) },
        Settings { field: Field::Gf256, slots: 4, capacity: 8 << 20, kdf },
        Settings { field: Field::Prime, slots: 4, capacity: usize::MAX, kdf },
    ] {
        let made = create_file(&machine, &file(), &settings, &access("one", &[1, 2], 2), b"{}");
        assert!(matches!(made, Err(SealedError::Settings(_))), "{settings:?}");
    }
    assert_eq!(machine.disk.list(Path::new("/dir")).unwrap(), []);
    create_file(&machine, &file(), &small(Field::Prime, 300), &access("one", &[7, 299, 300], 2), b"{}").unwrap();
    assert_eq!(text(&machine, &credentials("one", &[7, 299, 300])), "{}");
}
