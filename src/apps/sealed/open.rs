//! Opening one document of a file.

use zeroize::Zeroizing;

use super::content::Head;
use super::error::{Result, SealedError};
use super::ids::ShareIds;
use super::image::Image;
use super::layout::{DESCRIPTION_LEN, DOCUMENT_HEAD_LEN, SLOT_HEAD_LEN};
use crate::crypto::document::{DocumentKey, FRAME_TAG_LEN, SALT_LEN, SlotKey};

/// The number under which a slot's description is sealed; frames count from 0.
pub const DESCRIPTION_NUMBER: u32 = u32::MAX;

/// What to do with a document some of whose slots are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Refuse it, as everything else that is not as it was written.
    Refuse,
    /// Read it when enough of its shares are left, whatever else is wrong with the file.
    Accept,
}

/// Every slot of a document is described so.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Drawn at each writing, so that shares of different ones are never mixed.
    pub generation: [u8; 16],
    /// How many shares give the document.
    pub threshold: u16,
    /// How many there are.
    pub ids: u16,
}

impl Description {
    /// The stored form.
    pub fn encode(&self) -> [u8; DESCRIPTION_LEN] {
        let mut bytes = [0; DESCRIPTION_LEN];
        bytes[..16].copy_from_slice(&self.generation);
        bytes[16..18].copy_from_slice(&self.threshold.to_le_bytes());
        bytes[18..20].copy_from_slice(&self.ids.to_le_bytes());
        bytes
    }

    /// Reads the stored form of one of `ids` slots; `None` when it makes no sense.
    pub fn decode(bytes: &[u8; DESCRIPTION_LEN], ids: usize) -> Option<Self> {
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let mut generation = [0; 16];
        generation.copy_from_slice(&bytes[..16]);
        let description = Self { generation, threshold: number(16), ids: number(18) };
        let sound = bytes[20..] == [0; 12]
            && usize::from(description.ids) == ids
            && (2..=description.ids).contains(&description.threshold);
        sound.then_some(description)
    }
}

/// A document that opened.
pub struct Opened<'a> {
    image: &'a Image<'a>,
    slots: Vec<(u16, SlotKey)>,
    /// How its slots are described.
    pub description: Description,
    /// What stands before its JSON.
    pub head: Head,
    damage: Damage,
}

/// Opens the document of the credentials; the key is the costly part of them.
///
/// Nothing here depends on which documents there are: without the right password and ids, every slot asked for is
/// tried alike, and all fail alike.
pub fn open<'a>(image: &'a Image<'a>, ids: &ShareIds, key: &DocumentKey, damage: Damage) -> Result<Opened<'a>> {
    let mut found: Vec<(u16, SlotKey, Description)> = Vec::with_capacity(ids.as_slice().len());
    for id in ids.as_slice() {
        if let Some((slot, description)) = try_slot(image, *id, key, ids.as_slice().len())? {
            found.push((*id, slot, description));
        }
    }
    let alike = |wanted: &Description| found.iter().filter(|(_, _, description)| description == wanted).count();
    let Some((.., description)) = found.iter().max_by_key(|(.., description)| alike(description)) else {
        // Whether the file is whole can be seen without a password, so saying it tells nothing.
        if damage == Damage::Refuse {
            image.check(&image.digests()?, None)?;
        }
        return Err(SealedError::NoDocument { file: image.name.to_owned() });
    };
    let description = *description;
    let slots: Vec<(u16, SlotKey)> =
        found.into_iter().filter(|(.., found)| *found == description).map(|(id, slot, _)| (id, slot)).collect();
    let needed = match damage {
        Damage::Refuse => ids.as_slice().len(),
        Damage::Accept => description.threshold.into(),
    };
    if slots.len() < needed {
        return Err(image.damaged("slots of this document were altered; take a backup of it"));
    }
    let mut first = Zeroizing::new(vec![0; image.header.field.secret_len(image.header.frame_share_len(0))]);
    read_frame(image, &slots, description.threshold.into(), 0, damage, &mut first)?;
    let mut head = Zeroizing::new([0; DOCUMENT_HEAD_LEN]);
    head.copy_from_slice(&first[..DOCUMENT_HEAD_LEN]);
    let head = Head::decode(&head, image.header.capacity())
        .ok_or_else(|| image.damaged("the document's head makes no sense; take a backup of the file"))?;
    Ok(Opened { image, slots, description, head, damage })
}

