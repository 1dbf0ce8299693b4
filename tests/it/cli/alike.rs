//! Every command that concerns a mount works by its files alone, and both doors say the same.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::support::{Home, Mount, json_lines, run};

/// Commands of the command line without a file of their own, and what stands for them in a mount.
const ELSEWHERE: [(&str, &str); 24] = [
    ("init", "made before there is a mount"),
    ("mount", "makes the mount"),
    ("unmount", "umount(8), fusermount3"),
    ("cat", ".kura/versions, .kura/history"),
    ("import", "any program that copies"),
    ("wait", ".kura/jobs/ID/status"),
    ("stats", ".kura/metrics"),
    ("top", ".kura/access-log"),
    ("sealed", "files of their own; `update`"),
    ("batch", "files of any place"),
    ("key", "works on the store alone, beside mounts"),
    ("iam", "prints a policy"),
    ("debug", "collects what the other files say"),
    ("doctor", "looks at the machine"),
    ("install", "of the system"),
    ("uninstall", "of the system"),
    ("completions", "of the program"),
    ("man", "of the program"),
    ("demo", "of the program"),
    ("version", "of the program"),
    ("help", "of the program"),
    ("web", "shows what the files say"),
    ("ui", "shows what the files say"),
    ("release", "delivers programs, not the files of a mount"),
];

/// Commands of which there is a test elsewhere, with what they need.
const TESTED_ELSEWHERE: [&str; 6] = ["update", "profile", "batch", "release", "resolve", "cancel"];

fn ask(mount: &Mount, line: &str) -> Value {
    use std::io::{Read, Write};
    let mut run = fs::File::options().read(true).write(true).open(mount.file(".kura/ctl/run")).unwrap();
    run.write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    run.read_to_string(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {line}: {answer}"))
}

/// Values, and the items of those that are lists.
fn items(values: &[Value]) -> Vec<Value> {
    let of = |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    values.iter().flat_map(of).collect()
}

#[test]
fn every_command_has_a_file_or_something_that_stands_for_it() {
    let help = run(Home::new().bare().arg("--help")).ok();
    let list = help.split_once("Commands:\n").unwrap().1.split("\n\n").next().unwrap();
    let names: BTreeSet<&str> = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.len() > 30, "{names:?}");
    let commands: BTreeSet<&str> = kura::control::COMMANDS.iter().map(|command| command.name).collect();
    let missing: Vec<&str> = names
        .into_iter()
        .filter(|name| !commands.contains(name) && !ELSEWHERE.iter().any(|(known, _)| known == name))
        .collect();
    assert!(missing.is_empty(), "of these there is neither a file nor a word what stands for them: {missing:?}");
}

#[test]
fn both_doors_of_a_mount_say_the_same() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    fs::create_dir(mount.file("d")).unwrap();
    fs::write(mount.file("d/a b.txt"), "one\ntwo\n").unwrap();
    ask(&mount, "snapshot --name v1 -m 'the first'");
    fs::write(mount.file("d/a b.txt"), "one\n2\n").unwrap();
    fs::write(mount.file("new"), "new").unwrap();
    ask(&mount, "snapshot --name v2");
    ask(&mount, "lock new");
    ask(&mount, "flush --wait");
    for (command, rest) in [
        ("log", vec!["-n", "2"]),
        ("log", vec!["d/a b.txt"]),
        ("diff", vec!["v1", "v2"]),
        ("find", vec!["*.txt"]),
        ("blame", vec!["d/a b.txt"]),
        ("locks", vec![]),
        ("stored", vec![]),
        ("conflicts", vec![]),
        ("jobs", vec![]),
        ("tag", vec!["v1", "again"]),
    ] {
        let line: Vec<String> = rest.iter().map(|word| format!("'{word}'")).collect();
        let told = ask(&mount, &format!("{command} {}", line.join(" ")));
        assert_eq!(told["ok"], true, "{told}");
        let by_file = items(std::slice::from_ref(&told["data"]));
        if command == "tag" {
            home.ok(&store, ["untag", "again"]);
        }
        let args = [&[command][..], &rest, &["--json"]].concat();
        let by_command = items(&json_lines(&home.ok(&store, args)));
        assert_eq!(by_file.len(), by_command.len(), "{command}: {by_file:?} {by_command:?}");
        for (file, command_line) in by_file.iter().zip(&by_command) {
            let differs = |key: &String| file.get(key) != command_line.get(key) && command_line.get(key).is_some();
            let keys: Vec<String> = file.as_object().unwrap().keys().cloned().collect();
            let different: Vec<&String> = keys.iter().filter(|key| differs(key)).collect();
            assert!(different.is_empty(), "{command}: {different:?}: {file} {command_line}");
        }
    }
}

