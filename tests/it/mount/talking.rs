//! How control files are written and read: who ends a line, what is read when, and what is refused.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::guard::{Mount, Place, python, sh, shell};

fn ctl(mount: &Mount, name: &str) -> std::path::PathBuf {
    mount.at(".kura/ctl").join(name)
}

fn last_error(mount: &Mount) -> String {
    fs::read_to_string(ctl(mount, "last_error")).unwrap()
}

/// `f` says "one" in the version `before`, and "two" now.
fn edited(place: &Place) -> Mount {
    let mount = place.mount();
    sh(mount.path(), "echo one > f; mkdir .kura/snapshots/before; echo two > f");
    mount
}

#[test]
fn a_line_belongs_to_the_process_that_opened_the_file() {
    let place = Place::new();
    let mount = edited(&place);
    // The program inherits the descriptor and closes it when it ends.
    sh(mount.path(), "{ /usr/bin/printf 'before f'; echo ' --dry-run'; } > .kura/ctl/restore");
    assert_eq!(sh(mount.path(), "cat f"), "two\n");
    assert!(sh(mount.path(), "cat .kura/ctl/restore").starts_with("1 paths would change"));
    // Whoever opened it ends it.
    sh(mount.path(), "{ /usr/bin/printf before; /usr/bin/printf ' f'; } > .kura/ctl/restore");
    assert_eq!(sh(mount.path(), "cat f"), "one\n");
    // A shell's own commands write through copies of a descriptor that is kept, and close them.
    for shell in ["bash", "dash"] {
        let kept = "exec 3> .kura/ctl/restore; printf 'after f' >&3; printf ' --dry-run\n' >&3; exec 3>&-";
        let script = format!("cd {} && {kept}", mount.path().display());
        assert!(std::process::Command::new(shell).args(["-c", &script]).status().unwrap().success(), "{shell}");
        assert_eq!(sh(mount.path(), "cat f"), "one\n", "{shell}");
    }
    // Some shells open the file for the program, and are silent about what their close says.
    shell(mount.path(), "/usr/bin/printf 'v9 f' > .kura/ctl/restore");
    assert!(last_error(&mount).contains("no version matches `v9`"), "{}", last_error(&mount));
    mount.end();
}

/// Opens a file and leaves it to a child, which writes a line without an end when its parent has gone.
const LEFT_TO_A_CHILD: &str = "
import os, time
fd = os.open('.kura/ctl/restore', os.O_WRONLY)
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent: time.sleep(0.01)
    os.write(fd, b'LINE')
    os._exit(0)
os._exit(0)
";

#[test]
fn a_line_that_its_opener_left_to_others_is_run_by_the_last_close() {
    let place = Place::new();
    let mount = edited(&place);
    let until = |holds: &dyn Fn() -> bool| {
        (0..6000).any(|_| {
            let is_so = holds();
            if !is_so {
                std::thread::sleep(Duration::from_millis(10));
            }
            is_so
        })
    };
    python(mount.path(), &LEFT_TO_A_CHILD.replace("LINE", "before f"));
    assert!(until(&|| fs::read(mount.at("f")).unwrap() == b"one\n"), "the line is never run");
    python(mount.path(), &LEFT_TO_A_CHILD.replace("LINE", "v9 f"));
    assert!(until(&|| last_error(&mount).contains("no version matches `v9`")), "{}", last_error(&mount));
    drop(mount);
}

#[test]
fn a_request_that_is_begun_is_answered_with_nothing_and_not_with_the_last_answer() {
    let place = Place::new();
    let mount = place.mount();
    for (name, line) in [("log", "--max 1"), ("run", "log --max 1")] {
        let mut file = OpenOptions::new().read(true).write(true).open(ctl(&mount, name)).unwrap();
        let mut write_and_read = |text: &str| {
            file.write_all(text.as_bytes()).unwrap();
            let mut said = String::new();
            file.read_to_string(&mut said).unwrap();
            said
        };
        assert!(write_and_read(&format!("{line}\n")).contains("1 versions"));
        assert_eq!(write_and_read(line), "", "{name}");
        assert!(write_and_read("\n").contains("1 versions"));
        assert_eq!(write_and_read("{\"op\":"), "", "{name}");
    }
    mount.end();
}

#[test]
fn text_after_an_object_is_refused_and_said() {
    let place = Place::new();
    let mount = edited(&place);
    for (text, wanted) in [
        ("{\"version\": \"before\"} f", "trailing characters"),
        ("{\"version\": \"before\"}{\"version\": \"before\"}\n", "trailing characters"),
        ("{\"version\" \"before\"", "expected `:`"),
        ("{\"version\": \"v9\", \"version\": \"before\"}", "`version` is given twice"),
    ] {
        let program = format!(
            "import os\nfd = os.open('.kura/ctl/restore', os.O_WRONLY)\ntry:\n    os.write(fd, {text:?}.encode())\n    os.close(fd)\n\
             except OSError as error: assert error.errno == 22, error\nelse: raise AssertionError('it was taken')"
        );
        python(mount.path(), &program);
        assert!(last_error(&mount).contains(wanted), "{text}: {}", last_error(&mount));
        assert_eq!(fs::read(mount.at("f")).unwrap(), b"two\n");
    }
    mount.end();
}

