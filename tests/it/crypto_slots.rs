//! Key slots, epochs and the workspace header.

use aes_gcm_siv::Aes256GcmSiv;
use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
use hkdf::Hkdf;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256 as Kem;
use hpke::{Deserializable, OpModeS, Serializable};
use kura::base::clock::Timestamp;
use kura::base::ids::{self, SlotId, WorkspaceId};
use kura::crypto::slots::{
    BadRecoveryCode, Capabilities, Credential, KdfParams, NewSlot, NewWorkspace, RecoveryCode, Secret, SlotError,
    UnlockError, add_member, change_credential, create_workspace, members, new_slot, read_header, rotate, unlock,
};
use kura::crypto::{IdDomain, Keys, Kind, OpenError};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const NOW: Timestamp = Timestamp::from_unix_ns(1_700_000_000_000_000_000);
const CAPABILITIES: Capabilities = Capabilities { conditional_writes: true };

fn passphrase(text: &str) -> Credential {
    Credential::Passphrase(Secret::from_text(text.to_owned()))
}

fn key_file(byte: u8) -> Credential {
    Credential::KeyFile(Secret::new(vec![byte; 64]))
}

fn slot(label: &str, credential: Credential) -> NewSlot {
    NewSlot { label: label.to_owned(), credential }
}

/// What a store would hold, and the keys that made it.
struct Stored {
    header: Vec<u8>,
    slots: Vec<(SlotId, Vec<u8>)>,
    epochs: Vec<(u32, Vec<u8>)>,
    keys: Keys,
}

impl Stored {
    fn new(slots: &[NewSlot]) -> Self {
        let new: NewWorkspace = create_workspace(NOW, CAPABILITIES, slots, KdfParams::minimum()).unwrap();
        assert_eq!(new.workspace, new.keys.workspace());
        Self {
            header: new.header.into_bytes(),
            slots: new.slots.into_iter().map(|(id, record)| (id, record.into_bytes())).collect(),
            epochs: vec![(0, new.epoch0.into_bytes())],
            keys: new.keys,
        }
    }

    fn unlock(&self, credential: &Credential) -> Result<Keys, UnlockError> {
        unlock(&self.header, &self.slots, &self.epochs, credential)
    }

    fn newest(&self) -> &[u8] {
        &self.epochs.last().unwrap().1
    }
}

/// Whether two key rings are one.
fn assert_same(one: &Keys, two: &Keys) {
    let sealed = one.seal(Kind::Content, b"id", b"text");
    assert_eq!(two.open(Kind::Content, b"id", sealed.as_bytes()).unwrap(), b"text");
    let digest = ids::Sha256([5; 32]);
    assert_eq!(one.id(IdDomain::Content, &digest), two.id(IdDomain::Content, &digest));
    assert_eq!(one.chunk_seed(), two.chunk_seed());
    assert_eq!(one.epoch(), two.epoch());
}

/// Puts the right checksum behind altered bytes, as someone who means harm would.
fn with_checksum(mut record: Vec<u8>) -> Vec<u8> {
    record.truncate(record.len() - 32);
    let checksum = Sha256::digest(&record);
    record.extend_from_slice(&checksum);
    record
}

#[test]
fn every_kind_of_credential_opens_the_same_keys() {
    let code = RecoveryCode::generate();
    let stored = Stored::new(&[
        slot("alice", passphrase("correct horse")),
        slot("backup", key_file(1)),
        slot("paper", Credential::RecoveryCode(code.to_secret())),
    ]);
    let typed = code.to_text().to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
    for credential in [passphrase("correct horse"), key_file(1), Credential::RecoveryCode(Secret::from_text(typed))] {
        assert_same(&stored.keys, &stored.unlock(&credential).unwrap());
    }
    let header = read_header(&stored.header).unwrap();
    assert_eq!(header.workspace, stored.keys.workspace());
    assert_eq!(header.capabilities, CAPABILITIES);
    assert_eq!(header.created, "2023-11-14T22:13:20Z");
    let labels: Vec<_> = members(&stored.keys, &stored.header, stored.newest()).unwrap();
    assert_eq!(labels.iter().map(|member| member.label.as_str()).collect::<Vec<_>>(), ["alice", "backup", "paper"]);
}

