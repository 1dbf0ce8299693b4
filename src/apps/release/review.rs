//! What those are shown who sign, and what a directory of keys remembers of what was signed with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::Key;
use tough::schema::{Root, Signed, Targets};

use super::anchor::Anchor;
use super::channel::Channel;
use super::error::{ReleaseError, Result};
use super::keys::{ROLES, bad, has_root, read_roots, word};
use super::package::{Package, target_of_channel};
use super::proposal::Files;
use super::publish::parse_target;
use super::sign::SPEC_VERSION;
use crate::base::disk::{RealDisk, read_file, replace_file};

/// What a directory of keys signed last.
const SIGNED: &str = "signed.json";
const LEN_MAX: usize = 128 << 20;

/// What was signed with the keys of a directory.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    /// The roots, in the order in which they were signed.
    roots: Vec<Root>,
    /// The last offer.
    targets: Option<Targets>,
    /// Its files, as far as they were seen, in base64.
    files: BTreeMap<String, String>,
}

/// Digests of what an offer names.
pub(super) fn digests(targets: &Targets) -> BTreeMap<String, String> {
    let digest = |(name, target): (&tough::TargetName, &tough::schema::Target)| {
        (name.raw().to_owned(), HEXLOWER.encode(&target.hashes.sha256))
    };
    targets.targets.iter().map(digest).collect()
}

/// Whether a root says nothing but what this program reads.
pub(super) fn is_plain_root(root: &Root) -> bool {
    let plain_key = |key: &Key| match key {
        Key::Ed25519 { keyval, _extra, .. } => keyval._extra.is_empty() && _extra.is_empty(),
        _ => false,
    };
    root._extra.is_empty()
        && root.spec_version == SPEC_VERSION
        && root.consistent_snapshot
        && root.keys.values().all(plain_key)
        && root.roles.len() == ROLES.len()
        && ROLES.iter().all(|role| root.roles.get(role).is_some_and(|keys| keys._extra.is_empty()))
}

/// Whether an offer says nothing but what this program reads, and leaves nothing to the keys of others.
pub(super) fn is_plain_offer(targets: &Targets) -> bool {
    targets._extra.is_empty()
        && targets.spec_version == SPEC_VERSION
        && targets.delegations.as_ref().is_none_or(|others| others.keys.is_empty() && others.roles.is_empty())
        && targets
            .targets
            .values()
            .all(|target| target.custom.is_empty() && target._extra.is_empty() && target.hashes._extra.is_empty())
}

