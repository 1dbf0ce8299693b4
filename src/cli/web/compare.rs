//! Two files side by side: lines of texts, images as they are, of everything else that it differs.

use std::time::{Duration, Instant};

use serde::Serialize;
use similar::{Algorithm, DiffOp, capture_diff_slices_deadline};

use crate::cli::view::Content;
use crate::control::{Failure, PathText};

/// Larger files are not compared line by line, in bytes.
const TEXT_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Lines of one side that are searched for the smallest difference, after what both begin and end with alike.
const LINES_MAX: usize = 200_000;
/// Longest search for the smallest difference; after it, a larger one will do.
const SEARCH: Duration = Duration::from_secs(3);
/// Rows of an answer.
const ROWS_MAX: usize = 4_000;
/// Longest line that is shown, in bytes.
const LINE_LEN_MAX: usize = 1_000;
/// Most unchanged lines around each change.
const CONTEXT_MAX: usize = 1_000;
/// A NUL among the first bytes makes a file binary.
const PROBE_LEN: usize = 8_000;

/// One of the two.
pub struct Side {
    /// Its path, which may tell what it is.
    pub name: PathText,
    /// Its bytes.
    pub content: Content,
}

/// What there is to see.
#[derive(Debug, Default, Serialize)]
pub struct Comparison {
    /// `text`, `image`, `binary` or `large`.
    kind: &'static str,
    same: bool,
    size_before: Option<u64>,
    size_after: Option<u64>,
    rows: Vec<Row>,
    /// Whether there is more than the rows show.
    truncated: bool,
    /// Lines removed and added.
    removed: usize,
    added: usize,
}

/// Two lines beside each other.
#[derive(Debug, Serialize)]
struct Row {
    /// `=` on both sides, `-` or `+` on one, `~` changed, `…` lines that are not shown.
    tag: char,
    before: Option<(usize, String)>,
    after: Option<(usize, String)>,
}

/// The media type of an image that browsers show, by its first bytes.
pub fn image_type(name: &PathText, first: &[u8]) -> Option<&'static str> {
    let is_svg = name.0.to_ascii_lowercase().ends_with(b".svg") && first.trim_ascii_start().starts_with(b"<");
    match first {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f', ..] => Some("image/avif"),
        _ if is_svg => Some("image/svg+xml"),
        _ => None,
    }
}

/// Compares two files; a missing one is empty.
pub fn compare(before: Option<Side>, after: Option<Side>, context: usize) -> Result<Comparison, Failure> {
    let size = |side: &Option<Side>| side.as_ref().map(|side| side.content.size);
    let found = Comparison { size_before: size(&before), size_after: size(&after), ..Comparison::default() };
    let mut images = 0;
    let sides = [&before, &after].into_iter().flatten();
    for side in sides.clone() {
        images += usize::from(image_type(&side.name, &side.content.read_first(512)?).is_some());
    }
    if images > 0 && images == sides.clone().count() {
        return Ok(Comparison { kind: "image", ..found });
    }
    if sides.clone().any(|side| side.content.size > TEXT_LEN_MAX) {
        return Ok(Comparison { kind: "large", ..found });
    }
    let read = |side: &Option<Side>| match side {
        Some(side) => side.content.read_first(TEXT_LEN_MAX),
        None => Ok(Vec::new()),
    };
    let (old, new) = (read(&before)?, read(&after)?);
    if [&old, &new].iter().any(|bytes| bytes[..bytes.len().min(PROBE_LEN)].contains(&0)) {
        return Ok(Comparison { kind: "binary", same: old == new, ..found });
    }
    let Comparison { size_before, size_after, .. } = found;
    Ok(Comparison { size_before, size_after, ..compare_texts(&old, &new, context) })
}

/// How two texts differ, with so many unchanged lines around each change.
pub fn compare_texts(old: &[u8], new: &[u8], context: usize) -> Comparison {
    let mut found = Comparison { kind: "text", same: old == new, ..Comparison::default() };
    if !found.same {
        Lines::new(old, new).compare(context.min(CONTEXT_MAX), &mut found);
    }
    found
}

/// Two texts in lines, and how many of these are alike at both ends.
struct Lines<'a> {
    old: Vec<&'a [u8]>,
    new: Vec<&'a [u8]>,
    head: usize,
    tail: usize,
}

