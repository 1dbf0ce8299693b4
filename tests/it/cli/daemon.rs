//! Mounts: in the background and in the foreground, however they end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use super::support::{Home, Mount, PASSPHRASE, Running, gone_within, json_lines, run, signal, wait_for};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_mount_says_where_it_is_and_unmounting_ends_its_process() {
    let home = Home::new();
    let store = home.store("store");
    let path = home.dir("my work");
    let out = run(home.kura(["mount"]).args([&store, &path])).ok();
    let mount = Mount::at(&home, &path);
    let place = path.to_str().unwrap();
    assert!(out.contains(&format!("is mounted at {place}")) && out.contains("kura unmount"), "{out}");
    fs::write(mount.file("note"), "hello").unwrap();
    let inside = home.kura(["status"]).current_dir(&path).env("KURA_STORE", "/nowhere").output().unwrap();
    assert!(String::from_utf8_lossy(&inside.stdout).contains(place), "the mount around the current directory");
    let pid = mount.pid();
    assert_eq!(run(home.kura(["unmount"]).arg(&path)).ok(), format!("{place} is unmounted\n"));
    assert!(!mount.is_mounted() && gone_within(pid, Duration::ZERO), "unmount waits for the process");
    assert_eq!(home.ok(&store, ["cat", "latest:note"]), "hello");
    run(home.kura(["unmount"]).arg(&path)).fails(10, &["no workspace is mounted"]);
}

#[test]
fn every_way_to_end_a_mount_keeps_and_publishes_its_files() {
    let home = Home::new();
    let store = home.store("store");
    type End = fn(&Home, &Mount);
    let ends: [(&str, End); 5] = [
        ("umount", |_, mount| assert!(Command::new("umount").arg(&mount.path).status().unwrap().success())),
        ("fusermount3", |_, mount| {
            assert!(Command::new("fusermount3").arg("-u").arg(&mount.path).status().unwrap().success());
        }),
        ("SIGTERM", |_, mount| signal(mount.pid(), Signal::SIGTERM)),
        ("SIGINT", |_, mount| signal(mount.pid(), Signal::SIGINT)),
        ("stop", |_, mount| {
            let reply = ask(mount, "{\"op\": \"stop\"}");
            assert_eq!(reply["ok"], true, "{reply}");
        }),
    ];
    for (name, end) in ends {
        let mount = home.mount(&store, "mnt");
        let pid = mount.pid();
        fs::write(mount.file(name), name).unwrap();
        end(&home, &mount);
        assert!(gone_within(pid, SOON), "{name}: the process stays");
        assert!(wait_for(SOON, || !mount.is_mounted()), "{name}: the mount stays");
        // Another machine sees what was published, and nothing else.
        let elsewhere = home
            .kura(["cat", &format!("latest:{name}"), "-w"])
            .arg(&store)
            .env("KURA_STATE_DIR", home.path(&format!("other-{name}")))
            .output()
            .unwrap();
        assert_eq!(elsewhere.stdout, name.as_bytes(), "{name}: {elsewhere:?}");
    }
}

fn ask(mount: &Mount, request: &str) -> serde_json::Value {
    let mut run = File::options().read(true).write(true).open(mount.file(".kura/ctl/run")).unwrap();
    run.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    run.read_to_string(&mut reply).unwrap();
    serde_json::from_str(&reply).unwrap_or_else(|error| panic!("{error}: {reply}"))
}

