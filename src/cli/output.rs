//! What the program prints.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::control::{Exit, Failure, Reply};

/// Standard output, for people or for programs.
pub struct Output {
    /// Whether programs read it.
    pub json: bool,
    /// Whether to leave out what was not asked for.
    pub quiet: bool,
    colours: bool,
}

/// A colour of terminals.
#[derive(Clone, Copy)]
pub enum Colour {
    /// What is gone or failed.
    Red,
    /// What is new.
    Green,
    /// What names a version.
    Yellow,
    /// What changed.
    Cyan,
}

impl Output {
    /// Output in the form that was asked for.
    pub fn new(json: bool, quiet: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { json, quiet, colours: io::stdout().is_terminal() && !no_color }
    }

    /// One line.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// One line that nobody asked for.
    pub fn note(&self, text: &str) -> Result<(), Failure> {
        if self.quiet || self.json { Ok(()) } else { self.line(text) }
    }

    /// Text or data as it is.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| written(&error))
    }

    /// A value as one line of JSON.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::new(Exit::Other, format!("the answer cannot be written as JSON: {error}")))?;
        self.line(&text)
    }

    /// A value for programs, or a text for people.
    pub fn json_or(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { self.json(value) } else { self.line(&text()) }
    }

    /// Text in a colour, where colours are wanted.
    pub fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Cyan => 36,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The outcome of a command whose message says it all: the data for programs, the message for
    /// people. A failure becomes one.
    pub fn reply(&self, reply: &Reply) -> Result<Exit, Failure> {
        let exit = outcome(reply)?;
        if self.json {
            self.json(&reply.data)?;
        } else if exit != Exit::Ok {
            warn(&reply.message);
        } else {
            self.note(&reply.message)?;
        }
        Ok(exit)
    }
}

/// Text of others as one line: what moves the cursor, breaks the line or turns the direction of reading is escaped.
pub fn plain(text: &str) -> String {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut out = String::new();
    for c in text.chars() {
        if c.is_control() || turns(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Whether a request was done, in part at least; a failure otherwise.
pub fn outcome(reply: &Reply) -> Result<Exit, Failure> {
    match Exit::from_code(reply.exit) {
        exit @ (Exit::Ok | Exit::Partial) => Ok(exit),
        exit => Err(Failure { exit, message: reply.message.clone(), hint: reply.hint.clone() }),
    }
}

/// A reader that went away wants no more, which ends the command and is no failure.
fn written(error: &io::Error) -> Failure {
    let exit = if error.kind() == io::ErrorKind::BrokenPipe { Exit::Ok } else { Exit::Other };
    Failure::new(exit, format!("standard output cannot be written: {error}"))
}

/// A warning, on standard error.
pub fn warn(text: &str) {
    to_stderr(&format!("kura: {text}\n"));
}

/// A failure, on standard error.
pub fn print_failure(failure: &Failure, json: bool) {
    if failure.exit == Exit::Ok {
        return;
    }
    if json {
        return to_stderr(&format!("{}\n", serde_json::json!(Reply::from(failure.clone()))));
    }
    let mut text = format!("kura: {}\n", failure.message);
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("  hint: {hint}\n"));
    }
    to_stderr(&text);
}

/// There is nowhere left to report that standard error cannot be written.
fn to_stderr(text: &str) {
    io::stderr().write_all(text.as_bytes()).ok();
}

/// Logs to standard error what `KURA_LOG` asks for.
pub fn start_logging() -> Result<(), Failure> {
    let wanted = std::env::var("KURA_LOG").ok().filter(|wanted| !wanted.is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or("warn"))
        .map_err(|error| Failure::new(Exit::Usage, format!("KURA_LOG is not understood: {error}")))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    Ok(())
}

/// Bytes for people: `512 B`, `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A time of a reply (RFC 3339, UTC) in the local zone.
pub fn local_time(rfc3339: &str) -> String {
    match rfc3339.parse::<jiff::Timestamp>() {
        Ok(time) => time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
        Err(_) => rfc3339.to_owned(),
    }
}
