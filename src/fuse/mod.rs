//! (fuse)
