//! `kura lock`, `unlock` and `locks`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Context;
use super::config::parse_duration_ms;
use super::door::{Door, Purpose, Target};
use crate::control::{Exit, Failure, PathText, Request};

/// Lock files or directories: they are read-only on every other machine
///
/// A lock is for a path, and for everything below it; the path need not exist yet, and what is renamed leaves its lock
/// behind. Without --for it is kept while the workspace is mounted here (unmounted: for 30 minutes). Other mounts
/// notice it when they next look at the store. If this machine dies, the lock counts no more 5 minutes (or the time of
/// --for) after another mount has last seen it renewed.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura lock report.odt             while the workspace is mounted here
  kura lock drawings --for 30m     a directory with everything in it
  kura lock report.odt --break     although somebody else has it; the history says so")]
pub struct LockArgs {
    /// What to lock
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// For so long (30s, 30m, 8h), mounted or not
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration_ms)]
    term: Option<u64>,
    /// Take the locks of others away
    #[arg(long = "break")]
    by_force: bool,
}

/// Give up locks of this machine, after publishing what was changed
#[derive(Args)]
#[command(after_help = "Example:\n  kura unlock report.odt")]
pub struct UnlockArgs {
    /// What to unlock, as it was locked
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

/// List the locks of all machines
#[derive(Args)]
#[command(after_help = "Example:\n  kura locks")]
pub struct LocksArgs {}

fn ask(
    context: &Context,
    purpose: Purpose,
    paths: &[PathBuf],
    request: impl FnOnce(Vec<PathText>) -> Request,
) -> Result<Exit, Failure> {
    let (door, target) = Door::open_at(context, Target::find_around(context, paths)?, purpose)?;
    let paths = paths.iter().map(|path: &PathBuf| target.path(Path::new(path))).collect::<Result<_, Failure>>();
    let reply = paths.and_then(|paths| door.ask(&request(paths)));
    let closed = door.close();
    let exit = context.output.reply(&reply?)?;
    closed?;
    Ok(exit)
}

/// Runs `kura lock`.
pub fn lock(context: &Context, args: &LockArgs) -> Result<Exit, Failure> {
    let (for_ms, by_force) = (args.term, args.by_force);
    ask(context, Purpose::Write, &args.paths, |paths| Request::Lock { paths, for_ms, by_force })
}

/// Runs `kura unlock`.
pub fn unlock(context: &Context, args: &UnlockArgs) -> Result<Exit, Failure> {
    ask(context, Purpose::Write, &args.paths, |paths| Request::Unlock { paths })
}

/// Runs `kura locks`.
pub fn locks(context: &Context, _: &LocksArgs) -> Result<Exit, Failure> {
    ask(context, Purpose::Read, &[], |_| Request::Locks {})
}
