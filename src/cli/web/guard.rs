//! Who may look: the token that opens a session once, the session's cookie, and where requests may come from.

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use std::sync::Arc;

use super::routes::Server;
use crate::base::random;

/// Where the token is exchanged.
pub const SESSION_PATH: &str = "/api/session";
/// Everything below it needs the session.
const API: &str = "/api/";

/// What keeps others out.
pub struct Guard {
    /// `NAME.localhost:PORT`. Browsers keep cookies by name and not by port, so a name of its own keeps them from
    /// other servers of this machine.
    host: String,
    origin: String,
    cookie: String,
    /// Opens the session; taken by the first who shows it.
    token: Mutex<Option<String>>,
    /// What the cookie has to be.
    session: Mutex<Option<String>>,
}

/// Headers of every answer. Nothing that is not part of the program runs or is fetched, and no other page may hold
/// this one.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

impl Guard {
    /// A guard, and the address that opens a session once. The token stands behind the `#`, which browsers send to
    /// nobody, and the page takes it out of the address at once.
    pub fn new(port: u16) -> (Self, String) {
        let secret = || HEXLOWER.encode(&random::bytes::<32>());
        let host = format!("kura-{}.localhost:{port}", HEXLOWER.encode(&random::bytes::<4>()));
        let (origin, token) = (format!("http://{host}"), secret());
        let address = format!("{origin}/#token={token}");
        let guard = Self {
            host,
            origin,
            cookie: format!("kura-{port}"),
            token: Mutex::new(Some(token)),
            session: Mutex::new(None),
        };
        (guard, address)
    }

    /// Opens the session for the token; the cookie to set. Nobody gets one for it again.
    pub fn exchange(&self, token: &str) -> Option<HeaderValue> {
        let mut kept = self.token.lock();
        if !kept.as_deref().is_some_and(|kept| is_same(kept, token)) {
            return None;
        }
        *kept = None;
        let session = HEXLOWER.encode(&random::bytes::<32>());
        let cookie = format!("{}={session}; HttpOnly; SameSite=Strict; Path=/", self.cookie);
        *self.session.lock() = Some(session);
        HeaderValue::from_str(&cookie).ok()
    }

    fn has_session(&self, headers: &HeaderMap) -> bool {
        let session = self.session.lock();
        let Some(session) = session.as_deref() else { return false };
        let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|cookies| cookies.to_str().ok());
        cookies.flat_map(|cookies| cookies.split(';')).any(|cookie| {
            let own = cookie.trim().strip_prefix(self.cookie.as_str()).and_then(|rest| rest.strip_prefix('='));
            own.is_some_and(|value| is_same(session, value))
        })
    }

    /// Why a request is refused.
    fn refusal(&self, request: &Request) -> Option<(StatusCode, &'static str)> {
        let headers = request.headers();
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        if text(header::HOST) != Some(&self.host) {
            return Some((StatusCode::MISDIRECTED_REQUEST, "this is not the name of this server"));
        }
        let is_change = request.method() != Method::GET;
        let is_api = request.uri().path().starts_with(API);
        let is_ours = match text(header::ORIGIN) {
            Some(origin) => origin == self.origin,
            None => !is_change,
        };
        let is_from_here = match text(HeaderName::from_static("sec-fetch-site")) {
            None | Some("same-origin" | "none") => true,
            // A link to the page itself may stand anywhere.
            Some(_) => !is_api && !is_change,
        };
        if !is_ours || !is_from_here {
            return Some((StatusCode::FORBIDDEN, "the request comes from another page"));
        }
        if is_api && request.uri().path() != SESSION_PATH && !self.has_session(headers) {
            return Some((StatusCode::UNAUTHORIZED, "no session; the address that `kura web` printed opens one, once"));
        }
        None
    }
}

/// Compares in a time that does not tell where they differ.
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Lets a request through or not, and sets the headers of every answer.
pub async fn check(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let mut response = match server.guard.refusal(&request) {
        Some((status, why)) => (status, why).into_response(),
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
