//! Promise: whatever names and lengths a store lists, nobody panics and no memory is taken without bound.

use std::path::PathBuf;
use std::sync::Arc;

use kura::base::ids::SlotId;
use kura::base::sim_disk::SimDisk;
use kura::crypto::Sealed;
use kura::store::{
    ETag, MemoryStore, Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, RangeRequest, Result, StoreError,
    StoreUrl,
};
use kura::sync::CollectOptions;
use kura::workspace::{OpenOptions, Workspace, WorkspaceError};

use crate::s3_server::S3Server;
use crate::workspace_rig::{init_options, passphrase};

/// A store that lists more than it has, whatever was asked for, and says of objects what it likes.
#[derive(Default)]
struct Lying {
    inner: MemoryStore,
    /// Names and lengths that every listing has.
    listed: Vec<(String, u64)>,
    /// What is at names below `keys/` that are listed and not there.
    content: Vec<u8>,
}

impl ObjectStore for Lying {
    fn get(&self, key: &ObjectKey) -> Result<Object> {
        let is_listed = self.listed.iter().any(|(name, _)| key.as_str() == name);
        match self.inner.get(key) {
            Err(StoreError::NotFound { .. }) if is_listed => {
                Ok(Object { bytes: self.content.clone(), etag: ETag("1".to_owned()) })
            }
            found => found,
        }
    }

    fn get_if_changed(&self, key: &ObjectKey, etag: &ETag) -> Result<Option<Object>> {
        self.inner.get_if_changed(key, etag)
    }

    fn get_range(&self, request: &RangeRequest) -> Result<Vec<u8>> {
        self.inner.get_range(request)
    }

    fn put(&self, key: &ObjectKey, sealed: &Sealed, condition: PutCondition) -> Result<ETag> {
        self.inner.put(key, sealed, condition)
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.inner.delete(key)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<()> {
        self.inner.list(prefix, each)?;
        for (name, len) in &self.listed {
            each(ObjectInfo { key: ObjectKey::new(name.clone()).unwrap(), len: *len, modified: None });
        }
        Ok(())
    }

    fn concurrency(&self) -> usize {
        1
    }

    fn is_local(&self) -> bool {
        true
    }

    fn address(&self) -> &str {
        "lying"
    }
}

/// Opens a workspace on a store that lists these names and lengths, too.
fn open(listed: Vec<(String, u64)>, content: Vec<u8>) -> std::result::Result<Arc<Workspace>, WorkspaceError> {
    let store = Lying { listed, content, ..Lying::default() };
    Workspace::init_in(&store.inner, init_options()).unwrap();
    let (state, cache) = (PathBuf::from("/local/state"), PathBuf::from("/local/cache"));
    let url = StoreUrl::Dir("/store".into());
    let mut options = OpenOptions::new(url, state, cache, Box::new(|| Ok(passphrase())));
    options.disk = Arc::new(SimDisk::new(1));
    Workspace::open_in(Arc::new(store), options)
}

#[track_caller]
fn refused(listed: Vec<(String, u64)>, content: Vec<u8>, expected: &str) {
    let error = open(listed, content).err().unwrap().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn names_that_nobody_asked_for_are_passed_over_at_the_opening() {
    let id = SlotId::random();
    let strange = ["k", "keys", "epochs", "HEAD", "a", "epochs/x/1", "keys/zz", "keysx/1", "epochs/00", "epochs/-1"];
    let of_others = [format!("packs/{id}"), format!("xkeys/{id}"), format!("keys/{id}/1"), format!("other/keys/{id}")];
    let listed = strange.map(str::to_owned).into_iter().chain(of_others);
    open(listed.map(|name| (name, 5)).collect(), Vec::new()).unwrap();
}

#[test]
fn more_key_objects_than_there_can_be_are_refused_before_they_are_read() {
    let slots = (0..257).map(|_| (format!("keys/{}", SlotId::random()), 5)).collect();
    refused(slots, Vec::new(), "keys/: unexpected answer from the store: more than 256 objects");
    let epochs = (0..5000).map(|number| (format!("epochs/{number}"), 5)).collect();
    refused(epochs, Vec::new(), "epochs/: unexpected answer from the store: more than 4096 objects");
    // One name a thousand times is one name.
    let again = vec![(format!("keys/{}", SlotId::random()), 5); 1000];
    open(again, vec![0; 5]).unwrap();
}

#[test]
fn key_objects_that_are_too_long_are_refused() {
    let name = format!("keys/{}", SlotId::random());
    let expected = format!("{name}: unexpected answer from the store: it is longer than 524288 bytes");
    refused(vec![(name.clone(), 1 << 40)], Vec::new(), &expected);
    refused(vec![(name, 5)], vec![0; 524_289], &expected);
}

#[test]
fn lengths_that_a_store_makes_up_are_summed_without_overflow() {
    let packs = (0..3).map(|_| (format!("packs/{}", SlotId::random()), u64::MAX)).collect();
    let workspace = open(packs, Vec::new()).unwrap();
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
