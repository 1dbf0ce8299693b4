//! `kura release`, on a mounted and an unmounted workspace.

use std::fs;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::support::{Home, Mount, json_lines, run};
use crate::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};

#[test]
fn releases_are_published_and_installed_through_both_doors() {
    for mounted in [false, true] {
        let home = Home::new();
        let store = home.store("store");
        let mount = mounted.then(|| home.mount(&store, "mnt"));
        let kura = |args: &[&str]| run(home.kura(["release"]).args(args).arg("-w").arg(&store));
        let at = ["--repository", "srv", "--keys", "keys"];
        let with = |args: &[&str]| kura(&[args, &at[..]].concat());
        kura(&["keygen", "keys"]).ok();
        let dir = home.dir("tool/files");
        fs::write(home.path("tool/package.json"), r#"{"name": "tool", "version": "1.0.0", "type": "feature"}"#)
            .unwrap();
        fs::write(dir.join("tool.txt"), "one").unwrap();
        kura(&["check"]).fails(2, &["follows no repository", "kura release follow"]);
        kura(&["pack", "tool"]).ok();
        with(&["publish", "tool", "--channel", "beta"]).ok();
        with(&["promote", "tool@1.0.0", "--from", "beta", "--channel", "stable", "--percent", "0"]).ok();
        kura(&["trust", "stable", "--keys", "keys", "--to", "stable.trust"]).ok();
        kura(&["follow", "srv", "--trust", "stable.trust"]).ok();
        let out = kura(&["check"]).ok();
        assert!(out.contains("tool 1.0.0: not in phase"), "{out}");
        kura(&["install", "tool@^1"]).ok();
        if let Some(mount) = &mount {
            assert_eq!(fs::read(mount.file("tool.txt")).unwrap(), b"one");
        }
        let out = with(&["report", "stable"]).ok();
        assert!(out.contains("1 installed, 0 failed"), "{out}");
        with(&["rollout", "tool@1.0.0", "revoke:bad", "--channel", "stable"]).ok();
        let out = kura(&["update"]).ok();
        assert!(out.contains("tool 1.0.0 taken back"), "{out}");
        if let Some(mount) = &mount {
            assert!(!mount.file("tool.txt").exists());
        }
        let out = kura(&["history"]).ok();
        assert!(out.contains("installed tool 1.0.0") && out.contains("revoked tool 1.0.0"), "{out}");
        kura(&["install", "tool"]).fails(17, &["no versions fit", "revoked: bad"]);
        with(&["channel", "stable", "--window", "No/Where,,01:00,02:00"]).fails(13, &["no time zone"]);
    }
}

#[test]
fn who_makes_keys_signs_or_checks_a_package_needs_no_workspace() {
    let home = Home::new();
    let kura = |args: &[&str]| run(home.bare().arg("release").args(args));
    kura(&["key", "bob", "--to", "bob.pub"]).ok();
    kura(&["keygen", "keys", "--with", "bob.pub", "--threshold", "2", "--to-sign", "root.json"]).ok();
    let shown = kura(&["sign", "root.json", "--keys", "bob", "--dry-run"]).ok();
    assert!(shown.contains("targets: 2 of 2 keys sign"), "{shown}");
    kura(&["complete", "root.json", "--keys", "keys"]).fails(10, &["workspace"]);
    kura(&["sign", "root.json", "--keys", "bob"]).ok();
    kura(&["keygen", "alone"]).ok();
    kura(&["trust", "stable", "--keys", "alone", "--to", "stable.trust"]).ok();
    fs::write(home.dir("tool/files").join("t"), "one").unwrap();
    fs::write(home.path("tool/package.json"), r#"{"name": "tool", "version": "1.0.0", "type": "feature"}"#).unwrap();
    assert!(kura(&["pack", "tool"]).ok().contains("tool 1.0.0 has 1 files"));
    kura(&["pack", "tol"]).fails(2, &["package.json"]);
    kura(&["keygen", "again", "--threshold", "2"]).fails(1, &["2 of 1 keys would have to sign"]);
    assert!(!home.path("state").exists() && !home.path("cache").exists());
    assert_eq!(fs::read_dir(home.dir("home")).unwrap().count(), 0);
}

#[test]
fn a_mistyped_path_is_told_as_such_and_not_as_damage() {
    let home = Home::new();
    let kura = |args: &[&str]| run(home.bare().arg("release").args(args));
    kura(&["key", "bob", "--to", "bob.pub"]).ok();
    kura(&["keygen", "keys", "--with", "bob.pub", "--threshold", "2", "--to-sign", "root.json"]).ok();
    kura(&["sign", "rot.json", "--keys", "bob"]).fails(2, &["file to be signed", "/rot.json", "No such file"]);
    kura(&["sign", "root.json/x", "--keys", "bob"]).fails(2, &["/root.json/x", "Not a directory"]);
    kura(&["sign", "bob", "--keys", "bob"]).fails(2, &["/bob", "directory"]);
    kura(&["sign", "root.json", "--keys", "bib"]).fails(1, &["the keys in ", "/bib cannot be used", "No such file"]);
    kura(&["sign", "root.json", "--keys", "bob", "--trust", "a.trust"]).fails(2, &["file of trust", "/a.trust"]);
    kura(&["keygen", "other", "--with", "bib.pub"]).fails(2, &["public keys", "/bib.pub"]);
    fs::write(home.path("bob/targets-person.key"), "").unwrap();
    kura(&["sign", "root.json", "--keys", "bob"]).fails(1, &["/bob cannot be used", "targets-person.key is no key"]);
    fs::remove_file(home.path("bob/targets-person.key")).unwrap();
    fs::create_dir(home.path("bob/targets-person.key")).unwrap();
    kura(&["sign", "root.json", "--keys", "bob"]).fails(1, &["targets-person.key: ", "directory"]);
    fs::write(home.path("root.json"), "{}").unwrap();
    kura(&["sign", "root.json", "--keys", "bob"]).fails(13, &["/root.json is damaged"]);
}

#[test]
fn what_others_wrote_moves_no_cursor_and_makes_no_lines() {
    let home = Home::new();
    let store = home.store("store");
    let kura = |args: &[&str]| run(home.kura(["release"]).args(args).arg("-w").arg(&store));
    let at = ["--repository", "srv", "--keys", "keys"];
    let with = |args: &[&str]| kura(&[args, &at[..]].concat());
    kura(&["keygen", "keys"]).ok();
    let dir = home.dir("tool/files");
    fs::write(home.path("tool/package.json"), r#"{"name": "tool", "version": "1.0.0", "type": "feature"}"#).unwrap();
    fs::write(dir.join("tool.txt"), "one").unwrap();
    with(&["publish", "tool", "--channel", "stable"]).ok();
    kura(&["trust", "stable", "--keys", "keys", "--to", "stable.trust"]).ok();
    kura(&["follow", "srv", "--trust", "stable.trust"]).ok();
    kura(&["install", "tool"]).ok();
    let evil = "all\u{1b}[2J\nkura: done\u{202e}";
    let escaped = "all\\u{1b}[2J\\nkura: done\\u{202e}";
    kura(&["feedback", "tool@1.0.0", evil]).ok();
    let out = with(&["report", "stable"]).ok();
    assert!(out.contains(&format!("  \u{201c}{escaped}\u{201d}\n")), "{out:?}");
    let out = with(&["rollout", "tool@1.0.0", &format!("revoke:{evil}"), "--channel", "stable"]).ok();
    assert!(out.contains(escaped), "{out:?}");
    for args in [&["check"][..], &["update"], &["history"]] {
        let out = kura(args).ok();
        assert!(!out.contains(['\u{1b}', '\u{202e}']) && !out.contains("\nkura"), "{args:?}: {out:?}");
    }
    assert!(kura(&["check"]).ok().contains(escaped));
    kura(&["install", "tool"]).fails(17, &["all\\u{1b}[2J\n  kura: done\\u{202e}"]);
}

#[test]
fn a_mount_takes_requests_as_jobs_and_looks_for_something_new_by_itself() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    let kura = |args: &[&str]| run(home.kura(["release"]).args(args).arg("-w").arg(&store));
    let publish = |version: &str, content: &str| {
        let dir = home.dir("tool/files");
        let package = format!(r#"{{"name": "tool", "version": "{version}", "type": "feature"}}"#);
        fs::write(home.path("tool/package.json"), package).unwrap();
        fs::write(dir.join("tool.txt"), content).unwrap();
        kura(&["publish", "tool", "--repository", "store", "--keys", "keys", "--channel", "stable"]).ok();
    };
    kura(&["keygen", "keys"]).ok();
    publish("1.0.0", "one");
    kura(&["trust", "stable", "--keys", "keys", "--to", "stable.trust"]).ok();
    kura(&["follow", "store", "--trust", "stable.trust"]).ok();
    let ctl = mount.file(".kura/ctl/release");
    fs::write(&ctl, "install tool@^1\n").unwrap();
    let said = fs::read_to_string(&ctl).unwrap();
    let job = said.split_whitespace().find(|word| word.len() == 36).unwrap();
    run(home.kura(["wait", job, "-w"]).arg(&store)).ok();
    assert_eq!(fs::read(mount.file("tool.txt")).unwrap(), b"one");
    assert!(fs::write(&ctl, "{\"do\": \"install\", \"packages\": [\"tool\"], \"typo\": 1}").is_err());
    assert!(fs::write(&ctl, "follow --dry-run\n").is_err());
    kura(&["follow", "store", "--trust", "stable.trust", "--every", "1s", "--install"]).ok();
    publish("1.1.0", "two");
    let start = Instant::now();
    // The event comes after the checks.
    let is_told = || fs::read_to_string(mount.file(".kura/events")).unwrap().contains("tool 1.1.0: installed");
    while !is_told() {
        assert!(start.elapsed() < Duration::from_secs(120), "nothing new came: {}", kura(&["history"]).ok());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(fs::read(mount.file("tool.txt")).unwrap(), b"two");
}

#[test]
fn a_repository_in_a_bucket_of_its_own_is_sealed_and_needs_its_credentials() {
    let (home, server) = (Home::new(), S3Server::start());
    let store = home.store("store");
    let bucket = format!("s3://{BUCKET}/updates?region=us-east-1&endpoint={}", server.endpoint());
    let kura = |args: &[&str], secret: &str| {
        let mut command = home.kura(["release"]);
        command.args(args).arg("-w").arg(&store);
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", secret);
        run(&mut command)
    };
    let dir = home.dir("tool/files");
    let package = r#"{"name": "tool", "version": "1.0.0", "type": "feature"}"#;
    fs::write(home.path("tool/package.json"), package).unwrap();
    fs::write(dir.join("tool.txt"), "secret content").unwrap();
    kura(&["keygen", "keys"], SECRET_KEY).ok();
    let publish = ["publish", "tool", "--repository", &bucket, "--keys", "keys", "--channel", "stable"];
    kura(&publish, SECRET_KEY).ok();
    kura(&["trust", "stable", "--keys", "keys", "--to", "stable.trust"], SECRET_KEY).ok();
    kura(&["follow", &bucket, "--trust", "stable.trust"], "wrong").fails(15, &["cannot be used"]);
    kura(&["follow", &bucket, "--trust", "stable.trust"], SECRET_KEY).ok();
    kura(&["install", "tool"], SECRET_KEY).ok();
    assert!(run(home.kura(["cat", "latest:tool.txt", "-w"]).arg(&store)).ok().contains("secret content"));
    let objects = server.objects();
    assert!(objects.keys().filter(|name| name.contains("releases/")).count() >= 6, "{:?}", objects.keys());
    let told = objects.values().any(|bytes| {
        [&b"secret"[..], b"expires"].iter().any(|word| bytes.windows(word.len()).any(|part| part == *word))
    });
    assert!(!told, "something is readable");
}

/// Asks a mount by its file, waits for the end, and gives what is known of the job.
fn by_file(home: &Home, mount: &Mount, words: &[&str]) -> Value {
    let ctl = mount.file(".kura/ctl/release");
    let line: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    if let Err(error) = fs::write(&ctl, format!("{}\n", line.join(" "))) {
        panic!("{error}: {line:?}: {}", fs::read_to_string(mount.file(".kura/ctl/last_error")).unwrap());
    }
    let said = fs::read_to_string(&ctl).unwrap();
    let job = said.split_whitespace().find(|word| word.len() == 36).unwrap();
    run(home.kura(["wait", job, "-w"]).arg(&mount.path));
    serde_json::from_str(&run(home.kura(["jobs", job, "--json", "-w"]).arg(&mount.path)).ok()).unwrap()
}

/// A request each. AT says where a repository and its keys are, TOOL and TRUST are paths, and ~ is a blank.
const REQUESTS: &str = "\
publish TOOL --channel stable --percent 50 --ring a --ring b AT
promote tool@1.0.0 --from stable --channel beta --emergency AT --step 1:20:3600:95:2 --step 100:20:3600:95:2
rollout tool@1.0.0 25% --channel stable AT
rollout tool@1.0.0 revoke:it~is~bad --channel beta AT
channel stable AT --window Europe/Berlin,mon+tue,22:00,05:00 --min-epoch tool=0 --min-epoch a=1
channel stable AT
advance stable AT
advance stable -n AT
report stable AT
cleanup stable --keep 3 AT
cleanup stable --dry-run AT
alert stable --failures 5 --rollbacks 0.5 --install-time 30s --samples 20
alert stable
alert stable --none
test TOOL
follow SRV --trust TRUST --every 1h --limit 2MiB --ring a --install
notify --only failed --template {what} -- true -x
notify --none
notify
check
plan tool
install tool -n
install tool --force
update
verify
feedback tool@1.0.0 it~is~good
rollback tool
pin tool
skip tool@9.0.0
ack 1
ack
history
complete TOOL/a TOOL/b AT";

/// Lines that are refused before they are jobs, and what is said of them.
const REFUSED: &[(&str, &str)] = &[
    ("report stable beta", "`beta` is one argument too many"),
    ("pack tool", "`tool` is no absolute path"),
    ("pack /tool --keys keys", "`keys` is no absolute path"),
    ("follow /srv --trust /t --ca ca.pem", "`ca.pem` is no absolute path"),
    ("follow /srv --trust /t --ring a --ring b", "a client is in one ring"),
    ("ack some", "`some` is no number"),
    ("rollout tool@1.0.0 25 --repository /srv --keys /k --channel c", "`25` is not pause"),
    ("publish /t --channel c --repository /srv --keys /k --percent 101", "`101` is no percentage"),
    ("report stable --channel stable --repository /srv --keys /k", "`channel` is given twice"),
    ("check --percent 5", "percent"),
    (r#"{"do": "alert", "channel": "stable", "failures": "5", "samples": "20"}"#, "`samples` takes a number"),
    (r#"{"do": "alert", "channel": "stable", "install_time": "30s"}"#, "`install_time` takes a number"),
    ("follow /srv --trust /t --dry-run", "has no trial"),
];

#[test]
fn the_file_takes_the_words_of_the_command_line() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    let path = |name: &str| home.path(name).to_str().unwrap().to_owned();
    let (tool, srv, keys, trust) = (path("tool"), path("srv"), path("keys"), path("stable.trust"));
    let dir = home.dir("tool/files");
    fs::write(home.path("tool/package.json"), r#"{"name": "tool", "version": "1.0.0", "type": "feature"}"#).unwrap();
    fs::write(dir.join("tool.txt"), "one").unwrap();
    let file = |words: &[&str]| by_file(&home, &mount, words);
    for words in [&["keygen", &keys][..], &["pack", &tool], &["trust", "stable", "--keys", &keys, "--to", &trust]] {
        assert_eq!(file(words)["state"], "done", "{words:?}");
    }
    let ids = || -> Vec<String> {
        let jobs = json_lines(&run(home.kura(["jobs", "--json", "-w"]).arg(&mount.path)).ok());
        jobs.iter().map(|job| job["job"].as_str().unwrap().to_owned()).collect()
    };
    for line in REQUESTS.lines() {
        let line = line.replace("AT", "--repository SRV --keys KEYS").replace("SRV", &srv).replace("KEYS", &keys);
        let line = line.replace("TOOL", &tool).replace("TRUST", &trust);
        let words: Vec<String> = line.split(' ').map(|word| word.replace('~', " ")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let asked = file(&words);
        let before = ids();
        run(home.kura(["release"]).args(["-w", mount.path.to_str().unwrap()]).args(&words));
        let new: Vec<String> = ids().into_iter().filter(|id| !before.contains(id)).collect();
        assert_eq!(new.len(), 1, "{words:?}");
        let told = run(home.kura(["jobs", &new[0], "--json", "-w"]).arg(&mount.path)).ok();
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(asked["request"], told["request"], "{words:?}");
        assert!(asked["request"]["do"].is_string(), "{asked}");
    }
    for (line, words) in REFUSED {
        let error = fs::write(mount.file(".kura/ctl/release"), format!("{line}\n")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{line}");
        let told = fs::read_to_string(mount.file(".kura/ctl/last_error")).unwrap();
        assert!(told.contains(words), "{line}: {told}");
    }
}

#[test]
fn who_signs_by_the_file_of_a_mount_is_shown_first_what_it_would_be() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    let path = |name: &str| home.path(name).to_str().unwrap().to_owned();
    let (bob, public, keys, root) = (path("bob"), path("bob.pub"), path("keys"), path("root.json"));
    let file = |words: &[&str]| by_file(&home, &mount, words);
    assert_eq!(file(&["key", &bob, "--to", &public])["state"], "done");
    file(&["keygen", &keys, "--with", &public, "--threshold", "2", "--to-sign", &root]);
    let before = fs::read(&root).unwrap();
    let trial = file(&["sign", &root, "--keys", &bob, "--dry-run"]);
    let shown = trial["result"]["data"]["shows"].to_string();
    assert!(shown.contains("targets: 2 of 2 keys sign"), "{trial}");
    assert_eq!(fs::read(&root).unwrap(), before, "nothing is signed");
    assert_eq!(file(&["complete", &root, "--keys", &keys])["state"], "failed");
    let signed = file(&["sign", &root, "--keys", &bob]);
    assert_eq!((&signed["state"], signed["result"]["data"]["shows"].to_string()), (&Value::from("done"), shown));
    assert_ne!(fs::read(&root).unwrap(), before);
    assert_eq!(file(&["complete", &root, "--keys", &keys])["state"], "done");
}

/// Answers one request, and gives all of it.
fn hook() -> (String, std::thread::JoinHandle<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/T0/token-of-a-hook", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut text, mut part) = (String::new(), [0; 4096]);
        while !text.contains("published") {
            let count = stream.read(&mut part).unwrap();
            assert_ne!(count, 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&part[..count]));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        text
    });
    (address, served)
}

#[test]
fn the_address_of_a_webhook_is_used_and_not_shown() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    let path = |name: &str| home.path(name).to_str().unwrap().to_owned();
    let (address, served) = hook();
    let dir = home.dir("tool/files");
    fs::write(home.path("tool/package.json"), r#"{"name": "tool", "version": "1.0.0", "type": "feature"}"#).unwrap();
    fs::write(dir.join("tool.txt"), "one").unwrap();
    let file = |words: &[&str]| by_file(&home, &mount, words);
    assert_eq!(file(&["keygen", &path("keys")])["state"], "done");
    let told = file(&["notify", "--webhook", &address, "--only", "published"]);
    assert_eq!((&told["state"], &told["request"]["do"]), (&Value::from("done"), &Value::from("notify")));
    assert!(!told.to_string().contains("token-of-a-hook"), "{told}");
    let request = mount.file(&format!(".kura/jobs/{}/request", told["job"].as_str().unwrap()));
    let request = fs::read_to_string(request).unwrap();
    assert!(request.contains("webhook") && !request.contains("token-of-a-hook"), "{request}");
    let refused = file(&["notify", "--webhook", &address, "--to-sign", &path("to-sign")]);
    assert_eq!(refused["state"], "failed");
    assert!(!refused.to_string().contains("token-of-a-hook"), "{refused}");
    let (tool, keys, srv) = (path("tool"), path("keys"), path("srv"));
    file(&["publish", &tool, "--channel", "stable", "--repository", &srv, "--keys", &keys]);
    let asked = served.join().unwrap();
    assert!(asked.starts_with("POST /T0/token-of-a-hook "), "{asked}");
}
