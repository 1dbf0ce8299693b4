//! Real mounts: the whole of it, through the kernel.

mod cases;
mod full_disk;
mod control;
mod guard;
mod kernel_cache;
mod lifecycle;
mod permissions;
mod programs;
mod races;
