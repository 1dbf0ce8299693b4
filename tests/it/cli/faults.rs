//! What goes wrong around a workspace: names that are reserved, damage, stores that go away or hang, lost journals.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::support::{Ended, Home, Mount, Running, gone_within, run, signal, wait_for};
use crate::s3_server::{ACCESS_KEY, BUCKET, Fault, S3Server, SECRET_KEY};
use crate::workspace_rig::noise;

const SOON: Duration = Duration::from_secs(30);

/// A program's use of a workspace in a bucket.
struct Bucket<'a>(&'a Home, S3Server);

impl<'a> Bucket<'a> {
    fn new(home: &'a Home) -> Self {
        let bucket = Self(home, S3Server::start());
        bucket.run(&["init", "--kdf-memory-mib", "8"]).ok();
        bucket
    }

    fn url(&self) -> String {
        format!("s3://{BUCKET}/work?endpoint={}&region=us-east-1", self.1.endpoint())
    }

    fn kura(&self, args: &[&str]) -> Command {
        let mut command = self.0.kura(args);
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.env("KURA_STORE", self.url());
        command
    }

    fn run(&self, args: &[&str]) -> Ended {
        run(&mut self.kura(args))
    }

    fn mount(&self, name: &str) -> Mount {
        let mount = Mount::at(self.0, &self.0.dir(name));
        run(self.kura(&["mount"]).arg(&mount.path)).ok();
        mount
    }
}

fn status(home: &Home, mount: &Mount) -> String {
    run(home.kura(["status", "-w"]).arg(&mount.path)).ok()
}

/// The files of a state directory's log, together.
fn log_of(home: &Home) -> String {
    let logs = fs::read_dir(home.path("state/logs")).unwrap();
    logs.map(|log| fs::read_to_string(log.unwrap().path()).unwrap()).collect()
}

#[test]
fn an_import_passes_over_the_reserved_name_mounted_and_unmounted() {
    let home = Home::new();
    let store = home.store("store");
    let source = home.dir("source");
    fs::create_dir_all(source.join(".kura/ctl")).unwrap();
    fs::create_dir_all(source.join(".kura/snapshots/evil")).unwrap();
    fs::write(source.join(".kura/ctl/run"), "{\"op\": \"snapshot\", \"name\": \"evil\"}\n").unwrap();
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("sub/.kura"), "x").unwrap();
    fs::write(source.join("sub/kept"), "kept").unwrap();
    fs::write(source.join("top"), "top").unwrap();
    let import = |workspace: &Path| {
        let ended = run(home.kura(["import", "--json", "-w"]).arg(workspace).arg(&source));
        assert_eq!(ended.code, Some(3), "{ended:?}");
        let reply: serde_json::Value = serde_json::from_str(ended.out.trim()).unwrap();
        let skipped = reply["skipped"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap().to_owned());
        let mut skipped: Vec<String> = skipped.collect();
        skipped.sort();
        let expected = [source.join(".kura"), source.join("sub/.kura")].map(|path| path.to_str().unwrap().to_owned());
        assert_eq!(skipped, expected);
    };
    import(&store);
    let mount = home.mount(&store, "mnt");
    let check = |mount: &Mount| {
        let names = run(Command::new("ls").arg("-a").arg(&mount.path)).ok();
        assert!(!names.contains(".kura"), "{names}");
        assert_eq!(fs::read_to_string(mount.file("sub/kept")).unwrap(), "kept");
        assert!(mount.file("sub/.kura").is_dir(), "the folder's own");
        status(&home, mount);
    };
    check(&mount);
    fs::remove_file(mount.file("top")).unwrap();
    import(&mount.path);
    check(&mount);
    assert_eq!(fs::read_to_string(mount.file("top")).unwrap(), "top");
    let log = run(home.kura(["log", "-w"]).arg(&mount.path)).ok();
    assert!(!log.contains("evil"), "what is imported is no request: {log}");
}

