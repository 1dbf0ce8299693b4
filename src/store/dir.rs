//! A store in a directory: every object is a file, its name the path below the root.
//!
//! Files are written under `.tmp/` in the root, made durable, and then linked (if absent) or
//! renamed to their place, so that no reader ever sees a part of one. Every store that writes owns
//! the temporary files whose names begin with its number, and holds a lock as long as it lives;
//! when the first write of another store finds that lock free (or no such owner), the owner is gone
//! for certain (the system frees the locks of a process that ends), and its files are removed.
//!
//! Conditional replacement, unconditional replacement and removal take the lock file `.lock`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{
    ETag, Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, RangeRequest, Result, SealedFile, StoreError,
};
use crate::base::disk::{Disk, DiskFile, OpenMode, read_file};
use crate::base::limits::OBJECT_LEN_MAX;
use crate::base::random;
use crate::crypto::Sealed;

const LOCK_NAME: &str = ".lock";
const TEMPORARY_DIR: &str = ".tmp";
const OWNER_SUFFIX: &str = ".owner";
/// Files of a batch that are open at the same time.
const BATCH_LEN: usize = 64;

/// A store in a directory of the local disk (or of a network file system that has links, locks and
/// atomic renames).
pub struct DirStore {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    address: String,
    owner: Mutex<Option<Owner>>,
    temporaries: AtomicU64,
}

/// The right to write temporary files of this number.
#[derive(Clone)]
struct Owner {
    number: u64,
    /// Held for its lock.
    _lock: Arc<dyn DiskFile>,
}

/// A file that is written and durable, but has no name yet.
struct Prepared {
    temporary: PathBuf,
    target: PathBuf,
}

impl DirStore {
    /// Opens the store in `root` (an absolute path).
    ///
    /// A directory that is missing or quite empty is [`StoreError::NoStore`]: its disk may just not
    /// be mounted. Nothing is written before the first put.
    pub fn open(disk: Arc<dyn Disk>, root: &Path) -> Result<Self> {
        let store = Self::expect(disk, root);
        store.check_root()?;
        Ok(store)
    }

    /// As [`open`](Self::open), but the directory may be missing for now; requests say so.
    pub fn expect(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Self {
            disk,
            root: root.to_path_buf(),
            address: root.display().to_string(),
            owner: Mutex::new(None),
            temporaries: AtomicU64::new(0),
        }
    }

    /// Makes the directory (and its parents) if it is missing, and opens the store in it.
    pub fn create(disk: Arc<dyn Disk>, root: &Path) -> Result<Self> {
        let made = (|| {
            let missing: Vec<&Path> =
                root.ancestors().take_while(|dir| disk.list(dir).is_err_and(|error| is_absent(&error))).collect();
            disk.create_dir_all(root)?;
            disk.open(&root.join(LOCK_NAME), OpenMode::ReadWrite)?;
            disk.sync_dir(root)?;
            missing.iter().filter_map(|dir| dir.parent()).try_for_each(|parent| disk.sync_dir(parent))
        })();
        made.map_err(|error| failed(&root.display().to_string(), "create", root, &error))?;
        Self::open(disk, root)
    }

