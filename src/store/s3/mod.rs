//! A store in a bucket of S3 or of a server that speaks its protocol.
//!
//! The only place with async code: every store has a small runtime of its own, and every call
//! blocks until its requests are answered. Ordinary requests are repeated by the SDK; conditional
//! puts are sent once, because a repetition of one that succeeded looks like a lost race.

mod bucket;
mod client;
mod errors;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::runtime::{Handle, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub use bucket::{Bucket, BucketError, BucketFault, BucketFile};
pub use client::{Credentials, S3Config};
use client::{Inner, new_runtime};

use super::{ETag, Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, RangeRequest, Result, StoreError};
use crate::crypto::Sealed;

/// Longer bodies go up in parts, without a condition. Longer than the longest location run, so that every object
/// kura makes is put by one conditional request, as the policy of a writer asks.
const SINGLE_PUT_LEN_MAX: usize = 40 * 1024 * 1024;
const PART_LEN: usize = 16 * 1024 * 1024;

/// A store in S3.
pub struct S3Store {
    inner: Arc<Inner>,
    handle: Handle,
    /// Told when what is under way shall be given up.
    given_up: Notify,
    /// None only while it is dropped.
    runtime: Option<Runtime>,
}

impl S3Store {
    /// Prepares access; the server is not asked for anything yet.
    pub fn open(config: S3Config) -> Result<Self> {
        let runtime = new_runtime(&config)?;
        let handle = runtime.handle().clone();
        let inner = Arc::new(handle.block_on(Inner::new(config))?);
        Ok(Self { inner, handle, given_up: Notify::new(), runtime: Some(runtime) })
    }

    /// Waits for an answer, or until it is given up.
    fn wait<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let mut given_up = pin!(self.given_up.notified());
        let mut request = pin!(request);
        let either = poll_fn(|context| match request.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(answer),
            Poll::Pending => given_up.as_mut().poll(context).map(|()| Err(self.cancelled())),
        });
        self.handle.block_on(either)
    }

    fn cancelled(&self) -> StoreError {
        let reason = "the request was given up unanswered".to_owned();
        StoreError::Unreachable { store: self.inner.address.clone(), reason }
    }

    /// Runs `start(0)`, `start(1)`, … with a bound on how many are under way; answers in order.
    fn run_many<T, F>(&self, count: usize, start: impl Fn(usize) -> F) -> Vec<Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut results: Vec<Option<Result<T>>> = (0..count).map(|_| None).collect();
        let outcome = self.wait(async {
            let mut running = JoinSet::new();
            let mut next = 0;
            loop {
                while next < count && running.len() < self.inner.concurrency {
                    let (index, future) = (next, start(next));
                    running.spawn(async move { (index, future.await) });
                    next += 1;
                }
                match running.join_next().await {
                    Some(Ok((index, result))) => results[index] = Some(result),
                    Some(Err(error)) => tracing::error!("a request ended unexpectedly: {error}"),
                    None => return Ok(()),
                }
            }
        });
        if let Err(error) = outcome {
            return results.into_iter().map(|result| result.unwrap_or_else(|| Err(error.clone()))).collect();
        }
        let lost = || StoreError::Invalid {
            target: self.inner.address.clone(),
            reason: "a request ended unexpectedly; the log says why".to_owned(),
        };
        results.into_iter().map(|result| result.unwrap_or_else(|| Err(lost()))).collect()
    }

    fn put_in_parts(&self, key: &ObjectKey, sealed: &Sealed) -> Result<ETag> {
        let upload_id = self.wait(self.inner.begin_parts(key))?;
        let parts: Vec<&[u8]> = sealed.as_bytes().chunks(PART_LEN).collect();
        let etags = self.run_many(parts.len(), |index| {
            let (inner, key, upload_id) = (self.inner.clone(), key.clone(), upload_id.clone());
            let part = parts[index].to_vec();
            async move { inner.put_part(&key, &upload_id, index, part).await }
        });
        let done = match etags.into_iter().collect::<Result<Vec<String>>>() {
            Ok(etags) => self.wait(self.inner.finish_parts(key, &upload_id, etags)),
            Err(error) => Err(error),
        };
        if done.is_err() {
            self.handle.block_on(self.inner.abandon_parts(key, &upload_id));
        }
        done
    }
}

impl ObjectStore for S3Store {
    fn get(&self, key: &ObjectKey) -> Result<Object> {
        self.wait(self.inner.get(key))
    }

    fn get_if_changed(&self, key: &ObjectKey, etag: &ETag) -> Result<Option<Object>> {
        self.wait(self.inner.get_if_changed(key, etag))
    }

    fn get_range(&self, request: &RangeRequest) -> Result<Vec<u8>> {
        self.wait(self.inner.get_range(request))
    }

    fn put(&self, key: &ObjectKey, sealed: &Sealed, condition: PutCondition) -> Result<ETag> {
        if condition == PutCondition::Always && sealed.len() > SINGLE_PUT_LEN_MAX {
            return self.put_in_parts(key, sealed);
        }
        let conditional = condition != PutCondition::Always;
        match self.wait(self.inner.put(key, sealed.as_bytes().to_vec(), condition)) {
            // It may have reached the server.
            Err(StoreError::Unreachable { reason, .. }) if conditional => {
                Err(StoreError::OutcomeUnknown { key: key.clone(), reason })
            }
            answer => answer,
        }
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.wait(self.inner.delete(key))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<()> {
        let mut token = None;
        loop {
            // `each` runs outside of the runtime, so that it may use the store.
            let page = self.wait(self.inner.list_page(prefix, token.take()))?;
            page.objects.into_iter().for_each(&mut *each);
            match page.next {
                Some(next) => token = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn get_many(&self, requests: &[RangeRequest]) -> Vec<Result<Vec<u8>>> {
        self.run_many(requests.len(), |index| {
            let (inner, request) = (self.inner.clone(), requests[index].clone());
            async move { inner.get_range(&request).await }
        })
    }

    fn put_many(&self, objects: &[(ObjectKey, Sealed)]) -> Vec<Result<()>> {
        let is_long = |index: usize| objects[index].1.len() > SINGLE_PUT_LEN_MAX;
        let (long, short): (Vec<usize>, Vec<usize>) = (0..objects.len()).partition(|&index| is_long(index));
        let answers = self.run_many(short.len(), |index| {
            let (key, sealed) = &objects[short[index]];
            // Copied when its turn comes, so only what is under way is in memory twice.
            let (inner, key, body) = (self.inner.clone(), key.clone(), sealed.as_bytes().to_vec());
            async move { inner.put_immutable(&key, body).await }
        });
        let mut results: Vec<(usize, Result<()>)> = short.into_iter().zip(answers).collect();
        results.extend(long.into_iter().map(|index| {
            let (key, sealed) = &objects[index];
            (index, self.put_in_parts(key, sealed).map(|_| ()))
        }));
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency
    }

    fn is_local(&self) -> bool {
        false
    }

    fn address(&self) -> &str {
        &self.inner.address
    }

    fn set_unquoted_etags(&self, unquoted: bool) {
        self.inner.unquoted_etags.store(unquoted, Ordering::Relaxed);
    }

    fn cancel(&self) {
        self.given_up.notify_waiters();
    }
}

impl Drop for S3Store {
    fn drop(&mut self) {
        // Does not wait for a name lookup that hangs.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
