//! What POSIX asks of a file system. The same cases run on the machine's own file system first, so
//! that a case that asks for something else is found out.

mod attributes;
mod content;
mod names;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::guard::{Place, python, sh};

type Case = (&'static str, fn(&Path));

const CASES: &[Case] = &[
    ("a file is made, written, read, cut and grown", content::file_round_trip),
    ("appending writes at the end, whoever else wrote", content::appending),
    ("exclusive creation fails when the name is there", content::exclusive),
    ("opening with truncation empties, for readers too", content::truncating_open),
    ("what was opened for reading is not written", content::wrong_direction),
    ("directories nest, and only empty ones go", names::directories),
    ("symbolic links say what they were told", names::symlinks),
    ("hard links share one inode", names::hard_links),
    ("fifos and sockets are kept", names::special_files),
    ("names hold any byte and up to 255 of them", names::names),
    ("rename replaces, refuses and exchanges", names::renames),
    ("rename of directories", names::directory_renames),
    ("a file that was unlinked lives while it is open", content::unlinked_but_open),
    ("a directory that was removed lives while it is open", names::removed_but_open),
    ("holes are found and read as zeros", content::holes),
    ("ranges are punched, zeroed and allocated", content::fallocated),
    ("times keep their nanoseconds, before 1970 too", attributes::times),
    ("times move with what happens", attributes::time_moves),
    ("odd permission bits are kept", attributes::odd_modes),
    ("listing a big directory gives every name once", names::big_listing),
    ("removing while listing misses nothing", names::removing_while_listing),
    ("ranges are copied", content::copied_ranges),
    ("a shared mapping is written back", content::mapped),
    ("locks hold between processes", content::locks),
    ("a program that runs is not destroyed by who fails to empty it", content::busy_program),
    ("nothing of a file can be asked for, too", content::nothing),
    ("a large file is what was written", content::large_file),
    ("a sparse file may be huge", content::huge),
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
fn what_fuse_does_not_pass_on_is_said_to_be_unsupported() {
    let place = Place::new();
    let mount = place.mount();
    python(
        mount.path(),
        r#"
import ctypes, errno, fcntl, os
def fails(number, call, *args):
    try: call(*args)
    except OSError as e: assert e.errno == number, e
    else: assert False, "no error"
fails(errno.EOPNOTSUPP, os.open, ".", os.O_TMPFILE | os.O_RDWR)
f = os.open("f", os.O_RDWR | os.O_CREAT); os.write(f, b"x" * 16384)
c = ctypes.CDLL(None, use_errno=True)
c.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
for mode in (8, 0x20, 0x40):  # collapse, insert, unshare
    assert c.fallocate64(f, mode, 4096, 4096) == -1 and ctypes.get_errno() == errno.EOPNOTSUPP
FICLONE, FS_IOC_GETFLAGS = 0x40049409, 0x80086601
fails(errno.EOPNOTSUPP, fcntl.ioctl, os.open("g", os.O_RDWR | os.O_CREAT), FICLONE, f)
fails(errno.ENOTTY, fcntl.ioctl, f, FS_IOC_GETFLAGS, bytes(8))
assert open("f", "rb").read() == b"x" * 16384
"#,
    );
    mount.end();
}

#[test]
fn extended_attributes_are_kept_and_those_that_cannot_be_are_refused() {
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
for call in (os.setxattr, lambda f, n, v: os.getxattr(f, n), lambda f, n, v: os.removexattr(f, n)):
    fails(errno.EINVAL, call, "f", "user.", b"x")
fails(errno.ERANGE, os.setxattr, "f", "", b"x")
fails(errno.ERANGE, os.setxattr, "f", "user." + "n" * 251, b"x")
os.setxattr("f", "user." + "n" * 250, b"x"); os.removexattr("f", "user." + "n" * 250)
fails(errno.EPERM, os.setxattr, "f", "user.kura.state", b"x")
if os.getuid() == 0:
    os.setxattr("f", "trusted.t", b"t"); assert "trusted.t" in os.listxattr("f")
    os.mkdir("d"); os.setxattr("d", "user.d", b"dir"); assert os.getxattr("d", "user.d") == b"dir"
g = open("f", "w"); g.write("x"); g.flush()
assert os.getxattr("f", "user.kura.state") == b"draft"
g.close()
assert os.getxattr("f", "user.kura.state") in (b"draft", b"closed", b"recorded", b"published")
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
