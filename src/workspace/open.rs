//! Opening a workspace.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::events::Events;
use super::init::{has_no_head, without_head};
use super::keep::{KeyObjects, KnownStores, is_away, is_missing};
use super::opened::{Parts, Workspace};
use super::status::Offline;
use super::{Notice, OpenOptions, Result, WorkspaceError};
use crate::base::clock::Timestamp;
use crate::base::disk::{Disk, DiskFile, OpenMode, read_file};
use crate::base::ids::{VersionId, WorkspaceId};
use crate::blob::{BlobError, Blobs, BlobsConfig, Cache, Outbox, RunRef, location};
use crate::crypto::Keys;
use crate::crypto::slots::{OpenSlot, UnlockError, unlock_slot};
use crate::store::{self, ETag, ObjectStore, RangeRequest, StoreError, WatchStore};
use crate::sync::{ClientMemory, LeaseParts, Leases, Publisher, PublisherParts, Rollback, Seen, SyncError, read_head};
use crate::version::head::Head;
use crate::version::index::{Author, IndexRecord};
use crate::version::pages::Pages;
use crate::version::refs;
use crate::worktree::{Base, Queued, Worktree, WorktreeParts};

/// See [`Workspace::open`].
pub(super) fn open(options: OpenOptions) -> Result<Arc<Workspace>> {
    let store = match store::open(&options.store, options.disk.clone()) {
        Err(StoreError::NoStore { .. }) => store::expect(&options.store, options.disk.clone())?,
        opened => opened?,
    };
    open_in(store, options)
}

/// See [`Workspace::open_in`].
pub(super) fn open_in(store: Arc<dyn ObjectStore>, options: OpenOptions) -> Result<Arc<Workspace>> {
    let store = Arc::new(WatchStore::new(store));
    if let Some(notice) = options.notice.clone() {
        tell_of_waiting(&store, notice);
    }
    let mut opening = Opening::find(store, options)?;
    opening.store.set_known();
    let lock = opening.lock()?;
    let (keys, slot) = opening.unlock()?;
    let (memory, is_copy) = opening.memory(&keys)?;
    let head = opening.read_head(&keys, &slot)?;
    let outbox = Arc::new(Outbox::open(opening.options.disk.clone(), opening.dir.join("outbox"))?);
    let blobs = Arc::new(opening.blobs(&keys, &outbox)?);
    let ahead = Ahead { opening: &opening, keys: &keys, memory: &memory, blobs: &blobs };
    let accepted = match &head {
        Some((head, seen)) => ahead.check(head, seen)?,
        None => None,
    };
    blobs.index().set_collection(memory.collection().unwrap_or(0));
    if let Some((head, _)) = head.as_ref().filter(|(head, _)| memory.collection() != Some(head.collection)) {
        // Runs that local state rests on may name what was collected since.
        blobs.index().set_newer(head.runs.iter().map(|run| RunRef { id: run.id, count: run.count }).collect());
    }
    ahead.prepare_base(head.as_ref().map(|(head, _)| head), is_copy)?;
    let tree = Arc::new(Worktree::recover(
        opening.tree_parts(&keys, &memory, &blobs, &outbox),
        || fresh_base(&opening, &keys, head.as_ref().map(|(head, _)| head)),
        opening.options.accept_damage,
    )?);
    if let Some((head, seen)) = head.as_ref().filter(|_| accepted.is_none()) {
        // What others published since is taken in later; until then, these refs are not what ours began with.
        let is_base = head.generation == tree.base().head_generation;
        memory.remember(*seen, is_base.then_some(head.refs))?;
        if is_base && memory.collection().is_none() && nothing_waits(&tree, &outbox, &opening)? {
            memory.settle_collection(head.collection)?;
            blobs.index().set_collection(head.collection);
            blobs.index().set_newer(Vec::new());
        }
    }
    let events = Arc::new(Events::new(opening.options.clock.clone(), opening.options.announce.clone()));
    let leases = opening.leases(&keys, &tree, &memory, &events)?;
    let publisher = opening.publisher(&keys, (&tree, &leases), &blobs, &outbox, &memory, &events);
    let Opening { store, options, id, dir, conditional_writes, offline, .. } = opening;
    let workspace = Workspace::assemble(Parts {
        id,
        keys,
        slot,
        store,
        dir,
        tree,
        blobs,
        publisher,
        leases,
        events,
        memory,
        conditional_writes,
        options,
        lock: Mutex::new(Some(lock)),
        offline,
    });
    workspace.read_pins();
    workspace.become_writer()?;
    if let Some(Rollback { seen: lost, .. }) = accepted {
        if !workspace.is_read_only() {
            // It stands in the history, where every client finds it, before it counts here.
            let message = format!(
                "accepted that the store went back behind generation {} of HEAD with version {}",
                lost.generation, lost.version
            );
            workspace.snapshot(Some(message), None)?;
        }
        head.map_or(Ok(()), |(_, seen)| workspace.parts.memory.remember(seen, None))?;
    }
    Ok(workspace)
}

