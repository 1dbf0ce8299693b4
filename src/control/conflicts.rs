//! Requests about conflicts.

use serde_json::json;

use super::failure::{Exit, Failure};
use super::path::PathText;
use super::reply::Reply;
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
    let take = match take {
        "ours" => Take::Ours,
        "theirs" => Take::Theirs,
        "both" => Take::Both,
        "merge" => Take::Merge,
        other => {
            let message = format!("`{other}` cannot be taken");
            return Err(Failure::new(Exit::Usage, message).hint("take ours, theirs, both or merge"));
        }
    };
    let settled = workspace.resolve(path, take)?;
    if settled.is_empty() {
        let message = format!("`{}` has no conflict", PathText::from(path));
        return Err(Failure::new(Exit::Other, message).hint("`kura conflicts` lists them"));
    }
    Ok(Reply::done(format!("settled {} conflicts", settled.len()), listed(&settled)))
}

pub(super) fn policy(workspace: &Workspace, policy: Option<&str>, pattern: &str) -> Result<Reply, Failure> {
    if let Some(word) = policy {
        let chosen = Policy::from_word(word);
        if chosen.is_none() && word != "default" {
            let words = Policy::ALL.map(Policy::word).join(", ");
            let message = format!("`{word}` is no policy");
            return Err(Failure::new(Exit::Usage, message).hint(format!("one of {words}, or default")));
        }
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
