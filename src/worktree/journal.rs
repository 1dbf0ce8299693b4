//! The journal: sealed frames, each chained to the one before, in numbered segments.
//!
//! A frame is its length (u32) and an envelope whose identity is the journal's id, the segment, the
//! frame's number and the tag of the frame before. The file `synced` holds how far the journal is
//! known to be durable; damage before that point is an alarm, after it the mark of a crash.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use super::error::is_full;
use super::record::{self, Record};
use super::{JournalError, Result, WorkError};
use crate::base::disk::{Disk, DiskFile, OpenMode, read_file};
use crate::crypto::{Keys, Kind, SEAL_FRONT_LEN, SEAL_OVERHEAD};

/// A frame may not be longer.
const FRAME_LEN_MAX: usize = 256 * 1024 * 1024;
/// A frame begins with the length of its envelope.
const FRAME_HEADER_LEN: usize = 4;
/// The memory of a frame up to this size is kept for the next.
const FRAME_KEPT_MAX: usize = 256 * 1024;
/// So many zeros are written behind the frames at a time, when fewer than so many are left.
const CLEAR_LEN: usize = 64 * 1024;
const CLEAR_LEN_MIN: u64 = 4096;
/// From this flush of a segment on.
const CLEAR_FLUSHES_MIN: u32 = 8;
const TAG_LEN: usize = 16;
/// The tag at the end of a frame, which the next frame is bound to.
pub(super) type Tag = [u8; TAG_LEN];
const SYNCED_IDENTITY: &[u8] = b"journal/synced";

/// A place in the journal: everything before it is covered by syncing up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// Where a frame lies, and what is needed to open it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameRef {
    pub(super) at: Position,
    number: u64,
    previous: Tag,
}

pub(super) struct Journal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    keys: Keys,
    id: [u8; 16],
    state: Mutex<State>,
    sync_state: Mutex<SyncState>,
    synced_changed: Condvar,
    marker: Arc<dyn DiskFile>,
    /// In all segments.
    bytes: AtomicU64,
}

struct State {
    segment: u64,
    file: Arc<dyn DiskFile>,
    len: u64,
    /// Up to where zeros stand behind the last frame.
    cleared: u64,
    /// How often this segment was flushed.
    flushes: u32,
    number: u64,
    previous: Tag,
    failed: Option<JournalError>,
    /// Earlier segments that are still needed.
    older: Vec<Older>,
    /// Memory for the next frame.
    frame: Vec<u8>,
}

#[derive(Clone)]
struct Older {
    segment: u64,
    /// `None` when it is durable.
    file: Option<Arc<dyn DiskFile>>,
    len: u64,
}

/// A segment that is made and not begun.
pub(super) struct Spare {
    segment: u64,
    file: Arc<dyn DiskFile>,
}

#[derive(Default)]
struct SyncState {
    synced: Position,
    running: bool,
}

