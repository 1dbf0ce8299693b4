//! Making, opening and changing the keys of a workspace.

use super::epoch::{self, EPOCHS_MAX, Epoch, MEMBERS_MAX, Member, Roster};
use super::frame::FrameError;
use super::header::{self, Capabilities, HeaderError, WorkspaceHeader};
use super::recovery::{BadRecoveryCode, RecoveryCode};
use super::secret::{Credential, CredentialKind};
use super::slot::{self, KdfParams, NewSlot, OpenedSlot, Slot, SlotError, SlotFacts, SlotIdentity, SlotRefusal};
use crate::base::clock::Timestamp;
use crate::base::ids::{SlotId, WorkspaceId};
use crate::base::limits::FORMAT_VERSION;
use crate::crypto::keys::{KeyBytes, Keys};
use crate::crypto::sealed::Sealed;

/// Most slot records that are looked at: those of members, and some left over by removed ones.
const SLOT_RECORDS_MAX: usize = 4 * MEMBERS_MAX;

/// Why a workspace could not be unlocked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnlockError {
    /// The credential opens none of the intact slots of its kind.
    #[error("the {kind} opens no key slot{}", untried(damaged))]
    WrongSecret {
        /// The kind of credential that was tried.
        kind: CredentialKind,
        /// Slots that could not be tried because they are damaged.
        damaged: Vec<SlotId>,
    },
    /// No slot takes this kind of credential.
    #[error("no key slot of this workspace takes a {kind}; use another kind of key")]
    NoSlotOfThatKind {
        /// The kind of credential that was given.
        kind: CredentialKind,
    },
    /// No slot record is left.
    #[error("keys/: damaged: no key slot is left; restore the objects below it")]
    NoSlots,
    /// The recovery code is mistyped.
    #[error(transparent)]
    BadRecoveryCode(#[from] BadRecoveryCode),
    /// A slot record is damaged and no other opens.
    #[error("keys/{id}: damaged: {reason}; restore the object, or unlock through another key slot")]
    DamagedSlot {
        /// The slot.
        id: SlotId,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The newest epoch record is missing, damaged or forged.
    #[error("epochs/{number}: damaged: {reason}; restore the object")]
    DamagedEpoch {
        /// The number of the epoch.
        number: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An epoch that this client has seen is not shown any more.
    #[error(
        "epochs/{number}: gone: this client has seen key epoch {number}, and the store shows none later than {found}; \
         somebody restored an old copy of the store, or hides what is newer"
    )]
    EpochGone {
        /// The newest epoch seen.
        number: u32,
        /// The newest that the store shows.
        found: u32,
    },
    /// The workspace header is damaged or was altered.
    #[error("kura.json: damaged: {reason}; restore the object")]
    DamagedHeader {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The slot opens, but the newest epoch is not sealed to it.
    #[error("key slot {id} was removed from the workspace; ask a member to add you again")]
    Removed {
        /// The slot.
        id: SlotId,
    },
    /// More slot records than any workspace has.
    #[error(
        "{found} key slots lie in the store, more than the {SLOT_RECORDS_MAX} there can be; remove the strange ones"
    )]
    TooManySlots {
        /// How many lie there.
        found: usize,
    },
    /// Argon2id could not get its memory.
    #[error("not enough memory to stretch the passphrase ({memory_kib} KiB); free some and try again")]
    Memory {
        /// The memory asked for, in KiB.
        memory_kib: u32,
    },
    /// Written by a newer program.
    #[error("{object}: written in format {found}, newer than this program's {FORMAT_VERSION}; install a newer kura")]
    NewerFormat {
        /// The object's name in the store.
        object: String,
        /// The format version found.
        found: u32,
    },
}

fn untried(damaged: &[SlotId]) -> String {
    match damaged {
        [] => String::new(),
        [first, ..] => {
            format!("; {} damaged and could not be tried, the first is keys/{first}: restore them", damaged.len())
        }
    }
}

/// A workspace's first objects, to be put in the store, and its keys.
pub struct NewWorkspace {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// `kura.json`.
    pub header: Sealed,
    /// `keys/<uuid>` each, in the order they were asked for.
    pub slots: Vec<(SlotId, Sealed)>,
    /// `epochs/0`.
    pub epoch0: Sealed,
    /// The opened key ring.
    pub keys: Keys,
}

