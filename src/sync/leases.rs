//! The leases of all clients as this one sees them, and its own.
//!
//! No clock of another machine counts. A lease that somebody has is stale, and may be taken, once this client has seen
//! its object unchanged for the lease's length, by its own monotonic clock. Whoever takes or breaks it raises the
//! fencing number, by which the one who had it learns that it has it no more.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::lease::{self, Holder, Lease, WRITER};
use super::lock::{LockEvent, LockInfo, Term};
use super::{ClientMemory, SyncError};
use crate::base::clock::{Clock, Timestamp};
use crate::base::disk::{Disk, read_file, replace_file};
use crate::crypto::{Keys, Kind};
use crate::store::{ETag, ObjectKey, ObjectStore};
use crate::version::VersionError;
use crate::worktree::{Lock, Owner, WorkError, Worktree, is_within};

const IDENTITY: &[u8] = b"leases";
/// Locks that one client has at once.
const HELD_MAX: usize = 256;
/// Longest file of own locks in bytes.
const FILE_LEN_MAX: usize = HELD_MAX * (lease::PATH_LEN_MAX + 64);
/// Locks of all clients that are looked at.
const SEEN_MAX: usize = 10_000;
/// How often somebody else may be faster before taking a lease is given up.
const ATTEMPTS_MAX: u32 = 4;
/// After so long without a renewal, others may take a lock that is renewed, in milliseconds.
const LENGTH_MS: u64 = 300_000;
/// Renewed so many times in its length, so that a few may fail.
const RENEWALS: u32 = 4;

/// What leases work with.
pub struct LeaseParts {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The keys of the workspace.
    pub keys: Keys,
    /// The live tree, which is told what is locked.
    pub tree: Arc<Worktree>,
    /// The local disk.
    pub disk: Arc<dyn Disk>,
    /// The state directory.
    pub dir: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who this client is.
    pub memory: Arc<ClientMemory>,
    /// Its host.
    pub host: String,
    /// Its user.
    pub user: String,
    /// Whether the store's conditional writes work.
    pub conditional_writes: bool,
}

/// See the module.
pub struct Leases {
    parts: LeaseParts,
    /// One look at the store, or change in it, at a time; taken before `state`.
    busy: Mutex<()>,
    state: Mutex<State>,
    told: Box<dyn Fn(&LockEvent) + Send + Sync>,
}

#[derive(Default)]
struct State {
    held: Vec<Held>,
    seen: HashMap<ObjectKey, Seen>,
    /// Locks of others that counted when it was last looked.
    theirs: Vec<(Vec<u8>, String)>,
}

/// A lock of this client; written down in the state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    path: Vec<u8>,
    fencing: u64,
    length_ms: u64,
    /// Renewed while the workspace is open.
    is_kept: bool,
    is_lost: bool,
    /// When it was last known to be ours, on the monotonic clock; none since the workspace was opened.
    #[serde(skip)]
    written: Option<Duration>,
    /// When its renewal was last tried.
    #[serde(skip)]
    tried: Option<Duration>,
}

/// A lease object as it was last read.
#[derive(Clone, Debug)]
struct Seen {
    lease: Lease,
    etag: ETag,
    /// Since when it is so, on the monotonic clock.
    since: Duration,
}

impl Seen {
    fn is_stale(&self, now: Duration) -> bool {
        let length_ms = self.lease.holder.as_ref().map_or(0, |holder| holder.length_ms);
        now.saturating_sub(self.since) >= Duration::from_millis(length_ms)
    }
}

impl Leases {
    /// Reads which locks this client had; `told` hears what happens to locks. The store is not asked.
    pub fn open(parts: LeaseParts, told: impl Fn(&LockEvent) + Send + Sync + 'static) -> Result<Self, SyncError> {
        let path = parts.dir.join("leases");
        let held = match read_file(&*parts.disk, &path, FILE_LEN_MAX) {
            Ok(sealed) => decode(&parts.keys, &sealed, &path.display().to_string())?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(disk_error(path, &error)),
        };
        let state = Mutex::new(State { held, ..State::default() });
        let leases = Self { parts, busy: Mutex::new(()), state, told: Box::new(told) };
        leases.tell();
        Ok(leases)
    }

    /// Looks at the locks of all clients.
    pub fn refresh(&self) -> Result<(), SyncError> {
        let _busy = self.busy.lock();
        self.look()
    }