#[test]
fn labels_are_not_readable_in_the_store() {
    let stored = Stored::new(&[slot("a very telling label", key_file(1))]);
    for bytes in stored.slots.iter().map(|(_, bytes)| bytes).chain(stored.epochs.iter().map(|(_, bytes)| bytes)) {
        assert!(!bytes.windows(7).any(|window| window == b"telling"));
    }
}

#[test]
fn a_wrong_secret_is_told_from_damage_and_from_a_missing_kind() {
    let mut stored = Stored::new(&[slot("a", passphrase("right")), slot("b", key_file(1))]);
    let (phrase_id, file_id) = (stored.slots[0].0, stored.slots[1].0);
    let wrong = |damaged| UnlockError::WrongSecret { kind: passphrase("").kind(), damaged };
    assert_eq!(stored.unlock(&passphrase("wrong")).unwrap_err(), wrong(vec![]));
    assert!(matches!(stored.unlock(&key_file(2)), Err(UnlockError::WrongSecret { .. })));
    let code = Credential::RecoveryCode(RecoveryCode::generate().to_secret());
    assert!(matches!(stored.unlock(&code), Err(UnlockError::NoSlotOfThatKind { .. })));

    stored.slots[1].1[60] ^= 1;
    assert_eq!(stored.unlock(&passphrase("wrong")).unwrap_err(), wrong(vec![file_id]));
    assert!(matches!(stored.unlock(&key_file(1)), Err(UnlockError::DamagedSlot { id, .. }) if id == file_id));
    assert_same(&stored.keys, &stored.unlock(&passphrase("right")).unwrap());

    stored.slots[0].1.truncate(50);
    let error = stored.unlock(&passphrase("right")).unwrap_err();
    assert!(matches!(error, UnlockError::DamagedSlot { id, .. } if id == phrase_id), "{error}");
}

#[test]
fn every_flipped_or_missing_byte_of_a_slot_is_damage_and_stops_no_other() {
    let stored = Stored::new(&[slot("a", passphrase("right")), slot("b", key_file(1))]);
    let record = &stored.slots[0].1;
    let id = stored.slots[0].0;
    let intact = stored.slots[1].clone();
    let cut = (0..record.len()).map(|len| record[..len].to_vec());
    let flipped = (0..record.len()).map(|at| {
        let mut bad = record.clone();
        bad[at] ^= 1 << (at % 8);
        bad
    });
    for (number, bad) in cut.chain(flipped).enumerate() {
        let alone = unlock(&stored.header, &[(id, bad.clone())], &stored.epochs, &passphrase("right"));
        assert!(matches!(alone, Err(UnlockError::DamagedSlot { id: found, .. }) if found == id));
        if number % 16 == 0 {
            let both = unlock(&stored.header, &[(id, bad), intact.clone()], &stored.epochs, &key_file(1));
            assert_same(&stored.keys, &both.unwrap());
        }
    }
}

#[test]
fn an_altered_slot_with_a_right_checksum_never_opens() {
    let stored = Stored::new(&[slot("a", key_file(1))]);
    let (id, record) = &stored.slots[0];
    for at in 0..record.len() - 32 {
        let mut bad = record.clone();
        bad[at] ^= 1 << (at % 8);
        let result = unlock(&stored.header, &[(*id, with_checksum(bad))], &stored.epochs, &key_file(1));
        let error = result.unwrap_err();
        let right = matches!(
            error,
            UnlockError::WrongSecret { .. }
                | UnlockError::DamagedSlot { .. }
                | UnlockError::NewerFormat { .. }
                | UnlockError::NoSlotOfThatKind { .. }
        );
        assert!(right, "byte {at}: {error}");
    }
}

