//! What publishers do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use semver::Version;
use tough::schema::{Signed, Targets};

use super::audit::{self, Line};
use super::channel::{Channel, EVERYBODY, Offer, Window};
use super::content;
use super::error::{ReleaseError, Result};
use super::pack::{FILES, pack};
use super::package::{PACKAGE_LEN_MAX, Package, feedback_prefix, target_of_channel, target_of_package};
use super::proposal::Files;
use super::repository::{self, Access, Repository};
use super::request::{Change, Rollout, Standing};
use super::rollout::{Feedback, Totals, Verdict, carry_out, judge};
use super::sign::{Expiry, Offered, SignedFile, Signer};
use crate::base::clock::Timestamp;
use crate::base::disk::DiskFile;
use crate::workspace::{Workspace, parse_integrity};

const FEEDBACK_LEN_MAX: u64 = 64 * 1024;
/// What is archived of a version: its description, and little more.
const ARCHIVED_LEN_MAX: u64 = 2 * PACKAGE_LEN_MAX;
/// Notes of users that a report shows.
const NOTES_MAX: usize = 20;
/// For so long content stays that no offer needs yet, in seconds: a week.
const SIGNED_WITHIN_S: i64 = 7 * 86_400;
/// Why a rollout was taken back by its own rules.
const ABORTED: &str = "too many installs failed";

/// A repository, with the keys that sign for it. Others with the same keys wait.
pub(super) struct Desk<'a> {
    repository: Arc<dyn Repository>,
    signer: Signer,
    workspace: &'a Workspace,
    /// Where what would be published is written instead, for others to sign.
    to_sign: Option<&'a Path>,
    _lock: Arc<dyn DiskFile>,
}

impl<'a> Desk<'a> {
    pub(super) fn open(workspace: &'a Workspace, address: &str, keys: &str, to_sign: Option<&'a Path>) -> Result<Self> {
        let signer = Signer::open(Path::new(keys), Expiry::default())?;
        let repository = repository::open(address, &Access::default(), &signer.store_key, workspace)?;
        let _lock = signer.lock()?;
        Ok(Self { repository, signer, workspace, to_sign, _lock })
    }

    fn now(&self) -> jiff::Timestamp {
        super::now(self.workspace)
    }

    /// What is offered, as these keys signed it.
    fn offered(&self) -> Result<Option<Offered>> {
        self.signer.offered(&*self.repository)
    }

    /// Reads a signed file of the newest offer and opens it with the key of its channel.
    fn target(&self, offered: &Offered, channel: &str, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(sealed) = self.signer.target(&*self.repository, offered, name)? else { return Ok(None) };
        let reason = format!("{name} was not sealed with the key of channel `{channel}`");
        let untrusted = || ReleaseError::Untrusted { repository: self.repository.address(), reason };
        self.signer.channel_key(channel)?.open(name, &sealed).map(Some).ok_or_else(untrusted)
    }

    fn channel(&self, name: &str) -> Result<Channel> {
        let target = target_of_channel(name);
        let bytes = match self.offered()? {
            Some(offered) => self.target(&offered, name, &target)?,
            None => None,
        };
        match bytes {
            Some(bytes) => Channel::parse(&bytes, name),
            None => Ok(Channel { name: name.to_owned(), ..Channel::default() }),
        }
    }

    fn package(&self, channel: &str, name: &str, version: &Version) -> Result<Option<Package>> {
        let Some(offered) = self.offered()? else { return Ok(None) };
        let bytes = self.target(&offered, channel, &target_of_package(channel, name, version))?;
        bytes.map(|bytes| Package::parse(&bytes, name, version)).transpose()
    }

    fn sealed(&self, channel: &str, name: String, value: &impl serde::Serialize) -> Result<SignedFile> {
        let sealed = self.signer.channel_key(channel)?.seal(&name, &json(value)?);
        Ok((name, Some(sealed.into_bytes())))
    }

