//! Re-encryption: what is stored under the key of an earlier epoch is stored anew under the newest, bit by bit.
//!
//! Nothing is kept about how far it is: an envelope tells its epoch, so whoever goes on passes over what is done. Every
//! step is published before the next, readers find the new places by the newest location run, and the old objects stay
//! until collection removes them. Records of versions keep their epoch: their names have no generation.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::opened::Workspace;
use super::repair::Parcel;
use super::{Result, WorkspaceError};
use crate::base::ids::{BlobId, RunId};
use crate::blob::{BlobError, ChunkRef, Location, Place, RunRef, codec, location};
use crate::crypto::envelope_epoch;
use crate::store::{ObjectKey, ObjectStore, RangeRequest, StoreError};
use crate::sync::SyncError;
use crate::version::head::RunInForce;

/// New sealed bytes that are published together.
const STEP_BYTES: u64 = 64 << 20;
/// Objects that are asked for their epoch together.
const ASKED_TOGETHER: usize = 256;
/// Bytes at the front of an envelope that tell its epoch.
const HEADER_BYTES: u64 = 8;

/// How far re-encryption is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reencryption {
    /// Objects looked at.
    pub objects: u64,
    /// Objects there are.
    pub objects_total: u64,
    /// Sealed bytes written anew.
    pub bytes: u64,
    /// Objects that no location run in force refers to any more; collection removes them.
    pub unreferred: Vec<ObjectKey>,
}

/// Keeps reading and writing below a rate.
struct Pace {
    bytes_per_second: Option<u64>,
    start: Instant,
    bytes: u64,
}

impl Pace {
    /// Waits until so many more bytes fit; false when it is time to end.
    fn spend(&mut self, bytes: u64, stop: &dyn Fn() -> bool) -> bool {
        self.bytes += bytes;
        let Some(rate) = self.bytes_per_second else { return !stop() };
        let due = Duration::from_secs_f64(self.bytes as f64 / rate.max(1) as f64);
        while self.start.elapsed() < due {
            if stop() {
                return false;
            }
            std::thread::sleep((due - self.start.elapsed().min(due)).min(Duration::from_millis(100)));
        }
        !stop()
    }
}

type Blobs = Vec<(BlobId, Location)>;

impl Workspace {
    /// Stores everything anew that is sealed under an earlier key epoch than the newest, at most so many bytes a
    /// second. Can be ended by `stop`, and repeated; then it goes on where it was.
    pub fn reencrypt(
        &self,
        bytes_per_second: Option<u64>,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(&Reencryption),
    ) -> Result<Reencryption> {
        self.check_writable()?;
        self.follow_epochs()?;
        self.publish_step(stop)?;
        let epoch = self.parts.keys.epoch();
        let mut pace = Pace { bytes_per_second, start: Instant::now(), bytes: 0 };
        let objects = self.stored_objects()?;
        let mut done = Reencryption { objects_total: objects.len() as u64, ..Reencryption::default() };
        let mut parcel = Parcel::new(self);
        let objects: Vec<(ObjectKey, Blobs)> = objects.into_iter().collect();
        for group in objects.chunks(ASKED_TOGETHER) {
            let old = self.of_earlier_epochs(group, epoch)?;
            done.objects += (group.len() - old.len()) as u64;
            for (key, blobs) in old {
                if !pace.spend(self.renew(key, blobs, epoch, &mut parcel, &mut done)?, stop) {
                    return Err(SyncError::Stopped.into());
                }
                done.objects += 1;
                if parcel.bytes >= STEP_BYTES {
                    let full = std::mem::replace(&mut parcel, Parcel::new(self));
                    self.settle_step(full, &mut done, stop)?;
                }
                progress(&done);
            }
        }
        self.settle_step(parcel, &mut done, stop)?;
        self.renew_runs(epoch, &mut done)?;
        self.publish_step(stop)?;
        progress(&done);
        Ok(done)
    }

    /// Objects that hold blobs in force, with these blobs in their order.
    fn stored_objects(&self) -> Result<BTreeMap<ObjectKey, Blobs>> {
        let index = self.parts.blobs.index();
        let mut locations: HashMap<BlobId, Location> = HashMap::new();
        for run in index.runs() {
            index.each_record(&run, &mut |id, at| {
                locations.insert(id, at);
            })?;
        }
        let mut objects: BTreeMap<ObjectKey, Blobs> = BTreeMap::new();
        for (id, at) in locations {
            objects.entry(at.object(&id).0).or_default().push((id, at));
        }
        for blobs in objects.values_mut() {
            blobs.sort_unstable_by_key(|(id, at)| (at.object(id).1, *id));
        }
        Ok(objects)
    }

