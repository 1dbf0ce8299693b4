//! Which lines of a text file differ.

use super::failure::Failure;
use crate::version::diff::Change;
use crate::version::entry::{Body, Entry};
use crate::workspace::Workspace;

/// Larger files are compared as a whole only, in bytes.
const TEXT_LEN_MAX: u64 = 4 * 1024 * 1024;
/// A NUL among the first bytes makes a file binary.
const PROBE_LEN: usize = 8000;
/// Longest search for the smallest difference; after it, a larger one will do.
const SEARCH: std::time::Duration = std::time::Duration::from_secs(2);

/// What stands for an inode where lines are compared.
pub(super) enum Text {
    /// Its lines.
    Lines(String),
    /// It has none.
    Binary,
}

/// The unified diff of a change; empty where there is none to show.
pub(super) fn patch(workspace: &Workspace, from: &str, to: &str, change: &Change) -> Result<String, Failure> {
    let old = text(workspace, change.before.as_ref())?;
    let new = text(workspace, change.after.as_ref())?;
    let old_name = if change.before.is_some() { format!("a/{from}") } else { "/dev/null".to_owned() };
    let new_name = if change.after.is_some() { format!("b/{to}") } else { "/dev/null".to_owned() };
    let (Text::Lines(old), Text::Lines(new)) = (old, new) else {
        return Ok(format!("Binary files {old_name} and {new_name} differ\n"));
    };
    if old == new {
        return Ok(String::new());
    }
    let diff = similar::TextDiff::configure().timeout(SEARCH).diff_lines(&old, &new);
    Ok(diff.unified_diff().header(&old_name, &new_name).to_string())
}

/// What stands for an inode in a patch: the lines of a file, the target of a symbolic link, nothing
/// for anything else.
pub(super) fn text(workspace: &Workspace, entry: Option<&Entry>) -> Result<Text, Failure> {
    match entry.map(|entry| &entry.body) {
        Some(Body::File(body)) if body.size > TEXT_LEN_MAX => Ok(Text::Binary),
        Some(Body::File(body)) => {
            let len = usize::try_from(body.size).unwrap_or(usize::MAX);
            let bytes = workspace.read_file(body, 0, len)?;
            let probe = &bytes[..bytes.len().min(PROBE_LEN)];
            if probe.contains(&0) {
                return Ok(Text::Binary);
            }
            Ok(String::from_utf8(bytes).map_or(Text::Binary, Text::Lines))
        }
        Some(Body::Symlink { target }) => Ok(Text::Lines(String::from_utf8_lossy(target).into_owned())),
        _ => Ok(Text::Lines(String::new())),
    }
}
