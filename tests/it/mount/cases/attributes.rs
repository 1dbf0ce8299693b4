//! Cases of modes and times.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::mount::guard::sh;

pub(super) fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

pub(super) fn times(dir: &Path) {
    let path = dir.join("f");
    fs::write(&path, "").unwrap();
    let stamp = |text: &str| sh(dir, &format!("touch -d '{text}' f && stat -c '%.9X %.9Y' f"));
    assert_eq!(stamp("2033-05-18T03:33:20.123456789Z").trim(), "2000000000.123456789 2000000000.123456789");
    assert_eq!(stamp("1969-12-31T23:59:58.250000001Z").trim(), "-1.749999999 -1.749999999");
    assert_eq!(stamp("1970-01-01T00:00:00Z").trim(), "0.000000000 0.000000000");
    assert_eq!(stamp("2106-02-07T06:28:16.5Z").trim(), "4294967296.500000000 4294967296.500000000");
    assert_eq!(stamp("2199-12-31T23:59:59.999999999Z").trim(), "7258118399.999999999 7258118399.999999999");
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

pub(super) fn time_moves(dir: &Path) {
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

pub(super) fn odd_modes(dir: &Path) {
    sh(dir, "umask 0; mkdir -m 0151 d; touch f; chmod 7777 f; mkdir s; chmod 3777 s; mknod -m 0222 p p");
    assert_eq!(mode_of(&dir.join("d")), 0o151);
    assert_eq!(mode_of(&dir.join("f")), 0o7777);
    assert_eq!(mode_of(&dir.join("s")), 0o3777);
    assert_eq!(mode_of(&dir.join("p")), 0o222);
    sh(dir, "umask 027; mkdir u; touch v");
    assert_eq!((mode_of(&dir.join("u")), mode_of(&dir.join("v"))), (0o750, 0o640));
}