/// Whether no version, object, draft or change here could rest on what was collected since it was made.
fn nothing_waits(tree: &Worktree, outbox: &Outbox, opening: &Opening) -> Result<bool> {
    let queue = Queued::list(&*opening.options.disk, &Queued::dir(&opening.dir))?;
    let is_as_recorded = !tree.has_unrecorded() && tree.activity().drafts == 0;
    Ok(is_as_recorded && queue.is_empty() && outbox.keys().is_empty())
}

/// How long a store may take before somebody is told.
const NOTICE_AFTER: Duration = Duration::from_secs(2);

/// Tells, once for each time of waiting, that the store is being waited for; as long as the store is in use.
fn tell_of_waiting(store: &Arc<WatchStore>, notice: Notice) {
    let watched = Arc::downgrade(store);
    let watch = move || {
        let mut is_told = false;
        while let Some(store) = watched.upgrade() {
            match store.waiting() {
                Some(time) if time > NOTICE_AFTER && !is_told => {
                    is_told = true;
                    notice(&format!("waiting for the store {} …", store.address()));
                }
                Some(_) => {}
                None => is_told = false,
            }
            drop(store);
            std::thread::sleep(NOTICE_AFTER / 8);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("kura-notice".into()).spawn(watch) {
        tracing::debug!("nobody is told of waiting: {error}");
    }
}

/// What is known while a workspace is being opened.
struct Opening {
    store: Arc<WatchStore>,
    options: OpenOptions,
    id: WorkspaceId,
    dir: PathBuf,
    objects: KeyObjects,
    conditional_writes: bool,
    offline: Option<Offline>,
}

impl Opening {
    /// Finds the workspace: in the store or, when that is away, by what the state directory knows.
    fn find(store: Arc<WatchStore>, options: OpenOptions) -> Result<Self> {
        let known = KnownStores { disk: &*options.disk, state_root: &options.state_dir };
        let (objects, offline) = match KeyObjects::fetch(&*store) {
            Ok(objects) => (objects, None),
            Err(error) if is_away(&error) => {
                let Some(id) = known.find(store.address()) else { return Err(error) };
                let dir = options.state_dir.join(id.to_string());
                match KeyObjects::read_copies(&*options.disk, &dir) {
                    Ok(objects) => (objects, Some(offline(options.clock.now(), &error))),
                    Err(missing) if is_missing(&missing) => return Err(error),
                    Err(failed) => return Err(WorkspaceError::disk(dir, &failed)),
                }
            }
            Err(error) => return Err(error),
        };
        let header = objects.header()?;
        let dir = options.state_dir.join(header.workspace.to_string());
        let conditional_writes = header.capabilities.conditional_writes;
        Ok(Self { store, options, id: header.workspace, dir, objects, conditional_writes, offline })
    }

    fn lock(&self) -> Result<Arc<dyn DiskFile>> {
        let disk = &self.options.disk;
        let path = self.dir.join("lock");
        let locked = (|| {
            disk.create_dir_all(&self.dir)?;
            let file = disk.open(&path, OpenMode::ReadWrite)?;
            if !file.try_lock()? && !outlives(&*file, || holder(&**disk, &path).is_none())? {
                return Ok(None);
            }
            file.set_len(0)?;
            file.write_at(std::process::id().to_string().as_bytes(), 0)?;
            Ok(Some(file))
        })();
        match locked.map_err(|error| WorkspaceError::disk(&path, &error))? {
            Some(file) => Ok(file),
            None => Err(WorkspaceError::Locked {
                state_dir: self.dir.clone(),
                holder: holder(&**disk, &path).unwrap_or_else(|| "another kura process".to_owned()),
            }),
        }
    }

    fn unlock(&mut self) -> Result<(Keys, OpenSlot)> {
        let credential = (self.options.credential)().map_err(|reason| WorkspaceError::NoCredential { reason })?;
        let objects = &self.objects;
        let unlocked = unlock_slot(&objects.header, &objects.slots, &objects.epochs, &credential);
        let (keys, slot) = match unlocked {
            // An `init` that was cut off has none yet.
            Err(UnlockError::NoSlots) if self.offline.is_none() && has_no_head(&*self.store) => {
                return Err(without_head(&*self.store)?);
            }
            unlocked => unlocked?,
        };
        if self.offline.is_none() {
            self.check_epochs(&keys, &slot)?;
            let disk = &*self.options.disk;
            self.objects.write_copies(disk, &self.dir)?;
            let known = KnownStores { disk, state_root: &self.options.state_dir };
            if let Some(other) = known.find(self.store.address()).filter(|other| *other != self.id) {
                self.tell_of_another(other);
            }
            known.remember(self.store.address(), self.id)?;
        }
        Ok((keys, slot))
    }

    /// The store holds another workspace than it did.
    fn tell_of_another(&self, other: WorkspaceId) {
        let text = format!(
            "{} held workspace {other} before, and holds {} now; what waits to be published to that one stays in {}",
            self.store.address(),
            self.id,
            self.options.state_dir.join(other.to_string()).display()
        );
        match &self.options.notice {
            Some(notice) => notice(&text),
            None => tracing::warn!("{text}"),
        }
    }

    /// Refuses a store that shows older epochs than this client has seen, or others. When that is accepted, the epochs
    /// that the store has lost are put back from the copies: local state is sealed under them.
    fn check_epochs(&mut self, keys: &Keys, slot: &OpenSlot) -> Result<()> {
        let Ok(copies) = KeyObjects::read_copies(&*self.options.disk, &self.dir) else { return Ok(()) };
        let gone = match self.objects.check_against(&copies, keys, slot) {
            Err(WorkspaceError::Unlock(gone @ UnlockError::EpochGone { .. })) => gone,
            outcome => return outcome,
        };
        if !self.options.accept_rollback || !keys.adopt(&slot.remembered(&copies.header, &copies.epochs)?) {
            return Err(gone.into());
        }
        if !self.options.read_only {
            copies.put_back_epochs(&*self.store, self.conditional_writes)?;
        }
        self.objects.epochs = copies.epochs;
        Ok(())
    }

    /// HEAD as it is now, and the epoch that it is sealed under, which may have begun a moment ago.
    fn read_newest_head(&self, keys: &Keys, slot: &OpenSlot) -> Result<(Head, ETag, Seen)> {
        match read_head(&*self.store, keys) {
            Err(error) if error.is_unknown_epoch() => {
                let objects = KeyObjects::fetch(&*self.store)?;
                slot.follow(keys, &objects.header, &objects.epochs)?;
                Ok(read_head(&*self.store, keys)?)
            }
            outcome => Ok(outcome?),
        }
    }

    fn memory(&self, keys: &Keys) -> Result<(Arc<ClientMemory>, bool)> {
        let options = &self.options;
        let (memory, is_copy) = ClientMemory::open(options.disk.clone(), &self.dir, keys.clone(), options.machine)?;
        Ok((Arc::new(memory), is_copy))
    }

    /// HEAD, unless the store is away.
    fn read_head(&mut self, keys: &Keys, slot: &OpenSlot) -> Result<Option<(Head, Seen)>> {
        if self.offline.is_some() {
            return Ok(None);
        }
        match self.read_newest_head(keys, slot) {
            Ok((head, _, seen)) => Ok(Some((head, seen))),
            Err(WorkspaceError::Sync(SyncError::Store(StoreError::NotFound { .. }))) => {
                match Base::read(&*self.options.disk, &self.dir, keys)? {
                    Some(base) => {
                        let seen = Seen {
                            generation: base.head_generation,
                            digest: base.index.digest(),
                            version: base.index.id,
                        };
                        Err(SyncError::RolledBack(Box::new(Rollback::new(seen, None))).into())
                    }
                    None => Err(without_head(&*self.store)?),
                }
            }
            Err(error) if is_away(&error) => {
                self.offline = Some(offline(self.options.clock.now(), &error));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn blobs(&self, keys: &Keys, outbox: &Arc<Outbox>) -> Result<Blobs> {
        let options = &self.options;
        let cache = match self.store.is_local() {
            true => None,
            false => {
                let dir = options.cache_dir.join(self.id.to_string());
                // Nothing is dropped before it is known what is pinned.
                let has_pins = options.disk.open(&self.dir.join("pins"), OpenMode::Read).is_ok();
                let bytes_max = if has_pins { u64::MAX } else { options.cache_bytes_max };
                Some(Cache::open(options.disk.clone(), dir, bytes_max)?)
            }
        };
        Ok(Blobs::new(BlobsConfig {
            store: self.store.clone(),
            keys: keys.clone(),
            outbox: outbox.clone(),
            cache,
            memory_limit_bytes: options.memory_bytes_max / 3,
        }))
    }

    fn tree_parts(
        &self,
        keys: &Keys,
        memory: &ClientMemory,
        blobs: &Arc<Blobs>,
        outbox: &Arc<Outbox>,
    ) -> WorktreeParts {
        let options = &self.options;
        WorktreeParts {
            disk: options.disk.clone(),
            dir: self.dir.clone(),
            keys: keys.clone(),
            blobs: blobs.clone(),
            outbox: outbox.clone(),
            clock: options.clock.clone(),
            author: Author { client: memory.get().client, host: options.host.clone(), user: options.user.clone() },
            limits: options.limits,
            read_only: options.read_only,
        }
    }

    fn leases(
        &self,
        keys: &Keys,
        tree: &Arc<Worktree>,
        memory: &Arc<ClientMemory>,
        events: &Arc<Events>,
    ) -> Result<Arc<Leases>> {
        let (options, events) = (&self.options, events.clone());
        let parts = LeaseParts {
            store: self.store.clone(),
            keys: keys.clone(),
            tree: tree.clone(),
            disk: options.disk.clone(),
            dir: self.dir.clone(),
            clock: options.clock.clone(),
            memory: memory.clone(),
            host: options.host.clone(),
            user: options.user.clone(),
            conditional_writes: self.conditional_writes,
        };
        Ok(Arc::new(Leases::open(parts, move |event| events.locks(event))?))
    }

    fn publisher(
        &self,
        keys: &Keys,
        (tree, leases): (&Arc<Worktree>, &Arc<Leases>),
        blobs: &Arc<Blobs>,
        outbox: &Arc<Outbox>,
        memory: &Arc<ClientMemory>,
        events: &Arc<Events>,
    ) -> Publisher {
        let events = events.clone();
        let parts = PublisherParts {
            store: self.store.clone(),
            keys: keys.clone(),
            tree: tree.clone(),
            blobs: blobs.clone(),
            outbox: outbox.clone(),
            disk: self.options.disk.clone(),
            dir: self.dir.clone(),
            clock: self.options.clock.clone(),
            memory: memory.clone(),
            leases: leases.clone(),
            conditional_writes: self.conditional_writes,
        };
        Publisher::new(parts, move |pulled| events.joined(pulled))
    }
}

/// What HEAD means for the local state.
struct Ahead<'a> {
    opening: &'a Opening,
    keys: &'a Keys,
    memory: &'a ClientMemory,
    blobs: &'a Blobs,
}

impl Ahead<'_> {
    /// Refuses a HEAD that is older than what was seen, or whose history does not hold it or what the user trusts.
    /// A rollback that is accepted is returned.
    fn check(&self, head: &Head, now: &Seen) -> Result<Option<Rollback>> {
        if let Some(trusted) = self.opening.options.trust
            && !self.lists(head, trusted)?
        {
            return Err(SyncError::Untrusted { trusted, found: head.version }.into());
        }
        let mut rollback = match self.memory.check(now) {
            Ok(()) => match self.memory.get().seen {
                Some(seen) if !self.lists(head, seen.version)? => Rollback::new(seen, Some(*now)),
                _ => return Ok(None),
            },
            Err(SyncError::RolledBack(rollback)) => *rollback,
            Err(error) => return Err(error.into()),
        };
        if self.opening.options.accept_rollback {
            return Ok(Some(rollback));
        }
        rollback.missing = self.missing(&rollback.seen)?;
        Err(SyncError::RolledBack(Box::new(rollback)).into())
    }

    /// Whether a history holds a version, or is known to have held it.
    fn lists(&self, head: &Head, version: VersionId) -> Result<bool> {
        if version == head.version {
            return Ok(true);
        }
        let index = self.blobs.index();
        index.set_runs(head.runs.iter().map(|run| RunRef { id: run.id, count: run.count }).collect());
        let io = Pages(self.blobs);
        Ok(refs::lists(&head.refs, &io, version)? || refs::forgotten(&head.refs, &io, version)?.is_some())
    }

    /// What the newest version seen needs and the store has no more: its record and its location runs.
    fn missing(&self, seen: &Seen) -> Result<Vec<String>> {
        let opening = self.opening;
        let base = Base::read(&*opening.options.disk, &opening.dir, self.keys)?;
        let runs = base.iter().flat_map(|base| &base.runs).map(|run| location::run_key(run.id));
        let mut missing = Vec::new();
        for key in [IndexRecord::key(seen.version)].into_iter().chain(runs) {
            // What cannot be asked is not called missing.
            let answer = opening.store.get_range(&RangeRequest { key: key.clone(), offset: 0, len: 1 });
            if matches!(answer, Err(StoreError::NotFound { .. })) {
                missing.push(key.to_string());
            }
        }
        Ok(missing)
    }

    /// Empties a queue whose newest version HEAD's history has: a crash came before that was noted, and others may have
    /// forgotten the version since, and collected what it needs.
    fn drop_published(&self, base: &Base, head: &Head) -> Result<()> {
        let (disk, dir) = (&*self.opening.options.disk, Queued::dir(&self.opening.dir));
        disk.create_dir_all(&dir).map_err(|error| WorkspaceError::disk(&dir, &error))?;
        let mut sequences = Queued::list(disk, &dir)?;
        sequences.retain(|sequence| *sequence <= base.queue_sequence);
        let Some(newest) = sequences.last() else { return Ok(()) };
        let Queued { record, objects, .. } = Queued::read(disk, &dir, *newest, self.keys)?;
        // An entry without a record of its own changes refs or places alone.
        if objects.contains(&IndexRecord::key(record.id)) && self.lists(head, record.id)? {
            sequences.iter().try_for_each(|sequence| Queued::remove(disk, &dir, *sequence))?;
        }
        Ok(())
    }

    /// Moves a local base without changes of its own forward to HEAD.
    fn prepare_base(&self, head: Option<&Head>, is_copy: bool) -> Result<()> {
        let options = &self.opening.options;
        let (disk, dir) = (&*options.disk, &self.opening.dir);
        let Some(mut base) = Base::read(disk, dir, self.keys)? else { return Ok(self.memory.settle()?) };
        let before = base.head_generation;
        if is_copy {
            base = base.for_new_client();
        }
        if let Some(head) = head.filter(|head| head.generation != before) {
            if !options.read_only {
                self.drop_published(&base, head)?;
            }
            if base.is_clean(disk, dir)? {
                let record = read_record(&self.opening.store, self.keys, head)?;
                let client = self.memory.get().client;
                if client == head.writer || client == record.author.client {
                    // This client has published what it knows nothing of: its state comes from a backup.
                    base = base.for_new_client();
                }
                base = base.moved_to(head, record);
            } else if head.generation < before && !options.read_only {
                return Err(WorkspaceError::RolledBackUnderChanges { state_dir: dir.clone() });
            }
        }
        if is_copy || base.head_generation != before {
            base.write(disk, &Base::path(dir), self.keys)?;
        }
        Ok(self.memory.settle()?)
    }
}

fn fresh_base(opening: &Opening, keys: &Keys, head: Option<&Head>) -> crate::worktree::Result<Base> {
    let Some(head) = head else {
        let reason = opening.offline.as_ref().map_or_else(String::new, |offline| offline.reason.clone());
        let error = StoreError::Unreachable { store: opening.store.address().to_owned(), reason };
        return Err(BlobError::from(error).into());
    };
    Ok(Base::from_head(head, read_record(&opening.store, keys, head)?))
}

/// The record HEAD names, checked against the digest HEAD has of it.
fn read_record(
    store: &Arc<WatchStore>,
    keys: &Keys,
    head: &Head,
) -> std::result::Result<IndexRecord, crate::version::VersionError> {
    let key = IndexRecord::key(head.version);
    let record = IndexRecord::open(keys, head.version, &store.get(&key)?.bytes)?;
    if record.digest() != head.version_digest {
        let reason = "it is not the record that HEAD names".to_owned();
        return Err(crate::version::VersionError::Damaged { object: key.to_string(), reason });
    }
    Ok(record)
}

/// How long a process that was killed may take to let go of its lock.
const ENDING_WAIT: Duration = Duration::from_secs(5);

/// Waits for the lock as long as its holder is ending; whether it was got.
fn outlives(file: &dyn DiskFile, is_ending: impl Fn() -> bool) -> std::io::Result<bool> {
    let start = Instant::now();
    while is_ending() && start.elapsed() < ENDING_WAIT {
        std::thread::sleep(ENDING_WAIT / 250);
        if file.try_lock()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The process that has the lock, in words; `None` when it is ending, and no longer has a command line.
fn holder(disk: &dyn Disk, path: &std::path::Path) -> Option<String> {
    let bytes = read_file(disk, path, 32).ok()?;
    let pid: u32 = std::str::from_utf8(&bytes).ok()?.parse().ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = String::from_utf8_lossy(&command).replace('\0', " ");
    let words: String = words.trim_end().chars().take(COMMAND_LEN_MAX).collect();
    (!words.is_empty()).then(|| format!("process {pid} ({words})"))
}

/// How much of a command is shown, in characters.
const COMMAND_LEN_MAX: usize = 100;

fn offline(now: Timestamp, error: &dyn std::fmt::Display) -> Offline {
    Offline { since: super::status::rfc3339(now), reason: error.to_string() }
}
