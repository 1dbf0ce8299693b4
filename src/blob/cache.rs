//! Fetched objects on the local disk: exactly the store's bytes, window by window.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use super::plan::{WINDOW_BYTES, WINDOW_LEN};
use super::{BlobError, Result, local_name};
use crate::base::disk::{Disk, DiskFile, OpenMode, TEMPORARY_PREFIX};
use crate::base::random;
use crate::store::ObjectKey;

const OPEN_FILES_MAX: NonZeroUsize = match NonZeroUsize::new(64) {
    Some(count) => count,
    None => NonZeroUsize::MIN,
};

/// After the disk was full so many writes are passed over before it is tried again.
const PAUSES: u32 = 256;

/// A directory with a sparse file per object. What it holds is only ever a copy: it may be removed
/// at any time, and everything read from it is authenticated by whoever opens it.
pub struct Cache {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    bytes_max: AtomicU64,
    state: Mutex<State>,
    /// Held while files are written, removed or made; taken before `state`.
    changing: Mutex<()>,
    /// How many writes are passed over because the disk was full.
    pauses: AtomicU32,
}

struct State {
    /// Least recently used first to go.
    objects: LruCache<ObjectKey, Windows>,
    open: LruCache<ObjectKey, Arc<dyn DiskFile>>,
    bytes: u64,
    /// Objects that stay, however much there is, and the bytes of them that are here.
    pinned: HashSet<ObjectKey>,
    pinned_bytes: u64,
}

/// Which windows of an object are here.
#[derive(Default)]
struct Windows {
    bits: Vec<u64>,
    bytes: u64,
}

impl Windows {
    fn has(&self, window: u64) -> bool {
        let word = usize::try_from(window / 64).ok().and_then(|word| self.bits.get(word));
        word.is_some_and(|word| word >> (window % 64) & 1 == 1)
    }

    fn set(&mut self, window: u64, len: u64) {
        let Ok(word) = usize::try_from(window / 64) else { return };
        if self.has(window) {
            return;
        }
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << (window % 64);
        self.bytes += len;
    }

    fn has_all(&self, offset: u64, len: u64) -> bool {
        len > 0 && (offset / WINDOW_LEN..offset.saturating_add(len).div_ceil(WINDOW_LEN)).all(|window| self.has(window))
    }
}

impl Cache {
    /// Opens the directory, making it when needed, and finds out what is in it. At most `bytes_max`
    /// bytes are kept.
    pub fn open(disk: Arc<dyn Disk>, dir: PathBuf, bytes_max: u64) -> Result<Self> {
        let failed = |error| BlobError::disk(&dir, error);
        disk.create_dir_all(&dir).map_err(failed)?;
        let reports_holes = reports_holes(disk.as_ref(), &dir).map_err(failed)?;
        let mut state = State {
            objects: LruCache::unbounded(),
            open: LruCache::new(OPEN_FILES_MAX),
            bytes: 0,
            pinned: HashSet::new(),
            pinned_bytes: 0,
        };
        for item in disk.list(&dir).map_err(failed)?.into_iter().filter(|item| !item.is_dir) {
            let path = dir.join(&item.name);
            let key = local_name::object_key(&item.name).filter(|_| reports_holes);
            let windows = key.as_ref().map(|_| present_windows(disk.as_ref(), &path, item.len));
            match (key, windows) {
                (Some(key), Some(Ok(windows))) => {
                    state.bytes += windows.bytes;
                    state.objects.put(key, windows);
                }
                // Not ours to read: a temporary file, or one whose windows cannot be told apart.
                _ => disk.remove(&path).map_err(|error| BlobError::disk(&path, error))?,
            }
        }
        let cache = Self {
            disk,
            dir,
            bytes_max: AtomicU64::new(bytes_max),
            state: Mutex::new(state),
            changing: Mutex::new(()),
            pauses: AtomicU32::new(0),
        };
        cache.evict();
        Ok(cache)
    }

    /// Whether all windows that hold the range are here.
    pub fn has(&self, key: &ObjectKey, offset: u64, len: u64) -> bool {
        self.state.lock().objects.peek(key).is_some_and(|windows| windows.has_all(offset, len))
    }

    /// Reads a range, shorter where the object ends; `None` when a window of it is not here.
    pub fn read(&self, key: &ObjectKey, offset: u64, len: u64) -> Option<Vec<u8>> {
        let file = {
            let mut state = self.state.lock();
            if !state.objects.get(key).is_some_and(|windows| windows.has_all(offset, len)) {
                return None;
            }
            self.handle(&mut state, key)
        };
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        match file.and_then(|file| file.read_at(&mut bytes, offset)) {
            Ok(count) => {
                bytes.truncate(count);
                Some(bytes)
            }
            Err(error) => {
                tracing::debug!("{key}: the cached copy cannot be read ({error}); dropping it");
                self.invalidate(key);
                None
            }
        }
    }

