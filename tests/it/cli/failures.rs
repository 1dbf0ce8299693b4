//! Every exit code, with its message.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use super::support::{Ended, Home, PASSPHRASE, run};
use crate::s3_server::{ACCESS_KEY, BUCKET, Fault, S3Server, SECRET_KEY};

fn status(home: &Home, store: impl AsRef<std::ffi::OsStr>) -> Ended {
    run(home.kura(["status", "-w"]).arg(store))
}

#[test]
fn no_workspace() {
    let home = Home::new();
    status(&home, home.path("missing")).fails(10, &["missing", "hint"]);
    let other = home.dir("other");
    status(&home, &other).fails(10, &["other"]);
    fs::write(other.join("file"), "something").unwrap();
    status(&home, &other).fails(10, &["other"]);
    run(home.kura(["mount"]).arg(&other).arg(home.dir("mnt"))).fails(10, &["no workspace", "kura init"]);
    run(&mut home.kura(["status"])).fails(10, &["default"]);
    run(home.kura(["unmount"]).arg(home.dir("mnt"))).fails(10, &["mounted"]);
}

#[test]
fn wrong_passphrase_damage_and_a_newer_format_are_told_apart() {
    let home = Home::new();
    let store = home.store("store");
    let wrong = run(home.bare().args(["log", "-w"]).arg(&store).env("KURA_PASSPHRASE", "wrong passphrase"));
    wrong.fails(12, &["passphrase", "--recovery"]);
    let mnt = home.dir("mnt");
    let wrong = run(home.bare().arg("mount").args([&store, &mnt]).env("KURA_PASSPHRASE", "wrong passphrase"));
    wrong.fails(12, &["passphrase"]);

    let slots: Vec<_> = fs::read_dir(store.join("keys")).unwrap().map(|slot| slot.unwrap().path()).collect();
    for slot in &slots {
        flip_last_byte(slot);
    }
    status(&home, &store).fails(13, &["keys/"]);
    for slot in &slots {
        flip_last_byte(slot);
    }
    status(&home, &store).ok();

    let header = store.join("kura.json");
    let good = fs::read_to_string(&header).unwrap();
    fs::write(&header, good.replace("\"format\": 1", "\"format\": 99")).unwrap();
    let newer = home.elsewhere();
    status(&newer, &store).fails(1, &["99", "newer"]);
    fs::write(&header, "{}").unwrap();
    status(&newer, &store).fails(13, &["kura.json"]);
    fs::write(&header, good).unwrap();
    flip_last_byte(&store.join("HEAD"));
    status(&newer, &store).fails(13, &["HEAD"]);
}

fn flip_last_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_touched() {
    let home = Home::new();
    let store = home.store("store");
    let mnt = home.dir("mnt");
    run(home.kura(["mount", "-o", "ro,frobnicate"]).args([&store, &mnt])).fails(2, &["frobnicate", "allow_other"]);
    run(home.kura(["mount"]).arg(&store).arg(home.dir("store/inside"))).fails(2, &["store directory", "overlap"]);
    run(home.kura(["mount"]).arg(&store).arg(home.path(""))).fails(2, &["overlap"]);
    let full = home.dir("full");
    fs::write(full.join("file"), "x").unwrap();
    let ended = run(home.kura(["mount"]).args([&store, &full]));
    ended.fails(2, &["not empty"]);
    let ended = run(home.kura(["mount"]).arg(&store).arg(full.join("file")));
    ended.fails(2, &["not a directory"]);
    run(home.kura(["mount"]).arg(&store).arg(home.path("missing"))).fails(2, &["missing"]);
    assert_eq!(fs::read(full.join("file")).unwrap(), b"x");
    status(&home, "s3://b").fails(2, &["bucket"]);
    status(&home, "ftp://host/path").fails(2, &["ftp"]);
    run(home.kura(["cat", "latest", "-w"]).arg(&store)).fails(2, &["VERSION:PATH"]);
    run(home.kura(["restore", "latest", "../x", "-w"]).arg(&store)).fails(2, &["../x"]);
    run(home.kura(["snapshot", "--name", "a/b", "-w"]).arg(&store)).fails(2, &["a/b"]);
    run(home.kura(["show", "0000", "-w"]).arg(&store)).fails(1, &["0000", "kura log"]);
    run(home.kura(["cat", "latest:nothing", "-w"]).arg(&store)).fails(1, &["nothing"]);
    run(home.kura(["untag", "nothing", "-w"]).arg(&store)).fails(1, &["nothing"]);
}

#[test]
fn an_error_for_programs_is_json() {
    let home = Home::new();
    let ended = run(home.kura(["status", "--json", "-w"]).arg(home.path("missing")));
    assert_eq!(ended.code, Some(10));
    let error: serde_json::Value = serde_json::from_str(&ended.err).unwrap();
    assert_eq!((&error["ok"], &error["code"], &error["exit"]), (&false.into(), &"no-workspace".into(), &10.into()));
    assert!(error["message"].as_str().is_some_and(|message| message.contains("missing")) && error["hint"].is_string());
}

