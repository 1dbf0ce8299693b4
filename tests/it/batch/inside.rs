//! Batches as jobs of a mount, connections with names, and where secrets must not be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::servers::{PASSWORD, proftpd};
use crate::cli::support::{Home, Mount, gone_within, run, wait_for};

const FILES: usize = 30;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

fn filled(home: &Home) -> (PathBuf, Mount) {
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    fs::create_dir(mount.file("in")).unwrap();
    for number in 0..FILES {
        fs::write(mount.file(&format!("in/f{number}")), number.to_string()).unwrap();
    }
    (store, mount)
}

fn marking(commit: &str) -> Value {
    json!({
        "name": "inside", "source": { "url": "workspace:/in" }, "run": { "workers": 4, "commit": commit },
        "process": { "kind": "regex", "find": "\\A", "with": "mark:" },
    })
}

/// Writes a job to the control file; its id.
fn submit(mount: &Mount, request: &Value) -> Result<String, String> {
    fs::write(mount.file(".kura/ctl/batch"), request.to_string())
        .map_err(|_| fs::read_to_string(mount.file(".kura/ctl/last_error")).unwrap())?;
    let reply: Value = serde_json::from_slice(&fs::read(mount.file(".kura/ctl/batch")).unwrap()).unwrap();
    Ok(reply["data"]["job"].as_str().unwrap().to_owned())
}

/// What came of a job.
fn waited(home: &Home, store: &Path, job: &str) -> Value {
    run(home.kura(["wait", job, "--timeout", "120s"]).env("KURA_STORE", store));
    let shown: Value = serde_json::from_str(&home.ok(store, ["jobs", "--json", job])).unwrap();
    shown["result"].clone()
}

