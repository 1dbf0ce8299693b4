//! Promise: what nobody needs is freed, and nothing that a kept version leads to ever is.

mod cases;
mod memory;
mod opening;
mod returning;
mod simulation;
mod support;
