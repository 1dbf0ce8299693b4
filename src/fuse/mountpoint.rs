//! Mount points: whether a directory is fit to be one, and how one is freed again.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use nix::sys::statvfs::statvfs;
use nix::unistd::write;

use super::mount::MountOptions;

/// How our mounts show in the system's list.
const FILE_SYSTEM_TYPE: &str = "fuse.kura";
/// The helper by which an ordinary user mounts and unmounts.
const HELPER: &str = "fusermount3";
/// A program that just ends may hold the mount for a moment.
const BUSY_RETRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(60);

/// Why mounting or unmounting failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no such directory.
    #[error("{}: no such directory; make it first", path.display())]
    Missing {
        /// The mount point.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{}: not a directory", path.display())]
    NotADirectory {
        /// The mount point.
        path: PathBuf,
    },
    /// It has names in it, which the mount would hide.
    #[error("{}: not empty; choose an empty directory, or say `-o nonempty`", path.display())]
    NotEmpty {
        /// The mount point.
        path: PathBuf,
    },
    /// The mount would stand in what it stands on, or hide it.
    #[error(
        "{}: overlaps with {}, where the workspace keeps its data; choose another place",
        path.display(), other.display()
    )]
    Overlaps {
        /// The mount point.
        path: PathBuf,
        /// The directory of ours.
        other: PathBuf,
    },
    /// The mount there is dead, and another file system's or another user's.
    #[error("{}: the mount there is dead, and of another kind or another user; unmount it first", path.display())]
    DeadMount {
        /// The mount point.
        path: PathBuf,
    },
    /// This machine has no FUSE.
    #[error("/dev/fuse is not there; load the kernel module `fuse`, or let the container have the device")]
    NoFuse,
    /// The system refused.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The mount point.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// It was gone as soon as it was there.
    #[error("{}: it was mounted, and somebody else unmounted it at once", path.display())]
    Gone {
        /// The mount point.
        path: PathBuf,
    },
    /// Something else is mounted on top.
    #[error("{}: something else is mounted over it; unmount that first", path.display())]
    Covered {
        /// The mount point.
        path: PathBuf,
    },
    /// The connection to the kernel ended in an error.
    #[error("{}: the mount ended: {reason}", path.display())]
    Ended {
        /// The mount point.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

/// How unmounting went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// The mount is gone.
    Clean,
    /// The mount point is free; programs that had files open keep them until they close them.
    Lazy,
    /// It had been unmounted before.
    Already,
}

/// A line of the system's list of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MountLine {
    device: String,
    mountpoint: PathBuf,
    file_system: String,
    /// Who mounted it.
    user_id: Option<u32>,
}

impl MountLine {
    /// Whether this user mounted it, as a workspace.
    fn is_own(&self) -> bool {
        self.file_system == FILE_SYSTEM_TYPE && self.user_id == Some(nix::unistd::geteuid().as_raw())
    }

    fn is_ours(&self, device: &str) -> bool {
        self.device == device && self.file_system == FILE_SYSTEM_TYPE
    }
}

fn refused(path: &Path, error: &io::Error) -> MountError {
    MountError::Refused { path: path.to_owned(), reason: error.to_string() }
}

/// The mounts of this process's view, later ones last.
fn mounts() -> io::Result<Vec<MountLine>> {
    Ok(std::fs::read("/proc/self/mountinfo")?.split(|byte| *byte == b'\n').filter_map(parse_line).collect())
}

/// Where kura workspaces are mounted, dead mounts included; none where the system's list cannot be read.
pub fn mountpoints() -> Vec<PathBuf> {
    let ours = |line: MountLine| (line.file_system == FILE_SYSTEM_TYPE).then_some(line.mountpoint);
    mounts().unwrap_or_default().into_iter().filter_map(ours).collect()
}

/// Where the mount that a line of `/proc/PID/mountinfo` tells of is, if it is one.
pub fn mountpoint_in(line: &[u8]) -> Option<PathBuf> {
    parse_line(line).map(|line| line.mountpoint)
}

