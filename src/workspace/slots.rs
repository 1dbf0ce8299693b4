//! Key slots of an existing workspace: listing, adding, removing, changing, and beginning new key epochs.
//!
//! Works on the store alone, beside whoever has the workspace open. Every change is one conditional write that
//! decides; what is put before it opens nothing yet, and what is removed after it opens nothing any more. So a command
//! that is cut off leaves the old secrets or the new ones in force, and never none.

use std::sync::Arc;

use super::check::Checker;
use super::init::{key, put_checked};
use super::keep::KeyObjects;
use super::{OpenOptions, Result, Workspace, WorkspaceError};
use crate::base::clock::{Clock, Timestamp};
use crate::base::ids::SlotId;
use crate::crypto::slots::{
    Credential, CredentialKind, KdfParams, Member, NewSlot, OpenSlot, SlotError, UnlockError, add_member,
    change_credential, members, new_slot, remove_slot, rotate, slot_facts, unlock_slot,
};
use crate::crypto::{Keys, Sealed, envelope_epoch};
use crate::store::{self, Object, ObjectKey, ObjectStore, PutCondition, StoreError};
use crate::sync::{SyncError, read_head};
use crate::version::head::Head;

/// How often a change is tried while others change the same object.
const ATTEMPTS_MAX: u32 = 8;

/// The key slots of a workspace, opened through one of them.
pub struct KeySlots {
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    credential: Credential,
    keys: Keys,
    slot: OpenSlot,
    header: Vec<u8>,
    conditional_writes: bool,
}

/// A key slot as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// The slot.
    pub id: SlotId,
    /// What people call it; `None` for one that is no member.
    pub label: Option<String>,
    /// What opens it, when its record can be read.
    pub kind: Option<CredentialKind>,
    /// When it was made, when its record can be read.
    pub created: Option<Timestamp>,
    /// Whether it is in order.
    pub state: SlotState,
    /// Whether this is the slot that was opened.
    pub is_own: bool,
}

/// Whether a key slot is in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// It opens the workspace.
    Fit,
    /// It is a member, and its record is gone: nothing opens it.
    Missing,
    /// It is a member, and its record is damaged: nothing opens it.
    Damaged(String),
    /// Its record is there, and it opens nothing: it was removed, or never added to the end.
    LeftOver,
}

impl KeySlots {
    /// Opens the key slots of the workspace in `options.store` with its credential.
    pub fn open(options: &OpenOptions) -> Result<Self> {
        Self::open_in(store::open(&options.store, options.disk.clone())?, options)
    }

    /// As [`open`](Self::open), in a store that is open already.
    ///
    /// # Errors
    ///
    /// As opening a workspace; a store that shows older keys than the state directory remembers is refused.
    pub fn open_in(store: Arc<dyn ObjectStore>, options: &OpenOptions) -> Result<Self> {
        let objects = KeyObjects::fetch(&*store)?;
        let header = objects.header()?;
        let credential = (options.credential)().map_err(|reason| WorkspaceError::NoCredential { reason })?;
        let (keys, slot) = unlock_slot(&objects.header, &objects.slots, &objects.epochs, &credential)?;
        let dir = options.state_dir.join(header.workspace.to_string());
        if let (false, Ok(copies)) = (options.accept_rollback, KeyObjects::read_copies(&*options.disk, &dir)) {
            objects.check_against(&copies, &keys, &slot)?;
        }
        Ok(Self {
            store,
            clock: options.clock.clone(),
            credential,
            keys,
            slot,
            header: objects.header,
            conditional_writes: header.capabilities.conditional_writes,
        })
    }

    /// The opened key ring.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The newest key epoch.
    pub fn epoch(&self) -> u32 {
        self.keys.epoch()
    }

