//! One key slot: a key pair whose private half is wrapped by one credential.

use hpke::kem::X25519HkdfSha256 as Kem;
use hpke::{Deserializable, Kem as _, Serializable};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::epoch::{HpkeRng, Member};
use super::frame::{FrameError, TYPE_SLOT, frame, frame_header, unframe};
use super::recovery::{BadRecoveryCode, RecoveryCode};
use super::secret::{Credential, CredentialKind, Secret};
use crate::base::clock::Timestamp;
use crate::base::ids::{SlotId, WorkspaceId};
use crate::base::random;
use crate::crypto::cipher::Cipher;
use crate::crypto::keys::{KEY_LEN, KeyBytes, derive};
use crate::crypto::sealed::{NONCE_LEN, Sealed, TAG_LEN};

/// Longest slot record, in bytes.
const SLOT_LEN_MAX: usize = 4096;
/// Longest label, in bytes.
const LABEL_LEN_MAX: usize = 255;
/// Shortest key file, in bytes: 256 bits, if they are random.
const KEY_FILE_LEN_MIN: usize = 32;
/// Longest key file, in bytes.
const KEY_FILE_LEN_MAX: usize = 1024 * 1024;

/// Private half and anchor.
const WRAPPED_LEN: usize = 2 * KEY_LEN;
const WRAP_LEN: usize = NONCE_LEN + WRAPPED_LEN + TAG_LEN;

const MEMORY_KIB_MIN: u32 = 8 * 1024;
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 8;

/// Cost of Argon2id. Bounded: 8 MiB to 1 GiB, 1 to 16 passes, 1 to 8 lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KdfParams {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl KdfParams {
    /// Takes the parameters; `None` when one is out of bounds.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Option<Self> {
        let params = Self { memory_kib, passes, lanes };
        params.is_bounded().then_some(params)
    }

    /// The cheapest that is accepted: 8 MiB, one pass. For tests.
    pub fn minimum() -> Self {
        Self { memory_kib: MEMORY_KIB_MIN, passes: 1, lanes: 1 }
    }

    /// Memory in KiB, passes and lanes.
    pub fn costs(self) -> (u32, u32, u32) {
        (self.memory_kib, self.passes, self.lanes)
    }

    fn is_bounded(self) -> bool {
        (MEMORY_KIB_MIN..=MEMORY_KIB_MAX).contains(&self.memory_kib)
            && (1..=PASSES_MAX).contains(&self.passes)
            && (1..=LANES_MAX).contains(&self.lanes)
    }

    pub(in crate::crypto) fn stretch(self, passphrase: &[u8], salt: &[u8; 16]) -> Result<KeyBytes, argon2::Error> {
        let params = argon2::Params::new(self.memory_kib, self.passes, self.lanes, Some(KEY_LEN))?;
        let mut out = KeyBytes::new([0; KEY_LEN]);
        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params).hash_password_into(
            passphrase,
            salt,
            out.as_mut_slice(),
        )?;
        Ok(out)
    }
}

impl Default for KdfParams {
    /// 64 MiB, three passes, one lane.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 }
    }
}

/// A slot to be made.
#[derive(Debug)]
pub struct NewSlot {
    /// What people call it, e.g. `alice's laptop`. At most 255 bytes; stored sealed.
    pub label: String,
    /// What will open it.
    pub credential: Credential,
}

/// Why key slots could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// There must be a way in.
    #[error("a workspace needs between 1 and {max} key slots", max = super::epoch::MEMBERS_MAX)]
    SlotCount,
    /// An empty passphrase protects nothing.
    #[error("the passphrase is empty; choose one")]
    EmptyPassphrase,
    /// The key file cannot hold enough randomness, or is not one.
    #[error(
        "the key file has {len} bytes, it must have between 32 and 1048576; make one with `head -c 32 /dev/urandom`"
    )]
    KeyFileLen {
        /// Its length in bytes.
        len: usize,
    },
    /// The only slot that opens the workspace cannot go.
    #[error("{id} is the last key slot that opens the workspace; add another first")]
    LastSlot {
        /// The slot.
        id: SlotId,
    },
    /// The label is too long.
    #[error("the label of the key slot is longer than 255 bytes; shorten it")]
    LabelTooLong,
    /// The recovery code is mistyped.
    #[error(transparent)]
    RecoveryCode(#[from] BadRecoveryCode),
    /// Argon2id could not get its memory.
    #[error("not enough memory to stretch the passphrase ({memory_kib} KiB); free some, or choose lower costs")]
    Memory {
        /// The memory asked for, in KiB.
        memory_kib: u32,
    },
    /// The public key of a member is no key.
    #[error("key slot {id} has a public key that cannot be sealed to; remove the slot and add it anew")]
    PublicKey {
        /// The slot.
        id: SlotId,
    },
    /// Epochs are counted out.
    #[error("the workspace has used up its {max} key epochs", max = super::epoch::EPOCHS_MAX)]
    EpochCount,
    /// The records as they are cannot be read.
    #[error(transparent)]
    Record(#[from] super::unlock::UnlockError),
}

/// How the private half is wrapped.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Method {
    Passphrase { kdf: KdfParams, salt: [u8; 16] },
    KeyFile,
    RecoveryCode,
}

