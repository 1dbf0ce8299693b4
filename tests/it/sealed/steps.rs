//! The steps of an update one by one, and what each refuses.

use std::path::Path;

use kura::apps::sealed::{
    Damage, Image, Machine, Memory, SealedError, Settings, ShareIds, decrypt_and_extract, encrypt_updated_data,
    generate_new_shares, safe_update, update, update_file, update_shares, verify_file,
};
use kura::base::clock::Timestamp;
use kura::crypto::sharing::Field;

use super::support::*;

fn now() -> Timestamp {
    Timestamp::from_parts(1_800_000_000, 0)
}

/// The bytes of a file with two documents.
fn made(settings: &Settings) -> (Machine, Vec<u8>) {
    let machine = machine(&disk());
    make_two(&machine, settings);
    let bytes = bytes(&machine);
    (machine, bytes)
}

/// The steps in their order, on bytes in memory, are an update.
#[test]
fn the_steps_in_their_order_are_an_update() {
    for field in FIELDS {
        let (machine, before) = made(&small(field, 6));
        let one = credentials("one", &[1, 4, 5]);
        let source = Memory::new(before.clone());
        let image = Image::open(&source, "memory").unwrap();
        let old = decrypt_and_extract(&image, &one, Damage::Refuse).unwrap();
        assert_eq!((old.threshold(), old.revision(), old.ids().as_slice()), (2, 1, &[1, 4, 5][..]));
        assert_eq!(&old.json().unwrap()[..], b"{\"name\":\"one\"}");
        let new = generate_new_shares(&image.header, old.next(b"{\"n\":1}", now()), 2, &one.ids).unwrap();
        let shares = update_shares(&image, new, &one.ids).unwrap();
        let target = Memory::new(vec![0; before.len()]);
        encrypt_updated_data(&shares, old.key(), &target).unwrap();
        let after = target.into_bytes();
        let slot_len = image.header.slot_len() as usize;
        for id in 1..=6u16 {
            let slot = |bytes: &[u8]| bytes[160 + usize::from(id - 1) * slot_len..][..slot_len].to_vec();
            assert_eq!(slot(&before) == slot(&after), !one.ids.as_slice().contains(&id), "slot {id}");
        }
        assert_eq!(before[..96], after[..96], "the header and the UUID in it");
        replace(&machine, &after);
        let found = read(&machine, &one).unwrap();
        assert_eq!((&found.json[..], found.revision, found.changed), (&b"{\"n\":1}"[..], 2, now()));
        assert_eq!(text(&machine, &credentials("two", &[2, 6])), "{\"name\":\"two\"}");
        // All at once, the same but for what is drawn at random.
        let at_once = update(&before, b"{\"n\":1}", &one, now()).unwrap();
        replace(&machine, &at_once);
        assert_eq!((text(&machine, &one), read(&machine, &one).unwrap().revision), ("{\"n\":1}".to_owned(), 2));
    }
}

/// Any shares as many as the threshold give head, content and zeros, chunk by chunk; fewer do not.
#[test]
fn new_shares_give_the_content_chunk_by_chunk() {
    for field in FIELDS {
        let settings = Settings { capacity: 150_000, ..small(field, 6) };
        let (_, bytes) = made(&settings);
        let source = Memory::new(bytes);
        let image = Image::open(&source, "memory").unwrap();
        let old = decrypt_and_extract(&image, &credentials("one", &[1, 4, 5]), Damage::Refuse).unwrap();
        let json = format!("{{\"a\":\"{}\"}}", "x".repeat(140_000));
        let ids = ShareIds::new(&[2, 3, 6, 4]).unwrap();
        let new = generate_new_shares(&image.header, old.next(json.as_bytes(), now()), 3, &ids).unwrap();
        let mut content = Vec::new();
        let mut chunks = 0;
        for chunk in new.chunks() {
            let found: Vec<u16> = chunk.iter().map(|(id, _)| *id).collect();
            assert_eq!(found, [2, 3, 4, 6]);
            let share_len = chunk[0].1.len();
            let mut secret = vec![0; field.secret_len(share_len)];
            let of = |chosen: &[usize]| -> (Vec<u16>, Vec<Vec<u8>>) {
                chosen.iter().map(|i| (chunk[*i].0, chunk[*i].1.to_vec())).unzip()
            };
            let (two_ids, two) = of(&[0, 3]);
            let mut wrong = secret.clone();
            let given = field.combine(&two_ids, &two, &mut wrong);
            let (three_ids, three) = of(&[3, 0, 2]);
            assert!(field.combine(&three_ids, &three, &mut secret));
            assert!(!given || wrong != secret, "two of three shares");
            content.extend(secret);
            chunks += 1;
        }
        assert!(chunks > 2, "{chunks}");
        assert_eq!(&content[96..96 + json.len()], json.as_bytes());
        assert!(content[96 + json.len()..].iter().all(|byte| *byte == 0));
        let again: Vec<_> = new.chunks().next().unwrap();
        assert_ne!(new.chunks().next().unwrap()[0].1, again[0].1, "drawn anew each time");
    }
}

