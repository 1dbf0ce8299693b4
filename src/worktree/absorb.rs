//! Absorbing: dirty layers become chunks.
//!
//! Only the neighbourhood of what changed is read and cut again. Cutting goes on past the change
//! until a cut falls on an old boundary, so that small edits do not break a file into crumbs.
//!
//! A file that is written in order is hashed on the way, also when it is absorbed in several goes ([`Front`]).

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use sha2::Digest;

use super::content::{Reading, View, merge};
use super::extents::PieceData;
use super::inode::Layer;
use super::local_blobs::{LocalBlob, LocalBlobs, LocalPlace, Own};
use super::record::{Bytes, Record};
use super::{Result, WorkError};
use crate::base::ids::{BlobId, Sha256};
use crate::base::limits::{CHUNK_LEN_MAX, CHUNK_LEN_MIN, INLINE_LEN_MAX, PACKED_LEN_MAX};
use crate::blob::{BlobKind, Blobs, ChunkRef, Chunker, Location, Outbox, Place, codec, location};
use crate::crypto::{IdDomain, Keys};
use crate::store::ObjectKey;
use crate::version::entry::{Content, FileBody, Ino};
use crate::version::index::sha256;
use crate::version::tree::PageIo;

/// After an edit inside a file up to this size the whole file is hashed again.
const REHASH_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Blobs are handed to the journal in batches of about this size.
const BATCH_LEN: usize = 1024 * 1024;
/// How much of a file is in memory while it is cut.
const WINDOW_LEN: usize = 2 * CHUNK_LEN_MAX;

/// What absorbing works with.
pub(super) struct Absorber<'a> {
    pub(super) keys: &'a Keys,
    pub(super) blobs: &'a Blobs,
    pub(super) outbox: &'a Outbox,
    pub(super) local: &'a LocalBlobs,
    pub(super) io: &'a dyn PageIo,
    pub(super) append: &'a dyn Fn(Vec<Record>) -> Result<()>,
}

/// New chunks on their way into the journal and the outbox.
pub(super) struct Sink<'a> {
    with: &'a Absorber<'a>,
    owner: Ino,
    records: Vec<Record>,
    batch_len: usize,
    unsynced: Vec<ObjectKey>,
    fresh: BTreeSet<BlobId>,
}

/// What absorbing makes.
pub(super) struct Absorbed {
    pub(super) body: FileBody,
    /// Records of new small blobs, still to be appended (before anything refers to the blobs).
    pub(super) records: Vec<Record>,
    /// The digest so far, when all of the content went by on the way.
    pub(super) front: Option<Front>,
}

/// Whether the content is about to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is, and gets its digest, unless that takes reading a huge file again.
    Publish,
    /// More is coming, or somebody else makes the digest.
    Stage,
}

