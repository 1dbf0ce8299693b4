//! What The Update Framework's specification lists as attacks: each is noticed, and nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::Ed25519KeyPair;
use data_encoding::BASE64;
use kura::apps::release::{DirRepository, Expiry, ReleaseError, Repository, Request, Signer, Thresholds, keygen};
use serde_json::{Value, json};
use tough::schema::{Role, Signature, Signed, Snapshot, Timestamp};

use super::support::{CHANNEL, World, run};
use crate::workspace_rig as ws;

pub fn copy(from: &Path, to: &Path) {
    fs::remove_dir_all(to).ok();
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => assert!(fs::copy(entry.path(), target).is_ok()),
        }
    }
}

/// A client that follows, has installed 1.0.0, and has seen that there is 1.1.0; and the repository before that.
pub fn followed() -> (World, PathBuf) {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.follow();
    world.install(&["tool"]).unwrap();
    let old = world.path("old");
    copy(&world.repository(), &old);
    world.publish("tool", "1.1.0", json!({}), &[("t", "2")]);
    world.decisions();
    (world, old)
}

#[track_caller]
pub fn refused(world: &World) -> String {
    let before = ws::live(&world.client);
    let error = world.update().unwrap_err();
    assert!(matches!(error, ReleaseError::Untrusted { .. }), "{error}");
    assert_eq!(ws::live(&world.client), before);
    error.to_string()
}

