//! Jobs through the command line and the control files, and what a kill leaves of them.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;

use kura::apps::sealed::{self, Credentials, Machine, Place, ShareIds, SystemProcesses};
use kura::base::clock::SystemClock;
use kura::base::disk::RealDisk;
use kura::control::REQUEST_LEN_MAX;
use kura::crypto::slots::Secret;
use serde_json::{Value, json};

use super::support::{Home, Mount, gone_within, run};

const IDS: &str = "1,4,9";

fn command(home: &Home, args: &[&str]) -> Command {
    let mut command = home.bare();
    command.env("KURA_SEALED_PASSWORD", "one").args(["sealed"]).args(args);
    command
}

/// A mount with a file of sealed documents in it.
fn with_documents(home: &Home) -> (std::path::PathBuf, Mount) {
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    fs::write(home.path("one.json"), "{\"n\": 1}").unwrap();
    let mut made = command(home, &["init", "mnt/notes.sealed", "--ids", IDS, "--slots", "16", "--kdf-memory-mib", "8"]);
    run(made.args(["--document", "one.json"])).ok();
    (store, mount)
}

fn submit(mount: &Mount, n: u32) -> String {
    let ids: Vec<u16> = vec![1, 4, 9];
    let document = json!({ "n": n, "filler": "x".repeat(2000) });
    let request = json!({ "file": "notes.sealed", "ids": ids, "password": "one", "document": document });
    fs::write(mount.file(".kura/ctl/update"), request.to_string()).unwrap();
    let reply: Value = serde_json::from_slice(&fs::read(mount.file(".kura/ctl/update")).unwrap()).unwrap();
    reply["data"]["job"].as_str().unwrap().to_owned()
}

fn document(home: &Home) -> Value {
    serde_json::from_str(&run(&mut command(home, &["read", "mnt/notes.sealed", "--ids", IDS])).ok()).unwrap()
}

#[test]
fn jobs_are_listed_waited_for_and_remembered() {
    let home = Home::new();
    let (store, mount) = with_documents(&home);
    let job = submit(&mount, 2);
    let waited = home.ok(&store, ["wait", &job[..30], "--timeout", "60s"]);
    assert!(waited.contains("revision 2"), "{waited}");
    assert_eq!(document(&home)["n"], 2);
    let list = home.ok(&store, ["jobs"]);
    assert!(list.contains(&job) && list.contains("done") && list.contains("update"), "{list}");
    let one: Value = serde_json::from_str(&home.ok(&store, ["jobs", "--json", &job])).unwrap();
    let file = fs::read_to_string(mount.file(".kura/jobs").join(&job).join("result")).unwrap();
    assert_eq!(one["result"], serde_json::from_str::<Value>(&file).unwrap(), "both doors say the same");
    home.ok(&store, ["cancel", &job]);
    fs::write(mount.file(".kura/jobs").join(&job).join("cancel"), "x").unwrap();
    run(home.kura(["wait", "ffff"]).env("KURA_STORE", &store)).fails(1, &["ffff", "kura jobs"]);
    home.ok(&store, ["unmount", mount.path.to_str().unwrap()]);
    assert!(home.ok(&store, ["jobs"]).contains(&job), "also when it is not mounted");
    assert!(home.ok(&store, ["wait", &job]).contains("revision 2"));
    let state =
        run(Command::new("grep").arg("-r").args(["-e", "revision", "-e", "notes.sealed"]).arg(home.path("state")));
    assert_eq!(state.code, Some(1), "what is kept of jobs is sealed: {state:?}");
}

#[test]
fn a_job_that_a_kill_cut_off_is_remembered_and_its_file_is_old_or_new() {
    let home = Home::new();
    let (store, mount) = with_documents(&home);
    home.ok(&store, ["snapshot"]);
    for round in 2..5 {
        let job = submit(&mount, round);
        let pid = mount.pid();
        mount.kill();
        assert!(gone_within(pid, std::time::Duration::from_secs(30)));
        home.ok(&store, ["mount", store.to_str().unwrap(), mount.path.to_str().unwrap()]);
        let shown: Value = serde_json::from_str(&home.ok(&store, ["jobs", "--json", &job])).unwrap();
        let state = shown["state"].as_str().unwrap();
        assert!(["done", "interrupted"].contains(&state), "{shown}");
        let found = document(&home)["n"].as_u64().unwrap();
        assert!(found <= u64::from(round), "{found}");
        if state == "done" {
            assert_eq!(found, u64::from(round));
        }
        run(&mut command(&home, &["verify", "mnt/notes.sealed", "--ids", IDS])).ok();
    }
}

