//! `kura sealed`, done and refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::cli::support::{Ended, Home, json_lines, run};

/// The exit code of what somebody else works on.
const LOCKED: i32 = 11;
const PASSWORD: &str = "a password of this test";

fn sealed(home: &Home, args: &[&str]) -> Command {
    let mut command = home.bare();
    command.arg("sealed").args(args).env("KURA_SEALED_PASSWORD", PASSWORD);
    command
}

fn ok(home: &Home, args: &[&str]) -> String {
    run(&mut sealed(home, args)).ok()
}

fn fails(home: &Home, args: &[&str], code: i32, words: &[&str]) {
    let ended = run(&mut sealed(home, args));
    ended.fails(code, words);
    assert!(!ended.err.contains(PASSWORD) && ended.out.is_empty(), "{ended:?}");
}

/// A home with a file of one document in slots 2, 3 and 7, cheap to open.
fn made() -> Home {
    let home = Home::new();
    fs::write(home.path("one.json"), "{\"name\":\"one\"}\n").unwrap();
    fs::write(home.path("two.json"), "{\"name\":\"two\"}").unwrap();
    let args = ["init", "f", "--ids", "7,2,3", "--threshold", "2", "--kdf-memory-mib", "8", "--document", "one.json"];
    assert!(ok(&home, &args).contains("share ids: 2,3,7\n"));
    home
}

#[test]
fn a_document_goes_through_its_life() {
    let home = made();
    assert_eq!(ok(&home, &["read", "f", "--ids", "2,3,7"]), "{\"name\":\"one\"}\n");
    assert_eq!(fs::metadata(home.path("f")).unwrap().permissions().mode() & 0o777, 0o600);
    let said = ok(&home, &["update", "f", "--ids", "2,3,7", "--document", "two.json"]);
    assert!(said.contains("revision 2") && said.contains(".bak"), "{said}");
    let work = home.path(".kura-sealed");
    assert_eq!(fs::metadata(&work).unwrap().permissions().mode() & 0o777, 0o700);
    let backups: Vec<_> = fs::read_dir(&work).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(backups.len(), 1);
    let backup = backups[0].to_str().unwrap();
    assert_eq!(ok(&home, &["read", backup, "--ids", "2,3,7"]), "{\"name\":\"one\"}\n");
    assert_eq!(ok(&home, &["read", "f", "--ids", "2,3,7"]), "{\"name\":\"two\"}\n");

    // Ids from the environment, the document from standard input, JSON for programs.
    let mut command = sealed(&home, &["update", "f", "--json", "--no-backup"]);
    let command = command.env("KURA_SEALED_IDS", "2,3,7").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"{\"n\":3}").unwrap();
    let reply = &json_lines(&Ended::of(child.wait_with_output().unwrap()).ok())[0];
    assert_eq!((&reply["revision"], &reply["backup"]), (&3.into(), &serde_json::Value::Null));
    let read = &json_lines(&ok(&home, &["read", "f", "--ids", "2,3,7", "--json"]))[0];
    assert_eq!((&read["revision"], &read["document"]["n"]), (&3.into(), &3.into()));
    assert!(read["changed"].as_str().is_some_and(|time| time.ends_with('Z')));

    let info = &json_lines(&ok(&home, &["info", "f", "--json"]))[0];
    assert_eq!((&info["slots"], &info["field"]), (&64.into(), &"gf256".into()));
    assert_eq!(info["file_bytes"], fs::metadata(home.path("f")).unwrap().len());
    assert_eq!(info["kdf"]["memory_kib"], 8 * 1024);
    assert!(ok(&home, &["info", "f"]).contains("64 slots in field gf256"));
    let verified = &json_lines(&ok(&home, &["verify", "f", "--json"]))[0];
    assert_eq!((&verified["uuid"], &verified["authentic"]), (&info["uuid"], &false.into()));
    let verified = &json_lines(&ok(&home, &["verify", "f", "--ids", "2,3,7", "--json"]))[0];
    assert_eq!(verified["authentic"], true);

    let mut passwd = sealed(&home, &["passwd", "f", "--ids", "2,3,7"]);
    run(passwd.env("KURA_SEALED_NEW_PASSWORD", "a new one of this test")).ok();
    fails(&home, &["read", "f", "--ids", "2,3,7"], 12, &["no document"]);
    let mut read = sealed(&home, &["read", "f", "--ids", "2,3,7"]);
    assert_eq!(run(read.env("KURA_SEALED_PASSWORD", "a new one of this test")).ok(), "{\"n\":3}\n");
    let cleaned = &json_lines(&ok(&home, &["cleanup", "--json"]))[0];
    assert_eq!((&cleaned["removed"], &cleaned["in_use"]), (&0.into(), &0.into()));
}

