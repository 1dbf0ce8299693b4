//! An allocator that looks at memory before it is given back, and counts what is asked for. The whole test binary runs
//! on it; outside of the tests that turn it on it does nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Bytes of what is looked for.
pub const WANTED_LEN: usize = 24;
/// How many different things are looked for at once.
pub const WANTED_COUNT: usize = 3;

struct Watching;

#[global_allocator]
static ALLOCATOR: Watching = Watching;

static IS_ON: AtomicBool = AtomicBool::new(false);
static FOUND: AtomicUsize = AtomicUsize::new(0);
/// What is looked for and masks over it, so that it is not in memory itself.
static WANTED: [[AtomicU8; WANTED_LEN]; WANTED_COUNT] =
    [const { [const { AtomicU8::new(0) }; WANTED_LEN] }; WANTED_COUNT];
static MASKS: [[AtomicU8; WANTED_LEN]; WANTED_COUNT] =
    [const { [const { AtomicU8::new(0) }; WANTED_LEN] }; WANTED_COUNT];
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

thread_local! {
    /// How often this thread asked for memory, and for how many bytes.
    static ASKED: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// The allocator of the system, which is asked for everything and given back everything.
#[allow(unsafe_code, reason = "there is no other way to see memory that is given back")]
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if IS_ON.load(Ordering::Relaxed) {
            // Volatile, since parts of it may never have been written.
            look_at(layout.size(), |at| unsafe { block.add(at).read_volatile() });
        }
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        if IS_ON.load(Ordering::Relaxed) {
            // It may move, and then leaves behind what it held.
            look_at(layout.size(), |at| unsafe { block.add(at).read_volatile() });
        }
        unsafe { System.realloc(block, layout, len) }
    }
}

/// Counting must not fail, not even while a thread ends.
fn count(len: usize) {
    ASKED.try_with(|asked| asked.set((asked.get().0 + 1, asked.get().1 + len as u64))).ok();
}

fn look_at(len: usize, byte: impl Fn(usize) -> u8) {
    for (wanted, mask) in WANTED.iter().zip(&MASKS) {
        let wanted_byte = |at: usize| wanted[at].load(Ordering::Relaxed) ^ mask[at].load(Ordering::Relaxed);
        let first = wanted_byte(0);
        for start in 0..(len + 1).saturating_sub(WANTED_LEN) {
            if byte(start) == first && (1..WANTED_LEN).all(|at| byte(start + at) == wanted_byte(at)) {
                FOUND.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// How often one of the things wanted, given as bytes with masks over them, was in memory that was given back during
/// the work.
pub fn count_in_freed(wanted: [[(u8, u8); WANTED_LEN]; WANTED_COUNT], work: impl FnOnce()) -> usize {
    let _alone = ONE_AT_A_TIME.lock();
    for ((to, masks), from) in WANTED.iter().zip(&MASKS).zip(wanted) {
        for ((to, to_mask), (masked, mask)) in to.iter().zip(masks).zip(from) {
            to.store(masked, Ordering::Relaxed);
            to_mask.store(mask, Ordering::Relaxed);
        }
    }
    FOUND.store(0, Ordering::Relaxed);
    IS_ON.store(true, Ordering::SeqCst);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    IS_ON.store(false, Ordering::SeqCst);
    let found = FOUND.load(Ordering::Relaxed);
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    found
}

/// How often this thread asks for memory during the work, and for how many bytes.
pub fn asked_for(work: impl FnOnce()) -> (u64, u64) {
    let before = ASKED.get();
    work();
    let after = ASKED.get();
    (after.0 - before.0, after.1 - before.1)
}
