//! Operations on files: under a lock, through a temporary file, with a backup, and either done or not.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::bytes::Bytes;
use super::error::{Result, SealedError, disk};
use super::ids::{Credentials, ShareIds};
use super::image::Image;
use super::layout::{FRAME_SHARE_LEN, Header, Settings};
use super::lock::{
    LOCK_TIMEOUT_MS, Machine, Operation, TempResources, cleanup_stale_temp_files, create_temp_resources, work_dir,
};
use super::open::Damage;
use super::rewrite::{self, Document, NewAccess, Written};
use crate::base::clock::Timestamp;
use crate::base::disk::{DiskFile, OpenMode};
use crate::crypto::document::on_wiped_stack;
use crate::crypto::slots::Secret;

/// Where an operation reads from and writes to. Paths are absolute.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file as it is.
    pub input: PathBuf,
    /// The file as it shall be, the same or another. What has that name already must be the same file by its UUID.
    pub output: PathBuf,
    /// Whether to keep what the output was.
    pub backup: bool,
}

impl Place {
    /// A file that is replaced, with a backup.
    pub fn of(file: &Path) -> Self {
        Self { input: file.to_owned(), output: file.to_owned(), backup: true }
    }
}

/// What came of an operation that wrote a file.
#[derive(Debug)]
pub struct Outcome<T> {
    /// The file.
    pub uuid: Uuid,
    /// The backup of what the output was.
    pub backup: Option<PathBuf>,
    /// What the operation says.
    pub result: T,
}

/// What checking a whole file found.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its header.
    pub header: Header,
    /// Whether a document of it opened, which proves that nobody else altered it.
    pub authentic: bool,
}

/// Makes a file without documents. Nothing may have the name yet. Until [`add_document`] puts the first one in, nobody
/// can tell whether it was altered on purpose, since what would tell is in the documents.
pub fn init_file(machine: &Machine, path: &Path, settings: &Settings) -> Result<Outcome<()>> {
    make(machine, path, settings, |header, target, name| rewrite::init_into(header, target, name))
}

/// Makes a file with its first document; its ids. Nothing may have the name yet.
pub fn create_file(
    machine: &Machine,
    path: &Path,
    settings: &Settings,
    access: &NewAccess,
    json: &[u8],
) -> Result<Outcome<ShareIds>> {
    make(machine, path, settings, |header, target, name| {
        rewrite::create_into(header, target, name, access, json, machine.clock.now())
    })
}

/// Replaces one document of a file, at once or not at all: prepared, then put in its place.
pub fn update_file(
    machine: &Machine,
    place: &Place,
    json: &[u8],
    credentials: &Credentials,
) -> Result<Outcome<Written>> {
    safe_update(machine, place, json, credentials)?.apply()
}

/// Replaces one document of a file in its encrypted temporary file, under the file's lock, and reads it back. Nothing
/// is changed until [`Prepared::apply`]; whatever fails, temporary file and lock go away.
///
/// Fails as [`SealedError::Locked`] when somebody works on the file, `Occupied` when the output is another file, and as
/// the steps do.
pub fn safe_update(
    machine: &Machine,
    place: &Place,
    json: &[u8],
    credentials: &Credentials,
) -> Result<Prepared<Written>> {
    prepare(machine, place, |source, target| {
        rewrite::update_into(source, target, credentials, json, machine.clock.now())
    })
}

/// Adds a document to a file; its ids. Documents that are not among the `known` ones may be destroyed, so
/// `rest_is_unused` must say that there are none. When none is known it is the first, and all slots are written anew.
pub fn add_document(
    machine: &Machine,
    place: &Place,
    (known, rest_is_unused): (&[Credentials], bool),
    access: &NewAccess,
    json: &[u8],
) -> Result<Outcome<ShareIds>> {
    if !rest_is_unused {
        return Err(SealedError::RestNotDeclared { file: place.input.display().to_string() });
    }
    prepare(machine, place, |source, target| {
        rewrite::add_into(source, target, known, access, json, machine.clock.now())
    })?
    .apply()
}

/// Changes the password of one document. Backups still open with the old one.
pub fn change_password(
    machine: &Machine,
    place: &Place,
    old: &Credentials,
    new_password: Secret,
) -> Result<Outcome<Written>> {
    prepare(machine, place, |source, target| {
        rewrite::change_password_into(source, target, old, new_password, machine.clock.now())
    })?
    .apply()
}

