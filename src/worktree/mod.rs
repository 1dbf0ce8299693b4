//! (worktree)
