//! All integration tests, in one binary.

mod crypto;
mod crypto_slots;
mod sim_disk;
mod tidy;
