//! Taking in what others published: merging it with ours, and letting the live tree rest on the result.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use super::adopt::{Adoption, Listing};
use super::capture::Captured;
use super::checkpoint::{CheckpointState, Parcel, Reason};
use super::content::Reading;
use super::live::Worktree;
use super::open::{Base, Queued};
use super::pages::NewPages;
use super::record::Record;
use super::table::{Table, Totals};
use super::used::Used;
use super::{Result, WorkError};
use crate::base::ids::{BlobId, VersionId};
use crate::base::limits::{CHUNK_LEN_MIN, INLINE_LEN_MAX};
use crate::blob::{BlobKind, ChunkRef, Location, OrderedRecord, PackBuilder, RunRef, codec, location};
use crate::store::ObjectKey;
use crate::version::entry::{Body, CONTROL_NAME, Content, Entry, FileBody, Ino};
use crate::version::head::RunInForce;
use crate::version::index::{IndexRecord, Origin, Root, sha256};
use crate::version::merge::{Changes, Conflict, Inputs, Line, Pins, Texts, merge, merge_lines, merge_refs};
use crate::version::refs::{self, Policies};
use crate::version::tree::{Edits, PageIo, TreeRef};

/// The newest published state, which was not made from all of ours.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Its record.
    pub record: IndexRecord,
    /// Its refs.
    pub refs: TreeRef,
    /// Its location runs.
    pub runs: Vec<RunInForce>,
    /// Generation of the HEAD that names it.
    pub generation: u64,
    /// The newest version that both lines were made from; `None` when it is gone.
    pub ancestor: Option<IndexRecord>,
    /// The refs that our line began with, when they are known.
    pub base_refs: Option<TreeRef>,
    /// When a collection was sealed since what is ours was prepared: objects of ours that it took. Of our location
    /// runs only records of other objects that wait here count then.
    pub taken: Option<HashSet<ObjectKey>>,
}

/// What came of joining.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The version that the live tree rests on now: theirs, or one made of both.
    pub record: IndexRecord,
    /// Whether that version has yet to be published.
    pub is_new: bool,
    /// How many inodes changed here.
    pub changed: usize,
    /// What both sides changed.
    pub conflicts: Vec<Conflict>,
}

/// Texts up to this size are merged.
const TEXT_LEN_MAX: u64 = CHUNK_LEN_MIN as u64;
/// How often a live tree that changes meanwhile is tried again; after the first time its changes have to wait.
const ATTEMPTS_MAX: usize = 5;

/// A merge that waits for the live tree to go over to it.
struct Prepared {
    ours: VersionId,
    our_refs: TreeRef,
    pins: Pins,
    record: IndexRecord,
    is_new_version: bool,
    refs: TreeRef,
    runs: Vec<RunInForce>,
    /// Objects that are in the outbox for it.
    objects: Vec<ObjectKey>,
    changes: Changes,
    listings: Vec<Listing>,
    conflicts: Vec<Conflict>,
}

/// Ends the waiting of changes.
struct Hold<'a>(&'a Worktree);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.table().held = false;
        self.0.unheld.notify_all();
    }
}

