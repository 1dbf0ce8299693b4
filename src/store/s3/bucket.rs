//! A user's own files in a bucket, as they are: listed, read, and replaced on condition. Unlike a store, it may hold
//! any names and any content.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

use super::errors::{chain, status};
use super::{S3Config, S3Store};
use crate::store::StoreError;

/// Longer files go up in parts of this length, in bytes.
const PART_LEN: u64 = 64 << 20;
/// A server puts parts together so many times as fast as the slowest line carries them. For a long file that takes
/// minutes, in which it says nothing.
const JOINING_SPEED: u64 = 256;

/// What went wrong, as far as it matters to whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketFault {
    /// There is no such file.
    Missing,
    /// It is not what it was expected to be.
    Changed,
    /// Access is denied.
    Denied,
    /// The server asks for patience.
    Busy,
    /// The server cannot be reached, or the answer broke off.
    Unreachable,
    /// Writing what was read failed here.
    Sink,
    /// The answer makes no sense.
    Invalid,
}

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct BucketError {
    /// Which kind.
    pub fault: BucketFault,
    /// What happened.
    pub reason: String,
}

/// A file in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketFile {
    /// Its name below the prefix.
    pub key: String,
    /// Its length in bytes.
    pub len: u64,
    /// When it was written, in whole seconds since the Unix epoch.
    pub modified_s: Option<i64>,
    /// Its tag.
    pub etag: Option<String>,
}

type Outcome<T> = std::result::Result<T, BucketError>;

/// The part of a bucket below a prefix.
pub struct Bucket(S3Store);

fn failed<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E>) -> BucketError {
    let code = error.code().unwrap_or_default();
    let fault = match (status(error), code) {
        (Some(404), _) => BucketFault::Missing,
        (Some(412), _) => BucketFault::Changed,
        (Some(401 | 403), _) => BucketFault::Denied,
        // 409 is two writers at the same moment: who asks again learns which of them was first.
        (Some(409 | 429 | 503), _) | (_, "SlowDown") => BucketFault::Busy,
        (Some(408 | 500..), _) => BucketFault::Unreachable,
        (Some(400..), _) => BucketFault::Invalid,
        _ => match error {
            SdkError::ConstructionFailure(_) => BucketFault::Invalid,
            _ => BucketFault::Unreachable,
        },
    };
    BucketError { fault, reason: chain(error) }
}

fn seconds(time: Option<&DateTime>) -> Option<i64> {
    time.map(DateTime::secs)
}

fn len(len: Option<i64>) -> u64 {
    len.and_then(|len| u64::try_from(len).ok()).unwrap_or(0)
}

fn invalid(reason: &str) -> BucketError {
    BucketError { fault: BucketFault::Invalid, reason: reason.to_owned() }
}

impl Bucket {
    /// Prepares access; the server is not asked for anything yet. Requests are tried once.
    pub fn open(config: S3Config) -> crate::store::Result<Self> {
        S3Store::open(S3Config { attempts_max: 1, ..config }).map(Self)
    }

    /// Where it is, without secrets.
    pub fn address(&self) -> &str {
        &self.0.inner.address
    }

