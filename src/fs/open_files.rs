//! Which files of the live tree are open, and which closes are still on their way.
//!
//! The kernel tells of a close twice: while the closer waits, for each descriptor, and later once for the file,
//! which publishes it. Who asks for a version after a close waits for the second here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::version::entry::Ino;

/// The second word never comes as long as another process has a copy of the descriptor.
const SETTLE_MAX: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(super) struct OpenFiles {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    /// How often each file is open, for reading and for writing.
    open: HashMap<(Ino, bool), u32>,
    /// Files of which a writer's descriptor was closed.
    closing: HashMap<Ino, Closing>,
    /// Counts descriptors that were closed.
    last: u64,
}

struct Closing {
    descriptors: u32,
    /// The count at the first of them.
    since: u64,
}

impl OpenFiles {
    /// Whether a file is open.
    pub(super) fn any(&self) -> bool {
        !self.state.lock().open.is_empty()
    }

    pub(super) fn opened(&self, ino: Ino, write: bool) {
        *self.state.lock().open.entry((ino, write)).or_default() += 1;
    }

    /// A descriptor for writing is being closed; others for the same opening may be left.
    pub(super) fn closing(&self, ino: Ino) {
        let mut state = self.state.lock();
        state.last += 1;
        let since = state.last;
        if state.open.contains_key(&(ino, true)) {
            state.closing.entry(ino).or_insert(Closing { descriptors: 0, since }).descriptors += 1;
        }
    }

    /// Closes a file by `release`, unless it is not open.
    pub(super) fn close(&self, ino: Ino, write: bool, release: impl FnOnce()) {
        {
            let mut state = self.state.lock();
            let Some(count) = state.open.get_mut(&(ino, write)) else { return };
            *count -= 1;
            if *count == 0 {
                state.open.remove(&(ino, write));
            }
        }
        release();
        if !write {
            return;
        }
        let mut state = self.state.lock();
        let is_open = state.open.contains_key(&(ino, true));
        if let Some(closing) = state.closing.get_mut(&ino) {
            closing.descriptors -= 1;
            if closing.descriptors == 0 || !is_open {
                state.closing.remove(&ino);
            }
            self.released.notify_all();
        }
    }

    /// Everything that is open: inode, whether for writing, how often. It counts as closed from now on.
    pub(super) fn take(&self) -> HashMap<(Ino, bool), u32> {
        let mut state = self.state.lock();
        state.closing.clear();
        std::mem::take(&mut state.open)
    }

    /// Waits until the files that were closed before are published. One whose descriptor others keep is not
    /// closed, and is waited for only once.
    pub(super) fn settle(&self) {
        let end = Instant::now() + SETTLE_MAX;
        let mut state = self.state.lock();
        let before = state.last;
        while state.closing.values().any(|closing| closing.since <= before) {
            if self.released.wait_until(&mut state, end).timed_out() {
                state.closing.retain(|_, closing| closing.since > before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const FILE: Ino = Ino(7);

    #[test]
    fn settling_waits_for_the_release_of_what_was_closed() {
        let files = Arc::new(OpenFiles::default());
        files.opened(FILE, true);
        files.closing(FILE);
        let published = Arc::new(AtomicBool::new(false));
        let release = {
            let (files, published) = (files.clone(), published.clone());
            move || files.close(FILE, true, || published.store(true, Ordering::SeqCst))
        };
        let releasing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            release();
        });
        files.settle();
        assert!(published.load(Ordering::SeqCst));
        releasing.join().unwrap();
        assert!(files.take().is_empty());
    }

    #[test]
    fn a_descriptor_that_another_process_keeps_is_waited_for_once() {
        let files = OpenFiles::default();
        files.opened(FILE, true);
        files.closing(FILE);
        files.settle();
        assert!(files.state.lock().closing.is_empty());
        let mut released = false;
        files.closing(FILE);
        files.closing(FILE);
        files.close(FILE, true, || released = true);
        assert!(released && files.state.lock().closing.is_empty(), "the last writer leaves nothing to wait for");
    }

    #[test]
    fn what_is_closed_later_or_was_only_read_is_not_waited_for() {
        let files = OpenFiles::default();
        files.closing(FILE);
        files.opened(FILE, false);
        files.closing(FILE);
        assert!(files.state.lock().closing.is_empty());
        files.close(FILE, false, || {});
        files.close(FILE, false, || panic!("it is not open"));
    }
}