/// The readable part of a slot record.
#[derive(Serialize, Deserialize)]
struct SlotHead {
    workspace: [u8; 16],
    slot: [u8; 16],
    created: Timestamp,
    public_key: [u8; KEY_LEN],
    method: Method,
}

/// What a slot is, whoever opens it.
#[derive(Clone, Copy)]
pub(super) struct SlotIdentity {
    pub(super) workspace: WorkspaceId,
    pub(super) id: SlotId,
    pub(super) created: Timestamp,
    pub(super) public_key: [u8; KEY_LEN],
}

/// What a slot record tells without its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotFacts {
    /// What opens it.
    pub kind: CredentialKind,
    /// When it was made.
    pub created: Timestamp,
}

/// A slot record as read.
pub(super) struct Slot {
    pub(super) identity: SlotIdentity,
    method: Method,
    associated_data: Vec<u8>,
    wrap: [u8; WRAP_LEN],
}

/// What a slot yields to the right credential.
pub(super) struct OpenedSlot {
    pub(super) private_key: <Kem as hpke::Kem>::PrivateKey,
    /// Fingerprint of the id key; an epoch record that holds another is forged.
    pub(super) anchor: KeyBytes,
}

/// Why a slot did not open.
pub(super) enum SlotRefusal {
    WrongSecret,
    BadRecoveryCode(BadRecoveryCode),
    Memory { memory_kib: u32 },
    Damaged(&'static str),
}

/// The fingerprint of the id key that slots carry.
pub(super) fn anchor(id_key: &KeyBytes, workspace: WorkspaceId) -> KeyBytes {
    derive(id_key.as_array(), workspace, "anchor", "slot")
}

/// Makes a slot with a fresh key pair.
pub(super) fn make(
    workspace: WorkspaceId,
    id_key: &KeyBytes,
    now: Timestamp,
    new: &NewSlot,
    kdf: KdfParams,
) -> Result<(Member, Sealed), SlotError> {
    if new.label.len() > LABEL_LEN_MAX {
        return Err(SlotError::LabelTooLong);
    }
    let (private_key, public_key) = Kem::gen_keypair_with_rng(&mut HpkeRng);
    let id = SlotId::random();
    let public_key: [u8; KEY_LEN] = public_key.to_bytes().into();
    let identity = SlotIdentity { workspace, id, created: now, public_key };
    let opened = OpenedSlot { private_key, anchor: anchor(id_key, workspace) };
    let record = wrap(identity, &opened, &new.credential, kdf)?;
    Ok((Member { id, label: new.label.clone(), public_key }, record))
}

/// How a new slot for this credential wraps its key.
fn new_method(credential: &Credential, kdf: KdfParams) -> Result<Method, SlotError> {
    match credential {
        Credential::Passphrase(secret) if secret.as_bytes().is_empty() => Err(SlotError::EmptyPassphrase),
        Credential::Passphrase(_) => Ok(Method::Passphrase { kdf, salt: random::bytes() }),
        Credential::KeyFile(secret) => {
            let len = secret.as_bytes().len();
            let acceptable = (KEY_FILE_LEN_MIN..=KEY_FILE_LEN_MAX).contains(&len);
            acceptable.then_some(Method::KeyFile).ok_or(SlotError::KeyFileLen { len })
        }
        Credential::RecoveryCode(_) => Ok(Method::RecoveryCode),
    }
}

/// Writes the record of a slot, its key wrapped by `credential`.
pub(super) fn wrap(
    identity: SlotIdentity,
    opened: &OpenedSlot,
    credential: &Credential,
    kdf: KdfParams,
) -> Result<Sealed, SlotError> {
    let method = new_method(credential, kdf)?;
    let key = wrapping_key(identity.workspace, method, credential).map_err(|refusal| match refusal {
        SlotRefusal::BadRecoveryCode(error) => SlotError::RecoveryCode(error),
        _ => SlotError::Memory { memory_kib: kdf.memory_kib },
    })?;
    let head = SlotHead {
        workspace: *identity.workspace.as_bytes(),
        slot: *identity.id.as_bytes(),
        created: identity.created,
        public_key: identity.public_key,
        method,
    };
    let mut body = postcard::to_stdvec(&head).unwrap_or_else(|_| unreachable!("postcard writes plain structs"));
    let associated_data = [&frame_header(TYPE_SLOT)[..], &body].concat();
    let mut secrets = Zeroizing::new([0; WRAPPED_LEN]);
    opened.private_key.write_exact(&mut secrets[..KEY_LEN]);
    secrets[KEY_LEN..].copy_from_slice(opened.anchor.as_array());
    let nonce: [u8; NONCE_LEN] = random::bytes();
    let tag = Cipher::new(key).seal(nonce, &associated_data, secrets.as_mut_slice());
    body.extend_from_slice(&nonce);
    body.extend_from_slice(secrets.as_slice());
    body.extend_from_slice(&tag);
    Ok(Sealed::new(frame(TYPE_SLOT, &body)))
}

impl Slot {
    /// Reads the record that lies under the name of slot `id`.
    pub(super) fn decode(id: SlotId, bytes: &[u8]) -> Result<Self, FrameError> {
        let body = unframe(TYPE_SLOT, bytes, SLOT_LEN_MAX)?;
        let damaged = FrameError::Damaged("its fields are not those of format 1");
        let (head_bytes, wrap) = body.split_last_chunk::<WRAP_LEN>().ok_or(damaged)?;
        let (head, rest): (SlotHead, _) = postcard::take_from_bytes(head_bytes).map_err(|_| damaged)?;
        if !rest.is_empty() {
            return Err(damaged);
        }
        if head.slot != *id.as_bytes() {
            return Err(FrameError::Damaged("another slot lies in its place"));
        }
        if matches!(head.method, Method::Passphrase { kdf, .. } if !kdf.is_bounded()) {
            return Err(FrameError::Damaged("it asks for an unreasonable cost of the passphrase"));
        }
        Ok(Self {
            identity: SlotIdentity {
                workspace: WorkspaceId(uuid::Uuid::from_bytes(head.workspace)),
                id,
                created: head.created,
                public_key: head.public_key,
            },
            method: head.method,
            associated_data: [&frame_header(TYPE_SLOT)[..], head_bytes].concat(),
            wrap: *wrap,
        })
    }

