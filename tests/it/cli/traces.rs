//! What happened to a path: its log, blame, what is gone, how it comes back; through both doors and the files.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::support::{Home, json_lines, run};

/// A home whose versions are recorded only when asked for.
fn quiet_home() -> Home {
    let home = Home::new();
    fs::write(home.dir("home/.config/kura").join("config.toml"), "version_quiet = \"10h\"\nversion_max = \"20h\"\n")
        .unwrap();
    home
}

/// A history: a file made, changed, renamed, changed, and one that is deleted.
fn history(home: &Home, dir: &Path, store: &Path) {
    let step = |name: &str| home.ok(store, ["snapshot", "--name", name]);
    fs::create_dir_all(dir.join("d")).unwrap();
    fs::write(dir.join("d/old name.txt"), "one\ntwo\nthree\n").unwrap();
    fs::write(dir.join("gone.txt"), "precious").unwrap();
    step("v1");
    fs::write(dir.join("d/old name.txt"), "one\n2\nthree\n").unwrap();
    step("v2");
    fs::rename(dir.join("d/old name.txt"), dir.join("new.txt")).unwrap();
    fs::remove_file(dir.join("gone.txt")).unwrap();
    step("v3");
    fs::write(dir.join("new.txt"), "zero\none\n2\nthree\n").unwrap();
    step("v4");
    fs::write(dir.join("other"), "x").unwrap();
    step("v5");
}

fn steps(text: &str) -> Vec<(String, String, Value)> {
    let step = |line: &Value| {
        let change = &line["change"];
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (word(&line["name"]), format!("{} {}", word(&change["letter"]), word(&change["path"])), change["from"].clone())
    };
    json_lines(text).iter().map(step).collect()
}

fn check(home: &Home, store: &Path, mounted: bool) {
    let step = |name: &str, change: &str, from: Value| (name.to_owned(), change.to_owned(), from);
    let expected = [
        step("v4", "M new.txt", Value::Null),
        step("v3", "R new.txt", json!("d/old name.txt")),
        step("v2", "M d/old name.txt", Value::Null),
        step("v1", "+ d/old name.txt", Value::Null),
    ];
    assert_eq!(steps(&home.ok(store, ["log", "--json", "new.txt"])), expected);
    assert_eq!(steps(&home.ok(store, ["log", "--json", "-n", "1", "new.txt"])), expected[..1]);
    let text = home.ok(store, ["log", "new.txt"]);
    assert!(text.contains("R d/old name.txt -> new.txt"), "{text}");
    let gone = steps(&home.ok(store, ["log", "--json", "gone.txt"]));
    assert_eq!(gone, [step("v3", "- gone.txt", Value::Null), step("v1", "+ gone.txt", Value::Null)]);
    run(home.kura(["log", "never"]).env("KURA_STORE", store)).fails(1, &["never", "--deleted"]);

    let blamed = json_lines(&home.ok(store, ["blame", "--json", "new.txt"]));
    let names: Vec<Value> = json_lines(&home.ok(store, ["log", "--json"]));
    let name_of = |id: &Value| names.iter().find(|version| version["id"] == *id).unwrap()["name"].clone();
    let lines: Vec<(Value, Value)> =
        blamed.iter().map(|line| (name_of(&line["version"]), line["text"].clone())).collect();
    let line = |name: &str, text: &str| (json!(name), json!(text));
    assert_eq!(lines, [line("v4", "zero"), line("v1", "one"), line("v2", "2"), line("v1", "three")]);

    let found = json_lines(&home.ok(store, ["find", "--deleted", "--json", "*.txt"]));
    let paths: Vec<&Value> = found.iter().map(|item| &item["path"]).collect();
    assert_eq!(paths, [&json!("d/old name.txt"), &json!("gone.txt")]);
    assert_eq!((&found[1]["size"], name_of(&found[1]["version"])), (&json!(8), json!("v2")));
    assert_eq!(home.ok(store, ["find", "n*"]), "new.txt\n");
    let dry = home.ok(store, ["undelete", "-n", "gone.txt"]);
    assert!(dry.contains("gone.txt"), "{dry}");
    assert_eq!(home.ok(store, ["find", "g*"]), "");
    if !mounted {
        home.ok(store, ["undelete", "gone.txt"]);
        assert_eq!(home.ok(store, ["find", "g*"]), "gone.txt\n");
        run(home.kura(["undelete", "gone.txt"]).env("KURA_STORE", store)).fails(1, &["not gone"]);
        home.ok(store, ["tag", "v1", "first"]);
        home.ok(store, ["tag", "v1", "first"]);
        run(home.kura(["tag", "v2", "first"]).env("KURA_STORE", store)).fails(2, &["first"]);
        assert_eq!(home.ok(store, ["cat", "first:gone.txt"]), "precious");
    }
}