impl Journal {
    /// Begins a fresh segment after those that were replayed, which are made durable first.
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path, keys: Keys, id: [u8; 16], end: &End) -> Result<Self> {
        disk.create_dir_all(dir).map_err(|error| WorkError::disk(dir, &error))?;
        let marker_path = dir.join("synced");
        let marker =
            disk.open(&marker_path, OpenMode::ReadWrite).map_err(|error| WorkError::disk(&marker_path, &error))?;
        let mut older = Vec::new();
        for segment in end.segments.iter().copied() {
            let path = segment_path(dir, segment);
            let open = || -> io::Result<Older> {
                let file = disk.open(&path, OpenMode::Read)?;
                file.sync()?;
                Ok(Older { segment, len: file.len()?, file: None })
            };
            older.push(open().map_err(|error| WorkError::disk(&path, &error))?);
        }
        let segment = end.last + 1;
        let file = create_segment(&*disk, dir, segment)?;
        let bytes = AtomicU64::new(older.iter().map(|older| older.len).sum());
        let state = State {
            segment,
            file,
            len: 0,
            cleared: 0,
            flushes: 0,
            number: 0,
            previous: end.chain,
            failed: None,
            older,
            frame: Vec::new(),
        };
        let start = Position { segment, offset: 0 };
        let journal = Self {
            disk,
            dir: dir.to_owned(),
            keys,
            id,
            state: Mutex::new(state),
            sync_state: Mutex::new(SyncState { synced: start, running: false }),
            synced_changed: Condvar::new(),
            marker,
            bytes,
        };
        journal.mark_synced(start);
        Ok(journal)
    }

    /// Why the journal accepts nothing more, if it failed.
    pub(super) fn failure(&self) -> Option<JournalError> {
        self.state.lock().failed.clone()
    }

    /// Appends one frame with these records; they are in the system's hands when this returns.
    pub(super) fn append(&self, records: &[Record]) -> Result<(FrameRef, Position)> {
        self.append_after(&[], records)
    }

    /// As [`append`](Self::append), with the records of `before` ahead of the others.
    pub(super) fn append_after(&self, before: &[Record], records: &[Record]) -> Result<(FrameRef, Position)> {
        let mut state = self.state.lock();
        let mut frame = std::mem::take(&mut state.frame);
        let appended = self.append_frame(&mut state, (before, records), &mut frame);
        if frame.capacity() <= FRAME_KEPT_MAX {
            state.frame = frame;
        }
        appended
    }

    /// Makes the frame in `frame`, which may hold anything, and writes it.
    fn append_frame(
        &self,
        state: &mut State,
        (before, records): (&[Record], &[Record]),
        frame: &mut Vec<u8>,
    ) -> Result<(FrameRef, Position)> {
        if let Some(failed) = &state.failed {
            return Err(failed.clone().into());
        }
        frame.clear();
        frame.resize(FRAME_HEADER_LEN + SEAL_FRONT_LEN, 0);
        record::encode_onto(before, records, frame);
        if frame.len() + TAG_LEN > FRAME_LEN_MAX {
            return Err(WorkError::TooLarge);
        }
        let identity = identity(&self.id, state.segment, state.number, &state.previous);
        self.keys.seal_in_place(Kind::Journal, &identity, frame, FRAME_HEADER_LEN);
        let (header, sealed) = frame.split_at_mut(FRAME_HEADER_LEN);
        header.copy_from_slice(&u32::try_from(sealed.len()).map_err(|_| WorkError::TooLarge)?.to_le_bytes());
        let tag = tag_of(sealed);
        if let Err(error) = state.file.write_at(frame, state.len) {
            return Err(self.write_failed(state, &error));
        }
        let at = Position { segment: state.segment, offset: state.len };
        let place = FrameRef { at, number: state.number, previous: state.previous };
        state.len += frame.len() as u64;
        self.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        state.number += 1;
        state.previous = tag;
        Ok((place, Position { segment: state.segment, offset: state.len }))
    }

    /// A full disk refuses this one frame, and what was written of it is cut off; anything else ends
    /// writing.
    fn write_failed(&self, state: &mut State, error: &io::Error) -> WorkError {
        let path = segment_path(&self.dir, state.segment);
        if is_full(error) && state.file.set_len(state.len).is_ok() {
            state.cleared = state.len;
            return JournalError::Full { path }.into();
        }
        state.fail(JournalError::Failed { path, reason: error.to_string() }).into()
    }

    /// Where the next frame goes.
    pub(super) fn end(&self) -> Position {
        let state = self.state.lock();
        Position { segment: state.segment, offset: state.len }
    }

    /// How much a sync would have to write; without bound when a segment was begun since the last.
    pub(super) fn unsynced_len(&self) -> u64 {
        let (synced, end) = (self.sync_state.lock().synced, self.end());
        if synced.segment == end.segment { end.offset.saturating_sub(synced.offset) } else { u64::MAX }
    }

    /// Makes everything before `upto` durable. Callers that wait share one flush.
    pub(super) fn sync(&self, upto: Position) -> Result<()> {
        let mut sync = self.sync_state.lock();
        loop {
            if sync.synced >= upto {
                return Ok(());
            }
            if !sync.running {
                break;
            }
            self.synced_changed.wait(&mut sync);
        }
        sync.running = true;
        drop(sync);
        let outcome = self.flush();
        let mut sync = self.sync_state.lock();
        sync.running = false;
        if let Ok(reached) = &outcome {
            sync.synced = sync.synced.max(*reached);
        }
        self.synced_changed.notify_all();
        outcome.map(|_| ())
    }

    fn flush(&self) -> Result<Position> {
        let (file, reached, mut older) = {
            let mut state = self.state.lock();
            if let Some(failed) = &state.failed {
                return Err(failed.clone().into());
            }
            let reached = Position { segment: state.segment, offset: state.len };
            state.clear_ahead();
            (state.file.clone(), reached, state.older.clone())
        };
        let mut unsynced = older.drain(..).filter_map(|older| older.file);
        let outcome = unsynced.try_for_each(|file| file.sync()).and_then(|()| file.sync());
        if let Err(error) = outcome {
            let path = segment_path(&self.dir, reached.segment);
            let failed = JournalError::Failed { path, reason: error.to_string() };
            return Err(self.state.lock().fail(failed).into());
        }
        let is_older = |older: &&mut Older| older.segment < reached.segment;
        self.state.lock().older.iter_mut().filter(is_older).for_each(|older| older.file = None);
        self.mark_synced(reached);
        Ok(reached)
    }

    /// Notes how far the journal is durable. The note itself is not synced: an old one only makes
    /// recovery more trusting of a cut tail.
    fn mark_synced(&self, reached: Position) {
        let plain = [reached.segment.to_le_bytes(), reached.offset.to_le_bytes()].concat();
        let sealed = self.keys.seal(Kind::Local, &[SYNCED_IDENTITY, &self.id].concat(), &plain);
        if let Err(error) = self.marker.write_at(sealed.as_bytes(), 0) {
            tracing::debug!("the mark of the durable journal was not written: {error}");
        }
    }

    /// Begins a new segment; returns its number, and the tag that its first frame is bound to.
    pub(super) fn cut(&self) -> Result<(u64, Tag)> {
        let spare = self.spare()?;
        Ok(self.go_on_in(spare))
    }

    /// Makes the next segment, which takes room that there may not be later. One caller at a time.
    pub(super) fn spare(&self) -> Result<Spare> {
        let state = self.state.lock();
        if let Some(failed) = &state.failed {
            return Err(failed.clone().into());
        }
        let segment = state.segment + 1;
        Ok(Spare { segment, file: create_segment(&*self.disk, &self.dir, segment)? })
    }

    /// Begins a segment that was made; returns as [`cut`](Self::cut) does.
    pub(super) fn go_on_in(&self, Spare { segment, file }: Spare) -> (u64, Tag) {
        let mut state = self.state.lock();
        let file = std::mem::replace(&mut state.file, file);
        if state.cleared > state.len
            && let Err(error) = file.set_len(state.len)
        {
            // Recovery would stop at the zeros: nothing that comes later would count.
            let path = segment_path(&self.dir, state.segment);
            state.fail(JournalError::Failed { path, reason: error.to_string() });
        }
        let older = Older { segment: state.segment, file: Some(file), len: state.len };
        state.older.push(older);
        (state.segment, state.len, state.number) = (segment, 0, 0);
        (state.cleared, state.flushes) = (0, 0);
        (segment, state.previous)
    }

    /// Removes the segments before `first`. What cannot be removed now goes with the next.
    pub(super) fn remove_before(&self, first: u64) -> Result<()> {
        {
            let mut state = self.state.lock();
            state.older.retain(|older| older.segment >= first);
            let bytes = state.len + state.older.iter().map(|older| older.len).sum::<u64>();
            self.bytes.store(bytes, Ordering::Relaxed);
        }
        for segment in segments(&*self.disk, &self.dir)?.into_iter().filter(|segment| *segment < first) {
            let path = segment_path(&self.dir, segment);
            self.disk.remove(&path).map_err(|error| WorkError::disk(&path, &error))?;
        }
        Ok(())
    }

    /// Bytes in all segments.
    pub(super) fn len_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reads one frame again.
    pub(super) fn read(&self, place: &FrameRef) -> Result<Vec<Record>> {
        let path = segment_path(&self.dir, place.at.segment);
        let read = || -> io::Result<Vec<u8>> {
            let file = self.disk.open(&path, OpenMode::Read)?;
            let mut len = [0; 4];
            file.read_at(&mut len, place.at.offset)?;
            let mut sealed = vec![0; (u32::from_le_bytes(len) as usize).min(FRAME_LEN_MAX)];
            let count = file.read_at(&mut sealed, place.at.offset + 4)?;
            sealed.truncate(count);
            Ok(sealed)
        };
        let sealed = read().map_err(|error| WorkError::disk(&path, &error))?;
        let identity = identity(&self.id, place.at.segment, place.number, &place.previous);
        open_frame(&self.keys, &identity, &sealed)
            .ok_or_else(|| JournalError::Altered { path, offset: place.at.offset }.into())
    }
}

