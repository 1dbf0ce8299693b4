//! Promise: an object that was altered, cut, extended, swapped, emptied or removed is never served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kura::store::{MemoryStore, ObjectKey};

use super::space;

type Objects = BTreeMap<ObjectKey, Vec<u8>>;

fn used_store() -> (Objects, Vec<String>) {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let workspace = space::create(store.clone(), root.path());
    space::mkdir(&workspace, "dir");
    space::write(&workspace, "dir/small", &space::noise(3000, 1));
    space::write(&workspace, "dir/inline", b"tiny");
    space::write(&workspace, "large", &space::noise(900_000, 2));
    space::write(&workspace, "linked", &space::noise(2000, 3));
    space::link(&workspace, "linked", "dir/linked");
    workspace.snapshot(None, Some("first".to_owned())).unwrap();
    workspace.flush(Some(Duration::from_secs(60))).unwrap();
    space::write(&workspace, "dir/small", &space::noise(5000, 4));
    workspace.snapshot(None, None).unwrap();
    workspace.flush(Some(Duration::from_secs(60))).unwrap();
    let latest = workspace.select("latest").unwrap();
    let manifest = space::manifest(&workspace, latest).unwrap();
    (store.snapshot(), manifest)
}

/// What a new client reads of a store: the newest version in full, or an error in words.
fn read_anew(objects: Objects) -> Result<Vec<String>, String> {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    store.restore(objects);
    let workspace = space::open(store, root.path()).map_err(|error| error.to_string())?;
    let latest = workspace.select("latest").map_err(|error| error.to_string())?;
    space::manifest(&workspace, latest).map_err(|error| error.to_string())
}

/// Damages one object in every way and reads the workspace anew each time.
fn damage_each(damage: impl Fn(&Objects, &ObjectKey) -> Option<Vec<u8>>, what: &str) -> (usize, usize) {
    let (objects, manifest) = used_store();
    assert_eq!(read_anew(objects.clone()).unwrap(), manifest);
    let (mut refused, mut harmless) = (0, 0);
    for key in objects.keys() {
        let mut damaged = objects.clone();
        match damage(&objects, key) {
            Some(bytes) if bytes == objects[key] => continue,
            Some(bytes) => damaged.insert(key.clone(), bytes),
            None => damaged.remove(key),
        };
        match read_anew(damaged) {
            Ok(read) => {
                assert_eq!(read, manifest, "{what} of {key} was served as data");
                harmless += 1;
            }
            Err(message) => {
                assert!(!message.is_empty());
                refused += 1;
            }
        }
    }
    (refused, harmless)
}

#[test]
fn a_flipped_byte_in_any_object_is_never_served() {
    for place in 0..7 {
        let flip = |objects: &Objects, key: &ObjectKey| {
            let mut bytes = objects[key].clone();
            let at = (bytes.len() - 1) * place / 6;
            bytes[at] ^= 0x10;
            Some(bytes)
        };
        let (refused, _) = damage_each(flip, "a flipped byte");
        assert!(refused > 3, "damage at {place}/6 is noticed in the objects that are read");
    }
}

#[test]
fn a_cut_extended_or_empty_object_is_never_served() {
    damage_each(|objects, key| Some(objects[key][..objects[key].len() / 2].to_vec()), "half");
    damage_each(|objects, key| Some(objects[key][..objects[key].len() - 1].to_vec()), "all but the last byte");
    damage_each(|_, _| Some(Vec::new()), "nothing");
    damage_each(|objects, key| Some([objects[key].as_slice(), &[0; 64]].concat()), "an extension");
}

#[test]
fn a_missing_object_is_told_and_never_made_up() {
    let (refused, _) = damage_each(|_, _| None, "the absence");
    assert!(refused > 5);
}

#[test]
fn an_object_in_the_place_of_another_is_never_served() {
    let swap = |objects: &Objects, key: &ObjectKey| {
        let room = |key: &ObjectKey| key.as_str().split('/').next().map(str::to_owned);
        let other =
            objects.iter().find(|(other, bytes)| *other != key && room(other) == room(key) && **bytes != objects[key]);
        Some(other.map_or_else(|| objects[key].clone(), |(_, bytes)| bytes.clone()))
    };
    damage_each(swap, "another object");
}
