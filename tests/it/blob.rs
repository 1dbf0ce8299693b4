//! Blobs: sealed forms, packs, runs, caches, and reading through all of them.
#![allow(clippy::panic, reason = "a test fails by panicking")]

mod codec;
mod local;
mod reading;
mod runs;
mod support;
