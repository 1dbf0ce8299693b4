//! Which files of the live tree are open, and which closes are still on their way.
//!
//! The kernel tells of a close twice: while the closer waits, for each descriptor, and later once for the file,
//! which publishes it. Who asks for a version after a close waits for the second here. Of a file that was made when it
//! was opened only the second comes: it may be on its way as long as the file is open.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::version::entry::Ino;

/// The second word never comes as long as another process has a copy of the descriptor.
const SETTLE_MAX: Duration = Duration::from_millis(200);
/// For a file that was waited for so long, and that may be closed since.
const SETTLE_AGAIN: Duration = Duration::from_millis(10);

#[derive(Default)]
pub(super) struct OpenFiles {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    /// How often each file is open, for reading and for writing.
    open: HashMap<(Ino, bool), u32>,
    /// Files of which a writer's descriptor was closed, or may be.
    closing: HashMap<Ino, Closing>,
    /// Counts descriptors that were closed.
    last: u64,
}

struct Closing {
    descriptors: u32,
    /// The count at the first of them.
    since: u64,
    /// Whether one of them may be open.
    untold: bool,
    /// Whether it was waited for in vain.
    awaited: bool,
}

impl Closing {
    fn new(since: u64, untold: bool) -> Self {
        Self { descriptors: 0, since, untold, awaited: false }
    }
}

impl OpenFiles {
    /// Whether a file is open.
    pub(super) fn any(&self) -> bool {
        !self.state.lock().open.is_empty()
    }

    pub(super) fn opened(&self, ino: Ino, write: bool) {
        *self.state.lock().open.entry((ino, write)).or_default() += 1;
    }

    /// A file was made and is open for writing; nobody will say that a descriptor is being closed.
    pub(super) fn made(&self, ino: Ino) {
        let mut state = self.state.lock();
        *state.open.entry((ino, true)).or_default() += 1;
        state.last += 1;
        let since = state.last;
        state.closing.entry(ino).or_insert(Closing::new(since, true)).descriptors += 1;
    }

    /// A descriptor for writing is being closed; others for the same opening may be left.
    pub(super) fn closing(&self, ino: Ino) {
        let mut state = self.state.lock();
        state.last += 1;
        let since = state.last;
        if state.open.contains_key(&(ino, true)) {
            let closing = state.closing.entry(ino).or_insert(Closing::new(since, false));
            closing.descriptors += 1;
            closing.awaited = false;
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
    /// closed, and is waited for only once; one that nobody says is closed is not waited for as long again.
    pub(super) fn settle(&self) {
        let begun = Instant::now();
        let mut state = self.state.lock();
        let before = state.last;
        loop {
            let mut asked = state.closing.values().filter(|closing| closing.since <= before).peekable();
            if asked.peek().is_none() {
                return;
            }
            let end = begun + if asked.all(|closing| closing.awaited) { SETTLE_AGAIN } else { SETTLE_MAX };
            if self.released.wait_until(&mut state, end).timed_out() {
                break;
            }
        }
        state.closing.retain(|_, closing| {
            closing.awaited |= closing.since <= before;
            closing.since > before || closing.untold
        });
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
    fn a_file_that_was_made_may_be_closed_at_any_time_and_is_waited_for_less_the_second_time() {
        let files = OpenFiles::default();
        files.made(FILE);
        files.settle();
        assert!(files.state.lock().closing[&FILE].awaited, "it may be closed by the next time");
        files.settle();
        files.opened(FILE, true);
        files.closing(FILE);
        assert!(!files.state.lock().closing[&FILE].awaited, "who closes it says so");
        files.close(FILE, true, || {});
        files.close(FILE, true, || {});
        assert!(files.state.lock().closing.is_empty() && files.take().is_empty());
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
