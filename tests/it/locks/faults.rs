//! Races, lost answers, destroyed and forged leases, copied state.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use kura::crypto::Kind;
use kura::store::{Fault, ObjectKey, ObjectStore, Operation, PutCondition, StoreError};
use kura::sync::SyncError;

use super::*;

fn lease_keys(rig: &Rig) -> Vec<ObjectKey> {
    rig.memory.snapshot().into_keys().filter(|key| key.as_str().starts_with("leases/")).collect()
}

#[test]
fn of_clients_that_lock_a_path_at_once_exactly_one_has_it() {
    let rig = Rig::new();
    let clients: Vec<Client> = (0..5).map(|number| client(&rig, &format!("c{number}"))).collect();
    for round in 0..6 {
        let path = format!("file{}", round / 2);
        let barrier = Barrier::new(clients.len());
        let winners = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for client in &clients {
                scope.spawn(|| {
                    barrier.wait();
                    match lock(&client.w, &path) {
                        Ok(()) => drop(winners.fetch_add(1, Ordering::SeqCst)),
                        Err(WorkspaceError::Sync(SyncError::Locked { .. })) => {}
                        Err(error) => panic!("{error}"),
                    }
                });
            }
        });
        assert_eq!(winners.into_inner(), 1);
        let owners: Vec<&Client> =
            clients.iter().filter(|client| client.w.locks().unwrap().iter().any(|lock| lock.is_ours)).collect();
        let [owner] = owners[..] else { panic!("{} have it", owners.len()) };
        unlock(&owner.w, &path).unwrap();
    }
}

#[test]
fn of_clients_that_lock_what_overlaps_at_once_not_two_have_it() {
    let rig = Rig::new();
    let (a, b) = (client(&rig, "a"), client(&rig, "b"));
    for _ in 0..5 {
        let barrier = Barrier::new(2);
        let try_lock = |client: &Client, path: &str| {
            barrier.wait();
            lock(&client.w, path).is_ok()
        };
        let (of_a, of_b) = std::thread::scope(|scope| {
            let other = scope.spawn(|| try_lock(&b, "d/f"));
            (try_lock(&a, "d"), other.join().unwrap())
        });
        assert!(!(of_a && of_b));
        assert_eq!(a.w.locks().unwrap().len(), usize::from(of_a) + usize::from(of_b));
        if of_a {
            unlock(&a.w, "d").unwrap();
        }
        if of_b {
            unlock(&b.w, "d/f").unwrap();
        }
    }
}

#[test]
fn a_put_that_loses_its_answer_is_read_back() {
    let (rig, a, b) = two();
    rig.set_fault(|operation, key| match operation {
        Operation::PutConditional if key.starts_with("leases/") => Fault::CommitThenLose,
        _ => Fault::Pass,
    });
    lock(&a.w, "g").unwrap();
    assert!(lock(&b.w, "g").is_err());
    unlock(&a.w, "g").unwrap();
    lock(&b.w, "g").unwrap();
}

#[test]
fn a_put_that_never_happened_locks_nothing() {
    let (rig, a, b) = two();
    rig.set_fault(|operation, key| match operation {
        Operation::PutConditional if key.starts_with("leases/") => {
            Fault::Fail(StoreError::OutcomeUnknown { key: ObjectKey::new(key).unwrap(), reason: "cut".into() })
        }
        _ => Fault::Pass,
    });
    assert!(lock(&a.w, "g").is_err());
    rig.heal();
    lock(&b.w, "g").unwrap();
}

#[test]
fn destroyed_and_swapped_leases_lock_nothing_and_stop_nothing() {
    let (rig, a, b) = two();
    lock(&a.w, "g").unwrap();
    let [first] = lease_keys(&rig).try_into().unwrap();
    let good = rig.memory.get(&first).unwrap().bytes;
    lock(&a.w, "d/f").unwrap();
    let second = lease_keys(&rig).into_iter().find(|key| *key != first).unwrap();
    let other = rig.memory.get(&second).unwrap().bytes;
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let cut = good[..good.len() - 1].to_vec();
    for bytes in [flipped(0), flipped(3), flipped(30), flipped(good.len() - 1), cut, other, vec![0; 600], Vec::new()] {
        let mut objects = rig.memory.snapshot();
        objects.insert(first.clone(), bytes);
        rig.memory.restore(objects);
        let fresh = client(&rig, "fresh");
        fresh.w.pull().unwrap();
        let paths: Vec<Vec<u8>> = fresh.w.locks().unwrap().into_iter().map(|lock| lock.path).collect();
        assert_eq!(paths, [b"d/f".to_vec()]);
        assert!(is_writable(&fresh.w, "g"));
    }
    b.w.pull().unwrap();
    write(&b.w, "g", b"nothing is locked");
    publish(&b.w);
    a.w.pull().unwrap();
    assert!(has_event(&a.w, "lock-lost"));
}

#[test]
fn no_plaintext_of_a_lease_brings_a_client_down() {
    let (rig, a, b) = two();
    lock(&a.w, "g").unwrap();
    let [key] = lease_keys(&rig).try_into().unwrap();
    let keys = rig.keys();
    let sealed = rig.memory.get(&key).unwrap().bytes;
    let good = keys.open(Kind::Lease, key.as_str().as_bytes(), &sealed).unwrap().to_vec();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..300 {
        let mut plain = if round % 2 == 0 { good.clone() } else { noise(512 + round) };
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 33) as usize % plain.len().min(80);
            plain[at] = (state >> 20) as u8;
        }
        let object = keys.seal(Kind::Lease, key.as_str().as_bytes(), &plain);
        rig.memory.put(&key, &object, PutCondition::Always).unwrap();
        for lock in b.w.locks().unwrap() {
            assert_eq!(lock.path, b"g");
        }
        b.w.status();
    }
}

#[test]
fn who_works_with_a_copy_of_the_state_has_no_locks() {
    let (rig, a, _b) = two();
    lock(&a.w, "g").unwrap();
    a.w.close(true).unwrap();
    let mut options = rig.options("a");
    options.machine = Some(kura::base::ids::Sha256([9; 32]));
    let copy = rig.try_open(options).unwrap();
    copy.pull().unwrap();
    assert!(!copy.locks().unwrap()[0].is_ours && !is_writable(&copy, "g"));
}

#[test]
fn locks_outlive_a_crash() {
    let (rig, a, b) = two();
    lock(&a.w, "g").unwrap();
    drop(a);
    let a = client(&rig, "a");
    assert!(is_writable(&a.w, "g"));
    a.w.locks().unwrap();
    assert!(a.w.locks().unwrap()[0].is_ours);
    b.w.pull().unwrap();
    assert!(!is_writable(&b.w, "g"));
    unlock(&a.w, "g").unwrap();
    b.w.pull().unwrap();
    assert!(is_writable(&b.w, "g"));
}

#[test]
fn nothing_readable_of_a_lock_is_stored() {
    let (rig, a, _b) = two();
    let secret = "a-name-that-nobody-may-read";
    lock(&a.w, secret).unwrap();
    for (key, bytes) in rig.memory.snapshot() {
        assert!(!key.as_str().contains(secret));
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{key}");
    }
    let held = std::fs::read(a.w.state_dir().join("leases")).unwrap();
    assert!(!held.windows(secret.len()).any(|window| window == secret.as_bytes()));
    let long = rig.memory.get(&lease_keys(&rig)[0]).unwrap().bytes.len();
    lock(&a.w, "s").unwrap();
    for key in lease_keys(&rig) {
        assert_eq!(rig.memory.get(&key).unwrap().bytes.len(), long, "the length of a path does not show");
    }
}
