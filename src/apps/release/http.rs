//! A repository behind HTTP: read by GET, reported to by PUT. Anything that serves a directory will do.

use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use zeroize::Zeroizing;

use super::error::{ReleaseError, Result};
use super::repository::{Access, Repository};
use crate::base::disk::{RealDisk, read_file};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer of all takes no longer than this.
const CALL_TIMEOUT: Duration = Duration::from_secs(600);
const REDIRECTS_MAX: u32 = 3;
const FILE_LEN_MAX: usize = 1 << 20;

/// A repository behind HTTP.
pub(super) struct HttpRepository {
    agent: ureq::Agent,
    /// Ends in `/`.
    base: String,
    token: Option<Zeroizing<String>>,
}

fn agent(address: &str, access: &Access) -> Result<ureq::Agent> {
    let unfit = |reason: String| ReleaseError::Repository { repository: address.to_owned(), reason };
    let certs = |path: &str| -> Result<Vec<Certificate<'static>>> {
        let mut found = Vec::new();
        for item in parse_pem(&read(path)?) {
            if let PemItem::Certificate(cert) = item.map_err(|error| unfit(format!("{path}: {error}")))? {
                found.push(cert);
            }
        }
        if found.is_empty() { Err(unfit(format!("{path} holds no certificate"))) } else { Ok(found) }
    };
    let client = match (&access.client_cert, &access.client_key) {
        (Some(cert), Some(key)) => {
            let pem = Zeroizing::new(read(key)?);
            // What is wrong with a key is not told: it may be quoted.
            let key = PrivateKey::from_pem(&pem).map_err(|_| unfit(format!("{key} holds no private key")))?;
            Some(ClientCert::new_with_certs(&certs(cert)?, key))
        }
        (None, None) => None,
        _ => return Err(unfit("a client's certificate and its key go together".to_owned())),
    };
    let roots = match &access.ca {
        Some(ca) => certs(ca)?,
        None if address.starts_with("https") => {
            let found = rustls_native_certs::load_native_certs().certs;
            found.iter().map(|cert| Certificate::from_der(cert).to_owned()).collect()
        }
        None => Vec::new(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(client);
    let config = ureq::Agent::config_builder()
        .tls_config(tls.build())
        .http_status_as_error(false)
        .max_redirects(REDIRECTS_MAX)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(CALL_TIMEOUT));
    Ok(ureq::Agent::new_with_config(config.build()))
}

fn read(path: &str) -> Result<Vec<u8>> {
    read_file(&RealDisk, path.as_ref(), FILE_LEN_MAX)
        .map_err(|error| ReleaseError::Disk { path: path.to_owned(), reason: error.to_string() })
}

impl HttpRepository {
    pub(super) fn open(address: &str, access: &Access) -> Result<Self> {
        let unfit =
            |reason: &str| ReleaseError::Repository { repository: address.to_owned(), reason: reason.to_owned() };
        let url = url::Url::parse(address).map_err(|_| unfit("this is no address"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ReleaseError::Repository {
                repository: url.host_str().unwrap_or_default().to_owned(),
                reason: "secrets do not belong in an address; give a file with a token".to_owned(),
            });
        }
        let local = match url.host() {
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        let token = match &access.token_file {
            Some(_) if url.scheme() == "http" && !local => {
                return Err(unfit("a token is sent by HTTPS only"));
            }
            Some(path) => {
                let bytes = Zeroizing::new(read(path)?);
                let text = std::str::from_utf8(&bytes).map_err(|_| unfit("the token is no text"))?;
                Some(Zeroizing::new(format!("Bearer {}", text.trim())))
            }
            None => None,
        };
        let base = format!("{}/", address.trim_end_matches('/'));
        Ok(Self { agent: agent(address, access)?, base, token })
    }

    fn failed(&self, reason: String) -> ReleaseError {
        ReleaseError::Repository { repository: self.address(), reason }
    }

    /// Writes a file, or (with `is_new`) only where there is none; the status of the answer.
    fn send(&self, name: &str, bytes: &[u8], is_new: bool) -> Result<u16> {
        let mut request = self.agent.put(format!("{}{name}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", token.as_str());
        }
        if is_new {
            request = request.header("if-none-match", "*");
        }
        let answer = request.send(bytes).map_err(|error| self.failed(format!("{name}: {error}")))?;
        Ok(answer.status().as_u16())
    }

    fn status(&self, name: &str, status: u16) -> ReleaseError {
        self.failed(match status {
            401 | 403 => format!("{name}: access is denied (HTTP {status}); is the token or certificate right?"),
            _ => format!("{name}: HTTP {status}"),
        })
    }
}

impl Repository for HttpRepository {
    fn get(&self, name: &str, len_max: u64) -> Result<Option<Vec<u8>>> {
        let mut request = self.agent.get(format!("{}{name}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", token.as_str());
        }
        let mut answer = request.call().map_err(|error| self.failed(format!("{name}: {error}")))?;
        match answer.status().as_u16() {
            200 => {}
            404 | 410 => return Ok(None),
            status => return Err(self.status(name, status)),
        }
        let (mut bytes, limit) = (Vec::new(), len_max.saturating_add(1));
        let reader = answer.body_mut().with_config().limit(u64::MAX).reader();
        std::io::Read::read_to_end(&mut std::io::Read::take(reader, limit), &mut bytes)
            .map_err(|error| self.failed(format!("{name}: {error}")))?;
        Ok(Some(bytes))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        match self.send(name, bytes, false)? {
            200..300 => Ok(()),
            status => Err(self.status(name, status)),
        }
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        match self.send(name, bytes, true)? {
            200..300 => Ok(true),
            412 => Ok(false),
            status => Err(self.status(name, status)),
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        Err(self.failed(format!("{name} cannot be removed by HTTP; publish into the directory that is served")))
    }

    fn list(&self, _prefix: &str) -> Result<Vec<String>> {
        Err(self.failed("HTTP tells no names; publish into the directory that is served".to_owned()))
    }

    fn address(&self) -> String {
        self.base.clone()
    }
}

/// Sends JSON to an address that somebody gave for that.
pub(super) fn post(url: &str, body: &[u8]) -> Result<()> {
    let failed = |reason: String| ReleaseError::Repository { repository: "the webhook".to_owned(), reason };
    let request = agent(url, &Access::default())?.post(url).header("content-type", "application/json");
    // The address may hold a secret, so what fails is told without it.
    let answer = request.send(body).map_err(|_| failed("it does not answer".to_owned()))?;
    match answer.status().as_u16() {
        200..300 => Ok(()),
        status => Err(failed(format!("HTTP {status}"))),
    }
}