#[test]
fn every_flipped_or_missing_byte_of_an_epoch_record_is_damage() {
    let stored = Stored::new(&[slot("a", key_file(1)), slot("b", key_file(2))]);
    let record = &stored.epochs[0].1;
    for at in 0..record.len() {
        let mut flipped = record.clone();
        flipped[at] ^= 1 << (at % 8);
        for bad in [flipped, record[..at].to_vec()] {
            let result = unlock(&stored.header, &stored.slots, &[(0, bad)], &key_file(1));
            assert!(matches!(result, Err(UnlockError::DamagedEpoch { number: 0, .. })), "byte {at}");
        }
    }
    assert!(matches!(
        unlock(&stored.header, &stored.slots, &[], &key_file(1)),
        Err(UnlockError::DamagedEpoch { number: 0, .. })
    ));
}

#[test]
fn an_altered_epoch_record_with_a_right_checksum_never_opens() {
    let stored = Stored::new(&[slot("a", key_file(1)), slot("b", key_file(2))]);
    let record = &stored.epochs[0].1;
    for at in 0..record.len() - 32 {
        let mut bad = record.clone();
        bad[at] ^= 1 << (at % 8);
        let error = unlock(&stored.header, &stored.slots, &[(0, with_checksum(bad))], &key_file(1)).unwrap_err();
        let right = matches!(
            error,
            UnlockError::DamagedEpoch { .. } | UnlockError::NewerFormat { .. } | UnlockError::Removed { .. }
        );
        assert!(right, "byte {at}: {error}");
    }
}

#[test]
fn every_altered_byte_of_the_header_is_noticed() {
    let stored = Stored::new(&[slot("a", key_file(1))]);
    let format_at = stored.header.windows(6).position(|window| window == b"format").unwrap();
    for at in 0..stored.header.len() {
        for bit in 0..8 {
            let mut bad = stored.header.clone();
            bad[at] ^= 1 << bit;
            let error = unlock(&bad, &stored.slots, &stored.epochs, &key_file(1)).unwrap_err();
            let newer_allowed = (format_at..format_at + 12).contains(&at);
            let right = match error {
                UnlockError::DamagedHeader { .. } => true,
                UnlockError::NewerFormat { .. } => newer_allowed,
                _ => false,
            };
            assert!(right, "byte {at} bit {bit}: {error}");
        }
        let cut = unlock(&stored.header[..at], &stored.slots, &stored.epochs, &key_file(1));
        assert!(matches!(cut, Err(UnlockError::DamagedHeader { .. })));
    }
    let longer = [&stored.header[..], b" "].concat();
    let result = unlock(&longer, &stored.slots, &stored.epochs, &key_file(1));
    assert!(matches!(result, Err(UnlockError::DamagedHeader { .. })));
}

#[test]
fn records_in_each_others_places_are_noticed() {
    let mut one = Stored::new(&[slot("a", key_file(1)), slot("b", passphrase("p"))]);
    let two = Stored::new(&[slot("a", key_file(1))]);
    let result = unlock(&two.header, &one.slots, &one.epochs, &key_file(1));
    assert!(matches!(result, Err(UnlockError::DamagedHeader { .. })));
    let result = unlock(&one.header, &one.slots, &two.epochs, &key_file(1));
    assert!(matches!(result, Err(UnlockError::DamagedEpoch { .. })));
    let result = unlock(&one.header, &two.slots, &one.epochs, &key_file(1));
    assert!(matches!(result, Err(UnlockError::DamagedHeader { .. })));
    let result = unlock(&one.header, &one.slots, &[(7, one.epochs[0].1.clone())], &key_file(1));
    assert!(matches!(result, Err(UnlockError::DamagedEpoch { number: 7, .. })));
    let (first, second) = one.slots.split_at_mut(1);
    std::mem::swap(&mut first[0].1, &mut second[0].1);
    assert!(matches!(one.unlock(&key_file(1)), Err(UnlockError::DamagedSlot { .. })));
    let as_slot = vec![(one.slots[0].0, one.epochs[0].1.clone())];
    assert!(matches!(unlock(&one.header, &as_slot, &one.epochs, &key_file(1)), Err(UnlockError::DamagedSlot { .. })));
}

