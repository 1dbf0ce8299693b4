//! `kura debug`: a bundle for who is asked for help, without secrets and, unless wanted, without names.

use std::collections::VecDeque;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::Context;
use super::config::absolute;
use super::door::{Target, ask_mount};
use super::system::findings;
use crate::base::limits::FORMAT_VERSION;
use crate::control::{Exit, Failure, Request};
use crate::store::StoreUrl;

/// Write what helps to find out what is wrong into a new directory, to be handed to others
///
/// It holds versions of program and system, the configuration, what `kura doctor` finds, numbers, states and times of
/// the mount and its jobs, and when which part of the program logged something: no passphrases, keys, credentials or
/// content, and no names of files, messages or addresses unless --names is given. No passphrase is needed.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura debug ~/kura-debug
  kura debug ~/kura-debug --names      also names of files and what the log says
  kura debug ~/kura-debug && tar -C ~ -czf kura-debug.tar.gz kura-debug")]
pub struct DebugArgs {
    /// The directory; it must not exist
    dir: PathBuf,
    /// Leave names of files, addresses and the text of messages in
    #[arg(long)]
    names: bool,
}

/// Last lines of a log that are looked at.
const LOG_LINES_MAX: usize = 2_000;
/// What takes the place of a text.
const REDACTED: &str = "(redacted)";
/// Fields whose texts hold no names: ids, times, and words of the program.
const PLAIN: [&str; 20] = [
    "workspace",
    "newest_version",
    "published_version",
    "mounted_since",
    "newest_version_time",
    "since",
    "time",
    "event",
    "name",
    "help",
    "label",
    "job",
    "op",
    "state",
    "submitted",
    "started",
    "finished",
    "code",
    "what",
    "key",
];

/// Runs `kura debug`.
pub fn debug(context: &Context, args: &DebugArgs) -> Result<Exit, Failure> {
    let dir = absolute(&args.dir)?;
    let bundle = Bundle { dir, names: args.names };
    bundle.make()?;
    bundle.json("about.json", &about())?;
    bundle.json("configuration.json", &configuration(context, args.names))?;
    let found: Vec<Value> = findings(context).iter().map(super::system::Finding::json).collect();
    bundle.json("doctor.json", &found.into())?;
    bundle.text("mounts.txt", &mounts())?;
    for log in logs(&context.config.state_dir) {
        let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
        bundle.text(&name, &log_lines(&log, args.names))?;
    }
    match Target::find(context) {
        Ok(Target::Mount(mount)) => of_mount(&bundle, &mount)?,
        Ok(Target::Store(_)) => bundle.text("mount.txt", "the workspace is not mounted\n")?,
        Err(failure) => bundle.json("mount.json", &json!({ "reason": failure.message }))?,
    }
    let place = bundle.dir.display();
    context.output.json_or(&json!({ "dir": bundle.dir.to_string_lossy() }), || {
        format!("written to {place}; look through it before you hand it on")
    })?;
    Ok(Exit::Ok)
}

/// What the mount says of itself. One that does not answer is told, too.
fn of_mount(bundle: &Bundle, mount: &Path) -> Result<(), Failure> {
    let requests = [
        ("status.json", Request::Status { files: false }),
        ("metrics.json", Request::Metrics {}),
        ("jobs.json", Request::Jobs {}),
    ];
    for (name, request) in requests {
        let said = match ask_mount(mount, &request) {
            Ok(reply) => reply.data,
            Err(failure) => json!({ "reason": failure.message }),
        };
        bundle.json(name, &said)?;
    }
    let events = std::fs::read_to_string(mount.join(".kura/events")).unwrap_or_default();
    let events = events.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect::<Vec<Value>>();
    bundle.json("events.json", &events.into())
}

/// The directory that is made.
struct Bundle {
    dir: PathBuf,
    names: bool,
}

impl Bundle {
    fn failed(&self, error: &std::io::Error) -> Failure {
        let failure = Failure::new(Exit::Other, format!("{} cannot be written: {error}", self.dir.display()));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failure.hint("name a directory that does not exist"),
            _ => failure,
        }
    }

    fn make(&self) -> Result<(), Failure> {
        DirBuilder::new().mode(0o700).create(&self.dir).map_err(|error| self.failed(&error))
    }

    fn text(&self, name: &str, text: &str) -> Result<(), Failure> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.dir.join(name));
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| self.failed(&error))
    }

    /// A value; names in it are redacted unless they are wanted.
    fn json(&self, name: &str, value: &Value) -> Result<(), Failure> {
        let value = if self.names { value.clone() } else { redacted(value, false) };
        self.text(name, &format!("{value:#}\n"))
    }
}

/// Numbers and plain words stay, other texts go.
fn redacted(value: &Value, is_plain: bool) -> Value {
    match value {
        Value::String(_) if !is_plain => REDACTED.into(),
        Value::Array(items) => items.iter().map(|item| redacted(item, is_plain)).collect(),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                let is_plain = is_plain || PLAIN.contains(&name.as_str());
                (name.clone(), redacted(value, is_plain))
            };
            Value::Object(fields.iter().map(field).collect::<Map<String, Value>>())
        }
        value => value.clone(),
    }
}

