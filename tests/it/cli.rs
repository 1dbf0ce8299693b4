//! The program as people and scripts use it.
#![allow(clippy::disallowed_methods, reason = "a test writes files as other programs do")]

mod alike;
mod carried;
mod daemon;
mod dead;
mod doors;
mod failures;
mod faults;
mod first_steps;
mod jobs;
mod keys;
mod locks;
mod kill;
mod many;
mod mount8;
pub mod support;
mod system;
mod traces;
mod watching;
