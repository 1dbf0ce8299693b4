//! What is acknowledged while something else is in the middle of its work survives a kill and, synced, a power cut.

use kura::base::clock::Timestamp;
use kura::base::sim_disk::{Crash, Keep, SimDisk};
use kura::version::entry::Ino;
use kura::workspace::Workspace;
use kura::worktree::{Changes, NewNode, RenameMode, Result, SetTime, Wait, XattrMode};

use crate::rig::meanwhile;
use crate::workspace_rig::*;

/// What a program does, and the contents that are there then; `None` is that there is no such name.
struct Act {
    name: &'static str,
    run: fn(&Workspace) -> Result<()>,
    seen: &'static [(&'static str, Option<&'static [u8]>)],
}

const ACTS: &[Act] = &[
    Act { name: "makes a file", run: |w| save(w, "new", 0, b"new"), seen: &[("new", Some(b"new"))] },
    Act { name: "edits a file", run: |w| save(w, "f", 2, b"EDIT"), seen: &[("f", Some(b"f EDITed"))] },
    Act {
        name: "edits what was just closed",
        run: |w| save(w, "closed", 2, b"IT"),
        seen: &[("closed", Some(b"clITed"))],
    },
    Act {
        name: "closes what it wrote long ago",
        run: |w| close(w, ino(w, "open")),
        seen: &[("open", Some(b"open, written"))],
    },
    Act {
        name: "goes on with what is open",
        run: |w| {
            w.tree().write(ino(w, "open"), 0, b"O", 0, Wait::Yes)?;
            close(w, ino(w, "open"))
        },
        seen: &[("open", Some(b"Open, written"))],
    },
    Act {
        name: "cuts a file",
        run: |w| {
            let changes = Changes { size: Some(1), ..Changes::default() };
            w.tree().setattr(ino(w, "f"), &changes, 0, Wait::Yes).map(drop)
        },
        seen: &[("f", Some(b"f"))],
    },
    Act {
        name: "cuts a file and says when",
        run: |w| {
            let mtime = Some(SetTime::At(Timestamp::from_unix_ns(1_000_000_000)));
            let changes = Changes { size: Some(3), mode: Some(0o600), mtime, ..Changes::default() };
            w.tree().setattr(ino(w, "f"), &changes, 0, Wait::Yes).map(drop)
        },
        seen: &[("f", Some(b"f e"))],
    },
    Act {
        name: "punches a hole",
        run: |w| {
            let file = ino(w, "f");
            w.tree().open(file, true, false, 0, Wait::Yes)?;
            w.tree().fallocate(file, 2, 2, true, true, 0, Wait::Yes)?;
            close(w, file)
        },
        seen: &[("f", Some(b"f \0\0ited"))],
    },
    Act {
        name: "renames over a file",
        run: |w| w.tree().rename((Ino::ROOT, b"old"), (Ino::ROOT, b"f"), RenameMode::Replace, Wait::Yes),
        seen: &[("old", None), ("f", Some(b"old"))],
    },
    Act {
        name: "moves what was just closed",
        run: |w| w.tree().rename((Ino::ROOT, b"closed"), (ino(w, "d"), b"closed"), RenameMode::Replace, Wait::Yes),
        seen: &[("closed", None), ("d/closed", Some(b"closed"))],
    },
    Act {
        name: "removes a file",
        run: |w| w.tree().unlink(Ino::ROOT, b"old", Wait::Yes),
        seen: &[("old", None), ("f", Some(b"f edited"))],
    },
    Act {
        name: "links a file",
        run: |w| w.tree().link(ino(w, "f"), Ino::ROOT, b"link", Wait::Yes).map(drop),
        seen: &[("f", Some(b"f edited")), ("link", Some(b"f edited"))],
    },
    Act {
        name: "saves as an editor does",
        run: |w| {
            save(w, "d/.f.tmp", 0, b"saved")?;
            w.tree().rename((ino(w, "d"), b".f.tmp"), (Ino::ROOT, b"f"), RenameMode::Replace, Wait::Yes)
        },
        seen: &[("d/.f.tmp", None), ("f", Some(b"saved"))],
    },
    Act {
        name: "sets an attribute",
        run: |w| w.tree().setxattr(ino(w, "f"), b"user.a", b"b", XattrMode::Set, Wait::Yes),
        seen: &[("f", Some(b"f edited"))],
    },
];