fn parse_line(line: &[u8]) -> Option<MountLine> {
    use std::os::unix::ffi::OsStringExt;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut fields = line.split(|byte| *byte == b' ');
    let device = text(fields.nth(2)?);
    let mountpoint = PathBuf::from(std::ffi::OsString::from_vec(unescape(fields.nth(1)?)));
    let mut fields = fields.skip_while(|field| *field != b"-");
    let file_system = text(fields.nth(1)?);
    let options = text(fields.nth(1).unwrap_or_default());
    let user_id = options.split(',').find_map(|option| option.strip_prefix("user_id=")?.parse().ok());
    Some(MountLine { device, mountpoint, file_system, user_id })
}

/// Spaces and the like are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                out.push(byte);
                rest = &after[3..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// The newest mount at a path, as the system names it.
fn top_mount(mountpoint: &Path) -> Option<MountLine> {
    mounts().ok()?.into_iter().rfind(|line| line.mountpoint == mountpoint)
}

/// The device number of the mount that was just made.
pub(super) fn device_of(mountpoint: &Path) -> Option<String> {
    top_mount(mountpoint).filter(|line| line.file_system == FILE_SYSTEM_TYPE).map(|line| line.device)
}

/// Whether the mount with this device number can still be found by this process; when its list cannot be read, yes.
pub(super) fn is_here(device: &str) -> bool {
    mounts().map_or(true, |lines| lines.iter().any(|line| line.is_ours(device)))
}

/// Whether another process can find the mount with this device number: one in a mount namespace that was copied from
/// this one while it was mounted.
pub(super) fn is_elsewhere(device: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lists = processes.filter_map(|process| std::fs::read(process.path().join("mountinfo")).ok());
    lists
        .into_iter()
        .any(|list| list.split(|byte| *byte == b'\n').filter_map(parse_line).any(|line| line.is_ours(device)))
}

/// Cuts the connection of the mount with this device number through the kernel's control files, where there are any.
pub(super) fn cut(device: &str) -> io::Result<()> {
    let (_, number) = device.split_once(':').ok_or(io::ErrorKind::NotFound)?;
    let path = Path::new("/sys/fs/fuse/connections").join(number).join("abort");
    let file = open(&path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&file, b"1")?;
    Ok(())
}

/// Lets the kernel read so many KiB ahead in a file of the mount with this device number, in one request; root may.
pub(super) fn set_read_ahead(device: &str, kib: u32) -> io::Result<()> {
    let path = Path::new("/sys/class/bdi").join(device).join("read_ahead_kb");
    let file = open(&path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&file, kib.to_string().as_bytes())?;
    Ok(())
}

/// Checks a mount point, frees it from a dead mount of ours, and gives its absolute path.
pub(super) fn prepare(mountpoint: &Path, options: &MountOptions) -> Result<PathBuf, MountError> {
    let path = mountpoint.to_owned();
    // The kernel may still hold the attributes of a dead mount, but not the state of its file system.
    if matches!(statvfs(mountpoint), Err(Errno::ENOTCONN | Errno::ECONNABORTED)) {
        clear_dead(mountpoint)?;
    }
    match std::fs::metadata(mountpoint) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(MountError::NotADirectory { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(MountError::Missing { path }),
        Err(error) => return Err(refused(mountpoint, &error)),
    }
    let whole = std::fs::canonicalize(mountpoint).map_err(|error| refused(mountpoint, &error))?;
    for other in &options.not_overlapping {
        let other = std::fs::canonicalize(other).unwrap_or_else(|_| other.clone());
        if whole.starts_with(&other) || other.starts_with(&whole) {
            return Err(MountError::Overlaps { path, other });
        }
    }
    let mut names = std::fs::read_dir(&whole).map_err(|error| refused(mountpoint, &error))?;
    if !options.nonempty && names.next().is_some() {
        return Err(MountError::NotEmpty { path });
    }
    Ok(whole)
}

/// A mount whose process died stays, and answers that it is not connected.
fn clear_dead(mountpoint: &Path) -> Result<(), MountError> {
    // The path itself cannot be looked at; its parent can.
    let parent = mountpoint.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = std::fs::canonicalize(parent).map_err(|error| refused(mountpoint, &error))?;
    let whole = mountpoint.file_name().map_or(parent.clone(), |name| parent.join(name));
    if !top_mount(&whole).is_some_and(|line| line.is_own()) {
        return Err(MountError::DeadMount { path: mountpoint.to_owned() });
    }
    tracing::warn!("{}: a dead mount is removed", whole.display());
    detach(&whole)
}

/// A connection that was cut leaves a mount that answers nothing. Device numbers are used again, so a
/// mount that does answer is somebody else's.
pub(super) fn clear_if_dead(mountpoint: &Path, device: &str) -> Result<(), MountError> {
    // Looked at only while it is ours: below it may be an automount point, which would mount it again.
    if !top_mount(mountpoint).is_some_and(|line| line.is_ours(device)) {
        return Ok(());
    }
    match std::fs::metadata(mountpoint) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => detach(mountpoint),
        _ => Ok(()),
    }
}

/// Cuts the connection, which ends whatever waits for an answer, and frees the mount point. Only root
/// can do the former.
pub(super) fn abort(mountpoint: &Path, device: &str) -> Result<(), MountError> {
    if !top_mount(mountpoint).is_some_and(|line| line.is_ours(device)) {
        return Ok(());
    }
    match umount2(mountpoint, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(_) => detach(mountpoint),
    }
}

/// Frees a mount point from the mount with this device number.
pub(super) fn unmount(mountpoint: &Path, device: &str) -> Result<Unmounted, MountError> {
    for _ in 0..BUSY_RETRIES {
        let lines = mounts().map_err(|error| refused(mountpoint, &error))?;
        let at = |line: &&MountLine| line.mountpoint == mountpoint;
        match lines.iter().rfind(at) {
            Some(line) if line.is_ours(device) => {}
            _ if lines.iter().filter(at).any(|line| line.is_ours(device)) => {
                return Err(MountError::Covered { path: mountpoint.to_owned() });
            }
            _ => return Ok(Unmounted::Already),
        }
        match umount2(mountpoint, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => return Ok(Unmounted::Clean),
            Err(Errno::EPERM) if helper(mountpoint, &["-u"]).is_ok() => return Ok(Unmounted::Clean),
            Err(Errno::EPERM | Errno::EBUSY) => std::thread::sleep(BUSY_PAUSE),
            Err(error) => return Err(refused(mountpoint, &error.into())),
        }
    }
    detach(mountpoint).map(|()| Unmounted::Lazy)
}

fn detach(mountpoint: &Path) -> Result<(), MountError> {
    match umount2(mountpoint, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => helper(mountpoint, &["-u", "-z"]),
        Err(error) => Err(refused(mountpoint, &error.into())),
    }
}

fn helper(mountpoint: &Path, arguments: &[&str]) -> Result<(), MountError> {
    let mut command = Command::new(HELPER);
    command.args(arguments).arg("--").arg(mountpoint).stdin(Stdio::null());
    let output = command.output().map_err(|error| MountError::Refused {
        path: mountpoint.to_owned(),
        reason: format!("{HELPER} cannot be run: {error}"),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(MountError::Refused { path: mountpoint.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_list_of_mounts_are_read() {
        let line = b"36 35 0:45 / /mnt/with\\040space rw,noatime shared:1 master:2 - fuse.kura kura rw,user_id=0";
        let parsed = parse_line(line).unwrap();
        assert_eq!(parsed.device, "0:45");
        assert_eq!(parsed.mountpoint, Path::new("/mnt/with space"));
        assert_eq!(parsed.file_system, "fuse.kura");
        assert_eq!(parsed.user_id, Some(0));
        assert_eq!(
            parse_line(b"36 35 0:45 / /x rw - "),
            Some(MountLine {
                device: "0:45".into(),
                mountpoint: "/x".into(),
                file_system: String::new(),
                user_id: None
            })
        );
        for broken in [b"".as_slice(), b"36", b"36 35 0:45 / /x rw", b"36 35 0:45 / /x rw -"] {
            assert_eq!(parse_line(broken), None);
        }
    }

    #[test]
    fn only_octal_escapes_are_undone() {
        assert_eq!(unescape(b"a\\134b\\012"), b"a\\b\n");
        assert_eq!(unescape(b"a\\9b\\"), b"a\\9b\\");
        assert_eq!(unescape(b"\\777"), b"\\777");
    }
}
