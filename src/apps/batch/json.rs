//! JSON that is changed as RFC 6902 says, and else left as it was: order, numbers and layout of what stays.

use serde::{Deserialize, Serialize};

/// Deepest nesting, of what is read and of what a patch makes.
const DEPTH_MAX: usize = 128;
/// What a value takes besides its text, in bytes.
const VALUE_LEN: usize = size_of::<Json>();

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

/// Applies a patch to a document. All of it, or an error; so is a result, or copies together, of more than `len_max`
/// bytes.
pub fn apply(document: &[u8], patch: &[PatchOp], len_max: usize) -> Refused<Vec<u8>> {
    let text = std::str::from_utf8(document).map_err(|_| "it is not UTF-8".to_owned())?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
    let mut root = reader.value(0)?;
    let mut room = len_max;
    for operation in patch {
        step(&mut root, operation, &mut room)?;
    }
    let mut out = String::with_capacity(text.len());
    let indent = text.lines().find_map(|line| {
        let inner = line.trim_start_matches([' ', '\t']);
        (inner.len() < line.len() && !inner.is_empty()).then(|| &line[..line.len() - inner.len()])
    });
    root.write(&mut Out { text: &mut out, len_max }, indent.filter(|_| text.trim().contains('\n')), 0);
    if out.len() > len_max {
        return Err(format!("the result is longer than {len_max} bytes"));
    }
    if text.ends_with('\n') {
        out.push('\n');
    }
    Ok(out.into_bytes())
}

/// Does one operation; `room` is how much may still be copied.
fn step(root: &mut Json, operation: &PatchOp, room: &mut usize) -> Refused<()> {
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
            let left = room.checked_sub(value.len());
            *room = left.ok_or_else(|| format!("copying `{from}` to `{path}` makes the document too long"))?;
            let value = value.clone();
            add(root, path, value)
        }
        PatchOp::Test { path, value } => {
            let mut text = String::new();
            find(root, path)?.write(&mut Out { text: &mut text, len_max: usize::MAX }, None, 0);
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

/// That a value is not nested too deeply where it is put.
fn check_depth(pointer: &str, value: &Json) -> Refused<()> {
    match tokens(pointer)?.len() + value.height() {
        0..=DEPTH_MAX => Ok(()),
        _ => Err(format!("what is put at `{pointer}` is nested too deeply")),
    }
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

/// A text that takes little more than `len_max` bytes; the rest is left out.
struct Out<'a> {
    text: &'a mut String,
    len_max: usize,
}

impl Out<'_> {
    fn push(&mut self, text: &str) {
        if self.text.len() <= self.len_max {
            self.text.push_str(text);
        }
    }
}

impl Json {
    /// How many levels of values are in it.
    fn height(&self) -> usize {
        let below = match self {
            Json::Plain(_) => None,
            Json::Array(items) => items.iter().map(Json::height).max(),
            Json::Object(members) => members.iter().map(|(_, value)| value.height()).max(),
        };
        below.map_or(0, |below| below + 1)
    }

    /// What it takes in memory, about, in bytes.
    fn len(&self) -> usize {
        let inside: usize = match self {
            Json::Plain(text) => text.len(),
            Json::Array(items) => items.iter().map(Json::len).sum(),
            Json::Object(members) => members.iter().map(|(name, value)| VALUE_LEN + name.len() + value.len()).sum(),
        };
        VALUE_LEN + inside
    }

    fn write(&self, out: &mut Out<'_>, indent: Option<&str>, depth: usize) {
        let line = |out: &mut Out<'_>, depth: usize| {
            if let Some(indent) = indent {
                out.push("\n");
                (0..depth).for_each(|_| out.push(indent));
            }
        };
        match self {
            Json::Plain(text) => out.push(text),
            Json::Array(items) => {
                out.push("[");
                for (number, item) in items.iter().enumerate() {
                    out.push(if number > 0 { "," } else { "" });
                    line(out, depth + 1);
                    item.write(out, indent, depth + 1);
                }
                if !items.is_empty() {
                    line(out, depth);
                }
                out.push("]");
            }
            Json::Object(members) => {
                out.push("{");
                for (number, (name, value)) in members.iter().enumerate() {
                    out.push(if number > 0 { "," } else { "" });
                    line(out, depth + 1);
                    out.push(name);
                    out.push(if indent.is_some() { ": " } else { ":" });
                    value.write(out, indent, depth + 1);
                }
                if !members.is_empty() {
                    line(out, depth);
                }
                out.push("}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(document: &str, patch: &str, len_max: usize) -> Refused<String> {
        let patch: Vec<PatchOp> = serde_json::from_str(patch).unwrap();
        apply(document.as_bytes(), &patch, len_max).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_patch_that_copies_the_document_into_itself_again_and_again_is_refused() {
        let copies: Vec<String> =
            (0..40).map(|number| format!(r#"{{"op": "copy", "from": "/a", "path": "/a/{number}"}}"#)).collect();
        let error = patched(r#"{"a": {"b": "text"}}"#, &format!("[{}]", copies.join(",")), 1 << 20).unwrap_err();
        assert!(error.starts_with("copying `/a` to `/a/") && error.ends_with("makes the document too long"), "{error}");
    }

    #[test]
    fn a_patch_does_not_nest_a_document_more_deeply_than_one_is_read() {
        let deeper = |count: usize| {
            let once = r#"{"op": "add", "path": "/a", "value": {}}, {"op": "copy", "from": "/a", "path": "/a/b"}"#;
            let path = |number: usize| format!("/a{}", "/b".repeat(number));
            let more = (1..count)
                .map(|number| format!(r#", {{"op": "add", "path": "{}", "value": {{"b": 1}}}}"#, path(number)));
            patched("{}", &format!("[{once}{}]", more.collect::<String>()), 1 << 20)
        };
        assert!(deeper(120).is_ok());
        let error = deeper(200).unwrap_err();
        assert!(error.ends_with("is nested too deeply"), "{error}");
    }

    #[test]
    fn an_indentation_that_makes_a_document_too_long_is_refused() {
        let document = format!("[\n{}1{}]", " ".repeat(10_000), ", 1".repeat(1000));
        let error = patched(&document, "[]", 1 << 20).unwrap_err();
        assert_eq!(error, "the result is longer than 1048576 bytes");
        assert!(patched(&document, "[]", 1 << 25).is_ok());
    }
}
