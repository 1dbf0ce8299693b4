//! Batches: patterns, backlogs, the flow and its faults, processing, and being killed.

mod backlog;
mod faults;
mod flow;
mod ftp;
mod glob;
mod inside;
mod kill;
mod memory;
mod process;
mod remote;
mod rig;
mod servers;
mod version;
mod webdav;
