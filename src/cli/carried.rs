//! What requests carry, as options.

use clap::Args;

use super::Context;
use super::door::{Door, Purpose};
use crate::control::{Carried, Exit, Failure, Request};

/// What every change can carry.
#[derive(Args)]
pub struct CarriedArgs {
    /// The request's own id: asked again with it, it is answered and not done again
    #[arg(long)]
    id: Option<String>,
    /// Refuse unless this version is the newest
    #[arg(long, value_name = "VERSION")]
    expect_parent: Option<String>,
    /// Only check, and say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl From<CarriedArgs> for Carried {
    fn from(CarriedArgs { id, expect_parent, dry_run }: CarriedArgs) -> Self {
        Self { id, expect_parent, dry_run }
    }
}

/// Runs a request with what it carries and prints what came of it.
pub fn change(context: &Context, request: &Request, carried: CarriedArgs) -> Result<Exit, Failure> {
    let purpose = if carried.dry_run { Purpose::Compare } else { Purpose::Write };
    let (door, _) = Door::open(context, purpose)?;
    let reply = door.ask_carrying(request, carried.into());
    let closed = door.close();
    let exit = context.output.reply(&reply?)?;
    Ok(exit.and(closed?))
}