impl Worktree {
    fn hold(&self) -> Hold<'_> {
        self.table().held = true;
        Hold(self)
    }

    /// Takes in what others published. What is in no version yet is recorded first; then the live tree rests on
    /// their version, or on one made of both, which is left in the queue.
    pub fn join(&self, incoming: &Incoming) -> Result<Joined> {
        if self.parts.read_only || self.is_broken() {
            return Err(WorkError::ReadOnly);
        }
        let _joining = self.joining.lock();
        let runs = incoming.runs.iter().map(|run| RunRef { id: run.id, count: run.count }).collect();
        self.parts.blobs.index().set_foreign(runs);
        let joined = self.join_attempts(incoming);
        self.parts.blobs.index().set_foreign(Vec::new());
        joined
    }

    fn join_attempts(&self, incoming: &Incoming) -> Result<Joined> {
        for attempt in 0..ATTEMPTS_MAX {
            // The first time warms the caches.
            let mut hold = (attempt > 0).then(|| self.hold());
            self.checkpoint(&Reason::automatic())?;
            let base = self.base();
            let prepared = self.prepare(&base, incoming)?;
            hold.get_or_insert_with(|| self.hold());
            let mut state = self.checkpoint.lock();
            match self.go_over(&mut state, incoming, &prepared) {
                Ok(true) => {
                    let Prepared { record, is_new_version, changes, conflicts, .. } = prepared;
                    let changed = changes.nodes.values().filter(|node| node.is_moved() || node.before != node.after);
                    return Ok(Joined { record, is_new: is_new_version, changed: changed.count(), conflicts });
                }
                Ok(false) => self.drop_prepared(&prepared)?,
                Err(error) => return Err(error),
            }
        }
        Err(WorkError::Inconsistent { ino: Ino::ROOT, reason: "it changed too often while others' changes came in" })
    }

    fn drop_prepared(&self, prepared: &Prepared) -> Result<()> {
        for key in &prepared.objects {
            self.parts.outbox.remove(key)?;
        }
        Ok(())
    }

    /// Files that are being written here.
    fn pins(table: &Table) -> Pins {
        let mut pins = Pins::default();
        for inode in table.written() {
            if inode.is_unpublished() {
                let names = table.names_of(&[inode.ino].into());
                for (dir, name) in names.get(&inode.ino).into_iter().flatten() {
                    let mut path = table.path_of(*dir);
                    path.push(name.to_vec());
                    pins.unpublished.push(path);
                }
            } else {
                pins.drafts.insert(inode.ino);
            }
        }
        pins.unpublished.sort();
        pins
    }

    fn prepare(&self, base: &Base, incoming: &Incoming) -> Result<Prepared> {
        let io = match &incoming.taken {
            None => NewPages::joining(&self.parts.blobs, &self.parts.keys),
            Some(_) => {
                let runs = incoming.runs.iter().map(|run| RunRef { id: run.id, count: run.count }).collect();
                let there = self.parts.blobs.index().of_runs(runs);
                NewPages::settling(&self.parts.blobs, &self.parts.keys, there)
            }
        };
        let ours = &base.index;
        let empty = empty_like(&ours.root);
        let ancestor = incoming.ancestor.as_ref().map_or(&empty, |ancestor| &ancestor.root);
        let policies = Policies::read(&base.refs, &io)?;
        let locks = self.table().locks.clone();
        let texts = Merging::new(self, &io);
        let pins = Self::pins(&self.table());
        let merged = merge(&Inputs {
            io: &io,
            base: ancestor,
            ours: Line { root: &ours.root, time: ours.time },
            theirs: Line { root: &incoming.record.root, time: incoming.record.time },
            pins: &pins,
            policy: &|path| Table::policy_of(&locks, &policies, path),
            texts: &texts,
            next_ino: &|| self.table().allocate_ino(),
        })?;
        let mut made = texts.into_made();
        made.retain(|id, _| !matches!(self.parts.blobs.index().lookup(id), Ok(Some(_))));
        let changes = Changes::find(&io, &ours.root, &merged.root)?;
        let listings = listings(&io, &changes)?;
        let is_behind = incoming.ancestor.as_ref().is_some_and(|ancestor| ancestor.id == ours.id);
        let is_new_version = !is_behind || merged.root != incoming.record.root;
        let record = match is_new_version {
            true => self.merge_record(ours, &incoming.record, merged.root, &changes),
            false => incoming.record.clone(),
        };
        let mut refs = merge_refs(&io, incoming.base_refs.as_ref(), &base.refs, &incoming.refs)?;
        if is_new_version {
            let mut edits = Edits::new();
            refs::add_version(&mut edits, &record);
            refs = refs.edit(&io, &edits)?;
        }
        let mut parcel = Parcel::default();
        let mut pack = PackBuilder::new(self.parts.keys.clone());
        for (id, bytes) in &made {
            let sealed = codec::encode(&self.parts.keys, BlobKind::Content, *id, bytes);
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            self.add_to_pack(&mut pack, &mut parcel, (*id, BlobKind::Content, len), &sealed);
        }
        self.pack_pages(io, pack, &mut parcel);
        let waiting = self.waiting_runs(base, incoming)?;
        let runs = match refs == incoming.refs && !is_new_version {
            true if waiting.is_empty() => incoming.runs.clone(),
            is_theirs => match &incoming.taken {
                None if is_theirs => union(&incoming.runs, &waiting),
                None => {
                    // Theirs are newer than what was published here: the same blobs may be elsewhere now.
                    let mut runs = union(&incoming.runs, &waiting);
                    runs.splice(..0, base.runs.iter().filter(|run| !runs.contains(run)).copied().collect::<Vec<_>>());
                    self.add_run(&mut parcel, &runs)?
                }
                Some(taken) => {
                    parcel.records.extend(self.own_records(&waiting, taken)?);
                    self.add_run(&mut parcel, &incoming.runs)?
                }
            },
        };
        if is_new_version {
            parcel.objects.push((IndexRecord::key(record.id), record.seal(&self.parts.keys)));
        }
        let objects = self.put_by(parcel)?;
        let (ours, our_refs, conflicts) = (ours.id, base.refs, merged.conflicts);
        Ok(Prepared { ours, our_refs, pins, record, is_new_version, refs, runs, objects, changes, listings, conflicts })
    }

    /// Objects of what waits to be published.
    fn own_objects(&self) -> Result<HashSet<ObjectKey>> {
        let (disk, dir) = (&*self.parts.disk, Queued::dir(&self.parts.dir));
        let mut own: HashSet<ObjectKey> = HashSet::new();
        for sequence in Queued::list(disk, &dir)? {
            own.extend(Queued::read(disk, &dir, sequence, &self.parts.keys)?.objects);
        }
        Ok(own)
    }

    /// Our runs that wait to be published. What is in none of them was, and is in theirs as far as it still exists.
    fn waiting_runs(&self, base: &Base, incoming: &Incoming) -> Result<Vec<RunInForce>> {
        let own = self.own_objects()?;
        let waits = |run: &&RunInForce| own.contains(&location::run_key(run.id)) && !incoming.runs.contains(run);
        Ok(base.runs.iter().filter(waits).copied().collect())
    }

    /// Records of these runs, of objects that wait here and were not taken.
    fn own_records(&self, runs: &[RunInForce], taken: &HashSet<ObjectKey>) -> Result<Vec<(BlobId, Location)>> {
        let own = self.own_objects()?;
        let runs: Vec<RunRef> = runs.iter().map(|run| RunRef { id: run.id, count: run.count }).collect();
        let mut records = Vec::new();
        let each = &mut |record: OrderedRecord<'_>| {
            let location = record.location()?;
            let object = location.object(&record.id).0;
            if record.is_newest && own.contains(&object) && !taken.contains(&object) {
                records.push((record.id, location));
            }
            Ok(())
        };
        self.parts.blobs.index().each_in_order(&runs, each).map_err(crate::version::VersionError::from)?;
        Ok(records)
    }

    /// Leaves objects in the outbox, durably.
    fn put_by(&self, parcel: Parcel) -> Result<Vec<ObjectKey>> {
        let mut keys = Vec::with_capacity(parcel.objects.len());
        for (key, sealed) in &parcel.objects {
            self.parts.outbox.add(key, sealed)?;
            keys.push(key.clone());
        }
        self.parts.outbox.sync(&keys)?;
        Ok(keys)
    }

    fn merge_record(&self, ours: &IndexRecord, theirs: &IndexRecord, root: Root, changes: &Changes) -> IndexRecord {
        let now = self.now();
        IndexRecord {
            id: VersionId::at(now),
            parents: vec![ours.id, theirs.id],
            parents_digest: IndexRecord::digest_of_parents(&[ours, theirs]),
            generation: ours.generation.max(theirs.generation) + 1,
            time: now,
            author: self.parts.author.clone(),
            origin: Origin::Merge,
            message: Some(format!("joined {} of {}@{}", theirs.id, theirs.author.user, theirs.author.host)),
            counts: changes.counts(&ours.counts),
            root,
        }
    }

    /// The live tree goes over, unless it is not as it was when this was prepared.
    fn go_over(&self, state: &mut CheckpointState, incoming: &Incoming, prepared: &Prepared) -> Result<bool> {
        if state.base.index.id != prepared.ours || state.base.refs != prepared.our_refs {
            return Ok(false);
        }
        let before = state.base.index.counts;
        let (captured, invalidations) = {
            let _absorbing = self.absorbing.lock();
            let mut table = self.table();
            if !table.is_clean() || Self::pins(&table) != prepared.pins {
                return Ok(false);
            }
            let (segment, chain) = self.journal.cut()?;
            table.placed.clear();
            let blobs = self.local.cut();
            let invalidations = table.adopt(&Adoption {
                changes: &prepared.changes,
                root: &prepared.record.root,
                time: incoming.record.time,
                counts: (before, prepared.record.counts),
                listings: &prepared.listings,
            });
            let carried = self
                .journal
                .append(&[Record::Rest { version: prepared.record.id }])
                .and_then(|_| self.carry_over(&mut table, &blobs));
            if let Err(error) = carried {
                self.ahead.store(true, Ordering::Relaxed);
                return Err(error);
            }
            let captured = Captured {
                dirs: Vec::new(),
                root: prepared.record.root.dir.clone(),
                links: Vec::new(),
                links_tree: table.links,
                digests: prepared.record.root.digests,
                counts: Totals::default(),
                segment,
                chain,
                next_ino: table.next_ino,
                blobs,
                changes: table.changes,
                dirty_root: false,
            };
            (captured, invalidations)
        };
        if let Err(error) = self.rest_on(state, incoming, prepared, &captured) {
            self.ahead.store(true, Ordering::Relaxed);
            return Err(error);
        }
        state.changes = captured.changes;
        self.remove_segments(captured.segment);
        self.finish_blobs(&captured, &Used::default());
        self.tell(invalidations);
        Ok(true)
    }

    fn rest_on(
        &self,
        state: &mut CheckpointState,
        incoming: &Incoming,
        prepared: &Prepared,
        captured: &Captured,
    ) -> Result<()> {
        let base = Base { head_generation: incoming.generation, ..captured.base(&state.base) };
        let (record, refs, runs) = (prepared.record.clone(), prepared.refs, prepared.runs.clone());
        if prepared.is_new_version || refs != incoming.refs || runs != incoming.runs {
            let parcel = Parcel { present: prepared.objects.clone(), ..Parcel::default() };
            return self.enqueue(state, base, Queued { record, refs, runs, objects: Vec::new() }, parcel);
        }
        let base = Base { index: record, refs, runs, ..base };
        self.write_base(state, &base)?;
        let runs = base.runs.iter().map(|run| RunRef { id: run.id, count: run.count }).collect();
        self.parts.blobs.index().set_runs(runs);
        self.set_base(state, base);
        Ok(())
    }
}

