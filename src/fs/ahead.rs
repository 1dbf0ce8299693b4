//! Reading ahead: the kernel asks for 128 or 384 KiB at a time, so whoever reads a file in order, or
//! the files of a directory one after another, is recognized here.

use std::num::NonZeroUsize;
use std::ops::Range;

use lru::LruCache;

use super::Fs;
use super::control::is_outside;
use crate::blob::{BlobKind, ChunkRef};
use crate::version::entry::Ino;
use crate::worktree::{FileKind, Wait};

/// How far ahead of a reader content is fetched.
const WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// It is fetched anew when less than this is left.
const WINDOW_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// Requests that come out of order by less than this are in order: they are answered by several threads.
const SLACK_BYTES: u64 = 1024 * 1024;
/// A reader who has read this much in order goes on.
const RUN_BYTES_MIN: u64 = 128 * 1024;
const READERS_MAX: NonZeroUsize = match NonZeroUsize::new(256) {
    Some(count) => count,
    None => NonZeroUsize::MIN,
};
/// How many files after the present one are fetched, and how much of each.
const SIBLINGS_MAX: usize = 32;
const SIBLING_BYTES_MAX: u64 = 256 * 1024;
/// How many names are looked through for the present file.
const NAMES_MAX: usize = 256;

/// What to fetch ahead of a reader.
#[derive(Debug)]
pub struct Ahead {
    ino: Ino,
    /// Of the file itself.
    range: Option<Range<u64>>,
    /// Whether the files after it in its directory may be next.
    siblings: bool,
}

/// Who reads what.
pub(super) struct ReadAhead {
    files: LruCache<Ino, Reader>,
    dirs: LruCache<Ino, Walker>,
}

/// One file's reader.
#[derive(Clone, Copy, Debug, Default)]
struct Reader {
    /// Where the next request would begin.
    next: u64,
    /// Bytes read in order so far.
    run_bytes: u64,
    /// Up to where content was asked for.
    fetched: u64,
}

/// Someone who reads the files of a directory.
#[derive(Clone, Copy, Debug, Default)]
struct Walker {
    /// The cookie of the file read last.
    cookie: u64,
    /// Up to which cookie content was asked for.
    fetched: u64,
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self { files: LruCache::new(READERS_MAX), dirs: LruCache::new(READERS_MAX) }
    }
}

impl ReadAhead {
    /// Notes a read; says what should be fetched now.
    pub(super) fn note(&mut self, ino: Ino, offset: u64, len: u64) -> Option<Range<u64>> {
        let end = offset.saturating_add(len);
        let reader = self.files.get_or_insert_mut(ino, Reader::default);
        if offset.abs_diff(reader.next) > SLACK_BYTES {
            *reader = Reader { next: end, ..Reader::default() };
            return None;
        }
        reader.next = reader.next.max(end);
        reader.run_bytes = reader.run_bytes.saturating_add(len);
        if reader.run_bytes < RUN_BYTES_MIN || reader.fetched >= reader.next.saturating_add(WINDOW_BYTES_MIN) {
            return None;
        }
        let from = reader.fetched.max(reader.next);
        reader.fetched = reader.next.saturating_add(WINDOW_BYTES);
        Some(from..reader.fetched)
    }
}

impl Fs {
    /// What should be fetched ahead now that `len` bytes are read at `offset`; never waits.
    pub fn ahead_due(&self, ino: Ino, offset: u64, len: usize) -> Option<Ahead> {
        if self.is_near() {
            return None;
        }
        let range = self.ahead.lock().note(ino, offset, len as u64);
        let siblings = offset == 0 && !is_outside(ino);
        (range.is_some() || siblings).then_some(Ahead { ino, range, siblings })
    }

    /// Fetches what a reader will want next. May wait for the store; whatever fails is left to the reader.
    pub fn read_ahead(&self, Ahead { ino, range, siblings }: Ahead) {
        if let Some(range) = range {
            let chunks = if is_outside(ino) {
                self.outside.chunks_ahead(ino, &range)
            } else {
                self.tree().chunks_ahead(ino, range.start, range.end - range.start)
            };
            self.prefetch(chunks);
        }
        if siblings {
            self.siblings_ahead(ino);
        }
    }

