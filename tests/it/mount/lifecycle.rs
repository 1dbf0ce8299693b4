//! Mounting and unmounting.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use kura::fuse::{MountError, MountOptions, Unmounted, mount};

use super::guard::{Place, file_system, file_system_with, is_root, sh, shell};

fn is_mounted(path: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo").unwrap().contains(path.to_str().unwrap())
}

#[test]
fn places_that_are_not_fit_are_refused() {
    let place = Place::new();
    let workspace = place.open(|_| {});
    let try_at = |path: &Path, options: MountOptions| mount(file_system(&workspace, true), path, &options).map(|_| ());
    let missing = place.path().join("missing");
    assert!(matches!(try_at(&missing, MountOptions::default()), Err(MountError::Missing { .. })));
    let file = place.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(try_at(&file, MountOptions::default()), Err(MountError::NotADirectory { .. })));
    let inside = place.store_dir().join("mnt");
    fs::create_dir(&inside).unwrap();
    let beside = MountOptions { not_overlapping: vec![place.store_dir()], ..MountOptions::default() };
    assert!(matches!(try_at(&inside, beside.clone()), Err(MountError::Overlaps { .. })));
    let above = MountOptions { nonempty: true, ..beside };
    assert!(matches!(try_at(place.path(), above), Err(MountError::Overlaps { .. })));
    fs::remove_dir(inside).unwrap();
    fs::write(place.mountpoint().join("there"), "x").unwrap();
    assert!(matches!(try_at(&place.mountpoint(), MountOptions::default()), Err(MountError::NotEmpty { .. })));
    let nonempty = MountOptions { nonempty: true, ..MountOptions::default() };
    try_at(&place.mountpoint(), nonempty).unwrap();
    assert!(place.mountpoint().join("there").exists());
    workspace.close(false).unwrap();
}

#[test]
fn the_mount_shows_as_what_it_is() {
    let place = Place::new();
    let mount = place.mount();
    let list = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = list.lines().find(|line| line.contains(mount.path().to_str().unwrap())).unwrap();
    assert!(line.contains("- fuse.kura kura ") && line.contains("nosuid,nodev"), "{line}");
    assert!(line.contains("default_permissions"), "{line}");
    mount.end();
    assert!(!is_mounted(&place.mountpoint()));
}

#[test]
fn a_mount_in_use_is_detached_and_what_its_users_write_is_kept() {
    let place = Place::new();
    let mount = place.mount();
    let mut held = File::create(mount.at("held")).unwrap();
    held.write_all(b"before ").unwrap();
    assert_eq!(mount.mounted().unmount().unwrap(), Unmounted::Lazy);
    assert!(!is_mounted(&place.mountpoint()));
    held.write_all(b"after").unwrap();
    drop(held);
    mount.mounted().wait().unwrap();
    assert_eq!(mount.mounted().unmount().unwrap(), Unmounted::Already);
    drop(mount);
    let mount = place.mount();
    assert_eq!(fs::read(mount.at("held")).unwrap(), b"before after");
    mount.end();
}

#[test]
fn what_others_unmount_ends_well_and_what_they_mount_there_stays() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let mount = place.mount();
    fs::write(mount.at("f"), "x").unwrap();
    sh(place.path(), "umount mnt && mount -t tmpfs none mnt && echo theirs > mnt/theirs");
    mount.mounted().wait().unwrap();
    drop(mount);
    assert_eq!(fs::read(place.mountpoint().join("theirs")).unwrap(), b"theirs\n");
    sh(place.path(), "umount mnt");
    let mount = place.mount();
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"x");
    sh(place.path(), "mount -t tmpfs none mnt");
    assert!(matches!(mount.mounted().unmount(), Err(MountError::Covered { .. })));
    sh(place.path(), "umount mnt");
    mount.end();
}

#[test]
fn a_dead_mount_of_ours_is_cleared() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let mount = place.mount();
    // The kernel lets the connection go; the mount stays and answers that it is not connected.
    let device = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = device.lines().find(|line| line.contains(mount.path().to_str().unwrap())).unwrap().to_owned();
    let minor = line.split(' ').nth(2).unwrap().split(':').nth(1).unwrap().to_owned();
    let connections = "/sys/fs/fuse/connections";
    sh(place.path(), &format!("mountpoint -q {connections} || mount -t fusectl none {connections}"));
    sh(place.path(), &format!("echo 1 > {connections}/{minor}/abort"));
    let error = fs::metadata(place.mountpoint()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    // A second mount at the same place clears it, while the first is still being waited for.
    let other = Place::new();
    let workspace = other.open(|_| {});
    let second = mount_over(&place, &workspace);
    fs::write(place.mountpoint().join("second"), "x").unwrap();
    mount.mounted().wait().unwrap();
    assert!(place.mountpoint().join("second").exists(), "the end of the first leaves the second alone");
    second.unmount().unwrap();
    second.wait().unwrap();
    drop(second);
    workspace.close(false).unwrap();
    drop(mount);
    assert!(!is_mounted(&place.mountpoint()));
}

fn mount_over(place: &Place, workspace: &std::sync::Arc<kura::workspace::Workspace>) -> kura::fuse::Mounted {
    mount(file_system(workspace, true), &place.mountpoint(), &MountOptions::default()).unwrap()
}

#[test]
fn a_control_that_panics_or_takes_too_long_harms_nobody_else() {
    use std::time::Duration;

    use kura::control::Dispatcher;
    let place = Place::new();
    let workspace = place.open(|_| {});
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let control = Dispatcher::new(workspace.clone(), move || {
        assert!(asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0, "the first to ask meets a panic");
        std::thread::sleep(Duration::from_secs(8));
    });
    let fs_of = file_system_with(&workspace, true, control.unwrap());
    // Control requests get ten times this.
    let options = MountOptions { deadline: Duration::from_millis(500), ..MountOptions::default() };
    let mounted = mount(fs_of, &place.mountpoint(), &options).unwrap();
    let open = || {
        let path = place.mountpoint().join(".kura/ctl/run");
        fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
    };
    let panicked = open().write_all(b"{\"op\": \"stop\"}").unwrap_err();
    assert_eq!(panicked.raw_os_error(), Some(libc::EIO));
    let late = open().write_all(b"{\"op\": \"stop\"}").unwrap_err();
    assert_eq!(late.raw_os_error(), Some(libc::ETIMEDOUT));
    fs::write(place.mountpoint().join("f"), "alive").unwrap();
    let mut text = String::new();
    File::open(place.mountpoint().join("f")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "alive");
    drop(mounted);
    workspace.close(false).unwrap();
    assert!(shell(place.path(), "! mountpoint -q mnt").status.success());
}

#[test]
fn the_time_that_the_library_cannot_hold_does_not_end_the_mount() {
    let place = Place::new();
    let mount = place.mount();
    fs::write(mount.at("f"), "x").unwrap();
    for _ in 0..3 {
        shell(
            mount.path(),
            "exec python3 -c 'import os
for seconds in (-2**63, -2**63 + 1, 2**63 - 1, -2**40):
    try: os.utime(\"f\", ns=(seconds * 10**9 + 5, seconds * 10**9 + 5))
    except OSError as error: print(error)'",
        );
    }
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"x");
    mount.end();
}