#[test]
fn an_export_leaves_out_what_is_damaged_and_names_it() {
    let home = Home::new();
    let store = home.store("store");
    let source = home.dir("source");
    fs::create_dir_all(source.join("dir")).unwrap();
    fs::write(source.join("dir/big"), noise(600_000)).unwrap();
    fs::write(source.join("small"), "small").unwrap();
    fs::write(source.join("zebra"), "last").unwrap();
    home.ok(&store, ["import", source.to_str().unwrap()]);
    let mut objects = Vec::new();
    for dir in fs::read_dir(store.join("objects")).unwrap() {
        objects.extend(fs::read_dir(dir.unwrap().path()).unwrap().map(|object| object.unwrap().path()));
    }
    assert!(!objects.is_empty(), "the large file is in objects of its own");
    for object in objects {
        let mut bytes = fs::read(&object).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&object, bytes).unwrap();
    }
    let out = home.path("out");
    let ended = run(home.kura(["export", "latest", "-w"]).arg(&store).arg(&out));
    ended.fails(3, &["dir/big", "damaged"]);
    assert_eq!(fs::read_to_string(out.join("zebra")).unwrap(), "last");
    assert_eq!(fs::read_dir(out.join("dir")).unwrap().count(), 0, "neither a torn file nor a temporary one");

    let mount = home.mount(&store, "mnt");
    let error = fs::read(mount.file("dir/big")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert_eq!(fs::read_to_string(mount.file("small")).unwrap(), "small");
    let log = log_of(&home);
    assert!(log.contains("/dir/big") && log.contains("objects/"), "{log}");
}

#[test]
fn a_directory_store_that_goes_away_is_offline_and_comes_back_by_itself() {
    let home = Home::new();
    let store = home.store("store");
    let away = home.path("store.gone");
    let mount = home.mount(&store, "mnt");
    fs::write(mount.file("before"), "before").unwrap();
    run(home.kura(["flush", "--wait", "-w"]).arg(&mount.path)).ok();
    fs::rename(&store, &away).unwrap();
    fs::write(mount.file("while"), "while").unwrap();
    let snapshot = run(home.kura(["snapshot", "-m", "alone", "-w"]).arg(&mount.path));
    assert_eq!(snapshot.code, Some(0), "recorded on this machine: {snapshot:?}");
    assert!(run(home.kura(["log", "-w"]).arg(&mount.path)).ok().contains("alone"));
    assert!(wait_for(SOON, || status(&home, &mount).contains("OFFLINE")), "{}", status(&home, &mount));
    assert!(status(&home, &mount).contains("gone"), "{}", status(&home, &mount));
    let flushed = run(home.kura(["flush", "--wait=200ms", "-w"]).arg(&mount.path));
    flushed.fails(3, &["not published", "gone"]);
    assert!(!flushed.err.contains("kura init"));
    let unmounted = run(home.kura(["status", "-w"]).arg(&store));
    unmounted.ok();
    assert!(!store.exists(), "nothing makes the store anew");
    fs::rename(&away, &store).unwrap();
    assert!(wait_for(SOON, || !status(&home, &mount).contains("OFFLINE")), "{}", status(&home, &mount));
    run(home.kura(["flush", "--wait", "-w"]).arg(&mount.path)).ok();
    run(home.kura(["unmount"]).arg(&mount.path)).ok();
    assert_eq!(home.ok(&store, ["cat", "latest:while"]), "while");
}

#[test]
fn a_store_that_goes_away_before_the_first_version_does_not_keep_it_from_being_recorded() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    // Long enough for what the mount reads at its start.
    std::thread::sleep(Duration::from_millis(500));
    fs::rename(&store, home.path("store.gone")).unwrap();
    fs::write(mount.file("file"), "content").unwrap();
    let snapshot = run(home.kura(["snapshot", "-m", "alone", "-w"]).arg(&mount.path));
    fs::rename(home.path("store.gone"), &store).unwrap();
    assert_eq!(snapshot.code, Some(0), "recorded on this machine: {snapshot:?}");
    run(home.kura(["flush", "--wait", "-w"]).arg(&mount.path)).ok();
}

