//! Sequences that went wrong once.

use kura::worktree::FileKind;

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