#[test]
fn documents_are_added_and_refreshed_with_those_that_are_known() {
    let home = made();
    fs::write(home.path("known"), format!("2,3,7 {PASSWORD}\n\n")).unwrap();
    let add = |rest: &[&str]| {
        let args = [&["create", "f", "--known", "known", "--document", "two.json", "--ids", "10,11"], rest].concat();
        let mut command = sealed(&home, &args);
        command.env("KURA_SEALED_PASSWORD", "second password");
        run(&mut command)
    };
    add(&[]).fails(2, &["destroyed", "--rest-is-unused"]);
    assert!(add(&["--rest-is-unused"]).ok().contains("share ids: 10,11"));
    fs::write(home.path("known"), format!("2,3,7 {PASSWORD}\r\n10,11 second password")).unwrap();
    ok(&home, &["refresh", "f", "--known", "known", "--rest-is-unused"]);
    assert_eq!(ok(&home, &["read", "f", "--ids", "2,3,7"]), "{\"name\":\"one\"}\n");
    let mut second = sealed(&home, &["read", "f", "--ids", "10,11"]);
    assert_eq!(run(second.env("KURA_SEALED_PASSWORD", "second password")).ok(), "{\"name\":\"two\"}\n");
    for (line, words) in [("2,3,7", "password"), ("x y", "3,17,40"), ("\u{1}", "line 1")] {
        fs::write(home.path("known"), line).unwrap();
        fails(&home, &["refresh", "f", "--known", "known"], 2, &[words]);
    }
    // Drawn at random, beside the known ones.
    fs::write(home.path("known"), format!("2,3,7 {PASSWORD}")).unwrap();
    let args =
        ["create", "f", "--known", "known", "--rest-is-unused", "--shares", "5", "--document", "two.json", "--json"];
    let ids = json_lines(&ok(&home, &args))[0]["ids"].clone();
    let ids: Vec<String> = ids.as_array().unwrap().iter().map(|id| id.to_string()).collect();
    assert_eq!(ids.len(), 5);
    assert_eq!(ok(&home, &["read", "f", "--ids", &ids.join(",")]), "{\"name\":\"two\"}\n");
}

/// Without a document at first; the one that is created then needs no other to be named.
#[test]
fn a_file_is_made_empty_and_filled() {
    let home = made();
    let said = ok(&home, &["init", "e", "--kdf-memory-mib", "8", "--slots", "12"]);
    assert!(said.contains("kura sealed create"), "{said}");
    assert!(!said.contains("share ids"), "{said}");
    fails(&home, &["read", "e", "--ids", "2,3"], 12, &["no document"]);
    fails(&home, &["create", "e", "--document", "one.json"], 2, &["--rest-is-unused"]);
    let ids = ["--ids", "2,3", "--document", "one.json"];
    ok(&home, &[&["create", "e", "--rest-is-unused"], &ids[..]].concat());
    assert_eq!(ok(&home, &["read", "e", "--ids", "2,3"]), "{\"name\":\"one\"}\n");
    ok(&home, &["verify", "e", "--ids", "2,3"]);
    fails(&home, &["create", "missing", "--rest-is-unused", "--document", "one.json"], 1, &["missing", "init"]);
    fails(&home, &["init", "g", "--ids", "2,3"], 2, &["--document"]);
    fails(&home, &["create", "e", "--known", "-", "--rest-is-unused"], 2, &["standard input"]);
    assert!(!home.path("g").exists() && !home.path("missing").exists());
    // The documents that are there, by standard input: no password in any file.
    let args = ["create", "e", "--known", "-", "--rest-is-unused", "--ids", "5,6", "--document", "two.json"];
    let mut child = sealed(&home, &args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("2,3 {PASSWORD}\n").as_bytes()).unwrap();
    assert!(Ended::of(child.wait_with_output().unwrap()).ok().contains("share ids: 5,6"));
    assert_eq!(ok(&home, &["read", "e", "--ids", "2,3"]), "{\"name\":\"one\"}\n");
}

