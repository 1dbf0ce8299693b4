//! Forgetting versions and collecting garbage.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::failure::{Exit, Failure};
use super::reply::{Reply, VersionInfo};
use crate::sync::{CollectOptions, CollectReport};
use crate::version::retention::{Keep, Retention};
use crate::workspace::{ForgetReport, Workspace};

/// Which versions are kept; rules that are missing keep nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeepRules {
    /// The newest so many.
    #[serde(skip_serializing_if = "is_zero")]
    pub last: u32,
    /// The newest of each of so many hours that have versions.
    #[serde(skip_serializing_if = "is_zero")]
    pub hourly: u32,
    /// The newest of each of so many days.
    #[serde(skip_serializing_if = "is_zero")]
    pub daily: u32,
    /// The newest of each of so many weeks.
    #[serde(skip_serializing_if = "is_zero")]
    pub weekly: u32,
    /// The newest of each of so many months.
    #[serde(skip_serializing_if = "is_zero")]
    pub monthly: u32,
    /// The newest of each of so many years.
    #[serde(skip_serializing_if = "is_zero")]
    pub yearly: u32,
    /// All that are at most so many seconds older than the newest.
    pub within_s: u64,
    /// All with one of these names.
    pub tags: Vec<String>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl From<&KeepRules> for Retention {
    fn from(rules: &KeepRules) -> Self {
        let KeepRules { last, hourly, daily, weekly, monthly, yearly, within_s, tags } = rules.clone();
        Retention { last, hourly, daily, weekly, monthly, yearly, within_s, tags }
    }
}

impl From<Retention> for KeepRules {
    fn from(policy: Retention) -> Self {
        let Retention { last, hourly, daily, weekly, monthly, yearly, within_s, tags } = policy;
        Self { last, hourly, daily, weekly, monthly, yearly, within_s, tags }
    }
}

/// What `forget` does with its rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForgetMode {
    /// Forgets what the rules (or, without any, the policy of the workspace) do not keep.
    #[default]
    Apply,
    /// Only says what that would be.
    DryRun,
    /// Makes the rules the policy of the workspace; without any, takes the policy away.
    SetPolicy,
}

pub(super) fn forget(workspace: &Workspace, rules: &KeepRules, mode: ForgetMode) -> Result<Reply, Failure> {
    let given = Retention::from(rules);
    if mode == ForgetMode::SetPolicy {
        let policy = (!given.is_empty()).then_some(&given);
        workspace.set_retention(policy)?;
        let text = match policy {
            Some(_) => "the policy is kept in the workspace; maintaining mounts apply it, and so does `kura forget`",
            None => "the workspace has no policy any more",
        };
        return Ok(Reply::done(text, json!({ "policy": policy.map(|_| rules) })));
    }
    let policy = match given.is_empty() {
        false => given,
        true => workspace.retention()?.ok_or_else(|| {
            let message = "no rule says what to keep, and the workspace has no policy";
            Failure::new(Exit::Usage, message).hint("give rules such as --keep-last 10 --keep-daily 30")
        })?,
    };
    let is_dry = mode == ForgetMode::DryRun;
    Ok(forgotten(&workspace.forget(&policy, is_dry)?, is_dry))
}

fn forgotten(report: &ForgetReport, is_dry: bool) -> Reply {
    let kept: Vec<Value> = report
        .kept
        .iter()
        .map(|(version, verdict)| {
            let reasons: Vec<&str> = verdict.reasons.iter().copied().map(Keep::word).collect();
            json!({ "version": VersionInfo::of(version), "reasons": reasons })
        })
        .collect();
    let gone: Vec<VersionInfo> = report.forgotten.iter().map(VersionInfo::of).collect();
    let verb = if is_dry { "would be forgotten" } else { "are forgotten" };
    let message = format!("{} versions {verb}, {} are kept", gone.len(), kept.len());
    let reply = Reply::done(message, json!({ "kept": kept, "forgotten": gone, "dry_run": is_dry }));
    match report.forgotten.is_empty() || is_dry {
        true => reply,
        false => Reply { hint: Some("`kura gc --delete` frees what only they held".to_owned()), ..reply },
    }
}

pub(super) fn gc(workspace: &Workspace, delete: bool, grace_ms: Option<u64>) -> Result<Reply, Failure> {
    let usual = CollectOptions::default();
    let options = CollectOptions { delete, grace_ms: grace_ms.unwrap_or(usual.grace_ms), ..usual };
    let refused = |error| {
        let failure = Failure::from(error);
        match failure.exit {
            Exit::Denied => failure.hint("collecting takes the role maintainer: `kura iam --role maintainer`"),
            _ => failure,
        }
    };
    Ok(collected(&workspace.collect(options, &|| false).map_err(refused)?, delete))
}

fn collected(report: &CollectReport, delete: bool) -> Reply {
    let found = &report.found;
    let waiting = report.waiting.map(|waits| {
        let (seconds, _) = waits.until.parts();
        let until = jiff::Timestamp::new(seconds, 0).unwrap_or_default().to_string();
        (waits.names, until)
    });
    let data = json!({
        "versions": report.versions, "objects": found.objects, "bytes": found.bytes, "blobs": found.blobs,
        "dead_objects": found.dead_objects, "dead_bytes": found.dead_bytes,
        "sparse_packs": found.sparse_packs, "sparse_bytes": found.sparse_bytes, "partial": found.is_partial,
        "sealed": report.sealed, "rewritten_packs": report.rewritten_packs, "deleted": report.deleted,
        "waiting": waiting.as_ref().map(|(names, until)| json!({ "names": names, "until": until })),
    });
    let mut lines = Vec::new();
    if report.versions > 0 {
        lines.push(format!(
            "{} versions need {} blobs; the store has {} objects, {} bytes",
            report.versions, found.blobs, found.objects, found.bytes
        ));
        let more = if found.is_partial { "at least " } else { "" };
        lines.push(format!(
            "nobody needs {more}{} objects, {} bytes, and {} bytes in {} packs that are mostly dead",
            found.dead_objects, found.dead_bytes, found.sparse_bytes, found.sparse_packs
        ));
    }
    if report.deleted > 0 {
        lines.push(format!("{} objects are deleted", report.deleted));
    }
    if let Some((names, until)) = &waiting {
        lines.push(format!("{names} objects exist no more for any version, and may be deleted from {until} on"));
    }
    if delete && report.deleted == 0 && waiting.is_none() {
        lines.push("nothing is worth collecting".to_owned());
    }
    let reply = Reply::done(lines.join("\n"), data);
    let hint = match (delete, &waiting) {
        (true, Some(_)) => "run `kura gc --delete` again then, or with a shorter --grace",
        (false, _) if found.dead_objects + found.sparse_packs > 0 => "`kura gc --delete` frees it",
        _ => return reply,
    };
    Reply { hint: Some(hint.to_owned()), ..reply }
}
