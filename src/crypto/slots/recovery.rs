//! The recovery code: 160 random bits, written down by a person.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::base::random;

const SECRET_LEN: usize = 20;
const CHECK_LEN: usize = 4;
const SYMBOLS_LEN: usize = SECRET_LEN * 8 / 5 + CHECK_LEN;
const GROUP_LEN: usize = 6;
/// Crockford's alphabet: no I, L, O or U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A recovery code: 160 bits and 20 bits of checksum as six groups of six letters and digits.
pub struct RecoveryCode(Zeroizing<[u8; SECRET_LEN]>);

/// The text is no recovery code: mistyped or incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRecoveryCode {
    /// Letters are missing or too many.
    #[error("the recovery code has {found} letters and digits, it must have 36 (six groups of six)")]
    Length {
        /// How many there are.
        found: usize,
    },
    /// A character that no code holds.
    #[error("group {group} of the recovery code holds a character that no code has; check it against the paper")]
    Character {
        /// The group, counted from 1.
        group: usize,
    },
    /// The checksum does not match.
    #[error("the recovery code is mistyped: its checksum does not match; compare every group with the paper")]
    Checksum,
}

impl RecoveryCode {
    /// A new random code.
    pub fn generate() -> Self {
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        random::fill(secret.as_mut_slice());
        Self(secret)
    }

    /// The text to print once: six groups of six, joined by hyphens.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(SYMBOLS_LEN + SYMBOLS_LEN / GROUP_LEN));
        for (position, symbol) in symbols(&self.0).iter().enumerate() {
            if position > 0 && position % GROUP_LEN == 0 {
                text.push('-');
            }
            text.push(char::from(ALPHABET[usize::from(*symbol)]));
        }
        text
    }

    /// Reads a code as typed: case, spaces and hyphens do not matter; O is 0, I and L are 1.
    pub fn parse(text: &Secret) -> Result<Self, BadRecoveryCode> {
        let mut typed = Zeroizing::new([0u8; SYMBOLS_LEN]);
        let mut found = 0;
        for byte in text.as_bytes().iter().filter(|byte| !matches!(byte, b'-' | b' ' | b'\t' | b'\r' | b'\n')) {
            let group = found / GROUP_LEN + 1;
            let symbol = symbol_of(*byte).ok_or(BadRecoveryCode::Character { group })?;
            if let Some(place) = typed.get_mut(found) {
                *place = symbol;
            }
            found += 1;
        }
        if found != SYMBOLS_LEN {
            return Err(BadRecoveryCode::Length { found });
        }
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        for (bytes, symbols) in secret.chunks_exact_mut(5).zip(typed.chunks_exact(8)) {
            let number = symbols.iter().fold(0u64, |number, symbol| number << 5 | u64::from(*symbol));
            bytes.copy_from_slice(&number.to_be_bytes()[3..]);
        }
        if *symbols(&secret) != *typed {
            return Err(BadRecoveryCode::Checksum);
        }
        Ok(Self(secret))
    }

    /// The code as a secret that unlocks.
    pub fn to_secret(&self) -> Secret {
        Secret::new(self.to_text().as_bytes().to_vec())
    }

    pub(super) fn secret(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl std::fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryCode(..)")
    }
}

fn symbol_of(byte: u8) -> Option<u8> {
    let upper = match byte.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    ALPHABET.iter().position(|symbol| *symbol == upper).and_then(|position| u8::try_from(position).ok())
}

/// The 5-bit symbols of the secret, then those of its checksum.
fn symbols(secret: &[u8; SECRET_LEN]) -> Zeroizing<[u8; SYMBOLS_LEN]> {
    let mut out = Zeroizing::new([0; SYMBOLS_LEN]);
    let (body, check) = out.split_at_mut(SYMBOLS_LEN - CHECK_LEN);
    for (symbols, bytes) in body.chunks_exact_mut(8).zip(secret.chunks_exact(5)) {
        let number = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        for (symbol, shift) in symbols.iter_mut().zip([35, 30, 25, 20, 15, 10, 5, 0]) {
            *symbol = (number >> shift & 31).to_le_bytes()[0];
        }
    }
    let digest = Sha256::new_with_prefix(b"kura/1/recovery-code/").chain_update(secret).finalize();
    for (symbol, byte) in check.iter_mut().zip(digest) {
        *symbol = byte & 31;
    }
    out
}
