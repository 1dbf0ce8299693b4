//! Several processes on one workspace, each with a state of its own, as on several machines: on an S3 server in this
//! process, or on the one that `KURA_TEST_S3` names (`s3://BUCKET/PREFIX?endpoint=…`, with credentials in the
//! environment, and nothing below the prefix), where they write for a minute.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::support::{Home, Mount, run, tree, wait_for};
use crate::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};

const SOON: Duration = Duration::from_secs(300);
const MACHINES: usize = 4;

/// What all machines share.
struct Bucket {
    home: Home,
    url: String,
    /// The server in this process, when it is that.
    server: Option<S3Server>,
}

impl Bucket {
    fn new() -> Self {
        let home = Home::new();
        match std::env::var("KURA_TEST_S3") {
            Ok(url) => Self { home, url, server: None },
            Err(_) => {
                let server = S3Server::start();
                let url = format!("s3://{BUCKET}/work?endpoint={}&region=us-east-1", server.endpoint());
                Self { home, url, server: Some(server) }
            }
        }
    }

    fn kura(&self, machine: usize, args: &[&str]) -> Command {
        let mut command = self.home.kura(args);
        command.env("KURA_STORE", &self.url);
        match self.server {
            Some(_) => command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            None => command.envs(std::env::vars().filter(|(name, _)| name.starts_with("AWS_"))),
        };
        command.env("KURA_STATE_DIR", self.state(machine)).env("KURA_CONFIG", self.home.path("config"));
        command.env("KURA_CACHE_DIR", self.home.path(&format!("cache-{machine}")));
        command
    }

    fn state(&self, machine: usize) -> PathBuf {
        self.home.path(&format!("state-{machine}"))
    }

    fn mount(&self, machine: usize) -> Mount {
        let dir = self.home.dir(&format!("mnt-{machine}"));
        let mount = Mount::at_state(&dir, &self.state(machine));
        run(self.kura(machine, &["mount"]).arg(&mount.path)).ok();
        mount
    }
}

/// Writes files of its own and files that all write; what it wrote last into each of those.
fn work(mount: &Mount, machine: usize, rounds: usize) -> BTreeSet<Vec<u8>> {
    let mut last = [(); 3].map(|()| Vec::new());
    let own = mount.file(&format!("of-{machine}"));
    fs::create_dir(&own).unwrap();
    for round in 0..rounds {
        fs::write(own.join(format!("f{round}")), format!("{machine} wrote {round}")).unwrap();
        let content = format!("{machine} shared {round}\n").into_bytes();
        fs::write(mount.file(&format!("shared-{}", round % 3)), &content).unwrap();
        last[round % 3] = content;
        std::thread::sleep(Duration::from_millis(100));
    }
    last.into_iter().collect()
}

