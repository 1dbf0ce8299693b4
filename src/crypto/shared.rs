//! Keys that are handed to others: whoever has one reads what it seals, and nothing else of any workspace.

use std::fmt;

use data_encoding::BASE64;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::cipher::Cipher;
use super::keys::{KEY_LEN, KeyBytes};
use super::sealed::{MAGIC, NONCE_LEN, Sealed, TAG_LEN};
use crate::base::random;

/// Bytes that sealing adds.
pub const SHARED_OVERHEAD: usize = HEAD.len() + NONCE_LEN + TAG_LEN;
/// Magic, version of this form, and what else an envelope has there.
const HEAD: [u8; 4] = [MAGIC[0], MAGIC[1], 0xff, 1];

/// A key to be shared. Drawn in `FORMAT.md`, "Releases".
#[derive(Clone)]
pub struct SharedKey(std::sync::Arc<Cipher>);

impl SharedKey {
    /// A fresh one.
    pub fn random() -> Self {
        Self::of(KeyBytes::random())
    }

    /// One that came as text; `None` when it is no key.
    pub fn from_text(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(BASE64.decode(text.trim().as_bytes()).ok()?);
        KeyBytes::from_slice(&bytes).map(Self::of)
    }

    /// As text, for those it is meant for.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(self.0.key().as_array()))
    }

    /// A key for one purpose, from which this one cannot be found.
    #[must_use]
    pub fn derive(&self, purpose: &str, about: &[u8]) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        Hkdf::<Sha256>::new(None, self.0.key().as_array())
            .expand_multi_info(&[b"kura/1/release/", purpose.as_bytes(), b"\0", about], bytes.as_mut_slice())
            .unwrap_or_else(|_| unreachable!("32 bytes are within HKDF's limit of 8160"));
        Self::of(KeyBytes::new(*bytes))
    }

    fn of(key: KeyBytes) -> Self {
        Self(std::sync::Arc::new(Cipher::new(key)))
    }

    /// Seals something under its name; opened under another, it fails.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Sealed {
        let mut nonce = [0; NONCE_LEN];
        random::fill(&mut nonce);
        self.seal_with(nonce, name, plain)
    }

    /// As [`seal`](Self::seal), the same bytes each time. For keys that come from what they seal.
    pub fn seal_same(&self, name: &str, plain: &[u8]) -> Sealed {
        self.seal_with([0; NONCE_LEN], name, plain)
    }

    fn seal_with(&self, nonce: [u8; NONCE_LEN], name: &str, plain: &[u8]) -> Sealed {
        let mut sealed = Vec::with_capacity(plain.len() + SHARED_OVERHEAD);
        sealed.extend_from_slice(&HEAD);
        sealed.extend_from_slice(&nonce);
        let start = sealed.len();
        sealed.extend_from_slice(plain);
        let tag = self.0.seal(nonce, name.as_bytes(), &mut sealed[start..]);
        sealed.extend_from_slice(&tag);
        Sealed::new(sealed)
    }

    /// Opens what was sealed under this name; `None` when it is anything else.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let rest = sealed.strip_prefix(&HEAD)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (body, tag) = rest.split_last_chunk::<TAG_LEN>()?;
        let mut plain = vec![0; body.len()];
        self.0.open_into(*nonce, name.as_bytes(), body, tag, &mut plain).then_some(plain)
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey")
    }
}

impl PartialEq for SharedKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key().as_array() == other.0.key().as_array()
    }
}

impl Eq for SharedKey {}

impl serde::Serialize for SharedKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> serde::Deserialize<'de> for SharedKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // What is wrong is not told: the text may be most of a key.
        Self::from_text(&text).ok_or_else(|| serde::de::Error::custom("this is no key"))
    }
}
