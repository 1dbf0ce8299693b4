//! `kura unmount`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::statvfs::statvfs;

use super::config::{PASSPHRASE_FD_VAR, PASSPHRASE_VAR};
use super::door::{Door, Target, resolved};
use super::mounts::{self, Record};
use super::output::{outcome, warn};
use super::state::{Wait, flush_door};
use super::{Context, config};
use crate::control::{Exit, Failure, Request};
use crate::fuse;

/// Publish, then unmount
///
/// What cannot be published in time is kept on this machine and published after the next mount.
/// Works on a mount whose process has died as well.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura unmount ~/work
  kura unmount --wait 5m ~/work     gives a slow line more time
  kura unmount --lazy ~/work        even while programs use it")]
pub struct UnmountArgs {
    /// Where it is mounted [default: the mount of the workspace that is meant]
    mountpoint: Option<PathBuf>,
    /// How long to publish at most (0s, 30s, 5m)
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = config::parse_duration_ms)]
    wait: u64,
    /// Unmount even though something that was written is in memory alone (the local disk is full), and lose it
    #[arg(long)]
    force: bool,
    /// Unmount even while programs use it; it ends when the last of them does
    #[arg(short = 'z', long)]
    lazy: bool,
}

/// How long the process of a mount may take to end once it is unmounted, beyond the time for publishing.
const END_WAIT: Duration = Duration::from_secs(30);

/// Runs `kura unmount`.
pub fn run(context: &Context, args: &UnmountArgs) -> Result<Exit, Failure> {
    let mountpoint = match &args.mountpoint {
        Some(path) => resolved(path)?,
        None => match Target::find(context)? {
            Target::Mount(mount) => mount,
            Target::Store(store) => {
                return Err(Failure::new(Exit::NoWorkspace, format!("{store} is not mounted")));
            }
        },
    };
    if !fuse::mountpoints().contains(&mountpoint) {
        let message = format!("no workspace is mounted at {}", mountpoint.display());
        return Err(Failure::new(Exit::NoWorkspace, message).hint("`mount -t fuse.kura` lists the mounts"));
    }
    let record = mounts::record_of_mountpoint(&context.config.state_dir, &mountpoint);
    let record = record.filter(Record::is_live);
    if is_dead(&mountpoint) {
        detach(&mountpoint, true)?;
        say(context, &mountpoint, false, &format!("{} was a dead mount; it is unmounted", mountpoint.display()))?;
        return Ok(Exit::Ok);
    }
    let wait = Duration::from_millis(args.wait);
    let door = Door::Mounted(mountpoint.clone());
    let ready = door.ask(&Request::Leave { wait_ms: args.wait })?;
    if Exit::from_code(ready.exit) == Exit::Partial && !args.force {
        let failure = Failure::new(Exit::Partial, ready.message);
        return Err(ready.hint.into_iter().fold(failure, Failure::hint));
    }
    let published = publish(context, &door, wait);
    if let Err(failure) = &published {
        warn(&format!("not everything was published: {failure}"));
    }
    detach(&mountpoint, args.lazy)?;
    if let Some(record) = record
        && !args.lazy
        && !mounts::wait_until_gone(record.pid, wait + END_WAIT)
    {
        let message = format!("{} is unmounted, and its process {} still runs", mountpoint.display(), record.pid);
        return Err(Failure::new(Exit::Partial, message)
            .hint("it goes on publishing, or programs still use files of the mount; `kill` ends it after publishing"));
    }
    let exit = published.unwrap_or(Exit::Partial);
    say(context, &mountpoint, exit == Exit::Ok, &format!("{} is unmounted", mountpoint.display()))?;
    Ok(exit)
}

fn say(context: &Context, mountpoint: &Path, published: bool, text: &str) -> Result<(), Failure> {
    if context.output.json {
        let place = mountpoint.to_string_lossy();
        return context.output.json(&serde_json::json!({ "mountpoint": place, "published": published }));
    }
    context.output.note(text)
}

/// Whether nobody answers any more. Attributes may be cached; the state of the file system is not.
fn is_dead(mountpoint: &Path) -> bool {
    matches!(statvfs(mountpoint), Err(Errno::ENOTCONN | Errno::ECONNABORTED))
}

fn publish(context: &Context, door: &Door, wait: Duration) -> Result<Exit, Failure> {
    let reply = flush_door(context, door, Some(Wait::AtMost(wait)))?;
    let exit = outcome(&reply)?;
    if exit != Exit::Ok {
        warn(&reply.message);
    }
    Ok(exit)
}

/// Unmounts, as root directly, else through `fusermount3`.
pub fn detach(mountpoint: &Path, lazy: bool) -> Result<(), Failure> {
    let flags = if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(mountpoint, flags | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => detach_by_helper(mountpoint, lazy),
        Err(error) => Err(refused(mountpoint, error == Errno::EBUSY, &error.to_string())),
    }
}

fn detach_by_helper(mountpoint: &Path, lazy: bool) -> Result<(), Failure> {
    let output = Command::new("fusermount3")
        .arg(if lazy { "-uz" } else { "-u" })
        .arg("--")
        .arg(mountpoint)
        .env_remove(PASSPHRASE_VAR)
        .env_remove(PASSPHRASE_FD_VAR)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Failure::new(Exit::Other, format!("fusermount3 cannot be run: {error}")).hint("install the package fuse3")
        })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(refused(mountpoint, words.contains("busy"), words.trim()))
}

fn refused(mountpoint: &Path, busy: bool, reason: &str) -> Failure {
    let place = mountpoint.display();
    if !busy {
        return Failure::new(Exit::Other, format!("{place} cannot be unmounted: {reason}"));
    }
    let users = users_of(mountpoint);
    let users = if users.is_empty() { String::new() } else { format!(" by {}", users.join(", ")) };
    Failure::new(Exit::Locked, format!("{place} is in use{users}"))
        .hint("end them, or leave the directory; `kura unmount --lazy` unmounts all the same")
}

/// Most users of a mount that are named.
const USERS_MAX: usize = 8;

/// Processes whose current directory or open files lie in the mount, as far as they can be seen.
fn users_of(mountpoint: &Path) -> Vec<String> {
    let mut users = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let pid = name.to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| *pid != std::process::id()) else { continue };
        let dir = process.path();
        let inside = |link: &Path| std::fs::read_link(link).is_ok_and(|to| to.starts_with(mountpoint));
        let files = || std::fs::read_dir(dir.join("fd")).into_iter().flatten().flatten();
        if inside(&dir.join("cwd")) || files().any(|file| inside(&file.path())) {
            let command = std::fs::read_to_string(dir.join("comm")).unwrap_or_default();
            users.push(format!("{} ({pid})", command.trim()));
        }
        if users.len() == USERS_MAX {
            break;
        }
    }
    users
}
