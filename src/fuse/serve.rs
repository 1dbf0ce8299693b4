//! How a request is served: at once from memory, or on a pool, answered in time in either case.

use std::any::Any;
use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fuser::{
    INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
};
use parking_lot::Mutex;

use super::asked::Asked;
use super::counters::{Counters, Operation};
use super::deadlines::{Deadlines, Expire};
use super::errno::{errno, is_trouble};
use super::near::Near;
use super::pool::{Job, Pool};
use super::wipe::Wiper;
use crate::fs::{Fs, FsError, Listing, Named, Opened, Result, Shown, Space};
use crate::worktree::{Wait, WorkError};

/// Threads for what waits for the store.
const STORE_THREADS: usize = 16;
/// Threads for what waits for the disk; flushes share one write, so several at once cost no more.
const DISK_THREADS: usize = 4;
/// Threads for writers that wait until there is room for their bytes; they keep nobody else waiting.
const WRITE_THREADS: usize = 4;

/// Threads for changes and control requests.
const CONTROL_THREADS: usize = 8;

/// A reply that can say no.
pub(super) trait Refuse: Send + 'static {
    fn refuse(self, error: &FsError);
}

macro_rules! refuse {
    ($($reply:ident),*) => {
        $(impl Refuse for $reply {
            fn refuse(self, error: &FsError) {
                self.error(errno(error));
            }
        })*
    };
}

refuse!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

/// A result that nobody waits for any more.
pub(super) trait GiveBack: Send + 'static {
    /// Whether it says that there is nothing of the name.
    fn is_nothing(&self) -> bool {
        false
    }

    /// Undoes what the kernel would undo, had it been told.
    fn give_back(self, _fs: &Fs)
    where
        Self: Sized,
    {
    }
}

impl GiveBack for () {}
impl GiveBack for u64 {}
impl GiveBack for Vec<u8> {}
impl GiveBack for Shown {}
impl GiveBack for Space {}
impl GiveBack for Listing {}

impl GiveBack for Named {
    fn give_back(self, fs: &Fs) {
        fs.forget(self.0.attr.ino, 1);
    }
}

impl GiveBack for Option<Named> {
    fn is_nothing(&self) -> bool {
        self.is_none()
    }

    fn give_back(self, fs: &Fs) {
        if let Some(named) = self {
            named.give_back(fs);
        }
    }
}

impl GiveBack for Opened {
    fn give_back(self, fs: &Fs) {
        // Nobody wrote to it.
        drop(fs.release(&self));
    }
}

impl GiveBack for (Named, Opened) {
    fn give_back(self, fs: &Fs) {
        self.1.give_back(fs);
        self.0.give_back(fs);
    }
}

/// Serves the requests of one mount.
pub(super) struct Server {
    pub(super) fs: Arc<Fs>,
    pub(super) counters: Counters,
    pub(super) wiper: Arc<Wiper>,
    deadline: Duration,
    /// For requests to control files, which may record or restore a version.
    control_deadline: Duration,
    deadlines: Arc<Deadlines>,
    store: Pool,
    disk: Pool,
    writers: Pool,
    pub(super) near: Near,
    control: Pool,
    /// Whether nothing is served any more.
    has_left: AtomicBool,
}

/// A reply and what to do with it, until someone takes it.
struct Slot<R, A>(Mutex<Option<(R, A, Asked)>>, Operation);

impl<R: Refuse, A: Send> Expire for Slot<R, A> {
    fn expire(&self) {
        let taken = self.0.lock().take();
        if let Some((reply, _, asked)) = taken {
            tracing::error!("{:?} took too long and was given up", self.1);
            asked.told(Some(&FsError::TimedOut));
            reply.refuse(&FsError::TimedOut);
        }
    }
}

impl Server {
    pub(super) fn new(fs: Arc<Fs>, deadline: Duration) -> Self {
        Self {
            fs,
            counters: Counters::new(),
            wiper: Wiper::new(),
            deadline,
            control_deadline: deadline * 10,
            deadlines: Arc::default(),
            store: Pool::new("fuse-store", STORE_THREADS),
            disk: Pool::new("fuse-disk", DISK_THREADS),
            writers: Pool::new("fuse-write", WRITE_THREADS),
            near: Near::default(),
            control: Pool::new("fuse-control", CONTROL_THREADS),
            has_left: AtomicBool::new(false),
        }
    }

