//! The flow of a batch: scan and filter into a backlog, then process the backlog.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::backlog::{BacklogManager, ScanReport};
use super::cancel::Cancel;
use super::error::{BatchError, Code, Result};
use super::filesystem::{FileInfo, FilePath, FileSystem, Filter, Found};
use super::job::{Commit, Job};
use super::journal::{Intent, Journal};
use super::report::{FileFailure, Progress, RunReport, Tell};
use super::retry::{Breaker, Retrier};
use super::status::{Attempt, Completed, Failed, StatusMemory};
use super::work::WorkDir;
use super::worker::{Outcome, Worker};
use crate::base::clock::{Clock, Timestamp};
use crate::base::disk::{Disk, DiskFile, OpenMode};
use crate::base::random;
use crate::crypto::{IdDomain, Keys};
use crate::version::index::sha256;

/// Files asked of the memory at once.
const ASKED_AT_ONCE: usize = 512;
/// Temporary files beside targets are swept away when they are older than this, in nanoseconds.
const PARTIAL_AGE_NS: i64 = 24 * 3600 * 1_000_000_000;
/// Failures that a report names; the memory has all of them.
pub const FAILURES_TOLD_MAX: usize = 100;

/// Where a batch keeps what it knows, and what it works with.
#[derive(Clone)]
pub struct Setup {
    /// Seals everything that is kept.
    pub keys: Keys,
    /// The local disk.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Holds a directory for each job.
    pub dir: PathBuf,
}

impl Setup {
    fn name(&self, what: &str, text: &str) -> String {
        let id = self.keys.id(IdDomain::App, &sha256(format!("batch {what}\0{text}").as_bytes()));
        data_encoding::HEXLOWER.encode(&id.0[..16])
    }

    /// The directory of a job.
    pub fn job_dir(&self, job: &Job) -> PathBuf {
        self.dir.join(self.name("job", &job.identity()))
    }
}

/// One job at work.
pub struct ProcessingWorkflow {
    pub(super) setup: Setup,
    pub(super) job: Job,
    pub(super) files: Arc<dyn FileSystem>,
    pub(super) memory: StatusMemory,
    pub(super) cancel: Cancel,
    pub(super) breaker: Breaker,
    pub(super) journal: Journal,
    /// Held for reading from an intent to its record, so that the journal is cut in between only.
    pub(super) gate: RwLock<()>,
    tell: Option<Arc<Tell>>,
    dir: PathBuf,
    /// Held for its lock.
    _lock: Arc<dyn DiskFile>,
}

impl ProcessingWorkflow {
    /// Takes the lock of the source, and remembers what an earlier run that was killed may have uploaded.
    pub fn open(setup: Setup, job: Job, files: Arc<dyn FileSystem>, memory: StatusMemory) -> Result<Self> {
        job.check()?;
        let dir = setup.job_dir(&job);
        setup.disk.create_dir_all(&dir).map_err(BatchError::disk(format!("making {}", dir.display())))?;
        let lock_path = setup.dir.join(format!("lock-{}", setup.name("source", files.address())));
        let lock = setup.disk.open(&lock_path, OpenMode::ReadWrite).map_err(BatchError::disk("opening the lock"))?;
        if !lock.try_lock().map_err(BatchError::disk("taking the lock"))? {
            return Err(BatchError::Running { source_address: files.address().to_owned() });
        }
        let now = setup.clock.now();
        let path = dir.join("journal");
        let remember = &mut |intent| remember_interrupted(&memory, intent, now);
        Journal::left(&*setup.disk, &path, &setup.keys, remember)?;
        memory.flush()?;
        let journal = Journal::begin(setup.disk.clone(), &path, setup.keys.clone())?;
        let (cancel, breaker, gate) = (Cancel::new(), Breaker::default(), RwLock::new(()));
        Ok(Self { setup, job, files, memory, cancel, breaker, journal, gate, tell: None, dir, _lock: lock })
    }

    /// Has somebody told how far it is.
    pub fn set_progress(&mut self, tell: Arc<Tell>) {
        self.tell = Some(tell);
    }