    /// Whether all content is on the local disk: fetching it ahead would bring it no nearer.
    pub fn is_near(&self) -> bool {
        self.workspace.blobs().is_local()
    }

    /// Whether a read of this file waits for nothing but the local disk.
    pub fn reads_near(&self, ino: Ino) -> bool {
        self.is_near() && !is_outside(ino)
    }

    fn prefetch(&self, chunks: Vec<ChunkRef>) {
        if !chunks.is_empty() {
            self.workspace.blobs().prefetch(BlobKind::Content, chunks);
        }
    }

    /// When the file read before this one came shortly before it in the directory, the next ones follow.
    fn siblings_ahead(&self, ino: Ino) {
        let Ok(dir) = self.tree().parent(ino, Wait::No) else { return };
        let walker = self.ahead.lock().dirs.get(&dir).copied();
        let Some((cookie, next)) = self.find_after(dir, walker.map_or(0, |walker| walker.cookie), ino) else {
            self.ahead.lock().dirs.pop(&dir);
            return;
        };
        let mut now = Walker { cookie, fetched: walker.map_or(0, |walker| walker.fetched) };
        let last = next.last().map_or(0, |(cookie, _)| *cookie);
        let few_left = next.iter().filter(|(cookie, _)| *cookie <= now.fetched).count() < SIBLINGS_MAX / 2;
        if walker.is_some() && few_left && last > now.fetched {
            let fresh = next.iter().filter(|(cookie, _)| *cookie > now.fetched);
            let chunks = fresh.flat_map(|(_, ino)| self.tree().chunks_ahead(*ino, 0, SIBLING_BYTES_MAX)).collect();
            now.fetched = last;
            self.prefetch(chunks);
        }
        self.ahead.lock().dirs.put(dir, now);
    }

    /// The cookie of a file among the names after `cookie`, and the files that follow it.
    fn find_after(&self, dir: Ino, cookie: u64, ino: Ino) -> Option<(u64, Vec<(u64, Ino)>)> {
        let (mut found, mut seen, mut next) = (None, 0, Vec::new());
        let listed = self.tree().readdir(dir, cookie, false, Wait::No, &mut |item| {
            seen += 1;
            if found.is_some() && item.attr.kind == FileKind::File {
                next.push((item.cookie, item.attr.ino));
            } else if item.attr.ino == ino {
                found = Some(item.cookie);
            }
            next.len() < SIBLINGS_MAX && (found.is_some() || seen < NAMES_MAX)
        });
        listed.ok().and(found).map(|cookie| (cookie, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = 128 * 1024;

    #[test]
    fn a_reader_in_order_is_kept_ahead_of_and_never_fetched_for_twice() {
        let mut ahead = ReadAhead::default();
        let mut fetched = 0;
        for step in 0..400 {
            // Two threads answer, so every other pair comes the wrong way round.
            let step = if step % 4 < 2 { step ^ 1 } else { step };
            if let Some(range) = ahead.note(Ino(9), step * STEP, STEP) {
                assert!(range.start >= fetched && range.end - range.start <= WINDOW_BYTES);
                fetched = range.end;
            }
            assert!(step < 4 || fetched >= (step + 1) * STEP + WINDOW_BYTES_MIN - SLACK_BYTES);
        }
    }

    #[test]
    fn readers_here_and_there_fetch_nothing() {
        let mut ahead = ReadAhead::default();
        assert_eq!(ahead.note(Ino(9), 0, 4096), None, "a look at the beginning is no reader in order");
        for number in 1..100u64 {
            assert_eq!(ahead.note(Ino(9), number * 7919 * 4096 % (1 << 40), 4096), None);
        }
        assert_eq!(ahead.note(Ino(9), u64::MAX - 5, 4096), None);
    }
}
