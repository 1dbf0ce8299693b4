//! What only S3 can do wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kura::store::{Credentials, ObjectStore, PutCondition, S3Config, S3Store, StoreError, probe};

use crate::s3_server::{ACCESS_KEY, Fault, Limits, S3Server};
use crate::store_suite::{key, range, sealed};

/// Fails the first `times` requests of an operation.
fn fail_first(server: &S3Server, operation: &'static str, times: usize, fault: Fault) {
    let asked = Arc::new(AtomicUsize::new(0));
    server.set_fault(move |name, _| {
        if name == operation && asked.fetch_add(1, Ordering::SeqCst) < times { fault } else { Fault::Pass }
    });
}

fn impatient(server: &S3Server) -> S3Store {
    let config = S3Config { attempt_timeout_ms: 200, operation_timeout_ms: 500, attempts_max: 2, ..server.config("") };
    S3Store::open(config).unwrap()
}

#[test]
fn ordinary_requests_are_repeated() {
    let server = S3Server::start();
    let store = server.store("");
    for fault in
        [Fault::Status(503), Fault::Status(500), Fault::Cut, Fault::CommitThenCut, Fault::CommitThenStatus(500)]
    {
        fail_first(&server, "PutObject", 2, fault);
        store.put(&key("a"), &sealed(10), PutCondition::Always).unwrap();
        fail_first(&server, "PutObject", 2, fault);
        assert!(store.put_many(&[(key("b"), sealed(10))]).iter().all(Result::is_ok), "{fault:?}");
        fail_first(&server, "GetObject", 2, fault);
        store.get(&key("a")).unwrap();
        fail_first(&server, "DeleteObject", 2, fault);
        store.delete(&key("b")).unwrap();
        fail_first(&server, "ListObjectsV2", 2, fault);
        store.list("", &mut |_| ()).unwrap();
    }
}

#[test]
fn an_answer_that_breaks_off_is_asked_for_again() {
    let server = S3Server::start();
    let store = server.store("");
    let body = sealed(100_000);
    store.put(&key("a"), &body, PutCondition::Always).unwrap();
    fail_first(&server, "GetObject", 2, Fault::CutBody);
    assert!(store.get(&key("a")).unwrap().bytes == body.as_bytes());
    server.set_fault(|_, _| Fault::CutBody);
    assert!(matches!(store.get(&key("a")).err(), Some(StoreError::Unreachable { .. })));
}

#[test]
fn a_conditional_put_that_loses_its_answer_is_sent_once_and_can_be_read_back() {
    let server = S3Server::start();
    let store = impatient(&server);
    let mut etag = store.put(&key("HEAD"), &sealed(1), PutCondition::IfAbsent).unwrap();
    let late = Fault::Delay(Duration::from_millis(1500));
    for fault in [Fault::CommitThenStatus(500), Fault::CommitThenStatus(503), Fault::CommitThenCut, Fault::Cut, late] {
        for condition in [PutCondition::IfMatch(etag.clone()), PutCondition::IfAbsent] {
            let name = if condition == PutCondition::IfAbsent { key("fresh") } else { key("HEAD") };
            let before = server.count("PutObject");
            fail_first(&server, "PutObject", 9, fault);
            let body = sealed(2);
            let error = store.put(&name, &body, condition).unwrap_err();
            assert!(matches!(&error, StoreError::OutcomeUnknown { key, .. } if *key == name), "{fault:?}: {error}");
            assert_eq!(server.count("PutObject"), before + 1, "{fault:?}");
            let committed = matches!(fault, Fault::CommitThenStatus(_) | Fault::CommitThenCut);
            let found = store.get(&name).is_ok_and(|object| object.bytes == body.as_bytes());
            assert_eq!(found, committed, "{fault:?}");
        }
        server.set_fault(|_, _| Fault::Pass);
        store.delete(&key("fresh")).unwrap();
        etag = store.get(&key("HEAD")).unwrap().etag;
    }
}

#[test]
fn losers_hear_precondition_whatever_the_status() {
    let server = S3Server::start();
    let store = server.store("");
    let etag = store.put(&key("HEAD"), &sealed(1), PutCondition::IfAbsent).unwrap();
    for status in [409, 412] {
        server.set_fault(move |_, _| Fault::Status(status));
        for condition in [PutCondition::IfAbsent, PutCondition::IfMatch(etag.clone())] {
            let error = store.put(&key("HEAD"), &sealed(2), condition).unwrap_err();
            assert!(matches!(error, StoreError::Precondition { .. }), "{status}: {error}");
        }
    }
    // To a member of a batch, 409 only means that another request was under way.
    fail_first(&server, "PutObject", 2, Fault::Status(409));
    assert!(store.put_many(&[(key("o"), sealed(1))])[0].is_ok());
    assert!(server.objects().contains_key("o"));
}

