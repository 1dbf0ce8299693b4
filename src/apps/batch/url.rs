//! Addresses of sources: `SCHEME://[USER@]HOST[:PORT]/PATH`, without passwords.

use super::error::{BatchError, Result};

/// An address in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// What stands before `://`.
    pub scheme: String,
    /// The user.
    pub user: Option<String>,
    /// The host; empty where there is none.
    pub host: String,
    /// The port.
    pub port: Option<u16>,
    /// The path, beginning with `/`, percent-decoded.
    pub path: String,
}

impl Url {
    /// Reads an address. It is not repeated in errors, since somebody may have put a secret into it.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |reason: &str| BatchError::Job(format!("the source's address {reason}"));
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("is not SCHEME://HOST/PATH"))?;
        let (place, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/"),
        };
        let (user, host) = match place.rsplit_once('@') {
            Some((user, host)) => (Some(decode(user).ok_or_else(|| bad("has a bad `%`"))?), host),
            None => (None, place),
        };
        if user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err(bad("holds a password; use password_env, password_file or password_keyring"));
        }
        let (host, port) = match host.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| bad("has a bad port"))?)),
            None => (host, None),
        };
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let path = decode(path).filter(|path| !path.contains('\0')).ok_or_else(|| bad("has a bad `%`"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { scheme: scheme.to_ascii_lowercase(), user, host, port, path })
    }
}

fn decode(text: &str) -> Option<String> {
    String::from_utf8(decode_bytes(text)?).ok()
}

/// What percent signs stand for; `None` when one stands for nothing.
pub(super) fn decode_bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*byte);
        }
    }
    Some(bytes)
}

/// A path as it stands in an address: everything else than letters, digits, `-._~` and `/` by percent signs.
pub(super) fn encode(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(*byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
