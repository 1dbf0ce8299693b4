//! The front of this room: reading blobs.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::{Mutex, RwLock};

use super::cache::Cache;
use super::codec::{self, BlobKind, ChunkRef, FrameLayout};
use super::index::LocationIndex;
use super::location::{Location, Place};
use super::memory::{ByteLru, Frame, Frames, Opened};
use super::outbox::Outbox;
use super::part::Part;
use super::prefetch::Prefetcher;
use super::source::{Extent, ReadError, Source, Span};
use super::{BlobError, Fault, Result};
use crate::base::ids::BlobId;
use crate::base::limits::{CHUNK_LEN_MAX, FRAME_LEN};
use crate::crypto::{Keys, Sealed};
use crate::store::{ObjectKey, ObjectStore, StoreError};

/// Frame tables kept in memory.
const LAYOUTS_MAX: NonZeroUsize = match NonZeroUsize::new(4096) {
    Some(count) => count,
    None => NonZeroUsize::MIN,
};
/// No sealed form of a blob is longer, padding included.
const STORED_LEN_MAX: u64 = 2 * CHUNK_LEN_MAX as u64;

/// How much of a small object is asked for, at first and when that was not all of it.
const OBJECT_READS: [u64; 2] = [64 * 1024, 4 * 1024 * 1024];

/// Blobs that exist on this machine alone, in no object yet (recorded in the journal).
pub trait LocalBlobs: Send + Sync {
    /// The sealed form of a blob, as [`codec::encode`] made it; `None` when it is not here.
    fn get(&self, id: &BlobId) -> Option<Result<Vec<u8>>>;

    /// Whether the blob is here.
    fn contains(&self, id: &BlobId) -> bool {
        self.get(id).is_some()
    }
}

/// What [`Blobs`] stands on.
pub struct BlobsConfig {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The key ring.
    pub keys: Keys,
    /// Objects that wait for their upload.
    pub outbox: Arc<Outbox>,
    /// Where fetched objects are kept; left aside when the store is local.
    pub cache: Option<Cache>,
    /// How many bytes of opened frames are kept in memory.
    pub memory_limit_bytes: usize,
}

/// Reads blobs, wherever they are: opened frames in memory, [`LocalBlobs`], outbox, disk cache,
/// store, in this order.
pub struct Blobs {
    reader: Arc<Reader>,
    prefetcher: Prefetcher,
    /// Pages read or made last: with them, versions are recorded also while the store is away.
    pages: Mutex<ByteLru<BlobId, Arc<[u8]>>>,
}

/// Pages kept in memory, in bytes.
const PAGES_BYTES_MAX: usize = 16 * 1024 * 1024;

struct Reader {
    keys: Keys,
    source: Arc<Source>,
    index: LocationIndex,
    frames: Mutex<Frames>,
    layouts: Mutex<LruCache<BlobId, Arc<FrameLayout>>>,
    local: RwLock<Option<Arc<dyn LocalBlobs>>>,
    /// Taken, by blob, while frames are read from a local store, so that none is opened twice.
    turns: [Mutex<()>; 16],
}

impl Blobs {
    /// Nothing is read yet; the index has no runs.
    pub fn new(config: BlobsConfig) -> Self {
        let source = Arc::new(Source::new(config.store, config.outbox, config.cache));
        let reader = Arc::new(Reader {
            index: LocationIndex::new(Arc::clone(&source), config.keys.clone()),
            keys: config.keys,
            source,
            frames: Mutex::new(Frames::new(config.memory_limit_bytes)),
            layouts: Mutex::new(LruCache::new(LAYOUTS_MAX)),
            local: RwLock::new(None),
            turns: Default::default(),
        });
        let ahead = Arc::clone(&reader);
        let prefetcher = Prefetcher::new(Arc::new(move |(kind, chunks)| {
            for error in ahead.read_many(kind, &chunks).into_iter().filter_map(Result::err) {
                tracing::debug!("reading ahead: {error}");
            }
        }));
        Self { reader, prefetcher, pages: Mutex::new(ByteLru::new(PAGES_BYTES_MAX)) }
    }