#[test]
fn a_request_that_is_not_understood_is_answered() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    for bad in [
        "{}",
        "[1]\n",
        "nonsense\n",
        r#"{"op": "frobnicate"}"#,
        r#"{"op": "status", "more": 1}"#,
        r#"{"op": "snapshot", "massage": "x"}"#,
        r#"{"op": "log", "max": -1}"#,
        r#"{"op": "export", "version": "latest", "to": "relative"}"#,
        r#"{"op": "restore", "version": "latest", "paths": ["a/../../b"]}"#,
    ] {
        let reply = ask(&mount, bad);
        assert_eq!(
            (&reply["ok"], &reply["exit"], &reply["code"]),
            (&false.into(), &2.into(), &"usage".into()),
            "{bad}"
        );
    }
    let reply = ask(&mount, r#"{"op": "snapshot", "message": "by hand"}"#);
    assert_eq!((&reply["ok"], &reply["data"]["message"]), (&true.into(), &"by hand".into()));
    let hex = ask(&mount, r#"{"op": "diff", "from": "latest", "path": {"hex": "ff2f"}}"#);
    assert_eq!(hex["exit"], 1, "understood, and there is no such path: {hex}");
}

#[test]
fn a_killed_daemon_loses_nothing_that_was_synced() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    let mut file = File::create(mount.file("synced")).unwrap();
    file.write_all(b"precious").unwrap();
    file.sync_all().unwrap();
    let pid = mount.pid();
    mount.kill();
    assert!(gone_within(pid, SOON));
    drop(file);
    let dead = run(home.kura(["status", "-w"]).arg(&mount.path));
    dead.fails(1, &["dead", "kura unmount"]);
    assert!(run(home.kura(["unmount"]).arg(&mount.path)).ok().contains("dead mount"));
    let mount = home.mount(&store, "mnt");
    assert_eq!(fs::read(mount.file("synced")).unwrap(), b"precious");
    let pid = mount.pid();
    mount.kill();
    assert!(gone_within(pid, SOON));
    let mount = home.mount(&store, "mnt");
    assert_eq!(fs::read(mount.file("synced")).unwrap(), b"precious", "a new mount takes the place of a dead one");
}

#[test]
fn one_state_has_one_mount_and_commands_use_it() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    let other = home.dir("other");
    run(home.kura(["mount"]).args([&store, &other])).fails(11, &["mounted at", "kura unmount"]);
    fs::write(mount.file("file"), "live").unwrap();
    let before = json_lines(&home.ok(&store, ["log", "--json"])).len();
    home.ok(&store, ["snapshot", "-m", "through the mount"]);
    assert!(json_lines(&home.ok(&store, ["log", "--json"])).len() > before);
    let records = home.path("state").join("mounts");
    for record in fs::read_dir(&records).unwrap() {
        fs::rename(record.unwrap().path(), home.path("record")).unwrap();
    }
    run(home.kura(["mount"]).args([&store, &other])).fails(11, &["in use"]);
    run(home.kura(["status", "-w"]).arg(&store)).fails(11, &["in use"]);
    let id = run(home.kura(["status", "-w"]).arg(&mount.path)).ok();
    assert!(id.contains("mounted at"), "{id}");
    let uuid = fs::read_to_string(home.path("record")).unwrap();
    let uuid: serde_json::Value = serde_json::from_str(&uuid).unwrap();
    fs::rename(home.path("record"), records.join(format!("{}.json", uuid["workspace"].as_str().unwrap()))).unwrap();
}

#[test]
fn the_current_directory_gives_paths_their_meaning() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    fs::create_dir_all(mount.file("a/b")).unwrap();
    fs::write(mount.file("a/b/file"), "one").unwrap();
    fs::write(mount.file("file"), "root").unwrap();
    let inside = |args: &[&str]| run(home.kura(args).current_dir(mount.file("a/b")));
    inside(&["snapshot"]).ok();
    fs::write(mount.file("a/b/file"), "two").unwrap();
    assert_eq!(inside(&["cat", "latest:file"]).ok(), "one");
    assert_eq!(inside(&["cat", "latest:../../file"]).ok(), "root");
    assert_eq!(inside(&["cat", &format!("latest:{}", mount.file("file").display())]).ok(), "root");
    inside(&["cat", "latest:../../../file"]).fails(2, &["not in the workspace"]);
    inside(&["cat", "latest:/etc/passwd"]).fails(2, &["not in the workspace"]);
    assert_eq!(inside(&["cat", "latest:../../../mnt/file"]).ok(), "root");
    std::os::unix::fs::symlink(home.path("mnt"), home.path("link")).unwrap();
    let through_link = format!("latest:{}", home.path("link/a/b/file").display());
    assert_eq!(inside(&["cat", &through_link]).ok(), "one");
    assert_eq!(run(home.kura(["cat", &through_link, "-w"]).arg(home.path("link"))).ok(), "one");
    let in_the_past = |below: &str| mount.file(&format!(".kura/versions/{below}"));
    assert_eq!(run(home.kura(["cat", "latest:file"]).current_dir(in_the_past("latest/a/b"))).ok(), "one");
    assert_eq!(inside(&["diff", "latest", "."]).ok(), "M a/b/file\n");
    inside(&["restore", "latest~1", "file"]).ok();
    assert_eq!(fs::read(mount.file("a/b/file")).unwrap(), b"one");
    assert_eq!(fs::read(mount.file("file")).unwrap(), b"root");
}

