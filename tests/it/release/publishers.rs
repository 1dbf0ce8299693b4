//! What publishers know of their repository: that an older copy was put back, and that another was faster.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use kura::apps::release::{Change, DirRepository, Expiry, ReleaseError, Repository, Request, Rollout, Signer};
use serde_json::json;

use super::attacks::copy;
use super::support::{CHANNEL, World, run};
use crate::workspace_rig as ws;

fn renewal(world: &World) -> Request {
    let ((repository, keys), channel) = (world.at(), CHANNEL.to_owned());
    Request::Channel { repository, keys, channel, windows: None, min_epoch: Default::default() }
}

#[test]
fn an_older_copy_that_was_put_back_is_not_signed_anew() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    let (older, newest) = (world.path("older"), world.path("newest"));
    copy(&world.repository(), &older);
    world.change("tool@1.0.0", Change::Revoke("it leaks".to_owned()));
    copy(&world.repository(), &newest);
    let timestamp = world.repository().join("metadata/timestamp.json");
    let refused = |request: &Request| {
        let before = fs::read(&timestamp).ok();
        let error = run(&world.client, request).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ReleaseError::Untrusted { .. }) && text.contains("something older"), "{text}");
        assert!(text.contains("(targets 1, snapshot 1") || text.contains("(targets 0"), "{text}");
        assert_eq!(fs::read(&timestamp).ok(), before, "nothing was signed");
    };
    let dir = world.package("tool", "1.1.0", json!({}), &[("t", "2")]);
    let ((repository, keys), channel) = (world.at(), CHANNEL.to_owned());
    let publish = Request::Publish { dir, repository, keys, channel, rollout: Rollout::default() };
    copy(&older, &world.repository());
    refused(&renewal(&world));
    refused(&publish);
    // Nor is a repository that is said to be empty.
    fs::remove_file(&timestamp).unwrap();
    refused(&renewal(&world));
    refused(&publish);
    // What is there as it was is renewed.
    copy(&newest, &world.repository());
    run(&world.client, &renewal(&world)).unwrap();
    // Another place has its own count.
    let elsewhere = world.path("elsewhere").to_str().unwrap().to_owned();
    let Request::Publish { dir, keys, channel, rollout, .. } = publish else { panic!() };
    run(&world.client, &Request::Publish { dir, repository: elsewhere, keys, channel, rollout }).unwrap();
    // Whoever put the older copy back and means it says so.
    copy(&older, &world.repository());
    refused(&renewal(&world));
    fs::remove_file(world.keys().join("repositories.json")).unwrap();
    run(&world.client, &renewal(&world)).unwrap();
}

/// A repository into which another publishes when this one is about to.
struct Beside<'a>(DirRepository, AtomicBool, &'a (dyn Fn() + Sync));

impl Repository for Beside<'_> {
    fn get(&self, name: &str, len_max: u64) -> Result<Option<Vec<u8>>, ReleaseError> {
        self.0.get(name, len_max)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), ReleaseError> {
        if !self.1.swap(true, Ordering::SeqCst) {
            (self.2)();
        }
        self.0.put(name, bytes)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, ReleaseError> {
        self.0.create(name, bytes)
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
fn of_two_publishers_at_once_the_second_is_told_and_loses_nothing_of_the_first() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.follow();
    let theirs = world.path("theirs");
    copy(&world.keys(), &theirs);
    let first = || {
        let dir = world.package("tool", "1.1.0", json!({}), &[("t", "2")]);
        let (repository, channel) = (world.at().0, CHANNEL.to_owned());
        let keys = theirs.to_str().unwrap().to_owned();
        run(&world.client, &Request::Publish { dir, repository, keys, channel, rollout: Rollout::default() }).unwrap();
    };
    let publish = |keys: &Path, repository: &dyn Repository| {
        let signer = Signer::open(keys, Expiry::default()).unwrap();
        // Signed a little later, so that no byte is the same by chance.
        signer.publish(repository, &[], jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60))
    };
    let repository = Beside(DirRepository(world.repository()), AtomicBool::new(false), &first);
    let error = publish(&world.keys(), &repository).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ReleaseError::Stale { .. }) && text.contains("another publisher was faster"), "{text}");
    world.install(&["tool"]).unwrap();
    assert_eq!(ws::read(&world.client, "t"), b"2");
    // It runs again, and follows.
    publish(&world.keys(), &repository).unwrap();
    world.update().unwrap();
    assert_eq!(ws::read(&world.client, "t"), b"2");
}
