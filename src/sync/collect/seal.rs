//! Sealing: the names that are dead for good, and the location runs without them.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::Collector;
use super::mark::{Marks, runs_of};
use super::survey::{Living, Needed};
use super::swing::ATTEMPTS_MAX;
use crate::base::ids::{BlobId, PackId, RunId};
use crate::base::limits::OBJECT_LEN_MAX;
use crate::blob::run::{RUN_RECORDS_MAX, build_run};
use crate::blob::{BlobKind, ChunkRef, Location, PackBuilder, Place, codec, location};
use crate::crypto::Sealed;
use crate::store::{ETag, ObjectKey, RangeRequest};
use crate::sync::condemned::Condemned;
use crate::sync::{CollectReport, Name, SyncError};
use crate::version::head::{CollectionState, Head, RunInForce};
use crate::version::index::sha256;
use crate::version::pages::Pages;
use crate::version::refs::{self, FinalList};
use crate::version::tree::{Edits, PageIo};

/// So many final lists are kept. A client that was away for more collections stores anew what it has.
pub(super) const LISTS_KEPT: u64 = 32;
/// At most so many bytes of sparse packs are read in one collection.
const REWRITE_BYTES_MAX: u64 = 4 << 30;

/// What takes the place of what is collected.
struct Renewal {
    runs: Vec<RunInForce>,
    refs: crate::version::tree::TreeRef,
    names: Vec<Name>,
    rewritten: u64,
}

impl Collector {
    /// Marks again from the HEAD of this moment, and lets HEAD name what is dead then.
    pub(super) fn seal(
        &self,
        id: uuid::Uuid,
        candidates: &Condemned,
        marks: &mut Marks,
        report: &mut CollectReport,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), SyncError> {
        for attempt in 0..ATTEMPTS_MAX {
            let (head, etag) = self.head()?;
            if head.collection_state != CollectionState::Condemned(id) {
                return Ok(());
            }
            if self.seal_from(&head, &etag, (id, candidates), marks, (report, attempt), stop)? {
                return Ok(());
            }
        }
        Err(SyncError::Contended { attempts: ATTEMPTS_MAX })
    }

