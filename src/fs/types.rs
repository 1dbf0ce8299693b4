//! The words of this room.

use std::sync::Arc;

use super::control::Item;
use crate::version::entry::Ino;
use crate::worktree::Attr;

/// How the file system is to behave.
#[derive(Clone, Copy, Debug)]
pub struct FsOptions {
    /// The one user who may enter `.kura`.
    pub owner_uid: u32,
    /// The group of `.kura`.
    pub owner_gid: u32,
    /// Whether files have extended attributes. Without them, listings and writes need fewer requests.
    pub xattrs: bool,
}

/// An open file's number; 0 for files whose handle needs no state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// Attributes, and how long they stay right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The attributes.
    pub attr: Attr,
    /// Whether they (and the name they were found by) may be kept until an invalidation.
    pub lasting: bool,
}

/// What a name stands for; counts as one reference by the kernel, to be given back by
/// [`Fs::forget`](super::Fs::forget).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named(pub Shown);

/// How a file is to be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenHow {
    /// For writing (and perhaps reading).
    pub write: bool,
    /// Cut to nothing.
    pub truncate: bool,
    /// Fail when the name exists.
    pub exclusive: bool,
    /// The thread that asks; 0 where it is not known.
    pub thread: u32,
}

/// An open file, to be given back by [`Fs::release`](super::Fs::release).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The inode.
    pub ino: Ino,
    /// The handle.
    pub handle: Handle,
    /// Whether it was opened for writing.
    pub write: bool,
    /// How its bytes may be kept.
    pub caching: Caching,
}

/// How the bytes of an open file may be kept by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Until an invalidation.
    Kept,
    /// Not at all.
    Never,
    /// Not at all, and there is no position in the file: every read gets what comes next.
    Stream,
    /// Not at all, and each close of a descriptor is told.
    Talk,
}

/// What `fallocate` is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FallocateMode {
    /// Let the range read as zeros.
    pub zero: bool,
    /// Leave the size as it is.
    pub keep_size: bool,
}

/// How much fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes in files.
    pub used_bytes: u64,
    /// Bytes free on the disk of the state directory.
    pub free_bytes: u64,
    /// Names in the tree.
    pub files: u64,
}

/// One line of a directory listing.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Continue after it with this offset.
    pub offset: u64,
    /// Its inode.
    pub shown: Shown,
}

/// A directory that is ready to be listed without waiting.
pub struct Listing {
    pub(super) dir: Ino,
    pub(super) offset: u64,
    pub(super) parent: Ino,
    /// Names outside of the live tree; `None` for directories in it.
    pub(super) items: Option<Arc<[Item]>>,
}
