//! What happened that users may want to know: a bounded log in memory, one line of JSON for each event.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use super::Notice;
use super::status::rfc3339;
use crate::base::clock::Clock;
use crate::sync::{Pulled, SyncError};
use crate::version::merge::Conflict;

/// Events kept; older ones go.
const EVENTS_MAX: usize = 1_000;

/// The log.
pub(super) struct Events {
    clock: Arc<dyn Clock>,
    announce: Option<Notice>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Number of the first line kept.
    first: u64,
    lines: VecDeque<String>,
    conflicts: usize,
}

impl Events {
    pub(super) fn new(clock: Arc<dyn Clock>, announce: Option<Notice>) -> Self {
        Self { clock, announce, state: Mutex::default() }
    }

    /// Tells who wants to know at once; names stay in the log.
    fn announce(&self, message: &str) {
        if let Some(announce) = &self.announce {
            announce(message);
        }
    }

    /// Adds one event: a stable word, a sentence, and what else belongs to it. Said once in the log, too.
    pub(super) fn note(&self, event: &str, message: &str, more: &[(&str, serde_json::Value)]) {
        tracing::info!("{message}");
        let mut line = json!({ "time": rfc3339(self.clock.now()), "event": event, "message": message });
        if let Some(fields) = line.as_object_mut() {
            fields.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        }
        let mut state = self.state.lock();
        state.lines.push_back(line.to_string());
        if state.lines.len() > EVENTS_MAX {
            state.lines.pop_front();
            state.first += 1;
        }
    }

    /// An application has something to tell.
    pub(super) fn told(&self, event: &str, message: &str, about: &serde_json::Value) {
        self.note(event, message, &[("about", about.clone())]);
        self.announce(message);
    }

    /// Others' versions were taken in.
    pub(super) fn joined(&self, pulled: &Pulled) {
        let message = format!("took in version {} of {}: {} changes", pulled.theirs, pulled.author, pulled.changed);
        let more = [
            ("version", json!(pulled.version.to_string())),
            ("theirs", json!(pulled.theirs.to_string())),
            ("changed", json!(pulled.changed)),
        ];
        self.note("pulled", &message, &more);
        self.conflicts(&pulled.conflicts);
    }

    /// Both sides changed files.
    pub(super) fn conflicts(&self, conflicts: &[Conflict]) {
        conflicts.iter().for_each(|conflict| self.conflict(conflict));
        match conflicts.len() {
            0 => {}
            1 => self.announce("a file was changed on two machines at once; see `kura conflicts`"),
            count => {
                self.announce(&format!("{count} files were changed on two machines at once; see `kura conflicts`"))
            }
        }
    }

    fn conflict(&self, conflict: &Conflict) {
        let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let path = text(&conflict.path);
        let beside = conflict.beside.as_deref().map(text);
        let message = match &beside {
            Some(beside) => format!("conflict: `{path}` was {} on both sides; see `{beside}`", conflict.clash.word()),
            None => format!("conflict: `{path}` was {} on one side and changed on the other", conflict.clash.word()),
        };
        let more = [("path", json!(path)), ("clash", json!(conflict.clash.word())), ("beside", json!(beside))];
        self.state.lock().conflicts += 1;
        self.note("conflict", &message, &more);
    }

    /// Publishing met another kind of trouble than before.
    pub(super) fn trouble(&self, error: &SyncError) {
        self.note("trouble", &error.to_string(), &[]);
        self.announce("changes are kept on this machine and not published; see `kura status`");
    }

    /// Conflicts were settled.
    pub(super) fn settled(&self, count: usize) {
        let mut state = self.state.lock();
        state.conflicts = state.conflicts.saturating_sub(count);
    }

    /// Listing the conflicts found so many, and `known` were known of when it began.
    pub(super) fn listed(&self, known: usize, found: usize) {
        let mut state = self.state.lock();
        // What came since may not be among them.
        if state.conflicts == known {
            state.conflicts = found;
        }
    }

    /// How many conflicts are known of.
    pub(super) fn open_conflicts(&self) -> usize {
        self.state.lock().conflicts
    }

    /// The lines from number `from` on, and the number of the next one.
    pub(super) fn since(&self, from: u64) -> (Vec<String>, u64) {
        let state = self.state.lock();
        let skip = usize::try_from(from.saturating_sub(state.first)).unwrap_or(usize::MAX);
        let next = state.first + state.lines.len() as u64;
        (state.lines.iter().skip(skip).cloned().collect(), next)
    }
}