    /// From now on every request is refused: the kernel may go on asking, and nothing is kept any more.
    pub(super) fn leave(&self) {
        self.has_left.store(true, Ordering::SeqCst);
    }

    /// Refuses a request where nothing is served any more.
    pub(super) fn check_served(&self) -> Result<()> {
        if self.has_left.load(Ordering::Relaxed) { Err(FsError::Ended) } else { Ok(()) }
    }

    /// Ends all threads; what is under way is answered first.
    pub(super) fn close(&self) {
        self.store.close();
        self.disk.close();
        self.control.close();
        self.writers.close();
        self.deadlines.close();
    }

    /// A request has come.
    pub(super) fn asked(&self, operation: Operation, request: &Request, node: INodeNo, name: Option<&OsStr>) -> Asked {
        self.counters.count(operation);
        Asked::new(&self.fs, operation, request, node, name)
    }

    /// Serves a request: `work` without waiting and, where that will not do, again on the pool; then
    /// `answer`.
    pub(super) fn serve<R: Refuse, T: GiveBack>(
        &self,
        asked: Asked,
        reply: R,
        work: impl Fn(&Fs, Wait) -> Result<T> + Send + 'static,
        answer: impl FnOnce(&Fs, R, T) + Send + 'static,
    ) {
        guarded(asked.operation, || match self.check_served().and_then(|()| work(&self.fs, Wait::No)) {
            Ok(value) => {
                told(asked, &value);
                answer(&self.fs, reply, value);
            }
            Err(error) if error.would_block() => {
                self.put_off(asked, reply, move |fs| work(fs, Wait::Yes), answer, |_| {});
            }
            Err(error) => refuse(asked, reply, &error),
        });
    }

    /// Runs `work`, for which nobody waits, on a pool; when too much waits there it is left undone.
    pub(super) fn in_background(&self, operation: Operation, work: impl FnOnce(&Fs) + Send + 'static) {
        let (fs, pool) = (self.fs.clone(), if operation == Operation::Control { &self.control } else { &self.store });
        pool.submit(Box::new(move || guarded(operation, || work(&fs))));
    }

    /// Runs `work` on the pool, then `answer`, then `after`, for which the caller does not wait.
    pub(super) fn put_off<R: Refuse, T: GiveBack>(
        &self,
        asked: Asked,
        reply: R,
        work: impl FnOnce(&Fs) -> Result<T> + Send + 'static,
        answer: impl FnOnce(&Fs, R, T) + Send + 'static,
        after: impl FnOnce(&Fs) + Send + 'static,
    ) {
        let operation = asked.operation;
        let (pool, limit) = match operation {
            Operation::Flush => (&self.disk, self.deadline),
            Operation::Fsync | Operation::Fsyncdir if !self.fs.fsync_waits_for_store() => (&self.disk, self.deadline),
            Operation::Write | Operation::CopyFileRange => (&self.writers, self.control_deadline),
            // Reads that wait for the store must not keep these waiting.
            Operation::Control | Operation::Mkdir | Operation::Rmdir => (&self.control, self.control_deadline),
            _ => (&self.store, self.deadline),
        };
        self.put_off_to(|job| pool.submit(job), limit, asked, reply, (work, answer, after));
    }

    /// As [`put_off`](Self::put_off) for a read from the local disk, while another thread is reading from it.
    pub(super) fn put_off_near<R: Refuse, T: GiveBack>(
        &self,
        asked: Asked,
        reply: R,
        work: impl FnOnce(&Fs) -> Result<T> + Send + 'static,
        answer: impl FnOnce(&Fs, R, T) + Send + 'static,
    ) {
        let submit = |job| self.near.leave(job).or_else(|job| if self.store.submit(job) { Ok(()) } else { Err(()) });
        self.put_off_to(|job| submit(job).is_ok(), self.deadline, asked, reply, (work, answer, |_: &Fs| {}));
    }

