//! The two doors to a workspace: the control file of its mount, or opening it in this process.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{absolute, store_url};
use super::{Context, mounts, secret};
use crate::control::{self, Carried, Exit, Failure, PathText, Reply, Request};
use crate::store::StoreUrl;
use crate::workspace::{Maintenance, Notice, OpenOptions as WorkspaceOptions, Workspace};

/// How much is read at once to find damage, where nothing else is configured.
pub(super) const SCRUB_BYTES: u64 = 1 << 30;

/// Longest reply that is read, in bytes.
const REPLY_LEN_MAX: u64 = 1 << 30;

/// Where a workspace was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Mounted here.
    Mount(PathBuf),
    /// Not mounted; its store.
    Store(StoreUrl),
}

/// What a command is going to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Only look.
    Read,
    /// Change something, and publish it.
    Write,
    /// Compare with the live tree, which may have to be recorded first.
    Compare,
}

/// An open door.
pub enum Door {
    /// A mount.
    Mounted(PathBuf),
    /// A workspace in this process.
    Opened(Arc<Workspace>, Purpose),
}

impl Target {
    /// The workspace that the arguments, the current directory and the environment mean.
    pub fn find(context: &Context) -> Result<Self, Failure> {
        if let Some(text) = &context.common.workspace {
            let path = Path::new(text);
            if !text.contains("://")
                && let Some(mount) = mounts::mount_around(&resolved(path)?)
            {
                return Ok(Target::Mount(mount));
            }
            return Self::of_store(context, store_url(text)?);
        }
        if let Some(mount) = mounts::mount_around(&current_dir()?) {
            return Ok(Target::Mount(mount));
        }
        match &context.config.store {
            Some(text) => Self::of_store(context, store_url(text)?),
            None => Self::of_store(context, StoreUrl::Dir(context.config.default_store()?)),
        }
    }

    /// The mount of a store where it has one.
    pub fn of_store(context: &Context, store: StoreUrl) -> Result<Self, Failure> {
        let record = mounts::mount_of_store(&context.config.state_dir, &store.to_string());
        Ok(record.map_or(Target::Store(store), |record| Target::Mount(record.mountpoint)))
    }

    /// As [`find`](Self::find); where nothing else names a workspace, the mount that one of the paths lies in.
    pub fn find_around(context: &Context, paths: &[PathBuf]) -> Result<Self, Failure> {
        if context.common.workspace.is_none() && mounts::mount_around(&current_dir()?).is_none() {
            for path in paths.iter().filter(|path| path.is_absolute()) {
                if let Some(mount) = mounts::mount_around(&resolved(path)?) {
                    return Ok(Target::Mount(mount));
                }
            }
        }
        Self::find(context)
    }

    /// Refuses an absolute path into another mounted workspace than this one.
    fn check_own(&self, path: &Path) -> Result<(), Failure> {
        let mount = if path.is_absolute() { mounts::mount_around(&resolved(path)?) } else { None };
        match mount {
            Some(mount) if !matches!(self, Target::Mount(own) if *own == mount) => {
                let (path, mount) = (path.display(), mount.display());
                let message = format!("`{path}` lies in another workspace than the one that is meant");
                Err(Failure::new(Exit::Usage, message).hint(format!("`-w {mount}` means that one")))
            }
            _ => Ok(()),
        }
    }

    /// A path of the command line as a path from the workspace's root: relative to the current
    /// directory when that is in the mount, else to the root. Below `.kura/versions/VERSION` it is the
    /// path in that version.
    pub fn path(&self, path: &Path) -> Result<PathText, Failure> {
        self.check_own(path)?;
        let outside = || {
            Failure::new(Exit::Usage, format!("`{}` is not in the workspace", path.display()))
                .hint("give a path below the mount, or relative to the workspace's root")
        };
        let current = current_dir()?;
        let names = match self {
            Target::Mount(mount) if current.starts_with(mount) || path.starts_with(mount) => {
                below(mount, &current.join(path)).ok_or_else(outside)?
            }
            Target::Mount(mount) if path.is_absolute() => {
                below(mount, &resolved(path)?).map_or_else(|| plain(path).ok_or_else(outside), Ok)?
            }
            _ => plain(path).ok_or_else(outside)?,
        };
        let names: Vec<&[u8]> = in_version(&names).iter().map(|name| name.as_bytes()).collect();
        Ok(PathText(names.join(&b'/')))
    }
}

