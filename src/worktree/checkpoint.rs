//! Checkpoints: a version of the published state, and a fresh journal.
//!
//! In three steps. Under the lock, what changed is captured and the journal is cut; then, without
//! the lock, pages are written from the leaves up, packed, and left in the outbox with an entry in
//! the publish queue; at last the new base names the version, and the old segments go.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::absorb::{Absorbed, Purpose};
use super::capture::{Captured, CapturedEntry, FileContent};
use super::live::Worktree;
use super::local_blobs::{BlobMap, LocalBlob, LocalPlace};
use super::open::{Base, Queued};
use super::pages::NewPages;
use super::used::Used;
use super::{Result, WorkError};
use crate::base::ids::{BlobId, RunId, VersionId};
use crate::blob::{BlobKind, Location, PackBuilder, RunRef, codec, location, plan_merge};
use crate::crypto::Sealed;
use crate::store::ObjectKey;
use crate::version::entry::{Body, Entry, FileBody, Ino, LinkRecord};
use crate::version::head::RunInForce;
use crate::version::index::{Counts, IndexRecord, Origin, Root};
use crate::version::refs;
use crate::version::tree::{Edits, PageIo, TreeRef};

/// Why a version is recorded.
#[derive(Clone, Debug)]
pub struct Reason {
    /// The word for it.
    pub origin: Origin,
    /// What the user says of it.
    pub message: Option<String>,
    /// A name for it.
    pub tag: Option<String>,
    /// Record it even when nothing changed.
    pub always: bool,
}

impl Reason {
    /// Because something changed.
    pub fn automatic() -> Self {
        Self { origin: Origin::Automatic, message: None, tag: None, always: false }
    }
}

/// A version that was recorded on the local disk.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its record.
    pub record: IndexRecord,
}

/// The outcome of a checkpoint.
#[derive(Clone, Debug)]
pub enum Checkpoint {
    /// Nothing a version would record has changed.
    Unchanged,
    /// A version was recorded.
    Recorded(Box<Recorded>),
}

/// What the checkpoints of one mount share.
pub(super) struct CheckpointState {
    pub(super) base: Base,
    pub(super) base_path: PathBuf,
    pub(super) queue_dir: PathBuf,
    /// The table's count of changes at the last checkpoint.
    pub(super) changes: u64,
    /// Whether the disk may have a base other than this one, whose writing failed in the end.
    pub(super) is_unsure: bool,
}

/// Everything a version adds to the store.
#[derive(Default)]
pub(super) struct Parcel {
    pub(super) records: Vec<(BlobId, Location)>,
    pub(super) objects: Vec<(ObjectKey, Sealed)>,
    /// Objects that are in the outbox already.
    pub(super) present: Vec<ObjectKey>,
}

impl Parcel {
    /// Objects, and where blobs are in them.
    pub(super) fn of(records: Vec<(BlobId, Location)>, objects: Vec<(ObjectKey, Sealed)>) -> Self {
        Self { records, objects, present: Vec::new() }
    }
}

impl Worktree {
    /// Records a version of the published state.
    pub fn checkpoint(&self, reason: &Reason) -> Result<Checkpoint> {
        let mut state = self.checkpoint.lock();
        self.checkpoint_in(&mut state, reason)
    }

    pub(super) fn checkpoint_in(&self, state: &mut CheckpointState, reason: &Reason) -> Result<Checkpoint> {
        if self.ahead.load(Ordering::Relaxed) {
            return Err(WorkError::ReadOnly);
        }
        self.room_for_checkpoint()?;
        // What cannot be absorbed now is tried again while the pages are made.
        self.absorb_all().ok();
        self.settle_contests(&state.base)?;
        let Some(captured) = self.capture(state, reason.always)? else { return Ok(Checkpoint::Unchanged) };
        match self.record(state, reason, &captured) {
            Ok(recorded) => {
                self.table().shrink(self.parts.limits.inodes_max);
                Ok(Checkpoint::Recorded(Box::new(recorded)))
            }
            Err(error) => {
                self.uncapture(&captured);
                Err(error)
            }
        }
    }

