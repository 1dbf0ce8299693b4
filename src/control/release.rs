//! How requests about releases end, for both doors.

use serde_json::json;

use super::failure::{Exit, Failure};
use super::reply::Reply;
use crate::apps::release::{self, ReleaseError, Standing};

/// The reply to what was done.
pub fn answer(reply: &release::Reply) -> Reply {
    match reply {
        release::Reply::Said(text) => Reply::done(text.clone(), json!({})),
        release::Reply::Signing(signing) => {
            let carry = if signing.complete { "`complete` does it" } else { "it is to be carried to who signs next" };
            Reply::done(format!("{} has {}; {carry}", signing.what, signing.signatures.join(" and ")), signing)
        }
        release::Reply::Decisions(decisions) => {
            let count = decisions.iter().filter(|decision| decision.install).count();
            Reply::done(format!("{count} of {} versions can be installed", decisions.len()), decisions)
        }
        release::Reply::Plan(plan) => {
            let parts: Vec<String> = plan.install.iter().map(|(name, _, now)| format!("{name} {now}")).collect();
            let text = match parts.is_empty() {
                true => "nothing would be installed".to_owned(),
                false => format!("would be installed: {} ({} bytes)", parts.join(", "), plan.bytes),
            };
            Reply::done(text, plan)
        }
        release::Reply::Done(done) => Reply::done(told(done), done),
        release::Reply::Checks(checks) => match checks.iter().filter(|check| !check.ok).count() {
            0 => Reply::done(format!("{} checks passed", checks.len()), checks),
            failed => Reply::with(Exit::Other, format!("{failed} of {} checks failed", checks.len()), checks),
        },
        release::Reply::Standings(standings) => {
            Reply::done(format!("{} versions are offered", standings.len()), standings)
        }
        release::Reply::Removed(removed) => Reply::done(format!("{} removed", removed.len()), removed),
        release::Reply::Listed(listed) => {
            let drift: usize = listed.iter().map(|one| one.drift.len()).sum();
            match drift {
                0 => Reply::done(format!("{} packages are as they were installed", listed.len()), listed),
                _ => Reply::partly(format!("{drift} paths are not as they were installed"), listed),
            }
        }
        release::Reply::History { installed, events } => {
            Reply::done(format!("{} packages, {} events", installed.len(), events.len()), reply)
        }
    }
}

fn told(done: &release::Done) -> String {
    let from = |from: &Option<String>| from.as_ref().map(|from| format!("{from} -> ")).unwrap_or_default();
    let mut parts: Vec<String> =
        done.installed.iter().map(|(name, before, now)| format!("{name} {}{now}", from(before))).collect();
    parts.extend(done.taken_back.iter().map(|name| format!("{name} taken back")));
    parts.extend(done.sidecars.iter().map(|path| format!("{path} lies beside a file that stays")));
    if parts.is_empty() { "everything is as it should be".to_owned() } else { parts.join("; ") }
}

/// How rollouts go, in the text format of Prometheus.
pub fn release_metrics(standings: &[Standing]) -> String {
    type Value = fn(&Standing) -> f64;
    let families: [(&str, &str, Value); 9] = [
        ("installed", "clients that have the version", |one| f64::from(one.totals.installed)),
        ("failed", "clients whose install failed its checks", |one| f64::from(one.totals.failed)),
        ("rolled_back", "clients that went back", |one| f64::from(one.totals.rolled_back)),
        ("share", "the share of clients that it is offered to", |one| f64::from(one.bps) / 10_000.0),
        ("success_rate", "the share of installs that went well", |one| one.success_rate),
        ("rollback_rate", "the share of installs that were taken back", |one| one.rollback_rate),
        ("paused", "whether nobody gets it for now", |one| f64::from(u8::from(one.paused))),
        ("alerts", "limits that it exceeds", |one| u32::try_from(one.alerts.len()).map_or(f64::MAX, f64::from)),
        ("install_seconds", "the mean time of an install", |one| {
            std::time::Duration::from_millis(one.totals.time_ms).as_secs_f64()
        }),
    ];
    let mut text = String::new();
    for (name, help, value) in families {
        text.push_str(&format!("# HELP kura_release_{name} {help}\n# TYPE kura_release_{name} gauge\n"));
        for one in standings {
            let Standing { channel, package, version, .. } = one;
            let labels = format!("channel=\"{channel}\",package=\"{package}\",version=\"{version}\"");
            text.push_str(&format!("kura_release_{name}{{{labels}}} {}\n", value(one)));
        }
    }
    text
}

impl From<ReleaseError> for Failure {
    fn from(error: ReleaseError) -> Self {
        let (exit, hint) = match error {
            ReleaseError::Workspace(error) => return error.into(),
            ReleaseError::Name { .. }
            | ReleaseError::NotNamed { .. }
            | ReleaseError::NoFile { .. }
            | ReleaseError::BadPackage { .. }
            | ReleaseError::Path { .. } => (Exit::Usage, None),
            ReleaseError::NoRepository => {
                (Exit::Usage, Some("`kura release follow` names a repository and a file of trust"))
            }
            ReleaseError::Untrusted { .. } | ReleaseError::Payload { .. } => {
                (Exit::Damaged, Some("nothing was installed; ask the publisher, by another way"))
            }
            ReleaseError::Repository { .. } => (Exit::Unreachable, Some("nothing was installed; try again")),
            ReleaseError::Unsolvable { .. } | ReleaseError::Withheld { .. } => {
                (Exit::Conflict, Some("`kura release check` says of every version why it is not installed"))
            }
            ReleaseError::Revoked { .. } => {
                (Exit::Conflict, Some("publish the same files as a new version: clients that had this one refuse it"))
            }
            ReleaseError::Conflicts { .. } => {
                (Exit::Conflict, Some("`--force` puts new files beside those that are in the way"))
            }
            ReleaseError::Needed { .. } => (Exit::Conflict, Some("roll back what needs it first")),
            ReleaseError::Reverted { .. } => (Exit::Other, Some("this version is not tried again here")),
            ReleaseError::Stays { .. } => {
                (Exit::Other, Some("`kura restore VERSION` brings an earlier state back; `kura log` lists them"))
            }
            ReleaseError::TooFew { .. } => (
                Exit::Denied,
                Some("`--to-sign FILE` writes what others sign by `kura release sign`, and `complete` brings it back"),
            ),
            ReleaseError::Stale { .. } => (Exit::Conflict, Some("ask for it again, and let it be signed anew")),
            ReleaseError::Cancelled => (Exit::Interrupted, None),
            ReleaseError::Missing { what: "content", .. } => (
                Exit::Other,
                Some("`cleanup` removes content that no offer needed for a week; ask again, and let it be signed anew"),
            ),
            ReleaseError::Missing { .. }
            | ReleaseError::NotInstalled { .. }
            | ReleaseError::Keys { .. }
            | ReleaseError::Disk { .. } => (Exit::Other, None),
            ReleaseError::Damaged { .. } => (Exit::Damaged, None),
        };
        Failure { exit, message: error.to_string(), hint: hint.map(str::to_owned) }
    }
}
