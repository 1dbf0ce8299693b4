//! `kura mount`: the command that starts the daemon and waits until it is ready.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use clap::Args;
use data_encoding::HEXLOWER;

use super::config::{PASSPHRASE_FD_VAR, PASSPHRASE_VAR, store_url};
use super::daemon::{self, Serve};
use super::door::resolved;
use super::options::MountFlags;
use super::output::{outcome, size, warn};
use super::progress::bytes_below;
use super::secret::{self, Key};
use super::{Context, init, mounts};
use crate::base::disk::{Disk, RealDisk};
use crate::base::ids::VersionId;
use crate::control::{Exit, Failure, Reply};
use crate::store::StoreUrl;
use crate::workspace::{is_inside, is_known};

/// Mount a workspace as an ordinary directory
///
/// Returns when the files are there; a process of its own serves them in the background until
/// `kura unmount`, `umount` or `fusermount3 -u`. With no store named, your default workspace is
/// mounted, and made at its first use.
#[derive(Args)]
#[command(
    override_usage = "kura mount [OPTIONS] [STORE] MOUNTPOINT",
    after_help = "\
Examples:
  kura mount ~/work
  kura mount /backup/work /mnt/work --read-only
  kura mount 's3://my-bucket/work?region=eu-central-1' ~/work
  kura mount ~/work --foreground       ends with Ctrl-C

Options of -o: ro, rw, allow_other, noxattr, suid, nosuid, dev, nodev, exec, noexec, noatime, nonempty,
default_permissions (modes count also where only root may enter; else root is kept from nothing),
fsync=store (an fsync returns once the store has what was synced; after 30 seconds without, it fails),
access_log=paths (`.kura/access-log` and `kura top` name paths, which are left out otherwise)."
)]
pub struct MountArgs {
    /// [STORE] MOUNTPOINT: a directory or s3://BUCKET/PREFIX, and the directory to mount it on
    #[arg(value_name = "STORE MOUNTPOINT", num_args = 1..=2, required = true)]
    places: Vec<String>,
    /// Stay in the foreground; Ctrl-C unmounts
    #[arg(short, long)]
    foreground: bool,
    /// Refuse every change
    #[arg(short, long)]
    read_only: bool,
    /// Options as of mount(8), joined by commas
    #[arg(short, value_name = "OPTIONS")]
    options: Vec<String>,
    /// Go on with a journal that was altered, as far as it is intact
    #[arg(long)]
    accept_damage: bool,
    /// Go on with a store that shows an older state than this machine has seen
    #[arg(long)]
    accept_rollback: bool,
    /// Write to a store without conditional writes although another machine was its writer and did not say good-bye
    #[arg(long)]
    take_over: bool,
    /// Refuse a store whose history does not hold this version (a full id, as `kura log --json` shows it): what a
    /// machine that has not seen the workspace yet can go by
    #[arg(long, value_name = "VERSION")]
    trust: Option<VersionId>,
    /// How long to wait for an earlier mount of the workspace that still publishes (0s, 30s, 5m)
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = super::config::parse_duration_ms)]
    wait: u64,
    /// The process in the background: the key comes through standard input
    #[arg(long, hide = true)]
    daemon: bool,
}

/// Longest answer of a daemon about its start, in bytes.
const READY_LEN_MAX: u64 = 64 * 1024;
/// A log longer than this is begun anew, in bytes.
const LOG_LEN_MAX: u64 = 4 * 1024 * 1024;

