//! What clients write down for themselves in their state directories, and about locks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kura::apps::batch::Journal;
use kura::base::clock::{ManualClock, Timestamp};
use kura::base::disk::{Disk, read_file};
use kura::base::ids::RunId;
use kura::base::sim_disk::SimDisk;
use kura::blob::{Blobs, BlobsConfig, Outbox, RunRef};
use kura::cli::MountRecord;
use kura::control::{Dispatcher, JobState, Reply};
use kura::crypto::{Keys, Kind};
use kura::store::{MemoryStore, ObjectStore, PutCondition};
use kura::sync::{ClientMemory, LeaseParts, Leases, Term};
use kura::version::entry::{Body, Ino};
use kura::version::index::Counts;
use kura::version::tree::TreeRef;
use kura::workspace::decode_pins;
use kura::worktree::{
    Base, Caller, Changes, Limits, NewNode, Queued, RenameMode, Wait, WorkError, Worktree, WorktreeParts, XattrMode,
};

use super::{Decoder, Renewed, disk_with, some_base};

/// All of them.
pub fn decoders(keys: &Keys, base: &Base) -> Vec<Decoder> {
    [
        local_files(keys, base),
        client_memories(keys),
        vec![journal(keys), journal_marker(keys)],
        locks(keys),
        remembered(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn local_files(keys: &Keys, base: &Base) -> Vec<Decoder> {
    let dir = PathBuf::from("/local");
    let queued = Queued { record: base.index.clone(), refs: base.refs, runs: base.runs.clone(), objects: Vec::new() };
    let seal = |keys: &Keys, identity: &[u8], bytes: &[u8]| keys.seal(Kind::Local, identity, bytes).into_bytes();
    let (k1, k2, k3) = (keys.clone(), keys.clone(), keys.clone());
    let (d1, d2, d3) = (dir.clone(), Queued::dir(&dir), dir.join("journal"));
    let digest = "ab".repeat(32);
    let intents = ["dir/file", "dir/other"]
        .map(|path| format!(r#"{{"path": "{path}", "before": "{digest}", "after": "{digest}"}}"#))
        .join("\n");
    vec![
        Decoder::checked("base", postcard::to_stdvec(base).unwrap(), move |bytes| {
            let disk = disk_with(&Base::path(&d1), &seal(&k1, b"base", bytes));
            Base::read(&disk, &d1, &k1).is_ok_and(|base| base.is_some())
        }),
        Decoder::checked("queue-entry", postcard::to_stdvec(&queued).unwrap(), move |bytes| {
            let identity = [b"queue".as_slice(), &1_u64.to_le_bytes()].concat();
            let disk = disk_with(&d2.join(format!("{:016x}", 1)), &seal(&k2, &identity, bytes));
            Queued::read(&disk, &d2, 1, &k2).is_ok()
        }),
        Decoder::checked("batch-journal", intents, move |bytes| {
            let (disk, mut count) = (disk_with(&d3, &batch_frames(&k3, bytes)), 0);
            let read = Journal::left(&disk, &d3, &k3, &mut |_| {
                count += 1;
                Ok(())
            });
            read.is_ok() && count > 0
        }),
    ]
}

/// What a client remembers of the store.
fn client_memories(keys: &Keys) -> Vec<Decoder> {
    let (keys, dir) = (keys.clone(), PathBuf::from("/local"));
    let disk = SimDisk::new(1);
    disk.create_dir_all(&dir).unwrap();
    let (memory, _) = ClientMemory::open(Arc::new(disk.clone()), &dir, keys.clone(), None).unwrap();
    memory.settle_collection(4).unwrap();
    memory.keep_unsettled_runs(&[RunRef { id: RunId(uuid::Uuid::from_bytes([5; 16])), count: 1 }]).unwrap();
    let of = |name: &'static str, file: &'static str, is_known: fn(&ClientMemory) -> bool| {
        let (keys, path) = (keys.clone(), dir.join(file));
        let sample = keys.open(Kind::Local, file.as_bytes(), &read_file(&disk, &path, 1 << 20).unwrap()).unwrap();
        Decoder::checked(name, sample, move |bytes| {
            let disk = disk_with(&path, keys.seal(Kind::Local, file.as_bytes(), bytes).as_bytes());
            let memory = ClientMemory::open(Arc::new(disk), path.parent().unwrap(), keys.clone(), None);
            memory.is_ok_and(|(memory, _)| is_known(&memory))
        })
    };
    vec![
        of("client-memory", "client", |_| true),
        of("refs-memory", "refs", |memory| memory.collection().is_some()),
        of("unsettled-runs", "unsettled", |memory| memory.unsettled_runs().is_ok_and(|runs| !runs.is_empty())),
    ]
}

/// The journal of a batch in which each line is a frame.
fn batch_frames(keys: &Keys, lines: &[u8]) -> Vec<u8> {
    let id = [7; 16];
    let mut file = id.to_vec();
    for (line, number) in lines.split(|byte| *byte == b'\n').zip(0_u64..) {
        let identity = [&b"batch journal\0"[..], &id, &number.to_le_bytes()].concat();
        let sealed = keys.seal(Kind::App, &identity, line);
        file.extend((sealed.len() as u32).to_le_bytes());
        file.extend(sealed.as_bytes());
    }
    // Half of one, as a crash leaves it.
    file.extend([40, 0, 0, 0, 1]);
    file
}

/// A live tree in `/local`, on a workspace in which nothing is.
fn tree_on(disk: &SimDisk, keys: &Keys, base: &Base) -> Result<Worktree, WorkError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let outbox = Arc::new(Outbox::open(disk.clone(), PathBuf::from("/local/outbox"))?);
    let (store, memory_limit_bytes) = (Arc::new(MemoryStore::new()), 1 << 20);
    let blobs = BlobsConfig { store, keys: keys.clone(), outbox: outbox.clone(), cache: None, memory_limit_bytes };
    let parts = WorktreeParts {
        disk,
        dir: PathBuf::from("/local"),
        keys: keys.clone(),
        blobs: Arc::new(Blobs::new(blobs)),
        outbox,
        clock: Arc::new(ManualClock::new(Timestamp::from_unix_ns(1))),
        author: base.index.author.clone(),
        limits: Limits::default(),
        read_only: false,
    };
    Worktree::recover(parts, || Ok(base.clone()), false)
}

/// The base of a workspace in which nothing is.
fn empty_base() -> Base {
    let mut base = some_base();
    let empty = Body::Directory { names: TreeRef::default(), subdirs: 0 };
    (base.index.root.dir.body, base.index.counts) = (empty, Counts::default());
    (base.runs, base.refs) = (Vec::new(), TreeRef::default());
    Base { first_segment: 1, journal_chain: [0; 16], queue_sequence: 0, next_ino: 0, ..base }
}

/// What a frame of the journal is bound to: the journal, the segment, its place in it, and the frame before.
fn journal_identity(base: &Base, number: u64, previous: &[u8]) -> Vec<u8> {
    [&base.journal_id[..], &1_u64.to_le_bytes(), &number.to_le_bytes(), previous].concat()
}

/// What a tree writes to its journal while all kinds of things are done, as one list of records.
fn some_records(keys: &Keys, base: &Base) -> Vec<u8> {
    const TAG_LEN: usize = 16;
    let disk = SimDisk::new(1);
    let (tree, me, root) = (tree_on(&disk, keys, base).unwrap(), Caller { uid: 0, gid: 0 }, Ino::ROOT);
    let dir = tree.make(root, b"dir", &NewNode::Directory, 0o755, me, false, Wait::Yes).unwrap().ino;
    let file = tree.make(dir, b"file", &NewNode::File, 0o644, me, true, Wait::Yes).unwrap().ino;
    tree.write(file, 0, b"some bytes", 0, Wait::Yes).unwrap();
    tree.fsync(file, Wait::Yes).unwrap();
    tree.write(file, 4, b"more", 0, Wait::Yes).unwrap();
    tree.fallocate(file, 6, 100, true, false, 0, Wait::Yes).unwrap();
    tree.log(file, Wait::Yes).unwrap();
    tree.release(file, true);
    tree.link(file, root, b"link", Wait::Yes).unwrap();
    tree.setxattr(file, b"user.name", b"value", XattrMode::Set, Wait::Yes).unwrap();
    tree.absorb_all().unwrap();
    tree.rename((dir, b"file"), (root, b"renamed"), RenameMode::Replace, Wait::Yes).unwrap();
    let changes = Changes { size: Some(7), mode: Some(0o600), ..Changes::default() };
    tree.setattr(file, &changes, 0, Wait::Yes).unwrap();
    tree.unlink(root, b"link", Wait::Yes).unwrap();
    tree.rmdir(root, b"dir", Wait::Yes).unwrap();
    let segment = read_file(&disk, Path::new("/local/journal/0000000000000001"), 1 << 20).unwrap();
    let (mut rest, mut previous, mut count, mut records) = (&segment[..], [0; TAG_LEN].to_vec(), 0, Vec::new());
    for number in 0.. {
        let Some((len, behind)) = rest.split_first_chunk() else { break };
        let (sealed, behind) = behind.split_at(u32::from_le_bytes(*len) as usize);
        let plain = keys.open(Kind::Journal, &journal_identity(base, number, &previous), sealed).unwrap();
        (rest, previous) = (behind, sealed[sealed.len() - TAG_LEN..].to_vec());
        // Few records are in a frame: their number is one byte.
        count += plain[0];
        records.extend_from_slice(&plain[1..]);
    }
    assert!((10..0x80).contains(&count));
    records.insert(0, count);
    records
}

fn journal(keys: &Keys) -> Decoder {
    let (keys, base) = (keys.clone(), empty_base());
    let sample = some_records(&keys, &base);
    Decoder::checked("journal", sample, move |bytes| {
        let sealed = keys.seal(Kind::Journal, &journal_identity(&base, 0, &[0; 16]), bytes);
        let frame = [&(sealed.len() as u32).to_le_bytes()[..], sealed.as_bytes()].concat();
        let disk = disk_with(Path::new("/local/journal/0000000000000001"), &frame);
        // What was renamed last is there.
        tree_on(&disk, &keys, &base).is_ok_and(|tree| tree.lookup(Ino::ROOT, b"renamed", Wait::Yes).is_ok())
    })
}

/// What clients write about locks: in the store, and each for itself.
fn locks(keys: &Keys) -> Vec<Decoder> {
    let dir = PathBuf::from("/local");
    let tree = Arc::new(tree_on(&SimDisk::new(1), keys, &empty_base()).unwrap());
    let open = {
        let (keys, dir) = (keys.clone(), dir.clone());
        move |store: &Arc<MemoryStore>, disk: SimDisk| {
            disk.create_dir_all(&dir).unwrap();
            let disk: Arc<dyn Disk> = Arc::new(disk);
            let (memory, _) = ClientMemory::open(disk.clone(), &dir, keys.clone(), None).unwrap();
            let parts = LeaseParts {
                store: store.clone(),
                keys: keys.clone(),
                tree: tree.clone(),
                disk,
                dir: dir.clone(),
                clock: Arc::new(ManualClock::new(Timestamp::from_unix_ns(1))),
                memory: Arc::new(memory),
                host: "host".to_owned(),
                user: "user".to_owned(),
                conditional_writes: true,
            };
            Leases::open(parts, |_| ())
        }
    };
    let (store, disk) = (Arc::new(MemoryStore::new()), SimDisk::new(1));
    let leases = open(&store, disk.clone()).unwrap();
    leases.acquire(b"a/path", Term::Kept, false).unwrap();
    let mut names = Vec::new();
    store.list("", &mut |info| names.push(info.key)).unwrap();
    let name = names.remove(0);
    let lease = keys.open(Kind::Lease, name.as_str().as_bytes(), &store.get(&name).unwrap().bytes).unwrap();
    let held = read_file(&disk, &dir.join("leases"), 1 << 20).unwrap();
    let held = keys.open(Kind::Local, b"leases", &held).unwrap();
    let (k1, k2, open_here) = (keys.clone(), keys.clone(), open.clone());
    vec![
        Decoder::checked("lease", lease, move |bytes| {
            let store = Arc::new(MemoryStore::new());
            let sealed = k1.seal(Kind::Lease, name.as_str().as_bytes(), bytes);
            store.put(&name, &sealed, PutCondition::Always).unwrap();
            let leases = open(&store, SimDisk::new(1)).unwrap();
            leases.refresh().is_ok() && !leases.list().is_empty()
        }),
        Decoder::checked("held-locks", held, move |bytes| {
            let disk = disk_with(&dir.join("leases"), k2.seal(Kind::Local, b"leases", bytes).as_bytes());
            open_here(&Arc::new(MemoryStore::new()), disk).is_ok()
        }),
    ]
}

/// How far the journal is known to be durable.
fn journal_marker(keys: &Keys) -> Decoder {
    let (keys, base) = (keys.clone(), empty_base());
    Decoder::checked("journal-marker", [1_u64.to_le_bytes(), 0_u64.to_le_bytes()].concat(), move |bytes| {
        let identity = [b"journal/synced".as_slice(), &base.journal_id].concat();
        let sealed = keys.seal(Kind::Local, &identity, bytes);
        // The journal that it tells of is not there; what is not understood tells of none.
        tree_on(&disk_with(Path::new("/local/journal/synced"), sealed.as_bytes()), &keys, &base).is_err()
    })
}

/// What a mount remembers from one time to the next.
fn remembered() -> Vec<Decoder> {
    let (of_jobs, of_ids) = (Renewed::new(), Renewed::new());
    let ask = move |known: &[u8]| {
        let workspace = of_ids.workspace();
        workspace.records("control").write("ids", known).unwrap();
        let door = Dispatcher::new(workspace, || ()).unwrap();
        let said = door.answer(None, b"", br#"{"op": "revert", "version": "none", "id": "a"}"#).bytes;
        String::from_utf8(said).unwrap().contains("was that of another request")
    };
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let reply = r#"{"ok": true, "code": "ok", "exit": 0, "message": "done", "data": {"n": 1}}"#;
    let batch = r#"{"name": "prices", "source": {"url": "workspace:/in"}, "process": {"kind": "gzip"}}"#;
    let job = format!(
        r#"{{"id": "{id}", "op": "batch", "request": {{"job": {batch}}}, "state": "running",
        "submitted": "2026-01-01T00:00:00Z", "started": null, "finished": null,
        "progress": {{"done": 1, "total": 2, "what": "files"}}, "log": ["a line"], "result": {reply}}}"#
    );
    let ids =
        format!(r#"[{{"id": "a", "asked": "00", "reply": {reply}}}, {{"id": "b", "asked": "11", "reply": null}}]"#);
    let mount = r#"{"workspace": "w", "store": "/store", "mountpoint": "/mnt", "pid": 7}"#;
    vec![
        Decoder::checked("job-record", job, move |bytes| {
            let workspace = of_jobs.workspace();
            workspace.records("jobs").write(id, bytes).unwrap();
            let found = Dispatcher::new(workspace, || ()).unwrap();
            // What ran is begun anew, but by nobody here.
            found.answer(None, b"", br#"{"op": "jobs"}"#);
            found.jobs().all().iter().any(|job| job.state == JobState::Queued)
        }),
        Decoder::checked("request-ids", ids, ask),
        Decoder::checked("pins", [&[2, 1][..], b"a", &[3], b"b/c"].concat(), |bytes| decode_pins(bytes).is_some()),
        Decoder::checked("mount-reply", reply, |bytes| serde_json::from_slice::<Reply>(bytes).is_ok()),
        Decoder::checked("mount-record", mount, |bytes| serde_json::from_slice::<MountRecord>(bytes).is_ok()),
    ]
}
