//! The memory of what was processed: one suite for all places where it is kept.

use std::io::{Read, Write};

use kura::apps::batch::{
    Attempt, Completed, DiskKeyValue, Failed, FileInfo, FilePath, KeyValue, MemoryKeyValue, Modified, RedisKeyValue,
    StatusMemory, read_answer,
};
use kura::base::clock::Timestamp;
use kura::base::disk::Disk;
use kura::base::ids::Sha256;
use kura::base::sim_disk::{Crash, Keep, SimDisk};
use zeroize::Zeroizing;

use super::rig::Rig;
use super::servers;

fn file(path: &str, unix_ns: i64, step_ns: i64) -> FileInfo {
    let modified = Some(Modified { unix_ns, step_ns });
    FileInfo { path: FilePath::new(path).unwrap(), size: 7, modified, etag: None, is_dir: false }
}

fn memory(rig: &Rig, store: Box<dyn KeyValue>) -> StatusMemory {
    StatusMemory::new(rig.setup.keys.clone(), b"job".to_vec(), store)
}

fn done(file: FileInfo) -> Completed {
    Completed { file, sha256: Sha256([1; 32]), processed_at: Timestamp::from_unix_ns(5), run: 1 }
}

fn failed(file: FileInfo) -> Failed {
    let attempt = Some(Attempt { before: Sha256([2; 32]), after: Sha256([3; 32]) });
    let (code, error) = ("network".to_owned(), "it broke".to_owned());
    Failed { file, code, error, timestamp: Timestamp::from_unix_ns(6), retry_count: 0, run: 1, attempt }
}

/// What every memory has to do.
fn suite(rig: &Rig, open: &dyn Fn() -> Box<dyn KeyValue>) {
    let status = memory(rig, open());
    let (a, b) = (file("d/a", 10, 1), file("d/b", 20, 1));
    assert_eq!(status.needs_processing(vec![a.clone(), b.clone()]).unwrap(), [a.clone(), b.clone()]);
    assert!(status.needs_processing(Vec::new()).unwrap().is_empty());
    status.report_done(&done(a.clone())).unwrap();
    assert_eq!(status.needs_processing(vec![a.clone(), b.clone()]).unwrap(), vec![b.clone()]);
    status.report_error(failed(b.clone())).unwrap();
    status.report_error(failed(b.clone())).unwrap();
    let known = status.recall(&b.path).unwrap().failed.unwrap();
    assert_eq!((known.retry_count, known.attempt.is_some()), (2, true));
    status.flush().unwrap();
    drop(status);
    let status = memory(rig, open());
    let mut found = Vec::new();
    let mut each = |failed: Failed| {
        found.push((failed.file.path.to_string(), failed.retry_count));
        Ok(true)
    };
    status.failures(&mut each).unwrap();
    assert_eq!(found, [("d/b".to_owned(), 2)]);
    status.report_done(&done(b.clone())).unwrap();
    status.failures(&mut |_| panic!("it was done since")).unwrap();
    assert!(status.needs_processing(vec![a, b]).unwrap().is_empty());
    for number in 0..2000 {
        status.report_error(failed(file(&format!("many/{number}"), 1, 1))).unwrap();
    }
    let mut count = 0;
    status
        .failures(&mut |_| {
            count += 1;
            Ok(count < 1500)
        })
        .unwrap();
    assert_eq!(count, 1500, "ended when it was told to");
    // Another job in the same place sees nothing of it.
    drop(status);
    let path = FilePath::new("d/a").unwrap();
    let other = StatusMemory::new(rig.setup.keys.clone(), b"other".to_vec(), open());
    assert!(other.recall(&path).unwrap().completed.is_none());
    drop(other);
    assert!(memory(rig, open()).recall(&path).unwrap().completed.is_some());
}

/// A store that outlives those who opened it.
struct Shared(std::sync::Arc<MemoryKeyValue>);