impl State {
    /// Ends writing.
    fn fail(&mut self, failed: JournalError) -> JournalError {
        tracing::error!("{failed}");
        self.failed = Some(failed.clone());
        failed
    }

    /// Has zeros stand behind the last frame when the last ones are used up: a frame that is written over them needs
    /// the disk alone, one that makes the file longer its file system's journal too. Recovery takes them for a torn
    /// end.
    fn clear_ahead(&mut self) {
        self.flushes = self.flushes.saturating_add(1);
        if self.flushes >= CLEAR_FLUSHES_MIN && self.cleared < self.len + CLEAR_LEN_MIN {
            self.cleared = self.len + CLEAR_LEN as u64;
            // Without them the next frames make the file longer, or say what is wrong.
            if self.file.write_at(&[0; CLEAR_LEN], self.len).is_err() {
                self.flushes = 0;
                if self.file.set_len(self.len).is_ok() {
                    self.cleared = self.len;
                }
            }
        }
    }
}

fn identity(id: &[u8; 16], segment: u64, number: u64, previous: &Tag) -> Vec<u8> {
    [id.as_slice(), &segment.to_le_bytes(), &number.to_le_bytes(), previous].concat()
}

fn open_frame(keys: &Keys, identity: &[u8], sealed: &[u8]) -> Option<Vec<Record>> {
    let plain = keys.open(Kind::Journal, identity, sealed).ok()?;
    postcard::from_bytes(&plain).ok()
}

