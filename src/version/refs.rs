//! The refs: which versions are kept, and under which names.
//!
//! A page tree named by HEAD. Keys are `v` followed by a version's sixteen bytes, or `t` followed
//! by a tag's name. It holds the summary that a listing shows, so a history of any length is read
//! page by page and never object by object.

use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::entry::{decode, encode};
use super::index::{Counts, IndexRecord, Origin};
use super::tree::{Edits, PageIo, TreeRef};
use super::{Result, VersionError};
use crate::base::clock::Timestamp;
use crate::base::ids::VersionId;

/// What a listing shows of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Its place in the chain.
    pub generation: u64,
    /// When it was recorded.
    pub time: Timestamp,
    /// Its parents.
    pub parents: Vec<VersionId>,
    /// Host that recorded it.
    pub host: String,
    /// User that recorded it.
    pub user: String,
    /// Why it exists.
    pub origin: Origin,
    /// What the user said of it.
    pub message: Option<String>,
    /// Sizes.
    pub counts: Counts,
}

/// A version in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The version.
    pub id: VersionId,
    /// Its summary.
    pub summary: Summary,
    /// Its tags, sorted.
    pub tags: Vec<String>,
}

/// Longest tag name in bytes.
pub const TAG_LEN_MAX: usize = 200;

impl Summary {
    /// The summary of a record.
    pub fn of(record: &IndexRecord) -> Self {
        Self {
            generation: record.generation,
            time: record.time,
            parents: record.parents.clone(),
            host: record.author.host.clone(),
            user: record.author.user.clone(),
            origin: record.origin,
            message: record.message.clone(),
            counts: record.counts,
        }
    }
}

/// Whether a text can name a version: like a file name, without spaces at the ends, `:`, or control
/// characters, and not `latest`.
pub fn tag_ok(tag: &str) -> bool {
    super::entry::name_ok(tag.as_bytes())
        && tag.len() <= TAG_LEN_MAX
        && tag.trim() == tag
        && !tag.chars().any(|c| c.is_control() || c == ':')
        && tag != "latest"
}

fn version_key(id: VersionId) -> Vec<u8> {
    [b"v", id.as_bytes().as_slice()].concat()
}

fn tag_key(tag: &str) -> Vec<u8> {
    [b"t", tag.as_bytes()].concat()
}

/// Edits that add a version.
pub fn add_version(edits: &mut Edits, record: &IndexRecord) {
    edits.insert(version_key(record.id), Some(encode(&Summary::of(record))));
}

/// Edits that take a version from the list.
pub fn remove_version(edits: &mut Edits, version: VersionId) {
    edits.insert(version_key(version), None);
}

/// Edits that give a version a tag, or (`None`) take the tag away.
pub fn set_tag(edits: &mut Edits, tag: &str, version: Option<VersionId>) {
    edits.insert(tag_key(tag), version.map(|version| version.as_bytes().to_vec()));
}

/// The version that has a tag.
pub fn tagged(refs: &TreeRef, io: &dyn PageIo, tag: &str) -> Result<Option<VersionId>> {
    refs.get(io, &tag_key(tag))?.map(|value| parse_id(&value)).transpose()
}

/// Whether a version is kept.
pub fn lists(refs: &TreeRef, io: &dyn PageIo, version: VersionId) -> Result<bool> {
    Ok(refs.get(io, &version_key(version))?.is_some())
}

/// All tags with their versions, sorted by name.
pub fn tags(refs: &TreeRef, io: &dyn PageIo) -> Result<Vec<(String, VersionId)>> {
    let mut raw = Vec::new();
    refs.scan_to(io, Bound::Included(b"t"), Some(b"u"), &mut |key, value| {
        raw.push((String::from_utf8_lossy(&key[1..]).into_owned(), value.to_vec()));
        true
    })?;
    raw.into_iter().map(|(tag, value)| Ok((tag, parse_id(&value)?))).collect()
}

/// All versions, newest first (by generation, then id).
pub fn versions(refs: &TreeRef, io: &dyn PageIo) -> Result<Vec<Listed>> {
    let mut raw = Vec::new();
    refs.scan_to(io, Bound::Included(b"v"), Some(b"w"), &mut |key, value| {
        raw.push((key[1..].to_vec(), value.to_vec()));
        true
    })?;
    let tags = tags(refs, io)?;
    let mut versions = Vec::with_capacity(raw.len());
    for (key, value) in raw {
        let id = parse_id(&key)?;
        let summary: Summary = decode(&value, "the refs")?;
        let tags = tags.iter().filter(|(_, tagged)| *tagged == id).map(|(tag, _)| tag.clone()).collect();
        versions.push(Listed { id, summary, tags });
    }
    versions.sort_by_key(|version| std::cmp::Reverse((version.summary.generation, version.id)));
    Ok(versions)
}

fn parse_id(bytes: &[u8]) -> Result<VersionId> {
    uuid::Uuid::from_slice(bytes).map(VersionId).map_err(|error| VersionError::damaged("the refs", error))
}