    /// All slots: members as they were added, then what else lies there.
    pub fn list(&self) -> Result<Vec<SlotInfo>> {
        let (objects, members) = self.read()?;
        let info = |id: SlotId, label: Option<String>, record: Option<&Vec<u8>>| {
            let facts = record.map(|record| slot_facts(id, record));
            let state = match (&label, &facts) {
                (None, _) => SlotState::LeftOver,
                (Some(_), Some(Ok(_))) => SlotState::Fit,
                (Some(_), Some(Err(error))) => SlotState::Damaged(error.to_string()),
                (Some(_), None) => SlotState::Missing,
            };
            let facts = facts.and_then(std::result::Result::ok);
            let (kind, created) = (facts.map(|facts| facts.kind), facts.map(|facts| facts.created));
            SlotInfo { id, label, kind, created, state, is_own: id == self.slot.id() }
        };
        let record = |id| objects.slots.iter().find(|(other, _)| *other == id).map(|(_, record)| record);
        let mut found: Vec<SlotInfo> =
            members.iter().map(|member| info(member.id, Some(member.label.clone()), record(member.id))).collect();
        let others = objects.slots.iter().filter(|(id, _)| !members.iter().any(|member| member.id == *id));
        found.extend(others.map(|(id, record)| info(*id, None, Some(record))));
        Ok(found)
    }

    /// The slot that a label or the first digits (at least 4) of an id mean.
    pub fn find(&self, selector: &str) -> Result<SlotId> {
        let slots = self.list()?;
        let labelled: Vec<SlotId> =
            slots.iter().filter(|slot| slot.label.as_deref() == Some(selector)).map(|slot| slot.id).collect();
        let by_digits = |slot: &&SlotInfo| selector.len() >= 4 && slot.id.to_string().starts_with(selector);
        let found = match labelled.is_empty() {
            true => slots.iter().filter(by_digits).map(|slot| slot.id).collect(),
            false => labelled,
        };
        match found.as_slice() {
            [id] => Ok(*id),
            [] => Err(WorkspaceError::NoSuchSlot { selector: selector.to_owned() }),
            _ => Err(WorkspaceError::AmbiguousSlot { selector: selector.to_owned() }),
        }
    }

    /// Adds a slot; it opens everything, as every slot does.
    pub fn add(&self, new: &NewSlot, kdf: KdfParams) -> Result<SlotId> {
        let (member, record) = new_slot(&self.keys, self.clock.now(), new, kdf)?;
        put_checked(&*self.store, &slot_key(member.id), &record, self.condition_absent())?;
        // A rotation may come between; then the slot is added to the epoch that it began as well.
        let added = self.settle(|record| Ok(add_member(&self.keys, &self.header, record, &member)?));
        if added.is_err()
            && let Err(error) = self.store.delete(&slot_key(member.id))
        {
            tracing::warn!("the record of a key slot that was not added stays behind: {error}");
        }
        added.map(|()| member.id)
    }

    /// Removes a slot: its secret opens the workspace no more. Whoever kept its record and the epoch record from before
    /// can read what is stored until the next epoch; [`revoke`](Self::revoke) begins one.
    pub fn remove(&self, id: SlotId) -> Result<()> {
        let is_member = self.check_removal(id)?;
        if is_member {
            let removed = self.settle(|record| {
                let members = members(&self.keys, &self.header, record).map_err(SlotError::from)?;
                match members.iter().any(|member| member.id == id) {
                    true => Ok(Some(remove_slot(&self.keys, &self.header, record, id)?)),
                    false => Ok(None),
                }
            });
            match removed {
                // That was the one that was opened.
                Err(WorkspaceError::Unlock(UnlockError::Removed { id: gone })) if gone == id => {}
                outcome => outcome?,
            }
        }
        Ok(self.store.delete(&slot_key(id))?)
    }

    /// Removes a slot and begins an epoch that it cannot open, sealed to the others; says its number.
    pub fn revoke(&self, id: SlotId) -> Result<u32> {
        self.check_removal(id)?;
        let epoch = self.begin_epoch(&|member| member.id != id)?;
        self.store.delete(&slot_key(id))?;
        Ok(epoch)
    }

    /// Begins a new key epoch: everything is sealed under it from now on. Says its number.
    pub fn rotate(&self) -> Result<u32> {
        self.begin_epoch(&|_| true)
    }

    /// Changes what opens the slot that was opened.
    pub fn change(&self, new: &Credential, kdf: KdfParams) -> Result<()> {
        let name = slot_key(self.slot.id());
        let old = self.store.get(&name)?;
        let sealed = change_credential((self.slot.id(), &old.bytes), &self.credential, new, kdf)?;
        match self.replace(&name, &old, &sealed)? {
            true => Ok(()),
            false => Err(WorkspaceError::KeysChanged { object: name.to_string() }),
        }
    }

