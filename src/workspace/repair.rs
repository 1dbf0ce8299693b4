//! Repairing: storing anew what this machine still holds, rebuilding location runs, and saying what is lost.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::affected::{PATHS_MAX, paths};
use super::check::{CheckReport, Checker, Sample};
use super::opened::Workspace;
use super::{Affected, Result, split_path};
use crate::base::ids::{BlobId, PackId, VersionId};
use crate::blob::{BlobError, BlobKind, ChunkRef, Fault, Location, PackBuilder, Place, RunRef, codec, location, pack};
use crate::crypto::Sealed;
use crate::store::{ObjectKey, ObjectStore, PutCondition, RangeRequest, StoreError};
use crate::version::VersionError;
use crate::version::entry::Ino;
use crate::version::index::IndexRecord;
use crate::version::refs;
use crate::version::tree::Edits;
use crate::worktree::{Reason, Wait};

/// Blobs that nothing here can bring back.
type LostBlobs = HashMap<BlobId, (BlobKind, u32)>;

/// What a repair did, and what is left.
#[derive(Clone, Debug, Default)]
pub struct RepairReport {
    /// What was found at first.
    pub found: CheckReport,
    /// Blobs stored anew from what this machine holds.
    pub restored_blobs: u64,
    /// Location runs rebuilt.
    pub rebuilt_runs: u64,
    /// Version records stored anew.
    pub restored_versions: u64,
    /// Versions and paths that nothing here can bring back.
    pub lost: Vec<Affected>,
    /// What of that was cut out: versions taken from the list, files taken from the present.
    pub cut: Vec<Affected>,
}

/// New objects, and what is in them.
pub(super) struct Parcel<'a> {
    workspace: &'a Workspace,
    builder: PackBuilder,
    pub(super) records: Vec<(BlobId, Location)>,
    pub(super) objects: Vec<(ObjectKey, Sealed)>,
    pub(super) bytes: u64,
}

impl<'a> Parcel<'a> {
    pub(super) fn new(workspace: &'a Workspace) -> Self {
        let builder = PackBuilder::new(workspace.parts.keys.clone());
        Self { workspace, builder, records: Vec::new(), objects: Vec::new(), bytes: 0 }
    }

    /// Seals a blob anew; one that stood alone gets a later generation of its name or, without one, a place in a pack.
    pub(super) fn add(&mut self, kind: BlobKind, chunk: &ChunkRef, before: Option<&Location>, plaintext: &[u8]) {
        let sealed = codec::encode(&self.workspace.parts.keys, kind, chunk.id, plaintext);
        self.bytes += sealed.len() as u64;
        let before = match before.map(|before| before.place) {
            Some(Place::Object { generation }) => generation,
            _ => 0,
        };
        let generation = match sealed.len() < crate::base::limits::PACKED_LEN_MAX {
            true => None,
            false => self.workspace.parts.blobs.index().fresh_generation(Some(before)),
        };
        let Some(generation) = generation else {
            let location = self.builder.add(chunk.id, kind, chunk.len, &sealed);
            self.records.push((chunk.id, location));
            if self.builder.is_full() {
                self.close_pack();
            }
            return;
        };
        let stored_len = u32::try_from(sealed.len()).unwrap_or(u32::MAX);
        let place = Place::Object { generation };
        self.records.push((chunk.id, Location { kind, stored_len, len: chunk.len, place }));
        self.objects.push((location::object_key(&chunk.id, generation), sealed));
    }

    pub(super) fn close_pack(&mut self) {
        let fresh = PackBuilder::new(self.workspace.parts.keys.clone());
        let full = std::mem::replace(&mut self.builder, fresh);
        if !full.is_empty() {
            let (pack, sealed) = full.finish();
            self.objects.push((location::pack_key(pack), sealed));
        }
    }
}

