//! The simulated disk, and the writing of whole files over it.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use kura::base::disk::{self, DirItem, Disk, DiskFile, OpenMode, RealDisk, TEMPORARY_PREFIX};
use kura::base::sim_disk::{Crash, Keep, SimDisk};

const POWER_CUT: Crash = Crash::PowerCut { keep: Keep::None };
const SEEDED_CUT: Crash = Crash::PowerCut { keep: Keep::Seeded };
const CRASHES: [Crash; 3] = [Crash::Kill, POWER_CUT, SEEDED_CUT];

fn path(name: &str) -> std::path::PathBuf {
    Path::new("/d").join(name)
}

fn fresh(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk
}

fn read(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    match disk::read_file(disk, &path(name), 1 << 20) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

fn create(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(&path(name), OpenMode::CreateNew).unwrap();
    file.write_at(bytes, 0).unwrap();
    file
}

#[test]
fn content_and_name_are_made_durable_apart() {
    let disk = fresh(1);
    create(&disk, "content", b"abc").sync().unwrap();
    assert_eq!(read(&disk.reopen(Crash::Kill), "content").unwrap(), b"abc");
    assert_eq!(read(&disk.reopen(POWER_CUT), "content"), None);

    let disk = fresh(1);
    create(&disk, "name", b"abc");
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(read(&disk.reopen(POWER_CUT), "name").unwrap(), b"");

    let disk = fresh(1);
    let file = create(&disk, "both", b"abc");
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(b"x", 1).unwrap();
    file.set_len(2).unwrap();
    assert_eq!(read(&disk.reopen(Crash::Kill), "both").unwrap(), b"ax");
    assert_eq!(read(&disk.reopen(POWER_CUT), "both").unwrap(), b"abc");
}

#[test]
fn what_a_kill_spared_can_still_go_with_the_power() {
    let disk = fresh(1);
    create(&disk, "file", b"abc");
    let after_kill = disk.reopen(Crash::Kill);
    assert_eq!(read(&after_kill, "file").unwrap(), b"abc");
    assert_eq!(read(&after_kill.reopen(POWER_CUT), "file"), None);
}

#[test]
fn a_dead_disk_stays_dead() {
    let disk = fresh(1);
    let file = create(&disk, "file", b"abc");
    disk.crash_at(disk.steps() + 1);
    file.write_at(b"1", 0).unwrap();
    assert!(file.write_at(b"2", 1).is_err());
    assert!(disk.has_crashed());
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(disk.list(Path::new("/d")).is_err());
    assert!(disk.open(&path("file"), OpenMode::Read).is_err());
    assert!(file.try_lock().is_err());
    let survived = read(&disk.reopen(Crash::Kill), "file").unwrap();
    assert!(survived == b"1bc" || survived == b"12c");
}

#[test]
fn a_seeded_cut_tears_drops_and_reorders_but_repeats_itself() {
    let scenario = |seed| {
        let disk = fresh(seed);
        let file = create(&disk, "file", &[0; 2048]);
        file.sync().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(&[1; 2048], 0).unwrap();
        create(&disk, "early", b"1");
        create(&disk, "late", b"2");
        let disk = disk.reopen(SEEDED_CUT);
        (read(&disk, "file").unwrap(), read(&disk, "early").is_some(), read(&disk, "late").is_some())
    };
    let mut contents = BTreeSet::new();
    let mut names = BTreeSet::new();
    for seed in 0..200 {
        let (content, early, late) = scenario(seed);
        assert_eq!(scenario(seed), (content.clone(), early, late));
        for sector in content.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is whole");
        }
        contents.insert(content);
        names.insert((early, late));
    }
    assert!(contents.len() > 8, "{} different tears", contents.len());
    assert_eq!(names.len(), 4, "any subset of the names");
}

#[test]
fn a_rename_is_never_half_done() {
    for seed in 0..100 {
        for crash in CRASHES {
            let disk = fresh(seed);
            disk.create_dir_all(Path::new("/e")).unwrap();
            for (name, bytes) in [("from", b"new"), ("to", b"old")] {
                create(&disk, name, bytes).sync().unwrap();
            }
            disk.sync_dir(Path::new("/d")).unwrap();
            disk.crash_at(disk.steps() + seed % 2);
            disk.rename(&path("from"), &path("to")).ok();
            let disk = disk.reopen(crash);
            let state = (read(&disk, "from"), read(&disk, "to").unwrap());
            let before = state == (Some(b"new".to_vec()), b"old".to_vec());
            let after = state == (None, b"new".to_vec());
            assert!(before || after, "{state:?}");
        }
    }
}

