//! Digests of files as lock files write them: `sha256-<base64>`, as in Subresource Integrity.

use data_encoding::BASE64;
use sha2::Digest;

use super::decide::Owned;
use crate::base::ids::Sha256;

const PREFIX: &str = "sha256-";

/// One file's digest in text.
pub fn integrity_of_file(digest: &Sha256) -> String {
    format!("{PREFIX}{}", BASE64.encode(&digest.0))
}

/// Reads it back.
pub fn parse_integrity(text: &str) -> Option<Sha256> {
    let bytes = BASE64.decode(text.strip_prefix(PREFIX)?.as_bytes()).ok()?;
    Some(Sha256(bytes.try_into().ok()?))
}

/// The digest of all files together: SHA-256 over records sorted by path, each the lengths of the path (4 bytes,
/// little-endian), the path, mode (4), size (8) and SHA-256 (32). No two sets of files give the same records.
pub fn integrity_of_files<'a>(files: impl Iterator<Item = &'a Owned>) -> String {
    let mut files: Vec<&Owned> = files.collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut hasher = sha2::Sha256::new();
    for file in files {
        hasher.update(u32::try_from(file.path.len()).unwrap_or(u32::MAX).to_le_bytes());
        hasher.update(&file.path);
        hasher.update(u32::from(file.mode).to_le_bytes());
        hasher.update(file.size.to_le_bytes());
        hasher.update(file.sha256.0);
    }
    integrity_of_file(&Sha256(hasher.finalize().into()))
}
