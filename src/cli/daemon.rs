//! The process that serves a mount, in the background or in the foreground.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::mounts::Record;
use super::options::MountFlags;
use super::secret::Key;
use super::system::notify_service;
use super::{Context, door, output};
use crate::base::ids::VersionId;
use crate::control::{Dispatcher, Exit, Failure, REQUEST_LEN_MAX, Reply};
use crate::fs::{Fs, FsOptions};
use crate::fuse::{self, MountError, MountOptions, Mounted, TOKEN_LEN, Unmounted};
use crate::store::StoreUrl;
use crate::workspace::{Notice, Workspace};

/// What is to be served.
pub struct Serve {
    /// The store.
    pub store: StoreUrl,
    /// Where to mount it, absolute.
    pub mountpoint: PathBuf,
    /// How to mount it.
    pub flags: MountFlags,
    /// Go on with an altered journal.
    pub accept_damage: bool,
    /// Go on with a store that went back.
    pub accept_rollback: bool,
    /// Become the only writer although another client is.
    pub take_over: bool,
    /// A version that the history must hold.
    pub trust: Option<VersionId>,
    /// The key.
    pub key: Key,
}

/// What is said of a store whose conditional writes do not work.
pub const SINGLE_WRITER: &str = "this store has no working conditional writes: only one client at a time may write to \
     the workspace, and others must mount it --read-only";

/// Serves a mount as the daemon: tells the command that started it, through standard output, how the
/// start went.
pub fn run_in_background(context: &Context, serve: Result<Serve, Failure>) -> Result<Exit, Failure> {
    let tell = |reply: Reply| context.output.json(&reply);
    let notice: Notice = Arc::new(|waiting| {
        // The command that waits may have gone; then nobody has to be told.
        writeln!(std::io::stdout(), "{}", serde_json::json!({ "waiting": waiting })).ok();
    });
    let served = match serve.and_then(|serve| start(context, serve, Some(notice))) {
        Ok(served) => served,
        Err(failure) => {
            let exit = failure.exit;
            tell(failure.into())?;
            return Ok(exit);
        }
    };
    // Not before: an automount point lets only the group of those who mount it pass. Fails only for a process that
    // leads its group already, which then has its own session.
    nix::unistd::setsid().ok();
    let offline = served.workspace.status().offline.map(|offline| offline.reason);
    let conditional = served.workspace.has_conditional_writes();
    let about = serde_json::json!({ "offline": offline, "conditional_writes": conditional });
    let told = tell(Reply::done("mounted", about));
    served.until_unmounted(told)
}

/// Serves a mount in the foreground.
pub fn run_in_foreground(context: &Context, serve: Serve) -> Result<Exit, Failure> {
    let text = format!("{} is mounted at {}; Ctrl-C unmounts it", serve.store, serve.mountpoint.display());
    let served = start(context, serve, None)?;
    if !served.workspace.has_conditional_writes() {
        output::warn(SINGLE_WRITER);
    }
    let told = context.output.note(&text);
    notify_service("READY=1");
    served.until_unmounted(told)
}

/// A mount that is being served.
struct Served {
    workspace: Arc<Workspace>,
    mounted: Arc<Mounted>,
    control: Arc<Dispatcher>,
    record: Record,
    state_root: PathBuf,
}