#[test]
fn what_is_denied_is_named() {
    let server = S3Server::start();
    let store = server.store("pre/fix");
    server.set_fault(|_, _| Fault::Deny);
    let denied = |error: Option<StoreError>, action: &str| {
        let error = error.unwrap();
        let text = error.to_string();
        assert!(matches!(&error, StoreError::Denied { action: found, .. } if *found == action), "{text}");
        assert!(text.contains(action) && text.contains("AccessDenied") && text.contains("pre/fix"), "{text}");
        text
    };
    assert!(denied(store.get(&key("a/b")).err(), "s3:GetObject").contains("pre/fix/a/b"));
    denied(store.get_range(&range("a/b", 0, 1)).err(), "s3:GetObject");
    denied(store.put(&key("a/b"), &sealed(1), PutCondition::Always).err(), "s3:PutObject");
    denied(store.put(&key("a/b"), &sealed(1), PutCondition::IfAbsent).err(), "s3:PutObject");
    denied(store.put_many(&[(key("a/b"), sealed(1))]).remove(0).err(), "s3:PutObject");
    denied(store.delete(&key("a/b")).err(), "s3:DeleteObject");
    denied(store.list("a", &mut |_| ()).err(), "s3:ListBucket");
    denied(probe(&store).err(), "s3:PutObject");
}

#[test]
fn wrong_credentials_are_told_from_a_missing_store() {
    let server = S3Server::start();
    let with = |access: &str, secret: &str| {
        let credentials = Credentials { access_key_id: access.to_owned(), secret_access_key: secret.to_owned() };
        S3Store::open(S3Config { credentials: Some(credentials), ..server.config("") }).unwrap()
    };
    let text = |store: S3Store| {
        let error = store.get(&key("HEAD")).err().unwrap();
        assert!(matches!(error, StoreError::Denied { .. }), "{error}");
        error.to_string()
    };
    let wrong_secret = text(with(ACCESS_KEY, "wrong-secret"));
    assert!(
        wrong_secret.contains("secret key does not belong") && !wrong_secret.contains("wrong-secret"),
        "{wrong_secret}"
    );
    let unknown = text(with("nobody", "secret"));
    assert!(unknown.contains("does not know the access key"), "{unknown}");
    assert!(!format!("{:?}", server.config("")).contains(crate::s3_server::SECRET_KEY));

    let mut config = server.config("");
    config.address.bucket = "other-bucket".to_owned();
    let store = S3Store::open(config).unwrap();
    assert!(matches!(store.get(&key("HEAD")).err(), Some(StoreError::NoStore { .. })));
    assert!(matches!(store.list("", &mut |_| ()).err(), Some(StoreError::NoStore { .. })));
    let put = store.put(&key("HEAD"), &sealed(1), PutCondition::IfAbsent);
    assert!(matches!(put.err(), Some(StoreError::NoStore { .. })));
}

#[test]
fn an_unreachable_server_is_never_an_absent_object() {
    let server = S3Server::start();
    let mut config = S3Config { attempts_max: 2, ..server.config("") };
    config.address.endpoint = Some("http://127.0.0.1:1".to_owned());
    let store = S3Store::open(config).unwrap();
    let unreachable = |error: Option<StoreError>| {
        let error = error.unwrap();
        let named = matches!(&error, StoreError::Unreachable { store, .. } if store.contains("127.0.0.1:1"));
        assert!(named && error.is_transient(), "{error}");
    };
    unreachable(store.get(&key("a")).err());
    unreachable(store.list("", &mut |_| ()).err());
    unreachable(store.delete(&key("a")).err());
    unreachable(store.put(&key("a"), &sealed(1), PutCondition::Always).err());
    store.get_many(&[range("a", 0, 1), range("b", 0, 1)]).into_iter().for_each(|result| unreachable(result.err()));
    store.put_many(&[(key("a"), sealed(1))]).into_iter().for_each(|result| unreachable(result.err()));

    let store = impatient(&server);
    for fault in [Fault::Status(503), Fault::Status(500), Fault::Delay(Duration::from_millis(700)), Fault::Cut] {
        server.set_fault(move |_, _| fault);
        let error = store.get(&key("a")).err().unwrap();
        assert!(matches!(error, StoreError::Unreachable { .. }), "{fault:?}: {error}");
    }
    // A 404 that is not S3's own is not an absent object either.
    server.set_fault(|_, _| Fault::Status(404));
    assert!(matches!(store.get(&key("a")).err(), Some(StoreError::Invalid { .. })));
}