/// Runs `kura mount`.
pub fn run(context: &Context, args: &MountArgs) -> Result<Exit, Failure> {
    let (store, mountpoint) = places(context, &args.places)?;
    let mut flags = MountFlags::parse(&args.options)?;
    flags.read_only |= args.read_only;
    let serve = |key| Serve {
        store: store.clone(),
        mountpoint: mountpoint.clone(),
        flags: flags.clone(),
        accept_damage: args.accept_damage,
        accept_rollback: args.accept_rollback,
        take_over: args.take_over,
        trust: args.trust,
        key,
    };
    if args.daemon {
        return daemon::run_in_background(context, Key::from_pipe(std::io::stdin()).map(serve));
    }
    check_places(context, &store, &mountpoint)?;
    if let Some(record) = mounts::mount_of_store(&context.config.state_dir, &store.to_string()) {
        let place = record.mountpoint.display();
        return Err(Failure::new(Exit::Locked, format!("{store} is mounted at {place} already"))
            .hint(format!("use it there, or `kura unmount {place}` first")));
    }
    wait_for_earlier(context, &store, Duration::from_millis(args.wait))?;
    let key = key(context, args, &store)?;
    if args.foreground {
        return daemon::run_in_foreground(context, serve(key));
    }
    start(context, args, &serve(key))?;
    if context.output.json {
        let place = mountpoint.to_string_lossy();
        context.output.json(&serde_json::json!({ "store": store.to_string(), "mountpoint": place }))?;
    } else {
        let place = mountpoint.display();
        context.output.note(&format!("{store} is mounted at {place}\nunmount it with: kura unmount {place}"))?;
    }
    Ok(Exit::Ok)
}

/// Waits for the process of a mount that is unmounted and still publishes.
fn wait_for_earlier(context: &Context, store: &StoreUrl, limit: Duration) -> Result<(), Failure> {
    let Some(record) = mounts::closing_mount_of_store(&context.config.state_dir, &store.to_string()) else {
        return Ok(());
    };
    let outbox = context.config.state_dir.join(&record.workspace).join("outbox");
    let waiting =
        format!("the earlier mount (process {}) is still publishing ({})", record.pid, size(bytes_below(&outbox)));
    context.output.note(&format!("{waiting} …"))?;
    if mounts::wait_until_gone(record.pid, limit) {
        return Ok(());
    }
    Err(Failure::new(Exit::Locked, waiting).hint("wait until it ends, or give it more time with --wait"))
}

/// The store and the mount point that `[STORE] MOUNTPOINT` means.
pub fn places(context: &Context, places: &[String]) -> Result<(StoreUrl, PathBuf), Failure> {
    let named = context.common.workspace.as_ref().or(context.config.store.as_ref());
    let (store, mountpoint) = match places {
        [store, mountpoint] => (store_url(store)?, mountpoint),
        [mountpoint] => match named {
            Some(store) => (store_url(store)?, mountpoint),
            None => (store_url(&default_store(context)?)?, mountpoint),
        },
        _ => return Err(Failure::new(Exit::Usage, "[STORE] MOUNTPOINT is needed")),
    };
    if Path::new(mountpoint).join("kura.json").exists() {
        return Err(Failure::new(Exit::Usage, format!("{mountpoint} is a store, not a place to mount one"))
            .hint(format!("name both: kura mount {mountpoint} MOUNTPOINT")));
    }
    Ok((store, resolved(Path::new(mountpoint))?))
}

fn default_store(context: &Context) -> Result<String, Failure> {
    let path = context.config.default_store()?;
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::new(Exit::Usage, format!("{} is not UTF-8; name the store", path.display())))
}

/// The mount must not lie in what the workspace lives on, nor hide it.
fn check_places(context: &Context, store: &StoreUrl, mountpoint: &Path) -> Result<(), Failure> {
    for (what, path) in daemon::own_places(context, store) {
        if is_inside(mountpoint, &path) || is_inside(&path, mountpoint) {
            let (place, path) = (mountpoint.display(), path.display());
            return Err(Failure::new(
                Exit::Usage,
                format!("the mountpoint {place} and the {what} directory {path} overlap"),
            )
            .hint("choose a mountpoint apart from it"));
        }
    }
    Ok(())
}

