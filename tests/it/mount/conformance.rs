//! Suites that others wrote: pjdfstest asks for every error number, fsx for every byte.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use kura::fuse::MountOptions;
use kura::workspace::OpenOptions;

use super::guard::{Mount, Place, is_long, is_root, sh};

/// Crates that bring the suites, with the versions whose cases are known.
const CRATES: [&str; 2] = ["pjdfstest@0.2.2", "fsx@0.3.2"];
/// Cases of this version of pjdfstest.
const CASES: usize = 398;
/// What stands beside this file.
const LISTED: &str = include_str!("pjdfstest.txt");

/// A suite's program, installed at its first use; that it cannot be had is a failure.
fn tool(name: &str) -> PathBuf {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(install).join(name)
}

fn install() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["install", "--quiet", "--locked", "--root"]).arg(&root);
    command.arg("--target-dir").arg(root.join("build")).args(CRATES);
    assert!(command.stdin(Stdio::null()).status().unwrap().success(), "{CRATES:?} cannot be installed");
    root.join("bin")
}

/// The cases of pjdfstest that match, and how each ended: `ok`, `failed` or `skipped`.
fn pjdfstest(place: &Place, mount: &Mount, patterns: &[&str]) -> (BTreeSet<(String, String)>, String) {
    let (second, wrap) = (place.path().join("second"), place.path().join("wrap"));
    let config = place.path().join("pjdfstest.toml");
    let remounts = if patterns.is_empty() { "false" } else { "true" };
    let text = format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nutime_now = {{}}\nutimensat = {{}}\n\
         [settings]\nnaptime = 0.01\nallow_remount = {remounts}\n\
         [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]\n"
    );
    fs::write(&config, text).unwrap();
    for dir in [&second, &wrap] {
        fs::create_dir_all(dir).unwrap();
    }
    // Remounting is the kernel's affair; the helper that mount(8) looks for mounts anew.
    fs::write(wrap.join("mount"), "#!/bin/sh\nexec /usr/bin/mount -i \"$@\"\n").unwrap();
    fs::set_permissions(wrap.join("mount"), Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", wrap.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(tool("pjdfstest"));
    command.arg("-c").arg(&config).arg("-s").arg(&second).arg("-p").arg(mount.path()).args(patterns);
    let output = command.env("PATH", path).env("RUST_BACKTRACE", "0").stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let ended = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [name, end @ ("ok" | "FAILED" | "skipped")] => Some((end.to_lowercase(), name.to_owned())),
        _ => None,
    };
    (text.lines().filter_map(ended).collect(), text)
}

#[test]
fn every_case_of_pjdfstest_passes_but_those_that_are_listed() {
    all_cases_pass(|_| {});
}

#[test]
fn every_case_of_pjdfstest_passes_while_inodes_leave_memory_all_the_time() {
    all_cases_pass(|options| {
        (options.intervals.version_quiet_ms, options.intervals.version_max_ms) = (5, 20);
        options.limits.inodes_max = 1;
    });
}

fn all_cases_pass(change: impl Fn(&mut OpenOptions)) {
    if !is_root() {
        return;
    }
    let place = Place::new();
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
    let for_all = MountOptions { allow_other: true, ..MountOptions::default() };
    let mount = place.mount_with(change, for_all, true);
    // The cases leave files open, so those that remount run by themselves.
    let (mut all, mut text) = pjdfstest(&place, &mount, &[]);
    all.retain(|(_, name)| !name.contains("::erofs"));
    let (remounting, more) = pjdfstest(&place, &mount, &["::erofs"]);
    all.extend(remounting);
    text += &more;
    assert_eq!(all.len(), CASES, "{text}");
    let not_ok = all.into_iter().filter(|(end, _)| end != "ok").collect::<BTreeSet<_>>();
    let lines = LISTED.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let listed = lines.map(|line| line.split_once(' ').unwrap()).map(|(end, name)| (end.into(), name.into()));
    assert_eq!(not_ok, listed.collect::<BTreeSet<(String, String)>>(), "{text}");
    mount.end();
}

/// What fsx does, and how often. Files of the small kind are one chunk, those of the large kind many.
/// Allocating no bytes at all is an error, which fsx takes for the end of the world.
fn fsx_config(large: bool) -> String {
    let (file, operation) = if large { (12 << 20, 400_000) } else { (256 << 10, 65_536) };
    let weights = "close_open = 1\ninvalidate = 1\nmapread = 10\nmapwrite = 10\nread = 10\nwrite = 10\n\
                   truncate = 10\nfsync = 0.2\nfdatasync = 0.2\nposix_fallocate = 10\npunch_hole = 10\n\
                   sendfile = 5\nposix_fadvise = 2\ncopy_file_range = 5\n";
    format!("flen = {file}\n[opsize]\nmin = 1\nmax = {operation}\n[weights]\n{weights}")
}

/// Runs fsx on one file for each seed, all at once.
fn fsx(place: &Place, mount: &Mount, seeds: &[u64], operations: u64) {
    let running = seeds.iter().map(|seed| {
        let config = place.path().join(format!("fsx-{seed}.toml"));
        fs::write(&config, fsx_config(seed % 3 == 0)).unwrap();
        let mut command = Command::new(tool("fsx"));
        command.arg("-f").arg(&config).args(["-N", &operations.to_string(), "-S", &seed.to_string(), "-P"]);
        command.arg(place.path()).arg(mount.at(&format!("file-{seed}"))).stdin(Stdio::null());
        (*seed, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    });
    for (seed, child) in running.collect::<Vec<_>>() {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        // It tells of the last thousand operations.
        let last: Vec<&str> = text.lines().rev().take(80).collect();
        let told = last.into_iter().rev().collect::<Vec<_>>().join("\n");
        assert!(output.status.success() && text.contains("A-OK"), "seed {seed}\n{told}");
    }
}

#[test]
fn files_hold_what_fsx_did_to_them_also_after_mounting_again() {
    // A version is recorded all the time, and drafts are staged early.
    let often = |options: &mut OpenOptions| {
        (options.intervals.version_quiet_ms, options.intervals.version_max_ms) = (50, 300);
        (options.intervals.log_ms, options.limits.dirty_bytes_max) = (50, 2 << 20);
    };
    let (rounds, operations) = if is_long() { (10, 25_000) } else { (2, 4_000) };
    let place = Place::new();
    let mut mount = place.mount_with(often, Default::default(), true);
    for round in 0..rounds {
        let seeds = [1, 2, 3, 4].map(|number| round * 4 + number);
        fsx(&place, &mount, &seeds, operations);
        let sums = |mount: &Mount| sh(mount.path(), "sha256sum file-* && stat -c '%n %s' file-*");
        let before = sums(&mount);
        mount.end();
        mount = place.mount_with(often, Default::default(), true);
        assert_eq!(sums(&mount), before, "round {round}");
    }
    mount.end();
}
