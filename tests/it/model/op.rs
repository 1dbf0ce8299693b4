//! Operations on a tree; small numbers choose among what there is when they are carried out.

use kura::worktree::{FileKind, RenameMode, XattrMode};
use proptest::prelude::*;

/// A name: a directory (chosen among those there are) and one of a few names in it.
#[derive(Clone, Copy, Debug)]
pub struct At(pub u8, pub u8);

#[derive(Clone, Debug)]
pub enum Op {
    Make {
        at: At,
        kind: FileKind,
        open: bool,
    },
    Link {
        from: At,
        to: At,
    },
    Unlink(At),
    Rmdir(At),
    Rename {
        from: At,
        to: At,
        mode: RenameMode,
    },
    Open {
        at: At,
        write: bool,
        truncate: bool,
    },
    Close(u8),
    Write {
        handle: u8,
        offset: u32,
        len: u32,
        seed: u8,
    },
    Fallocate {
        handle: u8,
        offset: u32,
        len: u32,
        zero: bool,
        keep_size: bool,
    },
    Truncate {
        at: At,
        size: u32,
    },
    Fsync(At),
    Chmod {
        at: At,
        mode: u16,
    },
    Chown {
        at: At,
        uid: u32,
    },
    Utimes {
        at: At,
        mtime: u8,
    },
    SetXattr {
        at: At,
        name: u8,
        len: u8,
        mode: XattrMode,
    },
    RemoveXattr {
        at: At,
        name: u8,
    },
    Checkpoint,
    LogDrafts,
    Absorb,
    Sync,
    /// Everything is made durable, the tree closed and opened again.
    Reopen,
    /// The process is killed without warning.
    Kill,
    Upload,
    /// The kernel forgets whatever no handle needs.
    Forget,
}

fn at() -> impl Strategy<Value = At> {
    (0..5_u8, 0..5_u8).prop_map(|(dir, name)| At(dir, name))
}

fn kind() -> impl Strategy<Value = FileKind> {
    prop_oneof![
        6 => Just(FileKind::File),
        4 => Just(FileKind::Directory),
        1 => Just(FileKind::Symlink),
        1 => Just(FileKind::Fifo),
        1 => Just(FileKind::Socket),
        1 => Just(FileKind::CharDevice),
        1 => Just(FileKind::BlockDevice),
    ]
}

fn offset() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0..600_u32,
        2 => prop::sample::select(vec![0, 1, 255, 256, 257, 4095, 4096, 4097]),
        1 => prop::sample::select(vec![100_000, 262_143, 262_144, 262_145, 300_000, 700_000]),
    ]
}

fn len() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 1..400_u32, 2 => 4000..9000_u32, 1 => prop::sample::select(vec![262_143, 262_145, 600_000])]
}

fn rename_mode() -> impl Strategy<Value = RenameMode> {
    prop_oneof![
        6 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        2 => Just(RenameMode::Exchange),
    ]
}

fn xattr_mode() -> impl Strategy<Value = XattrMode> {
    prop_oneof![Just(XattrMode::Set), Just(XattrMode::Create), Just(XattrMode::Replace)]
}

pub fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![names(), content(), attributes(), lives()]
}

fn names() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (at(), kind(), any::<bool>()).prop_map(|(at, kind, open)| Op::Make { at, kind, open }),
        2 => (at(), at()).prop_map(|(from, to)| Op::Link { from, to }),
        2 => at().prop_map(Op::Unlink),
        1 => at().prop_map(Op::Rmdir),
        4 => (at(), at(), rename_mode()).prop_map(|(from, to, mode)| Op::Rename { from, to, mode }),
    ]
}

fn content() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (at(), any::<bool>(), any::<bool>())
            .prop_map(|(at, write, truncate)| Op::Open { at, write, truncate: truncate && write }),
        3 => any::<u8>().prop_map(Op::Close),
        6 => (any::<u8>(), offset(), len(), any::<u8>())
            .prop_map(|(handle, offset, len, seed)| Op::Write { handle, offset, len, seed }),
        2 => (any::<u8>(), offset(), len(), any::<bool>(), any::<bool>()).prop_map(
            |(handle, offset, len, zero, keep_size)| Op::Fallocate { handle, offset, len, zero, keep_size }
        ),
        2 => (at(), offset()).prop_map(|(at, size)| Op::Truncate { at, size }),
        2 => at().prop_map(Op::Fsync),
    ]
}

fn attributes() -> impl Strategy<Value = Op> {
    prop_oneof![
        (at(), 0..0o10000_u16).prop_map(|(at, mode)| Op::Chmod { at, mode }),
        (at(), 0..3_u32).prop_map(|(at, uid)| Op::Chown { at, uid }),
        (at(), any::<u8>()).prop_map(|(at, mtime)| Op::Utimes { at, mtime }),
        (at(), 0..3_u8, any::<u8>(), xattr_mode()).prop_map(|(at, name, len, mode)| Op::SetXattr {
            at,
            name,
            len,
            mode
        }),
        (at(), 0..3_u8).prop_map(|(at, name)| Op::RemoveXattr { at, name }),
    ]
}

fn lives() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Checkpoint),
        2 => Just(Op::LogDrafts),
        2 => Just(Op::Absorb),
        1 => Just(Op::Sync),
        2 => Just(Op::Reopen),
        3 => Just(Op::Kill),
        2 => Just(Op::Upload),
        2 => Just(Op::Forget),
    ]
}
