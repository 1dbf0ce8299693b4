//! A disk in memory that can lose power at any step.
//!
//! Every call that changes something is one numbered step. [`SimDisk::crash_at`] makes a step and
//! all that follows fail, as if the process had died in it; [`SimDisk::reopen`] then shows what a
//! new process would find.
//!
//! The rules are stricter than ext4's: `sync` makes content durable but not the file's name, and
//! `sync_dir` makes names durable but not content. Until then a power cut may keep any part of the
//! changes, later ones without earlier ones; only a rename is never half done.

mod dice;
mod image;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::disk::{DirItem, Disk, DiskFile, OpenMode};

use dice::Dice;
use image::{Change, Content, Image, ROOT, names};

/// How the machine or the process went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process was killed; the operating system keeps everything that completed, and perhaps
    /// the beginning of the write that was under way.
    Kill,
    /// The power failed.
    PowerCut {
        /// What survives beyond what was synced.
        keep: Keep,
    },
}

/// What survives a power cut beyond what was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    None,
    /// An arbitrary subset, chosen by the seed of the disk and the step of the crash.
    Seeded,
}

/// A simulated disk. Clones share it.
#[derive(Clone)]
pub struct SimDisk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// A lock was released, or the disk crashed.
    unlocked: Condvar,
}

struct State {
    seed: u64,
    steps: u64,
    crash_at: Option<u64>,
    crashed: bool,
    /// The change under way when the crash came.
    in_flight: Option<Change>,
    failure: Option<Failure>,
    meanwhile: Option<Meanwhile>,
    node_next: u64,
    handle_next: u64,
    /// Node to the handle that holds its lock.
    locks: BTreeMap<u64, u64>,
    /// What processes see.
    live: Image,
    /// What is certain to survive a power cut.
    durable: Image,
    /// Changes that are in `live` and not in `durable`, in order.
    pending: Vec<Change>,
}

/// What is to happen once so many steps are done.
struct Meanwhile {
    step: u64,
    act: Box<dyn FnOnce() + Send>,
}

#[derive(Clone, Copy)]
struct Failure {
    errno: i32,
    bytes_left: u64,
}

struct SimFile {
    disk: SimDisk,
    node: u64,
    handle: u64,
    writable: bool,
}

impl SimDisk {
    /// An empty disk with nothing but `/`. The seed decides what a seeded power cut keeps.
    pub fn new(seed: u64) -> Self {
        let root = Image::with_root();
        Self::from_state(State {
            seed,
            steps: 0,
            crash_at: None,
            crashed: false,
            in_flight: None,
            failure: None,
            meanwhile: None,
            node_next: ROOT + 1,
            handle_next: 0,
            locks: BTreeMap::new(),
            live: root.clone(),
            durable: root,
            pending: Vec::new(),
        })
    }

    fn from_state(state: State) -> Self {
        Self(Arc::new(Shared { state: Mutex::new(state), unlocked: Condvar::new() }))
    }

    /// Lets the process die in step `step` (counted from 0): it and every later call fail.
    pub fn crash_at(&self, step: u64) {
        self.0.state.lock().crash_at = Some(step);
    }

    /// Lets something happen once, in the first call after `step` steps and before that call does anything. It may use
    /// the disk, but not wait for whoever made the call.
    pub fn meanwhile_at(&self, step: u64, act: impl FnOnce() + Send + 'static) {
        self.0.state.lock().meanwhile = Some(Meanwhile { step, act: Box::new(act) });
    }

    /// How many changing calls have completed.
    pub fn steps(&self) -> u64 {
        self.0.state.lock().steps
    }

    /// Whether the crash has come.
    pub fn has_crashed(&self) -> bool {
        self.0.state.lock().crashed
    }

    /// Lets calls that need space fail with `errno` once `after_bytes` more bytes were written. The
    /// write that does not fit is cut short. Unless it is `ENOSPC`, syncs fail from then on, too.
    pub fn fail_writes_with(&self, errno: i32, after_bytes: u64) {
        self.0.state.lock().failure = Some(Failure { errno, bytes_left: after_bytes });
    }

    /// Ends what [`fail_writes_with`](Self::fail_writes_with) began.
    pub fn allow_writes(&self) {
        self.0.state.lock().failure = None;
    }

    /// What a new process finds after the crash (which comes now, if it has not come yet). This
    /// disk and its open files stay dead.
    pub fn reopen(&self, crash: Crash) -> Self {
        let mut state = self.0.state.lock();
        state.die(None);
        self.0.unlocked.notify_all();
        let (live, durable, pending) = state.survivors(crash);
        Self::from_state(State {
            seed: state.seed,
            steps: 0,
            crash_at: None,
            crashed: false,
            in_flight: None,
            failure: state.failure,
            meanwhile: None,
            node_next: state.node_next,
            handle_next: 0,
            locks: BTreeMap::new(),
            live,
            durable,
            pending,
        })
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.0.state.lock();
        let steps = state.steps;
        if let Some(due) = state.meanwhile.take_if(|meanwhile| steps >= meanwhile.step) {
            MutexGuard::unlocked(&mut state, due.act);
        }
        if state.crashed { Err(died()) } else { Ok(state) }
    }

