//! Opening a workspace.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::keep::{KeyObjects, KnownStores, is_away, is_missing};
use super::opened::{Parts, Workspace};
use super::status::Offline;
use super::{Notice, OpenOptions, Result, WorkspaceError};
use crate::base::clock::Timestamp;
use crate::base::disk::{Disk, DiskFile, OpenMode, read_file};
use crate::base::ids::WorkspaceId;
use crate::blob::{BlobError, Blobs, BlobsConfig, Cache, Outbox, RunRef};
use crate::crypto::Keys;
use crate::crypto::slots::unlock;
use crate::store::{self, ObjectStore, StoreError, WatchStore};
use crate::sync::{ClientMemory, Publisher, PublisherParts, Seen, SyncError, read_head};
use crate::version::head::Head;
use crate::version::index::{Author, IndexRecord};
use crate::version::refs;
use crate::worktree::{Base, Worktree, WorktreeParts};

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
    let keys = opening.unlock()?;
    let (memory, is_copy) = opening.memory(&keys)?;
    let head = opening.read_head(&keys)?;
    let outbox = Arc::new(Outbox::open(opening.options.disk.clone(), opening.dir.join("outbox"))?);
    let blobs = Arc::new(opening.blobs(&keys, &outbox)?);
    let ahead = Ahead { opening: &opening, keys: &keys, memory: &memory, blobs: &blobs };
    if let Some((head, seen)) = &head {
        ahead.check(head, seen)?;
    }
    ahead.prepare_base(head.as_ref().map(|(head, _)| head), is_copy)?;
    let tree = Arc::new(Worktree::recover(
        opening.tree_parts(&keys, &memory, &blobs, &outbox),
        || fresh_base(&opening, &keys, head.as_ref().map(|(head, _)| head)),
        opening.options.accept_damage,
    )?);
    if let Some((_, seen)) = &head {
        memory.remember(*seen)?;
    }
    let publisher = opening.publisher(&keys, &tree, &blobs, &outbox, &memory);
    let Opening { store, options, id, dir, conditional_writes, offline, .. } = opening;
    Ok(Workspace::assemble(Parts {
        id,
        keys,
        store,
        dir,
        tree,
        blobs,
        publisher,
        memory,
        conditional_writes,
        options,
        lock: Mutex::new(Some(lock)),
        offline,
    }))
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
            if !file.try_lock()? {
                return Ok(None);
            }
            file.set_len(0)?;
            file.write_at(std::process::id().to_string().as_bytes(), 0)?;
            Ok(Some(file))
        })();
        match locked.map_err(|error| WorkspaceError::disk(&path, &error))? {
            Some(file) => Ok(file),
            None => Err(WorkspaceError::Locked { state_dir: self.dir.clone(), holder: holder(&**disk, &path) }),
        }
    }

    fn unlock(&self) -> Result<Keys> {
        let credential = (self.options.credential)().map_err(|reason| WorkspaceError::NoCredential { reason })?;
        let objects = &self.objects;
        let keys = unlock(&objects.header, &objects.slots, &objects.epochs, &credential)?;
        if self.offline.is_none() {
            let disk = &*self.options.disk;
            objects.write_copies(disk, &self.dir)?;
            KnownStores { disk, state_root: &self.options.state_dir }.remember(self.store.address(), self.id)?;
        }
        Ok(keys)
    }

    fn memory(&self, keys: &Keys) -> Result<(Arc<ClientMemory>, bool)> {
        let options = &self.options;
        let (memory, is_copy) = ClientMemory::open(options.disk.clone(), &self.dir, keys.clone(), options.machine)?;
        Ok((Arc::new(memory), is_copy))
    }

    /// HEAD, unless the store is away.
    fn read_head(&mut self, keys: &Keys) -> Result<Option<(Head, Seen)>> {
        if self.offline.is_some() {
            return Ok(None);
        }
        match read_head(&*self.store, keys) {
            Ok((head, _, seen)) => Ok(Some((head, seen))),
            Err(SyncError::Store(StoreError::NotFound { .. })) => {
                match Base::read(&*self.options.disk, &self.dir, keys)? {
                    Some(base) => Err(SyncError::RolledBack { seen: base.head_generation, found: 0 }.into()),
                    None => Err(WorkspaceError::Unfinished { store: self.store.address().to_owned() }),
                }
            }
            Err(SyncError::Store(error @ (StoreError::Unreachable { .. } | StoreError::NoStore { .. }))) => {
                self.offline = Some(offline(self.options.clock.now(), &error));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn blobs(&self, keys: &Keys, outbox: &Arc<Outbox>) -> Result<Blobs> {
        let options = &self.options;
        let cache = match self.store.is_local() {
            true => None,
            false => {
                let dir = options.cache_dir.join(self.id.to_string());
                Some(Cache::open(options.disk.clone(), dir, options.cache_bytes_max)?)
            }
        };
        Ok(Blobs::new(BlobsConfig {
            store: self.store.clone(),
            keys: keys.clone(),
            outbox: outbox.clone(),
            cache,
            memory_limit_bytes: options.memory_bytes_max,
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

    fn publisher(
        &self,
        keys: &Keys,
        tree: &Arc<Worktree>,
        blobs: &Arc<Blobs>,
        outbox: &Arc<Outbox>,
        memory: &Arc<ClientMemory>,
    ) -> Publisher {
        Publisher::new(PublisherParts {
            store: self.store.clone(),
            keys: keys.clone(),
            tree: tree.clone(),
            blobs: blobs.clone(),
            outbox: outbox.clone(),
            disk: self.options.disk.clone(),
            dir: self.dir.clone(),
            clock: self.options.clock.clone(),
            memory: memory.clone(),
            conditional_writes: self.conditional_writes,
        })
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
    /// Refuses a HEAD that is older than what was seen, or whose history does not hold it.
    fn check(&self, head: &Head, now: &Seen) -> Result<()> {
        if self.opening.options.accept_rollback {
            return Ok(());
        }
        self.memory.check(now)?;
        let Some(seen) = self.memory.get().seen.filter(|seen| seen.version != head.version) else { return Ok(()) };
        let index = self.blobs.index();
        index.set_runs(head.runs.iter().map(|run| RunRef { id: run.id, count: run.count }).collect());
        match refs::lists(&head.refs, &super::history::Pages(self.blobs), seen.version)? {
            true => Ok(()),
            false => Err(SyncError::RolledBack { seen: seen.generation, found: now.generation }.into()),
        }
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
            if base.is_clean(disk, dir)? {
                base = base.moved_to(head, read_record(&self.opening.store, self.keys, head)?);
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

/// The process that has the lock, in words.
fn holder(disk: &dyn Disk, path: &std::path::Path) -> String {
    let read = || {
        let bytes = read_file(disk, path, 32).ok()?;
        let pid: u32 = std::str::from_utf8(&bytes).ok()?.parse().ok()?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = String::from_utf8_lossy(&command).replace('\0', " ");
        let words: String = words.trim_end().chars().take(COMMAND_LEN_MAX).collect();
        Some(format!("process {pid} ({words})"))
    };
    read().unwrap_or_else(|| "another kura process".to_owned())
}

/// How much of a command is shown, in characters.
const COMMAND_LEN_MAX: usize = 100;

fn offline(now: Timestamp, error: &dyn std::fmt::Display) -> Offline {
    Offline { since: super::status::rfc3339(now), reason: error.to_string() }
}
