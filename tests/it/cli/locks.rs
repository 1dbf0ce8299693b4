//! Two machines: two mounts of one store with states of their own.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use super::support::{Home, Mount, json_lines, run};

fn elsewhere(home: &Home, mut command: Command) -> Command {
    command.env("KURA_STATE_DIR", home.path("elsewhere"));
    command
}

fn xattr(path: &Path) -> String {
    let script = "import os, sys; print(os.getxattr(sys.argv[1], 'user.kura.lock').decode())";
    let output = Command::new("python3").args(["-c", script]).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn two_mounts_and_the_command_line_agree_on_a_lock() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    fs::create_dir(mount.file("d")).unwrap();
    fs::write(mount.file("d/f"), "base").unwrap();
    run(home.kura(["flush", "--wait=60s"]).current_dir(&mount.path)).ok();
    let other = Mount::at_state(&home.dir("other"), &home.path("elsewhere"));
    run(elsewhere(&home, home.kura(["mount"])).arg(&store).arg(&other.path)).ok();
    let there = |args: &[&str]| run(elsewhere(&home, home.kura(args)).current_dir(&other.path));
    run(home.kura(["lock", "d", "later"]).current_dir(&mount.path)).ok();
    there(&["sync"]).ok();
    let refused = fs::write(other.file("d/f"), "changed elsewhere").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    for failed in [fs::write(other.file("later"), ""), fs::rename(other.file("d"), other.file("e"))] {
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    }
    assert_eq!(fs::read(other.file("d/f")).unwrap(), b"base");
    assert!(xattr(&other.file("d/f")).contains('@') && xattr(&other.path).is_empty());
    assert!(fs::read_to_string(other.file(".kura/status")).unwrap().contains("locked       d by "));
    let listed = json_lines(&there(&["locks", "--json"]).ok());
    let paths: Vec<&str> = listed[0].as_array().unwrap().iter().map(|lock| lock["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["d", "later"]);
    // A trial fails as the request does.
    let write = |mount: &Mount, line: &str| fs::write(mount.file(".kura/ctl/run"), line);
    for trial in [" --dry-run", ""] {
        for (line, why) in [
            ("lock d/f", "`d` is locked by"),
            ("lock d/f --break", "`d` is locked by"),
            ("unlock d", "`d` is not locked here"),
            ("unlock nosuch", "`nosuch` is not locked here"),
        ] {
            write(&other, &format!("{line}{trial}\n")).ok();
            let answer = fs::read_to_string(other.file(".kura/ctl/run")).unwrap();
            assert!(answer.contains("\"ok\":false") && answer.contains(why), "{line}{trial}: {answer}");
        }
    }
    for (mount, line) in [(&other, "lock d --break"), (&mount, "unlock d later")] {
        write(mount, &format!("{line} --dry-run\n")).unwrap();
        let answer = fs::read_to_string(mount.file(".kura/ctl/run")).unwrap();
        assert!(answer.contains("\"ok\":true"), "{line}: {answer}");
    }
    there(&["lock", "d/f"]).fails(11, &["locked by", "--break"]);
    there(&["unlock", "d"]).fails(1, &["not locked here"]);
    assert_eq!(json_lines(&there(&["locks", "--json"]).ok())[0], listed[0]);
    fs::write(mount.file("d/f"), "by the holder").unwrap();
    run(home.kura(["unlock", "d", "later"]).current_dir(&mount.path)).ok();
    there(&["lock", "d/f", "--for", "1h"]).ok();
    fs::write(other.file("d/f"), "now from elsewhere").unwrap();
    run(elsewhere(&home, home.kura(["unmount"])).arg(&other.path)).ok();
    run(home.kura(["lock", "d/f"]).current_dir(&mount.path)).fails(11, &["locked by"]);
    run(home.kura(["lock", "d/f", "--break"]).current_dir(&mount.path)).ok();
    assert!(run(home.kura(["log"]).current_dir(&mount.path)).ok().contains("broke the lock of"));
    assert_eq!(fs::read(mount.file("d/f")).unwrap(), b"now from elsewhere");
    run(home.kura(["unmount"]).arg(&mount.path)).ok();
    assert!(home.ok(&store, ["locks"]).contains("nothing is locked"));
}
