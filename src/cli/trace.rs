//! `kura blame`, `find`, `undelete` and `tag`.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::Context;
use super::door::{Door, Purpose, Target};
use super::output::{Colour, local_time, outcome, size};
use crate::control::{Exit, Failure, PathText, Reply, Request};

/// Say which version each line of a text file comes from
#[derive(Args)]
#[command(after_help = "Example:\n  kura blame notes.txt")]
pub struct BlameArgs {
    /// The file
    path: PathBuf,
}

/// Find paths by name, also deleted ones
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura find '*.txt'
  kura find --deleted
  kura find --deleted 'report*' --below projects")]
pub struct FindArgs {
    /// What the last name must match, with * and ?; everything when missing
    pattern: Option<String>,
    /// Only at and below this path
    #[arg(long, value_name = "PATH")]
    below: Option<PathBuf>,
    /// What earlier versions have and the newest does not
    #[arg(long)]
    deleted: bool,
}

/// Bring back what was deleted, from the newest version that has it
#[derive(Args)]
#[command(after_help = "Example:\n  kura undelete notes.txt projects/old")]
pub struct UndeleteArgs {
    /// The paths
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Only say what would come back
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Give a version a name
#[derive(Args)]
#[command(after_help = "Example:\n  kura tag latest~3 before-the-move")]
pub struct TagArgs {
    /// The version
    version: String,
    /// The name
    name: String,
    #[command(flatten)]
    carried: super::carried::CarriedArgs,
}

/// Asks through a door that may have to record what changed.
fn ask(
    context: &Context,
    purpose: Purpose,
    request: impl FnOnce(&Target) -> Result<Request, Failure>,
) -> Result<(Reply, Exit), Failure> {
    let (door, target) = Door::open(context, purpose)?;
    let reply = request(&target).and_then(|request| door.ask(&request));
    let closed = door.close();
    let reply = reply?;
    let exit = outcome(&reply)?;
    Ok((reply, exit.and(closed?)))
}

fn path(item: &Value) -> String {
    serde_json::from_value::<PathText>(item["path"].clone()).unwrap_or_default().to_string()
}

fn word<'a>(item: &'a Value, field: &str) -> &'a str {
    item[field].as_str().unwrap_or("")
}

fn print(context: &Context, reply: &Reply, line: impl Fn(&Value) -> String) -> Result<(), Failure> {
    let items = reply.data.as_array().map(Vec::as_slice).unwrap_or_default();
    if context.output.json {
        return items.iter().try_for_each(|item| context.output.json(item));
    }
    let text: String = items.iter().map(|item| line(item) + "\n").collect();
    context.output.bytes(text.as_bytes())
}

/// Runs `kura blame`.
pub fn blame(context: &Context, args: &BlameArgs) -> Result<Exit, Failure> {
    let request = |target: &Target| Ok(Request::Blame { path: target.path(&args.path)? });
    let (reply, exit) = ask(context, Purpose::Compare, request)?;
    print(context, &reply, |item| {
        let id = context.output.paint(Colour::Yellow, word(item, "version").get(..13).unwrap_or_default());
        let who = format!("{}@{}", word(item, "user"), word(item, "host"));
        format!("{id}  {}  {who:20}  {:>5}  {}", local_time(word(item, "time")), item["line"], word(item, "text"))
    })?;
    Ok(exit)
}

/// Runs `kura find`.
pub fn find(context: &Context, args: &FindArgs) -> Result<Exit, Failure> {
    let request = |target: &Target| {
        let below = args.below.as_deref().map(|below| target.path(below)).transpose()?.unwrap_or_default();
        Ok(Request::Find { pattern: args.pattern.clone().unwrap_or_default(), below, deleted: args.deleted })
    };
    let (reply, exit) = ask(context, Purpose::Compare, request)?;
    print(context, &reply, |item| match item["version"].as_str() {
        Some(version) => format!("{version}  {:>10}  {}", size(item["size"].as_u64().unwrap_or(0)), path(item)),
        None => path(item),
    })?;
    Ok(exit)
}

/// Runs `kura undelete`.
pub fn undelete(context: &Context, args: &UndeleteArgs) -> Result<Exit, Failure> {
    let request = |target: &Target| {
        let paths = args.paths.iter().map(|path| target.path(path)).collect::<Result<Vec<_>, Failure>>()?;
        Ok(Request::Undelete { paths, dry_run: args.dry_run })
    };
    let (reply, exit) = ask(context, Purpose::Write, request)?;
    print(context, &reply, |item| format!("{}  from version {}", path(item), word(item, "version")))?;
    Ok(exit)
}

/// Runs `kura tag`.
pub fn tag(context: &Context, args: TagArgs) -> Result<Exit, Failure> {
    super::carried::change(context, &Request::Tag { version: args.version, name: args.name }, args.carried)
}
