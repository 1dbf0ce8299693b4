//! Files on an FTP server, plain or under TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use suppaftp::types::FileType;
use suppaftp::{FtpError, FtpResult, ImplFtpStream, Status, TransferStream};
use zeroize::Zeroizing;

use super::error::{BatchError, Code, Result};
use super::filesystem::{
    Capabilities, Each, FileInfo, FilePath, FileSystem, Filter, Modified, Replacing, check_unchanged,
};
use super::ftp_listing::{Bytes, Facts, Line, facts, facts_line, from_text, list_line, time, to_text};
use super::pool::Pool;
use super::retry::Retrier;
use super::tls::{FtpTls, FtpTlsStream, client_config, limit_silence, roots};
use super::walk::{Kind, Listed, join, walk_tree};
use super::work::{Remote, TempFile, changed, copy, copy_file};

const CONNECTIONS_MAX: usize = 8;
const CONNECT_TIME: Duration = Duration::from_secs(15);
/// How long the end of a transfer that failed here is waited for.
const GIVE_UP_TIME: Duration = Duration::from_secs(5);
/// Longest line of a listing, in bytes; lines of one directory, and their bytes together.
const LINE_LEN_MAX: u64 = 64 * 1024;
const LINES_MAX: usize = 4_000_000;
const LISTING_LEN_MAX: usize = 512 * 1024 * 1024;
const BEGUN: [Status; 2] = [Status::AboutToSend, Status::AlreadyOpen];

/// How a connection is kept from others' eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FtpSecurity {
    /// Not at all.
    None,
    /// It asks for TLS once it is there (`AUTH TLS`), and is given up when that is refused.
    Explicit,
    /// It begins with TLS.
    Implicit,
}

/// How a server is reached.
pub struct FtpAddress {
    /// Its name or address.
    pub host: String,
    /// The port, when it is not the usual one.
    pub port: Option<u16>,
    /// The user; `anonymous` when missing.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Zeroizing<String>>,
    /// Whether and how TLS is used.
    pub security: FtpSecurity,
}

/// A directory on an FTP server.
pub struct FtpFiles {
    at: FtpAddress,
    /// Settings in the order in which they are tried.
    tls: Vec<ClientConfig>,
    root: Vec<u8>,
    address: String,
    pool: Pool<Connection>,
}

struct Connection {
    ftp: Ftp,
    /// Whether the server tells facts of files (`MLST`, `MLSD`), and times of files (`MDTM`).
    has_facts: bool,
    has_times: bool,
}

impl FtpFiles {
    /// Prepares access to a directory; the server is not asked for anything yet. A root that begins with `/~/` is below
    /// the directory in which the login ends. `ca_file` holds the certificates to check the server against, instead of
    /// the system's.
    pub fn new(at: FtpAddress, root: &str, ca_file: Option<&Path>) -> Result<Self> {
        if at.host.is_empty() {
            return Err(BatchError::Job("the FTP address has no host".to_owned()));
        }
        let is_secure = at.security != FtpSecurity::None;
        let mut tls = Vec::new();
        if is_secure {
            let roots = roots(ca_file)?;
            tls = vec![client_config(roots.clone(), &[&TLS12])?, client_config(roots, &[&TLS13])?];
        }
        let scheme = match at.security {
            FtpSecurity::None => "ftp",
            FtpSecurity::Explicit => "ftpes",
            FtpSecurity::Implicit => "ftps",
        };
        let user = at.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let port = at.port.map(|port| format!(":{port}")).unwrap_or_default();
        let address = format!("{scheme}://{user}{}{port}{root}", at.host);
        let root = match root.strip_prefix("/~/") {
            Some(below) => format!("./{below}"),
            None => root.to_owned(),
        };
        let trimmed = root.trim_end_matches('/');
        let root = if trimmed.is_empty() { "/" } else { trimmed }.as_bytes().to_vec();
        Ok(Self { at, tls, root, address, pool: Pool::new(CONNECTIONS_MAX) })
    }