impl Absorber<'_> {
    /// Makes content of `layers` on top of `base`.
    pub(super) fn absorb(
        &self,
        owner: Ino,
        base: FileBody,
        layers: Vec<Arc<Layer>>,
        purpose: Purpose,
    ) -> Result<Absorbed> {
        let view = View::new(base, layers);
        let mut sink =
            Sink { with: self, owner, records: Vec::new(), batch_len: 0, unsynced: Vec::new(), fresh: BTreeSet::new() };
        let (body, front) = if view.size() < CHUNK_LEN_MIN as u64 {
            (self.absorb_small(&view, &mut sink)?, None)
        } else {
            self.absorb_large(&view, &mut sink, purpose)?
        };
        Ok(Absorbed { body, records: sink.finish()?, front })
    }

    fn absorb_small(&self, view: &View, sink: &mut Sink<'_>) -> Result<FileBody> {
        let size = view.size();
        let mut bytes = Vec::new();
        view.read(&self.reading(), 0, usize::try_from(size).map_err(|_| WorkError::TooLarge)?, &mut bytes)?;
        let digest = sha256(&bytes);
        let content = match bytes.len() {
            0 => Content::Empty,
            len if len <= INLINE_LEN_MAX => Content::Inline(bytes),
            _ => Content::Chunks(vec![(0, sink.put(&bytes, self.keys.id(IdDomain::Content, &digest))?)]),
        };
        Ok(FileBody { size, content, sha256: Some(digest) })
    }

    fn absorb_large(&self, view: &View, sink: &mut Sink<'_>, purpose: Purpose) -> Result<(FileBody, Option<Front>)> {
        let mut plan = Plan::make(view, self.io)?;
        let size = view.size();
        let mut front = Front::begin(view, &plan.regions);
        let mut added = Vec::new();
        let mut regions = std::mem::take(&mut plan.regions).into_iter().peekable();
        while let Some(region) = regions.next() {
            let stop = regions.peek().map_or(size, |next| next.start);
            let run = Run { stop, pulled: Vec::new(), region };
            self.cut_region(view, &mut plan, run, sink, front.as_mut(), &mut added)?;
        }
        let removed: Vec<u64> = plan.removed.into_iter().collect();
        let base = match &view.base().content {
            Content::Inline(_) => &Content::Empty,
            content => content,
        };
        let content = base.splice(self.io, &removed, &added)?;
        let sha256 = match &front {
            Some(front) => Some(front.clone().finish()),
            None if purpose == Purpose::Publish && size <= REHASH_LEN_MAX => Some(self.hash(view)?),
            None => None,
        };
        Ok((FileBody { size, content, sha256 }, front))
    }

    fn reading(&self) -> Reading<'_> {
        Reading::anywhere(self.blobs, self.io)
    }

    fn hash(&self, view: &View) -> Result<Sha256> {
        let mut hasher = sha2::Sha256::new();
        let mut buffer = Vec::with_capacity(CHUNK_LEN_MAX);
        let mut at = 0;
        while at < view.size() {
            let len = usize::try_from((view.size() - at).min(CHUNK_LEN_MAX as u64)).unwrap_or(CHUNK_LEN_MAX);
            buffer.clear();
            view.read(&self.reading(), at, len, &mut buffer)?;
            hasher.update(&buffer);
            at += len as u64;
        }
        Ok(Sha256(hasher.finalize().into()))
    }

    /// Cuts one region into chunks, up to its end or the next old boundary after it.
    fn cut_region(
        &self,
        view: &View,
        plan: &mut Plan,
        mut run: Run,
        sink: &mut Sink<'_>,
        mut front: Option<&mut Front>,
        added: &mut Vec<(u64, ChunkRef)>,
    ) -> Result<()> {
        let chunker = Chunker::new(self.keys.chunk_seed());
        let (mut at, mut end) = (run.region.start, run.region.end);
        let mut window: Vec<u8> = Vec::with_capacity(WINDOW_LEN);
        // What of the window is cut already.
        let mut used = 0;
        while at < end {
            let have = at + (window.len() - used) as u64;
            if have < at + CHUNK_LEN_MAX as u64 {
                // More at a time inside the region, so that the rest of the window seldom has to move.
                let ample = (at + WINDOW_LEN as u64).min(run.region.end);
                let want = plan.reach(view, self.io, &mut run, ample.max(at + CHUNK_LEN_MAX as u64))?;
                window.drain(..used);
                used = 0;
                let len = usize::try_from(want.saturating_sub(have)).map_err(|_| WorkError::TooLarge)?;
                view.read(&self.reading(), have, len, &mut window)?;
            }
            let rest = &window[used..];
            let at_end = rest.len() < CHUNK_LEN_MAX;
            let longest = &rest[..rest.len().min(CHUNK_LEN_MAX)];
            let cut = chunker.next_cut(longest, at_end).unwrap_or(longest.len());
            let bytes = &rest[..cut];
            if let Some(front) = front.as_deref_mut() {
                front.update(at, bytes);
            }
            added.push((at, sink.put(bytes, BlobKind::Content.id_of(self.keys, bytes))?));
            used += cut;
            at += cut as u64;
            for (offset, chunk_end) in run.pulled.iter().filter(|(offset, _)| *offset < at) {
                plan.removed.insert(*offset);
                end = end.max(*chunk_end);
            }
        }
        Ok(())
    }
}

/// The SHA-256 of a file as far as it was made: of its first `len` bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Front {
    pub(super) len: u64,
    state: sha2::Sha256,
}

impl Front {
    /// Goes on behind what is hashed already; `None` unless all that follows is cut in one go.
    fn begin(view: &View, regions: &[Range<u64>]) -> Option<Self> {
        let front = view.front();
        let goes_by = match regions {
            [] => front.len == view.size(),
            [region] => region.start <= front.len && region.end == view.size(),
            _ => false,
        };
        goes_by.then_some(front)
    }

