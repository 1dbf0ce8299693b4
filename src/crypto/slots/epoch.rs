//! One epoch record: the keys of an epoch, sealed to every member's slot, and the roster that the
//! epoch key authenticates.

use hpke::aead::AesGcm256 as Aead;
use hpke::kdf::HkdfSha256 as Kdf;
use hpke::kem::X25519HkdfSha256 as Kem;
use hpke::{Deserializable, OpModeR, OpModeS, Serializable, rand_core, single_shot_open, single_shot_seal_with_rng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256 as Sha2};
use zeroize::Zeroizing;

use super::frame::{FrameError, TYPE_EPOCH, frame, unframe};
use crate::base::ids::{Sha256, SlotId, WorkspaceId};
use crate::base::random;
use crate::crypto::keys::{KEY_LEN, KeyBytes, Keys, Place};
use crate::crypto::sealed::{Kind, Sealed};

/// Most slots of one workspace.
pub(super) const MEMBERS_MAX: usize = 64;
/// Most epochs of one workspace.
pub(super) const EPOCHS_MAX: usize = 4096;
/// Longest epoch record, in bytes.
const EPOCH_LEN_MAX: usize = 256 * 1024;
/// Most bytes of the entries and of the roster: labels, public keys, identities, older keys.
const _: () = assert!(MEMBERS_MAX * (180 + 320) + EPOCHS_MAX * KEY_LEN + 1024 < EPOCH_LEN_MAX);

const ENCAPSULATED_LEN: usize = 32;
const SECRET_LEN: usize = 3 * KEY_LEN;

/// A slot that an epoch is sealed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The slot.
    pub id: SlotId,
    /// What people call it.
    pub label: String,
    /// The public half of its key pair (X25519).
    pub public_key: [u8; KEY_LEN],
}

/// The keys of an epoch as one slot finds them.
pub(super) struct EpochSecret {
    pub(super) epoch_key: KeyBytes,
    pub(super) id_key: KeyBytes,
    /// SHA-256 of `kura.json`.
    pub(super) header_digest: Sha256,
}

/// What the epoch key authenticates.
pub(super) struct Roster {
    pub(super) members: Vec<Member>,
    /// Keys of the epochs before this one, oldest first.
    pub(super) older_keys: Vec<KeyBytes>,
}

#[derive(Serialize, Deserialize)]
struct EpochBody {
    workspace: [u8; 16],
    number: u32,
    entries: Vec<Entry>,
    /// An envelope of kind `Epoch`.
    roster: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    slot: [u8; 16],
    encapsulated: [u8; ENCAPSULATED_LEN],
    sealed_secret: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct RosterBody {
    header_digest: [u8; 32],
    members: Vec<(SlotBytes, [u8; KEY_LEN], String)>,
    older_keys: Vec<[u8; KEY_LEN]>,
}

type SlotBytes = [u8; 16];

impl Drop for RosterBody {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.older_keys);
    }
}

/// An epoch record as read.
pub(super) struct Epoch {
    pub(super) workspace: WorkspaceId,
    number: u32,
    entries: Vec<Entry>,
    roster: Vec<u8>,
}

/// Seals the newest epoch of `keys` to `members`.
///
/// # Errors
///
/// The id of a member whose public key is none.
pub(super) fn make(keys: &Keys, members: &[Member], header_digest: Sha256) -> Result<Sealed, SlotId> {
    let number = keys.epoch();
    let workspace = keys.workspace();
    let epochs = keys.epochs();
    let Some((newest, older)) = epochs.split_last() else { unreachable!("a key ring has at least one epoch") };
    let newest = newest.key();
    let mut secret = Zeroizing::new([0; SECRET_LEN]);
    secret[..KEY_LEN].copy_from_slice(newest.as_array());
    secret[KEY_LEN..2 * KEY_LEN].copy_from_slice(keys.id_key().as_array());
    secret[2 * KEY_LEN..].copy_from_slice(header_digest.as_bytes());
    let entries = members.iter().map(|member| seal_to(workspace, number, member, &secret)).collect::<Result<_, _>>()?;

    let roster = RosterBody {
        header_digest: header_digest.0,
        members: members.iter().map(|m| (*m.id.as_bytes(), m.public_key, m.label.clone())).collect(),
        older_keys: older.iter().map(|epoch| *epoch.key().as_array()).collect(),
    };
    let plaintext = Zeroizing::new(encode(&roster));
    let mut body = EpochBody { workspace: *workspace.as_bytes(), number, entries, roster: Vec::new() };
    let identity = roster_identity(number, &body.entries);
    let place = Place { workspace, kind: Kind::Epoch, epoch: number, identity: &identity };
    place.seal(&place.cipher(newest), &plaintext, &mut body.roster);
    Ok(Sealed::new(frame(TYPE_EPOCH, &encode(&body))))
}