    /// Where blobs are.
    pub fn index(&self) -> &LocationIndex {
        &self.reader.index
    }

    /// Sets the place of blobs that are in no object yet.
    pub fn set_local(&self, local: Arc<dyn LocalBlobs>) {
        *self.reader.local.write() = Some(local);
    }

    /// Whether the blob exists, here or in the store, as far as the index knows.
    pub fn contains(&self, id: &BlobId) -> Result<bool> {
        let local = self.reader.local.read().clone();
        if local.is_some_and(|local| local.contains(id)) {
            return Ok(true);
        }
        Ok(self.reader.index.lookup(id)?.is_some())
    }

    /// Whether an object waits here to be uploaded.
    pub fn is_waiting(&self, key: &ObjectKey) -> bool {
        self.reader.source.is_waiting(key)
    }

    /// Whether a location run or the outbox is known to have the blob; what only the journal has does not count. While
    /// the store that would know cannot be asked the answer is no: storing a blob a second time costs space, and
    /// nothing else.
    pub fn is_stored(&self, id: &BlobId) -> Result<bool> {
        match self.index().lookup_own(id) {
            Ok(location) => Ok(location.is_some()),
            Err(BlobError::Store(_) | BlobError::MissingObject { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether only this machine has the blob, in no object yet.
    pub fn waits_here(&self, id: &BlobId) -> bool {
        let local = self.reader.local.read().clone();
        local.is_some_and(|local| local.contains(id))
    }

    /// Reads a whole blob.
    pub fn read(&self, kind: BlobKind, chunk: &ChunkRef) -> Result<Arc<[u8]>> {
        if kind != BlobKind::Page {
            return self.reader.read(kind, chunk);
        }
        if let Some(page) = self.kept_page(chunk) {
            return Ok(page);
        }
        let page = self.reader.read(kind, chunk)?;
        self.keep_page(chunk.id, page.clone());
        Ok(page)
    }

    /// Keeps a page in memory that is read, or was made, and will be wanted again.
    pub fn keep_page(&self, id: BlobId, page: Arc<[u8]>) {
        self.pages.lock().put(id, page);
    }

    fn kept_page(&self, chunk: &ChunkRef) -> Option<Arc<[u8]>> {
        self.pages.lock().get(&chunk.id).filter(|page| page.len() == chunk.len as usize)
    }

    /// Appends `len` bytes from `offset` on to `out`, fewer where the blob ends, opening only the
    /// frames that hold them. `out` is as before when this fails.
    pub fn read_range(&self, kind: BlobKind, chunk: &ChunkRef, offset: u32, len: u32, out: &mut Vec<u8>) -> Result<()> {
        let before = out.len();
        let read = self.reader.read_range(kind, chunk, offset, len, out);
        if read.is_err() {
            out.truncate(before);
        }
        read
    }

    /// As [`read_range`](Self::read_range) from memory alone; false (and `out` is as before) when it is not all there.
    pub fn read_range_remembered(&self, chunk: &ChunkRef, offset: u32, len: u32, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        let is_there = Part::of(chunk, offset, len)
            .is_none_or(|part| self.reader.remembers(&part) && self.reader.copy_remembered(&part, out).is_none());
        if !is_there {
            out.truncate(before);
        }
        is_there
    }

    /// A whole blob, if it is in memory.
    pub fn remembered(&self, chunk: &ChunkRef) -> Option<Arc<[u8]>> {
        self.kept_page(chunk).or_else(|| self.reader.remembered(chunk))
    }

    /// Keeps at most so many bytes of opened content in memory from now on.
    pub fn limit_memory(&self, bytes_max: usize) {
        self.reader.frames.lock().limit(bytes_max);
    }

    /// Whether the store's objects are as near as the local disk.
    pub fn is_local(&self) -> bool {
        self.reader.source.is_local()
    }

    /// Reads many whole blobs in few requests; answers in order.
    pub fn read_many(&self, kind: BlobKind, chunks: &[ChunkRef]) -> Vec<Result<Arc<[u8]>>> {
        if kind != BlobKind::Page {
            return self.reader.read_many(kind, chunks);
        }
        let mut answers: Vec<Option<Result<Arc<[u8]>>>> =
            chunks.iter().map(|chunk| self.kept_page(chunk).map(Ok)).collect();
        let missing: Vec<usize> = (0..chunks.len()).filter(|number| answers[*number].is_none()).collect();
        let wanted: Vec<ChunkRef> = missing.iter().map(|number| chunks[*number]).collect();
        for (number, page) in missing.into_iter().zip(self.reader.read_many(kind, &wanted)) {
            if let Ok(page) = &page {
                self.keep_page(chunks[number].id, page.clone());
            }
            answers[number] = Some(page);
        }
        let unasked = |(answer, chunk): (Option<_>, &ChunkRef)| answer.unwrap_or_else(|| self.reader.read(kind, chunk));
        answers.into_iter().zip(chunks).map(unasked).collect()
    }

    /// Reads and opens a whole object that is no blob, of at most 4 MiB and mostly below 64 KiB; fetched ones are kept
    /// in the cache.
    pub fn read_object<T>(&self, key: &ObjectKey, open: impl Fn(&[u8]) -> std::result::Result<T, Fault>) -> Result<T> {
        let mut outcome = Err(ReadError::Absent { looked: String::new() });
        for len in OBJECT_READS {
            outcome = self.reader.source.read(&Span { key: key.clone(), offset: 0, len }, Extent::Exact, &open);
            if !matches!(outcome, Err(ReadError::Fault { .. })) {
                break;
            }
        }
        outcome.map_err(|error| match error {
            ReadError::Absent { .. } => StoreError::NotFound { key: key.clone() }.into(),
            ReadError::Fault { object, fault } => BlobError::DamagedObject { object, fault },
            ReadError::Failed(error) => error,
        })
    }

    /// Takes an object that was just uploaded into the disk cache, if there is one.
    pub fn keep(&self, key: &ObjectKey, sealed: &Sealed) {
        self.reader.source.keep_whole(key, sealed.as_bytes());
    }

    /// Keeps these objects in the disk cache, however much there is, and at most `bytes_max` bytes of all others.
    pub fn pin(&self, objects: HashSet<ObjectKey>, bytes_max: u64) {
        self.reader.source.pin(objects, bytes_max);
    }

    /// Bytes in the disk cache.
    pub fn cache_bytes(&self) -> u64 {
        self.reader.source.cached_bytes()
    }

    /// Starts reading blobs that will be wanted soon, and returns. This is advice: what fails, or is
    /// too much, is left to whoever reads. What a local store has is near enough.
    pub fn prefetch(&self, kind: BlobKind, chunks: Vec<ChunkRef>) {
        if !self.is_local() {
            self.prefetcher.push(kind, chunks);
        }
    }
}

impl Reader {
    fn local(&self, id: &BlobId) -> Option<Result<Vec<u8>>> {
        let local = self.local.read().clone()?;
        local.get(id)
    }

    fn read(&self, kind: BlobKind, chunk: &ChunkRef) -> Result<Arc<[u8]>> {
        if let Some(whole) = self.remembered(chunk) {
            return Ok(whole);
        }
        if let Some(sealed) = self.local(&chunk.id) {
            return self.open_local(kind, chunk, &sealed?);
        }
        let location = self.locate(kind, chunk, self.index.lookup(&chunk.id)?)?;
        self.read_stored(kind, chunk, &location)
    }

    fn read_many(&self, kind: BlobKind, chunks: &[ChunkRef]) -> Vec<Result<Arc<[u8]>>> {
        let near = |chunk: &ChunkRef| {
            let remembered = self.remembered(chunk).map(Ok);
            remembered.or_else(|| Some(self.local(&chunk.id)?.and_then(|sealed| self.open_local(kind, chunk, &sealed))))
        };
        let mut answers: Vec<Option<Result<Arc<[u8]>>>> = chunks.iter().map(near).collect();
        let far: Vec<usize> = (0..chunks.len()).filter(|number| answers[*number].is_none()).collect();
        let ids: Vec<BlobId> = far.iter().map(|number| chunks[*number].id).collect();
        let located = match self.index.lookup_many(&ids) {
            Ok(located) => located,
            Err(error) => {
                let failed = |answer: Option<_>| answer.unwrap_or_else(|| Err(error.clone()));
                return answers.into_iter().map(failed).collect();
            }
        };
        let mut found = Vec::new();
        for (number, location) in far.into_iter().zip(located) {
            match self.locate(kind, &chunks[number], location) {
                Ok(location) => found.push((number, location)),
                Err(error) => answers[number] = Some(Err(error)),
            }
        }
        let spans: Vec<Span> = found.iter().map(|(number, location)| span(&chunks[*number].id, location)).collect();
        for ((number, location), sealed) in found.into_iter().zip(self.source.read_many(&spans)) {
            let chunk = &chunks[number];
            let opened = sealed.ok().and_then(|sealed| codec::decode(&self.keys, kind, chunk, &sealed).ok());
            // What did not go well is tried alone, which heals copies and explains.
            let answer = match opened {
                Some(plaintext) => Ok(self.remember(chunk, plaintext)),
                None => self.read_stored(kind, chunk, &location),
            };
            answers[number] = Some(answer);
        }
        let unasked = |(answer, chunk): (Option<_>, &ChunkRef)| answer.unwrap_or_else(|| self.read(kind, chunk));
        answers.into_iter().zip(chunks).map(unasked).collect()
    }

    fn locate(&self, kind: BlobKind, chunk: &ChunkRef, location: Option<Location>) -> Result<Location> {
        let id = chunk.id;
        let Some(location) = location else {
            let runs = self.index.runs().len();
            return Err(BlobError::Missing { id, looked: format!("memory, the journal and {runs} location runs") });
        };
        let is_sound =
            location.kind == kind && location.len == chunk.len && u64::from(location.stored_len) <= STORED_LEN_MAX;
        if !is_sound {
            let (object, _) = location.object(&id);
            let fault = Fault::Malformed("its recorded location is of another kind or length");
            return Err(BlobError::Damaged { object: object.to_string(), id, fault });
        }
        Ok(location)
    }

    fn read_stored(&self, kind: BlobKind, chunk: &ChunkRef, location: &Location) -> Result<Arc<[u8]>> {
        let mut need = span(&chunk.id, location);
        let open = |sealed: &[u8]| self.open_stored(kind, chunk, location, sealed);
        let mut opened = self.source.read(&need, Extent::Adaptive, open);
        if let (Place::Object { .. }, Err(ReadError::Fault { fault: Fault::Length { expected, .. }, .. })) =
            (location.place, &opened)
        {
            // Another client was faster to store this object, and compressed it less well.
            need.len = (*expected).min(STORED_LEN_MAX);
            opened = self.source.read(&need, Extent::Exact, open);
        }
        let plaintext = opened.map_err(|error| blob_error(chunk.id, error))?;
        Ok(self.remember(chunk, plaintext))
    }

    /// Opens a stored blob; an object of its own may be shorter than what was asked for.
    fn open_stored(
        &self,
        kind: BlobKind,
        chunk: &ChunkRef,
        location: &Location,
        sealed: &[u8],
    ) -> std::result::Result<Vec<u8>, Fault> {
        let mut len = sealed.len();
        if matches!(location.place, Place::Object { .. }) && chunk.frame_count() > 1 {
            let layout = codec::frame_layout(&self.keys, kind, chunk, sealed, location.stored_len)?;
            len = len.min(layout.total_len() as usize);
        }
        codec::decode(&self.keys, kind, chunk, &sealed[..len])
    }

    fn read_range(&self, kind: BlobKind, chunk: &ChunkRef, offset: u32, len: u32, out: &mut Vec<u8>) -> Result<()> {
        let Some(part) = Part::of(chunk, offset, len) else { return Ok(()) };
        let Some(mut missing) = self.copy_remembered(&part, out) else { return Ok(()) };
        if chunk.frame_count() == 1 {
            part.copy(0, &self.read(kind, chunk)?, out);
            return Ok(());
        }
        let turn = self.source.is_local().then(|| self.turns[usize::from(chunk.id.as_bytes()[0]) % 16].lock());
        if turn.is_some() {
            match self.copy_remembered(&part.starting_at(missing), out) {
                Some(still_missing) => missing = still_missing,
                None => return Ok(()),
            }
        }
        for (number, frame) in (missing..).zip(self.read_frames(kind, chunk, missing, part.last)?) {
            part.copy(number, &frame, out);
            self.keep_frame(&part, number, frame);
        }
        Ok(())
    }

    fn remembers(&self, part: &Part<'_>) -> bool {
        let frames = self.frames.lock();
        (part.first..=part.last).all(|number| frames.contains(&(part.chunk.id, number)))
    }

    /// Appends what of a part is in memory, up to the first frame that is not; returns that.
    fn copy_remembered(&self, part: &Part<'_>, out: &mut Vec<u8>) -> Option<u32> {
        for number in part.first..=part.last {
            let Some(frame) = self.frames.lock().get(&(part.chunk.id, number)) else { return Some(number) };
            part.copy(number, &frame, out);
            drop(frame);
            if part.spends(number) {
                self.frames.lock().spend((part.chunk.id, number));
            }
        }
        None
    }

    fn keep_frame(&self, part: &Part<'_>, number: u32, frame: Frame) {
        let key = (part.chunk.id, number);
        let mut frames = self.frames.lock();
        frames.put(key, frame);
        if part.spends(number) {
            frames.spend(key);
        }
    }

    /// Reads the frames `first..=last` of a blob of several frames.
    fn read_frames(&self, kind: BlobKind, chunk: &ChunkRef, first: u32, last: u32) -> Result<Vec<Frame>> {
        if let Some(sealed) = self.local(&chunk.id) {
            let sealed = sealed?;
            let opened =
                codec::frame_layout(&self.keys, kind, chunk, &sealed, codec::small(sealed.len())).and_then(|layout| {
                    let (start, len) = layout.span(first, last).ok_or(NO_FRAMES)?;
                    let part = sealed.get(start as usize..).and_then(|rest| rest.get(..len as usize));
                    self.open_frames(kind, chunk, &layout, first..=last, part.unwrap_or_default())
                });
            return opened.map_err(|fault| damaged_locally(chunk.id, fault));
        }
        let location = self.locate(kind, chunk, self.index.lookup(&chunk.id)?)?;
        match self.read_stored_frames(kind, chunk, &location, first, last) {
            // The layout may be that of a copy that has been replaced since.
            Err(BlobError::Damaged { .. }) if self.layouts.lock().pop(&chunk.id).is_some() => {
                self.read_stored_frames(kind, chunk, &location, first, last)
            }
            read => read,
        }
    }

    fn read_stored_frames(
        &self,
        kind: BlobKind,
        chunk: &ChunkRef,
        location: &Location,
        first: u32,
        last: u32,
    ) -> Result<Vec<Frame>> {
        let (key, base) = location.object(&chunk.id);
        let layout = self.layout(kind, chunk, location)?;
        let Some((start, len)) = layout.span(first, last) else {
            return Err(BlobError::Damaged { object: key.to_string(), id: chunk.id, fault: NO_FRAMES });
        };
        let need = Span { key, offset: u64::from(base) + u64::from(start), len: u64::from(len).min(STORED_LEN_MAX) };
        let open = |sealed: &[u8]| self.open_frames(kind, chunk, &layout, first..=last, sealed);
        self.source.read(&need, Extent::Adaptive, open).map_err(|error| blob_error(chunk.id, error))
    }

    fn layout(&self, kind: BlobKind, chunk: &ChunkRef, location: &Location) -> Result<Arc<FrameLayout>> {
        if let Some(layout) = self.layouts.lock().get(&chunk.id) {
            return Ok(Arc::clone(layout));
        }
        let whole = span(&chunk.id, location);
        let need = Span { len: chunk.table_len() as u64, ..whole };
        let open = |front: &[u8]| codec::frame_layout(&self.keys, kind, chunk, front, location.stored_len);
        let layout = self.source.read(&need, Extent::Exact, open).map_err(|error| blob_error(chunk.id, error))?;
        let layout = Arc::new(layout);
        self.layouts.lock().put(chunk.id, Arc::clone(&layout));
        Ok(layout)
    }

    /// Opens the frames `numbers` from exactly their sealed bytes.
    fn open_frames(
        &self,
        kind: BlobKind,
        chunk: &ChunkRef,
        layout: &FrameLayout,
        numbers: std::ops::RangeInclusive<u32>,
        sealed: &[u8],
    ) -> std::result::Result<Vec<Frame>, Fault> {
        let mut rest = sealed;
        let mut frames = Vec::new();
        for number in numbers {
            let (_, len) = layout.span(number, number).ok_or(NO_FRAMES)?;
            let Some((frame, behind)) = rest.split_at_checked(len as usize) else {
                return Err(Fault::Length { expected: len.into(), found: rest.len() as u64 });
            };
            rest = behind;
            let mut buffer = self.frames.lock().buffer();
            let inside = codec::decode_frame(&self.keys, kind, chunk, number, frame, &mut buffer)?;
            frames.push(Frame::Part(Arc::new(Opened { buffer, inside })));
        }
        Ok(frames)
    }

    fn open_local(&self, kind: BlobKind, chunk: &ChunkRef, sealed: &[u8]) -> Result<Arc<[u8]>> {
        let plaintext =
            codec::decode(&self.keys, kind, chunk, sealed).map_err(|fault| damaged_locally(chunk.id, fault))?;
        Ok(self.remember(chunk, plaintext))
    }

    fn remembered(&self, chunk: &ChunkRef) -> Option<Arc<[u8]>> {
        let mut frames = self.frames.lock();
        if chunk.frame_count() == 1 {
            return frames.get(&(chunk.id, 0)).map(|frame| match frame {
                Frame::Whole(blob) => blob,
                Frame::Part(_) => Arc::from(&*frame),
            });
        }
        if !(0..chunk.frame_count()).all(|number| frames.contains(&(chunk.id, number))) {
            return None;
        }
        let mut whole = Vec::with_capacity(chunk.len as usize);
        for number in 0..chunk.frame_count() {
            whole.extend_from_slice(&frames.get(&(chunk.id, number))?);
        }
        Some(whole.into())
    }

    fn remember(&self, chunk: &ChunkRef, plaintext: Vec<u8>) -> Arc<[u8]> {
        let whole: Arc<[u8]> = plaintext.into();
        let mut frames = self.frames.lock();
        if chunk.frame_count() == 1 {
            frames.put((chunk.id, 0), Frame::Whole(Arc::clone(&whole)));
        } else {
            for (number, frame) in (0..).zip(whole.chunks(FRAME_LEN)) {
                let opened = Opened { buffer: frame.to_vec(), inside: 0..frame.len() };
                frames.put((chunk.id, number), Frame::Part(Arc::new(opened)));
            }
        }
        whole
    }
}

const NO_FRAMES: Fault = Fault::Malformed("a frame table cut short");

/// All of a blob's sealed form.
fn span(id: &BlobId, location: &Location) -> Span {
    let (key, offset) = location.object(id);
    Span { key, offset: offset.into(), len: location.stored_len.into() }
}

fn damaged_locally(id: BlobId, fault: Fault) -> BlobError {
    BlobError::Damaged { object: "the journal".into(), id, fault }
}

fn blob_error(id: BlobId, error: ReadError) -> BlobError {
    match error {
        ReadError::Absent { looked } => BlobError::Missing { id, looked },
        ReadError::Fault { object, fault } => BlobError::Damaged { object, id, fault },
        ReadError::Failed(error) => error,
    }
}
