//! Opening a live tree: the base, the publish queue, and recovery from the journal.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::absorb::local_blob;
use super::checkpoint::CheckpointState;
use super::inode::{Inode, Node};
use super::journal::{End, FrameRef, Journal, OnDamage, Replay, Start};
use super::live::{LOADS_MAX, Worktree, WorktreeParts};
use super::load::load;
use super::local_blobs::{BlobMap, LocalBlobs, LocalPlace};
use super::pages::NewPages;
use super::record::Record;
use super::table::{Stop, Table, Totals};
use super::{JournalError, Result, WorkError};
use crate::base::disk::{Disk, read_file, replace_file};
use crate::base::random;
use crate::blob::RunRef;
use crate::crypto::{Keys, Kind};
use crate::store::ObjectKey;
use crate::version::head::{Head, RunInForce};
use crate::version::index::IndexRecord;
use crate::version::tree::TreeRef;

/// What the live tree rests on: the newest local version, and where its journal begins.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Base {
    /// The newest version, published or not.
    pub index: IndexRecord,
    /// The refs with that version in them.
    pub refs: TreeRef,
    /// Location runs that cover it.
    pub runs: Vec<RunInForce>,
    /// HEAD's generation when it was last read or swung.
    pub head_generation: u64,
    /// The journal's id.
    pub journal_id: [u8; 16],
    /// The first segment to replay.
    pub first_segment: u64,
    /// What the segment's first frame is bound to: the end of the frame before it.
    pub journal_chain: [u8; 16],
    /// The newest entry of the publish queue that counts.
    pub queue_sequence: u64,
    /// The high half of this client's inode numbers.
    pub ino_prefix: u32,
    /// The low half of the last one given out.
    pub next_ino: u32,
}

/// A version that waits to be published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Queued {
    /// The version.
    pub record: IndexRecord,
    /// The refs with it in them.
    pub refs: TreeRef,
    /// Location runs that cover it.
    pub runs: Vec<RunInForce>,
    /// What has to be in the store before HEAD may name it.
    #[serde(with = "object_keys")]
    pub objects: Vec<ObjectKey>,
}

/// The top bit is for inodes outside of the live tree; zero is for the first version's.
fn fresh_ino_prefix() -> u32 {
    u32::from_le_bytes(random::bytes()) & 0x7fff_ffff | 1
}

const BASE_IDENTITY: &[u8] = b"base";
/// Longest base or queue file.
const LOCAL_LEN_MAX: usize = 64 * 1024 * 1024;

impl Base {
    /// A base on what HEAD names, for a client that has no local state.
    pub fn from_head(head: &Head, index: IndexRecord) -> Self {
        Self {
            index,
            refs: head.refs,
            runs: head.runs.clone(),
            head_generation: head.generation,
            journal_id: random::bytes(),
            first_segment: 1,
            journal_chain: [0; 16],
            queue_sequence: 0,
            ino_prefix: fresh_ino_prefix(),
            next_ino: 0,
        }
    }

    /// Where the base of a state directory lies.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("base")
    }

    /// The base of a state directory; `None` when it has none yet.
    pub fn read(disk: &dyn Disk, dir: &Path, keys: &Keys) -> Result<Option<Self>> {
        let path = Self::path(dir);
        match read_file(disk, &path, LOCAL_LEN_MAX) {
            Ok(sealed) => open_local(keys, BASE_IDENTITY, &sealed, &path).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(WorkError::disk(path, &error)),
        }
    }

    /// Whether the state directory holds nothing beyond this base: no version that waits, no journal.
    pub fn is_clean(&self, disk: &dyn Disk, dir: &Path) -> Result<bool> {
        let items = |dir: &Path| match disk.list(dir) {
            Ok(items) => Ok(items),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(WorkError::disk(dir, &error)),
        };
        let number = |item: &crate::base::disk::DirItem| u64::from_str_radix(&item.name, 16).ok();
        let waits = |item| number(item).is_some_and(|sequence| sequence <= self.queue_sequence);
        let holds = |item: &crate::base::disk::DirItem| {
            number(item).is_some_and(|segment| segment >= self.first_segment) && item.len > 0
        };
        Ok(!items(&Queued::dir(dir))?.iter().any(waits) && !items(&dir.join("journal"))?.iter().any(holds))
    }

    /// This base moved to what HEAD names. Only for a base that [is clean](Self::is_clean).
    pub fn moved_to(&self, head: &Head, index: IndexRecord) -> Self {
        Self { index, refs: head.refs, runs: head.runs.clone(), head_generation: head.generation, ..self.clone() }
    }

    /// This base for another client, which shall not give out the same inode numbers.
    pub fn for_new_client(&self) -> Self {
        Self { ino_prefix: fresh_ino_prefix(), next_ino: 0, ..self.clone() }
    }

    /// Writes the base, atomically and durably.
    pub fn write(&self, disk: &dyn Disk, path: &Path, keys: &Keys) -> Result<()> {
        write_local(disk, path, keys, BASE_IDENTITY, self)
    }
}

