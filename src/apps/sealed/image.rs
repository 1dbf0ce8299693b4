//! A file of sealed documents as it lies there: its header, its root, and what is under it.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::bytes::Bytes;
use super::error::{Result, SealedError, disk};
use super::layout::{FRAME_SHARE_LEN, HEADER_LEN, Header, ROOT_LEN};
use crate::crypto::document::{ROOT_KEY_LEN, RootKey};

/// Bytes that are read at once when a whole slot is.
const PART_LEN: usize = FRAME_SHARE_LEN;

/// A digest of each slot, in the order of the slots.
pub type Digests = Vec<[u8; 32]>;

/// A file whose header made sense and whose length is right. Nothing of it is in memory.
pub struct Image<'a> {
    bytes: &'a dyn Bytes,
    /// Its header.
    pub header: Header,
    /// What it is called in messages.
    pub name: &'a str,
}

impl<'a> Image<'a> {
    /// Reads the header; `name` is for messages. Fails as [`SealedError::NotSealed`], `NewerFormat`, `Damaged` (the
    /// header, its UUID among it, makes no sense, or the length is another) or `Disk`.
    pub fn open(bytes: &'a dyn Bytes, name: &'a str) -> Result<Self> {
        let mut header = [0; HEADER_LEN];
        match bytes.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(SealedError::NotSealed { file: name.to_owned() });
            }
            result => result.map_err(disk("reading", Path::new(name)))?,
        }
        let image = Self { bytes, header: Header::decode(&header, name)?, name };
        let len = bytes.total_len().map_err(disk("measuring", Path::new(name)))?;
        match len.cmp(&image.header.file_len()) {
            std::cmp::Ordering::Less => Err(image.damaged("it is cut short; take a backup of it")),
            std::cmp::Ordering::Greater => Err(image.damaged("something follows its end; take a backup of it")),
            std::cmp::Ordering::Equal => Ok(image),
        }
    }

    /// An error that says what is wrong with the file.
    pub(super) fn damaged(&self, what: &'static str) -> SealedError {
        SealedError::Damaged { file: self.name.to_owned(), what }
    }

    /// Reads a part of the file.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.bytes.read_exact_at(buffer, offset).map_err(disk("reading", Path::new(self.name)))
    }

    /// Reads the whole slot of an id, part by part, and digests it.
    pub(super) fn digest_slot(&self, id: u16, mut each: impl FnMut(&[u8], u64) -> Result<()>) -> Result<[u8; 32]> {
        let mut buffer = vec![0; PART_LEN];
        let mut hash = Sha256::new();
        let (mut at, end) = (self.header.slot_start(id), self.header.slot_start(id) + self.header.slot_len());
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(PART_LEN).min(PART_LEN);
            self.read(&mut buffer[..len], at)?;
            hash.update(&buffer[..len]);
            each(&buffer[..len], at)?;
            at += len as u64;
        }
        Ok(hash.finalize().into())
    }

    /// Reads everything and digests it.
    pub(super) fn digests(&self) -> Result<Digests> {
        (1..=self.header.slots).map(|id| self.digest_slot(id, |_, _| Ok(()))).collect()
    }

    /// Compares the digests of all slots with the checksum, and the checksum with its authentication when there is a
    /// key.
    pub(super) fn check(&self, digests: &Digests, key: Option<&RootKey>) -> Result<()> {
        let mut stored = [0; ROOT_LEN];
        self.read(&mut stored, HEADER_LEN as u64)?;
        let checksum = checksum(&self.header, digests);
        if stored[..32] != checksum {
            return Err(self.damaged("its checksum does not match; take a backup of it"));
        }
        let mut authentication = [0; ROOT_KEY_LEN];
        authentication.copy_from_slice(&stored[32..]);
        if key.is_some_and(|key| !key.is_authentic(&checksum, &authentication)) {
            return Err(self.damaged("it was altered by someone who can open none of its documents; take a backup"));
        }
        Ok(())
    }
}

/// The checksum of a file: SHA-256 over a label, the header and the digest of every slot.
fn checksum(header: &Header, digests: &Digests) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"kura/1/sealed/checksum");
    hash.update(header.encode());
    for digest in digests {
        hash.update(digest);
    }
    hash.finalize().into()
}

/// Header and root of a file, as stored.
pub fn front(header: &Header, digests: &Digests, key: &RootKey) -> [u8; HEADER_LEN + ROOT_LEN] {
    let checksum = checksum(header, digests);
    let mut front = [0; HEADER_LEN + ROOT_LEN];
    front[..HEADER_LEN].copy_from_slice(&header.encode());
    front[HEADER_LEN..HEADER_LEN + 32].copy_from_slice(&checksum);
    front[HEADER_LEN + 32..].copy_from_slice(&key.authenticate(&checksum));
    front
}
