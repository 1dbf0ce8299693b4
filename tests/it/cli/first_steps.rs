//! Help, `init`, and where secrets and settings come from.

use std::fs;

use super::support::{Home, PASSPHRASE, json_lines, run};

const COMMANDS: [&str; 19] = [
    "init", "mount", "unmount", "status", "snapshot", "untag", "flush", "log", "show", "diff", "restore", "revert",
    "cat", "export", "import", "forget", "gc", "demo", "version",
];

#[test]
fn every_command_explains_itself() {
    let home = Home::new();
    let all = run(home.bare().arg("--help")).ok();
    for command in COMMANDS {
        assert!(all.lines().any(|line| line.trim_start().starts_with(command)), "{command} is not listed:\n{all}");
        let help = run(home.bare().args([command, "--help"])).ok();
        assert!(help.contains(&format!("Usage: kura {command}")), "{help}");
        assert!(help.contains("xample") || command == "version", "{command} shows no example:\n{help}");
        assert_eq!(run(home.bare().args([command, "--no-such-option"])).code, Some(2), "{command}");
    }
    for word in ["KURA_PASSPHRASE_COMMAND", "KURA_STORE", "KURA_STATE_DIR", "KURA_CACHE_DIR", "KURA_CONFIG", "KURA_LOG"]
    {
        assert!(all.contains(word), "{word} is not explained:\n{all}");
    }
    assert_eq!(run(home.bare().arg("frobnicate")).code, Some(2));
    assert_eq!(run(&mut home.bare()).code, Some(2));
    assert!(run(home.bare().arg("version")).ok().starts_with("kura "));
}

#[test]
fn a_workspace_that_is_named_without_its_option_is_answered_with_how_to_name_it() {
    let home = Home::new();
    let store = home.path("store");
    run(home.kura(["init", "--kdf-memory-mib", "8"]).arg(&store)).ok();
    for place in [store.to_str().unwrap(), "s3://bucket/path"] {
        for command in ["status", "flush"] {
            let ended = run(&mut home.kura([command, place]));
            assert!(ended.code == Some(2) && ended.err.contains(&format!("use '-w {place}'")), "{}", ended.err);
        }
    }
    let ended = run(&mut home.kura(["status", "nothing-here"]));
    assert!(ended.code == Some(2) && !ended.err.contains("-w"), "{}", ended.err);
}

#[test]
fn init_shows_the_recovery_code_once_and_it_opens_the_workspace() {
    let home = Home::new();
    let store = home.path("store");
    let ended = run(home.kura(["init", "--kdf-memory-mib", "8", "--json"]).arg(&store));
    let report = &json_lines(&ended.ok())[0];
    let code = report["recovery_code"].as_str().unwrap().to_owned();
    assert_eq!(code.split('-').count(), 6);
    let status =
        |secret: &str| run(home.bare().args(["status", "--recovery", "-w"]).arg(&store).env("KURA_PASSPHRASE", secret));
    assert!(status(&code).ok().contains(report["workspace"].as_str().unwrap()));
    status("000000-000000-000000-000000-000000-000000").fails(12, &["recovery code"]);
    run(home.kura(["init"]).arg(&store)).fails(1, &["holds a workspace already"]);
    let text = run(home.kura(["init", "--kdf-memory-mib", "8", "--no-recovery-code"]).arg(home.path("other"))).ok();
    assert!(text.contains("made workspace") && !text.contains("ecovery"), "{text}");
}

#[test]
fn init_refuses_what_would_not_protect() {
    let home = Home::new();
    let store = home.path("store");
    let init = |secret: &str| {
        run(home.bare().args(["init", "--kdf-memory-mib", "8"]).arg(&store).env("KURA_PASSPHRASE", secret))
    };
    init("").fails(2, &["empty passphrase"]);
    assert!(!store.join("kura.json").exists());
    run(home.kura(["init", "--kdf-memory-mib", "1"]).arg(&store)).fails(2, &["--kdf-memory-mib"]);
    let key = home.path("key");
    fs::write(&key, "short").unwrap();
    run(home.bare().args(["init", "--key-file"]).args([&key, &store])).fails(2, &["32"]);
    let full = home.dir("full");
    fs::write(full.join("something"), "else").unwrap();
    run(home.kura(["init"]).arg(&full)).fails(1, &["not empty", "something"]);
    let weak = init("short");
    assert_eq!(weak.code, Some(0));
    assert!(weak.err.contains("short"), "{weak:?}");
}

