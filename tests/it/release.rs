//! Releases: signed, offered, installed as one version, checked, taken back.

mod alerts;
mod attacks;
mod clocks;
mod command_line;
mod crashes;
mod fleet;
mod lifecycle;
mod numbers;
mod places;
mod publishers;
mod races;
mod rollouts;
mod signed;
mod signing;
mod support;
mod versions;
