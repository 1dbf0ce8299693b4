//! Temporary files and locks beside a file of sealed documents, and sweeping what a crash left of them.
//!
//! They lie in one directory, `.kura-sealed`, beside the file. The operating system's lock is what counts: whoever has
//! it works on the file. The record in the lock file says who that is, and guards where such locks do not reach.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::error::{Result, SealedError, disk};
use super::process::{ProcessMark, Processes};
use crate::base::clock::{Clock, Timestamp};
use crate::base::disk::{Disk, DiskFile, OpenMode, read_file};
use crate::base::random;

/// The directory of temporary files, locks and backups, beside the files they belong to.
pub const WORK_DIR: &str = ".kura-sealed";
/// After this time a lock counts as left behind, in milliseconds, unless the operating system says it is held.
pub const LOCK_TIMEOUT_MS: u64 = 3_600_000;

const MAGIC: [u8; 4] = *b"kusl";
const VERSION: u8 = 1;
const RECORD_LEN: usize = 88;
/// How often taking a lock begins anew because its file was removed meanwhile, or its holder is about to be done.
const ATTEMPTS: usize = 16;
const RETRY_DELAY_MS: u64 = 5;
/// A lock file that says nothing for so long, in milliseconds, was left by somebody who died before.
const RECORD_DELAY_MS: u64 = 10_000;

/// What an operation needs of the machine.
#[derive(Clone)]
pub struct Machine {
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Processes.
    pub processes: Arc<dyn Processes>,
}

/// What is done under a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A file is made or written anew.
    Write = 1,
    /// Leftovers are removed.
    Sweep = 2,
}

/// The record in a lock file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LockRecord {
    operation: u8,
    holder: ProcessMark,
    taken: Timestamp,
    file: Uuid,
    process: Uuid,
}

impl LockRecord {
    fn encode(&self) -> [u8; RECORD_LEN] {
        let parts: [&[u8]; 9] = [
            &MAGIC,
            &[VERSION, self.operation, 0, 0],
            &self.holder.pid.to_le_bytes(),
            &[0; 4],
            &self.holder.start_ticks.to_le_bytes(),
            &self.taken.unix_ns().to_le_bytes(),
            &self.holder.boot,
            self.file.as_bytes(),
            self.process.as_bytes(),
        ];
        let body = parts.concat();
        let mut bytes = [0; RECORD_LEN];
        bytes[..body.len()].copy_from_slice(&body);
        bytes[body.len()..].copy_from_slice(&Sha256::digest(&body)[..RECORD_LEN - body.len()]);
        bytes
    }

    /// `None` when it is none, or only a part was written.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let array = |at: usize| <[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok();
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let holder = ProcessMark { pid: u32::try_from(number(8)?).ok()?, start_ticks: number(16)?, boot: array(32)? };
        let record = Self {
            operation: *bytes.get(5)?,
            holder,
            taken: Timestamp::from_unix_ns(number(24)?.cast_signed()),
            file: Uuid::from_bytes(array(48)?),
            process: Uuid::from_bytes(array(64)?),
        };
        (record.encode() == *bytes).then_some(record)
    }
}

/// The lock of one file and the name of its temporary file. Dropping it removes both.
pub struct TempResources {
    machine: Machine,
    lock: PathBuf,
    /// Keeps the operating system's lock.
    _held: Arc<dyn DiskFile>,
    /// The temporary file, which may not be there.
    pub temporary: PathBuf,
    /// The identity of this operation.
    pub process: Uuid,
}

/// What sweeping found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Temporary files that were removed.
    pub removed: u64,
    /// Files that somebody works on.
    pub in_use: u64,
}

/// The directory of temporary files, locks and backups of a file.
pub fn work_dir(file: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("/")).join(WORK_DIR)
}

/// Takes the lock of a file in its work directory, removes what earlier operations on the file left there, and names a
/// temporary file.
pub fn create_temp_resources(
    machine: &Machine,
    dir: &Path,
    file: Uuid,
    operation: Operation,
    timeout_ms: u64,
) -> Result<TempResources> {
    machine.disk.create_dir_all(dir).map_err(disk("making the directory", dir))?;
    let process = uuid::Builder::from_random_bytes(random::bytes()).into_uuid();
    let path = dir.join(lock_name(file));
    for _ in 0..ATTEMPTS {
        let Some(held) = try_take(machine, &path, file, timeout_ms)? else { continue };
        let taken = machine.clock.now();
        let record =
            LockRecord { operation: operation as u8, holder: machine.processes.me(), taken, file, process }.encode();
        held.write_at(&record, 0).and_then(|()| held.set_len(RECORD_LEN as u64)).map_err(disk("writing", &path))?;
        // The lock counts only while its file has the name: whoever had it before may just have removed it.
        if read_file(machine.disk.as_ref(), &path, RECORD_LEN).is_ok_and(|found| found == record) {
            let temporary = dir.join(format!("{file}.{process}.tmp"));
            let resources = TempResources { machine: machine.clone(), lock: path, _held: held, temporary, process };
            resources.sweep(dir, file)?;
            return Ok(resources);
        }
    }
    Err(SealedError::Locked { file: file.to_string(), pid: 0 })
}

