//! Ranges of sealed objects, from wherever they are nearest: the outbox, the disk cache, fetched
//! windows in memory, the store. Fetches round a miss, puts neighbours together, and lets all who
//! want the same bytes wait for one fetch.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::{Condvar, Mutex};

use super::cache::Cache;
use super::memory::ByteLru;
use super::outbox::Outbox;
use super::plan::{self, Group, Reach, WINDOW_BYTES, WINDOW_LEN};
use super::{BlobError, Fault, Result};
use crate::store::{ObjectKey, ObjectStore, RangeRequest, StoreError};

pub use super::plan::Span;

/// Fetched windows kept in memory when they cannot be kept on disk.
const WINDOWS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Objects whose reach is remembered.
const REACHES_MAX: NonZeroUsize = match NonZeroUsize::new(1024) {
    Some(count) => count,
    None => NonZeroUsize::MIN,
};

/// How often a batch waits for the flights of others before it reads range by range.
const ROUNDS_MAX: usize = 16;

/// How much round a missing range is fetched along with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The windows that hold the range, no more.
    Exact,
    /// A block that grows with every miss nearby.
    Adaptive,
}

/// Why a range could not be read and opened.
#[derive(Debug, Clone)]
pub enum ReadError {
    /// There is no such object; every place could be asked.
    Absent {
        /// The places asked.
        looked: String,
    },
    /// The bytes are damaged, in every place that has them.
    Fault {
        /// The place of the copy that was looked at last.
        object: String,
        /// What is wrong.
        fault: Fault,
    },
    /// The store or the disk failed.
    Failed(BlobError),
}

/// Reads ranges of objects.
pub struct Source {
    store: Arc<dyn ObjectStore>,
    outbox: Arc<Outbox>,
    cache: Option<Cache>,
    windows: Mutex<Windows>,
    reaches: Mutex<LruCache<ObjectKey, Reach>>,
    flights: Mutex<Vec<Arc<Flight>>>,
}

/// Fetched bytes, by object and number of the window.
type Windows = ByteLru<(ObjectKey, u64), Arc<[u8]>>;

/// A fetch under way.
struct Flight {
    span: Span,
    landed: Mutex<Option<std::result::Result<Arc<Vec<u8>>, StoreError>>>,
    changed: Condvar,
}

impl Flight {
    fn wait(&self) -> std::result::Result<Arc<Vec<u8>>, StoreError> {
        let mut landed = self.landed.lock();
        loop {
            if let Some(result) = landed.as_ref() {
                return result.clone();
            }
            self.changed.wait(&mut landed);
        }
    }

    /// The part `need` of what was fetched; shorter, or empty, where the object ends.
    fn slice(&self, bytes: &[u8], need: &Span) -> Option<Vec<u8>> {
        if need.offset < self.span.offset || need.end() > self.span.end() {
            return None;
        }
        let start = usize::try_from(need.offset - self.span.offset).ok()?.min(bytes.len());
        let end = usize::try_from(need.end() - self.span.offset).ok()?.min(bytes.len());
        Some(bytes[start..end].to_vec())
    }
}

/// Own flights; whatever happens, they land, or those who wait for them would wait for ever.
struct Flights<'a> {
    source: &'a Source,
    mine: Vec<Arc<Flight>>,
}

impl Flights<'_> {
    fn land(&mut self, number: usize, result: std::result::Result<Arc<Vec<u8>>, StoreError>) {
        let flight = &self.mine[number];
        self.source.flights.lock().retain(|other| !Arc::ptr_eq(other, flight));
        flight.landed.lock().get_or_insert(result);
        flight.changed.notify_all();
    }
}

impl Drop for Flights<'_> {
    fn drop(&mut self) {
        for number in 0..self.mine.len() {
            if self.mine[number].landed.lock().is_none() {
                let store = self.source.store.address().to_owned();
                self.land(number, Err(StoreError::Unreachable { store, reason: "the request was given up".into() }));
            }
        }
    }
}

impl Source {
    /// A source over `store`; the disk cache is left aside when the store is local.
    pub fn new(store: Arc<dyn ObjectStore>, outbox: Arc<Outbox>, cache: Option<Cache>) -> Self {
        let cache = cache.filter(|_| !store.is_local());
        Self {
            store,
            outbox,
            cache,
            windows: Mutex::new(ByteLru::new(WINDOWS_BYTES_MAX)),
            reaches: Mutex::new(LruCache::new(REACHES_MAX)),
            flights: Mutex::new(Vec::new()),
        }
    }

