//! Typed identifiers. Bytes are fixed-size arrays; text forms are lower-case hexadecimal, or the
//! hyphenated form for UUIDs.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::clock::Timestamp;
use super::random;

/// Why a textual identifier could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}")]
pub struct ParseIdError {
    /// The kind of identifier that was expected.
    pub what: &'static str,
    /// The text as given.
    pub text: String,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let bad = || ParseIdError { what: $what, text: text.to_owned() };
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| bad())?;
                Ok(Self(bytes.try_into().map_err(|_| bad())?))
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The sixteen raw bytes.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// A new random identifier (UUID version 4).
            pub fn random() -> Self {
                Self(uuid::Builder::from_random_bytes(random::bytes()).into_uuid())
            }

            /// A new identifier that sorts by `time` (UUID version 7, RFC 9562).
            pub fn at(time: Timestamp) -> Self {
                let millis = u64::try_from(time.unix_ns() / 1_000_000).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random::bytes()).into_uuid())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                // One text form only, so that two names never mean one object.
                let id = Uuid::try_parse(text).map(Self).ok().filter(|id| id.to_string() == text);
                id.ok_or_else(|| ParseIdError { what: $what, text: text.to_owned() })
            }
        }
    };
}

byte_id!(
    /// Keyed identity of a blob: HMAC-SHA-256 over the SHA-256 of its plaintext.
    BlobId, 32, "blob id"
);
byte_id!(
    /// SHA-256 of a plaintext.
    Sha256, 32, "SHA-256"
);
byte_id!(
    /// Random identity of a file, kept through renames; apart from its inode number.
    FileId, 16, "file id"
);
uuid_id!(
    /// A workspace.
    WorkspaceId, "workspace id"
);
uuid_id!(
    /// One recorded state of a workspace (UUIDv7).
    VersionId, "version id"
);
uuid_id!(
    /// One client: one state directory on one machine.
    ClientId, "client id"
);
uuid_id!(
    /// A key slot.
    SlotId, "key slot id"
);
uuid_id!(
    /// A pack of small blobs.
    PackId, "pack id"
);
uuid_id!(
    /// A sorted run of blob locations (UUIDv7).
    RunId, "location run id"
);

impl VersionId {
    /// When it was recorded, in milliseconds as the id has it.
    pub fn time(&self) -> Timestamp {
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&self.as_bytes()[..6]);
        let millis = i64::from_be_bytes(millis);
        Timestamp::from_parts(millis / 1000, u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000)
    }
}

impl FileId {
    /// A fresh identity.
    pub fn random() -> Self {
        Self(random::bytes())
    }
}
