//! `kura log`, `show` and `diff`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Context;
use super::door::{Door, Purpose, Target};
use super::output::{Colour, Output, local_time, outcome, size};
use crate::control::{ChangeInfo, Exit, Failure, PathText, Reply, Request, VersionInfo};

/// Versions that are read at once.
const PAGE_LEN: usize = 500;

/// List the versions, newest first
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura log
  kura log -n 5
  kura log notes.txt        what happened to one path, through renames
  kura log --json | jq -r 'select(.name != null) | .id'

With --json, one object a line: id, time, parents, name, names, message, origin, host, user,
generation, counts.")]
pub struct LogArgs {
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER")]
    max: Option<usize>,
    /// Begin with this version instead of the newest
    #[arg(long, value_name = "VERSION")]
    from: Option<String>,
    /// Only those that changed this path, through its renames
    path: Option<PathBuf>,
}

/// Show one version and what it changed
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura show latest
  kura show v1.0
  kura show '10m ago'")]
pub struct ShowArgs {
    /// The version
    version: String,
}

/// Say what differs between two versions, or a version and now
///
/// Letters: + added, - removed, M content, R renamed, T another type, m only mode, owner, time or
/// extended attributes.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura diff latest~1                  since the version before the newest
  kura diff yesterday latest src      between two versions, below src
  kura diff v1.0 notes.txt --patch    line by line")]
pub struct DiffArgs {
    /// The version before
    from: String,
    /// The version after [default: now]; what selects no version is taken for the PATH
    to: Option<String>,
    /// Only this path and what is below it
    path: Option<PathBuf>,
    /// Show the lines that differ
    #[arg(short, long)]
    patch: bool,
}

/// Runs `kura log`.
pub fn log(context: &Context, args: &LogArgs) -> Result<Exit, Failure> {
    if let Some(path) = &args.path {
        return log_path(context, args, path);
    }
    let (door, _) = Door::open(context, Purpose::Read)?;
    let listed = list(&door, &context.output, args);
    let closed = door.close();
    listed?;
    closed?;
    Ok(Exit::Ok)
}

/// Prints the versions as they are read.
fn list(door: &Door, output: &Output, args: &LogArgs) -> Result<(), Failure> {
    let mut left = args.max.unwrap_or(usize::MAX);
    let mut from = args.from.clone();
    // A page begins with the last version of the one before.
    let mut again = 0;
    loop {
        let max = left.min(PAGE_LEN) + again;
        let reply = door.ask(&Request::Log { max: Some(max), path: None, from })?;
        outcome(&reply)?;
        let versions: Vec<VersionInfo> = data(&reply)?;
        print(output, &versions, again)?;
        left = left.saturating_sub(versions.len().saturating_sub(again));
        from = versions.last().map(|version| version.id.clone());
        if left == 0 || versions.len() < max {
            return Ok(());
        }
        again = 1;
    }
}

fn print(output: &Output, versions: &[VersionInfo], skipped: usize) -> Result<(), Failure> {
    let ids: Vec<&str> = versions.iter().map(|version| version.id.as_str()).collect();
    let len = short_len(&ids);
    let mut versions = versions.iter().skip(skipped);
    if output.json {
        return versions.try_for_each(|version| output.json(version));
    }
    let text: String = versions.map(|version| log_line(output, version, len) + "\n").collect();
    output.bytes(text.as_bytes())
}

/// A version that changed a path.
#[derive(Deserialize)]
struct PathVersion {
    #[serde(flatten)]
    version: VersionInfo,
    change: PathStep,
}

#[derive(Deserialize)]
struct PathStep {
    letter: char,
    path: PathText,
    from: Option<PathText>,
}

fn log_path(context: &Context, args: &LogArgs, path: &Path) -> Result<Exit, Failure> {
    let (door, target) = Door::open(context, Purpose::Compare)?;
    let (max, from) = (args.max, args.from.clone());
    let reply = target.path(path).and_then(|path| door.ask(&Request::Log { max, path: Some(path), from }));
    let closed = door.close();
    let reply = reply?;
    let exit = outcome(&reply)?;
    let output = &context.output;
    if output.json {
        let items: Vec<serde_json::Value> = data(&reply)?;
        items.iter().try_for_each(|item| output.json(item))?;
        return Ok(exit.and(closed?));
    }
    let steps: Vec<PathVersion> = data(&reply)?;
    let ids: Vec<&str> = steps.iter().map(|step| step.version.id.as_str()).collect();
    let len = short_len(&ids);
    for PathVersion { version, change: PathStep { letter, path, from } } in &steps {
        let from = from.as_ref().map(|from| format!("{from} -> ")).unwrap_or_default();
        output.line(&format!("{letter} {from}{path}  {}", log_line(output, version, len)))?;
    }
    Ok(exit.and(closed?))
}

/// The shortest form of ids that are shown: their first half tells the time to the millisecond.
const SHORT_LEN_MIN: usize = 13;

/// So many characters tell these ids apart.
fn short_len(ids: &[&str]) -> usize {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    let common = |pair: &[&str]| pair[0].bytes().zip(pair[1].bytes()).take_while(|(a, b)| a == b).count();
    sorted.windows(2).map(|pair| common(pair) + 1).max().unwrap_or(0).max(SHORT_LEN_MIN)
}