#[test]
fn each_step_refuses_what_it_cannot_do() {
    let (_, good) = made(&small(Field::Gf256, 6));
    let one = credentials("one", &[1, 4, 5]);
    let source = Memory::new(good.clone());
    let image = Image::open(&source, "memory").unwrap();
    for wrong in [credentials("wrong", &[1, 4, 5]), credentials("one", &[1, 4, 6]), credentials("one", &[3, 6])] {
        let refused = decrypt_and_extract(&image, &wrong, Damage::Refuse).map(|_| ());
        assert!(matches!(refused, Err(SealedError::NoDocument { .. })));
    }
    let old = decrypt_and_extract(&image, &one, Damage::Refuse).unwrap();
    let share = |json: &'static str, threshold, ids| {
        generate_new_shares(&image.header, old.next(json.as_bytes(), now()), threshold, ids)
    };
    for threshold in [0, 1, 4] {
        assert!(matches!(share("{}", threshold, &one.ids), Err(SealedError::Settings(_))), "{threshold}");
    }
    let beyond = ShareIds::new(&[1, 7]).unwrap();
    assert!(matches!(share("{}", 2, &beyond), Err(SealedError::Ids(_))));
    assert!(matches!(share("[{},{}]", 2, &one.ids), Err(SealedError::Document(_))), "one document, not several");
    let long = generate_new_shares(&image.header, old.next(&[b' '; 5000], now()), 2, &one.ids).map(|_| ());
    assert!(matches!(long, Err(SealedError::TooLarge { len: 5000, .. })), "{long:?}");

    let others = ShareIds::new(&[1, 4, 6]).unwrap();
    let foreign = made(&small(Field::Gf256, 6)).1;
    let foreign = Memory::new(foreign);
    let foreign = Image::open(&foreign, "memory").unwrap();
    let refused = [
        update_shares(&image, share("{}", 2, &one.ids).unwrap(), &others).map(|_| ()),
        update_shares(&image, share("{}", 2, &others).unwrap(), &one.ids).map(|_| ()),
        update_shares(&foreign, share("{}", 2, &one.ids).unwrap(), &one.ids).map(|_| ()),
    ];
    assert!(refused.iter().all(|refused| matches!(refused, Err(SealedError::Ids(_)))), "{refused:?}");

    // A byte of somebody else's slot: the document opens, and nothing is made from the file all the same.
    let mut altered = good.clone();
    altered[160 + image.header.slot_len() as usize + 200] ^= 1;
    let altered = Memory::new(altered);
    let altered = Image::open(&altered, "memory").unwrap();
    let from_altered = decrypt_and_extract(&altered, &one, Damage::Refuse).unwrap();
    let shares = update_shares(&altered, share("{}", 2, &one.ids).unwrap(), &one.ids).unwrap();
    let target = Memory::new(vec![0; good.len()]);
    let refused = encrypt_updated_data(&shares, from_altered.key(), &target);
    assert!(matches!(refused, Err(SealedError::Damaged { .. })));
    // A target that is too short.
    let shares = update_shares(&image, share("{}", 2, &one.ids).unwrap(), &one.ids).unwrap();
    let refused = encrypt_updated_data(&shares, old.key(), &Memory::new(vec![0; good.len() - 1]));
    assert!(matches!(refused, Err(SealedError::Disk { .. })));
}

/// What is prepared lies in an encrypted temporary file under the file's lock, and goes away unless it is applied.
#[test]
fn a_prepared_update_is_applied_or_never_was() {
    let (machine, before) = made(&small(Field::Gf256, 6));
    let one = credentials("one", &[1, 4, 5]);
    let json = b"{\"name\":\"a new name that is long enough\"}";
    let prepared = safe_update(&machine, &place(), json, &one).unwrap();
    let temporary = kura::base::disk::read_file(machine.disk.as_ref(), prepared.temporary(), usize::MAX).unwrap();
    assert_eq!(temporary.len(), before.len());
    assert!(!temporary.windows(12).any(|window| window == &json[10..22]), "it is encrypted");
    let uuid = verify_file(&machine, Path::new(FILE), None).unwrap().header.uuid.to_string();
    let mut names = leftovers(&machine);
    names.sort();
    assert!(names.len() == 2 && names.iter().all(|name| name.starts_with(&uuid)), "{names:?}");
    assert_eq!(bytes(&machine), before, "nothing has changed");
    let second = update_file(&machine, &place(), b"{}", &one);
    assert!(matches!(second, Err(SealedError::Locked { pid: 100, .. })), "{second:?}");
    drop(prepared);
    assert_eq!((leftovers(&machine), bytes(&machine)), (Vec::new(), before.clone()));

    let applied = safe_update(&machine, &place(), json, &one).unwrap().apply().unwrap();
    assert_eq!(applied.result.revision, 2);
    let backup = applied.backup.unwrap();
    assert_eq!(kura::base::disk::read_file(machine.disk.as_ref(), &backup, usize::MAX).unwrap(), before);
    assert_eq!(leftovers(&machine).len(), 1, "the backup alone");
    assert_eq!(text(&machine, &one).as_bytes(), json);

    // Refused on the way: nothing is left.
    let wrong = credentials("wrong", &[1, 4, 5]);
    assert!(safe_update(&machine, &place(), json, &wrong).is_err());
    assert_eq!(leftovers(&machine).len(), 1);
}