    /// The slot that was opened.
    pub fn own(&self) -> SlotId {
        self.slot.id()
    }

    /// Another slot must be left that opens. Says whether the slot is a member.
    fn check_removal(&self, id: SlotId) -> Result<bool> {
        let slots = self.list()?;
        let is_member = slots.iter().any(|slot| slot.id == id && slot.label.is_some());
        if is_member && !slots.iter().any(|slot| slot.id != id && slot.state == SlotState::Fit) {
            return Err(SlotError::LastSlot { id }.into());
        }
        Ok(is_member)
    }

    fn begin_epoch(&self, keep: &dyn Fn(&Member) -> bool) -> Result<u32> {
        let (name, before) = self.newest()?;
        let (next, sealed) = rotate(&self.keys, &self.header, &before.bytes, keep)?;
        let epoch = next.epoch();
        let next_name = epoch_key(epoch);
        match put_checked(&*self.store, &next_name, &sealed, self.condition_absent()) {
            Err(WorkspaceError::Exists { .. }) => {
                return Err(WorkspaceError::KeysChanged { object: next_name.to_string() });
            }
            outcome => outcome?,
        }
        self.keys.adopt(&next);
        // Who was added or removed while this went on is so in the new epoch, too.
        let now = self.store.get(&name)?;
        if now.bytes != before.bytes {
            let epoch_before = self.members_of(&now.bytes, epoch - 1)?;
            self.settle(|record| self.joined(record, &epoch_before, keep))?;
        }
        self.reseal_head()?;
        Ok(epoch)
    }

    /// The members of an earlier epoch's record.
    fn members_of(&self, record: &[u8], epoch: u32) -> Result<Vec<Member>> {
        let keys = self.slot.remembered(&self.header, &[(epoch, record.to_vec())])?;
        Ok(members(&keys, &self.header, record)?)
    }

    /// The newest record with the members that are in `wanted` and approved, or `None` when it has just those.
    fn joined(&self, record: &[u8], wanted: &[Member], keep: &dyn Fn(&Member) -> bool) -> Result<Option<Sealed>> {
        let present = members(&self.keys, &self.header, record)?;
        let missing = wanted.iter().find(|member| keep(member) && !present.iter().any(|other| other.id == member.id));
        if let Some(member) = missing {
            return Ok(add_member(&self.keys, &self.header, record, member)?);
        }
        let surplus = present.iter().find(|member| !wanted.iter().any(|other| other.id == member.id));
        Ok(surplus.map(|member| remove_slot(&self.keys, &self.header, record, member.id)).transpose()?)
    }

