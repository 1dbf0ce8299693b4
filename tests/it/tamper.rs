//! Promise: an object that was altered, cut, extended, swapped, emptied or removed is never served.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
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

/// Every kind of object, and a word of the message when one of that kind is refused. `None`: read by nobody who opens
/// the newest state by this secret.
const OBJECT_KINDS: [(&str, &str); 8] = [
    ("kura.json", "kura.json"),
    ("keys", "keys/"),
    ("epochs", "epochs/"),
    ("HEAD", "HEAD"),
    ("indexes", "indexes/"),
    ("objects", "objects/"),
    ("packs", "packs/"),
    ("locations", "locations/"),
];

fn object_kind(key: &ObjectKey) -> &str {
    key.as_str().split('/').next().unwrap()
}

#[test]
fn every_kind_of_object_is_in_the_table_and_named_when_it_is_refused() {
    let (objects, manifest) = used_store();
    let kinds: BTreeSet<&str> = objects.keys().map(object_kind).collect();
    assert_eq!(kinds, OBJECT_KINDS.iter().map(|(kind, _)| *kind).collect(), "a new kind belongs into the table");
    let mut refused: BTreeSet<&str> = BTreeSet::new();
    for key in objects.keys() {
        let word = OBJECT_KINDS.iter().find(|(kind, _)| *kind == object_kind(key)).unwrap().1;
        for damaged_bytes in ways(&objects, key) {
            let mut damaged = objects.clone();
            match damaged_bytes {
                Some(bytes) => damaged.insert(key.clone(), bytes),
                None => damaged.remove(key),
            };
            match read_anew(damaged) {
                Ok(read) => assert_eq!(read, manifest, "{key}"),
                Err(message) => {
                    let told = message.contains(word)
                        || ["blob", "no workspace", "no key slot"].iter().any(|word| message.contains(word));
                    assert!(told, "{key} is damaged, and the message is: {message}");
                    refused.insert(object_kind(key));
                }
            }
        }
    }
    // The recovery code's slot does not matter to who has the passphrase, but the passphrase's does.
    assert_eq!(refused.len(), OBJECT_KINDS.len(), "{refused:?}");
}

/// Everything that can be done to one of several things of a kind; `None` is its removal.
fn ways(objects: &Objects, key: &ObjectKey) -> Vec<Option<Vec<u8>>> {
    let other = objects.iter().find(|(other, _)| *other != key && object_kind(other) == object_kind(key));
    alterations(&objects[key]).into_iter().chain([None]).chain(other.map(|(_, bytes)| Some(bytes.clone()))).collect()
}

fn alterations(bytes: &[u8]) -> Vec<Option<Vec<u8>>> {
    let flip = |at: usize| {
        let mut flipped = bytes.to_vec();
        if let Some(byte) = flipped.get_mut(at) {
            *byte ^= 0x20;
        }
        Some(flipped)
    };
    let last = bytes.len().saturating_sub(1);
    vec![
        flip(0),
        flip(5),
        flip(last / 2),
        flip(last),
        Some(bytes[..bytes.len() / 2].to_vec()),
        Some(bytes[..last].to_vec()),
        Some([bytes, &[0; 40]].concat()),
        Some(Vec::new()),
    ]
}

#[test]
fn an_older_copy_of_any_object_is_never_taken_for_the_newest_state() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let workspace = space::create(store.clone(), root.path());
    space::write(&workspace, "file", &space::noise(3000, 1));
    workspace.snapshot(None, None).unwrap();
    workspace.flush(Some(Duration::from_secs(60))).unwrap();
    let old = store.snapshot();
    let options = space::open_options(kura::store::StoreUrl::Dir("/nowhere/memory".into()), root.path());
    let slots = kura::workspace::KeySlots::open_in(store.clone(), &options).unwrap();
    slots.rotate().unwrap();
    space::write(&workspace, "file", &space::noise(4000, 2));
    workspace.snapshot(None, None).unwrap();
    workspace.close(true).unwrap();
    drop(workspace);
    let new = store.snapshot();
    let changed: Vec<&ObjectKey> = new.keys().filter(|key| old.get(key).is_some_and(|old| *old != new[key])).collect();
    assert_eq!(changed.iter().map(|key| key.as_str()).collect::<Vec<_>>(), ["HEAD"], "all else is written once");
    let mut replayed = new.clone();
    replayed.insert(changed[0].clone(), old[changed[0]].clone());
    store.restore(replayed);
    let message = space::open(store.clone(), root.path()).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("went back") && message.contains("HEAD"), "{message}");
    store.restore(old);
    let message = space::open(store, root.path()).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("epochs/1"), "{message}");
}

/// Every kind of local file.
const LOCAL_KINDS: [&str; 12] = [
    "lock",
    "keys/kura.json",
    "keys/slot",
    "keys/epoch",
    "client",
    "base",
    "queue",
    "refs",
    "journal/segment",
    "journal/synced",
    "outbox",
    "stores",
];

