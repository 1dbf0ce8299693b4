//! How a batch went.

use serde::Serialize;

use super::backlog::ScanReport;
use super::error::BatchError;
use super::filesystem::{FileInfo, FilePath, Replacing};
use super::status::Failed;
use super::workflow::FAILURES_TOLD_MAX;

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Files seen by the scan; 0 while files are processed.
    pub scanned: u64,
    /// Files that are through, however they ended.
    pub files: u64,
    /// Files in the backlog.
    pub files_total: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes in the files of the backlog.
    pub bytes_total: u64,
}

/// Told how far a run is.
pub type Tell = dyn Fn(&Progress) + Send + Sync;

/// A file that was not processed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileFailure {
    /// Which.
    pub path: FilePath,
    /// The stable word.
    pub code: String,
    /// What happened.
    pub reason: String,
    /// Whether trying again may help.
    pub retryable: bool,
}

impl FileFailure {
    pub(super) fn of(file: &FileInfo, error: &BatchError) -> Self {
        Self {
            path: file.path.clone(),
            code: error.code().word().to_owned(),
            reason: error.to_string(),
            retryable: error.code().is_retryable(),
        }
    }
}

impl From<&Failed> for FileFailure {
    fn from(failed: &Failed) -> Self {
        let retryable = matches!(failed.code.as_str(), "network" | "busy" | "short" | "interrupted");
        Self { path: failed.file.path.clone(), code: failed.code.clone(), reason: failed.error.clone(), retryable }
    }
}

/// How a run went. What is in the backlog is done (now or before), unchanged, failed or pending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunReport {
    /// What the scan found.
    #[serde(flatten)]
    pub scan: ScanReport,
    /// Files processed, with the result in their place.
    pub done: u64,
    /// Files that this run had done before it was interrupted.
    pub done_before: u64,
    /// Files that the processing leaves as they are, or that hold its result already.
    pub unchanged: u64,
    /// Files that failed.
    pub failed: u64,
    /// Files that nobody got to, or whose results were withdrawn.
    pub pending: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// How files were replaced.
    pub replacing: Option<Replacing>,
    /// The version that holds the results, in a workspace.
    pub version: Option<String>,
    /// The first failures.
    pub failures: Vec<FileFailure>,
}

impl RunReport {
    pub(super) fn fail(&mut self, failure: FileFailure) {
        self.failed += 1;
        if self.failures.len() < FAILURES_TOLD_MAX {
            self.failures.push(failure);
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let files = self.done + self.done_before + self.unchanged + self.failed;
        Progress {
            scanned: 0,
            files,
            files_total: self.scan.backlogged,
            bytes: self.bytes_in,
            bytes_total: self.scan.bytes,
        }
    }

    /// What is in the backlog and not accounted for is pending.
    pub(super) fn settle(&mut self) {
        self.pending = self.scan.backlogged.saturating_sub(self.progress().files);
    }

    /// The results of this run do not count.
    pub(super) fn withdraw(&mut self) {
        self.pending += self.done;
        (self.done, self.bytes_out) = (0, 0);
    }
}
