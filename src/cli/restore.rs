//! `kura restore` and `kura revert`.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use super::door::{Door, Purpose};
use super::files::{Skipped, export_through};
use super::history::{data, paint_letter};
use super::output::{Output, outcome};
use crate::control::{Exit, Failure, PathText, Reply, Request};

/// Bring back an earlier state
///
/// Makes the workspace, or the given paths, equal to a version. What is there now is recorded first,
/// so a restore can be undone by a restore. With --to, nothing in the workspace changes: the files
/// are written into another directory.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura restore latest~1 notes.txt        one file as it was before the newest version
  kura restore '2h ago' --dry-run        what would change
  kura restore v1.0 src --to /tmp/old    into another directory")]
pub struct RestoreArgs {
    /// The version
    version: String,
    /// The paths; everything when none is given
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Write into this directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "dry_run")]
    to: Option<PathBuf>,
    /// Only say what would change
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Undo what one version changed, keeping what came after
///
/// Where a path has changed again since, the present state stays, and the earlier one is put beside
/// it as `conflict-DATE.TIME.NAME`; the exit code is 3 then.
#[derive(Args)]
#[command(after_help = "Example:\n  kura revert latest")]
pub struct RevertArgs {
    /// The version
    version: String,
}

/// Runs `kura restore`.
pub fn restore(context: &Context, args: RestoreArgs) -> Result<Exit, Failure> {
    if let Some(to) = &args.to {
        return export_through(context, &args.version, &args.paths, to);
    }
    let purpose = if args.dry_run { Purpose::Compare } else { Purpose::Write };
    let (door, target) = Door::open(context, purpose)?;
    let paths = args.paths.iter().map(|path| target.path(path)).collect::<Result<Vec<PathText>, Failure>>()?;
    let reply = door.ask(&Request::Restore { version: args.version, paths, dry_run: args.dry_run });
    let closed = door.close();
    let exit = print(&context.output, &reply?)?;
    Ok(exit.and(closed?))
}

/// Runs `kura revert`.
pub fn revert(context: &Context, args: RevertArgs) -> Result<Exit, Failure> {
    let (door, _) = Door::open(context, Purpose::Write)?;
    let reply = door.ask(&Request::Revert { version: args.version });
    let closed = door.close();
    let exit = print(&context.output, &reply?)?;
    Ok(exit.and(closed?))
}

#[derive(serde::Deserialize)]
struct Changed {
    changes: Vec<ChangedPath>,
    conflicts: Vec<ConflictPath>,
    skipped: Vec<Skipped>,
}

#[derive(serde::Deserialize)]
struct ChangedPath {
    letter: char,
    path: PathText,
}

#[derive(serde::Deserialize)]
struct ConflictPath {
    path: PathText,
    beside: Option<PathText>,
}

fn print(output: &Output, reply: &Reply) -> Result<Exit, Failure> {
    if !output.json {
        outcome(reply)?;
        let Changed { changes, conflicts, skipped } = data(reply)?;
        let mut text = String::new();
        for change in changes {
            text.push_str(&format!("{} {}\n", paint_letter(output, change.letter), change.path));
        }
        for conflict in conflicts {
            let beside = conflict.beside.map(|beside| format!(", the earlier state is in {beside}"));
            text.push_str(&format!("! {} was kept{}\n", conflict.path, beside.unwrap_or_default()));
        }
        for Skipped { path, reason } in skipped {
            text.push_str(&format!("! {path} was passed over: {reason}\n"));
        }
        output.bytes(text.as_bytes())?;
    }
    output.reply(reply)
}
