//! How batches end, for both doors.

use super::failure::{Exit, Failure};
use super::reply::Reply;
use crate::apps::batch::{BatchError, Code, RunReport};

impl From<BatchError> for Failure {
    fn from(error: BatchError) -> Self {
        let (exit, hint) = match &error {
            BatchError::File { code, .. } => match code {
                Code::Network | Code::Busy => (Exit::Unreachable, Some("`kura batch resume` goes on when it is back")),
                Code::Denied | Code::Login | Code::Untrusted => (Exit::Denied, None),
                Code::Cancelled => (Exit::Interrupted, Some("`kura batch resume` goes on")),
                _ => (Exit::Other, None),
            },
            BatchError::Pattern { .. } | BatchError::Job(_) => (Exit::Usage, None),
            BatchError::Running { .. } => (Exit::Locked, None),
            BatchError::NoBacklog => (Exit::Usage, None),
            BatchError::BacklogTruncated(_) | BatchError::BacklogDamaged(_) | BatchError::Journal(_) => {
                (Exit::Damaged, None)
            }
            BatchError::Memory(_) => (Exit::Damaged, Some("remove it, and every file is looked at again")),
            BatchError::Workspace(_) | BatchError::Disk { .. } => (Exit::Other, None),
        };
        match error {
            BatchError::Workspace(error) => error.into(),
            error => Failure { exit, message: error.to_string(), hint: hint.map(str::to_owned) },
        }
    }
}

/// The reply to a run.
pub fn batch_done(report: &RunReport) -> Reply {
    let done = report.done + report.done_before;
    let mut message = format!(
        "{} scanned, {} skipped, {done} processed, {} unchanged, {} failed, {} pending",
        report.scan.scanned, report.scan.skipped, report.unchanged, report.failed, report.pending
    );
    if let Some(version) = &report.version {
        message.push_str(&format!("; recorded as version {version}"));
    }
    if report.scan.unreadable > 0 {
        message.push_str(&format!("; {} could not be looked at", report.scan.unreadable));
    }
    let is_whole = report.failed + report.pending + report.scan.unreadable == 0;
    if is_whole { Reply::done(message, report) } else { Reply::partly(message, report) }
}