/// Runs `action` cut at every step, in every mode, over many seeds; hands the outcome to `check`.
fn at_every_step(
    prepare: impl Fn(&SimDisk),
    action: impl Fn(&SimDisk) -> io::Result<()>,
    check: impl Fn(&SimDisk, bool, Crash),
) {
    let whole = fresh(0);
    prepare(&whole);
    let start = whole.steps();
    action(&whole).unwrap();
    let steps = whole.steps() - start;
    assert!(steps >= 5);
    for crash in CRASHES {
        for seed in 0..40 {
            for step in 0..=steps {
                let disk = fresh(seed);
                prepare(&disk);
                disk.crash_at(start + step);
                let done = action(&disk).is_ok();
                assert_eq!(done, step == steps);
                check(&disk.reopen(crash), done, crash);
            }
        }
    }
}

#[test]
fn a_replaced_file_is_whole_old_or_new_at_every_step() {
    let (old, new) = (vec![1; 3000], vec![2; 5000]);
    let replace = |disk: &SimDisk, bytes: &[u8]| disk::replace_file(disk, &path("file"), bytes);
    at_every_step(
        |disk| replace(disk, &old).unwrap(),
        |disk| replace(disk, &new),
        |disk, done, crash| {
            let found = read(disk, "file").unwrap();
            assert!(found == new || !done && found == old, "{crash:?}: torn or lost");
        },
    );
}

#[test]
fn a_created_file_is_whole_or_absent_at_every_step() {
    let new = vec![2; 5000];
    let create = |disk: &SimDisk| disk::create_file(disk, &path("file"), &new);
    at_every_step(
        |_| {},
        create,
        |disk, done, crash| {
            let found = read(disk, "file");
            assert!(found.as_ref() == Some(&new) || !done && found.is_none(), "{crash:?}: torn or lost");
        },
    );
    let disk = fresh(1);
    create(&disk).unwrap();
    let error = disk::create_file(&disk, &path("file"), b"other").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(read(&disk, "file").unwrap(), new);
    assert_eq!(disk.list(Path::new("/d")).unwrap().len(), 1, "no temporary file stays");
}

#[test]
fn a_full_disk_cuts_writes_and_leaves_the_old_file() {
    let disk = fresh(1);
    disk::replace_file(&disk, &path("file"), b"old").unwrap();
    for budget in 0..6 {
        disk.fail_writes_with(libc::ENOSPC, budget);
        assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), budget);
        let error = disk::replace_file(&disk, &path("file"), b"longer").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert_eq!(read(&disk, "file").unwrap(), b"old");
        let names = disk.list(Path::new("/d")).unwrap();
        assert!(!names.iter().any(|item| item.name.starts_with(TEMPORARY_PREFIX)));
    }
    disk.allow_writes();
    disk::replace_file(&disk, &path("file"), b"longer").unwrap();
    assert_eq!(read(&disk, "file").unwrap(), b"longer");

    let file = disk.open(&path("file"), OpenMode::ReadWrite).unwrap();
    disk.fail_writes_with(libc::EIO, 2);
    assert_eq!(file.write_at(b"LONG", 0).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(read(&disk, "file").unwrap(), b"LOnger");
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(libc::EIO));
}

#[test]
fn locks_go_with_the_handle_and_with_the_crash() {
    let disk = fresh(1);
    let first = create(&disk, "lock", b"");
    let second = disk.open(&path("lock"), OpenMode::ReadWrite).unwrap();
    assert!(first.try_lock().unwrap());
    assert!(first.try_lock().unwrap());
    assert!(!second.try_lock().unwrap());
    let waiting = std::thread::spawn(move || second.lock());
    drop(first);
    waiting.join().unwrap().unwrap();
    let third = disk.open(&path("lock"), OpenMode::ReadWrite).unwrap();
    assert!(third.try_lock().unwrap(), "the thread's handle is gone");
    let fourth = disk.open(&path("lock"), OpenMode::ReadWrite).unwrap();
    let waiting = std::thread::spawn(move || fourth.lock());
    let reopened = disk.reopen(Crash::Kill);
    assert!(waiting.join().unwrap().is_err());
    assert!(reopened.open(&path("lock"), OpenMode::ReadWrite).unwrap().try_lock().unwrap());
}

