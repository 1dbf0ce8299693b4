//! The steps by which one document of a file is replaced, in their order: take it out, share its new content, put the
//! new shares in the place of the old ones, encrypt.
//!
//! They work chunk by chunk: no step holds more than the document and one frame of each of its shares. What they leave
//! on the stack is for the caller to wipe (`crypto::document::on_wiped_stack`), as `update_into` does.

use zeroize::Zeroizing;

use super::bytes::Bytes;
use super::content::{Head, fill};
use super::error::{Result, SealedError};
use super::ids::{Credentials, ShareIds};
use super::image::Image;
use super::json::check_object;
use super::layout::Header;
use super::open::{Damage, Opened, open};
use super::write::{Writer, confirm, confirm_document};
use crate::base::clock::Timestamp;
use crate::crypto::document::{DocumentKey, RootKey};

/// What the credentials of a document take out of a file.
pub struct Extracted<'a> {
    key: DocumentKey,
    ids: ShareIds,
    opened: Opened<'a>,
}

/// Takes one document out of a file: its head, and the keys of its slots. Its JSON is read when it is asked for.
///
/// Fails as [`SealedError::NoDocument`] for a wrong password, wrong ids and an absent document alike, after the same
/// work; as `Damaged` when the document's own slots were altered; as `Ids` and `EmptyPassword` for what can never open.
/// Whether the rest of the file is authentic is seen by [`encrypt_updated_data`].
pub fn decrypt_and_extract<'a>(
    source: &'a Image<'a>,
    credentials: &Credentials,
    damage: Damage,
) -> Result<Extracted<'a>> {
    let key = credentials.key(&source.header)?;
    let opened = open(source, &credentials.ids, &key, damage)?;
    Ok(Extracted { key, ids: credentials.ids.clone(), opened })
}

impl Extracted<'_> {
    /// The key that its slots' keys come from.
    pub fn key(&self) -> &DocumentKey {
        &self.key
    }

    /// Its share ids.
    pub fn ids(&self) -> &ShareIds {
        &self.ids
    }

    /// How many intact shares give it.
    pub fn threshold(&self) -> u16 {
        self.opened.description.threshold
    }

    /// How many times it was written.
    pub fn revision(&self) -> u64 {
        self.opened.head.revision
    }

    /// When it was changed last.
    pub fn changed(&self) -> Timestamp {
        self.opened.head.changed
    }

    /// Its JSON, as it was given. `Damaged` when shares were altered.
    pub fn json(&self) -> Result<Zeroizing<Vec<u8>>> {
        self.opened.json()
    }

    /// New content of the same document, one revision later.
    pub fn next<'j>(&self, json: &'j [u8], now: Timestamp) -> Content<'j> {
        Content { head: Head::new(self.root_key(), self.revision().saturating_add(1), now, json), json }
    }

    /// New shares of its content as it is, which is `json`.
    pub(super) fn shared_again<'j>(&'j self, header: &Header, json: &'j [u8]) -> Result<NewShares<'j>> {
        let head = Head::new(self.root_key(), self.revision(), self.changed(), json);
        generate_new_shares(header, Content { head, json }, self.threshold(), &self.ids)
    }

    /// The key that authenticates the file.
    pub(super) fn root_key(&self) -> RootKey {
        RootKey::from_bytes(self.opened.head.root_key.as_bytes())
    }
}

/// What is shared: the JSON and the head before it.
pub struct Content<'j> {
    head: Head,
    json: &'j [u8],
}

impl<'j> Content<'j> {
    /// A document that is new in a file.
    pub(super) fn first(root_key: RootKey, json: &'j [u8], now: Timestamp) -> Self {
        Self { head: Head::new(root_key, 1, now, json), json }
    }
}

/// New shares of a document, made chunk by chunk as they are asked for.
pub struct NewShares<'a> {
    header: Header,
    content: Content<'a>,
    threshold: u16,
    ids: &'a ShareIds,
}

/// One frame of each share: the id and the bytes.
pub type Chunk = Vec<(u16, Zeroizing<Vec<u8>>)>;

/// Shares new content among `ids`, so that any `threshold` of them give it back.
///
/// Fails as [`SealedError::Document`] when the content is no JSON object, `TooLarge` when it does not fit into shares
/// of this file, `Settings` when the threshold is not 2 to the number of ids, `Ids` when the file has no such slots.
pub fn generate_new_shares<'a>(
    header: &Header,
    content: Content<'a>,
    threshold: u16,
    ids: &'a ShareIds,
) -> Result<NewShares<'a>> {
    check_document(header, content.json)?;
    ids.check_fits(header)?;
    check_threshold(threshold, ids)?;
    Ok(NewShares { header: *header, content, threshold, ids })
}

