//! Telling people and programs what happened, by message templates.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error::Result;
use super::http;
use super::state::{Event, State};
use crate::workspace::Workspace;

const TEMPLATE: &str = "{package} {version}: {what} {detail}";
/// A program that tells somebody may take so long.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(10);
/// Older events than this many are not told any more.
const TOLD_MAX: usize = 20;

/// Who is told what happens, besides `history` and `.kura/events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    /// Gets each event as JSON, by POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// A program and its arguments, as `["notify-send", "kura"]`; the message comes last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The message, with `{what}`, `{package}`, `{version}`, `{detail}` and `{time}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Only these events, such as `alert`, `failed`, `revoked`. All when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// The last event that was told.
    #[serde(default)]
    pub told: u64,
}

impl Notify {
    /// The message of an event.
    pub fn message(&self, event: &Event) -> String {
        let mut text = self.template.as_deref().unwrap_or(TEMPLATE).to_owned();
        let Event { what, package, version, detail, time, .. } = event;
        for (name, value) in
            [("what", what), ("package", package), ("version", version), ("detail", detail), ("time", time)]
        {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        text.trim().to_owned()
    }

    fn tell(&self, event: &Event) {
        let message = self.message(event);
        if let Some(url) = &self.webhook {
            let body = serde_json::json!({ "message": message, "event": event });
            if let Err(error) = http::post(url, body.to_string().as_bytes()) {
                tracing::warn!("event {} could not be told: {error}", event.number);
            }
        }
        if let Some((program, arguments)) = self.command.split_first()
            && let Err(error) = run(program, arguments, &message)
        {
            tracing::warn!("event {} could not be told by `{program}`: {error}", event.number);
        }
    }
}

fn run(program: &str, arguments: &[String], message: &str) -> std::io::Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).arg(message).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let (mut child, start) = (command.spawn()?, Instant::now());
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(std::io::Error::other(status.to_string())),
            None if start.elapsed() >= COMMAND_TIMEOUT => {
                child.kill()?;
                child.wait()?;
                return Err(std::io::Error::other("it took too long"));
            }
            None => std::thread::sleep(TICK),
        }
    }
}

impl State {
    /// Tells what has not been told; each event once, whatever comes of it.
    pub(super) fn tell(&mut self, workspace: &Workspace) -> Result<()> {
        let told = self.notify.told;
        let new: Vec<Event> = self.events.iter().filter(|event| event.number > told).cloned().collect();
        let Some(last) = new.last() else { return Ok(()) };
        self.notify.told = last.number;
        self.write(workspace)?;
        for event in &new[new.len().saturating_sub(TOLD_MAX)..] {
            let message = self.notify.message(event);
            workspace.tell_event("release", &message, &serde_json::json!(event));
            if self.notify.only.is_empty() || self.notify.only.contains(&event.what) {
                self.notify.tell(event);
            }
        }
        Ok(())
    }
}