    fn commit(&self, state: &mut State, change: Change) -> io::Result<()> {
        let result = state.commit(change);
        if state.crashed {
            self.0.unlocked.notify_all();
        }
        result
    }
}

impl State {
    fn die(&mut self, in_flight: Option<Change>) {
        if !self.crashed {
            self.crashed = true;
            self.in_flight = in_flight;
            self.locks.clear();
        }
    }

    /// One step.
    fn commit(&mut self, change: Change) -> io::Result<()> {
        if self.crash_at.is_some_and(|step| self.steps >= step) {
            self.die(Some(change));
            return Err(died());
        }
        self.steps += 1;
        let change = match self.charge(change) {
            Ok(change) => change,
            Err((part, error)) => {
                if let Some(part) = part {
                    self.apply(part);
                }
                return Err(error);
            }
        };
        self.apply(change);
        Ok(())
    }

    /// Takes the space for a change from the budget; when it does not suffice, yields the part
    /// that still fits.
    fn charge(&mut self, change: Change) -> Result<Change, (Option<Change>, io::Error)> {
        let Some(failure) = &mut self.failure else { return Ok(change) };
        let error = io::Error::from_raw_os_error(failure.errno);
        match change {
            Change::Write { node, offset, mut bytes } => {
                if bytes.len() as u64 <= failure.bytes_left {
                    failure.bytes_left -= bytes.len() as u64;
                    return Ok(Change::Write { node, offset, bytes });
                }
                bytes.truncate(usize::try_from(failure.bytes_left).unwrap_or(usize::MAX));
                failure.bytes_left = 0;
                Err((Some(Change::Write { node, offset, bytes }), error))
            }
            Change::Link { .. } | Change::MakeDirs { .. } if failure.bytes_left == 0 => Err((None, error)),
            Change::Sync { .. } | Change::SyncDir { .. }
                if failure.bytes_left == 0 && failure.errno != libc::ENOSPC =>
            {
                Err((None, error))
            }
            other => Ok(other),
        }
    }

    fn apply(&mut self, change: Change) {
        match &change {
            Change::Sync { node } => {
                let node = *node;
                self.persist(|pending| pending.content_of() == Some(node));
            }
            Change::SyncDir { dir } => {
                let dir = *dir;
                self.persist(|pending| pending.names_in() == Some(dir));
            }
            Change::MakeDirs { .. } => {
                self.live.apply(&change);
                self.durable.apply(&change);
            }
            _ => {
                self.live.apply(&change);
                self.pending.push(change);
            }
        }
    }

    fn persist(&mut self, chosen: impl Fn(&Change) -> bool) {
        for change in self.pending.extract_if(.., |pending| chosen(pending)) {
            self.durable.apply(&change);
        }
    }