fn current_dir() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|error| {
        Failure::new(Exit::Usage, format!("the current directory cannot be told: {error}"))
            .hint("it may have been removed; change to one that exists, and try again")
    })
}

/// The names of a path below a mount; one that leads through a symbolic link from outside is resolved.
fn below(mount: &Path, path: &Path) -> Option<Vec<OsString>> {
    let names = |path: &Path| {
        let path: PathBuf = Path::new("/").join(plain(path)?.iter().collect::<PathBuf>());
        Some(path.strip_prefix(mount).ok()?.iter().map(OsStr::to_owned).collect())
    };
    names(path).or_else(|| names(&resolved(path).ok()?))
}

/// The names of a path, with `..` taken by their meaning; `None` when they lead above the start.
fn plain(path: &Path) -> Option<Vec<OsString>> {
    let mut names = Vec::new();
    for name in path.iter() {
        match name.as_bytes() {
            b"/" | b"." => {}
            b".." => {
                names.pop()?;
            }
            _ => names.push(name.to_owned()),
        }
    }
    Some(names)
}

/// Below `.kura/versions/latest` or `.kura/versions/by-…/NAME`, the names in that version.
fn in_version(names: &[OsString]) -> &[OsString] {
    let texts: Vec<&[u8]> = names.iter().take(3).map(|name| name.as_bytes()).collect();
    let skipped = match texts.as_slice() {
        [b".kura", b"versions", b"latest", ..] => 3,
        [b".kura", b"versions", by, ..] if by.starts_with(b"by-") => 4,
        _ => 0,
    };
    names.get(skipped..).unwrap_or_default()
}

/// A path without symbolic links; the last name may be one that cannot be asked, as a dead mount.
pub fn resolved(path: &Path) -> Result<PathBuf, Failure> {
    if let Ok(path) = std::fs::canonicalize(path) {
        return Ok(path);
    }
    let path = absolute(path)?;
    let parent = path.parent().and_then(|parent| std::fs::canonicalize(parent).ok());
    Ok(match (parent, path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path,
    })
}

impl Door {
    /// Goes through the mount where there is one, else opens the workspace here.
    pub fn open(context: &Context, purpose: Purpose) -> Result<(Self, Target), Failure> {
        Self::open_at(context, Target::find(context)?, purpose)
    }

    /// As [`open`](Self::open), for the workspace that was found.
    pub fn open_at(context: &Context, target: Target, purpose: Purpose) -> Result<(Self, Target), Failure> {
        let door = match &target {
            Target::Mount(mount) => Door::Mounted(mount.clone()),
            Target::Store(store) => {
                let mut options = workspace_options(context, store)?;
                options.read_only = purpose == Purpose::Read;
                Door::Opened(Workspace::open(options)?, purpose)
            }
        };
        Ok((door, target))
    }

    /// Runs a request; a reply that tells of a failure is still a reply.
    pub fn ask(&self, request: &Request) -> Result<Reply, Failure> {
        match self {
            Door::Mounted(mount) => ask_mount(mount, request),
            Door::Opened(workspace, _) => Ok(control::run(workspace, request)),
        }
    }

    /// As [`ask`](Self::ask), for a request that carries something.
    pub fn ask_carrying(&self, request: &Request, carried: Carried) -> Result<Reply, Failure> {
        #[derive(serde::Serialize)]
        struct Carrying<'a> {
            #[serde(flatten)]
            request: &'a Request,
            #[serde(flatten)]
            carried: Carried,
        }
        match self {
            Door::Mounted(mount) => ask_mount(mount, &Carrying { request, carried }),
            Door::Opened(workspace, _) => Ok(control::run_carrying(workspace, request, carried)),
        }
    }

    /// Shuts the door without publishing.
    pub fn leave(self) -> Result<(), Failure> {
        let Door::Opened(workspace, _) = self else { return Ok(()) };
        workspace.close(false)?;
        Ok(())
    }

    /// Shuts the door; what was changed is published as far as the store can be reached, and [`Exit::Partial`] (which
    /// was told) says that this was not far enough.
    pub fn close(self) -> Result<Exit, Failure> {
        let Door::Opened(workspace, purpose) = self else { return Ok(Exit::Ok) };
        let report = workspace.close(purpose == Purpose::Write)?;
        if purpose == Purpose::Write && report.unpublished_versions > 0 {
            super::output::warn(&format!(
                "recorded on this machine and not published: {} versions ({}) wait: {}",
                report.unpublished_versions,
                super::output::size(report.unpublished_bytes),
                report.reason.as_deref().unwrap_or("the store was too slow")
            ));
            return Ok(Exit::Partial);
        }
        Ok(Exit::Ok)
    }
}