/// The operating system's lock on a lock file, unless its record says that somebody works on it whom that lock does
/// not reach. `None` when it is worth trying again.
fn try_take(machine: &Machine, path: &Path, file: Uuid, timeout_ms: u64) -> Result<Option<Arc<dyn DiskFile>>> {
    let held = machine.disk.open(path, OpenMode::ReadWrite).map_err(disk("opening", path))?;
    let free = held.try_lock().map_err(disk("locking", path))?;
    let record = read_file(machine.disk.as_ref(), path, RECORD_LEN).ok().and_then(|bytes| LockRecord::decode(&bytes));
    let locked = |pid| SealedError::Locked { file: file.to_string(), pid };
    match record {
        Some(record) if !free && record.operation == Operation::Write as u8 => Err(locked(record.holder.pid)),
        // Somebody sweeps, or has not yet said what it does: over soon.
        _ if !free => {
            std::thread::sleep(Duration::from_millis(RETRY_DELAY_MS));
            Ok(None)
        }
        Some(record) if !is_stale(machine, &record, timeout_ms) => Err(locked(record.holder.pid)),
        _ => Ok(Some(held)),
    }
}

/// Whether the holder of a free lock is gone: dead, this process itself (which would still hold it), or too long ago
/// by either direction of the clock.
fn is_stale(machine: &Machine, record: &LockRecord, timeout_ms: u64) -> bool {
    let is_gone = record.holder == machine.processes.me() || !machine.processes.is_alive(&record.holder);
    is_gone || age_ms(machine, record.taken) > timeout_ms
}

/// The name of the lock file of a file.
pub(super) fn lock_name(file: Uuid) -> String {
    format!("{file}.lock")
}

/// The file that a temporary file belongs to.
pub(super) fn owner_of_temporary(name: &[u8]) -> Option<Uuid> {
    owner_of(std::str::from_utf8(name).ok()?, ".tmp")
}

/// Who holds a lock by what its file says, where the operating system's lock cannot be asked: the process, 0 when the
/// record is not written yet. A file without a record counts for a moment after it was made, at `changed`.
pub(super) fn is_lock_held(machine: &Machine, record: &[u8], changed: Timestamp, timeout_ms: u64) -> Option<u32> {
    match LockRecord::decode(record) {
        Some(record) => (!is_stale(machine, &record, timeout_ms)).then_some(record.holder.pid),
        None => (age_ms(machine, changed) < RECORD_DELAY_MS).then_some(0),
    }
}

fn age_ms(machine: &Machine, time: Timestamp) -> u64 {
    machine.clock.now().unix_ns().abs_diff(time.unix_ns()) / 1_000_000
}

/// Removes the temporary files that crashed operations left in a work directory. Files that somebody works on are left
/// alone. A directory that is not there has none.
pub fn cleanup_stale_temp_files(machine: &Machine, dir: &Path, timeout_ms: u64) -> Result<Swept> {
    let items = match machine.disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Swept::default()),
        result => result.map_err(disk("listing", dir))?,
    };
    let temporary = items.iter().filter(|item| owner_of(&item.name, ".tmp").is_some()).count();
    let files: BTreeSet<Uuid> = items
        .iter()
        .filter_map(|item| owner_of(&item.name, ".tmp").or_else(|| owner_of(&item.name, ".lock")))
        .collect();
    let mut swept = Swept::default();
    let mut left = 0;
    for file in files {
        match create_temp_resources(machine, dir, file, Operation::Sweep, timeout_ms) {
            Ok(_) => {}
            Err(SealedError::Locked { .. }) => {
                swept.in_use += 1;
                left += items.iter().filter(|item| owner_of(&item.name, ".tmp") == Some(file)).count();
            }
            Err(error) => return Err(error),
        }
    }
    swept.removed = (temporary - left) as u64;
    Ok(swept)
}

/// The file that a name in the work directory belongs to: `UUID.lock`, `UUID.UUID.tmp`.
fn owner_of(name: &str, suffix: &str) -> Option<Uuid> {
    let stem = name.strip_suffix(suffix)?;
    let (file, process) = stem.split_once('.').map_or((stem, None), |(file, process)| (file, Some(process)));
    let strict = |text: &str| Uuid::try_parse(text).ok().filter(|uuid| uuid.to_string() == text);
    match (suffix, process) {
        (".lock", None) => strict(file),
        (".tmp", Some(process)) => strict(process).and(strict(file)),
        _ => None,
    }
}

impl TempResources {
    /// Removes the temporary files of earlier operations; the lock is ours, so nobody uses them.
    fn sweep(&self, dir: &Path, file: Uuid) -> Result<()> {
        for item in self.machine.disk.list(dir).map_err(disk("listing", dir))? {
            if owner_of(&item.name, ".tmp") == Some(file) {
                safe_remove_file(self.machine.disk.as_ref(), &dir.join(&item.name));
            }
        }
        Ok(())
    }
}

impl Drop for TempResources {
    fn drop(&mut self) {
        safe_remove_file(self.machine.disk.as_ref(), &self.temporary);
        safe_remove_file(self.machine.disk.as_ref(), &self.lock);
    }
}

/// Removes a file that may not be there. What cannot be removed is swept later, so no operation fails by it.
pub fn safe_remove_file(disk: &dyn Disk, path: &Path) {
    match disk.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!("{} cannot be removed, and is left for the next cleaning: {error}", path.display());
        }
        _ => {}
    }
}
