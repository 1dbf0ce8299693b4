//! Lists of differences as people read them: renames are found, and a renamed directory is one line.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::path::PathText;
use crate::base::ids::FileId;
use crate::version::diff::{Change, ChangeKind};
use crate::version::entry::{Body, Entry};

/// One line of a list of differences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeInfo {
    /// `+` added, `-` removed, `M` content, `T` type, `R` renamed, `m` mode, owner, times or
    /// extended attributes only.
    pub letter: char,
    /// The path from the root; of a rename, the new one.
    pub path: PathText,
    /// The old path of a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathText>,
    /// `file`, `directory`, `symlink`, …
    pub kind: String,
    /// Size before, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_before: Option<u64>,
    /// Size after, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_after: Option<u64>,
    /// Which lines differ, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
}

impl ChangeInfo {
    fn new(letter: char, path: &[u8], change: &Change) -> Self {
        let entry = change.after.as_ref().or(change.before.as_ref());
        Self {
            letter,
            path: path.into(),
            from: None,
            kind: entry.map_or("", kind_word).to_owned(),
            size_before: change.before.as_ref().and_then(size),
            size_after: change.after.as_ref().and_then(size),
            patch: None,
        }
    }
}

/// A change, and the entries it stands between.
pub struct Line {
    /// What is shown.
    pub info: ChangeInfo,
    /// Before and after, with renames joined.
    pub change: Change,
}

/// The list of differences of raw changes, sorted by path.
pub fn list_changes(changes: Vec<Change>) -> Vec<Line> {
    let mut removed: HashMap<FileId, usize> = HashMap::new();
    for (index, change) in changes.iter().enumerate() {
        if let (Some(before), None) = (&change.before, &change.after) {
            removed.entry(before.file_id).or_insert(index);
        }
    }
    let mut renames: HashMap<usize, usize> = HashMap::new();
    for (index, change) in changes.iter().enumerate() {
        if let (None, Some(after)) = (&change.before, &change.after)
            && let Some(from) = removed.get(&after.file_id).copied()
            && changes[from].before.as_ref().is_some_and(|before| kind_word(before) == kind_word(after))
        {
            removed.remove(&after.file_id);
            renames.insert(index, from);
        }
    }
    let moved_away: HashSet<usize> = renames.values().copied().collect();
    let mut moved_dirs: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut lines = Vec::new();
    for (index, change) in changes.iter().enumerate() {
        if let Some(from) = renames.get(&index) {
            let old = &changes[*from];
            let joined = Change { path: change.path.clone(), before: old.before.clone(), after: change.after.clone() };
            rename_lines(&old.path, joined, &mut moved_dirs, &mut lines);
        } else if !moved_away.contains(&index)
            && let Some(kind) = change.kind()
        {
            lines.push(Line { info: ChangeInfo::new(letter(kind), &change.path, change), change: change.clone() });
        }
    }
    lines.sort_by(|a, b| a.info.path.cmp(&b.info.path).then(rank(a).cmp(&rank(b))));
    lines
}

/// The lines of one rename: none for what moved along with its directory, `R`, and `M` when the
/// content changed as well.
fn rename_lines(from: &[u8], joined: Change, moved_dirs: &mut HashMap<Vec<u8>, Vec<u8>>, lines: &mut Vec<Line>) {
    let to = joined.path.to_vec();
    let (old_dir, old_name) = split(from);
    let (new_dir, new_name) = split(&to);
    let moved_along = old_name == new_name && moved_dirs.get(new_dir).is_some_and(|moved| moved == old_dir);
    if joined.after.as_ref().is_some_and(Entry::is_dir) {
        moved_dirs.insert(to.clone(), from.to_vec());
    }
    if !moved_along {
        let mut info = ChangeInfo::new('R', &to, &joined);
        info.from = Some(from.into());
        lines.push(Line { info, change: joined.clone() });
    }
    if let Some(kind @ (ChangeKind::Modified | ChangeKind::TypeChanged)) = joined.kind() {
        lines.push(Line { info: ChangeInfo::new(letter(kind), &to, &joined), change: joined });
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn rank(line: &Line) -> u8 {
    match line.info.letter {
        'R' => 0,
        _ => 1,
    }
}

fn letter(kind: ChangeKind) -> char {
    match kind {
        ChangeKind::Added => '+',
        ChangeKind::Removed => '-',
        ChangeKind::Modified => 'M',
        ChangeKind::TypeChanged => 'T',
        ChangeKind::Metadata => 'm',
    }
}

/// The kind of an inode, as every listing calls it.
pub fn kind_word(entry: &Entry) -> &'static str {
    match entry.body {
        Body::File(_) => "file",
        Body::Directory { .. } => "directory",
        Body::Symlink { .. } => "symlink",
        Body::Fifo => "fifo",
        Body::Socket => "socket",
        Body::CharDevice { .. } => "character device",
        Body::BlockDevice { .. } => "block device",
        Body::Link => "link",
    }
}

fn size(entry: &Entry) -> Option<u64> {
    match &entry.body {
        Body::File(body) => Some(body.size),
        _ => None,
    }
}