    /// Takes the bytes from `at` on, as far as they are new. They come in order.
    fn update(&mut self, at: u64, bytes: &[u8]) {
        let known = usize::try_from(self.len - at.min(self.len)).unwrap_or(usize::MAX);
        self.state.update(bytes.get(known..).unwrap_or_default());
        self.len = self.len.max(at + bytes.len() as u64);
    }

    fn finish(self) -> Sha256 {
        Sha256(self.state.finalize().into())
    }
}

/// One region that is being cut.
struct Run {
    region: Range<u64>,
    /// Where the next region begins.
    stop: u64,
    /// Kept chunks that follow the region without a gap, as far as was looked: offset and end.
    pulled: Vec<(u64, u64)>,
}

/// Which bytes of a large file to cut again, and which old chunks that removes.
struct Plan {
    /// Disjoint, in order, not adjacent.
    regions: Vec<Range<u64>>,
    removed: BTreeSet<u64>,
    clip: u64,
}

impl Plan {
    fn make(view: &View, io: &dyn PageIo) -> Result<Self> {
        let mut plan = Plan { regions: Vec::new(), removed: BTreeSet::new(), clip: view.base_clip() };
        let base = view.base();
        let mut dirty: Vec<Range<u64>> = Vec::new();
        if let Content::Inline(bytes) = &base.content {
            dirty.push(0..(bytes.len() as u64).min(plan.clip));
        }
        for (offset, chunk) in base.content.chunks(io, plan.clip, u64::MAX)? {
            plan.removed.insert(offset);
            dirty.extend((offset < plan.clip).then_some(offset..plan.clip));
            debug_assert!(chunk.len > 0);
        }
        for (index, layer) in view.layers().iter().enumerate() {
            let visible =
                view.layers()[index + 1..].iter().map(|above| above.clip).min().unwrap_or(u64::MAX).min(view.size());
            for (start, piece) in layer.extents.iter() {
                let end = (start + piece.data.len()).min(visible);
                if start >= end {
                    continue;
                }
                match piece.data {
                    PieceData::Bytes(_) => dirty.push(start..end),
                    PieceData::Zeros(_) => plan.punch(view, io, start..end, &mut dirty)?,
                }
            }
        }
        for range in merge(dirty) {
            plan.add(view, io, range)?;
        }
        plan.regions = merge(std::mem::take(&mut plan.regions));
        Ok(plan)
    }

    /// A hole removes the chunks it covers; what it leaves of those at its ends is cut again.
    fn punch(&mut self, view: &View, io: &dyn PageIo, hole: Range<u64>, dirty: &mut Vec<Range<u64>>) -> Result<()> {
        for (offset, chunk) in view.base().content.chunks(io, hole.start, hole.end.min(self.clip))? {
            self.removed.insert(offset);
            let end = (offset + u64::from(chunk.len)).min(self.clip);
            dirty.extend((offset < hole.start).then_some(offset..hole.start));
            dirty.extend((hole.end < end).then_some(hole.end..end));
        }
        Ok(())
    }

    /// Adds a dirty range, widened to the old chunks it touches and to a short or last chunk before it.
    fn add(&mut self, view: &View, io: &dyn PageIo, range: Range<u64>) -> Result<()> {
        let mut region = range.clone();
        let from = range.start.saturating_sub(1);
        for (offset, chunk) in view.base().content.chunks(io, from, range.end.min(self.clip))? {
            let end = offset + u64::from(chunk.len);
            let before = end <= range.start;
            if before && (chunk.len as usize) >= CHUNK_LEN_MIN && end < view.base().size {
                continue;
            }
            if self.removed.contains(&offset) && !before {
                continue;
            }
            self.removed.insert(offset);
            region = region.start.min(offset)..region.end.max(end.min(self.clip));
        }
        self.regions.push(region);
        Ok(())
    }

    /// How far contiguous data goes, over the region and the kept chunks after it: `wanted`, or less
    /// where a hole, the end or the next region comes first.
    fn reach(&self, view: &View, io: &dyn PageIo, run: &mut Run, wanted: u64) -> Result<u64> {
        loop {
            let reach = run.pulled.last().map_or(run.region.end, |(_, end)| *end);
            if reach >= wanted || reach >= run.stop {
                return Ok(reach.min(wanted));
            }
            match self.kept_at(view, io, reach)? {
                Some(chunk) => run.pulled.push((reach, reach + u64::from(chunk.len))),
                None => return Ok(reach),
            }
        }
    }