#[test]
fn a_kill_while_a_request_is_wiped_from_memory_leaves_no_mount_that_hangs() {
    let home = Home::new();
    let (store, mount) = with_documents(&home);
    for round in 0..12 {
        let job = format!("{{\"file\": \"notes.sealed\", \"password\": \"no {round}\"");
        std::thread::scope(|scope| {
            // Never understood, so that nothing but wiping comes of them.
            let asking = scope.spawn(|| {
                for _ in 0..200 {
                    let Ok(mut file) = File::options().write(true).open(mount.file(".kura/ctl/update")) else { return };
                    file.write_all(job.as_bytes()).ok();
                    file.write_all(b"}}\n").ok();
                }
            });
            std::thread::sleep(std::time::Duration::from_millis(kura::base::random::number() % 60));
            let pid = mount.pid();
            mount.kill();
            assert!(gone_within(pid, std::time::Duration::from_secs(30)), "round {round}: it hangs");
            asking.join().unwrap();
        });
        home.ok(&store, ["mount", store.to_str().unwrap(), mount.path.to_str().unwrap()]);
    }
}

fn ask(mount: &Mount, request: &Value) -> Value {
    ask_run(mount, &request.to_string())
}

fn ask_run(mount: &Mount, request: &str) -> Value {
    let said = mount.file(".kura/ctl/run");
    let mut run = File::options().read(true).write(true).open(said).unwrap();
    std::io::Write::write_all(&mut run, request.as_bytes()).unwrap();
    serde_json::from_str(&std::io::read_to_string(run).unwrap()).unwrap()
}

#[test]
fn an_id_stands_for_one_update_with_its_secrets() {
    let home = Home::new();
    let (store, mount) = with_documents(&home);
    let update = |n: u32, password: &str| {
        json!({ "op": "update", "id": "once", "file": "notes.sealed", "ids": [1, 4, 9], "password": password,
                "document": { "n": n } })
    };
    let first = ask(&mount, &update(2, "one"));
    let job = first["data"]["job"].as_str().unwrap();
    home.ok(&store, ["wait", job, "--timeout", "60s"]);
    assert_eq!(ask(&mount, &update(2, "one")), first, "the same again is answered and not done");
    for other in [update(3, "one"), update(2, "two")] {
        let reply = ask(&mount, &other);
        assert_eq!(
            (&reply["code"], reply["message"].as_str().unwrap().contains("another request")),
            (&json!("usage"), true)
        );
    }
    assert_eq!(document(&home)["n"], 2);
    home.ok(&store, ["unmount", mount.path.to_str().unwrap()]);
    // Another mount has no means to compare what was secret, and says so.
    let mount = home.mount(&store, "mnt");
    let reply = ask(&mount, &update(2, "one"));
    assert_eq!(reply["code"], "interrupted", "{reply}");
    assert_eq!(document(&home)["n"], 2);
}

#[test]
fn an_update_and_a_command_do_not_work_on_one_file_at_once() {
    let home = Home::new();
    let (store, mount) = with_documents(&home);
    let machine =
        Machine { disk: Arc::new(RealDisk), clock: Arc::new(SystemClock), processes: Arc::new(SystemProcesses) };
    let credentials = Credentials { password: Secret::from_text("one".to_owned()), ids: ShareIds::parse(IDS).unwrap() };
    let place = Place::of(&mount.file("notes.sealed"));
    let held = sealed::safe_update(&machine, &place, b"{\"n\": 50}", &credentials).unwrap();
    let job = submit(&mount, 2);
    run(home.kura(["wait", &job]).env("KURA_STORE", &store)).fails(11, &["being worked on"]);
    held.apply().unwrap();
    assert_eq!(document(&home)["n"], 50);
    home.ok(&store, ["wait", &submit(&mount, 3), "--timeout", "60s"]);
    assert_eq!(document(&home)["n"], 3);
}

