//! Making a workspace.
//!
//! `kura.json` is put first, if absent: whoever puts it owns the place. HEAD comes last: a workspace without HEAD was
//! never finished, and the next `init` takes it over.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{InitOptions, InitReport, Result, WorkspaceError};
use crate::base::ids::{BlobId, ClientId, FileId, RunId, VersionId};
use crate::blob::{BlobKind, ChunkRef, PackBuilder, codec, location, run};
use crate::crypto::slots::{Capabilities, Credential, NewSlot, NewWorkspace, RecoveryCode, create_workspace};
use crate::crypto::{IdDomain, Keys, Sealed};
use crate::store::{self, ETag, ObjectKey, ObjectStore, PutCondition, StoreError, StoreUrl};
use crate::version::entry::{Body, Entry, Ino};
use crate::version::head::{CollectionState, Head, RunInForce};
use crate::version::index::{Author, Counts, IndexRecord, Origin, Root, sha256};
use crate::version::tree::{Edits, PageIo, TreeRef};
use crate::version::{VersionError, refs};

pub(super) const HEADER: &str = "kura.json";
/// Where the store was tried out; stays behind when an `init` fails after that.
const PROBE: &str = "probe";

pub(super) fn key(name: impl Into<String>) -> ObjectKey {
    ObjectKey::new(name).unwrap_or_else(|| unreachable!("fixed words, numbers and UUIDs make a name"))
}

/// See [`Workspace::init`](super::Workspace::init).
pub(super) fn init(url: &StoreUrl, options: InitOptions) -> Result<InitReport> {
    if let StoreUrl::Dir(path) = url {
        refuse_occupied(path)?;
        if options.was_there && !path.join(HEADER).exists() {
            return Err(WorkspaceError::Away { store: url.to_string() });
        }
    }
    let store = store::create(url, options.disk.clone())?;
    init_in(&*store, options)
}

/// A directory with anything in it that no store would hold is somebody's.
fn refuse_occupied(path: &std::path::Path) -> Result<()> {
    let names = match std::fs::read_dir(path) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(WorkspaceError::disk(path, &error)),
    };
    for name in names {
        let name = name.map_err(|error| WorkspaceError::disk(path, &error))?.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with('.') || name == HEADER || name == PROBE;
        if !ours && !path.join(HEADER).exists() {
            return Err(WorkspaceError::NotEmpty { store: path.display().to_string(), found: name.into_owned() });
        }
    }
    Ok(())
}

/// See [`Workspace::init_in`](super::Workspace::init_in).
pub(super) fn init_in(store: &dyn ObjectStore, mut options: InitOptions) -> Result<InitReport> {
    let unfinished = unfinished(store)?;
    if options.was_there && unfinished.is_none() {
        return Err(WorkspaceError::Away { store: store.address().to_owned() });
    }
    let found = store::probe(store)?;
    let capabilities = Capabilities { conditional_writes: found.conditional };
    let code = options.recovery_code.then(RecoveryCode::generate);
    options.slots.extend(code.as_ref().map(|code| NewSlot {
        label: "recovery code".to_owned(),
        credential: Credential::RecoveryCode(code.to_secret()),
    }));
    let new = create_workspace(options.clock.now(), capabilities, &options.slots, options.kdf)?;
    claim(store, &new.header, unfinished, found.conditional)?;
    put_keys(store, &new)?;
    let (head, objects) = first_version(&new.keys, &options)?;
    for answer in store.put_many(&objects) {
        answer?;
    }
    let header = store.get(&key(HEADER))?;
    if header.bytes != new.header.as_bytes() {
        return Err(WorkspaceError::Exists { store: store.address().to_owned() });
    }
    put_new(store, &Head::key(), &head, found.conditional)?;
    Ok(InitReport {
        workspace: new.workspace,
        recovery_code: code.map(|code| code.to_text()),
        conditional_writes: found.conditional,
    })
}