    /// Cuts the journal without a version, when only unpublished drafts fill it; false when there is more in it.
    pub fn compact(&self) -> Result<bool> {
        let mut state = self.checkpoint.lock();
        let Some(captured) = self.capture(&state, true)? else { return Ok(false) };
        let unchanged = captured.dirs.is_empty() && captured.links.is_empty() && captured.changes == state.changes;
        let base = captured.base(&state.base);
        let written = if unchanged { self.write_base(&state, &base).map(|()| true) } else { Ok(false) };
        if !matches!(written, Ok(true)) {
            self.uncapture(&captured);
            return written;
        }
        self.set_base(&mut state, base);
        self.remove_segments(captured.segment);
        self.table().recording = false;
        self.finish_blobs(&captured, &Used::default());
        Ok(true)
    }

    /// Cuts the journal, with a version when there is something to record.
    pub fn cut_journal(&self) -> Result<()> {
        if !self.compact()? {
            self.checkpoint(&Reason { always: true, ..Reason::automatic() })?;
        }
        Ok(())
    }

    /// Makes the journal durable, and then the base that rests on it.
    pub(super) fn write_base(&self, state: &CheckpointState, base: &Base) -> Result<()> {
        // What was carried over must outlive the segments it came from.
        self.journal.sync(self.journal.end())?;
        base.write(&*self.parts.disk, &state.base_path, &self.parts.keys)
    }

    /// The state the last checkpoint left.
    pub fn base(&self) -> Base {
        // Not the one under the lock of checkpoints, which may be waiting for the store.
        self.shown.lock().clone()
    }

    pub(super) fn set_base(&self, state: &mut CheckpointState, base: Base) {
        *self.shown.lock() = base.clone();
        state.base = base;
        state.is_unsure = false;
    }

    /// Changes the base by other means than a version (tags, a new HEAD), atomically.
    pub fn update_base(&self, change: impl FnOnce(&mut Base)) -> Result<()> {
        let mut state = self.checkpoint.lock();
        let mut base = state.base.clone();
        change(&mut base);
        base.write(&*self.parts.disk, &state.base_path, &self.parts.keys)?;
        self.set_base(&mut state, base);
        Ok(())
    }

    fn record(&self, state: &mut CheckpointState, reason: &Reason, captured: &Captured) -> Result<Recorded> {
        let pages = self.pages();
        let mut used = Used::default();
        let dirs = self.write_dirs(captured, &pages, &mut used)?;
        let root = self.write_root(captured, &dirs, &pages, &mut used)?;
        let parent = &state.base.index;
        let now = self.now();
        let record = IndexRecord {
            id: VersionId::at(now),
            parents: vec![parent.id],
            parents_digest: IndexRecord::digest_of_parents(&[parent]),
            generation: parent.generation + 1,
            time: now,
            author: self.parts.author.clone(),
            origin: reason.origin,
            message: reason.message.clone(),
            counts: count(captured, parent, &dirs, &root, &pages)?,
            root,
        };
        let mut edits = Edits::new();
        refs::add_version(&mut edits, &record);
        if let Some(tag) = &reason.tag {
            refs::set_tag(&mut edits, tag, Some(record.id));
        }
        let refs = state.base.refs.edit(&pages, &edits)?;
        let mut parcel = self.pack(captured, &used, pages)?;
        let runs = self.add_run(&mut parcel, &state.base.runs)?;
        parcel.objects.push((IndexRecord::key(record.id), record.seal(&self.parts.keys)));
        let queued = Queued { record: record.clone(), refs, runs: runs.clone(), objects: Vec::new() };
        self.commit_version(state, captured, queued, parcel)?;
        self.hashed.lock().retain(|id, _| !used.hashed.contains(id));
        self.install_version(captured, &dirs, &record.root);
        self.finish_blobs(captured, &used);
        Ok(Recorded { record })
    }