    /// Ends the run from another thread.
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    pub(super) fn retrier(&self) -> Retrier<'_> {
        Retrier { policy: self.job.run.retry, breaker: &self.breaker, cancel: &self.cancel }
    }

    fn backlog_path(&self) -> PathBuf {
        self.dir.join("backlog")
    }

    fn backlogs(&self) -> BacklogManager<'_> {
        BacklogManager { disk: &*self.setup.disk, keys: &self.setup.keys }
    }

    /// Looks at every file of the source, and puts those that need processing into a new backlog.
    pub fn scan_and_filter(&self) -> Result<ScanReport> {
        let filter = Filter::new(&self.job.walk)?;
        let mut scan = ScanReport { run: random::number() >> 1, ..ScanReport::default() };
        let now = self.setup.clock.now();
        self.backlogs().write(&self.backlog_path(), |backlog| {
            let mut asked = Vec::with_capacity(ASKED_AT_ONCE);
            let mut filtered = |asked: &mut Vec<FileInfo>, scan: &mut ScanReport| -> Result<()> {
                let count = asked.len() as u64;
                let needed = self.memory.needs_processing(std::mem::take(asked))?;
                scan.scanned += count;
                scan.skipped += count - needed.len() as u64;
                for file in &needed {
                    backlog.push(file).map_err(BatchError::disk("writing the backlog"))?;
                    scan.backlogged += 1;
                    scan.bytes += file.size;
                }
                self.tell(&Progress { scanned: scan.scanned, ..Progress::default() });
                Ok(())
            };
            self.files.walk(&filter, &self.retrier(), &mut |found| {
                match found {
                    Found::File(file) if file.is_dir => {}
                    Found::File(file) => asked.push(file),
                    Found::Partial(file) => self.sweep(&file, now),
                    Found::Failed(error) => {
                        tracing::warn!(component = "scan", "passed over: {error}");
                        scan.unreadable += 1;
                    }
                }
                if asked.len() == ASKED_AT_ONCE { filtered(&mut asked, &mut scan) } else { Ok(()) }
            })?;
            filtered(&mut asked, &mut scan)?;
            Ok(scan)
        })
    }

    /// Removes a temporary file that was left behind.
    fn sweep(&self, file: &FileInfo, now: Timestamp) {
        let is_old = |age_ns: i64| age_ns > PARTIAL_AGE_NS;
        if file.modified.is_some_and(|modified| is_old(now.unix_ns().saturating_sub(modified.unix_ns)))
            && let Err(error) = self.files.remove(&file.path)
        {
            tracing::warn!(component = "scan", "a temporary file is left behind: {error}");
        }
    }

    /// Processes what the backlog holds and this run has not done yet.
    pub fn process_files(&self) -> Result<RunReport> {
        let scan = self.backlogs().summary(&self.backlog_path())?;
        let work = WorkDir::make(self.job.run.plaintext_dir.as_deref())?;
        let processor = self.job.process.prepare()?;
        let report = Mutex::new(RunReport { scan, ..RunReport::default() });
        let worker = Worker { flow: self, work: &work, processor: &processor, run: scan.run };
        let count = self.job.workers(self.files.capabilities().connections_max);
        let (send, receive) = queue(count);
        let read = std::thread::scope(|threads| {
            for _ in 0..count {
                threads.spawn(|| {
                    while let Some(file) = next(&receive) {
                        // A panic fails its file; were it to end the worker, the others could wait for ever.
                        let outcome = catch_unwind(AssertUnwindSafe(|| worker.process(&file))).unwrap_or_else(|_| {
                            let reason = "processing it panicked; the log says more";
                            Err(BatchError::file(Code::Local, file.path.to_string(), reason))
                        });
                        self.note(&report, &file, outcome);
                    }
                });
            }
            self.feed(send)
        });
        read?;
        let mut report = report.into_inner();
        report.settle();
        self.finish(&mut report)?;
        Ok(report)
    }

    fn feed(&self, send: SyncSender<FileInfo>) -> Result<()> {
        for file in self.backlogs().read(&self.backlog_path())? {
            let mut file = file?;
            loop {
                if self.cancel.is_cancelled() || self.breaker.is_given_up() {
                    return Ok(());
                }
                match send.try_send(file) {
                    Ok(()) => break,
                    Err(TrySendError::Full(back)) => {
                        file = back;
                        self.cancel.wait(Duration::from_millis(1));
                    }
                    Err(TrySendError::Disconnected(_)) => return Ok(()),
                }
            }
        }
        Ok(())
    }

    fn note(&self, report: &Mutex<RunReport>, file: &FileInfo, outcome: Result<Outcome>) {
        let mut report = report.lock();
        match outcome {
            Ok(Outcome::Replaced { bytes_in, bytes_out }) => {
                report.done += 1;
                report.bytes_in += bytes_in;
                report.bytes_out += bytes_out;
            }
            Ok(Outcome::Unchanged { bytes_in }) => {
                report.unchanged += 1;
                report.bytes_in += bytes_in;
            }
            Ok(Outcome::DoneBefore) => report.done_before += 1,
            Ok(Outcome::FailedBefore(failure)) => report.fail(failure),
            Err(error) if matches!(error.code(), Code::Cancelled) => {}
            // The host was given up: the file waits for it.
            Err(_) if self.breaker.is_given_up() => {}
            Err(error) => {
                tracing::warn!(component = "worker", code = error.code().word(), "not processed: {error}");
                report.fail(FileFailure::of(file, &error));
            }
        }
        let progress = report.progress();
        drop(report);
        self.tell(&progress);
    }

    fn tell(&self, progress: &Progress) {
        if let Some(tell) = &self.tell {
            tell(progress);
        }
    }

    /// Makes a run appear that appears as a whole, and makes the memory durable.
    fn finish(&self, report: &mut RunReport) -> Result<()> {
        report.replacing = Some(self.files.capabilities().replacing);
        if self.files.capabilities().whole_run {
            let is_all = self.job.run.commit == Commit::All;
            let keep = !is_all || report.failed == 0 && report.pending == 0;
            let finished = self.files.finish(keep, is_all, &format!("batch {}", self.job.name))?;
            let changed: HashSet<FilePath> = finished.changed.into_iter().collect();
            for path in &changed {
                self.found_changed(path, report)?;
            }
            report.version = finished.version;
            if keep && (changed.is_empty() || !is_all) {
                self.journal.each(&mut |intent| match changed.contains(&intent.path) {
                    true => Ok(()),
                    false => self.record(&intent, report.scan.run),
                })?;
            } else {
                report.withdraw();
            }
        }
        self.memory.flush()?;
        self.journal.cut()
    }

    /// A file that was processed is not what it was read as any more when all results are to appear.
    fn found_changed(&self, path: &FilePath, report: &mut RunReport) -> Result<()> {
        let reason = "somebody changed it since it was read; it was left as it is, and the next scan sees it";
        let error = BatchError::file(Code::SourceChanged, path.to_string(), reason);
        let file = FileInfo { path: path.clone(), size: 0, modified: None, etag: None, is_dir: false };
        report.done = report.done.saturating_sub(1);
        report.fail(FileFailure::of(&file, &error));
        let (code, run) = (error.code().word().to_owned(), report.scan.run);
        let timestamp = self.setup.clock.now();
        let failed = Failed { file, code, error: error.to_string(), timestamp, retry_count: 0, run, attempt: None };
        self.memory.report_error(failed)
    }

    /// Remembers as done what appeared with the whole run.
    fn record(&self, intent: &Intent, run: u64) -> Result<()> {
        let file = self.files.stat(&intent.path)?;
        self.memory.report_done(&Completed { file, sha256: intent.after, processed_at: self.setup.clock.now(), run })
    }

    /// Makes room in the journal when it is long: when nothing is on its way, everything is recorded.
    pub(super) fn cut_journal(&self) -> Result<()> {
        if self.files.capabilities().whole_run || !self.journal.is_long() {
            return Ok(());
        }
        let _nothing_on_its_way = self.gate.write();
        if self.journal.is_long() {
            self.memory.flush()?;
            self.journal.cut()?;
        }
        Ok(())
    }

    /// Scans, then processes.
    pub fn run(&self) -> Result<RunReport> {
        self.scan_and_filter()?;
        self.process_files()
    }

    /// Goes on with the backlog of a run that was cancelled, killed, or given up.
    pub fn resume(&self) -> Result<RunReport> {
        self.process_files()
    }

    /// Processes again what failed, and nothing else.
    pub fn retry_failed(&self) -> Result<RunReport> {
        let mut scan = ScanReport { run: random::number() >> 1, ..ScanReport::default() };
        self.backlogs().write(&self.backlog_path(), |backlog| {
            self.memory.failures(&mut |failed| {
                backlog.push(&failed.file).map_err(BatchError::disk("writing the backlog"))?;
                scan.scanned += 1;
                scan.backlogged += 1;
                scan.bytes += failed.file.size;
                Ok(true)
            })?;
            Ok(scan)
        })?;
        self.process_files()
    }
}

