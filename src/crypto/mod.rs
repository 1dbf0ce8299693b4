//! Keys, sealing and keyed identities.
//!
//! Uses: `base`. Knows neither paths nor stores.
//!
//! Invariants:
//! - key bytes never leave this room (but for those that are there to be shared), are wiped on drop and have no
//!   `Debug` that shows them;
//! - [`Sealed`] is made only here, and a store accepts nothing else;
//! - everything sealed is bound to its format version, kind, epoch, workspace and own identity, so
//!   opening it in another place fails;
//! - plaintext is returned only after its tag was checked;
//! - sealed documents are files of their own, drawn apart: what of them needs a key is in [`document`];
//! - the workspace header is the only thing stored that can be read without a key.
//!
//! Lock order: none; a key ring only gains epochs, and its lock is held for a look-up.

mod cipher;
pub mod document;
mod keys;
mod sealed;
mod shared;
pub mod sharing;
pub mod slots;

pub use keys::{IdDomain, Keys, OpenError, envelope_epoch};
pub use sealed::{Kind, SEAL_FRONT_LEN, SEAL_OVERHEAD, Sealed};
pub use shared::{SHARED_OVERHEAD, SharedKey};
