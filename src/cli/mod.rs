//! The command line: arguments, output, progress, exit codes. Nothing else: what a command does is
//! in `control`, and the same for a mounted and an unmounted workspace.
//!
//! Uses: everything.
//!
//! Invariants:
//! - no secret is taken from the command line, and none stays in the environment;
//! - what people read goes to standard output when it is the answer, else to standard error;
//! - every way to end has an exit code of the table in `control`.
//!
//! Lock order: none.

mod batch;
mod carried;
mod config;
mod conflicts;
mod daemon;
mod debug;
mod demo;
mod door;
mod files;
mod harden;
mod health;
mod history;
mod iam;
mod init;
mod install;
mod interrupt;
mod jobs;
mod key;
mod keyring;
mod locks;
mod maintain;
mod mount;
mod mounts;
mod near;
mod notify;
mod options;
mod output;
mod profile;
mod progress;
mod release;
mod restore;
mod sealed;
mod secret;
mod state;
mod system;
mod top;
mod trace;
mod ui;
mod units;
mod unmount;
mod view;
mod web;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};

use crate::control::{Exit, Failure};
use config::Config;
pub use config::parse_config;
pub use mounts::Record as MountRecord;
use output::Output;
pub use sealed::known_documents;
pub use web::{compare_texts, page_understands};

/// An encrypted, versioned workspace in S3 or a local directory, mounted as an ordinary directory.
#[derive(Parser)]
#[command(name = "kura", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
First steps:
  kura mount ~/work                 makes your default workspace at first, and mounts it
  kura snapshot --name before       records a version by a name, inside of ~/work
  kura log                          lists the versions
  kura diff before                  says what changed since
  kura restore before notes.txt     brings an earlier state back
  kura unmount ~/work               publishes and unmounts

Which workspace a command means: -w MOUNTPOINT or STORE, else the mount around the current
directory, else KURA_STORE, else your default workspace.
A STORE is a directory or s3://BUCKET/PREFIX?region=REGION&endpoint=URL&profile=NAME.
A VERSION is `latest`, `latest~2`, an id or its first digits, a name, or a time such as
2026-11-21T10:00, `10m ago` or `yesterday`.

Environment:
  KURA_PASSPHRASE          the passphrase
  KURA_PASSPHRASE_FILE     a file that holds it
  KURA_PASSPHRASE_COMMAND  a command that prints it (no shell; quotes work)
  KURA_SEALED_PASSWORD     the password of a sealed document; _FILE and _COMMAND as above
  KURA_NEW_PASSPHRASE_FILE, KURA_NEW_PASSPHRASE_COMMAND
                           the same for the new passphrase of `kura key add` and `kura key passwd`
  KURA_STORE               the store to use when none is named
  KURA_STATE_DIR           local state: journal, what waits to be published [~/.local/state/kura]
  KURA_CACHE_DIR           cache of what was fetched, encrypted [~/.cache/kura]
  KURA_CONFIG              a file in TOML [~/.config/kura/config.toml]; the keys:
                           store, state_dir, cache_dir, cache_size, unpublished_size, full_wait,
                           version_quiet, version_max, poll, maintain, gc_grace, scrub, scrub_size
  KURA_LOG                 what is logged, e.g. `info` or `kura::sync=debug` [warn]
  NO_COLOR                 no colours

