//! Locks: who may change what, whoever dies, comes back, or is faster.

mod cases;
mod faults;
mod single_writer;

use std::sync::Arc;

use kura::base::clock::{ManualClock, Timestamp};
use kura::store::ObjectStore;
use kura::workspace::{Workspace, WorkspaceError};
use kura::worktree::{Wait, WorkError};

use crate::workspace_rig::*;

/// Half an hour: how long a lock lasts that nobody renews.
const TERM_MS: i64 = 30 * 60 * 1000;

/// A client with a clock of its own.
struct Client {
    clock: Arc<ManualClock>,
    w: Arc<Workspace>,
}

fn client(rig: &Rig, name: &str) -> Client {
    client_on(rig, rig.store.clone(), name)
}

fn client_on(rig: &Rig, store: Arc<dyn ObjectStore>, name: &str) -> Client {
    let clock = Arc::new(ManualClock::new(Timestamp::from_parts(1_800_000_000, 0)));
    let mut options = rig.options(name);
    (options.host, options.user, options.clock) = (name.to_owned(), "user".to_owned(), clock.clone());
    options.intervals.close_publish_ms = 199;
    Client { clock, w: Workspace::open_in(store, options).unwrap() }
}

/// A workspace with `d/f` and `g`, open at `a` and `b`.
fn two() -> (Rig, Client, Client) {
    let rig = Rig::new();
    let a = client(&rig, "a");
    mkdir(&a.w, "d");
    write(&a.w, "d/f", b"base of f");
    write(&a.w, "g", b"base of g");
    publish(&a.w);
    let b = client(&rig, "b");
    (rig, a, b)
}

fn lock(w: &Workspace, path: &str) -> Result<(), WorkspaceError> {
    w.lock(&[path.as_bytes().to_vec()], None, false).map(|_| ())
}

fn unlock(w: &Workspace, path: &str) -> Result<(), WorkspaceError> {
    w.unlock(&[path.as_bytes().to_vec()]).map(|lost| assert!(lost.is_empty()))
}

/// Whether a path can be opened for writing; opening changes nothing.
fn is_writable(w: &Workspace, path: &str) -> bool {
    let file = ino(w, path);
    match w.tree().open(file, true, false, 0, Wait::Yes) {
        Ok(()) => {
            w.tree().release(file, true);
            true
        }
        Err(WorkError::Locked { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

fn beside(w: &Workspace) -> Vec<String> {
    live(w).into_keys().filter(|name| name.contains("conflict-")).collect()
}

fn has_event(w: &Workspace, word: &str) -> bool {
    w.events(0).0.iter().any(|line| line.contains(&format!("\"event\":\"{word}\"")))
}