/// The key; makes the default workspace at its first use.
fn key(context: &Context, args: &MountArgs, store: &StoreUrl) -> Result<Key, Failure> {
    let is_default = default_store(context).and_then(|path| store_url(&path)).is_ok_and(|default| default == *store);
    let StoreUrl::Dir(path) = store else { return secret::obtain(&context.common, &store.to_string()) };
    // One that was seen here before is only away.
    if path.join("kura.json").exists() || is_known(&context.config.state_dir, &store.to_string()) {
        return secret::obtain(&context.common, &store.to_string());
    }
    let is_empty = !path.exists() || std::fs::read_dir(path).is_ok_and(|mut names| names.next().is_none());
    if !(is_default && is_empty && args.places.len() == 1 && !context.common.recovery) {
        return Err(Failure::new(Exit::NoWorkspace, format!("there is no workspace in {store}"))
            .hint(format!("check the address, or make one with `kura init '{store}'`")));
    }
    context.output.note(&format!("{store} does not exist yet: making your default workspace"))?;
    let key = secret::obtain_new(&context.common)?;
    init::make_default(context, path, &key)?;
    Ok(key)
}

/// Starts this program again as the daemon, hands it the key and waits for its answer.
fn start(context: &Context, args: &MountArgs, serve: &Serve) -> Result<(), Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(Exit::Other, format!("the daemon cannot be started: {what}: {error}"))
    };
    let (log, log_path) = open_log(context, &serve.mountpoint)?;
    let program = std::env::current_exe().map_err(|error| failed("this program is not found", &error))?;
    let config = &context.config;
    let mut command = Command::new(program);
    command.arg("mount").arg("--daemon").arg(serve.store.to_string()).arg(&serve.mountpoint);
    for list in &args.options {
        command.arg("-o").arg(list);
    }
    let switches = [
        (args.read_only, "--read-only"),
        (args.accept_damage, "--accept-damage"),
        (args.accept_rollback, "--accept-rollback"),
        (args.take_over, "--take-over"),
    ];
    command.args(switches.iter().filter(|(on, _)| *on).map(|(_, name)| name));
    if let Some(version) = args.trust {
        command.arg("--trust").arg(version.to_string());
    }
    command.env_remove(PASSPHRASE_VAR).env_remove(PASSPHRASE_FD_VAR);
    command.env("KURA_STATE_DIR", &config.state_dir).env("KURA_CACHE_DIR", &config.cache_dir);
    if let Some(path) = std::env::var_os("KURA_CONFIG") {
        command.env("KURA_CONFIG", super::config::absolute(Path::new(&path))?);
    }
    command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().map_err(|error| failed("it does not run", &error))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serve.key.to_pipe()).map_err(|error| failed("the key cannot be handed over", &error))?;
    }
    let answer = child.stdout.take().map(told).transpose().map_err(|error| failed("it does not answer", &error))?;
    match answer.flatten() {
        Some(reply) => {
            outcome(&reply)?;
            if let Some(offline) = reply.data["offline"].as_str() {
                warn(&format!("working offline, versions wait on this machine: {offline}"));
            }
            if reply.data["conditional_writes"] == false {
                warn(daemon::SINGLE_WRITER);
            }
            Ok(())
        }
        None => Err(Failure::new(Exit::Other, "the daemon ended before the workspace was mounted")
            .hint(format!("see {}", log_path.display()))),
    }
}

/// What a daemon says of its start, after showing what it waits for.
fn told(stdout: ChildStdout) -> std::io::Result<Option<Reply>> {
    for line in BufReader::new(stdout.take(READY_LEN_MAX)).lines() {
        let Ok(value) = serde_json::from_str::<serde_json::Value>(&line?) else { return Ok(None) };
        match value["waiting"].as_str() {
            Some(waiting) => warn(waiting),
            None => return Ok(serde_json::from_value(value).ok()),
        }
    }
    Ok(None)
}

/// The log of the daemon of a mountpoint, readable by its owner only.
fn open_log(context: &Context, mountpoint: &Path) -> Result<(File, PathBuf), Failure> {
    let dir = context.config.state_dir.join("logs");
    let digest = crate::version::index::sha256(mountpoint.as_os_str().as_bytes());
    let path = dir.join(format!("mount-{}.log", HEXLOWER.encode(&digest.0[..8])));
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Other, format!("the log {} cannot be written: {error}", path.display()))
    };
    RealDisk.create_dir_all(&dir).map_err(failed)?;
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
    if log.metadata().map_err(failed)?.len() > LOG_LEN_MAX {
        log.set_len(0).map_err(failed)?;
    }
    Ok((log, path))
}
