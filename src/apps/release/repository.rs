//! Where releases lie: a directory, an HTTP server, a bucket, or the workspace's own store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use super::error::{ReleaseError, Result};
use super::http::HttpRepository;
use crate::base::clock::Timestamp;
use crate::base::disk::{Disk, OpenMode, RealDisk, create_file, replace_file};
use crate::crypto::SharedKey;
use crate::store::{ObjectKey, ObjectStore, PutCondition, StoreError, StoreUrl, open as open_store};
use crate::workspace::{StoreRecords, Workspace};

/// Where releases are in a store.
const PREFIX: &str = "releases";

/// How a repository is reached, as far as its address does not say it. Secrets are named, not held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// A file with the token that an HTTP server asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    /// A file with the client's certificates, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<String>,
    /// A file with the key of the first of them, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    /// A file with the certificates that the server's must lead to, in PEM; those of the system when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// At most so many bytes a second are fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Files by name. Nothing that comes from it is trusted.
pub trait Repository: Send + Sync {
    /// Reads a file, at most `len_max` bytes and one more; `None` when there is none.
    fn get(&self, name: &str, len_max: u64) -> Result<Option<Vec<u8>>>;
    /// Writes a file, durably.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()>;
    /// Writes a file, durably, unless there is one of that name; whether it did.
    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool>;
    /// Removes a file that may not be there.
    fn remove(&self, name: &str) -> Result<()>;
    /// The names that begin so, sorted.
    fn list(&self, prefix: &str) -> Result<Vec<String>>;
    /// The names that begin so and were written since a time, where that is known.
    fn list_since(&self, _prefix: &str, _since: Timestamp) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    /// Words for it.
    fn address(&self) -> String;
    /// What tells it from all others.
    fn place(&self) -> String {
        self.address()
    }
}

/// Opens a repository: `store`, `s3://…`, `http(s)://…` or an absolute directory. Nothing is asked of it yet, but for a
/// bucket, in which everything is sealed with `wrap`.
pub fn open(address: &str, access: &Access, wrap: &SharedKey, workspace: &Workspace) -> Result<Arc<dyn Repository>> {
    let unfit = |reason: String| ReleaseError::Repository { repository: address.to_owned(), reason };
    let inner: Arc<dyn Repository> = match address.split_once("://") {
        None if address == "store" => Arc::new(StoreRepository(workspace.store_records(PREFIX))),
        Some(("http" | "https", _)) => Arc::new(HttpRepository::open(address, access)?),
        Some(("s3", _)) => {
            let url: StoreUrl = address.parse().map_err(|error: crate::store::UrlError| unfit(error.to_string()))?;
            let store = open_store(&url, Arc::new(RealDisk)).map_err(|error| unfit(error.to_string()))?;
            Arc::new(BucketRepository { store, wrap: wrap.clone() })
        }
        None if Path::new(address).is_absolute() => Arc::new(DirRepository(address.into())),
        _ => return Err(unfit("give `store`, s3://…, https://…, or an absolute directory".to_owned())),
    };
    Ok(match access.limit {
        Some(limit) => Arc::new(Slow { inner, limit: limit.max(1) }),
        None => inner,
    })
}

/// A repository in a directory, readable by anybody who may read the directory.
pub struct DirRepository(pub PathBuf);

/// A repository among the objects of a workspace, sealed as these are.
struct StoreRepository(StoreRecords);

/// A repository in a bucket of its own, sealed with a key that its clients get with the root of trust.
struct BucketRepository {
    store: Arc<dyn ObjectStore>,
    wrap: SharedKey,
}

/// A repository that is read no faster than this many bytes a second.
struct Slow {
    inner: Arc<dyn Repository>,
    limit: u64,
}

fn is_plain(name: &str) -> bool {
    ObjectKey::new(name).is_some()
}

fn unfit_name(name: &str) -> ReleaseError {
    ReleaseError::Name { what: "file of a repository", name: name.to_owned() }
}

fn cut(mut bytes: Vec<u8>, len_max: u64) -> Vec<u8> {
    bytes.truncate(usize::try_from(len_max).unwrap_or(usize::MAX).saturating_add(1));
    bytes
}

impl DirRepository {
    fn failed(&self, error: &std::io::Error) -> ReleaseError {
        ReleaseError::Repository { repository: self.address(), reason: error.to_string() }
    }

    /// Writes a file with `write`, and makes the directories that it lies in.
    fn write(&self, path: &Path, write: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(&self.0);
        let made: Vec<&Path> = [self.0.as_path(), dir].into_iter().filter(|dir| !dir.exists()).collect();
        // What is secret is sealed; a server, or other users, shall be able to read the rest.
        let open_to_all = |path: &Path, mode: u32| rustix::fs::chmod(path, Mode::from_bits_truncate(mode));
        RealDisk
            .create_dir_all(dir)
            .and_then(|()| write())
            .and_then(|()| Ok(made.into_iter().try_for_each(|dir| open_to_all(dir, 0o755))?))
            .and_then(|()| Ok(open_to_all(path, 0o644)?))
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        if is_plain(name) { Ok(self.0.join(name)) } else { Err(unfit_name(name)) }
    }
}

