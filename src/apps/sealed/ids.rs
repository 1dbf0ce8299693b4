//! The share ids of one document: with the password, what opens it.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use super::error::{Result, SealedError};
use super::layout::Header;
use crate::base::random;
use crate::crypto::document::DocumentKey;
use crate::crypto::slots::Secret;

/// Fewest and most ids of a document. One share alone would be the document itself.
const IDS_MIN: usize = 2;
const IDS_MAX: usize = 64;

/// A set of share ids, in ascending order.
#[derive(Clone, PartialEq, Eq)]
pub struct ShareIds(Vec<u16>);

impl ShareIds {
    /// Takes ids in any order; none may be 0 or come twice.
    pub fn new(ids: &[u16]) -> Result<Self> {
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        let distinct = sorted.windows(2).all(|pair| pair[0] != pair[1]);
        let ids = Self(sorted);
        if !(IDS_MIN..=IDS_MAX).contains(&ids.0.len()) {
            return Err(SealedError::Ids(format!("a document has {IDS_MIN} to {IDS_MAX} of them")));
        }
        if !distinct || ids.0[0] == 0 {
            return Err(SealedError::Ids("they count from 1, and none comes twice".to_owned()));
        }
        Ok(ids)
    }

    /// Reads `3,17,40`.
    pub fn parse(text: &str) -> Result<Self> {
        let ids: std::result::Result<Vec<u16>, _> = text.split(',').map(|id| id.trim().parse()).collect();
        Self::new(&ids.map_err(|_| SealedError::Ids("write them as 3,17,40".to_owned()))?)
    }

    /// Draws as many ids as are wanted, all sets equally likely, from those that no other set has.
    pub(super) fn draw(count: usize, header: &Header, taken: &[&ShareIds], file: &str) -> Result<Self> {
        let mut free: BTreeSet<u16> = (1..=header.slots).collect();
        for id in taken.iter().flat_map(|ids| &ids.0) {
            free.remove(id);
        }
        let mut free: Vec<u16> = free.into_iter().collect();
        if free.len() < count {
            return Err(SealedError::Full { file: file.to_owned(), free: free.len(), wanted: count });
        }
        let mut drawn = Vec::with_capacity(count.min(IDS_MAX));
        for _ in 0..count {
            drawn.push(free.swap_remove(below(free.len())));
        }
        let ids = Self::new(&drawn);
        drawn.zeroize();
        free.zeroize();
        ids
    }

    /// The ids.
    pub fn as_slice(&self) -> &[u16] {
        &self.0
    }

    /// Refuses ids that a file has no slots for.
    pub(super) fn check_fits(&self, header: &Header) -> Result<()> {
        let fits = self.0.last().is_some_and(|last| *last <= header.slots);
        fits.then_some(()).ok_or_else(|| SealedError::Ids(format!("they are at most {} in this file", header.slots)))
    }

    /// Whether the two have an id in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|id| other.0.contains(id))
    }
}

impl Drop for ShareIds {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for ShareIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShareIds({} of them)", self.0.len())
    }
}

/// A uniformly random number below `bound`, which is at most 65,536.
fn below(bound: usize) -> usize {
    let bound = bound as u64;
    loop {
        let number = random::number();
        // The largest multiple of the bound: above it, some remainders would be likelier.
        if number < u64::MAX - u64::MAX % bound {
            return usize::try_from(number % bound).unwrap_or(0);
        }
    }
}

/// What opens one document.
#[derive(Debug)]
pub struct Credentials {
    /// Its password, as bytes.
    pub password: Secret,
    /// Its share ids.
    pub ids: ShareIds,
}

impl Credentials {
    /// The document's key in a file. This is the costly step.
    pub(super) fn key(&self, header: &Header) -> Result<DocumentKey> {
        if self.password.as_bytes().is_empty() {
            return Err(SealedError::EmptyPassword);
        }
        self.ids.check_fits(header)?;
        let mut hash = Sha256::new();
        hash.update(b"kura/1/sealed/password");
        hash.update(header.encode());
        hash.update(u16::try_from(self.ids.0.len()).unwrap_or(0).to_le_bytes());
        for id in &self.ids.0 {
            hash.update(id.to_le_bytes());
        }
        let hash: [u8; 32] = hash.finalize().into();
        let mut salt = [0; 16];
        salt.copy_from_slice(&hash[..16]);
        Ok(DocumentKey::stretch(&self.password, header.kdf, &salt)?)
    }
}
