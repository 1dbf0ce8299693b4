//! `kura check` and `kura repair`.

use clap::Args;

use super::Context;
use super::door::{Door, Purpose};
use crate::control::{Exit, Failure, Request};

/// Check that everything stored is there and intact
///
/// Reads HEAD, every version and every page, and looks whether the objects with content are there.
/// Damage is told with the versions and paths that it touches, and ends with code 13.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura check                       structure
  kura check --read-data           and all content
  kura check --read-data=5%        and a random part of it
  kura check --read-data=10GiB")]
pub struct CheckArgs {
    /// Read content as well: all of it, a share, or so many bytes
    #[arg(long, value_name = "SHARE|SIZE", num_args = 0..=1, require_equals = true, default_missing_value = "100%")]
    read_data: Option<String>,
}

/// Store anew what is damaged, from what this machine still holds
///
/// Damaged or missing content is taken from the cache, the journal or what waits to be published;
/// lost location runs are rebuilt from the packs. What nothing here can bring back is listed.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura repair --read-data
  kura repair --cut                takes lost files out of the present, and lost versions from the list")]
pub struct RepairArgs {
    /// Read content as well, to find what is damaged in it
    #[arg(long, value_name = "SHARE|SIZE", num_args = 0..=1, require_equals = true, default_missing_value = "100%")]
    read_data: Option<String>,
    /// Take out what is lost
    #[arg(long)]
    cut: bool,
}

/// Runs `kura check`.
pub fn check(context: &Context, args: &CheckArgs) -> Result<Exit, Failure> {
    ask(context, Purpose::Read, &Request::Check { read_data: args.read_data.clone() })
}

/// Runs `kura repair`.
pub fn repair(context: &Context, args: &RepairArgs) -> Result<Exit, Failure> {
    ask(context, Purpose::Write, &Request::Repair { read_data: args.read_data.clone(), cut: args.cut })
}

/// The answer is printed also when it tells of damage.
fn ask(context: &Context, purpose: Purpose, request: &Request) -> Result<Exit, Failure> {
    let (door, _) = Door::open(context, purpose)?;
    let reply = super::jobs::ask(context, &door, request);
    let closed = door.close();
    let reply = reply?;
    let exit = match (context.output.json, reply.data.is_null()) {
        (true, false) => context.output.json(&reply.data).map(|()| Exit::from_code(reply.exit)),
        _ => context.output.reply(&reply),
    }?;
    Ok(exit.and(closed?))
}