fn tag_of(sealed: &[u8]) -> Tag {
    let mut tag = [0; TAG_LEN];
    tag.copy_from_slice(&sealed[sealed.len() - TAG_LEN..]);
    tag
}

fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:016x}"))
}

fn create_segment(disk: &dyn Disk, dir: &Path, segment: u64) -> Result<Arc<dyn DiskFile>> {
    let path = segment_path(dir, segment);
    let file = disk.open(&path, OpenMode::CreateNew).map_err(|error| WorkError::disk(&path, &error))?;
    if let Err(error) = disk.sync_dir(dir) {
        // The number is tried again; the first error is the one to report.
        disk.remove(&path).ok();
        return Err(WorkError::disk(dir, &error));
    }
    Ok(file)
}

/// The numbers of the segments on disk, in order.
pub(super) fn segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>> {
    let items = disk.list(dir).map_err(|error| WorkError::disk(dir, &error))?;
    let mut numbers: Vec<u64> = items
        .iter()
        .filter(|item| item.name.len() == 16)
        .filter_map(|item| u64::from_str_radix(&item.name, 16).ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// What to do about damage that a crash cannot explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDamage {
    Refuse,
    /// Set the damaged rest aside and go on.
    Accept,
}

/// Where replaying begins.
pub(super) struct Start {
    pub(super) first: u64,
    /// The tag that the first frame is bound to.
    pub(super) chain: Tag,
    /// Whether the first segment was durable before anything came to rest on it, so that it cannot be missing.
    pub(super) must_exist: bool,
}

/// Where replaying ended.
pub(super) struct End {
    /// The last segment's number; the one before the first when there is none.
    pub(super) last: u64,
    /// The tag that the next frame is bound to.
    pub(super) chain: Tag,
    /// The segments that were replayed.
    pub(super) segments: Vec<u64>,
}

/// Replays a journal.
pub(super) struct Replay<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) dir: &'a Path,
    pub(super) keys: &'a Keys,
    pub(super) id: &'a [u8; 16],
    pub(super) on_damage: OnDamage,
}

type Each<'a> = dyn FnMut(FrameRef, Vec<Record>) -> Result<()> + 'a;

