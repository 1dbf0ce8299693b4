//! `kura stats`, `config`, `doctor`, `completions` and `man`: the program and the system around it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::{Value, json};

use super::Context;
use super::config::{Shown, parse_duration_ms};
use super::door::{Door, Purpose, Target};
use super::output::outcome;
use crate::base::disk::RealDisk;
use crate::control::{Exit, Failure, Request, Setting};
use crate::store::StoreUrl;

/// Show what a workspace and its mount count
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura stats
  kura stats --every 2s       again and again; Ctrl-C ends it
  kura stats --json")]
pub struct StatsArgs {
    /// Show it again after each such time (500ms, 2s)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    every: Option<u64>,
}

/// Show the configuration in force, and where each value comes from
///
/// An option goes before a variable of the environment, that before the file, and that before what is built in.
#[derive(Args)]
#[command(after_help = "Example:\n  kura config")]
pub struct ConfigArgs {}

/// Look at this machine and the store, and say how to mend what is wrong
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura doctor
  kura doctor -w 's3://my-bucket/work?region=eu-central-1'

Ends with code 1 when something has to be mended.")]
pub struct DoctorArgs {}

/// Print completions for a shell
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura completions bash > ~/.local/share/bash-completion/completions/kura
  kura completions zsh > ~/.zfunc/_kura
  kura completions fish > ~/.config/fish/completions/kura.fish")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Write the manual pages into a directory
#[derive(Args)]
#[command(after_help = "Example:\n  kura man ~/.local/share/man/man1")]
pub struct ManArgs {
    /// The directory; made when missing
    dir: PathBuf,
}

/// Runs `kura stats`.
pub fn stats(context: &Context, args: &StatsArgs) -> Result<Exit, Failure> {
    loop {
        let (door, _) = Door::open(context, Purpose::Read)?;
        let reply = door.ask(&Request::Metrics {});
        door.leave()?;
        let reply = reply?;
        let exit = outcome(&reply)?;
        for metric in reply.data.as_array().into_iter().flatten() {
            if context.output.json {
                context.output.json(metric)?;
            } else if metric["label"].is_null() || metric["value"] != json!(0) {
                let label = metric["label"][1].as_str().map(|label| format!(" {label}")).unwrap_or_default();
                let name = metric["name"].as_str().unwrap_or_default().trim_start_matches("kura_").replace('_', " ");
                context.output.line(&format!("{:36} {:>16}", name + &label, metric["value"]))?;
            }
        }
        let Some(every) = args.every else { return Ok(exit) };
        std::thread::sleep(Duration::from_millis(every.max(100)));
        context.output.note("")?;
    }
}

/// Each key with its value and where that comes from.
pub(super) fn settings(context: &Context) -> Vec<Setting> {
    let workspace = &context.common.workspace;
    let setting = |(key, value, source): Shown| match workspace {
        Some(workspace) if key == "store" => {
            Setting { key: key.to_owned(), value: Some(workspace.clone()), source: "the option --workspace".to_owned() }
        }
        _ => Setting { key: key.to_owned(), value, source },
    };
    context.config.shown().into_iter().map(setting).collect()
}

/// Runs `kura config`.
pub fn config(context: &Context) -> Result<Exit, Failure> {
    for setting in settings(context) {
        let Setting { key, value, source } = &setting;
        if context.output.json {
            context.output.json(&setting)?;
        } else {
            let value = value.as_deref().unwrap_or("-");
            context.output.line(&format!("{key:16}  {value:40}  {source}"))?;
        }
    }
    Ok(Exit::Ok)
}

/// One thing that was looked at.
pub(super) struct Finding {
    what: &'static str,
    /// What is wrong, and what mends it.
    wrong: Option<(String, String)>,
    said: String,
}

fn fine(what: &'static str, said: impl Into<String>) -> Finding {
    Finding { what, wrong: None, said: said.into() }
}

fn bad(what: &'static str, wrong: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { what, wrong: Some((wrong.into(), fix.into())), said: String::new() }
}

impl Finding {
    /// As programs read it.
    pub(super) fn json(&self) -> Value {
        let Self { what, wrong, said } = self;
        let (wrong, fix) = wrong.clone().map_or((None, None), |(wrong, fix)| (Some(wrong), Some(fix)));
        json!({ "what": what, "ok": wrong.is_none(), "said": said, "wrong": wrong, "fix": fix })
    }
}

/// Looks at this machine and the store.
pub(super) fn findings(context: &Context) -> Vec<Finding> {
    let mut found = vec![kernel(), fuse_device(), fuse_program(), clock(), keyring(context)];
    found.extend([("state", &context.config.state_dir), ("cache", &context.config.cache_dir)].map(directory));
    found.push(store(context));
    found
}

/// Runs `kura doctor`.
pub fn doctor(context: &Context) -> Result<Exit, Failure> {
    let mut exit = Exit::Ok;
    for finding in &findings(context) {
        let Finding { what, wrong, said } = finding;
        if wrong.is_some() {
            exit = Exit::Other;
        }
        if context.output.json {
            context.output.json(&finding.json())?;
            continue;
        }
        match wrong {
            None => context.output.line(&format!("ok     {what:8} {said}"))?,
            Some((wrong, fix)) => {
                context.output.line(&format!("WRONG  {what:8} {wrong}\n       {:8} fix: {fix}", ""))?
            }
        }
    }
    Ok(exit)
}

