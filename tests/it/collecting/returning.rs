//! A client that was ended in the middle of something and comes back after others have collected.

use kura::base::sim_disk::{Crash, SimDisk};
use kura::version::entry::Ino;
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