    /// Pages of all changed directories, deepest first.
    fn write_dirs(&self, captured: &Captured, pages: &NewPages<'_>, used: &mut Used) -> Result<HashMap<Ino, TreeRef>> {
        let mut written: HashMap<Ino, TreeRef> = HashMap::new();
        for dir in &captured.dirs {
            let mut edits = Edits::new();
            for (name, entry) in &dir.entries {
                let value = match entry {
                    CapturedEntry::Gone => None,
                    CapturedEntry::Here(entry, content) => {
                        Some(self.finish_entry(entry, content.as_ref(), &written, used)?.encode())
                    }
                };
                edits.insert(name.to_vec(), value);
            }
            written.insert(dir.ino, dir.names.edit(pages, &edits)?);
        }
        Ok(written)
    }

    /// The entry with what the checkpoint made: names of directories, content of files.
    fn finish_entry(
        &self,
        entry: &Entry,
        content: Option<&FileContent>,
        written: &HashMap<Ino, TreeRef>,
        used: &mut Used,
    ) -> Result<Entry> {
        let mut entry = entry.clone();
        if let (Body::Directory { names, .. }, Some(new)) = (&mut entry.body, written.get(&entry.ino)) {
            *names = *new;
        }
        if let Some(content) = content {
            entry.body = Body::File(self.captured_body(entry.ino, content)?);
        }
        if let Body::File(body) = &entry.body {
            used.note(entry.ino, body);
        }
        Ok(entry)
    }

    /// Absorbs what was still frozen when it was captured.
    fn captured_body(&self, ino: Ino, content: &FileContent) -> Result<FileBody> {
        let _absorbing = self.absorbing.lock();
        let (base, layers) = (content.base.clone(), content.layers.clone());
        let Absorbed { body, records, .. } = self.absorb_layers(ino, base, layers, Purpose::Publish)?;
        self.append_blobs(&records)?;
        Ok(body)
    }

    fn write_root(
        &self,
        captured: &Captured,
        dirs: &HashMap<Ino, TreeRef>,
        pages: &NewPages<'_>,
        used: &mut Used,
    ) -> Result<Root> {
        let mut edits = Edits::new();
        for (ino, link) in &captured.links {
            let record = match link {
                Some((names, entry, content)) => {
                    let inode = self.finish_entry(entry, content.as_ref(), dirs, used)?;
                    Some(LinkRecord { names: *names, inode }.encode())
                }
                None => None,
            };
            edits.insert(LinkRecord::key(*ino), record);
        }
        let dir = self.finish_entry(&captured.root, None, dirs, used)?;
        let links = captured.links_tree.edit(pages, &edits)?;
        let (digests, hashed) = self.write_digests(captured.digests, &used.unhashed, pages)?;
        used.hashed = hashed;
        Ok(Root { dir, links, digests })
    }

    /// Packs the new pages and the blobs that the version uses.
    fn pack(&self, captured: &Captured, used: &Used, pages: NewPages<'_>) -> Result<Parcel> {
        let mut parcel = Parcel::default();
        let mut builder = PackBuilder::new(self.parts.keys.clone());
        for (id, blob) in self.used_blobs(captured, used) {
            match &blob.place {
                LocalPlace::Outbox(place) => {
                    parcel.present.push(place.object(&id).0);
                    parcel.records.push((id, *place));
                }
                LocalPlace::Journal(frame) => {
                    let bytes = self.local.sealed(&id, frame)?.and_then(|bytes| Sealed::from_local(bytes.to_vec()));
                    let sealed = bytes.ok_or(WorkError::Inconsistent {
                        ino: Ino::ROOT,
                        reason: "a blob is missing from its journal frame",
                    })?;
                    let kind = if blob.page { BlobKind::Page } else { BlobKind::Content };
                    self.add_to_pack(&mut builder, &mut parcel, (id, kind, blob.len), &sealed);
                }
            }
        }
        self.pack_pages(pages, builder, &mut parcel);
        Ok(parcel)
    }

    /// Adds the new pages to the pack and finishes it.
    pub(super) fn pack_pages(&self, pages: NewPages<'_>, mut builder: PackBuilder, parcel: &mut Parcel) {
        let mut new: Vec<(BlobId, Arc<[u8]>)> = pages.into_new().into_iter().collect();
        new.sort_unstable_by_key(|(id, _)| *id);
        for (id, bytes) in new {
            let sealed = codec::encode(&self.parts.keys, BlobKind::Page, id, &bytes);
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            self.add_to_pack(&mut builder, parcel, (id, BlobKind::Page, len), &sealed);
            self.parts.blobs.keep_page(id, bytes);
        }
        finish_pack(builder, parcel);
    }

