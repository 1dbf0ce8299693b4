//! Listings that take their time.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use kura::worktree::Limits;
use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::guard::{Mount, Place, sh};

const STABLE: usize = 4000;

fn stable_name(number: usize) -> String {
    format!("stays in its place all the time, number {number}")
}

/// A mount that keeps next to no inodes in memory, with a directory of names that stay.
fn with_a_directory(place: &Place) -> Mount {
    let little = Limits { inodes_max: 50, ..Limits::default() };
    let mount = place.mount_with(|options| options.limits = little, Default::default(), false);
    fs::create_dir(mount.at("d")).unwrap();
    fs::create_dir(mount.at("other")).unwrap();
    for number in 0..STABLE {
        // Not in the order of the names.
        fs::write(mount.at("d").join(stable_name(number * 1237 % STABLE)), "").unwrap();
    }
    for number in 0..100 {
        fs::write(mount.at(&format!("other/{number}")), "").unwrap();
    }
    mount
}

/// Records a version, which makes directories clean, and uses others until `d` is dropped.
fn evict(mount: &Mount) {
    mount.workspace.snapshot(None, None).unwrap();
    fs::remove_file(mount.at("other/0")).unwrap();
    fs::write(mount.at("other/0"), "").unwrap();
    mount.workspace.snapshot(None, None).unwrap();
    assert_eq!(fs::read_dir(mount.at("other")).unwrap().count(), 100);
}

fn assert_each_once(seen: &BTreeMap<String, usize>) {
    for number in 0..STABLE {
        assert_eq!(seen.get(&stable_name(number)), Some(&1), "{number}");
    }
}

#[test]
fn a_listing_gives_every_name_that_stays_once_though_others_come_and_go_and_memory_is_scarce() {
    let place = Place::new();
    let mount = with_a_directory(&place);
    evict(&mount);
    let mut listing = Dir::open(&mount.at("d"), OFlag::O_RDONLY, Mode::empty()).unwrap();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (count, entry) in listing.iter().enumerate() {
        *seen.entry(entry.unwrap().file_name().to_str().unwrap().to_owned()).or_default() += 1;
        if count % 500 == 499 {
            // Names before and after all others; some of them stay, some go again.
            for name in ["!first", "~last", "m", "stays"] {
                fs::write(mount.at("d").join(format!("{name} {count}")), "").unwrap();
            }
            if count > 500 {
                fs::remove_file(mount.at("d").join(format!("!first {}", count - 500))).unwrap();
            }
            evict(&mount);
        }
    }
    assert_each_once(&seen);
    drop(listing);
    mount.end();
}

#[test]
fn a_listing_goes_on_where_it_was_told_to_though_its_directory_was_dropped() {
    let place = Place::new();
    let mount = with_a_directory(&place);
    // Positions from telldir, of a listing that has ended, stay right.
    let program = "import ctypes, os, sys\n\
        c = ctypes.CDLL(None, use_errno=True)\n\
        class D(ctypes.Structure): _fields_ = [('ino', ctypes.c_uint64), ('off', ctypes.c_int64), \
        ('len', ctypes.c_ushort), ('type', ctypes.c_ubyte), ('name', ctypes.c_char * 256)]\n\
        c.opendir.restype = ctypes.c_void_p; c.readdir.restype = ctypes.POINTER(D)\n\
        c.telldir.restype = ctypes.c_long; c.telldir.argtypes = c.readdir.argtypes = [ctypes.c_void_p]\n\
        c.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]\n\
        d = c.opendir(b'd'); told = []\n\
        while True:\n at = c.telldir(d); e = c.readdir(d)\n if not e: break\n told.append((at, e.contents.name))\n\
        print(len(told), flush=True); sys.stdin.readline()\n\
        for at, name in told[::97] + told[::-1][::89]:\n c.seekdir(d, at); assert c.readdir(d).contents.name == name, name\n\
        print('as it was')";
    let mut child = std::process::Command::new("python3")
        .args(["-c", program])
        .current_dir(mount.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), (STABLE + 2).to_string());
    sh(mount.path(), "touch 'd/!before all' 'd/m' 'd/~after all'");
    evict(&mount);
    sh(mount.path(), "rm 'd/m'");
    evict(&mount);
    drop(child.stdin.take());
    let told = lines.next();
    assert!(child.wait().unwrap().success());
    assert_eq!(told.unwrap().unwrap(), "as it was");
    mount.end();
}

#[test]
fn many_list_while_others_change_the_directory_and_it_is_dropped() {
    let place = Place::new();
    let mount = with_a_directory(&place);
    let (mount, done) = (&mount, &AtomicBool::new(false));
    let change = |round: usize| {
        for who in ["!a", "n", "~z"] {
            let (one, two) = (mount.at(&format!("d/{who} {round}")), mount.at(&format!("d/{who} renamed {round}")));
            fs::write(&one, "").unwrap();
            fs::rename(&one, &two).unwrap();
            if !round.is_multiple_of(3) {
                fs::remove_file(&two).unwrap();
            }
        }
        evict(mount);
    };
    thread::scope(|scope| {
        scope.spawn(move || (0..).take_while(|_| !done.load(Ordering::Relaxed)).for_each(change));
        let listers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..6 {
                        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
                        for (count, entry) in fs::read_dir(mount.at("d")).unwrap().enumerate() {
                            if count % 50 == 0 {
                                thread::sleep(Duration::from_millis(2));
                            }
                            *seen.entry(entry.unwrap().file_name().into_string().unwrap()).or_default() += 1;
                        }
                        assert_each_once(&seen);
                    }
                })
            })
            .collect();
        let listed: Vec<_> = listers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        listed.into_iter().for_each(|listed| listed.unwrap());
    });
}