    fn seal_from(
        &self,
        head: &Head,
        etag: &ETag,
        (id, candidates): (uuid::Uuid, &Condemned),
        marks: &mut Marks,
        (report, attempt): (&mut CollectReport, u32),
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, SyncError> {
        let listing = self.mark(head, marks, stop)?;
        let living = self.living(head, marks)?;
        let needed = Needed { head, listing: &listing, living: &living, sparse_percent: 0 };
        let mut names: Vec<Name> = candidates.names().filter(|name| !needed.has(name)).collect();
        names.iter_mut().for_each(|name| {
            if let Name::Sparse(pack) = name {
                *name = Name::Pack(*pack);
            }
        });
        let sparse: Vec<PackId> = candidates
            .names()
            .filter_map(|name| match name {
                Name::Sparse(pack) if living.packs.contains_key(&pack) => Some(pack),
                _ => None,
            })
            .collect();
        let list = crate::base::random::uuid();
        let renewal = self.renew(head, marks, (&living, sparse), names, list, stop)?;
        if stop() {
            return Err(SyncError::Stopped);
        }
        let number = head.collection + 1;
        let last = Condemned::new(number, self.parts.clock.now(), Some(id), renewal.names);
        self.put_list(list, &last)?;
        let sealed = Head {
            collection: number,
            collection_state: CollectionState::Sealed(list),
            runs: renewal.runs,
            refs: renewal.refs,
            ..head.clone()
        };
        let is_won = self.swing(head, etag, sealed, attempt)?;
        if is_won {
            report.sealed += last.len() as u64;
            report.rewritten_packs += renewal.rewritten;
        }
        Ok(is_won)
    }

    /// Stores anew what lives in sparse packs, the refs that name the list, and the location runs without the dead.
    fn renew(
        &self,
        head: &Head,
        marks: &Marks,
        (living, sparse): (&Living, Vec<PackId>),
        names: Vec<Name>,
        list: uuid::Uuid,
        stop: &dyn Fn() -> bool,
    ) -> Result<Renewal, SyncError> {
        let mut names = names;
        let mut moved: HashMap<BlobId, Location> = HashMap::new();
        let mut writer = Writer { collector: self, builder: self.builder() };
        let rewritten = self.rewrite(head, marks, (living, &sparse), &mut moved, &mut writer, stop)?;
        names.extend(rewritten.iter().map(|pack| Name::Pack(*pack)));
        let number = head.collection + 1;
        let mut edits = Edits::new();
        let old = refs::final_lists(&head.refs, &Pages(&self.blobs), 0)?;
        for (old, list) in old.iter().filter(|(old, _)| **old + LISTS_KEPT <= number) {
            refs::set_final_list(&mut edits, *old, None);
            names.push(Name::List(list.id));
        }
        let (dropped, kept) = self.runs_to_drop(head, marks, &moved)?;
        names.extend(dropped.iter().map(|run| Name::Run(run.id)));
        refs::set_final_list(&mut edits, number, Some(FinalList { id: list, count: names.len() as u64 }));
        let pages = NewPages { collector: self, new: Mutex::default() };
        let new_refs = head.refs.edit(&pages, &edits)?;
        for (id, bytes) in pages.new.into_inner() {
            let sealed = codec::encode(&self.parts.keys, BlobKind::Page, id, &bytes);
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            moved.insert(id, writer.add((id, BlobKind::Page, len), &sealed)?);
        }
        writer.finish()?;
        let runs = self.write_runs(head, marks, kept, &dropped, moved)?;
        Ok(Renewal { runs, refs: new_refs, names, rewritten: rewritten.len() as u64 })
    }

    fn builder(&self) -> PackBuilder {
        PackBuilder::new(self.parts.keys.clone())
    }

    /// Stores the living blobs of sparse packs anew; says which packs that empties.
    fn rewrite(
        &self,
        head: &Head,
        marks: &Marks,
        (living, sparse): (&Living, &[PackId]),
        moved: &mut HashMap<BlobId, Location>,
        writer: &mut Writer<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<PackId>, SyncError> {
        let mut left = REWRITE_BYTES_MAX;
        let mut chosen: HashMap<PackId, Vec<(BlobId, Location)>> = HashMap::new();
        for pack in sparse {
            let bytes = living.packs.get(pack).copied().unwrap_or(0);
            if bytes <= left {
                left -= bytes;
                chosen.insert(*pack, Vec::new());
            }
        }
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        self.blobs.index().each_in_order(&runs_of(head), &mut |record| {
            if record.is_newest && marks.has(&record.id) {
                let location = record.location()?;
                if let Place::Pack { pack, .. } = location.place {
                    chosen.entry(pack).and_modify(|blobs| blobs.push((record.id, location)));
                }
            }
            Ok(())
        })?;
        let mut rewritten = Vec::new();
        for (pack, blobs) in chosen {
            if stop() {
                return Err(SyncError::Stopped);
            }
            let request = RangeRequest { key: location::pack_key(pack), offset: 0, len: OBJECT_LEN_MAX as u64 };
            let bytes = self.parts.store.get_range(&request)?;
            let Some(sealed) = self.blobs_in(&bytes, &blobs) else {
                tracing::warn!("{} is damaged and is left as it is; run `kura check`", request.key);
                continue;
            };
            for ((id, at), sealed) in blobs.iter().zip(sealed) {
                moved.insert(*id, writer.add((*id, at.kind, at.len), &sealed)?);
            }
            rewritten.push(pack);
        }
        Ok(rewritten)
    }

    /// The sealed forms of blobs in a pack; `None` when one of them does not open.
    fn blobs_in(&self, pack: &[u8], blobs: &[(BlobId, Location)]) -> Option<Vec<Sealed>> {
        let one = |(id, at): &(BlobId, Location)| {
            let Place::Pack { offset, .. } = at.place else { return None };
            let start = usize::try_from(offset).ok()?;
            let sealed = pack.get(start..start.checked_add(usize::try_from(at.stored_len).ok()?)?)?;
            let chunk = ChunkRef { id: *id, len: at.len };
            codec::decode(&self.parts.keys, at.kind, &chunk, sealed).ok()?;
            Sealed::from_local(sealed.to_vec())
        };
        blobs.iter().map(one).collect()
    }

    /// The runs with records of dead, moved or superseded blobs, and the others.
    fn runs_to_drop(
        &self,
        head: &Head,
        marks: &Marks,
        moved: &HashMap<BlobId, Location>,
    ) -> Result<(Vec<RunInForce>, Vec<RunInForce>), SyncError> {
        let mut has_dead = vec![false; head.runs.len()];
        self.blobs.index().each_in_order(&runs_of(head), &mut |record| {
            let is_good = record.is_newest && marks.has(&record.id) && !moved.contains_key(&record.id);
            if let Some(has_dead) = has_dead.get_mut(record.run) {
                *has_dead |= !is_good;
            }
            Ok(())
        })?;
        let runs = || head.runs.iter().copied().zip(has_dead.iter());
        let of = |wanted: bool| runs().filter(|(_, dead)| **dead == wanted).map(|(run, _)| run).collect();
        Ok((of(true), of(false)))
    }

    /// Runs that hold what lives of the dropped ones, and what was moved, behind those that are kept.
    fn write_runs(
        &self,
        head: &Head,
        marks: &Marks,
        kept: Vec<RunInForce>,
        dropped: &[RunInForce],
        moved: HashMap<BlobId, Location>,
    ) -> Result<Vec<RunInForce>, SyncError> {
        let mut runs = kept;
        let mut records: Vec<(BlobId, Location)> = Vec::new();
        let is_dropped: Vec<bool> = head.runs.iter().map(|run| dropped.contains(run)).collect();
        let failed: Mutex<Option<SyncError>> = Mutex::new(None);
        self.blobs.index().each_in_order(&runs_of(head), &mut |record| {
            let lives = record.is_newest && marks.has(&record.id) && !moved.contains_key(&record.id);
            if lives && is_dropped.get(record.run) == Some(&true) && failed.lock().is_none() {
                records.push((record.id, record.location()?));
                if records.len() as u64 >= RUN_RECORDS_MAX {
                    match self.put_run(&std::mem::take(&mut records)) {
                        Ok(run) => runs.push(run),
                        Err(error) => *failed.lock() = Some(error),
                    }
                }
            }
            Ok(())
        })?;
        if let Some(error) = failed.into_inner() {
            return Err(error);
        }
        let mut moved: Vec<(BlobId, Location)> = moved.into_iter().collect();
        moved.sort_unstable_by_key(|(id, _)| *id);
        for records in [records, moved] {
            for part in records.chunks(usize::try_from(RUN_RECORDS_MAX).unwrap_or(usize::MAX)) {
                runs.push(self.put_run(part)?);
            }
        }
        Ok(runs)
    }

    fn put_run(&self, records: &[(BlobId, Location)]) -> Result<RunInForce, SyncError> {
        let id = RunId::at(self.parts.clock.now());
        let sealed = build_run(&self.parts.keys, id, records);
        self.put(location::run_key(id), sealed)?;
        Ok(RunInForce { id, count: records.len() as u64 })
    }

    fn put(&self, key: ObjectKey, sealed: Sealed) -> Result<(), SyncError> {
        Ok(self.parts.store.put_many(&[(key, sealed)]).into_iter().try_for_each(|answer| answer)?)
    }
}

/// Fills packs, and stores those that are full.
struct Writer<'a> {
    collector: &'a Collector,
    builder: PackBuilder,
}

impl Writer<'_> {
    fn add(&mut self, (id, kind, len): (BlobId, BlobKind, u32), sealed: &Sealed) -> Result<Location, SyncError> {
        if self.builder.is_full() {
            let full = std::mem::replace(&mut self.builder, self.collector.builder());
            let (pack, sealed) = full.finish();
            self.collector.put(location::pack_key(pack), sealed)?;
        }
        Ok(self.builder.add(id, kind, len, sealed))
    }

    fn finish(self) -> Result<(), SyncError> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let (pack, sealed) = self.builder.finish();
        self.collector.put(location::pack_key(pack), sealed)
    }
}

/// Pages of the refs that are made here. All are stored anew: what is known to be stored may be dead.
struct NewPages<'a> {
    collector: &'a Collector,
    new: Mutex<HashMap<BlobId, std::sync::Arc<[u8]>>>,
}

impl PageIo for NewPages<'_> {
    fn load(&self, page: &ChunkRef) -> crate::version::Result<std::sync::Arc<[u8]>> {
        let new = self.new.lock().get(&page.id).cloned();
        new.map_or_else(|| Pages(&self.collector.blobs).load(page), Ok)
    }

    fn save(&self, bytes: &[u8]) -> crate::version::Result<ChunkRef> {
        let id = self.collector.parts.keys.id(crate::crypto::IdDomain::Page, &sha256(bytes));
        self.new.lock().insert(id, bytes.into());
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Ok(ChunkRef { id, len })
    }
}