fn seal_to(workspace: WorkspaceId, number: u32, member: &Member, secret: &[u8; SECRET_LEN]) -> Result<Entry, SlotId> {
    let refused = |_| member.id;
    let public_key = <Kem as hpke::Kem>::PublicKey::from_bytes(&member.public_key).map_err(refused)?;
    let info = hpke_info(workspace, number, member.id);
    let (encapsulated, sealed_secret) =
        single_shot_seal_with_rng::<Aead, Kdf, Kem>(&OpModeS::Base, &public_key, &info, secret, &[], &mut HpkeRng)
            .map_err(refused)?;
    Ok(Entry { slot: *member.id.as_bytes(), encapsulated: encapsulated.to_bytes().into(), sealed_secret })
}

impl Epoch {
    /// Reads the record that lies under the name of epoch `number`.
    pub(super) fn decode(number: u32, bytes: &[u8]) -> Result<Self, FrameError> {
        let body = unframe(TYPE_EPOCH, bytes, EPOCH_LEN_MAX)?;
        let damaged = FrameError::Damaged("its fields are not those of format 1");
        let (body, rest): (EpochBody, _) = postcard::take_from_bytes(body).map_err(|_| damaged)?;
        if !rest.is_empty() || body.entries.len() > MEMBERS_MAX {
            return Err(damaged);
        }
        if body.number != number {
            return Err(FrameError::Damaged("another epoch lies in its place"));
        }
        let workspace = WorkspaceId(uuid::Uuid::from_bytes(body.workspace));
        Ok(Self { workspace, number, entries: body.entries, roster: body.roster })
    }

    /// Whether the epoch is sealed to a slot.
    pub(super) fn is_sealed_to(&self, slot: SlotId) -> bool {
        self.entries.iter().any(|entry| entry.slot == *slot.as_bytes())
    }

    /// The keys as sealed to `slot`; `None` when there are none for it, or they were altered.
    pub(super) fn open(&self, slot: SlotId, private_key: &<Kem as hpke::Kem>::PrivateKey) -> Option<EpochSecret> {
        let entry = self.entries.iter().find(|entry| entry.slot == *slot.as_bytes())?;
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(&entry.encapsulated).ok()?;
        let info = hpke_info(self.workspace, self.number, slot);
        let secret = single_shot_open::<Aead, Kdf, Kem>(
            &OpModeR::Base,
            private_key,
            &encapsulated,
            &info,
            &entry.sealed_secret,
            &[],
        );
        let secret = Zeroizing::new(secret.ok()?);
        if secret.len() != SECRET_LEN {
            return None;
        }
        Some(EpochSecret {
            epoch_key: KeyBytes::from_slice(&secret[..KEY_LEN])?,
            id_key: KeyBytes::from_slice(&secret[KEY_LEN..2 * KEY_LEN])?,
            header_digest: Sha256(secret[2 * KEY_LEN..].try_into().ok()?),
        })
    }

    /// The roster, if the epoch key authenticates it and the whole record.
    pub(super) fn roster(&self, epoch_key: &KeyBytes, header_digest: Sha256) -> Option<Roster> {
        let identity = roster_identity(self.number, &self.entries);
        let place = Place { workspace: self.workspace, kind: Kind::Epoch, epoch: self.number, identity: &identity };
        let plaintext = Zeroizing::new(place.open(&place.cipher(epoch_key), &self.roster).ok()?);
        Roster::decode(self.number, header_digest, &plaintext)
    }
}

/// Whether bytes are the opened roster of epoch `number`, in a workspace whose header has this digest.
pub fn check_roster(number: u32, header_digest: Sha256, plaintext: &[u8]) -> bool {
    Roster::decode(number, header_digest, plaintext).is_some()
}

impl Roster {
    fn decode(number: u32, header_digest: Sha256, plaintext: &[u8]) -> Option<Self> {
        let (body, rest): (RosterBody, _) = postcard::take_from_bytes(plaintext).ok()?;
        let whole = rest.is_empty()
            && body.header_digest == header_digest.0
            && body.members.len() <= MEMBERS_MAX
            && body.older_keys.len() == number as usize
            && body.older_keys.len() < EPOCHS_MAX;
        whole.then(|| Self {
            members: body
                .members
                .iter()
                .map(|(id, public_key, label)| Member {
                    id: SlotId(uuid::Uuid::from_bytes(*id)),
                    label: label.clone(),
                    public_key: *public_key,
                })
                .collect(),
            older_keys: body.older_keys.iter().map(|key| KeyBytes::new(*key)).collect(),
        })
    }
}

/// Binds the roster to its epoch and to every entry beside it.
fn roster_identity(number: u32, entries: &Vec<Entry>) -> Vec<u8> {
    [&number.to_le_bytes()[..], &Sha2::digest(encode(entries))].concat()
}

fn hpke_info(workspace: WorkspaceId, number: u32, slot: SlotId) -> Vec<u8> {
    [&b"kura/1/epoch/slot"[..], workspace.as_bytes(), &number.to_le_bytes(), slot.as_bytes()].concat()
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Room for the longest record: a buffer that grows would leave copies of keys behind.
    postcard::to_extend(value, Vec::with_capacity(EPOCH_LEN_MAX))
        .unwrap_or_else(|_| unreachable!("postcard writes plain structs"))
}

/// `base::random` in the form that HPKE asks for.
pub(super) struct HpkeRng;

impl rand_core::TryRng for HpkeRng {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::from_le_bytes(random::bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(random::number())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        random::fill(out);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for HpkeRng {}
