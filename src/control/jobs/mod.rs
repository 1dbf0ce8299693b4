//! Work that goes on after its request was answered.
//!
//! A kind of job is a [`Command`](super::Command) whose [`Run`](super::Run) is `Job` (or `Reading`) with a function
//! that checks the arguments and gives the work; see `update.rs` for one. The work gets a [`JobContext`]: the
//! workspace, where to tell progress, and whether to end.
//!
//! Records of jobs are kept in the state directory, sealed, so they survive the mount. What waited or ran when a mount
//! ended is begun anew by the next one where [`Prepared::resume`] says so, and is `interrupted` else.

pub(super) mod batch;
mod context;
pub(super) mod profile;
pub(super) mod reading;
mod record;
pub(super) mod release;
mod release_words;
pub(super) mod update;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

use super::failure::{Exit, Failure};
use super::reply::Reply;
use super::run::check_outside;
use super::table;
use crate::apps::sealed::{RequestSecrets, SecretDigest};
use crate::base::clock::{Clock, SystemClock};
use crate::base::random;
use crate::workspace::{Records, Workspace};
pub use batch::BatchHost;
pub use context::JobContext;
pub use record::{JobProgress, JobRecord, JobState};

/// Jobs that ended and are remembered; the oldest go.
pub const JOBS_KEPT_MAX: usize = 100;
/// Jobs that wait or run at once.
const JOBS_OPEN_MAX: usize = 100;
/// Jobs that run at once.
const JOBS_RUNNING_MAX: usize = 4;
/// Longest record, in bytes.
const RECORD_LEN_MAX: usize = 16 * 1024 * 1024;
const AREA: &str = "jobs";

/// The work of a job.
pub type JobWork = Box<dyn FnOnce(&JobContext) -> Result<Reply, Failure> + Send>;
/// Says, without doing it, whether a job could be done.
pub type JobCheck = Box<dyn FnOnce(&Workspace) -> Result<(), Failure> + Send>;
/// Checks the arguments of a request for a job: a JSON object without the fields of the envelope, and what is secret.
pub type Prepare = fn(Value, Option<RequestSecrets>) -> Result<Prepared, Failure>;

/// A job that can be begun.
pub struct Prepared {
    /// What `request` shows and the record keeps: no secrets. With `resume` it is the whole request.
    pub shown: Value,
    /// What tells the secrets of this request from those of another with the same `shown`.
    pub secret: Option<SecretDigest>,
    /// Whether the next mount begins it anew, from `shown`, when this one ends before it does.
    pub resume: bool,
    /// A directory that must lie outside of the mount.
    pub outside: Option<PathBuf>,
    /// What a trial of it looks at besides its arguments.
    pub check: Option<JobCheck>,
    /// The work.
    pub work: JobWork,
}

impl Prepared {
    /// Refuses a job that would write into the mount that it reads from.
    pub(super) fn check_place(&self, mountpoint: Option<&Path>) -> Result<(), Failure> {
        match (mountpoint, &self.outside) {
            (Some(mountpoint), Some(to)) => check_outside(mountpoint, to),
            _ => Ok(()),
        }
    }
}

/// One job.
pub struct Job {
    id: Uuid,
    record: Mutex<JobRecord>,
    cancelled: AtomicBool,
    resume: AtomicBool,
}

/// All jobs of a workspace.
pub struct Jobs {
    workspace: Arc<Workspace>,
    records: Records,
    state: Mutex<State>,
    /// The mount is about to end.
    stopping: AtomicBool,
    batch_host: Mutex<Option<Arc<dyn BatchHost>>>,
    mountpoint: Mutex<Option<PathBuf>>,
}

#[derive(Default)]
struct State {
    jobs: BTreeMap<Uuid, Arc<Job>>,
    waiting: VecDeque<(Arc<Job>, JobWork)>,
    running: usize,
    threads: Vec<JoinHandle<()>>,
}

fn now() -> String {
    super::reply::rfc3339(SystemClock.now())
}

impl Job {
    /// What is known of it now.
    pub fn record(&self) -> JobRecord {
        self.record.lock().clone()
    }
}

