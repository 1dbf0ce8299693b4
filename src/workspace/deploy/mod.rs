//! Bringing files of others (profiles, releases) into the live tree: all of it in one version, or nothing.
//!
//! A `Change` collects what shall become of paths and rests on what it saw of them; `decide` says what to do with
//! each file by three digests: what was installed last, what is there now, what is new.
//!
//! Invariants:
//! - nothing is touched before every conflict is known;
//! - what somebody changed is never overwritten without being asked for, and never without being in a version;
//! - symbolic links are not followed, and a path that is no plain relative path is refused.

mod change;
mod decide;
mod integrity;
mod path;
mod sidecar;

pub use change::{Change, ContentReader, PutError, Spot, Stage, Staged};
pub use decide::{Action, Clash, Class, Facts, Incoming, Now, Owned, SidecarFile, decide};
pub use integrity::{integrity_of_file, integrity_of_files, parse_integrity};
pub use path::{PathFault, check_path, fold};
pub use sidecar::sidecar_name;
