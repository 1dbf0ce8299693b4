//! Files of sealed documents on a simulated disk, with the cheapest passwords there are.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use kura::apps::sealed::{
    Credentials, Damage, Document, Machine, NewAccess, NewIds, Place, ProcessMark, Processes, Result, Settings,
    ShareIds, add_document, create_file, read_document, update_file,
};
use kura::base::clock::{ManualClock, Timestamp};
use kura::base::disk::{DirItem, Disk, DiskFile, OpenMode, read_file};
use kura::base::sim_disk::SimDisk;
use kura::crypto::sharing::Field;
use kura::crypto::slots::{KdfParams, Secret};
use parking_lot::Mutex;

pub const FILE: &str = "/dir/notes.sealed";
pub const FIELDS: [Field; 2] = [Field::Gf256, Field::Prime];

/// A file small enough to be tried a thousand times.
pub fn small(field: Field, slots: u16) -> Settings {
    Settings { field, slots, capacity: 300, kdf: KdfParams::minimum() }
}

/// Processes that live as long as the test says.
pub struct Actors {
    pub me: ProcessMark,
    pub alive: Mutex<Vec<ProcessMark>>,
}

impl Processes for Actors {
    fn me(&self) -> ProcessMark {
        self.me
    }

    fn is_alive(&self, mark: &ProcessMark) -> bool {
        *mark == self.me || self.alive.lock().contains(mark)
    }
}

pub fn mark(pid: u32, start_ticks: u64, boot: u8) -> ProcessMark {
    ProcessMark { pid, start_ticks, boot: [boot; 16] }
}

/// A machine on which process `me` works and nobody else lives.
pub fn machine_of(disk: &SimDisk, me: ProcessMark) -> Machine {
    Machine {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(ManualClock::new(Timestamp::from_parts(1_700_000_000, 0))),
        processes: Arc::new(Actors { me, alive: Mutex::new(Vec::new()) }),
    }
}

pub fn machine(disk: &SimDisk) -> Machine {
    machine_of(disk, mark(100, 5, 1))
}

/// An empty disk with the directory of [`FILE`].
pub fn disk() -> SimDisk {
    let disk = SimDisk::new(7);
    disk.create_dir_all(Path::new("/dir")).unwrap();
    disk
}

pub fn file() -> PathBuf {
    PathBuf::from(FILE)
}

pub fn place() -> Place {
    Place::of(Path::new(FILE))
}

pub fn credentials(password: &str, ids: &[u16]) -> Credentials {
    Credentials { password: Secret::from_text(password.to_owned()), ids: ShareIds::new(ids).unwrap() }
}

pub fn access(password: &str, ids: &[u16], threshold: u16) -> NewAccess {
    let ids = NewIds::Chosen(ShareIds::new(ids).unwrap());
    NewAccess { password: Secret::from_text(password.to_owned()), ids, threshold }
}

/// A file with two documents: `one` in slots 1, 4 and 5 of which two are enough, `two` in 2 and 6.
pub fn make_two(machine: &Machine, settings: &Settings) -> [Credentials; 2] {
    create_file(machine, &file(), settings, &access("one", &[1, 4, 5], 2), b"{\"name\":\"one\"}").unwrap();
    let one = [credentials("one", &[5, 1, 4])];
    let place = Place { backup: false, ..place() };
    add_document(machine, &place, (&one, true), &access("two", &[2, 6], 2), b"{\"name\":\"two\"}").unwrap();
    let [one] = one;
    [one, credentials("two", &[2, 6])]
}

pub fn bytes(machine: &Machine) -> Vec<u8> {
    read_file(machine.disk.as_ref(), Path::new(FILE), usize::MAX).unwrap()
}

/// A machine whose disk holds a file of these bytes and nothing else. (A simulated disk remembers all that was ever
/// written to it, which is too much for thousands of rounds.)
pub fn machine_with(bytes: &[u8]) -> Machine {
    let machine = machine(&disk());
    replace(&machine, bytes);
    machine
}

/// Puts other bytes in the place of the file.
pub fn replace(machine: &Machine, bytes: &[u8]) {
    kura::base::disk::replace_file(machine.disk.as_ref(), Path::new(FILE), bytes).unwrap();
}

pub fn read(machine: &Machine, credentials: &Credentials) -> Result<Document> {
    read_document(machine, Path::new(FILE), credentials, Damage::Refuse)
}

pub fn text(machine: &Machine, credentials: &Credentials) -> String {
    String::from_utf8(read(machine, credentials).unwrap().json.to_vec()).unwrap()
}

pub fn update(machine: &Machine, credentials: &Credentials, json: &str) -> Result<()> {
    let place = Place { backup: false, ..place() };
    update_file(machine, &place, json.as_bytes(), credentials).map(|_| ())
}

/// Names in the work directory.
pub fn leftovers(machine: &Machine) -> Vec<String> {
    let dir = kura::apps::sealed::work_dir(Path::new(FILE));
    machine.disk.list(&dir).unwrap_or_default().into_iter().map(|item| item.name).collect()
}

pub fn is_long() -> bool {
    std::env::var_os("KURA_TEST_LONG").is_some_and(|value| !value.is_empty())
}

/// A disk that forgets one write of many, as if it had succeeded, or that can only be read.
pub struct Forgetful {
    pub disk: SimDisk,
    pub is_read_only: bool,
    /// How many writes succeed before one is forgotten.
    pub writes_left: Arc<AtomicI64>,
}

struct ForgetfulFile(Arc<dyn DiskFile>, Arc<AtomicI64>);

impl Forgetful {
    fn change(&self) -> io::Result<&SimDisk> {
        if self.is_read_only { Err(io::Error::from_raw_os_error(libc::EROFS)) } else { Ok(&self.disk) }
    }
}

impl Disk for Forgetful {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if !matches!(mode, OpenMode::Read) {
            self.change()?;
        }
        let file = self.disk.open(path, mode)?;
        let watched = path.extension().is_some_and(|extension| extension == "tmp");
        Ok(if watched { Arc::new(ForgetfulFile(file, self.writes_left.clone())) } else { file })
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?.link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change()?.remove(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change()?.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirItem>> {
        self.disk.list(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
}

impl DiskFile for ForgetfulFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.1.fetch_sub(1, Ordering::SeqCst) == 0 { Ok(()) } else { self.0.write_at(bytes, offset) }
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn is_written(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.0.is_written(offset, len)
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }
    fn lock(&self) -> io::Result<()> {
        self.0.lock()
    }
}