/// Processes at the same time: those that are not refused work one after another, and no update is lost.
#[test]
fn a_race_of_processes_loses_no_update() {
    let home = made();
    let mut done = 0;
    for _ in 0..if super::support::is_long() { 40 } else { 5 } {
        let args = ["update", "f", "--ids", "2,3,7", "--document", "two.json", "--no-backup"];
        let mut children: Vec<_> = (0..4)
            .map(|_| {
                let mut command = sealed(&home, &args);
                let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                crate::cli::support::Running(child)
            })
            .collect();
        for child in &mut children {
            let code = child.0.wait().unwrap().code();
            assert!([Some(0), Some(LOCKED)].contains(&code), "{code:?}");
            done += u64::from(code == Some(0));
        }
    }
    let read = &json_lines(&ok(&home, &["read", "f", "--ids", "2,3,7", "--json"]))[0];
    assert!(done >= 1);
    assert_eq!(read["revision"], done + 1);
    assert_eq!(fs::read_dir(home.path(".kura-sealed")).unwrap().count(), 0);
}

#[test]
fn refusals_say_what_and_what_to_do() {
    let home = made();
    let before = fs::read(home.path("f")).unwrap();
    fails(&home, &["read", "f", "--ids", "2,3"], 12, &["no document", "hint"]);
    fails(&home, &["read", "f", "--ids", "2,3,8"], 12, &["no document"]);
    fails(&home, &["read", "f", "--ids", "2,3,65"], 2, &["64"]);
    fails(&home, &["read", "missing", "--ids", "2,3"], 1, &["missing"]);
    fails(&home, &["read", "one.json", "--ids", "2,3"], 1, &["no sealed documents"]);
    fails(&home, &["update", "f", "--ids", "2,3,7", "--document", "missing"], 2, &["missing"]);
    fs::write(home.path("bad.json"), "{\"a\":1,\"a\":2}").unwrap();
    fails(&home, &["update", "f", "--ids", "2,3,7", "--document", "bad.json"], 2, &["twice"]);
    fs::write(home.path("large.json"), format!("{{\"a\":\"{}\"}}", "x".repeat(20_000))).unwrap();
    fails(&home, &["update", "f", "--ids", "2,3,7", "--document", "large.json"], 2, &["20008"]);
    fails(&home, &["update", "f", "--ids", "2,3,7", "--document", "two.json", "-o", "one.json"], 2, &["one.json"]);
    fails(&home, &["init", "f", "--document", "two.json"], 2, &["exists"]);
    fails(&home, &["init", "g", "--slots", "1000", "--document", "two.json"], 2, &["255"]);
    fails(&home, &["init", "g", "--kdf-memory-mib", "1", "--document", "two.json"], 2, &["--kdf-memory-mib"]);
    assert!(!home.path("g").exists());
    let mut none = home.bare();
    let none = none.args(["sealed", "read", "f", "--ids", "2,3,7"]);
    assert_eq!(run(none).code, Some(2), "there is no terminal");
    let mut broken = before.clone();
    broken[5000] ^= 1;
    fs::write(home.path("broken"), broken).unwrap();
    fails(&home, &["verify", "broken"], 13, &["broken", "backup"]);
    fails(&home, &["read", "broken", "--ids", "2,3,7"], 13, &["broken", "--accept-damage"]);
    fails(&home, &["update", "broken", "--ids", "2,3,7", "--document", "two.json"], 13, &["broken"]);
    assert_eq!(ok(&home, &["read", "broken", "--ids", "2,3,7", "--accept-damage"]), "{\"name\":\"one\"}\n");
    assert_eq!(fs::read(home.path("f")).unwrap(), before);
    for args in [&["sealed", "read", "f"][..], &["sealed"], &["sealed", "update", "f", "--ids", "1,x"]] {
        assert_eq!(run(home.bare().args(args)).code, Some(2), "{args:?}");
    }
    let ended = run(&mut sealed(&home, &["read", "f", "--ids", "2,3", "--json"]));
    let error: serde_json::Value = serde_json::from_str(&ended.err).unwrap();
    assert_eq!((&error["ok"], &error["code"], &error["exit"]), (&false.into(), &"wrong-key".into(), &12.into()));
}