impl Workspace {
    /// Checks as [`check`](Self::check) does, and repairs what can be repaired. With `cut`, what is lost is taken out:
    /// versions from the list, and files from the present state.
    pub fn repair(&self, sample: Sample, cut: bool) -> Result<RepairReport> {
        self.check_writable()?;
        let _history = self.history.lock();
        let head = self.stored_head()?;
        let mut checker = Checker::new(self)?;
        checker.read_runs(&head)?;
        let bad_runs = checker.report.damage.runs.clone();
        let mut rebuilt = Vec::new();
        if !bad_runs.is_empty() {
            rebuilt = self.records_of_packs(&checker)?;
            rebuilt.retain(|(id, location)| checker.add_location(*id, *location));
        }
        checker.check_all(&head, sample)?;
        let found = std::mem::take(&mut checker.report);
        let mut report = RepairReport { rebuilt_runs: bad_runs.len() as u64, ..RepairReport::default() };
        rebuilt.extend(&found.damage.found);
        let lost = self.restore_blobs(&found, &bad_runs, rebuilt, &mut report)?;
        self.restore_records(&found, &mut report)?;
        let lost: LostBlobs =
            found.damage.blobs.iter().filter(|(id, _)| lost.contains(id)).map(|(id, blob)| (*id, *blob)).collect();
        report.lost = self.still_lost(&found, &lost, &report)?;
        report.found = found;
        if cut {
            self.cut(&lost, &mut report)?;
        }
        self.background.publish_now();
        Ok(report)
    }

