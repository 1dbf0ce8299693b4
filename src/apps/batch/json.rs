//! JSON that is changed as RFC 6902 says, and else left as it was: order, numbers and layout of what stays.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

use super::process::RESULT_LEN_MAX;

/// Deepest nesting of a document, before and after.
const DEPTH_MAX: usize = 128;
/// Longest indentation that is taken over, in bytes.
const INDENT_LEN_MAX: usize = 16;
/// Most memory that all copies of one patch may take, in bytes.
const COPIED_LEN_MAX: usize = 256 << 20;

/// One operation of a patch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum PatchOp {
    /// Puts a value into an object or array.
    Add {
        /// Where (RFC 6901).
        path: String,
        /// What.
        value: serde_json::Value,
    },
    /// Takes a value away.
    Remove {
        /// Where.
        path: String,
    },
    /// Puts a value in the place of another.
    Replace {
        /// Where.
        path: String,
        /// What.
        value: serde_json::Value,
    },
    /// Takes a value away and adds it elsewhere.
    Move {
        /// From where.
        from: String,
        /// Where to.
        path: String,
    },
    /// Adds a copy of a value elsewhere.
    Copy {
        /// From where.
        from: String,
        /// Where to.
        path: String,
    },
    /// Fails unless the value is this one.
    Test {
        /// Where.
        path: String,
        /// What.
        value: serde_json::Value,
    },
}

/// A value; numbers and texts as they were written.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Plain(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

type Refused<T> = Result<T, String>;

/// Applies a patch to a document. All of it, or an error.
pub fn apply(document: &[u8], patch: &[PatchOp]) -> Refused<Vec<u8>> {
    let text = std::str::from_utf8(document).map_err(|_| "it is not UTF-8".to_owned())?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
    let mut root = reader.value(0)?;
    let mut left = COPIED_LEN_MAX;
    for (number, operation) in patch.iter().enumerate() {
        step(&mut root, operation, &mut left)
            .map_err(|reason| format!("operation {} of the patch: {reason}", number + 1))?;
    }
    let indent = text.lines().find_map(|line| {
        let inner = line.trim_start_matches([' ', '\t']);
        (inner.len() < line.len() && !inner.is_empty()).then(|| &line[..line.len() - inner.len()])
    });
    let indent = indent.filter(|_| text.trim().contains('\n'));
    let indent = indent.map(|indent| if indent.len() <= INDENT_LEN_MAX { indent } else { "  " });
    let layout = Layout::new(indent);
    // Indentations add up, so what is written is measured before.
    let mut len = Length(0);
    let too_long = |_| format!("the result is longer than {RESULT_LEN_MAX} bytes");
    root.write(&mut len, &layout, 0).map_err(too_long)?;
    let mut out = String::with_capacity(len.0 + 1);
    root.write(&mut out, &layout, 0).map_err(too_long)?;
    if text.ends_with('\n') {
        out.push('\n');
    }
    Ok(out.into_bytes())
}

/// Applies one operation; `left` is how much memory copies may still take.
fn step(root: &mut Json, operation: &PatchOp, left: &mut usize) -> Refused<()> {
    match operation {
        PatchOp::Add { path, value } => add(root, path, value_of(value)?),
        PatchOp::Remove { path } => remove(root, path).map(drop),
        PatchOp::Replace { path, value } => {
            let value = value_of(value)?;
            check_depth(path, &value)?;
            *find(root, path)? = value;
            Ok(())
        }
        PatchOp::Move { from, path } => {
            if path.strip_prefix(&**from).is_some_and(|rest| rest.starts_with('/')) {
                return Err(format!("`{from}` cannot be moved into itself"));
            }
            let value = remove(root, from)?;
            add(root, path, value)
        }
        PatchOp::Copy { from, path } => {
            let value = find(root, from)?;
            let rest = left.checked_sub(value.size());
            *left = rest.ok_or_else(|| {
                format!("with a copy of `{from}` at `{path}` the copies take more than {COPIED_LEN_MAX} bytes")
            })?;
            let value = value.clone();
            add(root, path, value)
        }
        PatchOp::Test { path, value } => {
            let mut text = String::new();
            find(root, path)?.write(&mut text, &Layout::new(None), 0).map_err(|error| error.to_string())?;
            let found: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            if found == *value { Ok(()) } else { Err(format!("`{path}` is not what the patch expects")) }
        }
    }
}

