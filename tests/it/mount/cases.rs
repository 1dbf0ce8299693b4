//! What POSIX asks of a file system. The same cases run on the machine's own file system first, so
//! that a case that asks for something else is found out.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::sys::statvfs::statvfs;
use nix::unistd::mkfifo;

use super::guard::{Place, has, python, sh};

type Case = (&'static str, fn(&Path));

const CASES: &[Case] = &[
    ("a file is made, written, read, cut and grown", file_round_trip),
    ("appending writes at the end, whoever else wrote", appending),
    ("exclusive creation fails when the name is there", exclusive),
    ("opening with truncation empties, for readers too", truncating_open),
    ("what was opened for reading is not written", wrong_direction),
    ("directories nest, and only empty ones go", directories),
    ("symbolic links say what they were told", symlinks),
    ("hard links share one inode", hard_links),
    ("fifos and sockets are kept", special_files),
    ("names hold any byte and up to 255 of them", names),
    ("rename replaces, refuses and exchanges", renames),
    ("rename of directories", directory_renames),
    ("a file that was unlinked lives while it is open", unlinked_but_open),
    ("a directory that was removed lives while it is open", removed_but_open),
    ("holes are found and read as zeros", holes),
    ("ranges are punched, zeroed and allocated", fallocated),
    ("times keep their nanoseconds, before 1970 too", times),
    ("times move with what happens", time_moves),
    ("odd permission bits are kept", odd_modes),
    ("listing a big directory gives every name once", big_listing),
    ("removing while listing misses nothing", removing_while_listing),
    ("ranges are copied", copied_ranges),
    ("a shared mapping is written back", mapped),
    ("locks hold between processes", locks),
    ("a large file is what was written", large_file),
    ("a sparse file may be huge", huge),
];

fn run(base: &Path, cases: &[Case]) {
    for (number, (name, case)) in cases.iter().enumerate() {
        eprintln!("case: {name}");
        let dir = base.join(format!("case-{number}"));
        fs::create_dir(&dir).unwrap();
        case(&dir);
    }
}

#[test]
fn the_cases_hold_on_the_machines_own_file_system() {
    let dir = tempfile::Builder::new().prefix("kura-cases-").tempdir().unwrap();
    run(dir.path(), CASES);
}

#[test]
fn the_cases_hold_on_a_mount() {
    let place = Place::new();
    let mount = place.mount();
    run(mount.path(), CASES);
    mount.end();
}

#[test]
fn everything_is_there_after_mounting_again() {
    let place = Place::new();
    let describe = |dir: &Path| {
        let line = "find . -printf '%p %y %m %U %G %n %s %T@ %l\\n' | sort; find . -type f -size -9M | sort | \
            xargs -d '\\n' sha256sum";
        sh(dir, line)
    };
    let mount = place.mount();
    sh(
        mount.path(),
        "mkdir -p a/b/c; echo x > a/x; ln a/x a/b/y; ln -s ../x a/b/link; mkfifo a/p; chmod 4751 a/x; \
         head -c 3000000 /dev/urandom > a/b/c/random; truncate -s 1G a/sparse; printf tail >> a/sparse; \
         touch -d '1969-12-31T23:59:58.25Z' a/b/c; mkdir 'odd name\n'; for i in $(seq 300); do echo $i > \
             a/b/c/$i; done",
    );
    let before = describe(mount.path());
    mount.end();
    let mount = place.mount();
    assert_eq!(describe(mount.path()), before);
    mount.end();
}

#[test]
fn a_read_only_mount_refuses_every_change() {
    let place = Place::new();
    let mount = place.mount();
    fs::write(mount.at("f"), "kept").unwrap();
    mount.end();
    let options = kura::fuse::MountOptions { read_only: true, ..Default::default() };
    let mount = place.mount_with(|options| options.read_only = true, options, true);
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"kept");
    let errors = [
        fs::write(mount.at("f"), "x").unwrap_err(),
        fs::create_dir(mount.at("d")).unwrap_err(),
        fs::remove_file(mount.at("f")).unwrap_err(),
        fs::rename(mount.at("f"), mount.at("g")).unwrap_err(),
        fs::set_permissions(mount.at("f"), fs::Permissions::from_mode(0o600)).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
    }
    mount.end();
}

