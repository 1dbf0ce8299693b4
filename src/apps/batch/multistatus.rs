//! What WebDAV servers say of files: `207 Multi-Status` (RFC 4918), read as it comes.

use std::io::{BufReader, Read, Take};

use jiff::fmt::rfc2822::DateTimeParser;
use quick_xml::NsReader;
use quick_xml::events::{BytesRef, Event};
use quick_xml::name::{Namespace, ResolveResult};

use super::filesystem::Modified;
use super::url::decode_bytes;

/// Longest piece between two tags, in bytes; deepest nesting; longest text that is kept, in bytes.
const PIECE_LEN_MAX: u64 = 1 << 20;
const DEPTH_MAX: usize = 32;
const TEXT_LEN_MAX: usize = 64 * 1024;
/// Most resources of one answer, and most tags, texts and the like from the end of one to that of the next.
const RESOURCES_MAX: usize = 4_000_000;
const PIECES_MAX: usize = 1 << 18;
const DAV: Namespace<'static> = Namespace(b"DAV:");

/// What is said of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Its path, percent-decoded.
    pub path: Vec<u8>,
    /// The status of the resource itself, when it has one; else its properties are told.
    pub status: Option<u16>,
    /// Its length in bytes.
    pub size: Option<u64>,
    /// When it was changed.
    pub modified: Option<Modified>,
    /// Its tag as it stands there.
    pub etag: Option<String>,
    /// Whether it is a collection.
    pub is_dir: bool,
}

/// Why an answer could not be read.
#[derive(Debug)]
pub enum Unreadable<E> {
    /// It makes no sense.
    Nonsense(String),
    /// It goes on and on.
    Endless,
    /// The one who was told wanted no more.
    Refused(E),
}

/// The elements that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Response,
    Href,
    Status,
    PropStat,
    ResourceType,
    Collection,
    Length,
    Modified,
    Etag,
    Other,
}

fn tag(namespace: &ResolveResult<'_>, name: &[u8]) -> Tag {
    if *namespace != ResolveResult::Bound(DAV) {
        return Tag::Other;
    }
    match name {
        b"response" => Tag::Response,
        b"href" => Tag::Href,
        b"status" => Tag::Status,
        b"propstat" => Tag::PropStat,
        b"resourcetype" => Tag::ResourceType,
        b"collection" => Tag::Collection,
        b"getcontentlength" => Tag::Length,
        b"getlastmodified" => Tag::Modified,
        b"getetag" => Tag::Etag,
        _ => Tag::Other,
    }
}

/// One response while it is read.
#[derive(Default)]
struct Reading {
    resource: Resource,
    /// Properties of the `propstat` that is open, which count when its status says so.
    found: Resource,
    found_status: Option<u16>,
    has_href: bool,
}

impl Reading {
    /// The end of an element, with the text in it.
    fn end(&mut self, open: &[Tag], tag: Tag, text: &str) {
        let text = text.trim();
        match tag {
            // Only the first one is that of the resource; others stand in locks and the like.
            Tag::Href if !self.has_href && open.last() == Some(&Tag::Response) => {
                self.resource.path = path_of(text);
                self.has_href = true;
            }
            Tag::Status if open.last() == Some(&Tag::Response) => self.resource.status = status(text),
            Tag::Status if open.last() == Some(&Tag::PropStat) => self.found_status = status(text),
            Tag::Length => self.found.size = text.parse().ok(),
            Tag::Modified => self.found.modified = time(text),
            Tag::Etag => self.found.etag = Some(text.to_owned()).filter(|etag| !etag.is_empty()),
            Tag::Collection if open.last() == Some(&Tag::ResourceType) => self.found.is_dir = true,
            Tag::PropStat => {
                let found = std::mem::take(&mut self.found);
                if self.found_status.take().is_some_and(|status| (200..300).contains(&status)) {
                    self.resource = Resource {
                        path: std::mem::take(&mut self.resource.path),
                        status: self.resource.status,
                        size: found.size.or(self.resource.size),
                        modified: found.modified.or(self.resource.modified),
                        etag: found.etag.or(self.resource.etag.take()),
                        is_dir: found.is_dir || self.resource.is_dir,
                    };
                }
            }
            _ => {}
        }
    }
}

/// Hands out each resource of an answer, as it is read.
pub fn read<E>(body: impl Read, each: &mut dyn FnMut(Resource) -> Result<(), E>) -> Result<(), Unreadable<E>> {
    let nonsense = |reason: &dyn std::fmt::Display| Unreadable::Nonsense(reason.to_string());
    let mut reader: NsReader<Take<BufReader<_>>> = NsReader::from_reader(BufReader::new(body).take(0));
    reader.config_mut().expand_empty_elements = true;
    let (mut buffer, mut text) = (Vec::new(), String::new());
    let mut open: Vec<Tag> = Vec::new();
    let mut reading = Reading::default();
    let mut is_begun = false;
    let (mut resources, mut pieces) = (0, 0);
    loop {
        pieces += 1;
        if resources > RESOURCES_MAX || pieces > PIECES_MAX {
            return Err(Unreadable::Endless);
        }
        buffer.clear();
        reader.get_mut().set_limit(PIECE_LEN_MAX);
        let (namespace, event) = reader.read_resolved_event_into(&mut buffer).map_err(|error| nonsense(&error))?;
        match event {
            Event::Start(start) => {
                let tag = tag(&namespace, start.local_name().as_ref());
                is_begun = true;
                if tag == Tag::Response {
                    reading = Reading::default();
                }
                if open.len() == DEPTH_MAX {
                    return Err(nonsense(&"it is nested too deeply"));
                }
                open.push(tag);
                text.clear();
            }
            Event::End(_) => {
                let Some(tag) = open.pop() else { return Err(nonsense(&"an element ends that did not begin")) };
                reading.end(&open, tag, &text);
                text.clear();
                if tag == Tag::Response {
                    each(std::mem::take(&mut reading).resource).map_err(Unreadable::Refused)?;
                    (resources, pieces) = (resources + 1, 0);
                }
            }
            Event::Text(piece) => text.push_str(&piece.decode().map_err(|error| nonsense(&error))?),
            Event::CData(piece) => text.push_str(&piece.decode().map_err(|error| nonsense(&error))?),
            Event::GeneralRef(name) => text.push(character(&name).ok_or_else(|| nonsense(&"it names an entity"))?),
            Event::DocType(_) => return Err(nonsense(&"it declares a document type")),
            Event::Eof if is_begun && open.is_empty() => return Ok(()),
            Event::Eof => return Err(nonsense(&"it ends before its end")),
            _ => {}
        }
        if text.len() > TEXT_LEN_MAX {
            return Err(nonsense(&"a text in it is too long"));
        }
    }
}

/// The character that a reference stands for; none but those of XML itself.
fn character(name: &BytesRef<'_>) -> Option<char> {
    if let Some(c) = name.resolve_char_ref().ok()? {
        return Some(c);
    }
    match &*name.decode().ok()? {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

/// `HTTP/1.1 200 OK`.
fn status(text: &str) -> Option<u16> {
    text.split_whitespace().nth(1)?.parse().ok()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn time(text: &str) -> Option<Modified> {
    let at = DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
    Some(Modified::of_seconds(at.as_second()))
}

/// The path of an address that is a path, or has a host before it.
fn path_of(text: &str) -> Vec<u8> {
    let path = match text.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => text,
    };
    let path = path.split(['?', '#']).next().unwrap_or(path);
    decode_bytes(path).unwrap_or_else(|| path.as_bytes().to_vec())
}