fn value_of(value: &serde_json::Value) -> Refused<Json> {
    let text = value.to_string();
    Reader { bytes: text.as_bytes(), at: 0 }.value(0)
}

/// The tokens of a pointer (RFC 6901).
fn tokens(pointer: &str) -> Refused<Vec<String>> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let rest = pointer.strip_prefix('/').ok_or_else(|| format!("`{pointer}` is no JSON pointer"))?;
    Ok(rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
}

fn find<'a>(root: &'a mut Json, pointer: &str) -> Refused<&'a mut Json> {
    let missing = || format!("`{pointer}` is not there");
    let mut at = root;
    for token in tokens(pointer)? {
        at = match at {
            Json::Array(items) => index(&token).and_then(|index| items.get_mut(index)).ok_or_else(missing)?,
            Json::Object(members) => members
                .iter_mut()
                .find(|(name, _)| is_name(name, &token))
                .map(|(_, value)| value)
                .ok_or_else(missing)?,
            Json::Plain(_) => return Err(missing()),
        };
    }
    Ok(at)
}

fn index(token: &str) -> Option<usize> {
    let is_plain = token == "0" || !token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| token.parse().ok())?
}

/// Whether a name as it is written stands for a text.
fn is_name(written: &str, text: &str) -> bool {
    serde_json::from_str::<String>(written).is_ok_and(|name| name == text)
}

fn parent_of(pointer: &str) -> Refused<(String, String)> {
    let names = tokens(pointer)?;
    let Some(last) = names.last() else { return Err("the whole document cannot be taken away".to_owned()) };
    let parent = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
    Ok((parent.to_owned(), last.clone()))
}

/// Fails when a value at a pointer would be nested too deeply.
fn check_depth(pointer: &str, value: &Json) -> Refused<()> {
    if tokens(pointer)?.len() + value.depth() > DEPTH_MAX {
        return Err(format!("`{pointer}` would be nested more than {DEPTH_MAX} deep"));
    }
    Ok(())
}

fn add(root: &mut Json, pointer: &str, value: Json) -> Refused<()> {
    check_depth(pointer, &value)?;
    if pointer.is_empty() {
        *root = value;
        return Ok(());
    }
    let (parent, name) = parent_of(pointer)?;
    match find(root, &parent)? {
        Json::Array(items) => {
            let at = if name == "-" { Some(items.len()) } else { index(&name) };
            let at = at.filter(|at| *at <= items.len()).ok_or_else(|| format!("`{pointer}` is not in the array"))?;
            items.insert(at, value);
        }
        Json::Object(members) => match members.iter_mut().find(|(known, _)| is_name(known, &name)) {
            Some((_, old)) => *old = value,
            None => members.push((serde_json::Value::from(name).to_string(), value)),
        },
        Json::Plain(_) => return Err(format!("`{parent}` holds nothing")),
    }
    Ok(())
}

fn remove(root: &mut Json, pointer: &str) -> Refused<Json> {
    let missing = || format!("`{pointer}` is not there");
    let (parent, name) = parent_of(pointer)?;
    match find(root, &parent)? {
        Json::Array(items) => {
            let at = index(&name).filter(|at| *at < items.len()).ok_or_else(missing)?;
            Ok(items.remove(at))
        }
        Json::Object(members) => {
            let at = members.iter().position(|(known, _)| is_name(known, &name)).ok_or_else(missing)?;
            Ok(members.remove(at).1)
        }
        Json::Plain(_) => Err(missing()),
    }
}

