//! What there is in the store, and what of it nobody needs.

use std::collections::{HashMap, HashSet};

use super::Collector;
use super::mark::{Listing, Marks, half, runs_of};
use crate::base::ids::PackId;
use crate::blob::Place;
use crate::sync::condemned::NAMES_MAX;
use crate::sync::{Name, SyncError};
use crate::version::head::{CollectionState, Head};
use crate::version::pages::Pages;
use crate::version::refs;

/// What was found in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Objects in the store that versions are made of.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that versions lead to.
    pub blobs: u64,
    /// Objects that nothing needs.
    pub dead_objects: u64,
    /// Their bytes.
    pub dead_bytes: u64,
    /// Packs of which so little is needed that it is to be stored anew.
    pub sparse_packs: u64,
    /// Bytes in these that nothing needs.
    pub sparse_bytes: u64,
    /// Whether something else than packs is among the dead.
    pub has_more_than_packs: bool,
    /// Whether there are more than one collection takes.
    pub is_partial: bool,
}

impl Garbage {
    /// Whether a collection is worth it: not for a few bytes in packs alone.
    pub(super) fn is_worth(&self, bytes_min: u64) -> bool {
        self.has_more_than_packs || self.dead_bytes + self.sparse_bytes >= bytes_min
    }
}

/// What a survey found.
pub(super) struct Survey {
    pub(super) versions: u64,
    pub(super) garbage: Garbage,
    pub(super) names: Vec<Name>,
}

/// The objects that living blobs lie in.
#[derive(Default)]
pub(super) struct Living {
    /// Objects of their own, by half of their ids and their generations.
    objects: HashSet<u128>,
    /// Living bytes in packs.
    pub(super) packs: HashMap<PackId, u64>,
}

/// Half of an id with the generation in its lowest bits.
fn named(id: &crate::base::ids::BlobId, generation: u16) -> u128 {
    half(id) << 16 | u128::from(generation)
}

impl Living {
    pub(super) fn has_object(&self, id: &crate::base::ids::BlobId, generation: u16) -> bool {
        self.objects.contains(&named(id, generation))
    }
}

impl Collector {
    /// Where the living blobs lie, by the location runs of a HEAD.
    pub(super) fn living(&self, head: &Head, marks: &Marks) -> Result<Living, SyncError> {
        let mut living = Living::default();
        let mut found = 0_u64;
        self.blobs.index().each_in_order(&runs_of(head), &mut |record| {
            if record.is_newest && marks.has(&record.id) {
                found += 1;
                let location = record.location()?;
                match location.place {
                    Place::Pack { pack, .. } => {
                        *living.packs.entry(pack).or_default() += u64::from(location.stored_len);
                    }
                    Place::Object { generation } => drop(living.objects.insert(named(&record.id, generation))),
                }
            }
            Ok(())
        })?;
        match marks.count().saturating_sub(found) {
            0 => Ok(living),
            missing => Err(SyncError::Unlocated { missing }),
        }
    }

    /// Marks, lists the store, and says what is not needed.
    pub(super) fn survey(
        &self,
        head: &Head,
        marks: &mut Marks,
        sparse_percent: u8,
        stop: &dyn Fn() -> bool,
    ) -> Result<Survey, SyncError> {
        let listing = self.mark(head, marks, stop)?;
        let living = self.living(head, marks)?;
        let lists = refs::final_lists(&head.refs, &Pages(&self.blobs), 0)?;
        let needed = Needed { head, listing: &listing, living: &living, sparse_percent };
        let mut garbage = Garbage { blobs: marks.count(), ..Garbage::default() };
        let mut names = Vec::new();
        for prefix in ["indexes/", "objects/", "packs/", "locations/", "condemned/"] {
            self.parts.store.list(prefix, &mut |info| {
                let Some(name) = Name::of(&info.key) else { return };
                garbage.objects += 1;
                garbage.bytes = garbage.bytes.saturating_add(info.len);
                let is_final = |id: &uuid::Uuid| lists.values().any(|list| list.id == *id);
                let verdict = match name {
                    Name::List(id) if is_final(&id) || needed.names_list(id) => None,
                    Name::List(_) => Some((name, info.len)),
                    name => needed.verdict(name, info.len),
                };
                let Some((name, dead_bytes)) = verdict else { return };
                if names.len() >= NAMES_MAX {
                    garbage.is_partial = true;
                    return;
                }
                names.push(name);
                garbage.note(&name, dead_bytes);
            })?;
            if stop() {
                return Err(SyncError::Stopped);
            }
        }
        Ok(Survey { versions: listing.kept.len() as u64, garbage, names })
    }
}

impl Garbage {
    fn note(&mut self, name: &Name, bytes: u64) {
        if let Name::Sparse(_) = name {
            self.sparse_packs += 1;
            self.sparse_bytes += bytes;
            return;
        }
        self.dead_objects += 1;
        self.dead_bytes += bytes;
        self.has_more_than_packs |= matches!(name, Name::Index(_) | Name::Object(..));
    }
}

/// What a HEAD needs.
pub(super) struct Needed<'a> {
    pub(super) head: &'a Head,
    pub(super) listing: &'a Listing,
    pub(super) living: &'a Living,
    /// Packs with fewer percent of living bytes are sparse.
    pub(super) sparse_percent: u8,
}

impl Needed<'_> {
    /// What of an object of so many bytes is dead, and as what it is condemned.
    fn verdict(&self, name: Name, len: u64) -> Option<(Name, u64)> {
        if let Name::Pack(pack) = name
            && let Some(living) = self.living.packs.get(&pack)
        {
            let is_sparse = living.saturating_mul(100) < len.saturating_mul(u64::from(self.sparse_percent));
            return is_sparse.then_some((Name::Sparse(pack), len.saturating_sub(*living)));
        }
        (!self.has(&name)).then_some((name, len))
    }

    /// Whether a name is needed. Records of versions that were neither kept nor forgotten are those of a writer who
    /// has yet to publish them.
    pub(super) fn has(&self, name: &Name) -> bool {
        match name {
            Name::Index(version) => {
                let version = version.0.as_u128();
                self.listing.kept.contains(&version) || !self.listing.forgotten.contains(&version)
            }
            Name::Object(id, generation) => self.living.has_object(id, *generation),
            Name::Pack(pack) | Name::Sparse(pack) => self.living.packs.contains_key(pack),
            Name::Run(run) => self.head.runs.iter().any(|kept| kept.id == *run),
            Name::List(list) => self.names_list(*list),
        }
    }

    fn names_list(&self, list: uuid::Uuid) -> bool {
        let state = self.head.collection_state;
        state == CollectionState::Condemned(list) || state == CollectionState::Sealed(list)
    }
}
