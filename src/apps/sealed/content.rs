//! What is shared among the slots of a document: a head, the JSON, zeros.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::layout::DOCUMENT_HEAD_LEN;
use crate::base::clock::Timestamp;
use crate::crypto::document::{ROOT_KEY_LEN, RootKey};

/// What stands before the JSON.
pub struct Head {
    /// Authenticates the file.
    pub root_key: RootKey,
    /// Counted from 1, one more with every change of the document.
    pub revision: u64,
    /// When it was changed last.
    pub changed: Timestamp,
    json_len: usize,
    sha256: [u8; 32],
}

impl Head {
    /// The head of a document.
    pub fn new(root_key: RootKey, revision: u64, changed: Timestamp, json: &[u8]) -> Self {
        Self { root_key, revision, changed, json_len: json.len(), sha256: Sha256::digest(json).into() }
    }

    /// The stored form.
    pub fn encode(&self) -> Zeroizing<[u8; DOCUMENT_HEAD_LEN]> {
        let mut bytes = Zeroizing::new([0; DOCUMENT_HEAD_LEN]);
        bytes[..32].copy_from_slice(self.root_key.as_bytes());
        bytes[32..40].copy_from_slice(&self.revision.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.changed.unix_ns().to_le_bytes());
        bytes[48..56].copy_from_slice(&(self.json_len as u64).to_le_bytes());
        bytes[64..].copy_from_slice(&self.sha256);
        bytes
    }

    /// Reads the stored form; `None` when it makes no sense or the document would be longer than `capacity`.
    pub fn decode(bytes: &[u8; DOCUMENT_HEAD_LEN], capacity: usize) -> Option<Self> {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let mut root_key = Zeroizing::new([0; ROOT_KEY_LEN]);
        root_key.copy_from_slice(&bytes[..32]);
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(&bytes[64..]);
        let json_len = usize::try_from(number(48)).ok().filter(|len| *len <= capacity)?;
        (number(56) == 0).then(|| Self {
            root_key: RootKey::from_bytes(&root_key),
            revision: number(32),
            changed: Timestamp::from_unix_ns(number(40).cast_signed()),
            json_len,
            sha256,
        })
    }

    /// Bytes of the JSON.
    pub fn json_len(&self) -> usize {
        self.json_len
    }

    /// Whether this is the JSON of the head.
    pub fn fits(&self, json: &[u8]) -> bool {
        json.len() == self.json_len && <[u8; 32]>::from(Sha256::digest(json)) == self.sha256
    }
}

/// Copies the part of head, JSON and zeros that begins at `start` into `out`.
pub fn fill(head: &[u8; DOCUMENT_HEAD_LEN], json: &[u8], start: usize, out: &mut [u8]) {
    out.fill(0);
    for (part, part_start) in [(&head[..], 0), (json, DOCUMENT_HEAD_LEN)] {
        let (from, to) = (start.max(part_start), (start + out.len()).min(part_start + part.len()));
        if from < to {
            out[from - start..to - start].copy_from_slice(&part[from - part_start..to - part_start]);
        }
    }
}