/// The same calls on a disk of either kind; both must answer alike.
fn behaviour(disk: &dyn Disk, root: &Path) -> Vec<String> {
    let mut said = Vec::new();
    let mut say = |what: &str, result: io::Result<String>| {
        said.push(format!("{what}: {:?}", result.map_err(|error| error.kind())));
    };
    let (dir, a, b) = (root.join("x/y"), root.join("x/y/a"), root.join("x/y/b"));
    let unit = |()| String::new();
    say("open without directory", disk.open(&a, OpenMode::ReadWrite).map(|_| String::new()));
    say("make", disk.create_dir_all(&dir).map(unit));
    say("make again", disk.create_dir_all(&dir).map(unit));
    say("read missing", disk.open(&a, OpenMode::Read).map(|_| String::new()));
    let file = disk.open(&a, OpenMode::CreateNew).unwrap();
    say("create twice", disk.open(&a, OpenMode::CreateNew).map(|_| String::new()));
    say("sparse", file.write_at(b"end", 100_000).map(unit));
    say("hole", file.is_written(0, 10).map(|yes| yes.to_string()));
    say("no hole", file.is_written(100_000, 3).map(|yes| yes.to_string()));
    say("past the end", file.is_written(100_000, 4).map(|yes| yes.to_string()));
    say("whole", file.is_written(0, u64::MAX).map(|yes| yes.to_string()));
    let mut buffer = [7; 8];
    let read = file.read_at(&mut buffer, 99_998);
    say("read", read.map(|count| format!("{count} {buffer:?}")));
    say("shrink", file.set_len(2).and_then(|()| file.len()).map(|len| len.to_string()));
    let reader = disk.open(&a, OpenMode::Read).unwrap();
    say("write by reader", reader.write_at(b"x", 0).map_err(|_| ErrorKind::Other.into()).map(unit));
    say("link", disk.link(&a, &b).map(unit));
    say("link over", disk.link(&a, &b).map(unit));
    say("link of missing", disk.link(&root.join("no"), &root.join("no2")).map(unit));
    say("rename to itself", disk.rename(&a, &b).map(unit));
    say("rename over directory", disk.rename(&a, &dir).map_err(|_| ErrorKind::Other.into()).map(unit));
    say("rename missing", disk.rename(&root.join("no"), &b).map(unit));
    say("remove", disk.remove(&a).map(unit));
    say("remove again", disk.remove(&a).map(unit));
    say("still open", file.len().map(|len| len.to_string()));
    say("make over file", disk.create_dir_all(&b).map_err(|_| ErrorKind::Other.into()).map(unit));
    let item = |item: DirItem| format!("{:?}", DirItem { modified: None, ..item });
    let listed = disk.list(&dir).map(|items| items.into_iter().map(item).collect::<String>());
    say("list", listed);
    say("list missing", disk.list(&root.join("no")).map(|_| String::new()));
    say("sync", file.sync().and_then(|()| disk.sync_dir(&dir)).map(unit));
    said
}

#[test]
fn the_simulated_disk_answers_as_the_real_one() {
    let dir = tempfile::tempdir().unwrap();
    let real = behaviour(&RealDisk, dir.path());
    let simulated = SimDisk::new(1);
    simulated.create_dir_all(dir.path()).unwrap();
    assert_eq!(behaviour(&simulated, dir.path()), real);
}

#[test]
fn identifiers_have_one_text_form() {
    use kura::base::ids::{BlobId, SlotId};
    let id = SlotId::random();
    assert_eq!(id.to_string().parse::<SlotId>().unwrap(), id);
    let odd_forms = [id.to_string().to_uppercase(), id.to_string().replace('-', ""), format!("{{{id}}}")];
    assert!(odd_forms.iter().all(|text| text.parse::<SlotId>().is_err()));
    assert!("ab".repeat(32).parse::<BlobId>().is_ok());
    assert!("AB".repeat(32).parse::<BlobId>().is_err());
    assert!("ab".repeat(31).parse::<BlobId>().is_err());
}
