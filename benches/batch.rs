//! Batches: memory and time over a million files, workers over a slow line, and rclone beside it on S3.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::cpu::client_us;
use super::report::Report;
use super::s3_server::{ACCESS_KEY, Limits, S3Server, SECRET_KEY};

const OBJECTS: usize = 5000;
const OBJECTS_SLOW: usize = 400;
const NAMES_IN_DIR: usize = 1000;

/// Entries in all; fewer for a quick look.
fn entries() -> usize {
    std::env::var("KURA_BENCH_FILES").ok().and_then(|files| files.parse().ok()).unwrap_or(1_000_000)
}

/// A workspace whose keys seal what batches remember.
struct Place {
    dir: tempfile::TempDir,
    key: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kura-bench-batch-").tempdir().unwrap();
        let key = dir.path().join("key");
        fs::write(&key, kura::base::random::bytes::<64>()).unwrap();
        let place = Self { dir, key };
        let made = place.kura(&["init", place.dir.path().join("store").to_str().unwrap()]).status().unwrap();
        assert!(made.success());
        place
    }

    fn kura(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kura"));
        command.args(args).arg("--key-file").arg(&self.key).stdout(Stdio::null());
        command.env("KURA_STATE_DIR", self.dir.path().join("state")).env("HOME", self.dir.path());
        command.env("KURA_CACHE_DIR", self.dir.path().join("cache")).env("KURA_STORE", self.dir.path().join("store"));
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command
    }

    fn job(&self, url: &str, process: &str, workers: usize) -> PathBuf {
        let path = self.dir.path().join("job.toml");
        let text = format!(
            "name = \"bench{workers}\"\n[source]\nurl = \"{url}\"\n[process]\n{process}\n[run]\nworkers = {workers}\n"
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// Runs a command of batches; its largest resident size in MiB, its CPU time in microseconds, its time in seconds.
    fn batch(&self, verb: &str, job: &Path) -> (f64, f64, f64) {
        let (start, before) = (Instant::now(), client_us());
        let mut child = self.kura(&["batch", verb, job.to_str().unwrap()]).spawn().unwrap();
        let mut peak = 0.0;
        while child.try_wait().unwrap().is_none() {
            peak = largest_resident(child.id()).unwrap_or(peak);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(child.wait().unwrap().success());
        (peak, client_us() - before, start.elapsed().as_secs_f64())
    }
}

/// The largest resident size that a process has had, in MiB.
fn largest_resident(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// Figures for batches.
pub fn batch(report: &mut Report) {
    million(report);
    slow_line(report);
}

/// `KURA_BENCH_TREE` names a directory that holds the entries already.
fn tree(place: &Place) -> PathBuf {
    if let Some(tree) = std::env::var_os("KURA_BENCH_TREE") {
        return tree.into();
    }
    let tree = place.dir.path().join("tree");
    for number in 0..entries() {
        let dir = tree.join(format!("d{}", number / NAMES_IN_DIR));
        if number % NAMES_IN_DIR == 0 {
            fs::create_dir_all(&dir).unwrap();
        }
        fs::write(dir.join(format!("f{number}")), "x").unwrap();
    }
    tree
}

fn million(report: &mut Report) {
    let place = Place::new();
    let tree = tree(&place);
    let find = || {
        let before = client_us();
        let found = Command::new("find").arg(&tree).args(["-type", "f", "-printf", "%p %s %T@\n"]).output().unwrap();
        let count = found.stdout.iter().filter(|byte| **byte == b'\n').count() as f64;
        (count, client_us() - before)
    };
    let (count, _) = find();
    let job = place.job(&format!("file://{}", tree.display()), "kind = \"none\"", 4);
    let (peak, cpu, time) = place.batch("run", &job);
    report.note("entries", count, "");
    report.at_most("scanned and processed (no-op): largest resident size", peak, "MiB", 200.0);
    report.note("the same, CPU per entry", cpu / count, "us");
    report.note("the same, time", time, "s");
    let (_, found) = find();
    let (peak, cpu, time) = place.batch("scan", &job);
    report.at_most("re-scan: largest resident size", peak, "MiB", 200.0);
    report.note("find -printf, CPU per entry", found / count, "us");
    report.at_most("re-scan, CPU per entry beyond 3x find -printf", (cpu - 3.0 * found) / count, "us", 5.0);
    report.note("re-scan, CPU per entry", cpu / count, "us");
    report.note("re-scan, time", time, "s");
}

fn fill(server: &S3Server, objects: usize) {
    let bucket = kura::store::Bucket::open(server.config("in")).unwrap();
    let from = tempfile::NamedTempFile::new().unwrap();
    fs::write(from.path(), "some EUR and some more EUR\n".repeat(100)).unwrap();
    let len = fs::metadata(from.path()).unwrap().len();
    std::thread::scope(|threads| {
        for part in 0..8 {
            let (bucket, from) = (&bucket, from.path());
            threads.spawn(move || {
                for number in (part..objects).step_by(8) {
                    bucket.replace(&format!("d{}/f{number}", number % 10), None, from, len).unwrap();
                }
            });
        }
    });
}

const REPLACE: &str = "kind = \"replace\"\nfind = \"EUR\"\nwith = \"euros\"";

fn slow_line(report: &mut Report) {
    let mut before = 0.0;
    for workers in [1, 4, 16, 64] {
        let (server, place) = (S3Server::start(), Place::new());
        let objects = if workers == 1 { OBJECTS_SLOW / 4 } else { OBJECTS_SLOW };
        fill(&server, objects);
        server.set_limits(Some(Limits { latency: Duration::from_millis(20), bytes_per_second: 1 << 30 }));
        let job = place.job(&server.address("in").to_string(), REPLACE, workers);
        let (_, _, time) = place.batch("run", &job);
        let rate = objects as f64 / time;
        report.note(&format!("objects replaced over a 20 ms line, {workers} workers"), rate, "1/s");
        if before > 0.0 {
            report.at_most("the same with fewer workers, as a share of it", before / rate, "x", 1.0);
        }
        before = rate;
    }
}

/// Objects on S3 overwritten by a job, and by rclone through temporary files.
pub fn beside_rclone(report: &mut Report) {
    let has_rclone = Command::new("rclone").arg("version").output().is_ok_and(|said| said.status.success());
    let (server, place) = (S3Server::start(), Place::new());
    fill(&server, OBJECTS);
    let job = place.job(&server.address("in").to_string(), REPLACE, 16);
    let before = server.count_all();
    let (_, cpu, ours) = place.batch("run", &job);
    report.note("5,000 objects overwritten on S3: requests", (server.count_all() - before) as f64, "");
    report.note("CPU per object", cpu / OBJECTS as f64, "us");
    assert!(server.objects().values().all(|content| !content.windows(3).any(|text| text == b"EUR")));
    if !has_rclone {
        return report.note("5,000 objects overwritten on S3 (rclone is not installed)", ours, "s");
    }
    let (server, temporary) = (S3Server::start(), tempfile::tempdir_in("/dev/shm").unwrap());
    fill(&server, OBJECTS);
    let address = server.address("in");
    let remote = format!("r:{}/{}", address.bucket, address.prefix.trim_end_matches('/'));
    let rclone = |from: &str, to: &str| {
        let status = Command::new("rclone")
            .args(["copy", "--fast-list", "--transfers", "16", "--checkers", "16", from, to])
            // Older ones cannot take one up, and this server has no TLS.
            .env_remove("AWS_CA_BUNDLE")
            .env("RCLONE_CONFIG_R_TYPE", "s3")
            .env("RCLONE_CONFIG_R_PROVIDER", "Other")
            .env("RCLONE_CONFIG_R_ENDPOINT", server.endpoint())
            .env("RCLONE_CONFIG_R_ACCESS_KEY_ID", ACCESS_KEY)
            .env("RCLONE_CONFIG_R_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("RCLONE_CONFIG_R_REGION", "us-east-1")
            .env("RCLONE_CONFIG_R_LIST_VERSION", "2")
            .env("RCLONE_CONFIG_R_NO_CHECK_BUCKET", "true")
            .env("HOME", place.dir.path())
            .status()
            .unwrap();
        assert!(status.success());
    };
    let local = temporary.path().to_str().unwrap();
    let (start, before) = (Instant::now(), server.count_all());
    rclone(&remote, local);
    let changed = Command::new("sh")
        .args(["-c", "find . -type f -print0 | xargs -0 sed -i s/EUR/euros/g"])
        .current_dir(local)
        .status()
        .unwrap();
    assert!(changed.success());
    rclone(local, &remote);
    let theirs = start.elapsed().as_secs_f64();
    report.note("rclone's requests", (server.count_all() - before) as f64, "");
    report.ratio("5,000 objects overwritten on S3: kura / rclone", ours, theirs, "s", Some(1.0));
}
