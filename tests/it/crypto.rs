//! Primitives against published vectors, and the sealed envelope.

use aes_gcm_siv::Aes256GcmSiv;
use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
use data_encoding::HEXLOWER;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use hpke::aead::AesGcm128;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem as _, OpModeR, Serializable};
use kura::base::ids::{Sha256, WorkspaceId};
use kura::crypto::{IdDomain, Keys, Kind, OpenError, SEAL_OVERHEAD, Sealed};
use proptest::prelude::*;

const KINDS: [Kind; 12] = [
    Kind::Content,
    Kind::Page,
    Kind::Index,
    Kind::Head,
    Kind::PackDirectory,
    Kind::Locations,
    Kind::Journal,
    Kind::Local,
    Kind::Lease,
    Kind::Condemned,
    Kind::Epoch,
    Kind::App,
];

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// RFC 8452, appendix C.2: key, nonce, associated data, plaintext, result.
#[rustfmt::skip]
const AES_256_GCM_SIV: &[[&str; 5]] = &[
    ["0100000000000000000000000000000000000000000000000000000000000000",
     "030000000000000000000000",
     "",
     "",
     "07f5f4169bbf55a8400cd47ea6fd400f"],
    ["0100000000000000000000000000000000000000000000000000000000000000",
     "030000000000000000000000",
     "",
     "0100000000000000",
     "c2ef328e5c71c83b843122130f7364b761e0b97427e3df28"],
    ["0100000000000000000000000000000000000000000000000000000000000000",
     "030000000000000000000000",
     "",
     "010000000000000000000000",
     "9aab2aeb3faa0a34aea8e2b18ca50da9ae6559e48fd10f6e5c9ca17e"],
    ["0100000000000000000000000000000000000000000000000000000000000000",
     "030000000000000000000000",
     "",
     "01000000000000000000000000000000",
     "85a01b63025ba19b7fd3ddfc033b3e76c9eac6fa700942702e90862383c6c366"],
    ["0100000000000000000000000000000000000000000000000000000000000000",
     "030000000000000000000000",
     "",
     "0100000000000000000000000000000002000000000000000000000000000000",
     "4a6a9db4c8c6549201b9edb53006cba821ec9cf850948a7c86c68ac7539d027fe819e63abcd020b006a976397632eb5d"],
    ["0100000000000000000000000000000000000000000000000000000000000000",
     "030000000000000000000000",
     "01",
     "0200000000000000",
     "1de22967237a813291213f267e3b452f02d01ae33e4ec854"],
    ["0100000000000000000000000000000000000000000000000000000000000000",
     "030000000000000000000000",
     "01",
     "020000000000000000000000",
     "163d6f9cc1b346cd453a2e4cc1a4a19ae800941ccdc57cc8413c277f"],
    ["0100000000000000000000000000000000000000000000000000000000000000",
     "030000000000000000000000",
     "01",
     "02000000000000000000000000000000",
     "c91545823cc24f17dbb0e9e807d5ec17b292d28ff61189e8e49f3875ef91aff7"],
    ["0100000000000000000000000000000000000000000000000000000000000000",
     "030000000000000000000000",
     "01",
     "0200000000000000000000000000000003000000000000000000000000000000",
     "07dad364bfc2b9da89116d7bef6daaaf6f255510aa654f920ac81b94e8bad365aea1bad12702e1965604374aab96dbbc"],
    ["0100000000000000000000000000000000000000000000000000000000000000",
     "030000000000000000000000",
     "010000000000000000000000",
     "02000000",
     "22b3f4cd1835e517741dfddccfa07fa4661b74cf"],
    ["0100000000000000000000000000000000000000000000000000000000000000",
     "030000000000000000000000",
     "010000000000000000000000000000000200",
     "0300000000000000000000000000000004000000",
     "43dd0163cdb48f9fe3212bf61b201976067f342bb879ad976d8242acc188ab59cabfe307"],
    ["0100000000000000000000000000000000000000000000000000000000000000",
     "030000000000000000000000",
     "0100000000000000000000000000000002000000",
     "030000000000000000000000000000000400",
     "462401724b5ce6588d5a54aae5375513a075cfcdf5042112aa29685c912fc2056543"],
    ["e66021d5eb8e4f4066d4adb9c33560e4f46e44bb3da0015c94f7088736864200",
     "e0eaf5284d884a0e77d31646",
     "",
     "",
     "169fbb2fbf389a995f6390af22228a62"],
    ["bae8e37fc83441b16034566b7a806c46bb91c3c5aedb64a6c590bc84d1a5e269",
     "e4b47801afc0577e34699b9e",
     "4fbdc66f14",
     "671fdd",
     "0eaccb93da9bb81333aee0c785b240d319719d"],
];

