//! The log of requests that `.kura/access-log` shows: in memory, bounded, and kept only while somebody reads it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde_json::json;

use super::control::time_name;
use crate::base::clock::{Clock, SystemClock};
use crate::version::entry::Ino;

/// Most bytes that are kept for readers that are slow; older lines go.
const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most readers at once, each of which may keep a thread waiting.
const READERS_MAX: usize = 4;
/// A reader is told after this time that nothing happened.
const IDLE: Duration = Duration::from_secs(1);

/// Who asked for what, and how it ended.
pub struct Access {
    /// The kind of request.
    pub operation: String,
    /// The inode, or that of the directory which a name was in.
    pub ino: Ino,
    /// The path, where paths are shown.
    pub path: Option<String>,
    /// The thread that asked; 0 for the kernel.
    pub tid: u32,
    /// `ok`, or the name of the error number.
    pub result: String,
    /// From the request to its answer.
    pub took: Duration,
}

/// The log.
#[derive(Default)]
pub struct AccessLog {
    readers: AtomicUsize,
    shows_paths: AtomicBool,
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    /// Number of the first line kept.
    first: u64,
    kept: VecDeque<String>,
    bytes: usize,
}

/// One reader of the log; it reads what happens from when it began.
pub(super) struct AccessReader {
    log: Arc<AccessLog>,
    /// Number of the next line.
    next: u64,
    /// What of the last lines was not read yet.
    rest: Vec<u8>,
}

impl AccessLog {
    /// From now on lines hold paths.
    pub fn show_paths(&self) {
        self.shows_paths.store(true, Ordering::Relaxed);
    }

    /// Whether lines hold paths.
    pub fn shows_paths(&self) -> bool {
        self.shows_paths.load(Ordering::Relaxed)
    }

    /// Whether anybody reads.
    pub fn is_read(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0
    }

    /// Adds a line.
    pub fn note(&self, access: &Access) {
        let line = json!({
            "time": time_name(SystemClock.now()), "op": access.operation, "inode": access.ino.0, "path": access.path,
            "tid": access.tid, "result": access.result, "seconds": access.took.as_secs_f64(),
        })
        .to_string();
        let mut lines = self.lines.lock();
        lines.bytes += line.len();
        lines.kept.push_back(line);
        while lines.bytes > KEPT_BYTES_MAX {
            let Some(oldest) = lines.kept.pop_front() else { break };
            lines.bytes -= oldest.len();
            lines.first += 1;
        }
        self.more.notify_all();
    }

    /// A new reader; `None` when there are too many.
    pub(super) fn reader(self: &Arc<Self>) -> Option<AccessReader> {
        let more = |count| (count < READERS_MAX).then_some(count + 1);
        self.readers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        let lines = self.lines.lock();
        Some(AccessReader { log: self.clone(), next: lines.first + lines.kept.len() as u64, rest: Vec::new() })
    }
}

impl AccessReader {
    /// The next bytes, at most `len`. When nothing happens, waits and says so; `None` when it would have to wait and
    /// may not.
    pub(super) fn read(&mut self, len: usize, may_wait: bool) -> Option<Vec<u8>> {
        if self.rest.is_empty() {
            let log = self.log.clone();
            let mut lines = log.lines.lock();
            if lines.end() == self.next {
                if !may_wait {
                    return None;
                }
                log.more.wait_for(&mut lines, IDLE);
            }
            self.take(&lines, len);
        }
        let end = self.rest.len().min(len);
        Some(self.rest.drain(..end).collect())
    }

    fn take(&mut self, lines: &Lines, len: usize) {
        if lines.end() == self.next {
            self.say(&json!({ "time": time_name(SystemClock.now()), "op": "idle" }).to_string());
        }
        if self.next < lines.first {
            self.say(&json!({ "op": "lost", "count": lines.first - self.next }).to_string());
            self.next = lines.first;
        }
        let skipped = usize::try_from(self.next - lines.first).unwrap_or(usize::MAX);
        for line in lines.kept.iter().skip(skipped) {
            if self.rest.len() >= len {
                break;
            }
            self.say(line);
            self.next += 1;
        }
    }

    fn say(&mut self, line: &str) {
        self.rest.extend_from_slice(line.as_bytes());
        self.rest.push(b'\n');
    }
}

impl Drop for AccessReader {
    /// What is kept goes with the last reader.
    fn drop(&mut self) {
        let mut lines = self.log.lines.lock();
        if self.log.readers.fetch_sub(1, Ordering::SeqCst) == 1 {
            let first = lines.end();
            *lines = Lines { first, ..Lines::default() };
        }
    }
}

impl Lines {
    /// Number of the line that comes next.
    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(path: Option<String>) -> Access {
        let took = Duration::from_millis(2);
        Access { operation: "read".into(), ino: Ino(7), path, tid: 9, result: "EIO".into(), took }
    }

    fn lines(bytes: &[u8]) -> Vec<serde_json::Value> {
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    #[test]
    fn every_reader_gets_every_line_since_it_began_and_nothing_is_kept_for_nobody() {
        let log = Arc::new(AccessLog::default());
        assert!(!log.is_read());
        let mut one = log.reader().unwrap();
        log.note(&access(None));
        let mut two = log.reader().unwrap();
        log.note(&access(Some("/a".into())));
        let (of_one, of_two) = (lines(&one.read(4096, false).unwrap()), lines(&two.read(4096, false).unwrap()));
        assert_eq!((of_one.len(), of_two.len()), (2, 1));
        assert_eq!((&of_one[0]["result"], &of_one[0]["seconds"]), (&json!("EIO"), &json!(0.002)));
        assert_eq!((&of_one[0]["path"], &of_two[0]["path"]), (&json!(null), &json!("/a")));
        assert!(one.read(4096, false).is_none());
        assert_eq!(lines(&one.read(4096, true).unwrap())[0]["op"], "idle");
        let more: Vec<_> = (0..READERS_MAX).map_while(|_| log.reader()).collect();
        assert_eq!(more.len(), READERS_MAX - 2);
        log.note(&access(None));
        drop((more, one, two));
        assert!(!log.is_read() && log.lines.lock().kept.is_empty());
        assert!(log.reader().unwrap().read(10, false).is_none());
    }

    #[test]
    fn a_slow_reader_is_told_what_it_lost_and_memory_is_bounded() {
        let log = Arc::new(AccessLog::default());
        let mut reader = log.reader().unwrap();
        let count = 2 * KEPT_BYTES_MAX / 10_000;
        (0..count).for_each(|_| log.note(&access(Some("x".repeat(10_000)))));
        assert!(log.lines.lock().bytes <= KEPT_BYTES_MAX);
        let mut read = Vec::new();
        while let Some(bytes) = reader.read(1000, false) {
            assert!(bytes.len() <= 1000);
            read.extend(bytes);
        }
        let lines = lines(&read);
        assert_eq!(lines[0]["op"], "lost");
        assert_eq!(lines[0]["count"].as_u64().unwrap() + lines.len() as u64 - 1, count as u64);
    }
}
