//! What can be done with a file of sealed documents: each takes a file as it is and writes a new one beside it, which
//! is read back before anybody may take it for the file.

use zeroize::Zeroizing;

use super::bytes::{Bytes, Memory};
use super::error::{Result, SealedError};
use super::ids::{Credentials, ShareIds};
use super::image::Image;
use super::layout::Header;
use super::open::Damage;
use super::steps::{
    Content, Extracted, check_document, check_threshold, decrypt_and_extract, encrypt_and_confirm,
    encrypt_updated_data, generate_new_shares, update_shares,
};
use super::write::{Writer, confirm, confirm_document};
use crate::base::clock::Timestamp;
use crate::crypto::document::{RootKey, on_wiped_stack};
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

/// What files are called in messages that have no name.
const IN_MEMORY: &str = "the file";

/// Replaces one document in the bytes of a file: the new bytes, or an error. Slots of others are the same bytes in
/// both; the UUID stays.
pub fn update(encrypted: &[u8], json: &[u8], credentials: &Credentials, now: Timestamp) -> Result<Vec<u8>> {
    let (source, target) = (Memory::new(encrypted.to_vec()), Memory::new(vec![0; encrypted.len()]));
    update_into(&Image::open(&source, IN_MEMORY)?, &target, credentials, json, now)?;
    Ok(target.into_bytes())
}

/// Replaces one document, wherever the file lies and shall lie; the target has the length of the source. What is in the
/// target is a file only when this succeeds.
pub fn update_into(
    source: &Image<'_>,
    target: &dyn Bytes,
    credentials: &Credentials,
    json: &[u8],
    now: Timestamp,
) -> Result<Written> {
    on_wiped_stack(|| {
        // What can be refused at once is, before the costly step.
        check_document(&source.header, json)?;
        let old = decrypt_and_extract(source, credentials, Damage::Refuse)?;
        let new = generate_new_shares(&source.header, old.next(json, now), old.threshold(), &credentials.ids)?;
        let revision = new.revision();
        let shares = update_shares(source, new, old.ids())?;
        encrypt_updated_data(&shares, old.key(), target)?;
        Ok(Written { revision, free: source.header.capacity() - json.len() })
    })
}

/// Changes the password of one document. Its ids stay, and so does everything else.
pub(super) fn change_password_into(
    source: &Image<'_>,
    target: &dyn Bytes,
    old: &Credentials,
    new_password: Secret,
    now: Timestamp,
) -> Result<Written> {
    let new_key = Credentials { password: new_password, ids: old.ids.clone() }.key(&source.header)?;
    let old = decrypt_and_extract(source, old, Damage::Refuse)?;
    let json = old.json()?;
    let new = generate_new_shares(&source.header, old.next(&json, now), old.threshold(), old.ids())?;
    let revision = new.revision();
    let shares = update_shares(source, new, old.ids())?;
    encrypt_updated_data(&shares, &new_key, target)?;
    Ok(Written { revision, free: source.header.capacity() - json.len() })
}

/// Makes a file without documents: random bytes in all slots, and for the authentication.
pub(super) fn init_into(header: &Header, target: &dyn Bytes, name: &str) -> Result<()> {
    let nobodys = RootKey::random();
    let digests = Writer::unused(header, target, name)?.finish(&nobodys)?;
    confirm(&Image::open(target, name)?, &digests, &nobodys)
}

/// Makes a file of one document, in slots that are all new; the document's ids.
pub(super) fn create_into(
    header: &Header,
    target: &dyn Bytes,
    name: &str,
    access: &NewAccess,
    json: &[u8],
    now: Timestamp,
) -> Result<ShareIds> {
    check_document(header, json)?;
    let credentials = new_credentials(header, access, &[], name)?;
    let key = credentials.key(header)?;
    let content = Content::first(RootKey::random(), json, now);
    let new = generate_new_shares(header, content, access.threshold, &credentials.ids)?;
    encrypt_and_confirm(Writer::unused(header, target, name)?, target, name, &key, &new)?;
    Ok(credentials.ids.clone())
}

/// Adds a document to a file. All documents that are named keep their slots, any other may lose its own. When none is
/// named, the new one is the first: all slots are written anew, so that nobody sees which it took.
pub(super) fn add_into(
    source: &Image<'_>,
    target: &dyn Bytes,
    known: &[Credentials],
    access: &NewAccess,
    json: &[u8],
    now: Timestamp,
) -> Result<ShareIds> {
    check_document(&source.header, json)?;
    let taken: Vec<&ShareIds> = known.iter().map(|known| &known.ids).collect();
    let credentials = new_credentials(&source.header, access, &taken, source.name)?;
    let mut root_key = None;
    for known in known {
        root_key = Some(decrypt_and_extract(source, known, Damage::Refuse)?.root_key());
    }
    let Some(root_key) = root_key else {
        source.check(&source.digests()?, None)?;
        return create_into(&source.header, target, source.name, access, json, now);
    };
    let key = credentials.key(&source.header)?;
    let content = Content::first(root_key, json, now);
    let new = generate_new_shares(&source.header, content, access.threshold, &credentials.ids)?;
    let shares = update_shares(source, new, &credentials.ids)?;
    encrypt_updated_data(&shares, &key, target)?;
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
    let mut documents = Vec::with_capacity(known.len());
    for known in known {
        documents.push(decrypt_and_extract(source, known, Damage::Refuse)?);
    }
    let Some(root_key) = documents.first().map(Extracted::root_key) else {
        return Err(SealedError::Ids("name the documents that shall be written anew".to_owned()));
    };
    let mut writer = Writer::copied(source, target, source.name)?;
    source.check(writer.digests(), Some(&root_key))?;
    for id in (1..=source.header.slots).filter(|_| rest_is_unused) {
        if !known.iter().any(|known| known.ids.as_slice().contains(&id)) {
            writer.forget(id)?;
        }
    }
    // One document at a time is in memory.
    for document in &documents {
        let json = document.json()?;
        writer.put(document.key(), &document.shared_again(&source.header, &json)?)?;
    }
    let digests = writer.finish(&root_key)?;
    let written = Image::open(target, source.name)?;
    confirm(&written, &digests, &root_key)?;
    for document in &documents {
        let json = document.json()?;
        confirm_document(&written, document.key(), &document.shared_again(&source.header, &json)?)?;
    }
    Ok(())
}

fn new_credentials(header: &Header, access: &NewAccess, taken: &[&ShareIds], name: &str) -> Result<Credentials> {
    let ids = match &access.ids {
        NewIds::Draw(count) => ShareIds::draw(*count, header, taken, name)?,
        NewIds::Chosen(ids) if taken.iter().any(|taken| taken.overlaps(ids)) => {
            return Err(SealedError::Ids("a document that is named has one of them".to_owned()));
        }
        NewIds::Chosen(ids) => ids.clone(),
    };
    check_threshold(access.threshold, &ids)?;
    Ok(Credentials { password: Secret::new(access.password.as_bytes().to_vec()), ids })
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
    let found = decrypt_and_extract(source, credentials, damage)?;
    if damage == Damage::Refuse {
        source.check(&source.digests()?, Some(&found.root_key()))?;
    }
    Ok(Document { json: found.json()?, revision: found.revision(), changed: found.changed() })
}
