//! What a batch shall do: a file in TOML or JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::{BatchError, Result};
use super::filesystem::{Filter, WalkOptions};
use super::process::Processing;
use super::retry::RetryPolicy;

/// Longest job, in bytes.
pub const JOB_LEN_MAX: usize = 256 * 1024;
const NAME_LEN_MAX: usize = 64;
/// What the address of a directory of the workspace begins with.
pub const WORKSPACE_SCHEME: &str = "workspace:";
const WORKERS_MAX: usize = 256;

/// One job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its name: what it remembers goes by it.
    pub name: String,
    /// Where the files are.
    pub source: Source,
    /// Which of them.
    #[serde(default = "WalkOptions::files")]
    pub walk: WalkOptions,
    /// What is done to them.
    pub process: Processing,
    /// How.
    #[serde(default)]
    pub run: RunOptions,
}

/// Where the files of a job are. No secret stands in a job, only where it is found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// `file:///DIR`, `workspace:/DIR`, `s3://BUCKET/PREFIX?…`, or `SCHEME://[USER@]HOST[:PORT]/DIR` with `sftp`,
    /// `ftps` (TLS from the start), `ftpes` (TLS is asked for), `ftp`, `webdavs` or `webdav`.
    pub url: String,
    /// The name of a connection that was set up, instead of an address.
    pub connection: Option<String>,
    /// The directory, from the one that the connection leads to.
    pub path: Option<String>,
    /// The environment variable that holds the password.
    pub password_env: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// The name of the password in the keyring of the desktop session.
    pub password_keyring: Option<String>,
    /// The private key (SFTP).
    pub key_file: Option<PathBuf>,
    /// The known host keys (SFTP); those of the user when missing.
    pub known_hosts: Option<PathBuf>,
    /// The certificates to check the server against (FTPS, WebDAV), in PEM; the system's when missing.
    pub ca_file: Option<PathBuf>,
    /// Whether password and files may go over the network for everybody to read (`ftp`, `webdav`).
    pub unencrypted: bool,
}

/// Whether results count when some files failed. Only where a run appears as a whole: in a workspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Commit {
    /// All results or none.
    #[default]
    All,
    /// Those that there are.
    Partial,
}

/// How a job is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunOptions {
    /// Files processed at once; by the kind of source when missing.
    pub workers: Option<usize>,
    /// Connections to one host, at most.
    pub per_host: Option<usize>,
    /// How patiently.
    pub retry: RetryPolicy,
    /// Whether results count when some files failed.
    pub commit: Commit,
    /// Where is remembered what was processed: `disk` (when missing), `memory`, or `redis://HOST:PORT/DB`.
    pub memory: Option<String>,
    /// A directory on a disk in which plaintext may lie while it is processed. Without it files are processed in
    /// memory (tmpfs) alone.
    pub plaintext_dir: Option<PathBuf>,
}

/// What is wrong with a text in TOML, without quoting from it: somebody may have put a secret there.
pub(super) fn told(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    let place = line.map(|line| format!(" at line {line}")).unwrap_or_default();
    format!("{}{place}", unquoted(error.message()))
}

/// What an error says, with `…` for each text that it quotes.
pub fn unquoted(message: &str) -> String {
    let parts: Vec<&str> = message.split('"').collect();
    match parts.len() {
        0 | 1 => message.to_owned(),
        // A quote that stands in the quoted text: everything from the first to the last goes.
        _ => format!("{}\"…\"{}", parts[0], parts[parts.len() - 1]),
    }
}

impl WalkOptions {
    /// All files.
    pub fn files() -> Self {
        Self { files_only: true, ..Self::default() }
    }
}

impl Job {
    /// Reads a job: JSON when it begins with a brace, else TOML.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > JOB_LEN_MAX {
            return Err(BatchError::Job(format!("it is longer than {JOB_LEN_MAX} bytes")));
        }
        let job: Self = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| BatchError::Job(unquoted(&error.to_string())))?
        } else {
            toml::from_str(text).map_err(|error| BatchError::Job(told(&error, text)))?
        };
        job.check()?;
        Ok(job)
    }

    /// Fails for a job that cannot be done.
    pub fn check(&self) -> Result<()> {
        let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
        if self.name.is_empty() || self.name.len() > NAME_LEN_MAX || !self.name.chars().all(is_plain) {
            let reason = format!("the name has to be letters, digits, `-`, `_`, `.`, at most {NAME_LEN_MAX} bytes");
            return Err(BatchError::Job(reason));
        }
        if !self.walk.files_only {
            return Err(BatchError::Job("directories cannot be processed; leave `files_only` out".to_owned()));
        }
        Filter::new(&self.walk)?;
        if self.run.workers.is_some_and(|count| count == 0 || count > WORKERS_MAX) || self.run.per_host == Some(0) {
            return Err(BatchError::Job(format!("the number of workers has to be 1 to {WORKERS_MAX}")));
        }
        self.process.prepare().map(drop)
    }

    /// Whether its files are in the workspace itself.
    pub fn is_in_workspace(&self) -> bool {
        self.source.url.starts_with(WORKSPACE_SCHEME)
    }

    /// What tells this job's memory from that of others: another processing, or another source, is another job.
    pub fn identity(&self) -> String {
        let process = serde_json::to_string(&self.process).unwrap_or_default();
        format!("{}\0{}\0{process}", self.name, self.source.url)
    }

    pub(super) fn workers(&self, connections_max: usize) -> usize {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let wanted = self.run.workers.unwrap_or_else(|| if connections_max == usize::MAX { cores * 2 } else { 16 });
        wanted.min(self.run.per_host.unwrap_or(usize::MAX)).min(connections_max).clamp(1, WORKERS_MAX)
    }
}
