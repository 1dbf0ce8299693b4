//! The requests, one function each.

use std::fmt;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use tokio::runtime::Runtime;

use super::errors::{Call, chain, classify, status, unanswered};
use super::{
    AtomicBool, ETag, Object, ObjectInfo, ObjectKey, Ordering, PutCondition, RangeRequest, Result, StoreError,
};
use crate::base::clock::Timestamp;
use crate::base::limits::OBJECT_LEN_MAX;
use crate::base::random;
use crate::store::S3Address;

/// A request may take longer than its timeout by the time its body needs at this speed.
const BODY_BYTES_PER_MS_MIN: u64 = 64;
/// Tries of an immutable put that keeps meeting other requests for the same object.
const CONFLICTS_MAX: u32 = 5;
const REGION_DEFAULT: &str = "us-east-1";

/// Fixed credentials, instead of those the environment has.
#[derive(Clone)]
pub struct Credentials {
    /// The access key's id.
    pub access_key_id: String,
    /// The secret key.
    pub secret_access_key: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.access_key_id)
    }
}

/// How a bucket is reached.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// Where it is.
    pub address: S3Address,
    /// Fixed credentials; `None` for the usual chain (environment, profile, machine role).
    pub credentials: Option<Credentials>,
    /// Longest time to connect, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Longest time for one try of a request, and for a body to stand still, in milliseconds.
    /// Tries with a long body get more.
    pub attempt_timeout_ms: u64,
    /// Longest time for a request with all its tries, in milliseconds.
    pub operation_timeout_ms: u64,
    /// Tries of an ordinary request, the first included.
    pub attempts_max: u32,
    /// Longest wait before the second try, in milliseconds; it doubles from try to try.
    pub backoff_first_ms: u64,
    /// Requests of a batch that are under way at once.
    pub concurrency: usize,
}

impl S3Config {
    /// The usual settings for an address.
    pub fn new(address: S3Address) -> Self {
        Self {
            address,
            credentials: None,
            connect_timeout_ms: 5_000,
            attempt_timeout_ms: 10_000,
            operation_timeout_ms: 25_000,
            attempts_max: 5,
            backoff_first_ms: 250,
            concurrency: 16,
        }
    }
}

/// A small runtime for one store.
pub(super) fn new_runtime(config: &S3Config) -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("kura-s3").enable_all().build().map_err(
        |error| StoreError::Unreachable {
            store: config.address.to_string(),
            reason: format!("no threads for it can be started: {error}"),
        },
    )
}

/// One page of a listing.
pub(super) struct Page {
    pub objects: Vec<ObjectInfo>,
    pub next: Option<String>,
}

/// The client and what its requests need.
pub(super) struct Inner {
    pub client: Client,
    pub config: S3Config,
    /// Before every object's name: empty, or ending in `/`.
    pub prefix: String,
    pub address: String,
    pub concurrency: usize,
    pub unquoted_etags: AtomicBool,
}

impl Inner {
    pub async fn new(config: S3Config) -> Result<Self> {
        let at = &config.address;
        let mut profile_region = ProfileFileRegionProvider::builder();
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(profile) = &at.profile {
            // A profile that is named is meant: the environment's keys do not come before it.
            let of_profile = ProfileFileCredentialsProvider::builder().profile_name(profile).build();
            loader = loader.profile_name(profile).credentials_provider(of_profile);
            profile_region = profile_region.profile_name(profile);
        }
        let region = RegionProviderChain::first_try(at.region.clone().map(Region::new))
            .or_else(EnvironmentVariableRegionProvider::new())
            .or_else(profile_region.build())
            .or_else(REGION_DEFAULT);
        loader = loader.region(region);
        if let Some(Credentials { access_key_id, secret_access_key }) = &config.credentials {
            let fixed = aws_sdk_s3::config::Credentials::new(access_key_id, secret_access_key, None, None, "kura");
            loader = loader.credentials_provider(fixed);
        }
        let shared = loader.load().await;
        let mut builder = Builder::from(&shared)
            .force_path_style(at.path_style.unwrap_or(at.endpoint.is_some()))
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // Uploads have their timeout by length instead.
            .stalled_stream_protection(StalledStreamProtectionConfig::enabled().upload_enabled(false).build());
        if let Some(endpoint) = &at.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        let prefix = if at.prefix.is_empty() { String::new() } else { format!("{}/", at.prefix) };
        let address = at.to_string();
        let concurrency = config.concurrency.max(1);
        let unquoted_etags = AtomicBool::new(false);
        let patience = Patience::of(&config, 0, config.attempts_max).apply(builder);
        Ok(Self { client: Client::from_conf(patience.build()), config, prefix, address, concurrency, unquoted_etags })
    }

