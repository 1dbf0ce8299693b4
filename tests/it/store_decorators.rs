//! Counting, repeating and failing on purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kura::store::{
    Fault, FaultStore, MemoryStore, MetricsStore, ObjectStore, Operation, PutCondition, RetryPolicy, RetryStore,
    StoreError, probe,
};

use crate::store_suite::{key, names, range, sealed};

const QUICK: RetryPolicy = RetryPolicy { attempts_max: 4, delay_first_ms: 1, delay_max_ms: 2 };

/// A store that fails every request `times` times, then lets them through; and its request counter.
fn flaky(times: usize, fault: Fault) -> (RetryStore, Arc<AtomicUsize>, Arc<MemoryStore>) {
    let (memory, asked) = (Arc::new(MemoryStore::new()), Arc::new(AtomicUsize::new(0)));
    let counter = asked.clone();
    let faults = FaultStore::new(memory.clone(), move |_, _| {
        if counter.fetch_add(1, Ordering::SeqCst) < times { fault.clone() } else { Fault::Pass }
    });
    (RetryStore::new(Arc::new(faults), QUICK), asked, memory)
}

#[test]
fn requests_and_bytes_are_counted() {
    let store = MetricsStore::new(Arc::new(MemoryStore::new()));
    let body = sealed(100);
    store.put(&key("a"), &body, PutCondition::IfAbsent).unwrap();
    store.put(&key("a"), &body, PutCondition::IfAbsent).unwrap_err();
    store.put_many(&[(key("b"), body.clone()), (key("c"), body.clone())]);
    let etag = store.get(&key("a")).unwrap().etag;
    assert!(store.get_if_changed(&key("a"), &etag).unwrap().is_none());
    store.get_many(&[range("a", 0, 10), range("b", 0, 5)]);
    store.get_range(&range("none", 0, 10)).unwrap_err();
    store.list("", &mut |_| ()).unwrap();
    store.delete(&key("a")).unwrap();
    let counts = store.snapshot();
    let len = body.len() as u64;
    assert_eq!((counts.put.requests, counts.put.bytes, counts.put.errors), (4, 3 * len, 0));
    assert_eq!((counts.get.requests, counts.get.bytes), (2, len));
    assert_eq!((counts.get_range.requests, counts.get_range.bytes, counts.get_range.errors), (3, 15, 0));
    assert_eq!((counts.list.requests, counts.delete.requests), (1, 1));

    let failing = FaultStore::new(Arc::new(MemoryStore::new()), |_, _| Fault::Unreachable);
    let store = MetricsStore::new(Arc::new(failing));
    store.get(&key("a")).map(|_| ()).unwrap_err();
    assert_eq!((store.snapshot().get.errors, store.snapshot().get.bytes), (1, 0));
}

#[test]
fn a_passing_failure_is_repeated_and_a_lasting_one_ends() {
    let (store, _, _) = flaky(3, Fault::Unreachable);
    store.put(&key("a"), &sealed(1), PutCondition::Always).unwrap();
    let (store, asked, _) = flaky(1000, Fault::Unreachable);
    assert!(matches!(store.get(&key("a")).err(), Some(StoreError::Unreachable { .. })));
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    let (store, asked, _) = flaky(0, Fault::Pass);
    assert!(matches!(store.get(&key("a")).err(), Some(StoreError::NotFound { .. })));
    assert_eq!(asked.load(Ordering::SeqCst), 1, "an answer is not repeated");
}

#[test]
fn a_conditional_put_is_never_repeated() {
    let (store, asked, memory) = flaky(1, Fault::CommitThenLose);
    let body = sealed(1);
    let error = store.put(&key("HEAD"), &body, PutCondition::IfAbsent).unwrap_err();
    assert!(matches!(error, StoreError::OutcomeUnknown { .. }));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(memory.get(&key("HEAD")).unwrap().bytes == body.as_bytes());
    let (store, asked, _) = flaky(1, Fault::Unreachable);
    store.put(&key("HEAD"), &body, PutCondition::IfAbsent).unwrap_err();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let (store, _, _) = flaky(2, Fault::CommitThenLose);
    store.put(&key("HEAD"), &body, PutCondition::Always).unwrap();
}

#[test]
fn only_the_failed_members_of_a_batch_are_repeated() {
    let (store, asked, memory) = flaky(2, Fault::CommitThenLose);
    let batch: Vec<_> = (0..5).map(|i| (key(&format!("o/{i}")), sealed(i))).collect();
    assert!(store.put_many(&batch).iter().all(Result::is_ok));
    assert_eq!(asked.load(Ordering::SeqCst), 7);
    assert_eq!(names(&*memory, "").len(), 5);
    let requests: Vec<_> = (0..5).map(|i| range(&format!("o/{i}"), 0, 1000)).collect();
    let parts = store.get_many(&requests);
    assert!(parts.iter().zip(&batch).all(|(part, (_, body))| part.as_ref().unwrap() == body.as_bytes()));
}

#[test]
fn a_listing_is_not_handed_out_twice() {
    let (store, _, memory) = flaky(2, Fault::CommitThenLose);
    memory.put(&key("a"), &sealed(1), PutCondition::Always).unwrap();
    let mut seen = 0;
    let result = store.list("", &mut |_| seen += 1);
    assert!(seen == 1 && result.is_err(), "it was handed out, so it is not begun again");
    let (store, _, memory) = flaky(2, Fault::Unreachable);
    memory.put(&key("a"), &sealed(1), PutCondition::Always).unwrap();
    assert_eq!(names(&store, "").len(), 1);
}

#[test]
fn a_probe_survives_lost_answers_and_says_what_is_denied() {
    let asked = AtomicUsize::new(0);
    let lossy = FaultStore::new(Arc::new(MemoryStore::new()), move |operation, _| match operation {
        Operation::PutConditional if asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(3) => Fault::CommitThenLose,
        _ => Fault::Pass,
    });
    assert!(probe(&lossy).unwrap().conditional);

    let denied = StoreError::Denied { action: "s3:DeleteObject", target: "x".into(), reason: "no".into() };
    let memory = Arc::new(MemoryStore::new());
    let no_delete = FaultStore::new(memory.clone(), move |operation, _| match operation {
        Operation::Delete => Fault::Fail(denied.clone()),
        _ => Fault::Pass,
    });
    for _ in 0..3 {
        let found = probe(&no_delete).unwrap();
        assert!(found.conditional && !found.delete);
        assert_eq!(names(&*memory, "").len(), 4, "the same few objects stay");
    }

    let down = FaultStore::new(Arc::new(MemoryStore::new()), |_, _| Fault::Unreachable);
    assert!(matches!(probe(&down).err(), Some(StoreError::Unreachable { .. })));
}
