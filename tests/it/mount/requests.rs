//! `.kura/ctl`: requests by writing, answers by reading.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use kura::apps::sealed::{self, Credentials, Damage, Machine, NewAccess, NewIds, Settings, ShareIds, SystemProcesses};
use kura::base::clock::SystemClock;
use kura::base::disk::RealDisk;
use kura::crypto::sharing::Field;
use kura::crypto::slots::{KdfParams, Secret};
use serde_json::{Value, json};

use super::guard::{Mount, Place, is_root, python, sh, shell};

fn open(mount: &Mount, name: &str) -> File {
    OpenOptions::new().read(true).write(true).open(mount.at(".kura/ctl").join(name)).unwrap()
}

fn ask(mount: &Mount, request: &Value) -> Value {
    let mut run = open(mount, "run");
    run.write_all(request.to_string().as_bytes()).unwrap();
    answer(&mut run)
}

fn answer(file: &mut File) -> Value {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn errno(result: std::io::Result<()>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

fn last_error(mount: &Mount) -> String {
    fs::read_to_string(mount.at(".kura/ctl/last_error")).unwrap()
}

fn versions(mount: &Mount) -> usize {
    mount.workspace.versions().unwrap().len()
}

#[test]
fn a_request_is_answered_on_the_handle_that_asked() {
    let place = Place::new();
    let mount = place.mount();
    let (mut one, mut two) = (open(&mount, "run"), open(&mount, "run"));
    one.write_all(b"{\"op\": \"status\"}").unwrap();
    two.write_all(b"{\"op\":").unwrap();
    two.write_all(b" \"log\"}").unwrap();
    assert_eq!(answer(&mut one)["data"]["workspace"], mount.workspace.id().to_string());
    assert_eq!(answer(&mut two)["message"], "1 versions");
    let long = json!({ "op": "snapshot", "message": "x".repeat(900_000) }).to_string();
    one.write_all(long.as_bytes()).unwrap();
    assert_eq!(answer(&mut one)["code"], "ok");
    // Not a line, which would end when another test starts a program, whose copy of the descriptor is closed.
    let too_long = "{".repeat(1_100_000);
    assert_eq!(errno(one.write_all(too_long.as_bytes())), libc::EMSGSIZE);
    let reply = sh(mount.path(), "exec 3<>.kura/ctl/run; echo '{\"op\":\"x\"}' >&3; cat <&3");
    assert!(reply.contains("usage") && reply.contains("unknown variant"), "{reply}");
    assert!(shell(mount.path(), "echo {} > .kura/ctl/run").status.success());
    drop((one, two));
    mount.end();
}

#[test]
fn a_line_or_an_object_is_a_request_and_what_fails_fails_the_write() {
    let place = Place::new();
    let mount = place.mount();
    sh(mount.path(), "echo one > f; echo --name v1 -m \"'before the move'\" > .kura/ctl/snapshot");
    assert!(sh(mount.path(), "cat .kura/ctl/snapshot").starts_with("recorded version "));
    assert_eq!(mount.workspace.versions().unwrap()[0].summary.message.as_deref(), Some("before the move"));
    sh(mount.path(), "echo two > f; printf '{\"version\": \"v1\", \"paths\": [\"f\"]}' > .kura/ctl/restore");
    assert_eq!(sh(mount.path(), "cat f"), "one\n");
    let mut restore = open(&mount, "restore");
    for (bad, wanted) in [
        ("\n", "version"),
        ("v1 --nope\n", "--nope"),
        ("v2\n", "v2"),
        ("{\"version\": \"v1\", \"force\": true}", "force"),
        ("{\"op\": \"revert\", \"version\": \"v1\"}", "restore"),
        ("{\"version\": 7}", "invalid type"),
        ("{]}", "key must be"),
        ("'open\n", ""),
    ] {
        let failed = restore.write_all(bad.as_bytes());
        if wanted.is_empty() {
            assert!(failed.is_ok(), "an open quote waits for its end");
            continue;
        }
        let code = errno(failed);
        assert!(code == libc::EINVAL || bad.starts_with("v2") && code == libc::EIO, "{bad}: {code}");
        assert!(last_error(&mount).contains(wanted), "{bad}: {}", last_error(&mount));
        let mut own = String::new();
        restore.read_to_string(&mut own).unwrap();
        assert!(own.contains(wanted), "{bad}: {own}");
    }
    drop(restore);
    assert_eq!(errno(fs::write(mount.at(".kura/ctl/status"), "extra\n")), libc::EINVAL);
    for name in ["nothing", "leave", "stop"] {
        assert!(!mount.at(".kura/ctl").join(name).exists(), "{name}");
    }
    mount.end();
}

#[test]
fn every_way_to_write_a_request_is_one_request() {
    let place = Place::new();
    let mount = place.mount();
    let before = versions(&mount);
    // Opened with O_TRUNC, O_APPEND, in pieces, through duplicates, without a newline.
    sh(mount.path(), "echo --name a1 > .kura/ctl/snapshot");
    sh(mount.path(), "echo --name a2 >> .kura/ctl/snapshot");
    sh(mount.path(), "printf %s '--name a3' > .kura/ctl/snapshot");
    sh(mount.path(), "exec 3> .kura/ctl/snapshot; printf '{\"name\":' >&3; printf '\"a4\"}' >&3; echo >&3");
    sh(mount.path(), ": > .kura/ctl/snapshot");
    python(
        mount.path(),
        "
import os
fd = os.open('.kura/ctl/snapshot', os.O_RDWR)
two = os.dup(fd)
os.write(fd, b'--name ')
os.write(two, b'a5\\n')
assert b'recorded' in os.read(fd, 1000)
os.ftruncate(fd, 0)
os.write(fd, b'--name a6')
os.close(two)
assert os.read(fd, 1000) == b'', 'a copy that is closed ends nothing'
os.write(fd, b'\\n')
assert b'recorded' in os.read(fd, 1000)
os.close(fd)
fd = os.open('.kura/ctl/snapshot', os.O_WRONLY)
os.write(fd, b'--name a6')
try: os.close(fd)
except OSError as error: assert error.errno == 22, error
else: raise AssertionError('the close says that the name is taken')
",
    );
    assert!(last_error(&mount).contains("a6"), "{}", last_error(&mount));
    // What saves through another name meets a refusal, and nothing is run.
    fs::write(mount.at("saved"), "--name a7\n").unwrap();
    assert_eq!(errno(fs::rename(mount.at("saved"), mount.at(".kura/ctl/snapshot"))), libc::EPERM);
    for name in [".snapshot.swp", "snapshot~", "4913"] {
        let refused = fs::write(mount.at(".kura/ctl").join(name), "x").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "{name}");
    }
    assert!(fs::rename(mount.at(".kura/ctl/snapshot"), mount.at("stolen")).is_err());
    assert!(fs::remove_file(mount.at(".kura/ctl/snapshot")).is_err());
    assert_eq!(versions(&mount), before + 6);
    sh(mount.path(), "printf '{\"name\": ' > .kura/ctl/snapshot");
    assert!(last_error(&mount).contains("closed before it was complete"), "{}", last_error(&mount));
    assert_eq!(versions(&mount), before + 6);
    mount.end();
}

#[test]
fn a_request_with_an_id_is_run_once_also_by_another_mount() {
    let place = Place::new();
    let mount = place.mount();
    let request = json!({ "op": "snapshot", "id": "7", "message": "once" });
    let first = ask(&mount, &request);
    assert_eq!(first["code"], "ok");
    assert_eq!(ask(&mount, &request), first);
    let other = ask(&mount, &json!({ "op": "snapshot", "id": "7", "message": "other" }));
    assert_eq!(other["code"], "usage");
    mount.end();
    let mount = place.mount();
    let before = versions(&mount);
    assert_eq!(ask(&mount, &request), first);
    assert_eq!(versions(&mount), before);
    let failed = json!({ "op": "untag", "id": "8", "name": "nothing" });
    assert_eq!(ask(&mount, &failed)["exit"], 1);
    assert_eq!(ask(&mount, &failed), ask(&mount, &failed));
    for id in [json!(""), json!("x".repeat(129)), json!(7)] {
        assert_eq!(ask(&mount, &json!({ "op": "snapshot", "id": id }))["code"], "usage");
    }
    mount.end();
}

#[test]
fn a_change_can_expect_a_parent_and_be_tried() {
    let place = Place::new();
    let mount = place.mount_with(|options| options.intervals.version_quiet_ms = 3_600_000, Default::default(), true);
    let first = ask(&mount, &json!({ "op": "snapshot" }))["data"]["id"].clone();
    let tried = ask(&mount, &json!({ "op": "snapshot", "dry_run": true, "expect_parent": first }));
    assert_eq!((&tried["code"], &tried["data"]), (&json!("ok"), &json!({ "dry_run": true })));
    let second = ask(&mount, &json!({ "op": "snapshot", "expect_parent": first }))["data"]["id"].clone();
    assert_ne!(first, second);
    let stale = ask(&mount, &json!({ "op": "snapshot", "expect_parent": first }));
    assert_eq!(stale["code"], "conflict");
    let line = format!("--expect-parent {} --dry-run\n", first.as_str().unwrap());
    assert_eq!(errno(fs::write(mount.at(".kura/ctl/snapshot"), line)), libc::ESTALE);
    assert_eq!(ask(&mount, &json!({ "op": "log" }))["data"][0]["id"], second);
    mount.end();
}

#[test]
fn requests_are_the_owners_alone() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let mount = place.mount();
    fs::write(mount.at("shared"), "x").unwrap();
    sh(place.path(), "chmod 755 . mnt");
    sh(mount.path(), "setpriv --reuid 12345 --clear-groups cat shared");
    for line in
        ["ls .kura", "cat .kura/status", "cat .kura/ctl/last_error", "echo > .kura/ctl/snapshot", "ls .kura/jobs"]
    {
        let line = format!("! setpriv --reuid 12345 --clear-groups sh -c '{line}'");
        sh(mount.path(), &line);
    }
    mount.end();
}

