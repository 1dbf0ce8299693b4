//! The refs: which versions are kept, and under which names.
//!
//! A page tree named by HEAD. Keys are `v` followed by a version's sixteen bytes, `t` followed
//! by a tag's name, `f` followed by a forgotten version's sixteen bytes, `r` for the retention policy, or `c` followed
//! by the number of a garbage collection. It holds the summary that a listing shows, so a history of any length is read
//! page by page and never object by object.

use std::collections::BTreeMap;
use std::ops::Bound;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};

use super::entry::{decode, encode};
use super::index::{Counts, IndexRecord, Origin};
use super::merge::Policy;
use super::retention::Retention;
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

/// What stays known of a version that was taken from the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Its place in the chain.
    pub generation: u64,
    /// Its parents.
    pub parents: Vec<VersionId>,
}

/// A list of names that a garbage collection took out of existence: `condemned/<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalList {
    /// The object.
    pub id: uuid::Uuid,
    /// How many names it has.
    pub count: u64,
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

fn forgotten_key(id: VersionId) -> Vec<u8> {
    [b"f", id.as_bytes().as_slice()].concat()
}

fn collection_key(number: u64) -> Vec<u8> {
    [b"c", number.to_be_bytes().as_slice()].concat()
}

/// The key of a tag.
pub(super) fn tag_key(tag: &str) -> Vec<u8> {
    [b"t", tag.as_bytes()].concat()
}

/// The tag of a key; `None` for keys of another sort.
pub(super) fn tag_text(key: &[u8]) -> Option<String> {
    key.strip_prefix(b"t").map(|tag| String::from_utf8_lossy(tag).into_owned())
}

/// Edits that add a version.
pub fn add_version(edits: &mut Edits, record: &IndexRecord) {
    edits.insert(version_key(record.id), Some(encode(&Summary::of(record))));
}

/// Edits that take a version from the list. That it was there, and what it was made from, stays known: so a history
/// that lacks it is not taken for one that lost it.
pub fn forget_version(edits: &mut Edits, version: &Listed) {
    edits.insert(version_key(version.id), None);
    let forgotten = Forgotten { generation: version.summary.generation, parents: version.summary.parents.clone() };
    edits.insert(forgotten_key(version.id), Some(encode(&forgotten)));
}

/// What is known of a version that was taken from the list.
pub fn forgotten(refs: &TreeRef, io: &dyn PageIo, version: VersionId) -> Result<Option<Forgotten>> {
    refs.get(io, &forgotten_key(version))?.map(|value| decode(&value, "the refs")).transpose()
}

/// All versions that were taken from the list, handed to `each`.
pub fn each_forgotten(refs: &TreeRef, io: &dyn PageIo, each: &mut dyn FnMut(VersionId)) -> Result<()> {
    let mut wrong = None;
    refs.scan_to(io, Bound::Included(b"f"), Some(b"g"), &mut |key, _| match parse_id(&key[1..]) {
        Ok(id) => {
            each(id);
            true
        }
        Err(error) => {
            wrong = Some(error);
            false
        }
    })?;
    wrong.map_or(Ok(()), Err)
}

/// Edits that set the retention policy, or (`None`) take it away.
pub fn set_retention(edits: &mut Edits, policy: Option<&Retention>) {
    edits.insert(b"r".to_vec(), policy.map(encode));
}

/// The retention policy.
pub fn retention(refs: &TreeRef, io: &dyn PageIo) -> Result<Option<Retention>> {
    refs.get(io, b"r")?.map(|value| decode(&value, "the refs")).transpose()
}

/// Edits that name the final list of a garbage collection, or (`None`) take it away.
pub fn set_final_list(edits: &mut Edits, number: u64, list: Option<FinalList>) {
    edits.insert(collection_key(number), list.map(|list| encode(&list)));
}

