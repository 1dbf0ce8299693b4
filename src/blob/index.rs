//! Where every blob is: the location runs in force, and what is recorded here but in no run yet.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::location::{Location, run_key};
use super::run::{FRAME_RECORDS, Records, RunRef, SMALL_RUN_RECORDS};
use super::source::{Extent, ReadError, Source, Span};
use super::{BlobError, Fault, Result};
use crate::base::ids::{BlobId, RunId};
use crate::crypto::Keys;

/// Frames of large runs kept in memory, 64 KiB each.
const FRAMES_MAX: NonZeroUsize = match NonZeroUsize::new(256) {
    Some(count) => count,
    None => NonZeroUsize::MIN,
};
/// Frames fetched together by [`LocationIndex::lookup_many`].
const BATCH_FRAMES: usize = 64;
/// Interpolation is given up for bisection after so many frames.
const INTERPOLATIONS_MAX: u32 = 3;

/// Answers where a blob is. Newer runs win over older ones, and what is recorded over all runs.
pub struct LocationIndex {
    pub(super) source: Arc<Source>,
    pub(super) keys: Keys,
    state: Mutex<State>,
}

struct State {
    /// Newest last.
    runs: Arc<[RunRef]>,
    /// Runs of a version that is being looked at and is not part of ours.
    foreign: Arc<[RunRef]>,
    /// Runs in which blobs are looked for before all others: ours may name objects that are gone.
    newer: Arc<[RunRef]>,
    /// The number of the garbage collection that is known.
    collection: u64,
    recorded: HashMap<BlobId, Location>,
    /// Small runs in force that were read.
    small: HashMap<RunId, Arc<Records>>,
    frames: LruCache<(RunId, u64), Arc<Records>>,
}

impl LocationIndex {
    /// An index without runs.
    pub fn new(source: Arc<Source>, keys: Keys) -> Self {
        let state = State {
            runs: Arc::from([]),
            foreign: Arc::from([]),
            newer: Arc::from([]),
            collection: 0,
            recorded: HashMap::new(),
            small: HashMap::new(),
            frames: LruCache::new(FRAMES_MAX),
        };
        Self { source, keys, state: Mutex::new(state) }
    }

    /// Puts other runs in force, newest last. What is recorded stays.
    pub fn set_runs(&self, runs: Vec<RunRef>) {
        let mut state = self.state.lock();
        let (foreign, newer) = (Arc::clone(&state.foreign), Arc::clone(&state.newer));
        state.small.retain(|id, _| runs.iter().chain(foreign.iter()).chain(newer.iter()).any(|run| run.id == *id));
        state.runs = runs.into();
    }

    /// Lets blobs be found that only these runs have, without counting them as stored for our versions.
    pub fn set_foreign(&self, runs: Vec<RunRef>) {
        self.state.lock().foreign = runs.into();
    }

    /// Lets blobs be looked for in these runs before all others, without counting them as stored for our versions.
    pub fn set_newer(&self, runs: Vec<RunRef>) {
        self.state.lock().newer = runs.into();
    }

    /// Takes the number of the newest garbage collection that is known.
    pub fn set_collection(&self, number: u64) {
        self.state.lock().collection = number;
    }

    /// The generation for an object that is stored now: even ones for new blobs, odd ones for those that are stored
    /// anew. Each collection makes way for others, so that no name that was collected is ever used again. `None` when
    /// the generation `before` it may not be left behind by a greater one; then a pack is the place.
    pub fn fresh_generation(&self, before: Option<u16>) -> Option<u16> {
        let number = self.state.lock().collection % (1 << 15);
        let even = u16::try_from(number * 2).unwrap_or(0);
        match before {
            None => Some(even),
            Some(before) => Some(even + 1).filter(|odd| before < *odd),
        }
    }

    /// Whether a generation is one for objects that are stored now.
    pub fn is_fresh(&self, generation: u16) -> bool {
        u64::from(generation / 2) == self.state.lock().collection % (1 << 15)
    }

    /// The runs in force, newest last.
    pub fn runs(&self) -> Vec<RunRef> {
        self.state.lock().runs.to_vec()
    }

    /// Records where a blob is; it is found from now on.
    pub fn record(&self, id: BlobId, location: Location) {
        self.state.lock().recorded.insert(id, location);
    }

    /// What is recorded and in no run yet, sorted by id: the content of the next run.
    pub fn recorded(&self) -> Vec<(BlobId, Location)> {
        let mut records: Vec<_> = self.state.lock().recorded.iter().map(|(id, location)| (*id, *location)).collect();
        records.sort_unstable_by_key(|(id, _)| *id);
        records
    }