impl<'a> Lines<'a> {
    fn new(old: &'a [u8], new: &'a [u8]) -> Self {
        let lines = |text: &'a [u8]| text.split_inclusive(|byte| *byte == b'\n').collect::<Vec<&[u8]>>();
        let (old, new) = (lines(old), lines(new));
        let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
        let most = old.len().min(new.len()) - head;
        let tail = old.iter().rev().zip(new.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
        Self { old, new, head, tail }
    }

    /// What differs between the ends, as ranges of both.
    fn changes(&self) -> Vec<DiffOp> {
        let (old, new) = (self.old.len() - self.tail, self.new.len() - self.tail);
        let (old_len, new_len) = (old - self.head, new - self.head);
        if old_len > LINES_MAX || new_len > LINES_MAX {
            return vec![DiffOp::Replace { old_index: self.head, old_len, new_index: self.head, new_len }];
        }
        let deadline = Some(Instant::now() + SEARCH);
        let (a, b) = (&self.old[self.head..old], &self.new[self.head..new]);
        let mut changes = capture_diff_slices_deadline(Algorithm::Myers, a, b, deadline);
        for change in &mut changes {
            let (_, old, new) = change.as_tag_tuple();
            let (old_index, new_index) = (old.start + self.head, new.start + self.head);
            *change = match change {
                DiffOp::Equal { len, .. } => DiffOp::Equal { old_index, new_index, len: *len },
                DiffOp::Delete { .. } => DiffOp::Delete { old_index, old_len: old.len(), new_index },
                DiffOp::Insert { .. } => DiffOp::Insert { old_index, new_index, new_len: new.len() },
                DiffOp::Replace { .. } => {
                    DiffOp::Replace { old_index, old_len: old.len(), new_index, new_len: new.len() }
                }
            };
        }
        changes.retain(|change| !matches!(change, DiffOp::Equal { .. }));
        changes
    }

    fn compare(&self, context: usize, found: &mut Comparison) {
        // So far, lines of both sides are shown or skipped.
        let (mut old_at, mut new_at) = (0, 0);
        for change in self.changes() {
            let (_, old, new) = change.as_tag_tuple();
            found.removed += old.len();
            found.added += new.len();
            if found.rows.len() >= ROWS_MAX {
                found.truncated = true;
                continue;
            }
            let gap = old.start - old_at;
            let shown = gap.min(context);
            let after = if old_at > 0 { shown } else { 0 };
            if gap > after + shown {
                self.same(old_at, new_at, after, found);
                found.rows.push(Row { tag: '…', before: Some((gap - after - shown, String::new())), after: None });
                self.same(old.start - shown, new.start - shown, shown, found);
            } else {
                self.same(old_at, new_at, gap, found);
            }
            for at in 0..old.len().max(new.len()) {
                if found.rows.len() >= ROWS_MAX {
                    found.truncated = true;
                    break;
                }
                let before = (at < old.len()).then(|| line(&self.old, old.start + at));
                let after = (at < new.len()).then(|| line(&self.new, new.start + at));
                let tag = match (&before, &after) {
                    (Some(_), Some(_)) => '~',
                    (Some(_), None) => '-',
                    _ => '+',
                };
                found.rows.push(Row { tag, before, after });
            }
            (old_at, new_at) = (old.end, new.end);
        }
        let left = self.old.len() - old_at;
        if !found.truncated {
            self.same(old_at, new_at, left.min(context), found);
            if left > context {
                found.rows.push(Row { tag: '…', before: Some((left - context, String::new())), after: None });
            }
        }
    }

    fn same(&self, old: usize, new: usize, count: usize, found: &mut Comparison) {
        for at in 0..count {
            let (before, after) = (Some(line(&self.old, old + at)), Some(line(&self.new, new + at)));
            found.rows.push(Row { tag: '=', before, after });
        }
    }
}

/// A line with its number from 1, without its end.
fn line(lines: &[&[u8]], at: usize) -> (usize, String) {
    let text = lines[at];
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let mut shown = String::from_utf8_lossy(&text[..text.len().min(LINE_LEN_MAX)]).into_owned();
    if text.len() > LINE_LEN_MAX {
        shown.push('…');
    }
    (at + 1, shown)
}