#[test]
fn from_a_directory_that_is_gone_nothing_is_done() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    run(&mut home.kura(["init", "--kdf-memory-mib", "8"])).ok();
    fs::create_dir(mount.file("gone")).unwrap();
    let program = env!("CARGO_BIN_EXE_kura");
    let mut shell = home.kura::<&str>([]);
    let script = format!("cd gone && rmdir ../gone && {program} snapshot -m 'in the wrong place'");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]).current_dir(mount.file("."));
    command.env_clear().envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run(&mut command).fails(2, &["current directory"]);
    let log = run(shell.arg("log")).ok();
    assert!(!log.contains("in the wrong place"), "the default workspace was taken: {log}");
}

#[test]
fn a_busy_mount_is_named_with_its_users_and_stays() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    let user = Running(Command::new("sleep").arg("60").current_dir(&mount.path).spawn().unwrap());
    assert!(wait_for(SOON, || fs::read_link(format!("/proc/{}/cwd", user.0.id())).is_ok_and(|cwd| cwd == mount.path)));
    run(home.kura(["unmount"]).arg(&mount.path)).fails(11, &["in use", &user.0.id().to_string(), "--lazy"]);
    assert!(mount.is_mounted());
    run(home.kura(["unmount", "--lazy"]).arg(&mount.path)).ok();
    assert!(!mount.is_mounted());
}