    fn publish(&self, channel: &Channel, mut files: Vec<SignedFile>) -> Result<()> {
        let bytes = json(channel)?;
        Channel::parse(&bytes, &channel.name)?;
        files.push(self.sealed(&channel.name, target_of_channel(&channel.name), channel)?);
        match self.to_sign {
            Some(path) => self.signer.propose(&*self.repository, &files, self.now())?.create(path),
            None => self.signer.publish(&*self.repository, &files, self.now()),
        }
    }

    /// Publishes an offer that was signed elsewhere, if all that it names is there; how it differs from the one before.
    pub(super) fn complete(&self, targets: &Signed<Targets>, files: &Files) -> Result<Vec<Line>> {
        self.signer.check_files(&*self.repository, targets, files)?;
        let known: BTreeSet<String> = self.repository.list("content/")?.into_iter().collect();
        let mut lines = Vec::new();
        let open = |channel: &str, name: &str, sealed: &[u8]| {
            let reason = "it was not sealed with the key of its channel".to_owned();
            let damaged = || ReleaseError::Damaged { object: name.to_owned(), reason };
            self.signer.channel_key(channel)?.open(name, sealed).ok_or_else(damaged)
        };
        for (name, sealed) in files {
            if let Some(channel) = name.strip_prefix("channel.") {
                let now = Channel::parse(&open(channel, name, sealed)?, channel)?;
                lines.extend(audit::lines(&self.channel(channel)?, &now));
            }
            let Some((channel, package, version)) = parse_target(name) else { continue };
            let bytes = open(channel, name, sealed)?;
            let package = Package::parse(&bytes, package, &version)?;
            if let Some(missing) = content::names(&package).find(|name| !known.contains(name)) {
                return Err(ReleaseError::Missing { what: "content", name: missing });
            }
        }
        self.signer.finish(&*self.repository, targets, files, self.now())?;
        Ok(lines)
    }

    /// Signs a package and offers it.
    pub(super) fn add(&self, dir: &str, channel: &str, rollout: &Rollout) -> Result<Package> {
        let mut package = pack(dir)?;
        let mut listed = self.channel(channel)?;
        self.check_not_revoked(&listed, &package.name, &package.version)?;
        let differs = |mut old: Package| {
            old.files.iter_mut().for_each(|file| file.chunks.clear());
            old != package
        };
        if self.package(channel, &package.name, &package.version)?.is_some_and(differs) {
            let problems = vec!["this version was published before, with other content; give it a new one".to_owned()];
            let package = format!("{} {}", package.name, package.version);
            return Err(ReleaseError::BadPackage { package, problems });
        }
        let content_key = self.signer.content_key()?;
        let mut known = self.repository.list("content/")?.into_iter().collect();
        for file in &mut package.files {
            let Some(digest) = parse_integrity(&file.integrity) else { continue };
            let (path, key) = (Path::new(dir).join(FILES).join(&file.path), &content_key);
            file.chunks = content::put(&*self.repository, key, &path, &digest, &mut known)?;
        }
        offer(&mut listed, &package.name, &package.version, rollout, &self.now().to_string())?;
        let target = target_of_package(channel, &package.name, &package.version);
        self.publish(&listed, vec![self.sealed(channel, target, &package)?])?;
        Ok(package)
    }

    /// Offers a version of one channel in another.
    pub(super) fn promote(&self, name: &str, version: &Version, from: &str, to: &str, rollout: &Rollout) -> Result<()> {
        let missing = || ReleaseError::Missing { what: "offer", name: format!("{name} {version} in {from}") };
        let source = self.channel(from)?;
        source.offer(name, version).ok_or_else(missing)?;
        self.check_not_revoked(&source, name, version)?;
        let package = self.package(from, name, version)?.ok_or_else(missing)?;
        let mut listed = self.channel(to)?;
        self.check_not_revoked(&listed, name, version)?;
        offer(&mut listed, name, version, rollout, &self.now().to_string())?;
        self.publish(&listed, vec![self.sealed(to, target_of_package(to, name, version), &package)?])
    }