/// The final lists that are kept, by the number of their collection, from `from` on.
pub fn final_lists(refs: &TreeRef, io: &dyn PageIo, from: u64) -> Result<BTreeMap<u64, FinalList>> {
    let mut raw = Vec::new();
    refs.scan_to(io, Bound::Included(&collection_key(from)), Some(b"d"), &mut |key, value| {
        raw.push((key[1..].to_vec(), value.to_vec()));
        true
    })?;
    let parse = |(key, value): (Vec<u8>, Vec<u8>)| {
        let number: [u8; 8] = key.try_into().map_err(|_| VersionError::damaged("the refs", "a number cut short"))?;
        Ok((u64::from_be_bytes(number), decode(&value, "the refs")?))
    };
    raw.into_iter().map(parse).collect()
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

/// What is kept of a version; `None` when it is not.
pub fn summary(refs: &TreeRef, io: &dyn PageIo, version: VersionId) -> Result<Option<Summary>> {
    refs.get(io, &version_key(version))?.map(|value| decode(&value, "the refs")).transpose()
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

/// How many versions are kept.
pub fn count(refs: &TreeRef, io: &dyn PageIo) -> Result<u64> {
    Ok(refs.count_before(io, b"w")?.saturating_sub(refs.count_before(io, b"v")?))
}

/// The versions whose ids begin with these hexadecimal digits, by id; at most `max`.
pub fn with_digits(refs: &TreeRef, io: &dyn PageIo, digits: &str, max: usize) -> Result<Vec<(VersionId, Summary)>> {
    let padded = format!("{digits:0<32}");
    let Ok(first) = HEXLOWER_PERMISSIVE.decode(padded.as_bytes()) else { return Ok(Vec::new()) };
    let digits = digits.to_ascii_lowercase();
    let mut raw = Vec::new();
    refs.scan(io, Bound::Included(&[b"v", first.as_slice()].concat()), &mut |key, value| {
        let is_one = key[0] == b'v' && HEXLOWER.encode(&key[1..]).starts_with(&digits);
        if is_one {
            raw.push((key[1..].to_vec(), value.to_vec()));
        }
        is_one && raw.len() < max
    })?;
    raw.into_iter().map(|(key, value)| Ok((parse_id(&key)?, decode(&value, "the refs")?))).collect()
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

/// What happens to files that two clients changed: patterns of paths and their policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies(BTreeMap<Vec<u8>, Policy>);

impl Policies {
    /// The policies in the refs. What a newer program stored and this one does not know is left out.
    pub fn read(refs: &TreeRef, io: &dyn PageIo) -> Result<Self> {
        let mut policies = BTreeMap::new();
        refs.scan(io, Bound::Included(b"p"), &mut |key, value| {
            let Some(pattern) = key.strip_prefix(b"p") else { return false };
            let policy = std::str::from_utf8(value).ok().and_then(Policy::from_word);
            policies.extend(policy.map(|policy| (pattern.to_vec(), policy)));
            true
        })?;
        Ok(Self(policies))
    }

    /// The policy for a path: that of the longest pattern that matches.
    pub fn of(&self, path: &[u8]) -> Policy {
        let matching = self.0.iter().filter(|(pattern, _)| matches(pattern, path));
        matching.max_by_key(|(pattern, _)| pattern.len()).map(|(_, policy)| *policy).unwrap_or_default()
    }

    /// All patterns with their policies; the empty pattern is for everything.
    pub fn all(&self) -> impl Iterator<Item = (&[u8], Policy)> {
        self.0.iter().map(|(pattern, policy)| (pattern.as_slice(), *policy))
    }
}

/// Edits that set the policy of a pattern, or (`None`) remove it.
pub fn set_policy(edits: &mut Edits, pattern: &[u8], policy: Option<Policy>) {
    let value = policy.map(|policy| policy.word().as_bytes().to_vec());
    edits.insert([b"p", pattern].concat(), value);
}

/// Whether a path is meant: a pattern without `/` is for names, `*` stands for anything but `/`, `**` for anything,
/// and a pattern also means everything below what it matches.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    if pattern.is_empty() {
        return true;
    }
    if !pattern.contains(&b'/') {
        return path.split(|byte| *byte == b'/').any(|name| matches_all(pattern, name));
    }
    let pattern = pattern.strip_prefix(b"/").unwrap_or(pattern);
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    ends.chain([path.len()]).any(|end| matches_all(pattern, &path[..end]))
}

/// Matches by trying the last star again with one byte more; linear in memory, quadratic in time at worst.
fn matches_all(pattern: &[u8], text: &[u8]) -> bool {
    // For each position of the pattern: whether it can be reached with the text so far.
    let mut reached = vec![false; pattern.len() + 1];
    reached[0] = true;
    let skip_stars = |reached: &mut Vec<bool>| {
        for at in 0..pattern.len() {
            reached[at + 1] |= reached[at] && pattern[at] == b'*';
        }
    };
    skip_stars(&mut reached);
    for byte in text {
        let mut next = vec![false; pattern.len() + 1];
        for at in (0..pattern.len()).filter(|at| reached[*at]) {
            match pattern[at] {
                b'*' => {
                    let is_double = pattern.get(at + 1) == Some(&b'*') || at > 0 && pattern[at - 1] == b'*';
                    next[at] |= *byte != b'/' || is_double;
                }
                b'?' => next[at + 1] |= *byte != b'/',
                wanted => next[at + 1] |= wanted == *byte,
            }
        }
        reached = next;
        skip_stars(&mut reached);
    }
    reached[pattern.len()]
}
