//! Watches whether the store answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{
    ETag, Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, RangeRequest, Result, SealedFile, StoreError,
};
use crate::crypto::Sealed;

/// A request that is older than this, and than what its bytes need, is unanswered.
const PATIENCE: Duration = Duration::from_secs(4);
/// A slow line moves this many bytes in a second.
const BYTES_PER_SECOND_MIN: u64 = 256 * 1024;
/// A request that failed after this long met a store that hangs: it is not asked again at once.
const HANG: Duration = Duration::from_secs(8);
/// How long such a store is left in peace.
const REST: Duration = Duration::from_secs(5);

/// What is wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// How long ago it began.
    pub age: Duration,
    /// What the last request met.
    pub reason: String,
}

/// A store that knows since when it does not answer.
///
/// One that was there once and is gone counts as unreachable, not as missing. One that let a request hang is left
/// alone for a few seconds, in which every request fails at once.
pub struct WatchStore {
    inner: Arc<dyn ObjectStore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether there is, or was, a workspace in it.
    known: bool,
    next: u64,
    /// When each request began, and when it will count as unanswered.
    under_way: BTreeMap<u64, (Instant, Instant)>,
    answered: Option<Instant>,
    failing: Option<(Instant, String)>,
    resting: Option<Instant>,
}

impl WatchStore {
    /// Watches `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// From now on a missing store is one that will come back.
    pub fn set_known(&self) {
        self.state.lock().known = true;
    }

    /// What is wrong, if anything is. Never waits.
    pub fn silence(&self) -> Option<Silence> {
        let state = self.state.lock();
        if let Some((since, reason)) = &state.failing {
            return Some(Silence { age: since.elapsed(), reason: reason.clone() });
        }
        let now = Instant::now();
        let begun = state.under_way.values().filter(|(_, until)| *until < now).map(|(begun, _)| *begun).min()?;
        let is_silent = state.answered.is_none_or(|answered| now.duration_since(answered) > PATIENCE);
        let reason = format!("the store {} does not answer", self.inner.address());
        is_silent.then(|| Silence { age: now.duration_since(begun), reason })
    }

    /// How long the oldest request has been under way, beyond what its bytes need; `None` when there is none.
    pub fn waiting(&self) -> Option<Duration> {
        let now = Instant::now();
        self.state.lock().under_way.values().map(|(_, until)| (now + PATIENCE).saturating_duration_since(*until)).max()
    }

    /// Notes a request of so many bytes, runs it and notes how it ended.
    fn run<T>(&self, bytes: u64, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let (number, begun) = self.begin(bytes)?;
        let result = act();
        self.end(number, begun, result.as_ref().err());
        result.map_err(|error| self.gone(error))
    }

    fn run_many<T>(&self, count: usize, bytes: u64, act: impl FnOnce() -> Vec<Result<T>>) -> Vec<Result<T>> {
        let (number, begun) = match self.begin(bytes) {
            Ok(begun) => begun,
            Err(error) => return (0..count).map(|_| Err(error.clone())).collect(),
        };
        self.end_many(number, begun, act())
    }

    fn end_many<T>(&self, number: u64, begun: Instant, results: Vec<Result<T>>) -> Vec<Result<T>> {
        let error =
            if results.iter().any(Result::is_ok) { None } else { results.iter().find_map(|r| r.as_ref().err()) };
        self.end(number, begun, error);
        results.into_iter().map(|result| result.map_err(|error| self.gone(error))).collect()
    }

    fn begin(&self, bytes: u64) -> Result<(u64, Instant)> {
        let mut state = self.state.lock();
        let now = Instant::now();
        if let (Some(until), Some((_, reason))) = (state.resting, &state.failing)
            && now < until
        {
            return Err(StoreError::Unreachable { store: self.inner.address().to_owned(), reason: reason.clone() });
        }
        state.next += 1;
        let number = state.next;
        let patience = PATIENCE + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
        state.under_way.insert(number, (now, now + patience));
        Ok((number, now))
    }