#[test]
fn passwords_come_from_files_and_commands_and_stay_out_of_sight() {
    let home = made();
    fs::write(home.path("password"), format!("{PASSWORD}\nanother line")).unwrap();
    let read = |var: &str, value: &str| {
        let mut command = home.bare();
        run(command.args(["sealed", "read", "f", "--ids", "2,3,7"]).env(var, value)).ok()
    };
    assert_eq!(read("KURA_SEALED_PASSWORD_FILE", "password"), "{\"name\":\"one\"}\n");
    assert_eq!(read("KURA_SEALED_PASSWORD_COMMAND", "cat password"), "{\"name\":\"one\"}\n");
    // While it works, neither its environment nor its arguments show the password.
    let mut command = sealed(&home, &["update", "f", "--ids", "2,3,7"]);
    let mut child = crate::cli::support::Running(command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let pid = child.0.id();
    let shows = |what: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes())
    };
    let taken_out = || {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(26).any(|window| window.starts_with(b"KURA_SEALED_PASSWORD_FD="))
    };
    assert!(crate::cli::support::wait_for(std::time::Duration::from_secs(120), taken_out));
    assert!(!shows("environ") && !shows("cmdline"));
    drop(child.0.stdin.take());
    assert_eq!(child.0.wait().unwrap().code(), Some(2), "an empty document");
}

#[test]
fn a_symbolic_link_leads_to_the_file() {
    let home = made();
    let dir = home.dir("elsewhere");
    fs::rename(home.path("f"), dir.join("real")).unwrap();
    std::os::unix::fs::symlink(dir.join("real"), home.path("f")).unwrap();
    ok(&home, &["update", "f", "--ids", "2,3,7", "--document", "two.json"]);
    assert!(fs::symlink_metadata(home.path("f")).unwrap().is_symlink());
    assert_eq!(ok(&home, &["read", dir.join("real").to_str().unwrap(), "--ids", "2,3,7"]), "{\"name\":\"two\"}\n");
}

/// A command that was killed leaves the old file or the new one, and what it left is removed.
#[test]
fn a_killed_command_leaves_a_whole_file() {
    let home = made();
    let rounds = if super::support::is_long() { 100 } else { 12 };
    for round in 0..rounds {
        let mut command = sealed(&home, &["update", "f", "--ids", "2,3,7", "--document", "two.json", "--no-backup"]);
        let mut child =
            crate::cli::support::Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        std::thread::sleep(std::time::Duration::from_millis(round * 120 / rounds));
        child.0.kill().ok();
        child.0.wait().unwrap();
        let found = ok(&home, &["read", "f", "--ids", "2,3,7"]);
        assert!(["{\"name\":\"one\"}\n", "{\"name\":\"two\"}\n"].contains(&&found[..]), "{found}");
    }
    ok(&home, &["cleanup"]);
    assert_eq!(fs::read_dir(home.path(".kura-sealed")).unwrap().count(), 0);
    ok(&home, &["verify", "f", "--ids", "2,3,7"]);
}

/// In a directory that others may write to, a prepared link would let us write to its target.
#[test]
fn a_work_directory_of_others_is_refused() {
    let home = made();
    let update = ["update", "f", "--ids", "2,3,7", "--document", "two.json"];
    let work = home.path(".kura-sealed");
    fs::set_permissions(&work, fs::Permissions::from_mode(0o777)).unwrap();
    for args in [&update[..], &["cleanup"], &["init", "g", "--document", "two.json"]] {
        fails(&home, args, 14, &[".kura-sealed", "0700"]);
    }
    fs::remove_dir(&work).unwrap();
    std::os::unix::fs::symlink(home.dir("target"), &work).unwrap();
    fails(&home, &update, 14, &[".kura-sealed"]);
    assert_eq!(fs::read_dir(home.path("target")).unwrap().count(), 0);
    fs::remove_file(&work).unwrap();
    ok(&home, &update);
}
