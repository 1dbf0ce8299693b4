//! Requests about conflicts.

use serde_json::json;

use super::failure::{Exit, Failure};
use super::path::PathText;
use super::reply::Reply;
use super::run::clean;
use crate::version::merge::Policy;
use crate::workspace::{Beside, Take, Workspace};

pub(super) fn sync(workspace: &Workspace) -> Result<Reply, Failure> {
    let has_joined = workspace.sync()?;
    let message = if has_joined { "took in what others published" } else { "nothing new from others" };
    Ok(Reply::done(message, json!({ "joined": has_joined })))
}

/// The conflicts of a workspace as text: a line for each file that lies beside another, none when there are none.
pub fn conflicts_text(workspace: &Workspace) -> crate::workspace::Result<String> {
    Ok(workspace.conflicts()?.iter().map(|conflict| line(conflict) + "\n").collect())
}

pub(super) fn conflicts(workspace: &Workspace) -> Result<Reply, Failure> {
    let found = workspace.conflicts()?;
    let lines: Vec<String> = found.iter().map(line).collect();
    let message = if lines.is_empty() { "no conflicts".to_owned() } else { lines.join("\n") };
    Ok(Reply::done(message, listed(&found)))
}

pub(super) fn resolve(workspace: &Workspace, path: &[u8], take: &str) -> Result<Reply, Failure> {
    let settled = workspace.resolve(path, taken(take)?)?;
    if settled.is_empty() {
        return Err(no_conflict(path));
    }
    Ok(Reply::done(format!("settled {} conflicts", settled.len()), listed(&settled)))
}

fn taken(take: &str) -> Result<Take, Failure> {
    match take {
        "ours" => Ok(Take::Ours),
        "theirs" => Ok(Take::Theirs),
        "both" => Ok(Take::Both),
        "merge" => Ok(Take::Merge),
        other => {
            let message = format!("`{other}` cannot be taken");
            Err(Failure::new(Exit::Usage, message).hint("take ours, theirs, both or merge"))
        }
    }
}

fn no_conflict(path: &[u8]) -> Failure {
    let message = format!("`{}` has no conflict", PathText::from(path));
    Failure::new(Exit::Other, message).hint("`kura conflicts` lists them")
}

/// Refuses what [`resolve`] would refuse.
pub(super) fn check_conflict(workspace: &Workspace, path: &PathText, take: &str) -> Result<(), Failure> {
    taken(take)?;
    let path = clean(path)?;
    let has_conflict = workspace.conflicts()?.iter().any(|found| found.path == path || found.beside == path);
    if has_conflict { Ok(()) } else { Err(no_conflict(&path)) }
}

/// The policy of a word; `None` for the one that takes a policy away, and without a word.
pub(super) fn check_policy(word: Option<&str>) -> Result<Option<Policy>, Failure> {
    let Some(word) = word.filter(|word| *word != "default") else { return Ok(None) };
    Policy::from_word(word).map(Some).ok_or_else(|| {
        let words = Policy::ALL.map(Policy::word).join(", ");
        Failure::new(Exit::Usage, format!("`{word}` is no policy")).hint(format!("one of {words}, or default"))
    })
}

pub(super) fn policy(workspace: &Workspace, policy: Option<&str>, pattern: &str) -> Result<Reply, Failure> {
    let chosen = check_policy(policy)?;
    if policy.is_some() {
        workspace.set_policy(pattern.as_bytes(), chosen)?;
    }
    let policies = workspace.policies()?;
    let has_general = policies.iter().any(|(pattern, _)| pattern.is_empty());
    let general = (!has_general).then(|| (Vec::new(), Policy::default()));
    let shown: Vec<(String, &str)> = general
        .into_iter()
        .chain(policies)
        .map(|(pattern, policy)| {
            let pattern = if pattern.is_empty() { "everything".to_owned() } else { PathText(pattern).to_string() };
            (pattern, policy.word())
        })
        .collect();
    let lines: Vec<String> = shown.iter().map(|(pattern, word)| format!("{word}  {pattern}")).collect();
    let data: Vec<_> = shown.iter().map(|(pattern, word)| json!({ "pattern": pattern, "policy": word })).collect();
    Ok(Reply::done(lines.join("\n"), data))
}

fn line(conflict: &Beside) -> String {
    format!("{} -> {}", PathText::from(&*conflict.path), PathText::from(&*conflict.beside))
}

fn listed(conflicts: &[Beside]) -> Vec<serde_json::Value> {
    let one = |conflict: &Beside| {
        let (path, beside) = (PathText::from(&*conflict.path), PathText::from(&*conflict.beside));
        json!({ "path": path, "beside": beside })
    };
    conflicts.iter().map(one).collect()
}
