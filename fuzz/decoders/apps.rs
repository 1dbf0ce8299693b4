//! What people ask for in words, and what applications keep.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use kura::apps::batch::{
    self, BacklogReader, BacklogWriter, Connections, EachValue, FileInfo, FilePath, Glob, Job, KeyValue, PatchOp,
    Processing, Processor, ScanReport, StatusMemory,
};
use kura::apps::profile::{LockFile, check_config};
use kura::apps::sealed::{
    Description, DocumentHead, Header, LOCK_TIMEOUT_MS, Machine, Operation, Settings, ShareIds, SystemProcesses,
    check_object, create_temp_resources, init_file, take_secrets, verify_file,
};
use kura::base::clock::{ManualClock, Timestamp};
use kura::base::disk::{Disk, read_file};
use kura::base::ids::{BlobId, SlotId, VersionId};
use kura::base::sim_disk::SimDisk;
use kura::cli::parse_config;
use kura::crypto::document::RootKey;
use kura::crypto::{Keys, Kind};
use kura::fuse::mountpoint_in;
use kura::store::StoreUrl;
use kura::workspace::is_time;

use super::{Decoder, disk_with, some_workspace};

/// All of them.
pub fn decoders(keys: &Keys) -> Vec<Decoder> {
    [texts(), applications(), documents(), batches(keys)].into_iter().flatten().collect()
}

fn texts() -> Vec<Decoder> {
    let request = br#"{"op": "diff", "from": "latest~1", "to": "latest", "path": "a/b", "patch": true}"#;
    let job_request = br#"{"op": "batch", "job": {"name": "j", "source": {"url": "workspace:/in"},
        "process": {"kind": "replace", "find": "a", "with": "b"}}}"#;
    assert!(kura::control::understands(None, b"", job_request));
    let line = b"--name before -m 'before \"the\" rewrite'\n";
    assert!(kura::control::understands(Some("snapshot"), b"d", line));
    assert!(kura::control::parse_duration_ms("90m").is_ok() && kura::control::parse_size("5GiB").is_ok());
    let mountinfo = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - fuse.kura kura rw,user_id=0,group_id=0";
    assert_eq!(mountpoint_in(mountinfo), Some("/mnt 2".into()));
    let workspace = some_workspace();
    workspace.snapshot(None, Some("before".to_owned())).unwrap();
    assert!(workspace.select("before").is_ok() && is_time("10m ago"));
    let as_text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    vec![
        Decoder::new("request", request, |bytes| {
            kura::control::is_complete(bytes);
            kura::control::understands(None, b"", bytes);
            kura::control::understands(Some("restore"), b"d", bytes);
        }),
        Decoder::new("request-line", line, |bytes| {
            for command in ["snapshot", "restore", "forget", "lock", "batch", "profile"] {
                kura::control::understands(Some(command), b"d", bytes);
            }
        }),
        Decoder::new("job-request", job_request, |bytes| {
            for command in ["batch", "update", "profile", "release", "export", "import"] {
                kura::control::understands(Some(command), b"d", bytes);
            }
            kura::control::understands(None, b"", bytes);
        }),
        Decoder::new("mountinfo", mountinfo, |bytes| {
            bytes.split(|byte| *byte == b'\n').for_each(|line| drop(mountpoint_in(line)));
        }),
        Decoder::new(
            "version-reference",
            "latest~1\n10m ago\n2026-11-21T10:00+01:00\nbefore\nyesterday",
            move |bytes| {
                for line in as_text(bytes).lines() {
                    drop(workspace.select(line));
                    is_time(line);
                }
            },
        ),
        Decoder::new(
            "store-address",
            b"s3://bucket/prefix?region=r&endpoint=http://h:1&path_style=true",
            move |bytes| {
                drop(as_text(bytes).parse::<StoreUrl>());
            },
        ),
        Decoder::new("ids", VersionId(uuid::Uuid::from_bytes([4; 16])).to_string(), move |bytes| {
            let text = as_text(bytes);
            drop(text.parse::<VersionId>());
            drop(text.parse::<BlobId>());
            drop(text.parse::<SlotId>());
            drop(ShareIds::parse(&text));
        }),
        Decoder::new("config", "# words\ncache_size = \"5GiB\"\nfull_wait = 3\n", move |bytes| {
            drop(parse_config(&as_text(bytes)));
        }),
        Decoder::new("quantities", b"90m 5GiB", move |bytes| {
            for word in as_text(bytes).split(' ') {
                drop(kura::control::parse_duration_ms(word));
                drop(kura::control::parse_size(word));
            }
        }),
    ]
}

