//! Mounts whose process has died: one's own is replaced, another's is left alone.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::support::{Home, Mount, gone_within, run};
use crate::mount::guard::is_root;

const SOON: Duration = Duration::from_secs(60);

/// A mount that nobody serves, removed with the test.
struct Dead<'a>(&'a Path);

impl<'a> Dead<'a> {
    fn new(path: &'a Path, kind: &str, user: u32) -> Self {
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id={user},group_id=0,allow_other", device.as_raw_fd());
        mount(Some("served"), path, Some(kind), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(&*options)).unwrap();
        drop(device);
        let dead = Dead(path);
        assert_eq!(fs::read_dir(path).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
        dead
    }
}

impl Drop for Dead<'_> {
    fn drop(&mut self) {
        umount2(self.0, MntFlags::MNT_DETACH).ok();
    }
}

fn kind_at(path: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = path.to_str().unwrap();
    let lines = mounts.lines().filter(|line| line.split(' ').nth(4) == Some(place));
    lines.map(|line| line.split(" - ").nth(1).unwrap().split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn a_dead_mount_of_somebody_else_is_left_alone() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let store = home.store("store");
    let path = home.dir("mnt").canonicalize().unwrap();
    for (kind, user) in [("fuse.other", 0), ("fuse.kura", 54_321)] {
        let dead = Dead::new(&path, kind, user);
        let place = path.to_str().unwrap();
        run(home.kura(["mount"]).arg(&store).arg(&path)).fails(1, &[place, "dead"]);
        assert_eq!(kind_at(&path), [kind], "it stays as it is");
        drop(dead);
    }
    // What this user mounted as a workspace goes, whichever it was.
    let dead = Dead::new(&path, "fuse.kura", 0);
    run(home.kura(["mount"]).arg(&store).arg(&path)).ok();
    let mount = Mount::at(&home, &path);
    assert_eq!(kind_at(&path), ["fuse.kura"]);
    fs::write(mount.file("f"), "x").unwrap();
    run(home.kura(["unmount"]).arg(&path)).ok();
    assert!(kind_at(&path).is_empty());
    drop(dead);
}

#[test]
fn programs_in_a_mount_that_died_are_told_and_its_place_is_free_for_the_next() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    fs::create_dir(mount.file("dir")).unwrap();
    let mut held = File::create(mount.file("dir/held")).unwrap();
    let inside = super::support::Running(
        std::process::Command::new("sleep").arg("60").current_dir(mount.file("dir")).spawn().unwrap(),
    );
    let pid = mount.pid();
    mount.kill();
    assert!(gone_within(pid, SOON));
    let not_connected = |outcome: std::io::Result<()>| outcome.unwrap_err().raw_os_error() == Some(libc::ENOTCONN);
    assert!(not_connected(std::io::Write::write_all(&mut held, b"more")));
    assert!(not_connected(held.sync_all()));
    assert!(not_connected(fs::create_dir(mount.file("other"))));
    run(home.kura(["snapshot", "-w"]).arg(&mount.path)).fails(1, &["dead", "kura"]);
    // Still in use by both, and replaced all the same.
    let again = Mount::at_state(&mount.path, &home.path("state"));
    run(home.kura(["mount"]).arg(&store).arg(&mount.path)).ok();
    assert!(again.pid() != pid);
    assert_eq!(fs::read(mount.file("dir/held")).unwrap(), b"");
    assert!(not_connected(std::io::Write::write_all(&mut held, b"more")), "the old handle stays dead");
    drop(inside);
}
