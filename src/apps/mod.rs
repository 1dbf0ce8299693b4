//! Applications on top of a workspace, or beside it. They do not see each other.
//!
//! Uses: everything above it. Knows neither FUSE nor the words of the command line.
//!
//! Invariants: each application takes a request and gives a reply or an error that says what to do.
//!
//! Lock order: each application has its own, named in its module.

pub mod batch;
pub mod profile;
pub mod release;
pub mod sealed;
