//! What can be done with a file of sealed documents: each takes a file as it is and writes a new one beside it, which
//! is read back before anybody may take it for the file.

use zeroize::Zeroizing;

use super::bytes::{Bytes, Memory};
use super::content::Head;
use super::error::{Result, SealedError};
use super::ids::{Credentials, ShareIds};
use super::image::Image;
use super::json::check_object;
use super::layout::Header;
use super::open::{Damage, Opened, open};
use super::write::{NewDocument, Writer, confirm, confirm_document};
use crate::base::clock::Timestamp;
use crate::crypto::document::{DocumentKey, RootKey, on_wiped_stack};
use crate::crypto::slots::Secret;

/// What a new document will be opened by.
#[derive(Debug)]
pub struct NewAccess {
    /// Its password.
    pub password: Secret,
    /// Its share ids.
    pub ids: NewIds,
    /// How many intact shares shall be enough to read it; 2 to the number of its ids.
    pub threshold: u16,
}

/// The share ids of a new document.
#[derive(Debug)]
pub enum NewIds {
    /// So many, drawn at random.
    Draw(usize),
    /// These.
    Chosen(ShareIds),
}

/// What came of writing a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The document's revision: how many times it was written.
    pub revision: u64,
    /// Bytes by which the document could be longer.
    pub free: usize,
}

/// Replaces one document in the bytes of a file: the new bytes, or an error. Slots of others are the same bytes in
/// both; the UUID stays.
pub fn update(file: &[u8], json: &[u8], credentials: &Credentials, now: Timestamp) -> Result<Vec<u8>> {
    let (source, target) = (Memory::new(file.to_vec()), Memory::new(vec![0; file.len()]));
    let source = Image::open(&source, IN_MEMORY)?;
    on_wiped_stack(|| update_into(&source, &target, credentials, json, now))?;
    Ok(target.into_bytes())
}

/// What files are called in messages that have no name.
const IN_MEMORY: &str = "the file";

/// Replaces one document.
pub(super) fn update_into(
    source: &Image<'_>,
    target: &dyn Bytes,
    credentials: &Credentials,
    json: &[u8],
    now: Timestamp,
) -> Result<Written> {
    check_document(source.name, &source.header, json)?;
    let key = credentials.key(&source.header)?;
    let opened = open(source, &credentials.ids, &key, Damage::Refuse)?;
    let head = next_head(&opened, json, now);
    let document =
        NewDocument { key: &key, ids: &credentials.ids, threshold: opened.description.threshold, head: &head, json };
    copy_and_put(source, target, &document)?;
    Ok(Written { revision: head.revision, free: source.header.capacity() - json.len() })
}

/// Changes the password of one document. Its ids stay, and so does everything else.
pub(super) fn change_password_into(
    source: &Image<'_>,
    target: &dyn Bytes,
    old: &Credentials,
    new_password: Secret,
    now: Timestamp,
) -> Result<Written> {
    let new = Credentials { password: new_password, ids: old.ids.clone() };
    let new_key = new.key(&source.header)?;
    let opened = open(source, &old.ids, &old.key(&source.header)?, Damage::Refuse)?;
    let json = opened.json()?;
    let head = next_head(&opened, &json, now);
    let threshold = opened.description.threshold;
    copy_and_put(source, target, &NewDocument { key: &new_key, ids: &new.ids, threshold, head: &head, json: &json })?;
    Ok(Written { revision: head.revision, free: source.header.capacity() - json.len() })
}

/// Makes a file with its first document; the ids it got.
pub(super) fn create_into(
    header: &Header,
    target: &dyn Bytes,
    name: &str,
    access: &NewAccess,
    json: &[u8],
    now: Timestamp,
) -> Result<ShareIds> {
    check_document(name, header, json)?;
    let credentials = new_credentials(header, access, &[], name)?;
    let key = credentials.key(header)?;
    let head = Head::new(RootKey::random(), 1, now, json);
    let document = NewDocument { key: &key, ids: &credentials.ids, threshold: access.threshold, head: &head, json };
    let writer = Writer::unused(header, target, name)?;
    put_and_confirm(writer, target, name, &document)?;
    Ok(credentials.ids.clone())
}

/// Adds a document to a file. At least one document that is there must be named; all that are named keep their slots,
/// any other may lose its own.
pub(super) fn add_into(
    source: &Image<'_>,
    target: &dyn Bytes,
    known: &[Credentials],
    access: &NewAccess,
    json: &[u8],
    now: Timestamp,
) -> Result<ShareIds> {
    check_document(source.name, &source.header, json)?;
    let taken: Vec<&ShareIds> = known.iter().map(|known| &known.ids).collect();
    let credentials = new_credentials(&source.header, access, &taken, source.name)?;
    let mut root_key = None;
    for known in known {
        root_key = Some(open_known(source, known)?.1);
    }
    let root_key = root_key.ok_or_else(|| {
        SealedError::Ids("name a document that is in the file, with its password, to add another".to_owned())
    })?;
    let key = credentials.key(&source.header)?;
    let head = Head::new(root_key, 1, now, json);
    let document = NewDocument { key: &key, ids: &credentials.ids, threshold: access.threshold, head: &head, json };
    copy_and_put(source, target, &document)?;
    Ok(credentials.ids.clone())
}

