//! A request that is being served, and what the log of requests says of it.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Instant;

use fuser::{INodeNo, Request};
use nix::errno;

use super::convert::ino;
use super::counters::Operation;
use super::errno::errno;
use crate::fs::{Access, Fs, FsError};
use crate::version::entry::Ino;

/// A request; while somebody reads the log, with what that will say.
pub(super) struct Asked {
    pub(super) operation: Operation,
    watched: Option<Box<Watched>>,
}

struct Watched {
    fs: Arc<Fs>,
    begun: Instant,
    ino: Ino,
    path: Option<String>,
    tid: u32,
}

impl Asked {
    /// A request about an inode, or about a name in one.
    pub(super) fn new(
        fs: &Arc<Fs>,
        operation: Operation,
        request: &Request,
        node: INodeNo,
        name: Option<&OsStr>,
    ) -> Self {
        let watched = fs.access().is_read().then(|| watched(fs, ino(node), request.pid(), name)).flatten();
        Self { operation, watched }
    }

    /// Another kind of the same request.
    pub(super) fn counted_as(self, operation: Operation) -> Self {
        Self { operation, ..self }
    }

    /// It is answered so.
    pub(super) fn told(self, error: Option<&FsError>) {
        let Some(Watched { fs, begun, ino, path, tid }) = self.watched.map(|watched| *watched) else { return };
        let result =
            error.map_or("ok".to_owned(), |error| format!("{:?}", errno::Errno::from_raw(errno(error).code())));
        let operation = format!("{:?}", self.operation).to_lowercase();
        fs.access().note(&Access { operation, ino, path, tid, result, took: begun.elapsed() });
    }
}

/// Reading the log is not in the log, or it would never come to an end.
fn watched(fs: &Arc<Fs>, ino: Ino, tid: u32, name: Option<&OsStr>) -> Option<Box<Watched>> {
    if fs.is_access_log(ino) {
        return None;
    }
    let begun = Instant::now();
    let path = fs.access().shows_paths().then(|| {
        let path = fs.describe(ino);
        match name {
            Some(name) if fs.is_live(ino) => format!("{}/{}", path.trim_end_matches('/'), name.to_string_lossy()),
            _ => path,
        }
    });
    Some(Box::new(Watched { fs: fs.clone(), begun, ino, path, tid }))
}
