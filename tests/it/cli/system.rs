//! The system around the program: numbers, configuration, doctor, completions, manual pages, service managers, `mount -t kura`.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::support::{Home, Mount, Running, json_lines, run};

#[test]
fn numbers_are_told_to_people_programs_and_prometheus() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    fs::write(mount.file("f"), "12345").unwrap();
    home.ok(&store, ["snapshot"]);
    let text = fs::read_to_string(mount.file(".kura/metrics")).unwrap();
    let value = |line: &str| {
        let found = text.lines().find(|known| known.starts_with(line)).unwrap_or_else(|| panic!("{line}: {text}"));
        found.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!((value("kura_files "), value("kura_files_bytes ")), (1, 5));
    assert!(value("kura_requests_total{operation=\"write\"}") >= 1);
    for line in text.lines() {
        let is_comment = line.starts_with("# HELP kura_") || line.starts_with("# TYPE kura_");
        let is_sample = line.starts_with("kura_") && line.rsplit(' ').next().unwrap().parse::<u64>().is_ok();
        assert!(is_comment || is_sample, "{line}");
    }
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(names.len(), names.iter().collect::<std::collections::HashSet<_>>().len(), "each is introduced once");
    let stats = json_lines(&home.ok(&store, ["stats", "--json"]));
    assert!(stats.iter().any(|metric| metric["name"] == "kura_files" && metric["value"] == 1), "{stats:?}");
    assert!(home.ok(&store, ["stats"]).contains("files bytes"));
    home.ok(&store, ["unmount", mount.path.to_str().unwrap()]);
    assert!(home.ok(&store, ["stats"]).contains("files bytes"), "also without a mount");
}

#[test]
fn the_configuration_says_where_each_value_comes_from() {
    let home = Home::new();
    fs::write(home.path("config"), "# mine\ncache_size = \"5GiB\"\nstore = \"/somewhere\"\n").unwrap();
    let mut command = home.bare();
    command.env("KURA_CONFIG", home.path("config")).args(["config", "--json"]);
    let shown = json_lines(&run(&mut command).ok());
    let of = |key: &str| shown.iter().find(|shown| shown["key"] == key).unwrap().clone();
    let file = home.path("config").display().to_string();
    assert_eq!((&of("cache_size")["value"], &of("cache_size")["source"]), (&"5GiB".into(), &file.as_str().into()));
    assert_eq!(of("state_dir")["source"], "the variable KURA_STATE_DIR");
    assert_eq!((&of("full_wait")["value"], &of("full_wait")["source"]), (&"0s".into(), &"built in".into()));
    command.env("KURA_STORE", "/elsewhere");
    let shown = json_lines(&run(&mut command).ok());
    let store = shown.iter().find(|shown| shown["key"] == "store").unwrap();
    assert_eq!((&store["value"], &store["source"]), (&"/elsewhere".into(), &"the variable KURA_STORE".into()));
    command.args(["-w", "/given"]);
    let shown = json_lines(&run(&mut command).ok());
    let store = shown.iter().find(|shown| shown["key"] == "store").unwrap();
    assert_eq!((&store["value"], &store["source"]), (&"/given".into(), &"the option --workspace".into()));
}

#[test]
fn the_doctor_finds_what_is_wrong_and_names_the_fix() {
    let home = Home::new();
    let store = home.store("store");
    let healthy = home.ok(&store, ["doctor"]);
    assert!(healthy.contains("holds a workspace") && !healthy.contains("WRONG"), "{healthy}");
    let ill = run(home.kura(["doctor", "--json", "-w"]).arg(home.path("nowhere")));
    assert_eq!(ill.code, Some(1), "{ill:?}");
    let wrong: Vec<Value> = json_lines(&ill.out).into_iter().filter(|found| found["ok"] == false).collect();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0]["what"] == "store" && wrong[0]["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{wrong:?}");
    let ill = run(home.kura(["doctor", "--keyring", "-w"]).arg(&store));
    assert!(ill.code == Some(1) && ill.out.contains("WRONG  keyring") && ill.out.contains("--key-file"), "{ill:?}");
    let lame = home.dir("lame");
    let header = fs::read_to_string(store.join("kura.json")).unwrap();
    let changed = header.replace("\"conditional_writes\": true", "\"conditional_writes\": false");
    assert_ne!(header, changed);
    fs::write(lame.join("kura.json"), changed).unwrap();
    let ill = run(home.kura(["doctor", "-w"]).arg(&lame));
    assert!(ill.code == Some(1) && ill.out.contains("conditional writes do not work"), "{ill:?}");
    fs::write(home.path("file"), "").unwrap();
    let ill = run(home.kura(["doctor"]).env("KURA_CACHE_DIR", home.path("file/cache")).env("KURA_STORE", &store));
    assert!(ill.code == Some(1) && ill.out.contains("WRONG  cache"), "{ill:?}");
    let mount = home.mount(&store, "mnt");
    assert!(home.ok(&store, ["doctor"]).contains("is mounted and its store answers"));
    drop(mount);
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let text = run(home.bare().args(["completions", shell])).ok();
        for command in ["snapshot", "undelete", "doctor"] {
            assert!(text.contains(command), "{shell}: {command}");
        }
    }
    let bash = run(home.bare().args(["completions", "bash"])).ok();
    fs::write(home.path("kura.bash"), bash).unwrap();
    run(Command::new("bash").arg("-n").arg(home.path("kura.bash"))).ok();
    run(home.bare().args(["man", "man1"])).ok();
    let page = fs::read_to_string(home.path("man1/kura-restore.1")).unwrap();
    assert!(page.contains(".SH SYNOPSIS") && page.contains("VERSION"), "{page}");
    assert!(home.path("man1/kura.1").exists());
}