impl Queued {
    /// Where the publish queue of a state directory lies.
    pub fn dir(dir: &Path) -> PathBuf {
        dir.join("queue")
    }

    /// The sequence numbers in the queue, in order.
    pub fn list(disk: &dyn Disk, queue_dir: &Path) -> Result<Vec<u64>> {
        let items = disk.list(queue_dir).map_err(|error| WorkError::disk(queue_dir, &error))?;
        let mut sequences: Vec<u64> =
            items.iter().filter_map(|item| u64::from_str_radix(&item.name, 16).ok()).collect();
        sequences.sort_unstable();
        Ok(sequences)
    }

    /// Reads one entry.
    pub fn read(disk: &dyn Disk, queue_dir: &Path, sequence: u64, keys: &Keys) -> Result<Self> {
        let path = entry_path(queue_dir, sequence);
        let sealed = read_file(disk, &path, LOCAL_LEN_MAX).map_err(|error| WorkError::disk(&path, &error))?;
        open_local(keys, &entry_identity(sequence), &sealed, &path)
    }

    /// Writes an entry, atomically and durably.
    pub fn write(&self, disk: &dyn Disk, queue_dir: &Path, sequence: u64, keys: &Keys) -> Result<()> {
        write_local(disk, &entry_path(queue_dir, sequence), keys, &entry_identity(sequence), self)
    }

    /// Removes an entry.
    pub fn remove(disk: &dyn Disk, queue_dir: &Path, sequence: u64) -> Result<()> {
        let path = entry_path(queue_dir, sequence);
        disk.remove(&path).map_err(|error| WorkError::disk(&path, &error))
    }
}

fn entry_path(queue_dir: &Path, sequence: u64) -> PathBuf {
    queue_dir.join(format!("{sequence:016x}"))
}

fn entry_identity(sequence: u64) -> Vec<u8> {
    [b"queue".as_slice(), &sequence.to_le_bytes()].concat()
}

fn open_local<T: for<'a> Deserialize<'a>>(keys: &Keys, identity: &[u8], sealed: &[u8], path: &Path) -> Result<T> {
    let damaged = |reason: String| JournalError::Misfit { path: path.to_owned(), reason };
    let plain = keys.open(Kind::Local, identity, sealed).map_err(|error| damaged(error.to_string()))?;
    Ok(postcard::from_bytes(&plain).map_err(|error| damaged(error.to_string()))?)
}

fn write_local<T: Serialize>(disk: &dyn Disk, path: &Path, keys: &Keys, identity: &[u8], value: &T) -> Result<()> {
    let plain = postcard::to_stdvec(value).unwrap_or_else(|_| unreachable!("our own plain types always encode"));
    let sealed = keys.seal(Kind::Local, identity, &plain);
    replace_file(disk, path, sealed.as_bytes()).map_err(|error| WorkError::disk(path, &error))
}

