//! Where everything lies in a file of sealed documents. Drawn in `FORMAT.md`, "Sealed documents".

use uuid::{Uuid, Variant};

use super::error::{Result, SealedError};
use crate::base::random;
use crate::crypto::document::{FRAME_TAG_LEN, SALT_LEN};
use crate::crypto::sharing::{Field, SHARE_LEN_UNIT};
use crate::crypto::slots::KdfParams;

const MAGIC: [u8; 8] = *b"kusealed";
const VERSION: u8 = 1;
const KDF_ARGON2ID: u8 = 1;

/// Bytes of the header, and of the root behind it: a checksum and an authentication.
pub const HEADER_LEN: usize = 96;
/// Bytes of the root.
pub const ROOT_LEN: usize = 64;
/// Bytes of a slot before its frames: salt, commitment, sealed description.
pub const SLOT_HEAD_LEN: usize = 2 * SALT_LEN + DESCRIPTION_LEN + FRAME_TAG_LEN;
/// Bytes of a slot's description: generation, threshold, number of ids.
pub const DESCRIPTION_LEN: usize = 32;
/// Bytes of a share in one frame; the last frame may have fewer.
pub const FRAME_SHARE_LEN: usize = 64 * 1024;
/// Bytes of a document before its JSON.
pub const DOCUMENT_HEAD_LEN: usize = 96;

/// Most slots of a file with ids of 16 bits.
const SLOTS_MAX: u16 = 4096;
const SHARE_LEN_MIN: usize = 256;
/// Longest share. A document is in memory as a whole.
const SHARE_LEN_MAX: usize = 8 * 1024 * 1024;

/// What a file is made with, for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The field that shares are made in.
    pub field: Field,
    /// Number of slots; ids are 1 to this.
    pub slots: u16,
    /// Largest document, in bytes.
    pub capacity: usize,
    /// Cost of trying a password.
    pub kdf: KdfParams,
}

impl Default for Settings {
    /// GF(2^8), 64 slots, documents up to 16 KiB; for each password the work of 64 MiB and three passes, in 24 MiB, so
    /// that 64 MiB are enough for everything.
    fn default() -> Self {
        let kdf = KdfParams::new(24 * 1024, 8, 1).unwrap_or_default();
        Self { field: Field::Gf256, slots: 64, capacity: 16 * 1024, kdf }
    }
}

/// The header: what can be read without a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The identity of the file, for its whole life.
    pub uuid: Uuid,
    /// The field that shares are made in.
    pub field: Field,
    /// Cost of trying a password.
    pub kdf: KdfParams,
    /// Number of slots.
    pub slots: u16,
    share_len: u32,
    salt: [u8; SALT_LEN],
}

impl Header {
    /// A new file's.
    pub fn new(settings: &Settings) -> Result<Self> {
        let wrong = |what: String| Err(SealedError::Settings(what));
        let slots_max = settings.field.id_max().min(SLOTS_MAX);
        if !(2..=slots_max).contains(&settings.slots) {
            return wrong(format!("there must be 2 to {slots_max} slots in this field, not {}", settings.slots));
        }
        let capacity_max = Self::capacity_of(settings.field, SHARE_LEN_MAX);
        if settings.capacity > capacity_max {
            return wrong(format!("documents can have {capacity_max} bytes at most, not {}", settings.capacity));
        }
        let mut share_len = SHARE_LEN_MIN;
        while Self::capacity_of(settings.field, share_len) < settings.capacity {
            let missing = settings.capacity - Self::capacity_of(settings.field, share_len);
            share_len += missing.next_multiple_of(SHARE_LEN_UNIT);
        }
        Ok(Self {
            uuid: uuid::Builder::from_random_bytes(random::bytes()).into_uuid(),
            field: settings.field,
            kdf: settings.kdf,
            slots: settings.slots,
            share_len: u32::try_from(share_len).unwrap_or(u32::MAX),
            salt: random::bytes(),
        })
    }