impl Jobs {
    /// The jobs that earlier mounts left. What can go on does so after [`start`](Self::start).
    pub(super) fn open(workspace: Arc<Workspace>) -> Result<Arc<Self>, Failure> {
        let jobs = Arc::new(Self {
            records: workspace.records(AREA),
            workspace,
            state: Mutex::default(),
            stopping: AtomicBool::new(false),
            batch_host: Mutex::new(None),
            mountpoint: Mutex::new(None),
        });
        for record in kept(&jobs.records)? {
            jobs.take_over(record)?;
        }
        Ok(jobs)
    }

    fn take_over(self: &Arc<Self>, mut record: JobRecord) -> Result<(), Failure> {
        let mut again = None;
        if !record.state.is_final() && !self.workspace.is_read_only() {
            let prepare = table::find(&record.op).and_then(|command| command.run.prepare());
            let prepared = prepare.and_then(|prepare| prepare(record.request.clone(), None).ok());
            match prepared.filter(|prepared| prepared.resume) {
                Some(prepared) => {
                    record.state = JobState::Queued;
                    record.say(&now(), "begun anew by another mount");
                    again = Some(prepared.work);
                }
                None => record.interrupt(now()),
            }
            self.keep(&record)?;
        }
        let job = Arc::new(Job {
            id: record.id,
            resume: AtomicBool::new(again.is_some()),
            record: Mutex::new(record),
            cancelled: AtomicBool::new(false),
        });
        let mut state = self.state.lock();
        state.jobs.insert(job.id, job.clone());
        if let Some(work) = again {
            state.waiting.push_back((job, work));
        }
        Ok(())
    }

    /// Where the workspace is mounted, without symbolic links.
    pub fn set_mountpoint(&self, mountpoint: PathBuf) {
        *self.mountpoint.lock() = Some(mountpoint);
    }

    /// Where the workspace is mounted, if it is.
    pub fn mountpoint(&self) -> Option<PathBuf> {
        self.mountpoint.lock().clone()
    }

    /// What batches may use; without it there are none.
    pub fn set_batch_host(&self, host: Arc<dyn BatchHost>) {
        *self.batch_host.lock() = Some(host);
    }

    /// Begins the jobs that earlier mounts left and that can go on, and looking for new releases.
    pub fn start(self: &Arc<Self>) {
        let mut state = self.state.lock();
        self.begin_next(&mut state);
        let jobs = self.clone();
        if !self.workspace.is_read_only() {
            match std::thread::Builder::new().name("releases".into()).spawn(move || release::watch(&jobs)) {
                Ok(thread) => state.threads.push(thread),
                Err(error) => tracing::error!("new releases are not looked for: {error}"),
            }
        }
    }

    /// Keeps what is known of a job; a workspace that may not change keeps it in memory only.
    fn keep(&self, record: &JobRecord) -> Result<(), Failure> {
        if self.workspace.is_read_only() {
            return Ok(());
        }
        let bytes = serde_json::to_vec(record)
            .map_err(|error| Failure::new(Exit::Other, format!("the job cannot be written as JSON: {error}")))?;
        Ok(self.records.write(&record.id.to_string(), &bytes)?)
    }

