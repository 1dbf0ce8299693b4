//! `kura batch`: many files processed in place.

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Subcommand};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use zeroize::Zeroizing;

use super::door::{Door, Target, ask_mount, workspace_options};
use super::progress::Bar;
use super::{Context, interrupt};
use crate::apps::batch::{self, Connections, JOB_LEN_MAX, Job, ProcessingWorkflow, Progress, Setup, Source, watch};
use crate::base::clock::SystemClock;
use crate::base::disk::RealDisk;
use crate::control::{BatchHost, Exit, Failure, batch_done};
use crate::workspace::{KeySlots, Workspace};

/// Process many files in place: locally, in a workspace, or on servers
///
/// A job says where the files are, which of them are meant, and what is done to each. What was done is
/// remembered, so that a second run does nothing, and a run that was killed goes on where it was.
#[derive(Args)]
#[command(after_help = "\
A job is a file in TOML or JSON:
  name = \"prices\"
  [source]
  url = \"file:///srv/reports\"          # or workspace:/DIR, s3://, sftp://, ftps://, webdavs://HOST/DIR
  [walk]
  include = [\"**/*.csv\"]
  exclude = [\"tmp/**\"]
  [process]
  kind = \"replace\"                     # none, regex, line-endings, reencode, gzip, json-patch, command
  find = \"EUR\"
  with = \"€\"

Examples:
  kura batch run prices.toml            scans, then processes
  kura batch scan prices.toml           only makes the backlog
  kura batch resume prices.toml         goes on with it
  kura batch failures prices.toml       what failed, and why
  kura batch run --retry-failed prices.toml")]
pub struct BatchArgs {
    #[command(subcommand)]
    command: BatchCommand,
}

#[derive(Subcommand)]
enum BatchCommand {
    /// Scan, then process
    Run {
        #[command(flatten)]
        job: JobArgs,
        /// Only what failed before, without scanning
        #[arg(long)]
        retry_failed: bool,
    },
    /// Make the backlog: what is new or has changed
    Scan(JobArgs),
    /// Process the backlog
    Process(JobArgs),
    /// Go on with a run that was interrupted
    Resume(JobArgs),
    /// What is known of the last backlog
    Status(JobArgs),
    /// What failed, and why
    Failures(JobArgs),
}

#[derive(Args)]
struct JobArgs {
    /// The job; `-` for standard input
    job: PathBuf,
    /// Let the job run a command
    #[arg(long)]
    allow_command: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: &BatchArgs) -> Result<Exit, Failure> {
    let (BatchCommand::Run { job: of, .. }
    | BatchCommand::Scan(of)
    | BatchCommand::Process(of)
    | BatchCommand::Resume(of)
    | BatchCommand::Status(of)
    | BatchCommand::Failures(of)) = &args.command;
    let job = read_job(&of.job)?;
    if job.process.is_command() && !of.allow_command {
        let message = format!("the job `{}` runs a command, which was not allowed", job.name);
        return Err(Failure::new(Exit::Denied, message).hint("look at it, then add --allow-command"));
    }
    if job.is_in_workspace()
        && let Target::Mount(mount) = Target::find(context)?
    {
        return through(context, &mount, &job, &args.command);
    }
    let (source, password_command) = connections()?.resolve(&job.source)?;
    let job = Job { source, ..job };
    let place = Place { password_command, ..Place::open(context, &job)? };
    let done = match &args.command {
        BatchCommand::Status(_) => status(context, &place.setup, &job),
        BatchCommand::Failures(_) => failures(context, &place, &job),
        command => work(context, &place, job, command),
    };
    let closed = place.close();
    let exit = done?;
    closed?;
    Ok(exit)
}

/// The file of connections.
fn connections() -> Result<Connections, Failure> {
    Ok(Connections::read(&super::config::connections_file()?)?)
}

/// The workspace is mounted: its mount does the work, as a job.
fn through(context: &Context, mount: &Path, job: &Job, command: &BatchCommand) -> Result<Exit, Failure> {
    let action = match command {
        BatchCommand::Run { retry_failed: true, .. } => "retry",
        BatchCommand::Run { .. } => "run",
        BatchCommand::Scan(_) => "scan",
        BatchCommand::Process(_) | BatchCommand::Resume(_) => "resume",
        BatchCommand::Failures(_) => "failures",
        BatchCommand::Status(_) => {
            let failure = Failure::new(Exit::Usage, "the workspace is mounted, and its mount keeps the backlog");
            return Err(failure.hint("`kura jobs` tells how its batches went"));
        }
    };
    let reply = ask_mount(mount, &json!({ "op": "batch", "action": action, "job": job }))?;
    super::output::outcome(&reply)?;
    let id = reply.data["job"].as_str().unwrap_or_default().to_owned();
    let reply = super::jobs::wait_for(context, &Door::Mounted(mount.to_owned()), &id, None)?;
    context.output.reply(&reply)
}

fn read_job(path: &Path) -> Result<Job, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::new(Exit::Usage, format!("the job {} cannot be read: {error}", path.display()))
    };
    let source: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path).map_err(unreadable)?),
    };
    let mut text = String::new();
    source.take(JOB_LEN_MAX as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    Ok(Job::parse(&text)?)
}

/// Where jobs keep what they know: beside the workspace's state, sealed with its keys.
struct Place {
    setup: Setup,
    workspace: Option<Arc<Workspace>>,
    /// Prints the password of the source.
    password_command: Option<Vec<String>>,
}

