//! Walking through directories that are listed one at a time.

use super::error::{BatchError, Result};
use super::filesystem::{Each, FileInfo, FilePath, Filter, Found, Modified, is_partial};
use super::retry::Retrier;

/// What a name in a listing stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// Anything else: passed over.
    Other,
}

/// One name of a directory.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The name.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub size: u64,
    /// When it was changed.
    pub modified: Option<Modified>,
    /// The server's tag.
    pub etag: Option<String>,
}

/// Walks from the root down, handing out what the filter takes. Directories that cannot be listed are told and
/// passed over, unless the whole host fails.
pub fn walk_tree(
    filter: &Filter,
    retrier: &Retrier<'_>,
    list: &mut dyn FnMut(&[u8]) -> Result<Vec<Listed>>,
    each: &mut Each<'_>,
) -> Result<()> {
    let mut pending = vec![(Vec::new(), 0)];
    while let Some((dir, depth)) = pending.pop() {
        retrier.cancel.check()?;
        if !filter.enters(&dir, depth) && !dir.is_empty() || filter.options.max_depth == Some(0) {
            continue;
        }
        let names = match retrier.run(|_| list(&dir)) {
            Ok(names) => names,
            Err(error) if depth > 0 && !error.code().is_of_host() => {
                each(Found::Failed(error))?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut below = Vec::new();
        for listed in names {
            let path = join(&dir, &listed.name);
            let is_dir = listed.kind == Kind::Directory;
            if listed.kind == Kind::Other {
                continue;
            }
            if is_partial(&path) && !is_dir {
                if let Found::File(info) = info(&path, listed) {
                    each(Found::Partial(info))?;
                }
                continue;
            }
            if filter.takes(&path, is_dir) {
                each(info(&path, listed))?;
            }
            // What has no name of its own may be the directory that it stands in, or one above: there would be no end.
            if is_dir && FilePath::new(&*path).is_some() {
                below.push((path, depth + 1));
            }
        }
        pending.extend(below.into_iter().rev());
    }
    Ok(())
}

fn info(path: &[u8], listed: Listed) -> Found {
    let Some(place) = FilePath::new(path) else {
        let shown = String::from_utf8_lossy(path).escape_debug().to_string();
        return Found::Failed(BatchError::file(super::Code::BadName, shown, "the listing holds a name that is none"));
    };
    let is_dir = listed.kind == Kind::Directory;
    let size = if is_dir { 0 } else { listed.size };
    Found::File(FileInfo { path: place, size, modified: listed.modified, etag: listed.etag, is_dir })
}

/// A name in a directory; the root is empty.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}
