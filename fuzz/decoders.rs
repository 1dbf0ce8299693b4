//! Every decoder of bytes that come from a store, a disk, a network or a user, with what it understands.
//!
//! Two programs use this table: the tests of the main package, which replay the corpora and try random changes of
//! them, and `main.rs`, which searches for new ways through a decoder. What is sealed is sealed again after it was
//! altered: what somebody with the keys, or a mistake of ours, could write.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kura::apps::batch::{self, FilePath, Glob, Job, Journal, PatchOp};
use kura::apps::profile::{LockFile, check_manifest};
use kura::apps::release::{Anchor, Channel, Package, check_proposal};
use kura::apps::sealed::{Header, Settings, ShareIds, check_object, take_secrets};
use kura::base::clock::{ManualClock, Timestamp};
use kura::base::disk::{Disk, read_file, replace_file};
use kura::base::ids::{BlobId, PackId, RunId, SlotId, VersionId, WorkspaceId};
use kura::base::sim_disk::SimDisk;
use kura::blob::{
    BlobKind, Blobs, BlobsConfig, ChunkRef, Location, Outbox, PackBuilder, Place, RunRef, codec, location, pack, run,
};
use kura::crypto::slots::{
    Capabilities, Credential, KdfParams, NewSlot, RecoveryCode, Secret, create_workspace, read_header, slot_facts,
    unlock,
};
use kura::crypto::{Keys, Kind, envelope_epoch};
use kura::store::{MemoryStore, ObjectKey, ObjectStore, PutCondition, StoreUrl};
use kura::sync::{ClientMemory, Condemned, LeaseParts, Leases, Name, Term};
use kura::version::entry::{Body, Entry, Ino, LinkRecord};
use kura::version::head::{CollectionState, Head};
use kura::version::index::{Counts, IndexRecord};
use kura::version::tree::{PageIo, TreeRef};
use kura::workspace::{InitOptions, OpenOptions, Workspace};
use kura::worktree::{
    Base, Caller, Changes, Limits, NewNode, Queued, RenameMode, Wait, WorkError, Worktree, WorktreeParts, XattrMode,
};

/// Decodes bytes, whatever they are, and does not panic.
type Decode = dyn Fn(&[u8]);

/// One decoder.
pub struct Decoder {
    /// The name of its corpus.
    pub name: &'static str,
    /// Bytes that it understands.
    pub sample: Vec<u8>,
    decode: Box<Decode>,
}

impl Decoder {
    fn new(name: &'static str, sample: impl Into<Vec<u8>>, decode: impl Fn(&[u8]) + 'static) -> Self {
        Self { name, sample: sample.into(), decode: Box::new(decode) }
    }

    /// Decodes bytes; what they mean does not matter, only that this returns.
    pub fn run(&self, bytes: &[u8]) {
        (self.decode)(bytes);
    }
}

