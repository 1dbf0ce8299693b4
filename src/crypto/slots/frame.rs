//! The frame around slots and epoch records: magic, version, type, body, checksum.
//!
//! The checksum tells damage from everything else before a secret is tried. It is no protection
//! against someone who means harm and computes it anew; that is what the tags inside are for. Its
//! place is the same in every format to come, so that a damaged record is never taken for a newer one.

use sha2::{Digest, Sha256};

use crate::base::limits::FORMAT_VERSION;
use crate::crypto::sealed::MAGIC;

/// Type byte of a key slot; outside the range of envelope kinds.
pub(super) const TYPE_SLOT: u8 = 0x81;
/// Type byte of an epoch record.
pub(super) const TYPE_EPOCH: u8 = 0x82;

pub(super) const FRAME_HEADER_LEN: usize = 4;
const CHECKSUM_LEN: usize = 32;

/// Why a frame could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameError {
    Damaged(&'static str),
    NewerFormat(u8),
}

pub(super) fn frame_header(record_type: u8) -> [u8; FRAME_HEADER_LEN] {
    [MAGIC[0], MAGIC[1], FORMAT_VERSION, record_type]
}

pub(super) fn frame(record_type: u8, body: &[u8]) -> Vec<u8> {
    let mut out = [&frame_header(record_type)[..], body].concat();
    let checksum = Sha256::digest(&out);
    out.extend_from_slice(&checksum);
    out
}

/// The body of a frame.
pub(super) fn unframe(record_type: u8, bytes: &[u8], len_max: usize) -> Result<&[u8], FrameError> {
    if bytes.len() > len_max {
        return Err(FrameError::Damaged("it is too long"));
    }
    if bytes.len() < FRAME_HEADER_LEN + CHECKSUM_LEN {
        return Err(FrameError::Damaged("it is cut short"));
    }
    let (front, checksum) = bytes.split_at(bytes.len() - CHECKSUM_LEN);
    if Sha256::digest(front)[..] != *checksum {
        return Err(FrameError::Damaged("its checksum does not match"));
    }
    if front[..2] != MAGIC {
        return Err(FrameError::Damaged("it does not begin as one of ours"));
    }
    if front[2] > FORMAT_VERSION {
        return Err(FrameError::NewerFormat(front[2]));
    }
    if front[..FRAME_HEADER_LEN] != frame_header(record_type) {
        return Err(FrameError::Damaged("another kind of object lies in its place"));
    }
    Ok(&front[FRAME_HEADER_LEN..])
}
