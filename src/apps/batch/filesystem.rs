//! What a batch needs of a file system, whatever the protocol.

use std::fmt;
use std::io::Write;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::{BatchError, Code, Result};
use super::glob::Glob;
use super::retry::Retrier;
use super::work::TempFile;

/// Temporary files beside their targets begin so; walks pass them over, and old ones are swept away.
pub const PARTIAL_PREFIX: &str = ".kura-part-";

/// A path below the root of a batch: names joined by `/`, any bytes but NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(Box<[u8]>);

impl FilePath {
    /// A path of bytes; `None` for one that is absolute, has empty names, `.` or `..`, or a NUL.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
        bytes.split(|byte| *byte == b'/').all(is_name).then(|| Self(bytes.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as UTF-8, for protocols that know nothing else.
    pub fn as_text(&self) -> Result<&str> {
        std::str::from_utf8(&self.0)
            .map_err(|_| BatchError::file(Code::BadName, self.to_string(), "the name is not UTF-8"))
    }

    /// The directory (empty at the root) and the name.
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (b"", &self.0),
        }
    }

    /// A fresh temporary name in the same directory.
    pub fn partial(&self) -> Self {
        let (dir, _) = self.split();
        let name = format!("{PARTIAL_PREFIX}{:016x}", crate::base::random::number());
        let bytes = if dir.is_empty() { name.into_bytes() } else { [dir, b"/", name.as_bytes()].concat() };
        Self(bytes.into())
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in String::from_utf8_lossy(&self.0).chars() {
            match c {
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => fmt::Write::write_char(f, c)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// In JSON a text, or `{"b64": …}` when the bytes are no UTF-8.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathForm<'a> {
    Text(std::borrow::Cow<'a, str>),
    Bytes { b64: String },
}

impl Serialize for FilePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => PathForm::Text(text.into()),
            Err(_) => PathForm::Bytes { b64: data_encoding::BASE64.encode(&self.0) },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let bytes = match PathForm::deserialize(deserializer)? {
            PathForm::Text(text) => text.into_owned().into_bytes(),
            PathForm::Bytes { b64 } => {
                data_encoding::BASE64.decode(b64.as_bytes()).map_err(serde::de::Error::custom)?
            }
        };
        FilePath::new(bytes).ok_or_else(|| serde::de::Error::custom("not a path below the root"))
    }
}

/// A modification time and how finely the server tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modified {
    /// Nanoseconds since the Unix epoch.
    pub unix_ns: i64,
    /// Nanoseconds of one step of the server's clock; 1 when it tells nanoseconds.
    pub step_ns: i64,
}

impl Modified {
    /// Seconds since the Unix epoch, from a server that tells whole seconds.
    pub fn of_seconds(seconds: i64) -> Self {
        Self { unix_ns: seconds.saturating_mul(1_000_000_000), step_ns: 1_000_000_000 }
    }

    fn is_same(self, other: Self) -> bool {
        let step = self.step_ns.max(other.step_ns).max(1);
        self.unix_ns.div_euclid(step) == other.unix_ns.div_euclid(step)
    }
}

/// What is known of a file without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Where it is.
    pub path: FilePath,
    /// Its length in bytes; 0 for directories.
    pub size: u64,
    /// When it was changed, as far as the server tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<Modified>,
    /// The server's tag of its content, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Whether it is a directory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_dir: bool,
}

/// Whether two states of a file are the same, as far as can be told without reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sameness {
    /// Nothing differs, by a tag or a time.
    Same,
    /// Something differs.
    Different,
    /// The length is the same, and there is neither tag nor time: only the content can tell.
    Unknown,
}

impl FileInfo {
    /// Compares two states; times at the coarser of the two precisions.
    pub fn compare(&self, other: &FileInfo) -> Sameness {
        if self.size != other.size || self.is_dir != other.is_dir {
            return Sameness::Different;
        }
        let same = |is_same| if is_same { Sameness::Same } else { Sameness::Different };
        match (&self.etag, &other.etag, self.modified, other.modified) {
            (Some(a), Some(b), _, _) => same(a == b),
            (_, _, Some(a), Some(b)) => same(a.is_same(b)),
            _ => Sameness::Unknown,
        }
    }
}

/// Which files a walk hands out. Patterns are those of [`Glob`].
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct WalkOptions {
    /// Patterns of which one has to match; everything when there are none.
    pub include: Vec<String>,
    /// Patterns of which none may match, dots or not; a directory that matches is not entered.
    pub exclude: Vec<String>,
    /// Follow symbolic links that stay below the root; else they are passed over.
    pub follow_symlinks: bool,
    /// Deepest level to look at: 1 is the root's own names. Nothing when 0.
    pub max_depth: Option<u32>,
    /// Leave directories out.
    #[serde(default = "yes")]
    pub files_only: bool,
    /// Let wildcards match names that begin with a dot.
    pub dot: bool,
}

