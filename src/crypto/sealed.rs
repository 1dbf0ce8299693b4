//! The sealed envelope: header, nonce, ciphertext, tag. Drawn in `FORMAT.md`, "Sealed envelope".

use crate::base::limits::FORMAT_VERSION;

/// What is inside an envelope. Each kind has a key of its own in every epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A frame of file content.
    Content = 1,
    /// A frame of a page (directory, link table, chunk list, refs).
    Page = 2,
    /// An index record: one version.
    Index = 3,
    /// HEAD.
    Head = 4,
    /// The directory at the end of a pack.
    PackDirectory = 5,
    /// A frame of a location run.
    Locations = 6,
    /// A journal frame.
    Journal = 7,
    /// Other local state: client memory, publish queue.
    Local = 8,
    /// An advisory lock.
    Lease = 9,
    /// A list of objects that garbage collection condemned.
    Condemned = 10,
    /// The slots and the header, authenticated under the epoch key.
    Epoch = 11,
    /// Records of the applications (status memory, audit log, releases).
    App = 12,
}

impl Kind {
    pub(super) const ALL: [Kind; 12] = [
        Kind::Content,
        Kind::Page,
        Kind::Index,
        Kind::Head,
        Kind::PackDirectory,
        Kind::Locations,
        Kind::Journal,
        Kind::Local,
        Kind::Lease,
        Kind::Condemned,
        Kind::Epoch,
        Kind::App,
    ];

    /// The label that separates the kind's key from every other.
    pub(super) fn label(self) -> &'static str {
        match self {
            Kind::Content => "content",
            Kind::Page => "page",
            Kind::Index => "index",
            Kind::Head => "head",
            Kind::PackDirectory => "pack-directory",
            Kind::Locations => "locations",
            Kind::Journal => "journal",
            Kind::Local => "local",
            Kind::Lease => "lease",
            Kind::Condemned => "condemned",
            Kind::Epoch => "epoch",
            Kind::App => "app",
        }
    }
}

pub(super) const MAGIC: [u8; 2] = *b"ku";
pub(super) const HEADER_LEN: usize = 8;
pub(super) const NONCE_LEN: usize = 12;
pub(super) const TAG_LEN: usize = 16;

/// Bytes of an envelope before its ciphertext: header 8, nonce 12.
pub const SEAL_FRONT_LEN: usize = HEADER_LEN + NONCE_LEN;
/// Bytes an envelope adds to its plaintext: the front, and the tag of 16.
pub const SEAL_OVERHEAD: usize = SEAL_FRONT_LEN + TAG_LEN;

pub(super) fn header(kind: Kind, epoch: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..2].copy_from_slice(&MAGIC);
    header[2] = FORMAT_VERSION;
    header[3] = kind as u8;
    header[4..].copy_from_slice(&epoch.to_le_bytes());
    header
}

/// Bytes that hold nothing readable: one envelope, or several in a row.
///
/// Only `crypto` makes them, and an object store accepts nothing else. Three objects of
/// [`slots`](super::slots) are no envelopes: key slots and epoch records, whose secrets are wrapped inside, and
/// the workspace header, the only plaintext that is ever stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The sealed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The number of sealed bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An empty run of envelopes to [`append`](Self::append) to.
    pub fn empty() -> Self {
        Self(Vec::new())
    }

    /// As [`empty`](Self::empty), with room for `capacity` sealed bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Puts the envelopes of `other` behind these.
    pub fn append(&mut self, other: &Sealed) {
        self.0.extend_from_slice(&other.0);
    }

    /// The sealed bytes, given away.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Takes back bytes that were sealed earlier and kept on the local disk (the outbox).
    ///
    /// Checks that they begin with an envelope header; `None` when they do not.
    pub fn from_local(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() >= SEAL_OVERHEAD && bytes[..2] == MAGIC).then_some(Self(bytes))
    }
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}
