//! Content that stays near though the store may be away: fetching paths ahead, and keeping pinned ones.

use std::collections::HashSet;
use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::opened::Workspace;
use super::restore::entries;
use super::{Result, WorkspaceError, split_path};
use crate::base::disk::{read_file, replace_file};
use crate::base::ids::{RunId, VersionId};
use crate::blob::{BlobKind, Blobs, ChunkRef, RunRef, location};
use crate::crypto::Kind;
use crate::store::{ObjectKey, ObjectStore, StoreError};
use crate::version::VersionError;
use crate::version::entry::{Body, Entry};
use crate::version::tree::PageIo;

const IDENTITY: &[u8] = b"pins";
/// Longest list of pins in bytes.
const LEN_MAX: usize = 1024 * 1024;
/// Content fetched together, in bytes.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;
/// Pages that are noted at most; a tree of so many is not kept whole.
const PAGES_MAX: usize = 10_000_000;
/// How often it is looked whether there is something to fetch.
const TICK_MS: u64 = 500;
/// How long a failed fetching rests.
const RETRY_MS: u64 = 10_000;

/// How far fetching is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetching {
    /// Files that are being fetched.
    pub files: u64,
    /// Bytes of content that are here.
    pub bytes: u64,
    /// Bytes of content that were asked for.
    pub bytes_total: u64,
    /// Whether it has ended.
    pub is_done: bool,
    /// What the first failure was, when something could not be fetched.
    pub failure: Option<String>,
}

impl fmt::Display for Fetching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.bytes, self.bytes_total)?;
        match (&self.failure, self.is_done) {
            (Some(reason), _) => write!(f, ", stopped: {reason}"),
            (None, true) => f.write_str(", done"),
            (None, false) => Ok(()),
        }
    }
}

/// What is to be near.
#[derive(Default)]
pub(super) struct Near {
    pins: Mutex<Vec<Vec<u8>>>,
    /// Paths that somebody asked for and the background shall fetch.
    wanted: Mutex<Vec<Vec<u8>>>,
    fetching: Mutex<Option<Fetching>>,
    pinning: Mutex<Option<Fetching>>,
}

/// Everything that paths need.
#[derive(Default)]
struct Gathered {
    pages: Vec<ChunkRef>,
    chunks: Vec<ChunkRef>,
    objects: HashSet<ObjectKey>,
    files: u64,
}

/// What is pinned as it was fetched last.
#[derive(Default)]
struct Kept {
    objects: HashSet<ObjectKey>,
    runs: HashSet<RunId>,
    /// What the paths were: when that stays, so does all that they need.
    entries: Vec<Option<Entry>>,
}

/// Reads pages and notes which.
struct Noting<'a>(&'a Blobs, Mutex<HashSet<ChunkRef>>);

impl PageIo for Noting<'_> {
    fn load(&self, page: &ChunkRef) -> crate::version::Result<Arc<[u8]>> {
        let mut noted = self.1.lock();
        if noted.len() < PAGES_MAX {
            noted.insert(*page);
        }
        drop(noted);
        Ok(self.0.read(BlobKind::Page, page)?)
    }

    fn save(&self, _: &[u8]) -> crate::version::Result<ChunkRef> {
        Err(VersionError::Damaged { object: "a page".into(), reason: "pages are only read here".into() })
    }
}

/// The paths that a list of what is pinned names, once it is opened; `None` when it is none.
pub fn decode_pins(plain: &[u8]) -> Option<Vec<Vec<u8>>> {
    postcard::from_bytes(plain).ok()
}

impl Workspace {
    /// Refuses paths that a version does not have.
    pub fn check_present(&self, version: VersionId, paths: &[Vec<u8>]) -> Result<()> {
        let record = self.version(version)?;
        for path in paths {
            if self.find(&record, &split_path(path))?.is_none() {
                let path = String::from_utf8_lossy(path).into_owned();
                return Err(VersionError::NoSuchPath { version, path }.into());
            }
        }
        Ok(())
    }

