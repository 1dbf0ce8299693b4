//! Between the library's words and ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, FopenFlags, INodeNo, TimeOrNow};

use crate::base::clock::Timestamp;
use crate::fs::{Caching, FallocateMode, OpenHow, Opened};
use crate::version::entry::Ino;
use crate::worktree::{Attr, FileKind, NewNode, RenameMode, SetTime, XattrMode};

/// As good as for ever: only we change the tree, and we say so.
const LASTING: Duration = Duration::from_secs(1 << 30);

pub(super) fn ttl(lasting: bool) -> Duration {
    if lasting { LASTING } else { Duration::ZERO }
}

pub(super) fn ino(ino: INodeNo) -> Ino {
    Ino(ino.0)
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.to_system(),
        mtime: attr.mtime.to_system(),
        ctime: attr.ctime.to_system(),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: 4096,
        flags: 0,
    }
}

/// The answer that there is no such name: the number 0.
pub(super) fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// A time to be set. The library takes the nanoseconds of a time before 1970 away instead of adding
/// them; this undoes it.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(timestamp(time)),
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(_) => Timestamp::from_system(time),
        Err(before) => {
            let distance = before.duration();
            let seconds = i64::try_from(distance.as_secs()).map_or(i64::MIN, |seconds| -seconds);
            Timestamp::from_parts(seconds, distance.subsec_nanos())
        }
    }
}

/// The permission bits of a mode.
pub(super) fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

/// The node that `mknod` is to make; `None` for what it cannot make.
pub(super) fn new_node(mode: u32, rdev: u32) -> Option<NewNode> {
    Some(match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => NewNode::File,
        libc::S_IFIFO => NewNode::Fifo,
        libc::S_IFSOCK => NewNode::Socket,
        libc::S_IFCHR => NewNode::CharDevice(rdev),
        libc::S_IFBLK => NewNode::BlockDevice(rdev),
        _ => return None,
    })
}

pub(super) fn is_write(flags: i32) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY
}

pub(super) fn open_how(flags: i32, thread: u32) -> OpenHow {
    let (truncate, exclusive) = (flags & libc::O_TRUNC != 0, flags & libc::O_EXCL != 0);
    OpenHow { write: is_write(flags), truncate, exclusive, thread }
}

/// Only writers tell of every close, so that what they wrote is kept before the close returns.
pub(super) fn open_flags(opened: &Opened) -> FopenFlags {
    match opened.caching {
        Caching::Kept if opened.write => FopenFlags::FOPEN_KEEP_CACHE,
        Caching::Kept => FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
        Caching::Never => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH,
        Caching::Stream => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_STREAM | FopenFlags::FOPEN_NOFLUSH,
        Caching::Talk => FopenFlags::FOPEN_DIRECT_IO,
    }
}

/// The mode of a rename; `None` for flags that are not known.
pub(super) fn rename_mode(flags: u32) -> Option<RenameMode> {
    match flags {
        0 => Some(RenameMode::Replace),
        libc::RENAME_NOREPLACE => Some(RenameMode::NoReplace),
        libc::RENAME_EXCHANGE => Some(RenameMode::Exchange),
        _ => None,
    }
}

pub(super) fn xattr_mode(flags: i32) -> Option<XattrMode> {
    match flags {
        0 => Some(XattrMode::Set),
        libc::XATTR_CREATE => Some(XattrMode::Create),
        libc::XATTR_REPLACE => Some(XattrMode::Replace),
        _ => None,
    }
}

/// What a `fallocate` mode asks for; `None` for what is not supported.
pub(super) fn fallocate_mode(mode: i32) -> Option<FallocateMode> {
    const ZERO_AND_KEEP: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH_AND_KEEP: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let (zero, keep_size) = match mode {
        0 => (false, false),
        libc::FALLOC_FL_KEEP_SIZE => (false, true),
        libc::FALLOC_FL_ZERO_RANGE => (true, false),
        ZERO_AND_KEEP | PUNCH_AND_KEEP => (true, true),
        _ => return None,
    };
    Some(FallocateMode { zero, keep_size })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the library makes a time out of the kernel's seconds and nanoseconds.
    fn as_delivered(seconds: i64, nanoseconds: u32) -> SystemTime {
        let distance = Duration::new(seconds.unsigned_abs(), nanoseconds);
        if seconds >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
    }

    #[test]
    fn times_before_1970_arrive_as_they_were_sent() {
        for (seconds, nanoseconds) in [(0, 0), (5, 999_999_999), (-1, 0), (-1, 1), (-2, 800_000_000), (-86_400, 7)] {
            let time = timestamp(as_delivered(seconds, nanoseconds));
            assert_eq!(time.parts(), (seconds, nanoseconds));
        }
    }

    #[test]
    fn fallocate_modes_that_are_not_supported_are_told_apart() {
        assert_eq!(fallocate_mode(0), Some(FallocateMode { zero: false, keep_size: false }));
        assert_eq!(fallocate_mode(3), Some(FallocateMode { zero: true, keep_size: true }));
        assert_eq!(fallocate_mode(0x10), Some(FallocateMode { zero: true, keep_size: false }));
        assert_eq!(fallocate_mode(libc::FALLOC_FL_COLLAPSE_RANGE), None);
        assert_eq!(fallocate_mode(libc::FALLOC_FL_INSERT_RANGE), None);
        assert_eq!(fallocate_mode(libc::FALLOC_FL_UNSHARE_RANGE), None);
    }
}