    /// Takes a job; it is durable when this returns, and runs in its turn.
    pub fn submit(self: &Arc<Self>, op: &str, prepared: Prepared) -> Result<Uuid, Failure> {
        if self.workspace.is_read_only() && table::find(op).is_none_or(table::Command::changes) {
            return Err(crate::workspace::WorkspaceError::ReadOnly.into());
        }
        prepared.check_place(self.mountpoint().as_deref())?;
        let time = SystemClock.now();
        let millis = u64::try_from(time.unix_ns() / 1_000_000).unwrap_or(0);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &random::bytes()).into_uuid();
        let mut record = JobRecord {
            id,
            op: op.to_owned(),
            request: prepared.shown,
            state: JobState::Queued,
            submitted: now(),
            started: None,
            finished: None,
            progress: JobProgress::default(),
            log: VecDeque::new(),
            result: None,
        };
        record.say(&record.submitted.clone(), "queued");
        let mut state = self.state.lock();
        if self.stopping.load(Ordering::SeqCst) {
            return Err(Failure::new(Exit::Locked, "the mount is ending").hint("mount it again, then ask again"));
        }
        if state.jobs.values().filter(|job| !job.record.lock().state.is_final()).count() >= JOBS_OPEN_MAX {
            return Err(Failure::new(Exit::Locked, format!("{JOBS_OPEN_MAX} jobs wait already"))
                .hint("ask again when some have ended"));
        }
        self.keep(&record)?;
        let (resume, cancelled) = (AtomicBool::new(prepared.resume), AtomicBool::new(false));
        let job = Arc::new(Job { id, record: Mutex::new(record), cancelled, resume });
        state.jobs.insert(id, job.clone());
        state.waiting.push_back((job, prepared.work));
        self.drop_oldest(&mut state);
        self.begin_next(&mut state);
        Ok(id)
    }

    fn drop_oldest(&self, state: &mut State) {
        let ended: Vec<Uuid> =
            state.jobs.values().filter(|job| job.record.lock().state.is_final()).map(|job| job.id).collect();
        for id in ended.iter().take(ended.len().saturating_sub(JOBS_KEPT_MAX)) {
            state.jobs.remove(id);
            if let Err(error) = self.records.remove(&id.to_string()) {
                tracing::warn!("the record of an old job cannot be removed: {error}");
            }
        }
    }

    /// Begins what waits while fewer run than may.
    fn begin_next(self: &Arc<Self>, state: &mut State) {
        state.threads.retain(|thread| !thread.is_finished());
        while state.running < JOBS_RUNNING_MAX && !self.stopping.load(Ordering::SeqCst) {
            let Some((job, work)) = state.waiting.pop_front() else { return };
            let (jobs, begun) = (self.clone(), job.clone());
            let thread = std::thread::Builder::new().name("job".into()).spawn(move || jobs.run(&begun, work));
            match thread {
                Ok(thread) => {
                    state.running += 1;
                    state.threads.push(thread);
                }
                Err(error) => {
                    let failure = Failure::new(Exit::Other, format!("no thread can be started: {error}"));
                    self.finish(&job, Err(failure));
                }
            }
        }
    }

    fn run(self: &Arc<Self>, job: &Arc<Job>, work: JobWork) {
        let record = {
            let mut record = job.record.lock();
            (record.state, record.started) = (JobState::Running, Some(now()));
            record.say(&now(), "begun");
            record.clone()
        };
        let context = JobContext::new(self.clone(), job.clone());
        let result = context.check().and_then(|()| self.keep(&record)).and_then(|()| {
            catch_unwind(AssertUnwindSafe(|| work(&context)))
                .unwrap_or_else(|_| Err(Failure::new(Exit::Other, "the job panicked; the log of the mount says more")))
        });
        self.finish(job, result);
        let mut state = self.state.lock();
        state.running -= 1;
        self.begin_next(&mut state);
    }

    fn finish(&self, job: &Job, result: Result<Reply, Failure>) {
        let record = {
            let mut record = job.record.lock();
            let (asked, stopping) = (job.cancelled.load(Ordering::SeqCst), self.stopping.load(Ordering::SeqCst));
            let gave_up = matches!(&result, Err(failure) if failure.exit == Exit::Interrupted);
            if gave_up && stopping && !asked && job.resume.load(Ordering::SeqCst) {
                record.state = JobState::Queued;
                record.say(&now(), "the mount ends; the next one begins it anew");
            } else {
                let state = match &result {
                    Ok(reply) if reply.ok || reply.exit == Exit::Partial.code() => JobState::Done,
                    Ok(_) => JobState::Failed,
                    Err(_) if gave_up && asked => JobState::Cancelled,
                    Err(_) if gave_up && stopping => JobState::Interrupted,
                    Err(_) => JobState::Failed,
                };
                let reply = result.unwrap_or_else(Reply::from);
                record.say(&now(), &format!("{}: {}", state.word(), reply.message));
                record.end(state, now(), reply);
            }
            record.clone()
        };
        if let Err(failure) = self.keep(&record) {
            tracing::error!("what came of job {} is not remembered after this mount: {}", job.id, failure.message);
        }
    }

    /// All jobs, newest first.
    pub fn all(&self) -> Vec<JobRecord> {
        self.state.lock().jobs.values().rev().map(|job| job.record()).collect()
    }

    /// A job.
    pub fn find(&self, id: Uuid) -> Option<Arc<Job>> {
        self.state.lock().jobs.get(&id).cloned()
    }

    /// The one job whose id begins so.
    pub fn find_text(&self, text: &str) -> Result<Option<JobRecord>, Failure> {
        selected(&self.all(), text)
    }

    /// Asks a job to end. It ends as soon as it looks; one that waits ends at once.
    pub fn cancel(&self, id: Uuid) {
        let Some(job) = self.find(id) else { return };
        job.cancelled.store(true, Ordering::SeqCst);
        let waited = {
            let mut state = self.state.lock();
            let before = state.waiting.len();
            state.waiting.retain(|(waiting, _)| waiting.id != id);
            before > state.waiting.len()
        };
        if waited {
            self.finish(&job, Err(cancelled()));
        }
    }

    pub(super) fn cancel_text(&self, text: &str) -> Result<Reply, Failure> {
        let record = self.find_text(text)?.ok_or_else(|| no_job(text))?;
        if record.state.is_final() {
            return Ok(Reply::done(format!("job {} has ended already", record.id), record.summary()));
        }
        self.cancel(record.id);
        Ok(Reply::done(format!("job {} was asked to end", record.id), record.summary()))
    }

    /// Ends all jobs and waits for them; nothing is taken any more. Those that can go on do so in the next mount.
    pub fn close(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let threads = {
            let mut state = self.state.lock();
            state.waiting.clear();
            std::mem::take(&mut state.threads)
        };
        for thread in threads {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread of a job panicked");
            }
        }
    }
}