    /// That a channel did not take a version back, also one that was cleaned up since.
    fn check_not_revoked(&self, channel: &Channel, name: &str, version: &Version) -> Result<()> {
        let revoked = match channel.offer(name, version) {
            Some(offer) => offer.revoked.clone(),
            None => self.archived(&channel.name, name, version)?.and_then(|offer| offer.revoked),
        };
        let Some(why) = revoked else { return Ok(()) };
        let (package, version, channel) = (name.to_owned(), version.to_string(), channel.name.clone());
        Err(ReleaseError::Revoked { package, version, channel, why })
    }

    /// The offer of a version that was cleaned up.
    fn archived(&self, channel: &str, package: &str, version: &Version) -> Result<Option<Offer>> {
        let name = archive_name(channel, package, version);
        let Some(sealed) = self.repository.get(&name, ARCHIVED_LEN_MAX)? else { return Ok(None) };
        let bytes = self.signer.channel_key(channel)?.open(&name, &sealed);
        let bytes = bytes.ok_or_else(|| damaged(&name, "it was not sealed with the key of its channel"))?;
        Ok(Some(Archived::parse(&bytes, &name)?.offer))
    }

    /// Changes the rollout of a version.
    pub(super) fn change(&self, name: &str, version: &Version, channel: &str, change: &Change) -> Result<()> {
        let mut listed = self.channel(channel)?;
        let missing = || ReleaseError::Missing { what: "offer", name: format!("{name} {version} in {channel}") };
        let offers = listed.packages.get_mut(name);
        let offer = offers.and_then(|offers| offers.iter_mut().find(|offer| offer.version == *version));
        let offer = offer.ok_or_else(missing)?;
        match change {
            Change::Bps(bps) => offer.bps = (*bps).min(EVERYBODY),
            Change::Pause => offer.paused = true,
            Change::Resume => offer.paused = false,
            Change::Emergency => offer.emergency = true,
            Change::Revoke(why) => {
                offer.bps = 0;
                offer.revoked = Some(why.clone());
            }
        }
        offer.since = self.now().to_string();
        self.publish(&listed, Vec::new())
    }

    /// Sets what concerns a channel as a whole; with nothing to set, renews the signatures of a channel that is there:
    /// only those that say what is newest, unless the others do not count for as long. Until when these count.
    pub(super) fn set(
        &self,
        channel: &str,
        windows: Option<&[Window]>,
        min_epoch: &BTreeMap<String, u32>,
    ) -> Result<jiff::Timestamp> {
        if windows.is_none() && min_epoch.is_empty() && self.to_sign.is_none() {
            let renewed = self.signer.renew(&*self.repository, &target_of_channel(channel), self.now())?;
            if let Some(expires) = renewed {
                return Ok(expires);
            }
        }
        let mut listed = self.channel(channel)?;
        if let Some(windows) = windows {
            listed.windows = windows.to_vec();
        }
        listed.min_epoch.extend(min_epoch.clone());
        self.publish(&listed, Vec::new())?;
        Ok(self.signer.offer_until(self.now()))
    }

