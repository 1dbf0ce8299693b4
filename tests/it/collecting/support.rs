//! What a store must hold, told independently of the collector.

use std::collections::BTreeSet;
use std::sync::Arc;

use kura::base::disk::RealDisk;
use kura::blob::{BlobKind, Blobs, BlobsConfig, ChunkRef, Outbox, RunRef};
use kura::crypto::Keys;
use kura::store::{MemoryStore, ObjectStore};
use kura::sync::read_head;
use kura::version::index::IndexRecord;
use kura::version::pages::Pages;
use kura::version::reach::{Reach, TreeKind, reach, trees_of};
use kura::version::refs;

struct Reader<'a> {
    blobs: &'a Blobs,
    keys: &'a Keys,
    seen: BTreeSet<[u8; 32]>,
}

impl Reach for Reader<'_> {
    fn page(&mut self, page: &ChunkRef) -> kura::version::Result<bool> {
        Ok(self.seen.insert(*page.id.as_bytes()))
    }

    fn content(&mut self, chunk: &ChunkRef) -> kura::version::Result<()> {
        if self.seen.insert(*chunk.id.as_bytes()) {
            let bytes = self.blobs.read(BlobKind::Content, chunk)?;
            assert!(BlobKind::Content.id_of(self.keys, &bytes) == chunk.id);
        }
        Ok(())
    }
}

/// Reads everything that HEAD leads to, with nothing but the store; says how many versions that are.
pub fn read_all(memory: &Arc<MemoryStore>, keys: &Keys) -> Result<usize, String> {
    let blobs = Blobs::new(BlobsConfig {
        store: memory.clone(),
        keys: keys.clone(),
        outbox: Arc::new(Outbox::none(Arc::new(RealDisk))),
        cache: None,
        memory_limit_bytes: 1 << 20,
    });
    let (head, _, _) = read_head(&**memory, keys).map_err(|error| error.to_string())?;
    blobs.index().set_runs(head.runs.iter().map(|run| RunRef { id: run.id, count: run.count }).collect());
    let io = Pages(&blobs);
    let mut reader = Reader { blobs: &blobs, keys, seen: BTreeSet::new() };
    reach(&io, &[(head.refs, TreeKind::Refs)], &mut reader).map_err(|error| format!("the refs: {error}"))?;
    let versions = refs::versions(&head.refs, &io).map_err(|error| error.to_string())?;
    for version in &versions {
        let object = memory.get(&IndexRecord::key(version.id)).map_err(|error| error.to_string())?;
        let record = IndexRecord::open(keys, version.id, &object.bytes).map_err(|error| error.to_string())?;
        reach(&io, &trees_of(&record), &mut reader).map_err(|error| format!("version {}: {error}", version.id))?;
    }
    assert!(versions.iter().any(|version| version.id == head.version), "HEAD's version is listed");
    Ok(versions.len())
}
