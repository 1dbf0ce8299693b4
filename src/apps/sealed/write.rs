//! Writing a file of sealed documents anew: slots of others are copied, a document's own are made.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::bytes::Bytes;
use super::error::{Result, SealedError, disk};
use super::image::{Digests, Image, front};
use super::layout::{FRAME_SHARE_LEN, Header};
use super::open::{DESCRIPTION_NUMBER, Damage, Description, open};
use super::steps::NewShares;
use crate::base::random;
use crate::crypto::document::{DocumentKey, RootKey, SALT_LEN, SlotKey};

/// A file that is being written.
pub struct Writer<'a> {
    target: &'a dyn Bytes,
    header: Header,
    name: &'a str,
    digests: Digests,
}

impl<'a> Writer<'a> {
    /// Begins with all slots unused: random bytes.
    pub fn unused(header: &Header, target: &'a dyn Bytes, name: &'a str) -> Result<Self> {
        let mut writer = Self { target, header: *header, name, digests: Vec::new() };
        writer.digests.resize(header.slots.into(), [0; 32]);
        for id in 1..=header.slots {
            writer.forget(id)?;
        }
        Ok(writer)
    }

    /// Begins with all slots as they are in another file.
    pub fn copied(source: &Image<'_>, target: &'a dyn Bytes, name: &'a str) -> Result<Self> {
        let mut writer = Self { target, header: source.header, name, digests: Vec::new() };
        for id in 1..=source.header.slots {
            let digest = source.digest_slot(id, |part, at| writer.write(part, at))?;
            writer.digests.push(digest);
        }
        Ok(writer)
    }

    /// The digests of the slots so far.
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Fills a slot with random bytes, which is what an unused one holds.
    pub fn forget(&mut self, id: u16) -> Result<()> {
        let mut buffer = vec![0; FRAME_SHARE_LEN];
        let mut hash = Sha256::new();
        let (mut at, end) = (self.header.slot_start(id), self.header.slot_start(id) + self.header.slot_len());
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(buffer.len()).min(buffer.len());
            random::fill(&mut buffer[..len]);
            hash.update(&buffer[..len]);
            self.write(&buffer[..len], at)?;
            at += len as u64;
        }
        self.digests[usize::from(id - 1)] = hash.finalize().into();
        Ok(())
    }

    /// Seals new shares of a document, and puts them into its slots.
    pub fn put(&mut self, key: &DocumentKey, shares: &NewShares<'_>) -> Result<()> {
        let ids = shares.ids().as_slice();
        let count = u16::try_from(ids.len()).unwrap_or(u16::MAX);
        let description = Description { generation: random::bytes(), threshold: shares.threshold(), ids: count };
        let mut slots = Vec::with_capacity(ids.len());
        for id in ids {
            slots.push(self.begin_slot(*id, key, &description)?);
        }
        for (frame, mut chunk) in shares.chunks().enumerate() {
            for ((id, share), (slot, hash)) in chunk.iter_mut().zip(&mut slots) {
                let tag = slot.seal(u32::try_from(frame).unwrap_or(DESCRIPTION_NUMBER), share);
                let at = self.header.slot_start(*id) + self.header.frame_start(frame);
                hash.update(&*share);
                hash.update(tag);
                self.write(share, at)?;
                self.write(&tag, at + share.len() as u64)?;
            }
        }
        for (id, (_, hash)) in ids.iter().zip(slots) {
            self.digests[usize::from(*id - 1)] = hash.finalize().into();
        }
        Ok(())
    }

    fn begin_slot(&self, id: u16, key: &DocumentKey, description: &Description) -> Result<(SlotKey, Sha256)> {
        let salt: [u8; SALT_LEN] = random::bytes();
        let slot = key.slot(id, &salt);
        let mut sealed = description.encode();
        let tag = slot.seal(DESCRIPTION_NUMBER, &mut sealed);
        let head = [&salt[..], slot.commitment(), &sealed, &tag].concat();
        self.write(&head, self.header.slot_start(id))?;
        let mut hash = Sha256::new();
        hash.update(&head);
        Ok((slot, hash))
    }

    /// Writes header and root, which completes the file.
    pub fn finish(self, root_key: &RootKey) -> Result<Digests> {
        self.write(&front(&self.header, &self.digests, root_key), 0)?;
        Ok(self.digests)
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.target.write_at(bytes, at).map_err(disk("writing", Path::new(self.name)))
    }
}

/// Reads a finished file back: all slots are as they were written and the root is authentic.
pub fn confirm(target: &Image<'_>, digests: &Digests, root_key: &RootKey) -> Result<()> {
    if target.digests()? != *digests {
        return Err(not_written(target, "a slot is not what was written"));
    }
    target.check(digests, Some(root_key)).map_err(|_| not_written(target, "its root is not what was written"))
}

/// Reads a document back from the new shares.
pub fn confirm_document(target: &Image<'_>, key: &DocumentKey, shares: &NewShares<'_>) -> Result<()> {
    let opened = open(target, shares.ids(), key, Damage::Refuse)
        .map_err(|_| not_written(target, "the document does not open"))?;
    let same = opened.is_json(shares.json())? && opened.head.revision == shares.head().revision;
    if same { Ok(()) } else { Err(not_written(target, "the document differs")) }
}

fn not_written(target: &Image<'_>, what: &'static str) -> SealedError {
    SealedError::NotWritten { file: target.name.to_owned(), what }
}
