//! Opened chunks, the last used of them, within a bound in bytes.

use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::types::ChunkId;

/// An LRU of plain chunks.
pub struct ChunkCache {
    inner: Mutex<Chunks>,
    bytes_max: u64,
}

struct Chunks {
    lru: LruCache<ChunkId, Arc<[u8]>>,
    bytes: u64,
}

impl ChunkCache {
    /// An empty cache that holds at most `bytes_max` of content.
    pub fn new(bytes_max: u64) -> Self {
        let inner = Mutex::new(Chunks { lru: LruCache::unbounded(), bytes: 0 });
        Self { inner, bytes_max }
    }

    /// A chunk's plain bytes, if they are here.
    pub fn get(&self, id: &ChunkId) -> Option<Arc<[u8]>> {
        self.inner.lock().lru.get(id).cloned()
    }

    /// Takes a chunk in, and lets go of those used longest ago until all fit.
    pub fn put(&self, id: ChunkId, plain: Arc<[u8]>) {
        let mut chunks = self.inner.lock();
        chunks.bytes += plain.len() as u64;
        if let Some((_, old)) = chunks.lru.push(id, plain) {
            chunks.bytes -= old.len() as u64;
        }
        while chunks.bytes > self.bytes_max {
            let Some((_, old)) = chunks.lru.pop_lru() else { break };
            chunks.bytes -= old.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_keeps_the_last_used_within_its_bound() {
        let cache = ChunkCache::new(300);
        for i in 0..4u8 {
            cache.put(ChunkId([i; 32]), vec![i; 100].into());
            cache.get(&ChunkId([0; 32]));
        }
        assert!(cache.get(&ChunkId([0; 32])).is_some());
        assert!(cache.get(&ChunkId([1; 32])).is_none());
        assert!(cache.inner.lock().bytes <= 300);
    }
}
