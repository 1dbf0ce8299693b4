//! Why something could not be done with a file of sealed documents.

use std::io;
use std::path::{Path, PathBuf};

use super::json::JsonError;
use crate::crypto::document::OutOfMemory;
use crate::workspace::WorkspaceError;

/// The result of an operation on sealed documents.
pub type Result<T> = std::result::Result<T, SealedError>;

/// Why something could not be done with a file of sealed documents.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// Not such a file.
    #[error("{file} holds no sealed documents")]
    NotSealed {
        /// The file.
        file: String,
    },
    /// Written by a newer program.
    #[error("{file} is in format {found} of sealed documents, newer than this program's; install a newer kura")]
    NewerFormat {
        /// The file.
        file: String,
        /// The format version found.
        found: u8,
    },
    /// Not what was written, whoever altered it.
    #[error("{file} is damaged: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The one answer to a wrong password, wrong ids, and a document that is not there.
    #[error("no document in {file} opens with this password and these ids")]
    NoDocument {
        /// The file.
        file: String,
    },
    /// Ids that cannot be a document's.
    #[error("the share ids are not usable: {0}")]
    Ids(String),
    /// Settings that no file can have.
    #[error("the settings are not usable: {0}")]
    Settings(String),
    /// An empty password protects nothing.
    #[error("the password is empty; choose one")]
    EmptyPassword,
    /// The document is no JSON object.
    #[error("the document is not usable: {0}")]
    Document(#[from] JsonError),
    /// A request that is none.
    #[error("the request is not understood: {0}")]
    Request(String),
    /// The document does not fit.
    #[error("the document has {len} bytes, and documents of this file can have {capacity} at most")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The most that fits, in bytes.
        capacity: usize,
    },
    /// Nobody can see which slots are in use.
    #[error("documents of {file} that are not named may be destroyed by this")]
    RestNotDeclared {
        /// The file.
        file: String,
    },
    /// Too few slots are left beside the documents that are named.
    #[error("{file} has {free} slots beside those of the documents named, {wanted} are wanted")]
    Full {
        /// The file.
        file: String,
        /// Slots that no named document has.
        free: usize,
        /// Slots wanted.
        wanted: usize,
    },
    /// Something else has the name.
    #[error("{0} exists already, and is another file")]
    Occupied(PathBuf),
    /// Another process works on it.
    #[error("{file} is being worked on by {}", holder(*pid))]
    Locked {
        /// The file's UUID.
        file: String,
        /// The process, 0 when it has not said so yet.
        pid: u32,
    },
    /// What was written did not read back as it should. Nothing was changed.
    #[error("{file}: what was written does not read back ({what}); the file is as it was")]
    NotWritten {
        /// The file.
        file: String,
        /// What differed.
        what: &'static str,
    },
    /// Not enough memory.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// The workspace that the file lies in refused.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The disk refused.
    #[error("{doing} {path} failed: {source}")]
    Disk {
        /// What was being done, e.g. `reading`.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn holder(pid: u32) -> String {
    if pid == 0 { "another process".to_owned() } else { format!("process {pid}") }
}

/// Adds what was being done to an error of the disk.
pub fn disk<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> SealedError + 'a {
    move |source| SealedError::Disk { doing, path: path.to_owned(), source }
}
