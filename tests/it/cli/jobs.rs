//! Jobs through the command line and the control files, and what a kill leaves of them.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::support::{Home, Mount, gone_within, run};

const IDS: &str = "1,4,9";

fn sealed(home: &Home, args: &[&str]) -> Command {
    let mut command = home.bare();
    command.env("KURA_SEALED_PASSWORD", "one").args(["sealed"]).args(args);
    command
}

/// A mount with a file of sealed documents in it.
fn with_documents(home: &Home) -> (std::path::PathBuf, Mount) {
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    fs::write(home.path("one.json"), "{\"n\": 1}").unwrap();
    let mut made = sealed(home, &["init", "mnt/notes.sealed", "--ids", IDS, "--slots", "16", "--kdf-memory-mib", "8"]);
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
    serde_json::from_str(&run(&mut sealed(home, &["read", "mnt/notes.sealed", "--ids", IDS])).ok()).unwrap()
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
        run(&mut sealed(&home, &["verify", "mnt/notes.sealed", "--ids", IDS])).ok();
    }
}
