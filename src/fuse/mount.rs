//! Mounting, and the life of a mount.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use fuser::{Config, INodeNo, MountOption, Notifier, Session, SessionACL};
use parking_lot::Mutex;

use super::adapter::Adapter;
use super::counters::Operation;
use super::mountpoint::{self, MountError, Unmounted};
use super::permission::is_root_alone;
use super::serve::Server;
use super::wipe::Place;
use crate::fs::{Fs, OWN_FILES};
use crate::worktree::Invalidation;

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Let other users in; the permissions of files decide what they may do.
    pub allow_other: bool,
    /// The permissions of files decide also where only root may enter, and may do anything.
    pub default_permissions: bool,
    /// Refuse every change.
    pub read_only: bool,
    /// Take a directory that is not empty.
    pub nonempty: bool,
    /// No programs can be run.
    pub noexec: bool,
    /// Set-user-id bits count (root only).
    pub suid: bool,
    /// Device nodes are devices (root only).
    pub dev: bool,
    /// Reading does not touch access times.
    pub noatime: bool,
    /// Directories that the mount point must not lie in, nor hide: the store's, and those of local state.
    pub not_overlapping: Vec<PathBuf>,
    /// Every request is answered within this time (control requests within ten times of it).
    pub deadline: Duration,
    /// The program `kura`: it is started to wipe secret requests from memory. Without it they stay until later writes
    /// lie over them.
    pub program: Option<PathBuf>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            allow_other: false,
            default_permissions: false,
            read_only: false,
            nonempty: false,
            noexec: false,
            suid: false,
            dev: false,
            noatime: true,
            not_overlapping: Vec::new(),
            deadline: Duration::from_secs(120),
            program: None,
        }
    }
}

/// Threads that take requests. More of them cost more for each request; two keep one slow handler
/// from stopping everything. Each has a file to be wiped by.
const SESSION_THREADS: usize = OWN_FILES.len();

/// A mount. Dropping it unmounts.
pub struct Mounted {
    mountpoint: PathBuf,
    /// The device number, by which the mount is told from others at the same place.
    device: String,
    /// Whether the connection to the kernel has ended; the device number may be another's since.
    ended: Arc<AtomicBool>,
    server: Arc<Server>,
    session: Mutex<Option<Running>>,
    leaving: Leaving,
}

/// A session that is running.
struct Running {
    over: Receiver<Over>,
    teller: JoinHandle<()>,
    /// Dropped at the end, of which who watches the mount is told so.
    watched: Sender<()>,
}

/// How a session is over.
enum Over {
    /// It ended so.
    Ended(std::thread::Result<io::Result<()>>),
    /// The kernel does not end it, so it ends with the process.
    Left,
}

/// What is needed to end a session that nobody can get at from here.
#[derive(Clone)]
struct Leaving {
    server: Arc<Server>,
    device: String,
    /// Whether it was detached from here, for its users to go on.
    is_detached: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    over: Sender<Over>,
}

/// How far the kernel reads ahead, and so asks for at once, where that can be said: four times its own habit. It
/// reads as much around each page that a program maps and touches first, so that more would cost those who do that.
const READ_AHEAD_KIB: u32 = 512;
/// How often it is looked whether the mount is still there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// So many looks after the mount has gone, its session should have ended.
const LOOKS_UNTIL_ENDED: u32 = 2;

