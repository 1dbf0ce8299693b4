//! The short text form of a request: the arguments of the command on one line.

use serde_json::{Map, Value};

use super::failure::{Exit, Failure};
use super::health::parse_size;
use super::path::PathText;
use super::table::{Arg, ArgKind, Command};
use super::words;

/// Milliseconds from `500ms`, `2s`, `5m`, `1h`.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("`{text}` is no duration; write for example 500ms, 2s or 5m")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| format!("`{text}` is no duration; write for example 2s"))?;
    number.checked_mul(factor).ok_or_else(|| format!("`{text}` is too long"))
}

/// The envelope's own options, which every command takes.
const ENVELOPE: [Arg; 2] = [
    Arg::option("id", ArgKind::Text, "the request's own id: repeated, it is answered and not run again"),
    Arg::option("expect_parent", ArgKind::Text, "the newest version must be this one").called("expect-parent"),
];
const DRY_RUN: Arg = Arg::option("dry_run", ArgKind::Flag, "only check").called("dry-run");

/// The JSON form of a line in the text form.
pub(super) fn parse(command: &Command, line: &[u8]) -> Result<Map<String, Value>, Failure> {
    Parser { command, fields: Map::new(), placed: 0 }.parse(words::split(line)?)
}

struct Parser<'a> {
    command: &'a Command,
    fields: Map<String, Value>,
    /// How many arguments with a place are there.
    placed: usize,
}

impl Parser<'_> {
    fn parse(mut self, words: Vec<Vec<u8>>) -> Result<Map<String, Value>, Failure> {
        let mut words = words.into_iter();
        let mut only_places = false;
        while let Some(word) = words.next() {
            if only_places || word == b"-" || !word.starts_with(b"-") {
                self.place(&word)?;
            } else if word == b"--" {
                only_places = true;
            } else {
                self.option(&word, &mut words)?;
            }
        }
        Ok(self.fields)
    }

    fn wrong(&self, message: String) -> Failure {
        Failure::new(Exit::Usage, message).hint(format!("write: {}", self.command.usage()))
    }

    fn place(&mut self, word: &[u8]) -> Result<(), Failure> {
        let places = || self.command.args.iter().filter(|arg| arg.option.is_none());
        let found = places().nth(self.placed).or_else(|| places().rfind(|arg| arg.many));
        let Some(arg) = found else {
            return Err(self.wrong(format!("`{}` is one argument too many", PathText::from(word))));
        };
        self.placed += 1;
        self.set(arg, word)
    }

    fn option(&mut self, word: &[u8], rest: &mut impl Iterator<Item = Vec<u8>>) -> Result<(), Failure> {
        let (name, value) = match word.iter().position(|byte| *byte == b'=') {
            Some(at) if word.starts_with(b"--") => (&word[..at], Some(word[at + 1..].to_vec())),
            _ => (word, None),
        };
        let text = String::from_utf8_lossy(name).into_owned();
        let is_it = |arg: &Arg| match text.strip_prefix("--") {
            Some(long) => arg.option == Some(long),
            None => arg.short.is_some_and(|short| text == format!("-{short}")),
        };
        let args = || self.command.args.iter().filter(|arg| arg.kind != ArgKind::Json);
        let dry_run = (!args().any(|arg| arg.name == DRY_RUN.name)).then_some(DRY_RUN);
        let found = args().copied().chain(ENVELOPE).chain(dry_run).find(|arg| is_it(arg));
        let Some(arg) = found else {
            return Err(self.wrong(format!("`{text}` is no option of `{}`", self.command.name)));
        };
        match (arg.kind, value, arg.implied) {
            (ArgKind::Flag, None, _) => self.put(&arg, Value::Bool(true)),
            (ArgKind::Flag, Some(_), _) => Err(self.wrong(format!("`{text}` takes no value"))),
            (_, Some(value), _) => self.set(&arg, &value),
            (_, None, Some(implied)) => self.set(&arg, implied.as_bytes()),
            (_, None, None) => {
                let value = rest.next().ok_or_else(|| self.wrong(format!("`{text}` takes a value")))?;
                self.set(&arg, &value)
            }
        }
    }

    fn set(&mut self, arg: &Arg, word: &[u8]) -> Result<(), Failure> {
        let value = match arg.kind {
            ArgKind::Path | ArgKind::OutsidePath => serde_json::to_value(PathText::from(word)).unwrap_or_default(),
            kind => {
                let text = std::str::from_utf8(word)
                    .map_err(|_| self.wrong(format!("`{}` is not UTF-8", PathText::from(word))))?;
                match kind {
                    ArgKind::Number => {
                        text.parse::<u64>().map(Value::from).map_err(|_| format!("`{text}` is no number"))
                    }
                    ArgKind::DurationMs => parse_duration_ms(text).map(Value::from),
                    ArgKind::Size => parse_size(text).map(Value::from),
                    _ => Ok(Value::from(text)),
                }
                .map_err(|error| self.wrong(error))?
            }
        };
        self.put(arg, value)
    }

    fn put(&mut self, arg: &Arg, value: Value) -> Result<(), Failure> {
        if arg.many {
            let list = self.fields.entry(arg.name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(value);
            }
            return Ok(());
        }
        match self.fields.insert(arg.name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(self.wrong(format!("`{}` is given twice", arg.option.unwrap_or(arg.name)))),
        }
    }
}