impl Memory {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let name = dir.display().to_string();
        match read_file(&RealDisk, &dir.join(SIGNED), LEN_MAX) {
            Ok(bytes) => Self::parse(&bytes, &name),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(bad(&name, format!("{SIGNED}: {error}"))),
        }
    }

    pub(super) fn parse(bytes: &[u8], dir: &str) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| bad(dir, format!("{SIGNED}: {error}")))
    }

    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let failed = |error: String| bad(&dir.display().to_string(), format!("{SIGNED}: {error}"));
        let text = serde_json::to_vec(self).map_err(|error| failed(error.to_string()))?;
        replace_file(&RealDisk, &dir.join(SIGNED), &text).map_err(|error| failed(error.to_string()))
    }

    /// Remembers a root that was signed.
    pub(super) fn learn_root(&mut self, root: &Root) {
        self.roots.retain(|known| known != root);
        self.roots.push(root.clone());
    }

    /// Remembers an offer that was signed; of its files, those that came with it or are known and the same.
    pub(super) fn learn_offer(&mut self, targets: &Targets, files: &Files) {
        let (now, before) = (digests(targets), self.targets.as_ref().map(digests).unwrap_or_default());
        self.files.retain(|name, _| now.contains_key(name) && now.get(name) == before.get(name));
        self.files.extend(files.iter().map(|(name, bytes)| (name.clone(), BASE64.encode(bytes))));
        self.targets = Some(targets.clone());
    }

    /// The root that a new one, or the one whose keys sign an offer, is compared with: `present` when it is known here,
    /// or else the newest that is. `None` when none is.
    pub(super) fn base(
        &self,
        dir: &Path,
        trust: Option<&Anchor>,
        present: Option<&Signed<Root>>,
    ) -> Result<Option<Root>> {
        let mut known = self.roots.clone();
        if has_root(dir) {
            known.extend(read_roots(dir)?.into_iter().map(|(root, _)| root.signed));
        }
        if let Some(trust) = trust {
            let root = serde_json::from_value::<Signed<Root>>(trust.root.clone());
            known.push(root.map_err(|error| bad("the file of trust", error))?.signed);
        }
        let newest = known.iter().max_by_key(|root| root.version);
        let (Some(newest), Some(present)) = (newest, present) else { return Ok(newest.cloned()) };
        if known.contains(&present.signed) {
            return Ok(Some(present.signed.clone()));
        }
        let (theirs, ours) = (present.signed.version, newest.version);
        let follows =
            theirs.get() > ours.get().saturating_add(1) || (theirs > ours && newest.verify_role(present).is_ok());
        if follows {
            return Ok(Some(newest.clone()));
        }
        let reason = format!(
            "it rests on a root {theirs} that does not follow from root {ours}, which is known here; sign nothing, and \
             ask the publisher by another way. If root {ours} was never used, remove {}",
            dir.join(SIGNED).display()
        );
        Err(ReleaseError::Damaged { object: "what is to be signed".to_owned(), reason })
    }

    /// Lines of what differs between the offer that was signed last and this one.
    pub(super) fn show_offer(&self, targets: &Targets, files: &Files, trust: Option<&Anchor>) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let before = self.targets.as_ref().map(digests).unwrap_or_default();
        if self.targets.is_none() {
            lines.push("these keys have signed no offer yet, so there is nothing to compare this one with".to_owned());
        }
        let expired = self.targets.as_ref().map(|targets| targets.expires.to_string());
        lines.extend(differs("expires", expired.as_ref(), Some(&targets.expires.to_string())));
        let now = digests(targets);
        for (name, digest) in now.iter().filter(|(name, digest)| before.get(*name) != Some(digest)) {
            lines.push(format!("{} {name} {digest}", if before.contains_key(name) { "changed:" } else { "new:" }));
            lines.extend(self.show_file(name, files.get(name), trust)?);
        }
        lines.extend(before.keys().filter(|name| !now.contains_key(*name)).map(|name| format!("gone: {name}")));
        Ok(lines)
    }

    /// What a file says, or what of it differs from the one that was signed last.
    fn show_file(&self, name: &str, sealed: Option<&Vec<u8>>, trust: Option<&Anchor>) -> Result<Vec<String>> {
        let note = |text: &str| Ok(vec![format!("  {text}")]);
        let Some(sealed) = sealed else { return note("it is not in this file, so what it says cannot be shown") };
        let Some(now) = trust.map(|trust| fields(trust, name, sealed)).transpose()?.flatten() else {
            return note("what it says is shown with the file of trust of its channel (--trust)");
        };
        let before = self.files.get(name).and_then(|text| BASE64.decode(text.as_bytes()).ok());
        let before = match (trust, before) {
            (Some(trust), Some(before)) => fields(trust, name, &before)?.unwrap_or_default(),
            _ => BTreeMap::new(),
        };
        let paths: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        let line = |path: &String| Some(format!("  {}", differs(path, before.get(path), now.get(path))?));
        Ok(paths.into_iter().filter_map(line).collect())
    }
}

/// A line about one value that differs.
fn differs(path: &str, before: Option<&String>, now: Option<&String>) -> Option<String> {
    match (before, now) {
        (before, now) if before == now => None,
        (Some(before), now) => Some(format!("{path}: {before} -> {}", now.map_or("gone", String::as_str))),
        (None, now) => now.map(|now| format!("{path}: {now}")),
    }
}

