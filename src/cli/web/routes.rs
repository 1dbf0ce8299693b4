//! What the page can ask: a request of the command table, names, bytes, two files side by side, sums over history.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::compare::{Side, compare, image_type};
use super::guard::{self, Guard, SESSION_PATH};
use super::summary::{Sizes, preview};
use super::{assets, stream};
use crate::cli::view::View;
use crate::control::{Exit, Failure, ForgetMode, KeepRules, PathText, REQUEST_LEN_MAX, Reply, Request};

/// Files that are compared at the same time; each may take some hundred megabytes of memory.
const COMPARING_MAX: usize = 1;
/// How much of a file is looked at to tell what it is, in bytes.
const PROBE_LEN: u64 = 512;

/// What handlers share.
pub struct Server {
    /// The workspace.
    pub view: View,
    pub(super) guard: Guard,
    comparing: Semaphore,
    sizes: Sizes,
}

impl Server {
    /// A server for a workspace.
    pub fn new(view: View, guard: Guard) -> Arc<Self> {
        Arc::new(Self { view, guard, comparing: Semaphore::new(COMPARING_MAX), sizes: Sizes::default() })
    }
}

/// A failure as an answer: the reply that every door gives.
struct Failed(Failure);

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let status = match self.0.exit {
            Exit::Usage => StatusCode::BAD_REQUEST,
            Exit::Denied => StatusCode::FORBIDDEN,
            Exit::Unreachable => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        (status, Json(Reply::from(self.0))).into_response()
    }
}

type Answer<T> = Result<Json<T>, Failed>;

/// All there is.
pub fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route(SESSION_PATH, post(session))
        .route("/api/about", get(about))
        .route("/api/ask", post(ask))
        .route("/api/list", post(list))
        .route("/api/compare", post(compared))
        .route("/api/file", get(file))
        .route("/api/sizes", get(sizes))
        .route("/api/stored", get(stored))
        .route("/api/retention", post(retention))
        .fallback(get(asset))
        .layer(DefaultBodyLimit::max(REQUEST_LEN_MAX))
        .layer(middleware::from_fn_with_state(server.clone(), guard::check))
        .with_state(server)
}

/// Runs what may wait for the workspace.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failed> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|_| Err(Failure::new(Exit::Other, "the request came to no end")));
    done.map_err(Failed)
}

