//! Merging texts line by line, in bounded time.

use std::time::{Duration, Instant};

use similar::{Algorithm, DiffTag, capture_diff_slices_deadline};

/// Longest search for what differs; texts for which it does not suffice are too different.
const SEARCH: Duration = Duration::from_secs(2);
/// The lines of two texts times those that differ: what merging costs at most, in steps of some nanoseconds.
const STEPS_MAX: usize = 2_000_000_000;

/// Why two texts are not merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmerged {
    /// Both changed the same lines.
    Overlapping,
    /// So much differs that merging might take minutes.
    TooDifferent,
}

/// The text that has the changes of two others that were made from `base`.
pub fn merge_lines(base: &[u8], ours: &[u8], theirs: &[u8]) -> Result<Vec<u8>, Unmerged> {
    let until = Instant::now() + SEARCH;
    // Looking for the smallest difference, as the merge does, may take the square of the lines.
    if [ours, theirs].into_iter().any(|text| !is_near(base, text, until)) {
        return Err(Unmerged::TooDifferent);
    }
    diffy::merge_bytes(base, ours, theirs).map_err(|_| Unmerged::Overlapping)
}

fn is_near(base: &[u8], text: &[u8], until: Instant) -> bool {
    let (old, new) = (lines(base), lines(text));
    let ops = capture_diff_slices_deadline(Algorithm::Myers, &old, &new, Some(until));
    let changes = ops.iter().filter(|op| op.tag() != DiffTag::Equal);
    let different: usize = changes.map(|op| op.old_range().len() + op.new_range().len()).sum();
    Instant::now() < until && different.saturating_mul(old.len() + new.len()) <= STEPS_MAX
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of which hardly two follow each other in another text of these.
    fn mixed(seed: u32, lines: usize) -> Vec<u8> {
        let mut state = seed;
        let mut line = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            format!("{}\n", state >> 12).into_bytes()
        };
        (0..lines).flat_map(|_| line()).collect()
    }

    #[test]
    fn texts_that_differ_in_everything_are_given_up() {
        let [base, ours, theirs] = [1, 2, 3].map(|seed| mixed(seed, 200_000));
        assert_eq!(merge_lines(&base, &ours, &theirs), Err(Unmerged::TooDifferent));
    }

    #[test]
    fn a_few_changes_in_a_long_text_are_merged() {
        let base = mixed(1, 50_000);
        let with = |at: usize, line: &str| {
            let mut lines = lines(&base);
            lines[at] = line.as_bytes();
            lines.concat()
        };
        let merged = merge_lines(&base, &with(10, "ours\n"), &with(49_000, "theirs\n")).unwrap();
        assert_eq!((lines(&merged)[10], lines(&merged)[49_000]), (&b"ours\n"[..], &b"theirs\n"[..]));
        assert_eq!(merge_lines(&base, &with(10, "ours\n"), &with(10, "theirs\n")), Err(Unmerged::Overlapping));
    }
}
