//! Journals that were cut, altered or lost.

use std::path::{Path, PathBuf};

use kura::base::disk::OpenMode;
use kura::base::sim_disk::{Crash, Keep, SimDisk};
use kura::version::entry::Ino;
use kura::worktree::{JournalError, NewNode, Reason, Wait, WorkError, XattrMode};

use super::{CALLER, checkpoint, save, write};
use crate::rig::{Rig, Seens, live};

/// A tree with two synced files and a directory that was not synced, killed.
fn killed() -> (Rig, SimDisk) {
    let (rig, sim) = Rig::new(4);
    let tree = rig.open().unwrap();
    for name in ["one", "two"] {
        let ino = super::create(&tree, name).ino;
        write(&tree, ino, 0, name.as_bytes());
        tree.fsync(ino, Wait::Yes).unwrap();
        tree.release(ino, true);
    }
    tree.make(Ino::ROOT, b"unsynced", &NewNode::Directory, 0o700, CALLER, false, Wait::Yes).unwrap();
    let sim = sim.reopen(Crash::Kill);
    (rig.after(sim.clone()), sim)
}

/// The segments, in order, with their lengths.
fn segments(rig: &Rig) -> Vec<(PathBuf, u64)> {
    let dir = rig.dir.join("journal");
    let mut items = rig.disk.list(&dir).unwrap();
    items.retain(|item| item.name.len() == 16);
    items.sort_by(|a, b| a.name.cmp(&b.name));
    items.into_iter().map(|item| (dir.join(&item.name), item.len)).collect()
}

fn flip(rig: &Rig, path: &Path, offset: u64) {
    let file = rig.disk.open(path, OpenMode::ReadWrite).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, offset).unwrap();
    file.write_at(&[byte[0] ^ 0x40], offset).unwrap();
}

/// What stands in the last segment: how far it is zeros from the end, and how long it is.
fn zeros(rig: &Rig) -> (usize, usize) {
    let (path, _) = segments(rig).pop().unwrap();
    let bytes = kura::base::disk::read_file(&*rig.disk, &path, 1 << 24).unwrap();
    (bytes.iter().rev().take_while(|byte| **byte == 0).count(), bytes.len())
}

#[test]
fn zeros_ahead_of_a_journal_that_is_flushed_often_are_no_damage_and_hide_none() {
    let (rig, sim) = Rig::new(4);
    let tree = rig.open().unwrap();
    let ino = super::create(&tree, "log").ino;
    for round in 0..1500_u64 {
        write(&tree, ino, round * 4, &u32::try_from(round).unwrap().to_le_bytes());
        tree.fsync(ino, Wait::Yes).unwrap();
    }
    let before = live(&tree);
    drop(tree);
    let killed = || rig.after(sim.reopen(Crash::Kill));
    let (zeros, len) = zeros(&killed());
    assert!(zeros > 4000 && len > 100_000, "{zeros} of {len}");
    assert!(live(&killed().open().unwrap()) == before);
    // In place of the last frame, of a part of it, or of an earlier one they are damage.
    for gone in [1, 40, 100, 5000] {
        let rig = killed();
        let (path, _) = segments(&rig).pop().unwrap();
        let file = rig.disk.open(&path, OpenMode::ReadWrite).unwrap();
        file.write_at(&vec![0; gone + 64], (len - zeros - gone) as u64).unwrap();
        assert!(matches!(rig.open(), Err(WorkError::Journal(JournalError::Altered { .. }))), "{gone}");
    }
    // Where the next segment has begun, none are left.
    let rig = killed();
    let tree = rig.open().unwrap();
    let ino = super::create(&tree, "other").ino;
    for _ in 0..20 {
        write(&tree, ino, 0, b"x");
        tree.fsync(ino, Wait::Yes).unwrap();
    }
    assert!(self::zeros(&rig).0 > 4000);
    let before = live(&tree);
    checkpoint(&tree);
    assert!(segments(&rig).iter().all(|(_, len)| *len < 64 * 1024), "{:?}", segments(&rig));
    drop(tree);
    assert!(live(&rig.open().unwrap()) == before);
}