Exit codes: 0 done, 1 failed, 2 usage, 3 partly done, 10 no workspace there, 11 locked by another
process, 12 wrong passphrase, 13 damaged, 14 denied, 15 unreachable, 16 rolled back, 17 conflict,
130 interrupted.")]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Args, Clone)]
pub(crate) struct Common {
    /// The workspace: where it is mounted, or its store
    #[arg(short = 'w', long, global = true, value_name = "MOUNTPOINT|STORE", help_heading = "Common options")]
    workspace: Option<String>,
    /// Open it with the content of this file instead of a passphrase
    #[arg(long, global = true, value_name = "FILE", help_heading = "Common options")]
    key_file: Option<PathBuf>,
    /// Open it with the key that `kura key add --to-keyring` left in the keyring of this session
    #[arg(long, global = true, conflicts_with = "key_file", help_heading = "Common options")]
    keyring: bool,
    /// The secret that is given or asked for is the recovery code
    #[arg(long, global = true, conflicts_with_all = ["key_file", "keyring"], help_heading = "Common options")]
    recovery: bool,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true, help_heading = "Common options")]
    json: bool,
    /// Print nothing but what was asked for, and errors
    #[arg(short, long, global = true, help_heading = "Common options")]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    Init(init::InitArgs),
    Mount(mount::MountArgs),
    Unmount(unmount::UnmountArgs),
    Status(state::StatusArgs),
    Snapshot(state::SnapshotArgs),
    Untag(state::UntagArgs),
    Flush(state::FlushArgs),
    Sync(conflicts::SyncArgs),
    Conflicts(conflicts::ConflictsArgs),
    Resolve(conflicts::ResolveArgs),
    Policy(conflicts::PolicyArgs),
    Lock(locks::LockArgs),
    Unlock(locks::UnlockArgs),
    Locks(locks::LocksArgs),
    Stored(maintain::StoredArgs),
    Prefetch(near::PrefetchArgs),
    Pin(near::PinArgs),
    Unpin(near::UnpinArgs),
    Log(history::LogArgs),
    Show(history::ShowArgs),
    Diff(history::DiffArgs),
    Restore(restore::RestoreArgs),
    Revert(restore::RevertArgs),
    Blame(trace::BlameArgs),
    Find(trace::FindArgs),
    Undelete(trace::UndeleteArgs),
    Tag(trace::TagArgs),
    Cat(files::CatArgs),
    Export(files::ExportArgs),
    Import(files::ImportArgs),
    Sealed(sealed::SealedArgs),
    Jobs(jobs::JobsArgs),
    Wait(jobs::WaitArgs),
    Cancel(jobs::CancelArgs),
    Batch(batch::BatchArgs),
    Profile(profile::ProfileArgs),
    Release(release::ReleaseArgs),
    Check(health::CheckArgs),
    Repair(health::RepairArgs),
    Forget(maintain::ForgetArgs),
    Gc(maintain::GcArgs),
    Key(key::KeyArgs),
    Iam(iam::IamArgs),
    Stats(system::StatsArgs),
    Top(top::TopArgs),
    Debug(debug::DebugArgs),
    Config(system::ConfigArgs),
    Install(install::InstallArgs),
    Uninstall(install::UninstallArgs),
    Doctor(system::DoctorArgs),
    Completions(system::CompletionsArgs),
    Man(system::ManArgs),
    Ui(ui::UiArgs),
    Web(web::WebArgs),
    Demo(demo::DemoArgs),
    /// Print the version of the program
    Version {},
}

/// What a command runs in.
pub(crate) struct Context {
    common: Common,
    config: Config,
    output: Output,
}

/// Runs the program.
pub fn main() -> ExitCode {
    harden::forbid_core_dumps();
    if let Some(password) = std::env::var_os(crate::apps::batch::PASSWORD_VAR) {
        return batch::answer_ssh(&password);
    }
    if std::env::args_os().nth(1).is_some_and(|first| first == crate::fuse::LIE_OVER) {
        return daemon::lie_over();
    }
    if let Err(failure) = harden::take_passphrase_out_of_environment() {
        output::print_failure(&failure, false);
        return ExitCode::from(failure.exit.code());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output with code 0, everything else to standard error with 2.
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            with_tip(error).print().ok();
            return ExitCode::from(code.code());
        }
    };
    let json = cli.common.json;
    match prepare(&cli).and_then(|context| dispatch(&context, cli.command)) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) => {
            output::print_failure(&failure, json);
            ExitCode::from(failure.exit.code())
        }
    }
}