/// The key and description of a slot, if it was written under the document's key.
fn try_slot(image: &Image<'_>, id: u16, key: &DocumentKey, ids: usize) -> Result<Option<(SlotKey, Description)>> {
    let mut head = [0; SLOT_HEAD_LEN];
    image.read(&mut head, image.header.slot_start(id))?;
    let (mut salt, mut commitment) = ([0; SALT_LEN], [0; SALT_LEN]);
    salt.copy_from_slice(&head[..SALT_LEN]);
    commitment.copy_from_slice(&head[SALT_LEN..2 * SALT_LEN]);
    let mut description = [0; DESCRIPTION_LEN];
    description.copy_from_slice(&head[2 * SALT_LEN..2 * SALT_LEN + DESCRIPTION_LEN]);
    let mut tag = [0; FRAME_TAG_LEN];
    tag.copy_from_slice(&head[2 * SALT_LEN + DESCRIPTION_LEN..]);
    let slot = key.slot(id, &salt);
    // Both are always done.
    let committed = slot.is_committed(&commitment);
    let opens = slot.open(DESCRIPTION_NUMBER, &mut description, &tag);
    if !(committed & opens) {
        return Ok(None);
    }
    Ok(Description::decode(&description, ids).map(|description| (slot, description)))
}

/// Puts a frame's part of the document together; the shares beyond the threshold must agree with the others.
fn read_frame(
    image: &Image<'_>,
    slots: &[(u16, SlotKey)],
    threshold: usize,
    frame: usize,
    damage: Damage,
    secret: &mut [u8],
) -> Result<()> {
    let (header, share_len) = (&image.header, image.header.frame_share_len(frame));
    let (mut ids, mut shares) = (Vec::with_capacity(slots.len()), Vec::with_capacity(slots.len()));
    for (id, slot) in slots {
        let mut share = Zeroizing::new(vec![0; share_len]);
        let mut tag = [0; FRAME_TAG_LEN];
        let start = header.slot_start(*id) + header.frame_start(frame);
        image.read(&mut share, start)?;
        image.read(&mut tag, start + share_len as u64)?;
        if slot.open(u32::try_from(frame).unwrap_or(DESCRIPTION_NUMBER), &mut share, &tag) {
            ids.push(*id);
            shares.push(share);
        } else if damage == Damage::Refuse {
            return Err(image.damaged("slots of this document were altered; take a backup of it"));
        }
    }
    if shares.len() < threshold {
        return Err(image.damaged("too few shares of this document are left"));
    }
    let mut expected = Zeroizing::new(vec![0; share_len]);
    for (id, share) in ids.iter().zip(&shares).skip(threshold) {
        header.field.share_at(&ids[..threshold], &shares[..threshold], *id, &mut expected);
        if expected != *share {
            return Err(image.damaged("the shares of this document contradict each other"));
        }
    }
    if !header.field.combine(&ids[..threshold], &shares[..threshold], secret) {
        return Err(image.damaged("the shares of this document give no secret"));
    }
    Ok(())
}

impl Opened<'_> {
    /// Its JSON, as it was given.
    pub fn json(&self) -> Result<Zeroizing<Vec<u8>>> {
        let mut json = Zeroizing::new(Vec::with_capacity(self.head.json_len()));
        self.each_part(|part| json.extend_from_slice(part))?;
        if self.head.fits(&json) { Ok(json) } else { Err(self.image.damaged("a document is not what was written")) }
    }

    /// Whether this is its JSON.
    pub fn is_json(&self, expected: &[u8]) -> Result<bool> {
        let mut left = expected;
        let mut same = self.head.fits(expected);
        self.each_part(|part| match left.split_at_checked(part.len()) {
            Some((front, rest)) => {
                same &= front == part;
                left = rest;
            }
            None => same = false,
        })?;
        Ok(same && left.is_empty())
    }

    /// Gives the JSON part by part.
    fn each_part(&self, mut each: impl FnMut(&[u8])) -> Result<()> {
        let header = &self.image.header;
        let end = DOCUMENT_HEAD_LEN + self.head.json_len();
        let mut start = 0;
        for frame in 0..header.frames() {
            let mut part = Zeroizing::new(vec![0; header.field.secret_len(header.frame_share_len(frame))]);
            if start < end {
                let threshold = self.description.threshold.into();
                read_frame(self.image, &self.slots, threshold, frame, self.damage, &mut part)?;
                each(&part[DOCUMENT_HEAD_LEN.saturating_sub(start)..part.len().min(end - start)]);
            }
            start += part.len();
        }
        Ok(())
    }
}