#[test]
fn long_bodies_go_up_in_parts() {
    let server = S3Server::start();
    let store = server.store("");
    let body = sealed(40 * 1024 * 1024);
    store.put(&key("long"), &body, PutCondition::Always).unwrap();
    assert_eq!((server.count("UploadPart"), server.count("PutObject")), (3, 0));
    assert!(server.objects()["long"] == body.as_bytes());
    assert!(store.get_range(&range("long", 17 << 20, 100)).unwrap() == body.as_bytes()[17 << 20..(17 << 20) + 100]);
    server.set_fault(|operation, _| if operation == "UploadPart" { Fault::Deny } else { Fault::Pass });
    let results = store.put_many(&[(key("short"), sealed(1)), (key("longer"), body), (key("short2"), sealed(1))]);
    assert!(results[0].is_ok() && results[2].is_ok());
    assert!(matches!(results[1], Err(StoreError::Denied { .. })));
    assert_eq!(server.unfinished_uploads(), 0);
    assert!(!server.objects().contains_key("longer"));
}

#[test]
fn a_batch_runs_in_parallel_with_a_bound() {
    let server = S3Server::start();
    let store = S3Store::open(S3Config { concurrency: 5, ..server.config("") }).unwrap();
    server.set_fault(|_, _| Fault::Delay(Duration::from_millis(20)));
    let batch: Vec<_> = (0..40).map(|i| (key(&format!("o/{i}")), sealed(i))).collect();
    assert!(store.put_many(&batch).iter().all(Result::is_ok));
    assert_eq!(server.most_at_once(), 5);
    assert_eq!(server.count("PutObject"), 40);
}

#[test]
fn servers_that_do_not_keep_conditions_are_found() {
    let ignoring = S3Server::start();
    ignoring.ignore_conditions();
    assert!(!probe(&ignoring.store("")).unwrap().conditional);
    assert!(ignoring.objects().is_empty());
    let racy = S3Server::start();
    racy.check_without_lock();
    assert!(!probe(&racy.store("")).unwrap().conditional);
    assert!(racy.objects().is_empty());
    let unquoting = S3Server::start();
    unquoting.compare_unquoted();
    let store = unquoting.store("");
    let found = probe(&store).unwrap();
    assert!(found.conditional && found.unquoted_etags);
    let etag = store.put(&key("HEAD"), &sealed(1), PutCondition::IfAbsent).unwrap();
    store.put(&key("HEAD"), &sealed(2), PutCondition::IfMatch(etag)).unwrap();
}

#[test]
fn a_slow_line_carries_everything() {
    let server = S3Server::start();
    server.set_limits(Some(Limits { latency: Duration::from_millis(2), bytes_per_second: 20 << 20 }));
    let store = server.store("");
    let batch: Vec<_> = (0..20).map(|i| (key(&format!("o/{i}")), sealed(10_000))).collect();
    assert!(store.put_many(&batch).iter().all(Result::is_ok));
    let requests: Vec<_> = (0..20).map(|i| range(&format!("o/{i}"), 0, 1 << 20)).collect();
    let parts = store.get_many(&requests);
    assert!(parts.iter().zip(&batch).all(|(part, (_, body))| part.as_ref().unwrap() == body.as_bytes()));
    assert_eq!(server.count_all(), 40);
}

#[test]
fn without_credentials_the_message_says_so() {
    // The environment decides about credentials, so this runs in a process with one of its own.
    let home = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store_s3::in_a_process_without_credentials", "--ignored", "--nocapture"])
        .env_clear()
        .env("HOME", home.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by the test before it, in a process of its own"]
fn in_a_process_without_credentials() {
    let server = S3Server::start();
    let store = S3Store::open(S3Config { credentials: None, ..server.config("") }).unwrap();
    for error in [
        store.get(&key("HEAD")).err().unwrap(),
        store.put(&key("HEAD"), &sealed(1), PutCondition::IfAbsent).err().unwrap(),
    ] {
        let text = error.to_string();
        assert!(matches!(error, StoreError::Denied { .. }), "{text}");
        assert!(text.contains("no usable credentials"), "{text}");
    }
    assert_eq!(server.count_all(), 0);
}
