//! Sealed documents: several JSON documents in one file of fixed size. A password with a set of share ids opens
//! exactly one; nobody can tell how many there are.
//!
//! Each document is shared (Shamir) among the slots of its ids, sealed there under keys that only password and ids
//! give. Slots that no document uses hold random bytes, which look the same. Every document carries the key that
//! authenticates the whole file, so whoever opens one notices any change that no owner of a document made. The bytes
//! are drawn in `FORMAT.md`, "Sealed documents".
//!
//! Uses: `base`, `crypto`, and `workspace` for files that lie in one. Others are read and written through `base::disk`
//! by absolute paths.
//!
//! Invariants:
//! - an operation writes one document (`refresh_file` all that are named); slots that are not named keep their bytes,
//!   which is checked before the new file takes the place of the old one;
//! - no file is ever written to in place: temporary file, read back, sync, backup, rename, sync of the directory;
//! - plaintext is in memory only, one document at most, and wiped, with the
//!   stack that was used; shares pass through one frame at a time;
//! - an update is made of the steps of `steps`: `decrypt_and_extract`, `generate_new_shares`, `update_shares`,
//!   `encrypt_updated_data`, which reads back what it wrote; `safe_update` does them under lock in a temporary file,
//!   and `update_file` then puts that file in its place; `update_in_workspace` puts it there in one version;
//! - a wrong password, wrong ids and an absent document are one error, after the same work.
//!
//! Lock order: the lock file of one file of documents; no operation takes two.

mod bytes;
mod content;
mod error;
mod file;
mod ids;
mod image;
mod json;
mod layout;
mod lock;
mod open;
mod process;
mod request;
mod rewrite;
mod steps;
mod within;
mod write;

pub use bytes::{Bytes, Memory};
pub use content::Head as DocumentHead;
pub use error::{Result, SealedError};
pub use file::{
    Outcome, Place, Prepared, Verified, add_document, change_password, create_file, init_file, read_document,
    read_header, refresh_file, safe_update, update_file, verify_file,
};
pub use ids::{Credentials, ShareIds};
pub use image::Image;
pub use json::{JsonError, check_object};
pub use layout::{Header, Settings};
pub use lock::{
    LOCK_TIMEOUT_MS, Machine, Operation, Swept, TempResources, WORK_DIR, cleanup_stale_temp_files,
    create_temp_resources, safe_remove_file, work_dir,
};
pub use open::{Damage, Description, Opened, open as open_document};
pub use process::{ProcessMark, Processes, SystemProcesses};
pub use request::{NewDocument, RequestSecrets, SecretDigest, named_operation, take_secrets};
pub use rewrite::{Document, NewAccess, NewIds, Written, update, update_into};
pub use steps::{
    Chunk, Content, Extracted, NewShares, Shares, decrypt_and_extract, encrypt_updated_data, generate_new_shares,
    update_shares,
};
pub use within::{check_in_workspace, update_in_workspace};