/// Their runs, and those of ours that they do not have, which are newer.
fn union(theirs: &[RunInForce], ours: &[RunInForce]) -> Vec<RunInForce> {
    let own = ours.iter().filter(|run| !theirs.contains(run));
    theirs.iter().chain(own).copied().collect()
}

fn empty_like(root: &Root) -> Root {
    let body = Body::Directory { names: TreeRef::default(), subdirs: 0 };
    Root { dir: Entry { body, ..root.dir.clone() }, links: TreeRef::default(), digests: TreeRef::default() }
}

/// The directories above everything that was moved, from the top down, with all their names.
fn listings(io: &dyn PageIo, changes: &Changes) -> Result<Vec<Listing>> {
    let mut found: HashMap<Option<crate::version::merge::Key>, (usize, Listing)> = HashMap::new();
    let moved = changes.nodes.values().filter(|node| node.before.is_some() && !node.came.is_empty());
    for place in moved.flat_map(|node| &node.came) {
        let mut chain = Vec::new();
        let mut at = Some(place.0);
        while let Some(key) = at {
            let Some(node) = changes.nodes.get(&key) else { break };
            let Some(after) = &node.after else { break };
            let place = node.came.first().or(node.at.as_ref()).cloned();
            at = place.as_ref().map(|place| place.0);
            chain.push((Some(key), place, after.clone()));
        }
        chain.push((None, None, changes.root.1.clone()));
        for (depth, (key, place, entry)) in chain.into_iter().rev().enumerate() {
            if let std::collections::hash_map::Entry::Vacant(slot) = found.entry(key) {
                let names = names_in(io, &entry)?;
                slot.insert((depth, Listing { place, entry, names }));
            }
        }
    }
    let mut listings: Vec<(usize, Listing)> = found.into_values().collect();
    listings.sort_by_key(|(depth, listing)| (*depth, listing.entry.ino));
    Ok(listings.into_iter().map(|(_, listing)| listing).collect())
}

