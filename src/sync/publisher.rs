//! Taking queued versions to the store.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::settle::runs_of;
use super::{ClientMemory, Leases, Pulled, Seen, SyncError};
use crate::base::clock::Clock;
use crate::base::disk::Disk;
use crate::base::ids::VersionId;
use crate::base::random;
use crate::blob::{Blobs, Outbox};
use crate::crypto::{Keys, Sealed};
use crate::store::{ETag, ObjectKey, ObjectStore, PutCondition, RangeRequest, StoreError};
use crate::version::head::Head;
use crate::version::index::IndexRecord;
use crate::version::pages::Pages;
use crate::version::refs;
use crate::version::tree::TreeRef;
use crate::worktree::{Base, Queued, Worktree};

/// Sealed bytes that are in memory at once for uploading.
const BATCH_BYTES: u64 = 32 * 1024 * 1024;
/// Objects uploaded in one batch.
const BATCH_OBJECTS: usize = 256;
/// Versions that are published together; of a longer queue, so many are in memory at once.
pub(super) const BATCH_VERSIONS: usize = 128;
/// How often a swing is tried before it is left for later.
const SWINGS_MAX: u32 = 8;
/// How many versions of others are walked back in search of ours.
pub(super) const ANCESTORS_MAX: usize = 10_000;
/// How often what others published meanwhile is taken in before publishing is left for later.
const JOINS_MAX: u32 = 12;

/// What a publisher works with.
pub struct PublisherParts {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The keys of the workspace.
    pub keys: Keys,
    /// The live tree whose queue is published.
    pub tree: Arc<Worktree>,
    /// Takes what was uploaded into the cache.
    pub blobs: Arc<Blobs>,
    /// Objects that wait.
    pub outbox: Arc<Outbox>,
    /// The local disk.
    pub disk: Arc<dyn Disk>,
    /// The state directory.
    pub dir: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What this client has seen of HEAD.
    pub memory: Arc<ClientMemory>,
    /// Locks: what they are is looked at before anything is merged.
    pub leases: Arc<Leases>,
    /// Whether the store's conditional writes work; without, this client must be the only writer.
    pub conditional_writes: bool,
}

/// Publishes the queue of one live tree.
pub struct Publisher {
    pub(super) parts: PublisherParts,
    /// One publishing or pulling at a time.
    pub(super) busy: Mutex<()>,
    /// Sealed bytes that are uploaded in a second, as far as it is known.
    pace: Mutex<Option<u64>>,
    /// What was uploaded since HEAD moved last.
    uploaded: Mutex<HashSet<ObjectKey>>,
    /// Told of every joining.
    pub(super) joined: Box<dyn Fn(&Pulled) + Send + Sync>,
}

/// What one round of publishing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Versions that left the queue.
    pub versions: usize,
    /// Objects that were uploaded.
    pub objects: usize,
    /// Their sealed bytes.
    pub bytes: u64,
    /// The version HEAD names now, if there was anything to do.
    pub version: Option<VersionId>,
}

/// What waits in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Queued versions.
    pub versions: usize,
    /// Objects that they need.
    pub objects: usize,
    /// Sealed bytes of these objects.
    pub bytes: u64,
}

/// How HEAD relates to the queue.
pub(super) enum Relation {
    /// The queue continues it.
    Continued,
    /// It is, or was made from, the newest queued version.
    Published {
        /// Whether it is that very state, so that what comes next continues it.
        same: bool,
    },
    /// It was not made from all that is in the queue, nor the queue from it.
    Diverged,
}

/// How a swing ended.
enum Swing {
    /// HEAD names the newest queued version, or one made from it.
    Won { seen: Seen, refs: TreeRef, same: bool },
    /// Somebody else was faster.
    Lost,
}

/// How one round of publishing ended.
enum Round {
    /// Nothing waits any more.
    Done,
    /// Part of the queue was published.
    Published,
    /// What others published was taken in.
    Joined,
    /// Somebody else was faster.
    Lost,
}

impl Publisher {
    /// A publisher for a live tree; `joined` is told whenever versions of others were taken in.
    pub fn new(parts: PublisherParts, joined: impl Fn(&Pulled) + Send + Sync + 'static) -> Self {
        Self {
            parts,
            busy: Mutex::new(()),
            pace: Mutex::new(None),
            uploaded: Mutex::new(HashSet::new()),
            joined: Box::new(joined),
        }
    }