#[test]
fn two_lines_that_are_written_at_once_are_not_taken_for_one() {
    let place = Place::new();
    let mount = edited(&place);
    for name in ["restore", "run"] {
        let lines = ["before f", "before --dry-run"]
            .map(|line| if name == "run" { format!("restore {line}\n") } else { format!("{line}\n") });
        let written = fs::write(ctl(&mount, name), lines.concat());
        assert_eq!(written.is_ok(), name == "run", "{written:?}");
        assert!(last_error(&mount).contains("more than one line"), "{}", last_error(&mount));
        assert_eq!(fs::read(mount.at("f")).unwrap(), b"two\n");
    }
    mount.end();
}

#[test]
fn a_request_that_is_too_long_is_said_to_be_so() {
    let place = Place::new();
    let mount = place.mount();
    for name in ["find", "run"] {
        fs::write(ctl(&mount, "show"), "v9\n").unwrap_err();
        let refused = fs::write(ctl(&mount, name), vec![b'x'; 1_100_000]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));
        assert!(last_error(&mount).contains("longer than 1048576 bytes"), "{}", last_error(&mount));
    }
    mount.end();
}

#[test]
fn python_writes_and_reads_one_open_file() {
    let place = Place::new();
    let mount = place.mount();
    python(
        mount.path(),
        r#"
import json
for back in (False, True):
    with open(".kura/ctl/run", "r+") as run:
        for most in (1, 2):
            run.write(json.dumps({"op": "log", "max": most}))
            run.flush()
            if back: run.seek(0)
            answer = json.loads(run.read())
            assert answer["message"] == "1 versions", answer
            run.seek(0)
            assert json.loads(run.read()) == answer, "it can be read again"
with open(".kura/ctl/snapshot", "rb+", buffering=0) as file:
    file.write(b"--name v1\n")
    assert file.read(8) == b"recorded"
    assert file.tell() == 18 and file.read().startswith(b" version")
    file.write(b"--name v2\n")
    assert file.readline().startswith(b"recorded version")
with open(".kura/ctl/log", "a+") as file:
    file.write("--max 1\n")
    file.flush()
    assert file.read().startswith("3 versions")
"#,
    );
    mount.end();
}

#[test]
fn an_editor_saves_in_place() {
    let place = Place::new();
    let mount = place.mount();
    for number in 1..3 {
        let edit =
            "vim -u NONE -es -c '%d' -c 'call setline(1, \"--max 1\")' -c 'w!' -c 'q!' .kura/ctl/log < /dev/null";
        sh(mount.path(), &format!("HOME=.. {edit}"));
        assert!(sh(mount.path(), "cat .kura/ctl/log").starts_with("1 versions"), "{number}");
        fs::write(ctl(&mount, "log"), "--nope\n").unwrap_err();
    }
    mount.end();
}

#[test]
fn who_only_reads_gets_the_last_answer() {
    let place = Place::new();
    let mount = place.mount();
    assert_eq!(sh(mount.path(), "cat .kura/ctl/run .kura/ctl/log"), "");
    let said = sh(mount.path(), "echo log --max 1 > .kura/ctl/run; cat .kura/ctl/run");
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["message"], "1 versions");
    assert_eq!(sh(mount.path(), "exec 3<>.kura/ctl/run; cat <&3"), "", "who writes gets answers to that alone");
    // What is long is kept without its list.
    let name = "a name that is rather long, as many of them make a long list, ".repeat(3);
    python(
        mount.path(),
        &format!(
            "import os\nos.mkdir('d')\nfor n in range(6000): os.close(os.open(f'd/{name}{{n}}', os.O_CREAT | os.O_WRONLY))"
        ),
    );
    ask(&mount, &json!({ "op": "snapshot" }));
    let own = sh(mount.path(), "exec 3<>.kura/ctl/find; echo '*long*' >&3; cat <&3 | wc -l");
    assert!(own.trim().parse::<usize>().unwrap() >= 6000, "{own}");
    let kept = sh(mount.path(), "cat .kura/ctl/find");
    assert!(kept.lines().count() == 2 && kept.contains("too long to be kept"), "{kept}");
    mount.end();
}

fn ask(mount: &Mount, request: &Value) -> Value {
    let mut run = OpenOptions::new().read(true).write(true).open(ctl(mount, "run")).unwrap();
    run.write_all(request.to_string().as_bytes()).unwrap();
    serde_json::from_str(&std::io::read_to_string(run).unwrap()).unwrap()
}

