//! What a client trusts: the metadata of a repository, verified against what it has seen before.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use serde::{Deserialize, Serialize};
use tough::error::Error;
use tough::{
    Bytes, ExpirationEnforcement, IntoVec, RepositoryLoader, TargetName, Transport, TransportError, TransportErrorKind,
    TransportStream, async_trait,
};
use url::Url;

use super::error::{ReleaseError, Result};
use super::package::PACKAGE_LEN_MAX;
use super::repository::Repository;
use super::sign::METADATA_LEN_MAX;
use crate::base::disk::{Disk, RealDisk, read_file, replace_file};

/// The name of the trusted root among what `tough` keeps.
const ROOT: &str = "root.json";
/// The name of the latest time that was seen, among the same.
const KNOWN_TIME: &str = "latest_known_time.json";
/// Nothing signed is longer.
const FILE_LEN_MAX: u64 = if PACKAGE_LEN_MAX > METADATA_LEN_MAX { PACKAGE_LEN_MAX } else { METADATA_LEN_MAX };

/// What a client has seen of a repository; it only ever grows. Kept sealed, outside of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The root that is trusted, as it was signed.
    root: String,
    /// The newest metadata, by name.
    metadata: BTreeMap<String, String>,
}

/// A repository whose metadata was verified.
pub struct Trusted {
    repository: tough::Repository,
    address: String,
    /// Holds what verification reads and writes, in memory where there is a file system for that.
    _place: tempfile::TempDir,
}

/// Runs what is asynchronous; nothing else is under way meanwhile.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ReleaseError::Disk {
        path: "the asynchronous runtime".to_owned(),
        reason: error.to_string(),
    })?;
    Ok(runtime.block_on(future))
}

impl Seen {
    /// Trusts a root that came by a way that is trusted.
    pub fn from_root(root: &serde_json::Value) -> Result<Self> {
        let bad = |reason: String| ReleaseError::Untrusted { repository: "the root that was given".to_owned(), reason };
        let text = root.to_string();
        let signed: tough::schema::Signed<tough::schema::Root> =
            serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        signed.signed.verify_role(&signed).map_err(|error| bad(error.to_string()))?;
        Ok(Self { root: text, metadata: BTreeMap::new() })
    }

    /// What was seen, from another root on. Who gives a root says that the clock is right now.
    #[must_use]
    pub fn rooted(&self, root: Self) -> Self {
        let mut metadata = self.metadata.clone();
        metadata.remove(KNOWN_TIME);
        Self { root: root.root, metadata }
    }

    /// Fetches and verifies the newest metadata. What was seen grows also when it is refused.
    pub fn refresh(&mut self, repository: Arc<dyn Repository>) -> Result<Trusted> {
        let place = private_dir()?;
        self.write(place.path())?;
        let address = repository.address();
        let url =
            |part: &str| Url::parse(&format!("kura://repository/{part}/")).map_err(|error| untrusted(&address, &error));
        let loader = RepositoryLoader::new(&self.root, url("metadata")?, url("targets")?)
            .transport(Fetcher(repository))
            .datastore(place.path())
            .expiration_enforcement(ExpirationEnforcement::Safe);
        let loaded = block_on(loader.load())?;
        let known_time = self.metadata.get(KNOWN_TIME).cloned();
        self.read(place.path())?;
        if matches!(loaded, Err(Error::ExpiredMetadata { .. })) {
            // The clock may be ahead; remembered, its time would be held against the right one.
            self.metadata.remove(KNOWN_TIME);
            self.metadata.extend(known_time.map(|time| (KNOWN_TIME.to_owned(), time)));
        }
        let repository = loaded.map_err(|error| failed(&address, &error))?;
        Ok(Trusted { repository, address, _place: place })
    }

    fn write(&self, dir: &Path) -> Result<()> {
        let write = |(name, text): (&String, &String)| replace_file(&RealDisk, &dir.join(name), text.as_bytes());
        self.metadata.iter().try_for_each(write).map_err(|error| disk(dir, &error))
    }