/// All of them.
pub fn decoders() -> Vec<Decoder> {
    let keys = Keys::ephemeral(WorkspaceId::random());
    let base = some_base();
    [
        key_objects(),
        objects(&keys),
        records(&keys, &base),
        pages(),
        local_files(&keys, &base),
        vec![journal(&keys)],
        locks(&keys),
        texts(),
        applications(),
        releases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn key_objects() -> Vec<Decoder> {
    let secret = || Credential::KeyFile(Secret::new(vec![7; 32]));
    let new = create_workspace(
        Timestamp::from_unix_ns(1),
        Capabilities { conditional_writes: true },
        &[NewSlot { label: "label".to_owned(), credential: secret() }],
        KdfParams::minimum(),
    )
    .unwrap();
    let header = new.header.as_bytes().to_vec();
    let (slot, record) = new.slots.into_iter().next().unwrap();
    let (record, epoch) = (record.into_bytes(), new.epoch0.into_bytes());
    let checked = |mut bytes: Vec<u8>| {
        use sha2::Digest;
        let checksum = sha2::Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    };
    let (known_header, known_slot) = (header.clone(), record.clone());
    let code = RecoveryCode::generate().to_text().as_bytes().to_vec();
    vec![
        Decoder::new("header", header, |bytes| drop(read_header(bytes))),
        Decoder::new("slot", record.clone(), move |bytes| drop(slot_facts(slot, bytes))),
        Decoder::new("slot-checked", &record[..record.len() - 32], move |bytes| {
            drop(slot_facts(slot, &checked(bytes.to_vec())));
        }),
        Decoder::new("epoch-checked", &epoch[..epoch.len() - 32], move |bytes| {
            let epochs = [(0, checked(bytes.to_vec()))];
            let slots: [(SlotId, Vec<u8>); 1] = [(slot, known_slot.clone())];
            drop(unlock(&known_header, &slots, &epochs, &secret()));
        }),
        Decoder::new("recovery-code", code, |bytes| drop(RecoveryCode::parse(&Secret::new(bytes.to_vec())))),
    ]
}

/// Bytes that look random and are always the same.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// What a frame of a chunk is bound to.
fn frame_identity(chunk: &ChunkRef, number: u32) -> Vec<u8> {
    let count = chunk.frame_count().to_le_bytes();
    [&chunk.id.as_bytes()[..], &number.to_le_bytes(), &count, &u64::from(chunk.len).to_le_bytes()].concat()
}

fn objects(keys: &Keys) -> Vec<Decoder> {
    let plaintext = noise(200_000);
    let chunk = ChunkRef::of(keys, BlobKind::Content, &plaintext);
    let stored = codec::encode(keys, BlobKind::Content, chunk.id, &plaintext);
    let pack_id = PackId(uuid::Uuid::from_bytes([6; 16]));
    let short = |len: u16| ChunkRef { id: BlobId([1; 32]), len: u32::from(len) };
    let text = b"a text, a text, a text that can be compressed, a text".repeat(9);
    let packed = codec::encode(keys, BlobKind::Content, short(text.len() as u16).id, &text);
    let packed = keys.open(Kind::Content, &frame_identity(&short(text.len() as u16), 0), packed.as_bytes()).unwrap();
    let table = [120_000_u32, 80_000].iter().flat_map(|len| len.to_le_bytes()).collect::<Vec<u8>>();
    let mut builder = PackBuilder::new(keys.clone());
    builder.add(chunk.id, BlobKind::Content, chunk.len, &stored);
    let sealed_pack = builder.finish();
    let (k1, k2, k3, k4, k5, k6) = (keys.clone(), keys.clone(), keys.clone(), keys.clone(), keys.clone(), keys.clone());
    vec![
        Decoder::new("envelope", keys.seal(Kind::App, b"i", b"text").into_bytes(), move |bytes| {
            drop(k1.open(Kind::App, b"i", bytes));
            envelope_epoch(bytes);
        }),
        Decoder::new("blob", stored.into_bytes(), move |bytes| {
            drop(codec::decode(&k2, BlobKind::Content, &chunk, bytes));
            drop(codec::frame_layout(&k2, BlobKind::Content, &chunk, bytes, 300_000));
        }),
        Decoder::new("frame", [&(text.len() as u16).to_le_bytes()[..], &packed].concat(), move |bytes| {
            let Some((len, frame)) = bytes.split_first_chunk() else { return };
            let chunk = short(u16::from_le_bytes(*len));
            let sealed = k3.seal(Kind::Content, &frame_identity(&chunk, 0), frame);
            drop(codec::decode(&k3, BlobKind::Content, &chunk, sealed.as_bytes()));
        }),
        Decoder::new("frame-table", table, move |bytes| {
            let table = k4.seal(Kind::Content, &frame_identity(&chunk, u32::MAX), bytes);
            if let Ok(layout) = codec::frame_layout(&k4, BlobKind::Content, &chunk, table.as_bytes(), 300_000) {
                assert!((0..4).all(|number| layout.span(number, number).is_none_or(|(start, _)| start >= 36)));
            }
            drop(codec::decode(&k4, BlobKind::Content, &chunk, table.as_bytes()));
        }),
        Decoder::new("pack", sealed_pack.1.into_bytes(), move |bytes| {
            drop(pack::read_directory(&k5, sealed_pack.0, bytes));
        }),
        Decoder::new("pack-directory", [&9_u64.to_le_bytes()[..], &[0; 80]].concat(), move |bytes| {
            let Some((trailer, directory)) = bytes.split_at_checked(8) else { return };
            let mut tail = k6.seal(Kind::PackDirectory, pack_id.as_bytes(), directory).into_bytes();
            let end = [pack_id.as_bytes().as_slice(), b"end"].concat();
            tail.extend(k6.seal(Kind::PackDirectory, &end, trailer).as_bytes());
            drop(pack::directory_tail_len(&k6, pack_id, &tail));
            drop(pack::read_directory(&k6, pack_id, &tail));
        }),
    ]
}

/// A workspace's state after something was written: what records are made from.
fn some_base() -> Base {
    let (memory, dir) = (Arc::new(MemoryStore::new()), PathBuf::from("/local"));
    let passphrase = || Credential::Passphrase(Secret::from_text("words".to_owned()));
    let slots = vec![NewSlot { label: "label".to_owned(), credential: passphrase() }];
    let init = InitOptions { kdf: KdfParams::minimum(), recovery_code: false, ..InitOptions::new(slots) };
    Workspace::init_in(&*memory, init).unwrap();
    let credential = Box::new(move || Ok(passphrase()));
    let mut options =
        OpenOptions::new(StoreUrl::Dir("/store".into()), dir.join("state"), dir.join("cache"), credential);
    options.disk = Arc::new(SimDisk::new(1));
    let workspace = Workspace::open_in(memory, options).unwrap();
    let (tree, me) = (workspace.tree(), Caller { uid: 0, gid: 0 });
    let root = kura::version::entry::Ino::ROOT;
    let file = tree.make(root, b"file", &NewNode::File, 0o644, me, true, Wait::Yes).unwrap().ino;
    tree.write(file, 0, &noise(5000), 0, Wait::Yes).unwrap();
    tree.release(file, true);
    workspace.snapshot(Some("message".to_owned()), Some("tag".to_owned())).unwrap();
    tree.base()
}

fn records(keys: &Keys, base: &Base) -> Vec<Decoder> {
    let (id, version) = (RunId(uuid::Uuid::from_bytes([5; 16])), VersionId(uuid::Uuid::from_bytes([4; 16])));
    let location = Location {
        place: Place::Pack { pack: PackId(uuid::Uuid::from_bytes([6; 16])), offset: 9 },
        stored_len: 200,
        len: 300,
        kind: BlobKind::Content,
    };
    let run_ref = RunRef { id, count: 1 };
    let run_identity = [id.as_bytes().as_slice(), &0_u32.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    let sealed = run::build_run(keys, id, &[(BlobId([1; 32]), location)]);
    let run = keys.open(Kind::Locations, &run_identity, sealed.as_bytes()).unwrap();
    let head = Head {
        generation: 3,
        version,
        version_digest: base.index.digest(),
        refs: base.refs,
        runs: base.runs.clone(),
        collection: 0,
        collection_state: CollectionState::Idle,
        writer: base.index.author.client,
        time: base.index.time,
        nonce: [0; 16],
    };
    let names = vec![Name::Index(version), Name::Object(BlobId([5; 32]), 2), Name::Run(id)];
    let list = Condemned::new(1, base.index.time, None, names);
    let condemned = keys.open(Kind::Condemned, version.as_bytes(), list.seal(keys, version.0).as_bytes()).unwrap();
    let entry = base.index.root.dir.encode();
    let (k1, k2, k3) = (keys.clone(), keys.clone(), keys.clone());
    vec![
        Decoder::new("location-run", run, move |bytes| {
            let sealed = k1.seal(Kind::Locations, &run_identity, bytes);
            if let Ok(records) = run::Records::open(&k1, &run_ref, 0, sealed.as_bytes()) {
                (0..records.len()).for_each(|at| drop(records.location(at)));
            }
        }),
        Decoder::new("head", postcard::to_stdvec(&head).unwrap(), move |bytes| {
            drop(Head::open(&k2, k2.seal(Kind::Head, b"HEAD", bytes).as_bytes()));
        }),
        Decoder::new("index-record", postcard::to_stdvec(&base.index).unwrap(), move |bytes| {
            let sealed = k3.seal(Kind::Index, version.as_bytes(), bytes);
            drop(IndexRecord::open(&k3, version, sealed.as_bytes()));
        }),
        Decoder::new("condemned", condemned, move |bytes| {
            if let Some(list) = Condemned::decode(bytes) {
                list.names().for_each(|name| assert!(list.contains(&name) && Name::of(&name.key()).is_some()));
            }
        }),
        Decoder::new("object-name", location::object_key(&BlobId([5; 32]), 3).as_str(), |bytes| {
            let key = ObjectKey::new(String::from_utf8_lossy(bytes));
            if let Some(name) = key.and_then(|key| Name::of(&key)) {
                assert_eq!(Name::of(&name.key()), Some(name));
            }
        }),
        Decoder::new("entry", entry.clone(), |bytes| drop(Entry::decode(bytes))),
        Decoder::new("link-record", [&[2][..], &entry].concat(), |bytes| drop(LinkRecord::decode(bytes))),
    ]
}

/// One page that is whatever it is said to be.
struct OnePage(Vec<u8>);

impl PageIo for OnePage {
    fn load(&self, _: &ChunkRef) -> kura::version::Result<Arc<[u8]>> {
        Ok(self.0.as_slice().into())
    }

    fn save(&self, bytes: &[u8]) -> kura::version::Result<ChunkRef> {
        Ok(ChunkRef { id: BlobId([2; 32]), len: bytes.len() as u32 })
    }
}

fn pages() -> Vec<Decoder> {
    let leaf = [&[0, 2, 1][..], b"a", &[1], b"1", &[1], b"b", &[1], b"2"].concat();
    let inner = {
        let child = postcard::to_stdvec(&(ChunkRef { id: BlobId([3; 32]), len: 9 }, 1_u64, 2_u64)).unwrap();
        [&[1, 1, 1][..], b"a", &[child.len() as u8], &child].concat()
    };
    let walk = |bytes: &[u8]| {
        let tree = postcard::to_stdvec(&(Some(ChunkRef { id: BlobId([2; 32]), len: bytes.len() as u32 }), 2_u64));
        let tree: TreeRef = postcard::from_bytes(&tree.unwrap()).unwrap();
        let io = OnePage(bytes.to_vec());
        drop(tree.get(&io, b"a"));
        drop(tree.pages(&io, &mut |_| {}));
        drop(tree.scan(&io, std::ops::Bound::Unbounded, &mut |_, _| true));
        drop(kura::version::refs::versions(&tree, &io));
        drop(kura::version::refs::tags(&tree, &io));
    };
    vec![Decoder::new("leaf-page", leaf, walk), Decoder::new("inner-page", inner, walk)]
}

/// A disk with one file of so many sealed bytes.
fn disk_with(path: &Path, bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    replace_file(&disk, path, bytes).unwrap();
    disk
}

fn local_files(keys: &Keys, base: &Base) -> Vec<Decoder> {
    let dir = PathBuf::from("/local");
    let queued = Queued { record: base.index.clone(), refs: base.refs, runs: base.runs.clone(), objects: Vec::new() };
    let seal = |keys: &Keys, identity: &[u8], bytes: &[u8]| keys.seal(Kind::Local, identity, bytes).into_bytes();
    let memory = |name: &'static str, identity: &'static [u8]| {
        let (keys, dir) = (keys.clone(), dir.clone());
        move |bytes: &[u8]| {
            let disk = Arc::new(disk_with(&dir.join(name), &seal(&keys, identity, bytes)));
            if let Ok((memory, _)) = ClientMemory::open(disk, &dir, keys.clone(), None) {
                memory.collection();
                drop(memory.unsettled_runs());
            }
        }
    };
    let (k1, k2, k3) = (keys.clone(), keys.clone(), keys.clone());
    let (d1, d2, d3) = (dir.clone(), Queued::dir(&dir), dir.join("journal"));
    vec![
        Decoder::new("base", postcard::to_stdvec(base).unwrap(), move |bytes| {
            let disk = disk_with(&Base::path(&d1), &seal(&k1, b"base", bytes));
            drop(Base::read(&disk, &d1, &k1));
        }),
        Decoder::new("queue-entry", postcard::to_stdvec(&queued).unwrap(), move |bytes| {
            let identity = [b"queue".as_slice(), &1_u64.to_le_bytes()].concat();
            let disk = disk_with(&d2.join(format!("{:016x}", 1)), &seal(&k2, &identity, bytes));
            drop(Queued::read(&disk, &d2, 1, &k2));
        }),
        Decoder::new("client-memory", [[0; 16], [1; 16], [1; 16]].concat(), memory("client", b"client")),
        Decoder::new("refs-memory", vec![3, 0, 0, 1, 4], memory("refs", b"refs")),
        Decoder::new("unsettled-runs", vec![1; 20], memory("unsettled", b"unsettled")),
        Decoder::new("batch-journal", vec![40; 60], move |bytes| {
            let disk = disk_with(&d3, bytes);
            drop(Journal::left(&disk, &d3, &k3, &mut |_| Ok(())));
        }),
    ]
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
    Decoder::new("journal", sample, move |bytes| {
        let sealed = keys.seal(Kind::Journal, &journal_identity(&base, 0, &[0; 16]), bytes);
        let frame = [&(sealed.len() as u32).to_le_bytes()[..], sealed.as_bytes()].concat();
        let disk = disk_with(Path::new("/local/journal/0000000000000001"), &frame);
        drop(tree_on(&disk, &keys, &base));
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
        Decoder::new("lease", lease, move |bytes| {
            let store = Arc::new(MemoryStore::new());
            let sealed = k1.seal(Kind::Lease, name.as_str().as_bytes(), bytes);
            store.put(&name, &sealed, PutCondition::Always).unwrap();
            drop(open(&store, SimDisk::new(1)).unwrap().refresh());
        }),
        Decoder::new("held-locks", held, move |bytes| {
            let disk = disk_with(&dir.join("leases"), k2.seal(Kind::Local, b"leases", bytes).as_bytes());
            drop(open_here(&Arc::new(MemoryStore::new()), disk));
        }),
    ]
}

fn texts() -> Vec<Decoder> {
    let request = br#"{"op": "diff", "from": "latest~1", "to": "latest", "path": "a/b", "patch": true}"#;
    let as_text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    vec![
        Decoder::new("request", request, |bytes| {
            kura::control::is_complete(bytes);
            kura::control::understands(None, b"", bytes);
            kura::control::understands(Some("restore"), b"d", bytes);
        }),
        Decoder::new("request-line", b"--name before -m 'before \"the\" rewrite' a\\ b\n", |bytes| {
            for command in ["snapshot", "restore", "forget", "lock", "batch", "profile"] {
                kura::control::understands(Some(command), b"d", bytes);
            }
        }),
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
        Decoder::new("quantities", b"1h30m 5GiB", move |bytes| {
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
    let lock = br#"{"version": 1, "profiles": []}"#;
    let request = br#"{"file": "f", "ids": [3, 17], "password": "p\u00e4", "document": {"a": [1, 2.5e3, null]}}"#;
    let patch = br#"[{"op": "add", "path": "/a/b~1c", "value": {"d": 1}}, {"op": "remove", "path": "/e"}]"#;
    let header = Header::new(&Settings::default()).unwrap().encode();
    vec![
        Decoder::new("batch-job", job, move |bytes| drop(Job::parse(&as_text(bytes)))),
        Decoder::new("glob", b"**/[a-c]?{x,y*}.csv\0dir/bx.csv", move |bytes| {
            let text = as_text(bytes);
            let (pattern, path) = text.split_once('\0').unwrap_or((&text, "a/b"));
            if let Ok(glob) = Glob::new(pattern, true) {
                glob.matches(path.as_bytes());
                glob.matches_all_below(path.as_bytes());
            }
        }),
        Decoder::new("batch-address", b"sftp://user@host:22/dir%20x", move |bytes| {
            drop(batch::Url::parse(&as_text(bytes)));
            drop(FilePath::new(bytes.to_vec()));
        }),
        Decoder::new("json-patch", patch, |bytes| drop(serde_json::from_slice::<Vec<PatchOp>>(bytes))),
        Decoder::new("lock-file", lock, |bytes| drop(LockFile::parse(bytes))),
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

/// What other people sign, or hand over.
fn releases() -> Vec<Decoder> {
    let package =
        br#"{"name": "tool", "version": "1.2.0", "type": "security", "changes": ["mended"], "from": ">=1.0.0",
        "floor": "why", "dependencies": {"base": "^1"}, "conflicts": {"old": "*"}, "files": [{"path": "bin/tool",
        "mode": 493, "size": 3, "integrity": "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}],
        "checks": [{"name": "runs", "command": ["bin/tool"], "timeout_ms": 1000}]}"#;
    let channel = br#"{"name": "stable", "packages": {"tool": [{"version": "1.2.0", "bps": 500, "rings": ["early"],
        "steps": [{"bps": 10000, "min_samples": 5, "min_soak_s": 60, "success_bps_min": 9900, "failures_max": 1}],
        "since": "2026-01-01T00:00:00Z"}]}, "min_epoch": {"tool": 1},
        "windows": [{"tz": "Europe/Berlin", "days": ["mon"], "start": "22:00", "end": "04:00"}]}"#;
    let roles = ["root", "snapshot", "targets", "timestamp"].map(|role| {
        let id = "ab".repeat(32);
        format!(r#""{role}": {{"keyids": ["{id}"], "threshold": 1}}"#)
    });
    let root = format!(
        r#"{{"signed": {{"_type": "root", "spec_version": "1.0.0", "consistent_snapshot": true, "version": 1,
        "expires": "2030-01-01T00:00:00Z", "keys": {{}}, "roles": {{{}}}}}, "signatures": []}}"#,
        roles.join(", ")
    );
    let key = "A".repeat(43) + "=";
    let anchor = format!(
        r#"{{"format": 1, "channel": "stable", "channel_key": "{key}", "store_key": "{key}", "root": {root}}}"#
    );
    let proposal = format!(r#"{{"format": 1, "root": {root}}}"#);
    let manifest = br#"{"name": "tools", "version": "1.0", "provider": "us", "description": "what it is",
        "files": ["a/b", {"path": "c", "mode": "644"}]}"#;
    let understood = [
        Package::parse(package, "tool", &"1.2.0".parse().unwrap()).map(drop),
        Channel::parse(channel, "stable").map(drop),
        Anchor::parse(anchor.as_bytes(), "file").map(drop),
        check_proposal(proposal.as_bytes(), "file"),
    ];
    assert!(understood.iter().all(Result::is_ok) && check_manifest(manifest, "tools").is_ok(), "{understood:?}");
    vec![
        Decoder::new("release-package", package, |bytes| {
            drop(Package::parse(bytes, "tool", &"1.2.0".parse().unwrap()))
        }),
        Decoder::new("release-channel", channel, |bytes| drop(Channel::parse(bytes, "stable"))),
        Decoder::new("release-anchor", anchor, |bytes| drop(Anchor::parse(bytes, "file"))),
        Decoder::new("release-proposal", proposal, |bytes| drop(check_proposal(bytes, "file"))),
        Decoder::new("profile-manifest", manifest, |bytes| drop(check_manifest(bytes, "tools"))),
    ]
}