    fn kept_at(&self, view: &View, io: &dyn PageIo, offset: u64) -> Result<Option<ChunkRef>> {
        let chunks = view.base().content.chunks(io, offset, offset + 1)?;
        let fits = |(start, chunk): &&(u64, ChunkRef)| {
            *start == offset && start + u64::from(chunk.len) <= self.clip && !self.removed.contains(start)
        };
        Ok(chunks.iter().find(fits).map(|(_, chunk)| *chunk))
    }
}

impl Sink<'_> {
    /// Makes sure the chunk exists, here or in the store.
    fn put(&mut self, bytes: &[u8], id: BlobId) -> Result<ChunkRef> {
        let with = self.with;
        let len = u32::try_from(bytes.len()).map_err(|_| WorkError::TooLarge)?;
        let chunk = ChunkRef { id, len };
        if self.fresh.contains(&id) || self.share(&id)? || with.blobs.is_stored(&id)? {
            return Ok(chunk);
        }
        let sealed = codec::encode(with.keys, BlobKind::Content, id, bytes);
        let stored_len = u32::try_from(sealed.len()).map_err(|_| WorkError::TooLarge)?;
        self.fresh.insert(id);
        if sealed.len() < PACKED_LEN_MAX {
            self.batch_len += sealed.len();
            self.records.push(Record::Blob {
                owner: self.owner,
                id,
                page: false,
                len,
                sealed: Bytes(Arc::new(sealed.into_bytes())),
            });
        } else {
            let generation = with.blobs.index().fresh_generation(None).unwrap_or(0);
            let key = location::object_key(&id, generation);
            with.outbox.add(&key, &sealed)?;
            self.unsynced.push(key);
            self.records.push(Record::Object { owner: self.owner, id, len, stored_len, generation });
        }
        if self.batch_len >= BATCH_LEN {
            self.sync_objects()?;
            self.batch_len = 0;
            (with.append)(std::mem::take(&mut self.records))?;
        }
        Ok(chunk)
    }

    /// Takes part in owning a blob that is here; false when it is not.
    fn share(&mut self, id: &BlobId) -> Result<bool> {
        let (local, owner) = (self.with.local, self.owner);
        match local.own(id, owner) {
            Own::Known => return Ok(true),
            Own::New => {
                self.records.push(Record::Share { owner, id: *id });
                return Ok(true);
            }
            Own::Absent => {}
        }
        // The checkpoint that is under way may drop its record of the object.
        let Some(blob) = local.object_of_checkpoint(id) else { return Ok(false) };
        self.fresh.insert(*id);
        self.records.extend(local.carry_record(owner, *id, &blob)?);
        Ok(true)
    }

    fn sync_objects(&mut self) -> Result<()> {
        let keys = std::mem::take(&mut self.unsynced);
        if keys.is_empty() { Ok(()) } else { Ok(self.with.outbox.sync(&keys)?) }
    }

    fn finish(mut self) -> Result<Vec<Record>> {
        self.sync_objects()?;
        Ok(self.records)
    }
}

/// Registers the blobs of records that were appended as one frame.
pub(super) fn register(local: &LocalBlobs, blobs: &Blobs, frame: super::journal::FrameRef, records: &[Record]) {
    for record in records {
        if let Some((id, blob)) = local_blob(frame, record) {
            if let LocalPlace::Outbox(location) = &blob.place {
                blobs.index().record(id, *location);
            }
            local.add(id, blob);
        }
    }
}

/// The blob that a record tells of.
pub(super) fn local_blob(frame: super::journal::FrameRef, record: &Record) -> Option<(BlobId, LocalBlob)> {
    match record {
        Record::Blob { owner, id, page, len, .. } => {
            Some((*id, LocalBlob { place: LocalPlace::Journal(frame), page: *page, len: *len, owners: vec![*owner] }))
        }
        Record::Object { owner, id, len, stored_len, generation } => {
            let location = Location {
                kind: BlobKind::Content,
                stored_len: *stored_len,
                len: *len,
                place: Place::Object { generation: *generation },
            };
            Some((*id, LocalBlob { place: LocalPlace::Outbox(location), page: false, len: *len, owners: vec![*owner] }))
        }
        _ => None,
    }
}
