//! Promise: the policies that `kura iam` prints suffice for their roles, and allow no more.

use std::sync::Arc;
use std::time::Duration;

use kura::control::{Exit, Failure, Request};
use kura::crypto::slots::{Credential, KdfParams, NewSlot, Secret};
use kura::crypto::{Keys, Kind, Sealed};
use kura::store::{
    Credentials, ObjectKey, ObjectStore, PutCondition, Role, S3Config, S3Store, StoreError, StoreUrl, policy,
};
use kura::sync::CollectOptions;
use kura::version::retention::Retention;
use kura::workspace::{KeySlots, OpenOptions, Sample, Workspace};

use super::s3_server::{BUCKET, S3Server};
use super::space;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).unwrap()
}

fn some_object() -> Sealed {
    Keys::ephemeral(kura::base::ids::WorkspaceId::random()).seal(Kind::App, b"x", b"x")
}

fn denied<T>(answer: Result<T, StoreError>, action: &str, name: &str) {
    let error = answer.map(|_| ()).unwrap_err();
    assert!(matches!(&error, StoreError::Denied { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(action) && text.contains(name), "{text}");
    assert_eq!(Failure::from(error).exit, Exit::Denied);
}

fn options(dir: &tempfile::TempDir) -> OpenOptions {
    space::open_options(StoreUrl::Dir("/nowhere/bucket".into()), dir.path())
}

#[test]
fn a_maintainer_makes_the_workspace_and_each_role_does_its_part() {
    let server = S3Server::start();
    let store: Arc<dyn ObjectStore> = Arc::new(server.store("team/work"));
    let root = tempfile::tempdir().unwrap();
    server.set_policy(policy(Role::Maintainer, BUCKET, "team/work", true));
    let writer = space::create(store.clone(), &root.path().join("writer"));
    let slots = KeySlots::open_in(store.clone(), &options(&root)).unwrap();
    let bob = Credential::Passphrase(Secret::from_text("bob's words".to_owned()));
    let bob = slots.add(&NewSlot { label: "bob".to_owned(), credential: bob }, KdfParams::minimum()).unwrap();
    slots.revoke(bob).unwrap();

    server.set_policy(policy(Role::Writer, BUCKET, "team/work", true));
    space::write(&writer, "file", &space::noise(700_000, 1));
    writer.snapshot(Some("by a writer".to_owned()), None).unwrap();
    assert_eq!(writer.flush(Some(Duration::from_secs(60))).unwrap().unpublished_versions, 0);
    for (name, _) in server.objects() {
        let name = name.strip_prefix("team/work/").unwrap();
        denied(store.delete(&key(name)), "s3:DeleteObject", name);
        denied(store.put(&key(name), &some_object(), PutCondition::Always), "s3:PutObject", name);
        // A put that must not replace anything is allowed, and replaces nothing.
        let answer = store.put(&key(name), &some_object(), PutCondition::IfAbsent);
        assert!(matches!(answer, Err(StoreError::Precondition { .. })), "{answer:?}");
    }
    store.put(&key("leases/ab"), &some_object(), PutCondition::Always).unwrap();
    store.delete(&key("leases/ab")).unwrap();

    server.set_policy(policy(Role::Reader, BUCKET, "team/work", true));
    let reader = Workspace::open_in(
        store.clone(),
        OpenOptions {
            read_only: true,
            ..space::open_options(StoreUrl::Dir("/nowhere".into()), &root.path().join("r"))
        },
    );
    let reader = reader.unwrap();
    let latest = reader.select("latest").unwrap();
    assert_eq!(space::manifest(&reader, latest).unwrap().len(), 1);
    denied(store.put(&key("packs/x"), &some_object(), PutCondition::IfAbsent), "s3:PutObject", "packs/x");
    denied(store.delete(&key("HEAD")), "s3:DeleteObject", "HEAD");
    // A writer who may only read: told what is missing, and nothing is lost.
    space::write(&writer, "more", b"kept here");
    let report = writer.flush(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(report.unpublished_versions, 1);
    assert!(report.reason.unwrap().contains("s3:PutObject"), "the missing permission is named");
    server.set_policy(policy(Role::Writer, BUCKET, "team/work", true));
    assert_eq!(writer.flush(Some(Duration::from_secs(60))).unwrap().unpublished_versions, 0);

    server.set_policy(policy(Role::Maintainer, BUCKET, "team/work", true));
    store.delete(&key("probe/nothing")).unwrap();
}

#[test]
fn a_role_reaches_nothing_outside_of_its_prefix() {
    let server = S3Server::start();
    let other = server.store("team/other");
    for role in [Role::Reader, Role::Writer, Role::Maintainer] {
        server.set_policy(policy(role, BUCKET, "team/work", true));
        denied(other.get(&key("HEAD")), "s3:GetObject", "HEAD");
        denied(other.put(&key("HEAD"), &some_object(), PutCondition::IfAbsent), "s3:PutObject", "HEAD");
        denied(other.delete(&key("HEAD")), "s3:DeleteObject", "HEAD");
        let listed = other.list("", &mut |_| {});
        assert!(matches!(listed, Err(StoreError::Denied { .. })), "{listed:?}");
    }
}

/// A workspace whose earlier versions hold what the newest does not, all published.
fn with_garbage(store: &Arc<dyn ObjectStore>, root: &tempfile::TempDir) -> Arc<Workspace> {
    let w = space::create(store.clone(), &root.path().join("maintainer"));
    for round in 0..4 {
        space::write(&w, "large", &space::noise(400_000, round));
        space::write(&w, "small", &space::noise(5_000, 100 + round));
        w.snapshot(None, None).unwrap();
    }
    assert_eq!(w.flush(SOON).unwrap().unpublished_versions, 0);
    w
}

const SOON: Option<Duration> = Some(Duration::from_secs(60));
const NOW: CollectOptions = CollectOptions { delete: true, grace_ms: 0, sparse_percent: 50 };

#[test]
fn a_maintainer_forgets_collects_and_scrubs() {
    let server = S3Server::start();
    let store: Arc<dyn ObjectStore> = Arc::new(server.store("team/work"));
    let root = tempfile::tempdir().unwrap();
    server.set_policy(policy(Role::Maintainer, BUCKET, "team/work", true));
    let w = with_garbage(&store, &root);
    let full = server.objects().len();
    assert!(w.scrub(1 << 30).unwrap().starts_with("nothing wrong"));
    let last = Retention { last: 1, ..Retention::default() };
    assert!(!w.forget(&last, false).unwrap().forgotten.is_empty());
    w.set_retention(Some(&last)).unwrap();
    assert_eq!(w.flush(SOON).unwrap().unpublished_versions, 0);
    let told = w.maintain(Some(0), &|| false).unwrap();
    assert!(told.contains("objects deleted") && !told.contains(" 0 objects deleted"), "{told}");
    assert!(server.objects().len() < full, "{} of {full}", server.objects().len());
    assert!(w.scrub(1 << 30).unwrap().starts_with("nothing wrong"));
    assert!(w.check(Sample::Percent(100)).unwrap().problems.is_empty());
}

#[test]
fn a_writer_who_collects_is_refused_and_nothing_is_lost() {
    let server = S3Server::start();
    let store: Arc<dyn ObjectStore> = Arc::new(server.store("team/work"));
    let root = tempfile::tempdir().unwrap();
    server.set_policy(policy(Role::Maintainer, BUCKET, "team/work", true));
    let w = with_garbage(&store, &root);
    w.forget(&Retention { last: 1, ..Retention::default() }, false).unwrap();
    assert_eq!(w.flush(SOON).unwrap().unpublished_versions, 0);
    let gc = |w: &Workspace| kura::control::run(w, &Request::Gc { delete: true, grace_ms: Some(0) });
    let refused = |w: &Workspace, named: [&str; 2]| {
        let before: Vec<String> = server.objects().into_keys().collect();
        server.set_policy(policy(Role::Writer, BUCKET, "team/work", true));
        let failure = gc(w);
        assert_eq!(failure.exit, Exit::Denied.code(), "{failure:?}");
        assert!(named.iter().all(|word| failure.message.contains(word)), "{failure:?}");
        assert!(failure.hint.as_ref().is_some_and(|hint| hint.contains("maintainer")), "{failure:?}");
        let now = server.objects();
        assert!(before.iter().all(|name| now.contains_key(name)), "something is gone");
        // Looking is what a writer may do, and writing goes on.
        w.collect(CollectOptions { delete: false, ..NOW }, &|| false).unwrap();
        space::write(w, "goes on", &space::noise(3000, 9));
        w.snapshot(None, None).unwrap();
        assert_eq!(w.flush(SOON).unwrap().unpublished_versions, 0);
        assert!(w.check(Sample::Percent(100)).unwrap().problems.is_empty());
        server.set_policy(policy(Role::Maintainer, BUCKET, "team/work", true));
    };
    refused(&w, ["s3:PutObject", "condemned/"]);
    // A maintainer has taken names out of existence, and a writer comes to delete them.
    w.collect(CollectOptions { grace_ms: 24 * 3600 * 1000, ..NOW }, &|| false).unwrap();
    refused(&w, ["s3:DeleteObject", "team/work/"]);
    assert!(w.collect(NOW, &|| false).unwrap().deleted > 0);
    assert!(w.check(Sample::Percent(100)).unwrap().problems.is_empty());
}

#[test]
fn a_reader_collects_and_forgets_nothing() {
    let server = S3Server::start();
    let store: Arc<dyn ObjectStore> = Arc::new(server.store("team/work"));
    let root = tempfile::tempdir().unwrap();
    server.set_policy(policy(Role::Maintainer, BUCKET, "team/work", true));
    let w = with_garbage(&store, &root);
    let before = server.objects();
    server.set_policy(policy(Role::Reader, BUCKET, "team/work", true));
    w.forget(&Retention { last: 1, ..Retention::default() }, false).unwrap();
    let flushed = w.flush(SOON).unwrap();
    assert!(flushed.reason.is_some_and(|reason| reason.contains("s3:PutObject")), "forgetting is published");
    let failure = Failure::from(w.collect(NOW, &|| false).unwrap_err());
    assert_eq!(failure.exit, Exit::Denied);
    assert!(server.objects() == before, "a reader changes nothing");
    assert!(w.scrub(1 << 30).unwrap().starts_with("nothing wrong"));
}

/// A store as one of the users that `KURA_TEST_S3_READER`, `_WRITER` and `_MAINTAINER` name (`ACCESS_KEY:SECRET_KEY`).
fn as_user(url: &str, role: &str) -> Arc<dyn ObjectStore> {
    let StoreUrl::S3(address) = url.parse().unwrap() else { panic!("KURA_TEST_S3 is no address of S3") };
    let user = std::env::var(format!("KURA_TEST_S3_{role}")).unwrap();
    let (access_key_id, secret_access_key) = user.split_once(':').unwrap();
    let credentials =
        Credentials { access_key_id: access_key_id.to_owned(), secret_access_key: secret_access_key.to_owned() };
    Arc::new(S3Store::open(S3Config { credentials: Some(credentials), ..S3Config::new(address) }).unwrap())
}

/// On the server of `KURA_TEST_S3`, whose users have the policies of their roles (with `--without-conditions` where the
/// server does not know these).
#[test]
fn each_role_does_its_part_on_the_server_of_the_environment() {
    let Ok(url) = std::env::var("KURA_TEST_S3").map(|url| url.replacen('?', "/roles?", 1)) else { return };
    if std::env::var_os("KURA_TEST_S3_WRITER").is_none() {
        return;
    }
    let [reader, writer, maintainer] = ["READER", "WRITER", "MAINTAINER"].map(|role| as_user(&url, role));
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let w = space::create(maintainer.clone(), &at("maintainer"));
    let by_writer = space::open(writer.clone(), &at("writer")).unwrap();
    for round in 0..4 {
        space::write(&by_writer, "large", &space::noise(400_000, round));
        by_writer.snapshot(None, None).unwrap();
        assert_eq!(by_writer.flush(SOON).unwrap().unpublished_versions, 0, "{round}");
    }
    let mut names = Vec::new();
    writer.list("", &mut |info| names.push(info.key)).unwrap();
    for name in names.iter().filter(|name| !name.as_str().starts_with("leases/")) {
        denied(writer.delete(name), "s3:DeleteObject", name.as_str());
        assert!(writer.put(name, &some_object(), PutCondition::IfAbsent).is_err(), "{name} is replaced");
        denied(reader.put(name, &some_object(), PutCondition::Always), "s3:PutObject", name.as_str());
        denied(reader.delete(name), "s3:DeleteObject", name.as_str());
    }
    let options = OpenOptions { read_only: true, ..space::open_options(StoreUrl::Dir("/nowhere".into()), &at("r")) };
    let read = Workspace::open_in(reader.clone(), options).unwrap();
    assert_eq!(space::manifest(&read, read.select("latest").unwrap()).unwrap().len(), 1);
    w.pull().unwrap();
    w.forget(&Retention { last: 1, ..Retention::default() }, false).unwrap();
    assert_eq!(w.flush(SOON).unwrap().unpublished_versions, 0);
    by_writer.pull().unwrap();
    assert_eq!(Failure::from(by_writer.collect(NOW, &|| false).unwrap_err()).exit, Exit::Denied);
    let report = w.collect(NOW, &|| false).unwrap();
    println!("{} objects deleted of {}", report.deleted, names.len());
    assert!(report.deleted > 0);
    assert!(w.check(Sample::Percent(100)).unwrap().problems.is_empty());
}
