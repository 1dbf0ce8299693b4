//! The key ring of a workspace: epoch keys, the id key, and everything derived from them.

use std::sync::Arc;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::RwLock;
use sha2::Sha256 as Sha2;
use zeroize::Zeroizing;

use super::cipher::Cipher;
use super::sealed::{HEADER_LEN, Kind, MAGIC, NONCE_LEN, SEAL_FRONT_LEN, SEAL_OVERHEAD, Sealed, TAG_LEN, header};
use crate::base::ids::{BlobId, Sha256, WorkspaceId};
use crate::base::limits::FORMAT_VERSION;
use crate::base::random;

/// A 256-bit key; wiped on drop, never shown.
pub(super) struct KeyBytes(Zeroizing<[u8; KEY_LEN]>);

pub(super) const KEY_LEN: usize = 32;

impl KeyBytes {
    pub(super) fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn random() -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        random::fill(bytes.as_mut_slice());
        Self(bytes)
    }

    pub(super) fn from_slice(slice: &[u8]) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        (slice.len() == KEY_LEN).then(|| bytes.copy_from_slice(slice))?;
        Some(Self(bytes))
    }

    pub(super) fn as_array(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    fn copy(&self) -> Self {
        Self(self.0.clone())
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.0.as_mut_slice()
    }
}

/// What a keyed identity is for. Domains never collide, even for equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdDomain {
    /// Content of files.
    Content,
    /// Pages.
    Page,
    /// Names of leases.
    Lease,
    /// Names in the records of applications.
    App,
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

/// The opened key ring. Clones share the keys, and what one of them [adopts](Keys::adopt).
#[derive(Clone)]
pub struct Keys(Arc<Ring>);

struct Ring {
    workspace: WorkspaceId,
    /// Kept to write epoch records; never leaves this room.
    id_key: KeyBytes,
    /// Oldest first; the index is the epoch number. Never empty; epochs are added and never taken away.
    epochs: RwLock<Vec<Arc<EpochKeys>>>,
    ids: [Hmac<Sha2>; 4],
    long_id_key: KeyBytes,
    chunk_seed: u64,
}

/// The key of one epoch, and its ciphers.
pub(super) struct EpochKeys {
    key: KeyBytes,
    by_kind: [Cipher; Kind::ALL.len()],
}

impl Keys {
    /// Builds the ring from the id key and the epoch keys, oldest epoch first and at least one.
    pub(super) fn new(workspace: WorkspaceId, id_key: KeyBytes, epoch_keys: Vec<KeyBytes>) -> Self {
        debug_assert!(!epoch_keys.is_empty());
        let id = |label: &str| {
            let key = derive(id_key.as_array(), workspace, "id", label);
            <Hmac<Sha2> as KeyInit>::new_from_slice(key.as_array())
                .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"))
        };
        let seed = derive(id_key.as_array(), workspace, "chunker", "gear");
        let mut seed_bytes = [0; 8];
        seed_bytes.copy_from_slice(&seed.as_array()[..8]);
        let ring = Arc::new(Ring {
            workspace,
            epochs: RwLock::new(epoch_keys.into_iter().map(|key| EpochKeys::new(workspace, key)).collect()),
            ids: [id("content"), id("page"), id("lease"), id("app")],
            long_id_key: derive(id_key.as_array(), workspace, "id", "long-content"),
            chunk_seed: u64::from_le_bytes(seed_bytes),
            id_key,
        });
        keep_in_memory(&*ring);
        Self(ring)
    }

    /// A ring of fresh random keys for tests and simulations.
    pub fn ephemeral(workspace: WorkspaceId) -> Self {
        Self::new(workspace, KeyBytes::random(), vec![KeyBytes::random()])
    }

    pub(super) fn id_key(&self) -> &KeyBytes {
        &self.0.id_key
    }

    /// All epochs, oldest first.
    pub(super) fn epochs(&self) -> Vec<Arc<EpochKeys>> {
        self.0.epochs.read().clone()
    }

    /// A ring of its own with a fresh epoch after the newest.
    pub(super) fn with_next_epoch(&self) -> Self {
        let mut epoch_keys: Vec<KeyBytes> = self.epochs().iter().map(|epoch| epoch.key.copy()).collect();
        epoch_keys.push(KeyBytes::random());
        Self::new(self.0.workspace, self.0.id_key.copy(), epoch_keys)
    }

    /// Whether this ring has all that `older` has, and perhaps newer epochs.
    pub fn continues(&self, older: &Keys) -> bool {
        let (ours, theirs) = (self.epochs(), older.epochs());
        let same = |(ours, theirs): (&Arc<EpochKeys>, &Arc<EpochKeys>)| ours.key.as_array() == theirs.key.as_array();
        self.0.workspace == older.0.workspace
            && self.0.id_key.as_array() == older.0.id_key.as_array()
            && ours.len() >= theirs.len()
            && ours.iter().zip(&theirs).all(same)
    }