    /// Judges all rollouts of a channel, and (with `act`) carries the verdicts out.
    pub(super) fn judge(&self, channel: &str, act: bool) -> Result<Vec<Standing>> {
        let mut listed = self.channel(channel)?;
        let (mut found, mut changed) = (Vec::<Standing>::new(), false);
        let now = self.workspace.now();
        for (package, offers) in &mut listed.packages {
            let mut before = None;
            for offer in offers {
                let reports = self.feedback(channel, package, &offer.version)?;
                let totals = Totals::of(&reports);
                let verdict = if offer.revoked.is_some() { Verdict::Hold } else { judge(offer, &totals, now) };
                if act && matches!(verdict, Verdict::Advance | Verdict::Abort) {
                    carry_out(offer, verdict, &self.now().to_string(), ABORTED);
                    changed = true;
                }
                let rate = totals.success_rate();
                found.push(Standing {
                    channel: channel.to_owned(),
                    package: package.clone(),
                    version: offer.version.to_string(),
                    bps: offer.bps,
                    paused: offer.paused,
                    revoked: offer.revoked.clone(),
                    success_rate: rate,
                    rollback_rate: totals.rollback_rate(),
                    trend: before.map(|before| rate - before),
                    alerts: Vec::new(),
                    notes: reports.into_iter().filter_map(|report| report.note).take(NOTES_MAX).collect(),
                    totals,
                    verdict,
                });
                if totals.samples() > 0 {
                    before = Some(rate);
                }
            }
        }
        if changed {
            self.publish(&listed, Vec::new())?;
        }
        Ok(found)
    }

    fn feedback(&self, channel: &str, package: &str, version: &Version) -> Result<Vec<Feedback>> {
        let (mut reports, key) = (Vec::new(), self.signer.channel_key(channel)?);
        let prefix = feedback_prefix(channel, package, version);
        for name in self.repository.list(&prefix)? {
            let Some(sealed) = self.repository.get(&name, FEEDBACK_LEN_MAX)? else { continue };
            let report = key.open(&name, &sealed).and_then(|bytes| serde_json::from_slice::<Feedback>(&bytes).ok());
            // Only a client's own report, so that one client counts once.
            match report.filter(|report| name.strip_prefix(&prefix) == Some(report.client.as_str())) {
                Some(report) => reports.push(report),
                None => tracing::warn!("{name} is no report of a client of this channel"),
            }
        }
        Ok(reports)
    }

    /// Takes versions out of a channel that `keep` newer ones have followed, unless a rollout of them is under way;
    /// they are archived. Then removes from the repository what no offer needs. What was removed, or would be.
    pub(super) fn clean_up(&self, channel: &str, keep: usize, dry_run: bool) -> Result<Vec<String>> {
        let mut listed = self.channel(channel)?;
        let (mut removed, mut files, mut freed) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (package, offers) in &mut listed.packages {
            let old = offers.len().saturating_sub(keep.max(1));
            let is_over = |offer: &Offer| offer.revoked.is_some() || offer.bps == 0 || offer.bps >= EVERYBODY;
            let gone: Vec<Offer> = offers.iter().take(old).filter(|offer| is_over(offer)).cloned().collect();
            offers.retain(|offer| !gone.contains(offer));
            for offer in gone {
                let target = target_of_package(channel, package, &offer.version);
                freed.extend(self.package(channel, package, &offer.version)?.iter().flat_map(content::names));
                if !dry_run {
                    self.archive(channel, package, &offer)?;
                }
                removed.push(format!("{package} {}", offer.version));
                files.push((target, None));
            }
        }
        let gone: BTreeSet<String> = files.iter().map(|(target, _): &SignedFile| target.clone()).collect();
        if !dry_run && !files.is_empty() {
            self.publish(&listed, files)?;
        }
        // What others have yet to sign is still needed.
        if self.to_sign.is_none() {
            removed.extend(self.sweep(&gone, &freed, dry_run)?);
        }
        Ok(removed)
    }

    /// Keeps what was known of a version, and how it went.
    fn archive(&self, channel: &str, package: &str, offer: &Offer) -> Result<()> {
        let reports = self.feedback(channel, package, &offer.version)?;
        let name = archive_name(channel, package, &offer.version);
        let value = serde_json::json!({
            "package": self.package(channel, package, &offer.version)?, "offer": offer, "totals": Totals::of(&reports),
            "archived": self.now().to_string(),
        });
        self.repository.put(&name, self.signer.channel_key(channel)?.seal(&name, &json(&value)?).as_bytes())?;
        Ok(())
    }

