//! Giving up: a flag that ends waits at once.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Shared by all that works on one run.
#[derive(Clone, Default)]
pub struct Cancel(Arc<(Mutex<bool>, Condvar)>);

impl Cancel {
    /// A run that goes on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the run: waits end now, transfers at their next piece.
    pub fn cancel(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }

    /// Whether the run was ended.
    pub fn is_cancelled(&self) -> bool {
        *self.0.0.lock()
    }

    /// Waits; false at once when the run is ended.
    pub fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut cancelled = self.0.0.lock();
        while !*cancelled {
            if self.0.1.wait_until(&mut cancelled, until).timed_out() {
                return !*cancelled;
            }
        }
        false
    }

    /// An error when the run was ended.
    pub fn check(&self) -> super::Result<()> {
        if self.is_cancelled() { Err(super::BatchError::cancelled()) } else { Ok(()) }
    }

    /// The same for reading and writing.
    pub fn check_io(&self) -> io::Result<()> {
        if self.is_cancelled() { Err(io::Error::other("cancelled")) } else { Ok(()) }
    }
}

/// How often it is looked whether work is to be ended.
const LOOK_MS: u64 = 20;

/// Does something while another thread looks, again and again, whether it is to be ended. Whatever becomes of it, a
/// panic too, the looking ends with it.
pub fn watch<T>(cancel: &Cancel, look: impl Fn() -> bool + Send, act: impl FnOnce() -> T) -> T {
    struct Over(Cancel);
    impl Drop for Over {
        fn drop(&mut self) {
            self.0.cancel();
        }
    }
    let over = Over(Cancel::new());
    let ended = over.0.clone();
    std::thread::scope(|threads| {
        threads.spawn(move || {
            while ended.wait(Duration::from_millis(LOOK_MS)) {
                if look() {
                    cancel.cancel();
                }
            }
        });
        let _over = over;
        act()
    })
}
