//! Blobs (placeholder until the room lands).
use serde::{Deserialize, Serialize};

use crate::base::ids::BlobId;

/// A blob and its plaintext length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkRef {
    /// Its identity.
    pub id: BlobId,
    /// Plaintext bytes.
    pub len: u32,
}
/// err
#[derive(Debug, Clone, thiserror::Error)]
#[error("x")]
pub struct BlobError;