/// Mounts a file system.
pub fn mount(fs: Arc<Fs>, mountpoint: &Path, options: &MountOptions) -> Result<Mounted, MountError> {
    let mountpoint = mountpoint::prepare(mountpoint, options)?;
    let refused = |error: io::Error| MountError::Refused { path: mountpoint.clone(), reason: error.to_string() };
    let server = Arc::new(Server::new(fs, options.deadline));
    let ended = Arc::new(AtomicBool::new(false));
    let session =
        Session::new(Adapter::new(server.clone(), ended.clone()), &mountpoint, &config(options)).map_err(|error| {
            let no_fuse = error.kind() == io::ErrorKind::NotFound && !Path::new("/dev/fuse").exists();
            if no_fuse { MountError::NoFuse } else { refused(error) }
        })?;
    let (sender, invalidations) = channel();
    let (notifier, at_once) = (session.notifier(), session.notifier());
    server.fs.on_invalidation(move |told| {
        for invalidation in told {
            match invalidation {
                // Without content there is no lock of the kernel to wait for.
                Invalidation::Attributes(_) => tell_one(&at_once, &invalidation),
                // The receiver is gone only after the mount.
                _ => drop(sender.send(invalidation)),
            }
        }
    });
    let teller = std::thread::Builder::new().name("fuse-tell".into()).spawn(move || tell(&notifier, &invalidations));
    let teller = teller.map_err(refused)?;
    let device = mountpoint::device_of(&mountpoint);
    if let (Some(device), Some(program)) = (&device, &options.program) {
        let wiper = server.wiper.clone();
        wiper.set_place(Place { mountpoint: mountpoint.clone(), device: device.clone(), program: program.clone() });
        server.fs.on_secret(move |wait| wiper.wipe(wait));
    }
    let (sender, over) = channel();
    run(session, sender.clone()).map_err(refused)?;
    let device = device.ok_or_else(|| MountError::Gone { path: mountpoint.clone() })?;
    if server.fs.is_near()
        && let Err(error) = mountpoint::set_read_ahead(&device, READ_AHEAD_KIB)
    {
        tracing::debug!("the kernel reads ahead as far as it does by itself: {error}");
    }
    let leaving = Leaving {
        server: server.clone(),
        device: device.clone(),
        is_detached: Arc::default(),
        ended: ended.clone(),
        over: sender,
    };
    let (watched, is_watched) = channel();
    let watcher = leaving.clone();
    let spawned = std::thread::Builder::new().name("fuse-watch".into()).spawn(move || watcher.watch(&is_watched));
    spawned.map_err(refused)?;
    let session = Mutex::new(Some(Running { over, teller, watched }));
    Ok(Mounted { mountpoint, device, ended, server, session, leaving })
}

/// Starts answering. The library would unmount whatever is at the mount point when its session ends;
/// that part of it is left alone for ever, and unmounting is done here. The end is told.
fn run(session: Session<Adapter>, over: Sender<Over>) -> io::Result<()> {
    let nothing = std::thread::Builder::new().name("fuse-session".into()).spawn(|| Ok(()))?;
    let mut background = session.spawn()?;
    let guard = std::mem::replace(&mut background.guard, nothing);
    std::mem::forget(background);
    let tell_end = move || {
        // Nobody waits when the mount could not be made.
        over.send(Over::Ended(guard.join())).ok();
    };
    std::thread::Builder::new().name("fuse-end".into()).spawn(tell_end).map(drop)
}

impl Leaving {
    /// Looks whether the mount has gone while its session goes on. Programs that have files open in a mount that was
    /// detached keep it as long as they like, and all of its users do when it was detached from here; a copy of it in
    /// another namespace, which nobody here can unmount, does not.
    fn watch(&self, is_watched: &Receiver<()>) {
        let mut absent = 0;
        while is_watched.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            absent = if mountpoint::is_here(&self.device) { 0 } else { absent + 1 };
            if absent < LOOKS_UNTIL_ENDED || self.server.fs.is_in_use() || self.is_detached.load(Ordering::SeqCst) {
                continue;
            }
            if mountpoint::is_elsewhere(&self.device) {
                tracing::warn!("the mount is gone from here; its copy in another mount namespace ends with it");
                return self.cut();
            }
        }
    }

    /// Gives the kernel the time to end the session, then ends it.
    fn leave(&self) {
        for _ in 0..LOOKS_UNTIL_ENDED {
            std::thread::sleep(LOOK_INTERVAL);
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
        }
        self.cut();
    }

    /// Ends the session, or whoever waits for its end.
    fn cut(&self) {
        // The mount is gone from here: whatever has its number by now is another one.
        let is_ours = !mountpoint::is_here(&self.device);
        let cut = if is_ours { mountpoint::cut(&self.device) } else { Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = cut {
            tracing::info!("the connection to the kernel ends with this process: it cannot be cut: {error}");
            // Nobody waits any more when it has ended meanwhile.
            self.over.send(Over::Left).ok();
        }
    }
}

fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    // Fixed words: the library does not quote what stands here.
    config.mount_options = vec![
        MountOption::FSName("kura".into()),
        MountOption::CUSTOM("subtype=kura".into()),
        if options.read_only { MountOption::RO } else { MountOption::RW },
        if options.suid { MountOption::Suid } else { MountOption::NoSuid },
        if options.dev { MountOption::Dev } else { MountOption::NoDev },
        if options.noexec { MountOption::NoExec } else { MountOption::Exec },
        if options.noatime { MountOption::NoAtime } else { MountOption::Atime },
    ];
    if options.default_permissions || !is_root_alone(options.allow_other) {
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(SESSION_THREADS);
    config
}