#[test]
fn statfs_says_how_long_names_may_be_and_how_much_fits() {
    let place = Place::new();
    let mount = place.mount();
    let before = statvfs(mount.path()).unwrap();
    assert_eq!(before.name_max(), 255);
    assert!(before.blocks_available() > 0 && before.blocks() >= before.blocks_free());
    fs::write(mount.at("f"), vec![1; 4 << 20]).unwrap();
    let after = statvfs(mount.path()).unwrap();
    assert!(after.files() - after.files_free() > before.files() - before.files_free());
    mount.end();
}

#[test]
fn extended_attributes_are_kept_and_those_that_cannot_be_are_refused() {
    if !has("python3") {
        return;
    }
    let place = Place::new();
    let mount = place.mount();
    python(
        mount.path(),
        r#"
import os, errno
def fails(number, call, *args):
    try: call(*args)
    except OSError as e: assert e.errno == number, e
    else: assert False, "no error"
open("f", "w").close()
os.setxattr("f", "user.a", b"one")
os.setxattr("f", "user.b", b"\0" * 60000)
os.setxattr("f", "user.empty", b"")
assert os.getxattr("f", "user.a") == b"one" and os.getxattr("f", "user.empty") == b""
assert len(os.getxattr("f", "user.b")) == 60000
assert sorted(os.listxattr("f")) == ["user.a", "user.b", "user.empty"]
fails(errno.EEXIST, os.setxattr, "f", "user.a", b"x", os.XATTR_CREATE)
fails(errno.ENODATA, os.setxattr, "f", "user.c", b"x", os.XATTR_REPLACE)
os.setxattr("f", "user.a", b"two", os.XATTR_REPLACE)
os.removexattr("f", "user.b")
fails(errno.ENODATA, os.removexattr, "f", "user.b")
fails(errno.ENODATA, os.getxattr, "f", "user.b")
none = [255] * 4
acl = bytes([2,0,0,0, 1,0,6,0] + none + [2,0,4,0,232,3,0,0, 4,0,4,0] + none + [16,0,4,0] + none + [32,0,4,0] + none)
fails(errno.EOPNOTSUPP, os.setxattr, "f", "system.posix_acl_access", acl)
fails(errno.EOPNOTSUPP, os.setxattr, "f", "nonsense.x", b"x")
fails(errno.EPERM, os.setxattr, "f", "user.kura.state", b"x")
if os.getuid() == 0:
    os.setxattr("f", "trusted.t", b"t"); assert "trusted.t" in os.listxattr("f")
    os.mkdir("d"); os.setxattr("d", "user.d", b"dir"); assert os.getxattr("d", "user.d") == b"dir"
g = open("f", "w"); g.write("x"); g.flush()
assert os.getxattr("f", "user.kura.state") == b"draft"
g.close()
assert os.getxattr("f", "user.kura.state") in (b"draft", b"published", b"recorded")
"#,
    );
    mount.end();
    let mount = place.mount();
    python(mount.path(), "import os; assert os.getxattr('f', 'user.a') == b'two'");
    mount.end();
    let mount = place.mount_with(|_| {}, Default::default(), false);
    python(
        mount.path(),
        "import os, errno\ntry: os.setxattr('f', 'user.z', b'')\nexcept OSError as e: assert e.errno == \
            errno.EOPNOTSUPP, e",
    );
    mount.end();
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn file_round_trip(dir: &Path) {
    let path = dir.join("f");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    file.write_all_at(b"hello world", 0).unwrap();
    file.write_all_at(b"W", 6).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"hello World");
    file.set_len(5).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 5);
    file.set_len(8).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"hello\0\0\0");
    file.write_all_at(b"!", 10).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"hello\0\0\0\0\0!");
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    let mut buffer = [0; 16];
    assert_eq!(file.read_at(&mut buffer, 11).unwrap(), 0, "nothing after the end");
    assert_eq!(file.read_at(&mut buffer, 100).unwrap(), 0);
    nix::unistd::truncate(&path, 2).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"he");
    drop(file);
    assert_eq!(fs::read(&path).unwrap(), b"he");
    fs::remove_file(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap_err().kind(), ErrorKind::NotFound);
}