    /// What an error is about: the object's place in the bucket, or the bucket and prefix.
    pub fn target(&self, key: Option<&ObjectKey>) -> String {
        format!("{}/{}{}", self.config.address.bucket, self.prefix, key.map_or("", ObjectKey::as_str))
    }

    fn full(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Settings for a request with a body of this length.
    pub fn patience(&self, body_len: usize, attempts_max: u32) -> Builder {
        Patience::of(&self.config, body_len, attempts_max).apply(Builder::new())
    }

    pub async fn get(&self, key: &ObjectKey) -> Result<Object> {
        self.fetch(key, None, None)
            .await?
            .ok_or_else(|| self.invalid(key, "not modified, though nobody asked for that"))
    }

    pub async fn get_if_changed(&self, key: &ObjectKey, etag: &ETag) -> Result<Option<Object>> {
        let object = self.fetch(key, None, Some(etag)).await?;
        // Some servers do not know the condition and send the object all the same.
        Ok(object.filter(|object| object.etag != *etag))
    }

    pub async fn get_range(&self, request: &RangeRequest) -> Result<Vec<u8>> {
        if request.len == 0 {
            return Ok(Vec::new());
        }
        let object = self.fetch(&request.key, Some(request), None).await?;
        Ok(object.map_or_else(Vec::new, |object| object.bytes))
    }

    /// Reads an object or a part of it; `None` when it is not modified, or has no such part.
    async fn fetch(
        &self,
        key: &ObjectKey,
        range: Option<&RangeRequest>,
        unless: Option<&ETag>,
    ) -> Result<Option<Object>> {
        let call = Call::new("s3:GetObject", key);
        let len_max = match range {
            Some(range) => usize::try_from(range.len).unwrap_or(usize::MAX),
            None => OBJECT_LEN_MAX,
        };
        if len_max > OBJECT_LEN_MAX {
            return Err(self.invalid(key, "more was asked for than is read at once"));
        }
        let mut attempt = 1;
        loop {
            let request = self.client.get_object().bucket(&self.config.address.bucket).key(self.full(key));
            let answer = request
                .set_range(
                    range.map(|range| format!("bytes={}-{}", range.offset, range.offset.saturating_add(range.len - 1))),
                )
                .set_if_none_match(unless.map(|etag| etag.0.clone()))
                .send()
                .await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => match status(&error) {
                    Some(304) if unless.is_some() => return Ok(None),
                    Some(416) if range.is_some() => return Ok(None),
                    Some(403) => return Err(self.denied_or_absent(key, classify(self, call, &error)).await),
                    _ => return Err(classify(self, call, &error)),
                },
            };
            if range.is_some_and(|range| range.offset > 0) && answer.content_range.is_none() {
                return Err(self.invalid(key, "the server does not know ranges, which kura needs"));
            }
            let etag = ETag(answer.e_tag.unwrap_or_default());
            match self.collect(answer.body, len_max).await {
                Ok(Some(bytes)) => return Ok(Some(Object { bytes, etag })),
                Ok(None) => return Err(self.invalid(key, "the answer is longer than what was asked for")),
                // The SDK repeats a request until an answer begins; one that breaks off is ours.
                Err(_) if attempt < self.config.attempts_max => self.pause(attempt).await,
                Err(reason) => return Err(unanswered(self, call, reason)),
            }
            attempt += 1;
        }
    }

    /// S3 denies an absent object to who may list only what is below a prefix. A listing of its name, where that is
    /// allowed, tells which it is.
    async fn denied_or_absent(&self, key: &ObjectKey, denied: StoreError) -> StoreError {
        match self.list_page(key.as_str(), None).await {
            Ok(page) if page.objects.iter().all(|object| object.key != *key) => {
                StoreError::NotFound { key: key.clone() }
            }
            _ => denied,
        }
    }

