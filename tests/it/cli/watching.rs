//! What is asked of a mount, and what is handed to who helps: the log of requests, `kura top`, `kura debug`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::support::{Home, Mount, PASSPHRASE, json_lines, run};

type Log = BufReader<File>;

fn log(mount: &Mount) -> Log {
    BufReader::new(File::open(mount.file(".kura/access-log")).unwrap())
}

/// Reads on until a line is as wanted; it, and what came before.
fn until(log: &mut Log, wanted: impl Fn(&Value) -> bool) -> (Value, Vec<Value>) {
    let mut before = Vec::new();
    for _ in 0..100_000 {
        let mut text = String::new();
        assert!(log.read_line(&mut text).unwrap() > 0, "the log ended after {before:?}");
        let line: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        if wanted(&line) {
            return (line, before);
        }
        before.push(line);
    }
    panic!("it never came");
}

#[test]
fn the_log_of_requests_tells_every_reader_what_happens_and_no_names() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    fs::write(mount.file("before"), "x").unwrap();
    let (mut one, mut two) = (log(&mount), log(&mount));
    fs::create_dir(mount.file("secret plan")).unwrap();
    assert!(fs::read(mount.file("secret plan/nothing")).is_err());
    for log in [&mut one, &mut two] {
        let (made, before) = until(log, |line| line["op"] == "mkdir");
        assert_eq!((&made["result"], &made["path"]), (&"ok".into(), &Value::Null), "{made}");
        assert!(made["seconds"].as_f64().unwrap() >= 0.0 && made["tid"] == nix::unistd::gettid().as_raw(), "{made}");
        assert!(made["time"].as_str().unwrap().ends_with('Z') && made["inode"].is_u64(), "{made}");
        assert!(before.iter().all(|line| line["op"] != "write"), "what was before is not told: {before:?}");
        let (_, before) = until(log, |line| line["op"] == "lookup" && line["result"] == "ENOENT");
        assert!(!format!("{before:?}").contains("secret"), "{before:?}");
        let (_, before) = until(log, |line| line["op"] == "idle");
        assert!(!format!("{before:?}").contains("secret"), "{before:?}");
    }
    let is_listed =
        |name: &str| fs::read_dir(mount.file(".kura")).unwrap().any(|entry| entry.unwrap().file_name() == name);
    assert!(is_listed("access-log") && is_listed("config"));
    let (three, four) = (log(&mount), log(&mount));
    let refused = File::open(mount.file(".kura/access-log")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EBUSY), "four read at most");
    run(home.kura(["top", "-n", "1", "-w"]).arg(&mount.path)).fails(11, &["four readers"]);
    drop((one, two, three, four));
    // Ends with its reader, and the mount with nobody waiting.
    home.ok(&store, ["unmount", mount.path.to_str().unwrap()]);
}

#[test]
fn paths_are_in_the_log_where_the_mount_allows_it_and_top_sums_them_up() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount_with(&store, "mnt", &["-o", "access_log=paths"]);
    let mut reader = log(&mount);
    fs::create_dir(mount.file("d")).unwrap();
    fs::write(mount.file("d/f"), "x").unwrap();
    let (made, _) = until(&mut reader, |line| line["op"] == "create");
    assert_eq!((&made["path"], &made["result"]), (&"/d/f".into(), &"ok".into()));
    assert!(fs::remove_dir(mount.file("d")).is_err());
    let (failed, _) = until(&mut reader, |line| line["op"] == "rmdir");
    assert_eq!((&failed["path"], &failed["result"]), (&"/d".into(), &"ENOTEMPTY".into()));
    drop(reader);

    let mut top = home.kura(["top", "--every", "3s", "-n", "1", "--json"]);
    let top = top.env("KURA_STORE", &store).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let output = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| top.wait_with_output().unwrap());
        while !waiting.is_finished() {
            fs::metadata(mount.file(&format!("d/{:?}", std::time::Instant::now()))).ok();
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        waiting.join().unwrap()
    });
    let seen = &json_lines(&String::from_utf8(output.stdout).unwrap())[0];
    assert!(seen["operations"]["lookup"]["requests"].as_u64() > Some(0), "{seen}");
    assert!(seen["operations"]["lookup"]["seconds"].as_f64() > Some(0.0), "{seen}");
    let processes = seen["processes"].as_object().unwrap();
    assert!(processes.keys().any(|name| name.ends_with(&std::process::id().to_string())), "{seen}");
    assert!(seen["files"].as_object().unwrap().keys().any(|path| path.starts_with("/d/Instant")), "{seen}");
    let text = home.ok(&store, ["top", "--every", "100ms", "-n", "1"]);
    assert!(text.contains("a second") && text.contains("processes"), "{text}");
    home.ok(&store, ["unmount", mount.path.to_str().unwrap()]);
    run(home.kura(["top"]).env("KURA_STORE", &store)).fails(10, &["not mounted"]);
}