fn kernel() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version {
        (0, _) => bad("kernel", "its version cannot be told", "mount /proc"),
        (4.., _) if version >= (4, 20) => fine("kernel", release),
        _ => bad("kernel", format!("{release} is older than 4.20"), "use a newer kernel"),
    }
}

fn fuse_device() -> Finding {
    match std::fs::File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => fine("fuse", "/dev/fuse can be opened"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bad("fuse", "/dev/fuse is missing", "`modprobe fuse`; in a container, add the device and CAP_SYS_ADMIN")
        }
        Err(error) => bad("fuse", format!("/dev/fuse cannot be opened: {error}"), "check its permissions (0666)"),
    }
}

fn fuse_program() -> Finding {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|dir| dir.join("fusermount3")).find(|path| path.exists());
    match found {
        Some(path) => fine("mounting", path.display().to_string()),
        None if nix::unistd::geteuid().is_root() => fine("mounting", "as root, without fusermount3"),
        None => bad("mounting", "there is no fusermount3, which lets ordinary users mount", "install fuse3"),
    }
}

fn clock() -> Finding {
    use crate::base::clock::{Clock, SystemClock};
    let seconds = SystemClock.now().parts().0;
    if seconds > 1_700_000_000 {
        return fine("clock", jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string());
    }
    bad("clock", "it stands before 2023", "set it: signatures of requests to S3 and times of versions depend on it")
}

/// Missed only by who wants to open with it.
fn keyring(context: &Context) -> Finding {
    let Err(failure) = super::keyring::probe() else { return fine("keyring", "the keyring of this session answers") };
    match context.common.keyring {
        true => bad("keyring", failure.message, failure.hint.unwrap_or_default()),
        false => fine("keyring", "none in this session; only `--keyring` needs one"),
    }
}

fn new_file(path: &Path) -> std::io::Result<()> {
    std::fs::File::options().write(true).create_new(true).open(path).map(drop)
}

fn directory((what, dir): (&'static str, &PathBuf)) -> Finding {
    let made = std::fs::create_dir_all(dir);
    let probe = dir.join(format!(".tmp-doctor-{}", std::process::id()));
    let written = made.and_then(|()| new_file(&probe)).and_then(|()| std::fs::remove_file(&probe));
    match written {
        Ok(()) => fine(what, dir.display().to_string()),
        Err(error) => {
            bad(what, format!("{} cannot be written: {error}", dir.display()), "check its permissions and its disk")
        }
    }
}

/// The store is asked for what can be read without a key.
fn store(context: &Context) -> Finding {
    let target = match Target::find(context) {
        Ok(target) => target,
        Err(failure) => return bad("store", failure.message, failure.hint.unwrap_or_default()),
    };
    let url = match &target {
        Target::Mount(mount) => {
            return match super::door::ask_mount(mount, &Request::Status { files: false }) {
                Ok(reply) => of_mount(&mount.display().to_string(), &reply.data),
                Err(failure) => bad("store", failure.message, failure.hint.unwrap_or_default()),
            };
        }
        Target::Store(url) => url,
    };
    if let StoreUrl::Dir(path) = url
        && !path.exists()
        && context.common.workspace.is_none()
    {
        return fine("store", format!("{} is made at the first `kura mount`", path.display()));
    }
    let opened = crate::store::open(url, Arc::new(RealDisk)).and_then(|store| {
        let header = crate::store::ObjectKey::new("kura.json".to_owned());
        header.map_or(Ok(Vec::new()), |key| store.get(&key).map(|found| found.bytes))
    });
    let header = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    match opened {
        Ok(bytes) if header(&bytes)["capabilities"]["conditional_writes"] == json!(false) => {
            no_conditional_writes(&url.to_string())
        }
        Ok(_) => fine("store", format!("{url} holds a workspace")),
        Err(error) => {
            let failure = Failure::from(error);
            bad("store", failure.message, failure.hint.unwrap_or_default())
        }
    }
}

fn no_conditional_writes(place: &str) -> Finding {
    let fix = "let only one client write, or use another store";
    bad("store", format!("{place}: conditional writes do not work"), fix)
}

fn of_mount(mount: &str, status: &Value) -> Finding {
    for (field, word) in
        [("offline", "the store does not answer"), ("blocked", "the store refuses"), ("read_only", "read-only")]
    {
        if let Some(reason) = status[field]["reason"].as_str().or(status[field].as_str()) {
            return bad("store", format!("{mount}: {word}: {reason}"), "see `kura status` and docs/troubleshooting.md");
        }
    }
    if status["conditional_writes"] == json!(false) {
        return no_conditional_writes(mount);
    }
    fine("store", format!("{mount} is mounted and its store answers"))
}

/// Runs `kura completions`.
pub fn completions(context: &Context, args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "kura", &mut text);
    context.output.bytes(&text)?;
    Ok(Exit::Ok)
}

/// Runs `kura man`.
pub fn man(context: &Context, args: &ManArgs) -> Result<Exit, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Other, format!("{}: {error}", args.dir.display()));
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    clap_mangen::generate_to(super::Cli::command(), &args.dir).map_err(failed)?;
    context.output.note(&format!("written to {}", args.dir.display()))?;
    Ok(Exit::Ok)
}

/// Tells the service manager that started this process how it is, where there is one.
pub fn notify_service(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = (|| {
        let text = path.to_string_lossy();
        let address = match text.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
    })();
    if let Err(error) = told {
        tracing::warn!("the service manager cannot be told `{state}`: {error}");
    }
}
