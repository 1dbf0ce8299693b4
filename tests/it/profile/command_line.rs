//! `kura profile`, on a mounted and an unmounted workspace.

use std::fs;

use serde_json::Value;

use crate::cli::support::{Home, Mount, json_lines, run};

/// Asks a mount by its file and waits for the end, which must be good; what is known of the job then.
fn by_file(home: &Home, mount: &Mount, line: &str) -> String {
    let ctl = mount.file(".kura/ctl/profile");
    fs::write(&ctl, format!("{line}\n")).unwrap();
    let said = fs::read_to_string(&ctl).unwrap();
    let job = said.split_whitespace().find(|word| word.len() == 36).unwrap();
    run(home.kura(["wait", job, "-w"]).arg(&mount.path)).ok();
    run(home.kura(["jobs", job, "--json", "-w"]).arg(&mount.path)).ok()
}

#[test]
fn profiles_are_installed_upgraded_and_taken_away_through_both_doors() {
    for mounted in [false, true] {
        let home = Home::new();
        let store = home.store("store");
        let mount = mounted.then(|| home.mount(&store, "mnt"));
        let kura = |args: &[&str]| run(home.kura(["profile"]).args(args).arg("-w").arg(&store));
        let dir = home.dir("profiles/webapp");
        fs::write(dir.join("profile.json"), r#"{"version": "1.0.0", "provider": "team"}"#).unwrap();
        fs::write(dir.join("app.conf"), "port 1\n").unwrap();
        let text = kura(&["plan", "webapp", "--from", "profiles"]).ok();
        assert!(text.contains("install") && text.contains("app.conf"), "{text}");
        if let Some(mount) = &mount {
            let told = by_file(&home, mount, &format!("plan webapp --from {}", home.path("profiles").display()));
            assert!(told.contains("\"path\":\"app.conf\"") && !mount.file("app.conf").exists(), "{told}");
        }
        let out = kura(&["install", "webapp", "--from", "profiles", "--commit", "abc", "--json"]).ok();
        let out: Value = json_lines(&out).remove(0);
        assert_eq!((&out["changed"], &out["profile_version"]), (&Value::Bool(true), &Value::from("1.0.0")));
        assert!(kura(&["list"]).ok().starts_with("webapp 1.0.0  1 files, installed 2"));
        if let Some(mount) = &mount {
            assert_eq!(fs::read(mount.file("app.conf")).unwrap(), b"port 1\n");
            fs::write(mount.file("app.conf"), "port 2\n").unwrap();
            let drift = kura(&["verify"]);
            assert_eq!(drift.code, Some(3));
            assert!(drift.out.contains("modified   app.conf") || drift.err.contains("not as they were"), "{drift:?}");
            fs::write(dir.join("app.conf"), "port 3\n").unwrap();
            kura(&["upgrade", "webapp"]).fails(17, &["planning", "app.conf was changed", "--force"]);
            let conflicts = kura(&["upgrade", "webapp", "--json"]);
            assert_eq!(json_lines(&conflicts.out)[0]["conflicts"][0]["kind"], "modified");
            assert_eq!(fs::read(mount.file("app.conf")).unwrap(), b"port 2\n");
            kura(&["upgrade", "webapp", "--force"]).ok();
            assert_eq!(fs::read(mount.file("app.conf")).unwrap(), b"port 3\n", "the kernel was told");
            kura(&["rollback", "webapp", "--force"]).ok();
            assert_eq!(fs::read(mount.file("app.conf")).unwrap(), b"port 1\n");
            // From a directory of the mount itself.
            fs::create_dir_all(mount.file("own/inner")).unwrap();
            fs::write(mount.file("own/inner/profile.json"), r#"{"version": "1"}"#).unwrap();
            fs::write(mount.file("own/inner/inner.txt"), "inner").unwrap();
            kura(&["install", "inner", "--from", mount.file("own").to_str().unwrap()]).ok();
            assert_eq!(fs::read(mount.file("inner.txt")).unwrap(), b"inner");
            kura(&["uninstall", "inner"]).ok();
            fs::write(mount.file("inner.txt"), "mine").unwrap();
            let own = mount.file("own");
            let forced = kura(&["install", "inner", "--force", "--from", own.to_str().unwrap()]);
            assert_eq!(forced.code, Some(3), "{forced:?}");
            by_file(&home, mount, "resolve inner.txt --take theirs");
            assert_eq!(fs::read(mount.file("inner.txt")).unwrap(), b"inner");
            kura(&["uninstall", "inner"]).ok();
        }
        kura(&["verify", "webapp"]).ok();
        kura(&["install", "../webapp", "--from", "profiles"]).fails(2, &["no name of a profile"]);
        kura(&["upgrade", "absent", "--from", "profiles"]).fails(1, &["not installed"]);
        kura(&["uninstall", "webapp"]).ok();
        assert_eq!(kura(&["list"]).ok(), "0 profiles\n");
    }
}
