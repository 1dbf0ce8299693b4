//! What people name and browsers ask for, and what stores, systems and files show.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kura::apps::batch::{Connections, Job};
use kura::apps::sealed::{
    Credentials, Damage, Image, Machine, Memory, NewAccess, NewIds, Settings, ShareIds, SystemProcesses, create_file,
    decrypt_and_extract, open_document, read_header, verify_file,
};
use kura::base::clock::{ManualClock, Timestamp};
use kura::base::disk::{Disk, read_file};
use kura::base::sim_disk::SimDisk;
use kura::cli::{compare_texts, known_documents, page_understands};
use kura::control::understands;
use kura::crypto::sharing::Field;
use kura::crypto::slots::{Credential, KdfParams, NewSlot, Secret};
use kura::fuse::mountpoints_in;
use kura::store::{MemoryStore, ObjectKey, StoreUrl};
use kura::workspace::{InitOptions, KeySlots, OpenOptions, Workspace, is_time};

use super::liar::Liar;
use super::{Decoder, disk_with, some_workspace};

/// All of them.
pub fn decoders() -> Vec<Decoder> {
    vec![
        version_reference(),
        job_request(),
        mountinfo(),
        connections(),
        known_listing(),
        sealed_file(),
        known_file(),
        page(),
        texts(),
    ]
}

fn as_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Texts that select a version, one a line. Nothing is written to the workspace.
fn version_reference() -> Decoder {
    let workspace = some_workspace();
    workspace.snapshot(Some("message".to_owned()), Some("tag".to_owned())).unwrap();
    let id = workspace.select("tag").unwrap().to_string();
    let known =
        ["latest", "latest~1", "tag", &id, &id[..30], "2200-01-01T10:00Z", "2200-01-01 10:00:00.5 +01:00", "0s ago"];
    known.iter().for_each(|text| assert!(workspace.select(text).is_ok(), "{text}"));
    let sample = [&known[..], &["10m ago", "2h ago", "yesterday", "2026-11-21T10:00"]].concat().join("\n");
    Decoder::checked("version-reference", sample, move |bytes| {
        let text = as_text(bytes);
        let found = text.split('\n').filter(|line| is_time(line) | workspace.select(line).is_ok());
        found.count() > 0
    })
}

/// Requests that name jobs, understood as far as the work that would be done.
fn job_request() -> Decoder {
    let batch = r#"{"op": "batch", "action": "run", "job": {"name": "prices", "source": {"url": "workspace:/in"},
        "process": {"kind": "regex", "find": "(a|b)*c", "with": "$1"}, "run": {"workers": 2}}}"#;
    let others = [
        r#"{"op": "update", "file": "f", "ids": [3, 17], "password": "p", "document": {"a": 1}}"#,
        r#"{"op": "profile", "do": "plan", "name": "tools", "from_workspace": "/profiles"}"#,
        r#"{"op": "release", "do": "install", "packages": ["tool@1.2.0"], "force": true}"#,
        r#"{"op": "check", "read_data": "5%"}"#,
        r#"{"op": "export", "version": "latest", "paths": ["a"], "to": "/out"}"#,
    ];
    others.iter().for_each(|text| assert!(understands(None, b"", text.as_bytes()), "{text}"));
    Decoder::checked("job-request", batch, |bytes| {
        for command in ["batch", "update", "profile", "release", "check", "export", "import"] {
            understands(Some(command), b"d", bytes);
        }
        understands(None, b"", bytes)
    })
}

/// The system's list of mounts.
fn mountinfo() -> Decoder {
    let list =
        b"36 35 0:45 / /mnt/with\\040space rw,noatime shared:1 - fuse.kura kura rw,user_id=0\n1 2 0:3 / / rw - ext4";
    Decoder::checked("mountinfo", &list[..], |bytes| {
        let found = mountpoints_in(bytes);
        assert!(found.iter().all(|path| path.as_os_str().len() <= bytes.len()));
        !found.is_empty()
    })
}

/// The file of connections, and what a job's source means by it.
fn connections() -> Decoder {
    let job = |path: &str| {
        let job = format!("name = \"j\"\nsource = {{connection = \"c\"{path}}}\nprocess = {{kind = \"none\"}}\n");
        Job::parse(&job).unwrap().source
    };
    let sources = [job(""), job(", path = \"a/../b\""), job(", path = \"/a b/\"")];
    let file = "allow_commands = true\n[connections.c]\nurl = \"sftp://user@host:22/dir\"\n\
                password_command = [\"pass\", \"show\"]\nknown_hosts = \"/hosts\"\n";
    Decoder::checked("connections", file, move |bytes| {
        let Ok(found) = Connections::parse(&as_text(bytes)) else { return false };
        sources.iter().filter(|source| found.resolve(source).is_ok()).count() == 2
    })
}

/// What a line says of an object: its name and, behind a space, its length.
fn listed(line: &str) -> Option<(ObjectKey, u64)> {
    let (name, len) = line.split_once(' ').unwrap_or((line, "5"));
    Some((ObjectKey::new(name)?, len.parse().unwrap_or(u64::MAX)))
}