    /// Puts `run`, built of `records`, in force as the newest, and forgets the records that it
    /// holds (not those recorded otherwise in the meantime).
    pub fn adopt_run(&self, run: RunRef, records: &[(BlobId, Location)]) {
        let mut state = self.state.lock();
        state.runs = state.runs.iter().copied().chain([run]).collect();
        for (id, location) in records {
            if state.recorded.get(id) == Some(location) {
                state.recorded.remove(id);
            }
        }
    }

    /// Forgets a recorded blob (what it was for came to nothing, or it was collected).
    pub fn forget(&self, id: &BlobId) {
        self.state.lock().recorded.remove(id);
    }

    /// Where the blob is; `None` when no run has it and it is not recorded.
    pub fn lookup(&self, id: &BlobId) -> Result<Option<Location>> {
        let (foreign, newer, recorded) = {
            let state = self.state.lock();
            (Arc::clone(&state.foreign), Arc::clone(&state.newer), state.recorded.contains_key(id))
        };
        if !newer.is_empty()
            && !recorded
            && let Some(location) = self.find(&newer, id)?
        {
            return Ok(Some(location));
        }
        match self.lookup_own(id)? {
            None if !foreign.is_empty() => self.find(&foreign, id),
            found => Ok(found),
        }
    }

    /// As [`lookup`](Self::lookup) in the runs in force alone.
    pub fn lookup_own(&self, id: &BlobId) -> Result<Option<Location>> {
        let runs = {
            let state = self.state.lock();
            if let Some(location) = state.recorded.get(id) {
                return Ok(Some(*location));
            }
            Arc::clone(&state.runs)
        };
        self.find(&runs, id)
    }

    fn find(&self, runs: &[RunRef], id: &BlobId) -> Result<Option<Location>> {
        for run in runs.iter().rev() {
            if let Some(location) = self.find_if_there(run, id)? {
                return Ok(Some(location));
            }
        }
        Ok(None)
    }

    /// As [`find_in`](Self::find_in); while newer runs are known, one that is gone was collected.
    fn find_if_there(&self, run: &RunRef, id: &BlobId) -> Result<Option<Location>> {
        match self.find_in(run, id) {
            Err(BlobError::MissingObject { .. }) if !self.state.lock().newer.is_empty() => Ok(None),
            found => found,
        }
    }

    /// As [`lookup`](Self::lookup) for many at once, in few requests; answers in order.
    pub fn lookup_many(&self, ids: &[BlobId]) -> Result<Vec<Option<Location>>> {
        let (runs, mut answers) = {
            let state = self.state.lock();
            let recorded = ids.iter().map(|id| state.recorded.get(id).copied());
            let runs: Vec<RunRef> =
                state.foreign.iter().chain(state.runs.iter()).chain(state.newer.iter()).copied().collect();
            (runs, recorded.collect::<Vec<_>>())
        };
        let mut open: Vec<usize> = (0..ids.len()).filter(|number| answers[*number].is_none()).collect();
        if open.is_empty() {
            return Ok(answers);
        }
        open.sort_unstable_by_key(|number| ids[*number]);
        self.load_small(&runs);
        for run in runs.iter().rev() {
            let mut next = 0;
            while next < open.len() {
                let served = self.load_frames(run, open[next..].iter().map(|number| &ids[*number]));
                for number in &open[next..next + served] {
                    answers[*number] = self.find_if_there(run, &ids[*number])?;
                }
                next += served;
            }
            open.retain(|number| answers[*number].is_none());
        }
        Ok(answers)
    }

    /// Hands every record of a run to `each`.
    pub fn each_record(&self, run: &RunRef, each: &mut dyn FnMut(BlobId, Location)) -> Result<()> {
        for frame in 0..run.frame_count() {
            let records = self.read_frames(run, frame, 1)?;
            for position in 0..records.len() {
                let location =
                    records.location(position).map_err(|fault| BlobError::damaged_object(&run_key(run.id), fault))?;
                each(records.id(position), location);
            }
        }
        Ok(())
    }

    fn find_in(&self, run: &RunRef, id: &BlobId) -> Result<Option<Location>> {
        let (mut low, mut high) = (0, run.frame_count());
        let is_small = run.count <= SMALL_RUN_RECORDS;
        let mut tries = 0;
        while low < high {
            let frame = match tries {
                _ if is_small => 0,
                0..INTERPOLATIONS_MAX => likely_frame(run, id).clamp(low, high - 1),
                _ => low.midpoint(high),
            };
            tries += 1;
            let records = if is_small { self.small_run(run)? } else { self.frame(run, frame)? };
            if is_small || (records.id(0) <= *id && *id <= records.id(records.len().saturating_sub(1))) {
                return records.find(id).map_err(|fault| BlobError::damaged_object(&run_key(run.id), fault));
            }
            if *id < records.id(0) { high = frame } else { low = frame + 1 }
        }
        Ok(None)
    }