    fn end(&self, number: u64, begun: Instant, error: Option<&StoreError>) {
        let mut state = self.state.lock();
        state.under_way.remove(&number);
        let reason = match error {
            Some(StoreError::Unreachable { reason, .. } | StoreError::OutcomeUnknown { reason, .. }) => reason.clone(),
            Some(StoreError::NoStore { .. }) => GONE.to_owned(),
            _ => {
                (state.answered, state.failing, state.resting) = (Some(Instant::now()), None, None);
                state.known |= error.is_none();
                return;
            }
        };
        if begun.elapsed() >= HANG {
            state.resting = Some(Instant::now() + REST);
        }
        match &mut state.failing {
            Some((_, last)) => *last = reason,
            failing => *failing = Some((begun, reason)),
        }
    }

    fn gone(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::NoStore { store } if self.state.lock().known => {
                StoreError::Unreachable { store, reason: GONE.to_owned() }
            }
            error => error,
        }
    }
}

const GONE: &str = "it is gone from there (is its disk mounted?)";

impl ObjectStore for WatchStore {
    fn get(&self, key: &ObjectKey) -> Result<Object> {
        self.run(0, || self.inner.get(key))
    }

    fn get_if_changed(&self, key: &ObjectKey, etag: &ETag) -> Result<Option<Object>> {
        self.run(0, || self.inner.get_if_changed(key, etag))
    }

    fn get_range(&self, request: &RangeRequest) -> Result<Vec<u8>> {
        self.run(request.len, || self.inner.get_range(request))
    }

    fn put(&self, key: &ObjectKey, sealed: &Sealed, condition: PutCondition) -> Result<ETag> {
        self.run(sealed.len() as u64, || self.inner.put(key, sealed, condition))
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.run(0, || self.inner.delete(key))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<()> {
        let (number, begun) = self.begin(0)?;
        let listed = self.inner.list(prefix, &mut |info| {
            // A long listing comes in pages: as long as they come, the store is not silent.
            let now = Instant::now();
            {
                let mut state = self.state.lock();
                state.answered = Some(now);
                state.under_way.insert(number, (begun, now + PATIENCE));
            }
            each(info);
        });
        self.end(number, begun, listed.as_ref().err());
        listed.map_err(|error| self.gone(error))
    }

    fn get_many(&self, requests: &[RangeRequest]) -> Vec<Result<Vec<u8>>> {
        let bytes = requests.iter().map(|request| request.len).sum();
        self.run_many(requests.len(), bytes, || self.inner.get_many(requests))
    }

    fn put_many(&self, objects: &[(ObjectKey, Sealed)]) -> Vec<Result<()>> {
        let bytes = objects.iter().map(|(_, sealed)| sealed.len() as u64).sum();
        self.run_many(objects.len(), bytes, || self.inner.put_many(objects))
    }

    fn adopt_many(&self, objects: &[(ObjectKey, SealedFile)]) -> Option<Vec<Result<()>>> {
        let bytes = objects.iter().map(|(_, file)| file.len).sum();
        let (number, begun) = match self.begin(bytes) {
            Ok(begun) => begun,
            Err(error) => return Some(objects.iter().map(|_| Err(error.clone())).collect()),
        };
        let Some(results) = self.inner.adopt_many(objects) else {
            // A store that cannot do this was not asked for anything.
            self.state.lock().under_way.remove(&number);
            return None;
        };
        Some(self.end_many(number, begun, results))
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }

    fn is_local(&self) -> bool {
        self.inner.is_local()
    }

    fn address(&self) -> &str {
        self.inner.address()
    }

    fn set_unquoted_etags(&self, unquoted: bool) {
        self.inner.set_unquoted_etags(unquoted);
    }

    /// The store is left alone for a few seconds then.
    fn cancel(&self) {
        {
            let mut state = self.state.lock();
            if let Some((begun, _)) = state.under_way.values().min().copied() {
                let reason = "the request was given up".to_owned();
                state.failing.get_or_insert((begun, reason));
                state.resting = Some(Instant::now() + REST);
            }
        }
        self.inner.cancel();
    }
}
