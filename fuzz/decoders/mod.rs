//! Every decoder of bytes that come from a store, a disk, a network or a user, with what it understands.
//!
//! Two programs use this table: the tests of the main package, which replay the corpora and try random changes of
//! them, and `main.rs`, which searches for new ways through a decoder. What is sealed is sealed again after it was
//! altered: what somebody with the keys, or a mistake of ours, could write.

mod apps;
pub mod liar;
mod local;
mod outside;
mod releases;
mod servers;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kura::base::clock::Timestamp;
use kura::base::disk::{Disk, replace_file};
use kura::base::ids::{BlobId, PackId, RunId, Sha256, SlotId, VersionId, WorkspaceId};
use kura::base::sim_disk::SimDisk;
use kura::blob::{BlobKind, ChunkRef, Location, PackBuilder, Place, RunRef, codec, location, pack, run};
use kura::crypto::slots::{
    Capabilities, Credential, KdfParams, NewSlot, RecoveryCode, Secret, check_roster, create_workspace, read_header,
    slot_facts, unlock,
};
use kura::crypto::{Keys, Kind, envelope_epoch};
use kura::store::{MemoryStore, ObjectKey, StoreUrl};
use kura::sync::{Condemned, Name};
use kura::version::entry::{Entry, Ino, LinkRecord};
use kura::version::head::{CollectionState, Head};
use kura::version::index::IndexRecord;
use kura::version::refs;
use kura::version::tree::{PageIo, TreeRef};
use kura::workspace::{InitOptions, OpenOptions, Workspace};
use kura::worktree::{Base, Caller, NewNode, Wait};

/// Decodes bytes, whatever they are, and does not panic; tells whether it understood them.
type Decode = dyn Fn(&[u8]) -> bool;

/// One decoder.
pub struct Decoder {
    /// The name of its corpus.
    pub name: &'static str,
    /// Bytes that it understands.
    pub sample: Vec<u8>,
    decode: Box<Decode>,
}

