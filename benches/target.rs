//! The file systems that are compared: native, gocryptfs, kura.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::cpu::{self, Threads};

/// The argument that makes the harness serve the file system in memory.
pub const CEILING: &str = "--serve-ceiling";

const KURA: &str = env!("CARGO_BIN_EXE_kura");

/// A mounted file system with its daemon.
pub struct Target {
    pub name: &'static str,
    pub dir: PathBuf,
    /// Where what is sealed lies.
    backing: Option<PathBuf>,
    daemon: Option<Child>,
    remount: Option<Box<dyn Fn() -> Command>>,
}

/// What a workload cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// CPU microseconds of the client and of the threads that serve requests.
    pub request_us: f64,
    /// CPU microseconds of the threads that publish.
    pub background_us: f64,
    pub wall_us: f64,
}

impl Cost {
    pub fn per(self, operations: usize) -> Cost {
        let n = operations as f64;
        Cost { request_us: self.request_us / n, background_us: self.background_us / n, wall_us: self.wall_us / n }
    }
}

impl Target {
    pub fn native(root: &Path) -> Self {
        let dir = root.join("native");
        fs::create_dir_all(&dir).unwrap();
        Self { name: "native", dir, backing: None, daemon: None, remount: None }
    }

    /// `None` when gocryptfs is not installed.
    pub fn gocryptfs(root: &Path) -> Option<Self> {
        Command::new("gocryptfs").arg("-version").stdout(Stdio::null()).status().ok()?;
        let (cipher, dir, password) = (root.join("cipher"), root.join("gocryptfs"), root.join("password"));
        fs::create_dir_all(&cipher).unwrap();
        fs::create_dir_all(&dir).unwrap();
        fs::write(&password, "benchmark\n").unwrap();
        let base = move || {
            let mut command = Command::new("gocryptfs");
            command.arg("-q").arg("-passfile").arg(&password).stdout(Stdio::null());
            command
        };
        let made = base().args(["-init", "-scryptn", "10"]).arg(&cipher).status().unwrap();
        assert!(made.success(), "gocryptfs -init");
        let (mount_dir, backing) = (dir.clone(), cipher.clone());
        let mount = move || {
            let mut command = base();
            command.arg("-fg").arg(&cipher).arg(&mount_dir);
            command
        };
        Some(Self::start("gocryptfs", dir, Some(backing), Box::new(mount)))
    }

