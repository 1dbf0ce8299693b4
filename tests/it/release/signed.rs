//! What the right keys signed and is wrong all the same: expired, older, or leading elsewhere.

use std::fs;
use std::path::Path;

use kura::apps::release::{DirRepository, Expiry, ReleaseError, Signer};
use serde_json::{Value, json};
use tough::schema::{Metafile, Snapshot, Targets, Timestamp};

use super::attacks::{followed, metadata, parsed, refused, signed_by};
use super::support::{CHANNEL, World, installed};
use crate::workspace_rig as ws;

/// Makes what is said of a file fit it.
fn point(meta: Option<&mut Metafile>, version: u64, bytes: &[u8]) {
    let meta = meta.unwrap();
    (meta.version, meta.length) = (version.try_into().unwrap(), Some(bytes.len() as u64));
    meta.hashes.as_mut().unwrap().sha256 = crate::rig::sha256(bytes).0.to_vec().into();
}

#[test]
fn an_offer_or_a_list_that_alone_has_expired_is_refused() {
    let past = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    for expired in ["targets", "snapshot", ""] {
        let (world, _) = followed();
        let mut targets: Targets = parsed(&world, "2.targets.json");
        let mut list: Snapshot = parsed(&world, "2.snapshot.json");
        let mut newest: Timestamp = parsed(&world, "timestamp.json");
        targets.version = 3.try_into().unwrap();
        list.version = 3.try_into().unwrap();
        newest.version = 3.try_into().unwrap();
        match expired {
            "targets" => targets.expires = past,
            "snapshot" => list.expires = past,
            _ => {}
        }
        let bytes = signed_by(&world, "targets-1-1.key", targets, "3.targets.json");
        point(list.meta.get_mut("targets.json"), 3, &bytes);
        let bytes = signed_by(&world, "snapshot-1-1.key", list, "3.snapshot.json");
        point(newest.meta.get_mut("snapshot.json"), 3, &bytes);
        signed_by(&world, "timestamp-1-1.key", newest, "timestamp.json");
        if expired.is_empty() {
            assert_eq!(installed(&world.update().unwrap()), ["tool 1.0.0 1.1.0"]);
        } else {
            let text = refused(&world);
            assert!(text.contains(&format!("{expired} metadata is expired")), "{text}");
        }
    }
}

#[test]
fn a_statement_of_the_same_number_that_names_an_older_list_is_refused() {
    let (world, _) = followed();
    let mut newest: Timestamp = parsed(&world, "timestamp.json");
    let old = fs::read(metadata(&world, "1.snapshot.json")).unwrap();
    point(newest.meta.get_mut("snapshot.json"), 1, &old);
    signed_by(&world, "timestamp-1-1.key", newest, "timestamp.json");
    refused(&world);
}

#[test]
fn signed_files_that_are_longer_shorter_other_or_gone_are_not_used() {
    let changes: [fn(&Path); 4] = [
        |path| fs::write(path, [fs::read(path).unwrap(), vec![b' '; 12 << 20]].concat()).unwrap(),
        |path| fs::write(path, &fs::read(path).unwrap()[1..]).unwrap(),
        |path| fs::write(path, vec![b'x'; fs::read(path).unwrap().len()]).unwrap(),
        |path| fs::remove_file(path).unwrap(),
    ];
    for name in ["channel.stable", "package.stable.tool.1.0.0"] {
        for (number, change) in changes.into_iter().enumerate() {
            let world = World::new();
            world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
            world.follow();
            let files = fs::read_dir(world.repository().join("targets")).unwrap().map(|entry| entry.unwrap().path());
            let file = files.filter(|path| path.to_str().unwrap().ends_with(name)).collect::<Vec<_>>().remove(0);
            change(&file);
            let error = world.install(&["tool"]).unwrap_err();
            let is_gone = matches!(error, ReleaseError::Repository { .. });
            assert!(is_gone || matches!(error, ReleaseError::Untrusted { .. }), "{name} {number}: {error}");
            assert_eq!(is_gone, number == 3, "{name} {number}: {error}");
            assert!(ws::live(&world.client).is_empty());
        }
    }
}

/// Has 1.0.0 signed again with files of these paths, which the publisher's program would not do.
fn sign_with_paths(world: &World, paths: &[&str]) {
    let signer = Signer::open(&world.keys(), Expiry::default()).unwrap();
    let (repository, name) = (DirRepository(world.repository()), format!("package.{CHANNEL}.tool.1.0.0"));
    let offered = signer.offered(&repository).unwrap().unwrap();
    let sealed = signer.target(&repository, &offered, &name).unwrap().unwrap();
    let key = signer.channel_key(CHANNEL).unwrap();
    let mut package: Value = serde_json::from_slice(&key.open(&name, &sealed).unwrap()).unwrap();
    let file = package["files"][0].clone();
    let at = |path: &&str| {
        let mut file = file.clone();
        file["path"] = json!(path);
        file
    };
    package["files"] = paths.iter().map(at).collect();
    let sealed = key.seal(&name, package.to_string().as_bytes()).into_bytes();
    signer.publish(&repository, &[(name, Some(sealed))], jiff::Timestamp::now()).unwrap();
}

#[test]
fn a_package_that_leads_elsewhere_is_refused_although_it_is_signed() {
    let bad: [&[&str]; 16] = [
        &["../x"],
        &["/x"],
        &["a/../../x"],
        &["./x"],
        &[""],
        &["a//b"],
        &["a\0b"],
        &["a\\b"],
        &[".kura/ctl/run"],
        &["a/.KURA/x"],
        &["releases.lock/tool.json"],
        &["Releases.Lock/x"],
        &["a", "A"],
        &["\u{e9}", "e\u{301}"],
        &["a", "a/b"],
        &["a", "a"],
    ];
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.follow();
    for paths in bad {
        sign_with_paths(&world, paths);
        let error = world.install(&["tool"]).unwrap_err();
        let right = matches!(error, ReleaseError::Path { .. } | ReleaseError::BadPackage { .. });
        assert!(right, "{paths:?}: {error}");
        assert!(ws::live(&world.client).is_empty(), "{paths:?}");
    }
    sign_with_paths(&world, &["a", "b/c", "\u{e9}"]);
    world.install(&["tool"]).unwrap();
    assert_eq!(ws::read(&world.client, "b/c"), b"1");
}
