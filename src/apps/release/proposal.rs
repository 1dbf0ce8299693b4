//! Metadata that several people sign in different places: a file that is carried from one to the next.

use std::collections::BTreeMap;
use std::path::Path;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use tough::schema::{Role, Root, Signed, Targets};

use super::anchor::Anchor;
use super::error::{ReleaseError, Result};
use super::keys::{
    KeyPair, bad, count_signatures, has_root, ids, is_current, keep_root, read_pairs, read_roots, sign_with,
};
use super::request::Signing;
use super::review::{Memory, digests, is_plain_offer, is_plain_root, show_root};
use crate::base::disk::{RealDisk, create_file, read_file, replace_file};
use crate::version::index::sha256;

const FORMAT: u32 = 1;
const LEN_MAX: usize = 128 << 20;

/// New files of an offer, by name.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// Metadata with the signatures it has so far.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Proposal {
    format: u32,
    /// The root before, or the one whose keys sign an offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    present: Option<Signed<Root>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<Signed<Root>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    targets: Option<Signed<Targets>>,
    /// New files of the offer, in base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<String, String>,
}

fn unsigned<T: Role>(role: T) -> Signed<T> {
    Signed { signed: role, signatures: Vec::new() }
}

impl Proposal {
    /// A root, and the one before it.
    pub(super) fn of_root(present: Option<Signed<Root>>, root: Root) -> Self {
        Self { format: FORMAT, present, root: Some(unsigned(root)), targets: None, files: BTreeMap::new() }
    }

    /// An offer, the root whose keys sign it, and the files that are new in it.
    pub(super) fn of_targets(root: Signed<Root>, targets: Signed<Targets>, files: Files) -> Self {
        let files = files.into_iter().map(|(name, bytes)| (name, BASE64.encode(&bytes))).collect();
        Self { format: FORMAT, present: Some(root), root: None, targets: Some(targets), files }
    }

    /// Reads one, from wherever it was.
    pub(super) fn read(path: &str) -> Result<Self> {
        let bytes = read_file(&RealDisk, Path::new(path), LEN_MAX)
            .map_err(|error| ReleaseError::unread("file to be signed", path, &error))?;
        Self::parse(&bytes, path)
    }

    pub(super) fn parse(bytes: &[u8], path: &str) -> Result<Self> {
        let damaged =
            |reason: String| ReleaseError::Damaged { object: format!("what is to be signed in {path}"), reason };
        let proposal: Self = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if proposal.format != FORMAT {
            return Err(damaged(format!("it has form {}, and this program knows {FORMAT}", proposal.format)));
        }
        let is_one = match (&proposal.root, &proposal.targets) {
            (Some(root), None) => {
                proposal.files.is_empty() && (proposal.present.is_some() || root.signed.version.get() == 1)
            }
            (None, Some(_)) => proposal.present.is_some(),
            _ => false,
        };
        if !is_one {
            return Err(damaged("it is neither a root nor an offer".to_owned()));
        }
        let plain = proposal.root.as_ref().is_none_or(|root| is_plain_root(&root.signed))
            && proposal.targets.as_ref().is_none_or(|targets| is_plain_offer(&targets.signed));
        if !plain {
            return Err(damaged("it says something that this program does not know, or lets others sign".to_owned()));
        }
        if let Some(present) = &proposal.present {
            present.signed.verify_role(present).map_err(|error| damaged(error.to_string()))?;
        }
        proposal.files().map(|_| proposal)
    }

