//! `kura status`, `snapshot`, `untag` and `flush`.

use std::time::{Duration, Instant};

use clap::Args;

use super::Context;
use super::carried::{self, CarriedArgs};
use super::config::parse_duration_ms;
use super::door::{Door, Purpose};
use super::output::outcome;
use super::progress::Bar;
use crate::control::{Exit, Failure, Reply, Request};

/// Say how the workspace is: newest version, what waits to be published, what is wrong
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura status                the workspace around the current directory, or your default one
  kura status -w ~/work
  kura status --files        names the files that wait to be published
  kura status --json")]
pub struct StatusArgs {
    /// Name the files that wait to be published
    #[arg(long)]
    files: bool,
}

/// Record a version of the workspace now
///
/// Versions are recorded by themselves soon after every change; a snapshot adds a message or a name,
/// and is there when the command returns. Files that a program has open for writing are recorded in
/// the state they had before it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura snapshot -m 'before the rewrite'
  kura snapshot --name v1.0
  kura snapshot --name v1.0 --dry-run   whether the name can be given")]
pub struct SnapshotArgs {
    /// What to say of it
    #[arg(short, long)]
    message: Option<String>,
    /// A name to select it by
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    carried: CarriedArgs,
}

/// Take a name away from a version; the version stays
#[derive(Args)]
#[command(after_help = "Example:\n  kura untag v1.0")]
pub struct UntagArgs {
    /// The name
    name: String,
    #[command(flatten)]
    carried: CarriedArgs,
}

/// Publish everything to the store
///
/// Records what changed and makes it durable on this machine. With --wait, returns when the store
/// has it all; exit code 3 says that it has not after that time.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura flush
  kura flush --wait          as long as it takes for the store to come back
  kura flush --wait --timeout 10m
  kura flush --wait=30s")]
pub struct FlushArgs {
    /// Wait until everything is published, or so long at most (500ms, 30s, 5m)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "",
        value_parser = parse_wait)]
    wait: Option<Wait>,
    /// With --wait: so long at most
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = parse_wait)]
    timeout: Option<Wait>,
}

/// How long to wait.
#[derive(Clone, Copy)]
pub enum Wait {
    /// As long as it takes.
    Forever,
    /// At most so long.
    AtMost(Duration),
}

fn parse_wait(text: &str) -> Result<Wait, String> {
    if text.is_empty() {
        return Ok(Wait::Forever);
    }
    parse_duration_ms(text).map(|ms| Wait::AtMost(Duration::from_millis(ms)))
}

/// Runs `kura status`.
pub fn status(context: &Context, args: &StatusArgs) -> Result<Exit, Failure> {
    let (door, target) = Door::open(context, Purpose::Read)?;
    let reply = door.ask(&Request::Status { files: args.files })?;
    door.close()?;
    let exit = outcome(&reply)?;
    if context.output.json {
        context.output.json(&reply.data)?;
    } else {
        if let super::door::Target::Mount(mount) = target {
            context.output.line(&format!("mounted at   {}", mount.display()))?;
        }
        context.output.bytes(reply.message.as_bytes())?;
    }
    Ok(exit)
}

/// Runs `kura snapshot`.
pub fn snapshot(context: &Context, args: SnapshotArgs) -> Result<Exit, Failure> {
    carried::change(context, &Request::Snapshot { message: args.message, name: args.name }, args.carried)
}

/// Runs `kura untag`.
pub fn untag(context: &Context, args: UntagArgs) -> Result<Exit, Failure> {
    carried::change(context, &Request::Untag { name: args.name }, args.carried)
}

/// Runs a request that changes the workspace and prints what came of it.
pub fn change(context: &Context, request: &Request) -> Result<Exit, Failure> {
    let (door, _) = Door::open(context, Purpose::Write)?;
    let reply = door.ask(request);
    let closed = door.close();
    let exit = context.output.reply(&reply?)?;
    Ok(exit.and(closed?))
}

/// Runs `kura flush`.
pub fn flush(context: &Context, args: &FlushArgs) -> Result<Exit, Failure> {
    let (door, target) = Door::open(context, Purpose::Write)?;
    // Nobody publishes in the background when the workspace is not mounted.
    let unmounted = matches!(target, super::door::Target::Store(_));
    let wait = args.wait.map(|wait| args.timeout.unwrap_or(wait)).or(unmounted.then_some(Wait::AtMost(UNMOUNTED_WAIT)));
    let reply = flush_door(context, &door, wait);
    // What was not published by now is told by the reply.
    let closed = door.leave();
    let mut reply = reply?;
    if args.wait.is_none() && !unmounted && Exit::from_code(reply.exit) == Exit::Partial {
        reply = Reply::done(reply.message, reply.data);
    }
    let exit = context.output.reply(&reply)?;
    closed?;
    Ok(exit)
}

const UNMOUNTED_WAIT: Duration = Duration::from_secs(30);
/// How long to wait before asking a mount again how far it is.
const STEP: Duration = Duration::from_millis(200);

/// Flushes through a door, showing how far it is.
pub fn flush_door(context: &Context, door: &Door, wait: Option<Wait>) -> Result<Reply, Failure> {
    let limit = match wait {
        None => Duration::ZERO,
        Some(Wait::Forever) => Duration::MAX,
        Some(Wait::AtMost(limit)) => limit,
    };
    if let Door::Opened(..) = door {
        let wait_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).min(WAIT_MS_MAX);
        return door.ask(&Request::Flush { wait_ms });
    }
    let start = Instant::now();
    let waiting = |reply: &Reply| reply.data.get("unpublished_bytes").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let mut reply = door.ask(&Request::Flush { wait_ms: 0 })?;
    let total = waiting(&reply);
    let bar = Bar::new(&context.output, "Publishing", Some(total));
    // The process of the mount publishes by itself.
    while Exit::from_code(reply.exit) == Exit::Partial && start.elapsed() < limit {
        bar.set(total.saturating_sub(waiting(&reply)));
        std::thread::sleep(STEP.min(limit));
        reply = door.ask(&Request::Flush { wait_ms: 0 })?;
    }
    Ok(reply)
}

/// A year will do for ever.
const WAIT_MS_MAX: u64 = 365 * 24 * 3600 * 1000;