/// Every file below a directory as one text.
fn all_of(dir: &Path) -> String {
    let found = fs::read_dir(dir).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    found.collect()
}

#[test]
fn a_bundle_for_helpers_holds_no_secrets_and_no_names() {
    let home = Home::new();
    let store = home.store("my-own-store");
    let secrets = [("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI"), ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7")];
    let mount = Mount::at(&home, &home.dir("my-own-mount"));
    run(home.kura(["mount"]).envs(secrets).args([&store, &mount.path])).ok();
    fs::write(mount.file("secret plan.txt"), "top secret content").unwrap();
    fs::write(home.path("key file"), "a key that is long enough to be one").unwrap();
    home.ok(&store, ["snapshot", "-m", "a private remark", "--name", "codeword"]);
    home.ok(&store, ["lock", "secret plan.txt"]);
    fs::write(mount.file(".kura/ctl/restore"), "codeword 'secret plan.txt'\n").unwrap();
    // Something that the log of the mount names.
    let logs = fs::read_dir(home.path("state/logs")).unwrap().next().unwrap().unwrap().path();
    let named = "2026-11-22T12:00:00.5Z ERROR kura::fuse::serve: Read: /secret plan.txt (inode 7): damaged\n";
    fs::write(&logs, [fs::read(&logs).unwrap(), named.as_bytes().to_vec()].concat()).unwrap();

    let bundle = home.path("bundle");
    let make = |args: &[&str]| {
        let mut command = home.kura(["debug"]);
        run(command.envs(secrets).arg(&bundle).args(args).env("KURA_STORE", &store))
    };
    make(&[]).ok();
    let all = all_of(&bundle);
    for secret in [PASSPHRASE, "wJalr", "AKIA", "top secret", "key that is long"] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for name in
        ["secret plan", "remark", "codeword", "my-own", home.path("").to_str().unwrap(), &format!("@{}", host.trim())]
    {
        assert!(!all.contains(name), "{name}: {all}");
    }
    for wanted in [
        "\"version\"",
        "kura_requests_total",
        "newest_version",
        "ERROR kura::fuse::serve:",
        "\"doctor\"",
        "AWS_ACCESS_KEY_ID",
    ] {
        let wanted = wanted.trim_matches('"');
        assert!(all.contains(wanted) || bundle.join(format!("{wanted}.json")).exists(), "{wanted}: {all}");
    }
    let mode = run(Command::new("stat").args(["-c", "%a"]).arg(&bundle).arg(bundle.join("about.json"))).ok();
    assert_eq!(mode, "700\n600\n");
    make(&[]).fails(1, &["does not exist"]);

    fs::remove_dir_all(&bundle).unwrap();
    make(&["--names"]).ok();
    let all = all_of(&bundle);
    assert!(all.contains("/secret plan.txt (inode 7)") && all.contains("my-own-store"), "{all}");
    for secret in [PASSPHRASE, "wJalr", "AKIA", "top secret"] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
    // No key is needed, mounted or not.
    home.ok(&store, ["unmount", mount.path.to_str().unwrap()]);
    fs::remove_dir_all(&bundle).unwrap();
    run(home.bare().arg("debug").arg(&bundle).env("KURA_STORE", &store)).ok();
    assert!(all_of(&bundle).contains("not mounted"));
}
