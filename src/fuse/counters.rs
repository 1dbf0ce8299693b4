//! How many requests came.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! operations {
    ($($name:ident),* $(,)?) => {
        /// A kind of request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "named as the requests are")]
        pub enum Operation { $($name),* }

        const OPERATIONS: &[Operation] = &[$(Operation::$name),*];
    };
}

operations! {
    Lookup, Forget, Getattr, Setattr, Readlink, Mknod, Mkdir, Unlink, Rmdir, Symlink, Rename, Link, Open, Create,
    Read, Write, Release, Flush, Fsync, Fsyncdir, Readdir, Readdirplus, Statfs, Setxattr, Getxattr, Listxattr,
    Removexattr, Fallocate, Lseek, CopyFileRange, Opendir, Access, Control, Other,
}

/// Requests by kind since the mount began.
pub(super) struct Counters([AtomicU64; OPERATIONS.len()]);

impl Counters {
    pub(super) fn new() -> Self {
        Self([const { AtomicU64::new(0) }; OPERATIONS.len()])
    }

    pub(super) fn count(&self, operation: Operation) {
        self.0[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn all(&self) -> Vec<(Operation, u64)> {
        OPERATIONS.iter().map(|operation| (*operation, self.0[*operation as usize].load(Ordering::Relaxed))).collect()
    }
}
