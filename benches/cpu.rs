//! CPU time of this process, of its children, and of the threads of a daemon.

use std::collections::HashMap;
use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// CPU microseconds of this process and of the children it has waited for.
pub fn client_us() -> f64 {
    [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN]
        .into_iter()
        .map(|who| {
            let usage = getrusage(who).unwrap();
            (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64
        })
        .sum()
}

/// CPU microseconds of a daemon, by thread.
#[derive(Clone, Default)]
pub struct Threads(HashMap<u32, (String, f64)>);

/// Reads `schedstat` of every thread (nanoseconds on a CPU).
pub fn threads(pid: u32) -> Threads {
    let mut threads = HashMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let Ok(tid) = task.file_name().to_string_lossy().parse() else { continue };
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default().trim().to_owned();
        let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let ns: f64 = stat.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
        threads.insert(tid, (name, ns / 1000.0));
    }
    Threads(threads)
}

impl Threads {
    /// CPU microseconds since `before`: (threads that serve requests, threads that publish).
    pub fn since(&self, before: &Threads) -> (f64, f64) {
        let (mut requests, mut background) = (0.0, 0.0);
        for (tid, (name, us)) in &self.0 {
            let delta = us - before.0.get(tid).map_or(0.0, |(_, us)| *us);
            if is_background(name) { background += delta } else { requests += delta }
        }
        (requests, background)
    }
}

/// The threads that `Workspace::start` names, and those of the store's client.
fn is_background(name: &str) -> bool {
    ["kura-", "tokio"].iter().any(|prefix| name.starts_with(prefix)) && !name.starts_with("kura-fuse")
}

/// Resident bytes of a process.
pub fn resident_bytes(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}
