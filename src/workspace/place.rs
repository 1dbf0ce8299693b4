//! Whether one directory lies inside another.

use std::path::{Path, PathBuf};

/// Whether `path` is `dir` or lies inside of it, symbolic links followed as far as the paths exist.
pub fn is_inside(path: &Path, dir: &Path) -> bool {
    real(path).starts_with(real(dir))
}

/// The real path of the longest part that exists, with the rest behind it.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = path.ancestors().find_map(|part| Some((part, std::fs::canonicalize(part).ok()?)));
    match found {
        Some((part, real)) => real.join(path.strip_prefix(part).unwrap_or(Path::new(""))),
        None => path,
    }
}
