//! A workspace, opened: the only place that picks concrete types and wires them.
//!
//! Uses: everything above it; writes files of its own only in `export`. Knows no words of the command line.
//!
//! Invariants:
//! - one process at a time works on a state directory (the file `lock`);
//! - nothing that waits to be published is dropped or evicted, whatever stops publishing;
//! - operations on history (restore, revert, import) first record what is there, so that every one of them can be
//!   undone.
//!
//! Lock order: history operations, publisher, leases, then whatever `worktree` takes; the state shown by `status` is
//! locked last and briefly.

mod affected;
mod background;
mod check;
mod close;
mod conflicts;
mod collect;
mod deploy;
mod error;
mod events;
mod export;
mod forget;
mod fsync;
mod history;
mod import;
mod init;
mod keep;
mod maintain;
mod locks;
mod near;
mod open;
mod opened;
mod options;
mod place;
mod records;
mod reencrypt;
mod repair;
mod reports;
mod restore;
mod revert;
mod scratch;
mod select;
mod slots;
mod space;
mod status;
mod store_records;
mod waiting;
mod trace;
mod xattr;

pub use check::{Affected, CheckReport, Sample};
pub use conflicts::{Beside, Take, is_beside};
pub use deploy::{
    Action, Change, Clash, Class, ContentReader, Facts, Incoming, Now, Owned, PathFault, PutError, SidecarFile, Spot,
    Stage, Staged, check_path, decide, fold, integrity_of_file, integrity_of_files, parse_integrity, sidecar_name,
};
pub use error::WorkspaceError;
pub use forget::ForgetReport;
pub use keep::is_known;
pub use maintain::Maintenance;
pub use near::{Fetching, decode_pins};
pub use opened::Workspace;
pub use options::{CredentialSource, Fsync, InitOptions, InitReport, Intervals, Notice, OpenOptions};
pub use place::is_inside;
pub use records::Records;
pub use reencrypt::Reencryption;
pub use repair::RepairReport;
pub use reports::{
    CloseReport, Conflict, ExportReport, FlushReport, ImportReport, PathChange, Progress, Restored, Side,
};
pub use select::is_time;
pub use slots::{KeySlots, SlotInfo, SlotState};
pub use space::{Stored, StoredPoint};
pub use status::{LockStatus, Offline, Status};
pub use store_records::StoreRecords;
pub use trace::{Gone, Step};
pub use waiting::WaitingFile;

/// The result of an operation of this room.
pub type Result<T> = std::result::Result<T, WorkspaceError>;

/// Why a name `.kura` is passed over.
pub const RESERVED: &str = "the name `.kura` is reserved for the control directory of a mount";

/// The names of a path that is written with `/`; empty for the root.
pub fn split_path(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect()
}
