//! An S3 server in this process: objects in memory, conditional puts under one lock, signatures
//! checked, with faults, quirks, a slow line, and a count of requests. Benches include this file too.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use kura::store::{Credentials, S3Address, S3Config, S3Store};
use parking_lot::Mutex;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, ETag,
    ETagCondition, GetObjectInput, GetObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Object, PutObjectInput,
    PutObjectOutput, StreamingBlob, UploadPartInput, UploadPartOutput,
};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

pub const BUCKET: &str = "test-bucket";
pub const ACCESS_KEY: &str = "test-access-key";
pub const SECRET_KEY: &str = "test-secret-key";

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Pass,
    /// 403 AccessDenied, nothing happens.
    Deny,
    /// This status (503 with `SlowDown` as code), nothing happens.
    Status(u16),
    /// It goes through after this time.
    Delay(Duration),
    /// It takes place, and is answered with this status.
    CommitThenStatus(u16),
    /// It takes place, and the connection is closed without an answer.
    CommitThenCut,
    /// The connection is closed without an answer, nothing happens.
    Cut,
    /// It is answered, but the connection breaks off in the middle of the body.
    CutBody,
}

/// A line of this latency per request and this bandwidth for all requests together.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub latency: Duration,
    pub bytes_per_second: u64,
}

type Decide = dyn Fn(&str, &str) -> Fault + Send + Sync;

pub struct S3Server {
    address: SocketAddr,
    state: Arc<State>,
    runtime: Option<Runtime>,
}