/// Refuses what is no document of such a file.
pub(super) fn check_document(header: &Header, json: &[u8]) -> Result<()> {
    let capacity = header.capacity();
    if json.len() > capacity {
        return Err(SealedError::TooLarge { len: json.len(), capacity });
    }
    Ok(check_object(json)?)
}

/// Refuses a threshold that so many shares cannot have. One share alone would be the document itself.
pub(super) fn check_threshold(threshold: u16, ids: &ShareIds) -> Result<()> {
    let count = ids.as_slice().len();
    let fits = (2..=count).contains(&usize::from(threshold));
    fits.then_some(())
        .ok_or_else(|| SealedError::Settings(format!("the threshold must be 2 to {count}, the number of ids")))
}

impl NewShares<'_> {
    /// The shares, frame by frame, over the whole length of a slot: content, then zeros. The polynomials are drawn anew
    /// at each call, so chunks of two calls do not fit together.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> {
        let (field, head) = (self.header.field, self.content.head.encode());
        let mut start = 0;
        (0..self.header.frames()).map(move |frame| {
            let share_len = self.header.frame_share_len(frame);
            let mut secret = Zeroizing::new(vec![0; field.secret_len(share_len)]);
            fill(&head, self.content.json, start, &mut secret);
            start += secret.len();
            let polynomials = field.split(&secret, share_len, self.threshold.into());
            let share = |id: &u16| {
                let mut share = Zeroizing::new(vec![0; share_len]);
                polynomials.share(*id, &mut share);
                (*id, share)
            };
            self.ids.as_slice().iter().map(share).collect()
        })
    }

    /// Which revision of the document they give.
    pub fn revision(&self) -> u64 {
        self.content.head.revision
    }

    /// Whose they are.
    pub fn ids(&self) -> &ShareIds {
        self.ids
    }

    /// How many of them give the content.
    pub fn threshold(&self) -> u16 {
        self.threshold
    }

    pub(super) fn head(&self) -> &Head {
        &self.content.head
    }

    pub(super) fn json(&self) -> &[u8] {
        self.content.json
    }
}

/// All shares of a file: those that stay, which nobody has to be able to open, and the new ones of one document.
pub struct Shares<'a> {
    source: &'a Image<'a>,
    new: NewShares<'a>,
}

/// Puts new shares in the place of those of the same ids; all others stay. Nothing is read or written yet.
///
/// Fails as [`SealedError::Ids`] when the new shares are not of exactly these ids, or were made for another file.
pub fn update_shares<'a>(all: &'a Image<'a>, new: NewShares<'a>, ids: &ShareIds) -> Result<Shares<'a>> {
    if new.ids != ids || new.header != all.header {
        return Err(SealedError::Ids("the new shares are not those of this document".to_owned()));
    }
    Ok(Shares { source: all, new })
}

/// Encrypts the new shares under the document's key, each for its slot, and writes the whole file to `target`: the same
/// header with its UUID, the slots of others byte for byte, the new ones, and the root that authenticates all. Then
/// reads it back, and compares slots, root and document.
///
/// Fails as [`SealedError::Damaged`] when the file was altered by somebody who can open no document of it, `NotWritten`
/// when it reads back differently, `Disk` when it cannot be written. The target is of no use then.
pub fn encrypt_updated_data(shares: &Shares<'_>, key: &DocumentKey, target: &dyn Bytes) -> Result<()> {
    let writer = Writer::copied(shares.source, target, shares.source.name)?;
    shares.source.check(writer.digests(), Some(&shares.new.head().root_key))?;
    encrypt_and_confirm(writer, target, shares.source.name, key, &shares.new)
}

/// Adds a document to a file that is being written, completes it, and reads it back.
pub(super) fn encrypt_and_confirm(
    mut writer: Writer<'_>,
    target: &dyn Bytes,
    name: &str,
    key: &DocumentKey,
    shares: &NewShares<'_>,
) -> Result<()> {
    writer.put(key, shares)?;
    let root_key = &shares.head().root_key;
    let digests = writer.finish(root_key)?;
    let written = Image::open(target, name)?;
    confirm(&written, &digests, root_key)?;
    confirm_document(&written, key, shares)
}
