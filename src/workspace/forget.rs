//! Forgetting versions: by rules given now, or by the policy that is kept in the refs.

use std::collections::HashSet;

use jiff::tz::TimeZone;

use super::Result;
use super::opened::Workspace;
use crate::base::ids::VersionId;
use crate::version::pages::Pages;
use crate::version::refs::{self, Listed};
use crate::version::retention::{Retention, Verdict};
use crate::version::tree::Edits;

/// What a retention policy does to the list of versions, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgetReport {
    /// What stays, and why.
    pub kept: Vec<(Listed, Verdict)>,
    /// What leaves the list, or would.
    pub forgotten: Vec<Listed>,
}

impl Workspace {
    /// Takes the versions that `policy` does not keep from the list; with `dry_run`, only says which these are. What
    /// they hold stays in the store until it is collected. The newest version, the one that the live tree rests on and
    /// those with names stay in any case.
    pub fn forget(&self, policy: &Retention, dry_run: bool) -> Result<ForgetReport> {
        if !dry_run {
            self.check_writable()?;
        }
        let _history = self.history.lock();
        let versions = self.versions()?;
        let verdicts = policy.judge(&versions, &TimeZone::system());
        let needed: HashSet<VersionId> = self.needed_versions();
        let mut report = ForgetReport { kept: Vec::new(), forgotten: Vec::new() };
        for (version, verdict) in versions.into_iter().zip(verdicts) {
            match verdict.reasons.is_empty() && !needed.contains(&version.id) {
                true => report.forgotten.push(version),
                false => report.kept.push((version, verdict)),
            }
        }
        if !dry_run && !report.forgotten.is_empty() {
            self.forget_listed(&report.forgotten)?;
        }
        Ok(report)
    }

    /// Takes these versions from the list.
    pub(super) fn forget_listed(&self, versions: &[Listed]) -> Result<()> {
        let mut edits = Edits::new();
        versions.iter().for_each(|version| refs::forget_version(&mut edits, version));
        self.tree().edit_refs(&edits)?;
        self.background.publish_now();
        Ok(())
    }

    /// What the live tree rests on, and what HEAD was last seen to name.
    fn needed_versions(&self) -> HashSet<VersionId> {
        let seen = self.parts.memory.get().seen.map(|seen| seen.version);
        seen.into_iter().chain([self.tree().base().index.id]).collect()
    }

    /// The retention policy of this workspace.
    pub fn retention(&self) -> Result<Option<Retention>> {
        Ok(refs::retention(&self.tree().base().refs, &Pages(&self.parts.blobs))?)
    }

    /// Sets the retention policy of this workspace, or (`None`) takes it away. Whoever maintains it applies it.
    pub fn set_retention(&self, policy: Option<&Retention>) -> Result<()> {
        self.check_writable()?;
        let _history = self.history.lock();
        let mut edits = Edits::new();
        refs::set_retention(&mut edits, policy);
        self.tree().edit_refs(&edits)?;
        self.background.publish_now();
        Ok(())
    }
}