#[test]
fn a_disk_without_room_for_zeros_loses_nothing() {
    for room in (200..9000).step_by(400) {
        let (rig, sim) = Rig::new(4);
        let tree = rig.open().unwrap();
        let ino = super::create(&tree, "log").ino;
        sim.fail_writes_with(libc::ENOSPC, room);
        let refused = (0..40_u32).filter(|round| {
            let written = tree.write(ino, 0, &round.to_le_bytes(), 0, Wait::Yes);
            written.and_then(|()| tree.fsync(ino, Wait::Yes)).is_err()
        });
        assert!(refused.count() > 0, "{room}");
        sim.allow_writes();
        for round in 40..60_u32 {
            write(&tree, ino, 0, &round.to_le_bytes());
            tree.fsync(ino, Wait::Yes).unwrap();
        }
        let before = live(&tree);
        drop(tree);
        let sim = sim.reopen(Crash::PowerCut { keep: Keep::None });
        assert!(live(&rig.after(sim).open().unwrap()) == before, "{room}");
    }
}

#[test]
fn a_new_file_costs_two_writes_and_a_change_of_an_old_one_costs_one() {
    const FILES: u64 = 20;
    let (rig, sim) = Rig::new(4);
    let tree = rig.open().unwrap();
    let names: Vec<String> = (0..FILES).map(|number| format!("file{number}")).collect();
    let before = sim.steps();
    for name in &names {
        let ino = super::create(&tree, name).ino;
        write(&tree, ino, 0, b"bytes");
        tree.log(ino, Wait::Yes).unwrap();
        tree.release(ino, true);
    }
    assert_eq!(sim.steps() - before, 2 * FILES, "the name, with the close before it, and the bytes");
    checkpoint(&tree);
    let inos: Vec<Ino> =
        names.iter().map(|name| tree.lookup(Ino::ROOT, name.as_bytes(), Wait::Yes).unwrap().ino).collect();
    let before = sim.steps();
    for ino in inos {
        tree.setxattr(ino, b"user.mark", b"value", XattrMode::Set, Wait::Yes).unwrap();
    }
    assert_eq!(sim.steps() - before, FILES, "where the file is found, and the change of it");
}

#[test]
fn truncated_tail_recovers_what_stands_before_it() {
    for cut in [1, 5, 40] {
        let (rig, sim) = killed();
        let (path, len) = segments(&rig).pop().unwrap();
        rig.disk.open(&path, OpenMode::ReadWrite).unwrap().set_len(len - cut).unwrap();
        let seens = live(&rig.open().unwrap());
        assert!(!seens.contains_key("unsynced"), "{cut} bytes less");
        assert!(seens.contains_key("two"), "{cut} bytes less");
        assert!(live(&rig.after(sim.reopen(Crash::Kill)).open().unwrap()) == seens, "a second recovery is the same");
    }
}

#[test]
fn synced_frames_that_are_gone_are_an_alarm() {
    for part in 0..7 {
        let (rig, _sim) = killed();
        let (path, len) = segments(&rig).pop().unwrap();
        rig.disk.open(&path, OpenMode::ReadWrite).unwrap().set_len(len * part / 10).unwrap();
        assert!(matches!(rig.open(), Err(WorkError::Journal(JournalError::Altered { .. }))), "part {part}");
        rig.recover(true).unwrap();
    }
}

#[test]
fn flipped_byte_that_was_synced_is_an_alarm_and_can_be_accepted() {
    for part in 1..8 {
        let (rig, sim) = killed();
        let (path, len) = segments(&rig).pop().unwrap();
        flip(&rig, &path, len * part / 10);
        let opened = rig.open();
        let Err(WorkError::Journal(JournalError::Altered { .. })) = opened else {
            panic!("part {part}: {:?}", opened.err());
        };
        let tree = rig.recover(true).unwrap();
        assert!(!live(&tree).contains_key("unsynced"));
        save(&tree, "three", b"three");
        checkpoint(&tree);
        let before = live(&tree);
        let copies = rig.disk.list(&rig.dir.join("journal")).unwrap();
        assert!(copies.iter().any(|item| item.name.ends_with(".damaged")), "the damaged segment is kept");
        drop(tree);
        // From here on nothing has to be accepted.
        let rig = rig.after(sim.reopen(Crash::Kill));
        assert!(live(&rig.open().unwrap()) == before);
    }
}