fn names_in(io: &dyn PageIo, dir: &Entry) -> Result<Vec<(super::Name, Entry)>> {
    let Body::Directory { names, .. } = &dir.body else { return Ok(Vec::new()) };
    let mut values = Vec::new();
    names.scan(io, std::ops::Bound::Unbounded, &mut |name, value| {
        if name == CONTROL_NAME {
            return true;
        }
        values.push((super::Name::from(name), value.to_vec()));
        true
    })?;
    values.into_iter().map(|(name, value)| Ok((name, Entry::decode(&value)?))).collect()
}

/// Merges texts line by line.
pub(super) struct Merging<'a> {
    tree: &'a Worktree,
    io: &'a NewPages<'a>,
    /// The content of files that were merged.
    made: RefCell<HashMap<BlobId, Vec<u8>>>,
}

impl<'a> Merging<'a> {
    pub(super) fn new(tree: &'a Worktree, io: &'a NewPages<'a>) -> Self {
        Self { tree, io, made: RefCell::default() }
    }

    /// The content of files that were merged.
    pub(super) fn into_made(self) -> HashMap<BlobId, Vec<u8>> {
        self.made.into_inner()
    }

    /// The lines of a file; `None` when it is no text or too long.
    fn text(&self, file: &FileBody) -> Result<Option<Vec<u8>>> {
        if file.size > TEXT_LEN_MAX {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let len = usize::try_from(file.size).unwrap_or(0);
        Reading::anywhere(&self.tree.parts.blobs, self.io).read_body(file, 0, len, file.size, &mut bytes)?;
        Ok((!bytes.contains(&0) && std::str::from_utf8(&bytes).is_ok()).then_some(bytes))
    }

    /// The merged file; `None` when the two sides overlap, or when a side is no text or too long.
    pub(super) fn join(&self, base: &FileBody, ours: &FileBody, theirs: &FileBody) -> Result<Option<FileBody>> {
        let (Some(base), Some(ours), Some(theirs)) = (self.text(base)?, self.text(ours)?, self.text(theirs)?) else {
            return Ok(None);
        };
        let Ok(bytes) = merge_lines(&base, &ours, &theirs) else { return Ok(None) };
        if bytes.len() as u64 > TEXT_LEN_MAX {
            return Ok(None);
        }
        let digest = sha256(&bytes);
        let (size, len) = (bytes.len() as u64, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        let content = match bytes.len() {
            0 => Content::Empty,
            1..=INLINE_LEN_MAX => Content::Inline(bytes),
            _ => {
                let id = BlobKind::Content.id_of(&self.tree.parts.keys, &bytes);
                if !self.io.is_stored(&id)? {
                    self.made.borrow_mut().insert(id, bytes);
                }
                Content::Chunks(vec![(0, ChunkRef { id, len })])
            }
        };
        Ok(Some(FileBody { size, content, sha256: Some(digest) }))
    }
}

impl Texts for Merging<'_> {
    fn merge(&self, base: &FileBody, ours: &FileBody, theirs: &FileBody) -> crate::version::Result<Option<FileBody>> {
        self.join(base, ours, theirs).map_err(|error| match error {
            WorkError::Version(error) => error,
            error => crate::version::VersionError::Damaged { object: "a text".into(), reason: error.to_string() },
        })
    }
}