    /// The full path as the library wants it.
    fn full(&self, path: &[u8]) -> Result<String> {
        let full = match path {
            b"" => self.root.clone(),
            path if self.root == b"/" => [b"/", path].concat(),
            path => join(&self.root, path),
        };
        if full.contains(&b'\n') || full.contains(&b'\r') {
            let shown = String::from_utf8_lossy(path).escape_debug().to_string();
            return Err(BatchError::file(Code::BadName, shown, "FTP cannot carry a name with a line break"));
        }
        Ok(to_text(&full))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        self.pool.with(|| self.connect(), act)
    }

    fn connect(&self) -> Result<Connection> {
        let at = &self.at;
        let port = at.port.unwrap_or(if at.security == FtpSecurity::Implicit { 990 } else { 21 });
        let unreachable = |error: std::io::Error| BatchError::file(Code::Network, &at.host, error.to_string());
        let mut last = unreachable(std::io::Error::other("the host has no address"));
        for address in (at.host.as_str(), port).to_socket_addrs().map_err(unreachable)? {
            match self.dial_any(address) {
                Ok(mut ftp) => {
                    // Data connections go where this one goes, whatever the server says.
                    ftp.set_passive_nat_workaround(true);
                    if address.is_ipv6() {
                        ftp.set_mode(suppaftp::Mode::ExtendedPassive);
                    }
                    return self.log_in(ftp).map_err(|error| fault(&at.host, error, Code::Protocol));
                }
                Err(error) => last = fault(&at.host, error, Code::Protocol),
            }
        }
        Err(last)
    }

    /// Connects, with another version of TLS where the server wants one.
    fn dial_any(&self, address: SocketAddr) -> FtpResult<Ftp> {
        let Some((first, others)) = self.tls.split_first() else { return self.dial(address, None) };
        let mut outcome = self.dial(address, Some(first));
        for tls in others {
            match &outcome {
                Err(FtpError::SecureError(reason)) if reason.contains("ProtocolVersion") => {
                    outcome = self.dial(address, Some(tls));
                }
                _ => break,
            }
        }
        outcome
    }

    fn dial(&self, address: SocketAddr, tls: Option<&ClientConfig>) -> FtpResult<Ftp> {
        let connect = move |address: SocketAddr| {
            let socket = TcpStream::connect_timeout(&address, CONNECT_TIME).map_err(FtpError::ConnectionError)?;
            limit_silence(&socket).map_err(FtpError::ConnectionError)?;
            Ok(socket)
        };
        let ftp = match (tls, self.at.security) {
            (Some(tls), FtpSecurity::Implicit) => {
                Ftp::connect_secure_implicit(address, FtpTls::new(tls), &self.at.host)?
            }
            (Some(tls), _) => {
                Ftp::connect_with_stream(connect(address)?)?.into_secure(FtpTls::new(tls), &self.at.host)?
            }
            (None, _) => Ftp::connect_with_stream(connect(address)?)?,
        };
        Ok(ftp.passive_stream_builder(connect))
    }

    fn log_in(&self, mut ftp: Ftp) -> FtpResult<Connection> {
        let at = &self.at;
        let user = at.user.as_deref().unwrap_or("anonymous");
        ftp.login(user, at.password.as_ref().map_or("anonymous@", |password| password.as_str()))?;
        if at.security == FtpSecurity::Implicit {
            ftp.custom_command("PBSZ 0", &[Status::CommandOk])?;
            ftp.custom_command("PROT P", &[Status::CommandOk])?;
        }
        let features = match ftp.feat() {
            Ok(features) => features,
            Err(FtpError::UnexpectedResponse(answer)) if answer.status.code() >= 500 => Default::default(),
            Err(error) => return Err(error),
        };
        let has = |name: &str| features.keys().any(|known| known.eq_ignore_ascii_case(name));
        if has("UTF8") {
            // Servers that speak nothing else refuse it, and it is well.
            ftp.opts("UTF8", Some("ON")).or_else(answered)?;
        }
        ftp.transfer_type(FileType::Binary)?;
        // From here on names are bytes.
        ftp.set_encoding(Bytes);
        Ok(Connection { has_facts: has("MLST"), has_times: has("MDTM"), ftp })
    }

