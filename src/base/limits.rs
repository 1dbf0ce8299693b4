//! Every limit in one place. Sizes in bytes unless the name says otherwise.

/// The format this program writes, and the newest it reads.
pub const FORMAT_VERSION: u8 = 1;

/// Longest file name.
pub const NAME_LEN_MAX: usize = 255;
/// Longest symbolic link target (Linux PATH_MAX less the closing NUL).
pub const SYMLINK_LEN_MAX: usize = 4095;
/// Largest file.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;
/// Largest value of one extended attribute (Linux XATTR_SIZE_MAX).
pub const XATTR_VALUE_LEN_MAX: usize = 65536;
/// Largest sum of names and values of one file's extended attributes.
pub const XATTR_TOTAL_LEN_MAX: usize = 131_072;

/// Content up to this size lives inside its directory entry.
pub const INLINE_LEN_MAX: usize = 256;
/// Files below this size are one chunk.
pub const CHUNK_LEN_MIN: usize = 256 * 1024;
/// Target size of a chunk.
pub const CHUNK_LEN_AVG: usize = 1024 * 1024;
/// Largest chunk.
pub const CHUNK_LEN_MAX: usize = 4 * 1024 * 1024;
/// Plaintext bytes sealed together; the unit of a random read.
pub const FRAME_LEN: usize = 128 * 1024;
/// Blobs whose sealed form is at least this long are objects of their own; others go into packs.
pub const PACKED_LEN_MAX: usize = 256 * 1024;
/// A pack is closed when it reaches this size.
pub const PACK_LEN_TARGET: usize = 16 * 1024 * 1024;

/// A directory (or other page tree) up to this encoded size is one page.
pub const PAGE_LEN_SINGLE: usize = 16 * 1024;
/// No page may be longer than this.
pub const PAGE_LEN_MAX: usize = 512 * 1024;

/// Largest object that is read into memory whole.
pub const OBJECT_LEN_MAX: usize = 64 * 1024 * 1024;

const _: () = assert!(INLINE_LEN_MAX < CHUNK_LEN_MIN);
const _: () = assert!(CHUNK_LEN_MIN < CHUNK_LEN_AVG && CHUNK_LEN_AVG < CHUNK_LEN_MAX);
const _: () = assert!(PACKED_LEN_MAX < PACK_LEN_TARGET);
const _: () = assert!(XATTR_TOTAL_LEN_MAX + XATTR_VALUE_LEN_MAX < PAGE_LEN_MAX);
const _: () = assert!(PACK_LEN_TARGET + CHUNK_LEN_MAX < OBJECT_LEN_MAX);