#[test]
fn aes_256_gcm_siv_matches_rfc_8452() {
    assert!(AES_256_GCM_SIV.len() >= 10);
    for [key, nonce, aad, plaintext, result] in AES_256_GCM_SIV {
        let cipher = Aes256GcmSiv::new_from_slice(&hex(key)).unwrap();
        let nonce = aes_gcm_siv::Nonce::try_from(hex(nonce).as_slice()).unwrap();
        let (aad, plaintext, mut result) = (hex(aad), hex(plaintext), hex(result));
        assert_eq!(cipher.encrypt(&nonce, Payload { msg: &plaintext, aad: &aad }).unwrap(), result);
        assert_eq!(cipher.decrypt(&nonce, Payload { msg: &result, aad: &aad }).unwrap(), plaintext);
        result[0] ^= 1;
        assert!(cipher.decrypt(&nonce, Payload { msg: &result, aad: &aad }).is_err());
    }
}

#[test]
fn hkdf_matches_rfc_5869_and_hmac_rfc_4231_and_argon2id_rfc_9106() {
    let mut okm = [0; 42];
    Hkdf::<sha2::Sha256>::new(Some(&hex("000102030405060708090a0b0c")), &[0x0b; 22])
        .expand(&hex("f0f1f2f3f4f5f6f7f8f9"), &mut okm)
        .unwrap();
    let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
    assert_eq!(HEXLOWER.encode(&okm), expected);

    let mut mac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(b"Jefe").unwrap();
    mac.update(b"what do ya want for nothing?");
    let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(HEXLOWER.encode(&mac.finalize().into_bytes()), expected);

    let params = argon2::ParamsBuilder::new()
        .m_cost(32)
        .t_cost(3)
        .p_cost(4)
        .data(argon2::AssociatedData::new(&[4; 12]).unwrap())
        .build()
        .unwrap();
    let mut tag = [0; 32];
    argon2::Argon2::new_with_secret(&[3; 8], argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .unwrap()
        .hash_password_into(&[1; 32], &[2; 16], &mut tag)
        .unwrap();
    assert_eq!(HEXLOWER.encode(&tag), "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659");
}

/// RFC 9180, appendix A.1.1, with the key encapsulation and derivation that epochs use.
#[test]
fn hpke_matches_rfc_9180() {
    type Kem = X25519HkdfSha256;
    let (private_key, public_key) =
        Kem::derive_keypair(&hex("6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037"));
    let expected = "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d";
    assert_eq!(HEXLOWER.encode(&public_key.to_bytes()), expected);
    let encapsulated = hex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431");
    let opened = hpke::single_shot_open::<AesGcm128, HkdfSha256, Kem>(
        &OpModeR::Base,
        &private_key,
        &<Kem as hpke::Kem>::EncappedKey::from_bytes(&encapsulated).unwrap(),
        b"Ode on a Grecian Urn",
        &hex("f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"),
        b"Count-0",
    );
    assert_eq!(opened.unwrap(), b"Beauty is truth, truth beauty");
}

#[test]
fn what_is_sealed_opens_in_its_own_place_only() {
    let workspace = WorkspaceId::random();
    let keys = Keys::ephemeral(workspace);
    for kind in KINDS {
        let sealed = keys.seal(kind, b"identity", b"plaintext");
        assert_eq!(sealed.len(), b"plaintext".len() + SEAL_OVERHEAD);
        assert_eq!(keys.open(kind, b"identity", sealed.as_bytes()).unwrap(), b"plaintext");
        assert_eq!(keys.open(kind, b"identitx", sealed.as_bytes()), Err(OpenError::Forged));
        assert_eq!(keys.open(kind, b"", sealed.as_bytes()), Err(OpenError::Forged));
        assert_eq!(Keys::ephemeral(workspace).open(kind, b"identity", sealed.as_bytes()), Err(OpenError::Forged));
        for other in KINDS.into_iter().filter(|other| *other != kind) {
            let expected = OpenError::WrongKind { expected: other as u8, found: kind as u8 };
            assert_eq!(keys.open(other, b"identity", sealed.as_bytes()), Err(expected));
            let mut renamed = sealed.as_bytes().to_vec();
            renamed[3] = other as u8;
            assert_eq!(keys.open(other, b"identity", &renamed), Err(OpenError::Forged));
        }
    }
}

#[test]
fn every_flipped_or_missing_byte_of_an_envelope_is_noticed() {
    let keys = Keys::ephemeral(WorkspaceId::random());
    let sealed = keys.seal(Kind::Page, b"id", &[7; 100]).into_bytes();
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut bad = sealed.clone();
            bad[at] ^= 1 << bit;
            let error = keys.open(Kind::Page, b"id", &bad).unwrap_err();
            let right = match at {
                0 | 1 => error == OpenError::NotSealed,
                2 => matches!(error, OpenError::NewerFormat { .. } | OpenError::Forged),
                3 => matches!(error, OpenError::WrongKind { .. }),
                4..8 => matches!(error, OpenError::UnknownEpoch { .. }),
                _ => error == OpenError::Forged,
            };
            assert!(right, "byte {at} bit {bit}: {error}");
        }
        assert!(keys.open(Kind::Page, b"id", &sealed[..at]).is_err());
    }
    let mut longer = sealed;
    longer.push(0);
    assert_eq!(keys.open(Kind::Page, b"id", &longer), Err(OpenError::Forged));
}