/// Tells the kernel what to forget. This thread may wait for the kernel's locks, so it holds none and
/// answers nothing.
fn tell(notifier: &Notifier, invalidations: &Receiver<Invalidation>) {
    invalidations.iter().for_each(|invalidation| tell_one(notifier, &invalidation));
}

fn tell_one(notifier: &Notifier, invalidation: &Invalidation) {
    let told = match invalidation {
        Invalidation::Name { parent, name } => notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name)),
        Invalidation::Inode(ino) => notifier.inval_inode(INodeNo(ino.0), 0, 0),
        Invalidation::Attributes(ino) => notifier.inval_inode(INodeNo(ino.0), -1, 0),
    };
    if let Err(error) = told {
        tracing::debug!("{invalidation:?} was not taken: {error}");
    }
}

impl Mounted {
    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// How many requests of each kind came since it was mounted.
    pub fn requests(&self) -> Vec<(Operation, u64)> {
        self.server.counters.all()
    }

    /// Waits until it is unmounted, by [`unmount`](Self::unmount) or by somebody else, and everything
    /// that was under way has ended.
    pub fn wait(&self) -> Result<(), MountError> {
        let mut running = self.session.lock();
        let Some(Running { over, teller, watched }) = running.take() else { return Ok(()) };
        let ended = match over.recv() {
            // How the end of the connection shows when it finds a request half read.
            Ok(Over::Ended(Ok(Err(error)))) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(Ok(())),
            Ok(Over::Ended(ended)) => ended,
            // What is answered from now on is not kept any more.
            Ok(Over::Left) | Err(_) => {
                self.server.leave();
                Ok(Ok(()))
            }
        };
        drop(watched);
        let removed = match ended {
            // The connection is gone, and almost always the mount with it.
            Ok(Ok(())) => mountpoint::clear_if_dead(&self.mountpoint, &self.device),
            // Half of a session would answer half of the requests, and the others would wait for ever.
            Ok(Err(_)) | Err(_) => mountpoint::abort(&self.mountpoint, &self.device),
        };
        self.ended.store(true, Ordering::SeqCst);
        self.server.fs.on_invalidation(|_| {});
        let told = teller.join();
        self.server.close();
        self.server.fs.release_all();
        let reason = match (ended, removed, told) {
            (Ok(Ok(())), Ok(_), Ok(())) => return Ok(()),
            (Ok(Ok(())), Ok(_), Err(_)) => "the thread that tells the kernel of changes panicked".to_owned(),
            (Ok(Ok(())), Err(error), _) => error.to_string(),
            (Ok(Err(error)), ..) => error.to_string(),
            (Err(_), ..) => "a session thread panicked".to_owned(),
        };
        Err(MountError::Ended { path: self.mountpoint.clone(), reason })
    }

    /// Ends a mount that was unmounted though it is held where nobody here gets at it: by a copy in another mount
    /// namespace, or by users of a mount that had been detached before. Who [waits](Self::wait) does so no longer.
    pub fn leave(&self) {
        if !self.ended.load(Ordering::SeqCst) {
            self.leaving.leave();
        }
    }

    /// Unmounts. A mount that is in use is detached: its place is free at once, and it ends when the
    /// last user is gone. [`wait`](Self::wait) waits for that.
    pub fn unmount(&self) -> Result<Unmounted, MountError> {
        if self.ended.load(Ordering::SeqCst) {
            return Ok(Unmounted::Already);
        }
        let unmounted = mountpoint::unmount(&self.mountpoint, &self.device)?;
        self.leaving.is_detached.store(unmounted == Unmounted::Lazy, Ordering::SeqCst);
        Ok(unmounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = self.unmount();
        let has_ended = self.ended.load(Ordering::SeqCst);
        let waited = match unmounted {
            Ok(Unmounted::Clean) => self.wait(),
            Ok(Unmounted::Already) if has_ended => self.wait(),
            // Users of a detached mount may stay as long as they like.
            Ok(Unmounted::Lazy | Unmounted::Already) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = waited {
            tracing::error!("{error}");
        }
    }
}
