//! Addresses of stores: `PATH`, `file:///PATH`, `s3://BUCKET/PREFIX?endpoint=…&region=…&profile=…&path_style=…`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::{DirStore, ObjectStore, Result, S3Config, S3Store, StoreError};
use crate::base::disk::Disk;

/// Why an address could not be read. Addresses are not repeated, since someone may have put a
/// secret into one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Nothing was given.
    #[error("the store's address is empty; give a directory or s3://BUCKET/PREFIX")]
    Empty,
    /// Not `file` or `s3`.
    #[error("stores of kind `{scheme}://` are not known; give a directory or s3://BUCKET/PREFIX")]
    Scheme {
        /// What stands before `://`.
        scheme: String,
    },
    /// A `file:` address that names no absolute path of this machine.
    #[error("a file address is written file:///ABSOLUTE/PATH, without a host")]
    File,
    /// No bucket, or one that S3 does not allow.
    #[error("s3://BUCKET/PREFIX needs a bucket of 3 to 255 letters, digits, `.`, `_` and `-`")]
    Bucket,
    /// Credentials inside of the address.
    #[error("credentials do not belong in an address; use the AWS environment variables or a profile")]
    Credentials,
    /// Bad prefix.
    #[error("the prefix must not have empty, `.` or `..` segments or control characters")]
    Prefix,
    /// Unknown query key.
    #[error("`{key}` is not known; an s3 address takes endpoint, region, profile and path_style")]
    Key {
        /// The key.
        key: String,
    },
    /// The same query key twice.
    #[error("`{key}` is given twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// Bad value of a query key.
    #[error("{key} must be {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// Bad percent-encoding.
    #[error("a `%` must be followed by two hexadecimal digits, and the result must be UTF-8 text")]
    Percent,
}

/// Where a store is in S3.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct S3Address {
    /// The bucket.
    pub bucket: String,
    /// What stands before every object's name, without slashes at the ends; may be empty.
    pub prefix: String,
    /// `http(s)://HOST[:PORT]` of a server other than AWS.
    pub endpoint: Option<String>,
    /// The region; else from the environment or the profile.
    pub region: Option<String>,
    /// The profile in the AWS configuration files.
    pub profile: Option<String>,
    /// Whether the bucket goes into the path instead of the host name; unless given, on when an
    /// endpoint is.
    pub path_style: Option<bool>,
}

/// The address of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A directory, absolute or relative to the current one.
    Dir(PathBuf),
    /// A bucket, or a part of one.
    S3(S3Address),
}

impl FromStr for StoreUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> std::result::Result<Self, UrlError> {
        let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
            return if text.is_empty() { Err(UrlError::Empty) } else { Ok(Self::Dir(PathBuf::from(text))) };
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => {
                let path = decode(rest.strip_prefix("localhost").unwrap_or(rest))?;
                if !path.starts_with('/') || path.contains('\0') {
                    return Err(UrlError::File);
                }
                Ok(Self::Dir(PathBuf::from(path)))
            }
            "s3" => S3Address::parse(rest).map(Self::S3),
            other => Err(UrlError::Scheme { scheme: other.to_owned() }),
        }
    }
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

impl S3Address {
    /// Reads what follows `s3://`.
    fn parse(rest: &str) -> std::result::Result<Self, UrlError> {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.contains('@') {
            return Err(UrlError::Credentials);
        }
        let ok = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if !(3..=255).contains(&bucket.len()) || !bucket.bytes().all(ok) || bucket.starts_with('.') {
            return Err(UrlError::Bucket);
        }
        let prefix = decode(prefix.trim_end_matches('/'))?;
        let segment_ok = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains(char::is_control);
        if !prefix.is_empty() && (prefix.len() > 512 || !prefix.split('/').all(segment_ok)) {
            return Err(UrlError::Prefix);
        }
        let mut address = Self { bucket: bucket.to_owned(), prefix, ..Self::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            address.set(&decode(key)?, decode(value)?)?;
        }
        Ok(address)
    }

