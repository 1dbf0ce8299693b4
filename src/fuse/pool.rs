//! Threads for what may wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs on a bounded number of threads, started when there is work.
pub(super) struct Pool {
    name: &'static str,
    threads_max: usize,
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    is_closing: bool,
}

/// More than this is refused; the kernel itself keeps no more than a few under way for each caller.
const JOBS_MAX: usize = 4096;

impl Pool {
    pub(super) fn new(name: &'static str, threads_max: usize) -> Self {
        Self { name, threads_max, queue: Arc::default(), threads: Mutex::default() }
    }

    /// Takes a job; false (and the job is dropped) when too many wait already.
    pub(super) fn submit(&self, job: Job) -> bool {
        let idle_enough = {
            let mut state = self.queue.state.lock();
            if state.is_closing || state.jobs.len() >= JOBS_MAX {
                return false;
            }
            state.jobs.push_back(job);
            state.idle >= state.jobs.len()
        };
        self.queue.changed.notify_one();
        let mut threads = self.threads.lock();
        if !idle_enough && threads.len() < self.threads_max {
            let queue = self.queue.clone();
            match std::thread::Builder::new().name(self.name.into()).spawn(move || queue.work()) {
                Ok(thread) => threads.push(thread),
                // The job waits for a thread that is there, or for its deadline.
                Err(error) => tracing::error!("no thread for {}: {error}", self.name),
            }
        }
        true
    }

    /// Takes no more jobs and waits for those under way to end.
    pub(super) fn close(&self) {
        self.queue.state.lock().is_closing = true;
        self.queue.changed.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of {} panicked", self.name);
            }
        }
    }
}

impl Queue {
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            match state.jobs.pop_front() {
                Some(job) => {
                    drop(state);
                    job();
                    state = self.state.lock();
                }
                None if state.is_closing => return,
                None => {
                    state.idle += 1;
                    self.changed.wait(&mut state);
                    state.idle -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn every_job_runs_once_even_when_the_pool_closes() {
        let pool = Pool::new("test", 3);
        let count = Arc::new(AtomicUsize::new(0));
        for _ in 0..500 {
            let count = count.clone();
            assert!(pool.submit(Box::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            })));
        }
        pool.close();
        assert_eq!(count.load(Ordering::SeqCst), 500);
        assert!(!pool.submit(Box::new(|| {})), "a closed pool takes nothing");
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let pool = Pool::new("test", 1);
        let (release, wait) = mpsc::channel::<()>();
        pool.submit(Box::new(move || wait.recv().unwrap_or_default()));
        let taken = (0..JOBS_MAX + 10).filter(|_| pool.submit(Box::new(|| {}))).count();
        assert!((JOBS_MAX - 1..=JOBS_MAX + 1).contains(&taken), "{taken}");
        drop(release);
        pool.close();
    }
}
