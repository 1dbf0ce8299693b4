//! What every request can carry: an id, the version that must be the newest, and whether it is a trial.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use super::envelope::{Asked, Work};
use super::failure::{Exit, Failure};
use super::ids::{Asking, Before, Ids};
use super::jobs::Prepared;
use super::reply::Reply;
use super::request::Request;
use super::{run, table, trial};
use crate::apps::sealed::SecretDigest;
use crate::version::index::sha256;
use crate::workspace::Workspace;

/// Longest id of a request, in bytes.
const ID_LEN_MAX: usize = 128;

/// What a request carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Carried {
    /// The request's own id: what has the same is answered and not run again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The newest version must be the one that this selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_parent: Option<String>,
    /// Only checks, for commands that have no trial of their own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What can be run.
pub(super) enum Ready {
    Request(Box<Request>),
    Job(&'static str, Prepared),
}

/// Nothing is done but tried.
struct Trial<'a> {
    /// Where the workspace is mounted, if it is.
    mountpoint: Option<&'a Path>,
}

/// Runs requests as far as what they carry lets them.
pub(super) struct Guard {
    workspace: Arc<Workspace>,
    ids: Ids,
    /// One change with an expectation at a time.
    expecting: Mutex<()>,
}

/// Runs a request on a workspace that is not mounted.
pub fn run_carrying(workspace: &Arc<Workspace>, request: &Request, carried: Carried) -> Reply {
    let asked = Asked { carried, work: Work::Request(Box::new(request.clone())) };
    let run = |ready| match ready {
        Ready::Request(request) => Ok(run::run(workspace, &request)),
        Ready::Job(op, _) => Err(not_a_job(op)),
    };
    Guard::new(workspace.clone()).perform(asked, None, run).unwrap_or_else(Reply::from)
}

impl Guard {
    pub(super) fn new(workspace: Arc<Workspace>) -> Self {
        Self { ids: Ids::new(&workspace), expecting: Mutex::new(()), workspace }
    }

    /// Answers what was asked, by `run` where it has to be run.
    pub(super) fn perform(
        &self,
        asked: Asked,
        mountpoint: Option<&Path>,
        run: impl FnOnce(Ready) -> Result<Reply, Failure>,
    ) -> Result<Reply, Failure> {
        let Asked { carried: Carried { id, expect_parent, dry_run }, work } = asked;
        if id.as_ref().is_some_and(|id| id.is_empty() || id.len() > ID_LEN_MAX) {
            return Err(Failure::new(Exit::Usage, format!("an `id` has 1 to {ID_LEN_MAX} bytes")));
        }
        let ready = Ready::of(work)?;
        let Some(id) = id.filter(|_| ready.changes() && !dry_run) else {
            return self.expected(expect_parent.as_deref(), dry_run.then_some(Trial { mountpoint }), ready, run);
        };
        let what = json!({ "request": ready.shown()?, "expect_parent": expect_parent });
        let asked = Asking { what: sha256(what.to_string().as_bytes()).to_string(), secret: ready.secret() };
        match self.ids.begin(&id, asked)? {
            Before::Done(reply) => Ok(*reply),
            Before::New => {
                let reply = self.expected(expect_parent.as_deref(), None, ready, run).unwrap_or_else(Reply::from);
                self.ids.end(&id, &reply);
                Ok(reply)
            }
        }
    }

    /// Runs what is ready if the newest version is the one expected.
    fn expected(
        &self,
        parent: Option<&str>,
        trial: Option<Trial<'_>>,
        ready: Ready,
        run: impl FnOnce(Ready) -> Result<Reply, Failure>,
    ) -> Result<Reply, Failure> {
        let _one = parent.is_some().then(|| self.expecting.lock());
        if let Some(parent) = parent {
            let (expected, newest) = (self.workspace.select(parent)?, self.workspace.tree().base().index.id);
            if expected != newest {
                let message = format!("the newest version is {newest}, and not {expected} as expected");
                return Err(Failure::new(Exit::Conflict, message).hint("look at what changed, then ask again"));
            }
        }
        match (ready, trial) {
            (Ready::Request(request), Some(_)) if changes(&request) => trial::request(&self.workspace, &request),
            (Ready::Job(op, prepared), Some(trial)) => trial::job(&self.workspace, trial.mountpoint, op, prepared),
            (ready, _) => run(ready),
        }
    }
}

fn not_a_job(name: &str) -> Failure {
    Failure::new(Exit::Other, format!("`{name}` is no job"))
}

fn changes(request: &Request) -> bool {
    let op = serde_json::to_value(request).ok();
    let name = op.as_ref().and_then(|request| request["op"].as_str()).unwrap_or_default();
    table::find(name).is_none_or(table::Command::changes)
}

impl Ready {
    fn of(work: Work) -> Result<Self, Failure> {
        Ok(match work {
            Work::Job(command, fields, secrets) => {
                let prepare = command.run.prepare().ok_or_else(|| not_a_job(command.name))?;
                Ready::Job(command.name, prepare(Value::Object(fields), secrets)?)
            }
            Work::Request(request) => Ready::Request(request),
        })
    }

    fn changes(&self) -> bool {
        match self {
            Ready::Job(..) => true,
            Ready::Request(request) => changes(request),
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
