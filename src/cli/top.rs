//! `kura top`: what is asked of a mount, live, from its log of requests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::Context;
use super::config::parse_duration_ms;
use super::door::{Target, mount_failure};
use crate::control::{Exit, Failure};

/// Show live what is asked of a mount: by kind, by process, by file
///
/// Reads `.kura/access-log`, which costs nothing while nobody reads it. Paths are shown when the workspace was mounted
/// with `-o access_log=paths`, inode numbers otherwise.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura top
  kura top --every 5s --times 1     five seconds, once
  kura top --json | jq .operations")]
pub struct TopArgs {
    /// Show what happened in so long (500ms, 2s)
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration_ms)]
    every: u64,
    /// Show it so often, then end
    #[arg(short = 'n', long, value_name = "COUNT")]
    times: Option<u64>,
}

/// Shown of processes and of files.
const SHOWN_MAX: usize = 8;
/// Told apart within one interval; what is beyond goes together.
const KEYS_MAX: usize = 10_000;
const REST: &str = "(others)";

/// A line of the log.
#[derive(Deserialize)]
struct Line {
    op: String,
    #[serde(default)]
    inode: u64,
    path: Option<String>,
    #[serde(default)]
    tid: u32,
    #[serde(default)]
    result: String,
    #[serde(default)]
    seconds: f64,
    /// Lines that were lost.
    #[serde(default)]
    count: u64,
}

/// What came together under one key.
#[derive(Clone, Default, Serialize)]
struct Sum {
    requests: u64,
    failed: u64,
    seconds: f64,
    longest_s: f64,
}

/// What happened in an interval.
#[derive(Default, Serialize)]
struct Seen {
    operations: BTreeMap<String, Sum>,
    processes: BTreeMap<String, Sum>,
    files: BTreeMap<String, Sum>,
    lost: u64,
}

impl Sum {
    fn add(&mut self, line: &Line) {
        self.requests += 1;
        self.failed += u64::from(line.result != "ok");
        self.seconds += line.seconds;
        self.longest_s = self.longest_s.max(line.seconds);
    }
}

impl Seen {
    fn add(&mut self, line: &Line) {
        match line.op.as_str() {
            "idle" => {}
            "lost" => self.lost += line.count,
            operation => {
                add_to(&mut self.operations, operation.to_owned(), line);
                add_to(&mut self.processes, process(line.tid), line);
                let file = line.path.clone().unwrap_or_else(|| format!("inode {}", line.inode));
                add_to(&mut self.files, file, line);
            }
        }
    }

    fn text(&self, took: Duration) -> String {
        let mut text = format!("{:28} {:>10} {:>8} {:>10} {:>10}\n", "", "a second", "failed", "mean ms", "longest");
        let mut table = |title: &str, sums: &BTreeMap<String, Sum>, max: usize| {
            text.push_str(&format!("{title}\n"));
            let mut rows: Vec<(&String, &Sum)> = sums.iter().collect();
            rows.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.requests));
            for (name, sum) in rows.into_iter().take(max) {
                let Sum { requests, failed, seconds, longest_s } = sum;
                let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
                let requests = *requests as f64;
                let (rate, mean) = (requests / took.as_secs_f64().max(0.001), 1000.0 * seconds / requests);
                text.push_str(&format!(
                    "  {name:26} {rate:>10.1} {failed:>8} {mean:>10.3} {:>10.3}\n",
                    longest_s * 1000.0
                ));
            }
        };
        table("operations", &self.operations, usize::MAX);
        table("processes", &self.processes, SHOWN_MAX);
        table("files", &self.files, SHOWN_MAX);
        if self.lost > 0 {
            text.push_str(&format!("{} more were too many to be told\n", self.lost));
        }
        text
    }
}

fn add_to(sums: &mut BTreeMap<String, Sum>, key: String, line: &Line) {
    let key = if sums.len() < KEYS_MAX || sums.contains_key(&key) { key } else { REST.to_owned() };
    sums.entry(key).or_default().add(line);
}

/// The process of a thread, by name and number; one that has ended by its number alone.
fn process(tid: u32) -> String {
    if tid == 0 {
        return "kernel".to_owned();
    }
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let pid = status.lines().find_map(|line| line.strip_prefix("Tgid:")).unwrap_or_default().trim();
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match pid {
        "" => tid.to_string(),
        pid => format!("{} {pid}", name.trim()),
    }
}

/// Runs `kura top`.
pub fn top(context: &Context, args: &TopArgs) -> Result<Exit, Failure> {
    let Target::Mount(mount) = Target::find(context)? else {
        return Err(Failure::new(Exit::NoWorkspace, "the workspace is not mounted")
            .hint("`kura top` watches a mount; name one with -w"));
    };
    let failed = |error: std::io::Error| failure(&mount, &error);
    let mut log = BufReader::new(File::open(mount.join(".kura/access-log")).map_err(failed)?);
    let every = Duration::from_millis(args.every.max(100));
    let mut left = args.times;
    while left != Some(0) {
        let (begun, mut seen) = (Instant::now(), Seen::default());
        // A line comes at least once a second.
        while begun.elapsed() < every {
            let mut line = String::new();
            if log.read_line(&mut line).map_err(failed)? == 0 {
                return Ok(Exit::Ok);
            }
            seen.add(&serde_json::from_str(&line).map_err(|error| {
                Failure::new(Exit::Other, format!("the log of requests is not understood: {error}"))
                    .hint("program and mount may be of different versions; mount it again")
            })?);
        }
        left = left.map(|left| left - 1);
        if std::io::stdout().is_terminal() && !context.output.json {
            context.output.bytes(b"\x1b[2J\x1b[H")?;
        }
        context.output.json_or(&seen, || seen.text(begun.elapsed()))?;
    }
    Ok(Exit::Ok)
}

fn failure(mount: &Path, error: &std::io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::EBUSY) => Failure::new(Exit::Locked, "the log of requests has four readers already")
            .hint("end one of them, for example another `kura top`"),
        Some(libc::ENOENT) => {
            Failure::new(Exit::Other, "the mount is of an earlier version, without a log of requests")
                .hint("mount it again")
        }
        _ => mount_failure(mount, error),
    }
}