    fn small_run(&self, run: &RunRef) -> Result<Arc<Records>> {
        if let Some(records) = self.state.lock().small.get(&run.id) {
            return Ok(Arc::clone(records));
        }
        let records = Arc::new(self.read_frames(run, 0, run.frame_count())?);
        self.keep_small(run, &records);
        Ok(records)
    }

    fn keep_small(&self, run: &RunRef, records: &Arc<Records>) {
        let mut state = self.state.lock();
        if state.runs.contains(run) || state.foreign.contains(run) || state.newer.contains(run) {
            state.small.insert(run.id, Arc::clone(records));
        }
    }

    fn frame(&self, run: &RunRef, number: u64) -> Result<Arc<Records>> {
        if let Some(records) = self.state.lock().frames.get(&(run.id, number)) {
            return Ok(Arc::clone(records));
        }
        let records = Arc::new(self.read_frames(run, number, 1)?);
        self.state.lock().frames.put((run.id, number), Arc::clone(&records));
        Ok(records)
    }

    /// Reads `count` frames from `first` on in one request.
    pub(super) fn read_frames(&self, run: &RunRef, first: u64, count: u64) -> Result<Records> {
        let span = frames_span(run, first, count);
        let opened = self.source.read(&span, Extent::Exact, |sealed| self.open_frames(run, first, &span, sealed));
        opened.map_err(|error| match error {
            ReadError::Absent { .. } => BlobError::MissingObject { object: span.key.to_string() },
            ReadError::Fault { object, fault } => BlobError::DamagedObject { object, fault },
            ReadError::Failed(error) => error,
        })
    }

    fn open_frames(&self, run: &RunRef, first: u64, span: &Span, sealed: &[u8]) -> std::result::Result<Records, Fault> {
        if sealed.len() as u64 != span.len {
            return Err(Fault::Length { expected: span.len, found: sealed.len() as u64 });
        }
        Records::open(&self.keys, run, first, sealed)
    }

    /// Reads the small runs that were not read yet, in parallel. What fails here is read again, and
    /// reported, by who needs it.
    fn load_small(&self, runs: &[RunRef]) {
        let missing: Vec<RunRef> = {
            let state = self.state.lock();
            let is_missing = |run: &&RunRef| run.count <= SMALL_RUN_RECORDS && !state.small.contains_key(&run.id);
            runs.iter().filter(is_missing).copied().collect()
        };
        let spans: Vec<Span> = missing.iter().map(|run| frames_span(run, 0, run.frame_count())).collect();
        for ((run, span), sealed) in missing.iter().zip(&spans).zip(self.source.read_many(&spans)) {
            if let Some(records) = sealed.ok().and_then(|sealed| self.open_frames(run, 0, span, &sealed).ok()) {
                self.keep_small(run, &Arc::new(records));
            }
        }
    }

    /// Reads the frames of a large run that likely hold the first of `ids` (sorted), in parallel;
    /// says for how many of them.
    fn load_frames<'a>(&self, run: &RunRef, ids: impl Iterator<Item = &'a BlobId>) -> usize {
        if run.count <= SMALL_RUN_RECORDS {
            return ids.count();
        }
        let mut frames = BTreeSet::new();
        let mut served = 0;
        for id in ids {
            let frame = likely_frame(run, id);
            if frames.len() == BATCH_FRAMES && !frames.contains(&frame) {
                break;
            }
            frames.insert(frame);
            served += 1;
        }
        frames.retain(|frame| !self.state.lock().frames.contains(&(run.id, *frame)));
        let spans: Vec<Span> = frames.iter().map(|frame| frames_span(run, *frame, 1)).collect();
        for ((frame, span), sealed) in frames.iter().zip(&spans).zip(self.source.read_many(&spans)) {
            if let Some(records) = sealed.ok().and_then(|sealed| self.open_frames(run, *frame, span, &sealed).ok()) {
                self.state.lock().frames.put((run.id, *frame), Arc::new(records));
            }
        }
        served
    }
}

fn frames_span(run: &RunRef, first: u64, count: u64) -> Span {
    let (offset, len) = run.span(first, count);
    Span { key: run_key(run.id), offset, len }
}

/// The frame that holds `id` if ids are evenly spread, which keyed hashes are.
fn likely_frame(run: &RunRef, id: &BlobId) -> u64 {
    let prefix = id.0.first_chunk().map_or(0, |prefix| u64::from_be_bytes(*prefix));
    let position = (u128::from(prefix) * u128::from(run.count)) >> 64;
    u64::try_from(position).unwrap_or(u64::MAX) / FRAME_RECORDS as u64
}