/// Reads what was found to be JSON already.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn skip(&mut self) -> u8 {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn value(&mut self, depth: usize) -> Refused<Json> {
        if depth > DEPTH_MAX {
            return Err("it is nested too deeply".to_owned());
        }
        match self.skip() {
            b'[' => {
                let mut items = Vec::new();
                self.at += 1;
                while self.skip() != b']' {
                    items.push(self.value(depth + 1)?);
                    self.comma()?;
                }
                self.at += 1;
                Ok(Json::Array(items))
            }
            b'{' => {
                let mut members: Vec<(String, Json)> = Vec::new();
                self.at += 1;
                while self.skip() != b'}' {
                    let name = self.text();
                    if self.skip() != b':' {
                        return Err("it is no JSON".to_owned());
                    }
                    self.at += 1;
                    let value = self.value(depth + 1)?;
                    members.push((name, value));
                    self.comma()?;
                }
                self.at += 1;
                Ok(Json::Object(members))
            }
            b'"' => Ok(Json::Plain(self.text())),
            0 => Err("it is no JSON".to_owned()),
            _ => {
                let start = self.at;
                let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}');
                self.at += self.bytes[start..].iter().position(is_end).unwrap_or(self.bytes.len() - start).max(1);
                Ok(Json::Plain(String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned()))
            }
        }
    }

    fn comma(&mut self) -> Refused<()> {
        match self.skip() {
            b',' => self.at += 1,
            b']' | b'}' => {}
            _ => return Err("it is no JSON".to_owned()),
        }
        Ok(())
    }

    /// A text with its quotes, as it is written.
    fn text(&mut self) -> String {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.bytes.get(self.at) {
            self.at += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                break;
            }
        }
        self.at = self.at.min(self.bytes.len());
        String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned()
    }
}

/// Where lines begin.
struct Layout {
    /// The indentation of the deepest line; none when all is on one line.
    blanks: Option<String>,
    indent_len: usize,
}

impl Layout {
    fn new(indent: Option<&str>) -> Self {
        let blanks = indent.map(|indent| indent.repeat(DEPTH_MAX + 1));
        Self { blanks, indent_len: indent.map_or(0, str::len) }
    }

    fn line(&self, out: &mut dyn Write, depth: usize) -> fmt::Result {
        let Some(blanks) = &self.blanks else { return Ok(()) };
        out.write_str("\n")?;
        out.write_str(&blanks[..depth * self.indent_len])
    }
}

/// Counts what is written; fails when that is longer than a result may be.
struct Length(usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        if self.0 > RESULT_LEN_MAX { Err(fmt::Error) } else { Ok(()) }
    }
}

impl Json {
    /// How deep the deepest value in it lies.
    fn depth(&self) -> usize {
        match self {
            Json::Plain(_) => 0,
            Json::Array(items) => items.iter().map(|item| 1 + item.depth()).max().unwrap_or(0),
            Json::Object(members) => members.iter().map(|(_, value)| 1 + value.depth()).max().unwrap_or(0),
        }
    }

    /// The memory that it takes, in bytes.
    fn size(&self) -> usize {
        let within: usize = match self {
            Json::Plain(text) => text.len(),
            Json::Array(items) => items.iter().map(Json::size).sum(),
            Json::Object(members) => {
                members.iter().map(|(name, value)| size_of::<String>() + name.len() + value.size()).sum()
            }
        };
        size_of::<Json>() + within
    }

    fn write(&self, out: &mut dyn Write, layout: &Layout, depth: usize) -> fmt::Result {
        match self {
            Json::Plain(text) => out.write_str(text),
            Json::Array(items) => {
                out.write_str("[")?;
                for (number, item) in items.iter().enumerate() {
                    out.write_str(if number > 0 { "," } else { "" })?;
                    layout.line(out, depth + 1)?;
                    item.write(out, layout, depth + 1)?;
                }
                if !items.is_empty() {
                    layout.line(out, depth)?;
                }
                out.write_str("]")
            }
            Json::Object(members) => {
                out.write_str("{")?;
                for (number, (name, value)) in members.iter().enumerate() {
                    out.write_str(if number > 0 { "," } else { "" })?;
                    layout.line(out, depth + 1)?;
                    out.write_str(name)?;
                    out.write_str(if layout.blanks.is_some() { ": " } else { ":" })?;
                    value.write(out, layout, depth + 1)?;
                }
                if !members.is_empty() {
                    layout.line(out, depth)?;
                }
                out.write_str("}")
            }
        }
    }
}
