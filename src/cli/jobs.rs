//! `kura jobs`, `wait` and `cancel`.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::Context;
use super::config::parse_duration_ms;
use super::door::{Door, Purpose, ask_mount};
use super::output::{local_time, outcome};
use super::progress::Bar;
use crate::control::{Exit, Failure, JobProgress, Reply, Request};
use crate::workspace::Workspace;

/// List the jobs of a workspace, or show one
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura jobs
  kura jobs 0198c1         what was asked, what it said, what came of it
  kura jobs --json")]
pub struct JobsArgs {
    /// A job: its id or the first digits of it
    job: Option<String>,
}

/// Wait for the end of a job
///
/// Ends as the job does: with its exit code. Exit code 3 says that it has not ended after that time.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura wait 0198c1
  kura wait 0198c1 --timeout 30s")]
pub struct WaitArgs {
    /// The job: its id or the first digits of it
    job: String,
    /// Wait no longer than this (500ms, 30s, 5m)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    timeout: Option<u64>,
}

/// End a job that is not needed any more
#[derive(Args)]
#[command(after_help = "Example:\n  kura cancel 0198c1")]
pub struct CancelArgs {
    /// The job: its id or the first digits of it
    job: String,
}

/// When a mount is first asked again.
const STEP_FIRST: Duration = Duration::from_millis(5);
/// How often it is asked in the end.
const STEP: Duration = Duration::from_millis(100);

fn word<'a>(job: &'a Value, field: &str) -> &'a str {
    job[field].as_str().unwrap_or("-")
}

/// Runs `kura jobs`.
pub fn jobs(context: &Context, args: &JobsArgs) -> Result<Exit, Failure> {
    let (door, _) = Door::open(context, Purpose::Read)?;
    let request = match &args.job {
        Some(job) => Request::Job { job: job.clone() },
        None => Request::Jobs {},
    };
    let reply = door.ask(&request);
    door.leave()?;
    let reply = reply?;
    let exit = outcome(&reply)?;
    let output = &context.output;
    match (&reply.data, output.json) {
        (Value::Array(jobs), true) => jobs.iter().try_for_each(|job| output.json(job))?,
        (job, true) => output.json(job)?,
        (Value::Array(jobs), false) => jobs.iter().try_for_each(|job| output.line(&line(job)))?,
        (job, false) => output.bytes(one(job).as_bytes())?,
    }
    Ok(exit)
}

fn line(job: &Value) -> String {
    let time = local_time(word(job, "submitted"));
    let message = job["result"]["message"].as_str().or(job["progress"]["what"].as_str()).unwrap_or_default();
    let message = message.lines().next().unwrap_or_default();
    let (id, op, state) = (word(job, "job"), word(job, "op"), word(job, "state"));
    format!("{id}  {time}  {op:8}  {state:11}  {message}").trim_end().to_owned()
}

fn one(job: &Value) -> String {
    let mut text = format!("{}\nrequest  {}\n", line(job), job["request"]);
    for line in job["log"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

/// Runs `kura wait`.
pub fn wait(context: &Context, args: &WaitArgs) -> Result<Exit, Failure> {
    let (door, _) = Door::open(context, Purpose::Read)?;
    let reply = wait_for(context, &door, &args.job, args.timeout.map(Duration::from_millis));
    door.leave()?;
    context.output.reply(&reply?)
}

/// Runs a request; where that makes it a job of a mount, waits for its end.
pub fn ask(context: &Context, door: &Door, request: &Request) -> Result<Reply, Failure> {
    let reply = door.ask(request)?;
    match reply.data["job"].as_str() {
        Some(job) if matches!(door, Door::Mounted(_)) => wait_for(context, door, job, None),
        _ => Ok(reply),
    }
}

/// Waits for a job, showing how far it is; what came of it.
pub fn wait_for(context: &Context, door: &Door, job: &str, limit: Option<Duration>) -> Result<Reply, Failure> {
    let start = Instant::now();
    let bar = Bar::new(&context.output, "Working", None);
    let mut step = STEP_FIRST;
    loop {
        let shown = door.ask(&Request::Job { job: job.to_owned() })?;
        outcome(&shown)?;
        if let Some(result) = shown.data.get("result").filter(|result| !result.is_null()) {
            return serde_json::from_value(result.clone()).map_err(|error| {
                Failure::new(Exit::Other, format!("the result of the job is not understood: {error}"))
            });
        }
        if let Ok(JobProgress { done, .. }) = serde_json::from_value(shown.data["progress"].clone()) {
            bar.set(done);
        }
        if limit.is_some_and(|limit| start.elapsed() >= limit) {
            return Ok(Reply::partly(format!("job {job} is {}", word(&shown.data, "state")), shown.data));
        }
        if let Door::Opened(..) = door {
            let failure = Failure::new(Exit::Other, format!("job {job} waits for a mount"));
            return Err(failure.hint("`kura mount` goes on with it"));
        }
        std::thread::sleep(step);
        step = (step * 2).min(STEP);
    }
}

/// Has a mount do something as a job, and waits for it; a workspace that is not mounted is asked here.
pub fn work(
    context: &Context,
    door: &Door,
    op: &str,
    request: &impl Serialize,
    here: impl FnOnce(&Workspace) -> Reply,
) -> Result<Reply, Failure> {
    let mount = match door {
        Door::Opened(workspace, _) => return Ok(here(workspace)),
        Door::Mounted(mount) => mount,
    };
    let mut value = serde_json::to_value(request)
        .map_err(|error| Failure::new(Exit::Other, format!("the request cannot be written as JSON: {error}")))?;
    value["op"] = op.into();
    let begun = ask_mount(mount, &value)?;
    match begun.data["job"].as_str() {
        Some(job) => wait_for(context, door, job, None),
        None => Ok(begun),
    }
}

/// Runs `kura cancel`.
pub fn cancel(context: &Context, args: CancelArgs) -> Result<Exit, Failure> {
    let (door, _) = Door::open(context, Purpose::Read)?;
    let reply = door.ask(&Request::Cancel { job: args.job });
    door.leave()?;
    context.output.reply(&reply?)
}