    /// Tells a missing object from a missing store.
    fn check_root(&self) -> Result<()> {
        match self.disk.list(&self.root) {
            Ok(items) if !items.is_empty() => Ok(()),
            Ok(_) => Err(StoreError::NoStore { store: self.address.clone() }),
            Err(error) if is_absent(&error) => Err(StoreError::NoStore { store: self.address.clone() }),
            Err(error) => Err(self.failed("list", &self.root, &error)),
        }
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn failed(&self, action: &'static str, path: &Path, error: &io::Error) -> StoreError {
        failed(&self.address, action, path, error)
    }

    fn absent(&self, key: &ObjectKey) -> StoreError {
        match self.check_root() {
            Ok(()) => StoreError::NotFound { key: key.clone() },
            Err(error) => error,
        }
    }

    fn lock(&self) -> Result<Arc<dyn DiskFile>> {
        let path = self.root.join(LOCK_NAME);
        let locked = self.disk.open(&path, OpenMode::ReadWrite).and_then(|file| file.lock().map(|()| file));
        locked.map_err(|error| match is_absent(&error) {
            true => StoreError::NoStore { store: self.address.clone() },
            false => self.failed("write", &path, &error),
        })
    }

    /// A fresh temporary name; becomes an owner of such names, and cleans up, the first time.
    fn temporary(&self) -> Result<PathBuf> {
        let mut owner = self.owner.lock();
        let number = match owner.as_ref() {
            Some(owner) => owner.number,
            None => owner.insert(self.become_owner()?).number,
        };
        let count = self.temporaries.fetch_add(1, Ordering::Relaxed);
        Ok(self.root.join(TEMPORARY_DIR).join(format!("{number:016x}-{count}")))
    }

    fn become_owner(&self) -> Result<Owner> {
        self.check_root()?;
        // Owners come and are found gone under this lock only, so none is taken for gone between
        // making its file and locking it.
        let _lock = self.lock()?;
        let dir = self.root.join(TEMPORARY_DIR);
        let number = random::number();
        let owned = self.disk.create_dir_all(&dir).and_then(|()| {
            self.remove_leftovers(&dir)?;
            let file = self.disk.open(&dir.join(format!("{number:016x}{OWNER_SUFFIX}")), OpenMode::CreateNew)?;
            file.lock()?;
            Ok(Owner { number, _lock: file })
        });
        owned.map_err(|error| self.failed("write", &dir, &error))
    }

    /// Removes the temporary files whose owner's lock is free, or whose owner's file is gone. An
    /// owner that lives keeps its file, so the listing has it.
    fn remove_leftovers(&self, dir: &Path) -> io::Result<()> {
        let items = self.disk.list(dir)?;
        let (mut living, mut dead) = (BTreeSet::new(), Vec::new());
        for item in &items {
            let Some(number) = item.name.strip_suffix(OWNER_SUFFIX) else { continue };
            let path = dir.join(&item.name);
            match self.disk.open(&path, OpenMode::ReadWrite) {
                Ok(file) if file.try_lock()? => dead.push(path),
                Ok(_) => drop(living.insert(number)),
                // Another user's; that user's stores will clean it up.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => drop(living.insert(number)),
                Err(error) => return Err(error),
            }
        }
        for item in &items {
            let owner = item.name.split_once('-').map(|(owner, _)| owner);
            if owner.is_some_and(|owner| !living.contains(owner)) {
                remove_if_there(&*self.disk, &dir.join(&item.name))?;
            }
        }
        dead.iter().try_for_each(|path| remove_if_there(&*self.disk, path))
    }

    /// Writes the objects to temporary files and makes them durable.
    fn prepare(&self, objects: &[(&ObjectKey, &Sealed)]) -> Vec<Result<Prepared>> {
        let write = |(key, sealed): &(&ObjectKey, &Sealed)| -> Result<(Prepared, Arc<dyn DiskFile>)> {
            let temporary = self.temporary()?;
            let written = self
                .disk
                .open(&temporary, OpenMode::CreateNew)
                .and_then(|file| file.write_at(sealed.as_bytes(), 0).map(|()| file));
            match written {
                Ok(file) => Ok((Prepared { temporary, target: self.path(key) }, file)),
                Err(error) => Err(self.discard(&temporary, &error)),
            }
        };
        let written: Vec<_> = objects.iter().map(write).collect();
        let sync = |written: Result<(Prepared, Arc<dyn DiskFile>)>| {
            let (prepared, file) = written?;
            match file.sync() {
                Ok(()) => Ok(prepared),
                Err(error) => Err(self.discard(&prepared.temporary, &error)),
            }
        };
        written.into_iter().map(sync).collect()
    }

    /// Gives up a temporary file. What cannot be removed now goes with the next owner's cleaning.
    fn discard(&self, temporary: &Path, error: &io::Error) -> StoreError {
        self.disk.remove(temporary).ok();
        if error.kind() == ErrorKind::NotFound {
            // The directory of temporary files is gone: the next put makes it anew.
            self.owner.lock().take();
        }
        self.failed("write", temporary, error)
    }

    /// Runs `publish`; when the target's directory is missing, makes it and runs it again.
    fn publish(&self, target: &Path, publish: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
        match publish() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let dirs: Vec<&Path> = target
                    .ancestors()
                    .skip(1)
                    .take_while(|dir| dir.starts_with(&self.root) && *dir != self.root)
                    .collect();
                if let Some(dir) = dirs.first() {
                    // A store that was taken away meanwhile must not be made anew.
                    if self.disk.list(&self.root)?.is_empty() {
                        return Err(ErrorKind::NotFound.into());
                    }
                    self.disk.create_dir_all(dir)?;
                }
                for dir in dirs {
                    self.disk.sync_dir(dir.parent().unwrap_or(&self.root))?;
                }
                publish()
            }
            result => result,
        }
    }

    fn link(&self, prepared: &Prepared) -> io::Result<()> {
        let linked = self.publish(&prepared.target, &|| self.disk.link(&prepared.temporary, &prepared.target));
        // The object is in place or not, whatever becomes of its second name.
        self.disk.remove(&prepared.temporary).ok();
        linked
    }

    fn replace(&self, key: &ObjectKey, prepared: &Prepared, condition: Option<&ETag>) -> Result<()> {
        let replaced = (|| {
            let _lock = self.lock()?;
            if let Some(expected) = condition {
                match self.get(key) {
                    Ok(object) if object.etag == *expected => {}
                    Ok(_) | Err(StoreError::NotFound { .. }) => {
                        return Err(StoreError::Precondition { key: key.clone() });
                    }
                    Err(error) => return Err(error),
                }
            }
            self.publish(&prepared.target, &|| self.disk.rename(&prepared.temporary, &prepared.target))
                .map_err(|error| self.failed("write", &prepared.target, &error))
        })();
        if replaced.is_err() {
            self.disk.remove(&prepared.temporary).ok();
        }
        replaced
    }

    /// The place of an object that was linked there. One that is already there may have been put by someone who
    /// crashed before making it durable.
    fn linked(&self, target: PathBuf, linked: io::Result<()>) -> Result<PathBuf> {
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(self.failed("write", &target, &error)),
            _ => Ok(target),
        }
    }

    /// Makes the names of objects that were just put durable.
    fn settle_all(&self, placed: Vec<Result<PathBuf>>) -> Vec<Result<()>> {
        let mut dirs: BTreeMap<PathBuf, Result<()>> = BTreeMap::new();
        let mut settle = |target: PathBuf| {
            let dir = target.parent().unwrap_or(&self.root).to_path_buf();
            let sync = |dir: &PathBuf| self.disk.sync_dir(dir).map_err(|error| self.failed("write", dir, &error));
            dirs.entry(dir.clone()).or_insert_with(|| sync(&dir)).clone()
        };
        placed.into_iter().map(|placed| settle(placed?)).collect()
    }

    /// Makes the name of an object that was just put durable.
    fn settle(&self, key: &ObjectKey, target: &Path) -> Result<()> {
        self.disk.sync_dir(target.parent().unwrap_or(&self.root)).map_err(|error| StoreError::OutcomeUnknown {
            key: key.clone(),
            reason: format!("its directory could not be made durable: {error}"),
        })
    }

    fn read_range(&self, path: &Path, request: &RangeRequest) -> io::Result<Vec<u8>> {
        let file = self.disk.open(path, OpenMode::Read)?;
        let len = file.len()?.saturating_sub(request.offset).min(request.len);
        let len = usize::try_from(len).ok().filter(|len| *len <= OBJECT_LEN_MAX).ok_or(ErrorKind::InvalidInput)?;
        file.read_vec(request.offset, len)
    }

    fn list_below(&self, dir: &Path, below: &str, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<()> {
        let items = match self.disk.list(dir) {
            Ok(items) => items,
            Err(error) if is_absent(&error) => return self.check_root(),
            Err(error) => return Err(self.failed("list", dir, &error)),
        };
        for item in items {
            let Some(key) = ObjectKey::new(format!("{below}{}", item.name)) else { continue };
            if item.is_dir {
                let below = format!("{key}/");
                if below.starts_with(prefix) || prefix.starts_with(&below) {
                    self.list_below(&dir.join(&item.name), &below, prefix, each)?;
                }
            } else if key.as_str().starts_with(prefix) {
                each(ObjectInfo { key, len: item.len, modified: item.modified });
            }
        }
        Ok(())
    }
}