    /// Reads a range and opens it with `open`. When that finds a fault, the store is asked once
    /// more, past all copies; if its bytes are good, the copies are dropped, else the fault is
    /// reported.
    pub fn read<T>(
        &self,
        need: &Span,
        extent: Extent,
        open: impl Fn(&[u8]) -> std::result::Result<T, Fault>,
    ) -> std::result::Result<T, ReadError> {
        let near = self.nearest(need, extent);
        let outbox_holds = self.outbox.contains(&need.key);
        let fault = match near {
            Ok(bytes) => match open(&bytes) {
                Ok(value) => return Ok(value),
                Err(fault) => fault,
            },
            Err(error) => return Err(self.explain(error)),
        };
        match self.store.get_range(&request(need)) {
            Ok(bytes) => match open(&bytes) {
                Ok(value) => {
                    self.invalidate(&need.key);
                    Ok(value)
                }
                Err(fault) => Err(ReadError::Fault { object: need.key.to_string(), fault }),
            },
            Err(error) if !outbox_holds && !matches!(error, StoreError::NotFound { .. }) => {
                Err(ReadError::Failed(error.into()))
            }
            Err(_) => Err(ReadError::Fault { object: format!("{} in the outbox or cache", need.key), fault }),
        }
    }

    /// Reads several ranges, neighbours together and in parallel; answers in order. Faults found in
    /// these bytes later are for [`read`](Self::read) to heal.
    pub fn read_many(&self, needs: &[Span]) -> Vec<Result<Vec<u8>>> {
        let align = |need: &Span| if self.store.is_local() { need.clone() } else { need.aligned() };
        let mut answers: Vec<Option<Result<Vec<u8>>>> = vec![None; needs.len()];
        for _ in 0..ROUNDS_MAX {
            for (answer, need) in answers.iter_mut().zip(needs).filter(|(answer, _)| answer.is_none()) {
                *answer = self.on_disk(need).transpose();
            }
            let missing = (0..needs.len()).filter(|number| answers[*number].is_none());
            let groups = plan::coalesce(missing.map(|number| (number, align(&needs[number]))).collect());
            if groups.is_empty() {
                break;
            }
            for (group, flight) in groups.iter().zip(self.fetch(&groups)) {
                // Someone else's flight may bring a part only; the next round asks for the rest.
                let landed = flight.wait();
                for member in &group.members {
                    answers[*member] = match &landed {
                        Ok(bytes) => flight.slice(bytes, &needs[*member]).map(Ok),
                        Err(error) => Some(Err(error.clone().into())),
                    };
                }
            }
        }
        let alone = |(answer, need): (Option<_>, &Span)| answer.unwrap_or_else(|| self.nearest(need, Extent::Adaptive));
        answers.into_iter().zip(needs).map(alone).collect()
    }

    /// Takes a whole object that was just uploaded into the disk cache, if there is one.
    pub(super) fn keep_whole(&self, key: &ObjectKey, bytes: &[u8]) {
        if let Some(cache) = &self.cache {
            cache.write(key, 0, bytes);
        }
    }

    /// Whether the store is on the local disk.
    pub(super) fn is_local(&self) -> bool {
        self.store.is_local()
    }

    /// See [`Cache::pin`].
    pub(super) fn pin(&self, objects: HashSet<ObjectKey>, bytes_max: u64) {
        if let Some(cache) = &self.cache {
            cache.pin(objects, bytes_max);
        }
    }

    /// Bytes in the disk cache.
    pub(super) fn cached_bytes(&self) -> u64 {
        self.cache.as_ref().map_or(0, Cache::used_bytes)
    }

    /// Whether an object is in the outbox.
    pub fn is_waiting(&self, key: &ObjectKey) -> bool {
        self.outbox.contains(key)
    }

    /// Drops every copy of an object but the outbox's.
    fn invalidate(&self, key: &ObjectKey) {
        self.windows.lock().retain(|(object, _)| object != key);
        if let Some(cache) = &self.cache {
            cache.invalidate(key);
        }
    }

    fn nearest(&self, need: &Span, extent: Extent) -> Result<Vec<u8>> {
        if let Some(bytes) = self.on_disk(need)? {
            return Ok(bytes);
        }
        if self.store.is_local() {
            return Ok(self.store.get_range(&request(need))?);
        }
        loop {
            if let Some(bytes) = self.kept(need) {
                return Ok(bytes);
            }
            let mut flights = self.flights.lock();
            let under_way = flights.iter().find(|flight| flight.span.overlaps(need)).cloned();
            if let Some(flight) = under_way {
                drop(flights);
                if let Some(bytes) = flight.slice(&flight.wait()?, need) {
                    return Ok(bytes);
                }
                continue;
            }
            if self.has(need) {
                continue;
            }
            let span = self.span_to_fetch(need, extent, &flights);
            let mut mine = self.take_off(&mut flights, vec![span]);
            drop(flights);
            let result = self.store.get_range(&request(&mine.mine[0].span)).map(Arc::new);
            self.keep(&mut mine, 0, &result);
            let slice = mine.mine[0].slice(&result?, need);
            return Ok(slice.unwrap_or_default());
        }
    }

