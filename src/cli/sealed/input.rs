//! What `kura sealed` is given: documents, ids, passwords. Buffers of all that is secret are wiped.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use crate::apps::sealed::{Credentials, NewAccess, NewIds, ShareIds};
use crate::cli::config::{SEALED_NEW_PASSWORD_VAR, SEALED_PASSWORD_VAR};
use crate::cli::secret::{PasswordVars, obtain_password};
use crate::control::{Exit, Failure};
use crate::crypto::slots::Secret;

/// Longest document and longest file of known documents, in bytes.
const INPUT_LEN_MAX: usize = 16 * 1024 * 1024;
const INPUT_LEN_FIRST: usize = 64 * 1024;
/// Share ids that are drawn for a document.
const SHARES: usize = 8;
const PASSWORD: PasswordVars = PasswordVars {
    value: SEALED_PASSWORD_VAR,
    file: "KURA_SEALED_PASSWORD_FILE",
    command: "KURA_SEALED_PASSWORD_COMMAND",
};
/// Where a new password comes from.
pub const NEW_PASSWORD: PasswordVars = PasswordVars {
    value: SEALED_NEW_PASSWORD_VAR,
    file: "KURA_SEALED_NEW_PASSWORD_FILE",
    command: "KURA_SEALED_NEW_PASSWORD_COMMAND",
};

/// Share ids on a command line.
pub fn parse_ids(text: &str) -> Result<ShareIds, String> {
    ShareIds::parse(text).map_err(|error| error.to_string())
}

/// The name of standard input.
pub const STDIN: &str = "-";

/// Which document.
#[derive(Args)]
pub struct IdArgs {
    /// Share ids of the document, as 3,17,40
    #[arg(long, env = "KURA_SEALED_IDS", hide_env_values = true, value_parser = parse_ids)]
    ids: ShareIds,
}

/// What shall open a new document.
#[derive(Args)]
pub struct AccessArgs {
    /// Take these share ids instead of drawing them at random
    #[arg(long, conflicts_with = "shares", value_parser = parse_ids)]
    ids: Option<ShareIds>,
    /// How many share ids to draw [default: 8]
    #[arg(long)]
    shares: Option<usize>,
    /// How many intact shares are enough to read the document [default: more than half]
    #[arg(long)]
    threshold: Option<u16>,
}

/// The content of a document.
#[derive(Args)]
pub struct DocumentArgs {
    /// The JSON object; `-` is standard input
    #[arg(long, value_name = "FILE", default_value = STDIN)]
    pub document: PathBuf,
}

/// The documents that are there.
#[derive(Args)]
pub struct KnownArgs {
    /// Documents that are there: a file of lines, each with ids, a space, and the password; `-` is standard input
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
    /// There are no other documents; if there are, this destroys them
    #[arg(long)]
    pub rest_is_unused: bool,
}

impl IdArgs {
    /// Its ids and password.
    pub fn credentials(&self) -> Result<Credentials, Failure> {
        Ok(Credentials { password: password()?, ids: self.ids.clone() })
    }
}

/// The password of a document that is there.
pub fn password() -> Result<Secret, Failure> {
    obtain_password(&PASSWORD, "Password of the document", false)
}

impl AccessArgs {
    /// Whether anything was said of a document.
    pub fn is_given(&self) -> bool {
        self.ids.is_some() || self.shares.is_some() || self.threshold.is_some()
    }

    /// Its ids, threshold and password.
    pub fn obtain(self) -> Result<NewAccess, Failure> {
        let shares = self.shares.unwrap_or(SHARES);
        let count = self.ids.as_ref().map_or(shares, |ids| ids.as_slice().len());
        let usual = u16::try_from(count / 2 + 1).unwrap_or(u16::MAX);
        Ok(NewAccess {
            password: obtain_password(&PASSWORD, "Password of the new document", true)?,
            ids: self.ids.map_or(NewIds::Draw(shares), NewIds::Chosen),
            threshold: self.threshold.unwrap_or(usual),
        })
    }
}
impl DocumentArgs {
    /// The document.
    pub fn read(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        read_document(&self.document)
    }
}

/// Reads a document from a file, or from standard input.
pub fn read_document(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if path == Path::new(STDIN) {
        return read_wiped(io::stdin().lock(), INPUT_LEN_FIRST, "standard input");
    }
    open_wiped(path)
}

impl KnownArgs {
    /// Whether standard input is asked for the documents that are there.
    pub fn is_from_stdin(&self) -> bool {
        self.known.as_deref() == Some(Path::new(STDIN))
    }

    /// None when no file was named.
    pub fn read(&self) -> Result<Vec<Credentials>, Failure> {
        let Some(path) = &self.known else { return Ok(Vec::new()) };
        known_documents(&read_document(path)?, &path.display())
    }
}

/// Lines of ids, a space, and the password, which may hold spaces; `file` is what they are from.
pub fn known_documents(bytes: &[u8], file: &dyn std::fmt::Display) -> Result<Vec<Credentials>, Failure> {
    let mut known = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let bad = |reason: &str| {
            Failure::new(Exit::Usage, format!("{file}, line {}: {reason}", number + 1))
                .hint("a line is for example `3,17,40 correct horse battery`")
        };
        let space = line.iter().position(|byte| *byte == b' ').ok_or_else(|| bad("there is no password"))?;
        let ids = std::str::from_utf8(&line[..space]).map_err(|_| bad("there are no ids"))?;
        let ids = ShareIds::parse(ids).map_err(|error| bad(&error.to_string()))?;
        known.push(Credentials { password: Secret::new(line[space + 1..].to_vec()), ids });
    }
    Ok(known)
}

fn open_wiped(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let what = path.display().to_string();
    let file = File::open(path).map_err(|error| unreadable(&what, &error))?;
    let len = file.metadata().ok().and_then(|found| usize::try_from(found.len()).ok()).unwrap_or(0);
    // One byte more, in which the end shows.
    read_wiped(file, len.saturating_add(1).clamp(INPUT_LEN_FIRST, INPUT_LEN_MAX), &what)
}

/// Reads everything, leaving no copy behind when the buffer grows.
fn read_wiped(mut source: impl Read, len_first: usize, what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(vec![0; len_first]);
    let mut filled = 0;
    loop {
        if filled == bytes.len() {
            if filled >= INPUT_LEN_MAX {
                return Err(Failure::new(Exit::Usage, format!("{what} is longer than {INPUT_LEN_MAX} bytes")));
            }
            let mut larger = Zeroizing::new(vec![0; filled * 2]);
            larger[..filled].copy_from_slice(&bytes);
            bytes = larger;
        }
        match source.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(what, &error)),
        }
    }
    if bytes.len() > filled + INPUT_LEN_FIRST {
        // What is kept for as long as the command runs is no longer than it has to be.
        return Ok(Zeroizing::new(bytes[..filled].to_vec()));
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn unreadable(what: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Usage, format!("{what} cannot be read: {error}"))
}
