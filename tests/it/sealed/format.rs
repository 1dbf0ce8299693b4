//! The bytes of a file are where `FORMAT.md` draws them: a file is taken apart by what is written there alone, with the
//! standard functions and none of ours.

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use kura::crypto::sharing::Field;
use sha2::{Digest, Sha256};

use super::support::*;

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn a_file_can_be_read_by_its_description() {
    let machine = machine(&disk());
    make_two(&machine, &small(Field::Gf256, 6));
    let file = bytes(&machine);
    assert_eq!(&file[..8], b"kusealed");
    assert_eq!(file[8..12], [1, 1, 1, 0]);
    let (slots, share_len) = (number(&file, 40) as usize, number(&file, 44) as usize);
    assert_eq!((slots, share_len), (6, 416));
    assert_eq!(file[80..96], [0; 16]);
    let slot_len = 112 + share_len + 16;
    assert_eq!(file.len(), 160 + slots * slot_len);

    let ids = [1u16, 4, 5];
    let mut hash = Sha256::new();
    hash.update(b"kura/1/sealed/password");
    hash.update(&file[..96]);
    hash.update(3u16.to_le_bytes());
    ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
    let salt = hash.finalize();
    let costs = argon2::Params::new(number(&file, 28), number(&file, 32), number(&file, 36), Some(32)).unwrap();
    let mut key = [0; 32];
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, costs)
        .hash_password_into(b"one", &salt[..16], &mut key)
        .unwrap();

    let mut shares = Vec::new();
    for id in ids {
        let slot = &file[160 + (usize::from(id) - 1) * slot_len..][..slot_len];
        let mut keys = [0; 64];
        let info = [&b"kura/1/sealed/slot"[..], &id.to_le_bytes()].concat();
        Hkdf::<Sha256>::new(Some(&slot[..32]), &key).expand(&info, &mut keys).unwrap();
        assert_eq!(slot[32..64], keys[32..]);
        let cipher = Aes256GcmSiv::new_from_slice(&keys[..32]).unwrap();
        let open = |nonce: u32, sealed: &[u8]| {
            let (body, tag) = sealed.split_at(sealed.len() - 16);
            let mut nonce_bytes = [0; 12];
            nonce_bytes[..4].copy_from_slice(&nonce.to_le_bytes());
            let mut plain = body.to_vec();
            let tag = Tag::try_from(tag).unwrap();
            cipher.decrypt_inout_detached(&Nonce::from(nonce_bytes), &[], plain.as_mut_slice().into(), &tag).unwrap();
            plain
        };
        let description = open(u32::MAX, &slot[64..112]);
        assert_eq!(description[16..], [&[2, 0, 3, 0][..], &[0; 12]].concat());
        shares.push(open(0, &slot[112..]));
    }
    let mut document = vec![0; share_len];
    assert!(Field::Gf256.combine(&[1, 5], &[&shares[0], &shares[2]], &mut document));
    let json = b"{\"name\":\"one\"}";
    assert_eq!(document[32..40], 1u64.to_le_bytes());
    assert_eq!(document[48..56], (json.len() as u64).to_le_bytes());
    assert_eq!(document[56..64], [0; 8]);
    assert_eq!(document[64..96], Sha256::digest(json)[..]);
    assert_eq!(&document[96..96 + json.len()], json);
    assert!(document[96 + json.len()..].iter().all(|byte| *byte == 0));

    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&document[..32]).unwrap();
    mac.update(b"kura/1/sealed/root");
    mac.update(&file[96..128]);
    assert_eq!(file[128..160], mac.finalize().into_bytes()[..]);
}
