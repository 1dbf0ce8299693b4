//! Three-way merge of two lines of versions, as a function of the common ancestor, ours and theirs.
//!
//! What theirs changed since the ancestor is done to our tree: inodes are matched by identity first and by name
//! then, so a rename on one side and an edit on the other combine. Equal subtrees are never read. Where both
//! changed the same thing, a [`Policy`] decides, and what loses stays in the history of either side.

mod attrs;
mod build;
mod changes;
mod directories;
mod files;
mod lines;
mod places;
mod refs;

use std::collections::HashSet;
use std::sync::Arc;

use super::Result;
use super::entry::{FileBody, Ino};
use super::index::Root;
use super::tree::PageIo;
use crate::base::clock::Timestamp;

pub use changes::{Changes, Key, NodeChange, Place};
pub use lines::{Unmerged, merge_lines};
pub use places::{BACKUP_DIR, backup_name, conflict_name};
pub use refs::merge_refs;

/// What happens to a file that both sides changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Ours keeps its name, theirs is put beside it.
    #[default]
    KeepBoth,
    /// The newer one stays, the other goes to `backup/`.
    LastWriteWins,
    /// Ours stays.
    Ours,
    /// Theirs stays.
    Theirs,
    /// Texts are merged line by line; as `KeepBoth` where that is not possible.
    Merge,
    /// Theirs keeps its name, ours is put beside it: for what somebody else has locked. Cannot be chosen.
    Yield,
}

impl Policy {
    /// All policies that can be chosen.
    pub const ALL: [Policy; 5] = [Policy::KeepBoth, Policy::LastWriteWins, Policy::Ours, Policy::Theirs, Policy::Merge];

    /// The word by which it is chosen, and stored.
    pub fn word(self) -> &'static str {
        match self {
            Policy::KeepBoth => "keep-both",
            Policy::LastWriteWins => "last-write-wins",
            Policy::Ours => "ours",
            Policy::Theirs => "theirs",
            Policy::Merge => "merge",
            Policy::Yield => "yield",
        }
    }

    /// The policy of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.word() == word)
    }
}

/// What both sides did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clash {
    /// Both changed its content.
    Edited,
    /// Both gave the name to different things.
    Added,
    /// One removed what the other changed; the change stays.
    Removed,
    /// Both moved it, to different places, or into each other.
    Moved,
}

impl Clash {
    /// A word for it.
    pub fn word(self) -> &'static str {
        match self {
            Clash::Edited => "edited",
            Clash::Added => "added",
            Clash::Removed => "removed",
            Clash::Moved => "moved",
        }
    }
}

/// A path that both sides changed in ways that cannot both stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Where it is in the result.
    pub path: Vec<u8>,
    /// What happened to it.
    pub clash: Clash,
    /// Where the state that lost was put, when it was.
    pub beside: Option<Vec<u8>>,
}

/// One of the two lines.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    /// Its tree.
    pub root: &'a Root,
    /// When its version was recorded; stands in the names of what loses.
    pub time: Timestamp,
}

/// Files of ours that are being written, which no version shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// Inodes with unpublished content: they stay, under their number.
    pub drafts: HashSet<Ino>,
    /// Names in directories (paths of names) that stand for files which were never published.
    pub unpublished: Vec<Vec<Vec<u8>>>,
}

/// Merging of texts, where the policy asks for it.
pub trait Texts {
    /// The merged file; `None` when the two sides overlap, or when a side is no text or too long.
    fn merge(&self, base: &FileBody, ours: &FileBody, theirs: &FileBody) -> Result<Option<FileBody>>;
}

/// What a merge works with.
pub struct Inputs<'a> {
    /// Pages: those of all three trees are read, those of the result are saved.
    pub io: &'a dyn PageIo,
    /// The common ancestor; an empty tree when it is gone.
    pub base: &'a Root,
    /// Our line.
    pub ours: Line<'a>,
    /// The line that HEAD names.
    pub theirs: Line<'a>,
    /// Files of ours that are being written.
    pub pins: &'a Pins,
    /// The policy for a path.
    pub policy: &'a dyn Fn(&[u8]) -> Policy,
    /// Merges texts.
    pub texts: &'a dyn Texts,
    /// Gives numbers to new inodes.
    pub next_ino: &'a dyn Fn() -> Ino,
}

/// The result of a merge.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The tree.
    pub root: Root,
    /// What both sides changed in ways that cannot both stand, in the order of paths.
    pub conflicts: Vec<Conflict>,
}

/// Merges two lines.
pub fn merge(inputs: &Inputs<'_>) -> Result<Merged> {
    if inputs.base == inputs.theirs.root {
        return Ok(Merged { root: inputs.ours.root.clone(), conflicts: Vec::new() });
    }
    let nothing_pinned = inputs.pins.drafts.is_empty() && inputs.pins.unpublished.is_empty();
    if inputs.base == inputs.ours.root && nothing_pinned {
        return Ok(Merged { root: inputs.theirs.root.clone(), conflicts: Vec::new() });
    }
    let ours = Changes::find(inputs.io, inputs.base, inputs.ours.root)?;
    let theirs = Changes::find(inputs.io, inputs.base, inputs.theirs.root)?;
    let mut merger = places::Merger::new(inputs, ours, &theirs)?;
    let leaves = merger.decide_leaves(&theirs)?;
    merger.decide_directories(&theirs)?;
    merger.place_leaves(leaves, &theirs)?;
    merger.build(&theirs)
}

type Name = Arc<[u8]>;
