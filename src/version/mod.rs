//! (version)
