//! Understanding a request, in either form, with what every request can carry.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::failure::{Exit, Failure};
use super::guard::Carried;
use super::jobs::{profile, update};
use super::path::PathText;
use super::request::{REQUEST_LEN_MAX, Request};
use super::table::{self, ArgKind, COMMANDS, Command};
use super::{strict, text};
use crate::apps::sealed::{RequestSecrets, named_operation, take_secrets};

/// What was asked.
pub(super) struct Asked {
    pub(super) carried: Carried,
    pub(super) work: Work,
}

pub(super) enum Work {
    Request(Box<Request>),
    Job(&'static Command, Map<String, Value>, Option<RequestSecrets>),
}

/// Whether a request is in the JSON form.
pub(super) fn is_json(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"{")
}

/// Whether a request is one that could be run; what it asks for is not done. For tests of what no bytes may bring down.
pub fn understands(command: Option<&str>, base: &[u8], bytes: &[u8]) -> bool {
    understand(command, base, bytes).is_ok_and(|asked| match asked.work {
        Work::Request(_) => true,
        Work::Job(command, fields, secrets) => {
            command.run.prepare().is_some_and(|prepare| prepare(Value::Object(fields), secrets).is_ok())
        }
    })
}

/// Understands a request for `command` or, without, one that names its own; paths are from `base`.
pub(super) fn understand(command: Option<&str>, base: &[u8], bytes: &[u8]) -> Result<Asked, Failure> {
    if bytes.len() > REQUEST_LEN_MAX {
        return Err(too_long());
    }
    let (bytes, secrets) = without_secrets(command, bytes)?;
    let mut fields = if is_json(&bytes) { of_json(command, &bytes)? } else { of_text(command, &bytes)? };
    let op = match fields.get("op") {
        Some(Value::String(op)) => op.clone(),
        _ => return Err(not_understood("the field `op` is missing")),
    };
    if secrets.is_some() && op != update::COMMAND.name {
        return Err(not_understood("only `update` takes `password`, `ids` and `document`"));
    }
    let found = table::find(&op);
    let id = take_text(&mut fields, "id")?;
    let expect_parent = take_text(&mut fields, "expect_parent")?;
    let tries = found.is_some_and(|command| command.args.iter().any(|arg| arg.name == "dry_run"));
    let dry_run = if tries { false } else { take_flag(&mut fields, "dry_run")? };
    if op == profile::COMMAND.name {
        profile::place(&mut fields);
    }
    if let Some(command) = found {
        place_paths(command, base, &mut fields)?;
    }
    let work = match found {
        Some(command) if command.run.prepare().is_some() => {
            fields.remove("op");
            Work::Job(command, fields, secrets)
        }
        _ => Work::Request(Box::new(
            serde_json::from_value(Value::Object(fields)).map_err(|error| not_understood(&error.to_string()))?,
        )),
    };
    Ok(Asked { carried: Carried { id, expect_parent, dry_run }, work })
}

/// Takes out what is secret before anything is parsed: parsers leave pieces of what they read in memory. What is or may
/// be an update that is not understood reaches no parser.
fn without_secrets<'a>(
    command: Option<&str>,
    bytes: &'a [u8],
) -> Result<(Cow<'a, [u8]>, Option<RequestSecrets>), Failure> {
    let is_update = command == Some(update::COMMAND.name);
    if !is_json(bytes) || !(is_update || command.is_none()) {
        return Ok((Cow::Borrowed(bytes), None));
    }
    match take_secrets(bytes) {
        Ok((rest, secrets)) => Ok((Cow::Owned(rest), Some(secrets))),
        Err(error) if is_update => Err(error.into()),
        Err(error) => match named_operation(bytes).map_err(|error| not_understood(&error.to_string()))? {
            None => Err(not_understood("the field `op` is missing")),
            Some(op) if op == update::COMMAND.name => Err(error.into()),
            Some(_) => Ok((Cow::Borrowed(bytes), None)),
        },
    }
}

pub(super) fn too_long() -> Failure {
    let failure = Failure::new(Exit::Usage, format!("the request is longer than {REQUEST_LEN_MAX} bytes"));
    failure.hint("name fewer paths at once")
}

fn not_understood(reason: &str) -> Failure {
    let hint = r#"write one JSON object such as {"op": "status"} or {"op": "snapshot", "message": "before the move"}"#;
    Failure::new(Exit::Usage, format!("the request is not understood: {reason}")).hint(hint)
}

fn of_json(command: Option<&str>, bytes: &[u8]) -> Result<Map<String, Value>, Failure> {
    let mut fields = strict::object(bytes).map_err(|error| not_understood(&error.to_string()))?;
    if let Some(command) = command {
        let op = fields.entry("op").or_insert_with(|| command.into());
        if op != command {
            return Err(Failure::new(Exit::Usage, format!("this file takes `{command}` and not {op}")));
        }
    }
    Ok(fields)
}

fn of_text(command: Option<&str>, bytes: &[u8]) -> Result<Map<String, Value>, Failure> {
    let line = bytes.trim_ascii();
    let (name, line) = match command {
        Some(command) => (command.to_owned(), line),
        None => {
            let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
            (String::from_utf8_lossy(&line[..end]).into_owned(), &line[end..])
        }
    };
    let command = table::find(&name).ok_or_else(|| {
        let names: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
        let message = format!("the request is not understood: `{}` is no command", PathText::from(name.as_bytes()));
        Failure::new(Exit::Usage, message).hint(format!("one of {}, or a JSON object", names.join(", ")))
    })?;
    let mut fields = text::parse(command, line)?;
    fields.insert("op".to_owned(), command.name.into());
    Ok(fields)
}

fn take_text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Failure> {
    match fields.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(not_understood(&format!("the field `{name}` takes a text"))),
    }
}

fn take_flag(fields: &mut Map<String, Value>, name: &str) -> Result<bool, Failure> {
    match fields.remove(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(_) => Err(not_understood(&format!("the field `{name}` takes true or false"))),
    }
}

/// Makes paths that begin at `base` begin at the root.
fn place_paths(command: &Command, base: &[u8], fields: &mut Map<String, Value>) -> Result<(), Failure> {
    for arg in command.args.iter().filter(|arg| arg.kind == ArgKind::Path) {
        match fields.get_mut(arg.name) {
            Some(Value::Array(list)) => list.iter_mut().try_for_each(|value| place_path(base, value))?,
            Some(value) => place_path(base, value)?,
            None => {}
        }
    }
    Ok(())
}

fn place_path(base: &[u8], value: &mut Value) -> Result<(), Failure> {
    let PathText(path) =
        serde_json::from_value(value.clone()).map_err(|error| not_understood(&format!("no path: {error}")))?;
    if !base.is_empty() && !path.starts_with(b"/") {
        let joined = PathText([base, b"/", &path].concat());
        *value = serde_json::to_value(joined).map_err(|error| not_understood(&error.to_string()))?;
    }
    Ok(())
}
