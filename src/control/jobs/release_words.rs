//! A line about releases, in the words of the command line: what stands by its place, and options that are parts of a
//! value.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::apps::release::{Limits, Notify};
use crate::control::release_values as values;
use crate::control::table::{Arg, ArgKind};
use crate::control::{Exit, Failure};

type Fields = Map<String, Value>;

fn usage(text: String) -> Failure {
    Failure::new(Exit::Usage, text)
}

/// Puts words under the names that requests have for them.
pub(super) fn place(fields: &mut Fields, args: &[Arg]) -> Result<(), Failure> {
    let word = fields.get("do").and_then(Value::as_str).unwrap_or_default().to_owned();
    by_place(&word, fields)?;
    match word.as_str() {
        "publish" | "promote" => rollout(fields)?,
        "follow" => access(fields)?,
        "alert" => limits(fields)?,
        "notify" => notify(fields)?,
        _ => {}
    }
    if let Some(Value::String(text)) = fields.get("change") {
        let change = values::change(text)?;
        fields.insert("change".to_owned(), json!(change));
    }
    if let Some(windows) = values::windows(&texts(fields, "window")?)? {
        put(fields, "windows", windows)?;
    }
    let epochs = values::epochs(&texts(fields, "epochs")?)?;
    if !epochs.is_empty() {
        put(fields, "min_epoch", epochs)?;
    }
    let outside = args.iter().filter(|arg| arg.kind == ArgKind::OutsidePath).map(|arg| arg.name);
    outside.into_iter().try_for_each(|name| check_absolute(fields.get(name)))
}

/// What the words of a command mean that stand by their places.
fn places(word: &str) -> &'static [&'static str] {
    match word {
        "keygen" | "key" => &["keys"],
        "sign" => &["file"],
        "pack" | "test" | "publish" => &["dir"],
        "trust" | "channel" | "advance" | "alert" | "report" | "cleanup" => &["channel"],
        "rollout" => &["packages", "change"],
        "feedback" => &["packages", "note"],
        "follow" => &["repository"],
        "ack" => &["number"],
        _ => &[],
    }
}

fn by_place(word: &str, fields: &mut Fields) -> Result<(), Failure> {
    let many = match word {
        "complete" => "files",
        "notify" => "command",
        _ if places(word).is_empty() => return Ok(()),
        _ => "",
    };
    let words = texts(fields, "packages")?;
    if !many.is_empty() {
        return if words.is_empty() { Ok(()) } else { put(fields, many, words) };
    }
    let names = places(word);
    if let Some(word) = words.get(names.len()) {
        return Err(usage(format!("`{word}` is one argument too many")));
    }
    for (name, text) in names.iter().zip(words) {
        let value = match *name {
            "packages" => json!([text]),
            "number" => json!(text.parse::<u64>().map_err(|_| usage(format!("`{text}` is no number")))?),
            _ => json!(text),
        };
        put(fields, name, value)?;
    }
    Ok(())
}

fn rollout(fields: &mut Fields) -> Result<(), Failure> {
    let percent = take(fields, "percent");
    let (rings, steps) = (texts(fields, "ring")?, texts(fields, "steps")?);
    let emergency = flag(fields, "emergency")?;
    if percent.is_none() && rings.is_empty() && steps.is_empty() && !emergency {
        return Ok(());
    }
    let percent = percent.unwrap_or_else(|| "100".to_owned());
    let percent = percent.parse().map_err(|_| usage(format!("`{percent}` is no percentage")))?;
    put(fields, "rollout", values::rollout(percent, rings, emergency, &steps)?)
}

fn access(fields: &mut Fields) -> Result<(), Failure> {
    match &texts(fields, "ring")?[..] {
        [] => {}
        [ring] => put(fields, "ring", ring)?,
        _ => return Err(usage("a client is in one ring".to_owned())),
    }
    let mut access = Map::new();
    for name in ["limit", "token_file", "client_cert", "client_key", "ca"] {
        if let Some(value) = fields.remove(name) {
            check_absolute(Some(&value))?;
            access.insert(name.to_owned(), value);
        }
    }
    if access.is_empty() { Ok(()) } else { put(fields, "access", access) }
}

fn limits(fields: &mut Fields) -> Result<(), Failure> {
    let bps = |percent: Option<String>| percent.map(|percent| values::bps_of(&percent)).transpose();
    let samples = number(fields, "samples")?;
    let limits = Limits {
        failure_bps: bps(take(fields, "failures"))?,
        rollback_bps: bps(take(fields, "rollbacks"))?,
        install_ms: number(fields, "install_time")?,
        min_samples: samples.map_or(1, |samples| u32::try_from(samples).unwrap_or(u32::MAX)),
    };
    if flag(fields, "none")? || !limits.is_empty() { put(fields, "limits", limits) } else { Ok(()) }
}

fn notify(fields: &mut Fields) -> Result<(), Failure> {
    let command = texts(fields, "command")?;
    let (webhook, template, only) = (take(fields, "webhook"), take(fields, "template"), texts(fields, "only")?);
    let changes = flag(fields, "none")? || webhook.is_some() || !command.is_empty();
    let notify = Notify { webhook, command, template, only, told: 0 };
    if changes { put(fields, "notify", notify) } else { Ok(()) }
}

fn put(fields: &mut Fields, name: &str, value: impl Serialize) -> Result<(), Failure> {
    match fields.insert(name.to_owned(), json!(value)) {
        None => Ok(()),
        Some(_) => Err(usage(format!("`{name}` is given twice"))),
    }
}

/// Takes a text out, or a number as a text.
fn take(fields: &mut Fields, name: &str) -> Option<String> {
    match fields.remove(name)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        value => Some(value.to_string()),
    }
}

fn number(fields: &mut Fields, name: &str) -> Result<Option<u64>, Failure> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            value.as_u64().map(Some).ok_or_else(|| usage(format!("the field `{name}` takes a number, without quotes")))
        }
    }
}

fn flag(fields: &mut Fields, name: &str) -> Result<bool, Failure> {
    match fields.remove(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(_) => Err(usage(format!("the field `{name}` takes true or false"))),
    }
}

/// Takes a list of texts out, or one text as such a list.
fn texts(fields: &mut Fields, name: &str) -> Result<Vec<String>, Failure> {
    let list = match fields.remove(name) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(value) => vec![value],
    };
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        _ => Err(usage(format!("the field `{name}` takes texts"))),
    };
    list.into_iter().map(text).collect()
}

/// That a path begins at the root: whoever writes a request works in a directory that the mount does not know.
fn check_absolute(value: Option<&Value>) -> Result<(), Failure> {
    let list =
        value.and_then(Value::as_array).map_or_else(|| value.into_iter().collect(), |list| list.iter().collect());
    let paths: Vec<&str> = Vec::into_iter(list).filter_map(Value::as_str).collect();
    match paths.into_iter().find(|path| !path.starts_with('/')) {
        Some(path) => Err(usage(format!("`{path}` is no absolute path"))),
        None => Ok(()),
    }
}
