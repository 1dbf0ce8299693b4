//! Checking what is stored: everything that HEAD leads to, read from the store alone.
//!
//! Damage is collected and the check goes on; a store that cannot be asked ends it, since unknown is not absent.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::affected::{PATHS_MAX, paths};
use super::opened::Workspace;
use super::{Result, WorkspaceError};
use crate::base::ids::{BlobId, Sha256, VersionId};
use crate::base::random;
use crate::blob::{BlobError, BlobKind, Blobs, BlobsConfig, ChunkRef, Location, Outbox, Place, RunRef, location};
use crate::store::{ObjectKey, ObjectStore, StoreError};
use crate::sync::{SyncError, read_head};
use crate::version::entry::{Body, Content, Entry, LinkRecord};
use crate::version::head::Head;
use crate::version::index::{IndexRecord, sha256};
use crate::version::pages::Pages;
use crate::version::tree::{PageIo, TreeRef};
use crate::version::walk::Walker;
use crate::version::{VersionError, refs};

/// Blobs whose content is read together.
const BATCH: usize = 64;
/// Opened frames kept in memory while checking, in bytes.
const MEMORY_BYTES: usize = 32 << 20;

/// How much content is read and compared with its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// None; only what versions are made of.
    Nothing,
    /// So many of a hundred blobs, chosen at random.
    Percent(u8),
    /// Blobs chosen at random, up to so many stored bytes.
    Bytes(u64),
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Versions looked at.
    pub versions: u64,
    /// Pages and chunks that versions refer to.
    pub blobs: u64,
    /// Objects that location runs name.
    pub objects: u64,
    /// Blobs whose content was read, pages included.
    pub blobs_read: u64,
    /// What is wrong: object, and what is wrong with it.
    pub problems: BTreeMap<String, String>,
    /// Which paths of which versions are touched, newest version first.
    pub affected: Vec<Affected>,
    pub(super) damage: Damage,
}

/// A version that damage touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affected {
    /// The version.
    pub version: VersionId,
    /// Its paths, at most a hundred; a directory stands for all below it, an empty path for everything.
    pub paths: Vec<Arc<[u8]>>,
}

/// What has to be repaired.
#[derive(Clone, Debug, Default)]
pub(super) struct Damage {
    pub(super) runs: Vec<RunRef>,
    pub(super) blobs: HashMap<BlobId, (BlobKind, u32)>,
    pub(super) records: Vec<VersionId>,
    /// Blobs without a location whose object was found by its name.
    pub(super) found: Vec<(BlobId, Location)>,
}

/// Reads the store of a workspace.
pub(super) struct Checker<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) blobs: Blobs,
    locations: HashMap<BlobId, Location>,
    /// Objects that are there, with their lengths in bytes.
    pub(super) present: HashMap<ObjectKey, u64>,
    seen: HashSet<BlobId>,
    pub(super) report: CheckReport,
    /// Told how far it is; false ends it.
    goes_on: Option<&'a mut dyn FnMut(&CheckReport) -> bool>,
}

impl Workspace {
    /// Checks everything that HEAD leads to, and content as far as `sample` says.
    pub fn check(&self, sample: Sample) -> Result<CheckReport> {
        self.check_while(sample, &mut |_| true)
    }

    /// As [`check`](Self::check), telling how far it is; ends as [`SyncError::Stopped`] when `goes_on` says false.
    pub fn check_while(&self, sample: Sample, goes_on: &mut dyn FnMut(&CheckReport) -> bool) -> Result<CheckReport> {
        // Read before the objects are listed, so that what it leads to was there by then.
        let head = self.stored_head()?;
        let mut checker = Checker::new(self)?;
        checker.check_keys()?;
        checker.read_runs(&head)?;
        checker.goes_on = Some(goes_on);
        checker.check_all(&head, sample)?;
        Ok(checker.report)
    }

