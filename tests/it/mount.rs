//! Real mounts: the whole of it, through the kernel.

mod cases;
mod conformance;
mod full_disk;
mod control;
mod extremes;
pub mod guard;
mod kernel_cache;
mod lifecycle;
mod listings;
mod near;
mod permissions;
mod programs;
mod races;
mod requests;
mod talking;
mod whole;
mod workloads;
