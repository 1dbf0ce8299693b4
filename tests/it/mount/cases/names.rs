//! Cases of names, directories and links.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::mkfifo;

use super::attributes::mode_of;
use crate::mount::guard::sh;

pub(super) fn directories(dir: &Path) {
    let links = |path: &Path| fs::metadata(path).unwrap().nlink();
    let deep = dir.join("a/b/c/d");
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(dir.join("a/e")).unwrap();
    fs::write(dir.join("a/file"), "").unwrap();
    // Some file systems do not count directories.
    assert!([1, 4].contains(&links(&dir.join("a"))));
    assert_eq!(fs::remove_dir(dir.join("a")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    assert_eq!(fs::remove_dir(dir.join("a/file")).unwrap_err().kind(), ErrorKind::NotADirectory);
    assert!(fs::remove_file(dir.join("a/e")).is_err());
    fs::remove_dir(dir.join("a/e")).unwrap();
    assert!([1, 3].contains(&links(&dir.join("a"))));
    let names: Vec<_> = fs::read_dir(dir.join("a")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2);
    fs::remove_dir_all(dir.join("a")).unwrap();
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    assert!(fs::File::open(dir).unwrap().sync_all().is_ok(), "a directory is synced");
}

pub(super) fn symlinks(dir: &Path) {
    fs::write(dir.join("target"), "through").unwrap();
    symlink("target", dir.join("link")).unwrap();
    symlink("nowhere/at/all", dir.join("dangling")).unwrap();
    symlink("loop", dir.join("loop")).unwrap();
    assert_eq!(fs::read(dir.join("link")).unwrap(), b"through");
    assert_eq!(fs::read_link(dir.join("dangling")).unwrap(), Path::new("nowhere/at/all"));
    assert_eq!(fs::symlink_metadata(dir.join("dangling")).unwrap().len(), 14);
    assert_eq!(fs::read(dir.join("dangling")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::read(dir.join("loop")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    let long = "x".repeat(4000);
    symlink(&long, dir.join("long")).unwrap();
    assert_eq!(fs::read_link(dir.join("long")).unwrap(), Path::new(&long));
    assert_eq!(fs::read_link(dir.join("target")).unwrap_err().kind(), ErrorKind::InvalidInput);
    fs::remove_file(dir.join("link")).unwrap();
    symlink("dangling", dir.join("link")).unwrap();
    assert_eq!(fs::read_link(dir.join("link")).unwrap(), Path::new("dangling"), "a new link is not the old one");
}

pub(super) fn hard_links(dir: &Path) {
    let (one, two) = (dir.join("one"), dir.join("sub/two"));
    fs::create_dir(dir.join("sub")).unwrap();
    fs::write(&one, "shared").unwrap();
    fs::hard_link(&one, &two).unwrap();
    let (a, b) = (fs::metadata(&one).unwrap(), fs::metadata(&two).unwrap());
    assert_eq!((a.ino(), a.nlink(), a.len()), (b.ino(), 2, 6));
    OpenOptions::new().append(true).open(&two).unwrap().write_all(b" by both").unwrap();
    assert_eq!(fs::read(&one).unwrap(), b"shared by both");
    fs::set_permissions(&two, fs::Permissions::from_mode(0o604)).unwrap();
    assert_eq!(mode_of(&one), 0o604);
    fs::rename(&one, &two).unwrap();
    assert!(one.exists() && two.exists(), "renaming over the same file does nothing");
    fs::remove_file(&one).unwrap();
    assert_eq!(fs::metadata(&two).unwrap().nlink(), 1);
    assert_eq!(fs::read(&two).unwrap(), b"shared by both");
    assert!(fs::hard_link(dir.join("sub"), dir.join("dir")).is_err());
    symlink("nowhere", dir.join("link")).unwrap();
    fs::hard_link(dir.join("link"), dir.join("second")).unwrap();
    assert_eq!(fs::read_link(dir.join("second")).unwrap(), Path::new("nowhere"));
}

pub(super) fn special_files(dir: &Path) {
    mkfifo(&dir.join("fifo"), Mode::from_bits_truncate(0o640)).unwrap();
    assert!(fs::metadata(dir.join("fifo")).unwrap().file_type().is_fifo());
    let _listener = std::os::unix::net::UnixListener::bind(dir.join("s")).unwrap();
    assert!(fs::metadata(dir.join("s")).unwrap().file_type().is_socket());
    mknod(&dir.join("plain"), SFlag::S_IFREG, Mode::from_bits_truncate(0o600), 0).unwrap();
    assert!(fs::metadata(dir.join("plain")).unwrap().is_file());
    if nix::unistd::geteuid().is_root() {
        let device = nix::sys::stat::makedev(259, 70_000);
        let null = nix::sys::stat::makedev(1, 3);
        mknod(&dir.join("block"), SFlag::S_IFBLK, Mode::S_IRUSR, device).unwrap();
        mknod(&dir.join("null"), SFlag::S_IFCHR, Mode::S_IRUSR, null).unwrap();
        assert_eq!(fs::metadata(dir.join("block")).unwrap().rdev(), device);
        assert_eq!(fs::metadata(dir.join("null")).unwrap().rdev(), null);
        assert!(fs::metadata(dir.join("null")).unwrap().file_type().is_char_device());
    }
    sh(dir, "echo through > fifo & cat fifo > got; wait; test \"$(cat got)\" = through");
}

pub(super) fn names(dir: &Path) {
    let long = vec![b'n'; 255];
    let all: Vec<u8> = (1..=255u8).filter(|byte| *byte != b'/').collect();
    let odd: [&[u8]; 7] = [&long, &all, b"new\nline", b"\xff\xfe", b" ", b"-rf", b"..."];
    for name in odd {
        fs::write(dir.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(fs::read(entry.path()).unwrap(), entry.file_name().as_bytes());
    }
    assert_eq!(fs::read_dir(dir).unwrap().count(), odd.len());
    let too_long = dir.join("n".repeat(256));
    for error in [File::create(&too_long).unwrap_err(), fs::metadata(&too_long).unwrap_err()] {
        assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
    }
    let renamed = fs::rename(dir.join(" "), &too_long).unwrap_err();
    assert_eq!(renamed.raw_os_error(), Some(libc::ENAMETOOLONG));
}

fn rename_with(from: &Path, to: &Path, flags: RenameFlags) -> nix::Result<()> {
    renameat2(AT_FDCWD, from, AT_FDCWD, to, flags)
}

pub(super) fn renames(dir: &Path) {
    let (a, b, d) = (dir.join("a"), dir.join("b"), dir.join("d"));
    fs::write(&a, "a").unwrap();
    fs::write(&b, "b").unwrap();
    fs::create_dir(&d).unwrap();
    assert_eq!(rename_with(&a, &b, RenameFlags::RENAME_NOREPLACE), Err(nix::errno::Errno::EEXIST));
    rename_with(&a, &b, RenameFlags::RENAME_EXCHANGE).unwrap();
    assert_eq!((fs::read(&a).unwrap(), fs::read(&b).unwrap()), (b"b".to_vec(), b"a".to_vec()));
    rename_with(&a, &d, RenameFlags::RENAME_EXCHANGE).unwrap();
    assert!(a.is_dir() && d.is_file());
    rename_with(&a, &d, RenameFlags::RENAME_EXCHANGE).unwrap();
    assert_eq!(rename_with(&a, &dir.join("none"), RenameFlags::RENAME_EXCHANGE), Err(nix::errno::Errno::ENOENT));
    rename_with(&a, &dir.join("c"), RenameFlags::RENAME_NOREPLACE).unwrap();
    fs::rename(dir.join("c"), &b).unwrap();
    assert_eq!(fs::read(&b).unwrap(), b"b");
    assert!(!a.exists());
    assert_eq!(fs::rename(&a, &b).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::rename(&b, &d).unwrap_err().kind(), ErrorKind::IsADirectory);
    assert_eq!(fs::rename(&d, &b).unwrap_err().kind(), ErrorKind::NotADirectory);
    fs::rename(&b, d.join("moved")).unwrap();
    assert_eq!(fs::read(d.join("moved")).unwrap(), b"b");
}

pub(super) fn directory_renames(dir: &Path) {
    fs::create_dir_all(dir.join("x/y/z")).unwrap();
    fs::write(dir.join("x/y/z/f"), "deep").unwrap();
    assert_eq!(fs::rename(dir.join("x"), dir.join("x/y/w")).unwrap_err().kind(), ErrorKind::InvalidInput);
    fs::create_dir_all(dir.join("full/of")).unwrap();
    let error = fs::rename(dir.join("x"), dir.join("full")).unwrap_err().raw_os_error().unwrap();
    assert!([libc::ENOTEMPTY, libc::EEXIST].contains(&error));
    fs::create_dir(dir.join("empty")).unwrap();
    fs::rename(dir.join("x/y"), dir.join("empty")).unwrap();
    assert_eq!(fs::read(dir.join("empty/z/f")).unwrap(), b"deep");
    assert_eq!(fs::read_dir(dir.join("x")).unwrap().count(), 0);
    let parent = fs::metadata(dir.join("empty/z/..")).unwrap().ino();
    assert_eq!(parent, fs::metadata(dir.join("empty")).unwrap().ino());
}

pub(super) fn removed_but_open(dir: &Path) {
    let path = dir.join("d");
    fs::create_dir(&path).unwrap();
    let held = File::open(&path).unwrap();
    fs::remove_dir(&path).unwrap();
    assert!(held.metadata().unwrap().is_dir());
    let inside = path.join("x");
    assert_eq!(File::create(inside).unwrap_err().kind(), ErrorKind::NotFound);
    // Replaced by another directory.
    fs::create_dir(&path).unwrap();
    let held = File::open(&path).unwrap();
    fs::create_dir(dir.join("other")).unwrap();
    fs::rename(dir.join("other"), &path).unwrap();
    assert_eq!(held.metadata().unwrap().ino(), held.metadata().unwrap().ino());
    assert_ne!(held.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
}

pub(super) fn big_listing(dir: &Path) {
    for number in 0..3000 {
        fs::write(dir.join(format!("a fairly long name for a file {number}")), "").unwrap();
    }
    for _ in 0..2 {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 3000);
    }
    assert_eq!(sh(dir, "ls -a | head -2").trim(), ".\n..");
}

pub(super) fn removing_while_listing(dir: &Path) {
    for number in 0..1500 {
        fs::write(dir.join(format!("file {number}")), "").unwrap();
    }
    for entry in fs::read_dir(dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
}