    /// The images and pending changes after a crash.
    fn survivors(&self, crash: Crash) -> (Image, Image, Vec<Change>) {
        let mut dice = Dice(self.seed ^ self.steps.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        match crash {
            Crash::Kill => {
                let (mut live, mut pending) = (self.live.clone(), self.pending.clone());
                if let Some(Change::Write { node, offset, bytes }) = &self.in_flight {
                    let bytes = bytes[..dice.below(bytes.len() + 1)].to_vec();
                    let begun = Change::Write { node: *node, offset: *offset, bytes };
                    live.apply(&begun);
                    pending.push(begun);
                }
                (live, self.durable.clone(), pending)
            }
            Crash::PowerCut { keep: Keep::None } => (self.durable.clone(), self.durable.clone(), Vec::new()),
            Crash::PowerCut { keep: Keep::Seeded } => {
                let mut image = self.durable.clone();
                for change in self.pending.iter().chain(&self.in_flight) {
                    for part in dice.survivors_of(change) {
                        image.apply(&part);
                    }
                }
                (image.clone(), image, Vec::new())
            }
        }
    }

    fn node_new(&mut self) -> u64 {
        let node = self.node_next;
        self.node_next += 1;
        node
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.alive()?;
        let node = match (state.live.find_file(path), mode) {
            (Ok(_), OpenMode::CreateNew) => return Err(io::Error::from_raw_os_error(libc::EEXIST)),
            (Ok((_, _, node)), _) => node,
            (Err(error), OpenMode::ReadWrite | OpenMode::CreateNew) if error.kind() == io::ErrorKind::NotFound => {
                let (dir, name) = state.live.find_parent(path)?;
                let node = state.node_new();
                self.commit(&mut state, Change::Link { dir, name: name.to_owned(), node })?;
                node
            }
            (Err(error), _) => return Err(error),
        };
        let handle = state.handle_next;
        state.handle_next += 1;
        Ok(Arc::new(SimFile { disk: self.clone(), node, handle, writable: mode != OpenMode::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        let (from_dir, from_name) = state.live.find_parent(from)?;
        let (to_dir, to_name) = state.live.find_parent(to)?;
        let node = state.live.child(from_dir, from_name).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        if let Some(target) = state.live.child(to_dir, to_name) {
            match (state.live.dirs.contains_key(&node), state.live.dirs.get(&target)) {
                (false, Some(_)) => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
                (true, None) => return Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
                (true, Some(names)) if !names.is_empty() => {
                    return Err(io::Error::from_raw_os_error(libc::ENOTEMPTY));
                }
                _ => {}
            }
            if target == node {
                return Ok(()); // as rename(2): two names of one file stay
            }
        }
        let (from, to) = ((from_dir, from_name.to_owned()), (to_dir, to_name.to_owned()));
        self.commit(&mut state, Change::Rename { from, to, node })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        let (_, _, node) = state.live.find_file(from)?;
        let (dir, name) = state.live.find_parent(to)?;
        if state.live.child(dir, name).is_some() {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        self.commit(&mut state, Change::Link { dir, name: name.to_owned(), node })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        let (dir, name, node) = state.live.find_file(path)?;
        self.commit(&mut state, Change::Unlink { dir, name: name.to_owned(), node })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        let mut made = Vec::new();
        let mut dir = ROOT;
        for name in names(path)? {
            let found = if made.is_empty() { state.live.child(dir, name) } else { None };
            dir = match found {
                Some(node) if state.live.dirs.contains_key(&node) => node,
                Some(_) => return Err(io::Error::from_raw_os_error(libc::EEXIST)),
                None => {
                    let node = state.node_new();
                    made.push((dir, name.to_owned(), node));
                    node
                }
            };
        }
        if made.is_empty() { Ok(()) } else { self.commit(&mut state, Change::MakeDirs { made }) }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirItem>> {
        let state = self.alive()?;
        let dir = state.live.find(path)?;
        let names = state.live.dirs.get(&dir).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTDIR))?;
        let item = |(name, node): (&String, &u64)| DirItem {
            name: name.clone(),
            len: state.live.files.get(node).map_or(0, |content| content.bytes.len() as u64),
            is_dir: state.live.dirs.contains_key(node),
            modified: None,
        };
        Ok(names.iter().map(item).collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        let dir = state.live.find(path)?;
        if !state.live.dirs.contains_key(&dir) {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        }
        self.commit(&mut state, Change::SyncDir { dir })
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let state = self.alive()?;
        state.live.find(path)?;
        Ok(state.failure.map_or(1 << 40, |failure| failure.bytes_left))
    }
}

impl SimFile {
    fn change(&self, change: Change) -> io::Result<()> {
        if !self.writable && change.content_of().is_some() {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let mut state = self.disk.alive()?;
        self.disk.commit(&mut state, change)
    }

    fn with_content<T>(&self, read: impl FnOnce(&Content) -> T) -> io::Result<T> {
        let state = self.disk.alive()?;
        state.live.files.get(&self.node).map(read).ok_or_else(died)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with_content(|content| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.bytes.len());
            let count = buffer.len().min(content.bytes.len() - start);
            buffer[..count].copy_from_slice(&content.bytes[start..start + count]);
            count
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write { node: self.node, offset, bytes: bytes.to_vec() })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::SetLen { node: self.node, len })
    }

    fn len(&self) -> io::Result<u64> {
        self.with_content(|content| content.bytes.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        self.change(Change::Sync { node: self.node })
    }

    fn is_written(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.with_content(|content| content.is_written(offset, len))
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.disk.alive()?;
        Ok(*state.locks.entry(self.node).or_insert(self.handle) == self.handle)
    }

    fn lock(&self) -> io::Result<()> {
        let mut state = self.disk.alive()?;
        while *state.locks.entry(self.node).or_insert(self.handle) != self.handle {
            self.disk.0.unlocked.wait(&mut state);
            if state.crashed {
                return Err(died());
            }
        }
        Ok(())
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.0.state.lock();
        if state.locks.get(&self.node) == Some(&self.handle) {
            state.locks.remove(&self.node);
            self.disk.0.unlocked.notify_all();
        }
    }
}

fn died() -> io::Error {
    io::Error::other("the simulated process has died")
}
