//! Running a program on one file.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::cancel::Cancel;
use super::error::{BatchError, Code, Result};
use super::work::TempFile;

/// What a program said last is told, at most so many bytes.
const WORDS_LEN_MAX: usize = 4000;
const POLL_FIRST: Duration = Duration::from_millis(1);
const POLL_MAX: Duration = Duration::from_millis(20);

/// A program and its arguments. `{in}` stands for the file, `{out}` for where the result is expected; without `{out}`
/// the program changes the file in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandLine {
    /// The program and its arguments; no shell looks at them.
    pub argv: Vec<String>,
    /// Longest time for one file, in milliseconds.
    #[serde(default = "ten_minutes_ms")]
    pub timeout_ms: u64,
}

fn ten_minutes_ms() -> u64 {
    600_000
}

impl CommandLine {
    /// Fails for one that cannot work.
    pub fn check(&self) -> Result<()> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(BatchError::Job("the command is empty".to_owned()));
        }
        if !self.argv.iter().skip(1).any(|argument| argument.contains("{in}")) {
            return Err(BatchError::Job("the command does not name `{in}`, so it cannot see the file".to_owned()));
        }
        Ok(())
    }

    fn has_out(&self) -> bool {
        self.argv.iter().any(|argument| argument.contains("{out}"))
    }
}

/// Runs the program; its result is in `output`.
pub fn run(line: &CommandLine, name: &str, input: &mut TempFile, output: &mut TempFile, cancel: &Cancel) -> Result<()> {
    let refuse = |reason: String| BatchError::file(Code::Processing, name, reason);
    if !line.has_out() {
        let mut from = input.reader().map_err(|error| BatchError::of_io("the work directory", &error))?;
        output.fill(|to| {
            super::work::copy(&mut from, to).map_err(|error| BatchError::of_io("the work directory", &error))
        })?;
    }
    let (seen, made) = if line.has_out() { (input.path(), output.path()) } else { (output.path(), output.path()) };
    let argument = |text: &String| {
        let mut argument = OsString::new();
        for (number, part) in text.split("{in}").enumerate() {
            if number > 0 {
                argument.push(seen);
            }
            for (number, part) in part.split("{out}").enumerate() {
                if number > 0 {
                    argument.push(made);
                }
                argument.push(part);
            }
        }
        argument
    };
    let mut command = Command::new(&line.argv[0]);
    command.args(line.argv[1..].iter().map(argument)).env_clear().process_group(0);
    for var in ["PATH", "HOME", "LANG", "LC_ALL", "TZ"] {
        command.envs(std::env::var_os(var).map(|value| (var, value)));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| refuse(format!("{} cannot be run: {error}", line.argv[0])))?;
    let words = listen(&mut child);
    let ended = wait(&mut child, Duration::from_millis(line.timeout_ms), cancel);
    // Whatever it started ends with it.
    if let Ok(group) = i32::try_from(child.id()) {
        killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
    }
    child.wait().ok();
    let status = match ended {
        Ended::By(status) => status,
        Ended::Cancelled => return Err(BatchError::cancelled()),
        Ended::TooLate => return Err(refuse(format!("{} took longer than {} ms", line.argv[0], line.timeout_ms))),
        Ended::Lost(error) => return Err(refuse(format!("{} cannot be waited for: {error}", line.argv[0]))),
    };
    if !status.success() {
        let words = words.recv_timeout(Duration::from_secs(10)).unwrap_or_default();
        return Err(refuse(format!("{} ended with {status}: {}", line.argv[0], words.trim())));
    }
    output.refresh()
}

enum Ended {
    By(std::process::ExitStatus),
    Cancelled,
    TooLate,
    Lost(std::io::Error),
}

fn wait(child: &mut Child, time: Duration, cancel: &Cancel) -> Ended {
    let start = Instant::now();
    let mut pause = POLL_FIRST;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ended::By(status),
            Ok(None) if start.elapsed() > time => return Ended::TooLate,
            Ok(None) => {}
            Err(error) => return Ended::Lost(error),
        }
        if !cancel.wait(pause) {
            return Ended::Cancelled;
        }
        pause = (pause * 2).min(POLL_MAX);
    }
}

/// Reads what a program says to its error stream, keeping the end; to be had when it has closed that.
pub(super) fn listen(child: &mut Child) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    if let Some(mut from) = child.stderr.take() {
        std::thread::spawn(move || {
            let (mut piece, mut kept) = ([0; 4096], Vec::new());
            while let Ok(count @ 1..) = from.read(&mut piece) {
                kept.extend_from_slice(&piece[..count]);
                let extra = kept.len().saturating_sub(WORDS_LEN_MAX);
                kept.drain(..extra);
            }
            tell.send(String::from_utf8_lossy(&kept).into_owned()).ok();
        });
    }
    told
}
