//! What people ask for in words, and what applications keep.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use kura::apps::batch::{
    self, BacklogReader, BacklogWriter, EachValue, FileInfo, FilePath, Glob, Job, KeyValue, PatchOp, Processing,
    Processor, ScanReport, StatusMemory,
};
use kura::apps::profile::{LockFile, check_config};
use kura::apps::sealed::{
    Description, DocumentHead, Header, LOCK_TIMEOUT_MS, Machine, Operation, ProcessMark, Processes, SealedError,
    Settings, ShareIds, SystemProcesses, check_object, create_temp_resources, take_secrets,
};
use kura::base::clock::{ManualClock, Timestamp};
use kura::base::disk::read_file;
use kura::base::ids::{BlobId, SlotId, VersionId};
use kura::base::sim_disk::SimDisk;
use kura::cli::parse_config;
use kura::crypto::document::RootKey;
use kura::crypto::{Keys, Kind};
use kura::store::StoreUrl;
use serde_json::Value;

use sha2::Digest;

use super::{Decoder, disk_with};

/// All of them.
pub fn decoders(keys: &Keys) -> Vec<Decoder> {
    [texts(), applications(), documents(), batches(keys)].into_iter().flatten().collect()
}

fn texts() -> Vec<Decoder> {
    let request = br#"{"op": "diff", "from": "latest~1", "to": "latest", "path": "a/b", "patch": true}"#;
    let as_text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    vec![
        Decoder::checked("request", request, |bytes| {
            kura::control::is_complete(bytes);
            kura::control::understands(Some("restore"), b"d", bytes);
            kura::control::understands(None, b"", bytes)
        }),
        Decoder::checked("request-line", b"--name before -m 'before \"the\" rewrite'\n", |bytes| {
            ["snapshot", "restore", "forget", "lock", "batch", "profile"]
                .map(|command| kura::control::understands(Some(command), b"d", bytes))
                .contains(&true)
        }),
        Decoder::checked(
            "store-address",
            b"s3://bucket/prefix?region=r&endpoint=http://h:1&path_style=true",
            move |bytes| as_text(bytes).parse::<StoreUrl>().is_ok(),
        ),
        Decoder::checked("ids", VersionId(uuid::Uuid::from_bytes([4; 16])).to_string(), move |bytes| {
            let text = as_text(bytes);
            let is_version = text.parse::<VersionId>().is_ok();
            drop(text.parse::<BlobId>());
            drop(text.parse::<SlotId>());
            drop(ShareIds::parse(&text));
            is_version
        }),
        Decoder::checked("config", "# words\ncache_size = \"5GiB\"\nfull_wait = 3\n", move |bytes| {
            parse_config(&as_text(bytes)).is_ok()
        }),
        Decoder::checked("quantities", b"90m 5GiB", move |bytes| {
            let (mut durations, mut sizes) = (0, 0);
            for word in as_text(bytes).split(' ') {
                durations += u32::from(kura::control::parse_duration_ms(word).is_ok());
                sizes += u32::from(kura::control::parse_size(word).is_ok());
            }
            durations > 0 && sizes > 0
        }),
    ]
}

