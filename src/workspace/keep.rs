//! The objects that open a workspace, from the store or from the copies in the state directory.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::init::{HEADER, key, put_checked};
use super::{Result, WorkspaceError};
use crate::base::disk::{Disk, RealDisk, read_file, replace_file};
use crate::base::ids::{SlotId, WorkspaceId};
use crate::crypto::slots::{OpenSlot, UnlockError, WorkspaceHeader, read_header};
use crate::crypto::{Keys, Sealed};
use crate::store::{ObjectKey, ObjectStore, PutCondition, StoreError};
use crate::sync::SyncError;
use crate::version::index::sha256;

/// Longest of these objects in bytes.
const LEN_MAX: usize = 512 * 1024;
/// Most of a kind: as many as there can be epochs. And what they may take together, in bytes.
const OBJECTS_MAX: usize = 4096;
const TOTAL_LEN_MAX: usize = 256 << 20;

/// `kura.json`, and what lies under `keys/` and `epochs/`.
pub(super) struct KeyObjects {
    pub(super) header: Vec<u8>,
    pub(super) slots: Vec<(SlotId, Vec<u8>)>,
    pub(super) epochs: Vec<(u32, Vec<u8>)>,
}

impl KeyObjects {
    /// Reads them from the store.
    pub(super) fn fetch(store: &dyn ObjectStore) -> Result<Self> {
        let header = match store.get(&key(HEADER)) {
            Ok(object) => object.bytes,
            Err(StoreError::NotFound { .. }) => {
                return Err(WorkspaceError::NoWorkspace { store: store.address().to_owned() });
            }
            Err(error) => return Err(error.into()),
        };
        let slots = fetch_all(store, "keys/", |name| name.parse().ok())?;
        let epochs = fetch_all(store, "epochs/", epoch_number)?;
        Ok(Self { header, slots, epochs })
    }

    /// Refuses epochs that do not continue those in `copies`, made when this client saw the store last.
    pub(super) fn check_against(&self, copies: &KeyObjects, keys: &Keys, slot: &OpenSlot) -> Result<()> {
        let newest = |objects: &KeyObjects| objects.epochs.iter().map(|(number, _)| *number).max().unwrap_or(0);
        let (number, found) = (newest(copies), newest(self));
        if number > found {
            return Err(UnlockError::EpochGone { number, found }.into());
        }
        match slot.remembered(&copies.header, &copies.epochs) {
            Ok(remembered) if !keys.continues(&remembered) => {
                let reason = "it is forged: it does not continue the epochs that this client has seen";
                Err(UnlockError::DamagedEpoch { number: found, reason }.into())
            }
            Ok(_) => Ok(()),
            // A slot that is newer than the copies, or copies that are damaged, prove nothing.
            Err(error) => {
                tracing::debug!("the local copies of the keys prove nothing: {error}");
                Ok(())
            }
        }
    }

    /// Puts epoch records into a store that has lost them.
    pub(super) fn put_back_epochs(&self, store: &dyn ObjectStore, conditional: bool) -> Result<()> {
        for (number, bytes) in &self.epochs {
            let name = key(format!("epochs/{number}"));
            let Some(record) = Sealed::from_local(bytes.clone()) else { continue };
            if matches!(store.get(&name), Err(StoreError::NotFound { .. })) {
                let condition = if conditional { PutCondition::IfAbsent } else { PutCondition::Always };
                put_checked(store, &name, &record, condition)?;
                tracing::warn!("{name} was missing from the store and is put back");
            }
        }
        Ok(())
    }

    /// What the header says, before any key is known.
    pub(super) fn header(&self) -> Result<WorkspaceHeader> {
        Ok(read_header(&self.header)?)
    }

    /// Reads the copies in a state directory.
    pub(super) fn read_copies(disk: &dyn Disk, state_dir: &Path) -> std::io::Result<Self> {
        let dir = state_dir.join("keys");
        let header = read_file(disk, &dir.join(HEADER), LEN_MAX)?;
        let (mut slots, mut epochs) = (Vec::new(), Vec::new());
        for item in disk.list(&dir)? {
            let path = dir.join(&item.name);
            if let Some(id) = item.name.strip_prefix("slot-").and_then(|id| id.parse().ok()) {
                slots.push((id, read_file(disk, &path, LEN_MAX)?));
            } else if let Some(number) = item.name.strip_prefix("epoch-").and_then(epoch_number) {
                epochs.push((number, read_file(disk, &path, LEN_MAX)?));
            }
        }
        Ok(Self { header, slots, epochs })
    }