    /// Locks a path; with `by_force` also one that somebody else has locked, whose `user@host` is the answer.
    pub fn acquire(&self, path: &[u8], term: Term, by_force: bool) -> Result<Option<String>, SyncError> {
        self.check_allowed(path)?;
        let _busy = self.busy.lock();
        self.look()?;
        self.check_room(path, by_force)?;
        let taken_from = self.take(path, term, by_force)?;
        // Somebody may have locked what is above or below at the same time; then neither has it.
        if let Err(error) = self.look().and_then(|()| self.check_room(path, false)) {
            self.give_back(path)?;
            return Err(error);
        }
        Ok(taken_from)
    }

    fn check_allowed(&self, path: &[u8]) -> Result<(), SyncError> {
        if !self.parts.conditional_writes {
            return Err(SyncError::NoLocks);
        }
        if path.len() > lease::PATH_LEN_MAX || self.state.lock().held.len() >= HELD_MAX {
            return Err(SyncError::TooManyLocks);
        }
        Ok(())
    }

    /// Refuses what [`acquire`](Self::acquire) would refuse, as far as the last look tells.
    pub fn check_free(&self, path: &[u8], by_force: bool) -> Result<(), SyncError> {
        self.check_allowed(path)?;
        self.check_room(path, by_force)
    }

    /// Refuses what [`release`](Self::release) would refuse, as far as the last look tells.
    pub fn check_held(&self, path: &[u8]) -> Result<(), SyncError> {
        if self.held(path).is_some() || self.list().iter().any(|lock| lock.is_ours && lock.path == path) {
            return Ok(());
        }
        Err(not_locked(path))
    }

    /// Refuses a lock that overlaps with somebody else's; with `by_force` the very same path does not count.
    fn check_room(&self, path: &[u8], by_force: bool) -> Result<(), SyncError> {
        let state = self.state.lock();
        let overlaps = |locked: &[u8]| is_within(path, locked) || is_within(locked, path);
        let other = state.theirs.iter().find(|(locked, _)| overlaps(locked) && !(by_force && locked == path));
        match other {
            Some((locked, holder)) => Err(locked_error(locked, holder)),
            None => Ok(()),
        }
    }

    fn take(&self, path: &[u8], term: Term, by_force: bool) -> Result<Option<String>, SyncError> {
        let parts = &self.parts;
        let (key, me) = (lease::key(&parts.keys, path), parts.memory.get().client);
        for _ in 0..ATTEMPTS_MAX {
            let now = parts.clock.elapsed();
            let before = Lease::read(&*parts.store, &parts.keys, &key)?;
            let (fencing, since, taken_from) = match before.as_ref().map(|(lease, etag)| (lease, etag)) {
                None => (1, None, None),
                Some((Lease { fencing, holder: None }, _)) => (fencing + 1, None, None),
                Some((Lease { fencing, holder: Some(holder) }, _)) if holder.client == me => {
                    (*fencing, Some(holder.since), None)
                }
                Some((Lease { fencing, holder: Some(holder) }, etag)) => {
                    if !by_force && (path == WRITER || !self.has_seen_stale(&key, etag, now)) {
                        return Err(locked_error(path, &holder.name()));
                    }
                    (fencing.saturating_add(1), None, Some(holder.name()))
                }
            };
            let (length_ms, is_kept) = match term {
                Term::Kept => (LENGTH_MS, true),
                Term::For(length_ms) => (length_ms, false),
            };
            let since = since.unwrap_or_else(|| parts.clock.now());
            let held = Held {
                path: path.to_vec(),
                fencing,
                length_ms,
                is_kept,
                is_lost: false,
                written: Some(now),
                tried: None,
            };
            if self.write(&held, since, before.map(|(_, etag)| etag))? {
                self.change_held(|all| {
                    all.retain(|old| old.path != path);
                    all.push(held);
                })?;
                self.tell();
                return Ok(taken_from);
            }
        }
        Err(SyncError::Contended { attempts: ATTEMPTS_MAX })
    }

    fn has_seen_stale(&self, key: &ObjectKey, etag: &ETag, now: Duration) -> bool {
        self.state.lock().seen.get(key).is_some_and(|seen| seen.etag == *etag && seen.is_stale(now))
    }

    /// Writes a lease of this client; false when somebody else was faster.
    fn write(&self, held: &Held, since: Timestamp, before: Option<ETag>) -> Result<bool, SyncError> {
        let parts = &self.parts;
        let key = lease::key(&parts.keys, &held.path);
        let holder = Holder {
            client: parts.memory.get().client,
            host: parts.host.clone(),
            user: parts.user.clone(),
            path: held.path.clone(),
            length_ms: held.length_ms,
            since,
        };
        let lease = Lease { fencing: held.fencing, holder: Some(holder) };
        let written = lease.write(&*parts.store, &parts.keys, &key, before, parts.conditional_writes)?;
        let Some(etag) = written else { return Ok(false) };
        self.state.lock().seen.insert(key, Seen { lease, etag, since: parts.clock.elapsed() });
        Ok(true)
    }

