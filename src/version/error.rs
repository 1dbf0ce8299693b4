//! What can go wrong with versions.

use crate::base::ids::VersionId;
use crate::blob::BlobError;
use crate::crypto::OpenError;
use crate::store::StoreError;

/// A version, page, index record or HEAD that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VersionError {
    /// The blob that holds a page could not be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The store could not deliver an object.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object could not be opened.
    #[error("{object} cannot be opened: {source}")]
    Unopened {
        /// The object's name.
        object: String,
        /// Why.
        source: OpenError,
    },
    /// The opened bytes are not what they should be.
    #[error("{object} is damaged: {reason}")]
    Damaged {
        /// The object or part.
        object: String,
        /// What was found.
        reason: String,
    },
    /// No version is selected by this text.
    #[error("no version matches `{selector}`; `kura log` lists them")]
    NoSuchVersion {
        /// The text.
        selector: String,
    },
    /// Several versions are selected by this text.
    #[error("`{selector}` matches several versions ({first}, {second}, …); give more digits")]
    Ambiguous {
        /// The text.
        selector: String,
        /// One that matches.
        first: VersionId,
        /// Another.
        second: VersionId,
    },
    /// There is no such path in the version.
    #[error("version {version} has no `{path}`")]
    NoSuchPath {
        /// The version.
        version: VersionId,
        /// The path, shown lossily.
        path: String,
    },
}

impl VersionError {
    pub(super) fn damaged(object: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        VersionError::Damaged { object: object.into(), reason: reason.to_string() }
    }
}
