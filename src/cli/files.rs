//! `kura cat`, `export` and `import`.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde_json::json;

use super::Context;
use super::config::{PASSPHRASE_FD_VAR, PASSPHRASE_VAR, absolute};
use super::door::{Door, Purpose, mount_failure};
use super::output::outcome;
use super::progress::{Bar, bytes_below};
use crate::control::{self, Exit, Failure, PathText, Reply, Request};
use crate::version::VersionError;
use crate::version::entry::Body;
use crate::workspace::{RESERVED, Workspace, is_time};

const READ_LEN: usize = 1 << 20;

/// Print a file as it is in a version
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura cat latest~1:notes.txt
  kura cat 2026-11-21T10:00:src/main.rs | less")]
pub struct CatArgs {
    /// The version and the path
    #[arg(value_name = "VERSION:PATH")]
    what: std::ffi::OsString,
}

/// Write the files of a version into an ordinary directory
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura export latest /tmp/copy
  kura export v1.0 /tmp/copy src docs")]
pub struct ExportArgs {
    /// The version
    version: String,
    /// The directory; made when missing. Files that are there already are never overwritten
    dir: PathBuf,
    /// The paths; everything when none is given
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Take the content of a directory into the workspace
///
/// Files that are the same already (size, time, mode) are passed over, so that an import can be
/// repeated. Symbolic links are taken as links.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura import ~/photos
  kura import ~/photos --into pictures/2026")]
pub struct ImportArgs {
    /// The directory
    dir: PathBuf,
    /// Where in the workspace; made when missing [default: its root]
    #[arg(long, value_name = "PATH")]
    into: Option<PathBuf>,
}

/// Runs `kura cat`.
pub fn cat(context: &Context, args: &CatArgs) -> Result<Exit, Failure> {
    let (version, path) = split_selector(args.what.as_bytes()).ok_or_else(|| {
        Failure::new(Exit::Usage, "VERSION:PATH is needed").hint("for example `kura cat latest:notes.txt`")
    })?;
    let (door, target) = Door::open(context, Purpose::Read)?;
    let path = target.path(Path::new(std::ffi::OsStr::from_bytes(path)))?;
    match &door {
        Door::Mounted(mount) => cat_mounted(context, &door, mount, version, &path)?,
        Door::Opened(workspace, _) => cat_opened(context, workspace, version, &path)?,
    }
    door.close()?;
    Ok(Exit::Ok)
}

/// Splits `VERSION:PATH` at the first colon; a time has colons of its own, and ends at the last one that
/// leaves a time before it.
fn split_selector(text: &[u8]) -> Option<(&str, &[u8])> {
    let mut colons = text.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    let before = |at: usize| std::str::from_utf8(&text[..at]).ok();
    let first = colons.clone().next();
    let at = colons.rfind(|at| before(*at).is_some_and(is_time)).or(first)?;
    Some((before(at)?, &text[at + 1..]))
}

fn cat_mounted(context: &Context, door: &Door, mount: &Path, version: &str, path: &PathText) -> Result<(), Failure> {
    let reply = door.ask(&Request::Show { version: version.to_owned(), changes: false })?;
    outcome(&reply)?;
    let id = reply.data["version"]["id"].as_str().unwrap_or_default();
    let file = mount.join(".kura/versions/by-id").join(id).join(std::ffi::OsStr::from_bytes(&path.0));
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new(Exit::Other, format!("version {id} has no `{path}`")),
        std::io::ErrorKind::IsADirectory => not_a_file(id, path),
        _ if error.raw_os_error() == Some(libc::EIO) => {
            Failure::new(Exit::Damaged, format!("`{path}` of version {id} cannot be read: damaged or out of reach"))
                .hint("the log of the mount names the object")
        }
        std::io::ErrorKind::TimedOut => Failure::new(
            Exit::Unreachable,
            format!("`{path}` of version {id} cannot be read: the store does not answer"),
        )
        .hint("`kura status` says since when"),
        _ => mount_failure(mount, &error),
    };
    if std::fs::symlink_metadata(&file).map_err(failed)?.is_symlink() {
        return Err(not_a_file(id, path));
    }
    let mut file = File::open(file).map_err(failed)?;
    let mut buffer = vec![0; READ_LEN];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(()),
            count => context.output.bytes(&buffer[..count])?,
        }
    }
}

fn not_a_file(version: impl std::fmt::Display, path: &PathText) -> Failure {
    Failure::new(Exit::Other, format!("`{path}` of version {version} is no regular file"))
}

fn cat_opened(context: &Context, workspace: &Workspace, version: &str, path: &PathText) -> Result<(), Failure> {
    let id = workspace.select(version)?;
    let record = workspace.version(id)?;
    let names = path.names().unwrap_or_default();
    let entry = workspace.find(&record, &names)?;
    let entry = entry.ok_or_else(|| VersionError::NoSuchPath { version: id, path: path.to_string() })?;
    let Body::File(file) = entry.body else { return Err(not_a_file(id, path)) };
    let mut offset = 0;
    while offset < file.size {
        let bytes = workspace.read_file(&file, offset, READ_LEN)?;
        if bytes.is_empty() {
            break;
        }
        offset += bytes.len() as u64;
        context.output.bytes(&bytes)?;
    }
    Ok(())
}

/// Runs `kura export`.
pub fn export(context: &Context, args: ExportArgs) -> Result<Exit, Failure> {
    export_through(context, &args.version, &args.paths, &args.dir)
}

