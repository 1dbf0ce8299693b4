//! Why something could not be done with a profile. In every case, nothing was changed.

use serde::Serialize;

use super::phases::Phase;
use crate::workspace::{Clash, PathFault, WorkspaceError};

/// The result of an operation on profiles.
pub type Result<T> = std::result::Result<T, ProfileError>;

/// A file that stands in the way of an install.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// The path, from the root.
    pub path: String,
    /// Why.
    #[serde(flatten)]
    pub clash: Clash,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = &self.path;
        match &self.clash {
            Clash::Modified => write!(f, "{path} was changed since it was installed"),
            Clash::Unowned => write!(f, "{path} is there and belongs to no profile"),
            Clash::Owned { owner } => write!(f, "{path} belongs to profile `{owner}`"),
            Clash::InTheWay { what } => write!(f, "{path}: {what} is in the way"),
        }
    }
}

/// Why something could not be done with a profile. In every case, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// A name that no profile can have.
    #[error("`{name}` is no name of a profile: 1 to 64 of a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit")]
    Name {
        /// The name.
        name: String,
    },
    /// There is no such profile where it was looked for.
    #[error("{phase}: there is no {manifest}", phase = Phase::Manifest)]
    NoManifest {
        /// Where it should be.
        manifest: String,
    },
    /// A profile that cannot be installed as it is.
    #[error("{phase}: {manifest} is not usable: {}", problems.join("; "), phase = Phase::Manifest)]
    BadManifest {
        /// Where it is.
        manifest: String,
        /// Everything that is wrong with it.
        problems: Vec<String>,
    },
    /// A file of a profile cannot be read.
    #[error("{phase}: {path} cannot be read: {reason}")]
    Source {
        /// When.
        phase: Phase,
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// A path that nothing can be installed at.
    #[error("`{path}` is not usable: {fault}")]
    Path {
        /// The path.
        path: String,
        /// Why.
        fault: PathFault,
    },
    /// The lock file or the configuration is damaged, or was changed by hand.
    #[error("{phase}: {path} is not usable: {reason}", phase = Phase::Lock)]
    BadLock {
        /// Which of them.
        path: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer program.
    #[error("{phase}: {path} is of version {found}, newer than this program's", phase = Phase::Lock)]
    NewerLock {
        /// Which of them.
        path: &'static str,
        /// Its version.
        found: u64,
    },
    /// The profile is installed already.
    #[error("profile `{name}` is installed already, in version {version}")]
    AlreadyInstalled {
        /// The profile.
        name: String,
        /// What is installed.
        version: String,
    },
    /// The profile is not installed.
    #[error("profile `{name}` is not installed")]
    NotInstalled {
        /// The profile.
        name: String,
    },
    /// Files stand in the way.
    #[error("{phase}: {} files stand in the way: {}", conflicts.len(), list(conflicts), phase = Phase::Plan)]
    Conflicts {
        /// All of them, by path.
        conflicts: Vec<Conflict>,
    },
    /// What would be installed is not what the lock file says.
    #[error("{phase}: profile `{name}` is frozen, and {reason}", phase = Phase::Plan)]
    Frozen {
        /// The profile.
        name: String,
        /// What differs.
        reason: String,
    },
    /// Nothing to go back to.
    #[error("profile `{name}` cannot be rolled back: {reason}")]
    NoEarlier {
        /// The profile.
        name: String,
        /// Why.
        reason: String,
    },
    /// No sidecar waits for a decision about this path.
    #[error("no sidecar of any profile waits beside `{path}`")]
    NothingToResolve {
        /// The path.
        path: String,
    },
    /// A clock that cannot be right.
    #[error("the clock shows a time before 1970; set it")]
    Clock,
    /// The workspace refused.
    #[error("{phase}: {source}")]
    Workspace {
        /// When.
        phase: Phase,
        /// Why.
        source: WorkspaceError,
    },
}

/// Conflicts that are told in one message; programs get all of them.
const LISTED_MAX: usize = 10;

fn list(conflicts: &[Conflict]) -> String {
    let listed: Vec<String> = conflicts.iter().take(LISTED_MAX).map(Conflict::to_string).collect();
    let rest = conflicts.len().saturating_sub(LISTED_MAX);
    let rest = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    format!("{}{rest}", listed.join("; "))
}

/// Adds the phase to an error of the workspace.
pub(super) fn during(phase: Phase) -> impl Fn(WorkspaceError) -> ProfileError {
    move |source| ProfileError::Workspace { phase, source }
}