impl Decoder {
    /// One that has to understand its sample.
    fn checked(name: &'static str, sample: impl Into<Vec<u8>>, decode: impl Fn(&[u8]) -> bool + 'static) -> Self {
        let sample = sample.into();
        assert!(decode(&sample), "{name} does not understand its sample");
        Self { name, sample, decode: Box::new(decode) }
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
        local::decoders(&keys, &base),
        outside::decoders(),
        apps::decoders(&keys),
        releases::decoders(),
        servers::decoders(),
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
    // The digest of the header, one member, the keys of the one older epoch.
    let member = [&[5; 16][..], &[6; 32], &[5], b"label"].concat();
    let roster = [&[7; 32][..], &[1], &member, &[1], &[8; 32]].concat();
    let code = RecoveryCode::generate().to_text().as_bytes().to_vec();
    vec![
        Decoder::checked("header", header, |bytes| read_header(bytes).is_ok()),
        Decoder::checked("slot", record.clone(), move |bytes| slot_facts(slot, bytes).is_ok()),
        Decoder::checked("slot-checked", &record[..record.len() - 32], move |bytes| {
            slot_facts(slot, &checked(bytes.to_vec())).is_ok()
        }),
        Decoder::checked("epoch-checked", &epoch[..epoch.len() - 32], move |bytes| {
            let epochs = [(0, checked(bytes.to_vec()))];
            let slots: [(SlotId, Vec<u8>); 1] = [(slot, known_slot.clone())];
            unlock(&known_header, &slots, &epochs, &secret()).is_ok()
        }),
        Decoder::checked("roster", roster, |bytes| {
            bytes.split_first_chunk().is_some_and(|(digest, _)| check_roster(1, Sha256(*digest), bytes))
        }),
        Decoder::checked("recovery-code", code, |bytes| RecoveryCode::parse(&Secret::new(bytes.to_vec())).is_ok()),
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
    // One blob of five bytes, which are nine when they are decoded.
    let directory = [&[3; 32][..], &5_u32.to_le_bytes(), &9_u32.to_le_bytes(), &[Kind::Content as u8]].concat();
    let sealed_len = keys.seal(Kind::PackDirectory, pack_id.as_bytes(), &directory).len() as u32;
    let trailer = [5_u32.to_le_bytes(), sealed_len.to_le_bytes()].concat();
    let (k1, k2, k3, k4, k5, k6) = (keys.clone(), keys.clone(), keys.clone(), keys.clone(), keys.clone(), keys.clone());
    vec![
        Decoder::checked("envelope", keys.seal(Kind::App, b"i", b"text").into_bytes(), move |bytes| {
            let opened = k1.open(Kind::App, b"i", bytes);
            envelope_epoch(bytes).is_some() && opened.is_ok()
        }),
        Decoder::checked("blob", stored.into_bytes(), move |bytes| {
            let decoded = codec::decode(&k2, BlobKind::Content, &chunk, bytes).is_ok();
            codec::frame_layout(&k2, BlobKind::Content, &chunk, bytes, 300_000).is_ok() && decoded
        }),
        Decoder::checked("frame", [&(text.len() as u16).to_le_bytes()[..], &packed].concat(), move |bytes| {
            let Some((len, frame)) = bytes.split_first_chunk() else { return false };
            let chunk = short(u16::from_le_bytes(*len));
            let sealed = k3.seal(Kind::Content, &frame_identity(&chunk, 0), frame);
            codec::decode(&k3, BlobKind::Content, &chunk, sealed.as_bytes()).is_ok()
        }),
        Decoder::checked("frame-table", table, move |bytes| {
            let table = k4.seal(Kind::Content, &frame_identity(&chunk, u32::MAX), bytes);
            drop(codec::decode(&k4, BlobKind::Content, &chunk, table.as_bytes()));
            let layout = codec::frame_layout(&k4, BlobKind::Content, &chunk, table.as_bytes(), 300_000);
            layout.is_ok_and(|layout| {
                assert!((0..4).all(|number| layout.span(number, number).is_none_or(|(start, _)| start >= 36)));
                true
            })
        }),
        Decoder::checked("pack", sealed_pack.1.into_bytes(), move |bytes| {
            pack::read_directory(&k5, sealed_pack.0, bytes).is_ok()
        }),
        Decoder::checked("pack-directory", [&trailer[..], &directory].concat(), move |bytes| {
            let Some((trailer, directory)) = bytes.split_at_checked(8) else { return false };
            let mut tail = k6.seal(Kind::PackDirectory, pack_id.as_bytes(), directory).into_bytes();
            let end = [pack_id.as_bytes().as_slice(), b"end"].concat();
            tail.extend(k6.seal(Kind::PackDirectory, &end, trailer).as_bytes());
            let has_len = pack::directory_tail_len(&k6, pack_id, &tail).is_ok();
            has_len & pack::read_directory(&k6, pack_id, &tail).is_ok()
        }),
    ]
}

/// A workspace in memory, with its local state in `/local`.
fn some_workspace() -> Arc<Workspace> {
    let (memory, dir) = (Arc::new(MemoryStore::new()), PathBuf::from("/local"));
    let passphrase = || Credential::Passphrase(Secret::from_text("words".to_owned()));
    let slots = vec![NewSlot { label: "label".to_owned(), credential: passphrase() }];
    let init = InitOptions { kdf: KdfParams::minimum(), recovery_code: false, ..InitOptions::new(slots) };
    Workspace::init_in(&*memory, init).unwrap();
    let credential = Box::new(move || Ok(passphrase()));
    let mut options =
        OpenOptions::new(StoreUrl::Dir("/store".into()), dir.join("state"), dir.join("cache"), credential);
    options.disk = Arc::new(SimDisk::new(1));
    Workspace::open_in(memory, options).unwrap()
}

/// A workspace that is made anew now and then: a simulated disk keeps every file that ever was.
struct Renewed(RefCell<(usize, Arc<Workspace>)>);

impl Renewed {
    fn new() -> Self {
        Self(RefCell::new((0, some_workspace())))
    }

    fn workspace(&self) -> Arc<Workspace> {
        let (runs, workspace) = &mut *self.0.borrow_mut();
        *runs += 1;
        if *runs == 10_000 {
            (*runs, *workspace) = (0, some_workspace());
        }
        workspace.clone()
    }
}

/// A workspace's state after something was written: what records are made from.
fn some_base() -> Base {
    let workspace = some_workspace();
    let (tree, me) = (workspace.tree(), Caller { uid: 0, gid: 0 });
    let root = Ino::ROOT;
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
    let (entry, own) = (base.index.root.dir.encode(), base.index.id);
    let (k1, k2, k3) = (keys.clone(), keys.clone(), keys.clone());
    vec![
        Decoder::checked("location-run", run, move |bytes| {
            let sealed = k1.seal(Kind::Locations, &run_identity, bytes);
            let records = run::Records::open(&k1, &run_ref, 0, sealed.as_bytes());
            records.is_ok_and(|records| (0..records.len()).filter(|at| records.location(*at).is_ok()).count() > 0)
        }),
        Decoder::checked("head", postcard::to_stdvec(&head).unwrap(), move |bytes| {
            Head::open(&k2, k2.seal(Kind::Head, b"HEAD", bytes).as_bytes()).is_ok()
        }),
        Decoder::checked("index-record", postcard::to_stdvec(&base.index).unwrap(), move |bytes| {
            let sealed = k3.seal(Kind::Index, own.as_bytes(), bytes);
            IndexRecord::open(&k3, own, sealed.as_bytes()).is_ok()
        }),
        Decoder::checked("condemned", condemned, move |bytes| {
            let Some(list) = Condemned::decode(bytes) else { return false };
            list.names().for_each(|name| assert!(list.contains(&name) && Name::of(&name.key()).is_some()));
            true
        }),
        Decoder::checked("object-name", location::object_key(&BlobId([5; 32]), 3).as_str(), |bytes| {
            let key = ObjectKey::new(String::from_utf8_lossy(bytes));
            let Some(name) = key.and_then(|key| Name::of(&key)) else { return false };
            assert_eq!(Name::of(&name.key()), Some(name));
            true
        }),
        Decoder::checked("entry", entry.clone(), |bytes| Entry::decode(bytes).is_ok()),
        Decoder::checked("link-record", [&[2][..], &entry].concat(), |bytes| LinkRecord::decode(bytes).is_ok()),
    ]
}

/// A page that is whatever it is said to be, and a good leaf below it.
struct Pages {
    top: Vec<u8>,
    leaf: Arc<[u8]>,
}

const LEAF: BlobId = BlobId([3; 32]);

impl PageIo for Pages {
    fn load(&self, page: &ChunkRef) -> kura::version::Result<Arc<[u8]>> {
        Ok(if page.id == LEAF { self.leaf.clone() } else { self.top.as_slice().into() })
    }

    fn save(&self, bytes: &[u8]) -> kura::version::Result<ChunkRef> {
        Ok(ChunkRef { id: BlobId([2; 32]), len: bytes.len() as u32 })
    }
}

fn pages() -> Vec<Decoder> {
    let leaf = [&[0, 2, 1][..], b"a", &[1], b"1", &[1], b"b", &[1], b"2"].concat();
    let inner = {
        let child = ChunkRef { id: LEAF, len: leaf.len() as u32 };
        let child = postcard::to_stdvec(&(child, 1_u64, 2_u64)).unwrap();
        [&[1, 1, 1][..], b"a", &[child.len() as u8], &child].concat()
    };
    let below: Arc<[u8]> = leaf.as_slice().into();
    let walk = move |bytes: &[u8]| {
        let tree = postcard::to_stdvec(&(Some(ChunkRef { id: BlobId([2; 32]), len: bytes.len() as u32 }), 2_u64));
        let tree: TreeRef = postcard::from_bytes(&tree.unwrap()).unwrap();
        let io = Pages { top: bytes.to_vec(), leaf: below.clone() };
        drop(tree.pages(&io, &mut |_| {}));
        drop(tree.scan(&io, std::ops::Bound::Unbounded, &mut |_, _| true));
        drop(refs::versions(&tree, &io));
        drop(refs::tags(&tree, &io));
        drop(refs::retention(&tree, &io));
        drop(refs::final_lists(&tree, &io, 0));
        drop(refs::Policies::read(&tree, &io));
        drop(refs::each_forgotten(&tree, &io, &mut |_| ()));
        tree.get(&io, b"a").is_ok_and(|found| found.is_some())
    };
    vec![Decoder::checked("leaf-page", leaf, walk.clone()), Decoder::checked("inner-page", inner, walk)]
}

/// A disk with one file of so many sealed bytes.
fn disk_with(path: &Path, bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    replace_file(&disk, path, bytes).unwrap();
    disk
}
