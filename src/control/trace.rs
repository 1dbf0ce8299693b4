//! Requests about what happened to paths: history, blame, what is gone and how it comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use similar::{Algorithm, DiffTag};

use super::failure::{Exit, Failure};
use super::patch::{Text, text};
use super::path::PathText;
use super::reply::{Reply, VersionInfo};
use crate::base::ids::VersionId;
use crate::version::diff::ChangeKind;
use crate::version::entry::Body;
use crate::version::index::IndexRecord;
use crate::version::refs;
use crate::workspace::{Step, Workspace};

/// Versions of a file that blame looks at; older lines count as from the oldest of them.
const BLAME_VERSIONS_MAX: usize = 500;
/// Longest search for what differs between the versions of a file; after it, more lines than need be count as new.
const BLAME_SEARCH: Duration = Duration::from_secs(10);
/// Paths in one answer about what is gone.
const GONE_MAX: usize = 10_000;

fn letter(step: &Step) -> char {
    match step.kind {
        None => 'R',
        Some(_) if step.from.is_some() => 'R',
        Some(ChangeKind::Added) => '+',
        Some(ChangeKind::Removed) => '-',
        Some(ChangeKind::Modified) => 'M',
        Some(ChangeKind::TypeChanged) => 'T',
        Some(ChangeKind::Metadata) => 'm',
    }
}

/// The versions that changed a path, each as in any list of versions, and with what it did.
pub(super) fn log(workspace: &Workspace, path: &[u8], from: Option<VersionId>, max: usize) -> Result<Reply, Failure> {
    let mut names: BTreeMap<VersionId, Vec<String>> = BTreeMap::new();
    let (refs, pages) = (workspace.tree().base().refs, workspace.pages());
    for (tag, version) in refs::tags(&refs, &*pages)? {
        names.entry(version).or_default().push(tag);
    }
    let newest = from.map(|from| refs::summary(&refs, &*pages, from)).transpose()?.flatten();
    let newest = newest.map_or(u64::MAX, |summary| summary.generation);
    let mut found = Vec::new();
    workspace.trace(path, &mut |step| {
        if found.len() < max && step.record.generation <= newest {
            found.push(step);
        }
        found.len() < max
    })?;
    if found.is_empty() && max > 0 && from.is_none() {
        return Err(no_path(path));
    }
    let mut items = Vec::with_capacity(found.len());
    for step in &found {
        let info = VersionInfo::of_record(&step.record, names.get(&step.record.id).cloned().unwrap_or_default());
        let mut item = json!(info);
        let size = step.entry.as_ref().and_then(|entry| match &entry.body {
            Body::File(file) => Some(file.size),
            _ => None,
        });
        item["change"] = json!({
            "letter": letter(step), "path": PathText::from(&*step.path),
            "from": step.from.as_deref().map(PathText::from), "size": size,
        });
        items.push(item);
    }
    Ok(Reply::done(format!("{} versions", items.len()), items))
}

fn no_path(path: &[u8]) -> Failure {
    Failure::new(Exit::Other, format!("no version has `{}`", PathText::from(path)))
        .hint("`kura find --deleted` lists what is gone")
}

/// Who wrote each line of a text file, and in which version.
pub(super) fn blame(workspace: &Workspace, path: &[u8]) -> Result<Reply, Failure> {
    let mut steps = Vec::new();
    workspace.trace(path, &mut |step| {
        let is_content = !matches!(step.kind, None | Some(ChangeKind::Metadata));
        if step.entry.is_some() && (is_content || steps.is_empty()) {
            steps.push(step);
        }
        steps.len() < BLAME_VERSIONS_MAX
    })?;
    if steps.is_empty() {
        return Err(no_path(path));
    }
    let (mut lines, mut left) = (Vec::new(), BLAME_SEARCH);
    for step in steps.iter().rev() {
        let Text::Lines(now) = text(workspace, step.entry.as_ref())? else {
            let message = format!("`{}` is no text file of up to 4 MiB", PathText::from(&*step.path));
            return Err(Failure::new(Exit::Usage, message).hint("`kura log PATH` lists its versions"));
        };
        // Getting the texts may take its time.
        let begun = Instant::now();
        lines = with_origins(&lines, &now, &step.record, begun + left);
        left = left.saturating_sub(begun.elapsed());
    }
    let items: Vec<Value> =
        lines.iter().enumerate().map(|(number, (line, record))| blamed(number, line, record)).collect();
    Ok(Reply::done(format!("{} lines", items.len()), items))
}

