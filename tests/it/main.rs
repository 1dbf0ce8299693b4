//! All integration tests, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and writes files of its own"
)]

mod batch;
mod blob;
mod cli;
mod collecting;
mod crash;
mod crypto;
mod crypto_slots;
mod decoders;
mod dependencies;
mod dice;
mod docs;
mod faults;
mod fsync_store;
mod golden;
mod graft;
mod health;
mod iam;
mod keys;
mod joining;
mod leaks;
mod locks;
mod lying;
mod meanwhile;
mod merging;
mod model;
mod near;
mod mount;
mod publish;
mod page_trees;
mod profile;
mod reencrypt;
mod release;
mod retention;
mod rig;
mod s3_server;
mod scale;
mod sealed;
mod seeing;
mod sim_disk;
mod sizes;
mod space;
mod store_decorators;
mod store_disk_faults;
mod store_s3;
mod store_suite;
mod store_url;
mod tamper;
mod tidy;
mod version;
mod worktree;
mod transfer;
mod workspace;
mod workspace_rig;
