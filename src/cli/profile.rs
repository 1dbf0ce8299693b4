//! `kura profile`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Context;
use super::door::{Door, Purpose, Target, resolved};
use super::history::data;
use super::jobs::work;
use super::output::outcome;
use crate::apps::profile::{Drift, FileReport, Install, Installed, Place, Request as ProfileRequest, Take, Verified};
use crate::control::{Exit, Failure, Reply, profile_done};

/// Install sets of files, each install being one version
///
/// A profile is a directory with a `profile.json`. All conflicts are told before anything is touched; whatever
/// fails, the workspace is as before.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura profile plan webapp --from ./profiles      what would be done
  kura profile install webapp --from ./profiles
  kura profile upgrade webapp --force             conflicts become sidecars such as `app.webapp.conf`
  kura profile resolve app.conf --take theirs
  kura profile rollback webapp")]
pub struct ProfileArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install a profile
    Install(InstallArgs),
    /// Bring an installed profile up to date
    Upgrade(InstallArgs),
    /// Say what installing or upgrading would do
    Plan(InstallArgs),
    /// Take a profile's files away; what was changed stays
    Uninstall {
        /// The profile
        name: String,
        /// Only say what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Go back to what was installed before
    Rollback {
        /// The profile
        name: String,
        /// Go back to the install with this id
        #[arg(long, value_name = "INSTALL")]
        to: Option<String>,
        /// Resolve conflicts by sidecars, and replace changed data
        #[arg(long)]
        force: bool,
        /// Only say what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Decide about a file with a sidecar beside it
    Resolve {
        /// The file, not the sidecar
        path: PathBuf,
        /// What becomes of the two
        #[arg(long, value_enum)]
        take: Choice,
    },
    /// List what is installed
    List {},
    /// Compare what is there with what was installed
    Verify {
        /// The profile; all of them when none is given
        name: Option<String>,
    },
}

#[derive(Args)]
struct InstallArgs {
    /// The profile
    name: String,
    /// The directory that holds one directory for each profile
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// The same, inside the workspace
    #[arg(long, value_name = "PATH", conflicts_with = "from")]
    from_workspace: Option<PathBuf>,
    /// Resolve conflicts by sidecars, and replace changed data
    #[arg(long)]
    force: bool,
    /// Bring back files that were removed
    #[arg(long)]
    restore_missing: bool,
    /// Refuse anything that is not what the lock file says
    #[arg(long)]
    frozen: bool,
    /// The commit it is made from
    #[arg(long)]
    commit: Option<String>,
    /// Who provides it
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Where the provider has it from
    #[arg(long)]
    source: Option<String>,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    /// The file stays, the sidecar goes
    Mine,
    /// The sidecar takes the file's place
    Theirs,
    /// Both stay, and belong to you
    Both,
}

impl InstallArgs {
    fn request(self, target: &Target) -> Result<Install, Failure> {
        let utf8 = |path: PathBuf| {
            let text = path.into_os_string().into_string();
            text.map_err(|_| Failure::new(Exit::Usage, "a path of profiles has to be UTF-8"))
        };
        let from = match (self.from, self.from_workspace) {
            (Some(dir), _) => {
                let dir = resolved(&dir)?;
                // A mount is not asked by its own process.
                match target {
                    Target::Mount(mount) if dir.starts_with(mount) => {
                        Some(Place::Workspace(target.path(&dir)?.to_string()))
                    }
                    _ => Some(Place::Directory(utf8(dir)?)),
                }
            }
            (None, Some(path)) => Some(Place::Workspace(target.path(&path)?.to_string())),
            (None, None) => None,
        };
        Ok(Install {
            name: self.name,
            from,
            force: self.force,
            restore_missing: self.restore_missing,
            frozen: self.frozen,
            dry_run: self.dry_run,
            commit: self.commit,
            provider: self.provider,
            source: self.source,
        })
    }
}

/// Runs `kura profile`.
pub fn run(context: &Context, args: ProfileArgs) -> Result<Exit, Failure> {
    let purpose = match &args.command {
        Command::Install(args) | Command::Upgrade(args) if !args.dry_run => Purpose::Write,
        Command::Uninstall { dry_run: false, .. } | Command::Rollback { dry_run: false, .. } => Purpose::Write,
        Command::Resolve { .. } => Purpose::Write,
        _ => Purpose::Compare,
    };
    let (door, target) = Door::open(context, purpose)?;
    let reply = request(args.command, &target)
        .and_then(|request| work(context, &door, "profile", &request, |workspace| profile_done(workspace, &request)));
    let closed = door.close();
    let exit = print(context, &reply?)?;
    Ok(exit.and(closed?))
}

fn request(command: Command, target: &Target) -> Result<ProfileRequest, Failure> {
    Ok(match command {
        Command::Install(args) => ProfileRequest::Install(args.request(target)?),
        Command::Upgrade(args) => ProfileRequest::Upgrade(args.request(target)?),
        Command::Plan(args) => ProfileRequest::Install(Install { dry_run: true, ..args.request(target)? }),
        Command::Uninstall { name, dry_run } => ProfileRequest::Uninstall { name, dry_run },
        Command::Rollback { name, to, force, dry_run } => ProfileRequest::Rollback { name, to, force, dry_run },
        Command::Resolve { path, take } => {
            let take = match take {
                Choice::Mine => Take::Mine,
                Choice::Theirs => Take::Theirs,
                Choice::Both => Take::Both,
            };
            ProfileRequest::Resolve { path: target.path(&path)?.to_string(), take }
        }
        Command::List {} => ProfileRequest::List {},
        Command::Verify { name } => ProfileRequest::Verify { name },
    })
}

fn print(context: &Context, reply: &Reply) -> Result<Exit, Failure> {
    let output = &context.output;
    if output.json && !reply.ok && !reply.data.is_null() {
        output.json(&reply.data)?;
        return Ok(Exit::from_code(reply.exit));
    }
    if !output.json {
        let conflicts = reply.data.get("conflicts").and_then(|conflicts| conflicts.as_array());
        for conflict in conflicts.into_iter().flatten() {
            let text = |field: &str| conflict[field].as_str().unwrap_or_default().to_owned();
            let who = if text("owner").is_empty() { text("what") } else { text("owner") };
            super::output::warn(format!("{}: {} {who}", text("path"), text("kind")).trim_end());
        }
        outcome(reply)?;
        output.bytes(text(reply)?.as_bytes())?;
    }
    output.reply(reply)
}

fn text(reply: &Reply) -> Result<String, Failure> {
    let mut text = String::new();
    if reply.data.get("files").is_some_and(serde_json::Value::is_array) {
        #[derive(serde::Deserialize)]
        struct Files {
            files: Vec<FileReport>,
        }
        for file in data::<Files>(reply)?.files {
            let sidecar = file.sidecar.map(|sidecar| format!(" -> {sidecar}")).unwrap_or_default();
            text.push_str(&format!("{:<12} {}{sidecar}\n", file.action, file.path));
        }
    } else if reply.data.as_array().is_some_and(|list| list.iter().any(|item| item.get("drift").is_some())) {
        for Verified { name, drift, .. } in data::<Vec<Verified>>(reply)? {
            for Drift { path, what } in drift {
                text.push_str(&format!("{name}: {what:<10} {path}\n"));
            }
        }
    } else {
        for Installed { name, version, installed_at, files, sidecars, .. } in data::<Vec<Installed>>(reply)? {
            let time = super::output::local_time(&installed_at);
            text.push_str(&format!("{name} {version}  {files} files, installed {time}\n"));
            sidecars.iter().for_each(|sidecar| text.push_str(&format!("  undecided: {sidecar}\n")));
        }
    }
    Ok(text)
}