    fn set(&mut self, key: &str, value: String) -> std::result::Result<(), UrlError> {
        let plain = !value.is_empty() && !value.contains(char::is_control);
        match key {
            "endpoint" => {
                let endpoint = value.trim_end_matches('/').to_owned();
                let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
                if host.is_some_and(|host| host.contains('@')) {
                    return Err(UrlError::Credentials);
                }
                if !plain || host.is_none_or(|host| host.is_empty() || host.contains([' ', '?', '#'])) {
                    return Err(UrlError::Value {
                        key: "endpoint",
                        expected: "http://HOST[:PORT] or https://HOST[:PORT]",
                    });
                }
                set_once(&mut self.endpoint, key, endpoint)
            }
            "region" if !plain => Err(UrlError::Value { key: "region", expected: "the name of a region" }),
            "region" => set_once(&mut self.region, key, value),
            "profile" if !plain => Err(UrlError::Value { key: "profile", expected: "the name of a profile" }),
            "profile" => set_once(&mut self.profile, key, value),
            "path_style" => {
                let on = value.parse().map_err(|_| UrlError::Value { key: "path_style", expected: "true or false" })?;
                set_once(&mut self.path_style, key, on)
            }
            _ => Err(UrlError::Key { key: key.chars().take(40).collect() }),
        }
    }
}

fn set_once<T>(slot: &mut Option<T>, key: &str, value: T) -> std::result::Result<(), UrlError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(UrlError::Twice { key: key.to_owned() }),
    }
}

impl fmt::Display for S3Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", encode(&self.prefix))?;
        }
        let path_style = self.path_style.map(|on| on.to_string());
        let pairs = [
            ("endpoint", &self.endpoint),
            ("region", &self.region),
            ("profile", &self.profile),
            ("path_style", &path_style),
        ];
        let mut separator = '?';
        for (key, value) in pairs {
            if let Some(value) = value {
                write!(f, "{separator}{key}={}", encode(value))?;
                separator = '&';
            }
        }
        Ok(())
    }
}

impl fmt::Display for StoreUrl {
    /// The form that [`FromStr`] reads back as the same address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3(address) => address.fmt(f),
            Self::Dir(path) if path.is_absolute() && path.to_str().is_some_and(|text| text.contains("://")) => {
                write!(f, "file://{}", encode(&path.to_string_lossy()))
            }
            Self::Dir(path) => path.display().fmt(f),
        }
    }
}

fn decode(text: &str) -> std::result::Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2).ok_or(UrlError::Percent)?;
            let decoded = data_encoding::HEXLOWER_PERMISSIVE.decode(digits).map_err(|_| UrlError::Percent)?;
            bytes.extend_from_slice(&decoded);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Percent)
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b':') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Opens a store that exists.
///
/// S3 is not asked for anything yet; a directory that is missing or empty is [`StoreError::NoStore`].
pub fn open(url: &StoreUrl, disk: Arc<dyn Disk>) -> Result<Arc<dyn ObjectStore>> {
    Ok(match url {
        StoreUrl::Dir(path) => Arc::new(DirStore::open(disk, &absolute(path)?)?),
        StoreUrl::S3(address) => Arc::new(S3Store::open(S3Config::new(address.clone()))?),
    })
}

/// As [`open`], but a directory may be missing for now; requests say so.
pub fn expect(url: &StoreUrl, disk: Arc<dyn Disk>) -> Result<Arc<dyn ObjectStore>> {
    Ok(match url {
        StoreUrl::Dir(path) => Arc::new(DirStore::expect(disk, &absolute(path)?)),
        StoreUrl::S3(_) => return open(url, disk),
    })
}

/// As [`open`], but makes a directory that is missing. Buckets are never made.
pub fn create(url: &StoreUrl, disk: Arc<dyn Disk>) -> Result<Arc<dyn ObjectStore>> {
    Ok(match url {
        StoreUrl::Dir(path) => Arc::new(DirStore::create(disk, &absolute(path)?)?),
        StoreUrl::S3(_) => return open(url, disk),
    })
}

fn absolute(path: &std::path::Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| StoreError::Invalid {
        target: path.display().to_string(),
        reason: format!("no absolute path can be made of it: {error}"),
    })
}
