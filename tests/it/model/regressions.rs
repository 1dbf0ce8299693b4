//! Sequences that went wrong once.

use kura::worktree::{FileKind, RenameMode};

use super::op::{At, Op};
use super::run::run;

#[test]
fn regression_directory_changed_after_reopening_is_found_by_replay() {
    let make = |at, kind| Op::Make { at, kind, open: false };
    run(
        &[
            make(At(0, 0), FileKind::Directory),
            make(At(1, 0), FileKind::File),
            Op::Checkpoint,
            Op::Reopen,
            Op::Chmod { at: At(1, 0), mode: 0o600 },
            make(At(1, 1), FileKind::File),
            Op::Kill,
        ],
        100,
    );
}

#[test]
fn regression_empty_file_published_by_rename_survives_kill() {
    run(
        &[
            Op::Make { at: At(0, 0), kind: FileKind::File, open: true },
            Op::Make { at: At(0, 1), kind: FileKind::File, open: false },
            Op::Close(0),
            Op::Rename { from: At(0, 0), to: At(0, 1), mode: RenameMode::Replace },
            Op::Kill,
        ],
        6,
    );
}

#[test]
fn regression_draft_of_nothing_but_a_hole_keeps_its_length() {
    run(
        &[
            Op::Make { at: At(0, 0), kind: FileKind::File, open: true },
            Op::Write { handle: 0, offset: 133, len: 219, seed: 0 },
            Op::Fallocate { handle: 0, offset: 0, len: 4000, zero: true, keep_size: true },
            Op::Reopen,
        ],
        6,
    );
}