impl KeyValue for Shared {
    fn get(&self, keys: &[Vec<u8>]) -> kura::apps::batch::Result<Vec<Option<Vec<u8>>>> {
        self.0.get(keys)
    }
    fn write(&self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> kura::apps::batch::Result<()> {
        self.0.write(changes)
    }
    fn flush(&self) -> kura::apps::batch::Result<()> {
        self.0.flush()
    }
    fn scan(&self, prefix: &[u8], each: &mut kura::apps::batch::EachValue<'_>) -> kura::apps::batch::Result<()> {
        self.0.scan(prefix, each)
    }
}

#[test]
fn in_memory() {
    let store = std::sync::Arc::new(MemoryKeyValue::default());
    suite(&Rig::new(), &|| Box::new(Shared(store.clone())));
}

#[test]
fn on_the_disk_sealed() {
    let rig = Rig::new();
    let path = rig.dir.path().join("status");
    suite(&rig, &|| Box::new(DiskKeyValue::open(&*rig.setup.disk, &path).unwrap()));
    let bytes = std::fs::read(&path).unwrap();
    for readable in [&b"many/"[..], b"it broke", b"network", b"retry_count"] {
        assert!(!bytes.windows(readable.len()).any(|part| part == readable));
    }
    let held = DiskKeyValue::open(&*rig.setup.disk, &path).unwrap();
    assert!(DiskKeyValue::open(&*rig.setup.disk, &path).is_err(), "one at a time");
    drop(held);
    std::fs::write(&path, b"something else altogether, and long enough to be looked at".repeat(200)).unwrap();
    assert!(DiskKeyValue::open(&*rig.setup.disk, &path).is_err());
}

#[test]
fn a_memory_that_was_cut_off_at_any_moment_opens_again() {
    let path = std::path::Path::new("/state/status");
    let work = |disk: &SimDisk, flushed: &mut u8| -> kura::apps::batch::Result<()> {
        let store = DiskKeyValue::open(disk, path)?;
        while *flushed < 3 {
            store.write(&[(vec![*flushed], Some(vec![*flushed; 100]))])?;
            store.flush()?;
            *flushed += 1;
        }
        Ok(())
    };
    for crash in [Crash::Kill, Crash::PowerCut { keep: Keep::None }, Crash::PowerCut { keep: Keep::Seeded }] {
        for step in 1.. {
            let disk = SimDisk::new(step);
            disk.create_dir_all(path.parent().unwrap()).unwrap();
            disk.sync_dir(std::path::Path::new("/")).unwrap();
            disk.crash_at(disk.steps() + step);
            let mut flushed = 0;
            let outcome = work(&disk, &mut flushed);
            if !disk.has_crashed() {
                outcome.unwrap();
                assert!(step > 5, "it was cut off before");
                break;
            }
            let store = DiskKeyValue::open(&disk.reopen(crash), path);
            let store = store.unwrap_or_else(|error| panic!("{crash:?} at step {step}: {error}"));
            for number in 0..flushed {
                let found = store.get(&[vec![number]]).unwrap();
                assert_eq!(found, [Some(vec![number; 100])], "{crash:?} at step {step}");
            }
        }
    }
}

#[test]
fn in_redis_sealed() {
    let rig = Rig::new();
    let server = servers::redis();
    let url = format!("redis://127.0.0.1:{}/1", server.port);
    let password = || Some(Zeroizing::new("secret-of-redis".to_owned()));
    suite(&rig, &|| Box::new(RedisKeyValue::open(&url, password()).unwrap()));
    let wrong =
        RedisKeyValue::open(&url, Some(Zeroizing::new("hunter2-is-not-it".to_owned()))).err().unwrap().to_string();
    assert!(!wrong.contains("hunter2"), "{wrong}");
    assert!(RedisKeyValue::open(&url, None).is_err());
    let mut keys = Vec::new();
    let store = RedisKeyValue::open(&url, password()).unwrap();
    store
        .scan(b"", &mut |key, value| {
            keys.push((key.to_vec(), value));
            Ok(true)
        })
        .unwrap();
    assert!(keys.len() >= 2000);
    assert!(
        keys.iter()
            .all(|(key, value)| !contains(key, b"many") && !contains(value, b"many") && !contains(value, b"code"))
    );
    drop(server);
    assert!(store.get(&[b"x".to_vec()]).is_err());
}

/// A server that answers each request with the next of these.
fn answering(answers: &[&'static [u8]]) -> RedisKeyValue {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/0", listener.local_addr().unwrap());
    let answers = [&[b"+OK\r\n".as_slice(), b"+PONG\r\n"], answers].concat();
    std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        for answer in answers {
            let asked = stream.read(&mut [0; 65536]).unwrap_or(0);
            if asked == 0 || stream.write_all(answer).is_err() {
                return;
            }
        }
    });
    RedisKeyValue::open(&url, None).unwrap()
}