#[test]
fn secrets_come_from_variable_file_command_or_key_file() {
    let home = Home::new();
    let store = home.store("store");
    let status = || {
        let mut command = home.bare();
        command.args(["status", "-w"]).arg(&store);
        command
    };
    let file = home.path("pass phrase");
    fs::write(&file, format!("{PASSPHRASE}\nsecond line\n")).unwrap();
    run(status().env("KURA_PASSPHRASE_FILE", &file)).ok();
    let command = format!("head -n 1 '{}'", file.display());
    run(status().env("KURA_PASSPHRASE_COMMAND", &command)).ok();
    run(status().env("KURA_PASSPHRASE_COMMAND", "cat 'unclosed")).fails(2, &["quote"]);
    run(status().env("KURA_PASSPHRASE_COMMAND", "false")).fails(2, &["failed"]);
    run(status().env("KURA_PASSPHRASE_COMMAND", "no-such-program-here")).fails(2, &["no-such-program-here"]);
    run(status().env("KURA_PASSPHRASE_FILE", home.path("missing"))).fails(2, &["missing"]);

    let key = home.path("key");
    fs::write(&key, [7; 32]).unwrap();
    let keyed = home.path("keyed");
    run(home.bare().args(["init", "--key-file"]).args([&key, &keyed])).ok();
    run(home.bare().args(["status", "--key-file"]).arg(&key).arg("-w").arg(&keyed)).ok();
    run(home.kura(["status", "-w"]).arg(&keyed)).fails(12, &["passphrase"]);
    fs::write(&key, [8; 32]).unwrap();
    run(home.bare().args(["status", "--key-file"]).arg(&key).arg("-w").arg(&keyed)).fails(12, &["key file"]);
}

#[test]
fn without_a_secret_and_a_terminal_the_message_names_the_ways() {
    let home = Home::new();
    let store = home.store("store");
    // A session of its own has no terminal to ask at.
    let mut command = std::process::Command::new("setsid");
    let bare = home.bare();
    command.arg("--wait").arg(bare.get_program()).args(["status", "-w"]).arg(&store).env_clear();
    command.envs(bare.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(std::process::Stdio::null());
    run(&mut command).fails(2, &["no terminal", "KURA_PASSPHRASE_FILE", "--key-file"]);
}

#[test]
fn the_configuration_names_a_store_and_refuses_what_it_does_not_know() {
    let home = Home::new();
    let store = home.store("store");
    let config = home.path("config");
    let status = || run(home.kura(["status"]).env("KURA_CONFIG", &config));
    status().fails(2, &["config"]);
    fs::write(
        &config,
        format!("# mine\nstore = \"{}\"\ncache_size = \"1GiB\"\nversion_quiet = \"1s\"\n", store.display()),
    )
    .unwrap();
    assert!(status().ok().contains(store.to_str().unwrap()));
    for (line, word) in [
        ("colour = \"red\"", "colour"),
        ("cache_sice = \"5GiB\"", "did you mean `cache_size`?"),
        ("cache_size = \"5 apples\"", "cache_size"),
        ("cache_size = 5GiB", "line 1"),
        ("store", "line 1"),
    ] {
        fs::write(&config, line).unwrap();
        status().fails(2, &[word]);
    }
    run(home.kura(["status", "-w"]).arg(&store).env("KURA_LOG", "kura=nonsense")).fails(2, &["KURA_LOG"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let home = Home::new();
    let store = home.store("store");
    let mut command = home.kura(["log", "-w"]);
    let mut child = command.arg(&store).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn versions_are_forgotten_and_freed_by_command() {
    let home = Home::new();
    let store = home.store("store");
    for round in 0..3 {
        let from = home.dir(&format!("from{round}"));
        fs::write(from.join("file"), crate::space::noise(400_000, round)).unwrap();
        home.ok(&store, [std::ffi::OsStr::new("import"), from.as_os_str()]);
    }
    let size = || super::support::tree(&store).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let before = size();
    let dry = home.ok(&store, ["forget", "--keep-last", "1", "--dry-run"]);
    assert!(dry.contains("forget") && dry.contains("keep (newest, last)"), "{dry}");
    run(home.kura(["forget", "-w"]).arg(&store)).fails(2, &["no policy"]);
    home.ok(&store, ["forget", "--keep-last", "1", "--set"]);
    let done = home.ok(&store, ["forget"]);
    assert!(done.contains("are forgotten, 1 are kept"), "{done}");
    assert_eq!(json_lines(&home.ok(&store, ["log", "--json"])).len(), 1);
    let dry = home.ok(&store, ["gc"]);
    assert!(dry.contains("nobody needs"), "{dry}");
    assert!(size() > before / 2);
    let waiting = home.ok(&store, ["gc", "--delete"]);
    assert!(waiting.contains("may be deleted from"), "{waiting}");
    let done = home.ok(&store, ["gc", "--delete", "--grace", "0s"]);
    assert!(done.contains("objects are deleted"), "{done}");
    assert!(size() < before * 2 / 3, "{} of {before}", size());
    home.ok(&store, ["check", "--read-data"]);
}