#[test]
fn a_day_passes_by_files_alone() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    fs::write(mount.file("f"), "one").unwrap();
    fs::write(mount.file("gone"), "precious").unwrap();
    let mut used = BTreeSet::new();
    let mut put = |command: &'static str, line: &str| {
        used.insert(command);
        let file = mount.file(".kura/ctl").join(command);
        fs::write(&file, line).unwrap_or_else(|error| {
            panic!("{command} {line}: {error}: {}", fs::read_to_string(mount.file(".kura/ctl/last_error")).unwrap())
        });
        fs::read_to_string(&file).unwrap()
    };
    assert!(put("snapshot", "--name v1 -m 'the first'\n").starts_with("recorded version "));
    put("tag", "v1 other\n");
    assert!(put("show", "other\n").len() > 10);
    put("untag", "other\n");
    fs::write(mount.file("f"), "two").unwrap();
    fs::remove_file(mount.file("gone")).unwrap();
    put("snapshot", "{\"name\": \"v2\"}");
    assert!(put("diff", "v1 v2\n").contains("\"f\""));
    assert!(put("log", "--max 2\n").contains("versions"));
    assert!(put("find", "--deleted\n").contains("gone"));
    put("undelete", "gone\n");
    assert_eq!(fs::read(mount.file("gone")).unwrap(), b"precious");
    put("restore", "v1 f\n");
    assert_eq!(fs::read(mount.file("f")).unwrap(), b"one");
    put("revert", "latest\n");
    assert_eq!(fs::read(mount.file("f")).unwrap(), b"two");
    put("blame", "f\n");
    put("lock", "f --for 10m\n");
    assert!(put("locks", "\n").contains("\"f\""));
    put("unlock", "f\n");
    put("pin", "f\n");
    put("unpin", "f\n");
    put("prefetch", "f\n");
    assert!(put("policy", "merge '*.md'\n").contains("merge"));
    put("conflicts", "\n");
    assert!(put("flush", "--wait\n").contains("everything is published"));
    put("sync", "\n");
    put("gc", "\n");
    put("forget", "{\"keep\": {\"last\": 10}, \"mode\": \"dry-run\"}");
    put("reencrypt", "\n");
    put("repair", "\n");
    assert!(put("status", "\n").contains("workspace"));
    assert!(put("stored", "\n").contains(" objects, "));
    assert!(put("metrics", "\n").contains("kura_files"));
    assert!(put("config", "\n").contains("cache_size"));
    assert!(fs::read_to_string(mount.file(".kura/config")).unwrap().contains("the variable KURA_STATE_DIR"));
    let job = put("check", "\n");
    let job = job.trim().strip_prefix("job ").unwrap().to_owned();
    assert!(put("jobs", "\n").contains(&job));
    put("job", &format!("{job}\n"));
    put("export", &format!("v1 '{}'\n", home.path("out").display()));
    for command in kura::control::COMMANDS {
        let is_known = used.contains(command.name) || TESTED_ELSEWHERE.contains(&command.name);
        assert!(is_known, "`{}` is never asked by its file", command.name);
    }
    home.ok(&store, ["unmount", mount.path.to_str().unwrap()]);
}