#[test]
fn a_missing_store_that_was_known_is_out_of_reach_and_not_to_be_made() {
    let home = Home::new();
    let store = home.store("store");
    home.ok(&store, ["snapshot"]);
    fs::rename(&store, home.path("store.gone")).unwrap();
    let log = run(home.kura(["log", "-w"]).arg(&store));
    log.fails(15, &["gone", store.to_str().unwrap()]);
    assert!(!log.err.contains("kura init"), "{log:?}");
}

#[test]
fn a_store_that_hangs_is_told_of_and_unmounting_does_not_wait_for_it() {
    let home = Home::new();
    let bucket = Bucket::new(&home);
    let mount = bucket.mount("mnt");
    fs::write(mount.file("before"), "before").unwrap();
    bucket.run(&["flush", "--wait"]).ok();
    bucket.1.set_fault(|_, _| Fault::Delay(Duration::from_secs(600)));
    fs::write(mount.file("while"), "while").unwrap();
    assert!(wait_for(SOON, || status(&home, &mount).contains("OFFLINE")), "{}", status(&home, &mount));
    for (program, file) in [
        ("cat", "status"),
        ("cat", "status.json"),
        ("cat", "metrics"),
        ("cat", "events"),
        ("cat", "config"),
        ("cat", "ctl/last_error"),
        ("ls", ""),
        ("ls", "ctl"),
        ("ls", "jobs"),
        ("head -n 1", "access-log"),
    ] {
        let words = program.split(' ').chain(["--"]);
        let told = run(Command::new("timeout").arg("60").args(words).arg(mount.file(".kura").join(file)));
        assert_eq!(told.code, Some(0), "{file}: {told:?}");
    }
    let pid = mount.pid();
    let mut unmount = Running(home.kura(["unmount", "--wait", "1s"]).arg(&mount.path).spawn().unwrap());
    assert!(gone_within(i32::try_from(unmount.0.id()).unwrap(), SOON), "unmount waits for the store");
    assert_eq!(unmount.0.wait().unwrap().code(), Some(3));
    assert!(gone_within(pid, SOON) && !mount.is_mounted());
    // A command without the mount tells what it waits for, and ends.
    let fresh = home.path("fresh");
    let ended = run(bucket.kura(&["log"]).env("KURA_STATE_DIR", &fresh));
    ended.fails(15, &["waiting for the store", "cannot be reached"]);
    bucket.1.set_fault(|_, _| Fault::Pass);
    bucket.run(&["flush"]).ok();
    assert_eq!(bucket.run(&["cat", "latest:while"]).ok(), "while");
}

#[test]
fn a_mount_waits_for_the_earlier_one_that_still_publishes() {
    let home = Home::new();
    let bucket = Bucket::new(&home);
    let mount = bucket.mount("mnt");
    bucket.1.set_fault(|operation, _| if operation == "PutObject" { Fault::Status(503) } else { Fault::Pass });
    fs::write(mount.file("late"), "late").unwrap();
    let pid = mount.pid();
    assert!(Command::new("umount").arg(&mount.path).status().unwrap().success());
    let mut again = bucket.kura(&["mount"]);
    again.arg(&mount.path).stdout(Stdio::piped());
    let mut again = Running(again.spawn().unwrap());
    let mut lines = BufReader::new(again.0.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.contains("still publishing") && line.contains(&pid.to_string()), "{line}");
    bucket.1.set_fault(|_, _| Fault::Pass);
    assert_eq!(again.0.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read_to_string(mount.file("late")).unwrap(), "late");
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("is mounted at"), "{rest}");
}

/// The state directory of the only workspace.
fn state_of(home: &Home) -> PathBuf {
    let dirs = fs::read_dir(home.path("state")).unwrap().map(|dir| dir.unwrap().path());
    let mut dirs = dirs.filter(|dir| dir.join("base").exists() || dir.join("lock").exists());
    dirs.next().unwrap()
}