    /// What the directories of all packs in the store say; damaged ones are passed over.
    fn records_of_packs(&self, checker: &Checker<'_>) -> Result<Vec<(BlobId, Location)>> {
        let mut records = BTreeMap::new();
        for (key, len) in &checker.present {
            let Some(id) = key.as_str().strip_prefix("packs/").and_then(|id| id.parse::<PackId>().ok()) else {
                continue;
            };
            match self.pack_directory(key, id, *len) {
                Ok(directory) => records.extend(directory),
                Err(VersionError::Blob(BlobError::DamagedObject { object, fault })) => {
                    tracing::warn!("{object} cannot be used: {fault}");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(records.into_iter().collect())
    }

    fn pack_directory(
        &self,
        key: &ObjectKey,
        id: PackId,
        len: u64,
    ) -> std::result::Result<Vec<(BlobId, Location)>, VersionError> {
        let parts = &self.parts;
        let tail = |tail_len: u64| -> std::result::Result<Vec<u8>, StoreError> {
            let offset = len.saturating_sub(tail_len);
            parts.store.get_range(&RangeRequest { key: key.clone(), offset, len: tail_len })
        };
        let damaged = |fault: Fault| BlobError::DamagedObject { object: key.to_string(), fault };
        let trailer = tail(pack::TRAILER_LEN as u64)?;
        let tail_len = pack::directory_tail_len(&parts.keys, id, &trailer).map_err(damaged)?;
        Ok(pack::read_directory(&parts.keys, id, &tail(tail_len)?).map_err(damaged)?)
    }

    /// Stores damaged blobs anew from the copies on this machine, with the rebuilt records; returns what has none.
    fn restore_blobs(
        &self,
        found: &CheckReport,
        bad_runs: &[RunRef],
        rebuilt: Vec<(BlobId, Location)>,
        report: &mut RepairReport,
    ) -> Result<HashSet<BlobId>> {
        let index = self.parts.blobs.index();
        let mut parcel = Parcel::new(self);
        let mut lost = HashSet::new();
        let known: HashMap<BlobId, Location> = rebuilt.iter().copied().collect();
        for (id, (kind, len)) in &found.damage.blobs {
            let chunk = ChunkRef { id: *id, len: *len };
            match self.parts.blobs.read(*kind, &chunk) {
                Ok(bytes) if kind.is_id_of(&self.parts.keys, &bytes, id) => {
                    let before = index.lookup(id).ok().flatten().or(known.get(id).copied());
                    parcel.add(*kind, &chunk, before.as_ref(), &bytes);
                    report.restored_blobs += 1;
                }
                Err(error @ (BlobError::Store(_) | BlobError::Disk { .. })) => return Err(error.into()),
                Ok(_) | Err(_) => drop(lost.insert(*id)),
            }
        }
        parcel.close_pack();
        let stored: HashSet<BlobId> = parcel.records.iter().map(|(id, _)| *id).collect();
        parcel.records.extend(rebuilt.into_iter().filter(|(id, _)| !stored.contains(id)));
        let replaced: HashMap<_, _> = bad_runs.iter().map(|run| (run.id, None)).collect();
        if !parcel.records.is_empty() || !replaced.is_empty() {
            self.tree().relocate(parcel.records, parcel.objects, &replaced)?;
        }
        Ok(lost)
    }

    /// Stores the records of versions anew that the cache or the local state has.
    fn restore_records(&self, found: &CheckReport, report: &mut RepairReport) -> Result<()> {
        for id in &found.damage.records {
            let name = IndexRecord::key(*id);
            let Ok(record) = self.version(*id) else { continue };
            self.parts.store.put(&name, &record.seal(&self.parts.keys), PutCondition::Always)?;
            report.restored_versions += 1;
        }
        Ok(())
    }

    fn still_lost(&self, found: &CheckReport, lost: &LostBlobs, report: &RepairReport) -> Result<Vec<Affected>> {
        let mut still = Vec::new();
        for affected in &found.affected {
            if found.damage.records.contains(&affected.version) {
                let is_back = report.restored_versions > 0 && self.is_stored(affected.version)?;
                still.extend((!is_back).then(|| affected.clone()));
                continue;
            }
            let record = self.version(affected.version)?;
            let paths = paths(&self.parts.blobs, &record, lost, PATHS_MAX)?;
            if !paths.is_empty() {
                still.push(Affected { version: affected.version, paths });
            }
        }
        Ok(still)
    }

    fn is_stored(&self, version: VersionId) -> Result<bool> {
        match self.parts.store.get(&IndexRecord::key(version)) {
            Ok(object) => Ok(IndexRecord::open(&self.parts.keys, version, &object.bytes).is_ok()),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes lost files out of the present state, and versions that cannot be read whole from the list.
    fn cut(&self, lost: &LostBlobs, report: &mut RepairReport) -> Result<()> {
        // The present may be newer than what the store has, and damaged all the same.
        let present = self.tree().base().index;
        let (mut cut, mut uncut) = (Vec::new(), Vec::new());
        for path in paths(&self.parts.blobs, &present, lost, usize::MAX)? {
            match self.cut_path(&path) {
                Ok(()) => cut.push(path),
                Err(error) => {
                    tracing::warn!("{} cannot be cut out: {error}", String::from_utf8_lossy(&path));
                    uncut.push(path);
                }
            }
        }
        report.lost.retain(|affected| affected.version != present.id);
        if !cut.is_empty() {
            report.lost.push(Affected { version: present.id, paths: cut });
        }
        self.record(Reason::automatic())?;
        let newest = self.tree().base().index.id;
        let mut edits = Edits::new();
        let is_lost = |version: VersionId| report.lost.iter().any(|lost| lost.version == version);
        for version in self.versions()?.iter().filter(|version| version.id != newest && is_lost(version.id)) {
            refs::forget_version(&mut edits, version);
        }
        for (tag, version) in refs::tags(&self.tree().base().refs, &*self.pages())? {
            if version != newest && is_lost(version) {
                refs::set_tag(&mut edits, &tag, None);
            }
        }
        self.tree().edit_refs(&edits)?;
        report.cut = std::mem::take(&mut report.lost);
        if !uncut.is_empty() {
            report.lost.push(Affected { version: newest, paths: uncut });
        }
        Ok(())
    }

    /// Takes a file out of the present state. A directory whose names are lost cannot be taken out.
    fn cut_path(&self, path: &Arc<[u8]>) -> Result<()> {
        let names = split_path(path);
        let Some((name, dirs)) = names.split_last() else { return Ok(()) };
        let mut dir = Ino::ROOT;
        for name in dirs {
            let attr = self.tree().lookup(dir, name, Wait::Yes)?;
            self.tree().forget(attr.ino, 1);
            dir = attr.ino;
        }
        Ok(self.tree().unlink(dir, name, Wait::Yes)?)
    }
}