#[test]
fn a_service_manager_is_told_when_the_files_are_there() {
    let home = Home::new();
    let store = home.store("store");
    let mount = Mount::at(&home, &home.dir("mnt"));
    let socket = UnixDatagram::bind(home.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut command = home.kura(["mount", "--foreground"]);
    command.arg(&store).arg(&mount.path).env("NOTIFY_SOCKET", home.path("notify"));
    let mut serving = Running(command.stdout(std::process::Stdio::null()).spawn().unwrap());
    let mut told = [0; 100];
    let mut next = || {
        let len = socket.recv(&mut told).unwrap();
        String::from_utf8_lossy(&told[..len]).into_owned()
    };
    assert_eq!(next(), "READY=1");
    assert!(mount.is_mounted());
    fs::write(mount.file("f"), "x").unwrap();
    home.ok(&store, ["unmount", mount.path.to_str().unwrap()]);
    assert_eq!(next(), "STOPPING=1");
    let ended = (0..6000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        serving.0.try_wait().unwrap().is_some()
    });
    assert!(ended, "it serves on");
}

fn helper(home: &Home, args: &[&str]) -> Command {
    let mut helper = Command::new("sh");
    helper.env_clear();
    for (key, value) in home.bare().get_envs() {
        if let Some(value) = value {
            helper.env(key, value);
        }
    }
    helper.env("KURA_PROGRAM", env!("CARGO_BIN_EXE_kura"));
    helper.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("mount-helper/mount.kura")).args(args);
    helper
}

#[test]
fn mount_t_kura_takes_the_options_of_fstab() {
    let home = Home::new();
    let store = home.store("store");
    let mount = Mount::at(&home, &home.dir("a mount"));
    fs::write(home.path("pass word"), super::support::PASSPHRASE).unwrap();
    let options = format!(
        "rw,_netdev,nofail,x-systemd.automount,noatime,passphrase_file={}",
        home.path("pass word").to_str().unwrap().replace(' ', "\\040")
    );
    let (from, to) = (store.to_str().unwrap(), mount.path.to_str().unwrap());
    run(&mut helper(&home, &[from, to, "-f", "-o", &options])).ok();
    assert!(!mount.is_mounted(), "-f only looks");
    for (args, word) in [
        (vec![from, to, "-o", "frobnicate"], "frobnicate"),
        (vec![from, to, "--what"], "--what"),
        (vec![from], "usage"),
        (vec![from, to, "-o", "as=no-such-user"], "no-such-user"),
    ] {
        let refused = run(&mut helper(&home, &args));
        assert!(refused.code == Some(1) && refused.err.contains(word), "{args:?}: {refused:?}");
    }
    run(&mut helper(&home, &[from, to, "-s", "-o", "frobnicate", "-o", &options])).ok();
    assert!(mount.is_mounted());
    fs::write(mount.file("f"), "x").unwrap();
    home.ok(&store, ["unmount", to]);
    run(&mut helper(&home, &[from, to, "-o", &options, "-r"])).ok();
    assert_eq!(fs::read(mount.file("f")).unwrap(), b"x");
    assert!(fs::write(mount.file("f"), "y").is_err());
    home.ok(&store, ["unmount", to]);
}