#[test]
fn equal_plaintexts_seal_differently_and_an_empty_one_opens() {
    let keys = Keys::ephemeral(WorkspaceId::random());
    assert!(keys.seal(Kind::Head, b"", b"") != keys.seal(Kind::Head, b"", b""));
    assert_eq!(keys.open(Kind::Head, b"", keys.seal(Kind::Head, b"", b"").as_bytes()).unwrap(), b"");
    let run = keys.seal_after(Kind::Head, b"2", &[b"t", b"wo"], keys.seal(Kind::Head, b"1", b"one"));
    let (first, second) = run.as_bytes().split_at(3 + SEAL_OVERHEAD);
    assert_eq!(keys.open(Kind::Head, b"1", first).unwrap(), b"one");
    assert_eq!(keys.open(Kind::Head, b"2", second).unwrap(), b"two");
    assert_eq!(keys.open(Kind::Head, b"2", first), Err(OpenError::Forged));
}

#[test]
fn identities_depend_on_key_domain_and_content() {
    let workspace = WorkspaceId::random();
    let (keys, others) = (Keys::ephemeral(workspace), Keys::ephemeral(workspace));
    let (one, two) = (Sha256([1; 32]), Sha256([2; 32]));
    assert_eq!(keys.id(IdDomain::Content, &one), keys.clone().id(IdDomain::Content, &one));
    assert_ne!(keys.id(IdDomain::Content, &one), keys.id(IdDomain::Content, &two));
    assert_ne!(keys.id(IdDomain::Content, &one), keys.id(IdDomain::Page, &one));
    assert_ne!(keys.id(IdDomain::Page, &one), keys.id(IdDomain::Lease, &one));
    assert_ne!(keys.id(IdDomain::Content, &one), others.id(IdDomain::Content, &one));
    assert_ne!(keys.chunk_seed(), others.chunk_seed());
}

#[test]
fn debug_shows_no_key_and_no_bytes() {
    let keys = Keys::ephemeral(WorkspaceId::random());
    assert_eq!(format!("{keys:?}"), format!("Keys(workspace {}, epoch 0)", keys.workspace()));
    assert_eq!(format!("{:?}", keys.seal(Kind::App, b"", b"abc")), "Sealed(39 bytes)");
    assert!(Sealed::from_local(b"plain text, not sealed, and longer than an envelope".to_vec()).is_none());
}

proptest! {
    #[test]
    fn random_bytes_never_open(mut bytes in prop::collection::vec(any::<u8>(), 0..200), prefix in 0..5usize) {
        let keys = Keys::ephemeral(WorkspaceId::random());
        let header = [b'k', b'u', 1, Kind::Page as u8, 0, 0, 0, 0];
        let count = (prefix * 2).min(bytes.len());
        bytes[..count].copy_from_slice(&header[..count]);
        prop_assert!(keys.open(Kind::Page, b"id", &bytes).is_err());
    }
}

#[test]
fn keys_are_locked_in_memory() {
    let locked_kib = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmLck")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let keys = Keys::ephemeral(WorkspaceId::random());
    assert!(locked_kib() > 0, "nothing is locked");
    drop(keys);
}