/// Writes to a file, which is made when there is none, and closes it.
fn save(w: &Workspace, path: &str, offset: u64, bytes: &[u8]) -> Result<()> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let (tree, parent) = (w.tree(), ino(w, dir));
    let file = match tree.lookup(parent, name.as_bytes(), Wait::Yes) {
        Ok(attr) => {
            tree.open(attr.ino, true, false, 0, Wait::Yes)?;
            attr.ino
        }
        Err(_) => tree.make(parent, name.as_bytes(), &NewNode::File, 0o644, ME, true, Wait::Yes)?.ino,
    };
    tree.write(file, offset, bytes, 0, Wait::Yes)?;
    close(w, file)
}

/// As the file system closes a file that one descriptor is open of.
fn close(w: &Workspace, file: Ino) -> Result<()> {
    w.tree().log(file, Wait::Yes)?;
    w.tree().release(file, true);
    Ok(())
}

/// What is under way.
type Work = (&'static str, fn(&Workspace));

const WORKS: &[Work] = &[
    ("pull", |w| drop(w.pull())),
    ("flush", |w| drop(w.flush(Some(std::time::Duration::from_secs(10))))),
    ("checkpoint", |w| drop(w.snapshot(None, None))),
    ("absorb", |w| drop(w.tree().absorb_all())),
    ("log", |w| drop(w.tree().log_drafts())),
    ("compact", |w| drop(w.tree().compact())),
];

/// When the crash comes, and of which kind it is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// A kill as soon as the program was answered.
    Answered,
    /// A power cut as soon as all was synced.
    Synced,
    /// A kill after the work came to its end.
    Over,
}

/// Does an act in the middle of a work; false when the work has less steps.
fn crashes(work: &Work, step: u64, act: &'static Act, when: When) -> bool {
    let shown = format!("{} in step {step} of `{}`, {when:?}", act.name, work.0);
    let rig = Rig::new();
    let a = rig.open("a");
    mkdir(&a, "d");
    for name in ["f", "old", "open", "d/g"] {
        write(&a, name, if name == "f" { b"f edited" } else { name.as_bytes() });
    }
    publish(&a);
    let open = |disk: SimDisk| rig.open_on("b", disk);
    let sim = SimDisk::new(step);
    let b = open(sim.clone());
    write(&a, "d/g", b"by a");
    publish(&a);
    save(&b, "closed", 0, b"closed").unwrap();
    let file = ino(&b, "open");
    b.tree().open(file, true, false, 0, Wait::Yes).unwrap();
    b.tree().write(file, 4, b", written", 0, Wait::Yes).unwrap();
    let (actor, dying, begin) = (b.clone(), sim.clone(), sim.steps());
    let done = meanwhile(&sim, begin + step, move || {
        (act.run)(&actor)?;
        if when == When::Synced {
            actor.tree().sync()?;
        }
        if when != When::Over {
            dying.crash_at(0);
        }
        Ok(())
    });
    work.1(&b);
    if sim.steps() <= begin + step && !sim.has_crashed() {
        return false;
    }
    assert_eq!(done.recv(), Ok(true), "{shown}");
    drop(b);
    let crash = if when == When::Synced { Crash::PowerCut { keep: Keep::None } } else { Crash::Kill };
    let b = open(sim.reopen(crash));
    for (path, content) in act.seen {
        let found = live(&b).remove(*path).map(|(_, _, content)| content);
        assert_eq!(found.as_deref(), *content, "{shown}: {path}");
    }
    if act.name.contains("attribute") {
        assert_eq!(b.tree().getxattr(ino(&b, "f"), b"user.a", Wait::Yes).unwrap(), b"b", "{shown}");
    }
    publish(&b);
    a.pull().unwrap();
    b.pull().unwrap();
    let settled = live(&b);
    assert_eq!(settled["d/g"].2, b"by a", "{shown}");
    assert!(!settled.keys().any(|name| name.contains("conflict-")), "{shown}: {settled:?}");
    whole(&rig.memory);
    true
}

