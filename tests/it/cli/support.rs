//! The program in a home of its own, and mounts that never stay behind.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub const PASSPHRASE: &str = "correct horse battery staple";

/// A user with no configuration but what the test makes.
pub struct Home {
    dir: TempDir,
    state: &'static str,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("kura-cli-").tempdir().unwrap(), state: "state" }
    }

    /// The same home with another state directory, as if on another machine.
    pub fn elsewhere(self) -> Self {
        Self { state: "elsewhere", ..self }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory, made when missing.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let made = fs::create_dir_all(&path);
        // Whether a dead mount is a directory need not be known any more.
        assert!(made.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::AlreadyExists), "{made:?}");
        path
    }

    /// The program without any secret.
    pub fn bare(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kura"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.dir("home")).env("TZ", "UTC").env("KURA_LOG", "warn");
        command.env("KURA_STATE_DIR", self.path(self.state)).env("KURA_CACHE_DIR", self.path("cache"));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// The program with the right passphrase.
    pub fn kura<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        let mut command = self.bare();
        command.env("KURA_PASSPHRASE", PASSPHRASE).args(args);
        command
    }

    /// Runs the program on a workspace, which must go well; what it printed.
    pub fn ok<I: AsRef<OsStr>>(&self, workspace: &Path, args: impl IntoIterator<Item = I>) -> String {
        let mut command = self.kura(args);
        command.env("KURA_STORE", workspace);
        run(&mut command).ok()
    }

    /// A new workspace in a directory.
    pub fn store(&self, name: &str) -> PathBuf {
        let store = self.path(name);
        run(self.kura(["init", "--kdf-memory-mib", "8"]).arg(&store)).ok();
        store
    }

    /// Mounts in the background.
    pub fn mount(&self, store: &Path, name: &str) -> Mount {
        self.mount_with(store, name, &[])
    }

    pub fn mount_with(&self, store: &Path, name: &str, args: &[&str]) -> Mount {
        let mount = Mount::at(self, &self.dir(name));
        run(self.kura(["mount"]).args(args).arg(store).arg(&mount.path)).ok();
        mount
    }
}

pub fn run(command: &mut Command) -> Ended {
    Ended::of(command.output().unwrap())
}

impl Ended {
    pub fn of(Output { status, stdout, stderr }: Output) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { code: status.code(), out: text(&stdout), err: text(&stderr) }
    }

    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// It failed so, and its message holds the words.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.starts_with("kura: "), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "`{word}` is missing: {self:?}");
        }
        assert!(!self.err.contains("panicked") && !self.err.contains(PASSPHRASE), "{self:?}");
    }
}

pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// A mount, which is gone when this is.
pub struct Mount {
    pub path: PathBuf,
    state: PathBuf,
}

impl Mount {
    /// The mount that is, or will be, at this directory.
    pub fn at(home: &Home, dir: &Path) -> Self {
        Self::at_state(dir, &home.path(home.state))
    }

    pub fn at_state(dir: &Path, state: &Path) -> Self {
        Self { path: dir.canonicalize().unwrap(), state: state.to_owned() }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The daemon, as it wrote itself down.
    pub fn pid(&self) -> i32 {
        self.record().unwrap_or_else(|| panic!("no daemon wrote down {}", self.path.display()))
    }

    fn record(&self) -> Option<i32> {
        let records = fs::read_dir(self.state.join("mounts")).ok()?.flatten();
        let read = |path: PathBuf| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok();
        let mut records = records.filter_map(|record| read(record.path()));
        let record = records.find(|record| record["mountpoint"].as_str() == self.path.to_str())?;
        i32::try_from(record["pid"].as_i64()?).ok()
    }

    pub fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let place = self.path.to_str().unwrap().replace(' ', "\\040");
        mounts.lines().any(|line| line.split(' ').nth(4) == Some(&place))
    }

    pub fn kill(&self) {
        signal(self.pid(), nix::sys::signal::Signal::SIGKILL);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let pid = self.record();
        if self.is_mounted() {
            Command::new("umount").arg("-l").arg(&self.path).stderr(Stdio::null()).status().ok();
        }
        if let Some(pid) = pid
            && !gone_within(pid, Duration::from_secs(10))
        {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
        }
    }
}

pub fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

/// Whether a process ends, as no child of ours, in this time.
pub fn gone_within(pid: i32, limit: Duration) -> bool {
    wait_for(limit, || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}

/// Asks again and again until it holds, or the time is over.
pub fn wait_for(limit: Duration, holds: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// A child that is ended with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Everything below a directory, but for `.kura`: paths with content, or where a link points.
pub fn tree(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(at) = waiting.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_symlink() {
                found.push((name, fs::read_link(&path).unwrap().to_str().unwrap().as_bytes().to_vec()));
            } else if meta.is_dir() {
                waiting.push(path);
                found.push((name + "/", Vec::new()));
            } else {
                found.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