pub fn metadata(world: &World, name: &str) -> PathBuf {
    world.repository().join("metadata").join(name)
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn an_older_state_is_refused_also_by_a_workspace_that_was_set_back() {
    let (world, old) = followed();
    copy(&old, &world.repository());
    refused(&world);
    let first = world.client.versions().unwrap().last().unwrap().id;
    world.client.restore(first, &[], false).unwrap();
    refused(&world);
    // Closed and opened again, the client still knows.
    world.client.close(true).unwrap();
    let world = World { client: world.rig.open("client"), rig: world.rig };
    refused(&world);
}

#[test]
fn a_mix_of_two_states_is_refused() {
    let (world, old) = followed();
    world.publish("tool", "1.2.0", json!({}), &[("t", "3")]);
    fs::copy(old.join("metadata/2.snapshot.json"), metadata(&world, "3.snapshot.json")).ok();
    fs::copy(old.join("metadata/1.snapshot.json"), metadata(&world, "3.snapshot.json")).unwrap();
    refused(&world);
    let (world, old) = followed();
    world.publish("tool", "1.2.0", json!({}), &[("t", "3")]);
    fs::copy(old.join("metadata/1.targets.json"), metadata(&world, "3.targets.json")).unwrap();
    refused(&world);
}

#[test]
fn metadata_that_has_expired_is_refused() {
    for role in 0..3 {
        let mut days = [400, 400, 400];
        days[role] = -1;
        let expiry = Expiry { root_days: days[0], targets_days: days[1], timestamp_days: days[2] };
        let world = World::new();
        world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
        let keys = world.path("short-lived");
        keygen(&keys, Thresholds { keys: 1, threshold: 1 }, expiry, jiff::Timestamp::now()).unwrap();
        let signer = Signer::open(&keys, expiry).unwrap();
        let channel = br#"{"name":"stable"}"#;
        let sealed = signer.channel_key(CHANNEL).unwrap().seal("channel.stable", channel);
        let repository = DirRepository(world.path("stale"));
        let files = [("channel.stable".to_owned(), Some(sealed.into_bytes()))];
        signer.publish(&repository, &files, jiff::Timestamp::now()).unwrap();
        let trust = world.path("stale.trust");
        signer.anchor(CHANNEL).unwrap().write(&trust).unwrap();
        let (repository, trust) =
            (world.path("stale").to_str().unwrap().to_owned(), trust.to_str().unwrap().to_owned());
        let (access, ring, every_ms, install) = Default::default();
        let follow = Request::Follow { repository, trust, access, ring, every_ms, install };
        let error = run(&world.client, &follow).unwrap_err();
        assert!(error.to_string().contains("expired"), "{role}: {error}");
    }
}

#[test]
fn signatures_that_are_altered_missing_or_doubled_are_refused() {
    let names = ["timestamp.json", "2.snapshot.json", "2.targets.json"];
    let alter: [fn(&mut Value); 4] = [
        |value| value["signatures"] = json!([]),
        |value| value["signed"]["version"] = json!(9_223_372_036_854_775_808_u64),
        |value| value["signed"]["expires"] = json!("2100-01-01T00:00:00Z"),
        |value| value["signatures"][0]["sig"] = json!("00".repeat(64)),
    ];
    for name in names {
        for (number, change) in alter.into_iter().enumerate() {
            let world = World::new();
            world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
            world.follow();
            world.publish("tool", "1.1.0", json!({}), &[("t", "2")]);
            edit(&metadata(&world, name), change);
            let error = world.install(&["tool"]).unwrap_err();
            assert!(matches!(error, ReleaseError::Untrusted { .. }), "{name} {number}: {error}");
            assert!(ws::live(&world.client).is_empty());
        }
    }
    // Two are needed: one, and the same twice, do not suffice.
    for doubled in [false, true] {
        let world = World::signed_by(Thresholds { keys: 3, threshold: 2 }, Expiry::default());
        world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
        world.follow();
        world.publish("tool", "1.1.0", json!({}), &[("t", "2")]);
        let path = metadata(&world, "2.targets.json");
        let length = fs::metadata(&path).unwrap().len();
        edit(&path, |value| {
            let first = value["signatures"][0].clone();
            value["signatures"] = if doubled { json!([first, first]) } else { json!([first]) };
        });
        assert_ne!(fs::metadata(&path).unwrap().len(), length);
        refused_install(&world);
    }
}

fn refused_install(world: &World) {
    let error = world.install(&["tool"]).unwrap_err();
    assert!(matches!(error, ReleaseError::Untrusted { .. }), "{error}");
    assert!(ws::live(&world.client).is_empty());
}

#[test]
fn keys_below_the_threshold_cannot_sign() {
    let world = World::signed_by(Thresholds { keys: 3, threshold: 2 }, Expiry::default());
    fs::remove_file(world.keys().join("targets-1-1.key")).unwrap();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.follow();
    world.install(&["tool"]).unwrap();
    fs::remove_file(world.keys().join("targets-1-2.key")).unwrap();
    let one_left = world.publish_as(("tool", "1.1.0"), json!({}), &[("t", "2")], Default::default());
    assert!(matches!(one_left, Err(ReleaseError::TooFew { have: 1, need: 2, .. })), "{one_left:?}");
    // Nor can they name the next root.
    for number in [1, 2] {
        fs::remove_file(world.keys().join(format!("root-1-{number}.key"))).unwrap();
    }
    let next = keygen(&world.keys(), Thresholds { keys: 1, threshold: 1 }, Expiry::default(), jiff::Timestamp::now());
    assert!(matches!(next, Err(ReleaseError::TooFew { have: 1, need: 2, .. })), "{next:?}");
    assert!(!world.keys().join("root-2-1.key").exists(), "nothing is left of it");
}

#[test]
fn a_root_counts_only_when_the_one_before_signed_it_and_none_is_left_out() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.follow();
    let thresholds = Thresholds { keys: 1, threshold: 1 };
    // Somebody else's keys.
    let theirs = world.path("theirs");
    keygen(&theirs, thresholds, Expiry::default(), jiff::Timestamp::now()).unwrap();
    edit(&theirs.join("root.json"), |value| value["signed"]["version"] = json!(2));
    fs::copy(theirs.join("root.json"), metadata(&world, "2.root.json")).unwrap();
    refused_install(&world);
    fs::remove_file(metadata(&world, "2.root.json")).unwrap();
    // Rotated twice: the chain is followed, and a link that is missing ends it.
    for _ in 0..2 {
        keygen(&world.keys(), thresholds, Expiry::default(), jiff::Timestamp::now()).unwrap();
        world.publish("tool", "1.1.0", json!({}), &[("t", "2")]);
    }
    let second = fs::read(metadata(&world, "2.root.json")).unwrap();
    fs::remove_file(metadata(&world, "2.root.json")).unwrap();
    refused_install(&world);
    fs::write(metadata(&world, "2.root.json"), second).unwrap();
    world.install(&["tool"]).unwrap();
    // The keys before sign nothing any more.
    assert_eq!(ws::read(&world.client, "t"), b"2");
}

#[test]
fn a_root_that_too_few_of_the_keys_before_signed_is_refused_however_often_they_did() {
    for doubled in [false, true] {
        let thresholds = Thresholds { keys: 3, threshold: 2 };
        let world = World::signed_by(thresholds, Expiry::default());
        world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
        world.follow();
        keygen(&world.keys(), thresholds, Expiry::default(), jiff::Timestamp::now()).unwrap();
        world.publish("tool", "1.1.0", json!({}), &[("t", "2")]);
        let whole = fs::read(metadata(&world, "2.root.json")).unwrap();
        let first: Value = serde_json::from_slice(&fs::read(metadata(&world, "1.root.json")).unwrap()).unwrap();
        let old: Vec<Value> = first["signed"]["roles"]["root"]["keyids"].as_array().unwrap().clone();
        edit(&metadata(&world, "2.root.json"), |value| {
            let signatures = value["signatures"].as_array_mut().unwrap();
            let by_old = signatures.iter().find(|signature| old.contains(&signature["keyid"])).unwrap().clone();
            signatures.retain(|signature| !old.contains(&signature["keyid"]));
            signatures.extend(std::iter::repeat_n(by_old, if doubled { 3 } else { 1 }));
        });
        refused_install(&world);
        fs::write(metadata(&world, "2.root.json"), whole).unwrap();
        world.install(&["tool"]).unwrap();
    }
}

