//! The content of packages: parts that are sealed with a key of their own, so that equal files are stored once and
//! only who was given a package's description can read them.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

use super::error::{ReleaseError, Result};
use super::repository::Repository;
use crate::base::disk::{Disk, OpenMode, RealDisk};
use crate::base::ids::Sha256;
use crate::crypto::{SHARED_OVERHEAD, SharedKey};
use crate::version::index::sha256;

/// Content in one part, in bytes.
const PART_LEN: usize = 1 << 20;

/// What parts of a file are called but for their number; it tells nothing about the content.
pub(super) fn stem(key: &SharedKey) -> String {
    format!("content/{}.", sha256(key.derive("name", &[]).to_text().as_bytes()))
}

/// Stores a file of the local disk, but for the parts whose names are known. It must have this digest.
pub(super) fn put(
    repository: &dyn Repository,
    key: &SharedKey,
    path: &Path,
    wanted: &Sha256,
    known: &BTreeSet<String>,
) -> Result<()> {
    let failed = |error: io::Error| ReleaseError::Disk { path: path.display().to_string(), reason: error.to_string() };
    let file = RealDisk.open(path, OpenMode::Read).map_err(failed)?;
    let (stem, mut hasher) = (stem(key), <sha2::Sha256 as sha2::Digest>::new());
    let (mut part, mut number, mut offset) = (vec![0; PART_LEN], 0, 0);
    loop {
        let count = file.read_at(&mut part, offset).map_err(failed)?;
        if count == 0 {
            break;
        }
        sha2::Digest::update(&mut hasher, &part[..count]);
        let name = format!("{stem}{number}");
        if !known.contains(&name) {
            let sealed = key.derive("part", &u64::to_le_bytes(number)).seal_same(&name, &part[..count]);
            repository.put(&name, sealed.as_bytes())?;
        }
        (number, offset) = (number + 1, offset + count as u64);
    }
    match Sha256(sha2::Digest::finalize(hasher).into()) == *wanted {
        true => Ok(()),
        false => Err(failed(io::Error::other("it was changed meanwhile"))),
    }
}

/// Reads a file's content back. What it has to be is checked by who reads it to the end; never more than `size` bytes.
pub(super) struct Content<'a> {
    repository: &'a dyn Repository,
    key: &'a SharedKey,
    stem: String,
    number: u64,
    part: io::Cursor<Vec<u8>>,
    left: u64,
    fetched: &'a mut dyn FnMut(u64) -> bool,
    /// Why the repository failed, which an I/O error cannot say.
    pub(super) failure: Option<ReleaseError>,
}

impl<'a> Content<'a> {
    /// `fetched` is told of bytes as they come, and says whether to go on.
    pub(super) fn new(
        repository: &'a dyn Repository,
        key: &'a SharedKey,
        size: u64,
        fetched: &'a mut dyn FnMut(u64) -> bool,
    ) -> Self {
        let part = io::Cursor::default();
        Self { repository, key, stem: stem(key), number: 0, part, left: size, fetched, failure: None }
    }

    fn next(&mut self) -> Result<Vec<u8>> {
        let name = format!("{}{}", self.stem, self.number);
        let missing = || ReleaseError::Missing { what: "content", name: name.clone() };
        let sealed = self.repository.get(&name, (PART_LEN + SHARED_OVERHEAD) as u64)?.ok_or_else(missing)?;
        let part = self.key.derive("part", &u64::to_le_bytes(self.number)).open(&name, &sealed);
        self.number += 1;
        let fits = |part: &Vec<u8>| !part.is_empty() && part.len() as u64 <= self.left;
        let reason = format!("{name} is not what was stored there");
        let untrusted = || ReleaseError::Untrusted { repository: self.repository.address(), reason };
        part.filter(fits).ok_or_else(untrusted)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.part.position() == self.part.get_ref().len() as u64 {
            if self.left == 0 {
                return Ok(0);
            }
            match self.next() {
                Ok(part) => {
                    self.left -= part.len() as u64;
                    if !(self.fetched)(part.len() as u64) {
                        self.failure = Some(ReleaseError::Cancelled);
                        return Err(io::Error::other("cancelled"));
                    }
                    self.part = io::Cursor::new(part);
                }
                Err(error) => {
                    let text = error.to_string();
                    self.failure = Some(error);
                    return Err(io::Error::other(text));
                }
            }
        }
        self.part.read(buffer)
    }
}