/// Makes the keys of a new workspace. `kdf` is what passphrases cost.
pub fn create_workspace(
    now: Timestamp,
    capabilities: Capabilities,
    new_slots: &[NewSlot],
    kdf: KdfParams,
) -> Result<NewWorkspace, SlotError> {
    if !(1..=MEMBERS_MAX).contains(&new_slots.len()) {
        return Err(SlotError::SlotCount);
    }
    let workspace = WorkspaceId::random();
    let keys = Keys::new(workspace, KeyBytes::random(), vec![KeyBytes::random()]);
    let (header, digest) = WorkspaceHeader::new(workspace, now, capabilities).encode();
    let mut members = Vec::new();
    let mut slots = Vec::new();
    for new in new_slots {
        let (member, record) = slot::make(workspace, keys.id_key(), now, new, kdf)?;
        slots.push((member.id, record));
        members.push(member);
    }
    let epoch0 = epoch::make(&keys, &members, digest).map_err(|id| SlotError::PublicKey { id })?;
    Ok(NewWorkspace { workspace, header, slots, epoch0, keys })
}

/// Opens the key ring with a credential.
///
/// `header` is `kura.json`; `slots` and `epochs` are what lies under `keys/` and `epochs/`. Only the
/// newest epoch record is needed. A damaged slot never stops another from opening.
pub fn unlock(
    header: &[u8],
    slots: &[(SlotId, Vec<u8>)],
    epochs: &[(u32, Vec<u8>)],
    credential: &Credential,
) -> Result<Keys, UnlockError> {
    unlock_slot(header, slots, epochs, credential).map(|(keys, _)| keys)
}

/// As [`unlock`], with the slot that opened, which follows later epochs without the credential.
pub fn unlock_slot(
    header: &[u8],
    slots: &[(SlotId, Vec<u8>)],
    epochs: &[(u32, Vec<u8>)],
    credential: &Credential,
) -> Result<(Keys, OpenSlot), UnlockError> {
    if let Credential::RecoveryCode(text) = credential {
        RecoveryCode::parse(text)?;
    }
    read_header(header)?;
    if slots.is_empty() {
        return Err(UnlockError::NoSlots);
    }
    if slots.len() > SLOT_RECORDS_MAX {
        return Err(UnlockError::TooManySlots { found: slots.len() });
    }
    let mut outcome = Outcome::default();
    for (id, bytes) in slots {
        let slot = match Slot::decode(*id, bytes) {
            Ok(slot) => slot,
            Err(error) => {
                outcome.unreadable.push(unreadable_slot(*id, error));
                continue;
            }
        };
        if slot.kind() != credential.kind() {
            continue;
        }
        match slot.open(credential) {
            Ok(opened) => match enter(header, epochs, &slot.identity, &opened) {
                Ok(keys) => return Ok((keys, OpenSlot { identity: slot.identity, opened })),
                Err(error) => outcome.stopped = outcome.stopped.or(Some(error)),
            },
            Err(SlotRefusal::WrongSecret) => outcome.refused = true,
            Err(SlotRefusal::BadRecoveryCode(error)) => return Err(error.into()),
            Err(SlotRefusal::Memory { memory_kib }) => {
                outcome.stopped = outcome.stopped.or(Some(UnlockError::Memory { memory_kib }));
            }
            Err(SlotRefusal::Damaged(reason)) => {
                outcome.unreadable.push(UnlockError::DamagedSlot { id: *id, reason });
            }
        }
    }
    Err(outcome.into_error(credential.kind()))
}

/// What was met on the way when nothing opened.
#[derive(Default)]
struct Outcome {
    /// The credential was right, or might have been, but something else stopped it.
    stopped: Option<UnlockError>,
    refused: bool,
    unreadable: Vec<UnlockError>,
}

impl Outcome {
    fn into_error(self, kind: CredentialKind) -> UnlockError {
        let damaged = |error: &UnlockError| match error {
            UnlockError::DamagedSlot { id, .. } => Some(*id),
            _ => None,
        };
        match (self.stopped, self.refused) {
            (Some(error), _) => error,
            (None, true) => {
                UnlockError::WrongSecret { kind, damaged: self.unreadable.iter().filter_map(damaged).collect() }
            }
            (None, false) => self.unreadable.into_iter().next().unwrap_or(UnlockError::NoSlotOfThatKind { kind }),
        }
    }
}

/// A slot whose private half is unwrapped. It is kept in memory as long as a workspace is open.
pub struct OpenSlot {
    identity: SlotIdentity,
    opened: OpenedSlot,
}

impl OpenSlot {
    /// The slot.
    pub fn id(&self) -> SlotId {
        self.identity.id
    }

