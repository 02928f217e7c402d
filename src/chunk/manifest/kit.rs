//! For tests: chunks in memory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use crate::chunk::{ChunkError, ExtentMap, Manifest, SealedChunk, Sealer, read_range, rebuild};
use crate::types::{ChunkId, ChunkRef};

/// A store of sealed chunks that counts.
pub struct Chunks {
    pub sealer: Sealer,
    pub sealed: RefCell<HashMap<ChunkId, Vec<u8>>>,
    /// Chunks that were stored and not known before.
    pub new_count: Cell<usize>,
    /// Chunks that were opened.
    pub open_count: Cell<usize>,
}

impl Chunks {
    pub fn new() -> Self {
        Self::with(Sealer::new(None, false))
    }

    pub fn with(sealer: Sealer) -> Self {
        let (new_count, open_count) = (Cell::new(0), Cell::new(0));
        Self { sealer, sealed: RefCell::default(), new_count, open_count }
    }

    pub fn emit(&self, chunk: SealedChunk) {
        if self.sealed.borrow_mut().insert(chunk.chunk.id, chunk.bytes).is_none() {
            self.new_count.set(self.new_count.get() + 1);
        }
    }

    pub fn open(&self, chunk: &ChunkRef) -> Result<Arc<[u8]>, ChunkError> {
        self.open_count.set(self.open_count.get() + 1);
        Ok(self.sealer.open(chunk, &self.sealed.borrow()[&chunk.id])?.into())
    }

    pub fn save(&self, manifest: &Manifest) -> ChunkRef {
        let mut emit = |chunk| -> Result<(), ChunkError> {
            self.emit(chunk);
            Ok(())
        };
        manifest.save(&self.sealer, &mut emit).expect("memory takes it")
    }

    pub fn load(&self, root: &ChunkRef) -> Result<Manifest, ChunkError> {
        let mut fetch = |node: &ChunkRef| -> Result<_, ChunkError> {
            self.sealed.borrow().get(&node.id).cloned().ok_or(ChunkError::Sealed(node.id))
        };
        Manifest::load(root, &self.sealer, &mut fetch)
    }

    pub fn rebuild(&self, base: &Manifest, overlay: &ExtentMap, size_bytes: u64) -> Manifest {
        let mut emit = |chunk: SealedChunk| -> Result<(), ChunkError> {
            self.emit(chunk);
            Ok(())
        };
        let mut open = |chunk: &ChunkRef| self.open(chunk);
        rebuild(base, overlay, size_bytes, &self.sealer, &mut open, &mut emit)
            .expect("memory has all chunks")
    }

    pub fn read(
        &self,
        base: &Manifest,
        layers: &[&ExtentMap],
        offset: u64,
        len_bytes: u64,
        size_bytes: u64,
    ) -> Vec<u8> {
        let mut open = |chunk: &ChunkRef| self.open(chunk);
        read_range(base, layers, offset, len_bytes, size_bytes, &mut open)
            .expect("memory has all chunks")
    }
}

/// Bytes without pattern, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}