/// Every act at every step takes half an hour, and is done with `KURA_TEST_LONG=1`; else each step sees one of them.
#[test]
fn what_is_acknowledged_in_the_middle_of_other_work_survives_a_crash() {
    let all = std::env::var_os("KURA_TEST_LONG").is_some();
    let whens = [When::Answered, When::Synced, When::Over];
    let combinations: Vec<_> = ACTS.iter().flat_map(|act| whens.map(|when| (act, when))).collect();
    for work in WORKS {
        for step in 0.. {
            let one = step as usize * 7 % combinations.len();
            let chosen = if all { &combinations[..] } else { &combinations[one..=one] };
            if !chosen.iter().fold(true, |goes_on, (act, when)| goes_on & crashes(work, step, act, *when)) {
                break;
            }
        }
    }
}

/// What is done at once or not at all.
const WHOLE: [&str; 7] = [
    "cuts a file",
    "cuts a file and says when",
    "renames over a file",
    "moves what was just closed",
    "removes a file",
    "links a file",
    "sets an attribute",
];

/// Does an act while the disk has so many bytes left; true when it was refused for that.
fn is_refused(act: &Act, left: u64) -> bool {
    let shown = format!("{} with {left} bytes left", act.name);
    let rig = Rig::new();
    let open = |disk: SimDisk| rig.open_on("b", disk);
    let sim = SimDisk::new(left);
    let b = open(sim.clone());
    mkdir(&b, "d");
    for name in ["f", "old", "d/g"] {
        write(&b, name, if name == "f" { b"f edited" } else { name.as_bytes() });
    }
    publish(&b);
    save(&b, "closed", 0, b"closed").unwrap();
    let before = live(&b);
    sim.fail_writes_with(libc::ENOSPC, left);
    let done = (act.run)(&b);
    sim.allow_writes();
    let after = live(&b);
    assert!(done.is_ok() || after == before, "{shown}: {done:?} leaves {after:?}");
    for (path, content) in act.seen.iter().filter(|_| done.is_ok()) {
        assert_eq!(after.get(*path).map(|(_, _, content)| &content[..]), *content, "{shown}: {path}");
    }
    publish(&b);
    assert_eq!(recorded(&b, b.tree().base().index.id), after, "{shown}");
    drop(b);
    let b = open(sim.reopen(Crash::Kill));
    assert_eq!(live(&b), after, "{shown}");
    done.is_err()
}

#[test]
fn what_a_full_disk_refuses_is_not_half_done() {
    for act in ACTS.iter().filter(|act| WHOLE.contains(&act.name)) {
        let refused = (0..).step_by(24).take_while(|left| is_refused(act, *left)).count();
        assert!(refused > 0, "{}", act.name);
    }
}

#[test]
fn zeroing_beyond_the_end_that_a_full_disk_refuses_leaves_the_file_alone() {
    let is_refused = |left: u64| {
        let (rig, sim) = (Rig::new(), SimDisk::new(left));
        let w = rig.open_on("w", sim.clone());
        write(&w, "f", b"f edited");
        let file = ino(&w, "f");
        w.tree().open(file, true, false, 0, Wait::Yes).unwrap();
        sim.fail_writes_with(libc::ENOSPC, left);
        let done = w.tree().fallocate(file, 2, 20, true, false, 0, Wait::Yes);
        sim.allow_writes();
        let expected: &[u8] = if done.is_ok() { &[b"f ".as_slice(), &[0; 20]].concat() } else { b"f edited" };
        assert_eq!(read(&w, "f"), expected, "with {left} bytes left: {done:?}");
        done.is_err()
    };
    assert!((0..).step_by(24).take_while(|left| is_refused(*left)).count() > 0);
}