fn set_up(home: &Home, text: &str) -> PathBuf {
    let path = home.dir("home/.config/kura").join("connections.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn content(mount: &Mount, number: usize) -> String {
    fs::read_to_string(mount.file(&format!("in/f{number}"))).unwrap()
}

#[test]
fn a_batch_written_to_its_file_is_one_version_that_one_revert_undoes() {
    let home = Home::new();
    let (store, mount) = filled(&home);
    home.ok(&store, ["snapshot"]);
    let versions = || home.ok(&store, ["log", "--json"]).lines().count();
    let before = versions();
    let job = submit(&mount, &json!({ "job": marking("all") })).unwrap();
    let reply = waited(&home, &store, &job);
    assert_eq!((&reply["code"], &reply["data"]["done"]), (&json!("ok"), &json!(FILES)), "{reply}");
    assert_eq!(content(&mount, 7), "mark:7", "programs that use the mount see it at once");
    assert_eq!(versions(), before + 1);
    let dir = mount.file(".kura/jobs").join(&job);
    assert!(fs::read_to_string(dir.join("log")).unwrap().contains("30 processed"));
    assert_eq!(fs::read_to_string(dir.join("status")).unwrap(), "done\n");
    // The command line goes the same way, and finds nothing left to do.
    let file = home.path("job.json");
    fs::write(&file, marking("all").to_string()).unwrap();
    let said = home.ok(&store, ["batch", "run", file.to_str().unwrap()]);
    assert!(said.contains("30 skipped") && said.contains("0 processed"), "{said}");
    home.ok(&store, ["revert", "latest"]);
    assert_eq!(content(&mount, 7), "7");
}

#[test]
fn all_or_nothing_leaves_the_mount_as_it_was_and_partial_what_there_is() {
    let home = Home::new();
    let (store, mount) = filled(&home);
    fs::write(mount.file("in/bad"), [0xff, 0xfe]).unwrap();
    (0..FILES).for_each(|number| fs::write(mount.file(&format!("in/f{number}")), format!("é{number}")).unwrap());
    let mut job = marking("all");
    job["process"] = json!({ "kind": "reencode", "from": "utf-8", "to": "windows-1252" });
    let reply = waited(&home, &store, &submit(&mount, &json!({ "job": job })).unwrap());
    assert_eq!((&reply["code"], &reply["data"]["failed"]), (&json!("partial"), &json!(1)), "{reply}");
    assert_eq!(content(&mount, 7), "é7");
    job["run"]["commit"] = json!("partial");
    let reply = waited(&home, &store, &submit(&mount, &json!({ "job": job })).unwrap());
    assert_eq!((&reply["data"]["done"], &reply["data"]["failed"]), (&json!(FILES), &json!(1)), "{reply}");
    assert_eq!(fs::read(mount.file("in/f7")).unwrap(), b"\xe97");
    let reply = waited(&home, &store, &submit(&mount, &json!({ "action": "failures", "job": job })).unwrap());
    assert_eq!(reply["data"].as_array().unwrap().len(), 1, "{reply}");
}

#[test]
fn commands_and_plaintext_on_disk_have_to_be_allowed() {
    let home = Home::new();
    let (store, mount) = filled(&home);
    let mut job = marking("all");
    job["process"] = json!({ "kind": "command", "argv": ["sed", "-i", "s/^/mark:/", "{in}"] });
    let denied = waited(&home, &store, &submit(&mount, &json!({ "job": job })).unwrap());
    assert_eq!(denied["code"], "denied", "{denied}");
    let mut on_disk = marking("all");
    on_disk["run"]["plaintext_dir"] = json!(home.dir("plain"));
    let denied = waited(&home, &store, &submit(&mount, &json!({ "job": on_disk })).unwrap());
    assert_eq!(denied["code"], "denied", "{denied}");
    let path = set_up(&home, "allow_commands = true\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = waited(&home, &store, &submit(&mount, &json!({ "job": job })).unwrap());
    assert!(refused["message"].as_str().unwrap().contains("chmod 600"), "{refused}");
    set_up(&home, "allow_commands = true\n");
    let done = waited(&home, &store, &submit(&mount, &json!({ "job": job })).unwrap());
    assert_eq!((&done["code"], content(&mount, 3).as_str()), (&json!("ok"), "mark:3"), "{done}");
}

#[test]
fn a_killed_mount_leaves_nothing_half_done_and_the_next_one_goes_on() {
    let home = Home::new();
    let (store, mount) = filled(&home);
    // What was closed an instant before a kill may come back as drafts, which are in no version.
    home.ok(&store, ["snapshot"]);
    set_up(&home, "allow_commands = true\n");
    let go = home.path("go");
    let script = format!("while [ ! -e '{}' ]; do sleep 0.05; done; (printf mark:; cat \"$0\") > \"$1\"", go.display());
    let mut job = marking("all");
    job["process"] = json!({ "kind": "command", "argv": ["sh", "-c", script, "{in}", "{out}"] });
    let id = submit(&mount, &json!({ "job": job })).unwrap();
    let status = || fs::read_to_string(mount.file(".kura/jobs").join(&id).join("status")).unwrap();
    assert!(wait_for(PATIENCE, || status() == "running\n"));
    let pid = mount.pid();
    mount.kill();
    assert!(gone_within(pid, PATIENCE));
    fs::write(&go, "").unwrap();
    home.ok(&store, ["mount", store.to_str().unwrap(), mount.path.to_str().unwrap()]);
    let reply = waited(&home, &store, &id);
    assert_eq!((&reply["code"], &reply["data"]["done"]), (&json!("ok"), &json!(FILES)), "{reply}");
    for number in 0..FILES {
        assert_eq!(content(&mount, number), format!("mark:{number}"));
    }
}

#[test]
fn a_cancelled_job_ends_and_changes_nothing() {
    let home = Home::new();
    let (store, mount) = filled(&home);
    set_up(&home, "allow_commands = true\n");
    let mut job = marking("all");
    job["process"] = json!({ "kind": "command", "argv": ["sleep", "600", "{in}"] });
    let id = submit(&mount, &json!({ "job": job })).unwrap();
    let dir = mount.file(".kura/jobs").join(&id);
    let status = || fs::read_to_string(dir.join("status")).unwrap();
    assert!(wait_for(PATIENCE, || status() == "running\n"));
    fs::write(dir.join("cancel"), "x").unwrap();
    assert!(wait_for(PATIENCE, || status() == "cancelled\n"), "{}", status());
    assert_eq!(content(&mount, 3), "3");
    home.ok(&store, ["jobs"]);
}

#[test]
fn jobs_of_a_mount_get_passwords_by_connection_only() {
    let home = Home::new();
    let (_, mount) = filled(&home);
    for secret in [
        json!({ "url": "sftp://h/d", "password_env": "HOME" }),
        json!({ "url": "sftp://h/d", "password_file": "/etc/shadow" }),
        json!({ "url": "sftp://h/d", "key_file": "/root/.ssh/id" }),
    ] {
        let mut job = marking("all");
        job["source"] = secret;
        let error = submit(&mount, &json!({ "job": job })).unwrap_err();
        assert!(error.contains("connection"), "{error}");
    }
    for job in [json!({ "password": "hunter2" }), json!({ "source": "ftp://me:hunter2@h/" }), json!("hunter2")] {
        let error = submit(&mount, &json!({ "job": job })).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_connection_brings_the_password_and_nothing_tells_it() {
    let server = proftpd(true, "");
    let home = Home::new();
    let (store, mount) = filled(&home);
    for number in 0..5 {
        fs::create_dir_all(server.files().join("d")).unwrap();
        fs::write(server.files().join(format!("d/f{number}")), "é").unwrap();
    }
    fs::write(server.files().join("d/bad"), [0xff]).unwrap();
    let script = home.path("pass");
    fs::write(&script, format!("#!/bin/sh\necho {PASSWORD}\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    set_up(
        &home,
        &format!(
            "[connections.reports]\nurl = \"ftpes://me@127.0.0.1:{}{}\"\nca_file = \"{}\"\n\
             password_command = [\"{}\"]\n",
            server.port,
            server.files().display(),
            server.dir.path().join("server.pem").display(),
            script.display()
        ),
    );
    let mut job = marking("all");
    job["source"] = json!({ "connection": "reports", "path": "d" });
    job["process"] = json!({ "kind": "reencode", "from": "utf-8", "to": "windows-1252" });
    let reply = waited(&home, &store, &submit(&mount, &json!({ "job": job })).unwrap());
    assert_eq!((&reply["data"]["done"], &reply["data"]["failed"]), (&json!(5), &json!(1)), "{reply}");
    assert_eq!(fs::read(server.files().join("d/f0")).unwrap(), b"\xe9");
    // The same from the command line, with a password that is wrong.
    fs::write(&script, "#!/bin/sh\necho wrong-and-secret\n").unwrap();
    let file = home.path("job.json");
    fs::write(&file, job.to_string()).unwrap();
    let mut command = home.kura(["batch", "run", file.to_str().unwrap()]);
    let refused = run(command.env("KURA_STORE", &store).env("KURA_LOG", "trace"));
    assert!(!format!("{refused:?}").contains("wrong-and-secret"), "{refused:?}");
    assert_ne!(refused.code, Some(0));
    home.ok(&store, ["unmount", mount.path.to_str().unwrap()]);
    for (place, words) in [("state", [PASSWORD, "wrong-and-secret"]), ("cache", [PASSWORD, "wrong-and-secret"])] {
        let args = ["-r", "-a", "-e", words[0], "-e", words[1]];
        let found = run(Command::new("grep").args(args).arg(home.dir(place)));
        assert_eq!(found.code, Some(1), "nothing that is kept holds it: {found:?}");
    }
    // Names of files are in no log, backlog, journal or memory either.
    let found = run(Command::new("grep").args(["-r", "-a", "-l", "d/bad"]).arg(home.dir("state")));
    assert!(found.out.lines().all(|line| line.contains("/logs/")), "{found:?}");
}