impl S3Server {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::new());
        let mut builder = S3ServiceBuilder::new(Backend(state.clone()));
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let front = Front { state: state.clone(), service: builder.build() };
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).ok();
                tokio::spawn(serve(stream, front.clone()));
            }
        });
        Self { address, state, runtime: Some(runtime) }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self, prefix: &str) -> S3Address {
        S3Address {
            bucket: BUCKET.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: Some(self.endpoint()),
            region: Some("us-east-1".to_owned()),
            ..S3Address::default()
        }
    }

    pub fn config(&self, prefix: &str) -> S3Config {
        let credentials =
            Credentials { access_key_id: ACCESS_KEY.to_owned(), secret_access_key: SECRET_KEY.to_owned() };
        S3Config { credentials: Some(credentials), backoff_first_ms: 5, ..S3Config::new(self.address(prefix)) }
    }

    pub fn store(&self, prefix: &str) -> S3Store {
        S3Store::open(self.config(prefix)).unwrap()
    }

    /// `decide` is asked for every request, with the S3 operation and the key (without the bucket).
    pub fn set_fault(&self, decide: impl Fn(&str, &str) -> Fault + Send + Sync + 'static) {
        *self.state.decide.lock() = Arc::new(decide);
    }

    pub fn set_limits(&self, limits: Option<Limits>) {
        *self.state.limits.lock() = limits;
    }

    pub fn set_page_len(&self, page_len: usize) {
        self.state.page_len.store(page_len, Ordering::SeqCst);
    }

    /// Takes conditional puts for ordinary ones.
    pub fn ignore_conditions(&self) {
        self.state.ignore_conditions.store(true, Ordering::SeqCst);
    }

    /// Compares `If-Match` with the bare tag, so that one in quotes never matches.
    pub fn compare_unquoted(&self) {
        self.state.compare_unquoted.store(true, Ordering::SeqCst);
    }

    /// Checks conditions, then lets others in before it stores.
    pub fn check_without_lock(&self) {
        self.state.check_without_lock.store(true, Ordering::SeqCst);
    }

    /// Requests of an operation (`GetObject`, `PutObject`, …) so far.
    pub fn count(&self, operation: &str) -> usize {
        self.state.counts.lock().get(operation).copied().unwrap_or(0)
    }

    /// All requests so far.
    pub fn count_all(&self) -> usize {
        self.state.counts.lock().values().sum()
    }

    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.state.objects.lock().clone()
    }

    /// The most requests that were under way at the same time.
    pub fn most_at_once(&self) -> usize {
        self.state.most_at_once.load(Ordering::SeqCst)
    }

    pub fn unfinished_uploads(&self) -> usize {
        self.state.uploads.lock().len()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct State {
    objects: Mutex<BTreeMap<String, Bytes>>,
    uploads: Mutex<HashMap<String, BTreeMap<i32, Bytes>>>,
    uploads_begun: AtomicUsize,
    counts: Mutex<HashMap<&'static str, usize>>,
    decide: Mutex<Arc<Decide>>,
    limits: Mutex<Option<Limits>>,
    /// When the line has carried everything that was given to it.
    line_free: Mutex<Instant>,
    page_len: AtomicUsize,
    under_way: AtomicUsize,
    most_at_once: AtomicUsize,
    ignore_conditions: AtomicBool,
    compare_unquoted: AtomicBool,
    check_without_lock: AtomicBool,
}

impl State {
    fn new() -> Self {
        Self {
            objects: Mutex::default(),
            uploads: Mutex::default(),
            uploads_begun: AtomicUsize::new(0),
            counts: Mutex::default(),
            decide: Mutex::new(Arc::new(|_, _| Fault::Pass)),
            limits: Mutex::new(None),
            line_free: Mutex::new(Instant::now()),
            page_len: AtomicUsize::new(1000),
            under_way: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            ignore_conditions: AtomicBool::new(false),
            compare_unquoted: AtomicBool::new(false),
            check_without_lock: AtomicBool::new(false),
        }
    }

    /// Waits until the line has carried `len` more bytes.
    async fn carry(&self, len: u64) {
        let Some(limits) = *self.limits.lock() else { return };
        let time = Duration::from_secs_f64(len as f64 / limits.bytes_per_second as f64);
        let arrival = {
            let mut free = self.line_free.lock();
            *free = (*free).max(Instant::now()) + time;
            *free
        };
        tokio::time::sleep_until(arrival.into()).await;
    }
}

// ---- HTTP: faults, the slow line, counting -------------------------------------------------

#[derive(Clone)]
struct Front {
    state: Arc<State>,
    service: S3Service,
}

async fn serve(stream: TcpStream, front: Front) {
    let service = hyper::service::service_fn(move |request| {
        let front = front.clone();
        async move {
            let now = front.state.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            front.state.most_at_once.fetch_max(now, Ordering::SeqCst);
            let answer = front.answer(request).await;
            front.state.under_way.fetch_sub(1, Ordering::SeqCst);
            answer
        }
    });
    // Ends with an error whenever a client goes or a fault cuts the connection.
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

impl Front {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
        let operation = operation(&request);
        let key = request.uri().path().trim_start_matches('/').split_once('/').map_or("", |(_, key)| key).to_owned();
        *self.state.counts.lock().entry(operation).or_default() += 1;
        let limits = *self.state.limits.lock();
        if let Some(limits) = limits {
            tokio::time::sleep(limits.latency).await;
            self.state.carry(request.body().size_hint().lower()).await;
        }
        let decide = self.state.decide.lock().clone();
        let fault = decide(operation, &key);
        let cut = || std::io::Error::other("cut by a fault");
        match fault {
            Fault::Deny => return Ok(refuse(request, 403, "AccessDenied").await),
            Fault::Status(status) => return Ok(refuse(request, status, code(status)).await),
            Fault::Cut => return Err(cut()),
            Fault::Delay(time) => tokio::time::sleep(time).await,
            Fault::Pass | Fault::CommitThenStatus(_) | Fault::CommitThenCut | Fault::CutBody => {}
        }
        let response = self.service.call(request.map(Body::from)).await.map_err(|_| cut())?;
        match fault {
            Fault::CommitThenStatus(status) => return Ok(refusal(status, code(status))),
            Fault::CommitThenCut => return Err(cut()),
            Fault::CutBody => return Ok(response.map(half)),
            _ => {}
        }
        self.state.carry(response.body().size_hint().lower()).await;
        Ok(response)
    }
}

/// A body that breaks off in the middle.
fn half(body: Body) -> Body {
    let bytes = body.bytes().unwrap_or_default();
    Body::http_body(HalfBody { rest: Some(bytes.slice(..bytes.len() / 2)), len: bytes.len() as u64 })
}

struct HalfBody {
    rest: Option<Bytes>,
    len: u64,
}

impl hyper::body::Body for HalfBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, std::io::Error>>> {
        std::task::Poll::Ready(Some(match self.rest.take() {
            Some(bytes) => Ok(hyper::body::Frame::data(bytes)),
            None => Err(std::io::Error::other("cut by a fault")),
        }))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.len)
    }
}