/// How often the text stands in the bytes. The C library is fast at this, also where tests are not optimised.
fn count_of(mut bytes: &[u8], text: &[u8]) -> usize {
    let mut count = 0;
    loop {
        // SAFETY: both are slices with their lengths.
        let found = unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), text.as_ptr().cast(), text.len()) };
        if found.is_null() {
            return count;
        }
        count += 1;
        bytes = &bytes[found as usize - bytes.as_ptr() as usize + text.len()..];
    }
}

/// How often the text stands in the memory of a process that it writes to.
fn count_in_memory(pid: i32, text: &[u8]) -> usize {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut count = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        let mut bytes = vec![0; (end - start) as usize];
        // What is not there any more holds nothing.
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            count += count_of(&bytes, text);
        }
    }
    count
}

#[test]
fn nothing_of_a_request_stays_in_the_memory_of_a_mount() {
    if !crate::mount::guard::is_root() {
        return;
    }
    let home = Home::new();
    let (store, mount) = with_documents(&home);
    let secret = format!("secret-{}", uuid::Uuid::from_bytes(kura::base::random::bytes()));
    for (password, code) in [("one", 0), (secret.as_str(), 12)] {
        for _ in 0..3 {
            let request = json!({ "op": "update", "file": "notes.sealed", "ids": [1, 4, 9], "password": password,
                                  "document": { "token": secret } });
            let reply = ask(&mount, &request);
            let waited = run(home.kura(["wait", reply["data"]["job"].as_str().unwrap()]).env("KURA_STORE", &store));
            if code == 0 {
                drop(waited.ok())
            } else {
                waited.fails(code, &["no document"])
            }
            assert_eq!(count_in_memory(mount.pid(), secret.as_bytes()), 0);
        }
    }
    // What is or may be an update, names its own command, and is not understood. Freed memory loses its first bytes.
    let long = format!("{}{secret}", "-".repeat(200));
    for wrong in [
        format!(r#"{{"op": "update", "password": "{long}"}}"#),
        format!(r#"{{"\u006fp": "upd\u0061te", "password": "{long}"}}"#),
        format!(r#"{{"password": "{long}", "ids": [1], "document": ["{long}"], "op": "update"}}"#),
        format!(r#"{{"password": "{long}", "op": ["update"]}}"#),
        format!(r#"{{"password": "{long}", "ids": 1}}"#),
        format!(r#"{{"password": "{long}", "op": "update", "op": "status"}}"#),
    ] {
        let reply = ask_run(&mount, &wrong);
        assert!(reply["code"] == "usage" && !reply.to_string().contains(&secret), "{reply}");
        assert_eq!(count_in_memory(mount.pid(), secret.as_bytes()), 0, "{wrong}");
    }
    // A request that fills what the mount can receive at once, in parts; one that is not understood, and one that ends
    // nowhere.
    let padding = format!("{secret} ").repeat((REQUEST_LEN_MAX - 4096) / (secret.len() + 1));
    let request = json!({ "op": "update", "file": "notes.sealed", "ids": [1, 4, 9], "password": secret,
                          "document": { "token": padding } });
    let ctl = |name: &str| File::options().write(true).open(mount.file(".kura/ctl").join(name)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut file = ctl("update");
            let request = &request;
            scope.spawn(move || {
                let text = request.to_string();
                text.as_bytes().chunks(100_000).for_each(|part| file.write_all(part).unwrap());
            });
        }
    });
    ctl("update").write_all(format!("{{\"password\": \"{secret}\"}}").as_bytes()).unwrap_err();
    ctl("update").write_all(format!("{{\"password\": \"{secret}").as_bytes()).unwrap();
    // Four jobs of a bad password, one after another; a close waits for nothing.
    let is_gone = || count_in_memory(mount.pid(), secret.as_bytes()) == 0;
    assert!(super::support::wait_for(std::time::Duration::from_secs(120), is_gone));
    let grep = Command::new("grep").args(["-rlF", &secret, "--exclude-dir=mnt"]).arg(home.path("")).output().unwrap();
    assert_eq!((grep.status.code(), grep.stdout), (Some(1), Vec::new()), "nor in any file of this machine");
}

/// Writes a line to a control file; the job that it became.
fn job_of(mount: &Mount, command: &str, line: &str) -> std::path::PathBuf {
    fs::write(mount.file(".kura/ctl").join(command), line).unwrap();
    let answer = fs::read_to_string(mount.file(".kura/ctl").join(command)).unwrap();
    let job = answer.trim().strip_prefix("job ").unwrap_or_else(|| panic!("{answer}")).to_owned();
    mount.file(".kura/jobs").join(job)
}

/// What came of a job, read from its files alone.
fn result_of(job: &std::path::Path) -> (String, Value) {
    let status = || fs::read_to_string(job.join("status")).unwrap();
    let ended = super::support::wait_for(std::time::Duration::from_secs(120), || {
        !["queued\n", "running\n"].contains(&status().as_str())
    });
    assert!(ended, "{job:?} does not end");
    let result = fs::read_to_string(job.join("result")).unwrap();
    (status().trim().to_owned(), serde_json::from_str(&result).unwrap())
}

#[test]
fn check_and_export_are_jobs_that_say_the_same_as_the_command_line() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    fs::create_dir(mount.file("d")).unwrap();
    fs::write(mount.file("d/a file"), "content").unwrap();
    fs::write(mount.file("other"), "x").unwrap();
    home.ok(&store, ["snapshot", "--name", "v1"]);
    home.ok(&store, ["flush", "--wait"]);

    let (state, checked) = result_of(&job_of(&mount, "check", "--read-data\n"));
    assert_eq!((state.as_str(), &checked["code"]), ("done", &json!("ok")), "{checked}");
    let told: Value = serde_json::from_str(&home.ok(&store, ["check", "--read-data", "--json"])).unwrap();
    assert_eq!(told, checked["data"]);

    let (by_file, by_command) = (home.path("by file"), home.path("by command"));
    let job = job_of(&mount, "export", &format!("v1 '{}' d\n", by_file.display()));
    let (state, exported) = result_of(&job);
    assert_eq!((state.as_str(), &exported["data"]["files"]), ("done", &json!(2)), "{exported}");
    assert_eq!(fs::read_to_string(job.join("progress")).unwrap(), "7/7 bytes\n");
    let told = home.ok(&store, ["export", "v1", by_command.to_str().unwrap(), "d", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap(), exported["data"]);
    assert_eq!(super::support::tree(&by_file), super::support::tree(&by_command));
    assert_eq!(fs::read(by_file.join("d/a file")).unwrap(), b"content");

    let (state, failed) = result_of(&job_of(&mount, "export", &format!("v9 '{}'\n", by_file.display())));
    assert_eq!((state.as_str(), &failed["ok"]), ("failed", &json!(false)), "{failed}");
    for (command, line) in [("export", "v1 relative\n"), ("check", "--read-data=half\n"), ("check", "--frob\n")] {
        let refused = fs::write(mount.file(".kura/ctl").join(command), line).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL), "{command} {line}");
    }
    // What only looks needs no leave to change.
    home.ok(&store, ["unmount", mount.path.to_str().unwrap()]);
    let mount = home.mount_with(&store, "mnt", &["--read-only"]);
    let (state, checked) = result_of(&job_of(&mount, "check", "\n"));
    assert_eq!((state.as_str(), &checked["code"]), ("done", &json!("ok")), "{checked}");
    assert!(home.ok(&store, ["check"]).contains("nothing is wrong"));
    home.ok(&store, ["unmount", mount.path.to_str().unwrap()]);
}

#[test]
fn a_job_that_reads_ends_when_it_is_cancelled_and_with_its_mount() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    for number in 0..2000 {
        fs::write(mount.file(&format!("{number}")), format!("{number}")).unwrap();
    }
    home.ok(&store, ["snapshot"]);
    let to = home.path("out");
    let job = job_of(&mount, "export", &format!("latest '{}'\n", to.display()));
    fs::write(job.join("cancel"), "x").unwrap();
    let (state, result) = result_of(&job);
    // It may have been quicker.
    assert!(state == "done" || (state == "cancelled" && result["code"] == "interrupted"), "{state}: {result}");
    let job = job_of(&mount, "export", &format!("latest '{}'\n", home.path("again").display()));
    let id = job.file_name().unwrap().to_str().unwrap().to_owned();
    home.ok(&store, ["unmount", mount.path.to_str().unwrap()]);
    let shown: Value = serde_json::from_str(&home.ok(&store, ["jobs", "--json", &id])).unwrap();
    assert!(["done", "interrupted"].contains(&shown["state"].as_str().unwrap()), "{shown}");
}