impl Place {
    /// Only a job inside of the workspace opens it; for others its keys do, beside whoever has it open.
    fn open(context: &Context, job: &Job) -> Result<Self, Failure> {
        let target = Target::find(context)?;
        let store = match &target {
            Target::Store(store) => store.clone(),
            Target::Mount(mount) => super::mounts::store_of_mount(&context.config.state_dir, mount)?,
        };
        let options = workspace_options(context, &store)?;
        let setup = |keys: &crate::crypto::Keys| Setup {
            dir: context.config.state_dir.join(keys.workspace().to_string()).join("batch"),
            keys: keys.clone(),
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock),
        };
        if !job.is_in_workspace() {
            let setup = setup(KeySlots::open(&options)?.keys());
            return Ok(Self { setup, workspace: None, password_command: None });
        }
        let workspace = Workspace::open(options)?;
        Ok(Self { setup: setup(workspace.keys()), workspace: Some(workspace), password_command: None })
    }

    fn close(self) -> Result<(), Failure> {
        if let Some(workspace) = self.workspace {
            workspace.close(true)?;
        }
        Ok(())
    }
}

fn work(context: &Context, place: &Place, job: Job, command: &BatchCommand) -> Result<Exit, Failure> {
    let password = super::secret::of_source(&job.source, place.password_command.as_deref())?;
    let mut flow = batch::open(&place.setup, job, place.workspace.as_ref(), password)?;
    let bar = Arc::new(Bar::new(&context.output, "files", None));
    let shown = bar.clone();
    flow.set_progress(Arc::new(move |progress: &Progress| {
        let Progress { scanned, files, files_total, bytes, bytes_total } = *progress;
        match files_total {
            0 => shown.tell(format!("{scanned} files scanned"), 0, None),
            total => shown.tell(format!("{files} / {total} files"), bytes, Some(bytes_total)),
        }
    }));
    let told = cancel_on_interrupt(&flow)?;
    let outcome = watch(&flow.cancel(), || told.load(Ordering::SeqCst), || act(&flow, command));
    drop(bar);
    let cancelled = flow.cancel().is_cancelled();
    let exit = match outcome? {
        Done::Scanned(scan) => {
            context.output.json_or(&scan, || {
                format!("{} scanned, {} skipped, {} in the backlog", scan.scanned, scan.skipped, scan.backlogged)
            })?;
            if scan.unreadable > 0 { Exit::Partial } else { Exit::Ok }
        }
        Done::Processed(report) => {
            let reply = batch_done(&report);
            if !context.output.json {
                for failure in &report.failures {
                    super::output::warn(&format!("{} [{}]", failure.reason, failure.code));
                }
            }
            context.output.reply(&reply)?
        }
    };
    Ok(if cancelled { Exit::Interrupted } else { exit })
}

enum Done {
    Scanned(batch::ScanReport),
    Processed(Box<batch::RunReport>),
}

fn act(flow: &ProcessingWorkflow, command: &BatchCommand) -> Result<Done, Failure> {
    let report = match command {
        BatchCommand::Run { retry_failed: true, .. } => flow.retry_failed()?,
        BatchCommand::Run { .. } => flow.run()?,
        BatchCommand::Scan(_) => return Ok(Done::Scanned(flow.scan_and_filter()?)),
        _ => flow.resume()?,
    };
    Ok(Done::Processed(Box::new(report)))
}

/// The first interrupt ends the run in good order, the second the process.
fn cancel_on_interrupt(flow: &ProcessingWorkflow) -> Result<Arc<AtomicBool>, Failure> {
    let told = Arc::new(AtomicBool::new(flow.cancel().is_cancelled()));
    interrupt::hand_over();
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(Exit::Interrupted.code()), told.clone())
            .and_then(|_| signal_hook::flag::register(signal, told.clone()))
            .map_err(|error| Failure::new(Exit::Other, format!("signals cannot be handled: {error}")))?;
    }
    Ok(told)
}

fn status(context: &Context, setup: &Setup, job: &Job) -> Result<Exit, Failure> {
    let scan = batch::last_scan(setup, job)?;
    context.output.json_or(&scan, || {
        let bytes = super::output::size(scan.bytes);
        format!("{} scanned, {} skipped, {} ({bytes}) in the backlog", scan.scanned, scan.skipped, scan.backlogged)
    })?;
    Ok(Exit::Ok)
}

fn failures(context: &Context, place: &Place, job: &Job) -> Result<Exit, Failure> {
    let memory = batch::open_memory(&place.setup, job)?;
    memory.failures(&mut |failed| {
        let written = if context.output.json {
            context.output.json(&json!(failed))
        } else {
            context.output.line(&format!("{}  {}  tries: {}", failed.code, failed.error, failed.retry_count))
        };
        Ok(written.is_ok())
    })?;
    Ok(Exit::Ok)
}

/// `ssh`, which a batch runs, asks for the password that it was given for us.
pub fn answer_ssh(password: &std::ffi::OsStr) -> ExitCode {
    let mut line = password.as_bytes().to_vec();
    line.push(b'\n');
    ExitCode::from(u8::from(std::io::stdout().write_all(&line).is_err()))
}

/// What a mount lets the batches use that are written to its control file.
pub struct Host;

impl BatchHost for Host {
    fn connections(&self) -> Result<Connections, Failure> {
        connections()
    }

    fn password(&self, source: &Source, command: Option<&[String]>) -> Result<Option<Zeroizing<String>>, Failure> {
        super::secret::of_source(source, command)
    }
}
