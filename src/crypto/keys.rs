//! The key ring of a workspace: epoch keys, the id key, and everything derived from them.

use std::sync::Arc;

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256 as Sha2;
use zeroize::Zeroizing;

use super::sealed::{HEADER_LEN, Kind, MAGIC, NONCE_LEN, SEAL_OVERHEAD, Sealed, TAG_LEN, header};
use crate::base::ids::{BlobId, Sha256, WorkspaceId};
use crate::base::limits::FORMAT_VERSION;
use crate::base::random;

/// A 256-bit key; wiped on drop, never shown.
pub(super) type KeyBytes = Zeroizing<[u8; 32]>;

/// What a keyed identity is for. Domains never collide, even for equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdDomain {
    /// Content of files.
    Content,
    /// Pages.
    Page,
    /// Names of leases.
    Lease,
}

/// Why an envelope could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than an envelope, or not beginning with one.
    #[error("not a sealed object (cut short, or overwritten)")]
    NotSealed,
    /// Written by a newer program.
    #[error("written in format {found}, newer than this program's {FORMAT_VERSION}; install a newer kura")]
    NewerFormat {
        /// The format version found.
        found: u8,
    },
    /// Sealed, but as something else.
    #[error("sealed as another kind of object (expected {expected}, found {found})")]
    WrongKind {
        /// The kind expected.
        expected: u8,
        /// The kind found.
        found: u8,
    },
    /// Sealed under an epoch whose key is not known here.
    #[error("sealed under key epoch {epoch}, which this key ring does not hold")]
    UnknownEpoch {
        /// The epoch found.
        epoch: u32,
    },
    /// The tag does not match: altered, or put in another object's place.
    #[error("altered, or put in the place of another object")]
    Forged,
}

/// The opened key ring. Clones share the keys.
#[derive(Clone)]
pub struct Keys(Arc<Ring>);

struct Ring {
    workspace: WorkspaceId,
    /// Ciphers per epoch, oldest first; index is the epoch number.
    epochs: Vec<EpochCiphers>,
    ids: [Hmac<Sha2>; 3],
    chunk_seed: u64,
}

struct EpochCiphers {
    by_kind: [Aes256GcmSiv; Kind::ALL.len()],
}

impl Keys {
    /// Builds the ring from the id key and the epoch keys, oldest epoch first.
    pub(super) fn new(workspace: WorkspaceId, id_key: &KeyBytes, epochs: &[KeyBytes]) -> Self {
        let id = |label: &str| {
            let key = derive(id_key, workspace, "id", label);
            <Hmac<Sha2> as KeyInit>::new_from_slice(key.as_slice())
                .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"))
        };
        let seed = derive(id_key, workspace, "chunker", "gear");
        let mut seed_bytes = [0; 8];
        seed_bytes.copy_from_slice(&seed[..8]);
        Self(Arc::new(Ring {
            workspace,
            epochs: epochs.iter().map(|key| EpochCiphers::new(workspace, key)).collect(),
            ids: [id("content"), id("page"), id("lease")],
            chunk_seed: u64::from_le_bytes(seed_bytes),
        }))
    }

    /// A ring of fresh random keys for tests and simulations.
    pub fn ephemeral(workspace: WorkspaceId) -> Self {
        let key = || Zeroizing::new(random::bytes());
        Self::new(workspace, &key(), &[key()])
    }

    /// The workspace the keys belong to.
    pub fn workspace(&self) -> WorkspaceId {
        self.0.workspace
    }