#[test]
fn flipped_byte_that_was_not_synced_is_a_crash() {
    let (rig, _sim) = killed();
    let (path, len) = segments(&rig).pop().unwrap();
    flip(&rig, &path, len - 10);
    let seens = live(&rig.open().unwrap());
    assert!(seens.contains_key("one") && seens.contains_key("two") && !seens.contains_key("unsynced"));
}

#[test]
fn missing_segment_is_an_alarm_and_can_be_accepted() {
    // Several segments: one for each process.
    let (rig, sim) = killed();
    let tree = rig.open().unwrap();
    save(&tree, "three", b"three");
    tree.absorb_all().unwrap();
    tree.sync().unwrap();
    drop(tree);
    let sim = sim.reopen(Crash::Kill);
    for number in 0..2 {
        let (rig, sim) = if number == 0 { (rig.after(sim.clone()), sim.clone()) } else { killed() };
        let segments = segments(&rig);
        rig.disk.remove(&segments[number.min(segments.len() - 1)].0).unwrap();
        let opened = rig.open();
        assert!(matches!(opened, Err(WorkError::Journal(JournalError::Missing { .. }))), "{:?}", opened.err());
        let before = live(&rig.recover(true).unwrap());
        assert!(!before.contains_key("three"), "nothing that came after it is taken for what it is not");
        let rig = rig.after(sim.reopen(Crash::Kill));
        assert!(live(&rig.open().unwrap()) == before);
    }
}

#[test]
fn segment_cannot_take_the_place_of_another() {
    let (rig, sim) = killed();
    let tree = rig.open().unwrap();
    save(&tree, "three", b"three");
    tree.absorb_all().unwrap();
    tree.sync().unwrap();
    drop(tree);
    let rig = rig.after(sim.reopen(Crash::Kill));
    let segments = segments(&rig);
    let bytes = kura::base::disk::read_file(&*rig.disk, &segments[0].0, 1 << 20).unwrap();
    kura::base::disk::replace_file(&*rig.disk, &segments[1].0, &bytes).unwrap();
    assert!(matches!(rig.open(), Err(WorkError::Journal(JournalError::Altered { .. }))));
}

#[test]
fn a_version_whose_base_may_be_on_the_disk_is_whole_after_a_kill_in_the_next_checkpoint() {
    // The directory is not synced after the base got its name: the disk may have it or not.
    let checkpoint_fails = |failing: u64, step: u64| {
        let (mut rig, sim) = Rig::new(failing);
        let tree = rig.open().unwrap();
        save(&tree, "one", &[1; 5000]);
        tree.absorb_all().unwrap();
        let (begin, disk) = (sim.steps(), sim.clone());
        sim.meanwhile_at(begin + failing, move || disk.fail_writes_with(libc::EIO, 0));
        let first = tree.checkpoint(&Reason::automatic());
        sim.allow_writes();
        if first.is_ok() {
            return None;
        }
        tree.make(Ino::ROOT, b"two", &NewNode::Directory, 0o700, CALLER, false, Wait::Yes).ok();
        let contents = |seens: Seens| seens.into_iter().map(|(path, seen)| (path, seen.bytes)).collect::<Vec<_>>();
        let before = contents(live(&tree));
        sim.crash_at(sim.steps() + step);
        tree.checkpoint(&Reason::automatic()).ok();
        let is_over = !sim.has_crashed();
        drop(tree);
        rig = rig.after(sim.reopen(Crash::Kill));
        let shown = format!("a failure in step {failing}, a kill in step {step}");
        let tree = rig.open().unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert!(contents(live(&tree)) == before, "{shown}");
        rig.version(&tree.base());
        checkpoint(&tree);
        assert!(contents(rig.version(&tree.base())) == before, "{shown}");
        rig.upload(&tree);
        Some(is_over)
    };
    for failing in 0.. {
        let ended = (0..).find_map(|step| match checkpoint_fails(failing, step) {
            Some(false) => None,
            ended => Some(ended.is_some()),
        });
        if ended == Some(false) {
            assert!(failing > 5, "a checkpoint has steps");
            break;
        }
    }
}