    /// Takes over the epochs that a ring has which [continues](Self::continues) this one; every clone has them, and
    /// seals under the newest, from then on. False, and nothing happens, when it does not continue this one.
    pub fn adopt(&self, newer: &Keys) -> bool {
        if Arc::ptr_eq(&self.0, &newer.0) {
            return true;
        }
        let continues = newer.continues(self);
        if continues {
            let newer = newer.epochs();
            let mut epochs = self.0.epochs.write();
            if newer.len() > epochs.len() {
                *epochs = newer;
            }
        }
        continues
    }

    /// The workspace the keys belong to.
    pub fn workspace(&self) -> WorkspaceId {
        self.0.workspace
    }

    /// The newest epoch: the one new envelopes are sealed under.
    pub fn epoch(&self) -> u32 {
        self.newest().0
    }

    fn newest(&self) -> (u32, Arc<EpochKeys>) {
        let epochs = self.0.epochs.read();
        let newest = epochs.last().unwrap_or_else(|| unreachable!("a key ring has at least one epoch"));
        (u32::try_from(epochs.len() - 1).unwrap_or(u32::MAX), newest.clone())
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

    /// The keyed identity of long content: keyed BLAKE3, which takes a fifth of the time, of the plaintext itself.
    pub fn long_id(&self, plaintext: &[u8]) -> BlobId {
        BlobId(blake3::keyed_hash(self.0.long_id_key.as_array(), plaintext).into())
    }

    /// Seals `plaintext` as `kind` under the newest epoch, bound to `identity`.
    pub fn seal(&self, kind: Kind, identity: &[u8], plaintext: &[u8]) -> Sealed {
        let mut out = Vec::with_capacity(plaintext.len() + SEAL_OVERHEAD);
        self.seal_onto(kind, identity, &[plaintext], &mut out);
        Sealed::new(out)
    }

    /// As [`seal`](Self::seal) for a plaintext in several parts, appending the envelope to a run of envelopes.
    pub fn seal_after(&self, kind: Kind, identity: &[u8], parts: &[&[u8]], run: Sealed) -> Sealed {
        let mut out = run.into_bytes();
        self.seal_onto(kind, identity, parts, &mut out);
        Sealed::new(out)
    }

    /// Makes one envelope of `buffer[at..]`, where the plaintext stands behind [`SEAL_FRONT_LEN`] bytes of anything.
    /// For local files; what a store gets is made by [`seal`](Self::seal).
    pub fn seal_in_place(&self, kind: Kind, identity: &[u8], buffer: &mut Vec<u8>, at: usize) {
        let (epoch, keys) = self.newest();
        let place = Place { workspace: self.0.workspace, kind, epoch, identity };
        place.seal_in_place(&keys.by_kind[kind as usize - 1], buffer, at);
    }

    fn seal_onto(&self, kind: Kind, identity: &[u8], parts: &[&[u8]], out: &mut Vec<u8>) {
        let (epoch, keys) = self.newest();
        let place = Place { workspace: self.0.workspace, kind, epoch, identity };
        place.seal_parts(&keys.by_kind[kind as usize - 1], parts, out);
    }

    /// Opens one envelope that was sealed as `kind` for `identity`.
    pub fn open(&self, kind: Kind, identity: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut plaintext = Vec::new();
        self.open_into(kind, identity, sealed, &mut plaintext)?;
        Ok(plaintext)
    }

    /// As [`open`](Self::open), into the front of `buffer`, which grows when it is too short and keeps what lies
    /// behind; returns the number of bytes. When this fails the buffer holds nothing of use, and no plaintext.
    pub fn open_into(
        &self,
        kind: Kind,
        identity: &[u8],
        sealed: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<usize, OpenError> {
        let epoch = read_header(kind, sealed)?;
        let keys = self.0.epochs.read().get(epoch as usize).cloned();
        let Some(keys) = keys else { return Err(OpenError::UnknownEpoch { epoch }) };
        let place = Place { workspace: self.0.workspace, kind, epoch, identity };
        place.open_into(&keys.by_kind[kind as usize - 1], sealed, buffer)
    }
}

/// The epoch that an envelope says it was sealed under; `None` when the bytes do not begin with one. Nothing is
/// authenticated by it.
pub fn envelope_epoch(sealed: &[u8]) -> Option<u32> {
    let header = sealed.first_chunk::<HEADER_LEN>().filter(|header| header[..2] == MAGIC)?;
    Some(u32::from_le_bytes([header[4], header[5], header[6], header[7]]))
}

/// Checks the header of an envelope and returns its epoch.
fn read_header(kind: Kind, sealed: &[u8]) -> Result<u32, OpenError> {
    if sealed.len() < SEAL_OVERHEAD || sealed[..2] != MAGIC {
        return Err(OpenError::NotSealed);
    }
    if sealed[2] > FORMAT_VERSION {
        return Err(OpenError::NewerFormat { found: sealed[2] });
    }
    if sealed[3] != kind as u8 {
        return Err(OpenError::WrongKind { expected: kind as u8, found: sealed[3] });
    }
    Ok(u32::from_le_bytes([sealed[4], sealed[5], sealed[6], sealed[7]]))
}

/// Everything an envelope is bound to.
pub(super) struct Place<'a> {
    pub(super) workspace: WorkspaceId,
    pub(super) kind: Kind,
    pub(super) epoch: u32,
    pub(super) identity: &'a [u8],
}

impl Place<'_> {
    /// The cipher for this place's kind under an epoch key.
    pub(super) fn cipher(&self, epoch_key: &KeyBytes) -> Cipher {
        kind_cipher(self.workspace, epoch_key, self.kind)
    }

