//! Where the memory of what was processed is kept: sealed names and sealed values.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition};

use super::error::{BatchError, Result};
use crate::base::disk::{Disk, DiskFile, OpenMode};

/// Takes a name and its value; whether to go on.
pub type EachValue<'a> = dyn FnMut(&[u8], Vec<u8>) -> Result<bool> + 'a;

/// Names and values, both unreadable to whoever keeps them.
pub trait KeyValue: Send + Sync {
    /// The values of several names, in their order.
    fn get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>>;
    /// Sets some names and removes others (`None`), all of them or, after a crash, the first of several calls. Durable
    /// after the next [`flush`](Self::flush) at the latest.
    fn write(&self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()>;
    /// Makes what was written durable.
    fn flush(&self) -> Result<()>;
    /// Hands out all names that begin with `prefix` and their values; ends when `each` says false.
    fn scan(&self, prefix: &[u8], each: &mut EachValue<'_>) -> Result<()>;
}

/// In memory: forgotten with the process.
#[derive(Default)]
pub struct MemoryKeyValue(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl KeyValue for MemoryKeyValue {
    fn get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        let map = self.0.lock();
        Ok(keys.iter().map(|key| map.get(key).cloned()).collect())
    }

    fn write(&self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()> {
        let mut map = self.0.lock();
        for (key, value) in changes {
            match value {
                Some(value) => drop(map.insert(key.clone(), value.clone())),
                None => drop(map.remove(key)),
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn scan(&self, prefix: &[u8], each: &mut EachValue<'_>) -> Result<()> {
        let found: Vec<_> = {
            let map = self.0.lock();
            let from = map.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
            from.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        for (key, value) in found {
            if !each(&key, value)? {
                break;
            }
        }
        Ok(())
    }
}

const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("status");
/// Pages of the database kept in memory, in bytes.
const CACHE_LEN: usize = 24 << 20;
/// Changes written together.
const PENDING_MAX: usize = 8192;

/// A database in one file of the local disk.
pub struct DiskKeyValue {
    database: Database,
    /// What is not in the database yet.
    pending: Mutex<BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
}

impl DiskKeyValue {
    /// Opens the file, or makes it.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self> {
        if !exists(disk, path)? {
            make(disk, path)?;
        }
        Ok(Self { database: database(locked(disk, path)?)?, pending: Mutex::default() })
    }

    fn commit(&self, pending: &mut BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Result<()> {
        if pending.is_empty() {
            return Ok(());
        }
        let write = self.database.begin_write().map_err(failed)?;
        {
            let mut table = write.open_table(TABLE).map_err(failed)?;
            for (key, value) in &*pending {
                match value {
                    Some(value) => drop(table.insert(key.as_slice(), value.as_slice()).map_err(failed)?),
                    None => drop(table.remove(key.as_slice()).map_err(failed)?),
                }
            }
        }
        write.commit().map_err(failed)?;
        pending.clear();
        Ok(())
    }
}

fn exists(disk: &dyn Disk, path: &Path) -> Result<bool> {
    match disk.open(path, OpenMode::Read) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(BatchError::disk(format!("opening {}", path.display()))(error)),
    }
}

fn locked(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn DiskFile>> {
    let opened = disk.open(path, OpenMode::ReadWrite);
    let file = opened.map_err(BatchError::disk(format!("opening {}", path.display())))?;
    if !file.try_lock().map_err(BatchError::disk("locking the memory"))? {
        return Err(BatchError::Running { source_address: "the source of this job".to_owned() });
    }
    Ok(file)
}

fn database(file: Arc<dyn DiskFile>) -> Result<Database> {
    let database = Database::builder().set_cache_size(CACHE_LEN).create_with_backend(Backend(file));
    let database = database.map_err(failed)?;
    let begun = database.begin_write().map_err(failed)?;
    begun.open_table(TABLE).map_err(failed)?;
    begun.commit().map_err(failed)?;
    Ok(database)
}

/// Makes an empty database under another name first: one whose making was cut off is no database, and would be refused
/// for ever.
fn make(disk: &dyn Disk, path: &Path) -> Result<()> {
    let doing = || BatchError::disk(format!("making {}", path.display()));
    let fresh = path.with_extension("new");
    let file = locked(disk, &fresh)?;
    // Whoever else was making it has finished, or left something behind.
    if exists(disk, path)? {
        return disk.remove(&fresh).map_err(doing());
    }
    file.set_len(0).map_err(doing())?;
    drop(database(file.clone())?);
    file.sync().map_err(doing())?;
    disk.rename(&fresh, path).map_err(doing())?;
    path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir)).map_err(doing())
}

fn failed(error: impl std::fmt::Display) -> BatchError {
    BatchError::Memory(error.to_string())
}

impl KeyValue for DiskKeyValue {
    fn get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        let pending = self.pending.lock();
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(TABLE).map_err(failed)?;
        let one = |key: &Vec<u8>| match pending.get(key) {
            Some(value) => Ok(value.clone()),
            None => Ok(table.get(key.as_slice()).map_err(failed)?.map(|found| found.value().to_vec())),
        };
        keys.iter().map(one).collect()
    }

    fn write(&self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()> {
        let mut pending = self.pending.lock();
        pending.extend(changes.iter().cloned());
        if pending.len() >= PENDING_MAX { self.commit(&mut pending) } else { Ok(()) }
    }

    fn flush(&self) -> Result<()> {
        self.commit(&mut self.pending.lock())
    }

    fn scan(&self, prefix: &[u8], each: &mut EachValue<'_>) -> Result<()> {
        self.flush()?;
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(TABLE).map_err(failed)?;
        for found in table.range(prefix..).map_err(failed)? {
            let (key, value) = found.map_err(failed)?;
            if !key.value().starts_with(prefix) || !each(key.value(), value.value().to_vec())? {
                break;
            }
        }
        Ok(())
    }
}

/// The database's file, through the one door to the disk.
struct Backend(Arc<dyn DiskFile>);

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.read_at(out, offset)? < out.len() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(data, offset)
    }
}
