//! Which workspaces are mounted, and where: what the kernel says, and what each daemon wrote down.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::base::disk::{Disk, RealDisk, read_file, replace_file};

/// Longest record of a mount, in bytes.
const RECORD_LEN_MAX: usize = 64 * 1024;
const FSTYPE: &[u8] = b"fuse.kura";

/// What a daemon wrote down about its mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The workspace's id.
    pub workspace: String,
    /// The store's address, without secrets.
    pub store: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The daemon's process id.
    pub pid: i32,
}

/// The directory of the records of mounts.
pub fn records_dir(state_root: &Path) -> PathBuf {
    state_root.join("mounts")
}

impl Record {
    fn path(&self, state_root: &Path) -> PathBuf {
        records_dir(state_root).join(format!("{}.json", self.workspace))
    }

    /// Writes the record.
    pub fn write(&self, state_root: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(&records_dir(state_root))?;
        replace_file(&RealDisk, &self.path(state_root), &serde_json::to_vec(self)?)
    }

    /// Removes the record.
    pub fn remove(&self, state_root: &Path) -> io::Result<()> {
        RealDisk.remove(&self.path(state_root))
    }

    /// Whether its daemon lives and its mount is there.
    pub fn is_live(&self) -> bool {
        is_running(self.pid) && mountpoints().contains(&self.mountpoint)
    }
}

/// Whether a process lives; one that nobody has waited for yet does not.
pub fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the state may hold anything but ends with the last parenthesis.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Waits until a process has gone; false when it still lives after `timeout`.
pub fn wait_until_gone(pid: i32, timeout: Duration) -> bool {
    let start = Instant::now();
    while is_running(pid) {
        if start.elapsed() > timeout {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// All records, live or not.
pub fn records(state_root: &Path) -> Vec<Record> {
    let dir = records_dir(state_root);
    let Ok(items) = RealDisk.list(&dir) else { return Vec::new() };
    let read = |name: &str| {
        let bytes = read_file(&RealDisk, &dir.join(name), RECORD_LEN_MAX).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    items.iter().filter(|item| item.name.ends_with(".json")).filter_map(|item| read(&item.name)).collect()
}

/// The live mount of a store.
pub fn mount_of_store(state_root: &Path, store: &str) -> Option<Record> {
    records(state_root).into_iter().find(|record| record.store == store && record.is_live())
}

/// The record of a mountpoint, live or not.
pub fn record_of_mountpoint(state_root: &Path, mountpoint: &Path) -> Option<Record> {
    records(state_root).into_iter().find(|record| record.mountpoint == mountpoint)
}

/// The mountpoints of kura file systems that the kernel knows.
pub fn mountpoints() -> Vec<PathBuf> {
    std::fs::read("/proc/self/mountinfo").map(|text| parse_mountinfo(&text)).unwrap_or_default()
}

/// The kura mount that a path lies in. The path must be absolute and without symbolic links; it
/// need not be accessible.
pub fn mount_around(path: &Path) -> Option<PathBuf> {
    mountpoints().into_iter().filter(|mount| path.starts_with(mount)).max_by_key(|mount| mount.as_os_str().len())
}

fn parse_mountinfo(text: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let kind = fields.iter().position(|field| *field == b"-").and_then(|dash| fields.get(dash + 1));
        if let (Some(mountpoint), Some(&FSTYPE)) = (fields.get(4), kind) {
            found.push(PathBuf::from(OsString::from_vec(unescape(mountpoint))));
        }
    }
    found
}

/// Spaces, tabs, newlines and backslashes stand there as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let code =
            (byte == b'\\').then(|| after.get(..3)).flatten().and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) => {
                out.push(code);
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}
