//! Records that applications keep among the objects of the workspace's store, sealed as everything there.

use std::sync::Arc;

use super::{Result, Workspace, WorkspaceError};
use crate::base::clock::Timestamp;
use crate::crypto::{Keys, Kind};
use crate::store::{ObjectKey, ObjectStore, PutCondition, StoreError};
use crate::version::VersionError;

/// The records below one prefix of the store.
#[derive(Clone)]
pub struct StoreRecords {
    store: Arc<dyn ObjectStore>,
    keys: Keys,
    prefix: &'static str,
    read_only: bool,
}

impl Workspace {
    /// The records below `prefix/` in the store.
    pub fn store_records(&self, prefix: &'static str) -> StoreRecords {
        let (store, keys) = (self.parts.store.clone(), self.parts.keys.clone());
        StoreRecords { store, keys, prefix, read_only: self.is_read_only() }
    }
}

impl StoreRecords {
    fn key(&self, name: &str) -> Option<ObjectKey> {
        ObjectKey::new(format!("{}/{name}", self.prefix))
    }

    /// A record; `None` when there is none of that name.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(key) = self.key(name) else { return Ok(None) };
        let sealed = match self.store.get(&key) {
            Ok(object) => object.bytes,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let opened = self.keys.open(Kind::App, key.as_str().as_bytes(), &sealed);
        Ok(Some(opened.map_err(|source| VersionError::Unopened { object: key.to_string(), source })?))
    }

    /// Writes a record durably, in place of an earlier one.
    pub fn write(&self, name: &str, plain: &[u8]) -> Result<()> {
        self.put(name, plain, PutCondition::Always)
    }

    /// Writes a record durably, unless there is one; whether it did.
    pub fn create(&self, name: &str, plain: &[u8]) -> Result<bool> {
        match self.put(name, plain, PutCondition::IfAbsent) {
            Ok(()) => Ok(true),
            Err(WorkspaceError::Store(StoreError::Precondition { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn put(&self, name: &str, plain: &[u8], condition: PutCondition) -> Result<()> {
        if self.read_only {
            return Err(WorkspaceError::ReadOnly);
        }
        let unfit = || WorkspaceError::Unfit { path: name.into(), reason: "nothing can be called so".to_owned() };
        let key = self.key(name).ok_or_else(unfit)?;
        let sealed = self.keys.seal(Kind::App, key.as_str().as_bytes(), plain);
        self.store.put(&key, &sealed, condition)?;
        Ok(())
    }

    /// The store's address, without secrets.
    pub fn address(&self) -> &str {
        self.store.address()
    }

    /// Whether there is a record.
    pub fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.names(name)?.iter().any(|found| found == name))
    }

    /// Removes a record that may not be there.
    pub fn remove(&self, name: &str) -> Result<()> {
        let Some(key) = self.key(name) else { return Ok(()) };
        match self.store.delete(&key) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The names that begin so, sorted.
    pub fn names(&self, start: &str) -> Result<Vec<String>> {
        Ok(self.listed(start)?.into_iter().map(|(name, _)| name).collect())
    }

    /// The names that begin so, sorted, each with the time when it was written, where the store tells it.
    pub fn listed(&self, start: &str) -> Result<Vec<(String, Option<Timestamp>)>> {
        let (mut names, below) = (Vec::new(), format!("{}/", self.prefix));
        self.store.list(&format!("{below}{start}"), &mut |info| {
            names.extend(info.key.as_str().strip_prefix(&below).map(|name| (name.to_owned(), info.modified)));
        })?;
        names.sort();
        Ok(names)
    }
}