fn local_kind(path: &Path, state: &Path) -> String {
    let below: Vec<String> =
        path.strip_prefix(state).unwrap().iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let names: Vec<&str> = below.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["stores", _] => "stores".to_owned(),
        [_, "journal", "synced"] => "journal/synced".to_owned(),
        [_, "journal", _] => "journal/segment".to_owned(),
        [_, "keys", name] => format!("keys/{}", name.split('-').next().unwrap()),
        [_, dir @ ("queue" | "outbox"), _] => (*dir).to_owned(),
        [_, name] => (*name).to_owned(),
        other => other.join("/"),
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy_tree(from: &Path, to: &Path) {
    for path in files_below(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(path, target).unwrap();
    }
}

type Found = Vec<(String, String)>;

/// Paths and digests of what the live tree shows, or the first error in words.
fn live(workspace: &kura::workspace::Workspace) -> Result<Found, String> {
    use kura::version::entry::Ino;
    use kura::worktree::{FileKind, Wait};
    let told = |error: kura::worktree::WorkError| error.to_string();
    let (tree, mut found, mut dirs) = (workspace.tree(), Vec::new(), vec![(String::new(), Ino::ROOT)]);
    while let Some((dir, at)) = dirs.pop() {
        let mut items = Vec::new();
        tree.readdir(at, 0, false, Wait::Yes, &mut |item| {
            items.push((format!("{dir}/{}", String::from_utf8_lossy(&item.name)), item.attr));
            true
        })
        .map_err(told)?;
        for (path, attr) in items {
            if attr.kind == FileKind::Directory {
                dirs.push((path.clone(), attr.ino));
            }
            let content = match attr.kind {
                FileKind::File => tree.read(attr.ino, 0, attr.size as usize, Wait::Yes).map_err(told)?,
                _ => Vec::new(),
            };
            found.push((path, kura::version::index::sha256(&content).to_string()));
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn no_local_file_that_was_altered_is_taken_for_the_truth() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let local = root.path().join("local");
    let workspace = space::create(store.clone(), &local);
    space::write(&workspace, "published", &space::noise(3000, 1));
    workspace.snapshot(None, None).unwrap();
    workspace.flush(Some(Duration::from_secs(60))).unwrap();
    // A version that waits, with an object of its own, and a file that is only in the journal.
    space::write(&workspace, "waiting", &space::noise(400_000, 2));
    workspace.snapshot(None, None).unwrap();
    let older = root.path().join("older");
    copy_tree(&local, &older);
    space::write(&workspace, "waiting too", &space::noise(400_000, 5));
    workspace.snapshot(None, None).unwrap();
    space::write(&workspace, "journaled", &space::noise(2000, 3));
    workspace.tree().absorb_all().unwrap();
    workspace.tree().sync().unwrap();
    let expected = live(&workspace).unwrap();
    let kept = root.path().join("kept");
    copy_tree(&local, &kept);
    drop(workspace);

    let state = kept.join("state");
    let kinds: BTreeSet<String> = files_below(&state).iter().map(|path| local_kind(path, &state)).collect();
    assert_eq!(kinds, LOCAL_KINDS.iter().map(|kind| (*kind).to_owned()).collect(), "a new kind belongs into the table");
    let objects = store.snapshot();
    let mut refused = BTreeSet::new();
    for path in files_below(&state) {
        let kind = local_kind(&path, &state);
        let bytes = fs::read(&path).unwrap();
        let below = path.strip_prefix(&kept).unwrap();
        let same_kind = |other: &&PathBuf| **other != path && local_kind(other, &state) == kind;
        let swapped = files_below(&state).iter().find(same_kind).map(|other| Some(fs::read(other).unwrap()));
        let replayed = fs::read(older.join(below)).ok().filter(|old| *old != bytes).map(Some);
        for altered in alterations(&bytes).into_iter().chain([None]).chain(swapped).chain(replayed) {
            let trial = root.path().join("trial");
            copy_tree(&kept, &trial);
            match &altered {
                Some(bytes) => fs::write(trial.join(below), bytes).unwrap(),
                None => fs::remove_file(trial.join(below)).unwrap(),
            }
            store.restore(objects.clone());
            let what =
                altered.as_ref().map_or("removed".to_owned(), |bytes| format!("altered to {} bytes", bytes.len()));
            let opened = space::open(store.clone(), &trial).map_err(|error| error.to_string());
            match opened.map(|workspace| (live(&workspace), workspace)) {
                Ok((Ok(found), workspace)) => {
                    if kind != "base" || altered.is_some() {
                        assert!(found == expected, "{} {what} changes what is there", below.display());
                    }
                    drop(workspace);
                }
                Ok((Err(message), _)) | Err(message) if !message.is_empty() => drop(refused.insert(kind.clone())),
                Ok((Err(_), _)) | Err(_) => panic!("{} {what}: no message", below.display()),
            }
            fs::remove_dir_all(&trial).unwrap();
        }
    }
    for kind in ["base", "client", "journal/segment", "queue"] {
        assert!(refused.contains(kind), "{kind} matters: {refused:?}");
    }
}