fn log_line(output: &Output, version: &VersionInfo, id_len: usize) -> String {
    let id = output.paint(Colour::Yellow, version.id.get(..id_len).unwrap_or(&version.id));
    let counts = version.counts;
    let changes = format!("+{} M{} -{}", counts.added, counts.changed, counts.removed);
    let mut line = format!("{id}  {}  {:9}  {changes:12}", local_time(&version.time), version.origin);
    for name in &version.names {
        line.push_str(&format!("  ({})", output.paint(Colour::Green, name)));
    }
    if let Some(message) = &version.message {
        let first = message.lines().next().unwrap_or_default();
        line.push_str("  ");
        line.push_str(&PathText::from(first.as_bytes()).to_string());
    }
    line.trim_end().to_owned()
}

/// Runs `kura show`.
pub fn show(context: &Context, args: ShowArgs) -> Result<Exit, Failure> {
    #[derive(serde::Deserialize)]
    struct Shown {
        version: VersionInfo,
        changes: Vec<ChangeInfo>,
    }
    let reply = look(context, &Request::Show { version: args.version, changes: true })?;
    let output = &context.output;
    if output.json {
        output.json(&reply.data)?;
        return Ok(Exit::Ok);
    }
    let Shown { version, changes } = data(&reply)?;
    let mut text = format!("version  {}\n", output.paint(Colour::Yellow, &version.id));
    let mut field = |name: &str, value: &str| text.push_str(&format!("{name:7}  {value}\n"));
    field("time", &local_time(&version.time));
    field("by", &format!("{}@{}, {}", version.user, version.host, version.origin));
    field("parents", &version.parents.join(" "));
    if !version.names.is_empty() {
        field("names", &version.names.join(", "));
    }
    let counts = version.counts;
    field("holds", &format!("{} files, {} directories, {}", counts.files, counts.dirs, size(counts.bytes)));
    if let Some(message) = &version.message {
        text.push_str("\n    ");
        text.push_str(&message.lines().collect::<Vec<_>>().join("\n    "));
        text.push('\n');
    }
    if !changes.is_empty() {
        text.push('\n');
    }
    changes.iter().for_each(|change| text.push_str(&change_text(output, change)));
    output.bytes(text.as_bytes())?;
    Ok(Exit::Ok)
}

/// Runs `kura diff`.
pub fn diff(context: &Context, args: DiffArgs) -> Result<Exit, Failure> {
    let purpose = if args.path.is_some() { Purpose::Read } else { Purpose::Compare };
    let (door, target) = Door::open(context, purpose)?;
    let reply = ask_diff(&door, &target, args);
    let closed = door.close();
    let reply = reply?;
    outcome(&reply)?;
    closed?;
    let changes: Vec<ChangeInfo> = data(&reply)?;
    let output = &context.output;
    if output.json {
        for change in &changes {
            output.json(change)?;
        }
        return Ok(Exit::Ok);
    }
    let mut text = String::new();
    for change in &changes {
        text.push_str(&change_text(output, change));
        for line in change.patch.iter().flat_map(|patch| patch.lines()) {
            text.push_str(&patch_line(output, line));
            text.push('\n');
        }
    }
    output.bytes(text.as_bytes())?;
    Ok(Exit::Ok)
}

fn ask_diff(door: &Door, target: &Target, args: DiffArgs) -> Result<Reply, Failure> {
    let (mut to, mut path) = (args.to, args.path);
    let mut guessed = None;
    if let (Some(text), None) = (&to, &path)
        && Exit::from_code(door.ask(&Request::Show { version: text.clone(), changes: false })?.exit) == Exit::Other
    {
        guessed = to.take();
        path = guessed.as_ref().map(PathBuf::from);
    }
    let path = path.map(|path| target.path(&path)).transpose()?.unwrap_or_default();
    let reply = door.ask(&Request::Diff { from: args.from, to, path, patch: args.patch })?;
    match guessed {
        Some(text) if reply.exit == Exit::Other.code() && reply.message.contains(&text) => {
            Err(Failure::new(Exit::Other, format!("`{text}` selects no version, and no such path is on either side"))
                .hint("`kura log` lists the versions"))
        }
        _ => Ok(reply),
    }
}

/// One line for a difference.
pub fn change_text(output: &Output, change: &ChangeInfo) -> String {
    let letter = paint_letter(output, change.letter);
    let slash = if change.kind == "directory" { "/" } else { "" };
    match &change.from {
        Some(from) => format!("{letter} {from}{slash} -> {}{slash}\n", change.path),
        None => format!("{letter} {}{slash}\n", change.path),
    }
}

/// The letter of a difference in its colour.
pub fn paint_letter(output: &Output, letter: char) -> String {
    let colour = match letter {
        '+' => Colour::Green,
        '-' => Colour::Red,
        _ => Colour::Cyan,
    };
    output.paint(colour, &letter.to_string())
}

fn patch_line(output: &Output, line: &str) -> String {
    match line.as_bytes().first() {
        Some(b'+') => output.paint(Colour::Green, line),
        Some(b'-') => output.paint(Colour::Red, line),
        Some(b'@') => output.paint(Colour::Cyan, line),
        _ => line.to_owned(),
    }
}

/// Runs a request that changes nothing; a reply that tells of a failure becomes one.
fn look(context: &Context, request: &Request) -> Result<Reply, Failure> {
    let (door, _) = Door::open(context, Purpose::Read)?;
    let reply = door.ask(request);
    let closed = door.close();
    let reply = reply?;
    outcome(&reply)?;
    closed?;
    Ok(reply)
}

/// What a reply holds.
pub fn data<T: DeserializeOwned>(reply: &Reply) -> Result<T, Failure> {
    serde_json::from_value(reply.data.clone())
        .map_err(|error| Failure::new(Exit::Other, format!("the answer is not understood: {error}")))
}