/// Writes new shares of all documents that are named, without changing them; with `rest_is_unused`, new random bytes
/// into all other slots, which destroys documents that are not named. Afterwards the two files differ in those slots,
/// whichever document was changed in between.
pub(super) fn refresh_into(
    source: &Image<'_>,
    target: &dyn Bytes,
    known: &[Credentials],
    rest_is_unused: bool,
) -> Result<()> {
    for (at, one) in known.iter().enumerate() {
        if known[..at].iter().any(|other| other.ids.overlaps(&one.ids)) {
            return Err(SealedError::Ids("two of the documents named have ids in common".to_owned()));
        }
    }
    let mut opened = Vec::with_capacity(known.len());
    for known in known {
        opened.push(open_known(source, known)?);
    }
    let Some((_, root_key)) = opened.first() else {
        return Err(SealedError::Ids("name the documents that shall be written anew".to_owned()));
    };
    let mut writer = Writer::copied(source, target, source.name)?;
    source.check(writer.digests(), Some(root_key))?;
    for id in (1..=source.header.slots).filter(|_| rest_is_unused) {
        if !known.iter().any(|known| known.ids.as_slice().contains(&id)) {
            writer.forget(id)?;
        }
    }
    for (known, (key, _)) in known.iter().zip(&opened) {
        let document = open(source, &known.ids, key, Damage::Refuse)?;
        let threshold = document.description.threshold;
        let json = document.json()?;
        writer.put(&NewDocument { key, ids: &known.ids, threshold, head: &document.head, json: &json })?;
    }
    let digests = writer.finish(root_key)?;
    let written = Image::open(target, source.name)?;
    confirm(&written, &digests, root_key)?;
    for (known, (key, _)) in known.iter().zip(&opened) {
        let document = open(source, &known.ids, key, Damage::Refuse)?;
        let (threshold, json) = (document.description.threshold, document.json()?);
        let same = NewDocument { key, ids: &known.ids, threshold, head: &document.head, json: &json };
        confirm_document(&written, &same)?;
    }
    Ok(())
}

fn open_known(source: &Image<'_>, known: &Credentials) -> Result<(DocumentKey, RootKey)> {
    let key = known.key(&source.header)?;
    let opened = open(source, &known.ids, &key, Damage::Refuse)?;
    let root_key = RootKey::from_bytes(opened.head.root_key.as_bytes());
    Ok((key, root_key))
}

fn next_head(opened: &Opened<'_>, json: &[u8], now: Timestamp) -> Head {
    let root_key = RootKey::from_bytes(opened.head.root_key.as_bytes());
    Head::new(root_key, opened.head.revision.saturating_add(1), now, json)
}

fn check_document(name: &str, header: &Header, json: &[u8]) -> Result<()> {
    let capacity = header.capacity();
    if json.len() > capacity {
        return Err(SealedError::TooLarge { file: name.to_owned(), len: json.len(), capacity });
    }
    Ok(check_object(json)?)
}

fn new_credentials(header: &Header, access: &NewAccess, taken: &[&ShareIds], name: &str) -> Result<Credentials> {
    let ids = match &access.ids {
        NewIds::Draw(count) => ShareIds::draw(*count, header, taken, name)?,
        NewIds::Chosen(ids) if taken.iter().any(|taken| taken.overlaps(ids)) => {
            return Err(SealedError::Ids("a document that is named has one of them".to_owned()));
        }
        NewIds::Chosen(ids) => ids.clone(),
    };
    let count = ids.as_slice().len();
    if !(2..=count).contains(&usize::from(access.threshold)) {
        return Err(SealedError::Settings(format!("the threshold must be 2 to {count}, the number of ids")));
    }
    Ok(Credentials { password: Secret::new(access.password.as_bytes().to_vec()), ids })
}

fn copy_and_put(source: &Image<'_>, target: &dyn Bytes, document: &NewDocument<'_>) -> Result<()> {
    let writer = Writer::copied(source, target, source.name)?;
    source.check(writer.digests(), Some(&document.head.root_key))?;
    put_and_confirm(writer, target, source.name, document)
}

fn put_and_confirm(mut writer: Writer<'_>, target: &dyn Bytes, name: &str, document: &NewDocument<'_>) -> Result<()> {
    writer.put(document)?;
    let digests = writer.finish(&document.head.root_key)?;
    let written = Image::open(target, name)?;
    confirm(&written, &digests, &document.head.root_key)?;
    confirm_document(&written, document)
}

/// A document as it was read.
#[derive(Debug)]
pub struct Document {
    /// Its JSON, as it was given.
    pub json: Zeroizing<Vec<u8>>,
    /// How many times it was written.
    pub revision: u64,
    /// When it was written last.
    pub changed: Timestamp,
}

/// Reads one document.
pub(super) fn read(source: &Image<'_>, credentials: &Credentials, damage: Damage) -> Result<Document> {
    let key = credentials.key(&source.header)?;
    let opened = open(source, &credentials.ids, &key, damage)?;
    if damage == Damage::Refuse {
        source.check(&source.digests()?, Some(&opened.head.root_key))?;
    }
    Ok(Document { json: opened.json()?, revision: opened.head.revision, changed: opened.head.changed })
}