    /// Makes sure that this client is the one that may write to a store without conditional writes; with `by_force`
    /// also when another is.
    pub fn be_writer(&self, by_force: bool) -> Result<(), SyncError> {
        let parts = &self.parts;
        let _busy = self.busy.lock();
        let found = Lease::read(&*parts.store, &parts.keys, &lease::key(&parts.keys, WRITER))?;
        let me = parts.memory.get().client;
        let fencing = self.held(WRITER).filter(|held| !held.is_lost).map(|held| held.fencing);
        match found.as_ref().and_then(|(lease, _)| Some((lease.fencing, lease.holder.as_ref()?))) {
            Some((now, holder)) if holder.client == me && fencing == Some(now) => Ok(()),
            Some((_, holder)) if holder.client != me && !by_force => {
                if let Some(held) = self.held(WRITER).filter(|held| !held.is_lost) {
                    self.lose(&held, Some(holder.name()))?;
                }
                let (seconds, _) = holder.since.parts();
                let since =
                    jiff::Timestamp::new(seconds, 0).map_or_else(|_| "an unknown time".into(), |t| t.to_string());
                Err(SyncError::NotWriter { holder: holder.name(), since })
            }
            _ => self.take(WRITER, Term::Kept, by_force).map(|_| ()),
        }
    }

    /// Gives up a lock of this client; false when it was lost before.
    pub fn release(&self, path: &[u8]) -> Result<bool, SyncError> {
        let _busy = self.busy.lock();
        self.give_back(path)
    }

    fn give_back(&self, path: &[u8]) -> Result<bool, SyncError> {
        let parts = &self.parts;
        let held = self.held(path);
        let (key, me) = (lease::key(&parts.keys, path), parts.memory.get().client);
        let mut is_released = false;
        for _ in 0..ATTEMPTS_MAX {
            let found = Lease::read(&*parts.store, &parts.keys, &key)?;
            // One that could not be written down when it was taken is ours, too.
            let is_ours = |(lease, _): &(Lease, ETag)| {
                is_held_by(lease.holder.as_ref(), me) && held.as_ref().is_none_or(|held| held.fencing == lease.fencing)
            };
            let Some((lease, etag)) = found.filter(is_ours) else { break };
            let free = Lease { fencing: lease.fencing, holder: None };
            let written = free.write(&*parts.store, &parts.keys, &key, Some(etag), parts.conditional_writes)?;
            if written.is_some() {
                is_released = true;
                break;
            }
        }
        if held.is_none() && !is_released {
            return Err(not_locked(path));
        }
        self.state.lock().seen.remove(&key);
        self.change_held(|all| all.retain(|held| held.path != path))?;
        self.tell();
        Ok(is_released)
    }

    /// Renews what is due, ends what has come to its end, and notes what has become stale.
    pub fn keep_up(&self) -> Result<(), SyncError> {
        let _busy = self.busy.lock();
        let now = self.parts.clock.elapsed();
        let held: Vec<Held> =
            self.state.lock().held.iter().filter(|held| !held.is_lost && held.path != WRITER).cloned().collect();
        let mut outcome = Ok(());
        for one in held {
            outcome = self.keep_up_one(one, now);
            match &outcome {
                Err(error @ SyncError::Version(_)) => tracing::warn!("{error}"),
                Err(_) => break,
                Ok(()) => {}
            }
        }
        self.tell();
        outcome
    }

    fn keep_up_one(&self, one: Held, now: Duration) -> Result<(), SyncError> {
        let length = Duration::from_millis(one.length_ms);
        let since = |moment: Option<Duration>| moment.map(|moment| now.saturating_sub(moment));
        match (one.is_kept, since(one.written)) {
            (true, Some(age)) if age < length / RENEWALS => {}
            (true, _) if since(one.tried).is_some_and(|age| age < length / (4 * RENEWALS)) => {}
            (true, _) => self.renew(&one, now)?,
            (false, None) => self.change_one(&one.path, |held| held.written = Some(now)),
            (false, Some(age)) if age < length => {}
            (false, Some(_)) => {
                self.give_back(&one.path)?;
                (self.told)(&LockEvent::Ended { path: one.path });
            }
        }
        Ok(())
    }

