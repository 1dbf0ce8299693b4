//! (blob)