    pub(super) fn add_to_pack(
        &self,
        builder: &mut PackBuilder,
        parcel: &mut Parcel,
        blob: (BlobId, BlobKind, u32),
        sealed: &Sealed,
    ) {
        let (id, kind, len) = blob;
        if builder.is_full() {
            finish_pack(std::mem::replace(builder, PackBuilder::new(self.parts.keys.clone())), parcel);
        }
        parcel.records.push((id, builder.add(id, kind, len, sealed)));
    }

    /// Blobs in the journal and outbox that the version refers to, in the order of the journal, so
    /// that files written together lie together.
    fn used_blobs(&self, captured: &Captured, used: &Used) -> Vec<(BlobId, LocalBlob)> {
        let mut blobs: BlobMap = captured
            .blobs
            .iter()
            .filter(|(id, blob)| used.has(id, blob))
            .map(|(id, blob)| (*id, blob.clone()))
            .collect();
        self.local.each_current(&mut |id, blob| {
            if used.has(id, blob) && !blobs.contains_key(id) {
                blobs.insert(*id, blob.clone());
            }
        });
        let mut blobs: Vec<(BlobId, LocalBlob)> = blobs.into_iter().collect();
        blobs.sort_unstable_by_key(|(id, blob)| match &blob.place {
            LocalPlace::Journal(frame) => (0, frame.at, *id),
            LocalPlace::Outbox(_) => (1, Default::default(), *id),
        });
        blobs
    }

    /// The location run of the new blobs; a tier of small runs that got full is merged.
    pub(super) fn add_run(&self, parcel: &mut Parcel, runs: &[RunInForce]) -> Result<Vec<RunInForce>> {
        let mut runs: Vec<RunRef> = runs.iter().map(|run| RunRef { id: run.id, count: run.count }).collect();
        parcel.records.sort_unstable_by_key(|(id, _)| *id);
        parcel.records.dedup_by_key(|(id, _)| *id);
        if !parcel.records.is_empty() {
            let run = RunRef { id: RunId::at(self.now()), count: parcel.records.len() as u64 };
            let sealed = crate::blob::run::build_run(&self.parts.keys, run.id, &parcel.records);
            parcel.objects.push((location::run_key(run.id), sealed));
            runs.push(run);
        }
        if let Some(range) = plan_merge(&runs[..runs.len().saturating_sub(1)]) {
            match self.parts.blobs.index().merge_runs(&runs[range.clone()], RunId::at(self.now())) {
                Ok((merged, sealed)) => {
                    parcel.objects.push((location::run_key(merged.id), sealed));
                    runs.splice(range, [merged]);
                }
                // Merging only saves look-ups; without the store it can wait.
                Err(error) => tracing::info!("location runs are merged later: {error}"),
            }
        }
        Ok(runs.into_iter().map(|run| RunInForce { id: run.id, count: run.count }).collect())
    }

    /// Makes the version durable and part of the local state.
    fn commit_version(
        &self,
        state: &mut CheckpointState,
        captured: &Captured,
        queued: Queued,
        parcel: Parcel,
    ) -> Result<()> {
        let base = captured.base(&state.base);
        self.enqueue(state, base, queued, parcel)?;
        state.changes = captured.changes;
        self.remove_segments(captured.segment);
        Ok(())
    }

    /// Removes segments that nothing needs; what stays goes with the next.
    pub(super) fn remove_segments(&self, before: u64) {
        if let Err(error) = self.journal.remove_before(before) {
            tracing::warn!("old segments of the journal stay for now: {error}");
        }
    }

