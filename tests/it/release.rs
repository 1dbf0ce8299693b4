//! Releases: signed, offered, installed as one version, checked, taken back.

mod attacks;
mod command_line;
mod crashes;
mod fleet;
mod lifecycle;
mod places;
mod rollouts;
mod support;
mod versions;
