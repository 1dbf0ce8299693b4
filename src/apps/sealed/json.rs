//! A strict reader of JSON (RFC 8259) that keeps nothing: it only says whether a text is one object.
//!
//! The document is secret, so no copies of its strings are made, as a parser into values would. Names are compared by
//! their keyed hashes.

use std::collections::HashSet;
use std::ops::Range;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::base::random;

/// Where a name and its value lie.
pub(super) type Member = (Range<usize>, Range<usize>);

/// Deepest nesting of arrays and objects.
const DEPTH_MAX: usize = 128;

/// Why a text is no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON.
    #[error("it is no JSON text (RFC 8259), from byte {at} on")]
    Syntax {
        /// The first byte that does not fit.
        at: usize,
    },
    /// JSON, but no object.
    #[error("it must be a JSON object, as {{\"name\": \"value\"}}")]
    NoObject,
    /// A name comes twice in one object.
    #[error("an object has the same name twice, the second ending at byte {at}")]
    Duplicate {
        /// The byte after the second one.
        at: usize,
    },
    /// Nested too deeply.
    #[error("it is nested more deeply than {DEPTH_MAX}")]
    TooDeep,
}

/// Checks that the text is one JSON object, with nothing but white space around it.
pub fn check_object(text: &[u8]) -> Result<(), JsonError> {
    let mut reader = Reader { text, at: 0, key: random::bytes() };
    reader.skip_space();
    let is_object = reader.peek() == Some(b'{');
    reader.value(0)?;
    reader.skip_space();
    match reader.peek() {
        Some(_) => reader.wrong(),
        None if !is_object => Err(JsonError::NoObject),
        None => Ok(()),
    }
}

/// Where the members of an object lie in its text: each name, with its quotes, and its value.
pub(super) fn members(text: &[u8]) -> Result<Vec<Member>, JsonError> {
    check_object(text)?;
    let mut reader = Reader { text, at: 0, key: [0; 32] };
    let mut members = Vec::new();
    reader.skip_space();
    reader.take(b"{")?;
    reader.skip_space();
    while !reader.take_if(b'}') {
        let name = reader.at;
        reader.string(|_| {})?;
        let name = name..reader.at;
        reader.skip_space();
        reader.take(b":")?;
        reader.skip_space();
        let value = reader.at;
        reader.value(1)?;
        members.push((name, value..reader.at));
        reader.skip_space();
        reader.take_if(b',');
        reader.skip_space();
    }
    Ok(members)
}

/// What a string of JSON, with its quotes, stands for. The buffer does not grow, so nothing is left behind.
pub(super) fn string(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, JsonError> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len()));
    Reader { text, at: 0, key: [0; 32] }.string(|part| out.extend_from_slice(part))?;
    Ok(out)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// Makes the hashes of names mean nothing outside.
    key: [u8; 32],
}

impl Reader<'_> {
    fn wrong<T>(&self) -> Result<T, JsonError> {
        Err(JsonError::Syntax { at: self.at })
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, expected: &[u8]) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(expected) {
            return self.wrong();
        }
        self.at += expected.len();
        Ok(())
    }

    fn take_if(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        if depth > DEPTH_MAX {
            return Err(JsonError::TooDeep);
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(|_| {}),
            Some(b't') => self.take(b"true"),
            Some(b'f') => self.take(b"false"),
            Some(b'n') => self.take(b"null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonError> {
        let mut names = HashSet::new();
        self.take(b"{")?;
        self.skip_space();
        if self.take_if(b'}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            let mut hash = Sha256::new();
            hash.update(self.key);
            self.string(|part| hash.update(part))?;
            if !names.insert(<[u8; 32]>::from(hash.finalize())) {
                return Err(JsonError::Duplicate { at: self.at });
            }
            self.skip_space();
            self.take(b":")?;
            self.skip_space();
            self.value(depth + 1)?;
            self.skip_space();
            if self.take_if(b'}') {
                return Ok(());
            }
            self.take(b",")?;
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        self.take(b"[")?;
        self.skip_space();
        if self.take_if(b']') {
            return Ok(());
        }
        loop {
            self.skip_space();
            self.value(depth + 1)?;
            self.skip_space();
            if self.take_if(b']') {
                return Ok(());
            }
            self.take(b",")?;
        }
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return self.wrong();
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.take_if(b'-');
        if !self.take_if(b'0') {
            self.digits()?;
        }
        if self.take_if(b'.') {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if !self.take_if(b'+') {
                self.take_if(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    /// Reads a string and gives its characters, as UTF-8, piece by piece.
    fn string(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), JsonError> {
        self.take(b"\"")?;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    let character = self.escape()?;
                    each(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(0..0x20) | None => return self.wrong(),
                Some(first) => {
                    let len = match first {
                        0..0x80 => 1,
                        0xc0..0xe0 => 2,
                        0xe0..0xf0 => 3,
                        _ => 4,
                    };
                    let bytes = self.text.get(self.at..self.at + len).unwrap_or_default();
                    if bytes.is_empty() || std::str::from_utf8(bytes).is_err() {
                        return self.wrong();
                    }
                    each(bytes);
                    self.at += len;
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        self.take(b"\\")?;
        let plain = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return self.wrong(),
        };
        self.at += 1;
        Ok(plain)
    }

    /// `u` and four digits, or a pair of surrogates.
    fn unicode(&mut self) -> Result<char, JsonError> {
        let high = self.unit()?;
        let code = if (0xd800..0xdc00).contains(&high) {
            self.take(b"\\")?;
            let low = self.unit()?;
            if !(0xdc00..0xe000).contains(&low) {
                return self.wrong();
            }
            0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
        } else {
            high
        };
        char::from_u32(code).map_or_else(|| self.wrong(), Ok)
    }

    fn unit(&mut self) -> Result<u32, JsonError> {
        self.take(b"u")?;
        let mut unit = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(16)) else { return self.wrong() };
            unit = unit * 16 + digit;
            self.at += 1;
        }
        Ok(unit)
    }
}