/// The options to open a store with; the key is asked for when it is needed.
pub fn workspace_options(context: &Context, store: &StoreUrl) -> Result<WorkspaceOptions, Failure> {
    let common = context.common.clone();
    let name = store.to_string();
    let credential = move || {
        let key = secret::obtain(&common, &name);
        key.map(|key| key.credential()).map_err(|failure| match failure.hint {
            Some(hint) => format!("{}; {hint}", failure.message),
            None => failure.message,
        })
    };
    Ok(with_config(context, store, Box::new(credential)))
}

/// The options that follow from the configuration.
pub fn with_config(
    context: &Context,
    store: &StoreUrl,
    credential: crate::workspace::CredentialSource,
) -> WorkspaceOptions {
    let config = &context.config;
    let mut options =
        WorkspaceOptions::new(store.clone(), config.state_dir.clone(), config.cache_dir.clone(), credential);
    options.notice = (!context.output.quiet).then(|| Arc::new(super::output::warn) as Notice);
    if let Some(bytes) = config.cache_bytes_max {
        options.cache_bytes_max = bytes;
    }
    if let Some(bytes) = config.unpublished_bytes_max {
        options.limits.unpublished_bytes_max = bytes;
    }
    if let Some(wait) = config.full_wait_ms {
        options.limits.full_wait_ms = wait;
    }
    if let Some(quiet) = config.version_quiet_ms {
        options.intervals.version_quiet_ms = quiet;
    }
    options.maintenance = Maintenance {
        collect_every_ms: config.maintain_ms.unwrap_or(0),
        grace_ms: config.gc_grace_ms,
        scrub_every_ms: config.scrub_ms.unwrap_or(0),
        scrub_bytes: config.scrub_bytes.unwrap_or(SCRUB_BYTES),
    };
    if let Some(max) = config.version_max_ms {
        options.intervals.version_max_ms = max;
    }
    if let Some(poll) = config.poll_ms {
        options.intervals.poll_ms = poll;
    }
    options
}

/// Puts a request to the control file of a mount.
pub fn ask_mount(mount: &Path, request: &impl serde::Serialize) -> Result<Reply, Failure> {
    let path = mount.join(".kura/ctl/run");
    let failed = |error: &std::io::Error| mount_failure(mount, error);
    let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(|error| failed(&error))?;
    let bytes = serde_json::to_vec(request)
        .map_err(|error| Failure::new(Exit::Other, format!("the request cannot be written as JSON: {error}")))?;
    if bytes.len() > control::REQUEST_LEN_MAX {
        return Err(Failure::new(Exit::Usage, "the request is too long for a mount").hint("name fewer paths at once"));
    }
    file.write_all(&bytes).map_err(|error| failed(&error))?;
    let reply = read_reply(file).map_err(|error| failed(&error))?;
    serde_json::from_slice(&reply).map_err(|error| {
        let message = format!("the mount at {} answered something that is not understood: {error}", mount.display());
        Failure::new(Exit::Other, message).hint("program and mount may be of different versions; mount it again")
    })
}

fn read_reply(file: File) -> std::io::Result<Vec<u8>> {
    let mut reply = Vec::new();
    file.take(REPLY_LEN_MAX).read_to_end(&mut reply)?;
    Ok(reply)
}

/// Why a mount does not answer.
pub fn mount_failure(mount: &Path, error: &std::io::Error) -> Failure {
    let mount = mount.display();
    match error.raw_os_error() {
        Some(libc::ENOTCONN | libc::ECONNABORTED) => {
            Failure::new(Exit::Other, format!("the mount at {mount} is dead: its process ended"))
                .hint(format!("`kura unmount {mount}`, then mount it again; what was acknowledged is kept"))
        }
        Some(libc::EACCES | libc::EPERM) => {
            Failure::new(Exit::Denied, format!("the workspace at {mount} belongs to another user"))
        }
        _ => Failure::new(Exit::Other, format!("the mount at {mount} does not answer: {error}")),
    }
}