fn start(context: &Context, serve: Serve, notice: Option<Notice>) -> Result<Served, Failure> {
    without_huge_pages();
    let state_root = context.config.state_dir.clone();
    let options = mount_options(context, &serve);
    let settings = super::system::settings(context);
    let key = serve.key;
    let mut open = door::with_config(context, &serve.store, Box::new(move || Ok(key.credential())));
    open.notice = notice.or(open.notice);
    open.announce = super::notify::desktop();
    open.read_only = serve.flags.read_only;
    open.fsync = serve.flags.fsync;
    open.accept_damage = serve.accept_damage;
    open.accept_rollback = serve.accept_rollback;
    open.take_over = serve.take_over;
    open.trust = serve.trust;
    let workspace = Workspace::open(open)?;
    let (mounted, control) = mount(&workspace, &serve.mountpoint, &serve.flags, &options).inspect_err(|_| {
        if let Err(error) = workspace.close(false) {
            tracing::warn!("the workspace could not be closed: {error}");
        }
    })?;
    control.set_settings(settings);
    workspace.start();
    control.jobs().set_mountpoint(mounted.mountpoint().to_owned());
    control.jobs().set_batch_host(Arc::new(super::batch::Host));
    control.jobs().start();
    let record = Record {
        workspace: workspace.id().to_string(),
        store: serve.store.to_string(),
        mountpoint: serve.mountpoint,
        pid: i32::try_from(std::process::id()).unwrap_or(0),
    };
    if let Err(error) = record.write(&state_root) {
        tracing::warn!("commands will not find this mount by its store: its record cannot be written: {error}");
    }
    Ok(Served { workspace, mounted, control, record, state_root })
}

/// The buffers of many threads lie in regions of megabytes, of each of which a little is in use: in huge pages, all of
/// it would be cleared and kept. Where the system knows none there is nothing to turn off.
fn without_huge_pages() {
    nix::sys::prctl::set_thp_disable(true).ok();
}

fn mount(
    workspace: &Arc<Workspace>,
    mountpoint: &Path,
    flags: &MountFlags,
    options: &MountOptions,
) -> Result<(Arc<Mounted>, Arc<Dispatcher>), Failure> {
    let (stop, stopped) = std::sync::mpsc::channel();
    let control = Dispatcher::new(workspace.clone(), move || {
        // The mount is unmounted by somebody else already when nobody listens.
        stop.send(()).ok();
    })?;
    let (owner_uid, owner_gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let how = FsOptions { owner_uid, owner_gid, xattrs: !flags.noxattr };
    let fs = Fs::new(workspace.clone(), how, control.clone());
    if flags.log_paths {
        fs.access().show_paths();
    }
    let mounted = Arc::new(fuse::mount(Arc::new(fs), mountpoint, options).map_err(refused)?);
    let counted = Arc::downgrade(&mounted);
    control.set_counters(move || {
        let requests = counted.upgrade().map(|mounted| mounted.requests()).unwrap_or_default();
        requests.into_iter().map(|(kind, count)| (format!("{kind:?}").to_lowercase(), count)).collect()
    });
    let signalled = mounted.clone();
    unmount_on_signal(move || unmount(&signalled))?;
    let asked = mounted.clone();
    spawn("stop", move || {
        if stopped.recv().is_ok() {
            // The handle of the request is still open, and keeps the mount busy, until its reply is read.
            thread::sleep(STOP_DELAY);
            unmount(&asked);
        }
    })?;
    Ok((mounted, control))
}

const STOP_DELAY: Duration = Duration::from_millis(300);

fn unmount(mounted: &Mounted) {
    match mounted.unmount() {
        // Its users may stay.
        Ok(Unmounted::Lazy) => {}
        Ok(Unmounted::Clean | Unmounted::Already) => mounted.leave(),
        Err(error) => tracing::error!("the mount cannot be unmounted: {error}"),
    }
}

/// The directories that a workspace lives on, with their names.
pub fn own_places(context: &Context, store: &StoreUrl) -> Vec<(&'static str, PathBuf)> {
    let mut places = vec![("state", context.config.state_dir.clone()), ("cache", context.config.cache_dir.clone())];
    if let StoreUrl::Dir(path) = store {
        places.push(("store", path.clone()));
    }
    places
}

fn mount_options(context: &Context, serve: &Serve) -> MountOptions {
    // The kernel's own read-only flag would shut the control file, too; the workspace refuses changes itself.
    let MountFlags {
        allow_other,
        default_permissions,
        suid,
        dev,
        noexec,
        nonempty,
        read_only: _,
        noxattr: _,
        fsync: _,
        log_paths: _,
    } = serve.flags;
    let places = own_places(context, &serve.store).into_iter().map(|(_, path)| path);
    MountOptions {
        allow_other,
        default_permissions,
        nonempty,
        noexec,
        suid,
        dev,
        not_overlapping: places.collect(),
        program: Some("/proc/self/exe".into()),
        ..MountOptions::default()
    }
}

/// What a mount starts so that it is written to on its own behalf: MOUNTPOINT DEVICE NAME LEN, and the token by
/// standard input.
pub(super) fn lie_over() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(2).collect();
    let [mountpoint, device, name, len] = args.as_slice() else { return ExitCode::from(Exit::Usage.code()) };
    let (Some(device), Some(name)) = (device.to_str(), name.to_str()) else {
        return ExitCode::from(Exit::Usage.code());
    };
    let len = len.to_str().and_then(|len| len.parse().ok()).filter(|len| (TOKEN_LEN..=REQUEST_LEN_MAX).contains(len));
    let mut token = [0; TOKEN_LEN];
    match (len, std::io::stdin().read_exact(&mut token)) {
        (Some(len), Ok(())) => match fuse::lie_over(Path::new(mountpoint), device, name, len, &token) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(Exit::Other.code()),
        },
        _ => ExitCode::from(Exit::Usage.code()),
    }
}