fn applications() -> Vec<Decoder> {
    let as_text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let job = "name = \"prices\"\n[source]\nurl = \"s3://b/p?region=r\"\n[walk]\ninclude = [\"**/*.csv\"]\n[process]\n\
               kind = \"regex\"\nfind = \"(a|b)*c\"\nwith = \"$1\"\n[run]\nworkers = 8\n";
    let integrity = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let lock = format!(
        r#"{{"lockfileVersion": 1, "profiles": [{{"name": "tools", "version": "1.0",
        "installed_at": "2026-01-01T00:00:00Z", "install_id": "01890a5d-ac96-774b-bcce-b302099a8057",
        "integrity": "{integrity}", "commit": "c0ffee", "place": {{"workspace": "profiles"}},
        "base_index": "01890a5d-ac96-774b-bcce-b302099a8057", "files": [{{"path": "bin/tool", "mode": 493, "size": 3,
        "integrity": "{integrity}", "adopted": true}}], "sidecars": [{{"path": "a.new", "for": "a",
        "integrity": "{integrity}"}}], "dirs": ["bin"]}}]}}"#
    );
    let request = br#"{"file": "f", "ids": [3, 17], "password": "p\u00e4", "document": {"a": [1, 2.5e3, null]}}"#;
    let config = br#"{"profilesVersion": 1, "profiles": [{"name": "tools", "provider_id": "us"}]}"#;
    let patch = br#"[{"op": "add", "path": "/a/b~1c", "value": {"d": 1}}, {"op": "remove", "path": "/e"}]"#;
    let patch_of_document =
        br#"[{"op": "copy", "from": "", "path": "/a/copy"}, {"op": "move", "from": "/a/b", "path": "/c"},
        {"op": "replace", "path": "/a", "value": [1]}]"#;
    let header = Header::new(&Settings::default()).unwrap().encode();
    vec![
        Decoder::checked("batch-job", job, move |bytes| Job::parse(&as_text(bytes)).is_ok()),
        Decoder::checked("glob", b"**/[a-c]?{x,y*}.csv\0dir/bzx.csv", move |bytes| {
            let text = as_text(bytes);
            let (pattern, path) = text.split_once('\0').unwrap_or((&text, "a/b"));
            let matches = |dot| {
                Glob::new(pattern, dot).is_ok_and(|glob| {
                    glob.matches_all_below(path.as_bytes());
                    glob.matches(path.as_bytes())
                })
            };
            matches(true) & matches(false)
        }),
        Decoder::checked("batch-address", b"sftp://user@host:22/dir%20x", move |bytes| {
            drop(FilePath::new(bytes.to_vec()));
            batch::Url::parse(&as_text(bytes)).is_ok()
        }),
        Decoder::checked("json-patch", patch, |bytes| {
            let document = br#"{"a": {"b/c": [1, 2.50, {"d": null}]}, "e": "text", "f": []}"#;
            serde_json::from_slice(bytes).is_ok_and(|patch| patched(patch, document))
        }),
        Decoder::checked("json-document", "{\n  \"a\": {\"b\": [1, 2.50, \"\\u00e4\"]}\n}\n", move |bytes| {
            patched(serde_json::from_slice(patch_of_document).unwrap(), bytes)
        }),
        Decoder::checked("lock-file", lock, |bytes| LockFile::parse(bytes).is_ok()),
        Decoder::checked("profile-config", config, |bytes| check_config(bytes).is_ok()),
        Decoder::checked("sealed-header", header, |bytes| {
            let Some(bytes) = bytes.first_chunk() else { return false };
            let Ok(header) = Header::decode(bytes, "file") else { return false };
            assert_eq!(&header.encode(), bytes);
            header.file_len() > 0
        }),
        Decoder::checked("sealed-json", request, |bytes| check_object(bytes).is_ok() & take_secrets(bytes).is_ok()),
    ]
}

/// Applies a patch to a document, as a batch does.
fn patched(patch: Vec<PatchOp>, document: &[u8]) -> bool {
    let Ok(Processor::Whole(apply)) = (Processing::JsonPatch { patch }).prepare() else { return false };
    let Ok(made) = apply(document.to_vec()) else { return false };
    serde_json::from_slice::<Value>(&made).is_ok()
}

/// Processes that all live, and are others than this one.
struct Others;

impl Processes for Others {
    fn me(&self) -> ProcessMark {
        ProcessMark { pid: 1, start_ticks: 1, boot: [1; 16] }
    }

    fn is_alive(&self, _: &ProcessMark) -> bool {
        true
    }
}