    fn renew(&self, held: &Held, now: Duration) -> Result<(), SyncError> {
        let parts = &self.parts;
        self.change_one(&held.path, |held| held.tried = Some(now));
        let key = lease::key(&parts.keys, &held.path);
        let found = Lease::read(&*parts.store, &parts.keys, &key)?;
        let me = parts.memory.get().client;
        let holder = found.as_ref().and_then(|(lease, _)| lease.holder.clone());
        if let (Some((lease, etag)), Some(ours)) = (found, holder.as_ref().filter(|holder| holder.client == me))
            && lease.fencing == held.fencing
        {
            // When somebody else is faster, the next look tells.
            if self.write(held, ours.since, Some(etag))? {
                self.change_one(&held.path, |held| held.written = Some(now));
            }
            return Ok(());
        }
        self.lose(held, holder.map(|holder| holder.name()))
    }

    fn lose(&self, held: &Held, holder: Option<String>) -> Result<(), SyncError> {
        self.change_held(|all| all.iter_mut().filter(|one| one.path == held.path).for_each(|one| one.is_lost = true))?;
        (self.told)(&LockEvent::Lost { path: held.path.clone(), holder });
        Ok(())
    }

    /// Whether locks were lost that still matter.
    pub fn has_lost(&self) -> bool {
        self.state.lock().held.iter().any(|held| held.is_lost && held.path != WRITER)
    }

    /// Everything that was changed here under locks that were lost is published.
    pub fn forget_lost(&self) -> Result<(), SyncError> {
        self.change_held(|all| all.retain(|held| !held.is_lost || held.path == WRITER))?;
        self.tell();
        Ok(())
    }

    /// The paths that this client has locked for as long as the workspace is open.
    pub fn kept(&self) -> Vec<Vec<u8>> {
        let state = self.state.lock();
        state.held.iter().filter(|held| held.is_kept && !held.is_lost).map(|held| held.path.clone()).collect()
    }

