//! Files on a WebDAV server (RFC 4918).

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use ureq::http::{Request, Response, StatusCode, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body, SendBody};
use zeroize::Zeroizing;

use super::error::{BatchError, Code, Result};
use super::filesystem::{Capabilities, Each, FileInfo, FilePath, FileSystem, Filter, Replacing, check_unchanged};
use super::multistatus::{self, Resource, Unreadable};
use super::retry::Retrier;
use super::tls::{SILENCE_MAX, provider, roots};
use super::url::encode;
use super::walk::{Kind, Listed, walk_tree};
use super::work::{Remote, TempFile, changed, copy_file};

const CONNECTIONS_MAX: usize = 16;
const CONNECT_TIME: Duration = Duration::from_secs(15);
const PROPFIND: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?><propfind xmlns=\"DAV:\"><prop><resourcetype/>\
                        <getcontentlength/><getlastmodified/><getetag/></prop></propfind>";

/// How a server is reached.
pub struct DavAddress {
    /// Its name or address.
    pub host: String,
    /// The port, when it is not the usual one.
    pub port: Option<u16>,
    /// The user.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Zeroizing<String>>,
    /// Whether it is spoken to under TLS.
    pub is_secure: bool,
}

/// A collection on a WebDAV server.
pub struct DavFiles {
    agent: Agent,
    /// The address of the server, without a path.
    server: String,
    /// The collection's path, without a `/` at its end.
    root: Vec<u8>,
    login: Option<header::HeaderValue>,
    address: String,
}

/// What goes along with a request.
struct Sent<'a> {
    from: &'a mut dyn Read,
    len: u64,
}

impl DavFiles {
    /// Prepares access to a collection; the server is not asked for anything yet. `ca_file` holds the certificates to
    /// check the server against, instead of the system's.
    pub fn new(at: DavAddress, root: &str, ca_file: Option<&Path>) -> Result<Self> {
        let unusable = |reason: &str| BatchError::Job(format!("the WebDAV address {reason}"));
        if at.host.is_empty() {
            return Err(unusable("has no host"));
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // Nobody else is sent the password, nor what the files are.
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("kura/", env!("CARGO_PKG_VERSION")))
            .allow_non_standard_methods(true)
            .max_idle_connections(CONNECTIONS_MAX)
            .max_idle_connections_per_host(CONNECTIONS_MAX)
            .timeout_connect(Some(CONNECT_TIME))
            .timeout_per_read(Some(SILENCE_MAX))
            .timeout_per_write(Some(SILENCE_MAX));
        if at.is_secure {
            let found = roots(ca_file)?;
            let found: Vec<_> = found.iter().map(|found| Certificate::from_der(found).to_owned()).collect();
            let tls = TlsConfig::builder().provider(TlsProvider::Rustls).root_certs(RootCerts::new_with_certs(&found));
            config = config.https_only(true).tls_config(tls.unversioned_rustls_crypto_provider(provider()).build());
        }
        let host = if at.host.contains(':') { format!("[{}]", at.host) } else { at.host.clone() };
        let port = at.port.map(|port| format!(":{port}")).unwrap_or_default();
        let scheme = if at.is_secure { "https" } else { "http" };
        let user = at.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let login = at.user.as_ref().map(|user| login(user, at.password.as_ref())).transpose();
        Ok(Self {
            agent: config.build().new_agent(),
            server: format!("{scheme}://{host}{port}"),
            root: root.trim_end_matches('/').as_bytes().to_vec(),
            login: login.map_err(|_| unusable("has a user that HTTP cannot carry"))?,
            address: format!("{}://{user}{host}{port}{root}", if at.is_secure { "webdavs" } else { "webdav" }),
        })
    }

    fn full(&self, path: &[u8]) -> Vec<u8> {
        [&self.root, &b"/"[..], path].concat()
    }

    fn url(&self, full: &[u8]) -> String {
        format!("{}{}", self.server, encode(full))
    }

    /// Sends a request; the answer may be a refusal.
    fn ask(
        &self,
        method: &str,
        full: &[u8],
        headers: &[(&str, &str)],
        sent: Option<Sent<'_>>,
        target: &str,
    ) -> Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(self.url(full));
        request = request.header(header::ACCEPT_ENCODING, "identity");
        if let Some(login) = &self.login {
            request = request.header(header::AUTHORIZATION, login);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let unusable = |error: ureq::http::Error| BatchError::file(Code::BadName, target, error.to_string());
        let outcome = match sent {
            Some(Sent { from, len }) => {
                let request = request.header(header::CONTENT_LENGTH, len);
                self.agent.run(request.body(SendBody::from_reader(from)).map_err(unusable)?)
            }
            None => self.agent.run(request.body(()).map_err(unusable)?),
        };
        outcome.map_err(|error| broken(target, &error))
    }