    /// Appends an envelope for this place to `out`.
    pub(super) fn seal(&self, cipher: &Cipher, plaintext: &[u8], out: &mut Vec<u8>) {
        self.seal_parts(cipher, &[plaintext], out);
    }

    fn seal_parts(&self, cipher: &Cipher, parts: &[&[u8]], out: &mut Vec<u8>) {
        out.reserve(parts.iter().map(|part| part.len()).sum::<usize>() + SEAL_OVERHEAD);
        let at = out.len();
        out.resize(at + SEAL_FRONT_LEN, 0);
        parts.iter().for_each(|part| out.extend_from_slice(part));
        self.seal_in_place(cipher, out, at);
    }

    fn seal_in_place(&self, cipher: &Cipher, out: &mut Vec<u8>, at: usize) {
        let nonce: [u8; NONCE_LEN] = random::bytes();
        let (front, body) = out[at..].split_at_mut(SEAL_FRONT_LEN);
        front[..HEADER_LEN].copy_from_slice(&header(self.kind, self.epoch));
        front[HEADER_LEN..].copy_from_slice(&nonce);
        let tag = cipher.seal(nonce, &self.associated_data(), body);
        out.extend_from_slice(&tag);
    }

    /// Opens an envelope that must have been sealed for this place.
    pub(super) fn open(&self, cipher: &Cipher, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut plaintext = Vec::new();
        self.open_into(cipher, sealed, &mut plaintext)?;
        Ok(plaintext)
    }

    fn open_into(&self, cipher: &Cipher, sealed: &[u8], buffer: &mut Vec<u8>) -> Result<usize, OpenError> {
        let epoch = read_header(self.kind, sealed)?;
        if epoch != self.epoch || sealed[2] != FORMAT_VERSION {
            return Err(OpenError::Forged);
        }
        let (front, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(OpenError::NotSealed)?;
        let (nonce, body) = front[HEADER_LEN..].split_first_chunk::<NONCE_LEN>().ok_or(OpenError::NotSealed)?;
        if buffer.len() < body.len() {
            buffer.resize(body.len(), 0);
        }
        let plaintext = &mut buffer[..body.len()];
        match cipher.open_into(*nonce, &self.associated_data(), body, tag, plaintext) {
            true => Ok(body.len()),
            false => Err(OpenError::Forged),
        }
    }

    fn associated_data(&self) -> Vec<u8> {
        [&header(self.kind, self.epoch)[..], self.workspace.as_bytes(), self.identity].concat()
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys(workspace {}, epoch {})", self.0.workspace, self.epoch())
    }
}

/// Keeps keys out of swap, where the system lets us lock so much memory. For good: a page is locked once, however many
/// keys lie in it, so that unlocking one would unlock its neighbours.
fn keep_in_memory<T>(keys: &T) {
    match region::lock(std::ptr::from_ref(keys), size_of::<T>()) {
        Ok(locked) => std::mem::forget(locked),
        Err(error) => tracing::debug!("keys may be swapped out: {error}"),
    }
}

impl EpochKeys {
    fn new(workspace: WorkspaceId, key: KeyBytes) -> Arc<Self> {
        let keys = Arc::new(Self { by_kind: Kind::ALL.map(|kind| kind_cipher(workspace, &key, kind)), key });
        keep_in_memory(&*keys);
        keys
    }

    pub(super) fn key(&self) -> &KeyBytes {
        &self.key
    }
}

fn kind_cipher(workspace: WorkspaceId, epoch_key: &KeyBytes, kind: Kind) -> Cipher {
    Cipher::new(derive(epoch_key.as_array(), workspace, "seal", kind.label()))
}

/// HKDF-SHA-256 (RFC 5869): salt is the workspace id, info is `kura/1/PURPOSE/LABEL`.
pub(super) fn derive(secret: &[u8], workspace: WorkspaceId, purpose: &str, label: &str) -> KeyBytes {
    let info = format!("kura/1/{purpose}/{label}");
    let mut out = KeyBytes::new([0; KEY_LEN]);
    Hkdf::<Sha2>::new(Some(workspace.as_bytes()), secret)
        .expand(info.as_bytes(), out.as_mut_slice())
        .unwrap_or_else(|_| unreachable!("32 bytes are within HKDF's limit of 8160"));
    out
}
