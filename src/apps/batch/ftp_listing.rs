//! What FTP servers say of files: the facts of `MLSD` and `MLST` (RFC 3659), and lines of `LIST` where there is nothing
//! better.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use suppaftp::Encoding;

use super::filesystem::Modified;
use super::walk::{Kind, Listed};

/// Names as they are: each byte is the character of its number, so that no name is changed on the way.
#[derive(Debug)]
pub struct Bytes;

impl Encoding for Bytes {
    fn decode(&self, bytes: &[u8]) -> String {
        to_text(bytes)
    }

    fn encode(&self, text: &str) -> std::io::Result<Vec<u8>> {
        from_text(text).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))
    }
}

/// The text that stands for bytes.
pub fn to_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The bytes that a text stands for.
pub fn from_text(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

/// What the facts of a file say.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What it is; `None` for the directory itself and the one above.
    pub kind: Option<Kind>,
    /// Its length in bytes, as far as the server tells.
    pub size: Option<u64>,
    /// When it was changed.
    pub modified: Option<Modified>,
    /// Its mode, where the server knows one.
    pub mode: Option<u32>,
}

/// Reads `fact=value;fact=value; name`; the rest is the name.
pub fn facts(line: &[u8]) -> Option<(Facts, &[u8])> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let (facts, name) = (std::str::from_utf8(&line[..space]).ok()?, &line[space + 1..]);
    let mut found = Facts { kind: Some(Kind::Other), size: None, modified: None, mode: None };
    for fact in facts.split(';').filter(|fact| !fact.is_empty()) {
        let (key, value) = fact.split_once('=')?;
        match &*key.to_ascii_lowercase() {
            "type" => {
                found.kind = match &*value.to_ascii_lowercase() {
                    "file" => Some(Kind::File),
                    "dir" => Some(Kind::Directory),
                    "cdir" | "pdir" => None,
                    _ => Some(Kind::Other),
                }
            }
            "size" => found.size = Some(value.parse().ok()?),
            "modify" => found.modified = time(value),
            "unix.mode" => found.mode = u32::from_str_radix(value, 8).ok(),
            _ => {}
        }
    }
    Some((found, name))
}

/// Reads `YYYYMMDDHHMMSS`, perhaps with a fraction; always UTC.
pub fn time(text: &str) -> Option<Modified> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.len() != 14 || fraction.len() > 9 || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let number = |from: usize, to: usize| whole[from..to].parse::<i8>().ok();
    let step_ns = 10i64.pow(9 - u32::try_from(fraction.len()).ok()?);
    let nanoseconds = if fraction.is_empty() { 0 } else { fraction.parse::<i64>().ok()? * step_ns };
    let (year, month, day) = (whole[..4].parse().ok()?, number(4, 6)?, number(6, 8)?);
    // A leap second is the one before it.
    let second = number(12, 14)?.min(59);
    let at = DateTime::new(year, month, day, number(8, 10)?, number(10, 12)?, second, 0).ok()?;
    let seconds = at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    Some(Modified { unix_ns: seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)?, step_ns })
}

/// What a line of a listing is.
#[derive(Debug)]
pub enum Line {
    /// A name.
    Name(Listed),
    /// The directory itself, the one above, or a summary.
    Nothing,
    /// Not to be understood.
    Unknown,
}

/// Reads a line of `MLSD`.
pub fn facts_line(line: &[u8]) -> Line {
    match facts(line) {
        None => Line::Unknown,
        Some((_, b"." | b"..")) => Line::Nothing,
        Some((Facts { kind: None, .. }, _)) => Line::Nothing,
        Some((Facts { kind: Some(kind), size, modified, .. }, name)) => {
            Line::Name(Listed { name: name.to_vec(), kind, size: size.unwrap_or(0), modified, etag: None })
        }
    }
}

/// Reads a line of `LIST`, as servers on Unix and Windows write them. The times that stand there are of a zone that
/// nobody knows, and to the minute or the day, so none is taken.
pub fn list_line(line: &[u8]) -> Line {
    if line.starts_with(b"total ") {
        return Line::Nothing;
    }
    match unix(line).or_else(|| windows(line)) {
        Some((_, _, b"." | b"..")) => Line::Nothing,
        Some((kind, size, name)) if !name.is_empty() => {
            Line::Name(Listed { name: name.to_vec(), kind, size, modified: None, etag: None })
        }
        _ => Line::Unknown,
    }
}

type Parts<'a> = (Kind, u64, &'a [u8]);

/// The next word, and what follows it.
fn word(line: &[u8]) -> Option<(&str, &[u8])> {
    let start = line.iter().position(|byte| *byte != b' ')?;
    let line = &line[start..];
    let end = line.iter().position(|byte| *byte == b' ')?;
    Some((std::str::from_utf8(&line[..end]).ok()?, &line[end..]))
}

/// `-rw-r--r-- 1 user group 1234 Nov 5 13:46 name`; some servers leave the group out.
fn unix(line: &[u8]) -> Option<Parts<'_>> {
    let (mode, mut rest) = word(line)?;
    let kind = match (mode.as_bytes().first()?, mode.len()) {
        (b'-', 10..) => Kind::File,
        (b'd', 10..) => Kind::Directory,
        (b'l' | b'b' | b'c' | b'p' | b's', 10..) => Kind::Other,
        _ => return None,
    };
    let mut before = "";
    for number in 0.. {
        let (this, after) = word(rest)?;
        rest = after;
        let is_month = this.len() == 3 && this.bytes().all(|byte| byte.is_ascii_alphabetic());
        if let (true, 3.., Ok(size)) = (is_month, number, before.parse()) {
            let (_day, rest) = word(rest)?;
            let (_time, rest) = word(rest)?;
            return Some((kind, size, rest.strip_prefix(b" ")?));
        }
        if number > 6 {
            return None;
        }
        before = this;
    }
    None
}

/// `10-19-20  03:19PM  <DIR>  name`, or a length instead of `<DIR>`.
fn windows(line: &[u8]) -> Option<Parts<'_>> {
    let (date, rest) = word(line)?;
    let (_time, rest) = word(rest)?;
    let (what, rest) = word(rest)?;
    if !date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return None;
    }
    let name = rest.trim_ascii_start();
    if what == "<DIR>" { Some((Kind::Directory, 0, name)) } else { Some((Kind::File, what.parse().ok()?, name)) }
}
