//! What every room stands on: typed ids, limits, time, randomness and the disk.
//!
//! Uses: nothing of ours. Holds no policy.
//!
//! Invariants: local files are written only through [`disk`]; wall time comes only from a
//! [`clock::Clock`]; random bytes come only from [`random`].
//!
//! Lock order: nothing here calls out while holding a lock.

pub mod clock;
pub mod disk;
pub mod ids;
pub mod limits;
pub mod random;
pub mod sim_disk;