    /// HEAD as the store has it.
    pub(super) fn stored_head(&self) -> Result<Head> {
        let parts = &self.parts;
        match read_head(&*parts.store, &parts.keys) {
            Err(error) if error.is_unknown_epoch() => {
                self.follow_epochs()?;
                Ok(read_head(&*parts.store, &parts.keys)?.0)
            }
            outcome => Ok(outcome?.0),
        }
    }
}

impl<'a> Checker<'a> {
    pub(super) fn new(workspace: &'a Workspace) -> Result<Self> {
        let parts = &workspace.parts;
        let blobs = Blobs::new(BlobsConfig {
            store: parts.store.clone(),
            keys: parts.keys.clone(),
            outbox: Arc::new(Outbox::none(parts.options.disk.clone())),
            cache: None,
            memory_limit_bytes: MEMORY_BYTES,
        });
        let mut present = HashMap::new();
        for prefix in ["indexes/", "locations/", "objects/", "packs/"] {
            parts.store.list(prefix, &mut |info| {
                present.insert(info.key, info.len);
            })?;
        }
        let (locations, seen, report) = (HashMap::new(), HashSet::new(), CheckReport::default());
        Ok(Self { workspace, blobs, locations, present, seen, report, goes_on: None })
    }

    /// Tells how far it is.
    fn tell(&mut self) -> Result<()> {
        let goes_on = self.goes_on.as_mut().is_none_or(|goes_on| goes_on(&self.report));
        if goes_on { Ok(()) } else { Err(SyncError::Stopped.into()) }
    }

    pub(super) fn problem(&mut self, object: &str, what: &str) {
        self.report.problems.entry(object.to_owned()).or_insert_with(|| what.to_owned());
    }

    /// Reads the location runs in force; from then on blobs are found by those that are whole.
    pub(super) fn read_runs(&mut self, head: &Head) -> Result<()> {
        let mut whole = Vec::new();
        for run in head.runs.iter().map(|run| RunRef { id: run.id, count: run.count }) {
            let mut records = Vec::new();
            match self.blobs.index().each_record(&run, &mut |id, location| records.push((id, location))) {
                Ok(()) => {
                    self.locations.extend(records);
                    whole.push(run);
                }
                Err(error) => {
                    self.note(&location::run_key(run.id), &error.into())?;
                    self.report.damage.runs.push(run);
                }
            }
        }
        self.blobs.index().set_runs(whole);
        let objects: HashSet<ObjectKey> = self.locations.iter().map(|(id, at)| at.object(id).0).collect();
        self.report.objects = objects.len() as u64;
        Ok(())
    }

    /// Adds what a rebuilt location run would say, unless a run that is whole knows better; whether it does not.
    pub(super) fn add_location(&mut self, id: BlobId, location: Location) -> bool {
        let is_new = !self.locations.contains_key(&id);
        if is_new {
            self.locations.insert(id, location);
            self.blobs.index().record(id, location);
        }
        is_new
    }

    pub(super) fn check_all(&mut self, head: &Head, sample: Sample) -> Result<()> {
        self.walk(vec![Part { tree: head.refs, kind: PartKind::Refs }])?;
        let pages = Copies { store: &self.blobs, local: &self.workspace.parts.blobs, fallen: RefCell::default() };
        let versions = match refs::versions(&head.refs, &pages) {
            Ok(versions) => versions,
            Err(error) => {
                self.note(&Head::key(), &error)?;
                return Ok(());
            }
        };
        let mut roots = Vec::new();
        let mut digests: HashMap<VersionId, Sha256> = HashMap::new();
        for listed in versions.iter().rev() {
            self.report.versions += 1;
            self.tell()?;
            match self.read_record(listed.id, &digests) {
                Ok(record) => {
                    digests.insert(listed.id, record.digest());
                    roots.push(record);
                }
                Err(error) => {
                    self.note(&IndexRecord::key(listed.id), &error)?;
                    self.report.damage.records.push(listed.id);
                    self.report.affected.push(Affected { version: listed.id, paths: vec![Arc::from(&b""[..])] });
                    // What hangs on it may be damaged as well.
                    roots.extend(self.workspace.version(listed.id).map(|record| (*record).clone()));
                }
            }
        }
        if digests.get(&head.version).is_some_and(|digest| *digest != head.version_digest) {
            let what = VersionError::Damaged { object: "HEAD".into(), reason: "its version is another".into() };
            self.note(&IndexRecord::key(head.version), &what)?;
        }
        for record in &roots {
            self.tell()?;
            self.walk(parts_of(record))?;
        }
        self.read_sample(sample)?;
        if !self.report.damage.blobs.is_empty() {
            for record in roots.iter().rev() {
                let paths = paths(&self.blobs, record, &self.report.damage.blobs, PATHS_MAX)?;
                if !paths.is_empty() {
                    self.report.affected.push(Affected { version: record.id, paths });
                }
            }
        }
        self.report.blobs = self.seen.len() as u64;
        self.report.affected.sort_by_key(|affected| std::cmp::Reverse(affected.version));
        Ok(())
    }

