//! Lists of names that garbage collection takes out of existence. Drawn in `FORMAT.md`, "Collection".

use crate::base::clock::Timestamp;
use crate::base::ids::{BlobId, PackId, RunId, VersionId};
use crate::blob::location;
use crate::crypto::{Keys, Kind, Sealed};
use crate::store::ObjectKey;
use crate::version::VersionError;
use crate::version::index::IndexRecord;

/// Bytes of one name: kind 1, id 32, generation 2.
const RECORD_LEN: usize = 35;
/// Bytes before the names: number 8, time 8, list before 16, how many names 8.
const HEADER_LEN: usize = 40;
/// So many names at most are in one list; what is left over waits for the next collection.
pub const NAMES_MAX: usize = 1_000_000;

/// The name of an object that may be collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// The record of a forgotten version.
    Index(VersionId),
    /// A blob that stands alone, with its generation.
    Object(BlobId, u16),
    /// A pack.
    Pack(PackId),
    /// A location run.
    Run(RunId),
    /// A list of an earlier collection.
    List(uuid::Uuid),
    /// In a list of candidates: a pack whose few living blobs are to be stored anew, after which it goes.
    Sparse(PackId),
}

impl Name {
    /// What an object's name says; `None` for all that is never collected.
    pub fn of(key: &ObjectKey) -> Option<Self> {
        let (room, rest) = key.as_str().split_once('/')?;
        let name = match room {
            "indexes" => Name::Index(rest.parse().ok()?),
            "packs" => Name::Pack(rest.parse().ok()?),
            "locations" => Name::Run(rest.parse().ok()?),
            "condemned" => Name::List(uuid::Uuid::try_parse(rest).ok()?),
            "objects" => {
                let (id, generation) = rest.split_once('/')?.1.split_once('.')?;
                Name::Object(id.parse().ok()?, generation.parse().ok()?)
            }
            _ => return None,
        };
        (name.key() == *key).then_some(name)
    }

    /// The object.
    pub fn key(&self) -> ObjectKey {
        match self {
            Name::Index(version) => IndexRecord::key(*version),
            Name::Object(id, generation) => location::object_key(id, *generation),
            Name::Pack(pack) | Name::Sparse(pack) => location::pack_key(*pack),
            Name::Run(run) => location::run_key(*run),
            Name::List(list) => list_key(*list),
        }
    }

    fn record(&self) -> [u8; RECORD_LEN] {
        let mut record = [0; RECORD_LEN];
        let (kind, id): (u8, &[u8]) = match self {
            Name::Index(version) => (0, version.as_bytes()),
            Name::Object(id, _) => (1, id.as_bytes()),
            Name::Pack(pack) => (2, pack.as_bytes()),
            Name::Run(run) => (3, run.as_bytes()),
            Name::List(list) => (4, list.as_bytes()),
            Name::Sparse(pack) => (5, pack.as_bytes()),
        };
        record[0] = kind;
        record[1..=id.len()].copy_from_slice(id);
        if let Name::Object(_, generation) = self {
            record[33..].copy_from_slice(&generation.to_le_bytes());
        }
        record
    }

    fn parse(record: &[u8]) -> Option<Self> {
        let id: [u8; 32] = record.get(1..33)?.try_into().ok()?;
        let uuid = uuid::Uuid::from_slice(&id[..16]).ok()?;
        let name = match record[0] {
            0 => Name::Index(VersionId(uuid)),
            1 => Name::Object(BlobId(id), u16::from_le_bytes([record[33], record[34]])),
            2 => Name::Pack(PackId(uuid)),
            3 => Name::Run(RunId(uuid)),
            4 => Name::List(uuid),
            5 => Name::Sparse(PackId(uuid)),
            _ => return None,
        };
        (name.record() == record).then_some(name)
    }
}

/// A list of names, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    /// The number of the collection that it belongs to.
    pub number: u64,
    /// When it was made, by the clock of its maker.
    pub time: Timestamp,
    /// The list of candidates that it was made from, for a final one.
    pub candidates: Option<uuid::Uuid>,
    /// The names, as stored.
    records: Vec<u8>,
}

/// The object of a list.
pub fn list_key(id: uuid::Uuid) -> ObjectKey {
    ObjectKey::new(format!("condemned/{id}")).unwrap_or_else(|| unreachable!("a UUID makes a valid name"))
}

impl Condemned {
    /// A list of names, in any order.
    pub fn new(number: u64, time: Timestamp, candidates: Option<uuid::Uuid>, mut names: Vec<Name>) -> Self {
        names.sort_unstable_by_key(Name::record);
        names.dedup();
        Self { number, time, candidates, records: names.iter().flat_map(Name::record).collect() }
    }

    /// The number of names.
    pub fn len(&self) -> usize {
        self.records.len() / RECORD_LEN
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = Name> + '_ {
        self.records.chunks_exact(RECORD_LEN).filter_map(Name::parse)
    }

    /// Whether a name is in the list.
    pub fn contains(&self, name: &Name) -> bool {
        let wanted = name.record();
        let record = |at: usize| self.records.get(at * RECORD_LEN..(at + 1) * RECORD_LEN).unwrap_or_default();
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match record(middle).cmp(&wanted) {
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        false
    }

    /// Seals the list for the name `id`.
    pub fn seal(&self, keys: &Keys, id: uuid::Uuid) -> Sealed {
        let mut plain = Vec::with_capacity(HEADER_LEN + self.records.len());
        plain.extend_from_slice(&self.number.to_le_bytes());
        plain.extend_from_slice(&self.time.unix_ns().to_le_bytes());
        plain.extend_from_slice(self.candidates.unwrap_or_default().as_bytes());
        plain.extend_from_slice(&(self.len() as u64).to_le_bytes());
        plain.extend_from_slice(&self.records);
        keys.seal(Kind::Condemned, id.as_bytes(), &plain)
    }

    /// Opens the list `id`.
    pub fn open(keys: &Keys, id: uuid::Uuid, sealed: &[u8]) -> Result<Self, VersionError> {
        let object = || list_key(id).to_string();
        let plain = keys
            .open(Kind::Condemned, id.as_bytes(), sealed)
            .map_err(|source| VersionError::Unopened { object: object(), source })?;
        let reason = "it is no list of names".to_owned();
        Self::decode(&plain).ok_or_else(|| VersionError::Damaged { object: object(), reason })
    }

    /// Decodes what was opened; `None` when it makes no sense.
    pub fn decode(plain: &[u8]) -> Option<Self> {
        let (header, records) = plain.split_at_checked(HEADER_LEN)?;
        let number = |at: usize| header.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let time = Timestamp::from_unix_ns(i64::from_le_bytes(header.get(8..16)?.try_into().ok()?));
        let candidates = uuid::Uuid::from_slice(header.get(16..32)?).ok().filter(|id| !id.is_nil());
        let list = Self { number: number(0)?, time, candidates, records: records.to_vec() };
        let is_whole = records.len().is_multiple_of(RECORD_LEN) && number(32)? == list.len() as u64;
        let chunks = || list.records.chunks_exact(RECORD_LEN);
        let is_sound = chunks().is_sorted_by(|a, b| a < b) && chunks().all(|record| Name::parse(record).is_some());
        (is_whole && is_sound && list.len() <= NAMES_MAX * 2).then_some(list)
    }
}
