//! A place for batches, and file systems that fail when told to.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use kura::apps::batch::{
    BatchError, Capabilities, DiskKeyValue, Each, FileInfo, FilePath, FileSystem, Filter, Job, LocalFiles, MemoryFiles,
    ProcessingWorkflow, Result, Retrier, RunReport, Setup, StatusMemory, TempFile, memory_path,
};
use kura::base::clock::SystemClock;
use kura::base::disk::RealDisk;
use kura::base::ids::WorkspaceId;
use kura::crypto::Keys;
use parking_lot::Mutex;
use tempfile::TempDir;

pub struct Rig {
    pub dir: TempDir,
    pub setup: Setup,
}

impl Rig {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kura-batch-test-").tempdir().unwrap();
        let setup = Setup {
            keys: Keys::ephemeral(WorkspaceId::random()),
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock),
            dir: dir.path().join("state"),
        };
        std::fs::create_dir_all(dir.path().join("files")).unwrap();
        Self { dir, setup }
    }

    pub fn files(&self) -> Arc<LocalFiles> {
        Arc::new(LocalFiles::open(&self.dir.path().join("files")).unwrap())
    }

    pub fn put(&self, path: &str, content: &[u8]) {
        let path = self.dir.path().join("files").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub fn get(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join("files").join(path)).unwrap()
    }

    pub fn all(&self) -> BTreeMap<String, Vec<u8>> {
        crate::cli::support::tree(&self.dir.path().join("files")).into_iter().collect()
    }

    pub fn open(&self, job: &Job, files: Arc<dyn FileSystem>) -> Result<ProcessingWorkflow> {
        self.setup.disk.create_dir_all(&self.setup.job_dir(job)).unwrap();
        let store = Box::new(DiskKeyValue::open(&*self.setup.disk, &memory_path(&self.setup, job))?);
        let memory = StatusMemory::new(self.setup.keys.clone(), job.identity().into_bytes(), store);
        ProcessingWorkflow::open(self.setup.clone(), job.clone(), files, memory)
    }

    /// Runs a job, and checks that the counts balance.
    pub fn run(&self, job: &Job, files: Arc<dyn FileSystem>) -> RunReport {
        balanced(self.open(job, files).unwrap().run().unwrap())
    }
}

pub fn balanced(report: RunReport) -> RunReport {
    let scan = report.scan;
    assert_eq!(scan.scanned, scan.skipped + scan.backlogged, "{report:?}");
    let ended = report.done + report.done_before + report.unchanged + report.failed + report.pending;
    assert_eq!(scan.backlogged, ended, "{report:?}");
    report
}

/// A job that puts a mark in front of every file: applied twice, it shows.
pub fn marking() -> Job {
    job(r#"{"kind": "regex", "find": "\\A", "with": "mark:"}"#)
}

pub fn job(process: &str) -> Job {
    let text = format!(
        r#"{{"name": "test", "source": {{"url": "test:"}}, "process": {process},
            "run": {{"workers": 4, "retry": {{"max": 3, "base_ms": 1, "cap_ms": 4}}}}}}"#
    );
    Job::parse(&text).unwrap()
}

/// What is about to be done to which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Download,
    /// Before the file is replaced.
    Replace,
    /// After it was replaced: a lost answer.
    Replaced,
}

type Hook = dyn Fn(Step, &FilePath) -> Result<()> + Send + Sync;

/// Files in memory that fail when told to.
pub struct Faulty {
    pub files: MemoryFiles,
    hook: Mutex<Option<Arc<Hook>>>,
}

impl Faulty {
    pub fn new(files: &[(&str, &str)]) -> Arc<Self> {
        let faulty = Self { files: MemoryFiles::new(), hook: Mutex::new(None) };
        files.iter().for_each(|(path, content)| faulty.files.put(path.as_bytes(), content.as_bytes()));
        Arc::new(faulty)
    }

    pub fn on(&self, hook: impl Fn(Step, &FilePath) -> Result<()> + Send + Sync + 'static) {
        *self.hook.lock() = Some(Arc::new(hook));
    }

    pub fn heal(&self) {
        *self.hook.lock() = None;
    }

    pub fn text(&self, path: &str) -> String {
        String::from_utf8(self.files.get(path.as_bytes()).unwrap()).unwrap()
    }

    fn ask(&self, step: Step, path: &FilePath) -> Result<()> {
        let hook = self.hook.lock().clone();
        hook.map_or(Ok(()), |hook| hook(step, path))
    }
}

impl FileSystem for Faulty {
    fn walk(&self, filter: &Filter, retrier: &Retrier<'_>, each: &mut Each<'_>) -> Result<()> {
        self.files.walk(filter, retrier, each)
    }

    fn stat(&self, path: &FilePath) -> Result<FileInfo> {
        self.files.stat(path)
    }

    fn download(&self, path: &FilePath, to: &mut dyn Write) -> Result<FileInfo> {
        self.ask(Step::Download, path)?;
        self.files.download(path, to)
    }

    fn replace(&self, expected: &FileInfo, from: &TempFile) -> Result<FileInfo> {
        self.ask(Step::Replace, &expected.path)?;
        let now = self.files.replace(expected, from)?;
        self.ask(Step::Replaced, &expected.path)?;
        Ok(now)
    }

    fn remove(&self, path: &FilePath) -> Result<()> {
        self.files.remove(path)
    }

    fn capabilities(&self) -> Capabilities {
        self.files.capabilities()
    }

    fn address(&self) -> &str {
        "test:"
    }
}

pub fn fail(code: kura::apps::batch::Code) -> Result<()> {
    Err(BatchError::file(code, "test", "told to fail"))
}