    fn list(&self, dir: &[u8]) -> Result<Vec<Listed>> {
        let (full, shown) = (self.full(dir)?, String::from_utf8_lossy(dir).escape_debug().to_string());
        self.with(|at| {
            let command = if at.has_facts { format!("MLSD {full}") } else { format!("LIST -a {full}") };
            let read = if at.has_facts { facts_line } else { list_line };
            let opened = at.ftp.custom_data_command(command, &BEGUN);
            let (_, stream) = opened.map_err(|error| fault(&shown, error, Code::Denied))?;
            let mut found = at.transfer(stream, &shown, |stream| lines(stream, read, &shown))?;
            if at.has_times && !at.has_facts {
                for listed in found.iter_mut().filter(|listed| listed.kind == Kind::File) {
                    listed.modified = at.modified(&format!("{full}/{}", to_text(&listed.name)), &shown)?;
                }
            }
            Ok(found)
        })
    }
}

type Ftp = ImplFtpStream<FtpTlsStream>;
type Stream = TransferStream<FtpTlsStream>;

/// Reads a listing.
fn lines(stream: &mut Stream, read: fn(&[u8]) -> Line, shown: &str) -> Result<Vec<Listed>> {
    let nonsense = |reason: &str| BatchError::file(Code::Protocol, shown, reason);
    let mut reader = BufReader::new(Remote(stream)).take(0);
    let (mut line, mut found) = (Vec::new(), Vec::new());
    let mut listing_len = 0;
    for _ in 0..LINES_MAX {
        listing_len += line.len();
        if listing_len > LISTING_LEN_MAX {
            break;
        }
        line.clear();
        reader.set_limit(LINE_LEN_MAX);
        if reader.read_until(b'\n', &mut line).map_err(|error| BatchError::of_io(shown, &error))? == 0 {
            return Ok(found);
        }
        let text = line.strip_suffix(b"\n").ok_or_else(|| nonsense("the listing has a line without an end"))?;
        match read(text.strip_suffix(b"\r").unwrap_or(text)) {
            Line::Name(listed) => found.push(listed),
            Line::Nothing => {}
            Line::Unknown => return Err(nonsense("the server lists the directory in a way that is not understood")),
        }
    }
    Err(nonsense("the directory has too many names, or too long ones"))
}

impl Connection {
    /// Uses a data connection, and hears how the server says it went.
    fn transfer<T>(
        &mut self,
        mut stream: Stream,
        target: &str,
        act: impl FnOnce(&mut Stream) -> Result<T>,
    ) -> Result<T> {
        let outcome = act(&mut stream);
        if outcome.is_err() {
            // The connection is given up; what the server has to say to that is not waited for long.
            self.ftp.get_ref().set_read_timeout(Some(GIVE_UP_TIME)).ok();
        }
        let finished = stream.finish().map_err(|error| fault(target, error, Code::Denied));
        match (outcome, finished) {
            // A full disk there is said in the end, and ends the connection before.
            (Err(error), Err(said)) if error.code() == Code::Network && said.code() == Code::Full => Err(said),
            (Err(error), _) => Err(error),
            (Ok(done), finished) => finished.map(|()| done),
        }
    }

    fn modified(&mut self, full: &str, target: &str) -> Result<Option<Modified>> {
        match self.ftp.custom_command(format!("MDTM {full}"), &[Status::File]) {
            Ok(answer) => Ok(ftp_time(&answer.body)),
            Err(error) => answered(error).map(|()| None).map_err(|error| fault(target, error, Code::Vanished)),
        }
    }

    /// What a file is like.
    fn stat(&mut self, path: &FilePath, full: &str) -> Result<FileInfo> {
        self.look(path, full).map(|(info, _)| info)
    }

