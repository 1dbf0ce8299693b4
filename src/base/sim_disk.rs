//! Simulated disk (filled in next).
