//! `kura key`, beside a mount.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::support::{Home, PASSPHRASE, json_lines, run};

#[test]
fn keys_are_managed_beside_a_mount_which_follows() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    fs::write(home.path("bob"), "the words of bob\n").unwrap();
    let key = |args: &[&str]| {
        let mut command = home.kura(["key"]);
        command.args(args).arg("-w").arg(&mount.path).env("KURA_NEW_PASSPHRASE_FILE", home.path("bob"));
        run(&mut command)
    };
    key(&["add", "--label", "bob", "--kdf-memory-mib", "8"]).ok();
    key(&["add", "--label", "bob", "--kdf-memory-mib", "8"]).fails(2, &["`bob` already"]);
    let listed = key(&["list"]).ok();
    assert!(listed.contains("bob") && listed.contains("recovery code") && listed.contains("key epoch 0"), "{listed}");
    fs::write(mount.file("file"), "before").unwrap();
    run(home.kura(["flush", "--wait", "-w"]).arg(&mount.path)).ok();

    let json = key(&["rotate", "--json"]).ok();
    assert_eq!(json_lines(&json)[0]["epoch"], 1);
    fs::write(mount.file("file"), "after").unwrap();
    run(home.kura(["flush", "--wait", "-w"]).arg(&mount.path)).ok();
    let head = fs::read(store.join("HEAD")).unwrap();
    assert_eq!(head[4..8], [1, 0, 0, 0], "HEAD is sealed under epoch 1");

    let bob = |file: &str| {
        let mut command = home.bare();
        command.args(["cat", "latest:file", "-w"]).arg(&store);
        command.env("KURA_PASSPHRASE_FILE", home.path("bob")).env("KURA_STATE_DIR", home.path(file));
        run(&mut command)
    };
    assert_eq!(bob("bobs-state").ok(), "after");
    key(&["remove", "bob", "--revoke"]).ok();
    bob("bobs-state").fails(12, &["passphrase"]);

    let code = json_lines(&key(&["recovery", "--json"]).ok())[0]["recovery_code"].as_str().unwrap().to_owned();
    fs::write(home.path("code"), &code).unwrap();
    let mut by_code = home.bare();
    by_code.args(["log", "--recovery", "-w"]).arg(&store).env("KURA_STATE_DIR", home.path("third"));
    run(by_code.env("KURA_PASSPHRASE_FILE", home.path("code"))).ok();
    let listed = json_lines(&key(&["list", "--json"]).ok());
    assert_eq!(listed[0]["slots"].as_array().unwrap().len(), 2, "the earlier code is gone: {listed:?}");

    key(&["passwd", "--kdf-memory-mib", "8"]).ok();
    key(&["list"]).fails(12, &["passphrase"]);
    assert_eq!(fs::read(mount.file("file")).unwrap(), b"after", "the mount goes on");
    assert_eq!(bob("bobs-state").ok(), "after");
}

#[test]
fn without_a_keyring_that_is_said() {
    let home = Home::new();
    let store = home.store("store");
    let mut open = home.bare();
    open.args(["log", "--keyring", "-w"]).arg(&store).env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere");
    run(&mut open).fails(2, &["keyring", "none seems to run"]);
    let mut add = home.kura(["key", "add", "--to-keyring", "-w"]);
    add.arg(&store).env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere");
    run(&mut add).fails(1, &["keyring", "--key-file"]);
    assert!(!PASSPHRASE.is_empty());
}

#[test]
fn a_key_in_the_keyring_of_the_session_opens_the_workspace() {
    let home = Home::new();
    let store = home.store("store");
    // A session of its own, with the keyring that most desktops have.
    let script = r#"
        printf sesame | gnome-keyring-daemon --foreground --unlock --components=secrets >/dev/null 2>&1 &
        keyring=$!
        trap 'kill $keyring' EXIT
        for _ in $(seq 100); do
            dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner \
                string:org.freedesktop.secrets | grep -q true && break
            sleep 0.1
        done
        "$KURA" key add --label laptop --to-keyring --kdf-memory-mib 8 && unset KURA_PASSPHRASE &&
            "$KURA" --keyring key list </dev/null"#;
    let mut session = Command::new("dbus-run-session");
    session.args(["--", "sh", "-c", script]).env("KURA", env!("CARGO_BIN_EXE_kura")).env("KURA_STORE", &store);
    session.env("KURA_PASSPHRASE", PASSPHRASE).env("KURA_STATE_DIR", home.path("state"));
    session.env("HOME", home.dir("home")).env("XDG_DATA_HOME", home.dir("data"));
    let runtime = home.dir("run");
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
    session.env("XDG_RUNTIME_DIR", runtime);
    let listed = run(&mut session).ok();
    assert!(listed.contains("laptop  (opened by you)"), "{listed}");
}

#[test]
fn damage_is_found_told_and_cut_from_the_command_line() {
    let home = Home::new();
    let store = home.store("store");
    let source = home.dir("source");
    fs::write(source.join("small"), "small").unwrap();
    // Unlike bytes, so that it is an object of its own.
    let large: Vec<u8> =
        (0..700_000_u64).flat_map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7).to_le_bytes()).collect();
    fs::write(source.join("large"), &large).unwrap();
    home.ok(&store, ["import", source.to_str().unwrap()]);
    assert!(home.ok(&store, ["check", "--read-data"]).contains("nothing is wrong"));
    let check = |args: &[&str]| run(home.kura(args).arg("-w").arg(&store));
    check(&["check", "--read-data=half"]).fails(2, &["half", "5%"]);
    fs::remove_dir_all(store.join("objects")).unwrap();
    check(&["check"]).fails(13, &["objects/", "missing from the store", "large", "kura repair"]);
    let told = check(&["check", "--json"]);
    assert_eq!((told.code, json_lines(&told.out)[0]["affected"][0]["paths"][0].as_str()), (Some(13), Some("large")));
    check(&["repair"]).fails(13, &["lost", "large", "--cut"]);
    check(&["repair", "--cut"]).ok();
    assert!(check(&["check", "--read-data=100%"]).ok().contains("nothing is wrong"));
    assert_eq!(check(&["cat", "latest:small"]).ok(), "small");
}

#[test]
fn policies_are_printed_as_json() {
    let home = Home::new();
    let print = |args: &[&str]| run(home.bare().args(["iam"]).args(args));
    let policy: serde_json::Value =
        serde_json::from_str(&print(&["--role", "reader", "--bucket", "bkt", "--prefix", "p/"]).ok()).unwrap();
    assert_eq!(policy["Statement"][1]["Resource"][0], "arn:aws:s3:::bkt/p/*");
    let other = print(&["-w", "s3://bkt/p?endpoint=http://localhost:1&region=r"]);
    assert!(other.err.contains("--without-conditions") && other.code == Some(0), "{other:?}");
    assert!(!print(&["--bucket", "bkt", "--without-conditions"]).out.contains("if-none-match"));
    print(&["--role", "owner", "--bucket", "bkt"]).code.map(|code| assert_eq!(code, 2)).unwrap();
    print(&[]).fails(2, &["--bucket"]);
}