/// The lines of a text with where each comes from: from `origin`, where `before` does not have them.
fn with_origins<T: Clone>(before: &[(String, T)], text: &str, origin: &T, until: Instant) -> Vec<(String, T)> {
    let new: Vec<&str> = text.split_inclusive('\n').collect();
    let old: Vec<&str> = before.iter().map(|(line, _)| line.as_str()).collect();
    let mut lines = Vec::with_capacity(new.len());
    for op in similar::capture_diff_slices_deadline(Algorithm::Myers, &old, &new, Some(until)) {
        match op.tag() {
            DiffTag::Equal => lines.extend_from_slice(&before[op.old_range()]),
            _ => lines.extend(new[op.new_range()].iter().map(|line| ((*line).to_owned(), origin.clone()))),
        }
    }
    lines
}

fn blamed(number: usize, line: &str, record: &IndexRecord) -> Value {
    json!({
        "line": number + 1, "version": record.id.to_string(), "time": super::reply::rfc3339(record.time),
        "host": record.author.host, "user": record.author.user, "client": record.author.client.to_string(),
        "text": line.trim_end_matches('\n'),
    })
}

/// Paths that are gone, or that are there, whose last name matches a pattern.
pub(super) fn find(workspace: &Workspace, pattern: &str, below: &[u8], deleted: bool) -> Result<Reply, Failure> {
    let matches = |path: &[u8]| {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        pattern.is_empty() || is_match(pattern.as_bytes(), name)
    };
    let mut items: Vec<(Arc<[u8]>, Value)> = Vec::new();
    if deleted {
        for gone in workspace.gone(below, GONE_MAX)? {
            let size = match &gone.entry.body {
                Body::File(file) => Some(file.size),
                _ => None,
            };
            let item = json!({
                "path": PathText::from(&*gone.path), "version": gone.version.to_string(), "size": size,
            });
            items.push((gone.path, item));
        }
    } else {
        for (path, size) in workspace.paths(below)? {
            items.push((path.clone(), json!({ "path": PathText::from(&*path), "version": null, "size": size })));
        }
    }
    items.retain(|(path, _)| matches(path));
    items.sort_by(|a, b| a.0.cmp(&b.0));
    let items: Vec<Value> = items.into_iter().map(|(_, item)| item).collect();
    Ok(Reply::done(format!("{} paths", items.len()), items))
}

/// Brings paths back from the newest version that has them.
pub(super) fn undelete(workspace: &Workspace, paths: &[Vec<u8>], dry_run: bool) -> Result<Reply, Failure> {
    let mut by_version: BTreeMap<VersionId, Vec<Vec<u8>>> = BTreeMap::new();
    for path in paths {
        let version = workspace.last_with(path)?.ok_or_else(|| {
            Failure::new(Exit::Other, format!("`{}` is not gone", PathText::from(path.as_slice())))
                .hint("`kura find --deleted` lists what is gone")
        })?;
        by_version.entry(version).or_default().push(path.clone());
    }
    let mut items = Vec::new();
    for (version, paths) in by_version {
        let restored = workspace.restore(version, &paths, dry_run)?;
        let changed = restored
            .changes
            .iter()
            .map(|change| json!({ "path": PathText::from(&*change.path), "version": version.to_string() }));
        items.extend(changed);
    }
    let word = if dry_run { "would come back" } else { "are back" };
    Ok(Reply::done(format!("{} paths {word}", items.len()), items))
}

/// Whether a name matches a pattern with `*` and `?`.
fn is_match(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut star) = ((0, 0), None);
    while at.1 < name.len() {
        match pattern.get(at.0) {
            Some(b'*') => {
                star = Some((at.0, at.1));
                at.0 += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[at.1] => at = (at.0 + 1, at.1 + 1),
            _ => match &mut star {
                Some(star) => {
                    star.1 += 1;
                    at = (star.0 + 1, star.1);
                }
                None => return false,
            },
        }
    }
    pattern[at.0..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(until: Instant) -> Vec<u32> {
        let before = [("a\n".to_owned(), 1), ("b\n".to_owned(), 1), ("c\n".to_owned(), 1)];
        let lines = with_origins(&before, "a\nB\nb\nC\nc\nlast", &2, until);
        assert_eq!(lines.iter().map(|(line, _)| line.as_str()).collect::<String>(), "a\nB\nb\nC\nc\nlast");
        lines.into_iter().map(|(_, origin)| origin).collect()
    }

    #[test]
    fn each_line_comes_from_the_version_that_brought_it() {
        assert_eq!(origins(Instant::now() + BLAME_SEARCH), [1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn without_time_to_search_more_lines_count_as_new_and_none_is_lost() {
        assert_eq!(origins(Instant::now()), [1, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn patterns_match_names() {
        for (pattern, name) in [("*", ""), ("*.txt", "a.txt"), ("a?c*", "abcd"), ("*a*b", "xaayb"), ("a", "a")] {
            assert!(is_match(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in [("", "a"), ("*.txt", "a.txt.gz"), ("a?", "a"), ("*a*b", "xaay"), ("b", "a")] {
            assert!(!is_match(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }
}