    /// Fetches each group in one request, all in parallel. The flight for a group some of which is
    /// on its way for someone else already is theirs, and may not have landed yet.
    fn fetch(&self, groups: &[Group]) -> Vec<Arc<Flight>> {
        let mut flights = self.flights.lock();
        let theirs = |group: &Group| flights.iter().find(|flight| flight.span.overlaps(&group.span)).cloned();
        let theirs: Vec<_> =
            groups.iter().map(|group| if self.store.is_local() { None } else { theirs(group) }).collect();
        let spans =
            groups.iter().zip(&theirs).filter(|(_, theirs)| theirs.is_none()).map(|(group, _)| group.span.clone());
        let mut mine = self.take_off(&mut flights, spans.collect());
        drop(flights);
        let requests: Vec<_> = mine.mine.iter().map(|flight| request(&flight.span)).collect();
        let results = if requests.is_empty() { Vec::new() } else { self.store.get_many(&requests) };
        for (number, result) in results.into_iter().enumerate().take(requests.len()) {
            self.keep(&mut mine, number, &result.map(Arc::new));
        }
        let mut own = mine.mine.iter();
        theirs.into_iter().filter_map(|theirs| theirs.or_else(|| own.next().cloned())).collect()
    }

    fn take_off(&self, flights: &mut Vec<Arc<Flight>>, spans: Vec<Span>) -> Flights<'_> {
        let take_off = |span| Arc::new(Flight { span, landed: Mutex::new(None), changed: Condvar::new() });
        let mine: Vec<_> = spans.into_iter().map(take_off).collect();
        flights.extend(mine.iter().cloned());
        Flights { source: self, mine }
    }

    /// Keeps what was fetched and wakes those who wait for it, in this order.
    fn keep(&self, mine: &mut Flights<'_>, number: usize, result: &std::result::Result<Arc<Vec<u8>>, StoreError>) {
        let span = mine.mine[number].span.clone();
        if let (Ok(bytes), false) = (result, self.store.is_local()) {
            let is_kept = self.cache.as_ref().is_some_and(|cache| cache.write(&span.key, span.offset, bytes));
            if !is_kept {
                let mut windows = self.windows.lock();
                for (window, part) in (span.offset / WINDOW_LEN..).zip(bytes.chunks(WINDOW_BYTES)) {
                    windows.put((span.key.clone(), window), Arc::from(part));
                }
            }
        }
        mine.land(number, result.clone());
    }

    fn span_to_fetch(&self, need: &Span, extent: Extent, flights: &[Arc<Flight>]) -> Span {
        if extent == Extent::Exact {
            return need.aligned();
        }
        let reach_len = {
            let mut reaches = self.reaches.lock();
            reaches.get_or_insert_mut(need.key.clone(), Reach::default).grow(need.offset)
        };
        plan::extend(need, reach_len, |offset| {
            let window = Span { key: need.key.clone(), offset, len: WINDOW_LEN };
            !self.has(&window) && !flights.iter().any(|flight| flight.span.overlaps(&window))
        })
    }

    fn on_disk(&self, need: &Span) -> Result<Option<Vec<u8>>> {
        if let Some(bytes) = self.outbox.read_range(&need.key, need.offset, need.len)? {
            return Ok(Some(bytes));
        }
        Ok(if self.store.is_local() { None } else { self.kept(need) })
    }

    fn has(&self, need: &Span) -> bool {
        if self.cache.as_ref().is_some_and(|cache| cache.has(&need.key, need.offset, need.len)) {
            return true;
        }
        let windows = self.windows.lock();
        window_numbers(need).all(|window| windows.contains(&(need.key.clone(), window)))
    }

    fn kept(&self, need: &Span) -> Option<Vec<u8>> {
        let cached = self.cache.as_ref().and_then(|cache| cache.read(&need.key, need.offset, need.len));
        if cached.is_some() {
            return cached;
        }
        let mut windows = self.windows.lock();
        let mut bytes = Vec::new();
        for window in window_numbers(need) {
            bytes.extend_from_slice(&windows.get(&(need.key.clone(), window))?);
        }
        let start = usize::try_from(need.offset % WINDOW_LEN).ok()?.min(bytes.len());
        let end = usize::try_from(need.offset % WINDOW_LEN + need.len).ok()?.min(bytes.len());
        Some(bytes[start..end].to_vec())
    }

    fn explain(&self, error: BlobError) -> ReadError {
        match error {
            BlobError::Store(StoreError::NotFound { key }) => {
                ReadError::Absent { looked: format!("{key} in the outbox, the cache and {}", self.store.address()) }
            }
            other => ReadError::Failed(other),
        }
    }
}

fn request(span: &Span) -> RangeRequest {
    RangeRequest { key: span.key.clone(), offset: span.offset, len: span.len }
}

fn window_numbers(need: &Span) -> std::ops::Range<u64> {
    need.offset / WINDOW_LEN..need.end().div_ceil(WINDOW_LEN)
}