    fn text(&self, path: &Path) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|error| bad(&path.display().to_string(), error))
    }

    /// Writes it to a new file.
    pub(super) fn create(&self, path: &Path) -> Result<()> {
        let failed =
            |error: std::io::Error| ReleaseError::Disk { path: path.display().to_string(), reason: error.to_string() };
        create_file(&RealDisk, path, &self.text(path)?).map_err(failed)
    }

    /// Writes it over the file that it came from.
    fn replace(&self, path: &Path) -> Result<()> {
        let failed =
            |error: std::io::Error| ReleaseError::Disk { path: path.display().to_string(), reason: error.to_string() };
        replace_file(&RealDisk, path, &self.text(path)?).map_err(failed)
    }

    /// Adds the signatures of these keys; how many of them sign this.
    pub(super) fn sign_with(&mut self, dir: &str, pairs: &[KeyPair]) -> Result<usize> {
        let mut count = 0;
        if let Some(root) = &mut self.root {
            let own = root.signed.clone();
            count += sign_with(dir, root, &own, pairs)?;
            if let Some(present) = &self.present {
                count += sign_with(dir, root, &present.signed, pairs)?;
            }
        }
        if let (Some(targets), Some(present)) = (&mut self.targets, &self.present) {
            count += sign_with(dir, targets, &present.signed, pairs)?;
        }
        Ok(count)
    }

    /// Signs it with all keys in a directory that may, writes it where it came from, and says what was signed: what
    /// differs from what was signed with them before and, with a channel's file of trust, what that channel's files
    /// say. A `trial` only says it.
    pub(super) fn sign(&mut self, path: &Path, dir: &Path, trust: Option<&Anchor>, trial: bool) -> Result<Signing> {
        let name = dir.display().to_string();
        let (pairs, before) = (read_pairs(dir)?, self.signing());
        if self.sign_with(&name, &pairs)? == 0 {
            return Err(bad(&name, format!("none of them signs {}", self.what())));
        }
        let (mut memory, files) = (Memory::read(dir)?, self.files()?);
        let base = memory.base(dir, trust, self.present.as_ref())?;
        let mut shows = Vec::new();
        if let Some(root) = &self.root {
            shows.extend(show_root(&root.signed, base.as_ref(), &ids(&name, &pairs)?));
            memory.learn_root(&root.signed);
        }
        if let Some(targets) = &self.targets {
            shows.extend(memory.show_offer(&targets.signed, &files, trust)?);
            memory.learn_offer(&targets.signed, &files);
        }
        if trial {
            return Ok(Signing { shows, ..before });
        }
        // Who is interrupted in between is shown the same again.
        self.replace(path)?;
        memory.write(dir)?;
        Ok(Signing { shows, ..self.signing() })
    }

    /// What it is, in words.
    fn what(&self) -> String {
        match (&self.root, &self.targets) {
            (Some(root), _) => format!("root {}", root.signed.version),
            (_, Some(targets)) => format!("targets {}", targets.signed.version),
            _ => String::new(),
        }
    }

    /// Whose signatures it needs: which root's, how many there are, and how many have to be.
    fn counts(&self) -> Vec<(u64, u64, u64)> {
        let mut counts = Vec::new();
        let mut count = |root: &Root, (have, need)| counts.push((root.version.get(), have, need));
        if let Some(root) = &self.root {
            if let Some(present) = &self.present {
                count(&present.signed, count_signatures(&present.signed, root));
            }
            count(&root.signed, count_signatures(&root.signed, root));
        }
        if let (Some(targets), Some(present)) = (&self.targets, &self.present) {
            count(&present.signed, count_signatures(&present.signed, targets));
        }
        counts
    }

    /// How far it is.
    pub(super) fn signing(&self) -> Signing {
        let counts = self.counts();
        let complete = counts.iter().all(|(_, have, need)| have >= need);
        let said =
            |(root, have, need): &(u64, u64, u64)| format!("{have} of {need} signatures by the keys of root {root}");
        Signing { what: self.what(), complete, signatures: counts.iter().map(said).collect(), shows: Vec::new() }
    }

    /// That all who have to have signed.
    pub(super) fn check_complete(&self) -> Result<()> {
        match self.counts().into_iter().find(|(_, have, need)| have < need) {
            Some((_, have, need)) => Err(ReleaseError::TooFew { what: self.what(), have, need }),
            None => Ok(()),
        }
    }

    /// Takes over the signatures of another copy.
    pub(super) fn merge(&mut self, other: Self) -> Result<()> {
        fn take<T: Role + PartialEq>(mine: &mut Option<Signed<T>>, other: Option<Signed<T>>) -> bool {
            match (mine, other) {
                (Some(mine), Some(other)) if mine.signed == other.signed => {
                    other.signatures.into_iter().for_each(|signature| {
                        mine.signatures.retain(|known| known.keyid != signature.keyid);
                        mine.signatures.push(signature);
                    });
                    true
                }
                (None, None) => true,
                _ => false,
            }
        }
        let same =
            self.files == other.files && take(&mut self.root, other.root) && take(&mut self.targets, other.targets);
        let reason = "the files are not copies of one".to_owned();
        if same { Ok(()) } else { Err(ReleaseError::Stale { what: self.what(), reason }) }
    }

    /// Makes a root that all have signed the newest in a directory of keys.
    pub(super) fn adopt(&self, dir: &Path) -> Result<()> {
        self.check_complete()?;
        let name = dir.display().to_string();
        let root = self.root.as_ref().ok_or_else(|| bad(&name, format!("{} is no root", self.what())))?;
        let newest = match has_root(dir) {
            true => read_roots(dir)?.pop().map(|(root, _)| root.signed),
            false => None,
        };
        // It was made the newest before, and that was interrupted.
        let goes_on = newest.as_ref() == Some(&root.signed) && !is_current(dir, root);
        if !goes_on && newest.as_ref() != self.present.as_ref().map(|present| &present.signed) {
            let reason = "another root has taken the place of the one before it".to_owned();
            return Err(ReleaseError::Stale { what: self.what(), reason });
        }
        keep_root(dir, root)
    }

    /// An offer that was signed, and its files; `None` when it is a root.
    pub(super) fn offer(&self) -> Result<Option<(&Signed<Targets>, Files)>> {
        let Some(targets) = &self.targets else { return Ok(None) };
        Ok(Some((targets, self.files()?)))
    }

    /// The new files, each being what is signed.
    fn files(&self) -> Result<Files> {
        let digests = self.targets.as_ref().map(|targets| digests(&targets.signed)).unwrap_or_default();
        let file = |(name, text): (&String, &String)| {
            let reason = || "it is not what is to be signed".to_owned();
            let damaged = || ReleaseError::Damaged { object: name.clone(), reason: reason() };
            let bytes = BASE64.decode(text.as_bytes()).map_err(|_| damaged())?;
            let fits = digests.get(name).is_some_and(|digest| *digest == sha256(&bytes).to_string());
            if fits { Ok((name.clone(), bytes)) } else { Err(damaged()) }
        };
        self.files.iter().map(file).collect()
    }
}
