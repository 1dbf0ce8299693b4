//! Key slots, epochs and the workspace header: how a passphrase, a key file or a recovery code
//! becomes a key ring.
//!
//! `kura.json` names the workspace; each `keys/<uuid>` is a slot, a key pair whose private half one
//! credential unwraps; each `epochs/<n>` holds the keys of an epoch, sealed to the public half of
//! every slot. Drawn in `FORMAT.md`, "Keys".
//!
//! Nothing here trusts the store. A slot carries, under its credential, a fingerprint of the id
//! key; an epoch record must hold that very id key, so a store cannot invent an epoch of its own.
//! The epoch record in turn authenticates the header and the list of slots.

mod epoch;
mod frame;
mod header;
mod recovery;
mod secret;
mod slot;
mod unlock;

pub use epoch::{Member, check_roster};
pub use header::{Capabilities, WorkspaceHeader};
pub use recovery::{BadRecoveryCode, RecoveryCode};
pub use secret::{Credential, CredentialKind, Secret};
pub use slot::{KdfParams, NewSlot, SlotError, SlotFacts};
pub use unlock::{
    NewWorkspace, OpenSlot, UnlockError, add_member, change_credential, create_workspace, members, new_slot,
    read_header, remove_slot, rotate, slot_facts, unlock, unlock_slot,
};
