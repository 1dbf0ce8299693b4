//! Metadata that several people sign in different places: a file that is carried from one to the next.

use std::collections::BTreeMap;
use std::path::Path;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::{Role, Root, Signed, Targets};

use super::anchor::Anchor;
use super::channel::Channel;
use super::error::{ReleaseError, Result};
use super::keys::{KeyPair, ROLES, bad, count_signatures, ids, keep_root, read_pairs, sign_with, word};
use super::package::{Package, target_of_channel};
use super::publish::parse_target;
use super::request::Signing;
use super::sign::bytes_of;
use crate::base::disk::{RealDisk, create_file, read_file, replace_file};
use crate::version::index::sha256;

const FORMAT: u32 = 1;
const LEN_MAX: usize = 128 << 20;
/// What a directory of keys signed last, by name: so that who signs is shown what differs.
const SIGNED: &str = "signed.json";

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
        let damaged =
            |reason: String| ReleaseError::Damaged { object: format!("what is to be signed in {path}"), reason };
        let bytes = read_file(&RealDisk, Path::new(path), LEN_MAX).map_err(|error| damaged(error.to_string()))?;
        let proposal: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
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
    pub(super) fn replace(&self, path: &Path) -> Result<()> {
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

    /// Signs it with all keys in a directory that may, and says what was signed: what differs from what was signed with
    /// them last and, with a channel's file of trust, what that channel's files say.
    pub(super) fn sign(&mut self, dir: &Path, trust: Option<&Anchor>) -> Result<Signing> {
        let name = dir.display().to_string();
        let pairs = read_pairs(dir)?;
        if self.sign_with(&name, &pairs)? == 0 {
            return Err(bad(&name, format!("none of them signs {}", self.what())));
        }
        let last = match read_file(&RealDisk, &dir.join(SIGNED), LEN_MAX) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| bad(&name, format!("{SIGNED}: {error}")))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(bad(&name, error)),
        };
        let shows = self.shows(&ids(&name, &pairs)?, &last, trust)?;
        if self.targets.is_some() {
            let text = serde_json::to_vec(&self.digests()).map_err(|error| bad(&name, error))?;
            replace_file(&RealDisk, &dir.join(SIGNED), &text).map_err(|error| bad(&name, error))?;
        }
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
        let before = match dir.join(super::keys::ROOT).exists() {
            true => Some(super::sign::Signer::open(dir, super::sign::Expiry::default())?.root().clone()),
            false => None,
        };
        if before.as_ref().map(|root| &root.signed) != self.present.as_ref().map(|root| &root.signed) {
            let reason = "another root has taken the place of the one before it".to_owned();
            return Err(ReleaseError::Stale { what: self.what(), reason });
        }
        keep_root(dir, root.signed.version, &bytes_of(&name, root)?)
    }

    /// An offer that was signed, and its files; `None` when it is a root.
    pub(super) fn offer(&self) -> Result<Option<(&Signed<Targets>, Files)>> {
        let Some(targets) = &self.targets else { return Ok(None) };
        Ok(Some((targets, self.files()?)))
    }

    /// The new files, each being what is signed.
    fn files(&self) -> Result<Files> {
        let digests = self.digests();
        let file = |(name, text): (&String, &String)| {
            let reason = || "it is not what is to be signed".to_owned();
            let damaged = || ReleaseError::Damaged { object: name.clone(), reason: reason() };
            let bytes = BASE64.decode(text.as_bytes()).map_err(|_| damaged())?;
            let fits = digests.get(name).is_some_and(|digest| *digest == sha256(&bytes).to_string());
            if fits { Ok((name.clone(), bytes)) } else { Err(damaged()) }
        };
        self.files.iter().map(file).collect()
    }

    fn digests(&self) -> BTreeMap<String, String> {
        let targets = self.targets.iter().flat_map(|targets| &targets.signed.targets);
        targets.map(|(name, target)| (name.raw().to_owned(), HEXLOWER.encode(&target.hashes.sha256))).collect()
    }

    /// Lines for who signs.
    fn shows(
        &self,
        mine: &[Decoded<Hex>],
        last: &BTreeMap<String, String>,
        trust: Option<&Anchor>,
    ) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        if let Some(root) = &self.root {
            for role in ROLES {
                let Some(keys) = root.signed.roles.get(&role) else { continue };
                lines.push(format!("{}: {} of {} keys sign", word(role), keys.threshold, keys.keyids.len()));
                for id in &keys.keyids {
                    let known = self.present.as_ref().is_some_and(|present| present.signed.keys.contains_key(id));
                    let (known, yours) =
                        (if known { "" } else { ", new" }, if mine.contains(id) { ", yours" } else { "" });
                    lines.push(format!("  {}{known}{yours}", HEXLOWER.encode(id)));
                }
            }
        }
        let (now, files) = (self.digests(), self.files()?);
        for (name, digest) in now.iter().filter(|(name, digest)| last.get(*name) != Some(digest)) {
            lines.push(format!("{} {name} {digest}", if last.contains_key(name) { "changed:" } else { "new:" }));
            if let (Some(trust), Some(sealed)) = (trust, files.get(name)) {
                lines.extend(opened(trust, name, sealed)?);
            }
        }
        lines.extend(last.keys().filter(|name| !now.contains_key(*name)).map(|name| format!("gone: {name}")));
        Ok(lines)
    }
}

/// What a file of a channel says, for those who have the channel's file of trust.
fn opened(trust: &Anchor, name: &str, sealed: &[u8]) -> Result<Vec<String>> {
    let package = parse_target(name).filter(|(channel, ..)| *channel == trust.channel);
    if package.is_none() && name != target_of_channel(&trust.channel) {
        return Ok(Vec::new());
    }
    let reason = "it was not sealed with the key of its channel".to_owned();
    let bytes = trust.channel_key.open(name, sealed);
    let bytes = bytes.ok_or_else(|| ReleaseError::Damaged { object: name.to_owned(), reason })?;
    let mut lines = Vec::new();
    match package {
        Some((_, package, version)) => {
            let package = Package::parse(&bytes, package, &version)?;
            lines.extend(package.changes.iter().map(|change| format!("  {change}")));
            lines.extend(package.files.iter().map(|file| format!("  {} {}", file.path, file.integrity)));
            lines.extend(package.checks.iter().map(|check| format!("  runs {}", check.command.join(" "))));
        }
        None => {
            let channel = Channel::parse(&bytes, &trust.channel)?;
            for (package, offers) in &channel.packages {
                for offer in offers {
                    let revoked = offer.revoked.as_ref().map(|why| format!(", revoked: {why}")).unwrap_or_default();
                    let paused = if offer.paused { ", paused" } else { "" };
                    let emergency = if offer.emergency { ", emergency" } else { "" };
                    let (version, share) = (&offer.version, f64::from(offer.bps) / 100.0);
                    lines.push(format!("  {package} {version}: {share} %{paused}{emergency}{revoked}"));
                }
            }
        }
    }
    Ok(lines)
}