    /// Does something while nothing is published.
    pub fn exclusively<T>(&self, act: impl FnOnce() -> T) -> T {
        let _busy = self.busy.lock();
        act()
    }

    /// What waits.
    pub fn waiting(&self) -> Result<Waiting, SyncError> {
        let parts = &self.parts;
        let newest = parts.tree.base().queue_sequence;
        let versions = Queued::list(&*parts.disk, &Queued::dir(&parts.dir))?;
        Ok(Waiting {
            versions: versions.iter().filter(|sequence| **sequence <= newest).count(),
            objects: parts.outbox.keys().len(),
            bytes: parts.outbox.total_bytes(),
        })
    }

    /// Publishes everything in the queue: uploads what it needs and lets HEAD name its newest version, after taking
    /// in what others published meanwhile. Stops with [`SyncError::Stopped`] between two batches once `stop` says so.
    pub fn publish_once(&self, stop: &dyn Fn() -> bool) -> Result<Published, SyncError> {
        let _busy = self.busy.lock();
        let mut published = Published::default();
        let mut attempts = 0;
        while attempts < JOINS_MAX {
            if stop() && attempts > 0 {
                return Err(SyncError::Stopped);
            }
            match self.publish_some(stop, &mut published)? {
                Round::Done => return Ok(published),
                Round::Published => attempts = 0,
                Round::Joined => attempts += 1,
                Round::Lost => {
                    pause(attempts);
                    attempts += 1;
                }
            }
        }
        Err(SyncError::Contended { attempts: JOINS_MAX })
    }

    /// Publishes the oldest versions of the queue, or takes in what others published.
    fn publish_some(&self, stop: &dyn Fn() -> bool, published: &mut Published) -> Result<Round, SyncError> {
        let parts = &self.parts;
        let base = parts.tree.base();
        let (mut queue, mut is_all) = self.queue(&base, BATCH_VERSIONS)?;
        let Some((_, newest)) = queue.last() else { return Ok(Round::Done) };
        self.check_writer()?;
        published.version = Some(newest.record.id);
        let (head, etag, seen) = read_head(&*parts.store, &parts.keys)?;
        parts.memory.check(&seen)?;
        if self.is_behind(&head) {
            self.settle(&head, seen)?;
            return Ok(Round::Joined);
        }
        let swing = match self.relation(&head, &queue, base.head_generation)? {
            Relation::Published { same } => Swing::Won { seen, refs: head.refs, same },
            Relation::Diverged => {
                self.join(&head, seen, None)?;
                return Ok(Round::Joined);
            }
            Relation::Continued => {
                if !is_all && !continues(&head, &queue) {
                    (queue, is_all) = self.queue(&base, usize::MAX)?;
                }
                self.upload(&queue, stop, published)?;
                self.swing(&queue, base.head_generation, (head.clone(), etag))?
            }
        };
        let Swing::Won { seen, refs, same } = swing else { return Ok(Round::Lost) };
        self.finish(&queue, (seen, refs, same), published)?;
        if is_all && !same {
            // What comes of it may have to be published in its turn.
            self.join(&head, seen, None)?;
            return Ok(Round::Joined);
        }
        Ok(if is_all { Round::Done } else { Round::Published })
    }

    /// Removes objects from the outbox that nothing needs any more.
    pub fn drop_unneeded(&self) -> Result<(), SyncError> {
        // What is being joined needs some that nothing names yet.
        let _busy = self.busy.lock();
        Ok(self.parts.tree.drop_unneeded()?)
    }

    /// The queue is in HEAD's history.
    pub(super) fn finish(
        &self,
        queue: &[(u64, Queued)],
        (seen, refs, same): (Seen, TreeRef, bool),
        published: &mut Published,
    ) -> Result<(), SyncError> {
        // They are in the store. Without room on the disk nothing else could be written from here on.
        for key in queue.iter().flat_map(|(_, queued)| &queued.objects) {
            self.parts.outbox.remove(key)?;
        }
        if same {
            self.parts.memory.remember(seen, Some(refs))?;
            self.parts.tree.update_base(|base| base.head_generation = seen.generation)?;
        }
        let sequences: Vec<u64> = queue.iter().map(|(sequence, _)| *sequence).collect();
        self.clear(&sequences)?;
        published.versions += queue.len();
        Ok(())
    }

