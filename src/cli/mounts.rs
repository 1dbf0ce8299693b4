//! Which workspaces are mounted, and where: what the kernel says, and what each daemon wrote down.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::base::disk::{Disk, OpenMode, RealDisk, read_file, replace_file};
use crate::control::{Exit, Failure};
use crate::fuse::mountpoints;
use crate::store::StoreUrl;

/// Longest record of a mount, in bytes.
const RECORD_LEN_MAX: usize = 64 * 1024;

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

/// The mount of a store that is unmounted, and whose process has not ended yet.
pub fn closing_mount_of_store(state_root: &Path, store: &str) -> Option<Record> {
    // A process id outlives its process in a record that a crash left; the lock does not.
    let is_open = |record: &Record| {
        let lock = RealDisk.open(&state_root.join(&record.workspace).join("lock"), OpenMode::Read);
        lock.and_then(|file| file.try_lock()).is_ok_and(|free| !free)
    };
    records(state_root)
        .into_iter()
        .find(|record| record.store == store && is_running(record.pid) && !record.is_live() && is_open(record))
}

/// The store of what is mounted somewhere.
pub fn store_of_mount(state_root: &Path, mountpoint: &Path) -> Result<StoreUrl, Failure> {
    let record = record_of_mountpoint(state_root, mountpoint).ok_or_else(|| {
        Failure::new(Exit::Other, format!("it is not known which store is mounted at {}", mountpoint.display()))
            .hint("name the store with -w")
    })?;
    super::config::store_url(&record.store)
}

/// The record of a mountpoint, live or not.
pub fn record_of_mountpoint(state_root: &Path, mountpoint: &Path) -> Option<Record> {
    records(state_root).into_iter().find(|record| record.mountpoint == mountpoint)
}

/// The kura mount that a path lies in. The path must be absolute and without symbolic links; it
/// need not be accessible.
pub fn mount_around(path: &Path) -> Option<PathBuf> {
    mountpoints().into_iter().filter(|mount| path.starts_with(mount)).max_by_key(|mount| mount.as_os_str().len())
}