/// Of program and system; nothing in it names anything of the user.
fn about() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let system = read("/etc/os-release").lines().find_map(|line| line.strip_prefix("PRETTY_NAME=").map(str::to_owned));
    let mut variables: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    variables.retain(|name| ["KURA_", "AWS_", "XDG_"].iter().any(|known| name.starts_with(known)));
    variables.sort_unstable();
    json!({ "state": {
        "version": env!("CARGO_PKG_VERSION"), "format": FORMAT_VERSION, "architecture": std::env::consts::ARCH,
        "kernel": read("/proc/sys/kernel/osrelease"), "system": system, "root": nix::unistd::geteuid().is_root(),
        "time": jiff_now(), "variables_set": variables,
    } })
}

fn jiff_now() -> String {
    use crate::base::clock::{Clock, SystemClock};
    let now = i128::from(SystemClock.now().unix_ns());
    jiff::Timestamp::from_nanosecond(now).unwrap_or_default().to_string()
}

/// Each key, where its value comes from, and the value where it is no place.
fn configuration(context: &Context, names: bool) -> Value {
    let places = ["store", "state_dir", "cache_dir"];
    let shown = context.config.shown().into_iter().map(|(key, value, source)| {
        let is_place = places.contains(&key);
        let source = if source.starts_with("the ") || source == "built in" { source } else { "a file".to_owned() };
        let kind = match value.as_deref().map(str::parse::<StoreUrl>) {
            Some(Ok(StoreUrl::S3(_))) if key == "store" => Some("s3".to_owned()),
            Some(_) if is_place => Some("a directory".to_owned()),
            _ => None,
        };
        let value = if is_place && !names { kind } else { value };
        json!({ "key": key, "state": { "value": value, "source": source } })
    });
    shown.collect()
}

/// How the workspaces of this machine are mounted, without where.
fn mounts() -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let of = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        (words.get(2) == Some(&"fuse.kura")).then(|| format!("{}\n", words.get(3).unwrap_or(&"")))
    };
    mounts.lines().filter_map(of).collect()
}

fn logs(state_dir: &Path) -> Vec<PathBuf> {
    let logs = std::fs::read_dir(state_dir.join("logs")).into_iter().flatten().flatten();
    let mut logs: Vec<PathBuf> = logs.map(|entry| entry.path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort_unstable();
    logs
}

/// The last lines of a log: when, how grave, and which part of the program; what it said only with names.
fn log_lines(path: &Path, names: bool) -> String {
    let Ok(file) = std::fs::File::open(path) else { return "cannot be read\n".to_owned() };
    let mut last = VecDeque::new();
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        last.push_back(if names { line } else { without_words(&line) });
        if last.len() > LOG_LINES_MAX {
            last.pop_front();
        }
    }
    last.into_iter().map(|line| line + "\n").collect()
}

fn without_words(line: &str) -> String {
    const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
    let mut words = line.split_ascii_whitespace();
    let time = words.next().filter(|time| time.parse::<jiff::Timestamp>().is_ok());
    let level = words.next().filter(|level| LEVELS.contains(level));
    let is_module = |word: &&str| {
        word.starts_with("kura::")
            && word.ends_with(':')
            && word.bytes().all(|b| b.is_ascii_lowercase() || b":_".contains(&b))
    };
    match (time, level) {
        (Some(time), Some(level)) => format!("{time} {level} {}", words.find(is_module).unwrap_or("?")),
        _ => REDACTED.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_line_of_the_log_stays_what_names_nothing() {
        let line = "2026-11-22T12:00:00.000001Z  WARN kura::fuse::serve: Read: /secret plan (inode 7): damaged";
        assert_eq!(without_words(line), "2026-11-22T12:00:00.000001Z WARN kura::fuse::serve:");
        let spans = "2026-11-22T12:00:00.000001Z  INFO profile{profile=secret}:phase: kura::apps::profile: done";
        assert_eq!(without_words(spans), "2026-11-22T12:00:00.000001Z INFO kura::apps::profile:");
        assert_eq!(without_words("secret plan"), REDACTED);
        assert_eq!(without_words("2026-11-22T12:00:00Z WARN kura::Secret: x"), "2026-11-22T12:00:00Z WARN ?");
    }

    #[test]
    fn texts_are_redacted_unless_they_are_plain() {
        let value = json!({
            "workspace": "id", "bytes": 7, "locks": [{ "path": "a", "holder": "b", "ours": true }],
            "offline": { "since": "2026", "reason": "/home/x" }, "result": { "code": "ok", "message": "wrote a" },
        });
        let redacted = redacted(&value, false);
        assert_eq!(redacted["workspace"], "id");
        assert_eq!(redacted["locks"][0], json!({ "path": REDACTED, "holder": REDACTED, "ours": true }));
        assert_eq!(redacted["offline"], json!({ "since": "2026", "reason": REDACTED }));
        assert_eq!(redacted["result"], json!({ "code": "ok", "message": REDACTED }));
    }
}