/// Writes new shares of the documents named, and with `rest_is_unused` new random bytes into all other slots.
pub fn refresh_file(
    machine: &Machine,
    place: &Place,
    known: &[Credentials],
    rest_is_unused: bool,
) -> Result<Outcome<()>> {
    prepare(machine, place, |source, target| rewrite::refresh_into(source, target, known, rest_is_unused))?.apply()
}

/// Reads one document of a file.
pub fn read_document(machine: &Machine, path: &Path, credentials: &Credentials, damage: Damage) -> Result<Document> {
    with_image(machine, path, |image| rewrite::read(image, credentials, damage))
}

/// Reads the header of a file, which is all that can be known of it without a password.
pub fn read_header(machine: &Machine, path: &Path) -> Result<Header> {
    with_image(machine, path, |image| Ok(image.header))
}

/// Checks a whole file: without credentials, that nothing happened to it by accident; with those of any document, that
/// nobody else altered it either, and that the document can be read.
pub fn verify_file(machine: &Machine, path: &Path, credentials: Option<&Credentials>) -> Result<Verified> {
    with_image(machine, path, |image| {
        match credentials {
            Some(credentials) => {
                rewrite::read(image, credentials, Damage::Refuse)?;
            }
            None => image.check(&image.digests()?, None)?,
        }
        Ok(Verified { header: image.header, authentic: credentials.is_some() })
    })
}