#[test]
fn newer_formats_are_refused_as_such() {
    let stored = Stored::new(&[slot("a", key_file(1))]);
    let newer = |record: &[u8]| {
        let mut record = record.to_vec();
        record[2] = 2;
        with_checksum(record)
    };
    let slots = vec![(stored.slots[0].0, newer(&stored.slots[0].1))];
    let error = unlock(&stored.header, &slots, &stored.epochs, &key_file(1)).unwrap_err();
    assert_eq!(error, UnlockError::NewerFormat { object: format!("keys/{}", slots[0].0), found: 2 });
    let error = unlock(&stored.header, &stored.slots, &[(0, newer(stored.newest()))], &key_file(1)).unwrap_err();
    assert_eq!(error, UnlockError::NewerFormat { object: "epochs/0".to_owned(), found: 2 });
    let header = br#"{"format": 2, "something": {"else": []}}"#;
    let error = unlock(header, &stored.slots, &stored.epochs, &key_file(1)).unwrap_err();
    assert_eq!(error, UnlockError::NewerFormat { object: "kura.json".to_owned(), found: 2 });
}

#[test]
fn costs_of_passphrases_are_bounded() {
    assert!(KdfParams::new(8 * 1024, 1, 1).is_some());
    assert!(KdfParams::new(1024 * 1024, 16, 8).is_some());
    for (memory, passes, lanes) in
        [(8191, 1, 1), (1_048_577, 1, 1), (8192, 0, 1), (8192, 17, 1), (8192, 1, 0), (8192, 1, 9), (u32::MAX, 9, 1)]
    {
        assert!(KdfParams::new(memory, passes, lanes).is_none());
    }
    // The cost stands behind the public key and the method byte; ask for far more.
    let stored = Stored::new(&[slot("a", passphrase("p"))]);
    let (id, record) = &stored.slots[0];
    let cost = postcard::to_stdvec(&(0u8, 8192u32, 1u32, 1u32)).unwrap();
    let at = record.windows(cost.len()).rposition(|window| window == cost).unwrap();
    for greedy in [(0u8, u32::MAX, 1u32, 1u32), (0, 8192, u32::MAX, 1), (0, 8192, 1, 200), (0, 1, 1, 1)] {
        let bytes = [&record[..at], &postcard::to_stdvec(&greedy).unwrap(), &record[at + cost.len()..]].concat();
        let result = unlock(&stored.header, &[(*id, with_checksum(bytes))], &stored.epochs, &passphrase("p"));
        assert!(matches!(result, Err(UnlockError::DamagedSlot { .. })), "{greedy:?}");
    }
}

#[test]
fn unfit_credentials_make_no_slot() {
    let make = |new: NewSlot| create_workspace(NOW, CAPABILITIES, &[new], KdfParams::minimum()).err().unwrap();
    assert!(matches!(make(slot("a", passphrase(""))), SlotError::EmptyPassphrase));
    for len in [0, 31, 1024 * 1024 + 1] {
        let file = Credential::KeyFile(Secret::new(vec![1; len]));
        assert!(matches!(make(slot("a", file)), SlotError::KeyFileLen { len: found } if found == len));
    }
    assert!(matches!(make(slot(&"x".repeat(256), key_file(1))), SlotError::LabelTooLong));
    let typo = Credential::RecoveryCode(Secret::from_text("ABC".to_owned()));
    assert!(matches!(make(slot("a", typo)), SlotError::RecoveryCode(BadRecoveryCode::Length { found: 3 })));
    let none = create_workspace(NOW, CAPABILITIES, &[], KdfParams::minimum());
    assert!(matches!(none, Err(SlotError::SlotCount)));
}

