//! What is done to each file.

use std::io::{self, Read, Write};

use encoding_rs::Encoding;
use flate2::Compression;
use flate2::write::GzEncoder;
use regex::bytes::{Match, Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::cancel::Cancel;
use super::command::{self, CommandLine};
use super::error::{BatchError, Code, Result};
use super::json;
use super::work::{TempFile, copy};

/// Largest file of a processing that needs all of it in memory, in bytes.
const MEMORY_LEN_MAX: u64 = 256 << 20;
/// Largest result of one, in bytes.
pub(super) const RESULT_LEN_MAX: usize = 1 << 30;

/// What is done to each file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Processing {
    /// Nothing: reads every file and remembers it.
    None {},
    /// Replaces a text wherever it stands.
    Replace {
        /// The text.
        find: String,
        /// What takes its place.
        with: String,
    },
    /// Replaces what a regular expression matches.
    Regex {
        /// The expression (syntax of the `regex` crate).
        find: String,
        /// What takes its place; `$1` or `${name}` is a group, `$$` a dollar.
        with: String,
    },
    /// Makes all ends of lines the same.
    LineEndings {
        /// Which.
        to: LineEnding,
    },
    /// Changes the encoding of text; a file that is not in the first one is refused.
    Reencode {
        /// A label of the WHATWG encoding standard, e.g. `shift_jis`.
        from: String,
        /// The same.
        to: String,
    },
    /// Compresses.
    Gzip {},
    /// Changes a JSON document as RFC 6902 says; what it does not touch keeps its order and its numbers.
    JsonPatch {
        /// The operations.
        patch: Vec<json::PatchOp>,
    },
    /// Runs a program, without a shell.
    Command(CommandLine),
}

/// An end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineEnding {
    /// `\n`
    Lf,
    /// `\r\n`
    Crlf,
}

/// Makes a new content of a whole one, or says why not.
type WholeContent = dyn Fn(Vec<u8>) -> std::result::Result<Vec<u8>, String> + Send + Sync;

/// A processing that is ready to be used by many threads.
pub enum Processor {
    /// Does nothing.
    None,
    /// Works on the whole content in memory.
    Whole(Box<WholeContent>),
    /// Makes all ends of lines the same.
    LineEndings(LineEnding),
    /// Compresses.
    Gzip,
    /// Runs a program.
    Command(CommandLine),
}

impl Processing {
    /// Whether it runs a program.
    pub fn is_command(&self) -> bool {
        matches!(self, Processing::Command(_))
    }

    /// Checks it and makes it ready.
    pub fn prepare(&self) -> Result<Processor> {
        let unusable = |reason: String| BatchError::Job(reason);
        Ok(match self {
            Processing::None {} => Processor::None,
            Processing::Replace { find, with } => {
                if find.is_empty() {
                    return Err(unusable("the text to replace is empty".to_owned()));
                }
                let (find, with) = (find.clone(), with.clone());
                Processor::Whole(Box::new(move |bytes| replace(bytes, find.as_bytes(), with.as_bytes())))
            }
            Processing::Regex { find, with } => {
                let expression = RegexBuilder::new(find).size_limit(8 << 20).build();
                let expression = expression.map_err(|error| unusable(error.to_string()))?;
                let with = with.clone().into_bytes();
                Processor::Whole(Box::new(move |bytes| replace_all(&bytes, &expression, &with)))
            }
            Processing::LineEndings { to } => Processor::LineEndings(*to),
            Processing::Reencode { from, to } => {
                let encoding = |label: &str| {
                    Encoding::for_label_no_replacement(label.as_bytes())
                        .ok_or_else(|| unusable(format!("there is no encoding `{label}`")))
                };
                let (from, to) = (encoding(from)?, encoding(to)?);
                if to.output_encoding() != to {
                    return Err(unusable(format!("{} can be read only; choose another encoding", to.name())));
                }
                Processor::Whole(Box::new(move |bytes| reencode(&bytes, from, to)))
            }
            Processing::Gzip {} => Processor::Gzip,
            Processing::JsonPatch { patch } => {
                let patch = patch.clone();
                Processor::Whole(Box::new(move |bytes| json::apply(&bytes, &patch)))
            }
            Processing::Command(line) => {
                line.check()?;
                Processor::Command(line.clone())
            }
        })
    }
}

