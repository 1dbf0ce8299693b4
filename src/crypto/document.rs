//! The keys of sealed documents: a password and a set of ids give a document's key, which gives each of its slots
//! a key of its own at every writing. Drawn in `FORMAT.md`, "Sealed documents".

use std::hint::black_box;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::cipher::Cipher;
use super::keys::{KEY_LEN, KeyBytes};
use super::sealed::{NONCE_LEN, TAG_LEN};
use super::slots::{KdfParams, Secret};

/// Bytes of a slot's salt, and of its commitment.
pub const SALT_LEN: usize = 32;
/// Bytes that sealing adds to a frame.
pub const FRAME_TAG_LEN: usize = TAG_LEN;
/// Bytes of a root key, and of a root's authentication.
pub const ROOT_KEY_LEN: usize = KEY_LEN;

/// Argon2id did not get its memory.
#[derive(Debug, thiserror::Error)]
#[error("not enough memory to stretch the password; free some, or make the file with lower costs")]
pub struct OutOfMemory;

/// What one password gives with one set of ids in one file.
pub struct DocumentKey(KeyBytes);

impl DocumentKey {
    /// Stretches the password. The salt binds file and ids.
    pub fn stretch(password: &Secret, kdf: KdfParams, salt: &[u8; 16]) -> Result<Self, OutOfMemory> {
        kdf.stretch(password.as_bytes(), salt).map(Self).map_err(|_| OutOfMemory)
    }

    /// The key of a slot, for the writing that drew this salt.
    pub fn slot(&self, id: u16, salt: &[u8; SALT_LEN]) -> SlotKey {
        let mut out = Zeroizing::new([0; 2 * KEY_LEN]);
        Hkdf::<Sha256>::new(Some(salt), self.0.as_array())
            .expand_multi_info(&[&b"kura/1/sealed/slot"[..], &id.to_le_bytes()], out.as_mut_slice())
            .unwrap_or_else(|_| unreachable!("64 bytes are within HKDF's limit of 8160"));
        let (key, commitment) = out.split_at(KEY_LEN);
        let key = KeyBytes::from_slice(key).unwrap_or_else(|| unreachable!("a key has 32 bytes"));
        let mut slot = SlotKey { cipher: Cipher::new(key), commitment: [0; SALT_LEN] };
        slot.commitment.copy_from_slice(commitment);
        slot
    }
}

/// The key of one slot at one writing.
pub struct SlotKey {
    cipher: Cipher,
    commitment: [u8; SALT_LEN],
}

impl SlotKey {
    /// What is stored beside the slot so that no other key can open it. It tells nothing without the key.
    pub fn commitment(&self) -> &[u8; SALT_LEN] {
        &self.commitment
    }

    /// Whether the slot was written under this key; takes the same time either way.
    #[must_use]
    pub fn is_committed(&self, stored: &[u8; SALT_LEN]) -> bool {
        let difference = self.commitment.iter().zip(stored).fold(0, |all, (a, b)| all | black_box(a ^ b));
        black_box(difference) == 0
    }

    /// Seals a frame in its place and gives the tag. Each number is used once under one key.
    pub fn seal(&self, number: u32, frame: &mut [u8]) -> [u8; FRAME_TAG_LEN] {
        self.cipher.seal(nonce(number), &[], frame)
    }

    /// Opens a frame in its place; false when it is not what was sealed.
    #[must_use]
    pub fn open(&self, number: u32, frame: &mut [u8], tag: &[u8; FRAME_TAG_LEN]) -> bool {
        self.cipher.open(nonce(number), &[], frame, tag)
    }
}

fn nonce(number: u32) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[..4].copy_from_slice(&number.to_le_bytes());
    nonce
}

/// Authenticates a whole file. Every document of the file carries it, so only who opens one can alter the file
/// unnoticed.
pub struct RootKey(KeyBytes);

impl RootKey {
    /// A fresh one, for a new file.
    pub fn random() -> Self {
        Self(KeyBytes::random())
    }

    /// The one that a document carries.
    pub fn from_bytes(bytes: &[u8; ROOT_KEY_LEN]) -> Self {
        Self(KeyBytes::new(*bytes))
    }

    /// The bytes that a document carries. They go nowhere but into its shares.
    pub fn as_bytes(&self) -> &[u8; ROOT_KEY_LEN] {
        self.0.as_array()
    }

    /// The authentication of a root.
    pub fn authenticate(&self, root: &[u8]) -> [u8; ROOT_KEY_LEN] {
        self.mac(root).finalize().into_bytes().into()
    }

    /// Whether the root is authentic; takes the same time either way.
    #[must_use]
    pub fn is_authentic(&self, root: &[u8], authentication: &[u8; ROOT_KEY_LEN]) -> bool {
        self.mac(root).verify_slice(authentication).is_ok()
    }

    fn mac(&self, root: &[u8]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.0.as_array())
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        mac.update(b"kura/1/sealed/root");
        mac.update(root);
        mac
    }
}

/// Bytes of stack that [`on_wiped_stack`] wipes: more than the deepest of our calls use.
const STACK_LEN: usize = 128 * 1024;

/// Does the work, then overwrites the part of the stack that it used: hashes and ciphers keep pieces of what they were
/// given in variables of theirs, which nobody else can wipe.
pub fn on_wiped_stack<T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    wipe_stack();
    result
}

/// Keeps the work's variables out of its caller's frame.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe_stack() {
    let mut space = [0u8; STACK_LEN];
    black_box(&mut space);
}