    /// A file system in memory that does nothing but answer.
    pub fn ceiling(root: &Path) -> Self {
        let dir = root.join("ceiling");
        fs::create_dir_all(&dir).unwrap();
        let mount_dir = dir.clone();
        let mount = move || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.arg(CEILING).arg(&mount_dir);
            command
        };
        Self::start("ceiling", dir, None, Box::new(mount))
    }

    /// kura on a store address, with state and cache below `root`.
    pub fn kura(root: &Path, store: &str, init: bool, environment: &[(&str, String)]) -> Self {
        let dir = root.join("kura");
        fs::create_dir_all(&dir).unwrap();
        let backing = Some(PathBuf::from(store)).filter(|path| path.is_absolute());
        let (root, store, mount_dir) = (root.to_owned(), store.to_owned(), dir.clone());
        let environment: Vec<(String, String)> =
            environment.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let base = move || {
            let mut command = Command::new(KURA);
            command.env("KURA_PASSPHRASE", "benchmark").env("KURA_STATE_DIR", root.join("state"));
            command.env("KURA_CACHE_DIR", root.join("cache")).env("HOME", &root).envs(environment.clone());
            command.stdout(Stdio::null());
            command
        };
        if init {
            let made = base().args(["init", &store, "--kdf-memory-mib", "8"]).status().unwrap();
            assert!(made.success(), "kura init {store}");
        }
        let mount = move || {
            let mut command = base();
            command.args(["mount", &store]).arg(&mount_dir).arg("--foreground");
            command
        };
        Self::start("kura", dir, backing, Box::new(mount))
    }

    fn start(name: &'static str, dir: PathBuf, backing: Option<PathBuf>, remount: Box<dyn Fn() -> Command>) -> Self {
        let mut target = Self { name, dir, backing, daemon: None, remount: Some(remount) };
        target.mount();
        target
    }

    pub fn mount(&mut self) {
        let Some(remount) = &self.remount else { return };
        self.daemon = Some(remount().spawn().unwrap());
        let patience = Instant::now() + Duration::from_secs(60);
        while !is_mounted(&self.dir) {
            assert!(Instant::now() < patience, "{} was not mounted within a minute", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn unmount(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let patience = Instant::now() + Duration::from_secs(120);
        while is_mounted(&self.dir) && Instant::now() < patience {
            Command::new("fusermount3").arg("-u").arg(&self.dir).stderr(Stdio::null()).status().ok();
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon.wait().unwrap();
    }

    pub fn remount(&mut self) {
        self.unmount();
        self.mount();
    }

    /// Has the system read what is sealed, so that no workload waits for the disk.
    pub fn warm_backing(&self) {
        self.backing.iter().for_each(|dir| read_below(dir));
    }

    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    fn threads(&self) -> Threads {
        self.pid().map(cpu::threads).unwrap_or_default()
    }

    /// Runs a workload; background work is waited for and counted apart.
    pub fn measure(&self, workload: impl FnOnce(&Path)) -> Cost {
        let (client, before, start) = (cpu::client_us(), self.threads(), Instant::now());
        workload(&self.dir);
        let wall_us = start.elapsed().as_secs_f64() * 1e6;
        let client_us = cpu::client_us() - client;
        let (request_us, early) = self.threads().since(&before);
        let background_us = if self.name == "kura" { self.settle(&before).max(early) } else { 0.0 };
        let early = if self.name == "kura" { 0.0 } else { early };
        Cost { request_us: client_us + request_us + early, background_us, wall_us }
    }

    /// Waits until the daemon has been idle for a while.
    fn settle(&self, before: &Threads) -> f64 {
        let mut last = self.threads().since(before).1;
        let mut quiet = 0;
        while quiet < 6 {
            std::thread::sleep(Duration::from_millis(500));
            let now = self.threads().since(before).1;
            quiet = if now - last < 5_000.0 { quiet + 1 } else { 0 };
            last = now;
        }
        last
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn read_below(dir: &Path) {
    for item in fs::read_dir(dir).unwrap().flatten() {
        if item.file_type().unwrap().is_dir() {
            read_below(&item.path());
        } else {
            drop(fs::read(item.path()).unwrap());
        }
    }
}

fn is_mounted(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(1) == dir.to_str())
}

/// A file of incompressible bytes that repeat nowhere.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// So many bytes of what people write: the sources of the libraries that this program was built from, one file after
/// another (but for generated bindings to another system, which repeat themselves).
pub fn source_text(len: usize) -> Vec<u8> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"))).unwrap();
    let mut text = Vec::with_capacity(len);
    append_sources(&home.join("registry/src"), len, &mut text);
    assert!(text.len() == len, "of {len} bytes of sources only {} are below {}", text.len(), home.display());
    text
}

fn append_sources(dir: &Path, len: usize, text: &mut Vec<u8>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().flatten().map(|item| item.path()).collect();
    paths.retain(|path| !["windows", "winapi"].iter().any(|word| path.to_string_lossy().contains(word)));
    paths.sort();
    for path in paths {
        if path.is_dir() {
            append_sources(&path, len, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = fs::read(path).unwrap();
            text.extend_from_slice(&file[..file.len().min(len - text.len())]);
        }
    }
}

/// A tree like a source tree: `count` files of 1 to 30 KiB of words in directories of forty.
pub fn source_tree(dir: &Path, count: usize) {
    for index in 0..count {
        let folder = dir.join(format!("part{}/module{}", index / 400, index / 40));
        fs::create_dir_all(&folder).unwrap();
        let mut file = fs::File::create(folder.join(format!("source_{index}.c"))).unwrap();
        let words = 200 + (index * 7919) % 4000;
        let mut text = String::new();
        for word in 0..words {
            text.push_str(
                ["static ", "int ", "value", " = ", "return ", "struct ", "(index)", ";\n"][(word * 31 + index) % 8],
            );
            if word % 9 == 0 {
                text.push_str(&format!("{:x}", index * 31 + word * 17));
            }
        }
        file.write_all(text.as_bytes()).unwrap();
    }
}