/// Writes files of a version into a directory, through either door.
pub fn export_through(context: &Context, version: &str, paths: &[PathBuf], to: &Path) -> Result<Exit, Failure> {
    let (door, target) = Door::open(context, Purpose::Read)?;
    let paths = paths.iter().map(|path| target.path(path)).collect::<Result<Vec<PathText>, Failure>>()?;
    let to = absolute(to)?;
    let reply = match &door {
        Door::Mounted(mount) => {
            control::check_outside(mount, &to)?;
            let to = PathText::from(to.as_path());
            super::jobs::ask(context, &door, &Request::Export { version: version.to_owned(), paths, to })
        }
        Door::Opened(workspace, _) => {
            let is_wanted = Bar::is_wanted(&context.output);
            let total = is_wanted.then(|| total_bytes(workspace, version, &paths)).transpose()?;
            let bar = Bar::new(&context.output, "Exporting", total);
            control::export(workspace, version, &paths, &to, &mut |progress| {
                bar.set(progress.bytes);
                true
            })
        }
    };
    let closed = door.close();
    let exit = print_skipped(context, &reply?)?;
    Ok(exit.and(closed?))
}

fn total_bytes(workspace: &Workspace, version: &str, paths: &[PathText]) -> Result<u64, Failure> {
    let paths: Vec<Vec<u8>> = paths.iter().map(|path| path.0.clone()).collect();
    Ok(workspace.bytes_below(workspace.select(version)?, &paths)?)
}

/// Runs `kura import`.
pub fn import(context: &Context, args: &ImportArgs) -> Result<Exit, Failure> {
    if !args.dir.is_dir() {
        return Err(Failure::new(Exit::Usage, format!("{} is no directory", args.dir.display())));
    }
    let from = super::door::resolved(&args.dir)?;
    let (door, target) = Door::open(context, Purpose::Write)?;
    let into = args.into.as_ref().map(|into| target.path(into)).transpose()?.unwrap_or_default();
    let reply = match &door {
        Door::Mounted(mount) => import_mounted(mount, &from, &into),
        Door::Opened(workspace, _) => {
            let total = Bar::is_wanted(&context.output).then(|| bytes_below(&from));
            let bar = Bar::new(&context.output, "Importing", total);
            control::import(workspace, &from, &into, &mut |progress| bar.set(progress.bytes))
        }
    };
    let closed = door.close();
    let exit = print_skipped(context, &reply?)?;
    Ok(exit.and(closed?))
}

/// Copies into a mount as any program would, by `cp`, so that the kernel sees every change.
fn import_mounted(mount: &Path, from: &Path, into: &PathText) -> Result<Reply, Failure> {
    let target = mount.join(std::ffi::OsStr::from_bytes(&into.0));
    if target.starts_with(from) {
        return Err(Failure::new(Exit::Usage, format!("the workspace is mounted inside of {}", from.display())));
    }
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Other, format!("`cp` cannot be run: {error}"));
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).map_err(|error| mount_failure(mount, &error))?;
    }
    let reserved = reserved_below(from);
    // `cp` must never get to the control directory: what is written to it is a request.
    let is_whole = !reserved.contains(&from.join(".kura"));
    let is_done = match is_whole {
        true => copy(&[from.to_owned()], &["--no-target-directory"], &target),
        false => copy_entries(from, &target),
    };
    let is_done = is_done.map_err(|error| failed(&error))?;
    let skipped: Vec<_> =
        reserved.iter().map(|path| json!({ "path": PathText::from(path.as_path()), "reason": RESERVED })).collect();
    let message = format!("copied {} to {}", from.display(), target.display());
    let data = json!({ "into": into, "version": null, "skipped": skipped, "complete": is_done });
    Ok(match is_done {
        true if reserved.is_empty() => Reply::done(message, data),
        true => Reply::partly(format!("{message}; {} could not be imported", reserved.len()), data),
        false => Reply::partly(format!("{message}, but not all of it; `cp` says why above"), data),
    })
}

/// Names that one `cp` is given.
const NAMES_MAX: usize = 1000;

/// Everything in a directory but `.kura`.
fn copy_entries(from: &Path, target: &Path) -> std::io::Result<bool> {
    std::fs::create_dir_all(target)?;
    let mut entries = std::fs::read_dir(from)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<PathBuf>>>()?;
    entries.retain(|path| path.file_name() != Some(".kura".as_ref()));
    entries.sort_unstable();
    let mut is_done = true;
    for some in entries.chunks(NAMES_MAX) {
        is_done &= copy(some, &["--target-directory"], target)?;
    }
    Ok(is_done)
}

/// Runs `cp`; whether all was copied. `how` is the last option, which may take the target as its value.
fn copy(from: &[PathBuf], how: &[&str], target: &Path) -> std::io::Result<bool> {
    let mut command = Command::new("cp");
    command.arg("--archive").args(how);
    match how {
        ["--target-directory"] => command.arg(target).arg("--").args(from),
        _ => command.arg("--").args(from).arg(target),
    };
    command.env_remove(PASSPHRASE_VAR).env_remove(PASSPHRASE_FD_VAR);
    Ok(command.status()?.success())
}

/// Every path named `.kura` below a directory, without those below another.
fn reserved_below(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut waiting) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name() == ".kura" {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            }
        }
    }
    found.sort_unstable();
    found
}

/// What a command passed over.
#[derive(serde::Deserialize)]
pub(super) struct Skipped {
    /// Which.
    pub(super) path: PathText,
    /// Why.
    pub(super) reason: String,
}

fn print_skipped(context: &Context, reply: &Reply) -> Result<Exit, Failure> {
    if !context.output.json && reply.data.get("skipped").is_some() {
        let skipped: Vec<Skipped> = serde_json::from_value(reply.data["skipped"].clone())
            .map_err(|error| Failure::new(Exit::Other, format!("the answer is not understood: {error}")))?;
        for Skipped { path, reason } in skipped {
            super::output::warn(&format!("{path}: {reason}"));
        }
    }
    context.output.reply(reply)
}
