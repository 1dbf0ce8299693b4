//! `kura sync`, `conflicts`, `resolve` and `policy`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Context;
use super::door::{Door, Purpose};
use super::state::change;
use crate::control::{Exit, Failure, PathText, Request};

/// Take in what others published, and publish, at once
#[derive(Args)]
#[command(after_help = "Example:\n  kura sync")]
pub struct SyncArgs {}

/// List the files that lie beside another one because both sides had changed it
#[derive(Args)]
#[command(after_help = "Example:\n  kura conflicts")]
pub struct ConflictsArgs {}

/// Settle the conflict of a file
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura resolve notes.txt --take ours     what lies beside it goes
  kura resolve notes.txt --take merge    line by line")]
pub struct ResolveArgs {
    /// The file, or the one beside it
    path: PathBuf,
    /// What stays; `both` renames the one beside to NAME.theirs
    #[arg(long, value_name = "STATE")]
    take: TakeArg,
}

/// What stays.
#[derive(Clone, Copy, ValueEnum)]
pub enum TakeArg {
    /// The file that kept its name
    Ours,
    /// The file beside it
    Theirs,
    /// Both
    Both,
    /// Both, merged line by line
    Merge,
}

/// Show or set what happens to files that two clients changed
///
/// Policies: keep-both (the usual), last-write-wins, ours, theirs, merge. A pattern without `/` is for names, `*`
/// stands for anything but `/`, `**` for anything; the longest pattern that matches counts.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura policy                     what is set
  kura policy merge               for the whole workspace
  kura policy merge '*.md'        for names that end in .md
  kura policy default '*.md'      as for everything else again")]
pub struct PolicyArgs {
    /// The policy; `default` removes it
    policy: Option<String>,
    /// For paths that match [default: all]
    pattern: Option<String>,
}

/// Runs `kura sync`.
pub fn sync(context: &Context, _: &SyncArgs) -> Result<Exit, Failure> {
    change(context, &Request::Sync {})
}

/// Runs `kura conflicts`.
pub fn conflicts(context: &Context, _: &ConflictsArgs) -> Result<Exit, Failure> {
    change(context, &Request::Conflicts {})
}

/// Runs `kura resolve`.
pub fn resolve(context: &Context, args: &ResolveArgs) -> Result<Exit, Failure> {
    let take = match args.take {
        TakeArg::Ours => "ours",
        TakeArg::Theirs => "theirs",
        TakeArg::Both => "both",
        TakeArg::Merge => "merge",
    };
    let (door, target) = Door::open(context, Purpose::Write)?;
    let path: PathText = target.path(&args.path)?;
    let reply = door.ask(&Request::Resolve { path, take: take.to_owned() });
    let closed = door.close();
    let exit = context.output.reply(&reply?)?;
    closed?;
    Ok(exit)
}

/// Runs `kura policy`.
pub fn policy(context: &Context, args: PolicyArgs) -> Result<Exit, Failure> {
    change(context, &Request::Policy { policy: args.policy, pattern: args.pattern.unwrap_or_default() })
}
