//! The program as people and scripts use it.

mod daemon;
mod doors;
mod failures;
mod first_steps;
mod support;
