//! Index records: one immutable, sealed object for each version.

use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::entry::{Entry, Ino, LinkRecord, decode, encode};
use super::tree::{PageIo, TreeRef};
use super::{Result, VersionError};
use crate::base::clock::Timestamp;
use crate::base::ids::{ClientId, Sha256, VersionId};
use crate::crypto::{Keys, Kind, Sealed};
use crate::store::ObjectKey;

/// One version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRecord {
    /// Its id (UUIDv7).
    pub id: VersionId,
    /// The versions it was made from: none for the first, one, or two after a merge.
    pub parents: Vec<VersionId>,
    /// SHA-256 over the digests of the parents' records, in order.
    pub parents_digest: Sha256,
    /// One more than the largest generation of the parents.
    pub generation: u64,
    /// When it was recorded.
    pub time: Timestamp,
    /// Who recorded it.
    pub author: Author,
    /// Why it exists.
    pub origin: Origin,
    /// What the user said of it.
    pub message: Option<String>,
    /// The tree.
    pub root: Root,
    /// What is in it, and what changed since the first parent.
    pub counts: Counts,
}

/// Who recorded a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// The client (one state directory).
    pub client: ClientId,
    /// Host name.
    pub host: String,
    /// User name.
    pub user: String,
}

/// Why a version exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The first version of the workspace.
    Init,
    /// Recorded by itself after changes.
    Automatic,
    /// Asked for by the user.
    Snapshot,
    /// The workspace or a part was set back to an earlier state.
    Restore,
    /// The inverse of an earlier version's change was applied.
    Revert,
    /// A directory was imported.
    Import,
    /// Two lines of versions were joined.
    Merge,
}

impl Origin {
    /// The word that stands in listings.
    pub fn word(self) -> &'static str {
        match self {
            Origin::Init => "init",
            Origin::Automatic => "automatic",
            Origin::Snapshot => "snapshot",
            Origin::Restore => "restore",
            Origin::Revert => "revert",
            Origin::Import => "import",
            Origin::Merge => "merge",
        }
    }
}

/// The root of a version's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The root directory.
    pub dir: Entry,
    /// Inodes with several names: big-endian inode number to [`LinkRecord`].
    pub links: TreeRef,
    /// SHA-256 of files that were recorded without it: content root to digest.
    pub digests: TreeRef,
}

/// Sizes of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Names that are not directories.
    pub files: u64,
    /// Directories without the root.
    pub dirs: u64,
    /// Sum of the sizes of regular files, once per inode.
    pub bytes: u64,
    /// Names added since the parent.
    pub added: u64,
    /// Names whose inode changed since the parent.
    pub changed: u64,
    /// Names removed since the parent.
    pub removed: u64,
}

impl IndexRecord {
    /// SHA-256 of the record's plaintext.
    pub fn digest(&self) -> Sha256 {
        sha256(&encode(self))
    }

    /// What `parents_digest` must be for these parents.
    pub fn digest_of_parents(parents: &[&IndexRecord]) -> Sha256 {
        sha256(&parents.iter().flat_map(|parent| parent.digest().0).collect::<Vec<u8>>())
    }

    /// The record's object, bound to its id.
    pub fn seal(&self, keys: &Keys) -> Sealed {
        keys.seal(Kind::Index, self.id.as_bytes(), &encode(self))
    }

    /// Opens the object of version `id`.
    pub fn open(keys: &Keys, id: VersionId, sealed: &[u8]) -> Result<Self> {
        let object = || format!("indexes/{id}");
        let bytes = keys
            .open(Kind::Index, id.as_bytes(), sealed)
            .map_err(|source| VersionError::Unopened { object: object(), source })?;
        let record: IndexRecord = decode(&bytes, &object())?;
        if record.id != id {
            return Err(VersionError::damaged(object(), "it names another version"));
        }
        Ok(record)
    }

    /// The name of a version's object.
    pub fn key(id: VersionId) -> ObjectKey {
        ObjectKey::new(format!("indexes/{id}")).unwrap_or_else(|| unreachable!("a UUID makes a valid name"))
    }
}

impl Root {
    /// The inode of an entry: itself, or what the link table holds for it.
    pub fn resolve(&self, io: &dyn PageIo, entry: Entry) -> Result<Entry> {
        if !matches!(entry.body, super::entry::Body::Link) {
            return Ok(entry);
        }
        Ok(self.link(io, entry.ino)?.inode)
    }

    /// The link record of an inode.
    pub fn link(&self, io: &dyn PageIo, ino: Ino) -> Result<LinkRecord> {
        let value = self.links.get(io, &LinkRecord::key(ino))?;
        let value =
            value.ok_or_else(|| VersionError::damaged("the link table", format!("inode {} is missing", ino.0)))?;
        LinkRecord::decode(&value)
    }

    /// The inode at a path of names, from the root; `None` when there is none.
    pub fn find(&self, io: &dyn PageIo, path: &[&[u8]]) -> Result<Option<Entry>> {
        let mut at = self.dir.clone();
        for name in path {
            let super::entry::Body::Directory { names, .. } = &at.body else { return Ok(None) };
            let Some(value) = names.get(io, name)? else { return Ok(None) };
            at = self.resolve(io, Entry::decode(&value)?)?;
        }
        Ok(Some(at))
    }
}

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}
