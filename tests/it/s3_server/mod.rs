//! An S3 server in this process: objects in memory, conditional puts under one lock, signatures
//! checked, with faults, quirks, a slow line, and a count of requests. Benches include this file too.

use std::collections::{BTreeMap, HashMap};
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
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

mod backend;
mod policy;

use backend::Backend;

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

    /// From now on requests are allowed as this policy of IAM says, and no others.
    pub fn set_policy(&self, policy: serde_json::Value) {
        *self.state.policy.lock() = Some(policy);
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

    /// Names that every listing has, whatever was asked for.
    pub fn set_strays(&self, names: &[&str]) {
        *self.state.strays.lock() = names.iter().map(|name| (*name).to_owned()).collect();
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

pub struct State {
    objects: Mutex<BTreeMap<String, Bytes>>,
    strays: Mutex<Vec<String>>,
    uploads: Mutex<HashMap<String, BTreeMap<i32, Bytes>>>,
    uploads_begun: AtomicUsize,
    counts: Mutex<HashMap<&'static str, usize>>,
    decide: Mutex<Arc<Decide>>,
    policy: Mutex<Option<serde_json::Value>>,
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
            strays: Mutex::default(),
            uploads: Mutex::default(),
            uploads_begun: AtomicUsize::new(0),
            counts: Mutex::default(),
            decide: Mutex::new(Arc::new(|_, _| Fault::Pass)),
            policy: Mutex::default(),
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
        let policy = self.state.policy.lock().clone();
        if let Some(policy) = policy {
            let is_absent = || operation == "GetObject" && !self.state.objects.lock().contains_key(&key);
            let is_allowed = policy::allows(&policy, operation, &key, &request);
            if !is_allowed || !policy::tells_absence(&policy) && is_absent() {
                return Ok(refuse(request, 403, "AccessDenied").await);
            }
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
