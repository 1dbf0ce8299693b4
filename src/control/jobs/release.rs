//! The job `release`: what publishers and clients of releases ask for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use super::{JobContext, Jobs, Prepared, release_words};
use crate::apps::release::{self, Doing, Request};
use crate::apps::sealed::{RequestSecrets, SecretDigest};
use crate::control::table::{Arg, ArgKind, Command, Run};
use crate::control::{Exit, Failure, Reply};
use crate::version::index::sha256;

/// The command.
pub const COMMAND: Command = Command {
    name: "release",
    summary: "Publishes signed packages, and installs them, each install as one version",
    args: &[
        Arg::place("do", ArgKind::Text, "`install`, `update`, `check`, `plan`, `rollback`, `verify`, `history`, …"),
        Arg::place("packages", ArgKind::Text, "what the command line takes by place; packages as `tool@^1.2`").many(),
        Arg::option("force", ArgKind::Flag, "put new files beside those that are in the way"),
        Arg::option("channel", ArgKind::Text, "the channel"),
        Arg::option("repository", ArgKind::Text, "`store`, s3://…, https://…, or an absolute directory"),
        Arg::option("keys", ArgKind::OutsidePath, "the directory of a publisher's keys"),
        Arg::option("dir", ArgKind::OutsidePath, "the directory of a package"),
        Arg::option("from", ArgKind::Text, "the channel that a release is promoted from"),
        Arg::option("to", ArgKind::OutsidePath, "where a file of trust is written"),
        Arg::option("trust", ArgKind::OutsidePath, "the file of trust"),
        Arg::option("percent", ArgKind::Text, "how many of a hundred clients get a version by themselves"),
        Arg::option("ring", ArgKind::Text, "the ring of this client; rings of which every client gets a version")
            .many(),
        Arg::option("emergency", ArgKind::Flag, "neither phase nor window holds a version back"),
        Arg::option("steps", ArgKind::Text, "a step of a rollout, as `1:20:3600:95:2`").called("step").many(),
        Arg::option("window", ArgKind::Text, "when installs may begin, as `Europe/Berlin,mon+tue,22:00,05:00`").many(),
        Arg::option("epochs", ArgKind::Text, "the least security epoch of a package, as `tool=3`")
            .called("min-epoch")
            .many(),
        Arg::option("failures", ArgKind::Text, "of `alert`: so many of a hundred installs may fail"),
        Arg::option("rollbacks", ArgKind::Text, "of `alert`: so many of a hundred may be taken back"),
        Arg::option("install_time", ArgKind::DurationMs, "of `alert`: so long an install may take in the mean")
            .called("install-time"),
        Arg::option("samples", ArgKind::Number, "of `alert`: fewer reports say nothing"),
        Arg::option("none", ArgKind::Flag, "of `alert` and `notify`: nothing, nobody any more"),
        Arg::option("limit", ArgKind::Size, "fetch at most so much a second"),
        Arg::option("token_file", ArgKind::OutsidePath, "the token that the server asks for").called("token-file"),
        Arg::option("client_cert", ArgKind::OutsidePath, "certificates of this client, in PEM").called("client-cert"),
        Arg::option("client_key", ArgKind::OutsidePath, "the key of the first of them, in PEM").called("client-key"),
        Arg::option("ca", ArgKind::OutsidePath, "certificates that the server's must lead to, in PEM"),
        Arg::option(
            "webhook",
            ArgKind::Text,
            "of `notify`: an address that gets each event; no record of the job shows it",
        ),
        Arg::option("template", ArgKind::Text, "of `notify`: the message, with {what}, {package}, …"),
        Arg::option("only", ArgKind::Text, "of `notify`: only this kind of event").many(),
        Arg::option("every_ms", ArgKind::DurationMs, "how often a mount looks for something new").called("every"),
        Arg::option("install", ArgKind::Flag, "a mount installs what is new for this client"),
        Arg::option("scratch", ArgKind::OutsidePath, "where `test` makes its copy; in memory when missing"),
        Arg::option("keep", ArgKind::Number, "how many versions `cleanup` leaves"),
        Arg::option("note", ArgKind::Text, "what `feedback` says"),
        Arg::option("number", ArgKind::Number, "up to which event `ack` goes"),
        Arg::option(
            "count",
            ArgKind::Number,
            "how many keys `keygen` makes for the root and targets; as before when missing",
        ),
        Arg::option("threshold", ArgKind::Number, "how many of them have to sign; as before when missing"),
        Arg::option("with", ArgKind::OutsidePath, "a file with the public keys of others, for `keygen`").many(),
        Arg::option("to_sign", ArgKind::OutsidePath, "write to this file what others have to sign").called("to-sign"),
        Arg::option("file", ArgKind::OutsidePath, "what `sign` signs"),
        Arg::option("files", ArgKind::OutsidePath, "what was signed, for `complete`").called("signed").many(),
        Arg::option("rollout", ArgKind::Json, "how a release is rolled out, as {\"bps\": 1000}"),
        Arg::option("change", ArgKind::Json, "what `rollout` changes, as \"pause\" or {\"revoke\": \"why\"}"),
        Arg::option("windows", ArgKind::Json, "when installs may begin"),
        Arg::option("min_epoch", ArgKind::Json, "the least security epochs, as {\"tool\": 3}"),
        Arg::option("access", ArgKind::Json, "how a repository is reached, as {\"limit\": 1000000}"),
        Arg::option("limits", ArgKind::Json, "what `alert` watches, as {\"failure_bps\": 500}"),
        Arg::option("notify", ArgKind::Json, "who is told what happens, as {\"command\": [\"notify-send\"]}"),
        Arg::option("dry_run", ArgKind::Flag, "only say what would be done").called("dry-run").short('n'),
    ],
    run: Run::Job(prepare),
};