    /// Reads a body; `None` when it is longer than `len_max`, an error when it breaks off or stands still.
    async fn collect(&self, mut body: ByteStream, len_max: usize) -> std::result::Result<Option<Vec<u8>>, String> {
        let expected = usize::try_from(body.size_hint().0).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(expected.min(len_max));
        let still = Duration::from_millis(self.config.attempt_timeout_ms);
        loop {
            match tokio::time::timeout(still, body.try_next()).await {
                Ok(Ok(Some(chunk))) if bytes.len() + chunk.len() > len_max => return Ok(None),
                Ok(Ok(Some(chunk))) => bytes.extend_from_slice(&chunk),
                Ok(Ok(None)) => return Ok(Some(bytes)),
                Ok(Err(error)) => return Err(format!("the answer broke off: {}", chain(&error))),
                Err(_) => return Err(format!("the answer stood still for {still:?}")),
            }
        }
    }

    pub async fn put(&self, key: &ObjectKey, body: Vec<u8>, condition: PutCondition) -> Result<ETag> {
        let conditional = condition != PutCondition::Always;
        let call = Call { conditional, ..Call::new("s3:PutObject", key) };
        let attempts_max = if conditional { 1 } else { self.config.attempts_max };
        let settings = self.patience(body.len(), attempts_max);
        let request = self.client.put_object().bucket(&self.config.address.bucket).key(self.full(key));
        let request = match condition {
            PutCondition::Always => request,
            PutCondition::IfAbsent => request.if_none_match("*"),
            PutCondition::IfMatch(ETag(tag)) if self.unquoted_etags.load(Ordering::Relaxed) => {
                request.if_match(tag.trim_matches('"'))
            }
            PutCondition::IfMatch(ETag(tag)) => request.if_match(tag),
        };
        let sent = request.body(ByteStream::from(body)).customize().config_override(settings).send().await;
        let answer = sent.map_err(|error| classify(self, call, &error))?;
        answer.e_tag.map(ETag).ok_or_else(|| unanswered(self, call, "the answer has no ETag".to_owned()))
    }

    /// Puts an object whose content follows from its name: it may be repeated freely, and one that
    /// is already there is as good.
    pub async fn put_immutable(&self, key: &ObjectKey, body: Vec<u8>) -> Result<()> {
        let settings = self.patience(body.len(), self.config.attempts_max);
        let body = aws_sdk_s3::primitives::SdkBody::from(body);
        let mut conflicts = 0;
        loop {
            // A body in memory can be cloned; the bytes are shared.
            let body = body.try_clone().unwrap_or_else(aws_sdk_s3::primitives::SdkBody::taken);
            let request = self.client.put_object().bucket(&self.config.address.bucket).key(self.full(key));
            let request = request.if_none_match("*").body(ByteStream::new(body));
            let Err(error) = request.customize().config_override(settings.clone()).send().await else { return Ok(()) };
            match status(&error) {
                Some(412) => return Ok(()),
                // Another request for this object is under way, perhaps its removal.
                Some(409) if conflicts < CONFLICTS_MAX => {
                    conflicts += 1;
                    self.pause(conflicts).await;
                }
                _ => return Err(classify(self, Call::new("s3:PutObject", key), &error)),
            }
        }
    }

    pub async fn begin_parts(&self, key: &ObjectKey) -> Result<String> {
        let request = self.client.create_multipart_upload().bucket(&self.config.address.bucket).key(self.full(key));
        let answer = request.send().await.map_err(|error| classify(self, Call::new("s3:PutObject", key), &error))?;
        answer.upload_id.ok_or_else(|| self.invalid(key, "an upload in parts was begun without an id"))
    }

    /// Puts part `index` (from 0); returns its tag.
    pub async fn put_part(&self, key: &ObjectKey, upload_id: &str, index: usize, part: Vec<u8>) -> Result<String> {
        let settings = self.patience(part.len(), self.config.attempts_max);
        let request = self.client.upload_part().bucket(&self.config.address.bucket).key(self.full(key));
        let request = request.upload_id(upload_id).part_number(part_number(index)).body(ByteStream::from(part));
        let sent = request.customize().config_override(settings).send().await;
        let answer = sent.map_err(|error| classify(self, Call::new("s3:PutObject", key), &error))?;
        answer.e_tag.ok_or_else(|| self.invalid(key, "a part was accepted without an ETag"))
    }

