//! Sealed objects on the local disk that wait for their upload.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{BlobError, Fault, Result, local_name};
use crate::base::disk::{Disk, OpenMode, TEMPORARY_PREFIX, read_file};
use crate::base::limits::OBJECT_LEN_MAX;
use crate::base::random;
use crate::crypto::{SEAL_OVERHEAD, Sealed};
use crate::store::{ObjectKey, SealedFile};

/// A directory with one file per object, holding exactly the bytes the store will get.
///
/// After [`add`](Self::add) an object survives the end of the process; after
/// [`sync`](Self::sync) also a power cut. An object that was never synced may be torn after a power
/// cut: whoever relies on one that no sync covered reads it first.
pub struct Outbox {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    objects: Mutex<HashMap<ObjectKey, Waiting>>,
    /// Of all objects.
    bytes: AtomicU64,
}

#[derive(Clone, Copy)]
struct Waiting {
    len: u64,
    synced: bool,
}

impl Outbox {
    /// Opens the directory, making it when needed; removes temporary files left by a crash.
    pub fn open(disk: Arc<dyn Disk>, dir: PathBuf) -> Result<Self> {
        let failed = |error| BlobError::disk(&dir, error);
        disk.create_dir_all(&dir).map_err(failed)?;
        let mut objects: HashMap<ObjectKey, Waiting> = HashMap::new();
        for item in disk.list(&dir).map_err(failed)? {
            if item.name.starts_with(TEMPORARY_PREFIX) {
                let path = dir.join(&item.name);
                disk.remove(&path).map_err(|error| BlobError::disk(&path, error))?;
            } else if let Some(key) = local_name::object_key(&item.name).filter(|_| !item.is_dir) {
                objects.insert(key, Waiting { len: item.len, synced: false });
            }
        }
        let bytes = AtomicU64::new(objects.values().map(|waiting| waiting.len).sum());
        Ok(Self { disk, dir, objects: Mutex::new(objects), bytes })
    }

    /// An outbox that holds nothing, for reading the store alone. Nothing may be added to it.
    pub fn none(disk: Arc<dyn Disk>) -> Self {
        Self { disk, dir: PathBuf::new(), objects: Mutex::default(), bytes: AtomicU64::new(0) }
    }

    /// Writes an object (all or nothing, not yet synced). Objects are immutable: one that is here
    /// and synced stays; one that may be torn from before a power cut is written anew.
    pub fn add(&self, key: &ObjectKey, sealed: &Sealed) -> Result<()> {
        let len = sealed.len() as u64;
        if self.objects.lock().get(key).is_some_and(|waiting| waiting.synced) {
            return Ok(());
        }
        let path = self.path(key);
        let temporary = self.dir.join(format!("{TEMPORARY_PREFIX}{:016x}", random::number()));
        let written = self
            .disk
            .open(&temporary, OpenMode::CreateNew)
            .and_then(|file| file.write_at(sealed.as_bytes(), 0))
            .and_then(|()| self.disk.rename(&temporary, &path));
        if let Err(error) = written {
            // The first error is the one to report; what stays behind is removed at the next start.
            self.disk.remove(&temporary).ok();
            return Err(BlobError::disk(&path, error));
        }
        let old = self.objects.lock().insert(key.clone(), Waiting { len, synced: false });
        self.bytes.fetch_add(len, Ordering::Relaxed);
        self.bytes.fetch_sub(old.map_or(0, |old| old.len), Ordering::Relaxed);
        Ok(())
    }

    /// Makes objects durable; those not (or no longer) here are passed over.
    pub fn sync(&self, keys: &[ObjectKey]) -> Result<()> {
        let mut synced = Vec::new();
        for key in keys {
            if self.objects.lock().get(key).is_none_or(|waiting| waiting.synced) {
                continue;
            }
            let path = self.path(key);
            match self.disk.open(&path, OpenMode::Read).and_then(|file| file.sync()) {
                Ok(()) => synced.push(key),
                Err(error) if error.kind() == ErrorKind::NotFound && !self.contains(key) => {}
                Err(error) => return Err(BlobError::disk(&path, error)),
            }
        }
        if synced.is_empty() {
            return Ok(());
        }
        self.disk.sync_dir(&self.dir).map_err(|error| BlobError::disk(&self.dir, error))?;
        let mut objects = self.objects.lock();
        for key in synced {
            if let Some(waiting) = objects.get_mut(key) {
                waiting.synced = true;
            }
        }
        Ok(())
    }