fn code(status: u16) -> &'static str {
    match status {
        503 => "SlowDown",
        500.. => "InternalError",
        _ => "Fault",
    }
}

/// Takes in the whole request first, so that the client is there to hear the answer.
async fn refuse(request: Request<Incoming>, status: u16, code: &str) -> Response<Body> {
    request.into_body().collect().await.ok();
    refusal(status, code)
}

fn refusal(status: u16, code: &str) -> Response<Body> {
    let xml =
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>fault</Message></Error>");
    Response::builder().status(status).header("content-type", "application/xml").body(Body::from(xml)).unwrap()
}

fn operation(request: &Request<Incoming>) -> &'static str {
    let query = request.uri().query().unwrap_or("");
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    match *request.method() {
        Method::GET if has("list-type") => "ListObjectsV2",
        Method::GET => "GetObject",
        Method::PUT if has("partNumber") => "UploadPart",
        Method::PUT => "PutObject",
        Method::DELETE if has("uploadId") => "AbortMultipartUpload",
        Method::DELETE => "DeleteObject",
        Method::POST if has("uploads") => "CreateMultipartUpload",
        Method::POST if has("uploadId") => "CompleteMultipartUpload",
        _ => "Other",
    }
}

// ---- S3: the operations --------------------------------------------------------------------

struct Backend(Arc<State>);

/// Writes out what `async_trait` would make of the trait's functions.
macro_rules! operations {
    ($($name:ident: $input:ident => $output:ident,)*) => {
        impl S3 for Backend {
            $(fn $name<'life0, 'async_trait>(
                &'life0 self,
                request: S3Request<$input>,
            ) -> Pin<Box<dyn Future<Output = S3Result<S3Response<$output>>> + Send + 'async_trait>>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                let state = self.0.clone();
                Box::pin(async move { state.$name(request).await.map(S3Response::new) })
            })*
        }
    };
}

operations! {
    get_object: GetObjectInput => GetObjectOutput,
    put_object: PutObjectInput => PutObjectOutput,
    delete_object: DeleteObjectInput => DeleteObjectOutput,
    list_objects_v2: ListObjectsV2Input => ListObjectsV2Output,
    create_multipart_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput,
    upload_part: UploadPartInput => UploadPartOutput,
    complete_multipart_upload: CompleteMultipartUploadInput => CompleteMultipartUploadOutput,
    abort_multipart_upload: AbortMultipartUploadInput => AbortMultipartUploadOutput,
}

fn tag(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes)[..16])
}

fn bucket_exists(bucket: &str) -> S3Result<()> {
    if bucket == BUCKET { Ok(()) } else { Err(s3_error!(NoSuchBucket, "The specified bucket does not exist")) }
}

async fn read(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    match body {
        None => Ok(Bytes::new()),
        Some(body) => {
            Ok(Body::from(body).collect().await.map_err(|error| s3_error!(InternalError, "{error}"))?.to_bytes())
        }
    }
}

impl State {
    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<GetObjectOutput> {
        let input = request.input;
        bucket_exists(&input.bucket)?;
        let bytes = self.objects.lock().get(&input.key).cloned().ok_or_else(|| s3_error!(NoSuchKey))?;
        let tag = tag(&bytes);
        if let Some(ETagCondition::ETag(known)) = &input.if_none_match
            && known.value() == tag
        {
            return Err(s3_error!(NotModified));
        }
        let mut content_range = None;
        let body = match input.range {
            None => bytes,
            Some(range) => {
                let part = range.check(bytes.len() as u64)?;
                content_range = Some(format!("bytes {}-{}/{}", part.start, part.end - 1, bytes.len()));
                bytes.slice(part.start as usize..part.end as usize)
            }
        };
        Ok(GetObjectOutput {
            content_length: Some(body.len() as i64),
            content_range,
            e_tag: Some(ETag::Strong(tag)),
            body: Some(StreamingBlob::from(Body::from(body))),
            ..GetObjectOutput::default()
        })
    }

