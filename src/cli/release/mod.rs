//! `kura release`.

mod args;
mod request;

use super::Context;
use super::door::{Door, Purpose};
use super::jobs::work;
use super::output::{outcome, plain};
use super::progress::Bar;
use crate::apps::release::{self, Doing, Request as ReleaseRequest};
use crate::control::{Exit, Failure, Reply, release_done, release_metrics};
use crate::workspace::Workspace;
use args::Command;
pub use args::ReleaseArgs;

/// Runs `kura release`.
pub fn run(context: &Context, args: ReleaseArgs) -> Result<Exit, Failure> {
    let prometheus = matches!(args.command, Command::Report { prometheus: true, .. });
    let request = request::of(args.command)?;
    if let Some(done) = release::run_apart(&request, jiff::Timestamp::now()) {
        return print(context, told(context, reply_of(done)));
    }
    let (door, _) = Door::open(context, Purpose::Write)?;
    let reply = work(context, &door, "release", &request, |workspace| run_here(context, workspace, &request));
    let closed = door.close();
    let reply = told(context, reply?);
    let exit = match prometheus && reply.ok {
        true => {
            context.output.bytes(release_metrics(&super::history::data::<Vec<_>>(&reply)?).as_bytes())?;
            Exit::Ok
        }
        false => print(context, reply)?,
    };
    Ok(exit.and(closed?))
}

/// A reply as people can read it: it may hold what publishers and clients wrote. That no versions fit together takes
/// several lines.
fn told(context: &Context, mut reply: Reply) -> Reply {
    if !context.output.json {
        reply.message = match reply.ok {
            true => plain(&reply.message),
            false => reply.message.lines().map(plain).collect::<Vec<_>>().join("\n  "),
        };
    }
    reply
}

fn reply_of(done: release::Result<release::Reply>) -> Reply {
    done.map_or_else(|error| Failure::from(error).into(), |reply| release_done(&reply))
}

fn run_here(context: &Context, workspace: &Workspace, request: &ReleaseRequest) -> Reply {
    let bar = Bar::new(&context.output, "Fetching", None);
    let told = |done, total: u64, what: &str| {
        bar.tell(what.to_owned(), done, (total > 0).then_some(total));
        true
    };
    reply_of(release::run(workspace, request, &Doing { told: &told }))
}

fn print(context: &Context, reply: Reply) -> Result<Exit, Failure> {
    let output = &context.output;
    if !output.json {
        let data = &reply.data;
        let list =
            data.as_array().or(data["shows"].as_array()).or(data["events"].as_array()).or(data["decisions"].as_array());
        let lines: Vec<String> = list.into_iter().flatten().map(line).collect();
        output.bytes(lines.concat().as_bytes())?;
        outcome(&reply)?;
    }
    output.reply(&reply)
}

/// One thing of a list, as people read it.
fn line(item: &serde_json::Value) -> String {
    let said = |item: &serde_json::Value| item.as_str().map(plain);
    let word = |field: &str| said(&item[field]).unwrap_or_default();
    if let Some(text) = said(item) {
        return format!("{text}\n");
    }
    let package = format!("{} {}", word("package"), word("version"));
    if item.get("install").is_some() {
        return format!("{package}: {}\n", said(&item["reason"]).unwrap_or_else(|| "can be installed".to_owned()));
    }
    if item.get("verdict").is_some() {
        let (share, totals) = (item["bps"].as_f64().unwrap_or(0.0) / 100.0, &item["totals"]);
        let (installed, failed, back) = (&totals["installed"], &totals["failed"], &totals["rolled_back"]);
        let mut text = format!("{package}: {share} %, {installed} installed, {failed} failed, {back} rolled back, ");
        let paused = if item["paused"] == true { "paused, " } else { "" };
        let verdict = said(&item["revoked"]).map_or_else(|| word("verdict"), |why| format!("taken back: {why}"));
        text.push_str(&format!("{} ms each: {paused}{verdict}\n", totals["time_ms"]));
        for alert in item["alerts"].as_array().into_iter().flatten() {
            text.push_str(&format!("  alert: {}\n", said(alert).unwrap_or_default()));
        }
        for note in item["notes"].as_array().into_iter().flatten() {
            text.push_str(&format!("  \u{201c}{}\u{201d}\n", said(note).unwrap_or_default()));
        }
        return text;
    }
    if item.get("ok").is_some() {
        return format!("{}: {}\n", word("name"), said(&item["reason"]).unwrap_or_else(|| "passed".to_owned()));
    }
    if item.get("what").is_some() {
        let (time, seen) = (super::output::local_time(&word("time")), item["acknowledged"] == true);
        let mark = if seen { ' ' } else { '*' };
        return format!("{mark} {} {time} {} {package} {}\n", item["number"], word("what"), word("detail"));
    }
    let drift = item["drift"].as_array().map_or(0, Vec::len);
    format!("{} {} ({}), {drift} paths differ\n", word("name"), word("version"), word("channel"))
}