#[test]
fn a_path_has_a_history_a_blame_and_comes_back() {
    let home = quiet_home();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    history(&home, &mount.path, &store);
    check(&home, &store, true);
    let names = |name: &str| {
        let mut names: Vec<String> = fs::read_dir(mount.file(name))
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(".kura/history"), ["d", "new.txt", "other"]);
    let versions = names(".kura/history/new.txt");
    let texts: Vec<String> = versions
        .iter()
        .map(|name| fs::read_to_string(mount.file(".kura/history/new.txt").join(name)).unwrap())
        .collect();
    assert_eq!(texts, ["one\ntwo\nthree\n", "one\n2\nthree\n", "zero\none\n2\nthree\n"]);
    let gone = names(".kura/history/gone.txt");
    assert_eq!(gone.len(), 1);
    assert_eq!(fs::read_to_string(mount.file(".kura/history/gone.txt").join(&gone[0])).unwrap(), "precious");
    for missing in ["never", "d/never", "new.txt/2001-01-01T00:00:00.000000Z"] {
        let error = fs::symlink_metadata(mount.file(".kura/history").join(missing)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{missing}");
    }

    // Inside a folder, `.kura` is that folder's.
    let inside = |name: &str| mount.file("d/.kura").join(name);
    assert_eq!(names("d/.kura"), names(".kura"));
    assert!(names("d").is_empty());
    assert_eq!(fs::read_to_string(inside("versions/by-tag/v1/old name.txt")).unwrap(), "one\ntwo\nthree\n");
    assert_eq!(fs::read_to_string(inside("snapshots/v2/old name.txt")).unwrap(), "one\n2\nthree\n");
    assert_eq!(fs::read_dir(inside("versions/latest")).unwrap().count(), 0);
    assert_eq!(names("d/.kura/history/old name.txt").len(), 2);
    fs::write(inside("ctl/restore"), "v1 'old name.txt'\n").unwrap();
    assert_eq!(fs::read_to_string(mount.file("d/old name.txt")).unwrap(), "one\ntwo\nthree\n");
    fs::write(inside("ctl/undelete"), "/gone.txt\n").unwrap();
    assert_eq!(fs::read_to_string(mount.file("gone.txt")).unwrap(), "precious");
    fs::create_dir(inside("snapshots/from-the-folder")).unwrap();
    fs::rename(mount.file("d"), mount.file("e")).unwrap();
    home.ok(&store, ["snapshot"]);
    assert_eq!(fs::read_to_string(mount.file("e/.kura/versions/latest/old name.txt")).unwrap(), "one\ntwo\nthree\n");
    for refused in [
        fs::create_dir(mount.file("e/.kura/new")),
        fs::rename(mount.file("e/.kura"), mount.file("stolen")),
        fs::remove_dir(mount.file("e/.kura")),
        fs::write(mount.file("e/.kura"), "x"),
    ] {
        assert!(refused.is_err());
    }
    let script = "find . ; ls -AR; tar c . | tar t; du -a; git init -q .; git status --porcelain -uall --ignored; \
                  rsync -av ./ ../copied/; ls -AR ../copied";
    let listed = run(std::process::Command::new("sh").arg("-ec").arg(script).current_dir(&mount.path)).ok();
    assert!(listed.contains("new.txt") && !listed.contains(".kura"), "it is in no listing: {listed}");
    let version = |path: &str| {
        let mut value = [0; 100];
        let len = rustix::fs::getxattr(mount.file(path), "user.kura.version", &mut value).unwrap();
        String::from_utf8_lossy(&value[..len]).into_owned()
    };
    let newest = json_lines(&home.ok(&store, ["log", "--json", "-n", "1", "other"]));
    assert_eq!(version("other"), newest[0]["id"].as_str().unwrap());
    assert_eq!(version(".kura/versions/by-tag/v5/other"), version("other"));
    fs::remove_dir_all(mount.file("e")).unwrap();
}

#[test]
fn a_path_has_a_history_without_a_mount() {
    let home = quiet_home();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    history(&home, &mount.path, &store);
    home.ok(&store, ["unmount", mount.path.to_str().unwrap()]);
    check(&home, &store, false);
}
