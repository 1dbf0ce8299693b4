//! Cases of what is in files.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::mount::guard::{python, sh};

pub(super) fn file_round_trip(dir: &Path) {
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

pub(super) fn appending(dir: &Path) {
    let path = dir.join("log");
    let mut one = OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let mut two = OpenOptions::new().append(true).open(&path).unwrap();
    for round in 0..20 {
        writeln!(one, "one {round}").unwrap();
        writeln!(two, "two {round}").unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 40);
}

pub(super) fn exclusive(dir: &Path) {
    let path = dir.join("f");
    File::create_new(&path).unwrap();
    assert_eq!(File::create_new(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::create_dir(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(symlink("x", &path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::hard_link(&path, &path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(mkfifo(&path, Mode::S_IRWXU).unwrap_err(), nix::errno::Errno::EEXIST);
}

pub(super) fn truncating_open(dir: &Path) {
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

pub(super) fn wrong_direction(dir: &Path) {
    let path = dir.join("f");
    fs::write(&path, "x").unwrap();
    assert!(File::open(&path).unwrap().write_all(b"y").is_err());
    assert!(OpenOptions::new().write(true).open(&path).unwrap().read(&mut [0; 1]).is_err());
    assert!(OpenOptions::new().write(true).open(dir).is_err(), "a directory is not written");
    assert_eq!(fs::read(dir).unwrap_err().kind(), ErrorKind::IsADirectory);
    assert_eq!(fs::read_dir(&path).unwrap_err().kind(), ErrorKind::NotADirectory);
    assert_eq!(fs::metadata(path.join("x")).unwrap_err().kind(), ErrorKind::NotADirectory);
}

pub(super) fn unlinked_but_open(dir: &Path) {
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

pub(super) fn holes(dir: &Path) {
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

pub(super) fn fallocated(dir: &Path) {
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

pub(super) fn copied_ranges(dir: &Path) {
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

pub(super) fn mapped(dir: &Path) {
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

pub(super) fn locks(dir: &Path) {
    sh(dir, "touch l; exec 9<l; flock -n 9; ! flock -n l true; flock -u 9; flock -n l true");
    python(
        dir,
        "import fcntl, os\nf = open('p', 'w'); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n\
         if os.fork() == 0:\n try: fcntl.lockf(open('p', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB); os._exit(1)\n\
         \x20except OSError: os._exit(0)\nassert os.wait()[1] == 0",
    );
}

pub(super) fn large_file(dir: &Path) {
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

pub(super) fn huge(dir: &Path) {
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

pub(super) fn busy_program(dir: &Path) {
    let program = dir.join("program");
    fs::copy("/bin/sleep", &program).unwrap();
    let mut running = std::process::Command::new(&program).arg("60").spawn().unwrap();
    let cutting = OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(&program);
    let writing = OpenOptions::new().write(true).open(&program);
    let whole = fs::read(&program).unwrap() == fs::read("/bin/sleep").unwrap();
    running.kill().unwrap();
    running.wait().unwrap();
    for opened in [cutting, writing] {
        assert_eq!(opened.unwrap_err().raw_os_error(), Some(libc::ETXTBSY));
    }
    assert!(whole, "the program is as it was");
}

pub(super) fn nothing(dir: &Path) {
    let path = dir.join("f");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    assert_eq!(file.write_at(b"", 0).unwrap(), 0);
    assert_eq!(file.write_at(b"", 1 << 40).unwrap(), 0);
    assert_eq!(file.metadata().unwrap().len(), 0, "writing nothing far away makes no file longer");
    file.set_len(0).unwrap();
    assert_eq!(file.read_at(&mut [], 0).unwrap(), 0);
    assert_eq!(fs::read(&path).unwrap(), b"");
    let allocated = nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, 0);
    assert_eq!(allocated.unwrap_err(), nix::errno::Errno::EINVAL);
    assert_eq!(symlink("", dir.join("link")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::rename(&path, "").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(File::open("").unwrap_err().kind(), ErrorKind::NotFound);
    fs::write(dir.join("g"), "").unwrap();
    sh(dir, "cp f h; cmp f h; cat f g h | cmp - f; mkdir d; cp -r d e; ls -A e | cmp - f");
}
