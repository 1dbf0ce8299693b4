//! TLS for protocols that need it: whom to trust, and a stream for FTP that can resume its sessions.

use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use suppaftp::{FtpError, FtpResult, TlsConnector, TlsStream};

use super::error::{BatchError, Result};

/// Longest time without a byte, either way.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long the other side's last words are waited for.
const LAST_WORDS: Duration = Duration::from_secs(5);
const SESSIONS_KEPT: usize = 4;

/// The one provider of ciphers.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The certificates that servers are checked against: those of a file, or else of the system.
pub fn roots(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>> {
    let Some(path) = ca_file else {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            let reason = "the system has no certificates to check servers against; name some with `ca_file`";
            return Err(BatchError::Job(reason.to_owned()));
        }
        return Ok(found.certs);
    };
    let unusable = |reason: String| BatchError::Job(format!("the certificates in {}: {reason}", path.display()));
    let found: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?.collect();
    let found = found.map_err(|error| unusable(error.to_string()))?;
    if found.is_empty() {
        return Err(unusable("there are none".to_owned()));
    }
    Ok(found)
}

/// Settings that speak these versions of TLS, and check servers against these certificates.
pub fn client_config(
    roots: Vec<CertificateDer<'static>>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig> {
    let mut store = RootCertStore::empty();
    // One that cannot be used, as systems have them, is no reason to trust none of the others.
    let (usable, _) = store.add_parsable_certificates(roots);
    if usable == 0 {
        return Err(BatchError::Job("none of the certificates to check servers against is usable".to_owned()));
    }
    let versions = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions);
    let versions = versions.map_err(|error| BatchError::Job(format!("TLS cannot be used: {error}")))?;
    Ok(versions.with_root_certificates(store).with_no_client_auth())
}

/// What makes an FTP connection a TLS connection, and its data connections too. Servers want the session of the control
/// connection resumed there, as a proof that both come from the same client, so each has sessions of its own.
/// A session of TLS 1.2 is resumed as often as needed; a ticket of TLS 1.3 only once, and those that come over data
/// connections do not count, so 1.2 is what is asked for first.
#[derive(Debug)]
pub struct FtpTls {
    config: Arc<ClientConfig>,
    has_control: AtomicBool,
}

impl FtpTls {
    /// For one FTP connection.
    pub fn new(config: &ClientConfig) -> Self {
        let mut config = config.clone();
        config.resumption = Resumption::in_memory_sessions(SESSIONS_KEPT);
        Self { config: Arc::new(config), has_control: AtomicBool::new(false) }
    }
}

impl TlsConnector for FtpTls {
    type Stream = FtpTlsStream;

    fn connect(&self, host: &str, socket: TcpStream) -> FtpResult<FtpTlsStream> {
        let refused = |error: &dyn std::fmt::Display| FtpError::SecureError(error.to_string());
        limit_silence(&socket).map_err(FtpError::ConnectionError)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| refused(&error))?;
        let connection = ClientConnection::new(self.config.clone(), name).map_err(|error| refused(&error))?;
        let mut stream = StreamOwned::new(connection, socket);
        shake_hands(&mut stream).map_err(|error| refused(&error))?;
        Ok(FtpTlsStream { stream, is_data: self.has_control.swap(true, Ordering::SeqCst) })
    }
}

/// Does the whole handshake and reads nothing behind it: before an upload the server has nothing more to say.
fn shake_hands(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> io::Result<()> {
    let StreamOwned { conn, sock } = stream;
    loop {
        while conn.wants_write() {
            conn.write_tls(sock)?;
        }
        if !conn.is_handshaking() {
            return Ok(());
        }
        if conn.read_tls(sock)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        if let Err(error) = conn.process_new_packets() {
            // The other side is told why.
            conn.write_tls(sock).ok();
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    }
}

/// Makes reads and writes fail that take too long.
pub fn limit_silence(socket: &TcpStream) -> io::Result<()> {
    socket.set_read_timeout(Some(SILENCE_MAX)).and_then(|()| socket.set_write_timeout(Some(SILENCE_MAX)))
}

/// A connection under TLS.
#[derive(Debug)]
pub struct FtpTlsStream {
    stream: StreamOwned<ClientConnection, TcpStream>,
    is_data: bool,
}

impl TlsStream for FtpTlsStream {
    type InnerStream = StreamOwned<ClientConnection, TcpStream>;

    fn tcp_stream(self) -> FtpResult<TcpStream> {
        self.stream.sock.try_clone().map_err(FtpError::ConnectionError)
    }

    fn get_ref(&self) -> &TcpStream {
        &self.stream.sock
    }

    fn mut_ref(&mut self) -> &mut Self::InnerStream {
        &mut self.stream
    }
}

impl Drop for FtpTlsStream {
    /// Ends in good order, since a server takes an upload without an end for one that was cut. What the server says
    /// last is read: the tickets with which the next data connection resumes the session are in it.
    fn drop(&mut self) {
        let StreamOwned { conn, sock } = &mut self.stream;
        conn.send_close_notify();
        let said = (|| {
            while conn.wants_write() {
                conn.write_tls(sock)?;
            }
            sock.shutdown(Shutdown::Write)
        })();
        if said.is_err() || !self.is_data || sock.set_read_timeout(Some(LAST_WORDS)).is_err() {
            return;
        }
        while conn.read_tls(sock).is_ok_and(|count| count > 0) && conn.process_new_packets().is_ok() {
            let mut rest = [0; 4096];
            while conn.reader().read(&mut rest).is_ok_and(|count| count > 0) {}
        }
    }
}