    /// The oldest entries that wait, and whether these are all. The newest entry is about the version that the tree
    /// rests on; entries that are not were published, and a power cut brought them back.
    pub(super) fn queue(&self, base: &Base, max: usize) -> Result<(Vec<(u64, Queued)>, bool), SyncError> {
        let parts = &self.parts;
        let dir = Queued::dir(&parts.dir);
        let mut sequences = Queued::list(&*parts.disk, &dir)?;
        sequences.retain(|sequence| *sequence <= base.queue_sequence);
        let read = |sequence| Queued::read(&*parts.disk, &dir, sequence, &parts.keys);
        let Some(newest) = sequences.last() else { return Ok((Vec::new(), true)) };
        if read(*newest)?.record.id != base.index.id {
            self.clear(&sequences)?;
            return Ok((Vec::new(), true));
        }
        let is_all = sequences.len() <= max;
        sequences.truncate(max);
        let queue = sequences.into_iter().map(|sequence| Ok((sequence, read(sequence)?)));
        Ok((queue.collect::<Result<_, SyncError>>()?, is_all))
    }

    /// HEAD is continued when it is the one our line builds on, or one of our own on the way.
    pub(super) fn relation(&self, head: &Head, queue: &[(u64, Queued)], built_on: u64) -> Result<Relation, SyncError> {
        let Some((_, newest)) = queue.last() else { return Ok(Relation::Published { same: false }) };
        let is =
            |queued: &Queued| head.version == queued.record.id && head.refs == queued.refs && head.runs == queued.runs;
        if is(newest) {
            return Ok(Relation::Published { same: true });
        }
        if head.generation == built_on || queue.iter().any(|(_, queued)| is(queued)) || self.is_resealed(head, queue)? {
            return Ok(Relation::Continued);
        }
        let is_version = newest.objects.contains(&IndexRecord::key(newest.record.id));
        if is_version && self.descends(head, &newest.record)? {
            return Ok(Relation::Published { same: false });
        }
        Ok(Relation::Diverged)
    }

    /// Whether HEAD is what our line was made from, only sealed anew for a new key epoch: the same version and runs,
    /// and no ref that our line does not have.
    fn is_resealed(&self, head: &Head, queue: &[(u64, Queued)]) -> Result<bool, SyncError> {
        let Some((_, first)) = queue.first() else { return Ok(false) };
        let is_parent = first.record.id == head.version || first.record.parents.first() == Some(&head.version);
        if !is_parent || !head.runs.iter().all(|run| first.runs.contains(run)) {
            return Ok(false);
        }
        let mut has_all = true;
        head.refs.diff(&first.refs, &Pages(&self.parts.blobs), &mut |_, theirs, _| {
            has_all &= theirs.is_none();
            Ok(())
        })?;
        Ok(has_all)
    }

    /// Whether `version` is `ancestor` or was made from it.
    fn descends(&self, head: &Head, ancestor: &IndexRecord) -> Result<bool, SyncError> {
        let mut pending = vec![head.version];
        let mut known = HashSet::new();
        while let Some(id) = pending.pop() {
            if id == ancestor.id {
                return Ok(true);
            }
            if known.len() >= ANCESTORS_MAX || !known.insert(id) {
                continue;
            }
            let (generation, parents) = match self.parts.store.get(&IndexRecord::key(id)) {
                Ok(object) => {
                    let record = IndexRecord::open(&self.parts.keys, id, &object.bytes)?;
                    (record.generation, record.parents)
                }
                Err(StoreError::NotFound { key }) => match self.forgotten(head, id)? {
                    Some(forgotten) => (forgotten.generation, forgotten.parents),
                    None => return Err(StoreError::NotFound { key }.into()),
                },
                Err(error) => return Err(error.into()),
            };
            if generation > ancestor.generation {
                pending.extend(parents);
            }
        }
        Ok(false)
    }

    /// What HEAD's refs say of a version that was forgotten.
    fn forgotten(&self, head: &Head, id: VersionId) -> Result<Option<refs::Forgotten>, SyncError> {
        let index = self.parts.blobs.index();
        index.set_newer(runs_of(&head.runs));
        let forgotten = refs::forgotten(&head.refs, &Pages(&self.parts.blobs), id);
        index.set_newer(Vec::new());
        Ok(forgotten?)
    }

