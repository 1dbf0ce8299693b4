//! Tries again what failed for a passing reason.
//!
//! The S3 store's own client already repeats single requests within seconds; this is for stores
//! that do not (a directory on a network file system), and for work that may wait longer.

use std::sync::Arc;
use std::time::Duration;

use super::{ETag, Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, RangeRequest, Result, StoreError};
use crate::base::random;
use crate::crypto::Sealed;

/// How often and how patiently something is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all, the first included; 0 counts as 1.
    pub attempts_max: u32,
    /// Longest wait before the second try, in milliseconds; it doubles from try to try.
    pub delay_first_ms: u64,
    /// Longest wait between any two tries, in milliseconds.
    pub delay_max_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_max: 5, delay_first_ms: 100, delay_max_ms: 10_000 }
    }
}

impl RetryPolicy {
    /// The wait after `attempt` tries failed: random between half and all of the exponential step,
    /// so that clients that failed together do not come back together.
    fn delay(&self, attempt: u32) -> Duration {
        let factor = 1u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX);
        let step_ms = self.delay_first_ms.saturating_mul(factor).min(self.delay_max_ms);
        Duration::from_millis(step_ms / 2 + random::number() % (step_ms / 2 + 1))
    }
}

/// A store that repeats requests which failed as unreachable. Conditional puts are never repeated.
pub struct RetryStore {
    inner: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
}

impl RetryStore {
    /// Repeats what fails at `inner` as `policy` says.
    pub fn new(inner: Arc<dyn ObjectStore>, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }

    fn run<T>(&self, mut act: impl FnMut() -> Result<T>) -> Result<T> {
        let mut attempt = 1;
        loop {
            match act() {
                Err(error) if may_repeat(&error) && attempt < self.policy.attempts_max => {
                    tracing::debug!(attempt, "trying again: {error}");
                    std::thread::sleep(self.policy.delay(attempt));
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Runs a batch, then only those of its members again that failed.
    fn run_many<Q: Clone, T>(&self, members: &[Q], act: impl Fn(&[Q]) -> Vec<Result<T>>) -> Vec<Result<T>> {
        let mut results = act(members);
        for attempt in 1..self.policy.attempts_max {
            let failed: Vec<usize> = (0..members.len().min(results.len()))
                .filter(|&index| results[index].as_ref().is_err_and(may_repeat))
                .collect();
            if failed.is_empty() {
                break;
            }
            std::thread::sleep(self.policy.delay(attempt));
            let again: Vec<Q> = failed.iter().map(|&index| members[index].clone()).collect();
            for (index, result) in failed.into_iter().zip(act(&again)) {
                results[index] = result;
            }
        }
        results
    }
}

/// Whether an unconditional request that failed so may simply be repeated.
fn may_repeat(error: &StoreError) -> bool {
    matches!(error, StoreError::Unreachable { .. } | StoreError::OutcomeUnknown { .. })
}

impl ObjectStore for RetryStore {
    fn get(&self, key: &ObjectKey) -> Result<Object> {
        self.run(|| self.inner.get(key))
    }

    fn get_if_changed(&self, key: &ObjectKey, etag: &ETag) -> Result<Option<Object>> {
        self.run(|| self.inner.get_if_changed(key, etag))
    }

    fn get_range(&self, request: &RangeRequest) -> Result<Vec<u8>> {
        self.run(|| self.inner.get_range(request))
    }

    fn put(&self, key: &ObjectKey, sealed: &Sealed, condition: PutCondition) -> Result<ETag> {
        if condition != PutCondition::Always {
            return self.inner.put(key, sealed, condition);
        }
        self.run(|| self.inner.put(key, sealed, PutCondition::Always))
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.run(|| self.inner.delete(key))
    }

    /// Repeated only as long as nothing was handed out, so that nothing is handed out twice.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<()> {
        let mut begun = false;
        let mut outcome = Ok(());
        self.run(|| {
            let result = self.inner.list(prefix, &mut |info| {
                begun = true;
                each(info);
            });
            if begun {
                outcome = result;
                return Ok(());
            }
            result
        })?;
        outcome
    }

    fn get_many(&self, requests: &[RangeRequest]) -> Vec<Result<Vec<u8>>> {
        self.run_many(requests, |requests| self.inner.get_many(requests))
    }

    fn put_many(&self, objects: &[(ObjectKey, Sealed)]) -> Vec<Result<()>> {
        self.run_many(objects, |objects| self.inner.put_many(objects))
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

    fn cancel(&self) {
        self.inner.cancel();
    }
}