    /// Leaves objects in the outbox and an entry in the queue, then lets the base, which gets everything else from
    /// `base`, rest on it.
    pub(super) fn enqueue(
        &self,
        state: &mut CheckpointState,
        base: Base,
        mut queued: Queued,
        parcel: Parcel,
    ) -> Result<()> {
        let outbox = &self.parts.outbox;
        let mut keys = parcel.present;
        keys.extend(parcel.objects.iter().map(|(key, _)| key.clone()));
        queued.objects = keys;
        if state.is_unsure {
            // The one that the disk may have rests on the entry that is about to be written anew.
            self.write_base(state, &state.base)?;
            state.is_unsure = false;
        }
        let sequence = state.base.queue_sequence + 1;
        let prepare = || -> Result<()> {
            parcel.objects.iter().try_for_each(|(key, sealed)| outbox.add(key, sealed))?;
            outbox.sync(&queued.objects)?;
            queued.write(&*self.parts.disk, &state.queue_dir, sequence, &self.parts.keys)
        };
        if let Err(error) = prepare() {
            // The next attempt makes objects of other names.
            parcel.objects.iter().for_each(|(key, _)| self.remove_unused(key));
            return Err(error);
        }
        let base =
            Base { index: queued.record, refs: queued.refs, runs: queued.runs, queue_sequence: sequence, ..base };
        state.is_unsure = true;
        self.write_base(state, &base)?;
        let runs = base.runs.iter().map(|run| RunRef { id: run.id, count: run.count }).collect();
        let index = self.parts.blobs.index();
        index.set_runs(runs);
        parcel.records.iter().for_each(|(id, _)| index.forget(id));
        self.set_base(state, base);
        Ok(())
    }

    /// Lets the live tree rest on the new version.
    fn install_version(&self, captured: &Captured, dirs: &HashMap<Ino, TreeRef>, root: &Root) {
        let mut table = self.table();
        table.links = root.links;
        table.recording = false;
        for dir in &captured.dirs {
            if let (Some(names), Some(live)) =
                (dirs.get(&dir.ino), table.find_mut(dir.ino).and_then(|inode| inode.dir_mut().ok()))
            {
                live.names = *names;
                live.pinned = false;
            }
        }
    }

    /// Ends the checkpoint for its blobs: objects that were absorbed for files that are gone go.
    pub(super) fn finish_blobs(&self, captured: &Captured, used: &Used) {
        // Nobody is about to refer to one of them.
        let _absorbing = self.absorbing.lock();
        let index = self.parts.blobs.index();
        for (id, blob) in captured.blobs.iter() {
            let LocalPlace::Outbox(place) = &blob.place else { continue };
            if used.has(id, blob) || self.local.holds_current(id) {
                continue;
            }
            index.forget(id);
            // An earlier version may have it.
            if matches!(index.lookup(id), Ok(None)) {
                self.remove_unused(&place.object(id).0);
            }
        }
        self.local.finish_cut();
    }

    fn remove_unused(&self, key: &ObjectKey) {
        if let Err(error) = self.parts.outbox.remove(key) {
            tracing::warn!("an object that nothing needs stays in the outbox: {error}");
        }
    }
}

fn finish_pack(builder: PackBuilder, parcel: &mut Parcel) {
    if !builder.is_empty() {
        let (pack, sealed) = builder.finish();
        parcel.objects.push((location::pack_key(pack), sealed));
    }
}

/// Totals of the version, and how many names were added, changed and removed.
fn count(
    captured: &Captured,
    parent: &IndexRecord,
    dirs: &HashMap<Ino, TreeRef>,
    root: &Root,
    io: &dyn PageIo,
) -> Result<Counts> {
    let (mut added, mut changed) = (0_u64, captured.links.iter().filter(|(_, link)| link.is_some()).count() as u64);
    for dir in &captured.dirs {
        let Some(names) = dirs.get(&dir.ino) else { continue };
        dir.names.diff(names, io, &mut |_, before, after| {
            match (before, after) {
                (None, Some(_)) => added += 1,
                (Some(_), Some(after)) if !Entry::decode(after)?.is_dir() => changed += 1,
                _ => {}
            }
            Ok(())
        })?;
    }
    debug_assert_eq!(root.dir.ino, Ino::ROOT);
    let totals = captured.counts;
    let before = parent.counts.files + parent.counts.dirs + added;
    let removed = before.saturating_sub(totals.files + totals.dirs);
    Ok(Counts { files: totals.files, dirs: totals.dirs, bytes: totals.bytes, added, changed, removed })
}