    /// The newest epoch: the one new envelopes are sealed under.
    pub fn epoch(&self) -> u32 {
        u32::try_from(self.0.epochs.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// The 64-bit seed of the content-defined chunker's gear table.
    pub fn chunk_seed(&self) -> u64 {
        self.0.chunk_seed
    }

    /// The keyed identity of a plaintext: HMAC-SHA-256(id key of the domain, SHA-256(plaintext)).
    pub fn id(&self, domain: IdDomain, plaintext: &Sha256) -> BlobId {
        let mut mac = self.0.ids[domain as usize].clone();
        mac.update(plaintext.as_bytes());
        BlobId(mac.finalize().into_bytes().into())
    }

    /// Seals `plaintext` as `kind` under the newest epoch, bound to `identity`.
    pub fn seal(&self, kind: Kind, identity: &[u8], plaintext: &[u8]) -> Sealed {
        let mut out = Vec::with_capacity(plaintext.len() + SEAL_OVERHEAD);
        self.seal_onto(kind, identity, plaintext, &mut out);
        Sealed::new(out)
    }

    /// As [`seal`](Self::seal), appending the envelope to a run of envelopes.
    pub fn seal_after(&self, kind: Kind, identity: &[u8], plaintext: &[u8], run: Sealed) -> Sealed {
        let mut out = run.into_bytes();
        self.seal_onto(kind, identity, plaintext, &mut out);
        Sealed::new(out)
    }

    fn seal_onto(&self, kind: Kind, identity: &[u8], plaintext: &[u8], out: &mut Vec<u8>) {
        let epoch = self.epoch();
        let header = header(kind, epoch);
        let nonce: [u8; NONCE_LEN] = random::bytes();
        out.reserve(plaintext.len() + SEAL_OVERHEAD);
        out.extend_from_slice(&header);
        out.extend_from_slice(&nonce);
        let body = out.len();
        out.extend_from_slice(plaintext);
        let aad = self.associated_data(&header, identity);
        let cipher = &self.0.epochs[epoch as usize].by_kind[kind as usize - 1];
        let tag = cipher
            .encrypt_inout_detached(&Nonce::from(nonce), &aad, out[body..].as_mut().into())
            .unwrap_or_else(|_| unreachable!("AES-GCM-SIV seals up to 64 GiB, limits::OBJECT_LEN_MAX is far below"));
        out.extend_from_slice(&tag);
    }

    /// Opens one envelope that was sealed as `kind` for `identity`.
    pub fn open(&self, kind: Kind, identity: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        if sealed.len() < SEAL_OVERHEAD || sealed[..2] != MAGIC {
            return Err(OpenError::NotSealed);
        }
        if sealed[2] > FORMAT_VERSION {
            return Err(OpenError::NewerFormat { found: sealed[2] });
        }
        if sealed[3] != kind as u8 {
            return Err(OpenError::WrongKind { expected: kind as u8, found: sealed[3] });
        }
        let epoch = u32::from_le_bytes([sealed[4], sealed[5], sealed[6], sealed[7]]);
        let Some(ciphers) = self.0.epochs.get(epoch as usize) else {
            return Err(OpenError::UnknownEpoch { epoch });
        };
        let aad = self.associated_data(&sealed[..HEADER_LEN], identity);
        let (front, tag) = sealed.split_at(sealed.len() - TAG_LEN);
        let nonce = Nonce::try_from(&front[HEADER_LEN..HEADER_LEN + NONCE_LEN]).map_err(|_| OpenError::NotSealed)?;
        let tag = Tag::try_from(tag).map_err(|_| OpenError::NotSealed)?;
        let mut plaintext = front[HEADER_LEN + NONCE_LEN..].to_vec();
        ciphers.by_kind[kind as usize - 1]
            .decrypt_inout_detached(&nonce, &aad, plaintext.as_mut_slice().into(), &tag)
            .map_err(|_| OpenError::Forged)?;
        Ok(plaintext)
    }

    fn associated_data(&self, header: &[u8], identity: &[u8]) -> Vec<u8> {
        [header, self.0.workspace.as_bytes(), identity].concat()
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys(workspace {}, epoch {})", self.0.workspace, self.epoch())
    }
}

impl EpochCiphers {
    fn new(workspace: WorkspaceId, key: &KeyBytes) -> Self {
        Self {
            by_kind: Kind::ALL.map(|kind| {
                let key = derive(key, workspace, "seal", kind.label());
                Aes256GcmSiv::new((&*key).into())
            }),
        }
    }
}

/// HKDF-SHA-256 (RFC 5869): salt is the workspace id, info is `kura/1/PURPOSE/LABEL`.
pub(super) fn derive(key: &KeyBytes, workspace: WorkspaceId, purpose: &str, label: &str) -> KeyBytes {
    let info = format!("kura/1/{purpose}/{label}");
    let mut out = Zeroizing::new([0; 32]);
    Hkdf::<Sha2>::new(Some(workspace.as_bytes()), key.as_slice())
        .expand(info.as_bytes(), out.as_mut_slice())
        .unwrap_or_else(|_| unreachable!("32 bytes are within HKDF's limit of 8160"));
    out
}