    fn wait<T>(&self, request: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let unreachable =
            |error: StoreError| BucketError { fault: BucketFault::Unreachable, reason: error.to_string() };
        self.0.wait(async { Ok(request.await) }).unwrap_or_else(|error| Err(unreachable(error)))
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.0.inner.prefix)
    }

    fn bucket(&self) -> &str {
        &self.0.inner.config.address.bucket
    }

    /// One page of the files, by name, and where the next begins.
    pub fn list(&self, token: Option<String>) -> Outcome<(Vec<BucketFile>, Option<String>)> {
        let inner = &self.0.inner;
        let request = inner.client.list_objects_v2().bucket(self.bucket()).prefix(&inner.prefix);
        let sent = request.set_continuation_token(token.clone()).send();
        let answer = self.wait(async { sent.await.map_err(|error| failed(&error)) })?;
        let next = answer.next_continuation_token.filter(|_| answer.is_truncated == Some(true));
        if answer.is_truncated == Some(true) && (next.is_none() || next == token) {
            return Err(invalid("a listing is cut short without saying how it goes on"));
        }
        let file = |object: aws_sdk_s3::types::Object| {
            let key = object.key()?.strip_prefix(&inner.prefix)?.to_owned();
            let (len, modified_s) = (len(object.size()), seconds(object.last_modified()));
            Some(BucketFile { key, len, modified_s, etag: object.e_tag })
        };
        Ok((answer.contents.unwrap_or_default().into_iter().filter_map(file).collect(), next))
    }

    /// What a file is like. By a listing, which says why it fails where a bare HEAD does not.
    pub fn stat(&self, key: &str) -> Outcome<BucketFile> {
        let full = self.full(key);
        let sent = self.0.inner.client.list_objects_v2().bucket(self.bucket()).prefix(&full).max_keys(1).send();
        let answer = self.wait(async { sent.await.map_err(|error| failed(&error)) })?;
        let missing = || BucketError { fault: BucketFault::Missing, reason: "no such file in the bucket".to_owned() };
        // A name sorts before all that it begins.
        let first = answer.contents.unwrap_or_default().into_iter().next();
        let found = first.filter(|object| object.key() == Some(full.as_str())).ok_or_else(missing)?;
        let (len, modified_s) = (len(found.size()), seconds(found.last_modified()));
        Ok(BucketFile { key: key.to_owned(), len, modified_s, etag: found.e_tag })
    }

    /// Writes a file's content to `to`; returns what it is like.
    pub fn get(&self, key: &str, to: &mut dyn Write) -> Outcome<BucketFile> {
        let still = Duration::from_millis(self.0.inner.config.attempt_timeout_ms);
        let sent = self.0.inner.client.get_object().bucket(self.bucket()).key(self.full(key)).send();
        let mut answer = self.wait(async { sent.await.map_err(|error| failed(&error)) })?;
        let cut = |reason: String| BucketError { fault: BucketFault::Unreachable, reason };
        let (announced, mut count) = (len(answer.content_length), 0);
        loop {
            // Written outside of the runtime.
            let piece = self.wait(async {
                match tokio::time::timeout(still, answer.body.try_next()).await {
                    Ok(piece) => piece.map_err(|error| cut(format!("the answer broke off: {}", chain(&error)))),
                    Err(_) => Err(cut(format!("the answer stood still for {still:?}"))),
                }
            })?;
            let Some(piece) = piece else { break };
            count += piece.len() as u64;
            if count > announced {
                break;
            }
            to.write_all(&piece)
                .map_err(|error| BucketError { fault: BucketFault::Sink, reason: error.to_string() })?;
        }
        if count != announced {
            return Err(cut(format!("{count} bytes came of {announced}")));
        }
        let modified_s = seconds(answer.last_modified.as_ref());
        Ok(BucketFile { key: key.to_owned(), len: count, modified_s, etag: answer.e_tag })
    }

    /// Puts a local file in the place of one that has this tag; its own tag, where the server tells it.
    pub fn replace(&self, key: &str, etag: Option<String>, from: &Path, len: u64) -> Outcome<Option<String>> {
        if len > PART_LEN {
            return self.replace_in_parts(key, etag, from, len);
        }
        let settings = self.0.inner.patience(usize::try_from(len).unwrap_or(usize::MAX), 1);
        let request = self.0.inner.client.put_object().bucket(self.bucket()).key(self.full(key)).set_if_match(etag);
        self.wait(async {
            let body = ByteStream::from_path(from).await.map_err(|error| invalid(&chain(&error)))?;
            let sent = request.body(body).customize().config_override(settings).send().await;
            sent.map(|done| done.e_tag).map_err(|error| failed(&error))
        })
    }

    fn replace_in_parts(&self, key: &str, etag: Option<String>, from: &Path, len: u64) -> Outcome<Option<String>> {
        let client = &self.0.inner.client;
        let sent = client.create_multipart_upload().bucket(self.bucket()).key(self.full(key)).send();
        let begun = self.wait(async { sent.await.map_err(|error| failed(&error)) })?;
        let id = begun.upload_id.ok_or_else(|| invalid("an upload in parts was begun without an id"))?;
        // S3 takes ten thousand parts.
        let part_len = PART_LEN.max(len.div_ceil(10_000));
        let done = self.parts(key, &id, from, len, part_len).and_then(|parts| {
            let upload = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
            let request = client.complete_multipart_upload().bucket(self.bucket()).key(self.full(key));
            let request = request.upload_id(&id).multipart_upload(upload).set_if_match(etag);
            let settings = self.0.inner.patience(usize::try_from(len / JOINING_SPEED).unwrap_or(usize::MAX), 1);
            let request = request.customize().config_override(settings);
            self.wait(async { request.send().await.map(|done| done.e_tag).map_err(|error| failed(&error)) })
        });
        if done.is_err() {
            let abort = client.abort_multipart_upload().bucket(self.bucket()).key(self.full(key)).upload_id(&id);
            if let Err(error) = self.wait(async { abort.send().await.map_err(|error| failed(&error)) }) {
                tracing::warn!("the unfinished parts of {key} could not be removed: {error}");
            }
        }
        done
    }

    fn parts(&self, key: &str, id: &str, from: &Path, len: u64, part_len: u64) -> Outcome<Vec<CompletedPart>> {
        let mut parts = Vec::new();
        for (number, offset) in (1..).zip((0..len).step_by(usize::try_from(part_len).unwrap_or(usize::MAX))) {
            let this_len = part_len.min(len - offset);
            let settings = self.0.inner.patience(usize::try_from(this_len).unwrap_or(usize::MAX), 1);
            let request = self.0.inner.client.upload_part().bucket(self.bucket()).key(self.full(key)).upload_id(id);
            let sent = self.wait(async {
                let read = ByteStream::read_from().path(from).offset(offset);
                let read = read.length(aws_sdk_s3::primitives::Length::Exact(this_len)).build().await;
                let body = read.map_err(|error| invalid(&chain(&error)))?;
                let request = request.part_number(number).body(body);
                request.customize().config_override(settings).send().await.map_err(|error| failed(&error))
            })?;
            parts.push(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build());
        }
        Ok(parts)
    }

    /// Removes a file.
    pub fn remove(&self, key: &str) -> Outcome<()> {
        let sent = self.0.inner.client.delete_object().bucket(self.bucket()).key(self.full(key)).send();
        self.wait(async { sent.await.map(drop).map_err(|error| failed(&error)) })
    }
}
