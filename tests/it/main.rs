//! All integration tests, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics is a test that fails")]

mod crypto;
mod crypto_slots;
mod sim_disk;
mod tidy;
