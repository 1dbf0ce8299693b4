//! S3 over a line with 20 ms a request and 50 MiB/s, and the number of requests.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kura::store::StoreUrl;

use super::report::Report;
use super::s3_server::{ACCESS_KEY, Limits, S3Server, SECRET_KEY};
use super::target::{Target, noise, source_tree};

const FILES: usize = 1500;

fn credentials() -> [(&'static str, String); 2] {
    [("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned())]
}

fn slow() -> Limits {
    Limits { latency: Duration::from_millis(20), bytes_per_second: 50 * 1024 * 1024 }
}

/// A tree written on one machine and read on a new one.
pub fn slow_store(report: &mut Report) {
    let server = S3Server::start();
    let root = tempfile::tempdir().unwrap();
    let (first, second, tree) = (root.path().join("first"), root.path().join("second"), root.path().join("tree"));
    [&first, &second].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
    source_tree(&tree, FILES);
    let store = StoreUrl::S3(server.address("bench")).to_string();
    let native = copy_tree(&tree, &root.path().join("native"));
    server.set_limits(Some(slow()));
    let mut writer = Target::kura(&first, &store, true, &credentials());
    let before = server.count_all();
    let start = Instant::now();
    let returned = copy_tree(&tree, &writer.dir.join("tree"));
    flush(&writer, &first);
    report.ratio("writing 1,500 files over 20 ms S3 returns: kura / native", returned, native, "s", None);
    report.at_most("published after", start.elapsed().as_secs_f64(), "s", 5.0);
    report.note("requests for it", (server.count_all() - before) as f64, "");
    writer.unmount();
    let mut reader = Target::kura(&second, &store, false, &credentials());
    let before = server.count_all();
    let start = Instant::now();
    let status = Command::new("grep")
        .args(["-rc", "no such word anywhere"])
        .arg(&reader.dir)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1), "grep read everything and found nothing");
    report.at_most("a new machine reads all 1,500 files (grep -r)", start.elapsed().as_secs_f64(), "s", 3.0);
    report.note("requests for it", (server.count_all() - before) as f64, "");
    reader.unmount();
    drop(server);
}

/// How long a small change takes to another mount once it is published, beyond the time between two looks at HEAD.
pub fn propagation(report: &mut Report) {
    const ROUNDS: usize = 10;
    const POLL_S: f64 = 1.0;
    let server = S3Server::start();
    let root = tempfile::tempdir().unwrap();
    let (first, second, config) = (root.path().join("first"), root.path().join("second"), root.path().join("config"));
    [&first, &second].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
    fs::write(&config, format!("poll = {POLL_S}s\n")).unwrap();
    let store = StoreUrl::S3(server.address("bench")).to_string();
    let configured = ("KURA_CONFIG", config.to_str().unwrap().to_owned());
    let environment: Vec<_> = credentials().into_iter().chain([configured]).collect();
    let mut writer = Target::kura(&first, &store, true, &environment);
    let mut reader = Target::kura(&second, &store, false, &environment);
    let mut worst: f64 = 0.0;
    for round in 0..ROUNDS {
        let content = format!("round {round}");
        fs::write(writer.dir.join("f"), &content).unwrap();
        flush(&writer, &first);
        let published = Instant::now();
        while fs::read_to_string(reader.dir.join("f")).ok().as_ref() != Some(&content) {
            assert!(published.elapsed() < Duration::from_secs(120), "the other mount never shows it");
            std::thread::sleep(Duration::from_millis(5));
        }
        worst = worst.max(published.elapsed().as_secs_f64());
    }
    report.at_most("a published change is seen elsewhere, worst of 10, beyond a poll of 1 s", worst - POLL_S, "s", 2.0);
    writer.unmount();
    reader.unmount();
}

fn copy_tree(from: &Path, to: &Path) -> f64 {
    let start = Instant::now();
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
    start.elapsed().as_secs_f64()
}

fn flush(target: &Target, root: &Path) {
    let flushed = Command::new(env!("CARGO_BIN_EXE_kura"))
        .arg("-w")
        .arg(&target.dir)
        .args(["flush", "--wait"])
        .env("KURA_STATE_DIR", root.join("state"))
        .env("KURA_CACHE_DIR", root.join("cache"))
        .env("HOME", root)
        .status()
        .unwrap();
    assert!(flushed.success(), "kura flush --wait");
}

/// 10,000 files of 4 KiB.
pub fn import_requests(report: &mut Report) {
    const IMPORTED: usize = 10_000;
    let server = S3Server::start();
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("source");
    for index in 0..IMPORTED {
        let folder = source.join(format!("d{}", index / 100));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("f{index}")), noise(4096, index as u64 + 1)).unwrap();
    }
    let store = StoreUrl::S3(server.address("import")).to_string();
    let kura = |arguments: &[&str]| {
        let status = Command::new(env!("CARGO_BIN_EXE_kura"))
            .args(["-w", &store])
            .args(arguments)
            .env("KURA_PASSPHRASE", "benchmark")
            .env("KURA_STATE_DIR", root.path().join("state"))
            .env("KURA_CACHE_DIR", root.path().join("cache"))
            .env("HOME", root.path())
            .envs(credentials())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "kura {arguments:?}");
    };
    let status = Command::new(env!("CARGO_BIN_EXE_kura"))
        .args(["init", &store, "--kdf-memory-mib", "8"])
        .env("KURA_PASSPHRASE", "benchmark")
        .env("HOME", root.path())
        .env("KURA_STATE_DIR", root.path().join("state"))
        .envs(credentials())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "kura init");
    let before = server.count_all();
    let start = Instant::now();
    kura(&["import", source.to_str().unwrap()]);
    report.at_most("importing 10,000 files of 4 KiB to S3", (server.count_all() - before) as f64, "requests", 100.0);
    report.note("it took", start.elapsed().as_secs_f64(), "s");
}
