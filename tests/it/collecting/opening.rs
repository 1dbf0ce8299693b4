//! What a client believes of collections when it does not remember which it knows.

use std::sync::Arc;

use kura::base::disk::RealDisk;
use kura::sync::{ClientMemory, CollectOptions};
use kura::version::retention::Retention;
use kura::workspace::Workspace;
use kura::worktree::Wait;

use crate::workspace_rig::*;

/// Which collection a client that is closed was checked against.
fn known(rig: &Rig, state: &str, id: &str) -> Option<u64> {
    let dir = rig.dir.path().join(state).join(id);
    ClientMemory::open(Arc::new(RealDisk), &dir, rig.keys(), None).unwrap().0.collection()
}

#[test]
fn a_client_that_forgot_which_collection_it_knows_trusts_head_only_when_nothing_waits() {
    let waits: [fn(&Workspace); 3] = [
        |_| {},
        |w| {
            write(w, "recorded", &noise(400_000));
            snapshot(w);
        },
        |w| {
            let file = ino(w, "f");
            w.tree().open(file, true, false, 0, Wait::Yes).unwrap();
            w.tree().write(file, 0, b"a draft", 0, Wait::Yes).unwrap();
            w.tree().log_drafts().unwrap();
        },
    ];
    for (number, wait) in waits.into_iter().enumerate() {
        let rig = Rig::new();
        let w = rig.open("state");
        for round in 0..3 {
            write(&w, "f", &crate::space::noise(400_000, round));
            snapshot(&w);
        }
        w.forget(&Retention { last: 1, ..Retention::default() }, false).unwrap();
        publish(&w);
        w.collect(CollectOptions { delete: true, grace_ms: 0, sparse_percent: 50 }, &|| false).unwrap();
        publish(&w);
        let id = w.id().to_string();
        wait(&w);
        rig.set_fault(|_, _| kura::store::Fault::Unreachable);
        w.close(false).unwrap();
        drop(w);
        rig.heal();
        assert_eq!(known(&rig, "state", &id), Some(1));
        std::fs::remove_file(rig.dir.path().join("state").join(&id).join("refs")).unwrap();
        let w = rig.open("state");
        let trusted = known(&rig, "state", &id);
        assert_eq!(trusted, (number == 0).then_some(1), "case {number}");
        // Whatever waits is looked up in the store before it is published.
        write(&w, "later", b"later");
        snapshot(&w);
        publish(&w);
        assert_eq!(known(&rig, "state", &id), Some(1));
        whole(&rig.memory);
    }
}
