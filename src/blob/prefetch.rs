//! A few threads that read ahead.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::codec::{BlobKind, ChunkRef};

const THREADS_MAX: usize = 4;
/// Advice beyond this many jobs is dropped.
const JOBS_MAX: usize = 256;
/// A job reads at most this much plaintext (or one blob).
const JOB_BYTES_MAX: u64 = 8 * 1024 * 1024;

pub(super) type Job = (BlobKind, Vec<ChunkRef>);

/// Runs jobs on up to [`THREADS_MAX`] threads, started when there is work, joined on drop.
pub(super) struct Prefetcher {
    queue: Arc<Queue>,
    run: Arc<dyn Fn(Job) + Send + Sync>,
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

impl Prefetcher {
    pub(super) fn new(run: Arc<dyn Fn(Job) + Send + Sync>) -> Self {
        Self { queue: Arc::default(), run, threads: Mutex::default() }
    }

    pub(super) fn push(&self, kind: BlobKind, chunks: Vec<ChunkRef>) {
        let jobs = split(chunks);
        let wanted = {
            let mut state = self.queue.state.lock();
            let room = JOBS_MAX.saturating_sub(state.jobs.len());
            state.jobs.extend(jobs.into_iter().take(room).map(|chunks| (kind, chunks)));
            state.jobs.len().saturating_sub(state.idle)
        };
        self.queue.changed.notify_all();
        let mut threads = self.threads.lock();
        for _ in 0..wanted.min(THREADS_MAX.saturating_sub(threads.len())) {
            let (queue, run) = (Arc::clone(&self.queue), Arc::clone(&self.run));
            match std::thread::Builder::new().name("blob-prefetch".into()).spawn(move || queue.work(run.as_ref())) {
                Ok(thread) => threads.push(thread),
                Err(error) => tracing::debug!("no thread to read ahead with: {error}"),
            }
        }
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        {
            let mut state = self.queue.state.lock();
            state.is_closing = true;
            state.jobs.clear();
        }
        self.queue.changed.notify_all();
        for thread in self.threads.get_mut().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that read ahead panicked");
            }
        }
    }
}

impl Queue {
    fn work(&self, run: &dyn Fn(Job)) {
        let mut state = self.state.lock();
        while !state.is_closing {
            match state.jobs.pop_front() {
                Some(job) => {
                    drop(state);
                    run(job);
                    state = self.state.lock();
                }
                None => {
                    state.idle += 1;
                    self.changed.wait(&mut state);
                    state.idle -= 1;
                }
            }
        }
    }
}

fn split(chunks: Vec<ChunkRef>) -> Vec<Vec<ChunkRef>> {
    let mut jobs: Vec<Vec<ChunkRef>> = Vec::new();
    let mut bytes = 0;
    for chunk in chunks {
        bytes += u64::from(chunk.len);
        match jobs.last_mut() {
            Some(job) if bytes <= JOB_BYTES_MAX => job.push(chunk),
            _ => {
                bytes = chunk.len.into();
                jobs.push(vec![chunk]);
            }
        }
    }
    jobs
}