impl ObjectStore for DirStore {
    fn get(&self, key: &ObjectKey) -> Result<Object> {
        let path = self.path(key);
        match read_file(&*self.disk, &path, OBJECT_LEN_MAX) {
            Ok(bytes) => Ok(Object { etag: ETag::of_content(&bytes), bytes }),
            Err(error) if is_absent(&error) => Err(self.absent(key)),
            Err(error) => Err(self.failed("read", &path, &error)),
        }
    }

    fn get_if_changed(&self, key: &ObjectKey, etag: &ETag) -> Result<Option<Object>> {
        let object = self.get(key)?;
        Ok((object.etag != *etag).then_some(object))
    }

    fn get_range(&self, request: &RangeRequest) -> Result<Vec<u8>> {
        if request.len == 0 {
            return Ok(Vec::new());
        }
        let path = self.path(&request.key);
        match self.read_range(&path, request) {
            Ok(bytes) => Ok(bytes),
            Err(error) if is_absent(&error) => Err(self.absent(&request.key)),
            Err(error) => Err(self.failed("read", &path, &error)),
        }
    }

    fn put(&self, key: &ObjectKey, sealed: &Sealed, condition: PutCondition) -> Result<ETag> {
        for prepared in self.prepare(&[(key, sealed)]) {
            let prepared = prepared?;
            match &condition {
                PutCondition::IfAbsent => self.link(&prepared).map_err(|error| match error.kind() {
                    ErrorKind::AlreadyExists => StoreError::Precondition { key: key.clone() },
                    _ => self.failed("write", &prepared.target, &error),
                })?,
                PutCondition::IfMatch(etag) => self.replace(key, &prepared, Some(etag))?,
                PutCondition::Always => self.replace(key, &prepared, None)?,
            }
            self.settle(key, &prepared.target)?;
        }
        Ok(ETag::of_content(sealed.as_bytes()))
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        let path = self.path(key);
        let _lock = self.lock()?;
        match self.disk.remove(&path) {
            Ok(()) => Ok(()),
            Err(error) if is_absent(&error) => self.check_root(),
            Err(error) => Err(self.failed("delete", &path, &error)),
        }
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<()> {
        // Start in the deepest directory that holds all of them.
        let below = prefix.rfind('/').map_or("", |end| &prefix[..=end]);
        match ObjectKey::new(below.trim_end_matches('/')) {
            Some(key) if below.len() == key.as_str().len() + 1 => {
                self.list_below(&self.path(&key), below, prefix, each)
            }
            _ if below.is_empty() => self.list_below(&self.root, "", prefix, each),
            _ => self.check_root(),
        }
    }

    /// Each directory is made durable once, at the end.
    fn put_many(&self, objects: &[(ObjectKey, Sealed)]) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(objects.len());
        for batch in objects.chunks(BATCH_LEN) {
            let batch: Vec<_> = batch.iter().map(|(key, sealed)| (key, sealed)).collect();
            results.extend(self.prepare(&batch).into_iter().map(|prepared| {
                let prepared = prepared?;
                let linked = self.link(&prepared);
                self.linked(prepared.target, linked)
            }));
        }
        self.settle_all(results)
    }

