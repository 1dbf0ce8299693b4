//! Promise: what nobody needs is freed, and nothing that a kept version leads to ever is.

mod cases;
mod simulation;
mod support;