#[test]
fn a_trial_fails_as_the_request_itself_would() {
    let place = Place::new();
    let mount = edited(&place);
    ask(&mount, &json!({ "op": "snapshot" }));
    for request in [
        json!({ "op": "tag", "version": "v9", "name": "x" }),
        json!({ "op": "tag", "version": "latest", "name": "before" }),
        json!({ "op": "tag", "version": "latest", "name": "latest" }),
        json!({ "op": "untag", "name": "nothing" }),
        json!({ "op": "snapshot", "name": "before" }),
        json!({ "op": "revert", "version": "v9" }),
        json!({ "op": "restore", "version": "v9" }),
        json!({ "op": "restore", "version": "before", "paths": ["nothing"] }),
        json!({ "op": "undelete", "paths": ["f"] }),
        json!({ "op": "resolve", "path": "f", "take": "ours" }),
        json!({ "op": "resolve", "path": "f", "take": "nothing" }),
        json!({ "op": "policy", "policy": "nothing" }),
        json!({ "op": "pin", "paths": ["nothing"] }),
        json!({ "op": "lock", "paths": ["../outside"] }),
        json!({ "op": "forget" }),
    ] {
        let mut trial = request.clone();
        trial["dry_run"] = true.into();
        let (tried, done) = (ask(&mount, &trial), ask(&mount, &request));
        assert_eq!((&tried["ok"], &tried["code"]), (&json!(false), &done["code"]), "{request}: {tried} {done}");
        assert_eq!(tried["message"], done["message"], "{request}");
    }
    let export = json!({ "op": "export", "version": "v9", "to": "/nowhere", "dry_run": true });
    assert!(ask(&mount, &export)["message"].as_str().unwrap().contains("v9"));
    mount.end();
}

#[test]
fn a_trial_says_what_would_be_done_and_does_nothing() {
    let place = Place::new();
    let mount = edited(&place);
    ask(&mount, &json!({ "op": "flush", "wait_ms": 60_000 }));
    let count = mount.workspace.versions().unwrap().len();
    let forget = json!({ "op": "forget", "keep": { "last": 1 }, "dry_run": true });
    let told = ask(&mount, &forget);
    assert_eq!(told["data"]["dry_run"], true, "{told}");
    assert!(!told["data"]["forgotten"].as_array().unwrap().is_empty(), "{told}");
    let gc = ask(&mount, &json!({ "op": "gc", "delete": true, "dry_run": true }));
    assert!(gc["data"]["dead_objects"].is_u64() && gc["data"]["deleted"] == 0, "{gc}");
    let tag = ask(&mount, &json!({ "op": "tag", "version": "before", "name": "other", "dry_run": true }));
    assert!(tag["message"].as_str().unwrap().contains("would be called `other`"), "{tag}");
    assert_eq!(mount.workspace.versions().unwrap().len(), count);
    assert!(ask(&mount, &json!({ "op": "show", "version": "other" }))["ok"] == false);
    mount.end();
}

#[test]
fn a_file_is_said_to_be_published_only_when_the_store_has_it() {
    let place = Place::new();
    let mount = place.mount_with(|options| options.intervals.version_quiet_ms = 3_600_000, Default::default(), true);
    let state = |name: &str| {
        let line = format!("import os; print(os.getxattr({name:?}, 'user.kura.state').decode(), end='')");
        python(mount.path(), &line)
    };
    let published = |request: &Value| assert_eq!(ask(&mount, request)["ok"], true);
    fs::write(mount.at("old"), "old").unwrap();
    assert_eq!(state("old"), "closed");
    published(&json!({ "op": "flush", "wait_ms": 60_000 }));
    assert_eq!(state("old"), "published");
    fs::rename(place.store_dir(), place.path().join("away")).unwrap();
    let mut new = fs::File::create(mount.at("new")).unwrap();
    new.write_all(b"new").unwrap();
    assert_eq!(state("new"), "draft");
    drop(new);
    assert_eq!(state("new"), "closed");
    published(&json!({ "op": "snapshot" }));
    fs::hard_link(mount.at("old"), mount.at("link")).unwrap();
    assert_eq!((state("new"), state("old")), ("recorded".to_owned(), "closed".to_owned()));
    published(&json!({ "op": "snapshot" }));
    assert_eq!((state("new"), state("old")), ("recorded".to_owned(), "recorded".to_owned()));
    fs::rename(place.path().join("away"), place.store_dir()).unwrap();
    published(&json!({ "op": "flush", "wait_ms": 60_000 }));
    assert_eq!((state("new"), state("old"), state(".")), ("published".into(), "published".into(), "published".into()));
    mount.end();
}