    /// The same, and all facts of it.
    fn look(&mut self, path: &FilePath, full: &str) -> Result<(FileInfo, Facts)> {
        let target = path.to_string();
        let facts = if self.has_facts { self.facts(full, &target)? } else { self.guessed(full, &target)? };
        let is_dir = facts.kind.is_none_or(|kind| kind == Kind::Directory);
        if facts.kind == Some(Kind::Other) {
            return Err(BatchError::file(Code::NotAFile, target, "not a file"));
        }
        let size = facts.size.filter(|_| !is_dir).unwrap_or(0);
        Ok((FileInfo { path: path.clone(), size, modified: facts.modified, etag: None, is_dir }, facts))
    }

    fn facts(&mut self, full: &str, target: &str) -> Result<Facts> {
        let line = self.ftp.mlst(Some(full)).map_err(|error| fault(target, error, Code::Vanished))?;
        let line = from_text(&line).unwrap_or_default();
        let nonsense = || BatchError::file(Code::Protocol, target, "the server's facts make no sense");
        facts(&line).map(|(facts, _)| facts).ok_or_else(nonsense)
    }

    /// For servers that know no facts.
    fn guessed(&mut self, full: &str, target: &str) -> Result<Facts> {
        let failed = |error| fault(target, error, Code::Vanished);
        match self.ftp.size(full) {
            Ok(size) => {
                let modified = if self.has_times { self.modified(full, target)? } else { None };
                let size = u64::try_from(size).ok();
                Ok(Facts { kind: Some(Kind::File), size, modified, mode: None })
            }
            Err(error @ FtpError::UnexpectedResponse(_)) => match self.ftp.cwd(full) {
                Ok(()) => Ok(Facts { kind: Some(Kind::Directory), size: None, modified: None, mode: None }),
                Err(second) => answered(second).and(Err(error)).map_err(failed),
            },
            Err(error) => Err(failed(error)),
        }
    }

    /// Writes a file beside another, and makes sure that all of it is there.
    fn put(&mut self, partial: &str, from: &TempFile, mode: Option<u32>, target: &str) -> Result<()> {
        let stream = self.ftp.put_with_stream(partial).map_err(|error| fault(target, error, Code::Denied))?;
        self.transfer(stream, target, |stream| {
            let mut reader = from.reader().map_err(|error| BatchError::of_io("the work directory", &error))?;
            // Nothing empty is written: under TLS that would wait for the server to say something.
            let mut to = Remote(stream);
            let written = copy(&mut reader, &mut to).and_then(|_| to.flush());
            written.map_err(|error| BatchError::of_io(target, &error))
        })?;
        let failed = |error| fault(target, error, Code::Denied);
        let size = self.ftp.size(partial).map_err(failed)?;
        if size as u64 != from.len() {
            let reason = format!("the server has {size} bytes of {} that were sent", from.len());
            return Err(BatchError::file(Code::Short, target, reason));
        }
        if let Some(mode) = mode {
            let changed = self.ftp.site(format!("CHMOD {:o} {partial}", mode & 0o7777));
            changed.map(drop).or_else(answered).map_err(failed)?;
        }
        Ok(())
    }
}

impl FileSystem for FtpFiles {
    fn walk(&self, filter: &Filter, retrier: &Retrier<'_>, each: &mut Each<'_>) -> Result<()> {
        walk_tree(filter, retrier, &mut |dir| self.list(dir), each)
    }

    fn stat(&self, path: &FilePath) -> Result<FileInfo> {
        let full = self.full(path.as_bytes())?;
        self.with(|at| at.stat(path, &full))
    }

    fn download(&self, path: &FilePath, to: &mut dyn Write) -> Result<FileInfo> {
        let (full, target) = (self.full(path.as_bytes())?, path.to_string());
        self.with(|at| {
            let (before, Facts { size, .. }) = at.look(path, &full)?;
            if before.is_dir {
                return Err(BatchError::file(Code::NotAFile, target.clone(), "it is a directory now"));
            }
            let stream = at.ftp.retr_as_stream(&full).map_err(|error| fault(&target, error, Code::Denied))?;
            at.transfer(stream, &target, |stream| copy_file(&mut Remote(stream), to, size, &target))?;
            let after = at.stat(path, &full)?;
            if after != before {
                return Err(changed(&target));
            }
            Ok(after)
        })
    }

