//! Profiles: installs that are one version or nothing.

mod command_line;
mod conflicts;
mod lifecycle;
mod races;
mod refused;
mod support;