    /// A version's record, if it is of one chain with the parents that were read before.
    fn read_record(
        &self,
        id: VersionId,
        digests: &HashMap<VersionId, Sha256>,
    ) -> std::result::Result<IndexRecord, VersionError> {
        let parts = &self.workspace.parts;
        let key = IndexRecord::key(id);
        let record = IndexRecord::open(&parts.keys, id, &parts.store.get(&key)?.bytes)?;
        let parents: Option<Vec<u8>> =
            record.parents.iter().map(|parent| digests.get(parent)).try_fold(Vec::new(), |mut all, digest| {
                all.extend_from_slice(&digest?.0);
                Some(all)
            });
        match parents {
            Some(parents) if sha256(&parents) != record.parents_digest => {
                let reason = "its parents are not those that it was made from".to_owned();
                Err(VersionError::Damaged { object: key.to_string(), reason })
            }
            _ => Ok(record),
        }
    }

    /// Notes what is wrong with an object; an error when it is not known whether anything is.
    fn note(&mut self, object: &ObjectKey, error: &VersionError) -> Result<()> {
        note(&mut self.report, object, error)
    }

    /// Walks through trees and all that hangs on them.
    fn walk(&mut self, mut pending: Vec<Part>) -> Result<()> {
        let pages = Copies { store: &self.blobs, local: &self.workspace.parts.blobs, fallen: RefCell::default() };
        while let Some(part) = pending.pop() {
            let mut walk = Walk {
                kind: part.kind,
                found: &mut pending,
                locations: &mut self.locations,
                present: &self.present,
                blobs: &self.blobs,
                seen: &mut self.seen,
                report: &mut self.report,
                unknown: None,
            };
            let mut walked = part.tree.walk(&pages, &mut walk);
            for (page, error) in pages.fallen.take() {
                walked = walked.and(walk.failed(&page, error));
            }
            if walked.is_err()
                && let Some(unknown) = walk.unknown
            {
                return Err(unknown);
            }
        }
        Ok(())
    }

