//! What a version is: page trees, directory entries, index records, HEAD and the refs.
//!
//! Uses: `base`, `crypto`, `store` (names only), `blob`. Has no loops that wait for the network
//! beyond a single read.
//!
//! Invariants:
//! - a page tree's pages depend on its content alone, not on the order of edits that led to it;
//! - editing a tree reads and writes pages in proportion to the edits;
//! - every decoder is bounded by the length of its input.

pub mod diff;
pub mod digests;
pub mod entry;
mod error;
pub mod head;
pub mod history;
pub mod index;
pub mod merge;
pub mod pages;
pub mod reach;
pub mod refs;
pub mod retention;
pub mod tree;
pub mod walk;

pub use error::VersionError;

/// The result of an operation of this room.
pub type Result<T> = std::result::Result<T, VersionError>;