    /// Keeps what was fetched. `offset` is the start of a window; a last window that is not full is
    /// taken to be the end of the object. False when nothing is kept because the disk failed.
    pub fn write(&self, key: &ObjectKey, offset: u64, bytes: &[u8]) -> bool {
        debug_assert!(offset.is_multiple_of(WINDOW_LEN));
        let paused =
            self.pauses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pauses| pauses.checked_sub(1)).is_ok();
        if paused {
            return false;
        }
        let _changing = self.changing.lock();
        let file = self.handle(&mut self.state.lock(), key);
        if let Err(error) = file.and_then(|file| file.write_at(bytes, offset)) {
            self.pauses.store(PAUSES, Ordering::Relaxed);
            tracing::warn!("{}: cannot be written ({error}); half of the cache goes", self.dir.display());
            let mut state = self.state.lock();
            self.drop_object(&mut state, key);
            let half = state.bytes / 2;
            self.evict_from(&mut state, half);
            return false;
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        let windows = state.objects.get_or_insert_mut(key.clone(), Windows::default);
        let before = windows.bytes;
        for (window, part) in (offset / WINDOW_LEN..).zip(bytes.chunks(WINDOW_BYTES)) {
            windows.set(window, part.len() as u64);
        }
        let added = windows.bytes - before;
        state.bytes += added;
        if state.pinned.contains(key) {
            state.pinned_bytes += added;
        }
        self.evict_from(state, self.bytes_max.load(Ordering::Relaxed));
        true
    }

    /// Drops the copy of an object (a window of it did not open).
    pub fn invalidate(&self, key: &ObjectKey) {
        let _changing = self.changing.lock();
        self.drop_object(&mut self.state.lock(), key);
    }

    /// Keeps these objects, however much there is, and at most `bytes_max` bytes of all others.
    pub fn pin(&self, objects: HashSet<ObjectKey>, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        {
            let mut state = self.state.lock();
            let bytes = |key: &ObjectKey| state.objects.peek(key).map_or(0, |windows| windows.bytes);
            state.pinned_bytes = objects.iter().map(bytes).sum();
            state.pinned = objects;
        }
        self.evict();
    }

    /// Bytes kept.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    fn handle(&self, state: &mut State, key: &ObjectKey) -> std::io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = state.open.get(key) {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open(&self.path(key), OpenMode::ReadWrite)?;
        state.open.put(key.clone(), Arc::clone(&file));
        Ok(file)
    }

    fn drop_object(&self, state: &mut State, key: &ObjectKey) {
        state.open.pop(key);
        if let Some(windows) = state.objects.pop(key) {
            state.bytes -= windows.bytes;
            if state.pinned.contains(key) {
                state.pinned_bytes -= windows.bytes;
            }
        }
        // Gone already is as good; if it stays, the next start finds and accounts for it again.
        if let Err(error) = self.disk.remove(&self.path(key)) {
            tracing::debug!("{key}: the cached copy cannot be removed: {error}");
        }
    }

    fn evict(&self) {
        let _changing = self.changing.lock();
        self.evict_from(&mut self.state.lock(), self.bytes_max.load(Ordering::Relaxed));
    }

    fn evict_from(&self, state: &mut State, bytes_max: u64) {
        // What is pinned is passed over, once.
        for _ in 0..state.objects.len() {
            if state.bytes - state.pinned_bytes <= bytes_max {
                return;
            }
            let Some(key) = state.objects.peek_lru().map(|(key, _)| key.clone()) else { return };
            if state.pinned.contains(&key) {
                state.objects.promote(&key);
            } else {
                self.drop_object(state, &key);
            }
        }
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.dir.join(local_name::file_name(key))
    }
}

/// Whether the file system tells holes from data: without it nothing from an earlier run can be
/// trusted to have been written.
fn reports_holes(disk: &dyn Disk, dir: &std::path::Path) -> std::io::Result<bool> {
    let path = dir.join(format!("{TEMPORARY_PREFIX}{:016x}", random::number()));
    let file = disk.open(&path, OpenMode::CreateNew)?;
    let told = file.write_at(&[1], 16 * WINDOW_LEN).and_then(|()| file.is_written(0, WINDOW_LEN));
    disk.remove(&path)?;
    Ok(!told?)
}

fn present_windows(disk: &dyn Disk, path: &std::path::Path, len: u64) -> std::io::Result<Windows> {
    let file = disk.open(path, OpenMode::Read)?;
    let is_whole = file.is_written(0, len)?;
    let mut windows = Windows::default();
    for window in 0..len.div_ceil(WINDOW_LEN) {
        let offset = window * WINDOW_LEN;
        let window_len = WINDOW_LEN.min(len - offset);
        if is_whole || file.is_written(offset, window_len)? {
            windows.set(window, window_len);
        }
    }
    Ok(windows)
}
