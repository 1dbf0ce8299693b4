//! Names, paths, times, sizes and counts at their limits: through the mount, in a version, and as a
//! fresh client reads that version.

use std::path::Path;

use super::guard::{Mount, Place, python, sh, shell};

/// Everything `find` and `sha256sum` have to say of a tree, as bytes.
fn describe(dir: &Path) -> Vec<u8> {
    let line = "LC_ALL=C; export LC_ALL; \
                { find . -mindepth 1 -type d -printf '%p %m %T@ %n\\0'; \
                  find . ! -type d -printf '%p %y %m %n %s %T@ %l\\0'; \
                  find . -type f -size -2M -execdir sha256sum --zero -- {} \\; ; } | sort -z";
    let output = shell(dir, line);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What was made must be the same in a version, and for a client that knows nothing but the store.
fn assert_kept(place: &Place, mount: Mount) -> Mount {
    let before = describe(mount.path());
    assert!(!before.is_empty());
    let in_version = |mount: &Mount| describe(&mount.at(".kura/versions/latest/"));
    mount.workspace.snapshot(None, None).unwrap();
    assert!(in_version(&mount) == before, "the version differs");
    mount.end();
    place.forget_locally();
    let mount = place.mount();
    assert!(describe(mount.path()) == before, "a fresh client sees something else");
    assert!(in_version(&mount) == before, "the version differs for a fresh client");
    mount
}

#[test]
fn odd_names_and_far_times_are_kept() {
    let place = Place::new();
    let mount = place.mount();
    python(
        mount.path(),
        r#"
import os
names = [b"new\nline", b"\xff\xfe\x80", b" ", b"-rf", b"...", b"\\", b"n" * 255, bytes(range(1, 47)) + bytes(range(48, 256))]
names += [b"e\xcc\x81", b"\xc3\xa9", b"con", b"a:b*?\"<>|", b"\xed\xa0\x80"]
for number, name in enumerate(names):
    with open(name, "wb") as f: f.write(name)
    os.symlink(name, b"link %d" % number)
    os.setxattr(name, "user.name", name); os.setxattr(name, "user.empty", b"")
    os.mkdir(b"in %d" % number); os.link(name, b"in %d/" % number + name)
os.mkdir("empty"); open("empty file", "w").close()
os.symlink(b"x" * 4095, "longest")
second = 10 ** 9
times = [0, -1, 1, -second, -second // 2, 2 ** 31 * second, 2 ** 32 * second + 1, -2 ** 31 * second - 1, 2 ** 63 - 1, -2 ** 63]
for number, time in enumerate(times):
    for make in (lambda p: open(p, "w").close(), os.mkdir, lambda p: os.symlink("x", p)):
        path = "time %d %d" % (number, len(os.listdir(".")))
        make(path); os.utime(path, ns=(time, time), follow_symlinks=False)
        assert os.lstat(path).st_mtime_ns == time, (time, os.lstat(path).st_mtime_ns)
for time, kept in ((10 ** 20, 2 ** 63 - 1), (-10 ** 20, -2 ** 63), ((2 ** 62) * second, 2 ** 63 - 1), (-(2 ** 62) * second, -2 ** 63)):
    os.utime("empty file", ns=(time, time))
    assert os.stat("empty file").st_mtime_ns == kept, os.stat("empty file").st_mtime_ns
"#,
    );
    let mount = assert_kept(&place, mount);
    sh(
        mount.path(),
        "test \"$(find . -xdev -type f | tr -cd '\\n' | wc -c)\" -ge 26; find . -mindepth 1 -delete && ls -A | cmp - /dev/null",
    );
    mount.end();
}

#[test]
fn paths_may_be_deep_and_long() {
    let place = Place::new();
    let mount = place.mount();
    python(
        mount.path(),
        r#"
import os, errno
def below(name, depth):
    at = os.open(".", os.O_RDONLY)
    for level in range(depth):
        os.mkdir(name, dir_fd=at)
        inner = os.open(name, os.O_RDONLY, dir_fd=at); os.close(at); at = inner
    f = os.open("bottom", os.O_WRONLY | os.O_CREAT, dir_fd=at); os.write(f, b"deep"); os.close(f); os.close(at)
below("d", 1000)
# Longer than any path may be: it takes several steps to get there.
below("a name of twenty one", 1000)
whole = "/".join(["p" * 255] * 15 + ["q" * 240])
os.makedirs(whole)
path = whole + "/" + "r" * (4095 - len(whole) - 1)
assert len(path) == 4095
if len(path.rsplit("/", 1)[1]) > 0: open(path, "w").close(); assert os.stat(path).st_size == 0
try: open(path + "r", "w"); assert False
except OSError as e: assert e.errno == errno.ENAMETOOLONG, e
for name in ("n" * 256, "d/" + "n" * 256, "n" * 256 + "/x"):
    for call in (os.stat, os.mkdir, os.unlink, os.listdir, lambda p: os.rename("d", p), lambda p: os.symlink("x", p)):
        try: call(name); assert False
        except OSError as e: assert e.errno == errno.ENAMETOOLONG, (name, e)
try: os.symlink("x" * 4096, "toolong"); assert False
except OSError as e: assert e.errno == errno.ENAMETOOLONG, e
"#,
    );
    let mount = assert_kept(&place, mount);
    sh(mount.path(), "mv d/d 'd/a name of twenty one' && mv 'a name of twenty one' d/moved");
    let mount = assert_kept(&place, mount);
    sh(mount.path(), "rm -rf d ppp* && ls -A | cmp - /dev/null");
    mount.end();
}

#[test]
fn a_file_has_as_many_names_as_there_may_be() {
    let place = Place::new();
    let mount = place.mount();
    python(
        mount.path(),
        r#"
import os, errno
with open("f", "w") as f: f.write("of many names")
os.mkdir("links")
for number in range(64999): os.link("f", "links/%d" % number)
assert os.stat("f").st_nlink == 65000
try: os.link("f", "one too many"); assert False
except OSError as e: assert e.errno == errno.EMLINK, e
"#,
    );
    mount.end();
    place.forget_locally();
    let mount = place.mount();
    let line = "stat -c %h links/64998; cat links/31234; ls links | wc -l; rm links/7; ln f links/7; ! ln f more; rm -r links; \
                stat -c %h f";
    assert_eq!(sh(mount.path(), line), "65000\nof many names64999\n1\n");
    mount.end();
}

#[test]
fn offsets_reach_to_the_end_of_what_can_be_counted() {
    let place = Place::new();
    let mount = place.mount();
    python(
        mount.path(),
        r#"
import os, errno
last = 2 ** 63 - 1
def fails(number, call, *args):
    try: call(*args)
    except OSError as e: assert e.errno == number, (args, e)
    else: assert False, args
f = os.open("f", os.O_RDWR | os.O_CREAT)
# What would end beyond is refused by the kernel, whole.
fails(errno.EINVAL, os.pwrite, f, b"x", last)
fails(errno.EINVAL, os.pwrite, f, b"end", last - 2)
fails(errno.EINVAL, os.pwrite, f, b"x", -1)
fails(errno.EINVAL, os.ftruncate, f, -1)
assert os.fstat(f).st_size == 0
assert os.pwrite(f, b"en", last - 2) == 2
assert os.pwrite(f, b"middle", 2 ** 62) == 6
assert os.fstat(f).st_size == last
assert os.pread(f, 4, last - 4) == b"\0\0en" and os.pread(f, 6, 2 ** 62) == b"middle" and os.pread(f, 0, last) == b""
fails(errno.EINVAL, os.pread, f, 5, last - 4)
assert os.lseek(f, 1, os.SEEK_HOLE) == 1
assert os.lseek(f, 0, os.SEEK_DATA) <= 2 ** 62 and os.lseek(f, 2 ** 62 + 2 ** 30, os.SEEK_DATA) <= last - 2
os.close(f)
g = os.open("g", os.O_RDWR | os.O_CREAT)
os.ftruncate(g, last); assert os.fstat(g).st_size == last
fails(errno.ENXIO, os.lseek, g, 0, os.SEEK_DATA)
fails(errno.EFBIG, os.posix_fallocate, g, last - 1, 10)
os.ftruncate(g, 5); os.posix_fallocate(g, 2 ** 61, 4096); assert os.fstat(g).st_size == 2 ** 61 + 4096
os.copy_file_range(g, g, 100, 0, last - 200)
assert os.fstat(g).st_size == last - 100
os.close(g)
assert os.stat("f").st_blocks < 2 ** 20, os.stat("f").st_blocks
"#,
    );
    let mount = assert_kept(&place, mount);
    let program = "import os; f = os.open('f', os.O_RDONLY); assert os.pread(f, 4, 2 ** 63 - 5) == b'\\0\\0en'; \
                   assert os.pread(f, 8, 2 ** 62 - 1) == b'\\0middle\\0'; os.close(f)";
    python(mount.path(), program);
    python(&mount.at(".kura/versions/latest/"), program);
    sh(mount.path(), "truncate -s 3 f && cp f h && printf '\\0\\0\\0' | cmp - h && rm f g");
    mount.end();
}