    /// Uploads what the queue needs: everything else before the index records, which complete the versions.
    fn upload(
        &self,
        queue: &[(u64, Queued)],
        stop: &dyn Fn() -> bool,
        published: &mut Published,
    ) -> Result<(), SyncError> {
        let mut wanted: Vec<&ObjectKey> = queue.iter().flat_map(|(_, queued)| &queued.objects).collect();
        let mut known: HashSet<&ObjectKey> = HashSet::new();
        wanted.retain(|key| known.insert(key));
        let (records, content): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|key| key.as_str().starts_with("indexes/"));
        for keys in [content, records] {
            self.adopt(&keys, stop, published)?;
            let mut batch = Vec::new();
            let mut batch_bytes = 0;
            for key in keys {
                if self.uploaded.lock().contains(key) {
                    continue;
                }
                let Some(sealed) = self.parts.outbox.read(key)? else {
                    self.check_stored(key)?;
                    continue;
                };
                batch_bytes += sealed.len() as u64;
                batch.push((key.clone(), sealed));
                if batch_bytes >= BATCH_BYTES || batch.len() >= BATCH_OBJECTS {
                    self.upload_batch(&batch, stop, published)?;
                    batch.clear();
                    batch_bytes = 0;
                }
            }
            self.upload_batch(&batch, stop, published)?;
        }
        Ok(())
    }

    /// Lets a store on the same disk take the objects over as they lie. What that does not do is uploaded.
    fn adopt(&self, keys: &[&ObjectKey], stop: &dyn Fn() -> bool, published: &mut Published) -> Result<(), SyncError> {
        if !self.parts.store.is_local() {
            return Ok(());
        }
        for keys in keys.chunks(BATCH_OBJECTS) {
            if stop() {
                return Err(SyncError::Stopped);
            }
            let mut files = Vec::new();
            for key in keys.iter().filter(|key| !self.uploaded.lock().contains(**key)) {
                files.extend(self.parts.outbox.file(key)?.map(|file| ((*key).clone(), file)));
            }
            let Some(answers) = self.parts.store.adopt_many(&files) else { return Ok(()) };
            for ((key, file), _) in files.into_iter().zip(answers).filter(|(_, answer)| answer.is_ok()) {
                published.objects += 1;
                published.bytes += file.len;
                self.uploaded.lock().insert(key);
            }
        }
        Ok(())
    }

    fn upload_batch(
        &self,
        batch: &[(ObjectKey, Sealed)],
        stop: &dyn Fn() -> bool,
        published: &mut Published,
    ) -> Result<(), SyncError> {
        if stop() {
            return Err(SyncError::Stopped);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let start = self.parts.clock.elapsed();
        let before = published.bytes;
        let mut failed = None;
        for ((key, sealed), answer) in batch.iter().zip(self.parts.store.put_many(batch)) {
            match answer {
                Ok(()) => {
                    published.objects += 1;
                    published.bytes += sealed.len() as u64;
                    self.parts.blobs.keep(key, sealed);
                    self.uploaded.lock().insert(key.clone());
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.note_pace(published.bytes - before, self.parts.clock.elapsed().saturating_sub(start));
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// The newest batches count most.
    fn note_pace(&self, bytes: u64, time: Duration) {
        if bytes > 0 && time > Duration::ZERO {
            let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
            let now = bytes.saturating_mul(1_000) / time_ms;
            let mut pace = self.pace.lock();
            *pace = Some(pace.map_or(now, |before| before.midpoint(now)));
        }
    }

    /// How long publishing what waits takes at the pace so far, in seconds; `None` when nothing waits or no pace is
    /// known.
    pub fn time_left_s(&self, waiting: &Waiting) -> Option<u64> {
        let pace = (*self.pace.lock()).filter(|_| waiting.versions > 0)?;
        Some(waiting.bytes.div_ceil(pace.max(1)))
    }

    /// An object that no longer waits must be in the store, from an earlier publishing.
    fn check_stored(&self, key: &ObjectKey) -> Result<(), SyncError> {
        match self.parts.store.get_range(&RangeRequest { key: key.clone(), offset: 0, len: 1 }) {
            Ok(_) => Ok(()),
            Err(StoreError::NotFound { key }) => Err(SyncError::Lost { object: key.to_string() }),
            Err(error) => Err(error.into()),
        }
    }

    /// Where conditions do not count, only one client may write.
    fn check_writer(&self) -> Result<(), SyncError> {
        if self.parts.conditional_writes { Ok(()) } else { self.parts.leases.be_writer(false) }
    }

    /// Lets HEAD name the newest queued version. Returns HEAD as it is then, and whether that is our doing.
    fn swing(
        &self,
        queue: &[(u64, Queued)],
        built_on: u64,
        (mut head, mut etag): (Head, ETag),
    ) -> Result<Swing, SyncError> {
        let parts = &self.parts;
        let Some((_, newest)) = queue.last() else { return Err(SyncError::Contended { attempts: 0 }) };
        for attempt in 0..SWINGS_MAX {
            let mut new = Head {
                generation: head.generation + 1,
                version: newest.record.id,
                version_digest: newest.record.digest(),
                refs: newest.refs,
                runs: newest.runs.clone(),
                writer: parts.memory.get().client,
                time: parts.clock.now(),
                ..head.clone()
            };
            let sealed = new.seal(&parts.keys);
            self.check_writer()?;
            let condition = match parts.conditional_writes {
                true => PutCondition::IfMatch(etag.clone()),
                false => PutCondition::Always,
            };
            let answer = parts.store.put(&Head::key(), &sealed, condition);
            let refused = match answer {
                Ok(_) if parts.conditional_writes => {
                    let seen = Seen::of(&new, sealed.as_bytes());
                    return Ok(Swing::Won { seen, refs: new.refs, same: true });
                }
                Err(StoreError::Precondition { .. }) => true,
                // Without conditions, somebody may have written at the same time.
                Ok(_) | Err(StoreError::OutcomeUnknown { .. }) => false,
                Err(error) => return Err(error.into()),
            };
            let (now, now_etag, seen) = read_head(&*parts.store, &parts.keys)?;
            parts.memory.check(&seen)?;
            if now.nonce == new.nonce {
                return Ok(Swing::Won { seen, refs: new.refs, same: true });
            }
            if refused && now.nonce == head.nonce {
                // Refused though nothing changed: the server wants tags without quotes (or with, after all).
                parts.store.set_unquoted_etags(attempt % 2 == 0);
            }
            match self.relation(&now, queue, built_on)? {
                _ if self.is_behind(&now) => return Ok(Swing::Lost),
                Relation::Published { same: true } => return Ok(Swing::Won { seen, refs: now.refs, same: true }),
                Relation::Continued => (head, etag) = (now, now_etag),
                Relation::Published { same: false } | Relation::Diverged => return Ok(Swing::Lost),
            }
        }
        Err(SyncError::Contended { attempts: SWINGS_MAX })
    }

    /// Removes what was published from the queue.
    fn clear(&self, sequences: &[u64]) -> Result<(), SyncError> {
        let parts = &self.parts;
        let dir = Queued::dir(&parts.dir);
        for sequence in sequences {
            Queued::remove(&*parts.disk, &dir, *sequence)?;
        }
        self.uploaded.lock().clear();
        Ok(())
    }
}

/// Whether these versions were made from the one that HEAD names, rather than joined with it by a later one.
fn continues(head: &Head, queue: &[(u64, Queued)]) -> bool {
    // Versions from before HEAD's runs may name what was collected since; so may all before the one that knows them.
    let has_runs = |queued: &Queued| head.runs.iter().all(|run| queued.runs.contains(run));
    if !queue.first().is_some_and(|(_, first)| has_runs(first)) {
        return false;
    }
    queue.first().is_some_and(|(_, first)| first.record.parents.contains(&head.version))
        || queue.iter().any(|(_, queued)| queued.record.id == head.version)
}

/// A short rest, longer from time to time and never twice the same, so that one of several contenders gets through.
fn pause(attempt: u32) {
    let most_ms = 10_u64 << attempt.min(6);
    std::thread::sleep(Duration::from_millis(random::number() % most_ms));
}

/// Reads and opens HEAD, with its tag and what is remembered of it.
pub fn read_head(store: &dyn ObjectStore, keys: &Keys) -> Result<(Head, ETag, Seen), SyncError> {
    let object = store.get(&Head::key())?;
    let head = Head::open(keys, &object.bytes)?;
    let seen = Seen::of(&head, &object.bytes);
    Ok((head, object.etag, seen))
}
