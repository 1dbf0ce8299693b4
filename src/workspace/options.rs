//! What a workspace is made and opened with.

use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::Maintenance;
use crate::base::clock::{Clock, SystemClock};
use crate::base::disk::{Disk, RealDisk};
use crate::base::ids::{Sha256, VersionId, WorkspaceId};
use crate::crypto::slots::{Credential, KdfParams, NewSlot};
use crate::store::StoreUrl;
use crate::worktree::Limits;

/// Where the credential comes from; asked once, after the workspace was found. An error is the reason in words.
pub type CredentialSource = Box<dyn Fn() -> Result<Credential, String> + Send + Sync>;

/// Told in words what is being waited for.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// What a new workspace shall be like.
pub struct InitOptions {
    /// The first key slots.
    pub slots: Vec<NewSlot>,
    /// Whether a workspace was seen at that place before: then it is away when nothing is there.
    pub was_there: bool,
    /// Whether to add a slot for a recovery code.
    pub recovery_code: bool,
    /// What passphrases cost.
    pub kdf: KdfParams,
    /// Who makes it.
    pub host: String,
    /// Who makes it.
    pub user: String,
    /// The local disk.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl InitOptions {
    /// The usual: a recovery code besides `slots`, default costs, this machine and user.
    pub fn new(slots: Vec<NewSlot>) -> Self {
        let (host, user) = whoami();
        Self {
            slots,
            was_there: false,
            recovery_code: true,
            kdf: KdfParams::default(),
            host,
            user,
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock),
        }
    }
}

/// What came of making a workspace.
#[derive(Debug)]
pub struct InitReport {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The recovery code, to be shown once; it is kept nowhere.
    pub recovery_code: Option<Zeroizing<String>>,
    /// Whether the store's conditional writes work. Without them only one client at a time may write.
    pub conditional_writes: bool,
}

/// How a workspace is opened.
pub struct OpenOptions {
    /// The store.
    pub store: StoreUrl,
    /// Holds the state of all workspaces; that of one is `<state_dir>/<workspace uuid>`.
    pub state_dir: PathBuf,
    /// Holds the caches of all workspaces.
    pub cache_dir: PathBuf,
    /// The key.
    pub credential: CredentialSource,
    /// Who is told that the store is being waited for, if anybody.
    pub notice: Option<Notice>,
    /// Who is told, without names, of conflicts and of trouble with publishing, if anybody.
    pub announce: Option<Notice>,
    /// Refuse every change, and publish nothing.
    pub read_only: bool,
    /// Go on with a journal that was altered, as far as it is good.
    pub accept_damage: bool,
    /// Go on with a store that shows an older state than was seen.
    pub accept_rollback: bool,
    /// Become the writer of a store without conditional writes although another client is.
    pub take_over: bool,
    /// A version that the store's history must hold: what a client without a memory of its own can go by.
    pub trust: Option<VersionId>,
    /// Limits of the live tree.
    pub limits: Limits,
    /// Opened content kept in memory, in bytes; down to a third of it while very many inodes need memory.
    pub memory_bytes_max: usize,
    /// Fetched objects kept on the local disk, in bytes.
    pub cache_bytes_max: u64,
    /// When things are done by themselves.
    pub intervals: Intervals,
    /// What is done by itself to keep the store in order.
    pub maintenance: Maintenance,
    /// When an fsync is done.
    pub fsync: Fsync,
    /// Host name in recorded versions.
    pub host: String,
    /// User name in recorded versions.
    pub user: String,
    /// SHA-256 of the machine's id: a state directory that comes from another machine is a new client.
    pub machine: Option<Sha256>,
    /// The local disk.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// When an fsync is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// When everything is durable on this machine.
    #[default]
    Local,
    /// When, besides, a version that holds it is published in the store.
    Store,
}

/// When things are done by themselves, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    /// A version is recorded so long after the last change,
    pub version_quiet_ms: u64,
    /// but at most so long after the first.
    pub version_max_ms: u64,
    /// Dirty bytes reach the journal.
    pub log_ms: u64,
    /// The journal reaches the disk.
    pub sync_ms: u64,
    /// First wait after publishing failed; it doubles from failure to failure.
    pub retry_first_ms: u64,
    /// Longest wait after publishing failed.
    pub retry_max_ms: u64,
    /// How often it is looked whether others have published something.
    pub poll_ms: u64,
    /// Longest time that closing spends on publishing.
    pub close_publish_ms: u64,
    /// Longest time that an fsync waits for the store, where it does.
    pub fsync_publish_ms: u64,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            version_quiet_ms: 2_000,
            version_max_ms: 30_000,
            log_ms: 1_000,
            sync_ms: 5_000,
            retry_first_ms: 1_000,
            retry_max_ms: 60_000,
            poll_ms: 30_000,
            close_publish_ms: 30_000,
            fsync_publish_ms: 30_000,
        }
    }
}

impl OpenOptions {
    /// The usual limits and intervals, on this machine, for this user.
    pub fn new(store: StoreUrl, state_dir: PathBuf, cache_dir: PathBuf, credential: CredentialSource) -> Self {
        let (host, user) = whoami();
        Self {
            store,
            state_dir,
            cache_dir,
            credential,
            notice: None,
            announce: None,
            read_only: false,
            accept_damage: false,
            accept_rollback: false,
            take_over: false,
            trust: None,
            limits: Limits::default(),
            memory_bytes_max: 192 << 20,
            cache_bytes_max: 10 << 30,
            intervals: Intervals::default(),
            maintenance: Maintenance::default(),
            fsync: Fsync::Local,
            host,
            user,
            machine: machine(),
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock),
        }
    }
}

/// Host and user name; numbers where there are no names.
fn whoami() -> (String, String) {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    let uid = nix::unistd::Uid::effective();
    let user = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    (host.unwrap_or_else(|_| "localhost".to_owned()), user.unwrap_or_else(|| uid.to_string()))
}

/// The SHA-256 of the machine's id; `None` when it has none.
fn machine() -> Option<Sha256> {
    let id = std::fs::read("/etc/machine-id").ok().filter(|id| !id.trim_ascii().is_empty())?;
    Some(crate::version::index::sha256(id.trim_ascii()))
}