    /// Reads content and compares it with its identity.
    fn read_sample(&mut self, sample: Sample) -> Result<()> {
        // What nothing refers to is garbage, whole or not.
        let needed = self.locations.iter().filter(|(id, _)| self.seen.contains(id));
        let mut all: Vec<(BlobId, Location)> = needed.map(|(id, at)| (*id, *at)).collect();
        match sample {
            Sample::Nothing => return Ok(()),
            Sample::Percent(percent) => all.retain(|_| random::number() % 100 < u64::from(percent)),
            Sample::Bytes(bytes) => {
                all.sort_by_cached_key(|_| random::number());
                let mut sum = 0;
                all.retain(|(_, at)| {
                    sum += u64::from(at.stored_len);
                    sum <= bytes
                });
            }
        }
        // Neighbours in a pack are fetched together.
        all.sort_by_key(|(id, at)| match at.place {
            Place::Pack { pack, offset } => (Some(pack), offset, *id),
            Place::Object { .. } => (None, 0, *id),
        });
        for kind in [BlobKind::Content, BlobKind::Page] {
            let of_kind: Vec<_> = all.iter().filter(|(_, at)| at.kind == kind).collect();
            for batch in of_kind.chunks(BATCH) {
                self.tell()?;
                let chunks: Vec<ChunkRef> = batch.iter().map(|(id, at)| ChunkRef { id: *id, len: at.len }).collect();
                for ((id, at), answer) in batch.iter().zip(self.blobs.read_many(kind, &chunks)) {
                    self.report.blobs_read += 1;
                    let wrong = match answer {
                        Ok(bytes) if kind.is_id_of(&self.workspace.parts.keys, &bytes, id) => continue,
                        Ok(_) => VersionError::Damaged { object: id.to_string(), reason: "content of another".into() },
                        Err(error) => error.into(),
                    };
                    note(&mut self.report, &at.object(id).0, &wrong)?;
                    self.report.damage.blobs.insert(*id, (kind, at.len));
                }
            }
        }
        Ok(())
    }
}

/// A tree of a version.
struct Part {
    tree: TreeRef,
    kind: PartKind,
}

#[derive(Clone, Copy)]
enum PartKind {
    Refs,
    Names,
    Links,
    Chunks,
    Digests,
}

fn parts_of(record: &IndexRecord) -> Vec<Part> {
    let mut parts = vec![
        Part { tree: record.root.links, kind: PartKind::Links },
        Part { tree: record.root.digests, kind: PartKind::Digests },
    ];
    if let Body::Directory { names, .. } = &record.root.dir.body {
        parts.push(Part { tree: *names, kind: PartKind::Names });
    }
    parts
}

/// The way through one tree.
struct Walk<'a> {
    kind: PartKind,
    found: &'a mut Vec<Part>,
    locations: &'a mut HashMap<BlobId, Location>,
    present: &'a HashMap<ObjectKey, u64>,
    blobs: &'a Blobs,
    seen: &'a mut HashSet<BlobId>,
    report: &'a mut CheckReport,
    unknown: Option<WorkspaceError>,
}

impl Walk<'_> {
    /// Whether a blob lies where it should, as far as names and lengths tell.
    fn is_there(&mut self, kind: BlobKind, chunk: &ChunkRef) -> bool {
        let (object, what) = match self.locations.get(&chunk.id).copied().or_else(|| self.by_name(kind, chunk)) {
            None => (format!("blob {}", chunk.id), "no location run in force has it".to_owned()),
            Some(at) => {
                let (object, offset) = at.object(&chunk.id);
                let needed = match at.place {
                    Place::Pack { .. } => u64::from(offset) + u64::from(at.stored_len),
                    Place::Object { .. } => 1,
                };
                let what = match self.present.get(&object) {
                    _ if at.kind != kind || at.len != chunk.len => "its recorded location is of another kind or length",
                    None => "missing from the store",
                    Some(len) if *len < needed => "cut short",
                    Some(_) => return true,
                };
                (object.to_string(), what.to_owned())
            }
        };
        self.report.problems.entry(object).or_insert(what);
        self.report.damage.blobs.insert(chunk.id, (kind, chunk.len));
        false
    }

    /// An object of its own whose location was lost with its run.
    fn by_name(&mut self, kind: BlobKind, chunk: &ChunkRef) -> Option<Location> {
        if self.report.damage.runs.is_empty() {
            return None;
        }
        let at = |generation| {
            let stored_len = u32::try_from(*self.present.get(&location::object_key(&chunk.id, generation))?).ok()?;
            Some(Location { kind, stored_len, len: chunk.len, place: Place::Object { generation } })
        };
        let location = (0..GENERATIONS_LOOKED_FOR).rev().find_map(at)?;
        self.locations.insert(chunk.id, location);
        self.blobs.index().record(chunk.id, location);
        self.report.damage.found.push((chunk.id, location));
        Some(location)
    }

    fn content(&mut self, content: &Content) {
        match content {
            Content::Chunks(chunks) => chunks.iter().for_each(|(_, chunk)| self.chunk(chunk)),
            Content::Tree(tree) => self.found.push(Part { tree: *tree, kind: PartKind::Chunks }),
            Content::Empty | Content::Inline(_) => {}
        }
    }

    fn chunk(&mut self, chunk: &ChunkRef) {
        if self.seen.insert(chunk.id) {
            self.is_there(BlobKind::Content, chunk);
        }
    }

    fn entry(&mut self, entry: &Entry) {
        match &entry.body {
            Body::File(file) => self.content(&file.content),
            Body::Directory { names, .. } => self.found.push(Part { tree: *names, kind: PartKind::Names }),
            _ => {}
        }
    }
}

