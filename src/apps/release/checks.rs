//! Running the checks of a package, in a private copy of its files.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error::{ReleaseError, Result};
use super::package::{Check, Package};
use super::trust::private_dir;
use crate::base::disk::{Disk, RealDisk, read_file, replace_file};
use crate::base::ids::VersionId;
use crate::workspace::Workspace;

/// How often a running check is looked at.
const TICK: Duration = Duration::from_millis(5);

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Its name.
    pub name: String,
    /// Whether it passed.
    pub ok: bool,
    /// The slowest run, in milliseconds.
    pub time_ms: u64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Runs all checks of a package on its files as they are in a version.
pub(super) fn run(workspace: &Workspace, version: VersionId, package: &Package) -> Result<Vec<Checked>> {
    if package.checks.is_empty() {
        return Ok(Vec::new());
    }
    let dir = private_dir()?;
    let record = workspace.version(version)?;
    let mut paths = Vec::new();
    for file in &package.files {
        // What the user removed stays so.
        let names: Vec<&[u8]> = file.path.split('/').map(str::as_bytes).collect();
        if workspace.find(&record, &names)?.is_some() {
            paths.push(file.path.as_bytes().to_vec());
        }
    }
    if !paths.is_empty() {
        workspace.export(version, &paths, dir.path(), true, &mut |_| true)?;
    }
    package.checks.iter().map(|check| run_one(check, dir.path())).collect()
}

/// Runs the checks of a package that is not installed, on a copy of what the workspace has at its paths, and in its
/// place the package's own files.
pub(super) fn run_in_copy(
    workspace: &Workspace,
    package: &Package,
    files: &Path,
    scratch: Option<&Path>,
) -> Result<Vec<Checked>> {
    let dir = match scratch {
        Some(scratch) => tempfile::Builder::new()
            .prefix("kura-")
            .tempdir_in(scratch)
            .map_err(|error| ReleaseError::Disk { path: scratch.display().to_string(), reason: error.to_string() })?,
        None => private_dir()?,
    };
    let base = workspace.begin_change()?.base();
    workspace.export(base, &[], dir.path(), true, &mut |_| true)?;
    let failed =
        |path: &str, error: std::io::Error| ReleaseError::Disk { path: path.to_owned(), reason: error.to_string() };
    for file in &package.files {
        let to = dir.path().join(&file.path);
        let bytes = read_file(&RealDisk, &files.join(&file.path), usize::MAX).map_err(|e| failed(&file.path, e))?;
        let parent = to.parent().unwrap_or(dir.path());
        RealDisk
            .create_dir_all(parent)
            .and_then(|()| replace_file(&RealDisk, &to, &bytes))
            .map_err(|error| failed(&file.path, error))?;
        let mode = rustix::fs::Mode::from_bits_truncate(u32::from(file.mode));
        rustix::fs::chmod(&to, mode).map_err(|error| failed(&file.path, error.into()))?;
    }
    package.checks.iter().map(|check| run_one(check, dir.path())).collect()
}

fn run_one(check: &Check, dir: &Path) -> Result<Checked> {
    let (mut failures, mut slowest, mut last) = (0, 0, None);
    for _ in 0..check.runs {
        let start = Instant::now();
        let outcome = run_once(check, dir)?;
        slowest = slowest.max(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
        if let Err(reason) = outcome {
            failures += 1;
            last = Some(reason);
        }
    }
    let mut reason = (failures > check.failures_max)
        .then(|| format!("{failures} of {} runs failed: {}", check.runs, last.as_deref().unwrap_or_default()));
    if let Some(most) = check.time_max_ms.filter(|most| slowest > *most) {
        reason.get_or_insert(format!("it took {slowest} ms, and {most} are allowed"));
    }
    Ok(Checked { name: check.name.clone(), ok: reason.is_none(), time_ms: slowest, reason })
}

/// Runs the program once; why it failed.
fn run_once(check: &Check, dir: &Path) -> Result<std::result::Result<(), String>> {
    let Some((program, arguments)) = check.command.split_first() else { return Ok(Err("no program".to_owned())) };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir).env_clear().env("HOME", dir);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A group of its own, so that what it starts ends with it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(Err(format!("`{program}` cannot be run: {error}"))),
    };
    let start = Instant::now();
    let failed = |error: std::io::Error| ReleaseError::Disk { path: program.clone(), reason: error.to_string() };
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(if status.success() { Ok(()) } else { Err(status.to_string()) });
        }
        if start.elapsed() >= Duration::from_millis(check.timeout_ms) {
            let group = i32::try_from(child.id()).map(nix::unistd::Pid::from_raw);
            if let Ok(group) = group {
                nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).ok();
            }
            child.wait().map_err(failed)?;
            return Ok(Err(format!("it was ended after {} ms", check.timeout_ms)));
        }
        std::thread::sleep(TICK);
    }
}