/// What is known of the last backlog of a job.
pub fn last_scan(setup: &Setup, job: &Job) -> Result<ScanReport> {
    let manager = BacklogManager { disk: &*setup.disk, keys: &setup.keys };
    manager.summary(&setup.job_dir(job).join("backlog"))
}

/// The file in which the memory of a job is kept on the local disk.
pub fn memory_path(setup: &Setup, job: &Job) -> PathBuf {
    setup.job_dir(job).join("status")
}

fn remember_interrupted(memory: &StatusMemory, intent: Intent, now: Timestamp) -> Result<()> {
    let known = memory.recall(&intent.path)?;
    if known.completed.is_some_and(|done| done.sha256 == intent.after) {
        return Ok(());
    }
    memory.report_error(Failed {
        file: FileInfo { path: intent.path, size: 0, modified: None, etag: None, is_dir: false },
        code: "interrupted".to_owned(),
        error: "the run was killed while it was being uploaded".to_owned(),
        timestamp: now,
        retry_count: 0,
        run: 0,
        attempt: Some(Attempt { before: intent.before, after: intent.after }),
    })
}

type Shared = Mutex<Receiver<FileInfo>>;

/// A queue that many workers take from.
fn queue(workers: usize) -> (SyncSender<FileInfo>, Shared) {
    let (send, receive) = sync_channel(64 * workers);
    (send, Mutex::new(receive))
}

fn next(receive: &Shared) -> Option<FileInfo> {
    receive.lock().recv().ok()
}
