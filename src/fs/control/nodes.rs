//! Inodes outside of the live tree, and which of them the kernel holds.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::past::Past;
use crate::base::ids::VersionId;
use crate::version::entry::Ino;

const OUTSIDE: u64 = 1 << 63;
/// Numbers of this many files and directories are the same in every mount.
const FIXED_MAX: u64 = 1024;

/// Whether an inode is not one of the live tree.
pub(crate) fn is_outside(ino: Ino) -> bool {
    ino.0 & OUTSIDE != 0
}

/// The files and directories that are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fixed {
    Control,
    Status,
    StatusJson,
    Versions,
    ById,
    ByTime,
    ByTag,
    Snapshots,
    Ctl,
    Run,
    LastError,
    Jobs,
    History,
    Metrics,
    Events,
    Conflicts,
    AccessLog,
    Config,
}

pub(super) const FIXED: [Fixed; 18] = [
    Fixed::Control,
    Fixed::Status,
    Fixed::StatusJson,
    Fixed::Versions,
    Fixed::ById,
    Fixed::ByTime,
    Fixed::ByTag,
    Fixed::Snapshots,
    Fixed::Ctl,
    Fixed::Run,
    Fixed::LastError,
    Fixed::Jobs,
    Fixed::History,
    Fixed::Metrics,
    Fixed::Events,
    Fixed::Conflicts,
    Fixed::AccessLog,
    Fixed::Config,
];

/// The files of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum JobFile {
    Request,
    Status,
    Progress,
    Log,
    Result,
    Cancel,
}

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Of the `.kura` in this folder of the live tree.
    Fixed(Ino, Fixed),
    /// A symbolic link in this directory to a version. A link that is set anew is another inode,
    /// since the kernel keeps what a link says.
    Link(Fixed, VersionId),
    /// The file of a command, with paths from this folder.
    Command(Ino, &'static str),
    /// The directory of a job, entered from this folder.
    Job(Ino, Uuid),
    /// A file of a job.
    JobFile(Uuid, JobFile),
    /// What happened to a path: below this folder, names joined by `/`.
    History(Ino, Arc<[u8]>),
    /// A folder as a version has it.
    Root(Way, VersionId),
    /// An inode of a version that was entered so. A directory has one place in the tree, so every
    /// way in has inodes of its own.
    Past(Way, VersionId, Ino),
}

/// How a version was entered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    /// By the `.kura` of this folder.
    pub(super) folder: Ino,
    /// By a tag, or else by its id.
    pub(super) tag: Option<Arc<str>>,
}

/// An inode the kernel holds.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) key: Key,
    /// What it is in its version; `None` until a version's root is first looked at.
    pub(super) past: Option<Arc<Past>>,
    lookups: u64,
}

#[derive(Default)]
pub(super) struct Nodes(Mutex<HashMap<Ino, Node>>);

impl Fixed {
    pub(super) fn ino(self) -> Ino {
        Ino(OUTSIDE | (self as u64 + 1))
    }
}

impl Nodes {
    /// The number of what may or may not be held; the same whenever it is asked for.
    fn number(held: &HashMap<Ino, Node>, key: &Key) -> Ino {
        if let Key::Fixed(Ino::ROOT, fixed) = key {
            return fixed.ino();
        }
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let mut low = hasher.finish() & !OUTSIDE;
        loop {
            low = low.max(FIXED_MAX);
            let ino = Ino(OUTSIDE | low);
            if held.get(&ino).is_none_or(|node| node.key == *key) {
                return ino;
            }
            low = (low + 1) & !OUTSIDE;
        }
    }

    pub(super) fn ino(&self, key: &Key) -> Ino {
        Self::number(&self.0.lock(), key)
    }

    /// Counts one reference by the kernel.
    pub(super) fn refer(&self, key: &Key, past: Option<Arc<Past>>) -> Ino {
        let mut held = self.0.lock();
        let ino = Self::number(&held, key);
        if !matches!(key, Key::Fixed(Ino::ROOT, _)) {
            let node = held.entry(ino).or_insert_with(|| Node { key: key.clone(), past: None, lookups: 0 });
            node.lookups += 1;
            if node.past.is_none() {
                node.past = past;
            }
        }
        ino
    }

    pub(super) fn forget(&self, ino: Ino, count: u64) {
        let mut held = self.0.lock();
        if let Some(node) = held.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(count);
            if node.lookups == 0 {
                held.remove(&ino);
            }
        }
    }

    pub(super) fn find(&self, ino: Ino) -> Option<Node> {
        if let Some(fixed) = FIXED.into_iter().find(|fixed| fixed.ino() == ino) {
            return Some(Node { key: Key::Fixed(Ino::ROOT, fixed), past: None, lookups: 0 });
        }
        self.0.lock().get(&ino).cloned()
    }

    /// Keeps what a held root turned out to be.
    pub(super) fn set_past(&self, ino: Ino, past: Arc<Past>) {
        if let Some(node) = self.0.lock().get_mut(&ino) {
            node.past = Some(past);
        }
    }

    /// How many inodes the kernel holds.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY_ID: Way = Way { folder: Ino::ROOT, tag: None };

    fn version(byte: u8) -> VersionId {
        VersionId(uuid::Uuid::from_bytes([byte; 16]))
    }

    #[test]
    fn inodes_are_freed_when_forgotten_and_keep_their_numbers() {
        let nodes = Nodes::default();
        let key = Key::Past(BY_ID, version(1), Ino(7));
        let ino = nodes.refer(&key, None);
        assert_eq!(nodes.refer(&key, None), ino);
        assert!(is_outside(ino) && ino.0 & !OUTSIDE >= FIXED_MAX);
        nodes.forget(ino, 1);
        assert_eq!(nodes.len(), 1);
        nodes.forget(ino, 1);
        assert_eq!(nodes.len(), 0);
        assert!(nodes.find(ino).is_none());
        assert_eq!(nodes.ino(&key), ino, "the number is the same again");
    }

    #[test]
    fn every_way_into_a_version_has_inodes_of_its_own() {
        let nodes = Nodes::default();
        let by_id = nodes.ino(&Key::Past(BY_ID, version(1), Ino(7)));
        let by_tag = nodes.ino(&Key::Past(Way { tag: Some("a".into()), ..BY_ID }, version(1), Ino(7)));
        let other = nodes.ino(&Key::Past(BY_ID, version(2), Ino(7)));
        let folder = nodes.ino(&Key::Past(Way { folder: Ino(3), tag: None }, version(1), Ino(7)));
        assert!(by_id != by_tag && by_id != other && by_id != folder);
    }

    #[test]
    fn a_number_that_is_taken_is_not_given_again() {
        let key = Key::Past(BY_ID, version(1), Ino(7));
        let mut held = HashMap::new();
        let taken = Nodes::number(&held, &key);
        let other = Key::Past(BY_ID, version(2), Ino(9));
        held.insert(taken, Node { key: other, past: None, lookups: 1 });
        assert_eq!(Nodes::number(&held, &key), Ino(taken.0 + 1));
    }
}