fn yes() -> bool {
    true
}

/// Walk options with their patterns compiled.
pub struct Filter {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
    /// The options.
    pub options: WalkOptions,
}

impl Filter {
    /// Compiles the patterns.
    pub fn new(options: &WalkOptions) -> Result<Self> {
        let compile = |patterns: &[String], dot| -> Result<Vec<Glob>> {
            patterns.iter().map(|pattern| Glob::new(pattern, dot)).collect()
        };
        Ok(Self {
            include: compile(&options.include, options.dot)?,
            exclude: compile(&options.exclude, true)?,
            options: options.clone(),
        })
    }

    /// Whether to hand out a path.
    pub fn takes(&self, path: &[u8], is_dir: bool) -> bool {
        !(is_dir && self.options.files_only || is_partial(path))
            && (self.include.is_empty() || self.include.iter().any(|glob| glob.matches(path)))
            && !self.excludes(path)
    }

    /// Whether to look into a directory whose own level is `depth`.
    pub fn enters(&self, dir: &[u8], depth: u32) -> bool {
        self.options.max_depth.is_none_or(|max| depth < max)
            && !self.excludes(dir)
            && !self.exclude.iter().any(|glob| glob.matches_all_below(dir))
    }

    fn excludes(&self, path: &[u8]) -> bool {
        self.exclude.iter().any(|glob| glob.matches(path))
    }
}

/// Whether the last name of a path is that of a temporary file of a batch.
pub fn is_partial(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    name.starts_with(PARTIAL_PREFIX.as_bytes())
}

/// How a file is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Replacing {
    /// In one step, and only if nobody changed it since: no change of others is lost.
    Conditional,
    /// In one step; a change by others in the instant before it is lost.
    Atomic,
    /// As the server does it: there may be a moment without the file.
    Plain,
}

/// What a file system can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How a file is replaced.
    pub replacing: Replacing,
    /// Whether all that was replaced appears together, in the end.
    pub whole_run: bool,
    /// How many connections one host is asked for, at most.
    pub connections_max: usize,
}

/// Tells what is found on the way; an error of the callback ends the walk.
pub type Each<'a> = dyn FnMut(Found) -> Result<()> + 'a;

/// What a walk comes upon.
#[derive(Debug)]
pub enum Found {
    /// A file (or directory) that the options take.
    File(FileInfo),
    /// A temporary file of a batch, which may have been left behind.
    Partial(FileInfo),
    /// Something that could not be looked at; the walk goes on without it.
    Failed(BatchError),
}

/// What came of a run whose results appear together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// The version that the results are in, when there are some.
    pub version: Option<String>,
    /// Files that somebody changed meanwhile, and that were left as they are.
    pub changed: Vec<FilePath>,
}

/// Files somewhere: on this disk, on a server, in a workspace.
pub trait FileSystem: Send + Sync {
    /// Hands out what the filter takes, directory by directory, each once, as it is found.
    fn walk(&self, filter: &Filter, retrier: &Retrier<'_>, each: &mut Each<'_>) -> Result<()>;
    /// What a file is like now.
    fn stat(&self, path: &FilePath) -> Result<FileInfo>;
    /// Writes the file's content to `to`; returns what the file was like.
    fn download(&self, path: &FilePath, to: &mut dyn Write) -> Result<FileInfo>;
    /// Puts the content of `from` in the file's place and returns what the server then says of it. Fails with
    /// [`Code::SourceChanged`] when the file is found not to be as `expected`.
    fn replace(&self, expected: &FileInfo, from: &TempFile) -> Result<FileInfo>;
    /// Removes a file.
    fn remove(&self, path: &FilePath) -> Result<()>;
    /// What it can do.
    fn capabilities(&self) -> Capabilities;
    /// Where it is, without secrets.
    fn address(&self) -> &str;
    /// Makes what was replaced appear (`keep`), or forgets it, where that happens in the end. With `is_all` nothing
    /// appears when somebody changed a file meanwhile.
    fn finish(&self, _keep: bool, _is_all: bool, _message: &str) -> Result<Finished> {
        Ok(Finished::default())
    }
    /// Gives connections back.
    fn close(&self) {}
}

/// Fails unless the file is as it was expected to be.
pub fn check_unchanged(expected: &FileInfo, now: &FileInfo) -> Result<()> {
    if now.is_dir {
        return Err(BatchError::file(Code::NotAFile, expected.path.to_string(), "it is a directory now"));
    }
    if expected.compare(now) == Sameness::Different {
        let reason = "somebody changed it since it was read; it was left as it is, and the next scan sees it";
        return Err(BatchError::file(Code::SourceChanged, expected.path.to_string(), reason));
    }
    Ok(())
}