    /// Whether the object waits here.
    pub fn contains(&self, key: &ObjectKey) -> bool {
        self.objects.lock().contains_key(key)
    }

    /// Reads a part of an object, shorter only where the object ends; `None` when it is not here.
    pub fn read_range(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Option<Vec<u8>>> {
        let Some(waiting) = self.objects.lock().get(key).copied() else { return Ok(None) };
        let len = waiting.len.saturating_sub(offset).min(len).min(OBJECT_LEN_MAX as u64);
        let path = self.path(key);
        let len = usize::try_from(len).unwrap_or(OBJECT_LEN_MAX);
        let read = self.disk.open(&path, OpenMode::Read).and_then(|file| file.read_vec(offset, len));
        self.unless_removed(key, &path, read)
    }

    /// Reads a whole object for its upload; `None` when it is not here.
    pub fn read(&self, key: &ObjectKey) -> Result<Option<Sealed>> {
        if !self.contains(key) {
            return Ok(None);
        }
        let path = self.path(key);
        let read = read_file(self.disk.as_ref(), &path, OBJECT_LEN_MAX);
        let Some(bytes) = self.unless_removed(key, &path, read)? else { return Ok(None) };
        let found = bytes.len() as u64;
        let expected = self.objects.lock().get(key).map_or(found, |waiting| waiting.len);
        let damaged = |fault| BlobError::DamagedObject { object: path.display().to_string(), fault };
        if found != expected {
            return Err(damaged(Fault::Length { expected, found }));
        }
        Sealed::from_local(bytes).map(Some).ok_or_else(|| damaged(crate::crypto::OpenError::NotSealed.into()))
    }

    /// The file of an object, made durable and looked at from outside, for a store that can take it over; `None` when
    /// it is not here or not what it should be, which [`read`](Self::read) explains.
    pub fn file(&self, key: &ObjectKey) -> Result<Option<SealedFile>> {
        self.sync(std::slice::from_ref(key))?;
        let Some(Waiting { len, .. }) = self.objects.lock().get(key).copied() else { return Ok(None) };
        let path = self.path(key);
        let looks_right = self.disk.open(&path, OpenMode::Read).and_then(|file| {
            let front = file.read_vec(0, SEAL_OVERHEAD)?;
            Ok(file.len()? == len && Sealed::from_local(front).is_some())
        });
        Ok(looks_right.unwrap_or(false).then_some(SealedFile { path, len }))
    }

    fn unless_removed(&self, key: &ObjectKey, path: &Path, read: std::io::Result<Vec<u8>>) -> Result<Option<Vec<u8>>> {
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            // Uploaded and removed between the question and the opening: the store has it now.
            Err(error) if error.kind() == ErrorKind::NotFound && !self.contains(key) => Ok(None),
            Err(error) => Err(BlobError::disk(path, error)),
        }
    }

    /// Removes an object after its upload; a missing one is fine.
    pub fn remove(&self, key: &ObjectKey) -> Result<()> {
        let Some(waiting) = self.objects.lock().remove(key) else { return Ok(()) };
        self.bytes.fetch_sub(waiting.len, Ordering::Relaxed);
        let path = self.path(key);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(BlobError::disk(&path, error)),
            _ => Ok(()),
        }
    }

    /// The objects that wait, sorted by name.
    pub fn keys(&self) -> Vec<ObjectKey> {
        let mut keys: Vec<_> = self.objects.lock().keys().cloned().collect();
        keys.sort();
        keys
    }

    /// Sealed bytes that wait.
    pub fn total_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.dir.join(local_name::file_name(key))
    }
}
