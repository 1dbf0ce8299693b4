//! A least-recently-used map of byte blocks, bounded by their sum.

use std::hash::Hash;
use std::sync::Arc;

use lru::LruCache;

pub(super) struct ByteLru<K: Hash + Eq> {
    blocks: LruCache<K, Arc<[u8]>>,
    bytes: usize,
    bytes_max: usize,
}

/// What an entry costs beside its bytes (key, links, counters), roughly.
const ENTRY_COST: usize = 160;

impl<K: Hash + Eq> ByteLru<K> {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { blocks: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<Arc<[u8]>> {
        self.blocks.get(key).cloned()
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.blocks.contains(key)
    }

    pub(super) fn put(&mut self, key: K, block: Arc<[u8]>) {
        let cost = block.len() + ENTRY_COST;
        if cost > self.bytes_max {
            return;
        }
        self.bytes += cost;
        if let Some(replaced) = self.blocks.put(key, block) {
            self.bytes -= replaced.len() + ENTRY_COST;
        }
        while self.bytes > self.bytes_max {
            let Some((_, gone)) = self.blocks.pop_lru() else { break };
            self.bytes -= gone.len() + ENTRY_COST;
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        let bytes = &mut self.bytes;
        self.blocks.retain(|key, block| {
            let kept = keep(key);
            if !kept {
                *bytes -= block.len() + ENTRY_COST;
            }
            kept
        });
    }
}