    /// Whether this client has no locks and has seen none.
    pub fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.held.is_empty() && state.seen.is_empty()
    }

    /// `user@host` of who may write to a store without conditional writes, as it was seen last.
    pub fn writer(&self) -> Option<String> {
        let key = lease::key(&self.parts.keys, WRITER);
        let state = self.state.lock();
        Some(state.seen.get(&key)?.lease.holder.as_ref()?.name())
    }

    /// All locks as they were seen last, by path.
    pub fn list(&self) -> Vec<LockInfo> {
        let (now, me) = (self.parts.clock.elapsed(), self.parts.memory.get().client);
        let state = self.state.lock();
        let info = |seen: &Seen| {
            let holder = seen.lease.holder.as_ref().filter(|holder| holder.path != WRITER)?;
            Some(LockInfo {
                path: holder.path.clone(),
                holder: holder.name(),
                is_ours: holder.client == me,
                since: holder.since,
                length_ms: holder.length_ms,
                is_stale: holder.client != me && seen.is_stale(now),
            })
        };
        let mut infos: Vec<LockInfo> = state.seen.values().filter_map(info).collect();
        infos.sort_by(|a, b| a.path.cmp(&b.path));
        infos
    }

    fn held(&self, path: &[u8]) -> Option<Held> {
        self.state.lock().held.iter().find(|held| held.path == path).cloned()
    }

    fn change_one(&self, path: &[u8], change: impl Fn(&mut Held)) {
        self.state.lock().held.iter_mut().filter(|held| held.path == path).for_each(change);
    }

    /// Changes what this client has, and writes it down.
    fn change_held(&self, change: impl FnOnce(&mut Vec<Held>)) -> Result<(), SyncError> {
        let mut state = self.state.lock();
        change(&mut state.held);
        let parts = &self.parts;
        let plain = postcard::to_stdvec(&state.held);
        let plain = plain.unwrap_or_else(|_| unreachable!("our own plain types always encode"));
        let sealed = parts.keys.seal(Kind::Local, IDENTITY, &plain);
        let path = parts.dir.join("leases");
        replace_file(&*parts.disk, &path, sealed.as_bytes()).map_err(|error| disk_error(path, &error))
    }

    /// Reads all leases that somebody has.
    fn look(&self) -> Result<(), SyncError> {
        let parts = &self.parts;
        let mut listed = Vec::new();
        parts.store.list(lease::PREFIX, &mut |info| {
            if lease::may_be_held(info.len) && info.len <= lease::LEN_MAX && listed.len() < SEEN_MAX {
                listed.push(info.key);
            }
        })?;
        let before = self.state.lock().seen.clone();
        let mut seen = HashMap::new();
        for key in listed {
            let old = before.get(&key);
            let found = match old {
                Some(old) => Lease::read_if_changed(&*parts.store, &parts.keys, &key, &old.etag),
                None => Lease::read(&*parts.store, &parts.keys, &key),
            };
            match found {
                Ok(Some((lease, etag))) => {
                    seen.insert(key, Seen { lease, etag, since: parts.clock.elapsed() });
                }
                Ok(None) => seen.extend(old.map(|old| (key, old.clone()))),
                // Locks are advice: one that somebody destroyed locks nothing.
                Err(error @ SyncError::Version(_)) if !error.is_unknown_epoch() => tracing::warn!("{error}"),
                Err(error) => return Err(error),
            }
        }
        self.state.lock().seen = seen;
        self.find_lost()?;
        self.tell();
        Ok(())
    }

    fn find_lost(&self) -> Result<(), SyncError> {
        let me = self.parts.memory.get().client;
        let lost: Vec<(Held, Option<String>)> = {
            let state = self.state.lock();
            let holder = |held: &Held| {
                let seen = state.seen.get(&lease::key(&self.parts.keys, &held.path))?;
                Some((seen.lease.fencing, seen.lease.holder.as_ref()?))
            };
            let is_lost = |held: &&Held| {
                !holder(held).is_some_and(|(fencing, holder)| fencing == held.fencing && holder.client == me)
            };
            let held = state.held.iter().filter(|held| !held.is_lost).filter(is_lost);
            held.map(|held| (held.clone(), holder(held).map(|(_, holder)| holder.name()))).collect()
        };
        lost.into_iter().try_for_each(|(held, holder)| self.lose(&held, holder))
    }

    /// Lets the live tree know what is locked, and users what others did.
    fn tell(&self) {
        let (now, me) = (self.parts.clock.elapsed(), self.parts.memory.get().client);
        let own_name = format!("{}@{}", self.parts.user, self.parts.host);
        let mut state = self.state.lock();
        let counts = |seen: &Seen| {
            let holder = seen.lease.holder.as_ref()?;
            let is_theirs = holder.client != me && holder.path != WRITER && !seen.is_stale(now);
            is_theirs.then(|| (holder.path.clone(), holder.name()))
        };
        let mut theirs: Vec<(Vec<u8>, String)> = state.seen.values().filter_map(counts).collect();
        theirs.sort();
        let mut locks: Vec<Lock> = Vec::new();
        for held in state.held.iter().filter(|held| held.path != WRITER) {
            let owner = if held.is_lost { Owner::Lost } else { Owner::Ours };
            locks.push(Lock { path: held.path.clone(), holder: own_name.clone(), owner });
        }
        let lock = |(path, holder): &(Vec<u8>, String)| Lock {
            path: path.clone(),
            holder: holder.clone(),
            owner: Owner::Theirs,
        };
        locks.extend(theirs.iter().map(lock));
        let before = std::mem::replace(&mut state.theirs, theirs.clone());
        self.parts.tree.set_locks(locks);
        drop(state);
        for (path, holder) in before.iter().filter(|lock| !theirs.contains(lock)).cloned() {
            (self.told)(&LockEvent::Unlocked { path, holder });
        }
        for (path, holder) in theirs.into_iter().filter(|lock| !before.contains(lock)) {
            (self.told)(&LockEvent::Locked { path, holder });
        }
    }
}

fn is_held_by(holder: Option<&Holder>, client: crate::base::ids::ClientId) -> bool {
    holder.is_some_and(|holder| holder.client == client)
}

fn locked_error(path: &[u8], holder: &str) -> SyncError {
    SyncError::Locked { path: String::from_utf8_lossy(path).into_owned(), holder: holder.to_owned() }
}

fn not_locked(path: &[u8]) -> SyncError {
    SyncError::NotLocked { path: String::from_utf8_lossy(path).into_owned() }
}

fn decode(keys: &Keys, sealed: &[u8], object: &str) -> Result<Vec<Held>, SyncError> {
    let object = object.to_owned();
    let plain = keys
        .open(Kind::Local, IDENTITY, sealed)
        .map_err(|source| VersionError::Unopened { object: object.clone(), source })?;
    Ok(postcard::from_bytes(&plain).map_err(|error| VersionError::Damaged { object, reason: error.to_string() })?)
}

fn disk_error(path: PathBuf, error: &std::io::Error) -> SyncError {
    WorkError::Disk { path, reason: error.to_string() }.into()
}