    /// Changes the newest epoch record as `change` says, again and again until it has nothing left to change.
    fn settle(&self, change: impl Fn(&[u8]) -> Result<Option<Sealed>>) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            let (name, record) = self.newest()?;
            let Some(sealed) = change(&record.bytes)? else { return Ok(()) };
            self.replace(&name, &record, &sealed)?;
        }
        let (name, record) = self.newest()?;
        match change(&record.bytes)? {
            None => Ok(()),
            Some(_) => Err(WorkspaceError::KeysChanged { object: name.to_string() }),
        }
    }

    /// HEAD names the same as before, sealed under the newest epoch: who is left out cannot read it, and every client
    /// meets the new epoch there.
    fn reseal_head(&self) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            let (head, etag, _) = match read_head(&*self.store, &self.keys) {
                // Somebody rotated once more and has taken care of HEAD.
                Err(error) if error.is_unknown_epoch() => return Ok(()),
                outcome => outcome?,
            };
            let object = self.store.get(&Head::key())?;
            if object.etag != etag {
                continue;
            }
            if envelope_epoch(&object.bytes) >= Some(self.keys.epoch()) {
                return Ok(());
            }
            let mut new = Head { generation: head.generation + 1, time: self.clock.now(), ..head };
            let sealed = new.seal(&self.keys);
            self.replace(&Head::key(), &object, &sealed)?;
        }
        Err(SyncError::Contended { attempts: ATTEMPTS_MAX }.into())
    }

    /// The newest epoch record; `self.keys` has that epoch then.
    fn newest(&self) -> Result<(ObjectKey, Object)> {
        let objects = KeyObjects::fetch(&*self.store)?;
        self.slot.follow(&self.keys, &objects.header, &objects.epochs)?;
        let name = epoch_key(self.keys.epoch());
        let object = self.store.get(&name)?;
        Ok((name, object))
    }

    fn read(&self) -> Result<(KeyObjects, Vec<Member>)> {
        let objects = KeyObjects::fetch(&*self.store)?;
        self.slot.follow(&self.keys, &objects.header, &objects.epochs)?;
        let newest = objects.epochs.iter().find(|(number, _)| *number == self.keys.epoch());
        let record = newest.map(|(_, record)| record.as_slice()).unwrap_or_default();
        let members = members(&self.keys, &self.header, record)?;
        Ok((objects, members))
    }

    /// Replaces an object that is still as it was read; false when it is not.
    fn replace(&self, name: &ObjectKey, old: &Object, new: &Sealed) -> Result<bool> {
        for unquoted in [None, Some(true), Some(false)] {
            if let Some(unquoted) = unquoted {
                self.store.set_unquoted_etags(unquoted);
            }
            let condition = match self.conditional_writes {
                true => PutCondition::IfMatch(old.etag.clone()),
                false => PutCondition::Always,
            };
            match self.store.put(name, new, condition) {
                Ok(_) => return Ok(true),
                Err(StoreError::Precondition { .. } | StoreError::OutcomeUnknown { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let now = self.store.get(name)?;
            if now.bytes == new.as_bytes() {
                return Ok(true);
            }
            if now.bytes != old.bytes {
                return Ok(false);
            }
            // Refused though nothing changed: the server wants tags without quotes, or with them after all.
        }
        Ok(false)
    }

    fn condition_absent(&self) -> PutCondition {
        if self.conditional_writes { PutCondition::IfAbsent } else { PutCondition::Always }
    }
}

impl Workspace {
    /// Learns the epochs that were begun since the workspace was opened; everything is sealed under the newest then.
    pub(super) fn follow_epochs(&self) -> std::result::Result<(), SyncError> {
        let parts = &self.parts;
        let objects = match KeyObjects::fetch(&*parts.store) {
            Ok(objects) => objects,
            Err(WorkspaceError::Store(error)) => return Err(error.into()),
            Err(_) => return Err(StoreError::NotFound { key: key(super::init::HEADER) }.into()),
        };
        parts.slot.follow(&parts.keys, &objects.header, &objects.epochs)?;
        tracing::info!("the workspace has key epoch {} now", parts.keys.epoch());
        if let Err(error) = objects.write_copies(&*parts.options.disk, &parts.dir) {
            tracing::warn!("the local copies of the keys are not up to date: {error}");
        }
        Ok(())
    }
}

impl Checker<'_> {
    /// Looks at what opens the workspace: the header, the newest epoch record and the slots.
    pub(super) fn check_keys(&mut self) -> Result<()> {
        let parts = &self.workspace.parts;
        let objects = match KeyObjects::fetch(&*parts.store) {
            Err(WorkspaceError::NoWorkspace { .. }) => {
                self.problem("kura.json", "missing from the store");
                return Ok(());
            }
            outcome => outcome?,
        };
        match parts.slot.follow(&parts.keys, &objects.header, &objects.epochs) {
            Ok(()) => {}
            Err(error @ UnlockError::DamagedHeader { .. }) => self.problem("kura.json", &error.to_string()),
            Err(error) => self.problem(&format!("epochs/{}", parts.keys.epoch()), &error.to_string()),
        }
        for (id, record) in &objects.slots {
            if let Err(error) = slot_facts(*id, record) {
                self.problem(&format!("keys/{id}"), &error.to_string());
            }
        }
        let newest = objects.epochs.iter().find(|(number, _)| *number == parts.keys.epoch());
        let members = newest.and_then(|(_, record)| members(&parts.keys, &objects.header, record).ok());
        for member in members.iter().flatten() {
            if !objects.slots.iter().any(|(id, _)| *id == member.id) {
                self.problem(&format!("keys/{}", member.id), "missing from the store");
            }
        }
        Ok(())
    }
}

fn slot_key(id: SlotId) -> ObjectKey {
    key(format!("keys/{id}"))
}

fn epoch_key(epoch: u32) -> ObjectKey {
    key(format!("epochs/{epoch}"))
}
