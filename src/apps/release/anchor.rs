//! What a client is given by a way that it trusts: a root, and the keys of one channel.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{ReleaseError, Result};
use super::package::check_name;
use crate::base::disk::{RealDisk, read_file, replace_file};
use crate::crypto::SharedKey;

const LEN_MAX: usize = 2 << 20;
const FORMAT: u32 = 1;

/// A file of trust. Who has it can read what its channel offers, and reports as a client; it signs nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// 1.
    pub format: u32,
    /// The channel.
    pub channel: String,
    /// Opens what the channel offers.
    pub channel_key: SharedKey,
    /// Opens a repository that lies in a bucket of its own.
    pub store_key: SharedKey,
    /// The root that is trusted, signed.
    pub root: serde_json::Value,
}

impl Anchor {
    pub(super) fn new(channel: &str, channel_key: SharedKey, store_key: SharedKey, root: serde_json::Value) -> Self {
        Self { format: FORMAT, channel: channel.to_owned(), channel_key, store_key, root }
    }

    /// Reads one.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let bytes = read_file(&RealDisk, path, LEN_MAX)
            .map_err(|error| ReleaseError::unread("file of trust", &name, &error))?;
        Self::parse(&bytes, &name)
    }

    /// Understands one that was read from the file `name`.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self> {
        let damaged = |reason: String| ReleaseError::Damaged { object: format!("the file of trust {name}"), reason };
        let anchor: Anchor = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if anchor.format != FORMAT {
            return Err(damaged(format!("it has form {}, and this program knows {FORMAT}", anchor.format)));
        }
        check_name("channel", &anchor.channel)?;
        Ok(anchor)
    }

    /// Writes it, for its owner alone.
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = |reason: String| ReleaseError::Disk { path: path.display().to_string(), reason };
        let text = serde_json::to_vec(self).map_err(|error| failed(error.to_string()))?;
        replace_file(&RealDisk, path, &text).map_err(|error| failed(error.to_string()))
    }
}
