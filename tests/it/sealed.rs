//! Sealed documents: several JSON documents in one file.

mod command_line;
mod crash;
mod documents;
mod format;
mod golden;
mod json;
mod large;
mod locks;
mod request;
mod same_work;
mod secrets;
mod sharing;
mod slots_look_alike;
mod steps;
mod support;
mod tamper;
mod watching;
mod within;
