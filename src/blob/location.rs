//! Where a blob lies in the store, and the names of the objects of this room.

use crate::base::ids::{BlobId, PackId, RunId};
use crate::store::ObjectKey;

use super::codec::BlobKind;

/// Where a blob's sealed form is, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// What the blob holds.
    pub kind: BlobKind,
    /// Sealed bytes.
    pub stored_len: u32,
    /// Plaintext bytes.
    pub len: u32,
    /// The object that holds it.
    pub place: Place,
}

/// The object that holds a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Among others in a pack.
    Pack {
        /// The pack.
        pack: PackId,
        /// First byte in the pack.
        offset: u32,
    },
    /// An object of its own.
    Object {
        /// Rises when the object is written anew (after collection, or under a new key epoch).
        generation: u16,
    },
}

impl Location {
    /// The object's name and the offset of the blob's first byte in it.
    pub fn object(&self, id: &BlobId) -> (ObjectKey, u32) {
        match self.place {
            Place::Pack { pack, offset } => (pack_key(pack), offset),
            Place::Object { generation } => (object_key(id, generation), 0),
        }
    }
}

/// `objects/<first two hex digits>/<id>.<generation>`: a blob that stands alone.
pub fn object_key(id: &BlobId, generation: u16) -> ObjectKey {
    let hex = id.to_string();
    key(format!("objects/{}/{hex}.{generation}", &hex[..2]))
}

/// `packs/<uuid>`: a pack.
pub fn pack_key(pack: PackId) -> ObjectKey {
    key(format!("packs/{pack}"))
}

/// `locations/<uuidv7>`: a location run.
pub fn run_key(run: RunId) -> ObjectKey {
    key(format!("locations/{run}"))
}

fn key(name: String) -> ObjectKey {
    ObjectKey::new(name).unwrap_or_else(|| unreachable!("fixed words, hexadecimal and hyphens make a name"))
}
