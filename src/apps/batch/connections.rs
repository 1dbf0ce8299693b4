//! Connections with names: where servers are and how one logs in, kept apart from jobs in a file of the user's own.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::{BatchError, Result};
use super::job::{Source, WORKSPACE_SCHEME, told};
use super::url::Url;

/// Longest file of connections, in bytes.
const FILE_LEN_MAX: u64 = 256 * 1024;

/// What a user has set up for batches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Connections {
    /// Whether jobs that are written to a mount may run commands.
    pub allow_commands: bool,
    /// Whether jobs that are written to a mount may have plaintext on a disk (`plaintext_dir`).
    pub allow_plaintext: bool,
    /// The connections, by name.
    pub connections: BTreeMap<String, Connection>,
}

/// One connection: the fields are those of [`Source`], and where the password comes from may be a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Connection {
    /// The address that jobs begin at.
    pub url: String,
    /// The environment variable that holds the password.
    pub password_env: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// The name of the password in the keyring of the desktop session.
    pub password_keyring: Option<String>,
    /// A program and its arguments; the first line that it prints is the password.
    pub password_command: Option<Vec<String>>,
    /// The private key (SFTP).
    pub key_file: Option<PathBuf>,
    /// The known host keys (SFTP).
    pub known_hosts: Option<PathBuf>,
    /// The certificates to check the server against (FTPS, WebDAV).
    pub ca_file: Option<PathBuf>,
    /// Whether password and files may go over the network for everybody to read.
    pub unencrypted: bool,
}

impl Connections {
    /// Reads the file; nothing when there is none. It has to be the user's own, and closed to everybody else, since it
    /// says which programs are run.
    pub fn read(path: &Path) -> Result<Self> {
        let unusable = |reason: String| BatchError::Job(format!("{}: {reason}", path.display()));
        let found = match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            found => found.map_err(|error| unusable(error.to_string()))?,
        };
        if found.uid() != nix::unistd::Uid::effective().as_raw() || found.mode() & 0o077 != 0 {
            return Err(unusable("it must be yours, and for nobody else: chmod 600".to_owned()));
        }
        if found.len() > FILE_LEN_MAX {
            return Err(unusable(format!("it is longer than {FILE_LEN_MAX} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
        Self::parse(&text).map_err(unusable)
    }

    /// Understands the file; else why it is none.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        toml::from_str(text).map_err(|error| told(&error, text))
    }

    /// The source that a job means, and the command that gives its password.
    pub fn resolve(&self, source: &Source) -> Result<(Source, Option<Vec<String>>)> {
        let Some(name) = &source.connection else { return Ok((source.clone(), None)) };
        let bad = |reason: &str| BatchError::Job(format!("the connection `{name}` {reason}"));
        let own = Source { connection: source.connection.clone(), path: source.path.clone(), ..Source::default() };
        if *source != own {
            return Err(bad("says everything but the path; leave the rest out of the job's source"));
        }
        let found = self.connections.get(name).ok_or_else(|| bad("is not in the file of connections"))?.clone();
        if found.url.starts_with(WORKSPACE_SCHEME) {
            return Err(bad("is no server"));
        }
        if found.url.starts_with("s3:") && source.path.is_some() {
            return Err(bad("is a bucket; a path in it belongs to its address"));
        }
        if !found.url.starts_with("s3:") {
            Url::parse(&found.url)?;
        }
        let below = source.path.as_deref().map(|path| path.trim_matches('/')).filter(|path| !path.is_empty());
        if below.is_some_and(|path| path.split('/').any(|name| name == "..")) {
            return Err(bad("is not left by `..`"));
        }
        let url = match below {
            Some(below) => format!("{}/{}", found.url.trim_end_matches('/'), super::url::encode(below.as_bytes())),
            None => found.url,
        };
        let resolved = Source {
            url,
            password_env: found.password_env,
            password_file: found.password_file,
            password_keyring: found.password_keyring,
            key_file: found.key_file,
            known_hosts: found.known_hosts,
            ca_file: found.ca_file,
            unencrypted: found.unencrypted,
            ..Source::default()
        };
        Ok((resolved, found.password_command))
    }
}
