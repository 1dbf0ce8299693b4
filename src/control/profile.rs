//! Requests about profiles.

use serde_json::json;

use super::failure::{Exit, Failure};
use super::reply::Reply;
use crate::apps::profile::{self, ProfileError, Request};
use crate::workspace::Workspace;

/// Runs a request about profiles.
pub fn profile_done(workspace: &Workspace, request: &Request) -> Reply {
    match profile::run(workspace, request) {
        Ok(reply) => answer(&reply),
        Err(error) => {
            let data = match &error {
                ProfileError::Conflicts { conflicts } => json!({ "conflicts": conflicts }),
                _ => serde_json::Value::Null,
            };
            Reply { data, ..Failure::from(error).into() }
        }
    }
}

fn answer(reply: &profile::Reply) -> Reply {
    match reply {
        profile::Reply::Outcome(outcome) => {
            let (exit, message) = told(outcome);
            Reply::with(exit, message, outcome)
        }
        profile::Reply::List(installed) => Reply::done(format!("{} profiles", installed.len()), installed),
        profile::Reply::Verified(verified) => {
            let drift: usize = verified.iter().map(|verified| verified.drift.len()).sum();
            match drift {
                0 => Reply::done(format!("{} profiles are as they were installed", verified.len()), verified),
                _ => Reply::partly(format!("{drift} paths are not as they were installed"), verified),
            }
        }
    }
}

fn told(outcome: &profile::Outcome) -> (Exit, String) {
    let name = &outcome.name;
    let count = |action: &str| outcome.files.iter().filter(|file| file.action == action).count();
    let (sidecars, orphans) = (count("sidecar"), count("orphan"));
    let recorded = outcome.version.as_ref().map(|version| format!("; recorded as version {version}"));
    let recorded = recorded.unwrap_or_default();
    if !outcome.conflicts.is_empty() {
        return (Exit::Conflict, format!("{} files stand in the way of profile {name}", outcome.conflicts.len()));
    }
    if !outcome.changed {
        return (Exit::Ok, format!("profile {name} is as it should be; nothing was changed"));
    }
    let state = match &outcome.profile_version {
        Some(version) => format!("profile {name} {version}"),
        None => format!("profile {name}"),
    };
    let stored = count("install") + count("replace");
    let removed = count("remove");
    let mut text = format!("{state}: {stored} files stored, {removed} removed{recorded}");
    if sidecars > 0 {
        text.push_str(&format!("; {sidecars} lie beside files that stay, see `kura profile resolve`"));
    }
    if orphans > 0 {
        text.push_str(&format!("; {orphans} were changed and stay"));
    }
    (if sidecars + orphans > 0 { Exit::Partial } else { Exit::Ok }, text)
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        let (exit, hint) = match error {
            ProfileError::Workspace { phase, source } => {
                let failure = Failure::from(source);
                return Failure { message: format!("{phase}: {}", failure.message), ..failure };
            }
            ProfileError::Name { .. } | ProfileError::Path { .. } | ProfileError::BadManifest { .. } => {
                (Exit::Usage, None)
            }
            ProfileError::NoManifest { .. } => {
                (Exit::Usage, Some("`--from` takes the directory that holds one directory for each profile"))
            }
            ProfileError::Source { .. } | ProfileError::Clock | ProfileError::NoEarlier { .. } => (Exit::Other, None),
            ProfileError::BadLock { .. } => {
                (Exit::Damaged, Some("bring an earlier state back: `kura restore VERSION profiles.lock.json`"))
            }
            ProfileError::NewerLock { .. } => (Exit::Other, Some("install a newer kura")),
            ProfileError::AlreadyInstalled { .. } => {
                (Exit::Conflict, Some("`kura profile upgrade` brings it up to date"))
            }
            ProfileError::NotInstalled { .. } | ProfileError::NothingToResolve { .. } => {
                (Exit::Other, Some("`kura profile list` shows what is installed"))
            }
            ProfileError::Conflicts { .. } => {
                (Exit::Conflict, Some("`--force` puts new files beside those that are in the way"))
            }
            ProfileError::Frozen { .. } => (Exit::Conflict, Some("leave out `--frozen` to change the lock file")),
        };
        Failure { exit, message: error.to_string(), hint: hint.map(str::to_owned) }
    }
}