    fn replace(&self, expected: &FileInfo, from: &TempFile) -> Result<FileInfo> {
        let path = &expected.path;
        let (full, target) = (self.full(path.as_bytes())?, path.to_string());
        let partial = self.full(path.partial().as_bytes())?;
        self.with(|at| {
            let (now, Facts { mode, .. }) = at.look(path, &full)?;
            check_unchanged(expected, &now)?;
            let put = at.put(&partial, from, mode, &target).and_then(|()| {
                check_unchanged(expected, &at.stat(path, &full)?)?;
                at.ftp.rename(&partial, &full).map_err(|error| fault(&target, error, Code::Denied))
            });
            if let Err(error) = put {
                at.ftp.rm(&partial).ok();
                return Err(error);
            }
            at.stat(path, &full)
        })
    }

    fn remove(&self, path: &FilePath) -> Result<()> {
        let full = self.full(path.as_bytes())?;
        self.with(|at| at.ftp.rm(&full).map_err(|error| fault(&path.to_string(), error, Code::Vanished)))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { replacing: Replacing::Atomic, whole_run: false, connections_max: CONNECTIONS_MAX }
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn close(&self) {
        self.pool.clear();
    }
}

/// Whether a failure was an answer, so that the conversation goes on.
fn answered(error: FtpError) -> FtpResult<()> {
    match error {
        FtpError::UnexpectedResponse(answer) if answer.status != Status::NotAvailable => Ok(()),
        error => Err(error),
    }
}

/// What a failure means. `unavailable` is what is meant by 550, when the server's words do not say more.
fn fault(target: &str, error: FtpError, unavailable: Code) -> BatchError {
    let answer = match error {
        FtpError::ConnectionError(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            return BatchError::file(Code::BadName, target, error.to_string());
        }
        FtpError::ConnectionError(error) => return BatchError::file(Code::Network, target, error.to_string()),
        FtpError::SecureError(reason) => {
            let is_broken = ["certificate", "alert", "corrupt"].iter().any(|word| reason.contains(word));
            let code = if is_broken { Code::Untrusted } else { Code::Network };
            return BatchError::file(code, target, reason);
        }
        FtpError::UnexpectedResponse(answer) => answer,
        error => return BatchError::file(Code::Protocol, target, error.to_string()),
    };
    let (code, words) = ftp_meaning(answer.status.code(), &answer.body);
    BatchError::file(code.unwrap_or(unavailable), target, words)
}

/// The time that a server tells of a file: its answer to `MDTM`.
pub fn ftp_time(answer: &[u8]) -> Option<Modified> {
    String::from_utf8_lossy(answer).split_whitespace().nth(1).and_then(time)
}

/// What a refusal means, and its words; `None` where they do not say why a file cannot be had.
pub fn ftp_meaning(status: u32, answer: &[u8]) -> (Option<Code>, String) {
    let words = String::from_utf8_lossy(answer).trim().replace(['\r', '\n'], " ");
    let lower = words.to_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| lower.contains(text));
    let code = match status {
        530 if says(&["maximum", "too many", "connections"]) => Code::Busy,
        421 | 450 | 451 => Code::Busy,
        425 | 426 => Code::Network,
        430 | 530 | 331 | 332 => Code::Login,
        452 | 552 => Code::Full,
        _ if says(&["no space", "quota", "disk full"]) => Code::Full,
        532 | 534 => Code::Denied,
        550 | 553 if says(&["permission", "denied", "not permitted", "read-only"]) => Code::Denied,
        550 | 553 if says(&["no such", "not found", "does not exist", "not exist"]) => Code::Vanished,
        550 | 553 if says(&["not a regular", "not a plain", "is a directory", "not a directory"]) => Code::NotAFile,
        550 | 553 if says(&["too long"]) => Code::BadName,
        550 => return (None, words),
        553 => Code::Denied,
        _ => Code::Protocol,
    };
    (Some(code), words)
}