    /// Removes what no offer needs, but for those that are gone: content, signed files and metadata of earlier offers,
    /// and reports of archived ones. New content that is not `freed` by what is gone stays: an offer that others are
    /// signing may need it. What is removed, or would be.
    fn sweep(&self, gone: &BTreeSet<String>, freed: &BTreeSet<String>, dry_run: bool) -> Result<Vec<String>> {
        let Some(offered) = self.offered()? else { return Ok(Vec::new()) };
        let needed: BTreeSet<String> = offered.files().into_iter().collect();
        let offers: BTreeSet<&str> = offered.names().into_iter().filter(|name| !gone.contains(*name)).collect();
        let mut contents = BTreeSet::new();
        for target in &offers {
            let Some((channel, name, version)) = parse_target(target) else { continue };
            let package = self.package(channel, name, &version)?;
            contents.extend(package.iter().flat_map(content::names));
        }
        let is_gone = |name: &str| name.split_once('.').is_some_and(|(_, target)| gone.contains(target));
        let stays = |name: &String| {
            let is_needed = needed.contains(name) && !is_gone(name);
            is_needed || name.ends_with(".root.json") || name == "metadata/timestamp.json"
        };
        let is_over = |name: &String| reported(name).is_some_and(|target| !offers.contains(target.as_str()));
        let mut names = self.repository.list("targets/")?;
        names.extend(self.repository.list("metadata/")?);
        names.retain(|name| !stays(name));
        let (seconds, nanoseconds) = self.workspace.now().parts();
        let since = Timestamp::from_parts(seconds.saturating_sub(SIGNED_WITHIN_S), nanoseconds);
        let new: BTreeSet<String> = self.repository.list_since("content/", since)?.into_iter().collect();
        let may_go = |name: &String| !contents.contains(name) && (freed.contains(name) || !new.contains(name));
        names.extend(self.repository.list("content/")?.into_iter().filter(may_go));
        names.extend(self.repository.list("feedback/")?.into_iter().filter(is_over));
        if !dry_run {
            names.iter().try_for_each(|name| self.repository.remove(name))?;
        }
        Ok(names)
    }
}

fn damaged(object: &str, reason: impl ToString) -> ReleaseError {
    ReleaseError::Damaged { object: object.to_owned(), reason: reason.to_string() }
}

/// What is kept of a version that was cleaned up, as far as it is read.
#[derive(serde::Deserialize)]
pub(super) struct Archived {
    offer: Offer,
}

impl Archived {
    pub(super) fn parse(bytes: &[u8], name: &str) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| damaged(name, error))
    }
}

fn archive_name(channel: &str, package: &str, version: &Version) -> String {
    format!("archive/{channel}.{package}.{version}")
}

/// The name of the signed package that a report is about.
fn reported(name: &str) -> Option<String> {
    let (about, _client) = name.strip_prefix("feedback/")?.rsplit_once('.')?;
    Some(format!("package.{about}"))
}

/// Channel, package and version of the name of a signed package.
pub(super) fn parse_target(target: &str) -> Option<(&str, &str, Version)> {
    let mut parts = target.strip_prefix("package.")?.splitn(3, '.');
    let (channel, name, version) = (parts.next()?, parts.next()?, parts.next()?);
    Some((channel, name, version.parse().ok()?))
}

fn offer(channel: &mut Channel, package: &str, version: &Version, rollout: &Rollout, now: &str) -> Result<()> {
    for ring in &rollout.rings {
        super::package::check_name("ring", ring)?;
    }
    let offers = channel.packages.entry(package.to_owned()).or_default();
    offers.retain(|offer| offer.version != *version);
    offers.push(Offer {
        version: version.clone(),
        bps: rollout.bps.min(EVERYBODY),
        rings: rollout.rings.clone(),
        paused: false,
        emergency: rollout.emergency,
        revoked: None,
        steps: rollout.steps.clone(),
        since: now.to_owned(),
    });
    offers.sort_by(|a, b| a.version.cmp(&b.version));
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| ReleaseError::Damaged { object: "what is to be signed".to_owned(), reason: error.to_string() })
}
