//! The daemon is killed while a program writes. What the program was told is true afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::support::{Home, Mount, Running, gone_within, json_lines, run, signal, tree, wait_for};

const WRITER: &str = include_str!("writer.py");
const SOON: Duration = Duration::from_secs(30);
/// Promised after every kill.
const ALL: [&str; 8] = ["append", "create", "close", "replace", "replacesync", "names", "block", "mapped"];
/// Promised even when the local state is lost, where an fsync waits for the store.
const SYNCED: [&str; 4] = ["append", "create", "replacesync", "block"];

fn rounds(short: usize, long: usize) -> usize {
    if std::env::var_os("KURA_TEST_LONG").is_some_and(|value| value == "1") { long } else { short }
}

/// What the writer writes.
fn content(kind: &str, number: usize) -> Vec<u8> {
    let repeated = if number % 16 == 15 { 30_000 } else { 1 + number * 37 % 400 };
    format!("{kind}:{number:08}|").repeat(repeated).into_bytes()
}

fn page(kind: &str, number: usize) -> Vec<u8> {
    format!("{kind}:{number:08}|").repeat(300).into_bytes()[..4096].to_vec()
}

/// The number that a content of this kind says it has.
fn number_in(kind: &str, bytes: &[u8]) -> usize {
    let digits = bytes.get(kind.len() + 1..kind.len() + 9).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{kind}: {} torn bytes", bytes.len()))
}

/// What one round left to be checked.
struct Round {
    name: String,
    dir: PathBuf,
    acknowledgements: PathBuf,
    /// Whether another machine than the writer's is looked at, which sees versions only.
    is_elsewhere: bool,
}