/// A place where no argument is taken was meant to say which workspace.
fn with_tip(mut error: clap::Error) -> clap::Error {
    if let (ErrorKind::UnknownArgument, Some(ContextValue::String(word))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
        && (word.starts_with("s3://") || Path::new(word).is_dir())
    {
        let tip = format!("to name the workspace, use '-w {word}'");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn prepare(cli: &Cli) -> Result<Context, Failure> {
    output::start_logging()?;
    let output = Output::new(cli.common.json, cli.common.quiet);
    interrupt::end_at_once()?;
    Ok(Context { common: cli.common.clone(), config: Config::load()?, output })
}

fn dispatch(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Init(args) => init::run(context, &args),
        Command::Mount(args) => mount::run(context, &args),
        Command::Unmount(args) => unmount::run(context, &args),
        Command::Status(args) => state::status(context, &args),
        Command::Snapshot(args) => state::snapshot(context, args),
        Command::Untag(args) => state::untag(context, args),
        Command::Flush(args) => state::flush(context, &args),
        Command::Sync(args) => conflicts::sync(context, &args),
        Command::Conflicts(args) => conflicts::conflicts(context, &args),
        Command::Resolve(args) => conflicts::resolve(context, &args),
        Command::Policy(args) => conflicts::policy(context, args),
        Command::Lock(args) => locks::lock(context, &args),
        Command::Unlock(args) => locks::unlock(context, &args),
        Command::Stored(args) => maintain::stored(context, &args),
        Command::Locks(args) => locks::locks(context, &args),
        Command::Prefetch(args) => near::prefetch(context, &args),
        Command::Pin(args) => near::pin(context, &args),
        Command::Unpin(args) => near::unpin(context, &args),
        Command::Log(args) => history::log(context, &args),
        Command::Show(args) => history::show(context, args),
        Command::Diff(args) => history::diff(context, args),
        Command::Restore(args) => restore::restore(context, args),
        Command::Revert(args) => restore::revert(context, args),
        Command::Blame(args) => trace::blame(context, &args),
        Command::Find(args) => trace::find(context, &args),
        Command::Undelete(args) => trace::undelete(context, &args),
        Command::Tag(args) => trace::tag(context, args),
        Command::Cat(args) => files::cat(context, &args),
        Command::Export(args) => files::export(context, args),
        Command::Import(args) => files::import(context, &args),
        Command::Sealed(args) => sealed::run(context, args),
        Command::Jobs(args) => jobs::jobs(context, &args),
        Command::Wait(args) => jobs::wait(context, &args),
        Command::Cancel(args) => jobs::cancel(context, args),
        Command::Batch(args) => batch::run(context, &args),
        Command::Profile(args) => profile::run(context, args),
        Command::Release(args) => release::run(context, args),
        Command::Check(args) => health::check(context, &args),
        Command::Repair(args) => health::repair(context, &args),
        Command::Forget(args) => maintain::forget(context, args),
        Command::Gc(args) => maintain::gc(context, &args),
        Command::Key(args) => key::run(context, &args),
        Command::Iam(args) => iam::run(context, &args),
        Command::Stats(args) => system::stats(context, &args),
        Command::Top(args) => top::top(context, &args),
        Command::Debug(args) => debug::debug(context, &args),
        Command::Install(args) => install::install(context, &args),
        Command::Uninstall(args) => install::uninstall(context, &args),
        Command::Config(_) => system::config(context),
        Command::Doctor(_) => system::doctor(context),
        Command::Completions(args) => system::completions(context, &args),
        Command::Man(args) => system::man(context, &args),
        Command::Ui(args) => ui::run(context, &args),
        Command::Web(args) => web::run(context, &args),
        Command::Demo(args) => demo::run(context, &args),
        Command::Version {} => version(context),
    }
}

fn version(context: &Context) -> Result<Exit, Failure> {
    let program = env!("CARGO_PKG_VERSION");
    let format = crate::base::limits::FORMAT_VERSION;
    if context.output.json {
        context.output.json(&serde_json::json!({ "version": program, "format": format }))?;
    } else {
        context.output.line(&format!("kura {program}, format {format}"))?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::control::{ArgKind, COMMANDS};

    /// Where the two doors differ: of the command line alone (with what stands for it), or of the control files alone.
    const ELSEWHERE: [(&str, &str); 16] = [
        ("restore", "to"), // `export`
        ("export", "dir"), // called `to`
        ("export", "to"),
        ("jobs", "job"),         // `job`
        ("show", "changes"),     // always shown
        ("flush", "timeout"),    // `--wait=30s`
        ("forget", "keep_last"), // fields of `keep`
        ("forget", "keep_hourly"),
        ("forget", "keep_daily"),
        ("forget", "keep_weekly"),
        ("forget", "keep_monthly"),
        ("forget", "keep_yearly"),
        ("forget", "keep_within"),
        ("forget", "keep_tag"),
        ("forget", "set"), // a `mode`
        ("forget", "mode"),
    ];

    #[test]
    fn the_command_line_and_the_control_files_take_the_same_arguments() {
        let cli = Cli::command();
        let (mut shared, mut different) = (0, Vec::new());
        for command in COMMANDS {
            // One with commands of its own names what to do first.
            let found = cli.find_subcommand(command.name).filter(|found| !found.has_subcommands());
            let Some(found) = found else { continue };
            shared += 1;
            let name = |text: &str| text.replace('-', "_");
            let here = found.get_arguments().map(|arg| arg.get_long().unwrap_or(arg.get_id().as_str()));
            let mut here: Vec<String> = here.filter(|known| *known != "help").map(name).collect();
            let args = command.args.iter().filter(|arg| arg.kind != ArgKind::Json);
            let mut there: Vec<String> = args.map(|arg| name(arg.option.unwrap_or(arg.name))).collect();
            // What every request can carry is in no list.
            let tries = there.iter().any(|arg| arg == "dry_run");
            here.retain(|arg| !["id", "expect_parent"].contains(&arg.as_str()) && (tries || arg != "dry_run"));
            for list in [&mut here, &mut there] {
                list.retain(|arg| !ELSEWHERE.contains(&(command.name, arg)));
                list.sort();
            }
            if here != there {
                different.push((command.name, here, there));
            }
        }
        assert!(different.is_empty(), "{different:?}");
        assert!(shared >= 14, "{shared} commands are in both");
    }
}
