//! What a directory of keys knows of the repositories that it signs for: how new each was. Who controls a repository
//! and has no key may put an older copy back; it is not signed anew.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{ReleaseError, Result};
use super::keys::{bad, bad_file};
use super::repository::Repository;
use crate::base::disk::{RealDisk, read_file, replace_file};
use crate::version::index::sha256;

/// What is known of the repositories, in a directory of keys.
const KNOWN: &str = "repositories.json";
const LEN_MAX: usize = 1 << 20;
/// Lists of what is offered that were begun and not finished, at most, of one repository.
const BEGUN_MAX: usize = 16;

/// Versions of what is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Versions {
    pub(super) targets: u64,
    pub(super) snapshot: u64,
    pub(super) timestamp: u64,
}

/// What is known of a repository.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    /// The highest that were seen there, or signed for it.
    newest: Versions,
    /// Digests of the lists that were put there, and that no statement names yet.
    #[serde(default)]
    begun: Vec<String>,
}

pub(super) type All = BTreeMap<String, Known>;

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "targets {}, snapshot {}, timestamp {}", self.targets, self.snapshot, self.timestamp)
    }
}

impl Versions {
    fn is_older(self, than: Self) -> bool {
        self.targets < than.targets || self.snapshot < than.snapshot || self.timestamp < than.timestamp
    }
}

pub(super) fn parse(bytes: &[u8], dir: &str) -> Result<All> {
    serde_json::from_slice(bytes).map_err(|error| bad(dir, format!("{KNOWN}: {error}")))
}

fn read(dir: &str) -> Result<All> {
    match read_file(&RealDisk, &Path::new(dir).join(KNOWN), LEN_MAX) {
        Ok(bytes) => parse(&bytes, dir),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(All::new()),
        Err(error) => Err(bad_file(dir, KNOWN, error)),
    }
}

/// Changes what is known of a repository.
fn change<T>(dir: &str, repository: &dyn Repository, change: impl FnOnce(&mut Known) -> T) -> Result<T> {
    let mut all = read(dir)?;
    let done = change(all.entry(repository.place()).or_default());
    let text = serde_json::to_vec_pretty(&all).map_err(|error| bad(dir, error))?;
    replace_file(&RealDisk, &Path::new(dir).join(KNOWN), &text).map_err(|error| bad_file(dir, KNOWN, error))?;
    Ok(done)
}

/// That a repository shows nothing older than what was there before. What it shows is remembered.
pub(super) fn check(dir: &str, repository: &dyn Repository, shown: Versions) -> Result<()> {
    let newest = read(dir)?.get(&repository.place()).map(|known| known.newest).unwrap_or_default();
    if shown.is_older(newest) {
        let reason = format!(
            "it shows something older ({shown}) than these keys signed or saw there before ({newest}), so an older \
             copy was put back, and nothing is signed; put the newest back or, if the older copy shall count, remove \
             {KNOWN} from the keys in {dir}"
        );
        return Err(ReleaseError::Untrusted { repository: repository.address(), reason });
    }
    if shown == newest { Ok(()) } else { change(dir, repository, |known| known.newest = shown) }
}

/// Puts the list of what is offered where there is none yet, or where these keys began one and were interrupted: one of
/// two publishers at once is the first.
pub(super) fn claim(dir: &str, repository: &dyn Repository, name: &str, bytes: &[u8]) -> Result<()> {
    let digest = |bytes: &[u8]| sha256(bytes).to_string();
    change(dir, repository, |known| {
        known.begun.push(digest(bytes));
        let surplus = known.begun.len().saturating_sub(BEGUN_MAX);
        known.begun.drain(..surplus);
    })?;
    let file = format!("metadata/{name}");
    if repository.create(&file, bytes)? {
        return Ok(());
    }
    let there = repository.get(&file, super::sign::METADATA_LEN_MAX)?.map(|there| digest(&there));
    let known = read(dir)?;
    let begun = known.get(&repository.place()).map_or(&[][..], |known| &known.begun);
    if there.is_none_or(|there| begun.contains(&there)) {
        return repository.put(&file, bytes);
    }
    let reason = format!(
        "another publisher was faster; run it again. If that does not help, the other broke off: it has to run again \
         there, or {file} has to be removed from the repository"
    );
    Err(ReleaseError::Stale { what: name.to_owned(), reason })
}

/// Publishes a statement of what is newest, with `put`. That there is this offer is remembered before, so that it
/// counts from the first moment on that somebody may have seen it; the rest afterwards, so that a renewal that is
/// interrupted can be done again.
pub(super) fn replace(
    dir: &str,
    repository: &dyn Repository,
    now: Versions,
    put: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let before = change(dir, repository, |known| std::mem::replace(&mut known.newest.targets, now.targets))?;
    if let Err(error) = put() {
        change(dir, repository, |known| known.newest.targets = before)?;
        return Err(error);
    }
    change(dir, repository, |known| {
        known.newest = now;
        known.begun.clear();
    })
}
