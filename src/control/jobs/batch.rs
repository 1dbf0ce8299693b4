//! The job `batch`: many files, of the workspace or elsewhere, processed in place.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{JobContext, Prepared};
use crate::apps::batch::{
    self, Connections, Job, ProcessingWorkflow, Progress, RunReport, Setup, Source, unquoted, watch,
};
use crate::apps::sealed::RequestSecrets;
use crate::control::batch_done;
use crate::control::table::{Arg, ArgKind, Command, Run};
use crate::control::{Exit, Failure, Reply};

/// The command.
pub const COMMAND: Command = Command {
    name: "batch",
    summary: "Processes many files in place, here or on servers",
    args: &[
        Arg::option("action", ArgKind::Text, "`run` (when missing), `scan`, `process`, `resume`, `retry`, `failures`"),
        Arg { required: true, ..Arg::option("job", ArgKind::Json, "the job, as a job file in JSON has it") },
    ],
    run: Run::Job(prepare),
};

/// Failures that are told at once.
const FAILURES_TOLD_MAX: usize = 1000;
const HINT: &str = r#"write {"job": {"name": "…", "source": {"url": "workspace:/DIR"}, "process": {"kind": "…"}}}"#;

/// What a mount lets its batches use.
pub trait BatchHost: Send + Sync {
    /// What the user has set up.
    fn connections(&self) -> Result<Connections, Failure>;
    /// The password of a source; `command` prints it, if there is one.
    fn password(&self, source: &Source, command: Option<&[String]>) -> Result<Option<Zeroizing<String>>, Failure>;
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    #[default]
    Run,
    Scan,
    Process,
    Resume,
    Retry,
    Failures,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    action: Action,
    job: Job,
}

fn prepare(request: Value, _: Option<RequestSecrets>) -> Result<Prepared, Failure> {
    let not_understood = |reason: &str| Failure::new(Exit::Usage, format!("the batch is not understood: {reason}"));
    let request: Request =
        serde_json::from_value(request).map_err(|error| not_understood(&unquoted(&error.to_string())).hint(HINT))?;
    request.job.check()?;
    let source = &request.job.source;
    // Whoever can write a file here must not have what the mount's own environment and files hold sent to a server.
    if source.password_env.is_some()
        || source.password_file.is_some()
        || source.password_keyring.is_some()
        || source.key_file.is_some()
    {
        let failure = not_understood("it says where a password or key is");
        return Err(failure.hint("name a connection that was set up: {\"source\": {\"connection\": \"…\"}}"));
    }
    let shown = serde_json::to_value(&request).map_err(|error| not_understood(&error.to_string()))?;
    // What was done is remembered, so beginning anew goes on.
    Ok(Prepared {
        shown,
        secret: None,
        resume: true,
        outside: None,
        check: None,
        work: Box::new(move |context| work(context, request)),
    })
}

fn work(context: &JobContext, Request { action, mut job }: Request) -> Result<Reply, Failure> {
    let host = context.batch_host().ok_or_else(|| Failure::new(Exit::Other, "this mount runs no batches"))?;
    let set_up = host.connections()?;
    let denied = |what: &str, key: &str| {
        Failure::new(Exit::Denied, format!("the job `{}` {what}, which was not allowed", job.name))
            .hint(format!("write `{key} = true` to the file of connections"))
    };
    if job.process.is_command() && !set_up.allow_commands {
        return Err(denied("runs a command", "allow_commands"));
    }
    if job.run.plaintext_dir.is_some() && !set_up.allow_plaintext {
        return Err(denied("has plaintext on a disk", "allow_plaintext"));
    }
    let (source, command) = set_up.resolve(&job.source)?;
    let password = host.password(&source, command.as_deref())?;
    job.source = source;
    let workspace = context.workspace();
    let setup = Setup {
        keys: workspace.keys().clone(),
        disk: workspace.disk().clone(),
        clock: workspace.clock().clone(),
        dir: workspace.state_dir().join("batch"),
    };
    if action == Action::Failures {
        return failures(&setup, &job);
    }
    let mut flow = batch::open(&setup, job, Some(workspace), password)?;
    let told = Arc::new(Mutex::new(Progress::default()));
    let tell = told.clone();
    flow.set_progress(Arc::new(move |progress: &Progress| *tell.lock() = *progress));
    let look = || {
        let Progress { scanned, files, files_total, bytes, .. } = *told.lock();
        let what = if files_total == 0 { format!("{scanned} scanned") } else { format!("{bytes} bytes read") };
        context.progress(files, files_total, &what);
        context.is_cancelled()
    };
    let outcome = watch(&flow.cancel(), look, || act(&flow, action));
    look();
    let done = outcome.inspect(|done| {
        if let Done::Processed(report) = done {
            report.failures.iter().for_each(|failure| context.log(&format!("{} [{}]", failure.reason, failure.code)));
            context.log(&batch_done(report).message);
        }
    });
    context.check()?;
    Ok(match done? {
        Done::Scanned(scan) => {
            let text = format!("{} scanned, {} skipped, {} to do", scan.scanned, scan.skipped, scan.backlogged);
            if scan.unreadable > 0 { Reply::partly(text, scan) } else { Reply::done(text, scan) }
        }
        Done::Processed(report) => batch_done(&report),
    })
}

enum Done {
    Scanned(batch::ScanReport),
    Processed(Box<RunReport>),
}

fn act(flow: &ProcessingWorkflow, action: Action) -> Result<Done, Failure> {
    let report = match action {
        Action::Scan => return Ok(Done::Scanned(flow.scan_and_filter()?)),
        Action::Retry => flow.retry_failed()?,
        Action::Process | Action::Resume => flow.resume()?,
        Action::Run | Action::Failures => flow.run()?,
    };
    Ok(Done::Processed(Box::new(report)))
}

fn failures(setup: &Setup, job: &Job) -> Result<Reply, Failure> {
    let mut found = Vec::new();
    batch::open_memory(setup, job)?.failures(&mut |failed| {
        found.push(json!(failed));
        Ok(found.len() < FAILURES_TOLD_MAX)
    })?;
    Ok(Reply::done(format!("{} failed", found.len()), found))
}