fn with_image<T>(machine: &Machine, path: &Path, work: impl FnOnce(&Image<'_>) -> Result<T>) -> Result<T> {
    let file = machine.disk.open(path, OpenMode::Read).map_err(disk("opening", path))?;
    let name = path.display().to_string();
    let image = Image::open(&file, &name)?;
    on_wiped_stack(|| work(&image))
}

/// Sweeps the work directory beside a file and takes the file's lock.
fn begin(machine: &Machine, output: &Path, uuid: Uuid) -> Result<TempResources> {
    let dir = work_dir(output);
    cleanup_stale_temp_files(machine, &dir, LOCK_TIMEOUT_MS)?;
    create_temp_resources(machine, &dir, uuid, Operation::Write, LOCK_TIMEOUT_MS)
}

fn new_file(machine: &Machine, path: &Path, len: u64) -> Result<Arc<dyn DiskFile>> {
    let file = machine.disk.open(path, OpenMode::CreateNew).map_err(disk("making", path))?;
    file.set_len(len).map_err(disk("writing", path))?;
    Ok(file)
}

fn make<T>(
    machine: &Machine,
    path: &Path,
    settings: &Settings,
    work: impl FnOnce(&Header, &dyn Bytes, &str) -> Result<T>,
) -> Result<Outcome<T>> {
    let header = Header::new(settings)?;
    if machine.disk.open(path, OpenMode::Read).is_ok() {
        return Err(SealedError::Occupied(path.to_owned()));
    }
    let resources = begin(machine, path, header.uuid)?;
    let target = new_file(machine, &resources.temporary, header.file_len())?;
    let name = path.display().to_string();
    let result = on_wiped_stack(|| work(&header, &target, &name))?;
    target.sync().map_err(disk("writing", &resources.temporary))?;
    publish_new(machine, &resources.temporary, path)?;
    Ok(Outcome { uuid: header.uuid, backup: None, result })
}

/// A new file that is whole, read back and durable under its temporary name, with the lock that keeps others away.
/// Dropping it leaves everything as it was.
pub struct Prepared<T> {
    machine: Machine,
    place: Place,
    resources: TempResources,
    uuid: Uuid,
    replaces: bool,
    result: T,
}

impl<T> Prepared<T> {
    /// Where the new file lies until it is applied.
    pub fn temporary(&self) -> &Path {
        &self.resources.temporary
    }

    /// Keeps a backup of what the output was, and puts the new file in its place. Until the rename everything is as it
    /// was; after it, everything is as it shall be.
    pub fn apply(self) -> Result<Outcome<T>> {
        let Self { machine, place, resources, uuid, replaces, result } = self;
        let (machine, output) = (&machine, &place.output);
        let keep = place.backup && replaces;
        let backup = keep.then(|| keep_backup(machine, output, uuid, &resources)).transpose()?;
        machine.disk.rename(&resources.temporary, output).map_err(disk("replacing", output))?;
        sync_parent(machine, output)?;
        Ok(Outcome { uuid, backup, result })
    }
}

/// Lets `work` write a new file from the one at the input.
fn prepare<T>(
    machine: &Machine,
    place: &Place,
    work: impl FnOnce(&Image<'_>, &dyn Bytes) -> Result<T>,
) -> Result<Prepared<T>> {
    let uuid = read_header(machine, &place.input)?.uuid;
    let resources = begin(machine, &place.output, uuid)?;
    // Only now nobody else replaces it.
    let replaces = match read_header(machine, &place.output) {
        Ok(found) if found.uuid == uuid => true,
        Err(SealedError::Disk { source, .. }) if source.kind() == io::ErrorKind::NotFound => false,
        Err(error @ SealedError::Disk { .. }) => return Err(error),
        _ => return Err(SealedError::Occupied(place.output.clone())),
    };
    let result = with_image(machine, &place.input, |source| {
        let target = new_file(machine, &resources.temporary, source.header.file_len())?;
        let result = work(source, &target)?;
        target.sync().map_err(disk("writing", &resources.temporary))?;
        Ok(result)
    })?;
    Ok(Prepared { machine: machine.clone(), place: place.clone(), resources, uuid, replaces, result })
}

/// Gives the file a second name, `UUID.TIME.bak`, in its work directory. The file itself is never written to again.
fn keep_backup(machine: &Machine, file: &Path, uuid: Uuid, resources: &TempResources) -> Result<PathBuf> {
    let dir = work_dir(file);
    let now = machine.clock.now();
    let mut backup = dir.join(backup_name(uuid, now, None));
    let mut linked = machine.disk.link(file, &backup);
    if linked.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
        backup = dir.join(backup_name(uuid, now, Some(resources.process)));
        linked = machine.disk.link(file, &backup);
    }
    match linked {
        Err(error) if has_no_links(&error) => copy_backup(machine, file, &backup, uuid)?,
        result => result.map_err(disk("backing up to", &backup))?,
    }
    machine.disk.sync_dir(&dir).map_err(disk("backing up to", &backup))?;
    Ok(backup)
}

/// `UUID.TIME.bak`, or `UUID.TIME.PROCESS.bak` when that is taken.
pub(super) fn backup_name(file: Uuid, time: Timestamp, process: Option<Uuid>) -> String {
    let time = jiff::Timestamp::from_nanosecond(time.unix_ns().into()).unwrap_or_default();
    let time = time.strftime("%Y%m%dT%H%M%S%3fZ");
    process.map_or_else(|| format!("{file}.{time}.bak"), |process| format!("{file}.{time}.{process}.bak"))
}

/// The backup where files have one name only. Its temporary name is one that sweeping removes.
fn copy_backup(machine: &Machine, file: &Path, backup: &Path, uuid: Uuid) -> Result<()> {
    let process = uuid::Builder::from_random_bytes(crate::base::random::bytes()).into_uuid();
    let temporary = work_dir(file).join(format!("{uuid}.{process}.tmp"));
    let source = machine.disk.open(file, OpenMode::Read).map_err(disk("opening", file))?;
    let len = source.len().map_err(disk("reading", file))?;
    let target = new_file(machine, &temporary, len)?;
    let mut buffer = vec![0; FRAME_SHARE_LEN];
    let mut at = 0;
    while at < len {
        let count = source.read_at(&mut buffer, at).map_err(disk("reading", file))?;
        if count == 0 {
            return Err(disk("reading", file)(io::ErrorKind::UnexpectedEof.into()));
        }
        target.write_at(&buffer[..count], at).map_err(disk("writing", &temporary))?;
        at += count as u64;
    }
    target.sync().map_err(disk("writing", &temporary))?;
    machine.disk.rename(&temporary, backup).map_err(disk("backing up to", backup))
}

/// Gives a finished file its name, which must be free.
fn publish_new(machine: &Machine, temporary: &Path, path: &Path) -> Result<()> {
    match machine.disk.link(temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(SealedError::Occupied(path.to_owned()));
        }
        Err(error) if has_no_links(&error) => machine.disk.rename(temporary, path).map_err(disk("making", path))?,
        result => result.map_err(disk("making", path))?,
    }
    sync_parent(machine, path)
}

/// Whether the file system knows one name for a file only.
fn has_no_links(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied | io::ErrorKind::TooManyLinks)
}

fn sync_parent(machine: &Machine, path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    machine.disk.sync_dir(parent).map_err(disk("replacing", path))
}