fn prepare(mut request: Value, _: Option<RequestSecrets>) -> Result<Prepared, Failure> {
    if let Some(fields) = request.as_object_mut() {
        release_words::place(fields, COMMAND.args)?;
    }
    let dry_run = match request.as_object_mut().and_then(|fields| fields.remove("dry_run")) {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(_) => return Err(Failure::new(Exit::Usage, "the field `dry_run` takes true or false")),
    };
    let to_sign = request.as_object_mut().and_then(|fields| fields.remove("to_sign"));
    let mut asked: Request = serde_json::from_value(request.clone())
        .map_err(|error| Failure::new(Exit::Usage, format!("the request is not understood: {error}")))?;
    if dry_run {
        let word = request["do"].as_str().unwrap_or_default().to_owned();
        asked = asked
            .trial()
            .ok_or_else(|| Failure::new(Exit::Usage, format!("`{word}` has no trial; leave out `dry_run`")))?;
    } else if let Some(to) = to_sign {
        let to = to.as_str().ok_or_else(|| Failure::new(Exit::Usage, "the field `to_sign` takes a path"))?.to_owned();
        asked = Request::Propose { to, request: Box::new(asked) };
    }
    let mut request = serde_json::to_value(&asked)
        .map_err(|error| Failure::new(Exit::Other, format!("the request cannot be written as JSON: {error}")))?;
    let secret = hide_webhook(&mut request);
    // What has a webhook is not repeated: its request is shown without it.
    let resume = asked.repeats();
    let work = move |context: &JobContext| run(context, &asked);
    Ok(Prepared { shown: request, secret, resume, outside: None, check: None, work: Box::new(work) })
}

/// Takes the address of a webhook, which often is a secret, out of a request that is shown; its digest.
fn hide_webhook(request: &mut Value) -> Option<SecretDigest> {
    let place = ["/notify/webhook", "/request/notify/webhook"].into_iter().find(|at| request.pointer(at).is_some())?;
    let webhook = std::mem::replace(request.pointer_mut(place)?, Value::from("(not shown)"));
    webhook.as_str().map(|webhook| sha256(webhook.as_bytes()).0)
}

/// How often a mount asks whether it is time to look for something new.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// Looks for new releases at the intervals that were asked for, until the mount ends.
pub(in crate::control) fn watch(jobs: &Jobs) {
    let stopping = || jobs.stopping.load(Ordering::SeqCst);
    while !stopping() {
        let done = release::run_if_due(&jobs.workspace, &Doing { told: &|_, _, _| !stopping() });
        if let Err(error) = done {
            tracing::warn!("new releases: {error}");
        }
        // Woken at the end of the mount.
        if !stopping() {
            std::thread::park_timeout(WATCH_INTERVAL);
        }
    }
}

fn run(context: &JobContext, request: &Request) -> Result<Reply, Failure> {
    let told = |done, total, what: &str| {
        context.progress(done, total, what);
        !context.is_cancelled()
    };
    match release::run(context.workspace(), request, &Doing { told: &told }) {
        Ok(reply) => Ok(crate::control::release::answer(&reply)),
        Err(error) => Err(error.into()),
    }
}