impl Worktree {
    /// Opens the live tree of a state directory. `fresh` makes the base of one that has none.
    /// With `accept_damage`, a journal that was altered is replayed as far as it is good.
    pub fn recover(parts: WorktreeParts, fresh: impl FnOnce() -> Result<Base>, accept_damage: bool) -> Result<Self> {
        let disk = parts.disk.clone();
        let queue_dir = Queued::dir(&parts.dir);
        for dir in [&parts.dir, &queue_dir] {
            disk.create_dir_all(dir).map_err(|error| WorkError::disk(dir, &error))?;
        }
        let base_path = Base::path(&parts.dir);
        let (base, is_fresh) = match Base::read(&*disk, &parts.dir, &parts.keys)? {
            Some(base) => (base, false),
            None => (fresh()?, true),
        };
        drop_unfinished(&*disk, &queue_dir, base.queue_sequence)?;
        let index = parts.blobs.index();
        index.set_runs(base.runs.iter().map(|run| RunRef { id: run.id, count: run.count }).collect());
        let mut table = table_of(&base);
        let mut found = BlobMap::new();
        let on_damage = if accept_damage { OnDamage::Accept } else { OnDamage::Refuse };
        let (end, is_ours) = recover(&parts, &base, &mut table, &mut found, (on_damage, !is_fresh))?;
        finish_recovery(&mut table);
        for (id, blob) in &found {
            if let LocalPlace::Outbox(place) = &blob.place {
                index.record(*id, *place);
            }
        }
        let journal_dir = parts.dir.join("journal");
        let journal = Arc::new(Journal::open(disk, &journal_dir, parts.keys.clone(), base.journal_id, &end)?);
        if is_fresh {
            // Only now: where there is a base, its journal must be there, too.
            base.write(&*parts.disk, &base_path, &parts.keys)?;
        }
        let local = Arc::new(LocalBlobs::new(journal.clone(), found));
        let state = CheckpointState { base, base_path, queue_dir, changes: 0, is_unsure: false };
        let tree = Self::assemble(parts, table, journal, local, state);
        tree.clean_outbox()?;
        if !is_ours {
            let version = tree.base().index.id;
            tree.journal.append(&[Record::Rest { version }])?;
        }
        Ok(tree)
    }

    /// Removes objects from the outbox that files needed which are gone since. For when everything is published.
    pub fn drop_unneeded(&self) -> Result<()> {
        let activity = self.activity();
        if activity.drafts + activity.frozen > 0 || self.parts.outbox.keys().is_empty() {
            return Ok(());
        }
        self.compact()?;
        self.clean_outbox()
    }

    /// Removes objects that neither a queued version nor the journal knows.
    pub(super) fn clean_outbox(&self) -> Result<()> {
        let Some(_joining) = self.joining.try_lock() else {
            // Later: a join takes as long as the store does.
            self.wants_room.store(true, Ordering::Release);
            return Ok(());
        };
        let state = self.checkpoint.lock();
        // Nobody is about to refer to one of them.
        let _absorbing = self.absorbing.lock();
        let mut wanted: HashSet<ObjectKey> = HashSet::new();
        for sequence in Queued::list(&*self.parts.disk, &state.queue_dir)? {
            wanted.extend(Queued::read(&*self.parts.disk, &state.queue_dir, sequence, &self.parts.keys)?.objects);
        }
        self.local.each(&mut |id, blob| {
            if let LocalPlace::Outbox(place) = &blob.place {
                wanted.insert(place.object(id).0);
            }
        });
        let unwanted: HashSet<ObjectKey> =
            self.parts.outbox.keys().into_iter().filter(|key| !wanted.contains(key)).collect();
        let index = self.parts.blobs.index();
        for (id, place) in index.recorded() {
            if unwanted.contains(&place.object(&id).0) {
                index.forget(&id);
            }
        }
        for key in unwanted {
            self.parts.outbox.remove(&key)?;
        }
        Ok(())
    }
}

/// A crash between a queue entry and the base that names it leaves an entry that never counted.
fn drop_unfinished(disk: &dyn Disk, queue_dir: &Path, newest: u64) -> Result<()> {
    for item in disk.list(queue_dir).map_err(|error| WorkError::disk(queue_dir, &error))? {
        let counts = u64::from_str_radix(&item.name, 16).is_ok_and(|sequence| sequence <= newest);
        if !counts {
            let path = queue_dir.join(&item.name);
            disk.remove(&path).map_err(|error| WorkError::disk(&path, &error))?;
        }
    }
    Ok(())
}

fn table_of(base: &Base) -> Table {
    let root = Inode::from_entry(base.index.root.dir.clone(), 1, false, None);
    let counts = base.index.counts;
    let totals = Totals { files: counts.files, dirs: counts.dirs, bytes: counts.bytes };
    let mut table = Table::new(root, base.index.root.links, totals, base.ino_prefix);
    table.next_ino = base.next_ino;
    table
}