    fn adopt_many(&self, objects: &[(ObjectKey, SealedFile)]) -> Option<Vec<Result<()>>> {
        let mut placed = Vec::with_capacity(objects.len());
        for (key, file) in objects {
            let target = self.path(key);
            let linked = self.publish(&target, &|| self.disk.link(&file.path, &target));
            if linked.as_ref().is_err_and(|error| cannot_link(error.kind())) {
                return None;
            }
            placed.push(self.linked(target, linked));
        }
        Some(self.settle_all(placed))
    }

    fn concurrency(&self) -> usize {
        4
    }

    fn is_local(&self) -> bool {
        true
    }

    fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for DirStore {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.get_mut().take() {
            let name = format!("{:016x}{OWNER_SUFFIX}", owner.number);
            // Whatever stays behind is removed by the next owner.
            self.disk.remove(&self.root.join(TEMPORARY_DIR).join(name)).ok();
        }
    }
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.remove(path).or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })
}

/// Whether files of two places cannot be one file, so that the content has to be copied.
fn cannot_link(error: ErrorKind) -> bool {
    matches!(
        error,
        ErrorKind::CrossesDevices | ErrorKind::Unsupported | ErrorKind::PermissionDenied | ErrorKind::TooManyLinks
    )
}

/// Whether the error says that no such file is there (a directory in its place, or a file in the
/// place of its directory, hold no object either).
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory)
}

fn failed(store: &str, action: &'static str, path: &Path, error: &io::Error) -> StoreError {
    let target = path.display().to_string();
    let reason = error.to_string();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full { store: store.to_owned() },
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreError::Denied { action, target, reason },
        ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
            StoreError::Invalid { target, reason }
        }
        _ => StoreError::Unreachable {
            store: store.to_owned(),
            reason: format!("{action} of {target} failed: {reason}"),
        },
    }
}