fn appending(dir: &Path) {
    let path = dir.join("log");
    let mut one = OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let mut two = OpenOptions::new().append(true).open(&path).unwrap();
    for round in 0..20 {
        writeln!(one, "one {round}").unwrap();
        writeln!(two, "two {round}").unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 40);
}

fn exclusive(dir: &Path) {
    let path = dir.join("f");
    File::create_new(&path).unwrap();
    assert_eq!(File::create_new(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::create_dir(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(symlink("x", &path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::hard_link(&path, &path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(mkfifo(&path, Mode::S_IRWXU).unwrap_err(), nix::errno::Errno::EEXIST);
}

fn truncating_open(dir: &Path) {
    let path = dir.join("f");
    fs::write(&path, "something").unwrap();
    let reader = File::open(&path).unwrap();
    let cutter = OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(&path).unwrap();
    assert_eq!(reader.metadata().unwrap().len(), 0);
    drop(cutter);
    fs::write(&path, "again").unwrap();
    drop(File::create(&path).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"");
    // Made and opened for reading alone, then written by another.
    let made = dir.join("made");
    let only = OpenOptions::new().read(true).custom_flags(libc::O_CREAT).open(&made).unwrap();
    fs::write(&made, "by another").unwrap();
    assert_eq!(only.metadata().unwrap().len(), 10);
}

fn wrong_direction(dir: &Path) {
    let path = dir.join("f");
    fs::write(&path, "x").unwrap();
    assert!(File::open(&path).unwrap().write_all(b"y").is_err());
    assert!(OpenOptions::new().write(true).open(&path).unwrap().read(&mut [0; 1]).is_err());
    assert!(OpenOptions::new().write(true).open(dir).is_err(), "a directory is not written");
    assert_eq!(fs::read(dir).unwrap_err().kind(), ErrorKind::IsADirectory);
    assert_eq!(fs::read_dir(&path).unwrap_err().kind(), ErrorKind::NotADirectory);
    assert_eq!(fs::metadata(path.join("x")).unwrap_err().kind(), ErrorKind::NotADirectory);
}

fn directories(dir: &Path) {
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

fn symlinks(dir: &Path) {
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

fn hard_links(dir: &Path) {
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

fn special_files(dir: &Path) {
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

fn names(dir: &Path) {
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

fn renames(dir: &Path) {
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

fn directory_renames(dir: &Path) {
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

fn unlinked_but_open(dir: &Path) {
    let path = dir.join("f");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    file.write_all(b"before").unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all(b" after").unwrap();
    file.sync_all().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before after");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.set_len(3).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "another").unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3);
    assert_ne!(file.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
    // One that was replaced stays readable too.
    let old = File::open(&path).unwrap();
    fs::write(dir.join("new"), "newer!").unwrap();
    fs::rename(dir.join("new"), &path).unwrap();
    let mut buffer = [0; 7];
    old.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"another");
}

fn removed_but_open(dir: &Path) {
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

fn holes(dir: &Path) {
    let path = dir.join("sparse");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(&[7; 4096], 32 << 20).unwrap();
    file.sync_all().unwrap();
    let found = python(
        dir,
        "import os\nf = os.open('sparse', os.O_RDONLY)\n\
         d = os.lseek(f, 0, os.SEEK_DATA); h = os.lseek(f, d, os.SEEK_HOLE)\n\
         assert os.lseek(f, 0, os.SEEK_HOLE) == 0\n\
         try: os.lseek(f, h, os.SEEK_DATA); assert False\nexcept OSError as e: assert e.errno == 6, e\n\
         try: os.lseek(f, 64 << 20, os.SEEK_HOLE); assert False\nexcept OSError as e: assert e.errno == 6, e\n\
         print(d, h)",
    );
    let found: Vec<u64> = found.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert!(found[0] <= 32 << 20 && found[1] >= (32 << 20) + 4096, "{found:?}");
    let mut buffer = vec![1; 8192];
    file.read_exact_at(&mut buffer, (32 << 20) - 4096).unwrap();
    assert!(buffer[..4096].iter().all(|byte| *byte == 0) && buffer[4096..].iter().all(|byte| *byte == 7));
    sh(dir, "cp --sparse=always sparse copy && cmp sparse copy");
}

fn fallocated(dir: &Path) {
    use nix::fcntl::{FallocateFlags, fallocate};
    let path = dir.join("f");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    file.write_all_at(&[1; 16384], 0).unwrap();
    let flags = |bits| FallocateFlags::from_bits_truncate(bits);
    let (keep, punch) = (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE);
    fallocate(&file, flags(keep | punch), 4096, 4096).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert!(bytes[4096..8192].iter().all(|byte| *byte == 0));
    assert!(bytes[..4096].iter().chain(&bytes[8192..]).all(|byte| *byte == 1));
    fallocate(&file, flags(0), 0, 20000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 20000);
    fallocate(&file, flags(keep), 0, 40000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 20000);
    let zeroed = fallocate(&file, flags(libc::FALLOC_FL_ZERO_RANGE), 12288, 10000);
    if zeroed.is_ok() {
        assert_eq!(file.metadata().unwrap().len(), 22288);
        assert!(fs::read(&path).unwrap()[12288..].iter().all(|byte| *byte == 0));
    }
    assert!(fallocate(&file, flags(punch), 0, 4096).is_err(), "a hole keeps the size");
}

fn times(dir: &Path) {
    let path = dir.join("f");
    fs::write(&path, "").unwrap();
    let stamp = |text: &str| sh(dir, &format!("touch -d '{text}' f && stat -c '%.9X %.9Y' f"));
    assert_eq!(stamp("2033-05-18T03:33:20.123456789Z").trim(), "2000000000.123456789 2000000000.123456789");
    assert_eq!(stamp("1969-12-31T23:59:58.250000001Z").trim(), "-1.749999999 -1.749999999");
    assert_eq!(stamp("1970-01-01T00:00:00Z").trim(), "0.000000000 0.000000000");
    assert_eq!(stamp("1901-12-14T00:00:00Z").trim(), "-2147472000.000000000 -2147472000.000000000");
    sh(dir, "touch -a -d '2001-01-01T00:00:00.5Z' f; touch -m -d '2002-02-02T00:00:00.25Z' f");
    let now = fs::metadata(&path).unwrap();
    assert_eq!((now.atime(), now.atime_nsec()), (978_307_200, 500_000_000));
    assert_eq!((now.mtime(), now.mtime_nsec()), (1_012_608_000, 250_000_000));
    symlink("f", dir.join("l")).unwrap();
    sh(dir, "touch -h -d '2003-03-03T00:00:00Z' l");
    assert_eq!(fs::symlink_metadata(dir.join("l")).unwrap().mtime(), 1_046_649_600);
    assert_eq!(fs::metadata(&path).unwrap().mtime(), 1_012_608_000, "the link's target is left alone");
}

fn time_moves(dir: &Path) {
    let path = dir.join("f");
    let old = |path: &Path| sh(path.parent().unwrap(), &format!("touch -d 2000-01-01 {}", path.display()));
    let mtime = |path: &Path| fs::metadata(path).unwrap().mtime();
    let long_ago = 1_000_000_000;
    fs::write(&path, "x").unwrap();
    old(&path);
    old(dir);
    assert!(mtime(&path) < long_ago && mtime(dir) < long_ago);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"y").unwrap();
    assert!(mtime(&path) > long_ago && mtime(dir) < long_ago);
    fs::write(dir.join("g"), "").unwrap();
    assert!(mtime(dir) > long_ago);
    old(dir);
    fs::rename(dir.join("g"), dir.join("h")).unwrap();
    assert!(mtime(dir) > long_ago);
    old(dir);
    fs::remove_file(dir.join("h")).unwrap();
    assert!(mtime(dir) > long_ago);
    old(&path);
    let before = fs::metadata(&path).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!(before.mtime(), after.mtime());
    assert!((after.ctime(), after.ctime_nsec()) > (before.ctime(), before.ctime_nsec()));
    nix::unistd::truncate(&path, 0).unwrap();
    assert!(mtime(&path) > long_ago);
}

fn odd_modes(dir: &Path) {
    sh(dir, "umask 0; mkdir -m 0151 d; touch f; chmod 7777 f; mkdir s; chmod 3777 s; mknod -m 0222 p p");
    assert_eq!(mode_of(&dir.join("d")), 0o151);
    assert_eq!(mode_of(&dir.join("f")), 0o7777);
    assert_eq!(mode_of(&dir.join("s")), 0o3777);
    assert_eq!(mode_of(&dir.join("p")), 0o222);
    sh(dir, "umask 027; mkdir u; touch v");
    assert_eq!((mode_of(&dir.join("u")), mode_of(&dir.join("v"))), (0o750, 0o640));
}

fn big_listing(dir: &Path) {
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

fn removing_while_listing(dir: &Path) {
    for number in 0..1500 {
        fs::write(dir.join(format!("file {number}")), "").unwrap();
    }
    for entry in fs::read_dir(dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
}

fn copied_ranges(dir: &Path) {
    let bytes: Vec<u8> = (0..20_000_000u32).map(|number| (number / 7) as u8).collect();
    fs::write(dir.join("from"), &bytes).unwrap();
    let program = "import os\na = os.open('from', os.O_RDONLY); b = os.open('to', os.O_WRONLY | os.O_CREAT)\n\
                   print(os.copy_file_range(a, b, 9000000, 1000, 5))";
    let copied: usize = python(dir, program).trim().parse().unwrap();
    assert!(copied > 0 && copied <= 9_000_000);
    let got = fs::read(dir.join("to")).unwrap();
    assert!(got[..5] == [0; 5] && got[5..] == bytes[1000..1000 + copied]);
    sh(dir, "cp from whole && cmp from whole");
}

fn mapped(dir: &Path) {
    if !has("python3") {
        return;
    }
    fs::write(dir.join("f"), vec![b'.'; 100_000]).unwrap();
    python(
        dir,
        "import mmap\nwith open('f', 'r+b') as f:\n m = mmap.mmap(f.fileno(), 0)\n m[50000:50005] = b'hello'\n\
         \x20m.flush()\n m[99995:] = b'world'\n m.close()",
    );
    let bytes = fs::read(dir.join("f")).unwrap();
    assert!(&bytes[50_000..50_005] == b"hello" && &bytes[99_995..] == b"world" && bytes.len() == 100_000);
    sh(dir, "cp /bin/true program && ./program");
}

fn locks(dir: &Path) {
    if !has("flock") {
        return;
    }
    sh(dir, "touch l; exec 9<l; flock -n 9; ! flock -n l true; flock -u 9; flock -n l true");
    python(
        dir,
        "import fcntl, os\nf = open('p', 'w'); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n\
         if os.fork() == 0:\n try: fcntl.lockf(open('p', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB); os._exit(1)\n\
         \x20except OSError: os._exit(0)\nassert os.wait()[1] == 0",
    );
}

fn large_file(dir: &Path) {
    let mut state = 1u64;
    let mut bytes = Vec::with_capacity(30_000_000);
    while bytes.len() < 30_000_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    fs::write(dir.join("f"), &bytes).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(dir.join("f")).unwrap();
    for at in [0u64, 1, 4095, 262_143, 12_345_678, 29_999_999] {
        file.write_all_at(b"!", at).unwrap();
        bytes[at as usize] = b'!';
    }
    drop(file);
    assert!(fs::read(dir.join("f")).unwrap() == bytes);
    sh(dir, "sync; for i in 1 2 3; do sha256sum f; done | sort -u | wc -l | grep -qx 1");
    assert!(fs::read(dir.join("f")).unwrap() == bytes);
}

fn huge(dir: &Path) {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(dir.join("f")).unwrap();
    let far = 1u64 << 42;
    if file.set_len(far).is_err() {
        return eprintln!("this file system has no files of that size");
    }
    file.write_all_at(b"far", far - 3).unwrap();
    let mut buffer = [0; 3];
    file.read_exact_at(&mut buffer, far - 3).unwrap();
    assert_eq!(&buffer, b"far");
    assert_eq!(file.metadata().unwrap().len(), far);
}
