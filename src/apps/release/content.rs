//! The content of packages: chunks that are cut where the content says so and sealed with keys of their own, so that
//! what any packages have in common is stored once, and only who was given a package's description can read it.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

use super::error::{ReleaseError, Result};
use super::package::Package;
use super::repository::Repository;
use crate::base::disk::{Disk, OpenMode, RealDisk};
use crate::base::ids::Sha256;
use crate::base::limits::CHUNK_LEN_MAX;
use crate::blob::chunker::Chunker;
use crate::crypto::{SHARED_OVERHEAD, SharedKey};
use crate::version::index::sha256;

/// What a chunk is called; it tells nothing about the content.
fn name(key: &SharedKey) -> String {
    format!("content/{}", sha256(key.derive("name", &[]).to_text().as_bytes()))
}

/// The names of all content of a package.
pub(super) fn names(package: &Package) -> impl Iterator<Item = String> {
    package.files.iter().flat_map(|file| &file.chunks).map(name)
}

/// Cuts as a publisher does: other publishers, and stores, learn nothing from where.
fn chunker(content_key: &SharedKey) -> Chunker {
    let digest = sha256(content_key.derive("cut", &[]).to_text().as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest.0[..8]);
    Chunker::new(u64::from_le_bytes(first))
}

/// Stores a file of the local disk, but for chunks whose names are known, and returns the keys of its chunks. It must
/// have this digest.
pub(super) fn put(
    repository: &dyn Repository,
    content_key: &SharedKey,
    path: &Path,
    wanted: &Sha256,
    known: &mut BTreeSet<String>,
) -> Result<Vec<SharedKey>> {
    let failed = |error: io::Error| ReleaseError::Disk { path: path.display().to_string(), reason: error.to_string() };
    let file = RealDisk.open(path, OpenMode::Read).map_err(failed)?;
    let (chunker, mut hasher) = (chunker(content_key), <sha2::Sha256 as sha2::Digest>::new());
    let (mut keys, mut offset) = (Vec::new(), 0);
    loop {
        let window = file.read_vec(offset, CHUNK_LEN_MAX).map_err(failed)?;
        let Some(len) = chunker.next_cut(&window, window.len() < CHUNK_LEN_MAX) else { break };
        let chunk = &window[..len];
        sha2::Digest::update(&mut hasher, chunk);
        let key = content_key.derive("chunk", &sha256(chunk).0);
        let name = name(&key);
        if known.insert(name.clone()) {
            repository.put(&name, key.derive("content", &[]).seal_same(&name, chunk).as_bytes())?;
        }
        keys.push(key);
        offset += len as u64;
    }
    match Sha256(sha2::Digest::finalize(hasher).into()) == *wanted {
        true => Ok(keys),
        false => Err(failed(io::Error::other("it was changed meanwhile"))),
    }
}

/// Reads a file's content back. What it has to be is checked by who reads it to the end; never more than `size` bytes.
pub(super) struct Content<'a> {
    repository: &'a dyn Repository,
    chunks: std::slice::Iter<'a, SharedKey>,
    chunk: io::Cursor<Vec<u8>>,
    left: u64,
    fetched: &'a mut dyn FnMut(u64) -> bool,
    /// Why the repository failed, which an I/O error cannot say.
    pub(super) failure: Option<ReleaseError>,
}

impl<'a> Content<'a> {
    /// `fetched` is told of bytes as they come, and says whether to go on.
    pub(super) fn new(
        repository: &'a dyn Repository,
        chunks: &'a [SharedKey],
        size: u64,
        fetched: &'a mut dyn FnMut(u64) -> bool,
    ) -> Self {
        let chunk = io::Cursor::default();
        Self { repository, chunks: chunks.iter(), chunk, left: size, fetched, failure: None }
    }

    fn fetch(&self, key: &SharedKey) -> Result<Vec<u8>> {
        let name = name(key);
        let missing = || ReleaseError::Missing { what: "content", name: name.clone() };
        let sealed = self.repository.get(&name, (CHUNK_LEN_MAX + SHARED_OVERHEAD) as u64)?.ok_or_else(missing)?;
        let chunk = key.derive("content", &[]).open(&name, &sealed);
        let fits = |chunk: &Vec<u8>| !chunk.is_empty() && chunk.len() as u64 <= self.left;
        let reason = format!("{name} is not what was stored there");
        let untrusted = || ReleaseError::Untrusted { repository: self.repository.address(), reason };
        chunk.filter(fits).ok_or_else(untrusted)
    }

    /// The next chunk; nothing after the last.
    fn next(&mut self) -> Result<Vec<u8>> {
        let Some(key) = self.chunks.next().filter(|_| self.left > 0) else { return Ok(Vec::new()) };
        let chunk = self.fetch(key)?;
        self.left -= chunk.len() as u64;
        if (self.fetched)(chunk.len() as u64) { Ok(chunk) } else { Err(ReleaseError::Cancelled) }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.position() == self.chunk.get_ref().len() as u64 {
            match self.next() {
                Ok(chunk) => self.chunk = io::Cursor::new(chunk),
                Err(error) => {
                    let text = error.to_string();
                    self.failure = Some(error);
                    return Err(io::Error::other(text));
                }
            }
        }
        self.chunk.read(buffer)
    }
}