    fn read(&mut self, dir: &Path) -> Result<()> {
        let mut found = BTreeMap::new();
        for item in RealDisk.list(dir).map_err(|error| disk(dir, &error))? {
            let len_max = usize::try_from(METADATA_LEN_MAX).unwrap_or(usize::MAX);
            let bytes = read_file(&RealDisk, &dir.join(&item.name), len_max).map_err(|error| disk(dir, &error))?;
            found.extend(String::from_utf8(bytes).ok().map(|text| (item.name, text)));
        }
        // A root is written there once it is verified, also when what it signs is refused.
        self.root = found.remove(ROOT).unwrap_or_else(|| std::mem::take(&mut self.root));
        self.metadata = found;
        Ok(())
    }
}

impl Trusted {
    /// A signed file, whole; `None` when the repository offers none of that name.
    pub fn target(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let target = TargetName::new(name).map_err(|error| failed(&self.address, &error))?;
        let read = async {
            match self.repository.read_target(&target).await? {
                Some(stream) => stream.into_vec().await.map(Some),
                None => Ok(None),
            }
        };
        block_on(read)?.map_err(|error| failed(&self.address, &error))
    }
}

fn disk(dir: &Path, error: &std::io::Error) -> ReleaseError {
    ReleaseError::Disk { path: dir.display().to_string(), reason: error.to_string() }
}

fn untrusted(address: &str, error: &dyn std::fmt::Display) -> ReleaseError {
    ReleaseError::Untrusted { repository: address.to_owned(), reason: error.to_string() }
}

/// What cannot be fetched is no sign of an attack; what is longer or other than was signed is.
fn failed(address: &str, error: &Error) -> ReleaseError {
    let mut causes: Vec<&(dyn std::error::Error + 'static)> = vec![error];
    while let Some(cause) = causes.last().and_then(|last| last.source()) {
        causes.push(cause);
    }
    let reason = causes.last().map(ToString::to_string).unwrap_or_default();
    let altered = |cause: &&(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref::<Error>(), Some(Error::HashMismatch { .. } | Error::MaxSizeExceeded { .. }))
    };
    match error {
        Error::ExpiredMetadata { .. } => {
            let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC");
            let advice = "if the clock is right, the publisher has to renew it (`kura release channel`)";
            untrusted(address, &format!("{error} by this machine's clock, which shows {now}; {advice}"))
        }
        Error::SystemTimeSteppedBackward { sys_time, latest_known_time } => {
            let advice = "if the clock is right now, follow the repository again (`kura release follow`)";
            let shows = format!("this machine's clock shows {sys_time}, and showed {latest_known_time} before");
            untrusted(address, &format!("{shows}: {advice}"))
        }
        Error::Transport { .. } if !causes.iter().any(altered) => {
            ReleaseError::Repository { repository: address.to_owned(), reason }
        }
        error => untrusted(address, error),
    }
}

/// A directory for this user alone, in memory where there is a file system for that; gone when it is dropped.
pub(super) fn private_dir() -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("kura-");
        builder
    };
    let made = builder().tempdir_in(memory).or_else(|_| builder().tempdir());
    made.map_err(|error| disk(memory, &error))
}

#[derive(Clone)]
struct Fetcher(Arc<dyn Repository>);

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.address())
    }
}

#[async_trait]
impl Transport for Fetcher {
    async fn fetch(&self, url: Url) -> std::result::Result<TransportStream, TransportError> {
        let name = url.path().trim_start_matches('/');
        // A store of its own may need a runtime of its own, which this thread cannot run within the present one.
        let got = std::thread::scope(|scope| scope.spawn(|| self.0.get(name, FILE_LEN_MAX)).join());
        let ended =
            |_| ReleaseError::Repository { repository: self.0.address(), reason: "its thread ended".to_owned() };
        match got.unwrap_or_else(|panic| Err(ended(panic))) {
            Ok(Some(bytes)) => Ok(Box::pin(Once(Some(Bytes::from(bytes))))),
            Ok(None) => Err(TransportError::new(TransportErrorKind::FileNotFound, &url)),
            Err(error) => Err(TransportError::new_with_cause(TransportErrorKind::Other, &url, error)),
        }
    }
}

/// A stream of one piece.
struct Once(Option<Bytes>);

impl Stream for Once {
    type Item = std::result::Result<Bytes, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.take().map(Ok))
    }
}