    /// Those objects of a group with a blob that was sealed under an earlier epoch. A pack may hold blobs that were
    /// sealed before it was made, so each is asked.
    fn of_earlier_epochs<'g>(
        &self,
        group: &'g [(ObjectKey, Blobs)],
        epoch: u32,
    ) -> Result<Vec<(&'g ObjectKey, &'g Blobs)>> {
        let mut old = Vec::new();
        let heads: Vec<RangeRequest> = group
            .iter()
            .filter(|(_, blobs)| is_alone(blobs))
            .map(|(key, _)| RangeRequest { key: key.clone(), offset: 0, len: HEADER_BYTES })
            .collect();
        let mut answers = self.parts.store.get_many(&heads).into_iter();
        for (key, blobs) in group {
            let is_old = |front: &[u8]| envelope_epoch(front).is_none_or(|found| found < epoch);
            let has_old = match is_alone(blobs) {
                true => answers.next().transpose()?.is_none_or(|front| is_old(&front)),
                false => true,
            };
            if has_old {
                old.push((key, blobs));
            }
        }
        Ok(old)
    }

    /// Adds the blobs of an object that are of an earlier epoch to the parcel; says how many bytes were read.
    fn renew(
        &self,
        key: &ObjectKey,
        blobs: &[(BlobId, Location)],
        epoch: u32,
        parcel: &mut Parcel<'_>,
        done: &mut Reencryption,
    ) -> Result<u64> {
        let bytes = self.parts.store.get(key)?.bytes;
        let mut renewed = 0;
        for (id, at) in blobs {
            let (_, offset) = at.object(id);
            let chunk = ChunkRef { id: *id, len: at.len };
            let start = offset as usize;
            let end = if is_alone(blobs) { bytes.len() } else { start.saturating_add(at.stored_len as usize) };
            let damaged = |fault| BlobError::Damaged { object: key.to_string(), id: *id, fault };
            let expected = end as u64;
            let sealed = bytes
                .get(start..end)
                .ok_or_else(|| damaged(crate::blob::Fault::Length { expected, found: bytes.len() as u64 }))?;
            if envelope_epoch(sealed).is_some_and(|found| found >= epoch) {
                continue;
            }
            let plaintext = codec::decode(&self.parts.keys, at.kind, &chunk, sealed).map_err(damaged)?;
            parcel.add(at.kind, &chunk, Some(at), &plaintext);
            renewed += 1;
        }
        if renewed == blobs.len() {
            done.unreferred.push(key.clone());
        }
        Ok(bytes.len() as u64)
    }

    fn settle_step(&self, mut parcel: Parcel<'_>, done: &mut Reencryption, stop: &dyn Fn() -> bool) -> Result<()> {
        parcel.close_pack();
        if parcel.records.is_empty() {
            return Ok(());
        }
        done.bytes += parcel.bytes;
        self.tree().relocate(parcel.records, parcel.objects, &HashMap::new())?;
        self.publish_step(stop)
    }

    fn publish_step(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        self.publish(stop).map(|_| ()).map_err(WorkspaceError::from)
    }

    /// Seals the location runs anew that are of an earlier epoch.
    fn renew_runs(&self, epoch: u32, done: &mut Reencryption) -> Result<()> {
        let index = self.parts.blobs.index();
        let mut replaced: HashMap<RunId, Option<RunInForce>> = HashMap::new();
        let mut objects = Vec::new();
        for run in index.runs() {
            let key = location::run_key(run.id);
            let front =
                match self.parts.store.get_range(&RangeRequest { key: key.clone(), offset: 0, len: HEADER_BYTES }) {
                    // It waits to be published, and was sealed under the newest epoch.
                    Err(StoreError::NotFound { .. }) if self.parts.blobs.is_waiting(&key) => continue,
                    front => front?,
                };
            if envelope_epoch(&front).is_none_or(|found| found >= epoch) {
                continue;
            }
            let (RunRef { id, count }, sealed) = index.merge_runs(&[run], RunId::at(self.parts.options.clock.now()))?;
            objects.push((location::run_key(id), sealed));
            replaced.insert(run.id, Some(RunInForce { id, count }));
            done.unreferred.push(key);
        }
        if !objects.is_empty() {
            self.tree().relocate(Vec::new(), objects, &replaced)?;
        }
        Ok(())
    }
}

/// Whether this is an object of its own.
fn is_alone(blobs: &[(BlobId, Location)]) -> bool {
    matches!(blobs, [(_, Location { place: Place::Object { .. }, .. })])
}