fn cancelled() -> Failure {
    Failure::new(Exit::Interrupted, "the job was ended on request")
}

fn no_job(text: &str) -> Failure {
    Failure::new(Exit::Other, format!("there is no job `{text}`")).hint("`kura jobs` lists them")
}

fn selected(jobs: &[JobRecord], text: &str) -> Result<Option<JobRecord>, Failure> {
    let mut found = jobs.iter().filter(|job| !text.is_empty() && job.id.to_string().starts_with(text));
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => {
            Err(Failure::new(Exit::Usage, format!("more than one job begins with `{text}`"))
                .hint("give more of its id"))
        }
        (first, _) => Ok(first.cloned()),
    }
}

/// The jobs that are kept of a workspace, oldest first. One that cannot be read is passed over, and logged.
fn kept(records: &Records) -> Result<Vec<JobRecord>, Failure> {
    let mut found = Vec::new();
    for name in records.names()? {
        let Ok(id) = name.parse::<Uuid>() else { continue };
        let bytes = records.read(&name, RECORD_LEN_MAX).map_err(|error| error.to_string());
        let record = bytes.and_then(|bytes| {
            let bytes = bytes.ok_or("it was just removed")?;
            serde_json::from_slice::<JobRecord>(&bytes).map_err(|error| error.to_string())
        });
        match record {
            Ok(record) if record.id == id => found.push(record),
            Ok(_) => tracing::warn!("the record of job {name} is that of another"),
            Err(reason) => tracing::warn!("the record of job {name} cannot be read: {reason}"),
        }
    }
    found.sort_by_key(|record| record.id);
    Ok(found)
}

/// The jobs of a workspace that nothing runs in, newest first.
pub(super) fn kept_of(workspace: &Workspace) -> Result<Vec<JobRecord>, Failure> {
    let mut found = kept(&workspace.records(AREA))?;
    found.reverse();
    Ok(found)
}

pub(super) fn listed(jobs: &[JobRecord]) -> Reply {
    let items: Vec<Value> = jobs.iter().map(JobRecord::summary).collect();
    Reply::done(format!("{} jobs", items.len()), items)
}

pub(super) fn shown(job: Option<&JobRecord>, text: &str) -> Result<Reply, Failure> {
    let job = job.ok_or_else(|| no_job(text))?;
    let mut data = job.summary();
    data["request"] = job.request.clone();
    data["log"] = json!(job.log);
    Ok(Reply::done(format!("{}: {}", job.op, job.state.word()), data))
}

pub(super) fn shown_of(workspace: &Workspace, text: &str) -> Result<Reply, Failure> {
    shown(selected(&kept_of(workspace)?, text)?.as_ref(), text)
}