    /// Finds out what paths need, reading their pages. A path that does not exist is refused, or needs nothing.
    fn gather(&self, paths: &[Vec<u8>], refuse_missing: bool) -> Result<Gathered> {
        let index = self.tree().base().index;
        let io = Noting(self.blobs(), Mutex::default());
        let mut gathered = Gathered::default();
        let mut waiting = Vec::new();
        for path in paths {
            let found = index.root.find(&io, &split_path(path))?;
            if found.is_none() && refuse_missing {
                let (version, path) = (index.id, String::from_utf8_lossy(path).into_owned());
                return Err(VersionError::NoSuchPath { version, path }.into());
            }
            waiting.extend(found);
        }
        while let Some(entry) = waiting.pop() {
            let entry = index.root.resolve(&io, entry)?;
            match &entry.body {
                Body::Directory { .. } => {
                    waiting.extend(entries(&io, &entry)?.into_iter().map(|(_, below)| below));
                }
                Body::File(file) => {
                    gathered.files += 1;
                    gathered.chunks.extend(file.content.chunks(&io, 0, u64::MAX)?.into_iter().map(|(_, chunk)| chunk));
                }
                _ => {}
            }
        }
        let mut seen = HashSet::new();
        gathered.chunks.retain(|chunk| seen.insert(*chunk));
        gathered.pages = io.1.into_inner().into_iter().collect();
        let ids: Vec<_> = gathered.chunks.iter().chain(&gathered.pages).map(|chunk| chunk.id).collect();
        let located = self.blobs().index().lookup_many(&ids)?;
        let objects = ids.iter().zip(located).filter_map(|(id, location)| Some(location?.object(id).0));
        gathered.objects = objects.chain(self.runs()).collect();
        Ok(gathered)
    }

    /// The objects that say where everything is.
    fn runs(&self) -> impl Iterator<Item = ObjectKey> {
        self.tree().base().runs.into_iter().map(|run| location::run_key(run.id))
    }

    /// Reads blobs, some at a time, so that the cache has them; the first failure ends it.
    fn fetch(&self, kind: BlobKind, mut chunks: &[ChunkRef], each: &mut dyn FnMut(u64)) -> Option<String> {
        while !chunks.is_empty() {
            if self.background.is_stopping() {
                return Some("stopped".to_owned());
            }
            let mut bytes = 0;
            let fits = chunks.iter().take_while(|chunk| {
                let has_room = bytes < BATCH_BYTES;
                bytes += u64::from(chunk.len);
                has_room
            });
            let (batch, rest) = chunks.split_at(fits.count());
            for (chunk, read) in batch.iter().zip(self.blobs().read_many(kind, batch)) {
                match read {
                    Ok(_) => each(u64::from(chunk.len)),
                    Err(error) => return Some(error.to_string()),
                }
            }
            chunks = rest;
        }
        None
    }

    fn fetch_all(&self, gathered: &Gathered, tell: &dyn Fn(&Fetching)) -> Fetching {
        let bytes_total = gathered.chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        let mut state = Fetching { files: gathered.files, bytes_total, ..Fetching::default() };
        if self.blobs().is_local() {
            return Fetching { bytes: bytes_total, is_done: true, ..state };
        }
        tell(&state);
        // Pages that were read while nothing was pinned may have gone again.
        let mut failure = self.fetch(BlobKind::Page, &gathered.pages, &mut |_| ());
        if failure.is_none() {
            failure = self.fetch(BlobKind::Content, &gathered.chunks, &mut |bytes| {
                state.bytes += bytes;
                tell(&state);
            });
        }
        (state.is_done, state.failure) = (true, failure);
        tell(&state);
        state
    }

    /// Fetches the content of paths into the cache, telling how far it is.
    pub fn prefetch(&self, paths: &[Vec<u8>], tell: &dyn Fn(&Fetching)) -> Result<Fetching> {
        Ok(self.fetch_all(&self.gather(paths, true)?, tell))
    }

    /// As [`prefetch`](Self::prefetch) in the background, which `status` tells of; false when nothing runs there.
    pub fn prefetch_in_background(&self, paths: &[Vec<u8>]) -> Result<bool> {
        if !self.background.is_started() {
            return Ok(false);
        }
        self.check_present(self.tree().base().index.id, paths)?;
        *self.near.fetching.lock() = Some(Fetching::default());
        self.near.wanted.lock().extend(paths.iter().cloned());
        Ok(true)
    }

    /// How far what was asked for is.
    pub(super) fn fetching(&self) -> Option<Fetching> {
        self.near.fetching.lock().clone()
    }

    /// The paths whose content is kept here.
    pub fn pins(&self) -> Vec<Vec<u8>> {
        self.near.pins.lock().clone()
    }

    /// Keeps the content of paths here, now and as it changes, or (`is_pinned` false) no longer.
    pub fn set_pins(&self, paths: &[Vec<u8>], is_pinned: bool) -> Result<()> {
        if is_pinned {
            self.gather(paths, true)?;
        }
        let mut pins = self.near.pins.lock();
        let mut new = pins.clone();
        new.retain(|pin| !paths.contains(pin));
        if is_pinned {
            new.extend(paths.iter().cloned());
        }
        new.sort();
        let plain = postcard::to_stdvec(&new).unwrap_or_else(|_| unreachable!("our own plain types always encode"));
        let path = self.parts.dir.join("pins");
        if plain.len() > LEN_MAX / 2 {
            return Err(WorkspaceError::Disk { path, reason: "more paths are pinned than can be noted".to_owned() });
        }
        let sealed = self.parts.keys.seal(Kind::Local, IDENTITY, &plain);
        replace_file(&*self.parts.options.disk, &path, sealed.as_bytes())
            .map_err(|error| WorkspaceError::disk(path, &error))?;
        *pins = new;
        Ok(())
    }