#[test]
fn several_processes_on_one_bucket_lose_nothing_and_end_alike() {
    let rounds = if std::env::var_os("KURA_TEST_LONG").is_some() { 600 } else { 15 };
    let bucket = Bucket::new();
    let rounds = if bucket.server.is_none() { 600 } else { rounds };
    let start = std::time::Instant::now();
    fs::write(bucket.home.path("config"), "poll = \"1s\"\nversion_quiet = \"200ms\"\nversion_max = \"1s\"\n").unwrap();
    run(&mut bucket.kura(0, &["init", "--kdf-memory-mib", "8"])).ok();
    let mounts: Vec<Mount> = (0..MACHINES).map(|machine| bucket.mount(machine)).collect();
    let last: Vec<BTreeSet<Vec<u8>>> = std::thread::scope(|scope| {
        let start = |(machine, mount)| scope.spawn(move || work(mount, machine, rounds));
        let workers: Vec<_> = mounts.iter().enumerate().map(start).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let agree = || {
        for (machine, mount) in mounts.iter().enumerate() {
            run(bucket.kura(machine, &["flush", "--wait=60s", "-w"]).arg(&mount.path)).ok();
            // Others may be faster, again and again; then the next round does it.
            run(bucket.kura(machine, &["sync", "-w"]).arg(&mount.path));
        }
        let newest = |mount: &Mount| fs::read_link(mount.file(".kura/versions/latest")).unwrap();
        mounts.iter().all(|mount| newest(mount) == newest(&mounts[0]))
    };
    let written = start.elapsed();
    assert!(wait_for(SOON, agree), "they do not come to rest");
    let published = fs::read_dir(mounts[0].file(".kura/versions/by-id")).unwrap().count();
    println!(
        "{MACHINES} processes wrote {} files in {:.1} s, {published} versions; at rest after {:.1} s: {:.1} versions a second",
        MACHINES * rounds * 2,
        written.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        published as f64 / start.elapsed().as_secs_f64()
    );
    assert!(published > MACHINES, "HEAD moves though it is contended");
    let state = tree(&mounts[0].path);
    for mount in &mounts {
        assert_eq!(tree(&mount.path), state, "{}", mount.path.display());
    }
    for machine in 0..MACHINES {
        for round in 0..rounds {
            let (path, content) = (format!("of-{machine}/f{round}"), format!("{machine} wrote {round}").into_bytes());
            assert!(state.contains(&(path, content)), "{machine} wrote {round}");
        }
    }
    let kept: BTreeSet<Vec<u8>> = state.into_iter().map(|(_, content)| content).collect();
    let mut missing: BTreeSet<&Vec<u8>> = last.iter().flatten().filter(|content| !kept.contains(*content)).collect();
    let mut versions = fs::read_dir(mounts[0].file(".kura/versions/by-id")).unwrap();
    while !missing.is_empty() {
        let Some(version) = versions.next() else { break };
        let names = fs::read_dir(version.unwrap().path()).unwrap().map(|name| name.unwrap().path());
        for name in names.filter(|name| name.is_file()) {
            missing.remove(&fs::read(name).unwrap());
        }
    }
    let missing: Vec<_> = missing.iter().map(|content| String::from_utf8_lossy(content)).collect();
    assert!(missing.is_empty(), "{missing:?} are nowhere");
    drop(versions);
    for (machine, mount) in mounts.iter().enumerate() {
        run(bucket.kura(machine, &["unmount"]).arg(&mount.path)).ok();
    }
}

#[test]
fn the_desktop_is_told_of_a_conflict_once_and_without_names() {
    let home = Home::new();
    let store = home.store("store");
    let (bin, told) = (home.dir("bin"), home.path("told"));
    fs::write(bin.join("notify-send"), format!("#!/bin/sh\necho \"$*\" >> '{}'\n", told.display())).unwrap();
    fs::set_permissions(bin.join("notify-send"), fs::Permissions::from_mode(0o755)).unwrap();
    let mount = Mount::at(&home, &home.dir("mnt"));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = home.kura(["mount"]);
    command.arg(&store).arg(&mount.path).env("PATH", path);
    command.env("DISPLAY", ":7").env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent");
    run(&mut command).ok();
    // While it is open it stays ours, so that it does not matter when theirs comes in.
    let mut ours = fs::File::create(mount.file("secret-name")).unwrap();
    ours.write_all(b"ours").unwrap();
    let source = home.dir("source");
    fs::write(source.join("secret-name"), "theirs").unwrap();
    let mut other = home.kura(["import"]);
    other.arg(&source).arg("-w").arg(&store).env("KURA_STATE_DIR", home.path("other"));
    run(&mut other).ok();
    drop(ours);
    run(home.kura(["flush", "--wait=60s", "-w"]).arg(&mount.path)).ok();
    let lines = || fs::read_to_string(&told).unwrap_or_default();
    assert!(wait_for(SOON, || lines().contains('\n')), "nobody was told");
    run(home.kura(["sync", "-w"]).arg(&mount.path)).ok();
    run(home.kura(["unmount"]).arg(&mount.path)).ok();
    let lines = lines();
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains("kura conflicts") && !lines.contains("secret-name"), "{lines}");
}
