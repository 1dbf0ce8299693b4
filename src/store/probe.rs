//! Finds out whether a store really keeps conditional writes, which some S3 servers ignore and some
//! check without a lock.

use std::sync::Barrier;

use super::{ETag, ObjectKey, ObjectStore, PutCondition, Result, StoreError};
use crate::base::ids::WorkspaceId;
use crate::base::random;
use crate::crypto::{Keys, Kind, Sealed};

const WRITERS: usize = 8;
const ROUNDS: usize = 3;
/// Tries of a replacement, in case others probe the same fixed name.
const TRIES: usize = 3;

/// What a store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Puts with a condition are atomic. Without, only one client at a time may write.
    pub conditional: bool,
    /// Tags must be sent without their quotes; the probed store was already told.
    pub unquoted_etags: bool,
    /// Objects may be removed. Without, garbage stays.
    pub delete: bool,
}

/// Tries out conditional puts under `probe/`, one after the other and against each other.
///
/// Takes some forty requests. Its objects are removed again; where that is denied, fixed names are
/// used, so that no more than four stay. Fails with the store's own errors, e.g.
/// [`StoreError::Denied`] when nothing may be written.
pub fn probe(store: &dyn ObjectStore) -> Result<Capabilities> {
    let mut run = Probe::new(store)?;
    let result = run.conditional();
    let unquoted_etags = run.unquoted_etags;
    if run.delete {
        for name in 0..=ROUNDS {
            let removed = run.key(name).and_then(|key| store.delete(&key));
            if let Err(error) = removed {
                tracing::warn!("an object of the probe stays behind: {error}");
            }
        }
    }
    let conditional = result?;
    if !conditional {
        store.set_unquoted_etags(false);
    }
    Ok(Capabilities { conditional, unquoted_etags: conditional && unquoted_etags, delete: run.delete })
}

struct Probe<'a> {
    store: &'a dyn ObjectStore,
    keys: Keys,
    base: String,
    delete: bool,
    unquoted_etags: bool,
}

impl<'a> Probe<'a> {
    fn new(store: &'a dyn ObjectStore) -> Result<Self> {
        let fresh = format!("probe/{:016x}", random::number());
        let keys = Keys::ephemeral(WorkspaceId::random());
        store.set_unquoted_etags(false);
        let mut run = Self { store, keys, base: fresh, delete: true, unquoted_etags: false };
        match store.delete(&run.key(0)?) {
            Ok(()) => {}
            Err(StoreError::Denied { .. }) => {
                run.delete = false;
                run.base = "probe/fixed".to_owned();
            }
            Err(error) => return Err(error),
        }
        Ok(run)
    }

    fn key(&self, name: usize) -> Result<ObjectKey> {
        let name = format!("{}-{name}", self.base);
        ObjectKey::new(name.as_str())
            .ok_or(StoreError::Invalid { target: name, reason: "not the name of an object".to_owned() })
    }

    /// A body unlike every other.
    fn body(&self) -> Sealed {
        self.keys.seal(Kind::Local, b"probe", &random::bytes::<16>())
    }

    fn conditional(&mut self) -> Result<bool> {
        let key = self.key(0)?;
        Ok(self.absent_once(&key)? && self.matches(&key)? && self.races()?)
    }

    /// Whether a put took place, decided by reading back where the answer does not tell.
    fn put(&self, key: &ObjectKey, condition: PutCondition) -> Result<bool> {
        let body = self.body();
        match self.store.put(key, &body, condition) {
            Ok(_) => Ok(true),
            Err(StoreError::Precondition { .. }) => Ok(false),
            Err(StoreError::OutcomeUnknown { .. }) => match self.store.get(key) {
                Ok(object) => Ok(object.bytes == body.as_bytes()),
                Err(StoreError::NotFound { .. }) => Ok(false),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// A put "if absent" must fail on what is there.
    fn absent_once(&self, key: &ObjectKey) -> Result<bool> {
        let first = self.put(key, PutCondition::IfAbsent)?;
        // A fixed name may be there since another probe.
        if !first && self.delete {
            return Ok(false);
        }
        Ok(!self.put(key, PutCondition::IfAbsent)?)
    }

    /// A put "if match" must fail with another tag and succeed with the right one.
    fn matches(&mut self, key: &ObjectKey) -> Result<bool> {
        for unquoted in [false, true] {
            self.store.set_unquoted_etags(unquoted);
            self.unquoted_etags = unquoted;
            for _ in 0..TRIES {
                let etag = self.store.get(key)?.etag;
                if self.put(key, PutCondition::IfMatch(other_than(&etag)))? {
                    return Ok(false);
                }
                if self.put(key, PutCondition::IfMatch(etag))? {
                    return Ok(true);
                }
                if self.delete {
                    break;
                }
            }
        }
        Ok(false)
    }

    /// Of several writers at once, exactly one may win.
    fn races(&self) -> Result<bool> {
        for round in 0..ROUNDS {
            let (fresh, swung) = (self.key(round + 1)?, self.key(0)?);
            let etag = self.store.get(&swung)?.etag;
            if !self.race(&fresh, &PutCondition::IfAbsent)? || !self.race(&swung, &PutCondition::IfMatch(etag))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn race(&self, key: &ObjectKey, condition: &PutCondition) -> Result<bool> {
        let bodies: Vec<Sealed> = (0..WRITERS).map(|_| self.body()).collect();
        let barrier = Barrier::new(WRITERS);
        let put = |body: &Sealed| {
            barrier.wait();
            self.store.put(key, body, condition.clone())
        };
        let results: Vec<Result<ETag>> = std::thread::scope(|scope| {
            let writers: Vec<_> = bodies.iter().map(|body| scope.spawn(|| put(body))).collect();
            writers.into_iter().filter_map(|writer| writer.join().ok()).collect()
        });
        let mut winner = None;
        let mut unknown = false;
        for (body, result) in bodies.iter().zip(results) {
            match result {
                Ok(_) if winner.is_some() => return Ok(false),
                Ok(_) => winner = Some(body),
                Err(StoreError::Precondition { .. }) => {}
                Err(StoreError::OutcomeUnknown { .. }) => unknown = true,
                Err(error) => return Err(error),
            }
        }
        // Under a fixed name, another client's probe may have won.
        let others = !self.delete;
        match winner {
            Some(winner) => Ok(others || self.store.get(key)?.bytes == winner.as_bytes()),
            None => Ok(unknown || others),
        }
    }
}

/// A tag of the same form that no content has.
fn other_than(etag: &ETag) -> ETag {
    ETag(etag.0.chars().map(|symbol| if symbol.is_ascii_hexdigit() { '0' } else { symbol }).collect())
}
