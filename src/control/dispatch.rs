//! The door for requests that come as bytes: control files, and the command line through them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::envelope::{Asked, Work, is_json, understand};
use super::failure::{Exit, Failure};
use super::ids::{Asking, Before, Ids};
use super::jobs::{Jobs, Prepared};
use super::metrics::{self, Metric};
use super::reply::Reply;
use super::request::Request;
use super::run;
use super::table;
use crate::apps::sealed::SecretDigest;
use crate::version::index::sha256;
use crate::workspace::Workspace;

/// Publishing at `stop` takes at most this long, in milliseconds.
const STOP_PUBLISH_MS: u64 = 30_000;

type Counters = Box<dyn Fn() -> Vec<(String, u64)> + Send + Sync>;

/// Answers requests for one workspace.
pub struct Dispatcher {
    workspace: Arc<Workspace>,
    jobs: Arc<Jobs>,
    ids: Ids,
    /// The last answer of each command, for who reads its file without having asked.
    last: Mutex<HashMap<&'static str, Vec<u8>>>,
    last_error: Mutex<String>,
    on_stop: Box<dyn Fn() + Send + Sync>,
    counters: Mutex<Option<Counters>>,
    settings: Mutex<Vec<Setting>>,
    /// One change with an expectation at a time.
    expecting: Mutex<()>,
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
            ids: Ids::new(&workspace),
            last: Mutex::default(),
            last_error: Mutex::default(),
            on_stop: Box::new(on_stop),
            counters: Mutex::new(None),
            settings: Mutex::default(),
            expecting: Mutex::new(()),
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
        let bytes = if command.is_none() || is_json(request) { reply.line() } else { reply.text() };
        if let Some(command) = command {
            self.last.lock().insert(command, bytes.clone());
        }
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
        let reply = Reply::from(failure.hint("a JSON object ends with its brace, a line with a newline or the close"));
        *self.last_error.lock() = reply.explanation(command.unwrap_or("request"));
    }

    /// The last answer of a command; nothing before its first.
    pub fn last(&self, command: &str) -> Vec<u8> {
        self.last.lock().get(command).cloned().unwrap_or_default()
    }

    /// Why the last request failed that did; empty before.
    pub fn last_error(&self) -> Vec<u8> {
        self.last_error.lock().clone().into_bytes()
    }

    fn perform(&self, asked: Asked) -> Result<Reply, Failure> {
        let Asked { id, expect_parent, dry_run, work } = asked;
        let work = self.prepare(work)?;
        let Some(id) = id.filter(|_| work.changes() && !dry_run) else {
            return self.expected(expect_parent.as_deref(), dry_run, work);
        };
        let what = json!({ "request": work.shown()?, "expect_parent": expect_parent });
        let asked = Asking { what: sha256(what.to_string().as_bytes()).to_string(), secret: work.secret() };
        match self.ids.begin(&id, asked)? {
            Before::Done(reply) => Ok(*reply),
            Before::New => {
                let reply = self.expected(expect_parent.as_deref(), false, work).unwrap_or_else(Reply::from);
                self.ids.end(&id, &reply);
                Ok(reply)
            }
        }
    }

    fn prepare(&self, work: Work) -> Result<Ready, Failure> {
        Ok(match work {
            Work::Job(command, fields, secrets) => {
                let prepare = command.run.prepare().ok_or_else(|| not_a_job(command.name))?;
                Ready::Job(command.name, prepare(Value::Object(fields), secrets)?)
            }
            Work::Request(request) => Ready::Request(request),
        })
    }

    /// Runs what is ready if the newest version is the one expected.
    fn expected(&self, parent: Option<&str>, dry_run: bool, work: Ready) -> Result<Reply, Failure> {
        let _one = parent.is_some().then(|| self.expecting.lock());
        if let Some(parent) = parent {
            let (expected, newest) = (self.workspace.select(parent)?, self.workspace.tree().base().index.id);
            if expected != newest {
                let message = format!("the newest version is {newest}, and not {expected} as expected");
                return Err(Failure::new(Exit::Conflict, message).hint("look at what changed, then ask again"));
            }
        }
        if dry_run && work.changes() {
            if let Ready::Job(_, Prepared { check: Some(check), .. }) = work {
                check(&self.workspace)?;
            }
            return Ok(Reply::done("the request can be run; nothing was done", json!({ "dry_run": true })));
        }
        match work {
            Ready::Request(request) => self.request(&request),
            Ready::Job(op, prepared) => {
                let id = self.jobs.submit(op, prepared)?;
                Ok(Reply::done(format!("job {id}"), json!({ "job": id.to_string() })))
            }
        }
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

fn not_a_job(name: &str) -> Failure {
    Failure::new(Exit::Other, format!("`{name}` is no job"))
}

enum Ready {
    Request(Box<Request>),
    Job(&'static str, Prepared),
}

impl Ready {
    fn changes(&self) -> bool {
        match self {
            Ready::Job(..) => true,
            Ready::Request(request) => {
                let op = serde_json::to_value(request).ok();
                let name = op.as_ref().and_then(|request| request["op"].as_str()).unwrap_or_default();
                table::find(name).is_none_or(table::Command::changes)
            }
        }
    }

    /// What tells its secrets from those of another.
    fn secret(&self) -> Option<SecretDigest> {
        match self {
            Ready::Job(_, prepared) => prepared.secret,
            Ready::Request(_) => None,
        }
    }

    /// What tells one request from another; no secrets.
    fn shown(&self) -> Result<Value, Failure> {
        match self {
            Ready::Job(op, prepared) => Ok(json!({ "op": op, "request": prepared.shown })),
            Ready::Request(request) => serde_json::to_value(request)
                .map_err(|error| Failure::new(Exit::Other, format!("the request cannot be written as JSON: {error}"))),
        }
    }
}