/// Waits for the end of a job; what is known of it.
fn ended(mount: &Mount, job: &str) -> Value {
    for _ in 0..6000 {
        let shown = ask(mount, &json!({ "op": "job", "job": job }));
        let state = shown["data"]["state"].as_str().unwrap().to_owned();
        if state != "queued" && state != "running" {
            return shown["data"].clone();
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("job {job} does not end");
}

fn real_machine() -> Machine {
    Machine { disk: Arc::new(RealDisk), clock: Arc::new(SystemClock), processes: Arc::new(SystemProcesses) }
}

const ONE: [u16; 3] = [1, 4, 9];
const TWO: [u16; 3] = [2, 3, 16];

fn credentials(password: &str, ids: &[u16]) -> Credentials {
    Credentials { password: Secret::from_text(password.to_owned()), ids: ShareIds::new(ids).unwrap() }
}

/// A file with two documents, made by the application itself.
fn sealed_file(path: &Path) {
    let access = |password: &str, ids: &[u16]| NewAccess {
        password: Secret::from_text(password.to_owned()),
        ids: NewIds::Chosen(ShareIds::new(ids).unwrap()),
        threshold: 2,
    };
    let settings = Settings { field: Field::Gf256, slots: 16, capacity: 4096, kdf: KdfParams::minimum() };
    sealed::create_file(&real_machine(), path, &settings, &access("one", &ONE), b"{\"n\": 1}").unwrap();
    let at = sealed::Place { backup: false, ..sealed::Place::of(path) };
    let known = (&[credentials("one", &ONE)][..], true);
    sealed::add_document(&real_machine(), &at, known, &access("two", &TWO), b"{\"n\": 2}").unwrap();
}

fn read_sealed(path: &Path, password: &str, ids: &[u16]) -> Value {
    let found = sealed::read_document(&real_machine(), path, &credentials(password, ids), Damage::Refuse).unwrap();
    serde_json::from_slice(&found.json).unwrap()
}

#[test]
fn an_update_written_to_its_file_is_a_job_that_changes_one_document() {
    let place = Place::new();
    let mount = place.mount();
    sealed_file(&place.path().join("notes.sealed"));
    sh(mount.path(), "mkdir d; cp ../notes.sealed d/");
    let before = fs::read(mount.at("d/notes.sealed")).unwrap();
    let request = json!({
        "file": "d/notes.sealed", "ids": TWO, "password": "two", "document": { "n": 22, "token": "s3cret" },
    });
    fs::write(mount.at(".kura/ctl/update"), request.to_string()).unwrap();
    let reply: Value = serde_json::from_slice(&fs::read(mount.at(".kura/ctl/update")).unwrap()).unwrap();
    let job = reply["data"]["job"].as_str().unwrap().to_owned();
    let shown = ended(&mount, &job);
    assert_eq!(shown["state"], "done", "{shown}");
    assert_eq!(shown["result"]["data"]["revision"], 2);
    let file = mount.at("d/notes.sealed");
    assert_ne!(fs::read(&file).unwrap(), before, "readers see the new file at once");
    assert_eq!(read_sealed(&file, "two", &TWO)["n"], 22);
    assert_eq!(read_sealed(&file, "one", &ONE)["n"], 1);
    assert_eq!(sh(mount.path(), "ls -A d d/.kura-sealed | grep -c bak").trim(), "1");
    let dir = mount.at(".kura/jobs").join(&job);
    let said = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!((said("status").as_str(), said("progress").as_str()), ("done\n", "1/1 written\n"));
    assert!(said("log").lines().count() >= 3, "{}", said("log"));
    for name in ["request", "log", "result", "status", "progress"] {
        assert!(!said(name).contains("s3cret") && !said(name).contains("\"two\""), "{name}: {}", said(name));
    }
    let wrong = json!({ "op": "update", "file": "d/notes.sealed", "ids": ONE, "password": "no", "document": {} });
    let reply = ask(&mount, &wrong);
    let shown = ended(&mount, reply["data"]["job"].as_str().unwrap());
    assert_eq!((&shown["state"], &shown["result"]["code"]), (&json!("failed"), &json!("wrong-key")));
    let reply = ask(&mount, &json!({ "op": "update", "file": "d/notes.sealed", "ids": ONE, "password": ["s3cret"] }));
    assert_eq!(reply["code"], "usage");
    assert!(!reply.to_string().contains("s3cret") && !last_error(&mount).contains("s3cret"));
    // A trial tells whether the file is there and what it is; the password it does not try.
    let trial = |file: &str| {
        let request = json!({ "op": "update", "file": file, "ids": ONE, "password": "no", "document": {},
                              "dry_run": true });
        ask(&mount, &request)
    };
    fs::write(mount.at("d/plain"), "no sealed file").unwrap();
    let before = fs::read(&file).unwrap();
    assert_eq!(trial("d/notes.sealed")["code"], "ok");
    for other in ["d/absent", "d/plain", "d"] {
        assert_eq!(trial(other)["ok"], false, "{other}");
    }
    assert_eq!(fs::read(&file).unwrap(), before);
    mount.end();
    // Another mount still knows the job, and the file is in a version.
    let mount = place.mount();
    assert_eq!(fs::read_to_string(mount.at(".kura/jobs").join(&job).join("status")).unwrap(), "done\n");
    assert_eq!(read_sealed(&mount.at(".kura/versions/latest/d/notes.sealed"), "two", &TWO)["n"], 22);
    mount.end();
}