    pub async fn finish_parts(&self, key: &ObjectKey, upload_id: &str, etags: Vec<String>) -> Result<ETag> {
        let parts = etags.into_iter().enumerate();
        let parts =
            parts.map(|(index, etag)| CompletedPart::builder().part_number(part_number(index)).e_tag(etag).build());
        let upload = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let request = self.client.complete_multipart_upload().bucket(&self.config.address.bucket).key(self.full(key));
        let sent = request.upload_id(upload_id).multipart_upload(upload).send().await;
        let answer = sent.map_err(|error| classify(self, Call::new("s3:PutObject", key), &error))?;
        answer.e_tag.map(ETag).ok_or_else(|| self.invalid(key, "an upload in parts ended without an ETag"))
    }

    /// Best effort: a bucket's life-cycle rule removes what stays.
    pub async fn abandon_parts(&self, key: &ObjectKey, upload_id: &str) {
        let request = self.client.abort_multipart_upload().bucket(&self.config.address.bucket).key(self.full(key));
        if let Err(error) = request.upload_id(upload_id).send().await {
            let error = classify(self, Call::new("s3:AbortMultipartUpload", key), &error);
            tracing::warn!("the unfinished parts of {key} could not be removed: {error}");
        }
    }

    pub async fn delete(&self, key: &ObjectKey) -> Result<()> {
        let request = self.client.delete_object().bucket(&self.config.address.bucket).key(self.full(key));
        let Err(error) = request.send().await else { return Ok(()) };
        match classify(self, Call::new("s3:DeleteObject", key), &error) {
            StoreError::NotFound { .. } => Ok(()),
            error => Err(error),
        }
    }

    pub async fn list_page(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        let call = Call { action: "s3:ListBucket", key: None, conditional: false };
        let request = self.client.list_objects_v2().bucket(&self.config.address.bucket);
        let request = request.prefix(format!("{}{prefix}", self.prefix)).set_continuation_token(token.clone());
        let answer = request.send().await.map_err(|error| classify(self, call, &error))?;
        let known = |object: aws_sdk_s3::types::Object| {
            // What others keep beside us is not ours to see.
            let key = ObjectKey::new(object.key()?.strip_prefix(&self.prefix)?)?;
            if !key.as_str().starts_with(prefix) {
                return None;
            }
            let modified = object.last_modified().map(|time| Timestamp::from_parts(time.secs(), time.subsec_nanos()));
            Some(ObjectInfo { key, len: u64::try_from(object.size().unwrap_or(0)).unwrap_or(0), modified })
        };
        let next = answer.next_continuation_token.filter(|_| answer.is_truncated == Some(true));
        if answer.is_truncated == Some(true) && (next.is_none() || next == token) {
            return Err(StoreError::Invalid {
                target: self.target(None),
                reason: "a listing is cut short without saying how it goes on".to_owned(),
            });
        }
        Ok(Page { objects: answer.contents.unwrap_or_default().into_iter().filter_map(known).collect(), next })
    }

    /// Waits a little, longer from attempt to attempt, and not all at the same time.
    async fn pause(&self, attempt: u32) {
        let step_ms = self.config.backoff_first_ms.max(1) << attempt.min(6);
        tokio::time::sleep(Duration::from_millis(step_ms / 2 + random::number() % step_ms)).await;
    }

    fn invalid(&self, key: &ObjectKey, reason: &str) -> StoreError {
        StoreError::Invalid { target: self.target(Some(key)), reason: reason.to_owned() }
    }
}

fn part_number(index: usize) -> i32 {
    i32::try_from(index).map_or(i32::MAX, |index| index.saturating_add(1))
}

/// How long and how often a request is tried.
struct Patience {
    timeouts: TimeoutConfig,
    retries: RetryConfig,
}

impl Patience {
    fn of(config: &S3Config, body_len: usize, attempts_max: u32) -> Self {
        let body_ms = body_len as u64 / BODY_BYTES_PER_MS_MIN;
        let operation_ms = config.operation_timeout_ms.saturating_add(body_ms.saturating_mul(u64::from(attempts_max)));
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .operation_attempt_timeout(Duration::from_millis(config.attempt_timeout_ms.saturating_add(body_ms)))
            .operation_timeout(Duration::from_millis(operation_ms))
            .build();
        let retries = match attempts_max {
            0 | 1 => RetryConfig::disabled(),
            more => RetryConfig::standard()
                .with_max_attempts(more)
                .with_initial_backoff(Duration::from_millis(config.backoff_first_ms)),
        };
        Self { timeouts, retries }
    }

    fn apply(self, builder: Builder) -> Builder {
        builder.timeout_config(self.timeouts).retry_config(self.retries)
    }
}