    fn check(&self, request: &S3Request<PutObjectInput>, present: Option<&Bytes>) -> Result<(), S3Error> {
        if self.ignore_conditions.load(Ordering::SeqCst) {
            return Ok(());
        }
        let failed = || s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold");
        if request.input.if_none_match.is_some() && present.is_some() {
            return Err(failed());
        }
        let Some(ETagCondition::ETag(expected)) = &request.input.if_match else { return Ok(()) };
        let tag = tag(present.ok_or_else(|| s3_error!(NoSuchKey))?);
        let holds = match self.compare_unquoted.load(Ordering::SeqCst) {
            true => request.headers.get("if-match").is_some_and(|raw| raw.as_bytes() == tag.as_bytes()),
            false => expected.value() == tag,
        };
        if holds { Ok(()) } else { Err(failed()) }
    }

    async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> S3Result<PutObjectOutput> {
        bucket_exists(&request.input.bucket)?;
        let bytes = read(request.input.body.take()).await?;
        if self.check_without_lock.load(Ordering::SeqCst) {
            self.check(&request, self.objects.lock().get(&request.input.key))?;
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.objects.lock().insert(request.input.key.clone(), bytes.clone());
        } else {
            let mut objects = self.objects.lock();
            self.check(&request, objects.get(&request.input.key))?;
            objects.insert(request.input.key.clone(), bytes.clone());
        }
        Ok(PutObjectOutput { e_tag: Some(ETag::Strong(tag(&bytes))), ..PutObjectOutput::default() })
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<DeleteObjectOutput> {
        bucket_exists(&request.input.bucket)?;
        self.objects.lock().remove(&request.input.key);
        Ok(DeleteObjectOutput::default())
    }

    async fn list_objects_v2(&self, request: S3Request<ListObjectsV2Input>) -> S3Result<ListObjectsV2Output> {
        let input = request.input;
        bucket_exists(&input.bucket)?;
        let prefix = input.prefix.unwrap_or_default();
        let after = input.continuation_token.unwrap_or_default();
        let page_len = self.page_len.load(Ordering::SeqCst);
        let objects = self.objects.lock();
        let mut found = objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let contents: Vec<Object> = found
            .by_ref()
            .take(page_len)
            .map(|(key, bytes)| Object { key: Some(key.clone()), size: Some(bytes.len() as i64), ..Object::default() })
            .collect();
        let truncated = found.next().is_some();
        Ok(ListObjectsV2Output {
            is_truncated: Some(truncated),
            next_continuation_token: contents.last().and_then(|last| last.key.clone()).filter(|_| truncated),
            key_count: Some(contents.len() as i32),
            contents: Some(contents),
            ..ListObjectsV2Output::default()
        })
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<CreateMultipartUploadOutput> {
        bucket_exists(&request.input.bucket)?;
        let upload_id = format!("upload-{}", self.uploads_begun.fetch_add(1, Ordering::SeqCst));
        self.uploads.lock().insert(upload_id.clone(), BTreeMap::new());
        Ok(CreateMultipartUploadOutput { upload_id: Some(upload_id), ..CreateMultipartUploadOutput::default() })
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<UploadPartOutput> {
        let bytes = read(request.input.body).await?;
        let mut uploads = self.uploads.lock();
        let parts = uploads.get_mut(&request.input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        parts.insert(request.input.part_number, bytes.clone());
        Ok(UploadPartOutput { e_tag: Some(ETag::Strong(tag(&bytes))), ..UploadPartOutput::default() })
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        let input = request.input;
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let mut uploads = self.uploads.lock();
        let parts = uploads.get(&input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        let mut whole = Vec::new();
        for part in named {
            let bytes = part.part_number.and_then(|number| parts.get(&number)).ok_or_else(|| s3_error!(InvalidPart))?;
            if part.e_tag.is_none_or(|etag| etag.value() != tag(bytes)) {
                return Err(s3_error!(InvalidPart));
            }
            whole.extend_from_slice(bytes);
        }
        uploads.remove(&input.upload_id);
        let etag = ETag::Strong(tag(&whole));
        self.objects.lock().insert(input.key, Bytes::from(whole));
        Ok(CompleteMultipartUploadOutput { e_tag: Some(etag), ..CompleteMultipartUploadOutput::default() })
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<AbortMultipartUploadOutput> {
        self.uploads.lock().remove(&request.input.upload_id);
        Ok(AbortMultipartUploadOutput::default())
    }
}