#[test]
fn content_that_is_longer_shorter_or_other_than_signed_is_refused() {
    let changes: [fn(&Path); 4] = [
        |path| fs::write(path, "2 and endless more".repeat(100_000)).unwrap(),
        |path| fs::write(path, "").unwrap(),
        |path| fs::write(path, "3").unwrap(),
        |path| fs::remove_file(path).unwrap(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let world = World::new();
        world.publish("tool", "1.0.0", json!({}), &[("t", "2")]);
        world.follow();
        let content = fs::read_dir(world.repository().join("content")).unwrap().next().unwrap().unwrap().path();
        change(&content);
        let error = world.install(&["tool"]).unwrap_err();
        let right = matches!(error, ReleaseError::Untrusted { .. } | ReleaseError::Missing { .. });
        assert!(right, "{number}: {error}");
        assert!(ws::live(&world.client).is_empty());
        // What cannot be fetched is no failure of the release.
        assert!(world.reason("1.0.0").is_none());
        assert!(!world.repository().join("feedback").exists());
    }
    // Signed files that are endless.
    for name in ["metadata/timestamp.json", "metadata/1.targets.json", "metadata/2.root.json"] {
        let world = World::new();
        world.publish("tool", "1.0.0", json!({}), &[("t", "2")]);
        world.follow();
        fs::write(world.repository().join(name), vec![b' '; 12 << 20]).unwrap();
        refused_install(&world);
    }
}

#[test]
fn a_repository_that_is_away_is_no_attack() {
    let (world, _) = followed();
    fs::rename(world.repository(), world.path("away")).unwrap();
    let error = world.update().unwrap_err();
    assert!(matches!(error, ReleaseError::Repository { .. }), "{error}");
    fs::rename(world.path("away"), world.repository()).unwrap();
    world.update().unwrap();
}

/// Signs what is offered anew, as if that were so long ago that it still counts for this time only.
fn offered_until(world: &World, left: jiff::SignedDuration) {
    let expiry = Expiry::default();
    let age = jiff::SignedDuration::from_hours(24 * expiry.timestamp_days) - left;
    let signer = Signer::open(&world.keys(), expiry).unwrap();
    signer.publish(&DirRepository(world.repository()), &[], jiff::Timestamp::now() - age).unwrap();
}

#[test]
fn a_mirror_that_keeps_the_next_root_back_holds_clients_no_longer_than_signatures_count() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    let mirror = world.path("mirror");
    let follow = |world: &World| world.follow_at(mirror.to_str().unwrap(), Default::default());
    // What it kept counts for a moment more; long enough to be followed.
    let mut left = jiff::SignedDuration::from_secs(2);
    loop {
        offered_until(&world, left);
        copy(&world.repository(), &mirror);
        if follow(&world).is_ok() && world.install(&["tool"]).is_ok() {
            break;
        }
        left *= 2;
        assert!(left.as_secs() < 1000, "it cannot be followed");
    }
    keygen(&world.keys(), Thresholds { keys: 1, threshold: 1 }, Expiry::default(), jiff::Timestamp::now()).unwrap();
    world.publish("tool", "1.1.0", json!({}), &[("t", "2")]);
    let root = |world: &World| {
        let records = world.client.records("releases");
        let state: Value = serde_json::from_slice(&records.read("state", 1 << 20).unwrap().unwrap()).unwrap();
        let root: Value = serde_json::from_str(state["seen"]["root"].as_str().unwrap()).unwrap();
        root["signed"]["version"].as_u64().unwrap()
    };
    let error = loop {
        match world.update() {
            Ok(done) => assert!(done.installed.is_empty(), "{done:?}"),
            Err(error) => break error,
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert!(matches!(error, ReleaseError::Untrusted { .. }) && error.to_string().contains("expired"), "{error}");
    assert_eq!((root(&world), ws::read(&world.client, "t")), (1, b"1".to_vec()));
    // It gives out everything but the next root: what other keys signed does not count.
    copy(&world.repository(), &mirror);
    fs::remove_file(mirror.join("metadata/2.root.json")).unwrap();
    refused(&world);
    assert_eq!(root(&world), 1);
    copy(&world.repository(), &mirror);
    world.update().unwrap();
    assert_eq!((root(&world), ws::read(&world.client, "t")), (2, b"2".to_vec()));
}

/// Signs metadata with the only key of its role, and writes it.
pub fn signed_by<T: Role>(world: &World, key: &str, signed: T, file: &str) -> Vec<u8> {
    let text = fs::read(world.keys().join(key)).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(&BASE64.decode(&text).unwrap()).unwrap();
    let sig = pair.sign(&signed.canonical_form().unwrap()).as_ref().to_vec().into();
    let keyid = tough::sign::Sign::tuf_key(&pair).key_id().unwrap();
    let bytes = serde_json::to_vec(&Signed { signed, signatures: vec![Signature { keyid, sig }] }).unwrap();
    fs::write(metadata(world, file), &bytes).unwrap();
    bytes
}

pub fn parsed<T: serde::de::DeserializeOwned>(world: &World, file: &str) -> T {
    let signed: Signed<T> = serde_json::from_slice(&fs::read(metadata(world, file)).unwrap()).unwrap();
    signed.signed
}

#[test]
fn a_list_that_drops_what_was_listed_is_refused_whoever_signed_it() {
    let (world, _) = followed();
    let mut list: Snapshot = parsed(&world, "2.snapshot.json");
    list.meta.clear();
    list.version = 3.try_into().unwrap();
    let bytes = signed_by(&world, "snapshot-1-1.key", list, "3.snapshot.json");
    let mut newest: Timestamp = parsed(&world, "timestamp.json");
    newest.version = 3.try_into().unwrap();
    let meta = newest.meta.get_mut("snapshot.json").unwrap();
    (meta.version, meta.length) = (3.try_into().unwrap(), Some(bytes.len() as u64));
    meta.hashes.as_mut().unwrap().sha256 = crate::rig::sha256(&bytes).0.to_vec().into();
    signed_by(&world, "timestamp-1-1.key", newest, "timestamp.json");
    refused(&world);
}

#[test]
fn after_a_stolen_key_made_versions_jump_new_keys_begin_anew() {
    for jump in [1_u64 << 62, u64::MAX] {
        let (world, _) = followed();
        let kept = world.path("kept");
        copy(&world.repository(), &kept);
        let mut newest: Timestamp = parsed(&world, "timestamp.json");
        newest.version = jump.try_into().unwrap();
        signed_by(&world, "timestamp-1-1.key", newest, "timestamp.json");
        world.decisions();
        // What is right is older now, until the key is another.
        copy(&kept, &world.repository());
        refused(&world);
        keygen(&world.keys(), Thresholds { keys: 1, threshold: 1 }, Expiry::default(), jiff::Timestamp::now()).unwrap();
        world.publish("tool", "1.2.0", json!({}), &[("t", "3")]);
        world.update().unwrap();
        assert_eq!(ws::read(&world.client, "t"), b"3");
    }
}

/// A repository of which so many writes arrive.
struct Breaking(DirRepository, std::sync::atomic::AtomicUsize);

impl Breaking {
    fn arrive(&self) -> Result<(), ReleaseError> {
        use std::sync::atomic::Ordering::SeqCst;
        match self.1.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Ok(()),
            Err(_) => {
                let reason = "no room is left".to_owned();
                Err(ReleaseError::Repository { repository: self.address(), reason })
            }
        }
    }
}

impl Repository for Breaking {
    fn get(&self, name: &str, len_max: u64) -> Result<Option<Vec<u8>>, ReleaseError> {
        self.0.get(name, len_max)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), ReleaseError> {
        self.arrive().and_then(|()| self.0.put(name, bytes))
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, ReleaseError> {
        if self.get(name, 0)?.is_some() {
            return Ok(false);
        }
        self.arrive().and_then(|()| self.0.create(name, bytes))
    }

    fn remove(&self, name: &str) -> Result<(), ReleaseError> {
        self.0.remove(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, ReleaseError> {
        self.0.list(prefix)
    }

    fn address(&self) -> String {
        self.0.address()
    }
}

#[test]
fn a_publication_that_breaks_off_leaves_what_was_offered_before() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.follow();
    world.install(&["tool"]).unwrap();
    let signer = Signer::open(&world.keys(), Expiry::default()).unwrap();
    let channel = br#"{"name":"stable"}"#;
    let sealed = signer.channel_key(CHANNEL).unwrap().seal("channel.stable", channel).into_bytes();
    for room in 0.. {
        let repository = Breaking(DirRepository(world.repository()), room.into());
        let files = [("channel.stable".to_owned(), Some(sealed.clone()))];
        if signer.publish(&repository, &files, jiff::Timestamp::now()).is_ok() {
            assert_eq!(room, 5, "a root, a file, and three of metadata");
            break;
        }
        assert_eq!(world.decisions().len(), 1, "{room}");
        assert!(world.update().unwrap().installed.is_empty());
    }
    assert!(world.decisions().is_empty(), "the new offer has nothing");
}