#[test]
fn a_mistyped_recovery_code_is_told_from_a_wrong_one() {
    let code = RecoveryCode::generate();
    let stored = Stored::new(&[slot("paper", Credential::RecoveryCode(code.to_secret()))]);
    let parse = |text: &str| RecoveryCode::parse(&Secret::from_text(text.to_owned()));
    let text = code.to_text();
    assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [6; 6]);
    assert_eq!(*parse(&text).unwrap().to_text(), *text);
    let mut undetected = 0;
    for (at, symbol) in text.char_indices().filter(|(_, symbol)| *symbol != '-') {
        for other in "0123456789ABCDEFGHJKMNPQRSTVWXYZ".chars().filter(|other| *other != symbol) {
            let mut typo: Vec<char> = text.chars().collect();
            typo[at] = other;
            undetected += u32::from(parse(&typo.iter().collect::<String>()).is_ok());
        }
    }
    assert!(undetected <= 1, "{undetected} of 1116 typos pass a checksum of 20 bits");
    assert!(matches!(parse(&text[1..]), Err(BadRecoveryCode::Length { found: 35 })));
    assert!(matches!(parse(&text.replace('-', "U-")), Err(BadRecoveryCode::Character { group: 2 })));
    assert!(matches!(parse(""), Err(BadRecoveryCode::Length { found: 0 })));
    let mut bad: String = text.chars().rev().skip(1).collect::<Vec<_>>().into_iter().rev().collect();
    bad.push(if text.ends_with('7') { '8' } else { '7' });
    let typed = Credential::RecoveryCode(Secret::from_text(bad));
    assert_eq!(stored.unlock(&typed).unwrap_err(), UnlockError::BadRecoveryCode(BadRecoveryCode::Checksum));
    let other = Credential::RecoveryCode(RecoveryCode::generate().to_secret());
    assert!(matches!(stored.unlock(&other), Err(UnlockError::WrongSecret { .. })));
}

#[test]
fn a_rotated_key_opens_the_past_and_shuts_out_who_was_removed() {
    let mut stored = Stored::new(&[slot("a", key_file(1)), slot("b", key_file(2))]);
    let before = stored.keys.seal(Kind::Content, b"id", b"old");
    let removed = stored.slots[1].0;
    let (keys, record) = rotate(&stored.keys, &stored.header, stored.newest(), |m| m.id != removed).unwrap();
    assert_eq!(keys.epoch(), 1);
    stored.epochs.push((1, record.into_bytes()));
    let (keys, record) = rotate(&keys, &stored.header, stored.newest(), |_| true).unwrap();
    stored.epochs.push((2, record.into_bytes()));
    let after = keys.seal(Kind::Content, b"id", b"new");

    let opened = stored.unlock(&key_file(1)).unwrap();
    assert_same(&keys, &opened);
    assert_eq!(opened.open(Kind::Content, b"id", before.as_bytes()).unwrap(), b"old");
    assert_eq!(stored.unlock(&key_file(2)).unwrap_err(), UnlockError::Removed { id: removed });
    let refused = stored.keys.open(Kind::Content, b"id", after.as_bytes());
    assert_eq!(refused, Err(OpenError::UnknownEpoch { epoch: 2 }));
    // The newest record alone suffices, and bytes of one epoch are refused under another.
    assert!(unlock(&stored.header, &stored.slots, &stored.epochs[2..], &key_file(1)).is_ok());
    let mut moved = after.into_bytes();
    moved[4] = 1;
    assert_eq!(keys.open(Kind::Content, b"id", &moved), Err(OpenError::Forged));
    assert!(matches!(rotate(&keys, &stored.header, stored.newest(), |_| false), Err(SlotError::SlotCount)));
    let stale = rotate(&keys, &stored.header, &stored.epochs[1].1, |_| true);
    assert!(matches!(stale, Err(SlotError::Record(UnlockError::DamagedEpoch { .. }))));
}