impl Round {
    fn acknowledged(&self, kind: &str) -> usize {
        fs::metadata(self.acknowledgements.join(kind)).map_or(0, |meta| meta.len() as usize)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        let path = self.dir.join(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {}: {error}", self.name, path.display()))
    }

    /// Everything that was acknowledged is there, and nothing is torn.
    fn check(&self, kinds: &[&str]) -> usize {
        kinds.iter().map(|kind| self.check_kind(kind)).sum()
    }

    fn check_kind(&self, kind: &str) -> usize {
        let acknowledged = self.acknowledged(kind);
        let what = format!("{} of {}, {acknowledged} acknowledged", kind, self.name);
        match kind {
            "append" if acknowledged > 0 => {
                let bytes = self.read("append");
                let records: Vec<&[u8]> = bytes.chunks(64).collect();
                assert!(records.len() >= acknowledged, "{what}: {} bytes", bytes.len());
                for (number, found) in records.into_iter().enumerate() {
                    assert!(found == &page("append", number)[..64], "{what}: record {number}");
                }
            }
            "create" | "close" => {
                for number in 0..acknowledged {
                    let whole = self.read(&format!("{kind}{number}")) == content(kind, number);
                    assert!(whole, "{what}: number {number}");
                }
                // The next one may be there, empty or whole.
                if let Ok(bytes) = fs::read(self.dir.join(format!("{kind}{acknowledged}"))) {
                    assert!(bytes.is_empty() || bytes == content(kind, acknowledged), "{what}: {} bytes", bytes.len());
                }
            }
            "replace" | "replacesync" if acknowledged > 0 => {
                if kind == "replace" && acknowledged == 1 && self.is_elsewhere && !self.dir.join(kind).exists() {
                    // The first is renamed to a name that is free: it may have been killed in the instant after its
                    // close, and is a recovered draft then.
                    return acknowledged;
                }
                let bytes = self.read(kind);
                let number = number_in(kind, &bytes);
                assert!(bytes == content(kind, number), "{what}: {} bytes of number {number}", bytes.len());
                assert!((acknowledged - 1..=acknowledged).contains(&number), "{what}: it is number {number}");
            }
            "names" => {
                for number in 0..acknowledged {
                    let target = fs::read_link(self.dir.join(format!("names{number}/link")));
                    assert_eq!(target.unwrap().to_str(), Some(&*format!("to{number}")), "{what}");
                    assert!(!self.dir.join(format!("names{number}.new")).exists(), "{what}: {number}");
                }
            }
            "block" if acknowledged > 0 => {
                let bytes = self.read("block");
                for slot in 0..8.min(acknowledged) {
                    let last = (0..acknowledged).rev().find(|number| number % 8 == slot).unwrap();
                    let found = &bytes[slot * 4096..(slot + 1) * 4096];
                    let is_next = acknowledged % 8 == slot && found == page("block", acknowledged);
                    assert!(is_next || found == page("block", last), "{what}: slot {slot}");
                }
            }
            "mapped" if acknowledged > 0 => {
                let bytes = self.read("mapped");
                let number = number_in("mapped", &bytes);
                assert!(bytes == page("mapped", number) && number + 1 >= acknowledged, "{what}: it is number {number}");
            }
            _ => {}
        }
        acknowledged
    }
}

/// Lets the writer work for a while, then kills it and the daemon.
fn write_and_kill(home: &Home, mount: &Mount, number: usize, kinds: &[&str]) -> Round {
    let name = format!("round{number}");
    let acknowledgements = home.dir(&format!("acknowledged{number}"));
    let round = Round { dir: mount.file(&name), acknowledgements, name, is_elsewhere: false };
    fs::create_dir(&round.dir).unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", WRITER]).args([&round.dir, &round.acknowledgements]).args(kinds);
    let mut writer = Running(command.stdin(Stdio::null()).spawn().unwrap());
    assert!(wait_for(SOON, || kinds.iter().any(|kind| round.acknowledged(kind) > 0)), "{}: nothing done", round.name);
    std::thread::sleep(Duration::from_micros(kura::base::random::number() % 300_000));
    let pid = mount.pid();
    signal(pid, Signal::SIGKILL);
    writer.0.kill().unwrap();
    writer.0.wait().unwrap();
    assert!(gone_within(pid, SOON));
    // What is asked while the kernel ends the connection is broken off.
    let after = || fs::write(mount.file("after"), "").unwrap_err().raw_os_error();
    wait_for(SOON, || after() != Some(libc::ECONNABORTED));
    assert_eq!(after(), Some(libc::ENOTCONN));
    round
}

/// Nothing was found to be wrong with the workspace, and all of it can be read.
fn opens_clean(home: &Home, mount: &Mount) {
    for log in fs::read_dir(home.path("state/logs")).unwrap() {
        let text = fs::read_to_string(log.unwrap().path()).unwrap();
        assert!(!["damage", "altered", "panicked", "not fit"].iter().any(|word| text.contains(word)), "{text}");
    }
    let status = &json_lines(&run(home.kura(["status", "--json", "-w"]).arg(&mount.path)).ok())[0];
    assert!(status["read_only"].is_null() && status["blocked"].is_null(), "{status}");
    tree(&mount.path);
}

fn kill_again_and_again(rounds: usize, options: &[&str], kinds: &[&str], between: impl Fn(&Home)) {
    let home = Home::new();
    let store = home.store("store");
    let mut done = Vec::new();
    let mut acknowledged = 0;
    let mount = home.mount_with(&store, "mnt", options);
    for number in 0..rounds {
        let round = write_and_kill(&home, &mount, number, kinds);
        between(&home);
        // The dead mount is replaced without a question.
        run(home.kura(["mount"]).args(options).arg(&store).arg(&mount.path)).ok();
        acknowledged += round.check(kinds);
        opens_clean(&home, &mount);
        done.push(round);
    }
    println!("{rounds} kills, {acknowledged} acknowledged");
    for round in &done {
        round.check(kinds);
    }
    assert!(acknowledged > rounds, "{acknowledged} acknowledged in {rounds} rounds");
    let shown = tree(&mount.path);
    run(home.kura(["unmount"]).arg(&mount.path)).ok();
    // Another machine reads the same, but for what was not published when its writer was killed.
    let home = home.elsewhere();
    let mount = home.mount(&store, "other");
    let is_written_on = |name: &str| ["append", "block", "mapped"].iter().any(|kind| name.ends_with(kind));
    for (name, content) in tree(&mount.path).into_iter().filter(|(name, _)| !is_written_on(name)) {
        let same = shown.iter().find(|(there, _)| *there == name).is_some_and(|(_, there)| *there == content);
        assert!(same, "{name} is not what it was");
    }
    let published: Vec<&str> = kinds.iter().copied().filter(|kind| *kind != "close").collect();
    for round in &mut done {
        round.dir = mount.file(&round.name);
        round.is_elsewhere = true;
        round.check(&published);
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_daemon_is_killed() {
    kill_again_and_again(rounds(20, 200), &[], &ALL, |_| {});
}

#[test]
fn nothing_synced_to_the_store_is_lost_with_the_local_state() {
    let wipe = |home: &Home| {
        for name in ["state", "cache"] {
            let path: &Path = &home.path(name);
            if path.exists() {
                fs::remove_dir_all(path).unwrap();
            }
        }
    };
    kill_again_and_again(rounds(20, 200), &["-o", "fsync=store"], &SYNCED, wipe);
}
