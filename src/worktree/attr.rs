//! What callers see of an inode, and what they may ask to change.

use crate::base::clock::Timestamp;
use crate::version::entry::Ino;

/// Kinds of inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// The attributes of an inode, as `stat` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// Kind.
    pub kind: FileKind,
    /// Permission bits (07777).
    pub mode: u16,
    /// Number of names (of a directory: 2 and its subdirectories).
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Length in bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Access time as last set.
    pub atime: Timestamp,
    /// Modification time.
    pub mtime: Timestamp,
    /// Time of the last change of the inode.
    pub ctime: Timestamp,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A new value for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// This very time.
    At(Timestamp),
    /// The present.
    Now,
}

/// Attributes to change; `None` leaves them as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    /// Permission bits (07777).
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
}

/// A node to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewNode {
    /// An empty regular file.
    File,
    /// An empty directory.
    Directory,
    /// A symbolic link to a target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device with its number.
    CharDevice(u32),
    /// A block device with its number.
    BlockDevice(u32),
}

/// Where a file's content stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Written to and not published.
    Draft,
    /// As [`Draft`](Self::Draft), found in the journal after a kill.
    Recovered,
    /// Published; in no version yet.
    Published,
    /// As in the newest version.
    Recorded,
}

impl FileState {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            FileState::Draft => "draft",
            FileState::Recovered => "recovered",
            FileState::Published => "closed",
            FileState::Recorded => "recorded",
        }
    }
}

/// How large the tree is, and how much more fits on the local disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Sum of the sizes of published files.
    pub used_bytes: u64,
    /// Free on the disk of the state directory.
    pub free_bytes: u64,
    /// Files and directories without the root.
    pub names: u64,
}