/// The names and lengths that a store lists while no key is known.
fn known_listing() -> Decoder {
    let inner = Arc::new(MemoryStore::new());
    let key_file = || Credential::KeyFile(Secret::new(vec![7; 32]));
    let slots = vec![NewSlot { label: "label".to_owned(), credential: key_file() }];
    let init = InitOptions { kdf: KdfParams::minimum(), recovery_code: false, ..InitOptions::new(slots) };
    Workspace::init_in(&*inner, init).unwrap();
    let (url, dir) = (StoreUrl::Dir("/store".into()), Path::new("/local"));
    let credential = Box::new(move || Ok(key_file()));
    let mut options = OpenOptions::new(url, dir.join("state"), dir.join("cache"), credential);
    options.disk = Arc::new(SimDisk::new(1));
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let sample = format!("k\nkeys\nkeys/x 9\nHEAD\nepochs/00\nepochs/x/1\nother/keys/{id} 7\nkeys/{id} 100");
    Decoder::checked("known-listing", sample, move |bytes| {
        let listed = as_text(bytes).lines().filter_map(listed).collect();
        let store = Liar { inner: inner.clone(), listed, object: bytes.to_vec() };
        KeySlots::open_in(Arc::new(store), &options).is_ok_and(|slots| slots.list().is_ok_and(|found| found.len() > 1))
    })
}

/// A whole file of sealed documents, of which one is opened with the key that its password gave before.
fn sealed_file() -> Decoder {
    let (path, ids) = (PathBuf::from("/docs/file"), ShareIds::new(&[1, 2, 4]).unwrap());
    let machine = |disk: &SimDisk| Machine {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(ManualClock::new(Timestamp::from_unix_ns(1))),
        processes: Arc::new(SystemProcesses),
    };
    let password = || Secret::from_text("words".to_owned());
    let settings = Settings { field: Field::Gf256, slots: 4, capacity: 300, kdf: KdfParams::minimum() };
    let access = NewAccess { password: password(), ids: NewIds::Chosen(ids.clone()), threshold: 2 };
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/docs")).unwrap();
    create_file(&machine(&disk), &path, &settings, &access, br#"{"a": [1, 2]}"#).unwrap();
    let sample = read_file(&disk, &path, 1 << 20).unwrap();
    // The key lives as long as the program.
    let image = Image::open(Box::leak(Box::new(Memory::new(sample.clone()))), "file").unwrap();
    let credentials = Credentials { password: password(), ids: ids.clone() };
    let extracted = decrypt_and_extract(Box::leak(Box::new(image)), &credentials, Damage::Refuse).unwrap();
    let key = Box::leak(Box::new(extracted)).key();
    Decoder::checked("sealed-file", sample, move |bytes| {
        let machine = machine(&disk_with(&path, bytes));
        let has_header = read_header(&machine, &path).is_ok();
        let is_whole = verify_file(&machine, &path, None).is_ok();
        let memory = Memory::new(bytes.to_vec());
        let Ok(image) = Image::open(&memory, "file") else { return false };
        let opens = |damage| open_document(&image, &ids, key, damage).is_ok_and(|opened| opened.json().is_ok());
        opens(Damage::Accept) & opens(Damage::Refuse) & has_header & is_whole
    })
}

/// The file of the documents that are known to be in a file of sealed documents.
fn known_file() -> Decoder {
    Decoder::checked("sealed-known", "3,17,40 correct horse battery\r\n\n1,2 bä\n", |bytes| {
        known_documents(bytes, &"file").is_ok_and(|known| !known.is_empty())
    })
}

/// What the page of `kura web` asks for, each on a line.
fn page() -> Decoder {
    let asked = [
        "/api/file?version=latest&hex=612fff&max=5&download=true",
        r#"{"before": {"version": "latest~1", "path": "a"}, "after": null, "context": 3}"#,
        r#"{"last": 3, "daily": 7}"#,
    ];
    Decoder::checked("page-request", asked.join("\n"), move |bytes| {
        bytes.split(|byte| *byte == b'\n').filter(|line| page_understands(line)).count() == asked.len()
    })
}

/// How many unchanged lines are shown, and two texts, each behind a NUL.
fn texts() -> Decoder {
    Decoder::checked("text-comparison", "\u{1}\0a\nb\nc\nd\ne\0a\nx\nc\nd\ne\nf", |bytes| {
        let mut parts = bytes.splitn(3, |byte| *byte == 0);
        let (Some([context]), Some(old), Some(new)) = (parts.next(), parts.next(), parts.next()) else { return false };
        let found = serde_json::to_value(compare_texts(old, new, usize::from(*context))).unwrap();
        let rows = |tag: &str| found["rows"].as_array().unwrap().iter().filter(|row| row["tag"] == tag).count();
        let (removed, added) = (rows("-") + rows("~"), rows("+") + rows("~"));
        assert!(found["truncated"] == true || found["removed"] == removed && found["added"] == added, "{found}");
        found["same"] == (old == new) && removed + added > 0
    })
}
