//! Key slots, epochs and the workspace header (filled in next).