#[test]
fn a_copy_of_the_mount_in_another_namespace_keeps_nothing() {
    if !crate::mount::guard::is_root() {
        return;
    }
    let home = Home::new();
    let store = home.store("store");
    type End = fn(&Home, &Mount);
    let ends: [(&str, End); 3] = [
        ("kura", |home, mount| drop(run(home.kura(["unmount"]).arg(&mount.path)).ok())),
        ("umount", |_, mount| assert!(Command::new("umount").arg(&mount.path).status().unwrap().success())),
        ("SIGTERM", |_, mount| signal(mount.pid(), Signal::SIGTERM)),
    ];
    for (name, end) in ends {
        let mount = home.mount(&store, "mnt");
        let pid = mount.pid();
        fs::write(mount.file(name), name).unwrap();
        let mut elsewhere = Command::new("unshare");
        elsewhere.args(["--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 600"]);
        let mut elsewhere = Running(elsewhere.stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(elsewhere.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        end(&home, &mount);
        assert!(gone_within(pid, SOON), "{name}: the process stays");
        assert!(!mount.is_mounted());
        // It lies in the store, whoever looks, and nothing of the earlier mount is in the way of the next.
        assert_eq!(home.ok(&store, ["cat", &format!("latest:{name}")]), name);
        drop(elsewhere);
    }
}

#[test]
fn a_copy_of_the_mount_elsewhere_takes_nothing_from_programs_that_have_files_open() {
    if !crate::mount::guard::is_root() {
        return;
    }
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    let pid = mount.pid();
    let mut open = fs::File::create(mount.file("open")).unwrap();
    let mut elsewhere = Command::new("unshare");
    elsewhere.args(["--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 600"]);
    let mut elsewhere = Running(elsewhere.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(elsewhere.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    run(home.kura(["unmount", "--lazy"]).arg(&mount.path)).ok();
    for _ in 0..10 {
        open.write_all(b"more\n").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    drop(open);
    drop(elsewhere);
    assert!(gone_within(pid, SOON));
    assert_eq!(home.ok(&store, ["cat", "latest:open"]), "more\n".repeat(10));
}

/// An automount point whose mounts nobody makes but who belongs to this process group.
struct Automount {
    path: PathBuf,
    _events: (OwnedFd, OwnedFd),
}

impl Automount {
    fn at(path: PathBuf) -> Self {
        let events = nix::unistd::pipe().unwrap();
        let (fd, group) = (events.1.as_raw_fd(), nix::unistd::getpgrp());
        let options = format!("fd={fd},pgrp={group},minproto=5,maxproto=5,direct");
        mount(Some("kura-test"), &path, Some("autofs"), MsFlags::empty(), Some(&*options)).unwrap();
        Self { path, _events: events }
    }
}

impl Drop for Automount {
    fn drop(&mut self) {
        while umount2(&self.path, MntFlags::MNT_DETACH).is_ok() {}
    }
}

#[test]
fn an_automount_point_is_mounted_by_who_may_pass_it() {
    if !crate::mount::guard::is_root() {
        return;
    }
    let home = Home::new();
    let store = home.store("store");
    let point = Automount::at(home.dir("auto"));
    let mut mounting = Running(home.kura(["mount"]).arg(&store).arg(&point.path).spawn().unwrap());
    let ended = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        mounting.0.try_wait().unwrap().is_some()
    });
    assert!(ended, "who mounts waits for the mount");
    fs::write(point.path.join("file"), "content").unwrap();
    run(home.kura(["unmount"]).arg(&point.path)).ok();
    assert_eq!(home.ok(&store, ["cat", "latest:file"]), "content");
}

#[test]
fn a_read_only_mount_refuses_every_change() {
    let home = Home::new();
    let store = home.store("store");
    let source = home.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    home.ok(&store, ["import", source.to_str().unwrap()]);
    for args in [["--read-only"].as_slice(), &["-o", "noatime,ro"]] {
        let mount = home.mount_with(&store, "mnt", args);
        assert_eq!(fs::read(mount.file("file")).unwrap(), b"content");
        let error = fs::write(mount.file("file"), "changed").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        run(home.kura(["snapshot", "-w"]).arg(&mount.path)).fails(14, &["read-only"]);
        run(home.kura(["unmount"]).arg(&mount.path)).ok();
    }
}

#[test]
fn the_first_mount_makes_the_default_workspace() {
    let home = Home::new();
    let path = home.dir("mnt");
    let out = run(home.kura(["mount"]).arg(&path)).ok();
    let mount = Mount::at(&home, &path);
    assert!(out.contains("Recovery code") && out.contains("is mounted at"), "{out}");
    fs::write(mount.file("file"), "content").unwrap();
    run(&mut home.kura(["snapshot"])).ok();
    assert!(home.path("home/.local/share/kura/default/kura.json").exists());
    run(home.kura(["unmount"]).arg(&path)).ok();
    assert_eq!(run(&mut home.kura(["cat", "latest:file"])).ok(), "content");
    let again = run(home.kura(["mount"]).arg(&path)).ok();
    assert!(!again.contains("Recovery code"), "{again}");
    run(&mut home.kura(["unmount"])).ok();
}

#[test]
fn a_store_that_is_away_is_not_made_anew() {
    let home = Home::new();
    let mount = Mount::at(&home, &home.dir("mnt"));
    let mount_it = || run(home.kura(["mount"]).arg(&mount.path)).ok();
    mount_it();
    fs::write(mount.file("file"), "content").unwrap();
    run(&mut home.kura(["unmount"])).ok();
    let default = home.path("home/.local/share/kura/default");
    fs::rename(&default, home.path("away")).unwrap();
    let out = mount_it();
    assert!(!out.contains("Recovery code"), "{out}");
    assert!(run(home.kura(["status", "-w"]).arg(&mount.path)).ok().contains("OFFLINE"));
    run(home.kura(["unmount", "--wait", "0s"]).arg(&mount.path));
    assert!(!default.exists(), "another workspace lies in its place");
    let out = run(&mut home.kura(["init", "--kdf-memory-mib", "8"]));
    assert_eq!(out.code, Some(15), "{out:?}");
    assert!(out.err.contains("is away") && out.err.contains("--anew") && !default.exists(), "{out:?}");
    run(&mut home.kura(["init", "--anew", "--kdf-memory-mib", "8"])).ok();
    let out = run(home.kura(["mount"]).arg(&mount.path));
    assert!(out.err.contains("held workspace"), "{out:?}");
    run(&mut home.kura(["unmount"])).ok();
    fs::remove_dir_all(&default).unwrap();
    fs::rename(home.path("away"), &default).unwrap();
    mount_it();
    assert_eq!(fs::read_to_string(mount.file("file")).unwrap(), "content");
    run(&mut home.kura(["unmount"])).ok();
}

#[test]
fn the_foreground_unmounts_on_ctrl_c_and_keeps_its_secret() {
    let home = Home::new();
    let store = home.store("store");
    let path = home.dir("mnt");
    let mut child = home.kura(["mount", "--foreground"]).args([&store, &path]).stdout(Stdio::piped()).spawn().unwrap();
    let mount = Mount::at(&home, &path);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("is mounted at"), "{line}");
    let pid = child.id();
    assert!(mount.is_mounted());
    for name in ["cmdline", "environ"] {
        let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(PASSPHRASE), "{name} shows the passphrase");
    }
    fs::write(mount.file("file"), "content").unwrap();
    signal(i32::try_from(pid).unwrap(), Signal::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!mount.is_mounted());
    assert_eq!(home.ok(&store, ["cat", "latest:file"]), "content");
}

#[test]
fn a_mount_that_nobody_can_be_told_of_ends() {
    let home = Home::new();
    let store = home.store("store");
    let path = home.dir("mnt");
    let mut command = home.kura(["mount", "--foreground"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = command.args([&store, &path]).stdout(writer).spawn().unwrap();
    let mount = Mount::at(&home, &path);
    let mut child = Running(child);
    assert!(child.0.wait().unwrap().success() && !mount.is_mounted());
}

#[test]
fn the_background_keeps_its_secret_and_its_log_private() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    let pid = mount.pid();
    for name in ["cmdline", "environ"] {
        let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(PASSPHRASE), "{name} shows the passphrase");
    }
    let session = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = session.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().to_owned();
    assert_eq!(session, pid.to_string(), "it leads a session of its own");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    for log in fs::read_dir(home.path("state/logs")).unwrap() {
        assert_eq!(log.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_mount_takes_no_huge_pages_for_its_small_buffers() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid())).unwrap();
    let huge = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    assert_eq!(huge.map(str::trim), Some("0"), "{status}");
}

#[test]
fn a_passphrase_command_does_not_see_the_passphrase_of_its_parent() {
    let home = Home::new();
    let store = home.store("store");
    let seen = home.path("seen");
    let script = home.path("script");
    fs::write(&script, format!("#!/bin/sh\nenv > {}\necho '{PASSPHRASE}'\n", seen.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = home.bare();
    command.args(["status", "-w"]).arg(&store).env("KURA_PASSPHRASE_COMMAND", format!("'{}'", script.display()));
    run(&mut command).ok();
    let environment = fs::read_to_string(&seen).unwrap();
    assert!(environment.contains("PATH=") && !environment.contains(PASSPHRASE), "{environment}");
}

#[test]
fn two_lines_of_versions_are_joined_and_nothing_is_lost() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    // While it is open it stays ours, so that it does not matter when theirs comes in.
    let mut written = fs::File::create(mount.file("theirs")).unwrap();
    written.write_all(b"ours, too").unwrap();
    let source = home.dir("source");
    fs::write(source.join("theirs"), "theirs").unwrap();
    let mut other = home.kura(["import"]);
    other.arg(&source).arg("-w").arg(&store).env("KURA_STATE_DIR", home.path("other"));
    run(&mut other).ok();
    fs::write(mount.file("ours"), "ours").unwrap();
    drop(written);
    run(home.kura(["flush", "--wait=120s", "-w"]).arg(&mount.path)).ok();
    assert_eq!(fs::read(mount.file("ours")).unwrap(), b"ours");
    assert_eq!(fs::read(mount.file("theirs")).unwrap(), b"ours, too");
    let names = fs::read_dir(&mount.path).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap());
    let beside = names.into_iter().find(|name| name.starts_with("conflict-") && name.ends_with(".theirs")).unwrap();
    assert_eq!(fs::read(mount.file(&beside)).unwrap(), b"theirs");
    let at = |args: &[&str]| run(home.kura(args).arg("-w").arg(&mount.path)).ok();
    let counted = || json_lines(&at(&["status", "--json"]))[0]["conflicts"].clone();
    assert_eq!(counted(), 1);
    // Settled by hand: what is listed is what counts from then on.
    fs::rename(mount.file(&beside), mount.file("settled")).unwrap();
    assert_eq!(at(&["conflicts"]).trim(), "no conflicts");
    assert_eq!(counted(), 0);
    fs::rename(mount.file("settled"), mount.file(&beside)).unwrap();
    assert!(at(&["conflicts"]).contains(&beside));
    assert_eq!(counted(), 1);
    run(home.kura(["unmount"]).arg(&mount.path)).ok();
}

#[test]
fn an_altered_journal_is_refused_until_accepted() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    for round in 0..3 {
        let mut file = File::create(mount.file(&format!("file{round}"))).unwrap();
        file.write_all(b"content").unwrap();
        file.sync_all().unwrap();
    }
    let pid = mount.pid();
    mount.kill();
    assert!(gone_within(pid, SOON));
    run(home.kura(["unmount"]).arg(&mount.path)).ok();
    let state = fs::read_dir(home.path("state")).unwrap().flatten().map(|entry| entry.path().join("journal"));
    let journal = state.into_iter().find(|dir| dir.is_dir()).unwrap();
    let files = fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path());
    let segment = files.filter(|path| !path.ends_with("synced")).max_by_key(|path| path.metadata().unwrap().len());
    let segment = segment.unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    // In the first frames, which were synced long ago; what follows the last may be reserved space.
    let altered = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 3;
    bytes[altered] ^= 0xff;
    fs::write(&segment, bytes).unwrap();
    run(home.kura(["mount"]).arg(&store).arg(&mount.path)).fails(13, &["journal", "--accept-damage"]);
    run(home.kura(["mount", "--accept-damage"]).arg(&store).arg(&mount.path)).ok();
    assert!(mount.is_mounted());
}

