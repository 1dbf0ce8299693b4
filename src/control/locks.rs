//! Requests about locks.

use serde_json::json;

use super::failure::Failure;
use super::path::PathText;
use super::reply::{Reply, rfc3339};
use crate::sync::LockInfo;
use crate::workspace::Workspace;

pub(super) fn lock(
    workspace: &Workspace,
    paths: &[Vec<u8>],
    for_ms: Option<u64>,
    by_force: bool,
) -> Result<Reply, Failure> {
    let locks = workspace.lock(paths, for_ms, by_force)?;
    Ok(Reply::done(lines(&locks), data(&locks)))
}

pub(super) fn unlock(workspace: &Workspace, paths: &[Vec<u8>]) -> Result<Reply, Failure> {
    let names = |paths: &[Vec<u8>]| paths.iter().cloned().map(PathText).collect::<Vec<PathText>>();
    let lost = names(&workspace.unlock(paths)?);
    let message = format!("unlocked {} paths", paths.len());
    let data = json!({ "paths": names(paths), "lost": lost });
    if lost.is_empty() {
        return Ok(Reply::done(message, data));
    }
    let list = lost.iter().map(PathText::to_string).collect::<Vec<String>>().join(", ");
    Ok(Reply::partly(format!("{message}; lost before: {list}; see `kura conflicts`"), data))
}

pub(super) fn locks(workspace: &Workspace) -> Result<Reply, Failure> {
    let locks = workspace.locks()?;
    let message = if locks.is_empty() { "nothing is locked".to_owned() } else { lines(&locks) };
    Ok(Reply::done(message, data(&locks)))
}

fn name(lock: &LockInfo) -> PathText {
    PathText(if lock.path.is_empty() { b".".to_vec() } else { lock.path.clone() })
}

fn lines(locks: &[LockInfo]) -> String {
    let line = |lock: &LockInfo| {
        let mark = match (lock.is_ours, lock.is_stale) {
            (true, _) => " (here)",
            (_, true) => " (counts no more: nobody renewed it)",
            _ => "",
        };
        format!("{}  {} since {}{mark}", name(lock), PathText::from(lock.holder.as_bytes()), rfc3339(lock.since))
    };
    locks.iter().map(line).collect::<Vec<String>>().join("\n")
}

fn data(locks: &[LockInfo]) -> Vec<serde_json::Value> {
    let one = |lock: &LockInfo| {
        json!({
            "path": name(lock), "holder": lock.holder, "ours": lock.is_ours, "since": rfc3339(lock.since),
            "length_ms": lock.length_ms, "stale": lock.is_stale,
        })
    };
    locks.iter().map(one).collect()
}
