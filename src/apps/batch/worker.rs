//! What happens to one file.

use std::io::{self, Write};

use super::cancel::Cancel;
use super::error::{BatchError, Code, Result};
use super::filesystem::FileInfo;
use super::journal::Intent;
use super::process::Processor;
use super::report::FileFailure;
use super::status::{Attempt, Completed, Failed, Remembered};
use super::work::{TempFile, WorkDir};
use super::workflow::ProcessingWorkflow;

/// What all workers of a run share.
pub struct Worker<'a> {
    /// The job at work.
    pub flow: &'a ProcessingWorkflow,
    /// Where files lie meanwhile.
    pub work: &'a WorkDir,
    /// What is done to them.
    pub processor: &'a Processor,
    /// The run.
    pub run: u64,
}

/// How it went with one file.
pub enum Outcome {
    /// It was processed, and the result is in its place.
    Replaced {
        /// Bytes read.
        bytes_in: u64,
        /// Bytes written.
        bytes_out: u64,
    },
    /// It is as it should be; nothing was uploaded.
    Unchanged {
        /// Bytes read.
        bytes_in: u64,
    },
    /// This run did it before it was interrupted.
    DoneBefore,
    /// It failed in this run before that was interrupted.
    FailedBefore(FileFailure),
}

/// Ends a transfer when the run is cancelled.
struct Watched<'a> {
    to: &'a mut dyn Write,
    cancel: &'a Cancel,
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.cancel.check_io()?;
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Worker<'_> {
    /// Processes a file and remembers how it went.
    pub fn process(&self, file: &FileInfo) -> Result<Outcome> {
        let known = self.flow.memory.recall(&file.path)?;
        if known.completed.as_ref().is_some_and(|done| done.run == self.run) {
            return Ok(Outcome::DoneBefore);
        }
        if let Some(failed) = known.failed.as_ref().filter(|failed| failed.run == self.run) {
            return Ok(Outcome::FailedBefore(FileFailure::from(failed)));
        }
        let mut attempt = None;
        let outcome = self.attempt(file, &known, &mut attempt);
        if let Err(error) = &outcome
            && error.code() != Code::Cancelled
            && !self.flow.breaker.is_given_up()
        {
            self.remember_failure(file, error, attempt)?;
        } else if outcome.is_err() && attempt.is_some() {
            // It waits for the next run, which has to know that it may have been uploaded.
            self.flow.memory.report_error(Failed { run: 0, ..self.failed(file, "interrupted", "", attempt) })?;
        }
        self.flow.cut_journal()?;
        outcome
    }

    fn failed(&self, file: &FileInfo, code: &str, error: &str, attempt: Option<Attempt>) -> Failed {
        let (code, error) = (code.to_owned(), error.to_owned());
        let timestamp = self.flow.setup.clock.now();
        Failed { file: file.clone(), code, error, timestamp, retry_count: 0, run: self.run, attempt }
    }

    fn remember_failure(&self, file: &FileInfo, error: &BatchError, attempt: Option<Attempt>) -> Result<()> {
        self.flow.memory.report_error(self.failed(file, error.code().word(), &error.to_string(), attempt))
    }

    fn attempt(&self, file: &FileInfo, known: &Remembered, attempt: &mut Option<Attempt>) -> Result<Outcome> {
        let (mut input, found) = self.download(file)?;
        let bytes_in = input.len();
        let (before, path) = (input.digest(), &file.path);
        let interrupted = known.failed.as_ref().and_then(|failed| failed.attempt);
        let is_own = known.completed.as_ref().is_some_and(|done| done.sha256 == before)
            || interrupted.is_some_and(|interrupted| interrupted.after == before);
        if is_own || self.processor.is_none() {
            return self.unchanged(found, &input);
        }
        if interrupted.is_some_and(|interrupted| interrupted.before != before) {
            let reason = "it is neither what an interrupted run read nor what it wrote; the next run takes it as it is";
            return Err(BatchError::file(Code::SourceChanged, path.to_string(), reason));
        }
        let mut output = self.work.file()?;
        self.processor.run(&path.to_string(), &mut input, &mut output, &self.flow.cancel)?;
        drop(input);
        let after = output.digest();
        if after == before {
            return self.unchanged(found, &output);
        }
        self.flow.cancel.check()?;
        let _gate = self.flow.gate.read();
        self.flow.journal.intend(&Intent { path: path.clone(), before, after })?;
        *attempt = Some(Attempt { before, after });
        let now = self.upload(found, &output, Attempt { before, after })?;
        if !self.flow.files.capabilities().whole_run {
            self.done(now, &output)?;
        }
        Ok(Outcome::Replaced { bytes_in, bytes_out: output.len() })
    }

    fn download(&self, file: &FileInfo) -> Result<(TempFile, FileInfo)> {
        let mut temporary = self.work.file()?;
        let found = self.flow.retrier().run(|_| {
            let cancel = &self.flow.cancel;
            let found = temporary.fill(|to| self.flow.files.download(&file.path, &mut Watched { to, cancel }))?;
            if found.is_dir {
                return Err(BatchError::file(Code::NotAFile, file.path.to_string(), "it is a directory now"));
            }
            if found.size != temporary.len() {
                let reason = format!("{} bytes came of {} that were announced", temporary.len(), found.size);
                return Err(BatchError::file(Code::Short, file.path.to_string(), reason));
            }
            Ok(found)
        })?;
        Ok((temporary, found))
    }

    fn unchanged(&self, found: FileInfo, content: &TempFile) -> Result<Outcome> {
        self.done(found, content)?;
        Ok(Outcome::Unchanged { bytes_in: content.len() })
    }

    fn done(&self, file: FileInfo, content: &TempFile) -> Result<()> {
        let (sha256, processed_at) = (content.digest(), self.flow.setup.clock.now());
        self.flow.memory.report_done(&Completed { file, sha256, processed_at, run: self.run })
    }

    /// Uploads; after a try whose end is not known, looks whether it has happened.
    fn upload(&self, mut expected: FileInfo, output: &TempFile, attempt: Attempt) -> Result<FileInfo> {
        self.flow.retrier().run(|number| {
            if number > 1 {
                let (now, found) = self.download(&expected)?;
                if now.digest() == attempt.after {
                    return Ok(found);
                }
                if now.digest() != attempt.before {
                    let reason = "somebody changed it while it was being uploaded; it was left as it is";
                    return Err(BatchError::file(Code::SourceChanged, expected.path.to_string(), reason));
                }
                expected = found;
            }
            self.flow.files.replace(&expected, output)
        })
    }
}