#[test]
fn the_demonstration_tells_its_story_and_leaves_nothing() {
    let home = Home::new();
    let scratch = home.dir("scratch");
    let told = run(home.bare().arg("demo").env("TMPDIR", &scratch)).ok();
    let expected = [
        "$ kura mount",
        "the first letter",
        "M post/ada.txt",
        "+the engine works well.",
        "R letters/ -> post/",
        "paths are as in version",
        "grep finds neither Ada nor letters",
        "everything is published",
        "is unmounted",
    ];
    for words in expected {
        assert!(told.contains(words), "`{words}` is missing:\n{told}");
    }
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "it leaves nothing");
    let stays = run(home.bare().args(["demo", "--stay"]).env("TMPDIR", &scratch)).ok();
    let root = fs::read_dir(&scratch).unwrap().next().unwrap().unwrap().path();
    let end =
        stays.lines().last().unwrap().trim().replace("kura unmount", &format!("{}/bin/kura unmount", root.display()));
    let mount = Mount::at_state(&root.join("work"), &root.join("state"));
    assert!(mount.is_mounted() && mount.file("letters/ada.txt").exists(), "{stays}");
    let mut shell = Command::new("sh");
    shell.args(["-ec", &end]).env("KURA_STATE_DIR", root.join("state")).env("KURA_CACHE_DIR", root.join("cache"));
    run(&mut shell).ok();
    assert!(!mount.is_mounted() && !root.exists());
}
