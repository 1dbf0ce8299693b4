//! `kura prefetch`, `pin` and `unpin`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Context;
use super::door::{Door, Purpose};
use super::output::outcome;
use super::progress::Bar;
use crate::control::{self, Exit, Failure, PathText, Reply, Request};
use crate::workspace::Fetching;

/// Fetch the content of files and directories now, so that it can be read without the store
///
/// What was fetched stays in the cache until the cache is full; `kura pin` keeps it for good.
#[derive(Args)]
#[command(after_help = "Example:\n  kura prefetch photos/2024 notes.txt")]
pub struct PrefetchArgs {
    /// What to fetch
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

/// Keep the content of files and directories on this machine, now and as it changes
///
/// What is pinned does not count towards the size of the cache; it takes as much of the disk as it needs. A mount
/// fetches it in the background. Without paths, lists what is pinned.
#[derive(Args)]
#[command(after_help = "Examples:\n  kura pin talks\n  kura pin")]
pub struct PinArgs {
    /// What to keep
    paths: Vec<PathBuf>,
}

/// Let the cache drop again what was pinned
#[derive(Args)]
#[command(after_help = "Example:\n  kura unpin talks")]
pub struct UnpinArgs {
    /// What was pinned
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

/// How often a mount is asked how far it is.
const STEP: Duration = Duration::from_millis(200);

fn with_paths(
    context: &Context,
    paths: &[PathBuf],
    act: impl FnOnce(&Door, Vec<PathText>) -> Result<Reply, Failure>,
) -> Result<Exit, Failure> {
    let (door, target) = Door::open(context, Purpose::Read)?;
    let paths = paths.iter().map(|path| target.path(path)).collect::<Result<_, Failure>>();
    let reply = paths.and_then(|paths| act(&door, paths));
    let closed = door.close();
    let exit = context.output.reply(&reply?)?;
    closed?;
    Ok(exit)
}

/// Runs `kura prefetch`.
pub fn prefetch(context: &Context, args: &PrefetchArgs) -> Result<Exit, Failure> {
    with_paths(context, &args.paths, |door, paths| {
        if let Door::Opened(workspace, _) = door {
            let names: Option<Vec<Vec<u8>>> = paths.iter().map(|path| Some(path.names()?.join(&b'/'))).collect();
            let names = names.ok_or_else(|| Failure::new(Exit::Usage, "a path leaves the workspace"))?;
            let bar = std::cell::OnceCell::new();
            let state = workspace.prefetch(&names, &|state| {
                bar.get_or_init(|| Bar::new(&context.output, "Fetching", Some(state.bytes_total))).set(state.bytes);
            })?;
            return Ok(control::fetched(&state));
        }
        let reply = door.ask(&Request::Prefetch { paths })?;
        outcome(&reply)?;
        let mut bar = None;
        loop {
            let status = door.ask(&Request::Status { files: false })?;
            outcome(&status)?;
            let Ok(state) = serde_json::from_value::<Fetching>(status.data["fetching"].clone()) else {
                return Ok(reply);
            };
            if state.is_done {
                return Ok(control::fetched(&state));
            }
            if state.bytes_total > 0 {
                let bar = bar.get_or_insert_with(|| Bar::new(&context.output, "Fetching", Some(state.bytes_total)));
                bar.set(state.bytes);
            }
            std::thread::sleep(STEP);
        }
    })
}

/// Runs `kura pin`.
pub fn pin(context: &Context, args: &PinArgs) -> Result<Exit, Failure> {
    with_paths(context, &args.paths, |door, paths| door.ask(&Request::Pin { paths }))
}

/// Runs `kura unpin`.
pub fn unpin(context: &Context, args: &UnpinArgs) -> Result<Exit, Failure> {
    with_paths(context, &args.paths, |door, paths| door.ask(&Request::Unpin { paths }))
}