    /// The stored form.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let (memory_kib, passes, lanes) = self.kdf.costs();
        let parts: [&[u8]; 11] = [
            &MAGIC,
            &[VERSION, self.field.code(), KDF_ARGON2ID, 0],
            self.uuid.as_bytes(),
            &memory_kib.to_le_bytes(),
            &passes.to_le_bytes(),
            &lanes.to_le_bytes(),
            &u32::from(self.slots).to_le_bytes(),
            &self.share_len.to_le_bytes(),
            &self.salt,
            &[0; 8],
            &[0; 8],
        ];
        let mut bytes = [0; HEADER_LEN];
        let mut at = 0;
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        bytes
    }

    /// Reads the stored form; `file` is for messages.
    pub fn decode(bytes: &[u8; HEADER_LEN], file: &str) -> Result<Self> {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let damaged = |what| SealedError::Damaged { file: file.to_owned(), what };
        if bytes[..8] != MAGIC {
            return Err(SealedError::NotSealed { file: file.to_owned() });
        }
        if bytes[8] > VERSION {
            return Err(SealedError::NewerFormat { file: file.to_owned(), found: bytes[8] });
        }
        let field = Field::from_code(bytes[9]).ok_or_else(|| damaged("no such field"))?;
        if bytes[8] != VERSION || bytes[10] != KDF_ARGON2ID || bytes[11] != 0 || bytes[80..] != [0; 16] {
            return Err(damaged("its header makes no sense"));
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[12..28]);
        let uuid = Uuid::from_bytes(uuid);
        if uuid.get_version_num() != 4 || uuid.get_variant() != Variant::RFC4122 {
            return Err(damaged("its UUID is none"));
        }
        let kdf = KdfParams::new(number(28), number(32), number(36))
            .ok_or_else(|| damaged("it asks for more or less work for a password than is allowed"))?;
        let slots = u16::try_from(number(40)).ok().filter(|slots| (2..=field.id_max().min(SLOTS_MAX)).contains(slots));
        let slots = slots.ok_or_else(|| damaged("its number of slots is not possible"))?;
        let share_len = number(44);
        let len = usize::try_from(share_len).unwrap_or(usize::MAX);
        if !(SHARE_LEN_MIN..=SHARE_LEN_MAX).contains(&len) || !len.is_multiple_of(SHARE_LEN_UNIT) {
            return Err(damaged("the length of its shares is not possible"));
        }
        let mut salt = [0; SALT_LEN];
        salt.copy_from_slice(&bytes[48..80]);
        Ok(Self { uuid, field, kdf, slots, share_len, salt })
    }

    fn capacity_of(field: Field, share_len: usize) -> usize {
        field.secret_len(share_len) - DOCUMENT_HEAD_LEN
    }

    /// Bytes of one whole share.
    pub fn share_len(&self) -> usize {
        self.share_len as usize
    }

    /// Bytes of the longest document.
    pub fn capacity(&self) -> usize {
        Self::capacity_of(self.field, self.share_len())
    }

    /// Number of frames of a slot.
    pub fn frames(&self) -> usize {
        self.share_len().div_ceil(FRAME_SHARE_LEN)
    }

    /// Bytes of the share in a frame.
    pub fn frame_share_len(&self, frame: usize) -> usize {
        (self.share_len() - frame * FRAME_SHARE_LEN).min(FRAME_SHARE_LEN)
    }

    /// First byte of a frame, counted from the slot's.
    pub fn frame_start(&self, frame: usize) -> u64 {
        (SLOT_HEAD_LEN + frame * (FRAME_SHARE_LEN + FRAME_TAG_LEN)) as u64
    }

    /// Bytes of a slot.
    pub fn slot_len(&self) -> u64 {
        (SLOT_HEAD_LEN + self.share_len() + self.frames() * FRAME_TAG_LEN) as u64
    }

    /// First byte of the slot of an id.
    pub fn slot_start(&self, id: u16) -> u64 {
        (HEADER_LEN + ROOT_LEN) as u64 + u64::from(id - 1) * self.slot_len()
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> u64 {
        (HEADER_LEN + ROOT_LEN) as u64 + u64::from(self.slots) * self.slot_len()
    }
}