/// No object was written anew more often than this.
const GENERATIONS_LOOKED_FOR: u16 = 64;

impl Walker for Walk<'_> {
    fn enter(&mut self, page: &ChunkRef) -> bool {
        let is_new = self.seen.insert(page.id);
        if is_new {
            // One that is not is read from a copy on this machine, if there is one, to go on below it.
            self.is_there(BlobKind::Page, page);
        }
        is_new
    }

    fn item(&mut self, _: &[u8], value: &[u8]) -> crate::version::Result<()> {
        match self.kind {
            PartKind::Refs | PartKind::Digests => {}
            PartKind::Names => self.entry(&Entry::decode(value)?),
            PartKind::Links => self.entry(&LinkRecord::decode(value)?.inode),
            PartKind::Chunks => self.chunk(&Content::decode_chunk(value)?),
        }
        Ok(())
    }

    fn failed(&mut self, page: &ChunkRef, error: VersionError) -> crate::version::Result<()> {
        let object = self.locations.get(&page.id).map(|at| at.object(&page.id).0);
        let object = object.unwrap_or_else(|| location::object_key(&page.id, 0));
        let is_known = self.report.damage.blobs.insert(page.id, (BlobKind::Page, page.len)).is_some();
        if is_known && !is_unknown(&error) {
            return Ok(());
        }
        note(self.report, &object, &error).map_err(|unknown| {
            self.unknown = Some(unknown);
            error
        })
    }
}

/// Pages as the store has them or, where it has none that are good, as this machine does.
struct Copies<'a> {
    store: &'a Blobs,
    local: &'a Blobs,
    /// Pages of the second sort, with what is wrong with the store's.
    fallen: RefCell<Vec<(ChunkRef, VersionError)>>,
}

impl PageIo for Copies<'_> {
    fn load(&self, page: &ChunkRef) -> crate::version::Result<Arc<[u8]>> {
        self.store.read(BlobKind::Page, page).map_err(VersionError::from).or_else(|error| {
            if is_unknown(&error) {
                return Err(error);
            }
            match self.local.read(BlobKind::Page, page) {
                Ok(bytes) => {
                    self.fallen.borrow_mut().push((*page, error));
                    Ok(bytes)
                }
                Err(_) => Err(error),
            }
        })
    }

    fn save(&self, bytes: &[u8]) -> crate::version::Result<ChunkRef> {
        Pages(self.store).save(bytes)
    }
}

/// Whether an error says nothing about the object.
pub(super) fn is_unknown(error: &VersionError) -> bool {
    match error {
        VersionError::Store(error) | VersionError::Blob(BlobError::Store(error)) => {
            !matches!(error, StoreError::NotFound { .. })
        }
        VersionError::Blob(BlobError::Disk { .. }) => true,
        _ => false,
    }
}

/// Notes damage; what says nothing about the object is an error.
fn note(report: &mut CheckReport, object: &ObjectKey, error: &VersionError) -> Result<()> {
    if is_unknown(error) {
        return Err(error.clone().into());
    }
    report.problems.entry(object.to_string()).or_insert_with(|| error.to_string());
    Ok(())
}
