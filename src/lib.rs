//! `kura`: an encrypted, versioned workspace kept in S3 or in a local directory and mounted as an
//! ordinary directory.
//!
//! The rooms, from the bottom up. A room may use those above it in this list, never one below it;
//! `tests/it/tidy.rs` enforces the order.
#![forbid(unsafe_code)]

pub mod base;
pub mod crypto;
pub mod store;
pub mod blob;
pub mod version;
pub mod worktree;
pub mod sync;
pub mod workspace;
pub mod apps;
pub mod control;
pub mod fs;
pub mod fuse;
pub mod cli;
