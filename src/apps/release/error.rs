//! Why something could not be done with a release.

use crate::workspace::{PathFault, WorkspaceError};

/// The result of an operation on releases.
pub type Result<T> = std::result::Result<T, ReleaseError>;

/// Why something could not be done with a release. But for [`Stays`](Self::Stays), the workspace is as before.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A name or version that nothing can have.
    #[error("`{name}` is not usable as a name of a {what}")]
    Name {
        /// What it should name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A package that cannot be published or installed.
    #[error("package {package}: {}", problems.join("; "))]
    BadPackage {
        /// Which, or where it is.
        package: String,
        /// Everything that is wrong with it.
        problems: Vec<String>,
    },
    /// A path that nothing can be installed at.
    #[error("package {package}: `{path}`: {fault}")]
    Path {
        /// The package.
        package: String,
        /// The path.
        path: String,
        /// Why.
        fault: PathFault,
    },
    /// The workspace has no trust in any repository yet.
    #[error("this workspace follows no repository of releases")]
    NoRepository,
    /// The metadata of the repository is not to be trusted, or not fresh; the message names the role.
    #[error("the repository {repository} is not trusted: {reason}")]
    Untrusted {
        /// The repository.
        repository: String,
        /// What was found.
        reason: String,
    },
    /// The repository cannot be reached or read.
    #[error("the repository {repository} cannot be used: {reason}")]
    Repository {
        /// The repository.
        repository: String,
        /// What went wrong.
        reason: String,
    },
    /// There is no such thing in the repository.
    #[error("the repository has no {what} `{name}`")]
    Missing {
        /// What.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// No choice of versions fits together.
    #[error("no versions fit together: {reason}")]
    Unsolvable {
        /// In sentences.
        reason: String,
    },
    /// A package is not to be installed now.
    #[error("{package} {version} is not installed: {reason}")]
    Withheld {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// Why.
        reason: String,
    },
    /// A version that was taken back is not offered again.
    #[error("{package} {version} was revoked in {channel} ({why}) and is not offered again")]
    Revoked {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// Where.
        channel: String,
        /// Why.
        why: String,
    },
    /// Files stand in the way.
    #[error("{} files stand in the way: {}", paths.len(), paths.join("; "))]
    Conflicts {
        /// Each path, and why.
        paths: Vec<String>,
    },
    /// A package is not installed.
    #[error("package `{name}` is not installed")]
    NotInstalled {
        /// The package.
        name: String,
    },
    /// Checks after the install failed; the workspace is as before.
    #[error("{package} {version} was installed and taken back: {reason}")]
    Reverted {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// Which checks failed.
        reason: String,
    },
    /// Checks after the install failed, and there is no version of its own that could be undone.
    #[error("{package} {version} was installed, its checks failed, and it stays: {reason}")]
    Stays {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// Which checks failed.
        reason: String,
    },
    /// Content that is not what was signed.
    #[error("{path} of {package} is not what was signed: {reason}")]
    Payload {
        /// The package.
        package: String,
        /// The file.
        path: String,
        /// What differs.
        reason: String,
    },
    /// Keys that cannot be read, or do not suffice.
    #[error("the keys in {dir} cannot be used: {reason}")]
    Keys {
        /// Where they are.
        dir: String,
        /// Why.
        reason: String,
    },
    /// Fewer keys signed than have to.
    #[error("{what} has {have} of the {need} signatures that it needs")]
    TooFew {
        /// Which metadata.
        what: String,
        /// Signatures that count.
        have: u64,
        /// How many have to.
        need: u64,
    },
    /// Something has to be named for this.
    #[error("{what}: name {missing}")]
    NotNamed {
        /// What is done.
        what: String,
        /// What has to be named.
        missing: &'static str,
    },
    /// What was carried around to be signed no longer fits.
    #[error("{what} cannot be published any more: {reason}")]
    Stale {
        /// Which metadata.
        what: String,
        /// What happened meanwhile.
        reason: String,
    },
    /// What the workspace remembers of releases is damaged.
    #[error("{object} is damaged: {reason}")]
    Damaged {
        /// What.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody asked for an end.
    #[error("it was ended; nothing was installed")]
    Cancelled,
    /// A package that others need.
    #[error("{package} stays: {reason}")]
    Needed {
        /// The package.
        package: String,
        /// Who needs it, in words.
        reason: String,
    },
    /// A file that was named is not there.
    #[error("there is no {what} at {path}: {reason}")]
    NoFile {
        /// What it should be.
        what: &'static str,
        /// The path.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The local disk refused.
    #[error("{path}: {reason}")]
    Disk {
        /// Where.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The workspace refused.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
}

impl ReleaseError {
    /// A file that was named and cannot be read.
    pub(super) fn unread(what: &'static str, path: &str, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{InvalidData, IsADirectory, NotADirectory, NotFound};
        let (path, reason) = (path.to_owned(), error.to_string());
        match error.kind() {
            NotFound | NotADirectory | IsADirectory => Self::NoFile { what, path, reason },
            InvalidData => Self::Damaged { object: format!("the {what} {path}"), reason },
            _ => Self::Disk { path, reason },
        }
    }
}