impl Processor {
    /// Processes `input` into `output`; both keep their names, `input` may be used up.
    pub fn run(&self, name: &str, input: &mut TempFile, output: &mut TempFile, cancel: &Cancel) -> Result<()> {
        let refuse = |reason: String| BatchError::file(Code::Processing, name, reason);
        match self {
            Processor::None => Ok(()),
            Processor::Whole(act) => {
                let made = act(input.bytes(MEMORY_LEN_MAX)?).map_err(refuse)?;
                output.fill(|to| to.write_all(&made).map_err(work))
            }
            Processor::LineEndings(to) => {
                let mut from = input.reader().map_err(work)?;
                output.fill(|out| line_endings(&mut from, out, *to).map_err(work))
            }
            Processor::Gzip => {
                let mut from = input.reader().map_err(work)?;
                output.fill(|out| {
                    let mut gzip = GzEncoder::new(out, Compression::default());
                    copy(&mut from, &mut gzip).and_then(|_| gzip.finish()).map(drop).map_err(work)
                })
            }
            Processor::Command(line) => command::run(line, name, input, output, cancel),
        }
    }

    /// Whether the result is the input itself.
    pub fn is_none(&self) -> bool {
        matches!(self, Processor::None)
    }
}

fn work(error: io::Error) -> BatchError {
    BatchError::of_io("the work directory", &error)
}

fn replace(bytes: Vec<u8>, find: &[u8], with: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = &bytes[..];
    // The first byte is looked for by itself, which is fast.
    while let Some(at) = rest.iter().position(|byte| *byte == find[0]) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with(find) {
            out.extend_from_slice(with);
            rest = &rest[find.len()..];
        } else {
            out.push(rest[0]);
            rest = &rest[1..];
        }
        if out.len() > RESULT_LEN_MAX {
            return Err(format!("the result is longer than {RESULT_LEN_MAX} bytes"));
        }
    }
    out.extend_from_slice(rest);
    Ok(out)
}

fn replace_all(bytes: &[u8], find: &Regex, with: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let dollars = with.iter().filter(|byte| **byte == b'$').count();
    let (mut out, mut end) = (Vec::with_capacity(bytes.len()), 0);
    // What stands before a match; each dollar may stand for all of the match.
    let mut before = |out: &mut Vec<u8>, found: Match<'_>| {
        out.extend_from_slice(&bytes[end..found.start()]);
        end = found.end();
        if out.len().saturating_add(with.len()).saturating_add(dollars * found.len()) > RESULT_LEN_MAX {
            return Err(format!("the result may get longer than {RESULT_LEN_MAX} bytes"));
        }
        Ok(())
    };
    if dollars == 0 {
        for found in find.find_iter(bytes) {
            before(&mut out, found)?;
            out.extend_from_slice(with);
        }
    } else {
        for groups in find.captures_iter(bytes) {
            before(&mut out, groups.get_match())?;
            groups.expand(with, &mut out);
        }
    }
    out.extend_from_slice(&bytes[end..]);
    Ok(out)
}

fn reencode(bytes: &[u8], from: &'static Encoding, to: &'static Encoding) -> std::result::Result<Vec<u8>, String> {
    let text = from
        .decode_without_bom_handling_and_without_replacement(bytes)
        .ok_or_else(|| format!("it is not in {}", from.name()))?;
    let (out, _, has_unmappable) = to.encode(&text);
    if has_unmappable {
        return Err(format!("it holds characters that {} does not have", to.name()));
    }
    Ok(out.into_owned())
}

fn line_endings(from: &mut dyn Read, to: &mut dyn Write, ending: LineEnding) -> io::Result<()> {
    let end: &[u8] = match ending {
        LineEnding::Lf => b"\n",
        LineEnding::Crlf => b"\r\n",
    };
    let mut piece = vec![0; 64 * 1024];
    let mut out = Vec::with_capacity(2 * piece.len());
    let mut had_return = false;
    loop {
        let count = match from.read(&mut piece) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        out.clear();
        for byte in &piece[..count] {
            match byte {
                b'\n' => out.extend_from_slice(end),
                // A return that no new line follows stands for itself.
                byte if had_return => {
                    out.push(b'\r');
                    if *byte != b'\r' {
                        out.push(*byte);
                    }
                }
                b'\r' => {}
                byte => out.push(*byte),
            }
            had_return = *byte == b'\r';
        }
        if count == 0 && had_return {
            out.push(b'\r');
        }
        to.write_all(&out)?;
        if count == 0 {
            return Ok(());
        }
    }
}