fn recover(
    parts: &WorktreeParts,
    base: &Base,
    table: &mut Table,
    found: &mut BlobMap,
    (on_damage, must_exist): (OnDamage, bool),
) -> Result<(End, bool)> {
    let dir = parts.dir.join("journal");
    let pages = NewPages::new(&parts.blobs, &parts.keys);
    // A crash may have come between a foreign version's taking in and the base that rests on it.
    let mut is_ours = true;
    let mut each = |frame: FrameRef, records: Vec<Record>| -> Result<()> {
        for record in &records {
            if let Record::Rest { version } = record {
                is_ours = *version == base.index.id;
            }
            if !is_ours {
                continue;
            }
            if let Record::Share { owner, id } = record
                && let Some(blob) = found.get_mut(id)
            {
                blob.owners.push(*owner);
            }
            if let Some((id, blob)) = local_blob(frame, record) {
                let owners = found.remove(&id).map(|old| old.owners).unwrap_or_default();
                let mut blob = blob;
                blob.owners.extend(owners);
                found.insert(id, blob);
            }
            replay_record(&pages, table, record, &dir)?;
        }
        Ok(())
    };
    let replay = Replay { disk: &*parts.disk, dir: &dir, keys: &parts.keys, id: &base.journal_id, on_damage };
    let end = replay.run(&Start { first: base.first_segment, chain: base.journal_chain, must_exist }, &mut each)?;
    Ok((end, is_ours))
}

fn replay_record(pages: &NewPages<'_>, table: &mut Table, record: &Record, dir: &Path) -> Result<()> {
    let misfit = |what: &str| {
        let reason = format!("a record of {what}: {}", record.word());
        Err(JournalError::Misfit { path: dir.to_owned(), reason }.into())
    };
    for _ in 0..LOADS_MAX {
        match table.apply(record) {
            Ok(()) => return Ok(()),
            // Content of a file that was unlinked while open has nowhere to go.
            Err(Stop::Failed(WorkError::NotFound)) if concerns_content(record) => return Ok(()),
            Err(Stop::Failed(WorkError::NotFound)) => return misfit("an unknown name or inode"),
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Held) => return Err(WorkError::WouldBlock),
            Err(Stop::Need(need)) => {
                let loaded = load(pages, table.order(need))?;
                table.install(loaded);
            }
        }
    }
    misfit("an inode that is not where it should be")
}

fn concerns_content(record: &Record) -> bool {
    use Record::{Attr, Complete, Draft, Publish, Resize, Write, Xattr, Zero};
    matches!(
        record,
        Write { .. }
            | Zero { .. }
            | Resize { .. }
            | Complete { .. }
            | Publish { .. }
            | Draft { .. }
            | Attr { .. }
            | Xattr { .. }
    )
}

/// Whoever wrote the drafts is gone.
fn finish_recovery(table: &mut Table) {
    table.known.clear();
    let drafts: Vec<_> = table.drafts.iter().copied().collect();
    for ino in drafts {
        if let Some(Node::File(file)) = table.find_mut(ino).map(|inode| &mut inode.node) {
            file.recovered = true;
        }
    }
}

impl Record {
    fn word(&self) -> &'static str {
        match self {
            Record::Create { .. } => "create",
            Record::Link { .. } => "link",
            Record::Remove { .. } => "remove",
            Record::Rename { .. } => "rename",
            Record::Attr { .. } => "attributes",
            Record::Xattr { .. } => "extended attribute",
            Record::Resize { .. } => "resize",
            Record::Write { .. } => "write",
            Record::Zero { .. } => "zero",
            Record::Complete { .. } => "complete",
            Record::Publish { .. } => "publish",
            Record::Blob { .. } => "blob",
            Record::Object { .. } => "object",
            Record::Graft { .. } => "graft",
            Record::Draft { .. } => "draft",
            Record::Place { .. } => "place",
            Record::Share { .. } => "share",
            Record::Begin => "begin",
            Record::Commit => "commit",
            Record::Rest { .. } => "rest",
            Record::Contest { .. } => "contest",
        }
    }
}

/// Object names as text; what is not a name is refused.
mod object_keys {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::store::ObjectKey;

    pub(super) fn serialize<S: Serializer>(keys: &[ObjectKey], serializer: S) -> Result<S::Ok, S::Error> {
        keys.iter().map(ObjectKey::as_str).collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ObjectKey>, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names
            .into_iter()
            .map(|name| ObjectKey::new(name).ok_or_else(|| serde::de::Error::custom("not an object name")))
            .collect()
    }
}