/// The tag of a header that was put by an `init` that never finished; fails when a workspace is there.
fn unfinished(store: &dyn ObjectStore) -> Result<Option<ETag>> {
    let header = match store.get(&key(HEADER)) {
        Ok(header) => header,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match store.get(&Head::key()) {
        Err(StoreError::NotFound { .. }) => match without_head(store)? {
            WorkspaceError::Unfinished { .. } => Ok(Some(header.etag)),
            lost => Err(lost),
        },
        Ok(_) => Err(WorkspaceError::Exists { store: store.address().to_owned() }),
        Err(error) => Err(error.into()),
    }
}

/// Whether the store says that there is no HEAD.
pub(super) fn has_no_head(store: &dyn ObjectStore) -> bool {
    matches!(store.get(&Head::key()), Err(StoreError::NotFound { .. }))
}

/// What a workspace without HEAD is: one that was never finished, or one that was used and has lost it. An `init` that
/// is cut off leaves one version at most, since the next one takes away what it finds.
pub(super) fn without_head(store: &dyn ObjectStore) -> Result<WorkspaceError> {
    let count = |prefix| -> Result<usize> {
        let mut count = 0;
        store.list(prefix, &mut |_| count += 1)?;
        Ok(count)
    };
    let store_name = store.address().to_owned();
    Ok(match count("objects/")? > 0 || count("packs/")? > 1 || count("indexes/")? > 1 {
        true => WorkspaceError::HeadLost { store: store_name },
        false => WorkspaceError::Unfinished { store: store_name },
    })
}

/// Makes the place ours by its header.
fn claim(store: &dyn ObjectStore, header: &Sealed, unfinished: Option<ETag>, conditional: bool) -> Result<()> {
    let Some(etag) = unfinished else { return put_new(store, &key(HEADER), header, conditional) };
    tracing::info!("{}: an `init` that never finished is taken over", store.address());
    let condition = if conditional { PutCondition::IfMatch(etag) } else { PutCondition::Always };
    put_checked(store, &key(HEADER), header, condition)?;
    let mut left = Vec::new();
    for prefix in ["keys/", "packs/", "locations/", "indexes/"] {
        store.list(prefix, &mut |info| left.push(info.key))?;
    }
    for key in left {
        store.delete(&key)?;
    }
    Ok(())
}

fn put_new(store: &dyn ObjectStore, key: &ObjectKey, sealed: &Sealed, conditional: bool) -> Result<()> {
    let condition = if conditional { PutCondition::IfAbsent } else { PutCondition::Always };
    put_checked(store, key, sealed, condition)
}

/// Puts an object and, when the answer does not tell, reads back whether it is there.
pub(super) fn put_checked(
    store: &dyn ObjectStore,
    key: &ObjectKey,
    sealed: &Sealed,
    condition: PutCondition,
) -> Result<()> {
    match store.put(key, sealed, condition) {
        Ok(_) => Ok(()),
        Err(error @ (StoreError::Precondition { .. } | StoreError::OutcomeUnknown { .. })) => match store.get(key) {
            Ok(object) if object.bytes == sealed.as_bytes() => Ok(()),
            Ok(_) => Err(WorkspaceError::Exists { store: store.address().to_owned() }),
            Err(StoreError::NotFound { .. }) => Err(error.into()),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

fn put_keys(store: &dyn ObjectStore, new: &NewWorkspace) -> Result<()> {
    for (id, slot) in &new.slots {
        put_checked(store, &key(format!("keys/{id}")), slot, PutCondition::Always)?;
    }
    put_checked(store, &key("epochs/0"), &new.epoch0, PutCondition::Always)
}

/// The empty root directory as the first version: HEAD, and the objects that go before it.
fn first_version(keys: &Keys, options: &InitOptions) -> Result<(Sealed, Vec<(ObjectKey, Sealed)>)> {
    let now = options.clock.now();
    let client = ClientId::random();
    let dir = Entry {
        ino: Ino::ROOT,
        file_id: FileId::random(),
        mode: 0o755,
        uid: nix::unistd::Uid::effective().as_raw(),
        gid: nix::unistd::Gid::effective().as_raw(),
        atime: now,
        mtime: now,
        ctime: now,
        xattrs: BTreeMap::new(),
        body: Body::Directory { names: TreeRef::default(), subdirs: 0 },
    };
    let record = IndexRecord {
        id: VersionId::at(now),
        parents: Vec::new(),
        parents_digest: IndexRecord::digest_of_parents(&[]),
        generation: 1,
        time: now,
        author: Author { client, host: options.host.clone(), user: options.user.clone() },
        origin: Origin::Init,
        message: None,
        root: Root { dir, links: TreeRef::default(), digests: TreeRef::default() },
        counts: Counts::default(),
    };
    let pages = FreshPages { keys, new: Mutex::default() };
    let mut edits = Edits::new();
    refs::add_version(&mut edits, &record);
    let refs = TreeRef::default().edit(&pages, &edits)?;
    let mut pack = PackBuilder::new(keys.clone());
    let mut records = Vec::new();
    for (id, bytes) in pages.new.into_inner() {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        records.push((id, pack.add(id, BlobKind::Page, len, &codec::encode(keys, BlobKind::Page, id, &bytes))));
    }
    let (pack_id, pack) = pack.finish();
    let run_id = RunId::at(now);
    let mut head = Head {
        generation: 1,
        version: record.id,
        version_digest: record.digest(),
        refs,
        runs: vec![RunInForce { id: run_id, count: records.len() as u64 }],
        collection: 0,
        collection_state: CollectionState::Idle,
        writer: client,
        time: now,
        nonce: [0; 16],
    };
    let objects = vec![
        (location::pack_key(pack_id), pack),
        (location::run_key(run_id), run::build_run(keys, run_id, &records)),
        (IndexRecord::key(record.id), record.seal(keys)),
    ];
    Ok((head.seal(keys), objects))
}

/// Pages of a workspace that has none yet.
struct FreshPages<'a> {
    keys: &'a Keys,
    new: Mutex<BTreeMap<BlobId, Vec<u8>>>,
}

impl PageIo for FreshPages<'_> {
    fn load(&self, page: &ChunkRef) -> crate::version::Result<std::sync::Arc<[u8]>> {
        let bytes = self.new.lock().get(&page.id).map(|bytes| bytes.as_slice().into());
        bytes
            .ok_or_else(|| VersionError::Damaged { object: format!("page {}", page.id), reason: "no such page".into() })
    }

    fn save(&self, bytes: &[u8]) -> crate::version::Result<ChunkRef> {
        let id = self.keys.id(IdDomain::Page, &sha256(bytes));
        self.new.lock().insert(id, bytes.to_vec());
        Ok(ChunkRef { id, len: u32::try_from(bytes.len()).unwrap_or(u32::MAX) })
    }
}