#[test]
fn a_slot_is_added_and_a_passphrase_changed_without_touching_the_keys() {
    let mut stored = Stored::new(&[slot("a", passphrase("old"))]);
    let new = slot("b", key_file(2));
    let (member, record) = new_slot(&stored.keys, NOW, &new, KdfParams::minimum()).unwrap();
    let epoch = add_member(&stored.keys, &stored.header, stored.newest(), &member).unwrap().unwrap();
    stored.slots.push((member.id, record.into_bytes()));
    stored.epochs = vec![(0, epoch.into_bytes())];
    assert_eq!(add_member(&stored.keys, &stored.header, stored.newest(), &member).unwrap(), None);
    assert_same(&stored.keys, &stored.unlock(&key_file(2)).unwrap());
    assert_same(&stored.keys, &stored.unlock(&passphrase("old")).unwrap());

    let (id, record) = stored.slots[0].clone();
    let change =
        |old: &str, new| change_credential((id, &record), &passphrase(old), &passphrase(new), KdfParams::minimum());
    let refused = change("wrong", "new");
    assert!(matches!(refused, Err(SlotError::Record(UnlockError::WrongSecret { .. }))));
    stored.slots[0].1 = change("old", "new").unwrap().into_bytes();
    assert_same(&stored.keys, &stored.unlock(&passphrase("new")).unwrap());
    assert!(matches!(stored.unlock(&passphrase("old")), Err(UnlockError::WrongSecret { .. })));
}

#[derive(Serialize, Deserialize)]
struct EpochBody {
    workspace: [u8; 16],
    number: u32,
    entries: Vec<([u8; 16], [u8; 32], Vec<u8>)>,
    roster: Vec<u8>,
}

/// Key derivation as `FORMAT.md` has it, written a second time.
fn derive(secret: &[u8], workspace: WorkspaceId, info: &str) -> [u8; 32] {
    let mut out = [0; 32];
    Hkdf::<Sha256>::new(Some(workspace.as_bytes()), secret).expand(info.as_bytes(), &mut out).unwrap();
    out
}

/// An epoch record made from public knowledge and keys of the forger's choice.
fn forged_epoch(stored: &Stored, id_key: [u8; 32], epoch_key: [u8; 32]) -> Vec<u8> {
    let workspace = stored.keys.workspace();
    let member = members(&stored.keys, &stored.header, stored.newest()).unwrap().remove(0);
    let digest: [u8; 32] = Sha256::digest(&stored.header).into();
    let info = [&b"kura/1/epoch/slot"[..], workspace.as_bytes(), &[0; 4], member.id.as_bytes()].concat();
    let (encapsulated, secret) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, Kem>(
        &OpModeS::Base,
        &<Kem as hpke::Kem>::PublicKey::from_bytes(&member.public_key).unwrap(),
        &info,
        &[epoch_key, id_key, digest].concat(),
        &[],
    )
    .unwrap();
    let entries = vec![(*member.id.as_bytes(), encapsulated.to_bytes().into(), secret)];
    let header = [b'k', b'u', 1, Kind::Epoch as u8, 0, 0, 0, 0];
    let identity = [&[0; 4][..], &Sha256::digest(postcard::to_stdvec(&entries).unwrap())].concat();
    let roster = (digest, vec![(*member.id.as_bytes(), member.public_key, "a")], Vec::<[u8; 32]>::new());
    let cipher = Aes256GcmSiv::new(&derive(&epoch_key, workspace, "kura/1/seal/epoch").into());
    let aad = [&header[..], workspace.as_bytes(), &identity].concat();
    let payload = Payload { msg: &postcard::to_stdvec(&roster).unwrap(), aad: &aad };
    let sealed = cipher.encrypt(&[9; 12].into(), payload).unwrap();
    let roster = [&header[..], &[9; 12], &sealed].concat();
    let body = EpochBody { workspace: *workspace.as_bytes(), number: 0, entries, roster };
    let record = [&b"ku\x01\x82"[..], &postcard::to_stdvec(&body).unwrap(), &[0; 32]].concat();
    with_checksum(record)
}

