//! What is known of a job, and kept of it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::control::{Exit, Failure, Reply};

/// Lines of the log that are kept; the oldest go.
const LOG_LINES_MAX: usize = 1_000;
/// Longest line of the log, in bytes.
const LOG_LINE_LEN_MAX: usize = 1_000;

/// How far a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// It waits for its turn.
    Queued,
    /// It is under way.
    Running,
    /// It did what was asked, or a part of it; the result says which.
    Done,
    /// It failed; the result says why.
    Failed,
    /// It was ended on request.
    Cancelled,
    /// The mount ended while it ran, and it cannot go on.
    Interrupted,
}

impl JobState {
    /// The word in the file `status`.
    pub fn word(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
            JobState::Interrupted => "interrupted",
        }
    }

    /// Whether nothing more comes of it.
    pub fn is_final(self) -> bool {
        !matches!(self, JobState::Queued | JobState::Running)
    }
}

/// How much of a job is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// So many steps are done.
    pub done: u64,
    /// Of so many; 0 when not known.
    pub total: u64,
    /// What is being done.
    pub what: String,
}

/// A job as it is kept in the state directory, sealed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id.
    pub id: Uuid,
    /// The command.
    pub op: String,
    /// What was asked, without secrets.
    pub request: Value,
    /// Its state.
    pub state: JobState,
    /// When it was asked for: RFC 3339, UTC.
    pub submitted: String,
    /// When it began.
    pub started: Option<String>,
    /// When it ended.
    pub finished: Option<String>,
    /// How far it is.
    pub progress: JobProgress,
    /// What it said.
    pub log: VecDeque<String>,
    /// What came of it.
    pub result: Option<Reply>,
}

impl JobRecord {
    /// Adds a line to the log.
    pub(super) fn say(&mut self, time: &str, text: &str) {
        let mut line = format!("{time} {}", text.trim_end().replace('\n', " "));
        if line.len() > LOG_LINE_LEN_MAX {
            line.truncate(line.floor_char_boundary(LOG_LINE_LEN_MAX));
        }
        self.log.push_back(line);
        if self.log.len() > LOG_LINES_MAX {
            self.log.pop_front();
        }
    }

    /// Ends it.
    pub(super) fn end(&mut self, state: JobState, time: String, result: Reply) {
        self.state = state;
        self.finished = Some(time);
        self.result = Some(result);
    }

    /// It ran when a mount ended.
    pub(super) fn interrupt(&mut self, time: String) {
        let failure = Failure::new(Exit::Interrupted, "the mount ended while the job ran");
        self.end(JobState::Interrupted, time, failure.hint("look at its log, then ask for it again").into());
    }

    /// The job without its log and request, as lists show it.
    pub(super) fn summary(&self) -> Value {
        serde_json::json!({
            "job": self.id.to_string(), "op": self.op, "state": self.state.word(), "submitted": self.submitted,
            "started": self.started, "finished": self.finished, "progress": self.progress,
            "result": self.result,
        })
    }
}
