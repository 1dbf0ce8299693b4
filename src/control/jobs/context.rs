//! What the work of a job gets.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{BatchHost, Job, JobProgress, Jobs, cancelled, now};
use crate::control::{Exit, Failure};
use crate::workspace::Workspace;

/// Progress is kept, for the case of a crash, no more often than this.
const KEEP_INTERVAL: Duration = Duration::from_secs(2);

/// A running job's view of the world.
pub struct JobContext {
    jobs: Arc<Jobs>,
    job: Arc<Job>,
    kept: Mutex<Instant>,
}

impl JobContext {
    pub(super) fn new(jobs: Arc<Jobs>, job: Arc<Job>) -> Self {
        Self { jobs, job, kept: Mutex::new(Instant::now()) }
    }

    /// The workspace.
    pub fn workspace(&self) -> &Arc<Workspace> {
        &self.jobs.workspace
    }

    /// What batches may use here.
    pub fn batch_host(&self) -> Option<Arc<dyn BatchHost>> {
        self.jobs.batch_host.lock().clone()
    }

    /// Where the workspace is mounted, if it is.
    pub fn mountpoint(&self) -> Option<PathBuf> {
        self.jobs.mountpoint()
    }

    /// The job's id.
    pub fn id(&self) -> uuid::Uuid {
        self.job.id
    }

    /// Tells how far the job is; `total` is 0 when not known.
    pub fn progress(&self, done: u64, total: u64, what: &str) {
        self.job.record.lock().progress = JobProgress { done, total, what: what.to_owned() };
        self.keep_sometimes();
    }

    /// Adds a line to the job's log; no secrets.
    pub fn log(&self, text: &str) {
        self.job.record.lock().say(&now(), text);
        self.keep_sometimes();
    }

    fn keep_sometimes(&self) {
        let mut kept = self.kept.lock();
        if kept.elapsed() >= KEEP_INTERVAL {
            *kept = Instant::now();
            if let Err(failure) = self.jobs.keep(&self.job.record()) {
                tracing::warn!("the progress of job {} cannot be kept: {}", self.job.id, failure.message);
            }
        }
    }

    /// Whether the job is to end: asked for, or because the mount ends.
    pub fn is_cancelled(&self) -> bool {
        self.job.cancelled.load(Ordering::SeqCst) || self.jobs.stopping.load(Ordering::SeqCst)
    }

    /// An error to return at once when the job is to end.
    pub fn check(&self) -> Result<(), Failure> {
        if self.job.cancelled.load(Ordering::SeqCst) {
            return Err(cancelled());
        }
        if self.jobs.stopping.load(Ordering::SeqCst) {
            return Err(Failure::new(Exit::Interrupted, "the mount ended before the job did"));
        }
        Ok(())
    }
}
