//! Requests that must be answered by some time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Something that ends when its time is over.
pub(super) trait Expire: Send + Sync {
    fn expire(&self);
}

/// When, and a number that tells apart what ends at the same time.
pub(super) type Ticket = (Instant, u64);

/// What has to end, by time.
#[derive(Default)]
pub(super) struct Deadlines {
    state: Mutex<State>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<Ticket, Arc<dyn Expire>>,
    last: u64,
    is_closing: bool,
}

impl Deadlines {
    /// Notes that something must end within `limit`.
    pub(super) fn add(self: &Arc<Self>, limit: Duration, what: Arc<dyn Expire>) -> Ticket {
        let ticket = {
            let mut state = self.state.lock();
            state.last += 1;
            let ticket = (Instant::now() + limit, state.last);
            state.waiting.insert(ticket, what);
            ticket
        };
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let deadlines = self.clone();
            let spawned = std::thread::Builder::new().name("fuse-deadline".into()).spawn(move || deadlines.watch());
            match spawned {
                Ok(handle) => *thread = Some(handle),
                Err(error) => tracing::error!("no thread to watch deadlines: {error}"),
            }
        }
        ticket
    }

    /// It has ended.
    pub(super) fn remove(&self, ticket: Ticket) {
        self.state.lock().waiting.remove(&ticket);
    }

    /// Expires nothing more.
    pub(super) fn close(&self) {
        self.state.lock().is_closing = true;
        self.changed.notify_all();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that watches deadlines panicked");
        }
    }

    fn watch(&self) {
        /// Deadlines are long, so looking now and then is enough, and adding one wakes nobody.
        const PACE: Duration = Duration::from_millis(250);
        loop {
            let over = {
                let mut state = self.state.lock();
                self.changed.wait_for(&mut state, PACE);
                if state.is_closing {
                    return;
                }
                let later = state.waiting.split_off(&(Instant::now(), 0));
                std::mem::replace(&mut state.waiting, later)
            };
            over.values().for_each(|what| what.expire());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Told(Mutex<mpsc::Sender<u32>>, u32);

    impl Expire for Told {
        fn expire(&self) {
            self.0.lock().send(self.1).ok();
        }
    }

    #[test]
    fn what_is_over_expires_and_what_ended_does_not() {
        let deadlines = Arc::new(Deadlines::default());
        let (sender, told) = mpsc::channel();
        let add = |millis, number| {
            deadlines.add(Duration::from_millis(millis), Arc::new(Told(Mutex::new(sender.clone()), number)))
        };
        add(3_600_000, 1);
        let ended = add(1, 2);
        deadlines.remove(ended);
        add(2, 3);
        assert_eq!(told.recv().unwrap(), 3);
        deadlines.close();
        assert!(told.try_recv().is_err());
    }
}
