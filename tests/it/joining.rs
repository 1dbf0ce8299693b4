//! Several clients on one workspace: what one publishes reaches the others, and nothing is lost.

mod acknowledged;
mod cases;
mod closes;
mod faults;
mod simulation;
