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
    fs::write(home.path("config"), "# mine\ncache_size = 5GiB\nstore = \"/somewhere\"\n").unwrap();
    let mut command = home.bare();
    command.env("KURA_CONFIG", home.path("config")).args(["config", "--json"]);
    let shown = json_lines(&run(&mut command).ok());
    let of = |key: &str| shown.iter().find(|shown| shown["key"] == key).unwrap().clone();
    let file = home.path("config").display().to_string();
    assert_eq!((&of("cache_size")["value"], &of("cache_size")["source"]), (&"5GiB".into(), &file.as_str().into()));
    assert_eq!(of("state_dir")["source"], "the variable KURA_STATE_DIR");
    assert_eq!((&of("full_wait")["value"], &of("full_wait")["source"]), (&Value::Null, &"built in".into()));
    command.env("KURA_STORE", "/elsewhere");
    let shown = json_lines(&run(&mut command).ok());
    let store = shown.iter().find(|shown| shown["key"] == "store").unwrap();
    assert_eq!((&store["value"], &store["source"]), (&"/elsewhere".into(), &"the variable KURA_STORE".into()));
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
        (vec![from, to, "-o", "user=no-such-user"], "no-such-user"),
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