/// The id key, read from the store by a second reader that follows `FORMAT.md`.
fn id_key_of(stored: &Stored, key_file: &[u8]) -> [u8; 32] {
    let workspace = stored.keys.workspace();
    let (id, slot) = &stored.slots[0];
    let head = &slot[..slot.len() - 32 - 92];
    let (nonce, wrapped) = slot[head.len()..slot.len() - 32].split_at(12);
    let wrapping = derive(&Sha256::digest(key_file), workspace, "kura/1/slot/key-file");
    let opened = Aes256GcmSiv::new(&wrapping.into())
        .decrypt(&nonce.try_into().unwrap(), Payload { msg: wrapped, aad: head })
        .unwrap();
    let epoch = stored.newest();
    let body: EpochBody = postcard::from_bytes(&epoch[4..epoch.len() - 32]).unwrap();
    let info = [&b"kura/1/epoch/slot"[..], workspace.as_bytes(), &[0; 4], id.as_bytes()].concat();
    let secret = hpke::single_shot_open::<AesGcm256, HkdfSha256, Kem>(
        &hpke::OpModeR::Base,
        &<Kem as hpke::Kem>::PrivateKey::from_bytes(&opened[..32]).unwrap(),
        &<Kem as hpke::Kem>::EncappedKey::from_bytes(&body.entries[0].1).unwrap(),
        &info,
        &body.entries[0].2,
        &[],
    )
    .unwrap();
    assert_eq!(opened[32..], derive(&secret[32..64], workspace, "kura/1/anchor/slot"));
    secret[32..64].try_into().unwrap()
}

#[test]
fn an_epoch_forged_to_a_slots_public_key_is_refused() {
    let stored = Stored::new(&[slot("a", key_file(1))]);
    let forged = [(0, forged_epoch(&stored, [7; 32], [8; 32]))];
    let error = unlock(&stored.header, &stored.slots, &forged, &key_file(1)).unwrap_err();
    assert!(matches!(error, UnlockError::DamagedEpoch { number: 0, reason } if reason.contains("forged")), "{error}");
    // The forger's only mistake was the id key: with the right one, the second writer's record opens.
    let id_key = id_key_of(&stored, &[1; 64]);
    let known = [(0, forged_epoch(&stored, id_key, [8; 32]))];
    assert!(unlock(&stored.header, &stored.slots, &known, &key_file(1)).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn random_records_are_errors_and_no_panic(body in prop::collection::vec(any::<u8>(), 0..600), keep in 0..60usize) {
        let stored = Stored::new(&[slot("a", key_file(1))]);
        let id = stored.slots[0].0;
        let forge = |original: &[u8], record_type: u8| {
            let front = &original[4..4 + keep];
            with_checksum([&[b'k', b'u', 1, record_type][..], front, &body, &[0; 32]].concat())
        };
        let slots = vec![(id, forge(&stored.slots[0].1, 0x81))];
        prop_assert!(unlock(&stored.header, &slots, &stored.epochs, &key_file(1)).is_err());
        let epochs = vec![(0, forge(stored.newest(), 0x82))];
        prop_assert!(unlock(&stored.header, &stored.slots, &epochs, &key_file(1)).is_err());
        prop_assert!(unlock(&body, &stored.slots, &stored.epochs, &key_file(1)).is_err());
        prop_assert!(unlock(&stored.header, &[(id, body.clone())], &stored.epochs, &key_file(1)).is_err());
        prop_assert!(unlock(&stored.header, &stored.slots, &[(0, body)], &key_file(1)).is_err());
    }
}