fn refused(error: MountError) -> Failure {
    let (exit, hint) = match &error {
        MountError::Missing { .. }
        | MountError::NotADirectory { .. }
        | MountError::NotEmpty { .. }
        | MountError::Overlaps { .. } => (Exit::Usage, None),
        MountError::NoFuse => (Exit::Other, Some("install fuse3, and load its module with `modprobe fuse`")),
        MountError::Refused { .. } => (Exit::Other, Some("is fuse3 installed, and may you use /dev/fuse?")),
        MountError::Gone { .. } => {
            (Exit::Other, Some("look for what unmounts there: another `kura unmount`, a script, a unit of systemd"))
        }
        MountError::DeadMount { .. } | MountError::Covered { .. } | MountError::Ended { .. } => (Exit::Other, None),
    };
    let failure = Failure::new(exit, error.to_string());
    hint.map_or(failure.clone(), |hint| failure.hint(hint))
}

/// The first SIGTERM or SIGINT unmounts; the second ends the process, and what is not published by
/// then is published after the next mount.
fn unmount_on_signal(unmount: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Other, format!("signals cannot be handled: {error}"));
    let (mut heard, sender) = UnixStream::pair().map_err(failed)?;
    super::interrupt::hand_over();
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let sender = sender.try_clone().map_err(failed)?;
        signal_hook::low_level::pipe::register(signal, sender).map_err(failed)?;
    }
    spawn("signals", move || {
        let mut byte = [0];
        if heard.read_exact(&mut byte).is_err() {
            return;
        }
        thread::spawn(unmount);
        if heard.read_exact(&mut byte).is_ok() {
            tracing::warn!("ended by a second signal; what is not published waits for the next mount");
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
    })
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(|_| ()).map_err(|error| Failure::new(Exit::Other, format!("no thread can be started: {error}")))
}

impl Served {
    /// Waits for the end of the mount, however it comes, then records and publishes what is left. A
    /// mount that nobody could be told of ends at once.
    fn until_unmounted(self, told: Result<(), Failure>) -> Result<Exit, Failure> {
        if told.is_err() {
            unmount(&self.mounted);
        }
        let ended = self.mounted.wait();
        notify_service("STOPPING=1");
        self.control.jobs().close();
        let closed = self.workspace.close(true);
        if let Err(error) = self.record.remove(&self.state_root) {
            tracing::warn!("the record of the mount cannot be removed: {error}");
        }
        let report = closed?;
        ended.map_err(refused)?;
        told?;
        if report.unpublished_versions == 0 {
            return Ok(Exit::Ok);
        }
        output::warn(&format!(
            "{} versions ({}) wait on this machine to be published after the next mount: {}",
            report.unpublished_versions,
            output::size(report.unpublished_bytes),
            report.reason.as_deref().unwrap_or("the store was too slow")
        ));
        Ok(Exit::Partial)
    }
}
