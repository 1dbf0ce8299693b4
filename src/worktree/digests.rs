//! Hashing in the background what was recorded without a digest: large files that were edited inside.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sha2::Digest;

use super::content::Reading;
use super::live::{Wait, Worktree};
use super::{Result, WorkError};
use crate::base::ids::{BlobId, Sha256};
use crate::blob::BlobError;
use crate::version::VersionError;
use crate::version::digests;
use crate::version::entry::{FileBody, Ino};
use crate::version::tree::{Edits, PageIo, TreeRef};

/// Bytes that are hashed without a pause.
const STEP_LEN: usize = 1024 * 1024;
/// After so many steps it is looked whether the digest is still wanted.
const STEPS_BETWEEN_LOOKS: u64 = 64;
/// Pauses are so many times as long as the steps between them.
const PAUSE_FACTOR: u32 = 2;

/// What was computed and is in no version yet: of which inode's content, and the digest unless the
/// content is missing.
pub(super) type Hashed = BTreeMap<BlobId, (Ino, Option<Sha256>)>;

impl Worktree {
    /// Computes the digest of one file that was recorded without; false when there is none, or when
    /// `pause` (which waits so long) ended it. The next version has the digest.
    pub fn hash_next(&self, pause: &dyn Fn(Duration) -> bool) -> Result<bool> {
        let Some((ino, body)) = self.next_unhashed()? else { return Ok(false) };
        let id = digests::content_id(&self.parts.keys, &body);
        let digest = match self.hash_body(ino, &body, pause) {
            Ok(Some(digest)) => Some(digest),
            Ok(None) => return Ok(false),
            // Not here for now; it is tried again after the next version.
            Err(WorkError::Version(VersionError::Blob(BlobError::Missing { .. }))) => None,
            Err(error) => return Err(error),
        };
        self.hashed.lock().insert(id, (ino, digest));
        Ok(true)
    }

    fn next_unhashed(&self) -> Result<Option<(Ino, FileBody)>> {
        let tree = self.base().index.root.digests;
        let pages = self.pages();
        let mut after = None;
        while let Some((ino, body)) = digests::next_wanted(&tree, &pages, after)? {
            if !self.hashed.lock().contains_key(&digests::content_id(&self.parts.keys, &body)) {
                return Ok(Some((ino, body)));
            }
            after = Some(ino);
        }
        Ok(None)
    }

    /// `None` when it was ended, or when the file has other content by now.
    fn hash_body(&self, ino: Ino, body: &FileBody, pause: &dyn Fn(Duration) -> bool) -> Result<Option<Sha256>> {
        let pages = self.pages();
        let mut hasher = sha2::Sha256::new();
        let mut buffer = Vec::with_capacity(STEP_LEN);
        let (mut at, mut steps) = (0, 0_u64);
        while at < body.size {
            let started = Instant::now();
            let len = usize::try_from(body.size - at).unwrap_or(STEP_LEN).min(STEP_LEN);
            buffer.clear();
            Reading::anywhere(&self.parts.blobs, &pages).read_body(body, at, len, body.size, &mut buffer)?;
            hasher.update(&buffer);
            at += len as u64;
            steps += 1;
            let is_wanted = !steps.is_multiple_of(STEPS_BETWEEN_LOOKS)
                || digests::wanted(&self.base().index.root.digests, &pages, ino)?.as_ref() == Some(body);
            if !is_wanted || !pause(started.elapsed() * PAUSE_FACTOR) {
                return Ok(None);
            }
        }
        Ok(Some(Sha256(hasher.finalize().into())))
    }

    /// The SHA-256 of a file as it is published; `None` when it is not known, or when more was written since.
    pub fn sha256(&self, ino: Ino, wait: Wait) -> Result<Option<Sha256>> {
        let body = self.run(wait, |table| {
            let file = table.get(ino)?.file()?;
            Ok(file.published.as_ref().filter(|_| !file.is_dirty()).map(|published| published.body.clone()))
        })?;
        match body {
            Some(FileBody { sha256: Some(digest), .. }) => Ok(Some(digest)),
            Some(_) if wait == Wait::No => Err(WorkError::WouldBlock),
            Some(body) => self.digest_of(&body),
            None => Ok(None),
        }
    }

    /// The SHA-256 of a file's content, if it is known.
    pub fn digest_of(&self, body: &FileBody) -> Result<Option<Sha256>> {
        if body.sha256.is_some() {
            return Ok(body.sha256);
        }
        let id = digests::content_id(&self.parts.keys, body);
        let here = self.hashed.lock().get(&id).and_then(|(_, digest)| *digest);
        if here.is_some() {
            return Ok(here);
        }
        Ok(digests::find(&self.base().index.root.digests, &self.pages(), &id)?)
    }

    /// The table of digests of the next version: with what was computed, and with what is to be.
    /// Returns the ids of the content that it tells of.
    pub(super) fn write_digests(
        &self,
        before: TreeRef,
        unhashed: &[(Ino, FileBody)],
        io: &dyn PageIo,
    ) -> Result<(TreeRef, Vec<BlobId>)> {
        let hashed = self.hashed.lock().clone();
        let mut edits = Edits::new();
        for (id, (ino, digest)) in &hashed {
            if let Some(digest) = digest {
                digests::set(&mut edits, id, *digest);
            }
            let wanted = digests::wanted(&before, io, *ino)?;
            let is_same = wanted.is_some_and(|body| digests::content_id(&self.parts.keys, &body) == *id);
            // Content that is missing now may be repaired; then it is still wanted.
            if digest.is_some() && is_same {
                digests::settle(&mut edits, *ino);
            }
        }
        for (ino, body) in unhashed {
            let id = digests::content_id(&self.parts.keys, body);
            if !hashed.contains_key(&id) && digests::find(&before, io, &id)?.is_none() {
                digests::want(&mut edits, *ino, body);
            }
        }
        Ok((before.edit(io, &edits)?, hashed.into_keys().collect()))
    }
}