async fn asset(uri: Uri) -> Response {
    match assets::find(uri.path()) {
        Some((media, text)) => ([(header::CONTENT_TYPE, media)], text).into_response(),
        None => (StatusCode::NOT_FOUND, "there is no such page").into_response(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    token: String,
}

async fn session(State(server): State<Arc<Server>>, Json(Token { token }): Json<Token>) -> Response {
    match server.guard.exchange(&token) {
        Some(cookie) => (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response(),
        None => (StatusCode::FORBIDDEN, "this address was used already; start `kura web` again").into_response(),
    }
}

#[derive(Serialize)]
struct About {
    name: String,
    mounted: bool,
    program: &'static str,
}

async fn about(State(server): State<Arc<Server>>) -> Json<About> {
    let mounted = matches!(server.view, View::Mounted(_));
    Json(About { name: server.view.name(), mounted, program: env!("CARGO_PKG_VERSION") })
}

/// What the page may ask for; nothing that writes outside of the workspace, ends its mount or frees what is stored.
fn is_for_the_page(request: &Request) -> bool {
    match request {
        Request::Forget { mode, .. } => *mode == ForgetMode::DryRun,
        Request::Gc { delete, .. } => !delete,
        Request::Status { .. }
        | Request::Snapshot { .. }
        | Request::Tag { .. }
        | Request::Untag { .. }
        | Request::Flush { .. }
        | Request::Log { .. }
        | Request::Blame { .. }
        | Request::Find { .. }
        | Request::Undelete { .. }
        | Request::Show { .. }
        | Request::Diff { .. }
        | Request::Restore { .. }
        | Request::Revert { .. }
        | Request::Sync {}
        | Request::Conflicts {}
        | Request::Resolve { .. }
        | Request::Lock { .. }
        | Request::Unlock { .. }
        | Request::Locks {}
        | Request::Metrics {}
        | Request::Stored {}
        | Request::Jobs {}
        | Request::Job { .. }
        | Request::Cancel { .. } => true,
        _ => false,
    }
}

async fn ask(State(server): State<Arc<Server>>, body: String) -> Answer<Reply> {
    let request: Request = serde_json::from_str(&body)
        .map_err(|error| Failure::new(Exit::Usage, format!("the request is not understood: {error}")))?;
    if !is_for_the_page(&request) {
        return Err(Failure::new(Exit::Denied, "this is not done from the page").hint("use the command line").into());
    }
    Ok(Json(blocking(move || server.view.ask(&request)).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    version: String,
    path: PathText,
}

async fn list(State(server): State<Arc<Server>>, Json(place): Json<Place>) -> Answer<crate::cli::view::Listing> {
    Ok(Json(blocking(move || server.view.list(&place.version, &place.path)).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    before: Option<Place>,
    after: Option<Place>,
    /// Unchanged lines around each change.
    context: usize,
}

async fn compared(State(server): State<Arc<Server>>, Json(pair): Json<Pair>) -> Answer<super::compare::Comparison> {
    let _one = server.comparing.acquire().await.map_err(|_| Failure::new(Exit::Interrupted, "the page is ending"))?;
    let held = server.clone();
    let done = blocking(move || {
        let side = |place: Option<Place>| match place {
            None => Ok(None),
            Some(Place { version, path }) => {
                let content = held.view.file(&version, &path)?;
                Ok::<_, Failure>(Some(Side { name: path, content }))
            }
        };
        compare(side(pair.before)?, side(pair.after)?, pair.context)
    });
    Ok(Json(done.await?))
}

/// How a file is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    version: String,
    /// The path, or (`hex`) its bytes in hexadecimal.
    #[serde(default)]
    path: String,
    hex: Option<String>,
    /// At most so many bytes from its beginning.
    max: Option<u64>,
    /// As a file to keep.
    #[serde(default)]
    download: bool,
}

impl Wanted {
    fn place(&self) -> Result<PathText, Failure> {
        let Some(hex) = &self.hex else { return Ok(PathText(self.path.clone().into_bytes())) };
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes());
        let bad = |error| Failure::new(Exit::Usage, format!("the path is not understood: {error}"));
        bytes.map(PathText).map_err(bad)
    }
}

/// Whether bytes are the address of a file, or the body of another request than those of the command table. For tests
/// of what no bytes may bring down.
pub fn page_understands(bytes: &[u8]) -> bool {
    let uri = Uri::try_from(bytes).ok();
    if let Some(Query(wanted)) = uri.and_then(|uri| Query::<Wanted>::try_from_uri(&uri).ok()) {
        return wanted.place().is_ok_and(|path| attachment(&path).to_str().is_ok());
    }
    serde_json::from_slice::<Pair>(bytes).is_ok()
        || serde_json::from_slice::<Token>(bytes).is_ok()
        || serde_json::from_slice::<KeepRules>(bytes).is_ok()
}

/// What is in a version is nobody's page: it runs nothing, fetches nothing, and stands alone.
const SANDBOX: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox";

async fn file(State(server): State<Arc<Server>>, Query(wanted): Query<Wanted>) -> Result<Response, Failed> {
    let path = wanted.place()?;
    let name = path.clone();
    let opened = blocking(move || {
        let content = server.view.file(&wanted.version, &path)?;
        let first = content.read_first(PROBE_LEN)?;
        Ok((content, first))
    });
    let (content, first) = opened.await?;
    let len = content.size.min(wanted.max.unwrap_or(u64::MAX));
    let media = image_type(&name, &first).unwrap_or("application/octet-stream");
    let mut answer = stream::body(content.clone(), len).into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CONTENT_LENGTH, len.into());
    headers.insert(HeaderName::from_static("x-kura-size"), content.size.into());
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    if wanted.download || media == "application/octet-stream" {
        headers.insert(header::CONTENT_DISPOSITION, attachment(&name));
    }
    Ok(answer)
}

/// The header that names a download (RFC 6266).
fn attachment(path: &PathText) -> HeaderValue {
    let name = path.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let mut text = String::from("attachment; filename*=UTF-8''");
    for byte in String::from_utf8_lossy(name).bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => text.push(char::from(byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("attachment"))
}

async fn sizes(State(server): State<Arc<Server>>) -> Answer<super::summary::Curve> {
    let held = server.clone();
    Ok(Json(blocking(move || held.sizes.curve(&held.view)).await?))
}

/// Whether to count anew.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    #[serde(default)]
    again: bool,
}

async fn stored(
    State(server): State<Arc<Server>>,
    Query(Count { again }): Query<Count>,
) -> Answer<Option<serde_json::Value>> {
    Ok(Json(blocking(move || server.sizes.stored(&server.view, again)).await?))
}

async fn retention(
    State(server): State<Arc<Server>>,
    Json(keep): Json<KeepRules>,
) -> Answer<BTreeMap<&'static str, serde_json::Value>> {
    Ok(Json(blocking(move || preview(&server.view, keep)).await?))
}
