//! A store that counts, and what the blob tests build workspaces with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kura::base::disk::RealDisk;
use kura::base::ids::{PackId, RunId, WorkspaceId};
use kura::blob::codec::{BlobKind, ChunkRef, encode};
use kura::blob::location::{Location, Place, object_key, pack_key, run_key};
use kura::blob::run::{RunRef, build_run};
use kura::blob::{Blobs, BlobsConfig, Cache, Outbox, PackBuilder};
use kura::crypto::{Keys, Sealed};
use kura::store::{ETag, Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, RangeRequest, Result, StoreError};
use parking_lot::Mutex;
use tempfile::TempDir;

pub fn keys() -> Keys {
    Keys::ephemeral(WorkspaceId::random())
}

/// Reproducible noise.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(len.div_ceil(8)).flatten().collect();
    bytes.truncate(len);
    bytes
}

/// Reproducible text that compresses.
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    let words: Vec<u8> =
        noise(seed, len.div_ceil(6)).iter().flat_map(|byte| format!("word{byte} ").into_bytes()).collect();
    words.into_iter().cycle().take(len).collect()
}

#[derive(Default)]
pub struct CountingStore {
    pub objects: Mutex<BTreeMap<ObjectKey, Vec<u8>>>,
    pub requests: AtomicUsize,
    pub bytes: AtomicUsize,
    pub is_local: AtomicBool,
    pub is_unreachable: AtomicBool,
    pub is_slow: AtomicBool,
}

impl CountingStore {
    pub fn count(&self) -> usize {
        self.requests.swap(0, Ordering::SeqCst)
    }

    pub fn insert(&self, key: ObjectKey, sealed: &Sealed) {
        self.objects.lock().insert(key, sealed.as_bytes().to_vec());
    }

    pub fn change(&self, key: &ObjectKey, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.objects.lock().get_mut(key).expect("the object is there"));
    }
}

impl ObjectStore for CountingStore {
    fn get(&self, key: &ObjectKey) -> Result<Object> {
        let bytes = self.get_range(&RangeRequest { key: key.clone(), offset: 0, len: u64::MAX })?;
        Ok(Object { bytes, etag: ETag(String::new()) })
    }

    fn get_if_changed(&self, key: &ObjectKey, _: &ETag) -> Result<Option<Object>> {
        self.get(key).map(Some)
    }

    fn get_range(&self, request: &RangeRequest) -> Result<Vec<u8>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        if self.is_unreachable.load(Ordering::SeqCst) {
            return Err(StoreError::Unreachable { store: "test".into(), reason: "told so".into() });
        }
        if self.is_slow.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(100));
        }
        let objects = self.objects.lock();
        let Some(object) = objects.get(&request.key) else {
            return Err(StoreError::NotFound { key: request.key.clone() });
        };
        let start = usize::try_from(request.offset).expect("small").min(object.len());
        let end = object.len().min(usize::try_from(request.offset.saturating_add(request.len)).expect("small"));
        self.bytes.fetch_add(end - start, Ordering::SeqCst);
        Ok(object[start..end].to_vec())
    }

    fn put(&self, key: &ObjectKey, sealed: &Sealed, _: PutCondition) -> Result<ETag> {
        self.insert(key.clone(), sealed);
        Ok(ETag(String::new()))
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.objects.lock().remove(key);
        Ok(())
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<()> {
        for (key, bytes) in self.objects.lock().iter().filter(|(key, _)| key.as_str().starts_with(prefix)) {
            each(ObjectInfo { key: key.clone(), len: bytes.len() as u64, modified: None });
        }
        Ok(())
    }

    fn concurrency(&self) -> usize {
        4
    }

    fn is_local(&self) -> bool {
        self.is_local.load(Ordering::SeqCst)
    }

    fn address(&self) -> &str {
        "test"
    }
}

/// A store, a disk directory and keys, with readers to be made over them.
pub struct Bench {
    pub store: Arc<CountingStore>,
    pub keys: Keys,
    pub dir: TempDir,
    pub outbox: Arc<Outbox>,
    pub runs: Vec<RunRef>,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let outbox = Outbox::open(Arc::new(RealDisk), dir.path().join("outbox")).expect("opens");
        Self { store: Arc::default(), keys: keys(), dir, outbox: Arc::new(outbox), runs: Vec::new() }
    }

    pub fn cache(&self, bytes_max: u64) -> Cache {
        Cache::open(Arc::new(RealDisk), self.dir.path().join("cache"), bytes_max).expect("opens")
    }

    /// A fresh reader: nothing in memory.
    pub fn blobs(&self, cache: Option<Cache>) -> Blobs {
        self.blobs_with_memory(cache, 64 << 20)
    }

    pub fn blobs_with_memory(&self, cache: Option<Cache>, memory_limit_bytes: usize) -> Blobs {
        let blobs = Blobs::new(BlobsConfig {
            store: Arc::clone(&self.store) as Arc<dyn ObjectStore>,
            keys: self.keys.clone(),
            outbox: Arc::clone(&self.outbox),
            cache,
            memory_limit_bytes,
        });
        blobs.index().set_runs(self.runs.clone());
        blobs
    }

    /// Puts one pack with the contents into the store and its locations into a run.
    pub fn store_pack(&mut self, contents: &[Vec<u8>]) -> (PackId, Vec<ChunkRef>) {
        let mut builder = PackBuilder::new(self.keys.clone());
        let mut chunks = Vec::new();
        let mut records = Vec::new();
        for content in contents {
            let chunk = ChunkRef::of(&self.keys, BlobKind::Content, content);
            let sealed = encode(&self.keys, BlobKind::Content, chunk.id, content);
            records.push((chunk.id, builder.add(chunk.id, BlobKind::Content, chunk.len, &sealed)));
            chunks.push(chunk);
        }
        let (pack, sealed) = builder.finish();
        self.store.insert(pack_key(pack), &sealed);
        self.store_run(records);
        (pack, chunks)
    }

    /// Puts the content into an object of its own.
    pub fn store_object(&mut self, content: &[u8]) -> (ObjectKey, ChunkRef) {
        let chunk = ChunkRef::of(&self.keys, BlobKind::Content, content);
        let sealed = encode(&self.keys, BlobKind::Content, chunk.id, content);
        let key = object_key(&chunk.id, 0);
        self.store.insert(key.clone(), &sealed);
        let stored_len = u32::try_from(sealed.len()).expect("small");
        let place = Place::Object { generation: 0 };
        self.store_run(vec![(chunk.id, Location { kind: BlobKind::Content, stored_len, len: chunk.len, place })]);
        (key, chunk)
    }

    pub fn store_run(&mut self, mut records: Vec<(kura::base::ids::BlobId, Location)>) -> RunRef {
        records.sort_by_key(|(id, _)| *id);
        records.dedup_by_key(|(id, _)| *id);
        let run = RunRef { id: RunId::random(), count: records.len() as u64 };
        self.store.insert(run_key(run.id), &build_run(&self.keys, run.id, &records));
        self.runs.push(run);
        run
    }
}