#[test]
fn what_installs_a_mount_writes_its_own_lines_and_takes_only_those_away() {
    let home = Home::new();
    let root = home.dir("root");
    let fstab = root.join("etc/fstab");
    fs::create_dir_all(fstab.parent().unwrap()).unwrap();
    let before = "# mine\nUUID=1 / ext4 defaults 0 1\n/dev/sdb1 /srv/taken ext4 defaults 0 2\n";
    fs::write(&fstab, before).unwrap();
    fs::set_permissions(&fstab, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let kura = |args: &[&str]| run(home.bare().args(args).arg("--root").arg(&root));
    let place = home.path("my data");
    let (store, place) = (home.path("store").display().to_string(), place.to_str().unwrap());
    let args = ["install", "fstab", &store, place, "--user", "ann", "--key-file", "/k y", "-o", "noexec"];

    let dry = kura(&[&args[..], &["--dry-run"]].concat()).ok();
    let field = place.replace(' ', "\\040");
    let line = format!("{store} {field} kura _netdev,nofail,x-systemd.automount,noexec,as=ann,key_file=/k\\040y 0 0\n");
    assert!(dry.contains(&line) && dry.contains("etc/fstab"), "{dry}");
    assert_eq!(fs::read_to_string(&fstab).unwrap(), before, "only shown");
    for _ in 0..2 {
        assert!(kura(&args).ok().contains("systemctl daemon-reload"));
        let text = fs::read_to_string(&fstab).unwrap();
        assert!(text.starts_with(before) && text.ends_with(&line) && text.lines().count() == 5, "{text}");
    }
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&fstab).unwrap()) & 0o777, 0o640);
    kura(&["install", "fstab", &store, "/srv/taken", "--key-file", "/k"]).fails(17, &["line 3", "by hand"]);
    kura(&["uninstall", "fstab", "/srv/taken"]).fails(17, &["line 3"]);
    kura(&["install", "fstab", &store, place]).fails(2, &["passphrase", "--key-file"]);
    kura(&["install", "fstab", &store, place, "--key-file", "/a,b"]).fails(2, &["/a,b"]);
    kura(&["install", "fstab", &store, place, "--key-file", "/k", "-o", "frob"]).fails(2, &["frob"]);
    kura(&["uninstall", "fstab", place]).ok();
    assert_eq!(fs::read_to_string(&fstab).unwrap(), before);
    kura(&["uninstall", "fstab", place]).fails(1, &["nothing there"]);

    for (kind, dir) in [("system", "etc/systemd/system"), ("user", "units")] {
        let install = |args: &[&str]| {
            let mut command = home.bare();
            command.env("XDG_CONFIG_HOME", "/").args(args).arg("--root").arg(&root);
            run(&mut command)
        };
        let dir = if kind == "user" { root.join("systemd/user") } else { root.join(dir) };
        let args = ["install", kind, &store, place, "--passphrase-command", "pass show 100% \"$x\""];
        let said = install(&args).ok();
        assert!(said.contains("enable --now"), "{said}");
        let unit = fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
        let text = fs::read_to_string(&unit).unwrap();
        let env = "Environment=\"KURA_PASSPHRASE_COMMAND=pass show 100%% \\\"$x\\\"\"\n";
        assert!(text.contains("Type=notify") && text.contains(env), "{text}");
        verify(&unit);
        install(&["uninstall", kind, place]).ok();
        assert!(!unit.exists());
        fs::write(&unit, "[Unit]\n").unwrap();
        install(&args).fails(17, &["not of `kura install`"]);
        install(&["uninstall", kind, place]).fails(17, &["not of `kura install`"]);
        assert_eq!(fs::read_to_string(&unit).unwrap(), "[Unit]\n");
    }
}

/// What systemd says of a unit, which must be nothing.
fn verify(unit: &Path) {
    let mut command = Command::new("systemd-analyze");
    let ended = run(command.args(["verify", "--man=no", "--recursive-errors=no"]).arg(unit));
    let said: Vec<&str> = ended.err.lines().filter(|line| line.contains("kura")).collect();
    assert!(ended.code.is_some() && said.is_empty(), "{ended:?}");
}

#[test]
fn the_units_of_the_package_are_understood_by_systemd() {
    let home = Home::new();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    for (from, to) in [("kura@.service", "kura@work.service"), ("kura-system@.service", "kura-system@srv-data.service")]
    {
        let unit = home.path(to);
        let text = fs::read_to_string(units.join(from)).unwrap();
        // The program is where the package puts it.
        fs::write(&unit, text.replace("=kura ", &format!("={} ", env!("CARGO_BIN_EXE_kura")))).unwrap();
        verify(&unit);
    }
}
