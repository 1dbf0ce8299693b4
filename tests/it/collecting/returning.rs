//! A client that was ended in the middle of something and comes back after others have collected.

use std::time::Duration;

use kura::base::sim_disk::{Crash, SimDisk};
use kura::sync::read_head;
use kura::version::entry::Ino;
use kura::workspace::OpenOptions;
use kura::worktree::{NewNode, Wait};

use super::cases::{NOW, bytes, collect, last, with_garbage};
use super::support::read_all;
use crate::rig::meanwhile;
use crate::workspace_rig::*;

#[test]
fn a_name_that_was_taken_does_not_come_back_by_a_kill_after_it_was_taken_note_of() {
    let is_reached = |step: u64| {
        let (rig, sim) = (Rig::new(), SimDisk::new(step));
        let late = rig.open_on("late", sim.clone());
        publish(&late);
        let w = with_garbage(&rig);
        w.forget(&last(1), false).unwrap();
        publish(&w);
        // Content that is about to be taken waits here, under the name that it has there, and nothing names it yet.
        let mut staging = late.tree().stage_content();
        staging.add(&mut &bytes(101, 400_000)[..]).unwrap();
        let day = kura::sync::CollectOptions { grace_ms: 24 * 3600 * 1000, ..NOW };
        assert!(collect(&w, day).unwrap().waiting.is_some());
        let (actor, begin) = (late.clone(), sim.steps());
        let done = meanwhile(&sim, begin + step, move || {
            actor.tree().make(Ino::ROOT, b"other", &NewNode::Directory, 0o755, ME, false, Wait::Yes).map(drop)
        });
        late.pull().unwrap();
        if sim.steps() <= begin + step {
            return false;
        }
        assert_eq!(done.recv(), Ok(true), "step {step}");
        let sim = sim.reopen(Crash::Kill);
        drop((staging, late));
        let late = rig.open_on("late", sim);
        write(&late, "again", &bytes(101, 400_000));
        publish(&late);
        collect(&w, NOW).unwrap();
        read_all(&rig.memory, &rig.keys()).unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert!(read(&rig.open("third"), "again") == bytes(101, 400_000), "step {step}");
        true
    };
    let steps = (0..).take_while(|step| is_reached(*step)).count();
    assert!(steps > 20, "{steps}");
}

#[test]
fn a_client_that_ended_before_it_forgot_what_it_had_published_goes_on_after_others_forgot_it() {
    let mut published = 0;
    for step in 0.. {
        let (rig, sim) = (Rig::new(), SimDisk::new(step));
        let open = |sim: SimDisk, cache: &str| {
            let cache_dir = rig.dir.path().join(cache);
            let disk = std::sync::Arc::new(sim);
            rig.try_open(OpenOptions { cache_dir, disk, ..rig.options("late") }).unwrap()
        };
        let late = open(sim.clone(), "one");
        mkdir(&late, "dir");
        write(&late, "dir/mine", &bytes(1, 5000));
        snapshot(&late);
        write(&late, "dir/mine", &bytes(2, 300_000));
        snapshot(&late);
        sim.crash_at(sim.steps() + step);
        late.flush(Some(Duration::from_millis(100))).ok();
        let has_crashed = sim.has_crashed();
        let head = read_head(&*rig.memory, &rig.keys()).unwrap().0;
        let sim = sim.reopen(Crash::Kill);
        drop(late);
        if head.generation == 1 {
            continue;
        }
        published += 1;
        // Others go on, and forget and collect the versions of the one who is away.
        let w = rig.open("w");
        write(&w, "dir/mine", &bytes(3, 400_000));
        mkdir(&w, "dir/theirs");
        snapshot(&w);
        publish(&w);
        w.forget(&last(1), false).unwrap();
        publish(&w);
        assert!(collect(&w, NOW).unwrap().deleted > 0);
        let late = open(sim, "another");
        late.pull().unwrap_or_else(|error| panic!("step {step}: {error}"));
        write(&late, "later", b"later");
        publish(&late);
        w.pull().unwrap();
        assert_eq!(live(&late), live(&w), "step {step}");
        read_all(&rig.memory, &rig.keys()).unwrap();
        if !has_crashed {
            break;
        }
    }
    assert!(published > 5, "{published}");
}