impl Replay<'_> {
    /// Hands every record to `each`. The torn end that a crash leaves is cut off, and so is all that
    /// does not follow from what stands before it.
    pub(super) fn run(&self, start: &Start, each: &mut Each<'_>) -> Result<End> {
        self.disk.create_dir_all(self.dir).map_err(|error| WorkError::disk(self.dir, &error))?;
        let synced = read_marker(self.disk, self.dir, self.keys, self.id);
        let mut numbers = segments(self.disk, self.dir)?;
        numbers.retain(|number| *number >= start.first);
        let last = numbers.last().copied().unwrap_or(start.first.saturating_sub(1));
        let last_known = if start.must_exist { start.first } else { 0 };
        self.fill_gaps(start.first, last.max(synced.segment).max(last_known), &mut numbers)?;
        let last = numbers.last().copied().unwrap_or(last);
        let mut end = End { last, chain: start.chain, segments: numbers };
        for number in end.segments.iter().copied() {
            let (offset, whole) = self.segment(number, &mut end.chain, each)?;
            let path = segment_path(self.dir, number);
            let altered = number < synced.segment && !whole || number == synced.segment && offset < synced.offset;
            if altered && self.on_damage == OnDamage::Refuse {
                return Err(JournalError::Altered { path, offset }.into());
            }
            if whole {
                continue;
            }
            set_aside(self.disk, &path, offset, altered)?;
            for later in end.segments.iter().copied().filter(|later| *later > number) {
                set_aside(self.disk, &segment_path(self.dir, later), 0, altered)?;
            }
            break;
        }
        Ok(end)
    }

    /// A missing segment is an alarm; when that is accepted, an empty one takes its place.
    fn fill_gaps(&self, first: u64, last: u64, numbers: &mut Vec<u64>) -> Result<()> {
        for number in first..=last {
            let Err(at) = numbers.binary_search(&number) else { continue };
            if self.on_damage == OnDamage::Refuse {
                return Err(JournalError::Missing { path: segment_path(self.dir, number) }.into());
            }
            create_segment(self.disk, self.dir, number)?;
            numbers.insert(at, number);
        }
        Ok(())
    }

    /// Replays one segment; says where the last good frame ends, and whether that is the segment's end.
    fn segment(&self, segment: u64, chain: &mut Tag, each: &mut Each<'_>) -> Result<(u64, bool)> {
        let path = segment_path(self.dir, segment);
        let fail = |error: io::Error| WorkError::disk(&path, &error);
        let file = self.disk.open(&path, OpenMode::Read).map_err(fail)?;
        let frames = Frames { replay: self, file, segment };
        let len = frames.file.len().map_err(fail)?;
        let mut at = FrameRef { at: Position { segment, offset: 0 }, number: 0, previous: *chain };
        let mut void = false;
        while at.at.offset < len {
            let Some((mut records, next)) = frames.read(&at, len).map_err(fail)? else {
                return Ok((at.at.offset, false));
            };
            let begins = records.iter().any(|record| matches!(record, Record::Begin));
            void = void || begins && !frames.commits(&at, len).map_err(fail)?;
            // Others may have added content meanwhile, which counts.
            records.retain(|record| !void || record.is_blob());
            each(at, records)?;
            at = next;
            *chain = at.previous;
        }
        Ok((len, true))
    }
}

/// The frames of one segment.
struct Frames<'a> {
    replay: &'a Replay<'a>,
    file: Arc<dyn DiskFile>,
    segment: u64,
}

impl Frames<'_> {
    /// The records of a frame, and the place of the next one; `None` when it is not whole and as it was written.
    fn read(&self, frame: &FrameRef, len: u64) -> io::Result<Option<(Vec<Record>, FrameRef)>> {
        let offset = frame.at.offset;
        let mut head = [0; 4];
        let head_len = self.file.read_at(&mut head, offset)?;
        let frame_len = u32::from_le_bytes(head) as usize;
        let fits = (SEAL_OVERHEAD..=FRAME_LEN_MAX).contains(&frame_len) && offset + 4 + frame_len as u64 <= len;
        if head_len < 4 || !fits {
            return Ok(None);
        }
        let mut sealed = vec![0; frame_len];
        self.file.read_at(&mut sealed, offset + 4)?;
        let identity = identity(self.replay.id, self.segment, frame.number, &frame.previous);
        let Some(records) = open_frame(self.replay.keys, &identity, &sealed) else { return Ok(None) };
        let at = Position { segment: self.segment, offset: offset + 4 + frame_len as u64 };
        Ok(Some((records, FrameRef { at, number: frame.number + 1, previous: tag_of(&sealed) })))
    }

    /// Whether what begins in this frame is committed. Reads ahead, so that nothing has to be kept until it is known.
    fn commits(&self, begin: &FrameRef, len: u64) -> io::Result<bool> {
        let mut at = *begin;
        while at.at.offset < len {
            let Some((records, next)) = self.read(&at, len)? else { return Ok(false) };
            if records.iter().any(|record| matches!(record, Record::Commit)) {
                return Ok(true);
            }
            at = next;
        }
        Ok(false)
    }
}

/// Cuts a segment at `offset`; an altered one is copied first.
fn set_aside(disk: &dyn Disk, path: &Path, offset: u64, altered: bool) -> Result<()> {
    let work = || -> io::Result<()> {
        let file = disk.open(path, OpenMode::ReadWrite)?;
        if altered {
            let bytes = read_file(disk, path, usize::MAX)?;
            crate::base::disk::replace_file(disk, &path.with_extension("damaged"), &bytes)?;
        }
        file.set_len(offset)?;
        file.sync()
    };
    work().map_err(|error| WorkError::disk(path, &error))
}

fn read_marker(disk: &dyn Disk, dir: &Path, keys: &Keys, id: &[u8; 16]) -> Position {
    let Ok(sealed) = read_file(disk, &dir.join("synced"), 4096) else { return Position::default() };
    match keys.open(Kind::Local, &[SYNCED_IDENTITY, id].concat(), &sealed) {
        Ok(plain) if plain.len() == 16 => {
            let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
            Position { segment: number(&plain[..8]), offset: number(&plain[8..]) }
        }
        _ => Position::default(),
    }
}
