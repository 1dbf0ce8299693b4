//! Promise: the policies that `kura iam` prints suffice for their roles, and allow no more.

use std::sync::Arc;
use std::time::Duration;

use kura::control::{Exit, Failure};
use kura::crypto::slots::{Credential, KdfParams, NewSlot, Secret};
use kura::crypto::{Keys, Kind, Sealed};
use kura::store::{ObjectKey, ObjectStore, PutCondition, Role, StoreError, StoreUrl, policy};
use kura::workspace::{KeySlots, OpenOptions, Workspace};

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
