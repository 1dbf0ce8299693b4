//! A connection to an SFTP server (protocol version 3, draft-ietf-secsh-filexfer-02) through the system's `ssh`, which
//! checks host keys, and knows keys, agents and the user's configuration.

use std::collections::HashMap;
use std::io::{BufReader, BufWriter, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::command::listen;
use super::error::{BatchError, Code, Result};

/// Longest packet that is taken, in bytes.
const PACKET_LEN_MAX: usize = 1 << 20;
/// Answers that may come before they are waited for; no more requests are under way at once.
const EARLY_MAX: usize = 64;

/// The environment variable through which `ssh` hands a password to the program that prints it.
pub const PASSWORD_VAR: &str = "KURA_SSH_PASSWORD";

/// Kinds of packets.
pub(super) mod kind {
    pub const INIT: u8 = 1;
    pub const VERSION: u8 = 2;
    pub const OPEN: u8 = 3;
    pub const CLOSE: u8 = 4;
    pub const READ: u8 = 5;
    pub const WRITE: u8 = 6;
    pub const LSTAT: u8 = 7;
    pub const FSETSTAT: u8 = 10;
    pub const OPENDIR: u8 = 11;
    pub const READDIR: u8 = 12;
    pub const REMOVE: u8 = 13;
    pub const STATUS: u8 = 101;
    pub const HANDLE: u8 = 102;
    pub const DATA: u8 = 103;
    pub const NAME: u8 = 104;
    pub const ATTRS: u8 = 105;
    pub const EXTENDED: u8 = 200;
}

/// The status at the end of a file or listing.
pub const STATUS_EOF: u32 = 1;

/// How a server is reached.
#[derive(Clone)]
pub struct SshAddress {
    /// Its name or address.
    pub host: String,
    /// The port, when it is not the usual one.
    pub port: Option<u16>,
    /// The user; `ssh` chooses when missing.
    pub user: Option<String>,
    /// The private key, instead of those that `ssh` finds.
    pub key_file: Option<std::path::PathBuf>,
    /// The file of known host keys, instead of the user's.
    pub known_hosts: Option<std::path::PathBuf>,
}

/// One connection.
pub struct Ssh {
    child: Child,
    to: BufWriter<ChildStdin>,
    from: BufReader<ChildStdout>,
    words: mpsc::Receiver<String>,
    next_id: u32,
    extensions: Vec<Vec<u8>>,
    host: String,
    /// Answers that came before they were waited for.
    early: HashMap<u32, (u8, Vec<u8>)>,
}

/// Reads the fields of a packet.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(field)
    }

    /// A number of 32 bits.
    pub fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A number of 64 bits.
    pub fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// Bytes with their length before them.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        self.take(len)
    }
}

/// The names of the extensions that a server greets with, if it speaks version 3 or a later one.
pub fn extensions(greeting: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut fields, mut found) = (Fields(greeting), Vec::new());
    fields.u32().filter(|version| *version >= 3)?;
    while let (Some(name), Some(_)) = (fields.bytes(), fields.bytes()) {
        found.push(name.to_vec());
    }
    Some(found)
}

/// Appends bytes with their length before them.
pub fn put_bytes(packet: &mut Vec<u8>, bytes: &[u8]) {
    packet.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    packet.extend_from_slice(bytes);
}

impl Ssh {
    /// Connects and logs in. `askpass` is a program that prints the password, which it finds in [`PASSWORD_VAR`]; kura
    /// itself is one.
    pub fn connect(address: &SshAddress, password: Option<(&std::path::Path, &str)>) -> Result<Self> {
        let mut command = Command::new("ssh");
        command.args(["-oStrictHostKeyChecking=yes", "-oConnectTimeout=15", "-oServerAliveInterval=10"]);
        command.args([
            "-oServerAliveCountMax=3",
            "-oClearAllForwardings=yes",
            "-oLogLevel=ERROR",
            "-oControlMaster=no",
        ]);
        command.args([
            "-oControlPath=none",
            "-oPermitLocalCommand=no",
            "-oRequestTTY=no",
            "-oNumberOfPasswordPrompts=1",
        ]);
        if let Some(port) = address.port {
            command.arg(format!("-p{port}"));
        }
        if let Some(user) = &address.user {
            command.arg(format!("-l{user}"));
        }
        if let Some(key) = &address.key_file {
            command.arg("-oIdentitiesOnly=yes").arg("-i").arg(key);
        }
        if let Some(known) = &address.known_hosts {
            let mut option = std::ffi::OsString::from("-oUserKnownHostsFile=");
            option.push(known);
            command.arg(option).arg("-oGlobalKnownHostsFile=/dev/null");
        }
        match password {
            Some((askpass, password)) => {
                command
                    .arg("-oPreferredAuthentications=password,keyboard-interactive")
                    .arg("-oPubkeyAuthentication=no");
                command.env("SSH_ASKPASS", askpass).env("SSH_ASKPASS_REQUIRE", "force");
                command.env(PASSWORD_VAR, password);
            }
            None => drop(command.arg("-oBatchMode=yes")),
        }
        command.args(["-s", "--", &address.host, "sftp"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |reason: String| BatchError::file(Code::Local, address.host.clone(), reason);
        let mut child = command.spawn().map_err(|error| failed(format!("`ssh` cannot be run: {error}")))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("`ssh` has no pipes".to_owned()));
        };
        let words = listen(&mut child);
        let (to, from, host) = (BufWriter::new(to), BufReader::new(from), address.host.clone());
        let mut ssh = Self { child, to, from, words, next_id: 0, extensions: Vec::new(), host, early: HashMap::new() };
        ssh.greet()?;
        Ok(ssh)
    }