    /// Lets `keys` have the epochs that were begun since, from what lies under `epochs/`.
    ///
    /// # Errors
    ///
    /// As [`unlock`], and when the newest epoch does not continue those that `keys` has.
    pub fn follow(&self, keys: &Keys, header: &[u8], epochs: &[(u32, Vec<u8>)]) -> Result<(), UnlockError> {
        let newer = enter(header, epochs, &self.identity, &self.opened)?;
        if newer.epoch() < keys.epoch() {
            return Err(UnlockError::EpochGone { number: keys.epoch(), found: newer.epoch() });
        }
        if !keys.adopt(&newer) {
            let reason = "it is forged: it does not continue the epochs that this client has seen";
            return Err(UnlockError::DamagedEpoch { number: newer.epoch(), reason });
        }
        Ok(())
    }

    /// The keys that earlier copies of the header and of the epoch records hold for this slot.
    pub fn remembered(&self, header: &[u8], epochs: &[(u32, Vec<u8>)]) -> Result<Keys, UnlockError> {
        enter(header, epochs, &self.identity, &self.opened)
    }
}

impl std::fmt::Debug for OpenSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenSlot({})", self.id())
    }
}

/// From an opened slot to the key ring.
fn enter(
    header: &[u8],
    epochs: &[(u32, Vec<u8>)],
    identity: &SlotIdentity,
    opened: &OpenedSlot,
) -> Result<Keys, UnlockError> {
    if read_header(header)?.workspace != identity.workspace {
        return Err(UnlockError::DamagedHeader { reason: "it names another workspace than the key slot" });
    }
    let newest = epochs.iter().max_by_key(|(number, _)| *number);
    let Some((number, bytes)) = newest else {
        return Err(UnlockError::DamagedEpoch { number: 0, reason: "no epoch record is in the store" });
    };
    let number = *number;
    let damaged = |reason| UnlockError::DamagedEpoch { number, reason };
    let epoch = decode_epoch(number, bytes)?;
    if epoch.workspace != identity.workspace {
        return Err(damaged("it belongs to another workspace"));
    }
    if !epoch.is_sealed_to(identity.id) {
        return Err(UnlockError::Removed { id: identity.id });
    }
    let secret = epoch
        .open(identity.id, &opened.private_key)
        .ok_or_else(|| damaged("the keys sealed to the slot were altered"))?;
    if slot::anchor(&secret.id_key, epoch.workspace).as_array() != opened.anchor.as_array() {
        return Err(damaged("it is forged: its id key is not the workspace's"));
    }
    let digest = header::digest(header);
    if secret.header_digest != digest {
        return Err(UnlockError::DamagedHeader { reason: "it was altered" });
    }
    let roster = epoch.roster(&secret.epoch_key, digest).ok_or_else(|| damaged("its list of slots was altered"))?;
    let listed = |member: &Member| member.id == identity.id && member.public_key == identity.public_key;
    if !roster.members.iter().any(listed) {
        return Err(damaged("its list of slots does not hold the slot it is sealed to"));
    }
    let mut epoch_keys = roster.older_keys;
    epoch_keys.push(secret.epoch_key);
    Ok(Keys::new(epoch.workspace, secret.id_key, epoch_keys))
}

/// The members of the newest epoch, from its record.
pub fn members(keys: &Keys, header: &[u8], newest_epoch: &[u8]) -> Result<Vec<Member>, UnlockError> {
    Ok(open_roster(keys, header, newest_epoch)?.members)
}

/// A slot for the workspace of `keys`, and its record, to be put as `keys/<uuid>` before [`add_member`] lets it open
/// anything.
pub fn new_slot(keys: &Keys, now: Timestamp, new: &NewSlot, kdf: KdfParams) -> Result<(Member, Sealed), SlotError> {
    slot::make(keys.workspace(), keys.id_key(), now, new, kdf)
}

/// The newest epoch record with one member more, who can then open everything, as every member can; `None` when it
/// has that one already.
pub fn add_member(
    keys: &Keys,
    header: &[u8],
    newest_epoch: &[u8],
    member: &Member,
) -> Result<Option<Sealed>, SlotError> {
    let mut members = members(keys, header, newest_epoch)?;
    if members.iter().any(|other| other.id == member.id) {
        return Ok(None);
    }
    if members.len() >= MEMBERS_MAX {
        return Err(SlotError::SlotCount);
    }
    members.push(member.clone());
    epoch::make(keys, &members, header::digest(header)).map(Some).map_err(|id| SlotError::PublicKey { id })
}

