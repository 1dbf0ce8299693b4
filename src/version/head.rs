//! HEAD: the one object that changes.

use serde::{Deserialize, Serialize};

use super::entry::{decode, encode};
use super::tree::TreeRef;
use super::{Result, VersionError};
use crate::base::clock::Timestamp;
use crate::base::ids::{ClientId, RunId, Sha256, VersionId};
use crate::base::random;
use crate::crypto::{Keys, Kind, Sealed};
use crate::store::ObjectKey;

/// The newest state of the workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Grows by one with every swing.
    pub generation: u64,
    /// The newest version.
    pub version: VersionId,
    /// SHA-256 of its record's plaintext.
    pub version_digest: Sha256,
    /// Retained versions, tags, pins and policies (see [`super::refs`]).
    pub refs: TreeRef,
    /// The location runs in force, oldest first.
    pub runs: Vec<RunInForce>,
    /// How many garbage collections were sealed.
    pub collection: u64,
    /// What collection is under way.
    pub collection_state: CollectionState,
    /// Who swung HEAD.
    pub writer: ClientId,
    /// When.
    pub time: Timestamp,
    /// Fresh with every swing, so that no two HEADs have equal bytes.
    pub nonce: [u8; 16],
}

/// A location run by id and number of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInForce {
    /// The run.
    pub id: RunId,
    /// Its number of records.
    pub count: u64,
}

/// The stages of a garbage collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectionState {
    /// None is under way.
    Idle,
    /// `condemned/<uuid>` lists what may go.
    Condemned(uuid::Uuid),
    /// `condemned/<uuid>` is final: its names no longer exist.
    Sealed(uuid::Uuid),
}

const IDENTITY: &[u8] = b"HEAD";

impl Head {
    /// The name of the object.
    pub fn key() -> ObjectKey {
        ObjectKey::new("HEAD").unwrap_or_else(|| unreachable!("HEAD is a valid name"))
    }

    /// Seals HEAD with a fresh nonce.
    pub fn seal(&mut self, keys: &Keys) -> Sealed {
        self.nonce = random::bytes();
        keys.seal(Kind::Head, IDENTITY, &encode(self))
    }

    /// Opens HEAD.
    pub fn open(keys: &Keys, sealed: &[u8]) -> Result<Self> {
        let bytes = keys
            .open(Kind::Head, IDENTITY, sealed)
            .map_err(|source| VersionError::Unopened { object: "HEAD".into(), source })?;
        decode(&bytes, "HEAD")
    }
}