    /// Serves a request that the disk be flushed. When `begin` says that it takes no longer than the disk does, and no
    /// other thread waits for the disk, that happens here: to wake another thread for it, and be woken, takes as long.
    pub(super) fn sync(
        &self,
        asked: Asked,
        reply: ReplyEmpty,
        begin: impl FnOnce(&Fs) -> Result<bool>,
        work: impl Fn(&Fs, Wait) -> Result<()> + Send + 'static,
    ) {
        guarded(asked.operation, || {
            let turn = self.near.enter_syncing();
            let is_short = turn.is_some() && !self.has_left.load(Ordering::Relaxed) && begin(&self.fs).unwrap_or(false);
            if !is_short {
                drop(turn);
                return self.serve(asked, reply, work, |_, reply, ()| reply.ok());
            }
            let here = |job: Job| {
                job();
                true
            };
            let steps = (|fs: &Fs| fs.flush_disk(), |_: &Fs, reply: ReplyEmpty, ()| reply.ok(), |_: &Fs| {});
            self.put_off_to(here, self.deadline, asked, reply, steps);
        });
    }

    /// Has `submit` run the three steps of a request, the first of them until the deadline.
    fn put_off_to<R: Refuse, T: GiveBack>(
        &self,
        submit: impl FnOnce(Job) -> bool,
        limit: Duration,
        asked: Asked,
        reply: R,
        (work, answer, after): (
            impl FnOnce(&Fs) -> Result<T> + Send + 'static,
            impl FnOnce(&Fs, R, T) + Send + 'static,
            impl FnOnce(&Fs) + Send + 'static,
        ),
    ) {
        let operation = asked.operation;
        let slot = Arc::new(Slot(Mutex::new(Some((reply, answer, asked))), operation));
        let ticket = self.deadlines.add(limit, slot.clone());
        let (fs, deadlines, job_slot) = (self.fs.clone(), self.deadlines.clone(), slot.clone());
        let submitted = submit(Box::new(move || {
            guarded(operation, || {
                let done = work(&fs);
                let taken = job_slot.0.lock().take();
                match (taken, done) {
                    (Some((reply, answer, asked)), Ok(value)) => {
                        told(asked, &value);
                        answer(&fs, reply, value);
                    }
                    (Some((reply, _, asked)), Err(error)) => refuse(asked, reply, &error),
                    (None, Ok(value)) => value.give_back(&fs),
                    (None, Err(error)) => tracing::warn!("{operation:?} failed after it was given up: {error}"),
                }
                after(&fs);
            });
            // After a panic the reply is still there; dropping it answers EIO.
            drop(job_slot.0.lock().take());
            deadlines.remove(ticket);
        }));
        if !submitted {
            self.deadlines.remove(ticket);
            let taken = slot.0.lock().take();
            if let Some((reply, _, asked)) = taken {
                refuse(asked, reply, &FsError::Busy);
            }
        }
    }
}

/// A panic ends the request and not the mount. Its reply is dropped on the way, which answers EIO.
pub(super) fn guarded(operation: Operation, serve: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(serve)) {
        tracing::error!("{operation:?} panicked: {}", words_of(&*panic));
    }
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let words = panic.downcast_ref::<&str>().copied();
    words.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}

/// A request is answered with a value.
fn told<T: GiveBack>(asked: Asked, value: &T) {
    let nothing = FsError::Work(WorkError::NotFound);
    asked.told(value.is_nothing().then_some(&nothing));
}

/// Answers that a request failed.
pub(super) fn refuse<R: Refuse>(asked: Asked, reply: R, error: &FsError) {
    let operation = asked.operation;
    asked.told(Some(error));
    refuse_logged(operation, reply, error);
}

pub(super) fn refuse_logged<R: Refuse>(operation: Operation, reply: R, error: &FsError) {
    if is_trouble(error) {
        tracing::error!("{operation:?}: {error}");
    }
    reply.refuse(error);
}
