//! Batches: patterns, backlogs, the flow and its faults, processing, and being killed.

mod backlog;
mod faults;
mod flow;
mod glob;
mod kill;
mod process;
mod rig;