fn applications() -> Vec<Decoder> {
    let as_text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let job = "name = \"prices\"\n[source]\nurl = \"s3://b/p?region=r\"\n[walk]\ninclude = [\"**/*.csv\"]\n[process]\n\
               kind = \"regex\"\nfind = \"(a|b)*c\"\nwith = \"$1\"\n[run]\nworkers = 8\n";
    let integrity = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let lock = format!(
        r#"{{"lockfileVersion": 1, "profiles": [{{"name": "p", "version": "1", "installed_at": "2026-01-01T00:00:00Z",
        "install_id": "i", "integrity": "{integrity}", "base_index": "b", "files": [{{"path": "a", "mode": 420, "size": 0,
        "integrity": "{integrity}"}}], "sidecars": [], "dirs": ["d"]}}]}}"#
    );
    LockFile::parse(lock.as_bytes()).unwrap();
    Job::parse(job).unwrap();
    let request = br#"{"file": "f", "ids": [3, 17], "password": "p\u00e4", "document": {"a": [1, 2.5e3, null]}}"#;
    let config = br#"{"profilesVersion": 1, "profiles": []}"#;
    check_config(config).unwrap();
    let patch = br#"[{"op": "add", "path": "/a/b~1c", "value": {"d": 1}}, {"op": "remove", "path": "/e"}]"#;
    let patch_of_document =
        br#"[{"op": "copy", "from": "", "path": "/a"}, {"op": "move", "from": "/a/b", "path": "/c"},
        {"op": "replace", "path": "/a", "value": [1]}]"#;
    let connections = "[connections.shop]\nurl = \"sftp://me@host/dir\"\nkey_file = \"/k\"\nunencrypted = false\n";
    Connections::parse(connections).unwrap();
    let header = Header::new(&Settings::default()).unwrap().encode();
    vec![
        Decoder::new("batch-job", job, move |bytes| drop(Job::parse(&as_text(bytes)))),
        Decoder::new("glob", b"**/[a-c]?{x,y*}.csv\0dir/bx.csv", move |bytes| {
            let text = as_text(bytes);
            let (pattern, path) = text.split_once('\0').unwrap_or((&text, "a/b"));
            for glob in [true, false].into_iter().filter_map(|dot| Glob::new(pattern, dot).ok()) {
                glob.matches(path.as_bytes());
                glob.matches_all_below(path.as_bytes());
            }
        }),
        Decoder::new("batch-address", b"sftp://user@host:22/dir%20x", move |bytes| {
            drop(batch::Url::parse(&as_text(bytes)));
            drop(FilePath::new(bytes.to_vec()));
        }),
        Decoder::new("json-patch", patch, |bytes| {
            if let Ok(patch) = serde_json::from_slice(bytes) {
                patched(patch, br#"{"a": {"b/c": [1, {"d": "x"}]}, "e": null}"#);
            }
        }),
        Decoder::new("json-document", "{\n  \"a\": [1, 2.50, \"\\u00e4\"],\n  \"b\": {}\n}\n", move |bytes| {
            patched(serde_json::from_slice(patch_of_document).unwrap(), bytes);
        }),
        Decoder::new("connections", connections, move |bytes| drop(Connections::parse(&as_text(bytes)))),
        Decoder::new("lock-file", lock, |bytes| drop(LockFile::parse(bytes))),
        Decoder::new("profile-config", config, |bytes| drop(check_config(bytes))),
        Decoder::new("sealed-header", header, |bytes| {
            if let Some(bytes) = bytes.first_chunk()
                && let Ok(header) = Header::decode(bytes, "file")
            {
                assert_eq!(&header.encode(), bytes);
                assert!(header.file_len() > 0);
            }
        }),
        Decoder::new("sealed-json", request, |bytes| {
            check_object(bytes).ok();
            drop(take_secrets(bytes));
        }),
    ]
}

/// Applies a patch to a document, as a batch does.
fn patched(patch: Vec<PatchOp>, document: &[u8]) {
    if let Ok(Processor::Whole(apply)) = (Processing::JsonPatch { patch }).prepare() {
        drop(apply(document.to_vec()));
    }
}

