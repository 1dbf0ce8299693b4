//! The door for requests that come as bytes: control files, and the command line through them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::envelope::{Asked, Work, is_json, too_long, understand};
use super::failure::{Exit, Failure};
use super::guard::{Guard, Ready};
use super::jobs::Jobs;
use super::metrics::{self, Metric};
use super::reply::Reply;
use super::request::Request;
use super::run;
use crate::workspace::Workspace;

/// Publishing at `stop` takes at most this long, in milliseconds.
const STOP_PUBLISH_MS: u64 = 30_000;

/// Longest answer that is kept for who did not ask, in bytes.
const LAST_LEN_MAX: usize = 1024 * 1024;

type Counters = Box<dyn Fn() -> Vec<(String, u64)> + Send + Sync>;

/// Answers requests for one workspace.
pub struct Dispatcher {
    workspace: Arc<Workspace>,
    jobs: Arc<Jobs>,
    guard: Guard,
    /// The last answer of each command, and of the file for all of them, for who reads a file without having asked.
    last: Mutex<HashMap<Option<&'static str>, Vec<u8>>>,
    last_error: Mutex<String>,
    on_stop: Box<dyn Fn() + Send + Sync>,
    counters: Mutex<Option<Counters>>,
    settings: Mutex<Vec<Setting>>,
}

/// A setting of a mount.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Setting {
    /// Its key in the configuration file.
    pub key: String,
    /// Its value, where it has one.
    pub value: Option<String>,
    /// Where that comes from.
    pub source: String,
}

/// An answer.
pub struct Answer {
    /// How it ended.
    pub exit: Exit,
    /// In the form of the request: a line of JSON, or text.
    pub bytes: Vec<u8>,
    /// Whether the request held what is secret, or may have: nobody knows what is not understood.
    pub is_secret: bool,
}

impl Dispatcher {
    /// A dispatcher, with the jobs that earlier mounts left. `on_stop` is told when a request asks to unmount.
    pub fn new(workspace: Arc<Workspace>, on_stop: impl Fn() + Send + Sync + 'static) -> Result<Arc<Self>, Failure> {
        Ok(Arc::new(Self {
            jobs: Jobs::open(workspace.clone())?,
            guard: Guard::new(workspace.clone()),
            last: Mutex::default(),
            last_error: Mutex::default(),
            on_stop: Box::new(on_stop),
            counters: Mutex::new(None),
            settings: Mutex::default(),
            workspace,
        }))
    }

    /// The jobs.
    pub fn jobs(&self) -> &Arc<Jobs> {
        &self.jobs
    }

    /// Answers a request. One for `command` need not name it; paths in it are from the folder `base`.
    pub fn answer(&self, command: Option<&'static str>, base: &[u8], request: &[u8]) -> Answer {
        let asked = understand(command, base, request);
        let is_secret = asked.as_ref().map_or(true, |asked| matches!(asked.work, Work::Job(_, _, Some(_))));
        let reply = asked.and_then(|asked| self.perform(asked)).unwrap_or_else(Reply::from);
        let exit = Exit::from_code(reply.exit);
        if !matches!(exit, Exit::Ok | Exit::Partial) {
            *self.last_error.lock() = reply.explanation(command.unwrap_or("request"));
        }
        let written = |reply: &Reply| if command.is_none() || is_json(request) { reply.line() } else { reply.text() };
        let bytes = written(&reply);
        let kept = if bytes.len() <= LAST_LEN_MAX { bytes.clone() } else { written(&without_data(reply)) };
        self.last.lock().insert(command, kept);
        Answer { exit, bytes, is_secret }
    }

    /// Who counts the requests of the file system, by kind.
    pub fn set_counters(&self, counters: impl Fn() -> Vec<(String, u64)> + Send + Sync + 'static) {
        *self.counters.lock() = Some(Box::new(counters));
    }

    /// The settings that the mount began with.
    pub fn set_settings(&self, settings: Vec<Setting>) {
        *self.settings.lock() = settings;
    }

    /// The settings as a table.
    pub fn settings(&self) -> Vec<u8> {
        let line = |Setting { key, value, source }: &Setting| {
            format!("{key:16}  {:40}  {source}\n", value.as_deref().unwrap_or("-"))
        };
        self.settings.lock().iter().map(line).collect::<String>().into_bytes()
    }

    fn metrics(&self) -> Vec<Metric> {
        let requests = self.counters.lock().as_ref().map(|counters| counters()).unwrap_or_default();
        metrics::collect(&self.workspace.status(), &self.jobs.all(), requests)
    }

    /// All numbers in the text format of Prometheus.
    pub fn prometheus(&self) -> Vec<u8> {
        metrics::prometheus(&self.metrics()).into_bytes()
    }

    /// A request was begun and never ended.
    pub fn abandoned(&self, command: Option<&'static str>) {
        let failure = Failure::new(Exit::Usage, "the request was closed before it was complete");
        self.refused(command, failure.hint("a JSON object ends with its brace, a line with a newline or the close"));
    }

    /// A request was longer than is taken.
    pub fn too_long(&self, command: Option<&'static str>) {
        self.refused(command, too_long());
    }

    /// A request failed without having been asked.
    fn refused(&self, command: Option<&'static str>, failure: Failure) {
        *self.last_error.lock() = Reply::from(failure).explanation(command.unwrap_or("request"));
    }

    /// The last answer of a command or, without one, to a request that named its own; nothing before the first.
    pub fn last(&self, command: Option<&'static str>) -> Vec<u8> {
        self.last.lock().get(&command).cloned().unwrap_or_default()
    }

    /// Why the last request failed that did; empty before.
    pub fn last_error(&self) -> Vec<u8> {
        self.last_error.lock().clone().into_bytes()
    }

    fn perform(&self, asked: Asked) -> Result<Reply, Failure> {
        self.guard.perform(asked, self.jobs.mountpoint().as_deref(), |ready| match ready {
            Ready::Request(request) => self.request(&request),
            Ready::Job(op, prepared) => {
                let id = self.jobs.submit(op, prepared)?;
                Ok(Reply::done(format!("job {id}"), json!({ "job": id.to_string() })))
            }
        })
    }

    fn request(&self, request: &Request) -> Result<Reply, Failure> {
        match request {
            Request::Stop {} => {
                let reply = run::run(&self.workspace, &Request::Flush { wait_ms: STOP_PUBLISH_MS });
                (self.on_stop)();
                Ok(reply)
            }
            Request::Metrics {} => {
                let found = self.metrics();
                Ok(Reply::done(format!("{} numbers", found.len()), found))
            }
            Request::Config {} => {
                let settings = self.settings.lock().clone();
                Ok(Reply::done(format!("{} settings", settings.len()), settings))
            }
            Request::Jobs {} => Ok(super::jobs::listed(&self.jobs.all())),
            Request::Job { job } => super::jobs::shown(self.jobs.find_text(job)?.as_ref(), job),
            Request::Cancel { job } => self.jobs.cancel_text(job),
            request => Ok(run::run(&self.workspace, request)),
        }
    }
}

/// What is kept of an answer that is long.
fn without_data(reply: Reply) -> Reply {
    let hint = "its list is too long to be kept; read it from the descriptor that the request was written to";
    Reply { data: Value::Null, hint: Some(hint.to_owned()), ..reply }
}
