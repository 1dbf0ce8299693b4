//! `kura.json`, the workspace header.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256 as Sha2};

use crate::base::clock::Timestamp;
use crate::base::ids::{Sha256, WorkspaceId};
use crate::base::limits::FORMAT_VERSION;
use crate::crypto::sealed::Sealed;

/// Longest header, in bytes.
const HEADER_LEN_MAX: usize = 16 * 1024;

/// What the store was found to be able to do when the workspace was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Whether conditional writes work; without them the workspace has a single writer.
    pub conditional_writes: bool,
}

/// The workspace header: readable by anyone, authenticated by every epoch record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceHeader {
    /// Format of the workspace.
    pub format: u32,
    /// The workspace.
    #[serde(with = "text")]
    pub workspace: WorkspaceId,
    /// When it was made, as text (RFC 3339); for people only.
    pub created: String,
    /// What the store can do.
    pub capabilities: Capabilities,
}

/// Why a header could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Damaged(&'static str),
    NewerFormat(u32),
}

impl WorkspaceHeader {
    pub(super) fn new(workspace: WorkspaceId, now: Timestamp, capabilities: Capabilities) -> Self {
        let created = jiff::Timestamp::from_nanosecond(i128::from(now.unix_ns()));
        Self {
            format: u32::from(FORMAT_VERSION),
            workspace,
            created: created.map_or_else(|_| String::new(), |time| time.to_string()),
            capabilities,
        }
    }

    /// The bytes to store, and their digest.
    pub(super) fn encode(&self) -> (Sealed, Sha256) {
        let mut bytes = serde_json::to_vec_pretty(self)
            .unwrap_or_else(|_| unreachable!("a struct of numbers and text always has a JSON form"));
        bytes.push(b'\n');
        let digest = digest(&bytes);
        (Sealed::new(bytes), digest)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        #[derive(Deserialize)]
        struct AnyFormat {
            format: u32,
        }
        if bytes.len() > HEADER_LEN_MAX {
            return Err(HeaderError::Damaged("it is too long"));
        }
        let any: AnyFormat =
            serde_json::from_slice(bytes).map_err(|_| HeaderError::Damaged("it is not a header in JSON"))?;
        if any.format > u32::from(FORMAT_VERSION) {
            return Err(HeaderError::NewerFormat(any.format));
        }
        if any.format != u32::from(FORMAT_VERSION) {
            return Err(HeaderError::Damaged("it names a format that never was"));
        }
        serde_json::from_slice(bytes).map_err(|_| HeaderError::Damaged("its fields are not those of format 1"))
    }
}

pub(super) fn digest(bytes: &[u8]) -> Sha256 {
    Sha256(Sha2::digest(bytes).into())
}

mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::base::ids::WorkspaceId;

    pub(super) fn serialize<S: Serializer>(id: &WorkspaceId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WorkspaceId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