#[test]
fn a_workspace_in_use_names_who_uses_it() {
    let home = Home::new();
    let bucket = Bucket::new(&home);
    let source = home.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    bucket.run(&["status"]).ok();
    bucket.1.set_fault(|operation, _| match operation {
        "PutObject" => Fault::Delay(Duration::from_secs(600)),
        _ => Fault::Pass,
    });
    let import = Running(bucket.kura(&["import", source.to_str().unwrap()]).spawn().unwrap());
    let lock = state_of(&home).join("lock");
    let pid = import.0.id().to_string();
    assert!(wait_for(SOON, || fs::read_to_string(&lock).unwrap() == pid));
    bucket.run(&["log"]).fails(11, &["import", &pid]);
}

#[test]
fn a_lost_journal_is_noticed_even_when_its_mark_is_lost_too() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    let mut file = File::create(mount.file("synced")).unwrap();
    file.write_all(b"precious").unwrap();
    file.sync_all().unwrap();
    let pid = mount.pid();
    signal(pid, Signal::SIGKILL);
    assert!(gone_within(pid, SOON));
    drop(file);
    run(home.kura(["unmount"]).arg(&mount.path)).ok();
    fs::remove_dir_all(state_of(&home).join("journal")).unwrap();
    let lost = run(home.kura(["mount"]).arg(&store).arg(&mount.path));
    lost.fails(13, &["journal", "missing", "--accept-damage"]);
    run(home.kura(["mount", "--accept-damage"]).arg(&store).arg(&mount.path)).ok();
    fs::write(mount.file("new"), "new").unwrap();
    run(home.kura(["unmount"]).arg(&mount.path)).ok();
    assert_eq!(home.ok(&store, ["cat", "latest:new"]), "new");
}

#[test]
fn what_is_recorded_and_not_published_is_partly_done_and_told_once() {
    let home = Home::new();
    let bucket = Bucket::new(&home);
    let source = home.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    bucket.1.set_fault(|operation, _| if operation == "PutObject" { Fault::Deny } else { Fault::Pass });
    for args in [&["import", source.to_str().unwrap()][..], &["snapshot", "-m", "x"], &["flush"]] {
        let ended = bucket.run(args);
        ended.fails(3, &["not published", "s3:PutObject", "denied"]);
        assert_eq!(ended.err.matches("s3:PutObject").count(), 1, "{ended:?}");
    }
    bucket.1.set_fault(|_, _| Fault::Pass);
    bucket.run(&["flush"]).ok();
    assert_eq!(bucket.run(&["cat", "latest:file"]).ok(), "content");
}

/// A small disk, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(path: PathBuf) -> Self {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "kura-test"]).arg(&path).status();
        assert!(mounted.unwrap().success(), "tests mount file systems, so they run as root");
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn unmounting_is_refused_while_something_is_in_memory_alone() {
    let home = Home::new();
    let store = home.store("store");
    let disk = SmallDisk::new(home.dir("state"));
    let mount = home.mount(&store, "mnt");
    let mut file = File::create(mount.file("file")).unwrap();
    file.write_all(b"begin ").unwrap();
    file.sync_all().unwrap();
    let filler = disk.0.join("filler");
    let mut fill = File::create(&filler).unwrap();
    while fill.write(&[0; 4096]).is_ok_and(|count| count > 0) {}
    drop(fill);
    file.write_all(&noise(200_000)).unwrap();
    drop(file);
    let refused = run(home.kura(["unmount"]).arg(&mount.path));
    refused.fails(3, &["memory alone", "--force"]);
    assert!(mount.is_mounted());
    fs::remove_file(&filler).unwrap();
    run(home.kura(["unmount"]).arg(&mount.path)).ok();
    let size = run(home.kura(["cat", "latest:file", "-w"]).arg(&store).stdout(Stdio::piped())).out.len();
    assert!(size > 6, "what was written is there");
}