    /// Brings the copies in a state directory up to date.
    pub(super) fn write_copies(&self, disk: &dyn Disk, state_dir: &Path) -> Result<()> {
        let dir = state_dir.join("keys");
        let work = || -> std::io::Result<()> {
            disk.create_dir_all(&dir)?;
            let slots = self.slots.iter().map(|(id, bytes)| (format!("slot-{id}"), bytes));
            let epochs = self.epochs.iter().map(|(number, bytes)| (format!("epoch-{number}"), bytes));
            let header = [(HEADER.to_owned(), &self.header)];
            let mut names = Vec::new();
            for (name, bytes) in slots.chain(epochs).chain(header) {
                let path = dir.join(&name);
                if read_file(disk, &path, LEN_MAX).ok().as_ref() != Some(bytes) {
                    replace_file(disk, &path, bytes)?;
                }
                names.push(name);
            }
            for item in disk.list(&dir)?.into_iter().filter(|item| !names.contains(&item.name)) {
                disk.remove(&dir.join(item.name))?;
            }
            Ok(())
        };
        work().map_err(|error| WorkspaceError::disk(&dir, &error))
    }
}

fn epoch_number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|number: &u32| number.to_string() == name)
}

/// The objects below `prefix` whose names mean something. Nothing is known of the store yet: it may list anything.
fn fetch_all<T>(store: &dyn ObjectStore, prefix: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<(T, Vec<u8>)>> {
    let mut listed: Vec<(T, ObjectKey)> = Vec::new();
    store.list(prefix, &mut |info| {
        let name = info.key.as_str().strip_prefix(prefix).and_then(&read);
        if let Some(name) = name.filter(|_| listed.len() <= OBJECTS_MAX) {
            listed.push((name, info.key));
        }
    })?;
    let too_much = || {
        let (target, reason) =
            (format!("{prefix} in {}", store.address()), "it holds more than a workspace has of keys");
        Err(StoreError::Invalid { target, reason: reason.to_owned() }.into())
    };
    if listed.len() > OBJECTS_MAX {
        return too_much();
    }
    let (mut found, mut total_len) = (Vec::with_capacity(listed.len()), 0);
    for (name, key) in listed {
        match store.get(&key) {
            Ok(mut object) => {
                // A longer one is damaged, also when it is cut; the others open the workspace.
                object.bytes.truncate(LEN_MAX);
                object.bytes.shrink_to_fit();
                total_len += object.bytes.len();
                if total_len > TOTAL_LEN_MAX {
                    return too_much();
                }
                found.push((name, object.bytes));
            }
            // Removed since it was listed.
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// Whether a workspace was opened at this address before, with this root of the local state.
pub fn is_known(state_root: &Path, address: &str) -> bool {
    KnownStores { disk: &RealDisk, state_root }.find(address).is_some()
}

/// Which workspace lies at which address: `stores/<hash of the address>` in the state directory of all workspaces.
pub(super) struct KnownStores<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) state_root: &'a Path,
}

impl KnownStores<'_> {
    fn path(&self, address: &str) -> PathBuf {
        let digest = sha256(address.as_bytes()).to_string();
        self.state_root.join("stores").join(&digest[..32])
    }

    /// The workspace that was found at an address when it was last opened.
    pub(super) fn find(&self, address: &str) -> Option<WorkspaceId> {
        let bytes = read_file(self.disk, &self.path(address), 64).ok()?;
        std::str::from_utf8(&bytes).ok()?.parse().ok()
    }

    /// Remembers it.
    pub(super) fn remember(&self, address: &str, workspace: WorkspaceId) -> Result<()> {
        if self.find(address) == Some(workspace) {
            return Ok(());
        }
        let path = self.path(address);
        let dir = self.state_root.join("stores");
        let written = self.disk.create_dir_all(&dir);
        written
            .and_then(|()| replace_file(self.disk, &path, workspace.to_string().as_bytes()))
            .map_err(|error| WorkspaceError::disk(path, &error))
    }
}

/// Whether an error means that the store may come back by itself.
pub(super) fn is_away(error: &WorkspaceError) -> bool {
    let (WorkspaceError::Store(error) | WorkspaceError::Sync(SyncError::Store(error))) = error else { return false };
    matches!(error, StoreError::Unreachable { .. } | StoreError::NoStore { .. })
}

/// A missing file is no copy.
pub(super) fn is_missing(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}