    /// Asks for what a resource, or what is in it, is like.
    fn find(&self, full: &[u8], depth: &str, target: &str, each: &mut dyn FnMut(Resource) -> Result<()>) -> Result<()> {
        let mut body = PROPFIND.as_bytes();
        let sent = Sent { len: body.len() as u64, from: &mut body };
        let headers = [("Depth", depth), ("Content-Type", "application/xml; charset=utf-8")];
        let mut answer = self.ask("PROPFIND", full, &headers, Some(sent), target)?;
        if answer.status() != StatusCode::MULTI_STATUS {
            return Err(refused(target, &answer));
        }
        multistatus::read(Remote(answer.body_mut().as_reader()), each).map_err(|error| match error {
            Unreadable::Refused(error) => error,
            Unreadable::Endless => {
                BatchError::file(Code::Protocol, target, "the server's answer is too long: it names too much")
            }
            Unreadable::Nonsense(reason) => {
                BatchError::file(Code::Short, target, format!("the server's answer makes no sense: {reason}"))
            }
        })
    }

    fn list(&self, dir: &[u8]) -> Result<Vec<Listed>> {
        let shown = String::from_utf8_lossy(dir).escape_debug().to_string();
        let full = if dir.is_empty() { self.full(b"") } else { [&self.full(dir), &b"/"[..]].concat() };
        let mut found = Vec::new();
        self.find(&full, "1", &shown, &mut |resource| {
            // The collection itself stands there as well. Servers may write its address in another way.
            let Some(name) = dav_name(&full, &resource.path).map(<[u8]>::to_vec) else { return Ok(()) };
            if name.contains(&b'/') || resource.status.is_some_and(|status| !(200..300).contains(&status)) {
                let shown = String::from_utf8_lossy(&name).escape_debug().to_string();
                tracing::warn!(component = "scan", status = resource.status, "passed over: {shown}");
                return Ok(());
            }
            let kind = if resource.is_dir { Kind::Directory } else { Kind::File };
            let (size, modified) = (resource.size.unwrap_or(0), resource.modified);
            found.push(Listed { name, kind, size, modified, etag: resource.etag.as_deref().map(tag) });
            Ok(())
        })?;
        Ok(found)
    }

    /// What a file is like, and what the server says of it.
    fn look(&self, path: &FilePath) -> Result<(FileInfo, Resource)> {
        let (full, target) = (self.full(path.as_bytes()), path.to_string());
        let mut found = None;
        self.find(&full, "0", &target, &mut |resource| {
            found.get_or_insert(resource);
            Ok(())
        })?;
        let nonsense = || BatchError::file(Code::Protocol, target.clone(), "the server says nothing of it");
        let resource = found.ok_or_else(nonsense)?;
        if let Some(status) = resource.status.filter(|status| !(200..300).contains(status)) {
            return Err(BatchError::file(code(status), target, format!("the server answered {status}")));
        }
        let etag = resource.etag.as_deref().map(tag);
        let size = if resource.is_dir { 0 } else { resource.size.unwrap_or(0) };
        let info = FileInfo { path: path.clone(), size, modified: resource.modified, etag, is_dir: resource.is_dir };
        Ok((info, resource))
    }

    /// Fails unless the answer says that it was done.
    fn done(&self, answer: &mut Response<Body>, target: &str) -> Result<()> {
        match answer.status() {
            StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            StatusCode::MULTI_STATUS => {
                let mut worst = None;
                let read = multistatus::read(Remote(answer.body_mut().as_reader()), &mut |resource| {
                    worst = worst.or(resource.status.filter(|status| !(200..300).contains(status)));
                    Ok::<_, BatchError>(())
                });
                match (worst, read) {
                    (None, Ok(())) => Ok(()),
                    (status, _) => {
                        let status = status.unwrap_or(500);
                        Err(BatchError::file(code(status), target, format!("the server answered {status} within 207")))
                    }
                }
            }
            _ => Err(refused(target, answer)),
        }
    }

    fn put(&self, partial: &FilePath, from: &TempFile, target: &str) -> Result<()> {
        let mut reader = from.reader().map_err(|error| BatchError::of_io("the work directory", &error))?;
        let sent = Sent { from: &mut reader, len: from.len() };
        let full = self.full(partial.as_bytes());
        let mut answer = self.ask("PUT", &full, &[("Content-Type", "application/octet-stream")], Some(sent), target)?;
        self.done(&mut answer, target)?;
        drop(answer);
        let (there, _) = self.look(partial)?;
        if there.size != from.len() {
            let reason = format!("the server has {} bytes of {} that were sent", there.size, from.len());
            return Err(BatchError::file(Code::Short, target, reason));
        }
        Ok(())
    }
}

impl FileSystem for DavFiles {
    fn walk(&self, filter: &Filter, retrier: &Retrier<'_>, each: &mut Each<'_>) -> Result<()> {
        walk_tree(filter, retrier, &mut |dir| self.list(dir), each)
    }