#[test]
fn a_store_that_went_back_is_refused_until_accepted() {
    let home = Home::new();
    let store = home.store("store");
    let old = home.path("old");
    copy(&store, &old);
    home.ok(&store, ["snapshot", "-m", "newer"]);
    fs::rename(&store, home.path("new")).unwrap();
    copy(&old, &store);
    status(&home, &store).fails(16, &["went back", "--accept-rollback"]);
    let fresh = home.elsewhere();
    status(&fresh, &store).ok();
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn s3(home: &Home, server: &S3Server, args: &[&str]) -> Ended {
    let mut command = home.kura(args);
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command.env("KURA_STORE", format!("s3://{BUCKET}/work?endpoint={}&region=us-east-1", server.endpoint()));
    run(&mut command)
}

#[test]
fn a_bucket_works_and_its_refusals_have_their_codes() {
    let home = Home::new();
    let server = S3Server::start();
    s3(&home, &server, &["status"]).fails(10, &["no workspace"]);
    s3(&home, &server, &["init", "--kdf-memory-mib", "8"]).ok();
    let source = home.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    s3(&home, &server, &["import", source.to_str().unwrap()]).ok();
    assert_eq!(s3(&home, &server, &["cat", "latest:file"]).ok(), "content");

    let fresh = home.elsewhere();
    server.set_fault(|_, _| Fault::Deny);
    s3(&fresh, &server, &["status"]).fails(14, &["denied", "credentials"]);
    server.set_fault(|_, _| Fault::Pass);
    let mut wrong = fresh.kura(["status"]);
    wrong.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", "wrong");
    wrong.env("KURA_STORE", format!("s3://{BUCKET}/work?endpoint={}&region=us-east-1", server.endpoint()));
    run(&mut wrong).fails(14, &["denied"]);
    let endpoint = server.endpoint();
    drop(server);
    let mut gone = fresh.kura(["status"]);
    gone.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    gone.env("KURA_STORE", format!("s3://{BUCKET}/work?endpoint={endpoint}&region=us-east-1"));
    run(&mut gone).fails(15, &["cannot be reached"]);
}

#[test]
fn an_interrupted_command_ends_with_130() {
    let home = Home::new();
    let store = home.store("store");
    let mut command = home.bare();
    command.args(["status", "-w"]).arg(&store).env("KURA_PASSPHRASE_COMMAND", "sleep 20");
    let mut child = super::support::Running(command.spawn().unwrap());
    let pid = i32::try_from(child.0.id()).unwrap();
    let child_of = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    assert!(super::support::wait_for(std::time::Duration::from_secs(10), || !child_of().trim().is_empty()));
    super::support::signal(pid, nix::sys::signal::Signal::SIGINT);
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    assert_ne!(PASSPHRASE, "");
}

#[test]
fn an_interrupted_prompt_leaves_the_terminal_as_it_was() {
    let home = Home::new();
    let store = home.store("store");
    let program = env!("CARGO_BIN_EXE_kura");
    let script = format!("trap : INT; {program} log -w '{}'; echo \"code=$?\"; stty -a", store.display());
    let mut terminal = home.bare();
    let prefix: Vec<_> =
        terminal.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    terminal = std::process::Command::new("script");
    terminal.args(["-qec", &script, "/dev/null"]).env_clear();
    terminal.envs(prefix.into_iter().filter_map(|(name, value)| Some((name, value?))));
    terminal.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = super::support::Running(terminal.spawn().unwrap());
    let (mut keys, mut screen) = (child.0.stdin.take().unwrap(), child.0.stdout.take().unwrap());
    let mut shown = String::new();
    let mut buffer = [0; 1024];
    while !shown.contains("Passphrase of") {
        let count = screen.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "no prompt came: {shown}");
        shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    // The prompt is there before the terminal's echo is off.
    std::thread::sleep(std::time::Duration::from_millis(200));
    keys.write_all(b"\x03").unwrap();
    screen.read_to_string(&mut shown).unwrap();
    assert!(shown.contains("code=130"), "{shown}");
    assert!(shown.contains(" echo ") && !shown.contains("-echo "), "{shown}");
}

#[test]
fn the_lock_of_a_process_that_is_ending_is_waited_for() {
    let home = Home::new();
    let store = home.store("store");
    home.ok(&store, ["snapshot"]);
    let dirs = fs::read_dir(home.path("state")).unwrap().map(|dir| dir.unwrap().path());
    let path = dirs.map(|dir| dir.join("lock")).find(|path| path.exists()).unwrap();
    let hold = |pid: u32| {
        let mut file = fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        file.lock().unwrap();
        file.write_all(pid.to_string().as_bytes()).unwrap();
        file
    };
    // Above every process id that there can be.
    let held = hold(1 << 30);
    let release = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(held);
    });
    home.ok(&store, ["snapshot"]);
    release.join().unwrap();
    let held = hold(std::process::id());
    run(home.kura(["snapshot", "-w"]).arg(&store)).fails(11, &[&std::process::id().to_string()]);
    drop(held);
}