/// The newest epoch record without a slot. Whoever holds that slot and an earlier copy of the record can still read
/// everything of this epoch; for what comes later there is [`rotate`].
pub fn remove_slot(keys: &Keys, header: &[u8], newest_epoch: &[u8], id: SlotId) -> Result<Sealed, SlotError> {
    let mut members = members(keys, header, newest_epoch)?;
    members.retain(|member| member.id != id);
    if members.is_empty() {
        return Err(SlotError::LastSlot { id });
    }
    epoch::make(keys, &members, header::digest(header)).map_err(|id| SlotError::PublicKey { id })
}

/// What a slot record tells without its secret.
pub fn slot_facts(id: SlotId, record: &[u8]) -> Result<SlotFacts, UnlockError> {
    Slot::decode(id, record).map(|slot| slot.facts()).map_err(|error| unreadable_slot(id, error))
}

/// Starts the next epoch with fresh keys, sealed to the members that `keep` approves.
///
/// Returns the new key ring, whose newest epoch is one higher, and the new record, to be put as
/// `epochs/<that number>` if absent. Members that are not kept cannot read what is written from then on.
pub fn rotate(
    keys: &Keys,
    header: &[u8],
    newest_epoch: &[u8],
    keep: impl Fn(&Member) -> bool,
) -> Result<(Keys, Sealed), SlotError> {
    let mut members = members(keys, header, newest_epoch)?;
    members.retain(keep);
    if members.is_empty() {
        return Err(SlotError::SlotCount);
    }
    if keys.epochs().len() + 1 > EPOCHS_MAX {
        return Err(SlotError::EpochCount);
    }
    let next = keys.with_next_epoch();
    let record = epoch::make(&next, &members, header::digest(header)).map_err(|id| SlotError::PublicKey { id })?;
    Ok((next, record))
}

/// Wraps the key pair of a slot anew: a changed passphrase, or another kind of credential. The
/// record takes the place of the one before; epochs are untouched.
///
/// This does not shut out someone who kept the old record and knows the old credential: for that,
/// add a slot and [`rotate`] without the old one.
pub fn change_credential(
    (id, record): (SlotId, &[u8]),
    old: &Credential,
    new: &Credential,
    kdf: KdfParams,
) -> Result<Sealed, SlotError> {
    let slot = Slot::decode(id, record).map_err(|error| unreadable_slot(id, error))?;
    let kind = old.kind();
    let opened = slot.open(old).map_err(|refusal| match refusal {
        SlotRefusal::WrongSecret => UnlockError::WrongSecret { kind, damaged: Vec::new() },
        SlotRefusal::BadRecoveryCode(error) => error.into(),
        SlotRefusal::Memory { memory_kib } => UnlockError::Memory { memory_kib },
        SlotRefusal::Damaged(reason) => UnlockError::DamagedSlot { id, reason },
    })?;
    slot::wrap(slot.identity, &opened, new, kdf)
}

fn open_roster(keys: &Keys, header: &[u8], newest_epoch: &[u8]) -> Result<Roster, UnlockError> {
    let number = keys.epoch();
    let epoch = decode_epoch(number, newest_epoch)?;
    let epochs = keys.epochs();
    let newest = epochs.last().filter(|_| epoch.workspace == keys.workspace());
    let roster = newest.and_then(|newest| epoch.roster(newest.key(), header::digest(header)));
    roster.ok_or(UnlockError::DamagedEpoch { number, reason: "it, or kura.json, was altered" })
}

/// Reads `kura.json`. What it says is authenticated only by [`unlock`].
pub fn read_header(bytes: &[u8]) -> Result<WorkspaceHeader, UnlockError> {
    WorkspaceHeader::decode(bytes).map_err(|error| match error {
        HeaderError::Damaged(reason) => UnlockError::DamagedHeader { reason },
        HeaderError::NewerFormat(found) => UnlockError::NewerFormat { object: "kura.json".to_owned(), found },
    })
}

fn decode_epoch(number: u32, bytes: &[u8]) -> Result<Epoch, UnlockError> {
    Epoch::decode(number, bytes).map_err(|error| match error {
        FrameError::Damaged(reason) => UnlockError::DamagedEpoch { number, reason },
        FrameError::NewerFormat(found) => {
            UnlockError::NewerFormat { object: format!("epochs/{number}"), found: u32::from(found) }
        }
    })
}

fn unreadable_slot(id: SlotId, error: FrameError) -> UnlockError {
    match error {
        FrameError::Damaged(reason) => UnlockError::DamagedSlot { id, reason },
        FrameError::NewerFormat(found) => {
            UnlockError::NewerFormat { object: format!("keys/{id}"), found: u32::from(found) }
        }
    }
}