/// What lies sealed in a file of documents, and beside one.
fn documents() -> Vec<Decoder> {
    let description = [&[1; 16][..], &3_u16.to_le_bytes(), &5_u16.to_le_bytes(), &[0; 12]].concat();
    assert!(Description::decode(description.first_chunk().unwrap(), 5).is_some());
    let root_key = RootKey::from_bytes(&[3; 32]);
    let head = DocumentHead::new(root_key, 7, Timestamp::from_unix_ns(9), b"{}").encode().to_vec();
    let (file, dir) = (uuid::Uuid::from_bytes([5; 16]), PathBuf::from("/docs/.kura-sealed"));
    let machine = |disk: SimDisk| Machine {
        disk: Arc::new(disk),
        clock: Arc::new(ManualClock::new(Timestamp::from_unix_ns(1))),
        processes: Arc::new(SystemProcesses),
    };
    let take = move |disk: SimDisk| {
        let dir = PathBuf::from("/docs/.kura-sealed");
        create_temp_resources(&machine(disk), &dir, file, Operation::Write, LOCK_TIMEOUT_MS)
    };
    let (disk, lock) = (SimDisk::new(1), dir.join(format!("{file}.lock")));
    let taken = take(disk.clone()).unwrap();
    let record = read_file(&disk, &lock, 1 << 20).unwrap();
    drop(taken);
    let (disk, whole) = (SimDisk::new(1), PathBuf::from("/docs/file"));
    disk.create_dir_all(dir.parent().unwrap()).unwrap();
    init_file(&machine(disk.clone()), &whole, &Settings { slots: 4, capacity: 128, ..Settings::default() }).unwrap();
    let sealed = read_file(&disk, &whole, 4096).unwrap();
    verify_file(&machine(disk), &whole, None).unwrap();
    vec![
        Decoder::new("sealed-file", sealed, move |bytes| {
            drop(verify_file(&machine(disk_with(&whole, bytes)), &whole, None));
        }),
        Decoder::new("sealed-description", description, |bytes| {
            if let Some(bytes) = bytes.first_chunk() {
                assert!(Description::decode(bytes, 5).is_none_or(|found| (2..=5).contains(&found.threshold)));
            }
        }),
        Decoder::new("sealed-document-head", head, |bytes| {
            if let Some(bytes) = bytes.first_chunk()
                && let Some(head) = DocumentHead::decode(bytes, 4096)
            {
                assert!(head.json_len() <= 4096 && *head.encode() == *bytes);
            }
        }),
        Decoder::new("sealed-lock", record, move |bytes| {
            use sha2::Digest;
            let body = &bytes[..bytes.len().min(80)];
            let checked = [body, &sha2::Sha256::digest(body)[..8]].concat();
            drop(take(disk_with(&lock, &checked)));
        }),
    ]
}

/// Answers every name with the same value, sealed for it.
struct OneValue(Keys, Vec<u8>);

impl OneValue {
    fn of(&self, name: &[u8]) -> Vec<u8> {
        self.0.seal(Kind::App, name, &self.1).into_bytes()
    }
}

impl KeyValue for OneValue {
    fn get(&self, names: &[Vec<u8>]) -> batch::Result<Vec<Option<Vec<u8>>>> {
        Ok(names.iter().map(|name| Some(self.of(name))).collect())
    }

    fn write(&self, _: &[(Vec<u8>, Option<Vec<u8>>)]) -> batch::Result<()> {
        Ok(())
    }

    fn flush(&self) -> batch::Result<()> {
        Ok(())
    }

    fn scan(&self, prefix: &[u8], each: &mut EachValue<'_>) -> batch::Result<()> {
        each(prefix, self.of(prefix)).map(drop)
    }
}

/// What batches keep.
fn batches(keys: &Keys) -> Vec<Decoder> {
    let digest = "ab".repeat(32);
    let info = r#"{"path": "dir/file", "size": 3, "modified": {"unix_ns": 5, "step_ns": 1}, "etag": "x"}"#;
    let completed = format!(r#"{{"file": {info}, "sha256": "{digest}", "processed_at": 5, "run": 1}}"#);
    let failed = format!(
        r#"{{"file": {info}, "code": "network", "error": "gone", "timestamp": 5, "retry_count": 1, "run": 1,
        "attempt": {{"before": "{digest}", "after": "{digest}"}}}}"#
    );
    let intent = format!(r#"{{"path": "dir/file", "before": "{digest}", "after": "{digest}"}}"#);
    assert!(serde_json::from_str::<batch::Completed>(&completed).is_ok());
    assert!(serde_json::from_str::<batch::Failed>(&failed).is_ok());
    assert!(serde_json::from_str::<batch::Intent>(&intent).is_ok());
    let scan = ScanReport { run: 1, scanned: 1, skipped: 0, backlogged: 1, bytes: 3, unreadable: 0 };
    let mut list = BacklogWriter::new(Vec::new());
    list.push(&serde_json::from_str(info).unwrap()).unwrap();
    let list = list.finish(scan).unwrap();
    let mut lines = Vec::new();
    MultiGzDecoder::new(&list[..]).read_to_end(&mut lines).unwrap();
    let read = |list: &[u8]| BacklogReader::new(list).for_each(drop);
    let keys = keys.clone();
    vec![
        Decoder::new("batch-backlog", list, read),
        Decoder::new("batch-backlog-lines", lines, move |bytes| {
            let mut list = GzEncoder::new(Vec::new(), Compression::none());
            list.write_all(bytes).unwrap();
            read(&list.finish().unwrap());
        }),
        Decoder::new("batch-status", completed, move |bytes| {
            let memory =
                StatusMemory::new(keys.clone(), b"job".to_vec(), Box::new(OneValue(keys.clone(), bytes.to_vec())));
            let path = FilePath::new(b"dir/file".to_vec()).unwrap();
            let file = FileInfo { path: path.clone(), size: 3, modified: None, etag: None, is_dir: false };
            drop(memory.needs_processing(vec![file]));
            drop(memory.recall(&path));
            drop(memory.failures(&mut |_| Ok(true)));
        }),
        Decoder::new("batch-failure", failed, |bytes| drop(serde_json::from_slice::<batch::Failed>(bytes))),
        Decoder::new("batch-intent", intent, |bytes| drop(serde_json::from_slice::<batch::Intent>(bytes))),
    ]
}