    fn stat(&self, path: &FilePath) -> Result<FileInfo> {
        self.look(path).map(|(info, _)| info)
    }

    fn download(&self, path: &FilePath, to: &mut dyn Write) -> Result<FileInfo> {
        let target = path.to_string();
        let (before, Resource { size, .. }) = self.look(path)?;
        if before.is_dir {
            return Err(BatchError::file(Code::NotAFile, target, "it is a directory now"));
        }
        let mut answer = self.ask("GET", &self.full(path.as_bytes()), &[], None, &target)?;
        if answer.status() != StatusCode::OK {
            return Err(refused(&target, &answer));
        }
        copy_file(&mut Remote(answer.body_mut().as_reader()), to, size, &target)?;
        let after = self.stat(path)?;
        if after != before {
            return Err(changed(&target));
        }
        Ok(after)
    }

    fn replace(&self, expected: &FileInfo, from: &TempFile) -> Result<FileInfo> {
        let (path, target) = (&expected.path, expected.path.to_string());
        check_unchanged(expected, &self.stat(path)?)?;
        let partial = path.partial();
        let put = self.put(&partial, from, &target).and_then(|()| {
            let (now, resource) = self.look(path)?;
            check_unchanged(expected, &now)?;
            let to = self.url(&self.full(path.as_bytes()));
            // A tag that stands for every byte.
            let strong = resource.etag.filter(|etag| etag.starts_with('"'));
            let condition = strong.map(|etag| format!("<{to}> ([{etag}])"));
            let mut headers = vec![("Destination", &*to), ("Overwrite", "T")];
            headers.extend(condition.as_deref().map(|condition| ("If", condition)));
            let mut answer = self.ask("MOVE", &self.full(partial.as_bytes()), &headers, None, &target)?;
            self.done(&mut answer, &target)
        });
        if let Err(error) = put {
            self.remove(&partial).ok();
            return Err(error);
        }
        self.stat(path)
    }

    fn remove(&self, path: &FilePath) -> Result<()> {
        let target = path.to_string();
        let mut answer = self.ask("DELETE", &self.full(path.as_bytes()), &[], None, &target)?;
        self.done(&mut answer, &target)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { replacing: Replacing::Plain, whole_run: false, connections_max: CONNECTIONS_MAX }
    }

    fn address(&self) -> &str {
        &self.address
    }
}

fn login(
    user: &str,
    password: Option<&Zeroizing<String>>,
) -> std::result::Result<header::HeaderValue, header::InvalidHeaderValue> {
    let both = Zeroizing::new(format!("{user}:{}", password.map_or("", |password| password.as_str())));
    let text = Zeroizing::new(format!("Basic {}", data_encoding::BASE64.encode(both.as_bytes())));
    let mut value = header::HeaderValue::from_str(&text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A tag as it is compared. Servers call one weak while the file is very new, and strong later.
fn tag(etag: &str) -> String {
    etag.strip_prefix("W/").unwrap_or(etag).to_owned()
}

fn code(status: u16) -> Code {
    match status {
        401 | 407 => Code::Login,
        403 => Code::Denied,
        404 | 409 | 410 => Code::Vanished,
        412 => Code::SourceChanged,
        423 => Code::Locked,
        413 | 507 => Code::Full,
        414 => Code::BadName,
        408 | 425 | 429 | 500 | 502..=504 => Code::Busy,
        _ => Code::Protocol,
    }
}

/// What an answer that is a refusal means.
fn refused(target: &str, answer: &Response<Body>) -> BatchError {
    let status = answer.status();
    let reason = if status.is_redirection() {
        "the server sends somewhere else, where a password is not taken; name that address in the job".to_owned()
    } else {
        format!("the server answered {status}")
    };
    let wait = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match BatchError::file(code(status.as_u16()), target, reason) {
        BatchError::File { code, target, reason, .. } => {
            BatchError::File { code, target, reason, wait_ms: wait.map(|seconds| seconds.saturating_mul(1000)) }
        }
        error => error,
    }
}

/// The name that a path has in a collection, whose own path ends with a slash; `None` for the collection itself, and
/// for what lies elsewhere.
pub fn dav_name<'a>(collection: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let name = path.strip_prefix(collection)?;
    let name = name.strip_suffix(b"/").unwrap_or(name);
    (!name.is_empty()).then_some(name)
}

/// What it means that there is no answer.
fn broken(target: &str, error: &ureq::Error) -> BatchError {
    let reason = error.to_string();
    let code = match error {
        _ if reason.contains("certificate") => Code::Untrusted,
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => Code::Untrusted,
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
            Code::Network
        }
        _ => Code::Protocol,
    };
    BatchError::file(code, target, reason)
}