impl Repository for DirRepository {
    fn get(&self, name: &str, len_max: u64) -> Result<Option<Vec<u8>>> {
        match RealDisk.open(&self.path(name)?, OpenMode::Read) {
            Ok(file) => {
                let len = file.len().map_err(|error| self.failed(&error))?.min(len_max.saturating_add(1));
                let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
                let count = file.read_at(&mut bytes, 0).map_err(|error| self.failed(&error))?;
                bytes.truncate(count);
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name)?;
        // A report makes no repository where there is none.
        if name.starts_with("feedback/") {
            RealDisk.list(&self.0).map_err(|error| self.failed(&error))?;
        }
        self.write(&path, || replace_file(&RealDisk, &path, bytes)).map_err(|error| self.failed(&error))
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let path = self.path(name)?;
        match self.write(&path, || create_file(&RealDisk, &path, bytes)) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            done => done.map(|()| true).map_err(|error| self.failed(&error)),
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        match RealDisk.remove(&self.path(name)?) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.failed(&error)),
            _ => Ok(()),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let dir = prefix.rsplit_once('/').map_or("", |(dir, _)| dir);
        let items = match RealDisk.list(&self.0.join(dir)) {
            Ok(items) => items,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed(&error)),
        };
        let name = |name: String| if dir.is_empty() { name } else { format!("{dir}/{name}") };
        let mut names: Vec<String> =
            items.into_iter().filter(|item| !item.is_dir).map(|item| name(item.name)).collect();
        names.retain(|name| name.starts_with(prefix) && is_plain(name));
        names.sort();
        Ok(names)
    }

    fn list_since(&self, prefix: &str, since: Timestamp) -> Result<Vec<String>> {
        let is_new = |name: &String| {
            let modified = self.0.join(name).metadata().and_then(|metadata| metadata.modified());
            modified.is_ok_and(|modified| Timestamp::from_system(modified) >= since)
        };
        Ok(self.list(prefix)?.into_iter().filter(is_new).collect())
    }

    fn address(&self) -> String {
        self.0.display().to_string()
    }
}

impl Repository for StoreRepository {
    fn get(&self, name: &str, len_max: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.0.read(name)?.map(|bytes| cut(bytes, len_max)))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        Ok(self.0.write(name, bytes)?)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        Ok(self.0.create(name, bytes)?)
    }

    fn remove(&self, name: &str) -> Result<()> {
        Ok(self.0.remove(name)?)
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>> {
        Ok(self.0.names(prefix)?)
    }

    fn list_since(&self, prefix: &str, since: Timestamp) -> Result<Vec<String>> {
        let is_new = |time: &Option<Timestamp>| time.is_some_and(|time| time >= since);
        let listed = self.0.listed(prefix)?.into_iter();
        Ok(listed.filter(|(_, time)| is_new(time)).map(|(name, _)| name).collect())
    }

    fn address(&self) -> String {
        "in the workspace's store".to_owned()
    }

    fn place(&self) -> String {
        format!("store {}", self.0.address())
    }
}

impl BucketRepository {
    fn key(name: &str) -> Result<ObjectKey> {
        ObjectKey::new(format!("{PREFIX}/{name}")).ok_or_else(|| unfit_name(name))
    }

    fn failed(&self, error: &StoreError) -> ReleaseError {
        ReleaseError::Repository { repository: self.address(), reason: error.to_string() }
    }
}

impl Repository for BucketRepository {
    fn get(&self, name: &str, len_max: u64) -> Result<Option<Vec<u8>>> {
        let key = Self::key(name)?;
        let sealed = match self.store.get(&key) {
            Ok(object) => object.bytes,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed(&error)),
        };
        let reason = || format!("{name} was not sealed with the key of this repository");
        let untrusted = || ReleaseError::Untrusted { repository: self.address(), reason: reason() };
        Ok(Some(cut(self.wrap.open(key.as_str(), &sealed).ok_or_else(untrusted)?, len_max)))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let key = Self::key(name)?;
        let put = self.store.put(&key, &self.wrap.seal(key.as_str(), bytes), PutCondition::Always);
        put.map(|_| ()).map_err(|error| self.failed(&error))
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let key = Self::key(name)?;
        match self.store.put(&key, &self.wrap.seal(key.as_str(), bytes), PutCondition::IfAbsent) {
            Ok(_) => Ok(true),
            Err(StoreError::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.store.delete(&Self::key(name)?).map_err(|error| self.failed(&error))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let listed = self.store.list(&format!("{PREFIX}/{prefix}"), &mut |info| {
            names.extend(info.key.as_str().strip_prefix("releases/").map(str::to_owned));
        });
        listed.map_err(|error| self.failed(&error))?;
        names.sort();
        Ok(names)
    }

    fn list_since(&self, prefix: &str, since: Timestamp) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let listed = self.store.list(&format!("{PREFIX}/{prefix}"), &mut |info| {
            if info.modified.is_some_and(|time| time >= since) {
                names.extend(info.key.as_str().strip_prefix("releases/").map(str::to_owned));
            }
        });
        listed.map_err(|error| self.failed(&error))?;
        Ok(names)
    }

    fn address(&self) -> String {
        self.store.address().to_owned()
    }
}

impl Repository for Slow {
    fn get(&self, name: &str, len_max: u64) -> Result<Option<Vec<u8>>> {
        let start = std::time::Instant::now();
        let bytes = self.inner.get(name, len_max)?;
        let len = bytes.as_ref().map_or(0, Vec::len) as u64;
        let least = std::time::Duration::from_millis(len.saturating_mul(1000) / self.limit);
        std::thread::sleep(least.saturating_sub(start.elapsed()));
        Ok(bytes)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.inner.put(name, bytes)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        self.inner.create(name, bytes)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.inner.remove(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>> {
        self.inner.list(prefix)
    }

    fn list_since(&self, prefix: &str, since: Timestamp) -> Result<Vec<String>> {
        self.inner.list_since(prefix, since)
    }

    fn address(&self) -> String {
        self.inner.address()
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}