    fn greet(&mut self) -> Result<()> {
        let sent = self.to.write_all(&[0, 0, 0, 5, kind::INIT, 0, 0, 0, 3]).and_then(|()| self.to.flush());
        sent.map_err(|_| self.lost())?;
        let (what, packet) = self.packet()?;
        self.extensions = extensions(&packet).filter(|_| what == kind::VERSION).ok_or_else(|| self.nonsense())?;
        Ok(())
    }

    /// Whether the server has an extension.
    pub fn has(&self, extension: &[u8]) -> bool {
        self.extensions.iter().any(|known| known == extension)
    }

    /// Sends a request, without waiting; returns its number.
    pub fn send(&mut self, what: u8, body: &[u8]) -> Result<u32> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let len = u32::try_from(body.len() + 5).map_err(|_| self.nonsense())?;
        let head = [&len.to_be_bytes()[..], &[what], &id.to_be_bytes()].concat();
        self.to.write_all(&head).and_then(|()| self.to.write_all(body)).map_err(|_| self.lost())?;
        Ok(id)
    }

    /// Waits for the answer to a request: its kind, and what follows the number.
    pub fn answer(&mut self, id: u32) -> Result<(u8, Vec<u8>)> {
        if let Some(answer) = self.early.remove(&id) {
            return Ok(answer);
        }
        self.to.flush().map_err(|_| self.lost())?;
        loop {
            let (what, packet) = self.packet()?;
            let found = packet.first_chunk::<4>().map(|id| u32::from_be_bytes(*id));
            let Some(found) = found else { return Err(self.nonsense()) };
            let rest = packet[4..].to_vec();
            if found == id {
                return Ok((what, rest));
            }
            if self.early.len() == EARLY_MAX {
                return Err(self.nonsense());
            }
            self.early.insert(found, (what, rest));
        }
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, what: u8, body: &[u8]) -> Result<(u8, Vec<u8>)> {
        let id = self.send(what, body)?;
        self.answer(id)
    }

    fn packet(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut len = [0; 4];
        self.from.read_exact(&mut len).map_err(|_| self.lost())?;
        let len = u32::from_be_bytes(len) as usize;
        if len == 0 || len > PACKET_LEN_MAX {
            return Err(self.nonsense());
        }
        let mut packet = vec![0; len];
        self.from.read_exact(&mut packet).map_err(|_| self.lost())?;
        Ok((packet[0], packet.split_off(1)))
    }

    /// An answer that makes no sense.
    pub fn nonsense(&self) -> BatchError {
        BatchError::file(Code::Protocol, self.host.clone(), "the SFTP server answered something that makes no sense")
    }

    /// Why the connection ended, from what `ssh` said.
    fn lost(&mut self) -> BatchError {
        let words = self.words.recv_timeout(Duration::from_secs(5)).unwrap_or_default();
        let has = |texts: &[&str]| texts.iter().any(|text| words.contains(text));
        let code = if has(&["Host key verification failed", "HOST IDENTIFICATION HAS CHANGED", "host key is known"]) {
            Code::Untrusted
        } else if has(&["Permission denied", "Too many authentication failures", "No more authentication methods"]) {
            Code::Login
        } else {
            Code::Network
        };
        let words = words.trim();
        let reason = if words.is_empty() { "the connection was lost" } else { words };
        BatchError::file(code, self.host.clone(), reason.replace(['\r', '\n'], " "))
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
