//! What a mount counts, as Prometheus reads it and as a table.

use std::fmt::Write;

use serde::Serialize;

use super::jobs::{JobRecord, JobState};
use crate::workspace::Status;

/// One number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metric {
    /// Its name, with the unit last.
    pub name: &'static str,
    /// A label and its value, where there are several of one name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<(&'static str, String)>,
    /// Whether it only ever grows.
    pub counts: bool,
    /// What it is.
    pub help: &'static str,
    /// The number.
    pub value: u64,
}

fn gauge(name: &'static str, help: &'static str, value: u64) -> Metric {
    Metric { name, label: None, counts: false, help, value }
}

/// All numbers of a workspace and of its mount; `requests` are those of the file system by kind.
pub(super) fn collect(status: &Status, jobs: &[JobRecord], requests: Vec<(String, u64)>) -> Vec<Metric> {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let mut metrics = vec![
        gauge("kura_files", "Names that are not directories, in the newest version.", status.files),
        gauge("kura_directories", "Directories in the newest version.", status.dirs),
        gauge("kura_files_bytes", "Sum of the sizes of files in the newest version.", status.bytes),
        gauge("kura_drafts", "Files with unpublished content.", number(status.drafts)),
        gauge("kura_recovered_drafts", "Drafts whose writer was killed.", number(status.recovered)),
        gauge("kura_unrecorded", "Whether changes are in no version yet.", status.unrecorded_changes.into()),
        gauge("kura_unpublished_versions", "Versions that wait for the store.", number(status.unpublished_versions)),
        gauge("kura_unpublished_objects", "Objects that wait for the store.", number(status.unpublished_objects)),
        gauge("kura_unpublished_bytes", "Sealed bytes that wait for the store.", status.unpublished_bytes),
        gauge("kura_offline", "Whether the store does not answer.", status.offline.is_some().into()),
        gauge("kura_blocked", "Whether the store answers and refuses.", status.blocked.is_some().into()),
        gauge("kura_read_only", "Whether changes are refused.", status.read_only.is_some().into()),
        gauge("kura_cache_bytes", "Bytes in the disk cache.", status.cache_bytes),
        gauge("kura_journal_bytes", "Bytes in the journal.", status.journal_bytes),
    ];
    let states = [JobState::Queued, JobState::Running, JobState::Done, JobState::Failed, JobState::Cancelled];
    metrics.extend(states.into_iter().chain([JobState::Interrupted]).map(|state| {
        let value = number(jobs.iter().filter(|job| job.state == state).count());
        let label = Some(("state", state.word().to_owned()));
        Metric { label, ..gauge("kura_jobs", "Jobs that are remembered, by state.", value) }
    }));
    metrics.extend(requests.into_iter().map(|(kind, value)| Metric {
        label: Some(("operation", kind)),
        counts: true,
        ..gauge("kura_requests_total", "Requests of the file system since the mount began.", value)
    }));
    metrics
}

/// The text format of Prometheus.
pub(super) fn prometheus(metrics: &[Metric]) -> String {
    let mut text = String::new();
    let mut last = "";
    for Metric { name, label, counts, help, value } in metrics {
        if *name != last {
            let kind = if *counts { "counter" } else { "gauge" };
            // Writing to a string does not fail.
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
            last = name;
        }
        match label {
            Some((label, of)) => writeln!(text, "{name}{{{label}=\"{of}\"}} {value}").ok(),
            None => writeln!(text, "{name} {value}").ok(),
        };
    }
    text
}