    pub(super) fn facts(&self) -> SlotFacts {
        SlotFacts { kind: self.kind(), created: self.identity.created }
    }

    pub(super) fn kind(&self) -> CredentialKind {
        match self.method {
            Method::Passphrase { .. } => CredentialKind::Passphrase,
            Method::KeyFile => CredentialKind::KeyFile,
            Method::RecoveryCode => CredentialKind::RecoveryCode,
        }
    }

    /// Unwraps the private half.
    pub(super) fn open(&self, credential: &Credential) -> Result<OpenedSlot, SlotRefusal> {
        let key = wrapping_key(self.identity.workspace, self.method, credential)?;
        let malformed = SlotRefusal::Damaged("its wrapped key is malformed");
        let parts = self.wrap.split_first_chunk::<NONCE_LEN>();
        let parts = parts.and_then(|(nonce, rest)| Some((nonce, rest.split_last_chunk::<TAG_LEN>()?)));
        let Some((nonce, (wrapped, tag))) = parts else { return Err(malformed) };
        let mut secrets = Zeroizing::new([0; WRAPPED_LEN]);
        if !Cipher::new(key).open_into(*nonce, &self.associated_data, wrapped, tag, secrets.as_mut_slice()) {
            return Err(SlotRefusal::WrongSecret);
        }
        let private_key = <Kem as hpke::Kem>::PrivateKey::from_bytes(&secrets[..KEY_LEN])
            .map_err(|_| SlotRefusal::Damaged("its private key is malformed"))?;
        if Kem::sk_to_pk(&private_key).to_bytes()[..] != self.identity.public_key {
            return Err(SlotRefusal::Damaged("its two key halves do not belong together"));
        }
        let anchor = KeyBytes::from_slice(&secrets[KEY_LEN..])
            .ok_or(SlotRefusal::Damaged("its fingerprint of the id key is malformed"))?;
        Ok(OpenedSlot { private_key, anchor })
    }
}

/// The key that wraps a slot's private half.
fn wrapping_key(workspace: WorkspaceId, method: Method, credential: &Credential) -> Result<KeyBytes, SlotRefusal> {
    match (method, credential) {
        (Method::Passphrase { kdf, salt }, Credential::Passphrase(secret)) => {
            let stretched = kdf
                .stretch(secret.as_bytes(), &salt)
                .map_err(|_| SlotRefusal::Memory { memory_kib: kdf.memory_kib })?;
            Ok(derive(stretched.as_array(), workspace, "slot", "passphrase"))
        }
        (Method::KeyFile, Credential::KeyFile(secret)) => Ok(from_key_file(workspace, secret)),
        (Method::RecoveryCode, Credential::RecoveryCode(text)) => {
            let code = RecoveryCode::parse(text).map_err(SlotRefusal::BadRecoveryCode)?;
            Ok(derive(code.secret(), workspace, "slot", "recovery-code"))
        }
        _ => Err(SlotRefusal::WrongSecret),
    }
}

fn from_key_file(workspace: WorkspaceId, content: &Secret) -> KeyBytes {
    let mut digest: [u8; KEY_LEN] = Sha256::digest(content.as_bytes()).into();
    let key = derive(&digest, workspace, "slot", "key-file");
    digest.zeroize();
    key
}
