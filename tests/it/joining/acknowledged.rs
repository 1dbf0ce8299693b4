//! What is acknowledged before, while and after others' changes come in, also when that fails half-way.

use std::sync::Arc;

use kura::base::sim_disk::{Crash, SimDisk};
use kura::store::{Fault, Operation};
use kura::version::entry::Ino;
use kura::workspace::{KeySlots, Workspace};
use kura::worktree::{NewNode, Wait};

use crate::rig::meanwhile;
use crate::workspace_rig::*;

fn open(rig: &Rig, state: &str, disk: &SimDisk) -> Arc<Workspace> {
    let mut options = rig.options(state);
    options.disk = Arc::new(disk.clone());
    rig.try_open(options).unwrap()
}

/// Another client published something, and this one is writing to a file that there was and to a new one.
fn writing(seed: u64) -> (Rig, SimDisk, Arc<Workspace>, [Ino; 2]) {
    let rig = Rig::new();
    let a = rig.open("a");
    write(&a, "there", b"base");
    write(&a, "g", b"g");
    publish(&a);
    let sim = SimDisk::new(seed);
    let b = open(&rig, "b", &sim);
    let there = ino(&b, "there");
    b.tree().open(there, true, false, 0, Wait::Yes).unwrap();
    let new = b.tree().make(Ino::ROOT, b"new", &NewNode::File, 0o644, ME, true, Wait::Yes).unwrap().ino;
    snapshot(&b);
    publish(&b);
    a.pull().unwrap();
    write(&a, "g", b"by a");
    publish(&a);
    for file in [there, new] {
        b.tree().write(file, 0, b"late", 0, Wait::Yes).unwrap();
    }
    (rig, sim, b, [there, new])
}

#[test]
fn what_was_written_before_joining_and_closed_in_its_middle_survives_a_kill() {
    for step in 0.. {
        let (rig, sim, b, files) = writing(step);
        let (closing, dying, begin) = (b.clone(), sim.clone(), sim.steps());
        let done = meanwhile(&sim, begin + step, move || {
            for file in files {
                closing.tree().log(file, Wait::Yes)?;
            }
            dying.crash_at(0);
            Ok(())
        });
        b.pull().ok();
        if sim.steps() <= begin + step && !sim.has_crashed() {
            break;
        }
        assert_eq!(done.recv(), Ok(true), "step {step}");
        drop(b);
        let b = open(&rig, "b", &sim.reopen(Crash::Kill));
        for name in ["there", "new"] {
            assert_eq!(read(&b, name), b"late", "step {step}: {name}");
        }
    }
}

#[test]
fn what_is_closed_or_synced_after_joining_failed_is_there_or_was_refused() {
    for (errno, is_synced) in [(libc::ENOSPC, false), (libc::ENOSPC, true), (libc::EIO, false), (libc::EIO, true)] {
        for step in 0.. {
            let (rig, sim, b, [there, new]) = writing(step);
            let (failing, begin) = (sim.clone(), sim.steps());
            let failed = meanwhile(&sim, begin + step, move || {
                failing.fail_writes_with(errno, 0);
                Ok(())
            });
            let joined = b.pull();
            if failed.try_recv().is_err() {
                break;
            }
            sim.allow_writes();
            let mut taken = Vec::new();
            for (name, file) in [("there", there), ("new", new)] {
                let ended = match is_synced {
                    true => b.tree().fsync(file, Wait::Yes),
                    false => b.tree().log(file, Wait::Yes),
                };
                taken.extend(ended.is_ok().then_some(name));
            }
            if joined.is_ok() {
                assert_eq!(taken.len(), 2, "errno {errno}, step {step}");
            }
            drop(b);
            let b = open(&rig, "b", &sim.reopen(Crash::Kill));
            for name in taken {
                assert_eq!(read(&b, name), b"late", "errno {errno}, step {step}, {joined:?}: {name}");
            }
        }
    }
}

#[test]
fn where_content_was_stored_anew_is_kept_though_others_published_meanwhile() {
    let rig = Rig::new();
    let b = rig.open("b");
    write(&b, "large", &noise(900_000));
    write(&b, "small", &noise(3_000));
    publish(&b);
    let a = rig.open("a");
    KeySlots::open_in(rig.memory.clone(), &rig.options("key-command")).unwrap().rotate().unwrap();
    publish(&b);
    rig.set_fault(|operation, key| match key == "HEAD" && operation == Operation::PutConditional {
        true => Fault::Unreachable,
        false => Fault::Pass,
    });
    assert!(b.reencrypt(None, &|| false, &mut |_| {}).is_err(), "it waits to be published");
    rig.heal();
    write(&a, "other", b"by a");
    publish(&a);
    publish(&b);
    assert_eq!(read(&b, "other"), b"by a");
    let again = b.reencrypt(None, &|| false, &mut |_| {}).unwrap();
    assert!(again.bytes < 100_000, "{again:?}");
    whole(&rig.memory);
}
