//! The jobs `check` and `export`, which read much and change nothing in the workspace.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::Value;

use super::{JobContext, Prepared};
use crate::apps::sealed::RequestSecrets;
use crate::control::health::{checked, sample};
use crate::control::run::{absolute, check_outside, clean_all, export};
use crate::control::table::{Arg, ArgKind, Command, PATHS, READ_DATA, Run, VERSION};
use crate::control::{Exit, Failure, Reply, Request};
use crate::workspace::CheckReport;

/// Looks whether everything stored is there and intact.
pub const CHECK: Command =
    Command { name: "check", summary: "Checks what is stored", args: &[READ_DATA], run: Run::Reading(prepare) };

/// Writes files out of the workspace.
pub const EXPORT: Command = Command {
    name: "export",
    summary: "Writes a version's files into an ordinary directory",
    args: &[VERSION, Arg::place("to", ArgKind::OutsidePath, "the directory; nothing in it is overwritten"), PATHS],
    run: Run::Reading(prepare_export),
};

/// The request that the arguments mean.
fn understood(command: &Command, mut fields: Value) -> Result<Request, Failure> {
    fields["op"] = command.name.into();
    serde_json::from_value(fields)
        .map_err(|error| Failure::new(Exit::Usage, format!("the request is not understood: {error}")))
}

fn prepare(fields: Value, _: Option<RequestSecrets>) -> Result<Prepared, Failure> {
    let shown = fields.clone();
    let Request::Check { read_data } = understood(&CHECK, fields)? else { return Err(another()) };
    let how_much = sample(read_data.as_deref())?;
    let work = move |context: &JobContext| {
        let mut goes_on = |report: &CheckReport| {
            context.progress(report.blobs_read, 0, &format!("{} versions read, blobs of content", report.versions));
            !context.is_cancelled()
        };
        let report = context.workspace().check_while(how_much, &mut goes_on);
        Ok(checked(&report.map_err(|error| ended_or(context, error.into()))?))
    };
    Ok(Prepared { shown, secret: None, resume: true, outside: None, check: None, work: Box::new(work) })
}

fn prepare_export(fields: Value, _: Option<RequestSecrets>) -> Result<Prepared, Failure> {
    let shown = fields.clone();
    let Request::Export { version, paths, to } = understood(&EXPORT, fields)? else { return Err(another()) };
    absolute(&to)?;
    let outside = Some(Path::new(OsStr::from_bytes(&to.0)).to_owned());
    let work = move |context: &JobContext| -> Result<Reply, Failure> {
        let workspace = context.workspace();
        let total = workspace.bytes_below(workspace.select(&version)?, &clean_all(&paths)?)?;
        let to = Path::new(OsStr::from_bytes(&to.0));
        context.mountpoint().map_or(Ok(()), |mountpoint| check_outside(&mountpoint, to))?;
        let done = export(workspace, &version, &paths, to, &mut |progress| {
            context.progress(progress.bytes, total, "bytes");
            !context.is_cancelled()
        });
        done.map_err(|failure| ended_or(context, failure))
    };
    Ok(Prepared { shown, secret: None, resume: false, outside, check: None, work: Box::new(work) })
}

fn another() -> Failure {
    Failure::new(Exit::Other, "the request is another")
}

/// What failed, unless it was ended on purpose.
fn ended_or(context: &JobContext, failure: Failure) -> Failure {
    context.check().err().unwrap_or(failure)
}
