//! `kura`: an encrypted, versioned workspace kept in S3 or in a local directory and mounted as an
//! ordinary directory.
//!
//! The rooms, from the bottom up. A room may use those above it in this list, never one below it;
//! `tests/it/tidy.rs` enforces the order.
#![forbid(unsafe_code)]

pub mod base;
pub mod blob;
pub mod cli;
pub mod control;
pub mod crypto;
pub mod fs;
pub mod fuse;
pub mod store;
pub mod sync;
pub mod version;
pub mod workspace;
pub mod worktree;