/// Lines of what a root says, compared with another: its keys, thresholds and expiry.
pub(super) fn show_root(root: &Root, base: Option<&Root>, mine: &[Decoded<Hex>]) -> Vec<String> {
    let mut lines = Vec::new();
    match base {
        Some(base) => lines.push(format!("compared with root {}, which is known here", base.version)),
        None => lines.push("no root is known here to compare it with: make sure of each key by another way".to_owned()),
    }
    let expired = base.map(|base| base.expires.to_string());
    lines.extend(differs("expires", expired.as_ref(), Some(&root.expires.to_string())));
    for role in ROLES {
        let Some(keys) = root.roles.get(&role) else { continue };
        let old = base.and_then(|base| base.roles.get(&role));
        let before = old.filter(|old| (old.threshold, old.keyids.len()) != (keys.threshold, keys.keyids.len()));
        let before = before.map(|old| format!(", before {} of {}", old.threshold, old.keyids.len()));
        let (word, all) = (word(role), keys.keyids.len());
        lines.push(format!("{word}: {} of {all} keys sign{}", keys.threshold, before.unwrap_or_default()));
        let is_old = |id: &Decoded<Hex>| old.is_some_and(|old| old.keyids.contains(id));
        for id in &keys.keyids {
            let yours = if mine.contains(id) { ", yours" } else { "" };
            lines.push(format!("  {}{}{yours}", HEXLOWER.encode(id), if is_old(id) { "" } else { ", new" }));
        }
        let gone = old.into_iter().flat_map(|old| &old.keyids).filter(|id| !keys.keyids.contains(id));
        lines.extend(gone.map(|id| format!("  {}, gone", HEXLOWER.encode(id))));
    }
    lines
}

/// All values of a file of a channel, by their paths; `None` when the file is another channel's.
fn fields(trust: &Anchor, name: &str, sealed: &[u8]) -> Result<Option<BTreeMap<String, String>>> {
    let package = parse_target(name).filter(|(channel, ..)| *channel == trust.channel);
    if package.is_none() && name != target_of_channel(&trust.channel) {
        return Ok(None);
    }
    let damaged = |reason: String| ReleaseError::Damaged { object: name.to_owned(), reason };
    let bytes = trust.channel_key.open(name, sealed);
    let bytes = bytes.ok_or_else(|| damaged("it was not sealed with the key of its channel".to_owned()))?;
    let value = match package {
        Some((_, package, version)) => serde_json::to_value(Package::parse(&bytes, package, &version)?),
        None => serde_json::to_value(Channel::parse(&bytes, &trust.channel)?),
    };
    let mut all = BTreeMap::new();
    flatten("", &value.map_err(|error| damaged(error.to_string()))?, &mut all);
    Ok(Some(all))
}

/// Puts a value's parts in by their paths. Keys of content are secret, and follow from the content.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(parts) if !parts.is_empty() => {
            for (name, part) in parts.iter().filter(|(name, _)| *name != "chunks") {
                let dot = if path.is_empty() { "" } else { "." };
                flatten(&format!("{path}{dot}{}", label(name, "_-")), part, into);
            }
        }
        Value::Array(parts) if !parts.is_empty() => {
            let mut known = BTreeSet::new();
            for (number, part) in parts.iter().enumerate() {
                // Offers and files keep their paths when there are others before them.
                let named = ["version", "path"].into_iter().find_map(|field| part[field].as_str());
                let named = named.filter(|name| known.insert(*name)).map(|name| label(name, "_-./+"));
                flatten(&format!("{path}[{}]", named.unwrap_or_else(|| number.to_string())), part, into);
            }
        }
        value => {
            into.insert(path.to_owned(), value.to_string());
        }
    }
}

/// A part of a path, quoted where it could be taken for several.
fn label(name: &str, plain: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || plain.contains(letter);
    if name.chars().all(is_plain) { name.to_owned() } else { format!("{name:?}") }
}
