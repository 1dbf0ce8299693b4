//! Joining the refs of two lines.

use std::collections::BTreeMap;

use crate::base::ids::VersionId;
use crate::version::Result;
use crate::version::refs::{forgotten, tag_key, tag_text};
use crate::version::tree::{Edits, PageIo, TreeRef};

type Values = BTreeMap<Vec<u8>, (Option<Vec<u8>>, Option<Vec<u8>>)>;

/// Their refs with what ours changed since `base`; without a base, with all that ours has. A tag that both gave to
/// different versions stays with theirs, and ours gets the next free `TAG-n`.
pub fn merge_refs(io: &dyn PageIo, base: Option<&TreeRef>, ours: &TreeRef, theirs: &TreeRef) -> Result<TreeRef> {
    if base == Some(theirs) {
        return Ok(*ours);
    }
    let our_changes = changes(io, base, ours)?;
    let mut edits = Edits::new();
    for (key, (before, after)) in our_changes {
        let now = theirs.get(io, &key)?;
        if now == after || is_forgotten(io, theirs, &key, after.as_ref())? {
            continue;
        }
        match (tag_text(&key), &after, now == before) {
            // Only we changed it.
            (_, _, true) => drop(edits.insert(key, after)),
            (Some(tag), Some(_), false) if now.is_some() => {
                let free = free_tag(io, theirs, &edits, &tag, after.as_ref())?;
                edits.insert(free, after);
            }
            // They removed a version or tag that we have anew, or have one that we removed: it stays.
            (_, Some(_), false) if now.is_none() => drop(edits.insert(key, after)),
            _ => {}
        }
    }
    theirs.edit(io, &edits)
}

/// Whether a version that a line has, or gives a tag to, was forgotten in the other.
fn is_forgotten(io: &dyn PageIo, theirs: &TreeRef, key: &[u8], after: Option<&Vec<u8>>) -> Result<bool> {
    let id = match (key.split_first(), after) {
        (Some((b'v', id)), Some(_)) => id,
        (Some((b't', _)), Some(id)) => id,
        _ => return Ok(false),
    };
    match uuid::Uuid::from_slice(id) {
        Ok(id) => Ok(forgotten(theirs, io, VersionId(id))?.is_some()),
        Err(_) => Ok(false),
    }
}

/// What a line changed; without a base, only what it has.
fn changes(io: &dyn PageIo, base: Option<&TreeRef>, line: &TreeRef) -> Result<Values> {
    let mut values = Values::new();
    base.copied().unwrap_or_default().diff(line, io, &mut |key, before, after| {
        values.insert(key.to_vec(), (before.map(<[u8]>::to_vec), after.map(<[u8]>::to_vec)));
        Ok(())
    })?;
    Ok(values)
}

fn free_tag(io: &dyn PageIo, theirs: &TreeRef, edits: &Edits, tag: &str, version: Option<&Vec<u8>>) -> Result<Vec<u8>> {
    for number in 2_u32.. {
        let key = tag_key(&format!("{tag}-{number}"));
        let there = theirs.get(io, &key)?;
        if there.is_none() && !edits.contains_key(&key) || there.as_ref() == version {
            return Ok(key);
        }
    }
    Ok(tag_key(tag))
}