#[test]
fn a_redis_server_that_answers_nonsense_is_an_error() {
    let strange: [&[&[u8]]; 3] = [
        // A name that is not ours, and shorter than what ours begin with.
        &[b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nx\r\n", b"*1\r\n$1\r\nv\r\n"],
        &[b"*2\r\n$1\r\n0\r\n$1\r\nx\r\n"],
        &[b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"],
    ];
    for answers in strange {
        let error = answering(answers).scan(b"error:", &mut |_, _| Ok(true)).unwrap_err().to_string();
        assert!(error.contains("redis://127.0.0.1"), "{error}");
    }
}

#[test]
fn a_redis_server_that_stands_still_while_it_names_what_it_holds_is_left() {
    let still = b"*2\r\n$1\r\n7\r\n*0\r\n";
    let error = answering(&[still, still]).scan(b"error:", &mut |_, _| Ok(true)).unwrap_err().to_string();
    assert!(error.contains("does not get on"), "{error}");
}

#[test]
fn an_answer_of_a_redis_server_takes_memory_within_bounds() {
    let value = [b"$1048576\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    let mut count = 0;
    let values = std::iter::repeat_with(|| {
        count += 1;
        &value[..]
    });
    let list = [b"*65536\r\n".as_slice()].into_iter().chain(values);
    let answer = read_answer(&mut std::io::BufReader::new(Parts { rest: b"", parts: list }));
    assert!(matches!(&answer, Err(reason) if reason == "the answer is too long"), "{}", answer.is_ok());
    assert!(count < 70, "{count} MiB were taken");
}

/// What several parts hold, one after the other.
struct Parts<'a, I> {
    rest: &'a [u8],
    parts: I,
}

impl<'a, I: Iterator<Item = &'a [u8]>> Read for Parts<'a, I> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.parts.next().unwrap_or_default();
        }
        self.rest.read(buffer)
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|found| found == part)
}

#[test]
fn times_are_compared_as_finely_as_both_are_known() {
    let rig = Rig::new();
    let status = memory(&rig, Box::new(MemoryKeyValue::default()));
    let second = 1_000_000_000;
    status.report_done(&done(file("a", 5 * second + 123, 1))).unwrap();
    let needed = |file: FileInfo| !status.needs_processing(vec![file]).unwrap().is_empty();
    assert!(!needed(file("a", 5 * second, second)), "a server of seconds says the same");
    assert!(!needed(file("a", 0, 60 * second)), "and one of minutes");
    assert!(needed(file("a", 6 * second, second)));
    assert!(needed(file("a", 5 * second + 124, 1)));
    let without = |mut file: FileInfo| {
        file.modified = None;
        file
    };
    assert!(needed(without(file("a", 0, 1))), "only the content can tell");
    let mut tagged = file("b", 1, 1);
    tagged.etag = Some("x".to_owned());
    status.report_done(&done(tagged.clone())).unwrap();
    tagged.modified = None;
    assert!(!needed(tagged.clone()), "a tag decides");
    tagged.etag = Some("y".to_owned());
    tagged.modified = Some(Modified { unix_ns: 1, step_ns: 1 });
    assert!(needed(tagged));
}
