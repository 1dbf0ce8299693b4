//! The table of digests: SHA-256 of files that were recorded without it.
//!
//! Two sorts of keys: `w` and an inode number lead to content whose digest is still to be computed,
//! `d` and the id of content to its digest.

use std::ops::Bound;

use super::entry::{FileBody, Ino, decode, encode};
use super::index::sha256;
use super::tree::{Edits, PageIo, TreeRef};
use super::{Result, VersionError};
use crate::base::ids::{BlobId, Sha256};
use crate::crypto::{IdDomain, Keys};

const WANTED: u8 = b'w';
const KNOWN: u8 = b'd';

/// Names the bytes of a file by its size and chunks.
pub fn content_id(keys: &Keys, body: &FileBody) -> BlobId {
    keys.id(IdDomain::Page, &sha256(&encode(&(body.size, &body.content))))
}

fn wanted_key(ino: Ino) -> Vec<u8> {
    [[WANTED].as_slice(), &ino.0.to_be_bytes()].concat()
}

fn known_key(id: &BlobId) -> Vec<u8> {
    [[KNOWN].as_slice(), id.as_bytes()].concat()
}

/// The digest of this content is to be computed; earlier content of the inode no longer is.
pub fn want(edits: &mut Edits, ino: Ino, body: &FileBody) {
    edits.insert(wanted_key(ino), Some(encode(body)));
}

/// Nothing of this inode is to be computed.
pub fn settle(edits: &mut Edits, ino: Ino) {
    edits.insert(wanted_key(ino), None);
}

/// The digest of content.
pub fn set(edits: &mut Edits, id: &BlobId, digest: Sha256) {
    edits.insert(known_key(id), Some(digest.0.to_vec()));
}

/// The digest of content, if it is known.
pub fn find(digests: &TreeRef, io: &dyn PageIo, id: &BlobId) -> Result<Option<Sha256>> {
    let Some(value) = digests.get(io, &known_key(id))? else { return Ok(None) };
    let digest = value.try_into().map_err(|_| VersionError::damaged("the digests", "a digest of a wrong length"))?;
    Ok(Some(Sha256(digest)))
}

/// The content of an inode whose digest is to be computed.
pub fn wanted(digests: &TreeRef, io: &dyn PageIo, ino: Ino) -> Result<Option<FileBody>> {
    digests.get(io, &wanted_key(ino))?.map(|value| body_of(&value)).transpose()
}

/// The first content after that of `after` whose digest is to be computed.
pub fn next_wanted(digests: &TreeRef, io: &dyn PageIo, after: Option<Ino>) -> Result<Option<(Ino, FileBody)>> {
    let first = after.map_or(vec![WANTED], wanted_key);
    let mut found = None;
    digests.scan_to(io, Bound::Excluded(&first), Some(&[WANTED + 1]), &mut |key, value| {
        found = Some((key[1..].to_vec(), value.to_vec()));
        false
    })?;
    let Some((key, value)) = found else { return Ok(None) };
    let number = key.try_into().map_err(|_| VersionError::damaged("the digests", "a key is not an inode number"))?;
    Ok(Some((Ino(u64::from_be_bytes(number)), body_of(&value)?)))
}

fn body_of(value: &[u8]) -> Result<FileBody> {
    let body: FileBody = decode(value, "the digests")?;
    match body.fault() {
        Some(reason) => Err(VersionError::damaged("the digests", reason)),
        None => Ok(body),
    }
}