/// What lies sealed in a file of documents, and beside one.
fn documents() -> Vec<Decoder> {
    const LOCK_CHECKSUM_LEN: usize = 8;
    let description = [&[1; 16][..], &3_u16.to_le_bytes(), &5_u16.to_le_bytes(), &[0; 12]].concat();
    let root_key = RootKey::from_bytes(&[3; 32]);
    let head = DocumentHead::new(root_key, 7, Timestamp::from_unix_ns(9), b"{}").encode().to_vec();
    let (file, dir) = (uuid::Uuid::from_bytes([5; 16]), PathBuf::from("/docs/.kura-sealed"));
    let take = move |disk: SimDisk, processes: Arc<dyn Processes>| {
        let (dir, clock) = (PathBuf::from("/docs/.kura-sealed"), ManualClock::new(Timestamp::from_unix_ns(1)));
        let machine = Machine { disk: Arc::new(disk), clock: Arc::new(clock), processes };
        create_temp_resources(&machine, &dir, file, Operation::Write, LOCK_TIMEOUT_MS)
    };
    let (disk, lock) = (SimDisk::new(1), dir.join(format!("{file}.lock")));
    let taken = take(disk.clone(), Arc::new(SystemProcesses)).unwrap();
    let record = read_file(&disk, &lock, 1 << 20).unwrap();
    drop(taken);
    let body = record[..record.len() - LOCK_CHECKSUM_LEN].to_vec();
    vec![
        Decoder::checked("sealed-description", description, |bytes| {
            let found = bytes.first_chunk().and_then(|bytes| Description::decode(bytes, 5));
            assert!(found.is_none_or(|found| (2..=5).contains(&found.threshold)));
            found.is_some()
        }),
        Decoder::checked("sealed-document-head", head, |bytes| {
            let Some(bytes) = bytes.first_chunk() else { return false };
            let Some(head) = DocumentHead::decode(bytes, 4096) else { return false };
            assert!(head.json_len() <= 4096 && *head.encode() == *bytes);
            true
        }),
        Decoder::checked("sealed-lock", body, move |bytes| {
            let checksum = sha2::Sha256::digest(bytes);
            let record = [bytes, &checksum[..LOCK_CHECKSUM_LEN]].concat();
            matches!(take(disk_with(&lock, &record), Arc::new(Others)), Err(SealedError::Locked { .. }))
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
    let scan = ScanReport { run: 1, scanned: 1, skipped: 0, backlogged: 1, bytes: 3, unreadable: 0 };
    let mut list = BacklogWriter::new(Vec::new());
    list.push(&serde_json::from_str(info).unwrap()).unwrap();
    let list = list.finish(scan).unwrap();
    let mut lines = Vec::new();
    MultiGzDecoder::new(&list[..]).read_to_end(&mut lines).unwrap();
    let read = |list: &[u8]| BacklogReader::new(list).fold(true, |is_whole, found| is_whole & found.is_ok());
    let keys = keys.clone();
    vec![
        Decoder::checked("batch-backlog", list, read),
        Decoder::checked("batch-backlog-lines", lines, move |bytes| {
            let mut list = GzEncoder::new(Vec::new(), Compression::none());
            list.write_all(bytes).unwrap();
            read(&list.finish().unwrap())
        }),
        Decoder::checked("batch-status", completed, move |bytes| {
            let memory =
                StatusMemory::new(keys.clone(), b"job".to_vec(), Box::new(OneValue(keys.clone(), bytes.to_vec())));
            let path = FilePath::new(b"dir/file".to_vec()).unwrap();
            let file = FileInfo { path: path.clone(), size: 3, modified: None, etag: None, is_dir: false };
            drop(memory.recall(&path));
            drop(memory.failures(&mut |_| Ok(true)));
            memory.needs_processing(vec![file]).is_ok()
        }),
        Decoder::checked("batch-failure", failed, |bytes| serde_json::from_slice::<batch::Failed>(bytes).is_ok()),
        Decoder::checked("batch-intent", intent, |bytes| serde_json::from_slice::<batch::Intent>(bytes).is_ok()),
    ]
}
