//! Wiping what session threads received.
//!
//! The library gives each session thread one buffer for all its requests and lends it out for reading only, so what was
//! secret in a request stays there until a later one of that length. After such a request the mount is therefore
//! written to on its own behalf, once for each thread that may hold a part: the thread that gets the first of these
//! writes keeps it until the others have got theirs, or for a moment.
//!
//! Processes of their own write. One that waits for an answer of itself could not be killed: its connection to the
//! kernel would stay open, and nobody would answer.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, major, minor, openat, openat2};

use crate::base::random;
use crate::fs::OWN_FILES;
use crate::version::entry::CONTROL_NAME;
use crate::worktree::Wait;

/// What a write on the mount's own behalf begins with.
pub const TOKEN_LEN: usize = 32;
/// The command of `kura` that writes it.
pub const LIE_OVER: &str = "lie-over";
const PAGE_LEN: usize = 4096;
/// A session thread keeps a write so long, for the others to get theirs.
const HELD_MAX: Duration = Duration::from_millis(100);
/// Whoever wrote what is secret waits so long at most; wiping goes on without them.
const AWAITED_MAX: Duration = Duration::from_secs(2);
/// Between two rounds when threads were busy.
const PAUSE: Duration = Duration::from_millis(200);
/// Rounds until wiping is left to later requests.
const ROUNDS_MAX: u32 = 300;

/// Where the mount is, and what writes to it.
pub(super) struct Place {
    pub(super) mountpoint: PathBuf,
    /// The number of the device that is mounted there.
    pub(super) device: String,
    /// The program `kura`.
    pub(super) program: PathBuf,
}

/// Who wipes.
pub(super) struct Wiper {
    /// Nobody else knows it.
    token: [u8; TOKEN_LEN],
    place: OnceLock<Place>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How many bytes written to control files each thread may still hold.
    held: HashMap<ThreadId, usize>,
    /// Threads that have yet to be written to in this round.
    pending: HashSet<ThreadId>,
    /// How often it was asked for, and how many of these are done or given up.
    asked: u64,
    answered: u64,
    is_running: bool,
}

impl Wiper {
    pub(super) fn new() -> Arc<Self> {
        let (place, state, changed) = (OnceLock::new(), Mutex::default(), Condvar::new());
        Arc::new(Self { token: random::bytes(), place, state, changed })
    }

    /// Where the mount is. Nothing is wiped before this is known.
    pub(super) fn set_place(&self, place: Place) {
        // Set once, by who mounts.
        self.place.set(place).ok();
    }

    /// This session thread received something that may be secret.
    pub(super) fn received(&self, len: usize) {
        let mut state = self.state.lock();
        let held = state.held.entry(std::thread::current().id()).or_default();
        *held = len.max(*held);
    }

    /// Whether a write is the mount's own. Then it lies over what this session thread received before, and is kept
    /// until the other threads of this round have got theirs.
    pub(super) fn takes(&self, data: &[u8]) -> bool {
        if !data.starts_with(&self.token) {
            return false;
        }
        let mut state = self.state.lock();
        let me = std::thread::current().id();
        if state.held.get(&me).is_none_or(|held| *held <= data.len()) {
            state.held.remove(&me);
            state.pending.remove(&me);
        }
        self.changed.notify_all();
        let until = Instant::now() + HELD_MAX;
        while !state.pending.is_empty() && !self.changed.wait_until(&mut state, until).timed_out() {}
        true
    }

    /// Wipes what session threads hold. May wait for that, though not for long: a thread may be busy.
    pub(super) fn wipe(self: &Arc<Self>, wait: Wait) {
        let mut state = self.state.lock();
        if state.held.is_empty() {
            return;
        }
        state.asked += 1;
        let mine = state.asked;
        if !state.is_running {
            let wiper = self.clone();
            match Builder::new().name("fuse-wipe".into()).spawn(move || wiper.run()) {
                Ok(_) => state.is_running = true,
                Err(error) => return tracing::warn!("no thread to wipe a request with: {error}"),
            }
        }
        if wait == Wait::No {
            return;
        }
        let until = Instant::now() + AWAITED_MAX;
        while state.answered < mine && !self.changed.wait_until(&mut state, until).timed_out() {}
    }

    /// Does what is asked for, round after round.
    fn run(&self) {
        let mut rounds = 0;
        loop {
            let (asked, len) = {
                let mut state = self.state.lock();
                if state.answered >= state.asked {
                    state.is_running = false;
                    return;
                }
                state.pending = state.held.keys().copied().collect();
                (state.asked, state.held.values().copied().max().unwrap_or(0))
            };
            let outcome = self.round(len.max(TOKEN_LEN));
            rounds += 1;
            let mut state = self.state.lock();
            match outcome {
                Ok(()) if !state.pending.is_empty() && rounds < ROUNDS_MAX => {
                    self.changed.wait_for(&mut state, PAUSE);
                    continue;
                }
                Ok(()) if state.pending.is_empty() => {}
                Ok(()) => {
                    tracing::warn!("a secret request stays in a buffer of the mount until later ones lie over it")
                }
                Err(error) => tracing::warn!(
                    "a secret request stays in a buffer of the mount until later ones lie over it: the mount cannot be \
                     written to: {error}"
                ),
            }
            state.pending.clear();
            state.answered = asked;
            rounds = 0;
            self.changed.notify_all();
        }
    }

    /// Writes to the mount once for each of its threads.
    fn round(&self, len: usize) -> io::Result<()> {
        let place = self.place.get().ok_or(io::ErrorKind::NotFound)?;
        let writers = OWN_FILES.map(|name| self.start(place, name, len));
        for writer in writers {
            if !writer?.wait()?.success() {
                return Err(io::Error::other("it was not taken"));
            }
        }
        Ok(())
    }

    fn start(&self, place: &Place, name: &str, len: usize) -> io::Result<Child> {
        let mut command = Command::new(&place.program);
        command.arg(LIE_OVER).arg(&place.mountpoint).args([&place.device, name, &len.to_string()]);
        command.env_clear().current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&self.token)?;
        }
        Ok(child)
    }
}

/// Writes to a mount on its own behalf what it told this process to.
pub fn lie_over(mountpoint: &Path, device: &str, name: &str, len: usize, token: &[u8]) -> io::Result<()> {
    let file = open(mountpoint, device, name)?;
    // From the beginning of a page on, the kernel hands over as much at once as of any other write.
    let mut room = vec![0; len + PAGE_LEN];
    let start = room.as_ptr().align_offset(PAGE_LEN).min(PAGE_LEN);
    room[start..start + token.len()].copy_from_slice(token);
    let mut bytes = &room[start..start + len];
    while !bytes.is_empty() {
        let count = rustix::io::write(&file, bytes)?;
        bytes = bytes.get(count..).filter(|_| count > 0).ok_or(io::ErrorKind::WriteZero)?;
    }
    Ok(())
}

/// A file of the mount's own, by no way that leaves it.
fn open(mountpoint: &Path, device: &str, name: &str) -> io::Result<OwnedFd> {
    let root: OwnedFd = openat(CWD, mountpoint, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let found = fstat(&root)?.st_dev;
    if format!("{}:{}", major(found), minor(found)) != device {
        return Err(io::Error::other("something else is mounted there"));
    }
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let path = [CONTROL_NAME, b"/ctl/", name.as_bytes()].concat();
    Ok(openat2(&root, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}