    /// Reads what is pinned; a list that cannot be read pins nothing.
    pub(super) fn read_pins(&self) {
        let path = self.parts.dir.join("pins");
        let read = match read_file(&*self.parts.options.disk, &path, LEN_MAX) {
            Ok(sealed) => self.parts.keys.open(Kind::Local, IDENTITY, &sealed).ok(),
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(_) => None,
        };
        match read.and_then(|plain| decode_pins(&plain)) {
            Some(pins) => *self.near.pins.lock() = pins,
            None => tracing::warn!("{}: cannot be read, so nothing is pinned", path.display()),
        }
        if self.pins().is_empty() {
            self.blobs().pin(HashSet::new(), self.parts.options.cache_bytes_max);
        }
    }

    /// Fetches what is pinned, and lets the cache keep it.
    pub fn fetch_pinned(&self, tell: &dyn Fn(&Fetching)) -> Result<Fetching> {
        let gathered = self.gather(&self.pins(), false)?;
        self.blobs().pin(gathered.objects.clone(), self.parts.options.cache_bytes_max);
        self.fetch_runs(&mut HashSet::new())?;
        Ok(self.fetch_all(&gathered, tell))
    }

    /// Reads the location runs in force that were not read yet, so that the cache has them.
    fn fetch_runs(&self, read: &mut HashSet<RunId>) -> Result<()> {
        let runs = if self.blobs().is_local() { Vec::new() } else { self.tree().base().runs };
        for run in runs.into_iter().filter(|run| !read.contains(&run.id)).collect::<Vec<_>>() {
            self.blobs().index().each_record(&RunRef { id: run.id, count: run.count }, &mut |_, _| ())?;
            read.insert(run.id);
        }
        Ok(())
    }

    /// How far fetching what is pinned is.
    pub(super) fn pinning(&self) -> Option<Fetching> {
        self.near.pinning.lock().clone()
    }

    pub(super) fn keep_near(&self) {
        let tell = |state: &Fetching| *self.near.fetching.lock() = Some(state.clone());
        let mut done: Option<(VersionId, Vec<Vec<u8>>)> = None;
        let mut kept = Kept::default();
        let mut pause_ms = TICK_MS;
        while self.background.pause(Duration::from_millis(pause_ms)) {
            pause_ms = TICK_MS;
            let wanted = std::mem::take(&mut *self.near.wanted.lock());
            if !wanted.is_empty()
                && let Err(error) = self.prefetch(&wanted, &tell)
            {
                tell(&Fetching { is_done: true, failure: Some(error.to_string()), ..Fetching::default() });
            }
            let now = (self.tree().base().index.id, self.pins());
            if now.1.is_empty() && done.is_none() {
                continue;
            }
            if done.as_ref() == Some(&now) {
                continue;
            }
            let is_same_list = done.as_ref().is_some_and(|done| done.1 == now.1);
            match self.follow_pins(&now.1, is_same_list, &mut kept) {
                Ok(()) => done = Some(now),
                Err(error) => {
                    tracing::debug!("what is pinned cannot be fetched: {error}");
                    pause_ms = RETRY_MS;
                }
            }
        }
    }

    /// Brings what is pinned up to date; where none of the paths changed, only the location runs may be new.
    fn follow_pins(&self, pins: &[Vec<u8>], is_same_list: bool, kept: &mut Kept) -> Result<()> {
        let index = self.tree().base().index;
        let find = |path: &Vec<u8>| Ok(index.root.find(&*self.pages(), &split_path(path))?);
        let entries: Vec<Option<Entry>> = pins.iter().map(find).collect::<Result<_>>()?;
        if is_same_list && entries == kept.entries {
            kept.objects.extend(self.runs());
            self.blobs().pin(kept.objects.clone(), self.parts.options.cache_bytes_max);
            return self.fetch_runs(&mut kept.runs);
        }
        let gathered = self.gather(pins, false)?;
        self.blobs().pin(gathered.objects.clone(), self.parts.options.cache_bytes_max);
        self.fetch_runs(&mut kept.runs)?;
        let state = self.fetch_all(&gathered, &|state| *self.near.pinning.lock() = Some(state.clone()));
        (kept.objects, kept.entries) = (gathered.objects, entries);
        match state.failure {
            None => Ok(()),
            Some(reason) => {
                kept.entries.clear();
                let store = self.parts.store.address().to_owned();
                Err(StoreError::Unreachable { store, reason }.into())
            }
        }
    }
}
