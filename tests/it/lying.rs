//! A store that lists what it was not asked for, and more than there can be.

use std::path::Path;
use std::sync::Arc;

use kura::store::{MemoryStore, ObjectKey, ObjectStore, StoreError};
use kura::sync::CollectOptions;
use kura::workspace::{Workspace, WorkspaceError};

use super::decoders::table::liar::Liar;
use super::s3_server::S3Server;
use super::space;

/// Opens a workspace whose store lists these names as well, with its local state in `root`.
fn opened_in(
    root: &Path,
    names: impl IntoIterator<Item = String>,
    object: Vec<u8>,
) -> Result<Arc<Workspace>, WorkspaceError> {
    let inner = Arc::new(MemoryStore::new());
    drop(space::create(inner.clone(), root));
    let listed = names.into_iter().map(|name| (ObjectKey::new(name).unwrap(), u64::MAX)).collect();
    space::open(Arc::new(Liar { inner, listed, object }), &root.join("elsewhere"))
}

fn opened(names: impl IntoIterator<Item = String>, object: Vec<u8>) -> Result<Arc<Workspace>, WorkspaceError> {
    opened_in(tempfile::tempdir().unwrap().path(), names, object)
}

#[test]
fn names_that_were_not_asked_for_do_not_keep_a_workspace_from_opening() {
    let names =
        ["a", "key", "keys", "epoch", "keys/x", "keys/", "epochs/00", "epochs/-1", "HEAD2", "epochs/4294967296"];
    let names = names.into_iter().filter(|name| ObjectKey::new(*name).is_some()).map(str::to_owned);
    opened(names, b"anything".to_vec()).unwrap();
}

#[test]
fn more_keys_than_a_workspace_has_are_refused_before_they_fill_memory() {
    let many = (0..5000).map(|number| format!("epochs/{number}"));
    match opened(many, vec![0; 10]).map(drop) {
        Err(WorkspaceError::Store(StoreError::Invalid { target, reason })) => {
            assert_eq!(format!("{target}: {reason}"), "epochs/ in liar: it holds more than a workspace has of keys");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_that_is_too_long_does_not_keep_the_others_from_opening() {
    let long = (1..4_u8).map(|number| format!("keys/{}", uuid::Uuid::from_bytes([number; 16])));
    opened(long, vec![0; 600_000]).unwrap();
}

#[test]
fn lengths_that_a_store_makes_up_are_summed_without_overflow() {
    let root = tempfile::tempdir().unwrap();
    let packs = (1..4_u8).map(|number| format!("packs/{}", uuid::Uuid::from_bytes([number; 16])));
    let workspace = opened_in(root.path(), packs, Vec::new()).unwrap();
    let options = CollectOptions { delete: false, ..CollectOptions::default() };
    let report = workspace.collect(options, &|| false).unwrap();
    assert_eq!((report.found.bytes, report.found.dead_bytes), (u64::MAX, u64::MAX));
    assert_eq!(workspace.stored(10).unwrap().bytes, u64::MAX);
}

#[test]
fn a_bucket_gives_only_what_begins_as_was_asked() {
    let server = S3Server::start();
    let store = server.store("prefix");
    server.set_strays(&["prefix/keys", "prefix/k", "prefix/packs/x", "keys/b", "prefix/keys/c"]);
    let mut names = Vec::new();
    store.list("keys/", &mut |info| names.push(info.key.to_string())).unwrap();
    assert_eq!(names, ["keys/c"]);
}
