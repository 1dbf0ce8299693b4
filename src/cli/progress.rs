//! Bars for what takes longer than a second, on a terminal.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::Output;

/// What is quicker than this needs no bar.
const SHOW_AFTER: Duration = Duration::from_secs(1);
const WITH_TOTAL: &str = "{msg} [{elapsed}] {bar:30} {bytes} / {total_bytes}, {bytes_per_sec}, ETA {eta}";
const WITHOUT_TOTAL: &str = "{msg} [{elapsed}] {bytes}, {bytes_per_sec}";

/// A bar, or nothing where nobody would see it.
pub struct Bar {
    bar: Option<ProgressBar>,
    start: Instant,
}

impl Bar {
    /// A bar towards `total` bytes, if that is known.
    pub fn new(output: &Output, what: &'static str, total: Option<u64>) -> Self {
        let start = Instant::now();
        if !Self::is_wanted(output) {
            return Self { bar: None, start };
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let template = if total.is_some() { WITH_TOTAL } else { WITHOUT_TOTAL };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self { bar: Some(bar), start }
    }

    /// Whether somebody would see a bar.
    pub fn is_wanted(output: &Output) -> bool {
        !output.quiet && !output.json && std::io::stderr().is_terminal()
    }

    /// So many bytes are done.
    pub fn set(&self, bytes: u64) {
        let Some(bar) = &self.bar else { return };
        if bar.is_hidden() && self.start.elapsed() > SHOW_AFTER {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        bar.set_position(bytes);
    }
}

impl Bar {
    /// So much is done, of so many bytes if that is known.
    pub fn tell(&self, what: String, bytes: u64, total: Option<u64>) {
        let Some(bar) = &self.bar else { return };
        if bar.length() != total {
            let template = if total.is_some() { WITH_TOTAL } else { WITHOUT_TOTAL };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            total.map_or_else(|| bar.unset_length(), |total| bar.set_length(total));
        }
        bar.set_message(what);
        self.set(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The bytes in files below a directory, as far as they can be seen.
pub fn bytes_below(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => waiting.push(entry.path()),
                Ok(meta) if meta.is_file() => bytes += meta.len(),
                _ => {}
            }
        }
    }
    bytes
}
